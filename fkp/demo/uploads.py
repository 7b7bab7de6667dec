"""The folder of uploads: what may be read of it, whose is what, how full it is, and what goes when.

Gradio puts an upload at `folder/<digest of its content>/<name>`, so that equal files of two visitors are one.
A visitor's copy is a second name of it, in a folder of its own, which the visitor alone takes away.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fkp import images

UNCLAIMED_SECONDS = 600
"""How long an upload waits to be asked for; a visitor's own copy of it stays."""
BROKEN_OFF_SECONDS = 60
"""How long an upload may pause."""

_full_at: dict[Path, tuple[float, int]] = {}


def uploaded(name: Any, folder: Path) -> Path:
    """The upload that a browser, or another caller, names by its path: a regular file where uploads lie.

    Raises images.ImageError for anything else: they may send what they like.
    """
    wrong = images.ImageError("What was sent is no uploaded file.")
    if not isinstance(name, str) or "\0" in name:
        raise wrong
    path = Path(os.path.normpath(name))
    if path.parent.parent.resolve() != folder.resolve() or not re.fullmatch("[0-9a-f]{64}", path.parent.name):
        raise wrong
    with suppress(OSError):
        if not stat.S_ISREG(path.lstat().st_mode) or path.parent.is_symlink():
            raise wrong
    return path  # perhaps no longer there, which has a sentence of its own


def claimed(paths: Iterable[Path], folder: Path) -> list[Path]:
    """Copies of uploads that are one visitor's own, one of each; an upload that is gone stays as named."""
    own = []
    for path in dict.fromkeys(paths):
        try:
            place = Path(tempfile.mkdtemp(prefix=f"{path.parent.name}-", dir=folder)) / path.name
            os.link(path, place)
        except OSError:
            place = path
        own.append(place)
    return own


def delete(files: Iterable[Path], folder: Path) -> None:
    """Delete a visitor's copies, and the uploads that they are of unless others have some; no examples."""
    for path in files:
        if not path.resolve().is_relative_to(folder.resolve()):
            continue  # an example
        original = folder / path.parent.name.partition("-")[0] / path.name
        with suppress(OSError):
            path.unlink()
        if path.parent != folder:
            with suppress(OSError):  # not there, or something else is in it
                path.parent.rmdir()
        with suppress(OSError):
            if original != path and original.stat().st_nlink == 1:
                original.unlink()


def new_file(folder: Path, name: str) -> Path:
    """A path for a new file in a new folder, so that no two files meet."""
    folder.mkdir(parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(dir=folder)) / name


def saved(folder: Path, name: str, key: str, write: Callable[[Path], Any]) -> Path:
    """A file for a visitor to fetch, in the place of the last one of a `key` once `write` has written it: who
    fetches meanwhile gets one of them, whole."""
    place = folder / f"saved-{key}"
    place.mkdir(parents=True, exist_ok=True)
    unfinished = place / secrets.token_hex(8)
    try:
        write(unfinished)
        return unfinished.replace(place / name)
    finally:
        unfinished.unlink(missing_ok=True)


FULL = "There is no room for more files here at the moment. Please try again in a few minutes."

MEASURE_SECONDS = 0.5
"""How often, at most, it is measured how full the folder is."""


def room(folder: Path, quota: int) -> int:
    """Bytes that may still come."""
    now = time.monotonic()
    at, held = _full_at.get(folder, (-1.0, 0))
    if now - at > MEASURE_SECONDS:
        held = 0
        seen = set()
        for parent, _, names in os.walk(folder):
            for name in names:
                with suppress(OSError):
                    status = os.lstat(os.path.join(parent, name))
                    if status.st_ino not in seen:  # copies are the same bytes
                        held += status.st_size
                    seen.add(status.st_ino)
        _full_at[folder] = now, held
    return quota - held


def delete_old(folder: Path, seconds: float) -> None:
    """Delete what came more than so many seconds ago, and uploads that broke off or that nobody asked for.

    So are folders that are empty, and links, which are not followed.
    """
    now = time.time()
    for parent, folders, files in os.walk(folder, topdown=False):
        limit = seconds
        if re.fullmatch("[0-9a-f]{64}", os.path.basename(parent)):
            limit = min(seconds, UNCLAIMED_SECONDS)
        for path in [os.path.join(parent, name) for name in files + folders]:
            with suppress(OSError):  # gone already, or a folder that is not empty
                status = os.lstat(path)
                broken_off = parent == str(folder) and now - status.st_mtime > BROKEN_OFF_SECONDS
                if stat.S_ISDIR(status.st_mode):
                    if now - status.st_ctime > seconds:
                        os.rmdir(path)
                elif broken_off or now - max(status.st_mtime, status.st_ctime) > limit:
                    os.unlink(path)


@contextmanager
def own_folder(within: Path) -> Iterator[Path]:
    """A folder for as long as a server runs; what servers have left that were killed goes now."""
    within.mkdir(parents=True, exist_ok=True)
    for lock in within.glob("fkp-*.lock"):
        with suppress(OSError), lock.open("r+") as held:
            _lock(held)
            shutil.rmtree(lock.with_suffix(""), ignore_errors=True)
            lock.unlink()
    with tempfile.TemporaryDirectory(prefix="fkp-", dir=within) as name:
        lock = Path(f"{name}.lock")
        with lock.open("w") as held:
            with suppress(OSError):
                _lock(held)
            try:
                yield Path(name)
            finally:
                lock.unlink(missing_ok=True)


def _lock(file: Any) -> None:
    """Hold a file as long as it is open. Raises OSError where another process does, or where none can."""
    try:
        import fcntl
    except ImportError:  # Windows, where what is open cannot be deleted anyway
        raise OSError("no locks here") from None
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
