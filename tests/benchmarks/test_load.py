"""Many clients at once: the essentials of benchmarks/load.py, around a stand-in for the model."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import numpy as np
import pytest

from benchmarks import load
from benchmarks.load import Call, Picture, Run, Served
from benchmarks.published import DOCS, between_marks
from tests import bad_inputs

LIMITS = {"WAITING": "8"}


@pytest.fixture(scope="module")
def served(tmp_path_factory, root):
    """The page, around a stand-in for the model, with a short queue."""
    folder = tmp_path_factory.mktemp("uploads")
    command = [sys.executable, str(root / "tests" / "serve_stand_in.py"), str(folder)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | LIMITS
    ) as process:
        address = next(line.strip() for line in process.stdout if line.startswith("http://127.0.0.1:"))
        yield Served(address, process.pid), process
        process.communicate("\n", timeout=30)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def known(served) -> list[Picture]:
    files = [Picture("a.jpg", bad_inputs.good()), Picture("b.png", bad_inputs.good("PNG"))]
    return asyncio.run(load.lone(served[0], files))


def test_eight_clients_get_what_a_lone_one_gets(served, known):
    run = asyncio.run(load.crowd(served[0], known, clients=8, seconds=0, requests=40))
    assert run.count().keys() == {"right"} and run.count()["right"] >= 40 and run.farthest == 0
    assert run.memory[0][2] > 50_000_000
    rows = dict(load.told(run, 8, max(call.began for call in run.calls) + 1))
    assert rows["answered otherwise, errors, told that it is busy"] == "0, 0, 0"


def test_a_crowd_is_told_that_it_is_busy_and_nothing_else(served, known):
    async def until_told() -> Run:
        for _ in range(10):
            run = await load.crowd(served[0], known, clients=40, seconds=0, requests=1)
            if run.count()["busy"]:
                break
        return run

    run = asyncio.run(until_told())
    assert run.count().keys() == {"right", "busy"}
    sentences = {call.told for call in run.calls if call.kind == "busy"}
    assert sentences == {
        "The server is busy: as many requests wait as it can bear. Please try again in a moment."
    }


def test_nothing_is_left_of_them(served, known):
    server, process = served
    asyncio.run(load.crowd(server, known, clients=4, seconds=0, requests=8))
    process.stdin.write("forget\n")
    process.stdin.flush()
    assert process.stdout.readline() == "0 0\n"


# --- The figures ----------------------------------------------------------------------------------------


def record(x: float = 10, score: float = 0.9, image: str = "a.jpg", faces: int = 1) -> dict:
    face = {"box": [x, 0, 40, 40], "score": score, "keypoints": [[x, 5]] * 68, "keypoint_scores": [0.5] * 68}
    return {"image": image, "width": 50, "height": 50, "faces": [face] * faces}


def test_the_tables_have_their_place():
    assert "figures" in between_marks(DOCS / "load.md", "load", {"load": "figures"})


def test_answers_are_compared():
    assert load.difference(record(), record()) == (0, "")
    assert load.difference(record(faces=0), record(faces=0)) == (0, "")
    assert load.difference(record(10.05), record()) == (pytest.approx(0.05), "")
    assert load.difference(record(11), record()) == (1, "box is off by 1")
    assert load.difference(record(score=0.8), record())[1] == "score is off by 0.1"
    assert load.difference(record(image="b.jpg"), record())[1] == "image is 'b.jpg' instead of 'a.jpg'"
    assert load.difference(record(faces=2), record())[1] == "2 faces instead of 1"


def test_rows_of_a_run():
    calls = [Call(second, 1 + second / 10, "right") for second in range(10)]
    calls += [Call(0, 9, "wrong", "2 faces instead of 1"), Call(0, 1, "busy"), Call(20, 99, "right")]
    rows = dict(load.told(Run(calls, [], 0.01), 3, 10))
    assert rows["3 clients at once on /detect, 10 s"] == "0.9 requests/s"  # one ended too late
    assert rows["latency, upload to answer"] == "p50 1.45 s, p95 1.85 s, longest 1.90 s"
    assert rows["answered as a lone request is"] == "11, no point off by more than 0.01 px"
    assert rows["answered otherwise, errors, told that it is busy"] == "1, 0, 1"
    assert rows["wrong: 2 faces instead of 1"] == "1"


def test_the_slope_of_memory_begins_after_the_warm_up():
    requests = np.arange(0, 4000, 10)
    sizes = np.where(requests < load.WARM_UP, 1e6 * requests, 5e8 + 2e3 * requests)
    memory = [(n / 10, int(n), int(size)) for n, size in zip(requests, sizes, strict=True)]
    rows = dict(load.memory(Run([], memory), 400_000_000))
    assert list(rows.values()) == ["400 MB, 1990 MB", "+2.0 ± 0.0 MB per 1000 requests"]
    assert len(load.memory(Run([], memory[:100]), 0)) == 1


def test_the_pictures_are_mixed_and_readable(tmp_path):
    from fkp import images

    sizes = []
    for file in load.pictures():
        (tmp_path / file.name).write_bytes(file.content)
        width, height = images.size_wh(tmp_path / file.name)
        sizes.append(width * height)
        if "grace_hopper_turned" in file.name:
            assert (width, height) == (512, 600)
    assert min(sizes) < 20_000 and max(sizes) > 11_900_000
    assert {path.suffix for path in tmp_path.iterdir()} == {".jpg", ".png", ".webp"}
