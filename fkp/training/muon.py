"""Muon: momentum whose update of each kernel is made orthogonal, for the hidden layers of a network.

Keller Jordan et al., https://kellerjordan.github.io/posts/muon. PyTorch's own (torch.optim.Muon, since 2.9)
takes matrices only; this one takes convolution kernels (out,in,h,w) as matrices (out, in·h·w).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


class Muon(torch.optim.Optimizer):
    """For weights of at least two dimensions that are neither the first nor the last of a network."""

    def __init__(
        self,
        kernels: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.02,
        momentum: float = 0.95,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(kernels, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of every kernel that has a gradient."""
        for group in self.param_groups:
            for kernel in group["params"]:
                if kernel.grad is None:
                    continue
                average = self.state[kernel].setdefault("average", torch.zeros_like(kernel))
                average.lerp_(kernel.grad, 1 - group["momentum"])
                ahead = kernel.grad.lerp(average, group["momentum"])  # Nesterov's
                update = orthogonal(ahead.reshape(len(kernel), -1))
                # So that the change of an output does not depend on the shape of the matrix.
                scale = max(1.0, update.shape[0] / update.shape[1]) ** 0.5
                kernel.mul_(1 - group["lr"] * group["weight_decay"])
                kernel.add_(update.view_as(kernel), alpha=-group["lr"] * scale)


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """About the nearest matrix (m,n) whose singular values are all 1; they come out between 0.7 and 1.2.

    A Newton–Schulz iteration in bfloat16, with the coefficients of the reference implementation.
    """
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    x = wide.bfloat16()
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x if wide is matrix else x.T).to(matrix.dtype)
