"""The ONNX file against torch."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from fkp import detector, hub, network
from fkp.__main__ import main

pytest.importorskip("onnxscript", reason="needs the extra fkp[onnx]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra fkp[onnx]")


@pytest.mark.parametrize(
    "config",
    [
        network.KeypointConfig(crop_size=64, widths=(4, 4, 4, 4, 8), depths=(1, 1, 1, 1), top_down_width=4),
        network.KeypointConfig(architecture="baseline", crop_size=32, widths=(4, 8), depths=()),
    ],
    ids=["keypointnet", "baseline"],
)
def test_onnx_computes_what_torch_does(config: network.KeypointConfig, tmp_path: Path) -> None:
    keypoint_network = network.build(config)
    hub.save(tmp_path, keypoint_network, detector.Detector(detector.DetectorConfig()))
    assert main(["export", str(tmp_path / "model.onnx"), "--model", str(tmp_path)]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, i.shape[1:]) for i in session.get_inputs()] == [
        ("crops", "tensor(uint8)", [3, config.crop_size, config.crop_size])
    ]
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["scheme"] == "ibug-68"
    assert json.loads(metadata["crop_size"]) == config.crop_size
    assert json.loads(metadata["margin"]) == config.margin
    for n in (1, 3):
        shape = (n, 3, config.crop_size, config.crop_size)
        crops = np.random.default_rng(n).integers(0, 255, shape, np.uint8)
        keypoints, spreads = session.run(["keypoints", "spreads"], {"crops": crops})
        with torch.inference_mode():
            expected = keypoint_network.eval().predict(torch.from_numpy(crops))
        assert keypoints.shape == (n, 68, 2) and spreads.shape == (n, 68)
        assert np.abs(keypoints - expected.keypoints.numpy()).max() < 0.01
        assert np.abs(spreads - expected.spreads.numpy()).max() < 0.01
