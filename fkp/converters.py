"""Labels of other tools → the CSV that `fkp.data` reads: a function for each, and one that writes the file.

    python -m fkp.data convert pts|coco|label-studio|cvat SOURCE OUT.csv

Every function gives rows: a picture's name, and keypoints (68,2) in pixels of that picture, counted from 0
at the middle of the first pixel; NaN for a point without a label. Where points have names, these are their
numbers from 0 to 67, or from 1 to 68 in a file where any is called 68.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import parse_qs, urlsplit
from xml.etree import ElementTree

import numpy as np

from fkp import outputs, scheme

Row = tuple[str, np.ndarray]

COLUMNS = ("image", *(f"{axis}{point}" for point in range(scheme.COUNT) for axis in "xy"))
"""The CSV's header."""

_PICTURES = (
    ".jpg",
    ".jpeg",
    ".png",
    ".webp",
    ".tif",
    ".tiff",
    ".bmp",
    ".gif",
    ".avif",
    ".jp2",
    ".heic",
    ".ppm",
)


class ConversionError(ValueError):
    """What cannot be converted: a line for every fault, with the file and the picture."""


def from_pts(source: str | Path) -> list[Row]:
    """The `.pts` files (iBUG, 300-W, Menpo) in a folder or below it, or one of them, by name.

    Their first pixel is 1, so 1 is taken off. The picture is the one of the same name beside it, and is
    called by its path below the folder. Raises ConversionError.
    """
    source = Path(source)
    files = sorted(source.rglob("*.pts")) if source.is_dir() else [source]
    if not files:
        raise ConversionError(f"{source}: holds no .pts file")
    root = source if source.is_dir() else source.parent
    return _all(_pts(path, root) for path in files)


def _pts(path: Path, root: Path) -> Row | str:
    text = _read(path)
    within = re.search(r"\{(.*?)\}", text, re.DOTALL)
    if within is None:
        return f"{path}: is no .pts file, which has its points between {{ and }}"
    try:
        points = np.array([[float(number) for number in line.split()] for line in _lines(within[1])])
    except ValueError:
        return f"{path}: has what is no number between {{ and }}"
    if np.isinf(points).any():
        return f"{path}: has what is no number between {{ and }}"
    if points.shape != (scheme.COUNT, 2):
        return f"{path}: {len(points)} points, where {scheme.COUNT} with x and y are needed"
    beside = sorted(p for p in path.parent.glob(f"{_escaped(path.stem)}.*") if p.suffix.lower() in _PICTURES)
    if not beside:
        return f"{path}: no picture of that name is beside it"
    return beside[0].relative_to(root).as_posix(), points - 1


def _lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.strip()]


def _escaped(name: str) -> str:
    """A name for `glob` to take as it is."""
    return re.sub(r"([*?[])", r"[\1]", name)


def from_coco(source: str | Path) -> list[Row]:
    """COCO keypoints (https://cocodataset.org/#format-data): every annotation with 68 of them, by image.

    `v` 0 is a point without a label; whole numbers are pixel centres there as here. Raises ConversionError.
    """
    labels = _json(source, dict)
    names = {_key(image.get("id")): image.get("file_name") for image in _dicts(labels.get("images"))}
    return _all(_coco(source, names, annotation) for annotation in _dicts(labels.get("annotations")))


def _coco(source: str | Path, names: dict[Any, Any], annotation: dict[str, Any]) -> Row | str | None:
    where = f"{source}, annotation {annotation.get('id')}"
    if not annotation.get("keypoints"):
        return None  # a box or an outline
    name = names.get(_key(annotation.get("image_id")))
    if not isinstance(name, str):
        return f"{where}: there is no image {annotation.get('image_id')}"
    points = _numbers(annotation["keypoints"])
    if points is None or points.size != 3 * scheme.COUNT:
        return f"{where} ({name}): {scheme.COUNT} keypoints with x, y and v are needed"
    points = points.reshape(-1, 3)
    return name, np.where(points[:, 2:] > 0, points[:, :2], np.nan)


def from_label_studio(source: str | Path) -> list[Row]:
    """Label Studio's JSON: the key points of every task's annotations.

    Points with the same `parentID`, as those drawn within a box have, are one face; those without one are
    together one. What is cancelled is left out. Its per cent begin at the picture's edge, half a pixel before
    the middle of the first. Raises ConversionError.
    """
    return _all(row for task in _dicts(_json(source, list)) for row in _label_studio(source, task))


def _label_studio(source: str | Path, task: dict[str, Any]) -> Iterator[Row | _Named | str]:
    where = f"{source}, task {task.get('id')}"
    data: dict[str, Any] = next(iter(_dicts([task.get("data")])), {})
    # The picture's key is the project's own choice; `image` is what the templates have.
    values = [data.get("image"), *data.values()]
    name = next((_file_name(value) for value in values if isinstance(value, str)), None)
    for annotation in _dicts(task.get("annotations")):
        faces: dict[Any, tuple[list[str], list[list[float]]]] = {}
        for result in _dicts(annotation.get("result")):
            if annotation.get("was_cancelled") or result.get("type") != "keypointlabels":
                continue
            try:
                value, sides = result["value"], (result["original_width"], result["original_height"])
                xy = [value[axis] / 100 * side - 0.5 for axis, side in zip("xy", sides, strict=True)]
                label = str(value["keypointlabels"][0])
                if not np.isfinite(xy).all():
                    raise ValueError
            except (TypeError, ValueError, KeyError, IndexError, OverflowError):
                what = f"the point {result.get('id')} lacks x, y, a label or the picture's size"
                yield f"{where} ({name}): {what}"
                continue
            labels, points = faces.setdefault(_key(result.get("parentID")), ([], []))
            labels.append(label)
            points.append(xy)
        for labels, points in faces.values():
            yield _Named(where, name, labels, np.array(points))


def _file_name(address: str) -> str:
    """The picture's file name out of the address that Label Studio gives it."""
    try:
        parts = urlsplit(address)
    except ValueError:  # as with half of an IPv6 address
        return address
    path = parse_qs(parts.query).get("d", [parts.path])[0]  # files of the server are …/local-files/?d=path
    name = PurePosixPath(path).name
    # What was uploaded got eight letters before its name.
    return re.sub(r"^[0-9a-f]{8}-", "", name) if "/upload/" in path else name


def from_cvat(source: str | Path) -> list[Row]:
    """XML of the kind "CVAT for images": every skeleton, and every shape of 68 points.

    Of a skeleton, points that are `outside` have no label. Its pixels begin at the picture's edge, half a
    pixel before the middle of the first. Raises ConversionError.
    """
    try:
        images = ElementTree.fromstring(_read(source)).iter("image")
    except ElementTree.ParseError as error:
        raise ConversionError(f"{source}: is no XML ({error})") from error
    return _all(row for image in images for row in _cvat(source, image))


def _cvat(source: str | Path, image: ElementTree.Element) -> Iterator[Row | _Named | str]:
    name = image.get("name")
    where = f"{source}, image {image.get('id')}"
    for shape in image:
        if shape.tag == "points":
            pairs = [pair.split(",") for pair in (shape.get("points") or "").split(";")]
            points = _numbers(pairs)
            if points is None or points.shape != (scheme.COUNT, 2):
                what = f"a shape of {len(pairs)} points, where {scheme.COUNT} with x and y are needed"
                yield f"{where} ({name}): {what}"
            else:
                yield (name, points - 0.5) if name else f"{where}: has no name"
        elif shape.tag == "skeleton":
            seen = [each for each in shape.iter("points") if each.get("outside") != "1"]
            numbers = _numbers([(each.get("points") or "").split(",") for each in seen])
            if seen and (numbers is None or numbers.shape != (len(seen), 2)):
                yield f"{where} ({name}): a skeleton with a point that has not x and y"
            elif seen and numbers is not None:
                yield _Named(where, name, [each.get("label") or "" for each in seen], numbers - 0.5)


@dataclass(frozen=True)
class _Named:
    """A face whose points have names: their `labels`, and `xy` (n,2)."""

    where: str
    picture: str | None
    labels: Sequence[str]
    xy: np.ndarray

    @property
    def numbers(self) -> list[int]:
        """The labels as numbers, as far as they are some."""
        return [int(label) for label in self.labels if re.fullmatch("[0-9]{1,4}", label)]

    def row(self, first: int) -> Row | str:
        """The face, where points count from `first`, or what is wrong with it."""
        where = f"{self.where} ({self.picture or 'no picture named'})"
        if self.picture is None:
            return f"{where}: names no picture"
        numbers = self.numbers
        if len(numbers) < len(self.labels):
            wrong = next(label for label in self.labels if not re.fullmatch("[0-9]{1,4}", label))
            return f"{where}: points are named by their numbers, 0 to {scheme.COUNT - 1}, not {wrong!r}"
        for number in numbers:
            if not first <= number < first + scheme.COUNT:
                return f"{where}: there is no point {number}"
            if numbers.count(number) > 1:
                return f"{where}: has point {number} twice; where there are several faces, each needs a box"
        keypoints = np.full((scheme.COUNT, 2), np.nan)
        keypoints[np.array(numbers) - first] = self.xy
        return self.picture, keypoints


FORMATS: dict[str, Callable[[str | Path], list[Row]]] = {
    "pts": from_pts,
    "coco": from_coco,
    "label-studio": from_label_studio,
    "cvat": from_cvat,
}
"""By the name that the command line knows."""


def write_csv(path: str | Path, rows: Iterable[Row], force: bool = False) -> None:
    """Write rows as the CSV of keypoints: `COLUMNS`, empty cells for NaN, a thousandth of a pixel.

    Raises `outputs.OutputError` where another file would be lost, unless `force`.
    """
    if Path(path) == outputs.STDOUT:
        raise outputs.OutputError("the CSV needs a file's name, as /dev/stdout; - is none")
    outputs.check({"the CSV": Path(path)}, force=force)
    with outputs.replacing(Path(path), newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for name, keypoints in rows:
            cells = [
                "" if np.isnan(value) else f"{value:.3f}".rstrip("0").rstrip(".")
                for value in keypoints.ravel()
            ]
            writer.writerow([name, *cells])


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m fkp.data convert …`; the exit status."""
    outputs.show_any_name()
    parser = argparse.ArgumentParser(prog="python -m fkp.data", description="CSVs of keypoints")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="command")
    convert = commands.add_parser("convert", help="labels of another tool as a CSV of keypoints")
    convert.add_argument("format", choices=FORMATS, help="what SOURCE is")
    convert.add_argument("source", metavar="SOURCE", help="its file; of pts the folder of files and pictures")
    convert.add_argument("out", metavar="OUT.csv", type=Path)
    convert.add_argument("--force", action="store_true", help="overwrite OUT.csv whatever it is")
    args = parser.parse_args(arguments)
    return outputs.run(lambda: _convert(args), (ConversionError,))


def _convert(args: argparse.Namespace) -> int:
    rows = FORMATS[args.format](args.source)
    if not rows:
        raise ConversionError(f"{args.source}: holds no face that annotators have marked")
    write_csv(args.out, rows, args.force)
    outputs.tell(f"{len(rows)} faces of {len({name for name, _ in rows})} pictures")
    return 0


def _all(found: Iterable[Row | _Named | str | None]) -> list[Row]:
    """The rows, if nothing was wrong with any."""
    found = list(found)
    largest = max((max(each.numbers, default=0) for each in found if isinstance(each, _Named)), default=0)
    first = 1 if largest == scheme.COUNT else 0
    rows, problems = [], []
    for each in found:
        each = each.row(first) if isinstance(each, _Named) else each
        if isinstance(each, tuple) and not each[0].isprintable():
            each = f"{each[0]!r} is no picture's name"
        if isinstance(each, str):
            problems.append(each)
        elif each is not None and np.isfinite(each[1]).any():
            rows.append(each)
    if problems:
        raise ConversionError("\n".join(problems))
    return rows


def _read(path: str | Path) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ConversionError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConversionError(f"{path}: is no text in UTF-8") from error


def _json(path: str | Path, kind: type) -> Any:
    try:
        value = json.loads(_read(path))
    except (ValueError, RecursionError) as error:
        if isinstance(error, ConversionError):
            raise
        raise ConversionError(f"{path}: is no JSON ({error})") from error
    if not isinstance(value, kind):
        raise ConversionError(f"{path}: is JSON of another kind, a {kind.__name__} is needed at its top")
    return value


def _key(value: Any) -> Any:
    """What a file calls something by, for a dictionary: it may be anything."""
    return value if isinstance(value, str | int | float | None) else json.dumps(value)


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [each for each in value if isinstance(each, dict)] if isinstance(value, list) else []


def _numbers(values: Any) -> np.ndarray | None:
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError):
        return None
    return array if np.isfinite(array).all() else None
