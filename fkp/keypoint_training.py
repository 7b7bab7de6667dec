"""What `train.py keypoints` trains on: faces as crops in memory, augmentation, loss, validation."""

from __future__ import annotations

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn
from tqdm import tqdm

from fkp import codec, data, geometry, metrics, network, scheme

ROOM = 1.6
"""Crops are kept this much wider than the network's, so that there is room to turn and shift them."""
CHUNK = 4
"""Faces that share one draw of the photometric transforms."""


@dataclass(frozen=True)
class Augmentation:
    """How far faces are turned, enlarged and shifted in training."""

    rotation: float = 35.0
    scale: tuple[float, float] = (0.85, 1.2)
    shift: float = 0.08
    mirror: float = 0.5
    style_dropout: float = 0.5
    """Share of faces whose labelling style is hidden from the network, so that `auto` is learnt too."""


class KeypointTask:
    """Everything about training a keypoint network that is not the loop: see train.py.

    Holds all faces as crops (n,3,P,P) uint8 in memory, or on the device where `device` is a GPU.
    """

    def __init__(
        self, folder: Path, config: network.KeypointConfig, *,
        batch_size: int = 64, seed: int = 0, workers: int = 0,
        device: torch.device | None = None, augmentation: Augmentation | None = None, all_faces: bool = False,
    ) -> None:  # fmt: skip
        self.config, self.batch_size, self.seed = config, batch_size, seed
        self.device = device or torch.device("cpu")
        self.augmentation = augmentation or Augmentation()
        self.network = network.build(config)
        self.crop = data.FaceCrop(
            config.crop_size, config.margin, self.augmentation.rotation,
            self.augmentation.scale, self.augmentation.shift, self.augmentation.mirror,
        )  # fmt: skip
        self.still = data.FaceCrop(config.crop_size, config.margin)
        self.pack = data.FaceCrop(round(config.crop_size * ROOM), config.margin * ROOM)
        self.photometric = data.photometric()
        crops, keypoints, styles, held_out = [], [], [], []
        for source in data.TRAINING_SOURCES:
            faces = data.FacialKeypointsDataset(folder / source.csv, folder / source.folder, self.pack)
            with ThreadPoolExecutor(max(1, workers)) as pool:
                samples = pool.map(faces.__getitem__, range(len(faces)))
                for sample in tqdm(samples, f"reading {source.folder}", len(faces), leave=False, unit="face"):
                    crops.append(torch.from_numpy(sample["image"]).permute(2, 0, 1))
                    keypoints.append(sample["keypoints"])
            styles += [scheme.LABEL_STYLES.index(source.style)] * len(faces)
            held_out += [data.is_held_out(source.key(name)) for name in faces.names]
        self.crops = torch.stack(crops).to(self.device)
        self.keypoints = np.stack(keypoints)
        self.boxes = geometry.tight_boxes(self.keypoints)
        self.styles = np.array(styles)
        self.held_out = np.flatnonzero(held_out)
        self.training = np.arange(len(held_out)) if all_faces else np.flatnonzero(~np.array(held_out))

    @property
    def steps_per_epoch(self) -> int:
        return len(self.training) // self.batch_size

    def batch(self, step: int, rank: int = 0, world: int = 1) -> dict[str, Tensor]:
        """Crops (b,3,S,S) uint8, keypoints (b,68,2) in pixels of the crop and styles (b,) of one step.

        Every draw comes from (seed, step, rank), so that a resumed run sees what it would have seen.
        """
        epoch, position = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng((self.seed, epoch)).permutation(self.training)
        chosen = order[position * self.batch_size : (position + 1) * self.batch_size][rank::world]
        seed = np.random.SeedSequence((self.seed, step, rank)).generate_state(1, np.uint64)[0]
        generator = Generator().manual_seed(int(seed >> 1))
        transforms = [self.crop.draw(self.boxes[i], generator) for i in chosen]
        keypoints = [t.keypoints_to_crop(self.keypoints[i]) for t, i in zip(transforms, chosen, strict=True)]
        crops = self._warp(chosen, transforms)
        # The v2 transforms know the global generator only.
        with torch.random.fork_rng(devices=[self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            crops = torch.cat([self.photometric(chunk) for chunk in crops.split(CHUNK)])
        hidden = torch.rand(len(chosen), generator=generator) < self.augmentation.style_dropout
        styles = torch.from_numpy(self.styles[chosen]).masked_fill(hidden, scheme.LABEL_STYLES.index("auto"))
        return {"crops": crops, "keypoints": torch.from_numpy(np.stack(keypoints)), "styles": styles}

    def _warp(self, chosen: np.ndarray, transforms: list[geometry.CropTransform]) -> Tensor:
        """The chosen crops (b,3,S,S), warped: by OpenCV on the CPU, as one batch on a GPU."""
        if self.device.type == "cpu":
            packed = self.crops[torch.from_numpy(chosen)].permute(0, 2, 3, 1).contiguous().numpy()
            warped = np.stack([t.crop(image) for t, image in zip(transforms, packed, strict=True)])
            return torch.from_numpy(warped).permute(0, 3, 1, 2)
        return warp(self.crops[torch.from_numpy(chosen).to(self.device)], transforms)

    def loss(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, float]]:
        """The loss of a batch, and its parts by name.

        `nme` is the mean point error over the inter-ocular distance, `target` what the codec compares
        (for heat maps the KL divergence from Gaussians), `spread` the negative log-likelihood of the
        errors under a radial Laplace density, which teaches the spreads and nothing else.
        """
        raw = model(batch["crops"], batch["styles"])
        decode = self.network.codec
        keypoints = batch["keypoints"]
        distances = (decode.decode(raw.targets) - keypoints).square().sum(-1).add(1e-4).sqrt()
        eyes = _inter_ocular(keypoints)
        nme = (distances / eyes[:, None]).mean()
        target = decode.loss(raw.targets, decode.encode(keypoints))
        # The density is exp(−r/b) / (2πb²) with a mean of 2b.
        spread = (2 * distances.detach() / raw.log_spreads.exp() + 2 * raw.log_spreads).mean()
        total = 10 * nme + target + 0.1 * spread
        return total, {"nme": 100 * nme.item(), "target": target.item(), "spread": spread.item()}

    @torch.inference_mode()
    def validate(self, model: network.KeypointNetwork) -> dict[str, float]:
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
        self, model: network.KeypointNetwork, chosen: np.ndarray, label_style: str
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Keypoints (n,68,2), spreads (n,68) and labels (n,68,2) of faces by index, pixels of the crop."""
        points, spreads, truth = [], [], []
        device = next(model.parameters()).device
        for part in np.array_split(chosen, max(1, len(chosen) // 64)):
            transforms = [self.still.draw(self.boxes[i]) for i in part]
            prediction = model.predict(self._warp(part, transforms).to(device), label_style)
            points.append(prediction.keypoints.float().cpu().numpy())
            spreads.append(prediction.spreads.float().cpu().numpy())
            truth += [t.to_crop(self.keypoints[i]) for t, i in zip(transforms, part, strict=True)]
        return np.concatenate(points), np.concatenate(spreads), np.stack(truth)

    def finish(self, model: network.KeypointNetwork) -> network.KeypointNetwork:
        """The trained network with its temperature fitted: scores match hits best on the held-out faces."""
        predicted, spreads, truth = self.predict(model, self.held_out, self.config.label_style)
        eyes = geometry.inter_ocular(predicted)
        hits = metrics.point_errors(predicted, truth) <= 100 * codec.RADIUS

        def error(temperature: float) -> float:
            scores = codec.scores_from_spreads(torch.from_numpy(spreads), torch.from_numpy(eyes), temperature)
            return metrics.reliability(scores.numpy(), hits)[0]

        temperature = float(min(np.geomspace(0.4, 2.5, 85).round(3), key=error))
        finished = network.build(dataclasses.replace(self.config, temperature=temperature))
        finished.load_state_dict(model.state_dict())
        return finished.eval()

    def preview(self, model: network.KeypointNetwork, count: int = 16) -> np.ndarray:
        """A sheet (H,W,3) uint8 RGB of held-out faces: labels in green, predictions in white."""
        chosen = np.random.default_rng(self.seed).permutation(self.held_out)[:count]
        predicted, _, truth = self.predict(model, chosen, self.config.label_style)
        tiles = []
        for index, face, label in zip(chosen, predicted, truth, strict=True):
            pixels = self._warp(np.array([index]), [self.still.draw(self.boxes[index])])[0]
            tile = cv2.resize(pixels.permute(1, 2, 0).cpu().numpy(), None, fx=2, fy=2)
            for points, colour in ((label, (0, 255, 0)), (face, (255, 255, 255))):
                for x, y in np.round((points * 2 + 0.5) * 16).astype(int):
                    cv2.circle(tile, (int(x), int(y)), 20, colour, -1, cv2.LINE_AA, shift=4)
            tiles.append(tile)
        rows = [np.concatenate(tiles[i : i + 4], axis=1) for i in range(0, len(tiles) // 4 * 4, 4)]
        return np.concatenate(rows)


def warp(images: Tensor, transforms: list[geometry.CropTransform]) -> Tensor:
    """`CropTransform.crop` for a whole batch on its device: images (b,3,H,W) → crops (b,3,h,w) uint8.

    It does not average before it shrinks: for transforms that enlarge or shrink by less than two.
    """
    device, (height, width) = images.device, images.shape[-2:]
    w, h = transforms[0].size_wh
    matrices = torch.from_numpy(np.stack([t.crop_to_image for t in transforms])).float().to(device)
    x, y = torch.meshgrid(torch.arange(w, device=device), torch.arange(h, device=device), indexing="xy")
    positions = torch.einsum("bij,jyx->byxi", matrices, torch.stack([x, y, torch.ones_like(x)]).float())
    grid = (2 * positions + 1) / torch.tensor([width, height], device=device) - 1
    return F.grid_sample(images.float(), grid, align_corners=False).round().to(torch.uint8)


def _inter_ocular(keypoints: Tensor) -> Tensor:
    """Inter-ocular distance (n,) of keypoints (n,68,2), at least a fifth of the face's longer side.

    In profile the eye corners close up: a few such faces would rule the loss.
    """
    corners = keypoints[:, [scheme.RIGHT_EYE_OUTER_CORNER, scheme.LEFT_EYE_OUTER_CORNER]]
    sides = (keypoints.amax(dim=1) - keypoints.amin(dim=1)).amax(dim=1)
    return torch.maximum((corners[:, 0] - corners[:, 1]).norm(dim=-1), 0.2 * sides)
