"""The page's own components for Gradio; their scripts and styles lie in fkp/web/."""

from __future__ import annotations

import html
from abc import ABCMeta
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.component_meta import ComponentMeta
from gradio.data_classes import ImageData
from gradio.processing_utils import save_base64_to_cache

from fkp import images, photos, view
from fkp.settings import Settings

WEB = Path(__file__).parent / "web"

ACCEPTED = "image/*,.heic,.heif,.avif,.jp2,.tif,.tiff,.ppm"
"""What a browser offers to choose; `images.read` decides."""


def upload(examples: list[Path], settings: Settings, max_files: int, **options: Any) -> gr.HTML:
    """Where photos are given: chosen, dropped, pasted or taken with the camera; or an example.

    Its value is {"paths": [file of the upload folder …], "left_out": number} at the event `upload`; the event
    `select` has the `index` of an example. Nothing that the browser says of either can be trusted.
    """
    limit = f"Up to {max_files} at once, {settings.max_file_size / 1e6:g} MB each."
    buttons = "".join(
        f'<button type="button" data-example="{number}" aria-label="Try the example {title}" title="{title}">'
        f'<img src="{view.data_uri(photos.thumbnail(path))}" alt=""></button>'
        for number, path in enumerate(examples)
        for title in [html.escape(path.stem.replace("_", " ").capitalize())]
    )
    return gr.HTML(
        None,
        html_template=UPLOAD.format(accepted=ACCEPTED, limit=limit)
        + (f'<div class="examples"><span>Or try one of these:</span>{buttons}</div>' if examples else ""),
        js_on_load=(WEB / "upload.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        max_files=max_files,
        max_file_size=settings.max_file_size,
        **options,
    )


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
</div>
<div class="camera" hidden>
  <video playsinline muted aria-label="What the camera sees, mirrored"></video>
  <div class="ways">
    <button type="button" class="way main" data-way="shoot">Take the photo</button>
    <button type="button" class="way" data-way="close">Close the camera</button>
  </div>
</div>
"""


def sent(value: Any, folder: Path, max_files: int) -> tuple[list[Path], int]:
    """What the upload's value says: files in the folder of uploads, and how many more there were.

    Raises images.ImageError for anything else.
    """
    names = value.get("paths") if isinstance(value, dict) else None
    if not isinstance(names, list) or not names:
        raise images.ImageError("What was sent is no list of uploaded files.")
    left_out = value.get("left_out")
    paths = [photos.uploaded(name, folder) for name in names[:max_files]]
    return paths, left_out if isinstance(left_out, int) else 0


def picture(**options: Any) -> gr.HTML:
    """A photo and what is drawn of its faces; its properties come from `view.picture`.

    The event `select` has the `index` of a face.
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
  <div class="stage"><div class="sheet" style="aspect-ratio: ${ratio}; --shape: ${shape}">
    <img class="base" src="${base}" alt="${alt}">
    <img class="overlay" src="${overlay}" alt="">
    <div class="faces">${value}</div>
  </div></div>
  <div class="under">
    <label>Before <input type="range" min="0" max="100" value="100"
      aria-label="How much of the photo shows what was found, in percent"> After</label>
    <button type="button" class="way" data-way="fullscreen">Full screen</button>
  </div>
</div>
"""


def chooser(**options: Any) -> gr.HTML:
    """HTML with buttons that have a number; the event `select` has it as `index`."""
    script = (WEB / "choose.js").read_text(encoding="utf-8")
    return gr.HTML("", js_on_load=script, apply_default_css=False, **options)


def css() -> str:
    """The styles of the whole page."""
    return (WEB / "page.css").read_text(encoding="utf-8")


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
        try:
            return photos.uploaded(payload.path, Path(self.GRADIO_CACHE))
        except images.ImageError as reason:
            raise error(reason) from None


def error(reason: images.ImageError) -> gr.Error:
    """What callers of the API are told; nothing is printed."""
    return gr.Error(str(reason), print_exception=False)
