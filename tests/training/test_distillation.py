import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from fkp import data, geometry, scheme
from fkp.config import KEYPOINTNET
from fkp.networks import keypoint_net
from fkp.training import distillation
from fkp.training.augmentation import FaceCrop
from fkp.training.run_folder import CheckpointError
from tests import synthetic

RIGHT, LEFT = scheme.RIGHT_EYE_OUTER_CORNER, scheme.LEFT_EYE_OUTER_CORNER


class Eyes(keypoint_net.KeypointNetwork):
    """A teacher that knows two bright spots, the one on the left as the right eye, which is sure to be
    visible; style number s lies 2s² pixels to the right."""

    def __init__(self) -> None:
        super().__init__(KEYPOINTNET)
        self.codec = keypoint_net.CoordinateCodec(KEYPOINTNET.crop_size)
        self.anchor = torch.nn.Parameter(torch.zeros(1))

    def forward(self, crops: torch.Tensor, styles: torch.Tensor) -> keypoint_net.RawOutput:
        said = torch.zeros(len(crops), 68, 2)
        for face, picture, style in zip(said, crops, styles, strict=True):
            y, x = np.nonzero(picture[0].numpy() > 60)
            left = x < (x.min() + x.max()) / 2
            for point, side in ((RIGHT, left), (LEFT, ~left)):
                face[point] = torch.tensor([x[side].mean() + 2.0 * style**2, y[side].mean()])
        visibility = torch.zeros(len(crops), 68)
        visibility[:, RIGHT] = 20
        return keypoint_net.RawOutput(self.codec.encode(said), torch.zeros(len(crops), 68), visibility)


def picture() -> np.ndarray:
    image = np.zeros((160, 180, 3), np.uint8)
    for x, y in ((60, 70), (110, 80)):
        image[y - 3 : y + 4, x - 3 : x + 4] = 255
    return image


def test_a_teacher_says_where_points_are_in_the_picture() -> None:
    crops, boxes = np.stack([picture()] * 3), np.array([[40.0, 40, 130, 130]] * 3)
    styles = np.array([scheme.style_index(style) for style in ("300w", "ytf", "merl")])
    said = distillation.pseudo_labels(Eyes(), crops, boxes, styles, np.arange(3), labelled=3)
    assert said.keypoints.shape == (3, 2, 68, 2) and said.keypoints.dtype == np.float32
    again = distillation.pseudo_labels(Eyes(), crops, boxes, styles, np.arange(3), labelled=3)
    np.testing.assert_array_equal(said.keypoints, again.keypoints)
    # Views are turned, moved and mirrored; said of the picture, the eyes' heights are the same.
    spots = np.array([[60, 70], [110, 80]])
    unmoved = said.keypoints[:, :, [RIGHT, LEFT]] - spots
    assert np.abs(unmoved[..., 1]).max() < 2 * 3**2
    # Where labels teach the default style, that is the label's own; elsewhere the mean of the two that do.
    np.testing.assert_allclose(said.keypoints[[0, 2], 0], said.keypoints[[0, 2], 1], atol=1e-3)
    assert not np.allclose(said.keypoints[1, 0], said.keypoints[1, 1])
    assert said.visibility[:, [RIGHT, LEFT]].min() >= 0.5 and said.sure.all()


def test_the_eyes_of_an_unstyled_face(tmp_path) -> None:
    """Points in the picture, whatever the view: of a teacher without styles exact to half a pixel."""
    teacher, boxes = Eyes(), np.array([[40.0, 40, 130, 130]])
    view = FaceCrop(KEYPOINTNET.crop_size, KEYPOINTNET.margin, 20, (0.9, 1.1), 0.05, mirror=0.5)
    generator = torch.Generator().manual_seed(0)
    for _ in range(6):
        views = [view.draw(boxes[0], generator)]
        points, sigmas, visible = distillation._answers(
            teacher, picture()[None], np.array([0]), views, np.array([0])
        )
        np.testing.assert_allclose(points[0, [RIGHT, LEFT]], [[60, 70], [110, 80]], atol=0.5)
        seen = (LEFT, RIGHT) if views[0].mirrors else (RIGHT, LEFT)
        assert visible[0, seen[0]] > 0.99 and visible[0, seen[1]] == pytest.approx(0.5)
        scale = np.sqrt(abs(np.linalg.det(views[0].image_to_crop[:, :2])))
        np.testing.assert_allclose(sigmas, 1 / scale, rtol=1e-5)
    said = distillation.PseudoLabels(points[:, None].repeat(2, 1), visible, np.array([True]))
    said.save(tmp_path / "said.npz")
    loaded = distillation.PseudoLabels.load(tmp_path / "said.npz")
    np.testing.assert_array_equal(loaded.keypoints, said.keypoints)
    np.testing.assert_array_equal(loaded.sure, said.sure)


def noted(faces: list[distillation.Face]) -> distillation.PseudoLabels:
    """What a teacher says of these faces, and of no others."""
    n = len(faces)
    said = distillation.PseudoLabels(np.zeros((n, 2, 68, 2)), np.zeros((n, 68)), np.ones(n, bool))
    said.note(faces)
    return said


FACES = [distillation.Face(Path(f"{name}.jpg"), np.array([i, 0.0, 50, 50])) for i, name in enumerate("abb")]


def test_pseudo_labels_know_their_faces(tmp_path: Path) -> None:
    noted(FACES).save(tmp_path / "said.npz")
    said = distillation.PseudoLabels.load(tmp_path / "said.npz")
    elsewhere = [face._replace(path="photos" / face.path, box=face.box + 0.3) for face in FACES]
    said.check(0, elsewhere)  # another folder and another machine
    other = [*FACES[:2], FACES[2]._replace(path=Path("c.jpg"))]
    another = [FACES[0], FACES[1]._replace(box=FACES[1].box + 20), FACES[2]]
    for faces, first in ((FACES[:2], "b.jpg"), (FACES[1:], "a.jpg"), ([*FACES, other[2]], "c.jpg"),
                         (other, "b.jpg"), (another, "b.jpg"), ([], "a.jpg")):  # fmt: skip
        with pytest.raises(CheckpointError, match=first):
            said.check(0, faces)
    noted([]).check(0, [])
    with pytest.raises(CheckpointError, match="1 labelled"):
        said.check(1, FACES)


def test_pseudo_labels_that_cannot_be_read_are_told(tmp_path: Path) -> None:
    path, said = tmp_path / "said.npz", noted(FACES)
    said.save(path)
    whole = path.read_bytes()
    for content in (b"", b"said", whole[:300], whole[:-100], whole.replace(b"\0" * 64, b"\1" * 64)):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="said.npz"):
            distillation.PseudoLabels.load(path)
    np.savez(path, keypoints=said.keypoints, visibility=said.visibility, sure=said.sure)  # as once written
    with pytest.raises(CheckpointError, match="said.npz"):
        distillation.PseudoLabels.load(path)


def test_pseudo_labels_are_written_whole_or_not_at_all(tmp_path: Path, monkeypatch) -> None:
    path = tmp_path / "said.npz"
    noted(FACES).save(path)
    monkeypatch.setattr(np, "savez", lambda file, **arrays: file.write(b"half") and 1 / 0)
    with pytest.raises(ZeroDivisionError):
        noted(FACES[:1]).save(path)
    distillation.PseudoLabels.load(path).check(0, FACES)
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_faces_without_labels_are_those_of_training_photos(tmp_path) -> None:
    folder = synthetic.data_folder(tmp_path)
    key = data.TRAINING_SOURCES[1].key
    names = sorted(path.name for path in (folder / "300w/lfpw_train").iterdir())
    kept = next(name for name in names if not data.is_held_out(key(name)))
    held_out = next(name for name in names if data.is_held_out(key(name)))
    rows = [
        ("300w/lfpw_train", kept, 60, "detected"), ("300w/lfpw_train", kept, 30, "detected"),
        ("300w/lfpw_train", kept, 70, "ignore"), ("300w/lfpw_train", held_out, 60, "detected"),
        ("300w/lfpw_test", kept, 60, "detected"), ("scenes", "000.jpg", 60, "detected"),
        ("wider/train", "a.jpg", 55, "wider"), ("wider/train", "b.jpg", 39, "wider"),
        ("wider/val_public", "c.jpg", 60, "wider"), ("masks", "d.jpg", 44, "people"),
    ]  # fmt: skip
    with open(folder / "face_boxes.csv", "a") as boxes:
        boxes.writelines(f"{sub}/{name},10,10,{10 + side},45,{kind},0.9\n" for sub, name, side, kind in rows)
    (folder / "faces").mkdir()
    synthetic.cv2.imwrite(str(folder / "faces/e.jpg"), np.zeros((80, 60, 3), np.uint8))
    synthetic.cv2.imwrite(str(folder / "faces/f.jpg"), np.zeros((90, 60, 3), np.uint8))

    def find(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.array([[5.0, 5, 50, 50]]), np.array([0.9 if len(image) == 80 else 0.3])

    faces = distillation.unlabelled_faces(folder, find)
    found = [(str(face.path.relative_to(folder)), face.box[2] - face.box[0]) for face in faces]
    assert found == [
        (f"300w/lfpw_train/{kept}", 60), ("wider/train/a.jpg", 55), ("masks/d.jpg", 44), ("faces/e.jpg", 45)
    ]  # fmt: skip


def test_all_large_faces_of_photos_from_elsewhere_teach(tmp_path: Path) -> None:
    folder = synthetic.data_folder(tmp_path)
    (photos := tmp_path / "photos").mkdir()
    synthetic.cv2.imwrite(str(photos / "p.jpg"), np.zeros((90, 60, 3), np.uint8))
    boxes = np.array([[5.0, 5, 50, 50], [0, 0, 44, 40], [0, 0, 30, 30], [9, 9, 60, 60]])

    def find(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return boxes, np.array([0.9, 0.8, 0.8, 0.6])

    without = distillation.unlabelled_faces(folder, find)
    added = distillation.unlabelled_faces(folder, find, photos=photos)[len(without) :]
    assert [face.path.name for face in added] == ["p.jpg", "p.jpg"]  # one is small, one unsure
    assert np.array_equal([face.box for face in added], boxes[:2])


def test_every_other_teacher_sees_the_mirror_image() -> None:
    """And what it says is turned back."""
    torch.manual_seed(0)
    config = dataclasses.replace(KEYPOINTNET, widths=(4, 8, 8, 8))
    teachers = [keypoint_net.build(config).eval() for _ in range(2)]
    crops = torch.randint(0, 256, (2, 3, KEYPOINTNET.crop_size, KEYPOINTNET.crop_size), dtype=torch.uint8)
    styles = torch.tensor([0, 1])
    alone = distillation.heatmaps(teachers[:1], crops, styles)
    both = distillation.heatmaps(teachers, crops, styles)
    mirrored = distillation.heatmaps(teachers[1:], crops.flip(3), styles).flip(3)[:, list(scheme.FLIP)]
    assert torch.allclose(both, (alone + mirrored) / 2, atol=1e-5)
    assert not torch.allclose(both, alone, atol=1e-2)


@pytest.mark.parametrize("turn", [-20.0, 15.0])
def test_views_hold_the_whole_face(turn: float) -> None:
    """Crops kept in memory have room for the views of a teacher."""
    box = np.array([0.0, 0, 100, 100])
    view = geometry.CropTransform.around_box(
        box, KEYPOINTNET.crop_size, KEYPOINTNET.margin, angle=turn, scale=min(distillation.SCALE)
    )
    inside = view.to_crop(np.array([[0.0, 0], [100, 100]]))
    assert inside.min() > 0 and inside.max() < KEYPOINTNET.crop_size
