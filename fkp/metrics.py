"""How far off keypoints are, and how well boxes are found.

Errors are percent of the inter-ocular distance (outer eye corners) of the labels: NME, as in the 300-W
challenge, https://ibug.doc.ic.ac.uk/media/uploads/documents/sagonas_2016_imavis.pdf.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from fkp import geometry

LEAST_IOU = 0.5
"""A box is a face's when they overlap by this much or more, as in PASCAL VOC (Everingham et al.,
https://doi.org/10.1007/s11263-009-0275-4)."""

FLAT = 0.001
"""F1 values as close as this are the same: one face in seven hundred."""


class Summary(TypedDict):
    """`fr8`, `fr10`: share of faces with an NME over 8, 10 · `auc8`: area under the CED up to 8; percent.

    `n` faces, those without labels of both outer eye corners included, which count in `nme_box` alone.
    """

    n: int
    missed: int
    nme: float | None
    nme_inner: float | None
    nme_box: float | None
    median: float | None
    fr8: float | None
    fr10: float | None
    auc8: float | None


def point_errors(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Distance (n,68) of keypoints (n,68,2) from the labelled ones, percent of the inter-ocular distance."""
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    return 100 * np.linalg.norm(predicted - truth, axis=-1) / geometry.inter_ocular(truth)[:, None]


def nme(predicted: np.ndarray, truth: np.ndarray, points: Sequence[int] | None = None) -> np.ndarray:
    """Normalised mean error (n,) of keypoints (n,68,2), percent; over `points` (0-based) or all 68.

    Points without a label, NaN, count nowhere; a face whose eyes' outer corners have none is NaN.
    """
    errors, labelled = point_errors(predicted, truth), _labelled(truth)
    if points is not None:
        errors, labelled = errors[:, list(points)], labelled[:, list(points)]
    return _mean_of(errors, labelled)


def nme_box(predicted: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean distance (n,) of keypoints (n,68,2) from the labelled ones, percent of the root of the area of the
    labels' tight box; points without a label, NaN, count nowhere.

    As Bulat and Tzimiropoulos, https://arxiv.org/abs/1703.07332, have it, for faces of any pose.
    """
    truth = np.asarray(truth, np.float64)
    x1, y1, x2, y2 = geometry.tight_boxes(truth).T
    distances = np.linalg.norm(np.asarray(predicted, np.float64) - truth, axis=-1)
    return 100 * _mean_of(distances, _labelled(truth)) / np.sqrt((x2 - x1) * (y2 - y1))


def _labelled(truth: np.ndarray) -> np.ndarray:
    return np.isfinite(truth).all(axis=-1)


def _mean_of(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Mean (n,) of values (n,m) where `counts` (n,m); NaN where nothing does, or a value that does is NaN."""
    with np.errstate(invalid="ignore"):
        return np.where(counts, values, 0).sum(axis=1) / counts.sum(axis=1)


def mean(values: Sequence[float | None] | np.ndarray) -> float | None:
    """The mean of the values that are numbers, neither None nor NaN; None where there are none."""
    array = np.asarray(values, np.float64)
    known = array[~np.isnan(array)]
    return float(known.mean()) if known.size else None


def roc_auc(positives: np.ndarray, negatives: np.ndarray) -> float:
    """Area under the ROC curve, 0..1: how often a positive has the higher score; NaN where there are none."""
    both = np.concatenate([positives.ravel(), negatives.ravel()])
    if not (positives.size and negatives.size):
        return float("nan")
    _, index, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[index]
    wins = ranks[: positives.size].sum() - positives.size * (positives.size + 1) / 2
    return float(wins / positives.size / negatives.size)


def summary(errors: np.ndarray, inner_errors: np.ndarray, box_errors: np.ndarray) -> Summary:
    """The figures of a test set from its faces' errors, percent: NMEs (n,) over 68 and over the inner 51
    points of the faces with both outer eye corners, and NME_box (m,) of all.

    NaN is a missed face: a failure in fr8, fr10 and auc8, left out of the means and the median. A figure
    that no face supports is None.
    """
    errors = np.asarray(errors, np.float64)
    found = errors[~np.isnan(errors)]
    return Summary(
        n=len(box_errors),
        missed=int(np.isnan(box_errors).sum()),
        nme=_rounded(mean(errors)),
        nme_inner=_rounded(mean(inner_errors)),
        nme_box=_rounded(mean(box_errors)),
        median=_rounded(np.median(found) if len(found) else None),
        fr8=_rounded(failure_rate(errors, 8) if len(errors) else None),
        fr10=_rounded(failure_rate(errors, 10) if len(errors) else None),
        auc8=_rounded(auc(errors, 8) if len(errors) else None),
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

    Rows of the table: mean score, share of hits, number of points; empty bins are NaN, NaN, 0. Where
    there is no score the error is NaN.
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
    if not len(scores):
        return float("nan"), table
    weights = table[:, 2] / len(scores)
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


# --- Boxes --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Found:
    """What a detector found in one picture, against the faces that are there.

    `scores` (n,) of the boxes that count, float64 · `overlaps` (n,) IoU of each with the face that is its
    own, 0 for a false box · `faces`: how many there are to be found.
    """

    scores: np.ndarray
    overlaps: np.ndarray
    faces: int

    @property
    def hits(self) -> int:
        """How many of the faces were found."""
        return int((self.overlaps > 0).sum())

    def above(self, min_score: float) -> Found:
        """What remains at a threshold: boxes are given out best score first, so no face changes its box."""
        keep = self.scores >= min_score
        return Found(self.scores[keep], self.overlaps[keep], self.faces)


def assign(overlaps: np.ndarray, scores: np.ndarray, least_iou: float = LEAST_IOU) -> np.ndarray:
    """The index (n,) of each box's own face, −1 for none, by the IoU (n,m) of n boxes with m faces.

    The boxes take turns, best score first; each takes the face that it overlaps most of those that are still
    free, if that is by `least_iou` or more.
    """
    own, free = np.full(len(scores), -1), np.ones(overlaps.shape[1], bool)
    for i in np.argsort(-np.asarray(scores), kind="stable"):
        candidates = np.where(free, overlaps[i], -1)
        if candidates.max(initial=-1) >= least_iou:
            own[i] = candidates.argmax()
            free[own[i]] = False
    return own


def found(overlaps: np.ndarray, scores: np.ndarray, ignorable: np.ndarray | None = None) -> Found:
    """What boxes with scores (n,) found, by their IoU (n,m) with the m faces of a picture.

    Where `ignorable` (n,) is true, a box that is no face's is left out instead of being false.
    """
    own = assign(overlaps, scores)
    is_face = own >= 0
    best = np.zeros(len(own))
    best[is_face] = overlaps[is_face, own[is_face]]
    counts = np.ones(len(own), bool) if ignorable is None else is_face | ~ignorable
    return Found(np.asarray(scores, np.float64)[counts], best[counts], overlaps.shape[1])


def recall(pictures: Sequence[Found]) -> float | None:
    """Share of the faces of all pictures that were found, percent; None where there is no face."""
    faces = sum(picture.faces for picture in pictures)
    return 100 * sum(picture.hits for picture in pictures) / faces if faces else None


def precision_recall(
    pictures: Sequence[Found], least_iou: float = LEAST_IOU
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Precision and recall (n,), 0..1, with each box of all pictures and the better scored, and the scores.

    Scores (n,) fall. An overlap below `least_iou` is no hit.
    """
    scores = np.concatenate([picture.scores for picture in pictures] or [np.empty(0)])
    overlaps = np.concatenate([picture.overlaps for picture in pictures] or [np.empty(0)])
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum((overlaps[order] > 0) & (overlaps[order] >= least_iou))
    faces = sum(picture.faces for picture in pictures)
    return hits / np.arange(1, len(hits) + 1), hits / max(1, faces), scores[order]


def average_precision(pictures: Sequence[Found], least_iou: float = LEAST_IOU) -> float:
    """Area under the precision/recall curve, every recall at the best precision from there on, 0..1.

    NaN where there is no face.
    """
    if not any(picture.faces for picture in pictures):
        return float("nan")
    precision, recalls, _ = precision_recall(pictures, least_iou)
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    return float((best_from_here * np.diff(recalls, prepend=0)).sum())


def operating_threshold(pictures: Sequence[Found]) -> float:
    """The least score that serves best, by F1: 0.5 when no face was found.

    F1 hardly changes over a wide range of thresholds, and where in it the best one lies is chance: it is the
    middle of the thresholds whose F1 is within FLAT of the best.
    """
    precision, recalls, scores = precision_recall(pictures)
    if not recalls.any():
        return 0.5
    f1 = 2 * precision * recalls / np.maximum(precision + recalls, 1e-12)
    near = np.flatnonzero(f1 >= f1.max() - FLAT)
    return float(scores[near[0]] + scores[near[-1]]) / 2


def threshold_for(scores: np.ndarray, allowed: int) -> float:
    """The least threshold, in thousandths, that at most `allowed` of the scores (n,) reach; 0 for any."""
    scores, thousandths = np.sort(np.asarray(scores, np.float64))[::-1], np.arange(1002) / 1000
    if len(scores) <= allowed:
        return 0.0
    return float(thousandths[np.searchsorted(thousandths, scores[allowed], side="right")])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 3)
