"""What benchmarks/labels.py fits, on labels that are made up."""

import numpy as np
import pytest

from benchmarks import labels
from tests import synthetic


def test_the_offset_that_labels_were_given_is_found() -> None:
    rng = np.random.default_rng(0)
    seen = np.stack([synthetic.face(width, (200.0, 200.0)) for width in rng.uniform(40, 300, 200)])
    long = labels.sides(seen)[:, None, None]
    given = seen + long * [0.012, 0.004]
    exact = labels.offset(given, seen)
    assert exact[:2] == pytest.approx((0.012, 0.004), rel=1e-3) and max(exact[2:]) < 1e-6
    found = labels.offset(given, seen + rng.normal(0, 0.01, (200, 1, 2)) * long)
    assert found.error_right == pytest.approx(0.01 / 200**0.5, rel=0.3)
    assert found.right == pytest.approx(0.012, abs=4 * found.error_right)
    assert found.down == pytest.approx(0.004, abs=4 * found.error_down)
    part = labels.Part("made up", given, seen)
    assert part.nme(0.012, 0.004) == pytest.approx(0, abs=1e-3) and part.nme() > part.nme(0.012) > 0.1
