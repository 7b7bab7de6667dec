import numpy as np
import pytest
import torch
from torch import nn

from fkp.config import DetectorConfig
from fkp.networks import face_net, keypoint_net, state
from tests import tiny


@pytest.mark.parametrize("faces", [False, True])
def test_folded_normalisations_compute_the_same(faces: bool) -> None:
    network = face_net.DetectorNetwork(DetectorConfig()) if faces else keypoint_net.build(tiny.KEYPOINTS)
    tiny.lively(network)
    before = state.arrays(network)
    inputs = [torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)]
    inputs += [] if faces else [torch.tensor([1])]
    folded = state.folded(network)
    with torch.inference_mode():
        for ours, theirs in zip(folded(*inputs), network(*inputs), strict=True):
            torch.testing.assert_close(ours, theirs, atol=1e-3, rtol=1e-3)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    after = state.arrays(network)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_arrays_there_and_back() -> None:
    network = tiny.lively(keypoint_net.build(tiny.KEYPOINTS))
    with torch.no_grad():
        network.heatmaps.bias[3] = 1e6 + 1
    arrays = state.arrays(network)
    assert arrays["heatmaps.bias"].dtype == np.float32  # float16 cannot hold it
    assert arrays["heatmaps.weight"].dtype == np.float16
    other = keypoint_net.build(tiny.KEYPOINTS)
    state.load(other, arrays)
    assert all(np.array_equal(array, arrays[name]) for name, array in state.arrays(other).items())
    assert other.heatmaps.weight.dtype == network.heatmaps.weight.dtype == torch.float32


def test_tensors_that_do_not_fit() -> None:
    network, name = keypoint_net.build(tiny.KEYPOINTS), "heatmaps.weight"
    fine = state.arrays(network)
    for change, reason in (
        ({name: fine[name][:67]}, r"shape \(67, 4, 1, 1\) instead of \(68, 4, 1, 1\)"),
        ({name: fine[name].astype(np.int32)}, "is of type int32"),
        ({"more": np.zeros(1)}, "more belongs to no part"),
    ):
        with pytest.raises(state.StateError, match=reason):
            state.load(network, fine | change)
    with pytest.raises(state.StateError, match=r"is missing \(and \d+ more\)"):
        state.load(network, {})


def test_mean_of_networks() -> None:
    one, other, mean = (tiny.lively(keypoint_net.build(tiny.KEYPOINTS)) for _ in range(3))
    state.copy_mean({"one": one, "other": other}, mean)
    torch.testing.assert_close(mean.stem[0].weight, (one.stem[0].weight + other.stem[0].weight) / 2)
    with pytest.raises(state.StateError, match="two holds a network of another shape"):
        state.copy_mean({"one": one, "two": keypoint_net.build(tiny.BASELINE)}, mean)
