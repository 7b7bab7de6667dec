"""The keypoints of one face with NumPy and ONNX Runtime alone: no torch, no fkp.

    fkp export keypoints.onnx                       # once, wherever fkp is installed
    python examples/onnx_only.py keypoints.onnx photo.npy --box 105 595 298 785 > points.csv

The box is tight around the face: eyebrows to chin, jaw to jaw. The picture is an (H,W,3) uint8 RGB array that
`numpy.save` wrote or, where Pillow is installed, any picture file. What the network wants comes from the
metadata of its file. The CSV has x, y and the confidence of each of the 68 points.
"""

import argparse
import json
import math
import os
import sys

import numpy as np

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # newer ones report to their maker; read at import
import onnxruntime  # noqa: E402


def read(path: str) -> np.ndarray:
    """A picture (H,W,3) uint8 RGB."""
    if path.endswith(".npy"):
        return np.load(path)
    from PIL import Image, ImageOps

    return np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"))  # phones turn by a tag


def shrunk(image: np.ndarray, factor: int) -> np.ndarray:
    """The means of factor × factor pixels, the last of them with the edge repeated."""
    height, width = image.shape[:2]
    image = np.pad(image, ((0, -height % factor), (0, -width % factor), (0, 0)), mode="edge")
    rows, columns = image.shape[0] // factor, image.shape[1] // factor
    sums = image.reshape(rows, factor, columns, factor, 3).sum(axis=(1, 3), dtype=np.int64)
    return (sums + 2) // 4 if factor == 2 else np.rint(sums / factor**2)  # as OpenCV rounds


def sampled(image: np.ndarray, first: np.ndarray, scale: float, size: int) -> np.ndarray:
    """A square of an image (H,W,3), linear between its pixels and black beyond its edge.

    `first` (2,) xy is where the first of `size` × `size` samples is taken, `scale` pixels lie between them.
    """
    factor = 2 ** max(0, math.floor(math.log2(scale)))  # samples rarer than pixels: averages before
    slices, weights = [], []
    for start, length in zip(first[::-1], image.shape[:2], strict=True):
        low = min(max(math.floor(start - scale) - factor, 0), length)
        end = min(max(math.ceil(start + scale * size) + 1 + factor, 0), length)
        slices.append(slice(low, end))
        at = (start + scale * np.arange(size) - low - (factor - 1) / 2) / factor
        weights.append(np.maximum(0, 1 - np.abs(at[:, None] - np.arange(-(-(end - low) // factor)))))
    part = shrunk(image[tuple(slices)], factor)
    return np.tensordot(weights[0], weights[1] @ part, axes=(1, 0)).round().astype(np.uint8)


def keypoints(session: onnxruntime.InferenceSession, image: np.ndarray, box: list[float]) -> np.ndarray:
    """Points (68,4) of the face in a tight box (4,) xyxy: x, y in pixels of the image, and from 0 to 1 how
    sure they are, and how probable it is that they can be seen."""
    texts = session.get_modelmeta().custom_metadata_map
    size, margin = (json.loads(texts[name]) for name in ("crop_size", "margin"))

    # The box's longer side, enlarged by the margin, becomes the crop's; integers are pixel centres.
    x1, y1, x2, y2 = box
    side = max(x2 - x1, y2 - y1)
    scale = side * margin / size
    first = np.array([x1 + x2, y1 + y2]) / 2 - scale * (size - 1) / 2
    crops = sampled(image, first, scale, size).transpose(2, 0, 1)[None]

    default = np.array([0])  # the labelling style: 0, or 1 + an index into the metadata's label_styles
    feed = {"crops": crops, "label_style": default}
    points, sigmas, visibility = (output[0] for output in session.run(None, feed))
    # A sigma is a mean error; the score is the probability that it is below 5 % of the eyes' distance.
    ratio = 0.1 * np.linalg.norm(points[36] - points[45]) / sigmas
    return np.column_stack([first + scale * points, 1 - (1 + ratio) * np.exp(-ratio), visibility])


def main() -> None:
    parser = argparse.ArgumentParser(description="The keypoints of one face, with NumPy and ONNX Runtime.")
    parser.add_argument("model", help="the file that 'fkp export' wrote")
    parser.add_argument("picture", help="an array from numpy.save, or a picture file")
    parser.add_argument("--box", nargs=4, type=float, required=True, metavar=("X1", "Y1", "X2", "Y2"))
    args = parser.parse_args()

    try:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # only what goes wrong
        session = onnxruntime.InferenceSession(args.model, options, providers=["CPUExecutionProvider"])
        points = keypoints(session, read(args.picture), args.box)
    except Exception as error:  # whatever ONNX Runtime, NumPy and Pillow raise
        sys.exit(f"{type(error).__name__}: {error}")
    print("x,y,confidence,visibility")
    for x, y, confidence, visibility in points:
        print(f"{x:.2f},{y:.2f},{confidence:.3f},{visibility:.3f}")


if __name__ == "__main__":
    main()
