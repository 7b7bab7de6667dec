"""`fkp label --ray`: two nodes on this machine, and a worker that is killed in the middle."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.label import material

pytest.importorskip("ray")
pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# Else nodes ask for a token where Ray has once left one in the home folder.
ENVIRONMENT = os.environ | {
    "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": str(ROOT)
}  # fmt: skip


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a cluster of two nodes with two logical cores each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    # A path of sockets may have some 100 letters, fewer than pytest's folders.
    folder = f"/tmp/ray-{os.getpid()}"
    common = ["--num-cpus", "2", "--object-store-memory", "100000000", "--block"]
    head = ["--head", "--port", address.split(":")[1], "--node-ip-address", "127.0.0.1", "--temp-dir", folder,
            "--include-dashboard", "false"]  # fmt: skip
    nodes = []
    try:
        for options in (head, ["--address", address, "--node-ip-address", "127.0.0.2"]):
            command = [Path(sys.executable).with_name("ray"), "start", *options, *common]
            nodes.append(
                subprocess.Popen(
                    command, env=ENVIRONMENT, start_new_session=True, text=True,
                    stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                )
            )  # fmt: skip
            output = nodes[-1].stdout
            assert output is not None
            said = ""
            while "Ray runtime started" not in said:
                line = output.readline()
                assert line, f"the node did not start:\n{said}"
                said += line
        yield address
    finally:
        for node in nodes:
            os.killpg(node.pid, signal.SIGTERM)
        for node in nodes:
            node.communicate(timeout=100)


def test_no_cluster_there(tmp_path: Path) -> None:
    """Told at once, where Ray would wait for minutes."""
    material.tar(tmp_path / "a.tar")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"127.0.0.1:{free.getsockname()[1]}"
        command = [sys.executable, "-m", "fkp", "label", f"{tmp_path}/a.tar", "--out", f"{tmp_path}/out"]
        for flag, more in ((address, {}), ("auto", {"RAY_ADDRESS": address})):
            run = subprocess.run(
                [*command, "--ray", flag], env=ENVIRONMENT | more, cwd=ROOT, text=True, capture_output=True,
                timeout=60,
            )  # fmt: skip
            assert run.returncode == 1 and f"{address}: no Ray cluster answers" in run.stderr


def test_a_worker_is_killed(cluster: str, tmp_path: Path) -> None:
    """Nothing is lost and nothing double: Ray gives the shard to another, and it is written whole or not."""
    source, out = tmp_path / "in", tmp_path / "out"
    for number in range(6):
        shard = {f"{number}-{copy}.jpg": material.content("grace_hopper.jpg") for copy in range(20)}
        if number == 5:
            shard["5-19.jpg"] = material.broken_off("grace_hopper.jpg")
        material.tar(source / f"{number}.tar", shard)
    command = [sys.executable, "-m", "fkp", "label", str(source), "--out", str(out), "--ray", cluster]
    run = subprocess.Popen(
        command, env=ENVIRONMENT, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    killed = None
    while run.poll() is None and killed is None:
        working = list(out.glob(".*.part"))
        if working and list(out.glob("[!.]*.parquet")):
            killed = int(working[0].name.split("-")[-1].removesuffix(".part"))
            os.kill(killed, signal.SIGKILL)
        time.sleep(0.05)
    printed, told = run.communicate(timeout=300)
    assert run.returncode == 0 and killed, told
    assert "120 pictures, 120 faces" in printed  # after what Ray says of the one that was killed
    assert "1 picture in part only" in printed and "5-19.jpg: is damaged or incomplete" in told
    names = pq.read_table(sorted(out.glob("[!.]*.parquet")), columns=["picture"])["picture"].to_pylist()
    assert sorted(names) == sorted(f"./{number}-{copy}.jpg" for number in range(6) for copy in range(20))
    assert len(list(out.iterdir())) == 6, "what is unfinished is there still"
    again = subprocess.run(command, env=ENVIRONMENT, cwd=ROOT, text=True, capture_output=True, timeout=300)
    assert "0 pictures" in again.stdout and "6 shards were finished before" in again.stdout, again.stderr
