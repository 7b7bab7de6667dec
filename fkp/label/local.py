"""Shards labelled by processes of this machine, each on one thread."""

from __future__ import annotations

import contextlib
import multiprocessing as mp
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import islice
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from fkp.label.labeller import Done, Labeller, Settings
from fkp.label.sources import Shard

ONE_THREAD = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}

EVERY = 0.5
"""Seconds between reports of progress."""


class WorkerDied(RuntimeError):
    """A process ended by itself, or was killed, and what it did is not done by others: one sentence."""


def run(
    shards: Iterator[Shard], settings: Settings, out: Path, workers: int,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Generator[Done]:  # fmt: skip
    """Label the shards in so many processes; what came of each, in the order in which they are done.

    `progress` is told the pictures and the share of the shards' sizes that were done since it was told last.
    Ends the processes when it is closed. Raises WorkerDied, and what a worker raises.
    """
    context = mp.get_context("spawn")  # a fork would copy locks that other threads hold
    board = context.Array("q", 3 * workers, lock=False)  # of each worker: its process, pictures, sizes
    number = context.Value("i", 0)
    with _environment(ONE_THREAD):
        pool = ProcessPoolExecutor(workers, context, _start, (settings, out, board, number))
        waiting: set[Future[Done]] = set()
        told = (0, 0)
        try:
            while True:
                # Two for each, so that none waits; the rest is not even listed yet.
                for shard in islice(shards, 2 * workers - len(waiting)):
                    waiting.add(pool.submit(_label, shard))
                if not waiting:
                    break
                done, waiting = wait(waiting, EVERY, FIRST_COMPLETED)
                now = sum(board[1::3]), sum(board[2::3])
                progress(now[0] - told[0], now[1] - told[1])
                told = now
                for future in done:
                    yield future.result()
        except BrokenProcessPool:
            raise WorkerDied(
                "a worker process ended without a word, perhaps for lack of memory: what is finished is kept,"
                " and the same command goes on"
            ) from None
        finally:
            for process in filter(None, board[::3]):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGTERM)
            pool.shutdown(cancel_futures=True)


_worker: Any = None


def _start(settings: Settings, out: Path, board: Any, number: Any) -> None:
    """Make this process ready to label; `board` is where it tells its progress."""
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the one that began us ends us
    with number.get_lock():
        place = 3 * number.value
        number.value += 1
    board[place] = os.getpid()
    parent = mp.parent_process()
    assert parent is not None
    threading.Thread(target=_end_after, args=(parent,), daemon=True).start()

    import cv2

    cv2.setNumThreads(1)
    def progress(pictures: int, size: int) -> None:
        board[place + 1] += pictures
        board[place + 2] += size

    try:
        _worker = partial(Labeller(settings, out), progress=progress)
    except Exception as error:  # what is raised here would only be told as a process that died
        _worker = partial(_raise, error)


def _raise(error: Exception, _: Shard) -> Done:
    raise error


def _end_after(parent: BaseProcess) -> None:
    parent.join()
    os._exit(1)


def _label(shard: Shard) -> Done:
    return _worker(shard)


@contextlib.contextmanager
def _environment(variables: dict[str, str]) -> Iterator[None]:
    """These variables for the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
