"""Data retention: what visitors leave on the server is deleted, files in one folder and sessions in memory.

Gradio deletes the files that it knows of by itself (`delete_cache`), but not those it has lost sight of, as
when an upload breaks off, nor what a session holds besides `gr.State`; where many upload at once it stops.
"""

import asyncio
import ctypes
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, suppress
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
    return partial(_lifespan, folder)


@asynccontextmanager
async def _lifespan(folder: Path, app: Any) -> AsyncIterator[None]:
    app.state_holder.__class__ = Sessions
    task = asyncio.create_task(_sweep(folder, app.state_holder))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _sweep(folder: Path, sessions: Any) -> None:
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


@contextmanager
def logged(what: Any) -> Iterator[None]:
    """Errors are logged, and nothing ends."""
    try:
        yield
    except Exception:
        log.exception("%s failed, and will be tried again", what)


class Sessions(StateHolder):
    """Gradio's sessions; those without state make room first: calls of the API push out no visitor."""

    def update(self, session_id: str) -> None:
        with self.lock:
            if session_id in self.session_data:
                self.session_data.move_to_end(session_id)
            while len(self.session_data) > self.capacity:
                others = [name for name in self.session_data if name != session_id]  # the oldest first
                self.drop(min(others, key=lambda name: bool(self.session_data[name].state_data)))

    def drop(self, session_id: str) -> None:
        try:
            self.delete_state(session_id)
        finally:
            self.session_data.pop(session_id, None)
            self.time_last_used.pop(session_id, None)


def forget_sessions(sessions: Any, seconds: float, stateless_seconds: float) -> None:
    """Drop the `Sessions` unused for so many seconds; those without state, as of API calls, go sooner."""
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
    queue, now = sessions.blocks._queue, time.monotonic()
    notes = (queue.pending_messages_per_session, queue.pending_event_ids_session)
    at_work = {event.session_hash for event in queue.event_ids_to_events.values()}
    missing = set().union(*notes) - at_work - set(sessions.session_data)
    for name in orphans.keys() - missing:
        del orphans[name]
    for name in missing:
        if now - orphans.setdefault(name, now) >= seconds:
            del orphans[name]
            for each in notes:
                each.pop(name, None)
    for files in sessions.blocks.temp_file_sets:
        files.difference_update([path for path in list(files) if not os.path.exists(path)])


def keep_memory_together() -> bool:
    """Let all threads take memory from two heaps instead of several a core; whether that could be asked for.

    Each heap keeps what it once had for a large picture. To be called before there are threads.
    """
    return _glibc("mallopt", -8, 2)  # M_ARENA_MAX of its malloc.h


def give_memory_back() -> bool:
    """Return memory that is no longer in use to the system; whether any was."""
    return _glibc("malloc_trim", 0)


def _glibc(function: str, *arguments: int) -> bool:
    with suppress(OSError, AttributeError):  # another C library
        return getattr(ctypes.CDLL("libc.so.6"), function)(*arguments) == 1
    return False
