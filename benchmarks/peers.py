"""Other people's landmark steps, to be timed beside fkp's on the same image and box.

Only packages that bring their model with them are here; most (insightface, uniface, face-alignment, …)
download theirs at the first use. None is a requirement of fkp: benchmarks/speed.py skips by name what is
not installed.
This module runs on interpreters that have neither fkp nor torch.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

Step = Callable[[], np.ndarray]
"""Places the points once; returns them (n,2) xy, pixels of the image."""


class Missing(Exception):
    """A peer that cannot be timed here; one sentence says why."""


class Peer(NamedTuple):
    """`load(image (H,W,3) uint8 RGB, box (4,) xyxy)` makes the step that is timed, or raises Missing."""

    title: str
    what: str
    """What a step does, in words."""
    packages: str
    """What pip has to install."""
    load: Callable[[np.ndarray, np.ndarray], Step]


def _module(name: str) -> Any:
    """The module `name`. Raises Missing where it is not installed or does not load."""
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        raise Missing(f"the module {name} is not installed")
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise Missing(f"the module {name} does not load: {error}") from error


def _file(module: str, inside: str) -> Path:
    """A model file that a package brings, found without importing it. Raises Missing where there is none."""
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        raise Missing(f"the module {module}, which brings {Path(inside).name}, is not installed")
    path = Path(found.origin).parent / inside
    if not path.is_file():
        raise Missing(f"the {module} that is installed does not bring {inside}")
    return path


def _dlib(image: np.ndarray, box: np.ndarray) -> Step:
    dlib = _module("dlib")
    path = _file("face_recognition_models", "models/shape_predictor_68_face_landmarks.dat")
    predictor = dlib.shape_predictor(str(path))
    rectangle = dlib.rectangle(*(int(edge) for edge in box.round()))
    return lambda: np.array([[p.x, p.y] for p in predictor(image, rectangle).parts()])


def _facemark(image: np.ndarray, box: np.ndarray) -> Step:
    if not hasattr(cv2, "face"):
        raise Missing("OpenCV lacks the module cv2.face, which opencv-contrib-python brings")
    facemark = cv2.face.createFacemarkLBF()
    facemark.loadModel(str(_file("GoldenFace", "landmark.yaml")))
    rectangles = np.array([[*box[:2], *(box[2:] - box[:2])]]).round().astype(np.int32)
    return lambda: facemark.fit(image, rectangles)[1][0].reshape(-1, 2)


def _mesh_network(image: np.ndarray, box: np.ndarray) -> Step:
    path = _file("mediapipe", "modules/face_landmark/face_landmark.tflite")
    interpreter = _module("ai_edge_litert.interpreter").Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    given, returned = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    size = int(given["shape"][1])
    # MediaPipe's own crop is one and a half times the longer side of its face box.
    side = 1.5 * max(box[2:] - box[:2])
    scale, corner = size / side, (box[:2] + box[2:] - side) / 2
    image_to_crop = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]]])

    def step() -> np.ndarray:
        crop = cv2.warpAffine(image, image_to_crop, (size, size), flags=cv2.INTER_LINEAR)
        interpreter.set_tensor(given["index"], crop[None].astype(np.float32) / 255)
        interpreter.invoke()
        points = interpreter.get_tensor(returned["index"]).reshape(-1, 3)[:, :2]
        return points / scale + corner

    return step


def _mesh(image: np.ndarray, box: np.ndarray) -> Step:
    mediapipe = _module("mediapipe")
    if not hasattr(mediapipe, "solutions"):
        version = importlib.metadata.version("mediapipe")
        raise Missing(f"mediapipe {version} no longer brings the face mesh; 0.10.21 does")
    mesh = mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=False, max_num_faces=1)
    size_wh = image.shape[1::-1]

    def step() -> np.ndarray:
        faces = mesh.process(image).multi_face_landmarks
        return np.array([[p.x, p.y] for p in faces[0].landmark]) * size_wh if faces else np.empty((0, 2))

    return step


PEERS: dict[str, Peer] = {
    "dlib": Peer(
        "dlib, 68 points", "shape predictor at the box", "dlib-bin face_recognition_models", _dlib
    ),
    "facemark": Peer(
        "OpenCV Facemark LBF, 68 points", "fit at the box", "opencv-contrib-python GoldenFace", _facemark
    ),
    "mesh_network": Peer(
        "MediaPipe face mesh, 468 points, its network on LiteRT", "crop and network at the box",
        "ai-edge-litert mediapipe==0.10.21", _mesh_network,
    ),
    "mesh": Peer(
        "MediaPipe face mesh, 468 points, tracking", "whole frame, the face known from the one before",
        "mediapipe==0.10.21", _mesh,
    ),
}  # fmt: skip


def load(name: str, image: np.ndarray, box: np.ndarray) -> Step:
    """The step of the peer `name`, tried once. Raises Missing where it cannot be timed."""
    peer = PEERS[name]
    try:
        step = peer.load(image, box)
        points = step()
    except Missing as missing:
        raise Missing(f"{missing} (pip install {peer.packages})") from None
    middle = points.mean(axis=0) if len(points) else box[:2]
    if not ((box[:2] < middle) & (middle < box[2:])).all():
        raise Missing("it does not find the face in the picture")
    return step


def version(name: str) -> str:
    """The versions of a peer's packages that are installed, in words."""
    words = []
    for package in PEERS[name].packages.split():
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            distribution = package.split("=")[0]
            words.append(f"{distribution} {importlib.metadata.version(distribution)}")
    return ", ".join(words)
