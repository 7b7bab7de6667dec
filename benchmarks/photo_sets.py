"""Photos with what is known of the faces in them, and what detectors find there."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from benchmarks.faces import SETS, spread
from fkp import data, geometry, images, metrics
from fkp.faces import FaceDetector
from fkp.training import face_photos

LEAST_SCORE = 0.02
"""Boxes are asked for down to this score, once for each photo, and counted at any threshold from there."""

DOUBTFUL_IOU = 0.3
"""A box that overlaps a doubtful one by more than this is not held against a detector."""

CLOSE_UPS, CLOSE_UP_SIZE = 40, 512
"""Faces of LFPW's test set that are cut out at their box and enlarged to so many pixels."""

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
    """Photos of one kind: `title` says which; a face is found by a box of `least_iou`."""

    title: str
    photos: list[Photo]
    least_iou: float = metrics.LEAST_IOU


def read_sets(folder: Path, limit: int | None = None) -> dict[str, PhotoSet]:
    """The sets below the data folder by name; with `limit` so many photos of each, spread evenly."""
    known = data.FaceBoxes(folder)
    csvs = {test.name: (test.csv, test.folder) for test in SETS}
    ytf, lfpw = (labelled_photos(folder, *csvs[name], known) for name in ("ytf_test", "lfpw_test"))
    afw = [p for p in labelled_photos(folder, "300w/afw.csv", "300w/afw", known) if p.held_out]
    # Where not even a doubtful box was found.
    scenes = [p for p in boxed_photos(folder, "scenes", known) if not len(p.faces) + len(p.doubtful)]
    animals = [p for p in boxed_photos(folder, "animals", known) if p.held_out]
    sets = {
        "wider": PhotoSet("WIDER FACE val, a part", boxed_photos(folder, "wider/val_public", known), 0.4),
        "ytf_test": PhotoSet("YouTube Faces, course test split", ytf),
        "lfpw_test": PhotoSet("300-W, LFPW test", lfpw),
        "afw": PhotoSet("300-W, AFW, the third held out", afw),
        "close_ups": PhotoSet("close-ups, LFPW test", list(map(close_up, spread(lfpw, CLOSE_UPS)))),
        "no_faces": PhotoSet("photos without a face", boxed_photos(folder, "no_faces", known)),
        "scenes": PhotoSet("animals and things of ImageNet", scenes),
        "animals": PhotoSet("cats, dogs, raccoons, kangaroos, Lego and stones, the third held out", animals),
    }
    return {name: some._replace(photos=spread(some.photos, limit)) for name, some in sets.items()}


FACELESS = ("no_faces", "scenes", "animals")
"""Sets without a face, on which every box is a false one."""


def labelled_photos(folder: Path, csv: str, subfolder: str, known: data.FaceBoxes) -> list[Photo]:
    """The photos of the faces that a table labels, in the order of their names."""
    faces = data.FacialKeypointsDataset(folder / csv, folder / subfolder)
    boxes, names = geometry.tight_boxes(faces.keypoints), np.array(faces.names)
    may_train = subfolder in face_photos.LABELLED
    paths = dict(zip(faces.names, faces.paths, strict=True))
    return [
        Photo(
            f"{subfolder}/{name}", partial(images.read, paths[name]), boxes[names == name],
            known.of(f"{subfolder}/{name}", "detected", "ignore"),
            not may_train or face_photos.is_held_out(subfolder, name),
        )
        for name in np.unique(names).tolist()
    ]  # fmt: skip


def boxed_photos(folder: Path, subfolder: str, known: data.FaceBoxes) -> list[Photo]:
    """The photos of a folder with the boxes that people drew on them, if there are any."""
    photos = []
    for path in sorted((folder / subfolder).iterdir()):
        name = f"{subfolder}/{path.name}"
        # Photos that people have looked at: what a detector took for a face there is none.
        doubtful = NONE if subfolder == "no_faces" else known.of(name, "detected", "ignore")
        held_out = subfolder not in face_photos.FACELESS or face_photos.is_held_out(subfolder, path.name)
        photos.append(Photo(name, partial(images.read, path), known.of(name, "wider"), doubtful, held_out))
    return photos


def close_up(photo: Photo) -> Photo:
    """The first face of a photo cut out at its tight box, so that it fills the picture."""
    transform = geometry.CropTransform.around_box(photo.faces[0], CLOSE_UP_SIZE, 1.0)
    box = transform.to_crop(photo.faces[0].reshape(2, 2)).reshape(1, 4)
    return Photo(photo.name, lambda: transform.crop(photo.read()), box, NONE, photo.held_out)


@dataclass(frozen=True)
class Seen:
    """The boxes (n,4) that a detector finds in a photo, best first, and their scores (n,) float64."""

    photo: Photo
    boxes: np.ndarray
    scores: np.ndarray
    least_iou: float = metrics.LEAST_IOU

    @cached_property
    def own(self) -> np.ndarray:
        """The index (n,) of each box's own face, −1 for none; see `metrics.assign`."""
        return metrics.assign(geometry.iou(self.boxes, self.photo.faces), self.scores, self.least_iou)

    @cached_property
    def false(self) -> np.ndarray:
        """Which boxes (n,) are on no face and nothing doubtful."""
        doubtful = geometry.iou(self.boxes, self.photo.doubtful).max(axis=1, initial=0) > DOUBTFUL_IOU
        return (self.own < 0) & ~doubtful

    @cached_property
    def best(self) -> np.ndarray:
        """The score (m,) of each face's own box, 0 where it has none."""
        best = np.zeros(len(self.photo.faces))
        best[self.own[self.own >= 0]] = self.scores[self.own >= 0]
        return best


def detect(detectors: Mapping[str, FaceDetector], photos: PhotoSet) -> dict[str, list[Seen]]:
    """What each detector finds in the photos, each of which is read once."""
    seen: dict[str, list[Seen]] = {name: [] for name in detectors}
    for photo in tqdm(photos.photos, photos.title, unit="photo", leave=False, disable=None):
        image = photo.read()
        for name, detector in detectors.items():
            boxes, scores = detector(image, min_score=LEAST_SCORE)
            order = np.argsort(-scores, kind="stable")
            boxes, scores = boxes[order].astype(np.float64), scores[order].astype(np.float64)
            seen[name].append(Seen(photo, boxes, scores, photos.least_iou))
    return seen


def false_scores(seen: Iterable[Seen]) -> np.ndarray:
    """The scores (n,) of all false boxes."""
    return np.concatenate([each.scores[each.false] for each in seen] or [np.empty(0)])


def recall(seen: Iterable[Seen], min_score: float, sides: tuple[float, float] = (0, np.inf)) -> float | None:
    """Share found at a threshold, percent, of the faces whose longer side is in a range; None of none."""
    hits = [
        each.best[(side >= sides[0]) & (side < sides[1])] >= min_score
        for each in seen
        for side in [geometry.longer_sides(each.photo.faces)]
    ]
    found = np.concatenate(hits or [np.empty(0, bool)])
    return 100 * float(found.mean()) if len(found) else None
