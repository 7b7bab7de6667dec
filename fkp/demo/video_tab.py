"""The Video tab: a clip in; it comes back with its keypoints, to be played, and the numbers as files."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import gradio as gr

from fkp import images
from fkp.demo import clip_jobs, components, data_retention, options, photos, uploads, view, visitors
from fkp.demo.clip_jobs import ClipInfo, ClipSession
from fkp.demo.events import DOWNLOAD, JUST_SCROLL, NOW, NOW_AND_SCROLL, PRIVATE, QUICK, Shown, ending_with
from fkp.demo.latest_action import LatestAction
from fkp.demo.site import Site
from fkp.video import Progress

TELL_SECONDS = 0.5
"""How often it is told how far the work on a clip is."""


def build(site: Site, job_queue: clip_jobs.JobQueue) -> None:
    """A clip in; it comes back with its keypoints, to be played, and the numbers as files."""
    model, limits = site.model, site.settings
    kept = gr.State(
        LatestAction(ClipSession()),
        time_to_live=data_retention.KEPT_SECONDS,
        delete_callback=lambda kept: kept.value.forget(site.uploads),
    )
    moment = gr.Number(visible=False)
    with gr.Row(elem_classes="sides"):
        with gr.Column(scale=4, min_width=300):
            given = components.clip_upload(site.clips, limits, elem_id="clip")
            with gr.Row(elem_id="clip-work"):
                start = gr.Button("Find faces", variant="primary", interactive=False, min_width=140)
                clear = gr.Button("Clear", interactive=False, min_width=140)
            with gr.Column(elem_id="clip-options"):
                shown, size, legend = options.drawing("clip-", [*options.SHOWN_AT_FIRST, "face_numbers"])
                least, most = options.finding(model, limits.max_faces, "clip-")
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
        shown = {answer: told, start: gr.update(value="Find faces", interactive=ready)}
        ending = gr.update(value="Cancel" if busy else "Clear", interactive=busy or ready or done)
        return shown | {clear: ending} | {button: gr.update(interactive=done) for button in saves}

    def preview(clip: ClipInfo) -> str:
        uploaded = clip.path.resolve().is_relative_to(site.uploads.resolve())
        return view.preview(clip, address_of(clip.path) if uploaded else "", clip_jobs.poster(clip.path, 480))

    @ending_with(kept)
    def take(session: LatestAction[ClipSession], sent: Any) -> Shown:
        """Show a clip, and say what there is to say about it, before the work."""
        try:
            (path, *_), _, moment = components.sent(sent, site.uploads, 1)
        except images.ImageError as error:
            raise components.error(error) from None
        session.begin(moment)
        clip = clip_jobs.probe(path, limits)
        with session.sending(moment) as goes_on:
            if not goes_on:
                ClipSession(clip).forget(site.uploads, but=session.value.path)
                return
            session.value.forget(site.uploads, but=path)
            session.value = ClipSession(clip)
            if clip.problem:
                session.value.forget(site.uploads)
                session.value = ClipSession()
                yield everything(view.clip_answer(clip))
            else:
                yield everything(view.clip_answer(clip, preview(clip)), ready=True)

    @ending_with(kept)
    def try_clip(
        session: LatestAction[ClipSession], shown: list[str], size: float, least: float, most: float,
        event: gr.EventData, request: gr.Request,
    ) -> Shown:  # fmt: skip
        if not photos.is_index(event.index, len(site.clips)):
            raise gr.Error("There is no such example.", print_exception=False)
        clip = clip_jobs.probe(site.clips[event.index], limits)
        moment = getattr(event, "moment", None)
        yield from work_on(session, clip, shown, size, least, most, moment, visitors.name(request))

    @ending_with(kept)
    def follow(
        session: LatestAction[ClipSession], shown: list[str], size: float, least: float, most: float,
        moment: float, request: gr.Request,
    ) -> Shown:  # fmt: skip
        clip = session.value.info
        yield from work_on(session, clip, shown, size, least, most, moment, visitors.name(request))

    def work_on(
        session: LatestAction[ClipSession], clip: ClipInfo | None, shown: list[str], size: float,
        least: float, most: float, moment: Any, visitor: str,
    ) -> Shown:  # fmt: skip
        """Annotate a clip, and tell how far it is until it is done, or something else was begun.

        Where the same faces of the same clip are known already, they are only drawn anew.
        """
        session.begin(moment)
        with session.sending(moment) as goes_on:
            if not goes_on or clip is None:
                return
            job, style = session.value.job, options.style(shown, size)
            wanted = asked(least, most)
            known = job.spec if job and job.done and is_same(job.spec, clip, wanted) else None
            if uploads.room(site.uploads, limits.max_disk) <= 0:
                yield everything(view.say(uploads.FULL, "problem"), ready=True)
                return
            try:
                numbers = "face_numbers" in shown
                spec = clip_jobs.job_spec(
                    clip.path, style, numbers, limits, site.uploads, recorded=known, **wanted
                )
                session.value.forget(site.uploads, but=clip.path)
                session.value = ClipSession(clip)
                before = preview(clip)
                job = job_queue.begin(spec, visitor)
            except clip_jobs.BusyError as error:
                yield everything(view.say(str(error), "problem") + before, ready=True)
                return
            session.value = ClipSession(clip, job)
        try:
            outputs = everything(view.going_on(None, before), busy=True)
            while True:
                ended = job.ended
                with session.sending(moment) as goes_on:  # as long as it does, its files are there
                    if not goes_on:
                        return
                    if ended and job.done and job.progress:
                        outputs = everything(result(clip, spec, job.progress), done=True)
                    elif ended:
                        problem = view.say(html.escape(job.problem), "problem")
                        outputs = everything(problem + before, ready=True)
                    yield outputs
                if ended:
                    return
                job.wait(TELL_SECONDS)
                ahead = job_queue.ahead_of(job)
                outputs = {answer: view.waiting(ahead) if ahead else view.going_on(job.progress, before)}
        finally:
            if not job.ended:  # the visitor has gone, or has begun something else
                job.stop()

    def result(clip: ClipInfo, spec: clip_jobs.JobSpec, progress: Progress) -> str:
        if spec.recorded:  # then nobody has counted
            progress = replace(progress, faces=clip_jobs.faces_seen(spec))
        return view.film(address_of(spec.film), clip, progress, clip_jobs.timeline(spec))

    def is_same(spec: clip_jobs.JobSpec, clip: ClipInfo, wanted: dict[str, Any]) -> bool:
        most = min(wanted["max_faces"], limits.max_faces)
        return (spec.clip, spec.max_faces, spec.min_score) == (clip.path, most, wanted["min_score"])

    @ending_with(kept)
    def stop(session: LatestAction[ClipSession], pressed: str, moment: float) -> Shown:
        """Cancel: the work ends and the clip is ready as before; Clear: it goes."""
        job, clip = session.value.job, session.value.info
        if pressed == "Cancel" and job is not None and job.done:
            return  # it was done just before
        session.begin(moment)
        with session.sending(moment) as goes_on:
            if not goes_on:
                return
            if pressed == "Cancel" and clip is not None:
                if job is not None:
                    job.forget()
                session.value = ClipSession(clip)
                yield everything(view.clip_answer(clip, preview(clip)), ready=True)
            else:
                session.value.forget(site.uploads)
                session.value = ClipSession()
                yield everything(view.clip_answer(None))

    def restyle(session: LatestAction[ClipSession], shown: list[str], size: float) -> dict[Any, Any]:
        """Another legend; and where a clip is done, it can be drawn again."""
        job = session.value.job
        changed: dict[Any, Any] = {legend: view.legend(options.style(shown, size))}
        if job is not None and job.done:
            changed[start] = gr.update(value="Draw again", interactive=True)
        return changed

    def look_again(session: LatestAction[ClipSession], least: float, most: float) -> dict[str, Any]:
        """Where a clip is done, other faces of it can be looked for."""
        job, clip = session.value.job, session.value.info
        if job is None or not job.done or clip is None or is_same(job.spec, clip, asked(least, most)):
            return gr.update()
        return gr.update(value="Find faces", interactive=True)

    def asked(least: float, most: float) -> dict[str, Any]:
        return {"max_faces": round(most), "min_score": options.least_score(model, least)}

    def settle(session: LatestAction[ClipSession]) -> dict[str, Any]:
        """What the button says, once more: the last word of work that was ended may come after this."""
        job, clip = session.value.job, session.value.info
        busy = job is not None and not job.ended
        return gr.update(value="Cancel" if busy else "Clear", interactive=busy or clip is not None)

    def saving(which: Callable[[clip_jobs.JobSpec], Path]) -> Callable[..., str]:
        def fetch(session: LatestAction[ClipSession]) -> str:
            job = session.value.job
            if job is None or not job.done or not which(job.spec).is_file():
                raise gr.Error("The clip is no longer here. Please choose it again.", print_exception=False)
            return str(which(job.spec))

        return fetch

    saves = {
        save_film: lambda spec: spec.film,
        save_json: lambda spec: spec.json,
        save_csv: lambda spec: spec.csv,
    }
    all_shown = [kept, answer, start, clear, *saves]
    quick = QUICK | {"trigger_mode": "multiple"}
    # They only wait for the queue of clips, which has a line of its own.
    telling = quick | {"concurrency_id": "clips", "concurrency_limit": job_queue.room + 1}

    given.upload(take, [kept, given], all_shown, **quick)
    wanted = [shown, size, least, most]
    given.select(try_clip, [kept, *wanted], all_shown, js=JUST_SCROLL, **telling)
    start.click(follow, [kept, *wanted, moment], all_shown, js=NOW_AND_SCROLL, **telling)
    stopped = clear.click(stop, [kept, clear, moment], all_shown, js=NOW, **quick)
    stopped.then(settle, kept, clear, **quick)
    for option in (shown, size):
        option.change(restyle, [kept, shown, size], [legend, start], **PRIVATE, show_progress="hidden")
    for slider in (least, most):
        slider.release(look_again, [kept, least, most], start, **PRIVATE, show_progress="hidden")
    for button, which in saves.items():
        saved = button.click(saving(which), kept, to_save, show_progress_on=button, **PRIVATE)
        saved.success(None, to_save, js=DOWNLOAD, **PRIVATE)


def address_of(path: Path) -> str:
    """Where browsers find a file of the folder of uploads, seen from the page."""
    return f"gradio_api/file={quote(str(path))}"
