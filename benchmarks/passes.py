"""What `passes="auto"` does: to faces that are turned, to poses, to pictures without a face, and to time.

    python benchmarks/passes.py --data DATA --write       # the tables of docs/accuracy.md
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from tqdm import tqdm

from benchmarks import faces, published
from benchmarks.photo_sets import FACELESS
from benchmarks.published import Table, number
from fkp import FaceKeypoints, data, geometry, images, metrics
from fkp.training import face_photos

PASSES = (1, 2, "auto")
PORTRAITS, STEP = "300w/lfpw_test", 2
"""Where portraits are taken from, and every how manyth."""
NEAR = 0.06
"""How far points that come back may be off on average, in shares of the inter-ocular distance."""


def turned(points: np.ndarray, quarter_turns: int, shape_hw: tuple[int, ...]) -> np.ndarray:
    """Points (...,2) of a picture of this shape, in its `np.rot90(picture, quarter_turns)`."""
    height, width = shape_hw[:2]
    for _ in range(quarter_turns):
        points = np.stack([points[..., 1], width - 1 - points[..., 0]], axis=-1)
        height, width = width, height
    return points


def shares_found(model: FaceKeypoints, upright: FaceKeypoints, paths: Sequence[Path]) -> np.ndarray:
    """Share (4,) of portraits whose points come back at each number of quarter turns; NaN without any."""
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
    return found / known if known else np.full(4, np.nan)


def false_boxes(model: FaceKeypoints, folder: Path, limit: int | None) -> tuple[dict[str, float | None], int]:
    """Boxes in a hundred pictures of each folder without a face, of the third that nobody trains on; and how
    many pictures these were; None for a folder that has none."""
    known, count = data.FaceBoxes(folder), 0
    result: dict[str, float | None] = {}
    for name in FACELESS:
        paths = [p for p in sorted((folder / name).iterdir()) if face_photos.is_held_out(name, p.name)]
        paths = [p for p in paths if not len(known.of(f"{name}/{p.name}", "detected", "ignore"))][:limit]
        result[name] = metrics.mean([100 * len(model(images.read(path))) for path in paths])
        count += len(paths)
    return result, count


def main() -> None:
    args = published.parse(published.data_parser(__doc__))
    models = {p: FaceKeypoints.from_pretrained(args.model, passes=p) for p in PASSES}
    tables = {"turned": Table("passes", "0°", "90°", "180°", "270°")}
    paths = sorted((args.data / PORTRAITS).iterdir())[::STEP][: args.limit]
    for passes, model in models.items():
        shares = shares_found(model, models[1], paths)
        tables["turned"].add(str(passes), *(f"{100 * share:.1f} %" for share in shares))

    labelled = faces.read(faces.AFLW, args.data, args.limit)
    groups = faces.poses(args.data, labelled)
    poses = dict(sorted((faces.POSES | {name: (name,) for name in groups}).items()))
    tables["poses"] = Table("passes", *poses)
    for passes, model in models.items():
        placed = faces.place(model, labelled, what=f"passes={passes}")
        errors = faces.nme_box_by_pose(placed.keypoints, labelled.keypoints, groups, poses)
        tables["poses"].add(str(passes), *(f"{errors[pose]['nme_box']:.3f}" for pose in poses))

    tables["faceless"] = Table("passes", *FACELESS, "ms a picture")
    for passes, model in models.items():
        began = time.process_time()
        row, count = false_boxes(model, args.data, args.limit)
        took = 1000 * (time.process_time() - began) / count if count else None
        tables["faceless"].add(str(passes), *map(number, row.values()), number(took, 0))

    if args.write:
        command = "python benchmarks/passes.py --data DATA --write"
        texts = {f"passes.{name}": published.made_by(one.text, command) for name, one in tables.items()}
        published.publish("passes", {"docs/accuracy.md": texts})


if __name__ == "__main__":
    main()
