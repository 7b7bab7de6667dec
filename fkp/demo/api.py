"""What programs may call: /detect and /annotate, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

from fkp import draw, images, report
from fkp.demo import components, photos
from fkp.demo.events import AT_ONCE
from fkp.demo.site import Site
from fkp.faces import Faces


def build(site: Site) -> None:
    """What programs may call: /detect and /annotate, and nothing else."""
    model, limits = site.model, site.settings

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
        return str(photos.write_png(site.uploads, name, draw.draw(pixels, faces)))

    def look(picture: Path) -> tuple[Any, Faces]:
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
