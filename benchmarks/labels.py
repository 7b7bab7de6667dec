"""How the labels of the data sets lie: what pixel they count from, and how far they lean to the right.

    python benchmarks/labels.py --data DATA --write      # the table of docs/accuracy.md

A network that learns from pictures and their mirror images cannot prefer a side: the mean of what it says of
a crop and of the mirrored one, turned back, is where the points lie for all that can be seen. Labels may lie
elsewhere: by as many pixels in every picture (they count from elsewhere), or by as much of every face (they
lean).
Both are fitted on people and photos held out of training: least squares in percent of the distance between
the outer eye corners, over the longer side of the tight box. What labels lie lower by, in shares of the face,
a network does learn, so downwards only the pixels count.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402

from benchmarks import faces  # noqa: E402
from benchmarks.published import DOCS, Table  # noqa: E402
from fkp import FaceKeypoints, geometry, hub, metrics  # noqa: E402


class Lying(NamedTuple):
    """How labels lie: pixels to the right and down, and to the right in shares of the face's longer side.

    `errors` are the standard errors of the three.
    """

    right: float
    down: float
    lean: float
    errors: tuple[float, float, float]


def lying(labels: np.ndarray, seen: np.ndarray) -> Lying:
    """How labels (n,68,2) lie beside points (n,68,2) that prefer no side, both in pixels of the pictures."""
    boxes = geometry.tight_boxes(labels).astype(np.float64)
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    away = (labels - seen).mean(axis=1).astype(np.float64)
    weights = 1 / geometry.inter_ocular(labels)
    columns = np.stack([np.ones_like(sides), sides], axis=1) * weights[:, None]
    fits, errors = [], []
    for axis in (0, 1):
        fit, *_ = np.linalg.lstsq(columns, away[:, axis] * weights, rcond=None)
        rest = away[:, axis] * weights - columns @ fit
        spread = rest.var() * np.linalg.inv(columns.T @ columns)
        fits.append(fit)
        errors.append(np.sqrt(np.diag(spread)))
    (right, lean), (down, _) = np.array(fits).tolist()
    (of_right, of_lean), (of_down, _) = np.array(errors).tolist()
    return Lying(right, down, lean, (of_right, of_down, of_lean))


def measured(model: FaceKeypoints, labelled: faces.Labelled, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Labels (n,68,2) of faces, and what the model's network says of them without what it adds for labels."""
    placed = faces.place(model, labelled, what=what).keypoints
    boxes = labelled.boxes.astype(np.float64)
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    config = model.keypoint_network.config
    return labelled.keypoints, placed - config.label_shift(sides, model.label_style)[:, None]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with ytf/ and 300w/")
    parser.add_argument("--model", default=str(hub.BUNDLED), help="folder of the model (default: bundled)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/accuracy.md")
    args = parser.parse_args()
    if args.write and args.model != str(hub.BUNDLED):
        parser.error("--write with --model: what is published is the bundled model")
    table = Table(
        "labels", "faces", "to the right, px", "down, px", "lean to the right, % of the face",
        "NME without", "NME with",
    )  # fmt: skip
    for style, title in (("ytf", "YouTube Faces"), ("300w", "300-W")):
        model = FaceKeypoints.from_pretrained(args.model, label_style=style, mirrored=True)
        parts = [
            measured(model, faces.read(test, args.data), title)
            for test in faces.HELD_OUT if test.style == style
        ]  # fmt: skip
        labels, seen = (np.concatenate(some) for some in zip(*parts, strict=True))
        found = lying(labels, seen)
        boxes = geometry.tight_boxes(labels).astype(np.float64)
        shift = model.keypoint_network.config.label_shift((boxes[:, 2:] - boxes[:, :2]).max(axis=1), style)
        with_shift, without = (
            float(metrics.nme(points, labels).mean()) for points in (seen + shift[:, None], seen)
        )
        table.add(
            title, str(len(labels)), f"{found.right:.2f} ± {found.errors[0]:.2f}",
            f"{found.down:.2f} ± {found.errors[1]:.2f}",
            f"{100 * found.lean:.2f} ± {100 * found.errors[2]:.2f}", f"{without:.2f}", f"{with_shift:.2f}",
        )  # fmt: skip
    if args.write:
        table.write(DOCS / "accuracy.md", "labels", "python benchmarks/labels.py --data DATA --write")
    return 0


if __name__ == "__main__":
    sys.exit(main())
