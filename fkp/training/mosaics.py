"""Mosaics: the pictures that the face detector learns from, each of photos moved, turned and recoloured.

A batch depends on nothing but (seed, step, rank), so a resumed run needs no stored loader, and several
threads may ask at once.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from fkp import detector, geometry
from fkp.detector import Detector
from fkp.training import augmentation
from fkp.training.face_photos import FACELESS, PHOTOS, Photo, ellipses

SHARES = {
    "wider": 0.45, "300w": 0.13, "merl": 0.09, "ytf": 0.05, "faces": 0.05, "masks": 0.05,
    "scenes": 0.08, "animals": 0.06, "no_faces": 0.04, PHOTOS: 0.6,
}  # fmt: skip
"""How often a tile of a mosaic comes from each source."""

PORTRAITS = ("ytf", "merl", "faces")
"""Sources whose photos show little beside a face."""

AS_IT_IS = {"wider": 0.6, "300w": 0.2, "masks": 0.3, PHOTOS: 0.5}
"""How often a photo of a source is shown at about its own size, or up to twice as large, as the pass that is
to find small faces shows it: such faces have been seen so."""

BESIDE = 0.2
"""How often a tile shows what lies beside the faces of a photo: hands, above all."""

LARGEST_PHOTO = 720
"""Photos are kept in memory with at most this many pixels on the longer side (about 2.5 GB in all)."""

MINED = ("wider", *FACELESS)
"""Sources where what a detector takes for a face, and people do not, is a hard negative."""

HARD_NEGATIVE_SCORE = 0.1
"""What a detector takes for a face at this score or more, where there is none, is a hard negative."""

SIZES, SIZE_SHARES = (256, 320, 448, 640), (0.2, 0.3, 0.25, 0.25)
"""Sides of the mosaics of a step in pixels, and how often each is used; always as many pixels in all.

Small ones show most faces for the time; only large ones show faces that fill a large picture.
"""

USUAL_SIZE = 320
"""A step has `batch_size` mosaics of this side, fewer larger or more smaller ones."""

SMALLEST_FACE = 9.0
"""A face of fewer pixels in the network's input is neither rewarded nor punished."""

FACE, IGNORE, NOTHING = 1, -1, 0
"""Kinds of box in a batch; NOTHING fills up the shorter lists."""

OCCLUSION = 0.15
"""Share of the faces a part of which is covered, as by a hand or a hat."""

TURNED = 0.1
"""Share of the tiles that are turned any way, as faces of people who lie or hang are."""


def random_transform(
    rng: np.random.Generator, image: np.ndarray, outlines: np.ndarray, size_wh: tuple[int, int],
    as_it_is: float = 0.0, beside: bool = False, fills: float = 0.0,
) -> geometry.CropTransform:  # fmt: skip
    """How a photo comes into a tile: scaled by one of its faces, turned, mirrored, moved.

    The face gets a side between SMALLEST_FACE and the tile's, with every octave equally likely, or with a
    probability of `as_it_is` about the size that it has, but the photo at least the share `fills` of the
    tile's; a photo without a face, or one that is to show what
    lies `beside` them, roughly covers the tile.
    """
    (width, height), (tile_w, tile_h) = (image.shape[1], image.shape[0]), size_wh
    cover = max(tile_w / width, tile_h / height)
    if len(outlines) and not beside:
        face = outlines[rng.integers(len(outlines))]
        x1, y1, x2, y2 = geometry.tight_boxes(face)
        centre = np.array([x1 + x2, y1 + y2]) / 2
        if rng.random() < as_it_is:
            scale = math.exp(rng.uniform(math.log(0.5), math.log(2.3)))
        else:
            octaves = math.log(1.05 * max(size_wh) / SMALLEST_FACE)
            side = SMALLEST_FACE * math.exp(octaves * rng.random() ** 1.2)
            # No more than four-fold: there is nothing to see in a face of ten pixels blown up to a hundred.
            scale = min(max(side / max(x2 - x1, y2 - y1), fills * cover), 4.0)
    else:
        centre = rng.uniform([0, 0], [width, height])
        if beside and len(outlines):
            # Of a few places the one farthest from any face.
            places = rng.uniform([0, 0], [width, height], (6, 2))
            middles = outlines.mean(axis=1)
            centre = places[np.linalg.norm(places[:, None] - middles, axis=2).min(axis=1).argmax()]
            cover *= 2
        scale = cover * math.exp(rng.uniform(math.log(0.6), math.log(2.5)))
    kind = rng.random()
    far = 180 if kind >= 1 - TURNED else 60
    turn = rng.normal(0, 8) if kind < 0.5 else rng.normal(0, 20) if kind < 0.85 else rng.uniform(-far, far)
    angle = math.radians(turn)
    stretch = np.exp(rng.normal(0, 0.05))
    linear = scale * np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    linear = linear @ np.diag([stretch, 1 / stretch])
    if rng.random() < 0.5:
        linear[0] *= -1
    offset = rng.uniform([0, 0], [tile_w, tile_h]) - linear @ centre
    # Move the photo so that it covers the tile or, when it is the smaller one, lies within it.
    corners = linear @ np.array([[0, width, 0, width], [0, 0, height, height]]) + offset[:, None]
    for axis, length in enumerate((tile_w, tile_h)):
        low, high = corners[axis].min(), corners[axis].max()
        least, most = sorted((-low, length - high))
        offset[axis] += np.clip(0, least, most)
    return geometry.CropTransform(np.column_stack([linear, offset]), size_wh)


def recolour(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Another exposure, contrast, white balance; sometimes grey."""
    gain = math.exp(rng.normal(0, 0.2)) * np.exp(rng.normal(0, 0.08, 3))
    gamma, lift = math.exp(rng.normal(0, 0.3)), rng.normal(0, 15)
    levels = np.linspace(0, 1, 256)[:, None] ** gamma * gain * 255 + lift
    table = levels.clip(0, 255).astype(np.uint8)
    image = cv2.LUT(image, table[None])
    if rng.random() < 0.15:
        image = augmentation.grey(image)
    return image


def degrade(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """What lenses, sensors and files do: blur, few pixels, noise, JPEG; each now and then."""
    if rng.random() < 0.2:
        image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 2.0))
    if rng.random() < 0.2:
        image = augmentation.low_resolution(image, rng.uniform(0.35, 0.9))
    if rng.random() < 0.12:
        image = augmentation.noisy(image, rng.uniform(2, 14) * rng.standard_normal(image.shape, np.float32))
    if rng.random() < 0.35:
        image = augmentation.compressed(image, int(rng.integers(25, 90)))
    return image


class Mosaics:
    """Photos as batches of mosaics.

    `training` are the photos to learn from by source, `shares` how often a tile is of each, and
    `hard_negatives` by source the photos where something else looks like a face, and where (n,68,2).
    """

    def __init__(
        self, photos: list[Photo], batch_size: int, *, seed: int = 0, miner: Detector | None = None,
        workers: int = 0,
    ) -> None:  # fmt: skip
        """Of `photos` those that are not held out. With several `workers` all are read now, to be shared.

        `miner` is a detector whose false alarms on them become hard negatives.
        """
        self.batch_size, self.seed = batch_size, seed
        training = {s: [p for p in photos if p.source == s and not p.held_out] for s in SHARES}
        self.training = {source: some for source, some in training.items() if some}
        shares = np.array([SHARES[source] for source in self.training])
        self.shares = shares / shares.sum()
        self._pair: tuple[Any, dict[str, Tensor]] = (None, {})
        self._loaded: dict[Path, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        with ThreadPoolExecutor(max(1, workers)) as pool:
            every = [p for some in self.training.values() for p in some] if workers > 1 else []
            list(tqdm(pool.map(self._load, every), "reading", len(every), leave=False, unit="photo"))
            self.hard_negatives = {s: self._mined(s, miner, pool) for s in MINED if miner is not None}

    def batch(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        """Mosaics of one step: `pictures` (b,3,S,S) uint8, `boxes` (b,m,4) float32 xyxy, `kinds` (b,m) int64.

        Each of the `world` ranks draws its own share of `batch_size`.
        """
        # Making a mosaic takes as long as learning from it, so each is used twice, the second time mirrored.
        pair = (step // 2, rank, world)
        if self._pair[0] != pair:
            self._pair = pair, self._new_batch(*pair)
        return mirrored(self._pair[1]) if step % 2 else self._pair[1]

    def _new_batch(self, pair: int, rank: int, world: int) -> dict[str, Tensor]:
        rng = np.random.default_rng((self.seed, pair, rank))
        size = int(rng.choice(SIZES, p=SIZE_SHARES))
        share = math.ceil(self.batch_size * (USUAL_SIZE / size) ** 2 / world)
        pictures, found = zip(*(self.mosaic(rng, size) for _ in range(share)), strict=True)
        most = max(len(kinds) for _, kinds in found)
        boxes = np.zeros((len(found), most, 4), np.float32)
        kinds = np.full((len(found), most), NOTHING)
        for i, (some_boxes, some_kinds) in enumerate(found):
            boxes[i, : len(some_kinds)], kinds[i, : len(some_kinds)] = some_boxes, some_kinds
        return {
            "pictures": torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2),  # channels last in memory
            "boxes": torch.from_numpy(boxes),
            "kinds": torch.from_numpy(kinds),
        }

    def mosaic(self, rng: np.random.Generator, size: int) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        """One training picture (size,size,3), and the boxes (m,4) and kinds (m,) in it."""
        tiles = rng.choice([1, 2, 3, 4], p=[0.35, 0.4, 0.2, 0.05])
        picture = np.empty((size, size, 3), np.uint8)
        # Where the tiles meet, each line moved by up to 0.3 tiles.
        lines = np.arange(tiles + 1) + np.pad(rng.uniform(-0.3, 0.3, (2, tiles - 1)), ((0, 0), (1, 1)))
        columns, rows = np.round(lines * size / tiles).astype(int)
        boxes, kinds = [], []
        for left, right in pairwise(columns):
            for top, bottom in pairwise(rows):
                tile, tile_boxes, tile_kinds = self.tile(rng, (right - left, bottom - top))
                picture[top:bottom, left:right] = tile
                boxes.append(tile_boxes + [left, top, left, top])
                kinds.append(tile_kinds)
        return degrade(rng, picture), (np.concatenate(boxes), np.concatenate(kinds))

    def tile(
        self, rng: np.random.Generator, size_wh: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """One photo of a mosaic (h,w,3), and the boxes (m,4) and kinds (m,) in it."""
        source = rng.choice(list(self.training), p=self.shares)
        negatives = self.hard_negatives.get(source, [])
        if negatives and rng.random() < 0.3:
            photo, negative = negatives[rng.integers(len(negatives))]
            image, outlines, ignore = self._load(photo)
            transform = random_transform(rng, image, negative, size_wh)
        else:
            image, outlines, ignore = self._load(self._draw(rng, source))
            beside = source not in PORTRAITS and rng.random() < BESIDE
            as_it_is = AS_IT_IS.get(source, 0.0)
            fills = 0.4 if source in PORTRAITS else 0.0
            transform = random_transform(rng, image, outlines, size_wh, as_it_is, beside, fills)
        tile = transform.crop(image)
        (tile_w, tile_h), (height, width) = size_wh, image.shape[:2]
        corners = transform.to_image(np.array([[0, 0], [tile_w, 0], [0, tile_h], size_wh], np.float64))
        if (corners < 0).any() or (corners > (width - 1, height - 1)).any():
            covered = transform.crop(np.full((height, width), 255, np.uint8))
            behind = self._background(rng, size_wh)
            np.copyto(tile, behind, where=covered[..., None] < 250)
        moved = np.concatenate([transform.to_crop(o) for o in (outlines, ellipses(ignore))])
        boxes = geometry.tight_boxes(moved).reshape(-1, 4)
        kinds = np.repeat([FACE, IGNORE], [len(outlines), len(ignore)])
        size = boxes[:, 2:] - boxes[:, :2]
        seen = (np.minimum(boxes[:, 2:], size_wh) - np.maximum(boxes[:, :2], 0)).clip(0).prod(1)
        seen /= size.prod(1)
        # A face that is mostly cut away, or too small, may be found or not.
        kinds[(seen < 0.55) | (size.max(1) < SMALLEST_FACE)] = IGNORE
        for box in boxes[kinds == FACE]:
            if rng.random() < OCCLUSION:
                self._cover_part(rng, tile, box)
        # What can be ignored is what can be seen of it.
        visible = seen > 0.05
        boxes[kinds == IGNORE] = boxes[kinds == IGNORE].clip(0, np.tile(size_wh, 2))
        return recolour(rng, tile), boxes[visible], kinds[visible]

    def _load(self, photo: Photo) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        # Two threads may load the same photo; both get the same, so the race is harmless.
        if photo.path not in self._loaded:
            self._loaded[photo.path] = photo.load(LARGEST_PHOTO)
        return self._loaded[photo.path]

    def _mined(
        self, source: str, miner: Detector, pool: ThreadPoolExecutor
    ) -> list[tuple[Photo, np.ndarray]]:
        """Training photos of a source where the miner takes for faces what is none, and where (n,68,2)."""
        found, photos = [], self.training.get(source, [])
        answers = pool.map(lambda photo: miner(self._load(photo)[0], min_score=HARD_NEGATIVE_SCORE), photos)
        bar = tqdm(answers, f"mining {source}", len(photos), leave=False, unit="photo")
        for photo, (boxes, _) in zip(photos, bar, strict=True):
            _, outlines, ignore = self._load(photo)
            known = np.concatenate([geometry.tight_boxes(outlines).reshape(-1, 4), ignore])
            boxes = boxes[geometry.iou(boxes, known).max(axis=1, initial=0) < 0.1]
            if len(boxes):
                found.append((photo, ellipses(boxes)))
        return found

    def _draw(self, rng: np.random.Generator, source: str) -> Photo:
        """A photo of a source: of two drawn evenly the one with more faces."""
        photos = self.training[source]
        drawn = [photos[i] for i in rng.integers(0, len(photos), 2)]
        return max(drawn, key=lambda photo: len(photo.outlines))

    def _cover_part(self, rng: np.random.Generator, tile: np.ndarray, box: np.ndarray) -> None:
        """Covers part of the face in a box (4,) of the tile: with its own colours, or a piece of a photo."""
        height, width = tile.shape[:2]
        x1, y1, x2, y2 = np.round(box).astype(int).clip(0, [width, height, width, height])
        size_wh = (int(x2 - x1), int(y2 - y1))
        if min(size_wh) < 2 * SMALLEST_FACE:
            return
        face = tile[y1:y2, x1:x2]
        other = face
        if rng.random() < 0.5:
            image, outlines, _ = self._load(self._draw(rng, rng.choice(list(self.training))))
            other = random_transform(rng, image, outlines, size_wh).crop(image)
        tile[y1:y2, x1:x2] = augmentation.occluded(face, other, rng)

    def _background(self, rng: np.random.Generator, size_wh: tuple[int, int]) -> np.ndarray:
        """What is seen beside a photo smaller than its tile: one colour, the detector's grey, or a scene."""
        kind = rng.choice(3, p=[0.3, 0.2, 0.5])
        if kind == 2 and "no_faces" in self.training:
            image, outlines, ignore = self._load(self._draw(rng, "no_faces"))
            if len(outlines) + len(ignore) == 0:
                return random_transform(rng, image, outlines, size_wh).crop(image)
        colour = rng.integers(0, 256, 3) if kind == 1 else [detector.GREY] * 3
        return np.broadcast_to(np.array(colour, np.uint8), (size_wh[1], size_wh[0], 3))


def mirrored(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch with left and right exchanged."""
    width = batch["pictures"].shape[3]
    x1, y1, x2, y2 = batch["boxes"].unbind(-1)
    boxes = torch.stack([width - 1 - x2, y1, width - 1 - x1, y2], dim=-1)
    return {"pictures": batch["pictures"].flip(3), "boxes": boxes, "kinds": batch["kinds"]}
