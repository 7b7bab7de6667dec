"""Weights in a folder (`weights`), from the Hub (`download`), to the Hub (`publish`), and their model card.

What other code needs is importable from here: `hub.find`, `hub.load`, `hub.save`, `hub.push`, `WeightsError`.
"""

from fkp.hub.errors import WeightsError
from fkp.hub.weights import (
    BUNDLED,
    CARD,
    CONFIG,
    FORMAT,
    GRAPHS,
    METRICS,
    WEIGHTS,
    Weights,
    files,
    find,
    load,
    push,
    save,
    training_hash,
)

__all__ = [
    "BUNDLED", "CARD", "CONFIG", "FORMAT", "GRAPHS", "METRICS", "WEIGHTS", "Weights", "WeightsError", "files",
    "find", "load", "push", "save", "training_hash",
]  # fmt: skip
