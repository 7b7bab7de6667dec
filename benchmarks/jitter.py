"""How calm the points are in a clip, and how far behind a moving face; docs/video.md tells what is measured.

    python benchmarks/jitter.py --write

Truth is where a point lies in the portrait at rest and without noise, moved along. Everything is seeded.
"""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np

from benchmarks import published
from benchmarks.published import ROOT, Table
from fkp import FaceKeypoints, geometry, images, smoothing, tracking

PORTRAITS = ("eileen_collins", "grace_hopper")
SIZE_WH = (640, 480)
SETTLED = 0.5
"""Seconds at the beginning that do not count."""

Motion = Callable[[float], tuple[float, float, float, float]]
"""Seconds → right, down (in distances between the eyes), degrees, and size."""

MOTIONS: dict[str, Motion] = {
    "still": lambda t: (0, 0, 0, 1),
    "held in the hand, trembling by 1 %": lambda t: (
        0.01 * np.sin(2 * np.pi * 3.1 * t), 0.01 * np.sin(2 * np.pi * 2.3 * t + 1), 0, 1,
    ),
    "to the right, half an eye distance a second": lambda t: (0.5 * t - 0.5, 0, 0, 1),
    "to and fro, two eye distances a second": lambda t: (2 * abs((t + 0.5) % 2 - 1) - 1, 0, 0, 1),
    "swaying, up to three eye distances a second": lambda t: (0.5 * np.sin(2 * np.pi * t), 0, 0, 1),
    "tilting by 12° to either side, in two seconds": lambda t: (0, 0, 12 * np.sin(np.pi * t), 1),
    "nearer and farther by a fifth, in two seconds": lambda t: (0, 0, 0, np.exp(0.2 * np.sin(np.pi * t))),
}  # fmt: skip


class Row(NamedTuple):
    """Figures of one clip: see the top."""

    jitter_raw: float
    jitter: float
    error_raw: float
    error: float
    lag_ms: float
    detector: float


class Portrait(NamedTuple):
    """A picture of `SIZE_WH` with one face: its keypoints (68,2) there, and the distance between its eyes."""

    image: np.ndarray
    keypoints: np.ndarray
    eyes: float


def portrait(model: FaceKeypoints, name: str) -> Portrait:
    """An example picture with its face in the middle."""
    image = images.read(ROOT / "examples" / f"{name}.jpg")
    middle = geometry.tight_boxes(model(image, max_faces=1).keypoints)[0].reshape(2, 2).mean(axis=0)
    move = np.column_stack([np.eye(2), np.array(SIZE_WH) / 2 - middle])
    image = cv2.warpAffine(image, move, SIZE_WH, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT)
    # From the box of its own points, as in a clip.
    keypoints = model(image, max_faces=1).keypoints
    keypoints = model.keypoints_at(image, geometry.tight_boxes(keypoints)).keypoints[0].astype(np.float64)
    return Portrait(image, keypoints, float(geometry.inter_ocular(keypoints)))


def moved(face: Portrait, motion: Motion, seconds: float) -> np.ndarray:
    """The 2×3 matrix that takes the portrait to a frame; turn and size are about the face's middle."""
    right, down, angle, size = motion(seconds)
    cos, sin = size * np.cos(np.radians(angle)), size * np.sin(np.radians(angle))
    linear = np.array([[cos, sin], [-sin, cos]])
    middle = face.keypoints.mean(axis=0)
    return np.column_stack([linear, middle - linear @ middle + face.eyes * np.array([right, down])])


def clip(
    face: Portrait, motion: Motion, frames: int = 90, rate: float = 30.0, noise: float = 4.0
) -> Iterator[tuple[float, np.ndarray, np.ndarray]]:
    """Seconds, picture (H,W,3) uint8 and true keypoints (68,2) of every frame."""
    rng = np.random.default_rng(0)
    for frame in range(frames):
        matrix = moved(face, motion, frame / rate)
        image = cv2.warpAffine(
            face.image, matrix, SIZE_WH, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REFLECT
        )
        noisy = image + noise * rng.standard_normal(image.shape, np.float32)
        picture = np.clip(noisy + 0.5, 0, 255).astype(np.uint8)
        yield frame / rate, picture, face.keypoints @ matrix[:, :2].T + matrix[:, 2]


def measure(model: FaceKeypoints, face: Portrait, motion: Motion, frames: int = 90) -> Row:
    """One clip, its points as they come and smoothed as the tracker does it."""
    tracker, smoother = tracking.Tracker(model, max_faces=1, smoothing=False), smoothing.Smoother()
    times, raw, calm, truth = [], [], [], []
    for seconds, picture, keypoints in clip(face, motion, frames):
        faces = tracker(picture, seconds)
        if faces.ids.tolist() != [1]:
            raise SystemExit(f"jitter.py: the face was lost at {seconds:.2f} s")
        times.append(seconds)
        raw.append(faces.keypoints[0].astype(np.float64))
        calm.append(smoother(raw[-1], seconds))
        truth.append(keypoints)
    detected = tracker.detector_runs / frames
    return figures(np.array(times), np.array(raw), np.array(calm), np.array(truth), detected)


def figures(times: np.ndarray, raw: np.ndarray, calm: np.ndarray, truth: np.ndarray, detector: float) -> Row:
    """From times (n,) and keypoints (n,68,2): as they come, smoothed, and true; after `SETTLED`."""
    percent = 100 / geometry.inter_ocular(truth)[:, None]
    counts = times >= SETTLED
    counts[0] = False  # has none before it

    def mean(apart: np.ndarray) -> float:
        return float((np.linalg.norm(apart, axis=-1) * percent)[counts].mean())

    trembling, calmer = (mean(np.diff(p - truth, axis=0, prepend=np.nan)) for p in (raw, calm))
    velocity = np.gradient(truth, times, axis=0)[counts]
    behind = -(velocity * (calm - raw)[counts]).sum() / max((velocity**2).sum(), 1e-9)
    lag_ms = 1000 * float(behind)
    return Row(trembling, calmer, mean(raw - truth), mean(calm - truth), lag_ms, 100 * detector)


def main() -> None:
    args = published.parse(published.parser(__doc__))
    model = FaceKeypoints.from_pretrained()
    faces = [portrait(model, name) for name in PORTRAITS]
    table = Table("the face", "jitter", "smoothed", "error", "smoothed", "lag", "detector")
    for name, motion in MOTIONS.items():
        clips = [measure(model, face, motion) for face in faces]
        *shares, lag_ms, detector = np.mean(clips, axis=0)
        percent = [f"{share:.2f} %" for share in shares]
        table.add(name, *percent, "" if name == "still" else f"{lag_ms:.0f} ms", f"{detector:.0f} %")
    published.publish_table(args, table, "docs/video.md", "jitter")


if __name__ == "__main__":
    main()
