import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fkp import evaluation
from fkp.data import FacialKeypointsDataset
from fkp.faces import Faces
from tests import synthetic


class Known:
    """Stands for a model: what it finds in each picture is given, by the picture's width."""

    def __init__(self, found: dict[int, Faces]) -> None:
        self.found = found

    def __call__(self, image):
        return self.found[image.shape[1]]

    def face_detector(self, image):
        faces = self(image)
        return faces.boxes, faces.scores

    def keypoints_at(self, image, boxes):
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        keypoints = np.repeat(centre[:, None], 68, axis=1)
        scores, sigmas = np.full((len(boxes), 68), 0.5), np.full((len(boxes), 68), 3.0)
        return Faces(boxes, np.ones(len(boxes)), keypoints, scores, sigmas)


def faces_at(*shapes: np.ndarray) -> Faces:
    points = np.stack(shapes).astype(np.float32) if shapes else np.empty((0, 68, 2), np.float32)
    boxes = np.concatenate([points.min(1), points.max(1)], axis=1) if shapes else np.empty((0, 4))
    return Faces(boxes, np.ones(len(points)), points, np.ones((len(points), 68)))


@pytest.fixture
def dataset(tmp_path) -> FacialKeypointsDataset:
    """Two faces in a 300 px wide picture, one in a 200 px wide one."""
    rows = [("a.png", synthetic.face(60, (60, 60))), ("a.png", synthetic.face(60, (200, 60)))]
    rows.append(("b.png", synthetic.face(60, (60, 60))))
    Image.new("RGB", (300, 120)).save(tmp_path / "a.png")
    Image.new("RGB", (200, 120)).save(tmp_path / "b.png")
    pd.DataFrame([p.ravel() for _, p in rows], index=[n for n, _ in rows]).to_csv(tmp_path / "faces.csv")
    return FacialKeypointsDataset(tmp_path / "faces.csv", tmp_path)


def test_evaluation_of_nothing(dataset):
    keypoints, scores = evaluation.predict(Known({}), dataset, "detected", [])
    assert keypoints.shape == (0, 68, 2) and scores.shape == (0, 68)


def test_detected_faces_are_matched_and_missed_ones_are_nan(dataset):
    stray = synthetic.face(60, (130, 20))
    right, left = synthetic.face(60, (201, 60)), synthetic.face(60, (60, 60))
    model = Known({300: faces_at(stray, right, left), 200: faces_at()})
    keypoints, _ = evaluation.predict(model, dataset, "detected")
    np.testing.assert_allclose(keypoints[0], left, atol=1e-4)
    np.testing.assert_allclose(keypoints[1], right, atol=1e-4)
    assert np.isnan(keypoints[2]).all()
    figures = evaluation.summarise(keypoints, dataset.keypoints)
    # One face exact, one off by 1 px of 0.68 × 60 px between the eye corners, one missed.
    assert figures["n"] == 3 and figures["missed"] == 1
    assert figures["nme"] == pytest.approx(100 / (0.68 * 60) / 2, abs=0.01)
    assert figures["fr8"] == pytest.approx(100 / 3, abs=0.01)


def test_a_face_without_an_eye_corner_counts_in_nme_box_alone():
    truth = np.stack([synthetic.face(60)] * 2)
    truth[1, 36] = np.nan
    figures = evaluation.summarise(np.stack([synthetic.face(60)] * 2) + [0, 1], truth)
    assert figures["n"] == 2 and figures["missed"] == 0 and figures["fr8"] == 0
    assert figures["nme"] == pytest.approx(100 / (0.68 * 60), abs=0.01)
    width, height = np.nanmax(truth[0], axis=0) - np.nanmin(truth[0], axis=0)
    assert figures["nme_box"] == pytest.approx(100 / np.sqrt(width * height), abs=0.01)


def test_true_boxes_miss_nothing(dataset):
    keypoints, scores = evaluation.predict(Known({}), dataset, "truth", [2, 0])
    assert keypoints.shape == (2, 68, 2) and (scores == 0.5).all()


def test_boxes_of_another_kind_are_refused(dataset):
    with pytest.raises(ValueError, match="guessed"):
        evaluation.predict(Known({}), dataset, "guessed")


def test_a_box_serves_one_face_only():
    truth, none = np.array([[0, 0, 10, 10], [0, 0, 10, 9]]), np.empty((0, 4))
    assert evaluation.match(truth, np.array([[0, 0, 10, 10]]), np.ones(1)) == [(0, 0)]
    assert evaluation.match(truth, none, np.empty(0)) == []
    assert evaluation.match(none, truth, np.ones(2)) == []


def test_of_two_boxes_on_a_face_the_better_scored_is_its_own():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8]])
    assert evaluation.match(boxes[:1], boxes, np.array([0.6, 0.9])) == [(0, 1)]
