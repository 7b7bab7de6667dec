"""CSV + pictures → `FacialKeypointsDataset`, its transforms, and the split by person and by photo.

A CSV has one row a face: the picture's file name, then x0,y0,…,x67,y67 in pixels of that picture.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
from torch import Generator
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

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
    overlong: list[str] = []
    try:
        header = len(pd.read_csv(csv, nrows=0).columns)
        if header != COLUMNS + 1:
            what = f"a CSV of keypoints has {COLUMNS + 1}: the picture's name and {scheme.COUNT} points"
            return [], none, [f"{csv}: its first row has {header} columns; {what}"]
        # Everything as text first, so that a fault can be told by its row instead of failing as a whole.
        table = pd.read_csv(
            csv,
            header=None,
            skiprows=1,
            names=range(COLUMNS + 1),
            dtype=str,
            index_col=False,
            engine="python",
            on_bad_lines=lambda fields: overlong.append(fields[0]),
        )
    except FileNotFoundError:
        return [], none, [f"{csv}: there is no such file"]
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError, OSError) as error:
        return [], none, [f"{csv}: not a CSV of keypoints ({error})"]
    problems = [f"{csv}, picture {name}: more than {COLUMNS} numbers in its row" for name in overlong]
    names = table[0].fillna("").tolist()
    numbers = table.iloc[:, 1:].apply(pd.to_numeric, errors="coerce").to_numpy(np.float32)
    sizes: dict[str, tuple[int, int] | str] = {}
    for row, (name, values) in enumerate(zip(names, numbers, strict=True), start=2):
        where = f"{csv}, row {row} ({name or 'no picture named'})"
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            short = bad[0] + len(bad) == COLUMNS
            what = f"{bad[0]} of {COLUMNS} numbers" if short else f"no number in column {bad[0]}"
            problems.append(f"{where}: {what}")
        if name not in sizes:
            sizes[name] = _size(folder / name)
        size = sizes[name]
        if isinstance(size, str):
            problems.append(f"{where}: {size}")
        elif not len(bad):
            reach = FAR_OUTSIDE * max(size)
            x, y = values[0::2], values[1::2]
            beyond = np.maximum.reduce([-x, x - (size[0] - 1), -y, y - (size[1] - 1)])
            if beyond.max() > reach:
                point = int(beyond.argmax())
                problems.append(
                    f"{where}: point {point} at ({x[point]:g}, {y[point]:g}) is far outside "
                    f"the {size[0]}×{size[1]} picture"
                )
    return names, numbers.reshape(-1, scheme.COUNT, 2), problems


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
    """A labelled set below the data folder, its labelling style, and what its held-out part is split by."""

    csv: str
    folder: str
    style: str
    key: Callable[[str], str]


TRAINING_SOURCES = (
    Source("ytf/training_frames_keypoints.csv", "ytf/training", "ytf", person),
    Source("300w/lfpw_train.csv", "300w/lfpw_train", "300w", photo),
    Source("300w/helen_train.csv", "300w/helen_train", "300w", photo),
    Source("300w/afw.csv", "300w/afw", "300w", photo),
)
"""What both networks are trained on. The test sets are not among them, and never will be."""


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


def photometric() -> v2.Transform:
    """Random light, colour, sharpness, noise and occlusion for images (…,3,H,W) uint8; moves no point.

    One draw serves all images of a batch.
    """
    return v2.Compose(
        [
            v2.RandomApply([v2.ColorJitter(brightness=0.4, contrast=0.4, saturation=0.4)], p=0.7),
            v2.RandomApply([Occlusion(0.1, 0.4)], p=0.35),
            v2.RandomApply([LowResolution(0.25, 0.8)], p=0.25),
            v2.RandomApply([v2.GaussianBlur(5, sigma=(0.3, 2.0))], p=0.15),
            v2.RandomGrayscale(p=0.1),
            v2.RandomApply([Noise(4, 16)], p=0.2),
        ]
    )


class _PixelTransform(v2.Transform):
    """A v2 transform that changes pixels only: keypoints and everything else pass through."""

    def __init__(self, least: float, most: float) -> None:
        super().__init__()
        self.least, self.most = least, most

    def draw(self) -> float:
        """A number between `least` and `most`."""
        return self.least + (self.most - self.least) * torch.rand(()).item()

    def change(self, image: torch.Tensor) -> torch.Tensor:
        """The changed image (…,3,H,W) uint8."""
        raise NotImplementedError

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        plain = isinstance(inpt, torch.Tensor) and not isinstance(inpt, tv_tensors.TVTensor)
        if plain:
            return self.change(inpt)
        return tv_tensors.wrap(self.change(inpt), like=inpt) if isinstance(inpt, tv_tensors.Image) else inpt


class LowResolution(_PixelTransform):
    """Shrinks by a random factor and enlarges back: a face filmed from afar."""

    def change(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[-2:]
        factor = self.draw()
        small = v2.functional.resize(image, [max(1, round(height * factor)), max(1, round(width * factor))])
        return v2.functional.resize(small, [height, width])


class Noise(_PixelTransform):
    """Adds Gaussian noise whose standard deviation is drawn, in grey levels."""

    def change(self, image: torch.Tensor) -> torch.Tensor:
        noise = self.draw() * torch.randn(image.shape, device=image.device)
        return (image + noise).clamp(0, 255).to(torch.uint8)


class Occlusion(_PixelTransform):
    """Covers a rectangle, its sides drawn as shares of the picture, with pixels from elsewhere in the batch.

    Real texture hides a point better than a flat colour does: Zhong et al., https://arxiv.org/abs/1708.04896,
    fill with noise; hands and hair are no noise.
    """

    def change(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[-2:]
        rows, columns = int(self.draw() * height), int(self.draw() * width)
        top, left, from_top, from_left = (
            int(torch.rand(()).item() * (limit + 1))
            for limit in (height - rows, width - columns, height - rows, width - columns)
        )
        covered = image.clone()
        source = image.roll(1, dims=0) if image.ndim > 3 else image
        patch = source[..., from_top : from_top + rows, from_left : from_left + columns]
        covered[..., top : top + rows, left : left + columns] = patch
        return covered
