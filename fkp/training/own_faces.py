"""Training the keypoint network on labelled faces of one's own: a CSV and its pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch

from fkp import data, metrics
from fkp.config import KeypointConfig
from fkp.networks import keypoint_net
from fkp.training.keypoint_task import KeypointTask, LabelledFaces, read_faces


def read(csv: Path, folder: Path, config: KeypointConfig, workers: int = 0) -> LabelledFaces:
    """The faces of a CSV and a folder of pictures. Raises `data.DataError` for what is wrong with it."""
    source = data.Source(str(csv.resolve()), str(folder.resolve()), None, data.photo)
    return read_faces(Path(), config, [source], workers)


class OwnFacesTask(KeypointTask):
    """`KeypointTask` on the faces of one CSV, which are learnt as the default: in the labelling style None.

    Every seventh photo is held out, and one at least. Nothing here says whether a point can be seen: what the
    network knows of that comes from the weights it starts from, and so do, where fewer than `ENOUGH` faces
    are held out, the temperatures.
    """

    ENOUGH = 100

    def __init__(self, faces: LabelledFaces, config: KeypointConfig, **options: Any) -> None:
        super().__init__(faces, config, **options)
        if not len(self.held_out):
            self.held_out, self.training = self.training[:1], self.training[1:]

    @torch.inference_mode()
    def validate(self, model: keypoint_net.KeypointNetwork) -> dict[str, float | None]:
        """`nme_box`, percent, of the held-out faces: the one to follow."""
        found, truth = self.predict(model, self.held_out, None)
        return {"nme_box": metrics.mean(metrics.nme_box(found.keypoints, truth))}

    def finish(self, model: keypoint_net.KeypointNetwork) -> keypoint_net.KeypointNetwork:
        """The trained network; its temperature fitted on the held-out faces where these are enough."""
        config = self.config
        if len(self.held_out) >= self.ENOUGH:
            before, *others = config.temperatures
            temperature = round(before * self.fitted_temperature(model, self.held_out, None), 3)
            config = dataclasses.replace(config, temperatures=(temperature, *others))
        finished = keypoint_net.build(config)
        finished.load_state_dict(model.state_dict())
        return finished.eval()
