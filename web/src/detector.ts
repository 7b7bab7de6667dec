// The face detector: a picture in, boxes out, as fkp/detector.py does it.

import { type Box, height, iou, longerSide, suppress, width } from "./geometry";
import { means, type Picture, resize, roundEven } from "./pixels";

/** The section `detector` of config.json; the same names, meanings and units as in Python. */
type Numbers = "least_size" | "input_size" | "coarse_size" | "fine_pixels" | "enlargement" | "enlarged_pixels" | "min_score" | "max_iou";
export type DetectorConfig = Record<Numbers, number> & { bias: [number, number, number, number]; calibration: [number, number] };

/** What a network gives for planes (n, 3, h, w): its outputs by name. */
export type Network = (planes: Uint8Array, dims: number[]) => Promise<Record<string, Float32Array>>;

export type Detections = { boxes: Box[]; scores: number[]; turns?: number[] }; // turns: quarters counter-clockwise that put each upright

// The numbers and their reasons are those of fkp/detector.py.
const STRIDES = [8, 16, 32], PRIOR = 4, GREY = 128, SMALLEST = 10, LARGEST = 256, COARSEST = 48, MOST_BOXES = 5000, VOTE_IOU = 0.65, VOTE_SCORE = 0.5;

/** Tight boxes in pixels of the picture, and their scores, best first; `minScore` by default as configured. */
export async function detect(picture: Picture, network: Network, config: DetectorConfig, minScore = config.min_score): Promise<Detections> {
  const [coarse, ...others] = scales(picture, config), voting = VOTE_SCORE * minScore;
  const all = await pass(picture, network, config, coarse!, voting, COARSEST, Infinity);
  for (const scale of others) {
    // What is larger, the pass before sees whole, and better.
    const { boxes, scores } = await pass(picture, network, config, scale, voting, 0, LARGEST);
    all.boxes.push(...boxes);
    all.scores.push(...scores);
  }
  const best = suppress(all.boxes, all.scores, config.max_iou).filter((i) => all.scores[i]! >= minScore);
  const part = partsOfFaces(best.map((i) => all.boxes[i]!));
  const faces = best.filter((_, i) => !part[i]);
  return { boxes: faces.map((i) => corrected(voted(all, i), config.bias)), scores: faces.map((i) => all.scores[i]!) };
}

/** The scales of the passes over a picture, the smallest first: two, or three for a big one. */
export function scales({ width, height }: Picture, config: DetectorConfig): number[] {
  const longer = Math.max(height, width), pixels = height * width;
  const first = Math.min(Math.max(longer, config.least_size), config.input_size) / longer;
  const passes = [config.coarse_size / longer, first];
  if (longer > config.input_size) {
    const enlarged = Math.min(config.enlargement, Math.sqrt(config.enlarged_pixels / pixels));
    const fine = Math.max(enlarged, Math.min(1, Math.sqrt(config.fine_pixels / pixels)));
    if (fine >= 1.15 * first) passes.push(fine);
  }
  return passes;
}

/** One pass of the network over a picture at a scale: boxes with a longer side of `least` to `largest` pixels there. */
async function pass(picture: Picture, network: Network, config: DetectorConfig, scale: number, minScore: number, least: number, largest: number): Promise<Detections> {
  const [slope, intercept] = config.calibration;
  const { planes, dims, scaleX, scaleY } = fit(picture, scale);
  const { logits, offsets } = await network(planes, dims);
  let sure: { score: number; cell: number; x: number; y: number; stride: number }[] = [], cell = 0;
  for (const stride of STRIDES) {
    for (let y = 0; y < dims[2]! / stride; y++) {
      for (let x = 0; x < dims[3]! / stride; x++, cell++) {
        const score = 1 / (1 + Math.exp(-slope * logits![cell]! - intercept));
        if (score >= minScore) sure.push({ score, cell, x, y, stride });
      }
    }
  }
  if (sure.length > MOST_BOXES) sure = sure.sort((a, b) => b.score - a.score).slice(0, MOST_BOXES);
  const boxes: Box[] = [], scores: number[] = [], smallest = Math.max(least, SMALLEST * Math.max(1, scale));
  // Edges at −½: the inverse of how `fit` placed the picture.
  const back = (value: number, scale: number) => (value + 0.5) / scale - 0.5;
  for (const { score, cell, x, y, stride } of sure) {
    const [dx, dy, w, h] = offsets!.subarray(4 * cell, 4 * cell + 4);
    const centreX = (x + 0.5 + dx!) * stride - 0.5, centreY = (y + 0.5 + dy!) * stride - 0.5;
    const [halfX, halfY] = [w!, h!].map((log) => Math.exp(Math.min(Math.max(log, -3), 3)) * (PRIOR / 2) * stride);
    const side = 2 * Math.max(halfX!, halfY!);
    if (side < smallest || side > largest) continue;
    boxes.push([
      back(centreX - halfX!, scaleX), back(centreY - halfY!, scaleY),
      back(centreX + halfX!, scaleX), back(centreY + halfY!, scaleY),
    ]);
    scores.push(score);
  }
  return { boxes, scores };
}

/** The picture scaled, padded with grey on the right and at the bottom, as planes (1, 3, h, w); and its scale. */
function fit(picture: Picture, scale: number) {
  const wide = Math.max(1, roundEven(picture.width * scale)), high = Math.max(1, roundEven(picture.height * scale));
  let from = picture, times = 1; // linear would leave pixels out
  for (; from.width >= 2 * wide && from.height >= 2 * high; times *= 2) from = means(from, 2, 2);
  const { data } = wide === from.width && high === from.height ? from : resize(from, wide, high, "linear");
  const step = STRIDES.at(-1)!, w = step * Math.ceil(wide / step), h = step * Math.ceil(high / step);
  const planes = new Uint8Array(3 * h * w).fill(GREY);
  for (let c = 0; c < 3; c++) {
    for (let y = 0, at = c; y < high; y++) {
      for (let x = 0, to = (c * h + y) * w; x < wide; x++, at += 3) planes[to + x] = data[at]!;
    }
  }
  return { planes, dims: [1, 3, h, w], scaleX: wide / (times * from.width), scaleY: high / (times * from.height) };
}

/** Box voting: the mean of the boxes that tell the same face, by their scores. */
function voted({ boxes, scores }: Detections, best: number): Box {
  const sum = [0, 0, 0, 0];
  let total = 0;
  for (let i = 0; i < boxes.length; i++) {
    if (scores[i]! < VOTE_SCORE * scores[best]! || iou(boxes[best]!, boxes[i]!) < VOTE_IOU) continue;
    const weight = Math.max(scores[i]!, 1e-9);
    total += weight;
    for (let side = 0; side < 4; side++) sum[side]! += weight * boxes[i]![side]!;
  }
  return sum.map((each) => each / total) as Box;
}

/** The box without the network's bias: right and down in shares of the longer side, logarithms of the sizes. */
function corrected(box: Box, [right, down, wider, higher]: DetectorConfig["bias"]): Box {
  const x = (box[0] + box[2]) / 2 - right * longerSide(box), y = (box[1] + box[3]) / 2 - down * longerSide(box);
  const halfX = (width(box) * Math.exp(-wider)) / 2, halfY = (height(box) * Math.exp(-higher)) / 2;
  return [x - halfX, y - halfY, x + halfX, y + halfY];
}

/** Which boxes, best scored first, are a part of a face or made up around one. */
function partsOfFaces(boxes: Box[]): boolean[] {
  const within = (i: Box, j: Box) => {
    const x = (i[0] + i[2] - j[0] - j[2]) / width(j), y = (i[1] + i[3] - j[1] - j[3]) / height(j);
    return x * x + y * y < 1 && longerSide(i) <= longerSide(j) / 2;
  };
  const dropped: boolean[] = [];
  for (const [i, box] of boxes.entries()) {
    dropped.push(boxes.slice(0, i).some((other, j) => !dropped[j] && (within(box, other) || within(other, box))));
  }
  return dropped;
}
