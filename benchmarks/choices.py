"""What the constants of detectors.yunet and detectors.single_face rest on, on training photos only.

    FKP_YUNET=face_detection_yunet_2023mar.onnx python benchmarks/choices.py --data DATA

Prints how the tight box of the 68 keypoints lies in YuNet's box, what YuNet finds at which score and size,
and the NME on pictures that are one face. YuNet's part is left out by name where its file is not at hand.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from fkp import FaceKeypoints, data, geometry, hub, images, metrics  # noqa: E402
from fkp.detectors import single_face, yunet  # noqa: E402

SETS = {
    "YouTube Faces": ("ytf/training_frames_keypoints.csv", "ytf/training"),
    "LFPW": ("300w/lfpw_train.csv", "300w/lfpw_train"),
    "HELEN": ("300w/helen_train.csv", "300w/helen_train"),
    "AFW": ("300w/afw.csv", "300w/afw"),
}
FRAMES = 5
"""Of YouTube Faces, whose photos are frames of a few clips, only one in so many."""
LEAST_IOU = 0.35
"""A box of YuNet's is a labelled face's when it overlaps the tight box so much; it is a third larger."""
WIDTHS = (8, 12, 16, 24, 32, 64, 128, 256, 320, 400, 500, 640)
SCORES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9)
MARGINS = (1.0, 1.1, 1.2, 1.3, 1.4, 1.6, 2.0, 2.5)
PARTS = (1.0, 0.9, 0.8, 0.7, 0.6)


def fit(own: np.ndarray, truth: np.ndarray) -> list[float]:
    """How true boxes (n,4) lie in a detector's (n,4), as medians: shift in x and y, factors of both sizes."""
    size, true_size = own[:, 2:] - own[:, :2], truth[:, 2:] - truth[:, :2]
    shift = ((truth[:, :2] + truth[:, 2:]) - (own[:, :2] + own[:, 2:])) / 2 / size
    return [float(value) for value in np.median(np.concatenate([shift, true_size / size], axis=1), axis=0)]


def photos(folder: Path, name: str, step: int) -> list[tuple[Path, np.ndarray]]:
    """Photos of a set and the tight boxes (n,4) labelled on each."""
    csv, pictures = SETS[name]
    faces = data.FacialKeypointsDataset(folder / csv, folder / pictures)
    boxes, on = geometry.tight_boxes(faces.keypoints), np.array([str(path) for path in faces.paths])
    step *= FRAMES if name == "YouTube Faces" else 1
    return [(Path(path), boxes[on == path]) for path in np.unique(on)[::step]]


def boxes_of_yunet(detector: yunet.YuNet, folder: Path, step: int) -> None:
    """Prints the fit of its box, and what it finds at which score."""
    matched: dict[str, list[np.ndarray]] = {}
    found: dict[str, list[float]] = {}
    for name in SETS:
        for path, truth in tqdm(photos(folder, name, step), name, leave=False, disable=None):
            own, scores = detector.own_boxes(images.read(path), min(SCORES))
            overlaps = geometry.iou(truth, own).max(axis=1, initial=0)
            best = geometry.iou(truth, own).argmax(axis=1) if len(own) else np.zeros(len(truth), int)
            for face in range(len(truth)):
                hit = overlaps[face] >= LEAST_IOU
                found.setdefault(name, []).append(float(scores[best[face]]) if hit else 0.0)
                if hit:
                    matched.setdefault(name, []).append(np.stack([own[best[face]], truth[face]]))
    print("| faces | shift x | shift y | width | height | IoU of the tight box |\n|---|--:|--:|--:|--:|--:|")
    for name, rows in {**matched, "all": sum(matched.values(), [])}.items() if matched else ():
        own, truth = np.stack(rows, axis=1)
        ious = np.diag(geometry.iou(yunet.tight(own), truth))
        cells = [*(f"{value:.3f}" for value in fit(own, truth)), f"{ious.mean():.3f}"]
        print(f"| {name}, {len(own)} | " + " | ".join(cells) + " |")
    faceless = sorted((folder / "no_faces").iterdir())[::step]
    false = np.concatenate([
        detector.own_boxes(images.read(path), min(SCORES))[1]
        for path in tqdm(faceless, "no_faces", leave=False, disable=None)
    ])  # fmt: skip
    print(f"\n| score | {' | '.join(found)} | boxes on {len(faceless)} photos without a face |")
    print("|--:|" + "--:|" * (len(found) + 1))
    for least in SCORES:
        recalls = [f"{100 * np.mean(np.array(scores) >= least):.1f} %" for scores in found.values()]
        print(f"| {least:g} | {' | '.join(recalls)} | {int((false >= least).sum())} |")


def sizes_of_yunet(detector: yunet.YuNet, folder: Path, step: int) -> None:
    """Prints the share of faces that are found by one look when they are so many pixels wide."""
    print("\n| width of the face | found at the least score |\n|--:|--:|")
    for width in WIDTHS:
        found = []
        for name in ("LFPW", "HELEN"):
            for path, truth in photos(folder, name, 4 * step):
                part, box = _scaled(images.read(path), truth[0], width)
                own = detector.look(part, max(part.shape[:2]), yunet.MIN_SCORE)[:, :4]
                found.append(geometry.iou(box[None], yunet.tight(own)).max(initial=0) >= 0.5)
        print(f"| {width} | {100 * np.mean(found):.0f} % of {len(found)} |")


def _scaled(image: np.ndarray, box: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """The face in a box (4,) with its surroundings at another size: the picture, and the box (4,) in it."""
    middle, half = (box[:2] + box[2:]) / 2, (0.8 if width >= 256 else 1.5) * (box[2:] - box[:2]).max()
    low, high = np.maximum(middle - half, 0).astype(int), (middle + half).astype(int)
    part = image[low[1] : high[1], low[0] : high[0]]
    factor = width / (box[2] - box[0])
    size_wh = [max(1, round(side * factor)) for side in part.shape[1::-1]]
    how = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return cv2.resize(part, size_wh, interpolation=how), (box - np.tile(low, 2) + 0.5) * factor - 0.5


def whole_pictures(model: FaceKeypoints, folder: Path, step: int) -> None:
    """Prints the NME on pictures cut around one face, by their margin and by `single_face.PART`.

    `tight`: the margin times the tight box; `hair`: the margin times the box from the hairline to the chin.
    """
    csv, pictures = SETS["LFPW"]
    faces = data.FacialKeypointsDataset(folder / csv, folder / pictures)
    chosen = range(0, len(faces), step)
    shots = [faces[i]["image"] for i in chosen]
    truths = faces.keypoints[list(chosen)]
    boxes = geometry.tight_boxes(truths)
    at_truth = np.concatenate(
        [model.keypoints_at(shot, box).keypoints for shot, box in zip(shots, boxes, strict=True)]
    )
    print(f"\nNME on {len(shots)} photos of LFPW at true boxes: {metrics.nme(at_truth, truths).mean():.2f}")
    print(f"| picture | {' | '.join(f'part {part:g}' for part in PARTS)} |\n|---|" + "--:|" * len(PARTS))
    kept = single_face.PART
    for kind in ("tight", "hair"):
        for margin in MARGINS:
            cells = []
            for single_face.PART in PARTS:
                errors = []
                for shot, box, truth in zip(shots, boxes, truths, strict=True):
                    low, high = cut(shot.shape[:2], box, margin, kind == "hair")
                    part = np.ascontiguousarray(shot[low[1] : high[1], low[0] : high[0]])
                    tight, _ = single_face.SingleFace(model)(part)
                    points = model.keypoints_at(part, tight).keypoints
                    errors.append(metrics.nme(points, truth[None] - low)[0])
                cells.append(f"{np.mean(errors):.2f}")
            print(f"| {kind}, {margin:g} | {' | '.join(cells)} |", flush=True)
    single_face.PART = kept


def cut(
    shape_hw: tuple[int, int], box: np.ndarray, margin: float, hair: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Left top (2,) and right bottom (2,) of the picture around a tight box (4,), inside the photo."""
    middle, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    if hair:  # the inverse of `yunet.tight`
        size = size / yunet.BOX_SIZE
        middle = middle - size * (0, yunet.BOX_SHIFT)
    low = np.maximum(np.round(middle - margin * size / 2), 0).astype(int)
    return low, np.minimum(np.round(middle + margin * size / 2).astype(int) + 1, shape_hw[::-1])


def main() -> int:
    parser = argparse.ArgumentParser(
        description=str(__doc__), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with ytf/, 300w/ and no_faces/")
    parser.add_argument("--model", help="folder, or OWNER/NAME on the Hub (default: bundled)")
    parser.add_argument("--step", type=int, default=1, help="every STEP-th photo (default: 1, all)")
    args = parser.parse_args()
    try:
        detector = yunet.YuNet(yunet.find())
    except hub.WeightsError as error:
        print(f"YuNet is left out: {error}", file=sys.stderr)
    else:
        boxes_of_yunet(detector, args.data, args.step)
        sizes_of_yunet(detector, args.data, args.step)
    whole_pictures(FaceKeypoints.from_pretrained(args.model), args.data, args.step)
    return 0


if __name__ == "__main__":
    sys.exit(main())
