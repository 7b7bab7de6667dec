"""The accuracy benchmark: conditions move picture and labels alike, and figures are what they are called."""

import numpy as np
import pytest

from benchmarks import accuracy, faces, robustness
from benchmarks.faces import Labelled, Placed, row
from benchmarks.robustness import CONDITIONS, changed, directions
from fkp import geometry
from tests import synthetic
from tests.test_evaluation import Known, faces_at

RNG = np.random.default_rng(0)
BY_NAME = {condition.name: condition for condition in CONDITIONS}


def spot(size_wh: tuple[int, int], xy: tuple[float, float], sigma: float = 3.0) -> np.ndarray:
    """A black picture with one soft white spot around a point, which may lie between pixels."""
    x, y = np.arange(size_wh[0]), np.arange(size_wh[1])[:, None]
    light = np.exp(-0.5 * ((x - xy[0]) ** 2 + (y - xy[1]) ** 2) / sigma**2)
    return np.repeat((255 * light).round().astype(np.uint8)[..., None], 3, axis=2)


def middle(picture: np.ndarray) -> np.ndarray:
    """Where the light of a picture is on average, xy."""
    light = picture[..., 0].astype(np.float64)
    x, y = np.arange(light.shape[1]), np.arange(light.shape[0])
    return np.array([(light.sum(0) * x).sum(), (light.sum(1) * y).sum()]) / light.sum()


def one_face(n: int = 1, width: float = 100.0) -> Labelled:
    keypoints = np.repeat(synthetic.face(width, (90, 80))[None], n, axis=0)
    pictures = [synthetic.picture(keypoints[0], (180, 170))] * n
    return Labelled([f"{i}.png" for i in range(n)], pictures, keypoints)


def at(keypoints: np.ndarray, score: float = 1.0, sigma: float = 2.0) -> Placed:
    """Keypoints (n,68,2) with one score and one expected error for all of them."""
    return Placed(keypoints, *(np.full(keypoints.shape[:2], value) for value in (score, sigma, 1.0)))


@pytest.mark.parametrize("point", [0, 45])
def test_shrinking_keeps_a_label_on_its_content(point):
    keypoints = synthetic.face(100, (120, 100))
    picture, moved, box = robustness.shrunk(spot((241, 203), tuple(keypoints[point])), keypoints, 40, RNG)
    # 40 of the face's 100 px, so 241 × 203 px become 96 × 81: pixel x goes to (x + ½) · 96/241 − ½.
    assert picture.shape == (81, 96, 3)
    np.testing.assert_allclose(moved, (keypoints + 0.5) * [96 / 241, 81 / 203] - 0.5)
    np.testing.assert_allclose(middle(picture), moved[point], atol=0.05)
    np.testing.assert_allclose(box, geometry.tight_boxes(moved))


def test_a_quarter_turn_is_numpys():
    face = one_face()
    picture, keypoints, box = robustness.turned(face.pictures[0], face.keypoints[0], 90, RNG)
    np.testing.assert_array_equal(picture, np.rot90(face.pictures[0]))
    # Counter-clockwise: (x, y) of 180 pixels' width goes to (y, 179 − x).
    expected = np.stack([face.keypoints[0][:, 1], 179 - face.keypoints[0][:, 0]], axis=1)
    np.testing.assert_allclose(keypoints, expected, atol=1e-9)
    np.testing.assert_allclose(box, geometry.tight_boxes(expected), atol=1e-9)


def test_turned_faces_come_in_both_directions_with_labels_on_their_content():
    keypoints = synthetic.face(100, (120, 100))
    picture, turned, _ = robustness.turned(spot((240, 200), tuple(keypoints[8])), keypoints, -150, RNG)
    np.testing.assert_allclose(middle(picture), turned[8], atol=0.05)
    assert directions(BY_NAME["turn"], 180) == (180,) and directions(BY_NAME["blur"], 4) == (4,)
    both, _ = changed(one_face(2), BY_NAME["turn"], 30)
    eyes = both.keypoints[:, 45] - both.keypoints[:, 36]
    np.testing.assert_allclose(np.degrees(np.arctan2(eyes[:, 1], eyes[:, 0])), [-30, -30, 30, 30], atol=1e-6)


def test_box_noise_is_seeded_and_as_large_as_stated():
    labelled = one_face(400)
    true, side = labelled.boxes, (labelled.boxes[0, 2:] - labelled.boxes[0, :2]).max()
    _, boxes = changed(labelled, BY_NAME["shift"], 5)
    moved = (boxes - true) / side
    np.testing.assert_allclose(moved[:, :2], moved[:, 2:])  # its size stays
    assert moved[:, :2].std() == pytest.approx(0.05, rel=0.1) and abs(moved.mean()) < 0.01
    # The same draws at every level: twice the level is twice the way.
    np.testing.assert_allclose(changed(labelled, BY_NAME["shift"], 10)[1] - true, 2 * (boxes - true))

    _, boxes = changed(labelled, BY_NAME["scale"], 10)
    np.testing.assert_allclose(boxes[:, :2] + boxes[:, 2:], true[:, :2] + true[:, 2:])  # its middle stays
    grown = np.log((boxes[:, 2:] - boxes[:, :2]) / (true[:, 2:] - true[:, :2]))
    assert grown.std() == pytest.approx(0.1, rel=0.1) and abs(grown.mean()) < 0.02


def test_a_dark_picture_has_a_tenth_of_the_light_and_noise():
    picture = np.full((100, 100, 3), 200, np.uint8)
    dark, _, _ = robustness.darkened(picture, synthetic.face(), 10, np.random.default_rng(0))
    assert dark.mean() == pytest.approx(20, abs=0.1) and dark.std() == pytest.approx(4, rel=0.03)


def test_errors_of_boxes():
    truth = np.array([[0, 0, 100, 50], [0, 0, 100, 50], [0, 0, 10, 10]], np.float32)
    found = np.array([[10, 0, 120, 50], [0, 0, 100, 60], [np.nan] * 4], np.float32)
    errors = robustness.box_errors(found, truth)
    assert errors["n"] == 3 and errors["missed"] == 1
    assert errors["dx"] == [7.5, 7.5]  # the middle of the first is 15 px to the right of 100
    assert errors["dy"] == [2.5, 2.5] and errors["dw"] == [5, 5] and errors["dh"] == [10, 10]
    assert errors["side"] == [5, 5] and robustness.box_errors(found[2:], truth[2:])["dx"] is None


def test_boxes_of_the_detector_in_the_order_of_the_labels():
    right, left = synthetic.face(60, (201, 60)), synthetic.face(60, (60, 60))
    truth = np.stack([synthetic.face(60, at) for at in ((60, 60), (200, 160), (200, 60))])
    labelled = Labelled(["a.jpg"] * 3, [np.zeros((240, 300, 3), np.uint8)] * 3, truth)
    model = Known({300: faces_at(right, left)})
    boxes = faces.detect(model, labelled)
    expected = [labelled.boxes[0], [np.nan] * 4, labelled.boxes[2] + [1, 0, 1, 0]]
    np.testing.assert_allclose(boxes, expected, atol=1e-4)
    placed = faces.place(model, labelled, boxes)
    assert np.isnan(placed.keypoints[1]).all() and np.isnan(placed.scores[1]).all()
    assert (placed.scores[0] == 0.5).all() and (placed.sigmas[2] == 3).all()
    np.testing.assert_allclose(placed.keypoints[2, 0], (boxes[2, :2] + boxes[2, 2:]) / 2)


def test_a_row_of_figures():
    truth = one_face(2).keypoints
    nothing = row(at(np.empty((0, 68, 2))), np.empty((0, 68, 2)))
    assert nothing["n"] == 0 and nothing["nme"] is None and nothing["within"] is None
    off = truth.copy()
    off[:, :34, 0] += 0.1 * geometry.inter_ocular(truth[0])  # half of the points off by 10 %
    figures = row(at(off, 0.75), truth)
    assert figures["nme"] == pytest.approx(5) and figures["score"] == 0.75 and figures["within"] == 0.5


def test_figures_of_confidence():
    """Half of the points are off by 10 % and half exact; the scores know it for all but one of each."""
    truth = one_face(1).keypoints
    eyes = geometry.inter_ocular(truth[0])
    off, placed = truth.copy(), at(truth, sigma=0.05 * eyes)
    off[:, :34, 0] += 0.1 * eyes
    placed.scores[:, :34] = 0.2
    placed.scores[:, 33:35] = placed.scores[:, [34, 33]]
    figures = accuracy.confidence(placed._replace(keypoints=off), truth)
    assert figures["error"] == pytest.approx(5) and figures["sigma"] == pytest.approx(5)
    assert figures["bins"][2] == [0.2, round(1 / 34, 4), 34] and figures["bins"][5] == [None, None, 0]
    assert figures["bins"][9] == [1.0, round(33 / 34, 4), 34]
    assert figures["reliability_error"] == pytest.approx((0.2 - 1 / 34 + 1 / 34) / 2, abs=1e-4)
    # Of 68 points, 14 go, all off: 20 of the 54 that remain are off by 10 %.
    assert figures["ranking"][2] == pytest.approx(10 * 20 / 54, abs=1e-3)
    assert figures["gain_20"] == figures["best_gain_20"] == pytest.approx(100 * (1 - 2 * 20 / 54), abs=0.01)
    assert figures["spearman"] == pytest.approx(-0.94, abs=0.05)


def test_yaw_of_a_turned_head_and_every_face_once_among_the_weak():
    """Eye corners at ±1, the nose's tip 1 before them, seen from 30° to a side, tilted by 20°."""
    points = np.zeros((3, 68, 3))
    points[:, 36], points[:, 45], points[:, 30] = (-1, 0, 0), (1, 0, 0), (0, 0.8, 1)
    angles = np.radians([[0], [30], [-30]])
    x, y, z = np.moveaxis(points, -1, 0)
    upright = np.stack([x * np.cos(angles) + z * np.sin(angles), y], axis=-1)
    np.testing.assert_allclose(accuracy.yaw(upright), [0, 30, 30], atol=1e-9)
    tilt = np.radians(20)
    rotation = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    np.testing.assert_allclose(accuracy.yaw(upright @ rotation.T), [0, 30, 30], atol=1e-9)
    rows = accuracy.weak(at(one_face(5).keypoints), one_face(5).keypoints)
    assert [sum(r["n"] for r in rows if r["by"] == by) for by in ("yaw", "side")] == [5, 5]
