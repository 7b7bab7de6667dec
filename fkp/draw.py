"""Keypoints drawn on a copy of a picture; strokes scale with each face."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fkp import scheme

if TYPE_CHECKING:
    from fkp.pipeline import Faces

Colour = tuple[int, int, int]

COLOURS: dict[str, Colour] = {
    "jaw": (80, 180, 255),
    "right_eyebrow": (255, 235, 90),
    "left_eyebrow": (250, 155, 40),
    "nose_bridge": (35, 195, 110),
    "nose_tip": (205, 250, 190),
    "right_eye": (140, 248, 255),
    "left_eye": (186, 168, 255),
    "outer_lips": (250, 95, 170),
    "inner_lips": (255, 212, 232),
}
"""RGB of each group: light, to stand out from the dark rim on any skin, and neighbours apart in lightness or
along blue and yellow, so that they differ in colour-blind eyes as well."""

CONFIDENCE_COLOURS: tuple[Colour, ...] = ((235, 60, 30), (255, 205, 60), (120, 225, 255))
"""RGB for a confidence of 0, ½ and 1, blended between: vermilion, yellow and sky blue."""

NEUTRAL: Colour = (245, 245, 245)
"""RGB of boxes, and of the contours under dots that are coloured by confidence."""

RIM = (0, 0, 0, 165)
"""RGBA of the dark rim around every stroke."""


def draw(
    image: np.ndarray,
    faces: Faces,
    *,
    points: bool = True,
    contours: bool = True,
    numbers: bool = False,
    boxes: bool = False,
    confidence: bool = False,
) -> np.ndarray:
    """A copy of an image (H,W,3) uint8 RGB with its faces drawn on it; the input stays as it is.

    `points` are dots and `contours` lines, in the colour of their group (`COLOURS`); `numbers` are the
    points' indices 0..67; `boxes` come with the face's score in percent. `confidence` colours dots and
    numbers by `keypoint_scores` instead (`CONFIDENCE_COLOURS`). No face gives an equal copy.
    Raises ValueError for an image of another shape or type.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image has shape {image.shape} and type {image.dtype}, (H,W,3) uint8 is needed")
    picture = image.copy()
    for i in range(len(faces)):
        keypoints = faces.keypoints[i]
        colours = _by_confidence(faces.keypoint_scores[i]) if confidence else _BY_GROUP
        sheet = _Sheet(picture.shape[:2], keypoints, faces.boxes[i])
        if boxes:
            sheet.box(faces.boxes[i], f"{100 * faces.scores[i]:.0f}%")
        if contours:
            sheet.contours(keypoints, [NEUTRAL] * scheme.COUNT if confidence else _BY_GROUP)
        if points:
            sheet.dots(keypoints, colours)
        if numbers:
            sheet.numbers(keypoints, colours)
        sheet.lay_on(picture)
    return picture


_BY_GROUP: list[Colour] = [COLOURS[scheme.group_of(point)] for point in range(scheme.COUNT)]


def _by_confidence(keypoint_scores: np.ndarray) -> list[Colour]:
    stops = np.linspace(0, 1, len(CONFIDENCE_COLOURS))
    channels = [np.interp(keypoint_scores, stops, levels) for levels in zip(*CONFIDENCE_COLOURS, strict=True)]
    return [(int(r), int(g), int(b)) for r, g, b in np.stack(channels, axis=1).round()]


_SHIFT = 4
"""Fractional bits of the coordinates given to cv2."""


class _Sheet:
    """A transparent sheet over the part of a picture that shows one face, finer than the picture's pixels.

    It is averaged down when it is laid on the picture, so that strokes on a small face can be a fraction of
    a pixel wide. It holds RGBA, the colours multiplied by alpha: cv2's smooth edges then come out right.
    """

    def __init__(self, shape_hw: tuple[int, int], keypoints: np.ndarray, box: np.ndarray) -> None:
        face_size = float(np.ptp(keypoints, axis=0).max())
        # Photos are looked at about 500 to 1000 pixels wide: thinner strokes would vanish, unless the face is
        # so small that they would hide it.
        self.stroke = max(face_size / 180, min(max(shape_hw) / 500, face_size / 90), 0.5)
        self.number_height = max(face_size / 54, 4.6)
        self.label_height = max(face_size / 22, 9.0)
        corners = np.concatenate([keypoints, box.reshape(2, 2)])
        room, size_wh = 2 * self.label_height + 1, np.array(shape_hw[::-1])
        # At least one pixel, even for a face beyond the picture's edge.
        self.start_xy = np.clip(np.floor(corners.min(axis=0) - room), 0, size_wh - 1).astype(int)
        self.stop_xy = np.clip(np.ceil(corners.max(axis=0) + room), self.start_xy + 1, size_wh).astype(int)
        self.detail = int(np.clip(1000 / max(face_size, 1), 1, 8))
        width, height = (self.stop_xy - self.start_xy) * self.detail
        self.pixels = np.zeros((height, width, 4), np.uint8)

    def contours(self, keypoints: np.ndarray, colours: list[Colour]) -> None:
        on_sheet = self._fixed_point(keypoints)
        for rim in (True, False):
            for name, members in scheme.GROUPS.items():
                line, closed = on_sheet[list(members)], name in scheme.CLOSED
                self._line(line, closed, colours[members[0]], rim)

    def box(self, box: np.ndarray, label: str) -> None:
        x1, y1, x2, y2 = box.tolist()
        corners = self._fixed_point(np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)]))
        for rim in (True, False):
            self._line(corners, True, NEUTRAL, rim)
        height = self.label_height
        above = y1 - height if y1 > 1.6 * height else y1 + height
        self._write([label], np.array([(x1 + 1.6 * height, above)]), [NEUTRAL], height)

    def dots(self, keypoints: np.ndarray, colours: list[Colour]) -> None:
        for rim in (True, False):
            radius = (2.4 if rim else 1.75) * self.stroke * self.detail * 2**_SHIFT
            for centre, colour in zip(self._fixed_point(keypoints).tolist(), colours, strict=True):
                rgba = RIM if rim else (*colour, 255)
                cv2.circle(self.pixels, centre, round(radius), rgba, -1, cv2.LINE_AA, _SHIFT)

    def numbers(self, keypoints: np.ndarray, colours: list[Colour]) -> None:
        centres = keypoints + _outward(keypoints) * (1.75 * self.stroke + 1.0 * self.number_height)
        self._write([str(point) for point in range(scheme.COUNT)], centres, colours, self.number_height)

    def lay_on(self, picture: np.ndarray) -> None:
        """Average the sheet down to the picture's pixels and lay it on the picture, in place."""
        (left, top), (right, bottom) = self.start_xy, self.stop_xy
        sheet = cv2.resize(self.pixels, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
        touched = sheet[..., 3] > 0
        part = picture[top:bottom, left:right]
        above, below = sheet[touched].astype(np.uint16), part[touched].astype(np.uint16)
        part[touched] = (above[:, :3] + (below * (255 - above[:, 3:]) + 127) // 255).clip(0, 255)

    def _fixed_point(self, points: np.ndarray) -> np.ndarray:
        """Points (n,2) of the picture in pixels of the sheet, as whole numbers of 1/2**_SHIFT pixel."""
        on_sheet = (points.astype(np.float64) - self.start_xy + 0.5) * self.detail - 0.5
        return np.round(on_sheet * 2**_SHIFT).astype(np.int32)

    def _line(self, line: np.ndarray, closed: bool, colour: Colour, rim: bool) -> None:
        width = max(1, round((2.2 if rim else 0.9) * self.stroke * self.detail))
        rgba = RIM if rim else (*colour, 255)
        cv2.polylines(self.pixels, [line], closed, rgba, width, cv2.LINE_AA, _SHIFT)

    def _write(self, texts: list[str], centres: np.ndarray, colours: list[Colour], height: float) -> None:
        tall = height * self.detail
        # Pillow's own font: OpenCV 4 and 5 write the same text differently. A digit is 0.7 of its size tall.
        font = ImageFont.load_default(size=tall / 0.7)
        on_sheet = (self._fixed_point(centres) / 2**_SHIFT).tolist()
        paper = Image.fromarray(self.pixels)
        pen = ImageDraw.Draw(paper)
        for rim in (True, False):
            width = round(tall / (3.5 if rim else 30))
            for text, (x, y), colour in zip(texts, on_sheet, colours, strict=True):
                rgba = RIM if rim else (*colour, 255)
                pen.text((x, y), text, rgba, font, anchor="mm", stroke_width=width, stroke_fill=rgba)
        self.pixels = np.array(paper)


def _outward(keypoints: np.ndarray) -> np.ndarray:
    """Unit vectors (68,2) from each point to where its number is least in the way."""
    middle = {name: keypoints[list(members)].mean(axis=0) for name, members in scheme.GROUPS.items()}
    vectors = np.empty_like(keypoints)
    for name, members in scheme.GROUPS.items():
        anchor = middle["nose_bridge"] if name in ("jaw", "nose_tip") else middle[name]
        vectors[list(members)] = keypoints[list(members)] - anchor
    for side in ("right", "left"):
        vectors[list(scheme.GROUPS[f"{side}_eyebrow"])] = middle[f"{side}_eyebrow"] - middle[f"{side}_eye"]
    vectors[list(scheme.GROUPS["nose_bridge"])] = middle["right_eye"] - middle["left_eye"]
    vectors[[60, 64]] *= -1  # outside the inner mouth corners stand the outer ones
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True).clip(1e-6)
