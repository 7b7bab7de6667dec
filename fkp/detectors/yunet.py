"""OpenCV's face detector YuNet, for those who prefer it to fkp's own: its file, and how its boxes are read.

YuNet (Wu, Peng and Yu, https://doi.org/10.1007/s11633-023-1423-y; its weights are under the MIT licence) runs
in `cv2.FaceDetectorYN` of OpenCV 4.10 and newer. Neither OpenCV nor fkp brings its file.
"""

from __future__ import annotations

import contextlib
import os
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import cv2
import numpy as np

from fkp.hub.errors import WeightsError

if TYPE_CHECKING:
    from fkp.hub import download

VARIABLE = "FKP_YUNET"
"""The environment variable that may name YuNet's file."""

REPOSITORY, FILE = "opencv/face_detection_yunet", "face_detection_yunet_2023mar.onnx"
"""The file on the Hub."""

COMMIT = "3cc26e7f1014a5ee5d74a42acee58bafc9d0a310"
"""Where the file is that of the OpenCV Zoo: 232589 bytes, whose SHA-256 begins with 8f2383e4dd3cfbb4."""

LONGER_SIDES = (1280, 320)
"""A picture is searched twice, its longer side scaled down to each of these unless it is shorter anyway.

At `MIN_SCORE` one pass finds 42 % of the faces that are 16 pixels wide in what YuNet is given, 87 % at 24,
99 % at 32 to 400, 61 % at 500 and 4 % at 640 (see `BOX_SIZE`). Without the second pass, a face that fills the
picture would be lost, and without the first those of a group.
"""

MIN_SCORE = 0.8
"""Boxes below it are dropped, unless a call says otherwise; see `BOX_SIZE`.

All 918 faces have 0.8 or more, 99.9 % have 0.85 and 98 % 0.9. On 92 photos without a face 1 box has 0.5."""

MAX_IOU = 0.3
"""Of two of YuNet's boxes that overlap more than this, the lower scored is dropped."""

BOX_SHIFT = 0.126
"""How far below the middle of YuNet's box the tight box's middle lies, in heights of YuNet's box."""

BOX_SIZE = (1.035, 0.760)
"""The tight box's width and height, in those of YuNet's box: for that one begins at the hairline.

These are medians over 918 labelled faces, training parts only, on which the IoU comes to 0.873. The program
that made them and the figures above: `git show f2d03e4:benchmarks/choices.py`.
"""

STEP, LEAST_SIDE = 32, 64
"""Pictures are padded to multiples of one, and to at least the other: where YuNet's coarsest grid has but one
row, OpenCV 4.10 and 4.12 read memory that nobody has written, and find faces of any size there."""


def find(**hub_options: Unpack[download.Options]) -> Path:
    """YuNet's file: the one that `FKP_YUNET` names, or the Hub's at `COMMIT`, which the local cache keeps.

    `hub_options` are `download.Options`. Raises `WeightsError` when the Hub's cannot be had.
    """
    if named := os.environ.get(VARIABLE):
        return Path(named)
    from fkp.hub import download  # huggingface_hub takes half a second to import

    try:
        return download.fetch_file(REPOSITORY, FILE, COMMIT, **hub_options)
    except WeightsError as error:
        raise WeightsError(
            f"YuNet's file cannot be had: {error}; get {FILE} and let {VARIABLE} name it"
        ) from error


class YuNet:
    """The face detector of a YuNet file, see `faces.FaceDetector`. Any number of threads may call it.

    Raises `WeightsError` with one sentence where the file cannot be read or is no YuNet.
    """

    def __init__(self, file: str | Path) -> None:
        self.file = file = Path(file)
        if not hasattr(cv2, "FaceDetectorYN"):
            raise WeightsError(
                f"the OpenCV {cv2.__version__} here has no FaceDetectorYN, which runs YuNet: "
                "run 'pip install -U opencv-python-headless'"
            )
        try:
            self._content = np.frombuffer(file.read_bytes(), np.uint8)
        except OSError as error:
            raise WeightsError(f"YuNet's file {file} cannot be read: {error.strerror}") from error
        if self._content[:8].tobytes() == b"version ":
            raise WeightsError(
                f"{file} only says where Git LFS keeps YuNet's file: download the file itself, of 233 kB"
            )
        # OpenCV's detector remembers a picture's size between two calls, so each call has one to itself.
        self._idle: deque[Any] = deque()
        try:
            self(np.zeros((LEAST_SIDE, LEAST_SIDE, 3), np.uint8))
        except cv2.error as error:
            reason = getattr(error, "err", str(error)).strip().splitlines()[0].rstrip(".")
            raise WeightsError(
                f"{file} is no YuNet that OpenCV {cv2.__version__} can run ({reason})"
            ) from error

    @property
    def description(self) -> str:
        """What runs, for people."""
        return f"YuNet ({self.file}), OpenCV {cv2.__version__}"

    def __call__(self, image: np.ndarray, *, min_score: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Tight boxes (n,4) xyxy, pixels of the image, and their scores (n,), 0..1, best first; both float32.

        `image` is (H,W,3) uint8 RGB; `min_score` is the least score kept, `MIN_SCORE` by default.
        """
        boxes, scores = self.own_boxes(image, MIN_SCORE if min_score is None else min_score)
        return tight(boxes).astype(np.float32), scores.astype(np.float32)

    def own_boxes(self, image: np.ndarray, min_score: float) -> tuple[np.ndarray, np.ndarray]:
        """YuNet's boxes (n,4), xyxy, pixels of the image, as they are, and scores (n,), best first."""
        longest = max(image.shape[:2])
        scales = [self._detect(image, side, min_score) for side in {min(longest, s) for s in LONGER_SIDES}]
        rows = np.concatenate(scales)
        left_top_size = np.concatenate([rows[:, :2], rows[:, 2:4] - rows[:, :2]], axis=1)
        best = cv2.dnn.NMSBoxes(left_top_size.tolist(), rows[:, 4].tolist(), 0.0, MAX_IOU)
        rows = rows[np.asarray(best, int).reshape(-1)]
        return rows[:, :4], rows[:, 4]

    def _detect(self, image: np.ndarray, longer_side: int, min_score: float) -> np.ndarray:
        """Boxes, xyxy, pixels of the image, and scores (n,5) at one size of the picture."""
        picture, scale_xy = _fit(image, longer_side)
        with self._one() as one:
            one.setInputSize(picture.shape[1::-1])
            one.setScoreThreshold(min_score)
            _, rows = one.detect(picture)
        if rows is None:
            return np.empty((0, 5))
        left_top, size, scores = rows[:, :2].astype(np.float64), rows[:, 2:4], rows[:, 14:]
        # Edges at −½: the inverse of how `_fit` placed the picture.
        corners = (np.concatenate([left_top, left_top + size], axis=1) + 0.5) / np.tile(scale_xy, 2) - 0.5
        return np.concatenate([corners, scores], axis=1)

    @contextlib.contextmanager
    def _one(self) -> Iterator[Any]:
        """One of OpenCV's detectors that nobody else is using."""
        try:
            one = self._idle.pop()
        except IndexError:
            one = self._new()
        yield one
        self._idle.append(one)

    def _new(self) -> Any:
        # On stderr OpenCV 5 would warn that it knows no targets, OpenCV 4 tell at length why a file is none.
        log = getattr(cv2.utils, "logging", cv2)  # there in OpenCV 5, here in 4
        level = log.setLogLevel(0)
        try:
            size_wh, none = (LEAST_SIDE, LEAST_SIDE), np.empty(0, np.uint8)
            return cv2.FaceDetectorYN.create("onnx", self._content, none, size_wh, MIN_SCORE, MAX_IOU)
        finally:
            log.setLogLevel(level)

    def __getstate__(self) -> dict[str, Any]:
        """For copies and other processes, which make OpenCV's detectors anew."""
        return self.__dict__ | {"_idle": deque()}


def tight(boxes: np.ndarray) -> np.ndarray:
    """Tight boxes (n,4) of the 68 keypoints from YuNet's boxes (n,4), which begin at the hairline; xyxy."""
    size = boxes[:, 2:] - boxes[:, :2]
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2 + size * (0, BOX_SHIFT)
    half = size * BOX_SIZE / 2
    return np.concatenate([middle - half, middle + half], axis=1)


def _fit(image: np.ndarray, longer_side: int) -> tuple[np.ndarray, np.ndarray]:
    """The image (H,W,3) RGB as YuNet takes it: BGR, scaled, padded right and bottom; and its scale (2,)."""
    height, width = image.shape[:2]
    factor = longer_side / max(height, width)
    size_wh = max(1, round(width * factor)), max(1, round(height * factor))
    if size_wh != (width, height):
        image = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    right, bottom = (max(LEAST_SIDE - side, -side % STEP) for side in size_wh)
    picture = cv2.copyMakeBorder(image[..., ::-1], 0, bottom, 0, right, cv2.BORDER_CONSTANT)
    return picture, np.array([size_wh[0] / width, size_wh[1] / height])
