"""What visitors leave on the server, and how it is forgotten: files in one folder, sessions in memory.

Gradio deletes the files that it knows of by itself (`delete_cache`). It does not delete those that it has
lost sight of, as when an upload breaks off, nor the folders around them, nor what a session holds in memory
besides `gr.State`: the values last shown, which here are pictures. And where many upload at once it gives up:
"Set changed size during iteration" ends its task.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

KEPT_SECONDS = 3600
"""How long, at most, anything of a visitor stays on the server after it came or was last used."""
SWEEP_SECONDS = 60
"""How often what has stayed that long is looked for; sessions that hold no state go as soon as that."""


UNFETCHED_SECONDS = 60
"""How long the answer to a call waits to be fetched when its session is gone."""


def sweeping(folder: Path) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """A lifespan for the server's app: as long as it runs, whatever is old in a folder and in memory goes."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
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
        await asyncio.to_thread(forget_files, folder, KEPT_SECONDS)
        forget_sessions(sessions, KEPT_SECONDS, SWEEP_SECONDS)
        forget_calls(sessions, min(KEPT_SECONDS, UNFETCHED_SECONDS), orphans)
        await asyncio.to_thread(give_memory_back)


def forget_files(folder: Path, seconds: float) -> None:
    """Delete every file in a folder, however deep, that came more than so many seconds ago.

    So are folders that are empty, and links, which are not followed.
    """
    oldest = time.time() - seconds
    for parent, folders, files in os.walk(folder, topdown=False):
        for path in [os.path.join(parent, name) for name in files + folders]:
            with suppress(OSError):  # gone already, or a folder that is not empty
                if os.path.isdir(path) and not os.path.islink(path):
                    if os.lstat(path).st_ctime < oldest:
                        os.rmdir(path)
                elif os.lstat(path).st_ctime < oldest:
                    os.unlink(path)


def forget_sessions(sessions: Any, seconds: float, stateless_seconds: float) -> None:
    """Drop the sessions (a `gradio.state_holder.StateHolder`) that nobody has used for so many seconds.

    Those that hold no state, as of calls of the API, go after `stateless_seconds`.
    """
    now = time.time()
    for name, last_used in list(sessions.time_last_used.items()):
        session = sessions.session_data.get(name)
        limit = seconds if session is not None and session.state_data else stateless_seconds
        if now - last_used.timestamp() > limit:
            sessions.delete_state(name)  # calls what is to be done when a state goes
            sessions.session_data.pop(name, None)
            sessions.time_last_used.pop(name, None)


def forget_calls(sessions: Any, seconds: float, orphans: dict[str, float]) -> None:
    """Drop what the server has noted of sessions that are gone: answers that nobody fetched, names of files.

    Gradio keeps these notes as long as it runs. `orphans` remembers from call to call when a session was
    first missed. To be called in the server's event loop.
    """
    page = sessions.blocks
    queue = page._queue
    at_work = {event.session_hash for event in queue.event_ids_to_events.values()}
    notes = (queue.pending_messages_per_session, queue.pending_event_ids_session)
    missing = set(notes[0]).union(notes[1]) - at_work - set(sessions.session_data)
    now = time.monotonic()
    for name in orphans.keys() - missing:
        del orphans[name]
    for name in missing:
        if now - orphans.setdefault(name, now) >= seconds:
            del orphans[name]
            for each in notes:
                each.pop(name, None)
    for files in page.temp_file_sets:
        files.difference_update([path for path in list(files) if not os.path.exists(path)])


_M_ARENA_MAX = -8  # from glibc's malloc.h


def keep_memory_together() -> bool:
    """Let all threads take memory from two heaps instead of several a core; whether that could be asked for.

    Each heap keeps what it once had for a large picture: with many threads the process grows for thousands of
    requests, although no more of it is in use. To be called before there are threads.
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
