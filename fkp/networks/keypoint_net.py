"""The keypoint networks: `KeypointNet`, which ships, and `Baseline`, the CNN of the course project.

Both take crops (n,3,S,S) uint8 RGB and give, through the codec they name, keypoints and spreads in pixels
of the crop. Normalisation happens inside, so that nobody can forget it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fkp import scheme
from fkp.networks.codec import CoordinateCodec, HeatmapCodec


@dataclass(frozen=True)
class KeypointConfig:
    """What a keypoint network is made of, and how a face has to be cropped for it."""

    architecture: str = "keypointnet"
    crop_size: int = 112
    """Side of the square crop, pixels."""
    margin: float = 1.3
    """Side of the crop as a multiple of the longer side of the tight face box."""
    mean: tuple[float, ...] = (124.0, 116.0, 104.0)
    std: tuple[float, ...] = (59.0, 57.0, 57.0)
    widths: tuple[int, ...] = (16, 32, 64, 160)
    """Channels of the stem (at half size) and of each stage (at a quarter, an eighth, …)."""
    depths: tuple[int, ...] = (1, 2, 2)
    """Residual blocks of each stage."""
    top_down_width: int = 48
    temperatures: tuple[float, ...] = (1.0, 1.0, 1.0)
    """What spreads are multiplied by before they become scores, for each of `scheme.LABEL_STYLES`; fitted on
    validation data."""
    label_style: str = "300w"
    """The labelling style that users get unless they ask for another."""
    leans: tuple[float, ...] = (0.0,) * 6
    """How far labels lie to the right of what the network says, and below it, in shares of the longer side of
    the tight box: two numbers for each of `scheme.LABEL_STYLES`. What a network that learns from pictures and
    their mirror images alike cannot learn."""

    def temperature(self, label_style: str | None = None) -> float:
        """That of a labelling style, by default of the one that users get."""
        return self.temperatures[scheme.LABEL_STYLES.index(label_style or self.label_style)]

    def lean(self, label_style: str | None = None) -> np.ndarray:
        """How far labels of a style lie from what the network says: right, down (2,), pixels of the crop."""
        first = 2 * scheme.LABEL_STYLES.index(label_style or self.label_style)
        return np.array(self.leans[first : first + 2], np.float32) * (self.crop_size / self.margin)


KEYPOINTNET = KeypointConfig(leans=(0.0102, 0.0057, 0.0054, 0.0040, 0.0149, 0.0074))
BASELINE = replace(
    KEYPOINTNET, architecture="baseline", crop_size=96, margin=1.4, widths=(16, 32, 64, 128), depths=()
)
"""The two networks as `train.py keypoints` builds them. How the labels of YouTube Faces and 300-W lie was
measured by `python benchmarks/labels.py`."""


class RawOutput(NamedTuple):
    """What a network puts out: `outputs` for its codec, and log spreads (n,68), of pixels of the crop."""

    outputs: Tensor
    log_spreads: Tensor


class Prediction(NamedTuple):
    """`keypoints` (n,68,2) xy and `spreads` (n,68), the expected error; both in pixels of the crop."""

    keypoints: Tensor
    spreads: Tensor


class KeypointNetwork(nn.Module):
    """The interface that both networks share."""

    codec: HeatmapCodec | CoordinateCodec
    mean: Tensor
    std: Tensor

    def __init__(self, config: KeypointConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.tensor(config.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(config.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, crops: Tensor, styles: Tensor | None = None) -> RawOutput:
        """Raw output for crops (n,3,S,S) uint8 RGB; `styles` (n,) are indices into scheme.LABEL_STYLES."""
        raise NotImplementedError

    def predict(self, crops: Tensor, label_style: str | None = None) -> Prediction:
        """Decoded output for crops (n,3,S,S) uint8 RGB, by default in the config's labelling style."""
        style = scheme.LABEL_STYLES.index(label_style or self.config.label_style)
        raw = self(crops, torch.full(crops.shape[:1], style, device=crops.device))
        return Prediction(self.codec.decode(raw.outputs), raw.log_spreads.exp())

    def normalise(self, crops: Tensor) -> Tensor:
        """Crops as floats of about zero mean and unit variance."""
        return ((crops - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def build(config: KeypointConfig) -> KeypointNetwork:
    """The network that `config.architecture` names, with fresh weights.

    Raises ValueError for an architecture or a labelling style that does not exist.
    """
    if len(config.temperatures) != len(scheme.LABEL_STYLES):
        styles = ", ".join(scheme.LABEL_STYLES)
        raise ValueError(f"{len(config.temperatures)} temperatures: one is needed for each of {styles}")
    if len(config.leans) != 2 * len(scheme.LABEL_STYLES):
        styles = ", ".join(scheme.LABEL_STYLES)
        raise ValueError(f"{len(config.leans)} leans: two are needed for each of {styles}")
    if config.label_style not in scheme.LABEL_STYLES:
        raise ValueError(f"label_style {config.label_style!r} is none of {', '.join(scheme.LABEL_STYLES)}")
    if config.architecture == "keypointnet":
        return KeypointNet(config)
    if config.architecture == "baseline":
        return Baseline(config)
    raise ValueError(f"architecture {config.architecture!r} is neither keypointnet nor baseline")


class KeypointNet(KeypointNetwork):
    """Residual stages down to 1/16, a top-down path back to 1/4, one heat map a point, soft-argmax.

    Plain 3×3 convolutions: on CPUs they train three times faster than inverted residual blocks of the same
    accuracy class, and widths that are multiples of 32 faster than others (LOG.md). Residual blocks:
    https://arxiv.org/abs/1512.03385, top-down path: https://arxiv.org/abs/1612.03144.
    """

    codec: HeatmapCodec

    def __init__(self, config: KeypointConfig) -> None:
        super().__init__(config)
        stem, *widths = config.widths
        self.codec = HeatmapCodec(config.crop_size, config.crop_size // 4)
        self.stem = _conv(3, stem, stride=2)
        self.stages = nn.ModuleList()
        for before, width, depth in zip([stem, *widths], widths, config.depths, strict=False):
            blocks = [ResidualBlock(before, width, stride=2)]
            blocks += [ResidualBlock(width, width) for _ in range(depth - 1)]
            self.stages.append(nn.Sequential(*blocks))
        self.style = nn.Embedding(len(scheme.LABEL_STYLES), widths[-1])
        nn.init.zeros_(self.style.weight)
        top = config.top_down_width
        self.laterals = nn.ModuleList(nn.Conv2d(width, top, 1) for width in widths)
        self.smooth = _conv(top, top)
        self.heatmaps = nn.Conv2d(top, scheme.COUNT, 1)
        self.spreads = nn.Conv2d(top, scheme.COUNT, 1)

    def forward(self, crops: Tensor, styles: Tensor | None = None) -> RawOutput:
        x = self.stem(self.normalise(crops))
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        if styles is not None:
            levels[-1] = levels[-1] + self.style(styles)[:, :, None, None]
        x = self.laterals[-1](levels[-1])
        for lateral, level in zip(list(self.laterals)[-2::-1], levels[-2::-1], strict=True):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest") + lateral(level)
        x = self.smooth(x)
        # In float32 from here: positions need more than the 8 bits of bfloat16's mantissa.
        logits = self.heatmaps(x).float()
        # A point's spread is read where the point is: the mean of its spread map under its heat map.
        heatmaps = torch.softmax(logits.detach().flatten(2), dim=-1)
        log_spreads = (heatmaps * self.spreads(x).float().flatten(2)).sum(dim=-1)
        return RawOutput(logits, log_spreads)


def narrowed(wide: KeypointNetwork, config: KeypointConfig) -> KeypointNetwork:
    """A copy of a KeypointNet with as few channels as `config` asks for; the one given, where it has fewer.

    Of each group of channels those stay that matter most, by what is written to them times what is made of
    them (the scale of the normalisation and the norm of the kernels; after Liu et al.,
    https://arxiv.org/abs/1708.06519). It has to be trained on: it says something else than the wide one.
    """
    narrow = build(config)
    if not (isinstance(wide, KeypointNet) and isinstance(narrow, KeypointNet)):
        return wide
    if wide.config.depths != config.depths:
        return wide
    pairs = list(zip(_wiring(wide), _wiring(narrow), strict=True))
    if any(new.conv.in_channels > old.conv.in_channels for old, new in pairs):
        return wide
    written: defaultdict[str, Tensor | float] = defaultdict(float)
    made: defaultdict[str, Tensor | float] = defaultdict(float)
    for old, _ in pairs:
        kernel = old.conv.weight.detach()
        scale = kernel.flatten(1).norm(dim=1) if old.norm is None else old.norm.weight.detach()
        written[old.writes] += scale.square()
        made[old.reads] += kernel.transpose(0, 1).flatten(1).square().sum(dim=1)
    kept = {"picture": torch.arange(3), "points": torch.arange(scheme.COUNT)}
    for old, new in pairs[1:]:
        importance = torch.as_tensor(written[old.reads] * made[old.reads])
        kept[old.reads] = importance.topk(new.conv.in_channels).indices.sort().values
    with torch.no_grad():
        for old, new in pairs:
            reads, writes = kept[old.reads], kept[old.writes]
            new.conv.weight.copy_(old.conv.weight[writes][:, reads])
            for theirs, ours in ((old.conv.bias, new.conv.bias), *_statistics(old.norm, new.norm)):
                if theirs is not None and ours is not None:
                    ours.copy_(theirs[writes] if theirs.ndim else theirs)
        narrow.style.weight.copy_(wide.style.weight[:, kept[f"stage {len(wide.stages)}"]])
    return narrow


class _Wire(NamedTuple):
    """A convolution, the normalisation behind it, and by name the channels that it reads and writes."""

    conv: nn.Conv2d
    norm: nn.BatchNorm2d | None
    reads: str
    writes: str


def _wiring(net: KeypointNet) -> list[_Wire]:
    """Every convolution of a network; channels of one name are added to one another, or are the same."""
    wires = [_wire(net.stem, "picture", "stage 0")]
    for i, stage in enumerate(net.stages, start=1):
        assert isinstance(stage, nn.Sequential)
        for j, block in enumerate(stage):
            assert isinstance(block, ResidualBlock)
            before, within, after = f"stage {i - (j == 0)}", f"block {i}.{j}", f"stage {i}"
            wires += [_wire(block.first, before, within), _wire(block.second, within, after)]
            if not isinstance(block.shortcut, nn.Identity):
                wires.append(_wire(block.shortcut, before, after))
        wires.append(_wire(net.laterals[i - 1], f"stage {i}", "top-down"))
    wires.append(_wire(net.smooth, "top-down", "smooth"))
    return [*wires, _wire(net.heatmaps, "smooth", "points"), _wire(net.spreads, "smooth", "points")]


def _wire(layer: nn.Module, reads: str, writes: str) -> _Wire:
    conv, norm, *_ = [*layer, None] if isinstance(layer, nn.Sequential) else [layer, None]
    assert isinstance(conv, nn.Conv2d) and (norm is None or isinstance(norm, nn.BatchNorm2d))
    return _Wire(conv, norm, reads, writes)


def _statistics(
    old: nn.BatchNorm2d | None, new: nn.BatchNorm2d | None
) -> list[tuple[Tensor, Tensor]]:
    """The tensors of two normalisations, in pairs."""
    if old is None or new is None:
        return []
    return list(zip(old.state_dict().values(), new.state_dict().values(), strict=True))


class Baseline(KeypointNetwork):
    """The course project's CNN: convolutions, pooling, dropout and fully connected layers on a grey crop.

    After NaimishNet, https://arxiv.org/abs/1710.00977, which the course recommends.
    """

    codec: CoordinateCodec

    def __init__(self, config: KeypointConfig) -> None:
        super().__init__(config)
        self.codec = CoordinateCodec(config.crop_size)
        layers: list[nn.Module] = []
        before = 1
        for width, dropout in zip(config.widths, (0.1, 0.2, 0.3, 0.4), strict=False):
            layers += [nn.Conv2d(before, width, 3, padding=1), nn.ELU(), nn.MaxPool2d(2), nn.Dropout(dropout)]
            before = width
        side = config.crop_size // 2 ** len(config.widths)
        self.features = nn.Sequential(*layers, nn.Flatten())
        self.hidden = nn.Sequential(
            nn.Linear(before * side * side, 512), nn.ELU(), nn.Dropout(0.5),
            nn.Linear(512, 512), nn.ELU(), nn.Dropout(0.6),
        )  # fmt: skip
        self.coordinates = nn.Linear(512, scheme.COUNT * 2)
        self.spreads = nn.Linear(512, scheme.COUNT)

    def forward(self, crops: Tensor, styles: Tensor | None = None) -> RawOutput:
        grey = self.normalise(crops).mean(dim=1, keepdim=True)
        x = self.hidden(self.features(grey)).float()
        numbers = self.coordinates(x).unflatten(-1, (scheme.COUNT, 2))
        return RawOutput(numbers, self.spreads(x.detach()))


class ResidualBlock(nn.Module):
    """Two 3×3 convolutions around a short cut (1×1 where the shape changes)."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.first = _conv(before, after, stride=stride)
        self.second = _conv(after, after, activation=False)
        self.shortcut: nn.Module = nn.Identity()
        if before != after or stride != 1:
            self.shortcut = _conv(before, after, size=1, stride=stride, activation=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.shortcut(x) + self.second(self.first(x)))


def _conv(
    before: int, after: int, *, size: int = 3, stride: int = 1, activation: bool = True
) -> nn.Sequential:
    """Convolution, batch normalisation and, unless told otherwise, ReLU."""
    layers = [nn.Conv2d(before, after, size, stride, size // 2, bias=False), nn.BatchNorm2d(after)]
    return nn.Sequential(*layers, nn.ReLU(inplace=True)) if activation else nn.Sequential(*layers)
