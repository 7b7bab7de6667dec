"""Weights in a folder (`weights`), from the Hub (`download`), to the Hub (`publish`), and their model card.

What other code needs is importable from here: `hub.find`, `hub.load`, `hub.save`, `WeightsError`.
`download` and `publish` are not, for huggingface_hub takes half a second to import.
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
    save,
    training_hash,
)

__all__ = [
    "BUNDLED", "CARD", "CONFIG", "FORMAT", "GRAPHS", "METRICS", "WEIGHTS", "Weights", "WeightsError", "files",
    "find", "load", "save", "training_hash",
]  # fmt: skip
