"""YuNet as a teacher of the face detector: what it says of every cell, for a second head to learn.

YuNet (Wu, Peng and Yu, https://doi.org/10.1007/s11633-023-1423-y) has learnt from ten times as many photos of
crowds as there are here. What a network learns in order to say the same stays in its features when the second
head is gone (Hinton et al., https://arxiv.org/abs/1503.02531).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fkp.config import DetectorConfig
from fkp.detector import STRIDES
from fkp.networks.face_net import DetectorNetwork, Grids

if TYPE_CHECKING:
    import onnx

LIMIT = 9.0
"""Logits of YuNet's are learnt up to this far from 0: beyond, they differ in nothing that matters."""


class Pupil(DetectorNetwork):
    """The detector's network with a second head, which in training says what YuNet would."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__(config)
        self.config = config
        self.second_heads = nn.ModuleList(nn.Conv2d(config.neck_width, 2, 1) for _ in STRIDES)

    def forward(self, pictures: Tensor) -> Grids | tuple[Grids, Tensor]:  # type: ignore[override]
        """Grids for pictures (n,3,h,w); in training also YuNet's two logits (n,2,cells) as they are told."""
        features = self.features(pictures)
        if not self.training:
            return self.read(features)
        told = [head(x).flatten(2) for head, x in zip(self.second_heads, features, strict=True)]
        return self.read(features), torch.cat(told, dim=2).float()

    def alone(self) -> DetectorNetwork:
        """The detector's network as it ships, without the second head."""
        network = DetectorNetwork(self.config).to(next(self.parameters()).device)
        tensors = self.state_dict().items()
        network.load_state_dict({name: t for name, t in tensors if not name.startswith("second_heads")})
        return network.eval()

    @classmethod
    def of(cls, network: DetectorNetwork, config: DetectorConfig) -> Pupil:
        """A network with a fresh second head."""
        pupil = cls(config)
        pupil.load_state_dict(pupil.state_dict() | network.state_dict())
        return pupil


class YuNetTeacher(nn.Module):
    """What YuNet says of every cell; its ONNX file run by torch, for pictures of any size on any device.

    Raises ValueError where a file is none that it can run or the onnx package of `fkp[export]` is not there,
    OSError where the file cannot be read.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        try:
            import onnx
            from onnx import numpy_helper
        except ImportError as error:
            raise ValueError(f"--yunet needs {error.name}: run 'pip install \"fkp[export]\"'") from error
        try:
            graph = onnx.load_from_string(file.read_bytes()).graph
        except Exception as error:
            if isinstance(error, OSError):
                raise
            raise ValueError(f"{file} is no ONNX file: {error}") from error
        self.input = graph.input[0].name if graph.input else ""
        self.nodes = [node for node in graph.node if node.op_type in OPERATORS]
        for constant in graph.initializer:
            name, values = _attribute(constant.name), np.array(numpy_helper.to_array(constant))
            self.register_buffer(name, torch.from_numpy(values), persistent=False)
        # What the outputs are before they are reshaped and pressed between 0 and 1.
        makers = {output: node for node in graph.node for output in node.output}
        self.told = []
        for stride in STRIDES:
            for kind in ("cls", "obj"):
                name = f"{kind}_{stride}"
                while (node := makers.get(name)) is not None and node.op_type != "Conv":
                    name = node.input[0]
                if node is None:
                    raise ValueError(f"{file} is no YuNet: it has no output {kind}_{stride}")
                self.told.append(name)

    @torch.no_grad()
    def forward(self, pictures: Tensor) -> Tensor:
        """Logits (n,2,cells) of class and presence for pictures (n,3,h,w) RGB 0..255; as `face_net.cells`."""
        values: dict[str, Tensor] = {self.input: pictures.flip(1).float()}
        for node in self.nodes:
            given = [
                values[name] if name in values else getattr(self, _attribute(name), None)
                for name in node.input if name
            ]  # fmt: skip
            values[node.output[0]] = OPERATORS[node.op_type](given, node)
        told = [values[name].flatten(2) for name in self.told]
        grids = [torch.cat(told[i : i + 2], dim=1) for i in range(0, len(told), 2)]
        return torch.cat(grids, dim=2).float().clamp(-LIMIT, LIMIT)


def _attribute(name: str) -> str:
    return "constant_" + name.replace(".", "_")


def _convolution(given: list[Any], node: onnx.NodeProto) -> Tensor:
    from onnx import helper

    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    picture, kernel, bias = given
    strides, pads, groups = attributes["strides"], attributes["pads"][:2], attributes["group"]
    return F.conv2d(picture, kernel, bias, strides, pads, 1, groups)


OPERATORS: dict[str, Callable[[list[Any], onnx.NodeProto], Tensor]] = {
    "Conv": _convolution,
    "Relu": lambda given, node: F.relu(given[0]),
    "MaxPool": lambda given, node: F.max_pool2d(given[0], 2),
    "Resize": lambda given, node: F.interpolate(given[0], scale_factor=2.0),
    "Add": lambda given, node: given[0] + given[1],
}
"""What YuNet is made of, but for how its outputs are arranged. Its maxima are of 2×2, it doubles sizes."""
