"""The command line, in this process, on small untrained networks that are made to see what the tests want."""

import csv
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import numpy as np
import pytest
import torch
from PIL import Image

from fkp import __version__, detector, hub, images, outputs, pipeline, report, results
from fkp.__main__ import annotated_names, main
from fkp.faces import Faces
from fkp.networks import export
from tests import tiny
from tests.full_disk import full_disk
from tests.loopback_hub import Client, LoopbackHub

Captured = pytest.CaptureFixture[str]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of small untrained networks; the detector's threshold is so high that it finds nothing."""
    folder = tmp_path_factory.mktemp("model")
    weights = tiny.weights(faces=replace(tiny.FACES, min_score=1.0))
    tensors = dict(weights.keypoint_tensors)
    # Sure of every point, so that no face is dropped.
    tensors |= {"spreads.weight": tensors["spreads.weight"] * 0, "spreads.bias": np.full(68, -12, np.float16)}
    hub.save(folder, replace(weights, keypoint_tensors=tensors), graphs=False)
    return str(folder)


@pytest.fixture
def sees_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the picture: two faces, the smaller one first."""
    boxes = np.array([[10, 10, 20, 25], [20, 10, 60, 70]], np.float32)
    scores = np.array([0.9, 0.6], np.float32)

    def find(self, image, *, min_score=None):
        keep = scores >= (0 if min_score is None else min_score)
        return boxes[keep], scores[keep]

    monkeypatch.setattr(detector.Detector, "__call__", find)
    monkeypatch.setattr(pipeline, "NO_FACE", 0.0)  # the untrained network is sure of nothing


@pytest.fixture
def picture(tmp_path: Path) -> str:
    path = tmp_path / "picture.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (80, 90, 3), np.uint8)).save(path)
    return str(path)


def failing(capsys: Captured, *arguments: object) -> str:
    """The one sentence of a command that fails and says nothing else."""
    assert main([str(a) for a in arguments]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("fkp: ") and err.count("\n") == 1, (out, err)
    return err[5:-1]


# --- predict --------------------------------------------------------------------------------------------


def test_usage_without_a_command_or_picture(capsys: Captured) -> None:
    predict = ["predict", "a.jpg"]
    for arguments in ([], ["predict"], [*predict, "--min-score", "2"], [*predict, "--max-faces", "0"]):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 2
    assert "'0' is not a whole number from 1" in capsys.readouterr().err


def test_version(capsys: Captured) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--version"])
    assert caught.value.code == 0 and capsys.readouterr().out == f"fkp {__version__}\n"


def test_predict_no_face(model: str, picture: str, capsys: Captured, tmp_path: Path) -> None:
    assert main(["predict", picture, "--model", model, "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"image": picture, "width": 90, "height": 80, "faces": []}]
    assert main(["predict", picture, "--model", model]) == 0
    assert capsys.readouterr().out == f"{picture}: no faces\n"
    assert main(["predict", picture, "--model", model, "--csv", str(tmp_path / "a.csv")]) == 0
    assert len((tmp_path / "a.csv").read_text().splitlines()) == 1


@pytest.mark.usefixtures("sees_two")
def test_predict_everything(model: str, picture: str, capsys: Captured, tmp_path: Path) -> None:
    out = tmp_path / "new" / "folder"
    files = ["--csv", str(tmp_path / "a.csv"), "--out", str(out)]
    assert main(["predict", picture, "--model", model, "--json", "-", *files]) == 0
    stdout, stderr = capsys.readouterr()
    (record,) = json.loads(stdout)
    assert stderr == ""
    assert [face["box"] for face in record["faces"]] == [[20, 10, 60, 70], [10, 10, 20, 25]]  # larger first
    assert [face["score"] for face in record["faces"]] == [0.6, 0.9]
    assert np.shape([face["keypoints"] for face in record["faces"]]) == (2, 68, 2)
    assert np.shape([face["keypoint_scores"] for face in record["faces"]]) == (2, 68)
    with (tmp_path / "a.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(rows[1][f"s{i}"]) for i in range(68)] == record["faces"][1]["keypoint_scores"]
    (annotated,) = out.iterdir()
    assert annotated.name == "picture_keypoints.png"
    with Image.open(annotated) as drawn, Image.open(picture) as original:
        assert drawn.format == "PNG" and drawn.size == original.size
        assert np.any(np.asarray(drawn) != np.asarray(original))

    assert main(["predict", picture, "--model", model, "--json", str(tmp_path / "a.json")]) == 0
    assert json.loads((tmp_path / "a.json").read_text()) == [record]
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("sees_two")
def test_predict_options_and_words(model: str, picture: str, capsys: Captured) -> None:
    assert main(["predict", picture, "--model", model, "--max-faces", "1"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{picture}: 1 face" and lines[1].startswith("  x 20..60, y 10..70: score 0.60, ")
    assert main(["predict", picture, "--model", model, "--min-score", "0.7", "--json", "-"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert [face["score"] for face in record["faces"]] == [0.9]


@pytest.mark.usefixtures("sees_two")
def test_predict_says_what_ran(model: str, picture: str, capsys: Captured) -> None:
    assert main(["predict", picture, "--model", model, "--json", "-", "--verbose"]) == 0
    stdout, stderr = capsys.readouterr()
    assert len(json.loads(stdout)[0]["faces"]) == 2
    weights, keypoints, faces, timed = stderr.splitlines()
    assert weights == f"fkp: weights from {model}"
    runs = rf"torch {re.escape(torch.__version__)}, \d+ threads?"
    assert re.fullmatch(f"fkp: keypoints on {runs}", keypoints)
    assert re.fullmatch(f"fkp: faces by fkp, on {runs}", faces)
    assert re.fullmatch(rf"fkp: {re.escape(picture)}: 2 faces, \d+\.\d ms", timed)


def test_predict_and_evaluate_take_the_models_options(
    model: str, labelled: tuple[str, str], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[pipeline.FaceKeypoints] = []
    original = pipeline.FaceKeypoints.from_pretrained.__func__

    def from_pretrained(cls, *arguments, **options):
        made.append(original(cls, *arguments, **options))
        return made[-1]

    monkeypatch.setattr(pipeline.FaceKeypoints, "from_pretrained", classmethod(from_pretrained))
    labels, folder = labelled
    for command in (["predict", f"{folder}/two.png"], ["evaluate", "--csv", labels, "--images", folder]):
        command += ["--model", model]
        assert main([*command, "--backend", "torch", "--mirrored", "--passes", "2"]) == 0
        assert main(command) == 0
        first, second = made[-2:]
        assert (first.backend, first.mirrored, first.passes) == ("torch", True, 2)
        assert (second.mirrored, second.passes) == (False, "auto")
        capsys.readouterr()
        assert "no graph for onnxruntime" in failing(capsys, *command, "--backend", "onnxruntime")
        assert "there is no backend 'tpu'" in failing(capsys, *command, "--backend", "tpu")
        with pytest.raises(SystemExit):
            main([*command, "--passes", "3"])
        capsys.readouterr()


def test_detectors(
    model: str,
    labelled: tuple[str, str],
    capsys: Captured,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    labels, folder = labelled
    monkeypatch.setenv("FKP_YUNET", str(tmp_path / "no.onnx"))
    for command in (["predict", f"{folder}/two.png"], ["evaluate", "--csv", labels, "--images", folder]):
        command += ["--model", model, "--detector"]
        assert main([*command, "fkp"]) == main([*command, "whole"]) == 0
        capsys.readouterr()
        assert failing(capsys, *command, "yunet").startswith(f"YuNet's file {tmp_path / 'no.onnx'} cannot be")
        with pytest.raises(SystemExit) as caught:
            main([*command, "dlib"])
        assert caught.value.code == 2 and "invalid choice: 'dlib'" in capsys.readouterr().err


def test_predict_a_picture_that_is_one_face(model: str, picture: str, capsys: Captured) -> None:
    """The model of this module finds no face anywhere; here it is told that there is one."""
    predict = ["predict", picture, "--model", model, "--json", "-", "--verbose", "--detector"]
    assert main([*predict, "whole"]) == 0
    stdout, stderr = capsys.readouterr()
    (record,) = json.loads(stdout)
    assert [face["score"] for face in record["faces"]] == [1]
    assert re.search("fkp: faces by .*every picture is one face\n", stderr)
    assert main([*predict, "fkp"]) == 0
    stdout, stderr = capsys.readouterr()
    assert json.loads(stdout)[0]["faces"] == [] and "fkp: faces by fkp, on torch " in stderr


def test_predict_goes_on_after_what_is_no_picture(
    model: str, picture: str, capsys: Captured, tmp_path: Path
) -> None:
    text, missing = tmp_path / "notes.txt", tmp_path / "missing.jpg"
    text.write_text("no picture")
    pictures = [str(missing), picture, str(text)]
    assert main(["predict", *pictures, "--model", model, "--json", "-"]) == 1
    stdout, stderr = capsys.readouterr()
    assert [record["image"] for record in json.loads(stdout)] == [picture]
    assert f"fkp: {missing}: there is no such file\n" in stderr
    assert f"fkp: {text}: is no picture" in stderr and "Traceback" not in stderr
    assert main(["predict", str(missing), "--model", model, "--json", "-"]) == 1
    assert json.loads(capsys.readouterr().out) == []


def test_predict_what_cannot_be(model: str, picture: str, capsys: Captured, tmp_path: Path) -> None:
    assert "'a/b/c' is neither a folder here" in failing(capsys, "predict", picture, "--model", "a/b/c")
    assert "config.json does not exist" in failing(capsys, "predict", picture, "--model", tmp_path)
    predict = ["predict", picture, "--model", model]
    nowhere = tmp_path / "no" / "a.json"
    for option, place in (("--json", nowhere), ("--csv", nowhere), ("--csv", tmp_path)):
        message = failing(capsys, *predict, option, place)
        assert message.startswith(f"{place}: ") and "written" in message
    assert "--csv needs a file's name" in failing(capsys, *predict, "--csv", "-")
    assert "File exists" in failing(capsys, *predict, "--out", picture)


def test_same_named_pictures_are_all_kept(model: str, tmp_path: Path) -> None:
    def colour(path: Path) -> int:
        with Image.open(path) as opened:
            return int(np.unique(opened).item())

    colours = {"a/x.jpg": 0, "b/x.jpg": 100, "b/x.png": 200, "b/x_keypoints.png": 50, "b/X.bmp": 9}
    pictures = {tmp_path / name: value for name, value in colours.items()}
    for path, value in pictures.items():
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (value,) * 3).save(path)
    assert main(["predict", *map(str, pictures), "--model", model, "--out", str(tmp_path / "b")]) == 0
    assert {path: colour(path) for path in pictures} == pictures  # as they were
    written = set((tmp_path / "b").iterdir()) - set(pictures)
    assert sorted(map(colour, written)) == sorted(colours.values())


def test_annotated_names() -> None:
    assert annotated_names([]) == {}
    assert annotated_names(["a.jpg", "a.jpg"]) == {"a.jpg": "a_keypoints.png"}
    names = annotated_names(["a/x.jpg", "b/x.jpg", "X.gif", "x_keypoints_2.png"])
    assert list(names.values()) == [
        "x_keypoints.png", "x_keypoints_3.png", "X_keypoints_4.png", "x_keypoints_2_keypoints.png",
    ]  # fmt: skip


# --- evaluate -------------------------------------------------------------------------------------------


@pytest.fixture
def labelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """A CSV of four faces on three pictures, and a model that knows where they are.

    It places every point 3 pixels to the right, on the jaw 5; inter-ocular is 50. At detected boxes it finds
    the first two faces, on one picture, in swapped order, and a third far from its label; none on the last.
    """
    angle = np.linspace(0, 2 * np.pi, 68, endpoint=False)
    circle = 50 + 40 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    circle[36], circle[45] = (25, 50), (75, 50)
    faces = [circle, circle + (100, 0), circle, circle + (5, 5)]
    names = ["two.png", "two.png", "far.png", "none.png"]
    for name, colour in {"two.png": "red", "far.png": "lime", "none.png": "blue"}.items():
        Image.new("RGB", (200, 110), colour).save(tmp_path / name)
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["", *range(136)])
        writer.writerows([name, *face.ravel()] for name, face in zip(names, faces, strict=True))

    off = np.zeros((68, 2), np.float32)
    off[:, 0], off[:17, 0] = 3, 5

    def at(boxes: list[np.ndarray]) -> Faces:
        n = len(boxes)
        boxes = np.reshape(boxes, (n, 4))
        points = circle - circle.min(axis=0) + boxes[:, None, :2] + off
        return Faces(boxes, np.ones(n), points, np.ones((n, 68)))

    def call(self, image, **_):
        colour = tuple(int(v) for v in image[0, 0])
        box = np.concatenate([circle.min(0), circle.max(0)])
        return at({
            (255, 0, 0): [box + (100, 0, 100, 0), box],
            (0, 255, 0): [box + (60, 0, 60, 0)],
            (0, 0, 255): [],
        }[colour])  # fmt: skip

    monkeypatch.setattr(pipeline.FaceKeypoints, "__call__", call)
    monkeypatch.setattr(pipeline.FaceKeypoints, "keypoints_at", lambda self, image, boxes: at(list(boxes)))
    return str(tmp_path / "labels.csv"), str(tmp_path)


def test_evaluate(model: str, labelled: tuple[str, str], capsys: Captured, tmp_path: Path) -> None:
    labels, folder = labelled
    evaluate = ["evaluate", "--csv", labels, "--images", folder, "--model", model]
    assert main([*evaluate, "--json", "-"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert list(figures) == ["n", "missed", "nme", "nme_inner", "nme_box", "median", "fr8", "fr10", "auc8"]
    nme = (51 * 6 + 17 * 10) / 68
    assert figures["n"] == 4 and figures["missed"] == 0
    assert figures["nme"] == figures["median"] == pytest.approx(nme, abs=1e-3)
    assert figures["nme_inner"] == pytest.approx(6, abs=1e-3)
    assert figures["fr8"] == figures["fr10"] == 0

    assert main([*evaluate, "--boxes", "detected", "--json", str(tmp_path / "figures.json")]) == 0
    detected = json.loads((tmp_path / "figures.json").read_text())
    assert detected["missed"] == 2 and detected["nme"] == figures["nme"] and detected["fr8"] == 50
    assert detected["auc8"] == pytest.approx(figures["auc8"] / 2, abs=1e-2)
    assert f"NME {figures['nme']} over the labelled points, 6.0 over" in capsys.readouterr().out


def test_evaluate_when_all_are_missed(
    model: str, labelled: tuple[str, str], capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.FaceKeypoints, "__call__", lambda self, image: Faces.none())
    labels, folder = labelled
    detected = ["evaluate", "--csv", labels, "--images", folder, "--model", model, "--boxes", "detected"]
    assert main([*detected, "--json", "-"]) == 0
    figures = json.loads(capsys.readouterr().out)
    assert (figures["missed"], figures["nme"], figures["fr8"], figures["auc8"]) == (4, None, 100, 0)
    assert main(detected) == 0
    assert "missed 4\nNME - over" in capsys.readouterr().out


def test_evaluate_what_cannot_be(
    model: str, labelled: tuple[str, str], capsys: Captured, tmp_path: Path
) -> None:
    labels, folder = labelled
    evaluate = ["evaluate", "--model", model, "--images", folder, "--csv"]
    assert "no.csv: there is no such file" in failing(capsys, *evaluate, tmp_path / "no.csv")
    (tmp_path / "far.png").write_bytes((tmp_path / "far.png").read_bytes()[:60])
    assert "far.png" in failing(capsys, *evaluate, labels)
    header = "," + ",".join(map(str, range(136))) + "\n"
    (tmp_path / "none.csv").write_text(header)
    assert "none.csv: it holds no face" in failing(capsys, *evaluate, tmp_path / "none.csv")
    (tmp_path / "line.csv").write_text(f"{header}two.png" + ",5" * 136 + "\n")
    assert "two.png" in failing(capsys, *evaluate, tmp_path / "line.csv")


# --- push, export, and the program as users start it ------------------------------------------------------


def test_push_in_no_way_that_could_work(
    model: str, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    for options in ((), ("--dry-run",)):
        assert "'faces' is no Hub id" in failing(capsys, "push", "faces", "--model", model, *options)
    assert "cannot be pushed without a token" in failing(capsys, "push", "someone/faces", "--model", model)
    (tmp_path / "mine.txt").touch()
    for out in (tmp_path, tmp_path / "mine.txt"):
        message = failing(capsys, "push", "someone/faces", "--model", model, "--dry-run", "--out", out)
        assert str(out) in message and "already" in message


def test_push_shows_what_would_go_up(
    model: str, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a token and without a network."""

    def refuse(*_: object) -> None:
        raise AssertionError("a connection")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(export, "is_possible", lambda: False)
    folder = tmp_path / "new" / "folder"
    assert main(["push", "someone/faces", "--model", model, "--dry-run", "--out", str(folder)]) == 0
    *lines, total = capsys.readouterr().out.splitlines()
    shown = {name: int(size) for size, name in map(str.split, lines)}
    written = {p.relative_to(folder).as_posix(): p.stat().st_size for p in folder.rglob("*") if p.is_file()}
    assert shown == written and {"README.md", "config.json", "card/points.png"} < shown.keys()
    assert total.split() == [str(sum(shown.values())), "bytes", "in", str(len(shown)), "files"]
    assert 'from_pretrained("someone/faces")' in (folder / "README.md").read_text()
    assert main(["push", "someone/faces", "--model", model, "--dry-run"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == total


@pytest.mark.slow
def test_push(model: str, tmp_path: Path) -> None:
    """What went up, and where it is now; by a process that has the token, and a Hub on loopback."""
    code = f"""
from fkp import __main__
from fkp.networks import export, face_net, keypoint_net
export.is_possible = lambda: False  # graphs take seconds
assert __main__.main(["push", "someone/faces", "--model", {model!r}, "--private"]) == 0
"""
    with LoopbackHub() as server, Client(server.url, tmp_path, HF_TOKEN="hf_secret") as client:
        *lines, _, url = client(code)
        repository = server.repositories["someone/faces"]
    assert url == f"{server.url}/someone/faces/commit/{repository.commits[-1].sha}" and repository.private
    assert {line.split()[1] for line in lines} == repository.commits[-1].files.keys() - {".gitattributes"}


def test_a_picture_that_breaks_off(capsys: Captured, model: str, picture: str, tmp_path: Path) -> None:
    """What is there is used, and both outputs say that it is not all."""
    part = tmp_path / "part.png"
    part.write_bytes(Path(picture).read_bytes()[:-40])
    assert main(["predict", str(part), picture, "--model", model, "--json", "-"]) == 0
    printed, told = capsys.readouterr()
    assert [record.get("incomplete") for record in json.loads(printed)] == [True, None]
    assert f"fkp: {part}: is damaged or incomplete" in told and told.count("incomplete") == 1


def test_a_warning_is_a_sentence(capsys: Captured, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    def find(*_: object, **__: object) -> Path:
        warnings.warn("the Hub cannot be reached", stacklevel=2)
        return Path(model)

    monkeypatch.setattr(hub.weights, "find", find)
    monkeypatch.setattr(export, "is_possible", lambda: False)
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert main(["push", "someone/faces", "--dry-run"]) == 0
    assert capsys.readouterr().err == "fkp: the Hub cannot be reached\n"


def test_export_without_onnx(
    model: str, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    message = failing(capsys, "export", tmp_path / "a.onnx", "--model", model)
    assert "onnxscript" in message and 'pip install "fkp[export]"' in message
    nowhere = tmp_path / "no" / "a.onnx"
    assert "no file can be written there" in failing(capsys, "export", nowhere, "--model", model)


def test_export_to_a_name_that_is_none(model: str, capsys: Captured, tmp_path: Path) -> None:
    """Nor to the one that the other of the two files has: `fkp export k.onnx` would lose it."""
    for name in ("-", ".", tmp_path / "k.int8.onnx", tmp_path / "k.INT8.onnx"):
        assert str(name) in failing(capsys, "export", name, "--model", model)
    assert not list(tmp_path.iterdir()) and not Path("-").exists()


def test_export_to_a_full_disk(
    model: str, capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is left that would be in the way of the same command."""
    graph = SimpleNamespace(graph=SimpleNamespace(value_info=[]), SerializeToString=lambda: bytes(10_000))
    monkeypatch.setattr(export, "keypoints_model", lambda *_, **__: graph)
    with full_disk(1000):
        message = failing(capsys, "export", tmp_path / "a.onnx", "--model", model)
    assert message.startswith(f"{tmp_path / 'a.onnx'}: ") and not list(tmp_path.iterdir())


def test_a_static_space_has_no_hardware(capsys: Captured) -> None:
    pytest.importorskip("gradio")
    message = failing(capsys, "space", "a/b", "--static", "--hardware", "cpu-basic", "--dry-run")
    assert "--hardware" in message


def test_a_space_without_the_demo_says_what_to_install(
    capsys: Captured, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in sys.modules if name.startswith("fkp.demo")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "gradio", None)
    message = failing(capsys, "space", "someone/faces", "--dry-run")
    assert "gradio" in message and 'pip install "fkp[demo]"' in message


@pytest.mark.slow
def test_stdout_is_json_and_stderr_one_sentence(model: str, picture: str) -> None:
    """A real process: no torch before the command line is understood, and no traceback when a pipe breaks."""
    options = {"cwd": Path(__file__).parents[1], "capture_output": True, "text": True, "timeout": 300}
    code = (
        "import sys; from fkp.__main__ import main\n"
        "try: main(['--help'])\nexcept SystemExit: print('torch' in sys.modules)"
    )
    helped = subprocess.run([sys.executable, "-c", code], **options)
    assert helped.stdout.splitlines()[-1] == "False", helped.stderr
    command = [sys.executable, "-m", "fkp", "predict", picture, "no.jpg", "--model", model, "--json", "-"]
    done = subprocess.run(command, **options)
    assert done.returncode == 1
    assert [record["image"] for record in json.loads(done.stdout)] == [picture]
    (told,) = done.stderr.splitlines()
    assert "no.jpg" in told and "no such file" in told


def test_a_broken_pipe_ends_quietly(monkeypatch: pytest.MonkeyPatch, model: str, picture: str) -> None:
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        assert main(["predict", picture, "--model", model, "--json", "-"]) == 1


@pytest.mark.skipif(sys.platform == "win32", reason="names there are text")
def test_names_that_are_no_text_or_commands_to_a_terminal(
    model: str, tmp_path: Path, capsys: Captured
) -> None:
    for name in (b"\xff.png", b"\x1b]0;owned\x07.png", "\u5199\u771f.png".encode()):
        path = os.path.join(os.fsencode(tmp_path), name)
        with open(path, "wb") as file:
            Image.new("RGB", (20, 20)).save(file, "PNG")
        assert main(["predict", os.fsdecode(path), os.fsdecode(path) + ".gone", "--model", model]) == 1
        out, err = capsys.readouterr()
        for said in (out, err):
            assert said.count("\n") == 1 and ".png" in said
            assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in said.replace("\n", ""))


@pytest.mark.slow
@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "cp1252"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_a_stdout_that_cannot_show_a_name(model: str, tmp_path: Path, environment: dict[str, str]) -> None:
    """https://github.com/xinjli/allosaurus/issues/73 and its kin."""
    picture = tmp_path / "\u5199\u771f.png"
    Image.new("RGB", (20, 20)).save(picture)
    done = subprocess.run(
        [sys.executable, "-m", "fkp", "predict", picture, tmp_path / "\u5199.png", "--model", model],
        cwd=Path(__file__).parents[1], capture_output=True, timeout=300, env=os.environ | environment,
    )  # fmt: skip
    assert done.returncode == 1 and b": no faces" in done.stdout
    assert b"Traceback" not in done.stderr and b"no such file" in done.stderr


# --- Nothing of a user's is lost --------------------------------------------------------------------------


def test_overwriting_what_is_not_ours_is_refused(
    model: str, labelled: tuple[str, str], capsys: Captured, tmp_path: Path
) -> None:
    """https://github.com/mipops/dvrescue/issues/559: an option ate the first of the inputs."""
    labels, folder = labelled
    picture, photo = f"{folder}/two.png", tmp_path / "photo.png"
    Image.new("RGB", (20, 20)).save(photo)
    notes, linked = tmp_path / "notes.csv", tmp_path / "linked.json"
    notes.write_text("my,notes\n")
    linked.symlink_to(picture)
    before = {path: path.read_bytes() for path in (photo, notes, Path(labels), Path(picture))}
    predict = ["predict", picture, "--model", model]
    evaluate = ["evaluate", "--csv", labels, "--images", folder, "--model", model]
    for command, target in (
        ([*predict, "--json", photo], photo),
        ([*predict, "--csv", notes], notes),
        ([*predict, "--json", picture], picture),
        ([*predict, "--json", picture, "--force"], picture),
        ([*predict, "--json", linked], linked),
        ([*predict, "--json", tmp_path / "a", "--csv", tmp_path / "." / "a"], tmp_path / "a"),
        ([*evaluate, "--json", labels], labels),
        ([*evaluate, "--json", labels, "--force"], labels),
        ([*evaluate, "--json", notes], notes),
        (["export", notes, "--model", model], notes),
        (["video", photo, "--json", notes], notes),
        (["video", notes, "--csv", notes, "--force"], notes),
    ):
        assert str(target) in failing(capsys, *command)
    (tmp_path / "out").mkdir()
    drawn = tmp_path / "out" / "two_keypoints.png"
    Image.new("RGB", (20, 20)).save(drawn)
    assert str(drawn) in failing(capsys, *predict, "--out", tmp_path / "out")
    assert {path: path.read_bytes() for path in before} == before
    assert not list(tmp_path.rglob("*.part"))
    # By those who say so, and what fkp has written itself.
    assert main([*predict, "--out", str(tmp_path / "out"), "--json", str(notes), "--force"]) == 0
    assert main([*predict, "--out", str(tmp_path / "out"), "--json", str(notes)]) == 0
    assert json.loads(notes.read_text())[0]["image"] == picture


@pytest.fixture
def many(tmp_path: Path) -> list[str]:
    paths = [str(tmp_path / f"{'=' if i == 3 else ''}{i}.png") for i in range(6)]
    for path in paths:
        Image.new("RGB", (90, 80)).save(path)
    return paths


@pytest.mark.usefixtures("sees_two")
@pytest.mark.parametrize("files", [("--json",), ("--csv",), ("--json", "--csv"), ("--out",)])
def test_resume_goes_on_where_a_run_broke_off(
    model: str, many: list[str], files: tuple[str, ...], capsys: Captured, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """https://github.com/MouseLand/cellpose/issues/151: all results gone with the last picture."""
    targets = {name: tmp_path / f"all.{name[2:]}" for name in files}
    options = [str(each) for pair in targets.items() for each in pair]
    command = ["predict", *many, "--model", model, *options]
    seen: list[int] = []
    original = pipeline.FaceKeypoints.__call__

    def call(self, image, **options):
        if len(seen) == 4:
            seen.append(-1)
            raise KeyboardInterrupt
        seen.append(1)
        return original(self, image, **options)

    monkeypatch.setattr(pipeline.FaceKeypoints, "__call__", call)
    assert main(command) == 130
    assert "--resume" in capsys.readouterr().err
    if "--json" in files:
        assert not targets["--json"].exists()
        assert len(json.loads((tmp_path / "all.json.part").read_text())) == 4
    if "--out" not in files:
        assert "--resume" in failing(capsys, *command)
    del seen[:]
    seen.extend([0] * 9)
    assert main([*command, "--resume"]) == 0
    new = seen[9:]
    assert len(new) == 2 + (files == ("--csv",))  # a CSV alone does not say that its last picture is whole
    assert not list(tmp_path.glob("*.part")) and not list(tmp_path.glob("*.before"))
    if "--json" in files:
        assert [each["image"] for each in json.loads(targets["--json"].read_text())] == many
    if "--csv" in files:
        rows = list(csv.reader(targets["--csv"].read_text().splitlines()))[1:]
        wanted = [(report.harmless(path), str(k)) for path in many for k in (1, 2)]
        assert [(row[0], row[3]) for row in rows] == wanted
    if "--out" in files:
        assert len(list(targets["--out"].iterdir())) == 6
    assert main([*command, "--resume"]) == 0  # nothing is left to do, and nothing is lost
    assert len(seen) - 9 - len(new) == (files == ("--csv",))
    if "--json" in files:
        assert [each["image"] for each in json.loads(targets["--json"].read_text())] == many


@pytest.mark.usefixtures("sees_two")
def test_resume_completes_every_file_that_is_asked_for(
    model: str, many: list[str], capsys: Captured, tmp_path: Path
) -> None:
    """Files that the run before has not written, too, and pictures drawn that have gone since."""
    out, numbers, table = tmp_path / "out", tmp_path / "a.json", tmp_path / "a.csv"
    predict = ["predict", "--model", model, "--json", str(numbers)]
    assert main([*predict, *many[:2]]) == 0
    numbers.write_text(json.dumps(json.loads(numbers.read_text())))  # as other programs write it: one line
    assert main([*predict, "--csv", str(table), "--out", str(out), "--resume", *many]) == 0
    assert [each["image"] for each in json.loads(numbers.read_text())] == many
    with table.open(newline="") as file:
        assert len(list(csv.reader(file))) == 1 + 2 * len(many)
    assert len(list(out.iterdir())) == len(many)
    before = numbers.read_text()
    (out / "1_keypoints.png").unlink()
    assert main([*predict, "--out", str(out), "--resume", *many]) == 0
    assert numbers.read_text() == before and len(list(out.iterdir())) == len(many)
    numbers.write_text(before.replace("number", 'num"ber', 1))
    assert "a.json: cannot be gone on with" in failing(capsys, *predict, "--resume", *many)
    numbers.unlink()
    said = failing(capsys, *predict, "--csv", table, "--resume", *many)
    assert "a.csv: holds pictures that" in said and table.exists()


@pytest.mark.usefixtures("sees_two")
@pytest.mark.parametrize("numbers", [False, True])
def test_resume_draws_anew_what_shows_another_picture(model: str, tmp_path: Path, numbers: bool) -> None:
    """Pictures of one name are numbered by their order, which another one before them changes."""
    pictures = []
    for grey in (60, 120, 180):
        (tmp_path / str(grey)).mkdir()
        pictures.append(str(tmp_path / str(grey) / "a.png"))
        Image.new("RGB", (40, 30), (grey,) * 3).save(pictures[-1])
    out = tmp_path / "out"
    command = ["predict", "--model", model, "--out", str(out)]
    command += ["--json", str(tmp_path / "a.json")] if numbers else []
    assert main([*command, *pictures[1:]]) == 0
    assert main([*command, *pictures, "--resume"]) == 0
    drawn = [out / f"a_keypoints{end}.png" for end in ("", "_2", "_3")]
    assert [int(images.read(path)[-1, -1, 0]) for path in drawn] == [60, 120, 180]
    before = [path.stat().st_mtime_ns for path in drawn]
    assert main([*command, *pictures, "--resume"]) == 0
    assert before == [path.stat().st_mtime_ns for path in drawn], "nothing is left to do"


@pytest.mark.usefixtures("sees_two")
def test_what_another_run_is_writing_stays_its_own(
    model: str, many: list[str], capsys: Captured, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"
    with outputs.replacing(path) as file:
        file.write("[")
        said = failing(capsys, "predict", *many, "--model", model, "--json", path, "--resume", "--force")
        assert "a.json.part: another run is writing it" in said
        with pytest.raises(outputs.OutputError, match="a.json.part: another run"):
            results.Results(path, None)  # which began at the same moment
        with pytest.raises(outputs.OutputError, match="a.json.part: another run"), outputs.replacing(path):
            pass
    assert path.read_text() == "["


@pytest.mark.skipif(not os.path.exists("/proc/self/fd/1"), reason="no such file here")
def test_standard_output_by_its_path(model: str, picture: str, tmp_path: Path) -> None:
    """Also by a link of one's own, which stays one; closed, it is a sentence."""
    link = tmp_path / "stdout"
    link.symlink_to("/proc/self/fd/1")
    command = [sys.executable, "-m", "fkp", "predict", picture, "--model", model]
    for path in (link, "/dev/stdout"):
        got = subprocess.run([*command, "--csv", str(path)], capture_output=True, text=True, check=True)
        assert got.stdout.startswith("image,width,height,face") and link.is_symlink()
    closed = [shlex.join([*command, "--json", "-"]) + " >&-"]
    got = subprocess.run(closed, shell=True, stderr=subprocess.PIPE, text=True, check=False)
    assert got.returncode == 1 and got.stderr == (
        "fkp: standard output is closed, so nothing can be written there\n"
    )


def test_a_closed_stdout_before_the_work(
    model: str, labelled: tuple[str, str], capsys: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where something would go there."""
    labels, folder = labelled
    predict = ["predict", f"{folder}/two.png", "--model", model]
    evaluate = ["evaluate", "--csv", labels, "--images", folder, "--model", model]
    monkeypatch.setattr(sys, "stdout", None)
    assert main([*predict, "--json", str(tmp_path / "a.json")]) == 0
    assert main([*evaluate, "--json", str(tmp_path / "b.json")]) == 0
    assert json.loads((tmp_path / "b.json").read_text())["n"] == 4
    monkeypatch.setattr(pipeline.FaceKeypoints, "from_pretrained", None)
    for command in (predict, evaluate, ["push", "a/b", "--dry-run"], ["space", "a/b", "--dry-run"]):
        assert "standard output is closed" in failing(capsys, *command)


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_a_closed_stderr_leaves_stdout_alone(model: str, picture: str) -> None:
    command = [sys.executable, "-m", "fkp", "predict", picture, "no.jpg", picture, "--model", model]
    closed = shlex.join([*command, "--json", "-", "--verbose"]) + " 2>&-"
    got = subprocess.run(closed, shell=True, stdout=subprocess.PIPE, text=True, timeout=300)
    assert got.returncode == 1 and [each["image"] for each in json.loads(got.stdout)] == [picture] * 2


@pytest.mark.usefixtures("sees_two")
def test_a_name_too_long_for_its_picture(model: str, tmp_path: Path) -> None:
    long = tmp_path / ("\u5199" * 83 + ".png")  # 253 bytes, of the 255 that there are
    Image.new("RGB", (90, 80)).save(long)
    assert main(["predict", str(long), "--model", model, "--out", str(tmp_path / "out")]) == 0
    (drawn,) = (tmp_path / "out").iterdir()
    assert drawn.name.endswith("_keypoints.png")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no such device here")
def test_a_full_disk_names_the_file(
    model: str, picture: str, capsys: Captured, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    predict = ["predict", picture, "--model", model]
    assert "/dev/full: No space left" in failing(capsys, *predict, "--json", "/dev/full")
    for options in ([], ["--json", "-"]):
        with open("/dev/full", "w") as full, monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", full)
            assert "standard output: No space left" in failing(capsys, *predict, *options)


def test_label_style_reaches_the_network(picture: str, capsys: Captured, model: str) -> None:
    def keypoints(*options: str) -> list:
        command = ["predict", picture, "--model", model, "--detector", "whole", "--json", "-"]
        assert main([*command, *options]) == 0
        (record,) = json.loads(capsys.readouterr().out)
        return record["faces"][0]["keypoints"]

    styles = [keypoints(), keypoints("--label-style", "300w"), keypoints("--label-style", "ytf")]
    assert styles[0] != styles[1] != styles[2] != styles[0]
    with pytest.raises(SystemExit):
        main(["predict", picture, "--label-style", "other"])
    assert "--label-style" in capsys.readouterr().err
