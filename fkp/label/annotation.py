"""Outputs → pre-annotations for COCO, CVAT and Label Studio, the least sure pictures first.

`python -m fkp.data convert` goes the other way, from what annotators made of them to the CSV of keypoints.
Points are called by their numbers, 0 to 67. Unlike `fkp.label.label`, this holds all faces in memory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np

from fkp import __version__, outputs, scheme
from fkp.label.table import LabelledPicture, read

MODEL = f"fkp {__version__}"

SEEN = 0.5
"""A point whose visibility is below it counts as hidden."""

LOCAL_FILES = "/data/local-files/?d="
"""How Label Studio calls files of its own machine, below its document root."""


def check(format: str, folder: Path) -> None:
    """Raise `outputs.OutputError` where `write` would overwrite what is not as fkp has written it."""
    if not folder.is_dir():
        return
    path = folder / FORMATS[format][0]
    outputs.check({f"--format {format}": path}, force=True)
    if path.exists():
        told = _digest_file(path)
        if not told.is_file() or told.read_text(encoding="ascii", errors="replace") != _digest(path):
            raise outputs.OutputError(
                f"{path}: is there already, and not as fkp wrote it; take it away, or choose another folder"
            )


def _digest_file(path: Path) -> Path:
    """What tells whether somebody has changed a file since, who may keep all that it begins with."""
    return path.with_name(f".{path.name}.sha256")


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write(format: str, folder: Path) -> Path:
    """Write the pre-annotations of a folder of outputs into it, in one of `FORMATS`; returns the file.

    Raises OSError, and as `check` does.
    """
    check(format, folder)
    name, make = FORMATS[format]
    pictures = sorted(read(folder), key=lambda picture: sureness(picture)[0])
    with outputs.replacing(folder / name) as file:
        file.write(make(pictures))
    _digest_file(folder / name).write_text(_digest(folder / name), encoding="ascii")
    return folder / name


def sureness(picture: LabelledPicture) -> tuple[float, np.ndarray]:
    """Mean `keypoint_scores` of the least sure face, which orders pictures, and of every face (n,)."""
    faces = picture.faces.keypoint_scores.mean(axis=1)
    return float(faces.min(initial=1.0)), faces


def coco(pictures: list[LabelledPicture]) -> str:
    """COCO keypoints: `v` is 2 where a point can be seen, 1 where it is hidden, 0 outside of the picture.

    An annotation has besides the face's `score` and the `keypoint_scores` of its points.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for picture in pictures:
        (width, height), (least, _) = picture.size_wh, sureness(picture)
        images.append({
            "id": len(images) + 1, "file_name": picture.key, "width": width, "height": height,
            "score": _rounded(least, 4),
        })  # fmt: skip
        for face, flags in zip(picture.faces, _flags(picture), strict=True):
            (x1, y1, x2, y2), (points,) = face.boxes[0].tolist(), face.keypoints
            labelled = np.column_stack([points, flags]) * (flags > 0)[:, None]
            annotations.append({
                "id": len(annotations) + 1, "image_id": len(images), "category_id": 1, "iscrowd": 0,
                "bbox": _rounded([x1, y1, x2 - x1, y2 - y1], 2), "area": _rounded((x2 - x1) * (y2 - y1), 2),
                "keypoints": _rounded(labelled.ravel(), 2), "num_keypoints": int((flags > 0).sum()),
                "score": _rounded(face.scores[0], 4), "keypoint_scores": _rounded(face.keypoint_scores[0], 4),
            })  # fmt: skip
    category = {
        "id": 1, "name": "face", "supercategory": "person", "keypoints": list(_names()),
        "skeleton": [[a + 1, b + 1] for a, b in scheme.EDGES],  # COCO counts there from 1
    }  # fmt: skip
    info = {"description": "Faces and their 68 keypoints, found by a model", "version": MODEL}
    return json.dumps({"info": info, "images": images, "annotations": annotations, "categories": [category]})


def label_studio(pictures: list[LabelledPicture]) -> str:
    """Label Studio's tasks, each with one prediction: boxes `box` and key points `keypoints` within them.

    docs/label.md has the labelling interface that goes with it. Pictures are files of the server.
    """
    tasks = []
    for picture in pictures:
        least, faces = sureness(picture)
        result = [part for i in range(len(picture.faces)) for part in _regions(picture, i)]
        prediction = {"model_version": MODEL, "score": _rounded(least, 4), "result": result}
        data = {"image": LOCAL_FILES + quote(picture.key), "keypoint_score": _rounded(least, 4)}
        tasks.append({"data": data, "predictions": [prediction]})
    return json.dumps(tasks)


def _regions(picture: LabelledPicture, i: int) -> Iterator[dict[str, Any]]:
    """The box of a face and its points, in per cent of the picture from its edge."""
    size, face = np.array(picture.size_wh), picture.faces[i]
    common = {"original_width": int(size[0]), "original_height": int(size[1]), "image_rotation": 0,
              "to_name": "image"}  # fmt: skip
    box = _per_cent(face.boxes.reshape(2, 2), size)
    values = {"x": box[0, 0], "y": box[0, 1], "width": box[1, 0] - box[0, 0], "height": box[1, 1] - box[0, 1]}
    values = {name: _rounded(value, 4) for name, value in values.items()}
    yield {
        "id": f"face{i}", "type": "rectanglelabels", "from_name": "box", "score": _rounded(face.scores[0], 4),
        "value": values | {"rotation": 0, "rectanglelabels": ["face"]}, **common,
    }  # fmt: skip
    for name, (x, y), score in zip(
        _names(), _per_cent(face.keypoints[0], size), face.keypoint_scores[0], strict=True
    ):
        value = {"x": _rounded(x, 4), "y": _rounded(y, 4), "width": 0.3, "keypointlabels": [name]}
        yield {
            "id": f"face{i}-{name}", "type": "keypointlabels", "from_name": "keypoints", "value": value,
            "parentID": f"face{i}", "score": _rounded(score, 4), **common,
        }  # fmt: skip


def _per_cent(points: np.ndarray, size_wh: np.ndarray) -> np.ndarray:
    return 100 * (points.astype(np.float64) + 0.5) / size_wh  # its 0 is the picture's edge


def cvat(pictures: list[LabelledPicture]) -> str:
    """CVAT's XML for images, version 1.1: a skeleton `face` for each face.

    It and every point has a `confidence`. A hidden point is `occluded`, one outside of the picture
    `outside`.
    """
    root = ElementTree.Element("annotations")
    ElementTree.SubElement(root, "version").text = "1.1"
    for number, picture in enumerate(pictures):
        width, height = map(str, picture.size_wh)
        about = {"id": str(number), "name": picture.key, "width": width, "height": height}
        image = ElementTree.SubElement(root, "image", about)
        for face, flags in zip(picture.faces, _flags(picture), strict=True):
            skeleton = ElementTree.SubElement(image, "skeleton", label="face", source="auto", z_order="0")
            _confidence(skeleton, face.keypoint_scores.mean())
            for name, (x, y), flag, score in zip(
                _names(), face.keypoints[0] + 0.5, flags, face.keypoint_scores[0], strict=True
            ):  # its 0 is the picture's edge
                point = ElementTree.SubElement(
                    skeleton, "points", label=name, source="auto", outside=str(int(flag == 0)),
                    occluded=str(int(flag == 1)), points=f"{x:.2f},{y:.2f}",
                )  # fmt: skip
                _confidence(point, score)
    ElementTree.indent(root, " ")
    # With ElementTree's own declaration it would be in the encoding that the machine prefers.
    head = '<?xml version="1.0" encoding="utf-8"?>\n'
    return head + ElementTree.tostring(root, encoding="unicode")


def _confidence(of: ElementTree.Element, score: float) -> None:
    ElementTree.SubElement(of, "attribute", name="confidence").text = f"{score:.3f}"


def _flags(picture: LabelledPicture) -> np.ndarray:
    """COCO's `v` of every point (n,68): 2 can be seen, 1 hidden, 0 outside of the picture."""
    points = picture.faces.keypoints
    inside = ((points >= -0.5) & (points <= np.array(picture.size_wh) - 0.5)).all(axis=-1)
    return np.where(inside, np.where(picture.faces.visibility < SEEN, 1, 2), 0)


def _names() -> Iterator[str]:
    return map(str, range(scheme.COUNT))


def _rounded(numbers: Any, decimals: int) -> Any:
    return np.asarray(numbers, np.float64).round(decimals).tolist()


FORMATS: dict[str, tuple[str, Callable[[list[LabelledPicture]], str]]] = {
    "coco": ("coco.json", coco),
    "cvat": ("cvat.xml", cvat),
    "label-studio": ("label_studio.json", label_studio),
}
"""By the name that the command line knows: the file, and what it holds."""
