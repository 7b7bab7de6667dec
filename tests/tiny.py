"""Small untrained weights, and networks in a few lines of NumPy, for tests of what is done with networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from fkp import hub
from fkp.config import STYLES, DetectorConfig, KeypointConfig
from fkp.networks import face_net, keypoint_net

KEYPOINTS = KeypointConfig(
    crop_size=64, margin=1.5, widths=(4, 4, 4, 8), depths=(1, 1, 1), top_down_width=4,
    temperatures=(1.0, 1.25, 1.5, 0.75), annotation_offsets=(0.0, 0.0, 0.01, 0.03, -0.02, 0.04, 0.0, 0.05),
    visibility_calibration=(1.5, -0.25),
)  # fmt: skip
BASELINE = KeypointConfig(architecture="baseline", crop_size=32, widths=(4, 8), depths=())
FACES = DetectorConfig(widths=(4, 4, 4, 4), depths=(1, 1, 1), neck_width=4, min_score=0.25)

assert len(KEYPOINTS.temperatures) == STYLES


def lively(module: nn.Module) -> nn.Module:
    """The module with normalisations that do something, as after training; styles that differ."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.uniform_(-1, 1)
                part.running_var.uniform_(0.5, 2)
                part.weight.uniform_(0.5, 2)
                part.bias.uniform_(-1, 1)
            if isinstance(part, nn.Embedding):
                part.weight.normal_()
    return module.eval()


def weights(
    keypoints: KeypointConfig = KEYPOINTS, faces: DetectorConfig = FACES, **rest: Any
) -> hub.Weights:
    """The same at every call."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        keypoint_network = lively(keypoint_net.build(keypoints))
        return hub.Weights.of(keypoint_network, faces, face_net.DetectorNetwork(faces).eval(), **rest)


class Says:
    """A `runtime.Runnable` that answers by a function, and remembers how many pictures it was given."""

    name, description = "function", "a function"

    def __init__(self, answer: Callable[..., Sequence[np.ndarray]]) -> None:
        self.answer = answer
        self.batches: list[int] = []
        self.styles: list[int] = []

    def __call__(self, pictures: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]:
        assert pictures.dtype == np.uint8 and pictures.ndim == 4 and pictures.shape[3] == 3
        self.batches.append(len(pictures))
        self.styles += [int(style) for array in more for style in array]
        return tuple(self.answer(pictures, *more))
