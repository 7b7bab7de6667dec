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
from fkp.demo.events import (
    DOWNLOAD,
    JUST_SCROLL,
    NOW,
    NOW_AND_SCROLL,
    PRIVATE,
    QUICK,
    TO_FILM,
    Shown,
    at_rest,
    ending_with,
)
from fkp.demo.latest_action import LatestAction
from fkp.demo.site import Site

TELL_SECONDS = 0.5
"""How often it is told how far the work on a clip is."""


def build(site: Site, job_queue: clip_jobs.JobQueue) -> None:
    """A clip in; it comes back with its keypoints, to be played, and the numbers as files."""
    model, limits = site.model, site.settings
    kept = gr.State(
        LatestAction(ClipSession()),
        time_to_live=data_retention.KEPT_SECONDS,
        delete_callback=lambda kept: kept.value.discard(site.uploads),
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
        with gr.Column(scale=10, min_width=320):
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
        ending = gr.update(value="Cancel" if busy else "Clear", interactive=busy or ready or done)
        shown = {answer: told, start: gr.update(interactive=ready), clear: ending}
        return shown | {button: gr.update(interactive=done) for button in saves}

    def preview(clip: ClipInfo) -> str:
        uploaded = clip.path.resolve().is_relative_to(site.uploads.resolve())
        return view.preview(clip, address_of(clip.path) if uploaded else "", clip_jobs.poster(clip.path, 480))

    def before(clip: ClipInfo) -> dict[Any, Any]:
        return everything(view.clip_shown(view.clip_answer(clip), preview(clip)), ready=True)

    def after(clip: ClipInfo, found: clip_jobs.Job) -> dict[Any, Any]:
        assert found.progress is not None
        progress = found.progress
        if found.spec.recorded:  # then nobody has counted
            progress = replace(progress, faces=clip_jobs.faces_seen(found.spec))
        return everything(view.clip_shown(view.clip_found(clip, progress), film(clip, found)), done=True)

    def film(clip: ClipInfo, found: clip_jobs.Job) -> str:
        return view.film(address_of(found.spec.film), clip, clip_jobs.timeline(found.spec))

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
                ClipSession(clip).discard(site.uploads, but=session.value.path)
                return
            session.value.discard(site.uploads, but=path)
            session.value = ClipSession(clip)
            if clip.problem:
                session.value.discard(site.uploads)
                session.value = ClipSession()
                yield everything(view.clip_answer(clip))
            else:
                yield before(clip)

    @ending_with(kept)
    def try_clip(
        session: LatestAction[ClipSession], shown: list[str], size: float, least: float, most: float,
        event: gr.EventData, request: gr.Request,
    ) -> Shown:  # fmt: skip
        if not photos.is_index(event.index, len(site.clips)):
            raise gr.Error("There is no such example.", print_exception=False)
        clip = clip_jobs.probe(site.clips[event.index], limits)
        moment = getattr(event, "moment", None)
        yield from work_on(session, clip, shown, size, asked(least, most), moment, visitors.name(request))

    @ending_with(kept)
    def follow(
        session: LatestAction[ClipSession], shown: list[str], size: float, least: float, most: float,
        moment: float, request: gr.Request,
    ) -> Shown:  # fmt: skip
        clip = session.value.info
        yield from work_on(session, clip, shown, size, asked(least, most), moment, visitors.name(request))

    @ending_with(kept)
    def redraw(
        session: LatestAction[ClipSession], shown: list[str], size: float, moment: float, request: gr.Request
    ) -> Shown:
        """Where a clip is done and another style is asked for, draw it so: no network runs."""
        job, found = session.value.job, session.value.found
        if job is None or found is None:
            return
        if job.spec.style == options.style(shown, size) and (job.done or not job.ended):
            return
        wanted = {"max_faces": found.spec.max_faces, "min_score": found.spec.min_score}
        clip = session.value.info
        yield from work_on(session, clip, shown, size, wanted, moment, visitors.name(request))

    def work_on(
        session: LatestAction[ClipSession], clip: ClipInfo | None, shown: list[str], size: float,
        wanted: dict[str, Any], moment: Any, visitor: str,
    ) -> Shown:  # fmt: skip
        """Annotate a clip, and tell how far it is until it is done, or something else was begun.

        Where the same faces of the same clip are known already, they are only drawn anew.
        """
        session.begin(moment)
        with session.sending(moment) as goes_on:
            if not goes_on or clip is None:
                return
            found = session.value.found
            if found and not is_same(found.spec, clip, wanted):
                found = None
            meanwhile = film(clip, found) if found else preview(clip)
            looking = view.say("Drawing it anew …" if found else "Looking for faces …")
            over: dict[str, Any] = {"done": True} if found else {"ready": True}
            if uploads.room(site.uploads, limits.max_disk) <= 0:
                full = view.say(uploads.FULL, "problem")
                yield everything(view.clip_shown(full, meanwhile), **over)
                return
            try:
                spec = clip_jobs.job_spec(
                    clip.path, options.style(shown, size), "face_numbers" in shown, limits, site.uploads,
                    recorded=found.spec if found else None, **wanted,
                )  # fmt: skip
                session.value.discard(site.uploads, but=clip.path, but_job=found)
                session.value = ClipSession(clip, found, found)
                job = job_queue.begin(spec, visitor)
            except clip_jobs.BusyError as error:
                busy = view.say(str(error), "problem")
                yield everything(view.clip_shown(busy, meanwhile), **over)
                return
            session.value = ClipSession(clip, job, found)
        try:
            outputs = everything(view.clip_shown(looking, meanwhile, view.going_on(None)), busy=True)
            while True:
                ended = job.ended
                with session.sending(moment) as goes_on:  # as long as it does, its files are there
                    if not goes_on:
                        return
                    if ended and job.done and job.progress:
                        session.value = ClipSession(clip, job, job)
                        if found:
                            found.discard()
                        outputs = after(clip, job)
                    elif ended:
                        session.value = ClipSession(clip, found, found)
                        problem = view.say(html.escape(job.problem), "problem")
                        outputs = everything(view.clip_shown(problem, meanwhile), **over)
                    yield outputs
                if ended:
                    return
                job.wait(TELL_SECONDS)
                ahead = job_queue.ahead_of(job)
                told = view.say(view.waiting(ahead)) if ahead else looking
                outputs = {answer: view.clip_shown(told, meanwhile, view.going_on(job.progress))}
        finally:
            if not job.ended:  # the visitor has gone, or has begun something else
                job.stop()

    def is_same(spec: clip_jobs.JobSpec, clip: ClipInfo, wanted: dict[str, Any]) -> bool:
        most = min(wanted["max_faces"], limits.max_faces)
        return (spec.clip, spec.max_faces, spec.min_score) == (clip.path, most, wanted["min_score"])

    def asked(least: float, most: float) -> dict[str, Any]:
        return {"max_faces": round(most), "min_score": options.least_score(model, least)}

    @ending_with(kept)
    def stop(session: LatestAction[ClipSession], pressed: str, moment: float) -> Shown:
        """Cancel: the work ends and what was there before is as it was; Clear: it goes."""
        job, clip, found = session.value.job, session.value.info, session.value.found
        if pressed == "Cancel" and job is not None and job.done:
            return  # it was done just before
        session.begin(moment)
        with session.sending(moment) as goes_on:
            if not goes_on:
                return
            if pressed == "Cancel" and clip is not None:
                if job is not None:
                    job.discard()
                session.value = ClipSession(clip, found, found)
                yield after(clip, found) if found else before(clip)
            else:
                session.value.discard(site.uploads)
                session.value = ClipSession()
                yield everything(view.clip_answer(None))

    def settle(session: LatestAction[ClipSession], least: float, most: float) -> dict[Any, Any]:
        """What the buttons offer now: to look for faces only where that has not been done."""
        job, clip, found = session.value.job, session.value.info, session.value.found
        busy = job is not None and not job.ended
        known = found is not None and clip is not None and is_same(found.spec, clip, asked(least, most))
        return {
            start: gr.update(interactive=clip is not None and not busy and not known),
            clear: gr.update(value="Cancel" if busy else "Clear", interactive=clip is not None),
        }

    def saving(which: Callable[[clip_jobs.JobSpec], Path]) -> Callable[..., str]:
        def fetch(session: LatestAction[ClipSession]) -> str:
            found = session.value.found
            if found is None or not which(found.spec).is_file():
                raise gr.Error("The clip is no longer here. Please choose it again.", print_exception=False)
            return str(which(found.spec))

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

    taken = given.upload(take, [kept, given], all_shown, **quick)
    wanted = [shown, size, least, most]
    tried = given.select(try_clip, [kept, *wanted], all_shown, js=JUST_SCROLL, **telling)
    followed = start.click(follow, [kept, *wanted, moment], all_shown, js=NOW_AND_SCROLL, **telling)
    stopped = clear.click(stop, [kept, clear, moment], all_shown, js=NOW, **quick)
    for done in (taken, tried, followed):
        done.then(js=TO_FILM, **PRIVATE)
    redrawing = redraw, [kept, shown, size, moment], all_shown
    # What was changed while faces were looked for counts, too.
    drawn = [done.then(*redrawing, js=NOW, **telling) for done in (tried, followed)]
    for option in (shown, size):
        option.change(lambda *looks: view.legend(options.style(*looks)), [shown, size], legend, **quick)
        drawn.append(option.change(*redrawing, js=at_rest("clip"), **telling))
    settling = settle, [kept, least, most], [start, clear]
    for ended in (stopped, *drawn):  # the last word of work that was ended may come after this
        ended.then(*settling, **quick)
    for slider in (least, most):
        slider.change(*settling, **QUICK, trigger_mode="always_last")
    for button, which in saves.items():
        saved = button.click(saving(which), kept, to_save, show_progress_on=button, **PRIVATE)
        saved.success(None, to_save, js=DOWNLOAD, **PRIVATE)


def address_of(path: Path) -> str:
    """Where browsers find a file of the folder of uploads, seen from the page."""
    return f"gradio_api/file={quote(str(path))}"
