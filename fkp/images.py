"""Any picture file or array → RGB uint8, and one error for what is none."""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import warnings
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from PIL import Image, ImageChops, ImageFile

ImageLike = str | Path | Image.Image | np.ndarray

MAX_PIXELS = 200_000_000
"""The default limit: the largest sensors in telephones have 200 million pixels, 600 MB as RGB."""

# What people have, and no format whose decoder starts another program, as EPS starts Ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM", "ICO")
_PNG = b"\x89PNG\r\n\x1a\n"
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

_RAW = (
    ".3fr",
    ".arw",
    ".cr2",
    ".cr3",
    ".dng",
    ".erf",
    ".nef",
    ".nrw",
    ".orf",
    ".pef",
    ".raf",
    ".raw",
    ".rw2",
    ".srw",
)

_ORIENTATION_TAG, _SUBFILE_TAG, _DNG_TAG = 0x0112, 0x00FE, 0xC612
# EXIF orientation → how the picture as it is stored comes from the upright one (CIPA DC-008, 4.6.4): whether
# rows and columns change places, and then whether rows, and columns, are in reverse.
_STORED = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}
_Stored = tuple[bool, bool, bool]
_AS_IT_IS: _Stored = (False, False, False)

_STRIP = 1 << 22
"""Pixels that are converted at once; more would only cost memory."""
# Bytes a pixel that decoding takes at most, besides the result: Pillow's own, and those of other libraries.
_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2}
_BYTES_OF_KIND = {"WEBP": 12, "AVIF": 12, "HEIF": 12, "JPEG2000": 20}


class ImageError(ValueError):
    """What was given is no picture that can be read: one sentence with its name and the reason."""


class IncompleteWarning(UserWarning):
    """A picture breaks off, and is read as far as it goes: one sentence with its name."""


INCOMPLETE = "is damaged or incomplete; what is missing of it is taken to be black"
"""What is said of a picture that breaks off, after its name."""


def read(image: ImageLike, *, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """The picture as a contiguous (H,W,3) uint8 RGB array.

    `image` is a path, a PIL image, or an (H,W,3) uint8 RGB array, which is returned as it is. The rule for
    coordinates, wherever fkp has some: **those of a file are pixels of the picture upright, as its EXIF
    orientation says and every viewer shows it; those of an image in hand, of PIL or as an array, are its own
    pixels**, whatever was done to it before. They are the pixels that this function gives.

    What is transparent becomes white, 16 bits are scaled to 8, an animation gives its first frame (a PIL
    image the frame it stands at). Colour profiles are not applied. Of a file that breaks off what is there is
    read, with an IncompleteWarning. More than `max_pixels` pixels are refused before they are decoded.
    Raises ImageError for what is no picture. Keeps no state: any number of threads may call it.
    """
    if isinstance(image, np.ndarray):
        return _check_array(image)
    if isinstance(image, Image.Image):
        name = os.fsdecode(getattr(image, "filename", "") or "the PIL image")
        pixels, complete = _decode(image, name, max_pixels, _AS_IT_IS, 1)
    else:
        pixels, _, complete = read_file(image, max_pixels=max_pixels)
        name = os.fsdecode(image)
    if not complete:
        warnings.warn(f"{name}: {INCOMPLETE}", IncompleteWarning, stacklevel=2)
    return pixels


class Reduced(NamedTuple):
    """A picture (H,W,3) uint8 RGB, perhaps smaller than the file's, which is `size_wh` (width, height).

    `complete` is whether the file has all of it; what is missing is black.
    """

    image: np.ndarray
    size_wh: tuple[int, int]
    complete: bool

    @property
    def scale_xy(self) -> tuple[float, float]:
        """How many of the file's pixels go to one of the picture's."""
        height, width = self.image.shape[:2]
        return self.size_wh[0] / width, self.size_wh[1] / height


def read_file(path: str | Path, *, max_pixels: int = MAX_PIXELS, reduction: int = 1) -> Reduced:
    """The picture in a file as `read` gives it, and whether it is all there; nobody is warned.

    A `reduction` of 2, 4 or 8 gives it that many times smaller, with less memory: the pixel x there is the
    mean of those from reduction · x on. Raises ImageError.
    """
    name = _path(path)
    with open_file(name) as stream:
        picture = _identify(stream, name)
        try:
            return _reduced(picture, name, max_pixels, reduction)
        finally:
            picture.close()


def decode(
    data: bytes, name: str, enough_pixels: int | None = None, *, max_pixels: int = MAX_PIXELS
) -> Reduced:
    """The picture in a file's bytes as `read_file` gives it; `name` is what an error calls it.

    A JPEG of four, 16 or 64 times `enough_pixels` is decoded at a half, a quarter or an eighth of its width
    and height, which takes half the time. Raises ImageError.
    """
    picture = _identify(io.BytesIO(data), name)
    pixels, reduction = picture.size[0] * picture.size[1], 1
    if enough_pixels and picture.format == "JPEG":
        reduction = next((f for f in (8, 4, 2) if pixels >= f * f * enough_pixels), 1)
    return _reduced(picture, name, max_pixels, reduction)


def size_wh(path: str | Path) -> tuple[int, int]:
    """Width and height of a picture file as `read` would give it, from its header alone.

    Raises ImageError for what is no picture.
    """
    name = _path(path)
    with open_file(name) as stream:
        image = _identify(stream, name)
        width, height = image.size
        return (height, width) if _stored(image)[0] else (width, height)


def bytes_needed(path: str | Path, reduction: int = 1) -> int:
    """Memory that `read` would take at most for a picture file, its result included, from its header alone.

    Raises ImageError for what is no picture.
    """
    name = _path(path)
    with open_file(name) as stream:
        image = _identify(stream, name)
        pixels = image.size[0] * image.size[1]
        small = pixels // reduction**2
        per_pixel = _BYTES_OF_KIND.get(image.format or "", _BYTES.get(image.mode, 4))
        if image.format == "JPEG":
            # A progressive one is held as coefficients, whatever the size it is decoded at.
            layers = [h * v for _, h, v, _ in image.layer] if "progressive" in image.info else [0]  # type: ignore[attr-defined]
            decoded = small * per_pixel + 2 * pixels * sum(layers) // max(*layers, 1)
        else:
            decoded = pixels * per_pixel
        return decoded + 3 * small + 20 * min(pixels, _STRIP)


def _path(image: object) -> str:
    if not isinstance(image, (str, os.PathLike)):
        raise ImageError(_wrong_kind(image))
    name = os.fsdecode(image)
    if re.match(r"(https?|ftp|s3|gs|data|file):", name, re.IGNORECASE):
        address = name if len(name) < 100 else f"{name[:97]}..."
        raise ImageError(f"{address}: is an address, not a file; download it first, and give the file's path")
    return name


def _wrong_kind(image: object) -> str:
    wanted = f"a picture is a path, a PIL image or an array, not {type(image).__name__}"
    if isinstance(image, (bytes, bytearray, memoryview)):
        return f"{wanted}: open bytes by PIL.Image.open(io.BytesIO(...)) and give what comes out"
    if hasattr(image, "read"):
        return f"{wanted}: open it by PIL.Image.open(...) and give what comes out"
    if hasattr(image, "numpy"):
        return (
            f"{wanted}: give (height, width, 3) uint8 in RGB order, as .permute(1, 2, 0).numpy() of a tensor"
        )
    return wanted


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


def _accepts(kind: str, prefix: bytes) -> bool:
    """Whether a plugin of Pillow that is loaded takes a file that begins so."""
    _, accepts = Image.OPEN.get(kind, (None, None))  # None where Pillow was built without it
    return accepts is not None and accepts(prefix) is True


def _identify(stream: BinaryIO, name: str) -> Image.Image:
    """The picture in a file; its header is read, its pixels are not."""
    prefix = stream.read(16)
    if not prefix:
        raise ImageError(f"{name}: is empty")
    if prefix.startswith(_PNG):
        stream = _without_text(stream)
    # Pillow's plugins, but not Image.open: that has a limit of its own, global to the process, which warns
    # from 89 and refuses from 179 million pixels.
    Image.preinit()
    if not any(_accepts(kind, prefix) for kind in _FORMATS):
        Image.init()  # all of them, which takes longer than to read a photo
    damaged: tuple[str, Exception] | None = None
    for kind in _FORMATS:
        if not _accepts(kind, prefix):
            continue
        plugin = Image.OPEN[kind][0]
        try:
            stream.seek(0)
            image = plugin(stream, name)
        except Exception as error:  # plugins raise nearly anything on damaged data
            damaged = (kind, error)
            continue
        if _is_raw(image, name):
            width, height = image.size
            what = (
                f"is a raw file of a camera, of which only a thumbnail of {width}×{height} pixels can be read"
            )
            raise ImageError(f"{name}: {what}: export it as JPEG")
        return image
    if prefix[4:8] == b"ftyp" and prefix[8:12] in _HEIC_BRANDS:
        return _identify_heic(stream, name)
    if name.lower().endswith(_RAW):
        raise ImageError(f"{name}: is a raw file of a camera, which is not read: export it as JPEG")
    if damaged and "pixel mode" in str(damaged[1]):
        raise ImageError(f"{name}: is a {damaged[0]} file with pixels of a kind that is not read")
    if damaged:
        raise ImageError(f"{name}: is a damaged or incomplete {damaged[0]} file") from damaged[1]
    raise ImageError(f"{name}: is no picture of a known kind ({', '.join(_FORMATS)}, HEIC)")


def _is_raw(image: Image.Image, name: str) -> bool:
    """Whether a thumbnail was found in a file whose own picture is in the form of its camera's maker."""
    tags = getattr(image, "tag_v2", None)
    if image.format != "TIFF" or tags is None:
        return False
    return _DNG_TAG in tags or bool(tags.get(_SUBFILE_TAG, 0) & 1) or name.lower().endswith(_RAW)


def _without_text(stream: BinaryIO) -> BinaryIO:
    """A PNG file without its texts and its colour profile: Pillow takes one with large ones for damaged."""
    parts, left_out = [(0, len(_PNG))], False
    at, kind = len(_PNG), b""
    while kind != b"IEND":
        stream.seek(at)
        head = stream.read(8)
        if len(head) < 8:
            break
        length, kind = struct.unpack(">I4s", head)
        if kind in (b"tEXt", b"zTXt", b"iTXt", b"iCCP"):
            left_out = True
        else:
            parts.append((at, length + 12))
        at += length + 12
    if not left_out:
        return stream
    content = io.BytesIO()
    for start, length in parts:
        stream.seek(start)
        content.write(stream.read(length))
    return content


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


def _reduced(image: Image.Image, name: str, max_pixels: int, reduction: int) -> Reduced:
    """The picture of a file that is open."""
    (width, height), stored = image.size, _stored(image)
    pixels, complete = _decode(image, name, max_pixels, stored, reduction)
    return Reduced(pixels, (height, width) if stored[0] else (width, height), complete)


def _decode(
    image: Image.Image, name: str, max_pixels: int, stored: _Stored, reduction: int
) -> tuple[np.ndarray, bool]:
    """The pixels (H,W,3) upright, and whether all of them are there."""
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(f"{name}: {width}×{height} pixels are more than the limit, max_pixels={max_pixels}")
    if width * height == 0:
        raise ImageError(f"{name}: has no pixels")
    if image.mode == "F":
        raise ImageError(f"{name}: holds floating-point numbers, whose black and white are unknown")
    if reduction > 1 and image.format == "JPEG":
        least = max(1, width // reduction), max(1, height // reduction)
        image.draft(image.mode, least)  # decodes no more than that
        reduction = max(1, round(reduction * image.size[0] / width))
    # Adobe's CMYK is inverted, and marked as Adobe's (libjpeg.txt); Pillow inverts it marked or not.
    inverted = image.mode == "CMYK" and image.format == "JPEG" and "adobe" not in image.info
    image, complete = _loaded(image, name)
    reduction = min(reduction, *image.size)
    width, height = image.size[0] // reduction, image.size[1] // reduction
    swapped, rows, columns = stored
    upright = np.empty((width, height, 3) if swapped else (height, width, 3), np.uint8)
    as_stored = upright.transpose(1, 0, 2) if swapped else upright
    as_stored = as_stored[:: -1 if rows else 1, :: -1 if columns else 1]
    palette = _palette(image) if image.mode == "P" else None
    step = max(1, _STRIP // (width * reduction**2))
    for top in range(0, height, step):
        bottom = min(height, top + step)
        # What is left over of the sides is cut off where the upright picture ends.
        left = image.size[0] - reduction * width if columns else 0
        above = image.size[1] - reduction * height if rows else 0
        box = (left, above + reduction * top, left + reduction * width, above + reduction * bottom)
        strip = image if box == (0, 0, *image.size) else image.crop(box)
        if palette is not None:
            pixels = palette[np.asarray(strip)]
        else:
            strip = ImageChops.invert(strip) if inverted else strip
            pixels = np.asarray(_on_white(_eight_bits(strip)))
        if reduction > 1:
            pixels = cv2.resize(pixels, (width, bottom - top), interpolation=cv2.INTER_AREA)
        as_stored[top:bottom] = pixels
    return upright, complete


def _palette(image: Image.Image) -> np.ndarray:
    """The colours (256,3) of an image of mode "P", on white where they are transparent."""
    every = Image.new("P", (256, 1))
    every.putdata(range(256))
    if image.palette is not None:
        every.palette = image.palette.copy()
        every.im.putpalette(image.palette.mode, *image.palette.getdata())
    every.info = {key: value for key, value in image.info.items() if key == "transparency"}
    return np.asarray(_on_white(every))[0]


def _loaded(image: Image.Image, name: str) -> tuple[Image.Image, bool]:
    """The picture decoded, and whether it is all there. Raises ImageError where nothing is.

    What has failed is left to fail again: Pillow itself takes it for decoded from then on.
    """
    if not isinstance(image, ImageFile.ImageFile):
        return image, True
    tile, file = image.tile, image.fp
    closed = file is None or getattr(file, "closed", False) is True
    try:
        image.load()
    except MemoryError as error:
        raise ImageError(f"{name}: needs more memory than there is") from error
    except Exception as error:  # decoders raise nearly anything on damaged data
        part = _decoded_part(image)
        image.tile, image.fp = tile, file
        if part is None:
            what = "its file is closed, open it anew" if closed else f"is damaged or incomplete ({error})"
            raise ImageError(f"{name}: {what}") from error
        return part, False
    return image, True


def _decoded_part(image: ImageFile.ImageFile) -> Image.Image | None:
    """What was decoded of a picture whose decoding has failed, if anything was."""
    image.tile = []
    try:
        return image.copy() if image.getbbox() is not None else None
    except Exception:
        return None


def _stored(image: Image.Image) -> _Stored:
    """How a picture is stored; EXIF data that come after the pixels, where none may be, do not count."""
    if image.format == "TIFF":
        return _AS_IT_IS  # Pillow turns it
    try:
        # Not image.getexif(): a PNG's decodes its pixels for it, of which a small file may claim any number.
        orientation = Image.Image.getexif(image).get(_ORIENTATION_TAG)
    except Exception:  # a picture with damaged EXIF data is a picture all the same
        orientation = None
    return _STORED.get(orientation, _AS_IT_IS) if isinstance(orientation, int) else _AS_IT_IS


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
