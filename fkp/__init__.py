"""Every face in a picture, 68 keypoints (iBUG / 300-W) on each, and a confidence for every point.

The flow, one file an arrow:

    file/array ─images→ image (H,W,3) uint8 RGB
      ─detector→ boxes (n,4), scores (n,)
      ─geometry→ crops (n,S,S,3)
      ─network→ output ─codec→ keypoints in crop (n,68,2), keypoint_scores (n,68), sigmas (n,68)
      ─geometry⁻¹→ keypoints in image (n,68,2)
      ─draw→ picture      ─report→ JSON / CSV

In three lines:

    from fkp import FaceKeypoints
    model = FaceKeypoints.from_pretrained()
    faces = model("group.jpg")  # faces.boxes, .scores, .keypoints, .keypoint_scores, .sigmas
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from fkp.faces import Faces
    from fkp.pipeline import FaceKeypoints

__all__ = ["FaceKeypoints", "Faces", "__version__"]
__version__ = "0.1.0"


def __getattr__(name: str) -> object:
    # Importing fkp does nothing: NumPy and OpenCV come in with the first use of the model.
    if name in ("FaceKeypoints", "Faces"):
        from fkp import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
