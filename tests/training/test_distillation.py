import numpy as np
import pytest

from fkp import data, geometry, scheme
from fkp.networks import keypoint_net
from fkp.training import distillation
from tests import synthetic

RIGHT, LEFT = scheme.RIGHT_EYE_OUTER_CORNER, scheme.LEFT_EYE_OUTER_CORNER


def eyes(pictures: np.ndarray, style: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A teacher that knows two bright spots, the one on the left as the right eye; styles differ by 100."""
    said = np.zeros((len(pictures), 68, 2), np.float32)
    for face, picture in zip(said, pictures, strict=True):
        y, x = np.nonzero(picture[..., 0] > 60)
        left = x < (x.min() + x.max()) / 2
        face[RIGHT] = x[left].mean(), y[left].mean()
        face[LEFT] = x[~left].mean(), y[~left].mean()
    return said + 100 * style, np.ones((len(pictures), 68), np.float32)


def test_a_teacher_says_where_points_are_in_the_picture_in_every_style() -> None:
    picture = np.zeros((160, 180, 3), np.uint8)
    for x, y in ((60, 70), (110, 80)):
        picture[y - 3 : y + 4, x - 3 : x + 4] = 255
    config = keypoint_net.KeypointConfig()
    boxes = np.array([[40.0, 40, 130, 130]])
    said = distillation.lessons(eyes, config, [picture], boxes)
    assert said.shape == (1, 3, 68, 2) and said.dtype == np.float32
    # Views are turned, moved and mirrored; said of the picture, it is the same.
    np.testing.assert_allclose(said[0, 0, [RIGHT, LEFT]], [[60, 70], [110, 80]], atol=0.5)
    assert (np.abs(said[0, 1] - said[0, 0]) > 20).all()
    np.testing.assert_array_equal(said, distillation.lessons(eyes, config, [picture], boxes))


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
    ]  # fmt: skip
    with open(folder / "face_boxes.csv", "a") as boxes:
        boxes.writelines(f"{sub}/{name},10,10,{10 + side},45,{kind},0.9\n" for sub, name, side, kind in rows)
    (face,) = distillation.unlabelled_faces(folder)
    assert face.path == folder / "300w/lfpw_train" / kept and face.box.tolist() == [10, 10, 70, 45]


@pytest.mark.parametrize("turn", [-20.0, 15.0])
def test_views_hold_the_whole_face(turn: float) -> None:
    """Crops kept in memory have room for the views of a teacher."""
    config = keypoint_net.KeypointConfig()
    box = np.array([0.0, 0, 100, 100])
    view = geometry.CropTransform.around_box(
        box, config.crop_size, config.margin, angle=turn, scale=min(distillation.SCALE)
    )
    inside = view.to_crop(np.array([[0.0, 0], [100, 100]]))
    assert inside.min() > 0 and inside.max() < config.crop_size
