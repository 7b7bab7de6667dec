"""The browser edition as a host of static files serves it, and a count of what it was asked for."""

from __future__ import annotations

import functools
import gzip
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

FOLDER = "/some/where/"
"""The page opens under any path, not only at a host's root."""


@dataclass
class Website:
    address: str
    requests: list[tuple[str, str, int]] = field(default_factory=list)
    """Method, path below the page's folder, and bytes that were sent for it."""

    @property
    def sent(self) -> int:
        return sum(count for _, _, count in self.requests)


class _Handler(http.server.SimpleHTTPRequestHandler):
    """A static host: gzip, ETag and nothing else."""

    def __init__(self, *args, website: Website, headers: dict[str, str], **options) -> None:
        self.website, self.more_headers = website, headers
        super().__init__(*args, **options)

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        file = Path(self.directory) / (path.removeprefix(FOLDER) or "index.html")
        if not path.startswith(FOLDER) or not file.is_file():
            self.send_error(404)
            return
        content, tag = _packed(file), f'"{file.stat().st_mtime_ns}"'
        same = self.headers.get("If-None-Match") == tag
        self.send_response(304 if same else 200)
        self.send_header("ETag", tag)
        for name, value in self.more_headers.items():
            self.send_header(name, value)
        if not same:
            self.send_header("Content-Type", _TYPES.get(file.suffix, "application/octet-stream"))
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not same:
            self.wfile.write(content)
        self.website.requests.append(("GET", path.removeprefix(FOLDER), 0 if same else len(content)))

    def do_POST(self) -> None:
        self.website.requests.append(("POST", self.path, 0))
        self.send_error(405)

    do_PUT = do_POST

    def log_message(self, *args) -> None:
        pass


_TYPES = {
    ".html": "text/html", ".js": "text/javascript", ".mjs": "text/javascript", ".css": "text/css",
    ".wasm": "application/wasm", ".json": "application/json", ".svg": "image/svg+xml", ".png": "image/png",
    ".jpg": "image/jpeg", ".webmanifest": "application/manifest+json",
}  # fmt: skip


@functools.cache
def _packed(file: Path) -> bytes:
    return gzip.compress(file.read_bytes(), 6)


@contextmanager
def serving(folder: Path, headers: dict[str, str] | None = None) -> Iterator[Website]:
    website = Website("")
    handler = functools.partial(_Handler, website=website, headers=headers or {}, directory=str(folder))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    website.address = f"http://127.0.0.1:{server.server_port}{FOLDER}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield website
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
