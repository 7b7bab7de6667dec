// Graphs and config.json of format 2, until those of format 3 are there.
import type { Network } from "./detector";
import type { Config } from "./pipeline";

export function adapted(keypoints: Network, config: Config & { keypoints: { leans?: number[]; temperatures?: number[] } }): Network {
  config.detector.strides ??= [8, 16, 32];
  config.detector.prior ??= 4;
  const { leans, temperatures, crop_size, margin } = config.keypoints;
  if (!leans || !temperatures) return keypoints;
  const style = 1;
  return async (planes, dims) => {
    const out = await keypoints(planes, dims);
    return {
      keypoints: out.keypoints!.map((value, i) => value + (leans[2 * style + (i % 2)]! * crop_size) / margin),
      sigmas: out.spreads!.map((value) => value * temperatures[style]!),
      visibility: out.spreads!.map(() => NaN),
    };
  };
}
