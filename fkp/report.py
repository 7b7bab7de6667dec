"""Faces as JSON and CSV: plain numbers, coordinates to 0.01 pixel and scores to 0.0001."""

from __future__ import annotations

import contextlib
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
    *(f"v{i}" for i in range(scheme.COUNT)),
    "guess", "yaw", "pitch", "roll", "yaw_sigma", "pitch_sigma", "roll_sigma",
    "right_eye_openness", "left_eye_openness", "mouth_openness",
)  # fmt: skip
"""Of a face: its score and tight box, its 68 points x0,y0,…,x67,y67, their scores s0,…,s67 and their
visibility v0,…,v67; whether its points are a guess (0 or 1), and what `fkp.measures` says of it. A cell is
empty where something is not known."""

CSV_COLUMNS: tuple[str, ...] = ("image", "width", "height", "face", *FACE_COLUMNS)
"""One row a face: its picture and that picture's size, its number there from 1, and `FACE_COLUMNS`."""


def record(image: str, shape_hw: tuple[int, ...], faces: Faces, complete: bool = True) -> dict[str, Any]:
    """What is said about one picture: {"image", "width", "height", "faces": [as `face_records` says]}, and
    "incomplete": True of one that breaks off; `shape_hw` is the shape of its array, channels or not."""
    height, width = shape_hw[:2]
    said = {"image": image, "width": int(width), "height": int(height), "faces": face_records(faces)}
    return said if complete else said | {"incomplete": True}


def face_records(faces: Faces) -> list[dict[str, Any]]:
    """What is said about each face: {"number": from 1, "box", "score", "keypoints", "keypoint_scores",
    "visibility", "guess": whether its points are one, "pose": {"yaw", "pitch", "roll", "sigmas": of the
    three}, degrees, "eye_openness": [right, left], "mouth_openness"}. What is not known is None."""
    pose, eyes, mouths = faces.pose, faces.eye_openness, faces.mouth_openness
    angles = np.stack([pose.yaw, pose.pitch, pose.roll], axis=1)
    return [
        {
            "number": i + 1,
            "box": _rounded(faces.boxes[i], 2),
            "score": _rounded(faces.scores[i], 4),
            "keypoints": _rounded(faces.keypoints[i], 2),
            "keypoint_scores": _rounded(faces.keypoint_scores[i], 4),
            "visibility": _rounded(faces.visibility[i], 4),
            "guess": bool(faces.guesses[i]),
            "pose": None
            if np.isnan(angles[i]).any()
            else dict(zip(("yaw", "pitch", "roll"), _rounded(angles[i], 1), strict=True))
            | {"sigmas": _rounded(pose.sigmas[i], 1)},
            "eye_openness": _rounded(eyes[i], 3),
            "mouth_openness": _rounded(mouths[i], 3),
        }
        for i in range(len(faces))
    ]


def _rounded(numbers: np.ndarray, decimals: int) -> Any:
    """As plain numbers; None for an array of what is not known."""
    # In float64: a rounded float32 would print as 0.10000000149011612.
    numbers = np.asarray(numbers, np.float64)
    return None if np.isnan(numbers).any() else numbers.round(decimals).tolist()


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
    """The records of a JSON array; of one as `JsonArray` writes it up to where it breaks off, if it does.

    Raises ValueError for what is neither.
    """
    try:
        records = json.loads(text or "[]")
    except ValueError:
        *lines, broken_off = text.removeprefix("[").splitlines() or [""]
        records = [json.loads(line.removesuffix(",")) for line in lines]
        with contextlib.suppress(ValueError):
            records.append(json.loads(broken_off.removesuffix("]").removesuffix(",")))
    wanted = {"image", "width", "height", "faces"}
    if not isinstance(records, list) or not all(isinstance(r, dict) and wanted <= r.keys() for r in records):
        raise ValueError("it is no array of what fkp says of pictures")
    return records


class CsvTable:
    """A CSV that grows in a text file, opened with newline="": `CSV_COLUMNS`, then a row for every face."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self._writer = csv.writer(file, lineterminator="\n")
        self._writer.writerow(CSV_COLUMNS)

    def add(self, record: dict[str, Any]) -> None:
        """The rows of a picture."""
        for face in record["faces"]:
            where = [harmless(record["image"]), record["width"], record["height"], face["number"]]
            self._writer.writerow(where + face_cells(face))
        self._file.flush()

    def add_rows(self, rows: Iterable[list[str]]) -> None:
        """Rows as they were read from such a file."""
        self._writer.writerows(rows)


def harmless(text: str) -> str:
    """A cell's text that no spreadsheet takes for a formula: where it might, an apostrophe comes before it.

    https://owasp.org/www-community/attacks/CSV_Injection
    """
    return f"'{text}" if text.startswith((*"=+-@＝＋－＠\t\r\n",)) else text


def write_csv(file: IO[str], records: Iterable[dict[str, Any]]) -> None:
    """Write the header `CSV_COLUMNS` and a row for every face; open the file with newline=""."""
    table = CsvTable(file)
    for each in records:
        table.add(each)


def face_cells(face: dict[str, Any]) -> list[Any]:
    """What stands in `FACE_COLUMNS` of a face as `face_records` gives it."""
    coordinates = [coordinate for point in face["keypoints"] for coordinate in point]
    visibility = face["visibility"] or [None] * scheme.COUNT
    pose = face["pose"] or {"sigmas": [None] * 3}
    angles = [*(pose.get(name) for name in ("yaw", "pitch", "roll")), *pose["sigmas"]]
    openness = [*(face["eye_openness"] or [None] * 2), face["mouth_openness"]]
    start = [face["score"], *face["box"], *coordinates, *face["keypoint_scores"], *visibility]
    return [*start, int(face["guess"]), *angles, *openness]
