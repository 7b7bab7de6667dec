"""The figures of benchmarks/jitter.py, on motions that can be worked out by hand."""

import numpy as np
import pytest

from benchmarks import jitter
from fkp import FaceKeypoints, geometry
from tests import synthetic

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
    keypoints = FACE + (np.array([320, 240]) - FACE.mean(axis=0).round().astype(int))
    image[238:243, 318:323] = 255
    for _, picture, truth in jitter.clip(
        jitter.Portrait(image, keypoints, EYES), jitter.MOTIONS[name], 8, 4.0, 0.0
    ):
        bright = np.argwhere(picture[..., 0] > 100)[:, ::-1].mean(axis=0)
        assert np.abs(bright - truth.mean(axis=0) + keypoints.mean(axis=0) - [320, 240]).max() < 1.0


def test_smoothing_reduces_jitter_in_a_real_clip() -> None:
    model = FaceKeypoints.from_pretrained()
    row = jitter.measure(model, jitter.portrait(model, "eileen_collins"), jitter.MOTIONS["still"], 25)
    assert 0 < row.jitter < row.jitter_raw < 1 and row.detector <= 12
