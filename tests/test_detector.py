"""The detector: box coding, fitting a picture, and the callable; with untrained or set answers."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from fkp import detector, runtime
from fkp.detector import Detector, DetectorConfig, DetectorNetwork


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


class OneFace(torch.nn.Module):
    """A network that sees one face: `box` in pixels of its input, told by the cell of index `cell`."""

    def __init__(self, box: list[float], cell: int, again: int | None = None) -> None:
        super().__init__()
        self.box, self.cell, self.again = torch.tensor(box), cell, again
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, pictures: torch.Tensor) -> detector.Grids:
        at = detector.cells(*pictures.shape[2:])
        logits = torch.full((1, len(at)), -9.0)
        for cell, logit in ((self.cell, 3.0), (self.again, 2.0)):
            if cell is not None:
                logits[0, cell] = logit
        return detector.Grids(logits, detector.encode(self.box.expand(1, len(at), 4), at[None]))


def test_cells_are_centred_on_their_pixels() -> None:
    at = detector.cells(64, 96)
    assert at.shape == (8 * 12 + 4 * 6 + 2 * 3, 3)
    assert at[0].tolist() == [3.5, 3.5, 8]
    assert at[1].tolist() == [11.5, 3.5, 8]
    assert at[12].tolist() == [3.5, 11.5, 8]
    assert at[-1].tolist() == [79.5, 47.5, 32]


def test_offsets_of_a_known_box() -> None:
    cell = torch.tensor([[3.5, 3.5, 8.0]])
    offsets = detector.encode(torch.tensor([[-4.5, -12.5, 27.5, 51.5]]), cell)
    # Centre (11.5, 19.5) is one and two cells away; 32 is the prior's side, 64 twice that.
    torch.testing.assert_close(offsets, torch.tensor([[1.0, 2.0, 0.0, np.log(2)]], dtype=torch.float32))


def test_decode_inverts_encode() -> None:
    at = detector.cells(64, 64)
    boxes = torch.rand(len(at), 4) * 30
    boxes[:, 2:] += boxes[:, :2] + 5
    torch.testing.assert_close(detector.decode(detector.encode(boxes, at), at), boxes, atol=1e-4, rtol=0)


@pytest.mark.parametrize("shape_hw", [(480, 640), (640, 480), (90, 90), (1, 700), (2000, 37)])
def test_fit_scales_and_pads(shape_hw: tuple[int, int]) -> None:
    image = np.zeros((*shape_hw, 3), np.uint8)
    picture, scale_xy = detector.fit(image, 320 / max(shape_hw))
    assert picture.shape[0] % 32 == picture.shape[1] % 32 == 0
    assert max(picture.shape) == 320
    used = np.round(np.array(shape_hw) * scale_xy[::-1]).astype(int)
    assert max(used) == 320
    assert not picture[: used[0], : used[1]].any()
    assert (picture[used[0] :] > 100).all() and (picture[:, used[1] :] > 100).all()


@pytest.mark.parametrize(
    ("shape_hw", "expected"),
    [
        ((1, 1), [320]),  # enlarged
        ((120, 160), [2]),
        ((480, 640), [0.8]),  # a second look would add little
        ((576, 768), [2 / 3, 1]),
        ((960, 1280), [0.4, 1]),
        ((3000, 4000), [0.128, 0.6]),
        ((1000, 7500), [0.512 / 7.5, math.sqrt(4.32 / 7.5)]),  # a panorama, by its pixels
    ],
)
def test_how_often_and_how_large_a_picture_is_looked_at(
    shape_hw: tuple[int, int], expected: list[float]
) -> None:
    assert detector.scales(*shape_hw, DetectorConfig()) == pytest.approx(expected)


class Bright(torch.nn.Module):
    """A network that sees a face of 20 pixels at every cell of the finest grid that is bright."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, pictures: torch.Tensor) -> detector.Grids:
        height, width = pictures.shape[2:]
        at = detector.cells(height, width)
        logits = torch.full((1, len(at)), -9.0)
        means = torch.nn.functional.avg_pool2d(pictures.float().mean(1), 8).flatten()
        logits[0, : len(means)] = torch.where(means > 200, 3.0, -9.0)
        centre = at[:, :2]
        return detector.Grids(logits, detector.encode(torch.cat([centre - 10, centre + 10], 1), at)[None])


def test_a_second_look_finds_what_is_too_small_for_the_first() -> None:
    image = np.zeros((960, 1280, 3), np.uint8)
    image[400:408, 800:808] = 255  # one cell at full size, a quarter of one at half
    boxes, _ = Detector(DetectorConfig(), Bright())(image)  # type: ignore[arg-type]
    np.testing.assert_allclose(boxes, [[793.5, 393.5, 813.5, 413.5]], atol=0.01)
    found = Detector(DetectorConfig(fine_pixels=300_000), Bright())(image)  # type: ignore[arg-type]
    assert len(found[0]) == 0


def test_parts_of_faces() -> None:
    boxes = np.array([
        [0.0, 0, 100, 100],  # a face
        [30.0, 30, 60, 60],  # its nose
        [0.0, 0, 12, 12],  # someone behind its ear
        [20.0, 20, 90, 90],  # another as large: not for this rule
        [200.0, 0, 230, 30],  # a face
        [180.0, 0, 250, 70],  # something around it that is less like one
    ])  # fmt: skip
    assert detector.parts_of_faces(boxes).tolist() == [False, True, False, False, False, True]
    assert detector.parts_of_faces(boxes[:0]).tolist() == []


def test_the_network_says_something_for_every_cell(network: DetectorNetwork) -> None:
    grids = network(torch.zeros(2, 3, 64, 96, dtype=torch.uint8))
    n = len(detector.cells(64, 96))
    assert grids.logits.shape == (2, n) and grids.offsets.shape == (2, n, 4)


def test_the_network_is_small(network: DetectorNetwork) -> None:
    assert sum(p.numel() for p in network.parameters()) < 160_000


def test_folding_changes_nothing(network: DetectorNetwork) -> None:
    pictures = torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8)
    with torch.inference_mode():
        whole, folded = network(pictures), runtime.folded(network)(pictures)
    torch.testing.assert_close(folded.logits, whole.logits, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(folded.offsets, whole.offsets, atol=1e-4, rtol=1e-4)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in runtime.folded(network).modules())
    assert any(isinstance(m, torch.nn.BatchNorm2d) for m in network.modules())


def test_a_deeper_network_begins_by_saying_the_same(network: DetectorNetwork) -> None:
    shallow = Detector(DetectorConfig(), network)
    deeper = detector.deepened(shallow, (5, 4, 4)).eval()
    assert [len(s) for s in (deeper.stage8, deeper.stage16, deeper.stage32)] == [5, 4, 4]
    assert len(network.stage8) == 3  # as it was
    pictures = torch.randint(0, 256, (1, 3, 64, 96), dtype=torch.uint8)
    for ours, theirs in zip(deeper(pictures), network(pictures), strict=True):
        torch.testing.assert_close(ours, theirs)
    # The blocks added learn from the first step on.
    deeper(pictures).logits.sum().backward()
    assert all(deeper.stage8[i].pointwise[1].weight.grad.abs().sum() > 0 for i in (3, 4))
    # Tensors have the names that the configuration gives them.
    same = DetectorNetwork(DetectorConfig(depths=(5, 4, 4)))
    same.load_state_dict(deeper.state_dict())


def test_no_face_is_two_empty_arrays(network: DetectorNetwork) -> None:
    boxes, scores = Detector(DetectorConfig(), network)(np.zeros((50, 70, 3), np.uint8), min_score=1.0)
    assert boxes.shape == (0, 4) and scores.shape == (0,)
    assert boxes.dtype == scores.dtype == np.float32


@pytest.mark.parametrize("shape_hw", [(480, 640), (640, 480), (120, 160), (64, 64)])
def test_a_box_comes_back_in_pixels_of_the_image(shape_hw: tuple[int, int]) -> None:
    # A quarter of the picture's width and height, its upper left corner in the middle of the picture.
    height, width = shape_hw
    scale = min(max(320, *shape_hw), 512) / max(shape_hw)
    truth = np.array([width / 2, height / 2, width * 3 / 4, height * 3 / 4]) - 0.5
    found = Detector(DetectorConfig(), OneFace(((truth + 0.5) * scale - 0.5).tolist(), cell=0))
    boxes, scores = found(np.zeros((height, width, 3), np.uint8))
    np.testing.assert_allclose(boxes, truth[None], atol=0.01)
    assert scores == pytest.approx([1 / (1 + np.exp(-3.0))], abs=1e-5)


@pytest.mark.parametrize(("side", "n"), [(14.9, 0), (15.1, 1)])
@pytest.mark.parametrize("shape_hw", [(320, 320), (160, 160)])
def test_what_is_too_small_to_be_seen_is_no_face(shape_hw: tuple[int, int], side: float, n: int) -> None:
    # Pixels of the picture count, however much it is enlarged.
    side *= 320 / shape_hw[0]
    found = Detector(DetectorConfig(), OneFace([40, 40, 40 + side, 40 + side / 2], cell=0))
    assert len(found(np.zeros((*shape_hw, 3), np.uint8))[0]) == n


def test_the_same_face_told_twice_is_one_box() -> None:
    found = Detector(DetectorConfig(), OneFace([50.0, 50.0, 120.0, 130.0], cell=5, again=1700))
    boxes, scores = found(np.zeros((320, 320, 3), np.uint8))
    assert len(boxes) == 1 and scores[0] > 0.95


@pytest.mark.parametrize(("min_score", "n"), [(None, 1), (0.94, 1), (0.96, 0), (0.0, 1)])
def test_min_score(min_score: float | None, n: int) -> None:
    found = Detector(DetectorConfig(min_score=0.9), OneFace([50.0, 50.0, 120.0, 130.0], cell=5))
    assert len(found(np.zeros((320, 320, 3), np.uint8), min_score=min_score)[0]) == n


def test_the_image_stays_as_it_is(network: DetectorNetwork) -> None:
    image = np.full((320, 320, 3), 9, np.uint8)
    Detector(DetectorConfig(), network)(image, min_score=0.0)
    assert (image == 9).all()


def test_weights_given_after_construction_are_used(network: DetectorNetwork) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    fresh = Detector(DetectorConfig())
    fresh.network.load_state_dict(network.state_dict())
    expected = Detector(DetectorConfig(), network)(image, min_score=0)
    for mine, theirs in zip(fresh(image, min_score=0), expected, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_boxes_of_one_face_vote() -> None:
    boxes = np.array([[0, 0, 100, 100], [10, 0, 110, 100], [0, 10, 100, 110], [60, 60, 160, 160]], np.float32)
    scores = np.array([0.8, 0.4, 0.2, 0.7], np.float32)
    ours = detector.voted(boxes, scores, np.array([0, 3]))
    # The third is too unsure, the fourth another face.
    np.testing.assert_allclose(ours, [[10 / 3, 0, 100 + 10 / 3, 100], boxes[3]], rtol=1e-6)
    assert ours.dtype == np.float32 and detector.voted(boxes, scores, np.array([], int)).shape == (0, 4)


def test_what_boxes_are_off_by_is_taken_away() -> None:
    truth = np.array([[10.0, 20, 50, 100], [0, 0, 30, 20]])
    bias = (0.02, -0.03, 0.05, -0.1)
    width, height = 40 * np.exp(bias[2]), 80 * np.exp(bias[3])
    told = np.array([30 + 0.02 * height, 60 - 0.03 * height]) + np.array([[-0.5], [0.5]]) * [width, height]
    np.testing.assert_allclose(detector.box_errors(told.reshape(1, 4), truth[:1]), [bias], atol=1e-9)
    np.testing.assert_allclose(detector.corrected(told.reshape(1, 4), bias), truth[:1], rtol=1e-5)
    np.testing.assert_allclose(detector.corrected(truth, (0, 0, 0, 0)), truth)


def test_a_detector_takes_its_bias_away() -> None:
    box = [100.0, 120, 180, 220]
    cell = int((detector.cells(320, 320)[:, :2] - torch.tensor([140.0, 170.0])).norm(dim=1).argmin())
    picture = np.zeros((320, 320, 3), np.uint8)
    bias = (0.1, 0.0, 0.0, 0.0)
    plain, moved = (
        Detector(replace(DetectorConfig(), bias=some), OneFace(box, cell))(picture)[0]
        for some in ((0.0,) * 4, bias)
    )
    np.testing.assert_allclose(plain - moved, [[10, 0, 10, 0]], atol=1e-3)
