"""Sources to be labelled, made of the example pictures; what is found in them is known."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

EXAMPLES = Path(__file__).parents[2] / "examples"

FACES = {"eileen_collins.jpg": 1, "four_faces.jpg": 4, "grace_hopper.jpg": 1}
"""Example pictures and how many faces they show."""


def content(name: str) -> bytes:
    return (EXAMPLES / name).read_bytes()


def broken_off(name: str) -> bytes:
    """An example of which the last fifth is missing."""
    return content(name)[: len(content(name)) * 4 // 5]


def pictures() -> dict[str, bytes]:
    """The examples, a picture without a face, and what is none; by name, six faces in all."""
    grey = cv2.imencode(".png", np.full((64, 64, 3), 128, np.uint8))[1].tobytes()
    return {name: content(name) for name in FACES} | {"grey.png": grey, "text.jpg": b"not a picture"}


def folder(path: Path) -> Path:
    """Two of them lie deeper."""
    for number, (name, data) in enumerate(pictures().items()):
        place = path / ("deep/er" if number < 2 else ".") / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    (path / "notes.txt").write_text("not one of them")
    (path / ".hidden.jpg").write_bytes(b"nor this")
    return path


def tar(path: Path, members: dict[str, bytes] | None = None) -> Path:
    """A WebDataset shard: every picture has a JSON beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as file:
        for name, data in (members or pictures()).items():
            for member, held in ((name, data), (f"{name.split('.')[0]}.json", b"{}")):
                about = tarfile.TarInfo(f"./{member}")
                about.size = len(held)
                file.addfile(about, io.BytesIO(held))
    return path


def parquet(path: Path) -> Path:
    """As `datasets` writes pictures."""
    path.parent.mkdir(parents=True, exist_ok=True)
    found = enumerate(pictures().items())
    rows = [{"image": {"bytes": data, "path": name}, "id": number} for number, (name, data) in found]
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path
