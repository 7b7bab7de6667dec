"""The ONNX files against torch."""

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from fkp import runtime, scheme
from fkp.networks import export, keypoint_net
from tests import tiny

pytest.importorskip("onnxscript", reason="needs the extra fkp[export]")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def session(path: Path) -> "onnxruntime.InferenceSession":
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.slow
@pytest.mark.parametrize("config", [tiny.KEYPOINTS, tiny.BASELINE], ids=["keypointnet", "baseline"])
def test_keypoint_graph_computes_what_torch_does(config: keypoint_net.KeypointConfig, tmp_path: Path) -> None:
    weights = tiny.weights(config)
    network = weights.module("keypoints")  # as rounded in the file
    export.write_onnx(network, tmp_path / "model.onnx", weights.digest("keypoints"))
    graph = session(tmp_path / "model.onnx")
    side = config.crop_size
    assert [(i.name, i.type, i.shape[-3:]) for i in graph.get_inputs()] == [
        ("crops", "tensor(uint8)", [3, side, side]), ("label_style", "tensor(int64)", [1]),
    ]  # fmt: skip
    assert graph.get_overridable_initializers() == []
    assert [output.name for output in graph.get_outputs()] == ["keypoints", "sigmas", "visibility"]
    metadata = graph.get_modelmeta().custom_metadata_map
    # All that is needed to feed it, as JSON.
    expected = json.loads(json.dumps(asdict(config)))
    assert {name: json.loads(metadata[name]) for name in expected} == expected
    assert tuple(json.loads(metadata["label_styles"])) == scheme.LABEL_STYLES
    assert metadata["scheme"] == "ibug-68" and metadata["weights_sha256"] == weights.digest("keypoints")
    for n, style in ((1, None), (3, "300w"), (2, "merl")):
        crops = np.random.default_rng(n).integers(0, 255, (n, 3, side, side), np.uint8)
        inputs = {"crops": crops, "label_style": np.array([scheme.style_index(style)])}
        with torch.inference_mode():
            predicted = network.predict(torch.from_numpy(crops), style)
        for ours, theirs in zip(graph.run(None, inputs), predicted, strict=True):
            assert ours.shape == theirs.shape and ours.dtype == np.float32
            np.testing.assert_allclose(ours, theirs, atol=0.01)


def test_detector_graph_takes_any_size(tiny_folder: Path) -> None:
    weights = tiny.weights()
    network = weights.module("detector")
    graph = session(tiny_folder / "onnx" / "detector.onnx")
    metadata = graph.get_modelmeta().custom_metadata_map
    assert json.loads(metadata["input_size"]) == weights.detector.input_size
    assert metadata["weights_sha256"] == weights.digest("detector")
    for size in ((32, 32), (320, 224), (64, 640)):
        pictures = np.random.default_rng(0).integers(0, 255, (1, 3, *size), np.uint8)
        with torch.inference_mode():
            expected = network(torch.from_numpy(pictures))
        said = graph.run(["logits", "offsets"], {"pictures": pictures})
        for ours, theirs in zip(said, expected, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_weights_are_halved_where_that_loses_nothing(tmp_path: Path) -> None:
    """Half the size for weights from a file of float16, all of it for others, and the same numbers."""
    dense = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 400))
    pictures = torch.randint(0, 255, (3, 3, 4, 4), dtype=torch.uint8)

    def written(name: str) -> int:
        module = torch.nn.Sequential(Scaled(), dense)
        dynamic = {"pictures": {0: torch.export.Dim("n")}}
        model = export._graph(Wrapped(module), {"pictures": pictures[:2]}, ["numbers"], dynamic, {}, "0" * 64)
        export._write(model, tmp_path / name)
        (numbers,) = session(tmp_path / name).run(None, {"pictures": pictures.numpy()})
        with torch.inference_mode():
            np.testing.assert_allclose(numbers, module(pictures), atol=1e-5)
        return (tmp_path / name).stat().st_size

    whole = written("whole.onnx")
    with torch.no_grad():
        for parameter in dense.parameters():
            parameter.copy_(parameter.half())
    halved = written("halved.onnx")
    assert whole > 48 * 400 * 4 and halved < 0.6 * whole


class Scaled(torch.nn.Module):
    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        return pictures.float() / 255


class Wrapped(torch.nn.Module):
    """Names its input."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor]:
        return (self.inner(pictures),)


def test_export_where_no_file_can_be_written(tiny_folder: Path, tmp_path: Path) -> None:
    model = onnx.load(tiny_folder / "onnx" / "detector.onnx")
    with pytest.raises(export.ExportError, match="cannot be written: Is a directory"):
        export._write(model, tmp_path)


def test_digest_is_that_of_the_runtime() -> None:
    weights = tiny.weights()
    assert weights.digest("keypoints") == runtime.digest(weights.keypoint_tensors, asdict(weights.keypoints))
