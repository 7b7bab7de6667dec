"""Live cameras: places, turns, bounds and refusals; tests/browser has the page's side."""

from __future__ import annotations

import asyncio
import base64
import gc
import io
import math
import os
import random
import sys
import threading
import time
import weakref
from types import SimpleNamespace

import cv2
import httpx
import numpy as np
import pytest
from gradio.routes import App
from PIL import Image

import app
from fkp import FaceKeypoints
from fkp.demo import live, request_guard
from fkp.demo.live import Viewers
from tests.stand_in import FacesInColour

GREY = Image.new("RGB", (160, 120), (90, 120, 60))
PATIENCE = 20


class Model(FacesInColour):
    """Counts how often the detector looks; waits in front of `gate` before it answers, and a while then."""

    def __init__(self, *boxes, takes: float = 0.0) -> None:
        super().__init__(*boxes)
        self.gate, self.takes, self.detections, self.at_once = threading.Event(), takes, 0, 0
        self.gate.set()

    def detect(self, image, *, min_score=None):
        self.detections += 1
        return (self.boxes, np.full(len(self.boxes), 0.9)) if image.any() else (self.boxes[:0], np.empty(0))

    def keypoints_at(self, image, boxes):
        assert self.gate.wait(PATIENCE)
        time.sleep(self.takes)
        return super().keypoints_at(image, boxes)


@pytest.fixture
def model() -> Model:
    return Model()


def jpeg(image: Image.Image = GREY, **options) -> str:
    stream = io.BytesIO()
    image.save(stream, "jpeg", **options)
    return base64.b64encode(stream.getvalue()).decode()


class Sender:
    """A browser that has a place, and whose clock moves on by a tenth of a second a frame."""

    def __init__(self, viewers: Viewers, name: str) -> None:
        self.viewers, self.name, self.time = viewers, name, 100.0

    @classmethod
    async def join(cls, viewers: Viewers) -> Sender:
        return cls(viewers, (await viewers.join())["viewer"])

    async def send(self, **other) -> dict:
        self.time += 0.1
        sent = {"viewer": self.name, "time": self.time, "jpeg": jpeg()}
        return await self.viewers.track(sent | other)

    async def is_answered(self) -> bool:
        """Whether an ordinary frame is looked at, once it may come."""
        while "frames a second" in (answer := await self.send()).get("skipped", ""):
            await asyncio.sleep(1 / live.MAX_RATE)
        return "faces" in answer


def run(story, *viewers) -> None:
    asyncio.run(asyncio.wait_for(story(*viewers), 3 * PATIENCE))


async def until(condition) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        await asyncio.sleep(0.01)


# --- Places ---------------------------------------------------------------------------------------------


def test_places_are_given_taken_and_given_back(model):
    async def story(viewers):
        first, second = await viewers.join(), await viewers.join()
        assert len(viewers) == 2 and first["viewer"] != second["viewer"]
        assert min(len(first["viewer"]), len(second["viewer"])) >= 24  # 144 random bits
        assert await viewers.join() == {"refused": "All 2 places are taken at the moment."}
        assert await viewers.leave(first) == {} and len(viewers) == 1
        assert "viewer" in await viewers.join()

    run(story, Viewers(model, 2))


def test_the_only_place_is_told_in_the_singular(model):
    async def story(viewers):
        await viewers.join()
        assert await viewers.join() == {"refused": "The only place is taken at the moment."}

    run(story, Viewers(model, 1))


@pytest.mark.parametrize(
    "sent", [None, [], "x", {}, {"viewer": None}, {"viewer": ["a"]}, {"viewer": "guessed"}]
)
def test_frames_without_a_place_disturb_nobody(model, sent):
    async def story(viewers):
        sender = await Sender.join(viewers)
        assert await viewers.leave(sent) == {} and len(viewers) == 1
        given = sent | {"time": 1, "jpeg": jpeg()} if isinstance(sent, dict) else sent
        assert await viewers.track(given) == {"gone": True}
        assert await sender.is_answered()

    run(story, Viewers(model))


def test_viewer_who_falls_silent_is_removed_with_all_there_was(model):
    async def story(viewers):
        sender = await Sender.join(viewers)
        assert await sender.is_answered()
        (viewer,) = viewers._viewers.values()
        tracker = weakref.ref(viewer.tracker)
        del viewer
        await until(lambda: len(viewers) == 0)
        gc.collect()
        assert tracker() is None
        assert await sender.send() == {"gone": True}

    run(story, Viewers(model, idle_seconds=0.3))


def test_viewer_who_goes_on_sending_is_kept(model):
    async def story(viewers):
        sender = await Sender.join(viewers)
        end = time.monotonic() + 1.2
        while time.monotonic() < end:
            assert "faces" in await sender.send()
            await asyncio.sleep(0.05)
        assert len(viewers) == 1

    run(story, Viewers(model, idle_seconds=0.6))


def test_viewer_whose_frame_is_worked_on_is_kept_and_can_leave(model):
    async def story(viewers):
        model.gate.clear()
        sender = await Sender.join(viewers)
        working = asyncio.create_task(sender.send())
        waiting = asyncio.create_task(sender.send())
        await asyncio.sleep(0.3)
        assert len(viewers) == 1
        await viewers.leave({"viewer": sender.name})
        assert len(viewers) == 0 and await waiting == {"gone": True}
        model.gate.set()
        assert "faces" in await working

    run(story, Viewers(model, idle_seconds=0.05))


def test_a_request_that_is_broken_off_leaves_the_place_usable(model):
    async def story(viewers):
        model.gate.clear()
        sender = await Sender.join(viewers)
        tasks = [asyncio.create_task(sender.send()) for _ in range(2)]
        await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        model.gate.set()
        await until(lambda: all(not v.working and not v.waiting for v in viewers._viewers.values()))
        assert await sender.is_answered()

    run(story, Viewers(model))


# --- Answers --------------------------------------------------------------------------------------------


def test_faces_come_as_numbers_in_pixels_of_the_frame_and_keep_their_number(model):
    async def story(viewers):
        sender = await Sender.join(viewers)
        answers = [await sender.send() for _ in range(6)]
        for answer in answers:
            assert (answer["width"], answer["height"]) == (160, 120) and 0 <= answer["ms"] < 1e4
            (face,) = answer["faces"]
            assert face["number"] == face["id"] and {"box", "keypoint_scores", "pose", "guess"} < face.keys()
            assert np.shape(face["keypoints"]) == (68, 2) and len(face["keypoint_scores"]) == 68
            assert np.allclose(face["box"], [40, 30, 120, 110], atol=0.01) and face["id"] == 1
        assert answers[-1]["time"] == sender.time
        assert model.detections == 1, "the last keypoints give the next box"

    run(story, Viewers(model))


def test_frame_without_a_face_is_answered(model):
    async def story(viewers):
        sender = await Sender.join(viewers)
        assert (await sender.send(jpeg=jpeg(Image.new("RGB", (64, 48)))))["faces"] == []

    run(story, Viewers(model))


def test_faces_are_bounded(model):
    many = Model(*((10 + 70 * x, 10 + 70 * y, 60 + 70 * x, 60 + 70 * y) for x in range(5) for y in range(4)))

    async def story(viewers):
        sender = await Sender.join(viewers)
        answer = await sender.send(jpeg=jpeg(GREY.resize((400, 300))))
        assert len(answer["faces"]) == live.MAX_FACES

    run(story, Viewers(many))


def test_the_points_are_where_the_camera_saw_them(root):
    """With the weights that users have. Nothing is mirrored: the subject's right eye is on the left."""
    model = FaceKeypoints.from_pretrained()
    portrait = Image.open(root / "examples" / "eileen_collins.jpg").crop((0, 0, 512, 480))
    frame = Image.new("RGB", (640, 480), (90, 90, 90))
    frame.paste(portrait, (100, 0))

    async def story(viewers):
        sender = await Sender.join(viewers)
        answer = await sender.send(jpeg=jpeg(frame, quality=70))
        keypoints = np.array(answer["faces"][0]["keypoints"])
        for members, middle in ((range(36, 42), (203, 101)), (range(42, 48), (246, 103))):
            distance = np.linalg.norm(keypoints[list(members)].mean(axis=0) - (middle[0] + 100, middle[1]))
            assert distance < 6

    run(story, Viewers(model))


# --- Turns ----------------------------------------------------------------------------------------------


def test_the_newest_frame_is_the_next_one(model):
    async def story(viewers):
        model.gate.clear()
        sender = await Sender.join(viewers)
        sent = []
        for _ in range(4):
            sent.append(asyncio.create_task(sender.send()))
            await asyncio.sleep(0)
        await until(lambda: sum(task.done() for task in sent) == 2)
        model.gate.set()
        first, second, third, fourth = await asyncio.gather(*sent)
        assert second == third == {"skipped": "A newer frame has come."}
        assert "faces" in first and "faces" in fourth and first["time"] < fourth["time"]

    run(story, Viewers(model))


def test_viewers_all_get_their_turn_however_much_one_sends():
    model = Model(takes=0.004)

    async def story(viewers):
        counts: dict[str, int] = {}

        async def watch(sender: Sender, under_way: int) -> None:
            async def one_after_the_other():
                while sum(counts.values()) < 100:
                    answer = await sender.send(time=time.monotonic())
                    counts[sender.name] = counts.get(sender.name, 0) + ("faces" in answer)
                    await asyncio.sleep(0.002)

            await asyncio.gather(*(one_after_the_other() for _ in range(under_way)))

        senders = [await Sender.join(viewers) for _ in range(4)]
        await asyncio.gather(*(watch(s, n) for s, n in zip(senders, (8, 2, 1, 1), strict=True)))
        shares = sorted(counts[sender.name] for sender in senders)
        assert len(shares) == 4 and shares[0] >= 15 and shares[-1] <= 40, shares  # 25 would be a fair share

    run(story, Viewers(model))


def test_a_tracker_is_used_by_one_thread_at_a_time():
    class Careful(Model):
        def keypoints_at(self, image, boxes):
            self.at_once += 1
            assert self.at_once == 1
            time.sleep(0.005)
            self.at_once -= 1
            return super().keypoints_at(image, boxes)

    async def story(viewers):
        sender = await Sender.join(viewers)
        for _ in range(10):
            answers = await asyncio.gather(*(sender.send() for _ in range(3)))
            assert all(answer.keys() & {"faces", "skipped"} for answer in answers)

    run(story, Viewers(Careful()))


def test_frames_beyond_the_rate_are_skipped(model, monkeypatch):
    """By the server's clock, which stands still here and then moves on by one frame."""
    now = 1000.0
    monkeypatch.setattr(live, "time", SimpleNamespace(monotonic=lambda: now))

    async def story(viewers):
        nonlocal now
        sender = await Sender.join(viewers)
        answers = [await sender.send() for _ in range(live.BURST + 5)]
        assert ["faces" in answer for answer in answers] == [True] * live.BURST + [False] * 5
        assert "No more than 30 frames a second" in answers[-1]["skipped"]
        now += 1.01 / live.MAX_RATE
        assert "faces" in await sender.send() and "skipped" in await sender.send()

    run(story, Viewers(model))


# --- What cannot be looked at ---------------------------------------------------------------------------


def with_size(text: str, width: int, height: int) -> str:
    """A JPEG picture whose header tells another size."""
    data = bytearray(base64.b64decode(text))
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return base64.b64encode(data).decode()


def as_png() -> str:
    stream = io.BytesIO()
    GREY.save(stream, "png")
    return base64.b64encode(stream.getvalue()).decode()


NOISE = Image.frombytes("RGB", (512, 512), random.Random(0).randbytes(3 * 512 * 512))

BAD_FRAMES = {
    "nothing": (None, "A frame is needed"),
    "a number": (7, "A frame is needed"),
    "a list": ([jpeg()], "A frame is needed"),
    "empty": ("", "no JPEG"),
    "no base64": ("§$%&", "not in base64"),
    "a data URL": ("data:image/jpeg;base64," + jpeg(), "not in base64"),
    "text": (base64.b64encode(b"milk, bread").decode(), "no JPEG"),
    "a PNG": (as_png(), "no JPEG"),
    "the first half": (jpeg(NOISE)[: len(jpeg(NOISE)) // 8 * 4], "damaged or incomplete"),
    "only a header": (base64.b64encode(base64.b64decode(jpeg())[:200]).decode(), ""),
    "progressive": (jpeg(progressive=True), "progressive"),
    "too large a file": (jpeg(NOISE.resize((1000, 900)), quality=98), "more than 300 kB"),
    "too many pixels": (jpeg(Image.new("RGB", (1281, 720))), "1281×720"),
    "a header of 4 gigapixels": (with_size(jpeg(), 65500, 65500), "65500×65500"),
    "too narrow": (jpeg(Image.new("RGB", (15, 480))), "15×480"),
}


@pytest.mark.parametrize("what", BAD_FRAMES)
def test_frame_that_is_none_is_refused_in_a_sentence(model, what):
    sent, reason = BAD_FRAMES[what]

    async def story(viewers):
        sender = await Sender.join(viewers)
        assert await sender.is_answered()
        answer = await sender.send(jpeg=sent)
        assert answer.keys() == {"refused"} and reason in answer["refused"] and answer["refused"][-1] == "."
        assert not any(sign in answer["refused"] for sign in ("/", "\\", "Error", "0x"))
        assert await sender.is_answered()

    run(story, Viewers(model))


@pytest.mark.parametrize(
    "when", [None, "1", True, [1], {}, math.nan, math.inf, -math.inf, 1e300, 10**400, -(10**400)], ids=repr
)
def test_a_time_that_is_none_is_refused(model, when):
    async def story(viewers):
        sender = await Sender.join(viewers)
        assert await sender.is_answered()
        refused = {"refused": "The time of a frame is needed, in seconds."}
        assert await sender.send(time=when) == refused
        assert await sender.is_answered()

    run(story, Viewers(model))


def test_a_browser_whose_clock_jumps_ahead_has_to_enter_anew(model):
    async def story(viewers):
        sender, other = await Sender.join(viewers), await Sender.join(viewers)
        assert await sender.is_answered()
        for step in (3600, 1e9):
            assert await sender.send(time=sender.time + step) == {"gone": True}
            assert len(viewers) == 1 and await other.is_answered()
            sender = await Sender.join(viewers)
            assert await sender.is_answered()

    run(story, Viewers(model))


@pytest.mark.parametrize("step", [0, -0.05, -1000, -1e9])
def test_a_frame_whose_time_does_not_go_on_is_skipped(model, step):
    async def story(viewers):
        sender = await Sender.join(viewers)
        assert await sender.is_answered()
        assert "skipped" in await sender.send(time=sender.time + step)
        sender.time += 0.2
        assert await sender.is_answered()

    run(story, Viewers(model))


def test_grey_and_turned_frames_are_frames(model):
    async def story(viewers):
        sender = await Sender.join(viewers)
        turned = Image.Exif()
        turned[0x0112] = 6
        assert (await sender.send(jpeg=jpeg(GREY.convert("L"))))["width"] == 160
        assert (await sender.send(jpeg=jpeg(GREY, exif=turned)))["width"] == 120  # as the camera held it

    run(story, Viewers(model))


def test_an_error_of_the_model_does_not_end_anything(model):
    class Broken(Model):
        broken = True

        def keypoints_at(self, image, boxes):
            if self.broken:
                raise RuntimeError("/home/somebody/secret")
            return super().keypoints_at(image, boxes)

    broken = Broken()

    async def story(viewers):
        sender, other = await Sender.join(viewers), await Sender.join(viewers)
        for _ in range(2):
            with pytest.raises(RuntimeError):
                await sender.send()
        broken.broken = False
        assert await sender.is_answered() and await other.is_answered()

    run(story, Viewers(broken))


# --- Through the page -----------------------------------------------------------------------------------


opened: list[str] | None = None


def note_files(event: str, arguments: tuple) -> None:
    """An audit hook: the names of files that are opened for writing, while somebody asks."""
    if opened is not None and event == "open":
        name, mode, flags = arguments
        if (isinstance(mode, str) and set(mode) & set("wax+")) or (flags or 0) & (os.O_WRONLY | os.O_RDWR):
            opened.append(str(name))


sys.addaudithook(note_files)


def through_the_page(model, story, **options) -> None:
    """Calls the page's functions as its script does; `story` gets call(function, data) and the page."""

    async def tell() -> None:
        page = app.build(model, **options)
        server = App.create_app(page)
        guard = request_guard.RequestGuard(
            server, request_guard.Rules(set(), 10**7, small_bytes=live.MAX_REQUEST)
        )
        (camera,) = [block for block in page.blocks.values() if block.elem_id == "camera"]
        transport = httpx.ASGITransport(guard, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:

            async def call(function: str, data, **more) -> httpx.Response:
                body = {"data": data, "component_id": camera._id, "fn_name": function, "session_hash": "s"}
                address = "/gradio_api/component_server/"
                return await client.post(address, **(more or {"json": body}))

            await story(call, page)

    asyncio.run(asyncio.wait_for(tell(), 3 * PATIENCE))


def test_frames_go_through_the_page_and_no_file_is_written(model, tmp_path, monkeypatch):
    global opened
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))

    async def story(call, page):
        global opened
        viewer = (await call("join", [])).json()["viewer"]
        opened = []
        for i in range(1, 6):
            answer = await call("track", {"viewer": viewer, "time": i / 10, "jpeg": jpeg(NOISE)})
            assert answer.status_code == 200 and len(answer.json()["faces"]) == 1
        written, opened = opened, None
        assert written == [] and list(tmp_path.iterdir()) == []
        (tmp_path / "seen").write_text("")
        assert (await call("leave", {"viewer": viewer})).json() == {}
        assert (await call("track", {"viewer": viewer, "time": 9, "jpeg": jpeg()})).json() == {"gone": True}

    through_the_page(model, story)
    opened = []
    (tmp_path / "again").write_text("")  # the hook sees what is written
    seen, opened = opened, None
    assert seen == [str(tmp_path / "again")]


def test_the_page_keeps_to_its_number_of_places(model):
    async def story(call, page):
        assert "viewer" in (await call("join", [])).json()
        assert (await call("join", [])).json() == {"refused": "The only place is taken at the moment."}

    through_the_page(model, story, limits=app.Settings(max_viewers=1))


def test_errors_tell_nothing_of_the_server():
    class Broken(Model):
        def keypoints_at(self, image, boxes):
            raise RuntimeError("/home/somebody/secret")

    async def story(call, page):
        viewer = (await call("join", [])).json()["viewer"]
        answer = await call("track", {"viewer": viewer, "time": 1, "jpeg": jpeg()})
        assert answer.status_code == 500 and "secret" not in answer.text and "Traceback" not in answer.text

    through_the_page(Broken(), story)


def test_frame_that_is_too_large_is_refused_before_it_is_read(model):
    async def story(call, page):
        assert (await call("track", {"jpeg": "x" * live.MAX_REQUEST})).status_code == 413
        assert (await call("track", None, files={"jpeg": b"x"})).status_code == 413  # would go to disk
        assert (await call("track", {"viewer": "x"})).json() == {"gone": True}

    through_the_page(model, story)


def test_place_is_kept_only_by_frames_that_were_tracked(model):
    """Eight cameras that sent nothing once held all places."""

    async def story(viewers):
        idle, kept = await viewers.join(), await viewers.join()
        for i in range(1, 9):
            for sent in ("", "x", None, base64.b64encode(b"no picture").decode()):
                answer = await viewers.track({"viewer": idle["viewer"], "time": i / 10, "jpeg": sent})
                assert "faces" not in answer
            await viewers.track({"viewer": kept["viewer"], "time": i / 10, "jpeg": jpeg()})
            await asyncio.sleep(0.1)
        assert len(viewers) == 1
        assert await viewers.track({"viewer": idle["viewer"], "time": 9, "jpeg": jpeg()}) == {"gone": True}

    run(story, Viewers(model, 2, idle_seconds=0.4))


def test_address_has_half_of_the_places_at_most(model):
    async def story(viewers):
        assert all(["viewer" in await viewers.join("192.0.2.1") for _ in range(2)])
        assert "refused" in await viewers.join("192.0.2.1")
        assert "viewer" in await viewers.join("192.0.2.2") and "viewer" in await viewers.join()

    run(story, Viewers(model, 4))


def test_the_frames_of_the_film_are_small_enough(root):
    """A detailed frame of 640×480 at the quality that the page sends fits well."""
    portrait = cv2.imread(str(root / "examples" / "four_faces.jpg"))
    _, data = cv2.imencode(".jpg", cv2.resize(portrait, (640, 480)), [cv2.IMWRITE_JPEG_QUALITY, 70])
    assert len(data) < live.MAX_BYTES / 3 and live.MAX_BYTES * 4 / 3 + 1000 < live.MAX_REQUEST
