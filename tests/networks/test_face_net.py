import numpy as np
import torch

from fkp import detector
from fkp.config import DetectorConfig
from fkp.networks import face_net


def test_cells_are_those_of_inference() -> None:
    np.testing.assert_array_equal(face_net.cells(64, 96).numpy(), detector.cells(64, 96))


def test_offsets_of_a_known_box() -> None:
    cell = torch.tensor([[3.5, 3.5, 8.0]])
    offsets = face_net.encode(torch.tensor([[-4.5, -12.5, 27.5, 51.5]]), cell)
    # Centre (11.5, 19.5) is one and two cells away; 32 is the prior's side, 64 twice that.
    torch.testing.assert_close(offsets, torch.tensor([[1.0, 2.0, 0.0, np.log(2)]], dtype=torch.float32))


def test_both_ways_to_decode_invert_encode() -> None:
    at = face_net.cells(64, 64)
    boxes = torch.rand(len(at), 4) * 30
    boxes[:, 2:] += boxes[:, :2] + 5
    offsets = face_net.encode(boxes, at)
    torch.testing.assert_close(face_net.decode(offsets, at), boxes, atol=1e-4, rtol=0)
    np.testing.assert_allclose(detector.decode(offsets.numpy(), at.numpy()), boxes, atol=1e-4)


def test_the_network_says_something_for_every_cell() -> None:
    grids = face_net.DetectorNetwork(DetectorConfig())(torch.zeros(2, 3, 64, 96, dtype=torch.uint8))
    n = len(detector.cells(64, 96))
    assert grids.logits.shape == (2, n) and grids.offsets.shape == (2, n, 4)
