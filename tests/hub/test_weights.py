"""Weights saved, loaded, damaged in every way, and taken to a Hub on loopback and back."""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from fkp import FaceKeypoints, __version__, hub, runtime
from fkp import __main__ as command_line
from fkp.hub import WeightsError, download, model_card, publish
from fkp.networks import export
from tests import tiny
from tests.loopback_hub import Client, LoopbackHub

METRICS = {"ytf/test": {"nme": 4.5, "missed": 0}}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Small untrained networks, saved without graphs, which take seconds."""
    hub.save(tmp_path / "weights", tiny.weights(metrics=METRICS), graphs=False)
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


def test_folder_without_weights(tmp_path: Path) -> None:
    assert str(tmp_path / "config.json") in refused(tmp_path) and "does not exist" in refused(tmp_path)
    assert "is neither a folder here nor a Hub id" in refused(tmp_path / "no")


def test_saved_and_loaded(folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "config.json", "metrics.json", "model.safetensors",
    ]  # fmt: skip
    given, loaded = tiny.weights(), hub.load(str(folder))
    assert (loaded.keypoints, loaded.detector) == (tiny.KEYPOINTS, tiny.FACES)
    assert loaded.metrics == METRICS and loaded.folder == folder
    saved = safetensors.torch.load_file(folder / "model.safetensors")
    assert {tensor.dtype for tensor in saved.values()} == {torch.float16, torch.int64}
    for network, tensors in (("keypoints", loaded.keypoint_tensors), ("detector", loaded.detector_tensors)):
        assert loaded.digest(network) == given.digest(network)
        assert loaded.files(network).graphs == {}
        module = loaded.module(network)
        assert not module.training
        for name, tensor in module.state_dict().items():
            assert torch.equal(tensor, saved[f"{network}.{name}"].to(tensor.dtype))
            assert tensor.dtype in (torch.float32, torch.int64) and name in tensors
    config = json.loads((folder / "config.json").read_text())
    assert (config["format"], config["dtype"], config["onnx"]) == (3, "float16", False)
    assert metadata(folder) == {
        "format": "pt", "fkp_format": "3", "scheme": "ibug-68", "fkp_version": __version__,
    }  # fmt: skip
    assert (folder / "model.safetensors").stat().st_mode & 0o044 == 0o044


def test_config_tells_how_tensors_are_stored(tmp_path: Path) -> None:
    for kind in ("float16", "float32"):
        weights = tiny.weights()
        tensors = {name: tensor.astype(kind) for name, tensor in weights.keypoint_tensors.items()}
        hub.save(tmp_path / kind, replace(weights, keypoint_tensors=tensors), graphs=False)
        assert json.loads((tmp_path / kind / "config.json").read_text())["dtype"] == kind
        assert hub.load(tmp_path / kind).keypoint_tensors.keys() == tensors.keys()


def test_loading_needs_no_torch(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    weights = hub.load(folder)
    with pytest.raises(runtime.BackendError, match="torch is not installed"):
        weights.module("keypoints")


def test_saved_again_it_stays_the_same(folder: Path, tmp_path: Path) -> None:
    hub.save(tmp_path / "again", hub.load(folder), graphs=False)
    for name in ("config.json", "metrics.json"):
        assert (tmp_path / "again" / name).read_bytes() == (folder / name).read_bytes()
    # Only the order of the metadata in the header is the library's to choose.
    ours, theirs = (header_and_numbers(each / "model.safetensors") for each in (tmp_path / "again", folder))
    assert ours == theirs


def header_and_numbers(path: Path) -> tuple[dict, bytes]:
    """The two parts of a safetensors file: 8 bytes say how long the first, JSON, is."""
    content = path.read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def test_graphs_of_other_weights_are_taken_away(folder: Path) -> None:
    weights = hub.load(folder)
    (folder / "onnx").mkdir()
    for name in ("keypoints.onnx", "detector.onnx"):
        (folder / "onnx" / name).write_bytes(b"old")
    graphs = hub.load(folder).files("keypoints").graphs
    assert graphs == {"onnxruntime": folder / "onnx" / "keypoints.onnx"}
    hub.save(folder, weights, graphs=False)
    assert not (folder / "onnx").exists()


@pytest.mark.slow
def test_graphs_are_made_once_and_copied_from_then_on(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript", reason="needs the extra fkp[export]")
    first, second = tmp_path / "first", tmp_path / "second"
    hub.save(first, hub.load(folder))
    graphs = hub.load(first).files("keypoints").graphs, hub.load(first).files("detector").graphs
    assert all("onnxruntime" in made for made in graphs)
    assert json.loads((first / "config.json").read_text())["onnx"] is True
    monkeypatch.setattr(export, "is_possible", lambda: False)
    monkeypatch.setitem(sys.modules, "torch", None)
    hub.save(second, hub.load(first))
    for made in (first / "onnx").iterdir():
        assert (second / "onnx" / made.name).read_bytes() == made.read_bytes()


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_graphs_are_not_made_without_the_extra(
    folder: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    hub.save(folder, hub.load(folder))
    assert not (folder / "onnx").exists()
    assert json.loads((folder / "config.json").read_text())["onnx"] is False


def test_weights_are_saved_even_when_no_graph_can_be_made(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("this torch cannot export\nfor reasons of its own")

    pytest.importorskip("onnxscript", reason="needs the extra fkp[export]")
    monkeypatch.setattr(export, "write_onnx", fail)
    monkeypatch.setattr(export, "write_detector_onnx", fail)
    with pytest.warns(UserWarning, match="no ONNX graphs were written to .*: this torch cannot export$"):
        hub.save(tmp_path / "new", hub.load(folder))
    assert hub.load(tmp_path / "new").files("keypoints").graphs == {}


def test_weights_without_metrics(folder: Path) -> None:
    (folder / "metrics.json").unlink()
    assert hub.load(folder).metrics == {}


def test_an_older_config_keeps_defaults(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["keypoints"]["temperatures"], config["fkp_version"]
    (folder / "config.json").write_text(json.dumps(config))
    assert hub.load(folder).keypoints.temperatures == (1.0,) * 4


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
        ({"format": 4}, "format 4, this fkp reads format 3: upgrade with 'pip install -U fkp'"),
        ({"format": 2}, "format 2, this fkp reads format 3: get newer weights"),
        ({"dtype": "int8"}, "has the dtype 'int8', fkp knows float16 and float32 only"),
        ({"format": "new"}, "is no config of fkp"),
        ({"scheme": "wflw-98"}, "scheme 'wflw-98'"),
        ({"extra": 1}, "unknown key 'extra'"),
        ({"keypoints": {"heads": 3}}, "unknown key 'heads' for KeypointConfig"),
        ({"detector": {"anchors": 3}}, "unknown key 'anchors' for DetectorConfig"),
        ({"keypoints": {"crop_size": "64"}}, "'64' for 'crop_size', where int is needed"),
        ({"keypoints": {"crop_size": True}}, "True for 'crop_size'"),
        ({"keypoints": {"mean": [1, 2, "3"]}}, "for 'mean'"),
        ({"detector": {"depths": [4, 4]}}, "where tuple[int, int, int] is needed"),
    ],
)
def test_a_config_that_does_not_fit(folder: Path, change: dict, reason: str) -> None:
    change_config(folder, change)
    message = refused(folder)
    assert message.startswith(str(folder / "config.json")) and reason in message


def test_tensors_of_neither_network(folder: Path) -> None:
    for name in ("other.more", "keypoints", "more"):
        change_tensors(folder, lambda tensors, name=name: tensors.update({name: torch.zeros(1)}))
        assert f"tensor {name} belongs to neither network" in refused(folder)
        change_tensors(folder, lambda tensors, name=name: tensors.pop(name))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"top_down_width": 6}, "model.safetensors does not fit its config.json"),
        ({"architecture": "transformer"}, "config.json: architecture is 'transformer', where one of"),
        ({"widths": []}, "config.json: widths has 0 numbers"),
        ({"temperatures": [1.0]}, "config.json: temperatures has 1 numbers, where 4 are needed"),
    ],
    ids=str,
)
def test_config_that_does_not_fit(folder: Path, change: dict, reason: str) -> None:
    """Numbers out of range are seen at once, tensors of another shape where the network is made ready."""
    change_config(folder, {"keypoints": change})
    with pytest.raises(WeightsError, match=reason) as caught:
        FaceKeypoints(hub.load(folder))
    assert "\n" not in str(caught.value)


def metadata(folder: Path) -> dict[str, str]:
    with safetensors.safe_open(folder / "model.safetensors", "pt") as file:
        return file.metadata()


def test_weights_and_the_record_of_their_training_belong_together(folder: Path) -> None:
    weights = hub.load(folder)
    training = {"keypoints": {"command": "python train.py keypoints --data DATA", "seed": 0}}
    hub.save(folder, replace(weights, metrics=METRICS | {"training": training}), graphs=False)
    # What `sha256sum` makes of that as JSON.
    assert metadata(folder)["training_sha256"] == hub.training_hash({"training": training})
    assert hub.training_hash({"training": training}) == (
        "a5d1cf1813c7b646a61ce9fee64567c2da9b4a6e08642465ec3a2f8656c068cd"
    )
    assert hub.load(folder).metrics["training"] == training
    (folder / "metrics.json").write_text(json.dumps({"training": {"keypoints": {"command": "another"}}}))
    message = refused(folder)
    assert message == (
        f"{folder / 'metrics.json'} tells of another training than that of model.safetensors: "
        "get both files anew"
    )
    (folder / "metrics.json").unlink()  # no figures are no lie
    assert hub.load(folder).metrics == {}


@pytest.mark.parametrize(
    "told, reason",
    [
        ({"scheme": "wflw-98"}, "scheme 'wflw-98'"),
        ({"fkp_format": "2"}, "format 2"),
    ],
)
def test_weights_of_another_kind_than_their_config(folder: Path, told: dict, reason: str) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(safetensors.torch.save(safetensors.torch.load_file(path), metadata(folder) | told))
    assert refused(folder).startswith(f"{path} ") and reason in refused(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "checkpoint.pt", "weights.pkl"])
def test_a_pickle_is_never_loaded(folder: Path, tmp_path: Path, name: str) -> None:
    class Trap:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "sprung",))

    (folder / "model.safetensors").unlink()
    torch.save(Trap(), folder / name)
    assert refused(folder).startswith(
        f"{folder} holds {name} but no model.safetensors: that may run any code when it is loaded, so fkp "
    )
    assert not (tmp_path / "sprung").exists()


def test_a_pickle_beside_the_weights_is_left_alone(folder: Path) -> None:
    (folder / "optimizer.pt").write_bytes(b"no pickle")
    hub.load(folder)
    assert "optimizer.pt" not in hub.files(folder)


def test_the_pictures_of_the_card_come_and_go(folder: Path) -> None:
    weights = hub.load(folder)
    pictures = {model_card.EXAMPLE: b"one", model_card.POINTS_FIGURE: b"two"}
    hub.save(folder, weights, graphs=False, pictures=pictures)
    assert (folder / "card" / "example.jpg").read_bytes() == b"one"
    assert {"card/example.jpg", "card/points.png"} < hub.files(folder).keys()
    hub.save(folder, weights, graphs=False)
    assert not (folder / "card").exists()


# --- where weights are looked for ---------------------------------------------------------------------


def test_find(folder: Path) -> None:
    assert hub.find() == hub.load().folder == hub.BUNDLED
    assert hub.find(folder) == hub.find(str(folder)) == folder


@pytest.mark.parametrize(
    "source",
    ["", "weights", "./no", "../no", "/no/such", "a/b/c", "a b/c", "-/.", Path("a/b"), "a" * 5000, "a\0"],
)
def test_neither_folder_nor_id(source: str | Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(WeightsError, match="is neither a folder here nor a Hub id"):
        hub.find(source)


def test_a_file_is_no_folder(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where its path could be a Hub id."""
    monkeypatch.chdir(tmp_path)
    for source in (folder / "config.json", "weights/config.json"):
        with pytest.raises(WeightsError, match="is a file: name the folder that holds config.json and model"):
            hub.find(source)


def test_an_unknown_option_is_refused(folder: Path) -> None:
    """Also where it would not be needed, or a slip of the pen would go unnoticed."""
    for source in (None, folder, "someone/faces"):
        with pytest.raises(TypeError, match="unexpected keyword argument 'cachedir'.* cache_dir, "):
            hub.find(source, cachedir="a")


def test_a_revision_needs_a_hub_id(folder: Path) -> None:
    for source in (None, folder):
        with pytest.raises(WeightsError, match="goes with a Hub id"):
            hub.find(source, revision="main")


# --- the Hub; tests/test_remote.py has what may go wrong ------------------------------------------------

PUSH = """
from fkp.hub import publish
print(publish.push({folder!r}, "someone/faces", token="hf_secret", commit_message="First"))
"""

PULL = """
from fkp import FaceKeypoints
model = FaceKeypoints.from_pretrained("someone/faces", cache_dir={cache!r})
print(model.backend, model.face_detector.runner.backend.name)
print(model.weights.digest("keypoints"))
print(model.metrics)
"""


@pytest.mark.slow
def test_push_and_pull(folder: Path, tmp_path: Path) -> None:
    """With graphs, that are large files to the Hub; and without, when they are not asked for."""
    for package in ("onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extra fkp[export]")
    # The bundled networks, for graphs of others are run in the process alone that made them.
    hub.save(folder, replace(hub.load(), metrics=METRICS), repo_id="someone/faces")
    with LoopbackHub() as server, Client(server.url, tmp_path) as client:
        (url,) = client(PUSH.format(folder=str(folder)))
        commit = server.repositories["someone/faces"].commits[-1]
        assert url == f"{server.url}/someone/faces/commit/{commit.sha}" and commit.message == "First"
        uploaded = {name: content for name, content in commit.files.items() if name != ".gitattributes"}
        assert uploaded == {name: (folder / name).read_bytes() for name in hub.files(folder)}
        assert {"onnx/keypoints.onnx", "onnx/detector.onnx", "model.safetensors"} < uploaded.keys()
        assert len([asked for asked in server.requests if asked.startswith("PUT /storage/")]) == 5

        backends, digest, metrics = client(PULL.format(cache=str(tmp_path / "first")))
        best = "onnxruntime-int8" if runtime.int8_is_fast() else "onnxruntime"
        assert backends == f"{best} {best}"
        assert digest == hub.load(folder).digest("keypoints")
        assert metrics == str(METRICS)

        # Weights without graphs take those of older weights away, and nobody asks for them.
        hub.save(folder, hub.load(folder), graphs=False)
        client(PUSH.format(folder=str(folder)))
        files = server.repositories["someone/faces"].commits[-1].files
        assert files.keys() == {".gitattributes", *hub.files(folder)}
        asked_before = len(server.requests)
        backends, _, _ = client(PULL.format(cache=str(tmp_path / "second")))
        assert backends == "torch torch"
        assert not any("onnx" in asked for asked in server.requests[asked_before:])


def test_damaged_weights_are_not_pushed(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"damaged")
    with pytest.raises(WeightsError, match="is damaged or incomplete"):
        publish.push(folder, "someone/faces")


def test_push_to_no_id(folder: Path) -> None:
    for name in ("faces", "a/b/c", "some one/faces", "someone/faces.git", ""):
        with pytest.raises(WeightsError, match=f"'{name}' is no Hub id of the form OWNER/NAME"):
            publish.push(folder, name)


def test_the_page_about_the_hub_is_true(root: Path) -> None:
    """docs/hub.md: its commands are taken by the parser, and it names every file, option and ending."""
    page = (root / "docs" / "hub.md").read_text()
    shell = re.findall(r"```sh\n(.*?)```", page, re.DOTALL)
    commands = [line for line in "".join(shell).splitlines() if line.startswith("fkp ")]
    lines = [line.split("#")[0].split()[1:] for line in commands]
    assert len(lines) == 2
    for line in lines:
        command_line._parser().parse_args(line)
    for name in (hub.CONFIG, hub.WEIGHTS, hub.METRICS, *hub.GRAPHS["keypoints"].values()):
        assert f"`{name}`" in page
    for option in ("revision", *download.Options.__annotations__):
        assert f"`{option}`" in page
    assert f"{download.PATIENCE:g} seconds" in page and download.LONGEST_WAIT == 5
