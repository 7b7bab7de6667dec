"""The demo page: a photo in, the 68 keypoints of every face out. Layout and events, no maths.

    python app.py                          opens http://127.0.0.1:7860
    python app.py --host 0.0.0.0 --port 8080
    FKP_MODEL=owner/name python app.py     other weights: a Hub repository or a folder

Works without any network, and hosts unchanged on Hugging Face Spaces.
"""

from __future__ import annotations

import argparse
import html
import inspect
import os
import sys
import tempfile
from abc import ABCMeta
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np
from gradio.component_meta import ComponentMeta
from gradio.data_classes import ImageData

import fkp
from fkp import draw, images, report

EXAMPLES = Path(__file__).parent / "examples"
EXAMPLE_PICTURES = [EXAMPLES / f"{name}.jpg" for name in ("eileen_collins", "grace_hopper", "four_faces")]

VIEWS = [
    ("Points", "points"),
    ("Contours", "contours"),
    ("Numbers", "numbers"),
    ("Boxes", "boxes"),
    ("Confidence", "confidence"),
]
"""The view options: labels, and the arguments of `draw.draw` that they switch on."""
SHOWN_AT_FIRST = ["points", "contours"]

KEPT_SECONDS = 3600
"""How long pictures and results stay on the server."""


@dataclass(frozen=True)
class Photo:
    """What a visitor gave: a picture (H,W,3) uint8 RGB, or what is to be said about it instead."""

    name: str
    pixels: np.ndarray | None = None
    problem: str = ""


class _WithoutStub(ComponentMeta):
    """Makes a component class as Gradio does, but for the file app.pyi that it would write next to this."""

    def __new__(mcs, name: str, bases: tuple[type, ...], attributes: dict[str, Any]) -> _WithoutStub:
        return ABCMeta.__new__(mcs, name, bases, attributes)


class PhotoInput(gr.Image, metaclass=_WithoutStub):
    """An image input that reads its file as the rest of fkp does, and keeps what is wrong with it.

    gr.Image itself opens the file before any function of ours runs: what is no picture ends in an internal
    message, and a GIF arrives as the indices of its palette.
    """

    is_template = True

    def preprocess(self, payload: ImageData | None) -> Photo | None:  # type: ignore[override]
        if payload is None:
            return None
        # The upload's name on the server, which Gradio has made harmless, not what the browser claims.
        path = Path(payload.path or "photo")
        if not path.is_file():
            return Photo(path.name, problem="is no longer here. Please choose it again.")
        try:
            return Photo(path.name, images.read(path))
        except images.ImageError as error:
            reason = str(error).replace(str(path), path.name).removeprefix(f"{path.name}: ")
            return Photo(path.name, problem=f"{reason}. Please choose another photo.")


def build(model: fkp.FaceKeypoints) -> gr.Blocks:
    """The page around a model."""
    # Served from where they are: copies among the uploads would be deleted with them.
    gr.set_static_paths(EXAMPLE_PICTURES)

    with gr.Blocks(title="Face keypoints", analytics_enabled=False, delete_cache=(300, KEPT_SECONDS)) as page:
        gr.HTML(HEADER)
        faces = gr.State(fkp.Faces.none())
        with gr.Row():
            with gr.Column(scale=5):
                photo = PhotoInput(
                    label="Photo",
                    sources=["upload", "webcam", "clipboard"],
                    # A mirrored snapshot would swap left and right for good.
                    webcam_options=gr.WebcamOptions(mirror=False),
                    placeholder="Drop a photo here\nor click to choose one",
                    buttons=["fullscreen"],
                    height=440,
                    elem_id="photo",
                )
                gr.Examples(
                    [[str(path)] for path in EXAMPLE_PICTURES],
                    photo,
                    label="Or try one of these",
                    cache_examples=False,
                    elem_id="examples",
                    api_visibility="private",
                )
            with gr.Column(scale=6):
                result = gr.Image(
                    label="Keypoints",
                    interactive=False,
                    buttons=["fullscreen"],
                    height=440,
                    elem_id="result",
                    **_known_to(gr.Image, alt_text="The photo with the keypoints drawn on every face"),
                )
                answer = gr.HTML(_answer(None, fkp.Faces.none()), elem_id="answer")
                view = gr.CheckboxGroup(VIEWS, value=SHOWN_AT_FIRST, label="Show", elem_id="view")
                legend = gr.HTML(_legend(SHOWN_AT_FIRST))
                with gr.Row():
                    png, json, csv = (
                        gr.DownloadButton(label, interactive=False, size="md", min_width=90)
                        for label in ("Save picture", "Save JSON", "Save CSV")
                    )
        gr.HTML(FOOTER)

        shown = [answer, result, legend, png, json, csv]

        def find(given: Photo | None, options: list[str]) -> tuple[Any, ...]:
            """The faces of a new photo, and all that is shown of them."""
            found = fkp.Faces.none()
            if given is not None and given.pixels is not None:
                found = model(given.pixels)
            return found, *show(given, found, options)

        def show(given: Photo | None, found: fkp.Faces, options: list[str]) -> tuple[Any, ...]:
            """What there is to say, the faces drawn on their photo, the legend, and the files to save."""
            if given is None or given.pixels is None or len(found) == 0:
                nothing = gr.update(value=None, interactive=False)
                return _answer(given, found), None, _legend(options), nothing, nothing, nothing
            drawn = draw.draw(given.pixels, found, **{name: name in options for _, name in VIEWS})
            files = _write_files(Path(photo.GRADIO_CACHE), given, found, drawn)
            saves = [gr.update(value=file, interactive=True) for file in files]
            return _answer(given, found), files[0], _legend(options), *saves

        private: dict[str, Any] = {"api_visibility": "private", "concurrency_limit": 2}
        photo.change(find, [photo, view], [faces, *shown], show_progress_on=result, **private).then(
            js=SCROLL_TO_ANSWER, **private
        )
        view.change(show, [photo, faces, view], shown, show_progress_on=result, **private)
    return page


def _write_files(cache: Path, photo: Photo, faces: fkp.Faces, drawn: np.ndarray) -> list[str]:
    """The drawn picture as PNG, the JSON and the CSV, in a new folder of Gradio's cache, which expires."""
    cache.mkdir(parents=True, exist_ok=True)
    start = Path(tempfile.mkdtemp(dir=cache), f"{Path(photo.name).stem}_keypoints")
    png, json, csv = (f"{start}.{kind}" for kind in ("png", "json", "csv"))
    records = [report.record(photo.name, drawn.shape, faces)]
    # OpenCV writes a large PNG six times as fast as Pillow.
    Path(png).write_bytes(cv2.imencode(".png", cv2.cvtColor(drawn, cv2.COLOR_RGB2BGR))[1].tobytes())
    Path(json).write_text(report.to_json(records), encoding="utf-8")
    with open(csv, "w", encoding="utf-8", newline="") as file:
        report.write_csv(file, records)
    return [png, json, csv]


# --- how it looks -------------------------------------------------------------------------------------

HEADER = """
<header id="head">
  <h1>Face keypoints</h1>
  <p>Finds every face in a photo and places 68 points on it: jaw, eyebrows, nose, eyes and lips.</p>
</header>
"""

FOOTER = f"""
<footer id="foot">
  Your photo is worked on by the computer that runs this page and goes nowhere else.
  Photos and results are deleted there after {KEPT_SECONDS // 60} minutes.
</footer>
"""


def _answer(photo: Photo | None, faces: fkp.Faces) -> str:
    """One sentence on what was found, or why nothing was."""
    if photo is None:
        return _say("Choose a photo, and its keypoints appear here.")
    if photo.pixels is None:
        return _say(f"<b>{html.escape(photo.name)}</b> {html.escape(photo.problem)}", "problem")
    if len(faces) == 0:
        advice = "Small, dark, covered or averted faces are easily missed: try a closer or brighter photo."
        return _say(f"<b>No face found.</b> {advice}", "problem")
    return _say(f"<b>Found {len(faces)} face{'s' if len(faces) > 1 else ''}.</b>")


def _say(sentence: str, kind: str = "fine") -> str:
    return f'<p class="answer {kind}" role="status">{sentence}</p>'


def _legend(options: list[str]) -> str:
    """What the colours mean."""
    if "confidence" in options:
        stops = ", ".join(_css(colour) for colour in draw.CONFIDENCE_COLOURS)
        scale = f'<i class="scale" style="background:linear-gradient(90deg,{stops})"></i>'
        entries = f"<span>unsure</span>{scale}<span>sure</span>"
    elif {"points", "contours", "numbers"} & set(options):
        entries = "".join(
            f'<span><i style="background:{_css(colour)}"></i>{name.replace("_", " ")}</span>'
            for name, colour in draw.COLOURS.items()
        )
    else:
        entries = ""
    return f'<div class="legend">{entries}</div>'


def _css(colour: draw.Colour) -> str:
    return "rgb({},{},{})".format(*colour)


# On a phone the result stands below the photo.
SCROLL_TO_ANSWER = """() => {
  if (document.querySelector("#photo img"))
    document.querySelector("#answer").scrollIntoView({behavior: "smooth", block: "nearest"});
}"""

CSS = """
.gradio-container { width: 100%; max-width: 1180px !important; margin: 0 auto !important; }
.html-container { padding: 0 !important; }
#head { padding: 1rem 0 0.2rem; }
#head h1 { font-size: 1.9rem; font-weight: 700; letter-spacing: -0.02em; margin: 0; }
#head p { font-size: 1.05rem; opacity: 0.8; margin: 0.2rem 0 0; }
#foot { font-size: 0.85rem; opacity: 0.8; padding: 0.6rem 0; }
.answer { font-size: 1.05rem; margin: 0; padding: 0.65rem 0.9rem; border-radius: 0 8px 8px 0;
  background: var(--block-background-fill); border-left: 4px solid var(--primary-500);
  overflow-wrap: anywhere; }
.answer.problem { border-left-color: #e0702a; }
.legend { display: flex; flex-wrap: wrap; gap: 0.25rem 0.9rem; align-items: center; font-size: 0.85rem; }
.legend span { display: inline-flex; align-items: center; gap: 0.35rem; }
.legend i { width: 0.8rem; height: 0.8rem; border-radius: 50%; border: 1px solid rgba(0, 0, 0, 0.55); }
.legend i.scale { width: 9rem; border-radius: 0.4rem; }
@media (max-width: 640px) { #photo, #result { height: 340px !important; } }
"""

# Fonts of the visitor's computer: none is fetched from anywhere.
THEME = gr.themes.Soft(
    primary_hue="sky",
    neutral_hue="slate",
    font=["system-ui", "sans-serif"],
    font_mono=["ui-monospace", "monospace"],
    radius_size="lg",
).set(
    background_fill_primary="*neutral_100",
    # Darker than the theme has them, for enough contrast with white.
    checkbox_label_background_fill_selected="*primary_700",
    checkbox_label_background_fill_selected_dark="*primary_700",
    block_label_text_color="*primary_700",
    block_title_text_color="*primary_700",
)


def _known_to(gradio_function: Callable[..., Any], **options: Any) -> dict[str, Any]:
    """Those options that this version of Gradio has: run_history came with 6.24, alt_text with 6.27."""
    return {k: v for k, v in options.items() if k in inspect.signature(gradio_function).parameters}


def launch(page: gr.Blocks, **options: Any) -> str:
    """Serve the page, as it promises to be; returns its address. `options` are those of Blocks.launch."""
    _, address, _ = page.queue(max_size=64).launch(
        theme=THEME,
        css=CSS,
        footer_links=[],
        **_known_to(gr.Blocks.launch, run_history=False),  # it would keep photos in the visitor's browser
        ssr_mode=False,
        max_file_size="50mb",
        **options,
    )
    return address


def main() -> None:
    parser = argparse.ArgumentParser(description="Open the face keypoints page in the browser.")
    parser.add_argument("--host", help="address to listen on, 0.0.0.0 for every network (default: 127.0.0.1)")
    parser.add_argument("--port", type=int, help="port to listen on (default: the first free one from 7860)")
    parser.add_argument(
        "--model",
        default=os.environ.get("FKP_MODEL") or None,
        help="weights: a folder or a Hub repository OWNER/NAME (default: FKP_MODEL, or those in the package)",
    )
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    args = parser.parse_args()

    # Spinning threads make torch many times slower on shared cores; it reads this when it is first imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from fkp.hub import WeightsError

    try:
        model = fkp.FaceKeypoints.from_pretrained(args.model)
    except WeightsError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    open_browser = not args.no_browser and _has_desktop()
    launch(build(model), server_name=args.host, server_port=args.port, inbrowser=open_browser)


def _has_desktop() -> bool:
    # Without one, a text browser might take over the terminal.
    return sys.platform in ("win32", "darwin") or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ


if __name__ == "__main__":
    main()
