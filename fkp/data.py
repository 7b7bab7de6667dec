"""CSV + pictures → `FacialKeypointsDataset`, its transforms, and the split by person and by photo.

A CSV has one row a face: the picture's file name, then x0,y0,…,x67,y67 in pixels of that picture. Cells may
be empty: such a point has no label, and is NaN.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from csv import Error as CsvError
from csv import reader
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import pandas as pd
import torch
from torch import Generator
from torch.utils.data import Dataset
from torchvision import tv_tensors

from fkp import geometry, images, scheme

Sample = dict[str, Any]
"""`{"image", "keypoints"}`: (H,W,3) uint8 RGB and (68,2) float32 xy, or what the transforms make of them."""

COLUMNS = 2 * scheme.COUNT
FAR_OUTSIDE = 0.5
"""A point may lie beyond the picture's edge by this share of its longer side: faces do get cut off."""
HELD_OUT = 7
"""One person, or photo, in this many is kept out of training."""


class DataError(ValueError):
    """Everything that is wrong with a CSV and its pictures, a line each."""


class FacialKeypointsDataset(Dataset[Sample]):
    """Faces of one or several CSVs; a sample is `{"image": (H,W,3) uint8 RGB, "keypoints": (68,2) float32}`.

    `csv` and `images_folder` are a path or a list of paths each (one folder may serve all CSVs); a picture
    may stand in several rows. `transform` takes and returns a sample.
    Raises DataError that lists every row at fault, before anything is trained.
    """

    def __init__(
        self,
        csv: str | Path | Sequence[str | Path],
        images_folder: str | Path | Sequence[str | Path],
        transform: Callable[[Sample], Sample] | None = None,
    ) -> None:
        csvs = [Path(csv)] if isinstance(csv, (str, Path)) else [Path(c) for c in csv]
        if isinstance(images_folder, (str, Path)):
            folders = [Path(images_folder)] * len(csvs)
        else:
            folders = [Path(folder) for folder in images_folder]
        if len(csvs) != len(folders):
            raise DataError(f"{len(csvs)} CSVs but {len(folders)} folders: one for each is needed")
        self.transform = transform
        self.names: list[str] = []
        """File name of the picture of each face."""
        self.paths: list[Path] = []
        points, problems = [], []
        for path, folder in zip(csvs, folders, strict=True):
            names, keypoints, found = _read(path, folder)
            self.names += names
            self.paths += [folder / name for name in names]
            points.append(keypoints)
            problems += found
        if problems:
            raise DataError("\n".join(problems))
        self.keypoints = np.concatenate(points) if points else np.empty((0, 68, 2), np.float32)
        """Keypoints (n,68,2) of all faces, pixels of their pictures."""

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        sample = {"image": images.read(self.paths[index]), "keypoints": self.keypoints[index].copy()}
        return sample if self.transform is None else self.transform(sample)


def _read(csv: Path, folder: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """Names, keypoints (n,68,2) and a sentence for every fault of one CSV."""
    none = np.empty((0, scheme.COUNT, 2), np.float32)
    try:
        with open(csv, newline="", encoding="utf-8") as file:
            header, *rows = list(reader(file)) or [[]]
    except FileNotFoundError:
        return [], none, [f"{csv}: there is no such file"]
    except (CsvError, UnicodeDecodeError, OSError) as error:
        return [], none, [f"{csv}: not a CSV of keypoints ({error})"]
    if len(header) != COLUMNS + 1:
        what = f"a CSV of keypoints has {COLUMNS + 1}: the picture's name and {scheme.COUNT} points"
        found = f"its first row has {len(header)} columns" if header else "it is empty"
        return [], none, [f"{csv}: {found}; {what}"]
    rows, problems = [row for row in rows if row], []
    names = [row[0] for row in rows]
    numbers = np.full((len(rows), COLUMNS), np.nan, np.float32)
    sizes: dict[str, tuple[int, int] | str] = {}
    for row, (name, *cells) in enumerate(rows):
        where = f"{csv}, row {row + 2} ({name or 'no picture named'})"
        if len(cells) != COLUMNS:
            more = "more than " if len(cells) > COLUMNS else f"{len(cells)} of "
            problems.append(f"{where}: {more}{COLUMNS} numbers")
        elif fault := _fill(numbers[row], cells):
            problems.append(f"{where}: {fault}")
        if name not in sizes:
            sizes[name] = _size(folder / name)
        size = sizes[name]
        if isinstance(size, str):
            problems.append(f"{where}: {size}")
            continue
        x, y = numbers[row, 0::2], numbers[row, 1::2]
        beyond = np.maximum.reduce([-x, x - (size[0] - 1), -y, y - (size[1] - 1)])
        if np.fmax.reduce(beyond) > FAR_OUTSIDE * max(size):
            point = int(np.nanargmax(beyond))
            problems.append(
                f"{where}: point {point} at ({x[point]:g}, {y[point]:g}) is far outside "
                f"the {size[0]}×{size[1]} picture"
            )
    return names, numbers.reshape(-1, scheme.COUNT, 2), problems


def _fill(numbers: np.ndarray, cells: list[str]) -> str | None:
    """Write the cells of a row as numbers (136,), NaN where empty; what is wrong with them, if anything."""
    for column, cell in enumerate(cells):
        try:
            numbers[column] = float(cell) if cell else np.nan
        except ValueError:
            numbers[column] = np.inf
        if np.isinf(numbers[column]) or (cell and np.isnan(numbers[column])):
            numbers[:] = np.nan
            return f"no number in column {column}: {cell!r}"
    x, y = np.isfinite(numbers[0::2]), np.isfinite(numbers[1::2])
    if (halves := np.flatnonzero(x != y)).size:
        numbers[:] = np.nan
        return f"point {halves[0]} has one coordinate only"
    return None if x.sum() > 1 else "fewer than two points have a label"


def read_visibility(csv: Path) -> tuple[list[str], list[str], np.ndarray]:
    """File names, pose groups and flags (n,68) int8 of MERL-RAV's visibility: a row for each face.

    0: turned away, the head itself hides the point · 1: visible · 2: covered by something.
    """
    table = pd.read_csv(csv)
    flags = table[[str(point) for point in range(scheme.COUNT)]].to_numpy(np.int8)
    return table["image"].tolist(), table["group"].tolist(), flags


def _size(path: Path) -> tuple[int, int] | str:
    """Width and height of a picture, or what is wrong with it."""
    if not path.is_file():
        return f"there is no picture {path}"
    try:
        return images.size_wh(path)
    except images.ImageError as error:
        return str(error)


# --- Splitting ---------------------------------------------------------------------------------------------


def person(name: str) -> str:
    """The person on a YouTube Faces frame: its file name up to the last `_NN`."""
    return re.sub(r"_\d+$", "", Path(name).stem)


def photo(name: str) -> str:
    """The photo that a 300-W picture was cut from: `100032540_1` and `100032540_2` are one photo."""
    return re.sub(r"(?<=\d)_\d+$", "", Path(name).stem)


def is_held_out(key: str) -> bool:
    """Whether a person or photo is kept out of training; the same on every machine, one in HELD_OUT."""
    return int(hashlib.sha1(key.encode()).hexdigest(), 16) % HELD_OUT == 0


def split(names: Sequence[str], key: Callable[[str], str]) -> tuple[list[int], list[int]]:
    """Indices of `names` for training and held out; `key` is `person` or `photo`."""
    held = [is_held_out(key(name)) for name in names]
    return [i for i, out in enumerate(held) if not out], [i for i, out in enumerate(held) if out]


class Source(NamedTuple):
    """A labelled set below the data folder, its labelling style, and what its held-out part is split by.

    `visibility` is the CSV of its flags, see `read_visibility`, where it has them.
    """

    csv: str
    folder: str
    style: str
    key: Callable[[str], str]
    visibility: str | None = None


TRAINING_SOURCES = (
    Source("ytf/training_frames_keypoints.csv", "ytf/training", "ytf", person),
    Source("300w/lfpw_train.csv", "300w/lfpw_train", "300w", photo),
    Source("300w/helen_train.csv", "300w/helen_train", "300w", photo),
    Source("300w/afw.csv", "300w/afw", "300w", photo),
)
"""What both networks are trained on. The test sets are not among them, and never will be."""

MERL = Source("merl/aflw_train.csv", "merl/aflw_train", "merl", photo, "merl/aflw_train_visibility.csv")
"""AFLW with MERL-RAV's labels, as tight crops: for the keypoint network."""


class FaceBoxes:
    """What a data folder's `face_boxes.csv` knows: tight boxes, `labelled`, `detected` or to `ignore`.

    A picture is called by its path below the data folder. Raises FileNotFoundError naming what is missing.
    """

    def __init__(self, folder: Path) -> None:
        table = pd.read_csv(folder / "face_boxes.csv")
        corners = table[["x1", "y1", "x2", "y2"]].to_numpy(np.float64)
        self._rows = list(zip(table["image"], table["kind"], corners, strict=True))
        self._boxes: dict[tuple[str, str], list[np.ndarray]] = {}
        for image, kind, box in self._rows:
            self._boxes.setdefault((image, kind), []).append(box)

    def of(self, image: str, *kinds: str) -> np.ndarray:
        """Boxes (n,4) of these kinds in a picture."""
        return np.array([box for kind in kinds for box in self._boxes.get((image, kind), [])]).reshape(-1, 4)

    def each(self, kind: str) -> Iterator[tuple[str, np.ndarray]]:
        """Pictures and boxes (4,) of a kind, in the order of the file."""
        return ((image, box) for image, other, box in self._rows if other == kind)


# --- Transforms of a sample --------------------------------------------------------------------------------


@dataclass(frozen=True)
class FaceCrop:
    """Rescale, random crop, rotation and mirror, as one warp of picture and keypoints together.

    The face's tight box, enlarged by `margin`, becomes a square of `crop_size` pixels. Random, uniform:
    `rotation` in ±degrees, `scale` as a (least, most) factor, `shift` in ±fractions of the box's longer
    side; `mirror` is a probability. The defaults draw nothing.
    """

    crop_size: int
    margin: float
    rotation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    mirror: float = 0.0

    def draw(self, box: np.ndarray, generator: Generator | None = None) -> geometry.CropTransform:
        """A random transform for a face in a tight box (4,); from torch's global generator by default."""
        turn, zoom, right, down, side = torch.rand(5, generator=generator).tolist()
        least, most = self.scale
        return geometry.CropTransform.around_box(
            box,
            self.crop_size,
            self.margin,
            angle=self.rotation * (2 * turn - 1),
            # Uniform in the logarithm: enlarging by 1.2 is as likely as shrinking by 1.2.
            scale=float(least * (most / least) ** zoom),
            shift_xy=(self.shift * (2 * right - 1), self.shift * (2 * down - 1)),
            mirrored=side < self.mirror,
        )

    def __call__(self, sample: Sample) -> Sample:
        transform = self.draw(geometry.tight_boxes(sample["keypoints"]))
        return {
            **sample,
            "image": transform.crop(sample["image"]),
            "keypoints": transform.keypoints_to_crop(sample["keypoints"]),
        }


class ToTensors:
    """A sample as `tv_tensors`: Image (3,H,W) uint8 and KeyPoints (68,2), for any torchvision v2 transform.

    A v2 flip moves the points but does not swap left and right: use `FaceCrop(mirror=…)`.
    """

    def __call__(self, sample: Sample) -> Sample:
        height, width = sample["image"].shape[:2]
        pixels = torch.from_numpy(np.ascontiguousarray(sample["image"])).permute(2, 0, 1)
        points = torch.from_numpy(np.asarray(sample["keypoints"], np.float32))
        keypoints = tv_tensors.KeyPoints(points, canvas_size=(height, width))
        return {**sample, "image": tv_tensors.Image(pixels), "keypoints": keypoints}


class Normalize:
    """Image (3,H,W) uint8 → float, about −1..1; keypoints → the same scale, 0 at the picture's middle."""

    def __call__(self, sample: Sample) -> Sample:
        image, keypoints = sample["image"], sample["keypoints"]
        size = torch.tensor([image.shape[-1], image.shape[-2]], dtype=torch.float32)
        points = (keypoints.as_subclass(torch.Tensor) - (size - 1) / 2) / (size / 2)
        return {**sample, "image": image.as_subclass(torch.Tensor).float() / 127.5 - 1, "keypoints": points}


@dataclass(frozen=True)
class Photometry:
    """Random light, colour, sharpness, noise, compression and occlusion; moves no point.

    Each number but the limits is the probability of a change. A tenth of a millisecond to one for a crop of
    112 pixels, where the same from torchvision took two: training on a CPU feels that.
    """

    light: float = 0.75
    """Contrast, brightness, gamma and colour cast, as one look-up table."""
    dark: float = 0.08
    colour: float = 0.35
    """More or less saturated, a third of the time grey."""
    occlusion: float = 0.3
    """Half of the time a piece of another face, half of the time an ellipse of one colour."""
    low_resolution: float = 0.25
    least_resolution: float = 0.15
    """The smallest factor by which `low_resolution` shrinks before it enlarges back."""
    blur: float = 0.12
    noise: float = 0.15
    compression: float = 0.15

    def __call__(self, sample: Sample) -> Sample:
        """The changed sample, its image (H,W,3) uint8 RGB; draws from torch's global generator."""
        seed = int(torch.randint(2**62, ()))
        return {**sample, "image": self.change(sample["image"], np.random.default_rng(seed))}

    def cover(
        self, image: np.ndarray, generator: np.random.Generator, other: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The image with a part covered, or not, and a mask (H,W) of what is; `other` covers it."""
        return covered(image, other, generator) if generator.random() < self.occlusion else (image, None)

    def change(
        self, image: np.ndarray, generator: np.random.Generator, other: np.ndarray | None = None
    ) -> np.ndarray:
        """The changed image (H,W,3) uint8; `other`, of the same size, is what covers parts of it."""
        image, _ = self.cover(image, generator, image if other is None else other)
        return self.recolour(image, generator)

    def recolour(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The image with its light, colour, sharpness, noise and compression changed, nothing covered."""
        draw = generator.random
        if draw() < self.light:
            image = cv2.LUT(image, _light(generator, dark=draw() < self.dark / max(self.light, 1e-6)))
        if draw() < self.colour:
            grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
            kept = 0.0 if draw() < 1 / 3 else generator.uniform(0.4, 1.4)
            image = cv2.addWeighted(image, kept, grey, 1 - kept, 0)
        if draw() < self.low_resolution:
            width, height = image.shape[1::-1]
            factor = generator.uniform(self.least_resolution, 0.7)
            small_wh = max(1, round(width * factor)), max(1, round(height * factor))
            how = cv2.INTER_LINEAR if draw() < 0.7 else cv2.INTER_CUBIC
            small = cv2.resize(image, small_wh, interpolation=cv2.INTER_AREA)
            image = cv2.resize(small, (width, height), interpolation=how)
        if draw() < self.blur:
            image = _blurred(image, generator)
        if draw() < self.noise:
            noise = generator.standard_normal(image.shape, np.float32) * np.float32(generator.uniform(3, 18))
            image = (image + noise).clip(0, 255).astype(np.uint8)
        if draw() < self.compression:
            quality = [cv2.IMWRITE_JPEG_QUALITY, int(generator.integers(10, 60))]
            image = np.asarray(cv2.imdecode(cv2.imencode(".jpg", image, quality)[1], cv2.IMREAD_COLOR))
        return image


def _light(generator: np.random.Generator, dark: bool) -> np.ndarray:
    """A table (256,1,3) of new values for old: contrast around mid grey, gamma, brightness, colour cast."""
    contrast, brightness = generator.uniform(0.65, 1.4), generator.uniform(-35, 35)
    if dark:
        contrast, brightness = contrast * generator.uniform(0.15, 0.5), generator.uniform(-10, 10)
    gamma, cast = np.exp(generator.uniform(-0.4, 0.4)), generator.uniform(0.92, 1.08, 3)
    values = 255 * (np.arange(256)[:, None] / 255) ** gamma
    # What is dark goes towards black, not towards grey.
    table = (values - 110) * contrast * cast + 110 * min(1.0, contrast) + brightness
    return table.clip(0, 255).astype(np.uint8).reshape(256, 1, 3)


def occluded(image: np.ndarray, other: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The image (H,W,3) with a part covered, see `covered`."""
    return covered(image, other, generator)[0]


def covered(
    image: np.ndarray, other: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The image (H,W,3) with a part covered, by a piece of the other one or one colour, and a mask (H,W).

    Real texture hides a point better than a flat colour does (compare Zhong et al.,
    https://arxiv.org/abs/1708.04896); the ellipses stand for fingers, hats and microphones.
    """
    height, width = image.shape[:2]
    h, w = (generator.uniform(0.1, 0.45, 2) * (height, width)).astype(int)
    top = int(generator.uniform(-0.2 * h, height - 0.8 * h))
    left = int(generator.uniform(-0.2 * w, width - 0.8 * w))
    image, mask = image.copy(), np.zeros((height, width), np.uint8)
    if generator.random() < 0.5:
        y1, x1, y2, x2 = max(top, 0), max(left, 0), min(top + h, height), min(left + w, width)
        y, x = generator.integers(0, height - (y2 - y1) + 1), generator.integers(0, width - (x2 - x1) + 1)
        image[y1:y2, x1:x2] = other[y : y + y2 - y1, x : x + x2 - x1]
        mask[y1:y2, x1:x2] = 1
        return image, mask
    ellipse = (left + w / 2, top + h / 2), (float(w), 1.3 * h), generator.uniform(0, 180)
    cv2.ellipse(mask, ellipse, [1], -1)
    if generator.random() < 0.3:
        np.copyto(image, other, where=mask.astype(bool)[..., None])
        return image, mask
    y, x = generator.integers(0, height), generator.integers(0, width)
    colour = generator.integers(0, 256, 3) if generator.random() < 0.4 else other[y, x]
    return cv2.ellipse(image, ellipse, [int(c) for c in colour], -1), mask


def _blurred(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The image out of focus, or moved while it was taken."""
    if generator.random() < 0.6:
        return cv2.GaussianBlur(image, (0, 0), generator.uniform(0.4, 2.2))
    size, angle = int(generator.integers(3, 10)), generator.uniform(0, np.pi)
    middle, kernel = (size - 1) / 2, np.zeros((size, size), np.float32)
    right, down = middle * np.cos(angle), middle * np.sin(angle)
    start, end = (round(middle - right), round(middle - down)), (round(middle + right), round(middle + down))
    cv2.line(kernel, start, end, (1.0,))
    return cv2.filter2D(image, -1, kernel / kernel.sum())


if __name__ == "__main__":
    from fkp import converters

    raise SystemExit(converters.main())
