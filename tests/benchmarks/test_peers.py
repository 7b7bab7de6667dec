"""benchmarks/peers.py: peers by name, boxes as each likes them, and the table."""

import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers
from benchmarks.faces import Labelled
from fkp import geometry
from tests import synthetic

POSES = np.array(["frontal", "left", "righthalf"])


def labelled() -> Labelled:
    points = np.stack([synthetic.face(60 + 10 * i, (100, 90)) for i in range(3)]).astype(np.float32)
    return Labelled(["a.jpg"] * 3, [np.zeros((200, 200, 3), np.uint8)] * 3, points)


def test_the_best_box_for_a_peer_is_found() -> None:
    """A peer that is right where its square box is 1.3 times the face and a tenth higher."""
    faces = labelled()
    first = faces.keypoints[0]
    mean = (first - geometry.tight_boxes(first)[:2]) / np.ptp(first, axis=0)

    def place(image: np.ndarray, box: np.ndarray) -> np.ndarray:
        """Points of the shape that all faces have, as if the box were enlarged and raised so."""
        size, middle = (box[2:] - box[:2]) / 1.3, (box[:2] + box[2:]) / 2
        wide, high = np.ptp(first, axis=0)
        size = size.max() * np.array([wide, high]) / max(wide, high)
        return mean * size + middle + [0, 0.1 * size[1]] - size / 2

    best = peers.fitted(peers.Peer("one", lambda _: place), place, faces)
    placed, times = peers.run(best, faces, "one")
    assert placed == pytest.approx(faces.keypoints, abs=0.01)
    assert len(times) == len(placed) and min(times) >= 0


def test_figures_of_a_peer_that_is_always_off_by_a_pixel() -> None:
    faces = labelled()
    truth = iter(faces.keypoints)
    turn = peers.run(lambda image, box: next(truth) + np.array([1, 0]), faces, "off")
    row = peers.row("off", [turn, turn], turn[0], faces, faces, POSES)
    eyes = geometry.inter_ocular(faces.keypoints)
    assert row["nme"] == pytest.approx(float((100 / eyes).mean()), abs=2e-3)
    assert row["nme_box"].keys() == {"frontal", "half-profile", "profile"} and row["ms"] >= 0


def test_peers_that_are_not_there_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "dlib", None)
    for peer in peers.PEERS:
        with pytest.raises((ImportError, OSError)):
            peer.load(tmp_path)
