"""How the labels of the data sets lie: how far they lean to the right, and lie low.

    python benchmarks/labels.py --data DATA --write      # the table of docs/accuracy.md

A network that learns from pictures and their mirror images cannot prefer a side: the mean of what it says of
a crop and of the mirrored one, turned back, is where the points lie for all that can be seen. How far labels
lie from there, in shares of the longer side of the tight box, is fitted on people and photos held out of
training, by least squares in percent of the distance between the outer eye corners.
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


class Lean(NamedTuple):
    """How far labels lie to the right and below, in shares of the face's longer side; standard errors."""

    right: float
    down: float
    error_right: float
    error_down: float


def lean(labels: np.ndarray, seen: np.ndarray) -> Lean:
    """How labels (n,68,2) lie beside points (n,68,2) that prefer no side, both in pixels of the pictures."""
    weights = 1 / geometry.inter_ocular(labels)
    along = sides(labels) * weights
    away = (labels - seen).mean(axis=1).astype(np.float64) * weights[:, None]
    fit = along @ away / (along @ along)
    error = np.sqrt((away - along[:, None] * fit).var(axis=0) / (along @ along))
    return Lean(*fit.tolist(), *error.tolist())


def sides(labels: np.ndarray) -> np.ndarray:
    """The longer sides (n,) of the tight boxes."""
    return geometry.longer_sides(geometry.tight_boxes(labels).astype(np.float64))


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
        "labels", "faces", "to the right, % of the face", "down, %", "in config.json, %", "NME without",
        "NME with",
    )  # fmt: skip
    for style, title in (("ytf", "YouTube Faces"), ("300w", "300-W")):
        model = FaceKeypoints.from_pretrained(args.model, label_style=style, mirrored=True)
        parts = [faces.read(test, args.data) for test in faces.HELD_OUT if test.style == style]
        labels = np.concatenate([part.keypoints for part in parts])
        placed = np.concatenate([faces.place(model, part, what=title).keypoints for part in parts])
        config = model.config
        share = config.lean(style) / (config.crop_size / config.margin)
        seen = placed - share * sides(labels)[:, None, None]
        found = lean(labels, seen)
        without, given = (float(metrics.nme(points, labels).mean()) for points in (seen, placed))
        table.add(
            title, str(len(labels)), f"{100 * found.right:.2f} ± {100 * found.error_right:.2f}",
            f"{100 * found.down:.2f} ± {100 * found.error_down:.2f}",
            ", ".join(f"{100 * each:.2f}" for each in share), f"{without:.2f}", f"{given:.2f}",
        )  # fmt: skip
    if args.write:
        table.write(DOCS / "accuracy.md", "labels", "python benchmarks/labels.py --data DATA --write")
    return 0


if __name__ == "__main__":
    sys.exit(main())
