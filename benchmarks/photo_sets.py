"""Photos with what is known of the faces in them, and what detectors find there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.faces import SETS
from fkp import data, geometry, images, metrics
from fkp.faces import FaceDetector
from fkp.training import face_task

LEAST_SCORE = 0.05
"""Boxes are asked for down to this score, once for each photo, and counted at any threshold from there."""
DOUBTFUL_IOU = 0.3
"""A box that overlaps a doubtful one by more than this is not held against a detector."""

NONE = np.empty((0, 4))


@dataclass(frozen=True)
class Photo:
    """A picture with the tight boxes of the faces to be found in it, `faces` (n,4).

    Boxes on `doubtful` (m,4), faces without labels and what may be one, neither count nor are false.
    `held_out`: whether it was kept out of the bundled detector's training.
    """

    name: str
    read: Callable[[], np.ndarray]
    faces: np.ndarray
    doubtful: np.ndarray
    held_out: bool


class PhotoSet(NamedTuple):
    """Photos of one kind; `title` says which."""

    name: str
    title: str
    photos: list[Photo]


TITLES = {test.name: test.title for test in SETS} | {
    "ytf_test": "YouTube Faces, course test split",
    "afw": "300-W, AFW, the third held out",
    "no_faces": "photos without a face",
    "scenes": "animals and things",
    "collages": "group pictures",
}
LABELLED = ("ytf_test", "lfpw_test", "afw")
"""Sets whose faces have labels."""
FACELESS = ("no_faces", "scenes")
"""Sets without a face, on which every box is a false one."""


def read_sets(folder: Path, limit: int | None = None) -> dict[str, PhotoSet]:
    """The sets of real photos below the data folder by name; with `limit` so many photos of each."""
    known = data.FaceBoxes(folder)
    csvs = {test.name: (test.csv, test.folder) for test in SETS} | {"afw": ("300w/afw.csv", "300w/afw")}
    sets = {}
    for name in LABELLED:
        csv, subfolder = csvs[name]
        photos = labelled_photos(
            data.FacialKeypointsDataset(folder / csv, folder / subfolder), subfolder, known
        )
        if name == "afw":
            photos = [photo for photo in photos if photo.held_out]
        sets[name] = photos
    sets["no_faces"] = faceless_photos(folder, "no_faces")
    # Among the scenes many show people; those where not even a doubtful box was found show none.
    sets["scenes"] = [
        photo for photo in faceless_photos(folder, "scenes") if not len(known.of(photo.name, *BEYOND_LABELS))
    ]
    return {name: PhotoSet(name, TITLES[name], spread(photos, limit)) for name, photos in sets.items()}


def spread(photos: Sequence[Photo], limit: int | None) -> list[Photo]:
    """`limit` of the photos, spread evenly; all by default."""
    if limit is None or limit >= len(photos):
        return list(photos)
    return [photos[i] for i in np.linspace(0, len(photos) - 1, limit).round().astype(int)]


BEYOND_LABELS = ("detected", "ignore")
"""Kinds of box that `data.FaceBoxes` knows besides the labels."""


def labelled_photos(faces: data.FacialKeypointsDataset, subfolder: str, known: data.FaceBoxes) -> list[Photo]:
    """The photos of the faces of one folder below the data folder, in the order of their names."""
    boxes, names = geometry.tight_boxes(faces.keypoints), np.array(faces.names)
    may_train = subfolder in face_task.LABELLED
    paths = dict(zip(faces.names, faces.paths, strict=True))
    return [
        Photo(
            f"{subfolder}/{name}",
            partial(images.read, paths[name]),
            boxes[names == name],
            known.of(f"{subfolder}/{name}", *BEYOND_LABELS),
            not may_train or face_task.is_held_out(subfolder, name),
        )
        for name in np.unique(names).tolist()
    ]


def faceless_photos(folder: Path, subfolder: str) -> list[Photo]:
    """The photos of a folder, on which every box is to be a false one."""
    return [
        Photo(
            f"{subfolder}/{path.name}", partial(images.read, path), NONE, NONE,
            face_task.is_held_out(subfolder, path.name),
        )
        for path in sorted((folder / subfolder).iterdir())
    ]  # fmt: skip


# --- What is found ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """The boxes (n,4) that a detector finds in a photo, best first, and their scores (n,) float64."""

    photo: Photo
    boxes: np.ndarray
    scores: np.ndarray

    @cached_property
    def own(self) -> np.ndarray:
        """The index (n,) of each box's own face, −1 for none; see `metrics.assign`."""
        return metrics.assign(geometry.iou(self.boxes, self.photo.faces), self.scores)

    @cached_property
    def doubtful(self) -> np.ndarray:
        """Which boxes (n,) lie on something doubtful."""
        return geometry.iou(self.boxes, self.photo.doubtful).max(axis=1, initial=0) > DOUBTFUL_IOU

    @cached_property
    def found(self) -> metrics.Found:
        return metrics.found(geometry.iou(self.boxes, self.photo.faces), self.scores, self.doubtful)

    def above(self, min_score: float) -> Seen:
        """What remains at a threshold."""
        keep = self.scores >= min_score
        return Seen(self.photo, self.boxes[keep], self.scores[keep])

    def false(self) -> np.ndarray:
        """The boxes' indices that are on no face and nothing doubtful."""
        return np.flatnonzero((self.own < 0) & ~self.doubtful)

    def hits(self) -> np.ndarray:
        """Whether each face (m,) of the photo has a box."""
        return np.isin(np.arange(len(self.photo.faces)), self.own)


def detect(
    detectors: Mapping[str, FaceDetector], photos: Iterable[Photo], what: str
) -> dict[str, list[Seen]]:
    """What each detector finds in the photos, each of which is read once; `what` is for the progress bar."""
    seen: dict[str, list[Seen]] = {name: [] for name in detectors}
    for photo in tqdm(list(photos), what, unit="photo", leave=False, disable=None):
        image = photo.read()
        for name, detector in detectors.items():
            boxes, scores = detector(image, min_score=LEAST_SCORE)
            order = np.argsort(-scores, kind="stable")
            seen[name].append(Seen(photo, boxes[order].astype(np.float64), scores[order].astype(np.float64)))
    return seen


def false_scores(seen: Iterable[Seen]) -> np.ndarray:
    """The scores (n,) of all false boxes."""
    return np.concatenate([each.scores[each.false()] for each in seen] or [np.empty(0)])


def recall(seen: Iterable[Seen], min_score: float) -> float | None:
    """Share of the faces found at a threshold, percent."""
    return metrics.recall([each.found.above(min_score) for each in seen])


# --- The same kind of box -----------------------------------------------------------------------------------


class Fit(NamedTuple):
    """A linear map of boxes to tight ones: middles move by `shift_xy` box sizes, sizes by `scale_wh`."""

    shift_xy: tuple[float, float]
    scale_wh: tuple[float, float]

    def __call__(self, boxes: np.ndarray) -> np.ndarray:
        """Boxes (n,4) xyxy."""
        size = boxes[:, 2:] - boxes[:, :2]
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2 + size * self.shift_xy
        half = size * self.scale_wh / 2
        return np.concatenate([middle - half, middle + half], axis=1)

    def of(self, seen: Seen) -> Seen:
        """The same finds with mapped boxes."""
        return Seen(seen.photo, self(seen.boxes), seen.scores)


def fit(seen: Iterable[Seen], min_score: float = 0.5) -> Fit:
    """The map that suits the median found face; that of no face leaves boxes as they are."""
    pairs = [
        np.concatenate([s.boxes[s.own >= 0], s.photo.faces[s.own[s.own >= 0]]], axis=1)
        for s in (each.above(min_score) for each in seen)
    ]
    both = np.concatenate(pairs or [np.empty((0, 8))])
    if not len(both):
        return Fit((0.0, 0.0), (1.0, 1.0))
    size, wanted = both[:, 2:4] - both[:, :2], both[:, 6:] - both[:, 4:6]
    moved = (both[:, 4:6] + both[:, 6:] - both[:, :2] - both[:, 2:4]) / 2
    x, y = np.median(moved / size, axis=0).round(4).tolist()
    w, h = np.median(wanted / size, axis=0).round(4).tolist()
    return Fit((x, y), (w, h))


def training_photos(folder: Path, count: int) -> list[Photo]:
    """About `count` labelled photos that detectors may be fitted on: none that any figure is measured on."""
    known = data.FaceBoxes(folder)
    photos: list[Photo] = []
    for source in face_task.LABELLED.values():
        faces = data.FacialKeypointsDataset(folder / source.csv, folder / source.folder)
        photos += [photo for photo in labelled_photos(faces, source.folder, known) if not photo.held_out]
    return spread(photos, count)
