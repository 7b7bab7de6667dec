"""Faces cut out and turned upright by the workers of a PyTorch `DataLoader`, as input for training.

    pip install torch
    python examples/data_loader.py my-pictures --workers 4

Each worker runs the model for itself, on one thread; a batch holds faces (b,3,112,112) uint8, their
keypoints in the whole pictures, and how sure these are.
"""

import argparse
from pathlib import Path

import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from fkp import FaceKeypoints, images

ENDINGS = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


class AlignedFaces(IterableDataset):
    """The faces of the pictures in a folder, one at a time; the workers share the pictures out."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in ENDINGS)
        self.model = FaceKeypoints.from_pretrained(threads=1)

    def __iter__(self):
        worker = get_worker_info()
        mine = self.paths[worker.id :: worker.num_workers] if worker else self.paths
        for path in mine:
            try:
                image = images.read(path)
            except images.ImageError:
                continue
            faces = self.model(image)
            for face, crop in zip(faces, faces.aligned(image, 112), strict=True):
                yield {
                    "face": torch.from_numpy(crop).permute(2, 0, 1),
                    "keypoints": torch.from_numpy(face.keypoints[0]),
                    "sure": float(face.keypoint_scores.mean()),
                    "picture": str(path),
                }


def main() -> None:
    parser = argparse.ArgumentParser(description="Upright faces from the workers of a DataLoader.")
    parser.add_argument("folder", type=Path, help="folder of the pictures")
    parser.add_argument("--workers", type=int, default=2, help="processes (default: 2)")
    args = parser.parse_args()
    for batch in DataLoader(AlignedFaces(args.folder), batch_size=16, num_workers=args.workers):
        print(f"{tuple(batch['face'].shape)}, sure of {batch['sure'].mean():.2f} on average")


if __name__ == "__main__":
    main()
