// Points that tremble from frame to frame made calm, as fkp/smoothing.py does it.

import { type Points, tightBox, longerSide } from "./geometry";

/** Share of a change that a low-pass filter lets through within so many seconds. */
const weight = (cutoff: number, passed: number) => 1 - 1 / (1 + 2 * Math.PI * passed * cutoff);

/** The One-Euro filter of flat points; speeds are in `unit`s a second (Casiez, Roussel and Vogel, CHI 2012). */
class OneEuro {
  private points: Float64Array | undefined;
  private velocities = new Float64Array(0);
  private time = 0;

  constructor(private readonly leastCutoff: number, private readonly gain: number) {}

  filter(points: Float64Array, time: number, unit: number): Float64Array {
    if (this.points) {
      const passed = time - this.time, before = this.points;
      this.velocities = this.velocities.map((velocity, i) =>
        velocity + weight(1, passed) * ((points[i]! - before[i]!) / passed - velocity));
      this.points = before.map((at, i) => {
        const pair = i - (i % 2), speed = Math.hypot(this.velocities[pair]!, this.velocities[pair + 1]!) / unit;
        return at + weight(this.leastCutoff + this.gain * speed, passed) * (points[i]! - at);
      });
    } else {
      this.points = points.slice();
      this.velocities = new Float64Array(points.length);
    }
    this.time = time;
    return this.points;
  }
}

/** Calms the keypoints of one face: its place, its turn and size, and its form are filtered apart. */
export class Smoother {
  private readonly place = new OneEuro(1, 200);
  private readonly turn = new OneEuro(1, 200);
  private readonly form = new OneEuro(0.5, 30);
  private first: Float64Array | undefined;
  private size = 1;

  calm(keypoints: Points, time: number): Float32Array {
    const n = keypoints.length / 2, middle = new Float64Array(2);
    for (let i = 0; i < 2 * n; i++) middle[i % 2]! += keypoints[i]! / n;
    const about = Float64Array.from(keypoints, (value, i) => value - middle[i % 2]!);
    if (!this.first) {
      this.first = about;
      this.size = longerSide(tightBox(about)) || 1;
    }
    // What turns and scales the first frame's points to these, by least squares: a complex number.
    let re = 0, im = 0, power = 0;
    for (let i = 0; i < 2 * n; i += 2) {
      const a = this.first[i]!, b = this.first[i + 1]!, c = about[i]!, d = about[i + 1]!;
      re += a * c + b * d;
      im += a * d - b * c;
      power += a * a + b * b;
    }
    [re, im] = [re / (power || 1), im / (power || 1)];
    if (!(re || im)) re = 1;
    // Speeds are in faces a second, so that a near face is treated like a far one.
    const [x, y] = this.place.filter(middle, time, this.size * Math.hypot(re, im));
    const scale = re * re + im * im;
    const form = this.form.filter(times(about, re / scale, -im / scale), time, this.size);
    const [turnRe, turnIm] = this.turn.filter(new Float64Array([re, im]), time, 1);
    return Float32Array.from(times(form, turnRe!, turnIm!), (value, i) => value + (i % 2 ? y! : x!));
  }
}

/** Points as complex numbers times another one. */
function times(points: Float64Array, re: number, im: number): Float64Array {
  return points.map((value, i) => (i % 2 ? points[i - 1]! * im + value * re : value * re - points[i + 1]! * im));
}
