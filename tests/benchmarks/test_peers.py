"""benchmarks/peers.py: peers by name, boxes as each likes them, and the table."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers
from fkp import geometry
from tests import synthetic


def labelled(n: int = 3) -> peers.Labelled:
    points = np.stack([synthetic.face(60 + 10 * i, (100, 90)) for i in range(n)]).astype(np.float32)
    poses = ["frontal", "left", "righthalf"][:n]
    return peers.Labelled([np.zeros((200, 200, 3), np.uint8)] * n, points, poses)


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

    boxes = peers.fitted(peers.Peer("one", lambda _: place), place, faces)
    placed, _ = peers.run(lambda image, box: place(image, boxes(box)), faces, "one")
    assert placed == pytest.approx(faces.keypoints, abs=0.01)


def test_figures_of_a_peer_that_is_always_off_by_a_pixel() -> None:
    faces = labelled()
    truth = iter([*faces.keypoints, *faces.keypoints])
    row = peers.row("off", lambda image, box: next(truth) + np.array([1, 0]), faces, faces)
    eyes = geometry.inter_ocular(faces.keypoints)
    assert row["nme"] == pytest.approx(float((100 / eyes).mean()), abs=2e-3)
    assert row["nme_box"].keys() == {"frontal", "half-profile", "profile"} and row["ms"] >= 0


def test_what_is_not_there_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peers.importlib.util, "find_spec", lambda name: None)
    for peer in peers.PEERS[:2]:
        with pytest.raises(peers.Missing, match="is not installed|no installed"):
            peer.load(None)
    for peer in peers.PEERS[2:]:
        with pytest.raises(peers.Missing, match="snapshot"):
            peer.load(None)
        with pytest.raises(peers.Missing, match="does not exist"):
            peer.load(tmp_path)


def test_the_table_has_a_row_for_each() -> None:
    row = {"title": "dlib", "nme_box": {"frontal": 4.0}, "nme": 3.5, "ms": 1.25}
    lines = peers.summary({"rows": [row], "command": "python benchmarks/peers.py"}).splitlines()
    assert lines[2] == "| dlib | 4.00 | – | – | 3.50 | 1.25 |" and "benchmarks/peers.py" in lines[-1]
