"""The whole story with networks that are known: dots are painted, and come back as keypoints."""

import dataclasses
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fkp import FaceKeypoints, Faces, detector, geometry, hub, images, pipeline, runtime, scheme
from fkp.networks import keypoint_net
from tests import synthetic

EXAMPLES = Path(__file__).parents[1] / "examples"


class DotNetwork(nn.Module):
    """Places points on the crop's bright spot, but 36 and 45, the eyes, 10 pixels left and right of it.

    All of it `bias` pixels too far to the right, with a spread of 1, but for point 0 of 3.
    """

    def __init__(self, bias: float = 0.0) -> None:
        super().__init__()
        self.config = keypoint_net.KeypointConfig(crop_size=64, margin=1.5, temperatures=(2.0, 2.0, 2.0))
        self.codec = AsTheyAre()
        self.weight = nn.Parameter(torch.zeros(1))
        self.bias = bias
        self.batches: list[int] = []
        self.styles: list[str] = []

    def __deepcopy__(self, memo: dict) -> "DotNetwork":
        return self  # what runs is to leave its traces here

    def forward(self, crops: torch.Tensor, styles: torch.Tensor) -> keypoint_net.RawOutput:
        assert crops.dtype == torch.uint8 and crops.shape[1:] == (3, 64, 64)
        self.styles += [scheme.LABEL_STYLES[style] for style in styles.unique()]
        self.batches.append(len(crops))
        spreads = torch.ones(len(crops), 68)
        spreads[:, 0] = 3
        return keypoint_net.RawOutput(self.place(crops), spreads.log())

    def place(self, crops: torch.Tensor) -> torch.Tensor:
        weights = crops[:, 0].double()
        line = torch.arange(64, dtype=torch.float64)
        total = weights.sum(dim=(1, 2))
        x, y = (weights.sum(dim=1) * line).sum(1) / total, (weights.sum(dim=2) * line).sum(1) / total
        keypoints = torch.stack([x + self.bias, y], dim=-1)[:, None].repeat(1, 68, 1)
        keypoints[:, 36, 0] -= 10
        keypoints[:, 45, 0] += 10
        return keypoints.float()


class AsTheyAre:
    """A codec of pixels."""

    def decode(self, outputs: torch.Tensor) -> torch.Tensor:
        return outputs


class SameFaceNetwork(DotNetwork):
    """Sees in every crop the same tilted face."""

    points = synthetic.face(40, (30, 34)) @ np.array([[0.9, 0.3], [-0.3, 0.9]])

    def place(self, crops: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(self.points).float().expand(len(crops), 68, 2)


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
    return FaceKeypoints(DotNetwork(), KnownDetector(BOXES, [0.9, 0.8]))


# --- Faces ----------------------------------------------------------------------------------------------


def some_faces(n: int) -> Faces:
    """Face i has all its numbers at i."""
    return Faces(*(np.zeros((n, *shape)) + np.arange(n).reshape(-1, *[1] * len(shape))
                   for shape in [(4,), (), (68, 2), (68,), (68,)]))  # fmt: skip


def test_no_faces() -> None:
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
    model = FaceKeypoints(DotNetwork(), KnownDetector(np.empty((0, 4)), np.empty(0)))
    at_none = [model.keypoints_at(dotted(), boxes) for boxes in ([], np.empty((0, 4)))]
    for faces in [model(dotted()), *at_none]:
        assert isinstance(faces, Faces) and len(faces) == 0 and faces.keypoints.shape == (0, 68, 2)
    assert model.keypoint_network.batches == []


def test_keypoints_come_back_to_the_picture(model: FaceKeypoints) -> None:
    faces = model(dotted())
    # Largest first.
    assert np.array_equal(faces.boxes, BOXES[[1, 0]]) and faces.scores.tolist() == pytest.approx([0.8, 0.9])
    assert faces.keypoints[:, 0] == pytest.approx(DOTS[[1, 0]], abs=0.1)
    # 10 pixels of the crop: of 110 × 1.5 and 35 × 1.5 pixels of the picture over 64 of the crop.
    for face, side in zip(faces, (110 * 1.5, 35 * 1.5), strict=True):
        assert face.keypoints[0, 45] - face.keypoints[0, 36] == pytest.approx([20 * side / 64, 0], abs=1e-3)
    assert model.keypoint_network.batches == [2]


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


def test_detecting_alone(model: FaceKeypoints, tmp_path: Path) -> None:
    for boxes, scores in (model.detect(dotted()), model.detect(Image.fromarray(dotted()))):
        assert np.array_equal(boxes, BOXES[[1, 0]]) and scores.tolist() == pytest.approx([0.8, 0.9])
        assert boxes.dtype == scores.dtype == np.float32
    assert model.detect(dotted(), max_faces=1)[0].tolist() == [BOXES[1].tolist()]
    model.detect(dotted(), min_score=0.25)
    assert model.face_detector.asked == [None, None, None, 0.25]
    assert model.keypoint_network.batches == []
    with pytest.raises(images.ImageError, match="there is no such file"):
        model.detect(tmp_path / "no.png")


# --- Face detectors by name, and of one's own -------------------------------------------------------------


def test_detectors_by_name() -> None:
    for name in ("dlib", "YuNet", ""):
        with pytest.raises(ValueError, match=f"no detector '{name}': choose one of fkp, yunet, whole, or"):
            FaceKeypoints.from_pretrained("no/such", detector=name)  # said before anything is looked for
    image = EXAMPLES / "four_faces.jpg"
    default, fkp = FaceKeypoints.from_pretrained(), FaceKeypoints.from_pretrained(detector="fkp")
    assert np.array_equal(default(image).boxes, fkp(image).boxes) and len(fkp(image)) == 4
    assert fkp.describe()[2].startswith("faces by fkp, on ")
    whole = FaceKeypoints.from_pretrained(detector="whole")
    assert whole.describe()[2] == "faces by a first look of the keypoint network: every picture is one face"
    assert len(whole(image)) == 1
    # YuNet: tests/test_yunet.py


def two_by_hand(image: np.ndarray, min_score: float | None = None) -> tuple[list[list[int]], list[float]]:
    return [[25, 35, 60, 70], [150, 50, 260, 150]], [0.9, 0.8]


def test_a_detector_of_ones_own() -> None:
    model = FaceKeypoints(DotNetwork(), two_by_hand)
    assert np.array_equal(model(dotted()).boxes, BOXES[[1, 0]])
    assert model.describe()[2] == "faces by two_by_hand"
    pretrained = FaceKeypoints.from_pretrained(detector=two_by_hand)
    assert np.array_equal(pretrained(dotted(), max_faces=1).boxes, BOXES[[1]])


@pytest.mark.parametrize(
    ("found_by", "reason"),
    [
        (None, "the face detector is a NoneType, which cannot be called with a picture"),
        (BOXES, "the face detector is a ndarray, which cannot be called"),
        (lambda image: BOXES, "<lambda> cannot be called as detector\\(image, min_score=…\\): "),
        (KnownDetector, "the face detector KnownDetector cannot be called as"),
    ],
    ids=["none", "array", "no min_score", "a class"],
)
def test_what_is_no_detector(found_by: object, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        FaceKeypoints.from_pretrained(detector=found_by)
    with pytest.raises(ValueError, match=reason):
        FaceKeypoints(DotNetwork(), found_by)


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
    ],
)  # fmt: skip
def test_what_are_no_boxes(found: object, reason: str) -> None:
    def broken(image: np.ndarray, *, min_score: float | None = None) -> object:
        return found

    model = FaceKeypoints(DotNetwork(), broken)  # type: ignore[arg-type]
    for run in (model, model.detect):
        with pytest.raises(ValueError) as caught:
            run(dotted())
        assert str(caught.value).startswith(f"the face detector broken gave {reason}")


@pytest.mark.parametrize("none", [([], []), (np.empty((0, 4)), np.empty(0)), (np.empty(0), np.empty((0, 1)))])
def test_every_way_to_find_nothing(none: tuple) -> None:
    model = FaceKeypoints(DotNetwork(), lambda image, min_score: none)
    assert len(model(dotted())) == 0
    boxes, scores = model.detect(dotted())
    assert boxes.shape == (0, 4) and scores.shape == (0,)


def test_boxes_beside_the_picture_are_left_out() -> None:
    """The picture of 300×200 pixels spans −½ to 299½ and 199½."""
    beside = [[-40, 5, -1, 50], [300, 5, 330, 50], [5, -40, 50, -1], [5, 200, 50, 240]]
    across = [[-40, 5, 0, 50], [299, 5, 330, 50], [5, -40, 50, 0], [5, 199, 50, 240]]
    model = FaceKeypoints(DotNetwork(), KnownDetector([*beside, *across], np.arange(8) / 8))
    faces = model(np.full((200, 300, 3), 50, np.uint8))
    assert sorted(faces.scores.tolist()) == [4 / 8, 5 / 8, 6 / 8, 7 / 8]
    assert np.isfinite(faces.keypoints).all()
    far = FaceKeypoints(DotNetwork(), KnownDetector([[-1e9, -1e9, 1e9, 1e9]], [0.9]))
    with pytest.raises(ValueError, match="reaches too far beyond the picture"):
        far(dotted())


def test_label_style() -> None:
    for style in (None, "300w"):
        model = FaceKeypoints(DotNetwork(), KnownDetector(BOXES, [0.9, 0.8]), label_style=style)
        model(dotted())
        assert model.keypoint_network.styles == [style or "300w"]
    with pytest.raises(ValueError, match="label_style 'wflw' is none of auto, 300w, ytf"):
        FaceKeypoints(DotNetwork(), KnownDetector(BOXES, [0.9, 0.8]), label_style="wflw")


def test_mirrored_crops_average_out_what_is_one_sided() -> None:
    for mirrored, off in ((False, 4.0), (True, 0.0)):
        model = FaceKeypoints(DotNetwork(bias=4.0), KnownDetector(BOXES, [0.9, 0.8]), mirrored=mirrored)
        faces = model(dotted())
        crop_pixel = 110 * 1.5 / 64
        assert faces.keypoints[0, 1] - DOTS[1] == pytest.approx([off * crop_pixel, 0], abs=0.1)
        assert model.keypoint_network.batches == [4 if mirrored else 2]
        # The right eye stays right: left and right points change places with the mirror.
        eyes = faces.keypoints[0, 45] - faces.keypoints[0, 36]
        assert eyes == pytest.approx([20 * crop_pixel, 0], abs=1e-3)
        # Point 16 stands for point 0 in the mirror.
        spreads = faces.sigmas[0, [0, 16, 1]] / (2 * crop_pixel)
        assert spreads == pytest.approx([2, 2, 1] if mirrored else [3, 1, 1], abs=1e-4)


@pytest.mark.parametrize("angle", [0.0, 35.0, -80.0, 170.0])
def test_a_straightened_crop_is_that_of_the_upright_face(angle: float) -> None:
    face = synthetic.face(100, (160, 140))
    face[:17] += (5, 8)  # not the same on both sides
    upright = geometry.CropTransform.around_box(geometry.tight_boxes(face), 112, 1.3)
    turn = geometry.CropTransform.around_box(np.array([0, 0, 50, 50]), 200, 2.2, angle=angle)
    turned = turn.to_crop(face)
    first = geometry.CropTransform.around_box(geometry.tight_boxes(turned), 112, 1.3)
    found = pipeline.straightened(first, turned, 1.3)
    assert found.size_wh == (112, 112)
    assert found.to_crop(turned) == pytest.approx(upright.to_crop(face), abs=1e-6)


def test_two_passes() -> None:
    model = FaceKeypoints(SameFaceNetwork(), KnownDetector(BOXES, [0.9, 0.8]), passes=2)
    faces = model.keypoints_at(dotted(), BOXES[:1])
    points = SameFaceNetwork.points
    first = geometry.CropTransform.around_box(BOXES[0], 64, 1.5)
    second = pipeline.straightened(first, first.to_image(points), 1.5)
    assert faces.keypoints[0] == pytest.approx(second.to_image(points), abs=1e-3)
    assert np.abs(faces.keypoints[0] - first.to_image(points)).max() > 1
    # Scores are low, so that three turns are tried; they score the same, so that none is taken.
    assert model.keypoint_network.batches == [1] * 5
    side = np.sqrt(abs(np.linalg.det(second.crop_to_image[:, :2])))
    assert faces.sigmas[0, 1] == pytest.approx(2 * side, rel=1e-4)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_two_passes_find_the_points_of_a_face_that_is_not_upright(quarters: int) -> None:
    once, twice = (FaceKeypoints.from_pretrained(passes=passes) for passes in (1, 2))
    image = images.read(EXAMPLES / "eileen_collins.jpg")
    upright = twice(image, max_faces=1)
    turned, points = image, upright.keypoints[0]
    for _ in range(quarters):  # counter-clockwise: what is on the right comes to the top
        points = np.stack([points[:, 1], turned.shape[1] - 1 - points[:, 0]], axis=-1)
        turned = np.ascontiguousarray(np.rot90(turned))
    box = geometry.tight_boxes(points[None])
    eyes = geometry.inter_ocular(points)
    found, missed = twice.keypoints_at(turned, box), once.keypoints_at(turned, box)
    assert np.linalg.norm(found.keypoints[0] - points, axis=-1).mean() < 0.02 * eyes
    assert np.linalg.norm(missed.keypoints[0] - points, axis=-1).mean() > 0.2 * eyes
    assert missed.keypoint_scores.mean() < 0.3 < 0.6 < found.keypoint_scores.mean()


def test_a_second_pass_needs_a_face_in_the_first(model: FaceKeypoints) -> None:
    """Points on a line frame nothing: the first crop is looked at again."""
    twice = FaceKeypoints(model.keypoint_network, model.face_detector, passes=2)
    assert np.array_equal(twice(dotted()).keypoints, model(dotted()).keypoints)
    with pytest.raises(ValueError, match="passes is 3, where 1 or 2 is needed"):
        FaceKeypoints(DotNetwork(), model.face_detector, passes=3)


def test_backend(model: FaceKeypoints, tmp_path: Path) -> None:
    assert model.backend == "torch"
    weights, keypoints, faces = model.describe()
    assert weights == "weights from memory, label style 300w"
    assert keypoints.startswith("keypoints on torch 2") and faces == "faces by KnownDetector"
    with pytest.raises(runtime.BackendError, match="no graph for onnxruntime"):
        FaceKeypoints(DotNetwork(), model.face_detector, backend="onnxruntime")


def test_known_boxes(model: FaceKeypoints) -> None:
    faces = model.keypoints_at(dotted(), BOXES.tolist())
    assert np.array_equal(faces.boxes, BOXES) and faces.scores.tolist() == [1, 1]
    assert faces.keypoints[:, 0] == pytest.approx(DOTS, abs=0.1)
    one = model.keypoints_at(dotted(), BOXES[0])
    assert np.array_equal(one.keypoints[0], faces.keypoints[0])
    assert model.face_detector.asked == []
    with pytest.raises(ValueError, match="is no xyxy box"):
        model.keypoints_at(dotted(), [[5, 5, 5, 5]])
    with pytest.raises(ValueError, match=r"the box \[.*\] reaches too far beyond the picture of 300×200"):
        model.keypoints_at(dotted(), [BOXES[0], [-1e9, -1e9, 1e9, 1e9]])


@pytest.mark.parametrize("mirrored", [False, True])
def test_points_are_given_where_labels_lie(model: FaceKeypoints, mirrored: bool) -> None:
    plain = model.keypoints_at(dotted(), BOXES)
    leaning = FaceKeypoints(DotNetwork(), KnownDetector(BOXES, [0.9, 0.8]), mirrored=mirrored)
    config = dataclasses.replace(model.keypoint_network.config, leans=(0.0, 0.0, 0.01, 0.03, -0.02, 0.04))
    leaning.keypoint_network.config = config
    sides = (BOXES[:, 2:] - BOXES[:, :2]).max(axis=1)
    for style, lean in (("300w", (0.01, 0.03)), ("ytf", (-0.02, 0.04))):
        leaning.label_style = style
        away = leaning.keypoints_at(dotted(), BOXES).keypoints - plain.keypoints
        np.testing.assert_allclose(away[:, 0], sides[:, None] * lean, atol=1e-3)


def test_many_faces_go_through_in_batches(model: FaceKeypoints) -> None:
    boxes = np.tile(BOXES, (pipeline.BATCH, 1))
    faces = model.keypoints_at(dotted(), boxes)
    assert model.keypoint_network.batches == [pipeline.BATCH, pipeline.BATCH]
    assert faces.sigmas.shape == (2 * pipeline.BATCH, 68)
    assert faces.keypoints[:, 0] == pytest.approx(np.tile(DOTS, (pipeline.BATCH, 1)), abs=0.1)


def test_any_way_to_give_a_picture(model: FaceKeypoints, tmp_path: Path) -> None:
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


def test_several_threads(model: FaceKeypoints) -> None:
    shifts = np.arange(8)
    with ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda shift: model(dotted(DOTS + (shift, 0))), shifts))
    for shift, faces in zip(shifts, results, strict=True):
        assert faces.keypoints[:, 0] == pytest.approx(DOTS[[1, 0]] + (shift, 0), abs=0.1)


# --- Saving and loading ---------------------------------------------------------------------------------


def test_saved_and_loaded_it_says_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # no graphs, which take seconds
    config = keypoint_net.KeypointConfig(
        crop_size=64, widths=(4, 4, 4, 8), depths=(1, 1, 1), top_down_width=4
    )
    faces = detector.DetectorConfig(widths=(4, 4, 4, 4, 4), neck_width=4)
    model = FaceKeypoints(keypoint_net.build(config), detector.Detector(faces), metrics={"nme": 5.0})
    model.save_pretrained(tmp_path / "new" / "folder")
    loaded = FaceKeypoints.from_pretrained(tmp_path / "new" / "folder")
    assert loaded.metrics == {"nme": 5.0} and loaded.source == tmp_path / "new" / "folder"
    assert not any(p.requires_grad for p in loaded.keypoint_network.parameters())
    loaded.save_pretrained(tmp_path / "again")
    again = FaceKeypoints.from_pretrained(tmp_path / "again")
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    first, second, third = (m.keypoints_at(noise, BOXES) for m in (model, loaded, again))
    # The first file rounds to float16, the second has nothing left to round.
    assert first.keypoints == pytest.approx(second.keypoints, abs=0.1)
    assert np.array_equal(second.keypoints, third.keypoints)
    assert np.array_equal(second.keypoint_scores, third.keypoint_scores)
    assert ((0 <= first.keypoint_scores) & (first.keypoint_scores <= 1)).all()
    assert len(loaded(noise, min_score=0.0, max_faces=3)) == 3
    assert np.array_equal(loaded(noise, min_score=0.0).boxes, again(noise, min_score=0.0).boxes)


def test_with_another_detector_the_weights_own_one_is_saved(
    model: FaceKeypoints, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for save in (lambda: model.save_pretrained(tmp_path / "a"), lambda: model.push_to_hub("someone/faces")):
        with pytest.raises(hub.WeightsError, match="a KnownDetector .*cannot be saved without fkp's own"):
            save()
    assert not (tmp_path / "a").exists()
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # no graphs, which take seconds
    expected = FaceKeypoints.from_pretrained()(EXAMPLES / "four_faces.jpg").boxes
    saved, write = [], hub.save

    def save_and_note(folder: Path, *networks: object, **how: object) -> None:
        saved.append(networks[1])
        write(folder, *networks, **how)

    monkeypatch.setattr(hub, "save", save_and_note)
    for place, other in enumerate(("whole", two_by_hand)):
        foreign = FaceKeypoints.from_pretrained(detector=other)
        foreign.save_pretrained(tmp_path / str(place))
        again = FaceKeypoints.from_pretrained(tmp_path / str(place), backend="torch")
        assert again(EXAMPLES / "four_faces.jpg").boxes == pytest.approx(expected, abs=0.1)
    assert [type(own) for own in saved] == [detector.Detector] * 2
    named = FaceKeypoints(model.keypoint_network, model.face_detector, own_detector=saved[0])
    named.save_pretrained(tmp_path / "named")
    assert saved[2] is saved[0]


def test_from_pretrained_never_makes_weights_up(tmp_path: Path) -> None:
    with pytest.raises(hub.WeightsError, match="config.json does not exist"):
        FaceKeypoints.from_pretrained(tmp_path)
    with pytest.raises(hub.WeightsError, match="is neither a folder here nor a Hub id"):
        FaceKeypoints.from_pretrained("no/such/folder")
