"""Small clips made with PyAV, for tests."""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE = 25
TONE = 440.0
"""Hz of the sine that sounds."""

# The turn that a display matrix asks for, degrees clockwise: a, b, c, d in units of 1/65536.
MATRICES = {90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}

CORNERS = ((220, 40, 40), (40, 200, 60), (50, 60, 220), (230, 220, 60))
"""RGB of the quarters of every frame: top left, top right, bottom left, bottom right."""


def quarters(number: int, size_wh: tuple[int, int]) -> np.ndarray:
    """A frame (H,W,3) uint8 RGB of four colours; a square in its middle gets lighter with the number."""
    width, height = size_wh
    image = np.empty((height, width, 3), np.uint8)
    for i, colour in enumerate(CORNERS):
        rows = slice(0, height // 2) if i < 2 else slice(height // 2, height)
        image[rows, slice(0, width // 2) if i % 2 == 0 else slice(width // 2, width)] = colour
    image[height // 2 - 6 : height // 2 + 6, width // 2 - 6 : width // 2 + 6] = min(10 + 24 * number, 255)
    return image


def film(
    path: Path,
    frames: int | Sequence[np.ndarray] = 10,
    *,
    times: Sequence[float] | None = None,
    size_wh: tuple[int, int] = (64, 48),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    kind: str | None = None,
    sound: str | None = None,
    seconds: float | None = None,
    front: bool = False,
) -> Path:
    """Write a clip of `frames` pictures, at `times` in seconds or `RATE` a second, with a sine as `sound`.

    `sound` is the encoder's name; the sine lasts as long as the frames or for `seconds`. `front` puts the
    table of contents before the frames.
    """
    pictures = [quarters(i, size_wh) for i in range(frames)] if isinstance(frames, int) else frames
    tick = Fraction(1, 1000 if times else RATE)
    times = [i / RATE for i in range(len(pictures))] if times is None else times
    options = {"movflags": "+faststart"} if front else {}
    with av.open(str(path), "w", format=kind, options=options) as container:
        video = container.add_stream(codec, rate=RATE)
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt = pix_fmt
        video.time_base = video.codec_context.time_base = tick
        heard = container.add_stream(sound, rate=48000) if sound else None
        for picture, time in zip(pictures, times, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = round(time / tick), tick
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if heard:
            seconds = len(pictures) / RATE if seconds is None else seconds
            wave = np.sin(2 * np.pi * TONE * np.arange(round(48000 * seconds)) / 48000)
            tone = av.AudioFrame.from_ndarray((0.3 * wave[None]).astype(np.float32), "fltp", "mono")
            tone.rate, tone.pts, tone.time_base = 48000, 0, Fraction(1, 48000)
            container.mux(heard.encode(tone))
            container.mux(heard.encode(None))
    return path


def turned(path: Path, clockwise: int, mirrored: bool = False) -> Path:
    """Ask players to turn an MP4, as telephones do: changes the matrix in its track header (ISO 14496-12)."""
    data = bytearray(path.read_bytes())
    a, b, c, d = MATRICES[clockwise]
    matrix = np.array([[-a, b, 0], [-c, d, 0], [0, 0, 1]] if mirrored else [[a, b, 0], [c, d, 0], [0, 0, 1]])
    matrix = matrix * [65536, 65536, 2**30]
    start = data.index(b"tkhd") + 44
    data[start : start + 36] = matrix.astype(">i4").tobytes()
    path.write_bytes(data)
    return path


def watched(path: Path) -> tuple[list[np.ndarray], list[float]]:
    """The frames of a clip as RGB, and their times in seconds."""
    with av.open(str(path)) as container:
        frames = [(f.to_ndarray(format="rgb24"), f.time) for f in container.decode(video=0)]
    return [image for image, _ in frames], [time for _, time in frames]


def listened(path: Path) -> tuple[str, float, float]:
    """The codec of a clip's sound, its length in seconds, and the pitch that is heard, in Hz."""
    with av.open(str(path)) as container:
        stream = container.streams.audio[0]
        wave = np.concatenate([f.to_ndarray().reshape(-1, f.samples)[0] for f in container.decode(stream)])
        power = np.abs(np.fft.rfft(wave))
        return stream.codec_context.name, len(wave) / stream.rate, power.argmax() * stream.rate / len(wave)
