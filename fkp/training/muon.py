"""Muon: momentum whose update of each kernel is made orthogonal, for the hidden layers of a network.

Keller Jordan et al., https://kellerjordan.github.io/posts/muon. PyTorch's own (torch.optim.Muon, since 2.9)
takes matrices only; this one takes convolution kernels (out,in,h,w) as matrices (out, in·h·w).
"""

from __future__ import annotations

from collections import defaultdict
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
            # Kernels of one shape at once: a GPU would spend its time on being told what to do.
            by_shape: defaultdict[torch.Size, list[Tensor]] = defaultdict(list)
            for kernel in group["params"]:
                if kernel.grad is not None:
                    by_shape[kernel.shape].append(kernel)
            for shape, kernels in by_shape.items():
                gradients = [kernel.grad for kernel in kernels if kernel.grad is not None]
                averages = [self.state[k].setdefault("average", torch.zeros_like(k)) for k in kernels]
                torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
                ahead = torch._foreach_lerp(gradients, averages, group["momentum"])  # Nesterov's
                updates = orthogonal(torch.stack([one.reshape(shape[0], -1) for one in ahead]))
                # So that the change of an output does not depend on the shape of the matrix.
                scale = max(1.0, updates.shape[1] / updates.shape[2]) ** 0.5
                torch._foreach_mul_(kernels, 1 - group["lr"] * group["weight_decay"])
                changes = [one.view(shape) for one in updates]
                torch._foreach_add_(kernels, changes, alpha=-group["lr"] * scale)


def orthogonal(matrices: Tensor, steps: int = 5) -> Tensor:
    """About the nearest matrices (...,m,n) whose singular values are all 1; they come out from 0.7 to 1.2.

    A Newton–Schulz iteration in bfloat16, with the coefficients of the reference implementation.
    """
    wide = matrices if matrices.shape[-2] <= matrices.shape[-1] else matrices.mT
    x = wide.bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return (x if wide is matrices else x.mT).to(matrices.dtype)
