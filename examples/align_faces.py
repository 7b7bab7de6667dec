"""Cut out every face of a picture upright and of one size, as the input of another model.

    python examples/align_faces.py photo.jpg --out faces
    python examples/align_faces.py photo.jpg --out faces --by eyes --size 224

Each face is turned, scaled and shifted (no more: a similarity transform) so that five places of it, or its
eyes alone, come to lie where the other model wants them.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from fkp import FaceKeypoints, images
from fkp.geometry import CropTransform

PLACES = [range(36, 42), range(42, 48), [30], [48], [54]]
"""Right and left eye, tip of the nose, corners of the mouth: each is the mean of these keypoints."""

WANTED = np.array([[0.34, 0.46], [0.66, 0.46], [0.5, 0.64], [0.37, 0.82], [0.63, 0.82]])
"""Where they are to be, as shares of the crop: about where many models of faces are used to having them."""


def places(keypoints: np.ndarray) -> np.ndarray:
    """The five places (5,2) of a face with keypoints (68,2)."""
    return np.array([keypoints[list(points)].mean(axis=0) for points in PLACES])


def similarity(points: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """The 2×3 matrix that turns, scales and shifts points (n,2) onto targets (n,2) with the least squares.

    With points as complex numbers it is z → a·z + b, and a follows as in any linear regression.
    """
    z, w = points @ [1, 1j], targets @ [1, 1j]
    centred = z - z.mean()
    a = (centred.conj() @ (w - w.mean())) / (centred.conj() @ centred)
    b = w.mean() - a * z.mean()
    return np.array([[a.real, -a.imag, b.real], [a.imag, a.real, b.imag]])


def aligned(image: np.ndarray, keypoints: np.ndarray, size: int, by: str = "five") -> np.ndarray:
    """The upright face (size,size,3) of an image (H,W,3)."""
    used = slice(2) if by == "eyes" else slice(5)
    matrix = similarity(places(keypoints)[used], WANTED[used] * size - 0.5)  # integers are pixel centres
    return CropTransform(matrix, (size, size)).crop(image)  # shrinks without skipping pixels


def main() -> None:
    parser = argparse.ArgumentParser(description="Cut out every face upright and of one size.")
    parser.add_argument("picture", help="a picture file")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("."), help="folder (default: here)")
    parser.add_argument("--size", type=int, default=112, help="pixels of a side (default: 112)")
    parser.add_argument("--by", choices=("five", "eyes"), default="five", help="what is aligned")
    args = parser.parse_args()

    try:
        image = images.read(args.picture)
    except images.ImageError as error:
        sys.exit(str(error))
    args.out.mkdir(parents=True, exist_ok=True)
    faces = FaceKeypoints.from_pretrained(passes=2)(image)  # two passes for turned faces
    for number, keypoints in enumerate(faces.keypoints, start=1):
        path = args.out / f"{Path(args.picture).stem}_{number}.png"
        Image.fromarray(aligned(image, keypoints, args.size, args.by)).save(path)
        print(path)


if __name__ == "__main__":
    main()
