"""What `train.py keypoints` trains on: faces as crops in memory, augmentation, loss, validation."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from torch import Generator, Tensor, nn
from tqdm import tqdm

from fkp import data, geometry, images, metrics, runtime, scheme
from fkp.networks import codec, keypoint_net
from fkp.training import distillation

ROOM = 1.6
"""Crops are kept this much wider than the network's, so that there is room to turn and shift them."""


@dataclass(frozen=True)
class Augmentation:
    """How far faces are turned, enlarged, shifted and otherwise changed in training."""

    rotation: float = 35.0
    scale: tuple[float, float] = (0.85, 1.2)
    shift: float = 0.08
    mirror: float = 0.5
    photometry: data.Photometry = data.Photometry()
    style_dropout: float = 0.3
    """Share of faces whose labelling style is hidden from the network, so that `auto` is learnt too."""
    lesson: float = 0.5
    """Where there is a teacher: share of faces that are learnt from what it says, and not from the label."""
    other_style: float = 0.5
    """Share of these that are learnt in a labelling style drawn at random."""

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


class KeypointTask:
    """Everything about training a keypoint network that is not the loop: see train.py.

    Holds all faces as crops (n,P,P,3) uint8 in memory.
    """

    def __init__(
        self, folder: Path, config: keypoint_net.KeypointConfig, *,
        batch_size: int = 64, seed: int = 0, workers: int = 0,
        augmentation: Augmentation | None = None, all_faces: bool = False,
    ) -> None:  # fmt: skip
        self.config, self.batch_size, self.seed = config, batch_size, seed
        self.augmentation = augmentation or Augmentation()
        self.network = keypoint_net.build(config)
        self.crop = data.FaceCrop(
            config.crop_size, config.margin, self.augmentation.rotation,
            self.augmentation.scale, self.augmentation.shift, self.augmentation.mirror,
        )  # fmt: skip
        self.still = data.FaceCrop(config.crop_size, config.margin)
        self.pack = data.FaceCrop(round(config.crop_size * ROOM), config.margin * ROOM)
        scale = (self.pack.crop_size / self.pack.margin) / (config.crop_size / config.margin)
        crops, keypoints, leans, styles, held_out = [], [], [], [], []
        for source in data.TRAINING_SOURCES:
            faces = data.FacialKeypointsDataset(folder / source.csv, folder / source.folder, self.pack)
            with ThreadPoolExecutor(max(1, workers)) as pool:
                samples = pool.map(faces.__getitem__, range(len(faces)))
                for sample in tqdm(samples, f"reading {source.folder}", len(faces), leave=False, unit="face"):
                    crops.append(sample["image"])
                    keypoints.append(sample["keypoints"])
            leans += [config.lean(source.style) * scale] * len(faces)
            styles += [scheme.LABEL_STYLES.index(source.style)] * len(faces)
            held_out += [data.is_held_out(source.key(name)) for name in faces.names]
        self.crops = np.stack(crops)
        self.keypoints = np.stack(keypoints) - np.stack(leans)[:, None].astype(np.float32)
        """Labels (n,68,2) in pixels of the crops, without their leans."""
        self.boxes = geometry.tight_boxes(self.keypoints)
        self.styles = np.array(styles)
        self.held_out = np.flatnonzero(held_out)
        self.training = np.arange(len(held_out)) if all_faces else np.flatnonzero(~np.array(held_out))
        self.lessons = np.empty((0, len(scheme.LABEL_STYLES), scheme.COUNT, 2), np.float32)
        """What a teacher says of every face, (n,styles,68,2), if there is one; see `learn_from`."""

    def learn_from(
        self, teacher: runtime.Runner, config: keypoint_net.KeypointConfig, folder: Path,
        said: np.ndarray | None = None,
    ) -> np.ndarray:  # fmt: skip
        """Have a teacher tell the points of every face, those without labels in the data folder included.

        `teacher` runs a `runtime.Decoded` network of this config. Returns what it said; with this as `said`,
        it need not be asked again. The faces without labels are trained on from now on.
        """
        faces = distillation.unlabelled_faces(folder)
        transforms = [self.pack.draw(face.box) for face in faces]
        crops = [t.crop(images.read(f.path)) for t, f in zip(transforms, faces, strict=True)]
        corners = [t.to_crop(f.box.reshape(2, 2)) for t, f in zip(transforms, faces, strict=True)]
        self.training = np.append(self.training, len(self.crops) + np.arange(len(faces)))
        if faces:
            self.crops = np.concatenate([self.crops, np.stack(crops)])
            self.boxes = np.concatenate([self.boxes, np.reshape(corners, (-1, 4))])
        if said is None:
            said = np.zeros((len(self.crops), len(scheme.LABEL_STYLES), scheme.COUNT, 2), np.float32)
            chosen = self.training
            said[chosen] = distillation.lessons(
                teacher, config, [self.crops[i] for i in chosen], self.boxes[chosen]
            )
        self.lessons = self._agreeing(said)
        return said

    def _agreeing(self, said: np.ndarray) -> np.ndarray:
        """Lessons moved so that, in each style, they agree with the labels on the whole.

        A teacher may have learnt from labels with their lean, or from others.
        """
        moved = said.copy()
        known = self.training[self.training < len(self.keypoints)]
        for index, style in enumerate(scheme.LABEL_STYLES):
            chosen = known if style == "auto" else known[self.styles[known] == index]
            if len(chosen):
                away = self.keypoints[chosen] - said[chosen, index]
                moved[:, index] += np.median(away.mean(axis=1), axis=0)
        return moved

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
        """Crops (b,3,S,S) uint8, keypoints (b,68,2) in pixels of the crop and styles (b,) of one step.

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
        changed = [self.augmentation.photometry.change(c, draws, crops[k - 1]) for k, c in enumerate(crops)]
        truth, styles, labelled = self._truth(chosen, draws)
        keypoints = [t.keypoints_to_crop(points) for t, points in zip(transforms, truth, strict=True)]
        return {
            "crops": torch.from_numpy(np.stack(changed)).permute(0, 3, 1, 2),
            "keypoints": torch.from_numpy(np.stack(keypoints)),
            "styles": torch.from_numpy(styles),
            "labelled": torch.from_numpy(labelled),
        }

    def _truth(
        self, chosen: np.ndarray, draws: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """What faces by index are to learn: points (b,68,2), style (b,), and whether a label says so (b,)."""
        auto, labels = scheme.LABEL_STYLES.index("auto"), len(self.keypoints)
        known = chosen < labels
        own = self.styles[np.where(known, chosen, 0)]
        styles = np.where(draws.random(len(chosen)) < self.augmentation.style_dropout, auto, own)
        truth = self.keypoints[np.where(known, chosen, 0)]
        if not len(self.lessons):
            return truth, styles, known
        labelled = known & (draws.random(len(chosen)) >= self.augmentation.lesson)
        drawn = ~labelled & (~known | (draws.random(len(chosen)) < self.augmentation.other_style))
        styles = np.where(drawn, draws.integers(len(scheme.LABEL_STYLES), size=len(chosen)), styles)
        return np.where(labelled[:, None, None], truth, self.lessons[chosen, styles]), styles, labelled

    def _warp(self, chosen: Iterable[int], transforms: Sequence[geometry.CropTransform]) -> list[np.ndarray]:
        """The chosen crops (S,S,3), each moved by its transform."""
        return [t.crop(self.crops[i]) for t, i in zip(transforms, chosen, strict=True)]

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch, and its parts by name; see `loss_of`."""
        raw = model(batch["crops"], batch["styles"])
        return loss_of(self.network, raw, batch["keypoints"], batch["labelled"])

    @torch.inference_mode()
    def validate(self, model: keypoint_net.KeypointNetwork) -> dict[str, float]:
        """NME (percent, inter-ocular, 68 points) on held-out people of YTF and held-out photos of 300-W.

        `nme` is the mean of the two; the suffix says which labelling style the network was asked for.
        """
        result: dict[str, float] = {"nme": 0.0}
        of_style = self.styles[self.held_out]
        for style in ("ytf", "300w"):
            chosen = self.held_out[of_style == scheme.LABEL_STYLES.index(style)]
            for name, asked in (("auto", "auto"), ("own", style)):
                predicted, _, truth = self.predict(model, chosen, asked)
                result[f"{style}_{name}"] = float(metrics.nme(predicted, truth).mean())
        result["nme"] = (result["ytf_auto"] + result["300w_auto"]) / 2
        return result

    @torch.inference_mode()
    def predict(
        self, model: keypoint_net.KeypointNetwork, chosen: np.ndarray, label_style: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keypoints (n,68,2), spreads (n,68) and labels (n,68,2) of faces by index, pixels of the crop."""
        points, spreads, truth = [], [], []
        device = next(model.parameters()).device
        for part in np.array_split(chosen, max(1, len(chosen) // 64)):
            transforms = [self.still.draw(self.boxes[i]) for i in part]
            crops = torch.from_numpy(np.stack(self._warp(part, transforms))).permute(0, 3, 1, 2)
            prediction = model.predict(crops.to(device), label_style)
            points.append(prediction.keypoints.float().cpu().numpy())
            spreads.append(prediction.spreads.float().cpu().numpy())
            truth += [t.to_crop(self.keypoints[i]) for t, i in zip(transforms, part, strict=True)]
        return np.concatenate(points), np.concatenate(spreads), np.stack(truth)

    def finish(self, model: keypoint_net.KeypointNetwork) -> keypoint_net.KeypointNetwork:
        """The trained network with its temperatures fitted: scores match hits best on the held-out faces.

        A labelling style's own faces decide on its temperature, for how exact labels are is part of it; all
        held-out faces decide on that of `auto`.
        """
        of_style = self.styles[self.held_out]
        temperatures = []
        for index, style in enumerate(scheme.LABEL_STYLES):
            chosen = self.held_out if style == "auto" else self.held_out[of_style == index]
            predicted, spreads, truth = self.predict(model, chosen, style)
            hits = metrics.point_errors(predicted, truth) <= 100 * codec.RADIUS
            temperatures.append(fit_temperature(spreads, geometry.inter_ocular(predicted), hits))
        finished = keypoint_net.build(dataclasses.replace(self.config, temperatures=tuple(temperatures)))
        finished.load_state_dict(model.state_dict())
        return finished.eval()

    def preview(self, model: keypoint_net.KeypointNetwork, count: int = 16) -> np.ndarray:
        """A sheet (H,W,3) uint8 RGB of held-out faces: labels in green, predictions in white."""
        chosen = np.random.default_rng(self.seed).permutation(self.held_out)[:count]
        predicted, _, truth = self.predict(model, chosen, self.config.label_style)
        tiles = []
        for index, face, label in zip(chosen, predicted, truth, strict=True):
            (pixels,) = self._warp([index], [self.still.draw(self.boxes[index])])
            tile = cv2.resize(pixels, None, fx=2, fy=2)
            for points, colour in ((label, (0, 255, 0)), (face, (255, 255, 255))):
                for x, y in np.round((points * 2 + 0.5) * 16).astype(int):
                    cv2.circle(tile, (int(x), int(y)), 20, colour, -1, cv2.LINE_AA, shift=4)
            tiles.append(tile)
        rows = [np.concatenate(tiles[i : i + 4], axis=1) for i in range(0, len(tiles) // 4 * 4, 4)]
        return np.concatenate(rows)


def loss_of(
    keypoint_network: keypoint_net.KeypointNetwork,
    raw: keypoint_net.RawOutput,
    keypoints: Tensor,
    labelled: Tensor | None = None,
) -> tuple[Tensor, dict[str, float]]:
    """The loss of a network's raw output against keypoints (n,68,2) in pixels of the crop; its parts by name.

    `nme` is the mean point error over the inter-ocular distance, `target` what the codec compares
    (for heat maps the KL divergence from Gaussians), `spread` the negative log-likelihood of the
    errors under a radial Laplace density, which teaches the spreads and nothing else. How far off it is, a
    network learns from the faces alone that are `labelled` (n,), by default all.
    """
    reader = keypoint_network.codec
    distances = (reader.decode(raw.outputs) - keypoints).square().sum(-1).add(1e-4).sqrt()
    eyes = _inter_ocular(keypoints)
    nme = (distances / eyes[:, None]).mean()
    target = reader.loss(raw.outputs, keypoints)
    # The density is exp(−r/b) / (2πb²) with a mean of 2b.
    density = (2 * distances.detach() / raw.log_spreads.exp() + 2 * raw.log_spreads).mean(dim=-1)
    counts = torch.ones_like(density) if labelled is None else labelled.to(density.dtype)
    spread = (density * counts).sum() / counts.sum().clamp_min(1)
    total = 10 * nme + 2 * target + 0.1 * spread
    return total, {"nme": 100 * nme.item(), "target": target.item(), "spread": spread.item()}


def fit_temperature(spreads: np.ndarray, inter_ocular: np.ndarray, hits: np.ndarray) -> float:
    """The factor for spreads (n,68) with which scores are nearest to hits (n,68) in ten bins; 0.4 to 2.5."""

    def error(temperature: float) -> float:
        return metrics.reliability(codec.scores_from_spreads(spreads, inter_ocular, temperature), hits)[0]

    return float(min(np.geomspace(0.4, 2.5, 85).round(3), key=error))


def _inter_ocular(keypoints: Tensor) -> Tensor:
    """Inter-ocular distance (n,) of keypoints (n,68,2), at least a fifth of the face's longer side.

    In profile the eye corners close up: a few such faces would rule the loss.
    """
    corners = keypoints[:, [scheme.RIGHT_EYE_OUTER_CORNER, scheme.LEFT_EYE_OUTER_CORNER]]
    sides = (keypoints.amax(dim=1) - keypoints.amin(dim=1)).amax(dim=1)
    return torch.maximum((corners[:, 0] - corners[:, 1]).norm(dim=-1), 0.2 * sides)
