"""What an ONNX file computes, read without running it: is it the graph that fkp exports, with these weights?

A graph of somebody else may read files (external data), loop for ever, or give other points than its weights
do. So one is only run if it is the bundled graph node by node, with the weights of model.safetensors and the
constants of config.json in the place of the bundled ones. The format is protobuf
(https://onnx.ai/onnx/repo-docs/IR.html), of which only what is needed is read here, for the package onnx is
no part of a plain installation.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_BYTES = 64_000_000
"""The largest file that is read; those of fkp have one or two million."""

_DTYPES = {1: "<f4", 2: "u1", 3: "i1", 6: "<i4", 7: "<i8", 9: "?", 10: "<f2", 11: "<f8"}
_TYPED = {4: ("<f4", "I"), 5: ("<i4", "V"), 7: ("<i8", "V"), 10: ("<f8", "Q")}

Symbols = frozenset[Any]
"""All that a value may stand for: graphs agree where what they say of a value has one in common."""


class OnnxError(ValueError):
    """No ONNX file, or one that is not run: one sentence without a name."""


@dataclass(frozen=True)
class Graph:
    """A graph in a form to be compared: `inputs` and `outputs` by name, `nodes` in order.

    A node is its operator, its attributes and inputs; an input is ("input", name), ("node", number, output)
    or ("value", the place of its symbols in `values`).
    """

    inputs: tuple[str, ...]
    outputs: tuple[Any, ...]
    nodes: tuple[Any, ...]
    values: tuple[Symbols, ...]

    def agrees_with(self, other: Graph) -> bool:
        """Whether both compute the same, each with its own weights and constants."""
        same = (self.inputs, self.outputs, self.nodes) == (other.inputs, other.outputs, other.nodes)
        return same and all(bool(a & b) for a, b in zip(self.values, other.values, strict=True))


def refuse_external_data(content: bytes) -> None:
    """Raise OnnxError for a file whose weights lie in other files, wherever in it they are named."""
    # The key "location" says where (onnx.proto, TensorProto.external_data): a file without that word has
    # none, and need not be read, which takes as long as running it.
    if b"location" in content:
        read(content, lambda name, array: frozenset())


def read(content: bytes, symbols: Callable[[str, np.ndarray], Symbols]) -> Graph:
    """The graph of a file; `symbols` says what a stored array, which has a name or "", may stand for.

    Raises OnnxError for what is no ONNX file, and for what fkp's graphs never have: external data, graphs
    within graphs, functions, sparse tensors.
    """
    if len(content) > MAX_BYTES:
        raise OnnxError(f"has {len(content) / 1e6:.0f} MB, more than the {MAX_BYTES / 1e6:.0f} that are read")
    model = _message(memoryview(content))
    if len(model.get(7, [])) != 1:
        raise OnnxError("is no ONNX file")
    if model.get(25) or model.get(20):
        raise OnnxError("has functions of its own, which are not run")
    graph = _message(model[7][0])
    if graph.get(15):
        raise OnnxError("has sparse tensors, which are not run")
    values: list[Symbols] = []

    def value(tensor: memoryview) -> tuple[str, tuple[str, int]]:
        name, array = _tensor(tensor)
        values.append(symbols(name, array))
        return name, ("value", len(values) - 1)

    known: dict[str, Any] = {"": ("none",)}
    # In the order of their use, for a file may store them in any.
    stored = {_tensor_name(tensor): tensor for tensor in graph.get(5, [])}
    inputs = tuple(
        _text(_message(each), 1) for each in graph.get(11, []) if _text(_message(each), 1) not in stored
    )
    known |= {name: ("input", name) for name in inputs}

    def use(name: str) -> Any:
        if name not in known:
            if name not in stored:
                raise OnnxError(f"uses {name!r} before it is there")
            known[name] = value(stored[name])[1]
        return known[name]

    nodes = []
    for number, raw in enumerate(graph.get(1, [])):
        node = _message(raw)
        operator = (_text(node, 7), _text(node, 4))
        attributes = sorted(_attribute(each, value) for each in node.get(5, []))
        nodes.append(
            (operator, tuple(attributes), tuple(use(bytes(name).decode()) for name in node.get(1, [])))
        )
        for i, name in enumerate(node.get(2, [])):
            known[bytes(name).decode()] = ("node", number, i)
    for tensor in stored.values():
        _tensor(tensor)  # also of those that nothing uses
    outputs = tuple((_text(_message(each), 1), use(_text(_message(each), 1))) for each in graph.get(12, []))
    return Graph(inputs, outputs, tuple(nodes), tuple(values))


def _attribute(raw: memoryview, value: Callable[[memoryview], Any]) -> tuple[str, Any]:
    attribute = _message(raw)
    name = _text(attribute, 1)
    if attribute.keys() & {6, 10, 11, 14, 15, 22, 23}:
        raise OnnxError(f"has an attribute {name!r} of a kind that is not run, as a graph within the graph")
    if attribute.get(21):
        raise OnnxError(f"has an attribute {name!r} of a function")
    if attribute.get(5):
        return name, value(attribute[5][0])[1]
    plain = {k: tuple(bytes(v) if isinstance(v, memoryview) else v for v in attribute[k])
             for k in sorted(attribute) if k not in (1, 13, 20)}  # fmt: skip
    return name, tuple(plain.items())


def weights_and_constants(
    tensors: Mapping[str, np.ndarray], constants: Mapping[str, Any]
) -> Callable[[str, np.ndarray], Symbols]:
    """What `read` asks for: weights by name, constants of the config by their values, all else by itself."""
    held = {name: np.asarray(array, np.float32).ravel() for name, array in constants.items()}

    def symbols(name: str, array: np.ndarray) -> Symbols:
        weight = name.removeprefix("network.").removesuffix(".float16")
        stored = tensors.get(weight)
        if stored is not None and stored.shape == array.shape:
            if np.array_equal(np.asarray(stored, np.float32), np.asarray(array, np.float32)):
                return frozenset([("weight", weight)])
        found: set[Any] = {(str(array.dtype), array.shape, array.tobytes())}
        if array.dtype == np.float32:
            if array.ndim == 1 and array.size > 1 and not array.any():
                found.add("zeros")  # as many as a layer is wide
            flat = array.ravel()
            found |= {
                ("config", key) for key, numbers in held.items()
                if numbers.size == flat.size and np.allclose(flat, numbers, rtol=1e-5, atol=1e-6)
            }  # fmt: skip
        return frozenset(found)

    return symbols


# --- Protobuf (https://protobuf.dev/programming-guides/encoding/) -------------------------------------------


def _message(data: memoryview) -> dict[int, list[Any]]:
    """The fields of a message by number: numbers as int, everything else as bytes."""
    fields: dict[int, list[Any]] = {}
    for number, value in _fields(data):
        fields.setdefault(number, []).append(value)
    return fields


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            length, at = _varint(data, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise OnnxError("is no ONNX file")
        if number == 0 or at + length > len(data):
            raise OnnxError("is no ONNX file, or a damaged one")
        yield number, data[at : at + length]
        at += length


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise OnnxError("is no ONNX file, or a damaged one")
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise OnnxError("is no ONNX file")


def _text(message: dict[int, list[Any]], number: int) -> str:
    values = message.get(number, [b""])
    if not isinstance(values[-1], (bytes, memoryview)):
        raise OnnxError("is no ONNX file")
    return bytes(values[-1]).decode(errors="replace")


def _tensor_name(raw: memoryview) -> str:
    return _text(_message(raw), 8)


def _tensor(raw: memoryview) -> tuple[str, np.ndarray]:
    """Name and array of a stored tensor."""
    tensor = _message(raw)
    name = _text(tensor, 8)
    if tensor.get(13) or tensor.get(14, [0])[-1]:
        raise OnnxError(f"takes {name!r} from another file, which is never read")
    dtype = _DTYPES.get(tensor.get(2, [0])[-1])
    shape = tuple(_numbers(tensor.get(1, []), "<i8", "V").tolist())
    if dtype is None or tensor.get(6) or any(side < 0 for side in shape):
        raise OnnxError(f"has {name!r} of a type that is not run")
    if tensor.get(9):
        array = np.frombuffer(b"".join(bytes(part) for part in tensor[9]), dtype)
    else:
        given = next((number for number in _TYPED if tensor.get(number)), None)
        array = np.empty(0, dtype) if given is None else _numbers(tensor[given], *_TYPED[given]).astype(dtype)
    try:
        return name, array.reshape(shape)
    except ValueError:
        raise OnnxError(f"has {name!r} with {array.size} numbers for the shape {shape}") from None


def _numbers(values: list[Any], dtype: str, kind: str) -> np.ndarray:
    """Repeated numbers, packed or not."""
    numbers: list[int] = []
    for value in values:
        if isinstance(value, int):
            numbers.append(value)
        elif kind != "V":
            return np.frombuffer(b"".join(bytes(part) for part in values), dtype)
        else:
            at = 0
            while at < len(value):
                number, at = _varint(value, at)
                numbers.append(number)
    return np.array([struct.unpack("<q", struct.pack("<Q", number))[0] for number in numbers], "<i8")
