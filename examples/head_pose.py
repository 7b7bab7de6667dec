"""Where every face of a picture is turned: yaw, pitch and roll in degrees, and a picture with its axes.

    python examples/head_pose.py photo.jpg axes.png

Yaw is positive for a head turned to its own left (the viewer's right), pitch for one that looks up, roll for
one tilted clockwise as the viewer sees it. All three are 0 for a face that looks straight at the camera. How
they are found, and how sure that is, `fkp.measures.pose` tells.
"""

import argparse
import sys

import cv2
import numpy as np
from PIL import Image

from fkp import FaceKeypoints, images

AXES = {"to its left": (230, 60, 50), "to its chin": (60, 190, 80), "ahead": (60, 110, 240)}


def rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """The 3×3 matrix of a head tilted, then raised, then turned by so many degrees; y is down, z away."""
    turns = np.radians([(0, -yaw, 0), (-pitch, 0, 0), (0, 0, roll)])
    about_y, about_x, about_z = (cv2.Rodrigues(turn)[0] for turn in turns)
    return about_y @ about_x @ about_z


def draw_axes(picture: np.ndarray, keypoints: np.ndarray, matrix: np.ndarray) -> None:
    """From the tip of the nose, half as long as the face is large, seen from far away."""
    length = np.ptp(keypoints, axis=0).max() / 2
    for axis, colour in zip((matrix[:, 0], matrix[:, 1], -matrix[:, 2]), AXES.values(), strict=True):
        ends = np.array([keypoints[30], keypoints[30] + length * axis[:2]])
        start, end = (ends * 16).round().astype(int).tolist()
        cv2.line(picture, start, end, colour, max(1, round(length / 30)), cv2.LINE_AA, shift=4)


def main() -> None:
    parser = argparse.ArgumentParser(description="Where every face of a picture is turned.")
    parser.add_argument("picture", help="a picture file")
    parser.add_argument("out", help="the picture with axes to write")
    args = parser.parse_args()

    try:
        image = images.read(args.picture)
        faces = FaceKeypoints.from_pretrained()(image)
        pose, drawn = faces.pose, image.copy()
        angles = np.stack([pose.yaw, pose.pitch, pose.roll], axis=1)
        for keypoints, (yaw, pitch, roll), sigmas in zip(faces.keypoints, angles, pose.sigmas, strict=True):
            draw_axes(drawn, keypoints, rotation(yaw, pitch, roll))
            named = zip(("yaw", "pitch", "roll"), (yaw, pitch, roll), sigmas, strict=True)
            print(", ".join(f"{name} {angle:.0f}° ± {sigma:.0f}°" for name, angle, sigma in named))
        Image.fromarray(drawn).save(args.out)
    except (images.ImageError, OSError, ValueError) as error:  # ValueError: no picture ends like that
        sys.exit(str(error))


if __name__ == "__main__":
    main()
