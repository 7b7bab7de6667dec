"""Mosaics of painted photos: boxes move with the pixels, and a step's batch is always the same."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fkp import geometry
from fkp.training import face_photos, mosaics
from fkp.training.mosaics import FACE, IGNORE, Mosaics


def of(folder: Path, miner: Any = None) -> Mosaics:
    return Mosaics(face_photos.read_photos(folder), 4, miner=miner)


@pytest.mark.slow
def test_a_batch_depends_on_seed_step_and_rank_alone(folder: Path) -> None:
    made = of(folder)
    np.random.seed(1)
    first = made.batch(7)
    n, _, height, width = first["pictures"].shape
    assert height == width in mosaics.SIZES and first["pictures"].dtype == torch.uint8
    assert n == math.ceil(4 * 320**2 / width**2)  # always about as many pixels
    assert first["boxes"].shape == (*first["kinds"].shape, 4)
    other = of(folder)
    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(lambda step: other.batch(step), [7, 8, 7, 9]))
    mirrored = other.batch(6)
    assert torch.equal(mirrored["pictures"].flip(3), first["pictures"])
    np.testing.assert_allclose(mirrored["boxes"][..., 0] + first["boxes"][..., 2], width - 1, atol=1e-3)
    for same in (batches[0], batches[2]):
        assert all(torch.equal(first[name], same[name]) for name in first)
    for changed in (batches[1], made.batch(7, rank=1)):
        assert not torch.equal(first["pictures"], changed["pictures"])


@pytest.mark.slow
def test_hard_negatives_are_shown_more_often(folder: Path) -> None:
    class Miner:
        """Sees a face in the upper left corner of every picture."""

        def __call__(self, image: np.ndarray, *, min_score: float) -> tuple[np.ndarray, np.ndarray]:
            assert min_score == mosaics.HARD_NEGATIVE_SCORE
            return np.array([[0.0, 0, 20, 20]], np.float32), np.ones(1, np.float32)

    made = of(folder, miner=Miner())
    for source in face_photos.FACELESS:
        mined = {photo.path.name for photo, _ in made.hard_negatives[source]}
        # Never on a face, or what may be one; never what is held out.
        corner = np.array([[0.0, 0, 20, 20]])
        known = {p.path.name: np.concatenate([p.boxes, p.ignore]) for p in made.training[source]}
        free = {name for name, box in known.items() if geometry.iou(corner, box).max(initial=0) < 0.1}
        assert mined == free
        assert all(negative.max() == pytest.approx(20) for _, negative in made.hard_negatives[source])
    assert not of(folder).hard_negatives
    assert (made.batch(0)["kinds"] == FACE).any()


@pytest.mark.slow
def test_boxes_move_with_the_pixels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mosaics, "recolour", lambda rng, image: image)
    monkeypatch.setattr(mosaics, "SHARES", {"ytf": 1.0})
    made = of(folder)
    monkeypatch.setattr(made, "_background", lambda rng, size_wh: np.zeros((*size_wh[::-1], 3), np.uint8))
    looked_at = 0
    for seed in range(40):
        tile, boxes, kinds = made.tile(np.random.default_rng(seed), (110, 90))
        assert tile.shape == (90, 110, 3) and len(boxes) == len(kinds) <= 1
        inside = (boxes >= 1).all() and (boxes <= [108, 88, 108, 88]).all()
        if len(boxes) and kinds[0] == FACE and inside:
            bright = np.argwhere(tile[..., 0] > 128)
            np.testing.assert_allclose([*bright.min(0)[::-1], *bright.max(0)[::-1]], boxes[0], atol=1.5)
            looked_at += 1
    assert looked_at >= 10


@pytest.mark.slow
def test_a_face_mostly_cut_away_is_ignored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mosaics, "SHARES", {"ytf": 1.0})
    made = of(folder)
    box = made.training["ytf"][0].boxes[0]
    monkeypatch.setattr(made, "_draw", lambda rng, source: made.training["ytf"][0])
    # The tile begins at three quarters of the face's width: a quarter of it is seen.
    shift = geometry.CropTransform(np.array([[1, 0, -box[0] - 45], [0, 1, 0.0]]), (100, 150))
    monkeypatch.setattr(mosaics, "random_transform", lambda *_, **__: shift)
    _, boxes, kinds = made.tile(np.random.default_rng(0), (100, 150))
    assert kinds.tolist() == [IGNORE]
    np.testing.assert_allclose(boxes[0], [0, box[1], 15, box[3]], atol=0.02)


def test_faces_are_shown_turned_any_way(folder: Path) -> None:
    rng, image = np.random.default_rng(0), np.zeros((60, 80, 3), np.uint8)
    outlines = face_photos.ellipses(np.array([[20.0, 20, 50, 50]]))
    turns = []
    for _ in range(2000):
        a, b = mosaics.random_transform(rng, image, outlines, (64, 64)).image_to_crop[0, :2]
        turns.append(abs(math.degrees(math.atan2(b, abs(a)))))
    shares = np.histogram(turns, [0, 30, 61, 91])[0] / 2000
    assert 0.5 * mosaics.TURNED / 3 < shares[2] < 1.5 * mosaics.TURNED / 3


def test_a_covered_face_is_covered_nowhere_else(folder: Path) -> None:
    made = of(folder)
    tile = np.full((100, 120, 3), 7, np.uint8)
    times = 0
    for seed in range(12):
        covered = tile.copy()
        made._cover_part(np.random.default_rng(seed), covered, np.array([30.0, 20, 80, 70]))
        changed = np.argwhere((covered != tile).any(-1))
        assert (changed >= [20, 30]).all() and (changed < [70, 80]).all()
        times += len(changed) > 0
    assert times >= 3
    covered = tile.copy()
    made._cover_part(np.random.default_rng(0), covered, np.array([-5.0, 20, 10, 70]))
    np.testing.assert_array_equal(covered, tile)  # too little of it is seen
