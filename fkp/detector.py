"""The face detector: a small one-stage, anchor-free convolutional network, and how its output is read.

Every cell of three grids (one cell per 8, 16 and 32 pixels) says how surely a face is centred near it and
where that face's box lies, as in FCOS (Tian et al., https://arxiv.org/abs/1904.01355), with one prior size
a grid. A box is the tight box of the 68 keypoints, xyxy, and may reach beyond the picture.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fkp import geometry, runtime

STRIDES = (8, 16, 32)
"""Pixels of the network's input per cell, for each of its three grids."""

PRIOR = 4.0
"""A box whose log size is 0 is this many cells wide and high."""

SMALLEST = 10.0
"""Boxes of fewer pixels on their longer side, of the picture or of the network's input, are not believed:
nearly all are false, and there is not enough to see for 68 keypoints."""

VOTE_IOU, VOTE_SCORE = 0.65, 0.5
"""Boxes that overlap a face's best one by this IoU, and have this share of its score, have a say in it."""

GREY = 128
"""The value that pads a picture, and the network's zero: a whole number, so that a quantised graph takes
pictures as they are."""


@dataclass(frozen=True)
class DetectorConfig:
    """What a detector's weights fit, and how its output is read; travels with the weights."""

    widths: tuple[int, int, int, int] = (32, 64, 96, 96)
    """Channels at 1/4, 1/8, 1/16 and 1/32 of the input's size."""
    depths: tuple[int, int, int] = (2, 2, 4)
    """Residual blocks at 1/8, 1/16 and 1/32."""
    neck_width: int = 64
    """Channels of the three grids that the head reads."""
    least_size: int = 320
    """A picture whose longer side has fewer pixels is enlarged to this many."""
    input_size: int = 640
    """A picture whose longer side has more pixels is shrunk to this many for the first look."""
    fine_pixels: int = 4_320_000
    """A big picture is looked at a second time, at up to this many pixels (2400×1800), for small faces."""
    min_score: float = 0.5
    """Boxes below it are dropped, unless a call says otherwise."""
    max_iou: float = 0.4
    """Of two boxes that overlap more than this, the lower scored is dropped."""
    bias: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """By how much the network's boxes are off on the whole, which is taken away: see `box_errors`."""


class Grids(NamedTuple):
    """What the network says, cell by cell, the grids of `STRIDES` one after the other.

    `logits` (n,cells): of the score · `offsets` (n,cells,4): the box relative to the cell, see `decode`.
    """

    logits: Tensor
    offsets: Tensor


def cells(height: int, width: int, device: torch.device | str | None = None) -> Tensor:
    """Centre x, centre y and stride (cells,3) of every cell for an input of height × width pixels.

    Both are multiples of 32. Integers are pixel centres: the first cell spans [−½, 7½] and is centred at 3½.
    """
    grids = []
    for stride in STRIDES:
        y, x = torch.meshgrid(
            torch.arange(height // stride, device=device), torch.arange(width // stride, device=device),
            indexing="ij",
        )
        centre = (torch.stack([x, y], dim=-1).reshape(-1, 2) + 0.5) * stride - 0.5
        grids.append(F.pad(centre, (0, 1), value=float(stride)))
    return torch.cat(grids)


def encode(boxes: Tensor, at: Tensor) -> Tensor:
    """Offsets (...,4) of boxes (...,4) xyxy relative to cells `at` (...,3): dx, dy in cells, log sizes."""
    centre, size = (boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]
    stride = at[..., 2:]
    return torch.cat([(centre - at[..., :2]) / stride, torch.log(size / (PRIOR * stride))], dim=-1)


def decode(offsets: Tensor, at: Tensor) -> Tensor:
    """Boxes (...,4) xyxy, pixels of the network's input: the inverse of `encode`."""
    stride = at[..., 2:]
    centre = at[..., :2] + offsets[..., :2] * stride
    # No box is 20 times larger or smaller than its prior; without a limit exp overflows early in training.
    half = offsets[..., 2:].clamp(-3, 3).exp() * (PRIOR / 2 * stride)
    return torch.cat([centre - half, centre + half], dim=-1)


class ConvNorm(nn.Sequential):
    """Convolution and batch normalisation, which `runtime.folded` makes one convolution."""

    def __init__(self, n_in: int, n_out: int, size: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(
            nn.Conv2d(n_in, n_out, size, stride, padding=size // 2, groups=groups, bias=False),
            nn.BatchNorm2d(n_out, momentum=0.03),
        )


class Residual(nn.Module):
    """A 3×3 convolution added to its input."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = ConvNorm(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.convolution(x))


def stage(n_in: int, n_out: int, depth: int) -> nn.Sequential:
    """Halves height and width, then `depth` residual blocks."""
    return nn.Sequential(ConvNorm(n_in, n_out, 3, 2), nn.ReLU(), *(Residual(n_out) for _ in range(depth)))


def space_to_depth(pictures: Tensor, block: int) -> Tensor:
    """Pictures (n,c,h,w) as (n,block²·c,h/block,w/block): the pixels of a block become channels, row by row."""
    n, c, height, width = pictures.shape
    # By way of channels last, for there a row of a block is one piece of memory.
    rows = pictures.permute(0, 2, 3, 1).reshape(n, height // block, block, width // block, block * c)
    blocks = rows.permute(0, 1, 3, 2, 4).reshape(n, height // block, width // block, block * block * c)
    return blocks.permute(0, 3, 1, 2)


class DetectorNetwork(nn.Module):
    """Pictures in, three grids of scores and boxes out; 0.9 M parameters with the default widths.

    Dense convolutions of 32 channels and more only: they are what processors do fastest, in training
    (bfloat16) and in 8 bits. Hence blocks of 4×4 pixels, not single ones, are what the first one takes.
    """

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        w4, *widths = config.widths
        neck = config.neck_width
        self.stem = nn.Sequential(ConvNorm(3 * 4 * 4, w4, 3), nn.ReLU())
        self.stages = nn.ModuleList(
            stage(n_in, n_out, depth)
            for (n_in, n_out), depth in zip(pairwise(config.widths), config.depths, strict=True)
        )
        self.lateral = nn.ModuleList(ConvNorm(w, neck, 1) for w in widths)
        self.smooth = nn.ModuleList(ConvNorm(neck, neck, 3) for _ in STRIDES)
        self.score = nn.ModuleList(nn.Conv2d(neck, 1, 1) for _ in STRIDES)
        self.box = nn.ModuleList(nn.Conv2d(neck, 4, 1) for _ in STRIDES)
        for score, box in zip(self.score, self.box, strict=True):
            # Nearly every cell holds no face: start there, or the first steps are spent on learning it
            # (Lin et al., https://arxiv.org/abs/1708.02002, section 4.1).
            nn.init.constant_(score.bias, -4.6)
            nn.init.zeros_(box.bias)

    def forward(self, pictures: Tensor) -> Grids:
        """Grids for pictures (n,3,h,w), RGB 0..255 of any dtype, h and w multiples of 32."""
        blocks = space_to_depth(pictures, 4)
        x = self.stem(blocks.to(self.score[0].weight.dtype) - GREY)  # normalised after the convolution
        levels = []
        for one in self.stages:
            x = one(x)
            levels.append(x)
        # From the coarsest grid up: what is seen from afar helps to tell what is seen close by.
        necks: list[Tensor] = []
        for level, lateral, smooth in zip(levels[::-1], self.lateral[::-1], self.smooth[::-1], strict=True):
            y = lateral(level)
            if necks:
                y = y + F.interpolate(necks[-1], scale_factor=2.0)
            necks.append(F.relu(smooth(F.relu(y))))
        logits = [score(x).flatten(1) for score, x in zip(self.score, necks[::-1], strict=True)]
        offsets = [box(x).flatten(2).transpose(1, 2) for box, x in zip(self.box, necks[::-1], strict=True)]
        return Grids(torch.cat(logits, 1).float(), torch.cat(offsets, 1).float())


class Detector:
    """Finds faces in pictures of any size. Without a network it is untrained: `network` needs weights.

    `graph` is the ONNX file made of the network, `backend` one of `runtime.BACKENDS`, by default the fastest
    that can be had; see `runtime.Runner`, which is `runner`.
    """

    def __init__(
        self,
        config: DetectorConfig,
        network: DetectorNetwork | None = None,
        *,
        graph: Path | None = None,
        backend: str | None = None,
    ) -> None:
        self.config = config
        self.network = (network or DetectorNetwork(config)).eval()
        self.runner = runtime.Runner(self.network, graph, backend)

    def on(self, backend: str | None) -> Detector:
        """The same detector on a backend by name."""
        return Detector(self.config, self.network, graph=self.runner.graph, backend=backend)

    def __call__(self, image: np.ndarray, *, min_score: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Tight boxes (n,4) xyxy, pixels of the image, and their scores (n,), 0..1, best first; both float32.

        `image` is (H,W,3) uint8 RGB; `min_score` is the least score kept, `config.min_score` by default.
        """
        at_least = self.config.min_score if min_score is None else min_score
        voting = VOTE_SCORE * at_least
        first, *fine = scales(image.shape[0], image.shape[1], self.config)
        found = [self._look(image, first, voting)]
        # What is large here, the first look sees whole, and better.
        found += [self._look(image, scale, voting, largest=self.config.input_size / 2) for scale in fine]
        boxes, scores = (torch.cat(some).numpy() for some in zip(*found, strict=True))
        best = geometry.suppress(boxes, scores, self.config.max_iou)
        best = best[scores[best] >= at_least]
        faces = best[~parts_of_faces(boxes[best])]
        return corrected(voted(boxes, scores, faces), self.config.bias), scores[faces]

    def _look(
        self, image: np.ndarray, scale: float, min_score: float, largest: float = math.inf
    ) -> tuple[Tensor, Tensor]:
        """Boxes (n,4), pixels of the image, and scores (n,) of the image seen at a scale, many for each face.

        None is smaller than SMALLEST, or larger than `largest` pixels of the network's input.
        """
        picture, scale_xy = fit(image, scale)
        logits, offsets = map(torch.from_numpy, self.runner(picture[None]))
        scores = logits[0].sigmoid()
        keep = scores >= min_score
        boxes, scores = decode(offsets[0][keep], _cells_once(*picture.shape[:2])[keep]), scores[keep]
        side = (boxes[:, 2:] - boxes[:, :2]).amax(dim=1)
        fits = (side >= SMALLEST * max(1.0, scale)) & (side <= largest)
        # Edges at −½: the inverse of how `fit` placed the picture.
        return (boxes[fits] + 0.5) / torch.from_numpy(np.tile(scale_xy, 2)).float() - 0.5, scores[fits]


def voted(boxes: np.ndarray, scores: np.ndarray, best: np.ndarray) -> np.ndarray:
    """The `best` (k,) of boxes (n,4), each as the mean of those that tell the same face, by scores (n,).

    Many cells see a face, and their boxes are off in different ways. Box voting: Gidaris and Komodakis,
    https://arxiv.org/abs/1505.01749.
    """
    means = np.empty((len(best), 4), np.float32)
    for row, index in enumerate(best):  # not all at once: there may be thousands, of tens of thousands
        says = geometry.iou(boxes[index], boxes)[0] >= VOTE_IOU
        says &= scores >= VOTE_SCORE * scores[index]
        means[row] = np.average(boxes[says], axis=0, weights=scores[says].clip(1e-9))
    return means


def box_errors(boxes: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How far boxes (n,4) are off the truth (n,4): (n,4).

    Right and down, in shares of the longer side of the box, and the logarithms of how much wider and higher.
    """
    (centre, size), (centre_of_truth, size_of_truth) = map(_centre_and_size, (boxes, truth))
    away = (centre - centre_of_truth) / size.max(axis=1, keepdims=True)
    return np.concatenate([away, np.log(size / size_of_truth)], axis=1)


def corrected(boxes: np.ndarray, bias: Sequence[float]) -> np.ndarray:
    """The boxes (n,4), whose `box_errors` are a bias (4,), without it."""
    centre, size = _centre_and_size(boxes)
    away, wider = np.split(np.array(bias, np.float32), 2)
    centre = centre - away * size.max(axis=1, keepdims=True)
    half = size * np.exp(-wider) / 2
    return np.concatenate([centre - half, centre + half], axis=1)


def _centre_and_size(boxes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]


def scales(height: int, width: int, config: DetectorConfig) -> list[float]:
    """The scales at which a picture is looked at: one, or two for a big one, the smaller first."""
    longer = max(height, width)
    first = min(max(longer, config.least_size), config.input_size) / longer
    fine = min(1.0, math.sqrt(config.fine_pixels / (height * width)))
    # A little more is not worth the time.
    return [first, fine] if fine >= 1.15 * first else [first]


def parts_of_faces(boxes: np.ndarray) -> np.ndarray:
    """Which boxes (n,4), best scored first, are a part of a face, or are made up around one: (n,) bool.

    A nostril or a pattern on a cheek may look like a face: of two boxes the lesser scored goes where the
    smaller, at most half as wide, has its middle within the ellipse inscribed in the larger. A face beside a
    cheek, in the corner of a box, stays.
    """
    centre, size = _centre_and_size(boxes)
    # [i, j]: whether i is a part of j
    within = np.square((centre[:, None] - centre) / (size / 2)).sum(-1) < 1
    part = within & (size[:, None].max(-1) <= size.max(-1) / 2)
    related, dropped = part | part.T, np.zeros(len(boxes), bool)
    for i in range(1, len(boxes)):
        dropped[i] = (related[i, :i] & ~dropped[:i]).any()
    return dropped


@lru_cache(64)
def _cells_once(height: int, width: int) -> Tensor:
    return cells(height, width)


def fit(image: np.ndarray, scale: float) -> tuple[np.ndarray, np.ndarray]:
    """The image (H,W,3) scaled, and padded with grey to multiples of 32 on the right and at the bottom.

    Also the scale (2,) that was applied to x and y: whole pixels make it a little other than what was asked.
    """
    height, width = image.shape[:2]
    new_wh = max(1, round(width * scale)), max(1, round(height * scale))
    if new_wh != (width, height):
        # Averages over areas are five times slower and needed only where pixels would be left out.
        how = cv2.INTER_AREA if scale < 0.5 else cv2.INTER_LINEAR
        image = cv2.resize(image, new_wh, interpolation=how)
    step = STRIDES[-1]
    bottom, right = -new_wh[1] % step, -new_wh[0] % step
    picture = cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_CONSTANT, value=(GREY,) * 3)
    return picture, np.array([new_wh[0] / width, new_wh[1] / height])
