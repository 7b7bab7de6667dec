"""The face detector's network."""

import numpy as np
import pytest
import torch

from fkp import detector
from fkp.config import DetectorConfig
from fkp.networks import face_net, state
from fkp.networks.face_net import DetectorNetwork


@pytest.fixture(scope="module")
def network() -> DetectorNetwork:
    torch.manual_seed(0)
    network = DetectorNetwork(DetectorConfig())
    # Statistics other than 0 and 1, so that folding them matters.
    network.train()
    with torch.no_grad():
        for _ in range(3):
            network(torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8))
    return network.eval()


def test_cells_are_those_that_the_detector_reads() -> None:
    np.testing.assert_array_equal(face_net.cells(64, 96).numpy(), detector.cells(64, 96))


def test_offsets_of_a_known_box() -> None:
    cell = torch.tensor([[3.5, 3.5, 8.0]])
    offsets = face_net.encode(torch.tensor([[-4.5, -12.5, 27.5, 51.5]]), cell)
    # Centre (11.5, 19.5) is one and two cells away; 32 is the prior's side, 64 twice that.
    torch.testing.assert_close(offsets, torch.tensor([[1.0, 2.0, 0.0, np.log(2)]], dtype=torch.float32))


def test_decode_inverts_encode() -> None:
    at = face_net.cells(64, 64)
    boxes = torch.rand(len(at), 4) * 30
    boxes[:, 2:] += boxes[:, :2] + 5
    torch.testing.assert_close(face_net.decode(face_net.encode(boxes, at), at), boxes, atol=1e-4, rtol=0)
    offsets = face_net.encode(boxes, at).numpy()
    np.testing.assert_allclose(detector.decode(offsets, at.numpy()), boxes, atol=1e-4)


def test_the_pixels_of_a_block_become_channels_row_by_row() -> None:
    pictures = torch.arange(2 * 3 * 4 * 8).reshape(2, 3, 4, 8)
    blocks = face_net.space_to_depth(pictures, 4)
    assert blocks.shape == (2, 48, 1, 2)
    # The second block's third pixel of the second row: red, green, blue.
    assert blocks[1, (4 + 2) * 3 : (4 + 2) * 3 + 3, 0, 1].tolist() == pictures[1, :, 1, 4 + 2].tolist()


def test_the_network_says_something_for_every_cell(network: DetectorNetwork) -> None:
    grids = network(torch.zeros(2, 3, 64, 96, dtype=torch.uint8))
    n = len(face_net.cells(64, 96))
    assert grids.logits.shape == (2, n) and grids.offsets.shape == (2, n, 4)


def test_the_network_is_small(network: DetectorNetwork) -> None:
    assert sum(p.numel() for p in network.parameters()) < 1_000_000


def test_folding_changes_nothing(network: DetectorNetwork) -> None:
    pictures = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        whole, folded = network(pictures), state.folded(network)(pictures)
    torch.testing.assert_close(folded.logits, whole.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(folded.offsets, whole.offsets, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in state.folded(network).modules())
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())
