// From a picture to the keypoints of every face in it, as fkp/pipeline.py does it with passes="auto".

import { type DetectorConfig, type Detections, type Network, detect } from "./detector";
import * as geometry from "./geometry";
import type { Box } from "./geometry";
import type { Affine, Picture } from "./pixels";

/** What config.json says, in the same names as in Python. */
export type Config = { fkp_version: string; keypoints: { crop_size: number; margin: number }; detector: DetectorConfig };

export interface Options {
  /** Least confidence of a face, 0..1; by default the detector's own. */
  minScore?: number | undefined;
  /** Only so many, the largest. */
  maxFaces?: number | undefined;
}

/** One face; coordinates are pixels of the picture, points are flat: x0, y0, x1, y1, … */
export type Face = Placed & { box: Box; score: number };

type Placed = Record<"keypoints" | "keypointScores" | "sigmas" | "visibility", Float32Array>;

// The numbers and their reasons are those of fkp/pipeline.py.
const RADIUS = 0.05, UNSURE = 0.5, SURER = 0.9, NO_FACE = 0.12, SURE_FACE = 0.9, BATCH = 16;

const sureness = (placed: Placed) => geometry.mean(placed.keypointScores);

export class Pipeline {
  constructor(private readonly networks: { detector: Network; keypoints: Network }, private readonly config: Config, private readonly int8: boolean) {}

  /** Every face in a picture, largest first. */
  async faces(picture: Picture, { minScore, maxFaces = Infinity }: Options): Promise<Face[]> {
    const found = await this.detect(picture, minScore), waiting = [...found.boxes.keys()], faces: Face[] = [];
    const lacking = () => Math.floor(maxFaces - faces.length);
    // Boxes that hold no face do not count: for each of them the next largest is looked at.
    while (waiting.length && lacking() > 0) {
      const placed = await this.keypointsAt(picture, rows(found, waiting.splice(0, lacking())));
      faces.push(...placed.filter((face) => sureness(face) >= NO_FACE));
    }
    return faces;
  }

  /** The same without keypoints, and so with boxes that these would show to hold no face. */
  async detect(picture: Picture, minScore?: number): Promise<Required<Detections>> {
    const first = await this.found(picture, minScore);
    let found = { ...first, turns: first.boxes.map(() => 0) };
    if (!found.scores.some((score) => score >= SURE_FACE)) {
      for (const turn of [1, 2, 3]) {
        const { boxes, scores } = await this.found(geometry.turned(picture, turn), minScore);
        for (const [i, score] of scores.entries()) {
          if (score < SURE_FACE) continue;
          found.boxes.push(geometry.turnedBack(boxes[i]!, turn, picture));
          found.scores.push(score);
          found.turns.push(turn);
        }
      }
      found = rows(found, geometry.suppress(found.boxes, found.scores, this.config.detector.max_iou));
    }
    const area = found.boxes.map((box) => geometry.width(box) * geometry.height(box));
    return rows(found, [...area.keys()].sort((a, b) => area[b]! - area[a]!));
  }

  private async found(picture: Picture, minScore: number | undefined): Promise<Detections> {
    const found = await detect(picture, this.networks.detector, this.config.detector, minScore);
    const seen = [...found.boxes.keys()].filter((i) => {
      const [x1, y1, x2, y2] = found.boxes[i]!;
      return x2 >= -0.5 && y2 >= -0.5 && x1 <= picture.width - 0.5 && y1 <= picture.height - 0.5;
    });
    return { boxes: seen.map((i) => found.boxes[i]!), scores: seen.map((i) => found.scores[i]!) };
  }

  /** Keypoints of the faces in known tight boxes, in their order: one pass, and for those that come out unsure more,
   * at quarter turns, upright and framed by their points; one with a clearly smaller expected error is taken. */
  async keypointsAt(picture: Picture, { boxes, scores, turns }: Detections): Promise<Face[]> {
    const { crop_size, margin } = this.config.keypoints;
    const reproducible = (crop: Affine) => (this.int8 ? geometry.rounded(crop, crop_size) : crop);
    const crops = (some: number[], turn: number) =>
      some.map((i) => reproducible(geometry.aroundBox(boxes[i]!, crop_size, margin, 90 * (((turns?.[i] ?? 0) + turn) % 4))));
    const all = [...boxes.keys()];
    const used = crops(all, 0);
    const placed = await this.pass(picture, used);
    const unsure = all.filter((i) => sureness(placed[i]!) < UNSURE);
    const again = async (tried: Affine[]) => {
      for (const [at, other] of (await this.pass(picture, tried)).entries()) {
        const i = unsure[at]!;
        if (geometry.mean(other.sigmas) < SURER * geometry.mean(placed[i]!.sigmas)) [placed[i], used[i]] = [other, tried[at]!];
      }
    };
    if (unsure.length) {
      for (const turn of [1, 2, 3]) await again(crops(unsure, turn));
      await again(unsure.map((i) => {
        const framed = geometry.upright(placed[i]!.keypoints, crop_size, margin);
        return framed ? reproducible(framed) : used[i]!;
      }));
    }
    return placed.map((each, i) => ({ box: boxes[i]!, score: scores[i]!, ...each }));
  }

  /** One pass of the network over faces, each in a crop. */
  private async pass(picture: Picture, crops: Affine[]): Promise<Placed[]> {
    const size = this.config.keypoints.crop_size, faces: Placed[] = [];
    for (let start = 0; start < crops.length; start += BATCH) {
      const some = crops.slice(start, start + BATCH), planes = new Uint8Array(some.length * 3 * size * size);
      for (const [i, crop] of some.entries()) {
        const { data } = geometry.crop(picture, crop, size);
        for (let c = 0; c < 3; c++) {
          for (let at = c, to = (3 * i + c) * size * size; at < data.length; at += 3) planes[to++] = data[at]!;
        }
      }
      const { keypoints, sigmas, visibility } = await this.networks.keypoints(planes, [some.length, 3, size, size]);
      for (const [i, crop] of some.entries()) {
        const points = keypoints!.slice(136 * i, 136 * i + 136), errors = sigmas!.slice(68 * i, 68 * i + 68);
        const apart = geometry.interOcular(points), scale = geometry.enlargement(crop);
        faces.push({
          keypoints: new Float32Array(geometry.moved(geometry.inverse(crop), points)),
          keypointScores: errors.map((sigma) => scoreFromSigma(sigma, apart)),
          sigmas: errors.map((sigma) => sigma / scale),
          visibility: visibility!.slice(68 * i, 68 * i + 68),
        });
      }
    }
    return faces;
  }
}

/** P(a point lies within 5 % of the inter-ocular distance of the truth): its error is radial Laplace. */
function scoreFromSigma(sigma: number, interOcular: number): number {
  const ratio = (2 * RADIUS * interOcular) / Math.max(sigma, 1e-6);
  return 1 - (1 + ratio) * Math.exp(-ratio);
}

const rows = ({ boxes, scores, turns }: Required<Detections>, chosen: number[]) =>
  ({ boxes: chosen.map((i) => boxes[i]!), scores: chosen.map((i) => scores[i]!), turns: chosen.map((i) => turns[i]!) });
