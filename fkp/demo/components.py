"""The page's own components for Gradio; their scripts and styles lie in fkp/demo/static/."""

from __future__ import annotations

import html
import math
from abc import ABCMeta
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.component_meta import ComponentMeta
from gradio.data_classes import ImageData
from gradio.processing_utils import save_base64_to_cache
from starlette.responses import JSONResponse

from fkp import draw, images
from fkp.demo import clip_jobs, live, photos, uploads, view, visitors
from fkp.demo.settings import Settings

WEB = Path(__file__).parent / "static"

ACCEPTED = "image/*,.heic,.heif,.avif,.jp2,.tif,.tiff,.ppm"
"""What a browser offers to choose; `images.read` decides."""


def upload(examples: list[Path], settings: Settings, max_files: int, **options: Any) -> gr.HTML:
    """Where photos are given: chosen, dropped, pasted or taken with the camera; or an example.

    Its value is {"paths": [file of the upload folder …], "left_out": number, "moment": when} at the event
    `upload`; the event `select` has the `index` of an example and the `moment` of the click. Nothing that the
    browser says of either can be trusted.
    """
    limit = f"Up to {max_files} at once, {settings.max_file_size / 1e6:g} MB each."
    return gr.HTML(
        None,
        html_template=UPLOAD.format(accepted=ACCEPTED, limit=limit)
        + _to_try("Or try one of these:", examples, photos.thumbnail),
        js_on_load=(WEB / "upload.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        what="photo",
        max_files=max_files,
        max_file_size=settings.max_file_size,
        **options,
    )


TITLES = {
    "eileen_collins": "Eileen Collins",
    "grace_hopper": "Grace Hopper",
    "four_faces": "Four faces",
    "two_portraits": "Two portraits",
}
"""What the examples are called, as in examples/SOURCES.md."""


def _to_try(told: str, examples: list[Path], picture: Callable[[Path], bytes], mark: str = "") -> str:
    """A button for each example, with its small picture and what is laid over that."""
    buttons = "".join(
        f'<button type="button" data-example="{number}" aria-label="Try the example {title}" title="{title}">'
        f'<img src="{view.data_uri(picture(path))}" alt="">{mark}</button>'
        for number, path in enumerate(examples)
        for title in [html.escape(TITLES.get(path.stem, path.stem.replace("_", " ")))]
    )
    return f'<div class="examples"><span>{told}</span>{buttons}</div>' if examples else ""


def clip_upload(examples: list[Path], settings: Settings, **options: Any) -> gr.HTML:
    """Where a clip is given: chosen, dropped or pasted, or an example. Value and events as of `upload`."""
    limit = f"Up to {view.duration(settings.max_clip_seconds)} or {settings.max_clip_frames} frames, "
    limit += f"{settings.max_clip_size / 1e6:g} MB, "
    limit += f"frames of up to {clip_jobs.MAX_PIXELS / 1e6:.1f} million pixels (4K)."
    return gr.HTML(
        None,
        html_template=CLIP_UPLOAD.format(limit=limit)
        + _to_try("Or try this one:", examples, clip_jobs.poster, '<i aria-hidden="true">▶</i>'),
        js_on_load=(WEB / "upload.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        what="clip",
        max_files=1,
        max_file_size=settings.max_clip_size,
        **options,
    )


CLIP_UPLOAD = """
<div class="drop">
  <p class="lead">Drop a clip here</p>
  <div class="ways">
    <label class="way main">Choose a clip
      <input type="file" accept="video/*,.mkv,.mp4,.m4v,.mov,.webm,.avi,.gif" aria-label="Choose a clip">
    </label>
  </div>
  <p class="hint">{limit}</p>
  <p class="told" role="alert"></p>
  <button type="button" class="way" data-way="other" hidden></button>
</div>
"""


UPLOAD = """
<div class="drop">
  <p class="lead">Drop photos here</p>
  <div class="ways">
    <label class="way main">Choose photos
      <input type="file" multiple accept="{accepted}" aria-label="Choose photos">
    </label>
    <button type="button" class="way" data-way="camera">Use the camera</button>
    <button type="button" class="way" data-way="paste">Paste</button>
  </div>
  <p class="hint">{limit}</p>
  <p class="told" role="alert"></p>
  <button type="button" class="way" data-way="other" hidden></button>
</div>
<div class="camera" hidden>
  <video playsinline muted aria-label="What the camera sees, mirrored"></video>
  <div class="ways">
    <button type="button" class="way main" data-way="shoot">Take the photo</button>
    <button type="button" class="way" data-way="close">Close the camera</button>
  </div>
</div>
"""


def sent(value: Any, folder: Path, max_files: int) -> tuple[list[Path], int, Any]:
    """What the upload's value says: this visitor's copies of the files, how many more there were, and when.

    Raises images.ImageError for anything else.
    """
    names = value.get("paths") if isinstance(value, dict) else None
    if not isinstance(names, list) or not names:
        raise images.ImageError("What was sent is no list of uploaded files.")
    left_out = value.get("left_out")
    paths = uploads.claimed([uploads.uploaded(name, folder) for name in names[:max_files]], folder)
    return paths, left_out if isinstance(left_out, int) else 0, value.get("moment")


def picture(**options: Any) -> gr.HTML:
    """A photo and what is drawn of its faces; its properties come from `view.picture`.

    The events `select` and `delete` have the `index` of a face.
    """
    return gr.HTML(
        html_template=PICTURE,
        js_on_load=(WEB / "picture.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        **view.picture(photos.Album(), b""),
        **options,
    )


PICTURE = """
<div class="viewer" ${hidden}>
  <div class="stage"><div class="sheet" style="aspect-ratio: ${ratio}; --shape: ${shape}"><div class="paper">
    <img class="base" src="${base}" alt="${alt}">
    <img class="overlay" src="${overlay}" alt="">
    <div class="faces" role="group" aria-label="Faces in the photo">${value}</div>
  </div></div></div>
  <div class="under">
    <label>Before <input type="range" min="0" max="100" value="100"
      aria-label="How much of the photo shows what was found, in percent"> After</label>
    <span class="zoom" role="group" aria-label="Zoom">
    <button type="button" class="way" data-way="smaller" aria-label="Smaller">−</button>
    <button type="button" class="way" data-way="larger" aria-label="Larger">+</button>
    <button type="button" class="way" data-way="whole">Whole picture</button></span>
    <button type="button" class="way" data-way="fullscreen">Full screen</button>
  </div>
</div>
"""


def chooser(**options: Any) -> gr.HTML:
    """HTML with buttons that have a number; the event `select` has it as `index`, and `delete` that of a face
    that is to be left out."""
    script = (WEB / "choose.js").read_text(encoding="utf-8")
    return gr.HTML("", js_on_load=script, apply_default_css=False, **options)


def camera(viewers: live.Viewers, least: int, **options: Any) -> gr.HTML:
    """The camera, with the keypoints drawn over it; frames and numbers go to and fro by `live.Viewers`.

    `least` is the confidence of a face, in percent, from which on it is shown at first. Its three functions
    are reached by this page only, and are no part of the API.
    """

    # Gradio would look at every number of an answer before it sends it; a response it sends as it is.
    async def join(_: Any, request: gr.Request) -> JSONResponse:
        return JSONResponse(await viewers.join(visitors.address(request)))

    async def track(sent: Any) -> JSONResponse:
        return JSONResponse(await viewers.track(sent))

    async def leave(sent: Any) -> JSONResponse:
        return JSONResponse(await viewers.leave(sent))

    return gr.HTML(
        None,
        html_template=(WEB / "live.html").read_text(encoding="utf-8"),
        js_on_load=(WEB / "live.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        server_functions=[join, track, leave],
        drawing=view.drawing_style(),
        least=least,
        rate=live.MAX_RATE,
        hint=SENT,
        by_part=view.legend(draw.Style()),
        by_confidence=view.legend(draw.Style(confidence=True)),
        **options,
    )


SENT = """Small pictures of what the camera sees go to the computer that runs this page, which looks at each
in memory, answers with numbers and forgets it: none is written to a file."""


def head() -> str:
    """The script of the whole page, for its head."""
    return f"<script>{(WEB / 'page.js').read_text(encoding='utf-8')}</script>"


def css() -> str:
    """The styles of the whole page."""
    return "\n".join((WEB / name).read_text(encoding="utf-8") for name in ("page.css", "live.css"))


class _WithoutStub(ComponentMeta):
    """Makes a component class as Gradio does, but for the .pyi file that it would write next to this one."""

    def __new__(mcs, name: str, bases: tuple[type, ...], attributes: dict[str, Any]) -> _WithoutStub:
        return ABCMeta.__new__(mcs, name, bases, attributes)


class PictureFile(gr.Image, metaclass=_WithoutStub):
    """The API's input: functions get the path of the picture's file, which nobody has opened yet.

    gr.Image itself opens it before any function of ours runs: what is no picture ends in an internal message,
    and a GIF arrives as the indices of its palette.
    """

    is_template = True

    def preprocess(self, payload: ImageData | None) -> Path:  # type: ignore[override]
        """The picture's path, within the folder of uploads: Gradio checks only what calls itself a file."""
        if payload is not None and payload.url and payload.url.startswith("data:"):
            payload.path = save_base64_to_cache(payload.url, self.GRADIO_CACHE)
        if payload is None or not payload.path:
            raise gr.Error("A picture is needed.", print_exception=False)
        return _uploaded(payload.path, self.GRADIO_CACHE)


def _uploaded(path: str, cache: str) -> Path:
    """`uploads.uploaded`, its refusal told by Gradio."""
    try:
        return uploads.uploaded(path, Path(cache))
    except images.ImageError as reason:
        raise error(reason) from None


class ClipFile(gr.File, metaclass=_WithoutStub):
    """The API's input of a clip: functions get the path of its file."""

    is_template = True

    def preprocess(self, payload: Any) -> Path:  # type: ignore[override]
        """The clip's path, within the folder of uploads."""
        if payload is None or not getattr(payload, "path", None):
            raise gr.Error("A clip is needed.", print_exception=False)
        return _uploaded(payload.path, self.GRADIO_CACHE)


class Slider(gr.Slider, metaclass=_WithoutStub):
    """A slider whose box takes any number and makes it fit, where Gradio's own ends in an error."""

    is_template = True

    def preprocess(self, payload: float) -> float:
        """The number, within the slider's limits; where it is none, what the slider begins with."""
        least, most = float(self.minimum), float(self.maximum)
        if not isinstance(payload, (int, float)) or (isinstance(payload, float) and math.isnan(payload)):
            return float(self.value or least)
        return min(max(payload, least), most)


class Range(gr.Number, metaclass=_WithoutStub):
    """A number from `least` to `most` for the API: the schema tells both, and what is none gets a
    sentence."""

    is_template = True

    def __init__(self, least: float, most: float, value: float, *, label: str, integer: bool = False) -> None:
        self.least, self.most, self.integer = least, most, integer
        super().__init__(value, label=label, precision=0 if integer else None)

    def api_info(self) -> dict[str, Any]:
        """Its JSON schema."""
        return {
            "type": "integer" if self.integer else "number",
            "minimum": self.least,
            "maximum": self.most,
            "description": f"{self.label}, from {self.least:g} to {self.most:g}",
        }

    def preprocess(self, payload: Any) -> float:
        """The number."""
        number = isinstance(payload, (int, float)) and not isinstance(payload, bool)
        if not number or not self.least <= payload <= self.most or (self.integer and payload != int(payload)):
            kind = "a whole number" if self.integer else "a number"
            sentence = (
                f"{self.label} is {payload!r}, where {kind} from {self.least:g} to {self.most:g} is needed."
            )
            raise gr.Error(sentence, print_exception=False)
        return float(payload)


class Choice(gr.Dropdown, metaclass=_WithoutStub):
    """One of several names for the API; what is none of them gets a sentence, where Gradio's own lets null
    through and writes the rest to the log."""

    is_template = True

    def preprocess(self, payload: Any) -> str:  # type: ignore[override]
        """The name."""
        return _one_of(payload, self)


class Choices(gr.CheckboxGroup, metaclass=_WithoutStub):
    """Any of several names for the API."""

    is_template = True

    def preprocess(self, payload: Any) -> list[str]:  # type: ignore[override]
        """The names."""
        if not isinstance(payload, list):
            raise gr.Error(f"{self.label} is {payload!r}, where a list is needed.", print_exception=False)
        return [_one_of(each, self) for each in payload]


def _one_of(name: Any, block: Choice | Choices) -> str:
    names = [value for _, value in block.choices]
    if (str(name) if isinstance(name, int) else name) not in names:  # Python has passes=1
        sentence = f"{block.label} is {name!r}, where one of {', '.join(map(str, names))} is needed."
        raise gr.Error(sentence, print_exception=False)
    return str(name)


def error(reason: images.ImageError) -> gr.Error:
    """What callers of the API are told; nothing is printed."""
    return gr.Error(str(reason), print_exception=False)


class Page(gr.Blocks):
    """A page whose events answer with a sentence whatever they are sent, and keep nothing of it."""

    async def preprocess_data(self, block_fn: Any, *args: Any, **kwargs: Any) -> Any:
        """As Gradio's, which tells only the log what is wrong with an input."""
        try:
            return await super().preprocess_data(block_fn, *args, **kwargs)
        except gr.Error:
            raise
        except Exception:
            needed = ", ".join(filter(None, (getattr(block, "label", "") for block in block_fn.inputs)))
            sentence = f"What was sent is not what is needed here{needed and f' ({needed})'}."
            raise gr.Error(sentence, print_exception=False) from None

    async def process_api(self, *args: Any, **kwargs: Any) -> Any:
        """As Gradio's, which keeps what was last sent and answered for links to it, an hour long."""
        try:
            return await super().process_api(*args, **kwargs)
        except gr.Error:
            raise
        except Exception as failure:  # Gradio prints it where nobody but the server's owner sees it
            raise gr.Error("This did not work. Please try again.") from failure
        finally:
            function, state = kwargs.get("block_fn"), kwargs.get("state")
            if state is not None:
                for block in (*getattr(function, "inputs", ()), *getattr(function, "outputs", ())):
                    state.config_values.get(block._id, {}).get("props", {}).pop("value", None)
