"""The keypoint network as an ONNX file, for use without torch."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from fkp import __version__, network, scheme


class ExportError(RuntimeError):
    """The file could not be made: one sentence, and what to do."""


class _Predict(nn.Module):
    """What the file computes, with named outputs in place of a tuple."""

    def __init__(self, keypoint_network: network.KeypointNetwork) -> None:
        super().__init__()
        self.keypoint_network = keypoint_network

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        prediction = self.keypoint_network.predict(crops)
        return prediction.keypoints, prediction.spreads


def write_onnx(keypoint_network: network.KeypointNetwork, path: str | Path) -> None:
    """Write the network as ONNX: `crops` (n,3,S,S) uint8 RGB → `keypoints` (n,68,2) and `spreads` (n,68).

    n is free; both outputs are in pixels of the crop. The file's metadata hold the scheme and every value of
    the `KeypointConfig` as JSON, so the crop can be made from `crop_size` and `margin`.
    Raises ExportError when the extra `fkp[onnx]` is not installed or the file cannot be written.
    """
    try:
        import onnx  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError:
        raise ExportError("exporting needs onnx and onnxscript: run 'pip install onnx onnxscript'") from None
    config = keypoint_network.config
    # Two crops, for a batch of one would be taken for a constant.
    crops = torch.zeros(2, 3, config.crop_size, config.crop_size, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about its insides
        program = torch.onnx.export(
            _Predict(keypoint_network).eval(),
            (crops,),
            dynamo=True,
            verbose=False,
            input_names=["crops"],
            output_names=["keypoints", "spreads"],
            dynamic_shapes={"crops": {0: torch.export.Dim("n")}},
        )
    assert program is not None  # without `f` the exporter returns the program
    metadata = {"fkp_version": __version__, "scheme": scheme.NAME} | {
        name: json.dumps(value) for name, value in asdict(config).items()
    }
    program.model.metadata_props.update(metadata)
    try:
        program.save(path)
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror}") from error
