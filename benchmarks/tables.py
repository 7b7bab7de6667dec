"""Markdown tables of the figures that `benchmarks/accuracy.py` measures; nothing else goes into them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.faces import SETS
from benchmarks.robustness import CONDITIONS

Figures = Mapping[str, Any]

WAYS = {
    "truth": ("true", "{network}"),
    "own_style": ("true", '{network}, `label_style="{style}"`'),
    "mirrored": ("true", "{network}, `mirrored=True`"),
    "passes": ("true", '{network}, `passes="auto"`'),
    "detected": ("detected", "{network}"),
    "own_detected": ("detected", '{network}, `label_style="{style}"`'),
}
"""By way of asking: which boxes, and the network as it was asked."""
SHORT = ("truth", "own_style", "detected", "own_detected")
"""The ways that README.md shows; of the baseline only the first."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """Markdown: the first `texts` columns to the left, numbers to the right."""
    lines = [head, ["---"] * texts + ["--:"] * (len(head) - texts), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def number(value: float | None, digits: int = 2) -> str:
    """A rounded number, or a dash where there is none."""
    return "–" if value is None else f"{value:.{digits}f}"


def short(figures: Figures) -> str:
    """README's table and the command that made it."""
    sets = {
        network: {
            name: by_way if network == "KeypointNet" else {"truth": by_way["truth"]}
            for name, by_way in of.items()
        }
        for network, of in figures["figures"].items()
    }
    columns = ("nme", "nme_inner", "fr8", "auc8")
    return f"{_sets(sets, figures['label_style'], SHORT, columns)}\n\nMade by `{figures['command']}`."


def pages(figures: Figures) -> dict[str, str]:
    """The tables of docs/accuracy.md by name."""
    return {
        "command": f"Every figure and picture on this page: `{figures['command']}`.",
        "sets": _sets(
            figures["figures"], figures["label_style"], WAYS,
            ("nme", "nme_inner", "median", "fr8", "fr10", "auc8"),
        ),
        "reliability": _reliability(figures),
        "bins": _bins(figures),
        "ranking": _ranking(figures),
        "robustness": _robustness(figures),
        "detector": _detector(figures),
        "weak": _weak(figures),
    }


_COLUMNS = {
    "nme": "NME 68", "nme_inner": "NME inner 51", "median": "median", "fr8": "FR@8", "fr10": "FR@10",
    "auc8": "AUC@8",
}  # fmt: skip


def _sets(by_network: Figures, default: str | None, ways: Iterable[str], columns: Sequence[str]) -> str:
    """A row for each set, way of asking and network that was asked so.

    Where a set's own labelling style is the default one, nothing is said twice.
    """
    rows = []
    for test in SETS:
        for way in ways:
            if way.startswith("own_") and test.style == default:
                continue
            boxes, asked = WAYS[way]
            for network, by_set in by_network.items():
                s = by_set[test.name].get(way)
                if s:
                    name = asked.format(network=network, style=test.style)
                    numbers = [number(s[column]) for column in columns]
                    rows.append([test.title, boxes, name, str(s["n"]), str(s["missed"]), *numbers])
    head = ["faces", "boxes", "network", "n", "missed", *(_COLUMNS[column] for column in columns)]
    return table(head, rows, texts=3)


def _styles(figures: Figures) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Title, labelling style and confidence figures, for each set by default and in its own style."""
    return [
        (test.title, f"`{style}`" if style else "default", figures["confidence"][test.name][way])
        for test in SETS
        for way, style in (("truth", figures["label_style"]), ("own_style", test.style))
        if way == "truth" or style != figures["label_style"]
    ]


def _reliability(figures: Figures) -> str:
    rows = [
        [title, style, number(c["reliability_error"], 3), number(c["error"]), number(c["sigma"]),
         number(c["spearman"]), number(c["gain_20"], 1), number(c["best_gain_20"], 1)]
        for title, style, c in _styles(figures)
    ]  # fmt: skip
    head = ["faces", "style", "reliability error", "mean error", "mean sigma", "rank correlation",
            "gain by dropping 20 %", "best possible gain"]  # fmt: skip
    temperatures = ", ".join(
        f"{style.replace('None', 'default')} {value:g}" for style, value in figures["temperatures"].items()
    )
    return f"{table(head, rows, texts=2)}\n\nTemperatures in use, by labelling style: {temperatures}."


def _bins(figures: Figures) -> str:
    by_set = [figures["confidence"][test.name]["own_style"]["bins"] for test in SETS]
    rows = []
    for i in range(len(by_set[0])):
        cells = [
            f"{score:.2f} → {hit:.2f} ({n})" if n else "–" for score, hit, n in (bins[i] for bins in by_set)
        ]
        rows.append([f"{i / len(by_set[0]):g} to {(i + 1) / len(by_set[0]):g}", *cells])
    return table(["scores", *(test.short for test in SETS)], rows)


def _ranking(figures: Figures) -> str:
    curves = [(title, style, c["ranking"]) for title, style, c in _styles(figures)]
    shares = [f"{10 * i} %" for i in range(len(curves[0][2]))]
    rows = [[title, style, *(number(value) for value in curve)] for title, style, curve in curves]
    return table(["faces", "style", *shares], rows, texts=2)


def _robustness(figures: Figures) -> str:
    conditions = {condition.name: condition for condition in CONDITIONS}
    rows = []
    for r in figures["robustness"]:
        title, level = "As they are", ""
        if r["condition"] in conditions:
            condition = conditions[r["condition"]]
            title, level = condition.title, condition.level.format(f"{r['level']:g}")
        numbers = [number(r["nme"]), number(r["nme_inner"]), number(r["fr8"])]
        numbers += [number(r["score"]), number(r["within"])]
        rows.append([title, level, str(r["passes"]), str(r["n"]), *numbers])
    head = ["what", "how much", "passes", "n", "NME 68", "NME inner 51", "FR@8", "mean score", "within 5 %"]
    return table(head, rows, texts=2)


def _detector(figures: Figures) -> str:
    rows = []
    for r in figures["detector"].values():
        columns = [r[column] for column in ("dx", "dy", "dw", "dh", "side")]
        spreads = [f"{c[0]:+.1f} ± {c[1]:.1f}" if c else "–" for c in columns]
        rows.append([r["title"], str(r["n"]), str(r["missed"]), *spreads])
    return table(["faces", "n", "missed", "dx", "dy", "dw", "dh", "longer side"], rows)


def _weak(figures: Figures) -> str:
    rows = []
    for r in figures["weak"]:
        what, unit = ("turned to the side", "°") if r["by"] == "yaw" else ("longer side of the face", " px")
        least, most = r["from"], r["to"]
        reach = f"{least} to {most}{unit}" if most < 1000 else f"from {least}{unit}"
        numbers = [number(r["nme"]), number(r["nme_inner"]), number(r["fr8"])]
        numbers += [number(r["score"]), number(r["within"])]
        rows.append([what, reach, str(r["n"]), *numbers])
    head = ["what", "how much", "n", "NME 68", "NME inner 51", "FR@8", "mean score", "within 5 %"]
    return table(head, rows, texts=2)
