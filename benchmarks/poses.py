"""Keypoints by pose, and how well visibility and scores are known, on faces that nobody here has seen.

    python benchmarks/poses.py --data DATA --write      # the tables of docs/accuracy.md

AFLW2000 with MERL-RAV's labels (merl/aflw_test), true boxes, one pass.
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from benchmarks import faces, published
from benchmarks.published import Table, made_by
from fkp import FaceKeypoints, data, metrics

TURNED, VISIBLE, COVERED = 0, 1, 2


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


def of_scores(placed: faces.Placed, truth: np.ndarray) -> float:
    """Reliability error of the keypoint scores, over faces with labels of both outer eye corners."""
    errors = metrics.point_errors(placed.keypoints, truth)
    counts = np.isfinite(errors)
    return round(metrics.reliability(placed.scores[counts], faces.hits(errors[counts]))[0], 4)


def measure(model: str, folder: Path, limit: int | None = None) -> dict[str, Any]:
    """All figures of the model in one folder on the data in another."""
    labelled = faces.read(faces.AFLW, folder, limit)
    names, _, flags = data.read_visibility(folder / "merl/aflw_test_visibility.csv")
    rows = [names.index(Path(name).name) for name in labelled.names]
    figures: dict[str, Any] = {"unit": "percent of the root of the area of the tight box", "nme_box": {}}
    for style in (None, "merl"):
        placing = FaceKeypoints.from_pretrained(model, label_style=style, passes=1)
        placed = faces.place(placing, labelled)
        figures["nme_box"][style or "default"] = faces.nme_box_by_pose(
            placed.keypoints, labelled.keypoints, faces.poses(folder, labelled)
        )
        if style is None:
            figures["visibility"] = of_visibility(placed.visibility, flags[rows])
            figures["keypoint_scores_reliability_error"] = of_scores(placed, labelled.keypoints)
    return figures


def main() -> None:
    args = published.parse(published.data_parser(__doc__))
    figures = measure(args.model, args.data, args.limit)
    poses = Table("AFLW2000, labels of MERL-RAV", *(f"{pose}, NME_box" for pose in (*faces.POSES, "all")))
    for style, rows in figures["nme_box"].items():
        name = "default" if style == "default" else f'`label_style="{style}"`'
        poses.add(name, *(f"{rows[pose]['nme_box']:.2f}" for pose in (*faces.POSES, "all")))
    known, visibility = Table("what is known of points", "figure"), figures["visibility"]
    for what, figure in {
        "turned away or visible, area under the ROC curve": visibility["auc_turned_away"],
        "covered or visible, area under the ROC curve": visibility["auc_covered"],
        "visibility, reliability error": visibility["reliability_error"],
        "keypoint scores, reliability error": figures["keypoint_scores_reliability_error"],
    }.items():
        known.add(what, f"{figure:.3f}")
    if args.write:
        command = "python benchmarks/poses.py --data DATA --write"
        tables = {"poses": made_by(poses.text, command), "visibility": made_by(known.text, command)}
        figures = {"command": command, **figures}
        published.publish("poses", {"docs/accuracy.md": tables}, args.model, figures)


if __name__ == "__main__":
    main()
