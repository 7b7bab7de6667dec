"""The mean head of `fkp.measures`, and how its angles fit the pose groups of MERL-RAV.

python benchmarks/head_pose.py --data ../shared/data fit       prints the table of fkp/measures.py
python benchmarks/head_pose.py --data ../shared/data check     angles that follow from AFLW2000's labels
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from fkp import measures, scheme

INNER = list(scheme.INNER)
MIRRORED = [scheme.FLIP[point] - INNER[0] for point in INNER]
LEAST_POINTS = 18
"""A face with fewer points that are seen says too little."""


def labels(path: Path) -> np.ndarray:
    """Labels (n,51,2) of the inner points."""
    return pd.read_csv(path, index_col=0).to_numpy(float).reshape(-1, scheme.COUNT, 2)[:, INNER]


def training_faces(data: Path) -> np.ndarray:
    """Inner points (n,51,2) of the training sets, NaN where one cannot be seen."""
    seen = labels(data / "merl" / "aflw_train.csv")
    flags = pd.read_csv(data / "merl" / "aflw_train_visibility.csv", index_col=0).drop(columns="group")
    seen[flags.to_numpy()[:, INNER] != 1] = np.nan
    seen = seen[np.isfinite(seen[..., 0]).sum(axis=1) >= LEAST_POINTS]
    return np.concatenate([*(labels(data / "300w" / f"{name}.csv") for name in SETS), seen])


SETS = ("lfpw_train", "helen_train", "afw")


def fit_face(
    head: np.ndarray, points: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, float, np.ndarray]:
    """Rotation (3,3), scale and shift (2,) under weak perspective of one face, by Gauss-Newton."""
    shares = weights / weights.sum()
    model, seen = head - shares @ head, points - shares @ points
    root = np.sqrt(weights)[:, None]
    left, stretch, right = np.linalg.svd(
        np.linalg.lstsq(model * root, seen * root, rcond=None)[0].T, full_matrices=False
    )
    rows, scale = left @ right, float(stretch.mean())
    rotation = np.vstack([rows, np.cross(rows[0], rows[1])])
    for _ in range(8):
        turned = model @ rotation.T
        x, y, z = turned.T
        zero = np.zeros_like(x)
        jacobian = scale * np.stack([np.stack([zero, z, -y, x], 1), np.stack([-z, zero, x, y], 1)], 1)
        residual = seen - scale * turned[:, :2]
        normal = np.einsum("p,pai,paj->ij", weights, jacobian, jacobian)
        normal += 1e-3 * np.trace(normal) / 4 * np.eye(4)
        step = np.linalg.solve(normal, np.einsum("p,pai,pa->i", weights, jacobian, residual)).clip(-0.5, 0.5)
        rotation, scale = cv2.Rodrigues(step[:3])[0] @ rotation, scale * float(np.exp(step[3]))
    return rotation, scale, shares @ points - scale * (rotation @ (shares @ head))[:2]


def fit(faces: np.ndarray, head: np.ndarray, rounds: int = 6) -> tuple[np.ndarray, np.ndarray]:
    """The mean head (51,3) and its spread (51,) by alternation, from a first head; mm, level and large as
    that.

    Each round fits every face to the head, then the head to all faces.
    """
    faces = faces / np.nanstd(faces, axis=(1, 2), keepdims=True)
    there, points = np.isfinite(faces[..., 0]).astype(float), np.nan_to_num(faces)
    first = head
    for _ in range(rounds):
        normal, right = np.zeros((51, 3, 3)), np.zeros((51, 3))
        squares, count = np.zeros(51), np.zeros(51)
        for seen, weights in zip(points, there, strict=True):
            rotation, scale, shift = fit_face(head, seen, weights)
            residual = (seen - shift) / scale - head @ rotation[:2].T
            if np.sqrt((weights @ residual**2).sum() / weights.sum() / 2) > 6:  # mm: no face like the others
                continue
            normal += weights[:, None, None] * (rotation[:2].T @ rotation[:2])
            right += weights[:, None] * ((seen - shift) / scale @ rotation[:2])
            squares, count = squares + weights * (residual**2).sum(axis=1) / 2, count + weights
        found = np.linalg.solve(normal + 1e-6 * np.eye(3), right[..., None])[..., 0]
        head = like(symmetric(found), first)
        print(f"changed by {np.abs(head - first).max():.2f} mm since the start", flush=True)
    spread = np.sqrt(squares / count)
    return head, (spread + spread[MIRRORED]) / 2


def symmetric(head: np.ndarray) -> np.ndarray:
    return (head + head[MIRRORED] * (-1, 1, 1)) / 2


def like(head: np.ndarray, other: np.ndarray) -> np.ndarray:
    """A head turned, scaled and shifted onto another: what a fit to pictures leaves open."""
    middle, target = head.mean(axis=0), other.mean(axis=0)
    left, stretch, right = np.linalg.svd((head - middle).T @ (other - target))
    scale = stretch.sum() / ((head - middle) ** 2).sum()
    return symmetric((head - middle) @ (left @ right) * scale + target)


def check(data: Path) -> pd.DataFrame:
    """Yaw, pitch and roll by pose group: from the labels of AFLW2000, those of hidden points left out."""
    folder = data / "merl"
    points = pd.read_csv(folder / "aflw_test.csv", index_col=0).to_numpy(float).reshape(-1, scheme.COUNT, 2)
    sigmas = np.where(np.isfinite(points[..., 0]), 0, 1e6)
    pose = measures.pose(np.nan_to_num(points), sigmas)
    groups = pd.read_csv(folder / "aflw_test_visibility.csv", index_col=0)["group"].to_numpy()
    table = pd.DataFrame({"group": groups, "yaw": pose.yaw, "pitch": pose.pitch, "roll": pose.roll})
    return table.groupby("group").quantile([0.1, 0.5, 0.9]).unstack().round(0)


def main() -> None:
    parser = argparse.ArgumentParser(description="The mean head of fkp.measures, made and checked.")
    parser.add_argument("what", choices=("fit", "check"))
    parser.add_argument("--data", type=Path, required=True, help="folder of the research data")
    args = parser.parse_args()
    if args.what == "check":
        print(check(args.data).to_string())
        return
    head, spread = fit(training_faces(args.data), measures.HEAD)
    for point, place, mm in zip(INNER, head, spread, strict=True):
        print(f"{point}: ({place[0]:.1f}, {place[1]:.1f}, {place[2]:.1f}, {mm:.1f})")


if __name__ == "__main__":
    main()
