"""The page's own code, without a browser (tests/browser has one), with a stand-in for the model."""

from __future__ import annotations

import asyncio
import base64
import html
import inspect
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from types import SimpleNamespace

import cv2
import gradio as gr
import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

import app
from fkp import hub, images, report
from fkp.demo import about, batching, clip_jobs, data_retention, latest_action, options, photo_tab, video_tab
from fkp.demo import page as page_module
from fkp.demo.clip_jobs import ClipSession
from fkp.demo.latest_action import LatestAction
from fkp.demo.photos import Album
from fkp.demo.settings import Settings
from fkp.demo.site import Site
from tests.filmed import film
from tests.stand_in import TWO_FACES, FacesInColour

REQUEST = SimpleNamespace(client=None, session_hash="a visitor", headers={})
"""What is asked of a `gradio.Request`."""

SITE = Site(FacesInColour(), Settings(), Path("uploads"), Path(__file__).parents[1])

LOOKS = (["points", "contours"], 1)
WANTED = (50, 100)
"""Least confidence in percent, as the sliders say at first, and most faces."""


def built(model, limits: Settings | None = None) -> gr.Blocks:
    async def build():
        return app.build(model, limits)

    # In a running event loop: without one Gradio makes its own and never closes them.
    return asyncio.run(build())


@pytest.fixture(scope="module")
def shared(tmp_path_factory) -> Iterator[SimpleNamespace]:
    """A page, which takes long to build, its model, and its folder of uploads."""
    folder, model = tmp_path_factory.mktemp("page") / "uploads", FacesInColour(*TWO_FACES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        page = built(model, Settings(max_file_size=1_000_000))
        yield SimpleNamespace(page=page, model=model, folder=folder)


@pytest.fixture
def uploads(shared) -> Path:
    """Where an upload lies within the folder of uploads, with a picture and nothing else."""
    shutil.rmtree(shared.folder, ignore_errors=True)
    folder = shared.folder / ("a" * 64)  # a digest, as Gradio has it
    folder.mkdir(parents=True)
    Image.new("RGB", (160, 120), (200, 90, 40)).save(folder / "holiday.jpg")
    return folder


@pytest.fixture
def model(shared) -> FacesInColour:
    """As if nobody had used it."""
    shared.model.__dict__ = FacesInColour(*TWO_FACES).__dict__
    return shared.model


@pytest.fixture
def page(shared, uploads, model):
    return shared.page


class Visitor:
    """Calls the page's functions as a browser makes Gradio call them; `shown` is what it would show."""

    def __init__(self, page: gr.Blocks) -> None:
        self.page = page
        self.functions = {event.name: event.fn for event in page.fns.values() if event.fn}
        self.kept, self.shown, self.clock = LatestAction(Album()), {}, 0

    @property
    def album(self) -> Album:
        return self.kept.value

    @property
    def now(self) -> int:
        """By the browser's clock."""
        self.clock += 1
        return self.clock

    def __call__(self, name: str, *given, **event) -> Visitor:
        for result in self.steps(name, *given, **event):
            self.see(result)
        return self

    def steps(self, name: str, *given, **event) -> Iterator[dict]:
        """What is shown step by step. Gradio repeats the last one, which must be nothing."""
        extra = [gr.EventData(None, event)] if event else []
        if "request" in inspect.signature(self.functions[name]).parameters:
            extra.append(REQUEST)
        result = None
        for result in self.functions[name](self.kept, *given, *extra):
            yield result
        assert [type(component) for component in result] == [gr.State]

    def see(self, result: dict) -> None:
        for component, value in result.items():
            if isinstance(component, gr.State):
                assert value is self.kept
            else:
                self._show(component, value)

    def _show(self, component, value) -> None:
        name = component.elem_id or component.value
        if isinstance(value, gr.HTML):
            value = {key: each for key, each in value.constructor_args.items() if key != "elem_id"}
        kept = self.shown.get(name)
        self.shown[name] = kept | value if isinstance(kept, dict) and isinstance(value, dict) else value

    def given(self, *paths: Path, left_out: int = 0) -> dict:
        return {"paths": [str(path) for path in paths], "left_out": left_out, "moment": self.now}

    def find(self, *paths: Path, left_out: int = 0) -> Visitor:
        return self("find", self.given(*paths, left_out=left_out), *LOOKS, *WANTED)

    def clear(self) -> Visitor:
        return self("start_again", *LOOKS, self.now)


@pytest.fixture
def visitor(page) -> Visitor:
    return Visitor(page)


# --- Photos ---------------------------------------------------------------------------------------------


def test_faces_are_shown_and_can_be_saved(visitor, uploads):
    shown = visitor.find(uploads / "holiday.jpg").shown
    assert "Found 2 faces" in shown["answer"] and "Face 1 of 2" in shown["face"]
    assert shown["result"]["hidden"] == "" and shown["result"]["overlay"].startswith("data:image/png")
    for button in ("Save picture", "Save as JPEG", "Save JSON", "Save CSV", "Clear"):
        assert shown[button]["interactive"] is True
    assert shown["Save all pictures"]["visible"] is False and shown["photos"] == ""


def test_detection_writes_no_file(visitor, uploads):
    visitor.find(uploads / "holiday.jpg")
    before = sorted(uploads.parent.rglob("*"))
    visitor("choose", *LOOKS, index=1)("draw_again", ["mesh"], 2)
    assert sorted(uploads.parent.rglob("*")) == before


def test_photo_without_a_face_is_told_and_has_nothing_to_save(visitor, uploads):
    Image.new("RGB", (40, 40)).save(uploads / "night.png")
    shown = visitor.find(uploads / "night.png").shown
    assert "No face found" in shown["answer"] and shown["face"] == ""
    assert shown["result"]["hidden"] == ""
    assert not shown["Save picture"]["interactive"] and not shown["Save JSON"]["interactive"]
    assert shown["Clear"]["interactive"] is True


def test_photo_that_is_no_picture_is_told(visitor, uploads):
    (uploads / "note.jpg").write_text("milk, bread")
    shown = visitor.find(uploads / "note.jpg").shown
    assert "<b>note.jpg</b> is no picture" in shown["answer"] and shown["result"]["hidden"] == "hidden"
    assert str(uploads) not in str(shown)


def test_photo_that_is_too_large_is_told(visitor, uploads):
    (uploads / "large.jpg").write_bytes(bytes(1_000_001))
    assert "<b>large.jpg</b> is larger than 1 MB." in visitor.find(uploads / "large.jpg").shown["answer"]


def test_photo_with_too_many_faces_is_told(uploads, model):
    visitor = Visitor(built(model, Settings(max_faces=1)))
    assert "More than 1 face</b>" in visitor.find(uploads / "holiday.jpg").shown["answer"]


def test_photos_come_one_after_the_other_and_can_be_gone_through(visitor, uploads):
    Image.new("RGB", (40, 40)).save(uploads / "night.png")
    paths = [uploads / "holiday.jpg", uploads / "night.png", uploads / "gone.jpg"]
    steps = list(visitor.steps("find", visitor.given(*paths, left_out=4), *LOOKS, *WANTED))
    steps = [step for step in steps if len(step) > 1 or not isinstance(next(iter(step)), gr.State)]
    # Each photo is shown as soon as it is done, and can be gone to in the end.
    told = ["Looking for faces …", "1 of 3 done …", "2 of 3 done …", "3 photos were taken"]
    assert [text in str(step) for step, text in zip(steps, told, strict=True)] == [True] * 4
    assert [str(step).count("disabled") for step in steps] == [0, 1, 2, 0] and "gone.jpg" in str(steps[-1])
    shown = visitor.find(*paths, left_out=4).shown
    assert "Found 2 faces" in shown["answer"] and "first 3 photos were taken, 4 were left" in shown["answer"]
    assert shown["photos"].count("<button") == 3 and shown["Save all pictures"]["visible"] is True
    shown = visitor("go_to", *LOOKS, index=2).shown
    assert "<b>gone.jpg</b> is no longer here" in shown["answer"] and shown["result"]["hidden"] == "hidden"
    assert not shown["Save picture"]["interactive"] and shown["Save JSON"]["interactive"]
    assert "Found 2 faces" in visitor("go_to", *LOOKS, index=0).shown["answer"]


def test_where_no_photo_was_read_there_is_nothing_to_save(page, visitor, uploads):
    paths = [uploads / f"{number}.jpg" for number in range(2)]
    for path in paths:
        path.write_bytes(b"milk, bread")
    shown = visitor.find(*paths).shown
    assert not shown["Save all pictures"]["visible"] and not shown["Save all as JPEG"]["visible"]
    assert not shown["Save JSON"]["interactive"] and not shown["Save picture"]["interactive"]
    with pytest.raises(gr.Error, match="could be read"):
        saves(page)["Save all pictures"](visitor.kept, *LOOKS)
    assert visitor.find(paths[0], uploads / "holiday.jpg").shown["Save all pictures"]["visible"]


def test_photos_beyond_the_limit_are_not_taken(visitor, uploads):
    paths = [uploads / f"{number}.png" for number in range(photo_tab.MAX_FILES + 5)]
    for path in paths:
        Image.new("RGB", (40, 40)).save(path)
    assert len(visitor.find(*paths).album.photos) == photo_tab.MAX_FILES


def test_view_options_draw_again_without_the_model(visitor, uploads, model):
    visitor.find(uploads / "holiday.jpg")
    overlays = {visitor.shown["result"]["overlay"]}
    for size, (_, option) in enumerate(options.SHOW[:-1], start=1):
        shown = visitor("draw_again", [option], size / 2).shown
        overlays.add(shown["result"]["overlay"])
        assert "Found 2 faces" in shown["answer"]
    overlays.add(visitor("draw_again", ["points"], 2).shown["result"]["overlay"])
    assert len(overlays) == 1 + len(options.SHOW) and model.calls == 1
    assert "confidence" in visitor("draw_again", ["points", "confidence"], 1).shown["legend"]


def test_a_face_is_chosen(visitor, uploads, model):
    visitor.find(uploads / "holiday.jpg")
    overlay = visitor.shown["result"]["overlay"]
    shown = visitor("choose", *LOOKS, index=1).shown
    assert "Face 2 of 2" in shown["face"] and shown["result"]["overlay"] == overlay and model.calls == 1
    assert shown["result"]["value"].index('aria-pressed="true"') > shown["result"]["value"].index("Face 1")
    assert "Face 2 of 2" in visitor("choose", *LOOKS, index=7).shown["face"]


def test_a_face_is_left_out_of_picture_and_numbers(page, visitor, uploads):
    shown = visitor.find(uploads / "holiday.jpg")("choose", *LOOKS, index=1).shown
    overlay = shown["result"]["overlay"]
    shown = visitor("remove", *LOOKS, index=0).shown
    assert "Found 1 face</b>" in shown["answer"] and shown["result"]["overlay"] != overlay
    assert shown["result"]["value"].count("data-face") == 1 and "The face" in shown["face"]
    record = json.loads(Path(saves(page)["Save JSON"](visitor.kept, *LOOKS)).read_text())[0]
    assert [face["number"] for face in record["faces"]] == [1]
    assert record["faces"][0]["box"] == list(map(float, TWO_FACES[1]))
    shown = visitor("remove", *LOOKS, index=0).shown
    assert "faces were left out" in shown["answer"] and shown["face"] == ""
    assert visitor("remove", *LOOKS, index=3).shown["face"] == "", "there is none"


def test_sliders_detect_again(visitor, uploads, model):
    visitor.find(uploads / "holiday.jpg")
    shown = visitor("find_again", *LOOKS, 50, 1, visitor.now).shown
    assert "More than 1 face</b>" in shown["answer"] and model.min_score is None
    visitor("find_again", *LOOKS, 80, 100, visitor.now)
    assert model.min_score == 0.8 and (uploads / "holiday.jpg").is_file()
    visitor.clear()("find_again", *LOOKS, 80, 100, visitor.now)
    assert "Choose a photo" in visitor.shown["answer"]


def test_sliders_that_are_moved_before_the_photos_are_done_lose_none(visitor, uploads, model, monkeypatch):
    """Neither those that were yet to be looked at, nor the example that is being looked at once more."""
    monkeypatch.setattr(latest_action, "PATIENCE", 0.01)  # steps wait here while others are taken
    paths = [uploads / f"{number}.jpg" for number in range(3)]
    for path in paths:
        shutil.copy(uploads / "holiday.jpg", path)
    finding = visitor.steps("find", visitor.given(*paths), *LOOKS, *WANTED)
    for _ in range(2):  # looking, the first is there
        visitor.see(next(finding))
    assert len(visitor.album.photos) == 1
    again = visitor.steps("find_again", *LOOKS, 80, 100, visitor.now)
    visitor("find_again", *LOOKS, 80, 1, visitor.now)
    for late in (finding, again):
        for result in late:
            visitor.see(result)
    assert [photo.path.name for photo in visitor.album.photos] == [path.name for path in paths]
    assert "More than 1 face</b>" in visitor.shown["answer"]

    visitor("try_example", *LOOKS, *WANTED, index=0, moment=visitor.now)
    again = visitor.steps("find_again", *LOOKS, 80, 100, visitor.now)
    visitor.see(next(again))
    visitor("find_again", *LOOKS, 80, 1, visitor.now)
    assert [photo.path for photo in visitor.album.photos] == [SITE.pictures[0]]


def test_sliders_keep_the_photo_that_is_looked_at(visitor, uploads, model):
    """It is looked at first; the order stays that of the files."""
    paths = [uploads / f"{number}.jpg" for number in range(4)]
    for path in paths:
        shutil.copy(uploads / "holiday.jpg", path)
    visitor.find(*paths)("go_to", *LOOKS, index=2)
    again = visitor.steps("find_again", *LOOKS, 80, 1, visitor.now)
    visitor.see(next(again))
    assert "More than 1 face</b> in 2.jpg" in visitor.shown["answer"]
    again.close()  # another value has its way
    for result in visitor.steps("find_again", *LOOKS, 80, 100, visitor.now):
        visitor.see(result)
        assert "Found 2 faces</b> in 2.jpg" in visitor.shown["answer"]
    assert [photo.path.name for photo in visitor.album.photos] == [path.name for path in paths]
    assert 'data-photo="2" aria-pressed="true"' in visitor.shown["photos"]


def test_a_slider_where_nothing_is_ends_nothing(visitor, uploads):
    """The photo was given before the slider was moved, but takes its time on the way."""
    given = visitor.given(uploads / "holiday.jpg")
    visitor("find_again", *LOOKS, 80, 100, visitor.now)
    assert "Found 2 faces" in visitor("find", given, *LOOKS, 80, 100).shown["answer"]


def test_guesses_are_called_so(visitor, uploads, model):
    model.keypoint_scores = np.full((2, 68), 0.9)
    model.keypoint_scores[1] = 0.2
    shown = visitor.find(uploads / "holiday.jpg").shown
    assert "Found 2 faces</b>" in shown["answer"] and "its points are guesses" in shown["answer"]
    assert "guesses" not in shown["face"]
    assert "points are guesses" in visitor("choose", *LOOKS, index=1).shown["face"]
    model.keypoint_scores[0] = 0.2
    assert "the points of 2 are guesses" in visitor.find(uploads / "holiday.jpg").shown["answer"]


def test_examples_are_shown_and_never_deleted(visitor, uploads):
    visitor.find(uploads / "holiday.jpg")
    for number, path in enumerate(SITE.pictures):
        assert (
            path.name
            in visitor("try_example", *LOOKS, *WANTED, index=number, moment=visitor.now).shown["answer"]
        )
    assert (
        "Choose a photo"
        in visitor("try_example", *LOOKS, *WANTED, index=99, moment=visitor.now).shown["answer"]
    )
    visitor("try_example", *LOOKS, *WANTED, index=0, moment=visitor.now).clear()
    assert all(path.is_file() for path in SITE.pictures)


def test_photos_are_deleted_by_clear_and_by_new_ones(visitor, uploads):
    visitor.find(uploads / "holiday.jpg").clear()
    assert not (uploads / "holiday.jpg").exists() and "Choose a photo" in visitor.shown["answer"]
    assert visitor.shown["Clear"]["interactive"] is False and visitor.album.photos == ()
    for name in ("one.png", "two.png"):
        Image.new("RGB", (40, 40)).save(uploads / name)
        visitor.find(uploads / name)
    assert not (uploads / "one.png").exists() and (uploads / "two.png").exists()


@pytest.mark.slow
def test_the_newest_of_a_visitors_actions_has_its_way(visitor, uploads, model):
    """Whatever was begun before it ends, shows nothing more, and leaves no file."""
    for name in ("one.png", "two.png", "three.png"):
        Image.new("RGB", (40, 40), (200, 90, 40)).save(uploads / name)
    steps = visitor.steps(
        "find", visitor.given(uploads / "holiday.jpg", uploads / "one.png"), *LOOKS, *WANTED
    )
    while "answer" not in visitor.shown or "Found 2 faces" not in visitor.shown["answer"]:
        visitor.see(next(steps))
    visitor.clear()
    for step in steps:
        visitor.see(step)
    assert "Choose a photo" in visitor.shown["answer"] and visitor.shown["photos"] == ""
    assert visitor.album.photos == () and not any(uploads.glob("*.jpg"))
    assert not (uploads / "one.png").exists()

    # One that waited in the server's queue until something newer was done does not even begin.
    given = visitor.given(uploads / "two.png")
    calls = visitor.clear().find(uploads / "three.png") and model.calls
    shown = dict(visitor.shown)
    assert visitor("find", given, *LOOKS, *WANTED).shown == shown and model.calls == calls
    assert not (uploads / "two.png").exists() and (uploads / "three.png").exists()


@pytest.mark.slow
def test_a_face_chosen_while_other_photos_are_looked_at_stays_chosen(visitor, uploads):
    paths = [uploads / "holiday.jpg", uploads / "gone.jpg"]
    steps = visitor.steps("find", visitor.given(*paths), *LOOKS, *WANTED)
    while not visitor.album.photos:
        visitor.see(next(steps))
    visitor.see(next(steps))
    visitor("choose", *LOOKS, index=1)
    for step in steps:
        visitor.see(step)
    assert "Face 2 of 2" in visitor.shown["face"] and len(visitor.album.photos) == 2


def test_the_same_file_can_be_given_again(visitor, uploads):
    """Gradio puts equal files under the same name."""
    shown = visitor.find(uploads / "holiday.jpg").find(uploads / "holiday.jpg").shown
    assert "Found 2 faces" in shown["answer"]


@pytest.mark.parametrize("sent", [None, [], "x", {"paths": "/etc/passwd"}, {"paths": ["/etc/passwd"]}])
def test_a_browser_that_sends_something_else_is_refused(visitor, sent):
    with pytest.raises(gr.Error, match="What was sent is no") as caught:
        visitor("find", sent, *LOOKS, *WANTED)
    assert caught.value.print_exception is False


def saves(page: gr.Blocks) -> dict:
    """The functions of the buttons that save, by what is written on them."""
    events = [event for event in page.fns.values() if event.name == "save"]
    return {page.blocks[event.targets[0][0]].value: event.fn for event in events}


def test_saving(page, visitor, uploads):
    album = visitor.find(uploads / "holiday.jpg").kept
    names = {
        "Save picture": "holiday_keypoints.png",
        "Save as JPEG": "holiday_keypoints.jpg",
        "Save JSON": "holiday_keypoints.json",
        "Save CSV": "holiday_keypoints.csv",
        "Save all pictures": "keypoints.zip",
        "Save all as JPEG": "keypoints.zip",
    }
    buttons = saves(page)
    assert buttons.keys() == names.keys()
    files = {button: Path(buttons[button](album, ["points", "boxes"], 2)) for button in names}
    for button, written in files.items():  # none takes the place of another, which may yet be fetched
        assert written.name == names[button] and written.is_relative_to(uploads.parent)
        assert written.stat().st_size
        if written.suffix in (".png", ".jpg"):
            assert images.read(written).shape == (120, 160, 3)
    assert len(set(files.values())) == len(files)


def test_saving_what_is_no_longer_there_is_told(page, visitor, uploads):
    album = visitor.find(uploads / "holiday.jpg").kept
    visitor.album.photos[0].path.unlink()
    with pytest.raises(gr.Error, match="holiday.jpg is no longer here"):
        saves(page)["Save picture"](album, *LOOKS)
    for save in saves(page).values():
        with pytest.raises(gr.Error, match="no photo any more"):
            save(LatestAction(Album()), *LOOKS)


# --- Clips ----------------------------------------------------------------------------------------------


class Viewer(Visitor):
    """The same for the tab of clips."""

    def __init__(self, page: gr.Blocks) -> None:
        super().__init__(page)
        self.kept = LatestAction(ClipSession())

    @property
    def told(self) -> str:
        return self.shown["clip-answer"]

    def take(self, path: Path) -> Viewer:
        return self("take", self.given(path))

    def follow(self) -> Viewer:
        return self("follow", *CLIP_LOOKS, self.now)

    def redraw(self, shown: list[str], size: float) -> Iterator[dict]:
        return self.steps("redraw", shown, size, self.now)

    def settle(self, *wanted: float) -> Viewer:
        self.see(self.functions["settle"](self.kept, *wanted))
        return self

    def fetch(self, button: str) -> Path:
        (event,) = [
            event for event in self.page.fns.values()
            if event.name == "fetch" and self.page.blocks[event.targets[0][0]].value == button
        ]  # fmt: skip
        return Path(event.fn(self.kept))


CLIP_LOOKS = (["points", "face_numbers"], 1, *WANTED)


@pytest.fixture
def viewer(page) -> Viewer:
    return Viewer(page)


@pytest.fixture
def clip(uploads) -> Path:
    return film(uploads / "holiday.mov", 8, size_wh=(160, 120), sound="aac")


def test_a_clip_is_told_and_comes_back_with_its_faces(viewer, clip, uploads, model):
    viewer.take(clip)
    assert "holiday.mov</b> is ready" in viewer.told and "160×120 pixels, 0.3 s, with sound." in viewer.told
    assert viewer.shown["Find faces"]["interactive"] and viewer.shown["Clear"]["interactive"]
    assert not viewer.shown["Save clip"]["interactive"]
    steps = list(viewer.steps("follow", *CLIP_LOOKS, viewer.now))
    assert any("<progress" in str(step) and "Cancel" in str(step) for step in steps)
    for step in steps:
        viewer.see(step)
    assert "Found 2 faces</b> in holiday.mov." in viewer.told and "8 frames, 0.3 s." in viewer.told
    made = {button: viewer.fetch(button) for button in ("Save clip", "Save JSON", "Save CSV")}
    assert [path.name for path in made.values()] == [f"holiday_keypoints.{e}" for e in ("mp4", "json", "csv")]
    assert all(path.is_relative_to(uploads.parent) and path.stat().st_size for path in made.values())
    assert f'src="gradio_api/file={made["Save clip"]}"' in viewer.told
    assert viewer.shown["Clear"]["value"] == "Clear" and viewer.shown["Save CSV"]["interactive"]
    assert not viewer.shown["Find faces"]["interactive"], "the same work is not offered again"
    assert "data-seek" in viewer.told

    assert not viewer.settle(*WANTED).shown["Find faces"]["interactive"]
    assert viewer.settle(80, 1).shown["Find faces"]["interactive"], "other faces can be looked for"
    calls = model.calls
    viewer("follow", ["mesh"], 2, 80, 1, viewer.now)
    assert model.calls > calls and "Found 1 face</b>" in viewer.told
    viewer("stop", "Clear", viewer.now)
    assert [path for path in uploads.parent.rglob("*") if path.is_file()] == [uploads / "holiday.jpg"]
    with pytest.raises(gr.Error, match="The clip is no longer here"):
        viewer.fetch("Save clip")
    assert "Choose a clip" in viewer.told and not viewer.shown["Clear"]["interactive"]


def test_a_clip_that_is_done_is_drawn_anew_from_the_numbers_that_are_kept(viewer, clip, model):
    assert not [*viewer.redraw(["mesh"], 2)][:-1], "there is none"
    viewer.take(clip).follow()
    shown, size, *_ = CLIP_LOOKS
    assert not [*viewer.redraw(shown, size)][:-1], "it is drawn so already"
    made, calls, numbers = viewer.fetch("Save clip"), model.calls, viewer.fetch("Save JSON").read_text()

    steps = viewer.redraw(["mesh"], 2)
    first = next(steps)
    viewer.see(first)
    assert "Drawing it anew" in viewer.told and f'src="gradio_api/file={made}"' in viewer.told
    steps.close()  # as when another style is asked for while this one is drawn
    assert viewer.kept.value.job.wait(20) and made.is_file()
    for step in viewer.redraw(["boxes"], 1):
        viewer.see(step)
    assert model.calls == calls and viewer.fetch("Save JSON").read_text() == numbers
    assert viewer.kept.value.found.spec.style == options.style(["boxes"], 1)
    assert not made.exists() and viewer.fetch("Save clip").is_file()
    assert (
        "Found 2 faces</b> in holiday.mov." in viewer.told and not viewer.shown["Find faces"]["interactive"]
    )


def test_cancelling_what_is_drawn_anew_gives_what_was_there(viewer, clip, uploads, monkeypatch):
    monkeypatch.setattr(latest_action, "PATIENCE", 0.1)  # nobody goes on with the steps that it waits for
    viewer.take(clip).follow()
    told, made = viewer.told, viewer.fetch("Save clip")
    steps = viewer.redraw(["mesh"], 2)
    viewer.see(next(steps))
    job = viewer.kept.value.job
    job.done = False  # however quick it was
    viewer("stop", "Cancel", viewer.now)
    steps.close()
    assert viewer.told == told and viewer.fetch("Save clip") == made and made.is_file()
    assert job.wait(20) and not job.spec.folder.exists()


def test_clip_that_is_none_is_told_and_deleted(viewer, uploads):
    (uploads / "note.mp4").write_text("milk, bread")
    viewer.take(uploads / "note.mp4")
    assert "note.mp4: is no video" in viewer.told and str(uploads) not in viewer.told
    assert not viewer.shown["Find faces"]["interactive"] and not (uploads / "note.mp4").exists()
    assert viewer.follow().told == viewer.told  # nothing to work on


def test_a_clip_that_breaks_off_is_told(viewer, uploads):
    path = film(uploads / "a.mp4", 60, front=True)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    told = viewer.take(path).follow().told
    assert "a.mp4: " in told and "Please choose another clip." in told and "problem" in told
    assert not viewer.shown["Save clip"]["interactive"]


@pytest.mark.slow
def test_cancelling_a_clip_leaves_nothing_of_it(viewer, uploads):
    clip = film(uploads / "holiday.mov", 300, size_wh=(160, 120))
    steps = viewer.take(clip).steps("follow", *CLIP_LOOKS, viewer.now)
    while "Cancel" not in str(viewer.shown["Clear"]):
        viewer.see(next(steps))
    job = viewer.kept.value.job
    viewer("stop", "Cancel", viewer.now)
    for step in steps:
        viewer.see(step)
    assert "holiday.mov</b> is ready" in viewer.told and job.wait(20)
    assert viewer.shown["Find faces"]["interactive"] and viewer.shown["Clear"]["value"] == "Clear"
    deadline = time.monotonic() + 20
    while any(uploads.parent.rglob("*_keypoints*")) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(uploads.parent.rglob("*_keypoints*"))
    assert sorted(path.name for path in uploads.iterdir()) == ["holiday.jpg", "holiday.mov"]
    viewer("stop", "Clear", viewer.now)
    assert "Choose a clip" in viewer.told and [path.name for path in uploads.iterdir()] == ["holiday.jpg"]


def test_a_visitor_who_goes_away_ends_the_work(viewer, uploads):
    viewer.take(film(uploads / "long.mp4", 400, size_wh=(160, 120)))
    steps = viewer.functions["follow"](viewer.kept, *CLIP_LOOKS, viewer.now, REQUEST)
    while viewer.kept.value.job is None:
        next(steps)
    steps.close()  # what Gradio does
    job = viewer.kept.value.job
    assert job.wait(20) and job.stopped and not job.done


@pytest.mark.parametrize(
    "room, ahead, told",
    [(5, 1, "Waiting: 1 clip of others is before yours."), (0, 0, "Too many clips are being worked on.")],
)
def test_queue_of_clips_tells_who_waits_and_refuses_too_many(viewer, clip, monkeypatch, room, ahead, told):
    monkeypatch.setattr(clip_jobs.JobQueue, "room", room)
    monkeypatch.setattr(clip_jobs.JobQueue, "ahead_of", lambda *_: ahead)
    monkeypatch.setattr(video_tab, "TELL_SECONDS", 0.01)
    steps = viewer.take(clip).steps("follow", *CLIP_LOOKS, viewer.now)
    assert any(told in str(step) for step in steps)


@pytest.mark.slow
def test_the_example_clip_runs_on_a_click(viewer):
    (example,) = SITE.clips
    steps = viewer.steps("try_clip", *CLIP_LOOKS, index=0, moment=viewer.now)
    while viewer.kept.value.job is None:
        next(steps)
    assert viewer.kept.value.path == example
    viewer("stop", "Clear", viewer.now)
    assert example.is_file()
    with pytest.raises(gr.Error, match="There is no such example."):
        viewer("try_clip", *CLIP_LOOKS, index=7, moment=viewer.now)


def test_about_tells_the_figures_only_of_the_model_that_runs(page, model):
    (tell,) = [event.fn for event in page.fns.values() if event.name == "tell"]
    assert "came without figures" in tell() and "<img" not in tell() and "keypoints on nothing" in tell()
    assert "weights from" not in tell()  # it would tell a folder
    model.weights.folder, model.metrics = hub.BUNDLED, json.loads((hub.BUNDLED / hub.METRICS).read_text())
    assert "<table>" in tell() and "<img" in tell()


def test_the_page_reports_to_nobody_and_keeps_nothing_for_long(page):
    assert page.analytics_enabled is False
    assert page.delete_cache == (data_retention.SWEEP_SECONDS, data_retention.KEPT_SECONDS)
    states = [block for block in page.blocks.values() if isinstance(block, gr.State)]
    assert [state.time_to_live for state in states] == [data_retention.KEPT_SECONDS] * 2
    assert f"{data_retention.KEPT_SECONDS // 60} minutes" in page_module.FOOTER


def test_the_state_deletes_its_files_when_it_goes(page, visitor, uploads):
    of_photos, of_clips = [block for block in page.blocks.values() if isinstance(block, gr.State)]
    of_photos.delete_callback(visitor.find(uploads / "holiday.jpg").kept)
    assert not (uploads / "holiday.jpg").exists()
    viewer = Viewer(page)
    viewer("take", viewer.given(film(uploads / "clip.mp4", 3)))
    of_clips.delete_callback(viewer.kept)
    assert not (uploads / "clip.mp4").exists()


# --- The API, over HTTP ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def served(tmp_path_factory, root):
    """The page in a process of its own: its address, its folder of uploads, and the process."""
    folder = tmp_path_factory.mktemp("uploads")
    command = [sys.executable, str(root / "tests" / "serve_stand_in.py"), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        address = next(line.strip() for line in process.stdout if line.startswith("http://127.0.0.1:"))
        yield SimpleNamespace(address=address, folder=folder, process=process)
        process.communicate("\n", timeout=30)
    assert process.returncode == 0


@pytest.fixture
def client(served, tmp_path):
    return Client(served.address, verbose=False, download_files=tmp_path / "downloads")


@pytest.fixture
def photo(tmp_path) -> Path:
    exif = Image.Exif()
    exif[0x010F] = "Maker of cameras"
    Image.new("RGB", (160, 120), (200, 90, 40)).save(tmp_path / "holiday.jpg", exif=exif)
    return tmp_path / "holiday.jpg"


def test_the_public_endpoints_are_exactly_these(client):
    told = client.view_api(return_format="dict", print_info=False)
    assert told["unnamed_endpoints"] == {}
    which = ["min_score", "max_faces"]
    expected = {
        "/detect": (["picture", *which, "passes", "label_style"], ["Json"]),
        "/annotate": (["picture", *which, "passes", "label_style", "show", "point_size"], ["Image"]),
        "/track": (["clip", *which], ["Json"]),
    }
    assert told["named_endpoints"].keys() == expected.keys()
    for name, endpoint in told["named_endpoints"].items():
        names, returned = expected[name]
        assert [each["parameter_name"] for each in endpoint["parameters"]] == names
        by_name = {each["parameter_name"]: each for each in endpoint["parameters"]}
        assert [each["parameter_has_default"] for each in endpoint["parameters"]] == [False] + [True] * (
            len(names) - 1
        )
        assert by_name["min_score"]["type"].items() >= {"minimum": 0, "maximum": 1, "type": "number"}.items()
        assert by_name["max_faces"]["type"].items() >= {"minimum": 1, "maximum": 100}.items()
        assert [each["component"] for each in endpoint["returns"]] == returned
        assert endpoint["description"]
        if name != "/track":
            assert by_name["passes"]["type"]["enum"] == ["auto", "1", "2"]
            assert {"none", "300w"} <= set(by_name["label_style"]["type"]["enum"])


def test_detect_gives_what_the_command_line_writes(client, photo):
    record = client.predict(handle_file(photo), api_name="/detect")
    pixels = images.read(photo)
    faces = FacesInColour(*TWO_FACES)(pixels)
    assert record == report.record("holiday.jpg", pixels.shape, faces)


def test_detect_tells_of_a_picture_that_breaks_off(client, photo):
    photo.write_bytes(photo.read_bytes()[:-40])
    record = client.predict(handle_file(photo), api_name="/detect")
    assert record["incomplete"] is True and len(record["faces"]) == 2


def test_the_parameters_of_detect_count(client, photo):
    wanted = {"min_score": 0.8, "max_faces": 1, "passes": "2", "label_style": "300w"}
    record = client.predict(handle_file(photo), **wanted, api_name="/detect")
    assert len(record["faces"]) == 1 and record["faces"][0]["number"] == 1


@pytest.mark.parametrize(
    "wrong, told",
    [
        ({"min_score": 2}, "min_score is 2, where a number from 0 to 1 is needed."),
        ({"max_faces": 0}, "max_faces is 0, where a whole number from 1 to 100 is needed."),
        ({"max_faces": 2.5}, "max_faces is 2.5, where a whole number"),
        ({"min_score": "high"}, "min_score is 'high', where a number"),
        ({"passes": "7"}, "passes is '7', where one of auto, 1, 2 is needed."),
        ({"passes": None}, "passes is None, where one of"),
        ({"label_style": ["300w"]}, "label_style is ['300w'], where one of none, 300w"),
    ],
)
def test_wrong_parameters_are_told_in_a_sentence(client, photo, wrong, told):
    with pytest.raises(AppError) as caught:
        client.predict(handle_file(photo), **wrong, api_name="/detect")
    assert told in str(caught.value) and "Traceback" not in str(caught.value)


def test_annotate_draws_what_is_asked_for(client, photo):
    usual = client.predict(handle_file(photo), api_name="/annotate")
    other = client.predict(handle_file(photo), show=["mesh", "boxes"], point_size=2, api_name="/annotate")
    assert (images.read(usual) != images.read(other)).any()
    for wrong, told in (
        ({"point_size": 9}, "point_size is 9, where a number"),
        ({"show": ["hair"]}, "show is 'hair', where one of points, contours"),
        ({"show": "mesh"}, "show is 'mesh', where a list is needed"),
    ):
        with pytest.raises(AppError, match=told):
            client.predict(handle_file(photo), **wrong, api_name="/annotate")


@pytest.mark.parametrize(
    "given, told",
    [({}, "picture is needed."), ({"picture": None, "depth": 3}, "There is no parameter depth.")],
)
def test_callers_are_told_which_parameter_is_missing_or_unknown(served, given, told):
    answer = httpx.post(f"{served.address}gradio_api/call/v2/detect", json=given, trust_env=False)
    assert (answer.status_code, answer.json()["detail"]) == (400, told)


def test_track_gives_the_faces_of_every_frame(served, client, tmp_path):
    clip = film(tmp_path / "clip.mp4", 5, size_wh=(160, 120))
    record = client.predict(handle_file(clip), max_faces=1, api_name="/track")
    assert [frame["frame"] for frame in record["frames"]] == list(range(5))
    assert {len(frame["faces"]) for frame in record["frames"]} == {1}
    assert record["frames"][0]["faces"][0]["face"] == 1
    (tmp_path / "note.mp4").write_text("milk, bread")
    with pytest.raises(AppError, match=r"note\.mp4: is no video"):
        client.predict(handle_file(tmp_path / "note.mp4"), api_name="/track")


def test_annotate_gives_the_picture_with_nothing_of_the_camera(client, photo):
    drawn = Path(client.predict(handle_file(photo), api_name="/annotate"))
    assert drawn.name == "holiday_keypoints.png" and b"Maker" not in drawn.read_bytes()
    with Image.open(drawn) as picture:
        assert picture.format == "PNG" and not picture.getexif() and not picture.info
    changed = (images.read(drawn) != images.read(photo)).any(axis=2)
    assert changed[30:110, 40:120].mean() > 0.05 and not changed[:15, :30].any()


@pytest.mark.parametrize("endpoint", ["/detect", "/annotate"])
def test_api_tells_what_is_no_picture(client, tmp_path, endpoint):
    (tmp_path / "note.jpg").write_text("milk, bread")
    with pytest.raises(AppError, match=r"^note\.jpg is no picture of a known kind"):
        client.predict(handle_file(tmp_path / "note.jpg"), api_name=endpoint)
    with pytest.raises(AppError, match="A picture is needed."):
        client.predict(None, api_name=endpoint)


@pytest.mark.parametrize("picture", [{"path": "/etc/hostname"}, {"url": "http://127.0.0.1:1/a.png"}])
def test_callers_reach_no_file_and_no_address_of_the_server(served, picture):
    answer = call(served.address, "detect", picture)
    assert answer.startswith("event: error") and "hostname" not in answer and "Traceback" not in answer


def test_upload_of_too_large_a_file_is_refused(served):
    response = httpx.post(f"{served.address}gradio_api/upload", files={"files": ("a.jpg", bytes(1_000_001))})
    assert response.status_code == 413


def call(address: str, name: str, picture: dict) -> str:
    """What a caller without gradio_client does, as README tells for curl; the last event as text."""
    started = httpx.post(f"{address}gradio_api/call/v2/{name}", json={"picture": picture})
    return httpx.get(f"{address}gradio_api/call/{name}/{started.json()['event_id']}", timeout=30).text


def test_callers_without_the_client(served, photo):
    files = {"files": ("holiday.jpg", photo.read_bytes())}
    (path,) = httpx.post(f"{served.address}gradio_api/upload", files=files).json()
    answer = call(served.address, "detect", {"path": path, "meta": {"_type": "gradio.FileData"}})
    assert answer.startswith("event: complete")
    (record,) = json.loads(answer.split("data: ", 1)[1])
    assert record["image"] == "holiday.jpg" and len(record["faces"]) == 2


def documented(root: Path, language: str, address: str) -> str:
    """The first code of docs/api.md in a language, for the page at another address."""
    text = (root / "docs" / "api.md").read_text(encoding="utf-8")
    code = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    return code[1].replace("http://127.0.0.1:7860", address.rstrip("/"))


def shown_under_about(root: Path, language: str, address: str) -> str:
    """The same, as the page itself tells it."""
    name = {"sh": "curl", "python": "Python"}[language]
    code = re.search(rf"<h3>{name}</h3>.*?<pre[^>]*>(.*?)</pre>", about.programs(address, False), re.DOTALL)
    return html.unescape(code[1])


@pytest.fixture(params=[documented, shown_under_about])
def code(request, root, served, tmp_path):
    """Gives the code in a language, of one source or the other; run in the folder, it finds its pictures."""
    (tmp_path / "examples").mkdir()
    for name in ("photo.jpg", "examples/four_faces.jpg"):
        shutil.copy(root / "examples" / "four_faces.jpg", tmp_path / name)
    return lambda language: request.param(root, language, served.address)


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_curl_commands_work(code, tmp_path):
    command = ["bash", "-c", code("sh")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("event: complete"), done
    (record,) = json.loads(done.stdout.split("data: ", 1)[1])
    assert record["image"] in ("four_faces.jpg", "photo.jpg") and record["faces"]


def test_the_python_code_works(code, tmp_path):
    command = [sys.executable, "-c", code("python")]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert any(line.startswith("2 ") for line in done.stdout.splitlines()), "the faces that it counts"


@pytest.mark.parametrize("name", ["find", "save", "choose", "draw_again", "tell"])
def test_private_functions_cannot_be_called_by_name(client, name):
    with pytest.raises(ValueError, match="Cannot find a function"):
        client.predict(api_name=f"/{name}")


@pytest.mark.skipif(find_spec("mcp") is None, reason="needs the MCP server: pip install 'gradio[mcp]'")
def test_the_tools_of_the_mcp_server(served, photo):
    from mcp import ClientSession
    from mcp.client import streamable_http

    old = "streamablehttp_client"  # its name before mcp 1.24
    connect = getattr(streamable_http, "streamable_http_client", None) or getattr(streamable_http, old)
    encoded = "data:image/jpeg;base64," + base64.b64encode(photo.read_bytes()).decode()

    async def run():
        async with connect(f"{served.address}gradio_api/mcp/") as (read, write, *_):
            async with ClientSession(read, write) as session:
                await session.initialize()
                tools = (await session.list_tools()).tools
                names = [tool.name for tool in tools]
                assert sorted(names) == ["annotate", "detect", "track"]
                tools = [tool for tool in tools if tool.name != "track"]
                calls = [await session.call_tool(tool.name, {"picture": encoded}) for tool in tools]
                return [(tool, result) for tool, result in zip(tools, calls, strict=True)]

    results = {tool.name: result for tool, result in asyncio.run(run())}
    assert results.keys() == {"detect", "annotate"}
    assert not any(result.isError for result in results.values())
    assert len(json.loads(results["detect"].content[0].text)["faces"]) == 2
    assert results["annotate"].content[0].mimeType == "image/png"


def test_files_and_sessions_are_gone_after_their_time(served, client, photo):
    client.predict(handle_file(photo), api_name="/annotate")
    assert {path.name for path in served.folder.rglob("*.*")} >= {"holiday.jpg", "holiday_keypoints.png"}
    served.process.stdin.write("expire\n")
    served.process.stdin.flush()
    assert served.process.stdout.readline() == "0 0\n"


# --- Starting it ----------------------------------------------------------------------------------------


def run_main(monkeypatch, capsys, *arguments: str) -> tuple[int, str]:
    monkeypatch.setattr("sys.argv", ["app.py", *arguments])
    with pytest.raises(SystemExit) as ended:
        app.main()
    told = capsys.readouterr()
    return ended.value.code, told.out + told.err


def test_help_tells_the_options_and_the_environment(monkeypatch, capsys):
    status, told = run_main(monkeypatch, capsys, "--help")
    names = ("MODEL", "REVISION", "THREADS", "MAX_FACES", "MAX_PIXELS", "MAX_FILE_SIZE", "MCP")
    assert status == 0
    assert all(name in told for name in ("--host", "--port", "--model", *(f"FKP_{name}" for name in names)))


@pytest.mark.parametrize(
    "name, value, told",
    [
        ("FKP_MODEL", "/nothing/there", "/nothing/there"),
        ("FKP_THREADS", "two", "FKP_THREADS is 'two', where a whole number from 1 is needed"),
        ("FKP_MAX_FILE_SIZE", "huge", "FKP_MAX_FILE_SIZE is 'huge'"),
    ],
)
def test_settings_that_cannot_be_used_end_in_one_sentence(monkeypatch, capsys, name, value, told):
    monkeypatch.setenv(name, value)
    status, said = run_main(monkeypatch, capsys, "--no-browser")
    assert status == 1 and said.startswith("app.py: ") and told in said and said.count("\n") == 1


@pytest.mark.slow
def test_a_taken_port_is_told_with_another(root):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = subprocess.run(
            [sys.executable, root / "app.py", "--no-browser", "--port", str(port)],
            cwd=root, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
    assert done.returncode == 1 and done.stderr.startswith("app.py: ") and done.stderr.count("\n") == 1
    assert str(port) in done.stderr and f"--port {port + 1}" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("content", ["", "raise ImportError('there is no mcp')"])
def test_the_mcp_server_without_its_package_or_with_another_ends_in_one_sentence(root, tmp_path, content):
    (tmp_path / "mcp").mkdir()
    (tmp_path / "mcp" / "__init__.py").write_text(content)  # nothing of what Gradio wants of it
    done = subprocess.run(
        [sys.executable, root / "app.py", "--no-browser"], cwd=root, capture_output=True, text=True,
        timeout=120, env=os.environ | {"FKP_MCP": "1", "PYTHONPATH": str(tmp_path)},
    )  # fmt: skip
    assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
    assert "FKP_MCP" in done.stderr and 'pip install "gradio[mcp]"' in done.stderr


@pytest.mark.parametrize(
    "argument, setting",
    [(("--port", "70000"), None), (("--port", "-1"), None), (("--host", "no-such-host.invalid"), None),
     (("--host", "192.0.2.1"), None), ((), "999999999")],
)  # fmt: skip
def test_addresses_that_cannot_be_served_end_in_one_sentence(monkeypatch, capsys, argument, setting):
    if setting:
        monkeypatch.setenv("FKP_THREADS", setting)
    status, said = run_main(monkeypatch, capsys, "--no-browser", *argument)
    assert status in (1, 2) and (setting or argument[1]) in said.splitlines()[-1] and "Traceback" not in said


def test_the_model_is_loaded_as_the_settings_say(monkeypatch):
    counts: list[int] = []
    monkeypatch.setattr(cv2, "setNumThreads", lambda n: counts.append(n))
    model = app.load(Settings(model=str(hub.BUNDLED), threads=1))
    assert counts == [1]
    assert isinstance(model.runner, batching.Shared) and "1 thread" in model.describe()[1]


def test_the_page_works_without_the_folders_beside_it(root, tmp_path, monkeypatch):
    """As where only app.py was copied, and fkp is installed: no examples, no plots, but figures."""
    (tmp_path / "app.py").write_bytes((root / "app.py").read_bytes())
    specification = spec_from_file_location("app_alone", tmp_path / "app.py")
    alone = module_from_spec(specification)
    specification.loader.exec_module(alone)
    model = FacesInColour()
    model.weights.folder, model.metrics = hub.BUNDLED, json.loads((hub.BUNDLED / hub.METRICS).read_text())

    async def build():
        return alone.build(model)

    page = asyncio.run(build())
    (upload,) = [block for block in page.blocks.values() if block.elem_id == "photo"]
    assert "data-example" not in upload.html_template
    (tell,) = [event.fn for event in page.fns.values() if event.name == "tell"]
    assert "<table>" in tell() and "<img" not in tell()


def test_examples_are_small_and_documented(root):
    sources = (root / "examples" / "SOURCES.md").read_text(encoding="utf-8")
    pictures = sorted((root / "examples").glob("*.jpg"))
    assert sorted(SITE.pictures) == pictures
    for path in pictures:
        assert path.name in sources
        assert path.stat().st_size < 300_000
        with Image.open(path) as picture:
            assert not picture.getexif()


def test_importing_the_page_writes_no_file(root):
    assert not (root / "app.pyi").exists()
