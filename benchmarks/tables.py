"""Markdown tables of the figures that `benchmarks/accuracy.py` measures; nothing else goes into them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.faces import SETS
from benchmarks.published import made_by, number, table
from benchmarks.robustness import CONDITIONS

Figures = Mapping[str, Any]

NETWORK = "KeypointNet"

WAYS = {
    "truth": ("true", ""),
    "own_style": ("true", ', `label_style="{style}"`'),
    "mirrored": ("true", ", `mirrored=True`"),
    "passes": ("true", ', `passes="auto"`'),
    "detected": ("detected", ""),
    "own_detected": ("detected", ', `label_style="{style}"`'),
}
"""By way of asking: which boxes, and how the network was asked."""
SHORT = ("truth", "own_style", "detected", "own_detected")
"""The ways that README.md shows."""

COLUMNS = {
    "nme": "NME 68", "nme_inner": "NME inner 51", "median": "median", "fr8": "FR@8", "fr10": "FR@10",
    "auc8": "AUC@8",
}  # fmt: skip
GROUP_HEAD = ["n", "NME 68", "NME inner 51", "FR@8", "mean score", "within 5 %"]
"""Columns of the rows that `faces.row` makes."""


def short(figures: Figures) -> str:
    """README's table and the command that made it."""
    return made_by(_sets(figures, SHORT, ("nme", "nme_inner", "fr8", "auc8")), figures["command"])


def pages(figures: Figures) -> dict[str, str]:
    """The tables of docs/accuracy.md by name."""
    made = {
        "command": f"Figures and pictures on this page that name no other command: `{figures['command']}`.",
        "sets": _sets(figures, WAYS, tuple(COLUMNS)),
        "reliability": _reliability(figures),
        "bins": _bins(figures),
        "ranking": _ranking(figures),
        "robustness": _robustness(figures),
        "detector": _detector(figures),
        "weak": _weak(figures),
    }
    return {f"accuracy.{name}": text for name, text in made.items()}


def _sets(figures: Figures, ways: Iterable[str], columns: Sequence[str]) -> str:
    """A row for each set and way of asking."""
    rows = []
    for test in SETS:
        for way in ways:
            s, (boxes, asked) = figures["figures"][NETWORK][test.name][way], WAYS[way]
            name = NETWORK + asked.format(style=test.style)
            numbers = [number(s[column]) for column in columns]
            rows.append([test.title, boxes, name, str(s["n"]), str(s["missed"]), *numbers])
    return table(["faces", "boxes", "network", "n", "missed", *(COLUMNS[c] for c in columns)], rows, texts=3)


def _styles(figures: Figures) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Title, labelling style and confidence figures, for each set by default and in its own style."""
    return [
        (test.title, style, figures["confidence"][test.name][way])
        for test in SETS
        for way, style in (("truth", "default"), ("own_style", f"`{test.style}`"))
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
    count = len(by_set[0])
    rows = [
        [f"{i / count:g} to {(i + 1) / count:g}",
         *(f"{score:.2f} → {hit:.2f} ({n})" if n else "–" for score, hit, n in bins)]
        for i, bins in enumerate(zip(*by_set, strict=True))
    ]  # fmt: skip
    return table(["scores", *(test.short for test in SETS)], rows)


def _ranking(figures: Figures) -> str:
    rows = [[title, style, *map(number, c["ranking"])] for title, style, c in _styles(figures)]
    shares = [f"{10 * i} %" for i in range(len(rows[0]) - 2)]
    return table(["faces", "style", *shares], rows, texts=2)


def _group(r: Mapping[str, Any]) -> list[str]:
    return [str(r["n"]), *(number(r[key]) for key in ("nme", "nme_inner", "fr8", "score", "within"))]


def _robustness(figures: Figures) -> str:
    conditions = {condition.name: condition for condition in CONDITIONS}
    rows = []
    for r in figures["robustness"]:
        title, level = "As they are", ""
        if r["condition"] in conditions:
            condition = conditions[r["condition"]]
            title, level = condition.title, condition.level.format(f"{r['level']:g}")
        rows.append([title, level, str(r["passes"]), *_group(r)])
    return table(["what", "how much", "passes", *GROUP_HEAD], rows, texts=2)


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
        rows.append([what, reach, *_group(r)])
    return table(["what", "how much", *GROUP_HEAD], rows, texts=2)
