"""The Photo tab: photos in; their faces drawn, one of them enlarged, and files to save."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from fkp import draw, images
from fkp.demo import components, data_retention, options, photos, uploads, view, visitors, zerogpu
from fkp.demo.events import DOWNLOAD, NOW, PRIVATE, QUICK, SCROLL, TO_FACE, Shown, at_rest, ending_with
from fkp.demo.latest_action import LatestAction
from fkp.demo.photos import Album
from fkp.demo.site import Site

MAX_FILES = 20
"""Photos that are taken at once."""


def build(site: Site) -> None:
    """Photos in; their faces drawn, one of them enlarged, and files to save."""
    model, limits = site.model, site.settings
    process_many = zerogpu.lent(photos.process_all, model, seconds=lambda paths, *_: 5 + 2 * len(paths))
    kept = gr.State(
        LatestAction(Album()),
        time_to_live=data_retention.KEPT_SECONDS,
        delete_callback=lambda kept: uploads.delete(kept.value.files, site.uploads),
    )
    moment = gr.Number(visible=False)
    with gr.Row(elem_classes="sides"):
        with gr.Column(scale=4, min_width=300):
            given = components.upload(site.pictures, limits, MAX_FILES, elem_id="photo")
            strip = components.chooser(elem_id="photos")
            with gr.Column(elem_id="options"):
                shown, size, legend = options.drawing()
                least, most = options.finding(model, limits.max_faces)
                with gr.Row(elem_id="save"):
                    save_picture = gr.Button("Save picture", interactive=False, size="md", min_width=140)
                    save_jpeg = gr.Button("Save as JPEG", interactive=False, size="md", min_width=140)
                    save_all = gr.Button("Save all pictures", visible=False, size="md", min_width=140)
                    save_all_jpeg = gr.Button("Save all as JPEG", visible=False, size="md", min_width=140)
                    save_json = gr.Button("Save JSON", interactive=False, size="md", min_width=140)
                    save_csv = gr.Button("Save CSV", interactive=False, size="md", min_width=140)
                    clear = gr.Button("Clear", interactive=False, size="md", min_width=140)
                    to_save = gr.DownloadButton(visible=False)
        with gr.Column(scale=10, min_width=320):
            answer = gr.HTML(view.answer(Album()), elem_id="answer")
            with gr.Row(elem_id="looking"):
                with gr.Column(scale=2, min_width=320):
                    picture = components.picture(elem_id="result")
                with gr.Column(scale=1, min_width=240):
                    one_face = components.chooser(elem_id="face")
            points = gr.HTML("", elem_id="points", apply_default_css=False)

    def everything(album: Album, shown: list[str], size: float, left_out: int = 0) -> dict[Any, Any]:
        """All that is shown of an album."""
        style, photo = options.style(shown, size), album.photo
        overlay = photos.overlay(photo, style) if photo and len(photo.faces) else b""
        some = any(len(each.faces) for each in album.photos)
        several = len(album.photos) > 1 and not all(each.problem for each in album.photos)
        return {
            answer: view.answer(album, left_out),
            picture: gr.HTML(**view.picture(album, overlay)),
            strip: view.strip(album),
            **face(album, style),
            save_picture: gr.update(interactive=bool(overlay)),
            save_jpeg: gr.update(interactive=bool(overlay)),
            save_all: gr.update(visible=several),
            save_all_jpeg: gr.update(visible=several),
            save_json: gr.update(interactive=some),
            save_csv: gr.update(interactive=some),
            clear: gr.update(interactive=photo is not None),
        }

    def face(album: Album, style: draw.Style) -> dict[Any, Any]:
        """The face that was chosen, and its points."""
        if album.photo is None or album.face is None:
            return {one_face: "", points: ""}
        enlarged = photos.enlarged(album.photo.enlarged[album.face], style)
        return {one_face: view.face_panel(album, enlarged), points: view.points_table(album, style)}

    @ending_with(kept)
    def find(
        album: LatestAction[Album], sent: Any, shown: list[str], size: float, least: float, most: float,
        request: gr.Request,
    ) -> Shown:  # fmt: skip
        """Look at what was sent, one after the other, and show the first as soon as it is done."""
        try:
            paths, left_out, moment = components.sent(sent, site.uploads, MAX_FILES)
        except images.ImageError as error:
            raise components.error(error) from None
        album.begin(moment)
        with album.sending(moment) as goes_on:
            if not goes_on:
                uploads.delete(paths, site.uploads)
                return
            uploads.delete(album.value.files, site.uploads)
            album.value = Album(files=tuple(paths), wanted=(least, most))
            yield {answer: view.say("Looking for faces …")}
        who = visitors.name(request)
        yield from find_faces(album, paths, shown, size, least, most, moment, left_out, who)

    def find_faces(
        album: LatestAction[Album], paths: Sequence[Path], shown: list[str], size: float, least: float,
        most: float, moment: Any, left_out: int = 0, visitor: str = "",
    ) -> Shown:  # fmt: skip
        wanted = limits, round(most), options.least_score(model, least), visitor
        found: Iterable[photos.Photo] = (
            process_many(paths, *wanted) if len(paths) > 1 else photos.process_all(model, paths, *wanted)
        )
        for photo in found:
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
    def find_again(
        album: LatestAction[Album], shown: list[str], size: float, least: float, most: float, moment: float
    ) -> Shown:
        """Look once more at the photos that are there, with what the sliders say now; first at the one that
        is shown."""
        if not album.value.files or album.value.wanted == (least, most):
            return  # nothing is there, or a slider was moved and moved back
        album.begin(moment)
        with album.sending(moment) as goes_on:
            files, first = album.value.files, album.value.first
            if not goes_on or not files:
                return
            album.value = Album(files=files, wanted=(least, most), first=first)
        paths = sorted(files, key=lambda path: path != first)
        yield from find_faces(album, paths, shown, size, least, most, moment)

    @ending_with(kept)
    def try_example(
        album: LatestAction[Album],
        shown: list[str],
        size: float,
        least: float,
        most: float,
        event: gr.EventData,
    ) -> Shown:
        moment = getattr(event, "moment", None)
        album.begin(moment)
        files = (site.pictures[event.index],) if photos.is_index(event.index, len(site.pictures)) else ()
        found = Album(files=files, wanted=(least, most))
        for photo in photos.process_all(model, files, limits, round(most), options.least_score(model, least)):
            found = found.with_photo(photo)
        yield from instead(album, found, shown, size, moment)

    @ending_with(kept)
    def start_again(album: LatestAction[Album], shown: list[str], size: float, moment: float) -> Shown:
        album.begin(moment)
        yield from instead(album, Album(), shown, size, moment)

    def instead(
        album: LatestAction[Album], other: Album, shown: list[str], size: float, moment: Any
    ) -> Shown:
        """Another album, perhaps an empty one, in the place of what is there; work that is going on ends."""
        with album.sending(moment) as goes_on:
            if goes_on:
                uploads.delete(album.value.files, site.uploads)
                album.value = other
                yield everything(other, shown, size)

    @ending_with(kept)
    def go_to(album: LatestAction[Album], shown: list[str], size: float, event: gr.EventData) -> Shown:
        with album.sending():
            album.value = album.value.go_to(event.index)
            yield everything(album.value, shown, size)

    @ending_with(kept)
    def choose(album: LatestAction[Album], shown: list[str], size: float, event: gr.EventData) -> Shown:
        with album.sending():
            album.value = album.value.choose(event.index)
            faces = gr.HTML(value=view.picture(album.value, b"")["value"])
            yield {picture: faces} | face(album.value, options.style(shown, size))

    @ending_with(kept)
    def remove(album: LatestAction[Album], shown: list[str], size: float, event: gr.EventData) -> Shown:
        with album.sending():
            album.value = album.value.without(event.index)
            yield everything(album.value, shown, size)

    @ending_with(kept)
    def draw_again(album: LatestAction[Album], shown: list[str], size: float) -> Shown:
        """Another style for what was found before: no network runs."""
        style = options.style(shown, size)
        with album.sending():
            photo = album.value.photo
            changed: dict[Any, Any] = {legend: view.legend(style)} | face(album.value, style)
            if photo and len(photo.faces):
                overlay = photos.overlay(photo, style)
                changed[picture] = gr.HTML(overlay=view.data_uri(overlay, "image/png"))
            yield changed

    def saving(write: Callable[[Album, draw.Style], Path]) -> Callable[..., str]:
        def save(album: LatestAction[Album], shown: list[str], size: float) -> str:
            if album.value.photo is None:
                raise gr.Error("There is no photo any more. Please choose it again.", print_exception=False)
            if uploads.room(site.uploads, limits.max_disk) <= 0:
                raise gr.Error(uploads.FULL, print_exception=False)
            try:
                return str(write(album.value, options.style(shown, size)))
            except images.ImageError as error:
                raise components.error(error) from None

        return save

    saves = {
        save_picture: lambda album, style: photos.save_picture(album, style, limits, site.uploads),
        save_jpeg: lambda album, style: photos.save_picture(album, style, limits, site.uploads, "jpg"),
        save_all: lambda album, style: photos.save_pictures(album, style, limits, site.uploads),
        save_all_jpeg: lambda album, style: photos.save_pictures(album, style, limits, site.uploads, "jpg"),
        save_json: lambda album, style: photos.save_json(album, site.uploads),
        save_csv: lambda album, style: photos.save_csv(album, site.uploads),
    }
    state, wanted = [kept, shown, size], [least, most]
    all_shown = [kept, answer, picture, strip, one_face, points, *saves, clear]
    working = QUICK | {"concurrency_id": "faces"}

    newest: dict[str, Any] = {"trigger_mode": "multiple"}  # none waits for the one before it to end
    finding = given.upload(find, [kept, given, shown, size, *wanted], all_shown, **newest, **working)
    trying = given.select(try_example, [*state, *wanted], all_shown, **newest, **working)
    for event in (finding, trying):
        event.then(js=SCROLL, **PRIVATE)
    for slider in wanted:
        slider.change(
            find_again, [*state, *wanted, moment], all_shown, js=at_rest("faces"), **newest, **working
        )
    clear.click(start_again, [*state, moment], all_shown, js=NOW, **newest, **QUICK)
    strip.select(go_to, state, all_shown, **QUICK)
    for chooser in (picture, one_face):
        chosen = chooser.select(choose, state, [kept, picture, one_face, points], **QUICK)
        chosen.then(js=TO_FACE, **PRIVATE)
        chooser.delete(remove, state, all_shown, **QUICK)
    for option in (shown, size):
        option.change(
            draw_again, state, [kept, legend, one_face, points, picture], trigger_mode="always_last", **QUICK
        )
    for button, write in saves.items():
        saved = button.click(saving(write), state, to_save, show_progress_on=button, **PRIVATE)
        saved.success(None, to_save, js=DOWNLOAD, **PRIVATE)
