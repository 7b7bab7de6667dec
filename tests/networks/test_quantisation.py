"""Graphs of 8-bit integers: of a small network here, of the bundled weights by their own numbers."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from fkp import FaceKeypoints, data, evaluation, geometry, images
from fkp.config import DetectorConfig, KeypointConfig
from fkp.networks import export, face_net, integer_graph, keypoint_net, quantisation
from tests import tiny

INT8 = "onnxruntime-int8"
CONFIG = KeypointConfig(crop_size=64, widths=(8, 16, 16, 16), depths=(1, 2, 1), top_down_width=16)


@pytest.fixture(scope="module")
def network() -> keypoint_net.KeypointNetwork:
    """A network whose normalisations are not as they begin."""
    torch.manual_seed(0)
    built = keypoint_net.build(CONFIG).eval()
    for part in built.modules():
        if isinstance(part, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(part.weight, 0.5, 1.5)
            torch.nn.init.uniform_(part.running_var, 0.5, 1.5)
    torch.nn.init.normal_(built.style.weight)
    built.config = replace(CONFIG, activation_ranges=export.activation_ranges(built, crops(40)))
    return built


@pytest.fixture(scope="module")
def folded(network) -> onnx.ModelProto:
    """Its graph with folded normalisations, which takes seconds; nothing changes it."""
    return export.keypoints_model(network, "digest", folded=True)


def crops(count: int, seed: int = 0) -> np.ndarray:
    """Smooth made-up crops (n,3,64,64) uint8."""
    noise = np.random.default_rng(seed).uniform(0, 255, (count, 3, 8, 8))
    return noise.repeat(8, axis=2).repeat(8, axis=3).astype(np.uint8)


def run(graph: Path, pictures: np.ndarray, style: int = 0) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    return session.run(None, {"crops": pictures, "label_style": np.array([style])})


def test_ranges_are_called_after_the_weights_and_hold_what_was_seen(network) -> None:
    ranges = {name: (low, high) for name, low, high in network.config.activation_ranges}
    parameters = dict(network.named_parameters())
    for name, (low, high) in ranges.items():
        owner = name.removeprefix("network.").split(".Relu")[0].split(".Add")[0].split(".Resize")[0]
        assert f"{owner.removesuffix('.weight.input')}.weight" in parameters, name
        assert low <= 0 <= high and low < high
    assert not any("heatmaps" in name for name in ranges)
    seen = []
    hook = network.smooth.register_forward_hook(lambda module, given, made: seen.append(made.max().item()))
    with torch.inference_mode():
        for style in (None, "300w", "ytf", "merl"):
            network.predict(torch.from_numpy(crops(40)), style)
    hook.remove()
    assert 0.6 * max(seen) < ranges["network.smooth.0.Relu"][1] <= max(seen) + 1e-3


def test_the_graph_says_about_the_same_on_8_bits(network, folded, tmp_path: Path) -> None:
    onnx.save(folded, tmp_path / "float.onnx")
    export.write_int8_onnx(network, tmp_path / "int8.onnx", "digest")
    model = onnx.load(tmp_path / "int8.onnx")
    types = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    quantised = [node for node in model.graph.node if node.op_type == "Conv"]
    made_by = {output: node for node in model.graph.node for output in node.output}
    kernels = [made_by[conv.input[1]] for conv in quantised if conv.input[1] in made_by]
    assert len(kernels) == len(quantised) == 16  # all but that of the heat maps
    assert all(types[node.input[0]] == onnx.TensorProto.INT8 for node in kernels)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert metadata["weights_sha256"] == "digest" and metadata["scheme"] == "ibug-68"
    for style in (0, 3):
        plain, small = (run(tmp_path / f"{kind}.onnx", crops(5, seed=1), style) for kind in ("float", "int8"))
        assert [output.shape for output in small] == [(5, 68, 2), (5, 68), (5, 68)]
        assert np.abs(plain[0] - small[0]).mean() < 0.3
        assert np.corrcoef(plain[1].ravel(), small[1].ravel())[0, 1] > 0.97


def run_model(model: onnx.ModelProto, **feed: np.ndarray) -> list[np.ndarray]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=providers).run(
        None, feed
    )


def test_pictures_less_a_whole_number_give_the_same_points(folded) -> None:
    """In float32, where nothing else differs: also at the edges, where the convolution pads."""
    rewritten = integer_graph.rewritten(folded, integer_graph.BEFORE)
    assert not [node for node in rewritten.graph.node if node.op_type == "Div"]
    for style in (0, 3):
        feed = {"crops": crops(3, seed=2), "label_style": np.array([style])}
        for one, other in zip(run_model(folded, **feed), run_model(rewritten, **feed), strict=True):
            np.testing.assert_allclose(one, other, atol=2e-3)


def operators(model: onnx.ModelProto) -> set[str]:
    return {node.op_type for node in model.graph.node}


def test_quick_operations_give_the_same_points(network, folded) -> None:
    model = integer_graph.rewritten(folded, integer_graph.BEFORE)
    ranges = {name: (low, high) for name, low, high in network.config.activation_ranges}
    plain = quantisation.quantised(model, ranges, export.KEYPOINT_HEADS)
    quick = integer_graph.rewritten(plain, integer_graph.AFTER)
    assert {"Resize", "Cast", "Shape"} <= operators(plain)
    assert not {"Resize", "Cast", "Shape"} & operators(quick)
    for n in (1, 3):
        feed = {"crops": crops(n, seed=3), "label_style": np.array([1])}
        for one, other in zip(run_model(plain, **feed), run_model(quick, **feed), strict=True):
            np.testing.assert_allclose(one, other, atol=1e-3)


def test_no_sum_of_two_bytes_is_rounded_by_chance(network, folded) -> None:
    """In whatever order float32 computes it, with multiply-add or without: as exact arithmetic says."""
    model = integer_graph.rewritten(folded, integer_graph.BEFORE)
    ranges = {name: (low, high) for name, low, high in network.config.activation_ranges}
    quick = integer_graph.rewritten(
        quantisation.quantised(model, ranges, export.KEYPOINT_HEADS), integer_graph.AFTER
    )
    sums = list(quantisation.sums(quick))
    assert len(sums) == 7
    for name, (one, other, total) in sums:
        exact = {way: rounded(way, one[1:], other[1:], total) for way in (by_ratio, by_value, in_float64)}
        assert np.array_equal(exact[by_ratio], exact[in_float64]), name
        assert np.array_equal(exact[by_value], exact[in_float64]), name
        assert quantisation.clearance(one[1:], other[1:], total) > 1e-4, name


def rounded(way, one, other, total) -> np.ndarray:
    a, b = np.meshgrid(np.arange(256), np.arange(256), indexing="ij")
    return np.rint(way(a, b, one, other, total)).clip(0, 255)


def by_ratio(a, b, one, other, total) -> np.ndarray:
    """As the kernels with vector instructions (onnxruntime/core/mlas/lib/qladd.cpp)."""
    (first, second), zero = (np.float32(term[0]) / np.float32(total[0]) for term in (one, other)), total[1]
    fixed = np.float32(zero) - (first * np.float32(one[1]) + second * np.float32(other[1]))
    return (fixed + a.astype(np.float32) * first) + b.astype(np.float32) * second


def by_value(a, b, one, other, total) -> np.ndarray:
    """As the one without."""
    values = (np.float32(step) * (x - zero).astype(np.float32) for x, (step, zero) in ((a, one), (b, other)))
    return sum(values) / np.float32(total[0]) + np.float32(total[1])


def in_float64(a, b, one, other, total) -> np.ndarray:
    return (one[0] * (a - one[1]) + other[0] * (b - other[1])) / total[0] + total[1]


@pytest.mark.slow
def test_quick_operations_find_the_same_boxes() -> None:
    """Sizes differ, and heads keep what 8 bits would lose."""
    torch.manual_seed(0)
    net = tiny.lively(face_net.DetectorNetwork(DetectorConfig(widths=(8, 16, 16, 16), neck_width=16)))
    shapes = [(96, 160, 3), (64, 64, 3)]
    pictures = [np.random.default_rng(i).integers(0, 256, shape, np.uint8) for i, shape in enumerate(shapes)]
    ranges = export.detector_activation_ranges(net, pictures)
    model = export.detector_model(net, {}, "digest", folded=True)
    plain = quantisation.quantised(
        model, {name: (low, high) for name, low, high in ranges}, export.DETECTOR_HEADS
    )
    quick = integer_graph.rewritten(plain, integer_graph.AFTER)
    assert {"Resize", "Cast"} <= operators(plain) and not {"Resize", "Cast", "Shape"} & operators(quick)
    for picture in pictures:
        feed = {"pictures": picture.transpose(2, 0, 1)[None].copy()}
        for one, other in zip(run_model(plain, **feed), run_model(quick, **feed), strict=True):
            assert one.shape == other.shape
            np.testing.assert_allclose(one, other, atol=2e-4 * np.abs(one).max())


def test_ranges_of_another_network_are_refused(folded) -> None:
    with pytest.raises(ValueError, match="no activation range for network"):
        quantisation.quantised(folded, {}, export.KEYPOINT_HEADS)
    with pytest.raises(export.ExportError, match="no graph of 8-bit integers: no activation range"):
        export._of_integers(folded, (), export.KEYPOINT_HEADS)


def both() -> tuple[FaceKeypoints, FaceKeypoints]:
    """The bundled weights in float32 and on 8-bit integers."""
    plain, small = (FaceKeypoints.from_pretrained(backend=name, passes=1) for name in ("onnxruntime", INT8))
    return plain, small


def test_the_bundled_points_stay_where_they_are_on_8_bits() -> None:
    """Mean distance of at most 0.3 % of the face, on faces of the examples framed in many ways."""
    plain, small = both()
    generator, distances, visibility = np.random.default_rng(0), [], []
    for path in sorted((Path(__file__).parents[2] / "examples").glob("*.jpg")):
        image = images.read(path)
        found = plain(image).boxes
        sides = geometry.longer_sides(found)[:, None]
        boxes = np.repeat(found, 8, axis=0) + np.repeat(sides, 8, axis=0) * generator.uniform(
            -0.06, 0.06, (8 * len(found), 4)
        )
        one, other = plain.keypoints_at(image, boxes), small.keypoints_at(image, boxes)
        off = np.linalg.norm(one.keypoints - other.keypoints, axis=-1) / geometry.longer_sides(boxes)[:, None]
        distances.append(off.ravel())
        visibility.append(np.abs(one.visibility - other.visibility).ravel())
    assert len(np.concatenate(distances)) > 500 and np.concatenate(distances).mean() <= 0.003
    assert np.concatenate(visibility).mean() <= 0.02


@pytest.mark.slow
@pytest.mark.parametrize("csv", ["300w/lfpw_test", "merl/aflw_test"])
def test_the_error_on_test_sets_stays_the_same_on_8_bits(csv: str, shared_data: Path) -> None:
    faces = data.FacialKeypointsDataset(shared_data / f"{csv}.csv", shared_data / csv)
    placed = [evaluation.predict(model, faces)[0] for model in both()]
    one, other = (evaluation.summarise(keypoints, faces.keypoints) for keypoints in placed)
    assert one["nme_box"] == pytest.approx(other["nme_box"], abs=0.02)
    assert one["nme"] == pytest.approx(other["nme"], abs=0.02)
