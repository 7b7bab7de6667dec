"""The detector: box coding, fitting a picture, and the callable; with untrained or set answers."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from fkp import detector
from fkp.config import DetectorConfig
from fkp.detector import Detector
from fkp.networks import face_net
from tests.tiny import Says

Grids = tuple[np.ndarray, np.ndarray]


CONFIG = DetectorConfig(least_size=320, input_size=640, fine_pixels=4_320_000)


def finds(answer: Callable[[int, int], Grids], config: DetectorConfig = CONFIG) -> Detector:
    """A detector whose network says of an input of height and width what the function does."""
    return Detector(config, Says(lambda pictures: [part[None] for part in answer(*pictures.shape[1:3])]))


def offsets(boxes: np.ndarray, at: np.ndarray) -> np.ndarray:
    return face_net.encode(torch.from_numpy(np.float32(boxes)), torch.from_numpy(at)).numpy()


def one_face(box: list[float], cell: int, again: int | None = None) -> Callable[[int, int], Grids]:
    """One face: `box` in pixels of the input, told by the cell of index `cell`, and less surely `again`.

    Nothing is seen in the coarse pass.
    """

    def answer(height: int, width: int) -> Grids:
        at = detector.cells(height, width)
        logits = np.full(len(at), -9, np.float32)
        for index, logit in ((cell, 3.0), (again, 2.0)):
            if index is not None and max(height, width) > CONFIG.coarse_size:
                logits[index] = logit
        return logits, offsets(np.tile(box, (len(at), 1)), at)

    return answer


def test_cells_are_centred_on_their_pixels() -> None:
    at = detector.cells(64, 96)
    assert at.shape == (8 * 12 + 4 * 6 + 2 * 3, 3)
    assert at[0].tolist() == [3.5, 3.5, 8]
    assert at[1].tolist() == [11.5, 3.5, 8]
    assert at[12].tolist() == [3.5, 11.5, 8]
    assert at[-1].tolist() == [79.5, 47.5, 32]


def test_calibrated_scores() -> None:
    logits = np.array([-1.0, 0.0, 2.0])
    np.testing.assert_allclose(detector.calibrated(logits, (1.0, 0.0)), 1 / (1 + np.exp(-logits)))
    np.testing.assert_allclose(detector.calibrated(np.array([0.5]), (2.0, -1.0)), [0.5])


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


@pytest.mark.parametrize("shape_hw", [(480, 640), (481, 641), (767, 1023), (2999, 2251)])
@pytest.mark.parametrize("longer_side", [160, 640])
def test_what_is_seen_in_a_fitted_picture_lies_where_its_scale_says(
    shape_hw: tuple[int, int], longer_side: int
) -> None:
    height, width = shape_hw
    image = np.zeros((height, width, 3), np.uint8)
    image[height - 120 : height - 20, width - 130 : width - 30] = 255  # far from the corner that stays
    picture, scale_xy = detector.fit(image, longer_side / max(shape_hw))
    used = np.round(np.array(shape_hw) * longer_side / max(shape_hw)).astype(int)
    bright = picture[: used[0], : used[1], 0].astype(float)
    y, x = np.mgrid[: used[0], : used[1]]
    middle = np.array([(x * bright).sum(), (y * bright).sum()]) / bright.sum()
    found = (middle + 0.5) / scale_xy - 0.5
    assert found == pytest.approx([width - 80.5, height - 70.5], abs=0.12 / scale_xy[0])


@pytest.mark.parametrize(
    ("shape_hw", "expected"),
    [
        ((1, 1), [160, 320]),  # enlarged
        ((120, 160), [1, 2]),
        ((480, 640), [0.25, 1]),
        ((600, 800), [0.2, 0.8, math.sqrt(1.5 / 0.48)]),  # enlarged, to a million pixels and a half
        ((400, 800), [0.2, 0.8, 2]),
        ((1200, 1600), [0.1, 0.4, 1]),
        ((3000, 4000), [0.04, 0.16, 0.6]),
        ((1000, 7500), [0.16 / 7.5, 0.64 / 7.5, math.sqrt(4.32 / 7.5)]),  # a panorama, by its pixels
    ],
)
def test_how_often_and_how_large_a_picture_is_looked_at(
    shape_hw: tuple[int, int], expected: list[float]
) -> None:
    assert detector.scales(*shape_hw, CONFIG) == pytest.approx(expected)


def test_a_third_pass_finds_what_is_too_small_for_the_second() -> None:
    """A network that sees a face of 20 pixels at every cell of the finest grid that is bright."""

    def bright(pictures: np.ndarray) -> Grids:
        height, width = pictures.shape[1:3]
        at = detector.cells(height, width)
        means = pictures[0].mean(-1).reshape(height // 8, 8, width // 8, 8).mean((1, 3)).ravel()
        logits = np.full(len(at), -9, np.float32)
        logits[: len(means)] = np.where(means > 200, 3, -9)
        boxes = np.concatenate([at[:, :2] - 10, at[:, :2] + 10], 1)
        return logits[None], offsets(boxes, at)[None]

    image = np.zeros((1200, 1600, 3), np.uint8)
    image[400:408, 800:808] = 255  # one cell at full size, a sixth of one where it is 640 pixels wide
    boxes, _ = Detector(CONFIG, Says(bright))(image)
    np.testing.assert_allclose(boxes, [[793.5, 393.5, 813.5, 413.5]], atol=0.01)
    found = Detector(replace(CONFIG, fine_pixels=300_000), Says(bright))(image)
    assert len(found[0]) == 0


def test_a_face_that_fills_the_picture_is_told_by_the_coarse_pass_alone() -> None:
    def filled(height: int, width: int) -> Grids:
        at = detector.cells(height, width)
        logits = np.full(len(at), -9, np.float32)
        logits[-1] = 3 if max(height, width) == CONFIG.coarse_size else 5
        boxes = np.tile([0.1 * width, 0.1 * height, 0.9 * width, 0.9 * height], (len(at), 1))
        return logits, offsets(boxes - 0.5, at)

    boxes, scores = finds(filled)(np.zeros((640, 640, 3), np.uint8))
    np.testing.assert_allclose(boxes, [[63.5, 63.5, 575.5, 575.5]], atol=0.01)
    assert scores == pytest.approx([1 / (1 + np.exp(-3.0))], abs=1e-5)


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


def test_no_face_is_two_empty_arrays() -> None:
    boxes, scores = finds(one_face([40, 40, 80, 80], 0))(np.zeros((50, 70, 3), np.uint8), min_score=1.0)
    assert boxes.shape == (0, 4) and scores.shape == (0,)
    assert boxes.dtype == scores.dtype == np.float32


@pytest.mark.parametrize("shape_hw", [(480, 640), (640, 480), (120, 160), (64, 64)])
def test_a_box_comes_back_in_pixels_of_the_image(shape_hw: tuple[int, int]) -> None:
    # A quarter of the picture's width and height, its upper left corner in the middle of the picture.
    height, width = shape_hw
    scale = min(max(320, *shape_hw), 640) / max(shape_hw)
    truth = np.array([width / 2, height / 2, width * 3 / 4, height * 3 / 4]) - 0.5
    found = finds(one_face(((truth + 0.5) * scale - 0.5).tolist(), cell=0))
    boxes, scores = found(np.zeros((height, width, 3), np.uint8))
    np.testing.assert_allclose(boxes, truth[None], atol=0.01)
    assert scores == pytest.approx([1 / (1 + np.exp(-3.0))], abs=1e-5)


@pytest.mark.parametrize(("side", "n"), [(9.9, 0), (10.1, 1)])
@pytest.mark.parametrize("shape_hw", [(320, 320), (160, 160)])
def test_what_is_too_small_to_be_seen_is_no_face(shape_hw: tuple[int, int], side: float, n: int) -> None:
    # Pixels of the picture count, however much it is enlarged.
    side *= 320 / shape_hw[0]
    found = finds(one_face([40, 40, 40 + side, 40 + side / 2], cell=0))
    assert len(found(np.zeros((*shape_hw, 3), np.uint8))[0]) == n


def test_the_same_face_told_twice_is_one_box() -> None:
    found = finds(one_face([50.0, 50.0, 120.0, 130.0], cell=5, again=1700))
    boxes, scores = found(np.zeros((320, 320, 3), np.uint8))
    assert len(boxes) == 1 and scores[0] > 0.95


@pytest.mark.parametrize(("min_score", "n"), [(None, 1), (0.94, 1), (0.96, 0), (0.001, 1)])
def test_min_score(min_score: float | None, n: int) -> None:
    found = finds(one_face([50.0, 50.0, 120.0, 130.0], cell=5), replace(CONFIG, min_score=0.9))
    assert len(found(np.zeros((320, 320, 3), np.uint8), min_score=min_score)[0]) == n


def test_the_image_stays_as_it_is() -> None:
    image = np.full((320, 320, 3), 9, np.uint8)
    finds(one_face([40, 40, 80, 80], 0))(image, min_score=0.0)
    assert (image == 9).all()


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
    cell = int(np.linalg.norm(detector.cells(320, 320)[:, :2] - [140, 170], axis=1).argmin())
    picture = np.zeros((320, 320, 3), np.uint8)
    bias = (0.1, 0.0, 0.0, 0.0)
    plain, moved = (
        finds(one_face(box, cell), replace(CONFIG, bias=some))(picture)[0]
        for some in ((0.0,) * 4, bias)
    )
    np.testing.assert_allclose(plain - moved, [[10, 0, 10, 0]], atol=1e-3)


def test_least_logit_of_a_score() -> None:
    """Whose score is that, and unknown where all or none may have it, or more is less."""
    for calibration in ((1.0, 0.0), (1.5, -0.4)):
        for score in (0.01, 0.5, 0.99):
            least = detector.raw(score, calibration)
            assert detector.calibrated(np.array([least]), calibration)[0] == pytest.approx(score)
    assert {detector.raw(s, (1.0, 0.0)) for s in (0.0, 1.0)} == {detector.raw(0.5, (-1.0, 0.0))} == {-np.inf}
