"""The page's text about itself: what the model is, how good it is, what is kept of a visitor's photos.

The text is fkp/demo/static/about.html; the figures come from the weights' metrics, the plots from a folder.
"""

from __future__ import annotations

import html
from pathlib import Path
from string import Template
from typing import Any

import gradio as gr

from fkp import hub
from fkp.demo import data_retention, view
from fkp.demo.site import Site

TEXT = Path(__file__).parent / "static" / "about.html"

PLOTS = {
    "ced.png": "Share of the faces whose error is below each value, for every test set",
    "error_by_point.png": "Mean error of each point, drawn on the mean face",
    "confidence.png": "Whether a score means what it says: scores against what they turned out to be",
    "robustness.png": "Error against size, rotation, blur, JPEG and darkness",
}
"""The plots that are shown, with what they show."""


def build(site: Site, tab: gr.Tab) -> None:
    """The tab: what the model is, how good, and what happens to photos; fetched when somebody looks."""
    shown = gr.HTML(elem_id="about", apply_default_css=False)
    model = site.model

    def tell() -> str:
        # The plots are of these weights.
        plots = site.checkout / "docs" if model.weights.folder == hub.BUNDLED else None
        return text(model.metrics, model.describe()[1:], plots)

    tab.select(tell, None, shown, api_visibility="private")


def text(metrics: dict[str, Any], runs_on: list[str], plots: Path | None) -> str:
    """All of it as HTML.

    `metrics` are those of the weights, perhaps none; `runs_on` are lines on what runs them; `plots` is the
    folder of the plots of these very weights, where there is one.
    """
    lines = "".join(f"<li>{html.escape(line)}</li>" for line in runs_on)
    return Template(TEXT.read_text(encoding="utf-8")).substitute(
        runs_on=f"<ul>{lines}</ul>" if lines else "",
        figures=_figures(metrics),
        plots=_plots(plots),
        minutes=data_retention.KEPT_SECONDS // 60,
        sweep=data_retention.SWEEP_SECONDS,
    )


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
    cells = [html.escape(title), boxes, str(figures["n"]), str(figures["missed"])]
    cells += [f"{figures[name]:.2f} %" for name in ("nme", "nme_inner", "fr8")]
    return f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"


def _plots(folder: Path | None) -> str:
    found = {name: folder / name for name in PLOTS if folder and (folder / name).is_file()}
    return "".join(
        f'<figure><img src="{view.data_uri(path.read_bytes(), "image/png")}" alt="{PLOTS[name]}">'
        f"<figcaption>{PLOTS[name]}.</figcaption></figure>"
        for name, path in found.items()
    )
