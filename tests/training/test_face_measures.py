"""How good a face detector is, and how its scores are to be read, on boxes that are made up."""

from pathlib import Path

import numpy as np
import pytest

from fkp import metrics
from fkp.training import face_measures, face_photos
from fkp.training.face_photos import Photo


def photo(faces: list[list[float]], ignore: list[list[float]], source: str = "300w") -> Photo:
    outlines = face_photos.ellipses(np.array(faces, float).reshape(-1, 4))
    return Photo(Path("none.png"), source, True, outlines, np.array(ignore, float).reshape(-1, 4))


EMPTY = np.empty((0, 4)), np.empty(0)


def test_figures_where_nothing_is_and_nothing_is_found() -> None:
    figures = face_measures.measure([(photo([], [], "scenes"), *EMPTY)])
    assert figures.pop("scenes") == 0 and figures.pop("min_score") == 0.5
    assert set(figures.values()) == {None}, "no face to find, no box on one, no photo with faces"


def test_matching_gives_each_face_one_box() -> None:
    there = photo([[0, 0, 10, 10], [50, 50, 60, 60]], [[80, 80, 90, 90]])
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [80, 80, 90, 90], [30, 30, 40, 40.0]])
    result = face_measures.match(there, boxes, np.array([0.6, 0.9, 0.8, 0.7]))
    # The best scored has the face, the second on it is false, as is the one on nothing; the third is ignored.
    assert result.faces == 2
    np.testing.assert_allclose(result.scores, [0.6, 0.9, 0.7])
    np.testing.assert_allclose(result.overlaps, [0, 0.9, 0])


def test_the_operating_threshold_and_the_figures_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_measures, "FACELESS_ALLOWED", 1.0)
    box = np.array([[0, 0, 10, 10.0]])
    found = [(photo([[0, 0, 10, 9]], []), box, np.array([score])) for score in (0.9, 0.8, 0.7, 0.1)]
    found += [(photo([], [], "no_faces"), box, np.array([score])) for score in (0.75, 0.4, 0.3, 0.2)]
    figures = face_measures.measure(found)
    # F1 is 2/5, 4/6, 4/7 (the false box of 0.75), 6/8, 6/9 ... 8/12 at falling thresholds.
    assert figures["min_score"] == pytest.approx(0.7)
    assert figures["recall_300w"] == 75 and figures["iou"] == pytest.approx(90) and figures["extra"] == 0
    assert figures["no_faces"] == 25
    asked = face_measures.measure(found, 0.85)
    assert (asked["min_score"], asked["recall_300w"], asked["no_faces"]) == (0.85, 25, 0)


def test_photos_without_a_face_raise_the_threshold() -> None:
    box = np.array([[0, 0, 10, 10.0]])
    found = [(photo([[0, 0, 10, 10]], []), box, np.array([score])) for score in (0.9, 0.8, 0.4, 0.35, 0.3)]
    at_least = face_measures.operating_threshold(found)
    found += [(photo([], [], "animals"), box, np.array([0.33])), (photo([], [], "animals"), *EMPTY)]
    assert at_least < 0.33 < face_measures.operating_threshold(found) < 0.35


def test_recall_in_crowds_by_size_at_a_tenth_of_a_false_box() -> None:
    small, large = [0.0, 0, 15, 14], [50.0, 50, 150, 150]
    found = [(photo([small, large], [], "wider"), np.array([small, large]), np.array([0.4, 0.6]))] * 10
    found.append((photo([], [], "wider"), np.array([small, large]), np.array([0.7, 0.5])))
    # Of eleven photos one false box passes, that of 0.7, but not that of 0.5.
    assert face_measures.crowd_recall(found) == [0, None, None, 100]
    assert face_measures.measure(found)["crowd"] == 50


def test_calibrated_scores_are_shares() -> None:
    rng = np.random.default_rng(0)
    face, nothing = [0.0, 0, 10, 10], np.array([[50, 50, 60, 60.0]])
    found = []
    for share in rng.uniform(0.05, 0.95, 3000):
        # Scores that are too sure: their logits are twice those of the share that are faces, and one more.
        score = 1 / (1 + np.exp(-(2 * np.log(share / (1 - share)) + 1)))
        box = np.array([face]) if rng.random() < share else nothing
        found.append((photo([face], []), box, np.array([score])))
    slope, intercept = face_measures.calibration(found)
    assert slope == pytest.approx(0.5, abs=0.05) and intercept == pytest.approx(-0.5, abs=0.12)
    assert np.isfinite(face_measures.calibration([])).all()


def test_found_nothing_at_all() -> None:
    assert metrics.operating_threshold([face_measures.match(photo([[0, 0, 9, 9]], []), *EMPTY)]) == 0.5


def test_bias_of_boxes_is_the_median() -> None:
    faces = [[10.0, 10, 50, 60], [100, 100, 180, 160]]
    off = np.array([2, 3, 2, 3.0])
    there = photo(faces, [])
    found = [(there, np.array(faces) + off, np.array([0.9, 0.8]))] * 3
    expected = np.median([[2 / 50, 3 / 50, 0, 0], [2 / 80, 3 / 80, 0, 0]], axis=0)
    np.testing.assert_allclose(face_measures.bias(found), expected, atol=1e-4)
    assert face_measures.bias([(there, *EMPTY)]) == (0, 0, 0, 0)
