"""fkp's 68 points beside those of other packages: accuracy at known boxes, and the time for a face.

    python benchmarks/peers.py --data DATA --folder PEERS --write   # the table of README.md

PEERS holds public snapshots, https://github.com/cunjian/pytorch_face_landmark and
https://github.com/ainrichman/Peppa-Facial-Landmark-PyTorch, under their own names. dlib and MediaPipe come
from packages: `pip install dlib-bin face_recognition_models ai-edge-litert`, and for MediaPipe's file `pip
install --no-deps mediapipe==0.10.21`. What is not there is skipped by name.

Everything runs on one thread, whose processor time is taken: from a picture and a tight box to the points.
Every peer gets boxes as it likes them best: how they are enlarged and moved up is chosen on 300-W training
photos.
"""

import importlib.util
import itertools
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import cv2
import numpy as np
import onnxruntime
from tqdm import tqdm

from benchmarks import faces, published
from benchmarks.faces import POSES, Labelled
from benchmarks.published import made_by, number, table
from fkp import FaceKeypoints, metrics

Place = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From a picture (H,W,3) uint8 RGB and a box (4,) xyxy to points (68,2) xy, pixels of the picture."""

SCALES, RISES = (1.0, 1.1, 1.2, 1.3, 1.4, 1.5), (0.0, 0.05, 0.1, 0.15, 0.2)
"""By how much a box may be enlarged, and moved up in shares of its height."""

FITTED_ON = faces.TestSet("lfpw_train", "", "300-W, LFPW training", "300w/lfpw_train.csv",
                          "300w/lfpw_train", "300w")  # fmt: skip
FITTED_FACES = 40

ROUNDS = 5
"""How often each takes its turn when they are timed, for the machine is to be in the same moods for all."""

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


class Peer(NamedTuple):
    """`load(folder of snapshots)` gives its function; ImportError or OSError says what is not here.

    `square`: it wants square boxes.
    """

    title: str
    load: Callable[[Path], Place]
    square: bool = True


def main() -> None:
    parser = published.data_parser(__doc__)
    parser.add_argument("--folder", type=Path, metavar="PEERS", default=Path("PEERS"),
                        help="where snapshots of repositories lie")  # fmt: skip
    args = published.parse(parser, free=("model", "folder"))
    cv2.setNumThreads(1)
    figures = measure(args.model, args.data, args.folder, args.limit)
    text = summary(published.measured(args.model) | {"peers": figures})
    print(text)
    if args.write:
        published.publish("peers", {"README.md": {"peers": text}}, args.model, figures)


def measure(model: str, folder: Path, snapshots: Path, limit: int | None = None) -> dict[str, Any]:
    """A row for fkp and each peer, and what was skipped with the reason."""
    lfpw, aflw = (faces.read(test, folder, limit) for test in (faces.SETS[-1], faces.AFLW))
    poses = faces.poses(folder, aflw)
    training = faces.read(FITTED_ON, folder, FITTED_FACES)
    here, skipped = [], []
    for peer in PEERS:
        try:
            here.append((peer, peer.load(snapshots)))
        except (ImportError, OSError) as reason:
            skipped.append({"title": peer.title, "reason": str(reason)})
            print(f"skipped: {peer.title}: {reason}", file=sys.stderr)
    # After the others: the first session says for all of the process how such small numbers are handled.
    own = FaceKeypoints.from_pretrained(model, passes=1, threads=1)
    ways = {"fkp": lambda image, box: own.keypoints_at(image, box[None]).keypoints[0]}
    ways |= {peer.title: fitted(peer, place, training) for peer, place in here}
    rounds = [{title: run(place, lfpw, title) for title, place in ways.items()} for _ in range(ROUNDS)]
    return {
        "command": "python benchmarks/peers.py --data DATA --folder PEERS --write",
        "rows": [
            row(title, [turns[title] for turns in rounds], run(place, aflw, title)[0], lfpw, aflw, poses)
            for title, place in ways.items()
        ],
        "skipped": skipped,
    }


def row(
    title: str, turns: list[tuple[np.ndarray, list[float]]], on_aflw: np.ndarray,
    lfpw: Labelled, aflw: Labelled, poses: np.ndarray,
) -> dict[str, Any]:  # fmt: skip
    """NME of lfpw_test, NME_box of aflw_test by pose, and the median milliseconds of a face.

    `turns` are what `run` gave for lfpw_test, `on_aflw` (n,68,2) the points on aflw_test.
    """
    boxed = faces.nme_box_by_pose(on_aflw, aflw.keypoints, poses)
    return {
        "title": title,
        "nme": round(float(metrics.nme(turns[0][0], lfpw.keypoints).mean()), 3),
        "nme_box": {pose: figures["nme_box"] for pose, figures in boxed.items() if pose in POSES},
        "ms": round(statistics.median(itertools.chain(*(times for _, times in turns))), 3),
    }


def run(place: Place, labelled: Labelled, title: str) -> tuple[np.ndarray, list[float]]:
    """Points (n,68,2) at the tight boxes, and the milliseconds of each face, of the processor's time."""
    placed, times = [], []
    pairs = zip(labelled.pictures, labelled.boxes, strict=True)
    for picture, box in tqdm(pairs, title, len(labelled), leave=False, disable=None):
        began = time.process_time()  # others may use the machine, too
        placed.append(place(picture, box))
        times.append(1000 * (time.process_time() - began))
    return np.array(placed), times


def framed(place: Place, square: bool, scale: float, rise: float) -> Place:
    """A peer that is given boxes enlarged and moved up."""

    def place_in_frame(image: np.ndarray, box: np.ndarray) -> np.ndarray:
        size = box[2:] - box[:2]
        middle = (box[:2] + box[2:]) / 2 - [0, rise * size[1]]
        half = scale * (np.full(2, size.max()) if square else size) / 2
        return place(image, np.concatenate([middle - half, middle + half]))

    return place_in_frame


def fitted(peer: Peer, place: Place, labelled: Labelled) -> Place:
    """The peer with boxes that are framed as it has the least mean error on faces."""

    def error(way: Place) -> float:
        return float(metrics.nme(run(way, labelled, peer.title)[0], labelled.keypoints).mean())

    ways = itertools.product(SCALES, RISES)
    return min((framed(place, peer.square, *way) for way in ways), key=error)


def summary(measured: dict[str, Any]) -> str:
    """The table for README.md of a metrics.json, with YuNet as detection.py has it, and the command."""
    figures, detection = measured["peers"], measured.get("detection", {"wider": [], "speed": {"rows": []}})
    found = {r["detector"]: float(np.mean(r["sizes"])) for r in detection["wider"] if r["allowed"] == 0.1}
    times = {r["detector"]: r["ms"] for r in detection["speed"]["rows"]}
    yunet: dict[str, Any] = {"title": "YuNet, OpenCV's face detector", "nme_box": {}, "nme": None, "ms": None}
    rows = [
        [r["title"], *(number(r["nme_box"].get(pose)) for pose in POSES), number(r["nme"]), number(r["ms"]),
         *(number(of.get(r["title"].split(",")[0]), 1) for of in (found, times))]
        for r in [*figures["rows"], yunet]
    ]  # fmt: skip
    head = ["", *(f"AFLW2000 {pose}" for pose in POSES), "300-W LFPW", "ms a face", "faces found, %",
            "ms a picture"]  # fmt: skip
    return made_by(table(head, rows), figures["command"])


def _file(package: str, inside: str) -> str:
    """A file that a package brings, found without importing it, for MediaPipe's does not load everywhere."""
    found = importlib.util.find_spec(package)
    if found is None or found.origin is None or not (path := Path(found.origin).parent / inside).is_file():
        raise ImportError(f"no installed {package} brings {inside}")
    return str(path)


def _dlib(folder: Path) -> Place:
    import dlib

    file = _file("face_recognition_models", "models/shape_predictor_68_face_landmarks.dat")
    predictor = dlib.shape_predictor(file)

    def place(image: np.ndarray, box: np.ndarray) -> np.ndarray:
        rectangle = dlib.rectangle(*(int(edge) for edge in box.round()))
        return np.array([[p.x, p.y] for p in predictor(image, rectangle).parts()])

    return place


def _mesh(folder: Path) -> Place:
    from ai_edge_litert.interpreter import Interpreter

    file = _file("mediapipe", "modules/face_landmark/face_landmark.tflite")
    interpreter = Interpreter(file, num_threads=1)
    interpreter.allocate_tensors()
    given, returned = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    size = int(given["shape"][1])

    def place(image: np.ndarray, box: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], _crop(image, box, size)[None].astype(np.float32) / 255)
        interpreter.invoke()
        mesh = interpreter.get_tensor(returned["index"]).reshape(-1, 3)
        return mesh[MESH_TO_68, :2] / size * (box[2:] - box[:2]) + box[:2]

    return place


def _graph(file: str, mean: float, std: float) -> Callable[[Path], Place]:
    """A peer that is an ONNX file of a snapshot: a crop (1,3,S,S) in, points in shares of the crop out."""

    def load(folder: Path) -> Place:
        if not (folder / file).is_file():
            raise FileNotFoundError(f"{folder / file} does not exist")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        # Weights of PFLD so small that the processor handles them apart would make it twenty times slower.
        options.add_session_config_entry("session.set_denormal_as_zero", "1")
        options.log_severity_level = 3  # one keeps its weights among its inputs, and is told so at length
        session = onnxruntime.InferenceSession(str(folder / file), options, ["CPUExecutionProvider"])
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


PFLD = "pytorch_face_landmark/onnx/pfld.onnx"
PEPPA = "Peppa-Facial-Landmark-PyTorch/pretrained_weights/slim_160_latest.onnx"
PEERS = (
    Peer("dlib", _dlib),
    Peer("MediaPipe face mesh (68 of its 468 points)", _mesh),
    Peer("PFLD (cunjian)", _graph(PFLD, 0, 255)),
    Peer("Peppa (ainrichman)", _graph(PEPPA, 127, 127), square=False),
)


if __name__ == "__main__":
    main()
