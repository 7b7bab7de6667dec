"""Rewrites of a graph of 8-bit integers: it says the same, and ONNX Runtime is done sooner.

The runtime's kernels for integers want the channels of a pixel side by side (NHWC), four at a time. What they
are slow at is written in other operations: taking pictures in, doubling the size, and the heads. Each rewrite
is a pattern, what replaces it, and when (https://microsoft.github.io/onnxscript/tutorial/rewriter).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from onnx_ir.passes import common as passes
from onnxscript import ir, optimizer
from onnxscript.rewriter import pattern

COVERED = 32
"""Of the channel that says where there is a picture: the value there, above that of the padding."""

FINE = 254
"""What 8 bits of a head's weight lack is kept in 8 bits more, of steps that are so many times smaller."""

TO_NHWC, TO_NCHW = [0, 2, 3, 1], [0, 3, 1, 2]

Rewrite = tuple[Callable[..., Any], Callable[..., Any], Callable[..., bool]]


def rewritten(model: onnx.ModelProto, rewrites: tuple[Rewrite, ...]) -> onnx.ModelProto:
    """The graph with each rewrite done wherever it fits, one after the other."""
    changed = ir.from_proto(onnx.shape_inference.infer_shapes(model))
    for target, replacement, where in rewrites:
        rule = pattern.RewriteRule(target, replacement, where, remove_nodes=False)
        pattern.RewriteRuleSet([rule]).apply_to_model(changed)
        passes.IdentityEliminationPass()(changed)
        optimizer.remove_unused_nodes(changed)  # before the next one, lest it fits what has been replaced
    passes.CommonSubexpressionEliminationPass()(changed)
    passes.LiftConstantsToInitializersPass(size_limit=0)(changed)
    return ir.to_proto(changed)


def _array(value: Any) -> np.ndarray:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:
        raise ValueError(f"{value} is no constant")
    return np.asarray(tensor.numpy())


def _constant(op: Any, value: Any, dtype: Any) -> Any:
    return op.Constant(value=ir.tensor(np.asarray(value, dtype)))


def _always(context: Any, **_: Any) -> bool:
    return True


# --- Pictures come in ---------------------------------------------------------------------------------------


def _normalised(op: Any, pictures: Any, mean: Any, deviation: Any, kernels: Any, bias: Any) -> Any:
    normalised = op.Div(op.Sub(op.Cast(pictures, to=1), mean), deviation)
    return op.Conv(normalised, kernels, bias, _outputs=["convolved"])


def _covered(
    op: Any, pictures: Any, mean: Any, deviation: Any, kernels: Any, bias: Any, convolved: Any
) -> Any:
    """Less a whole number that is the same for all colours: bytes less a zero are what integers stand for.

    The deviation goes into the kernels. The means differ from colour to colour; what is left of them is a
    channel of its own, which like all others is 0 in the convolution's padding.
    """
    means, scaled = _array(mean), _array(kernels) / _array(deviation)
    zero = int(means.mean().round())
    rest = (scaled * (zero - means)).sum(axis=1, keepdims=True) / COVERED
    kernels.const_value = ir.tensor(np.concatenate([scaled, rest], axis=1).astype(np.float32))
    kernels.shape = kernels.const_value.shape
    one_more = _constant(op, [0, 0, 0, 0, 0, 1, 0, 0], np.int64)
    covered = op.Pad(pictures, one_more, _constant(op, zero + COVERED, np.uint8))
    less_zero = op.Sub(op.Cast(covered, to=1), _constant(op, zero, np.float32))
    return op.Conv(less_zero, kernels, bias, **convolved.producer().attributes)


def _quantised_bytes(op: Any, pictures: Any, zero: Any, step: Any, zero_point: Any) -> Any:
    return op.QuantizeLinear(op.Sub(op.Cast(pictures, to=1), zero), step, zero_point)


def _bytes(op: Any, pictures: Any, **_: Any) -> Any:
    """Less a zero, and quantised by steps of 1 around that zero, they are themselves again."""
    return op.Identity(pictures)


def _are_bytes(context: Any, zero: Any, step: Any, zero_point: Any, **_: Any) -> bool:
    return bool(_array(step) == 1 and _array(zero) == _array(zero_point))


def _blocks(
    op: Any, pictures: Any, kernels: Any, kernel_step: Any, kernel_zero: Any, bias: Any, step: Any,
    zero: Any, rows: Any, blocks: Any,
) -> Any:  # fmt: skip
    in_rows = op.Transpose(op.Reshape(op.Transpose(pictures, perm=TO_NHWC), rows), perm=[0, 1, 3, 2, 4])
    in_blocks = op.Transpose(op.Reshape(in_rows, blocks), perm=TO_NCHW)
    stored = op.DequantizeLinear(kernels, kernel_step, kernel_zero)
    return op.Conv(op.DequantizeLinear(in_blocks, step, zero), stored, bias, _outputs=["convolved"])


def _blocks_by_pieces(
    op: Any, pictures: Any, kernels: Any, kernel_step: Any, kernel_zero: Any, bias: Any, step: Any,
    zero: Any, convolved: Any, **_: Any,
) -> Any:  # fmt: skip
    """Moved in pieces as long as can be: a block is its colours, each row by row, and not its pixels.

    The kernels' channels come in that order then.
    """
    side = math.isqrt(kernels.shape[1] // 3)
    of_rows = op.Reshape(pictures, _constant(op, [3, -1, side, 0], np.int64))
    colours = op.Transpose(of_rows, perm=[1, 0, 2, 3])
    pieces = op.Reshape(colours, _constant(op, [0, 3 * side, -1, side], np.int64))
    blocks = op.Reshape(op.Transpose(pieces, perm=[0, 2, 1, 3]), _constant(op, [0, 0, -1], np.int64))
    in_blocks = op.Transpose(op.Unsqueeze(blocks, _constant(op, [0], np.int64)), perm=TO_NCHW)
    values = _array(kernels)
    by_pixel = values.reshape(len(values), side, side, 3, *values.shape[2:])
    by_colour = by_pixel.transpose(0, 3, 1, 2, 4, 5).reshape(values.shape)
    kernels.const_value = ir.tensor(np.ascontiguousarray(by_colour))
    stored = op.DequantizeLinear(kernels, kernel_step, kernel_zero, axis=0)
    return op.Conv(
        op.DequantizeLinear(in_blocks, step, zero), stored, bias, **convolved.producer().attributes
    )


# --- Twice the size -----------------------------------------------------------------------------------------


def _resized(op: Any, x: Any, step: Any, zero: Any, factors: Any) -> Any:
    return op.QuantizeLinear(op.Resize(op.DequantizeLinear(x, step, zero), None, factors), step, zero)


def _repeated(op: Any, x: Any, **_: Any) -> Any:
    """Every pixel twice along its channels, and then every row twice along its pixels."""
    pixels = op.Transpose(x, perm=TO_NHWC)
    twice = op.Concat(pixels, pixels, axis=3)
    four_times = op.Concat(twice, twice, axis=2)
    shape = _constant(op, [0, -1, 0, x.shape[1]], np.int64)
    return op.Transpose(op.Reshape(four_times, shape), perm=TO_NCHW)


def _is_doubled(context: Any, factors: Any, **_: Any) -> bool:
    return _array(factors).tolist() == [1, 1, 2, 2]


# --- Heads --------------------------------------------------------------------------------------------------


def _heat_maps(op: Any, features: Any, kernels: Any, bias: Any, shape: Any) -> Any:
    return op.Softmax(op.Reshape(op.Conv(features, kernels, bias), shape), axis=-1)


def _heat_maps_by_product(op: Any, features: Any, kernels: Any, **_: Any) -> Any:
    """What is added to all of a map is lost in the softmax anyway."""
    weights = op.Squeeze(kernels, _constant(op, [2, 3], np.int64))
    return op.Softmax(op.MatMul(weights, _cells(op, features)), axis=-1)


def _flattened(op: Any, x: Any, step: Any, zero: Any, n: Any, channels: Any, cells: Any) -> Any:
    shape = op.Concat(n, channels, cells)
    return op.Reshape(op.DequantizeLinear(x, step, zero, _outputs=["features"]), shape)


def _cells(op: Any, features: Any, **_: Any) -> Any:
    """Without asking how many pictures there are."""
    return op.Reshape(features, _constant(op, [0, features.shape[1], -1], np.int64))


def _head(op: Any, x: Any, step: Any, zero: Any, kernels: Any, bias: Any, shape: Any) -> Any:
    return op.Reshape(op.Conv(op.DequantizeLinear(x, step, zero), kernels, bias), shape)


def _head_on_integers(op: Any, x: Any, step: Any, zero: Any, kernels: Any, bias: Any, **_: Any) -> Any:
    """With every weight as the sum of two, for 8 bits would lose what 16 keep."""
    weights = _array(kernels).squeeze((2, 3)).T
    channels, outputs = weights.shape
    steps = np.abs(weights).max(axis=0) / 127
    coarse = (weights / steps).round()
    fine = ((weights / steps - coarse) * FINE).round()
    both = op.DequantizeLinear(
        _constant(op, np.concatenate([coarse, fine], axis=1), np.int8),
        _constant(op, np.concatenate([steps, steps / FINE]), np.float32),
        _constant(op, np.zeros(2 * outputs), np.int8),
        axis=1,
    )
    cells = op.Reshape(op.Transpose(x, perm=TO_NHWC), _constant(op, [-1, channels], np.int64))
    halves = op.MatMul(op.DequantizeLinear(cells, step, zero), both)
    told = op.Gemm(halves, _constant(op, np.tile(np.eye(outputs), (2, 1)), np.float32), bias)
    return op.Transpose(op.Unsqueeze(told, _constant(op, [0], np.int64)), perm=[0, 2, 1])


def _is_one_picture(context: Any, x: Any, kernels: Any, **_: Any) -> bool:
    return x.shape[0] == 1 and tuple(kernels.shape[2:]) == (1, 1)


BEFORE: tuple[Rewrite, ...] = ((_normalised, _covered, _always),)
"""Of the float graph, before it is quantised."""

AFTER: tuple[Rewrite, ...] = (
    (_quantised_bytes, _bytes, _are_bytes),
    (_blocks, _blocks_by_pieces, _always),
    (_resized, _repeated, _is_doubled),
    (_heat_maps, _heat_maps_by_product, _always),
    (_flattened, _cells, _always),
    (_head, _head_on_integers, _is_one_picture),
)
"""Of the quantised graph, in this order."""
