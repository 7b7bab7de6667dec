"""The filters, against numbers that can be worked out by hand."""

import math

import numpy as np
import pytest

from fkp import geometry
from fkp.smoothing import OneEuro, Smoother
from tests import synthetic

RATE = 30.0


def one_euro_of_the_paper(
    values: list[float], times: list[float], least_cutoff: float, gain: float, speed_cutoff: float
) -> list[float]:
    """Algorithm 1 of Casiez, Roussel and Vogel (CHI 2012) for one number, line by line."""

    def alpha(rate: float, cutoff: float) -> float:
        tau = 1 / (2 * math.pi * cutoff)
        return 1 / (1 + tau * rate)

    filtered, speed = [values[0]], 0.0
    for i in range(1, len(values)):
        rate = 1 / (times[i] - times[i - 1])
        dx = (values[i] - filtered[-1]) * rate
        a = alpha(rate, speed_cutoff)
        speed = a * dx + (1 - a) * speed
        a = alpha(rate, least_cutoff + gain * abs(speed))
        filtered.append(a * values[i] + (1 - a) * filtered[-1])
    return filtered


def test_one_euro_filter_keeps_what_it_was_given() -> None:
    """Whatever is done later to the array that was given, or to the one that came back."""
    one_euro, points = OneEuro(1.0, 1.0), np.zeros((3, 2))
    one_euro(points, 0.0)[:] = 50
    points += 100
    assert (one_euro(np.zeros((3, 2)), 0.1) == 0).all()


def test_one_euro_filter_of_no_points() -> None:
    one_euro = OneEuro(1.0, 1.0)
    assert one_euro(np.empty((0, 2)), 0.0).shape == one_euro(np.empty((0, 2)), 1.0).shape == (0, 2)


def test_one_euro_filter_starts_where_the_points_are_and_stays_with_them() -> None:
    one_euro = OneEuro(1.0, 1.0)
    points = np.array([[1.0, 2.0], [3.0, 4.0]])
    for frame in range(3):
        assert one_euro(points, frame / RATE).tolist() == points.tolist()


def test_one_euro_filter_by_hand() -> None:
    """A step of 1 in a second at a cut-off of 1/(2π) Hz lets a half of it through: 1 / (1 + 1)."""
    one_euro = OneEuro(1 / (2 * math.pi), 0.0)
    one_euro(np.array([[0.0]]), 0.0)
    assert one_euro(np.array([[1.0]]), 1.0).item() == pytest.approx(0.5)
    # After two seconds at the same cut-off two thirds of what is left: 0.5 + 0.5 × 2/3.
    assert one_euro(np.array([[1.0]]), 3.0).item() == pytest.approx(0.5 + 0.5 * 2 / 3)


def test_one_euro_filter_is_that_of_the_paper_at_any_frame_rate() -> None:
    rng = np.random.default_rng(0)
    times = np.cumsum(rng.uniform(0.01, 0.1, 50))
    values = np.cumsum(rng.normal(0, 1, (50, 3, 1)), axis=0)
    one_euro = OneEuro(0.8, 0.3, speed_cutoff=1.5)
    found = np.stack([one_euro(v, t) for v, t in zip(values, times, strict=True)])
    for i in range(3):
        expected = one_euro_of_the_paper(values[:, i, 0].tolist(), times.tolist(), 0.8, 0.3, 1.5)
        np.testing.assert_allclose(found[:, i, 0], expected, rtol=1e-12)


def test_speed_is_that_of_a_point_and_not_of_a_coordinate() -> None:
    """Turned by 45°, the same motion is filtered alike."""
    turn = np.array([[1, 1], [-1, 1]]) / math.sqrt(2)
    straight, slanted = OneEuro(0.5, 2.0), OneEuro(0.5, 2.0)
    for frame in range(5):
        point = np.array([[3.0 * frame, 0.0]])
        moved = straight(point, frame / RATE)
        np.testing.assert_allclose(slanted(point @ turn, frame / RATE), moved @ turn, atol=1e-12)


def test_unit_of_length_scales_the_speed() -> None:
    near, far = OneEuro(0.5, 2.0), OneEuro(0.5, 2.0)
    for frame in range(5):
        point = np.array([[1.0 * frame**2, 1.0]])
        np.testing.assert_allclose(near(10 * point, frame / RATE, 10.0), 10 * far(point, frame / RATE))


@pytest.mark.parametrize("time", (1.0, 0.5, math.nan))
def test_time_has_to_go_on(time: float) -> None:
    one_euro, smoother = OneEuro(1.0, 1.0), Smoother()
    one_euro(np.zeros((1, 2)), 1.0)
    smoother(synthetic.face(), 1.0)
    with pytest.raises(ValueError, match="come after those at 1.0 s"):
        one_euro(np.zeros((1, 2)), time)
    with pytest.raises(ValueError, match="come after those at 1.0 s"):
        smoother(synthetic.face(), time)


def test_a_smoother_gives_a_still_face_back() -> None:
    smoother = Smoother()
    face = synthetic.face().astype(np.float32)
    for frame in range(3):
        calm = smoother(face, frame / RATE)
        assert calm.dtype == np.float32
        np.testing.assert_allclose(calm, face, atol=1e-4)


@pytest.mark.parametrize("points", (np.zeros((68, 2)), np.full((68, 2), 7.0)))
def test_points_that_are_no_face_are_not_in_its_way(points: np.ndarray) -> None:
    smoother = Smoother()
    smoother(points, 0.0)
    np.testing.assert_allclose(smoother(points, 1.0), points)
    smoother = Smoother()
    smoother(synthetic.face(), 0.0)
    assert np.isfinite(smoother(points, 1.0)).all()


def moved(face: np.ndarray, frame: int, motion: str) -> np.ndarray:
    """A face after so many frames: two faces a second to the right, or turning, or growing."""
    middle, seconds = face.mean(axis=0), frame / RATE
    angle = seconds * (1.0 if motion == "turn" else 0.0)
    cos, sin = math.cos(angle), math.sin(angle)
    size = math.exp(seconds * (0.5 if motion == "grow" else 0.0))
    shift = np.array([200.0, 0.0]) * seconds * (motion == "shift")
    return (face - middle) @ (size * np.array([[cos, sin], [-sin, cos]])) + middle + shift


@pytest.mark.parametrize("motion", ("shift", "turn", "grow"))
def test_a_moving_face_leaves_no_trail(motion: str) -> None:
    """At two face widths a second, or a radian, or half its size, within 0.6 % of the eyes' distance."""
    face, smoother = synthetic.face(), Smoother()
    for frame in range(45):
        truth = moved(face, frame, motion)
        calm = smoother(truth, frame / RATE)
    lag = np.linalg.norm(calm - truth, axis=1).mean()
    assert 0 < 100 * lag / geometry.inter_ocular(truth) < 0.6


def test_an_opening_mouth_is_followed() -> None:
    """The lower lip goes down by a tenth of the face in 0.2 s; it may be 2 % of the face behind."""
    face, smoother = synthetic.face(), Smoother()
    lip = [55, 56, 57, 58, 59, 65, 66, 67]
    for frame in range(30):
        truth = face.copy()
        truth[lip, 1] += 10 * np.clip((frame - 10) / 6, 0, 1)
        calm = smoother(truth, frame / RATE)
        assert np.abs(calm - truth)[lip].max() < 2.0
        assert np.delete(np.abs(calm - truth), lip, axis=0).max() < 0.8
    assert np.abs(calm - truth).max() < 0.5


def test_smoothing_reduces_jitter() -> None:
    """Each point trembles by 0.3 % of the face: a fifth of it at most is left, and no bias."""
    rng = np.random.default_rng(0)
    face, smoother = synthetic.face(), Smoother()
    raw = np.stack([face + rng.normal(0, 0.3, face.shape) for _ in range(60)])
    calm = np.stack([smoother(points, frame / RATE) for frame, points in enumerate(raw)])
    motion = [np.linalg.norm(np.diff(points[10:], axis=0), axis=-1).mean() for points in (raw, calm)]
    assert motion[1] < motion[0] / 5
    assert np.abs(calm[30:].mean(axis=0) - face).max() < 0.3
