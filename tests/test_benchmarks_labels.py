"""What benchmarks/labels.py fits, on labels that are made up."""

import numpy as np
import pytest

from benchmarks import labels
from tests import synthetic


def test_the_shift_that_labels_were_given_is_found() -> None:
    rng = np.random.default_rng(0)
    widths = rng.uniform(40, 300, 200)
    seen = np.stack([synthetic.face(width, (200.0, 200.0)) for width in widths])
    boxes = np.stack([seen.min(axis=1), seen.max(axis=1)], axis=1)
    sides = (boxes[:, 1] - boxes[:, 0]).max(axis=1)
    given = seen.copy()
    given[..., 0] += (0.5 + 0.012 * sides)[:, None]
    given[..., 1] += 0.25
    found = labels.lying(given, seen + rng.normal(0, 0.02, (200, 1, 2)) * sides[:, None, None] / 10)
    assert found.right == pytest.approx(0.5, abs=4 * found.errors[0])
    assert found.down == pytest.approx(0.25, abs=4 * found.errors[1])
    assert found.lean == pytest.approx(0.012, abs=4 * found.errors[2])
    assert max(found.errors[:2]) < 0.05 and found.errors[2] < 0.001
    exact = labels.lying(given, seen)
    assert exact[:3] == pytest.approx((0.5, 0.25, 0.012), abs=1e-5)
