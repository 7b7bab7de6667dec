"""benchmarks/speed.py: its arguments, its workers, what it skips, and its tables."""

import json
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import speed, speed_tables, stopwatch
from fkp import FaceKeypoints, hub
from tests import synthetic


def row(task: str, ms: float, **labels) -> dict:
    return {"task": task, "ms": ms, "best_ms": ms / 2, "cores": 0.99, "calls": 10} | labels


@pytest.fixture
def figures() -> dict:
    """Figures as `speed.measure` gives them: one backend is twice as fast on two threads."""
    rows = []
    for threads in (1, 2):
        labels = {"backend": "torch", "threads": threads}
        rows += [row(f"keypoints {n}", 4.0 * n / threads, **labels) for n in speed.BATCHES]
        rows += [row("network", 3.0 / threads, **labels), row("detector", 10.0 / threads, **labels)]
        rows += [row(f"predict {size}", 20.0 / threads, **labels) for size in speed.SIZES]
    return {
        "command": "python benchmarks/speed.py",
        "machine": {"cpu": "Chip", "instructions": ["AVX2"], "cores": 2, "memory_gib": 8, "system": "Linux",
                    "load_before": 0.1},
        "versions": {"Python": "3.11"}, "seconds": 5.0, "rounds": 5, "starts_of_each": 5,
        "faces": {"640x480": 2, "1920x1080": 5}, "rows": rows,
        "starts": [{"backend": "torch", "import_s": 1.5, "load_s": 0.25, "first_call_s": 0.125,
                    "memory_mib": 512.4, "longest_first_call_s": 0.5}],
        "training": [row("loader", 64.0, batch_size=64, workers=1),
                     row("network fp32", 640.0, batch_size=64, workers=1),
                     row("both fp32", 1280.0, batch_size=64, workers=1)],
        "skipped": [{"name": "onnxruntime, one thread", "reason": "it is not installed"}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def model() -> FaceKeypoints:
    return FaceKeypoints.from_pretrained(backend="torch")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seconds", "0"], "above 0"),
        (["--seconds", "nan"], "above 0"),
        (["--starts", "0"], "1 or more"),
        (["--backends", "cuda"], "invalid choice: 'cuda'"),
    ],
)
def test_bad_arguments_are_refused_in_a_sentence(arguments, said, capsys):
    with pytest.raises(SystemExit) as end:
        speed.parse(arguments)
    assert end.value.code == 2
    assert said in capsys.readouterr().err


def test_the_command_on_record_names_no_folder(tmp_path):
    assert speed.command(speed.parse([])) == "python benchmarks/speed.py"
    given = ["--model", str(tmp_path), "--backends", "torch", "--seconds", "2"]
    given += ["--data", str(tmp_path), "--training=--batch-size=8", "--write"]
    assert speed.command(speed.parse(given)) == (
        "python benchmarks/speed.py --model MODEL --backends torch --data DATA"
        " --training=--batch-size=8 --seconds 2 --write"
    )


def test_a_model_that_is_not_there_is_a_sentence(tmp_path, capsys):
    assert speed.main(["--model", str(tmp_path / "none")]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("speed.py: ") and said.err.count("\n") == 1


def test_median_of_all_calls_and_of_the_best_round():
    rounds = [{"ms": [1.0, 2.0, 9.0], "cores": 1.0}, {"ms": [5.0, 5.0], "cores": 0.5}]
    assert speed.summarise(rounds) == {"ms": 5.0, "best_ms": 2.0, "cores": 0.75, "calls": 5}


def test_warm_calls_do_not_count():
    made = []
    found = stopwatch.measure(stopwatch.repeat(lambda: made.append(0)), 0.0, warm=3)
    assert len(made) == 4 and len(found["ms"]) == 1
    assert len(stopwatch.measure(stopwatch.repeat(lambda: None), 0.05, warm=0)["ms"]) > 10


def test_pictures_hold_faces(model):
    for size, picture in speed.pictures().items():
        assert f"{picture.shape[1]}x{picture.shape[0]}" == size and picture.dtype == np.uint8
        assert len(model(picture)) >= 2


def test_tables(figures):
    keypoints = speed_tables.keypoint_table(figures).splitlines()
    assert keypoints[2:] == [
        "| torch | 1 | 4.00 (2.00) | 4.00 (2.00) | 4.00 (2.00) | 3.00 (1.50) |",
        "| torch | 2 | 2.00 (1.00) | 2.00 (1.00) | 2.00 (1.00) | 1.50 (0.75) |",
    ]
    assert "| torch | 2 | 5.00 (2.50) | 100 (200) | 100 (200) |" in speed_tables.picture_table(figures)
    assert "| torch | 1.50 | 0.25 | 0.12 | 0.50 | 512 |" in speed_tables.start_table(figures)
    training = speed_tables.training_table(figures).splitlines()
    assert training[2:] == [
        "| loader alone |  | 1000 (2000) |",
        "| network alone: forward, backward, update | fp32 | 100 (200) |",
        "| both, 1 loader process | fp32 | 50.0 (100) |",
    ]


def test_every_table_has_as_many_cells_in_each_line(figures):
    lines = [line for line in speed.report(figures).splitlines() if line.startswith("|")]
    lines += [line for line in speed.summary(figures).splitlines() if line.startswith("|")]
    widths = [line.count("|") for line in lines]
    heads = [i for i, line in enumerate(lines) if line.startswith("| ---")]
    assert len(heads) == 5
    for start, end in zip(heads, [*[head - 1 for head in heads[1:]], len(lines)], strict=True):
        assert len(set(widths[start - 1 : end])) == 1


def test_the_report_names_what_was_skipped_and_what_to_mistrust(figures):
    text = speed.report(figures)
    assert "- onnxruntime, one thread: it is not installed" in text
    assert "busy before" not in text and "cores were busy" not in text
    figures["machine"]["load_before"] = 3.5
    figures["rows"][0]["cores"] = 1.9
    text = speed.report(figures)
    assert "load average 3.5" in text
    assert "torch, keypoints 1: one thread was asked for, 1.9 cores were busy." in text


def test_nothing_measured_is_still_a_report(figures):
    figures |= {"rows": [], "starts": [], "training": [], "skipped": []}
    assert "|" not in speed.report(figures)


def test_the_summary_survives_json(figures):
    text = speed.summary(figures)
    assert "| keypoints of one face at a known box, torch | 4.00 ms | 2.00 ms |" in text
    assert "| whole picture, 1920×1080, 5 faces, torch | 50.0 images/s | 100 images/s |" in text
    assert speed.summary(json.loads(json.dumps(figures))) == text


def test_what_cannot_be_timed_is_skipped_by_name_and_the_rest_is_timed(model, tmp_path):
    """Real workers: a subject that does not exist, one that breaks midway, and the model on one backend."""
    frames, stored = speed.pictures(), tmp_path / "pictures.npz"
    np.savez(stored, boxes=model(frames["640x480"]).boxes, **frames)
    order = {"model": str(hub.BUNDLED), "pictures": str(stored), "batches": [2], "sizes": []}
    breaking = _program(tmp_path, "print('{}'); input(); print('{\"unavailable\": \"it broke\"}')")
    subjects = [
        speed.Subject("unknown", order | {"subject": "nobody"}, 1, {}, ("landmarks",)),
        speed.Subject("breaking", order, 1, {}, ("landmarks",), python=breaking),
        speed.Subject("torch", order | {"subject": "model", "backend": "torch"}, 1, {"threads": 1},
                      ("keypoints 2", "network")),
    ]  # fmt: skip
    rows, skipped = speed.time_all(subjects, 0.2, "test")
    assert [each["name"] for each in skipped] == ["unknown", "breaking"]
    assert "nobody" in skipped[0]["reason"] and skipped[1]["reason"] == "it broke"
    assert [(each["task"], each["threads"]) for each in rows] == [("keypoints 2", 1), ("network", 1)]
    assert all(each["ms"] >= each["best_ms"] > 0 and each["calls"] >= speed.ROUNDS for each in rows)


@pytest.mark.parametrize(
    ("code", "reason"),
    [("raise IndexError('no such thing')", "IndexError: no such thing"), ("exit(3)", "ended with status 3")],
)
def test_a_worker_that_dies_says_why(code, reason, tmp_path):
    with pytest.raises(speed.Unavailable, match=reason):
        speed.Worker({"subject": "model"}, 1, python=_program(tmp_path, code))


def test_what_libraries_print_does_not_reach_the_answers(tmp_path):
    order = json.dumps({"subject": "noise"})
    code = (
        "import os, sys\nfrom benchmarks import stopwatch\n"
        "def noise(order):\n    os.write(1, b'loading\\n'); print('hello')\n    return {'fact': 1}, {}\n"
        f"stopwatch.SUBJECTS['noise'] = noise\nsys.argv = ['', {order!r}]\nsys.exit(stopwatch.main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=speed.ROOT, capture_output=True, text=True, input="", timeout=60
    )
    assert json.loads(done.stdout) == {"fact": 1} and "loading" in done.stderr


def test_training_is_timed_on_made_up_faces(tmp_path):
    data = synthetic.data_folder(tmp_path / "data", faces=8)
    order = {"threads": 1, "data": str(data), "precisions": ["fp32"], "arguments": ["--workers", "0"]}
    with pytest.raises(ValueError, match="too few faces"):
        stopwatch.training(order)
    order["arguments"] += ["--batch-size", "8"]
    facts, tasks = stopwatch.training(order)
    assert facts == {"batch_size": 8, "workers": 0}
    assert set(tasks) == {"loader", "network fp32", "both fp32"}
    for task in tasks.values():
        assert stopwatch.measure(task, 0, warm=1)["ms"][0] > 0


def _program(folder, code: str) -> str:
    """An executable that ignores its arguments and runs Python code."""
    path = folder / "program"
    path.write_text(f"#!{sys.executable}\n{code}\n")
    path.chmod(0o755)
    return str(path)
