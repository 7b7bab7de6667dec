"""How far off the keypoints are, on every test set, with true boxes and with detected ones.

    python benchmarks/accuracy.py --data DATA                                  # prints the table
    python benchmarks/accuracy.py --data DATA --baseline runs/baseline/model --write

`--write` puts the figures into the model's metrics.json and the table into README.md; that is how the figures
of the bundled weights came about. DATA is the folder that README.md describes.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.published import arguments, publish  # noqa: E402
from fkp import codec, data, evaluation, metrics, pipeline  # noqa: E402

COMMAND = "python benchmarks/accuracy.py --data DATA --baseline runs/baseline/model --write"


class TestSet(NamedTuple):
    """A set of labelled faces; `held_out_by` keeps only what `data.split` leaves out of training."""

    name: str
    title: str
    csv: str
    folder: str
    held_out_by: Any = None


SETS = (
    TestSet("ytf_held_out", "YouTube Faces, people held out of training", "ytf/training_frames_keypoints.csv",
            "ytf/training", data.person),
    TestSet("ytf_test", "YouTube Faces, course test split (its people occur in training)",
            "ytf/test_frames_keypoints.csv", "ytf/test"),
    TestSet("lfpw_test", "300-W, LFPW test", "300w/lfpw_test.csv", "300w/lfpw_test"),
)  # fmt: skip


def measure(model: pipeline.FaceKeypoints, folder: Path) -> dict[str, dict[str, Any]]:
    """Figures by set and by kind of box, and by set how far keypoint scores are from the truth (0..1)."""
    figures: dict[str, dict[str, Any]] = {}
    for test in SETS:
        faces = data.FacialKeypointsDataset(folder / test.csv, folder / test.folder)
        chosen = data.split(faces.names, test.held_out_by)[1] if test.held_out_by else list(range(len(faces)))
        figures[test.name] = {}
        for boxes in evaluation.BOXES:
            keypoints, scores = evaluation.predict(model, faces, boxes, chosen)
            truth = faces.keypoints[chosen]
            figures[test.name][boxes] = evaluation.summarise(keypoints, truth)
            if boxes == "truth":
                hits = metrics.point_errors(keypoints, truth) <= 100 * codec.RADIUS
                figures[test.name]["reliability_error"] = round(metrics.reliability(scores, hits)[0], 4)
    return figures


def table(measured: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Markdown: a row for each set, kind of box and network."""
    lines = [
        "| faces | boxes | network | n | missed | NME 68 | NME inner 51 | FR@8 | AUC@8 |",
        "|---|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for test in SETS:
        for boxes in evaluation.BOXES:
            for name in measured:
                s = measured[name][test.name][boxes]
                numbers = [f"{s[key]:.2f}" for key in ("nme", "nme_inner", "fr8", "auc8")]
                cells = [test.title, boxes, name, str(s["n"]), str(s["missed"]), *numbers]
                lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> int:
    parser = arguments(str(__doc__))
    parser.add_argument("--baseline", help="folder of a model with the baseline network, to stand beside it")
    args = parser.parse_args()
    model = pipeline.FaceKeypoints.from_pretrained(args.model)
    models = {"KeypointNet": model}
    if args.baseline:
        other = pipeline.FaceKeypoints.from_pretrained(args.baseline)
        models["baseline"] = pipeline.FaceKeypoints(other.keypoint_network, model.face_detector)
    measured = {name: measure(each, args.data) for name, each in models.items()}
    print(table(measured))
    if args.write:
        figures = {
            "command": COMMAND,
            "unit": "percent of the distance between the outer eye corners; rates and areas in percent",
            "sets": {test.name: test.title for test in SETS},
            "figures": measured,
        }
        publish(Path(args.model), "accuracy", figures, table(measured))
    return 0


if __name__ == "__main__":
    sys.exit(main())
