"""Add the faces to a Hugging Face dataset in batches, with `datasets.map`.

    pip install datasets
    python examples/map_dataset.py OWNER/PICTURES --split train --out faces
    python examples/map_dataset.py my-pictures --out faces

Every row gets `boxes` (n,4), `keypoints` (n,68,2), in pixels of its picture, and `keypoint_scores` (n,68).
For more pictures than fit on the disk twice, see docs/label.md.
"""

import argparse
import sys
from pathlib import Path

from datasets import Features, List, Value, load_dataset

from fkp import FaceKeypoints

NUMBERS = List(Value("float32"))
ADDED = {"boxes": List(NUMBERS), "keypoints": List(List(NUMBERS)), "keypoint_scores": List(NUMBERS)}


class AddFaces:
    """For `map`, whose processes each have the model."""

    def __init__(self) -> None:
        self.model = FaceKeypoints.from_pretrained(threads=1)

    def __call__(self, batch):
        found = self.model(batch["image"])  # a list, whose faces share the network's batches
        return {name: [getattr(faces, name) for faces in found] for name in ADDED}


def main() -> None:
    parser = argparse.ArgumentParser(description="Add the faces to a Hugging Face dataset.")
    parser.add_argument("dataset", help="OWNER/NAME on the Hub, or a folder of pictures")
    parser.add_argument("--split", default="train", help="which part of it (default: train)")
    parser.add_argument("--out", type=Path, required=True, help="folder for the new dataset")
    parser.add_argument("--processes", type=int, help="processes (default: this one)")
    args = parser.parse_args()

    if Path(args.dataset).is_dir():
        pictures = load_dataset("imagefolder", data_dir=args.dataset, split=args.split)
    else:
        pictures = load_dataset(args.dataset, split=args.split)
    if "image" not in pictures.column_names:
        sys.exit(f"{args.dataset} has no column image, only {', '.join(pictures.column_names)}")
    faces = pictures.map(
        AddFaces(), batched=True, batch_size=16, num_proc=args.processes,
        features=Features(pictures.features | ADDED),
    )  # fmt: skip
    faces.save_to_disk(args.out)
    print(f"{len(faces)} pictures, {sum(map(len, faces['boxes']))} faces")


if __name__ == "__main__":
    main()
