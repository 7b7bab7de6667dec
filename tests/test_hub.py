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

from fkp import detector, hub, network
from fkp.hub import WeightsError
from tests.loopback_hub import LoopbackHub, Repository

KEYPOINTS = network.KeypointConfig(
    crop_size=64, widths=(4, 4, 4, 4, 8), depths=(1, 1, 1, 1), top_down_width=4, temperature=1.25
)
FACES = detector.DetectorConfig(widths=(4, 4, 4, 4, 4), neck_width=4, min_score=0.25)
METRICS = {"ytf/test": {"nme": 4.5, "missed": 0}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Small untrained networks, saved."""
    hub.save(tmp_path / "weights", network.build(KEYPOINTS), detector.Detector(FACES), METRICS)
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
        assert all(torch.equal(loaded[name], saved[name]) for name in saved)
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "scheme": "ibug-68", "fkp_version": "0.1.0"}
    assert (folder / "model.safetensors").stat().st_mode & 0o044 == 0o044


def test_without_metrics(folder: Path) -> None:
    (folder / "metrics.json").unlink()
    assert hub.load(folder).metrics == {}


def test_an_older_config_keeps_defaults(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["keypoints"]["temperature"], config["fkp_version"]
    (folder / "config.json").write_text(json.dumps(config))
    assert hub.load(folder).keypoint_network.config.temperature == 1.0


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
        ({"format": 2}, "format 2, this fkp reads up to 1: upgrade with 'pip install -U fkp'"),
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
    hub.push("someone/faces", *stored)
except hub.WeightsError as error:
    print(error)
print(hub.push("someone/faces", *stored, token="hf_secret", commit_message="First"))
"""

PULL = """
from fkp import FaceKeypoints

model = FaceKeypoints.from_pretrained("someone/faces")
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
    with LoopbackHub() as server:
        refusal, url = fresh_process(PUSH.format(folder=str(folder)), server.url, tmp_path / "a")
        assert refusal.startswith("the Hub does not let you write someone/faces: run 'hf auth login'")
        ((sha, files, message),) = server.repositories["someone/faces"].commits
        assert url == f"{server.url}/someone/faces/commit/{sha}" and message == "First"
        assert len(files["model.safetensors"]) == (folder / "model.safetensors").stat().st_size
        assert files["config.json"] == (folder / "config.json").read_bytes()
        assert files["metrics.json"] == (folder / "metrics.json").read_bytes()
        assert b'from_pretrained("someone/faces")' in files["README.md"]

        server.repositories["someone/empty"] = Repository(False, [("e" * 40, {"README.md": b""}, "")])
        failing = [("someone/nothing", {}), ("someone/faces", {"revision": "v9"}), ("someone/empty", {})]
        code = PULL + FIND.format(calls=failing)
        weights, metrics, missing, revision, empty = fresh_process(code, server.url, tmp_path / "b")
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
