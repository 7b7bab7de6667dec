"""Group pictures made of heads that the detector was not trained on, so that every face in them is known.

Heads of people and photos held out of training and of LFPW's test set are pasted, turned, small and large,
whole and cut by the edge, on photos without a face. Seeded: the same data gives the same pictures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path

import cv2
import numpy as np

from benchmarks.photo_sets import BEYOND_LABELS, NONE, Photo, faceless_photos, labelled_photos
from fkp import data, geometry, images, scheme

SEED = 20261122
SIDES = (16.0, 200.0)
"""Longer side of a face's tight box in a group picture, pixels; every octave is equally likely."""
COUNTS = (2, 40)
"""Faces in a group picture, likewise."""
TURN = 45.0
"""Faces are turned by up to so many degrees in the plane."""
CUT_SHARE, CUTS = 0.15, (0.05, 0.45)
"""How many faces the edge cuts, and which share of them."""
SIZES_WH = ((640, 480), (1280, 960), (1920, 1080))
BIG_WH, BIG_SIDE = (4000, 3000), 40.0
"""Size of a big picture, and of the faces in it."""
FULL = 0.45
"""Heads may cover about this share of a picture."""
ENLARGED = 1.25
"""A head is enlarged by no more than this; one face that fills a big picture has to be."""
TRIES = 60

_TURN = np.linspace(0, 2 * np.pi, 48, endpoint=False)
OUTLINE = (
    np.stack([0.72 * np.cos(_TURN), -0.2 + 0.93 * np.sin(_TURN)], axis=1),
    np.array([[-0.4, 0.3], [0.4, 0.3], [0.52, 0.88], [-0.52, 0.88]]),
)
"""Hair and face, and the neck: polygons around the middle of an upright tight box, in its longer sides."""


@dataclass(frozen=True)
class Head:
    """A face with the head around it: a photo and the face's keypoints (68,2) there."""

    path: Path
    keypoints: np.ndarray

    @property
    def roll(self) -> float:
        """By how many degrees the line through the outer eye corners falls to the right."""
        x, y = self.keypoints[scheme.LEFT_EYE_OUTER_CORNER] - self.keypoints[scheme.RIGHT_EYE_OUTER_CORNER]
        return math.degrees(math.atan2(y, x))

    @property
    def side(self) -> float:
        """Longer side of the tight box, pixels."""
        return longer_side(geometry.tight_boxes(self.keypoints))

    @property
    def outline(self) -> list[np.ndarray]:
        """The polygons (n,2) of OUTLINE around this face, pixels of its photo."""
        turn = rotation(self.roll)
        upright = geometry.tight_boxes(self.keypoints @ turn)
        middle = (upright[:2] + upright[2:]) / 2
        return [(polygon * longer_side(upright) + middle) @ turn.T for polygon in OUTLINE]


@dataclass(frozen=True)
class Pasted:
    """A head in a group picture: by which 2×3 matrix, and what is said of it in the tables."""

    head: Head
    to_picture: np.ndarray
    box: np.ndarray
    """The whole tight box (4,), in pixels of the picture, even where the edge cuts it."""
    side: float
    turn: float
    cut: float
    """The share of the box that lies beyond the edge."""


@dataclass(frozen=True)
class Collage(Photo):
    """A group picture; `pasted` says more of each of its `faces`."""

    pasted: list[Pasted] = field(default_factory=list)


@dataclass(frozen=True)
class Material:
    """What the pictures are made of."""

    heads: list[Head]
    backgrounds: list[Path]


def longer_side(box: np.ndarray) -> float:
    return float((box[2:] - box[:2]).max())


def rotation(degrees: float) -> np.ndarray:
    """The matrix (2,2) that turns points clockwise, as seen in a picture."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return np.array([[cos, -sin], [sin, cos]])


# --- Material -----------------------------------------------------------------------------------------------


def material(folder: Path) -> Material:
    """Held-out heads that are alone and whole in their photo, and held-out photos without a face.

    Raises ValueError where the data folder holds none.
    """
    known = data.FaceBoxes(folder)
    heads = []
    sources = [(source.csv, source.folder) for source in data.TRAINING_SOURCES]
    for csv, subfolder in (*sources, ("300w/lfpw_test.csv", "300w/lfpw_test")):
        faces = data.FacialKeypointsDataset(folder / csv, folder / subfolder)
        held_out = {photo.name for photo in labelled_photos(faces, subfolder, known) if photo.held_out}
        for name, path, keypoints in zip(faces.names, faces.paths, faces.keypoints, strict=True):
            image, head = f"{subfolder}/{name}", Head(path, keypoints.astype(np.float64))
            others = known.of(image, "labelled", *BEYOND_LABELS)
            if image in held_out and is_alone(head, others) and is_whole(head, images.size_wh(path)):
                heads.append(head)
    backgrounds = [
        folder / photo.name
        for photo in faceless_photos(folder, "no_faces")
        if photo.held_out and not len(known.of(photo.name, *BEYOND_LABELS))
    ]
    if not heads or not backgrounds:
        raise ValueError(f"{folder} has no held-out {'faces' if backgrounds else 'photos without a face'}")
    return Material(heads, backgrounds)


def is_alone(head: Head, boxes: np.ndarray) -> bool:
    """Whether none of the boxes (n,4), but the face's own, has its middle within the head's outline's box."""
    own = geometry.iou(boxes, geometry.tight_boxes(head.keypoints))[:, 0] > 0.3
    middles = (boxes[:, :2] + boxes[:, 2:]) / 2
    points = np.concatenate(head.outline)
    within = ((middles > points.min(0)) & (middles < points.max(0))).all(axis=1)
    return not (within & ~own).any()


def is_whole(head: Head, size_wh: tuple[int, int]) -> bool:
    """Whether the photo shows nearly all of the head."""
    points = np.concatenate(head.outline)
    return bool(((points >= 0) & (points < size_wh)).all(axis=1).mean() > 0.9)


# --- Where heads go -----------------------------------------------------------------------------------------


def place(head: Head, side: float, turn: float, corner: Sequence[float], size_wh: Sequence[int]) -> Pasted:
    """A head turned by so many degrees from upright, its tight box of this side with its top left there."""
    linear = rotation(turn - head.roll)
    x1, y1, x2, y2 = geometry.tight_boxes(head.keypoints @ linear.T)
    scale = side / max(x2 - x1, y2 - y1)
    offset = np.asarray(corner) - scale * np.array([x1, y1])
    box = np.array([*corner, *(np.asarray(corner) + scale * np.array([x2 - x1, y2 - y1]))])
    inside = np.minimum(box[2:], np.array(size_wh) - 0.5) - np.maximum(box[:2], -0.5)
    cut = 1 - inside.clip(0).prod() / (box[2:] - box[:2]).prod()
    return Pasted(head, np.column_stack([scale * linear, offset]), box, side, turn, float(cut))


def bounds(pasted: Pasted) -> np.ndarray:
    """The box (4,) around the whole outline in the picture."""
    points = geometry.CropTransform(pasted.to_picture, (0, 0)).to_crop(np.concatenate(pasted.head.outline))
    return np.concatenate([points.min(0), points.max(0)])


def layout(
    rng: np.random.Generator, heads: Sequence[Head], sides: np.ndarray, size_wh: tuple[int, int], turn: float
) -> list[Pasted]:
    """Heads of these sides (n,), largest first, none on another; fewer where no room is left."""
    placed: list[Pasted] = []
    taken = np.empty((0, 4))
    own_sides = np.array([head.side for head in heads])
    for side in sorted(sides.tolist(), reverse=True):
        fine = np.flatnonzero(own_sides * ENLARGED >= side)
        if not len(fine):
            continue
        head = heads[rng.choice(fine)]
        for _ in range(TRIES):
            angle = rng.uniform(-turn, turn)
            at_corner = place(head, side, angle, (0.0, 0.0), size_wh)
            size = at_corner.box[2:]
            corner = rng.uniform(0, 1, 2) * np.maximum(np.array(size_wh) - 1 - size, 0)
            if rng.random() < CUT_SHARE:
                axis, cut = int(rng.integers(2)), rng.uniform(*CUTS)
                beyond = -cut * size[axis], size_wh[axis] - 1 - (1 - cut) * size[axis]
                corner[axis] = beyond[rng.integers(2)]
            pasted = place(head, side, angle, corner.tolist(), size_wh)
            around = bounds(pasted)
            apart = (around[:2] >= taken[:, 2:]) | (around[2:] <= taken[:, :2])
            if apart.any(axis=1).all():
                placed.append(pasted)
                taken = np.concatenate([taken, around[None]])
                break
    return placed


def group_pictures(stuff: Material, count: int) -> list[Collage]:
    """`count` group pictures; each is made anew whenever it is read."""
    collages = []
    for index in range(count):
        rng = np.random.default_rng((SEED, index))
        n = int(math.exp(rng.uniform(math.log(COUNTS[0]), math.log(COUNTS[1] + 1))))
        sides = np.exp(rng.uniform(math.log(SIDES[0]), math.log(SIDES[1]), n))
        # An outline is about 1.5 × 2 sides.
        covered = 3 * (sides**2).sum()
        roomy = [size for size in SIZES_WH if covered <= FULL * size[0] * size[1]] or [SIZES_WH[-1]]
        size_wh = roomy[rng.integers(len(roomy))]
        collages.append(_collage(f"collage_{index:03d}", stuff, rng, sides, size_wh, TURN))
    return collages


def big_pictures(stuff: Material, count: int, faces: int = 12) -> list[Collage]:
    """`count` big pictures with small faces, nearly upright."""
    collages = []
    for index in range(count):
        rng = np.random.default_rng((SEED, 1, index))
        collages.append(_collage(f"big_{index:02d}", stuff, rng, np.full(faces, BIG_SIDE), BIG_WH, turn=15.0))
    return collages


def _collage(
    name: str, stuff: Material, rng: np.random.Generator, sides: np.ndarray,
    size_wh: tuple[int, int], turn: float,
) -> Collage:  # fmt: skip
    pasted = layout(rng, stuff.heads, sides, size_wh, turn)
    boxes = np.array([each.box for each in pasted]).reshape(-1, 4)
    seed = int(rng.integers(2**32))
    read = partial(paint, seed, stuff.backgrounds, pasted, size_wh)
    return Collage(name, read, boxes, NONE, True, pasted)


def filled_frames(stuff: Material, count: int, size_wh: tuple[int, int]) -> list[Collage]:
    """`count` pictures that one upright face fills from top to bottom, or nearly: photos, enlarged."""
    collages: list[Collage] = []
    rng = np.random.default_rng((SEED, 2))  # the same faces at every size
    for index in rng.permutation(len(stuff.heads)):
        head, share = stuff.heads[index], rng.uniform(0.75, 0.95)
        if len(collages) == count:
            break
        if head.side < 120 or abs(head.roll) > 15:
            continue
        side = share * min(size_wh)
        size = place(head, side, head.roll, (0.0, 0.0), size_wh).box[2:]
        pasted = place(head, side, head.roll, ((np.array(size_wh) - 1 - size) / 2).tolist(), size_wh)
        transform = geometry.CropTransform(pasted.to_picture, size_wh)
        width, height = size_wh
        corners = transform.to_image(np.array([[0.0, 0], [width, 0], [0, height], [width, height]]))
        photo_wh = images.size_wh(head.path)
        reach = 0.03 * max(photo_wh)
        if (corners > -reach).all() and (corners < np.array(photo_wh) + reach).all():
            name = f"{head.path.stem} at {width}x{height}"
            read = partial(enlarged, head.path, transform)
            collages.append(Collage(name, read, pasted.box[None], NONE, True, [pasted]))
    return collages


# --- Painting -----------------------------------------------------------------------------------------------


@lru_cache(128)
def _read(path: Path) -> np.ndarray:
    return images.read(path)


def enlarged(path: Path, transform: geometry.CropTransform) -> np.ndarray:
    """A part of a photo; the little beyond its edge repeats the edge."""
    return cv2.warpAffine(
        _read(path), transform.image_to_crop, transform.size_wh,
        flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE,
    )  # fmt: skip


def paint(
    seed: int, backgrounds: Sequence[Path], pasted: Sequence[Pasted], size_wh: tuple[int, int]
) -> np.ndarray:
    """The picture (H,W,3) uint8 RGB."""
    rng = np.random.default_rng(seed)
    picture = backdrop(rng, backgrounds, size_wh)
    for each in pasted:
        paste(rng, picture, each)
    return developed(rng, picture)


def backdrop(rng: np.random.Generator, photos: Sequence[Path], size_wh: tuple[int, int]) -> np.ndarray:
    """One photo that covers the picture, or several beside one another, which are enlarged less."""
    across = max(1, round(size_wh[0] / 900)) if rng.random() < 0.5 else 1
    columns, rows = (np.linspace(0, length, across + 1).round().astype(int) for length in size_wh)
    picture = np.empty((size_wh[1], size_wh[0], 3), np.uint8)
    for left, right in zip(columns, columns[1:], strict=False):
        for top, bottom in zip(rows, rows[1:], strict=False):
            photo = _read(photos[int(rng.integers(len(photos)))])
            size = np.array([right - left, bottom - top])
            scale = (size / photo.shape[1::-1]).max()
            offset = -rng.uniform(0, 1, 2) * (scale * np.array(photo.shape[1::-1]) - size)
            matrix = np.array([[scale, 0, offset[0]], [0, scale, offset[1]]])
            how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_LINEAR
            picture[top:bottom, left:right] = cv2.warpAffine(
                photo, matrix, size.tolist(), flags=how, borderMode=cv2.BORDER_REPLICATE
            )
    return picture


def paste(rng: np.random.Generator, picture: np.ndarray, pasted: Pasted) -> None:
    """Put a head into the picture, in place: softly along its outline, in a light of its own."""
    soft = max(0.6, 0.03 * pasted.side)
    size = np.array(picture.shape[1::-1])
    around = bounds(pasted)
    left, top = np.clip(np.floor(around[:2] - 3 * soft), 0, size).astype(int)
    right, bottom = np.clip(np.ceil(around[2:] + 3 * soft) + 1, 0, size).astype(int)
    matrix = pasted.to_picture - np.array([[0, 0, left], [0, 0, top]])
    transform = geometry.CropTransform(matrix, (int(right - left), int(bottom - top)))
    photo = _read(pasted.head.path)
    inside = np.zeros((bottom - top, right - left), np.uint8)
    for polygon in pasted.head.outline:
        points = (transform.to_crop(polygon) * 16).round().astype(np.int32)
        cv2.fillPoly(inside, [points], 255, cv2.LINE_AA, shift=4)
    # What the photo does not show is faded out, too; its edge lies a little inside.
    shown = transform.crop(cv2.copyMakeBorder(
        np.full((photo.shape[0] - 4, photo.shape[1] - 4), 255, np.uint8), 2, 2, 2, 2, cv2.BORDER_CONSTANT
    ))  # fmt: skip
    alpha = cv2.GaussianBlur(np.minimum(inside, shown), (0, 0), soft)
    alpha = np.minimum(alpha, shown)[..., None].astype(np.float32) / 255
    gain = math.exp(rng.normal(0, 0.12)) * np.exp(rng.normal(0, 0.03, 3))
    head = (transform.crop(photo) * gain.astype(np.float32)).clip(0, 255)
    part = picture[top:bottom, left:right]
    part[:] = (head * alpha + part * (1 - alpha)).round()


def developed(rng: np.random.Generator, picture: np.ndarray) -> np.ndarray:
    """The picture as a camera would give it: another light, at times soft, with noise, as a JPEG."""
    gain = math.exp(rng.normal(0, 0.15)) * np.exp(rng.normal(0, 0.05, 3))
    levels = np.linspace(0, 1, 256)[:, None] ** math.exp(rng.normal(0, 0.2)) * gain * 255
    picture = cv2.LUT(picture, levels.clip(0, 255).astype(np.uint8)[None])
    if rng.random() < 0.25:
        picture = cv2.GaussianBlur(picture, (0, 0), rng.uniform(0.4, 1.0))
    height, width = picture.shape[:2]
    noise = rng.normal(0, rng.uniform(0, 7), (480, 640, 3)).round().astype(np.int16)
    for top in range(0, height, 480):
        for left in range(0, width, 640):
            part = picture[top : top + 480, left : left + 640]
            part[:] = (part + noise[: part.shape[0], : part.shape[1]]).clip(0, 255)
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(50, 96))]
    return np.asarray(cv2.imdecode(cv2.imencode(".jpg", picture, quality)[1], cv2.IMREAD_COLOR))
