import numpy as np
import pytest

from fkp import metrics


def labelled(n: int = 3) -> np.ndarray:
    """Faces whose outer eye corners are 50 px apart."""
    keypoints = np.zeros((n, 68, 2))
    keypoints[:, 45] = [30, 40]
    return keypoints


def test_figures_of_nothing():
    empty = metrics.summary(np.empty(0), np.empty(0), np.empty(0))
    assert empty.pop("n") == empty.pop("missed") == 0
    assert set(empty) == {"nme", "nme_inner", "nme_box", "median", "fr8", "fr10", "auc8"}
    assert not any(value is not None for value in empty.values())
    assert metrics.nme(np.empty((0, 68, 2)), np.empty((0, 68, 2))).shape == (0,)


def test_nme_of_one_moved_point():
    truth = labelled(1)
    predicted = truth.copy()
    predicted[0, 20] += [3, 4]  # 5 px of 50 px: 10 % at one point of 68
    assert metrics.nme(predicted, truth)[0] == pytest.approx(10 / 68)
    assert metrics.nme(predicted, truth, points=range(17, 68))[0] == pytest.approx(10 / 51)
    assert metrics.nme(predicted, truth, points=range(17))[0] == 0


def test_summary_with_a_missed_face():
    errors = np.array([2.0, 4.0, 9.0, np.nan])
    inner, of_boxes = np.array([1.0, 2.0, 3.0, np.nan]), np.array([1.0, 1.5, 2.0, np.nan, 3.5])
    figures = metrics.summary(errors, inner, of_boxes)
    assert figures["n"] == 5 and figures["missed"] == 1 and figures["nme_box"] == 2
    assert figures["nme"] == 5 and figures["median"] == 4 and figures["nme_inner"] == 2
    assert figures["fr8"] == 50 and figures["fr10"] == 25
    # Under the curve: (8−2) + (8−4) of 4·8.
    assert figures["auc8"] == pytest.approx(100 * 10 / 32)


def test_points_without_a_label_count_nowhere():
    truth = labelled(2)
    predicted = truth.copy()
    predicted[:, 20] += [3, 4]
    truth[1, 22:27] = np.nan
    assert metrics.nme(predicted, truth) == pytest.approx([10 / 68, 10 / 63])
    x, y = np.nanmax(truth, axis=1).T - np.nanmin(truth, axis=1).T
    assert metrics.nme_box(predicted, truth) == pytest.approx(100 * 5 / np.array([68, 63]) / np.sqrt(x * y))
    predicted[0] = np.nan  # missed
    assert np.isnan(metrics.nme(predicted, truth)).tolist() == [True, False]
    assert np.isnan(metrics.nme_box(predicted, truth)).tolist() == [True, False]
    truth[1, 36] = np.nan  # an outer eye corner: no distance to measure by
    assert np.isnan(metrics.nme(predicted, truth)[1]) and metrics.nme_box(predicted, truth)[1] > 0


def test_roc_auc_is_how_often_a_positive_has_the_higher_score():
    assert metrics.roc_auc(np.array([3, 2]), np.array([1, 0])) == 1
    assert metrics.roc_auc(np.array([1, 2]), np.array([1.5, 2])) == pytest.approx(0.375)  # 0, 0, 1 and a half
    assert np.isnan(metrics.roc_auc(np.empty(0), np.ones(3)))


def test_auc_is_the_area_under_the_ced():
    errors = np.random.default_rng(0).gamma(4, 1.2, 500)
    limits = np.linspace(0, 8, 4001)
    assert metrics.auc(errors, 8) == pytest.approx(metrics.ced(errors, limits).mean(), abs=0.05)


def test_figures_where_all_faces_are_missed():
    figures = metrics.summary(*[np.array([np.nan])] * 3)
    assert (
        figures["missed"] == 1 and figures["nme"] is None and figures["fr8"] == 100 and figures["auc8"] == 0
    )


def test_mean_of_what_is_there():
    assert metrics.mean([1, None, np.nan, 4]) == 2.5
    assert metrics.mean([]) is None and metrics.mean(np.array([np.nan])) is None


def test_reliability_of_no_score_is_not_perfect():
    error, table = metrics.reliability(np.empty(0), np.empty(0, bool))
    assert np.isnan(error) and (table[:, 2] == 0).all()


def test_reliability():
    scores = np.random.default_rng(0).uniform(size=20_000)
    hits = np.random.default_rng(1).uniform(size=20_000) < scores
    error, table = metrics.reliability(scores, hits)
    assert error < 0.02 and table.shape == (10, 3) and table[:, 2].sum() == 20_000
    assert metrics.reliability(np.full(1000, 0.9), np.zeros(1000, bool))[0] == pytest.approx(0.9)


def test_ranking_drops_the_least_sure_first():
    errors = np.array([[10.0, 2.0], [4.0, 0.0]])
    scores = np.array([[0.1, 0.6], [0.3, 0.9]])
    curve = metrics.ranking(scores, errors, [0, 0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve, [4, 2, 1, 0, np.nan])
    assert metrics.ranking_gain(scores, errors, 0.25) == pytest.approx(50)
    assert metrics.ranking_gain(1 - scores, errors, 0.25) < 0  # the wrong way round, the best point goes
    assert np.isnan(metrics.ranking(np.empty(0), np.empty(0), [0, 0.5])).all()


def test_ranking_by_scores_that_say_nothing_gains_nothing():
    errors = np.random.default_rng(0).gamma(2, 1, 100_000)
    scores = np.random.default_rng(1).uniform(size=100_000)
    assert metrics.ranking_gain(scores, errors) == pytest.approx(0, abs=0.5)


def test_spearman():
    assert np.isnan(metrics.spearman(np.empty(0), np.empty(0)))
    assert np.isnan(metrics.spearman(np.ones(3), np.arange(3)))
    values = np.random.default_rng(0).normal(size=(5, 4))
    assert metrics.spearman(values, np.exp(values)) == pytest.approx(1)
    assert metrics.spearman(values, -(values**3)) == pytest.approx(-1)
    # Ranks 1, 2.5, 2.5, 4 against 1, 2, 3, 4: 4.5 / sqrt(4.5 * 5).
    assert metrics.spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / np.sqrt(4.5 * 5))


# --- Boxes --------------------------------------------------------------------------------------------------


def found_in(scores: list[float], overlaps: list[float], faces: int) -> metrics.Found:
    return metrics.Found(np.array(scores), np.array(overlaps), faces)


NOTHING_FOUND = metrics.found(np.empty((0, 1)), np.empty(0))


def test_matching_without_boxes_or_faces():
    assert metrics.assign(np.empty((0, 0)), np.empty(0)).shape == (0,)
    assert metrics.assign(np.empty((2, 0)), np.array([0.9, 0.8])).tolist() == [-1, -1]
    empty = metrics.found(np.empty((0, 0)), np.empty(0))
    assert empty.faces == empty.hits == 0 and metrics.recall([empty]) is None and metrics.recall([]) is None
    assert metrics.average_precision([NOTHING_FOUND]) == 0
    assert np.isnan(metrics.average_precision([])) and np.isnan(metrics.average_precision([empty]))
    assert metrics.recall([NOTHING_FOUND]) == 0


def test_matching_gives_each_face_its_best_scored_box():
    # Boxes by faces: the first and the second on face 0, the third on both, the fourth on neither.
    overlaps = np.array([[1.0, 0], [0.9, 0], [0.6, 0.55], [0.49, 0]])
    scores = np.array([0.6, 0.9, 0.8, 0.7], np.float32)
    assert metrics.assign(overlaps, scores).tolist() == [-1, 0, 1, -1]
    # Without the second, the third takes the face that it overlaps more.
    assert metrics.assign(overlaps[[0, 2, 3]], scores[[0, 2, 3]]).tolist() == [-1, 0, -1]
    found = metrics.found(overlaps, scores)
    np.testing.assert_allclose(found.overlaps, [0, 0.9, 0.55, 0])
    assert found.scores.dtype == np.float64 and found.faces == found.hits == 2


def test_a_box_to_ignore_counts_only_on_a_face():
    overlaps, ignorable = np.array([[0.8], [0.1], [0.2]]), np.array([True, True, False])
    found = metrics.found(overlaps, np.array([0.5, 0.6, 0.7]), ignorable)
    np.testing.assert_allclose(found.scores, [0.5, 0.7])
    np.testing.assert_allclose(found.overlaps, [0.8, 0])


def test_found_at_a_threshold():
    above = found_in([0.9, 0.7, 0.4], [0.8, 0, 0.6], faces=3).above(0.7)
    np.testing.assert_allclose(above.scores, [0.9, 0.7])
    assert above.hits == 1 and metrics.recall([above]) == pytest.approx(100 / 3)


def test_average_precision_by_hand():
    pictures = [found_in([0.9, 0.8], [0.6, 0], 1), found_in([0.7], [1.0], 1)]
    # Recall ½ at precision 1, recall 1 at precision ⅔; at an overlap of 0.8 the first is none.
    assert metrics.average_precision(pictures) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert metrics.average_precision(pictures, 0.8) == pytest.approx(0.5 * 1 / 3)
    precision, recall, scores = metrics.precision_recall(pictures)
    np.testing.assert_allclose(precision, [1, 1 / 2, 2 / 3])
    np.testing.assert_allclose(recall, [1 / 2, 1 / 2, 1])
    np.testing.assert_allclose(scores, [0.9, 0.8, 0.7])


def test_the_operating_threshold():
    pictures = [found_in([score], [0.9], 1) for score in (0.9, 0.8, 0.7, 0.1)]
    pictures += [found_in([score], [0.0], 0) for score in (0.75, 0.4, 0.3, 0.2)]
    # F1 is 2/5, 4/6, 4/7 (the false box of 0.75), 6/8, 6/9 ... 8/12 at falling thresholds.
    assert metrics.operating_threshold(pictures) == pytest.approx(0.7)
    assert metrics.operating_threshold([NOTHING_FOUND]) == 0.5


def test_of_nearly_equal_thresholds_the_middle_serves(monkeypatch):
    pictures = [found_in([score], [1.0], 1) for score in (0.9, 0.8, 0.7)]
    # F1 is 0.5, 0.8, 1 at falling thresholds: 0.8 and 1 are not within 0.1, they are within 0.25.
    monkeypatch.setattr(metrics, "FLAT", 0.1)
    assert metrics.operating_threshold(pictures) == pytest.approx(0.7)
    monkeypatch.setattr(metrics, "FLAT", 0.25)
    assert metrics.operating_threshold(pictures) == pytest.approx(0.75)


def test_the_threshold_for_so_many_false_boxes():
    scores = np.array([0.5, 0.29, 0.7, 0.2904])
    for allowed, threshold in ((0, 0.701), (1, 0.501), (2, 0.291), (3, 0.291), (4, 0)):
        assert metrics.threshold_for(scores, allowed) == threshold
        assert (scores >= threshold).sum() <= allowed
    assert metrics.threshold_for(np.float32([0.7]), 0) == 0.7  # which is a little less
    assert metrics.threshold_for(np.empty(0), 0) == 0
