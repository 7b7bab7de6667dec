"""Faces as JSON and CSV: plain numbers, coordinates to 0.01 pixel and scores to 0.0001."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable
from typing import IO, TYPE_CHECKING, Any

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


class JsonArray:
    """A JSON array that grows in a text file, a line for each of its values.

    What stands around the values is `head` and `tail`. With `rewind`, for a file of its own, it is whole
    after every value, and not only once it is closed.
    """

    def __init__(self, file: IO[str], head: str = "[", tail: str = "]\n", *, rewind: bool = False) -> None:
        self._file, self._tail, self._rewind = file, tail, rewind
        self._between, self._at = "", 0
        self._write(head)

    def add(self, value: Any) -> None:
        if self._rewind:
            self._file.seek(self._at)
        self._write(self._between + json.dumps(value, allow_nan=False))
        self._between = ",\n"

    def close(self) -> None:
        """The end; the file stays open."""
        if not self._rewind:
            self._file.write(self._tail)
        self._file.flush()

    def _write(self, text: str) -> None:
        # In one piece, so that whoever ends the program here finds the end there too. It is ASCII throughout.
        self._at += len(text)
        self._file.write(text + self._tail if self._rewind else text)
        if self._rewind:
            self._file.flush()


def to_json(records: Iterable[dict[str, Any]]) -> str:
    """The JSON array of the records, a line for each picture."""
    text = io.StringIO()
    array = JsonArray(text)
    for each in records:
        array.add(each)
    array.close()
    return text.getvalue()


def read_json(text: str) -> list[dict[str, Any]]:
    """The records of a JSON array as `JsonArray` writes it, up to where it breaks off, if it does."""
    records: list[dict[str, Any]] = []
    for line in text.removeprefix("[").splitlines():
        try:
            records.append(json.loads(line.removesuffix("]").removesuffix(",")))
        except ValueError:
            break
    return records


class CsvTable:
    """A CSV that grows in a text file, opened with newline="": `CSV_COLUMNS`, then a row for every face."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(CSV_COLUMNS)

    def add(self, record: dict[str, Any]) -> None:
        """The rows of a picture."""
        for number, face in enumerate(record["faces"]):
            where = [harmless(record["image"]), record["width"], record["height"], number]
            self._writer.writerow(where + face_cells(face))
        self._file.flush()

    def add_rows(self, rows: Iterable[list[str]]) -> None:
        """Rows as they were read from such a file."""
        self._writer.writerows(rows)


def harmless(text: str) -> str:
    """A cell's text that no spreadsheet takes for a formula: where it might, an apostrophe comes before it.

    https://owasp.org/www-community/attacks/CSV_Injection
    """
    return f"'{text}" if text.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else text


def write_csv(file: IO[str], records: Iterable[dict[str, Any]]) -> None:
    """Write the header `CSV_COLUMNS` and a row for every face; open the file with newline=""."""
    table = CsvTable(file)
    for each in records:
        table.add(each)


def face_cells(face: dict[str, Any]) -> list[float]:
    """What stands in `FACE_COLUMNS` of a face as `face_records` gives it."""
    coordinates = [coordinate for point in face["keypoints"] for coordinate in point]
    return [face["score"], *face["box"], *coordinates, *face["keypoint_scores"]]
