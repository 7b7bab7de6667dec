"""From a picture to the keypoints of every face in it: the function that tells the story."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from fkp import codec, detector, geometry, hub, images, network, scheme

BATCH = 64
"""Faces that go through the keypoint network at once; more only costs memory."""


@dataclass(frozen=True)
class Faces:
    """The faces of one picture, n of them; n may be 0. Coordinates are pixels of the input image.

    `boxes` (n,4) xyxy float32 · `scores` (n,) float32, 0..1 · `keypoints` (n,68,2) xy float32 ·
    `keypoint_scores` (n,68) float32, 0..1.
    Raises ValueError when the shapes do not fit together.
    """

    boxes: np.ndarray
    scores: np.ndarray
    keypoints: np.ndarray
    keypoint_scores: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.boxes)
        wanted = {"boxes": (n, 4), "scores": (n,), "keypoints": (n, 68, 2), "keypoint_scores": (n, 68)}
        for name, shape in wanted.items():
            array = np.asarray(getattr(self, name), dtype=np.float32)
            if array.shape != shape:
                raise ValueError(f"{name} has shape {array.shape}, {shape} is needed for {n} boxes")
            object.__setattr__(self, name, array)

    @classmethod
    def none(cls) -> Faces:
        """No face."""
        return cls(np.empty((0, 4)), np.empty(0), np.empty((0, 68, 2)), np.empty((0, 68)))

    def __len__(self) -> int:
        return len(self.boxes)

    def __getitem__(self, index: Any) -> Faces:
        """A subset by anything that indexes an array's first axis; `faces[0]` holds one face."""
        index = [index] if isinstance(index, (int, np.integer)) else index
        return Faces(
            self.boxes[index], self.scores[index], self.keypoints[index], self.keypoint_scores[index]
        )

    def __iter__(self) -> Iterator[Faces]:
        return (self[i] for i in range(len(self)))


class FaceDetector(Protocol):
    """What finds faces: an image (H,W,3) uint8 RGB → tight boxes (n,4) float32 and scores (n,) float32."""

    def __call__(
        self, image: np.ndarray, *, min_score: float | None = None
    ) -> tuple[np.ndarray, np.ndarray]: ...


class FaceKeypoints:
    """The pretrained model: every face in a picture, 68 keypoints on each.

    It holds no state between pictures, so one object can serve several threads.
    """

    def __init__(
        self,
        keypoint_network: network.KeypointNetwork,
        face_detector: FaceDetector,
        *,
        metrics: dict[str, Any] | None = None,
        label_style: str | None = None,
    ) -> None:
        self.keypoint_network = keypoint_network.eval().requires_grad_(False)
        self.face_detector = face_detector
        self.metrics = metrics or {}
        self.label_style = label_style or keypoint_network.config.label_style
        if self.label_style not in scheme.LABEL_STYLES:
            raise ValueError(f"label_style {label_style!r} is none of {', '.join(scheme.LABEL_STYLES)}")

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | None = None,
        *,
        revision: str | None = None,
        label_style: str | None = None,
        **hub_options: Any,
    ) -> FaceKeypoints:
        """The model of `source`: None for the bundled weights, a directory, or a Hub id "owner/name".

        Nothing is requested from the network for the bundled weights or a directory. `revision` pins a Hub
        commit, branch or tag; `label_style`, one of `scheme.LABEL_STYLES`, says how the jaw of a turned face
        is marked (by default as the weights' config says); `hub_options` are those of
        `huggingface_hub.hf_hub_download` (cache_dir, token, local_files_only).
        Raises `hub.WeightsError` with one sentence when the weights cannot be had or do not fit.
        """
        stored = hub.load(hub.find(source, revision=revision, **hub_options))
        return cls(
            stored.keypoint_network, stored.face_detector, metrics=stored.metrics, label_style=label_style
        )

    def __call__(
        self, image: images.ImageLike, *, min_score: float | None = None, max_faces: int | None = None
    ) -> Faces:
        """Every face in a picture: a path, a PIL image or an (H,W,3) uint8 RGB array; largest face first.

        `min_score` is the least face confidence (0..1, by default the detector's own), `max_faces` keeps
        the largest. Raises `images.ImageError` for what is no picture.
        """
        image = images.read(image)
        boxes, scores = self.face_detector(image, min_score=min_score)
        largest_first = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(axis=1), kind="stable")[:max_faces]
        return self._place(image, boxes[largest_first], scores[largest_first])

    def keypoints_at(self, image: images.ImageLike, boxes: np.ndarray) -> Faces:
        """Keypoints of the faces in known tight boxes (n,4) xyxy, in their order; every score is 1."""
        boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
        return self._place(images.read(image), boxes, np.ones(len(boxes), np.float32))

    def _place(self, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> Faces:
        """Crop, network, decode, and back to the picture."""
        if len(boxes) == 0:
            return Faces.none()
        config = self.keypoint_network.config
        transforms = [
            geometry.CropTransform.around_box(box, config.crop_size, config.margin) for box in boxes
        ]
        crops = np.stack([transform.crop(image) for transform in transforms])
        in_crop, spreads = self._predict(crops)
        eyes = torch.from_numpy(geometry.inter_ocular(in_crop))
        keypoint_scores = codec.scores_from_spreads(torch.from_numpy(spreads), eyes, config.temperature)
        keypoints = np.stack([t.to_image(points) for t, points in zip(transforms, in_crop, strict=True)])
        return Faces(boxes, scores, keypoints, keypoint_scores.numpy())

    def _predict(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (n,68,2) and their spreads (n,68), pixels of the crop, of crops (n,S,S,3) uint8 RGB."""
        device = next(self.keypoint_network.parameters()).device
        points, spreads = [], []
        with torch.inference_mode():
            for batch in torch.from_numpy(crops).permute(0, 3, 1, 2).split(BATCH):
                prediction = self.keypoint_network.predict(batch.to(device), self.label_style)
                points.append(prediction.keypoints.float().cpu())
                spreads.append(prediction.spreads.float().cpu())
        return torch.cat(points).numpy(), torch.cat(spreads).numpy()

    def save_pretrained(self, folder: str | Path) -> None:
        """Write `config.json`, `model.safetensors`, `metrics.json` and the model card `README.md`."""
        hub.save(folder, self.keypoint_network, self._own_detector(), self.metrics)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        token: str | None = None,
        commit_message: str = "Upload fkp weights",
    ) -> str:
        """Save, and upload as one commit to the Hub repository "owner/name"; returns the commit's URL.

        Raises `hub.WeightsError` with one sentence when the Hub refuses or cannot be reached.
        """
        return hub.push(
            repo_id,
            self.keypoint_network,
            self._own_detector(),
            self.metrics,
            private=private,
            token=token,
            commit_message=commit_message,
        )

    def _own_detector(self) -> detector.Detector:
        if not isinstance(self.face_detector, detector.Detector):
            kind = type(self.face_detector).__name__
            raise hub.WeightsError(
                f"a model with a {kind} as face detector cannot be saved: only fkp's own can"
            )
        return self.face_detector
