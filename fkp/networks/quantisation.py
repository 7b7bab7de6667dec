"""From a float graph to one of 8-bit integers: activation ranges, and the quantised ONNX model.

Static quantisation as ONNX Runtime has it (https://onnxruntime.ai/docs/performance/model-optimizations/
quantization.html): convolutions and what lies between them on uint8 activations and int8 weights per
channel, with the smallest and largest values that were seen in training crops. What reads the last features
stays in float32.

Ranges have names that do not depend on the exporter: a tensor is called after the parameter of the
convolution that it comes from and the operations since.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

Ranges = dict[str, tuple[float, float]]
"""Smallest and largest value of each activation, by its name (see `activation_names`)."""

CLEAR = 2.5e-4
"""How far from a half a sum of two bytes stays, in steps of its result: float32 rounds by 5e-5 at most, the
kernels for ARM of ONNX Runtime, in fixed point, by about as much as this."""

WIDER = 1 + 2e-5 * np.arange(400)
"""Factors that are tried on a sum's range."""

BETWEEN = ("Relu", "Add", "Resize", "MaxPool", "Concat")
"""Operations between convolutions that have a form for 8-bit integers."""


def activation_names(model: onnx.ModelProto, heads: Collection[str]) -> dict[str, str]:
    """The lasting name of each tensor that is quantised, by its name in the graph.

    `model` has no normalisations left. `heads` are parts of the weights' names of the convolutions that stay
    in float32; nothing behind one of them is quantised.
    """
    names: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type == "Conv" and not any(head in node.input[1] for head in heads):
            names.setdefault(node.input[0], f"{node.input[1]}.input")
            names[node.output[0]] = node.input[1].removesuffix(".weight")
        elif node.op_type in BETWEEN and any(tensor in names for tensor in node.input):
            # A sum of two is called after the latter: the convolution, where a short cut is added to it.
            name = [names[tensor] for tensor in node.input if tensor in names][-1]
            names[node.output[0]] = f"{name}.{node.op_type}"
            if node.op_type in ("Add", "Concat"):
                for tensor in node.input:
                    names.setdefault(tensor, f"{name}.{node.op_type}.input")
    return names


def activation_ranges(
    model: onnx.ModelProto, feeds: list[dict[str, np.ndarray]], heads: Collection[str]
) -> Ranges:
    """The ranges of the activations of a float graph over batches of its inputs."""
    import onnx
    import onnxruntime

    names = activation_names(model, heads)
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    already = {output.name for output in watched.graph.output}
    watched.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(tensor) for tensor in names if tensor not in already
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1  # threads that spin while they wait take minutes where cores are shared
    session = onnxruntime.InferenceSession(
        watched.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    ranges: Ranges = {}
    for feed in feeds:
        for name, values in zip(names.values(), session.run(list(names), feed), strict=True):
            least, most = ranges.get(name, (0.0, 0.0))  # zero is always exact: it pads
            ranges[name] = min(least, float(values.min())), max(most, float(values.max()))
    return ranges


def quantised(model: onnx.ModelProto, ranges: Ranges, heads: Collection[str]) -> onnx.ModelProto:
    """The same graph with its convolutions on 8-bit integers, metadata included.

    Raises ValueError where a range is missing: they are of another network.
    """
    import onnx

    names = activation_names(model, heads)
    if missing := sorted(set(names.values()) - ranges.keys()):
        raise ValueError(f"no activation range for {missing[0]}: the ranges are of another network")
    seen: dict[str, tuple[Any, Any]] = {
        tensor: (np.float32(ranges[name][0]), np.float32(ranges[name][1])) for tensor, name in names.items()
    }
    values = {one.name: onnx.numpy_helper.to_array(one) for one in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Sub" and node.output[0] in seen and (zero := values[node.input[1]]).size == 1:
            # Pictures less a whole number: by steps of 1 they stay what they are.
            seen[node.output[0]] = -zero, 255 - zero
    for _ in range(3):  # a wider range is one of the terms of the next sum
        result = _quantised(model, seen, names)
        factors = _clear_of_halves(result)
        for name, factor in factors.items():
            low, high = seen[name]
            seen[name] = np.float32(low * factor), np.float32(high * factor)
        if not factors:
            break
    del result.metadata_props[:]
    result.metadata_props.extend(model.metadata_props)
    return result


def _quantised(
    model: onnx.ModelProto, seen: dict[str, tuple[Any, Any]], names: Collection[str]
) -> onnx.ModelProto:
    """What `quantised` returns, by the ranges of the graph's tensors."""
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantType
    from onnxruntime.quantization.calibrate import TensorsData
    from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

    copied = onnx.ModelProto()
    copied.CopyFrom(model)
    for number, node in enumerate(copied.graph.node):
        node.name = node.name or f"node_{number}"
    chosen = [node.name for node in copied.graph.node if node.output[0] in names]
    quantizer = QDQQuantizer(
        copied, per_channel=True, reduce_range=False,
        weight_qType=QuantType.QInt8, activation_qType=QuantType.QUInt8,
        tensors_range=TensorsData(CalibrationMethod.MinMax, seen),
        nodes_to_quantize=chosen, nodes_to_exclude=[], op_types_to_quantize=["Conv", *BETWEEN],
        extra_options={},
    )  # fmt: skip
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    return quantizer.model.model


def _clear_of_halves(model: onnx.ModelProto) -> dict[str, float]:
    """By which factors the ranges of sums, by their tensors' names, are to be wider.

    Kernels add two bytes in float32, each in an order of operations of its own. Where a sum is as good as
    half a step, one rounds it up and another down, and points differ by up to a quarter of a pixel from
    machine to machine. A step that is up to 0.8 % longer keeps all sums clear of halves.
    """
    factors: dict[str, float] = {}
    for name, (one, other, (step, zero)) in sums(model):
        first, second = ((s * factors.get(term, 1), z) for term, s, z in (one, other))
        tried: list[tuple[float, float]] = []
        for factor in WIDER.tolist():
            tried.append((clearance(first, second, (step * factor, zero)), factor))
            if tried[-1][0] >= CLEAR:
                break
        if (factor := max(tried)[1]) != 1:
            factors[name] = factor
    return factors


def sums(model: onnx.ModelProto) -> Iterator[tuple[str, tuple[Any, Any, Any]]]:
    """Each sum of two bytes in a quantised graph: what it is called, and its terms and itself.

    A term is its tensor's name, the step and the zero, the sum itself (step, zero).
    """
    from onnx import numpy_helper

    values = {tensor.name: tensor for tensor in model.graph.initializer}
    made_by = {output: node for node in model.graph.node for output in node.output}
    used_by = {name: node for node in model.graph.node for name in node.input}

    def scale(node: onnx.NodeProto) -> tuple[float, int]:
        step, zero = (numpy_helper.to_array(values[name]) for name in node.input[1:3])
        return float(step), int(zero)

    for node in model.graph.node:
        terms = [made_by.get(name) for name in node.input]
        if node.op_type != "Add" or not all(term and term.op_type == "DequantizeLinear" for term in terms):
            continue
        after = used_by[node.output[0]]
        while after.op_type == "Relu":
            after = used_by[after.output[0]]
        if after.op_type == "QuantizeLinear":
            one, other = ((term.input[1].removesuffix("_scale"), *scale(term)) for term in terms if term)
            yield after.input[1].removesuffix("_scale"), (one, other, scale(after))


def clearance(one: tuple[float, int], other: tuple[float, int], total: tuple[float, int]) -> float:
    """How near to a half the sum of any two bytes comes, in steps of the sum; each is (step, zero)."""
    step, zero = total
    first, second = (s / step * (np.arange(256) - z) for s, z in (one, other))
    exact = first[:, None] + second + zero
    within = exact[(exact > -1) & (exact < 256)]
    return float(np.abs(within - np.floor(within) - 0.5).min())
