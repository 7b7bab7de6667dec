import numpy as np
import pytest

from fkp import metrics


def labelled(n: int = 3) -> np.ndarray:
    """Faces whose outer eye corners are 50 px apart."""
    keypoints = np.zeros((n, 68, 2))
    keypoints[:, 45] = [30, 40]
    return keypoints


def test_nothing_to_measure():
    empty = metrics.summary(np.empty(0), np.empty(0))
    assert empty == dict(n=0, missed=0, nme=None, nme_inner=None, median=None, fr8=None, fr10=None, auc8=None)
    assert metrics.nme(np.empty((0, 68, 2)), np.empty((0, 68, 2))).shape == (0,)


def test_nme_of_one_moved_point():
    truth = labelled(1)
    predicted = truth.copy()
    predicted[0, 20] += [3, 4]  # 5 px of 50 px: 10 % at one point of 68
    assert metrics.nme(predicted, truth)[0] == pytest.approx(10 / 68)
    assert metrics.nme(predicted, truth, points=range(17, 68))[0] == pytest.approx(10 / 51)
    assert metrics.nme(predicted, truth, points=range(17))[0] == 0


def test_summary_with_a_missed_face():
    figures = metrics.summary(np.array([2.0, 4.0, 9.0, np.nan]), np.array([1.0, 2.0, 3.0, np.nan]))
    assert figures["n"] == 4 and figures["missed"] == 1
    assert figures["nme"] == 5 and figures["median"] == 4 and figures["nme_inner"] == 2
    assert figures["fr8"] == 50 and figures["fr10"] == 25
    # Under the curve: (8−2) + (8−4) of 4·8.
    assert figures["auc8"] == pytest.approx(100 * 10 / 32)


def test_auc_is_the_area_under_the_ced():
    errors = np.random.default_rng(0).gamma(4, 1.2, 500)
    limits = np.linspace(0, 8, 4001)
    assert metrics.auc(errors, 8) == pytest.approx(metrics.ced(errors, limits).mean(), abs=0.05)


def test_all_missed():
    figures = metrics.summary(np.array([np.nan]), np.array([np.nan]))
    assert (
        figures["missed"] == 1 and figures["nme"] is None and figures["fr8"] == 100 and figures["auc8"] == 0
    )


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
