"""Keypoints ↔ network targets, encode and decode side by side.

Everything here is in pixels of the crop, xy, integers at pixel centres.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class HeatmapCodec:
    """One heat map a point: a Gaussian to learn from, its centre of mass to read (soft-argmax).

    Soft-argmax: Sun et al., Integral Human Pose Regression, https://arxiv.org/abs/1711.08229.
    """

    crop_size: int
    heatmap_size: int
    sigma: float = 1.0
    """Standard deviation of the Gaussian, in cells of the heat map."""

    def encode(self, keypoints: Tensor) -> Tensor:
        """Logits (n,68,h,h) whose softmax over both axes is a Gaussian around each keypoint (n,68,2)."""
        x, y = self._log_gaussians(keypoints).unbind(dim=-2)
        return y.unsqueeze(-1) + x.unsqueeze(-2)

    def decode(self, logits: Tensor) -> Tensor:
        """Keypoints (n,68,2): the mean position under the softmax of logits (n,68,h,h)."""
        heatmaps = torch.softmax(logits.flatten(2), dim=-1)
        cells = torch.cartesian_prod(self._axis(logits), self._axis(logits)).flip(-1)  # row by row
        with torch.autocast(logits.device.type, enabled=False):  # positions need more than bfloat16 has
            return heatmaps @ cells

    def loss(self, logits: Tensor, keypoints: Tensor) -> Tensor:
        """Kullback-Leibler divergence (n,68) of heat maps, as logits, from encoded keypoints.

        The Gaussian is a product of one along x and one along y, so it never has to be written out.
        """
        gaussians = torch.softmax(self._log_gaussians(keypoints), dim=-1)
        x, y = gaussians.unbind(dim=-2)
        expected = ((logits * x.unsqueeze(-2)).sum(dim=-1) * y).sum(dim=-1)
        entropy = -torch.xlogy(gaussians, gaussians).sum(dim=(-2, -1))
        return torch.logsumexp(logits.flatten(2), dim=-1) - expected - entropy

    def _log_gaussians(self, keypoints: Tensor) -> Tensor:
        """Logarithms (n,68,2,h), but for a constant, of Gaussians along the axes for keypoints (n,68,2)."""
        distances = (self._axis(keypoints) - keypoints.unsqueeze(-1)) / (self.sigma * self._stride)
        return distances.square().mul(-0.5)

    @property
    def _stride(self) -> float:
        return self.crop_size / self.heatmap_size

    def _axis(self, like: Tensor) -> Tensor:
        """Cell centres (h,) in pixels of the crop: cell i covers pixels [i·stride − ½, (i+1)·stride − ½]."""
        cells = torch.arange(self.heatmap_size, dtype=like.dtype, device=like.device)
        return (cells + 0.5) * self._stride - 0.5


def divergence(logits: Tensor, others: Tensor) -> Tensor:
    """Kullback-Leibler divergence (n,68) of heat maps from others, both as logits (n,68,h,h)."""
    said, wanted = (torch.log_softmax(heatmaps.flatten(2), dim=-1) for heatmaps in (logits, others))
    return (wanted.exp() * (wanted - said)).sum(dim=-1)


@dataclass(frozen=True)
class CoordinateCodec:
    """Coordinates as they are, on a scale on which a face spans about −1..1."""

    crop_size: int

    def encode(self, keypoints: Tensor) -> Tensor:
        """Numbers (n,68,2) around 0, of keypoints (n,68,2)."""
        return (keypoints - (self.crop_size - 1) / 2) / (self.crop_size / 2)

    def decode(self, numbers: Tensor) -> Tensor:
        """The inverse of `encode`."""
        return numbers * (self.crop_size / 2) + (self.crop_size - 1) / 2

    def loss(self, numbers: Tensor, keypoints: Tensor) -> Tensor:
        """Mean squared difference (n,68) between numbers and encoded keypoints."""
        return (numbers - self.encode(keypoints)).square().mean(dim=-1)
