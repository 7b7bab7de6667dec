"""What the networks are made of, how faces are fed to them and how their output is read: `config.json`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from fkp import scheme

STYLES = 1 + len(scheme.LABEL_STYLES)
"""Labelling styles that a network knows: None, then `scheme.LABEL_STYLES`."""


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
    widths: tuple[int, ...] = (16, 32, 64, 96)
    """Channels of the stem (at half size) and of each stage (at a quarter, an eighth, …)."""
    depths: tuple[int, ...] = (2, 4, 2)
    """Residual blocks of each stage."""
    top_down_width: int = 64
    temperatures: tuple[float, ...] = (1.0,) * STYLES
    """What spreads are multiplied by to be the expected error, for None and each of `scheme.LABEL_STYLES`;
    fitted on validation data."""
    annotation_offsets: tuple[float, ...] = (0.0,) * 2 * STYLES
    """How far labels lie to the right of what can be seen, and below it, in shares of the longer side of the
    tight box: two numbers for None (0, it has no offset) and each of `scheme.LABEL_STYLES`. What a network
    that learns from pictures and their mirror images alike cannot learn."""
    visibility_calibration: tuple[float, float] = (1.0, 0.0)
    """Slope and intercept that make the logits of visibility those of a calibrated probability (Platt
    scaling); fitted on validation data."""
    activation_ranges: tuple[tuple[str, float, float], ...] = ()
    """Name, smallest and largest value of each activation, seen in training crops: what a graph of 8-bit
    integers is made with (`networks.quantisation`). Of these weights; empty, there is no such graph."""

    def __post_init__(self) -> None:
        """Raises ValueError with a sentence for a number out of its range, before anything is built of it."""
        _one_of("architecture", self.architecture, ("keypointnet", "baseline"))
        _within("crop_size", self.crop_size, 32, 512)
        if self.crop_size % 16:
            raise ValueError(f"crop_size is {self.crop_size}, where a multiple of 16 is needed")
        _within("margin", self.margin, 0.5, 4)
        _within("mean", self.mean, 0, 255, 3)
        _within("std", self.std, 1, 255, 3)
        _within("widths", self.widths, 1, 1024, range(2, 9))
        _within("depths", self.depths, 0, 32, range(0, 9))
        _within("top_down_width", self.top_down_width, 1, 1024)
        _within("temperatures", self.temperatures, 0.01, 100, STYLES)
        _within("annotation_offsets", self.annotation_offsets, -0.5, 0.5, 2 * STYLES)
        _within("visibility_calibration", self.visibility_calibration, -100, 100, 2)
        _within(
            "activation_ranges", [n for _, *of in self.activation_ranges for n in of], -1e6, 1e6, range(9999)
        )

    def annotation_offset(self, label_style: str | None) -> np.ndarray:
        """The annotation offset of a style: right, down (2,), pixels of the crop."""
        first = 2 * scheme.style_index(label_style)
        offset = np.array(self.annotation_offsets[first : first + 2], np.float32)
        return offset * np.float32(self.crop_size / self.margin)


def _one_of(name: str, value: str, known: Sequence[str]) -> None:
    if value not in known:
        raise ValueError(f"{name} is {value!r}, where one of {', '.join(known)} is needed")


def _within(
    name: str,
    value: float | Sequence[float],
    least: float,
    most: float,
    count: int | range | None = None,
) -> None:
    """A number, or so many of them, from `least` to `most`; NaN is none of these."""
    numbers = value if isinstance(value, Sequence) else [value]
    counts = count if isinstance(count, range) else [1 if count is None else count]
    if len(numbers) not in counts:
        many = f"{counts[0]} to {counts[-1]}" if isinstance(count, range) else str(counts[0])
        raise ValueError(f"{name} has {len(numbers)} numbers, where {many} are needed")
    wrong = next((number for number in numbers if not least <= number <= most), None)
    if wrong is not None:
        raise ValueError(f"{name} is {wrong}, where {least:g} to {most:g} is needed")


KEYPOINTNET = KeypointConfig(annotation_offsets=(0.0, 0.0, 0.0054, 0.0, 0.0149, 0.0, 0.0, 0.0))
BASELINE = replace(
    KEYPOINTNET, architecture="baseline", crop_size=96, margin=1.4, widths=(16, 32, 64, 128), depths=()
)
"""The two networks as `train.py keypoints` builds them. Annotation offsets were measured by
`python benchmarks/labels.py`."""


@dataclass(frozen=True)
class DetectorConfig:
    """What a detector's weights fit, and how its output is read; travels with the weights."""

    widths: tuple[int, ...] = (32, 64, 96, 96)
    """Channels at 1/4, 1/8, 1/16 and 1/32 of the input's size."""
    depths: tuple[int, int, int] = (2, 2, 4)
    """Residual blocks at 1/8, 1/16 and 1/32."""
    neck_width: int = 64
    """Channels of the three grids that the head reads."""
    least_size: int = 320
    """A picture whose longer side has fewer pixels is enlarged to this many."""
    coarse_size: int = 160
    """Every picture is seen at this size, so that a face that fills it is seen whole."""
    input_size: int = 640
    """A picture whose longer side has more pixels is shrunk to this many for the pass after that."""
    fine_pixels: int = 4_320_000
    """A bigger picture gets a third pass, at up to this many pixels (2400×1800), for small faces."""
    enlargement: float = 2.0
    """In that pass a small one is enlarged so many times, or to `enlarged_pixels` if that is less."""
    enlarged_pixels: int = 1_500_000
    min_score: float = 0.5
    """Boxes below it are dropped, unless a call says otherwise."""
    max_iou: float = 0.4
    """Of two boxes that overlap more than this, the lower scored is dropped."""
    bias: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    """By how much the network's boxes are off on the whole, which is taken away: see `box_errors`."""
    calibration: tuple[float, float] = (1.0, 0.0)
    """Slope and intercept that make the network's logits those of a calibrated probability (Platt scaling):
    of boxes with score s a share s are faces, on validation photos. `min_score` is on that scale."""
    activation_ranges: tuple[tuple[str, float, float], ...] = ()
    """As `KeypointConfig.activation_ranges`, seen in training photos."""

    def __post_init__(self) -> None:
        """Raises ValueError with a sentence for a number out of its range, before anything is built of it."""
        _within("widths", self.widths, 1, 1024, range(2, 9))
        _within("depths", self.depths, 0, 32, 3)
        _within("neck_width", self.neck_width, 1, 1024)
        _within("least_size", self.least_size, 16, 4096)
        _within("coarse_size", self.coarse_size, 32, 4096)
        _within("input_size", self.input_size, 32, 4096)
        _within("fine_pixels", self.fine_pixels, 0, 100_000_000)
        _within("enlargement", self.enlargement, 0.1, 10)
        _within("enlarged_pixels", self.enlarged_pixels, 0, 100_000_000)
        _within("min_score", self.min_score, 0, 1)
        _within("max_iou", self.max_iou, 0, 1)
        _within("bias", self.bias, -1, 1, 4)
        _within("calibration", self.calibration, -100, 100, 2)
        ranges = [number for _, *of in self.activation_ranges for number in of]
        _within("activation_ranges", ranges, -1e6, 1e6, range(9999))


Config = TypeVar("Config", KeypointConfig, DetectorConfig)
"""The config of either network."""
