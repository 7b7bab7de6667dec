"""YuNet as a teacher: its ONNX file read by torch, and the second head that learns what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from fkp.config import DetectorConfig
from fkp.detector import STRIDES
from fkp.networks import face_net
from fkp.networks.face_net import DetectorNetwork
from fkp.training.yunet_teacher import LIMIT, Pupil, YuNetTeacher

SMALL = DetectorConfig(widths=(4, 4, 4, 4), depths=(0, 0, 0), neck_width=4)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A graph with YuNet's operators and outputs, for pictures of 64×64, and weights at random."""
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
    for stride, features in zip(STRIDES, (pools[1], at16, pools[3]), strict=True):
        for kind in ("cls", "obj"):
            told = convolution(features, f"{kind}{stride}", 4, 1)
            turned = node("Transpose", [told], f"{told}.t", perm=[0, 2, 3, 1])
            node("Sigmoid", [turned], f"{kind}_{stride}")
            outputs.append(helper.make_tensor_value_info(f"{kind}_{stride}", TensorProto.FLOAT, None))
    given = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 64, 64])
    graph = helper.make_graph(nodes, "yunet", [given], outputs, constants)
    path = tmp_path_factory.mktemp("yunet") / "yunet.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), path)
    return path


def test_it_says_what_onnx_runtime_says(file: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (1, 3, 64, 64), np.uint8)
    session = onnxruntime.InferenceSession(file)
    names = [output.name for output in session.get_outputs()]
    wanted = dict(zip(names, session.run(None, {"input": picture[:, ::-1].astype(np.float32)}), strict=True))
    said = torch.sigmoid(YuNetTeacher(file)(torch.from_numpy(picture))).numpy()
    least = 1 / (1 + np.exp(LIMIT))
    for i, kind in enumerate(("cls", "obj")):
        flat = np.concatenate([wanted[f"{kind}_{stride}"].ravel() for stride in STRIDES])
        np.testing.assert_allclose(said[0, i], flat.clip(least, 1 - least), atol=1e-5)


def test_there_is_an_answer_for_every_cell_of_any_size(file: Path) -> None:
    pictures = torch.zeros(2, 3, 96, 160, dtype=torch.uint8)
    assert YuNetTeacher(file)(pictures).shape == (2, 2, len(face_net.cells(96, 160)))


def test_what_is_no_yunet_is_named(tmp_path: Path, file: Path) -> None:
    (tmp_path / "text.onnx").write_text("no graph")
    with pytest.raises(ValueError, match=r"text\.onnx"):
        YuNetTeacher(tmp_path / "text.onnx")
    with pytest.raises(FileNotFoundError):
        YuNetTeacher(tmp_path / "missing.onnx")
    model = onnx.load(file)
    model.graph.node[-1].output[0] = "other"
    onnx.save(model, tmp_path / "other.onnx")
    with pytest.raises(ValueError, match="obj_32"):
        YuNetTeacher(tmp_path / "other.onnx")


def test_the_second_head_is_there_in_training_alone() -> None:
    torch.manual_seed(0)
    network = DetectorNetwork(SMALL).eval()
    pupil = Pupil.of(network, SMALL)
    pictures = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        assert torch.equal(pupil.eval()(pictures).logits, network(pictures).logits)
    grids, told = pupil.train()(pictures)
    assert told.shape == (2, 2, grids.logits.shape[1])
