"""What programs may call: /detect, /annotate and /track, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from fkp import draw, images, report, scheme
from fkp.demo import clip_jobs, components, options, photos, visitors
from fkp.demo.events import AT_ONCE
from fkp.demo.site import Site
from fkp.faces import Faces

NO_STYLE = "none"
"""What `label_style` None is called, for a choice needs a name."""


def build(site: Site, job_queue: clip_jobs.JobQueue) -> None:
    """What programs may call: /detect, /annotate and /track, and nothing else."""
    model, limits = site.model, site.settings

    def detect(
        picture: Path, min_score: float, max_faces: float, passes: str, label_style: str,
        request: gr.Request,
    ) -> dict[str, Any]:  # fmt: skip
        """Find faces in a picture and 68 keypoints on each.

        Args:
            picture: a photo, as a file
            min_score: the least confidence of a face, 0 to 1
            max_faces: how many faces at most, the largest
            passes: of the network over a face: auto (more where it is unsure), 1 or 2
            label_style: none (points where they are seen), or the conventions of a data set's labels

        Returns:
            {"image", "width", "height", "faces": [{"number", "box": [x1, y1, x2, y2], "score", "keypoints":
            [[x, y] for 68 points], "keypoint_scores": [68 numbers], "visibility", "guess", "pose",
            "eye_openness", "mouth_openness"}]}, in pixels of the picture, largest face first; scores are 0 to
            1. Of a picture that breaks off "incomplete" is true.
        """
        with detected(picture, min_score, max_faces, passes, label_style, request) as (opened, faces):
            found = photos.in_file(opened, faces)
            return report.record(picture.name, opened.size_wh[::-1], found, opened.complete)

    def annotate(
        picture: Path, min_score: float, max_faces: float, passes: str, label_style: str,
        show: list[str], point_size: float, request: gr.Request,
    ) -> str:  # fmt: skip
        """Draw the 68 keypoints of every face on a copy of a picture.

        Args:
            picture: a photo, as a file
            min_score: the least confidence of a face, 0 to 1
            max_faces: how many faces at most, the largest
            passes: of the network over a face: auto (more where it is unsure), 1 or 2
            label_style: none (points where they are seen), or the conventions of a data set's labels
            show: what is drawn
            point_size: how large the points are, 1 is usual

        Returns:
            The same picture with its faces drawn on it, as PNG; one of more than 40 million pixels at a half
            or a quarter of its width and height.
        """
        with detected(picture, min_score, max_faces, passes, label_style, request) as (opened, faces):
            drawn = draw.draw(opened.image, faces, options.style(show, point_size))
        return str(photos.write_png(site.uploads, f"{picture.stem}_keypoints.png", drawn))

    def track(clip: Path, min_score: float, max_faces: float, request: gr.Request) -> dict[str, Any]:
        """Follow the faces of a clip, with 68 keypoints on each in every frame.

        Args:
            clip: a video, as a file
            min_score: the least confidence of a new face, 0 to 1
            max_faces: how many faces are followed at most

        Returns:
            {"video", "width", "height", "frames": [{"frame": from 0, "time": seconds, "faces": [as of detect,
            each with "face", the number that it keeps throughout the clip]}]}
        """
        info = clip_jobs.probe(clip, limits)
        if info.problem:
            raise gr.Error(info.problem, print_exception=False)
        spec = clip_jobs.job_spec(
            clip, draw.Style(), False, limits, site.uploads,
            max_faces=round(max_faces), min_score=min_score, drawn=False,
        )  # fmt: skip
        try:
            job = job_queue.begin(spec, visitors.name(request))
        except clip_jobs.BusyError as error:
            raise gr.Error(str(error), print_exception=False) from None
        try:
            while not job.wait(1.0):
                pass
            if not job.done:
                raise gr.Error(job.problem or "The work was stopped.", print_exception=False)
            found: dict[str, Any] = json.loads(spec.json.read_text(encoding="utf-8"))
            return found
        finally:
            job.discard()

    @contextmanager
    def detected(
        picture: Path, min_score: float, max_faces: float, passes: str, label_style: str, request: gr.Request
    ) -> Iterator[tuple[images.Reduced, Faces]]:
        chosen = model.with_options(
            passes=int(passes) if passes.isdecimal() else passes,
            label_style=None if label_style == NO_STYLE else label_style,
        )
        least = options.least_score(model, round(100 * min_score, 6))
        try:
            with photos.held(picture, limits, visitors.name(request)) as opened:
                yield opened, photos.find(chosen, opened.image, round(max_faces), least)[0]
        except images.ImageError as error:
            raise components.error(error) from None

    usual = options.usual_confidence(model) / 100
    with gr.Column(visible=False):
        given = components.PictureFile(label="Picture")
        clip = components.ClipFile(label="Clip")
        which = [
            components.Range(0, 1, usual, label="min_score"),
            components.Range(1, limits.max_faces, limits.max_faces, integer=True, label="max_faces"),
        ]
        how = [
            components.Choice(["auto", "1", "2"], value="auto", label="passes"),
            components.Choice([NO_STYLE, *scheme.LABEL_STYLES], value=NO_STYLE, label="label_style"),
        ]
        style = [
            components.Choices(
                [name for _, name in options.SHOW], value=options.SHOWN_AT_FIRST, label="show"
            ),
            components.Range(0.5, 3, 1, label="point_size"),
        ]
        found, frames = gr.JSON(label="Faces"), gr.JSON(label="Frames")
        drawn = gr.Image(label="Picture with keypoints", format="png")
        public: dict[str, Any] = {"concurrency_id": "faces", "concurrency_limit": AT_ONCE}
        gr.Button("Detect").click(detect, [given, *which, *how], found, api_name="detect", **public)
        gr.Button("Annotate").click(
            annotate, [given, *which, *how, *style], drawn, api_name="annotate", **public
        )
        gr.Button("Track").click(
            track, [clip, *which], frames, api_name="track",
            concurrency_id="clips", concurrency_limit=job_queue.room + 1,
        )  # fmt: skip
