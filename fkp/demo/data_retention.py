"""What visitors leave on the server, and how it is forgotten: files in one folder, sessions in memory.

Gradio deletes the files that it knows of by itself (`delete_cache`), but not those it has lost sight of, as
when an upload breaks off, nor what a session holds besides `gr.State`; where many upload at once it stops.
"""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

from gradio.state_holder import StateHolder

from fkp.demo import uploads

KEPT_SECONDS = 3600
"""How long, at most, anything of a visitor stays on the server after it came or was last used."""
SWEEP_SECONDS = 60
"""How often what has stayed that long is looked for; sessions that hold no state go as soon as that."""
UNFETCHED_SECONDS = 60
"""How long the answer to a call waits to be fetched when its session is gone."""

log = logging.getLogger(__name__)


def sweeping(folder: Path) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """A lifespan for the server's app: as long as it runs, whatever is old in a folder and in memory goes."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        app.state_holder.__class__ = Sessions
        task = asyncio.create_task(_sweep_now_and_then(folder, app.state_holder))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    return lifespan


async def _sweep_now_and_then(folder: Path, sessions: Any) -> None:
    orphans: dict[str, float] = {}
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        # Each by itself: what fails in one must not keep the others.
        for step in (partial(uploads.forget_old, folder, KEPT_SECONDS), give_memory_back):
            with logged(step):
                await asyncio.to_thread(step)
        with logged(forget_sessions):
            forget_sessions(sessions, KEPT_SECONDS, SWEEP_SECONDS)
        with logged(forget_calls):
            forget_calls(sessions, min(KEPT_SECONDS, UNFETCHED_SECONDS), orphans)


class logged(suppress):
    """Errors are logged, and nothing ends."""

    def __init__(self, what: Any) -> None:
        super().__init__(Exception)
        self.what = what

    def __exit__(self, kind: Any, error: Any, trace: Any) -> bool | None:  # type: ignore[override]
        if kind is not None and issubclass(kind, Exception):
            log.error("%s failed, and will be tried again", self.what, exc_info=error)
        return super().__exit__(kind, error, trace)


class Sessions(StateHolder):
    """Gradio's sessions; those without state make room first: calls of the API push out no visitor."""

    def update(self, session_id: str) -> None:
        with self.lock:
            if session_id in self.session_data:
                self.session_data.move_to_end(session_id)
            while len(self.session_data) > self.capacity:
                oldest_first = [name for name in self.session_data if name != session_id]
                stateless = (name for name in oldest_first if not self.session_data[name].state_data)
                self.drop(next(stateless, oldest_first[0]))

    def drop(self, session_id: str) -> None:
        """Forget a session, and do what is to be done when its state goes."""
        try:
            self.delete_state(session_id)
        finally:
            self.session_data.pop(session_id, None)
            self.time_last_used.pop(session_id, None)


def forget_sessions(sessions: Any, seconds: float, stateless_seconds: float) -> None:
    """Drop the `Sessions` that nobody has used for so many seconds.

    Those that hold no state, as of calls of the API, go after `stateless_seconds`.
    """
    now = time.time()
    for name, last_used in list(sessions.time_last_used.items()):
        session = sessions.session_data.get(name)
        limit = seconds if session is not None and session.state_data else stateless_seconds
        if now - last_used.timestamp() > limit:
            with logged(f"forgetting session {name}"):
                sessions.drop(name)


def forget_calls(sessions: Any, seconds: float, orphans: dict[str, float]) -> None:
    """Drop what Gradio notes as long as it runs: answers that nobody fetched, names of files that are gone.

    `orphans` remembers from call to call when a session was first missed. To be called in the event loop.
    """
    queue = sessions.blocks._queue
    notes = (queue.pending_messages_per_session, queue.pending_event_ids_session)
    at_work = {event.session_hash for event in queue.event_ids_to_events.values()}
    missing = set(notes[0]).union(notes[1]) - at_work - set(sessions.session_data)
    now = time.monotonic()
    for name in orphans.keys() - missing:
        del orphans[name]
    for name in missing:
        if now - orphans.setdefault(name, now) >= seconds:
            del orphans[name]
            for each in notes:
                each.pop(name, None)
    for files in sessions.blocks.temp_file_sets:
        files.difference_update([path for path in list(files) if not os.path.exists(path)])


_M_ARENA_MAX = -8  # from glibc's malloc.h


def keep_memory_together() -> bool:
    """Let all threads take memory from two heaps instead of several a core; whether that could be asked for.

    Each heap keeps what it once had for a large picture. To be called before there are threads.
    """
    mallopt = _glibc("mallopt")
    return mallopt is not None and mallopt(_M_ARENA_MAX, 2) == 1


def give_memory_back() -> bool:
    """Return memory that is no longer in use to the system; whether any was."""
    malloc_trim = _glibc("malloc_trim")
    return malloc_trim is not None and malloc_trim(0) == 1


def _glibc(name: str) -> Any:
    """A function of the C library; None where that is not glibc."""
    try:
        return getattr(ctypes.CDLL("libc.so.6"), name)
    except (OSError, AttributeError):
        return None
