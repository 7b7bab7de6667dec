"""The folder of a training run: log as CSV, curve and preview as PNG, checkpoints that stay whole."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from fkp import outputs

KEYS = frozenset(("settings", "step", "history", "sums", "model", "average", "optimizers"))
"""What a checkpoint holds."""


class CheckpointError(ValueError):
    """A checkpoint that cannot be gone on from: one sentence with its name and the reason."""


class RunFolder:
    """`runs/<name>/`: log.csv, curve.png, preview.png, checkpoint.pt, and what a teacher said."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint.pt"
        self.pseudo_labels = path / "pseudo_labels.npz"
        path.mkdir(parents=True, exist_ok=True)

    def save(self, state: dict[str, Any]) -> None:
        """Write a checkpoint; an interruption leaves the one before it whole."""
        unfinished = self.checkpoint.with_suffix(".unfinished")
        with outputs.naming(unfinished):
            torch.save(state, unfinished)
        os.replace(unfinished, self.checkpoint)

    def load(self) -> dict[str, Any]:
        """The last checkpoint. Raises CheckpointError where it is none that `save` wrote."""
        try:
            state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises a class of its own for each kind of damage
            reason = str(error).strip().partition("\n")[0]
            raise CheckpointError(f"{self.checkpoint} is damaged, or no checkpoint ({reason})") from error
        lacking = KEYS - state.keys() if isinstance(state, dict) else KEYS
        if lacking:
            raise CheckpointError(f"{self.checkpoint} is no checkpoint of a run: it lacks {min(lacking)}")
        return state

    def write_log(self, rows: list[dict[str, float | None]]) -> None:
        """log.csv, one row an epoch; an empty cell for None."""
        with open(self.path / "log.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(rows[0]))
            writer.writeheader()
            for row in rows:
                writer.writerow({k: None if value is None else round(value, 6) for k, value in row.items()})

    def write_curve(self, rows: list[dict[str, float | None]], followed: str) -> None:
        """curve.png: the training loss and the followed validation figure over the epochs, a gap for None."""
        from matplotlib.figure import Figure  # half a second to import, and only training draws

        figure = Figure(figsize=(8, 4.5), layout="constrained")
        left = figure.subplots()
        right = left.twinx()
        epochs, losses, figures = (
            np.array([row[name] for row in rows], float) for name in ("epoch", "loss", followed)
        )
        left.plot(epochs, losses, color="tab:blue")
        right.plot(epochs, figures, color="tab:orange")
        left.set_xlabel("epoch")
        left.set_ylabel("training loss", color="tab:blue")
        right.set_ylabel(f"validation: {followed}", color="tab:orange")
        figure.savefig(self.path / "curve.png", dpi=110)

    def write_preview(self, picture: np.ndarray) -> None:
        """preview.png from a picture (H,W,3) uint8 RGB."""
        cv2.imwrite(str(self.path / "preview.png"), picture[..., ::-1])
