"""The plot of docs/detection.md: recall against false boxes, precision and recall, recall by size."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.detection_tables import SHORT
from benchmarks.photo_sets import LABELLED, Seen, false_scores
from benchmarks.plots import BLUE, GREEN, GREY, TEXT, VERMILION, blank, dress, explain, save, tick
from fkp import metrics

MOST = 20
"""False boxes up to which recall is shown."""
COLOURS = dict(zip(LABELLED, (BLUE, VERMILION, GREEN), strict=True))
DASHES = {"fkp": "-", "YuNet": (0, (2, 1.2))}


def write(
    folder: Path, figures: Mapping[str, Any], mapped: Mapping[str, Mapping[str, Sequence[Seen]]]
) -> Path:
    """Write detection.png into a folder, which is made if need be; its path."""
    folder.mkdir(parents=True, exist_ok=True)
    save(plot(figures, mapped), folder / "detection.png")
    return folder / "detection.png"


def plot(figures: Mapping[str, Any], mapped: Mapping[str, Mapping[str, Sequence[Seen]]]) -> Figure:
    """Of every detector, with boxes mapped to the tight box alike."""
    figure = blank(3.9)
    against, precise, by_size = figure.subplots(1, 3)
    worst = 100.0
    for name in LABELLED:
        for detector, seen in mapped[name].items():
            look = {"color": COLOURS[name], "ls": DASHES[detector], "lw": 1.6}
            found = [each.found for each in seen]
            precision, recall, scores = metrics.precision_recall(found)
            false = np.sort(false_scores(mapped["no_faces"][detector]))[::-1]
            counts = np.arange(MOST + 1)
            limits = [metrics.threshold_for(false, count) for count in counts.tolist()]
            shares = [100 * recall[scores >= limit].max(initial=0) for limit in limits]
            worst = min(worst, shares[0])
            against.step(counts, shares, where="post", **look, label=f"{SHORT[name]}, {detector}")
            precise.plot(100 * recall, 100 * precision, **look)
    dress(against, "Recall against false boxes", "false boxes on photos without a face")
    against.set(xlim=(0, MOST), ylim=(max(0, worst - 3), 100.3))
    against.set_ylabel("recall, %", fontsize=TEXT)
    dress(precise, "Precision and recall", "recall, %")
    precise.set(xlim=(90, 100.2), ylim=(90, 100.2))
    precise.set_ylabel("precision, %", fontsize=TEXT)

    rows = [row for row in figures["collages"]["rows"] if row["by"] == "side" and row["to"] is not None]
    middles = [float(np.sqrt(row["from"] * row["to"])) for row in rows]
    for column, colour, dashes, marker, words in (
        ("fkp", BLUE, "-", "o", "fkp, its own threshold"),
        ("YuNet, few", GREY, DASHES["YuNet"], "s", "YuNet, 3 false boxes"),
    ):
        if column in figures["collages"]["points"]:
            values = [np.nan if row[column] is None else row[column] for row in rows]
            by_size.plot(middles, values, color=colour, ls=dashes, marker=marker, ms=4, lw=1.6, label=words)
    dress(by_size, "Faces in group pictures", "longer side of the face, pixels")
    by_size.set_xscale("log")
    tick(by_size, (16, 24, 32, 64, 128, 200))
    by_size.set(xlim=(16, 200), ylim=(0, 101))
    by_size.set_ylabel("recall, %", fontsize=TEXT)
    by_size.legend(fontsize=TEXT - 1, frameon=False, loc="lower right")
    explain(figure, against)
    return figure
