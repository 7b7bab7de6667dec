"""The demo page: photos, clips and the camera in, 68 keypoints of every face out. Layout and events only.

    python app.py                          opens http://127.0.0.1:7860
    python app.py --host 0.0.0.0 --port 8080
    FKP_MODEL=owner/name python app.py     other weights: a Hub repository or a folder

Works without any network, and hosts unchanged on Hugging Face Spaces; `python app.py --help` tells more.
"""

from __future__ import annotations

import argparse
import functools
import html
import inspect
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import quote

# Spinning threads make torch many times slower on shared cores; it reads this when it is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Gradio keeps figures of the last 10000 requests and makes a table of them after every one.
os.environ.setdefault("GRADIO_ANALYTICS_MAX_EVENTS", "1")
os.environ.setdefault("GRADIO_ANALYTICS_CACHE_FREQUENCY", "1000000000")

import cv2  # noqa: E402
import gradio as gr  # noqa: E402
import httpx  # noqa: E402
import torch  # noqa: E402
from starlette.middleware import Middleware  # noqa: E402

import fkp  # noqa: E402
from fkp import draw, hub, images, report
from fkp.demo import (
    about,
    batching,
    clip_jobs,
    components,
    data_retention,
    live,
    photos,
    request_guard,
    settings,
    view,
    zerogpu,
)
from fkp.demo.clip_jobs import Footage, Reel  # noqa: E402
from fkp.demo.latest_action import Turns  # noqa: E402
from fkp.demo.photos import Album  # noqa: E402
from fkp.demo.settings import Settings  # noqa: E402

Shown = Iterator[dict[Any, Any]]
"""What a function shows, step by step: values by component."""

HERE = Path(__file__).parent
EXAMPLE_CLIPS = sorted((HERE / "examples").glob("*.mp4"))
EXAMPLES = [
    path
    for name in ("eileen_collins", "grace_hopper", "four_faces")
    if (path := HERE / "examples" / f"{name}.jpg").is_file()
]

SHOW = [
    ("Points", "points"),
    ("Contours", "contours"),
    ("Mesh", "mesh"),
    ("Numbers", "numbers"),
    ("Boxes", "boxes"),
    ("Confidence", "confidence"),
]
"""What can be shown: labels, and the fields of `draw.Style` that they switch on."""
SHOWN_AT_FIRST = ["points", "contours"]
SHOW_IN_CLIPS = [(label.replace("Numbers", "Numbers of points"), name) for label, name in SHOW]
SHOW_IN_CLIPS.insert(0, ("Numbers of faces", "face_numbers"))

MAX_FILES = 20
"""Photos that are taken at once."""
AT_ONCE = 4
"""Requests that are worked on at the same time; the rest wait in a queue of WAITING."""
WAITING = 64
TELL_SECONDS = 0.5
"""How often it is told how far the work on a clip is."""
SESSIONS = 1000
"""Visitors and callers remembered at the same time; beyond that, those longest away are forgotten."""


def build(model: fkp.FaceKeypoints, limits: Settings | None = None) -> gr.Blocks:
    """The page around a model."""
    limits = limits or Settings()
    with components.Page(
        title="Face keypoints",
        analytics_enabled=False,
        delete_cache=(data_retention.SWEEP_SECONDS, data_retention.KEPT_SECONDS),
    ) as page:
        gr.HTML(HEADER)
        with gr.Tabs():
            with gr.Tab("Photo", id="photo"):
                photo_tab(model, limits)
            with gr.Tab("Live", id="live"):
                live_tab(model, limits)
            with gr.Tab("Video", id="video"):
                video_tab(model, limits)
            with gr.Tab("About", id="about") as tab:
                about_tab(model, tab)
        gr.HTML(FOOTER)
        api(model, limits)
    return page


def photo_tab(model: fkp.FaceKeypoints, limits: Settings) -> None:
    """Photos in; their faces drawn, one of them enlarged, and files to save."""
    look_at_many = zerogpu.lent(photos.looks, model, seconds=lambda paths, limits: 5 + 2 * len(paths))
    kept = gr.State(
        Turns(Album()),
        time_to_live=data_retention.KEPT_SECONDS,
        delete_callback=lambda kept: photos.forget(kept.value.files, uploads_folder()),
    )
    moment = gr.Number(visible=False)
    with gr.Row(elem_classes="sides"):
        with gr.Column(scale=4, min_width=300):
            given = components.upload(EXAMPLES, limits, MAX_FILES, elem_id="photo")
            strip = components.chooser(elem_id="photos")
            with gr.Column(elem_id="options"):
                options = gr.CheckboxGroup(SHOW, value=SHOWN_AT_FIRST, label="Show", elem_id="view")
                legend = gr.HTML(view.legend(_style(SHOWN_AT_FIRST, 1)), elem_id="legend")
                size = gr.Slider(0.5, 3, 1, step=0.25, label="Size of the points", buttons=[], elem_id="size")
                with gr.Row(elem_id="save"):
                    save_picture = gr.Button("Save picture", interactive=False, size="md", min_width=140)
                    save_all = gr.Button("Save all pictures", visible=False, size="md", min_width=140)
                    save_json = gr.Button("Save JSON", interactive=False, size="md", min_width=140)
                    save_csv = gr.Button("Save CSV", interactive=False, size="md", min_width=140)
                    clear = gr.Button("Clear", interactive=False, size="md", min_width=140)
                    to_save = gr.DownloadButton(visible=False)
        with gr.Column(scale=7, min_width=320):
            answer = gr.HTML(view.answer(Album()), elem_id="answer")
            picture = components.picture(elem_id="result")
    one_face = components.chooser(elem_id="face")

    def everything(album: Album, shown: list[str], size: float, left_out: int = 0) -> dict[Any, Any]:
        """All that is shown of an album."""
        style, photo = _style(shown, size), album.photo
        overlay = photos.overlay(photo, style) if photo and len(photo.faces) else b""
        some = any(len(each.faces) for each in album.photos)
        return {
            answer: view.answer(album, left_out),
            picture: gr.HTML(**view.picture(album, overlay)),
            strip: view.strip(album),
            one_face: face_panel(album, style),
            save_picture: gr.update(interactive=bool(overlay)),
            save_all: gr.update(visible=len(album.photos) > 1),
            save_json: gr.update(interactive=some),
            save_csv: gr.update(interactive=some),
            clear: gr.update(interactive=photo is not None),
        }

    def face_panel(album: Album, style: draw.Style) -> str:
        if album.photo is None or album.face is None:
            return ""
        return view.face_panel(album, photos.enlarged(album.photo.enlarged[album.face], style))

    @ending_with(kept)
    def find(album: Turns[Album], sent: Any, shown: list[str], size: float) -> Shown:
        """Look at what was sent, one after the other, and show the first as soon as it is done."""
        try:
            paths, left_out, moment = components.sent(sent, uploads_folder(), MAX_FILES)
        except images.ImageError as error:
            raise components.error(error) from None
        album.begin(moment)
        with album.sending(moment) as goes_on:
            if not goes_on:
                photos.forget(paths, uploads_folder(), but=album.value.files)
                return
            photos.forget(album.value.files, uploads_folder(), but=paths)
            album.value = Album(files=tuple(paths))
            yield {answer: view.say("Looking for faces …")}
        looks = look_at_many(paths, limits) if len(paths) > 1 else photos.looks(model, paths, limits)
        for photo in looks:
            with album.sending(moment) as goes_on:
                if not goes_on:
                    return
                album.value = album.value.with_photo(photo)
                outputs: dict[Any, Any] = {}
                done = len(album.value.photos)
                if done in (1, len(paths)):
                    outputs = everything(album.value, shown, size, left_out if done == len(paths) else 0)
                yield outputs | {strip: view.strip(album.value, len(paths))}

    @ending_with(kept)
    def try_example(album: Turns[Album], shown: list[str], size: float, event: gr.EventData) -> Shown:
        yield from instead(album, shown, size, getattr(event, "moment", None), event.index)

    @ending_with(kept)
    def start_again(album: Turns[Album], shown: list[str], size: float, moment: float) -> Shown:
        yield from instead(album, shown, size, moment)

    def instead(
        album: Turns[Album], shown: list[str], size: float, moment: Any, example: Any = None
    ) -> Shown:
        """An example, or nothing, in the place of what is there; work that is going on ends."""
        album.begin(moment)
        found = Album()
        if photos.is_index(example, len(EXAMPLES)):
            found = found.with_photo(photos.look(model, EXAMPLES[example], limits))
        with album.sending(moment) as goes_on:
            if goes_on:
                photos.forget(album.value.files, uploads_folder())
                album.value = found
                yield everything(found, shown, size)

    @ending_with(kept)
    def go_to(album: Turns[Album], shown: list[str], size: float, event: gr.EventData) -> Shown:
        with album.sending():
            album.value = album.value.go_to(event.index)
            yield everything(album.value, shown, size)

    @ending_with(kept)
    def choose(album: Turns[Album], shown: list[str], size: float, event: gr.EventData) -> Shown:
        with album.sending():
            album.value = album.value.choose(event.index)
            faces = gr.HTML(value=view.picture(album.value, b"")["value"])
            enlarged = face_panel(album.value, _style(shown, size))
            yield {picture: faces, one_face: enlarged}

    @ending_with(kept)
    def draw_again(album: Turns[Album], shown: list[str], size: float) -> Shown:
        """Another style for what was found before: no network runs."""
        style = _style(shown, size)
        with album.sending():
            photo = album.value.photo
            changed: dict[Any, Any] = {
                legend: view.legend(style),
                one_face: face_panel(album.value, style),
            }
            if photo and len(photo.faces):
                overlay = photos.overlay(photo, style)
                changed[picture] = gr.HTML(overlay=view.data_uri(overlay, "image/png"))
            yield changed

    def saving(write: Callable[[Album, draw.Style], Path]) -> Callable[..., str]:
        def save(album: Turns[Album], shown: list[str], size: float) -> str:
            if album.value.photo is None:
                raise gr.Error("There is no photo any more. Please choose it again.", print_exception=False)
            try:
                return str(write(album.value, _style(shown, size)))
            except images.ImageError as error:
                raise components.error(error) from None

        return save

    state = [kept, options, size]
    all_shown = [kept, answer, picture, strip, one_face, save_picture, save_all, save_json, save_csv, clear]
    private: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": AT_ONCE}
    quick = private | {"show_progress": "hidden"}
    working = quick | {"concurrency_id": "faces"}

    newest: dict[str, Any] = {"trigger_mode": "multiple"}  # none waits for the one before it to end
    finding = given.upload(find, [kept, given, options, size], all_shown, **newest, **working)
    trying = given.select(try_example, state, all_shown, **newest, **working)
    for event in (finding, trying):
        event.then(js=SCROLL, **private)
    clear.click(start_again, [*state, moment], all_shown, js=NOW, **newest, **quick)
    strip.select(go_to, state, all_shown, **quick)
    for chooser in (picture, one_face):
        chooser.select(choose, state, [kept, picture, one_face], **quick)
    for option in (options, size):
        option.change(
            draw_again, state, [kept, legend, one_face, picture], trigger_mode="always_last", **quick
        )

    folder = uploads_folder()
    for button, write in {
        save_picture: lambda album, style: photos.save_picture(album, style, limits, folder),
        save_all: lambda album, style: photos.save_pictures(album, style, limits, folder),
        save_json: lambda album, style: photos.save_json(album, folder),
        save_csv: lambda album, style: photos.save_csv(album, folder),
    }.items():
        saved = button.click(saving(write), state, to_save, show_progress_on=button, **private)
        saved.success(None, to_save, js=DOWNLOAD, **private)


def live_tab(model: fkp.FaceKeypoints, limits: Settings) -> None:
    """The camera, and the keypoints over it; what it sees is looked at in memory only."""
    components.camera(live.Viewers(model, limits.max_viewers), elem_id="camera")


def video_tab(model: fkp.FaceKeypoints, limits: Settings) -> None:
    """A clip in; it comes back with its keypoints, to be played, and the numbers as files."""
    work = zerogpu.lent(clip_jobs.annotate, model, seconds=lambda order: 60)
    workshop = clip_jobs.Workshop(work, limits.clips_at_once)
    kept = gr.State(
        Turns(Reel()),
        time_to_live=data_retention.KEPT_SECONDS,
        delete_callback=lambda kept: kept.value.forget(uploads_folder()),
    )
    moment = gr.Number(visible=False)
    with gr.Row(elem_classes="sides"):
        with gr.Column(scale=4, min_width=300):
            given = components.clip_upload(EXAMPLE_CLIPS, limits, elem_id="clip")
            options = gr.CheckboxGroup(
                SHOW_IN_CLIPS, value=[*SHOWN_AT_FIRST, "face_numbers"], label="Show", elem_id="clip-view"
            )
            legend = gr.HTML(view.legend(_style(SHOWN_AT_FIRST, 1)), elem_id="clip-legend")
            size = gr.Slider(
                0.5, 3, 1, step=0.25, label="Size of the points", buttons=[], elem_id="clip-size"
            )
            with gr.Row(elem_id="clip-work"):
                start = gr.Button("Find faces", variant="primary", interactive=False, min_width=140)
                clear = gr.Button("Clear", interactive=False, min_width=140)
        with gr.Column(scale=7, min_width=320):
            answer = gr.HTML(view.clip_answer(None), elem_id="clip-answer")
            with gr.Row(elem_id="clip-save"):
                save_film = gr.Button("Save clip", interactive=False, size="md", min_width=120)
                save_json = gr.Button("Save JSON", interactive=False, size="md", min_width=120)
                save_csv = gr.Button("Save CSV", interactive=False, size="md", min_width=120)
                to_save = gr.DownloadButton(visible=False)

    def everything(
        told: str, *, ready: bool = False, busy: bool = False, done: bool = False
    ) -> dict[Any, Any]:
        """All that is shown: what there is to say, and which buttons can be pressed."""
        shown = {answer: told, start: gr.update(interactive=ready)}
        ending = gr.update(value="Cancel" if busy else "Clear", interactive=busy or ready or done)
        return shown | {clear: ending} | {button: gr.update(interactive=done) for button in saves}

    @ending_with(kept)
    def take(reel: Turns[Reel], sent: Any) -> Shown:
        """Say what there is to say about a clip before the work."""
        try:
            (path, *_), _, moment = components.sent(sent, uploads_folder(), 1)
        except images.ImageError as error:
            raise components.error(error) from None
        reel.begin(moment)
        clip = clip_jobs.look(path, limits)
        with reel.sending(moment) as goes_on:
            if not goes_on:
                Reel(clip).forget(uploads_folder(), but=reel.value.path)
                return
            reel.value.forget(uploads_folder(), but=path)
            reel.value = Reel(clip)
            if clip.problem:
                reel.value.forget(uploads_folder())
                reel.value = Reel()
            yield everything(view.clip_answer(clip), ready=not clip.problem)

    @ending_with(kept)
    def try_clip(reel: Turns[Reel], shown: list[str], size: float, event: gr.EventData) -> Shown:
        if not photos.is_index(event.index, len(EXAMPLE_CLIPS)):
            raise gr.Error("There is no such example.", print_exception=False)
        clip = clip_jobs.look(EXAMPLE_CLIPS[event.index], limits)
        yield from work_on(reel, clip, shown, size, getattr(event, "moment", None))

    @ending_with(kept)
    def follow(reel: Turns[Reel], shown: list[str], size: float, moment: float) -> Shown:
        yield from work_on(reel, reel.value.footage, shown, size, moment)

    def work_on(reel: Turns[Reel], clip: Footage | None, shown: list[str], size: float, moment: Any) -> Shown:
        """Annotate a clip, and tell how far it is until it is done, or something else was begun."""
        reel.begin(moment)
        with reel.sending(moment) as goes_on:
            if not goes_on or clip is None:
                return
            reel.value.forget(uploads_folder(), but=clip.path)
            reel.value = Reel(clip)
            style, folder = _style(shown, size), uploads_folder()
            try:
                order = clip_jobs.order(clip.path, style, "face_numbers" in shown, limits, folder)
                job = workshop.begin(order)
            except clip_jobs.BusyError as error:
                yield everything(view.say(str(error), "problem"), ready=True)
                return
            reel.value = Reel(clip, job)
        try:
            outputs = everything(view.going_on(None), busy=True)
            while True:
                ended = job.ended
                if ended and job.done and job.progress:
                    outputs = everything(
                        view.film(address_of(order.film), clip, job.progress), ready=True, done=True
                    )
                elif ended:
                    outputs = everything(view.say(html.escape(job.problem), "problem"), ready=True)
                with reel.sending(moment) as goes_on:
                    if not goes_on:
                        return
                    yield outputs
                if ended:
                    return
                job.wait(TELL_SECONDS)
                ahead = workshop.ahead_of(job)
                outputs = {answer: view.waiting(ahead) if ahead else view.going_on(job.progress)}
        finally:
            if not job.ended:  # the visitor has gone, or has begun something else
                job.stop()

    @ending_with(kept)
    def stop(reel: Turns[Reel], moment: float) -> Shown:
        reel.begin(moment)
        with reel.sending(moment) as goes_on:
            if goes_on:
                reel.value.forget(uploads_folder())
                reel.value = Reel()
                yield everything(view.clip_answer(None))

    def settle(reel: Turns[Reel]) -> dict[str, Any]:
        """What the button says, once more: the last word of work that was ended may come after this."""
        job, clip = reel.value.job, reel.value.footage
        busy = job is not None and not job.ended
        return gr.update(value="Cancel" if busy else "Clear", interactive=busy or clip is not None)

    def saving(which: Callable[[clip_jobs.Order], Path]) -> Callable[..., str]:
        def fetch(reel: Turns[Reel]) -> str:
            job = reel.value.job
            if job is None or not job.done or not which(job.order).is_file():
                raise gr.Error("The clip is no longer here. Please choose it again.", print_exception=False)
            return str(which(job.order))

        return fetch

    saves = {
        save_film: lambda order: order.film,
        save_json: lambda order: order.json,
        save_csv: lambda order: order.csv,
    }
    all_shown = [kept, answer, start, clear, *saves]
    private: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": AT_ONCE}
    quick: dict[str, Any] = private | {"show_progress": "hidden", "trigger_mode": "multiple"}
    # They only wait for the workshop, which has a line of its own.
    telling = quick | {"concurrency_id": "clips", "concurrency_limit": workshop.room + 1}

    given.upload(take, [kept, given], all_shown, **quick)
    given.select(try_clip, [kept, options, size], all_shown, js=JUST_SCROLL, **telling)
    start.click(follow, [kept, options, size, moment], all_shown, js=NOW_AND_SCROLL, **telling)
    stopped = clear.click(stop, [kept, moment], all_shown, js=NOW, **quick)
    stopped.then(settle, kept, clear, **quick)
    for option in (options, size):
        option.change(
            lambda shown, size: view.legend(_style(shown, size)), [options, size], legend,
            **private, show_progress="hidden",
        )  # fmt: skip
    for button, which in saves.items():
        saved = button.click(saving(which), kept, to_save, show_progress_on=button, **private)
        saved.success(None, to_save, js=DOWNLOAD, **private)


def address_of(path: Path) -> str:
    """Where browsers find a file of the folder of uploads, seen from the page."""
    return f"gradio_api/file={quote(str(path))}"


def about_tab(model: fkp.FaceKeypoints, tab: gr.Tab) -> None:
    """What the model is, how good, and what happens to photos; fetched when somebody looks."""
    text = gr.HTML(elem_id="about", apply_default_css=False)

    def tell() -> str:
        plots = HERE / "docs" if model.weights.folder == hub.BUNDLED else None  # they are of these weights
        return about.text(model.metrics, model.describe()[1:], plots)

    tab.select(tell, None, text, api_visibility="private")


def api(model: fkp.FaceKeypoints, limits: Settings) -> None:
    """What programs may call: /detect and /annotate, and nothing else."""

    def detect(picture: Path) -> dict[str, Any]:
        """Find faces in a picture and 68 keypoints on each.

        Args:
            picture: a photo, as a file

        Returns:
            {"image", "width", "height", "faces": [{"box": [x1, y1, x2, y2], "score", "keypoints": [[x, y]
            for 68 points], "keypoint_scores": [68 numbers]}]}, in pixels of the picture, largest face first;
            scores are 0 to 1.
        """
        pixels, faces = look(picture)
        return report.record(picture.name, pixels.shape, faces)

    def annotate(picture: Path) -> str:
        """Draw the 68 keypoints of every face on a copy of a picture.

        Args:
            picture: a photo, as a file

        Returns:
            The same picture with points and contours drawn on every face, as PNG.
        """
        pixels, faces = look(picture)
        name = f"{picture.stem}_keypoints.png"
        return str(photos.write_png(uploads_folder(), name, draw.draw(pixels, faces)))

    def look(picture: Path) -> tuple[Any, fkp.Faces]:
        try:
            pixels = photos.read(picture, limits)
        except images.ImageError as error:
            raise components.error(error) from None
        return pixels, photos.find(model, pixels, limits)[0]

    with gr.Column(visible=False):
        given = components.PictureFile(label="Picture")
        found = gr.JSON(label="Faces")
        drawn = gr.Image(label="Picture with keypoints", format="png")
        public: dict[str, Any] = {"concurrency_id": "faces", "concurrency_limit": AT_ONCE}
        gr.Button("Detect").click(detect, given, found, api_name="detect", **public)
        gr.Button("Annotate").click(annotate, given, drawn, api_name="annotate", **public)


def ending_with(kept: gr.State) -> Callable[[Callable[..., Shown]], Callable[..., Shown]]:
    """For a function that shows something step by step, its first input being the state: that comes last.

    Gradio repeats at the end what came last, when something newer may be there to be seen.
    """

    def ending(steps: Callable[..., Shown]) -> Callable[..., Shown]:
        @functools.wraps(steps)
        def all_steps(turns: Turns[Any], *given: Any) -> Shown:
            yield from steps(turns, *given)
            yield {kept: turns}

        return all_steps

    return ending


def _style(shown: list[str], size: float) -> draw.Style:
    return draw.Style(**{name: name in shown for _, name in SHOW}, point_size=size)


def uploads_folder() -> Path:
    """Where Gradio puts what browsers send, and deletes it after a while."""
    return Path(gr.utils.get_upload_folder())


# --- how it looks -------------------------------------------------------------------------------------

HEADER = """
<header id="head">
  <h1>Face keypoints</h1>
  <p>Finds every face and places 68 points on it: jaw, eyebrows, nose, eyes and lips.</p>
</header>
"""

FOOTER = f"""
<footer id="foot">
  Your photos and clips are worked on by the computer that runs this page and go nowhere else; after
  {data_retention.KEPT_SECONDS // 60} minutes at the latest nothing is left of them. More under About.
</footer>
"""

# For the last input: when the button was pressed.
NOW = """(...given) => [...given.slice(0, -1), performance.now()]"""

# On a phone the result stands below the photo.
SCROLL = """() => document.querySelector("#answer").scrollIntoView({behavior: "smooth", block: "nearest"})"""
SCROLL_TO_CLIP = """() => {
  const answer = document.querySelector("#clip-answer");
  const room = window.innerHeight - answer.getBoundingClientRect().top;
  if (room < 120) answer.scrollIntoView({behavior: "smooth", block: "center"});
}"""
NOW_AND_SCROLL = f"(...given) => {{ ({SCROLL_TO_CLIP})(); return ({NOW})(...given) }}"
JUST_SCROLL = f"(...given) => {{ ({SCROLL_TO_CLIP})(); return given }}"

DOWNLOAD = """(file) => {
  const link = document.createElement("a");
  link.href = file.url;
  link.download = file.orig_name ?? file.path.split(/[\\\\/]/).pop();
  link.click();
}"""

# Fonts of the visitor's computer: none is fetched from anywhere.
THEME = gr.themes.Soft(
    primary_hue="sky",
    neutral_hue="slate",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
    radius_size="lg",
).set(
    background_fill_primary="*neutral_100",
    checkbox_border_color="*neutral_500",
    checkbox_border_color_dark="*neutral_400",
    # Darker than the theme has them, for enough contrast with white.
    button_primary_background_fill="*primary_700",
    button_primary_background_fill_hover="*primary_800",
    button_primary_background_fill_dark="*primary_700",
    button_primary_background_fill_hover_dark="*primary_800",
    checkbox_label_background_fill_selected="*primary_700",
    checkbox_label_background_fill_selected_dark="*primary_700",
    checkbox_label_background_fill_hover_dark="*neutral_600",
    block_label_background_fill_dark="*primary_700",
    block_label_text_color="*primary_700",
    block_title_text_color="*primary_700",
)


def _known_to(gradio_function: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Those options that this version of Gradio has: run_history came with 6.24."""
    return {k: v for k, v in options.items() if k in inspect.signature(gradio_function).parameters}


# --- starting it --------------------------------------------------------------------------------------


def launch(page: gr.Blocks, limits: Settings | None = None, **options: Any) -> str:
    """Serve the page, as it promises to be; returns its address. `options` are those of Blocks.launch."""
    limits = limits or Settings()
    largest = max(limits.max_file_size, limits.max_clip_size)  # each is checked by itself later
    host = options.get("server_name") or os.environ.get("GRADIO_SERVER_NAME", "127.0.0.1")
    rules = request_guard.Rules(
        endpoints={str(fn.api_name) for fn in page.fns.values() if fn.api_visibility == "public"},
        max_bytes=largest * 4 // 3 + 1_000_000,  # as a data: URL within JSON
        hosts=limits.hosts,
        at_home=host in ("127.0.0.1", "localhost", "::1"),
    )
    _, address, _ = page.queue(max_size=WAITING, api_open=False).launch(
        theme=THEME,
        css=components.css(),
        footer_links=[],
        **_known_to(gr.Blocks.launch, run_history=False),  # it would keep photos in the visitor's browser
        ssr_mode=False,
        max_file_size=largest,
        mcp_server=limits.mcp,
        enable_monitoring=False,
        state_session_capacity=SESSIONS,
        app_kwargs={
            "lifespan": request_guard.guarded(data_retention.sweeping(uploads_folder()), rules),
            "middleware": [Middleware(live.SmallRequests)],
        },
        **options,
    )
    return address


def load(limits: Settings) -> fkp.FaceKeypoints:
    """The model, warmed up, its network shared by all requests. Raises hub.WeightsError."""
    if limits.threads:
        torch.set_num_threads(limits.threads)
        cv2.setNumThreads(limits.threads)
    model = fkp.FaceKeypoints.from_pretrained(
        limits.model, revision=limits.revision, detector=limits.detector
    )
    model = model.with_runner(batching.Shared)
    photos.warm_up(model)
    return model


def ask_once(address: str) -> None:
    """A request of our own: Gradio gets much ready only at the first one, which takes a third of a second."""
    api = f"{address}gradio_api/call/detect"
    try:
        event = httpx.post(api, json={"data": [{"url": view.NOTHING}]}, trust_env=False).json()["event_id"]
        httpx.get(f"{api}/{event}", trust_env=False, timeout=30)
    except (httpx.HTTPError, ValueError, KeyError):
        return  # no reason not to serve others


def main() -> None:
    began = time.perf_counter()
    data_retention.keep_memory_together()
    parser = argparse.ArgumentParser(
        description="Open the face keypoints page in the browser.",
        epilog=f"environment:\n{settings.help_text()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--host", help="address to listen on, 0.0.0.0 for every network (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default: the first free one from 7860)")
    parser.add_argument("--model", help="weights: a folder or a Hub repository OWNER/NAME, before FKP_MODEL")
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    args = parser.parse_args()

    try:
        limits = settings.from_environment(os.environ | ({"FKP_MODEL": args.model} if args.model else {}))
        if limits.mcp and find_spec("mcp") is None:
            raise settings.SettingsError("FKP_MCP needs a package: run 'pip install \"gradio[mcp]\"'")
        model = load(limits)
    except (settings.SettingsError, hub.WeightsError) as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    # A folder of its own, so that everything in it can go: after a while, and in the end all at once.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    within = os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir()
    os.makedirs(within, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fkp-", dir=within) as folder:
        os.environ["GRADIO_TEMP_DIR"] = folder
        page = build(model, limits)
        try:
            address = launch(
                page,
                limits,
                server_name=args.host,
                server_port=args.port,
                inbrowser=not args.no_browser and _has_desktop(),
                quiet=True,
                prevent_thread_lock=True,
            )
        except OSError as error:  # no such address, or the port is taken
            parser.exit(1, f"{parser.prog}: {error}\n")
        ask_once(address)
        print(f"Ready after {time.perf_counter() - began:.1f} s: {address} (Ctrl-C ends it)", flush=True)
        try:
            while True:
                time.sleep(1)
        except KeyboardInterrupt:
            print()
        finally:
            clip_jobs.close_all()
            page.close(verbose=False)


def _has_desktop() -> bool:
    # Without one, a text browser might take over the terminal.
    return sys.platform in ("win32", "darwin") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ


if __name__ == "__main__":
    main()
