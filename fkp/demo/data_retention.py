"""Data retention: what visitors leave on the server is deleted, files in one folder and sessions in memory.

Gradio deletes the files that it knows of by itself (`delete_cache`), but not those it has lost sight of, as
when an upload breaks off, nor what a session holds besides `gr.State`; where many upload at once it stops.
"""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gradio.state_holder import StateHolder

from fkp.demo import heap, uploads

KEPT_SECONDS = 3600
"""How long, at most, anything of a visitor stays on the server after it came or was last used."""
SWEEP_SECONDS = 60
"""How often what has stayed that long is deleted. So long, at most, sessions that hold no state stay unused,
and answers that nobody fetched stay after their session."""

log = logging.getLogger(__name__)


@asynccontextmanager
async def sweeping(app: Any, folder: Path) -> AsyncIterator[None]:
    """As long as the server's app runs, whatever is old in a folder and in memory goes."""
    app.state_holder.__class__ = Sessions
    task = asyncio.create_task(_sweep(folder, app.state_holder))
    try:
        yield
    finally:
        task.cancel()


async def _sweep(folder: Path, sessions: Any) -> None:
    while True:
        await asyncio.sleep(SWEEP_SECONDS)
        await asyncio.to_thread(tried, uploads.delete_old, folder, KEPT_SECONDS)
        await asyncio.to_thread(tried, heap.give_back)
        tried(sessions.drop_answers)
        tried(sessions.drop_old, KEPT_SECONDS, SWEEP_SECONDS)


def tried(step: Callable[..., Any], *arguments: Any) -> None:
    """Do it by itself: what fails is logged, and keeps nothing else from its turn."""
    try:
        step(*arguments)
    except Exception:
        log.exception("%s%s failed", step.__qualname__, arguments)


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
        tried(self.delete_state, session_id)
        self.session_data.pop(session_id, None)
        self.time_last_used.pop(session_id, None)

    def drop_old(self, seconds: float, stateless_seconds: float) -> None:
        """Drop those unused for so many seconds; those without state, as of API calls, go sooner."""
        for name, session in list(self.session_data.items()):
            limit = seconds if session.state_data else stateless_seconds
            if time.time() - self.time_last_used[name].timestamp() > limit:
                self.drop(name)

    def drop_answers(self) -> None:
        """Drop what Gradio keeps for ever: answers to sessions that are gone, names of deleted files.

        To be called in the event loop.
        """
        queue = self.blocks._queue
        at_work = {event.session_hash for event in queue.event_ids_to_events.values()}
        for notes in (queue.pending_messages_per_session, queue.pending_event_ids_session):
            for name in notes.keys() - at_work - self.session_data.keys():
                del notes[name]
        for files in self.blocks.temp_file_sets:
            files.difference_update([path for path in list(files) if not os.path.exists(path)])
