"""The box of a picture that is one face, from keypoints that are known."""

import copy
import pickle
from pathlib import Path

import numpy as np
import pytest

from fkp import FaceKeypoints, Faces, geometry, images
from fkp.detectors import single_face

EXAMPLES = Path(__file__).parents[2] / "examples"


class Oval:
    """Places the points of every face on an oval around the box's middle, or all of them at it."""

    def __init__(self, half: tuple[float, float] = (10.0, 20.0)) -> None:
        self.half = half
        self.asked: list[np.ndarray] = []

    def keypoints_at(self, image: np.ndarray, boxes: np.ndarray) -> Faces:
        self.asked.append(boxes)
        turn = np.arange(68) * 2 * np.pi / 68
        oval = np.stack([np.cos(turn), np.sin(turn)], axis=-1) * self.half
        points = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None] + oval
        return Faces(boxes, np.ones(len(boxes)), points, np.ones((len(boxes), 68)))


@pytest.mark.parametrize("shape_hw", [(120, 80), (1, 1), (3, 400)])
def test_first_pass_is_at_the_middle_and_gives_the_box(shape_hw: tuple[int, int]) -> None:
    model = Oval()
    boxes, scores = single_face.SingleFace(model)(np.zeros((*shape_hw, 3), np.uint8))
    (((x1, y1, x2, y2),),) = model.asked
    height, width = shape_hw
    assert (x2 - x1, y2 - y1) == pytest.approx((single_face.PART * width, single_face.PART * height))
    middle = ((width - 1) / 2, (height - 1) / 2)
    assert ((x1 + x2) / 2, (y1 + y2) / 2) == pytest.approx(middle)
    assert boxes == pytest.approx(np.array([[-10, -20, 10, 20]]) + np.tile(middle, 2), abs=1e-4)
    assert boxes.dtype == scores.dtype == np.float32 and scores.tolist() == [1]


def test_min_score_of_any_size_is_reached() -> None:
    assert len(single_face.SingleFace(Oval())(np.zeros((9, 9, 3), np.uint8), min_score=1.0)[0]) == 1


def test_points_of_no_face_leave_the_first_box() -> None:
    for half in ((0.0, 0.0), (5.0, 0.0)):
        model = Oval(half)
        boxes, _ = single_face.SingleFace(model)(np.zeros((40, 40, 3), np.uint8))
        assert np.array_equal(boxes, model.asked[0])


@pytest.mark.parametrize("margin", [1.0, 1.6])
def test_a_real_face(margin: float) -> None:
    """Cut out around its tight box, a face gets the keypoints that it has in its photo."""
    model = FaceKeypoints.from_pretrained(detector="whole")
    photo = images.read(EXAMPLES / "eileen_collins.jpg")
    face = FaceKeypoints.from_pretrained()(photo, max_faces=1)
    middle, half = (face.boxes[0, :2] + face.boxes[0, 2:]) / 2, (face.boxes[0, 2:] - face.boxes[0, :2]) / 2
    low, high = (middle - margin * half).astype(int), (middle + margin * half).astype(int) + 1
    (found,) = model(photo[low[1] : high[1], low[0] : high[0]])
    eyes = geometry.inter_ocular(face.keypoints)
    off = np.linalg.norm(found.keypoints + low - face.keypoints, axis=-1).mean() / eyes
    assert off < (0.03 if margin > 1 else 0.06) and found.scores.tolist() == [1]
    overlap = geometry.iou(found.boxes, geometry.tight_boxes(face.keypoints - low))
    assert overlap > (0.85 if margin > 1 else 0.7)  # a margin of 1 leaves nothing around the points to see


def test_copies_use_their_own_model() -> None:
    model = FaceKeypoints.from_pretrained(detector="whole")
    photo = images.read(EXAMPLES / "eileen_collins.jpg")[50:220, 130:320]
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other(photo).keypoints == pytest.approx(model(photo).keypoints, abs=0.01)
