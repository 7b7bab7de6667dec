"""The figures of benchmarks/jitter.py, on motions that can be worked out by hand."""

import re

import numpy as np
import pytest

from benchmarks import jitter
from fkp import FaceKeypoints, geometry
from fkp.demo import clip_jobs
from fkp.demo.settings import Settings
from tests import synthetic
from tests.filmed import film

FACE = synthetic.face()
EYES = float(geometry.inter_ocular(FACE))
TIMES = np.arange(40) / 20


def moving(pixels_a_second: float) -> np.ndarray:
    """Keypoints (40,68,2) of a face that goes to the right."""
    return FACE + TIMES[:, None, None] * np.array([pixels_a_second, 0.0])


def test_figures_of_a_still_face() -> None:
    still = moving(0)
    row = jitter.figures(TIMES, still, still, still, 5.0)
    assert row == jitter.Row(0, 0, 0, 0, 0, 500)
    # A pixel to the right in every other frame: it moves by one each frame, and is off by half of one.
    trembling = still + (np.arange(40) % 2)[:, None, None] * np.array([1.0, 0.0])
    row = jitter.figures(TIMES, trembling, still, still, 0.1)
    assert row.jitter_raw == pytest.approx(100 / EYES)
    assert row.error_raw == pytest.approx(50 / EYES)
    assert row[1::2] == (0, 0, 10)


def test_figures_of_one_that_is_followed_late() -> None:
    """A tenth of a second behind, at 30 pixels a second, is 3 pixels; a steady lag is no jitter."""
    truth = moving(30)
    row = jitter.figures(TIMES, truth, truth - np.array([3.0, 0.0]), truth, 0.1)
    assert row.lag_ms == pytest.approx(100)
    assert row.error == pytest.approx(300 / EYES)
    assert row.jitter == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("name", jitter.MOTIONS)
def test_motions_move_points_as_they_move_pixels(name: str) -> None:
    """A painted face: where its keypoints are said to be, there its pixels are."""
    image = np.zeros((480, 640, 3), np.uint8)
    centre = FACE.mean(axis=0).round().astype(int)
    keypoints = FACE + (np.array([320, 240]) - centre)
    image[238:243, 318:323] = 255
    face = jitter.Portrait(image, keypoints, EYES)
    frames = list(jitter.clip(face, jitter.MOTIONS[name], 8, 4.0, 0.0))
    assert [seconds for seconds, _, _ in frames] == [i / 4 for i in range(8)]
    for _, picture, truth in frames:
        bright = np.argwhere(picture[..., 0] > 100)[:, ::-1].mean(axis=0)
        centroid = truth.mean(axis=0) - (keypoints.mean(axis=0) - [320, 240])
        assert np.abs(bright - centroid).max() < 1.0


def test_the_table_and_a_real_clip() -> None:
    """A few frames of one portrait; smoothed points tremble less."""
    model = FaceKeypoints.from_pretrained()
    face = jitter.portrait(model, "eileen_collins")
    row = jitter.measure(model, face, jitter.MOTIONS["still"], 10, 10.0, 4.0)
    assert 0 < row.jitter < row.jitter_raw < 1
    assert row.detector == 10
    lines = jitter.table({"still": row, "other": row}).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert f"| {row.jitter:.2f} % |" in lines[2] and "ms" not in lines[2] and " ms |" in lines[3]


def test_the_page_has_the_table(tmp_path) -> None:
    """Every motion is in it, and writing it again changes the table only."""
    text = (jitter.DOCS / "video.md").read_text()
    assert all(f"\n| {name} | " in text for name in jitter.MOTIONS)
    (tmp_path / "video.md").write_text(text)
    rows = {name: jitter.Row(*range(6)) for name in jitter.MOTIONS}
    again = jitter.section(tmp_path / "video.md", rows)
    assert jitter.table(rows) in again
    outside = [re.sub("<!-- jitter.*?end of jitter -->", "", page, flags=re.DOTALL) for page in (text, again)]
    assert outside[0] == outside[1]


def test_only_the_default_is_published(monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["jitter.py", "--write", "--frames", "3"])
    with pytest.raises(SystemExit):
        jitter.main()
    assert "what is published is the default" in capsys.readouterr().err


def test_the_page_that_tells_of_clips_is_right(root, tmp_path, monkeypatch) -> None:
    """Its Python runs, and its limits are those of the settings."""
    text = (root / "docs" / "video.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert "examples/two_portraits.mp4" in block
    film(tmp_path / "short.mp4", 2)
    monkeypatch.chdir(tmp_path)
    exec(block.replace("examples/two_portraits.mp4", "short.mp4"), {})
    assert (tmp_path / "out.mp4").is_file() and (tmp_path / "out.csv").is_file()
    limits = Settings()
    assert (limits.max_clip_seconds, limits.max_clip_size, limits.clips_at_once) == (60, 100_000_000, 1)
    assert clip_jobs.LINE == 8 and all(
        f"FKP_{name}" in text for name in ("MAX_CLIP_SECONDS", "MAX_CLIP_SIZE")
    )
