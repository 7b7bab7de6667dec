// From a picture to the keypoints of every face in it, as fkp/pipeline.py does it.

import { type DetectorConfig, type Detections, type Network, detect } from "./detector";
import * as geometry from "./geometry";
import type { Box } from "./geometry";
import type { Affine, Picture } from "./pixels";

/** What config.json says, in the same names as in Python. */
export interface Config {
  format: number;
  fkp_version: string;
  keypoints: { crop_size: number; margin: number };
  detector: DetectorConfig;
}

export interface Options {
  minScore?: number | undefined;
  maxFaces?: number | undefined;
}

/** One face; coordinates are pixels of the picture, points are flat: x0, y0, x1, y1, … */
export interface Face {
  box: Box;
  score: number;
  keypoints: Float32Array;
  keypointScores: Float32Array;
  sigmas: Float32Array;
  visibility: Float32Array;
}

export interface Networks {
  detector: Network;
  keypoints: Network;
}

const BATCH = 16;
const RADIUS = 0.05;

export class Pipeline {
  constructor(private readonly networks: Networks, private readonly config: Config) {}

  /** Every face in a picture, largest first. */
  async faces(picture: Picture, options: Options): Promise<Face[]> {
    const { boxes, scores } = await this.detect(picture, options);
    return this.keypointsAt(picture, boxes, scores);
  }

  /** The same without keypoints. */
  async detect(picture: Picture, { minScore, maxFaces = Infinity }: Options): Promise<Detections> {
    const found = await detect(picture, this.networks.detector, this.config.detector, minScore);
    const area = (i: number) => geometry.width(found.boxes[i]!) * geometry.height(found.boxes[i]!);
    const seen = found.boxes.map((_, i) => i).filter((i) => {
      const [x1, y1, x2, y2] = found.boxes[i]!;
      return x2 >= -0.5 && y2 >= -0.5 && x1 <= picture.width - 0.5 && y1 <= picture.height - 0.5;
    });
    const kept = seen.sort((a, b) => area(b) - area(a)).slice(0, maxFaces);
    return { boxes: kept.map((i) => found.boxes[i]!), scores: kept.map((i) => found.scores[i]!) };
  }

  /** Keypoints of the faces in known tight boxes, in their order. */
  async keypointsAt(picture: Picture, boxes: Box[], scores: number[]): Promise<Face[]> {
    const { crop_size, margin } = this.config.keypoints;
    const looks = await this.look(picture, boxes.map((box) => geometry.aroundBox(box, crop_size, margin)));
    return looks.map((look, i) => ({ box: boxes[i]!, score: scores[i]!, ...look }));
  }

  /** One pass over faces, each in a crop. */
  private async look(picture: Picture, crops: Affine[]): Promise<Omit<Face, "box" | "score">[]> {
    const size = this.config.keypoints.crop_size, faces = [];
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
        const points = keypoints!.slice(136 * i, 136 * i + 136), spreads = sigmas!.slice(68 * i, 68 * i + 68);
        const apart = geometry.interOcular(points), scale = geometry.enlargement(crop);
        faces.push({
          keypoints: new Float32Array(geometry.moved(geometry.inverse(crop), points)),
          keypointScores: spreads.map((sigma) => scoreFromSpread(sigma, apart)),
          sigmas: spreads.map((sigma) => sigma / scale),
          visibility: visibility!.slice(68 * i, 68 * i + 68),
        });
      }
    }
    return faces;
  }
}

/** P(a point lies within 5 % of the inter-ocular distance of the truth): its error is radial Laplace. */
export function scoreFromSpread(sigma: number, interOcular: number): number {
  const ratio = (2 * RADIUS * interOcular) / Math.max(sigma, 1e-6);
  return 1 - (1 + ratio) * Math.exp(-ratio);
}
