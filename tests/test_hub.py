"""Weights saved, loaded, damaged in every way, and taken to a Hub on loopback and back."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from fkp import detector, export, hub, network
from fkp.hub import WeightsError
from tests.loopback_hub import LoopbackHub, Repository

KEYPOINTS = network.KeypointConfig(
    crop_size=64, widths=(4, 4, 4, 4, 8), depths=(1, 1, 1, 1), top_down_width=4, temperatures=(1.0, 1.25, 1.0)
)
FACES = detector.DetectorConfig(widths=(4, 4, 4, 4, 4), neck_width=4, min_score=0.25)
METRICS = {"ytf/test": {"nme": 4.5, "missed": 0}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Small untrained networks, saved without graphs, which take seconds."""
    faces = detector.Detector(FACES)
    hub.save(tmp_path / "weights", network.build(KEYPOINTS), faces, METRICS, graphs=False)
    return tmp_path / "weights"


def refused(folder: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        hub.load(folder)
    message = str(caught.value)
    assert "\n" not in message
    return message


def change_config(folder: Path, change: dict) -> None:
    """Update config.json, key by key within its sections."""
    config = json.loads((folder / "config.json").read_text())
    for key, value in change.items():
        config[key] = config[key] | value if isinstance(config.get(key), dict) else value
    (folder / "config.json").write_text(json.dumps(config))


def change_tensors(folder: Path, change) -> None:
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    change(tensors)
    (folder / "model.safetensors").write_bytes(safetensors.torch.save(tensors))


# --- folders ------------------------------------------------------------------------------------------


def test_nothing_there(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "no"):
        assert refused(folder) == f"{folder / 'config.json'} does not exist: that is no folder of fkp weights"


def test_saved_and_loaded(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "config.json", "metrics.json", "model.safetensors",
    ]  # fmt: skip
    first, second = hub.load(folder), hub.load(str(folder))
    assert first.keypoint_network.config == KEYPOINTS and first.face_detector.config == FACES
    assert first.metrics == METRICS
    assert not first.keypoint_network.training and not first.face_detector.network.training
    saved = safetensors.torch.load_file(folder / "model.safetensors")
    for stored in (first, second):
        loaded = {f"keypoints.{k}": v for k, v in stored.keypoint_network.state_dict().items()}
        loaded |= {f"detector.{k}": v for k, v in stored.face_detector.network.state_dict().items()}
        assert loaded.keys() == saved.keys()
        assert all(torch.equal(loaded[name], saved[name].to(loaded[name].dtype)) for name in saved)
        assert {tensor.dtype for tensor in loaded.values()} == {torch.float32, torch.int64}
    assert {tensor.dtype for tensor in saved.values()} == {torch.float16, torch.int64}
    config = json.loads((folder / "config.json").read_text())
    assert (config["format"], config["dtype"], config["onnx"]) == (2, "float16", False)
    assert first.keypoints_graph is None and first.face_detector.runner.graph is None
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "scheme": "ibug-68", "fkp_version": "0.1.0"}
    assert (folder / "model.safetensors").stat().st_mode & 0o044 == 0o044


def test_saved_again_it_stays_the_same(folder: Path, tmp_path: Path) -> None:
    stored = hub.load(folder)
    hub.save(tmp_path / "again", *stored[:3], graphs=False)
    for name in ("config.json", "metrics.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    # Only the order of the metadata in the header is the library's to choose.
    (header, numbers), (first_header, first_numbers) = (
        header_and_numbers(each / "model.safetensors") for each in (tmp_path / "again", folder)
    )
    assert header == first_header and numbers == first_numbers


def header_and_numbers(path: Path) -> tuple[dict, bytes]:
    """The two parts of a safetensors file: 8 bytes say how long the first, JSON, is."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def test_what_float16_cannot_hold_stays_float32(tmp_path: Path) -> None:
    keypoint_network = network.build(KEYPOINTS)
    with torch.no_grad():
        keypoint_network.heatmaps.bias[3] = 1e6 + 1
    hub.save(tmp_path, keypoint_network, detector.Detector(FACES), graphs=False)
    assert torch.equal(hub.load(tmp_path).keypoint_network.heatmaps.bias, keypoint_network.heatmaps.bias)
    assert keypoint_network.heatmaps.weight.dtype == torch.float32  # as it was


def test_a_folder_of_format_1(folder: Path) -> None:
    """As fkp wrote them before: float32, and neither "dtype" nor "onnx" in the config."""
    torch.manual_seed(1)
    keypoint_network, faces = network.build(KEYPOINTS), detector.Detector(FACES)
    tensors = {f"keypoints.{name}": tensor for name, tensor in keypoint_network.state_dict().items()}
    tensors |= {f"detector.{name}": tensor for name, tensor in faces.network.state_dict().items()}
    (folder / "model.safetensors").write_bytes(safetensors.torch.save(tensors))
    config = json.loads((folder / "config.json").read_text()) | {"format": 1}
    del config["dtype"], config["onnx"]
    (folder / "config.json").write_text(json.dumps(config))
    loaded = hub.load(folder).keypoint_network.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in keypoint_network.state_dict().items())


def test_graphs_of_other_weights_are_taken_away(folder: Path) -> None:
    stored = hub.load(folder)
    (folder / "onnx").mkdir()
    for name in ("keypoints.onnx", "detector.onnx"):
        (folder / "onnx" / name).write_bytes(b"old")
    assert hub.load(folder).keypoints_graph == folder / "onnx" / "keypoints.onnx"
    assert hub.load(folder).face_detector.runner.graph == folder / "onnx" / "detector.onnx"
    hub.save(folder, *stored[:3], graphs=False)
    assert not (folder / "onnx").exists()


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_without_the_extra_there_are_no_graphs(
    folder: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    hub.save(folder, *hub.load(folder)[:3])
    assert not (folder / "onnx").exists()
    assert json.loads((folder / "config.json").read_text())["onnx"] is False


def test_weights_are_saved_even_when_no_graph_can_be_made(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("this torch cannot export\nfor reasons of its own")

    pytest.importorskip("onnxscript", reason="needs the extra fkp[onnx]")
    monkeypatch.setattr(export, "write_onnx", fail)
    with pytest.warns(UserWarning, match="no ONNX graphs were written to .*: this torch cannot export$"):
        hub.save(tmp_path / "new", *hub.load(folder)[:3])
    assert hub.load(tmp_path / "new").keypoints_graph is None


def test_without_metrics(folder: Path) -> None:
    (folder / "metrics.json").unlink()
    assert hub.load(folder).metrics == {}


def test_an_older_config_keeps_defaults(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["keypoints"]["temperatures"], config["fkp_version"]
    (folder / "config.json").write_text(json.dumps(config))
    assert hub.load(folder).keypoint_network.config.temperatures == (1.0, 1.0, 1.0)


@pytest.mark.parametrize("file", ["config.json", "model.safetensors"])
def test_a_file_is_missing(folder: Path, file: str) -> None:
    (folder / file).unlink()
    assert refused(folder).startswith(f"{folder / file} does not exist")


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.99])
def test_truncated_weights(folder: Path, share: float) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert refused(folder).startswith(f"{path} is damaged or incomplete")


@pytest.mark.parametrize("file", ["config.json", "metrics.json"])
@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"version https://git-lfs.github.com/spec/v1"])
def test_damaged_json(folder: Path, file: str, content: bytes) -> None:
    (folder / file).write_bytes(content)
    assert refused(folder).startswith(f"{folder / file} is no JSON")


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"format": 3}, "format 3, this fkp reads up to 2: upgrade with 'pip install -U fkp'"),
        ({"dtype": "int8"}, "has the dtype 'int8', fkp knows float16 and float32 only"),
        ({"format": "new"}, "is no config of fkp"),
        ({"scheme": "wflw-98"}, "scheme 'wflw-98'"),
        ({"extra": 1}, "unknown key 'extra'"),
        ({"keypoints": {"heads": 3}}, "unknown key 'heads' for KeypointConfig"),
        ({"detector": {"anchors": 3}}, "unknown key 'anchors' for DetectorConfig"),
        ({"keypoints": {"crop_size": "64"}}, "'64' for 'crop_size', where int is needed"),
        ({"keypoints": {"crop_size": True}}, "True for 'crop_size'"),
        ({"keypoints": {"mean": [1, 2, "3"]}}, "for 'mean'"),
        ({"detector": {"widths": [4, 4]}}, "where tuple[int, int, int, int, int] is needed"),
        ({"keypoints": {"architecture": "transformer"}}, "networks that cannot be built"),
        ({"keypoints": {"widths": []}}, "networks that cannot be built"),
    ],
)
def test_a_config_that_does_not_fit(folder: Path, change: dict, reason: str) -> None:
    change_config(folder, change)
    message = refused(folder)
    assert message.startswith(str(folder / "config.json")) and reason in message


def test_tensors_that_do_not_fit(folder: Path) -> None:
    name = "keypoints.heatmaps.weight"
    original = (folder / "model.safetensors").read_bytes()

    def after(change) -> str:
        (folder / "model.safetensors").write_bytes(original)
        change_tensors(folder, change)
        return refused(folder)

    assert f"tensor {name} is missing;" in after(lambda t: t.pop(name))
    extra = {"detector.more": torch.zeros(1)}
    assert "tensor detector.more belongs to neither network;" in after(lambda t: t.update(extra))
    assert "instead of (68, 4, 1, 1);" in after(lambda t: t.update({name: t[name][:67]}))
    assert "is missing (and " in after(lambda t: t.clear())
    assert f"tensor {name} is of type torch.int32;" in after(lambda t: t.update({name: t[name].int()}))


def test_weights_of_another_size_are_not_taken(folder: Path) -> None:
    change_config(folder, {"keypoints": {"top_down_width": 6}})
    assert "model.safetensors does not fit its config.json" in refused(folder)


def test_the_card(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    assert text.startswith("---\n") and "pipeline_tag: keypoint-detection" in text
    assert '"nme": 4.5' in text and 'from_pretrained("OWNER/NAME")' in text


# --- where weights are looked for ---------------------------------------------------------------------


def test_find(folder: Path) -> None:
    assert hub.find() == hub.BUNDLED
    assert hub.find(folder) == hub.find(str(folder)) == folder


@pytest.mark.parametrize(
    "source", ["", "weights", "./no", "../no", "/no/such", "a/b/c", "a b/c", "-/.", Path("a/b")]
)
def test_neither_folder_nor_id(source: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="is neither a folder here nor a Hub id"):
        hub.find(source)


def test_a_revision_needs_a_hub_id(folder: Path) -> None:
    for source in (None, folder):
        with pytest.raises(WeightsError, match="goes with a Hub id"):
            hub.find(source, revision="main")


# --- the Hub ------------------------------------------------------------------------------------------


def fresh_process(code: str, endpoint: str, home: Path, **environment: str) -> list[str]:
    """The lines that code prints in a new process whose Hub is at `endpoint` and whose cache is in `home`."""
    clean = {name: value for name, value in os.environ.items() if name not in ("HF_TOKEN", "HF_HUB_OFFLINE")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=clean | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "NO_PROXY": "127.0.0.1"} | environment,
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


PUSH = """
from fkp import hub

stored = hub.load({folder!r})
try:
    hub.push("someone/faces", *stored[:3])
except hub.WeightsError as error:
    print(error)
print(hub.push("someone/faces", *stored[:3], token="hf_secret", commit_message="First"))
"""

PULL = """
from fkp import FaceKeypoints

model = FaceKeypoints.from_pretrained("someone/faces")
print(model.backend, model.face_detector.runner.backend.name)
print(sum(float(tensor.double().sum()) for tensor in model.keypoint_network.state_dict().values()))
print(model.metrics)
"""

FIND = """
import time
from fkp import hub

for source, options in {calls!r}:
    began = time.monotonic()
    try:
        result = hub.find(source, **options).name
    except hub.WeightsError as error:
        result = error
    # huggingface_hub itself would try for 23 seconds; the rest is room for a busy machine.
    print(result, "" if time.monotonic() - began < 12 else "too late")
"""


def test_push_and_pull(folder: Path, tmp_path: Path) -> None:
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extra fkp[onnx]")
    with LoopbackHub() as server:
        refusal, url = fresh_process(PUSH.format(folder=str(folder)), server.url, tmp_path / "a")
        assert refusal.startswith("the Hub does not let you write someone/faces: run 'hf auth login'")
        ((sha, files, message),) = server.repositories["someone/faces"].commits
        assert url == f"{server.url}/someone/faces/commit/{sha}" and message == "First"
        assert len(files["model.safetensors"]) == (folder / "model.safetensors").stat().st_size
        assert json.loads(files["config.json"]) == json.loads((folder / "config.json").read_text()) | {
            "onnx": True
        }
        assert {name for name in files if "/" in name} == {"onnx/keypoints.onnx", "onnx/detector.onnx"}
        assert files["metrics.json"] == (folder / "metrics.json").read_bytes()
        assert b'from_pretrained("someone/faces")' in files["README.md"]

        server.repositories["someone/empty"] = Repository(False, [("e" * 40, {"README.md": b""}, "")])
        plain = {path.name: path.read_bytes() for path in folder.iterdir()}
        server.repositories["someone/plain"] = Repository(False, [("f" * 40, plain, "")])
        calls = [("someone/nothing", {}), ("someone/faces", {"revision": "v9"}), ("someone/empty", {})]
        code = PULL + FIND.format(calls=[*calls, ("someone/plain", {})])
        pulled = fresh_process(code, server.url, tmp_path / "b")
        backends, weights, metrics, missing, revision, empty, without_graphs = pulled
        assert backends == "onnxruntime onnxruntime"
        assert without_graphs == "f" * 40 + " "
        asked = [request for request in server.requests if "someone/plain" in request]
        assert len(asked) <= 8 and not any("onnx" in request for request in asked)
        state = hub.load(folder).keypoint_network.state_dict()
        assert float(weights) == sum(float(tensor.double().sum()) for tensor in state.values())
        assert metrics == str(METRICS)
        assert missing.startswith("there is neither a folder someone/nothing here nor a model")
        assert revision == "someone/faces has no revision 'v9' on the Hub "
        assert empty == "someone/empty holds no fkp weights: config.json and model.safetensors are needed "

    # The server is gone: what is in the cache is found, what is not is told, both without a wait.
    calls = [
        ("someone/faces", {"revision": sha}),
        ("someone/faces", {}),
        ("someone/faces", {"local_files_only": True}),
        ("someone/other", {}),
        ("someone/other", {"local_files_only": True}),
    ]
    *found, unreachable, local = fresh_process(FIND.format(calls=calls), server.url, tmp_path / "b")
    assert found == [f"{sha} "] * 3
    assert unreachable.startswith("someone/other is not in the local cache, and the Hub cannot be reached (")
    assert not unreachable.endswith("too late")
    assert local == "someone/other is not in the local cache, and the network is switched off "


def test_push_to_no_id(folder: Path) -> None:
    stored = hub.load(folder)
    with pytest.raises(WeightsError, match="'faces' is no Hub id of the form OWNER/NAME"):
        hub.push("faces", stored.keypoint_network, stored.face_detector)
