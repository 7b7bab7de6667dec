"""What the networks are made of, how faces are fed to them and how their output is read: `config.json`."""

from __future__ import annotations

from dataclasses import dataclass, replace

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
    widths: tuple[int, ...] = (16, 32, 64, 160)
    """Channels of the stem (at half size) and of each stage (at a quarter, an eighth, …)."""
    depths: tuple[int, ...] = (1, 2, 2)
    """Residual blocks of each stage."""
    top_down_width: int = 48
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

    def annotation_offset(self, label_style: str | None) -> np.ndarray:
        """The annotation offset of a style: right, down (2,), pixels of the crop."""
        first = 2 * scheme.style_index(label_style)
        offset = np.array(self.annotation_offsets[first : first + 2], np.float32)
        return offset * np.float32(self.crop_size / self.margin)


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
    input_size: int = 640
    """A picture whose longer side has more pixels is shrunk to this many for the first pass."""
    fine_pixels: int = 4_320_000
    """A bigger picture is looked at a second time, at up to this many pixels (2400×1800), for small faces."""
    enlargement: float = 1.5
    """That second time it is enlarged so many times, where it has no more than `enlarged_pixels` then."""
    enlarged_pixels: int = 1_000_000
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
