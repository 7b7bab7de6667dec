"""Markdown tables of the figures that `benchmarks/detection.py` measures; nothing else goes into them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks.detector_speed import FRAME
from benchmarks.photo_sets import FACELESS, LABELLED
from benchmarks.speed_tables import words_of_machine
from benchmarks.tables import number, table

Figures = Mapping[str, Any]

SHORT = {"ytf_test": "YTF test", "lfpw_test": "LFPW test", "afw": "AFW, third", "collages": "group, ≥ 24 px"}
"""Recall columns, by set."""


def short(figures: Figures) -> str:
    """README's table, what goes with it, and the command that made it."""
    names = _detectors(figures)
    by_point = {(row["allowed"], row["detector"]): row for row in figures["beside"]}
    own = _at(figures, figures["min_score"])
    rows = []
    for name in SHORT:
        of = figures["sets"][name]
        size = figures["collages"]["rows"][1]["faces"]  # after all, those of 24 px and more
        title = of["title"] + (", faces of 24 px and more" if name == "collages" else "")
        found = [own[name], *(by_point[3, detector][name] for detector in names)]
        faces = size if name == "collages" else of["faces"]
        rows.append([title, str(faces), *(_percent(value) for value in found)])
    head = ["faces", "n", f"found at {figures['min_score']:g}"]
    head += [f"{name}, at most 3 false boxes" for name in names]
    false = [f"{own[name]} on {figures['sets'][name]['photos']} {_what(figures, name)}" for name in FACELESS]
    timed = [row for row in figures["speed"]["rows"] if row["task"] == FRAME]
    times = [f"{row['detector']} {row['ms']:.1f} ms" for row in timed]
    weights = [f"{name} {size:g} MB" for name, size in figures["weights_mb"].items()]
    return "\n\n".join([
        table(head, rows),
        f"False boxes at {figures['min_score']:g}: {' and '.join(false)}. A {_size(FRAME)} frame on one "
        f"thread: {', '.join(times)}; weights: {', '.join(weights)}.{_left_out(figures)}",
        f"Made by `{figures['command']}`.",
    ])  # fmt: skip


def pages(figures: Figures) -> dict[str, str]:
    """The tables of docs/detection.md by name."""
    return {
        "command": f"Every figure and picture on this page: `{figures['command']}`.",
        "sets": _sets(figures),
        "thresholds": _thresholds(figures),
        "beside": _beside(figures),
        "collages": _collages(figures),
        "big": _big(figures),
        "speed": _speed(figures),
        "end_to_end": _end_to_end(figures),
    }


def _detectors(figures: Figures) -> list[str]:
    return list(figures["fits"])


def _left_out(figures: Figures) -> str:
    """A sentence on every detector that was not measured."""
    timed = {row["detector"] for row in figures["speed"]["rows"]}
    said = []
    if "YuNet" not in _detectors(figures):
        said.append("YuNet is left out: its file was not given (`--yunet FILE`).")
    if "Haar" not in timed:
        said.append("Haar cascades are left out: no OpenCV 4 was given (`--haar PYTHON`).")
    return "".join(f" {sentence}" for sentence in said)


def _at(figures: Figures, threshold: float) -> Mapping[str, Any]:
    """The row of a threshold."""
    return min(figures["thresholds"], key=lambda row: abs(row["threshold"] - threshold))


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f} %"


def _what(figures: Figures, name: str) -> str:
    title = figures["sets"][name]["title"]
    return title if name == "no_faces" else f"photos of {title}"


def _size(size: str) -> str:
    return size.replace("x", "×")


def _sets(figures: Figures) -> str:
    rows = []
    for of in figures["sets"].values():
        precision = [number(of.get(key)) for key in ("ap", "ap50", "iou")]
        counts = [str(of["photos"]), str(of["held_out"]), str(of["faces"])]
        rows.append([of["title"], *counts, *precision])
    head = ["set", "photos", "held out of training", "faces", "AP", "AP at 0.5", "mean IoU, %"]
    return table(head, rows)


def _thresholds(figures: Figures) -> str:
    rows = []
    for row in figures["thresholds"]:
        cells = [f"{row['threshold']:g}", *(number(row[name]) for name in SHORT)]
        cells += [number(row["off"][name], 1) for name in LABELLED]
        cells += [f"{row[name]} ({row[f'{name}_held_out']})" for name in FACELESS]
        bold = "**" if row is _at(figures, figures["min_score"]) else ""
        rows.append([f"{bold}{cell}{bold}" for cell in cells])
    head = ["threshold", *(f"recall, {title}" for title in SHORT.values())]
    head += [f"off per 100, {SHORT[name]}" for name in LABELLED]
    head += [f"{figures['sets'][name]['photos']} {_what(figures, name)}" for name in FACELESS]
    few, own = figures["few_false"], _at(figures, figures["few_false"])
    return (
        f"{table(head, rows, texts=0)}\n\nThe least threshold with at most 3 false boxes on photos without a "
        f"face and 10 on animals and things is {few:g}, with {own['no_faces']} and {own['scenes']} of them."
    )


def _beside(figures: Figures) -> str:
    rows = []
    for row in figures["beside"]:
        allowed = "own threshold" if row["allowed"] is None else f"at most {row['allowed']}"
        cells = [f"{row['threshold']:g}", str(row["no_faces"]), str(row["scenes"])]
        rows.append([allowed, row["detector"], *cells, *(number(row[name]) for name in SHORT)])
    head = ["false boxes on photos without a face", "detector", "threshold", "how many there are"]
    head += ["on animals and things", *(f"recall, {title}" for title in SHORT.values())]
    return f"{table(head, rows, texts=2)}\n\n{_fits(figures)}{_left_out(figures)}"


def _fits(figures: Figures) -> str:
    said = []
    for name, fit in figures["fits"].items():
        (x, y), (w, h) = fit["shift_xy"], fit["scale_wh"]
        said.append(f"{name}: middle {x:+.3f}, {y:+.3f} box sizes, width × {w:.3f}, height × {h:.3f}")
    return f"The fits: {'; '.join(said)}."


_BY = {"side": "longer side, px", "turn": "turned, degrees", "cut": "cut off by the edge, %"}


def _collages(figures: Figures) -> str:
    points = figures["collages"]["points"]
    words = {name: _point(name, point["threshold"]) for name, point in points.items()}
    rows = []
    for row in figures["collages"]["rows"]:
        factor = 100 if row["by"] == "cut" else 1
        reach = f"from {row['from']:g}" if row["to"] is None else f"{factor * row['from']:.0f} to "
        reach += "" if row["to"] is None else f"{factor * row['to']:.0f}"
        if row["by"] == "cut" and row["from"] == 0:
            reach = "whole"
        rows.append([_BY[row["by"]], reach, str(row["faces"]), *(number(row[name]) for name in points)])
    head = ["faces", "", "n", *(f"recall, {words[name]}" for name in points)]
    false = ", ".join(f"{point['false_boxes']} ({words[name]})" for name, point in points.items())
    photos = figures["sets"]["collages"]["photos"]
    return f"{table(head, rows, texts=2)}\n\nFalse boxes on the {photos} pictures: {false}."


def _point(name: str, threshold: float) -> str:
    """A column of the table of group pictures in words."""
    detector, few, _ = name.partition(", few")
    return f"{detector} at 3 false boxes" if few else f"{detector} at {threshold:g}"


def _big(figures: Figures) -> str:
    times = {row["task"]: row["ms"] for row in figures["speed"]["rows"] if row["detector"] == "fkp"}
    rows = [
        [row["what"], str(row["photos"]), str(row["faces"]), _percent(row["recall"]), str(row["false_boxes"]),
         f"{number(times.get(row['what']), 1)} ms"]
        for row in figures["big"]
    ]  # fmt: skip
    return table(["picture", "pictures", "faces", "recall", "false boxes", "one thread, each"], rows)


def _speed(figures: Figures) -> str:
    rows = [
        [row["detector"], row["version"], f"{row['ms']:.2f} ({row['best_ms']:.2f})", f"{row['cores']:.2f}",
         f"{figures['weights_mb'][row['detector']]:g}" if row["detector"] in figures["weights_mb"] else "–"]
        for row in figures["speed"]["rows"] if row["task"] == FRAME
    ]  # fmt: skip
    head = ["detector", "with", f"{_size(FRAME)}, ms", "busy cores", "weights, MB"]
    return f"{table(head, rows, texts=2)}\n\n{words_of_machine(figures['speed'])}{_left_out(figures)}"


def _end_to_end(figures: Figures) -> str:
    rows = []
    for row in figures["end_to_end"]:
        more = "–" if row["more"] is None else f"{row['more']:+.1f} %"
        rows.append([
            figures["sets"][row["set"]]["title"], f"`{row['style']}`", str(row["n"]), str(row["missed"]),
            number(row["truth"]), number(row["detected"]), more,
        ])  # fmt: skip
    head = ["faces", "label style", "n", "missed", "NME, true boxes", "NME, detected boxes", "difference"]
    return table(head, rows, texts=2)
