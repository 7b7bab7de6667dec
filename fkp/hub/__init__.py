"""Weights in a folder (`weights`), from the Hub (`download`), to the Hub (`publish`), and their model card.

What other code needs is importable from here: `hub.find`, `hub.load`, `hub.save`, `hub.push`, `WeightsError`.
"""

from fkp.hub.download import WeightsError
from fkp.hub.publish import check_push, push
from fkp.hub.weights import (
    BUNDLED,
    CARD,
    CONFIG,
    DETECTOR_GRAPH,
    FORMAT,
    KEYPOINTS_GRAPH,
    METRICS,
    WEIGHTS,
    Stored,
    copy_mean_weights,
    files,
    find,
    load,
    save,
    training_hash,
)

__all__ = [
    "BUNDLED", "CARD", "CONFIG", "DETECTOR_GRAPH", "FORMAT", "KEYPOINTS_GRAPH", "METRICS", "WEIGHTS",
    "Stored", "WeightsError", "check_push", "copy_mean_weights", "files", "find", "load", "push", "save",
    "training_hash",
]  # fmt: skip
