"""CSV + pictures → `FacialKeypointsDataset`, and the split by person and by photo.

A CSV has one row a face: the picture's file name, then x0,y0,…,x67,y67 in pixels of that picture. Cells may
be empty: such a point has no label, and is NaN.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from csv import DictReader, reader
from csv import Error as CsvError
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fkp import images, scheme

Sample = dict[str, Any]
"""`{"image", "keypoints"}`: (H,W,3) uint8 RGB and (68,2) float32 xy, or what transforms make of them,
as those of `fkp.training.augmentation`."""

COLUMNS = 2 * scheme.COUNT
FAR_OUTSIDE = 0.5
"""A point may lie beyond the picture's edge by this share of its longer side: faces do get cut off."""
HELD_OUT = 7
"""One person, or photo, in this many is kept out of training."""


class DataError(ValueError):
    """Everything that is wrong with a CSV and its pictures, a line each."""


class FacialKeypointsDataset:
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
        text = csv.read_bytes()
        marked = text.startswith((b"\xff\xfe", b"\xfe\xff"))
        rows, comma = _cells(text.decode("utf-16" if marked else "utf-8-sig"))
    except FileNotFoundError:
        return [], none, [f"{csv}: there is no such file"]
    except (CsvError, UnicodeError, OSError) as error:
        return [], none, [f"{csv}: not a CSV of keypoints ({error})"]
    if not rows or len(rows[0][1]) != COLUMNS + 1:
        what = f"a CSV of keypoints has {COLUMNS + 1}: the picture's name and {scheme.COUNT} points"
        found = f"its first row has {len(rows[0][1])} columns" if rows else "it is empty"
        return [], none, [f"{csv}: {found}; {what}"]
    if _is_header(rows[0][1], folder):
        if order := _other_order(rows[0][1][1:]):
            return [], none, [f"{csv}: {order}"]
        rows = rows[1:]
    problems: list[str] = []
    names = [cells[0] for _, cells in rows]
    numbers = np.full((len(rows), COLUMNS), np.nan, np.float32)
    sizes: dict[str, tuple[int, int] | str] = {}
    for row, (line, (name, *cells)) in enumerate(rows):
        where = f"{csv}, row {line} ({name or 'no picture named'})"
        if comma:
            cells = [cell.replace(",", ".") for cell in cells]
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
        if len(cells) == COLUMNS and (fault := _unlikely(numbers[row].reshape(-1, 2), size)):
            problems.append(f"{where}: {fault}")
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


def _cells(text: str) -> tuple[list[tuple[int, list[str]]], bool]:
    """The rows of a CSV that are not empty, with their numbers from 1; and whether decimals may have a comma.

    Cells are apart by comma, semicolon or tab, whichever the first row has most of.
    """
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    lines = reader(text.splitlines(), delimiter=delimiter)
    return [(lines.line_num, row) for row in lines if row], delimiter != ","


def _is_header(row: list[str], folder: Path) -> bool:
    """Whether a first row names columns: 0, 1, 2 … or words, and no picture that is there."""
    if row[1:] == [str(column) for column in range(COLUMNS)]:
        return True
    numbers = sum(bool(re.fullmatch(r"-?[0-9]+([.,][0-9]*)?([eE][-+]?[0-9]+)?", cell)) for cell in row[1:])
    return numbers < COLUMNS / 2 and not (row[0] and (folder / row[0]).is_file())


def _other_order(names: list[str]) -> str | None:
    """What is wrong with the order of the columns, where their names tell it: x0, y0 … or 0_x, 0_y …, from 0
    or 1; None else."""
    told = [re.fullmatch(r"([xy]?)[\W_]?(\d+)[\W_]?([xy]?)", name.strip().lower()) for name in names]
    places = [(int(each[2]), each[1] + each[3]) for each in told if each and each[1] + each[3] in ("x", "y")]
    if len(places) < COLUMNS:
        return None
    first = min(places)[0]
    right = [(first + point, axis) for point in range(scheme.COUNT) for axis in "xy"]
    for column, (place, wanted) in enumerate(zip(places, right, strict=True)):
        if place != wanted:
            return f"column {column} is {names[column]!r}: the order is x0, y0, x1, y1 …"
    return None


def _unlikely(points: np.ndarray, size_wh: tuple[int, int]) -> str | None:
    """What in other conventions points (68,2) would mean, where they cannot mean pixels; None else."""
    labelled = points[np.isfinite(points).all(axis=1)]
    if len(labelled) < 2:
        return None
    missing = np.flatnonzero((points == -1).all(axis=1) | (points == 0).all(axis=1))
    if len(missing):
        x, y = points[missing[0]]
        return f"point {missing[0]} is at ({x:g}, {y:g}): leave the cells empty of a point without a label"
    if (labelled == labelled[0]).all():
        return f"all its points are at ({labelled[0, 0]:g}, {labelled[0, 1]:g})"
    if np.ptp(labelled, axis=0).min() == 0:
        return "all its points lie on one line, upright or level: no box of it can be told"
    if labelled.min() >= 0 and labelled.max() <= 1.5 and max(size_wh) > 8:
        return "its coordinates go from 0 to 1, where pixels of the picture are needed"
    return None


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
    with open(csv, newline="", encoding="utf-8") as file:
        rows = list(DictReader(file))
    flags = [[int(row[str(point)]) for point in range(scheme.COUNT)] for row in rows]
    names, groups = [row["image"] for row in rows], [row["group"] for row in rows]
    return names, groups, np.array(flags, np.int8).reshape(-1, scheme.COUNT)


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


def pictures(folder: Path) -> list[Path]:
    """The files in a folder by name, but for hidden ones. Raises OSError, or DataError if it has none."""
    paths = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    if not paths:
        raise DataError(f"{folder} holds no picture")
    return paths


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
    style: str | None
    key: Callable[[str], str]
    visibility: str | None = None


TRAINING_SOURCES = (
    Source("ytf/training_frames_keypoints.csv", "ytf/training", "ytf", person),
    Source("300w/lfpw_train.csv", "300w/lfpw_train", "300w", photo),
    Source("300w/helen_train.csv", "300w/helen_train", "300w", photo),
    Source("300w/afw.csv", "300w/afw", "300w", photo),
)
"""What both networks are trained on. The test sets are not among them, and never will be."""

TWINS = frozenset(
    [f"300w/lfpw_train/image_{number:04}.jpg" for number in (
        3, 43, 154, 192, 204, 215, 279, 321, 454, 548, 583, 636, 691, 695, 704, 712, 730, 809, 816, 824, 827,
        847, 856, 862,
    )]
    + ["300w/helen_train/2139767101_2.jpg"]
    + [f"merl/aflw_train/image{number:05}.webp" for number in (
        7740, 8615, 16510, 43444, 46211, 59853, 63462, 63974, 64043, 65448, 66749, 66751, 66752, 66753, 67523,
        67530,
    )]
)  # fmt: skip
"""Pictures that are never trained on: a test set has the same photo under another name (of LFPW 0215 and
0862, of AFLW 67530), or it is held out under one, or a photo moments apart is. Found among the pairs of faces
whose small grey crops correlate by more than 0.945, which were then looked at one by one."""

MERL = Source("merl/aflw_train.csv", "merl/aflw_train", "merl", photo, "merl/aflw_train_visibility.csv")
"""AFLW with MERL-RAV's labels, as tight crops: for the keypoint network."""


class FaceBoxes:
    """What a data folder's `face_boxes.csv` knows: tight boxes, `labelled`, `detected` or to `ignore`.

    A picture is called by its path below the data folder. Raises FileNotFoundError naming what is missing.
    """

    def __init__(self, folder: Path) -> None:
        with open(folder / "face_boxes.csv", newline="", encoding="utf-8") as file:
            rows = list(DictReader(file))
        corners = [np.array([row[side] for side in ("x1", "y1", "x2", "y2")], np.float64) for row in rows]
        self._rows = [(row["image"], row["kind"], box) for row, box in zip(rows, corners, strict=True)]
        self._boxes: dict[tuple[str, str], list[np.ndarray]] = {}
        for image, kind, box in self._rows:
            self._boxes.setdefault((image, kind), []).append(box)

    def of(self, image: str, *kinds: str) -> np.ndarray:
        """Boxes (n,4) of these kinds in a picture."""
        return np.array([box for kind in kinds for box in self._boxes.get((image, kind), [])]).reshape(-1, 4)

    def each(self, kind: str) -> Iterator[tuple[str, np.ndarray]]:
        """Pictures and boxes (4,) of a kind, in the order of the file."""
        return ((image, box) for image, other, box in self._rows if other == kind)


if __name__ == "__main__":
    import sys

    from fkp import converters

    sys.exit(converters.main())
