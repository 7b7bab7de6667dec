"""How far off the keypoints are, how well they know it, and what makes them worse (docs/accuracy.md).

    python benchmarks/accuracy.py --data DATA --write
    python benchmarks/accuracy.py --data DATA --limit 20 --plots DIR           # a quick trial
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from tqdm import tqdm

from benchmarks import plots, published, robustness, tables
from benchmarks.faces import HELD_OUT, SETS, Labelled, Placed, detect, hits, place, read, row
from fkp import evaluation, geometry, metrics, pipeline, scheme

DROPPED = tuple(round(0.1 * i, 1) for i in range(10))
"""Shares of the least sure points that are left out for the ranking figure."""
YAWS = (0, 15, 30, 45, 90)
SIDES = (0, 50, 70, 100, 150, 1000)
"""Edges of the bins of `weak`: degrees, and pixels of the longer side of the tight box."""


Measured = tuple[dict[str, Any], dict[str, Labelled], dict[str, dict[str, Placed]]]
"""The figures as they go into metrics.json; and what the plots need besides: the faces, and keypoints by set
and way of asking (`tables.WAYS`)."""


def measure(model: str, folder: Path, limit: int | None = None) -> Measured:
    """Everything that is measured, of the model in one folder on the data in another."""
    load = pipeline.FaceKeypoints.from_pretrained
    plain, auto, mirrored = load(model, passes=1), load(model), load(model, passes=1, mirrored=True)
    faces, placed = {}, {}
    for test in tqdm(SETS, "test sets", leave=False, disable=None):
        labelled = faces[test.name] = read(test, folder, limit)
        found, own = detect(plain, labelled), load(model, passes=1, label_style=test.style)
        placed[test.name] = {
            "truth": place(plain, labelled),
            "detected": place(plain, labelled, found),
            "mirrored": place(mirrored, labelled),
            "passes": place(auto, labelled),
            "own_style": place(own, labelled),
            "own_detected": place(own, labelled, found),
        }
    truth = {name: labelled.keypoints for name, labelled in faces.items()}
    of_lfpw = placed["lfpw_test"]
    untouched: dict[int | str, Placed] = {1: of_lfpw["truth"], "auto": of_lfpw["passes"]}
    summaries = {
        name: {way: evaluation.summarise(p.keypoints, truth[name]) for way, p in ways.items()}
        for name, ways in placed.items()
    }
    figures = {
        "unit": "percent of the distance between the outer eye corners; rates, areas and gains in percent",
        "sets": {test.name: test.title for test in SETS},
        "label_style": plain.label_style,
        "temperatures": dict(zip(("None", *scheme.LABEL_STYLES), plain.config.temperatures, strict=True)),
        "figures": {tables.NETWORK: summaries},
        "confidence": {
            name: {way: confidence(ways[way], truth[name]) for way in ("truth", "own_style")}
            for name, ways in placed.items()
        },
        "robustness": robustness.measure({1: plain, "auto": auto}, faces["lfpw_test"], untouched),
        "detector": detector_errors(plain, folder, limit),
        "weak": weak(placed["ytf_test"]["own_style"], truth["ytf_test"]),
    }
    return figures, faces, placed


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
    boxes: dict[tuple[str, str], list[list[np.ndarray]]] = {}
    for test in HELD_OUT:
        labelled = read(test, folder, limit)
        boxes.setdefault((test.name, test.title), []).append([detect(model, labelled), labelled.boxes])
    return {
        name: {"title": title} | robustness.box_errors(*map(np.concatenate, zip(*pairs, strict=True)))
        for (name, title), pairs in boxes.items()
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
            figures = row(Placed(*(array[inside] for array in placed)), truth[inside])
            rows.append({"by": by, "from": least, "to": most, **figures})
    return rows


def main(given: list[str] | None = None) -> None:
    parser = published.data_parser(__doc__)
    parser.add_argument("--plots", metavar="DIR", type=Path, help="write the plots (with --write: docs)")
    args = published.parse(parser, given, free=("model", "plots"))
    measured, labelled, placed = measure(args.model, args.data, args.limit)
    figures = {"command": "python benchmarks/accuracy.py --data DATA --write", **measured}
    short, pages = tables.short(figures), tables.pages(figures)
    print("\n\n".join([short, *pages.values()]))
    if args.plots or args.write:
        plots.write_all(args.plots or published.ROOT / "docs", figures, labelled, placed)
    if args.write:
        places = {"README.md": {"accuracy": short}, "docs/accuracy.md": pages}
        published.publish("accuracy", places, args.model, figures)


if __name__ == "__main__":
    main()
