"""What can be chosen on every tab: what is drawn, and which faces are looked for."""

from __future__ import annotations

from typing import Any

import gradio as gr

from fkp import draw
from fkp.demo import view
from fkp.demo.components import Slider
from fkp.pipeline import FaceKeypoints

SHOW = [
    ("Points", "points"),
    ("Contours", "contours"),
    ("Mesh", "mesh"),
    ("Numbers of points", "numbers"),
    ("Numbers of faces", "face_numbers"),
    ("Boxes", "boxes"),
    ("Confidence", "confidence"),
]
"""What can be shown: labels, and the fields of `draw.Style` that they switch on."""
SHOWN_AT_FIRST = ["points", "contours"]


def style(shown: list[str], size: float) -> draw.Style:
    """The style that the boxes ticked and the slider ask for."""
    return draw.Style(**{name: name in shown for _, name in SHOW}, point_size=size)


def drawing(
    prefix: str = "", at_first: list[str] = SHOWN_AT_FIRST
) -> tuple[gr.CheckboxGroup, Slider, gr.HTML]:
    """What is drawn, how large the points are, and what the colours mean."""
    shown = gr.CheckboxGroup(SHOW, value=at_first, label="Show", elem_id=f"{prefix}view")
    legend = gr.HTML(view.legend(style(at_first, 1)), elem_id=f"{prefix}legend")
    size = Slider(0.5, 3, 1, step=0.25, label="Size of the points", buttons=[], elem_id=f"{prefix}size")
    return shown, size, legend


def finding(model: FaceKeypoints, most: int, prefix: str = "") -> tuple[Slider, Slider]:
    """Which faces are looked for: sliders for the least confidence, in percent, and for how many at most."""
    least: dict[str, Any] = {"label": "Least confidence of a face, percent", "elem_id": f"{prefix}least"}
    return (
        Slider(5, 95, usual_confidence(model), step=1, buttons=[], **least),
        Slider(1, max(most, 2), most, step=1, label="Most faces", buttons=[], elem_id=f"{prefix}most"),
    )


def usual_confidence(model: FaceKeypoints) -> int:
    """The detector's own least confidence, in percent, as near as the slider shows it."""
    config = getattr(model.face_detector, "config", None)
    return round(100 * getattr(config, "min_score", 0.5))


def least_score(model: FaceKeypoints, percent: float) -> float | None:
    """What the slider asks for, as `min_score` of a model: None, the detector's own, where it was not
    moved."""
    return None if percent == usual_confidence(model) else percent / 100
