"""Makes the examples again, from the pictures that scikit-image and matplotlib ship (see SOURCES.md).

pip install ".[video]" scikit-image matplotlib
python examples/make_examples.py
"""

import sys
from fractions import Fraction
from pathlib import Path

try:
    import av
    import cv2
    import matplotlib.cbook
    import numpy as np
    import skimage.data

    from fkp import images
except ImportError as error:
    needed = '".[video]" scikit-image matplotlib'
    sys.exit(f"make_examples.py needs {error.name}: run 'pip install {needed}'")

HERE = Path(__file__).parent
TILE = 420
FILM_WH, RATE, SECONDS = (480, 360), 25, 6


def main() -> None:
    collins = skimage.data.astronaut()
    hopper = images.read(matplotlib.cbook.get_sample_data("grace_hopper.jpg", asfileobj=False))
    write("eileen_collins.jpg", collins)
    write("grace_hopper.jpg", hopper)

    grey = np.repeat(cv2.cvtColor(hopper, cv2.COLOR_RGB2GRAY)[..., None], 3, axis=2)
    top = [tile(collins, (228, 120), 250), tile(hopper, (262, 220), 460)]
    bottom = [tile(grey, (262, 200), 390, angle=-14), tile(collins[:, ::-1], (282, 150), 300, angle=10)]
    write("four_faces.jpg", np.vstack([np.hstack(top), np.hstack(bottom)]))
    film("two_portraits.mp4", collins, hopper)


def tile(picture: np.ndarray, centre_xy: tuple[int, int], side: int, angle: float = 0) -> np.ndarray:
    """The square of `side` pixels around a point of the picture, turned by `angle` degrees, as a tile."""
    to_tile = cv2.getRotationMatrix2D(centre_xy, angle, TILE / side)
    to_tile[:, 2] += TILE / 2 - np.array(centre_xy)
    whole = np.ascontiguousarray(picture)
    return cv2.warpAffine(whole, to_tile, (TILE, TILE), None, cv2.INTER_CUBIC, cv2.BORDER_REPLICATE)


def film(name: str, collins: np.ndarray, hopper: np.ndarray) -> None:
    """Both portraits side by side, each slowly turned, moved and enlarged, as by a camera held by hand."""
    (width, height), half = FILM_WH, FILM_WH[0] // 2
    with av.open(str(HERE / name), "w", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=RATE, options={"crf": "27", "preset": "veryslow"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(RATE * SECONDS):
            phase = 2 * np.pi * number / (RATE * SECONDS)
            parts = []
            for picture, (x, y), side, sign in ((collins, (228, 125), 330, 1), (hopper, (262, 225), 480, -1)):
                to_film = cv2.getRotationMatrix2D(
                    (x, y), sign * 9 * np.sin(phase), half / side * (1.25 - 0.25 * sign * np.cos(phase))
                )
                middle = (half / 2 + sign * 10 * np.sin(2 * phase), height / 2 - 10 + 12 * np.sin(phase))
                to_film[:, 2] += np.array(middle) - (x, y)
                size = (half, height)
                parts.append(
                    cv2.warpAffine(picture, to_film, size, None, cv2.INTER_AREA, cv2.BORDER_REPLICATE)
                )
            frame = av.VideoFrame.from_ndarray(np.hstack(parts), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def write(name: str, picture: np.ndarray) -> None:
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    cv2.imwrite(str(HERE / name), bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])


if __name__ == "__main__":
    main()
