"""Transforms of a sample of `fkp.data`: crops, and changes of light, colour, sharpness and what is covered.

Each takes and gives `{"image", "keypoints"}`; pixels and points move together.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Generator
from torchvision import tv_tensors

from fkp import geometry
from fkp.data import Sample


@dataclass(frozen=True)
class FaceCrop:
    """Rescale, random crop, rotation and mirror, as one warp of picture and keypoints together.

    The face's tight box, enlarged by `margin`, becomes a square of `crop_size` pixels. Random, uniform:
    `rotation` in ±degrees, `scale` as a (least, most) factor, `shift` in ±fractions of the box's longer
    side; `mirror` is a probability. The defaults draw nothing.
    """

    crop_size: int
    margin: float
    rotation: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    mirror: float = 0.0

    def draw(self, box: np.ndarray, generator: Generator | None = None) -> geometry.CropTransform:
        """A random transform for a face in a tight box (4,); from torch's global generator by default."""
        turn, zoom, right, down, side = torch.rand(5, generator=generator).tolist()
        least, most = self.scale
        return geometry.CropTransform.around_box(
            box,
            self.crop_size,
            self.margin,
            angle=self.rotation * (2 * turn - 1),
            # Uniform in the logarithm: enlarging by 1.2 is as likely as shrinking by 1.2.
            scale=float(least * (most / least) ** zoom),
            shift_xy=(self.shift * (2 * right - 1), self.shift * (2 * down - 1)),
            mirrored=side < self.mirror,
        )

    def __call__(self, sample: Sample) -> Sample:
        transform = self.draw(geometry.tight_boxes(sample["keypoints"]))
        return {
            **sample,
            "image": transform.crop(sample["image"]),
            "keypoints": transform.keypoints_to_crop(sample["keypoints"]),
        }


class ToTensors:
    """A sample as `tv_tensors`: Image (3,H,W) uint8 and KeyPoints (68,2), for any torchvision v2 transform.

    A v2 flip moves the points but does not swap left and right: use `FaceCrop(mirror=…)`.
    """

    def __call__(self, sample: Sample) -> Sample:
        height, width = sample["image"].shape[:2]
        pixels = torch.from_numpy(np.ascontiguousarray(sample["image"])).permute(2, 0, 1)
        points = torch.from_numpy(np.asarray(sample["keypoints"], np.float32))
        keypoints = tv_tensors.KeyPoints(points, canvas_size=(height, width))
        return {**sample, "image": tv_tensors.Image(pixels), "keypoints": keypoints}


class Normalize:
    """Image (3,H,W) uint8 → float, about −1..1; keypoints → the same scale, 0 at the picture's middle."""

    def __call__(self, sample: Sample) -> Sample:
        image, keypoints = sample["image"], sample["keypoints"]
        size = torch.tensor([image.shape[-1], image.shape[-2]], dtype=torch.float32)
        points = (keypoints.as_subclass(torch.Tensor) - (size - 1) / 2) / (size / 2)
        return {**sample, "image": image.as_subclass(torch.Tensor).float() / 127.5 - 1, "keypoints": points}


@dataclass(frozen=True)
class Photometry:
    """Random light, colour, sharpness, noise, compression and occlusion; moves no point.

    Each number but the limits is the probability of a change. A tenth of a millisecond to one for a crop of
    112 pixels, where the same from torchvision took two: training on a CPU feels that.
    """

    light: float = 0.75
    """Contrast, brightness, gamma and colour cast, as one look-up table."""
    dark: float = 0.08
    colour: float = 0.35
    """More or less saturated, a third of the time grey."""
    occlusion: float = 0.3
    """Half of the time a piece of another face, half of the time an ellipse of one colour."""
    low_resolution: float = 0.25
    least_resolution: float = 0.15
    """The smallest factor by which `low_resolution` shrinks before it enlarges back."""
    blur: float = 0.12
    noise: float = 0.15
    compression: float = 0.15

    def __call__(self, sample: Sample) -> Sample:
        """The changed sample, its image (H,W,3) uint8 RGB; draws from torch's global generator."""
        seed = int(torch.randint(2**62, ()))
        return {**sample, "image": self.change(sample["image"], np.random.default_rng(seed))}

    def cover(
        self, image: np.ndarray, generator: np.random.Generator, other: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """The image with a part covered, or not, and a mask (H,W) of what is; `other` covers it."""
        return covered(image, other, generator) if generator.random() < self.occlusion else (image, None)

    def change(
        self, image: np.ndarray, generator: np.random.Generator, other: np.ndarray | None = None
    ) -> np.ndarray:
        """The changed image (H,W,3) uint8; `other`, of the same size, is what covers parts of it."""
        image, _ = self.cover(image, generator, image if other is None else other)
        return self.recolour(image, generator)

    def recolour(self, image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
        """The image with its light, colour, sharpness, noise and compression changed, nothing covered."""
        draw = generator.random
        if draw() < self.light:
            image = cv2.LUT(image, _light(generator, dark=draw() < self.dark / max(self.light, 1e-6)))
        if draw() < self.colour:
            kept = 0.0 if draw() < 1 / 3 else generator.uniform(0.4, 1.4)
            image = cv2.addWeighted(image, kept, grey(image), 1 - kept, 0)
        if draw() < self.low_resolution:
            factor = generator.uniform(self.least_resolution, 0.7)
            how = cv2.INTER_LINEAR if draw() < 0.7 else cv2.INTER_CUBIC
            image = low_resolution(image, factor, how)
        if draw() < self.blur:
            image = _blurred(image, generator)
        if draw() < self.noise:
            noise = generator.standard_normal(image.shape, np.float32) * np.float32(generator.uniform(3, 18))
            image = noisy(image, noise)
        if draw() < self.compression:
            image = compressed(image, int(generator.integers(10, 60)))
        return image


def grey(image: np.ndarray) -> np.ndarray:
    """The image (H,W,3) without colour, with as many channels."""
    return cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)


def low_resolution(image: np.ndarray, factor: float, interpolation: int = cv2.INTER_LINEAR) -> np.ndarray:
    """The image (H,W,3) shrunk by a factor below 1, and enlarged back."""
    width, height = image.shape[1::-1]
    small_wh = max(1, round(width * factor)), max(1, round(height * factor))
    small = cv2.resize(image, small_wh, interpolation=cv2.INTER_AREA)
    return cv2.resize(small, (width, height), interpolation=interpolation)


def noisy(image: np.ndarray, noise: np.ndarray) -> np.ndarray:
    """The image (H,W,3) uint8 with noise (H,W,3), grey levels, added."""
    return (image + noise).clip(0, 255).astype(np.uint8)


def compressed(image: np.ndarray, quality: int) -> np.ndarray:
    """The image (H,W,3) uint8 through JPEG of that quality, 0 to 100, and back."""
    _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR))


def _light(generator: np.random.Generator, dark: bool) -> np.ndarray:
    """A table (256,1,3) of new values for old: contrast around mid grey, gamma, brightness, colour cast."""
    contrast, brightness = generator.uniform(0.65, 1.4), generator.uniform(-35, 35)
    if dark:
        contrast, brightness = contrast * generator.uniform(0.15, 0.5), generator.uniform(-10, 10)
    gamma, cast = np.exp(generator.uniform(-0.4, 0.4)), generator.uniform(0.92, 1.08, 3)
    values = 255 * (np.arange(256)[:, None] / 255) ** gamma
    # What is dark goes towards black, not towards grey.
    table = (values - 110) * contrast * cast + 110 * min(1.0, contrast) + brightness
    return table.clip(0, 255).astype(np.uint8).reshape(256, 1, 3)


def occluded(image: np.ndarray, other: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The image (H,W,3) with a part covered, see `covered`."""
    return covered(image, other, generator)[0]


def covered(
    image: np.ndarray, other: np.ndarray, generator: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """The image (H,W,3) with a part covered, by a piece of the other one or one colour, and a mask (H,W).

    Real texture hides a point better than a flat colour does (compare Zhong et al.,
    https://arxiv.org/abs/1708.04896); the ellipses stand for fingers, hats and microphones.
    """
    height, width = image.shape[:2]
    h, w = (generator.uniform(0.1, 0.45, 2) * (height, width)).astype(int)
    top = int(generator.uniform(-0.2 * h, height - 0.8 * h))
    left = int(generator.uniform(-0.2 * w, width - 0.8 * w))
    image, mask = image.copy(), np.zeros((height, width), np.uint8)
    if generator.random() < 0.5:
        y1, x1, y2, x2 = max(top, 0), max(left, 0), min(top + h, height), min(left + w, width)
        y, x = generator.integers(0, height - (y2 - y1) + 1), generator.integers(0, width - (x2 - x1) + 1)
        image[y1:y2, x1:x2] = other[y : y + y2 - y1, x : x + x2 - x1]
        mask[y1:y2, x1:x2] = 1
        return image, mask
    ellipse = (left + w / 2, top + h / 2), (float(w), 1.3 * h), generator.uniform(0, 180)
    cv2.ellipse(mask, ellipse, [1], -1)
    if generator.random() < 0.3:
        np.copyto(image, other, where=mask.astype(bool)[..., None])
        return image, mask
    y, x = generator.integers(0, height), generator.integers(0, width)
    colour = generator.integers(0, 256, 3) if generator.random() < 0.4 else other[y, x]
    return cv2.ellipse(image, ellipse, [int(c) for c in colour], -1), mask


def _blurred(image: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """The image out of focus, or moved while it was taken."""
    if generator.random() < 0.6:
        return cv2.GaussianBlur(image, (0, 0), generator.uniform(0.4, 2.2))
    # Odd, so that the middle is a pixel: an even kernel's is not, and would move the picture by half a one.
    size, angle = 2 * int(generator.integers(1, 5)) + 1, generator.uniform(0, np.pi)
    middle, kernel = (size - 1) / 2, np.zeros((size, size), np.float32)
    right, down = middle * np.cos(angle), middle * np.sin(angle)
    start, end = (round(middle - right), round(middle - down)), (round(middle + right), round(middle + down))
    cv2.line(kernel, start, end, (1.0,))
    return cv2.filter2D(image, -1, kernel / kernel.sum())
