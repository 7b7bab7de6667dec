"""Backends against one another and the plain network; graphs that are stale, damaged, or not there."""

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from fkp import FaceKeypoints, detector, hub, images, runtime, scheme
from fkp.networks import keypoint_net
from fkp.runtime import BackendError, Decoded, Runner

onnxruntime = pytest.importorskip("onnxruntime")

KEYPOINTNET = keypoint_net.KeypointConfig(
    crop_size=64, widths=(4, 4, 4, 4, 8), depths=(1, 2, 1, 1), top_down_width=4, label_style="300w"
)
BASELINE = keypoint_net.KeypointConfig(architecture="baseline", crop_size=32, widths=(4, 8), depths=())


def lively(module: nn.Module) -> nn.Module:
    """The module with normalisations that do something, as after training; styles that differ."""
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.running_mean.uniform_(-1, 1)
                part.running_var.uniform_(0.5, 2)
                part.weight.uniform_(0.5, 2)
                part.bias.uniform_(-1, 1)
            if isinstance(part, nn.Embedding):
                part.weight.normal_()
    return module.eval()


def crops(n: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, size, size, 3), np.uint8)


def style(name: str) -> np.ndarray:
    return np.array([scheme.LABEL_STYLES.index(name)])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled weights with their graphs, which are made here where the package has none."""
    if (hub.BUNDLED / hub.KEYPOINTS_GRAPH).is_file():
        return hub.BUNDLED
    pytest.importorskip("onnxscript", reason="needs the extra fkp[onnx]")
    folder = tmp_path_factory.mktemp("weights")
    stored = hub.load(hub.BUNDLED)
    hub.save(folder, stored.keypoint_network, stored.face_detector)
    return folder


@pytest.fixture
def copied(folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "copied"))


@pytest.fixture
def model(folder: Path) -> FaceKeypoints:
    return FaceKeypoints.from_pretrained(folder)


# --- All backends say the same ----------------------------------------------------------------------------


@pytest.mark.parametrize("picture", ["eileen_collins", "grace_hopper", "four_faces"])
@pytest.mark.parametrize("options", [{}, {"label_style": "ytf", "mirrored": True, "passes": 2}], ids=str)
def test_backends_agree(folder: Path, root: Path, picture: str, options: dict) -> None:
    image = images.read(root / "examples" / f"{picture}.jpg")
    by_torch = FaceKeypoints.from_pretrained(folder, backend="torch", **options)
    by_onnx = FaceKeypoints.from_pretrained(folder, backend="onnxruntime", **options)
    assert (by_torch.backend, by_onnx.backend) == ("torch", "onnxruntime")
    one, other = by_torch(image), by_onnx(image)
    assert len(one) == len(other) >= 1
    for field, tolerance in (("keypoints", 0.05), ("boxes", 0.05), ("sigmas", 0.05), ("scores", 1e-3)):
        assert np.abs(getattr(one, field) - getattr(other, field)).max() <= tolerance, field
    assert one.keypoint_scores == pytest.approx(other.keypoint_scores, abs=1e-3)


@pytest.mark.parametrize("config", [KEYPOINTNET, BASELINE], ids=["keypointnet", "baseline"])
def test_torch_gives_what_the_network_predicts(config: keypoint_net.KeypointConfig) -> None:
    keypoint_network = lively(keypoint_net.build(config))
    run = Runner(Decoded(keypoint_network))
    some = crops(3, config.crop_size)
    for name in scheme.LABEL_STYLES:
        keypoints, spreads = run(some, style(name))
        with torch.inference_mode():
            expected = keypoint_network.predict(torch.from_numpy(some).permute(0, 3, 1, 2), name)
        assert keypoints == pytest.approx(expected.keypoints.numpy(), abs=0.01)
        assert spreads == pytest.approx(expected.spreads.numpy(), rel=1e-3)
        assert keypoints.dtype == spreads.dtype == np.float32


def test_folding_leaves_no_normalisation_and_the_original_as_it_is() -> None:
    for module in (
        lively(keypoint_net.build(KEYPOINTNET)),
        detector.DetectorNetwork(detector.DetectorConfig()),
    ):
        before = runtime.digest(module)
        assert not any(isinstance(part, nn.BatchNorm2d) for part in runtime.folded(module).modules())
        assert runtime.digest(module) == before


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_any_number_of_crops(folder: Path, backend: str) -> None:
    model = FaceKeypoints.from_pretrained(folder, backend=backend)
    some = crops(3, model.keypoint_network.config.crop_size)
    all_at_once, spreads = model.runner(some, style("auto"))
    assert all_at_once.shape == (3, 68, 2) and spreads.shape == (3, 68)
    for i in range(3):
        one, spread = model.runner(some[i : i + 1], style("auto"))
        assert one[0] == pytest.approx(all_at_once[i], abs=0.01)
        assert spread[0] == pytest.approx(spreads[i], abs=0.01)
    none, spreads = model.runner(some[:0], style("auto"))
    assert none.shape == (0, 68, 2) and spreads.shape == (0, 68)


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_several_threads(folder: Path, backend: str) -> None:
    model = FaceKeypoints.from_pretrained(folder, backend=backend)
    some = crops(8, model.keypoint_network.config.crop_size)
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda i: model.runner(some[i : i + 1], style("auto"))[0], range(8)))
    for i, keypoints in enumerate(together):
        assert np.array_equal(keypoints, model.runner(some[i : i + 1], style("auto"))[0])


# --- Which one runs -----------------------------------------------------------------------------------------


def test_the_fastest_runs_unless_another_is_asked_for(model: FaceKeypoints, folder: Path) -> None:
    assert model.backend == "onnxruntime" and model.face_detector.runner.backend.name == "onnxruntime"
    asked = FaceKeypoints.from_pretrained(folder, backend="torch")
    assert asked.backend == asked.face_detector.runner.backend.name == "torch"
    assert onnxruntime.__version__ in model.runner.backend.description
    assert torch.__version__ in asked.runner.backend.description


def test_a_backend_that_does_not_exist(folder: Path) -> None:
    with pytest.raises(BackendError, match="no backend 'tpu': choose one of onnxruntime, torch, torch-co"):
        FaceKeypoints.from_pretrained(folder, backend="tpu")


def without_package(monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    return "onnxruntime is not installed: run 'pip install onnxruntime'"


def without_graphs(monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    shutil.rmtree(folder / "onnx")
    return "these weights have no graph for onnxruntime beside them: run 'pip install onnx onnxscript'"


def with_other_weights(monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    stored = hub.load(folder)
    with torch.no_grad():
        for changed in (stored.keypoint_network, stored.face_detector.network):
            next(changed.parameters())[0, 0, 0, 0] += 0.01
    keep = {path: path.read_bytes() for path in (folder / "onnx").iterdir()}
    hub.save(folder, stored.keypoint_network, stored.face_detector, graphs=False)
    (folder / "onnx").mkdir()
    for path, content in keep.items():
        path.write_bytes(content)
    return "onnx was made from other weights"


def with_damaged_graphs(monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    for path in (folder / "onnx").iterdir():
        path.write_bytes(path.read_bytes()[:5000])
    return "cannot run .*onnx"


@pytest.mark.parametrize("spoil", [without_package, without_graphs, with_other_weights, with_damaged_graphs])
def test_otherwise_torch_runs_and_onnxruntime_by_name_is_refused(
    spoil: Callable[[pytest.MonkeyPatch, Path], str],
    copied: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    reason = spoil(monkeypatch, copied)
    model = FaceKeypoints.from_pretrained(copied)
    assert model.backend == model.face_detector.runner.backend.name == "torch"
    with pytest.raises(BackendError, match=reason) as caught:
        FaceKeypoints.from_pretrained(copied, backend="onnxruntime")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")


def test_each_graph_is_checked_for_itself(copied: Path) -> None:
    (copied / "onnx" / "detector.onnx").unlink()
    model = FaceKeypoints.from_pretrained(copied)
    assert (model.backend, model.face_detector.runner.backend.name) == ("onnxruntime", "torch")
    with pytest.raises(BackendError, match="no graph"):
        FaceKeypoints.from_pretrained(copied, backend="onnxruntime")


@pytest.mark.parametrize("change", [{"crop_size": 96}, {"mean": [0.0, 0.0, 0.0]}], ids=str)
def test_a_graph_is_for_what_the_config_says(copied: Path, change: dict) -> None:
    config = json.loads((copied / "config.json").read_text())
    config["keypoints"] |= change
    (copied / "config.json").write_text(json.dumps(config))
    model = FaceKeypoints.from_pretrained(copied)
    assert (model.backend, model.face_detector.runner.backend.name) == ("torch", "onnxruntime")
    assert len(model.keypoints_at(np.zeros((99, 99, 3), np.uint8), [[20, 20, 80, 80]])) == 1


def test_weights_that_change_are_run_as_they_are(model: FaceKeypoints) -> None:
    """Whatever was made of the old ones, a graph or a folded copy."""
    some = crops(1, model.keypoint_network.config.crop_size)
    before, _ = model.runner(some, style("auto"))
    for _ in range(2):
        with torch.no_grad():
            model.keypoint_network.heatmaps.weight.mul_(1.5)
        after, _ = model.runner(some, style("auto"))
        assert model.backend == "torch" and np.abs(after - before).max() > 0.01
        with torch.inference_mode():
            expected = model.keypoint_network.predict(torch.from_numpy(some).permute(0, 3, 1, 2), "auto")
        assert after == pytest.approx(expected.keypoints.numpy(), abs=0.01)
        before = after


def test_weights_put_in_the_others_place_are_run(model: FaceKeypoints) -> None:
    """As `load_state_dict(assign=True)` does, after which torch has counted no change."""
    some = crops(1, model.keypoint_network.config.crop_size)
    before, _ = model.runner(some, style("auto"))
    state = {name: tensor * 1.5 for name, tensor in model.keypoint_network.state_dict().items()}
    model.keypoint_network.load_state_dict(state, assign=True)
    after, _ = model.runner(some, style("auto"))
    assert model.backend == "torch" and np.abs(after - before).max() > 0.01


def test_a_network_that_is_moved_runs_on_torch_there(folder: Path) -> None:
    """On "meta", a device that is everywhere and only knows shapes."""
    for backend in (None, "onnxruntime"):
        model = FaceKeypoints.from_pretrained(folder, backend=backend)
        model.keypoint_network.to("meta")
        assert model.backend == "torch" and model.runner.backend.description.endswith("on meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(folder: Path, root: Path) -> None:
    image = images.read(root / "examples" / "four_faces.jpg")
    model = FaceKeypoints.from_pretrained(folder)
    expected = model(image)
    model.keypoint_network.to("cuda")
    model.face_detector.network.to("cuda")
    found = model(image)
    assert model.backend == "torch" and "cuda" in model.runner.backend.description
    assert found.keypoints == pytest.approx(expected.keypoints, abs=0.2)  # TF32


def test_threads_are_those_of_torch(folder: Path) -> None:
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            model = FaceKeypoints.from_pretrained(folder, backend="onnxruntime")
            options = model.runner.backend._session.get_session_options()
            assert options.intra_op_num_threads == threads and options.inter_op_num_threads == 1
            assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
            assert model.runner.backend.description.endswith(["", "1 thread", "2 threads"][threads])
    finally:
        torch.set_num_threads(before)


def test_a_model_goes_to_other_processes(model: FaceKeypoints) -> None:
    other = pickle.loads(pickle.dumps(model))
    some = crops(1, model.keypoint_network.config.crop_size)
    assert other.backend == "onnxruntime" and other.source == model.source
    assert np.array_equal(other.runner(some, style("auto"))[0], model.runner(some, style("auto"))[0])
    with torch.no_grad():
        other.keypoint_network.heatmaps.weight.mul_(1.5)
    assert (other.backend, model.backend) == ("torch", "onnxruntime")


@pytest.mark.slow
def test_onnxruntime_reports_to_nobody(folder: Path, tmp_path: Path) -> None:
    """Its telemetry, on by default, begins with an identifier of this machine and a data base at home."""
    code = f"""
from fkp import FaceKeypoints
model = FaceKeypoints.from_pretrained({str(folder)!r})
model.keypoints_at(__import__("numpy").zeros((9, 9, 3), "uint8"), [[2, 2, 6, 6]])
print(model.backend)
"""
    clean = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    homes = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | homes, cwd=Path(__file__).parents[1],
        capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("onnxruntime\n", "")
    assert not [path for path in tmp_path.rglob("*") if "microsoft" in str(path).lower()]


# --- torch-compile ------------------------------------------------------------------------------------------


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(BackendError, match="torch-compile needs a C\\+\\+ compiler: install g\\+\\+"):
        _ = Runner(Decoded(keypoint_net.build(BASELINE)), backend="torch-compile").backend


class Halved(nn.Module):
    """Quick to compile."""

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor]:
        return (pictures.float().mean(dim=1) / 2,)


@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="needs a C++ compiler")
@pytest.mark.slow
def test_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    run = Runner(Halved(), backend="torch-compile")
    assert run.backend.name == "torch-compile" and run.backend.description.startswith("torch-compile 2")
    for n in (3, 4):
        (found,) = run(crops(n, 8))
        assert found == pytest.approx(crops(n, 8).mean(axis=-1) / 2, abs=1e-4)


# --- Digests ------------------------------------------------------------------------------------------------


def test_a_digest_sees_every_number_and_name_and_nothing_else() -> None:
    torch.manual_seed(0)
    one = keypoint_net.build(KEYPOINTNET)
    torch.manual_seed(0)
    same = keypoint_net.build(KEYPOINTNET)
    assert runtime.digest(one) == runtime.digest(same.to(memory_format=torch.channels_last).eval())
    seen = {runtime.digest(one)}

    def changed(change: Callable[[], object]) -> None:
        with torch.no_grad():
            change()
        digest = runtime.digest(one)
        assert len(digest) == 64 and digest not in seen
        seen.add(digest)

    changed(lambda: one.heatmaps.bias[5].add_(1))
    changed(lambda: one.stem[1].running_var[0].add_(1))
    changed(lambda: one.mean[0].add_(1))  # not among the weights, but within the graph
    changed(lambda: one.add_module("more", nn.ReLU()) or one.register_buffer("most", torch.zeros(1)))
