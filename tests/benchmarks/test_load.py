"""benchmarks/load.py: what counts as another answer, and how memory is told."""

import numpy as np
import pytest

from benchmarks import load


def record(x: float = 10, score: float = 0.9, image: str = "a.jpg", faces: int = 1) -> dict:
    face = {"box": [x, 0, 40, 40], "score": score, "keypoints": [[x, 5]] * 68, "keypoint_scores": [0.5] * 68}
    return {"image": image, "width": 50, "height": 50, "faces": [face] * faces}


def test_answers_are_compared():
    assert load.difference(record(), record()) == (0, "")
    assert load.difference(record(faces=0), record(faces=0)) == (0, "")
    assert load.difference(record(10.05), record()) == (pytest.approx(0.05), "")
    assert load.difference(record(11), record()) == (1, "box is off by 1")
    assert load.difference(record(score=0.8), record())[1] == "score is off by 0.1"
    assert load.difference(record(image="b.jpg"), record())[1] == "image is 'b.jpg' instead of 'a.jpg'"
    assert load.difference(record(faces=2), record())[1] == "2 faces instead of 1"


def test_the_slope_of_memory_begins_after_the_warm_up():
    requests = np.arange(0, 4000, 10)
    sizes = np.where(requests < load.WARM_UP, 1e6 * requests, 5e8 + 2e3 * requests)
    seen = [(int(n), int(size)) for n, size in zip(requests, sizes, strict=True)]
    rows = dict(load.memory(seen, 400_000_000))
    assert list(rows.values()) == ["400 MB, 1990 MB", "+2.0 ± 0.0 MB per 1000 requests"]
    assert len(load.memory(seen[:100], 0)) == 1
