// Keypoints drawn on a canvas as fkp/draw.py draws them; strokes scale with each face.

import { mean } from "./geometry";
import type { Faces } from "./index";
import scheme from "./scheme.json";

/** What is drawn of a face: see `draw.Style` in Python. `mirrored` is for a canvas over a mirrored video. */
export type Style = { pointSize?: number } &
  { [what in "points" | "contours" | "mesh" | "numbers" | "faceNumbers" | "boxes" | "confidence" | "mirrored"]?: boolean };

type Point = readonly [number, number];
type Colour = readonly number[];
type Canvas = HTMLCanvasElement | OffscreenCanvas;

// Points below these, in score and visibility, are rings; UNSURE is for a face that is a guess (fkp/faces.py).
const UNSURE_POINT = 0.3, UNSURE = 0.5, HIDDEN = 0.5, FAINT = 0.45;
const RIM = "rgba(0, 0, 0, 0.65)", MESH = "rgba(245, 245, 245, 0.6)";
const PART: Colour[] = scheme.groups.flatMap((group) => group.points.map(() => group.colour));
const EDGES = scheme.groups.map(({ points, closed, colour }) => {
  const pairs = points.slice(1).map((point, i) => [points[i]!, point] as const);
  return { colour, pairs: closed ? [...pairs, [points.at(-1)!, points[0]!] as const] : pairs };
});
const AROUND = [1, 1.6].flatMap((distance) => [0, 40, -40, 80, -80].map((angle) => [(angle * Math.PI) / 180, distance] as const));
const css = ([r, g, b]: Colour) => `rgb(${r}, ${g}, ${b})`;

/** Draws faces over what is on a canvas that shows the whole picture at any size. */
export function draw(canvas: Canvas, faces: Faces, style: Style = {}): void {
  const pen = canvas.getContext("2d") as CanvasRenderingContext2D;
  const scaleX = canvas.width / faces.width, scaleY = canvas.height / faces.height;
  const place = (x: number, y: number): Point => {
    const across = (x + 0.5) * scaleX;
    return [style.mirrored ? canvas.width - across : across, (y + 0.5) * scaleY];
  };
  pen.save();
  pen.lineJoin = pen.lineCap = "round";
  for (let i = 0; i < faces.length; i++) {
    const [x1, y1, x2, y2] = faces.boxes.subarray(4 * i, 4 * i + 4);
    const points = Array.from({ length: 68 }, (_, k) => place(faces.keypoints[136 * i + 2 * k]!, faces.keypoints[136 * i + 2 * k + 1]!));
    const corners = [place(x1!, y1!), place(x2!, y2!)].sort((a, b) => a[0] - b[0]);
    const scores = faces.keypointScores.subarray(68 * i, 68 * i + 68), least = isGuess(faces, i) ? UNSURE : UNSURE_POINT;
    const hollow = Array.from(scores, (score, k) => score < least || faces.visibility[68 * i + k]! < HIDDEN);
    face(pen, points, corners, [String(faces.ids[i]), `${Math.round(100 * faces.scores[i]!)}%`], scores, hollow, { points: true, contours: true, pointSize: 1, ...style });
  }
  pen.restore();
}

/** Whether a face's points are a guess: they score too little on average. */
export const isGuess = (faces: Faces, i: number) => mean(faces.keypointScores.subarray(68 * i, 68 * i + 68)) < UNSURE;

function face(pen: CanvasRenderingContext2D, points: Point[], [from, to]: Point[], [number, score]: string[], scores: Float32Array, hollow: boolean[], style: Style): void {
  const span = (axis: 0 | 1) => Math.max(...points.map((p) => p[axis])) - Math.min(...points.map((p) => p[axis]));
  const size = Math.max(span(0), span(1)), longer = Math.max(pen.canvas.width, pen.canvas.height);
  // Photos are looked at about 500 to 1000 pixels wide: thinner strokes would vanish, unless the face is so small
  // that they would hide it. Likewise for digits.
  const stroke = Math.max(size / 180, Math.min(longer / 500, size / 90), 0.5), radius = 1.75 * style.pointSize! * stroke;
  const numberHeight = Math.max(size / 54, Math.min(longer / 105, size / 14), 6), labelHeight = Math.max(size / 22, 9);
  const colours = style.confidence ? Array.from(scores, blended) : PART;
  // One path for all of them, so that they do not add up where they meet.
  const lines = (pairs: readonly (readonly Point[])[], colour: string, width: number) => {
    pen.beginPath();
    for (const [a, b] of pairs) {
      pen.moveTo(...a!);
      pen.lineTo(...b!);
    }
    pen.strokeStyle = colour;
    pen.lineWidth = width * stroke;
    pen.stroke();
  };
  if (style.mesh) lines(scheme.mesh.map((pair) => pair.map((k) => points[k]!)), MESH, 0.45);
  if (style.boxes) {
    const corners: Point[] = [from!, [to![0], from![1]], to!, [from![0], to![1]]], sides = corners.map((corner, i) => [corner, corners[(i + 1) % 4]!]);
    lines(sides, RIM, 2.2);
    lines(sides, css(scheme.neutral), 0.9);
    const y = from![1] > 1.6 * labelHeight ? from![1] - labelHeight : from![1] + labelHeight;
    write(pen, [[score!, [from![0] + 1.6 * labelHeight, y], scheme.neutral]], labelHeight);
  }
  if (style.faceNumbers) {
    const numberHeight = 1.4 * labelHeight, y = Math.max(from![1] - numberHeight, numberHeight);
    write(pen, [[number!, [(from![0] + to![0]) / 2, y], scheme.neutral]], numberHeight);
  }
  if (style.contours) {
    const chosen = (pairs: (readonly [number, number])[], faint: boolean) =>
      pairs.filter(([a, b]) => (hollow[a]! || hollow[b]!) === faint).map((pair) => pair.map((k) => points[k]!));
    const fill = (colour: Colour) => css(style.confidence ? scheme.neutral : colour);
    pen.globalAlpha = FAINT;
    for (const { pairs, colour } of EDGES) lines(chosen(pairs, true), fill(colour), 0.9);
    pen.globalAlpha = 1;
    lines(EDGES.flatMap(({ pairs }) => chosen(pairs, false)), RIM, 2.2);
    for (const { pairs, colour } of EDGES) lines(chosen(pairs, false), fill(colour), 0.9);
  }
  if (style.points) {
    for (const rim of [true, false]) {
      pen.lineWidth = (rim ? 1.1 : 0.5) * stroke;
      for (const [k, point] of points.entries()) {
        pen.beginPath();
        pen.arc(...point, radius + (rim && !hollow[k] ? 0.65 * stroke : 0), 0, 2 * Math.PI);
        pen.fillStyle = pen.strokeStyle = rim ? RIM : css(colours[k]!);
        if (hollow[k]) pen.stroke();
        else pen.fill();
      }
    }
  }
  if (style.numbers) {
    const texts = numberPlaces(points, radius, numberHeight).map(([k, place]) => [String(k), place, colours[k]!] as const);
    write(pen, texts, numberHeight);
  }
}

function write(pen: CanvasRenderingContext2D, texts: (readonly [string, Point, Colour])[], height: number): void {
  const font = `${height / 0.7}px system-ui, sans-serif`; // a digit is 0.7 of its size tall
  Object.assign(pen, { font, textAlign: "center", textBaseline: "middle", strokeStyle: RIM, lineWidth: height / 1.75 });
  for (const [text, place] of texts) pen.strokeText(text, ...place);
  for (const [text, place, colour] of texts) {
    pen.fillStyle = css(colour);
    pen.fillText(text, ...place);
  }
}

/** The middle of each point's number: beside the point, and where no other number stands; some find no room. */
function numberPlaces(points: Point[], radius: number, height: number): [number, Point][] {
  const away = outward(points), places: [number, Point][] = [], taken: number[][] = [];
  for (const k of new Set([...scheme.firstNumbered, ...points.keys()])) {
    const half = [(0.4 * String(k).length + 0.3) * height, 0.8 * height];
    for (const [angle, distance] of AROUND) {
      const [x, y] = away[k]!, cos = Math.cos(angle), sin = Math.sin(angle), far = radius + distance * height;
      const at: Point = [points[k]![0] + (cos * x - sin * y) * far, points[k]![1] + (sin * x + cos * y) * far];
      const box = [at[0] - half[0]!, at[1] - half[1]!, at[0] + half[0]!, at[1] + half[1]!];
      if (taken.some((other) => other[2]! > box[0]! && box[2]! > other[0]! && other[3]! > box[1]! && box[3]! > other[1]!)) continue;
      places.push([k, at]);
      taken.push(box);
      break;
    }
  }
  return places;
}

/** Unit vectors from each point to where its number is least in the way. */
function outward(points: Point[]): Point[] {
  const minus = (a: Point, b: Point): Point => [a[0] - b[0], a[1] - b[1]];
  const middles = Object.fromEntries(scheme.groups.map(({ name, points: members }) => {
    const sum = (axis: 0 | 1) => members.reduce((total, k) => total + points[k]![axis], 0) / members.length;
    return [name, [sum(0), sum(1)] as Point];
  }));
  return scheme.groups.flatMap(({ name, points: members }) => members.map((k) => {
    let vector = minus(points[k]!, middles[name === "jaw" || name === "nose tip" ? "nose bridge" : name]!);
    if (name.endsWith("eyebrow")) vector = minus(middles[name]!, middles[name.replace("brow", "")]!);
    if (name === "nose bridge") vector = minus(middles["right eye"]!, middles["left eye"]!);
    const length = Math.max(Math.hypot(...vector), 1e-6) * (k === 60 || k === 64 ? -1 : 1); // there stand the outer ones
    return [vector[0] / length, vector[1] / length];
  }));
}

function blended(score: number): Colour {
  const stops = scheme.confidence, place = Math.min(Math.max(score, 0), 1) * (stops.length - 1);
  const from = Math.min(Math.floor(place), stops.length - 2);
  return stops[from]!.map((level, i) => Math.round(level + (stops[from + 1]![i]! - level) * (place - from)));
}
