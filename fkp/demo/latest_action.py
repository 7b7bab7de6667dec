"""Last write wins: of what one visitor does on the page, the newest action has its way.

Several events of a visitor can be under way at once, as photos that are being processed and the Clear that is
pressed meanwhile. Gradio runs them side by side, sends what they give in any order, and repeats at the end of
a generator what it gave last; its own way of cancelling tells browsers of an error where there is none.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

T = TypeVar("T")

PATIENCE = 10.0
"""Seconds to wait for what is being sent; it takes some milliseconds, unless a browser has gone."""


class LatestAction(Generic[T]):
    """What one visitor has on a part of the page, `value`, and which of their actions may still change it.

    An action has a moment, which is the browser's own clock, so that it counts when it was begun and not when
    the server came to it.
    """

    def __init__(self, value: T) -> None:
        self.value = value
        self._newest = float("-inf")
        self._noting, self._sending = threading.Lock(), threading.Lock()

    def __deepcopy__(self, memo: Any) -> LatestAction[T]:
        """As at first, for the next visitor: Gradio copies what it begins with."""
        return LatestAction(self.value)

    def begin(self, moment: Any) -> bool:
        """Note an action, which ends those that began before; False if a later one was noted already.

        `moment` is what a browser sent, which may be anything: what is no number comes before all others.
        """
        began = _number(moment)
        with self._noting:
            self._newest = max(self._newest, began)
            return began == self._newest

    def is_over(self, moment: Any) -> bool:
        """Whether a later action was noted."""
        return _number(moment) < self._newest

    @contextmanager
    def sending(self, moment: Any = None) -> Iterator[bool]:
        """Gives whether the action may still show something; None always may, for it changes nothing.

        What a generator yields to Gradio in here is sent before anything of this visitor that comes later:
        Gradio goes on with a generator when it has sent what that gave.
        """
        alone = self._sending.acquire(timeout=PATIENCE)
        try:
            yield moment is None or not self.is_over(moment)
        finally:
            if alone:
                self._sending.release()


def _number(moment: Any) -> float:
    return float(moment) if isinstance(moment, int | float) else float("-inf")
