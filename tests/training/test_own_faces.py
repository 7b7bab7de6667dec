"""Training on labelled faces of one's own: which are held out, and what goes with the weights."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fkp import data
from fkp.config import KEYPOINTNET
from fkp.networks import export, keypoint_net
from fkp.training import own_faces
from fkp.training.keypoint_task import LabelledFaces
from tests import synthetic

CONFIG = dataclasses.replace(KEYPOINTNET, widths=(4, 8, 8, 8), depths=(1, 1, 1), top_down_width=8)


def faces_of(folder: Path, names: list[str]) -> LabelledFaces:
    """A face for each name, names occurring several times."""
    keypoints = synthetic.face()
    for name in names:
        synthetic.cv2.imwrite(str(folder / name), synthetic.picture(keypoints))
    pd.DataFrame([keypoints.ravel()] * len(names), index=names).to_csv(folder / "labels.csv")
    return own_faces.read(folder / "labels.csv", folder, CONFIG)


def test_photos_that_a_phone_took_on_one_day_are_many(tmp_path: Path) -> None:
    day = next(day for day in range(20240601, 20240701) if data.is_held_out(f"IMG_{day}"))
    faces = faces_of(tmp_path, [f"IMG_{day}_{100000 + i}.jpg" for i in range(40)])
    assert 2 <= faces.held_out.sum() <= 12


def test_the_faces_of_a_picture_stay_together(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(30)]
    held_out = faces_of(tmp_path, [*names, *names]).held_out
    np.testing.assert_array_equal(held_out[:30], held_out[30:])
    kept = [name for name in names if not data.is_held_out(name)][:3]
    few = faces_of(tmp_path, [kept[0], kept[1], kept[0], kept[2]])
    assert few.held_out.tolist() == [True, False, True, False]
    task = own_faces.OwnFacesTask(few, CONFIG, batch_size=2)
    assert task.held_out.tolist() == [0, 2] and task.training.tolist() == [1, 3]
    for name in (kept[0], next(name for name in names if data.is_held_out(name))):
        assert faces_of(tmp_path, [name] * 3).held_out.tolist() == [True, False, False], "all are of one"


def test_ranges_of_activations_are_those_of_the_trained_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not those that came with the weights it started from."""
    started = dataclasses.replace(CONFIG, activation_ranges=(("old", 0.0, 1.0),))
    faces = faces_of(tmp_path, ["a.png", "b.png", "c.png", "d.png"])
    task = own_faces.OwnFacesTask(faces, started, batch_size=1)
    model, shown = keypoint_net.build(started), []

    def seen(
        network: keypoint_net.KeypointNetwork, crops: np.ndarray
    ) -> tuple[tuple[str, float, float], ...]:
        assert network.config.activation_ranges == ()
        shown.append(crops.shape)
        return (("new", 0.0, 2.0),)

    monkeypatch.setattr(export, "activation_ranges", seen)
    for possible, ranges in ((False, ()), (True, (("new", 0.0, 2.0),))):
        monkeypatch.setattr(export, "is_possible", lambda possible=possible: possible)
        assert task.finish(model).config == dataclasses.replace(CONFIG, activation_ranges=ranges)
    assert shown == [(201, 3, 112, 112)]
