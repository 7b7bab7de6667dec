"""What makes keypoints worse: small faces, turned pictures, boxes that are off, blur, JPEG, darkness.

Every condition changes a picture and its labels together, then the model is measured at the tight box of the
changed labels (for box noise: at a box that is off). `benchmarks/accuracy.py` runs it.
"""

import io
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import cv2
import numpy as np
from PIL import Image

from benchmarks.faces import Labelled, Placed, place, row
from fkp import geometry, pipeline

SEED = 0
NOISE = 4.0
"""Standard deviation of the noise in a dark picture, grey levels."""

Face = tuple[np.ndarray, np.ndarray, np.ndarray]
"""A picture (H,W,3) uint8 RGB, its labels (68,2), and the box (4,) that the model is given."""
Change = Callable[[np.ndarray, np.ndarray, float, np.random.Generator], Face | None]
"""(picture, labels, level, generator) → the face at that level, or None for one that cannot be had so."""


def shrunk(picture: np.ndarray, keypoints: np.ndarray, side: float, _: np.random.Generator) -> Face | None:
    """The longer side of the tight box is `side` pixels, by area averaging; None for a smaller face."""
    longer = float(np.ptp(keypoints, axis=0).max())
    if longer < side:
        return None
    height, width = picture.shape[:2]
    size_wh = (max(1, round(width * side / longer)), max(1, round(height * side / longer)))
    small = cv2.resize(picture, size_wh, interpolation=cv2.INTER_AREA)
    # Pixel i covers i − ½ to i + ½; the size is whole, so the factors of x and y differ a little.
    moved = (keypoints + 0.5) * np.divide(size_wh, (width, height)) - 0.5
    return _at_its_box(small, moved)


def turned(picture: np.ndarray, keypoints: np.ndarray, angle: float, _: np.random.Generator) -> Face:
    """The whole picture turned counter-clockwise by `angle` degrees, on a canvas that holds all of it."""
    height, width = picture.shape[:2]
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    linear = np.array([[cos, sin], [-sin, cos]])
    corners = np.array([[0, 0], [width - 1, 0], [0, height - 1], [width - 1, height - 1]]) @ linear.T
    offset = -corners.min(axis=0)
    # The rounding keeps a sine of 1e-16 from adding a row.
    size_wh = (np.ceil(np.ptp(corners, axis=0).round(6)) + 1).astype(int).tolist()
    canvas = cv2.warpAffine(picture, np.column_stack([linear, offset]), size_wh, flags=cv2.INTER_LINEAR)
    return _at_its_box(canvas, keypoints @ linear.T + offset)


def shifted_box(picture: np.ndarray, keypoints: np.ndarray, sigma: float, rng: np.random.Generator) -> Face:
    """The box moved in x and in y by a Gaussian of `sigma` percent of its longer side."""
    box = geometry.tight_boxes(keypoints)
    side = (box[2:] - box[:2]).max()
    return picture, keypoints, box + np.tile(rng.normal(size=2) * sigma / 100 * side, 2)


def scaled_box(picture: np.ndarray, keypoints: np.ndarray, sigma: float, rng: np.random.Generator) -> Face:
    """The box about its middle larger or smaller by a factor whose logarithm is Gaussian, `sigma` percent."""
    box = geometry.tight_boxes(keypoints)
    middle, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2
    half = half * math.exp(rng.normal() * sigma / 100)
    return picture, keypoints, np.concatenate([middle - half, middle + half])


def blurred(picture: np.ndarray, keypoints: np.ndarray, share: float, _: np.random.Generator) -> Face:
    """Gaussian blur with a sigma of `share` percent of the inter-ocular distance."""
    sigma = share / 100 * float(geometry.inter_ocular(keypoints))
    return _at_its_box(cv2.GaussianBlur(picture, (0, 0), sigma), keypoints)


def compressed(picture: np.ndarray, keypoints: np.ndarray, quality: float, _: np.random.Generator) -> Face:
    """Through JPEG of that quality, and back."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=round(quality))
    return _at_its_box(np.array(Image.open(file)), keypoints)


def darkened(picture: np.ndarray, keypoints: np.ndarray, light: float, rng: np.random.Generator) -> Face:
    """Pixels times `light` percent, with noise of 4 grey levels, rounded: the fine shades are gone."""
    dark = picture * (light / 100) + NOISE * rng.standard_normal(picture.shape, np.float32)
    return _at_its_box(dark.round().clip(0, 255).astype(np.uint8), keypoints)


def _at_its_box(picture: np.ndarray, keypoints: np.ndarray) -> Face:
    return picture, keypoints, geometry.tight_boxes(keypoints)


class Condition(NamedTuple):
    """One way to make it hard, at several levels."""

    name: str
    title: str
    level: str
    """How a level is written, with {} for the number."""
    levels: tuple[float, ...]
    change: Change
    passes: tuple[int | str, ...] = (1,)


CONDITIONS = (
    Condition("size", "Face size", "{} px", (100, 60, 40, 30, 20), shrunk),
    Condition("turn", "Turned in the plane", "{}°", (15, 30, 45, 60, 90, 120, 150, 180), turned, (1, "auto")),
    Condition("shift", "Box shifted", "σ {} % of its side", (2, 5, 10), shifted_box, (1, "auto")),
    Condition("scale", "Box too large or small", "σ {} %", (2, 5, 10), scaled_box, (1, "auto")),
    Condition("blur", "Blur", "σ {} % of the inter-ocular distance", (2, 4, 8), blurred),
    Condition("jpeg", "JPEG", "quality {}", (50, 20, 10), compressed),
    Condition("dark", "Darkness", "{} % of the light, noise", (50, 25, 10), darkened),
)


def directions(condition: Condition, level: float) -> tuple[float, ...]:
    """Turning is measured in both directions where they differ."""
    return (level, -level) if condition.change is turned and level % 180 else (level,)


def changed(faces: Labelled, condition: Condition, level: float) -> tuple[Labelled, np.ndarray]:
    """The faces under a condition, and the boxes (n,4) to look at; faces that cannot be had are left out.

    Turned faces come twice, in either direction. The draws depend on a face's place in the set only, so
    that every level sees the same ones.
    """
    kept: list[tuple[str, Face]] = []
    for signed in directions(condition, level):
        for i, (picture, points) in enumerate(zip(faces.pictures, faces.keypoints, strict=True)):
            rng = np.random.default_rng((SEED, i))
            face = condition.change(picture, points.astype(np.float64), signed, rng)
            kept += [] if face is None else [(faces.names[i], face)]
    keypoints = np.array([face[1] for _, face in kept]).reshape(-1, 68, 2)
    boxes = np.array([face[2] for _, face in kept]).reshape(-1, 4)
    return Labelled([name for name, _ in kept], [face[0] for _, face in kept], keypoints), boxes


def measure(
    models: Mapping[int | str, pipeline.FaceKeypoints], faces: Labelled, untouched: Mapping[int | str, Placed]
) -> list[dict[str, Any]]:
    """A row of figures for each condition, passes and level, and first the `untouched` faces.

    `models` and `untouched` are by their passes. Rows are those of `faces.row`, with `condition`,
    `passes` and `level`.
    """
    rows = [
        {"condition": "none", "passes": passes, "level": None, **row(placed, faces.keypoints)}
        for passes, placed in untouched.items()
    ]
    for condition in CONDITIONS:
        for level in condition.levels:
            hard, boxes = changed(faces, condition, level)
            for passes in condition.passes:
                placed = place(models[passes], hard, boxes, f"{condition.title}, {level:g}")
                figures = row(placed, hard.keypoints)
                figures["n"] //= len(directions(condition, level))
                rows.append({"condition": condition.name, "passes": passes, "level": level, **figures})
    return rows


def box_errors(found: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """Mean and standard deviation, in percent, of how boxes (n,4) differ from true ones; NaN is a missed one.

    `dx`, `dy`: the middle, of the longer true side · `dw`, `dh`, `side`: width, height and longer side, of
    the true one.
    """
    known = ~np.isnan(found).any(axis=1)
    found, truth = found[known].astype(np.float64), truth[known].astype(np.float64)
    sizes, true_sizes = found[:, 2:] - found[:, :2], truth[:, 2:] - truth[:, :2]
    sides, true_sides = sizes.max(axis=1, initial=0), true_sizes.max(axis=1, initial=0)
    moved = (found[:, :2] + found[:, 2:] - truth[:, :2] - truth[:, 2:]) / 2 / true_sides[:, None]
    grown, side = sizes / true_sizes - 1, sides / true_sides - 1
    columns = {"dx": moved[:, 0], "dy": moved[:, 1], "dw": grown[:, 0], "dh": grown[:, 1], "side": side}
    return {"n": len(known), "missed": int((~known).sum())} | {
        name: [round(100 * float(f(values)), 2) for f in (np.mean, np.std)] if len(values) else None
        for name, values in columns.items()
    }
