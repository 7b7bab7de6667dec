// Boxes, and the affine crops that move pixels and points together. Integers are pixel centres, boxes are
// [x1, y1, x2, y2], points are flat: x0, y0, x1, y1, …

import { type Affine, type Picture, resize, roundEven, warp } from "./pixels";
import scheme from "./scheme.json";

export type Box = [number, number, number, number];
export type Points = Float32Array | Float64Array;

export const width = (box: Box) => box[2] - box[0];
export const height = (box: Box) => box[3] - box[1];
export const longerSide = (box: Box) => Math.max(width(box), height(box));
export const mean = (numbers: ArrayLike<number>) => Array.from(numbers).reduce((sum, each) => sum + each, 0) / numbers.length;

/** The smallest box around points. */
export function tightBox(points: Points): Box {
  const box: Box = [Infinity, Infinity, -Infinity, -Infinity];
  for (let i = 0; i < points.length; i++) {
    box[i % 2] = Math.min(box[i % 2]!, points[i]!);
    box[2 + (i % 2)] = Math.max(box[2 + (i % 2)]!, points[i]!);
  }
  return box;
}

/** Intersection over union; 0 where either is empty. */
export function iou(one: Box, other: Box): number {
  const overlap = (axis: number) => Math.max(0, Math.min(one[axis + 2]!, other[axis + 2]!) - Math.max(one[axis]!, other[axis]!));
  const area = (box: Box) => Math.max(0, width(box)) * Math.max(0, height(box));
  const intersection = overlap(0) * overlap(1), union = area(one) + area(other) - intersection;
  return union > 0 ? intersection / union : 0;
}

/** Indices of boxes, best scored first, without those whose IoU with a better one is over `maxIou`. */
export function suppress(boxes: Box[], scores: ArrayLike<number>, maxIou: number): number[] {
  const kept: number[] = [];
  for (const i of boxes.map((_, i) => i).sort((a, b) => scores[b]! - scores[a]!)) {
    if (kept.every((better) => iou(boxes[better]!, boxes[i]!) <= maxIou)) kept.push(i);
  }
  return kept;
}

/** Distance between the outer eye corners, points 36 and 45. */
export const interOcular = (points: Points) => Math.hypot(points[72]! - points[90]!, points[73]! - points[91]!);

/** From the picture to a square crop around a box, its longer side enlarged by `margin`; `angle` turns the
 * content counter-clockwise, in degrees. */
export function aroundBox(box: Box, cropSize: number, margin: number, angle = 0): Affine {
  const factor = cropSize / (longerSide(box) * margin), radians = (angle * Math.PI) / 180;
  const cos = factor * Math.cos(radians), sin = factor * Math.sin(radians), middle = (cropSize - 1) / 2;
  const x = (box[0] + box[2]) / 2, y = (box[1] + box[3]) / 2;
  return [cos, sin, middle - cos * x - sin * y, -sin, cos, middle + sin * x - cos * y];
}

/** The crop in which a face is upright and framed by its points: upright is where the mean face's vertical points
 * under the affine map, by least squares, from the mean face to the points. Undefined where all lie on a line. */
export function upright(keypoints: Points, cropSize: number, margin: number): Affine | undefined {
  const mean = [0, 1].map((axis) => scheme.meanFace.reduce((sum, point) => sum + point[axis]!, 0) / 68);
  const centred = scheme.meanFace.map(([x, y]) => [x! - mean[0]!, y! - mean[1]!] as const);
  const sum = (term: (x: number, y: number, k: number) => number) => centred.reduce((total, [x, y], k) => total + term(x, y, k), 0);
  const xx = sum((x) => x * x), xy = sum((x, y) => x * y);
  const [right, down] = [0, 1].map((axis) => sum((x, y, k) => (xx * y - xy * x) * keypoints[2 * k + axis]!));
  const angle = Math.atan2(-right!, down!), cos = Math.cos(angle), sin = Math.sin(angle), turn: Affine = [cos, sin, 0, -sin, cos, 0];
  const box = tightBox(moved(turn, keypoints));
  return width(box) > 0 && height(box) > 0 ? product(aroundBox(box, cropSize, margin), turn) : undefined;
}

/** A picture turned counter-clockwise by quarter turns, 1 to 3. */
export function turned({ width, height, data }: Picture, quarterTurns: number): Picture {
  const [w, h] = quarterTurns === 2 ? [width, height] : [height, width], to = new Uint8Array(data.length);
  for (let y = 0, at = 0; y < h; y++) {
    for (let x = 0; x < w; x++, at += 3) {
      const [sx, sy] = [[width - 1 - y, x], [width - 1 - x, height - 1 - y], [y, height - 1 - x]][quarterTurns - 1]!;
      for (let c = 0; c < 3; c++) to[at + c] = data[3 * (sy! * width + sx!) + c]!;
    }
  }
  return { width: w, height: h, data: to };
}

/** A box of a picture, from the one in what `turned` makes of it. */
export function turnedBack([x1, y1, x2, y2]: Box, quarterTurns: number, { width, height }: Picture): Box {
  const right = width - 1, bottom = height - 1;
  if (quarterTurns === 1) return [right - y2, x1, right - y1, x2];
  return quarterTurns === 2 ? [right - x2, bottom - y2, right - x1, bottom - y1] : [y1, bottom - x2, y2, bottom - x1];
}

/** First `then`'s right one, then its left one, as matrices are multiplied. */
function product(left: Affine, right: Affine): Affine {
  const [a, b, x, c, d, y] = left, [e, f, u, g, h, v] = right;
  return [a * e + b * g, a * f + b * h, a * u + b * v + x, c * e + d * g, c * f + d * h, c * u + d * v + y];
}

export function inverse([a, b, x, c, d, y]: Affine): Affine {
  const det = a * d - b * c;
  return [d / det, -b / det, (b * y - d * x) / det, -c / det, a / det, (c * x - a * y) / det];
}

export function moved(by: Affine, points: Points): Float64Array {
  return Float64Array.from(points, (_, i) => {
    const row = 3 * (i % 2), x = i - (i % 2);
    return by[row]! * points[x]! + by[row + 1]! * points[x + 1]! + by[row + 2]!;
  });
}

/** The same crop but for little, and one that is sampled exactly: as CropTransform.rounded of fkp/geometry.py. */
export function rounded(crop: Affine, size: number): Affine {
  const octave = Math.log2(Math.hypot(crop[0], crop[1])), middle = (size - 1) / 2, pixel = 2 ** -Math.floor(octave), step = Math.max(pixel, 1) / 128;
  const factor = 2 ** (roundEven(128 * octave) / 128), radians = (roundEven((4 * 180 * Math.atan2(crop[1], crop[0])) / Math.PI) / 4) * (Math.PI / 180);
  const [x, y] = moved(inverse(crop), new Float64Array([middle, middle])).map((each) => (roundEven((each / pixel) * 4) / 4) * pixel) as unknown as [number, number];
  const stepped = (value: number) => roundEven(value / step) * step, cos = stepped(Math.cos(radians) / factor), sin = stepped(Math.sin(radians) / factor);
  return inverse([cos, -sin, stepped(x - (cos - sin) * middle), sin, cos, stepped(y - (cos + sin) * middle)]);
}

/** By how much a crop enlarges what is in the picture. */
export const enlargement = (crop: Affine) => Math.hypot(crop[0], crop[1]);

/** The RGB crop of a picture; black beyond its edge. */
export function crop(picture: Picture, pictureToCrop: Affine, size: number): Picture {
  const area = Math.abs(pictureToCrop[0] * pictureToCrop[4] - pictureToCrop[1] * pictureToCrop[3]), shrink = 2 ** Math.floor(-Math.log2(area) / 2);
  if (shrink < 2) return warp(picture, inverse(pictureToCrop), size);
  // Linear sampling alone would skip pixels: average them first, over the part that is needed.
  const [part, partToPicture] = reduced(picture, inverse(pictureToCrop), size, shrink);
  return warp(part, inverse(product(pictureToCrop, partToPicture)), size);
}

/** The needed part of a picture shrunk by a whole factor, and the way back. */
function reduced(picture: Picture, cropToPicture: Affine, size: number, factor: number): [Picture, Affine] {
  const needed = tightBox(moved(cropToPicture, new Float64Array([-1, -1, size, -1, -1, size, size, size])));
  const within = (value: number, most: number) => Math.min(Math.max(value, 0), most);
  const left = within(Math.floor(needed[0]) - factor, picture.width), top = within(Math.floor(needed[1]) - factor, picture.height);
  const right = within(Math.ceil(needed[2]) + 1 + factor, picture.width);
  const bottom = within(Math.ceil(needed[3]) + 1 + factor, picture.height);
  const back: Affine = [factor, 0, left + (factor - 1) / 2, 0, factor, top + (factor - 1) / 2];
  if (right <= left || bottom <= top) return [{ width: 1, height: 1, data: new Uint8Array(3) }, back];
  // A whole number of cells, the edge repeated, so that every cell has the same scale.
  const columns = Math.ceil((right - left) / factor), rows = Math.ceil((bottom - top) / factor);
  const data = new Uint8Array(rows * columns * factor * factor * 3);
  for (let y = 0, at = 0; y < rows * factor; y++) {
    const line = Math.min(top + y, bottom - 1) * picture.width * 3;
    data.set(picture.data.subarray(line + left * 3, line + right * 3), at);
    at += (right - left) * 3;
    for (let x = right - left; x < columns * factor; x++, at += 3) data.copyWithin(at, at - 3, at);
  }
  const part: Picture = { width: columns * factor, height: rows * factor, data };
  return [resize(part, columns, rows, "area"), back];
}
