"""Cut out every face of a picture upright and of one size, as the input of another model.

    python examples/align_faces.py photo.jpg --out faces
    python examples/align_faces.py photo.jpg --out faces --size 224

Each face is turned, scaled and shifted (no more: a similarity transform) so that eyes, nose and mouth come to
lie as near as can be to where `fkp.measures.ALIGNED` has them.
"""

import argparse
import sys
from pathlib import Path

from PIL import Image

from fkp import FaceKeypoints, images


def main() -> None:
    parser = argparse.ArgumentParser(description="Cut out every face upright and of one size.")
    parser.add_argument("picture", help="a picture file")
    parser.add_argument("--out", metavar="DIR", type=Path, default=Path("."), help="folder (default: here)")
    parser.add_argument("--size", type=int, default=112, help="pixels of a side (default: 112)")
    args = parser.parse_args()

    try:
        image = images.read(args.picture)
    except images.ImageError as error:
        sys.exit(str(error))
    args.out.mkdir(parents=True, exist_ok=True)
    faces = FaceKeypoints.from_pretrained()(image)
    for number, face in enumerate(faces.aligned(image, args.size), start=1):
        path = args.out / f"{Path(args.picture).stem}_{number}.png"
        Image.fromarray(face).save(path)
        print(path)


if __name__ == "__main__":
    main()
