"""ASGI middleware in front of Gradio's: checks of origin, size, time and endpoint; refusals in a sentence.

Gradio's own answer to a request that it does not understand is "Internal Server Error", its private functions
can be called by name, and it has routes that this page has no use for.
"""

from __future__ import annotations

import asyncio
import json
import math
import re
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fkp.demo import origins, uploads

# Routes of Gradio below /gradio_api/ for what this page has not: direct calls past the queue, other servers'
# files, Gradio's own development, recordings, links to a visitor's state, and a history of runs.
_CLOSED = re.compile(r"(run|runs|api|dev|proxy=|custom_component|process_recording|deep_link)\b")
_ADDRESS = re.compile(r"file[=/]\w+:/", re.IGNORECASE)
_UPLOAD = re.compile(r"/gradio_api/upload/?$")
_CALL = re.compile(r"call/(?:v2/)?(?P<name>[^/]*)")

BUSY = "The server is busy: as many requests wait as it can bear. Please try again in a moment."
FAILED = "This did not work. Please try again."
NOT_UNDERSTOOD = "The request could not be answered: it lacks something, or names something that is not here."


TOO_SLOW = "The request came too slowly. Please try again."
HEADER_SECONDS = 20.0
"""How long the headers of a request may take."""
BODY_SECONDS = 60.0
BODY_RATE = 10_000
"""How long a request may take in all, longer by a second for so many bytes that have come."""
CONNECTIONS = 1000
"""How many there may be at the same time; more are answered that the server is busy."""

# Gradio's page has scripts and styles within it, and makes functions of text.
_CONTENT = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' data: blob:",
        "font-src 'self' data:",
        "worker-src 'self' blob:",
        "connect-src 'self' data: blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors ",
    )
)
_SPACES = "'self' https://huggingface.co https://*.huggingface.co https://*.hf.space"


@dataclass(frozen=True)
class Rules:
    """`endpoints` may be called by name, `max_bytes` is the most that a request may bring along; `hosts` and
    `at_home` as `origins.refusal` has them."""

    endpoints: Collection[str]
    max_bytes: int
    hosts: Collection[str] = ()
    at_home: bool = False
    small_bytes: int = 500_000
    """The most that a call of the page's own functions may bring along."""
    room: Callable[[], int] | None = None
    """How many bytes may still be uploaded, None for any number."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """What every answer says to browsers: what a page of ours may load, and who may frame it."""
        framed = _SPACES if any(host.endswith(".hf.space") for host in self.hosts) else "'self'"
        return [
            (b"content-security-policy", f"{_CONTENT}{framed}".encode()),
            (b"x-content-type-options", b"nosniff"),
            (b"referrer-policy", b"same-origin"),
        ]


def limit_connections(server: Any) -> None:
    """Give a uvicorn server limits for connections and for the time that headers take, which it has not."""
    config = server.config
    config.limit_concurrency = CONNECTIONS
    config.timeout_keep_alive = 5

    class HeaderTimeout(config.http_protocol_class):  # type: ignore[misc, name-defined]
        _overdue: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            if self._overdue is None and (self.cycle is None or self.cycle.response_complete):
                self._wait()
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._wait_no_more()

        def connection_lost(self, error: Exception | None) -> None:
            self._wait_no_more()
            super().connection_lost(error)

        def _wait(self) -> None:
            self._overdue = self.loop.call_later(HEADER_SECONDS, self._give_up)

        def _wait_no_more(self) -> None:
            if self._overdue is not None:
                self._overdue.cancel()
                self._overdue = None

        def _give_up(self) -> None:
            self._overdue = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    config.http_protocol_class = HeaderTimeout


def guarded(
    lifespan: Callable[[Any], AbstractAsyncContextManager[None]], rules: Rules
) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """A lifespan for the server's app: all requests pass the checks, before other middleware."""

    @asynccontextmanager
    async def entered(app: Any) -> AsyncIterator[None]:
        # Middleware that is given to Gradio would come after its own, which lets every site ask what it may.
        app.middleware_stack = RequestGuard(app.middleware_stack, rules)
        async with lifespan(app):
            yield

    return entered


class RequestGuard:
    """ASGI middleware: origin, size and endpoint checks, and headers for browsers."""

    def __init__(self, app: Any, rules: Rules) -> None:
        self.app, self.rules = app, rules
        self._uploads: list[_Upload] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] not in ("http", "websocket"):
            return await self.app(scope, receive, send)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        refused = self._refusal(scope, headers)
        if scope["type"] == "websocket":
            if refused:
                return await send({"type": "websocket.close", "code": 1008})
            return await self.app(scope, receive, send)
        if refused:
            return await _say(send, *refused)
        guarded_request = _GuardedRequest(self.app, self.rules, scope, receive, send)
        if _is_own_function(scope["path"]):
            guarded_request.most = self.rules.small_bytes
        if self.rules.room is None or scope["method"] != "POST" or not _UPLOAD.search(scope["path"]):
            return await guarded_request.go()
        # Many at once must not each find the same room: what was announced counts before it has come.
        length, clock = headers.get("content-length", ""), asyncio.get_running_loop()
        upload = _Upload(int(length) if length.isdecimal() else self.rules.max_bytes)
        self._uploads = [other for other in self._uploads if other.counts_until > clock.time()]
        if sum(other.bytes for other in [*self._uploads, upload]) > self.rules.room():
            return await _say(send, 507, uploads.FULL)
        self._uploads.append(upload)
        try:
            await guarded_request.go()
        finally:
            upload.counts_until = clock.time() + 2 * uploads.LOOK_SECONDS

    def _refusal(self, scope: Any, headers: dict[str, str]) -> tuple[int, str] | None:
        foreign = origins.refusal(headers, self.rules.hosts, self.rules.at_home)
        if foreign:
            return 403, foreign
        _, api, route = scope["path"].partition("/gradio_api/")
        if api and (_CLOSED.match(route) or _ADDRESS.match(route)):
            return 404, "There is nothing here."
        call = _CALL.match(route) if api else None
        if call and call["name"] not in self.rules.endpoints:
            names = " and ".join(f"/{name}" for name in sorted(self.rules.endpoints))
            return 404, f"There is no endpoint of this name. Those that can be called are {names}."
        small = _is_own_function(scope["path"])
        most = self.rules.small_bytes if small else self.rules.max_bytes
        length, kind = headers.get("content-length", ""), headers.get("content-type", "")
        # Gradio would put files that come with a call of its page's own functions on the disk.
        if (length.isdecimal() and int(length) > most) or (small and kind.lower().startswith("multipart/")):
            return 413, _too_large(most)
        return None


@dataclass(eq=False)
class _Upload:
    """So many bytes that were announced, from when they begin to come until they are seen in the folder."""

    bytes: int
    counts_until: float = math.inf


class _GuardedRequest:
    """One request that was let in."""

    def __init__(self, app: Any, rules: Rules, scope: Any, receive: Any, send: Any) -> None:
        self.app, self.rules, self.scope = app, rules, scope
        self._receive, self._send = receive, send
        self.most = rules.max_bytes
        self.bytes = 0
        self.came_whole = False
        self.began = asyncio.get_running_loop().time()
        self.status = 0
        self.replaced = self.failed = self.ended = False

    async def go(self) -> None:
        try:
            receive = await self._small() if _is_own_function(self.scope["path"]) else self.receive
            await self.app(self.scope, receive, self.send)
        except _TooLarge:
            if not self.status:
                await _say(self._send, 413, _too_large(self.most))
        except TimeoutError:
            if not self.status and not self.came_whole:
                await _say(self._send, 408, TOO_SLOW)
        except Exception as error:
            # Raised further, it would only close the connection.
            traceback.print_exc()
            self.failed = self.failed or not self.status
            if self.failed and isinstance(error, (LookupError, TypeError, ValueError)):
                return await _say(self._send, 400, NOT_UNDERSTOOD)
        if self.failed:
            await _say(self._send, 500, FAILED)
        elif not self.ended and not self.replaced:
            await self._send({"type": "http.response.body"})  # what streamed has broken off

    async def receive(self) -> Any:
        if self.came_whole:  # what comes now is that somebody goes
            return await self._receive()
        ends = self.began + BODY_SECONDS + self.bytes / BODY_RATE
        async with asyncio.timeout_at(ends):
            message = await self._receive()
        self.came_whole = not message.get("more_body", False)
        self.bytes += len(message.get("body", b""))
        if self.bytes > self.most:
            raise _TooLarge
        return message

    async def _small(self) -> Callable[[], Awaitable[Any]]:
        """What gives a small request whole, and then what comes after it."""
        body = b""
        while not self.came_whole:
            message = await self.receive()
            if message["type"] != "http.request":
                break  # the browser is gone
            body += message.get("body", b"")
        parts = iter([{"type": "http.request", "body": _in_one_session(body), "more_body": False}])

        async def read_again() -> Any:
            return next(parts, None) or await self.receive()

        return read_again

    async def send(self, message: Any) -> None:
        """Pass on what is sent, but for refusals that are no sentence."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": [*message.get("headers", ()), *self.rules.headers()]}
            if self.bytes > self.most:
                self.replaced = True
                return await _say(self._send, 413, _too_large(self.most))
            if self.status == 503:
                self.replaced = True
                return await _say(self._send, 503, BUSY)
            if self.status == 500 and b"json" not in dict(message["headers"]).get(b"content-type", b""):
                self.failed = True  # why will be raised
        if not self.replaced and not self.failed:
            await self._send(message)
            self.ended = message["type"] == "http.response.body" and not message.get("more_body", False)


def _is_own_function(path: str) -> bool:
    """Whether it is a call of one of the page's own functions: camera frames, which are small."""
    return path.rstrip("/").endswith("/component_server")


def _in_one_session(body: bytes) -> bytes:
    """A call of a page's own function as if one session made them all: Gradio would keep one for any name."""
    try:
        call = json.loads(body)
    except (ValueError, RecursionError):
        return body  # Gradio will say so
    return json.dumps(call | {"session_hash": "live"}).encode() if isinstance(call, dict) else body


class _TooLarge(Exception):
    """More has come than is taken."""


def _too_large(most: int) -> str:
    return f"That is too much: a request may bring along {most / 1e6:.1f} MB at most."


async def _say(send: Any, status: int, sentence: str) -> None:
    body = json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"2"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
