"""How calm the points are in a clip, and how far behind a moving face.

    python benchmarks/jitter.py --write           # the table of docs/video.md
    python benchmarks/jitter.py --frames 60 --noise 8 --rate 15

The clips are made from the portraits in examples/: moved by a known amount from frame to frame, each frame
with noise of its own, as a sensor has it. So the true motion of every point is known. Jitter is how far a
point moves from one frame to the next beyond its true motion; error is its distance from where it lies in the
portrait at rest and without noise, moved along. Both are means, in percent of the distance between the outer
eye corners. Lag is how long ago the face was where its smoothed points are, compared with those that are not
smoothed. `detector` is the share of frames in which the face detector ran. Everything is seeded.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from benchmarks.published import DOCS, between_marks, parse_default  # noqa: E402
from fkp import FaceKeypoints, geometry, images, smoothing, tracking  # noqa: E402

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
    face: Portrait, motion: Motion, frames: int, rate: float, noise: float
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


def measure(
    model: FaceKeypoints, face: Portrait, motion: Motion, frames: int, rate: float, noise: float
) -> Row:
    """One clip, its points as they come and smoothed as the tracker does it."""
    tracker, smoother = tracking.Tracker(model, max_faces=1, smoothing=False), smoothing.Smoother()
    times, raw, calm, truth = [], [], [], []
    for seconds, picture, keypoints in clip(face, motion, frames, rate, noise):
        faces = tracker(picture, seconds)
        if faces.ids.tolist() != [1]:
            raise SystemExit(f"jitter.py: the face was lost at {seconds:.2f} s")
        times.append(seconds)
        raw.append(faces.keypoints[0].astype(np.float64))
        calm.append(smoother(raw[-1], seconds))
        truth.append(keypoints)
    return figures(np.array(times), np.array(raw), np.array(calm), np.array(truth), tracker.looks / frames)


def figures(times: np.ndarray, raw: np.ndarray, calm: np.ndarray, truth: np.ndarray, detector: float) -> Row:
    """From times (n,) and keypoints (n,68,2): as they come, smoothed, and true; after `SETTLED`."""
    percent = 100 / geometry.inter_ocular(truth)[:, None]
    counts = times >= SETTLED
    counts[0] = False  # has none before it

    def jitter(keypoints: np.ndarray) -> float:
        beyond = np.diff(keypoints - truth, axis=0)
        return float((np.linalg.norm(beyond, axis=-1) * percent[1:])[counts[1:]].mean())

    def error(keypoints: np.ndarray) -> float:
        return float((np.linalg.norm(keypoints - truth, axis=-1) * percent)[counts].mean())

    velocity = np.gradient(truth, times, axis=0)[counts]
    behind = -(velocity * (calm - raw)[counts]).sum() / max((velocity**2).sum(), 1e-9)
    return Row(jitter(raw), jitter(calm), error(raw), error(calm), 1000 * float(behind), 100 * detector)


def table(rows: dict[str, Row]) -> str:
    """Markdown."""
    lines = [
        "| the face | jitter | smoothed | error | smoothed | lag | detector |",
        "| --- | --: | --: | --: | --: | --: | --: |",
    ]
    for name, row in rows.items():
        lag = f"{row.lag_ms:.0f} ms" if name != "still" else ""
        percent = [f"{value:.2f} %" for value in (row.jitter_raw, row.jitter, row.error_raw, row.error)]
        lines.append(f"| {name} | " + " | ".join([*percent, lag, f"{row.detector:.0f} %"]) + " |")
    return "\n".join(lines)


def section(page: Path, rows: dict[str, Row]) -> str:
    """The text of a page with the table in its place, and the command that made it below."""
    made = f"{table(rows)}\n\nMade by `python benchmarks/jitter.py --write`."
    return between_marks(page, "jitter", {"jitter": made})


def main() -> int:
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="folder of the model (default: bundled)")
    parser.add_argument("--frames", type=int, default=90, help="of each clip (default: 90)")
    parser.add_argument("--rate", type=float, default=30.0, help="frames a second (default: 30)")
    parser.add_argument("--noise", type=float, default=4.0, help="of the sensor, grey levels (default: 4)")
    parser.add_argument("--write", action="store_true", help="put the table into docs/video.md")
    args = parse_default(parser)
    model = FaceKeypoints.from_pretrained(args.model)
    faces = [portrait(model, name) for name in PORTRAITS]
    rows = {}
    for name, motion in tqdm(MOTIONS.items(), unit="clip", leave=False, disable=None):
        clips = [measure(model, face, motion, args.frames, args.rate, args.noise) for face in faces]
        rows[name] = Row(*np.mean(clips, axis=0).tolist())
    print(table(rows))
    if args.write:
        (DOCS / "video.md").write_text(section(DOCS / "video.md", rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
