// Faces as JSON and CSV, as fkp/report.py writes them.

import { isGuess } from "./draw";
import type { Faces } from "./index";
import { openness, pose } from "./measures";

const rounded = (numbers: ArrayLike<number>, digits: number) => Array.from(numbers, (each) => Number(each.toFixed(digits)));

/** What is said about one picture; the keys are those of `fkp predict --json`. */
export function record(image: string, faces: Faces) {
  return {
    image,
    width: faces.width,
    height: faces.height,
    faces: Array.from({ length: faces.length }, (_, i) => {
      const points = faces.keypoints.subarray(136 * i, 136 * i + 136), keypoints = rounded(points, 2), { eyes, mouth } = openness(points);
      const turned = pose(points, faces.sigmas.subarray(68 * i, 68 * i + 68));
      return {
        number: i + 1,
        box: rounded(faces.boxes.subarray(4 * i, 4 * i + 4), 2),
        score: rounded([faces.scores[i]!], 4)[0]!,
        keypoints: Array.from({ length: 68 }, (_, k) => keypoints.slice(2 * k, 2 * k + 2)),
        keypoint_scores: rounded(faces.keypointScores.subarray(68 * i, 68 * i + 68), 4),
        visibility: rounded(faces.visibility.subarray(68 * i, 68 * i + 68), 4),
        guess: isGuess(faces, i),
        pose: turned && {
          yaw: Number(turned.yaw.toFixed(1)), pitch: Number(turned.pitch.toFixed(1)), roll: Number(turned.roll.toFixed(1)),
          sigmas: rounded(turned.sigmas, 1),
        },
        eye_openness: rounded(eyes, 3),
        mouth_openness: Number(mouth.toFixed(3)),
      };
    }),
  };
}

export type Record = ReturnType<typeof record>;

/** The JSON array, a line for each picture. */
export const toJson = (records: Record[]) => `[${records.map((each) => JSON.stringify(each)).join(",\n")}]\n`;

/** A header, and a row for every face. */
export function toCsv(records: Record[]): string {
  const points = Array.from({ length: 68 }, (_, k) => k);
  const columns = [
    "image", "width", "height", "face", "score", "box_x1", "box_y1", "box_x2", "box_y2",
    ...points.flatMap((k) => [`x${k}`, `y${k}`]), ...points.map((k) => `s${k}`), ...points.map((k) => `v${k}`), "guess",
    "yaw", "pitch", "roll", "yaw_sigma", "pitch_sigma", "roll_sigma", "right_eye_openness", "left_eye_openness", "mouth_openness",
  ];
  const harmless = (text: string) => (/^[=+\-@\t\r\n]/.test(text) ? `'${text}` : text); // no spreadsheet is to take it for a formula
  const quoted = (text: string) => (/[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text);
  const rows = records.flatMap(({ image, width, height, faces }) => faces.map((face) => [
    quoted(harmless(image)), width, height, face.number, face.score, ...face.box, ...face.keypoints.flat(), ...face.keypoint_scores,
    ...face.visibility, Number(face.guess), face.pose?.yaw, face.pose?.pitch, face.pose?.roll,
    ...(face.pose?.sigmas ?? ["", "", ""]), ...face.eye_openness, face.mouth_openness,
  ]));
  return [columns, ...rows].map((row) => `${row.join(",")}\n`).join("");
}
