"""Data retention: what visitors leave on the server is deleted, files in one folder and sessions in memory.

Gradio deletes the files that it knows of by itself (`delete_cache`), but not those it has lost sight of, as
when an upload breaks off, nor what a session holds besides `gr.State`; where many upload at once it stops.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Set
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from gradio.state_holder import StateHolder

from fkp.demo import heap, uploads

KEPT_SECONDS = 3600
"""How long, at most, anything of a visitor stays on the server after it came or was last used."""
SWEEP_SECONDS = 60
"""How often what has stayed that long is looked for. As soon as that go sessions that hold no state, and
answers that nobody fetched before their session went."""

log = logging.getLogger(__name__)


def sweeping(folder: Path) -> Callable[[Any], AbstractAsyncContextManager[None]]:
    """A lifespan for the server's app: as long as it runs, whatever is old in a folder and in memory goes."""

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        app.state_holder.__class__ = Sessions
        task = asyncio.create_task(_sweep(folder, app.state_holder))
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    return lifespan


async def _sweep(folder: Path, sessions: Any) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        await asyncio.to_thread(tried, uploads.forget_old, folder, KEPT_SECONDS)
        await asyncio.to_thread(tried, heap.give_back)
        tried(sessions.forget_old, KEPT_SECONDS, SWEEP_SECONDS)
        tried(sessions.forget_calls)


def tried(step: Callable[..., Any], *arguments: Any) -> None:
    """Do it by itself: what fails in one step is logged, and keeps no other from its turn."""
    try:
        step(*arguments)
    except Exception:
        log.exception("%s%s failed, and will be tried again", step.__qualname__, arguments)


class Sessions(StateHolder):
    """Gradio's sessions; those without state make room first: calls of the API push out no visitor."""

    missing: Set[str] = frozenset()
    """Sessions that were gone at the last sweep, while something was noted for them."""

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

    def forget_old(self, seconds: float, stateless_seconds: float) -> None:
        """Drop those unused for so many seconds; those without state, as of API calls, go sooner."""
        now = time.time()
        for name, last_used in list(self.time_last_used.items()):
            session = self.session_data.get(name)
            limit = seconds if session is not None and session.state_data else stateless_seconds
            if now - last_used.timestamp() > limit:
                tried(self.drop, name)

    def forget_calls(self) -> None:
        """Drop what Gradio notes as long as it runs: answers that nobody fetched, names of deleted files.

        An answer goes when its session is missing at two sweeps. To be called in the event loop.
        """
        queue = self.blocks._queue
        notes = queue.pending_messages_per_session, queue.pending_event_ids_session
        at_work = {event.session_hash for event in queue.event_ids_to_events.values()}
        missing = set().union(*notes) - at_work - set(self.session_data)
        for name in missing & self.missing:
            for each in notes:
                each.pop(name, None)
        self.missing = missing - self.missing
        for files in self.blocks.temp_file_sets:
            files.difference_update([path for path in list(files) if not os.path.exists(path)])
