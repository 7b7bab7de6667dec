"""The ONNX files against torch."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from fkp import detector, hub, runtime, scheme
from fkp.__main__ import main
from fkp.networks import export, keypoint_net

pytest.importorskip("onnxscript", reason="needs the extra fkp[onnx]")
onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra fkp[onnx]")


@pytest.mark.parametrize(
    "config",
    [
        keypoint_net.KeypointConfig(
            crop_size=64, widths=(4, 4, 4, 4, 8), depths=(1, 1, 1, 1), top_down_width=4, label_style="300w"
        ),
        keypoint_net.KeypointConfig(architecture="baseline", crop_size=32, widths=(4, 8), depths=()),
    ],
    ids=["keypointnet", "baseline"],
)
@pytest.mark.slow
def test_onnx_computes_what_torch_does(config: keypoint_net.KeypointConfig, tmp_path: Path) -> None:
    keypoint_network = keypoint_net.build(config)
    for part in keypoint_network.modules():
        if isinstance(part, torch.nn.Embedding):
            torch.nn.init.normal_(part.weight)
    hub.save(tmp_path, keypoint_network, detector.Detector(detector.DetectorConfig()), graphs=False)
    keypoint_network = hub.load(tmp_path).keypoint_network  # as rounded in the file
    assert main(["export", str(tmp_path / "model.onnx"), "--model", str(tmp_path)]) == 0
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    assert [(i.name, i.type, i.shape[1:]) for i in session.get_inputs()] == [
        ("crops", "tensor(uint8)", [3, config.crop_size, config.crop_size])
    ]
    assert [(i.name, i.type, i.shape) for i in session.get_overridable_initializers()] == [
        ("label_style", "tensor(int64)", [1])
    ]
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["scheme"] == "ibug-68"
    # All that goes before the network and after it, as JSON has it.
    expected = json.loads(json.dumps(asdict(config)))
    assert {name: json.loads(metadata[name]) for name in expected} == expected
    assert tuple(json.loads(metadata["label_styles"])) == scheme.LABEL_STYLES
    assert metadata["weights_sha256"] == runtime.digest(runtime.Decoded(keypoint_network))
    for n, style in ((1, None), (3, None), (2, "ytf")):
        shape = (n, 3, config.crop_size, config.crop_size)
        crops = np.random.default_rng(n).integers(0, 255, shape, np.uint8)
        asked = {} if style is None else {"label_style": np.array([scheme.LABEL_STYLES.index(style)])}
        keypoints, spreads = session.run(["keypoints", "spreads"], {"crops": crops} | asked)
        with torch.inference_mode():
            expected = keypoint_network.predict(torch.from_numpy(crops), style)
        assert keypoints.shape == (n, 68, 2) and spreads.shape == (n, 68)
        assert np.abs(keypoints - expected.keypoints.numpy()).max() < 0.01
        assert np.abs(spreads - expected.spreads.numpy()).max() < 0.01


@pytest.mark.slow
def test_the_detectors_graph_takes_any_size(tmp_path: Path) -> None:
    face_detector = detector.Detector(detector.DetectorConfig(widths=(4, 4, 4, 4, 4), neck_width=4))
    export.write_detector_onnx(face_detector, tmp_path / "detector.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "detector.onnx", providers=["CPUExecutionProvider"])
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["scheme"] == "ibug-68"
    assert json.loads(metadata["input_size"]) == face_detector.config.input_size
    assert metadata["weights_sha256"] == runtime.digest(face_detector.network)
    for size in ((32, 32), (320, 224), (64, 640)):
        pictures = np.random.default_rng(0).integers(0, 255, (1, 3, *size), np.uint8)
        logits, offsets = session.run(["logits", "offsets"], {"pictures": pictures})
        with torch.inference_mode():
            expected = face_detector.network(torch.from_numpy(pictures))
        assert logits == pytest.approx(expected.logits.numpy(), abs=1e-3)
        assert offsets == pytest.approx(expected.offsets.numpy(), abs=1e-3)


def test_weights_are_halved_where_that_loses_nothing(tmp_path: Path) -> None:
    """Half the size for weights from a file of float16, all of it for others, and the same numbers."""
    dense = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 400))

    def written(name: str) -> int:
        model = export._graph(
            Scaled(dense), {"pictures": torch.zeros(2, 3, 4, 4, dtype=torch.uint8)}, ["numbers"],
            {"pictures": {0: torch.export.Dim("n")}}, {},
        )  # fmt: skip
        export._write(model, tmp_path / name)
        pictures = np.random.default_rng(0).integers(0, 255, (3, 4, 4, 3), np.uint8)
        (numbers,) = runtime.OnnxRuntime(Scaled(dense), tmp_path / name)(pictures)
        with torch.inference_mode():
            (expected,) = Scaled(dense)(torch.from_numpy(pictures).permute(0, 3, 1, 2))
        assert numbers == pytest.approx(expected.numpy(), abs=1e-5)
        return (tmp_path / name).stat().st_size

    whole = written("whole.onnx")
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.copy_(parameter.half())
    halved = written("halved.onnx")
    assert whole > 48 * 400 * 4 and halved < 0.6 * whole


class Scaled(torch.nn.Module):
    """Something small with weights."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.inner(pictures.float() / 255),)


def test_where_no_file_can_be_written(tmp_path: Path) -> None:
    with pytest.raises(export.ExportError, match="cannot be written: Is a directory"):
        export.write_onnx(keypoint_net.build(keypoint_net.KeypointConfig(
            architecture="baseline", crop_size=32, widths=(4, 8), depths=()
        )), tmp_path)  # fmt: skip
