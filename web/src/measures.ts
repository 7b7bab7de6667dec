// What follows from 68 keypoints: head pose, and how far eyes and mouth are open, as fkp/measures.py has it.

import scheme from "./scheme.json";

type Matrix = number[][];

/** Degrees: yaw to the head's own left, pitch up, roll clockwise as the viewer sees it; and one standard deviation of each. */
type Pose = { yaw: number; pitch: number; roll: number; sigmas: [number, number, number] };

const FIRST = 17; // the jaw has no part in the head
const EYES = [[[36, 39], [37, 41], [38, 40]], [[42, 45], [43, 47], [44, 46]]], MOUTH = [[60, 64], [61, 67], [62, 66], [63, 65]];

/** Where a head with flat keypoints (68 × 2) and expected errors (68) is turned: the mean head fitted under weak perspective;
 * null for keypoints that are no face. */
export function pose(keypoints: ArrayLike<number>, sigmas: ArrayLike<number>): Pose | null {
  const points = scheme.head.map((_, i) => [keypoints[2 * (FIRST + i)]!, keypoints[2 * (FIRST + i) + 1]!]);
  const even = points.map(() => 1 / points.length), flatHead = scheme.head.map((row) => row.slice(0, 2));
  const power = (all: Matrix) => Math.sqrt(all.flat().reduce((sum, each) => sum + each * each, 0));
  let scale = Math.max(power(centred(points, even)) / power(centred(flatHead, even)), 1e-9);
  let weights: number[] = [], model: Matrix = [], seen: Matrix = [], rotation: Matrix = [];
  for (let round = 0; round < 2; round++) { // the first only tells the scale well, for what people differ by
    weights = scheme.head.map(([, , , spread], i) => 1 / (sigmas[FIRST + i]! ** 2 + (scale * spread!) ** 2));
    const total = weights.reduce((sum, each) => sum + each), shares = weights.map((weight) => weight / total);
    [model, seen] = [centred(scheme.head.map((row) => row.slice(0, 3)), shares), centred(points, shares)];
    const weighted = transposed(model.map((row, i) => row.map((each) => weights[i]! * each)));
    const affine = transposed(solved(times(weighted, model), times(weighted, seen)));
    // Its singular values and nearest rotation, from the root of a 2×2 matrix.
    const [p, q, , r] = times(affine, transposed(affine)).flat() as [number, number, number, number];
    const both = Math.sqrt(Math.max(p * r - q * q, 0)), sum = Math.sqrt(p + r + 2 * both), apart = Math.sqrt(Math.max(sum * sum - 4 * both, 0));
    if (!(sum - apart >= 1e-3 * Math.max(sum + apart, 2e-9))) return null;
    const nearest = times([[r + both, -q], [-q, p + both]], affine).flat().map((each) => each / (both * sum));
    const [a, b, c, d, e, f] = nearest as [number, number, number, number, number, number];
    rotation = [[a, b, c], [d, e, f], [b * f - c * e, c * d - a * f, a * e - b * d]];
    scale = (sum + apart) / 2;
  }
  let hessian: Matrix = [];
  for (let round = 0; round < 8; round++) {
    const turned = times(model, transposed(rotation)), rest = turned.flatMap(([x, y], i) => [[seen[i]![0]! - scale * x!], [seen[i]![1]! - scale * y!]]);
    const jacobian = turned.flatMap(([x, y, z]) => [[0, z!, -y!, x!], [-z!, 0, x!, y!]].map((row) => row.map((each) => scale * each)));
    const weighted = transposed(jacobian.map((row, i) => row.map((each) => weights[i >> 1]! * each))), plain = times(weighted, jacobian);
    const trace = plain.reduce((sum, row, k) => sum + row[k]!, 0);
    hessian = plain.map((row, i) => row.map((each, k) => each + (i === k ? 1e-9 * trace : 0)));
    const [x, y, z, size] = solved(hessian, times(weighted, rest)).map(([step]) => Math.min(Math.max(step!, -0.5), 0.5));
    rotation = times(turn([x!, y!, z!]), rotation);
    scale *= Math.exp(size!);
  }
  const covariance = solved(hessian, identity(4)).slice(0, 3).map((row) => row.slice(0, 3)), step = 1e-4;
  const columns = identity(3).map((axis) => {
    const by = turn(axis.map((each) => step * each)), [one, other] = [by, transposed(by)].map((each) => angles(times(each, rotation)));
    return one!.map((angle, i) => ((angle - other![i]! + 540) % 360 - 180) / (2 * step));
  });
  const variances = times(transposed(columns), times(covariance, columns)), [yaw, pitch, roll] = angles(rotation);
  return { yaw, pitch, roll, sigmas: [0, 1, 2].map((i) => Math.sqrt(Math.max(variances[i]![i]!, 0))) as Pose["sigmas"] };
}

/** The height of the right and of the left eye, and of the mouth between the lips, as shares of their widths. */
export function openness(keypoints: ArrayLike<number>): { eyes: [number, number]; mouth: number } {
  const apart = ([a, b]: number[]) => Math.hypot(keypoints[2 * a!]! - keypoints[2 * b!]!, keypoints[2 * a! + 1]! - keypoints[2 * b! + 1]!);
  const [right, left, mouth] = [...EYES, MOUTH].map(([corners, ...heights]) =>
    heights.reduce((sum, pair) => sum + apart(pair), 0) / heights.length / Math.max(apart(corners!), 1e-6));
  return { eyes: [right!, left!], mouth: mouth! };
}

const identity = (n: number): Matrix => Array.from({ length: n }, (_, i) => Array.from({ length: n }, (_, k) => Number(i === k)));
const transposed = (a: Matrix): Matrix => a[0]!.map((_, k) => a.map((row) => row[k]!));
const times = (a: Matrix, b: Matrix): Matrix => a.map((row) => b[0]!.map((_, k) => row.reduce((sum, each, i) => sum + each * b[i]![k]!, 0)));

/** Points without their weighted mean. */
function centred(points: Matrix, shares: number[]): Matrix {
  const [middle] = times([shares], points);
  return points.map((row) => row.map((each, axis) => each - middle![axis]!));
}

/** The x of a·x = b, by elimination; a is symmetric and positive. */
function solved(a: Matrix, b: Matrix): Matrix {
  const rows = a.map((row, i) => [...row, ...b[i]!]);
  for (const [i, row] of rows.entries()) {
    const pivot = row[i]!;
    for (let k = i; k < row.length; k++) row[k]! /= pivot;
    for (const other of rows) {
      const factor = other[i]!;
      if (other !== row) for (let k = i; k < row.length; k++) other[k]! -= factor * row[k]!;
    }
  }
  return rows.map((row) => row.slice(a.length));
}

/** The matrix of a rotation vector, by Rodrigues' formula. */
function turn(vector: number[]): Matrix {
  const angle = Math.hypot(...vector), [x, y, z] = vector.map((each) => each / Math.max(angle, 1e-12));
  const cross = [[0, -z!, y!], [z!, 0, -x!], [-y!, x!, 0]], twice = times(cross, cross);
  return identity(3).map((row, i) => row.map((one, k) => one + Math.sin(angle) * cross[i]![k]! + (1 - Math.cos(angle)) * twice[i]![k]!));
}

/** Yaw, pitch and roll of a rotation, in degrees: tilted first, then raised, then turned. */
function angles(rotation: Matrix): [number, number, number] {
  const at = (i: number, k: number) => rotation[i]![k]!;
  const radians = [Math.atan2(-at(0, 2), at(2, 2)), Math.asin(Math.min(Math.max(at(1, 2), -1), 1)), Math.atan2(at(1, 0), at(1, 1))];
  return radians.map((angle) => (angle * 180) / Math.PI) as [number, number, number];
}
