"""Any picture file or array → RGB uint8, and one error for what is none."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image, ImageChops

ImageLike = str | Path | Image.Image | np.ndarray

MAX_PIXELS = 200_000_000
"""The default limit: the largest sensors in telephones have 200 million pixels, 600 MB as RGB."""

# What people have, and no format whose decoder starts another program, as EPS starts Ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM", "ICO")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

_ORIENTATION_TAG = 0x0112
# EXIF orientation → what turns the picture upright (CIPA DC-008, 4.6.4).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {_UPRIGHT[orientation] for orientation in (5, 6, 7, 8)}


class ImageError(ValueError):
    """What was given is no picture that can be read: one sentence with its name and the reason."""


def read(image: ImageLike, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The picture as a contiguous (H,W,3) uint8 RGB array, upright as its EXIF orientation says.

    `image` is a path, a PIL image, or an (H,W,3) uint8 RGB array, which is returned as it is. What is
    transparent becomes white, 16 bits are scaled to 8, an animation gives its first frame (a PIL image the
    frame it stands at). Colour profiles are not applied. More than `max_pixels` pixels are refused before
    they are decoded.
    Raises ImageError for what is no picture. Keeps no state: any number of threads may call it.
    """
    if isinstance(image, np.ndarray):
        return _check_array(image)
    if isinstance(image, Image.Image):
        name = os.fsdecode(getattr(image, "filename", "") or "the PIL image")
        return _decode(image, name, max_pixels)
    if not isinstance(image, (str, os.PathLike)):
        raise ImageError(f"a picture is a path, a PIL image or an array, not {type(image).__name__}")
    name = os.fsdecode(image)
    with open_file(name) as stream:
        return _decode(_identify(stream, name), name, max_pixels)


class Reduced(NamedTuple):
    """A picture (H,W,3) uint8 RGB, perhaps smaller than the file's, which is `size_wh` (width, height)."""

    image: np.ndarray
    size_wh: tuple[int, int]

    @property
    def scale_xy(self) -> tuple[float, float]:
        """How many of the file's pixels go to one of the picture's."""
        height, width = self.image.shape[:2]
        return self.size_wh[0] / width, self.size_wh[1] / height


def decode(
    data: bytes, name: str, enough_pixels: int | None = None, *, max_pixels: int = MAX_PIXELS
) -> Reduced:
    """The picture in a file's bytes as `read` gives it; `name` is what an error calls it.

    A JPEG of four, 16 or 64 times `enough_pixels` is decoded at a half, a quarter or an eighth of its width
    and height, which takes half the time. Raises ImageError.
    """
    picture = _identify(io.BytesIO(data), name)
    width, height = picture.size
    if enough_pixels and picture.format == "JPEG":
        factor = next((f for f in (8, 4, 2) if width * height >= f * f * enough_pixels), 1)
        picture.draft(picture.mode, (width // factor, height // factor))
    image = _decode(picture, name, max_pixels)
    return Reduced(image, (height, width) if _turn(picture) in _SIDEWAYS else (width, height))


def size_wh(path: str | Path) -> tuple[int, int]:
    """Width and height of a picture file as `read` would give it, from its header alone.

    A PNG whose EXIF comes after its pixels counts as upright.
    Raises ImageError for what is no picture.
    """
    name = os.fsdecode(path)
    with open_file(name) as stream:
        image = _identify(stream, name)
        width, height = image.size
        return (height, width) if _turn(image) in _SIDEWAYS else (width, height)


def _check_array(array: np.ndarray) -> np.ndarray:
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3 or 0 in array.shape:
        raise ImageError(
            f"an array of shape {array.shape} and type {array.dtype} is no picture: "
            "(height, width, 3) uint8 in RGB order is needed"
        )
    return np.ascontiguousarray(array)


def open_file(name: str, kind: str = "picture") -> BinaryIO:
    """A file opened for reading. Raises ImageError, which says that it is no `kind` file where it is none."""
    try:
        mode = os.stat(name).st_mode
        if stat.S_ISREG(mode):
            return open(name, "rb")
    except FileNotFoundError:
        raise ImageError(f"{name}: there is no such file") from None
    except OSError as error:
        raise ImageError(f"{name}: cannot be opened ({error.strerror})") from error
    except ValueError:  # Python's own words for it differ between versions
        raise ImageError(f"{name!r}: is no file name (it holds a null character)") from None
    what = "folder" if stat.S_ISDIR(mode) else "device or pipe"
    raise ImageError(f"{name}: is a {what}, not a {kind} file")


def _identify(stream: BinaryIO, name: str) -> Image.Image:
    """The picture in a file; its header is read, its pixels are not."""
    prefix = stream.read(16)
    if not prefix:
        raise ImageError(f"{name}: is empty")
    # Pillow's plugins, but not Image.open: that has a limit of its own, global to the process, which warns
    # from 89 and refuses from 179 million pixels.
    Image.init()
    damaged: tuple[str, Exception] | None = None
    for kind in _FORMATS:
        plugin, accepts = Image.OPEN.get(kind, (None, None))  # None where Pillow was built without it
        if plugin is None or accepts is None or accepts(prefix) is not True:
            continue
        try:
            stream.seek(0)
            return plugin(stream, name)
        except Exception as error:  # plugins raise nearly anything on damaged data
            damaged = (kind, error)
    if prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIC_BRANDS:
        return _identify_heic(stream, name)
    if damaged:
        raise ImageError(f"{name}: is a damaged or incomplete {damaged[0]} file") from damaged[1]
    raise ImageError(f"{name}: is no picture of a known kind ({', '.join(_FORMATS)}, HEIC)")


def _identify_heic(stream: BinaryIO, name: str) -> Image.Image:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise ImageError(f"{name}: is a HEIC picture, to read it run 'pip install pillow-heif'") from None
    try:
        stream.seek(0)
        return HeifImageFile(stream, name)
    except Exception as error:
        raise ImageError(f"{name}: is a damaged or incomplete HEIC file") from error


def _decode(image: Image.Image, name: str, max_pixels: int) -> np.ndarray:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(f"{name}: {width}×{height} pixels are more than the limit, max_pixels={max_pixels}")
    if width * height == 0:
        raise ImageError(f"{name}: has no pixels")
    if image.mode == "F":
        raise ImageError(f"{name}: holds floating-point numbers, whose black and white are unknown")
    try:
        image.load()
    except MemoryError as error:
        raise ImageError(f"{name}: needs more memory than there is") from error
    except Exception as error:  # decoders raise nearly anything on damaged data
        raise ImageError(f"{name}: is damaged or incomplete ({error})") from error
    upright = _upright(image)
    if image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info:
        # Adobe's CMYK is inverted, and marked as Adobe's (libjpeg.txt); Pillow inverts it marked or not.
        upright = ImageChops.invert(upright)
    return np.array(_on_white(_eight_bits(upright)))


def _upright(image: Image.Image) -> Image.Image:
    method = _turn(image)
    return image if method is None else image.transpose(method)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What turns a picture upright."""
    try:
        # Not image.getexif(): a PNG's decodes its pixels for it, of which a small file may claim any number.
        orientation = Image.Image.getexif(image).get(_ORIENTATION_TAG)
    except Exception:  # a picture with damaged EXIF data is a picture all the same
        orientation = None
    return _UPRIGHT.get(orientation) if isinstance(orientation, int) else None


def _eight_bits(image: Image.Image) -> Image.Image:
    """A grey picture of 16 bits as one of 8; modes "I;16", "I;16B" and "I" all mean 0..65535."""
    if not image.mode.startswith("I"):
        return image
    values = np.asarray(image).clip(0, 65535).astype(np.uint32)
    return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    """The picture as RGB, on white where it is transparent."""
    if not image.has_transparency_data:
        return image if image.mode == "RGB" else image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
