"""The output: a Parquet file for each shard, a row for each face and for each picture that cannot be read."""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from fkp import outputs, scheme
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
        self._found: list[_Found] = []
        self._batches: list[pa.RecordBatch] = []
        self._rows = 0
        self._open = self._appearing()

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._open.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    @contextlib.contextmanager
    def _appearing(self) -> Iterator[None]:
        """The file is open, and gets its name, or goes, in the end."""
        try:
            with outputs.naming(self.path, self._part):
                with (
                    outputs.claimed(self._part),
                    self._part.open("wb") as file,
                    pq.ParquetWriter(
                        file, SCHEMA, compression="zstd", use_dictionary=["picture", "error"],
                        use_byte_stream_split=_float_columns(),
                    ) as self._file,
                ):  # fmt: skip
                    yield
                    self._flush()
                    about = self.about | {"version": VERSION} | self.counts._asdict()
                    self._file.add_key_value_metadata({METADATA.decode(): json.dumps(about)})
                self._appear()
        except BaseException:
            self._part.unlink(missing_ok=True)
            raise

    def _appear(self) -> None:
        try:
            os.replace(self._part, self.path)
        except FileNotFoundError:
            # Taken for left by a killed run, where a disk has no locks: whoever did so has done the shard.
            if not self.path.exists():
                raise
        for left in self.path.parent.glob(f".{self.path.name}.*.part"):
            with contextlib.suppress(OSError):  # another user's, or open elsewhere
                if not outputs.is_being_written(left):  # by a run that was killed
                    left.unlink()

    def add(self, index: int, key: str, size_wh: tuple[int, int], faces: Faces) -> None:
        """The faces of a picture, which may be none."""
        self.counts = self.counts.plus(Counts(1, len(faces)))
        if len(faces):
            self._found.append(_Found(index, key, size_wh, faces))
            self._more_rows(len(faces))

    def add_unreadable(self, index: int, key: str, reason: str) -> None:
        self.counts = self.counts.plus(Counts(1, 0, 1))
        self._collect()
        row = {"picture": _text(key), "index": index, "error": _text(reason)}
        self._batches.append(pa.RecordBatch.from_pylist([row], SCHEMA))
        self._more_rows(1)

    def _more_rows(self, count: int) -> None:
        self._rows += count
        if self._rows >= ROWS:
            self._flush()

    def _collect(self) -> None:
        if self._found:
            self._batches.append(_record_batch(self._found))
            self._found = []

    def _flush(self) -> None:
        self._collect()
        if self._batches:
            rows = pa.Table.from_batches(self._batches).combine_chunks()
            self._file.write_table(rows, row_group_size=len(rows))  # so that no picture is in two
            self._batches, self._rows = [], 0


class _Found(NamedTuple):
    """What was found in a picture."""

    row: int
    key: str
    size_wh: tuple[int, int]
    faces: Faces


def _record_batch(found: Sequence[_Found]) -> pa.RecordBatch:
    """The rows of the faces of pictures, one after the other, in the columns of `SCHEMA`.

    Of many pictures at once: for each by itself it took a tenth of all the time of `fkp label`.
    """
    counts = [len(one.faces) for one in found]
    faces = Faces(**{
        each.name: np.concatenate([getattr(one.faces, each.name) for one in found]) for each in fields(Faces)
    })  # fmt: skip
    width, height = np.repeat([one.size_wh for one in found], counts, axis=0).T
    columns = {
        "picture": pa.array(np.repeat([_text(one.key) for one in found], counts).tolist(), pa.string()),
        "index": pa.array(np.repeat([one.row for one in found], counts), pa.int64()),
        "width": pa.array(width, pa.int32()),
        "height": pa.array(height, pa.int32()),
        "face": pa.array(np.concatenate([np.arange(count) for count in counts]), pa.int32()),
        "score": _numbers(faces.scores, SHARE),
        "box": _numbers(faces.boxes, FRACTION),
        "keypoints": _numbers(faces.keypoints, FRACTION),
        "keypoint_scores": _numbers(faces.keypoint_scores, SHARE),
        "sigmas": _numbers(faces.sigmas, FRACTION),
        "visibility": _numbers(faces.visibility, SHARE),
        "pose": _pose(faces),
        "error": pa.nulls(len(faces), pa.string()),
    }
    return pa.RecordBatch.from_arrays([columns[field.name] for field in SCHEMA], schema=SCHEMA)


def _numbers(array: np.ndarray, parts: int) -> pa.Array:
    """An array (n,…) as nested lists of fixed length, rounded to 1/parts; null in the rows with a NaN."""
    unknown = np.isnan(array.reshape(len(array), -1)).any(axis=1)
    rounded = np.round(array.astype(np.float32) * parts) / np.float32(parts)
    if not array.shape[1:]:
        return pa.array(rounded, pa.float32(), mask=unknown)
    numbers = pa.array(rounded.ravel(), pa.float32())
    for length in array.shape[:1:-1]:
        numbers = pa.FixedSizeListArray.from_arrays(numbers, length)
    return pa.FixedSizeListArray.from_arrays(numbers, array.shape[1], mask=pa.array(unknown))


def _pose(faces: Faces) -> pa.Array:
    """The pose in degrees, of a tenth; null where the points are no face."""
    pose = faces.pose
    angles = np.stack([pose.yaw, pose.pitch, pose.roll]).round(1)
    unknown = ~np.isfinite(angles).all(axis=0)
    return pa.StructArray.from_arrays([*map(pa.array, angles)], fields=list(_POSE), mask=pa.array(unknown))


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
