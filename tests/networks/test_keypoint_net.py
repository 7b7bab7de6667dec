import dataclasses

import numpy as np
import pytest
import torch

from fkp import config as configs
from fkp import scheme
from fkp.networks import keypoint_net

CONFIGS = {"keypointnet": configs.KEYPOINTNET, "baseline": configs.BASELINE}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_one_interface(name, count):
    model = keypoint_net.build(CONFIGS[name]).eval()
    size = CONFIGS[name].crop_size
    crops = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        prediction = model.predict(crops)
    assert prediction.keypoints.shape == (count, 68, 2)
    assert prediction.sigmas.shape == prediction.visibility.shape == (count, 68)
    assert prediction.keypoints.isfinite().all() and (prediction.sigmas > 0).all()
    assert ((0 < prediction.visibility) & (prediction.visibility < 1)).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_learns(name):
    model = keypoint_net.build(CONFIGS[name])
    size = CONFIGS[name].crop_size
    raw = model(torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8), torch.tensor([1, 2]))
    weight = torch.rand_like(raw.outputs)
    ((raw.outputs * weight).sum() + raw.log_spreads.sum() + raw.visibility.sum()).backward()
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
        said = [model.predict(crops, style).keypoints for style in (None, *scheme.LABEL_STYLES)]
    assert not any(torch.allclose(said[0], other, atol=0.1) for other in said[1:])


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"architecture": "x"}, "architecture 'x'"),
        ({"temperatures": (1.0,)}, "1 temperatures"),
        ({"annotation_offsets": (0.0,)}, "1 annotation_offsets"),
    ],
)
def test_unknown_names_are_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        keypoint_net.build(dataclasses.replace(configs.KeypointConfig(), **change))


def test_the_shipped_network_is_small():
    parameters = sum(p.numel() for p in keypoint_net.build(CONFIGS["keypointnet"]).parameters())
    assert parameters * 4 < 5e6


def test_corrections_of_a_style() -> None:
    """Annotation offset and temperature are those of the style, the visibility is calibrated."""
    config = configs.KeypointConfig(
        crop_size=100, margin=1.25, temperatures=(1.0, 2.0, 3.0, 4.0), visibility_calibration=(2.0, 1.0),
        annotation_offsets=(0.0, 0.0, 0.01, 0.02, -0.03, 0.05, 0.0, 0.0),
    )  # fmt: skip
    np.testing.assert_allclose(config.annotation_offset("300w"), [0.8, 1.6], rtol=1e-6)
    np.testing.assert_allclose(config.annotation_offset("ytf"), [-2.4, 4.0], rtol=1e-6)
    assert not config.annotation_offset(None).any()
    model = keypoint_net.build(config)
    raw = keypoint_net.RawOutput(torch.zeros(1, 68, 25, 25), torch.zeros(1, 68), torch.full((1, 68), 0.5))
    for style in (None, "300w", "ytf"):
        number = scheme.style_index(style)
        said = model.decode(raw, torch.tensor([number]))
        expected = 49.5 + config.annotation_offset(style)
        np.testing.assert_allclose(said.keypoints[0, 7], expected, rtol=1e-5)
        assert said.sigmas.unique().tolist() == [config.temperatures[number]]
        assert said.visibility[0, 0].item() == pytest.approx(1 / (1 + np.exp(-2)))


def trained_by_chance(config: configs.KeypointConfig) -> keypoint_net.KeypointNet:
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
    torch.testing.assert_close(ours.sigmas, theirs.sigmas, atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize("change", [{"widths": (16, 32, 64, 192)}, {"depths": (1, 2, 3)}])
def test_nothing_is_narrowed_to_more(change):
    wide = keypoint_net.build(CONFIGS["keypointnet"])
    assert keypoint_net.narrowed(wide, dataclasses.replace(wide.config, **change)) is wide
    assert keypoint_net.narrowed(wide, CONFIGS["baseline"]) is wide
