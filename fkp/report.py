"""Faces as JSON and CSV: plain numbers, coordinates to 0.01 pixel and scores to 0.0001."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from fkp import scheme

if TYPE_CHECKING:
    from fkp.faces import Faces

FACE_COLUMNS: tuple[str, ...] = (
    "score", "box_x1", "box_y1", "box_x2", "box_y2",
    *(f"{axis}{i}" for i in range(scheme.COUNT) for axis in "xy"),
    *(f"s{i}" for i in range(scheme.COUNT)),
)  # fmt: skip
"""Of a face: its score and tight box, its 68 points x0,y0,…,x67,y67, and their scores s0,…,s67."""

CSV_COLUMNS: tuple[str, ...] = ("image", "width", "height", "face", *FACE_COLUMNS)
"""One row a face: its picture and that picture's size, its number there from 0, and `FACE_COLUMNS`."""


def record(image: str, shape_hw: tuple[int, ...], faces: Faces) -> dict[str, Any]:
    """What is said about one picture: {"image", "width", "height", "faces": [{"box", "score", "keypoints",
    "keypoint_scores"}]}; `shape_hw` is the shape of the picture's array, channels or not."""
    height, width = shape_hw[:2]
    return {"image": image, "width": int(width), "height": int(height), "faces": face_records(faces)}


def face_records(faces: Faces) -> list[dict[str, Any]]:
    """What is said about each face: {"box", "score", "keypoints", "keypoint_scores"}."""
    per_face = zip(faces.boxes, faces.scores, faces.keypoints, faces.keypoint_scores, strict=True)
    return [
        {
            "box": _rounded(box, 2),
            "score": _rounded(score, 4),
            "keypoints": _rounded(keypoints, 2),
            "keypoint_scores": _rounded(keypoint_scores, 4),
        }
        for box, score, keypoints, keypoint_scores in per_face
    ]


def _rounded(numbers: np.ndarray, decimals: int) -> Any:
    # In float64: a rounded float32 would print as 0.10000000149011612.
    return np.asarray(numbers, np.float64).round(decimals).tolist()


def to_json(records: Iterable[dict[str, Any]]) -> str:
    """The JSON array of the records, a line for each picture."""
    return "[" + ",\n".join(json.dumps(record, allow_nan=False) for record in records) + "]\n"


def write_csv(file: TextIO, records: Iterable[dict[str, Any]]) -> None:
    """Write the header `CSV_COLUMNS` and a row for every face; open the file with newline=""."""
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(CSV_COLUMNS)
    for picture in records:
        for number, face in enumerate(picture["faces"]):
            where = [picture["image"], picture["width"], picture["height"], number]
            writer.writerow(where + face_cells(face))


def face_cells(face: dict[str, Any]) -> list[float]:
    """What stands in `FACE_COLUMNS` of a face as `face_records` gives it."""
    coordinates = [coordinate for point in face["keypoints"] for coordinate in point]
    return [face["score"], *face["box"], *coordinates, *face["keypoint_scores"]]
