"""Outputs: what is written is read again, whole or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from fkp import Faces
from fkp.label import table
from tests import synthetic
from tests.full_disk import full_disk


def faces(n: int, seed: int = 0) -> Faces:
    draw = np.random.default_rng(seed)
    keypoints = np.stack([synthetic.face(100, tuple(draw.uniform(60, 400, 2))) for _ in range(n)])
    boxes = np.concatenate([keypoints.min(1), keypoints.max(1)], axis=1)
    scores, points = draw.random(n), draw.random((n, 68))
    return Faces(boxes, scores, keypoints, points, 5 * points, 1 - points)


ROUNDED_TO = {"boxes": 64, "keypoints": 64, "sigmas": 64, "scores": 4096, "keypoint_scores": 4096,
              "visibility": 4096}  # fmt: skip


def same(a: Faces, b: Faces) -> None:
    for name, parts in ROUNDED_TO.items():
        # Half of the fraction that numbers are rounded to, and a little for float32.
        np.testing.assert_allclose(getattr(a, name), getattr(b, name), atol=0.505 / parts, rtol=0)


def test_written_is_read(tmp_path: Path) -> None:
    found = [faces(2), Faces.none(), faces(3, seed=1)]
    with table.Writer(tmp_path / "in" / "a.parquet", {"weights": "x"}) as writer:
        writer.add(0, "a.jpg", (640, 480), found[0])
        writer.add(1, "b.jpg", (640, 480), found[1])
        writer.add_unreadable(2, "c\udce4.jpg", "is empty")
        writer.add(3, "d.jpg", (320, 240), found[2])
    first, last = table.read(tmp_path)
    assert (first.key, first.size_wh, last.key, last.size_wh) == ("a.jpg", (640, 480), "d.jpg", (320, 240))
    same(first.faces, found[0])
    same(last.faces, found[2])
    rows = pq.read_table(tmp_path / "in" / "a.parquet")
    assert rows.schema == table.SCHEMA
    assert rows["face"].to_pylist() == [0, 1, None, 0, 1, 2]
    assert all(abs(angle) < 30 for angle in rows["pose"][0].as_py().values())  # a face from the front
    assert rows["error"].to_pylist() == [None, None, "is empty", None, None, None]
    assert rows["picture"][2].as_py() == "c\N{REPLACEMENT CHARACTER}.jpg"
    told = table.about(tmp_path / "in" / "a.parquet")
    assert told == {"weights": "x", "version": 1, "pictures": 4, "faces": 5, "unreadable": 1}


def test_unknown_values_are_null(tmp_path: Path) -> None:
    known = faces(2)
    unknown = Faces(known.boxes, known.scores, known.keypoints, known.keypoint_scores)
    with table.Writer(tmp_path / "a.parquet", {}) as writer:
        writer.add(0, "a.jpg", (640, 480), unknown)
    rows = pq.read_table(tmp_path / "a.parquet")
    assert rows["sigmas"].null_count == rows["visibility"].null_count == 2
    assert np.isnan(next(table.read(tmp_path)).faces.sigmas).all()


def test_row_groups_keep_a_picture_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "ROWS", 4)
    with table.Writer(tmp_path / "a.parquet", {}) as writer:
        for number in range(7):
            writer.add(number, f"{number}.jpg", (640, 480), faces(3, seed=number))
    assert pq.ParquetFile(tmp_path / "a.parquet").num_row_groups == 4
    read = list(table.read(tmp_path / "a.parquet" for _ in range(1)))
    assert [picture.key for picture in read] == [f"{number}.jpg" for number in range(7)]
    for number, picture in enumerate(read):
        same(picture.faces, faces(3, seed=number))


def test_output_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    left = tmp_path / ".a.parquet.elsewhere-12.part"
    left.write_bytes(b"of a run that was killed")
    with pytest.raises(KeyError), table.Writer(tmp_path / "a.parquet", {}) as writer:
        writer.add(0, "a.jpg", (640, 480), faces(1))
        raise KeyError
    assert list(tmp_path.iterdir()) == [left]
    with table.Writer(tmp_path / "a.parquet", {}) as writer:
        writer.add(0, "a.jpg", (640, 480), faces(1))
        assert not (tmp_path / "a.parquet").exists()
    assert list(tmp_path.iterdir()) == [tmp_path / "a.parquet"]


def test_two_runs_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither takes what the other is writing for left by a killed one."""
    path = tmp_path / "a.parquet"
    runs = []
    for process in (1, 2):
        monkeypatch.setattr("os.getpid", lambda process=process: process)
        runs.append(table.Writer(path, {}))
    with runs[0] as first:
        with runs[1] as second:
            second.add(0, "a.jpg", (640, 480), faces(2))
        assert len(list(tmp_path.iterdir())) == 2
        first.add(0, "a.jpg", (640, 480), faces(2))
    assert list(tmp_path.iterdir()) == [path] and len(next(table.read(path)).faces) == 2


def test_part_that_another_run_removed(tmp_path: Path) -> None:
    """As on a disk without locks: it is done, if the other has done it."""
    path = tmp_path / "a.parquet"
    with pytest.raises(FileNotFoundError) as caught, table.Writer(path, {}) as writer:
        writer._part.unlink()
    assert caught.value.filename == str(path)
    with table.Writer(path, {"by": "another"}):
        pass
    with table.Writer(path, {}) as writer:
        writer._part.unlink()
    assert (table.about(path) or {})["by"] == "another" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("rows", [4, 4096])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int) -> None:
    """While it is labelled, or at the end: nothing is left, and the file is named."""
    monkeypatch.setattr(table, "ROWS", rows)
    path = tmp_path / "a.parquet"
    with pytest.raises(OSError, match=r"a\.parquet'$") as caught, full_disk(2000):
        with table.Writer(path, {}) as writer:
            for number in range(9):
                writer.add(number, f"{number}.jpg", (640, 480), faces(3, seed=number))
    assert caught.value.filename == str(path) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("content", [b"", b"text", b"PAR1 and no end"])
def test_files_that_are_not_ours(tmp_path: Path, content: bytes) -> None:
    assert table.about(tmp_path / "a.parquet") is None
    (tmp_path / "a.parquet").write_bytes(content)
    assert table.about(tmp_path / "a.parquet") is None
