"""What a page is built around: the model, its settings, and the folders it works with."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fkp.demo.settings import Settings
from fkp.pipeline import FaceKeypoints


@dataclass(frozen=True)
class Site:
    """`uploads` is where Gradio puts what browsers send; `checkout` may hold examples/ and docs/."""

    model: FaceKeypoints
    settings: Settings
    uploads: Path
    checkout: Path

    @property
    def pictures(self) -> list[Path]:
        """The example pictures, the first of them first."""
        names = ("eileen_collins", "grace_hopper", "four_faces")
        paths = [self.checkout / "examples" / f"{name}.jpg" for name in names]
        return [path for path in paths if path.is_file()]

    @property
    def clips(self) -> list[Path]:
        """The example clips."""
        return sorted((self.checkout / "examples").glob("*.mp4"))
