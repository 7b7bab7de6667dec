"""The networks as ONNX files: for ONNX Runtime beside the weights, and for use without torch."""

from __future__ import annotations

import json
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fkp import __version__, detector, runtime, scheme
from fkp.networks import keypoint_net

if TYPE_CHECKING:
    import onnx

LEAST_HALVED = 256
"""Tensors of fewer numbers are stored as they are: storing them as float16 would save nothing."""


class ExportError(RuntimeError):
    """The file could not be made: one sentence, and what to do."""


def is_possible() -> bool:
    """Whether the extra `fkp[onnx]` is installed."""
    try:
        import onnx  # noqa: F401
        import onnxscript.optimizer  # noqa: F401
    except ImportError:
        return False
    return True


def write_onnx(keypoint_network: keypoint_net.KeypointNetwork, path: str | Path) -> None:
    """Write the network as ONNX: `crops` (n,3,S,S) uint8 RGB → `keypoints` (n,68,2) and `spreads` (n,68).

    n is free; both outputs are in pixels of the crop. A second input, `label_style` (1,) int64, is an index
    into `scheme.LABEL_STYLES` and may be left out: its default is the config's style. The file's metadata
    hold the scheme, the labelling styles, the digest of the weights (`runtime.WEIGHTS_SHA256`) and every
    value of the `KeypointConfig` as JSON, so the crop can be made from `crop_size` and `margin`, and the
    points moved to where labels lie by `leans` (`KeypointConfig.lean`).
    Raises ExportError when the extra `fkp[onnx]` is not installed or the file cannot be written.
    """
    config = keypoint_network.config
    # Two crops, for a batch of one would be taken for a constant.
    crops = torch.zeros(2, 3, config.crop_size, config.crop_size, dtype=torch.uint8)
    style = torch.tensor([scheme.LABEL_STYLES.index(config.label_style)])
    model = _graph(
        runtime.Decoded(keypoint_network),
        {"crops": crops, "label_style": style},
        ["keypoints", "spreads"],
        {"crops": {0: torch.export.Dim("n")}, "label_style": None},
        {"label_styles": scheme.LABEL_STYLES} | asdict(config),
    )
    # An input of the same name as an initializer may be left out, and then has its value.
    from onnx import numpy_helper

    model.graph.initializer.append(numpy_helper.from_array(style.numpy(), "label_style"))
    _write(model, path)


def write_detector_onnx(face_detector: detector.Detector, path: str | Path) -> None:
    """Write the detector's network as ONNX: `pictures` (1,3,h,w) uint8 RGB → `logits` and `offsets`.

    h and w are free multiples of 32, the outputs are those of `detector.Grids`; fitting the picture, decoding
    and the choice among overlapping boxes are not in the file. Metadata and errors as for `write_onnx`.
    """
    side = detector.STRIDES[-1]
    h, w = (torch.export.Dim(name, min=1, max=256) for name in "hw")
    model = _graph(
        face_detector.network,
        {"pictures": torch.zeros(1, 3, 3 * side, 5 * side, dtype=torch.uint8)},
        ["logits", "offsets"],
        {"pictures": {2: side * h, 3: side * w}},
        asdict(face_detector.config),
    )
    _write(model, path)


def _graph(
    module: nn.Module,
    inputs: dict[str, Tensor],
    outputs: list[str],
    dynamic_shapes: dict[str, Any],
    config: dict[str, Any],
) -> onnx.ModelProto:
    """The module as an ONNX model with its metadata."""
    if not is_possible():
        raise ExportError("exporting needs onnx and onnxscript: run 'pip install onnx onnxscript'")
    from onnxscript import optimizer

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own, about its insides
        program = torch.onnx.export(
            module.eval(),
            tuple(inputs.values()),
            dynamo=True,
            verbose=False,
            # Would fold the normalisations into the convolutions: ONNX Runtime does so too, when it loads the
            # graph, and weights that are left as they are can be stored as the float16 that they come from.
            optimize=False,
            input_names=list(inputs),
            output_names=outputs,
            dynamic_shapes=dynamic_shapes,
        )
    assert program is not None  # without `f` the exporter returns the program
    optimizer.fold_constants(program.model)
    optimizer.remove_unused_nodes(program.model)
    metadata = {
        "fkp_version": __version__,
        "scheme": scheme.NAME,
        runtime.WEIGHTS_SHA256: runtime.digest(module),
    } | {name: json.dumps(value) for name, value in config.items()}
    program.model.metadata_props.update(metadata)
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # where in whose source it comes from
    _halve(model.graph)
    return model


def _halve(graph: onnx.GraphProto) -> None:
    """Store float32 weights as float16, with a cast behind them, where that loses nothing."""
    from onnx import TensorProto, helper, numpy_helper

    casts = []
    for tensor in graph.initializer:
        if tensor.data_type != TensorProto.FLOAT:
            continue
        name, values = tensor.name, numpy_helper.to_array(tensor)
        with np.errstate(over="ignore"):
            halved = values.astype(np.float16)
        if values.size >= LEAST_HALVED and np.array_equal(halved.astype(np.float32), values):
            tensor.CopyFrom(numpy_helper.from_array(halved, f"{name}.float16"))
            casts.append(helper.make_node("Cast", [tensor.name], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _write(model: onnx.ModelProto, path: str | Path) -> None:
    try:
        Path(path).write_bytes(model.SerializeToString())
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror}") from error
