"""Clips read and written with PyAV, which brings FFmpeg: upright RGB frames, their times, and the sound."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, Self

import av
import cv2
import numpy as np

from fkp import images, outputs

KINDS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".webm": "webm", ".mkv": "matroska"}
"""What can be written: FFmpeg's name of the kind of file by its ending."""

# What people have. None of the kinds that name other files or addresses, as playlists do: clips come from
# strangers.
_READABLE = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,gif,yuv4mpegpipe"

# Kinds of file that say of what begins later than 0 how long it is or when it ends, as their writer chose.
_MAY_SAY_THE_END = ("matroska,webm", "asf")

# The first that FFmpeg was built with. Browsers play VP9 out of an MP4 too.
_ENCODERS = {
    "mp4": ("libx264", "libopenh264", "libvpx-vp9"),
    "mov": ("libx264", "libopenh264"),
    "webm": ("libvpx-vp9",),
    "matroska": ("libx264", "libopenh264", "libvpx-vp9"),
}
# Hard to tell from the original, and quicker than the networks.
_ENCODER_OPTIONS = {
    "libx264": {"preset": "veryfast", "crf": "20"},
    "libopenh264": {"b": "8M"},
    "libvpx-vp9": {"crf": "28", "b": "0", "deadline": "realtime", "cpu-used": "6", "row-mt": "1"},
}
# Sound that is taken over as it is, for it plays in such a file; and what other sound becomes.
_COPIED = {
    "mp4": ("aac", "mp3", "opus"),
    "mov": ("aac", "mp3"),
    "webm": ("opus", "vorbis"),
    "matroska": ("aac", "mp3", "opus", "vorbis", "flac", "ac3", "eac3"),
}
_SOUND_ENCODERS = {"mp4": "aac", "mov": "aac", "webm": "libopus", "matroska": "aac"}

EVEN = 1e-3
"""Share by which the mean rate of a clip may differ from that of its shortest frames to count as even."""

_BT709, _UNTOLD = 1, 2
"""Matrix coefficients as ITU-T H.273 numbers them."""
_NARROW = 1
"""FFmpeg's number for levels from 16 to 235."""


class ClipError(ValueError):
    """A clip that cannot be read or written: one sentence with its name and the reason."""


@dataclass(frozen=True)
class Limits:
    """What a clip may have at most: `seconds` of length, `frames` in all, `pixels` a frame, `bytes` in its
    file. None: any."""

    seconds: float | None = None
    pixels: int | None = None
    bytes: int | None = None
    frames: int | None = None


@dataclass(frozen=True)
class Frame:
    """A frame: its `number` from 0, its `time` in seconds, its `image` (H,W,3) uint8 RGB, upright.

    `ticks` is the time in the clip's `time_base`, `duration` how long it is shown, 0 if untold.
    """

    number: int
    time: float
    ticks: int
    image: np.ndarray
    duration: int = 0


class Clip:
    """A clip opened for reading. Iterating gives its parts once, in the order of the file: frames, and
    packets of sound. No more of them are in memory than FFmpeg needs.

    `size_wh` is the size of every frame: where it changes on the way, frames are fitted into the first one's.
    `seconds` and `frames` are its length as the file says, or lets expect; None if it does not. `rate` is the
    mean number of frames a second, `is_even` whether the file tells that all last equally long,
    `pixel_aspect` a pixel's width by its height, None if untold; `time_base` are the seconds of a tick.
    `sound` is the first sound track that can be read, or None. Times count from where the clip begins.
    """

    def __init__(self, path: str | Path, limits: Limits | None = None, threads: int = 0) -> None:
        """Opens a clip and reads its first frame; `threads` are for the decoder, 0 leaves them to FFmpeg.

        Raises ClipError for what is no clip, damaged, or beyond the limits. So does iterating.
        """
        self.name, self.limits = os.fsdecode(path), limits or Limits()
        self.size_wh = (0, 0)
        self._held = contextlib.ExitStack()
        self._reached = 0.0
        with contextlib.ExitStack() as unless_all_goes_well:
            unless_all_goes_well.callback(self.close)
            self._container = self._open()
            self._choose_streams(threads)
            parts, first = self._read(), []
            while self.size_wh == (0, 0):
                first.append(next(parts))
            self._parts = itertools.chain(first, parts)
            unless_all_goes_well.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._held.close()

    def __iter__(self) -> Iterator[Frame | av.Packet]:
        return self._parts

    def _open(self) -> av.container.InputContainer:
        try:
            file = self._held.enter_context(images.open_file(self.name, "video"))
        except images.ImageError as error:
            raise ClipError(str(error)) from None
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            raise ClipError(f"{self.name}: is empty")
        if self.limits.bytes is not None and size > self.limits.bytes:
            limit = f"the limit of {self.limits.bytes / 1e6:g} MB"
            raise ClipError(f"{self.name}: {size / 1e6:.1f} MB are more than {limit}")
        options = {"format_whitelist": _READABLE}
        if self.limits.pixels is not None:
            options["max_pixels"] = str(self.limits.pixels)  # FFmpeg may decode a frame to see what it is
        try:
            return self._held.enter_context(av.open(file, "r", options=options))
        except av.FFmpegError as error:
            raise ClipError(f"{self.name}: is no video, or a damaged or incomplete one") from error

    def _choose_streams(self, threads: int) -> None:
        container = self._container
        # The cover of a song is a video stream too.
        cover = av.stream.Disposition.attached_pic
        videos = [stream for stream in container.streams.video if not stream.disposition & cover]
        if not videos:
            raise ClipError(f"{self.name}: has no video in it")
        self._video = video = videos[0]
        if video.codec_context is None:
            raise ClipError(f"{self.name}: its video is of a kind that cannot be decoded")
        sounds = [s for s in container.streams.audio if s.codec_context is not None and s.codec_context.rate]
        self.sound = sounds[0] if sounds else None
        self._check_pixels(video.codec_context.width, video.codec_context.height)
        video.codec_context.thread_type, video.codec_context.thread_count = "AUTO", threads
        if self.limits.pixels is not None:
            video.codec_context.options = {"max_pixels": str(self.limits.pixels)}
        self.time_base = video.time_base or Fraction(1, 90000)
        rate = video.average_rate or video.guessed_rate
        self.rate = Fraction(rate) if rate else None  # from PyAV 19 on it is of a type of PyAV's own
        fastest = video.base_rate
        # Kinds of file that do not count their frames take the mean rate from what their writer hoped for.
        self.is_even = bool(video.frames and rate and fastest and abs(float(rate / fastest) - 1) < EVEN)
        self.pixel_aspect = video.sample_aspect_ratio
        begins = Fraction(max(0, container.start_time or 0), av.time_base)
        self._first_tick = {s.index: round(begins / s.time_base) for s in self._streams if s.time_base}
        self._begins = float(begins)
        self.seconds = self._stated_seconds()
        if self.seconds and self._is_too_long(self.seconds):
            length = f"{self.seconds:.1f} s are more than the limit of {self.limits.seconds:g} s"
            raise ClipError(f"{self.name}: {length}")
        self.frames = video.frames or None
        # What the length lets expect may be a few too many.
        slack = 0 if self.frames else 0.2
        if self.frames is None and self.seconds and self.rate:
            self.frames = round(self.seconds * self.rate)
        if self.frames and self.limits.frames and self.frames > (1 + slack) * self.limits.frames:
            limit = f"the limit of {self.limits.frames} frames"
            raise ClipError(f"{self.name}: {self.frames} frames are more than {limit}")

    @property
    def _streams(self) -> list[Any]:
        return [self._video, self.sound] if self.sound else [self._video]

    def _stated_seconds(self) -> float | None:
        """How long the clip is, as the file says; where it may mean when the clip ends, the less of both."""
        stated = [float(s.duration * s.time_base) for s in self._streams if s.duration and s.time_base]
        if not stated and self._container.duration:
            stated = [self._container.duration / av.time_base]
        seconds = max(stated, default=None)
        if seconds and self._begins < seconds and self._container.format.name in _MAY_SAY_THE_END:
            return seconds - self._begins
        return seconds

    def _is_too_long(self, seconds: float) -> bool:
        # Sound often lasts a little longer than the video.
        return self.limits.seconds is not None and seconds > self.limits.seconds + 0.5

    def _check_pixels(self, width: int, height: int) -> None:
        if self.limits.pixels is not None and width * height > self.limits.pixels:
            limit = f"the limit of {self.limits.pixels} pixels a frame"
            raise ClipError(f"{self.name}: {width}×{height} is more than {limit}")

    def _read(self) -> Iterator[Frame | av.Packet]:
        number, last = 0, None
        try:
            for packet in self._container.demux(self._streams):
                first_tick = self._first_tick.get(packet.stream.index, 0)
                if packet.pts is not None:
                    packet.pts -= first_tick
                    end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
                    self._reached = max(self._reached, end)
                    if self._is_too_long(self._reached):
                        limit = f"the limit of {self.limits.seconds:g} s"
                        raise ClipError(f"{self.name}: is longer than {limit}")
                if packet.dts is not None:
                    packet.dts -= first_tick
                if packet.stream.index != self._video.index:
                    if packet.size:
                        yield packet
                    continue
                for frame in self._decode(packet):
                    last = self._ticks(frame, last)
                    time = float(last * self.time_base)
                    if self.limits.frames and number >= self.limits.frames:
                        limit = f"the limit of {self.limits.frames} frames"
                        raise ClipError(f"{self.name}: has more than {limit}")
                    yield Frame(number, time, last, self._image(frame), frame.duration or 0)
                    number += 1
        except av.FFmpegError as error:
            raise ClipError(f"{self.name}: is damaged after {self._reached:.1f} s") from error
        if number == 0:
            raise ClipError(f"{self.name}: holds no frame that can be decoded")
        stated = self.seconds or 0.0
        if self._container.format.name == "avi" and self.rate:  # its length in seconds is FFmpeg's guess
            stated = max(stated, float(self._video.frames / self.rate))
        if self._reached + 0.5 < 0.95 * stated:
            raise ClipError(f"{self.name}: breaks off after {self._reached:.1f} of {stated:.1f} s")

    def _decode(self, packet: av.Packet) -> list[Any]:
        try:
            return packet.decode()
        except av.error.InvalidDataError:
            return []  # a gap of a few frames is better than no result

    def _ticks(self, frame: av.VideoFrame, last: int | None) -> int:
        """The time of a frame; what has none, or goes back, follows the frame before at the mean distance."""
        step = max(1, round(1 / (self.rate * self.time_base))) if self.rate else 1
        if last is None:
            return frame.pts or 0
        if frame.pts is None:
            return last + step
        return frame.pts if frame.pts > last else last + 1

    def _image(self, frame: av.VideoFrame) -> np.ndarray:
        self._check_pixels(frame.width, frame.height)
        # Where the matrix is untold, players take the one of high definition for pictures of that height.
        matrix = _BT709 if frame.colorspace == _UNTOLD and frame.height >= 720 else None
        image = frame.to_ndarray(format="rgb24", src_colorspace=matrix)
        image = upright(image, _display_matrix(frame))
        height, width = image.shape[:2]
        if self.size_wh == (0, 0):
            self.size_wh = (width, height)
            if self.pixel_aspect and (frame.width, frame.height) == (height, width):
                self.pixel_aspect = 1 / self.pixel_aspect
        return image if self.size_wh == (width, height) else fitted(image, self.size_wh)


def _display_matrix(frame: av.VideoFrame) -> np.ndarray | None:
    """(3,3) as `upright` wants it."""
    data: Any = frame.side_data.get("DISPLAYMATRIX")
    return None if data is None else np.frombuffer(data, np.int32).reshape(3, 3)


def upright(image: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """An image (H,W,C) turned as a display matrix (3,3) says, to the nearest quarter; mirrored if it says so.

    The matrix takes a row (x, y, 1) of the image to one of the screen (ISO 14496-12, 6.2.2); None leaves all.
    """
    if matrix is None:
        return image
    (a, b), (c, d) = matrix[:2, :2].tolist()
    if abs(a) + abs(d) >= abs(b) + abs(c):
        x, y = a, d
    else:
        image, x, y = image.transpose(1, 0, 2), c, b
    return np.ascontiguousarray(image[:: -1 if y < 0 else 1, :: -1 if x < 0 else 1])


def fitted(image: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """An image (H,W,3) scaled into another size, its middle in the middle, black beside it."""
    (width, height), (rows, columns) = size_wh, image.shape[:2]
    scale = min(width / columns, height / rows)
    inner = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    canvas = np.zeros((height, width, 3), np.uint8)
    small = cv2.resize(image, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    canvas[top : top + inner[1], left : left + inner[0]] = small
    return canvas


class Film:
    """A clip being written, with the times, the sound and the pixel shape of the clip that it is made from.

    Video is H.264, or VP9 where FFmpeg lacks that or the kind of file wants it, of 4:2:0 pixels, whose even
    width and height repeat the last column and row. Sound is taken over where it can be played from that
    kind of file, and encoded anew else. Nothing else of the clip goes along: no place, no time, no device. A
    comment says that fkp made it.
    """

    def __init__(
        self, path: Path, kind: str, clip: Clip, *, name: str | None = None, threads: int = 0
    ) -> None:
        """`kind` is one of `KINDS`' values; `name` is what errors call a file that will be renamed; `threads`
        are for the encoder, 0 leaves them to FFmpeg.

        Raises ClipError where it cannot be written; so do all methods.
        """
        self.name = name or os.fsdecode(path)
        # The table of contents goes to the front, so that a browser can start before it has all.
        options = {"movflags": "+faststart"} if kind in ("mp4", "mov") else {}
        with self._told():
            self._container = av.open(os.fsdecode(path), "w", format=kind, options=options)
            self._container.metadata["comment"] = outputs.MARK.decode()
        encoder = next((name for name in _ENCODERS[kind] if name in av.codecs_available), None)
        if encoder is None:
            self._container.close()
            raise ClipError(f"{self.name}: this FFmpeg has no encoder for a {kind} file")
        with self._told():
            self._video = self._add_video(encoder, kind, clip, threads)
            self._durations: dict[int, int] = {}
            self._sound: Any = None
            self._copies = False
            if clip.sound is not None:
                self._add_sound(clip.sound, kind)

    def _add_video(self, encoder: str, kind: str, clip: Clip, threads: int) -> Any:
        rate = (clip.rate or Fraction(30)).limit_denominator(2**16)
        options = dict(_ENCODER_OPTIONS[encoder])
        if encoder == "libx264" and kind in ("mp4", "mov") and not clip.is_even:
            # Frames that refer to later ones are decoded a few frames early: after a pause, MP4 would end by
            # so many frames' times too soon, and browsers would not show them. Half as large again without.
            options["bf"] = "0"
        stream: Any = self._container.add_stream(encoder, rate=rate, options=options)
        context = stream.codec_context
        context.width, context.height = (side + side % 2 for side in clip.size_wh)
        context.pix_fmt, context.thread_count = "yuv420p", threads
        context.colorspace = context.color_primaries = context.color_trc = _BT709
        context.color_range = _NARROW
        if clip.pixel_aspect:
            context.sample_aspect_ratio = clip.pixel_aspect
        stream.time_base = context.time_base = self._time_base = clip.time_base
        return stream

    def _add_sound(self, sound: av.AudioStream, kind: str) -> None:
        # Sound in a transport stream lacks the header that other files want: encoding again is the safe way.
        bare = sound.codec_context.name == "aac" and not sound.codec_context.extradata
        if sound.codec_context.name in _COPIED[kind] and not bare:
            self._sound, self._copies = self._container.add_stream_from_template(sound), True
            return
        encoder = _SOUND_ENCODERS[kind]
        rate = 48000 if encoder == "libopus" else min(sound.codec_context.rate, 48000)
        self._sound = self._container.add_stream(encoder, rate=rate)
        self._sound.codec_context.layout = "mono" if sound.codec_context.layout.nb_channels == 1 else "stereo"

    def add(self, frame: Frame, image: np.ndarray) -> None:
        """A frame's place in time with another image (H,W,3) uint8 RGB of the clip's size."""
        height, width = image.shape[:2]
        if height % 2 or width % 2:
            image = cv2.copyMakeBorder(image, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
        picture = av.VideoFrame.from_ndarray(image, format="rgb24")
        picture = picture.reformat(format="yuv420p", dst_colorspace=_BT709, dst_color_range=_NARROW)
        picture.pts, picture.time_base = frame.ticks, self._time_base
        self._durations[frame.ticks] = frame.duration
        self._write(picture)

    def _write(self, picture: av.VideoFrame | None) -> None:
        with self._told():
            for packet in self._video.encode(picture):
                # Encoders take every frame to last as long as the mean one: the last would end too soon.
                packet.duration = self._durations.pop(packet.pts, 0) or packet.duration
                self._container.mux(packet)

    def add_sound(self, packet: av.Packet) -> None:
        """A packet of the clip's sound."""
        with self._told():
            if self._copies:
                packet.stream = self._sound
                self._container.mux(packet)
            else:
                for frame in _heard(packet):
                    self._container.mux(self._sound.encode(frame))

    def close(self) -> None:
        """Write what is left; a film that is not closed is not whole."""
        self._write(None)
        with self._told():
            if self._sound and not self._copies:
                self._container.mux(self._sound.encode(None))
            self._container.close()

    def abandon(self) -> None:
        """Let go of the file, which will not be whole."""
        with contextlib.suppress(av.FFmpegError):
            self._container.close()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except av.FFmpegError as error:
            raise ClipError(f"{self.name}: cannot be written ({error.strerror})") from error


def _heard(packet: av.Packet) -> list[Any]:
    try:
        return packet.decode()
    except av.error.InvalidDataError:
        return []
