"""Live cameras: small JPEG frames in, keypoints out; viewers take turns, their number and rate are limited.

A browser asks for a place (`join`), sends frame after frame (`track`) and goes (`leave`); one that falls
silent loses it. Frames are in memory only, and only until they are answered.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import io
import math
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from PIL import JpegImagePlugin

from fkp import images, report
from fkp.tracking import Tracker

if TYPE_CHECKING:
    from fkp.pipeline import FaceKeypoints

MAX_VIEWERS = 8
"""Places."""
MAX_FACES = 8
"""Faces followed for one viewer: those that are there already, then the largest."""
MAX_BYTES = 300_000
"""Size of a frame; 640×480 pixels at the quality that the page asks for take 20 to 60 kB."""
MAX_REQUEST = 500_000
"""Size of a request with a frame in it: in base64 it takes a third more."""
MAX_PIXELS = 1280 * 720
"""Pixels of a frame, as its header says, before it is decoded."""
MIN_SIDE = 16
"""Pixels, the same."""
MAX_RATE = 30
"""Frames a second that are processed for one viewer."""
BURST = 8
"""Frames that may come at once, as after a moment without connection."""
IDLE_SECONDS = 5.0
"""After so long without a frame a viewer loses its place."""
AT_ONCE = 4
"""Frames, of as many viewers, that are processed at the same time: their faces share runs of the network."""
AHEAD = 2.0
"""Seconds that the clock of a browser may gain on ours from one frame to the next that is processed."""

Answer = dict[str, Any]


class FrameError(ValueError):
    """What was sent is no frame: one sentence that says why, and shows nothing of the server."""


@dataclass(eq=False)
class _Frame:
    """A frame that waits for its turn, and the answer that its sender waits for."""

    jpeg: bytes
    time: float
    answer: asyncio.Future[Answer]
    came: float


@dataclass(eq=False)
class _Viewer:
    """All times are ours but `sent`, which is the browser's."""

    tracker: Tracker
    seen: float
    """When it joined, or a frame of it was last processed: what is none keeps no place."""
    counted: float
    address: str = ""
    left: float = BURST
    """Frames that it might have sent at once at the time `counted`."""
    sent: float = -math.inf
    taken: float = -math.inf
    """When the last frame was taken by the camera, and when it was taken on here."""
    working: _Frame | None = None
    waiting: _Frame | None = None


class Viewers:
    """The cameras that are followed now, each with a tracker of its own; the model is shared.

    Of each viewer one frame is worked on and one waits, the newest; so in a full house all get their turn one
    after the other, however fast each sends. To be used within one event loop; only the looking itself
    happens in threads. Answers are dictionaries, ready for JSON.
    """

    def __init__(
        self, model: FaceKeypoints, max_viewers: int = MAX_VIEWERS, *, idle_seconds: float = IDLE_SECONDS
    ) -> None:
        self.model, self.max_viewers, self.idle_seconds = model, max_viewers, idle_seconds
        self._viewers: dict[str, _Viewer] = {}
        self._pool = ThreadPoolExecutor(AT_ONCE, "live")

    def __len__(self) -> int:
        """Places that are taken."""
        return len(self._viewers)

    async def join(self, address: str = "") -> Answer:
        """A place, {"viewer": a name that nobody can guess}, or {"refused": why} while all are taken.

        An `address`, if it is known, may have half of them at most.
        """
        if len(self._viewers) >= self.max_viewers:
            places = "The only place is" if self.max_viewers == 1 else f"All {self.max_viewers} places are"
            return {"refused": f"{places} taken at the moment."}
        most = (self.max_viewers + 1) // 2
        if address and sum(viewer.address == address for viewer in self._viewers.values()) >= most:
            return {"refused": f"More than {most} of the places cannot be had from one network."}
        name, now = secrets.token_urlsafe(18), time.monotonic()
        self._viewers[name] = _Viewer(Tracker(self.model, max_faces=MAX_FACES), now, now, address)
        self._remove_later(name, self.idle_seconds)
        return {"viewer": name}

    async def leave(self, sent: Any) -> Answer:
        """Give back the place of {"viewer"}; whoever has none is answered the same, {}."""
        name = sent.get("viewer") if isinstance(sent, dict) else None
        if isinstance(name, str):
            self._remove(name)
        return {}

    async def track(self, sent: Any) -> Answer:
        """The faces of a frame: {"viewer", "time": its seconds, "jpeg": a JPEG picture in base64}; perhaps
        with "least", the confidence 0..1 that a new face needs, and "most", how many are followed.

        The answer is that of `report.record`, {"image", "width", "height", "faces"}, in pixels of the frame
        as it was sent; every face has its number as "id" besides, and there are "time", that of the frame,
        and "ms", how long it was here. Or it is one of
        - {"gone": True}: there is no such viewer, any more, or its clock has jumped ahead: it can join anew;
        - {"skipped": why}: it is not processed: a newer one came, or too many, or its time does not go on;
        - {"refused": why}: it is no frame.
        """
        viewer = self._viewers.get(sent["viewer"]) if _has_name(sent) else None
        if viewer is None:
            return {"gone": True}
        now = time.monotonic()
        viewer.left = min(BURST, viewer.left + MAX_RATE * (now - viewer.counted))
        viewer.counted = now
        if viewer.left < 1:
            return {"skipped": f"No more than {MAX_RATE} frames a second are processed."}
        viewer.left -= 1
        try:
            jpeg, seconds = _jpeg(sent.get("jpeg")), _seconds(sent.get("time"))
            wanted = _number(sent.get("least"), 0, 1), _number(sent.get("most"), 1, MAX_FACES)
        except FrameError as error:
            return {"refused": str(error)}
        if not seconds > viewer.sent:
            return {"skipped": "The time of this frame does not go on from the one before."}
        if seconds - viewer.sent > now - viewer.taken + AHEAD:
            self._remove(sent["viewer"])  # else all that comes at the right time would be too late
            return {"gone": True}
        viewer.sent, viewer.taken = seconds, now
        viewer.tracker.min_score = wanted[0]
        viewer.tracker.max_faces = MAX_FACES if wanted[1] is None else int(wanted[1])
        frame = _Frame(jpeg, seconds, asyncio.get_running_loop().create_future(), now)
        if viewer.waiting:
            _tell(viewer.waiting, {"skipped": "A newer frame has come."})
            viewer.left += 1
        viewer.waiting = frame
        self._go_on(viewer)
        return await frame.answer

    def _go_on(self, viewer: _Viewer) -> None:
        """Work on the frame that waits, unless another is worked on; nothing of one that was removed."""
        if viewer.working is None and viewer.waiting:
            viewer.working, viewer.waiting = viewer.waiting, None
            loop = asyncio.get_running_loop()
            # First come, first served, and each has one frame there at most: that is what makes it fair.
            loop.run_in_executor(self._pool, _track, viewer.tracker, viewer.working).add_done_callback(
                lambda done: self._done(viewer, done)
            )

    def _done(self, viewer: _Viewer, done: asyncio.Future[Answer]) -> None:
        frame, viewer.working = viewer.working, None
        assert frame is not None
        if not done.cancelled() and not done.exception() and "faces" in done.result():
            viewer.seen = time.monotonic()
        if done.cancelled():
            frame.answer.cancel()
        elif error := done.exception():
            if not frame.answer.done():
                frame.answer.set_exception(error)
        else:
            _tell(frame, done.result())
        self._go_on(viewer)

    def _remove_later(self, name: str, seconds: float) -> None:
        asyncio.get_running_loop().call_later(seconds, self._remove_idle, name)

    def _remove_idle(self, name: str) -> None:
        viewer = self._viewers.get(name)
        if viewer is None:
            return
        left = viewer.seen + self.idle_seconds - time.monotonic()
        if left > 0 or viewer.working:
            self._remove_later(name, max(left, 0.1))
        else:
            self._remove(name)

    def _remove(self, name: str) -> None:
        viewer = self._viewers.pop(name, None)
        if viewer and viewer.waiting:
            _tell(viewer.waiting, {"gone": True})
            viewer.waiting = None


def _track(tracker: Tracker, frame: _Frame) -> Answer:
    """What a frame shows; happens in a thread, but for one tracker in one at a time."""
    try:
        image = decode(frame.jpeg)
    except FrameError as error:
        return {"refused": str(error)}
    faces = tracker(image, frame.time)
    answer = report.record("camera", image.shape, faces)
    for face, number in zip(answer["faces"], faces.ids.tolist(), strict=True):
        face["id"] = face["number"] = number
    return answer | {"time": frame.time}


def decode(jpeg: bytes) -> Any:
    """A frame's pixels (H,W,3) uint8 RGB. Raises FrameError for what is no small JPEG picture."""
    try:
        # Not Image.open, which has a limit of its own; this reads the header only.
        with JpegImagePlugin.JpegImageFile(io.BytesIO(jpeg)) as picture:
            width, height = picture.size
            if width * height > MAX_PIXELS or min(width, height) < MIN_SIDE:
                limits = f"from {MIN_SIDE} pixels a side to {MAX_PIXELS} in all"
                raise FrameError(f"A frame of {width}×{height} pixels was sent, where {limits} are allowed.")
            if "progressive" in picture.info:  # no camera sends it, and few bytes can keep a decoder busy
                raise FrameError("A progressive JPEG picture was sent, where a plain one is needed.")
            if b"\xff\xd9" not in jpeg[-64:]:  # a file that breaks off is read elsewhere; a frame comes again
                raise FrameError("The frame that was sent is damaged or incomplete.")
        return images.decode(jpeg, "the frame", max_pixels=MAX_PIXELS).image
    except images.ImageError:
        raise FrameError("The frame that was sent is damaged or incomplete.") from None
    except FrameError:
        raise
    except Exception:  # Pillow raises nearly anything on damaged data
        raise FrameError("What was sent is no JPEG picture.") from None


def _has_name(sent: Any) -> bool:
    return isinstance(sent, dict) and isinstance(sent.get("viewer"), str)


def _jpeg(text: Any) -> bytes:
    if not isinstance(text, str):
        raise FrameError("A frame is needed: a JPEG picture in base64.")
    if len(text) > 4 * math.ceil(MAX_BYTES / 3):
        raise FrameError(f"The frame that was sent has more than {MAX_BYTES // 1000} kB.")
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise FrameError("The frame that was sent is not in base64.") from None


def _number(value: Any, least: float, most: float) -> float | None:
    """A number that may be left out."""
    if value is None:
        return None
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not least <= value <= most:
        raise FrameError(f"A number from {least:g} to {most:g} is needed.")
    return float(value)


def _seconds(value: Any) -> float:
    """When a frame was taken, by the clock of its browser."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not abs(value) < 1e12:  # so that a millisecond counts; false for NaN, too
        raise FrameError("The time of a frame is needed, in seconds.")
    return float(value)


def _tell(frame: _Frame, answer: Answer) -> None:
    if not frame.answer.done():  # else whoever asked is gone
        if "faces" in answer:
            answer["ms"] = round(1e3 * (time.monotonic() - frame.came), 1)
        frame.answer.set_result(answer)
