"""Keypoints by pose, and how well visibility and scores are known, on faces that nobody here has seen.

    python benchmarks/poses.py --data DATA --write      # the tables of docs/accuracy.md

AFLW2000 with MERL-RAV's labels (merl/aflw_test), true boxes, one pass. NME_box: the mean error of the
labelled points, percent of the root of the area of their tight box.
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

from benchmarks import faces, published  # noqa: E402
from benchmarks.published import DOCS, Table  # noqa: E402
from fkp import FaceKeypoints, data, geometry, hub, metrics  # noqa: E402

POSES = {
    "frontal": ("frontal",),
    "half-profile": ("lefthalf", "righthalf"),
    "profile": ("left", "right"),
}
"""The groups of MERL-RAV's flags, by how they are called here."""

TURNED, VISIBLE, COVERED = 0, 1, 2


class Said(NamedTuple):
    """What a model says of n faces in their true boxes; see `Faces`."""

    keypoints: np.ndarray
    keypoint_scores: np.ndarray
    visibility: np.ndarray


def say(model: FaceKeypoints, test: data.FacialKeypointsDataset) -> Said:
    """The model's answer for every face of a set."""
    boxes = geometry.tight_boxes(test.keypoints)
    bar = tqdm(range(len(test)), "faces", unit="face", leave=False, disable=None)
    found = [model.keypoints_at(test[i]["image"], boxes[i : i + 1]) for i in bar]
    return Said(*(np.concatenate([getattr(f, name) for f in found]) for name in Said._fields))


def by_pose(keypoints: np.ndarray, truth: np.ndarray, groups: np.ndarray) -> dict[str, dict[str, Any]]:
    """Faces and mean NME_box of each of `POSES`, and of all."""
    errors = metrics.nme_box(keypoints, truth)
    chosen = {pose: np.isin(groups, names) for pose, names in POSES.items()} | {"all": errors >= 0}
    return {
        pose: {"n": int(rows.sum()), "nme_box": round(float(errors[rows].mean()), 3)}
        for pose, rows in chosen.items() if rows.any()
    }  # fmt: skip


def of_visibility(said: np.ndarray, flags: np.ndarray) -> dict[str, float]:
    """How well probabilities (n,68) tell points that are turned away or covered, by flags (n,68), from
    visible ones: areas under the ROC curve; and how far they are from the share that is, in ten bins."""
    seen = said[flags == VISIBLE]
    error, _ = metrics.reliability(said, flags == VISIBLE)
    figures = {
        "auc_turned_away": metrics.roc_auc(seen, said[flags == TURNED]),
        "auc_covered": metrics.roc_auc(seen, said[flags == COVERED]),
        "reliability_error": error,
    }
    return {name: round(figure, 4) for name, figure in figures.items()}


def of_scores(said: Said, truth: np.ndarray) -> float:
    """Reliability error of the keypoint scores, over faces with labels of both outer eye corners."""
    errors = metrics.point_errors(said.keypoints, truth)
    counts = np.isfinite(errors)
    return round(metrics.reliability(said.keypoint_scores[counts], faces.hits(errors[counts]))[0], 4)


def measure(model: str, folder: Path, backend: str | None = None) -> dict[str, Any]:
    """All figures of the model in one folder on the data in another."""
    test = data.FacialKeypointsDataset(folder / "merl/aflw_test.csv", folder / "merl/aflw_test")
    names, groups, flags = data.read_visibility(folder / "merl/aflw_test_visibility.csv")
    if names != test.names:
        raise ValueError(f"{folder / 'merl'}: the flags' rows are not those of the labels")
    figures: dict[str, Any] = {"unit": "percent of the root of the area of the tight box", "nme_box": {}}
    for style in (None, "merl"):
        placing = FaceKeypoints.from_pretrained(model, label_style=style, passes=1, backend=backend)
        said = say(placing, test)
        figures["nme_box"][style or "default"] = by_pose(said.keypoints, test.keypoints, np.array(groups))
        if style is None:
            figures["visibility"] = of_visibility(said.visibility, flags)
            figures["keypoint_scores_reliability_error"] = of_scores(said, test.keypoints)
    return figures


def main() -> int:
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with merl/")
    parser.add_argument("--model", default=str(hub.BUNDLED), help="folder of the model (default: bundled)")
    parser.add_argument("--backend", help="what runs the network (default: the fastest)")
    parser.add_argument("--write", action="store_true", help="metrics.json and docs/accuracy.md")
    args = parser.parse_args()
    if args.write and (args.model != str(hub.BUNDLED) or args.backend):
        parser.error("--write with other options: what is published is the bundled model as it comes")
    figures = measure(args.model, args.data, args.backend)
    poses = Table("AFLW2000, labels of MERL-RAV", *(f"{pose}, NME_box" for pose in (*POSES, "all")))
    for style, rows in figures["nme_box"].items():
        name = "default" if style == "default" else f'`label_style="{style}"`'
        poses.add(name, *(f"{rows[pose]['nme_box']:.2f}" for pose in (*POSES, "all")))
    known = Table("what is known of points", "figure")
    visibility = figures["visibility"]
    known.add("turned away or visible, area under the ROC curve", f"{visibility['auc_turned_away']:.3f}")
    known.add("covered or visible, area under the ROC curve", f"{visibility['auc_covered']:.3f}")
    known.add("visibility, reliability error", f"{visibility['reliability_error']:.3f}")
    known.add("keypoint scores, reliability error", f"{figures['keypoint_scores_reliability_error']:.3f}")
    if args.write:
        command = "python benchmarks/poses.py --data DATA --write"
        poses.write(DOCS / "accuracy.md", "poses", command)
        known.write(DOCS / "accuracy.md", "visibility", command)
        path = Path(args.model) / hub.METRICS
        kept = published.json.loads(path.read_text())
        path.write_text(published.as_json(kept | {"poses": {"command": command, **figures}}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
