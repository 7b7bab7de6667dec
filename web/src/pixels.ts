// Pixels resized and sampled as OpenCV does it: a canvas that scales moves points by more than a pixel.
// Integers are pixel centres. Where numbers are rounded follows OpenCV's modules/imgproc/src/resize.cpp and
// warp_kernels.simd.hpp (Apache 2.0).

/** Interleaved 8-bit RGB. */
export type Picture = { width: number; height: number; data: Uint8Array | Uint8ClampedArray };

/** A 2×3 matrix, row by row: x' = m[0]·x + m[1]·y + m[2], y' = m[3]·x + m[4]·y + m[5]. */
export type Affine = readonly [number, number, number, number, number, number];

/** To the nearest whole number, and halves to the even one. */
export function roundEven(value: number): number {
  const up = Math.round(value);
  return up - value === 0.5 && up % 2 ? up - 1 : up;
}

/** The picture in another size: the mean over areas, or linear between pixels (cv2.resize). */
export function resize(picture: Picture, width: number, height: number, how: "area" | "linear"): Picture {
  const scaleX = picture.width / width, scaleY = picture.height / height, whole = [scaleX, scaleY].every(Number.isInteger);
  // OpenCV takes means where linear would halve both sides.
  if (whole && (how === "area" || (scaleX === 2 && scaleY === 2))) return means(picture, scaleX, scaleY);
  return how === "area" ? areas(picture, width, height) : linear(picture, width, height);
}

const empty = (width: number, height: number): Picture => ({ width, height, data: new Uint8ClampedArray(3 * width * height) });

/** The means of cells of so many pixels each way; what is left over on the right and at the bottom goes. */
export function means(from: Picture, cellX: number, cellY: number): Picture {
  const width = Math.floor(from.width / cellX), height = Math.floor(from.height / cellY), to = empty(width, height);
  const share = Math.fround(1 / (cellX * cellY)), sums = new Uint32Array(3 * width);
  for (let y = 0, at = 0; y < height; y++) {
    sums.fill(0);
    for (let row = 0; row < cellY; row++) {
      let source = (y * cellY + row) * from.width * 3;
      for (let x = 0; x < 3 * width; x += 3) {
        for (let i = 0; i < cellX; i++) {
          for (let c = 0; c < 3; c++) sums[x + c]! += from.data[source++]!;
        }
      }
    }
    // Of 2×2 pixels it rounds halves up, elsewhere to even.
    if (cellX === 2 && cellY === 2) for (const sum of sums) to.data[at++] = (sum + 2) >> 2;
    else for (const sum of sums) to.data[at++] = roundEven(Math.fround(sum * share));
  }
  return to;
}

/** Which source pixels make each target pixel, and their shares: pixel i has entries starts[i] to starts[i + 1]. */
function shares(from: number, to: number): { starts: Int32Array; at: number[]; share: number[] } {
  const scale = from / to, starts = new Int32Array(to + 1), at: number[] = [], share: number[] = [];
  for (let i = 0; i < to; i++) {
    const begin = i * scale, end = begin + scale, cell = Math.min(scale, from - begin);
    const last = Math.min(Math.floor(end), from - 1), first = Math.min(Math.ceil(begin), last);
    const add = (pixel: number, part: number) => { at.push(pixel); share.push(Math.fround(part / cell)); };
    if (first - begin > 1e-3) add(first - 1, first - begin);
    for (let pixel = first; pixel < last; pixel++) add(pixel, 1);
    if (end - last > 1e-3) add(last, Math.min(end - last, 1, cell));
    starts[i + 1] = at.length;
  }
  return { starts, at, share };
}

function areas(from: Picture, width: number, height: number): Picture {
  const to = empty(width, height);
  const across = shares(from.width, width), down = shares(from.height, height);
  const sums = new Float32Array(3 * width);
  for (let y = 0; y < height; y++) {
    sums.fill(0);
    for (let row = down.starts[y]!; row < down.starts[y + 1]!; row++) {
      const line = down.at[row]! * from.width * 3, weight = down.share[row]!;
      for (let i = 0; i < sums.length; i++) {
        const x = Math.floor(i / 3), c = i - 3 * x, end = across.starts[x + 1]!;
        let sum = 0;
        for (let entry = across.starts[x]!; entry < end; entry++) {
          sum = Math.fround(sum + Math.fround(across.share[entry]! * from.data[line + 3 * across.at[entry]! + c]!));
        }
        sums[i]! += Math.fround(weight * sum);
      }
    }
    for (let i = 0, at = 3 * y * width; i < sums.length; i++) to.data[at + i] = roundEven(sums[i]!);
  }
  return to;
}

/** Pixel before each target pixel's place, and the weights of the one after it and its own, in 1/2048: both are rounded,
 * so that they need not add up to one. */
function places(from: number, to: number): { at: Int32Array; weight: Int32Array; rest: Int32Array } {
  const at = new Int32Array(to), weight = new Int32Array(to), rest = new Int32Array(to);
  for (let i = 0; i < to; i++) {
    const place = Math.fround((i + 0.5) * (from / to) - 0.5), before = Math.floor(place);
    at[i] = before;
    const share = Math.fround(place - before);
    [weight[i], rest[i]] = [roundEven(share * 2048), roundEven(Math.fround(1 - share) * 2048)];
  }
  return { at, weight, rest };
}

function linear(from: Picture, width: number, height: number): Picture {
  const to = empty(width, height), stride = from.width * 3;
  const across = places(from.width, width), down = places(from.height, height);
  let upper = new Int32Array(3 * width), lower = new Int32Array(3 * width), held = [-1, -1];
  const fill = (line: Int32Array, y: number) => {
    for (let x = 0; x < width; x++) {
      const pixel = across.at[x]!, inside = pixel >= 0 && pixel < from.width - 1;
      const right = inside ? across.weight[x]! : 0, left = inside ? across.rest[x]! : 2048;
      const source = y * stride + 3 * Math.min(Math.max(pixel, 0), from.width - 1), next = inside ? source + 3 : source;
      for (let c = 0; c < 3; c++) line[3 * x + c] = from.data[source + c]! * left + from.data[next + c]! * right;
    }
  };
  for (let y = 0, at = 0; y < height; y++) {
    const row = Math.max(down.at[y]!, 0), after = Math.min(down.at[y]! + 1, from.height - 1), weight = down.weight[y]!, rest = down.rest[y]!;
    if (held[1] === row) [upper, lower, held] = [lower, upper, [row, -1]];
    if (held[0] !== row) fill(upper, row);
    if (held[1] !== after) fill(lower, after);
    held = [row, after];
    for (let i = 0; i < 3 * width; i++, at++) {
      to.data[at] = (((rest * (upper[i]! >> 4)) >> 16) + ((weight * (lower[i]! >> 4)) >> 16) + 2) >> 2;
    }
  }
  return to;
}

/** RGB of `size`² pixels, each sampled where `cropToPicture` says, linearly; black beyond the picture's edge. */
export function warp(from: Picture, cropToPicture: Affine, size: number): Picture {
  const to = empty(size, size), { width, height, data } = from, m = cropToPicture.map(Math.fround);
  for (let y = 0, at = 0; y < size; y++) {
    for (let x = 0; x < size; x++, at += 3) {
      const sx = Math.fround(x * m[0]! + Math.fround(Math.fround(y * m[1]!) + m[2]!));
      const sy = Math.fround(x * m[3]! + Math.fround(Math.fround(y * m[4]!) + m[5]!));
      const left = Math.floor(sx), top = Math.floor(sy);
      if (left < -1 || top < -1 || left >= width || top >= height) continue;
      const right = sx - left, below = sy - top;
      for (let c = 0; c < 3; c++) {
        const pixel = (px: number, py: number) =>
          px < 0 || py < 0 || px >= width || py >= height ? 0 : data[(py * width + px) * 3 + c]!;
        const between = (one: number, other: number, share: number) => Math.fround(one + share * (other - one));
        const above = between(pixel(left, top), pixel(left + 1, top), right);
        const under = between(pixel(left, top + 1), pixel(left + 1, top + 1), right);
        to.data[at + c] = roundEven(between(above, under, below));
      }
    }
  }
  return to;
}
