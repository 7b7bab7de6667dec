"""Pseudo-labels: what a trained network says of faces, with and without labels, for another to learn from.

Its answer is the mean over several views of a face, each turned, moved and mirrored another way, which is
closer to the truth than one view's (LOG.md has the figures). After Hinton et al.,
https://arxiv.org/abs/1503.02531, and Radosavovic et al., https://arxiv.org/abs/1712.04440.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, fields
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from tqdm import tqdm

from fkp import data, geometry, images, outputs, scheme
from fkp.networks import keypoint_net
from fkp.training.augmentation import FaceCrop
from fkp.training.run_folder import CheckpointError

DEFAULT_STYLES = ("300w", "merl")
"""The labelling styles whose labels the default, None, learns from: made by people, where points are seen."""

VIEWS = 3
"""Views that a teacher has of every face, in each labelling style that it is asked for."""

ROTATION, SCALE, SHIFT = 20.0, (0.87, 1.16), 0.07
"""How far views differ: ±degrees, factors, and ±fractions of the box's longer side."""

LEAST_SIDE = 40.0
"""A face without labels whose box has fewer pixels on its longer side teaches nothing."""

LEAST_SCORE = 0.7
"""A face of the pictures without boxes counts when the detector is this sure of it."""

WORST = 0.05
"""A face without labels teaches when the expected error is at most this share of its size, on the mean."""

SAME = 2.0
"""Boxes of one face differ at most by so many pixels from machine to machine."""

BATCH = 64

Find = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""A face detector: a picture (H,W,3) uint8 RGB → boxes (n,4) and scores (n,)."""


class Face(NamedTuple):
    """A face without labels: its picture, and its box (4,) xyxy in pixels."""

    path: Path
    box: np.ndarray


@dataclass
class PseudoLabels:
    """What a teacher says of n faces, zero for those that it was not asked about.

    `keypoints` (n,2,68,2): in the default style, and in that of their label; without annotation offset, in
    pixels of the pictures given. Where labels teach the default style, the former is the latter; elsewhere it
    is the mean of `DEFAULT_STYLES` · `visibility` (n,68): probabilities · `sure` (n,): whether the expected
    error is small enough to learn from, see `WORST`.

    `pictures` (m,) and `boxes` (m,4), file names and xyxy in pixels, tell the last m faces, those without
    labels, from others: see `note` and `check`.
    """

    keypoints: np.ndarray
    visibility: np.ndarray
    sure: np.ndarray
    pictures: np.ndarray = field(default_factory=lambda: np.empty(0, np.str_))
    boxes: np.ndarray = field(default_factory=lambda: np.empty((0, 4)))

    def note(self, faces: Sequence[Face]) -> None:
        """Note which faces without labels these are of."""
        self.pictures = np.array([face.path.name for face in faces], np.str_)
        self.boxes = np.reshape([face.box for face in faces], (-1, 4))

    def check(self, labelled: int, faces: Sequence[Face]) -> None:
        """Raise CheckpointError unless these are of as many `labelled` faces and the same others, in order.

        But for `SAME` pixels: another machine's detector gives slightly other boxes.
        """
        asked = len(self.sure) - len(self.pictures)
        if asked != labelled:
            raise CheckpointError(
                f"there are {labelled} labelled faces, where the teacher knew of {asked}: --overwrite the run"
            )
        noted = zip(self.pictures.tolist(), self.boxes, strict=True)
        for one, other in zip_longest(noted, ((face.path.name, face.box) for face in faces)):
            if not one or not other or one[0] != other[0] or np.abs(one[1] - other[1]).max() > SAME:
                raise CheckpointError(
                    f"from {(one or other)[0]} on, the faces without labels are others than the teacher was "
                    "asked about: put the pictures back as they were, or --overwrite the run"
                )

    def save(self, path: Path) -> None:
        """Write them to a file, whole or not at all."""
        with outputs.replacing(path, "wb") as file:
            np.savez(file, **{each.name: getattr(self, each.name) for each in fields(self)})

    @classmethod
    def load(cls, path: Path) -> PseudoLabels:
        """What `save` wrote. Raises CheckpointError for a file that is damaged or of unknown faces."""
        anew = "remove it, and the teacher is asked again"
        try:
            with path.open("rb") as file, np.load(file) as arrays:
                stored = dict(arrays)
        except Exception as error:  # NumPy raises a class of its own for each kind of damage
            raise CheckpointError(f"{path} is damaged ({error}): {anew}") from error
        lacking = {each.name for each in fields(cls)} - stored.keys()
        if lacking:  # as those of before do
            raise CheckpointError(f"{path} does not say which {min(lacking)} it is of: {anew}")
        return cls(**stored)


def unlabelled_faces(folder: Path, find: Find, workers: int = 0, photos: Path | None = None) -> list[Face]:
    """The faces below a data folder that may be trained on and have no labels: those with a box, and those of
    the pictures in `faces/`, whose boxes `find` tells, to as many threads as there are `workers`.

    And all faces that it finds in a folder of `photos`.
    """
    sources = {source.folder: source for source in data.TRAINING_SOURCES}
    boxes, faces = data.FaceBoxes(folder), []
    for kind in ("detected", "wider", "people"):
        for image, box in boxes.each(kind):
            subfolder, name = image.rsplit("/", 1)
            source = sources.get(subfolder)
            if source is None:
                known = subfolder in ("wider/train", "masks")
            else:
                known = not data.is_held_out(source.key(name))
            if known and image not in data.TWINS and max(box[2:] - box[:2]) >= LEAST_SIDE:
                faces.append(Face(folder / image, box))
    portraits = sorted((folder / "faces").glob("*.*"))
    elsewhere = [] if photos is None else data.pictures(photos)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        answers = pool.map(lambda path: find(images.read(path)), portraits + elsewhere)
        bar = tqdm(answers, "finding faces", len(portraits + elsewhere), leave=False, unit="picture")
        found = [boxes[scores >= LEAST_SCORE] for boxes, scores in bar]
    faces += [Face(p, box) for p, boxes in zip(portraits, found, strict=False) for box in boxes[:1]]
    for path, boxes in zip(elsewhere, found[len(portraits) :], strict=True):
        faces += [Face(path, box) for box in boxes if max(box[2:] - box[:2]) >= LEAST_SIDE]
    return faces


@torch.no_grad()
def heatmaps(teachers: Sequence[keypoint_net.KeypointNetwork], crops: Tensor, styles: Tensor) -> Tensor:
    """What teachers see in crops (n,3,S,S): the mean of their heat maps (n,68,h,h), as logits.

    Every other one is shown the crops mirrored.
    """
    seen = [teacher(crops, styles).outputs for teacher in teachers[::2]]
    for teacher in teachers[1::2]:
        seen.append(teacher(crops.flip(3), styles).outputs.flip(3)[:, list(scheme.FLIP)])
    return torch.stack(seen).mean(dim=0)


def teaches_default(styles: np.ndarray) -> np.ndarray:
    """Whether the labels of styles (n,), see `scheme.style_index`, teach the default style too."""
    return np.isin(styles, [scheme.style_index(style) for style in DEFAULT_STYLES])


@torch.inference_mode()
def pseudo_labels(
    teacher: keypoint_net.KeypointNetwork, crops: np.ndarray, boxes: np.ndarray, styles: np.ndarray,
    asked: np.ndarray, labelled: int,
) -> PseudoLabels:  # fmt: skip
    """What a teacher says of the faces `asked` by index; the views are always the same.

    `crops` (n,P,P,3) uint8 RGB are pictures, `boxes` (n,4) the boxes in them, `styles` (n,) the labelling
    styles (`scheme.style_index`). From index `labelled` on, boxes are rough: the teacher's first points
    replace them.
    """
    config = teacher.config
    view = FaceCrop(config.crop_size, config.margin, ROTATION, SCALE, SHIFT, mirror=0.5)
    still = FaceCrop(config.crop_size, config.margin)
    said = PseudoLabels(
        np.zeros((len(crops), 2, scheme.COUNT, 2), np.float32),
        np.zeros((len(crops), scheme.COUNT), np.float32),
        np.zeros(len(crops), bool),
    )
    bar = tqdm(total=len(asked), desc="asking the teacher", leave=False, unit="face")
    for part in np.array_split(asked, max(1, len(asked) // BATCH)):
        near = boxes[part].copy()
        rough = part >= labelled
        if rough.any():
            points, _, _ = _answers(teacher, crops, part, [still.draw(box) for box in near], 0 * part)
            near[rough] = geometry.tight_boxes(points[rough])
        own, spread = styles[part], np.zeros(len(part))
        agree = teaches_default(own)
        asks = [(agree, own)] + [(~agree, own * 0 + scheme.style_index(s)) for s in DEFAULT_STYLES]
        asks += [(~agree & (own > 0), own)]
        for number in range(VIEWS):
            generator = Generator().manual_seed(VIEWS * int(part[0]) + number)
            views = [view.draw(box, generator) for box in near]
            for turn, (whom, asked_style) in enumerate(asks):
                if not whom.any():
                    continue
                some = np.flatnonzero(whom)
                points, sigmas, visible = _answers(
                    teacher, crops, part[some], [views[i] for i in some], asked_style[some]
                )
                share = (1, 0.5, 0.5, 0)[turn] / VIEWS
                said.keypoints[part[some], 0] += share * points
                said.visibility[part[some]] += share * visible
                spread[some] += share * sigmas.mean(axis=1)
                said.keypoints[part[some], 1] += points / VIEWS if turn in (0, 3) else 0
        width_height = near[:, 2:] - near[:, :2]
        said.sure[part] = spread <= WORST * np.sqrt(width_height.prod(axis=1))
        bar.update(len(part))
    bar.close()
    return said


def _answers(
    teacher: keypoint_net.KeypointNetwork, crops: np.ndarray, chosen: np.ndarray,
    views: list[geometry.CropTransform], styles: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Keypoints (b,68,2) and sigmas (b,68) in pixels of the pictures, and visibility (b,68)."""
    pictures = np.stack([v.crop(crops[i]) for v, i in zip(views, chosen, strict=True)])
    device = next(teacher.parameters()).device
    asked = torch.from_numpy(styles).to(device)
    raw = teacher(torch.from_numpy(pictures).permute(0, 3, 1, 2).to(device), asked)
    _, sigmas, visibility = teacher.decode(raw, asked)
    tensors = teacher.codec.decode(raw.outputs), sigmas, visibility  # points without annotation offset
    points, spreads, visible = (tensor.float().cpu().numpy() for tensor in tensors)
    for i, v in enumerate(views):
        points[i] = v.keypoints_to_image(points[i])
        spreads[i] /= np.sqrt(abs(np.linalg.det(v.image_to_crop[:, :2])))
        if v.mirrors:
            spreads[i], visible[i] = spreads[i, list(scheme.FLIP)], visible[i, list(scheme.FLIP)]
    return points, spreads, visible
