"""Faces for CVAT: a function that its command line runs over a task, as a first draft for people to correct.

    pip install . cvat-cli
    cvat-cli --server-host https://cvat.example.com --auth USER task auto-annotate 137 \\
        --function-file examples/cvat_function.py --allow-unmatched-labels

The task's labels need a skeleton `face` whose 68 points are called 0 to 67 (docs/label.md has it ready to be
pasted). `-p min_points=float:0.5` leaves out faces whose points are less sure than that.
"""

import PIL.Image
from cvat_sdk import auto_annotation as cvat
from cvat_sdk.models import LabeledShapeRequest

from fkp import FaceKeypoints, images

HIDDEN = 0.5
"""A point is occluded where the probability that it can be seen is below this."""


class Function:
    """See `cvat_sdk.auto_annotation.DetectionFunction`."""

    spec = cvat.DetectionFunctionSpec(
        labels=[cvat.skeleton_label_spec("face", 0, [cvat.keypoint_spec(str(i), i) for i in range(68)])]
    )

    def __init__(self, model: str | None = None, min_points: float = 0.0) -> None:
        self.model, self.min_points = FaceKeypoints.from_pretrained(model), min_points

    def detect(
        self, context: cvat.DetectionFunctionContext, image: PIL.Image.Image
    ) -> list[LabeledShapeRequest]:
        faces = self.model(images.read(image), min_score=context.conf_threshold)
        skeletons = []
        for face in faces[faces.keypoint_scores.mean(axis=1) >= self.min_points]:
            # CVAT's 0 is the picture's edge, half a pixel before the middle of the first pixel.
            seen = zip(face.keypoints[0] + 0.5, face.visibility[0], strict=True)
            points = [
                cvat.keypoint(i, [float(x), float(y)], occluded=bool(visibility < HIDDEN))
                for i, ((x, y), visibility) in enumerate(seen)
            ]
            skeletons.append(cvat.skeleton(0, points))
        return skeletons


create = Function
"""What the command line calls, with what `-p` says."""
