"""The whole story with networks that are known: dots are painted, and come back as keypoints."""

import dataclasses
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fkp import FaceKeypoints, Faces, geometry, hub, images, pipeline, scheme
from tests import synthetic, tiny

EXAMPLES = Path(__file__).parents[1] / "examples"


class Dots(tiny.Says):
    """Places points on the crop's bright spot, but 36 and 45, the eyes, 10 pixels left and right of it.

    All of it `bias` pixels too far to the right, with an expected error of `sigma`, but for point 0 of three
    times that.
    """

    def __init__(self, bias: float = 0.0, sigma: float = 2.0) -> None:
        super().__init__(self.say)
        self.bias, self.sigma = bias, sigma

    def say(self, crops: np.ndarray, style: np.ndarray) -> tuple[np.ndarray, ...]:
        assert crops.shape[1:] == (64, 64, 3)
        sigmas = np.full((len(crops), 68), self.sigma, np.float32)
        sigmas[:, 0] *= 3
        return self.place(crops).astype(np.float32), sigmas, np.linspace(0, 1, 68) + 0 * sigmas

    def place(self, crops: np.ndarray) -> np.ndarray:
        weights, line = crops[..., 0].astype(float) + 1e-9, np.arange(64)
        total = weights.sum((1, 2))
        x, y = (weights.sum(1) * line).sum(1) / total, (weights.sum(2) * line).sum(1) / total
        keypoints = np.stack([x + self.bias, y], axis=-1)[:, None].repeat(68, 1)
        keypoints[:, 36, 0] -= 10
        keypoints[:, 45, 0] += 10
        return keypoints


class SameFace(Dots):
    """Sees in every crop the same tilted face, more surely from call to call."""

    points = synthetic.face(40, (30, 34)) @ np.array([[0.9, 0.3], [-0.3, 0.9]])

    def place(self, crops: np.ndarray) -> np.ndarray:
        self.sigma *= 0.9
        return np.tile(self.points, (len(crops), 1, 1))


WEIGHTS = tiny.weights()


def made(detector: object, runner: Dots | None = None, **options: object) -> FaceKeypoints:
    """A model whose keypoint network is a known one; one pass unless told otherwise."""
    model = FaceKeypoints(WEIGHTS, detector, **{"passes": 1} | options)  # type: ignore[arg-type]
    return model.with_runner(lambda _: runner or Dots())


class KnownDetector:
    """Finds the boxes it was given."""

    def __init__(self, boxes: np.ndarray, scores: np.ndarray) -> None:
        self.boxes, self.scores = np.asarray(boxes, np.float32), np.asarray(scores, np.float32)
        self.asked: list[float | None] = []

    def __call__(self, image: np.ndarray, *, min_score: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        assert image.dtype == np.uint8 and image.shape[2] == 3
        self.asked.append(min_score)
        return self.boxes, self.scores


DOTS = np.array([[40.3, 50.8], [200.0, 101.5]])
BOXES = np.array([[25, 35, 60, 70], [150, 50, 260, 150]], np.float32)


def dotted(dots: np.ndarray = DOTS, shape_hw: tuple[int, int] = (200, 300)) -> np.ndarray:
    """White dots at sub-pixel positions on black."""
    y, x = np.mgrid[: shape_hw[0], : shape_hw[1]]
    picture = sum(np.exp(-((x - dot[0]) ** 2 + (y - dot[1]) ** 2) / (2 * 2.5**2)) for dot in dots)
    return np.repeat((255 * np.clip(picture, 0, 1)).round().astype(np.uint8)[..., None], 3, axis=2)


@pytest.fixture
def model() -> FaceKeypoints:
    return made(KnownDetector(BOXES, [0.9, 0.8]))


# --- Faces ----------------------------------------------------------------------------------------------


def some_faces(n: int) -> Faces:
    """Face i has all its numbers at i."""
    return Faces(*(np.zeros((n, *shape)) + np.arange(n).reshape(-1, *[1] * len(shape))
                   for shape in [(4,), (), (68, 2), (68,), (68,)]))  # fmt: skip


def test_faces_of_a_picture_without_any() -> None:
    faces = Faces.none()
    assert len(faces) == 0 and list(faces) == []
    assert faces.boxes.shape == (0, 4) and faces.scores.shape == (0,)
    assert faces.keypoints.shape == (0, 68, 2)
    assert faces.keypoint_scores.shape == faces.sigmas.shape == (0, 68)
    for index in (slice(None), [], np.array([], int), np.zeros(0, bool)):
        assert len(faces[index]) == 0
    with pytest.raises(IndexError):
        faces[0]


def test_faces_are_checked_and_become_float32() -> None:
    faces = some_faces(2)
    for field in dataclasses.fields(faces):
        assert getattr(faces, field.name).dtype == np.float32
        wrong = {f.name: getattr(faces, f.name) for f in dataclasses.fields(faces)}
        wrong[field.name] = wrong[field.name][..., None]
        with pytest.raises(ValueError, match=r"has shape .* is needed for 2 boxes"):
            Faces(**wrong)
    with pytest.raises(ValueError, match=r"scores has shape \(3,\), \(2,\) is needed"):
        Faces(faces.boxes, np.ones(3), faces.keypoints, faces.keypoint_scores)
    unknown = Faces(faces.boxes, faces.scores, faces.keypoints, faces.keypoint_scores).sigmas
    assert unknown.shape == (2, 68) and unknown.dtype == np.float32 and np.isnan(unknown).all()
    with pytest.raises(dataclasses.FrozenInstanceError):
        faces.boxes = faces.boxes  # type: ignore[misc]


def test_parts_of_faces() -> None:
    faces = some_faces(4)
    assert faces[1].scores.tolist() == [1] and faces[-1].scores.tolist() == [3]
    assert faces[np.int64(2)].keypoints.shape == (1, 68, 2)
    assert faces[1:3].scores.tolist() == [1, 2]
    assert faces[[3, 0]].boxes[:, 0].tolist() == faces[[3, 0]].sigmas[:, 5].tolist() == [3, 0]
    assert faces[faces.scores > 1].keypoint_scores[:, 0].tolist() == [2, 3]
    assert [face.scores.item() for face in faces] == [0, 1, 2, 3]
    with pytest.raises(IndexError):
        faces[4]


# --- FaceKeypoints ----------------------------------------------------------------------------------------


def test_a_picture_without_a_face_is_a_normal_result() -> None:
    model = made(KnownDetector(np.empty((0, 4)), np.empty(0)))
    at_none = [model.keypoints_at(dotted(), boxes) for boxes in ([], np.empty((0, 4)))]
    for faces in [model(dotted()), *at_none]:
        assert isinstance(faces, Faces) and len(faces) == 0 and faces.keypoints.shape == (0, 68, 2)
    assert model.runner.batches == []


def test_keypoints_come_back_to_the_picture(model: FaceKeypoints) -> None:
    faces = model(dotted())
    # Largest first.
    assert np.array_equal(faces.boxes, BOXES[[1, 0]]) and faces.scores.tolist() == pytest.approx([0.8, 0.9])
    assert faces.keypoints[:, 0] == pytest.approx(DOTS[[1, 0]], abs=0.1)
    # 10 pixels of the crop: of 110 × 1.5 and 35 × 1.5 pixels of the picture over 64 of the crop.
    for face, side in zip(faces, (110 * 1.5, 35 * 1.5), strict=True):
        assert face.keypoints[0, 45] - face.keypoints[0, 36] == pytest.approx([20 * side / 64, 0], abs=1e-3)
    assert model.runner.batches == [2]


def test_keypoint_scores(model: FaceKeypoints) -> None:
    """Eyes 20 pixels apart, spread 1, temperature 2: 1 − (1 + r)·exp(−r) with r = 2 · 0.05 · 20 / 2 = 1."""
    assert model(dotted()).keypoint_scores[:, 1:] == pytest.approx(np.full((2, 67), 1 - 2 / np.e), abs=1e-5)


def test_sigmas_are_pixels_of_the_picture(model: FaceKeypoints) -> None:
    """Spread 1 (of point 0: 3) times temperature 2; 64 pixels of the crop are 110 × 1.5 and 35 × 1.5."""
    for sigmas, side in zip(model(dotted()).sigmas, (110 * 1.5, 35 * 1.5), strict=True):
        assert sigmas[1:] == pytest.approx(np.full(67, 2 * side / 64), rel=1e-5)
        assert sigmas[0] == pytest.approx(6 * side / 64, rel=1e-5)


def test_fewer_faces(model: FaceKeypoints) -> None:
    assert np.array_equal(model(dotted(), max_faces=1).boxes, BOXES[[1]])
    assert len(model(dotted(), max_faces=9)) == 2 and len(model(dotted(), max_faces=0)) == 0
    model.face_detector.asked.clear()
    model(dotted(), min_score=0.25)
    model(dotted())
    assert model.face_detector.asked == [0.25, None]


@pytest.mark.parametrize(
    "wrong", [{"max_faces": -1}, {"max_faces": 2.5}, {"max_faces": "3"}, {"min_score": "0.5"},
              {"min_score": float("nan")}, {"min_score": -0.1}],
)  # fmt: skip
def test_limits_that_are_none(model: FaceKeypoints, wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        model(dotted(), **wrong)


def test_detecting_alone(model: FaceKeypoints, tmp_path: Path) -> None:
    for boxes, scores in (model.detect(dotted()), model.detect(Image.fromarray(dotted()))):
        assert np.array_equal(boxes, BOXES[[1, 0]]) and scores.tolist() == pytest.approx([0.8, 0.9])
        assert boxes.dtype == scores.dtype == np.float32
    assert model.detect(dotted(), max_faces=1)[0].tolist() == [BOXES[1].tolist()]
    model.detect(dotted(), min_score=0.25)
    assert model.face_detector.asked == [None, None, None, 0.25]
    assert model.runner.batches == []
    with pytest.raises(images.ImageError, match="there is no such file"):
        model.detect(tmp_path / "no.png")


# --- Face detectors by name, and of one's own -------------------------------------------------------------


def test_a_picture_that_is_one_face_follows_the_models_options() -> None:
    class Mine(FaceKeypoints):
        pass

    whole = Mine.from_pretrained(detector="whole")
    for other in (whole.with_options(passes=1, label_style="ytf"), whole.with_runner(lambda _: Dots())):
        assert type(other.face_detector) is type(whole.face_detector)
        assert type(other) is Mine and other.face_detector.model is other
    assert whole.face_detector.model is whole
    by_another = FaceKeypoints.from_pretrained(detector=whole.face_detector)
    assert by_another.with_options(passes=1, label_style=None).face_detector.model is whole


def test_detectors_by_name() -> None:
    for name in ("dlib", "YuNet", ""):
        with pytest.raises(ValueError, match=f"no detector '{name}': choose one of fkp, yunet, whole, or"):
            FaceKeypoints.from_pretrained("no/such", detector=name)  # said before anything is looked for
    image = EXAMPLES / "four_faces.jpg"
    default, fkp = FaceKeypoints.from_pretrained(), FaceKeypoints.from_pretrained(detector="fkp")
    assert np.array_equal(default(image).boxes, fkp(image).boxes) and len(fkp(image)) == 4
    assert fkp.describe()[2].startswith("faces by fkp, on ")
    whole = FaceKeypoints.from_pretrained(detector="whole")
    assert whole.describe()[2] == "faces by a first pass of the keypoint network: every picture is one face"
    assert len(whole(image)) == 1
    # YuNet: tests/test_yunet.py


def two_by_hand(image: np.ndarray, min_score: float | None = None) -> tuple[list[list[int]], list[float]]:
    return [[25, 35, 60, 70], [150, 50, 260, 150]], [0.9, 0.8]


def test_a_detector_of_ones_own() -> None:
    model = made(two_by_hand)
    assert np.array_equal(model(dotted()).boxes, BOXES[[1, 0]])
    assert model.describe()[2] == "faces by two_by_hand"
    pretrained = FaceKeypoints.from_pretrained(detector=two_by_hand, passes=1)
    assert np.array_equal(pretrained(dotted(), max_faces=1).boxes, BOXES[[1]])


@pytest.mark.parametrize(
    ("found_by", "reason"),
    [
        (BOXES, "the face detector is a ndarray, which cannot be called"),
        (lambda image: BOXES, "<lambda> cannot be called as detector\\(image, min_score=…\\): "),
        (KnownDetector, "the face detector KnownDetector cannot be called as"),
    ],
    ids=["array", "no min_score", "a class"],
)
def test_detector_that_is_none(found_by: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        FaceKeypoints.from_pretrained(detector=found_by)
    with pytest.raises(ValueError, match=reason):
        made(found_by)


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (None, "a NoneType, where boxes"),
        ([], "a list, where boxes"),
        ([[[1, 2, 3, 4]]], "a list, where boxes"),
        ((BOXES, [0.9, 0.8], 3), "a tuple, where boxes"),
        (("a", [0.5]), "a tuple, where boxes"),
        ((BOXES[0], [0.9]), "boxes of shape (4,) and scores of shape (1,), where (n,4) and (n,) are needed"),
        ((BOXES[:, :3], [0.9, 0.8]), "boxes of shape (2, 3) and scores of shape (2,)"),
        ((BOXES, [0.9]), "boxes of shape (2, 4) and scores of shape (1,)"),
        ((BOXES, np.ones((2, 1))), "boxes of shape (2, 4) and scores of shape (2, 1)"),
        ((BOXES, []), "boxes of shape (2, 4) and scores of shape (0,)"),
        (([BOXES[0], [1, 2, NAN, 4]], [0.9, 0.8]), "the box [1.0, 2.0, nan, 4.0], which is no xyxy box"),
        (([[0, -INF, 5, 5]], [0.9]), "the box [0.0, -inf, 5.0, 5.0], which is no xyxy box"),
        (([[7, 8, 7, 20]], [0.9]), "the box [7.0, 8.0, 7.0, 20.0], which is no xyxy box with a positive"),
        (([[150, 50, 110, 100]], [0.9]), "the box [150.0, 50.0, 110.0, 100.0], which is no xyxy box"),
        ((BOXES, [0.9, NAN]), "the score nan, where 0 to 1 is needed"),
        ((BOXES, [0.9, 7]), "the score 7.0, where 0 to 1 is needed"),
    ],
)  # fmt: skip
def test_boxes_that_are_none(found: object, reason: str) -> None:
    def broken(image: np.ndarray, *, min_score: float | None = None) -> object:
        return found

    model = made(broken)  # type: ignore[arg-type]
    for run in (model, model.detect):
        with pytest.raises(ValueError) as caught:
            run(dotted())
        assert str(caught.value).startswith(f"the face detector broken gave {reason}")


@pytest.mark.parametrize("none", [([], []), (np.empty((0, 4)), np.empty(0)), (np.empty(0), np.empty((0, 1)))])
def test_detectors_that_find_nothing(none: tuple) -> None:
    model = made(lambda image, min_score: none)
    assert len(model(dotted())) == 0
    boxes, scores = model.detect(dotted())
    assert boxes.shape == (0, 4) and scores.shape == (0,)


def test_a_network_that_gives_numbers_that_are_not_finite_is_told() -> None:
    """Every number of these weights is finite: what comes of them is not."""
    tensors = dict(WEIGHTS.keypoint_tensors)
    tensors["spreads.bias"] = np.full_like(tensors["spreads.bias"], 6e4)
    model = FaceKeypoints(dataclasses.replace(WEIGHTS, keypoint_tensors=tensors), backend="torch")
    with pytest.raises(hub.WeightsError, match="not finite"):
        model.keypoints_at(dotted(), BOXES)


def test_a_detector_that_gives_numbers_that_are_not_finite_is_told() -> None:
    tensors = {
        name: array if "running" in name else np.full_like(array, 6e4)
        for name, array in WEIGHTS.detector_tensors.items()
    }
    model = FaceKeypoints(dataclasses.replace(WEIGHTS, detector_tensors=tensors), backend="torch")
    with pytest.raises(RuntimeError, match="the face detector gives numbers that are not finite"):
        model.detect(dotted())


def test_boxes_beside_the_picture_are_left_out() -> None:
    """The picture of 300×200 pixels spans −½ to 299½ and 199½."""
    beside = [[-40, 5, -1, 50], [300, 5, 330, 50], [5, -40, 50, -1], [5, 200, 50, 240]]
    across = [[-40, 5, 0, 50], [299, 5, 330, 50], [5, -40, 50, 0], [5, 199, 50, 240]]
    model = made(KnownDetector([*beside, *across], np.arange(8) / 8))
    faces = model(np.full((200, 300, 3), 50, np.uint8))
    assert sorted(faces.scores.tolist()) == [4 / 8, 5 / 8, 6 / 8, 7 / 8]
    assert np.isfinite(faces.keypoints).all()
    far = made(KnownDetector([[-1e9, -1e9, 1e9, 1e9]], [0.9]))
    with pytest.raises(ValueError, match="reaches too far beyond the picture"):
        far(dotted())


def test_label_style() -> None:
    for style in (None, "300w"):
        model = made(KnownDetector(BOXES, [0.9, 0.8]), label_style=style)
        model(dotted())
        assert model.runner.styles == [scheme.style_index(style)]
    with pytest.raises(ValueError, match="label_style 'wflw' is none of 300w, ytf"):
        made(KnownDetector(BOXES, [0.9, 0.8]), label_style="wflw")


def test_mirrored_crops_average_out_what_is_one_sided() -> None:
    for mirrored, off in ((False, 4.0), (True, 0.0)):
        model = made(KnownDetector(BOXES, [0.9, 0.8]), Dots(bias=4.0), mirrored=mirrored)
        faces = model(dotted())
        crop_pixel = 110 * 1.5 / 64
        assert faces.keypoints[0, 1] - DOTS[1] == pytest.approx([off * crop_pixel, 0], abs=0.1)
        assert model.runner.batches == [4 if mirrored else 2]
        # The right eye stays right: left and right points change places with the mirror.
        eyes = faces.keypoints[0, 45] - faces.keypoints[0, 36]
        assert eyes == pytest.approx([20 * crop_pixel, 0], abs=1e-3)
        # Point 16 stands for point 0 in the mirror.
        spreads = faces.sigmas[0, [0, 16, 1]] / (2 * crop_pixel)
        assert spreads == pytest.approx([2, 2, 1] if mirrored else [3, 1, 1], abs=1e-4)


def test_two_passes() -> None:
    model = made(KnownDetector(BOXES, [0.9, 0.8]), SameFace(sigma=8), passes=2)
    faces = model.keypoints_at(dotted(), BOXES[:1])
    points = SameFace.points
    first = geometry.CropTransform.around_box(BOXES[0], 64, 1.5)
    # The first of the quarter turns, which are tried for it is unsure, is surer; then upright from there.
    turned = geometry.CropTransform.around_box(BOXES[0], 64, 1.5, angle=90)
    second = geometry.upright(turned.to_image(points).astype(np.float32), 64, 1.5)
    assert second is not None and model.runner.batches == [1, 3, 1]
    assert np.abs(faces.keypoints[0] - first.to_image(points)).max() > 1
    np.testing.assert_allclose(faces.keypoints[0], second.to_image(points), atol=1e-3)


def test_passes_are_added_for_unsure_faces_only() -> None:
    found_by = KnownDetector(BOXES, [0.9, 0.8])
    for sigma, passes, batches in (
        (0.1, "auto", [2]),
        (0.1, 2, [2, 2]),
        (2.0, 1, [2]),
        (2.0, "auto", [2, 6, 2]),
        (2.0, 2, [2, 6, 2]),
    ):
        model = made(found_by, Dots(sigma=sigma), passes=passes)
        assert len(model(dotted())) == 2 and model.runner.batches == batches
    assert pipeline.UNSURE > made(found_by)(dotted()).keypoint_scores.mean() > pipeline.NO_FACE
    with pytest.raises(ValueError, match="passes is 3, where auto, 1, 2 are known"):
        made(found_by, passes=3)


def test_boxes_whose_points_stay_hopeless_are_dropped() -> None:
    found_by = KnownDetector(BOXES, [0.9, 0.8])
    assert len(made(found_by, Dots(sigma=50), passes="auto")(dotted())) == 0
    assert len(made(found_by, Dots(sigma=50), passes=1)(dotted())) == 2
    known = made(found_by, Dots(sigma=50), passes="auto").keypoints_at(dotted(), BOXES)
    assert len(known) == 2, "who says where faces are gets points for each"


def test_boxes_without_a_face_do_not_count_as_one_of_the_largest(model: FaceKeypoints) -> None:
    """Two large boxes lie beside what is seen: `max_faces` goes on to the next ones."""
    black = np.array([[350, 220, 560, 380], [20, 220, 160, 360]], np.float32)
    picture = dotted(shape_hw=(400, 600))

    class OnDots(Dots):
        def say(self, crops: np.ndarray, style: np.ndarray) -> tuple[np.ndarray, ...]:
            keypoints, sigmas, visibility = super().say(crops, style)
            sigmas[crops.max(axis=(1, 2, 3)) < 100] = 50
            return keypoints, sigmas, visibility

    found_by = KnownDetector(np.concatenate([BOXES, black]), [0.9] * 4)
    auto = made(found_by, OnDots(sigma=0.1), passes="auto")
    every = auto(picture)
    assert np.array_equal(every.boxes, BOXES[[1, 0]])
    for most in (1, 2, 3, 10**20):
        some, none, again = auto([picture, np.zeros_like(picture), picture], max_faces=most)
        assert some == again == every[:most] and len(none) == 0
    assert len(auto(picture, max_faces=0)) == 0


def test_a_face_that_is_found_only_in_the_turned_picture() -> None:
    """A detector of bright spots that sees nothing unless the picture stands on its side."""

    def on_its_side(image: np.ndarray, *, min_score: float | None = None) -> tuple[np.ndarray, np.ndarray]:
        if image.shape[0] < image.shape[1]:
            return np.empty((0, 4)), np.empty(0)
        y, x = np.unravel_index(image[..., 0].argmax(), image.shape[:2])
        return np.array([[x - 20, y - 15, x + 20, y + 15]]), np.array([0.9])

    picture = dotted(np.array([[200.0, 50.0]]))
    faces = made(on_its_side, Dots(sigma=0.1), passes="auto")(picture)
    np.testing.assert_allclose(faces.boxes, [[185, 30, 215, 70]])
    np.testing.assert_allclose(faces.keypoints[0, 1], [200, 50], atol=0.5)
    assert len(made(on_its_side, Dots(sigma=0.1), passes=1)(picture)) == 0


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_the_bundled_weights_find_a_face_that_is_not_upright(quarters: int) -> None:
    once, auto = (FaceKeypoints.from_pretrained(passes=passes) for passes in (1, "auto"))
    image = images.read(EXAMPLES / "eileen_collins.jpg")
    (upright,) = auto(image, max_faces=1)
    turned, points = image, upright.keypoints[0]
    for _ in range(quarters):  # counter-clockwise: what is on the right comes to the top
        points = np.stack([points[:, 1], turned.shape[1] - 1 - points[:, 0]], axis=-1)
        turned = np.ascontiguousarray(np.rot90(turned))
    (found,) = auto(turned, max_faces=1)
    eyes = geometry.inter_ocular(points)
    assert np.linalg.norm(found.keypoints[0] - points, axis=-1).mean() < 0.04 * eyes
    at_box = once.keypoints_at(turned, geometry.tight_boxes(points[None]))
    assert found.keypoint_scores.mean() > max(pipeline.UNSURE, at_box.keypoint_scores.mean())


def test_passes_auto_is_no_worse_than_one_and_finds_nothing_in_noise() -> None:
    once, auto = (FaceKeypoints.from_pretrained(passes=passes) for passes in (1, "auto"))
    for name in ("grace_hopper", "four_faces"):
        image = images.read(EXAMPLES / f"{name}.jpg")
        boxes, _ = once.detect(image)
        one, more = (model.keypoints_at(image, boxes).keypoint_scores.mean(axis=1) for model in (once, auto))
        assert (more >= one - 1e-5).all()
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    assert len(auto(noise)) == 0


# --- Several pictures -------------------------------------------------------------------------------------


def test_pictures_share_batches() -> None:
    shapes = [(200, 300), (400, 310), (220, 300)]
    some = [dotted(DOTS + i, shape) for i, shape in enumerate(shapes)]
    model = made(KnownDetector(BOXES, [0.9, 0.8]), Dots(sigma=0.1), passes="auto")
    together = model([some[0], Image.fromarray(some[1]), some[2]])
    assert model.runner.batches == [6]
    for faces, picture in zip(together, some, strict=True):
        alone = model(picture)
        for field in dataclasses.fields(faces):
            np.testing.assert_array_equal(getattr(faces, field.name), getattr(alone, field.name))
    assert model([]) == []


def test_a_list_of_photos_gives_what_each_gives_alone() -> None:
    model = FaceKeypoints.from_pretrained()
    paths = [EXAMPLES / f"{name}.jpg" for name in ("four_faces", "eileen_collins")]
    blank = np.zeros((90, 120, 3), np.uint8)
    one, none, other = model([paths[0], blank, paths[1]], max_faces=2)
    assert len(none) == 0 and len(one) == 2
    for faces, path in ((one, paths[0]), (other, paths[1])):
        alone = model(path, max_faces=2)
        np.testing.assert_array_equal(faces.boxes, alone.boxes)
        np.testing.assert_allclose(faces.keypoints, alone.keypoints, atol=0.05)


def test_known_boxes(model: FaceKeypoints) -> None:
    faces = model.keypoints_at(dotted(), BOXES.tolist())
    assert np.array_equal(faces.boxes, BOXES) and faces.scores.tolist() == [1, 1]
    assert faces.keypoints[:, 0] == pytest.approx(DOTS, abs=0.1)
    one = model.keypoints_at(dotted(), BOXES[0])
    assert np.array_equal(one.keypoints[0], faces.keypoints[0])
    assert model.face_detector.asked == []
    with pytest.raises(ValueError, match="is no xyxy box"):
        model.keypoints_at(dotted(), [[5, 5, 5, 5]])
    with pytest.raises(ValueError, match=r"the box \[0.25, 0.5, 0.5, 0.75\] is smaller than a pixel"):
        model.keypoints_at(dotted(), [[0.25, 0.5, 0.5, 0.75]])  # shares of the picture
    with pytest.raises(ValueError, match=r"the box \[.*\] reaches too far beyond the picture of 300×200"):
        model.keypoints_at(dotted(), [BOXES[0], [-1e9, -1e9, 1e9, 1e9]])


def test_batches_of_many_faces(model: FaceKeypoints) -> None:
    boxes = np.tile(BOXES, (pipeline.BATCH, 1))
    faces = model.keypoints_at(dotted(), boxes)
    assert model.runner.batches == [pipeline.BATCH, pipeline.BATCH]
    assert faces.sigmas.shape == (2 * pipeline.BATCH, 68)
    assert faces.keypoints[:, 0] == pytest.approx(np.tile(DOTS, (pipeline.BATCH, 1)), abs=0.1)


def test_pictures_given_in_any_way(model: FaceKeypoints, tmp_path: Path) -> None:
    array = dotted()
    Image.fromarray(array).save(tmp_path / "dots.png")
    expected = model(array).keypoints
    for image in (tmp_path / "dots.png", str(tmp_path / "dots.png"), Image.fromarray(array)):
        assert np.array_equal(model(image).keypoints, expected)
    with pytest.raises(images.ImageError, match="there is no such file"):
        model(tmp_path / "no.png")
    with pytest.raises(images.ImageError, match="uint8 in RGB order is needed"):
        model.keypoints_at(array.astype(np.float32), BOXES)
    assert np.array_equal(array, dotted())  # not drawn on, not changed


def test_threads_share_a_model(model: FaceKeypoints) -> None:
    shifts = np.arange(8)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda shift: model(dotted(DOTS + (shift, 0))), shifts))
    for shift, faces in zip(shifts, results, strict=True):
        assert faces.keypoints[:, 0] == pytest.approx(DOTS[[1, 0]] + (shift, 0), abs=0.1)


# --- Saving and loading ---------------------------------------------------------------------------------


def test_boxes_that_are_given_are_not_kept(model: FaceKeypoints) -> None:
    boxes = BOXES.copy()
    faces = model.keypoints_at(dotted(), boxes)
    boxes[:] = 0
    assert np.array_equal(faces.boxes, BOXES)


def test_no_boxes_are_those_of_a_picture(model: FaceKeypoints) -> None:
    for none in ([], [[]], np.empty((0, 4)), np.empty((0, 5))):
        assert len(model.keypoints_at(dotted(), none)) == 0
        with pytest.raises(images.ImageError, match="no such file"):
            model.keypoints_at("no such.jpg", none)
    with pytest.raises(ValueError, match=r"shape \(5, 0\)"):
        model.keypoints_at(dotted(), np.empty((5, 0)))


def test_saved_and_loaded_it_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever found the faces, the weights' own detector is what is saved."""
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # no graphs, which take seconds
    weights = tiny.weights(metrics={"nme": 5.0})
    own, foreign = FaceKeypoints(weights), FaceKeypoints(weights, two_by_hand)
    for model in (own, foreign):
        model.save_pretrained(tmp_path / "new" / "folder")
        loaded = FaceKeypoints.from_pretrained(tmp_path / "new" / "folder")
        assert loaded.metrics == {"nme": 5.0} and loaded.weights.folder == tmp_path / "new" / "folder"
        noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
        first, second = own.keypoints_at(noise, BOXES), loaded.keypoints_at(noise, BOXES)
        np.testing.assert_array_equal(first.keypoints, second.keypoints)
        boxes, theirs = (model.detect(noise, min_score=0.0)[0] for model in (own, loaded))
        np.testing.assert_array_equal(boxes, theirs)


def test_from_pretrained_never_makes_weights_up(tmp_path: Path) -> None:
    with pytest.raises(hub.WeightsError, match="config.json does not exist"):
        FaceKeypoints.from_pretrained(tmp_path)
    with pytest.raises(hub.WeightsError, match="is neither a folder here nor a Hub id"):
        FaceKeypoints.from_pretrained("no/such/folder")
