"""The photos that the face detector learns from, and what is known of the faces in each.

The data is described where `face_boxes.csv` lies: tight boxes that are `labelled` (from 68 keypoints) or
`detected` (both are faces), or to `ignore` (perhaps a face: neither reward nor punish it).
"""

from __future__ import annotations

import hashlib
import math
from concurrent.futures import ThreadPoolExecutor
from csv import DictReader, reader
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from fkp import data as facial_keypoints
from fkp import faces, geometry, images

LABELLED = {source.folder: source for source in facial_keypoints.TRAINING_SOURCES}
"""Folders of labelled photos that may be trained on."""

FACELESS = ("no_faces", "scenes", "animals")
"""Folders of photos without a labelled face: two thirds to learn from, a third to measure on."""

BOXED = ("wider/train", "masks")
"""Folders of photos whose faces people have marked with boxes: likewise."""

UNLABELLED = "faces"
"""The folder of portraits without labels, whose boxes a model's keypoints give."""

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
            if image in facial_keypoints.TWINS:
                continue
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
