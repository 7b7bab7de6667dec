import math

import pytest
import torch

from fkp.codec import CoordinateCodec, HeatmapCodec, scores_from_spreads


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
    heatmaps = torch.zeros(1, 1, 2, 2)
    heatmaps[0, 0, 1, 0] = 1  # row 1, column 0
    assert codec.decode(heatmaps).tolist() == [[[1.5, 5.5]]]


def test_encoded_heat_maps_are_probabilities_even_far_outside():
    keypoints = torch.tensor([[[-500.0, 64.0], [64.0, 64.0]]])
    heatmaps = HeatmapCodec(128, 32).encode(keypoints)
    torch.testing.assert_close(heatmaps.sum(dim=(-2, -1)), torch.ones(1, 2))
    assert heatmaps.isfinite().all()


@pytest.mark.parametrize("codec", [HeatmapCodec(128, 32), CoordinateCodec(128)])
def test_loss_is_zero_for_the_truth_and_grows_with_distance(codec):
    truth = torch.full((1, 68, 2), 64.0)
    encoded = codec.encode(truth)
    near, far = (codec.loss(codec.encode(truth + d), encoded) for d in (2.0, 8.0))
    assert abs(codec.loss(encoded, encoded).item()) < 1e-6 < near < far


def test_score_is_the_probability_that_an_error_is_below_five_percent():
    # A radial Laplace density with b = 1 has a mean error of 2; within R = 2 lie 1 − 3·exp(−2) = 59.4 %.
    score = scores_from_spreads(torch.tensor([[2.0]]), torch.tensor([40.0]))
    assert score.item() == pytest.approx(1 - 3 * math.exp(-2), abs=1e-6)
    # Drawn errors say the same: the radius of that density is the sum of two exponentials.
    radii = torch.distributions.Exponential(1.0).sample((2, 100_000)).sum(dim=0)
    assert (radii < 2).float().mean().item() == pytest.approx(score.item(), abs=0.01)


def test_scores_fall_with_spread_and_temperature():
    eyes = torch.tensor([50.0])
    scores = scores_from_spreads(torch.tensor([[0.0, 1.0, 3.0, 30.0]]), eyes)[0]
    assert scores[0] == 1 and (scores.diff() < 0).all() and scores[-1] > 0
    assert scores_from_spreads(torch.tensor([[3.0]]), eyes, temperature=2.0) < scores[2]
