"""How surely faces are found, and what is taken for one.

    python benchmarks/detection.py --data DATA             # prints the table
    python benchmarks/detection.py --data DATA --write     # and puts it into metrics.json and README.md

A face is found when a box overlaps the tight box of its labels by IoU 0.5 or more, each box serving one face.
On `no_faces` every box is a false one. Two thirds of those photos are among the detector's training photos;
the test sets are not.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from benchmarks import accuracy  # noqa: E402
from benchmarks.published import arguments, publish  # noqa: E402
from fkp import data, evaluation, geometry, hub, images, pipeline  # noqa: E402

COMMAND = "python benchmarks/detection.py --data DATA --write"
TITLES = {"ytf_test": "YouTube Faces, course test split", "lfpw_test": "300-W, LFPW test"}
SETS = [test for test in accuracy.SETS if test.name in TITLES]
LEAST_SCORE = 0.3
"""Boxes are asked for down to this score, and counted at each threshold."""


def measure(detector: pipeline.FaceDetector, folder: Path, thresholds: list[float]) -> list[dict[str, float]]:
    """Recall (percent) on each test set and false boxes on `no_faces`, for each threshold."""
    labelled: dict[str, list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    for test in SETS:
        faces = data.FacialKeypointsDataset(folder / test.csv, folder / test.folder)
        boxes = geometry.tight_boxes(faces.keypoints)
        paths = np.array([str(path) for path in faces.paths])
        labelled[test.name] = [
            (boxes[paths == path], *detector(images.read(path), min_score=LEAST_SCORE))
            for path in tqdm(np.unique(paths), test.name, leave=False)
        ]
    faceless = [
        detector(images.read(path), min_score=LEAST_SCORE)[1]
        for path in tqdm(sorted((folder / "no_faces").iterdir()), "no_faces", leave=False)
    ]
    rows = []
    for threshold in thresholds:
        row: dict[str, float] = {"threshold": threshold}
        for name, pictures_of in labelled.items():
            found = sum(len(evaluation.match(truth, b[s >= threshold])) for truth, b, s in pictures_of)
            row[name] = round(100 * found / sum(len(truth) for truth, _, _ in pictures_of), 2)
        row["false_boxes"] = int(sum((scores >= threshold).sum() for scores in faceless))
        rows.append(row)
    return rows


def table(figures: dict[str, Any]) -> str:
    """Markdown: a row for each threshold, the default one in bold."""
    lines = [
        "| threshold | "
        + " | ".join(f"{title}: recall" for title in TITLES.values())
        + " | false boxes on 274 photos |",
        "|--:|" + "--:|" * len(SETS) + "--:|",
    ]
    for row in figures["rows"]:
        cells = [f"{row['threshold']:g}", *(f"{row[name]:.2f} %" for name in TITLES), str(row["false_boxes"])]
        bold = "**" if row["threshold"] == figures["min_score"] else ""
        lines.append("| " + " | ".join(f"{bold}{cell}{bold}" for cell in cells) + " |")
    return "\n".join(lines)


def main() -> int:
    args = arguments(str(__doc__)).parse_args()
    detector = hub.load(args.model).face_detector
    thresholds = sorted({0.4, 0.5, 0.6, detector.config.min_score})
    rows = measure(detector, args.data, thresholds)
    figures = {"command": COMMAND, "min_score": detector.config.min_score, "rows": rows}
    print(table(figures))
    if args.write:
        publish(Path(args.model), "detection", figures, table(figures))
    return 0


if __name__ == "__main__":
    sys.exit(main())
