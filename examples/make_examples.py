"""Makes the example pictures again, from the copies that scikit-image and matplotlib ship (see SOURCES.md).

pip install scikit-image matplotlib
python examples/make_examples.py
"""

from pathlib import Path

import cv2
import matplotlib.cbook
import numpy as np
import skimage.data

from fkp import images

HERE = Path(__file__).parent
TILE = 420


def main() -> None:
    collins = skimage.data.astronaut()
    hopper = images.read(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    write("eileen_collins.jpg", collins)
    write("grace_hopper.jpg", hopper)

    grey = np.repeat(cv2.cvtColor(hopper, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    top = [tile(collins, (228, 120), 250), tile(hopper, (262, 220), 460)]
    bottom = [tile(grey, (262, 200), 390, angle=-14), tile(collins[:, ::-1], (282, 150), 300, angle=10)]
    write("four_faces.jpg", np.vstack([np.hstack(top), np.hstack(bottom)]))


def tile(picture: np.ndarray, centre_xy: tuple[int, int], side: int, angle: float = 0) -> np.ndarray:
    """The square of `side` pixels around a point of the picture, turned by `angle` degrees, as a tile."""
    to_tile = cv2.getRotationMatrix2D(centre_xy, angle, TILE / side)
    to_tile[:, 2] += TILE / 2 - np.array(centre_xy)
    whole = np.ascontiguousarray(picture)
    return cv2.warpAffine(whole, to_tile, (TILE, TILE), None, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)


def write(name: str, picture: np.ndarray) -> None:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(HERE / name), bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])


if __name__ == "__main__":
    main()
