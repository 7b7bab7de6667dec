"""What benchmarks/poses.py counts, on faces that are made up."""

import numpy as np
import pytest

from benchmarks import faces, poses
from tests import synthetic


def test_errors_by_pose_count_labelled_points_alone() -> None:
    truth = np.stack([synthetic.face(60)] * 4)
    said = truth + [[[0, 0]], [[3, 0]], [[0, 6]], [[0, 0]]]
    truth[1, :10] = np.nan
    groups = np.array(["frontal", "left", "right", "frontal"])
    size = [np.sqrt((np.nanmax(t, axis=0) - np.nanmin(t, axis=0)).prod()) for t in truth]
    found = faces.nme_box_by_pose(said, truth, groups)
    assert {pose: rows["n"] for pose, rows in found.items()} == {"frontal": 2, "profile": 2, "all": 4}
    assert found["frontal"]["nme_box"] == 0
    assert found["profile"]["nme_box"] == pytest.approx(50 * (3 / size[1] + 6 / size[2]), abs=1e-3)
    assert found["all"]["nme_box"] == pytest.approx(found["profile"]["nme_box"] / 2, abs=1e-3)


def test_visibility_is_judged_against_visible_points() -> None:
    flags = np.tile([poses.VISIBLE, poses.VISIBLE, poses.TURNED, poses.COVERED], (10, 17))
    said = np.choose(flags, [0.0, 1.0, 0.4])
    found = poses.of_visibility(said, flags)
    assert found["auc_turned_away"] == found["auc_covered"] == 1
    assert found["reliability_error"] == pytest.approx(0.25 * 0.4)  # a quarter is never seen, said to be 0.4
    assert poses.of_visibility(1 - said, flags)["auc_turned_away"] == 0
