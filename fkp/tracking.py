"""Faces followed from frame to frame: stable numbers, few runs of the detector, smoothed points.

The last keypoints of a face give the box for its next ones, so that the detector is needed only now and then:
for faces that are new, where points have become unsure, and after a change of scene.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cv2
import numpy as np

from fkp import geometry, images, smoothing
from fkp.faces import Faces, check_limits

if TYPE_CHECKING:
    from fkp.pipeline import FaceKeypoints

DETECT_EVERY = 10
"""Frames from one run of the detector to the next while all is well."""
EMPTY_EVERY = 3
"""The same while there is no face, once it was not lost just now."""
REMEMBER = 1.0
"""Seconds after which a lost face that comes back is a new one, and a frame that follows is a new scene."""
LEAST_IOU = 0.3
"""Overlap from which on a detected box and a followed one are the same face."""
SAME_PLACE = 0.5
"""Overlap above which two followed faces are one face, followed twice."""
HOLD = 0.98
"""A crop stays where it is while the face overlaps its box by more: points are calmer in a crop at rest."""
LEAST_SCORE = 0.2
"""Mean keypoint score below which a box holds no face, whatever the detector says. It was at most 0.16 in
boxes beside a face or without one, at least 0.41 for 450 faces of 300-W and YouTube Faces, and above 0.34 for
95 % of faces shrunk to 12 pixels."""
FALL = 0.7
"""Share of a face's usual score below which the detector has to run. A box that is off by a quarter of the
face costs a tenth of the score, one off by half of it half the score."""
SAME_SCENE = 0.7
"""Likeness of two frames from which on they are one scene; 0.69 was the most that frames of two clips had."""
SAME_FACE = 0.7
"""Likeness of two pictures of a face from which on they show one; 3 % of the pairs of two people reach it."""


@dataclass(frozen=True, eq=False)
class TrackedFaces(Faces):
    """The faces of one frame, lowest number first; `boxes` are tight around `keypoints`.

    `ids` (n,) int64 are their numbers: from 1 on, a face keeps its own, and no other face ever gets it.
    `scores` are those that the detector gave when it last saw the face.
    """

    ids: np.ndarray = None  # type: ignore[assignment]  # becomes an array below

    def __post_init__(self) -> None:
        super().__post_init__()
        ids = np.asarray([] if self.ids is None else self.ids, dtype=np.int64)
        if ids.shape != (len(self),):
            raise ValueError(f"ids has shape {ids.shape}, {(len(self),)} is needed for {len(self)} boxes")
        object.__setattr__(self, "ids", ids)


def match(boxes: np.ndarray, others: np.ndarray, least_iou: float = LEAST_IOU) -> list[tuple[int, int]]:
    """Pairs (box, other) of boxes (n,4) and (m,4): greedily the best IoU first, each box once."""
    overlaps = geometry.iou(boxes, others)
    pairs = []
    while overlaps.size and overlaps.max() >= least_iou:
        one, other = np.unravel_index(overlaps.argmax(), overlaps.shape)
        pairs.append((int(one), int(other)))
        overlaps[one, :] = overlaps[:, other] = -1
    return pairs


def likeness(picture: np.ndarray, other: np.ndarray) -> float:
    """How like two small grey pictures (h,w) are, -1..1, whatever their brightness and contrast.

    The structure term of SSIM (Wang et al., 2004) over the whole; noise of a few grey levels counts little.
    """
    one, two = (np.asarray(p, np.float64) - np.mean(p) for p in (picture, other))
    spread = np.sqrt((one**2).mean() * (two**2).mean())
    return float(((one * two).mean() + 25) / (spread + 25))


@dataclass(eq=False)
class _Track:
    """What is known of one face."""

    box: np.ndarray
    """(4,) where its next crop is taken."""
    score: float
    """The detector's."""
    number: int = 0
    """0 until it is certain to be a face of its own."""
    time: float = 0.0
    """When it was last there."""
    usual: float | None = None
    """Running mean of its mean keypoint scores."""
    elsewhere: bool = False
    """Whether the scene has changed since."""
    patch: np.ndarray = field(default_factory=lambda: np.zeros((24, 24)))
    """Small grey picture of it."""
    smoother: smoothing.Smoother = field(default_factory=smoothing.Smoother)

    def fell(self, score: float) -> bool:
        """Whether its mean keypoint score says that the detector should run."""
        return self.usual is not None and score < FALL * self.usual

    def go_on(self, time: float, box: np.ndarray, score: float, patch: np.ndarray) -> None:
        """It was there, in this tight box, with this mean keypoint score."""
        self.time, self.patch = time, patch
        self.usual = score if self.usual is None else 0.9 * self.usual + 0.1 * score
        if geometry.iou(self.box, box)[0, 0] < HOLD:
            self.box = box


class Tracker:
    """Follows the faces of one clip, or of one camera; wants every frame in its turn.

    All state is here and none in the model: each viewer has a tracker of their own, and all share a model.
    Only one thread may use a tracker at a time. `frames` counts the frames so far, and `detector_runs` those
    of them that the detector was run on.
    """

    def __init__(
        self,
        model: FaceKeypoints,
        *,
        min_score: float | None = None,
        max_faces: int | None = None,
        smoothing: bool = True,
        detect_every: int = DETECT_EVERY,
    ) -> None:
        """`min_score` is the least confidence of a new face (0..1, by default the detector's own),
        `max_faces` how many are followed at a time: those that are there already, then the largest.
        Raises ValueError where they are none of these."""
        check_limits(min_score, max_faces)
        self.model, self.min_score, self.max_faces = model, min_score, max_faces
        self.smoothing, self.detect_every = smoothing, detect_every
        self.frames = self.detector_runs = 0
        self._tracks: list[_Track] = []
        self._lost: list[_Track] = []
        self._numbers = 0
        self._time = -np.inf
        self._since_detection = 0
        self._shape: tuple[int, ...] = ()
        self._overview = np.zeros((24, 32))

    def __call__(self, image: images.ImageLike, time: float) -> TrackedFaces:
        """The faces of the next frame, a picture as a model takes it, at `time` seconds.

        Raises ValueError where time does not go on, and what the model raises.
        """
        if not time > self._time:
            raise ValueError(f"a frame at {time} s comes after one at {self._time} s")
        image = images.read(image)
        anew = self._is_new_scene(image, time)
        if anew:
            self._lost, self._tracks = self._lost + self._tracks, []
            for track in self._lost:
                track.elsewhere = True
        since = min(time - REMEMBER, self._time)  # however long the pause, the last frame counts
        self._lost = [track for track in self._lost if track.time >= since]
        self._time = time
        self.frames += 1
        self._since_detection += 1
        detected = anew or self._is_due()
        if detected:
            self._detect(image)
        faces = self._place(image)
        fallen = [t for t, score in zip(self._tracks, _means(faces), strict=True) if t.fell(score)]
        if fallen and not detected:
            self._detect(image, fallen)
            faces = self._place(image)
        return self._settle(image, faces)

    def _is_new_scene(self, image: np.ndarray, time: float) -> bool:
        """Whether this frame may show something else than the one before it."""
        step = max(1, min(image.shape[:2]) // 96)  # so few pixels say enough
        small = cv2.resize(image[::step, ::step], (32, 24), interpolation=cv2.INTER_AREA)
        before, self._overview = self._overview, _grey(small)
        before_shape, self._shape = self._shape, image.shape
        if self._shape != before_shape:
            self._tracks = []  # their boxes mean nothing any more
            return True
        return time - self._time > REMEMBER or likeness(before, self._overview) < SAME_SCENE

    def _is_due(self) -> bool:
        every = self.detect_every if self._tracks else 1 if self._lost else EMPTY_EVERY
        return self._since_detection >= every

    def _detect(self, image: np.ndarray, doubted: Sequence[_Track] = ()) -> None:
        """Run the detector, for new faces and for those followed; a doubted one takes its box."""
        self.detector_runs += 1
        self._since_detection = 0
        boxes, scores = self.model.detect(image, min_score=self.min_score)
        known = {found: self._tracks[i] for i, found in match(_boxes(self._tracks), boxes)}
        for i, track in known.items():
            track.score = float(scores[i])
            if track in doubted:
                track.box = boxes[i]
        new = [_Track(boxes[i], float(scores[i])) for i in range(len(boxes)) if i not in known]
        if self.max_faces is not None:
            new = new[: 2 * max(0, self.max_faces - len(self._tracks))]  # twice, for some may be no faces
        self._tracks += new

    def _place(self, image: np.ndarray) -> Faces:
        return self.model.keypoints_at(image, _boxes(self._tracks))

    def _settle(self, image: np.ndarray, faces: Faces) -> TrackedFaces:
        """Which of the faces placed are there, and whose they are; and all that the next frame needs."""
        boxes, scores = geometry.tight_boxes(faces.keypoints), _means(faces)
        overlaps = np.diagonal(geometry.iou(_boxes(self._tracks), boxes))
        # Of two that ended up on one face, the new one is too many; of two old ones, the one that came far.
        old = [i for i in range(len(faces)) if self._tracks[i].number]
        new = [i for i in range(len(faces)) if not self._tracks[i].number]  # the largest first
        kept: list[int] = []
        for i in sorted(old, key=lambda i: -overlaps[i]) + new:
            is_face = scores[i] >= LEAST_SCORE and bool((boxes[i, 2:] > boxes[i, :2]).all())
            if is_face and not (geometry.iou(boxes[i], boxes[kept]) > SAME_PLACE).any():
                kept.append(i)
        kept = kept[: self.max_faces]
        self._lost += [self._tracks[i] for i in old if i not in kept]
        for i in kept:
            track, patch = self._tracks[i], _patch(image, boxes[i])
            track.number = track.number or self._number(boxes[i], patch)
            track.go_on(self._time, boxes[i], scores[i], patch)
        kept.sort(key=lambda i: self._tracks[i].number)
        self._tracks = [self._tracks[i] for i in kept]
        return self._tracked(faces[kept])

    def _number(self, box: np.ndarray, patch: np.ndarray) -> int:
        """That of a face lost there, which has to look the same in a new scene; or one never given."""
        for i, _ in match(_boxes(self._lost), box)[:1]:
            lost = self._lost[i]
            if not lost.elsewhere or likeness(lost.patch, patch) >= SAME_FACE:
                return self._lost.pop(i).number
        self._numbers += 1
        return self._numbers

    def _tracked(self, faces: Faces) -> TrackedFaces:
        """The faces of the tracks with their numbers, the keypoints calmed if so wished."""
        keypoints = faces.keypoints.copy()
        if self.smoothing:
            for i, track in enumerate(self._tracks):
                keypoints[i] = track.smoother(keypoints[i], self._time)
        return TrackedFaces(
            geometry.tight_boxes(keypoints),
            np.array([track.score for track in self._tracks]),
            keypoints,
            faces.keypoint_scores,
            faces.sigmas,
            faces.visibility,
            np.array([track.number for track in self._tracks], np.int64),
        )


def _boxes(tracks: Sequence[_Track]) -> np.ndarray:
    return np.array([track.box for track in tracks], np.float32).reshape(-1, 4)


def _means(faces: Faces) -> np.ndarray:
    """Mean keypoint scores (n,)."""
    return faces.keypoint_scores.mean(axis=1)


def _patch(image: np.ndarray, box: np.ndarray) -> np.ndarray:
    """A small grey picture (24,24) of what is in a box (4,)."""
    return _grey(geometry.CropTransform.around_box(box, 24, 1.0).crop(image))


def _grey(image: np.ndarray) -> np.ndarray:
    return image @ np.array([0.299, 0.587, 0.114])
