"""`fkp label` on one machine: every picture once, whatever is killed in between."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from fkp import FaceKeypoints, hub, images, label
from fkp.__main__ import main
from fkp.label import labeller, sources, table
from tests.label import material

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model() -> FaceKeypoints:
    return FaceKeypoints.from_pretrained(threads=1)


@pytest.fixture
def tars(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        material.tar(tmp_path / "in" / f"{name}.tar")
    return tmp_path / "in"


def found(out: Path) -> list[tuple[str, int | None, str | None]]:
    """Picture, face and error of every row, from all outputs."""
    columns = ["picture", "face", "error"]
    rows = pq.read_table(sorted(out.rglob("*.parquet")) or out, columns=columns).to_pylist()
    return [(row["picture"], row["face"], row["error"]) for row in rows]


def expected(prefix: str = "./") -> list[tuple[str, int | None, str | None]]:
    rows: list[tuple[str, int | None, str | None]]
    rows = [(prefix + name, face, None) for name, n in material.FACES.items() for face in range(n)]
    return [*rows, (prefix + "text.jpg", None, "is no picture")]


def same(out: Path, copies: int = 1) -> None:
    rows = found(out)
    assert len(rows) == 7 * copies
    for row, wanted in zip(rows, expected() * copies, strict=True):
        assert row[:2] == wanted[:2] and (row[2] is None) == (wanted[2] is None)


@pytest.mark.slow
def test_command(tars: Path, tmp_path: Path, model: FaceKeypoints, capsys: pytest.CaptureFixture) -> None:
    """Two processes, three shards; then all of it is there, and the same command does nothing."""
    out = tmp_path / "out"
    command = ["label", str(tars), "--out", str(out), "--workers", "2"]
    assert main(command) == 0
    assert "15 pictures, 18 faces" in capsys.readouterr().out
    same(out, copies=3)
    (direct,) = [p.faces for p in label.read(out / "a.parquet") if p.key == "./four_faces.jpg"]
    wanted = model(material.EXAMPLES / "four_faces.jpg")
    np.testing.assert_allclose(direct.keypoints, wanted.keypoints, atol=0.1)
    np.testing.assert_allclose(direct.visibility, wanted.visibility, atol=0.01)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert main(command) == 0
    assert "0 pictures, 0 faces" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    os.remove(out / "b.parquet")
    assert main(command) == 0
    assert "5 pictures, 6 faces" in capsys.readouterr().out
    same(out, copies=3)


def test_results_of_other_settings(tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["label", f"{tars}/a.tar", "--out", str(tmp_path), "--workers", "1"]
    assert main(command) == 0
    assert main([*command, "--max-faces", "1"]) == 1
    assert "other weights or settings" in capsys.readouterr().err
    assert main([*command, "--max-faces", "1", "--overwrite"]) == 0
    assert "3 faces" in capsys.readouterr().out
    assert {row[1] for row in found(tmp_path / "a.parquet")} == {0, None}


def grace(folder: Path, *names: str) -> Path:
    """A folder of copies of a picture with one face."""
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_bytes(material.content("grace_hopper.jpg"))
    return folder


def test_fewer_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What moves into an earlier shard is not left in a later one too, and nothing else is removed."""
    monkeypatch.setattr(sources, "PICTURES_A_SHARD", 1)
    source, out = grace(tmp_path / "in", "a.jpg", "b.jpg", "c.jpg"), tmp_path / "out"
    command = ["label", str(source), "--out", str(out), "--workers", "1"]
    assert main(command) == 0
    others = [material.parquet(out / name) for name in ("pictures-000004.parquet", "pictures-more.parquet")]
    others.append(out / "pictures-000005.parquet")
    with table.Writer(others[-1], {"source": "/elsewhere"}):
        pass
    before = [path.read_bytes() for path in others]
    os.remove(source / "a.jpg")
    assert main(command) == 0
    told = capsys.readouterr().err
    assert "1 output removed" in told and "pictures-000002.parquet" in told
    assert "another source left" in told and "pictures-000005.parquet" in told
    assert [path.read_bytes() for path in others] == before
    for path in others:
        path.unlink()
    assert found(out) == [("b.jpg", 0, None), ("c.jpg", 0, None)]


def test_two_lists_in_a_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are two sources: the shorter one does not remove what the longer one gave."""
    monkeypatch.setattr(sources, "PICTURES_A_SHARD", 1)
    source, out = grace(tmp_path / "in", "a.jpg", "b.jpg"), tmp_path / "out"
    (source / "two.txt").write_text("a.jpg\nb.jpg\n")
    (source / "one.txt").write_text("a.jpg\n")
    for name in ("two.txt", "one.txt"):
        assert main(["label", f"{source}/{name}", "--out", str(out), "--workers", "1"]) == 0
    assert "another source left" in capsys.readouterr().err
    assert found(out) == [("a.jpg", 0, None), ("b.jpg", 0, None)]


def test_a_file_that_changed(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.jpg").write_text("not a picture")
    command = ["label", str(source), "--out", str(tmp_path / "out"), "--workers", "1"]
    assert main(command) == 0
    assert ", 1 picture could not be read" in capsys.readouterr().out
    grace(source, "a.jpg")
    assert main(command) == 0
    assert capsys.readouterr().out.startswith("1 picture, 1 face, in")
    assert found(tmp_path / "out") == [("a.jpg", 0, None)]
    assert main(command) == 0
    assert ", 1 shard was finished before" in capsys.readouterr().out


def test_a_picture_that_breaks_off(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """What is there of it is labelled, and nobody takes it for a whole one."""
    source = grace(tmp_path / "in", "whole.jpg")
    (source / "part.jpg").write_bytes(material.broken_off("grace_hopper.jpg"))
    assert main(["label", str(source), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    printed, told = capsys.readouterr()
    assert "2 pictures, 2 faces" in printed and "1 picture in part only" in printed
    assert "fkp: part.jpg: is damaged or incomplete" in told and "whole.jpg" not in told
    assert found(tmp_path / "out") == [("part.jpg", 0, None), ("whole.jpg", 0, None)]


def test_names_that_are_commands_to_a_terminal(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tar = material.tar(tmp_path / "a.tar", {"\x1b]0;owned\x07.jpg": material.broken_off("grace_hopper.jpg")})
    assert main(["label", str(tar), "--out", str(tmp_path / "out"), "--workers", "1"]) == 0
    told = capsys.readouterr().err
    assert "owned" in told and not set("\x1b\x07") & set(told)


def test_a_shard_that_another_run_finishes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not taken for a file of the user."""

    def about(path: Path) -> None:
        path.touch()

    monkeypatch.setattr(table, "about", about)
    shard = sources.Shard("a", "tar", "a.tar", 1)
    todo = label._unfinished(iter([shard]), label.Settings(), tmp_path, False, lambda _: None)
    assert list(todo) == [shard]


@pytest.mark.parametrize("place", [".", "labels"])
def test_out_among_the_pictures(tmp_path: Path, place: str, capsys: pytest.CaptureFixture) -> None:
    grace(tmp_path, "a.jpg")
    command = ["label", str(tmp_path), "--out", str(tmp_path / place), "--workers", "1"]
    for told in ("1 picture, 1 face", "1 shard was finished before"):
        assert main(command) == 0
        assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("source", "flag"),
    [("a.tar", "--gpus=1"), ("pictures", "--column=id"), ("list.txt", "--key=id"), ("a.tar", "--column=id")],
)
def test_flags_without_use(tmp_path: Path, source: str, flag: str, capsys: pytest.CaptureFixture) -> None:
    """They are an error, not ignored."""
    grace(tmp_path / "pictures", "a.jpg")
    (tmp_path / "list.txt").write_text("pictures/a.jpg\n")
    material.tar(tmp_path / "a.tar", {"a.jpg": b"x"})
    out = tmp_path / "out"
    assert main(["label", f"{tmp_path}/{source}", "--out", str(out), "--workers", "1", flag]) == 1
    assert ("gpus" if flag == "--gpus=1" else "column") in capsys.readouterr().err
    assert not list(out.glob("*"))


def test_never_over_a_file_of_the_user(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    source = material.parquet(tmp_path / "a.parquet")
    before = source.read_bytes()
    assert main(["label", str(tmp_path), "--out", str(tmp_path)]) == 1
    assert main(["label", str(source), "--out", str(tmp_path)]) == 1
    tar = material.tar(tmp_path / "in" / "a.tar")
    assert main(["label", str(tar), "--out", str(tmp_path), "--overwrite"]) == 1
    assert "a.parquet: is there already" in capsys.readouterr().err
    assert source.read_bytes() == before


def test_a_damaged_shard(tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """It is told, and does not end the rest."""
    (tars / "b.tar").write_bytes((tars / "b.tar").read_bytes()[:100_000])
    out = tmp_path / "out"
    assert main(["label", str(tars), "--out", str(out), "--workers", "1"]) == 1
    assert "b.tar: cannot be read" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["a.parquet", "c.parquet"]
    same(out, copies=2)


def test_worker_without_what_it_needs(tars: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    command = ["label", str(tars), "--out", str(tmp_path / "out"), "--workers", "1", "--backend", "abacus"]
    assert main(command) == 1
    told = capsys.readouterr().err
    assert "there is no backend 'abacus'" in told and "Traceback" not in told


def test_source_that_is_none(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "empty").mkdir()
    for name, reason in {"no": "there is no such file or folder", "empty": "holds no picture"}.items():
        assert main(["label", str(tmp_path / name), "--out", str(tmp_path / "out")]) == 1
        assert f"{name}: {reason}" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# --- Killed -------------------------------------------------------------------------------------------------


def many(folder: Path) -> Path:
    for number in range(8):
        shard = {f"{number}-{copy}.jpg": material.content("grace_hopper.jpg") for copy in range(12)}
        material.tar(folder / f"{number}.tar", shard)
    return folder


def begin(source: Path, out: Path) -> subprocess.Popen[str]:
    """A run that has finished a shard or two, and is in the middle of others."""
    command = [sys.executable, "-m", "fkp", "label", str(source), "--out", str(out), "--workers", "2"]
    process = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
        # As in a terminal: what is run in the background ignores it, and so would this.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and not (list(out.glob("[!.]*")) and list(out.glob(".*"))):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    return process


def workers(out: Path) -> set[int]:
    """The processes that are writing outputs: what is unfinished has their numbers in its name."""
    return {int(path.name.split("-")[-1].removesuffix(".part")) for path in out.glob(".*.part")}


def wait_until_gone(processes: set[int]) -> None:
    deadline = time.monotonic() + 100
    while any(map(alive, processes)):
        assert time.monotonic() < deadline, "workers outlive the run"
        time.sleep(0.1)


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
@pytest.mark.parametrize("what", ["run", "worker", "Ctrl-C"])
def test_killed_and_gone_on_with(tmp_path: Path, what: str, capsys: pytest.CaptureFixture) -> None:
    source, out = many(tmp_path / "in"), tmp_path / "out"
    process = begin(source, out)
    working = workers(out)
    assert working
    if what == "run":
        process.kill()
    elif what == "worker":
        os.kill(min(working), signal.SIGKILL)
    else:
        os.killpg(process.pid, signal.SIGINT)
    told = process.communicate(timeout=100)[1]
    wait_until_gone(working)
    assert process.returncode == {"run": -signal.SIGKILL, "worker": 1, "Ctrl-C": 130}[what]
    assert "Traceback" not in told
    assert ("a worker process ended" in told) == (what == "worker")
    finished = {path: path.stat().st_mtime_ns for path in out.glob("[!.]*")}
    assert 0 < len(finished) < 8
    assert all(table.about(path) for path in finished), "an output that is not whole"
    assert main(["label", str(source), "--out", str(out), "--workers", "2"]) == 0
    assert capsys.readouterr().out.startswith(f"{12 * (8 - len(finished))} pictures")
    assert {path: path.stat().st_mtime_ns for path in finished} == finished
    names = [f"./{number}-{copy}.jpg" for number in range(8) for copy in range(12)]
    assert sorted(row[0] for row in found(out)) == sorted(names)
    assert not list(out.glob(".*")), "what the killed run left"


# --- The operator -------------------------------------------------------------------------------------------


def test_reduced_decoding(model: FaceKeypoints, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A large JPEG is decoded at half its sides; the points are those of the whole picture."""
    whole = cv2.resize(images.read(material.EXAMPLES / "four_faces.jpg"), None, fx=6, fy=6)
    data = cv2.imencode(".jpg", whole[..., ::-1])[1].tobytes()
    enough = model.weights.detector.fine_pixels
    assert whole.shape[0] * whole.shape[1] > 4 * enough
    reduced = images.decode(data, "a.jpg", enough)
    height, width = whole.shape[:2]
    assert reduced.size_wh == (width, height)
    assert reduced.image.shape[:2] == ((height + 1) // 2, (width + 1) // 2)
    assert images.decode(data, "a.jpg").image.shape == whole.shape
    again = labeller.enlarged(model(reduced.image, max_faces=4), reduced.scale_xy)
    full = model(whole, max_faces=4)
    assert len(again) == len(full) == 4
    size = (full.boxes[:, 2] - full.boxes[:, 0]).min()
    assert np.abs(again.keypoints - full.keypoints).mean() < 0.005 * size


def test_reduced_and_turned(tmp_path: Path) -> None:
    """Sizes are those of the upright picture."""
    stream = io.BytesIO()
    picture = images.Image.new("RGB", (640, 320))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(stream, "JPEG", exif=exif)
    reduced = images.decode(stream.getvalue(), "a.jpg", 640 * 320 // 16)
    assert reduced.size_wh == (320, 640) and reduced.image.shape == (160, 80, 3)
    assert reduced.scale_xy == (4, 4)


def test_worker_with_other_weights(tmp_path: Path) -> None:
    settings = label.Settings().resolved()
    labeller.Labeller(settings, tmp_path)
    with pytest.raises(hub.WeightsError, match="other weights"):
        labeller.Labeller(label.Settings(weights="0" * 16), tmp_path)


@pytest.mark.slow
def test_memory_stays(tmp_path: Path) -> None:
    """A shard's pictures are not held together: five times as many need no more."""
    code = """
import resource, sys
from pathlib import Path
from fkp.label import labeller, sources
settings = labeller.Settings(options={"passes": 1}).resolved()
done = labeller.Labeller(settings, Path(sys.argv[2]))(next(sources.shards(sys.argv[1])[0]))
print(done.counts.pictures, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""
    peaks = []
    picture = cv2.imencode(".jpg", np.full((640, 640, 3), 90, np.uint8))[1].tobytes()
    for count in (20, 100):
        shard = {f"{copy}.jpg": picture for copy in range(count)}
        tar = material.tar(tmp_path / f"{count}.tar", shard)
        command = [sys.executable, "-c", code, str(tar), str(tmp_path / "out")]
        pictures, peak = map(int, subprocess.check_output(command, cwd=ROOT, text=True).split())
        assert pictures == count
        peaks.append(peak)
    assert peaks[1] < 1.05 * peaks[0]


def test_sources_of_every_kind_give_the_same(tmp_path: Path) -> None:
    operator = labeller.Labeller(label.Settings(options={"passes": 1}).resolved(), tmp_path / "out")
    material.folder(tmp_path / "pictures")
    tar, parquet = material.tar(tmp_path / "tar.tar"), material.parquet(tmp_path / "parquet.parquet")
    for source in (tmp_path / "pictures", tar, parquet):
        (shard,) = sources.shards(str(source))[0]
        done = operator(shard)
        assert done == labeller.Done(shard.name, table.Counts(5, 6, 1))
        rows = {(Path(row[0]).name, row[1]) for row in found(tmp_path / "out" / f"{shard.name}.parquet")}
        assert rows == {row[:2] for row in expected("")}
