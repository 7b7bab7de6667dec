import numpy as np
import pytest
import torch

from fkp.training.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(8, 72), (72, 8), (16, 16)])
def test_orthogonal_has_singular_values_near_one_and_keeps_directions(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    result = orthogonal(matrix, steps=8)
    assert result.shape == shape and result.dtype == torch.float32
    values = torch.linalg.svdvals(result)
    assert 0.6 < values.min() and values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    np.testing.assert_allclose(torch.diagonal(u.T @ result @ v.T), np.ones(min(shape)), atol=0.4)


def test_orthogonal_of_nothing_is_nothing():
    assert not orthogonal(torch.zeros(4, 6)).any()


def test_a_step_goes_downhill_and_weight_decay_shrinks():
    target = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(0))
    kernel = torch.zeros(4, 3, 3, 3, requires_grad=True)
    untouched = torch.ones(2, 2, requires_grad=True)
    optimizer = Muon([kernel, untouched], lr=0.1)
    losses = []
    for _ in range(80):
        optimizer.zero_grad()
        loss = (kernel - target).square().sum()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.3 * losses[0]
    assert torch.equal(untouched, torch.ones(2, 2))  # no gradient, no step
    decayed = torch.ones(2, 3, requires_grad=True)
    decayed.grad = torch.zeros(2, 3)
    Muon([decayed], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(decayed.detach(), torch.full((2, 3), 0.95))


def test_state_is_saved_and_loaded():
    def trained(steps: int, state: dict | None = None, at: torch.Tensor | None = None):
        kernel = (torch.zeros(4, 6) if at is None else at.clone()).requires_grad_()
        optimizer = Muon([kernel], lr=0.05)
        if state is not None:
            optimizer.load_state_dict(state)
        for _ in range(steps):
            optimizer.zero_grad()
            (kernel - torch.arange(24.0).view(4, 6)).square().sum().backward()
            optimizer.step()
        return kernel.detach(), optimizer.state_dict()

    half, state = trained(3)
    torch.testing.assert_close(trained(3, state, half)[0], trained(6)[0])
