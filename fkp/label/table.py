"""The output: a Parquet file for each shard, a row for each face and for each picture that cannot be read."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fkp import scheme
from fkp.faces import Faces

VERSION = 1
"""Of `SCHEMA`: a column may be added under the same number, and none is taken away or changed."""

METADATA = b"fkp.label"
"""Key of the file's metadata under which JSON tells `VERSION`, and what was labelled, with what, and how."""

ROWS = 4096
"""In a row group: 8 MB in memory."""

FRACTION, SHARE = 64, 4096
"""Coordinates are rounded to 1/64 pixel and scores to 1/4096: less than either is known to, and the rest
would be most of the file."""

_POINT = pa.list_(pa.float32(), 2)
_EACH = pa.list_(pa.float32(), scheme.COUNT)
_ANGLES = ("yaw", "pitch", "roll")
_POSE = pa.struct([(angle, pa.float32()) for angle in _ANGLES])

SCHEMA = pa.schema([
    pa.field("picture", pa.string(), nullable=False),
    pa.field("index", pa.int64(), nullable=False),
    pa.field("width", pa.int32()),
    pa.field("height", pa.int32()),
    pa.field("face", pa.int32()),
    pa.field("score", pa.float32()),
    pa.field("box", pa.list_(pa.float32(), 4)),
    pa.field("keypoints", pa.list_(_POINT, scheme.COUNT)),
    pa.field("keypoint_scores", _EACH),
    pa.field("sigmas", _EACH),
    pa.field("visibility", _EACH),
    pa.field("pose", _POSE),
    pa.field("error", pa.string()),
])  # fmt: skip
"""docs/label.md says what each holds."""


class Counts(NamedTuple):
    """Of a shard, or of all: pictures, the faces in them, and pictures that cannot be read."""

    pictures: int = 0
    faces: int = 0
    unreadable: int = 0

    def plus(self, other: Counts) -> Counts:
        return Counts(*(a + b for a, b in zip(self, other, strict=True)))


class Writer:
    """Writes one output, which appears under its name when it is whole, and not at all after an error.

    `about` goes into the metadata. Use as a context manager.
    """

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.path, self.about, self.counts = path, about, Counts()
        # Also where two machines label the same shard, for one was thought dead, each writes its own.
        self._part = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.part")
        self._rows: list[pa.RecordBatch] = []

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = pq.ParquetWriter(
            self._part, SCHEMA, compression="zstd", use_dictionary=["picture", "error"],
            use_byte_stream_split=_float_columns(),
        )  # fmt: skip
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self._flush()
                about = self.about | {"version": VERSION} | self.counts._asdict()
                self._file.add_key_value_metadata({METADATA.decode(): json.dumps(about)})
        finally:
            self._file.close()
            if kind is not None:
                self._part.unlink(missing_ok=True)
        if kind is None:
            os.replace(self._part, self.path)
            for left in self.path.parent.glob(f".{self.path.name}.*.part"):  # by a run that was killed
                left.unlink(missing_ok=True)

    def add(self, index: int, key: str, size_wh: tuple[int, int], faces: Faces) -> None:
        """The faces of a picture, which may be none."""
        self.counts = self.counts.plus(Counts(1, len(faces)))
        if len(faces):
            self._append(record_batch(index, key, size_wh, faces))

    def add_unreadable(self, index: int, key: str, reason: str) -> None:
        self.counts = self.counts.plus(Counts(1, 0, 1))
        row = {"picture": _text(key), "index": index, "error": _text(reason)}
        self._append(pa.RecordBatch.from_pylist([row], SCHEMA))

    def _append(self, batch: pa.RecordBatch) -> None:
        self._rows.append(batch)
        if sum(map(len, self._rows)) >= ROWS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            rows = pa.Table.from_batches(self._rows).combine_chunks()
            self._file.write_table(rows, row_group_size=len(rows))  # so that no picture is in two
            self._rows = []


def record_batch(index: int, key: str, size_wh: tuple[int, int], faces: Faces) -> pa.RecordBatch:
    """The rows of a picture's faces, in the columns of `SCHEMA`."""
    n = len(faces)
    width, height = size_wh
    columns = {
        "picture": pa.array([_text(key)] * n, pa.string()),
        "index": pa.array([index] * n, pa.int64()),
        "width": pa.array([width] * n, pa.int32()),
        "height": pa.array([height] * n, pa.int32()),
        "face": pa.array(range(n), pa.int32()),
        "score": _numbers(faces.scores, SHARE),
        "box": _numbers(faces.boxes, FRACTION),
        "keypoints": _numbers(faces.keypoints, FRACTION),
        "keypoint_scores": _numbers(faces.keypoint_scores, SHARE),
        "sigmas": _numbers(faces.sigmas, FRACTION),
        "visibility": _numbers(faces.visibility, SHARE),
        "pose": _pose(faces),
    }
    arrays = [pa.nulls(n, field.type) if (a := columns.get(field.name)) is None else a for field in SCHEMA]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def _numbers(array: np.ndarray | None, parts: int) -> pa.Array | None:
    """An array (n,…) as nested lists of fixed length, rounded to 1/parts; None where there is none."""
    if array is None or np.isnan(array).any():
        return None
    rounded = np.round(array.astype(np.float32) * parts) / np.float32(parts)
    numbers = pa.array(rounded.ravel(), pa.float32())
    for length in reversed(array.shape[1:]):
        numbers = pa.FixedSizeListArray.from_arrays(numbers, length)
    return numbers


def _pose(faces: Faces) -> pa.Array:
    """The pose in degrees, of a tenth; null where the points are no face."""
    pose = faces.pose
    angles = np.stack([pose.yaw, pose.pitch, pose.roll], axis=1).round(1)
    rows = [dict(zip(_ANGLES, row, strict=True)) if np.isfinite(row).all() else None for row in angles]
    return pa.array(rows, _POSE)


def _text(text: str) -> str:
    """A file's name need not be text, but Parquet's strings are."""
    return os.fsencode(text).decode(errors="replace")


def _float_columns() -> list[str]:
    """Their bytes are stored apart, the first of all numbers first, for they are alike."""
    paths = ["score", *(f"pose.{angle}" for angle in _ANGLES)]
    paths += [f"{name}.list.element" for name in ("box", "keypoint_scores", "sigmas", "visibility")]
    return [*paths, "keypoints.list.element.list.element"]


# --- Reading ------------------------------------------------------------------------------------------------


def about(path: Path) -> dict[str, Any] | None:
    """What the metadata of an output say; None if it is not there, not whole, or none of ours."""
    with contextlib.suppress(OSError, pa.ArrowException, ValueError):
        metadata = pq.read_metadata(path).metadata or {}
        found = json.loads(metadata.get(METADATA, b"null"))
        return found if isinstance(found, dict) and found.get("version") == VERSION else None
    return None


@dataclass(frozen=True)
class LabelledPicture:
    """A picture as it was labelled: its key, its size and its faces."""

    key: str
    size_wh: tuple[int, int]
    faces: Faces


def read(outputs: Path | Iterable[Path]) -> Iterator[LabelledPicture]:
    """The pictures with faces in outputs, given as a folder or as files, one at a time. Raises OSError."""
    if isinstance(outputs, Path):
        outputs = sorted(outputs.rglob("[!.]*.parquet")) if outputs.is_dir() else [outputs]
    for path in outputs:
        with pq.ParquetFile(path) as parquet:
            for group in range(parquet.num_row_groups):  # which holds whole pictures
                rows = parquet.read_row_group(group)
                yield from _pictures(rows.filter(pc.is_null(rows["error"])))


def _pictures(rows: pa.Table) -> Iterator[LabelledPicture]:
    arrays = {name: _array(rows[column], shape) for name, (column, shape) in _FACES.items()}
    faces = Faces(**{name: array for name, array in arrays.items() if array is not None})
    starts = np.flatnonzero(np.diff(rows["index"].to_numpy(), prepend=-1))
    for start, stop in zip(starts, [*starts[1:], len(rows)], strict=True):
        key, width, height = (rows[name][int(start)].as_py() for name in ("picture", "width", "height"))
        yield LabelledPicture(key, (width, height), faces[start:stop])


_FACES = {
    "boxes": ("box", (4,)), "scores": ("score", ()), "keypoints": ("keypoints", (scheme.COUNT, 2)),
} | {name: (name, (scheme.COUNT,)) for name in ("keypoint_scores", "sigmas", "visibility")}  # fmt: skip
"""The column, and the shape of each row, of what `Faces` has."""


def _array(column: pa.ChunkedArray, shape: tuple[int, ...]) -> np.ndarray | None:
    """A column as an array (n,*shape); None where it holds nothing."""
    if column.null_count:
        return None
    array = column.combine_chunks()
    for _ in shape:
        array = array.flatten()
    return array.to_numpy(zero_copy_only=False).reshape(-1, *shape)
