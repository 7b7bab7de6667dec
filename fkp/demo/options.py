"""What can be chosen to be drawn, the same on every tab."""

from __future__ import annotations

from fkp import draw

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


def style(shown: list[str], size: float) -> draw.Style:
    """The style that the boxes ticked and the slider ask for."""
    return draw.Style(**{name: name in shown for _, name in SHOW}, point_size=size)
