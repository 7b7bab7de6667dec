import csv
import json
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch

import train
from fkp import FaceKeypoints, __version__, hub
from fkp.config import DetectorConfig, KeypointConfig
from fkp.networks import export, face_net, keypoint_net
from fkp.training import distillation, face_task, keypoint_task
from fkp.training.run_folder import KEYS, CheckpointError, RunFolder
from tests import synthetic
from tests.loopback_hub import Client, LoopbackHub

EPOCHS = 2


def untrained(seed: int) -> hub.Weights:
    """Of networks as they are trained."""
    torch.manual_seed(seed)
    networks = keypoint_net.build(KeypointConfig()), face_net.DetectorNetwork(DetectorConfig())
    return hub.Weights.of(networks[0], DetectorConfig(), networks[1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A data folder, and in `other` a model to take the detector from."""
    folder = synthetic.data_folder(tmp_path_factory.mktemp("data"), faces=8)
    hub.save(folder / "other", untrained(0), graphs=False)
    return folder


@pytest.fixture(autouse=True)
def no_graphs(request, monkeypatch):
    """Graphs take ten seconds a model: one test has them written."""
    if "writes_graphs" not in request.keywords:
        monkeypatch.setattr(export, "is_possible", lambda: False)


def command(folder: Path, runs: Path, *more: str, what: str = "keypoints") -> list[str]:
    return [
        what, "--data", str(folder), "--other", str(folder / "other"), "--runs", str(runs),
        "--epochs", str(EPOCHS), "--batch-size", "8", "--device", "cpu", "--threads", "1", *more,
    ]  # fmt: skip


def steps_per_epoch(folder: Path) -> int:
    config = KeypointConfig()
    faces = keypoint_task.read_faces(folder, config)
    return keypoint_task.KeypointTask(faces, config, batch_size=8).steps_per_epoch


def checkpoint(runs: Path, what: str = "keypoints") -> dict:
    return torch.load(runs / what / "checkpoint.pt", weights_only=True)


def assert_equal(one, other, where="checkpoint"):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for i, (a, b) in enumerate(zip(one, other, strict=True)):
            assert_equal(a, b, f"{where}[{i}]")
    else:
        assert one == other, where


def assert_same_arrays(one, other):
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype and np.array_equal(array, other[name]), name


@pytest.mark.parametrize(
    "what, task, options",
    [
        ("keypoints", keypoint_task.KeypointTask, ()),
        ("keypoints", keypoint_task.KeypointTask, ("--architecture", "baseline")),  # its dropout draws
        ("faces", face_task.FaceTask, ()),
    ],
)
@pytest.mark.slow
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    folder, tmp_path, monkeypatch, capsys, what, task, options
):
    assert train.main(command(folder, tmp_path / "whole", *options, what=what)) == 0
    steps = checkpoint(tmp_path / "whole", what)["step"]
    assert steps >= 2 * EPOCHS

    loss, calls = task.loss, []

    def interrupted(*inputs):
        calls.append(None)
        if len(calls) == steps // 2:  # Ctrl-C in the middle of a step
            os.kill(os.getpid(), signal.SIGINT)
        return loss(*inputs)

    monkeypatch.setattr(task, "loss", interrupted)
    assert train.main(command(folder, tmp_path / "parts", *options, what=what)) == 130
    assert "--resume" in capsys.readouterr().out
    assert checkpoint(tmp_path / "parts", what)["step"] == steps // 2
    assert train.main(command(folder, tmp_path / "parts", *options, "--resume", what=what)) == 0
    whole, parts = (checkpoint(tmp_path / name, what) for name in ("whole", "parts"))
    whole["settings"].pop("runs"), parts["settings"].pop("runs")
    assert_equal(whole, parts)


@pytest.mark.slow
def test_a_loss_that_is_not_finite_ends_the_run_and_the_last_checkpoint_stays_good(
    folder, tmp_path, monkeypatch, capsys
):
    loss, calls = keypoint_task.KeypointTask.loss, []
    steps = steps_per_epoch(folder)

    def broken(*inputs):
        calls.append(None)
        value, parts = loss(*inputs)
        return value * (math.nan if len(calls) == steps + 2 else 1), parts

    monkeypatch.setattr(keypoint_task.KeypointTask, "loss", broken)
    assert train.main(command(folder, tmp_path)) == 1
    error = capsys.readouterr().err
    assert f"the loss of step {steps + 2} is not finite" in error and "checkpoint.pt is of before" in error
    kept = checkpoint(tmp_path)
    assert kept["step"] == steps and all(tensor.isfinite().all() for tensor in kept["model"].values())
    monkeypatch.undo()
    monkeypatch.setattr(export, "is_possible", lambda: False)
    assert train.main(command(folder, tmp_path, "--resume")) == 0


@pytest.mark.slow
def test_a_rate_that_is_far_too_high_ends_in_a_sentence(folder, tmp_path, capsys):
    assert train.main(command(folder, tmp_path, "--lr", "1e30", "--muon-lr", "1e30")) == 1
    assert "is not finite; nothing was saved yet. lower --lr" in capsys.readouterr().err


@pytest.mark.slow
def test_labels_that_have_changed_since_the_checkpoint_are_told(folder, tmp_path, monkeypatch, capsys):
    data = shutil.copytree(folder, tmp_path / "data")

    def interrupted(*inputs):
        os.kill(os.getpid(), signal.SIGINT)
        return loss(*inputs)

    loss = keypoint_task.KeypointTask.loss
    monkeypatch.setattr(keypoint_task.KeypointTask, "loss", interrupted)
    assert train.main(command(data, tmp_path)) == 130
    labels = data / "ytf/training_frames_keypoints.csv"
    labels.write_text("\n".join(labels.read_text().splitlines()[:-1]) + "\n")
    assert train.main(command(data, tmp_path, "--resume")) == 1
    assert "have changed since" in capsys.readouterr().err


@pytest.mark.writes_graphs
@pytest.mark.slow
def test_a_run_leaves_log_curve_preview_and_a_model_that_loads(folder, tmp_path):
    assert train.main(command(folder, tmp_path)) == 0
    run = tmp_path / "keypoints"
    with open(run / "log.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"] and float(rows[1]["val_nme"]) > 0
    for name in ("curve.png", "preview.png"):
        assert (run / name).read_bytes().startswith(b"\x89PNG")
    model = FaceKeypoints.from_pretrained(run / "model")
    assert model.backend in ("onnxruntime", "onnxruntime-int8")  # the run wrote graphs
    assert model.metrics["validation"]["keypoints"]["nme"] > 0
    stored, other = hub.load(run / "model"), hub.load(folder / "other")
    assert_same_arrays(stored.detector_tensors, other.detector_tensors)


@pytest.mark.slow
def test_a_run_without_previews_and_without_faces_in_profile(folder, tmp_path):
    assert train.main(command(folder, tmp_path, "--epochs", "1", "--preview-every", "0")) == 0
    run = tmp_path / "keypoints"
    with open(run / "log.csv") as file:
        (row,) = csv.DictReader(file)
    assert row["val_profile"] == "" and float(row["val_nme"]) > 0
    assert (run / "curve.png").is_file() and not (run / "preview.png").exists()
    metrics = hub.load(run / "model").metrics["validation"]["keypoints"]
    assert metrics["profile"] is None and metrics["nme"] > 0


def test_labels_of_ones_own_that_hold_no_face(folder, tmp_path, capsys):
    labels = tmp_path / "labels.csv"
    labels.write_text("," + ",".join(map(str, range(136))) + "\n")
    others = ["--other", str(folder / "other"), "--runs", str(tmp_path), "--device", "cpu"]
    assert train.main(["keypoints", "--csv", str(labels), "--images", str(tmp_path), *others]) == 1
    assert f"{labels}: holds no face" in capsys.readouterr().err


@pytest.mark.slow
def test_training_faces_keeps_the_other_models_keypoint_network(folder, tmp_path):
    assert train.main(command(folder, tmp_path, what="faces")) == 0
    stored, other = hub.load(tmp_path / "faces" / "model"), hub.load(folder / "other")
    assert_same_arrays(stored.keypoint_tensors, other.keypoint_tensors)
    assert stored.metrics["validation"]["faces"]["ap"] >= 0


@pytest.mark.parametrize("what", ["keypoints", "faces"])
@pytest.mark.slow
def test_a_run_starts_from_the_weights_of_a_model(folder, tmp_path, what):
    options = ("--start", str(folder / "other"), "--lr", "0", "--muon-lr", "0", "--epochs", "1")
    assert train.main(command(folder, tmp_path, *options, what=what)) == 0
    stored, other = (hub.load(place) for place in (tmp_path / what / "model", folder / "other"))
    ours, theirs = (
        dict(weights.module("keypoints" if what == "keypoints" else "detector").named_parameters())
        for weights in (stored, other)
    )
    for name in theirs:  # statistics of normalisation move, weights do not; they are stored in half precision
        assert torch.equal(ours[name], theirs[name]), name


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["faces", "--photos", "."], "--photos needs --yunet for faces"),
        (["keypoints", "--photos", "."], "--teacher for keypoints"),
        (["faces", "--only", "heads", "--yunet", "y"], "--only goes without --yunet"),
        (["keypoints", "--teacher", "a", "b"], "several teachers go with keypoints and --each-view"),
        (["faces", "--teacher", "a", "b", "--each-view"], "several teachers go with keypoints"),
        (["faces", "--epochs", "0"], "--epochs 0 goes with --start"),
        (["faces", "--all-faces"], "--all-faces does nothing with faces"),
        (["faces", "--augmentation", "1", "1", "0"], "--augmentation does nothing with faces"),
        (["keypoints", "--mine", "a"], "--mine does nothing with keypoints"),
        (["keypoints", "--images", "."], "--images does nothing with --data"),
        (["keypoints", "--taught", "0.9"], "--taught does nothing without --teacher"),
        (["keypoints", "--architecture", "baseline", "--blocks", "1", "1", "1"], "--blocks does nothing"),
    ],
)
def test_what_goes_together(arguments, reason, capsys):
    with pytest.raises(SystemExit):
        train.parse([*arguments, "--data", "DATA"])
    assert reason in capsys.readouterr().err


@pytest.mark.parametrize(
    "options, idle",
    [
        ("--align /nonexistent", "--align"),
        ("--mine nobody/nothing", "--mine"),
        ("--each-view", "--each-view"),
        ("--repeats 1 1 1", "--repeats"),
        ("--start W --widths 32 64 128 256", "--widths"),
        ("--start W --blocks 3 3 3", "--blocks"),
    ],
)
def test_options_that_would_do_nothing_with_ones_own_faces(options, idle, capsys):
    own = ["keypoints", "--csv", "own.csv", "--images", "."]
    train.parse([*own, "--start", "W"]), train.parse([*own, "--widths", "32", "64", "128", "256"])
    with pytest.raises(SystemExit):
        train.parse([*own, *options.split()])
    assert f"{idle} does nothing with" in capsys.readouterr().err


def test_defaults_may_be_said():
    args = train.parse(["faces", "--data", "there", "--augmentation", "1", "1", "1", "--taught", "0.4"])
    assert args.augmentation == [1, 1, 1]


def test_commands_that_made_the_bundled_weights_are_still_commands():
    recorded = hub.load().metrics["training"]
    for of in ("keypoints", "faces"):
        for line in recorded[of]["command"].split(" && "):
            python, script, *arguments = line.split()
            assert (python, script) == ("python", "train.py") and train.parse(arguments).what == of


@pytest.mark.slow
def test_photos_from_elsewhere_and_aligned_labels(folder, tmp_path, capsys):
    """As the bundled weights are made."""
    other, photos = str(folder / "other"), tmp_path / "photos"
    shutil.copytree(folder / "300w" / "afw", photos)
    options = ("--teacher", other, other, "--each-view", "--align", other, "--photos", str(photos))
    assert train.main(command(folder, tmp_path, *options, "--epochs", "1")) == 0
    training = hub.load(tmp_path / "keypoints" / "model").metrics["training"]["keypoints"]["command"]
    shutil.rmtree(photos)
    assert train.main(command(folder, tmp_path, *options, "--overwrite")) == 1
    assert "photos" in capsys.readouterr().err
    photos.mkdir()
    (photos / ".DS_Store").touch()
    assert train.main(command(folder, tmp_path, *options, "--overwrite")) == 1
    assert "holds no picture" in capsys.readouterr().err
    for said in ("--teacher MODEL MODEL", "--align MODEL", "--photos DIR", "--each-view"):
        assert said in training


@pytest.mark.slow
def test_a_detector_learns_from_a_wider_one(folder, tmp_path):
    wide = ("--widths", "40", "48", "48", "48", "--blocks", "1", "1", "1", "--top-down", "40")
    assert train.main(command(folder, tmp_path / "wide", *wide, what="faces")) == 0
    teacher = tmp_path / "wide" / "faces" / "model"
    config = hub.load(teacher).detector
    assert (config.widths, config.depths, config.neck_width) == ((40, 48, 48, 48), (1, 1, 1), 40)
    options = ("--teacher", str(teacher), "--taught", "0.6")
    assert train.main(command(folder, tmp_path, *options, what="faces")) == 0
    taught = hub.load(tmp_path / "faces" / "model")
    assert taught.detector.widths == type(config).widths
    assert "--teacher MODEL --taught 0.6" in taught.metrics["training"]["faces"]["command"]


@pytest.mark.slow
def test_only_what_is_named_is_trained(folder, tmp_path, capsys):
    options = ("--start", str(folder / "other"), "--only", "style", "--epochs", "1", "--ema", "0")
    assert train.main(command(folder, tmp_path, *options)) == 0
    ours, theirs = (
        hub.load(place).module("keypoints").state_dict()
        for place in (tmp_path / "keypoints" / "model", folder / "other")
    )
    changed = {name for name in theirs if not torch.equal(ours[name], theirs[name])}
    assert changed == {"style.weight"}
    assert train.main(command(folder, tmp_path, *options[:2], "--only", "hats", "--overwrite")) == 1
    assert "--only hats: the name of no parameter" in capsys.readouterr().err


@pytest.mark.slow
def test_a_narrower_network_learns_from_a_teacher(folder, tmp_path, monkeypatch):
    other = str(folder / "other")
    options = ("--start", other, "--teacher", other, "--widths", "16", "32", "48", "64")
    assert train.main(command(folder, tmp_path / "whole", *options)) == 0
    stored = hub.load(tmp_path / "whole" / "keypoints" / "model")
    assert stored.keypoints.widths == (16, 32, 48, 64)
    said = distillation.PseudoLabels.load(tmp_path / "whole" / "keypoints" / "pseudo_labels.npz")
    assert said.keypoints.shape[1:] == (2, 68, 2)
    # A resumed run does not ask the teacher again, and learns the same.
    monkeypatch.setattr(train.Interruption, "asked", property(lambda self: True))
    assert train.main(command(folder, tmp_path / "parts", *options)) == 130
    monkeypatch.undo()
    monkeypatch.setattr(export, "is_possible", lambda: False)
    monkeypatch.setattr(distillation, "pseudo_labels", None)
    assert train.main(command(folder, tmp_path / "parts", *options, "--resume")) == 0
    whole, parts = (checkpoint(tmp_path / name) for name in ("whole", "parts"))
    whole["settings"].pop("runs"), parts["settings"].pop("runs")
    assert_equal(whole, parts)


def test_the_mean_of_several_models_without_a_step(folder, tmp_path):
    for i in range(2):
        hub.save(tmp_path / str(i), untrained(i), graphs=False)
    options = ("--start", str(tmp_path / "0"), str(tmp_path / "1"), "--epochs", "0")
    assert train.main(command(folder, tmp_path, *options, what="faces")) == 0
    first, second, mean = (
        hub.load(place).module("detector").state_dict()
        for place in (tmp_path / "0", tmp_path / "1", tmp_path / "faces" / "model")
    )
    for name in ("stem.0.0.weight", "heads.0.weight"):
        expected = (first[name] + second[name]) / 2
        torch.testing.assert_close(mean[name], expected, atol=1e-3, rtol=1e-3)  # stored in half precision


def test_weights_of_another_shape_are_no_start(folder, tmp_path, capsys):
    options = ("--architecture", "baseline", "--start", str(folder / "other"))
    assert train.main(command(folder, tmp_path, *options)) == 1
    error = capsys.readouterr().err
    assert "other" in error and "is missing" in error and "Traceback" not in error


@pytest.mark.slow
def test_a_run_is_not_overwritten_unasked(folder, tmp_path, capsys):
    assert train.main(command(folder, tmp_path, "--epochs", "1")) == 0
    assert train.main(command(folder, tmp_path, "--epochs", "1")) == 1
    assert "--resume it, --overwrite it" in capsys.readouterr().err
    assert train.main(command(folder, tmp_path, "--epochs", "1", "--lr", "1", "--resume")) == 1
    assert "other settings: lr" in capsys.readouterr().err
    assert train.main(command(folder, tmp_path, "--epochs", "1", "--overwrite")) == 0


def run_folder(runs: Path, arguments: list[str], world: int = 1, **changed: str) -> RunFolder:
    """A run that has come to a checkpoint, and has written what a teacher said."""
    run = RunFolder(runs / "keypoints")
    kept = train.settings(train.parse(arguments), world) | changed
    run.save(dict.fromkeys(KEYS, {}) | {"settings": kept, "step": 1})
    run.pseudo_labels.write_bytes(b"said")
    return run


@pytest.mark.parametrize("more, said", [([], "--overwrite it"), (["--resume"], "other settings: lr")])
def test_a_refused_run_touches_nothing(folder, tmp_path, monkeypatch, capsys, more, said):
    arguments = command(folder, tmp_path, "--teacher", str(folder / "other"), *more)
    run = run_folder(tmp_path, arguments, lr="1.0")
    before = {path.name: path.read_bytes() for path in run.path.iterdir()}
    monkeypatch.setattr(train, "make_task", None)  # nothing is prepared
    assert train.main(arguments) == 1
    assert said in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in run.path.iterdir()} == before


def test_a_run_that_is_overwritten_cannot_be_resumed_by_what_the_next_one_wrote(
    folder, tmp_path, monkeypatch
):
    def killed(*inputs):
        raise KeyboardInterrupt

    arguments = command(folder, tmp_path, "--overwrite")
    run = run_folder(tmp_path, arguments)
    assert train.main([*arguments, "--data", "/nowhere"]) == 1 and run.checkpoint.is_file()
    monkeypatch.setattr(train, "make_optimizers", killed)
    with pytest.raises(KeyboardInterrupt):
        train.main(arguments)
    assert not run.checkpoint.exists()


def test_a_run_goes_on_with_as_many_processes(folder, tmp_path):
    arguments = command(folder, tmp_path, "--resume")
    run, args = run_folder(tmp_path, arguments, world=2), train.parse(arguments)
    assert train.resumed(run, args, 2)["step"] == 1
    with pytest.raises(CheckpointError, match="other settings: processes"):
        train.resumed(run, args, 1)
    earlier = run.load()
    del earlier["settings"]["processes"]  # not written once
    run.save(earlier)
    assert train.resumed(run, args, 2)["step"] == 1


@pytest.mark.parametrize(
    "change, reason",
    [
        (["--data", "/nowhere"], "/nowhere"),
        (["--resume"], "nothing to resume"),
        (["--batch-size", "1000"], "too few faces for a batch of 1000"),
        (["--other", "/nowhere"], "/nowhere"),
        (["--start", "/nowhere"], "/nowhere"),
    ],
)
def test_training_that_cannot_be_is_a_sentence(folder, tmp_path, capsys, change, reason):
    assert train.main([*command(folder, tmp_path), *change]) == 1
    error = capsys.readouterr().err
    assert reason in error and "Traceback" not in error


@pytest.mark.slow
def test_the_model_records_how_it_was_trained(folder, tmp_path):
    options = ("--epochs", "1", "--lr", "0.001", "--augmentation", "1", "0.5", "1", "--seed", "3")
    start = ("--start", str(folder / "other"))
    assert train.main(command(folder, tmp_path, *options, *start)) == 0
    record = hub.load(tmp_path / "keypoints" / "model").metrics["training"]["keypoints"]
    assert record == {
        "command": "python train.py keypoints --data DATA --start MODEL --epochs 1 --batch-size 8 --lr 0.001 "
        "--augmentation 1.0 0.5 1.0 --seed 3 --threads 1",
        "seed": 3,
        "fkp_version": __version__,
    }
    portraits = train.parse(["faces", "--data", "DATA", "--portraits", str(folder / "face_boxes.csv")])
    assert train.command(portraits, 1) == "python train.py faces --data DATA --portraits CSV"
    # It says the same again, and the other network's record stays.
    again = record["command"].replace("MODEL", str(folder / "other")).split()[2:]
    assert train.command(train.parse(again), 1) == record["command"]
    assert train.command(train.parse(again), 2).startswith("torchrun --nproc-per-node 2 train.py keypoints")
    other = ("--epochs", "0", "--other", str(tmp_path / "keypoints" / "model"))
    assert train.main(command(folder, tmp_path, *other, *start, what="faces")) == 0
    training = hub.load(tmp_path / "faces" / "model").metrics["training"]
    assert training.keys() == {"keypoints", "faces"} and training["keypoints"] == record


@pytest.mark.parametrize(
    "name, token, said",
    [
        ("faces", "hf_secret", "'faces' is no Hub id of the form OWNER/NAME"),
        ("someone/faces", "", "someone/faces cannot be pushed without a token: run 'hf auth login'"),
        ("another/faces", "hf_secret", "another/faces cannot be pushed: the token is someone's"),
    ],
)
def test_push_that_cannot_be_is_told_before_training(
    folder, tmp_path, capsys, monkeypatch, name, token, said
):
    with LoopbackHub() as server:
        at_hub(monkeypatch, server, token)
        monkeypatch.setattr(train, "make_task", None)  # nothing is prepared
        assert train.main(command(folder, tmp_path, "--push-to", name)) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"train.py: {said}") and error.count("\n") == 1


TRAIN = """
import contextlib, io, train
from fkp.networks import export

export.is_possible = lambda: False

def run(arguments):
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        print(train.main(arguments))
    print(errors.getvalue().splitlines()[-1])
"""


class Numbers(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> int:
        return index


def test_loader_processes_outlive_a_polite_kill_and_end_when_they_are_told():
    before = set(multiprocessing.active_children())
    loader = torch.utils.data.DataLoader(Numbers(), num_workers=1, worker_init_fn=train.begin_to_load)
    batches = iter(loader)
    assert next(batches).item() == 0
    (worker,) = set(multiprocessing.active_children()) - before
    for number in (signal.SIGTERM, signal.SIGINT):
        os.kill(worker.pid, number)
    assert [batch.item() for batch in batches] == list(range(1, 20))
    worker.join(20)
    assert worker.exitcode == 0


@pytest.mark.parametrize("all_of_them", [True, False])
@pytest.mark.slow
def test_a_service_managers_kill_leaves_a_whole_checkpoint_and_no_process(
    folder, tmp_path, root, all_of_them
):
    """SIGTERM to the process group; and SIGKILL to the trainer alone, whose loader processes follow."""
    output = tmp_path / "output"
    with output.open("w") as file:
        trainer = subprocess.Popen(
            [sys.executable, str(root / "train.py"), *command(folder, tmp_path, "--epochs", "99"),
             "--workers", "2", "--save-minutes", "0"],
            cwd=root, stdout=file, stderr=file, start_new_session=True,
        )  # fmt: skip
    ending = time.monotonic() + 120
    while not (tmp_path / "keypoints" / "checkpoint.pt").is_file() and time.monotonic() < ending:
        assert trainer.poll() is None, output.read_text()
        time.sleep(0.1)
    for _ in range(2 if all_of_them else 0):  # again: torchrun passes it on to processes that have had it
        os.killpg(trainer.pid, signal.SIGTERM)
    if not all_of_them:
        trainer.kill()
    status = trainer.wait(60)
    assert status == (130 if all_of_them else -signal.SIGKILL), output.read_text()
    assert checkpoint(tmp_path)["step"] > 0
    with pytest.raises(ProcessLookupError):
        for _ in range(200):
            os.killpg(trainer.pid, 0)
            time.sleep(0.1)


@pytest.mark.slow
def test_a_trained_model_goes_up_and_a_failed_push_loses_nothing(folder, tmp_path):
    plain = command(folder, tmp_path, "--epochs", "0", "--start", str(folder / "other"))
    asked = [*plain, "--push-to", "someone/faces"]
    model = tmp_path / "keypoints" / "model"
    with LoopbackHub() as server, Client(server.url, tmp_path, HF_TOKEN="hf_secret") as client:
        client(TRAIN)
        with server.fault("POST .*/commit/", status=500):
            *_, status, error = client(f"run({asked!r})")
        assert status == "1" and error == (
            "train.py: someone/faces could not be pushed: the Hub answers with error 500. The weights are "
            f"saved; 'fkp push someone/faces --model {model}' tries it again"
        )
        hub.load(model)
        *_, url, status, _ = client(f"run({asked!r})")
        commit = server.repositories["someone/faces"].commits[-1]
        assert status == "0" and url == f"{server.url}/someone/faces/commit/{commit.sha}"
        assert json.loads(commit.files["metrics.json"]) == hub.load(model).metrics
        asked_before = len(server.requests)
        client(f"run({plain!r})")
        assert len(server.requests) == asked_before


def at_hub(monkeypatch, server: LoopbackHub, token: str) -> None:
    """This process's Hub and token, which are read at import otherwise."""
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", server.url)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: token or None)
    monkeypatch.setenv("HF_TOKEN", token)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.mark.parametrize("device", ["cuda" if not torch.cuda.is_available() else "cuda:x", "abacus"])
def test_a_device_that_is_not_there_is_refused(folder, tmp_path, capsys, device):
    with pytest.raises(SystemExit):
        train.main(command(folder, tmp_path, "--device", device))
    assert "argument --device" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["2", "-0.1", "much", "nan"])
def test_augmentation_goes_from_none_to_all(folder, tmp_path, capsys, number):
    with pytest.raises(SystemExit):
        train.main(command(folder, tmp_path, "--augmentation", "1", number, "1"))
    assert f"{number!r} is not a number from 0 to 1" in capsys.readouterr().err


@pytest.mark.parametrize(
    "option",
    [
        "--epochs -1", "--batch-size 0", "--batch-size -1", "--validate-every 0", "--preview-every -1",
        "--save-minutes nan", "--threads -1", "--workers -1", "--seed -5", "--seed 18446744073709551616",
        "--lr nan", "--lr -1", "--muon-lr inf", "--weight-decay -1", "--warmup 2", "--clip -1", "--clip 0",
        "--ema 2", "--widths 8 16 32 64", "--widths 16 32 64 15", "--top-down 7", "--blocks 1 -1 1",
        "--repeats 1 1 -1",
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_are_refused(capsys, option):
    with pytest.raises(SystemExit) as caught:
        train.parse(["keypoints", "--data", "DATA", "--start", "MODEL", *option.split()])
    error = capsys.readouterr().err.splitlines()[-1]
    assert caught.value.code == 2 and f"argument {option.split()[0]}: " in error and "number from" in error


@pytest.mark.slow
def test_two_processes_train_one_network(folder, tmp_path, root):
    """Under torchrun with gloo: one model, one log, every process on its share of each batch."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
         str(root / "train.py"), *command(folder, tmp_path, "--workers", "0")],
        cwd=root, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    steps = steps_per_epoch(folder)
    assert checkpoint(tmp_path)["step"] == EPOCHS * steps and len(checkpoint(tmp_path)["history"]) == EPOCHS
    FaceKeypoints.from_pretrained(tmp_path / "keypoints" / "model")


def test_learning_rate_warms_up_and_settles():
    rates = [train.learning_rate(step, 100, 0.1) for step in range(100)]
    assert rates[0] == pytest.approx(0.1) and max(rates) == rates[9] == pytest.approx(1.0)
    assert rates[-1] < 0.02 and all(a >= b for a, b in zip(rates[10:], rates[11:], strict=False))


def test_average_follows_early_and_remembers_late():
    blend = train.exponential(0.999)
    for steps, expected in ((0, 0.9), (100_000, 0.001)):
        zero, count = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        blend([zero], [torch.ones(())], torch.tensor(steps))
        blend([count], [torch.tensor(7)], torch.tensor(steps))
        assert zero.item() == pytest.approx(expected, rel=1e-3) and count.item() == 7


def test_a_file_that_is_no_yunet_is_told(folder, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("no graph")
    options = ("--yunet", str(tmp_path / "notes.txt"), "--epochs", "1")
    assert train.main(command(folder, tmp_path, *options, what="faces")) == 1
    said = capsys.readouterr().err
    assert "notes.txt" in said and "Traceback" not in said
