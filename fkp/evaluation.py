"""A model over a labelled dataset: with the true boxes, or with those that the detector finds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

from fkp import geometry, metrics, scheme
from fkp.data import FacialKeypointsDataset
from fkp.pipeline import FaceKeypoints

BOXES = ("truth", "detected")


def predict(
    model: FaceKeypoints,
    faces: FacialKeypointsDataset,
    boxes: str = "truth",
    chosen: Sequence[int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints (n,68,2) and their scores (n,68) for the chosen faces (all by default), in their order.

    `boxes` is `truth` for the tight boxes of the labels or `detected`; a face that no detected box matches
    (see `metrics.assign`) is missed: NaN throughout.
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
        pairs = [(i, i) for i in range(len(places))]
        if boxes == "detected":
            pairs = match(truth, found.boxes, found.scores)
        for labelled, detected in pairs:
            keypoints[places[labelled]] = found.keypoints[detected]
            scores[places[labelled]] = found.keypoint_scores[detected]
    return keypoints, scores


def match(truth: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> list[tuple[int, int]]:
    """Pairs (labelled, found) of true boxes (n,4) and found ones (m,4); see `metrics.assign`."""
    own = metrics.assign(geometry.iou(boxes, truth), scores)
    return [(int(own[i]), int(i)) for i in np.flatnonzero(own >= 0)]


def summarise(keypoints: np.ndarray, truth: np.ndarray) -> metrics.Summary:
    """The figures of predicted keypoints (n,68,2), NaN where missed, against the labelled ones."""
    corners = [scheme.RIGHT_EYE_OUTER_CORNER, scheme.LEFT_EYE_OUTER_CORNER]
    eyes = np.isfinite(truth[:, corners]).all(axis=(1, 2))
    errors, inner = (metrics.nme(keypoints[eyes], truth[eyes], points) for points in (None, scheme.INNER))
    return metrics.summary(errors, inner, metrics.nme_box(keypoints, truth))
