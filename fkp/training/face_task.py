"""Training the face detector: photos → mosaics → targets → loss, and how good it has become."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import complete_box_iou_loss

from fkp import detector, faces, images, runtime
from fkp.config import DetectorConfig
from fkp.detector import STRIDES, Detector
from fkp.networks import export, face_net, state
from fkp.networks.face_net import DetectorNetwork
from fkp.training import face_measures, face_photos
from fkp.training.face_measures import FoundInPhotos
from fkp.training.mosaics import FACE, IGNORE, SHARES, Mosaics
from fkp.training.yunet_teacher import Pupil, YuNetTeacher

LEAST_SURE = 2 / 3
"""At the operating threshold at least two boxes in three are faces, by their calibrated score."""

RANGE_PHOTOS = 20
"""Training photos of each source in which the ranges of activations are seen."""

SIDES = ((0.0, 56.0), (40.0, 112.0), (80.0, math.inf))
"""Faces whose longer side (pixels) lies in the range of a grid are learnt by it; ranges overlap."""

BOX_WEIGHT, TAUGHT_WEIGHT = 2.0, 1.0
"""What the losses of the boxes and of the second head, which learns what YuNet says, are multiplied by;
that of the scores counts once."""

UNSURE = 1.5
"""Cells up to this many times too far from a face, in place or size, neither gain nor lose by their score."""


class Targets(NamedTuple):
    """What each cell of each picture learns, all (n,cells).

    `box`: the index of the box that it learns to tell, −1 for none · `middle`: whether it lies in that
    face's middle, and is to say so · `counts`: whether its score is rewarded or punished at all.
    """

    box: Tensor
    middle: Tensor
    counts: Tensor


def targets(boxes: Tensor, kinds: Tensor, at: Tensor) -> Targets:
    """What each of the cells `at` (cells,3) learns of `boxes` (n,m,4) of the `kinds` (n,m), as in a batch.

    A cell is a face's when it lies near the face's middle and the face's size belongs to the cell's grid;
    the smallest face's of several. Between clearly near and clearly far a cell learns the box but no score:
    asked for a sharp line there, no cell of a face whose middle is a corner of four would be sure. A cell
    within a box to ignore counts only in the middle of a face.
    """
    n, m = kinds.shape
    if m == 0:
        nothing = torch.full((n, len(at)), -1, device=at.device)
        return Targets(nothing, nothing >= 0, nothing < 0)
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    side = (boxes[..., 2:] - boxes[..., :2]).amax(-1, keepdim=True)
    distance = torch.linalg.vector_norm(centre.unsqueeze(2) - at[:, :2], dim=-1)  # (n,m,cells)
    # At least 0.75 cells, so that every face has a cell however it lies (half a diagonal is 0.71).
    reach = torch.maximum(0.2 * side, 0.75 * at[:, 2])
    least, most = torch.tensor(SIDES, device=at.device)[torch.log2(at[:, 2] / STRIDES[0]).long()].unbind(-1)
    face = (kinds == FACE).unsqueeze(-1)
    near = face & (distance <= reach) & (side >= least) & (side <= most)
    nearly = face & (distance <= UNSURE * reach) & (side >= least / UNSURE) & (side <= most * UNSURE)
    # Where one face's middle is nearly another's, it is the first that counts.
    order = torch.where(near, side, torch.where(nearly, side + 1e6, math.inf))
    smallest, index = order.min(dim=1)
    index = torch.where(smallest.isfinite(), index, -1)
    middle = near.gather(1, index.clamp_min(0).unsqueeze(1)).squeeze(1) & (index >= 0)
    within = ((at[:, :2] >= boxes[..., None, :2]) & (at[:, :2] <= boxes[..., None, 2:])).all(-1)
    ignored = (within & (kinds == IGNORE).unsqueeze(-1)).any(dim=1)
    return Targets(index, middle, middle | ((index < 0) & ~ignored))


class FaceTask:
    """What `train.py faces` trains: the network, its batches, its loss, and how good it is."""

    def __init__(
        self, folder: Path, config: DetectorConfig | None = None, *,
        batch_size: int = 64, seed: int = 0, device: torch.device | None = None,
        miner: Detector | None = None, portraits: Path | None = None, workers: int = 0,
        yunet: YuNetTeacher | None = None, elsewhere: tuple[Path, faces.FaceDetector] | None = None,
        teacher: DetectorNetwork | None = None, taught: float = 0.4,
    ) -> None:  # fmt: skip
        """`miner` and `workers`: see `Mosaics`; `portraits`: see `face_photos.read_photos`.

        `yunet` and a `teacher`, a network such as this one but wider, are asked about every picture that is
        learnt from; the latter's word has a share of `taught` in the loss of the scores. `elsewhere` is a
        folder of photos whose faces nobody has marked, and a detector that finds them.
        """
        self.config = config or DetectorConfig()
        self.taught = taught
        self.network = DetectorNetwork(self.config)
        if yunet is not None:
            self.network = Pupil.of(self.network, self.config)
        self.yunet = yunet and yunet.to(device or "cpu")
        self.teacher = teacher and state.folded(teacher).to(device or "cpu")
        photos = face_photos.read_photos(folder, portraits)
        if elsewhere is not None:
            with ThreadPoolExecutor(max(1, workers)) as pool:
                photos += face_photos.photos_elsewhere(*elsewhere, pool)
        self.validation = [p for p in photos if p.held_out]
        self.mosaics = Mosaics(photos, batch_size, seed=seed, miner=miner, workers=workers)
        if not self.mosaics.training:
            raise ValueError(f"{folder} holds no photo to train on")

    @property
    def hidden_kernels(self) -> list[nn.Parameter]:
        """What Muon trains: kernels that mix channels, but for the first and for those that put out boxes."""
        named = [(name, p) for name, p in self.network.named_parameters() if p.ndim == 4]
        return [p for name, p in named[1:] if not name.startswith(("heads", "second_heads"))]

    @property
    def steps_per_epoch(self) -> int:
        return max(1, sum(map(len, self.mosaics.training.values())) // self.mosaics.batch_size)

    def batch(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        """See `Mosaics.batch`."""
        return self.mosaics.batch(step, rank, world)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """Mean loss per learning cell, and its parts.

        The score learns the overlap of the cell's own box with the truth (Li et al.,
        https://arxiv.org/abs/2006.04388), the box by complete IoU (https://arxiv.org/abs/1911.08287). Where
        there is a teacher, part of the score's loss is against what it says, also of what is to be ignored.
        The second head, where there is a YuNet, learns its logits, but not that a face were none.
        """
        pictures = batch["pictures"]
        grids, taught = model(pictures), torch.zeros((), device=pictures.device)
        at = face_net.cells(pictures.shape[2], pictures.shape[3], pictures.device)
        box, middle, counts = targets(batch["boxes"], batch["kinds"], at)
        if self.yunet is not None:
            grids, told_by_yunet = grids
            wanted = self.yunet(pictures)
            sure = wanted.sigmoid().prod(dim=1).sqrt()
            # What may be a face is rare, and what matters most.
            rarity = (1 + 10 * sure).masked_fill(middle & (sure < 0.5), 0)[:, None]
            taught = (F.smooth_l1_loss(told_by_yunet, wanted, reduction="none") * rarity).mean()
        picture, cell = torch.nonzero(box >= 0, as_tuple=True)
        truth = batch["boxes"][picture, box[picture, cell]]
        told = face_net.decode(grids.offsets[picture, cell], at[cell])
        overlap = paired_iou(told.detach(), truth)
        wanted = torch.zeros_like(grids.logits)
        # The root: boxes of small faces are never exact, and are to be as sure as those of large ones.
        wanted[picture, cell] = torch.where(middle[picture, cell], overlap.clamp_min(0).sqrt(), 0.0)
        weight = face_weights(box[picture, cell], picture, kinds=batch["kinds"])
        weights = counts.to(grids.logits.dtype)
        weights[picture, cell] *= weight
        errors = F.binary_cross_entropy_with_logits(grids.logits, wanted, reduction="none")
        faces_there = (weight * middle[picture, cell]).sum().clamp_min(1)
        score = (errors * weights).sum() / faces_there
        if self.teacher is not None:
            with torch.no_grad():
                wanted = self.teacher(pictures).logits.sigmoid()
            errors = F.binary_cross_entropy_with_logits(grids.logits, wanted, reduction="none")
            errors[picture, cell] *= weight
            score = torch.lerp(score, errors.sum() / faces_there, self.taught)
        box = (complete_box_iou_loss(told, truth) * weight).sum() / weight.sum().clamp_min(1)
        total = score + BOX_WEIGHT * box + TAUGHT_WEIGHT * taught
        return total, {"score": score.item(), "box": box.item(), "taught": taught.item()}

    def validate(
        self, model: DetectorNetwork, config: DetectorConfig | None = None
    ) -> dict[str, float | None]:
        """How good it is on people and photos held out of training; see `face_measures.measure`.

        With the `config` to ship, at its threshold: as users will have it. In training, at the best one.
        """
        found = self._found(running(config or self.config, model))
        return face_measures.measure(found, None if config is None else config.min_score)

    def finish(self, model: DetectorNetwork) -> tuple[DetectorConfig, DetectorNetwork]:
        """The detector to ship: these weights, and what validation photos say of how to read them.

        That are the bias of its boxes, the calibration of its scores and its operating threshold. Training
        photos give the ranges of its activations, where they can be had (`fkp[export]`).
        """
        if isinstance(model, Pupil):
            model = model.alone()
        found = self._found(running(self.config, model))
        off = face_measures.bias(found)
        unbiased = [(photo, detector.corrected(boxes, off), scores) for photo, boxes, scores in found]
        slope, intercept = face_measures.calibration(unbiased)
        # Rounded down: the box whose score is the threshold is to be found.
        told = face_measures.logit(np.array(face_measures.operating_threshold(unbiased)))
        least = float(detector.calibrated(told, (slope, intercept)))
        config = replace(
            self.config, bias=off, calibration=(slope, intercept),
            min_score=math.floor(1000 * max(least, LEAST_SURE)) / 1000,
            activation_ranges=self._ranges(model),
        )  # fmt: skip
        return config, model

    def _ranges(self, model: DetectorNetwork) -> tuple[tuple[str, float, float], ...]:
        """The ranges of the activations in some training photos of every source, at the detector's size."""
        if not export.is_possible():
            return ()
        pictures = []
        for photos in self.mosaics.training.values():
            for photo in photos[:: max(1, len(photos) // RANGE_PHOTOS)][:RANGE_PHOTOS]:
                image = images.read(photo.path)
                _, first, *_ = detector.scales(image.shape[0], image.shape[1], self.config)
                pictures.append(detector.fit(image, first)[0])
        return export.detector_activation_ranges(model, pictures)

    def _found(self, face_detector: Detector) -> FoundInPhotos:
        """Held-out photos with the boxes (n,4) found at a very low threshold, and their scores (n,)."""
        return [(p, *face_detector(images.read(p.path), min_score=0.02)) for p in self.validation_subset]

    @cached_property
    def validation_subset(self) -> list[face_photos.Photo]:
        """Held-out photos to validate on: a part of those that are many, none of the crops of profiles."""
        steps = {"ytf": 4}
        by_source = {s: [p for p in self.validation if p.source == s] for s in SHARES if s != "merl"}
        return [p for source, some in by_source.items() for p in some[:: steps.get(source, 1)]]

    def preview(self, model: DetectorNetwork) -> np.ndarray:
        """A sheet (H,W,3) uint8 RGB of held-out photos: truth green, to ignore grey, found red with score."""
        found = running(self.config, model)
        by_source = [[p for p in self.validation if p.source == source] for source in SHARES]
        chosen = [some[i * (len(some) // 4)] for some in by_source for i in range(4) if some]
        return face_measures.sheet([(p, *found(images.read(p.path), min_score=0.3)) for p in chosen])


def face_weights(box: Tensor, picture: Tensor, kinds: Tensor) -> Tensor:
    """The weight (k,) of each of k cells that learn the box of an index (k,) in a picture (k,).

    A large face has many such cells, a small one two or three: with weights alike it would hardly count.
    """
    face = picture * kinds.shape[1] + box
    cells = torch.bincount(face, minlength=kinds.numel())[face].float()
    return (4 / cells).sqrt()


def running(config: DetectorConfig, network: DetectorNetwork) -> Detector:
    """A network in training as a face detector, on torch."""
    device = str(next(network.parameters()).device)
    return Detector(config, runtime.Runner(runtime.NetworkFiles("", {}, lambda: network), "torch", device))


def paired_iou(boxes: Tensor, others: Tensor) -> Tensor:
    """Intersection over union (n,) of boxes (n,4) with others (n,4), one by one."""
    overlap = torch.minimum(boxes[:, 2:], others[:, 2:]) - torch.maximum(boxes[:, :2], others[:, :2])
    both = overlap.clamp_min(0).prod(1)
    areas = [(b[:, 2:] - b[:, :2]).prod(1) for b in (boxes, others)]
    return both / (areas[0] + areas[1] - both).clamp_min(1e-6)
