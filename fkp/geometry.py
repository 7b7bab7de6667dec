"""Boxes, and the one transform that moves pixels and points together.

Integers are pixel centres, as in `cv2.warpAffine`; boxes are xyxy; points are xy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from fkp import scheme

LARGEST_SIDE = 32766
"""Pixels that `cv2.warpAffine` of OpenCV 4 takes at most."""


def tight_boxes(keypoints: np.ndarray) -> np.ndarray:
    """Smallest boxes (n,4) around keypoints (n,68,2): eyebrows to chin, jaw to jaw.

    Points without a label, NaN, are left out.
    """
    smallest, largest = np.fmin.reduce(keypoints, axis=-2), np.fmax.reduce(keypoints, axis=-2)
    return np.concatenate([smallest, largest], axis=-1)


def longer_sides(boxes: np.ndarray) -> np.ndarray:
    """Widths or heights (n,) of boxes (n,4), whichever is larger."""
    return (boxes[:, 2:] - boxes[:, :2]).max(axis=1)


def iou(boxes: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Intersection over union (n,m) of boxes (n,4) with others (m,4); 0 where either is empty."""
    boxes = np.asarray(boxes, np.float64).reshape(-1, 1, 4)
    others = np.asarray(others, np.float64).reshape(1, -1, 4)
    overlap = np.minimum(boxes[..., 2:], others[..., 2:]) - np.maximum(boxes[..., :2], others[..., :2])
    intersection = overlap.clip(0).prod(-1)
    areas = [(b[..., 2:] - b[..., :2]).clip(0).prod(-1) for b in (boxes, others)]
    union = areas[0] + areas[1] - intersection
    return np.divide(intersection, union, out=np.zeros_like(union), where=union > 0)


def suppress(boxes: np.ndarray, scores: np.ndarray, max_iou: float) -> np.ndarray:
    """Indices of boxes (n,4), best scored first, without those whose IoU with a better one is larger."""
    x_y_w_h = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    kept = cv2.dnn.NMSBoxes(x_y_w_h.tolist(), scores.tolist(), 0.0, max_iou)
    return np.asarray(kept, np.int64).reshape(-1)


def inter_ocular(keypoints: np.ndarray) -> np.ndarray:
    """Distance (...) between the outer eye corners of keypoints (...,68,2)."""
    right, left = scheme.RIGHT_EYE_OUTER_CORNER, scheme.LEFT_EYE_OUTER_CORNER
    apart = keypoints[..., right, :] - keypoints[..., left, :]
    return np.hypot(apart[..., 0], apart[..., 1])


def turned(image: np.ndarray, quarter_turns: int) -> np.ndarray:
    """The image (H,W,3) turned counter-clockwise by 1, 2 or 3 quarters: `np.rot90`, ten times as fast."""
    how = {1: cv2.ROTATE_90_COUNTERCLOCKWISE, 2: cv2.ROTATE_180, 3: cv2.ROTATE_90_CLOCKWISE}
    return cv2.rotate(image, how[quarter_turns])


def turned_back(boxes: np.ndarray, quarter_turns: int, shape_hw: tuple[int, ...]) -> np.ndarray:
    """Boxes (n,4) of a picture of this shape, from those in it when it is `turned` by so many quarters."""
    height, width = shape_hw[:2]
    x1, y1, x2, y2 = boxes.T
    sides = [
        (x1, y1, x2, y2),
        (width - 1 - y2, x1, width - 1 - y1, x2),
        (width - 1 - x2, height - 1 - y2, width - 1 - x1, height - 1 - y1),
        (y1, height - 1 - x2, y2, height - 1 - x1),
    ]
    return np.stack(sides[quarter_turns % 4], axis=-1).astype(boxes.dtype)


def mirror(keypoints: np.ndarray, width: int) -> np.ndarray:
    """Keypoints (...,68,2) of the mirrored picture: x → (W−1)−x, left and right points swapped."""
    mirrored = np.asarray(keypoints)[..., list(scheme.FLIP), :].copy()
    mirrored[..., 0] = (width - 1) - mirrored[..., 0]
    return mirrored


@dataclass(frozen=True, eq=False)
class CropTransform:
    """An affine crop: moves an image's pixels and its points, and points back.

    `image_to_crop` is a 2×3 float64 matrix over pixel-centre coordinates, `size_wh` the crop's size.
    """

    image_to_crop: np.ndarray
    size_wh: tuple[int, int]

    @classmethod
    def around_box(
        cls,
        box: np.ndarray,
        crop_size: int,
        margin: float,
        *,
        angle: float = 0.0,
        scale: float = 1.0,
        shift_xy: tuple[float, float] = (0.0, 0.0),
        mirrored: bool = False,
    ) -> CropTransform:
        """Square crop of `crop_size` pixels around a box (4,), its longer side enlarged by `margin`.

        `angle` (degrees) turns the content counter-clockwise, `scale` enlarges it, `shift_xy` (fractions of
        the box's longer side) moves the crop's centre, `mirrored` flips the crop left to right.
        Raises ValueError for a box with no extent or with a coordinate that is not finite.
        """
        x1, y1, x2, y2 = (float(v) for v in box)
        side = max(x2 - x1, y2 - y1)
        if not (math.isfinite(x1 + y1 + x2 + y2) and x2 > x1 and y2 > y1):
            raise ValueError(f"box {[x1, y1, x2, y2]} is no xyxy box with a positive width and height")
        factor = scale * crop_size / (side * margin)
        cos, sin = factor * math.cos(math.radians(angle)), factor * math.sin(math.radians(angle))
        x, y = (x1 + x2) / 2 + shift_xy[0] * side, (y1 + y2) / 2 + shift_xy[1] * side
        # The crop spans [-0.5, crop_size - 0.5], so its middle is half a pixel short of crop_size / 2.
        middle, sign = (crop_size - 1) / 2, -1 if mirrored else 1
        a, b, c, d = sign * cos, sign * sin, -sin, cos
        matrix = np.array([[a, b, middle - (a * x + b * y)], [c, d, middle - (c * x + d * y)]])
        return cls(matrix, (crop_size, crop_size))

    @cached_property
    def crop_to_image(self) -> np.ndarray:
        """The inverse 2×3 matrix."""
        (a, b, x), (c, d, y) = self.image_to_crop.tolist()
        return np.array([[d, -b, b * y - d * x], [-c, a, c * x - a * y]]) / self.area

    @property
    def area(self) -> float:
        """Pixels of the crop for one of the image; below 0 where left and right change sides."""
        (a, b, _), (c, d, _) = self.image_to_crop.tolist()
        return a * d - b * c

    def rounded(self) -> CropTransform:
        """Nearly the same square crop, not mirrored: its scale is rounded to 0.5 %, its angle to a quarter
        degree, and its place to a quarter of its pixels; then it is made one that can be sampled exactly.

        One pixel in 10000 that is one level brighter moves the points of a network in 8-bit integers by up
        to a quarter of a pixel. Rounded, the crop of a face is the same to the last pixel on every machine
        and in a browser, though their boxes differ in the last bit, and though each samples in an order of
        operations of its own: what lies at multiples of 1/128 of a pixel float32 knows without rounding.
        """
        (a, b, _), middle = self.image_to_crop[0].tolist(), (self.size_wh[0] - 1) / 2
        octave = math.log2(math.hypot(a, b))
        factor, angle = 2 ** (round(128 * octave) / 128), round(4 * math.degrees(math.atan2(b, a))) / 4
        pixel = 2.0 ** -math.floor(octave)  # of the crop, in the image; up to twice as large
        x, y = (
            round((row[0] * middle + row[1] * middle + row[2]) / pixel * 4) / 4 * pixel
            for row in self.crop_to_image.tolist()
        )
        step = max(pixel, 1) / 128
        cos, sin = (round(turn(math.radians(angle)) / factor / step) * step for turn in (math.cos, math.sin))
        left, top = (round(at / step) * step for at in (x - (cos - sin) * middle, y - (cos + sin) * middle))
        to_image = CropTransform(np.array([[cos, -sin, left], [sin, cos, top]]), self.size_wh)
        return CropTransform(to_image.crop_to_image, self.size_wh)

    @property
    def mirrors(self) -> bool:
        """Whether left and right change sides."""
        return self.area < 0

    def crop(self, image: np.ndarray) -> np.ndarray:
        """The crop (h,w,C) of an image (H,W,C); black beyond the picture's edge."""
        matrix = self.image_to_crop
        # By a power of two, which leaves numbers exact that are (see `rounded`).
        shrink = 2 ** max(0, math.floor(-math.log2(abs(self.area)) / 2))
        if shrink >= 2 or max(image.shape[:2]) > LARGEST_SIDE:
            # Bilinear sampling alone would skip pixels: average them first, over the part that is needed.
            image, left, top = self._reduce(image, shrink)
            rows = [(a * shrink, b * shrink, a * left + b * top + c) for a, b, c in matrix.tolist()]
            matrix = np.array(rows)
        return cv2.warpAffine(image, matrix, self.size_wh, flags=cv2.INTER_LINEAR)

    def _reduce(self, image: np.ndarray, factor: int) -> tuple[np.ndarray, float, float]:
        """The needed part of the image shrunk by a whole factor, and where its first pixel lies in it."""
        (w, h), spans = self.size_wh, []
        # In plain numbers, which for one crop take a tenth of NumPy's time.
        for (a, b, c), size in zip(self.crop_to_image.tolist(), image.shape[1::-1], strict=True):
            low, high = c + min(-a, a * w) + min(-b, b * h), c + max(-a, a * w) + max(-b, b * h)
            first, end = math.floor(low) - factor, math.ceil(high) + 1 + factor
            spans.append((min(max(first, 0), size), min(max(end, 0), size)))
        (left, right), (top, bottom) = spans
        # A whole number of cells, the edge repeated, so that every cell has the same scale.
        part = image[top : bottom + (top - bottom) % factor, left : right + (left - right) % factor]
        missing = (-part.shape[0] % factor, -part.shape[1] % factor)
        if 0 in part.shape[:2]:
            reduced = np.zeros((1, 1, *image.shape[2:]), image.dtype)
        else:
            if any(missing):
                part = cv2.copyMakeBorder(part, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
            size_wh = (part.shape[1] // factor, part.shape[0] // factor)
            reduced = cv2.resize(part, size_wh, interpolation=cv2.INTER_AREA)
        middle = (factor - 1) / 2
        return reduced, left + middle, top + middle

    def to_crop(self, points: np.ndarray) -> np.ndarray:
        """Points (...,2) of the image in pixels of the crop; same dtype kind, no index is swapped."""
        return _apply(self.image_to_crop, points)

    def to_image(self, points: np.ndarray) -> np.ndarray:
        """Points (...,2) of the crop in pixels of the image; same dtype kind, no index is swapped."""
        return _apply(self.crop_to_image, points)

    def keypoints_to_crop(self, keypoints: np.ndarray) -> np.ndarray:
        """Like `to_crop` for whole sets (...,68,2): a mirroring crop swaps left and right points."""
        moved = self.to_crop(keypoints)
        return moved[..., list(scheme.FLIP), :] if self.mirrors else moved

    def keypoints_to_image(self, keypoints: np.ndarray) -> np.ndarray:
        """The inverse of `keypoints_to_crop`."""
        moved = self.to_image(keypoints)
        return moved[..., list(scheme.FLIP), :] if self.mirrors else moved


def upright(keypoints: np.ndarray, crop_size: int, margin: float) -> CropTransform | None:
    """The crop in which a face with keypoints (68,2), pixels of the image, is upright and framed by them.

    Upright is where the mean face's vertical points under the affine map that brings the mean face nearest to
    the points: in profile the line between the eyes says nothing, brows and chin do. None where the keypoints
    are no face: all on a line.
    """
    from_mean = np.linalg.lstsq(_MEAN_FACE, keypoints.astype(np.float64), rcond=None)[0]
    right, down = from_mean[1]  # where the mean face's downwards goes
    angle = math.atan2(-right, down)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]])
    try:
        box = tight_boxes(keypoints @ turn.T)
        framed = CropTransform.around_box(box, crop_size, margin).image_to_crop
    except ValueError:
        return None
    matrix = np.column_stack([framed[:, :2] @ turn, framed[:, 2]])
    return CropTransform(matrix, (crop_size, crop_size))


_MEAN_FACE = np.column_stack([np.array(scheme.MEAN_FACE, np.float64), np.ones(scheme.COUNT)])


def _apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    points = np.asarray(points)
    moved = points.astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]
    return moved.astype(points.dtype if np.issubdtype(points.dtype, np.floating) else np.float64)
