"""The plots of docs/accuracy.md, as PNG. None shows a picture of a data set; the face is the mean of labels.

Colours are Okabe and Ito's, which colour-blind eyes tell apart (https://jfly.uni-koeln.de/color/), and each
set has its own marker too.
"""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, NullLocator
from PIL import Image

from benchmarks.faces import SETS, Labelled, Placed
from fkp import geometry, metrics, scheme

Sets = Mapping[str, Labelled]
Placements = Mapping[str, Mapping[str, Mapping[str, Placed]]]

WIDTH = 8.0
DPI = 150
"""Every plot is 1200 pixels wide, for 800 on a page."""
SMALL, TEXT, TITLE = 8, 9, 10
INK, FAINT = "#222222", "#d9d9d9"
BLUE, SKY, VERMILION, GREEN, GREY = "#0072B2", "#56B4E9", "#D55E00", "#009E73", "#8c8c8c"
LOOKS = {"ytf_held_out": (BLUE, "o"), "ytf_test": (SKY, "s"), "lfpw_test": (VERMILION, "^")}
"""Colour and marker of each test set."""


def write_all(folder: Path, figures: Mapping[str, Any], faces: Sets, placed: Placements) -> list[Path]:
    """Write every plot into a folder, which is made if need be; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    of_model = placed["KeypointNet"]
    plots = {
        "ced.png": ced(faces, placed),
        "error_by_point.png": error_by_point(faces, of_model),
        "confidence.png": confidence(figures, faces, of_model),
        "error_by_size.png": error_by_size(figures, faces, of_model),
        "robustness.png": robustness(figures),
    }
    for name, figure in plots.items():
        save(figure, folder / name)
    return [folder / name for name in plots]


def save(figure: Figure, path: Path) -> None:
    """A PNG of at most 256 colours: plots have few, and a third of the bytes is enough."""
    full = io.BytesIO()
    figure.savefig(full, format="png", dpi=DPI)
    picture = Image.open(full).convert("RGB").quantize(256, dither=Image.Dither.NONE)
    picture.save(path, optimize=True)


# --- The plots ----------------------------------------------------------------------------------------------


def ced(faces: Sets, placed: Placements) -> Figure:
    """Cumulative error distribution: share of faces with an NME up to each limit, a panel for each set."""
    figure = blank(3.3)
    panels = figure.subplots(1, len(SETS), sharey=True)
    limits = np.linspace(0, 10, 201)
    lines = {
        ("KeypointNet", "truth"): ("KeypointNet", BLUE, "-"),
        ("KeypointNet", "own_style"): ("the set's own style", GREEN, (0, (5, 2))),
        ("KeypointNet", "own_detected"): ("its own style, detected boxes", VERMILION, (0, (1, 1.2))),
        ("baseline", "truth"): ("baseline", GREY, "-"),
    }
    for axes, test in zip(panels, SETS, strict=True):
        for (network, way), (label, colour, dashes) in lines.items():
            if network in placed:
                nme = metrics.nme(placed[network][test.name][way].keypoints, faces[test.name].keypoints)
                axes.plot(limits, metrics.ced(nme, limits), color=colour, ls=dashes, lw=1.8, label=label)
        dress(axes, f"{test.short} (n = {len(faces[test.name])})", "NME, % of inter-ocular distance")
        axes.set(xlim=(0, 10), ylim=(0, 101))
    panels[0].set_ylabel("faces with at most this NME, %", fontsize=TEXT)
    explain(figure, panels[0])
    return figure


def error_by_point(faces: Sets, of_model: Mapping[str, Mapping[str, Placed]]) -> Figure:
    """Each point's mean error on the mean face of each set: the circle's radius to scale, and its colour."""
    figure = blank(3.4)
    panels = figure.subplots(1, len(SETS), sharex=True, sharey=True)
    mean_errors = {
        test.name: metrics.point_errors(
            of_model[test.name]["own_style"].keypoints, faces[test.name].keypoints
        ).mean(axis=0)
        for test in SETS
    }
    least = math.floor(min(errors.min() for errors in mean_errors.values()))
    most = math.ceil(max(errors.max() for errors in mean_errors.values()))
    for axes, test in zip(panels, SETS, strict=True):
        face, errors = mean_face(faces[test.name].keypoints), mean_errors[test.name]
        axes.add_collection(LineCollection(face[np.array(scheme.EDGES)], colors=FAINT, lw=1.2, zorder=1))
        circles = EllipseCollection(
            2 * errors, 2 * errors, np.zeros(len(errors)), units="xy", zorder=2,
            offsets=face, offset_transform=axes.transData, edgecolors=INK, linewidths=0.4,
            array=errors, cmap="viridis_r", clim=(least, most),
        )  # fmt: skip
        axes.add_collection(circles)
        axes.set_aspect("equal")
        axes.set(xlim=(-104, 104), ylim=(147, -48))
        axes.axis("off")
        axes.set_title(f"{test.short}\nmean {errors.mean():.2f} %", fontsize=TITLE, color=INK)
    bar = figure.colorbar(circles, ax=panels, shrink=0.9, pad=0.01, aspect=25)
    bar.set_label("mean error of the point, % of inter-ocular\n(circles are to scale)", fontsize=TEXT)
    bar.ax.tick_params(labelsize=SMALL)
    return figure


def confidence(
    figures: Mapping[str, Any], faces: Sets, of_model: Mapping[str, Mapping[str, Placed]]
) -> Figure:
    """Reliability diagram, mean error against score, and what remains when the least sure points go."""
    figure = blank(3.5)
    reliability, error, ranking = figure.subplots(1, 3)
    reliability.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--")
    for test in SETS:
        colour, marker = LOOKS[test.name]
        look = {"color": colour, "marker": marker, "ms": 4, "lw": 1.5}
        of_set = figures["confidence"][test.name]["own_style"]
        bins = np.array([b for b in of_set["bins"] if b[2]], np.float64)
        label = f"{test.short}: reliability error {of_set['reliability_error']:.3f}"
        reliability.plot(bins[:, 0], bins[:, 1], **look, label=label)
        scores = of_model[test.name]["own_style"].scores.ravel()
        errors = metrics.point_errors(of_model[test.name]["own_style"].keypoints, faces[test.name].keypoints)
        groups = np.array_split(np.argsort(scores, kind="stable"), 12)
        means = [(scores[g].mean(), errors.ravel()[g].mean()) for g in groups if len(g)]
        error.plot(*np.array(means).T, **look)
        curve = np.array(of_set["ranking"])
        ranking.plot(10 * np.arange(len(curve)), 100 * curve / curve[0], **look)
    dress(reliability, "Reliability", "keypoint score")
    reliability.set(xlim=(0, 1), ylim=(0, 1))
    reliability.set_ylabel("share of points within 5 %", fontsize=TEXT)
    dress(error, "Error against score", "keypoint score")
    error.set(xlim=(0, 1), ylim=(0, None))
    error.set_ylabel("mean error, % of inter-ocular", fontsize=TEXT)
    dress(ranking, "Without the least sure", "points dropped, %")
    ranking.set(ylim=(0, 102))
    ranking.set_ylabel("mean error of the rest, % of all", fontsize=TEXT)
    explain(figure, reliability)
    return figure


def error_by_size(
    figures: Mapping[str, Any], faces: Sets, of_model: Mapping[str, Mapping[str, Placed]]
) -> Figure:
    """NME against the size of the face: every face as a dot, means of groups, and LFPW shrunk on purpose."""
    figure = blank(3.8)
    axes = figure.subplots()
    for test in SETS:
        colour, marker = LOOKS[test.name]
        sides = geometry.longer_sides(faces[test.name].boxes)
        nme = metrics.nme(of_model[test.name]["own_style"].keypoints, faces[test.name].keypoints)
        axes.plot(sides, nme, ls="", marker="o", ms=2.5, color=colour, alpha=0.3, mew=0, zorder=1)
        groups = np.array_split(np.argsort(sides, kind="stable"), 8)
        means = [(np.exp(np.log(sides[g]).mean()), nme[g].mean()) for g in groups if len(g)]
        axes.plot(*np.array(means).T, color=colour, marker=marker, ms=6, lw=1.8, label=test.short, zorder=3)
    rows = _rows(figures, "size", 1)
    axes.plot([r["level"] for r in rows], [r["nme"] for r in rows], color=VERMILION, marker="^", mfc="white",
              ms=6, lw=1.8, ls=(0, (4, 2)), label="300-W, LFPW test, shrunk", zorder=2)  # fmt: skip
    dress(axes, "Error against the size of the face (means of eight groups of each set; dots are faces)",
           "longer side of the tight box, pixels")  # fmt: skip
    axes.set_xscale("log")
    tick(axes, (20, 30, 40, 60, 80, 100, 150, 200, 300))
    axes.set(xlim=(18, 330), ylim=(0, 12))
    axes.set_ylabel("NME, % of inter-ocular distance", fontsize=TEXT)
    axes.legend(fontsize=TEXT, frameon=False, loc="upper right")
    return figure


def robustness(figures: Mapping[str, Any]) -> Figure:
    """NME under each condition, harder to the right, and below it whether the scores follow."""
    figure = blank(8.2)
    grid = figure.subplots(4, 4, height_ratios=[3, 2, 3, 2])
    errors, scores = np.concatenate([grid[0], grid[2]]), np.concatenate([grid[1], grid[3]])
    mild = max((r["nme"] for r in figures["robustness"] if r["nme"] and r["condition"] != "turn"), default=1)
    untouched = {r["passes"]: r for r in figures["robustness"] if r["condition"] == "none"}
    for (name, title, x, easy), above, below in zip(_PANELS, errors, scores, strict=False):
        above.axhline(untouched[1]["nme"], color=GREY, lw=1, ls=":", label="untouched")
        ticks: set[float] = set()
        for passes, colour, marker, fill in ((1, BLUE, "o", BLUE), ("auto", VERMILION, "^", "white")):
            rows = _rows(figures, name, passes)
            if not rows:
                continue
            if easy is not None:
                rows = sorted([*rows, untouched[passes] | {"level": easy}], key=lambda r: r["level"])
            levels = [r["level"] for r in rows]
            ticks |= set(levels)
            look = {"color": colour, "marker": marker, "ms": 4, "mfc": fill, "lw": 1.5}
            above.plot(levels, [r["nme"] for r in rows], **look, label=f"passes={passes}")
            below.plot(levels, [r["score"] for r in rows], **look)
            below.plot(levels, [r["within"] for r in rows], color=colour, lw=1.5, ls=(0, (2, 1)))
        dress(above, title, "")
        dress(below, "", x)
        above.set_ylim(0, None if name == "turn" else 1.08 * mild)
        below.set_ylim(0, 1)
        for axes in (above, below):
            if name in ("size", "dark"):
                axes.set_xscale("log")
            if name in ("size", "dark", "jpeg"):
                axes.invert_xaxis()
            tick(axes, tuple(t for t in sorted(ticks) if name != "turn" or t % 60 == 0))
        above.tick_params(labelbottom=False)
    for row in (0, 2):
        grid[row][0].set_ylabel("NME, %", fontsize=TEXT)
        grid[row + 1][0].set_ylabel("score, share", fontsize=TEXT)
    for axes in (grid[2][3], grid[3][3]):
        axes.axis("off")
    handles, labels = errors[3].get_legend_handles_labels()
    grid[2][3].legend(handles, labels, loc="upper left", fontsize=TEXT, frameon=False)
    lines = [Line2D([], [], color=INK, marker="o", ms=4), Line2D([], [], color=INK, ls=(0, (2, 1)))]
    names = ["mean score", "share within 5 %"]
    grid[3][3].legend(lines, names, loc="upper left", fontsize=TEXT, frameon=False)
    return figure


_PANELS = (
    ("size", "Face size", "longer side, pixels", None),
    ("shift", "Box shifted", "σ, % of its side", 0),
    ("scale", "Box of wrong size", "σ, %", 0),
    ("turn", "Turned (other scale)", "degrees in the plane", 0),
    ("blur", "Blur", "σ, % of inter-ocular", 0),
    ("jpeg", "JPEG", "quality", None),
    ("dark", "Darkness and noise", "light, %", 100),
)
"""Condition, title, what is on x, and the level that leaves a picture as it is."""


# --- What they share ----------------------------------------------------------------------------------------


def mean_face(keypoints: np.ndarray) -> np.ndarray:
    """The mean (68,2) of faces (n,68,2) laid over each other by moving, turning and scaling.

    Its outer eye corners are 100 apart, level, and their middle is 0. Generalised Procrustes analysis:
    Gower, https://doi.org/10.1007/BF02291478.
    """
    shapes = keypoints[..., 0] + 1j * keypoints[..., 1].astype(np.float64)
    shapes = shapes - shapes.mean(axis=1, keepdims=True)
    mean = shapes[0]
    for _ in range(10):
        # One complex factor turns and scales; this one brings a shape closest to the mean.
        factors = (shapes.conj() @ mean) / (shapes.conj() * shapes).sum(axis=1)
        mean = (factors[:, None] * shapes).mean(axis=0)
        mean = mean / np.linalg.norm(mean)
    right, left = mean[scheme.RIGHT_EYE_OUTER_CORNER], mean[scheme.LEFT_EYE_OUTER_CORNER]
    mean = (mean - (right + left) / 2) / (left - right) * 100
    return np.stack([mean.real, mean.imag], axis=1)


def _rows(figures: Mapping[str, Any], condition: str, passes: int | str) -> list[dict[str, Any]]:
    """The measured rows of a condition, untouched faces left out, by rising level."""
    measured = [r for r in figures["robustness"] if r["n"]]
    rows = [r for r in measured if (r["condition"], r["passes"]) == (condition, passes)]
    return sorted(rows, key=lambda r: r["level"])


def blank(height: float) -> Figure:
    """A white figure of the usual width."""
    return Figure(figsize=(WIDTH, height), layout="constrained", facecolor="white")


def dress(axes: Axes, title: str, x: str) -> None:
    """Axes with a title, a name for x, a faint grid and no frame."""
    axes.set_title(title, fontsize=TITLE, color=INK, loc="left")
    axes.set_xlabel(x, fontsize=TEXT)
    axes.tick_params(labelsize=SMALL, color=FAINT)
    axes.grid(color=FAINT, lw=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)


def tick(axes: Axes, values: tuple[float, ...]) -> None:
    """Exactly these ticks on x, as plain numbers."""
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticklabels([f"{value:g}" for value in values])


def explain(figure: Figure, axes: Axes) -> None:
    """One legend for all panels, below them."""
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=TEXT, frameon=False)
