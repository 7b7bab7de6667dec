"""The mean face with its 68 points numbered: fkp/hub/card/points.png, for README, docs and the model card.

    python docs/points_figure.py
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image

from fkp import draw, geometry, scheme
from fkp.faces import Faces
from fkp.hub import model_card

UPPER_LIP, LOWER_LIP = [49, 50, 51, 52, 53], [55, 56, 57, 58, 59, 65, 66, 67]


def points() -> np.ndarray:
    """Where the points (68,2) are drawn. The lips are parted, or numbers would hide points."""
    face = np.array(scheme.MEAN_FACE, np.float32)
    face[UPPER_LIP, 1] -= 24
    face[LOWER_LIP, 1] += 40
    return face * 0.52 + (480, 200)


def figure() -> Image.Image:
    """The picture, of 64 colours."""
    face = points()[None]
    faces = Faces(geometry.tight_boxes(face), np.ones(1), face, np.ones((1, 68)))
    drawn = draw.draw(np.full((940, 960, 3), 38, np.uint8), faces, numbers=True)
    return Image.fromarray(drawn).quantize(64, dither=Image.Dither.NONE)


if __name__ == "__main__":
    figure().save(model_card.POINTS, optimize=True)
