"""What stands before the server's app: who is let in, with how much, and where to; refusals in a sentence.

Gradio's own answer to a request that it does not understand is "Internal Server Error", its private functions
can be called by name, and it has routes that this page has no use for.
"""

from __future__ import annotations

import json
import re
import traceback
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from fkp.demo import origins

# Routes of Gradio below /gradio_api/ for what this page has not: direct calls past the queue, other servers'
# files, Gradio's own development, recordings, links to a visitor's state, and a history of runs.
_CLOSED = re.compile(r"(run|runs|api|dev|proxy=|custom_component|process_recording|deep_link)\b")
_ADDRESS = re.compile(r"file[=/]\w+:/", re.IGNORECASE)
_CALL = re.compile(r"call/(?:v2/)?(?P<name>[^/]*)")

BUSY = "The server is busy: as many requests wait as it can bear. Please try again in a moment."
FAILED = "This did not work. Please try again."
NOT_UNDERSTOOD = "The request could not be answered: it lacks something, or names something that is not here."


@dataclass(frozen=True)
class Rules:
    """`endpoints` may be called by name, `max_bytes` is the most that a request may bring along; `hosts` and
    `at_home` as `origins.refusal` has them."""

    endpoints: Collection[str]
    max_bytes: int
    hosts: Collection[str] = ()
    at_home: bool = False


def guarded(
    lifespan: Callable[[Any], AbstractAsyncContextManager[None]], rules: Rules
) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """A lifespan for the server's app: all that is asked of it passes the door, before other middleware."""

    @asynccontextmanager
    async def entered(app: Any) -> AsyncIterator[None]:
        # Middleware that is given to Gradio would come after its own, which lets every site ask what it may.
        app.middleware_stack = Door(app.middleware_stack, rules)
        async with lifespan(app):
            yield

    return entered


class Door:
    """An ASGI app around another."""

    def __init__(self, app: Any, rules: Rules) -> None:
        self.app, self.rules = app, rules

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
        await _Visit(self.app, self.rules, scope, receive, send).go()

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
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) > self.rules.max_bytes:
            return 413, _too_large(self.rules)
        return None


class _Visit:
    """One request that was let in."""

    def __init__(self, app: Any, rules: Rules, scope: Any, receive: Any, send: Any) -> None:
        self.app, self.rules, self.scope = app, rules, scope
        self._receive, self._send = receive, send
        self.bytes = 0
        self.status = 0
        self.replaced = self.failed = self.ended = False

    async def go(self) -> None:
        try:
            await self.app(self.scope, self.receive, self.send)
        except _TooLarge:
            if not self.status:
                await _say(self._send, 413, _too_large(self.rules))
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
        message = await self._receive()
        self.bytes += len(message.get("body", b""))
        if self.bytes > self.rules.max_bytes:
            raise _TooLarge
        return message

    async def send(self, message: Any) -> None:
        """Pass on what is sent, but for refusals that are no sentence."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            if self.bytes > self.rules.max_bytes:
                self.replaced = True
                return await _say(self._send, 413, _too_large(self.rules))
            if self.status == 503:
                self.replaced = True
                return await _say(self._send, 503, BUSY)
            if self.status == 500 and b"json" not in dict(message["headers"]).get(b"content-type", b""):
                self.failed = True  # why will be raised
        if not self.replaced and not self.failed:
            await self._send(message)
            self.ended = message["type"] == "http.response.body" and not message.get("more_body", False)


class _TooLarge(Exception):
    """More has come than is taken."""


def _too_large(rules: Rules) -> str:
    return f"That is too much: a request may bring along {rules.max_bytes / 1e6:.1f} MB at most."


async def _say(send: Any, status: int, sentence: str) -> None:
    body = json.dumps({"detail": sentence}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    if status == 503:
        headers.append((b"retry-after", b"2"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
