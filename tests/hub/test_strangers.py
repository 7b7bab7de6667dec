"""Weights of somebody else: a graph is run only if it computes what they do, and no number is trusted."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy

from fkp import FaceKeypoints, runtime
from fkp.config import DetectorConfig, KeypointConfig
from fkp.demo import about
from fkp.hub import model_card, onnx_file, weights
from fkp.hub.errors import WeightsError

onnx = pytest.importorskip("onnx", reason="builds the graphs of strangers")
from onnx import TensorProto, helper, numpy_helper  # noqa: E402

KEYPOINTS = "onnx/keypoints.onnx"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The bundled weights, of somebody else: without 8-bit integers, which are not run there anyway."""
    copy = tmp_path / "weights"
    shutil.copytree(weights.BUNDLED, copy)
    for graph in copy.glob("onnx/*.int8.onnx"):
        graph.unlink()
    return copy


def changed(folder: Path, change, name: str = KEYPOINTS) -> None:
    model = onnx.load(folder / name)
    change(model.graph)
    (folder / name).write_bytes(model.SerializeToString())


def refused(folder: Path) -> str:
    with pytest.raises(runtime.BackendError) as caught:
        FaceKeypoints.from_pretrained(folder, backend="onnxruntime")
    return str(caught.value)


def test_the_very_same_graphs_are_run(folder: Path) -> None:
    assert FaceKeypoints.from_pretrained(folder, backend="onnxruntime").backend == "onnxruntime"


def halved(folder: Path) -> None:
    """Every weight of the keypoint network half as large, in its graph too."""
    tensors = weights.load(folder)
    new = {f"keypoints.{n}": (a / 2).astype(a.dtype) if a.dtype.kind == "f" else a
           for n, a in tensors.keypoint_tensors.items()}  # fmt: skip
    new |= {f"detector.{name}": array for name, array in tensors.detector_tensors.items()}
    with safetensors.safe_open(folder / weights.WEIGHTS, "numpy") as file:
        metadata = file.metadata()
    (folder / weights.WEIGHTS).write_bytes(safetensors.numpy.save(new, metadata))
    digest = weights.load(folder).digest("keypoints")
    model = onnx.load(folder / KEYPOINTS)
    for tensor in model.graph.initializer:
        name = tensor.name.removeprefix("network.").removesuffix(".float16")
        if name in tensors.keypoint_tensors:
            array = numpy_helper.to_array(tensor)
            half = (array / 2).astype(np.float16)  # as they are stored: the smallest ones are rounded
            tensor.CopyFrom(numpy_helper.from_array(half.astype(array.dtype), tensor.name))
    for entry in model.metadata_props:
        if entry.key == runtime.WEIGHTS_SHA256:
            entry.value = digest
    (folder / KEYPOINTS).write_bytes(model.SerializeToString())


def test_graph_with_other_weights_is_run(folder: Path) -> None:
    halved(folder)
    assert FaceKeypoints.from_pretrained(folder, backend="onnxruntime").backend == "onnxruntime"


def test_external_data_is_refused_outright(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `location=".env"` that file's bytes came out as points. Not even of bundled weights is it read."""

    def outside(graph) -> None:
        tensor = next(t for t in graph.initializer if t.name == "network.mean")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in (("location", ".env"), ("offset", "0"), ("length", "12")):
            tensor.external_data.add(key=key, value=value)

    (folder / ".env").write_text("SECRET=1234567890")
    monkeypatch.chdir(folder)
    changed(folder, outside)
    assert KEYPOINTS in refused(folder) and "another file" in refused(folder)
    monkeypatch.setattr(weights, "BUNDLED", folder)
    with pytest.raises(onnx_file.OnnxError, match="another file"):
        weights.load(folder).check_graph("keypoints", "onnxruntime", (folder / KEYPOINTS).read_bytes())


def fifty_pixels(graph) -> None:
    """Every point 50 pixels further."""
    last = graph.node[-1]
    producer = next(node for node in graph.node if "keypoints" in node.output)
    producer.output[list(producer.output).index("keypoints")] = "before"
    graph.initializer.append(numpy_helper.from_array(np.float32([50]), "fifty"))
    graph.node.append(helper.make_node("Add", ["before", "fifty"], ["keypoints"]))
    assert last is not None


def by_the_mean(graph) -> None:
    """The same with a number that is in the config."""
    producer = next(node for node in graph.node if "keypoints" in node.output)
    producer.output[list(producer.output).index("keypoints")] = "before"
    graph.initializer.append(numpy_helper.from_array(np.float32([124, 116]), "m"))
    graph.node.append(helper.make_node("Add", ["before", "m"], ["keypoints"]))


def not_a_number(graph) -> None:
    producer = next(node for node in graph.node if "sigmas" in node.output)
    producer.output[list(producer.output).index("sigmas")] = "before"
    graph.initializer.append(numpy_helper.from_array(np.float32([np.nan]), "nan"))
    graph.node.append(helper.make_node("Mul", ["before", "nan"], ["sigmas"]))


def endless_loop(graph) -> None:
    one = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node("Identity", ["go_in"], ["go_out"])], "body",
        [one("i", TensorProto.INT64, []), one("go_in", TensorProto.BOOL, [])],
        [one("go_out", TensorProto.BOOL, [])],
    )  # fmt: skip
    graph.initializer.append(numpy_helper.from_array(np.array(True), "yes"))
    graph.node.insert(0, helper.make_node("Loop", ["", "yes"], [], body=body))


def wrong_shape(graph) -> None:
    producer = next(node for node in graph.node if "keypoints" in node.output)
    producer.output[list(producer.output).index("keypoints")] = "before"
    graph.node.append(helper.make_node("Transpose", ["before"], ["keypoints"], perm=[2, 1, 0]))


def another_weight(graph) -> None:
    tensor = next(t for t in graph.initializer if t.name.endswith(".float16"))
    array = numpy_helper.to_array(tensor).copy()
    array.flat[0] += 1
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def another_constant(graph) -> None:
    node = next(
        n for n in graph.node if n.op_type == "Constant" and any(a.name == "value_ints" for a in n.attribute)
    )
    node.attribute[0].ints[0] += 1


def numbers_twice(graph) -> None:
    """Of one kind for who looks, of another for who runs it."""
    tensor = next(t for t in graph.initializer if t.data_type == TensorProto.INT64)
    array = numpy_helper.to_array(tensor)
    tensor.ClearField("raw_data")
    tensor.float_data.extend(array.ravel().tolist())
    tensor.int64_data.extend((array.ravel() + 1).tolist())


def a_name_twice(graph) -> None:
    tensor = graph.initializer.add()
    tensor.CopyFrom(graph.initializer[0])


@pytest.mark.parametrize(
    "change",
    [
        fifty_pixels, by_the_mean, not_a_number, endless_loop, wrong_shape, another_weight, another_constant,
        numbers_twice, a_name_twice,
    ],
)  # fmt: skip
@pytest.mark.parametrize("first", [lambda folder: None, halved], ids=["same weights", "other weights"])
def test_a_graph_that_computes_anything_else_is_refused(folder: Path, change, first) -> None:
    first(folder)
    changed(folder, change)
    assert KEYPOINTS in refused(folder)


def test_operators_of_another_version_are_refused(folder: Path) -> None:
    """They may mean something else."""
    model = onnx.load(folder / KEYPOINTS)
    model.opset_import[0].version -= 1
    (folder / KEYPOINTS).write_bytes(model.SerializeToString())
    assert KEYPOINTS in refused(folder)


def test_a_tensor_given_twice_in_an_attribute_is_refused() -> None:
    """Protobuf takes both for one, of which the last number counts; the library would not write it so."""
    tensor = numpy_helper.from_array(np.float32([1]))
    node = helper.make_node("Constant", [], ["out"], value=tensor)
    (attribute,) = node.attribute
    other = onnx.AttributeProto(t=numpy_helper.from_array(np.float32([2])))
    graph = helper.make_graph([], "g", [], [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1])])

    def field(number: int, content: bytes) -> bytes:
        assert len(content) < 128
        return bytes([number << 3 | 2, len(content)]) + content

    def model(*attributes: bytes) -> bytes:
        del node.attribute[:]
        raw = node.SerializeToString() + field(5, b"".join(attributes))
        return field(7, field(1, raw) + graph.SerializeToString())

    mine, its = attribute.SerializeToString(), other.SerializeToString()
    assert len(onnx_file.read(model(mine), lambda name, array: frozenset()).values) == 1
    with pytest.raises(onnx_file.OnnxError, match="two tensors"):
        onnx_file.read(model(mine, its), lambda name, array: frozenset())


def test_a_file_of_any_size_is_not_read_whole(folder: Path) -> None:
    with (folder / KEYPOINTS).open("r+b") as file:
        file.truncate(2**40)  # which no memory holds
    assert KEYPOINTS in refused(folder)


def test_graph_with_any_byte_changed_is_a_sentence(folder: Path) -> None:
    content, generator = (folder / KEYPOINTS).read_bytes(), np.random.default_rng(0)
    for blob in (b"\x38\x01", b"\x3a\x02\x08\x01", b"\x3a\x02\x28\x01", b"\x3a\x06\x0a\x04\x08\x80\x80\x01"):
        with pytest.raises(onnx_file.OnnxError):
            onnx_file.read(blob, lambda name, array: frozenset())
    for _ in range(100):
        damaged = bytearray(content)
        for at in generator.integers(0, 30_000, 3):
            damaged[at] = generator.integers(256)
        with contextlib.suppress(onnx_file.OnnxError):
            onnx_file.read(bytes(damaged), lambda name, array: frozenset())


def test_graph_of_the_detector_is_checked_too(folder: Path) -> None:
    changed(folder, another_weight, "onnx/detector.onnx")
    assert "onnx/detector.onnx" in refused(folder)


@pytest.mark.parametrize(
    "content", [b"", b"\x08", b"\x3a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"text" * 99]
)
def test_graph_that_is_none_is_a_sentence(folder: Path, content: bytes) -> None:
    (folder / KEYPOINTS).write_bytes(content)
    assert KEYPOINTS in refused(folder)


def test_cut_anywhere_it_is_a_sentence(folder: Path) -> None:
    content = (folder / KEYPOINTS).read_bytes()
    nothing = lambda name, array: frozenset()  # noqa: E731
    for length in np.random.default_rng(0).integers(1, len(content), 50).tolist():
        try:
            onnx_file.read(content[:length], nothing)
        except onnx_file.OnnxError:
            continue


# --- Configs and figures ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "network, key, value",
    [
        ("keypoints", "depths", [10**9, 1, 1]), ("keypoints", "widths", [12000] * 4),
        ("keypoints", "margin", -1),
        ("keypoints", "margin", 0), ("keypoints", "margin", float("nan")), ("keypoints", "crop_size", 0),
        ("keypoints", "crop_size", 113), ("keypoints", "crop_size", 10**9), ("keypoints", "std", [0, 1, 1]),
        ("keypoints", "mean", [1e300, 1, 1]), ("keypoints", "temperatures", [1, 1]),
        ("keypoints", "annotation_offsets", [9.0] * 8), ("keypoints", "architecture", "resnet"),
        ("keypoints", "visibility_calibration", [float("inf"), 0]), ("keypoints", "top_down_width", -4),
        ("detector", "fine_pixels", -1), ("detector", "input_size", 0), ("detector", "least_size", 10**9),
        ("detector", "min_score", 2), ("detector", "max_iou", float("nan")),
        ("detector", "depths", [1, 1, 10**9]),
        ("detector", "neck_width", 0), ("detector", "bias", [9, 0, 0, 0]), ("detector", "widths", []),
    ],
)  # fmt: skip
def test_config_numbers_all_have_a_range(folder: Path, network: str, key: str, value: object) -> None:
    config = json.loads((folder / weights.CONFIG).read_text())
    config[network][key] = value
    (folder / weights.CONFIG).write_text(json.dumps(config))
    with pytest.raises(WeightsError, match=f"config.json.*{key}"):
        weights.load(folder)


def test_the_usual_configs_are_within() -> None:
    KeypointConfig(), DetectorConfig(), weights.load(weights.BUNDLED)


def test_config_fields_are_all_checked() -> None:
    """None takes numbers without end, or what is none."""
    held = weights.load(weights.BUNDLED)
    for config in (held.keypoints, held.detector):
        for field in fields(config):
            value = getattr(config, field.name)
            for wrong in (float("nan"), float("inf"), -1e15, 1e15):
                many = (
                    [(name, wrong, wrong) for name, *_ in value]
                    if field.name == "activation_ranges"
                    else None
                )
                changed = many or ((wrong,) * len(value) if isinstance(value, tuple) else wrong)
                with pytest.raises(ValueError, match=field.name):
                    replace(config, **{field.name: changed})


def test_weights_that_do_not_fit_their_config_are_told_before_memory_is_taken(folder: Path) -> None:
    """Within every range, and 17 GB."""
    config = json.loads((folder / weights.CONFIG).read_text())
    config["keypoints"] |= {"widths": [1024] * 8, "depths": [32] * 7, "top_down_width": 1024}
    (folder / weights.CONFIG).write_text(json.dumps(config))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError, match="does not fit"):
        weights.load(folder).module("keypoints")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1_000_000  # kB


@pytest.mark.parametrize("name", ["config.json", "metrics.json"])
def test_files_that_are_none(folder: Path, name: str) -> None:
    for content in ("[" * 100_000, "5", '{"format": ', " " * 20_000_001):
        (folder / name).write_text(content)
        with pytest.raises(WeightsError, match=name):
            weights.load(folder)
    (folder / name).unlink()
    os.mkfifo(folder / name)  # reading it would wait for ever
    with pytest.raises(WeightsError, match=name):
        weights.load(folder)


def test_a_tensor_with_nan_is_told_at_load(folder: Path) -> None:
    with safetensors.safe_open(folder / weights.WEIGHTS, "numpy") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    name = next(name for name, array in tensors.items() if array.dtype.kind == "f")
    tensors[name] = tensors[name].copy()
    tensors[name].flat[0] = np.nan
    (folder / weights.WEIGHTS).write_bytes(safetensors.numpy.save(tensors, metadata))
    with pytest.raises(WeightsError, match=name.replace(".", r"\.")):
        weights.load(folder)


def test_the_same_weights_are_the_same_bytes(tmp_path: Path) -> None:
    """In processes of their own, for the library orders metadata anew in each."""
    code = "import sys; from fkp.hub import weights; weights.save(sys.argv[1], weights.load(weights.BUNDLED))"
    contents = set()
    for number in range(3):
        place = tmp_path / str(number)
        subprocess.run([sys.executable, "-c", code, str(place)], check=True, cwd=Path(__file__).parents[2])
        contents.add((place / weights.WEIGHTS).read_bytes())
        assert len(weights.load(place).keypoint_tensors) > 0
    assert len(contents) == 1


def test_figures_of_strangers_are_text() -> None:
    evil = "<img src=x onerror=alert(1)>"
    figures = {"n": evil, "missed": 1, "nme": 1.0, "nme_inner": 1.0, "fr8": 1.0}
    metrics = {
        "accuracy": {"sets": {"a": evil}, "figures": {"m": {"a": {"truth": figures, "detected": figures}}}}
    }
    assert "<img src=x" not in about.text(metrics, [evil], None)
    figures["n"] = 5  # type: ignore[assignment]
    assert "<img src=x" not in about.text(metrics, [evil], None)


@pytest.mark.parametrize(
    "wrong", ['{"x": ' + "[" * 900 + "]" * 900 + "}", '{"accuracy": NaN}', '{"accuracy": {"figures": [1]}}',
              '{"accuracy": 1' + "0" * 4000 + "}", '{"training": {"faces": {"command": "\\ud800"}}}'],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_metrics_of_any_form_are_a_sentence_where_they_are_written(
    folder: Path, tmp_path: Path, wrong: str
) -> None:
    with safetensors.safe_open(folder / weights.WEIGHTS, "numpy") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
    del metadata["training_sha256"]
    (folder / weights.WEIGHTS).write_bytes(safetensors.numpy.save(tensors, metadata))
    (folder / weights.METRICS).write_text(wrong)
    with pytest.raises(WeightsError, match="metrics.json"):
        weights.save(tmp_path / "again", weights.load(folder), graphs=False)


def test_a_command_does_not_break_out_of_the_cards_code() -> None:
    evil = "x\n```\n</details>\n<img src=x onerror=alert(1)>\n```sh\n"
    told = model_card._as_text({"training": {"keypoints": {"command": evil}}, "title": evil, "n": 5})
    assert (
        "`" not in told["training"]["keypoints"]["command"]
        and "\n" not in told["training"]["keypoints"]["command"]
    )
    assert "<img" not in told["title"].replace("\\<", "") and told["n"] == 5
