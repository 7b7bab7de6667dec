"""The keypoint networks: `KeypointNet`, which ships, and `Baseline`, the CNN of the course project.

Both take crops (n,3,S,S) uint8 RGB and give, through the codec they name, keypoints and spreads in pixels
of the crop. Normalisation happens inside, so that nobody can forget it.
"""

from __future__ import annotations

from collections import defaultdict
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fkp import scheme
from fkp.config import STYLES, KeypointConfig
from fkp.networks.codec import CoordinateCodec, HeatmapCodec


class RawOutput(NamedTuple):
    """What a network puts out: `outputs` for its codec, log spreads (n,68), of pixels of the crop, and the
    logits (n,68) of each point's being visible."""

    outputs: Tensor
    log_spreads: Tensor
    visibility: Tensor


class Prediction(NamedTuple):
    """`keypoints` (n,68,2) xy and `sigmas` (n,68), the expected error, both in pixels of the crop, with the
    annotation offset and the temperature of the labelling style; `visibility` (n,68), the calibrated
    probability that a point can be seen."""

    keypoints: Tensor
    sigmas: Tensor
    visibility: Tensor


class KeypointNetwork(nn.Module):
    """The interface that both networks share."""

    codec: HeatmapCodec | CoordinateCodec
    mean: Tensor
    std: Tensor
    annotation_offsets: Tensor
    temperatures: Tensor

    def __init__(self, config: KeypointConfig) -> None:
        super().__init__()
        self.config = config
        offsets = torch.tensor(config.annotation_offsets).view(-1, 2) * (config.crop_size / config.margin)
        for name, constant in (
            ("mean", torch.tensor(config.mean).view(1, 3, 1, 1)),
            ("std", torch.tensor(config.std).view(1, 3, 1, 1)),
            ("annotation_offsets", offsets),
            ("temperatures", torch.tensor(config.temperatures).view(-1, 1)),
        ):
            self.register_buffer(name, constant, persistent=False)

    def forward(self, crops: Tensor, styles: Tensor) -> RawOutput:
        """Raw output for crops (n,3,S,S) uint8 RGB and labelling styles (n,), see `scheme.style_index`."""
        raise NotImplementedError

    def decode(self, raw: RawOutput, styles: Tensor) -> Prediction:
        """What raw output says in labelling styles (n,) or (1,), with all corrections that the config has."""
        slope, intercept = self.config.visibility_calibration
        return Prediction(
            self.codec.decode(raw.outputs) + F.embedding(styles, self.annotation_offsets).unsqueeze(-2),
            raw.log_spreads.exp() * F.embedding(styles, self.temperatures),
            torch.sigmoid(slope * raw.visibility + intercept),
        )

    def predict(self, crops: Tensor, label_style: str | None = None) -> Prediction:
        """Decoded output for crops (n,3,S,S) uint8 RGB in one labelling style."""
        styles = torch.full(crops.shape[:1], scheme.style_index(label_style), device=crops.device)
        return self.decode(self(crops, styles), styles)

    def normalise(self, crops: Tensor) -> Tensor:
        """Crops as floats of about zero mean and unit variance."""
        return ((crops - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


def build(config: KeypointConfig) -> KeypointNetwork:
    """The network that `config.architecture` names, with fresh weights.

    Raises ValueError for an architecture that does not exist, or numbers not given for every style.
    """
    styles = ", ".join(["None", *scheme.LABEL_STYLES])
    if len(config.temperatures) != STYLES:
        raise ValueError(f"{len(config.temperatures)} temperatures: one is needed for each of {styles}")
    if len(config.annotation_offsets) != 2 * STYLES:
        given = len(config.annotation_offsets)
        raise ValueError(f"{given} annotation_offsets: two are needed for each of {styles}")
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
        self.style = nn.Embedding(STYLES, widths[-1])
        nn.init.zeros_(self.style.weight)
        top = config.top_down_width
        self.laterals = nn.ModuleList(nn.Conv2d(width, top, 1) for width in widths)
        self.smooth = _conv(top, top)
        self.heatmaps = nn.Conv2d(top, scheme.COUNT, 1)
        self.spreads = nn.Linear(top, scheme.COUNT)
        self.visibility = nn.Linear(top, scheme.COUNT)
        self.context = nn.Linear(widths[-1], scheme.COUNT)

    def forward(self, crops: Tensor, styles: Tensor) -> RawOutput:
        x = self.stem(self.normalise(crops))
        levels = []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        context = self.context(levels[-1].mean(dim=(2, 3)))
        levels[-1] = levels[-1] + self.style(styles)[:, :, None, None]
        x = self.laterals[-1](levels[-1])
        for lateral, level in zip(list(self.laterals)[-2::-1], levels[-2::-1], strict=True):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest") + lateral(level)
        x = self.smooth(x)
        # In float32 from here: positions need more than the 8 bits of bfloat16's mantissa.
        logits = self.heatmaps(x).float()
        # A point's spread and visibility are read where the point is: from the mean (n,68,c) of the features
        # under its heat map. Each point has a row of weights of its own.
        heatmaps = torch.softmax(logits.detach().flatten(2), dim=-1)
        there = torch.matmul(heatmaps, x.float().flatten(2).transpose(1, 2)).float()
        log_spreads = (there * self.spreads.weight).sum(dim=-1) + self.spreads.bias
        visibility = (there * self.visibility.weight).sum(dim=-1) + self.visibility.bias
        return RawOutput(logits, log_spreads, visibility + context.float())


def resized(start: KeypointNetwork, config: KeypointConfig) -> KeypointNetwork:
    """The network to start from with as many channels and blocks as `config` asks for: see `widened` and
    `narrowed`. Raises ValueError where it asks for more of one and fewer of another."""
    have, asked = start.config, config
    if not isinstance(start, KeypointNet) or not asked.architecture == have.architecture:
        return start
    pairs = list(zip((*have.widths, *have.depths), (*asked.widths, *asked.depths), strict=True))
    pairs.append((have.top_down_width, asked.top_down_width))
    if all(old >= new for old, new in pairs) and have.depths == asked.depths:
        return narrowed(start, config)
    return widened(start, config)


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
    if wide.config.top_down_width == config.top_down_width and wide.config.widths == config.widths:
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
        deepest, top = kept[f"stage {len(wide.stages)}"], kept["smooth"]
        narrow.style.weight.copy_(wide.style.weight[:, deepest])
        for old_head, new_head, channels in (
            (wide.spreads, narrow.spreads, top),
            (wide.visibility, narrow.visibility, top),
            (wide.context, narrow.context, deepest),
        ):
            new_head.weight.copy_(old_head.weight[:, channels])
            new_head.bias.copy_(old_head.bias)
    return narrow


def widened(narrow: KeypointNet, config: KeypointConfig) -> KeypointNet:
    """A network of more channels and blocks that says the same as a narrower one, to be trained on.

    New channels are written at random and read by nobody yet, new blocks add nothing yet (after Chen et al.,
    https://arxiv.org/abs/1511.05641). Raises ValueError where `config` asks for fewer of either.
    """
    wide = build(config)
    assert isinstance(wide, KeypointNet)
    old_wires = {(wire.reads, wire.writes): wire for wire in _wiring(narrow)}
    with torch.no_grad():
        for new in _wiring(wide):
            old = old_wires.get((new.reads, new.writes))
            if old is None:  # in a new block, whose second convolution is to add nothing
                if new.norm is not None and new.reads.startswith("block"):
                    new.norm.weight.zero_()
                continue
            writes, reads = old.conv.weight.shape[:2]
            if writes > new.conv.out_channels or reads > new.conv.in_channels:
                raise ValueError(f"{new.conv}: smaller than that of the weights to start from, {old.conv}")
            new.conv.weight[:writes, reads:] = 0
            new.conv.weight[:writes, :reads] = old.conv.weight
            for theirs, ours in ((old.conv.bias, new.conv.bias), *_statistics(old.norm, new.norm)):
                if theirs is not None and ours is not None and theirs.ndim:
                    ours[:writes] = theirs
        for old_head, new_head in (
            (narrow.spreads, wide.spreads),
            (narrow.visibility, wide.visibility),
            (narrow.context, wide.context),
        ):
            new_head.weight.zero_()
            new_head.weight[:, : old_head.in_features] = old_head.weight
            new_head.bias.copy_(old_head.bias)
        wide.style.weight[:, : narrow.style.embedding_dim] = narrow.style.weight
    return wide


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
    return [*wires, _wire(net.smooth, "top-down", "smooth"), _wire(net.heatmaps, "smooth", "points")]


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
        self.visibility = nn.Linear(512, scheme.COUNT)

    def forward(self, crops: Tensor, styles: Tensor) -> RawOutput:
        grey = self.normalise(crops).mean(dim=1, keepdim=True)
        x = self.hidden(self.features(grey)).float()
        numbers = self.coordinates(x).unflatten(-1, (scheme.COUNT, 2))
        return RawOutput(numbers, self.spreads(x.detach()), self.visibility(x.detach()))


class Decoded(nn.Module):
    """A keypoint network together with its codec: what is run, and what is written as a graph.

    `forward` takes crops (n,3,S,S) uint8 RGB and a labelling style (1,) int64 (`scheme.style_index`), and
    gives keypoints (n,68,2), their sigmas (n,68) and their visibility (n,68) as `predict` does.
    """

    def __init__(self, keypoint_network: KeypointNetwork) -> None:
        super().__init__()
        self.network = keypoint_network

    def forward(self, crops: Tensor, label_style: Tensor) -> tuple[Tensor, ...]:
        raw = self.network(crops, label_style)
        return tuple(self.network.decode(raw, label_style))


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
