"""Many clients at once, as benchmarks/load.py sends them, on the page around a stand-in for the model."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys

import pytest

from benchmarks import load
from benchmarks.load import Call, Picture
from benchmarks.serving import Served
from tests import bad_inputs

pytestmark = pytest.mark.slow

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
        yield Served(address, process.pid, folder), process
        process.communicate("\n", timeout=30)
    assert process.returncode == 0


@pytest.fixture(scope="module")
def known(served) -> list[Picture]:
    files = [Picture("a.jpg", bad_inputs.good()), Picture("b.png", bad_inputs.good("PNG"))]
    return asyncio.run(load.lone(served[0], files))


def test_eight_clients_get_what_a_lone_one_gets(served, known):
    calls, memory = asyncio.run(load.crowd(served[0], known, clients=8, seconds=0, requests=40))
    assert {call.kind for call in calls} == {"right"} and len(calls) >= 40
    assert max(call.apart for call in calls) == 0 and memory[0][1] > 50_000_000


def test_a_crowd_is_told_that_it_is_busy_and_nothing_else(served, known):
    calls: list[Call] = []
    for _ in range(10):
        if not any(call.kind == "busy" for call in calls):
            calls, _ = asyncio.run(load.crowd(served[0], known, clients=40, seconds=0, requests=1))
    assert {call.kind for call in calls} == {"right", "busy"}
    assert all("try again" in call.told for call in calls if call.kind == "busy")


def test_crowd_leaves_nothing(served, known):
    server, process = served
    asyncio.run(load.crowd(server, known, clients=4, seconds=0, requests=8))
    process.stdin.write("expire\n")
    process.stdin.flush()
    assert process.stdout.readline() == "0 0\n"
