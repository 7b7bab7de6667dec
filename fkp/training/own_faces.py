"""Training the keypoint network on labelled faces of one's own: a CSV and its pictures."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch

from fkp import data, metrics
from fkp.config import KeypointConfig
from fkp.networks import keypoint_net
from fkp.training.keypoint_task import KeypointTask, LabelledFaces, read_faces


def read(csv: Path, folder: Path, config: KeypointConfig, workers: int = 0) -> LabelledFaces:
    """The faces of a CSV and a folder of pictures, those of every seventh picture held out, and of one at
    least. Raises `data.DataError` for what is wrong with it.

    Pictures are told apart by their whole names: a phone's of one day begin alike.
    """
    source = data.Source(str(csv.resolve()), str(folder.resolve()), None, key=str)
    faces = read_faces(Path(), config, [source], workers)
    if not faces.held_out.any() or faces.held_out.all():
        held_out = faces.pictures == faces.pictures[0]
        if held_out.all():  # one picture, perhaps of many faces
            held_out = np.arange(len(held_out)) == 0
        faces = dataclasses.replace(faces, held_out=held_out)
    return faces


class OwnFacesTask(KeypointTask):
    """`KeypointTask` on the faces of one CSV, which are learnt as the default: in the labelling style None.

    Nothing here says whether a point can be seen: what the network knows of that comes from the weights it
    starts from, and so do, where fewer than `ENOUGH` faces are held out, the temperatures.
    """

    ENOUGH = 100

    @torch.inference_mode()
    def validate(self, model: keypoint_net.KeypointNetwork) -> dict[str, float | None]:
        """`nme_box`, percent, of the held-out faces: the one to follow."""
        found, truth = self.predict(model, self.held_out, None)
        return {"nme_box": metrics.mean(metrics.nme_box(found.keypoints, truth))}

    def finish(self, model: keypoint_net.KeypointNetwork) -> keypoint_net.KeypointNetwork:
        """What `finished` says, its temperature fitted on the held-out faces where these are enough."""
        config = self.config
        if len(self.held_out) >= self.ENOUGH:
            before, *others = config.temperatures
            temperature = round(before * self.fitted_temperature(model, self.held_out, None), 3)
            config = dataclasses.replace(config, temperatures=(temperature, *others))
        return self.finished(model, config)
