"""Made-up faces and a made-up data folder laid out like the research data, for tests that train."""

from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from fkp import geometry, scheme


def face(width: float = 100.0, centre: tuple[float, float] = (64.0, 64.0)) -> np.ndarray:
    """68 plausible points (68,2) of an upright face about `width` pixels wide."""
    points = np.zeros((68, 2))
    angle = np.linspace(np.pi, 0, 17)
    points[0:17] = np.stack([0.5 * np.cos(angle), -0.1 + 0.65 * np.sin(angle)], axis=1)
    for start, left in ((17, -0.4), (22, 0.1)):
        x = np.linspace(left, left + 0.3, 5)
        points[start : start + 5] = np.stack([x, -0.3 - 0.05 * np.sin(np.linspace(0, np.pi, 5))], axis=1)
    points[27:31] = np.stack([np.zeros(4), np.linspace(-0.2, 0.05, 4)], axis=1)
    points[31:36] = np.stack([np.linspace(-0.1, 0.1, 5), np.full(5, 0.12)], axis=1)
    for start, x in ((36, -0.25), (42, 0.25)):
        turn = np.pi + np.arange(6) * np.pi / 3
        points[start : start + 6] = np.stack([x + 0.09 * np.cos(turn), -0.18 + 0.04 * np.sin(turn)], axis=1)
    turn = np.pi + np.arange(12) * np.pi / 6
    points[48:60] = np.stack([0.2 * np.cos(turn), 0.3 + 0.08 * np.sin(turn)], axis=1)
    turn = np.pi + np.arange(8) * np.pi / 4
    points[60:68] = np.stack([0.15 * np.cos(turn), 0.3 + 0.03 * np.sin(turn)], axis=1)
    return points * width + np.array(centre)


def picture(keypoints: np.ndarray, size_wh: tuple[int, int] = (128, 128), seed: int = 0) -> np.ndarray:
    """A cartoon (H,W,3) uint8 RGB of a face on a noisy background."""
    width, height = size_wh
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 120, (height, width, 3)).astype(np.uint8)
    outline = np.concatenate([keypoints[:17], keypoints[26:16:-1]])
    cv2.fillPoly(image, [outline.round().astype(np.int32)], (220, 180, 150))
    for name, points in scheme.GROUPS.items():
        closed = name in scheme.CLOSED
        line = keypoints[list(points)].round().astype(np.int32)
        cv2.polylines(image, [line], closed, (90, 40, 40), 2, cv2.LINE_AA)
    return image


def data_folder(folder: Path, faces: int = 24) -> Path:
    """A data folder with `faces` pictures in each labelled set, boxes, and pictures without a face."""
    rng = np.random.default_rng(0)
    boxes = []
    for csv, images in (
        ("ytf/training_frames_keypoints.csv", "ytf/training"),
        ("300w/lfpw_train.csv", "300w/lfpw_train"),
        ("300w/helen_train.csv", "300w/helen_train"),
        ("300w/afw.csv", "300w/afw"),
    ):
        (folder / images).mkdir(parents=True)
        rows = {}
        for i in range(faces):
            keypoints = face(rng.uniform(50, 80), tuple(rng.uniform(55, 73, 2))) + rng.normal(0, 0.5, (68, 2))
            name = f"Person_{i}_00.jpg" if images.startswith("ytf") else f"{1000 + i}_1.jpg"
            cv2.imwrite(str(folder / images / name), picture(keypoints, seed=i)[..., ::-1])
            rows[name] = keypoints.ravel().round(2)
            boxes.append([f"{images}/{name}", *geometry.tight_boxes(keypoints).round(1), "labelled", ""])
        pd.DataFrame.from_dict(rows, orient="index").to_csv(folder / csv)
    _merl(folder, faces, rng)
    for images in ("no_faces", "scenes", "animals", "wider/train", "masks"):
        (folder / images).mkdir(parents=True)
        for i in range(6):
            pixels = rng.integers(0, 255, (100, 140, 3)).astype(np.uint8)
            cv2.imwrite(str(folder / images / f"{i:03d}.jpg"), pixels)
    columns = ["image", "x1", "y1", "x2", "y2", "kind", "score"]
    pd.DataFrame(boxes, columns=columns).to_csv(folder / "face_boxes.csv", index=False)
    return folder


def _merl(folder: Path, faces: int, rng: np.random.Generator) -> None:
    """Tight crops as in merl/: every second face in half-profile, without labels of the jaw's far side."""
    (folder / "merl/aflw_train").mkdir(parents=True)
    rows, flags = {}, {}
    for i in range(faces):
        name = f"image{i:05d}.jpg"
        keypoints = face(rng.uniform(80, 90), (60, 55)) + rng.normal(0, 0.5, (68, 2))
        cv2.imwrite(str(folder / "merl/aflw_train" / name), picture(keypoints, (120, 120), seed=i)[..., ::-1])
        seen = np.ones(scheme.COUNT, int)
        seen[20:22] = 2  # covered, so guessed
        if i % 2:
            seen[:6] = 0
            keypoints[:6] = np.nan
        rows[name], flags[name] = keypoints.ravel().round(2), ["lefthalf" if i % 2 else "frontal", *seen]
    pd.DataFrame.from_dict(rows, orient="index").to_csv(folder / "merl/aflw_train.csv")
    columns = ["group", *map(str, range(scheme.COUNT))]
    table = pd.DataFrame.from_dict(flags, orient="index", columns=columns)
    table.to_csv(folder / "merl/aflw_train_visibility.csv", index_label="image")


def yunet_graph(path: Path) -> Path:
    """Writes a graph with YuNet's operators and outputs, for pictures of 64×64, and weights at random."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng, nodes, constants = np.random.default_rng(0), [], []

    def constant(name: str, values: np.ndarray) -> str:
        constants.append(numpy_helper.from_array(values, name))
        return name

    def convolution(given: str, out: str, n_in: int, n_out: int, stride: int = 1, group: int = 1) -> str:
        kernel = constant(f"{out}.w", rng.normal(0, 0.3, (n_out, n_in // group, 3, 3)).astype(np.float32))
        bias = constant(f"{out}.b", rng.normal(0, 0.3, n_out).astype(np.float32))
        nodes.append(helper.make_node("Conv", [given, kernel, bias], [out], kernel_shape=[3, 3],
                                      pads=[1] * 4, strides=[stride] * 2, group=group))  # fmt: skip
        return out

    def node(kind: str, given: list[str], out: str, **attributes: object) -> str:
        nodes.append(helper.make_node(kind, given, [out], **attributes))
        return out

    x = node("Relu", [convolution("input", "stem", 3, 4, 2)], "stem.r")
    pools = []
    for i in range(4):
        x = node("MaxPool", [x], f"pool{i}", kernel_shape=[2, 2], strides=[2, 2])
        x = node("Relu", [convolution(x, f"block{i}", 4, 4, group=4)], f"block{i}.r")
        pools.append(x)
    scales = constant("scales", np.array([1, 1, 2, 2], np.float32))
    at16 = node("Add", [pools[2], node("Resize", [pools[3], "", scales], "up32", mode="nearest",
                                       nearest_mode="floor",
                                       coordinate_transformation_mode="asymmetric")], "at16")  # fmt: skip
    outputs = []
    for stride, features in zip((8, 16, 32), (pools[1], at16, pools[3]), strict=True):
        for kind in ("cls", "obj"):
            told = convolution(features, f"{kind}{stride}", 4, 1)
            turned = node("Transpose", [told], f"{told}.t", perm=[0, 2, 3, 1])
            node("Sigmoid", [turned], f"{kind}_{stride}")
            outputs.append(helper.make_tensor_value_info(f"{kind}_{stride}", TensorProto.FLOAT, None))
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 64, 64])
    graph = helper.make_graph(nodes, "yunet", [given], outputs, constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path
