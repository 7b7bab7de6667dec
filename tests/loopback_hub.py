"""A Hugging Face Hub on loopback that speaks the wire protocol to the real client, through HF_ENDPOINT.

Small files go up inside the commit (base64 in ndjson), those that the Hub keeps as LFS by PUTs that a batch
tells of; both come down by HEAD and GET on /ID/resolve/REVISION/FILE, LFS files by way of a redirect to
another host, as from a CDN. The Hub's newer storage, Xet, is not spoken here. To try it by hand:

    python -m tests.loopback_hub
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]

LFS = ("*.safetensors", "*.onnx", "*.bin", "*.pt", "*.parquet", "*.tar")
"""Names of the files that are kept as LFS; the Hub goes by .gitattributes, which says so, and by size."""

TASKS = {"keypoint-detection", "object-detection", "image-classification"}
"""Some of the tasks that a card may name."""


@dataclass
class Commit:
    sha: str
    files: dict[str, bytes]
    message: str = ""


@dataclass
class Repository:
    """Commits, newest last; branches and tags other than main by name."""

    private: bool = False
    commits: list[Commit] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)
    gated: bool = False
    made_as: dict[str, Any] = field(default_factory=dict)
    variables: dict[str, str] = field(default_factory=dict)

    def at(self, revision: str) -> Commit | None:
        if revision == "main":
            return self.commits[-1] if self.commits else None
        sha = self.names.get(revision, revision)
        return next((commit for commit in self.commits if commit.sha == sha), None)


@dataclass
class User:
    """Whose a token is, and what it may do: "read", "write" or "fineGrained"."""

    name: str = "someone"
    role: str = "write"
    organisations: tuple[str, ...] = ()

    @property
    def owns(self) -> set[str]:
        return {self.name, *self.organisations}


@dataclass
class Fault:
    """What happens to requests "METHOD /path" that match, instead of an answer, so many `times`.

    `status` with `headers` is answered; without one, the connection is closed after `cut` bytes of the body
    that would have come (None: before any answer). With `dies`, every connection from then on is.
    """

    match: str
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    dies: bool = False
    times: int = 10**6


class LoopbackHub:
    """Use as a context manager; `url` is the endpoint, `requests` what was asked as "METHOD /path".

    `tokens` are the users by their token, `faults` what goes wrong.
    """

    def __init__(self, port: int = 0) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.ranges: list[str] = []
        self.tokens = {"hf_secret": User()}
        self.faults: list[Fault] = []
        self.large: dict[str, bytes] = {}
        self.dead = False
        self._lock = threading.Lock()
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub._answer(self)

            do_HEAD = do_POST = do_PUT = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: Any) -> None:
                """A client that went away is no matter."""

        self._server = Server(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # The same server under another name, for what the real Hub keeps on other machines.
        self.storage = f"http://localhost:{self._server.server_port}"

    def __enter__(self) -> LoopbackHub:
        # It looks so often whether it is to end.
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def add(self, repo_id: str, files: dict[str, bytes], *, private: bool = False, message: str = "") -> str:
        """Commit files to a repository, which is made if need be; the commit."""
        with self._lock:
            repository = self.repositories.setdefault(repo_id, Repository(private))
            sha = hashlib.sha1(f"{repo_id} {len(repository.commits)}".encode()).hexdigest()
            repository.commits.append(Commit(sha, dict(files), message))
            return sha

    @contextmanager
    def fault(self, match: str, **how: Any) -> Iterator[Fault]:
        """One more fault for a while."""
        fault = Fault(match, **how)
        self.faults.append(fault)
        try:
            yield fault
        finally:
            self.faults.remove(fault)
            self.dead = False

    # --- answers ---

    def _answer(self, request: BaseHTTPRequestHandler) -> None:
        asked = f"{request.command} {request.path}"
        with self._lock:
            self.requests.append(asked)
        answer = _Answer(request)
        body = _read(request)
        if self.dead:
            return answer.hang_up()
        for fault in self.faults:
            if fault.times > 0 and re.search(fault.match, asked):
                fault.times -= 1
                self.dead = fault.dies
                if fault.status is not None:
                    return answer.send(fault.status, {"error": "a fault"}, fault.headers)
                if fault.cut is None:
                    return answer.hang_up()
                answer.cut = fault.cut
        path, _, query = request.path.partition("?")
        given = request.headers.get("Authorization", "").removeprefix("Bearer ")
        if given and given not in self.tokens and not path.startswith("/storage/"):
            return answer.send(401, {"error": "Invalid credentials in Authorization header"})
        user = self.tokens.get(given)
        parts = [urllib.parse.unquote(part) for part in path.strip("/").split("/")]
        # A Space is a repository like any other, but for what it runs on and is told; so is a dataset.
        if parts[:2] in (["api", "spaces"], ["api", "datasets"]):
            parts[1] = "models"
        elif parts[0] in ("spaces", "datasets"):
            del parts[0]
        match request.command, parts:
            case "POST", ["api", "models", owner, name, "variables"]:
                self._variable(answer, user, f"{owner}/{name}", json.loads(body))
            case "GET", ["api", "whoami-v2"]:
                self._whoami(answer, user)
            case "POST", ["api", "repos", "create"]:
                self._create(answer, user, json.loads(body))
            case "POST", ["api", "validate-yaml"]:
                _validate(answer, json.loads(body))
            case "POST", ["api", "models", owner, name, "preupload", revision]:
                self._preupload(answer, user, f"{owner}/{name}", revision, json.loads(body))
            case "POST", ["api", "models", owner, name, "commit", "main"]:
                self._commit(answer, user, f"{owner}/{name}", body)
            case "POST", ["api", "models", owner, name, ("tag" | "branch") as kind, label]:
                self._name(answer, user, f"{owner}/{name}", kind, label, json.loads(body or b"{}"))
            case "POST", [owner, name, "info", "lfs", "objects", "batch"] if name.endswith(".git"):
                self._batch(answer, user, f"{owner}/{name.removesuffix('.git')}", json.loads(body))
            case "PUT", ["storage", oid]:
                self._store(answer, oid, body)
            case "POST", ["storage", oid, "verify"]:
                self._verify(answer, oid, json.loads(body))
            case (("GET" | "HEAD"), ["storage", _]) if given:
                answer.send(400, {"error": "a token must not go to another host"})
            case (("GET" | "HEAD"), ["storage", oid]):
                self._send_file(answer, self.large[oid], {"ETag": f'"{oid}"'})
            case (("GET" | "HEAD"), [owner, name, "resolve", revision, *file]):
                self._resolve(answer, user, f"{owner}/{name}", revision, "/".join(file))
            case "GET", ["api", "models", owner, name]:
                self._info(answer, user, f"{owner}/{name}", "main")
            case "GET", ["api", "models", owner, name, "revision", revision]:
                self._info(answer, user, f"{owner}/{name}", revision)
            case "GET", ["api", "models", owner, name, "tree", revision, *folder]:
                recursive = "recursive=true" in query.lower()
                self._tree(answer, user, f"{owner}/{name}", revision, "/".join(folder), recursive)
            case "POST", ["api", "models", owner, name, "paths-info", revision]:
                asked_for = urllib.parse.parse_qs(body.decode()).get("paths", [])
                self._paths(answer, user, f"{owner}/{name}", revision, asked_for)
            case _:
                answer.send(404, {"error": f"nothing is spoken at {path}"})

    def _readable(self, answer: _Answer, user: User | None, repo_id: str) -> Repository | None:
        """The repository, if the user may read it; otherwise it is answered."""
        repository = self.repositories.get(repo_id)
        owner = repo_id.split("/")[0]
        if repository is None or repository.private and not (user and owner in user.owns):
            # The Hub tells an anonymous caller the same of a private and of a missing repository.
            status, said = (404, "Repository not found") if user else (401, "Invalid username or password.")
            answer.send(status, {"error": said}, {"X-Error-Code": "RepoNotFound"})
            return None
        if repository.gated and not user:
            said = f"Access to model {repo_id} is restricted. You must be authenticated to access it."
            answer.send(401, {"error": said}, {"X-Error-Code": "GatedRepo"})
            return None
        return repository

    def _writable(self, answer: _Answer, user: User | None, repo_id: str) -> Repository | None:
        """Likewise, if the user may write it."""
        if not user:
            answer.send(401, {"error": "Invalid username or password."})
            return None
        repository = self._readable(answer, user, repo_id)
        if repository and (user.role == "read" or repo_id.split("/")[0] not in user.owns):
            answer.send(403, {"error": "You don't have the required permissions"})
            return None
        return repository

    def _at(
        self, answer: _Answer, user: User | None, repo_id: str, revision: str
    ) -> tuple[Repository, Commit] | None:
        """Likewise, a commit that can be read."""
        repository = self._readable(answer, user, repo_id)
        if repository is None:
            return None
        commit = repository.at(revision)
        if commit is None:
            answer.send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
            return None
        return repository, commit

    def _whoami(self, answer: _Answer, user: User | None) -> None:
        if user is None:
            return answer.send(401, {"error": "Invalid username or password."})
        answer.send(
            200,
            {
                "type": "user",
                "name": user.name,
                "orgs": [{"type": "org", "name": name} for name in user.organisations],
                "auth": {"type": "access_token", "accessToken": {"displayName": "test", "role": user.role}},
            },
        )

    def _create(self, answer: _Answer, user: User | None, asked: dict[str, Any]) -> None:
        if user is None:
            return answer.send(401, {"error": "Invalid username or password."})
        repo_id = f"{asked.get('organization') or user.name}/{asked['name']}"
        url = f"{self.url}/{'spaces/' if asked.get('type') == 'space' else ''}{repo_id}"
        if repo_id in self.repositories:
            return answer.send(409, {"error": "exists", "url": url})
        if user.role == "read" or repo_id.split("/")[0] not in user.owns:
            said = "You don't have the rights to create a model under the namespace"
            return answer.send(403, {"error": said})
        private = bool(asked.get("private")) or asked.get("visibility") == "private"
        lines = "".join(f"{pattern} filter=lfs diff=lfs merge=lfs -text\n" for pattern in LFS)
        self.add(repo_id, {".gitattributes": lines.encode()}, private=private, message="initial commit")
        self.repositories[repo_id].made_as = asked
        answer.send(200, {"url": url})

    def _variable(self, answer: _Answer, user: User | None, repo_id: str, asked: dict[str, Any]) -> None:
        if repository := self._writable(answer, user, repo_id):
            repository.variables[asked["key"]] = asked["value"]
            answer.send(200, {key: {"value": value} for key, value in repository.variables.items()})

    def _preupload(
        self, answer: _Answer, user: User | None, repo_id: str, revision: str, asked: dict[str, Any]
    ) -> None:
        repository = self._writable(answer, user, repo_id)
        if repository is None:
            return
        commit = repository.at(revision)
        files = []
        for file in asked["files"]:
            there = commit.files.get(file["path"]) if commit else None
            oid = None  # an empty file is one too
            if there is not None:
                oid = _sha256(there) if _is_lfs(file["path"]) else _git_hash(there)
            mode = "lfs" if _is_lfs(file["path"]) else "regular"
            files.append({"path": file["path"], "uploadMode": mode, "shouldIgnore": False, "oid": oid})
        answer.send(200, {"files": files})

    def _batch(self, answer: _Answer, user: User | None, repo_id: str, asked: dict[str, Any]) -> None:
        if self._writable(answer, user, repo_id) is None:
            return
        objects = []
        for wanted in asked["objects"]:
            one: dict[str, Any] = dict(wanted)
            if wanted["oid"] not in self.large:
                href = f"{self.storage}/storage/{wanted['oid']}"
                verify = f"{self.url}/storage/{wanted['oid']}/verify"
                one["actions"] = {"upload": {"href": href}, "verify": {"href": verify}}
            objects.append(one)
        answer.send(200, {"transfer": "basic", "objects": objects})

    def _store(self, answer: _Answer, oid: str, body: bytes) -> None:
        if _sha256(body) != oid:
            return answer.send(400, {"error": "the content does not have this hash"})
        self.large[oid] = body
        answer.send(200, {})

    def _verify(self, answer: _Answer, oid: str, asked: dict[str, Any]) -> None:
        whole = asked["oid"] == oid and len(self.large.get(oid, b"")) == asked["size"]
        answer.send(200 if whole else 404, {})

    def _commit(self, answer: _Answer, user: User | None, repo_id: str, body: bytes) -> None:
        repository = self._writable(answer, user, repo_id)
        if repository is None:
            return
        files = dict(repository.commits[-1].files) if repository.commits else {}
        message = ""
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "header":
                message = value["summary"]
            elif entry["key"] == "file":
                if _is_lfs(value["path"]):
                    return answer.send(400, {"error": f"{value['path']} has to be LFS"})
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                if len(self.large.get(value["oid"], b"")) != value["size"]:
                    return answer.send(400, {"error": f"{value['path']} was not uploaded"})
                files[value["path"]] = self.large[value["oid"]]
            elif entry["key"] == "deletedFile":
                if files.pop(value["path"], None) is None:
                    return answer.send(404, {"error": "A file with this name doesn't exist"})
            else:
                return answer.send(400, {"error": f"{entry['key']} is not spoken here"})
        sha = self.add(repo_id, files, message=message)
        url = f"{self.url}/{repo_id}/commit/{sha}"
        answer.send(200, {"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})

    def _name(
        self, answer: _Answer, user: User | None, repo_id: str, kind: str, label: str, asked: dict[str, Any]
    ) -> None:
        """A branch is named in the path; of a tag that is the revision, and the body has its name."""
        repository = self._writable(answer, user, repo_id)
        if repository is None:
            return
        start = label if kind == "tag" else asked.get("startingPoint", "main")
        commit = repository.at(start)
        if commit is None:
            return answer.send(404, {"error": "Invalid rev id"}, {"X-Error-Code": "RevisionNotFound"})
        repository.names[asked["tag"] if kind == "tag" else label] = commit.sha
        answer.send(200, {})

    def _info(self, answer: _Answer, user: User | None, repo_id: str, revision: str) -> None:
        if found := self._at(answer, user, repo_id, revision):
            repository, commit = found
            siblings = [{"rfilename": name} for name in commit.files]
            about = {"id": repo_id, "sha": commit.sha, "private": repository.private, "siblings": siblings}
            answer.send(200, about)

    def _tree(
        self, answer: _Answer, user: User | None, repo_id: str, revision: str, folder: str, recursive: bool
    ) -> None:
        """What is in a folder, and below it if `recursive`."""
        if found := self._at(answer, user, repo_id, revision):
            start = f"{folder}/" if folder else ""
            entries = [
                entry for path, entry in _entries(found[1].files).items()
                if path.startswith(start) and (recursive or "/" not in path[len(start) :])
            ]  # fmt: skip
            answer.send(200, entries)

    def _paths(
        self, answer: _Answer, user: User | None, repo_id: str, revision: str, paths: list[str]
    ) -> None:
        if found := self._at(answer, user, repo_id, revision):
            entries = _entries(found[1].files)
            answer.send(200, [entries[path] for path in paths if path in entries])

    def _resolve(self, answer: _Answer, user: User | None, repo_id: str, revision: str, name: str) -> None:
        found = self._at(answer, user, repo_id, revision)
        if found is None:
            return
        commit = found[1]
        headers = {"X-Repo-Commit": commit.sha}
        if name not in commit.files:
            headers["X-Error-Code"] = "EntryNotFound"
            return answer.send(404, {"error": "Entry not found"}, headers)
        content = commit.files[name]
        if not _is_lfs(name):
            return self._send_file(answer, content, headers | {"ETag": f'"{_git_hash(content)}"'})
        oid = _sha256(content)
        self.large[oid] = content
        headers |= {"X-Linked-ETag": f'"{oid}"', "X-Linked-Size": str(len(content))}
        answer.send(302, b"", headers | {"Location": f"{self.storage}/storage/{oid}"})

    def _send_file(self, answer: _Answer, content: bytes, headers: dict[str, str]) -> None:
        """All of it, or the part from the start of a range."""
        asked = answer.request.headers.get("Range", "")
        headers |= {"Accept-Ranges": "bytes"}
        if not (match := re.fullmatch(r"bytes=(\d+)-(\d*)", asked)):
            return answer.send(200, content, headers)
        with self._lock:
            self.ranges.append(asked)
        start = int(match[1])
        if start >= len(content):
            return answer.send(416, b"", headers | {"Content-Range": f"bytes */{len(content)}"})
        stop = min(int(match[2]) + 1 if match[2] else len(content), len(content))
        place = f"bytes {start}-{stop - 1}/{len(content)}"
        answer.send(206, content[start:stop], headers | {"Content-Range": place})


class _Answer:
    """Sends one; with `cut`, so many bytes of the body, and then the connection breaks."""

    def __init__(self, request: BaseHTTPRequestHandler) -> None:
        self.request, self.cut = request, -1

    def send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.request.send_response(status)
        self.request.send_header("Content-Length", str(len(body)))
        if not isinstance(content, bytes):
            self.request.send_header("Content-Type", "application/json")
            if isinstance(content, dict) and "error" in content:
                self.request.send_header("X-Error-Message", content["error"])
        for name, value in (headers or {}).items():
            self.request.send_header(name, value)
        self.request.end_headers()
        if self.request.command == "HEAD":
            return
        if 0 <= self.cut < len(body):
            self.request.wfile.write(body[: self.cut])
            return self.hang_up()
        self.request.wfile.write(body)

    def hang_up(self) -> None:
        self.request.wfile.flush()
        self.request.close_connection = True


def _validate(answer: _Answer, asked: dict[str, Any]) -> None:
    """As the Hub looks at the header of a card; 400 with what is wrong."""
    match = re.match(r"---\n(.*?)\n---\n", asked["content"], re.DOTALL)
    errors = []
    header: Any = None
    try:
        header = yaml.safe_load(match[1]) if match else {}
    except yaml.YAMLError as error:
        errors.append(str(error))
    if isinstance(header, dict):
        if not isinstance(header.get("license", ""), str):
            errors.append('"license" must be a string')
        if header.get("pipeline_tag", "keypoint-detection") not in TASKS:
            errors.append('"pipeline_tag" is no task')
        for model in header.get("model-index", []):
            for result in model["results"]:
                if not {"task", "dataset", "metrics"} <= result.keys():
                    errors.append('"model-index[0].results" lack task, dataset or metrics')
                if not all(isinstance(metric["value"], int | float) for metric in result["metrics"]):
                    errors.append('"model-index" has a value that is no number')
    elif header is not None:
        errors.append("the header is no mapping")
    found = [{"message": message} for message in errors]
    answer.send(400 if errors else 200, {"errors": found, "warnings": []})


def settings(endpoint: str, home: Path, **more: str) -> dict[str, str]:
    """The environment of a process whose Hub is at `endpoint` and whose cache is in `home`; `more` is added.

    What the one here says of the Hub, a token above all, is left out.
    """
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    clean |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    return clean | {"NO_PROXY": "127.0.0.1,localhost"} | more


def fresh_process(code: str, endpoint: str, home: Path, **more: str) -> list[str]:
    """The lines that code prints in a new process with these `settings`."""
    done = run_fresh([sys.executable, "-c", code], endpoint, home, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def run_fresh(command: list[str], endpoint: str, home: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """What comes of a command with these `settings`, run in the project's folder."""
    return subprocess.run(
        command, env=settings(endpoint, home, **more), cwd=ROOT, capture_output=True, text=True, timeout=300
    )


class Client:
    """A process with these `settings` that runs pieces of code one after another: a new one takes seconds.

    Use as a context manager; called with code, it gives the lines that this prints.
    """

    def __init__(self, endpoint: str, home: Path, **more: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _SERVES], env=settings(endpoint, home, **more), cwd=ROOT,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=60)  # closes stdin, which ends it

    def __call__(self, code: str) -> list[str]:
        process = self._process
        assert process.stdin and process.stdout
        process.stdin.write(json.dumps(code) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert answer["failed"] is None, answer["failed"]
        return answer["printed"].splitlines()


_SERVES = """
import contextlib, io, json, sys, traceback

answers, names = sys.stdout, {"__name__": "client"}
for line in sys.stdin:
    printed, failed = io.StringIO(), None
    with contextlib.redirect_stdout(printed):
        try:
            exec(json.loads(line), names)
        except BaseException:
            failed = traceback.format_exc()
    print(json.dumps({"printed": printed.getvalue(), "failed": failed}), file=answers, flush=True)
"""


def _entries(files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """What the Hub tells of files and of the folders that they lie in, by path."""
    entries: dict[str, dict[str, Any]] = {}
    for path, content in files.items():
        for folder in list(PurePosixPath(path).parents)[:-1]:
            oid = hashlib.sha1(str(folder).encode()).hexdigest()
            entries[str(folder)] = {"type": "directory", "path": str(folder), "size": 0, "oid": oid}
        entry: dict[str, Any] = {"type": "file", "path": path, "size": len(content)}
        entry["oid"] = _git_hash(content)
        if _is_lfs(path):
            entry["lfs"] = {"oid": _sha256(content), "size": len(content), "pointerSize": 130}
        entries[path] = entry
    return entries


def _is_lfs(name: str) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in LFS)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _git_hash(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _read(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding") == "chunked":
        body = b""
        while size := int(request.rfile.readline(), 16):
            body += request.rfile.read(size)
            request.rfile.readline()
        request.rfile.readline()
        return body
    return request.rfile.read(int(request.headers.get("Content-Length", 0)))


if __name__ == "__main__":
    with LoopbackHub() as server:
        print(f"export HF_ENDPOINT={server.url} HF_TOKEN=hf_secret HF_HUB_DISABLE_XET=1", flush=True)
        threading.Event().wait()
