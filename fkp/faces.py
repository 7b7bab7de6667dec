"""`Faces`, what comes out of a picture, and `FaceDetector`, what finds them in it."""

from __future__ import annotations

import base64
import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Protocol, Self

import cv2
import numpy as np

from fkp import images, measures
from fkp.geometry import CropTransform

UNSURE = 0.5
"""Mean keypoint score of a face below which its points are a guess, and get another pass where `passes`
allows it."""


_SHAPES: dict[str, tuple[int, ...]] = {
    "boxes": (4,), "scores": (), "keypoints": (68, 2), "keypoint_scores": (68,), "sigmas": (68,),
    "visibility": (68,),
}  # fmt: skip
"""Of each array of `Faces`, for one face."""


@dataclass(frozen=True, eq=False)
class Faces:
    """The faces of one picture, n of them; n may be 0. Coordinates are pixels of the input image.

    `boxes` (n,4) xyxy float32 · `scores` (n,) float32, 0..1 · `keypoints` (n,68,2) xy float32 ·
    `keypoint_scores` (n,68) float32, 0..1 · `sigmas` (n,68) float32, the expected error of each point in
    pixels · `visibility` (n,68) float32, the probability, 0..1, that a point can be seen: neither turned away
    nor covered. Sigmas and visibility are NaN where they are not known.
    Raises ValueError when the shapes do not fit together.
    """

    boxes: np.ndarray
    scores: np.ndarray
    keypoints: np.ndarray
    keypoint_scores: np.ndarray
    sigmas: np.ndarray = None  # type: ignore[assignment]  # become arrays below
    visibility: np.ndarray = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        n, own = len(self.boxes), self.__dict__
        for name, shape in _SHAPES.items():
            array = np.full((n, 68), np.nan) if own[name] is None else own[name]
            own[name] = array = np.asarray(array, dtype=np.float32)
            if array.shape != (n, *shape):
                raise ValueError(f"{name} has shape {array.shape}, {(n, *shape)} is needed for {n} boxes")

    @classmethod
    def none(cls) -> Self:
        """No face."""
        return cls(np.empty((0, 4)), np.empty(0), np.empty((0, 68, 2)), np.empty((0, 68)))

    def __len__(self) -> int:
        return len(self.boxes)

    def __eq__(self, other: object) -> bool:
        """Whether all numbers are the same, those that are not known too."""
        if not isinstance(other, Faces) or type(other) is not type(self):
            return NotImplemented
        pairs = ((getattr(self, field.name), getattr(other, field.name)) for field in fields(self))
        return all(np.array_equal(one, two, equal_nan=True) for one, two in pairs)

    def __hash__(self) -> int:
        return hash((type(self), len(self)))

    def __getitem__(self, index: Any) -> Self:
        """A subset by anything that indexes an array's first axis; `faces[0]` holds one face."""
        index = [index] if isinstance(index, (int, np.integer)) else index
        some = type(self)(*(getattr(self, field.name)[index] for field in fields(self)))
        object.__setattr__(some, "_picture", self._picture)
        return some

    def __iter__(self) -> Iterator[Self]:
        return (self[i] for i in range(len(self)))

    @property
    def guesses(self) -> np.ndarray:
        """(n,) bool: faces whose points are a guess, for they score less than `UNSURE` on average."""
        return self.keypoint_scores.mean(axis=1) < UNSURE

    @property
    def pose(self) -> measures.Pose:
        """Yaw, pitch and roll of every head in degrees, with their uncertainty: `measures.pose`."""
        return measures.pose(self.keypoints, self.sigmas)

    @property
    def eye_openness(self) -> np.ndarray:
        """(n,2) float32: how far the right and the left eye are open, `measures.eye_openness`."""
        return measures.eye_openness(self.keypoints)

    @property
    def mouth_openness(self) -> np.ndarray:
        """(n,) float32: how far the mouth is open, `measures.mouth_openness`."""
        return measures.mouth_openness(self.keypoints)

    _picture: ClassVar[Any] = staticmethod(lambda: None)

    def seen_in(self, picture: Any) -> Self:
        """The same faces, which a notebook shows on this picture: a path, a PIL image or an array.

        They do not keep it alive, and a copy in another process knows of none.
        """
        seen = object.__new__(type(self))
        seen.__dict__.update(self.__dict__)
        is_path = isinstance(picture, str | os.PathLike)
        object.__setattr__(seen, "_picture", (lambda: picture) if is_path else weakref.ref(picture))
        return seen

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_picture"}

    def _repr_html_(self) -> str:
        """For notebooks: crops of the first `SHOWN` faces with their points, on grey without the picture."""
        picture = self._picture()
        try:
            image = None if picture is None else images.read(picture)
        except images.ImageError:  # its file has gone
            image = None
        crops = [_as_svg(face, image) for face in self[:SHOWN]]
        more = len(self) - len(crops)
        count = f"{len(self) or 'no'} face{'' if len(self) == 1 else 's'}"
        return f"<div>{''.join(crops)}</div><div>{count}{f', {more} not shown' if more else ''}</div>"

    def aligned(self, image: images.ImageLike, size: int = 112) -> np.ndarray:
        """(n,size,size,3) uint8: every face of the image upright and of one size, `measures.aligned`."""
        return measures.aligned(images.read(image), self.keypoints, size)


def check_limits(min_score: Any, max_faces: Any) -> None:
    """Raises ValueError with a sentence where these are not what `FaceKeypoints.__call__` takes."""
    if max_faces is not None and not (isinstance(max_faces, int | np.integer) and max_faces >= 0):
        raise ValueError(f"max_faces is {max_faces!r}, where a whole number from 0 is needed")
    if min_score is not None and not (isinstance(min_score, int | float | np.number) and 0 <= min_score <= 1):
        raise ValueError(f"min_score is {min_score!r}, where a number from 0 to 1 is needed")


SHOWN, SHOWN_SIZE = 12, 160
"""Faces that a notebook shows, and pixels of a side of each."""


def _as_svg(face: Faces, image: np.ndarray | None) -> str:
    """A face as SVG: its crop, and its points, the fainter the less sure."""
    size = SHOWN_SIZE
    transform = CropTransform.around_box(face.boxes[0], size, 1.5)
    points = transform.to_crop(face.keypoints[0])
    parts = [f'<rect width="{size}" height="{size}" fill="#888"/>']
    if image is not None:
        jpeg = cv2.imencode(".jpg", cv2.cvtColor(transform.crop(image), cv2.COLOR_RGB2BGR))[1].tobytes()
        data = base64.b64encode(jpeg).decode()
        parts.append(f'<image width="{size}" height="{size}" href="data:image/jpeg;base64,{data}"/>')
    for (x, y), score in zip(points, face.keypoint_scores[0], strict=True):
        # Integers are pixel centres here, and pixels' edges there.
        place = f'cx="{x + 0.5:.1f}" cy="{y + 0.5:.1f}" r="1.7"'
        parts.append(f'<circle {place} fill="#fd4" stroke="#000" stroke-width=".6" opacity="{score:.2f}"/>')
    title = f"score {face.scores[0]:.2f}, of its points {face.keypoint_scores[0].mean():.2f}"
    head = f'<svg width="{size}" height="{size}" style="margin:2px"><title>{title}</title>'
    return head + "".join(parts) + "</svg>"


class FaceDetector(Protocol):
    """What finds faces: an image (H,W,3) uint8 RGB → boxes (n,4) xyxy, pixels of the image, and scores (n,).

    A box is the tight box of the 68 keypoints, a score 0..1; `min_score` is the least score kept, None the
    detector's own choice. n may be 0, any order is good, and a box may reach beyond the picture. A
    `description`, if it has one, says in `FaceKeypoints.describe` what it is.
    """

    def __call__(
        self, image: np.ndarray, *, min_score: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]: ...
