"""The face detector: a small one-stage, anchor-free convolutional network, and how its output is read.

Every cell of three grids (one cell per 8, 16 and 32 pixels) says how surely a face is centred near it and
where that face's box lies, as in FCOS (Tian et al., https://arxiv.org/abs/1904.01355), with one prior size
a grid. A box is the tight box of the 68 keypoints, xyxy, and may reach beyond the picture.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
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

SMALLEST = 15.0
"""Boxes of fewer pixels on their longer side, of the picture or of the network's input, are not believed:
nearly all are false, and there is not enough to see for 68 keypoints."""

VOTE_IOU, VOTE_SCORE = 0.65, 0.5
"""Boxes that overlap a face's best one by this IoU, and have this share of its score, have a say in it."""

GREY = 127.5
"""The value that pads a picture, and the network's zero."""


@dataclass(frozen=True)
class DetectorConfig:
    """What a detector's weights fit, and how its output is read; travels with the weights."""

    widths: tuple[int, int, int, int, int] = (16, 32, 64, 96, 128)
    """Channels at 1/2, 1/4, 1/8, 1/16 and 1/32 of the input's size."""
    depths: tuple[int, int, int] = (3, 4, 3)
    """Blocks at 1/8, 1/16 and 1/32."""
    neck_width: int = 64
    """Channels of the three grids that the head reads."""
    least_size: int = 320
    """A picture whose longer side has fewer pixels is enlarged to this many."""
    input_size: int = 512
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


class Separable(nn.Module):
    """Depthwise, then pointwise convolution; added to its input where the shapes allow it."""

    def __init__(self, n_in: int, n_out: int, stride: int = 1, size: int = 3) -> None:
        super().__init__()
        self.depthwise = ConvNorm(n_in, n_in, size, stride, groups=n_in)
        self.pointwise = ConvNorm(n_in, n_out, 1)
        self.adds = n_in == n_out and stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.pointwise(self.depthwise(x))
        return F.relu(x + y if self.adds else y)


def stage(n_in: int, n_out: int, depth: int, size: int = 3) -> nn.Sequential:
    """`depth` blocks, the first of which halves height and width."""
    more = (Separable(n_out, n_out, size=size) for _ in range(depth - 1))
    return nn.Sequential(Separable(n_in, n_out, 2, size), *more)


class DetectorNetwork(nn.Module):
    """Pictures in, three grids of scores and boxes out; about 0.12 M parameters with the default widths."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        w2, w4, w8, w16, w32 = config.widths
        d8, d16, d32 = config.depths
        neck = config.neck_width
        self.stem = nn.Sequential(ConvNorm(3, w2, 3, 2), nn.ReLU(), ConvNorm(w2, w4, 3, 2), nn.ReLU())
        self.stage8 = stage(w4, w8, d8)
        self.stage16 = stage(w8, w16, d16)
        # A face may fill the picture: 5×5 so that a cell at its centre sees the whole of it.
        self.stage32 = stage(w16, w32, d32, size=5)
        self.lateral = nn.ModuleList(ConvNorm(w, neck, 1) for w in (w8, w16, w32))
        self.smooth = nn.ModuleList(Separable(neck, neck) for _ in STRIDES)
        self.head = Separable(neck, neck)
        self.score = nn.Conv2d(neck, 1, 1)
        self.box = nn.Conv2d(neck, 4, 1)
        # Nearly every cell holds no face: start there, or the first steps are spent on learning it
        # (Lin et al., https://arxiv.org/abs/1708.02002, section 4.1).
        assert self.score.bias is not None and self.box.bias is not None
        nn.init.constant_(self.score.bias, -4.6)
        nn.init.zeros_(self.box.bias)

    def forward(self, pictures: Tensor) -> Grids:
        """Grids for pictures (n,3,h,w), RGB 0..255 of any dtype, h and w multiples of 32."""
        weights = self.score.weight
        x = (pictures.to(weights.dtype) - GREY) / 64
        at8 = self.stage8(self.stem(x))
        at16 = self.stage16(at8)
        at32 = self.stage32(at16)
        # From the coarsest grid up: what is seen from afar helps to tell what is seen close by.
        neck32 = self.smooth[2](F.relu(self.lateral[2](at32)))
        neck16 = self.smooth[1](F.relu(self.lateral[1](at16) + F.interpolate(neck32, scale_factor=2.0)))
        neck8 = self.smooth[0](F.relu(self.lateral[0](at8) + F.interpolate(neck16, scale_factor=2.0)))
        features = [self.head(level) for level in (neck8, neck16, neck32)]
        logits = [self.score(f).flatten(1) for f in features]
        offsets = [self.box(f).flatten(2).transpose(1, 2) for f in features]
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


def deepened(shallow: Detector, depths: tuple[int, int, int]) -> DetectorNetwork:
    """A copy of a detector's network with as many blocks as `depths` asks for, where that is more.

    It says what the other says: the blocks added change nothing until they are trained.
    """
    deeper = copy.deepcopy(shallow.network)
    template = DetectorNetwork(replace(shallow.config, depths=depths))
    for name in ("stage8", "stage16", "stage32"):
        here: nn.Sequential = getattr(deeper, name)
        for block in getattr(template, name)[len(here) :]:
            nn.init.zeros_(block.pointwise[1].weight)  # it adds nothing to its input
            here.append(block)
    return deeper


def scales(height: int, width: int, config: DetectorConfig) -> list[float]:
    """The scales at which a picture is looked at: one, or two for a big one, the smaller first."""
    longer = max(height, width)
    first = min(max(longer, config.least_size), config.input_size) / longer
    fine = min(1.0, math.sqrt(config.fine_pixels / (height * width)))
    # A little more is not worth the time: the first look sees faces of SMALLEST pixels.
    return [first, fine] if fine >= 1.5 * first else [first]


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
