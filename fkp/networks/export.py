"""The networks as ONNX files: for ONNX Runtime beside the weights, and for use without torch."""

from __future__ import annotations

import json
import warnings
from collections.abc import Collection, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from fkp import __version__, detector, runtime, scheme
from fkp.networks import keypoint_net, quantisation, state

if TYPE_CHECKING:
    import onnx

KEYPOINT_HEADS = ("network.heatmaps",)
DETECTOR_HEADS = ("heads.",)
"""What reads the last features: too exact for 8 bits (`quantisation`)."""

LEAST_HALVED = 256
"""Tensors of fewer numbers are stored as they are: storing them as float16 would save nothing."""


class ExportError(RuntimeError):
    """The file could not be made: one sentence, and what to do."""


def is_possible() -> bool:
    """Whether the extra `fkp[export]` is installed."""
    try:
        import onnx  # noqa: F401
        import onnxscript.optimizer  # noqa: F401
    except ImportError:
        return False
    return True


def write_onnx(
    keypoint_network: keypoint_net.KeypointNetwork, path: str | Path, digest: str | None = None
) -> None:
    """Write the network as ONNX: `crops` (n,3,S,S) uint8 RGB and `label_style` (1,) int64 in.

    `keypoints` (n,68,2) and `sigmas` (n,68), the expected error, come out in pixels of the crop, with the
    annotation offset of the style, and `visibility` (n,68), the probability that a point can be seen. n is
    free; a style is counted as by `scheme.style_index`, 0 being none. The file's metadata hold the scheme,
    the labelling styles, `digest`, by default that of the weights rounded to float16 (`runtime.digest`), and
    every value of the `KeypointConfig` as JSON, so the crop can be made from `crop_size` and `margin`.
    Raises ExportError when the extra `fkp[export]` is not installed or the file cannot be written.
    """
    _write(keypoints_model(keypoint_network, digest), path)


def write_int8_onnx(
    keypoint_network: keypoint_net.KeypointNetwork, path: str | Path, digest: str | None = None
) -> None:
    """Write the network as ONNX with 8-bit integers, by the `activation_ranges` of its config.

    In and out as `write_onnx`. Raises ExportError as it does, and where there are no ranges of this network.
    """
    model = keypoints_model(keypoint_network, digest, folded=True)
    _write(_of_integers(model, keypoint_network.config.activation_ranges, KEYPOINT_HEADS), path)


def activation_ranges(
    keypoint_network: keypoint_net.KeypointNetwork, crops: np.ndarray
) -> tuple[tuple[str, float, float], ...]:
    """What `KeypointConfig.activation_ranges` is to hold, as seen in crops (n,3,S,S) uint8 RGB."""
    model = keypoints_model(keypoint_network, folded=True)
    parts = np.array_split(crops, max(1, len(crops) // 32))
    styles = 1 + len(scheme.LABEL_STYLES)
    feeds = [{"crops": part, "label_style": np.array([i % styles])} for i, part in enumerate(parts)]
    ranges = quantisation.activation_ranges(model, feeds, KEYPOINT_HEADS)
    return tuple((name, round(low, 4), round(high, 4)) for name, (low, high) in ranges.items())


def keypoints_model(
    keypoint_network: keypoint_net.KeypointNetwork, digest: str | None = None, folded: bool = False
) -> onnx.ModelProto:
    """The graph that `write_onnx` writes; `folded`, normalisations are part of the convolutions."""
    config = asdict(keypoint_network.config)
    # Two crops, for a batch of one would be taken for a constant.
    crops = torch.zeros(2, 3, config["crop_size"], config["crop_size"], dtype=torch.uint8)
    return _graph(
        keypoint_net.Decoded(keypoint_network),
        {"crops": crops, "label_style": torch.tensor([0])},
        ["keypoints", "sigmas", "visibility"],
        {"crops": {0: torch.export.Dim("n")}, "label_style": None},
        {"label_styles": scheme.LABEL_STYLES} | config,
        digest or runtime.digest(state.arrays(keypoint_network), config),
        folded,
    )


def write_detector_onnx(
    face_network: nn.Module, config: dict[str, Any], path: str | Path, digest: str | None = None
) -> None:
    """Write the detector's network as ONNX: `pictures` (1,3,h,w) uint8 RGB → `logits` and `offsets`.

    h and w are free multiples of 32, the outputs are those of `face_net.Grids`; fitting the picture, decoding
    and the choice among overlapping boxes are not in the file. Metadata and errors as for `write_onnx`.
    """
    _write(detector_model(face_network, config, digest), path)


def write_detector_int8_onnx(
    face_network: nn.Module, config: dict[str, Any], path: str | Path, digest: str | None = None
) -> None:
    """Write the detector's network as ONNX with 8-bit integers, by the `activation_ranges` of its config.

    In and out as `write_detector_onnx`. Raises ExportError as it does, and where there are no ranges of this
    network.
    """
    model = detector_model(face_network, config, digest, folded=True)
    _write(_of_integers(model, config["activation_ranges"], DETECTOR_HEADS), path)


def detector_activation_ranges(
    face_network: nn.Module, pictures: list[np.ndarray]
) -> tuple[tuple[str, float, float], ...]:
    """What `DetectorConfig.activation_ranges` is to hold, as seen in pictures (h,w,3) uint8 RGB."""
    model = detector_model(face_network, {}, folded=True)
    feeds = [{"pictures": np.ascontiguousarray(picture.transpose(2, 0, 1))[None]} for picture in pictures]
    ranges = quantisation.activation_ranges(model, feeds, DETECTOR_HEADS)
    return tuple((name, round(low, 4), round(high, 4)) for name, (low, high) in ranges.items())


def detector_model(
    face_network: nn.Module, config: dict[str, Any], digest: str | None = None, folded: bool = False
) -> onnx.ModelProto:
    """The graph that `write_detector_onnx` writes; `folded`, normalisations are part of the convolutions."""
    side = detector.STRIDES[-1]
    h, w = (torch.export.Dim(name, min=1, max=256) for name in "hw")
    return _graph(
        face_network,
        {"pictures": torch.zeros(1, 3, 3 * side, 5 * side, dtype=torch.uint8)},
        ["logits", "offsets"],
        {"pictures": {2: side * h, 3: side * w}},
        config,
        digest or runtime.digest(state.arrays(face_network), {}),
        folded,
    )


def _graph(
    module: nn.Module,
    inputs: dict[str, Tensor],
    outputs: list[str],
    dynamic_shapes: dict[str, Any],
    config: dict[str, Any],
    digest: str,
    folded: bool = False,
) -> onnx.ModelProto:
    """The module as an ONNX model with its metadata; `folded` as `state.folded` has it."""
    if not is_possible():
        raise ExportError("exporting needs onnx and onnxscript: run 'pip install \"fkp[export]\"'")
    from onnx_ir.passes import common
    from onnxscript import optimizer

    # A trainer's autocast would write casts to bfloat16 into the graph.
    with warnings.catch_warnings(), torch.autocast("cpu", enabled=False):
        warnings.simplefilter("ignore")  # the exporter's own, about its insides
        program = torch.onnx.export(
            state.folded(module) if folded else module.eval(),
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
    common.CommonSubexpressionEliminationPass()(program.model)
    optimizer.remove_unused_nodes(program.model)
    metadata = {
        "fkp_version": __version__,
        "scheme": scheme.NAME,
        runtime.WEIGHTS_SHA256: digest,
    } | {name: json.dumps(value) for name, value in config.items()}
    program.model.metadata_props.update(metadata)
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # where in whose source it comes from
    if not folded:
        _halve(model.graph)
    return model


def _of_integers(
    model: onnx.ModelProto, activation_ranges: Sequence[tuple[str, float, float]], heads: Collection[str]
) -> onnx.ModelProto:
    """A graph with folded normalisations on 8-bit integers, as quick as ONNX Runtime can have it."""
    from fkp.networks import integer_graph

    model = integer_graph.rewritten(model, integer_graph.BEFORE)
    ranges = {name: (low, high) for name, low, high in activation_ranges}
    try:
        model = quantisation.quantised(model, ranges, heads)
    except ValueError as error:
        raise ExportError(f"no graph of 8-bit integers: {error}") from error
    return integer_graph.rewritten(model, integer_graph.AFTER)


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
    del model.graph.value_info[:]  # shapes, which every runtime finds by itself
    try:
        Path(path).write_bytes(model.SerializeToString())
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror}") from error
