"""The plots of docs/accuracy.md, as PNG. None shows a picture of a data set.

Colours are Okabe and Ito's, which colour-blind eyes tell apart (https://jfly.uni-koeln.de/color/), and each
set has its own marker too.
"""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import EllipseCollection, LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from PIL import Image

from benchmarks.faces import SETS, Labelled, Placed
from fkp import geometry, metrics, scheme

Sets = Mapping[str, Labelled]
Placements = Mapping[str, Mapping[str, Placed]]

INK, FAINT = "#222222", "#d9d9d9"
BLUE, SKY, VERMILION, GREEN, GREY = "#0072B2", "#56B4E9", "#D55E00", "#009E73", "#8c8c8c"
LOOKS: dict[str, dict[str, Any]] = {
    "ytf_held_out": {"color": BLUE, "marker": "o"},
    "ytf_test": {"color": SKY, "marker": "s"},
    "lfpw_test": {"color": VERMILION, "marker": "^"},
}
STYLE: Any = {
    "font.size": 9, "axes.titlesize": 10, "xtick.labelsize": 8, "ytick.labelsize": 8, "text.color": INK,
    "axes.titlelocation": "left", "axes.grid": True, "axes.axisbelow": True, "grid.color": FAINT,
    "grid.linewidth": 0.6, "axes.edgecolor": FAINT, "xtick.color": FAINT, "ytick.color": FAINT,
    "xtick.labelcolor": INK, "ytick.labelcolor": INK, "axes.spines.top": False, "axes.spines.right": False,
    "legend.frameon": False, "lines.linewidth": 1.5, "lines.markersize": 4,
    "figure.constrained_layout.use": True,
}  # fmt: skip
BELOW: Any = {"loc": "outside lower center", "ncols": 2}


def write_all(folder: Path, figures: Mapping[str, Any], faces: Sets, placed: Placements) -> list[Path]:
    """Write every plot into a folder, which is made if need be; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(STYLE):
        plots = {
            "ced.png": ced(faces, placed),
            "error_by_point.png": error_by_point(faces, placed),
            "confidence.png": confidence(figures, faces, placed),
            "error_by_size.png": error_by_size(figures, faces, placed),
            "robustness.png": robustness(figures),
        }
        for name, figure in plots.items():
            full = io.BytesIO()
            figure.savefig(full, format="png", dpi=150)  # 1200 pixels wide, for 800 on a page
            # Plots have few colours, and with 256 a third of the bytes is enough.
            picture = Image.open(full).convert("RGB").quantize(256, dither=Image.Dither.NONE)
            picture.save(folder / name, optimize=True)
    return [folder / name for name in plots]


def ced(faces: Sets, placed: Placements) -> Figure:
    """Cumulative error distribution: share of faces with an NME up to each limit, a panel for each set."""
    figure = Figure(figsize=(8, 3.3))
    panels = figure.subplots(1, len(SETS), sharey=True)
    limits = np.linspace(0, 10, 201)
    lines: dict[str, tuple[str, str, Any]] = {
        "truth": ("KeypointNet", BLUE, "-"),
        "own_style": ("the set's own style", GREEN, (0, (5, 2))),
        "own_detected": ("its own style, detected boxes", VERMILION, (0, (1, 1.2))),
    }
    for axes, test in zip(panels, SETS, strict=True):
        for way, (label, colour, dashes) in lines.items():
            nme = metrics.nme(placed[test.name][way].keypoints, faces[test.name].keypoints)
            axes.plot(limits, metrics.ced(nme, limits), color=colour, ls=dashes, lw=1.8, label=label)
        axes.set(xlim=(0, 10), ylim=(0, 101), title=f"{test.short} (n = {len(faces[test.name])})",
                 xlabel="NME, % of inter-ocular distance")  # fmt: skip
    panels[0].set_ylabel("faces with at most this NME, %")
    figure.legend(*panels[0].get_legend_handles_labels(), **BELOW)
    return figure


def error_by_point(faces: Sets, placed: Placements) -> Figure:
    """Each point's mean error on the mean face for each set: the radius to scale, and the colour."""
    figure = Figure(figsize=(8, 3.4))
    panels = figure.subplots(1, len(SETS), sharex=True, sharey=True)
    errors = {name: _point_errors(faces, placed, name).mean(axis=0) for name in placed}
    least = math.floor(min(each.min() for each in errors.values()))
    most = math.ceil(max(each.max() for each in errors.values()))
    for axes, test in zip(panels, SETS, strict=True):
        face, of = mean_face(), errors[test.name]
        axes.add_collection(LineCollection(face[np.array(scheme.EDGES)], colors=FAINT, lw=1.2, zorder=1))
        circles = EllipseCollection(
            2 * of, 2 * of, np.zeros(len(of)), units="xy", zorder=2, offsets=face, edgecolors=INK,
            offset_transform=axes.transData, linewidths=0.4, array=of, cmap="viridis_r", clim=(least, most),
        )  # fmt: skip
        axes.add_collection(circles)
        axes.set(xlim=(-104, 104), ylim=(147, -48), aspect="equal")
        axes.axis("off")
        axes.set_title(f"{test.short}\nmean {of.mean():.2f} %", loc="center")
    bar = figure.colorbar(circles, ax=panels, shrink=0.9, pad=0.01, aspect=25)
    bar.set_label("mean error of the point, % of inter-ocular\n(circles are to scale)")
    return figure


def confidence(figures: Mapping[str, Any], faces: Sets, placed: Placements) -> Figure:
    """Reliability diagram, mean error against score, and what remains when the least sure points go."""
    figure = Figure(figsize=(8, 3.5))
    reliability, error, ranking = figure.subplots(1, 3)
    reliability.plot([0, 1], [0, 1], color=GREY, lw=1, ls="--")
    for test in SETS:
        look, of_set = LOOKS[test.name], figures["confidence"][test.name]["own_style"]
        bins = np.array([b for b in of_set["bins"] if b[2]], np.float64)
        label = f"{test.short}: reliability error {of_set['reliability_error']:.3f}"
        reliability.plot(bins[:, 0], bins[:, 1], **look, label=label)
        scores = placed[test.name]["own_style"].scores.ravel()
        error.plot(*_means(scores, _point_errors(faces, placed, test.name).ravel(), 12), **look)
        curve = np.array(of_set["ranking"])
        ranking.plot(10 * np.arange(len(curve)), 100 * curve / curve[0], **look)
    reliability.set(xlim=(0, 1), ylim=(0, 1), title="Reliability", xlabel="keypoint score",
                    ylabel="share of points within 5 %")  # fmt: skip
    error.set(xlim=(0, 1), ylim=(0, None), title="Error against score", xlabel="keypoint score",
              ylabel="mean error, % of inter-ocular")  # fmt: skip
    ranking.set(ylim=(0, 102), title="Without the least sure", xlabel="points dropped, %",
                ylabel="mean error of the rest, % of all")  # fmt: skip
    figure.legend(*reliability.get_legend_handles_labels(), **BELOW)
    return figure


def error_by_size(figures: Mapping[str, Any], faces: Sets, placed: Placements) -> Figure:
    """NME against the size of the face: every face as a dot, means of groups, and LFPW shrunk on purpose."""
    figure = Figure(figsize=(8, 3.8))
    axes = figure.subplots()
    for test in SETS:
        look = LOOKS[test.name] | {"ms": 6, "lw": 1.8}
        sides = geometry.longer_sides(faces[test.name].boxes)
        nme = metrics.nme(placed[test.name]["own_style"].keypoints, faces[test.name].keypoints)
        axes.plot(sides, nme, ls="", marker="o", ms=2.5, color=look["color"], alpha=0.3, mew=0, zorder=1)
        logarithms, means = _means(np.log(sides), nme, 8)
        axes.plot(np.exp(logarithms), means, **look, label=test.short, zorder=3)
    rows = _rows(figures, "size", 1)
    axes.plot([r["level"] for r in rows], [r["nme"] for r in rows], color=VERMILION, marker="^", mfc="white",
              ms=6, lw=1.8, ls=(0, (4, 2)), label="300-W, LFPW test, shrunk", zorder=2)  # fmt: skip
    axes.set_xscale("log")
    _ticks(axes, (20, 30, 40, 60, 80, 100, 150, 200, 300))
    title = "Error against the size of the face (means of eight groups of each set; dots are faces)"
    axes.set(xlim=(18, 330), ylim=(0, 12), title=title, xlabel="longer side of the tight box, pixels",
             ylabel="NME, % of inter-ocular distance")  # fmt: skip
    axes.legend(loc="upper right")
    return figure


PANELS = (
    ("size", "Face size", "longer side, pixels", None),
    ("shift", "Box shifted", "σ, % of its side", 0),
    ("scale", "Box of wrong size", "σ, %", 0),
    ("turn", "Turned (other scale)", "degrees in the plane", 0),
    ("blur", "Blur", "σ, % of inter-ocular", 0),
    ("jpeg", "JPEG", "quality", None),
    ("dark", "Darkness and noise", "light, %", 100),
)
"""Condition, title, what is on x, and the level that leaves a picture as it is."""


def robustness(figures: Mapping[str, Any]) -> Figure:
    """NME under each condition, harder to the right, and below it whether the scores follow."""
    figure = Figure(figsize=(8, 8.2))
    grid = figure.subplots(4, 4, height_ratios=[3, 2, 3, 2])
    errors, scores = np.concatenate([grid[0], grid[2]]), np.concatenate([grid[1], grid[3]])
    mild = max((r["nme"] for r in figures["robustness"] if r["nme"] and r["condition"] != "turn"), default=1)
    untouched = {r["passes"]: r for r in figures["robustness"] if r["condition"] == "none"}
    for (name, title, x, easy), above, below in zip(PANELS, errors, scores, strict=False):
        above.axhline(untouched[1]["nme"], color=GREY, lw=1, ls=":", label="untouched")
        levels: list[float] = []
        for passes, colour, look in ((1, BLUE, {"marker": "o"}),
                                     ("auto", VERMILION, {"marker": "^", "mfc": "white"})):  # fmt: skip
            rows = _rows(figures, name, passes)
            if rows and easy is not None:
                rows = sorted([*rows, untouched[passes] | {"level": easy}], key=lambda r: r["level"])
            levels = levels or [r["level"] for r in rows]
            at = [r["level"] for r in rows]
            if rows:
                above.plot(at, [r["nme"] for r in rows], color=colour, **look, label=f"passes={passes}")
                below.plot(at, [r["score"] for r in rows], color=colour, **look)
                below.plot(at, [r["within"] for r in rows], color=colour, ls=(0, (2, 1)))
        above.set(title=title, ylim=(0, None if name == "turn" else 1.08 * mild))
        below.set(xlabel=x, ylim=(0, 1))
        for axes in (above, below):
            if name in ("size", "dark"):
                axes.set_xscale("log")
            if name in ("size", "dark", "jpeg"):
                axes.invert_xaxis()
            _ticks(axes, [level for level in levels if name != "turn" or level % 60 == 0])
        above.tick_params(labelbottom=False)
    for row in (0, 2):
        grid[row][0].set_ylabel("NME, %")
        grid[row + 1][0].set_ylabel("score, share")
    for axes in (grid[2][3], grid[3][3]):
        axes.axis("off")
    grid[2][3].legend(*errors[3].get_legend_handles_labels(), loc="upper left")
    lines = [Line2D([], [], color=INK, marker="o"), Line2D([], [], color=INK, ls=(0, (2, 1)))]
    grid[3][3].legend(lines, ["mean score", "share within 5 %"], loc="upper left")
    return figure


def mean_face() -> np.ndarray:
    """The mean face (68,2), level: its outer eye corners are 100 apart, and their middle is 0."""
    face = np.array(scheme.MEAN_FACE, np.float64)
    eyes = face[[scheme.RIGHT_EYE_OUTER_CORNER, scheme.LEFT_EYE_OUTER_CORNER]]
    return (face - eyes.mean(axis=0)) * 100 / np.ptp(eyes[:, 0])


def _point_errors(faces: Sets, placed: Placements, name: str) -> np.ndarray:
    """Errors (n,68) of a set's points, asked for in its own style."""
    return metrics.point_errors(placed[name]["own_style"].keypoints, faces[name].keypoints)


def _means(x: np.ndarray, y: np.ndarray, groups: int) -> np.ndarray:
    """Mean x and y (2,groups) of groups of one size, by rising x."""
    parts = np.array_split(np.argsort(x, kind="stable"), groups)
    return np.array([(x[part].mean(), y[part].mean()) for part in parts if len(part)]).T


def _rows(figures: Mapping[str, Any], condition: str, passes: int | str) -> list[dict[str, Any]]:
    """The measured rows of a condition, untouched faces left out, by rising level."""
    measured = [r for r in figures["robustness"] if r["n"]]
    rows = [r for r in measured if (r["condition"], r["passes"]) == (condition, passes)]
    return sorted(rows, key=lambda r: r["level"])


def _ticks(axes: Axes, values: Sequence[float]) -> None:
    axes.set_xticks(values, [f"{value:g}" for value in values])
    axes.set_xticks([], minor=True)
