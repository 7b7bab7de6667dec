"""From a picture to the keypoints of every face in it: the function that tells the story."""

from __future__ import annotations

import inspect
import math
import tempfile
from pathlib import Path
from typing import Any, NamedTuple, Unpack

import numpy as np

from fkp import detector, geometry, hub, images, runtime, scheme
from fkp.detectors import single_face, yunet
from fkp.faces import FaceDetector, Faces
from fkp.hub import download, model_card, publish
from fkp.networks import codec, keypoint_net

BATCH = 64
"""Crops that go through the keypoint network at once; more only costs memory."""
UNSURE = 0.5
"""With two passes, a face whose points score less than this on average is looked at upside down as well."""

FAR = 100.0
"""Boxes may reach so many of the picture's longer sides from its corner."""

DETECTORS = ("fkp", "yunet", "whole")
"""Face detectors by name: the weights' own, OpenCV's YuNet (`yunet`), and one for pictures that are one face
(`whole`)."""

EYES = [scheme.RIGHT_EYE_OUTER_CORNER, 39, 42, scheme.LEFT_EYE_OUTER_CORNER]
"""The corners of both eyes, whose middles' connecting line is level in a straightened crop."""


class _Look(NamedTuple):
    """`keypoints` (n,68,2) and `sigmas` (n,68) in pixels of the crops, `scores` (n,68)."""

    keypoints: np.ndarray
    sigmas: np.ndarray
    scores: np.ndarray


class FaceKeypoints:
    """The pretrained model: every face in a picture, 68 keypoints on each.

    It holds no state between pictures, so one object can serve several threads.
    """

    def __init__(
        self,
        keypoint_network: keypoint_net.KeypointNetwork,
        face_detector: FaceDetector,
        *,
        metrics: dict[str, Any] | None = None,
        label_style: str | None = None,
        graph: Path | None = None,
        backend: str | None = None,
        mirrored: bool = False,
        passes: int = 1,
        source: Path | None = None,
        own_detector: detector.Detector | None = None,
    ) -> None:
        """`graph` is the keypoint network's ONNX file, `source` the folder that all came from.

        `own_detector` is what is saved with the keypoint network where `face_detector` is none of fkp's own.
        """
        self.keypoint_network = keypoint_network.eval().requires_grad_(False)
        self.face_detector: FaceDetector = _callable_as_asked(face_detector)
        self.metrics = metrics or {}
        self.label_style = label_style or keypoint_network.config.label_style
        self.mirrored, self.passes, self.source = mirrored, passes, source
        if self.label_style not in scheme.LABEL_STYLES:
            raise ValueError(f"label_style {label_style!r} is none of {', '.join(scheme.LABEL_STYLES)}")
        if passes not in (1, 2):
            raise ValueError(f"passes is {passes!r}, where 1 or 2 is needed")
        self.runner = runtime.Runner(runtime.Decoded(keypoint_network), graph, backend)
        _ = self.backend  # a backend that cannot be had is told now, and not at the first picture
        if isinstance(face_detector, detector.Detector):
            if backend is not None:
                # Compiled anew for every size of picture the detector would never be done.
                face_detector = face_detector.on("torch" if backend == "torch-compile" else backend)
            self.face_detector, _ = face_detector, face_detector.runner.backend
            own_detector = face_detector
        self._own_detector = own_detector

    @property
    def backend(self) -> str:
        """The one of `runtime.BACKENDS` that runs the keypoint network; torch once that is on a GPU."""
        return self.runner.backend.name

    def describe(self) -> list[str]:
        """What runs here, for people: a line each for the weights, the keypoint network and the detector."""
        return [
            f"weights from {self.source or 'memory'}, label style {self.label_style}",
            f"keypoints on {self.runner.backend.description}",
            f"faces by {_described(self.face_detector)}",
        ]

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | None = None,
        *,
        revision: str | None = None,
        label_style: str | None = None,
        backend: str | None = None,
        mirrored: bool = False,
        passes: int = 1,
        detector: str | FaceDetector = "fkp",
        **hub_options: Unpack[download.Options],
    ) -> FaceKeypoints:
        """The model of `source`: None for the bundled weights, a directory, or a Hub id "owner/name".

        Nothing is requested from the network for the bundled weights or a directory. `revision` pins a Hub
        commit, branch or tag; `label_style`, one of `scheme.LABEL_STYLES`, says how the jaw of a turned face
        is marked (by default as the weights' config says); `backend`, one of `runtime.BACKENDS`, runs the
        networks (by default the fastest that can be had; all give the same to 0.05 pixels of the crop).
        `mirrored` averages every prediction with that of the mirrored crop; `passes=2` looks a second time,
        at a crop straightened and framed by the first one's keypoints: each doubles the time a face.
        `detector` finds the faces: one of `DETECTORS` by name, or a `FaceDetector` of your own; whichever it
        is, the weights' own is what `save_pretrained` saves.
        `hub_options` are those of `download.Options` (cache_dir, token, local_files_only, …).
        Raises `hub.WeightsError` with one sentence when the weights, or YuNet's, cannot be had or do not fit,
        `runtime.BackendError` when the backend asked for cannot be had, and ValueError for a detector that is
        none.
        """
        name = detector if isinstance(detector, str) else None
        if name is not None and name not in DETECTORS:
            names = ", ".join(DETECTORS)
            raise ValueError(f"there is no detector {name!r}: choose one of {names}, or give your own")
        folder = hub.find(source, revision=revision, **hub_options)
        stored = hub.load(folder)
        found_by: FaceDetector = stored.face_detector
        if name == "yunet":
            found_by = yunet.YuNet(yunet.find(**hub_options))
        elif not isinstance(detector, str):
            found_by = detector
        model = cls(
            stored.keypoint_network,
            found_by,
            metrics=stored.metrics,
            label_style=label_style,
            graph=stored.keypoints_graph,
            backend=backend,
            mirrored=mirrored,
            passes=passes,
            source=folder,
            own_detector=stored.face_detector,
        )
        if name == "whole":
            model.face_detector = single_face.WholePicture(model)
        return model

    def __call__(
        self, image: images.ImageLike, *, min_score: float | None = None, max_faces: int | None = None
    ) -> Faces:
        """Every face in a picture: a path, a PIL image or an (H,W,3) uint8 RGB array; largest face first.

        `min_score` is the least face confidence (0..1, by default the detector's own), `max_faces` keeps
        the largest. Raises `images.ImageError` for what is no picture, and ValueError where a face detector
        of your own gives what are no boxes.
        """
        image = images.read(image)
        return self._place(image, *self.detect(image, min_score=min_score, max_faces=max_faces))

    def detect(
        self, image: images.ImageLike, *, min_score: float | None = None, max_faces: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same without keypoints: boxes (n,4) xyxy and scores (n,), largest face first, both float32."""
        image = images.read(image)
        found = self.face_detector(image, min_score=min_score)
        boxes, scores = _in_picture(found, image.shape[:2], self.face_detector)
        largest_first = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(axis=1), kind="stable")[:max_faces]
        return boxes[largest_first], scores[largest_first]

    def keypoints_at(self, image: images.ImageLike, boxes: np.ndarray) -> Faces:
        """Keypoints of the faces in known tight boxes (n,4) xyxy, in their order; every score is 1."""
        boxes = np.asarray(boxes, dtype=np.float32).reshape(-1, 4)
        return self._place(images.read(image), boxes, np.ones(len(boxes), np.float32))

    def _place(self, image: np.ndarray, boxes: np.ndarray, scores: np.ndarray) -> Faces:
        """Crop, network, decode, and back to the picture; with two passes, all of it once more."""
        if len(boxes) == 0:
            return Faces.none()
        height, width = image.shape[:2]
        too_far = (np.abs(boxes) > FAR * max(height, width)).any(axis=1)
        if too_far.any():  # no memory holds what lies in between
            box = boxes[too_far.argmax()].tolist()
            raise ValueError(f"the box {box} reaches too far beyond the picture of {width}×{height} pixels")
        config = self.keypoint_network.config
        transforms = [
            geometry.CropTransform.around_box(box, config.crop_size, config.margin) for box in boxes
        ]
        look = self._look(image, transforms)
        if self.passes == 2:
            transforms, look = self._turned_if_unsure(image, boxes, transforms, look)
            transforms = [
                straightened(transform, transform.to_image(points), config.margin)
                for transform, points in zip(transforms, look.keypoints, strict=True)
            ]
            look = self._look(image, transforms)
        pairs = zip(transforms, look.keypoints, strict=True)
        keypoints = np.stack([transform.to_image(points) for transform, points in pairs])
        crop_pixels = np.array([[math.hypot(*t.image_to_crop[0, :2])] for t in transforms])
        return Faces(boxes, scores, keypoints, look.scores, look.sigmas / crop_pixels)

    def _look(self, image: np.ndarray, transforms: list[geometry.CropTransform]) -> _Look:
        """One pass over the faces of an image, each in the crop of its transform."""
        keypoints, spreads = self._predict(np.stack([transform.crop(image) for transform in transforms]))
        config = self.keypoint_network.config
        temperature = config.temperature(self.label_style)
        scores = codec.scores_from_spreads(spreads, geometry.inter_ocular(keypoints), temperature)
        return _Look(keypoints + config.lean(self.label_style), temperature * spreads, scores)

    def _turned_if_unsure(
        self, image: np.ndarray, boxes: np.ndarray, transforms: list[geometry.CropTransform], look: _Look
    ) -> tuple[list[geometry.CropTransform], _Look]:
        """The surest look at each face: as it is or, where that is below `UNSURE`, at a quarter turn too.

        The network knows upright faces, and its scores say when a face is none (docs/accuracy.md).
        """
        config = self.keypoint_network.config
        unsure = np.flatnonzero(look.scores.mean(axis=1) < UNSURE)
        if not len(unsure):
            return transforms, look
        transforms, look = list(transforms), _Look(*(array.copy() for array in look))
        for angle in (90, 180, 270):
            turned = [
                geometry.CropTransform.around_box(boxes[i], config.crop_size, config.margin, angle=angle)
                for i in unsure
            ]
            other = self._look(image, turned)
            for place, i in enumerate(unsure):
                if other.scores[place].mean() > look.scores[i].mean():
                    transforms[i] = turned[place]
                    for kept, new in zip(look, other, strict=True):
                        kept[i] = new[place]
        return transforms, look

    def _predict(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints (n,68,2) and their spreads (n,68), pixels of the crop, of crops (n,S,S,3) uint8 RGB."""
        if not self.mirrored:
            return self._run(crops)
        n, width = crops.shape[0], crops.shape[2]
        keypoints, spreads = self._run(np.concatenate([crops, crops[:, :, ::-1]]))
        back, spreads_back = geometry.mirror(keypoints[n:], width), spreads[n:][:, list(scheme.FLIP)]
        return (keypoints[:n] + back) / 2, (spreads[:n] + spreads_back) / 2

    def _run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The same without the mirrored crops, BATCH at a time."""
        if len(crops) > BATCH:
            parts = [self._run(crops[start : start + BATCH]) for start in range(0, len(crops), BATCH)]
            return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])
        keypoints, spreads = self.runner(crops, np.array([scheme.LABEL_STYLES.index(self.label_style)]))
        return keypoints, spreads

    def save_pretrained(self, folder: str | Path, *, repo_id: str = "OWNER/NAME") -> None:
        """Write `config.json`, `model.safetensors`, `metrics.json`, the model card and the ONNX graphs.

        The card shows what the weights find in a picture, and `repo_id` as their name on the Hub. The graphs,
        which take some seconds, only where onnx and onnxscript are installed; see `hub.save`.
        """
        own = self._detector_to_save()
        pictures = model_card.pictures(FaceKeypoints(self.keypoint_network, own))
        hub.save(folder, self.keypoint_network, own, self.metrics, repo_id=repo_id, pictures=pictures)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        token: str | None = None,
        commit_message: str = "Upload fkp weights",
    ) -> str:
        """Save, and upload as one commit to the Hub repository "owner/name"; returns the commit's URL.

        `private` is for a repository that does not exist yet, `token` by default that of `hf auth login`.
        Raises `hub.WeightsError` with one sentence when the Hub refuses or cannot be reached.
        """
        self._detector_to_save()
        publish.check_push(repo_id, token)  # before the graphs, which take seconds
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, repo_id=repo_id)
            return hub.push(folder, repo_id, private=private, token=token, commit_message=commit_message)

    def _detector_to_save(self) -> detector.Detector:
        if self._own_detector is None:
            kind = type(self.face_detector).__name__
            raise hub.WeightsError(
                f"a model with a {kind} as face detector cannot be saved without fkp's own: name one as "
                "own_detector"
            )
        return self._own_detector


def _callable_as_asked(face_detector: FaceDetector) -> FaceDetector:
    """The same. Raises ValueError with a sentence if it cannot be called as a `FaceDetector` is."""
    name = _name(face_detector)
    if not callable(face_detector):
        raise ValueError(f"the face detector is a {name}, which cannot be called with a picture")
    try:
        inspect.signature(face_detector).bind(np.empty((1, 1, 3), np.uint8), min_score=None)
    except TypeError as error:
        raise ValueError(
            f"the face detector {name} cannot be called as detector(image, min_score=…): {error}"
        ) from error
    except ValueError:
        pass  # what is not written in Python may not tell its signature
    return face_detector


def _in_picture(
    found: Any, shape_hw: tuple[int, int], face_detector: FaceDetector
) -> tuple[np.ndarray, np.ndarray]:
    """The boxes (n,4) and scores (n,) that a face detector gave, as float32; none beside the picture.

    Raises ValueError with a sentence when they are no boxes and scores.
    """
    who = f"the face detector {_name(face_detector)} gave"
    try:
        boxes, scores = (np.asarray(part, dtype=np.float32) for part in found)
    except (TypeError, ValueError) as error:
        what = type(found).__name__
        raise ValueError(f"{who} a {what}, where boxes (n,4) and scores (n,) are needed") from error
    if boxes.size == scores.size == 0:
        return np.empty((0, 4), np.float32), np.empty(0, np.float32)
    if boxes.ndim != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        shapes = f"boxes of shape {boxes.shape} and scores of shape {scores.shape}"
        raise ValueError(f"{who} {shapes}, where (n,4) and (n,) are needed")
    faulty = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
    if faulty.any():
        box = boxes[faulty.argmax()].tolist()
        raise ValueError(f"{who} the box {box}, which is no xyxy box with a positive width and height")
    if not np.isfinite(scores).all():
        raise ValueError(f"{who} the score {scores[~np.isfinite(scores)][0]}, where 0 to 1 is needed")
    height, width = shape_hw
    seen = (boxes[:, 2:] >= -0.5).all(axis=1) & (boxes[:, :2] <= (width - 0.5, height - 0.5)).all(axis=1)
    return boxes[seen], scores[seen]


def _described(face_detector: FaceDetector) -> str:
    """What finds the faces, for people."""
    if isinstance(face_detector, detector.Detector):
        return f"fkp, on {face_detector.runner.backend.description}"
    return str(getattr(face_detector, "description", _name(face_detector)))


def _name(face_detector: FaceDetector) -> str:
    """What its author calls it: a function's own name, or that of its class."""
    return str(getattr(face_detector, "__name__", type(face_detector).__name__))


def straightened(
    transform: geometry.CropTransform, keypoints: np.ndarray, margin: float
) -> geometry.CropTransform:
    """The crop of the same size in which a face with keypoints (68,2), pixels of the image, is upright.

    The line between the middles of the eyes is level, and the frame is that of `around_box` at the tight box
    of the turned keypoints. `transform` itself where the keypoints are no face: all on a line.
    """
    corners = keypoints[EYES].astype(np.float64)
    x, y = corners[2:].sum(axis=0) - corners[:2].sum(axis=0)
    angle = math.atan2(y, x)
    cos, sin = math.cos(angle), math.sin(angle)
    turn = np.array([[cos, sin], [-sin, cos]])
    try:
        box = geometry.tight_boxes(keypoints @ turn.T)
        upright = geometry.CropTransform.around_box(box, transform.size_wh[0], margin).image_to_crop
    except ValueError:
        return transform
    return geometry.CropTransform(np.column_stack([upright[:, :2] @ turn, upright[:, 2]]), transform.size_wh)
