"""The operator: a shard of pictures → its output; the same for processes of one machine and for Ray."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from fkp import FaceKeypoints, Faces, __version__, hub, images
from fkp.label import table
from fkp.label.sources import Picture, Shard, SourceError

BATCH = 16
"""Pictures that are in memory and go through the network together,"""
BATCH_BYTES = 2**24
"""unless their files are larger than this, and their pixels would fill memory."""


@dataclass(frozen=True)
class Settings:
    """With what is labelled, and how: the same for every worker, on whichever machine.

    `model` and `options` are the arguments of `FaceKeypoints.from_pretrained`, `weights` says which weights
    those were (see `resolved`), the others are the arguments of calling the model.
    """

    model: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    min_score: float | None = None
    max_faces: int | None = None
    weights: str = ""

    def resolved(self) -> Settings:
        """The same with its `weights`, and of a Hub id with the commit. Raises WeightsError."""
        folder = _folder(self)
        options = self.options
        if self.model is not None and not Path(self.model).is_dir():
            options = options | {"revision": folder.name}
        return replace(self, weights=_digest(folder), options=options)

    @property
    def about(self) -> dict[str, Any]:
        """What the outputs' metadata say of it."""
        return {"fkp": __version__, "model": str(self.model or "bundled")} | self._what_matters

    def agree_with(self, about: dict[str, Any]) -> bool:
        """Whether these settings give what was made with those that an output tells of."""
        return all(about.get(name) == value for name, value in self._what_matters.items())

    @property
    def _what_matters(self) -> dict[str, Any]:
        usual = {"detector": "fkp", "label_style": None, "mirrored": False, "passes": "auto"}
        options = {name: self.options.get(name, value) for name, value in usual.items()}
        options["detector"] = str(options["detector"])
        return {
            "weights": self.weights, **options, "min_score": self.min_score, "max_faces": self.max_faces,
        }  # fmt: skip


@dataclass(frozen=True)
class Done:
    """What came of a shard; `problem` is a sentence where the shard could not be read.

    `incomplete` are sentences about pictures that break off, which are labelled as far as they go.
    """

    shard: str
    counts: table.Counts
    problem: str | None = None
    incomplete: tuple[str, ...] = ()


class Labeller:
    """Labels shards with one model, on one thread. Raises WeightsError where the weights are others here."""

    def __init__(self, settings: Settings, out: Path) -> None:
        self.settings, self.out = settings, out
        self.model = FaceKeypoints.from_pretrained(settings.model, **{"threads": 1} | settings.options)
        here = _digest(_folder(settings))
        if here != settings.weights:
            raise hub.WeightsError(f"a worker found other weights ({here}) than the run began with")

    def __call__(self, shard: Shard, progress: Callable[[int, int], None] = lambda *_: None) -> Done:
        """Write the output of a shard, and tell `progress` how many pictures and how much of it are new."""
        about = self.settings.about | {"source": shard.where, "fingerprint": shard.fingerprint}
        incomplete: list[str] = []
        try:
            with table.Writer(output_path(self.out, shard), about) as writer:
                done = 0
                for batch, reached in _batches(shard.pictures()):
                    incomplete += self._label(batch, writer)
                    progress(len(batch), reached - done)
                    done = reached
                progress(0, shard.size - done)
        except SourceError as error:
            return Done(shard.name, table.Counts(), str(error))
        return Done(shard.name, writer.counts, incomplete=tuple(incomplete))

    def _label(self, batch: list[Picture], writer: table.Writer) -> list[str]:
        """Write what is in the pictures; a sentence about each that breaks off."""
        decoded = [self._decoded(picture) for picture in batch]
        pixels: list[images.ImageLike] = [one.image for one in decoded if isinstance(one, images.Reduced)]
        settings = self.settings
        found = iter(self.model(pixels, min_score=settings.min_score, max_faces=settings.max_faces))
        for picture, one in zip(batch, decoded, strict=True):
            if isinstance(one, images.Reduced):
                writer.add(picture.row, picture.key, one.size_wh, enlarged(next(found), one.scale_xy))
            else:
                writer.add_unreadable(picture.row, picture.key, str(one).removeprefix(f"{picture.key}: "))
        return [
            f"{picture.key}: {images.INCOMPLETE}" for picture, one in zip(batch, decoded, strict=True)
            if isinstance(one, images.Reduced) and not one.complete
        ]  # fmt: skip

    def _decoded(self, picture: Picture) -> images.Reduced | images.ImageError:
        if isinstance(picture.data, images.ImageError):
            return picture.data
        try:
            return images.decode(picture.data, picture.key, self._enough_pixels)
        except images.ImageError as error:
            return error

    @property
    def _enough_pixels(self) -> int | None:
        """How many of a picture's pixels the detector is given, if it is one of ours."""
        config = getattr(self.model.face_detector, "config", None)
        return getattr(config, "fine_pixels", None)


def output_path(out: Path, shard: Shard) -> Path:
    """Where the output of a shard is written."""
    return out / f"{shard.name}.parquet"


def enlarged(faces: Faces, scale_xy: tuple[float, float]) -> Faces:
    """Faces of a reduced picture in pixels of the whole one, `scale_xy` times as large."""
    if scale_xy == (1.0, 1.0):
        return faces
    scale = np.array(scale_xy, np.float32)
    boxes = (faces.boxes.reshape(-1, 2, 2) + 0.5) * scale - 0.5  # integers are pixel centres
    keypoints = (faces.keypoints + 0.5) * scale - 0.5
    sigmas = faces.sigmas * scale.mean()
    return replace(faces, boxes=boxes.reshape(-1, 4), keypoints=keypoints, sigmas=sigmas)


def _batches(pictures: Iterator[tuple[Picture, int]]) -> Iterator[tuple[list[Picture], int]]:
    """Pictures together, with how much of their shard has been read after them."""
    batch: list[Picture] = []
    size = reached = 0
    for picture, reached in pictures:
        batch.append(picture)
        size += 0 if isinstance(picture.data, images.ImageError) else len(picture.data)
        if len(batch) == BATCH or size >= BATCH_BYTES:
            yield batch, reached
            batch, size = [], 0
    if batch:
        yield batch, reached


def _folder(settings: Settings) -> Path:
    return hub.find(settings.model, revision=settings.options.get("revision"))


def _digest(folder: Path) -> str:
    """The first digits of the SHA-256 of a folder's weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:16]
