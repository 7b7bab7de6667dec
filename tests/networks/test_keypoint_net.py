import dataclasses

import numpy as np
import pytest
import torch

from fkp.networks import keypoint_net

CONFIGS = {"keypointnet": keypoint_net.KEYPOINTNET, "baseline": keypoint_net.BASELINE}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_one_interface(name, count):
    model = keypoint_net.build(CONFIGS[name]).eval()
    size = CONFIGS[name].crop_size
    crops = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        prediction = model.predict(crops)
    assert prediction.keypoints.shape == (count, 68, 2) and prediction.spreads.shape == (count, 68)
    assert prediction.keypoints.isfinite().all() and (prediction.spreads > 0).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_learns(name):
    model = keypoint_net.build(CONFIGS[name])
    size = CONFIGS[name].crop_size
    raw = model(torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8), torch.tensor([1, 2]))
    weight = torch.rand_like(raw.outputs)
    ((raw.outputs * weight).sum() + raw.log_spreads.sum()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_predictions_do_not_depend_on_the_batch():
    model = keypoint_net.build(CONFIGS["keypointnet"]).eval()
    crops = torch.randint(0, 256, (3, 3, 112, 112), dtype=torch.uint8)
    with torch.inference_mode():
        together = model.predict(crops).keypoints
        alone = torch.cat([model.predict(crop[None]).keypoints for crop in crops])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=0)


def test_labelling_styles_differ_once_learnt():
    model = keypoint_net.build(CONFIGS["keypointnet"]).eval()
    torch.nn.init.normal_(model.style.weight)
    crops = torch.randint(0, 256, (1, 3, 112, 112), dtype=torch.uint8)
    with torch.inference_mode():
        default, own, other = (model.predict(crops, style).keypoints for style in (None, "300w", "ytf"))
    assert torch.equal(default, own) and not torch.allclose(default, other)


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"architecture": "x"}, "architecture 'x'"),
        ({"label_style": "x"}, "label_style"),
        ({"leans": (0.0,)}, "1 leans"),
    ],
)
def test_unknown_names_are_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        keypoint_net.build(dataclasses.replace(keypoint_net.KeypointConfig(), **change))


def test_the_shipped_network_is_small():
    parameters = sum(p.numel() for p in keypoint_net.build(CONFIGS["keypointnet"]).parameters())
    assert parameters * 4 < 5e6


def test_labels_lie_beside_what_the_network_says():
    config = keypoint_net.KeypointConfig(
        crop_size=100, margin=1.25, leans=(0.0, 0.0, 0.01, 0.02, -0.03, 0.05)
    )
    np.testing.assert_allclose(config.lean(), [0.8, 1.6])
    np.testing.assert_allclose(config.lean("ytf"), [-2.4, 4.0])
    assert not keypoint_net.KeypointConfig().lean().any()  # weights that know nothing of it


def trained_by_chance(config: keypoint_net.KeypointConfig) -> keypoint_net.KeypointNet:
    """A network whose normalisations and styles are not as they begin."""
    model = keypoint_net.build(config).eval()
    assert isinstance(model, keypoint_net.KeypointNet)
    generator = torch.Generator().manual_seed(0)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point() and tensor.ndim == 1:
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
    torch.nn.init.normal_(model.style.weight, generator=generator)
    return model


def test_a_network_as_wide_as_it_was_stays_as_it_is():
    wide = trained_by_chance(CONFIGS["keypointnet"])
    same = keypoint_net.narrowed(wide, wide.config).state_dict()
    assert all(torch.equal(tensor, same[name]) for name, tensor in wide.state_dict().items())


def test_a_narrowed_network_keeps_the_channels_that_matter():
    config = dataclasses.replace(CONFIGS["keypointnet"], widths=(8, 16, 24, 32), top_down_width=16)
    less = dataclasses.replace(config, widths=(8, 16, 24, 20), top_down_width=12)
    wide = trained_by_chance(config)
    dead = [1, 4, 5, 8, 9, 12, 15, 20, 21, 27, 30, 31]  # of the last stage, in the stream and in the blocks
    with torch.no_grad():
        for block in wide.stages[-1]:
            for convolution, norm in ((m[0], m[1]) for m in block.children() if hasattr(m, "__getitem__")):
                for tensor in (convolution.weight, norm.weight, norm.bias, norm.running_mean):
                    tensor[dead] = 0
        wide.style.weight[:, dead] = 0
        unread = [0, 7, 9, 13]
        wide.smooth[0].weight[:, unread] = 0
        for part in (wide.smooth[0].weight, wide.smooth[1].weight, wide.smooth[1].bias):
            part[unread] = 0
        wide.smooth[1].running_mean[unread] = 0
    narrow = keypoint_net.narrowed(wide, less)
    assert narrow.config == less and narrow.stages[-1][0].first[0].out_channels == 20
    crops = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8)
    with torch.inference_mode():
        ours, theirs = narrow.eval().predict(crops, "ytf"), wide.predict(crops, "ytf")
    torch.testing.assert_close(ours.keypoints, theirs.keypoints, atol=1e-3, rtol=0)
    torch.testing.assert_close(ours.spreads, theirs.spreads, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("change", [{"widths": (16, 32, 64, 192)}, {"depths": (1, 2, 3)}])
def test_nothing_is_narrowed_to_more(change):
    wide = keypoint_net.build(CONFIGS["keypointnet"])
    assert keypoint_net.narrowed(wide, dataclasses.replace(wide.config, **change)) is wide
    assert keypoint_net.narrowed(wide, CONFIGS["baseline"]) is wide
