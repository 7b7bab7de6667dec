"""A visitor's clip: checked when it comes, worked on in its turn, stopped when asked, and deleted.

A clip takes as long as a hundred photos, so a `JobQueue` does few at a time, in threads of its own, while the
others wait in line; what asks for photos is served meanwhile.
"""

from __future__ import annotations

import contextvars
import json
import math
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import cv2

from fkp import draw, video
from fkp.demo import uploads
from fkp.demo.settings import Settings
from fkp.video.clip_io import Clip, ClipError, Frame, Limits

if TYPE_CHECKING:
    from fkp.pipeline import FaceKeypoints

MAX_PIXELS = 3840 * 2160
"""Pixels a frame may have."""
LINE = 8
"""Clips that wait at most, besides those that are worked on."""
OF_ONE = 3
"""Clips that one visitor may have there at the same time."""


class BusyError(RuntimeError):
    """The line is full; a sentence for the visitor."""


@dataclass(frozen=True)
class ClipInfo:
    """A clip that was given, or `problem`, a sentence about it.

    `seconds` and `frames` are as `clip_io.Clip` has them, None where the file does not say.
    """

    path: Path
    problem: str = ""
    size_wh: tuple[int, int] = (0, 0)
    seconds: float | None = None
    frames: int | None = None
    sound: bool = False


@dataclass(frozen=True)
class JobSpec:
    """What is to be made of a clip, in a folder: three files. `numbers` writes each face's number over it,
    the faces looked for are `max_faces` at most, of at least `min_score`."""

    clip: Path
    folder: Path
    limits: Limits
    style: draw.Style
    numbers: bool
    max_faces: int
    min_score: float | None = None
    recorded: bool = False
    """Whether the numbers are there already, those of an earlier spec, and are only to be drawn."""
    drawn: bool = True
    """Whether there is to be a film at all."""

    @property
    def film(self) -> Path:
        return self._file("mp4")

    @property
    def json(self) -> Path:
        return self._file("json")

    @property
    def csv(self) -> Path:
        return self._file("csv")

    def _file(self, ending: str) -> Path:
        return self.folder / f"{self.clip.stem}_keypoints.{ending}"


def limits(settings: Settings) -> Limits:
    """What a clip may have."""
    return Limits(settings.max_clip_seconds, MAX_PIXELS, settings.max_clip_size, settings.max_clip_frames)


def probe(path: Path, settings: Settings) -> ClipInfo:
    """What can be told of a clip before the work; what cannot be worked on gets a `problem`."""
    try:
        with Clip(path, limits(settings), threads=1) as clip:
            return ClipInfo(path, "", clip.size_wh, clip.seconds, clip.frames, clip.sound is not None)
    except ClipError as error:
        return ClipInfo(path, _problem(path, error))


def poster(path: Path, height: int = 160) -> bytes:
    """A picture of a clip's first frame, so many pixels high at most, as JPEG."""
    with Clip(path, threads=1) as clip:
        first = next(part for part in clip if isinstance(part, Frame)).image
    factor = min(1.0, height / first.shape[0])
    small = cv2.resize(first, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))[1].tobytes()


def job_spec(
    path: Path,
    style: draw.Style,
    numbers: bool,
    settings: Settings,
    folder: Path,
    *,
    max_faces: int | None = None,
    min_score: float | None = None,
    recorded: JobSpec | None = None,
    drawn: bool = True,
) -> JobSpec:
    """A spec whose files will lie in a new folder within `folder`; the numbers of a `recorded` one are
    copied there, if there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    own = Path(tempfile.mkdtemp(dir=folder))
    most = min(max_faces or settings.max_faces, settings.max_faces)
    new = JobSpec(path, own, limits(settings), style, numbers, most, min_score, recorded is not None, drawn)
    if recorded is not None:
        shutil.copy(recorded.json, new.json)
        shutil.copy(recorded.csv, new.csv)
    return new


def annotate(model: FaceKeypoints, spec: JobSpec) -> Generator[video.Progress, Any]:
    """Do what a spec says, as `video.annotate` does."""
    return video.annotate(
        spec.clip,
        spec.film if spec.drawn else None,
        model,
        json_file=None if spec.recorded else spec.json,
        csv_file=None if spec.recorded or not spec.drawn else spec.csv,
        name=spec.clip.name,
        limits=spec.limits,
        style=spec.style,
        numbers=spec.numbers,
        min_score=spec.min_score,
        max_faces=spec.max_faces,
        threads=1,  # more would be taken from those who wait for a photo
        recorded=spec.json if spec.recorded else None,
    )


def faces_seen(spec: JobSpec) -> int:
    """How many faces a clip that is done has shown."""
    frames = json.loads(spec.json.read_text(encoding="utf-8"))["frames"]
    return max((face["face"] for frame in frames for face in frame["faces"]), default=0)


SURE, GUESS, NONE = 2, 1, 0
"""What is known of a frame at best: a face, a face whose points are a guess, no face."""


def timeline(spec: JobSpec) -> list[tuple[float, float, int]]:
    """Stretches of a clip that is done: from, to, in seconds, and the best of `SURE`, `GUESS`, `NONE` in
    them."""
    stretches: list[tuple[float, float, int]] = []
    frames = json.loads(spec.json.read_text(encoding="utf-8"))["frames"]
    for frame in frames:
        state = max((GUESS if face["guess"] else SURE for face in frame["faces"]), default=NONE)
        if stretches and stretches[-1][2] == state:
            stretches[-1] = (stretches[-1][0], frame["time"], state)
        else:
            start = stretches[-1][1] if stretches else frame["time"]
            stretches.append((start, frame["time"], state))
    return stretches


Work = Callable[[JobSpec], Generator[video.Progress, Any]]
"""What does as a spec says, step by step."""


class Job:
    """What a spec asks for, in a queue; `spec` says where its files are when it is `done`.

    `progress` is the newest, None until it begins; `problem` is a sentence when it has failed.
    """

    def __init__(self, spec: JobSpec, visitor: str = "") -> None:
        self.spec, self.visitor = spec, visitor
        self.progress: video.Progress | None = None
        self.problem = ""
        self.done = self.stopped = False
        self._ended = threading.Event()

    @property
    def ended(self) -> bool:
        """Whether nothing is going on any more, for whatever reason."""
        return self._ended.is_set()

    def wait(self, seconds: float) -> bool:
        """Wait for its end, so long at most; whether it has ended."""
        return self._ended.wait(seconds)

    def stop(self) -> None:
        """Let it end soon, and leave no file."""
        self.stopped = True

    def discard(self) -> None:
        """The same, and delete its files if it is done already."""
        self.stop()
        if self.ended:
            shutil.rmtree(self.spec.folder, ignore_errors=True)

    def run(self, work: Work, seconds: float = math.inf) -> None:
        """Do it, unless it is stopped, or takes longer than so many seconds; raises nothing."""
        ends = time.monotonic() + seconds
        try:
            with closing(work(self.spec)) as steps:
                for self.progress in steps:
                    if self.stopped:
                        return
                    if time.monotonic() > ends:
                        longer = f"takes longer than the {seconds:g} s that are worked on a clip here"
                        self.problem = f"{self.spec.clip.name}: {longer}. Please choose a shorter one."
                        return
            self.done = True
        except ClipError as error:
            self.problem = _problem(self.spec.clip, error)
        except Exception:  # the line goes on
            traceback.print_exc(file=sys.stderr)
            self.problem = f"{self.spec.clip.name}: something went wrong here. Please try again."

    def end(self) -> None:
        """Tell that it is over; without a result, nothing is left of it."""
        if self.stopped or not self.done:
            shutil.rmtree(self.spec.folder, ignore_errors=True)
        self._ended.set()
        if self.stopped:  # perhaps only now, by one who thought that it had not ended
            shutil.rmtree(self.spec.folder, ignore_errors=True)


class JobQueue:
    """Does jobs by `work`, `at_once` of them at the same time and none for longer than `seconds`.

    The others wait, the first of every visitor before the second of any.
    """

    def __init__(self, work: Work, at_once: int = 1, seconds: float = math.inf) -> None:
        self._work, self._at_once, self._seconds = work, at_once, seconds
        self._jobs: list[Job] = []
        self._changed = threading.Condition()
        _open.add(self)

    @property
    def room(self) -> int:
        """How many jobs it holds, those in the line as well."""
        return self._at_once + LINE

    def begin(self, spec: JobSpec, visitor: str = "") -> Job:
        """Put what a visitor asks for in the line.

        Raises BusyError if that is full, or has enough of this visitor; without a name none has enough.
        """
        job = Job(spec, visitor)
        with self._changed:
            own = sum(each.visitor == visitor for each in self._jobs) if visitor else 0
            if len(self._jobs) >= self.room or own >= OF_ONE:
                shutil.rmtree(spec.folder, ignore_errors=True)
                which = f"{own} of your clips" if own >= OF_ONE else "Too many clips"
                raise BusyError(f"{which} are being worked on. Please try again in a few minutes.")
            self._jobs.append(job)
            working, waiting = self._jobs[: self._at_once], self._jobs[self._at_once :]
            before = {each: i for i, each in enumerate(self._jobs)}
            rank = {
                each: sum(o.visitor == each.visitor and before[o] < before[each] for o in self._jobs)
                if each.visitor else 0
                for each in waiting
            }  # fmt: skip
            self._jobs = working + sorted(waiting, key=rank.__getitem__)
        # In the visitor's context, for a GPU that is lent is counted as theirs.
        run = contextvars.copy_context().run
        threading.Thread(target=run, args=[self._serve, job], daemon=True, name="fkp-clip").start()
        return job

    def ahead_of(self, job: Job) -> int:
        """How many have to end before this one begins."""
        with self._changed:
            place = self._jobs.index(job) if job in self._jobs else 0
        return max(0, place + 1 - self._at_once)

    def close(self, seconds: float = 5.0) -> None:
        """Stop all that goes on, and wait so long for it."""
        with self._changed:
            jobs = list(self._jobs)
        for job in jobs:
            job.stop()
        for job in jobs:
            job.wait(seconds)

    def _serve(self, job: Job) -> None:
        try:
            # A stopped job says so to nobody: that is checked now and then.
            while self.ahead_of(job) and not job.stopped:
                with self._changed:
                    self._changed.wait(0.2)
            if not job.stopped:
                job.run(self._work, self._seconds)
        finally:
            with self._changed:
                self._jobs.remove(job)
                self._changed.notify_all()
            job.end()


_open: WeakSet[JobQueue] = WeakSet()


def close_all() -> None:
    """Close every queue there is: the program ends."""
    for job_queue in list(_open):
        job_queue.close()


@dataclass(frozen=True, eq=False)
class ClipSession:
    """A visitor's clip, if any, and the job that it was given to, if any; `found` is the last that is done,
    whose numbers other jobs draw anew."""

    info: ClipInfo | None = None
    job: Job | None = None
    found: Job | None = None

    @property
    def path(self) -> Path | None:
        return self.info.path if self.info else None

    def discard(self, folder: Path, but: Path | None = None, but_job: Job | None = None) -> None:
        """Stop the jobs and delete all files, but not an upload that was given again, nor those of `but_job`.

        What lies elsewhere than in the folder of uploads, the example, stays.
        """
        for job in {self.job, self.found}:
            if job is not None and job is not but_job:
                job.discard()
        if self.path and self.path != but:
            uploads.delete([self.path], folder)


def _problem(path: Path, error: ClipError) -> str:
    """A sentence with the clip's name, which knows no folder."""
    return f"{str(error).replace(str(path), path.name)}. Please choose another clip."
