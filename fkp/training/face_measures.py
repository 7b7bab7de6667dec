"""How good a face detector is on photos held out of training, and what they say of how to read it."""

from __future__ import annotations

import math
from itertools import pairwise

import cv2
import numpy as np

from fkp import detector, geometry, images, metrics
from fkp.training.face_photos import FACELESS, Photo

FoundInPhotos = list[tuple[Photo, np.ndarray, np.ndarray]]
"""Photos with the boxes (n,4) found in each at a very low threshold, and their scores (n,)."""

CROWD_SIZES, CROWD_IOU, FALSE_ALLOWED = (12.0, 20.0, 32.0, 64.0, math.inf), 0.4, 0.1
"""Sizes of faces in group photos, pixels, the IoU by which one is found, and false boxes a photo."""

FACELESS_ALLOWED = 0.025
"""Share of the photos without a face in which there may be a box at the operating threshold."""


def match(photo: Photo, boxes: np.ndarray, scores: np.ndarray) -> metrics.Found:
    """What boxes (n,4) with scores (n,) found in a photo; those on something to ignore do not count."""
    ignorable = geometry.iou(boxes, photo.ignore).max(axis=1, initial=0) > 0.3
    return metrics.found(geometry.iou(boxes, photo.boxes), scores, ignorable)


def bias(found: FoundInPhotos) -> tuple[float, float, float, float]:
    """By how much boxes (n,4) found in photos are off their faces on the whole: the median.

    Rounded to a hundredth of a percent; nothing, where no face is found.
    """
    told, truth = [np.empty((0, 4))], [np.empty((0, 4))]
    for photo, boxes, scores in found:
        face = metrics.assign(geometry.iou(boxes, photo.boxes), scores)
        told.append(boxes[face >= 0])
        truth.append(photo.boxes[face[face >= 0]])
    off = detector.box_errors(np.concatenate(told), np.concatenate(truth))
    x, y, width, height = (round(float(v), 4) for v in np.median(off, axis=0)) if len(off) else (0.0,) * 4
    return x, y, width, height


def logit(scores: np.ndarray) -> np.ndarray:
    """The inverse of the logistic function."""
    return np.log(scores / (1 - scores))


def calibration(found: FoundInPhotos) -> tuple[float, float]:
    """Slope and intercept that make the logits of boxes found in photos those of a probability.

    Platt scaling (1999): logistic regression, by Newton's method, of whether a box is a face's on its logit.
    One face and one that is none are added, which keeps it finite.
    """
    matches = [match(*one) for one in found]
    scores = np.concatenate([m.scores for m in matches] or [np.empty(0)])
    hits = np.concatenate([m.overlaps > 0 for m in matches] or [np.empty(0, bool)])
    x = np.concatenate([logit(scores.clip(1e-4, 1 - 1e-4)), [-3.0, 3.0]])
    y = np.concatenate([hits, [0, 1]])
    inputs, weights = np.column_stack([x, np.ones_like(x)]), np.array([1.0, 0.0])
    for _ in range(30):
        p = 1 / (1 + np.exp(-inputs @ weights))
        curvature = inputs.T @ (inputs * (p * (1 - p))[:, None]) + 1e-6 * np.eye(2)
        weights = weights + np.linalg.solve(curvature, inputs.T @ (y - p))
    slope, intercept = weights.round(4).tolist()
    return slope, intercept


def operating_threshold(found: FoundInPhotos) -> float:
    """The score that serves best, by F1, but at least so high that photos without a face stay empty.

    All but FACELESS_ALLOWED of those of every kind.
    """
    least = [metrics.operating_threshold([match(*one) for one in found])]
    for source in FACELESS:
        best = [scores.max(initial=0) for photo, _, scores in found
                if photo.source == source and len(photo.boxes) + len(photo.ignore) == 0]  # fmt: skip
        if best:
            least.append(float(np.quantile(best, 1 - FACELESS_ALLOWED, method="higher")) + 5e-3)
    return min(max(least), 0.99)


def measure(found: FoundInPhotos, min_score: float | None = None) -> dict[str, float | None]:
    """How good boxes (n,4) with scores (n,), found in photos at a very low threshold, are; in percent.

    `crowd`: share of the faces of group photos (`wider`) found at a tenth of a false box a photo, the mean of
    four sizes; each of them follows · `ap`: mean of the average precisions at overlaps of 0.5, 0.6, 0.7 and
    0.8 · `ap50`: the first of them · `min_score` (0..1): that given, or the operating threshold. There:
    `recall_ytf`, `recall_300w`: share of the faces found · `iou`: mean overlap of the found ones · `extra`:
    boxes on no face in 100 photos with faces · `no_faces`, `scenes`, `animals`: boxes in 100 photos of these.
    A figure that nothing supports is None; `crowd` is the mean of the other sizes.
    """
    matches = [match(*one) for one in found]
    precisions = [100 * metrics.average_precision(matches, least) for least in (0.5, 0.6, 0.7, 0.8)]
    if min_score is None:
        min_score = operating_threshold(found)
    sizes = crowd_recall([one for one in found if one[0].source == "wider"])
    result = {"crowd": metrics.mean(sizes)}
    result |= {f"crowd_{int(least)}": share for least, share in zip(CROWD_SIZES, sizes, strict=False)}
    result |= {"ap": metrics.mean(precisions), "ap50": metrics.mean(precisions[:1]), "min_score": min_score}
    at_threshold = [(photo, m.above(min_score)) for (photo, *_), m in zip(found, matches, strict=True)]
    for source in ("ytf", "300w"):
        result[f"recall_{source}"] = metrics.recall([m for p, m in at_threshold if p.source == source])
    labelled = [m for p, m in at_threshold if p.source not in FACELESS]
    overlaps = np.concatenate([m.overlaps for m in labelled] or [np.empty(0)])
    result["iou"] = metrics.mean(100 * overlaps[overlaps > 0])
    result["extra"] = metrics.mean([100 * int((m.overlaps == 0).sum()) for m in labelled])
    for source in FACELESS:
        faceless = [m for p, m in at_threshold if p.source == source and m.faces + len(p.ignore) == 0]
        result[source] = metrics.mean([100 * len(m.scores) for m in faceless])
    return result


def crowd_recall(found: FoundInPhotos) -> list[float | None]:
    """Share of the faces found, percent, at FALSE_ALLOWED false boxes a photo, for each of the CROWD_SIZES;
    None where there is no face of it.

    A face is found by an overlap of 0.4; its size is the longer side of its box.
    """
    by_photo, false = [], []
    for photo, boxes, scores in found:
        overlaps = geometry.iou(boxes, photo.boxes)
        face = metrics.assign(overlaps, scores, CROWD_IOU)
        ignorable = geometry.iou(boxes, photo.ignore).max(axis=1, initial=0) > 0.3
        best = np.zeros(len(photo.boxes))
        best[face[face >= 0]] = scores[face >= 0]
        by_photo.append(np.stack([geometry.longer_sides(photo.boxes), best], axis=1))
        false.append(scores[(face < 0) & ~ignorable])
    sides, best = np.concatenate(by_photo or [np.empty((0, 2))]).T
    worst_first = np.sort(np.concatenate(false or [np.empty(0)]))[::-1]
    allowed = int(FALSE_ALLOWED * len(found))
    least_score = worst_first[allowed] if len(worst_first) > allowed else 0.0
    shares = []
    for low, high in pairwise(CROWD_SIZES):
        of_size = (sides >= low) & (sides < high)
        shares.append(metrics.mean(100 * (best[of_size] > least_score)))
    return shares


def sheet(found: FoundInPhotos, side: int = 320, columns: int = 4) -> np.ndarray:
    """Photos in a grid (H,W,3) uint8 RGB: faces green, boxes to ignore grey, what was found red."""
    shown = [_shown(*one, side) for one in found]
    shown += [np.zeros((side, side, 3), np.uint8)] * (-len(shown) % columns)
    return np.concatenate([np.concatenate(shown[i : i + columns], 1) for i in range(0, len(shown), columns)])


def _shown(photo: Photo, boxes: np.ndarray, scores: np.ndarray, side: int) -> np.ndarray:
    image = images.read(photo.path)
    scale = side / max(image.shape[:2])
    size_wh = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    image = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    image = cv2.copyMakeBorder(image, 0, side - size_wh[1], 0, side - size_wh[0], cv2.BORDER_CONSTANT)
    red = (255, 40, 40)
    for some, colour in ((photo.boxes, (0, 230, 0)), (photo.ignore, (150, 150, 150)), (boxes, red)):
        for x1, y1, x2, y2 in np.round(some * scale).astype(int).tolist():
            cv2.rectangle(image, (x1, y1), (x2, y2), colour, 1, cv2.LINE_AA)
    for (x1, y1, *_), score in zip(np.round(boxes * scale).astype(int).tolist(), scores, strict=True):
        corner = (max(x1, 0), max(y1 - 3, 10))
        cv2.putText(image, f"{score:.2f}", corner, cv2.FONT_HERSHEY_SIMPLEX, 0.4, red, 1, cv2.LINE_AA)
    return image
