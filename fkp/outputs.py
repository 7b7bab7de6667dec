"""What is written for the user: files, whole or not at all and never over something of theirs, and words."""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import signal
import stat
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TextIO

try:
    import fcntl
except ImportError:  # Windows, which does not let a file that is open be replaced
    fcntl = None  # type: ignore[assignment]

STDOUT = Path("-")

MARK = b"fkp keypoints"
"""What pictures and clips of ours have in their metadata."""

ENDINGS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]
"""Signals by which a person ends a program; Windows has not all of them."""

# How results begin that are text: so far that labels of somebody's own, or notes, do not begin so.
_STRING = rb'"(?:[^"\\]|\\.)*"'
_TEXT = re.compile(
    rb'\[\]\s*\Z|\[?\{"(image|video)": ' + _STRING + rb', "width": \d+, "height": \d+, '
    rb'|\{\s*"n": \d+,\s*"missed": |(image,width,height|frame,time),face,score,box_x1,'
)
# How labels begin, which are made by hand or from such; nobody can tell.
_LABELS = b"image,x0,y0,"
# How graphs and pictures begin, where text does not, and what they hold somewhere.
_BINARY = re.compile(rb"\x08|.{,63}\0", re.DOTALL)
_MARKS = (MARK, b"weights_sha256")


_CLAIMED = "another run is writing it"


class OutputError(OSError):
    """A file that is not written, for something would be lost: one sentence with its name and the reason."""


def check(outputs: Mapping[str, Path | None], inputs: Iterable[str | Path] = (), force: bool = False) -> None:
    """Raise OutputError, before the work, for what must not or cannot be written; `outputs` by what they are.

    Never over an input, nor twice to one file, nor to one that another run is writing. Without `force` not
    over a file either that is there already, unless fkp wrote it. The same goes for the file beside it that
    it is written to (`part`).
    """
    if STDOUT in outputs.values() and sys.stdout is None:
        raise OutputError("standard output is closed, so nothing can be written there")
    files = {what: path for what, path in outputs.items() if path is not None and path != STDOUT}
    taken: dict[Path, str] = {}
    read = {_identity(given) for given in inputs} - {None} if files else set()
    for what, path in files.items():
        if not is_writable(path):
            raise OutputError(f"{path}: no file can be written there")
        if is_file(path):
            refuse_claimed(part(path))
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
                if file != path:  # a clip says only at its end whose it is
                    reason = "of a run that was killed, or not of fkp's making; remove it, or"
                elif _holds_labels(file):
                    reason = "and may hold labels of yours;"
                else:
                    reason = "and not of fkp's making;"
                raise OutputError(f"{file}: is there already, {reason} --force overwrites it")


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


def _holds_labels(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(_LABELS)) == _LABELS


def part(path: Path) -> Path:
    """Where a file is written until it is whole: beside it, so that it can be moved there at once.

    Beside the file itself where `path` is a link.
    """
    path = _itself(path)
    return path.with_name(f"{path.name}.part")


def _itself(path: Path) -> Path:
    """The file that a link leads to, so that the file is replaced and not the link."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def appear(path: Path) -> None:
    """Give what was written to `part(path)` its name."""
    os.replace(part(path), _itself(path))


@contextlib.contextmanager
def claimed(path: Path) -> Iterator[None]:
    """Other runs of fkp are told that this one is writing a file, before anything in it changes.

    Raises OutputError where another has claimed it.
    """
    if not fcntl:  # where a file that is open cannot be renamed
        yield
        return
    with path.open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OutputError(f"{path}: {_CLAIMED}") from None
        except OSError:  # a file system without locks
            pass
        yield


def refuse_claimed(path: Path) -> None:
    """Raise OutputError for a file that another run is writing."""
    if is_being_written(path):
        raise OutputError(f"{path}: {_CLAIMED}")


def is_being_written(path: Path) -> bool:
    """Whether another run has claimed a file."""
    if not fcntl or not path.is_file():
        return False
    with contextlib.suppress(FileNotFoundError), path.open("rb") as file:  # it may be done by now
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError:  # a file system without locks
            pass
    return False


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
        with claimed(unfinished):
            try:
                with unfinished.open(mode, **options) as file:
                    yield file
                appear(path)
            except BaseException:
                if not keep:
                    unfinished.unlink(missing_ok=True)
                raise


def is_file(path: Path) -> bool:
    """Whether a path is that of a file, or of one to be, and of no folder, device or pipe.

    /dev/stdout and its like are none, even where standard output goes to a file.
    """
    return not _is_stream(path) and (not path.exists() or stat.S_ISREG(path.stat().st_mode))


def _is_stream(path: Path) -> bool:
    """Whether a path, or a link that it leads over, is an open file of the process."""
    name = os.path.abspath(path)
    for _ in range(40):  # as many links as Linux follows
        if name.startswith(("/dev/fd/", "/dev/std", "/proc/")):
            return True
        if not os.path.islink(name):
            break
        name = os.path.abspath(os.path.join(os.path.dirname(name), os.readlink(name)))
    return False


def is_writable(path: Path) -> bool:
    """Whether a file can be made at a path, or is a device or pipe that can be written."""
    if path.is_dir():
        return False
    if not is_file(path):
        return os.access(path, os.W_OK)
    folder = part(path).parent
    return folder.is_dir() and os.access(folder, os.W_OK)


@contextlib.contextmanager
def naming(path: Path, unfinished: Path | None = None) -> Iterator[None]:
    """Errors of the system, as that a disk is full, name this file if they name none, or `unfinished`.

    That is by default its `part`.
    """
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename in (None, str(unfinished or part(path))):
            error.filename = "standard output" if path == STDOUT else str(path)
        raise


# --- Words --------------------------------------------------------------------------------------------------


def run(command: Callable[[], int], refusals: tuple[type[Exception], ...] = ()) -> int:
    """The exit status of a program: what its command returns, 1 after an error, 130 after Ctrl-C.

    Errors of the system and `refusals` are told on stderr in a sentence, as warnings are; others are raised.
    """
    told: tuple[type[Exception], ...] = (OSError, *refusals)
    try:
        with warnings.catch_warnings(), _termination():
            warnings.showwarning = _show_warning
            status = command()
            if sys.stdout is not None:
                with naming(STDOUT):
                    sys.stdout.flush()  # while it can be said what goes wrong
            return status
    except KeyboardInterrupt:
        return 130
    except told as error:
        _drop_unwritten()
        if isinstance(error, BrokenPipeError):
            return 1  # whoever read our output has gone, as `| head` does: nothing more can be said there
        sentence = str(error)
        if isinstance(error, OSError) and error.errno is not None:
            sentence = f"{error.filename}: {error.strerror}" if error.filename else error.strerror or sentence
    tell(sentence)
    return 1


@contextlib.contextmanager
def _termination() -> Iterator[None]:
    """A polite kill, or a closed terminal, is as Ctrl-C: what is done is kept, nothing half-written stays."""
    before: dict[int, Any] = {}
    with contextlib.suppress(ValueError):  # not in the main thread
        for number in ENDINGS:
            if signal.getsignal(number) == signal.SIG_DFL:  # and not ignored, as nohup has it
                before[number] = signal.signal(number, signal.default_int_handler)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _drop_unwritten() -> None:
    """What stdout holds and cannot write goes nowhere, or Python would try once more as it ends."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Without the line of code that it came from."""
    tell(str(message))


def tell(sentence: str) -> None:
    """Say it on stderr, if anybody can be told there."""
    with contextlib.suppress(OSError):
        _print(f"fkp: {printable(sentence)}", sys.stderr)


def show(text: str) -> None:
    """Print a result on stdout, at once; what the system says of a full disk names it."""
    with naming(STDOUT):
        _print(text, sys.stdout)


def _print(text: str, file: TextIO | None) -> None:
    """Print it, beside a bar if there is one; nowhere if the stream is closed."""
    if file is None:
        return  # for `print` that would be stdout
    if "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.write(text, file=file)
    else:
        print(text, file=file)
    file.flush()


def printable(text: str) -> str:
    """Text with nothing in it that a terminal would obey, and no half characters; lines stay lines."""
    text = text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", lambda found: f"\\x{ord(found[0]):02x}", text)


def show_any_name() -> None:
    """From now on stdout and stderr show what their encoding lacks as \\x…, instead of failing.

    A stderr that is closed takes everything and says nothing.
    """
    if sys.stderr is None:
        # The file opened next would have its number, and get what C libraries say.
        sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
