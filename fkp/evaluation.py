"""A model over a labelled dataset: with the true boxes, or with those that the detector finds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from fkp import geometry, metrics, scheme
from fkp.data import FacialKeypointsDataset
from fkp.pipeline import FaceKeypoints

BOXES = ("truth", "detected")
LEAST_IOU = 0.5
"""A detected box is a labelled face's when they overlap at least this much."""


def predict(
    model: FaceKeypoints,
    faces: FacialKeypointsDataset,
    boxes: str = "truth",
    chosen: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (n,68,2) and their scores (n,68) for the chosen faces (all by default), in their order.

    `boxes` is `truth` for the tight boxes of the labels or `detected`; a face that no detected box matches
    (IoU ≥ 0.5, each box used once, best overlap first) is missed: NaN throughout.
    """
    if boxes not in BOXES:
        raise ValueError(f"boxes {boxes!r} are none of {', '.join(BOXES)}")
    chosen = range(len(faces)) if chosen is None else chosen
    keypoints = np.full((len(chosen), scheme.COUNT, 2), np.nan, np.float32)
    scores = np.full((len(chosen), scheme.COUNT), np.nan, np.float32)
    in_picture: dict[object, list[int]] = {}
    for place, index in enumerate(chosen):
        in_picture.setdefault(faces.paths[index], []).append(place)
    # disable=None: a bar on a terminal only.
    for places in tqdm(in_picture.values(), f"{boxes} boxes", unit="picture", leave=False, disable=None):
        indices = [chosen[place] for place in places]
        image = faces[indices[0]]["image"]
        truth = geometry.tight_boxes(faces.keypoints[indices])
        found = model.keypoints_at(image, truth) if boxes == "truth" else model(image)
        pairs = [(i, i) for i in range(len(places))] if boxes == "truth" else match(truth, found.boxes)
        for labelled, detected in pairs:
            keypoints[places[labelled]] = found.keypoints[detected]
            scores[places[labelled]] = found.keypoint_scores[detected]
    return keypoints, scores


def detect(model: FaceKeypoints, image: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """The boxes (n,4) that the model's detector finds for the faces in true boxes (n,4); NaN where missed."""
    boxes = np.full((len(truth), 4), np.nan, np.float32)
    found, _ = model.face_detector(image)
    for labelled, detected in match(truth, found):
        boxes[labelled] = found[detected]
    return boxes


def place_at(
    model: FaceKeypoints, image: np.ndarray, boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Keypoints (n,68,2), scores (n,68) and sigmas (n,68) of the faces in boxes (n,4), NaN where a box is."""
    keypoints = np.full((len(boxes), scheme.COUNT, 2), np.nan, np.float32)
    scores, sigmas = np.full((2, len(boxes), scheme.COUNT), np.nan, np.float32)
    known = ~np.isnan(boxes).any(axis=1)
    found = model.keypoints_at(image, boxes[known])
    keypoints[known], scores[known], sigmas[known] = found.keypoints, found.keypoint_scores, found.sigmas
    return keypoints, scores, sigmas


def match(truth: np.ndarray, found: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (labelled, found) of boxes (n,4) and (m,4): greedily the best IoU first, each box once."""
    overlaps = geometry.iou(truth, found)
    pairs = []
    while overlaps.size and overlaps.max() >= LEAST_IOU:
        labelled, detected = np.unravel_index(overlaps.argmax(), overlaps.shape)
        pairs.append((int(labelled), int(detected)))
        overlaps[labelled, :] = overlaps[:, detected] = -1
    return pairs


def summarise(keypoints: np.ndarray, truth: np.ndarray) -> metrics.Summary:
    """The figures of predicted keypoints (n,68,2), NaN where missed, against the labelled ones."""
    return metrics.summary(metrics.nme(keypoints, truth), metrics.nme(keypoints, truth, scheme.INNER))
