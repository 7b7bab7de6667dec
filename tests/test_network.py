import dataclasses

import pytest
import torch

from fkp import network

CONFIGS = {"keypointnet": network.KEYPOINTNET, "baseline": network.BASELINE}


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("count", [0, 1, 3])
def test_one_interface(name, count):
    model = network.build(CONFIGS[name]).eval()
    size = CONFIGS[name].crop_size
    crops = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8)
    with torch.inference_mode():
        prediction = model.predict(crops)
    assert prediction.keypoints.shape == (count, 68, 2) and prediction.spreads.shape == (count, 68)
    assert prediction.keypoints.isfinite().all() and (prediction.spreads > 0).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_learns(name):
    model = network.build(CONFIGS[name])
    size = CONFIGS[name].crop_size
    raw = model(torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8), torch.tensor([1, 2]))
    weight = torch.rand_like(raw.outputs)
    ((raw.outputs * weight).sum() + raw.log_spreads.sum()).backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def test_predictions_do_not_depend_on_the_batch():
    model = network.build(CONFIGS["keypointnet"]).eval()
    crops = torch.randint(0, 256, (3, 3, 112, 112), dtype=torch.uint8)
    with torch.inference_mode():
        together = model.predict(crops).keypoints
        alone = torch.cat([model.predict(crop[None]).keypoints for crop in crops])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=0)


def test_labelling_styles_differ_once_learnt():
    model = network.build(CONFIGS["keypointnet"]).eval()
    torch.nn.init.normal_(model.style.weight)
    crops = torch.randint(0, 256, (1, 3, 112, 112), dtype=torch.uint8)
    with torch.inference_mode():
        default, own, other = (model.predict(crops, style).keypoints for style in (None, "300w", "ytf"))
    assert torch.equal(default, own) and not torch.allclose(default, other)


@pytest.mark.parametrize(
    "change, reason", [({"architecture": "x"}, "architecture 'x'"), ({"label_style": "x"}, "label_style")]
)
def test_unknown_names_are_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        network.build(dataclasses.replace(network.KeypointConfig(), **change))


def test_the_shipped_network_is_small():
    parameters = sum(p.numel() for p in network.build(CONFIGS["keypointnet"]).parameters())
    assert parameters * 4 < 5e6
