"""Sheets of what a detector finds hardest: missed faces, false alarms, boxes that fit badly; and a list.

Faces green, found boxes red with their score, what is neither grey. The sheets show people of the data sets:
they are for looking at, and stay out of the project.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from benchmarks.photo_sets import Seen
from benchmarks.worst import TILE, captioned, write_tiles
from fkp import geometry

MARGIN = 3.0
FACE, FOUND, DOUBTFUL = (60, 230, 60), (255, 40, 40), (150, 150, 150)


class Case(NamedTuple):
    """Something hard: where, in what was seen of its photo, in words, and how hard."""

    seen: Seen
    box: np.ndarray
    words: str
    hardness: float


def cases(seen: Mapping[str, Sequence[Seen]]) -> dict[str, list[Case]]:
    """All cases by kind, hardest first: the largest `missed`, the surest `false`, the most `loose`."""
    found: dict[str, list[Case]] = {"missed": [], "false": [], "loose": []}
    for each in (one for some in seen.values() for one in some):
        overlaps = geometry.iou(each.boxes, each.photo.faces)
        for face in np.flatnonzero(~each.hits()):
            box = each.photo.faces[face]
            side = float((box[2:] - box[:2]).max())
            found["missed"].append(Case(each, box, f"missed at {side:.0f} px", side))
        for i in each.false():
            score = float(each.scores[i])
            found["false"].append(Case(each, each.boxes[i], f"false at {score:.2f}", score))
        for i in np.flatnonzero(each.own >= 0):
            overlap = float(overlaps[i, each.own[i]])
            found["loose"].append(Case(each, each.boxes[i], f"IoU {overlap:.2f}", -overlap))
    return {kind: sorted(some, key=lambda case: -case.hardness) for kind, some in found.items()}


def write_sheets(folder: Path, seen: Mapping[str, Sequence[Seen]], count: int) -> list[Path]:
    """Write a PNG of the `count` hardest cases of each kind, and hard.txt that lists them; the paths.

    Made-up group pictures have sheets of their own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths, lines = [], []
    groups = {name: some for name, some in seen.items() if name == "collages"}
    photos = {name: some for name, some in seen.items() if name not in groups}
    for words, some in (("photos", photos), ("group_pictures", groups)):
        for kind, found in cases(some).items():
            lines.append(f"{kind}, {words}" + (f": {len(found)}" if kind != "loose" else ""))
            for case in found[:count]:
                box = ", ".join(f"{edge:.0f}" for edge in case.box)
                lines.append(f"  {case.seen.photo.name} [{box}]: {case.words}")
            if found:
                path = folder / f"{kind}_{words}.png"
                paths.append(write_tiles(path, [tile(case) for case in found[:count]]))
    listed = folder / "hard.txt"
    listed.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [*paths, listed]


def tile(case: Case) -> np.ndarray:
    """The surroundings of a case, with all boxes in them."""
    seen, photo = case.seen, case.seen.photo
    cut = geometry.CropTransform.around_box(case.box, TILE, MARGIN)
    picture = cut.crop(photo.read())
    words = [f"{score:.2f}" for score in seen.scores]
    none = [""] * (len(photo.faces) + len(photo.doubtful))
    boxes = np.concatenate([photo.faces, photo.doubtful, seen.boxes])
    colours = [FACE] * len(photo.faces) + [DOUBTFUL] * len(photo.doubtful) + [FOUND] * len(seen.boxes)
    corners = cut.to_crop(boxes.reshape(-1, 2, 2).astype(np.float64)).round().astype(int)
    for (start, end), colour, word in zip(corners.tolist(), colours, none + words, strict=True):
        if min(end) >= 0 and max(start) < TILE:  # otherwise it lies beside the tile
            cv2.rectangle(picture, start, end, colour, 1, cv2.LINE_AA)
            place = max(start[0], 0), max(start[1] - 3, 12)
            cv2.putText(picture, word, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, colour, 1, cv2.LINE_AA)
    return captioned(picture, f"{photo.name[-34:]}  {case.words}")
