"""What is to be labelled → shards of pictures: a folder, a list, tar or Parquet shards, here or on the Hub.

Paths may be addresses that fsspec knows, as `hf://datasets/OWNER/NAME` or, with its package, `s3://…`.
"""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, Self

import fsspec
import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import errors

from fkp import images
from fkp.hub.download import first_line
from fkp.label import table

PICTURES_A_SHARD = 1000
"""Of a folder or a list, which have no shards of their own."""

PICTURES = frozenset(
    ".jpg .jpeg .jpe .jfif .png .webp .gif .tif .tiff .bmp .avif .jp2 .heic .heif .ppm .pgm".split()
)
"""Endings of the files in a folder, and of the members of a tar shard, that are taken for pictures."""

TAR = (".tar", ".tar.gz", ".tgz")
PARQUET = (".parquet",)

LARGEST = 2**29
"""Bytes of a file that are read at most: no picture has more, and none is to fill memory."""


class SourceError(ValueError):
    """A source, or a shard of it, that cannot be read: one sentence."""


class Picture(NamedTuple):
    """A picture of a shard: its place there from 0, its name, its file's bytes or what is wrong with it."""

    row: int
    key: str
    data: bytes | images.ImageError


@dataclass(frozen=True)
class Shard:
    """A part of a source, labelled as one: a file of pictures, or so many picture files.

    `name` is that of its output, without the ending. `kind` is "files" (`names` relative to the folder
    `where`), "list" (relative to where the list `where` lies), "tar" or "parquet" (the file `where`). `size`
    is how much there is to do, in pictures or, of a tar file, in bytes; of a Parquet file, `columns` hold the
    picture and perhaps its key.
    """

    name: str
    kind: str
    where: str
    size: int
    names: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    length: int = 0
    """Bytes of the file, if it is one."""
    sizes: tuple[int, ...] = ()
    """Bytes of each of the files `names`; 0 where that is not known."""

    @property
    def fingerprint(self) -> str:
        """What tells this input from another, as far as names and sizes can, wherever it lies."""
        about = asdict(self) | {"where": ""}
        if not self.sizes:
            del about["sizes"]  # which outputs of before know nothing of
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()[:16]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields: dict[str, Any] = json.loads(text)
        return cls(**fields | {name: tuple(fields[name]) for name in ("names", "columns", "sizes")})

    def pictures(self) -> Iterator[tuple[Picture, int]]:
        """Its pictures, one at a time, each with how much of `size` has been read.

        Raises SourceError where the shard itself cannot be read.
        """
        kinds = {"files": self._files, "list": self._files, "tar": self._tar, "parquet": self._parquet}
        read = kinds[self.kind]
        try:
            yield from read()
        except (OSError, tarfile.TarError, pa.ArrowException, EOFError, errors.HTTPError) as error:
            raise SourceError(f"{self.where}: cannot be read ({first_line(error)})") from error

    def _files(self) -> Iterator[tuple[Picture, int]]:
        folder = self.where.rpartition("/")[0] if self.kind == "list" else self.where
        for row, name in enumerate(self.names):
            yield Picture(row, name, _content(folder, name)), row + 1

    def _tar(self) -> Iterator[tuple[Picture, int]]:
        row = 0
        with fsspec.open(self.where, "rb") as file, tarfile.open(fileobj=file, mode="r|*") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # it would remember them all
                if not member.isfile() or PurePosixPath(member.name).suffix.lower() not in PICTURES:
                    continue
                data: bytes | images.ImageError = _too_large(member.name, member.size)
                if member.size <= LARGEST:
                    stream = tar.extractfile(member)
                    assert stream is not None  # it is a file
                    data = stream.read()
                yield Picture(row, member.name, data), file.tell()
                row += 1

    def _parquet(self) -> Iterator[tuple[Picture, int]]:
        row = 0
        with fsspec.open(self.where, "rb") as file:
            parquet = pq.ParquetFile(file, buffer_size=2**20)  # else it reads whole row groups
            for batch in parquet.iter_batches(batch_size=16, columns=list(self.columns)):
                for cells in batch.to_pylist():
                    value, *key = (cells[column] for column in self.columns)
                    yield self._cell(row, value, *key), row + 1
                    row += 1

    def _cell(self, row: int, value: Any, key: Any = None) -> Picture:
        """The picture in a row: bytes, a path, or both as `datasets` writes it."""
        content, path = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
        if isinstance(content, str):
            content, path = None, content
        name = str(key if key is not None else path or row)
        if content is not None:
            return Picture(row, name, content)
        if path is None:
            return Picture(row, name, images.ImageError(f"{name}: there is no picture in this row"))
        if "://" in path:
            return Picture(row, name, images.ImageError(f"{path}: is an address, not a file's path"))
        return Picture(row, name, _content(self.where.rpartition("/")[0], path))


def shards(source: str, column: str | None = None, key: str | None = None) -> tuple[Iterator[Shard], int]:
    """The shards of a source, made as they are asked for, and the sum of their sizes.

    A source is a folder of pictures, or of tar or Parquet shards, at any depth, a pattern as `DIR/*.tar`, a
    text file with a path a line (relative to where it lies), or such a shard. A dataset on the Hub is read as
    its newest commit is now. In Parquet shards `column` holds the pictures (by default the one that looks so)
    and `key` what they are called; other sources have none. Outputs of `fkp label` are passed over, so that
    they may lie among the pictures. Raises SourceError.
    """
    try:
        fs, root = fsspec.core.url_to_fs(_pinned(source))
        if fs.isfile(root):
            folder, _, name = root.rpartition("/")
            if name.lower().endswith((*TAR, *PARQUET)):
                return _of_files(fs, folder, [name], column, key, source)
            if PurePosixPath(name).suffix.lower() in PICTURES:
                raise SourceError(f"{source}: is one picture, for which there is 'fkp predict'")
            _without_columns(source, column, key)
            return _of_list(fs, root)
        if "*" in root:
            names = [path for path in sorted(fs.glob(root)) if not _is_output(fs, path)]
            folder = _common_folder(names)
            return _of_files(fs, folder, [path[len(folder) + 1 :] for path in names], column, key, source)
        if not fs.isdir(root):
            raise SourceError(f"{source}: there is no such file or folder")
        return _of_folder(fs, root.rstrip("/"), source, column, key)
    except (OSError, errors.HTTPError) as error:
        raise SourceError(f"{source}: cannot be read ({first_line(error)})") from error
    except ImportError as error:  # fsspec's own sentence says what to install
        raise SourceError(f"{source}: {error}") from error
    except (ValueError, NotImplementedError) as error:
        if isinstance(error, SourceError):
            raise
        raise SourceError(f"{source}: is no source ({error})") from error


def _pinned(source: str) -> str:
    """The address of a dataset on the Hub with its commit, so that every process reads the same."""
    if not source.startswith("hf://datasets/"):
        return source
    found: Any = huggingface_hub.HfFileSystem().resolve_path(source.removeprefix("hf://"))
    sha = huggingface_hub.HfApi().dataset_info(found.repo_id, revision=found.revision).sha
    return f"hf://datasets/{found.repo_id}@{sha}/{found.path_in_repo}".rstrip("/")


def _of_folder(
    fs: fsspec.AbstractFileSystem, root: str, source: str, column: str | None, key: str | None
) -> tuple[Iterator[Shard], int]:
    counts = {"pictures": 0, "tar shards": 0, "Parquet shards": 0}
    large: list[str] = []
    for name, _ in _walk(fs, root):
        if _is_output(fs, f"{root}/{name}"):
            continue
        if name.lower().endswith((*TAR, *PARQUET)):
            counts["tar shards" if name.lower().endswith(TAR) else "Parquet shards"] += 1
            large.append(name)
        elif PurePosixPath(name).suffix.lower() in PICTURES:
            counts["pictures"] += 1
    kinds = [kind for kind, count in counts.items() if count]
    if not kinds:
        raise SourceError(f"{source}: holds no picture and no tar or Parquet shard")
    if len(kinds) > 1:
        raise SourceError(f"{source}: holds {' and '.join(kinds)}: choose one kind, as with '{source}/*.tar'")
    if large:
        return _of_files(fs, root, large, column, key, source)
    _without_columns(source, column, key)
    found = ((name, size) for name, size in _walk(fs, root) if PurePosixPath(name).suffix.lower() in PICTURES)
    return _in_parts("files", _address(fs, root), found), counts["pictures"]


def _walk(fs: fsspec.AbstractFileSystem, root: str) -> Iterator[tuple[str, int]]:
    """Paths below a folder, relative to it, in one order always, and the files' sizes.

    Hidden files and folders are left out.
    """
    for folder, folders, files in fs.walk(root, detail=True):  # it asks for sizes in any case
        further = {name: folders[name] for name in sorted(folders) if not name.startswith(".")}
        folders.clear()
        folders.update(further)
        below = folder[len(root) :].strip("/")
        for name in sorted(files):
            if not name.startswith("."):
                yield f"{below}/{name}" if below else name, files[name].get("size") or 0


def _is_output(fs: fsspec.AbstractFileSystem, path: str) -> bool:
    """Whether `fkp label` has made this file; its outputs are on this machine."""
    return path.lower().endswith(PARQUET) and _is_local(fs) and table.about(Path(path)) is not None


def _without_columns(source: str, column: str | None, key: str | None) -> None:
    if column or key:
        raise SourceError(f"{source}: has no columns, as Parquet shards do: leave out column and key")


def _of_list(fs: fsspec.AbstractFileSystem, path: str) -> tuple[Iterator[Shard], int]:
    try:
        count = sum(1 for _ in _lines(fs, path))
    except UnicodeDecodeError as error:
        raise SourceError(f"{path}: is no list of pictures, tar or Parquet shard") from error
    if not count:
        raise SourceError(f"{path}: names no picture")
    folder = path.rpartition("/")[0]
    # On another machine, a request for each would take longer than all the rest.
    found = ((name, _size(folder, name) if _is_local(fs) else 0) for name in _lines(fs, path))
    return _in_parts("list", _address(fs, path), found), count


def _lines(fs: fsspec.AbstractFileSystem, path: str) -> Iterator[str]:
    with fs.open(path, "r", encoding="utf-8-sig") as file:
        yield from filter(None, (line.rstrip("\r\n") for line in file))


def _size(folder: str, name: str) -> int:
    try:
        return os.stat(_path(folder, name)).st_size
    except (OSError, ValueError):  # what it is, who reads it is told
        return 0


def _in_parts(kind: str, where: str, found: Iterator[tuple[str, int]]) -> Iterator[Shard]:
    """Shards of files, which are given by their names and sizes."""
    number = 0
    while part := tuple(islice(found, PICTURES_A_SHARD)):
        names, sizes = zip(*part, strict=True)
        yield Shard(f"pictures-{number:06d}", kind, where, len(part), names, sizes=sizes)
        number += 1


def _of_files(
    fs: fsspec.AbstractFileSystem, folder: str, names: list[str], column: str | None, key: str | None,
    source: str,
) -> tuple[Iterator[Shard], int]:  # fmt: skip
    found = []
    for name in names:
        ending = next((end for end in (*TAR, *PARQUET) if name.lower().endswith(end)), None)
        if ending is None:
            raise SourceError(f"{source}: {name} is no tar or Parquet shard")
        path = f"{folder}/{name}"
        size = length = fs.size(path)
        columns: tuple[str, ...] = ()
        if ending in PARQUET:
            size, columns = _columns(fs, path, column, key)
        kind = "parquet" if ending in PARQUET else "tar"
        found.append(Shard(name[: -len(ending)], kind, _address(fs, path), size, (), columns, length))
    if not found:
        raise SourceError(f"{source}: there is no such file")
    if all(shard.kind == "tar" for shard in found):
        _without_columns(source, column, key)
    names = [shard.name for shard in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SourceError(f"{folder}: has two shards named {twice[0]}, whose outputs would be one file")
    return iter(found), sum(shard.size for shard in found)


def _columns(
    fs: fsspec.AbstractFileSystem, path: str, column: str | None, key: str | None
) -> tuple[int, tuple[str, ...]]:
    """How many rows a Parquet file has, and its columns that hold the pictures and their keys."""
    try:
        with fs.open(path, "rb") as file:
            parquet = pq.ParquetFile(file)
            schema, rows = parquet.schema_arrow, parquet.metadata.num_rows
    except pa.ArrowException as error:
        raise SourceError(f"{path}: is damaged or no Parquet file ({error})") from error
    for wanted in filter(None, (column, key)):
        if wanted not in schema.names:
            raise SourceError(f"{path}: has no column {wanted!r}, only {', '.join(schema.names)}")
    if column is None:
        likely = [field.name for field in schema if _holds_pictures(field)]
        if len(likely) != 1:
            found = "several columns" if likely else "no column"
            raise SourceError(f"{path}: {found} may hold the pictures: name one of {', '.join(schema.names)}")
        (column,) = likely
    return rows, (column, key) if key else (column,)


def _holds_pictures(field: pa.Field) -> bool:
    if pa.types.is_struct(field.type):
        return any(child.name == "bytes" for child in field.type)
    return pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)


def _common_folder(paths: list[str]) -> str:
    """The deepest folder that all these paths lie in."""
    parts = [path.split("/")[:-1] for path in paths] or [[]]
    same = 0
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1:
            break
        same += 1
    return "/".join(parts[0][:same])


def _address(fs: fsspec.AbstractFileSystem, path: str) -> str:
    """What opens a path of this file system elsewhere; a plain path on this machine."""
    return path if _is_local(fs) else fs.unstrip_protocol(path)


def _is_local(fs: fsspec.AbstractFileSystem) -> bool:
    return isinstance(fs, fsspec.get_filesystem_class("file"))


def _path(folder: str, name: str) -> str:
    """Where a file lies; an absolute name stands for itself."""
    return name if name.startswith("/") or "://" in name else f"{folder}/{name}"


def _content(folder: str, name: str) -> bytes | images.ImageError:
    """The bytes of a picture file, or what is wrong with it."""
    fs, root = fsspec.core.url_to_fs(folder)
    path = _path(root, name)
    try:
        if _is_local(fs):
            with images.open_file(path) as file:  # no device, and no pipe that never ends
                data = file.read(LARGEST + 1)
        else:
            with fs.open(path, "rb") as file:
                data = file.read(LARGEST + 1)
    except images.ImageError as error:
        return error
    except FileNotFoundError:
        return images.ImageError(f"{name}: there is no such file")
    return data if len(data) <= LARGEST else _too_large(name, len(data))


def _too_large(name: str, size: int) -> images.ImageError:
    return images.ImageError(f"{name}: is a file of {size} bytes, more than a picture has")
