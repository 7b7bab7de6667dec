"""How long face detectors take for a picture, each in a process and on a thread of its own; what they weigh.

Haar cascades need an interpreter whose OpenCV still has them: 4.x, as in a fresh environment after
`pip install "opencv-python-headless<5"`.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors

from benchmarks import speed
from fkp import hub

FRAME = "640x480"
"""The picture that every detector is timed on, among those of `speed.pictures`."""
SECONDS = 2.0
"""For each figure, over all rounds."""


def measure(
    model: Path, pictures: Mapping[str, np.ndarray], yunet: Path | None = None, haar: str | None = None,
    seconds: float = SECONDS,
) -> dict[str, Any]:  # fmt: skip
    """The machine, `rows` of figures, fkp on all pictures by name and the others on FRAME, and `skipped`.

    `yunet` is its file, `haar` an interpreter.
    """
    machine = speed.machine()  # and how busy it is before
    with tempfile.TemporaryDirectory() as folder:
        stored = Path(folder) / "pictures.npz"
        arrays: dict[str, Any] = dict(pictures)
        np.savez(stored, **arrays)
        order = {"subject": "detector", "pictures": str(stored), "tasks": [FRAME]}
        every = order | {"model": str(model.resolve()), "tasks": list(pictures)}
        subjects = [speed.Subject("fkp", every, 1, {"detector": "fkp"}, tuple(pictures))]
        others = {"YuNet": (order | {"file": str(yunet.resolve())}, sys.executable)} if yunet else {}
        others |= {"Haar": (order | {"subject": "haar"}, haar)} if haar else {}
        for name, (asked, python) in others.items():
            subjects.append(speed.Subject(name, asked, 1, {"detector": name}, (FRAME,), python=python))
        rows, skipped = speed.time_all(subjects, seconds, "speed")
    return {
        "machine": machine, "versions": speed.versions(), "rows": rows,
        # The reasons, which are printed, may name folders of the one who measures.
        "skipped": [each["name"] for each in skipped],
    }  # fmt: skip


def weights_mb(model: Path) -> float:
    """What the detector's tensors take in a model's folder, megabytes."""
    with safetensors.safe_open(model / hub.WEIGHTS, "numpy") as stored:
        names = [name for name in stored.keys() if name.startswith("detector.")]  # noqa: SIM118
        return round(sum(stored.get_tensor(name).nbytes for name in names) / 1e6, 3)
