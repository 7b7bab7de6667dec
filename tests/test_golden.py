"""Weights saved by every version of fkp load in this one, and find the same.

`tests/golden/<version>/` holds the weights of small networks as that version saved them, and expected.json:
what they found in a picture drawn from a seed. `python -m tests.test_golden` writes this version's
anew. Once a version is released, its folder stays as it is; when the layout changes, format and version rise.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from fkp import FaceKeypoints, __version__, detector, hub
from fkp.hub import weights
from fkp.networks import keypoint_net

GOLDEN = Path(__file__).parent / "golden"

VERSIONS = sorted(path.name for path in GOLDEN.iterdir() if path.is_dir())

BOXES = np.array([[20, 30, 90, 110], [70.5, 12.25, 130, 80], [-10, 60, 40, 118]], np.float32)

KEYPOINTS = keypoint_net.KeypointConfig(
    crop_size=64, margin=1.4, widths=(4, 4, 4, 8), depths=(1, 1, 1), top_down_width=4,
    temperatures=(1.5, 1.25, 1.0), label_style="ytf", leans=(0.01, -0.02, 0.03, 0.04, 0.05, -0.06),
)  # fmt: skip
FACES = detector.DetectorConfig(
    widths=(4, 4, 4, 4, 4), depths=(1, 2, 1), neck_width=4, least_size=96, input_size=160,
    min_score=0.5, max_iou=0.3, bias=(0.01, -0.02, 0.03, -0.04),
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
        "boxes": boxes, "scores": scores,
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


def test_they_tell_apart_one_weight() -> None:
    """Or the comparison would be worth nothing."""
    model = FaceKeypoints.from_pretrained(GOLDEN / VERSIONS[-1] / "weights", backend="torch")
    expected = json.loads((GOLDEN / VERSIONS[-1] / "expected.json").read_text())
    keypoints = np.array(expected["keypoints"])
    assert np.ptp(keypoints[0], axis=0).min() > 5 and np.ptp(keypoints, axis=0).max() > 20
    with torch.no_grad():
        next(model.keypoint_network.parameters())[0] *= 1.5
    assert np.abs(np.array(found(model)["keypoints"]) - keypoints).max() > 0.1


def test_this_version_has_its_weights_among_them() -> None:
    """And they are saved today as they were then: who changes the layout writes new ones."""
    assert __version__ in VERSIONS, "run 'python -m tests.test_golden'"
    stored = hub.load(GOLDEN / __version__ / "weights")
    assert (stored.keypoint_network.config, stored.face_detector.config) == (KEYPOINTS, FACES)


def test_saved_again_they_are_the_same(tmp_path: Path) -> None:
    folder = GOLDEN / __version__ / "weights"
    hub.save(tmp_path, *hub.load(folder)[:3], graphs=False)
    assert json.loads((tmp_path / hub.CONFIG).read_text()) == json.loads((folder / hub.CONFIG).read_text())
    assert (tmp_path / hub.METRICS).read_bytes() == (folder / hub.METRICS).read_bytes()
    ours, theirs = (weights._read_tensors(each / hub.WEIGHTS) for each in (tmp_path, folder))
    assert ours[0] == theirs[0], "metadata"
    assert {k: (v.dtype, v.shape) for k, v in ours[1].items()} == {
        k: (v.dtype, v.shape) for k, v in theirs[1].items()
    }
    assert all(torch.equal(tensor, theirs[1][name]) for name, tensor in ours[1].items())


def write(folder: Path) -> None:
    """Fresh networks, whose heat maps have peaks far from the middle of the crop."""
    torch.manual_seed(68)
    keypoints, faces = keypoint_net.build(KEYPOINTS), detector.Detector(FACES)
    with torch.no_grad():
        for module, gain in ((keypoints, 1.0), (faces.network, 2.0)):
            for parameter in module.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=gain * parameter[0].numel() ** -0.5)
        keypoints.heatmaps.weight.normal_(std=3.0)
    training = {"keypoints": {"command": "python -m tests.test_golden", "seed": 68}}
    hub.save(folder / "weights", keypoints, faces, {"training": training}, graphs=False)
    (folder / "weights" / hub.CARD).unlink()  # its text may change
    model = FaceKeypoints.from_pretrained(folder / "weights", backend="torch")
    (folder / "expected.json").write_text(json.dumps(found(model)) + "\n")


if __name__ == "__main__":
    write(GOLDEN / __version__)
    print(f"{GOLDEN / __version__}: {asdict(KEYPOINTS)}, {asdict(FACES)}")
