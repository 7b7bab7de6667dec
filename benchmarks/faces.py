"""The labelled faces that the figures come from, read once and kept in memory, and a model over them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from fkp import data, evaluation, geometry, metrics, pipeline, scheme

T = TypeVar("T")


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

AFLW = TestSet("aflw_test", "AFLW2000, labels of MERL-RAV", "AFLW2000",
               "merl/aflw_test.csv", "merl/aflw_test", "merl")  # fmt: skip

POSES = {"frontal": ("frontal",), "half-profile": ("lefthalf", "righthalf"), "profile": ("left", "right")}
"""Poses of AFLW2000, and their names among MERL-RAV's flags."""


@dataclass(frozen=True)
class Labelled:
    """n faces: `pictures` (n) of (H,W,3) uint8 RGB, `keypoints` (n,68,2) the labels, `names` of the files.

    Faces of one picture share it.
    """

    names: list[str]
    pictures: list[np.ndarray]
    keypoints: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    @property
    def boxes(self) -> np.ndarray:
        """The tight boxes (n,4) of the labels."""
        return geometry.tight_boxes(self.keypoints)


class Placed(NamedTuple):
    """What a model gives: `keypoints` (n,68,2), and (n,68) of each of the others; NaN for a missed face."""

    keypoints: np.ndarray
    scores: np.ndarray
    sigmas: np.ndarray
    visibility: np.ndarray


def spread(items: list[T], limit: int | None) -> list[T]:
    """`limit` of the items, spread evenly; all by default."""
    if limit is None or limit >= len(items):
        return items
    return [items[i] for i in np.linspace(0, len(items) - 1, limit).round().astype(int)]


def read(test: TestSet, folder: Path, limit: int | None = None) -> Labelled:
    """The faces of a set below the data folder; with `limit` so many of them, spread evenly."""
    faces = data.FacialKeypointsDataset(folder / test.csv, folder / test.folder)
    chosen = data.split(faces.names, test.held_out_by)[1] if test.held_out_by else list(range(len(faces)))
    chosen = spread(chosen, limit)
    pictures: dict[Path, np.ndarray] = {}
    for index in tqdm(chosen, f"reading {test.short}", unit="face", leave=False, disable=None):
        if faces.paths[index] not in pictures:
            pictures[faces.paths[index]] = faces[index]["image"]
    names = [f"{test.folder}/{faces.names[i]}" for i in chosen]
    return Labelled(names, [pictures[faces.paths[i]] for i in chosen], faces.keypoints[chosen])


def detect(model: pipeline.FaceKeypoints, faces: Labelled) -> np.ndarray:
    """The boxes (n,4) that the model's detector finds for the faces, NaN where it misses one."""
    boxes = np.full((len(faces), 4), np.nan, np.float32)
    names = np.array(faces.names)
    for name in tqdm(dict.fromkeys(faces.names), "detector", unit="picture", leave=False, disable=None):
        (here,) = np.nonzero(names == name)
        found, scores = model.face_detector(faces.pictures[here[0]])
        for labelled, detected in evaluation.match(faces.boxes[here], found, scores):
            boxes[here[labelled]] = found[detected]
    return boxes


def place(
    model: pipeline.FaceKeypoints, faces: Labelled, boxes: np.ndarray | None = None, what: str = "keypoints"
) -> Placed:
    """Keypoints in boxes (n,4), by default the true ones; `what` stands before the progress bar."""
    boxes = faces.boxes if boxes is None else boxes
    n = len(faces)
    placed = Placed(
        np.full((n, scheme.COUNT, 2), np.nan, np.float32), *np.full((3, n, scheme.COUNT), np.nan, np.float32)
    )
    for i in tqdm(range(n), what, unit="face", leave=False, disable=None):
        if np.isfinite(boxes[i]).all():
            found = model.keypoints_at(faces.pictures[i], boxes[i : i + 1])
            here = (found.keypoints, found.keypoint_scores, found.sigmas, found.visibility)
            for array, (values,) in zip(placed, here, strict=True):
                array[i] = values
    return placed


def poses(folder: Path, faces: Labelled) -> np.ndarray:
    """The pose (n,) of faces of `AFLW`, as MERL-RAV's flags call it."""
    names, groups, _ = data.read_visibility(folder / "merl/aflw_test_visibility.csv")
    of_name = dict(zip(names, groups, strict=True))
    return np.array([of_name[Path(name).name] for name in faces.names])


def nme_box_by_pose(
    keypoints: np.ndarray, truth: np.ndarray, groups: np.ndarray, poses: Mapping[str, tuple[str, ...]] = POSES
) -> dict[str, dict[str, Any]]:
    """Faces `n` and mean `nme_box` of each pose that there is, and of all."""
    errors = metrics.nme_box(keypoints, truth)
    chosen = {pose: np.isin(groups, names) for pose, names in poses.items()} | {"all": errors >= 0}
    return {
        pose: {"n": int(rows.sum()), "nme_box": round(float(errors[rows].mean()), 3)}
        for pose, rows in chosen.items() if rows.any()
    }  # fmt: skip


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
