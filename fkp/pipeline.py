"""From a picture to the keypoints of every face in it: the function that tells the story."""

from __future__ import annotations

import copy
import inspect
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack, overload

import numpy as np

from fkp import geometry, hub, images, runtime, scheme
from fkp.detector import Detector
from fkp.detectors import DETECTORS, single_face, yunet
from fkp.faces import UNSURE, FaceDetector, Faces, check_limits
from fkp.hub import model_card

if TYPE_CHECKING:
    from fkp.hub import download

BATCH = 64
"""Crops that go through the keypoint network at once; more only costs memory."""

RADIUS = 0.05
"""A keypoint score is the probability that the point lies within this share of the inter-ocular distance."""

PASSES = ("auto", 1, 2)
"""How often faces go through the keypoint network; see `FaceKeypoints.from_pretrained`."""

SURER = 0.9
"""Another crop of a face is taken where its points' expected error is less than this share of what it was."""

NO_FACE = 0.12
"""A detected box whose points score less than this on average after all passes holds no face."""

SURE_FACE = 0.9
"""A picture in which no box scores as much is searched lying on its side and upside down as well, and a box
that is found only so has to score as much."""

FAR = 100.0
"""Boxes may reach so many of the picture's longer sides from its corner."""

SMALLEST = 0.5
"""Pixels that the longer side of a box has at least."""


@dataclass(frozen=True, eq=False)
class _Placed:
    """Points of n faces, pixels of their pictures: `keypoints` (n,68,2), `sigmas`, `scores`, `visibility`
    (n,68); and the crops (n) that they were seen in."""

    keypoints: np.ndarray
    sigmas: np.ndarray
    scores: np.ndarray
    visibility: np.ndarray
    transforms: np.ndarray

    def surer(self, others: _Placed, rows: np.ndarray) -> Self:
        """With the rows (m,) replaced by `others`, m faces, where their expected error is clearly smaller.

        Scores would not do: they count in distances between the eyes, which close up in profile.
        """
        better = others.sigmas.mean(axis=1) < SURER * self.sigmas[rows].mean(axis=1)
        arrays = []
        for part in fields(self):
            array = getattr(self, part.name).copy()
            array[rows[better]] = getattr(others, part.name)[better]
            arrays.append(array)
        return type(self)(*arrays)


class FaceKeypoints:
    """The pretrained model: every face in a picture, 68 keypoints on each.

    It holds no state between pictures, so one object can serve several threads, and processes that are forked
    off after it was loaded.
    """

    def __init__(
        self,
        weights: hub.Weights,
        face_detector: FaceDetector | None = None,
        *,
        label_style: str | None = None,
        backend: str | None = None,
        device: str = "cpu",
        threads: int | None = None,
        mirrored: bool = False,
        passes: str | int = "auto",
    ) -> None:
        """As `from_pretrained`, from weights in memory; `face_detector` is by default that of the weights."""
        _check_options(passes, label_style)
        self.weights, self.config = weights, weights.keypoints
        self.label_style, self.mirrored, self.passes = label_style, mirrored, passes
        self.device, self._backend, self._threads = runtime.device_named(device), backend, threads
        self.runner: runtime.Runnable = self._runner("keypoints", backend)
        self.face_detector: FaceDetector = (
            self._own_detector(backend) if face_detector is None else _callable_as_asked(face_detector)
        )

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path | None = None,
        *,
        revision: str | None = None,
        label_style: str | None = None,
        backend: str | None = None,
        device: str = "cpu",
        threads: int | None = None,
        mirrored: bool = False,
        passes: str | int = "auto",
        detector: str | FaceDetector = "fkp",
        **hub_options: Unpack[download.Options],
    ) -> FaceKeypoints:
        """The model of `source`: None for the bundled weights, a directory, or a Hub id "owner/name".

        Nothing is requested from the network for the bundled weights or a directory. `revision` pins a Hub
        commit, branch or tag. `label_style` None puts points where they are seen, the jaw of a turned face
        along its visible outline; one of `scheme.LABEL_STYLES` reproduces the conventions of a data set's
        labels, their annotation offset among them. `backend`, one of `runtime.BACKENDS`, runs the networks,
        by default the fastest that can be had; `device`, one of `runtime.DEVICES`, says where, `threads` on
        how many of the processor's (by default as many as there are, 4 at most; torch has a number of its
        own, torch.set_num_threads).
        `passes="auto"` gives faces whose points come out unsure more passes: at quarter turns, upright and
        framed by their points, and keeps the surest; a picture in which nothing sure is found is searched
        lying on its side and upside down as well, and boxes whose points are hopeless are dropped. 1 is one
        pass for every face, 2 frames every face anew by its first points. `mirrored` averages every
        prediction with that of the mirrored crop, for twice the time.
        `detector` finds the faces: one of `DETECTORS` by name, or a `FaceDetector` of your own; whichever it
        is, the weights' own is what `save_pretrained` saves.
        `hub_options` are those of `download.Options` (cache_dir, token, local_files_only, …).
        Raises `hub.WeightsError` with one sentence when the weights, or YuNet's, cannot be had or do not fit,
        `runtime.BackendError` when the backend or device asked for cannot be had, and ValueError for a
        detector that is none.
        """
        if isinstance(detector, str) and detector not in DETECTORS:
            names = ", ".join(DETECTORS)
            raise ValueError(f"there is no detector {detector!r}: choose one of {names}, or give your own")
        weights = hub.load(source, revision, **hub_options)
        found_by: FaceDetector | None = None if isinstance(detector, str) else detector
        if isinstance(detector, str) and detector == "yunet":
            found_by = yunet.YuNet(yunet.find(**hub_options))
        model = cls(
            weights, found_by, label_style=label_style, backend=backend, device=device, threads=threads,
            mirrored=mirrored, passes=passes,
        )  # fmt: skip
        if isinstance(detector, str) and detector == "whole":
            model.face_detector = single_face.SingleFace(model)
        return model

    def with_detector(self, face_detector: FaceDetector) -> Self:
        """The same model with another face detector."""
        return self._with(face_detector=_callable_as_asked(face_detector))

    def with_runner(self, wrap: Callable[[runtime.Runnable], runtime.Runnable]) -> Self:
        """The same model with what `wrap` makes of the keypoint network's runner, as for shared batches."""
        return self._with(runner=wrap(self.runner))

    def with_options(self, *, passes: str | int, label_style: str | None) -> Self:
        """The same model with other passes and another label style, as `from_pretrained` has them."""
        _check_options(passes, label_style)
        return self._with(passes=passes, label_style=label_style)

    def to(self, device: str) -> Self:
        """The same model on another device, see `runtime.DEVICES`; a detector of your own stays as it is, and
        what `with_runner` wrapped is not wrapped there."""
        device = runtime.device_named(device)
        if device == self.device:
            return self
        there = self._with(device=device)
        runs_there = device == "cpu" or (self._backend or "").startswith("torch")
        backend = self._backend if runs_there else None
        there.runner = there._runner("keypoints", backend)
        if isinstance(self.face_detector, Detector):
            there.face_detector = there._own_detector(backend)
        return there

    def _with(self, **changed: Any) -> Self:
        """A copy with these attributes changed."""
        other = copy.copy(self)
        other.__dict__.update(changed)
        detector = other.face_detector
        if isinstance(detector, single_face.SingleFace) and detector.model is self:
            other.face_detector = copy.copy(detector)
            other.face_detector.model = other
        return other

    def _runner(self, network: str, backend: str | None) -> runtime.Runner:
        return runtime.Runner(self.weights.files(network), backend, self.device, self._threads)

    def _own_detector(self, backend: str | None) -> Detector:
        """The detector of the weights."""
        if backend == "torch-compile":  # compiled anew for every size of picture it would never be done
            backend = "torch"
        if backend == "onnxruntime-int8" and backend not in self.weights.files("detector").graphs:
            backend = "onnxruntime"
        return Detector(self.weights.detector, self._runner("detector", backend))

    @property
    def metrics(self) -> dict[str, Any]:
        """What was measured of the weights, and how they were trained: metrics.json."""
        return self.weights.metrics

    @property
    def backend(self) -> str:
        """The one of `runtime.BACKENDS` that runs the keypoint network."""
        return self.runner.name

    def describe(self) -> list[str]:
        """What runs here, for people: a line each for the weights, the keypoint network and the detector."""
        style = f", label style {self.label_style}" if self.label_style else ""
        return [
            f"weights from {self.weights.folder or 'memory'}{style}",
            f"keypoints on {self.runner.description}",
            f"faces by {getattr(self.face_detector, 'description', _name(self.face_detector))}",
        ]

    @overload  # a str is a sequence of them, too
    def __call__(  # type: ignore[overload-overlap]
        self, image: images.ImageLike, *, min_score: float | None = None, max_faces: int | None = None
    ) -> Faces: ...

    @overload
    def __call__(
        self,
        image: Sequence[images.ImageLike],
        *,
        min_score: float | None = None,
        max_faces: int | None = None,
    ) -> list[Faces]: ...

    def __call__(self, image: Any, *, min_score: float | None = None, max_faces: int | None = None) -> Any:
        """Every face in a picture: a path, a PIL image or an (H,W,3) uint8 RGB array; largest face first.

        A list or tuple of pictures, of any sizes, gives a list: the crops of all of them share batches.
        `min_score` is the least face confidence (0..1, by default the detector's own), `max_faces` keeps the
        largest.
        Raises `images.ImageError` for what is no picture, and ValueError for numbers that are out of range
        or where a face detector of your own gives what are no boxes.
        """
        if isinstance(image, list | tuple):
            return self._several(image, min_score, max_faces)
        return self._several([image], min_score, max_faces)[0]

    def _several(
        self, some: Sequence[images.ImageLike], min_score: float | None, max_faces: int | None
    ) -> list[Faces]:
        """The faces of each of several pictures."""
        check_limits(min_score, max_faces)
        pictures = [images.read(each) for each in some]
        found = [self._detect(picture, min_score) for picture in pictures]
        of = np.repeat(np.arange(len(pictures)), [len(boxes) for boxes, _, _ in found])
        boxes, scores, turns = (np.concatenate([one[i] for one in found] or [np.empty(0)]) for i in range(3))
        faces: list[list[Faces]] = [[Faces.none()] for _ in pictures]
        most = len(of) if max_faces is None else min(max_faces, len(of))
        waiting, lacking = np.arange(len(of)), np.full(len(pictures), most)
        # Boxes that hold no face do not count: for each of them the next largest is looked at.
        while len(now := waiting[_rank(of[waiting]) < lacking[of[waiting]]]):
            placed = self._place(pictures, of[now], boxes[now], turns[now])
            held = self._hold_faces(placed)
            there = _faces(boxes[now], scores[now], placed)
            for i in np.unique(of[now]):
                faces[i].append(there[held & (of[now] == i)])
                lacking[i] -= len(faces[i][-1])
            waiting = np.setdiff1d(waiting, now)
        return [_joined(parts).seen_in(picture) for parts, picture in zip(faces, some, strict=True)]

    def _hold_faces(self, placed: _Placed) -> np.ndarray:
        """(n,) bool: whether there is a face where points were placed."""
        if self.passes != "auto" or isinstance(self.face_detector, single_face.SingleFace):
            return np.ones(len(placed.scores), bool)
        return placed.scores.mean(axis=1) >= NO_FACE

    def detect(
        self, image: images.ImageLike, *, min_score: float | None = None, max_faces: int | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """The same without keypoints: boxes (n,4) xyxy and scores (n,), largest face first, both float32.

        Boxes whose points would show that they hold no face are among them.
        """
        check_limits(min_score, max_faces)
        boxes, scores, _ = self._detect(images.read(image), min_score)
        return boxes[:max_faces], scores[:max_faces]

    def keypoints_at(self, image: images.ImageLike, boxes: np.ndarray) -> Faces:
        """Keypoints of the faces in known tight boxes (n,4) xyxy, in their order; every score is 1.

        Raises `images.ImageError` for what is no picture, and ValueError for boxes that have no area, are
        smaller than a pixel or reach far beyond the picture.
        """
        picture, boxes = images.read(image), np.array(boxes, dtype=np.float32)
        if not len(boxes) or boxes.shape == (1, 0):  # as of an empty list, and of one in a list
            return Faces.none()
        if boxes.ndim == 1:
            boxes = boxes[None]
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise ValueError(f"boxes have shape {boxes.shape}, (n,4) is needed: x1, y1, x2, y2 of each face")
        of, turns = np.zeros((2, len(boxes)), int)
        placed = self._place([picture], of, boxes, turns)
        return _faces(boxes, np.ones(len(boxes), np.float32), placed).seen_in(image)

    def _detect(
        self, image: np.ndarray, min_score: float | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Boxes (n,4), largest first, scores (n,) and, in quarter turns counter-clockwise, what puts each
        upright (n,)."""
        boxes, scores = self._found(image, min_score)
        turns = np.zeros(len(boxes), int)
        if self.passes == "auto" and scores.max(initial=0) < SURE_FACE:
            found = [(boxes, scores, turns)]
            for turn in (1, 2, 3):
                turned, more = self._found(geometry.turned(image, turn), min_score)
                sure = more >= SURE_FACE
                back = geometry.turned_back(turned[sure], turn, image.shape[:2])
                found.append((back, more[sure], np.full(sure.sum(), turn)))
            boxes, scores, turns = (np.concatenate(parts) for parts in zip(*found, strict=True))
            best = geometry.suppress(boxes, scores, self.weights.detector.max_iou)
            boxes, scores, turns = boxes[best], scores[best], turns[best]
        largest_first = np.argsort(-(boxes[:, 2:] - boxes[:, :2]).prod(axis=1), kind="stable")
        return boxes[largest_first], scores[largest_first], turns[largest_first]

    def _found(self, image: np.ndarray, min_score: float | None) -> tuple[np.ndarray, np.ndarray]:
        """What the face detector finds, checked."""
        return _in_picture(
            self.face_detector(image, min_score=min_score), image.shape[:2], self.face_detector
        )

    def _place(
        self, pictures: Sequence[np.ndarray], of: np.ndarray, boxes: np.ndarray, turns: np.ndarray
    ) -> _Placed:
        """Crop, network and back, as often as `passes` says, for boxes (n,4) of the pictures `of` (n,)."""
        sizes = np.array([max(picture.shape[:2]) for picture in pictures])[of]
        too_far = (np.abs(boxes) > FAR * sizes[:, None]).any(axis=-1)
        if too_far.any():  # no memory holds what lies in between
            box, shape = boxes[too_far.argmax()].tolist(), pictures[of[too_far.argmax()]].shape
            size = f"{shape[1]}×{shape[0]}"
            raise ValueError(f"the box {box} reaches too far beyond the picture of {size} pixels")
        first = [self._crop(box, turn) for box, turn in zip(boxes, turns, strict=True)]
        placed = self._pass(pictures, of, first)
        if self.passes == 1 or not len(of):
            return placed
        unsure = np.flatnonzero(placed.scores.mean(axis=1) < UNSURE)
        if len(unsure):
            rows = np.tile(unsure, 3)
            more = np.repeat([1, 2, 3], len(unsure))
            crops = [self._crop(boxes[i], turns[i] + turn) for i, turn in zip(rows, more, strict=True)]
            turned = self._pass(pictures, of[rows], crops)
            for turn in (1, 2, 3):
                placed = placed.surer(_rows(turned, more == turn), unsure)
        again = unsure if self.passes == "auto" else np.arange(len(of))
        if len(again):
            crop_size, margin = self.config.crop_size, self.config.margin
            framed = [geometry.upright(placed.keypoints[i], crop_size, margin) for i in again]
            crops = [
                self._reproducible(crop) if crop else placed.transforms[i]
                for i, crop in zip(again, framed, strict=True)
            ]
            placed = placed.surer(self._pass(pictures, of[again], crops), again)
        return placed

    def _crop(self, box: np.ndarray, turn: int) -> geometry.CropTransform:
        size, margin = self.config.crop_size, self.config.margin
        x1, y1, x2, y2 = box.tolist()
        if 0 < max(x2 - x1, y2 - y1) < SMALLEST:
            where = "is smaller than a pixel: x1, y1, x2, y2 in pixels are needed"
            raise ValueError(f"the box {[x1, y1, x2, y2]} {where}")
        crop = geometry.CropTransform.around_box(box, size, margin, angle=90.0 * (turn % 4))
        return self._reproducible(crop)

    def _reproducible(self, crop: geometry.CropTransform) -> geometry.CropTransform:
        """The crop for the network that runs: only 8-bit integers need it rounded."""
        return crop.rounded() if self.runner.name == "onnxruntime-int8" else crop

    def _pass(
        self, pictures: Sequence[np.ndarray], of: np.ndarray, transforms: Sequence[geometry.CropTransform]
    ) -> _Placed:
        """One pass of the network over faces of the pictures `of` (n,), each in the crop of its transform."""
        size = self.config.crop_size
        crops = np.empty((len(of), size, size, 3), np.uint8)
        for crop, transform, i in zip(crops, transforms, of, strict=True):
            crop[:] = transform.crop(pictures[i])
        keypoints, sigmas, visibility = self._predict(crops)
        scores = scores_from_sigmas(sigmas, geometry.inter_ocular(keypoints))
        back = np.reshape([transform.crop_to_image for transform in transforms], (-1, 2, 3))
        in_picture = keypoints @ back[:, :, :2].swapaxes(1, 2) + back[:, None, :, 2]
        pixels = np.sqrt(np.square(back[:, 0, :2]).sum(axis=-1, keepdims=True))
        held = np.empty(len(transforms), object)
        held[:] = transforms
        return _Placed(in_picture.astype(np.float32), sigmas * pixels, scores, visibility, held)

    def _predict(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keypoints (n,68,2), sigmas and visibility (n,68) in crops (n,S,S,3) uint8 RGB, in their pixels."""
        if not self.mirrored:
            return self._run(crops)
        n, width = crops.shape[0], crops.shape[2]
        keypoints, *others = self._run(np.concatenate([crops, crops[:, :, ::-1]]))
        back = geometry.mirror(keypoints[n:], width)
        # The offset of the style's labels is to the right in either picture.
        back[..., 0] += 2 * self.config.annotation_offset(self.label_style)[0]
        sigmas, visibility = ((o[:n] + o[n:][:, list(scheme.FLIP)]) / 2 for o in others)
        return (keypoints[:n] + back) / 2, sigmas, visibility

    def _run(self, crops: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The same without the mirrored crops, BATCH at a time."""
        style = np.array([scheme.style_index(self.label_style)])
        parts = [self.runner(crops[i : i + BATCH], style) for i in range(0, len(crops), BATCH)]
        if not parts:
            return np.empty((0, 68, 2), np.float32), np.empty((0, 68)), np.empty((0, 68))
        keypoints, sigmas, visibility = runtime.joined(parts)
        if not all(np.isfinite(array).all() for array in (keypoints, sigmas, visibility)):
            raise hub.WeightsError(
                f"the keypoint network of {self.weights.folder or 'these weights'} gives numbers that are "
                "not finite: get the weights anew"
            )
        return keypoints, sigmas, visibility

    def save_pretrained(self, folder: str | Path, *, repo_id: str = "OWNER/NAME") -> None:
        """Write `config.json`, `model.safetensors`, `metrics.json`, the model card README.md and the ONNX
        graphs, over files of these names that are there.

        The card shows what the weights find in a picture, and `repo_id` as their name on the Hub; for the
        graphs see `hub.save`.
        """
        own = FaceKeypoints(self.weights)
        hub.save(folder, self.weights, repo_id=repo_id, pictures=model_card.pictures(own))

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
        from fkp.hub import publish

        publish.check_push(repo_id, token)  # before the graphs, which take seconds
        with tempfile.TemporaryDirectory() as folder:
            self.save_pretrained(folder, repo_id=repo_id)
            return publish.push(folder, repo_id, private=private, token=token, commit_message=commit_message)


def scores_from_sigmas(sigmas: np.ndarray, inter_ocular: np.ndarray) -> np.ndarray:
    """Confidence (n,68), 0..1, that a point lies within `RADIUS` of the inter-ocular distance of the truth.

    `sigmas` (n,68) are expected errors and `inter_ocular` (n,) distances, in one unit. The error is taken to
    follow a radial Laplace density, exp(−r/b) / (2πb²), whose mean is 2b, so
    P(r < R) = 1 − (1 + R/b)·exp(−R/b).
    """
    ratio = 2 * RADIUS * inter_ocular[..., None] / np.maximum(sigmas, 1e-6)
    return 1 - (1 + ratio) * np.exp(-ratio)


def _rows(placed: _Placed, chosen: np.ndarray) -> _Placed:
    return _Placed(*(getattr(placed, part.name)[chosen] for part in fields(placed)))


def _faces(boxes: np.ndarray, scores: np.ndarray, placed: _Placed) -> Faces:
    return Faces(
        boxes.reshape(-1, 4), scores, placed.keypoints, placed.scores, placed.sigmas, placed.visibility
    )


def _joined(parts: Sequence[Faces]) -> Faces:
    return Faces(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Faces)))


def _rank(groups: np.ndarray) -> np.ndarray:
    """The place (n,) of each within its group, from 0; `groups` (n,) are sorted."""
    return np.arange(len(groups)) - np.searchsorted(groups, groups)


def _check_options(passes: str | int, label_style: str | None) -> None:
    """Raises ValueError with a sentence for an unknown one."""
    scheme.style_index(label_style)
    if passes not in PASSES:
        raise ValueError(f"passes is {passes!r}, where {', '.join(map(str, PASSES))} are known")


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
    if not (within := (scores >= 0) & (scores <= 1 + 1e-5)).all():
        raise ValueError(f"{who} the score {scores[~within][0]}, where 0 to 1 is needed")
    scores = np.minimum(scores, 1)
    height, width = shape_hw
    seen = (boxes[:, 2:] >= -0.5).all(axis=1) & (boxes[:, :2] <= (width - 0.5, height - 0.5)).all(axis=1)
    if isinstance(face_detector, Detector):  # in a picture of a few pixels
        seen &= (boxes[:, 2:] - boxes[:, :2]).max(axis=1) >= SMALLEST
    return boxes[seen], scores[seen]


def _name(face_detector: FaceDetector) -> str:
    """What its author calls it: a function's own name, or that of its class."""
    return str(getattr(face_detector, "__name__", type(face_detector).__name__))
