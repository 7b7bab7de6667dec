"""A visitor's clip: looked at, worked on in its turn, stopped and deleted."""

from __future__ import annotations

import csv
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from fkp import draw
from fkp.demo import clip_jobs
from fkp.demo.clip_jobs import BusyError, ClipSession, JobQueue, JobSpec
from fkp.demo.settings import Settings
from fkp.video import Progress
from fkp.video.clip_io import ClipError
from tests.filmed import film, watched
from tests.stand_in import TWO_FACES, FacesInColour

STYLE = draw.Style()
LONG = 20.0  # seconds, for what takes milliseconds unless the machine has much else to do


@pytest.fixture
def uploads(tmp_path: Path) -> Path:
    (tmp_path / "uploads").mkdir()
    return tmp_path / "uploads"


def spec(path: Path, uploads: Path, settings: Settings | None = None) -> JobSpec:
    return clip_jobs.job_spec(path, STYLE, True, settings or Settings(), uploads)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# --- Looking --------------------------------------------------------------------------------------------


def test_probe_tells_of_a_clip(uploads: Path) -> None:
    clip = clip_jobs.probe(film(uploads / "a.mp4", 10, size_wh=(64, 48), sound="aac"), Settings())
    assert (clip.problem, clip.size_wh, clip.frames, clip.sound) == ("", (64, 48), 10, True)
    assert clip.seconds == pytest.approx(0.4, abs=0.1)


@pytest.mark.parametrize(
    "content, told",
    [
        (b"", "holiday.mp4: is empty"),
        (b"milk, bread", "holiday.mp4: is no video"),
        (b"\0\0\0\x20ftypisom" + bytes(500), "holiday.mp4: is no video"),
    ],
)
def test_probe_of_what_is_no_clip_names_no_folder(uploads: Path, content: bytes, told: str) -> None:
    (uploads / "holiday.mp4").write_bytes(content)
    problem = clip_jobs.probe(uploads / "holiday.mp4", Settings()).problem
    assert told in problem and str(uploads) not in problem


def test_a_song_a_photo_and_what_is_gone_are_told(uploads: Path) -> None:
    with av.open(str(uploads / "song.m4a"), "w", format="ipod") as container:
        stream = container.add_stream("aac", rate=48000)
        tone = av.AudioFrame.from_ndarray(np.zeros((1, 4800), np.float32), "fltp", "mono")
        tone.rate = 48000
        container.mux(stream.encode(tone))
        container.mux(stream.encode(None))
    assert clip_jobs.probe(uploads / "song.m4a", Settings()).problem.startswith(
        "song.m4a: has no video in it."
    )
    cv2.imwrite(str(uploads / "photo.jpg"), np.zeros((8, 8, 3), np.uint8))
    assert clip_jobs.probe(uploads / "photo.jpg", Settings()).problem.startswith("photo.jpg: is no video")
    assert "gone.mp4: " in clip_jobs.probe(uploads / "gone.mp4", Settings()).problem


def test_limits_are_told_in_numbers(uploads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(uploads / "a.mp4", 60)
    problem = clip_jobs.probe(path, Settings(max_clip_seconds=1)).problem
    assert problem.startswith("a.mp4: ") and "2.4 s" in problem and "1 s" in problem
    problem = clip_jobs.probe(path, Settings(max_clip_size=1000)).problem
    assert problem.startswith("a.mp4: ") and "MB are more than the limit of 0.001 MB." in problem
    monkeypatch.setattr(clip_jobs, "MAX_PIXELS", 3000)
    assert "64×48 is more than the limit of 3000 pixels a frame" in clip_jobs.probe(path, Settings()).problem


def test_a_poster_shows_the_first_frame(uploads: Path) -> None:
    """Made smaller, never larger."""
    for size_wh, shape in (((640, 480), (160, 213, 3)), ((64, 48), (48, 64, 3))):
        poster = clip_jobs.poster(film(uploads / f"{size_wh[0]}.mp4", 3, size_wh=size_wh))
        picture = cv2.imdecode(np.frombuffer(poster, np.uint8), cv2.IMREAD_COLOR)
        assert picture.shape == shape
        at = shape[0] // 8
        np.testing.assert_allclose(picture[at, at, ::-1], (220, 40, 40), atol=40)


# --- The work -------------------------------------------------------------------------------------------


def test_a_clip_comes_back_with_its_faces(uploads: Path) -> None:
    model = FacesInColour(*TWO_FACES)
    given = spec(film(uploads / "holiday.mov", 5, size_wh=(160, 120)), uploads)
    job_queue = JobQueue(lambda each: clip_jobs.annotate(model, each))
    job = job_queue.begin(given)
    assert job.wait(LONG) and job.done and job.problem == ""
    assert job.progress.frames == 5 and job.progress.faces == 2
    names = ["holiday_keypoints.csv", "holiday_keypoints.json", "holiday_keypoints.mp4"]
    assert files(given.folder) == names and given.folder.is_relative_to(uploads)
    assert [path.name for path in (given.csv, given.json, given.film)] == names
    frames, _ = watched(given.film)
    assert len(frames) == 5 and frames[0].shape == (120, 160, 3)
    told = json.loads(given.json.read_text())
    assert told["video"] == "holiday.mov" and [len(f["faces"]) for f in told["frames"]] == [2] * 5
    with given.csv.open(newline="") as file:
        assert [row["face"] for row in csv.DictReader(file)] == ["1", "2"] * 5


def test_job_of_a_damaged_clip_tells_and_leaves_nothing(uploads: Path) -> None:
    path = film(uploads / "a.mp4", 60, front=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    job_queue = JobQueue(lambda each: clip_jobs.annotate(FacesInColour(), each))
    job = job_queue.begin(spec(path, uploads))
    assert job.wait(LONG) and not job.done and files(uploads) == ["a.mp4"]
    assert job.problem.startswith("a.mp4: ") and job.problem.endswith("Please choose another clip.")


def test_a_fault_of_ours_ends_one_job_and_not_the_line(
    uploads: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(given: JobSpec):
        yield step(1)
        if given.clip.name == "bad.mp4":
            raise RuntimeError("secret")

    job_queue = JobQueue(work)
    jobs = [job_queue.begin(spec(uploads / name, uploads)) for name in ("bad.mp4", "good.mp4")]
    assert all(job.wait(LONG) for job in jobs)
    assert jobs[0].problem.startswith("bad.mp4: ") and "secret" not in jobs[0].problem
    assert jobs[1].done and "secret" in capsys.readouterr().err


# --- The line -------------------------------------------------------------------------------------------


def step(frames: int) -> Progress:
    return Progress(frames, 100, frames / 25, 4.0, 0.1, 1, 1)


class Slow:
    """Work that goes on until it is let go, or its job is stopped; writes a file meanwhile."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.closed: list[str] = []
        self.go = threading.Event()

    def __call__(self, given: JobSpec):
        self.begun.append(given.clip.stem)
        (given.folder / ".half").write_text("half")
        try:
            for frame in range(10**6):
                yield step(frame)
                if self.go.wait(0.005):
                    break
            given.film.write_text("film")
        finally:
            (given.folder / ".half").unlink()
            self.closed.append(given.clip.stem)


def test_jobs_run_one_at_a_time_and_in_their_order(uploads: Path) -> None:
    work = Slow()
    job_queue = JobQueue(work)
    jobs = [job_queue.begin(spec(uploads / f"{name}.mp4", uploads)) for name in "abc"]
    until(lambda: jobs[0].progress)
    assert [job_queue.ahead_of(job) for job in jobs] == [0, 1, 2] and work.begun == ["a"]
    jobs[1].stop()  # one in the line
    assert jobs[1].wait(LONG) and not jobs[1].done and job_queue.ahead_of(jobs[2]) == 1
    work.go.set()
    assert all(job.wait(LONG) for job in jobs) and work.begun == ["a", "c"]
    assert [job.done for job in jobs] == [True, False, True]
    assert files(uploads) == ["a_keypoints.mp4", "c_keypoints.mp4"]


def test_two_at_a_time(uploads: Path) -> None:
    work = Slow()
    job_queue = JobQueue(work, at_once=2)
    jobs = [job_queue.begin(spec(uploads / f"{name}.mp4", uploads)) for name in "abc"]
    until(lambda: jobs[0].progress and jobs[1].progress)
    assert [job_queue.ahead_of(job) for job in jobs] == [0, 0, 1] and set(work.begun) == {"a", "b"}
    work.go.set()
    assert all(job.wait(LONG) and job.done for job in jobs)


def test_stopping_ends_the_work_and_leaves_nothing(uploads: Path) -> None:
    work = Slow()
    job_queue = JobQueue(work)
    job = job_queue.begin(spec(uploads / "a.mp4", uploads))
    until(lambda: job.progress)
    job.stop()
    assert job.wait(LONG) and work.closed == ["a"] and not job.done
    until(lambda: not list(uploads.iterdir()))


def test_the_line_is_bounded(uploads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clip_jobs, "LINE", 1)
    work = Slow()
    job_queue = JobQueue(work)
    jobs = [job_queue.begin(spec(uploads / f"{name}.mp4", uploads)) for name in "ab"]
    with pytest.raises(BusyError, match=r"^Too many clips .* Please try again in a few minutes\.$"):
        job_queue.begin(spec(uploads / "c.mp4", uploads))
    work.go.set()
    assert all(job.wait(LONG) for job in jobs) and len(list(uploads.iterdir())) == 2


def test_jobs_end_when_the_program_does(uploads: Path) -> None:
    work = Slow()
    job_queue = JobQueue(work)
    jobs = [job_queue.begin(spec(uploads / f"{name}.mp4", uploads)) for name in "ab"]
    until(lambda: jobs[0].progress)
    clip_jobs.close_all()
    assert all(job.ended for job in jobs) and work.begun == work.closed == ["a"]
    assert files(uploads) == []


# --- Forgetting -----------------------------------------------------------------------------------------


def test_session_deletes_its_upload_and_what_was_made_of_it(uploads: Path) -> None:
    clip = clip_jobs.probe(film(uploads / "a.mp4", 3), Settings())
    job = JobQueue(lambda each: clip_jobs.annotate(FacesInColour(), each)).begin(spec(clip.path, uploads))
    assert job.wait(LONG) and len(files(uploads)) == 4
    ClipSession(clip, job).discard(uploads, but=clip.path)
    assert files(uploads) == ["a.mp4"]
    ClipSession(clip, job).discard(uploads)
    assert list(uploads.iterdir()) == []
    ClipSession(clip, job).discard(uploads)  # twice is no error
    ClipSession().discard(uploads)


def test_session_does_not_delete_an_example(uploads: Path, tmp_path: Path) -> None:
    clip = clip_jobs.probe(film(tmp_path / "example.mp4", 3), Settings())
    ClipSession(clip).discard(uploads)
    assert clip.path.is_file()


def test_errors_of_clips_end_with_what_to_do() -> None:
    told = clip_jobs._problem(Path("/tmp/x/a.mp4"), ClipError("/tmp/x/a.mp4: is empty"))
    assert told.startswith("a.mp4: is empty. ") and "another clip" in told and "/tmp" not in told
