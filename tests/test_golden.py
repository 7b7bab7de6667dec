"""Weights saved by every version of fkp load in this one, and find the same.

`tests/golden/<version>/` holds the weights of small networks as that version saved them, and expected.json:
what they found in a picture drawn from a seed. `python -m tests.test_golden` writes this version's
anew. Once a version is released, its folder stays as it is; when the layout changes, format and version rise.
"""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fkp import FaceKeypoints, __version__, hub
from fkp.config import DetectorConfig, KeypointConfig
from fkp.hub import weights
from fkp.networks import face_net, keypoint_net

GOLDEN = Path(__file__).parent / "golden"

VERSIONS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())

BOXES = np.array([[20, 30, 90, 110], [70.5, 12.25, 130, 80], [-10, 60, 40, 118]], np.float32)

KEYPOINTS = KeypointConfig(
    crop_size=64, margin=1.4, widths=(4, 4, 4, 8), depths=(1, 1, 1), top_down_width=4,
    temperatures=(1.5, 1.25, 1.0, 0.75), visibility_calibration=(1.5, -0.5),
    annotation_offsets=(0.01, -0.02, 0.03, 0.04, 0.05, -0.06, 0.07, 0.0),
)  # fmt: skip
FACES = DetectorConfig(
    widths=(4, 4, 4, 4), depths=(1, 2, 1), neck_width=4, least_size=96, input_size=160, min_score=0.5,
    coarse_size=192, enlargement=1.5, enlarged_pixels=1_000_000, max_iou=0.3, bias=(0.01, -0.02, 0.03, -0.04),
    calibration=(1.25, 0.5),
)  # fmt: skip
"""As little as possible is as usual, so that each value is seen to travel."""


def picture() -> np.ndarray:
    """Blobs of colour, (120,150,3) uint8 RGB, the same on every machine."""
    rng = np.random.default_rng(68)
    coarse = rng.integers(0, 256, (12, 15, 3)).astype(np.uint8)
    return coarse.repeat(10, axis=0).repeat(10, axis=1)


def found(model: FaceKeypoints) -> dict[str, list]:
    """What a model makes of the picture, at known boxes and at the best three of its own."""
    faces = model.keypoints_at(picture(), BOXES)
    boxes, scores = model.detect(picture(), min_score=0.0)
    best = np.argsort(-scores)[:3]
    boxes, scores = boxes[best], scores[best]
    arrays = {
        "keypoints": faces.keypoints, "keypoint_scores": faces.keypoint_scores, "sigmas": faces.sigmas,
        "visibility": faces.visibility, "boxes": boxes, "scores": scores,
    }  # fmt: skip
    return {name: array.astype(float).round(4).tolist() for name, array in arrays.items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_weights_of_each_version_find_what_they_found_then(version: str) -> None:
    model = FaceKeypoints.from_pretrained(GOLDEN / version / "weights", backend="torch")
    expected = json.loads((GOLDEN / version / "expected.json").read_text())
    here = found(model)
    assert here.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(here[name], values, rtol=1e-3, atol=0.02, err_msg=name)


def test_golden_points_tell_apart_one_weight() -> None:
    """Or the comparison would be worth nothing."""
    model = FaceKeypoints.from_pretrained(GOLDEN / VERSIONS[-1] / "weights", backend="torch")
    expected = json.loads((GOLDEN / VERSIONS[-1] / "expected.json").read_text())
    keypoints = np.array(expected["keypoints"])
    assert np.ptp(keypoints[0], axis=0).min() > 5 and np.ptp(keypoints, axis=0).max() > 20
    tensors = dict(model.weights.keypoint_tensors)
    tensors["stem.0.weight"] = tensors["stem.0.weight"] * np.array([1.5, 1, 1, 1]).reshape(4, 1, 1, 1)
    other = FaceKeypoints(replace(model.weights, keypoint_tensors=tensors, folder=None))
    assert np.abs(np.array(found(other)["keypoints"]) - keypoints).max() > 0.1


def test_this_version_has_its_weights_among_them() -> None:
    """And they are saved today as they were then: who changes the layout writes new ones."""
    assert __version__ in VERSIONS, "run 'python -m tests.test_golden'"
    stored = hub.load(GOLDEN / __version__ / "weights")
    assert (stored.keypoints, stored.detector) == (KEYPOINTS, FACES)


def test_saved_again_they_are_the_same(tmp_path: Path) -> None:
    folder = GOLDEN / __version__ / "weights"
    hub.save(tmp_path, hub.load(folder), graphs=False)
    assert json.loads((tmp_path / hub.CONFIG).read_text()) == json.loads((folder / hub.CONFIG).read_text())
    assert (tmp_path / hub.METRICS).read_bytes() == (folder / hub.METRICS).read_bytes()
    ours, theirs = (weights._read_tensors(each / hub.WEIGHTS) for each in (tmp_path, folder))
    assert ours[0] == theirs[0], "metadata"
    assert {k: (v.dtype, v.shape) for k, v in ours[1].items()} == {
        k: (v.dtype, v.shape) for k, v in theirs[1].items()
    }
    assert all(np.array_equal(tensor, theirs[1][name]) for name, tensor in ours[1].items())


def write(folder: Path) -> None:
    """Fresh networks, whose heat maps have peaks far from the middle of the crop."""
    torch.manual_seed(68)
    keypoints, faces = keypoint_net.build(KEYPOINTS), face_net.DetectorNetwork(FACES)
    with torch.no_grad():
        for module, gain in ((keypoints, 1.0), (faces, 2.0)):
            for parameter in module.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=gain * parameter[0].numel() ** -0.5)
        keypoints.heatmaps.weight.normal_(std=3.0)
    training = {"keypoints": {"command": "python -m tests.test_golden", "seed": 68}}
    made = hub.Weights.of(keypoints, FACES, faces, metrics={"training": training})
    hub.save(folder / "weights", made, graphs=False)
    (folder / "weights" / hub.CARD).unlink()  # its text may change
    model = FaceKeypoints.from_pretrained(folder / "weights", backend="torch")
    (folder / "expected.json").write_text(json.dumps(found(model)) + "\n")


if __name__ == "__main__":
    write(GOLDEN / __version__)
    print(f"{GOLDEN / __version__}: {asdict(KEYPOINTS)}, {asdict(FACES)}")
