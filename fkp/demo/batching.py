"""Calls of a network from several threads at once, run together: a batch takes less time than its parts."""

from __future__ import annotations

from threading import Condition

import numpy as np

from fkp import runtime

LARGEST = 64
"""Pictures that are run together at most, unless one call has more; more only cost memory."""


class Shared:
    """A runner that many threads call: those that wait while it runs are served together by its next run.

    Nobody waits for company: a call that finds the runner idle runs at once. Only calls with pictures of the
    same size and the same other inputs go together. Each gets what it would get alone, as exactly as the
    backend gives the same for any number of pictures; what the runner raises is raised by all that it ran.
    """

    def __init__(self, runner: runtime.Runnable) -> None:
        self.runner = runner
        self._waiting: list[_Call] = []
        self._running = False
        self._changed = Condition()

    @property
    def name(self) -> str:
        """That of the runner."""
        return self.runner.name

    @property
    def description(self) -> str:
        """That of the runner."""
        return self.runner.description

    def __call__(self, pictures: np.ndarray, *more: np.ndarray) -> tuple[np.ndarray, ...]:
        """As `runtime.Runner`."""
        call = _Call(pictures, more)
        with self._changed:
            self._waiting.append(call)
            self._changed.wait_for(lambda: call.done or not self._running)
            if call.done:
                return call.outputs()
            self._running, together = True, self._take(call)
        try:
            self._serve(together)
        finally:
            with self._changed:
                self._running = False
                self._changed.notify_all()
        return call.outputs()

    def _take(self, first: _Call) -> list[_Call]:
        """A call and those that may be run with it, taken from the waiting."""
        together, room = [first], LARGEST - len(first.pictures)
        for call in self._waiting:
            if call is not first and len(call.pictures) <= room and call.fits(first):
                together.append(call)
                room -= len(call.pictures)
        self._waiting = [call for call in self._waiting if call not in together]
        return together

    def _serve(self, together: list[_Call]) -> None:
        try:
            pictures = np.concatenate([call.pictures for call in together])
            results = self.runner(pictures, *together[0].more)
            ends = np.cumsum([len(call.pictures) for call in together])[:-1]
            for call, *parts in zip(together, *(np.split(result, ends) for result in results), strict=True):
                call.results = tuple(parts)
        except BaseException as error:
            for call in together:
                call.error = error


class _Call:
    """One call: its inputs, and in the end its results or its error. Compared by identity."""

    def __init__(self, pictures: np.ndarray, more: tuple[np.ndarray, ...]) -> None:
        self.pictures, self.more = pictures, more
        self.results: tuple[np.ndarray, ...] | None = None
        self.error: BaseException | None = None

    @property
    def done(self) -> bool:
        return self.results is not None or self.error is not None

    def fits(self, other: _Call) -> bool:
        mine, others = self.pictures, other.pictures
        return (
            (mine.shape[1:], mine.dtype) == (others.shape[1:], others.dtype)
            and len(self.more) == len(other.more)
            and all(np.array_equal(a, b) for a, b in zip(self.more, other.more, strict=True))
        )

    def outputs(self) -> tuple[np.ndarray, ...]:
        if self.error is not None:
            raise self.error
        assert self.results is not None
        return self.results
