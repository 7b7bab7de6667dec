"""Every kind of file is made here with Pillow, read back, and compared with what was painted."""

import io
import os
import struct
import subprocess
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageChops, ImageOps
from PIL.PngImagePlugin import PngImageFile

from fkp import images
from fkp.images import ImageError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def corners(picture: np.ndarray) -> list[tuple[int, ...]]:
    """The colours near the four corners, row by row, rounded to 0, 128 or 255 against lossy coding."""
    near = picture[[4, 4, -5, -5], [4, -5, 4, -5]]
    steps = np.array([0, 128, 255])
    return [tuple(int(steps[np.abs(steps - v).argmin()]) for v in colour) for colour in near]


@pytest.fixture
def four_colours() -> Image.Image:
    """48×32: red, green / blue, white."""
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:16, :24], picture[:16, 24:], picture[16:, :24], picture[16:, 24:] = RED, GREEN, BLUE, WHITE
    return Image.fromarray(picture)


# --- what is no picture -------------------------------------------------------------------------------


def refused(what: object, **options: int) -> str:
    with pytest.raises(ImageError) as caught:
        images.read(what, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_file_that_is_not_there(tmp_path: Path) -> None:
    missing = tmp_path / "missing.jpg"
    for path, reason in ((missing, "no such file"), (str(missing), "no such file"), (tmp_path, "folder")):
        assert refused(path).startswith(f"{path}: ") and reason in refused(path)
    assert "null character" in refused("a\0b")
    assert "not NoneType" in refused(None)
    assert "not bytes" in refused(b"\xff\xd8")


def test_a_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    assert "pipe, not a picture file" in refused(tmp_path / "pipe.png")


@pytest.mark.parametrize(
    "content, reason",
    [
        (b"", "is empty"),
        (b"hello, I am a text\n" * 10, "is no picture of a known kind"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "is no picture of a known kind"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no picture of a known kind"),
        (b"\xff\xd8\xff\xe0", "damaged or incomplete"),
        (b"\x89PNG\r\n\x1a\n", "damaged or incomplete"),
        (b"GIF89a", "damaged or incomplete"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8 ", "damaged or incomplete"),
        (b"II*\x00", "damaged or incomplete"),
        (b"\x00\x00\x00\x1cftypheic" + b"\x00" * 40, "HEIC"),
    ],
)
def test_files_that_hold_no_picture(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "portrait.jpg"
    path.write_bytes(content)
    message = refused(path)
    assert message.startswith(f"{path}: ") and reason in message


def test_a_sound_picture_whose_pixels_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    assert cv2.imwrite(str(path), np.zeros((8, 9, 3), np.float32))
    assert "a TIFF file with pixels of a kind that is not read" in refused(path)


def test_a_jpeg_thinner_than_its_reduction() -> None:
    stream = io.BytesIO()
    Image.new("RGB", (5, 12000), "white").save(stream, "JPEG")
    thin = images.decode(stream.getvalue(), "thin", enough_pixels=100)
    assert thin.image.shape[1] == 1 and thin.size_wh == (5, 12000) and thin.image.min() > 250


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "TIFF", "BMP"])
def test_file_that_breaks_off_is_read_with_a_warning(tmp_path: Path, kind: str) -> None:
    """As every viewer shows it."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    path = tmp_path / f"half.{kind.lower()}"
    noise.save(path, kind)
    whole, content = images.read(path), path.read_bytes()
    for share in (0.5, 0.9):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.warns(images.IncompleteWarning, match=rf"half.{kind.lower()}.* incomplete"):
            part = images.read(path)
        assert not images.read_file(path).complete and not images.decode(path.read_bytes(), "half").complete
        rows = (part == whole).all(axis=(1, 2)).nonzero()[0]
        assert part.shape == whole.shape and len(rows) > 64 * (share - 0.3)
        if kind != "GIF":  # whose rows are interlaced
            assert not part[-1 if kind != "BMP" else 0, -1].any()
    path.write_bytes(content[:20])
    assert "half" in refused(path)


def test_a_pil_image_that_fails_fails_again(tmp_path: Path, four_colours: Image.Image) -> None:
    """And one that breaks off is told to each time."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    noise.save(tmp_path / "half.jpg", quality=95)
    (tmp_path / "half.jpg").write_bytes((tmp_path / "half.jpg").read_bytes()[:4000])
    with Image.open(tmp_path / "half.jpg") as half:
        for _ in range(2):
            with pytest.warns(images.IncompleteWarning, match="half.jpg"):
                assert images.read(half).any()
    for kind in ("jpg", "png", "gif"):
        four_colours.save(tmp_path / f"whole.{kind}")
        with Image.open(tmp_path / f"whole.{kind}") as closed:
            pass
        for _ in range(2):
            with pytest.raises(ImageError, match=f"whole.{kind}: its file is closed"):
                images.read(closed)


@pytest.mark.parametrize("kind", ["png", "gif"])
def test_corrupt_data_are_told_each_time(tmp_path: Path, kind: str) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    path = tmp_path / f"corrupt.{kind}"
    noise.save(path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 400] = b"\xff" * 400
    path.write_bytes(content)
    with Image.open(path) as corrupt:
        for _ in range(2):
            with pytest.warns(images.IncompleteWarning, match=f"corrupt.{kind}"):
                images.read(corrupt)


def test_a_cut_picture_is_not_called_closed(tmp_path: Path, four_colours: Image.Image) -> None:
    path = tmp_path / "cut.jp2"
    four_colours.save(path)
    path.write_bytes(path.read_bytes()[:-40])
    assert "cut.jp2: is damaged or incomplete" in refused(path)


def test_a_cut_cmyk_picture_is_no_negative(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 4), np.uint8)
    stream = io.BytesIO()
    Image.fromarray(noise, "CMYK").save(stream, "JPEG", quality=95)
    content = stream.getvalue()
    at = content.index(b"\xff\xee")  # Adobe's marker is taken out
    content = content[:at] + content[at + 2 + int.from_bytes(content[at + 2 : at + 4], "big") :]
    whole, cut = (images.decode(part, "cmyk.jpg") for part in (content, content[: len(content) // 2]))
    assert whole.complete and not cut.complete
    np.testing.assert_array_equal(cut.image[:16], whole.image[:16])


def test_cut_short_with_nothing_to_see(tmp_path: Path) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    noise.save(tmp_path / "half.webp", "WEBP")
    content = (tmp_path / "half.webp").read_bytes()
    for share in (0.1, 0.5, 0.9):
        (tmp_path / "half.webp").write_bytes(content[: int(len(content) * share)])
        assert "half.webp" in refused(tmp_path / "half.webp")


def test_pixels_beyond_the_limit(tmp_path: Path, four_colours: Image.Image) -> None:
    path = tmp_path / "four.png"
    four_colours.save(path)
    assert "48×32 pixels" in refused(path, max_pixels=48 * 32 - 1)
    assert "max_pixels=1535" in refused(four_colours, max_pixels=48 * 32 - 1)
    assert images.read(path, max_pixels=48 * 32).shape == (32, 48, 3)


def bomb(folder: Path) -> Path:
    """A PNG of 100 bytes that says it has 3600 megapixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    pixels = zlib.compress(b"\0" * 99)
    path = folder / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels))
    return path


def test_a_bomb_is_refused_by_its_header(tmp_path: Path) -> None:
    assert "60000×60000 pixels are more than the limit" in refused(bomb(tmp_path))


def test_pillow_limit_is_neither_used_nor_changed(
    tmp_path: Path, four_colours: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "four.png"
    four_colours.save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert images.read(path).shape == (32, 48, 3)
    assert Image.MAX_IMAGE_PIXELS == 10


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((8, 8), np.uint8),
        np.zeros((8, 8, 4), np.uint8),
        np.zeros((8, 8, 3), np.float32),
        np.zeros((0, 8, 3), np.uint8),
        np.zeros((1, 8, 8, 3), np.uint8),
    ],
)
def test_arrays_that_are_no_picture(array: np.ndarray) -> None:
    message = refused(array)
    assert str(array.shape) in message and str(array.dtype) in message and "(height, width, 3)" in message


def test_floating_point_picture(tmp_path: Path) -> None:
    path = tmp_path / "float.tiff"
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(path)
    assert "floating-point" in refused(path)


# --- what is one --------------------------------------------------------------------------------------


def test_arrays_and_pil_images(four_colours: Image.Image) -> None:
    array = np.asarray(four_colours)
    assert images.read(array) is array
    reversed_rows = images.read(array[::-1])
    assert reversed_rows.flags.c_contiguous and np.array_equal(reversed_rows, array[::-1])
    from_pil = images.read(four_colours)
    assert np.array_equal(from_pil, array)
    assert from_pil.dtype == np.uint8 and from_pil.flags.c_contiguous and from_pil.flags.writeable
    assert images.read(Image.new("RGB", (1, 1), RED)).tolist() == [[list(RED)]]


LOSSLESS = ["PNG", "TIFF", "BMP", "GIF", "PPM"]


@pytest.mark.parametrize("kind", [*LOSSLESS, "JPEG", "WEBP", "JPEG2000", "AVIF"])
def test_kinds_of_file(tmp_path: Path, four_colours: Image.Image, kind: str) -> None:
    Image.init()
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {kind}")
    path = tmp_path / "without_a_telling_name"
    four_colours.save(path, kind)
    picture = images.read(path)
    assert picture.shape == (32, 48, 3) and picture.dtype == np.uint8 and picture.flags.c_contiguous
    assert corners(picture) == [RED, GREEN, BLUE, WHITE]
    if kind in LOSSLESS:
        assert np.array_equal(picture, np.asarray(four_colours))


@pytest.mark.parametrize(
    "orientation, seen",
    [
        (1, [RED, GREEN, BLUE, WHITE]),
        (2, [GREEN, RED, WHITE, BLUE]),
        (3, [WHITE, BLUE, GREEN, RED]),
        (4, [BLUE, WHITE, RED, GREEN]),
        (5, [RED, BLUE, GREEN, WHITE]),
        (6, [BLUE, RED, WHITE, GREEN]),
        (7, [WHITE, GREEN, BLUE, RED]),
        (8, [GREEN, WHITE, RED, BLUE]),
        (99, [RED, GREEN, BLUE, WHITE]),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_rotation(
    tmp_path: Path, four_colours: Image.Image, kind: str, orientation: int, seen: list[tuple[int, ...]]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{kind.lower()}"
    four_colours.save(path, kind, exif=exif)
    picture = images.read(path)
    assert picture.shape == ((48, 32, 3) if orientation in (5, 6, 7, 8) else (32, 48, 3))
    assert corners(picture) == seen
    assert images.size_wh(path) == picture.shape[1::-1]
    # In hand it is as it is there, whatever was done to it before.
    with Image.open(path) as opened:
        for image in (opened, opened.copy(), opened.convert("RGBA"), ImageOps.exif_transpose(opened)):
            assert np.array_equal(images.read(image), np.asarray(image.convert("RGB")))


def test_damaged_exif_is_no_obstacle(tmp_path: Path, four_colours: Image.Image) -> None:
    path = tmp_path / "exif.jpg"
    four_colours.save(path, exif=b"Exif\x00\x00" + b"\xff" * 30)
    assert corners(images.read(path)) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_alpha_lies_on_white(tmp_path: Path, kind: str) -> None:
    rgba = Image.new("RGBA", (20, 10), (255, 0, 0, 255))
    rgba.paste((0, 0, 0, 0), (10, 0, 20, 10))
    path = tmp_path / f"alpha.{kind.lower()}"
    rgba.save(path, kind, **({"lossless": True} if kind == "WEBP" else {}))
    picture = images.read(path)
    assert picture[5, 5].tolist() == [255, 0, 0] and picture[5, 15].tolist() == [255, 255, 255]


def test_half_transparent(tmp_path: Path) -> None:
    Image.new("RGBA", (4, 4), (0, 0, 0, 128)).save(tmp_path / "half.png")
    assert images.read(tmp_path / "half.png")[0, 0] == pytest.approx([127, 127, 127], abs=1)


def test_png_under_a_jpg_name(tmp_path: Path) -> None:
    """As the published YouTube Faces frames are."""
    Image.new("RGBA", (4, 4), (10, 20, 30, 255)).save(tmp_path / "frame.jpg", "PNG")
    assert images.read(tmp_path / "frame.jpg")[0, 0].tolist() == [10, 20, 30]


def test_palette(tmp_path: Path, four_colours: Image.Image) -> None:
    palette = four_colours.quantize(4)
    assert palette.mode == "P"
    palette.save(tmp_path / "palette.png")
    assert corners(images.read(tmp_path / "palette.png")) == [RED, GREEN, BLUE, WHITE]
    red = palette.getpixel((4, 4))
    palette.save(tmp_path / "clear_red.png", transparency=red)
    assert corners(images.read(tmp_path / "clear_red.png")) == [WHITE, GREEN, BLUE, WHITE]
    palette.save(tmp_path / "clear_red.gif", transparency=red)
    assert corners(images.read(tmp_path / "clear_red.gif")) == [WHITE, GREEN, BLUE, WHITE]
    alphas = bytes(0 if i == red else 255 for i in range(4))
    palette.save(tmp_path / "alphas.png", transparency=alphas)
    assert corners(images.read(tmp_path / "alphas.png")) == [WHITE, GREEN, BLUE, WHITE]


def test_grey_and_black_and_white(tmp_path: Path) -> None:
    Image.new("L", (4, 4), 77).save(tmp_path / "grey.png")
    assert images.read(tmp_path / "grey.png")[0, 0].tolist() == [77, 77, 77]
    Image.new("L", (4, 4), 77).save(tmp_path / "grey.jpg")
    assert images.read(tmp_path / "grey.jpg")[0, 0].tolist() == [77, 77, 77]
    Image.new("LA", (4, 4), (77, 0)).save(tmp_path / "clear.png")
    assert images.read(tmp_path / "clear.png")[0, 0].tolist() == [255, 255, 255]
    Image.new("LA", (4, 4), (77, 255)).save(tmp_path / "grey_alpha.png")
    assert images.read(tmp_path / "grey_alpha.png")[0, 0].tolist() == [77, 77, 77]
    Image.new("L", (4, 4), 77).save(tmp_path / "clear_grey.png", transparency=77)
    assert images.read(tmp_path / "clear_grey.png")[0, 0].tolist() == [255, 255, 255]
    one_bit = Image.new("1", (4, 4), 0)
    one_bit.putpixel((3, 0), 1)
    one_bit.save(tmp_path / "one_bit.png")
    assert images.read(tmp_path / "one_bit.png")[0].tolist() == [[0] * 3] * 3 + [[255] * 3]


@pytest.mark.parametrize("kind", ["png", "tiff", "pgm"])
def test_sixteen_bits_grey(tmp_path: Path, kind: str) -> None:
    values = np.array([[0, 257, 128 * 257, 65535]], np.uint16)
    path = tmp_path / f"deep.{kind}"
    Image.fromarray(values).save(path)
    assert images.read(path)[0].tolist() == [[v] * 3 for v in (0, 1, 128, 255)]


def test_sixteen_bits_big_endian_tiff_turned(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    deep = Image.frombytes("I;16B", (2, 1), struct.pack(">2H", 0, 65535))
    deep.save(tmp_path / "deep.tiff", exif=exif)
    assert images.read(tmp_path / "deep.tiff")[0, :, 0].tolist() == [255, 0]


def test_sixteen_bits_colour_png(tmp_path: Path) -> None:
    bgr = np.array([[[0, 128 * 257, 65535]]], np.uint16)
    cv2.imwrite(str(tmp_path / "deep.png"), bgr)
    assert images.read(tmp_path / "deep.png")[0, 0].tolist() == [255, 128, 0]
    cv2.imwrite(str(tmp_path / "deep.tiff"), bgr, [cv2.IMWRITE_TIFF_COMPRESSION, 1])
    assert images.read(tmp_path / "deep.tiff")[0, 0].tolist() == [255, 128, 0]


def test_cmyk_jpeg_of_adobe_and_plain(tmp_path: Path, four_colours: Image.Image) -> None:
    cmyk = four_colours.convert("CMYK")
    cmyk.save(tmp_path / "adobe.jpg", quality=95)
    content = (tmp_path / "adobe.jpg").read_bytes()
    assert b"\xff\xee\x00\x0eAdobe" in content
    assert corners(images.read(tmp_path / "adobe.jpg")) == [RED, GREEN, BLUE, WHITE]

    buffer = io.BytesIO()
    ImageChops.invert(cmyk).save(buffer, "JPEG", quality=95)
    content = buffer.getvalue()
    mark = content.index(b"\xff\xee\x00\x0eAdobe")
    (tmp_path / "plain.jpg").write_bytes(content[:mark] + content[mark + 16 :])
    assert corners(images.read(tmp_path / "plain.jpg")) == [RED, GREEN, BLUE, WHITE]

    cmyk.save(tmp_path / "cmyk.tiff")
    assert corners(images.read(tmp_path / "cmyk.tiff")) == [RED, GREEN, BLUE, WHITE]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_first_frame_of_many(tmp_path: Path, four_colours: Image.Image, kind: str) -> None:
    others = [Image.new("RGB", four_colours.size, colour) for colour in ("black", "yellow")]
    path = tmp_path / f"many.{kind.lower()}"
    four_colours.save(path, kind, save_all=True, append_images=others, duration=100)
    assert corners(images.read(path)) == [RED, GREEN, BLUE, WHITE]


def test_heic(tmp_path: Path, four_colours: Image.Image) -> None:
    pillow_heif = pytest.importorskip("pillow_heif", reason="needs the extra fkp[heif]")
    path = tmp_path / "phone.heic"
    exif = Image.Exif()
    exif[0x0112] = 6
    pillow_heif.from_pillow(four_colours.resize((96, 64))).save(path, quality=95, exif=exif.tobytes())
    picture = images.read(path)
    assert picture.shape == (96, 64, 3)
    assert corners(picture) == [BLUE, RED, WHITE, GREEN]
    assert "more than the limit" in refused(path, max_pixels=100)
    path.write_bytes(path.read_bytes()[:200])
    assert "damaged or incomplete" in refused(path)


def test_heic_without_its_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    path = tmp_path / "phone.heic"
    path.write_bytes(b"\x00\x00\x00\x1cftypheic" + b"\x00" * 40)
    assert refused(path).startswith(f"{path}: ") and "pip install pillow-heif" in refused(path)


def test_threads_many_at_once(tmp_path: Path, four_colours: Image.Image) -> None:
    paths = []
    for i, kind in enumerate(["PNG", "JPEG", "GIF", "WEBP"] * 4):
        paths.append(tmp_path / f"{i}.{kind.lower()}")
        four_colours.save(paths[-1], kind)
    with ThreadPoolExecutor(8) as pool:
        for picture in pool.map(images.read, paths):
            assert corners(picture) == [RED, GREEN, BLUE, WHITE]


def test_the_callers_image_is_left_as_it_was(four_colours: Image.Image) -> None:
    exif = four_colours.getexif()
    exif[0x0112] = 6
    assert np.array_equal(images.read(four_colours), np.asarray(four_colours))
    assert four_colours.size == (48, 32) and four_colours.getexif()[0x0112] == 6


def chunks(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("after", [8 + 25, -12])
def test_a_png_with_large_texts_is_sound(tmp_path: Path, four_colours: Image.Image, after: int) -> None:
    """Before its pixels, or behind them."""
    path = tmp_path / "text.png"
    four_colours.save(path)
    content = path.read_bytes()
    large = zlib.compress(bytes(3_000_000))
    texts = chunks(b"zTXt", b"k\0\0" + large) + chunks(b"iTXt", b"k\0\1\0\0\0" + large)
    texts += chunks(b"iCCP", b"k\0\0" + large)
    path.write_bytes(content[:after] + texts + content[after:])
    assert images.size_wh(path) == (48, 32)
    assert np.array_equal(images.read(path), np.asarray(four_colours))


def test_exif_behind_the_pixels_of_a_png_counts_for_nothing(
    tmp_path: Path, four_colours: Image.Image
) -> None:
    """The PNG specification has it before them; so size and picture agree."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "late.png"
    four_colours.save(path)
    content = path.read_bytes()
    path.write_bytes(content[:-12] + chunks(b"eXIf", exif.tobytes()[6:]) + content[-12:])
    assert images.size_wh(path) == (48, 32) and images.read(path).shape == (32, 48, 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "GIF"])
@pytest.mark.parametrize("orientation", [1, 6])
def test_reduced(tmp_path: Path, kind: str, orientation: int) -> None:
    ramp = np.add.outer(np.arange(101), np.arange(203)).clip(0, 255).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "ramp"
    options = {"exif": exif} if kind != "GIF" else {}
    Image.fromarray(np.dstack([ramp] * 3)).save(path, kind, **options)
    whole = images.read(path).astype(float)
    for reduction in (2, 4, 8):
        small, size_wh, complete = images.read_file(path, reduction=reduction)
        assert complete and size_wh == whole.shape[1::-1]
        assert all(
            0 <= side - a * reduction < 8 or a * reduction - side < 8
            for a, side in zip(small.shape[:2], whole.shape[:2], strict=True)
        )
        for y, x in ((0, 0), (7, 5), (3, 9)):
            block = whole[y * reduction : (y + 1) * reduction, x * reduction : (x + 1) * reduction]
            assert small[y, x, 0] == pytest.approx(block.mean(), abs=3)


@pytest.mark.skipif(sys.platform == "win32", reason="needs the module resource")
@pytest.mark.parametrize("mode", ["P", "RGBA", "I;16", "L"])
def test_memory_is_what_was_said(tmp_path: Path, mode: str) -> None:
    """In a process of its own: four fifths of the 1.6 GB that a 10 kB PNG once took were copies."""
    path = tmp_path / "large.png"
    Image.new(mode, (6000, 4000)).save(path, **({"transparency": 0} if mode == "P" else {}))
    code = f"""
import resource
from fkp import images
images.read({str(images.__file__).replace("fkp/images.py", "examples/grace_hopper.jpg")!r})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
images.read_file({str(path)!r}, reduction=2)
print(1024 * (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert int(done.stdout) <= images.bytes_needed(path, 2) <= 4 * 24e6 + 3 * 6e6 + 32 * 4.2e6, done.stderr


def test_a_thumbnail_of_a_raw_file_is_told(tmp_path: Path) -> None:
    thumbnail = Image.new("RGB", (16, 12))
    thumbnail.save(tmp_path / "a.tiff", tiffinfo={254: 1})
    assert "raw file" in refused(tmp_path / "a.tiff") and "16×12" in refused(tmp_path / "a.tiff")
    thumbnail.save(tmp_path / "a.NEF", "TIFF")
    assert "a.NEF" in refused(tmp_path / "a.NEF") and "raw file" in refused(tmp_path / "a.NEF")
    (tmp_path / "a.CR3").write_bytes(b"\0\0\0\x18ftypcrx \0\0\0\1")
    assert "raw file" in refused(tmp_path / "a.CR3")


def test_arguments_that_are_no_picture_get_a_hint(tmp_path: Path, four_colours: Image.Image) -> None:
    four_colours.save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    with (tmp_path / "a.png").open("rb") as file:
        for what in (io.BytesIO(content), file, content):
            assert "PIL.Image.open" in refused(what)
    for address in ("https://example.org/a.png", "data:image/png;base64,AAAA"):
        assert address in refused(address) and "download" in refused(address)


def test_size_without_decoding(tmp_path: Path) -> None:
    picture = Image.new("RGB", (30, 20))
    picture.save(tmp_path / "plain.png")
    assert images.size_wh(tmp_path / "plain.png") == (30, 20)
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    picture.save(tmp_path / "turned.jpg", exif=exif)
    assert images.size_wh(tmp_path / "turned.jpg") == (20, 30)
    assert images.read(tmp_path / "turned.jpg").shape == (30, 20, 3)
    (tmp_path / "text.jpg").write_text("no picture")
    with pytest.raises(images.ImageError, match="text.jpg: is no picture"):
        images.size_wh(tmp_path / "text.jpg")


def test_the_size_of_a_bomb_is_told_without_decoding_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PngImageFile, "load", lambda self: pytest.fail("its pixels were decoded"))
    path = bomb(tmp_path)
    assert images.size_wh(path) == (60_000, 60_000)
