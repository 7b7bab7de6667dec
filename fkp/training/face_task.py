"""Training the face detector: photos with boxes → mosaics → targets → loss, and how good it has become.

The data is described where `face_boxes.csv` lies: tight boxes that are `labelled` (from 68 keypoints) or
`detected` (both are faces), or to `ignore` (perhaps a face: neither reward nor punish it).
"""

from __future__ import annotations

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from csv import DictReader, reader
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import complete_box_iou_loss
from tqdm import tqdm

from fkp import data as facial_keypoints
from fkp import detector, faces, geometry, images, metrics, runtime
from fkp.config import DetectorConfig
from fkp.detector import STRIDES, Detector
from fkp.networks import export, face_net, state
from fkp.networks.face_net import DetectorNetwork
from fkp.training import augmentation
from fkp.training.yunet_teacher import Pupil, YuNetTeacher

LABELLED = {source.folder: source for source in facial_keypoints.TRAINING_SOURCES}
"""Folders of labelled photos that may be trained on."""

FACELESS = ("no_faces", "scenes", "animals")
"""Folders of photos without a labelled face: two thirds to learn from, a third to measure on."""

BOXED = ("wider/train", "masks")
"""Folders of photos whose faces people have marked with boxes: likewise."""

UNLABELLED = "faces"
"""The folder of portraits without labels, whose boxes a model's keypoints give."""

CROWD_SIZES, CROWD_IOU, FALSE_ALLOWED = (12.0, 20.0, 32.0, 64.0, math.inf), 0.4, 0.1
"""Sizes of faces in group photos, pixels, the IoU by which one is found, and false boxes a photo."""

PROFILES = "merl/aflw_train"
"""The folder of faces whose points are labelled where they are seen; every third is a profile."""

PHOTOS = "photos"
"""Photos from elsewhere, whose faces nobody has marked and another detector tells."""

CERTAIN, POSSIBLE, APART = 0.86, 0.3, 0.02
"""In these, what it is so sure of is a face; what it is less sure of may be one, and is to ignore. In a photo
that is turned, what overlaps a box by so much is its face, seen the wrong way up: masks tempt it to."""

SURE = 0.5
"""The least score of a face in an unlabelled portrait that is learnt from."""

WILDEST = "300w/afw"
"""The folder with the most faces a photo and the strongest poses."""

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

FACELESS_ALLOWED = 0.025
"""Share of the photos without a face in which there may be a box at the operating threshold."""

LEAST_SURE = 2 / 3
"""At the operating threshold at least two boxes in three are faces, by their calibrated score."""

RANGE_PHOTOS = 20
"""Training photos of each source in which the ranges of activations are seen."""

OCCLUSION = 0.15
"""Share of the faces a part of which is covered, as by a hand or a hat."""

SIDES = ((0.0, 56.0), (40.0, 112.0), (80.0, math.inf))
"""Faces whose longer side (pixels) lies in the range of a grid are learnt by it; ranges overlap."""

BOX_WEIGHT, TAUGHT_WEIGHT = 2.0, 1.0
"""What the losses of the boxes and of the second head, which learns what YuNet says, are multiplied by;
that of the scores counts once."""

TURNED = 0.1
"""Share of the tiles that are turned any way, as faces of people who lie or hang are."""

UNSURE = 1.5
"""Cells up to this many times too far from a face, in place or size, neither gain nor lose by their score."""


@dataclass(frozen=True)
class Photo:
    """A picture on disk and what is known of the faces in it.

    `outlines` (n,68,2) are points on each face whose tight box is the face's; `ignore` (m,4) are boxes.
    """

    path: Path
    source: str
    held_out: bool
    outlines: np.ndarray
    ignore: np.ndarray

    @property
    def boxes(self) -> np.ndarray:
        """Tight boxes (n,4) of the faces."""
        return geometry.tight_boxes(self.outlines).reshape(-1, 4)

    def load(self, largest: int | None = None) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Image (H,W,3) uint8 RGB, outlines and boxes to ignore, shrunk to `largest` pixels where longer."""
        image, outlines, ignore = images.read(self.path), self.outlines, self.ignore
        height, width = image.shape[:2]
        if largest is not None and max(height, width) > largest:
            factor = largest / max(height, width)
            size_wh = (round(width * factor), round(height * factor))
            image = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
            scale_xy = np.array(size_wh) / (width, height)
            outlines = (outlines + 0.5) * scale_xy - 0.5
            ignore = (ignore + 0.5) * np.tile(scale_xy, 2) - 0.5
        return image, outlines, ignore


def ellipses(boxes: np.ndarray) -> np.ndarray:
    """68 points (n,68,2) on the ellipse inscribed in each box (n,4): an outline for want of keypoints."""
    angle = np.arange(68) * (2 * math.pi / 68)
    circle = np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    centre, size = (boxes[:, None, :2] + boxes[:, None, 2:]) / 2, boxes[:, None, 2:] - boxes[:, None, :2]
    return centre + circle * size / 2


def read_photos(folder: Path, portraits: Path | None = None) -> list[Photo]:
    """Every photo below the data folder that may be trained on or, held out of that, chosen by.

    `portraits` is a table of keypoints that `fkp predict --csv` wrote for the folder of unlabelled ones.
    Raises FileNotFoundError naming what is missing.
    """
    known = facial_keypoints.FaceBoxes(folder)
    photos = []
    for subfolder in (*LABELLED, PROFILES, *BOXED, *FACELESS):
        labelled: dict[str, list[np.ndarray]] = {}
        if subfolder == PROFILES or subfolder in LABELLED:
            csv = folder / (f"{PROFILES}.csv" if subfolder == PROFILES else LABELLED[subfolder].csv)
            with open(csv, newline="", encoding="utf-8") as file:
                _, *rows = reader(file)
            for name, *cells in rows:
                keypoints = np.array([cell or "nan" for cell in cells], np.float64).reshape(68, 2)
                seen = np.asarray(np.isfinite(keypoints).all(axis=1))
                labelled.setdefault(name, []).append(np.where(seen[:, None], keypoints, keypoints[seen][0]))
            names = sorted(labelled)
        else:
            names = sorted(path.name for path in (folder / subfolder).iterdir())
        for name in names:
            image = f"{subfolder}/{name}"
            boxes = known.of(image, "detected", "wider", "people")
            photos.append(
                Photo(
                    folder / image,
                    "300w" if subfolder.startswith("300w") else subfolder.split("/")[0],
                    is_held_out(subfolder, name),
                    np.reshape([*labelled.get(name, []), *ellipses(boxes)], (-1, 68, 2)),
                    # People have checked these: what a detector took for a face there is none.
                    known.of(image, *([] if subfolder == "no_faces" else ["ignore"])),
                )
            )
    if portraits is not None:
        with open(portraits, newline="", encoding="utf-8") as file:
            sure = [row for row in DictReader(file) if float(row["score"]) > SURE]
        for row in sure:
            points = np.array([row[f"{axis}{i}"] for i in range(68) for axis in "xy"], np.float64)
            path = folder / UNLABELLED / Path(row["image"]).name
            photos.append(Photo(path, UNLABELLED, False, points.reshape(1, 68, 2), np.empty((0, 4))))
    return photos


def photos_elsewhere(folder: Path, find: faces.FaceDetector, pool: ThreadPoolExecutor) -> list[Photo]:
    """The photos of a folder, with what a detector finds in them: faces where it is certain, else to ignore.

    It is shown them twice as large, to find small faces, and turned by quarters, to find people who lie or
    hang.
    """

    def look(path: Path) -> Photo:
        image = images.read(path)
        boxes, scores = find(cv2.resize(image, None, fx=2, fy=2), min_score=POSSIBLE)
        boxes = (boxes + 0.5) / 2 - 0.5
        for turn in (1, 2, 3):
            more, sure = find(geometry.turned(image, turn), min_score=POSSIBLE)
            more = geometry.turned_back(more, turn, image.shape[:2])
            new = geometry.iou(more, boxes).max(axis=1, initial=0) < APART
            boxes, scores = np.concatenate([boxes, more[new]]), np.concatenate([scores, sure[new]])
        return Photo(path, PHOTOS, False, ellipses(boxes[scores >= CERTAIN]), boxes[scores < CERTAIN])

    paths = facial_keypoints.pictures(folder)
    return list(tqdm(pool.map(look, paths), "finding faces", len(paths), leave=False, unit="photo"))


def is_held_out(subfolder: str, name: str) -> bool:
    """Whether a photo is for validation: by person (YTF), by photo (300-W), a third where faces are wildest.

    A third of the photos of AFW and of those without faces, by a hash of their name.
    """
    if subfolder in (*FACELESS, *BOXED, WILDEST):
        return int(hashlib.sha1(name.encode()).hexdigest(), 16) % 3 == 0
    if subfolder == PROFILES:
        return facial_keypoints.is_held_out(name)
    return facial_keypoints.is_held_out(LABELLED[subfolder].key(name))


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


class Targets(NamedTuple):
    """What each cell of each picture learns, all (n,cells).

    `box`: the index of the box that it learns to tell, −1 for none · `middle`: whether it lies in that
    face's middle, and is to say so · `counts`: whether its score is rewarded or punished at all.
    """

    box: Tensor
    middle: Tensor
    counts: Tensor


def targets(boxes: Tensor, kinds: Tensor, at: Tensor) -> Targets:
    """What each of the cells `at` (cells,3) learns of `boxes` (n,m,4) of the `kinds` (n,m), as in a batch.

    A cell is a face's when it lies near the face's middle and the face's size belongs to the cell's grid;
    the smallest face's of several. Between clearly near and clearly far a cell learns the box but no score:
    asked for a sharp line there, no cell of a face whose middle is a corner of four would be sure. A cell
    within a box to ignore counts only in the middle of a face.
    """
    n, m = kinds.shape
    if m == 0:
        nothing = torch.full((n, len(at)), -1, device=at.device)
        return Targets(nothing, nothing >= 0, nothing < 0)
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    side = (boxes[..., 2:] - boxes[..., :2]).amax(-1, keepdim=True)
    distance = torch.linalg.vector_norm(centre.unsqueeze(2) - at[:, :2], dim=-1)  # (n,m,cells)
    # At least 0.75 cells, so that every face has a cell however it lies (half a diagonal is 0.71).
    reach = torch.maximum(0.2 * side, 0.75 * at[:, 2])
    least, most = torch.tensor(SIDES, device=at.device)[torch.log2(at[:, 2] / STRIDES[0]).long()].unbind(-1)
    face = (kinds == FACE).unsqueeze(-1)
    near = face & (distance <= reach) & (side >= least) & (side <= most)
    nearly = face & (distance <= UNSURE * reach) & (side >= least / UNSURE) & (side <= most * UNSURE)
    # Where one face's middle is nearly another's, it is the first that counts.
    order = torch.where(near, side, torch.where(nearly, side + 1e6, math.inf))
    smallest, index = order.min(dim=1)
    index = torch.where(smallest.isfinite(), index, -1)
    middle = near.gather(1, index.clamp_min(0).unsqueeze(1)).squeeze(1) & (index >= 0)
    within = ((at[:, :2] >= boxes[..., None, :2]) & (at[:, :2] <= boxes[..., None, 2:])).all(-1)
    ignored = (within & (kinds == IGNORE).unsqueeze(-1)).any(dim=1)
    return Targets(index, middle, middle | ((index < 0) & ~ignored))


class FaceTask:
    """What `train.py faces` trains: the network, its batches, its loss, and how good it is.

    A batch depends on nothing but (seed, step, rank), so a resumed run needs no stored loader, and several
    threads may ask at once.
    """

    def __init__(
        self, folder: Path, config: DetectorConfig | None = None, *,
        batch_size: int = 64, seed: int = 0, device: torch.device | None = None,
        miner: Detector | None = None, portraits: Path | None = None, workers: int = 0,
        yunet: YuNetTeacher | None = None, elsewhere: tuple[Path, faces.FaceDetector] | None = None,
        teacher: DetectorNetwork | None = None, taught: float = 0.4,
    ) -> None:  # fmt: skip
        """`miner` is a detector whose false alarms on the training photos become hard negatives.

        `portraits`: see `read_photos`. With several `workers` all photos are read now, for them to share.
        `yunet` and a `teacher`, a network such as this one but wider, are asked about every picture that is
        learnt from; the latter's word has a share of `taught` in the loss of the scores. `elsewhere` is a
        folder of photos whose faces nobody has marked, and a detector that finds them.
        """
        self.config = config or DetectorConfig()
        self.batch_size, self.seed, self.taught = batch_size, seed, taught
        self.network = DetectorNetwork(self.config)
        if yunet is not None:
            self.network = Pupil.of(self.network, self.config)
        self.yunet = yunet and yunet.to(device or "cpu")
        self.teacher = teacher and state.folded(teacher).to(device or "cpu")
        photos = read_photos(folder, portraits)
        if elsewhere is not None:
            with ThreadPoolExecutor(max(1, workers)) as pool:
                photos += photos_elsewhere(*elsewhere, pool)
        training = {s: [p for p in photos if p.source == s and not p.held_out] for s in SHARES}
        self.training = {source: some for source, some in training.items() if some}
        if not self.training:
            raise ValueError(f"{folder} holds no photo to train on")
        shares = np.array([SHARES[source] for source in self.training])
        self.shares = shares / shares.sum()
        self.validation = [p for p in photos if p.held_out]
        self._pair: tuple[Any, dict[str, Tensor]] = (None, {})
        self._loaded: dict[Path, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
        with ThreadPoolExecutor(max(1, workers)) as pool:
            every = [p for some in self.training.values() for p in some] if workers > 1 else []
            list(tqdm(pool.map(self._load, every), "reading", len(every), leave=False, unit="photo"))
            self.hard_negatives = {s: self._mined(s, miner, pool) for s in MINED if miner is not None}

    @property
    def hidden_kernels(self) -> list[nn.Parameter]:
        """What Muon trains: kernels that mix channels, but for the first and for those that put out boxes."""
        named = [(name, p) for name, p in self.network.named_parameters() if p.ndim == 4]
        return [p for name, p in named[1:] if not name.startswith(("heads", "second_heads"))]

    @property
    def steps_per_epoch(self) -> int:
        return max(1, sum(map(len, self.training.values())) // self.batch_size)

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

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Mean loss per learning cell, and its parts.

        The score learns the overlap of the cell's own box with the truth (Li et al.,
        https://arxiv.org/abs/2006.04388), the box by complete IoU (https://arxiv.org/abs/1911.08287). Where
        there is a teacher, part of the score's loss is against what it says, also of what is to be ignored.
        The second head, where there is a YuNet, learns its logits, but not that a face were none.
        """
        pictures = batch["pictures"]
        grids, taught = model(pictures), torch.zeros((), device=pictures.device)
        at = face_net.cells(pictures.shape[2], pictures.shape[3], pictures.device)
        box, middle, counts = targets(batch["boxes"], batch["kinds"], at)
        if self.yunet is not None:
            grids, told_by_yunet = grids
            wanted = self.yunet(pictures)
            sure = wanted.sigmoid().prod(dim=1).sqrt()
            # What may be a face is rare, and what matters most.
            rarity = (1 + 10 * sure).masked_fill(middle & (sure < 0.5), 0)[:, None]
            taught = (F.smooth_l1_loss(told_by_yunet, wanted, reduction="none") * rarity).mean()
        picture, cell = torch.nonzero(box >= 0, as_tuple=True)
        truth = batch["boxes"][picture, box[picture, cell]]
        told = face_net.decode(grids.offsets[picture, cell], at[cell])
        overlap = paired_iou(told.detach(), truth)
        wanted = torch.zeros_like(grids.logits)
        # The root: boxes of small faces are never exact, and are to be as sure as those of large ones.
        wanted[picture, cell] = torch.where(middle[picture, cell], overlap.clamp_min(0).sqrt(), 0.0)
        weight = face_weights(box[picture, cell], picture, kinds=batch["kinds"])
        weights = counts.to(grids.logits.dtype)
        weights[picture, cell] *= weight
        errors = F.binary_cross_entropy_with_logits(grids.logits, wanted, reduction="none")
        faces_there = (weight * middle[picture, cell]).sum().clamp_min(1)
        score = (errors * weights).sum() / faces_there
        if self.teacher is not None:
            with torch.no_grad():
                wanted = self.teacher(pictures).logits.sigmoid()
            errors = F.binary_cross_entropy_with_logits(grids.logits, wanted, reduction="none")
            errors[picture, cell] *= weight
            score = torch.lerp(score, errors.sum() / faces_there, self.taught)
        box = (complete_box_iou_loss(told, truth) * weight).sum() / weight.sum().clamp_min(1)
        total = score + BOX_WEIGHT * box + TAUGHT_WEIGHT * taught
        return total, {"score": score.item(), "box": box.item(), "taught": taught.item()}

    def validate(self, model: DetectorNetwork) -> dict[str, float]:
        """How good it is on people and photos held out of training; see `measure`."""
        return measure(self._found(running(self.config, model)))

    def finish(self, model: DetectorNetwork) -> tuple[DetectorConfig, DetectorNetwork]:
        """The detector to ship: these weights, and what validation photos say of how to read them.

        That are the bias of its boxes, the calibration of its scores and its operating threshold. Training
        photos give the ranges of its activations, where they can be had (`fkp[export]`).
        """
        if isinstance(model, Pupil):
            model = model.alone()
        found = self._found(running(self.config, model))
        off = bias(found)
        unbiased = [(photo, detector.corrected(boxes, off), scores) for photo, boxes, scores in found]
        slope, intercept = calibration(unbiased)
        # Rounded down: the box whose score is the threshold is to be found.
        least = detector.calibrated(logit(np.array(operating_threshold(unbiased))), (slope, intercept))
        config = replace(
            self.config, bias=off, calibration=(slope, intercept),
            min_score=math.floor(1000 * max(float(least), LEAST_SURE)) / 1000,
            activation_ranges=self._ranges(model),
        )  # fmt: skip
        return config, model

    def _ranges(self, model: DetectorNetwork) -> tuple[tuple[str, float, float], ...]:
        """The ranges of the activations in some training photos of every source, at the detector's size."""
        if not export.is_possible():
            return ()
        pictures = []
        for photos in self.training.values():
            for photo in photos[:: max(1, len(photos) // RANGE_PHOTOS)][:RANGE_PHOTOS]:
                image = images.read(photo.path)
                _, first, *_ = detector.scales(image.shape[0], image.shape[1], self.config)
                pictures.append(detector.fit(image, first)[0])
        return export.detector_activation_ranges(model, pictures)

    def _found(self, face_detector: Detector) -> list[tuple[Photo, np.ndarray, np.ndarray]]:
        """Held-out photos with the boxes (n,4) found at a very low threshold, and their scores (n,)."""
        return [(p, *face_detector(images.read(p.path), min_score=0.02)) for p in self.validation_subset]

    @cached_property
    def validation_subset(self) -> list[Photo]:
        """Held-out photos to validate on: a part of those that are many, none of the crops of profiles."""
        steps = {"ytf": 4}
        by_source = {s: [p for p in self.validation if p.source == s] for s in SHARES if s != "merl"}
        return [p for source, some in by_source.items() for p in some[:: steps.get(source, 1)]]

    def preview(self, model: DetectorNetwork) -> np.ndarray:
        """A sheet (H,W,3) uint8 RGB of held-out photos: truth green, to ignore grey, found red with score."""
        found = running(self.config, model)
        by_source = [[p for p in self.validation if p.source == source] for source in SHARES]
        chosen = [some[i * (len(some) // 4)] for some in by_source for i in range(4) if some]
        return sheet([(p, *found(images.read(p.path), min_score=0.3)) for p in chosen])

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


def face_weights(box: Tensor, picture: Tensor, kinds: Tensor) -> Tensor:
    """The weight (k,) of each of k cells that learn the box of an index (k,) in a picture (k,).

    A large face has many such cells, a small one two or three: with weights alike it would hardly count.
    """
    face = picture * kinds.shape[1] + box
    cells = torch.bincount(face, minlength=kinds.numel())[face].float()
    return (4 / cells).sqrt()


def running(config: DetectorConfig, network: DetectorNetwork) -> Detector:
    """A network in training as a face detector, on torch."""
    device = str(next(network.parameters()).device)
    return Detector(config, runtime.Runner(runtime.NetworkFiles("", {}, lambda: network), "torch", device))


def mirrored(batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """A batch with left and right exchanged."""
    width = batch["pictures"].shape[3]
    x1, y1, x2, y2 = batch["boxes"].unbind(-1)
    boxes = torch.stack([width - 1 - x2, y1, width - 1 - x1, y2], dim=-1)
    return {"pictures": batch["pictures"].flip(3), "boxes": boxes, "kinds": batch["kinds"]}


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union (n,) of boxes (n,4) with others (n,4), one by one."""
    overlap = torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])
    both = overlap.clamp_min(0).prod(1)
    areas = [(b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, others)]
    return both / (areas[0] + areas[1] - both).clamp_min(1e-6)


def match(photo: Photo, boxes: np.ndarray, scores: np.ndarray) -> metrics.Found:
    """What boxes (n,4) with scores (n,) found in a photo; those on something to ignore do not count."""
    ignorable = geometry.iou(boxes, photo.ignore).max(axis=1, initial=0) > 0.3
    return metrics.found(geometry.iou(boxes, photo.boxes), scores, ignorable)


def bias(found: list[tuple[Photo, np.ndarray, np.ndarray]]) -> tuple[float, float, float, float]:
    """By how much boxes (n,4) found in photos are off their faces on the whole: the median.

    Rounded to a hundredth of a percent; nothing, where no face is found.
    """
    told, truth = [np.empty((0, 4))], [np.empty((0, 4))]
    for photo, boxes, scores in found:
        face = metrics.assign(geometry.iou(boxes, photo.boxes), scores)
        told.append(boxes[face >= 0])
        truth.append(photo.boxes[face[face >= 0]])
    off = detector.box_errors(np.concatenate(told), np.concatenate(truth))
    x, y, width, height = (round(float(v), 4) for v in np.median(off, axis=0)) if len(off) else (0.0,) * 4
    return x, y, width, height


def logit(scores: np.ndarray) -> np.ndarray:
    """The inverse of the logistic function."""
    return np.log(scores / (1 - scores))


def calibration(found: list[tuple[Photo, np.ndarray, np.ndarray]]) -> tuple[float, float]:
    """Slope and intercept that make the logits of boxes found in photos those of a probability.

    Platt scaling (1999): logistic regression, by Newton's method, of whether a box is a face's on its logit.
    One face and one that is none are added, which keeps it finite.
    """
    matches = [match(*one) for one in found]
    scores = np.concatenate([m.scores for m in matches] or [np.empty(0)])
    hits = np.concatenate([m.overlaps > 0 for m in matches] or [np.empty(0, bool)])
    x = np.concatenate([logit(scores.clip(1e-4, 1 - 1e-4)), [-3.0, 3.0]])
    y = np.concatenate([hits, [0, 1]])
    inputs, weights = np.column_stack([x, np.ones_like(x)]), np.array([1.0, 0.0])
    for _ in range(30):
        p = 1 / (1 + np.exp(-inputs @ weights))
        curvature = inputs.T @ (inputs * (p * (1 - p))[:, None]) + 1e-6 * np.eye(2)
        weights = weights + np.linalg.solve(curvature, inputs.T @ (y - p))
    slope, intercept = weights.round(4).tolist()
    return slope, intercept


def operating_threshold(found: list[tuple[Photo, np.ndarray, np.ndarray]]) -> float:
    """The score that serves best, by F1, but at least so high that photos without a face stay empty.

    All but FACELESS_ALLOWED of those of every kind.
    """
    least = [metrics.operating_threshold([match(*one) for one in found])]
    for source in FACELESS:
        best = [scores.max(initial=0) for photo, _, scores in found
                if photo.source == source and len(photo.boxes) + len(photo.ignore) == 0]  # fmt: skip
        if best:
            least.append(float(np.quantile(best, 1 - FACELESS_ALLOWED, method="higher")) + 5e-3)
    return min(max(least), 0.99)


def measure(found: list[tuple[Photo, np.ndarray, np.ndarray]]) -> dict[str, float]:
    """How good boxes (n,4) with scores (n,), found in photos at a very low threshold, are; in percent.

    `crowd`: share of the faces of group photos (`wider`) found at a tenth of a false box a photo, the mean of
    four sizes; each of them follows · `ap`: mean of the average precisions at overlaps of 0.5, 0.6, 0.7 and
    0.8 · `ap50`: the first of them · `min_score`: the operating threshold (0..1). At this threshold:
    `recall_ytf`, `recall_300w`: share of the faces found · `iou`: mean overlap of the found ones · `extra`:
    boxes on no face in 100 photos with faces · `no_faces`, `scenes`, `animals`: boxes in 100 photos of these.
    """
    matches = [match(*one) for one in found]
    precisions = [100 * metrics.average_precision(matches, least) for least in (0.5, 0.6, 0.7, 0.8)]
    min_score = operating_threshold(found)
    sizes = crowd_recall([one for one in found if one[0].source == "wider"])
    result = {"crowd": float(np.mean(sizes))}
    result |= {f"crowd_{int(least)}": share for least, share in zip(CROWD_SIZES, sizes, strict=False)}
    result |= {"ap": float(np.mean(precisions)), "ap50": precisions[0], "min_score": min_score}
    at_threshold = [(photo, m.above(min_score)) for (photo, *_), m in zip(found, matches, strict=True)]
    for source in ("ytf", "300w"):
        result[f"recall_{source}"] = metrics.recall([m for p, m in at_threshold if p.source == source]) or 0.0
    labelled = [m for p, m in at_threshold if p.source not in FACELESS]
    overlaps = np.concatenate([m.overlaps for m in labelled] or [np.empty(0)])
    result["iou"] = 100 * float(overlaps[overlaps > 0].mean()) if (overlaps > 0).any() else 0.0
    result["extra"] = 100 * int((overlaps == 0).sum()) / max(1, len(labelled))
    for source in FACELESS:
        faceless = [m for p, m in at_threshold if p.source == source and m.faces + len(p.ignore) == 0]
        result[source] = 100 * sum(len(m.scores) for m in faceless) / max(1, len(faceless))
    return result


def crowd_recall(found: list[tuple[Photo, np.ndarray, np.ndarray]]) -> list[float]:
    """Share of the faces found, percent, at FALSE_ALLOWED false boxes a photo, for each of the CROWD_SIZES.

    A face is found by an overlap of 0.4; its size is the longer side of its box.
    """
    by_photo, false = [], []
    for photo, boxes, scores in found:
        overlaps = geometry.iou(boxes, photo.boxes)
        face = metrics.assign(overlaps, scores, CROWD_IOU)
        ignorable = geometry.iou(boxes, photo.ignore).max(axis=1, initial=0) > 0.3
        best = np.zeros(len(photo.boxes))
        best[face[face >= 0]] = scores[face >= 0]
        by_photo.append(np.stack([geometry.longer_sides(photo.boxes), best], axis=1))
        false.append(scores[(face < 0) & ~ignorable])
    sides, best = np.concatenate(by_photo or [np.empty((0, 2))]).T
    worst_first = np.sort(np.concatenate(false or [np.empty(0)]))[::-1]
    allowed = int(FALSE_ALLOWED * len(found))
    least_score = worst_first[allowed] if len(worst_first) > allowed else 0.0
    shares = []
    for low, high in pairwise(CROWD_SIZES):
        of_size = (sides >= low) & (sides < high)
        shares.append(100 * float((best[of_size] > least_score).mean()) if of_size.any() else 0.0)
    return shares


def sheet(found: list[tuple[Photo, np.ndarray, np.ndarray]], side: int = 320, columns: int = 4) -> np.ndarray:
    """Photos in a grid (H,W,3) uint8 RGB: faces green, boxes to ignore grey, what was found red."""
    shown = [_shown(*one, side) for one in found]
    shown += [np.zeros((side, side, 3), np.uint8)] * (-len(shown) % columns)
    return np.concatenate([np.concatenate(shown[i : i + columns], 1) for i in range(0, len(shown), columns)])


def _shown(photo: Photo, boxes: np.ndarray, scores: np.ndarray, side: int) -> np.ndarray:
    image = images.read(photo.path)
    scale = side / max(image.shape[:2])
    size_wh = (round(image.shape[1] * scale), round(image.shape[0] * scale))
    image = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    image = cv2.copyMakeBorder(image, 0, side - size_wh[1], 0, side - size_wh[0], cv2.BORDER_CONSTANT)
    red = (255, 40, 40)
    for some, colour in ((photo.boxes, (0, 230, 0)), (photo.ignore, (150, 150, 150)), (boxes, red)):
        for x1, y1, x2, y2 in np.round(some * scale).astype(int).tolist():
            cv2.rectangle(image, (x1, y1), (x2, y2), colour, 1, cv2.LINE_AA)
    for (x1, y1, *_), score in zip(np.round(boxes * scale).astype(int).tolist(), scores, strict=True):
        corner = (max(x1, 0), max(y1 - 3, 10))
        cv2.putText(image, f"{score:.2f}", corner, cv2.FONT_HERSHEY_SIMPLEX, 0.4, red, 1, cv2.LINE_AA)
    return image
