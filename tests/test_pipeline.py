"""The whole story with networks that are known: dots are painted, and come back as keypoints."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from fkp import FaceKeypoints, Faces, detector, hub, images, network, pipeline


class DotNetwork(nn.Module):
    """Places points on the crop's bright spot, but 36 and 45, the eyes, 10 pixels left and right of it."""

    def __init__(self) -> None:
        super().__init__()
        self.config = network.KeypointConfig(crop_size=64, margin=1.5, temperature=2.0)
        self.weight = nn.Parameter(torch.zeros(1))
        self.batches: list[int] = []
        self.styles: list[str | None] = []

    def predict(self, crops: torch.Tensor, label_style: str | None = None) -> network.Prediction:
        self.styles.append(label_style)
        assert crops.dtype == torch.uint8 and crops.shape[1:] == (3, 64, 64)
        self.batches.append(len(crops))
        weights = crops[:, 0].double()
        line = torch.arange(64, dtype=torch.float64)
        total = weights.sum(dim=(1, 2))
        x, y = (weights.sum(dim=1) * line).sum(1) / total, (weights.sum(dim=2) * line).sum(1) / total
        keypoints = torch.stack([x, y], dim=-1)[:, None].repeat(1, 68, 1)
        keypoints[:, 36, 0] -= 10
        keypoints[:, 45, 0] += 10
        return network.Prediction(keypoints.float(), torch.full((len(crops), 68), 1.0))


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
                   for shape in [(4,), (), (68, 2), (68,)]))  # fmt: skip


def test_no_faces() -> None:
    faces = Faces.none()
    assert len(faces) == 0 and list(faces) == []
    assert faces.boxes.shape == (0, 4) and faces.scores.shape == (0,)
    assert faces.keypoints.shape == (0, 68, 2) and faces.keypoint_scores.shape == (0, 68)
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
    with pytest.raises(dataclasses.FrozenInstanceError):
        faces.boxes = faces.boxes  # type: ignore[misc]


def test_parts_of_faces() -> None:
    faces = some_faces(4)
    assert faces[1].scores.tolist() == [1] and faces[-1].scores.tolist() == [3]
    assert faces[np.int64(2)].keypoints.shape == (1, 68, 2)
    assert faces[1:3].scores.tolist() == [1, 2]
    assert faces[[3, 0]].boxes[:, 0].tolist() == [3, 0]
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
    assert model(dotted()).keypoint_scores == pytest.approx(np.full((2, 68), 1 - 2 / np.e), abs=1e-5)


def test_fewer_faces(model: FaceKeypoints) -> None:
    assert np.array_equal(model(dotted(), max_faces=1).boxes, BOXES[[1]])
    assert len(model(dotted(), max_faces=9)) == 2 and len(model(dotted(), max_faces=0)) == 0
    model.face_detector.asked.clear()
    model(dotted(), min_score=0.25)
    model(dotted())
    assert model.face_detector.asked == [0.25, None]


def test_label_style() -> None:
    for style in (None, "300w"):
        model = FaceKeypoints(DotNetwork(), KnownDetector(BOXES, [0.9, 0.8]), label_style=style)
        model(dotted())
        assert model.keypoint_network.styles == [style or "auto"]
    with pytest.raises(ValueError, match="label_style 'wflw' is none of auto, 300w, ytf"):
        FaceKeypoints(DotNetwork(), KnownDetector(BOXES, [0.9, 0.8]), label_style="wflw")


def test_known_boxes(model: FaceKeypoints) -> None:
    faces = model.keypoints_at(dotted(), BOXES.tolist())
    assert np.array_equal(faces.boxes, BOXES) and faces.scores.tolist() == [1, 1]
    assert faces.keypoints[:, 0] == pytest.approx(DOTS, abs=0.1)
    one = model.keypoints_at(dotted(), BOXES[0])
    assert np.array_equal(one.keypoints[0], faces.keypoints[0])
    assert model.face_detector.asked == []
    with pytest.raises(ValueError, match="is no xyxy box"):
        model.keypoints_at(dotted(), [[5, 5, 5, 5]])


def test_many_faces_go_through_in_batches(model: FaceKeypoints) -> None:
    boxes = np.tile(BOXES, (pipeline.BATCH, 1))
    faces = model.keypoints_at(dotted(), boxes)
    assert model.keypoint_network.batches == [pipeline.BATCH, pipeline.BATCH]
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


def test_saved_and_loaded_it_says_the_same(tmp_path: Path) -> None:
    config = network.KeypointConfig(crop_size=64, widths=(4, 4, 4, 8), depths=(1, 1, 1), top_down_width=4)
    faces = detector.DetectorConfig(widths=(4, 4, 4, 4, 4), neck_width=4)
    model = FaceKeypoints(network.build(config), detector.Detector(faces), metrics={"nme": 5.0})
    model.save_pretrained(tmp_path / "new" / "folder")
    loaded = FaceKeypoints.from_pretrained(tmp_path / "new" / "folder")
    assert loaded.metrics == {"nme": 5.0}
    assert not any(p.requires_grad for p in loaded.keypoint_network.parameters())
    noise = np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8)
    first, second = model.keypoints_at(noise, BOXES), loaded.keypoints_at(noise, BOXES)
    assert np.array_equal(first.keypoints, second.keypoints)
    assert np.array_equal(first.keypoint_scores, second.keypoint_scores)
    assert ((0 <= first.keypoint_scores) & (first.keypoint_scores <= 1)).all()
    assert len(model(noise, min_score=0.0, max_faces=3)) == 3
    assert np.array_equal(model(noise, min_score=0.0).boxes, loaded(noise, min_score=0.0).boxes)


def test_another_detector_cannot_be_saved(model: FaceKeypoints, tmp_path: Path) -> None:
    for save in (lambda: model.save_pretrained(tmp_path / "a"), lambda: model.push_to_hub("someone/faces")):
        with pytest.raises(hub.WeightsError, match="a KnownDetector .*cannot be saved"):
            save()
    assert not (tmp_path / "a").exists()


def test_from_pretrained_never_makes_weights_up(tmp_path: Path) -> None:
    with pytest.raises(hub.WeightsError, match="config.json does not exist"):
        FaceKeypoints.from_pretrained(tmp_path)
    with pytest.raises(hub.WeightsError, match="is neither a folder here nor a Hub id"):
        FaceKeypoints.from_pretrained("no/such/folder")
