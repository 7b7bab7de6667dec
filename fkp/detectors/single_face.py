"""Pictures that are one face, such as crops that another program has made: no search, only its tight box."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from fkp import geometry

PART = 0.7
"""The first pass is at the middle of the picture, at this part of its width and height.

NME of the second pass, which the first one frames, on 268 photos of LFPW's training part, cut at a margin
times their tight box; uncut, at true boxes, it is 3.51 (`git show f2d03e4:benchmarks/choices.py`):

| margin | part 1 | part 0.8 | part 0.7 | part 0.6 |
|--:|--:|--:|--:|--:|
| 1 | 3.83 | 3.83 | 3.87 | 5.74 |
| 1.2 | 3.63 | 3.61 | 3.61 | 3.55 |
| 1.6 | 3.81 | 3.54 | 3.53 | 3.51 |
| 2 | 5.31 | 3.74 | 3.58 | 3.53 |
| 2.5 | 16.85 | 4.86 | 3.85 | 3.66 |

Cut at a margin times the box from hairline to chin, as other detectors have it, 0.7 gives 3.68 to 3.55 up to
a margin of 1.4, 3.60 at 1.6 and 4.00 at 2.
"""


class PlacesKeypoints(Protocol):
    """What `pipeline.FaceKeypoints.keypoints_at` does."""

    def keypoints_at(self, image: np.ndarray, boxes: np.ndarray) -> Any: ...


class SingleFace:
    """A `faces.FaceDetector` that finds one face, of score 1, in every picture."""

    description = "a first pass of the keypoint network: every picture is one face"

    def __init__(self, model: PlacesKeypoints) -> None:
        self.model = model

    def __call__(self, image: np.ndarray, *, min_score: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """One tight box (1,4) xyxy, pixels of the image (H,W,3) uint8 RGB, and its score (1,); both float32.

        It is the box of the keypoints that a first pass finds.
        """
        size = np.array(image.shape[1::-1])
        middle, half = (size - 1) / 2, size * PART / 2
        first = np.concatenate([middle - half, middle + half]).astype(np.float32)[None]
        boxes = geometry.tight_boxes(self.model.keypoints_at(image, first).keypoints)
        flat = not (boxes[0, 2:] > boxes[0, :2]).all()  # keypoints of no face
        return first if flat else boxes, np.ones(1, np.float32)
