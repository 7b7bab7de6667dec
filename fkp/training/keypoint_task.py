"""What `train.py keypoints` trains on: faces as crops in memory, augmentation, loss, validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from tqdm import tqdm

from fkp import data, geometry, images, metrics, pipeline, scheme
from fkp.config import KeypointConfig
from fkp.networks import codec, export, keypoint_net
from fkp.training import distillation
from fkp.training.augmentation import FaceCrop, Photometry

ROOM = 1.6
"""Crops are kept this much wider than the network's, so that there is room to turn and shift them."""

BORDER = 60
"""Pixels by which MERL-RAV's tight crops are continued by reflection: a black frame would tell the box."""

SHIFT = (0.25, 0.6)
"""Pixels by which the labels of these crops, once enlarged, lie too far left and up. What a network says in
the style of 300-W of the eyes' corners and the nose, which both mark alike, lies as far from them on training
faces (0.27 and 0.67), and 0.0 and 0.1 from 300-W's own (LOG.md)."""

SOURCES = (*data.TRAINING_SOURCES, data.MERL)
"""The data sets in the data folder that are learnt from."""

REPEATS = (3, 2, 1)
"""How often the faces of each of `scheme.LABEL_STYLES` are shown in an epoch, unless told otherwise."""

DEFAULT_SHARES = {"300w": 0.6, "ytf": 0.5, "merl": 0.35}
"""Share of the faces of a labelling style that are learnt as the default style, None: so many that it learns
from either set of `distillation.DEFAULT_STYLES` as often. Labels of the third teach their own style alone."""

POSES = {"frontal": "frontal"} | dict.fromkeys(("lefthalf", "righthalf"), "half")
POSES |= dict.fromkeys(("left", "right"), "profile")
"""MERL-RAV's pose groups, either side as one."""

ENLARGED = {"frontal": 1.0125, "half": 1.018, "profile": 1.02}
"""The labels of MERL-RAV's crops are too small by these factors, for they were moved there by least squares
on marks that are inexact. AFLW's own marks are whole pixels of its photographs, which gives the exact scale
of a crop: these are the medians of 9,680 faces (LOG.md)."""

ALIGNED = 0.7
"""How far inexact labels are moved, and scaled, towards what a network sees: see `aligned`."""

LEAVING_OUT = 2
"""One in so many of the faces without labels is learnt from, so that labels keep the upper hand."""


@dataclass(frozen=True)
class Augmentation:
    """How far faces are turned, enlarged, shifted and otherwise changed in training."""

    rotation: float = 35.0
    scale: tuple[float, float] = (0.85, 1.2)
    shift: float = 0.08
    mirror: float = 0.5
    photometry: Photometry = Photometry()
    taught: float = 0.4
    """Where there is a teacher: share of labelled faces that are learnt from its answers all the same."""

    def scaled(self, turn: float = 1.0, framing: float = 1.0, photometry: float = 1.0) -> Augmentation:
        """Rotation, enlargement with shift, and what changes pixels, each by a factor: 0 is none of it."""
        numbers = {
            field.name: getattr(self.photometry, field.name) * photometry
            for field in dataclasses.fields(self.photometry) if field.name != "least_resolution"
        }  # fmt: skip
        smallest, largest = self.scale
        return dataclasses.replace(
            self,
            rotation=self.rotation * turn,
            scale=(smallest**framing, largest**framing),
            shift=self.shift * framing,
            photometry=dataclasses.replace(self.photometry, **numbers),
        )


@dataclass(frozen=True)
class LossWeights:
    """What the parts of the loss are multiplied by; see `loss_of`."""

    points: float = 16.0
    heatmaps: float = 2.0
    spreads: float = 0.1
    visibility: float = 0.5


@dataclass(frozen=True, eq=False)
class LabelledFaces:
    """n faces as crops in memory, wider than the network's by `ROOM`; points are in pixels of the crops."""

    crops: np.ndarray
    """(n,P,P,3) uint8."""
    labels: np.ndarray
    """(n,68,2), NaN where there is none."""
    keypoints: np.ndarray
    """The same without the annotation offset of their style."""
    styles: np.ndarray
    """(n,), as by `scheme.style_index`."""
    held_out: np.ndarray
    """(n,), whether a face is for validation."""
    flags: np.ndarray
    """Visibility (n,68) as in `data.read_visibility`, −1 where nobody says so."""
    groups: np.ndarray
    """Pose group (n,), "" where nobody says so."""
    pictures: np.ndarray
    """File name (n,) of the picture."""


def read_faces(
    folder: Path, config: KeypointConfig, sources: Sequence[data.Source] = SOURCES, workers: int = 0
) -> LabelledFaces:
    """The faces of all sources in the data folder, as a network of this config takes them.

    `workers` threads read the pictures. Raises `data.DataError` for what is wrong with a CSV, and where there
    is no face.
    """
    pack = pack_of(config)
    scale = (pack.crop_size / pack.margin) / (config.crop_size / config.margin)

    def reflected(sample: data.Sample) -> data.Sample:
        """A tight crop, continued beyond its edges, as a crop to keep."""
        border = (BORDER, BORDER), (BORDER, BORDER), (0, 0)
        image = np.pad(sample["image"], border, "reflect")
        keypoints = sample["keypoints"] + np.add(SHIFT, BORDER, dtype=np.float32)
        return pack({**sample, "image": image, "keypoints": keypoints})

    crops, labels, offsets, styles, held_out, flags, groups, pictures = [], [], [], [], [], [], [], []
    for source in sources:
        prepare = reflected if source is data.MERL else pack
        faces = data.FacialKeypointsDataset(folder / source.csv, folder / source.folder, prepare)
        # Transforms draw random numbers, even those that change nothing: the initial weights do not see it.
        with torch.random.fork_rng(devices=[]), ThreadPoolExecutor(max(1, workers)) as pool:
            read = [i for i, name in enumerate(faces.names) if f"{source.folder}/{name}" not in data.TWINS]
            names = [faces.names[i] for i in read]
            samples = pool.map(faces.__getitem__, read)
            for sample in tqdm(samples, f"reading {source.folder}", len(read), leave=False, unit="face"):
                crops.append(sample["image"])
                labels.append(sample["keypoints"])
        offsets += [config.annotation_offset(source.style) * scale] * len(names)
        styles += [scheme.style_index(source.style)] * len(names)
        held_out += [data.is_held_out(source.key(name)) for name in names]
        of_points, of_faces = _visibility(folder, source, faces.names)
        flags.append(of_points[read])
        groups += [of_faces[i] for i in read]
        pictures += names
    if not labels:
        raise data.DataError(f"{folder / sources[0].csv}: holds no face, only a header")
    points = np.stack(labels)
    middles = np.nanmean(points, axis=1, keepdims=True)
    larger = np.array([ENLARGED[POSES[group]] if group else 1.0 for group in groups], np.float32)
    points = middles + larger[:, None, None] * (points - middles)
    return LabelledFaces(
        np.stack(crops), points, points - np.stack(offsets)[:, None], np.array(styles), np.array(held_out),
        np.concatenate(flags), np.array(groups), np.array(pictures),
    )  # fmt: skip


def aligned(faces: LabelledFaces, network: keypoint_net.KeypointNetwork) -> LabelledFaces:
    """The faces, with the labels of MERL-RAV's crops moved and scaled towards what a network sees.

    Its labels belong to whole photographs; a fit has moved them to crops, each as a whole. On held-out faces
    they are off from what a small network sees by 1.05 % of the face in place and 2.5 % in size (standard
    deviation, either axis), those of 300-W by 0.55 and 1.2 %: of the variance, seven tenths are the fit's
    (LOG.md). In angle they do not differ. Held-out faces stay as they are.
    """
    merl = (faces.styles == scheme.style_index(data.MERL.style)) & ~faces.held_out
    chosen, count = np.flatnonzero(merl), len(faces.labels)
    if not len(chosen):
        return faces
    boxes = geometry.tight_boxes(faces.keypoints)
    said = distillation.pseudo_labels(network, faces.crops, boxes, faces.styles, chosen, count)
    keypoints = faces.keypoints.copy()
    given = keypoints[chosen]
    seen = np.where(np.isnan(given), np.nan, said.keypoints[chosen, 1])
    middles, theirs = (np.nanmean(points, axis=1, keepdims=True) for points in (given, seen))
    off = theirs - middles
    form, their_form = given - middles, seen - theirs
    larger = np.nanstd(their_form, axis=(1, 2), keepdims=True) / np.nanstd(form, axis=(1, 2), keepdims=True)
    groups = np.array(faces.groups)[chosen]
    for group in np.unique(groups):  # what the faces of a pose have in common is the network's
        here = groups == group
        off[here] -= off[here].mean(axis=0)
        larger[here] /= np.exp(np.log(larger[here]).mean())
    keypoints[chosen] = middles + ALIGNED * off + form * larger**ALIGNED
    return dataclasses.replace(faces, keypoints=keypoints)


def pack_of(config: KeypointConfig) -> FaceCrop:
    """What cuts a face out of its picture, to be kept: the network's crop, with `ROOM` around it."""
    return FaceCrop(round(config.crop_size * ROOM), config.margin * ROOM)


class KeypointTask:
    """Everything about training a keypoint network on faces that is not the loop: see train.py."""

    def __init__(
        self, faces: LabelledFaces, config: KeypointConfig, *,
        batch_size: int = 64, seed: int = 0, workers: int = 0,
        augmentation: Augmentation | None = None, weights: LossWeights | None = None,
        repeats: Sequence[int] = REPEATS, all_faces: bool = False,
    ) -> None:  # fmt: skip
        self.config, self.batch_size, self.seed, self.workers = config, batch_size, seed, workers
        self.augmentation, self.weights = augmentation or Augmentation(), weights or LossWeights()
        self.network = keypoint_net.build(config)
        self.crop = FaceCrop(
            config.crop_size, config.margin, self.augmentation.rotation,
            self.augmentation.scale, self.augmentation.shift, self.augmentation.mirror,
        )  # fmt: skip
        self.still = FaceCrop(config.crop_size, config.margin)
        self.faces, self.crops, self.styles = faces, faces.crops, faces.styles
        """What a teacher is told of besides follows after the labelled ones; see `learn_from`."""
        self.boxes = geometry.tight_boxes(faces.keypoints)
        self.held_out = np.flatnonzero(faces.held_out)
        kept = np.arange(len(faces.labels)) if all_faces else np.flatnonzero(~faces.held_out)
        self.training = np.repeat(kept, np.array([1, *repeats])[self.styles[kept]])
        self.pseudo: distillation.PseudoLabels | None = None
        """What a teacher says of every face, if there is one; see `learn_from`."""
        self.teachers: Sequence[keypoint_net.KeypointNetwork] = ()
        """Who is asked about each view that is learnt from."""

    def learn_from(
        self, teachers: Sequence[keypoint_net.KeypointNetwork], folder: Path, find: distillation.Find,
        said: distillation.PseudoLabels | None = None, each_view: bool = False, photos: Path | None = None,
    ) -> distillation.PseudoLabels:  # fmt: skip
        """Have a teacher tell the points of every face, those without labels in the data folder included.

        `find` is a face detector, for pictures whose faces nobody has marked, those of a folder of `photos`
        among them. Returns what the first teacher said; with this as `said`, it need not be asked again. The
        faces without labels are trained on from now on. With `each_view` all teachers are also asked about
        each view of a face that is learnt from, and the mean of their heat maps is learnt: patience makes a
        student as good as it can be (Beyer et al., https://arxiv.org/abs/2106.05237), and takes a GPU. Raises
        ValueError where one sees other crops, `CheckpointError` where `said` is of other faces.
        """
        if each_view:
            for teacher in teachers:
                theirs, ours = ((c.crop_size, c.margin) for c in (teacher.config, self.config))
                if theirs != ours or not isinstance(teacher.codec, codec.HeatmapCodec):
                    raise ValueError(
                        f"the teacher sees crops of {theirs} (size, margin), the student of {ours}"
                    )
            self.teachers = [teacher.eval().requires_grad_(False) for teacher in teachers]
        faces = distillation.unlabelled_faces(folder, find, self.workers, photos)
        if said is not None:
            said.check(len(self.faces.labels), faces)
        pack = pack_of(self.config)
        transforms = [pack.draw(face.box) for face in faces]
        with ThreadPoolExecutor(max(1, self.workers)) as pool:
            crops = list(pool.map(lambda t, f: t.crop(images.read(f.path)), transforms, faces))
        corners = [t.to_crop(f.box.reshape(2, 2)) for t, f in zip(transforms, faces, strict=True)]
        self.styles = np.append(self.styles, np.zeros(len(faces), self.styles.dtype))
        if faces:
            self.crops = np.concatenate([self.crops, np.stack(crops)])
            self.boxes = np.concatenate([self.boxes, np.reshape(corners, (-1, 4)).astype(np.float32)])
        labelled = len(self.faces.labels)
        if said is None:
            asked = np.append(np.unique(self.training), labelled + np.arange(len(faces)))
            said = distillation.pseudo_labels(
                teachers[0], self.crops, self.boxes, self.styles, asked, labelled
            )
            said.note(faces)
        sure = labelled + np.flatnonzero(said.sure[labelled:])[::LEAVING_OUT]
        self.boxes[labelled:] = geometry.tight_boxes(said.keypoints[labelled:, 0])
        self.training = np.append(self.training, sure)
        self.pseudo = said
        return said

    @property
    def hidden_kernels(self) -> list[nn.Parameter]:
        """What Muon trains: the kernels between the first convolution and those that put out points."""
        if not isinstance(self.network, keypoint_net.KeypointNet):
            return []
        layers = (self.network.stages, self.network.laterals, self.network.smooth)
        return [p for layer in layers for p in layer.parameters() if p.ndim == 4]

    @property
    def steps_per_epoch(self) -> int:
        return len(self.training) // self.batch_size

    def batch(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        """What one step learns from: crops (b,3,S,S) uint8, keypoints (b,68,2) in pixels of the crop, NaN
        where unknown, whether they are `visible` (b,68), 0 to 1 or NaN, and styles (b,).

        `labelled` (b,) says whether the keypoints are labels, and not what a teacher says.
        Every draw comes from (seed, step, rank), so that a resumed run sees what it would have seen.
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(self.training)
        chosen = order[position * self.batch_size : (position + 1) * self.batch_size][rank::world]
        draws = np.random.default_rng((self.seed, step, rank))
        generator = Generator().manual_seed(int(draws.integers(2**62)))
        transforms = [self.crop.draw(self.boxes[i], generator) for i in chosen]
        crops = self._warp(chosen, transforms)
        truth, visible, styles, labelled = self._truth(chosen, draws)
        keypoints = np.stack([t.keypoints_to_crop(p) for t, p in zip(transforms, truth, strict=True)])
        photometry, changed = self.augmentation.photometry, []
        for k, transform in enumerate(transforms):
            if transform.mirrors:
                visible[k] = visible[k, list(scheme.FLIP)]
            crop, mask = photometry.cover(crops[k], draws, crops[k - 1])
            if mask is not None:
                visible[k] = _covered(visible[k], keypoints[k], mask)
            changed.append(photometry.recolour(crop, draws))
        return {
            "crops": torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2),
            "keypoints": torch.from_numpy(keypoints),
            "visible": torch.from_numpy(visible),
            "styles": torch.from_numpy(styles),
            "labelled": torch.from_numpy(labelled),
        }

    def _truth(
        self, chosen: np.ndarray, draws: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """What faces by index are to learn: points (b,68,2), whether they are visible (b,68), style (b,), and
        whether a label says so (b,)."""
        known = chosen < len(self.faces.labels)
        labels = np.where(known, chosen, 0)
        own = self.styles[chosen]
        shares = np.array([0, *(DEFAULT_SHARES[style] for style in scheme.LABEL_STYLES)])
        default = draws.random(len(chosen)) < shares[own]
        styles = np.where(default & distillation.teaches_default(own), 0, own)
        truth, flags = self.faces.keypoints[labels], np.where(known[:, None], self.faces.flags[labels], -1)
        visible = np.where(flags < 0, np.nan, flags == 1)
        if self.pseudo is None:
            return truth, visible.astype(np.float32), styles, known
        labelled = known & (draws.random(len(chosen)) >= self.augmentation.taught)
        styles = np.where(labelled, styles, np.where(default, 0, own))
        said = self.pseudo.keypoints[chosen, (styles > 0).astype(int)]
        truth = np.where(labelled[:, None, None], truth, said)
        visible = np.where(np.isnan(visible), self.pseudo.visibility[chosen], visible)
        return truth, visible.astype(np.float32), styles, labelled

    def _warp(self, chosen: Iterable[int], transforms: Sequence[geometry.CropTransform]) -> list[np.ndarray]:
        """The chosen crops (S,S,3), each moved by its transform."""
        return [t.crop(self.crops[i]) for t, i in zip(transforms, chosen, strict=True)]

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch, and its parts by name; see `loss_of`."""
        raw, taught = model(batch["crops"], batch["styles"]), None
        if self.teachers:
            taught = distillation.heatmaps(self.teachers, batch["crops"], batch["styles"])
        return loss_of(
            self.network.codec, raw, batch["keypoints"], batch["visible"], batch["labelled"], self.weights,
            taught,
        )  # fmt: skip

    @torch.inference_mode()
    def validate(self, model: keypoint_net.KeypointNetwork) -> dict[str, float | None]:
        """Figures on held-out people of YTF, and held-out photos of 300-W and of MERL-RAV.

        `300w` and `ytf`: NME, percent, inter-ocular · `merl`: NME_box, percent, and by pose group (frontal,
        half-profile, profile) · the suffix `own`: in the style of the labels, else in the default style ·
        `turned`, `covered`: area under the ROC curve of visibility, of points turned away or covered against
        visible ones, percent · `nme`, the one to follow: the mean of the three sets. A figure that no face
        supports is None; the mean is that of the other sets.
        """
        result: dict[str, float | None] = {"nme": None}
        of_style = self.styles[self.held_out]
        for style in scheme.LABEL_STYLES:
            chosen = self.held_out[of_style == scheme.style_index(style)]
            measure = metrics.nme_box if style == "merl" else metrics.nme
            for suffix, asked in (("", None), ("_own", style)):
                found, truth = self.predict(model, chosen, asked)
                errors = measure(found.keypoints, truth)
                result[f"{style}{suffix}"] = metrics.mean(errors)
                if style == "merl" and asked is None:
                    groups = np.array([POSES[group] for group in self.faces.groups[chosen]])
                    for pose in ("frontal", "half", "profile"):
                        result[pose] = metrics.mean(errors[groups == pose])
                    seen, flags = found.visibility, self.faces.flags[chosen]
                    for name, flag in (("turned", 0), ("covered", 2)):
                        area = metrics.roc_auc(seen[flags == 1], seen[flags == flag])
                        result[name] = metrics.mean([100 * area])
        result["nme"] = metrics.mean([result[name] for name in ("300w", "ytf_own", "merl")])
        return result

    @torch.inference_mode()
    def predict(
        self, model: keypoint_net.KeypointNetwork, chosen: np.ndarray, label_style: str | None
    ) -> tuple[Found, np.ndarray]:
        """What a network says of faces by index, and their labels (n,68,2), NaN where there is none; pixels
        of the crop."""
        if not len(chosen):
            return Found(np.empty((0, 68, 2)), np.empty((0, 68)), np.empty((0, 68))), np.empty((0, 68, 2))
        said, truth = [], []
        device = next(model.parameters()).device
        for part in np.array_split(chosen, max(1, len(chosen) // 64)):
            transforms = [self.still.draw(self.boxes[i]) for i in part]
            crops = torch.from_numpy(np.stack(self._warp(part, transforms))).permute(0, 3, 1, 2)
            said.append([t.float().cpu().numpy() for t in model.predict(crops.to(device), label_style)])
            truth += [t.to_crop(self.faces.labels[i]) for t, i in zip(transforms, part, strict=True)]
        return Found(*map(np.concatenate, zip(*said, strict=True))), np.stack(truth)

    def finish(self, model: keypoint_net.KeypointNetwork) -> keypoint_net.KeypointNetwork:
        """What `finished` says, with what is fitted on held-out faces: temperatures and visibility.

        A labelling style's own faces decide on its temperature, for how exact labels are is part of it; those
        of 300-W decide on that of None: MERL-RAV's labels were moved to their crops by a fit, and are less
        exact here than elsewhere.
        """
        of_style = self.styles[self.held_out]
        temperatures: list[float] = []
        for style in (None, *scheme.LABEL_STYLES):
            before = self.config.temperatures[len(temperatures)]
            chosen = self.held_out[of_style == scheme.style_index(style or "300w")]
            temperatures.append(round(before * self.fitted_temperature(model, chosen, style), 3))
        flagged = self.held_out[(self.faces.flags[self.held_out] >= 0).any(axis=1)]
        found, _ = self.predict(model, flagged, None)
        calibration = fit_visibility(found.visibility, self.faces.flags[flagged] == 1)
        config = dataclasses.replace(
            self.config, temperatures=tuple(temperatures), visibility_calibration=calibration
        )
        return self.finished(model, config)

    def finished(
        self, model: keypoint_net.KeypointNetwork, config: KeypointConfig
    ) -> keypoint_net.KeypointNetwork:
        """The trained network under a config, with the ranges of its own activations in some 200 training
        crops; without any where they cannot be had (`fkp[export]`), whatever the config says of others."""
        config = dataclasses.replace(config, activation_ranges=())
        finished = keypoint_net.build(config)
        finished.load_state_dict(model.state_dict())
        if export.is_possible():
            crops = np.concatenate([self.batch(step)["crops"] for step in range(1 + 200 // self.batch_size)])
            ranges = export.activation_ranges(finished, crops)
            finished.config = dataclasses.replace(config, activation_ranges=ranges)
        return finished.eval()

    def fitted_temperature(
        self, model: keypoint_net.KeypointNetwork, chosen: np.ndarray, label_style: str | None
    ) -> float:
        """The factor that `fit_temperature` finds for faces by index in a labelling style; 1 without any."""
        found, truth = self.predict(model, chosen, label_style)
        errors = metrics.point_errors(found.keypoints, truth)
        counts = np.isfinite(errors)
        if not counts.any():
            return 1.0
        eyes = np.broadcast_to(geometry.inter_ocular(found.keypoints)[:, None], counts.shape)[counts]
        hits = (errors <= 100 * pipeline.RADIUS)[counts]
        return fit_temperature(found.sigmas[counts][:, None], eyes, hits[:, None])

    def preview(self, model: keypoint_net.KeypointNetwork, count: int = 16) -> np.ndarray:
        """A sheet (H,W,3) uint8 RGB of held-out faces: labels in green, predictions in white."""
        chosen = np.resize(np.random.default_rng(self.seed).permutation(self.held_out), count)
        found, truth = self.predict(model, chosen, None)
        tiles = []
        for index, face, label in zip(chosen, found.keypoints, truth, strict=True):
            (pixels,) = self._warp([index], [self.still.draw(self.boxes[index])])
            tile = cv2.resize(pixels, None, fx=2, fy=2)
            for points, colour in ((label, (0, 255, 0)), (face, (255, 255, 255))):
                for x, y in np.round((points[np.isfinite(points).all(axis=1)] * 2 + 0.5) * 16).astype(int):
                    cv2.circle(tile, (int(x), int(y)), 20, colour, -1, cv2.LINE_AA, shift=4)
            tiles.append(tile)
        rows = [np.concatenate(tiles[i : i + 4], axis=1) for i in range(0, len(tiles) // 4 * 4, 4)]
        return np.concatenate(rows)


class Found(NamedTuple):
    """`keypoints` (n,68,2), `sigmas` (n,68), `visibility` (n,68) of n faces."""

    keypoints: np.ndarray
    sigmas: np.ndarray
    visibility: np.ndarray


def loss_of(
    reader: codec.HeatmapCodec | codec.CoordinateCodec,
    raw: keypoint_net.RawOutput,
    keypoints: Tensor,
    visible: Tensor | None = None,
    labelled: Tensor | None = None,
    weights: LossWeights = LossWeights(),  # noqa: B008  (frozen)
    taught: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of raw output against keypoints (n,68,2), pixels of the crop, NaN where unknown; its parts.

    `nme` is the mean point error over the size of the face (the root of the area of the known points' tight
    box), in percent, `target` what the codec compares (for heat maps the KL divergence from Gaussians),
    `spread` the negative log-likelihood of the errors under a radial Laplace density, which teaches the
    spreads and nothing else, `visible` the cross-entropy against whether points can be seen, (n,68) from 0 to
    1 or NaN, by default unknown. How far off it is, a network learns from the faces alone that are `labelled`
    (n,), by default all. The others learn the heat maps `taught` (n,68,h,h), logits, where there are any.
    """
    if labelled is None:
        labelled = torch.ones(len(keypoints), dtype=torch.bool, device=keypoints.device)
    if taught is not None:
        keypoints = torch.where(labelled[:, None, None], keypoints, reader.decode(taught))
    visible = torch.full_like(raw.visibility, torch.nan) if visible is None else visible
    known = keypoints.isfinite().all(dim=-1)
    corners = [keypoints.masked_fill(~known[..., None], far) for far in (torch.inf, -torch.inf)]
    size = (corners[1].amax(dim=1) - corners[0].amin(dim=1)).clamp_min(1).prod(dim=-1).sqrt()
    truth = keypoints.masked_fill(~known[..., None], 0)
    distances = (reader.decode(raw.outputs) - truth).square().sum(-1).add(1e-4).sqrt()
    nme = _mean_of(distances / size[:, None], known)
    differences = reader.loss(raw.outputs, truth)
    if taught is not None:
        differences = torch.where(labelled[:, None], differences, codec.divergence(raw.outputs, taught))
    target = _mean_of(differences, known)
    # The density is exp(−r/b) / (2πb²) with a mean of 2b.
    density = 2 * distances.detach() / raw.log_spreads.exp() + 2 * raw.log_spreads
    spread = _mean_of(density, known & labelled[:, None])
    told = visible.isfinite()
    entropy = F.binary_cross_entropy_with_logits(
        raw.visibility, visible.masked_fill(~told, 0), reduction="none"
    )
    seen = (entropy * told).sum() / told.sum().clamp_min(1)
    total = weights.points * nme + weights.heatmaps * target + weights.spreads * spread
    parts = {"nme": 100 * nme, "target": target, "spread": spread, "visible": seen}
    return total + weights.visibility * seen, {name: part.item() for name, part in parts.items()}


def _mean_of(values: Tensor, counts: Tensor) -> Tensor:
    """Mean over faces of the mean of a face's values (n,68) where `counts` (n,68); 0 where none does."""
    of_faces = (values * counts).sum(dim=1) / counts.sum(dim=1).clamp_min(1)
    return of_faces.sum() / counts.any(dim=1).sum().clamp_min(1)


def fit_temperature(spreads: np.ndarray, inter_ocular: np.ndarray, hits: np.ndarray) -> float:
    """The factor for spreads (n,m) with which scores are nearest to hits (n,m) in ten bins; 0.4 to 2.5.

    `inter_ocular` (n,) in the unit of the spreads.
    """

    def error(temperature: float) -> float:
        return metrics.reliability(pipeline.scores_from_sigmas(temperature * spreads, inter_ocular), hits)[0]

    return float(min(np.geomspace(0.4, 2.5, 85).round(3), key=error))


def fit_visibility(probabilities: np.ndarray, seen: np.ndarray) -> tuple[float, float]:
    """Slope and intercept for the logits of probabilities (n,68), so that they are those of `seen` (n,68).

    Logistic regression on the logits, by Newton's method (Platt scaling).
    """
    p = np.clip(probabilities.ravel().astype(np.float64), 1e-6, 1 - 1e-6)
    features = np.stack([np.log(p / (1 - p)), np.ones_like(p)], axis=1)
    answer = np.array([1.0, 0.0])
    for _ in range(20):
        now = 1 / (1 + np.exp(-features @ answer))
        gradient = features.T @ (now - seen.ravel())
        curvature = (features * (now * (1 - now))[:, None]).T @ features
        answer = answer - np.linalg.solve(curvature + 1e-6 * np.eye(2), gradient)
    return round(float(answer[0]), 4), round(float(answer[1]), 4)


def _visibility(folder: Path, source: data.Source, names: list[str]) -> tuple[np.ndarray, list[str]]:
    """Flags (n,68) and pose groups of the faces of a source: −1 and "" where it has none."""
    if source.visibility is None:
        return np.full((len(names), scheme.COUNT), -1, np.int8), [""] * len(names)
    of, groups, flags = data.read_visibility(folder / source.visibility)
    if of != names:
        raise ValueError(f"{folder / source.visibility} has other rows than {folder / source.csv}")
    return flags, groups


def _covered(visible: np.ndarray, keypoints: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Visibility (68,) once what the mask (H,W) has is covered; what was unknown stays so."""
    height, width = mask.shape
    x, y = np.nan_to_num(keypoints, nan=-1).round().astype(int).T
    inside = (x >= 0) & (x < width) & (y >= 0) & (y < height)
    hidden = inside & (mask[y.clip(0, height - 1), x.clip(0, width - 1)] > 0)
    return np.where(hidden & np.isfinite(visible), 0, visible).astype(np.float32)
