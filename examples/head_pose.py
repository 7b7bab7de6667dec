"""Where every face of a picture is turned: yaw, pitch and roll in degrees, and a picture with its axes.

    python examples/head_pose.py photo.jpg axes.png

Yaw is positive for a head turned to its own left (the viewer's right), pitch for one that looks up, roll for
one tilted clockwise as the viewer sees it. All three are 0 for a face that looks straight at the camera. The
head is a generic one, so that yaw and above all pitch may well be off by 5 to 10 degrees.
"""

import argparse
import sys

import cv2
import numpy as np
from PIL import Image

from fkp import FaceKeypoints, images

# A generic adult head in mm, made for this example (MIT like the project): widths and heights are near the
# averages that anthropometry gives, depths are estimates, all rounded by hand and set right where labels of
# frontal faces (LFPW) showed them wrong. x to the head's left, y down, z away from the viewer; 0 is the root
# of the nose.
HEAD = {
    27: (0, 2, 0), 30: (0, 38, -20), 33: (0, 52, -6), 31: (-14, 47, 4), 35: (14, 47, 4),  # nose
    36: (-45, 3, 24), 39: (-19, 4, 14), 42: (19, 4, 14), 45: (45, 3, 24),  # corners of the eyes
    48: (-27, 74, 12), 54: (27, 74, 12), 8: (0, 122, 12),  # corners of the mouth, chin
}  # fmt: skip
POINTS = np.array(list(HEAD.values()), np.float64)


def camera(keypoints: np.ndarray, focal: float | None = None) -> np.ndarray:
    """The 3×3 matrix of a camera that looks right at a face with keypoints (68,2).

    Without a focal length, in pixels, the face is taken to be five times its own size away, some 70 cm.
    """
    (x, y), side = keypoints.mean(axis=0), np.ptp(keypoints, axis=0).max()
    return np.array([[focal or 5 * side, 0, x], [0, focal or 5 * side, y], [0, 0, 1]])


def pose(keypoints: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rotation vector (3,) and translation (3,), in mm, that take HEAD to where keypoints (68,2) see it."""
    seen = keypoints[list(HEAD)].astype(np.float64)
    _, rotation, translation = cv2.solvePnP(POINTS, seen, matrix, None, flags=cv2.SOLVEPNP_SQPNP)
    rotation, translation = cv2.solvePnPRefineLM(POINTS, seen, matrix, None, rotation, translation)
    return rotation.ravel(), translation.ravel()


def angles(rotation: np.ndarray) -> tuple[float, float, float]:
    """Yaw, pitch and roll, degrees, of a rotation vector: tilted first, then raised, then turned."""
    r = cv2.Rodrigues(rotation)[0]
    forward = -r[:, 2]  # where the nose points; the viewer is at −z
    yaw, pitch = np.arctan2(forward[0], -forward[2]), np.arcsin(np.clip(-forward[1], -1, 1))
    return tuple(np.degrees([yaw, pitch, np.arctan2(r[1, 0], r[1, 1])]).tolist())


def draw_axes(picture: np.ndarray, rotation: np.ndarray, translation: np.ndarray, matrix: np.ndarray) -> None:
    """From the tip of the nose: red to the head's left, green to its chin, blue to where it looks."""
    tip = np.array(HEAD[30], np.float64)
    ends = np.array([tip, tip + [60, 0, 0], tip + [0, 60, 0], tip - [0, 0, 60]])
    origin, *axes = (cv2.projectPoints(ends, rotation, translation, matrix, None)[0] * 16).round().astype(int)
    width = max(1, round(3 * matrix[0, 0] / translation[2]))  # 3 mm
    for end, colour in zip(axes, [(230, 60, 50), (60, 190, 80), (60, 110, 240)], strict=True):
        cv2.line(picture, origin[0].tolist(), end[0].tolist(), colour, width, cv2.LINE_AA, shift=4)


def main() -> None:
    parser = argparse.ArgumentParser(description="Where every face of a picture is turned.")
    parser.add_argument("picture", help="a picture file")
    parser.add_argument("out", help="the picture with axes to write")
    parser.add_argument("--focal", type=float, help="focal length in pixels, if it is known")
    args = parser.parse_args()

    try:
        image = images.read(args.picture)
        faces = FaceKeypoints.from_pretrained()(image)
        drawn = image.copy()
        for keypoints in faces.keypoints:
            matrix = camera(keypoints, args.focal)
            rotation, translation = pose(keypoints, matrix)
            draw_axes(drawn, rotation, translation, matrix)
            print("yaw {:.0f}°, pitch {:.0f}°, roll {:.0f}°".format(*angles(rotation)))
        Image.fromarray(drawn).save(args.out)
    except (images.ImageError, OSError, ValueError) as error:  # ValueError: no picture ends like that
        sys.exit(str(error))


if __name__ == "__main__":
    main()
