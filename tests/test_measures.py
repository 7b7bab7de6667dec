"""Head pose, openness and alignment, by geometry that is known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from fkp import Faces, measures, scheme


def turn(axis: str, degrees: float) -> np.ndarray:
    return cv2.Rodrigues(np.eye(3)["xyz".index(axis)] * np.radians(degrees))[0]


def head_at(yaw: float = 0, pitch: float = 0, roll: float = 0, far: float = np.inf) -> np.ndarray:
    """Keypoints (1,68,2) of the mean head, tilted, then raised, then turned; `far` in mm, for a perspective.

    To the head's left is to the right of the picture: the nose, at −z, goes there by a turn of −y.
    """
    rotation = turn("y", -yaw) @ turn("x", -pitch) @ turn("z", roll)
    turned = measures.HEAD @ rotation.T
    depth = 1 + turned[:, 2:] / far
    keypoints = np.zeros((1, 68, 2))
    keypoints[0, list(scheme.INNER)] = 1.7 * turned[:, :2] / depth + (320, 240)
    return keypoints


def angles(pose: measures.Pose) -> list[float]:
    return [float(each[0]) for each in (pose.yaw, pose.pitch, pose.roll)]


@pytest.mark.parametrize(
    "expected",
    [(0, 0, 0), (30, 0, 0), (0, 20, 0), (0, 0, 15), (-25, -10, -12), (75, 0, 0), (-85, 15, 5), (10, 5, 170)],
)
def test_known_angles_are_found_again(expected: tuple[float, float, float]) -> None:
    assert angles(measures.pose(head_at(*expected))) == pytest.approx(expected, abs=0.01)


def test_signs_are_what_a_viewer_sees() -> None:
    straight = head_at()[0, 30]
    assert head_at(yaw=30)[0, 30][0] > straight[0] + 10, "to its own left, the picture's right"
    assert head_at(pitch=20)[0, 30][1] < straight[1] - 5, "up"


def test_perspective_at_arms_length_costs_few_degrees() -> None:
    for yaw in (0, 20, 40):
        assert angles(measures.pose(head_at(yaw, far=600))) == pytest.approx((yaw, 0, 0), abs=4)


def test_points_with_a_large_expected_error_count_less() -> None:
    keypoints, sigmas = head_at(20, 5, -3), np.full((1, 68), 1.0)
    keypoints[0, 48:] += (25, -40)
    off = measures.pose(keypoints, sigmas)
    sigmas[0, 48:] = 200
    weighted = measures.pose(keypoints, sigmas)
    assert angles(weighted) == pytest.approx((20, 5, -3), abs=1)
    assert abs(off.pitch[0] - 5) > 5
    assert (weighted.sigmas > measures.pose(head_at(20, 5, -3)).sigmas).all(), "fewer points, less certain"


def test_uncertainty_is_how_far_noisy_points_scatter() -> None:
    rng, n = np.random.default_rng(0), 400
    sigmas = np.tile(rng.uniform(3, 12, 68), (n, 1))
    keypoints = head_at(25, -8, 10) + rng.normal(size=(n, 68, 2)) * sigmas[..., None]
    pose = measures.pose(keypoints, sigmas)
    found = np.stack([pose.yaw, pose.pitch, pose.roll], axis=1)
    # The spread between people, which is in it as well, is not in these heads.
    assert (found.std(axis=0) < 1.1 * pose.sigmas.mean(axis=0)).all()
    assert (found.std(axis=0) > 0.6 * pose.sigmas.mean(axis=0)).all()
    assert found.mean(axis=0) == pytest.approx((25, -8, 10), abs=1)


def test_the_answer_depends_neither_on_the_place_nor_on_the_size_of_a_face() -> None:
    sigmas = np.full((1, 68), 2.0)
    here = measures.pose(head_at(20), sigmas)
    there = measures.pose(5 * head_at(20) + (1000, -300), 5 * sigmas)
    assert angles(there) == pytest.approx(angles(here), abs=0.01)
    assert there.sigmas == pytest.approx(here.sigmas, rel=1e-3)


def test_measures_of_no_face_and_of_what_is_none() -> None:
    none = measures.pose(np.empty((0, 68, 2)), np.empty((0, 68)))
    assert none.yaw.shape == (0,) and none.sigmas.shape == (0, 3)
    line = np.repeat(np.arange(68.0)[:, None], 2, axis=1)
    pose = measures.pose(np.stack([line, np.zeros((68, 2)), head_at(10)[0]]))
    assert np.isnan(pose.yaw[:2]).all() and pose.yaw[2] == pytest.approx(10, abs=0.01)


def test_points_without_a_label_do_not_count() -> None:
    """As half of those of a profile in some data sets."""
    whole, half, few = (head_at(25, 8, -5) for _ in range(3))
    half[0, [*range(22, 27), *range(42, 48)]], few[0, 20:] = np.nan, np.nan
    pose = measures.pose(np.concatenate([whole, half, few]))
    for angle, expected in ((pose.yaw, 25), (pose.pitch, 8), (pose.roll, -5)):
        assert angle[:2] == pytest.approx([expected, expected], abs=0.01) and np.isnan(angle[2])
    assert (pose.sigmas[1] > pose.sigmas[0]).all()


def test_openness_is_height_by_width() -> None:
    keypoints = np.zeros((1, 68, 2))
    keypoints[0, [36, 39]] = (0, 0), (30, 0)
    keypoints[0, [37, 41, 38, 40]] = (10, -5), (10, 5), (20, -4), (20, 4)  # 10 and 8 high
    keypoints[0, [60, 64]] = (0, 0), (40, 0)
    keypoints[0, [61, 67, 62, 66, 63, 65]] = (10, -3), (10, 3), (20, -6), (20, 6), (30, -3), (30, 3)
    assert measures.eye_openness(keypoints)[0] == pytest.approx((0.3, 0))
    assert measures.mouth_openness(keypoints)[0] == pytest.approx(0.2)


def test_aligned_faces_have_their_places_where_they_are_wanted() -> None:
    """A dot on every place of a tilted face: in the aligned picture it is where `ALIGNED` has it."""
    image = np.zeros((480, 640, 3), np.uint8)
    template = head_at()[0]
    a = np.array([[0.8, -0.6], [0.6, 0.8]]) * 1.3
    keypoints = ((template - (320, 240)) @ a.T + (320, 200))[None]
    for points in measures.PLACES:
        x, y = keypoints[0, list(points)].mean(axis=0).round().astype(int)
        cv2.circle(image, (int(x), int(y)), 6, (255, 255, 255), -1)
    (crop,) = measures.aligned(image, keypoints, 160)
    assert crop.shape == (160, 160, 3)
    with pytest.raises(ValueError, match="size is 112.5, where"):
        measures.aligned(image, keypoints, 112.5)  # type: ignore[arg-type]
    count, _, _, centres = cv2.connectedComponentsWithStats((crop[..., 0] > 127).astype(np.uint8))
    assert count == 6
    wanted = sorted((measures.ALIGNED * 160 - 0.5).tolist())
    assert np.array(sorted(centres[1:].tolist())) == pytest.approx(np.array(wanted), abs=8)
    assert measures.aligned(image, keypoints[:0], 64).shape == (0, 64, 64, 3)
    with pytest.raises(ValueError, match="size is 0"):
        measures.aligned(image, keypoints, 0)
    for value in (np.nan, 7):
        with pytest.raises(ValueError, match="cannot be aligned"):
            measures.aligned(image, np.full((1, 68, 2), value), 64)


def test_faces_have_the_measures() -> None:
    faces = Faces(np.array([[0, 0, 9, 9]]), np.ones(1), head_at(12), np.ones((1, 68)))
    assert faces.pose.yaw[0] == pytest.approx(12, abs=0.01) and faces.eye_openness.shape == (1, 2)
    assert faces.mouth_openness.shape == (1,) and np.isnan(faces.visibility).all()
    assert faces.aligned(np.zeros((50, 50, 3), np.uint8), 32).shape == (1, 32, 32, 3)
