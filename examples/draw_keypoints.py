"""Draw the 68 keypoints of every face on a picture.

python examples/draw_keypoints.py photo.jpg drawn.png
"""

import argparse
import sys

from PIL import Image

from fkp import FaceKeypoints, images
from fkp.draw import Style, draw


def main() -> None:
    parser = argparse.ArgumentParser(description="Draw the 68 keypoints of every face on a picture.")
    parser.add_argument("picture", help="a picture file")
    parser.add_argument("out", help="the picture to write")
    parser.add_argument("--confidence", action="store_true", help="colour each point by its confidence")
    args = parser.parse_args()

    try:
        image = images.read(args.picture)
        faces = FaceKeypoints.from_pretrained()(image)
        Image.fromarray(draw(image, faces, Style(confidence=args.confidence))).save(args.out)
    except (images.ImageError, OSError, ValueError) as error:  # ValueError: no picture ends like that
        sys.exit(str(error))
    print(f"{args.out}: {len(faces)} face{'s' * (len(faces) != 1)}")


if __name__ == "__main__":
    main()
