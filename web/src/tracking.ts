// Faces followed from frame to frame, as fkp/tracking.py does it: stable numbers, few detections, calm points.

import type { Detections } from "./detector";
import { aroundBox, type Box, crop, height, iou, mean, tightBox, width } from "./geometry";
import type { Face, Options, Pipeline } from "./pipeline";
import { type Picture, resize } from "./pixels";
import { Smoother } from "./smoothing";

export type TrackerOptions = Options & { smoothing?: boolean | undefined };
type TrackedFace = Face & { id: number };

// The numbers and their reasons are those of fkp/tracking.py.
const DETECT_EVERY = 10, EMPTY_EVERY = 3, REMEMBER = 1;
const LEAST_IOU = 0.3, SAME_PLACE = 0.5, HOLD = 0.98;
const LEAST_SCORE = 0.2, FALL = 0.7, SAME_SCENE = 0.7, SAME_FACE = 0.7;

class Track {
  id = 0; // until it is certain to be a face of its own
  time = 0;
  usual = 0; // running mean of its mean keypoint scores
  elsewhere = false;
  patch: Float64Array = new Float64Array(0);
  readonly smoother = new Smoother();

  constructor(public box: Box, public score: number) {}
}

/** Follows the faces of one camera or clip; frames come one after the other. */
export class Following {
  private tracks: Track[] = [];
  private lost: Track[] = [];
  private ids = 0;
  private time = -Infinity;
  private sinceDetection = 0;
  private shape = "";
  private overview: Float64Array = new Float64Array(0);

  constructor(private readonly model: Pipeline, private readonly options: TrackerOptions) {}

  /** The faces of the next frame, lowest number first; `time` in seconds has to go on. */
  async next(picture: Picture, time: number): Promise<TrackedFace[]> {
    if (!(time > this.time)) throw new Error(`a frame at ${time} s comes after one at ${this.time} s`);
    const anew = this.isNewScene(picture, time);
    if (anew) {
      this.lost.push(...this.tracks);
      this.tracks = [];
      for (const track of this.lost) track.elsewhere = true;
    }
    const since = Math.min(time - REMEMBER, this.time); // however long the pause, the last frame counts
    this.lost = this.lost.filter((track) => track.time >= since);
    this.time = time;
    this.sinceDetection++;
    const due = this.sinceDetection >= (this.tracks.length ? DETECT_EVERY : this.lost.length ? 1 : EMPTY_EVERY);
    if (anew || due) await this.detect(picture);
    let faces = await this.place(picture);
    const fallen = this.tracks.filter((track, i) => mean(faces[i]!.keypointScores) < FALL * track.usual);
    if (fallen.length && !(anew || due)) {
      await this.detect(picture, fallen);
      faces = await this.place(picture);
    }
    return this.settle(picture, faces);
  }

  private isNewScene(picture: Picture, time: number): boolean {
    const before = this.overview, step = Math.max(1, Math.floor(Math.min(picture.width, picture.height) / 96));
    this.overview = overview(picture, step);
    const shape = `${picture.width}×${picture.height}`, other = shape !== this.shape;
    if (other) this.tracks = []; // their boxes mean nothing any more
    this.shape = shape;
    return other || time - this.time > REMEMBER || likeness(before, this.overview) < SAME_SCENE;
  }

  /** Runs the detector, for new faces and for those followed; a doubted one takes its box. */
  private async detect(picture: Picture, doubted: Track[] = []): Promise<void> {
    this.sinceDetection = 0;
    const { boxes, scores }: Detections = await this.model.detect(picture, this.options.minScore);
    const known = match(this.tracks.map((track) => track.box), boxes);
    for (const [i, found] of known) {
      const track = this.tracks[i]!;
      track.score = scores[found]!;
      if (doubted.includes(track)) track.box = boxes[found]!;
    }
    const seen = new Set(known.map(([, found]) => found));
    const added = boxes.map((box, i) => new Track(box, scores[i]!)).filter((_, i) => !seen.has(i));
    const room = 2 * Math.max(0, (this.options.maxFaces ?? Infinity) - this.tracks.length); // some may be no faces
    this.tracks.push(...added.slice(0, room));
  }

  private place(picture: Picture): Promise<Face[]> {
    return this.model.keypointsAt(picture, { boxes: this.tracks.map((track) => track.box), scores: this.tracks.map((track) => track.score) });
  }

  /** Which of the faces placed are there, and whose they are; and all that the next frame needs. */
  private settle(picture: Picture, faces: Face[]): TrackedFace[] {
    const boxes = faces.map((face) => tightBox(face.keypoints)), scores = faces.map((face) => mean(face.keypointScores));
    const overlaps = boxes.map((box, i) => iou(this.tracks[i]!.box, box)), all = faces.map((_, i) => i);
    const old = all.filter((i) => this.tracks[i]!.id).sort((a, b) => overlaps[b]! - overlaps[a]!);
    let kept: number[] = [];
    for (const i of [...old, ...all.filter((i) => !this.tracks[i]!.id)]) {
      const isFace = scores[i]! >= LEAST_SCORE && width(boxes[i]!) > 0 && height(boxes[i]!) > 0;
      if (isFace && !kept.some((other) => iou(boxes[i]!, boxes[other]!) > SAME_PLACE)) kept.push(i);
    }
    kept = kept.slice(0, this.options.maxFaces ?? Infinity);
    this.lost.push(...old.filter((i) => !kept.includes(i)).map((i) => this.tracks[i]!));
    for (const i of kept) {
      const track = this.tracks[i]!, patch = grey(crop(picture, aroundBox(boxes[i]!, 24, 1), 24));
      track.id ||= this.number(boxes[i]!, patch);
      [track.time, track.patch] = [this.time, patch];
      track.usual = track.usual ? 0.9 * track.usual + 0.1 * scores[i]! : scores[i]!;
      if (iou(track.box, boxes[i]!) < HOLD) track.box = boxes[i]!;
    }
    kept.sort((a, b) => this.tracks[a]!.id - this.tracks[b]!.id);
    this.tracks = kept.map((i) => this.tracks[i]!);
    return kept.map((i, at) => {
      const track = this.tracks[at]!, face = faces[i]!;
      const keypoints = this.options.smoothing === false ? face.keypoints : track.smoother.calm(face.keypoints, this.time);
      return { ...face, box: tightBox(keypoints), score: track.score, keypoints, id: track.id };
    });
  }

  /** That of a face lost there, which has to look the same in a new scene; or one never given. */
  private number(box: Box, patch: Float64Array): number {
    for (const [i] of match(this.lost.map((track) => track.box), [box]).slice(0, 1)) {
      const lost = this.lost[i]!;
      if (!lost.elsewhere || likeness(lost.patch, patch) >= SAME_FACE) return this.lost.splice(i, 1)[0]!.id;
    }
    return ++this.ids;
  }
}

/** Pairs of a box and another: greedily the best IoU first, each box once. */
function match(boxes: Box[], others: Box[]): [number, number][] {
  const pairs: [number, number][] = [];
  const all = boxes.flatMap((box, i) => others.map((other, j) => [iou(box, other), i, j] as const));
  for (const [overlap, i, j] of all.sort((a, b) => b[0] - a[0])) {
    if (overlap >= LEAST_IOU && !pairs.some(([a, b]) => a === i || b === j)) pairs.push([i, j]);
  }
  return pairs;
}

/** How like two small grey pictures are, -1..1: the structure term of SSIM (Wang et al., 2004) over the whole. */
function likeness(picture: Float64Array, other: Float64Array): number {
  const [a, b] = [mean(picture), mean(other)];
  let both = 0, one = 0, two = 0;
  for (let i = 0; i < picture.length; i++) {
    both += (picture[i]! - a) * (other[i]! - b);
    one += (picture[i]! - a) ** 2;
    two += (other[i]! - b) ** 2;
  }
  const n = picture.length;
  return (both / n + 25) / (Math.sqrt((one / n) * (two / n)) + 25);
}

function grey({ data }: Picture): Float64Array {
  return Float64Array.from({ length: data.length / 3 }, (_, i) =>
    0.299 * data[3 * i]! + 0.587 * data[3 * i + 1]! + 0.114 * data[3 * i + 2]!);
}

/** A small grey picture of a whole frame, made of every `step`th pixel, which say enough. */
function overview(picture: Picture, step: number): Float64Array {
  const wide = Math.ceil(picture.width / step), high = Math.ceil(picture.height / step);
  const data = new Uint8Array(3 * wide * high);
  for (let y = 0, to = 0; y < high; y++) {
    for (let x = 0; x < wide; x++, to += 3) {
      const at = 3 * (y * picture.width + x) * step;
      data.set(picture.data.subarray(at, at + 3), to);
    }
  }
  return grey(resize({ width: wide, height: high, data }, 32, 24, wide < 32 || high < 24 ? "linear" : "area"));
}
