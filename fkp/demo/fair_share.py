"""So much memory for all requests: whoever wants more than is left waits, each visitor in turn."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(eq=False)
class _Waiting:
    visitor: str
    amount: int


class FairShare:
    """An amount that is lent out in parts. Who has been served least lately is next, then who came first: one
    with many requests waits behind those with few. Nobody goes past the next, so large ones are met too."""

    def __init__(self, amount: int) -> None:
        self.amount = self._left = amount
        self._waiting: list[_Waiting] = []
        self._served: dict[str, int] = {}
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, amount: int, visitor: str = "") -> Iterator[None]:
        """Wait for a part, and hold it; more than there is at all is all that there is."""
        waiting = _Waiting(visitor, min(amount, self.amount))
        with self._changed:
            self._waiting.append(waiting)
            self._changed.wait_for(lambda: self._next() is waiting and waiting.amount <= self._left)
            self._waiting.remove(waiting)
            self._left -= waiting.amount
            self._served[visitor] = self._served.get(visitor, 0) + 1
            self._changed.notify_all()
        try:
            yield
        finally:
            with self._changed:
                self._left += waiting.amount
                if self._left == self.amount and not self._waiting:
                    self._served.clear()  # nobody has waited for anybody
                self._changed.notify_all()

    def _next(self) -> _Waiting:
        return min(self._waiting, key=lambda waiting: self._served.get(waiting.visitor, 0))
