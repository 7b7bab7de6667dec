"""What may go wrong between fkp and the Hub: the real client of huggingface_hub, a Hub on loopback.

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

from fkp import detector, hub
from fkp.hub import download
from fkp.networks import keypoint_net
from tests.hub.test_weights import FACES, KEYPOINTS
from tests.loopback_hub import Client, LoopbackHub, User, fresh_process, run_fresh

NAME = "someone/faces"

SOON = 12
"""huggingface_hub itself would try for 23 seconds, fkp gives up before 3; the rest is for a busy machine."""

PRELUDE = """
import time, warnings
from fkp import hub
from fkp.hub import download

def find(source, **options):
    began = time.monotonic()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            print(hub.find(source, **options).name)
        except hub.WeightsError as error:
            print(error)
    for warning in warned:
        print("warning:", warning.message)
    if time.monotonic() - began > %d:
        print("too late")

def tell(ask, *arguments, **options):
    try:
        print(ask(*arguments, **options))
    except hub.WeightsError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    hub.save(folder, keypoint_net.build(KEYPOINTS), detector.Detector(FACES), {"a": 1}, graphs=False)
    return folder


@pytest.fixture(scope="module")
def files(weights: Path) -> dict[str, bytes]:
    return {name: (weights / name).read_bytes() for name in hub.files(weights)}


@pytest.fixture(scope="module")
def server() -> Iterator[LoopbackHub]:
    with LoopbackHub() as server:
        yield server


@pytest.fixture(scope="module")
def client(server: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with Client(server.url, tmp_path_factory.mktemp("home")) as client:
        client(PRELUDE % SOON)
        yield client


@pytest.fixture(autouse=True)
def empty(server: LoopbackHub) -> None:
    """A Hub without models, requests and faults."""
    server.repositories.clear()
    server.requests.clear()
    server.ranges.clear()
    server.faults.clear()
    server.large.clear()
    server.tokens = {"hf_secret": User()}


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def find(client: Client, cache: Path, source: str = NAME, **options: object) -> list[str]:
    """What `hub.find` gives, or why not; and warnings, one a line."""
    options = {"cache_dir": str(cache)} | options
    return client(f"find({source!r}, **{options!r})")


def blob(cache: Path, name: str) -> Path:
    """Where the one version of a file in the cache lies."""
    (path,) = cache.glob(f"models--someone--faces/snapshots/*/{name}")
    return path.resolve()


# --- the order of looking -------------------------------------------------------------------------------


def test_a_pinned_commit_in_the_cache_needs_no_request(
    server: LoopbackHub, client: Client, cache: Path, files: dict
) -> None:
    sha = server.add(NAME, files)
    assert find(client, cache, revision=sha) == [sha]
    asked = len(server.requests)
    assert find(client, cache, revision=sha) == [sha] and len(server.requests) == asked
    assert find(client, cache, revision=sha, local_files_only=True) == [sha]
    assert len(server.requests) == asked


def test_nor_does_it_in_a_fresh_process(server: LoopbackHub, tmp_path: Path, files: dict) -> None:
    """huggingface_hub has requests of its own that it makes once a process."""
    sha = server.add(NAME, files)
    code = FETCH.format(names=["config.json"], repo_id=NAME, commit=sha)
    first = fresh_process(code, server.url, tmp_path)
    assert first[0] == "config.json"
    asked = len(server.requests)
    assert fresh_process(code, server.url, tmp_path) == first and len(server.requests) == asked


def test_an_older_commit_stays_what_it_was_after_a_newer_push(
    server: LoopbackHub, client: Client, cache: Path, files: dict
) -> None:
    old = server.add(NAME, files)
    server.repositories[NAME].names["v1"] = server.repositories[NAME].names["a/branch"] = old
    new = server.add(NAME, files | {"metrics.json": b'{"a": 2}'})
    folder = cache / "models--someone--faces" / "snapshots"
    for revision in (old, "v1", "a/branch"):
        assert find(client, cache, revision=revision) == [old]
    assert json.loads((folder / old / "metrics.json").read_text()) == {"a": 1}
    for options in ({}, {"revision": "main"}, {"revision": new}):
        assert find(client, cache, **options) == [new]
    assert json.loads((folder / new / "metrics.json").read_text()) == {"a": 2}
    assert find(client, cache, revision="v1", local_files_only=True) == [old]


def test_without_a_network_the_cache_serves_with_a_warning(
    server: LoopbackHub, client: Client, cache: Path, files: dict
) -> None:
    sha = server.add(NAME, files)
    find(client, cache)
    with closed_port() as nowhere:
        found, warning = find(client, cache, endpoint=nowhere)
        assert found == sha
        assert warning.startswith("warning: the Hub cannot be reached (")
        assert warning.endswith(
            f"): {NAME} is taken from the local cache as of commit {sha}, and there may be a newer one"
        )
        assert find(client, cache, endpoint=nowhere, revision=sha) == [sha]  # that is what was asked for
        assert find(client, cache, endpoint=nowhere, local_files_only=True) == [sha]


@pytest.mark.parametrize("kind", ["closed", "silent", "trickling"])
def test_what_is_not_cached_fails_soon_without_a_network(client: Client, cache: Path, kind: str) -> None:
    """A refused connection, a socket that accepts and never answers, one that answers letter by letter."""
    with {"closed": closed_port, "silent": silent_port, "trickling": trickling_port}[kind]() as nowhere:
        (said,) = find(client, cache, endpoint=nowhere)
    assert said.startswith(
        f"{NAME} is neither a folder here nor in the local cache, and the Hub cannot be reached ("
    )


def test_a_host_without_a_name_server_fails_soon(cache: Path) -> None:
    """Looking up a name has no time limit in itself."""
    never = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 s"):
        download.within(0.05, never.wait)
    never.set()
    assert download.within(60, lambda: 3) == 3
    with pytest.raises(ValueError, match="three"):
        download.within(60, lambda: int("three"))


FETCH = """
from fkp.hub import download

for name in {names!r}:
    try:
        print(download.fetch_file({repo_id!r}, name, {commit!r}).name)
    except download.WeightsError as error:
        print(error)
try:
    download.check_push({repo_id!r})
    print("may push")
except download.WeightsError as error:
    print(error)
"""
"""Needs no torch, so that a fresh process takes no time."""


def test_switched_off(server: LoopbackHub, tmp_path: Path, files: dict) -> None:
    """HF_HUB_OFFLINE: no request at all."""
    sha = server.add(NAME, files)
    code = FETCH.format(names=["config.json"], repo_id=NAME, commit=sha)
    assert fresh_process(code, server.url, tmp_path)[0] == "config.json"
    asked = len(server.requests)
    code = FETCH.format(names=["config.json", "metrics.json"], repo_id=NAME, commit=sha)
    assert fresh_process(code, server.url, tmp_path, HF_HUB_OFFLINE="1") == [
        "config.json",
        f"{NAME} at revision {sha} is not in the local cache, and the network is switched off",
        f"{NAME} cannot be pushed: the network is switched off (HF_HUB_OFFLINE)",
    ]
    assert len(server.requests) == asked


def test_the_bundled_weights_and_a_folder_need_no_socket(weights: Path, root: Path, tmp_path: Path) -> None:
    """In a process that cannot open one: the three lines of DESIGN.md, and nothing else on stdout."""
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


def test_a_name_that_may_be_both(server: LoopbackHub, client: Client, cache: Path) -> None:
    """A slip of the pen in a path: no folder, and no model either."""
    (said,) = find(client, cache, "runs/modle")
    assert said == (
        "there is neither a folder runs/modle here nor a model runs/modle on the Hub that you may read: "
        "check the name, and for a private model run 'hf auth login' or let HF_TOKEN hold your token"
    )
    (said,) = find(client, cache, "./runs/modle")
    assert said == "'./runs/modle' is neither a folder here nor a Hub id of the form OWNER/NAME"
    server.add(NAME, {})
    assert find(client, cache, revision="v9") == [f"{NAME} has no revision 'v9' on the Hub"]


# --- who may read -----------------------------------------------------------------------------------------


def test_a_private_model(server: LoopbackHub, client: Client, cache: Path, files: dict) -> None:
    sha = server.add(NAME, files, private=True)
    server.tokens["hf_other"] = User("another")
    for options in ({}, {"token": False}, {"token": "hf_other"}):
        (said,) = find(client, cache, **options)
        assert said.startswith(
            f"there is neither a folder {NAME} here nor a model {NAME} on the Hub that you may"
        )
    assert find(client, cache, token="hf_secret") == [sha]
    (said,) = find(client, cache, token="hf_old", force_download=True)
    assert said == (
        f"{NAME} could not be downloaded: the Hub does not know your token: run 'hf auth login' again, or "
        "take HF_TOKEN away"
    )


def test_the_token_of_the_environment(server: LoopbackHub, tmp_path: Path, files: dict) -> None:
    sha = server.add(NAME, files, private=True)
    code = FETCH.format(names=["config.json"], repo_id=NAME, commit=sha)
    said = fresh_process(code, server.url, tmp_path, HF_TOKEN="hf_secret")
    assert said == ["config.json", "may push"]


def test_a_gated_model(server: LoopbackHub, client: Client, cache: Path, files: dict) -> None:
    server.add(NAME, files)
    server.repositories[NAME].gated = True
    (said,) = find(client, cache)
    assert said.startswith(f"{NAME} is for those who have accepted its terms: do so on its page")


# --- what may be in a repository --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "names, said",
    [
        (["README.md"], "no fkp weights: config.json and model.safetensors are needed"),
        (["config.json"], "no fkp weights: config.json and model.safetensors are needed"),
        (["model.safetensors"], "no fkp weights: config.json and model.safetensors are needed"),
        (
            ["config.json", "pytorch_model.bin", "README.md"],
            "pytorch_model.bin but no model.safetensors: that may run any code when it is loaded, so fkp "
            "never does; ask for config.json and model.safetensors as 'fkp push' uploads them",
        ),
    ],
)
def test_no_weights(
    server: LoopbackHub, client: Client, cache: Path, files: dict, names: list[str], said: str
) -> None:
    server.add(NAME, {name: files.get(name, b"") for name in names})
    assert find(client, cache) == [f"{NAME} holds {said}"]
    assert not any(asked.startswith("GET") and ".bin" in asked for asked in server.requests)


def test_what_need_not_be_there(server: LoopbackHub, client: Client, cache: Path, files: dict) -> None:
    sha = server.add(NAME, {name: files[name] for name in ("config.json", "model.safetensors")})
    for options in ({}, {"revision": sha}, {"local_files_only": True}):
        assert find(client, cache, **options) == [sha]


def test_a_config_that_is_no_json(server: LoopbackHub, client: Client, cache: Path, files: dict) -> None:
    server.add(NAME, files | {"config.json": b"{"})
    assert find(client, cache) == [f"config.json of {NAME} comes damaged from the Hub"]


# --- a cache that is not as it should be ------------------------------------------------------------------


def test_a_download_that_was_cut_off_before_the_figures_came(
    server: LoopbackHub, client: Client, cache: Path, files: dict
) -> None:
    """The commit is in the cache, but not all of it: what is missing is asked for once there is a network."""
    sha = server.add(NAME, files)
    find(client, cache)
    (cache / "models--someone--faces" / "snapshots" / sha / "metrics.json").unlink()
    assert find(client, cache, revision=sha, local_files_only=True) == [sha]
    assert find(client, cache, revision=sha) == [sha]
    assert (cache / "models--someone--faces" / "snapshots" / sha / "metrics.json").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "metrics.json"])
def test_a_file_of_the_cache_that_is_damaged(
    server: LoopbackHub, client: Client, cache: Path, files: dict, name: str
) -> None:
    """With a network it is fetched anew; without, a sentence says which file to delete."""
    sha = server.add(NAME, files)
    find(client, cache)
    path = blob(cache, name)
    path.write_bytes(bytes(len(files[name])))  # as long as before: the disk was full, say
    (said,) = find(client, cache, revision=sha, local_files_only=True)
    assert said.endswith(f"is damaged: delete {path}, and it will be downloaded again")
    for revision in (sha, None):
        path.write_bytes(bytes(len(files[name])))
        assert find(client, cache, revision=revision) == [sha]
        assert blob(cache, name).read_bytes() == files[name]


@pytest.mark.parametrize("content", ["its beginning", "something else"])
def test_a_half_written_file_of_the_cache(
    server: LoopbackHub, client: Client, cache: Path, files: dict, content: str
) -> None:
    """As an interrupted download leaves it; some versions of huggingface_hub go on from there."""
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


# --- a Hub that fails -------------------------------------------------------------------------------------


def test_a_connection_that_breaks_is_taken_up_where_it_broke(
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
    if "could not be downloaded, for the connection broke off (" in said:
        (said,) = client(ask)
    assert server.ranges == [f"bytes={10 * 2**20}-"]
    assert Path(said).read_bytes() == content


def test_a_hub_that_dies_in_mid_download(
    server: LoopbackHub, client: Client, cache: Path, files: dict
) -> None:
    """A clear error, nothing half done in the cache, and all is well once the Hub is back."""
    sha = server.add(NAME, files)
    with server.fault("GET /storage/", cut=1000, dies=True):
        said, *_ = find(client, cache)  # huggingface_hub tries five times more, a second apart
    assert said.startswith(f"{NAME} could not be downloaded, for the connection broke off (")
    assert said.endswith("): try again")
    assert not list(cache.rglob("snapshots/*/model.safetensors"))
    (said,) = find(client, cache, local_files_only=True)
    assert said == f"{NAME} is neither a folder here nor in the local cache, and the network is switched off"
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
def test_a_hub_that_is_ill(
    server: LoopbackHub, client: Client, cache: Path, files: dict, status: int
) -> None:
    sha = server.add(NAME, files)
    with server.fault(".", status=status):
        assert find(client, cache) == [
            f"{NAME} is neither a folder here nor in the local cache, and the Hub answers with error {status}"
        ]
    assert find(client, cache) == [sha]
    with server.fault(".", status=status):
        found, warning = find(client, cache)
    assert found == sha and f"error {status}: {NAME} is taken from the local cache" in warning


def test_a_hub_that_is_busy(server: LoopbackHub, client: Client, cache: Path, files: dict) -> None:
    """429: a short wait is waited, once, where the cache cannot help; a long one is told."""
    sha = server.add(NAME, files)
    with server.fault("HEAD ", status=429, headers={"Retry-After": "300"}) as fault:
        assert find(client, cache) == [
            f"{NAME} is neither a folder here nor in the local cache, and the Hub has had too many requests "
            "from here: try again in 300 s"
        ]
        fault.headers = {"Retry-After": "1"}
        (said,) = find(client, cache)
        assert said.endswith("too many requests from here: try again in 1 s")
        fault.headers = {}
        (said,) = find(client, cache)
        assert said.endswith("too many requests from here")
        fault.headers, fault.times = {"Retry-After": "1"}, 1
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
    with server.fault("GET .*/config.json", status=500):
        (said,) = find(client, cache, cache_dir=str(cache.with_name("another")))
    assert said == f"{NAME} could not be downloaded: the Hub answers with error 500"


# --- push ---------------------------------------------------------------------------------------------------


def push(client: Client, weights: Path, name: str = NAME, token: str = "hf_secret", **options: object) -> str:
    """What `hub.push` gives, after the check that comes before it, or why not."""
    (said,) = client(
        f"""
def push():
    download.check_push({name!r}, {token!r})
    return hub.push({str(weights)!r}, {name!r}, token={token!r}, **{options!r})

tell(push)
"""
    )
    return said


def test_push_and_push_again(
    server: LoopbackHub, client: Client, weights: Path, cache: Path, files: dict
) -> None:
    url = push(client, weights, private=True)
    repository = server.repositories[NAME]
    initial, commit = repository.commits
    assert url == f"{server.url}/{NAME}/commit/{commit.sha}" and repository.private
    assert commit.files == initial.files | files
    assert push(client, weights) == url and len(repository.commits) == 2  # nothing has changed
    assert find(client, cache, token="hf_secret", revision=commit.sha) == [commit.sha]
    assert {asked.split()[0] for asked in server.requests if "/storage/" in asked} == {"PUT", "POST", "GET"}


@pytest.mark.parametrize(
    "user, said",
    [
        (None, "the Hub does not let you write {}: run 'hf auth login' with a token that may write"),
        (User(role="read"), "{} cannot be pushed: the token may only read, make one that may write"),
        (
            User("another"),
            "{} cannot be pushed: the token is another's, who is not in 'someone' on the Hub",
        ),
        # Such a token does not tell all that it may do: the Hub itself refuses.
        (
            User("another", role="fineGrained"),
            "the Hub does not let you write {}: run 'hf auth login' with a token that may write",
        ),
    ],
)
def test_no_right_to_push(
    server: LoopbackHub, client: Client, weights: Path, user: User | None, said: str
) -> None:
    server.tokens = {"hf_secret": user} if user else {}
    assert push(client, weights) == said.format(NAME)
    assert not server.repositories


def test_push_to_an_organisation(server: LoopbackHub, client: Client, weights: Path) -> None:
    server.tokens["hf_secret"] = User("another", organisations=("Someone",))
    server.tokens["hf_secret"].organisations += ("someone",)
    assert "/commit/" in push(client, weights)


def test_push_without_a_token(client: Client) -> None:
    (said,) = client(f"tell(download.check_push, {NAME!r})")
    assert said == (
        f"{NAME} cannot be pushed without a token: run 'hf auth login', or let HF_TOKEN hold one that "
        "may write"
    )


def test_push_to_a_hub_that_is_not_there(tmp_path: Path) -> None:
    code = "from fkp.hub import download\ndownload.PATIENCE_TO_PUSH = 1\n"
    code += (
        "try: download.check_push('someone/faces', 'hf_secret')\nexcept download.WeightsError as e: print(e)"
    )
    for nowhere in (closed_port, silent_port):
        with nowhere() as url:
            (said,) = fresh_process(code, url, tmp_path)
        assert said.startswith(f"{NAME} could not be pushed: the Hub cannot be reached (")
        assert said.endswith("), try again later")


@pytest.mark.parametrize(
    "match, how, said",
    [
        ("GET /api/whoami", {"status": 429, "headers": {"Retry-After": "60"}}, "try again in 60 s"),
        ("POST /api/repos", {"status": 500}, "the Hub answers with error 500"),
        ("POST .*/commit/", {"status": 403}, "does not let you write"),
        ("POST .*/commit/", {"cut": None}, "the Hub cannot be reached ("),
        ("PUT /storage/", {"status": 403}, "does not let you write"),
        ("POST .*/validate-yaml", {"status": 400}, "could not be pushed: "),
    ],
)
def test_a_push_that_fails(
    server: LoopbackHub, client: Client, weights: Path, cache: Path, match: str, how: dict, said: str
) -> None:
    """A sentence; the repository is as it was, and the next attempt succeeds."""
    with server.fault(match, **how):
        assert said in push(client, weights)
    assert all(
        commit.message == "initial commit" for r in server.repositories.values() for commit in r.commits
    )
    assert "/commit/" in push(client, weights)


# --- networks that are none -------------------------------------------------------------------------------


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
        thread = threading.Thread(target=answer, args=(listening,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        done.set()
