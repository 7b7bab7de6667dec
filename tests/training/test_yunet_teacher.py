"""YuNet as a teacher: its ONNX file read by torch, and the second head that learns what it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from fkp.config import DetectorConfig
from fkp.detector import STRIDES
from fkp.networks import face_net
from fkp.networks.face_net import DetectorNetwork
from fkp.training.yunet_teacher import LIMIT, Pupil, YuNetTeacher
from tests import synthetic

SMALL = DetectorConfig(widths=(4, 4, 4, 4), depths=(0, 0, 0), neck_width=4)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return synthetic.yunet_graph(tmp_path_factory.mktemp("yunet") / "yunet.onnx")


def test_teacher_says_what_onnx_runtime_says(file: Path) -> None:
    picture = np.random.default_rng(1).integers(0, 256, (1, 3, 64, 64), np.uint8)
    session = onnxruntime.InferenceSession(file)
    names = [output.name for output in session.get_outputs()]
    wanted = dict(zip(names, session.run(None, {"input": picture[:, ::-1].astype(np.float32)}), strict=True))
    said = torch.sigmoid(YuNetTeacher(file)(torch.from_numpy(picture))).numpy()
    least = 1 / (1 + np.exp(LIMIT))
    for i, kind in enumerate(("cls", "obj")):
        flat = np.concatenate([wanted[f"{kind}_{stride}"].ravel() for stride in STRIDES])
        np.testing.assert_allclose(said[0, i], flat.clip(least, 1 - least), atol=1e-5)


def test_teacher_answers_for_every_cell_of_any_size(file: Path) -> None:
    pictures = torch.zeros(2, 3, 96, 160, dtype=torch.uint8)
    assert YuNetTeacher(file)(pictures).shape == (2, 2, len(face_net.cells(96, 160)))


def test_files_that_are_no_yunet_are_named(tmp_path: Path, file: Path) -> None:
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
        assert torch.equal(pupil.alone()(pictures).logits, network(pictures).logits)
    assert pupil.alone().state_dict().keys() == network.state_dict().keys()
    grids, told = pupil.train()(pictures)
    assert told.shape == (2, 2, grids.logits.shape[1])
