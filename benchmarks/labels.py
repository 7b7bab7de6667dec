"""Annotation offsets: how far the labels of a data set lie to the right of what can be seen, and below it.

    python benchmarks/labels.py --data DATA --write      # the table of docs/accuracy.md, which explains it

Offsets are in shares of the longer side of the tight box; errors are weighted by the inter-ocular distance.
The people of YouTube Faces are parted in two, so that each half has another to be tested on.
"""

import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import faces, published
from fkp import FaceKeypoints, data, geometry, metrics


class Offset(NamedTuple):
    """How far labels lie to the right and below, in shares of the face's longer side; standard errors."""

    right: float
    down: float
    error_right: float
    error_down: float


class Part(NamedTuple):
    """Held-out faces of one set: its name, their labels (n,68,2), and points (n,68,2) without offset."""

    title: str
    labels: np.ndarray
    seen: np.ndarray

    def nme(self, right: float = 0.0, down: float = 0.0) -> float:
        """The NME once the points are moved by shares of each face's longer side."""
        moved = self.seen + sides(self.labels)[:, None, None] * np.array([right, down])
        return float(metrics.nme(moved, self.labels).mean())


def offset(labels: np.ndarray, seen: np.ndarray) -> Offset:
    """How labels (n,68,2) lie beside points (n,68,2) that prefer no side, both in pixels of the pictures."""
    weights = 1 / geometry.inter_ocular(labels)
    along = sides(labels) * weights
    away = (labels - seen).mean(axis=1).astype(np.float64) * weights[:, None]
    fit = along @ away / (along @ along)
    error = np.sqrt((away - along[:, None] * fit).var(axis=0) / (along @ along))
    return Offset(*fit.tolist(), *error.tolist())


def sides(labels: np.ndarray) -> np.ndarray:
    return geometry.longer_sides(geometry.tight_boxes(labels).astype(np.float64))


def parts_of(style: str, model: str, folder: Path, limit: int | None) -> list[Part]:
    """The held-out sets of a labelling style, with what the model in a folder says without an offset."""
    placing, parts = FaceKeypoints.from_pretrained(model, label_style=style, passes=1), []
    share = placing.config.annotation_offset(style) * placing.config.margin / placing.config.crop_size
    for test in faces.HELD_OUT:
        if test.style != style:
            continue
        labelled = faces.read(test, folder, limit)
        points = faces.place(placing, labelled, what=test.short).keypoints
        seen = points - share * sides(labelled.keypoints)[:, None, None]
        cuts = {test.folder: np.ones(len(labelled), bool)}
        if style == "ytf":
            people = np.array([data.person(Path(name).name) for name in labelled.names])
            half = np.isin(people, sorted(set(people))[::2])
            cuts = {"YouTube Faces, half of the people": half, "YouTube Faces, the other half": ~half}
        parts += [Part(title, labelled.keypoints[cut], seen[cut]) for title, cut in cuts.items()]
    return parts


def main() -> None:
    args = published.parse(published.data_parser(__doc__))
    table = published.Table(
        "faces", "n", "to the right, % of the face", "down, %", "NME without offset",
        "with the others' to the right", "with the others' both ways",
    )  # fmt: skip
    for style in ("ytf", "300w"):
        parts = parts_of(style, args.model, args.data, args.limit)
        for part in parts:
            others = [other for other in parts if other is not part]
            fitted = offset(*(np.concatenate(both) for both in zip(*(o[1:] for o in others), strict=True)))
            own = offset(part.labels, part.seen)
            table.add(
                part.title, str(len(part.labels)), f"{100 * own.right:.2f} ± {100 * own.error_right:.2f}",
                f"{100 * own.down:.2f} ± {100 * own.error_down:.2f}", f"{part.nme():.3f}",
                f"{part.nme(fitted.right):.3f}", f"{part.nme(fitted.right, fitted.down):.3f}",
            )  # fmt: skip
    published.publish_table(args, table, "docs/accuracy.md", "labels", " --data DATA")


if __name__ == "__main__":
    main()
