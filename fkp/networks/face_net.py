"""The face detector's network: a small one-stage, anchor-free convolutional network, and its targets' codec.

Every cell of three grids (one cell per 8, 16 and 32 pixels) says how surely a face is centred near it and
where that face's box lies, as in FCOS (Tian et al., https://arxiv.org/abs/1904.01355), with one prior size
a grid. A box is the tight box of the 68 keypoints, xyxy, and may reach beyond the picture.
`fkp.detector` reads what it says, without torch.
"""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fkp.config import DetectorConfig
from fkp.detector import GREY, PRIOR, STRIDES


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


def deepened(shallow: DetectorNetwork, depths: tuple[int, int, int]) -> DetectorNetwork:
    """A copy of a network with as many blocks as `depths` asks for, where that is more.

    It says what the other says: the blocks added change nothing until they are trained.
    """
    deeper = copy.deepcopy(shallow)
    template = DetectorNetwork(replace(shallow.config, depths=depths))
    for name in ("stage8", "stage16", "stage32"):
        here: nn.Sequential = getattr(deeper, name)
        for block in getattr(template, name)[len(here) :]:
            nn.init.zeros_(block.pointwise[1].weight)  # it adds nothing to its input
            here.append(block)
    return deeper
