"""The page: its header, its tabs, and what programs may call."""

from __future__ import annotations

import html

import gradio as gr

from fkp.demo import (
    about,
    api,
    clip_jobs,
    components,
    data_retention,
    live_tab,
    photo_tab,
    video_tab,
    zerogpu,
)
from fkp.demo.site import Site


def build(site: Site) -> gr.Blocks:
    """The page around a model."""
    work = zerogpu.lent(clip_jobs.annotate, site.model, seconds=lambda spec: 60)
    job_queue = clip_jobs.JobQueue(work, site.settings.clips_at_once, site.settings.max_clip_work)
    with components.Page(
        title="Face keypoints",
        analytics_enabled=False,
        delete_cache=(data_retention.SWEEP_SECONDS, data_retention.KEPT_SECONDS),
    ) as page:
        gr.HTML(HEADER)
        with gr.Tabs():
            with gr.Tab("Photo", id="photo"):
                photo_tab.build(site)
            with gr.Tab("Live", id="live"):
                live_tab.build(site)
            with gr.Tab("Video", id="video"):
                video_tab.build(site, job_queue)
            with gr.Tab("About", id="about") as tab:
                about.build(site, tab)
        gr.HTML(FOOTER + browser_edition(site.settings.browser_edition))
        api.build(site, job_queue)
    return page


def browser_edition(address: str | None) -> str:
    """The way to the edition that sends nothing anywhere, where one is served."""
    if not address:
        return ""
    link = f'<a href="{html.escape(address)}">the same in your browser alone</a>'
    return f'<p id="elsewhere">Your photos need not leave your device: {link}.</p>'


HEADER = """
<header id="head">
  <h1>Face keypoints</h1>
  <p>Finds every face and places 68 points on it: jaw, eyebrows, nose, eyes and lips.</p>
</header>
"""

FOOTER = f"""
<footer id="foot">
  Your photos and clips are worked on by the computer that runs this page and go nowhere else; after
  {data_retention.KEPT_SECONDS // 60} minutes at the latest nothing is left of them.
  <a href="#about" data-goto="about">More under About</a>, and how to
  <a href="#about" data-goto="programs">use it from a program</a>.
</footer>
"""
