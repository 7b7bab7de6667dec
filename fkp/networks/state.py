"""From stored tensors to torch modules and back, and a module made quick for inference."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

Module = TypeVar("Module", bound=nn.Module)


class StateError(ValueError):
    """Tensors that do not fit a network: the first fault in words."""


def arrays(module: nn.Module) -> dict[str, np.ndarray]:
    """The tensors of a module as they are stored: floats as float16 where they fit into it, else float32."""
    return {name: _rounded(tensor.detach().cpu()).numpy() for name, tensor in module.state_dict().items()}


def load(module: nn.Module, tensors: Mapping[str, np.ndarray]) -> None:
    """Give a module its tensors. Raises StateError where one is missing, extra or misshapen."""
    check(module, tensors)
    module.load_state_dict({name: torch.from_numpy(np.array(array)) for name, array in tensors.items()})


def check(module: nn.Module, tensors: Mapping[str, np.ndarray]) -> None:
    """Raises StateError where tensors do not fit a module."""
    needed = module.state_dict()
    problems = [f"tensor {name} is missing" for name in needed if name not in tensors]
    problems += [f"tensor {name} belongs to no part of the network" for name in tensors if name not in needed]
    for name, tensor in needed.items():
        if name not in tensors:
            continue
        array = tensors[name]
        if tuple(array.shape) != tuple(tensor.shape):
            problems.append(f"tensor {name} has shape {array.shape} instead of {tuple(tensor.shape)}")
        elif (array.dtype.kind == "f") != tensor.is_floating_point():
            problems.append(f"tensor {name} is of type {array.dtype}")
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise StateError(problems[0] + more)


def copy_mean(sources: Mapping[str, nn.Module], target: nn.Module) -> None:
    """All tensors of a network, or the mean of several (model soups, https://arxiv.org/abs/2203.05482).

    `sources` are networks by the name that StateError is to call them by when a tensor of theirs is missing,
    extra or misshapen.
    """
    states = []
    for name, source in sources.items():
        state = source.state_dict()
        try:
            check(target, {key: tensor.cpu().numpy() for key, tensor in state.items()})
        except StateError as error:
            raise StateError(f"{name} holds a network of another shape: {error}") from error
        states.append(state)
    mean = {}
    for key, tensor in target.state_dict().items():
        all_of_it = torch.stack([state[key].to(tensor.device) for state in states])
        mean[key] = all_of_it.mean(dim=0) if tensor.is_floating_point() else all_of_it[0]
    target.load_state_dict(mean)


def folded(module: Module) -> Module:
    """A copy for inference that computes the same: batch normalisation folded into the convolution before it.

    It is found where the two follow one another in an `nn.Sequential`. Saves a third of torch's time.
    """
    copied = copy.deepcopy(module).eval().requires_grad_(False)
    for sequence in [part for part in copied.modules() if isinstance(part, nn.Sequential)]:
        for i in range(len(sequence) - 1):
            convolution, norm = sequence[i], sequence[i + 1]
            if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                sequence[i], sequence[i + 1] = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return copied.to(memory_format=torch.channels_last)


def _rounded(tensor: Tensor) -> Tensor:
    """The tensor as float16, unless it holds no floats, or one that is too large for that."""
    tensor = tensor.clone(memory_format=torch.contiguous_format)
    if not tensor.is_floating_point():
        return tensor
    rounded = tensor.to(torch.float16)
    return rounded if bool((rounded.isfinite() == tensor.isfinite()).all()) else tensor.float()
