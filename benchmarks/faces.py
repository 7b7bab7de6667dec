"""The labelled faces that the figures come from, read once and kept in memory, and a model over them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from fkp import data, evaluation, geometry, metrics, pipeline


class TestSet(NamedTuple):
    """A set of labelled faces; `held_out_by` keeps only what `data.split` leaves out of training."""

    name: str
    title: str
    short: str
    csv: str
    folder: str
    style: str
    """The labelling style of its own."""
    held_out_by: Callable[[str], str] | None = None


SETS = (
    TestSet("ytf_held_out", "YouTube Faces, people held out of training", "YTF, people held out",
            "ytf/training_frames_keypoints.csv", "ytf/training", "ytf", data.person),
    TestSet("ytf_test", "YouTube Faces, course test split (its people occur in training)", "YTF, test split",
            "ytf/test_frames_keypoints.csv", "ytf/test", "ytf"),
    TestSet("lfpw_test", "300-W, LFPW test", "300-W, LFPW test", "300w/lfpw_test.csv", "300w/lfpw_test",
            "300w"),
)  # fmt: skip

HELD_OUT = (
    SETS[0],
    *(
        TestSet("300w_held_out", "300-W, photos held out of training", "300-W, photos held out",
                source.csv, source.folder, source.style, source.key)
        for source in data.TRAINING_SOURCES if source.style == "300w"
    ),
)  # fmt: skip
"""What was kept out of training; 300-W lies in several folders."""


@dataclass(frozen=True)
class Labelled:
    """n faces: `pictures` (n) of (H,W,3) uint8 RGB, `keypoints` (n,68,2) the labels, `names` of the files.

    Faces of one picture share it. Raises ValueError where the points of a face lie on a line.
    """

    names: list[str]
    pictures: list[np.ndarray]
    keypoints: np.ndarray

    def __post_init__(self) -> None:
        boxes = self.boxes
        flat = np.flatnonzero((boxes[:, 2:] <= boxes[:, :2]).any(axis=1))
        if len(flat):
            raise ValueError(f"the points of {self.names[flat[0]]} lie on a line, that is no face")

    def __len__(self) -> int:
        return len(self.names)

    @property
    def boxes(self) -> np.ndarray:
        """The tight boxes (n,4) of the labels."""
        return geometry.tight_boxes(self.keypoints)


class Placed(NamedTuple):
    """`keypoints` (n,68,2), `scores` (n,68) and `sigmas` (n,68) that a model gives; NaN for a missed face."""

    keypoints: np.ndarray
    scores: np.ndarray
    sigmas: np.ndarray

    def at(self, chosen: np.ndarray) -> Placed:
        """Some of the faces, by anything that indexes an array's first axis."""
        return Placed(*(array[chosen] for array in self))


def read(test: TestSet, folder: Path, limit: int | None = None) -> Labelled:
    """The faces of a set below the data folder; with `limit` so many of them, spread evenly."""
    faces = data.FacialKeypointsDataset(folder / test.csv, folder / test.folder)
    chosen = data.split(faces.names, test.held_out_by)[1] if test.held_out_by else list(range(len(faces)))
    if limit is not None and limit < len(chosen):
        chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, limit).round().astype(int)]
    pictures: dict[Path, np.ndarray] = {}
    for index in tqdm(chosen, f"reading {test.short}", unit="face", leave=False, disable=None):
        if faces.paths[index] not in pictures:
            pictures[faces.paths[index]] = faces[index]["image"]
    names = [f"{test.folder}/{faces.names[i]}" for i in chosen]
    return Labelled(names, [pictures[faces.paths[i]] for i in chosen], faces.keypoints[chosen])


def detect(model: pipeline.FaceKeypoints, faces: Labelled) -> np.ndarray:
    """The boxes (n,4) that the model's detector finds for the faces, NaN where it misses one."""
    boxes = np.full((len(faces), 4), np.nan, np.float32)
    in_picture: dict[str, list[int]] = {}
    for place, name in enumerate(faces.names):
        in_picture.setdefault(name, []).append(place)
    for places in tqdm(in_picture.values(), "detector", unit="picture", leave=False, disable=None):
        boxes[places] = evaluation.detect(model, faces.pictures[places[0]], faces.boxes[places])
    return boxes


def place(
    model: pipeline.FaceKeypoints, faces: Labelled, boxes: np.ndarray | None = None, what: str = "keypoints"
) -> Placed:
    """Keypoints in boxes (n,4), by default the true ones; `what` stands before the progress bar."""
    boxes = faces.boxes if boxes is None else boxes
    pairs = zip(faces.pictures, boxes, strict=True)
    bar = tqdm(pairs, what, len(faces), unit="face", leave=False, disable=None)
    placed = [evaluation.place_at(model, picture, box[None]) for picture, box in bar]
    if not placed:
        none = np.empty((0, 68), np.float32)
        return Placed(np.empty((0, 68, 2), np.float32), none, none)
    return Placed(*(np.concatenate(parts) for parts in zip(*placed, strict=True)))


def hits(errors: np.ndarray) -> np.ndarray:
    """Whether errors, percent of the inter-ocular distance, are within what a keypoint score speaks of."""
    return errors <= 100 * pipeline.RADIUS


def row(placed: Placed, truth: np.ndarray) -> dict[str, Any]:
    """Figures of placed faces, none of them missed, against labels (n,68,2).

    NME and failures in percent; `score`, the mean keypoint score, and `within`, the share of points within
    5 % of the inter-ocular distance, are the same (0..1) for scores that are calibrated.
    """
    figures = evaluation.summarise(placed.keypoints, truth)
    kept: dict[str, Any] = {key: figures[key] for key in ("n", "nme", "nme_inner", "fr8")}
    if not figures["n"]:
        return kept | {"score": None, "within": None}
    within = hits(metrics.point_errors(placed.keypoints, truth)).mean()
    return kept | {"score": round(float(placed.scores.mean()), 4), "within": round(float(within), 4)}
