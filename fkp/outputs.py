"""Files that are written for the user: whole or not at all, and never over something that is theirs."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

STDOUT = Path("-")

MARK = b"fkp keypoints"
"""What pictures and clips of ours have in their metadata."""

# How results begin that are text: so far that labels of somebody's own, or notes, do not begin so.
_STRING = rb'"(?:[^"\\]|\\.)*"'
_TEXT = re.compile(
    rb'\[\]\s*\Z|\[?\{"(image|video)": ' + _STRING + rb', "width": \d+, "height": \d+, '
    rb'|\{\s*"n": \d+,\s*"missed": |(image,width,height|frame,time),face,score,box_x1,'
)
# How graphs and pictures begin, where text does not, and what they hold somewhere.
_BINARY = re.compile(rb"\x08|.{,63}\0", re.DOTALL)
_MARKS = (MARK, b"weights_sha256")


class OutputError(OSError):
    """A file that is not written, for something would be lost: one sentence with its name and the reason."""


def check(outputs: Mapping[str, Path | None], inputs: Iterable[str | Path] = (), force: bool = False) -> None:
    """Raise OutputError, before the work, for what must not or cannot be written; `outputs` by what they are.

    Never over an input, nor twice to one file. Without `force` not over a file either that is there already,
    unless fkp wrote it. The same goes for the file beside it that it is written to (`part`).
    """
    files = {what: path for what, path in outputs.items() if path is not None and path != STDOUT}
    taken: dict[Path, str] = {}
    read = {_identity(given) for given in inputs} - {None} if files else set()
    for what, path in files.items():
        if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
            raise OutputError(f"{path}: no file can be written there")
        for file in (path, part(path)):
            real = file.resolve()
            if real in taken:
                raise OutputError(f"{file}: is to be both {taken[real]} and {what}")
            taken[real] = what
            if not file.is_file():
                continue  # new, or a device or pipe, where nothing can be lost
            if _identity(file) in read:
                raise OutputError(f"{file}: is read, so it cannot be {what} as well")
            if not force and not is_result(file):
                raise OutputError(f"{file}: is there already and not of fkp's making; --force overwrites it")


def _identity(path: str | Path) -> tuple[int, int] | None:
    """The same for all names of a file; None where there is none."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def is_result(path: Path) -> bool:
    """Whether fkp has written a file, as far as can be told; an empty one counts, for nothing can be lost."""
    with path.open("rb") as file:
        head = file.read(10_000)
        if not head or _TEXT.match(head):
            return True
        if not _BINARY.match(head):
            return False
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return any(content.find(mark) >= 0 for mark in _MARKS)


def part(path: Path) -> Path:
    """Where a file is written until it is whole: beside it, so that it can be moved there at once."""
    return path.with_name(f"{path.name}.part")


@contextlib.contextmanager
def replacing(path: Path, mode: str = "w", *, keep: bool = False, **options: Any) -> Iterator[IO[Any]]:
    """Open a file for writing that gets its name when it is whole; after an error, all is as it was.

    With `keep` what was written until an error stays, as `part(path)`. A device or pipe is written as it is.
    What the system says of a full disk names the file.
    """
    options = options if "b" in mode else {"encoding": "utf-8", **options}
    with naming(path):
        if not is_file(path):
            with path.open(mode, **options) as file:
                yield file
            return
        unfinished = part(path)
        try:
            with unfinished.open(mode, **options) as file:
                yield file
            os.replace(unfinished, path)
        except BaseException:
            if not keep:
                unfinished.unlink(missing_ok=True)
            raise


def is_file(path: Path) -> bool:
    """Whether a path is that of a file, or of one to be, and of no device or pipe."""
    return not path.exists() or stat.S_ISREG(path.stat().st_mode)


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Errors of the system, as that a disk is full, name this file if they name none."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise


def printable(text: str) -> str:
    """Text with nothing in it that a terminal would obey, and no half characters; lines stay lines."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)


def show_any_name() -> None:
    """From now on stdout and stderr show what their encoding lacks as \\x…, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
