"""How far off keypoints are, and how well boxes are found.

Errors are percent of the inter-ocular distance (outer eye corners) of the labels: NME, as in the 300-W
challenge, https://ibug.doc.ic.ac.uk/media/uploads/documents/sagonas_2016_imavis.pdf.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from fkp import scheme


class Summary(TypedDict):
    """`fr8`, `fr10`: share of faces with an NME over 8, 10 · `auc8`: area under the CED up to 8; percent."""

    n: int
    missed: int
    nme: float | None
    nme_inner: float | None
    median: float | None
    fr8: float | None
    fr10: float | None
    auc8: float | None


def point_errors(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance (n,68) of keypoints (n,68,2) from the labelled ones, percent of the inter-ocular distance."""
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    eyes = truth[:, scheme.RIGHT_EYE_OUTER_CORNER] - truth[:, scheme.LEFT_EYE_OUTER_CORNER]
    inter_ocular = np.linalg.norm(eyes, axis=-1, keepdims=True)
    return 100 * np.linalg.norm(predicted - truth, axis=-1) / inter_ocular


def nme(predicted: np.ndarray, truth: np.ndarray, points: Sequence[int] | None = None) -> np.ndarray:
    """Normalised mean error (n,) of keypoints (n,68,2), percent; over `points` (0-based) or all 68."""
    errors = point_errors(predicted, truth)
    return (errors if points is None else errors[:, list(points)]).mean(axis=1)


def summary(errors: np.ndarray, inner_errors: np.ndarray) -> Summary:
    """The figures of a test set from its faces' NMEs (n,) over 68 and over the inner 51 points, percent.

    NaN is a missed face: a failure in fr8, fr10 and auc8, left out of nme and median. A figure that no
    face supports is None.
    """
    errors, inner_errors = np.asarray(errors, np.float64), np.asarray(inner_errors, np.float64)
    found = errors[~np.isnan(errors)]
    return Summary(
        n=len(errors),
        missed=len(errors) - len(found),
        nme=_rounded(found.mean()) if len(found) else None,
        nme_inner=_rounded(np.nanmean(inner_errors)) if len(found) else None,
        median=_rounded(np.median(found)) if len(found) else None,
        fr8=_rounded(failure_rate(errors, 8)) if len(errors) else None,
        fr10=_rounded(failure_rate(errors, 10)) if len(errors) else None,
        auc8=_rounded(auc(errors, 8)) if len(errors) else None,
    )


def failure_rate(errors: np.ndarray, limit: float) -> float:
    """Share of errors (n,) over the limit, percent; NaN (missed) counts as over."""
    return float(100 * np.mean(~(np.asarray(errors) <= limit)))


def auc(errors: np.ndarray, limit: float) -> float:
    """Area under the CED of errors (n,) from 0 to the limit, percent of its largest value; NaN adds nothing.

    Exact: a face with error e is under the curve from e to the limit.
    """
    errors = np.where(np.isnan(errors), np.inf, errors)
    return float(100 * np.mean(np.clip(limit - errors, 0, None)) / limit)


def ced(errors: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Cumulative error distribution: percent of errors (n,) at or under each limit (m,)."""
    return 100 * np.mean(np.asarray(errors)[None, :] <= np.asarray(limits)[:, None], axis=1)


def reliability(scores: np.ndarray, hits: np.ndarray, bins: int = 10) -> tuple[float, np.ndarray]:
    """Expected calibration error (0..1) of scores (n,) against hits (n,) bool, and a table (bins,3).

    Rows of the table: mean score, share of hits, number of points; empty bins are NaN, NaN, 0.
    Guo et al., https://arxiv.org/abs/1706.04599.
    """
    scores, hits = np.ravel(scores), np.ravel(hits)
    index = np.minimum((scores * bins).astype(int), bins - 1)
    table = np.full((bins, 3), np.nan)
    for i in range(bins):
        inside = index == i
        table[i, 2] = inside.sum()
        if inside.any():
            table[i, :2] = scores[inside].mean(), hits[inside].mean()
    weights = table[:, 2] / max(len(scores), 1)
    return float(np.nansum(weights * np.abs(table[:, 0] - table[:, 1]))), table


def ranking(scores: np.ndarray, errors: np.ndarray, dropped: Sequence[float]) -> np.ndarray:
    """Mean error (m,) of the points that remain when the least sure ones are dropped, for shares (m,) 0..1.

    `scores` and `errors` hold a number for each point, in any one shape. A share that leaves no point
    gives NaN. The sparsification curve of Ilg et al., https://arxiv.org/abs/1802.07095.
    """
    by_score = np.ravel(errors)[np.argsort(np.ravel(scores), kind="stable")]
    kept = [by_score[round(share * len(by_score)) :] for share in dropped]
    return np.array([rest.mean() if len(rest) else np.nan for rest in kept])


def ranking_gain(scores: np.ndarray, errors: np.ndarray, dropped: float = 0.2) -> float:
    """By how much the mean error falls without that share (0..1) of the least sure points, percent."""
    before, after = ranking(scores, errors, (0.0, dropped))
    return float(100 * (1 - after / before))


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Rank correlation, -1..1, of two arrays of one shape; equal values share their mean rank.

    NaN where either holds fewer than two different values.
    """
    ranks = []
    for values in (np.ravel(one), np.ravel(other)):
        _, index, counts = np.unique(values, return_inverse=True, return_counts=True)
        if len(counts) < 2:
            return float("nan")
        mean_ranks = np.cumsum(counts) - (counts - 1) / 2
        ranks.append((mean_ranks - (len(values) + 1) / 2)[index.ravel()])
    first, second = ranks
    return float(first @ second / np.sqrt((first @ first) * (second @ second)))


def _rounded(value: float) -> float:
    return round(float(value), 3)
