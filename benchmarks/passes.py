"""What `passes="auto"` does: to faces that are turned, to poses, to pictures without a face, and to time.

    python benchmarks/passes.py --data DATA               # prints the tables
    python benchmarks/passes.py --data DATA --write       # and puts them into docs/accuracy.md
    python benchmarks/passes.py --data DATA --validation  # on the photos that its thresholds are chosen by

A portrait counts as found at a turn where the mean distance of the 68 points from those of the upright
picture, turned likewise, is at most 6 % of the distance between the outer eye corners.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from benchmarks.published import DOCS, Table, arguments
from fkp import FaceKeypoints, data, geometry, images, metrics

PASSES = (1, 2, "auto")
PORTRAITS, STEP = ("300w/lfpw_test",), 2
"""Where portraits are taken from, and every how manyth."""
VALIDATION = ("300w/lfpw_train", "300w/helen_train")
FACELESS = ("no_faces", "scenes", "animals")
NEAR = 0.06


def portraits(folder: Path, validation: bool) -> list[Path]:
    """Photos with a face: of the test set or, of the training sets, those held out."""
    if not validation:
        return sorted(path for name in PORTRAITS for path in (folder / name).iterdir())[::STEP]
    paths = [path for name in VALIDATION for path in sorted((folder / name).iterdir())]
    return [path for path in paths if data.is_held_out(data.photo(path.name))][::STEP]


def turned(points: np.ndarray, quarter_turns: int, shape_hw: tuple[int, ...]) -> np.ndarray:
    """Points (...,2) of a picture of this shape, in its `np.rot90(picture, quarter_turns)`."""
    height, width = shape_hw[:2]
    for _ in range(quarter_turns):
        points = np.stack([points[..., 1], width - 1 - points[..., 0]], axis=-1)
        height, width = width, height
    return points


def shares_found(model: FaceKeypoints, upright: FaceKeypoints, paths: Sequence[Path]) -> np.ndarray:
    """Share (4,) of portraits whose points come back at each number of quarter turns."""
    found = np.zeros(4)
    known = 0
    for path in tqdm(paths, f"passes={model.passes}", leave=False, disable=None):
        image = images.read(path)
        truth = upright(image, max_faces=1)
        if not len(truth) or truth.keypoint_scores.mean() < 0.5:
            continue
        known += 1
        eyes = geometry.inter_ocular(truth.keypoints[0])
        for turn in range(4):
            faces = model(np.ascontiguousarray(np.rot90(image, turn)))
            wanted = turned(truth.keypoints[0], turn, image.shape)
            away = np.linalg.norm(faces.keypoints - wanted, axis=-1).mean(axis=1)
            found[turn] += away.min(initial=np.inf) <= NEAR * eyes
    return found / max(1, known)


def pose_groups(model: FaceKeypoints, folder: Path, limit: int | None) -> dict[str, float]:
    """NME_box by pose group of merl/aflw_test at true boxes."""
    faces = data.FacialKeypointsDataset(folder / "merl/aflw_test.csv", folder / "merl/aflw_test")
    names, groups, _ = data.read_visibility(folder / "merl/aflw_test_visibility.csv")
    of_name = dict(zip(names, groups, strict=True))
    merged = {"frontal": "frontal", "left": "profile", "right": "profile"}
    errors: dict[str, list[float]] = {}
    for i in tqdm(range(len(faces))[:limit], f"passes={model.passes}", leave=False, disable=None):
        sample = faces[i]
        labels = sample["keypoints"]
        placed = model.keypoints_at(sample["image"], geometry.tight_boxes(labels))
        group = of_name[faces.names[i]]
        error = float(metrics.nme_box(placed.keypoints, labels[None])[0])
        for name in {merged.get(group, "half-profile"), group}:
            errors.setdefault(name, []).append(error)
    return {name: float(np.mean(some)) for name, some in sorted(errors.items())}


def false_boxes(model: FaceKeypoints, folder: Path, validation: bool, limit: int | None) -> dict[str, float]:
    """Boxes in a hundred pictures of each folder without a face, of the third that nobody trains on."""
    from fkp.training import face_task

    known = data.FaceBoxes(folder)
    result = {}
    for name in FACELESS:
        paths = [p for p in sorted((folder / name).iterdir()) if face_task.is_held_out(name, p.name)]
        paths = [p for p in paths if not len(known.of(f"{name}/{p.name}", "detected", "ignore"))][:limit]
        paths = paths[::2] if validation else paths
        result[name] = 100 * sum(len(model(images.read(path))) for path in paths) / max(1, len(paths))
    return result


def main() -> None:
    parser = arguments(__doc__ or "")
    parser.add_argument("--validation", action="store_true", help="on photos held out of training instead")
    args = parser.parse_args()
    if args.write and (args.validation or args.limit):
        parser.error("--write with other options: what is published is the default")
    models = {p: FaceKeypoints.from_pretrained(args.model, passes=p) for p in PASSES}

    print("## Portraits that come back, by the turn of the picture")
    table = Table("passes", "0°", "90°", "180°", "270°")
    paths = portraits(args.data, args.validation)[: args.limit]
    for passes, model in models.items():
        table.add(str(passes), *(f"{100 * s:.1f} %" for s in shares_found(model, models[1], paths)))
    tables = {"turned": table}

    if not args.validation:
        print("## NME_box of merl/aflw_test, true boxes")
        rows = {p: pose_groups(model, args.data, args.limit) for p, model in models.items()}
        tables["poses"] = Table("passes", *rows[1])
        for passes, row in rows.items():
            tables["poses"].add(str(passes), *(f"{error:.3f}" for error in row.values()))

    print("## Boxes in 100 pictures without a face, and ms a picture of these")
    tables["faceless"] = Table("passes", *FACELESS, "ms a picture")
    for passes, model in models.items():
        began = time.process_time()
        row = false_boxes(model, args.data, args.validation, args.limit)
        took = 1000 * (time.process_time() - began)
        count = sum(1 for name in FACELESS for _ in (args.data / name).iterdir()) / 3
        tables["faceless"].add(str(passes), *(f"{v:.2f}" for v in row.values()), f"{took / count:.0f}")

    if args.write:
        for name, one in tables.items():
            command = "python benchmarks/passes.py --data DATA --write"
            one.write(DOCS / "accuracy.md", f"passes.{name}", command)


if __name__ == "__main__":
    main()
