"""A teacher's lessons: what a trained network says of faces, with and without labels, to learn from.

Its answer is the mean over several views of a face, each turned, moved and mirrored another way, which is
closer to the truth than one view's (LOG.md has the figures), and it answers in every labelling style, where
labels have one. After Hinton et al., https://arxiv.org/abs/1503.02531, and Radosavovic et al.,
https://arxiv.org/abs/1712.04440.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Generator
from tqdm import tqdm

from fkp import data, runtime, scheme
from fkp.networks import keypoint_net

VIEWS = 8
"""Views that a teacher has of every face."""

ROTATION, SCALE, SHIFT = 20.0, (0.87, 1.16), 0.07
"""How far views differ: ±degrees, factors, and ±fractions of the box's longer side."""

LEAST_SIDE = 40.0
"""A face without labels whose box has fewer pixels on its longer side teaches nothing."""

BATCH = 32


class Face(NamedTuple):
    """A face without labels: its picture, and its tight box (4,) xyxy in pixels."""

    path: Path
    box: np.ndarray


def unlabelled_faces(folder: Path) -> list[Face]:
    """The faces that `face_boxes.csv` has as `detected` in photos that may be trained on."""
    sources = {source.folder: source for source in data.TRAINING_SOURCES}
    faces = []
    for image, box in data.FaceBoxes(folder).each("detected"):
        subfolder, name = image.rsplit("/", 1)
        source = sources.get(subfolder)
        known = source is not None and not data.is_held_out(source.key(name))
        if known and max(box[2:] - box[:2]) >= LEAST_SIDE:
            faces.append(Face(folder / image, box))
    return faces


def lessons(
    teacher: runtime.Runner,
    config: keypoint_net.KeypointConfig,
    crops: Sequence[np.ndarray],
    boxes: np.ndarray,
) -> np.ndarray:
    """What a teacher says of faces in every one of `scheme.LABEL_STYLES`: (n,styles,68,2) float32.

    `crops` are n pictures (H,W,3) uint8 RGB and `boxes` (n,4) the tight boxes in them; the points are in
    their pixels. `teacher` runs a `runtime.Decoded` network of this config. The views are always the same.
    """
    view = data.FaceCrop(config.crop_size, config.margin, ROTATION, SCALE, SHIFT, mirror=0.5)
    said = np.zeros((len(crops), len(scheme.LABEL_STYLES), scheme.COUNT, 2), np.float32)
    with tqdm(total=len(crops), desc="asking the teacher", leave=False, unit="face") as bar:
        for start in range(0, len(crops), BATCH):
            chosen = range(start, min(start + BATCH, len(crops)))
            for number in range(VIEWS):
                generator = Generator().manual_seed(VIEWS * start + number)
                views = [view.draw(boxes[i], generator) for i in chosen]
                pictures = np.stack([v.crop(crops[i]) for v, i in zip(views, chosen, strict=True)])
                for style in range(len(scheme.LABEL_STYLES)):
                    points, _ = teacher(pictures, np.array([style]))
                    for v, i, face in zip(views, chosen, points, strict=True):
                        said[i, style] += v.keypoints_to_image(face) / VIEWS
            bar.update(len(chosen))
    return said
