import dataclasses

import numpy as np
import pytest
import torch

from fkp import scheme
from fkp.config import BASELINE, KEYPOINTNET
from fkp.networks import keypoint_net

CONFIGS = {"keypointnet": KEYPOINTNET, "baseline": BASELINE}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_networks_share_one_interface(name, count):
    model = keypoint_net.build(CONFIGS[name]).eval()
    size = CONFIGS[name].crop_size
    crops = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        prediction = model.predict(crops)
    assert prediction.keypoints.shape == (count, 68, 2) and prediction.sigmas.shape == (count, 68)
    assert prediction.keypoints.isfinite().all() and (prediction.sigmas > 0).all()
    assert prediction.visibility.shape == (count, 68)
    assert ((prediction.visibility > 0) & (prediction.visibility < 1)).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_parameters_all_learn(name):
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
    assert not any(torch.allclose(said[i], said[j]) for i in range(4) for j in range(i))


@pytest.mark.parametrize(
    "change, reason",
    [
        ({"architecture": "x"}, "architecture is 'x'"),
        ({"temperatures": (1.0,)}, "temperatures has 1"),
        ({"annotation_offsets": (0.0,)}, "annotation_offsets has 1"),
    ],
)
def test_unknown_names_are_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        keypoint_net.build(dataclasses.replace(keypoint_net.KeypointConfig(), **change))


def test_the_shipped_network_is_small():
    parameters = sum(p.numel() for p in keypoint_net.build(CONFIGS["keypointnet"]).parameters())
    assert parameters * 4 < 5e6


def test_decoded_output_is_corrected():
    """Points by the style's annotation offset, sigmas by its temperature, visibility by its calibration."""
    plain = dataclasses.replace(CONFIGS["keypointnet"], annotation_offsets=(0.0,) * 8)
    corrected = dataclasses.replace(
        plain, crop_size=112, margin=1.4, temperatures=(1.0, 1.5, 1.0, 2.0),
        annotation_offsets=(0.0, 0.0, 0.01, 0.02, 0.0, 0.0, -0.03, 0.05), visibility_calibration=(2.0, -1.0),
    )  # fmt: skip
    before, after = (keypoint_net.build(config).eval() for config in (plain, corrected))
    after.load_state_dict(before.state_dict())
    crops = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8)
    for style, offset, temperature in ((None, (0, 0), 1), ("300w", (0.8, 1.6), 1.5), ("merl", (-2.4, 4), 2)):
        with torch.inference_mode():
            was, now = before.predict(crops, style), after.predict(crops, style)
            decoded = keypoint_net.Decoded(after)(crops, torch.tensor([scheme.style_index(style)]))
        away = torch.tensor(offset, dtype=torch.float32).expand(2, 68, 2)
        torch.testing.assert_close(now.keypoints - was.keypoints, away, atol=1e-3, rtol=0)
        torch.testing.assert_close(now.sigmas, was.sigmas * temperature)
        logits = torch.logit(was.visibility.double())
        torch.testing.assert_close(now.visibility.double(), torch.sigmoid(2 * logits - 1), atol=1e-5, rtol=0)
        np.testing.assert_allclose(corrected.annotation_offset(style), offset, atol=1e-6)
        for ours, theirs in zip(decoded, now, strict=True):
            torch.testing.assert_close(ours, theirs)


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
    torch.testing.assert_close(ours.sigmas, theirs.sigmas, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(ours.visibility, theirs.visibility, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    "bigger", [{"widths": (16, 48, 64, 192)}, {"depths": (2, 5, 4)}, {"top_down_width": 96}]
)
def test_a_widened_network_says_the_same(bigger):
    small = trained_by_chance(dataclasses.replace(CONFIGS["keypointnet"], widths=(8, 32, 40, 96)))
    config = dataclasses.replace(small.config, **bigger)
    wide = keypoint_net.resized(small, config)
    assert wide.config == config
    crops = torch.randint(0, 256, (2, 3, 112, 112), dtype=torch.uint8)
    with torch.inference_mode():
        ours, theirs = wide.eval().predict(crops, "ytf"), small.predict(crops, "ytf")
    for now, was in zip(ours, theirs, strict=True):
        torch.testing.assert_close(now, was, atol=2e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="smaller than"):
        keypoint_net.widened(wide, dataclasses.replace(config, widths=(8, 16, 64, 256)))


def test_resizing_another_architecture_is_refused():
    wide = keypoint_net.build(CONFIGS["keypointnet"])
    assert keypoint_net.resized(wide, wide.config) is wide
    assert keypoint_net.resized(wide, CONFIGS["baseline"]) is wide
