import math

import pytest
import torch

from fkp.networks.codec import CoordinateCodec, HeatmapCodec


@pytest.mark.parametrize(
    "codec", [HeatmapCodec(128, 32), HeatmapCodec(96, 48, sigma=1.5), CoordinateCodec(128)]
)
def test_round_trip(codec):
    assert codec.decode(codec.encode(torch.empty(0, 68, 2))).shape == (0, 68, 2)
    # Four standard deviations from the edge, so that no Gaussian is cut off.
    keypoints = torch.rand(4, 68, 2) * (codec.crop_size - 34) + 17
    torch.testing.assert_close(codec.decode(codec.encode(keypoints)), keypoints, atol=0.02, rtol=0)


def test_a_heat_map_of_one_cell_decodes_to_the_middle_of_its_pixels():
    codec = HeatmapCodec(8, 2)  # cell 0 covers pixels 0..3, whose middle is 1.5
    logits = torch.full((1, 1, 2, 2), -100.0)
    logits[0, 0, 1, 0] = 100  # row 1, column 0
    assert codec.decode(logits).tolist() == [[[1.5, 5.5]]]


def test_encoded_heat_maps_are_gaussians_even_far_outside():
    keypoints = torch.tensor([[[-500.0, 64.0], [65.5, 61.5]]])
    logits = HeatmapCodec(128, 32, sigma=1.0).encode(keypoints)
    assert logits.isfinite().all()
    heatmap = torch.softmax(logits[0, 1].flatten(), 0).view(32, 32)
    # 61.5 is the middle of cell 15 (60..63), 65.5 that of cell 16: one cell off is one sigma off.
    assert heatmap.argmax() == 15 * 32 + 16
    assert (heatmap[15, 17] / heatmap[15, 16]).item() == pytest.approx(math.exp(-0.5), abs=1e-4)


@pytest.mark.parametrize("codec", [HeatmapCodec(128, 32), CoordinateCodec(128)])
def test_loss_is_zero_for_the_truth_and_grows_with_distance(codec):
    truth = torch.full((1, 68, 2), 64.0)
    right, near, far = (codec.loss(codec.encode(truth + d), truth).mean() for d in (0.0, 2.0, 8.0))
    assert abs(right.item()) < 1e-5 < near < far


def test_loss_is_the_divergence_of_the_written_out_maps():
    codec = HeatmapCodec(32, 8)
    logits, keypoints = torch.randn(2, 68, 8, 8), 32 * torch.rand(2, 68, 2)
    wanted = torch.softmax(codec.encode(keypoints).flatten(2), -1)
    divergence = wanted * (wanted.log() - torch.log_softmax(logits.flatten(2), -1))
    expected = divergence.nan_to_num(0).sum(-1)
    torch.testing.assert_close(codec.loss(logits, keypoints), expected, rtol=1e-4, atol=1e-5)
