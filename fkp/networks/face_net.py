"""The face detector's network: a small one-stage, anchor-free convolutional network, and its targets' codec.

Every cell of three grids (one cell per 8, 16 and 32 pixels) says how surely a face is centred near it and
where that face's box lies, as in FCOS (Tian et al., https://arxiv.org/abs/1904.01355), with one prior size
a grid. A box is the tight box of the 68 keypoints, xyxy, and may reach beyond the picture.
`fkp.detector` reads what it says, without torch.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fkp.config import DetectorConfig
from fkp.detector import GREY, PRIOR, STRIDES

BLOCK = 4
"""Side of the blocks of pixels that the network's first convolution takes."""


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
    """Convolution and batch normalisation, which `state.folded` makes one convolution."""

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
    """Pictures (n,c,h,w) as (n,block²·c,h/block,w/block): a block's pixels become channels, row by row."""
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
        self.stem = nn.Sequential(ConvNorm(3 * BLOCK * BLOCK, w4, 3), nn.ReLU())
        self.stages = nn.ModuleList(
            stage(n_in, n_out, depth)
            for (n_in, n_out), depth in zip(pairwise(config.widths), config.depths, strict=True)
        )
        self.lateral = nn.ModuleList(ConvNorm(w, neck, 1) for w in widths)
        self.smooth = nn.ModuleList(ConvNorm(neck, neck, 3) for _ in STRIDES)
        self.heads = nn.ModuleList(nn.Conv2d(neck, 5, 1) for _ in STRIDES)  # a score and four offsets
        for head in self.heads:
            # Nearly every cell holds no face: start there, or the first steps are spent on learning it
            # (Lin et al., https://arxiv.org/abs/1708.02002, section 4.1).
            assert isinstance(head.bias, Tensor)
            nn.init.zeros_(head.bias)
            nn.init.constant_(head.bias[0], -4.6)

    def forward(self, pictures: Tensor) -> Grids:
        """Grids for pictures (n,3,h,w), RGB 0..255 of any dtype, h and w multiples of 32."""
        return self.read(self.features(pictures))

    def features(self, pictures: Tensor) -> list[Tensor]:
        """What the heads read: a tensor (n,neck_width,h/stride,w/stride) for each of `STRIDES`."""
        blocks = space_to_depth(pictures, BLOCK)
        x = self.stem(blocks.to(next(self.parameters()).dtype) - GREY)  # normalised after the convolution
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
        return necks[::-1]

    def read(self, features: list[Tensor]) -> Grids:
        """The grids that the heads read from features."""
        cells = [head(x).flatten(2) for head, x in zip(self.heads, features, strict=True)]
        told = torch.cat(cells, 2).float()
        return Grids(told[:, 0], told[:, 1:].transpose(1, 2))
