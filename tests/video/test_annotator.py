"""Clips with the keypoints of their faces, made with the bundled model from the portraits in examples/."""

import csv
import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from fkp import FaceKeypoints, draw, images, outputs, report, video
from fkp.__main__ import main
from fkp.tracking import TrackedFaces
from fkp.video import Progress, annotate
from fkp.video.clip_io import Clip, ClipError, Limits
from tests import filmed

EXAMPLES = Path(__file__).parents[2] / "examples"
SIZE_WH = (360, 180)


@pytest.fixture(scope="module")
def model() -> FaceKeypoints:
    return FaceKeypoints.from_pretrained()


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Two portraits side by side, the right one going to the right by two pixels a frame."""
    one = cv2.resize(images.read(EXAMPLES / "eileen_collins.jpg")[:280, 80:360], (180, 180))
    two = cv2.resize(images.read(EXAMPLES / "grace_hopper.jpg")[40:400, 80:440], (180, 180))
    frames = []
    for i in range(8):
        moved = cv2.warpAffine(two, np.float32([[1, 0, 2 * i], [0, 1, 0]]), (180, 180))
        frames.append(np.concatenate([one, moved], axis=1))
    return frames


@pytest.fixture(scope="module")
def clip(pictures: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "two people.mp4"
    return filmed.film(path, pictures, sound="aac")


@pytest.fixture(scope="module")
def made(clip: Path, model: FaceKeypoints) -> tuple[Path, list[Progress]]:
    """The folder of all that `annotate` makes of the clip, and what it said on the way."""
    folder = clip.parent / "made"
    folder.mkdir()
    files = {"json_file": folder / "a.json", "csv_file": folder / "a.csv"}
    return folder, list(annotate(clip, folder / "a.mp4", model, name="clip", threads=1, **files))


# --- What comes out -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_progress(made: tuple[Path, list[Progress]]) -> None:
    _, said = made
    assert [progress.frames for progress in said] == list(range(1, 9))
    assert {progress.total for progress in said} == {8}
    assert [progress.time for progress in said] == pytest.approx(np.arange(8) / 25, abs=1e-4)
    assert said[-1].seconds == pytest.approx(0.32, abs=0.03)
    assert said[-1].faces == 2 and said[-1].detector_runs == 1
    assert said[3].share == 0.5 and said[-1].share == 1
    assert 0 < said[0].elapsed < said[-1].elapsed
    assert said[3].left == pytest.approx(said[3].elapsed) and said[-1].left == 0
    unknown = Progress(5, None, 0.2, None, 1.0, 0, 1)
    assert unknown.share is None and unknown.left is None
    assert Progress(5, 4, 0.2, 0.1, 1.0, 0, 1).share == 1  # the file's word is not always true


def test_the_film(made: tuple[Path, list[Progress]], clip: Path) -> None:
    folder, _ = made
    assert sorted(path.name for path in folder.iterdir()) == ["a.csv", "a.json", "a.mp4"]
    before, times = filmed.watched(clip)
    after, times_after = filmed.watched(folder / "a.mp4")
    assert times_after == times and len(after) == 8
    assert filmed.listened(folder / "a.mp4") == filmed.listened(clip)
    faces = json.loads((folder / "a.json").read_text())["frames"][7]["faces"]
    changed = np.abs(after[7].astype(int) - before[7]).max(axis=2) > 40
    for face in faces:
        x1, y1, x2, y2 = (round(v) for v in face["box"])
        assert changed[y1:y2, x1:x2].mean() > 0.05  # drawn on
        changed[max(0, y1 - 25) : y2 + 8, max(0, x1 - 8) : x2 + 8] = False
    assert changed.mean() < 0.002  # and the rest is as it was


def test_json(made: tuple[Path, list[Progress]]) -> None:
    folder, _ = made
    told = json.loads((folder / "a.json").read_text())
    assert list(told) == ["video", "width", "height", "frames"]
    assert (told["video"], told["width"], told["height"]) == ("clip", 360, 180)
    assert [frame["frame"] for frame in told["frames"]] == list(range(8))
    assert [frame["time"] for frame in told["frames"]] == [round(i / 25, 6) for i in range(8)]
    for frame in told["frames"]:
        assert list(frame) == ["frame", "time", "faces"]
        assert [face["face"] for face in frame["faces"]] == [1, 2]
        for face in frame["faces"]:
            assert list(face)[:3] == ["face", "number", "box"] and face["face"] == face["number"]
            assert np.shape(face["keypoints"]) == (68, 2) and np.shape(face["keypoint_scores"]) == (68,)
    # The same face throughout: one rests, the other goes to the right by 2 pixels a frame.
    middles = np.array([[np.mean(f["keypoints"], axis=0) for f in t["faces"]] for t in told["frames"]])
    resting = int(np.ptp(middles[:, 1, 0]) < np.ptp(middles[:, 0, 0]))
    assert np.ptp(middles[:, resting], axis=0).max() < 1
    assert middles[7, 1 - resting, 0] - middles[0, 1 - resting, 0] == pytest.approx(14, abs=1.5)


def test_csv(made: tuple[Path, list[Progress]]) -> None:
    folder, _ = made
    assert video.CSV_COLUMNS[:5] == ("frame", "time", "face", "score", "box_x1")
    assert set(video.CSV_COLUMNS[3:]) < set(report.CSV_COLUMNS)
    with (folder / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == video.CSV_COLUMNS
    assert [(row["frame"], row["face"]) for row in rows] == [(str(i), j) for i in range(8) for j in "12"]
    told = json.loads((folder / "a.json").read_text())["frames"]
    for row in rows:
        face = told[int(row["frame"])]["faces"][int(row["face"]) - 1]
        assert float(row["time"]) == told[int(row["frame"])]["time"]
        assert [float(row[f"box_{edge}"]) for edge in ("x1", "y1", "x2", "y2")] == face["box"]
        assert [float(row["x67"]), float(row["y67"])] == face["keypoints"][67]
        assert float(row["s67"]) == face["keypoint_scores"][67]


def test_keypoints_are_where_the_model_alone_sees_them(
    made: tuple[Path, list[Progress]], model: FaceKeypoints, clip: Path
) -> None:
    last = json.loads((made[0] / "a.json").read_text())["frames"][7]["faces"]
    alone = model(filmed.watched(clip)[0][7])
    for keypoints in alone.keypoints:
        apart = [np.linalg.norm(np.array(face["keypoints"]) - keypoints, axis=1).mean() for face in last]
        assert min(apart) < 2


def test_clip_without_a_face(tmp_path: Path, model: FaceKeypoints) -> None:
    """A clip without a face is a normal one: its frames, no rows."""
    source = filmed.film(tmp_path / "a.mp4", 4)
    files = {"json_file": tmp_path / "b.json", "csv_file": tmp_path / "b.csv"}
    said = list(annotate(source, tmp_path / "b.webm", model, **files))
    assert said[-1].faces == 0 and len(filmed.watched(tmp_path / "b.webm")[0]) == 4
    assert [frame["faces"] for frame in json.loads((tmp_path / "b.json").read_text())["frames"]] == [[]] * 4
    assert (tmp_path / "b.csv").read_text() == ",".join(video.CSV_COLUMNS) + "\n"


@pytest.mark.slow
def test_options(tmp_path: Path, model: FaceKeypoints, clip: Path) -> None:
    """One face of two, its points as they come, drawn otherwise; no film where none is wanted."""
    told = tmp_path / "a.json"
    said = list(annotate(clip, None, model, json_file=told, max_faces=1, smoothing=False, min_score=0.5))
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"] and said[-1].faces == 1
    record = json.loads(told.read_text())
    assert record["video"] == str(clip)
    assert all(len(frame["faces"]) == 1 for frame in record["frames"])
    films = []
    bare = draw.Style(contours=False, points=False)
    for options in ({}, {"numbers": False}, {"numbers": False, "style": bare}):
        list(annotate(clip, tmp_path / "b.mp4", model, **options))  # type: ignore[arg-type]
        films.append(filmed.watched(tmp_path / "b.mp4")[0][3].astype(int))
    plain = filmed.watched(clip)[0][3]
    assert np.abs(films[2] - plain).mean() < 3 < np.abs(films[1] - plain).mean()
    assert np.abs(films[0] - films[1]).max() > 100


def test_a_number_stands_over_its_face() -> None:
    keypoints = np.zeros((2, 68, 2))
    boxes = np.array([[20, 60, 80, 120], [150, -5, 210, 55]])
    faces = TrackedFaces(boxes, np.ones(2), keypoints, np.ones((2, 68)), ids=np.array([1, 12]))
    picture = np.full((150, 220, 3), 90, np.uint8)
    video.write_numbers(picture, faces)
    touched = (picture != 90).any(axis=2)
    assert touched[40:60, 40:60].any() and not touched[62:].any()
    assert touched[:20, 150:210].any()  # within the picture, where there is no room above
    assert picture.max() > 220 and picture.min() < 30  # light, with a dark rim
    video.write_numbers(picture[:3, :3], faces)  # and nothing breaks where there is no room at all


# --- Cancelled, refused, broken -----------------------------------------------------------------------------


@pytest.mark.parametrize("after", (0, 3))
def test_cancelled(tmp_path: Path, model: FaceKeypoints, clip: Path, after: int) -> None:
    """Nothing is left of what was begun, and what was there is as it was."""
    (tmp_path / "b.csv").write_text("kept")
    files = {"json_file": tmp_path / "b.json", "csv_file": tmp_path / "b.csv"}
    generator = annotate(clip, tmp_path / "b.mp4", model, **files)
    for _ in range(after):
        next(generator)
    if after:
        assert len(list(tmp_path.iterdir())) == 4
    generator.close()
    assert [path.name for path in tmp_path.iterdir()] == ["b.csv"]
    assert (tmp_path / "b.csv").read_text() == "kept"


def test_an_interrupt_keeps_the_keypoints_until_there(
    tmp_path: Path, clip: Path, model: FaceKeypoints
) -> None:
    class Interrupted:
        """The model, until somebody presses Ctrl-C at the fourth frame."""

        calls = 0
        detect = staticmethod(model.detect)

        def keypoints_at(self, image: np.ndarray, boxes: np.ndarray) -> object:
            self.calls += 1
            if self.calls == 4:
                raise KeyboardInterrupt
            return model.keypoints_at(image, boxes)

    files = {"json_file": tmp_path / "b.json", "csv_file": tmp_path / "b.csv"}
    with pytest.raises(KeyboardInterrupt):
        list(annotate(clip, tmp_path / "b.mp4", Interrupted(), **files))  # type: ignore[arg-type]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.csv.part", "b.json.part"]
    frames = json.loads((tmp_path / "b.json.part").read_text())["frames"]
    assert [frame["frame"] for frame in frames] == [0, 1, 2]
    rows = list(csv.DictReader((tmp_path / "b.csv.part").read_text().splitlines()))
    assert [row["frame"] for row in rows] == ["0", "0", "1", "1", "2", "2"]


@pytest.mark.skipif(outputs.fcntl is None, reason="needs locks")
@pytest.mark.parametrize("end", [".mp4", ".json"])
def test_what_another_run_is_writing_is_left_to_it(
    tmp_path: Path, model: FaceKeypoints, clip: Path, end: str
) -> None:
    out = {"json_file": tmp_path / "b.json", "csv_file": tmp_path / "b.csv"}
    with outputs.replacing(tmp_path / f"b{end}") as file:
        file.write("of another run")
        file.flush()
        with pytest.raises(outputs.OutputError, match=f"b{end}.part: another run"):
            list(annotate(clip, tmp_path / "b.mp4", model, **out))
    assert {path.name for path in tmp_path.iterdir()} - {clip.name} == {f"b{end}"}
    assert (tmp_path / f"b{end}").read_text() == "of another run"


def test_of_a_clip_that_breaks_off_the_keypoints_are_kept(tmp_path: Path, model: FaceKeypoints) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (50, 48, 64, 3), np.uint8)
    source = filmed.film(tmp_path / "a.mp4", list(noise), front=True)
    source.write_bytes(source.read_bytes()[: source.stat().st_size // 3])
    generator = annotate(source, tmp_path / "b.mp4", model, json_file=tmp_path / "b.json")
    with pytest.raises(ClipError, match="a.mp4.*breaks off after"):
        list(generator)
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "b.json.part"}
    assert len(json.loads((tmp_path / "b.json.part").read_text())["frames"]) > 5


def test_stopped_early_with_what_there_is(tmp_path: Path, model: FaceKeypoints, clip: Path) -> None:
    generator = annotate(clip, tmp_path / "b.mp4", model, json_file=tmp_path / "b.json")
    next(generator), next(generator)
    with pytest.raises(StopIteration):
        generator.send(True)
    assert {path.name for path in tmp_path.iterdir()} == {"b.mp4", "b.json"}
    assert len(filmed.watched(tmp_path / "b.mp4")[0]) == 2
    assert len(json.loads((tmp_path / "b.json").read_text())["frames"]) == 2


def test_progress_begins_before_the_work(tmp_path: Path, model: FaceKeypoints, clip: Path) -> None:
    (tmp_path / "folder.mp4").mkdir()
    for target, options, sentence in (
        (tmp_path / "b.gif", {}, r"b\.gif: a video's name has to end in \.mp4, \.m4v, \.mov, \.webm, \.mkv$"),
        (tmp_path / "b", {}, "has to end in"),
        (tmp_path / "no" / "b.mp4", {}, r"b\.mp4: there is no folder .*no$"),
        (tmp_path / "folder.mp4", {}, "no file can be written there"),
        (clip, {}, "is the clip itself, which would be overwritten"),
        (None, {"json_file": tmp_path / "b", "csv_file": tmp_path / "b"}, "is to be written twice"),
        (tmp_path / "b.mp4", {"limits": Limits(pixels=9)}, "more than the limit of 9 pixels a frame"),
    ):
        with pytest.raises(ClipError, match=sentence):
            next(annotate(clip, target, model, **options))  # type: ignore[arg-type]
    assert [path.name for path in tmp_path.iterdir()] == ["folder.mp4"]
    with Clip(clip) as still_whole:
        assert still_whole.frames == 8


# --- The command line ---------------------------------------------------------------------------------------


@pytest.mark.slow
def test_command(tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = ["--json", str(tmp_path / "b.json"), "--csv", str(tmp_path / "b.csv")]
    options = ["--max-faces", "1", "--min-score", "0.5", "--no-smoothing", "--no-numbers", "--verbose"]
    assert main(["video", str(clip), str(tmp_path / "b.webm"), *files, *options]) == 0
    out, err = capsys.readouterr()
    assert out == "" and "fkp: keypoints on " in err
    assert re.search(r"fkp: 8 frames in \d+\.\d s, 1 face; the detector ran on 1\n$", err)
    assert len(filmed.watched(tmp_path / "b.webm")[0]) == 8
    told = json.loads((tmp_path / "b.json").read_text())
    assert told["video"] == str(clip) and [len(frame["faces"]) for frame in told["frames"]] == [1] * 8
    assert len((tmp_path / "b.csv").read_text().splitlines()) == 9
    assert main(["video", str(clip), "--csv", str(tmp_path / "c.csv")]) == 0
    assert capsys.readouterr() == ("", "")
    assert len((tmp_path / "c.csv").read_text().splitlines()) == 17


@pytest.mark.slow
def test_command_says_what_is_wrong(tmp_path: Path, clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "text.mp4").write_text("a text")
    for arguments, sentence in (
        ([clip], "nothing is to be written: name a video OUT, or give --json or --csv"),
        ([clip, "--json", "-"], "--json and --csv need a file's name"),
        ([clip, tmp_path / "b.avi"], "a video's name has to end in .mp4, .m4v, .mov, .webm, .mkv"),
        ([tmp_path / "none.mp4", tmp_path / "b.mp4"], "none.mp4: there is no such file"),
        ([tmp_path / "text.mp4", tmp_path / "b.mp4"], "is no video, or a damaged or incomplete one"),
    ):
        assert main(["video", *map(str, arguments)]) == 1
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("fkp: ") and err.count("\n") == 1
        assert err.endswith(sentence + "\n")
    assert [path.name for path in tmp_path.iterdir()] == ["text.mp4"]


@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGKILL])
@pytest.mark.slow
def test_command_interrupted(tmp_path: Path, pictures: list[np.ndarray], by: signal.Signals) -> None:
    """What is done is kept, under a name that can be seen; the exit status is the one that shells know.

    SIGHUP is a terminal that was closed.
    """
    source = filmed.film(tmp_path / "a.mp4", pictures * 120)
    command = [sys.executable, "-m", "fkp", "video", str(source), str(tmp_path / "b.mp4")]
    files = ["--json", str(tmp_path / "b.json")]
    process = subprocess.Popen(
        [*command, *files], cwd=EXAMPLES.parent, stderr=subprocess.PIPE, text=True,
        # What a shell starts in the background ignores Ctrl-C, and so does all that is started from there.
        preexec_fn=lambda: by != signal.SIGKILL and signal.signal(by, signal.SIG_DFL),
    )  # fmt: skip
    unfinished = tmp_path / "b.json.part"
    deadline = time.monotonic() + 120
    while not (unfinished.exists() and unfinished.stat().st_size > 10_000):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(by)
    _, err = process.communicate(timeout=60)
    assert "Traceback" not in err
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    if by == signal.SIGKILL:
        assert {path.name for path in tmp_path.iterdir()} - {"b.mp4.part"} == {"a.mp4", "b.json.part"}
        frames = json.loads(unfinished.read_text())["frames"]
    else:
        assert process.returncode == 130 and "stopped at" in err
        assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "b.mp4", "b.json"}
        frames = json.loads((tmp_path / "b.json").read_text())["frames"]
        assert len(filmed.watched(tmp_path / "b.mp4")[0]) == len(frames)
    assert 0 < len(frames) < 960
