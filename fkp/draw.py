"""Keypoints drawn on a copy of a picture; strokes scale with each face."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from fkp import images, scheme
from fkp.faces import UNSURE, Faces

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

MESH = (147, 147, 147, 153)
"""RGBA of the mesh, its colour multiplied by alpha: fainter than what it joins."""

UNSURE_POINT = 0.3
"""Score of a point below which it is drawn hollow; in a face that is a guess, `faces.UNSURE`."""
HIDDEN = 0.5
"""Visibility of a point below which it is drawn hollow."""
FAINT = 0.45
"""Alpha of contours that lead to a hollow point."""

FIRST_NUMBERED = (8, 30, 36, 45, 48, 54, 0, 16, 17, 26, 39, 42, 27, 33, 21, 22, 51, 57, 4, 12, 62, 66)
"""Where not all numbers have room, these come first: chin, tip of the nose, corners of eyes and mouth, …"""


@dataclass(frozen=True)
class Style:
    """What is drawn of a face.

    `points` are dots, `contours` lines in the colour of their group (`COLOURS`), `mesh` the faint lines of
    `scheme.MESH`; `numbers` are the points' indices 0..67, as many as have room without overlapping; `boxes`
    come with the face's score in percent, `face_numbers` count the faces from 1. `confidence` colours dots
    and numbers by `keypoint_scores` instead (`CONFIDENCE_COLOURS`). `point_size` multiplies the radius of the
    dots. Points that are unsure or cannot be seen (`hollow_points`) are rings instead of dots, and the
    contours that lead to them are faint.
    """

    points: bool = True
    contours: bool = True
    mesh: bool = False
    numbers: bool = False
    boxes: bool = False
    face_numbers: bool = False
    confidence: bool = False
    point_size: float = 1.0


def draw(image: images.ImageLike, faces: Faces, style: Style | None = None, **changes: Any) -> np.ndarray:
    """A copy (H,W,3) uint8 RGB of a picture, given as a model takes it, with its faces drawn on it.

    `changes` are fields of `style`, as in `draw(image, faces, numbers=True)`. No face gives an equal copy.
    Raises images.ImageError, a ValueError, for what is no picture.
    """
    picture = images.read(image).copy()
    for sheet in _sheets(picture.shape[:2], faces, replace(style or Style(), **changes)):
        sheet.lay_on(picture)
    return picture


def overlay(
    shape_hw: tuple[int, int], faces: Faces, style: Style | None = None, **changes: Any
) -> np.ndarray:
    """What `draw` would add to a picture of that size, on nothing: (H,W,4) uint8 RGBA, not premultiplied."""
    canvas = np.zeros((*shape_hw, 4), np.uint8)
    for sheet in _sheets(shape_hw, faces, replace(style or Style(), **changes)):
        sheet.lay_on(canvas)
    touched = canvas[..., 3] > 0
    strokes = canvas[touched].astype(np.uint16)
    alpha = strokes[:, 3:]
    strokes[:, :3] = (strokes[:, :3] * 255 + alpha // 2) // alpha
    canvas[touched] = strokes.clip(0, 255)
    return canvas


def hollow_points(faces: Faces) -> np.ndarray:
    """(n,68) bool: points that are unsure (`UNSURE_POINT`) or that cannot be seen (`HIDDEN`)."""
    least = np.where(faces.guesses, UNSURE, UNSURE_POINT)[:, None]
    return (faces.keypoint_scores < least) | (faces.visibility < HIDDEN)


def _sheets(shape_hw: tuple[int, int], faces: Faces, style: Style) -> Iterator[_Sheet]:
    all_hollow = hollow_points(faces)
    for i in range(len(faces)):
        keypoints, hollow = faces.keypoints[i], all_hollow[i]
        colours = by_confidence(faces.keypoint_scores[i]) if style.confidence else _BY_GROUP
        sheet = _Sheet(shape_hw, keypoints, faces.boxes[i], style.point_size)
        if style.mesh:
            sheet.mesh(keypoints)
        if style.boxes:
            sheet.box(faces.boxes[i], f"{100 * faces.scores[i]:.0f}%")
        if style.face_numbers:
            sheet.face_number(i + 1, faces.boxes[i])
        if style.contours:
            sheet.contours(keypoints, [NEUTRAL] * scheme.COUNT if style.confidence else _BY_GROUP, hollow)
        if style.points:
            sheet.dots(keypoints, colours, hollow)
        if style.numbers:
            sheet.numbers(keypoints, colours)
        yield sheet


_MEMBERS = [scheme.GROUPS[scheme.group_of(point)] for point in range(scheme.COUNT)]
_BY_GROUP: list[Colour] = [COLOURS[scheme.group_of(point)] for point in range(scheme.COUNT)]


def by_confidence(keypoint_scores: np.ndarray) -> list[Colour]:
    """The colours (68) of points with these scores, between `CONFIDENCE_COLOURS`."""
    stops = np.linspace(0, 1, len(CONFIDENCE_COLOURS))
    channels = [np.interp(keypoint_scores, stops, levels) for levels in zip(*CONFIDENCE_COLOURS, strict=True)]
    return [(int(r), int(g), int(b)) for r, g, b in np.stack(channels, axis=1).round()]


_SHIFT = 4
"""Fractional bits of the coordinates given to cv2."""

_AROUND = [(angle, distance) for distance in (1.0, 1.6) for angle in (0, 40, -40, 80, -80)]
"""Where a number may stand: degrees off the outward direction, and distance from the dot in heights."""


class _Sheet:
    """A transparent sheet over the part of a picture that shows one face, finer than the picture's pixels.

    It is averaged down when it is laid on the picture, so that strokes on a small face can be a fraction of
    a pixel wide. It holds RGBA, the colours multiplied by alpha: cv2's smooth edges then come out right.
    """

    def __init__(
        self, shape_hw: tuple[int, int], keypoints: np.ndarray, box: np.ndarray, point_size: float = 1.0
    ) -> None:
        face_size = float(np.ptp(keypoints, axis=0).max())
        # Photos are viewed about 500 to 1000 pixels wide: thinner strokes would vanish, unless the face is
        # so small that they would hide it.
        self.stroke = max(face_size / 180, min(max(shape_hw) / 500, face_size / 90), 0.5)
        self.dot_radius = 1.75 * point_size * self.stroke
        # Likewise: digits that can be read on a screen, unless they would leave room for a few only.
        self.number_height = max(face_size / 54, min(max(shape_hw) / 105, face_size / 14), 6.0)
        self.label_height = max(face_size / 22, 9.0)
        corners = np.concatenate([keypoints, box.reshape(2, 2)])
        room = 2 * max(1.4 * self.label_height, self.dot_radius + self.number_height) + 1
        size_wh = np.array(shape_hw[::-1])
        # At least one pixel, even for a face beyond the picture's edge.
        self.start_xy = np.clip(np.floor(corners.min(axis=0) - room), 0, size_wh - 1).astype(int)
        self.stop_xy = np.clip(np.ceil(corners.max(axis=0) + room), self.start_xy + 1, size_wh).astype(int)
        self.detail = int(np.clip(1000 / max(face_size, 1), 1, 8))
        width, height = (self.stop_xy - self.start_xy) * self.detail
        self.pixels = np.zeros((height, width, 4), np.uint8)

    def mesh(self, keypoints: np.ndarray) -> None:
        on_sheet = self._fixed_point(keypoints)
        width = max(1, round(0.45 * self.stroke * self.detail))
        # One call for all of them, so that they do not add up where they meet.
        lines = [on_sheet[list(pair)] for pair in scheme.MESH]
        cv2.polylines(self.pixels, lines, False, MESH, width, cv2.LINE_AA, _SHIFT)

    def contours(self, keypoints: np.ndarray, colours: list[Colour], hollow: np.ndarray) -> None:
        on_sheet = self._fixed_point(keypoints)
        for a, b in scheme.EDGES:
            if hollow[a] or hollow[b]:
                self._line(on_sheet[[a, b]], False, colours[a], False, FAINT)
        for rim in (True, False):
            for name, members in scheme.GROUPS.items():
                if not hollow[list(members)].any():
                    self._line(on_sheet[list(members)], name in scheme.CLOSED, colours[members[0]], rim)
            for a, b in scheme.EDGES:
                if not (hollow[a] or hollow[b]) and hollow[list(_MEMBERS[a])].any():
                    self._line(on_sheet[[a, b]], False, colours[a], rim)

    def box(self, box: np.ndarray, label: str) -> None:
        x1, y1, x2, y2 = box.tolist()
        corners = self._fixed_point(np.array([(x1, y1), (x2, y1), (x2, y2), (x1, y2)]))
        for rim in (True, False):
            self._line(corners, True, NEUTRAL, rim)
        height = self.label_height
        above = y1 - height if y1 > 1.6 * height else y1 + height
        self._write([label], np.array([(x1 + 1.6 * height, above)]), [NEUTRAL], height)

    def face_number(self, number: int, box: np.ndarray) -> None:
        x1, y1, x2, _ = box.tolist()
        height = 1.4 * self.label_height
        self._write([str(number)], np.array([((x1 + x2) / 2, max(y1 - height, height))]), [NEUTRAL], height)

    def dots(self, keypoints: np.ndarray, colours: list[Colour], hollow: np.ndarray) -> None:
        for rim in (True, False):
            radius = (self.dot_radius + (0.65 * self.stroke if rim else 0)) * self.detail * 2**_SHIFT
            ring = max(1, round((1.1 if rim else 0.5) * self.stroke * self.detail))
            dots = zip(self._fixed_point(keypoints).tolist(), colours, hollow.tolist(), strict=True)
            for centre, colour, is_hollow in dots:
                rgba = RIM if rim else (*colour, 255)
                if is_hollow:
                    size = round(self.dot_radius * self.detail * 2**_SHIFT)
                    cv2.circle(self.pixels, centre, size, rgba, ring, cv2.LINE_AA, _SHIFT)
                else:
                    cv2.circle(self.pixels, centre, round(radius), rgba, -1, cv2.LINE_AA, _SHIFT)

    def numbers(self, keypoints: np.ndarray, colours: list[Colour]) -> None:
        places = self.number_places(keypoints)
        if places:
            points = list(places)
            texts, chosen = [str(point) for point in points], [colours[point] for point in points]
            self._write(texts, np.stack([places[point] for point in points]), chosen, self.number_height)

    def number_places(self, keypoints: np.ndarray) -> dict[int, np.ndarray]:
        """The middle (2,) of each point's number; points whose number finds no room are left out.

        Beside the point, away from the middle of its group or else a little to a side of that, and where
        no other number stands.
        """
        height = self.number_height
        directions = outward(keypoints)
        places: dict[int, np.ndarray] = {}
        taken = np.empty((0, 4))
        for point in (*FIRST_NUMBERED, *(i for i in range(scheme.COUNT) if i not in FIRST_NUMBERED)):
            # A digit is about 0.8 times as wide as tall; the rim adds to all sides.
            half = np.array([0.4 * len(str(point)) + 0.3, 0.5 + 0.3]) * height
            for angle, distance in _AROUND:
                cos, sin = np.cos(np.radians(angle)), np.sin(np.radians(angle))
                direction = np.array([[cos, -sin], [sin, cos]]) @ directions[point]
                centre = keypoints[point] + direction * (self.dot_radius + distance * height)
                box = np.concatenate([centre - half, centre + half])
                apart = (taken[:, 2:] <= box[:2]) | (box[2:] <= taken[:, :2])
                if apart.any(axis=1).all():
                    places[point], taken = centre, np.vstack([taken, box])
                    break
        return places

    def lay_on(self, picture: np.ndarray) -> None:
        """Average the sheet down to the picture's pixels and lay it on the picture, in place.

        The picture is RGB, or RGBA with its colours multiplied by alpha.
        """
        (left, top), (right, bottom) = self.start_xy, self.stop_xy
        sheet = cv2.resize(self.pixels, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
        touched = sheet[..., 3] > 0
        part, channels = picture[top:bottom, left:right], picture.shape[2]
        above, below = sheet[touched].astype(np.uint16), part[touched].astype(np.uint16)
        part[touched] = (above[:, :channels] + (below * (255 - above[:, 3:]) + 127) // 255).clip(0, 255)

    def _fixed_point(self, points: np.ndarray) -> np.ndarray:
        """Points (n,2) of the picture in pixels of the sheet, as whole numbers of 1/2**_SHIFT pixel."""
        on_sheet = (points.astype(np.float64) - self.start_xy + 0.5) * self.detail - 0.5
        return np.round(on_sheet * 2**_SHIFT).astype(np.int32)

    def _line(self, line: np.ndarray, closed: bool, colour: Colour, rim: bool, alpha: float = 1.0) -> None:
        width = max(1, round((2.2 if rim else 0.9) * self.stroke * self.detail))
        rgba = RIM if rim else tuple(round(alpha * level) for level in (*colour, 255))
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


def outward(keypoints: np.ndarray) -> np.ndarray:
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
