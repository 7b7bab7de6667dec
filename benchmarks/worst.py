"""A sheet of the faces that a model is worst at: labels green, predictions white, the way between red.

The sheets show people of the data sets: they are for looking at, and stay out of the project.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from benchmarks.faces import Labelled, Placed
from fkp import geometry, metrics

TILE = 360
CAPTION = 26
COLUMNS = 5
MARGIN = 1.5
LABEL, PREDICTION, BETWEEN = (60, 230, 60), (255, 255, 255), (255, 40, 40)


def write_sheet(path: Path, faces: Labelled, placed: Placed, count: int) -> Path:
    """Write the `count` faces with the largest NME, worst first, as a PNG, and its folder; the path."""
    errors = metrics.nme(placed.keypoints, faces.keypoints)
    worst = np.argsort(-errors, kind="stable")[:count]
    tiles = []
    for i in worst:
        name = Path(faces.names[i]).stem
        caption = f"{name[:24]}  {errors[i]:.1f} %  score {placed.scores[i].mean():.2f}"
        tiles.append(_tile(faces.pictures[i], faces.keypoints[i], placed.keypoints[i], caption))
    return write_tiles(path, tiles)


def write_tiles(path: Path, tiles: list[np.ndarray]) -> Path:
    """Write tiles (h,w,3), all of one size, in rows of COLUMNS as a PNG, and its folder; the path.

    Raises OSError where it cannot be written.
    """
    tiles = [*tiles, *[np.zeros_like(tiles[0])] * (-len(tiles) % COLUMNS)]
    rows = [np.concatenate(tiles[i : i + COLUMNS], axis=1) for i in range(0, len(tiles), COLUMNS)]
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), np.concatenate(rows)[..., ::-1]):
        raise OSError(f"{path}: the sheet cannot be written")
    return path


def _tile(picture: np.ndarray, labels: np.ndarray, predicted: np.ndarray, caption: str) -> np.ndarray:
    """One face (TILE + CAPTION, TILE, 3), cut out around its labels and enlarged."""
    cut = geometry.CropTransform.around_box(geometry.tight_boxes(labels), TILE, MARGIN)
    tile = cut.crop(picture)
    green, white = (np.round(cut.to_crop(points) * 16).astype(int).tolist() for points in (labels, predicted))
    for start, end in zip(green, white, strict=True):
        cv2.line(tile, start, end, BETWEEN, 1, cv2.LINE_AA, shift=4)
    for points, colour in ((green, LABEL), (white, PREDICTION)):
        for point in points:
            cv2.circle(tile, point, 48, (0, 0, 0), -1, cv2.LINE_AA, shift=4)
            cv2.circle(tile, point, 32, colour, -1, cv2.LINE_AA, shift=4)
    return captioned(tile, caption)


def captioned(tile: np.ndarray, caption: str) -> np.ndarray:
    """A tile (TILE,TILE,3) with a line of words below it."""
    strip = np.zeros((CAPTION, TILE, 3), np.uint8)
    cv2.putText(strip, caption, (4, 18), cv2.FONT_HERSHEY_SIMPLEX, 0.42, PREDICTION, 1, cv2.LINE_AA)
    return np.concatenate([tile, strip])
