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
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

from starlette.requests import ClientDisconnect

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
BODIES_AT_ONCE = 300_000_000
"""Bytes that requests other than uploads may bring along at the same time: they are in memory, some of it
several times, and so are calls that wait in the queue."""
BODY_KEPT = 5.0
"""How many seconds they count after their request: so long they may wait."""
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
        at_once = max(BODIES_AT_ONCE, rules.max_bytes)
        room: Callable[[], float] = rules.room or (lambda: math.inf)
        self._disk = _Share(room, 2 * uploads.MEASURE_SECONDS, (507, uploads.FULL))
        self._memory = _Share(lambda: at_once, BODY_KEPT, (503, BUSY))

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
        is_upload = bool(_UPLOAD.search(scope["path"]))
        length = headers.get("content-length", "" if "transfer-encoding" in headers else "0")
        announced = int(length) if length.isdecimal() else self.rules.small_bytes + 1
        if announced <= (0 if is_upload else self.rules.small_bytes):
            return await guarded_request.go()
        share = self._disk if is_upload else self._memory
        if share.held() + announced > share.most():
            return await _say(send, *share.full)
        with share.taken() as guarded_request.has_room:
            guarded_request.full = share.full
            await guarded_request.go()

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


class _Share:
    """Bytes that have come, of all requests of a kind, until `seconds` after their end: so long uploads may
    not have been seen on the disk, and calls may wait in the queue. `most` says how many there may be.

    Only what came counts, for what was announced may take its time; so nobody can keep others out by it.
    """

    def __init__(self, most: Callable[[], float], seconds: float, full: tuple[int, str]) -> None:
        self.most, self.seconds, self.full = most, seconds, full
        self._bytes: dict[object, int] = {}

    def held(self) -> int:
        return sum(self._bytes.values())

    @contextmanager
    def taken(self) -> Iterator[Callable[[int], bool]]:
        """What a request calls with the bytes of each of its parts: whether there is room for them."""
        request = object()
        self._bytes[request] = 0

        def came(count: int) -> bool:
            self._bytes[request] += count
            fits = self.held() <= self.most()
            if not fits:
                self._bytes[request] = 0  # it is given up
            return fits

        try:
            yield came
        finally:
            asyncio.get_running_loop().call_later(self.seconds, self._bytes.pop, request)


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
        self.has_room: Callable[[int], bool] = lambda count: True
        self.full = self.refusal = (0, "")

    async def go(self) -> None:
        try:
            receive = await self._small() if _is_own_function(self.scope["path"]) else self.receive
            await self.app(self.scope, receive, self.send)
        except _Refused:
            if not self.status:
                await _say(self._send, *self.refusal)
        except TimeoutError:
            if not self.status and not self.came_whole:
                await _say(self._send, 408, TOO_SLOW)
        except ClientDisconnect:
            return  # it ended what it was sending, as browsers do where something else is given
        except Exception as error:
            # Raised further, it would only close the connection.
            self.failed = self.failed or not self.status
            if self.failed and (sentence := _misfit(error)):
                return await _say(self._send, 400, sentence)
            traceback.print_exc()
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
        count = len(message.get("body", b""))
        self.bytes += count
        if self.bytes > self.most:
            self.refusal = 413, _too_large(self.most)
        elif not self.has_room(count):
            self.refusal = self.full
        if self.refusal[0]:
            raise _Refused
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
            if self.refusal[0]:
                self.replaced = True
                return await _say(self._send, *self.refusal)
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


_MISFITS = {
    re.compile(r"No value provided for required argument: (\w{1,40})"): "{} is needed.",
    re.compile(r"Parameter `(\w{1,40})` is not a valid"): "There is no parameter {}.",
}
"""What Gradio raises when a caller's parameters are not those of the endpoint, and what is told of it."""


def _misfit(error: Exception) -> str | None:
    for raised, told in _MISFITS.items():
        if isinstance(error, TypeError) and (found := raised.match(str(error))):
            return told.format(found[1])
    return None


class _Refused(Exception):
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
