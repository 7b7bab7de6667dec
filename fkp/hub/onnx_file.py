"""What an ONNX file computes, read without running it: is it the graph that fkp exports, with these weights?

A graph of somebody else may read files (external data), loop for ever, or give other points than its weights
do. So one is only run if it is the bundled graph node by node, with the weights of model.safetensors and the
constants of config.json in the place of the bundled ones. The format is protobuf
(https://onnx.ai/onnx/repo-docs/IR.html), of which only what is needed is read here, for the package onnx is
no part of a plain installation.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

# Type of a tensor by its number, and the one field besides the raw bytes that may hold such numbers.
_DTYPES = {
    1: ("<f4", 4), 2: ("u1", 5), 3: ("i1", 5), 6: ("<i4", 5), 7: ("<i8", 7), 9: ("?", 5), 10: ("<f2", None),
    11: ("<f8", 10),
}  # fmt: skip
_RAW, _TYPED = 9, {4, 5, 7, 10, 11}

Symbols = frozenset[Any]
"""All that a value may stand for: graphs agree where what they say of a value has one in common."""


class OnnxError(ValueError):
    """No ONNX file, or one that is not run: one sentence without a name."""


@dataclass(frozen=True)
class Graph:
    """A graph in a form to be compared: `inputs` and `outputs` by name, `nodes` in order, `opsets` that say
    what its operators mean.

    A node is its operator, its attributes and inputs; an input is ("input", name), ("node", number, output)
    or ("value", the place of its symbols in `values`).
    """

    inputs: tuple[str, ...]
    outputs: tuple[Any, ...]
    nodes: tuple[Any, ...]
    values: tuple[Symbols, ...]
    opsets: tuple[Any, ...]

    def agrees_with(self, other: Graph) -> bool:
        """Whether both compute the same, each with its own weights and constants."""
        mine, its = ((each.inputs, each.outputs, each.nodes, each.opsets) for each in (self, other))
        return mine == its and all(bool(a & b) for a, b in zip(self.values, other.values, strict=True))


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
    model = _message(memoryview(content))
    graphs = _parts(model, 7)
    if len(graphs) != 1:
        raise OnnxError("is no ONNX file")
    if model.get(25) or model.get(20):
        raise OnnxError("has functions of its own, which are not run")
    graph = _message(graphs[0])
    if graph.get(15):
        raise OnnxError("has sparse tensors, which are not run")
    opsets = [_message(each) for each in _parts(model, 8)]
    values: list[Symbols] = []

    def value(tensor: memoryview) -> tuple[str, tuple[str, int]]:
        name, array = _tensor(tensor)
        values.append(symbols(name, array))
        return name, ("value", len(values) - 1)

    known: dict[str, Any] = {"": ("none",)}
    # In the order of their use, for a file may store them in any.
    stored = {_text(_message(tensor), 8): tensor for tensor in _parts(graph, 5)}
    if len(stored) < len(_parts(graph, 5)):
        raise OnnxError("gives two tensors one name")
    names = [_text(_message(each), 1) for each in _parts(graph, 11)]
    inputs = tuple(name for name in names if name not in stored)
    known |= {name: ("input", name) for name in inputs}

    def use(name: str) -> Any:
        if name not in known:
            if name not in stored:
                raise OnnxError(f"uses {name!r} before it is there")
            known[name] = value(stored[name])[1]
        return known[name]

    nodes = []
    for number, raw in enumerate(_parts(graph, 1)):
        node = _message(raw)
        operator = (_text(node, 7), _text(node, 4))
        attributes = sorted((_attribute(each, value) for each in _parts(node, 5)), key=lambda each: each[0])
        nodes.append((operator, tuple(attributes), tuple(use(_decoded(name)) for name in _parts(node, 1))))
        for i, name in enumerate(map(_decoded, _parts(node, 2))):
            # Else what comes before might be meant where it is used, or what comes after.
            if name and (name in known or name in stored):
                raise OnnxError(f"gives two values the name {name!r}")
            known[name] = ("node", number, i) if name else known[name]
    for tensor in stored.values():
        _tensor(tensor)  # also of those that nothing uses
    names = [_text(_message(each), 1) for each in _parts(graph, 12)]
    outputs = tuple((name, use(name)) for name in names)
    versions = tuple(sorted((_text(each, 1), str(each.get(2))) for each in opsets))
    return Graph(inputs, outputs, tuple(nodes), tuple(values), versions)


def _attribute(raw: memoryview, value: Callable[[memoryview], Any]) -> tuple[str, Any]:
    attribute = _message(raw)
    name = _text(attribute, 1)
    if attribute.keys() & {6, 10, 11, 14, 15, 22, 23}:
        raise OnnxError(f"has an attribute {name!r} of a kind that is not run, as a graph within the graph")
    if attribute.get(21):
        raise OnnxError(f"has an attribute {name!r} of a function")
    if tensors := _parts(attribute, 5):
        if len(tensors) > 1:  # what reads the file would take the two for one
            raise OnnxError(f"has two tensors for the attribute {name!r}")
        return name, value(tensors[0])[1]
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


def _parts(message: dict[int, list[Any]], number: int) -> list[memoryview]:
    """The fields of a number, which are to be bytes."""
    values = message.get(number, [])
    if any(isinstance(value, int) for value in values):
        raise OnnxError("is no ONNX file, or a damaged one")
    return values


def _decoded(text: memoryview) -> str:
    try:
        return bytes(text).decode()
    except UnicodeDecodeError:
        raise OnnxError("is no ONNX file, or a damaged one") from None


def _text(message: dict[int, list[Any]], number: int) -> str:
    values = _parts(message, number)
    return _decoded(values[-1]) if values else ""


def _tensor(raw: memoryview) -> tuple[str, np.ndarray]:
    """Name and array of a stored tensor."""
    tensor = _message(raw)
    name = _text(tensor, 8)
    if tensor.get(13) or tensor.get(14, [0])[-1]:
        raise OnnxError(f"takes {name!r} from another file, which is never read")
    dtype, typed = _DTYPES.get(tensor.get(2, [0])[-1], (None, None))
    shape = tuple(_integers(tensor.get(1, [])).tolist())
    if dtype is None or tensor.get(6) or any(side < 0 for side in shape):
        raise OnnxError(f"has {name!r} of a type that is not run")
    given = tensor.keys() & ({_RAW} | _TYPED)
    if len(given) > 1 or not given <= {_RAW, typed}:
        raise OnnxError(f"has numbers for {name!r} of which one cannot tell which count")
    try:
        if typed in given and typed in (5, 7):
            array = _integers(tensor[typed]).astype(dtype)
        else:
            # Of raw bytes the last ones count, of numbers all.
            parts = _parts(tensor, typed) if typed in given else _parts(tensor, _RAW)[-1:]
            array = np.frombuffer(b"".join(parts), dtype)
        return name, array.reshape(shape)
    except (ValueError, TypeError):
        raise OnnxError(f"has {name!r} with numbers that do not fill the shape {shape}") from None


def _integers(values: list[Any]) -> np.ndarray:
    """Repeated integers (n,) int64, packed or not."""
    numbers: list[int] = []
    for value in values:
        if isinstance(value, int):
            numbers.append(value)
            continue
        at = 0
        while at < len(value):
            number, at = _varint(value, at)
            numbers.append(number)
    return np.array(numbers, np.uint64).view(np.int64)
