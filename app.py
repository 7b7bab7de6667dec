"""The demo page: photos in, the 68 keypoints of every face out. Layout and events, no maths.

    python app.py                          opens http://127.0.0.1:7860
    python app.py --host 0.0.0.0 --port 8080
    FKP_MODEL=owner/name python app.py     other weights: a Hub repository or a folder

Works without any network, and hosts unchanged on Hugging Face Spaces; `python app.py --help` tells more.
"""

from __future__ import annotations

import argparse
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

# Spinning threads make torch many times slower on shared cores; it reads this when it is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cv2  # noqa: E402
import gradio as gr  # noqa: E402
import httpx  # noqa: E402
import torch  # noqa: E402

import fkp  # noqa: E402
from fkp import (  # noqa: E402
    about,
    batching,
    components,
    draw,
    forgetting,
    hub,
    images,
    photos,
    report,
    settings,
    view,
)
from fkp.photos import Album  # noqa: E402
from fkp.settings import Settings  # noqa: E402

HERE = Path(__file__).parent
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

MAX_FILES = 20
"""Photos that are taken at once."""
AT_ONCE = 4
"""Requests that are worked on at the same time; the rest wait in a queue of WAITING."""
WAITING = 64
SESSIONS = 1000
"""Visitors and callers remembered at the same time; beyond that, those longest away are forgotten."""


def build(model: fkp.FaceKeypoints, limits: Settings | None = None) -> gr.Blocks:
    """The page around a model."""
    limits = limits or Settings()
    with gr.Blocks(
        title="Face keypoints",
        analytics_enabled=False,
        delete_cache=(forgetting.SWEEP_SECONDS, forgetting.KEPT_SECONDS),
    ) as page:
        gr.HTML(HEADER)
        with gr.Tabs():
            with gr.Tab("Photo", id="photo"):
                photo_tab(model, limits)
            with gr.Tab("About", id="about") as tab:
                about_tab(model, tab)
        gr.HTML(FOOTER)
        api(model, limits)
    return page


def photo_tab(model: fkp.FaceKeypoints, limits: Settings) -> None:
    """Photos in; their faces drawn, one of them enlarged, and files to save."""
    kept = gr.State(
        Album(),
        time_to_live=forgetting.KEPT_SECONDS,
        delete_callback=lambda album: photos.forget(album, uploads_folder()),
    )
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
            kept: album,
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

    def find(album: Album, sent: Any, shown: list[str], size: float) -> Iterator[dict[Any, Any]]:
        """Look at what was sent, one after the other, and show the first as soon as it is done."""
        try:
            paths, left_out = components.sent(sent, uploads_folder(), MAX_FILES)
        except images.ImageError as error:
            raise components.error(error) from None
        photos.forget(album, uploads_folder(), but=paths)
        album = Album()
        yield {answer: view.say("Looking for faces …")}
        for path in paths:
            album = album.with_photo(photos.look(model, path, limits))
            if len(album.photos) == 1:
                yield everything(album, shown, size) | {strip: view.strip(album, len(paths))}
            elif len(album.photos) < len(paths):
                yield {strip: view.strip(album, len(paths))}
        if len(paths) > 1 or left_out:
            yield everything(album, shown, size, left_out)

    def try_example(album: Album, shown: list[str], size: float, event: gr.EventData) -> dict[Any, Any]:
        photos.forget(album, uploads_folder())
        album = Album()
        if photos.is_index(event.index, len(EXAMPLES)):
            album = album.with_photo(photos.look(model, EXAMPLES[event.index], limits))
        return everything(album, shown, size)

    def go_to(album: Album, shown: list[str], size: float, event: gr.EventData) -> dict[Any, Any]:
        return everything(album.go_to(event.index), shown, size)

    def choose(album: Album, shown: list[str], size: float, event: gr.EventData) -> dict[Any, Any]:
        album = album.choose(event.index)
        faces = gr.HTML(value=view.picture(album, b"")["value"])
        return {kept: album, picture: faces, one_face: face_panel(album, _style(shown, size))}

    def draw_again(album: Album, shown: list[str], size: float) -> dict[Any, Any]:
        """Another style for what was found before: no network runs."""
        style = _style(shown, size)
        changed: dict[Any, Any] = {legend: view.legend(style), one_face: face_panel(album, style)}
        if album.photo and len(album.photo.faces):
            overlay = photos.overlay(album.photo, style)
            changed[picture] = gr.HTML(overlay=view.data_uri(overlay, "image/png"))
        return changed

    def start_again(album: Album, shown: list[str], size: float) -> dict[Any, Any]:
        photos.forget(album, uploads_folder())
        return everything(Album(), shown, size)

    def saving(write: Callable[[Album, draw.Style], Path]) -> Callable[..., str]:
        def save(album: Album, shown: list[str], size: float) -> str:
            if album.photo is None:
                raise gr.Error("There is no photo any more. Please choose it again.", print_exception=False)
            try:
                return str(write(album, _style(shown, size)))
            except images.ImageError as error:
                raise components.error(error) from None

        return save

    state = [kept, options, size]
    all_shown = [kept, answer, picture, strip, one_face, save_picture, save_all, save_json, save_csv, clear]
    private: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": AT_ONCE}
    quick = private | {"show_progress": "hidden"}
    working = quick | {"concurrency_id": "faces"}

    finding = given.upload(
        find, [kept, given, options, size], all_shown, trigger_mode="always_last", **working
    )
    finding.then(js=SCROLL, **private)
    given.select(try_example, state, all_shown, cancels=finding, **working).then(js=SCROLL, **private)
    clear.click(start_again, state, all_shown, cancels=finding, **quick)
    strip.select(go_to, state, all_shown, **quick)
    for chooser in (picture, one_face):
        chooser.select(choose, state, [kept, picture, one_face], **quick)
    for option in (options, size):
        option.change(draw_again, state, [legend, one_face, picture], trigger_mode="always_last", **quick)

    folder = uploads_folder()
    for button, write in {
        save_picture: lambda album, style: photos.save_picture(album, style, limits, folder),
        save_all: lambda album, style: photos.save_pictures(album, style, limits, folder),
        save_json: lambda album, style: photos.save_json(album, folder),
        save_csv: lambda album, style: photos.save_csv(album, folder),
    }.items():
        saved = button.click(saving(write), state, to_save, show_progress_on=button, **private)
        saved.success(None, to_save, js=DOWNLOAD, **private)


def about_tab(model: fkp.FaceKeypoints, tab: gr.Tab) -> None:
    """What the model is, how good, and what happens to photos; fetched when somebody looks."""
    text = gr.HTML(elem_id="about", apply_default_css=False)

    def tell() -> str:
        plots = HERE / "docs" if model.source == hub.BUNDLED else None  # they are of these weights
        return about.text(model.metrics, model.describe()[1:], plots)

    tab.select(tell, None, text, api_visibility="private")


def api(model: fkp.FaceKeypoints, limits: Settings) -> None:
    """What programs may call: /detect and /annotate, and nothing else."""

    def detect(picture: Path) -> dict[str, Any]:
        """Find the faces in a picture and 68 keypoints on each.

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


def _style(shown: list[str], size: float) -> draw.Style:
    return draw.Style(**{name: name in shown for _, name in SHOW}, point_size=size)


def uploads_folder() -> Path:
    """Where Gradio puts what browsers send, and deletes it after a while."""
    return Path(gr.utils.get_upload_folder())


# --- how it looks -------------------------------------------------------------------------------------

HEADER = """
<header id="head">
  <h1>Face keypoints</h1>
  <p>Finds every face in a photo and places 68 points on it: jaw, eyebrows, nose, eyes and lips.</p>
</header>
"""

FOOTER = f"""
<footer id="foot">
  Your photos are worked on by the computer that runs this page and go nowhere else; after
  {forgetting.KEPT_SECONDS // 60} minutes at the latest nothing is left of them. More under About.
</footer>
"""

# On a phone the result stands below the photo.
SCROLL = """() => document.querySelector("#answer").scrollIntoView({behavior: "smooth", block: "nearest"})"""

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
    checkbox_label_background_fill_selected="*primary_700",
    checkbox_label_background_fill_selected_dark="*primary_700",
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
    _, address, _ = page.queue(max_size=WAITING).launch(
        theme=THEME,
        css=components.css(),
        footer_links=[],
        **_known_to(gr.Blocks.launch, run_history=False),  # it would keep photos in the visitor's browser
        ssr_mode=False,
        max_file_size=limits.max_file_size,
        mcp_server=limits.mcp,
        state_session_capacity=SESSIONS,
        app_kwargs={"lifespan": forgetting.sweeping(uploads_folder())},
        **options,
    )
    return address


def load(limits: Settings) -> fkp.FaceKeypoints:
    """The model, warmed up, its network shared by all requests. Raises hub.WeightsError."""
    if limits.threads:
        torch.set_num_threads(limits.threads)
        cv2.setNumThreads(limits.threads)
    model = fkp.FaceKeypoints.from_pretrained(limits.model, revision=limits.revision)
    model.runner = batching.Shared(model.runner)  # type: ignore[assignment]
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
            page.close(verbose=False)


def _has_desktop() -> bool:
    # Without one, a text browser might take over the terminal.
    return sys.platform in ("win32", "darwin") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ


if __name__ == "__main__":
    main()
