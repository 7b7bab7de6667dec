"""Boxes and crops with numbers that can be checked by hand, and dots that can be found again."""

import math

import cv2
import numpy as np
import pytest

from fkp import geometry, scheme
from fkp.geometry import CropTransform
from tests import synthetic


def two_faces() -> np.ndarray:
    """Keypoints (2,68,2): point i of the first at (i, 2i), of the second 100 further right."""
    first = np.stack([np.arange(68), 2 * np.arange(68)], axis=1).astype(np.float32)
    return np.stack([first, first + (100, 0)]).astype(np.float32)


# --- Boxes ----------------------------------------------------------------------------------------------


def test_boxes_of_no_face() -> None:
    none = np.empty((0, 68, 2), np.float32)
    assert geometry.tight_boxes(none).shape == (0, 4)
    assert geometry.inter_ocular(none).shape == (0,)
    assert geometry.mirror(none, 10).shape == (0, 68, 2)
    one = np.array([[0, 0, 1, 1]])
    assert geometry.iou(np.empty((0, 4)), np.empty((0, 4))).shape == (0, 0)
    assert geometry.iou(one, np.empty((0, 4))).shape == (1, 0)
    assert geometry.iou(np.empty((0, 4)), one).shape == (0, 1)


@pytest.mark.parametrize(
    "box, other, expected",
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1),
        ([0, 0, 2, 2], [2, 0, 4, 2], 0),  # they touch
        ([0, 0, 2, 2], [5, 5, 6, 6], 0),
        ([0, 0, 2, 2], [1, 0, 3, 2], 1 / 3),
        ([0, 0, 4, 4], [1, 1, 3, 3], 1 / 4),
        ([0, 0, 0, 0], [0, 0, 0, 0], 0),  # empty
        ([2, 2, 0, 0], [0, 0, 2, 2], 0),  # inside out
        ([0, 0, 0, 5], [0, 0, 1, 5], 0),
    ],
)
def test_iou(box: list[float], other: list[float], expected: float) -> None:
    assert geometry.iou(np.array([box]), np.array([other])) == pytest.approx(np.array([[expected]]))
    assert geometry.iou(np.array([other]), np.array([box])) == pytest.approx(np.array([[expected]]))


def test_the_best_of_boxes_that_overlap_stay() -> None:
    assert geometry.suppress(np.empty((0, 4)), np.empty(0), 0.5).tolist() == []
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 8], [20, 0, 30, 10], [0, 2, 10, 12]], np.float32)
    scores = np.array([0.7, 0.9, 0.3, 0.8], np.float32)
    # Box 0 overlaps box 1 by 0.8, box 3 does so by 0.5 (60 of 120).
    assert geometry.suppress(boxes, scores, 0.5).tolist() == [1, 3, 2]
    assert geometry.suppress(boxes, scores, 0.4).tolist() == [1, 2]


def test_suppression_is_that_of_torchvision() -> None:
    torch, ops = pytest.importorskip("torch"), pytest.importorskip("torchvision.ops")
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 100, (300, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 40, (300, 2))], axis=1).astype(np.float32)
    scores = rng.permutation(300).astype(np.float32)
    expected = ops.nms(torch.from_numpy(boxes), torch.from_numpy(scores), 0.4)
    assert geometry.suppress(boxes, scores, 0.4).tolist() == expected.tolist()


def test_iou_of_many() -> None:
    boxes = np.array([[0, 0, 2, 2], [10, 10, 12, 12]], np.float32)
    others = np.array([[1, 0, 3, 2], [10, 10, 12, 12], [0, 0, 2, 2]], np.float32)
    assert geometry.iou(boxes, others) == pytest.approx(np.array([[1 / 3, 0, 1], [0, 1, 0]]))


def test_tight_boxes_and_inter_ocular() -> None:
    faces = two_faces()
    assert geometry.tight_boxes(faces).tolist() == [[0, 0, 67, 134], [100, 0, 167, 134]]
    assert geometry.inter_ocular(faces) == pytest.approx([9 * math.sqrt(5)] * 2)  # points 36 and 45
    assert geometry.inter_ocular(faces[0]) == pytest.approx(9 * math.sqrt(5))


def test_mirror() -> None:
    faces = two_faces()
    mirrored = geometry.mirror(faces, width=200)
    assert mirrored[0, 45].tolist() == [199 - 36, 72]  # the left eye's corner now lies where the right's was
    assert mirrored[0, 8].tolist() == [199 - 8, 16]
    assert np.array_equal(geometry.mirror(mirrored, 200), faces)
    assert faces[0, 1].tolist() == [1, 2]  # untouched


def test_mirror_moves_points_with_the_pixels() -> None:
    picture = np.zeros((20, 30), np.uint8)
    picture[5, 7] = 255
    keypoints = np.zeros((68, 2), np.float32)
    keypoints[36] = (7, 5)
    ((y, x),) = np.argwhere(picture[:, ::-1])
    assert geometry.mirror(keypoints, 30)[45].tolist() == [x, y]


# --- Crops: numbers ---------------------------------------------------------------------------------------


def test_a_known_affine() -> None:
    """A 20-pixel box at margin 2 in a crop of 80: two pixels of the crop for one of the image."""
    transform = CropTransform.around_box(np.array([10, 20, 30, 40]), crop_size=80, margin=2.0)
    # The box's centre (20, 30) goes to the crop's, (39.5, 39.5).
    assert transform.image_to_crop == pytest.approx(np.array([[2, 0, -0.5], [0, 2, -20.5]]))
    assert transform.crop_to_image == pytest.approx(np.array([[0.5, 0, 0.25], [0, 0.5, 10.25]]))
    assert transform.size_wh == (80, 80) and not transform.mirrors
    points = np.array([[20.0, 30.0], [10.0, 20.0]])
    assert transform.to_crop(points) == pytest.approx(np.array([[39.5, 39.5], [19.5, 19.5]]))
    assert transform.to_image(transform.to_crop(points)) == pytest.approx(points)


def test_the_longer_side_counts() -> None:
    tall = CropTransform.around_box(np.array([0, 0, 10, 40]), crop_size=60, margin=1.5)
    wide = CropTransform.around_box(np.array([0, 0, 40, 10]), crop_size=60, margin=1.5)
    assert tall.image_to_crop[:, :2] == pytest.approx(np.eye(2)) == wide.image_to_crop[:, :2]


def test_rotation_is_counter_clockwise() -> None:
    """Turned by 90° to the left, what was right of the centre is above it (smaller y)."""
    transform = CropTransform.around_box(np.array([0, 0, 10, 10]), crop_size=11, margin=1.1, angle=90)
    assert transform.to_crop(np.array([[8.0, 5.0], [5.0, 2.0]])) == pytest.approx(np.array([[5, 2], [2, 5]]))


def test_scale_shift_and_mirror() -> None:
    box = np.array([0, 0, 10, 10])
    larger = CropTransform.around_box(box, 11, 1.1, scale=2.0)
    assert larger.to_crop(np.array([6.0, 5.0])) == pytest.approx([7, 5])
    shifted = CropTransform.around_box(box, 11, 1.1, shift_xy=(0.2, -0.1))
    assert shifted.to_crop(np.array([7.0, 4.0])) == pytest.approx([5, 5])
    mirrored = CropTransform.around_box(box, 11, 1.1, mirrored=True)
    assert mirrored.mirrors and mirrored.to_crop(np.array([8.0, 3.0])) == pytest.approx([2, 3])


@pytest.mark.parametrize(
    "box", [[0, 0, 0, 5], [0, 0, 5, 0], [5, 5, 0, 0], [0, 0, np.nan, 5], [0, 0, np.inf, 5], [1, 1, 1, 1]]
)
def test_a_box_that_is_none(box: list[float]) -> None:
    with pytest.raises(ValueError, match="is no xyxy box with a positive width and height"):
        CropTransform.around_box(np.array(box), 64, 1.4)


def test_points_that_are_none_and_dtypes() -> None:
    transform = CropTransform.around_box(np.array([0, 0, 10, 10]), 64, 1.4)
    assert transform.to_crop(np.empty((0, 2))).shape == (0, 2)
    assert transform.to_image(np.empty((3, 0, 68, 2))).shape == (3, 0, 68, 2)
    assert transform.to_crop(np.zeros((1, 2), np.float32)).dtype == np.float32
    assert transform.to_crop(np.zeros((1, 2), np.int64)).dtype == np.float64
    with pytest.raises(AttributeError):
        transform.size_wh = (1, 1)  # type: ignore[misc]


def test_a_mirroring_crop_swaps_left_and_right() -> None:
    faces = two_faces()
    box = geometry.tight_boxes(faces)[0]
    mirrored = CropTransform.around_box(box, 128, 1.4, mirrored=True)
    moved = mirrored.keypoints_to_crop(faces)
    assert moved[0, 36] == pytest.approx(mirrored.to_crop(faces[0, 45]))
    assert moved[:, list(scheme.FLIP)] == pytest.approx(mirrored.to_crop(faces))
    assert mirrored.keypoints_to_image(moved) == pytest.approx(faces, abs=1e-4)
    plain = CropTransform.around_box(box, 128, 1.4)
    assert np.array_equal(plain.keypoints_to_crop(faces), plain.to_crop(faces))


# --- Crops: pixels ----------------------------------------------------------------------------------------


def painted(shape_hw: tuple[int, int], at: tuple[float, float], sigma: float) -> np.ndarray:
    """A white dot, a Gaussian at a sub-pixel position, on black (H,W,3) uint8."""
    y, x = np.mgrid[: shape_hw[0], : shape_hw[1]]
    dot = 255 * np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * sigma**2))
    return np.repeat(np.round(dot).astype(np.uint8)[..., None], 3, axis=2)


def found(picture: np.ndarray) -> np.ndarray:
    """The centre of mass (2,) of what is bright."""
    weights = picture[..., 0].astype(np.float64)
    y, x = np.mgrid[: weights.shape[0], : weights.shape[1]]
    return np.array([(x * weights).sum(), (y * weights).sum()]) / weights.sum()


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("angle", [0, 17, -45, 90, 180])
@pytest.mark.parametrize("scale", [0.8, 1.0, 1.3])
def test_a_dot_is_found_and_mapped_back(angle: float, scale: float, mirrored: bool) -> None:
    dot = (143.3, 90.8)
    picture = painted((240, 320), dot, sigma=2.5)
    transform = CropTransform.around_box(
        np.array([90, 40, 190, 150]), 128, 1.4,
        angle=angle, scale=scale, shift_xy=(0.05, -0.03), mirrored=mirrored,
    )  # fmt: skip
    crop = transform.crop(picture)
    assert crop.shape == (128, 128, 3) and crop.dtype == np.uint8
    assert transform.to_crop(np.array(dot)) == pytest.approx(found(crop), abs=0.1)
    assert transform.to_image(found(crop)) == pytest.approx(np.array(dot), abs=0.1)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("side", [300, 777, 2000])
def test_a_dot_is_found_in_a_crop_that_shrinks(side: int, mirrored: bool) -> None:
    """Within a tenth of a pixel of the crop: from 300 pixels a mean over cells comes first."""
    dot = (0.61 * side, 0.47 * side)
    picture = painted((side + 40, side + 60), dot, sigma=side / 50)
    transform = CropTransform.around_box(
        np.array([10, 20, side, side]), 128, 1.1, angle=20, shift_xy=(0.02, 0), mirrored=mirrored
    )
    shrink = 1 / math.sqrt(abs(np.linalg.det(transform.image_to_crop[:, :2])))
    assert shrink > 2
    at = found(transform.crop(picture))
    assert transform.to_crop(np.array(dot)) == pytest.approx(at, abs=0.1)
    assert transform.to_image(at) == pytest.approx(np.array(dot), abs=0.1 * shrink)


def test_shrinking_averages_instead_of_skipping() -> None:
    """A fine chequerboard becomes grey, not a pattern."""
    board = np.indices((800, 800)).sum(axis=0) % 2 * 255
    picture = np.repeat(board.astype(np.uint8)[..., None], 3, axis=2)
    crop = CropTransform.around_box(np.array([100, 100, 700, 700]), 64, 1.0, angle=10).crop(picture)
    assert np.abs(crop.astype(int) - 127).max() <= 2


def test_an_exact_crop_copies_pixels() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (50, 60, 3), np.uint8)
    # Pixel centres 10..29: the box's edges are half a pixel further out.
    transform = CropTransform.around_box(np.array([9.5, 19.5, 29.5, 39.5]), 20, 1.0)
    assert np.array_equal(transform.crop(picture), picture[20:40, 10:30])
    mirrored = CropTransform.around_box(np.array([9.5, 19.5, 29.5, 39.5]), 20, 1.0, mirrored=True)
    assert np.array_equal(mirrored.crop(picture), picture[20:40, 10:30][:, ::-1])


@pytest.mark.parametrize("side", [40, 400])
def test_beyond_the_edge_it_is_black(side: int) -> None:
    picture = np.full((side, side, 3), 200, np.uint8)
    box = np.array([0, 0, side, side])
    corner = CropTransform.around_box(box, 64, 1.0, shift_xy=(0.5, 0.5)).crop(picture)
    assert (corner[:30, :30] == 200).all() and (corner[34:] == 0).all() and (corner[:, 34:] == 0).all()
    outside = CropTransform.around_box(box + 9000, 64, 1.0)
    assert (outside.crop(picture) == 0).all()


def test_a_picture_wider_than_opencv_takes() -> None:
    dot = (33_900.4, 30.2)
    picture = np.zeros((64, 34_000, 3), np.uint8)
    picture[:, 33_800:] = painted((64, 200), (100.4, 30.2), sigma=2.5)
    crop = CropTransform.around_box(np.array([33_860, 0, 33_920, 60]), 96, 1.5, angle=5)
    assert crop.to_image(found(crop.crop(picture))) == pytest.approx(np.array(dot), abs=0.1)


def test_grey_pictures_and_the_input_is_left_alone() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (700, 500), np.uint8)
    before = picture.copy()
    transform = CropTransform.around_box(np.array([20, 20, 420, 420]), 96, 1.3)
    colour = transform.crop(np.repeat(picture[..., None], 3, axis=2))
    assert np.array_equal(transform.crop(picture), colour[..., 0])
    assert np.array_equal(picture, before)


def test_as_opencv_counts() -> None:
    """`image_to_crop` is what cv2.warpAffine takes, with integers at pixel centres."""
    picture = painted((100, 100), (40, 60), sigma=2)
    transform = CropTransform.around_box(np.array([20, 20, 80, 80]), 64, 1.0, angle=30)
    assert np.array_equal(transform.crop(picture), cv2.warpAffine(picture, transform.image_to_crop, (64, 64)))


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_boxes_are_turned_back(quarters: int) -> None:
    picture = np.zeros((20, 30), np.uint8)
    picture[4:9, 10:22] = 1
    y, x = np.nonzero(np.rot90(picture, quarters))
    box = np.array([[x.min(), y.min(), x.max(), y.max()]], np.float32)
    assert geometry.turned_back(box, quarters, (20, 30, 3)).tolist() == [[10, 4, 21, 8]]


@pytest.mark.parametrize("angle", [0.0, 35.0, -80.0, 170.0])
def test_upright_crop_shows_a_turned_face_as_the_upright_one(angle: float) -> None:
    face = synthetic.face(100, (160, 140))
    face[:17] += (5, 8)  # not the same on both sides
    turned = geometry.CropTransform.around_box(np.array([0, 0, 50, 50]), 200, 2.2, angle=angle).to_crop(face)
    ours, theirs = (geometry.upright(points, 112, 1.3) for points in (turned, face))
    assert ours is not None and theirs is not None and ours.size_wh == (112, 112)
    np.testing.assert_allclose(ours.to_crop(turned), theirs.to_crop(face), atol=1e-6)
    points = np.array(scheme.MEAN_FACE, float)
    mean = geometry.upright(points, 112, 1.3)
    framed = CropTransform.around_box(geometry.tight_boxes(points), 112, 1.3)
    assert mean is not None
    np.testing.assert_allclose(mean.image_to_crop, framed.image_to_crop, atol=1e-6)


def test_upright_crop_of_no_face() -> None:
    assert geometry.upright(np.full((68, 2), 7.0), 112, 1.3) is None


def test_crop_is_what_opencv_makes_of_the_whole_picture() -> None:
    """From the part that is needed, by way of four channels: no pixel differs by more than a rounding."""
    rng = np.random.default_rng(0)
    image = cv2.GaussianBlur(rng.integers(0, 256, (240, 320, 3), np.uint8), (0, 0), 1.5)
    differing = []
    for _ in range(60):
        (x, y), side = rng.uniform(-60, 300, 2), rng.uniform(20, 150)
        transform = CropTransform.around_box(
            np.array([x, y, x + side, y + 0.9 * side]), 112, 1.3,
            angle=float(rng.choice([0, 90, 180, 33])), mirrored=bool(rng.integers(2)),
        )  # fmt: skip
        whole = cv2.warpAffine(image, transform.image_to_crop, (112, 112), flags=cv2.INTER_LINEAR)
        off = np.abs(transform.crop(image).astype(int) - whole)
        assert off.max() <= 1
        differing.append((off > 0).mean())
        grey = transform.crop(image[..., 0].copy())
        assert np.abs(grey.astype(int) - whole[..., 0]).max() <= 1
    assert np.mean(differing) < 1e-3


@pytest.mark.parametrize("side", [12, 40, 150, 390, 900])
def test_a_rounded_crop_is_the_same_to_the_last_pixel_whoever_samples_it(side: int) -> None:
    """In OpenCV with and without Intel's library and vector instructions, and in float64 here."""
    rng = np.random.default_rng(side)
    image = rng.integers(0, 256, (900, 1000, 3), np.uint8)
    with_ipp = cv2.ipp.useIPP()
    for angle in (0, 90, 180, *rng.uniform(-180, 180, 5)):
        x, y = rng.uniform(-0.2 * side, 900 - 0.8 * side, 2)
        box = np.array([x, y, x + side, y + 0.9 * side])
        crop = CropTransform.around_box(box, 112, 1.3, angle=float(angle)).rounded()
        ways = []
        try:
            for ipp, optimised in [(with_ipp, True), (False, True), (False, False)]:
                cv2.ipp.setUseIPP(ipp)
                cv2.setUseOptimized(optimised)
                ways.append(crop.crop(image))
        finally:
            cv2.setUseOptimized(True)
            cv2.ipp.setUseIPP(with_ipp)
        assert np.array_equal(ways[0], ways[1]) and np.array_equal(ways[0], ways[2])
        if side < 160:  # else a mean over cells comes first
            assert np.array_equal(ways[0], sampled(image, crop.crop_to_image, 112))


def sampled(image: np.ndarray, crop_to_image: np.ndarray, size: int) -> np.ndarray:
    """Linear between pixels, black beyond the edge, halves to the even number."""
    y, x = np.mgrid[:size, :size]
    at = np.stack([x, y, np.ones_like(x)], axis=-1) @ crop_to_image.T
    at = np.round(at * 128) / 128  # where it lies but for the last bit of two inversions
    framed = np.pad(image.astype(float), ((1, 1), (1, 1), (0, 0)))
    before = np.floor(at).astype(int).clip(-1, np.array(image.shape[1::-1]) - 1)
    left, top = np.moveaxis(before + 1, -1, 0)
    right, below = np.moveaxis((at - before).clip(0, 1), -1, 0)[..., None]
    upper, lower = ((1 - right) * framed[row, left] + right * framed[row, left + 1] for row in (top, top + 1))
    return np.rint((1 - below) * upper + below * lower).astype(np.uint8)
