"""The face detector: pictures in, boxes out. Resizing, decoding, suppression and voting, in NumPy and OpenCV.

Its network (`networks.face_net`) says of every cell of three grids how surely a face is centred near it and
where that face's box lies. A box is the tight box of the 68 keypoints and may reach beyond the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np

from fkp import geometry
from fkp.config import DetectorConfig
from fkp.runtime import Runnable

STRIDES = (8, 16, 32)
"""Pixels of the network's input per cell, for each of its three grids."""

PRIOR = 4.0
"""A box whose log size is 0 is this many cells wide and high."""

SMALLEST = 10.0
"""Boxes of fewer pixels on their longer side, of the picture or of the network's input, are discarded:
nearly all are false, and there is not enough to see for 68 keypoints."""

LARGEST = 256.0
"""Boxes of more pixels of the network's input are left to the pass before, which sees the picture smaller."""

COARSEST = 48.0
"""Boxes of fewer are left to the pass after, where the picture is seen smallest."""

VOTE_IOU, VOTE_SCORE = 0.65, 0.5
"""Boxes that overlap a face's best one by this IoU, and have this share of its score, have a say in it."""

GREY = 128
"""The value that pads a picture, and the network's zero: a whole number, so that a quantised graph takes
pictures as they are."""

MOST_BOXES = 5000
"""So many of the best scored boxes are considered; more come only of a threshold near 0."""


def cells(height: int, width: int) -> np.ndarray:
    """Centre x, centre y and stride (cells,3) float32 of every cell for an input of height × width pixels.

    Both are multiples of 32. Integers are pixel centres: the first cell spans [−½, 7½] and is centred at 3½.
    """
    grids = []
    for stride in STRIDES:
        y, x = np.mgrid[: height // stride, : width // stride].reshape(2, -1)
        centre = (np.stack([x, y], axis=-1) + 0.5) * stride - 0.5
        grids.append(np.column_stack([centre, np.full(len(centre), stride)]))
    return np.concatenate(grids).astype(np.float32)


def decode(offsets: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Boxes (...,4) xyxy, pixels of the network's input, of offsets (...,4) relative to cells `at` (...,3).

    Offsets are dx, dy in cells and the logarithms of width and height over the prior's: the inverse of
    `networks.face_net.encode`.
    """
    stride = at[..., 2:]
    centre = at[..., :2] + offsets[..., :2] * stride
    half = np.exp(offsets[..., 2:].clip(-3, 3)) * (PRIOR / 2 * stride)
    return np.concatenate([centre - half, centre + half], axis=-1)


class Detector:
    """Finds faces in pictures of any size, see `faces.FaceDetector`. Any number of threads may call it.

    `runner` runs the network that `config` describes.
    """

    def __init__(self, config: DetectorConfig, runner: Runnable) -> None:
        self.config, self.runner = config, runner

    @property
    def description(self) -> str:
        """What runs, for people."""
        return f"fkp, on {self.runner.description}"

    def __call__(self, image: np.ndarray, *, min_score: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Tight boxes (n,4) xyxy, pixels of the image, and their scores (n,), 0..1, best first; both float32.

        `image` is (H,W,3) uint8 RGB; `min_score` is the least score kept, `config.min_score` by default.
        """
        at_least = self.config.min_score if min_score is None else min_score
        voting = VOTE_SCORE * at_least
        coarse, *others = scales(image.shape[0], image.shape[1], self.config)
        found = [self._at_scale(image, coarse, voting, least=COARSEST)]
        # What is larger, the pass before sees whole, and better.
        found += [self._at_scale(image, scale, voting, LARGEST) for scale in others]
        boxes, scores = (np.concatenate(some) for some in zip(*found, strict=True))
        best = geometry.suppress(boxes, scores, self.config.max_iou)
        best = best[scores[best] >= at_least]
        faces = best[~parts_of_faces(boxes[best])]
        return corrected(voted(boxes, scores, faces), self.config.bias), scores[faces]

    def _at_scale(
        self, image: np.ndarray, scale: float, min_score: float, most: float = math.inf, least: float = 0.0
    ) -> tuple[np.ndarray, np.ndarray]:
        """Boxes (n,4), pixels of the image, and scores (n,) of the image seen at a scale, many for each face.

        None is smaller than SMALLEST or `least` pixels of the network's input, or larger than `most`.
        """
        picture, scale_xy = fit(image, scale)
        logits, offsets = (output[0] for output in self.runner(picture[None]))
        if not (np.isfinite(logits).all() and np.isfinite(offsets).all()):
            raise RuntimeError("the face detector gives numbers that are not finite: get its weights anew")
        # Few cells see a face: the others' scores are not worked out.
        keep = np.flatnonzero(logits >= raw(min_score, self.config.calibration) - 1e-3)
        scores = calibrated(logits[keep], self.config.calibration)
        best = np.flatnonzero(scores >= min_score)
        if len(best) > MOST_BOXES:
            best = np.sort(best[np.argpartition(-scores[best], MOST_BOXES)[:MOST_BOXES]])
        keep, scores = keep[best], scores[best]
        boxes = decode(offsets[keep], _cells_once(*picture.shape[:2])[keep])
        side = geometry.longer_sides(boxes)
        fits = (side >= max(least, SMALLEST * max(1.0, scale))) & (side <= most)
        # Edges at −½: the inverse of how `fit` placed the picture.
        boxes = (boxes[fits] + np.float32(0.5)) / np.tile(scale_xy, 2).astype(np.float32) - np.float32(0.5)
        return boxes, scores[fits]


def calibrated(logits: np.ndarray, calibration: tuple[float, float]) -> np.ndarray:
    """Scores (...), 0..1, of logits (...), by the slope and the intercept of a calibration."""
    slope, intercept = calibration
    return 1 / (1 + np.exp(-(slope * logits + intercept).clip(-80, 80)))


def raw(score: float, calibration: tuple[float, float]) -> float:
    """The logit from which on a `calibrated` score is at least this; -inf where that cannot be told."""
    slope, intercept = calibration
    if not 0 < score < 1 or slope <= 0:
        return -math.inf
    return (math.log(score / (1 - score)) - intercept) / slope


def voted(boxes: np.ndarray, scores: np.ndarray, best: np.ndarray) -> np.ndarray:
    """The `best` (k,) of boxes (n,4), each as the mean of those that tell the same face, by scores (n,).

    Many cells see a face, and their boxes are off in different ways. Box voting: Gidaris and Komodakis,
    https://arxiv.org/abs/1505.01749.
    """
    means = np.empty((len(best), 4), np.float32)
    for row, index in enumerate(best):  # not all at once: there may be thousands, of tens of thousands
        says = geometry.iou(boxes[index], boxes)[0] >= VOTE_IOU
        says &= scores >= VOTE_SCORE * scores[index]
        weights = scores[says].clip(1e-9)
        means[row] = weights @ boxes[says] / weights.sum()
    return means


def box_errors(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How far boxes (n,4) are off the truth (n,4): (n,4).

    Right and down, in shares of the longer side of the box, and the logarithms of how much wider and higher.
    """
    (centre, size), (centre_of_truth, size_of_truth) = map(_centre_and_size, (boxes, truth))
    away = (centre - centre_of_truth) / size.max(axis=1, keepdims=True)
    return np.concatenate([away, np.log(size / size_of_truth)], axis=1)


def corrected(boxes: np.ndarray, bias: Sequence[float]) -> np.ndarray:
    """The boxes (n,4), whose `box_errors` are a bias (4,), without it."""
    centre, size = _centre_and_size(boxes)
    away, wider = np.split(np.array(bias, np.float32), 2)
    centre = centre - away * size.max(axis=1, keepdims=True)
    half = size * np.exp(-wider) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _centre_and_size(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]


def scales(height: int, width: int, config: DetectorConfig) -> list[float]:
    """The scales of the passes over a picture, the smallest first: two, or three for a big one."""
    longer, pixels = max(height, width), height * width
    first = min(max(longer, config.least_size), config.input_size) / longer
    passes = [config.coarse_size / longer, first]
    if longer > config.input_size:
        enlarged = min(config.enlargement, math.sqrt(config.enlarged_pixels / pixels))
        fine = max(enlarged, min(1.0, math.sqrt(config.fine_pixels / pixels)))
        if fine >= 1.15 * first:  # a little more is not worth the time
            passes.append(fine)
    return passes


def parts_of_faces(boxes: np.ndarray) -> np.ndarray:
    """Which boxes (n,4), best scored first, are a part of a face, or are made up around one: (n,) bool.

    A nostril or a pattern on a cheek may look like a face: of two boxes the lesser scored goes where the
    smaller, at most half as wide, has its middle within the ellipse inscribed in the larger. A face beside a
    cheek, in the corner of a box, stays.
    """
    centre, size = _centre_and_size(boxes)
    # [i, j]: whether i is a part of j
    within = np.square((centre[:, None] - centre) / (size / 2)).sum(-1) < 1
    part = within & (size[:, None].max(-1) <= size.max(-1) / 2)
    related, dropped = part | part.T, np.zeros(len(boxes), bool)
    for i in range(1, len(boxes)):
        dropped[i] = (related[i, :i] & ~dropped[:i]).any()
    return dropped


@lru_cache(64)
def _cells_once(height: int, width: int) -> np.ndarray:
    return cells(height, width)


def fit(image: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The image (H,W,3) scaled, and padded with grey to multiples of 32 on the right and at the bottom.

    Also the scale (2,) that was applied to x and y: whole pixels make it a little other than what was asked.
    """
    height, width = image.shape[:2]
    new_wh = max(1, round(width * scale)), max(1, round(height * scale))
    halvings = 0
    # Linear would leave pixels out. Halved first, none is, and it takes a fifth of the time of averages over
    # areas of any size. Of an odd number the last row and column go.
    while width >= 2 * new_wh[0] and height >= 2 * new_wh[1]:
        width, height, halvings = width // 2, height // 2, halvings + 1
        image = cv2.resize(image[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    if new_wh != (width, height):
        image = cv2.resize(image, new_wh, interpolation=cv2.INTER_LINEAR)
    step = STRIDES[-1]
    bottom, right = -new_wh[1] % step, -new_wh[0] % step
    if bottom or right:
        image = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(GREY,) * 3)
    return image, np.array(new_wh) / (np.array([width, height]) * 2**halvings)
