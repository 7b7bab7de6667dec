"""How far off the keypoints are, how well they know it, and what makes them worse: every table and plot.

    python benchmarks/accuracy.py --data DATA                                  # prints the tables
    python benchmarks/accuracy.py --data DATA --baseline runs/baseline/model --write
    python benchmarks/accuracy.py --data DATA --limit 20 --plots DIR           # a quick trial
    python benchmarks/accuracy.py --data DATA --worst 20 DIR                   # the worst faces, to look at

`--write` puts the figures into the model's metrics.json, the tables into README.md and docs/accuracy.md and
the plots into docs/; that is how the figures of the bundled weights came about. `--worst` makes sheets only.
DATA is the folder that README.md describes.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from benchmarks import plots, published, robustness, tables, worst  # noqa: E402
from benchmarks.faces import HELD_OUT, SETS, Labelled, Placed, detect, hits, place, read, row  # noqa: E402
from benchmarks.published import DOCS, arguments, publish  # noqa: E402
from fkp import evaluation, geometry, metrics, pipeline, scheme  # noqa: E402

DROPPED = tuple(round(0.1 * i, 1) for i in range(10))
"""Shares of the least sure points that are left out for the ranking figure."""
YAWS = (0, 15, 30, 45, 90)
SIDES = (0, 50, 70, 100, 150, 1000)
"""Edges of the bins of `weak`: degrees, and pixels of the longer side of the tight box."""


class Results(NamedTuple):
    """`figures` as they go into metrics.json; what the plots need besides: the faces, and keypoints by
    network, set and way of asking (`tables.WAYS`)."""

    figures: dict[str, Any]
    faces: dict[str, Labelled]
    placed: dict[str, dict[str, dict[str, Placed]]]


def measure(model: str, baseline: str | None, folder: Path, limit: int | None = None) -> Results:
    """Everything that is measured, of the model in one folder and the baseline in another, on the data."""
    load = pipeline.FaceKeypoints.from_pretrained
    plain = load(model, passes=1)
    ways = {"mirrored": load(model, passes=1, mirrored=True), "passes": load(model)}
    own_style = {style: load(model, passes=1, label_style=style) for style in {test.style for test in SETS}}
    other = load(baseline, passes=1) if baseline else None

    faces = {test.name: read(test, folder, limit) for test in SETS}
    boxes = {name: detect(plain, labelled) for name, labelled in faces.items()}
    placed: dict[str, dict[str, dict[str, Placed]]] = {}
    for test in tqdm(SETS, "test sets", leave=False, disable=None):
        labelled, found = faces[test.name], boxes[test.name]
        placed.setdefault("KeypointNet", {})[test.name] = {
            "truth": place(plain, labelled),
            "detected": place(plain, labelled, found),
            **{way: place(changed, labelled) for way, changed in ways.items()},
            "own_style": place(own_style[test.style], labelled),
            "own_detected": place(own_style[test.style], labelled, found),
        }
        if other:
            placed.setdefault("baseline", {})[test.name] = {
                "truth": place(other, labelled),
                "detected": place(other, labelled, found),
            }

    of_model, lfpw = placed["KeypointNet"], faces["lfpw_test"]
    untouched = {1: of_model["lfpw_test"]["truth"], "auto": of_model["lfpw_test"]["passes"]}
    figures = {
        "unit": "percent of the distance between the outer eye corners; rates, areas and gains in percent",
        "sets": {test.name: test.title for test in SETS},
        "label_style": plain.label_style,
        "temperatures": dict(zip(("None", *scheme.LABEL_STYLES), plain.config.temperatures, strict=True)),
        "figures": {
            network: {
                name: {
                    way: evaluation.summarise(p.keypoints, faces[name].keypoints) for way, p in by_way.items()
                }
                for name, by_way in by_set.items()
            }
            for network, by_set in placed.items()
        },
        "confidence": {
            test.name: {
                way: confidence(of_model[test.name][way], faces[test.name].keypoints)
                for way in ("truth", "own_style")
            }
            for test in SETS
        },
        "robustness": robustness.measure({1: plain, "auto": ways["passes"]}, lfpw, untouched),
        "detector": detector_errors(plain, folder, limit),
        "weak": weak(of_model["ytf_test"]["own_style"], faces["ytf_test"].keypoints),
    }
    return Results(figures, faces, placed)


def confidence(placed: Placed, truth: np.ndarray) -> dict[str, Any]:
    """How well keypoint scores are calibrated (`bins`: mean score, share of hits, points) and rank errors.

    `ranking`: mean error of the points left when the shares `DROPPED` of the least sure go · `gain_20`: by
    how much that falls for 20 %, percent, and `best_gain_20`, if the worst points had the least scores ·
    `sigma` and `error`: mean expected and mean real error, percent of the inter-ocular distance.
    """
    errors = metrics.point_errors(placed.keypoints, truth)
    error, table = metrics.reliability(placed.scores, hits(errors))
    expected = 100 * placed.sigmas / geometry.inter_ocular(truth)[:, None]
    bins = [[round(score, 4), round(hit, 4), int(n)] if n else [None, None, 0] for score, hit, n in table]
    return {
        "reliability_error": round(error, 4),
        "bins": bins,
        "sigma": round(float(expected.mean()), 3),
        "error": round(float(errors.mean()), 3),
        "spearman": round(metrics.spearman(placed.scores, errors), 4),
        "ranking": [round(float(v), 3) for v in metrics.ranking(placed.scores, errors, DROPPED)],
        "gain_20": round(metrics.ranking_gain(placed.scores, errors, 0.2), 2),
        "best_gain_20": round(metrics.ranking_gain(-errors, errors, 0.2), 2),
    }


def detector_errors(
    model: pipeline.FaceKeypoints, folder: Path, limit: int | None = None
) -> dict[str, dict[str, Any]]:
    """How the detector's boxes differ from true ones, by what was held out of training."""
    found: dict[str, list[np.ndarray]] = {}
    truth: dict[str, list[np.ndarray]] = {}
    for test in HELD_OUT:
        labelled = read(test, folder, limit)
        found.setdefault(test.name, []).append(detect(model, labelled))
        truth.setdefault(test.name, []).append(labelled.boxes)
    titles = {test.name: test.title for test in HELD_OUT}
    return {
        name: {"title": titles[name]}
        | robustness.box_errors(np.concatenate(found[name]), np.concatenate(truth[name]))
        for name in found
    }


def yaw(keypoints: np.ndarray) -> np.ndarray:
    """Roughly by how many degrees (n,) faces with keypoints (n,68,2) are turned to a side, either one: 0..90.

    From where the tip of the nose lies between the outer eye corners, seen along the line through them; it is
    taken to stand out as far as each corner lies from the middle.
    """
    right = keypoints[:, scheme.RIGHT_EYE_OUTER_CORNER].astype(np.float64)
    eyes = keypoints[:, scheme.LEFT_EYE_OUTER_CORNER] - right
    nose = keypoints[:, scheme.GROUPS["nose_bridge"][-1]] - right
    along = (nose * eyes).sum(axis=1) / (eyes * eyes).sum(axis=1)
    return np.degrees(np.arctan(np.abs(2 * along - 1)))


def weak(placed: Placed, truth: np.ndarray) -> list[dict[str, Any]]:
    """Figures by yaw and by size of the face: rows of `faces.row` with `by`, `from` and `to`."""
    sides = geometry.longer_sides(geometry.tight_boxes(truth))
    rows = []
    for by, values, edges in (("yaw", yaw(truth), YAWS), ("side", sides, SIDES)):
        for least, most in zip(edges, edges[1:], strict=False):
            inside = (values >= least) & (values < most)
            figures = row(placed.at(inside), truth[inside])
            rows.append({"by": by, "from": least, "to": most, **figures})
    return rows


def main(given: list[str] | None = None) -> int:
    args = published.parse(command_line(), given, sheets="worst")
    if args.worst:
        count, folder = args.worst
        model = pipeline.FaceKeypoints.from_pretrained(args.model)
        for test in SETS:
            faces = read(test, args.data, args.limit)
            placed = place(model, faces, what=test.short)
            print(worst.write_sheet(folder / f"worst_{test.name}.png", faces, placed, count))
        return 0
    results = measure(args.model, args.baseline, args.data, args.limit)
    beside = " --baseline runs/baseline/model" if args.baseline else ""
    figures = {"command": f"python benchmarks/accuracy.py --data DATA{beside} --write", **results.figures}
    pages = tables.pages(figures)
    print("\n\n".join([tables.short(figures), *pages.values()]))
    if args.plots or args.write:
        plots.write_all(args.plots or DOCS, *results)
    if args.write:
        publish(Path(args.model), "accuracy", figures, tables.short(figures), pages)
    return 0


def command_line() -> argparse.ArgumentParser:
    parser = arguments(str(__doc__))
    parser.add_argument("--baseline", metavar="DIR", help="folder of a model with the baseline network")
    parser.add_argument("--worst", metavar=("N", "DIR"), nargs=2, help="instead: sheets of the N worst faces")
    return parser


if __name__ == "__main__":
    sys.exit(main())
