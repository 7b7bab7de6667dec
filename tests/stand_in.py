"""A stand-in for the model where tests are about what is done with faces, not about finding them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np

from fkp import Faces, scheme

TWO_FACES = ((40, 30, 120, 110), (130, 20, 150, 45))


class FacesInColour:
    """Finds one upright face for each of `boxes`, in pictures that are not black; no network runs."""

    metrics: dict = {}
    face_detector = None

    def __init__(self, *boxes: tuple[float, float, float, float]) -> None:
        self.boxes = np.array(boxes or [(40, 30, 120, 110)], np.float32)
        self.calls = 0
        self.weights = SimpleNamespace(folder=None)
        self.min_score: float | None = None
        self.keypoint_scores: np.ndarray | None = None
        """Those of its faces, where a test says so."""

    def with_options(self, **options: object) -> FacesInColour:
        return self

    def __call__(
        self, image: np.ndarray, *, max_faces: int | None = None, min_score: float | None = None
    ) -> Faces:
        self.calls += 1
        self.min_score = min_score
        return self.keypoints_at(image, self.boxes[:max_faces] if image.any() else self.boxes[:0])

    def detect(
        self, image: np.ndarray, *, min_score: float | None = None, max_faces: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        faces = self(image, max_faces=max_faces)
        return faces.boxes, faces.scores

    def keypoints_at(self, image: np.ndarray, boxes: np.ndarray) -> Faces:
        if len(boxes) == 0:
            return Faces.none()
        return Faces(
            boxes,
            np.linspace(0.9, 0.5, len(boxes)),
            np.stack([points_in(box) for box in boxes]),
            np.tile(np.linspace(0.2, 0.95, 68), (len(boxes), 1))
            if self.keypoint_scores is None
            else self.keypoint_scores[: len(boxes)],
        )

    def describe(self) -> list[str]:
        return ["weights from memory", "keypoints on nothing"]


def points_in(box: np.ndarray) -> np.ndarray:
    """Points (68,2) of the mean face, upright, that fill a box."""
    x1, y1, x2, y2 = box
    points = np.array(scheme.MEAN_FACE, np.float64)
    points = (points - points.min(axis=0)) / np.ptp(points, axis=0)
    return points * (x2 - x1, y2 - y1) + (x1, y1)
