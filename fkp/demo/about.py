"""The page's text about itself: what the model is, how good it is, what is kept of a visitor's photos.

The text is fkp/demo/static/about.html; the figures come from the weights' metrics, the plots from a folder.
"""

from __future__ import annotations

import html
import re
from pathlib import Path
from string import Template
from typing import Any

import gradio as gr

from fkp import hub
from fkp.demo import data_retention, view
from fkp.demo.events import QUICK
from fkp.demo.site import Site
from fkp.hub import model_card

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")

TEXT = Path(__file__).parent / "static" / "about.html"

PLOTS = {
    "ced.png": "Share of the faces whose error is below each value, for every test set",
    "error_by_point.png": "Mean error of each point, drawn on the mean face",
    "confidence.png": "Whether a score means what it says: scores against what they turned out to be",
    "robustness.png": "Error against size, rotation, blur, JPEG and darkness",
}
"""The plots that are shown, with what they show."""


def build(site: Site, tab: gr.Tab) -> None:
    """The tab: what the model is, how good, and what happens to photos; fetched when somebody opens it."""
    shown = gr.HTML(elem_id="about", apply_default_css=False)
    model = site.model

    def tell(request: gr.Request | None = None) -> str:
        own = model.weights.folder == hub.BUNDLED  # the plots are of these weights
        plots = site.checkout / "docs" if own else None
        address = request.headers.get("referer", "http://127.0.0.1:7860/") if request else ""
        page = address.partition("?")[0].partition("#")[0]
        on_hub = site.settings.model if _HUB_ID.fullmatch(site.settings.model or "") else None
        ways = programs(page, site.settings.mcp)
        where = links(on_hub, site.settings.source)
        return text(model.metrics, model.describe()[1:], plots, ways, where)

    tab.select(tell, None, shown, **QUICK)


def programs(page: str, mcp: bool) -> str:
    """How to use the page that stands at an address from a program: Python, curl and MCP."""
    page = page.rstrip("/") + "/"
    python = f"""from gradio_client import Client, handle_file

client = Client("{page}")
record = client.predict(handle_file("photo.jpg"), min_score=0.5, max_faces=10, api_name="/detect")
print(len(record["faces"]), record["faces"][0]["pose"])"""
    curl = rf"""page={page}gradio_api
path=$(curl -s -F files=@photo.jpg $page/upload | tr -d '[]"')
id=$(curl -s $page/call/v2/detect -H 'Content-Type: application/json' \
  -d "{{\"picture\": {{\"path\": \"$path\", \"meta\": {{\"_type\": \"gradio.FileData\"}}}}}}" | cut -d'"' -f4)
curl -sN $page/call/detect/$id"""
    server = f'{{"mcpServers": {{"face-keypoints": {{"url": "{page}gradio_api/mcp/"}}}}}}'
    snippets = [("Python", python), ("curl", curl)]
    told = "<p>For language models this page is an MCP server where FKP_MCP=1 is set; here it is not.</p>"
    if mcp:
        snippets.append(("MCP", server))
        told = ""
    return told + "".join(
        f'<h3>{name}</h3><div class="snippet"><pre tabindex="0">{html.escape(code)}</pre>'
        f'<button type="button" class="way" data-copy>Copy</button></div>'
        for name, code in snippets
    )


def links(on_hub: str | None, source: str | None = None) -> str:
    """Where the model comes from, and the address of source and documentation if that is known."""
    weights = "The weights are those that the package brings along."
    if on_hub is not None:
        name = html.escape(on_hub)
        weights = f'The weights: <a href="https://huggingface.co/{name}">{name}</a> on the Hugging Face Hub.'
    if source is None:
        return f"<p>{weights}</p>"
    address = html.escape(source)
    return f'<p>{weights} <a href="{address}">Source and documentation</a> of this page.</p>'


def text(
    metrics: dict[str, Any], runs_on: list[str], plots: Path | None, programs: str = "", links: str = ""
) -> str:
    """All of it as HTML.

    `metrics` are those of the weights, perhaps none; `runs_on` are lines on what runs them; `plots` is the
    folder of the plots of these very weights, where there is one; `programs` and `links` are as the functions
    of these names tell them.
    """
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in runs_on)
    return Template(TEXT.read_text(encoding="utf-8")).substitute(
        map=view.point_map(),
        runs_on=f"<ul>{lines}</ul>" if lines else "",
        figures=_figures(metrics),
        plots=_plots(plots),
        programs=programs,
        links=links,
        minutes=data_retention.KEPT_SECONDS // 60,
        sweep=data_retention.SWEEP_SECONDS,
        learnt_from="".join(f"<p>{html.escape(line, quote=False)}</p>" for line in learnt_from(metrics)),
    )


def learnt_from(metrics: dict[str, Any]) -> list[str]:
    """What the networks learnt from, a sentence each, as the model card of their weights has it."""
    trained = metrics.get("training")
    told = model_card.learnt_from(trained if isinstance(trained, dict) else {})
    return [*told.values()] or ["What these weights learnt from is not recorded with them."]


def _figures(metrics: dict[str, Any]) -> str:
    """The errors on the test sets, as a table; a sentence where these weights came without figures."""
    try:
        accuracy = metrics["accuracy"]
        sets, (figures, *_) = accuracy["sets"], accuracy["figures"].values()
        rows = [
            _row(title, boxes, figures[name][key])
            for name, title in sets.items()
            for key, boxes in (("truth", "from the labels"), ("detected", "found by the first network"))
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        return "<p>These weights came without figures.</p>"
    titles = ("faces", "boxes", "number", "missed", "NME", "NME without jaw", "failures")
    head = "".join(f"<th scope='col'>{title}</th>" for title in titles)
    return f"""<p>NME is the mean distance between the points and those that people marked, in percent of the
distance between the outer corners of the eyes; a failure is a face whose NME is over 8 %, or one that was
missed.</p>
<div class="points" tabindex="0" role="region" aria-label="Figures">
<table><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table></div>"""


def _row(title: str, boxes: str, figures: dict[str, Any]) -> str:
    cells = [html.escape(title), boxes, f"{figures['n']:d}", f"{figures['missed']:d}"]
    cells += [f"{figures[name]:.2f} %" for name in ("nme", "nme_inner", "fr8")]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _plots(folder: Path | None) -> str:
    found = {name: folder / name for name in PLOTS if folder and (folder / name).is_file()}
    return "".join(
        f'<figure><img src="{view.data_uri(path.read_bytes(), "image/png")}" alt="{PLOTS[name]}">'
        f"<figcaption>{PLOTS[name]}.</figcaption></figure>"
        for name, path in found.items()
    )
