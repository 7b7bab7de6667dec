"""What may go wrong on the way from the Hub: the real client of huggingface_hub, a Hub on loopback.

The weights are of small untrained networks. `Client` is a process whose HF_ENDPOINT is that Hub.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fkp.hub import download
from tests.hub.conftest import NAME, find
from tests.loopback_hub import Client, LoopbackHub, User, fresh_process, run_fresh

FETCH = """
from fkp.hub import WeightsError
from fkp.hub.download import fetch_file
from fkp.hub.publish import check_push

for ask in (*(lambda name=name: fetch_file({repo_id!r}, name, {commit!r}).name for name in {names!r}),
            lambda: check_push({repo_id!r}) or "may push"):
    try:
        print(ask())
    except WeightsError as error:
        print(error)
"""


def blob(cache: Path, name: str) -> Path:
    """Where the one version of a file in the cache lies."""
    (path,) = cache.glob(f"models--someone--faces/snapshots/*/{name}")
    return path.resolve()


# --- Which commit, and where from -------------------------------------------------------------------------


def test_a_pinned_commit_in_the_cache_needs_no_request(
    server: LoopbackHub, client: Client, cache: Path, files: dict
) -> None:
    sha = server.add(NAME, files)
    assert find(client, cache, revision=sha) == [sha]
    asked = len(server.requests)
    for options in ({}, {"local_files_only": True}):
        assert find(client, cache, revision=sha, **options) == [sha]
    assert len(server.requests) == asked


def test_revisions_stay_what_they_were_after_a_newer_push(
    server: LoopbackHub, client: Client, cache: Path, files: dict
) -> None:
    old = server.add(NAME, files)
    server.repositories[NAME].names["v1"] = server.repositories[NAME].names["a/branch"] = old
    new = server.add(NAME, files | {"metrics.json": b'{"a": 2}'})
    folder = cache / "models--someone--faces" / "snapshots"
    for revision in (old, "v1", "a/branch"):
        assert find(client, cache, revision=revision) == [old]
    for options in ({}, {"revision": "main"}, {"revision": new}):
        assert find(client, cache, **options) == [new]
    assert [json.loads((folder / sha / "metrics.json").read_text())["a"] for sha in (old, new)] == [1, 2]
    assert find(client, cache, revision="v1", local_files_only=True) == [old]


def test_cache_serves_with_a_warning_without_a_network(
    server: LoopbackHub, client: Client, cache: Path, files: dict
) -> None:
    sha = server.add(NAME, files)
    find(client, cache)
    with closed_port() as nowhere:
        found, warning = find(client, cache, endpoint=nowhere)
        assert found == sha and "the Hub cannot be reached" in warning and f"as of commit {sha}" in warning
        # No warning where that is what was asked for.
        assert find(client, cache, endpoint=nowhere, revision=sha) == [sha]
        assert find(client, cache, endpoint=nowhere, local_files_only=True) == [sha]


@pytest.mark.parametrize("kind", ["closed", "silent", "trickling"])
def test_download_fails_soon_without_a_network(client: Client, cache: Path, kind: str) -> None:
    """A refused connection, a socket that accepts and never answers, one that answers letter by letter."""
    client("usual, download.PATIENCE = download.PATIENCE, 0.7")
    with {"closed": closed_port, "silent": silent_port, "trickling": trickling_port}[kind]() as nowhere:
        (said,) = find(client, cache, endpoint=nowhere)
    client("download.PATIENCE = usual")
    assert NAME in said and "nor in the local cache" in said and "the Hub cannot be reached" in said


def test_within_ends_what_takes_too_long() -> None:
    """Looking up a host's name has no time limit in itself."""
    never = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        download.within(0.05, never.wait)
    never.set()
    assert download.within(60, lambda: 3) == 3
    with pytest.raises(ValueError, match="three"):
        download.within(60, lambda: int("three"))


@pytest.mark.slow
def test_offline_and_pinned_processes_make_no_request(
    server: LoopbackHub, tmp_path: Path, files: dict
) -> None:
    """huggingface_hub has requests of its own that it makes once a process."""
    sha = server.add(NAME, files)
    code = FETCH.format(names=["config.json"], repo_id=NAME, commit=sha)
    assert fresh_process(code, server.url, tmp_path)[0] == "config.json"
    asked = len(server.requests)
    assert fresh_process(code, server.url, tmp_path)[0] == "config.json"
    code = FETCH.format(names=["config.json", "metrics.json"], repo_id=NAME, commit=sha)
    cached, missing, push = fresh_process(code, server.url, tmp_path, HF_HUB_OFFLINE="1")
    assert cached == "config.json" and len(server.requests) == asked
    assert sha in missing and "not in the local cache" in missing and "switched off" in missing
    assert NAME in push and "switched off (HF_HUB_OFFLINE)" in push


@pytest.mark.slow
def test_the_bundled_weights_and_a_folder_need_no_socket(weights: Path, root: Path, tmp_path: Path) -> None:
    """In a process that cannot open one; and nothing is written to stdout or stderr."""
    code = f"""
import socket

def refuse(*arguments):
    raise RuntimeError(f"a connection: {{arguments}}")

socket.socket.connect = socket.socket.connect_ex = socket.socket.sendto = socket.getaddrinfo = refuse
from fkp import FaceKeypoints
faces = FaceKeypoints.from_pretrained()({str(root / "examples" / "eileen_collins.jpg")!r})
assert len(faces) == 1, faces
FaceKeypoints.from_pretrained({str(weights)!r})
"""
    done = run_fresh([sys.executable, "-c", code], "http://127.0.0.1:1", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_names_that_lead_nowhere(server: LoopbackHub, client: Client, cache: Path) -> None:
    (said,) = find(client, cache, "runs/modle")  # may be a folder and a model
    assert "neither a folder runs/modle here nor a model runs/modle on the Hub" in said
    (said,) = find(client, cache, "./runs/modle")
    assert "'./runs/modle' is neither a folder here nor a Hub id" in said
    server.add(NAME, {})
    (said,) = find(client, cache, revision="v9")
    assert NAME in said and "no revision 'v9'" in said


# --- Who may read -----------------------------------------------------------------------------------------


def test_private_and_gated_models(server: LoopbackHub, client: Client, cache: Path, files: dict) -> None:
    sha = server.add(NAME, files, private=True)
    server.tokens["hf_other"] = User("another")
    for options in ({}, {"token": False}, {"token": "hf_other"}):
        (said,) = find(client, cache, **options)
        assert f"a model {NAME} on the Hub that you may read" in said
    assert find(client, cache, token="hf_secret") == [sha]
    (said,) = find(client, cache, token="hf_old", force_download=True)
    assert NAME in said and "does not know your token" in said
    server.repositories[NAME].private, server.repositories[NAME].gated = False, True
    (said,) = find(client, cache)
    assert NAME in said and "accepted its terms" in said


@pytest.mark.slow
def test_the_token_of_the_environment(server: LoopbackHub, tmp_path: Path, files: dict) -> None:
    sha = server.add(NAME, files, private=True)
    code = FETCH.format(names=["config.json"], repo_id=NAME, commit=sha)
    said = fresh_process(code, server.url, tmp_path, HF_TOKEN="hf_secret")
    assert said == ["config.json", "may push"]


# --- What may be in a repository --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names, said",
    [
        (["README.md"], "no fkp weights"),
        (["config.json"], "no fkp weights"),
        (["model.safetensors"], "no fkp weights"),
        (["config.json", "pytorch_model.bin"], "pytorch_model.bin but no model.safetensors"),
    ],
)
def test_repository_without_weights(
    server: LoopbackHub, client: Client, cache: Path, files: dict, names: list[str], said: str
) -> None:
    server.add(NAME, {name: files.get(name, b"") for name in names})
    (told,) = find(client, cache)
    assert told.startswith(f"{NAME} holds {said}")
    assert not any("/resolve/" in asked for asked in server.requests)  # nothing is downloaded


def test_figures_and_graphs_need_not_be_there(
    server: LoopbackHub, client: Client, cache: Path, files: dict
) -> None:
    sha = server.add(NAME, {name: files[name] for name in ("config.json", "model.safetensors")})
    for options in ({}, {"revision": sha}, {"local_files_only": True}):
        assert find(client, cache, **options) == [sha]


# --- A cache that is not as it should be ------------------------------------------------------------------


def test_an_incomplete_commit_is_completed_once_there_is_a_network(
    server: LoopbackHub, client: Client, cache: Path, files: dict
) -> None:
    sha = server.add(NAME, files)
    find(client, cache)
    path = cache / "models--someone--faces" / "snapshots" / sha / "metrics.json"
    path.unlink()
    assert find(client, cache, revision=sha, local_files_only=True) == [sha]
    assert find(client, cache, revision=sha) == [sha] and path.exists()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "metrics.json"])
def test_a_damaged_file_of_the_cache_is_fetched_anew(
    server: LoopbackHub, client: Client, cache: Path, files: dict, name: str
) -> None:
    sha = server.add(NAME, files)
    find(client, cache)
    path = blob(cache, name)
    for revision in (sha, None):
        path.write_bytes(bytes(len(files[name])))  # as long as before: the disk was full, say
        (said,) = find(client, cache, revision=revision, local_files_only=True)
        assert name in said and "damaged" in said and f"delete {path}" in said
        assert find(client, cache, revision=revision) == [sha]
        assert blob(cache, name).read_bytes() == files[name]


@pytest.mark.parametrize("content", ["its beginning", "something else"])
def test_an_interrupted_download_is_finished(
    server: LoopbackHub, client: Client, cache: Path, files: dict, content: str
) -> None:
    """Some versions of huggingface_hub go on from what is there, whatever it is."""
    sha = server.add(NAME, files)
    find(client, cache)
    path = blob(cache, "model.safetensors")
    half = len(files["model.safetensors"]) // 2
    path.rename(path.with_name(path.name + ".incomplete"))
    beginning = files["model.safetensors"][:half] if content == "its beginning" else bytes(half)
    path.with_name(path.name + ".incomplete").write_bytes(beginning)
    for pointer in cache.rglob("snapshots/*/model.safetensors"):
        pointer.unlink()
    assert find(client, cache) == [sha]
    assert blob(cache, "model.safetensors").read_bytes() == files["model.safetensors"]
    assert find(client, cache, local_files_only=True) == [sha]


# --- A Hub that fails -------------------------------------------------------------------------------------


def test_a_broken_connection_is_taken_up_where_it_broke(
    server: LoopbackHub, client: Client, cache: Path
) -> None:
    """A file of more than the 10 MiB that huggingface_hub writes at once.

    Version 2 goes on by itself, 1.2 when it is asked again.
    """
    content = bytes(range(256)) * 45_000
    sha = server.add(NAME, {"large.bin": content})
    ask = f"tell(download.fetch_file, {NAME!r}, 'large.bin', {sha!r}, cache_dir={str(cache)!r})"
    with server.fault("GET /storage/", cut=11_000_000, times=1):
        (said,) = client(ask)
    if "the connection broke off" in said:
        (said,) = client(ask)
    assert server.ranges == [f"bytes={10 * 2**20}-"]
    assert Path(said).read_bytes() == content


@pytest.mark.slow
def test_a_hub_that_dies_in_mid_download(
    server: LoopbackHub, client: Client, cache: Path, files: dict
) -> None:
    """A clear error, nothing half done in the cache, and all is well once the Hub is back."""
    sha = server.add(NAME, files)
    with server.fault("GET /storage/", cut=1000, dies=True):
        said, *_ = find(client, cache)  # huggingface_hub tries five times more, a second apart
    assert NAME in said and "the connection broke off" in said
    assert not list(cache.rglob("snapshots/*/model.safetensors"))
    (said,) = find(client, cache, local_files_only=True)
    assert "nor in the local cache" in said and "switched off" in said
    assert find(client, cache) == [sha]
    assert blob(cache, "model.safetensors").read_bytes() == files["model.safetensors"]


def test_a_new_version_that_cannot_be_had_leaves_the_old_one(
    server: LoopbackHub, client: Client, cache: Path, files: dict
) -> None:
    old = server.add(NAME, files)
    find(client, cache)
    new = server.add(NAME, files | {"model.safetensors": files["model.safetensors"] + b"more"})
    with server.fault("GET /storage/", status=404):
        (said,) = find(client, cache)
    assert said.startswith(f"{NAME} could not be downloaded: ")
    assert find(client, cache, local_files_only=True) == [old]
    assert find(client, cache) == [new]


@pytest.mark.parametrize("status", [500, 503])
def test_a_hub_with_errors(
    server: LoopbackHub, client: Client, cache: Path, files: dict, status: int
) -> None:
    sha = server.add(NAME, files)
    with server.fault(".", status=status):
        (said,) = find(client, cache)
        assert "nor in the local cache" in said and f"error {status}" in said
    assert find(client, cache) == [sha]
    with server.fault(".", status=status):
        found, warning = find(client, cache)
    assert found == sha and f"error {status}: {NAME} is taken from the local cache" in warning


def test_a_busy_hub_is_waited_for_once_if_the_cache_cannot_help(
    server: LoopbackHub, client: Client, cache: Path, files: dict
) -> None:
    sha = server.add(NAME, files)
    with server.fault("GET /api/models", status=429, headers={"Retry-After": "300"}) as fault:
        (said,) = find(client, cache)
        assert "too many requests from here: try again in 300 s" in said
        fault.headers = {"Retry-After": "0.2"}
        (said,) = find(client, cache)
        assert "too many requests from here: try again in 0.2 s" in said
        fault.times = 1
        assert find(client, cache) == [sha]
        fault.times = 100
        found, warning = find(client, cache)
    assert found == sha and "is taken from the local cache" in warning


def test_files_that_are_refused_for_a_while_come_in_the_end(
    server: LoopbackHub, client: Client, cache: Path, files: dict
) -> None:
    sha = server.add(NAME, files)
    with server.fault("GET .*/config.json", status=429, headers={"Retry-After": "0"}, times=1):
        assert find(client, cache) == [sha]


# --- Networks that are none -------------------------------------------------------------------------------


@contextlib.contextmanager
def closed_port() -> Iterator[str]:
    """An address at which nobody listens."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


@contextlib.contextmanager
def silent_port() -> Iterator[str]:
    """One at which every connection is accepted, and nothing is ever said."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"


@contextlib.contextmanager
def trickling_port() -> Iterator[str]:
    """One that says a letter each half second."""
    done = threading.Event()

    def answer(listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listening.accept()
                with connection, contextlib.suppress(OSError):
                    for letter in b"HTTP/1.1 200 OK\r\nX-Long: " + b"a" * 1000:
                        connection.sendall(bytes([letter]))
                        if done.wait(0.5):
                            return

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=answer, args=(listening,), daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        done.set()
