"""Backends against one another and the plain network; graphs that are stale, damaged, or not there; forks."""

import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fkp import FaceKeypoints, hub, images, runtime, scheme
from fkp.config import KeypointConfig
from fkp.runtime import BackendError, NetworkFiles, Runner
from tests import tiny

onnxruntime = pytest.importorskip("onnxruntime")

STYLE = np.array([scheme.style_index("300w")])


def crops(n: int, size: int = 64) -> np.ndarray:
    return np.random.default_rng(n).integers(0, 256, (n, size, size, 3), np.uint8)


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """Small weights with graphs of both networks, and one that passes for the keypoint network's in int8."""
    folder = Path(shutil.copytree(tiny_folder, tmp_path / "copied"))
    shutil.copy(folder / "onnx" / "keypoints.onnx", folder / "onnx" / "keypoints.int8.onnx")
    return folder


@pytest.fixture(autouse=True)
def plain_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "int8_is_fast", lambda: False)


# --- All backends say the same ----------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"label_style": "ytf", "mirrored": True, "passes": 2}], ids=str)
def test_backends_agree(folder: Path, root: Path, options: dict) -> None:
    image = images.read(root / "examples" / "grace_hopper.jpg")
    by = [FaceKeypoints.from_pretrained(folder, backend=name, **options) for name in ("torch", "onnxruntime")]
    for name, model in zip(("torch", "onnxruntime"), by, strict=True):
        assert model.backend == model.face_detector.runner.name == name
    one, other = (model.keypoints_at(image, [[80, 40, 240, 220]]) for model in by)
    for field in ("keypoints", "sigmas", "visibility", "keypoint_scores"):
        atol = 0.05 if field in ("keypoints", "sigmas") else 1e-3
        np.testing.assert_allclose(getattr(one, field), getattr(other, field), atol=atol, err_msg=field)
    (boxes, scores), (theirs, their_scores) = (model.detect(image, min_score=0.0) for model in by)
    np.testing.assert_allclose(np.sort(scores), np.sort(their_scores), atol=1e-3)
    assert len(boxes) == len(theirs) > 0


def test_onnxruntime_gets_few_pictures_at_once_and_each_gives_what_it_gives_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Runner(hub.load(folder).files("keypoints"), "onnxruntime")
    some = crops(2 * runtime.CACHED + 3, tiny.KEYPOINTS.crop_size)
    alone = [run(crop[None], STYLE) for crop in some]
    sizes: list[int] = []
    session = run.backend._session

    class Counted:
        def run(self, names: object, inputs: dict) -> object:
            sizes.append(len(inputs["crops"]))
            return session.run(names, inputs)

    monkeypatch.setattr(run.backend, "_session", Counted())
    together = run(some, STYLE)
    assert sizes == [runtime.CACHED, runtime.CACHED, 3]
    for ours, *each in zip(together, *alone, strict=True):
        np.testing.assert_allclose(ours, np.concatenate(each), atol=1e-3)


@pytest.mark.parametrize("config", [tiny.KEYPOINTS, tiny.BASELINE], ids=["keypointnet", "baseline"])
def test_torch_gives_what_the_network_predicts(config: KeypointConfig) -> None:
    weights = tiny.weights(config)
    run = Runner(weights.files("keypoints"), "torch")
    some = crops(3, config.crop_size)
    for style in (None, *scheme.LABEL_STYLES):
        said = run(some, np.array([scheme.style_index(style)]))
        with torch.inference_mode():
            expected = weights.module("keypoints").predict(torch.from_numpy(some).permute(0, 3, 1, 2), style)
        for ours, theirs in zip(said, expected, strict=True):
            assert ours.dtype == np.float32
            np.testing.assert_allclose(ours, theirs, atol=0.01)


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_backends_take_any_number_of_crops_from_any_number_of_threads(folder: Path, backend: str) -> None:
    run = Runner(hub.load(folder).files("keypoints"), backend)
    some = crops(8)
    at_once = run(some, STYLE)
    with ThreadPoolExecutor(4) as pool:
        one_by_one = list(pool.map(lambda i: run(some[i : i + 1], STYLE), range(8)))
    for i, one in enumerate(one_by_one):
        for ours, theirs in zip(one, at_once, strict=True):
            np.testing.assert_allclose(ours[0], theirs[i], atol=0.01)


# --- Which one runs -----------------------------------------------------------------------------------------


def test_int8_runs_where_it_is_there_and_fast(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert FaceKeypoints.from_pretrained(folder).backend == "onnxruntime"
    monkeypatch.setattr(runtime, "int8_is_fast", lambda: True)
    model = FaceKeypoints.from_pretrained(folder)
    assert (model.backend, model.face_detector.runner.name) == ("onnxruntime-int8", "onnxruntime")
    assert "8-bit integers" in model.describe()[1]
    assert FaceKeypoints.from_pretrained(folder, backend="onnxruntime").backend == "onnxruntime"
    (folder / "onnx" / "keypoints.int8.onnx").unlink()
    assert FaceKeypoints.from_pretrained(folder).backend == "onnxruntime"
    monkeypatch.setattr(runtime, "int8_is_fast", lambda: False)
    with pytest.raises(BackendError, match="no graph for onnxruntime-int8"):
        FaceKeypoints.from_pretrained(folder, backend="onnxruntime-int8")


def test_processors_that_are_fast_in_int8(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setattr(runtime.platform, "machine", lambda: "x86_64")
    for flags, fast in (("fpu avx2", False), ("fpu avx512_vnni", True), ("avx_vnni", True)):
        monkeypatch.setattr(Path, "read_text", lambda self, flags=flags: f"flags : {flags}\n")
        assert runtime.int8_is_fast() is fast


@pytest.mark.parametrize(
    "options, reason",
    [
        ({"backend": "tpu"}, "there is no backend 'tpu': choose one of onnxruntime, onnxruntime-int8, torch"),
        ({"threads": 0}, "threads are 0, where a whole number from 1"),
        ({"threads": 10**9}, "threads are 1000000000, where"),  # ran on torch, without a word
        ({"threads": "2"}, "threads are '2', where"),
        ({"device": "tpu"}, "there is no device 'tpu': choose one of cpu, cuda, mps, auto"),
        ({"device": "cuda"}, "torch finds no device 'cuda' here"),
        ({"device": "cuda:1", "backend": "torch"}, "torch finds no device 'cuda:1' here"),
        ({"device": "mps"}, "torch finds no device 'mps' here"),
    ],
    ids=str,
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="has a GPU")
def test_backends_and_devices_that_cannot_be_had(folder: Path, options: dict, reason: str) -> None:
    with pytest.raises(BackendError, match=reason) as caught:
        FaceKeypoints.from_pretrained(folder, **options)
    assert "\n" not in str(caught.value)


def test_device_auto(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = "cuda" if torch.cuda.is_available() else "cpu"
    assert FaceKeypoints.from_pretrained(folder, device="auto").device == here
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert runtime.device_named("auto") == runtime.device_named("cuda") == "cuda"
    with pytest.raises(BackendError, match="onnxruntime runs on the CPU, not on cuda"):
        FaceKeypoints.from_pretrained(folder, backend="onnxruntime", device="cuda")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert runtime.device_named("auto") == "cpu"
    with pytest.raises(BackendError, match=r"pip install \"fkp\[torch\]\""):
        runtime.device_named("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu(folder: Path, root: Path) -> None:
    image = images.read(root / "examples" / "four_faces.jpg")
    model = FaceKeypoints.from_pretrained(folder)
    moved = model.to("cuda")
    assert moved.backend == moved.face_detector.runner.name == "torch" and "cuda" in moved.describe()[1]
    expected, found = (each.keypoints_at(image, [[80, 40, 240, 220]]) for each in (model, moved))
    assert found.keypoints == pytest.approx(expected.keypoints, abs=0.5)  # TF32
    assert moved.to("cpu").backend == "onnxruntime"


def test_threads(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    for threads in (1, 2):
        model = FaceKeypoints.from_pretrained(folder, threads=threads)
        options = model.runner.backend._session.get_session_options()
        assert options.intra_op_num_threads == threads and options.inter_op_num_threads == 1
        assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        assert model.runner.description.endswith(["", "1 thread", "2 threads"][threads])
    assert torch.get_num_threads() == before
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)
    for told, threads in (("", runtime.MOST_THREADS), ("3", 3), ("32", runtime.MOST_THREADS), ("many", 4)):
        monkeypatch.setenv("OMP_NUM_THREADS", told)
        assert runtime.default_threads() == threads


def without_package(monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    return "onnxruntime is not installed"


def without_graphs(monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    shutil.rmtree(folder / "onnx")
    return "no graph for onnxruntime beside them"


def with_other_weights(monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1  # the last bit of the last tensor, the keypoint network's
    path.write_bytes(content)
    return "onnx was made from other weights"


def with_damaged_graphs(monkeypatch: pytest.MonkeyPatch, folder: Path) -> str:
    for path in (folder / "onnx").iterdir():
        path.write_bytes(path.read_bytes()[:5000])
    return "is no ONNX file, or a damaged one"


@pytest.mark.parametrize("spoil", [without_package, without_graphs, with_other_weights, with_damaged_graphs])
def test_otherwise_torch_runs_and_onnxruntime_by_name_is_refused(
    spoil: Callable[[pytest.MonkeyPatch, Path], str],
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    reason = spoil(monkeypatch, folder)
    files = hub.load(folder).files("keypoints")
    assert Runner(files).name == "torch"
    with pytest.raises(BackendError, match=reason) as caught:
        Runner(files, "onnxruntime")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(BackendError, match=rf"{reason}.*; and torch is not installed"):
        Runner(files)


@pytest.mark.parametrize("change", [{"crop_size": 96}, {"mean": (0.0, 0.0, 0.0)}], ids=str)
def test_a_graph_is_for_what_the_config_says(folder: Path, change: dict) -> None:
    weights = hub.load(folder)
    other = replace(weights, keypoints=replace(weights.keypoints, **change))
    assert Runner(other.files("keypoints")).name == "torch"
    assert Runner(other.files("detector")).name == "onnxruntime"


# --- Other processes, and what is set for the whole process -------------------------------------------------


def test_a_model_goes_to_other_processes(folder: Path) -> None:
    model = FaceKeypoints.from_pretrained(folder)
    other = pickle.loads(pickle.dumps(model))
    assert other.backend == "onnxruntime" and other.weights.folder == folder
    for ours, theirs in zip(other.runner(crops(1), STYLE), model.runner(crops(1), STYLE), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_model_of_a_relative_folder_goes_on_elsewhere(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    model = FaceKeypoints.from_pretrained(folder.name)
    monkeypatch.chdir(tmp_path.parent)
    assert pickle.loads(pickle.dumps(model)).backend == "onnxruntime"


def test_8_bit_graphs_of_others_are_refused_with_what_helps(folder: Path) -> None:
    """Beside the bundled ones only those run that this process has made."""
    (folder / "onnx" / "detector.int8.onnx").write_bytes(b"of another process")
    with pytest.raises(BackendError, match="choose onnxruntime") as refused:
        Runner(hub.load(folder).files("detector"), "onnxruntime-int8")
    assert "again" not in str(refused.value), "it would not help"


FORKS = """
import multiprocessing, os, sys, threading, time
from concurrent.futures import ProcessPoolExecutor
import cv2
import numpy as np
from fkp import FaceKeypoints

folder, backend = sys.argv[1:]
pictures = [np.random.default_rng(0).integers(0, 256, (s, s, 3), np.uint8) for s in (60, 3000)]
cv2.resize(pictures[1], (1500, 1500))  # OpenCV's threads are there
model = FaceKeypoints.from_pretrained(folder, backend=backend, threads=2, passes=1)
box = [[10, 10, 50, 55]]

def work(number):
    model.detect(pictures[number])
    return model.keypoints_at(pictures[number], box).keypoints

fork = multiprocessing.get_context("fork")
for when in ("after loading", "after a first picture"):
    with fork.Pool(1) as pool:
        pooled = [pool.apply_async(work, (i,)).get(100) for i in (0, 1)]
    with ProcessPoolExecutor(1, mp_context=fork) as pool:
        executed = [pool.submit(work, i).result(100) for i in (0, 1)]
    here = [work(i) for i in (0, 1)]
    for all_of in (pooled, executed):
        for one, other in zip(all_of, here):
            np.testing.assert_allclose(one, other, atol=0.01)
child = os.fork()
if not child:
    work(0)
    del model  # and an end like any other
    sys.exit(0)
for _ in range(300):
    done, status = os.waitpid(child, os.WNOHANG)
    if done:
        break
    time.sleep(0.1)
assert done and status == 0, (done, status)
cv2.setNumThreads(3)

def fork_often():
    for _ in range(100):
        if child := os.fork():
            os.waitpid(child, 0)
        else:
            os._exit(0)

both = [threading.Thread(target=fork_often) for _ in range(2)]
[each.start() for each in both]
[each.join() for each in both]
print(cv2.getNumThreads())
"""


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs os.fork")
@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_forked_workers(root: Path, backend: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS, str(hub.BUNDLED), backend], cwd=root, env=environment,
        capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("3\n", "")


DEFAULTS = """
import sys
import numpy as np
import torch
from fkp import FaceKeypoints

def said(backend):
    model = FaceKeypoints.from_pretrained(sys.argv[1], backend=backend)
    faces = model.keypoints_at(picture, [[10, 10, 50, 55]])
    return [faces.keypoints, faces.keypoint_scores, faces.visibility, model.detect(picture, min_score=0.0)[1]]

picture = np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8)
expected = {backend: said(backend) for backend in ("torch", "onnxruntime")}
torch.set_default_device("meta")
torch.set_default_dtype(torch.float64)
for backend, before in expected.items():
    for ours, theirs in zip(said(backend), before):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)
assert torch.get_default_device().type == "meta" and torch.get_default_dtype() == torch.float64
"""


@pytest.mark.slow
def test_defaults_of_torch_are_somebody_elses(root: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", DEFAULTS, str(hub.BUNDLED)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr


def test_onnxruntime_reports_to_nobody(root: Path, tmp_path: Path) -> None:
    """Its telemetry, on by default, begins with an identifier of this machine and a data base at home."""
    code = f"""
from fkp import FaceKeypoints
model = FaceKeypoints.from_pretrained({str(hub.BUNDLED)!r}, backend="onnxruntime")
model.keypoints_at(__import__("numpy").zeros((9, 9, 3), "uint8"), [[2, 2, 6, 6]])
print(model.backend)
"""
    clean = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    homes = {name: str(tmp_path) for name in ("HOME", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=clean | homes, cwd=root, capture_output=True, text=True, timeout=300
    )
    assert (done.stdout, done.stderr) == ("onnxruntime\n", "")
    assert not [path for path in tmp_path.rglob("*") if "microsoft" in str(path).lower()]


# --- torch-compile ------------------------------------------------------------------------------------------


class Halved(torch.nn.Module):
    """Quick to compile."""

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor]:
        return (pictures.float().mean(dim=1) / 2,)


HALVED = NetworkFiles("", {}, Halved)


def test_compiling_needs_a_compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(BackendError, match="torch-compile needs a C\\+\\+ compiler: install g\\+\\+"):
        Runner(HALVED, backend="torch-compile")


@pytest.mark.slow
@pytest.mark.skipif(not shutil.which(os.environ.get("CXX", "g++")), reason="needs a C++ compiler")
def test_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    run = Runner(HALVED, backend="torch-compile")
    assert run.name == "torch-compile" and run.description.startswith("torch-compile 2")
    for n in (3, 4):
        (found,) = run(crops(n, 8))
        assert found == pytest.approx(crops(n, 8).mean(axis=-1) / 2, abs=1e-4)


# --- Digests ------------------------------------------------------------------------------------------------


def test_a_digest_sees_every_number_name_type_and_shape() -> None:
    weights = tiny.weights()
    tensors, config = dict(weights.keypoint_tensors), asdict(weights.keypoints)
    digest = runtime.digest(tensors, config)
    assert digest == runtime.digest(dict(reversed(tensors.items())), config) and len(digest) == 64
    bias = tensors["heatmaps.bias"].copy()
    bias[5] += 1
    others = [
        runtime.digest(tensors | {"heatmaps.bias": bias}, config),
        runtime.digest(tensors | {"more": np.zeros(1)}, config),
        runtime.digest(tensors | {"heatmaps.bias": tensors["heatmaps.bias"].astype(np.float32)}, config),
        runtime.digest(tensors | {"heatmaps.bias": tensors["heatmaps.bias"][:, None]}, config),
        runtime.digest(tensors, config | {"margin": 1.25}),
    ]
    assert len({digest, *others}) == 6
