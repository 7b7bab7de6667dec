"""A Hugging Face Hub on loopback that speaks the wire protocol to the real client, through HF_ENDPOINT.

Files go up inside the commit (base64 in ndjson) and come down by HEAD and GET on /ID/resolve/REVISION/FILE.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Repository:
    """Commits, newest last: (40 hex digits, path → content, message)."""

    private: bool
    commits: list[tuple[str, dict[str, bytes], str]] = field(default_factory=list)

    def files(self, revision: str) -> tuple[str, dict[str, bytes]] | None:
        wanted = self.commits[-1][0] if revision == "main" and self.commits else revision
        return next(((sha, files) for sha, files, _ in self.commits if sha == wanted), None)


class LoopbackHub:
    """Use as a context manager; `url` is the endpoint, `requests` what was asked as "METHOD /path"."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub._answer_get(self)

            do_HEAD = do_GET

            def do_POST(self) -> None:
                hub._answer_post(self)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> LoopbackHub:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    # --- answers ---

    def _answer_get(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append(f"{request.command} {request.path}")
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", request.path)
        if not match:
            return _send(request, 404, {"error": f"nothing is spoken at {request.path}"})
        repo_id, revision, name = match.groups()
        repository = self.repositories.get(repo_id)
        if repository is None or repository.private and "Authorization" not in request.headers:
            # The Hub tells an anonymous caller the same of a private and of a missing repository.
            return _send(request, 401, {"error": "Invalid username or password."}, code="RepoNotFound")
        found = repository.files(revision)
        if found is None:
            return _send(request, 404, {"error": "Invalid rev id"}, code="RevisionNotFound")
        sha, files = found
        if name not in files:
            return _send(request, 404, {"error": "Entry not found"}, code="EntryNotFound", commit=sha)
        _send(request, 200, files[name], commit=sha)

    def _answer_post(self, request: BaseHTTPRequestHandler) -> None:
        self.requests.append(f"{request.command} {request.path}")
        body = _read(request)
        if "Authorization" not in request.headers:
            return _send(request, 401, {"error": "Invalid username or password."})
        if request.path == "/api/repos/create":
            asked = json.loads(body)
            repo_id = f"{asked['organization']}/{asked['name']}"
            if repo_id in self.repositories:
                return _send(request, 409, {"error": "exists", "url": f"{self.url}/{repo_id}"})
            self.repositories[repo_id] = Repository(bool(asked.get("private")))
            return _send(request, 200, {"url": f"{self.url}/{repo_id}"})
        if request.path == "/api/validate-yaml":
            return _send(request, 200, {"errors": [], "warnings": []})
        match = re.fullmatch(r"/api/models/([^/]+/[^/]+)/(preupload|commit)/main", request.path)
        if not match or match[1] not in self.repositories:
            return _send(request, 404, {"error": "Repository not found"}, code="RepoNotFound")
        if match[2] == "preupload":
            files = [
                {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                for file in json.loads(body)["files"]
            ]
            return _send(request, 200, {"files": files})
        self._commit(request, match[1], body)

    def _commit(self, request: BaseHTTPRequestHandler, repo_id: str, body: bytes) -> None:
        repository = self.repositories[repo_id]
        files = dict(repository.commits[-1][1]) if repository.commits else {}
        message = ""
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "header":
                message = entry["value"]["summary"]
            elif entry["key"] == "file":
                files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        sha = hashlib.sha1(f"{repo_id} {len(repository.commits)}".encode()).hexdigest()
        repository.commits.append((sha, files, message))
        url = f"{self.url}/{repo_id}/commit/{sha}"
        _send(request, 200, {"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})


def _read(request: BaseHTTPRequestHandler) -> bytes:
    if request.headers.get("Transfer-Encoding") == "chunked":
        body = b""
        while size := int(request.rfile.readline(), 16):
            body += request.rfile.read(size)
            request.rfile.readline()
        request.rfile.readline()
        return body
    return request.rfile.read(int(request.headers.get("Content-Length", 0)))


def _send(
    request: BaseHTTPRequestHandler,
    status: int,
    content: bytes | dict[str, Any],
    *,
    code: str = "",
    commit: str = "",
) -> None:
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    request.send_response(status)
    request.send_header("Content-Length", str(len(body)))
    if isinstance(content, bytes):
        request.send_header("ETag", f'"{hashlib.sha1(content).hexdigest()}"')
    else:
        request.send_header("Content-Type", "application/json")
    if code:
        request.send_header("X-Error-Code", code)
    if commit:
        request.send_header("X-Repo-Commit", commit)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)
