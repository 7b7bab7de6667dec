"""The detection benchmark: boxes are counted rightly, and pages show what was measured."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks import detection, photo_sets
from benchmarks.photo_sets import NONE, Photo, PhotoSet, Seen
from fkp import data
from fkp.training import face_photos
from tests import synthetic

# --- What is found ------------------------------------------------------------------------------------------


def photo(faces=(), doubtful=(), *, held_out=True, name="photo.jpg") -> Photo:
    picture = np.full((100, 100, 3), 128, np.uint8)
    boxes = [np.array(some, np.float64).reshape(-1, 4) for some in (faces, doubtful)]
    return Photo(name, lambda: picture, *boxes, held_out)


def seen(boxes, scores, of: Photo, least_iou: float = 0.5) -> Seen:
    return Seen(of, np.array(boxes, np.float64).reshape(-1, 4), np.array(scores, np.float64), least_iou)


FACE, OTHER, NOWHERE = [10, 10, 30, 30], [50, 50, 70, 70], [80, 10, 95, 25]


def test_boxes_on_something_doubtful_neither_count_nor_are_false():
    finds = seen([FACE, OTHER, NOWHERE, [11, 10, 30, 30]], [0.9, 0.8, 0.7, 0.6], photo([FACE], [OTHER]))
    assert finds.own.tolist() == [0, -1, -1, -1] and finds.best.tolist() == [0.9]
    # The last one is a second box on a face.
    assert finds.false.tolist() == [False, False, True, True]
    np.testing.assert_allclose(photo_sets.false_scores([finds]), [0.7, 0.6])
    assert photo_sets.recall([finds], 0.9) == 100 and photo_sets.recall([finds], 0.91) == 0


@pytest.mark.parametrize(("least_iou", "best"), [(0.4, 0.9), (0.5, 0.0)])
def test_a_set_says_how_well_a_box_must_fit(least_iou, best):
    # Half of the face: an IoU of a half less a little.
    assert seen([[10, 10, 19.5, 30]], [0.9], photo([FACE]), least_iou).best.tolist() == [best]


def test_recall_by_size():
    finds = seen([[0, 0, 16, 12]], [0.9], photo([[0, 0, 16, 12], OTHER]))
    assert photo_sets.recall([finds], 0.5, (12, 20)) == 100 and photo_sets.recall([finds], 0.5, (20, 32)) == 0
    assert photo_sets.recall([finds], 0.5, (32, np.inf)) is None and photo_sets.recall([finds], 0.5) == 50


def test_boxes_come_best_first():
    def detector(image, *, min_score=None):
        assert image.shape == (100, 100, 3) and min_score == photo_sets.LEAST_SCORE
        return np.array([NOWHERE, FACE], np.float32), np.array([0.1, 0.9], np.float32)

    found = photo_sets.detect({"one": detector, "other": detector}, PhotoSet("photos", [photo([FACE])], 0.4))
    assert found["other"][0].scores.tolist() == pytest.approx([0.9, 0.1])
    assert found["other"][0].least_iou == 0.4 and found["one"][0].own.tolist() == [0, -1]


def test_a_close_up_is_filled_by_its_face():
    picture = np.zeros((100, 100, 3), np.uint8)
    picture[20:60, 30:50] = 200
    box = np.array([[29.5, 19.5, 49.5, 59.5]])
    close = photo_sets.close_up(Photo("a.jpg", lambda: picture, box, NONE, True))
    bright = np.argwhere(close.read()[..., 0] > 100)
    assert close.read().shape == (512, 512, 3)
    found = [*bright.min(0)[::-1], *bright.max(0)[::-1]]
    np.testing.assert_allclose(found, close.faces[0], atol=8)
    assert close.faces[0, 1] == pytest.approx(-0.5) and close.faces[0, 3] == pytest.approx(511.5)


# --- Figures ------------------------------------------------------------------------------------------------


def test_the_threshold_that_lets_so_many_pass():
    false = np.array([0.2, 0.9, 0.5])
    assert (false >= detection.threshold_for(false, 1)).sum() == 1
    assert 0.5 < detection.threshold_for(false, 1) <= 0.9
    assert detection.threshold_for(false, 3) == photo_sets.LEAST_SCORE


def test_recall_on_wider_at_as_many_false_boxes_a_photo(monkeypatch):
    monkeypatch.setattr(detection, "ALLOWED", (0.5,))
    small = [60, 60, 75, 70]
    sharp = [seen([FACE, small], [0.9, 0.8], photo([FACE, small]))]
    sharp.append(seen([NOWHERE, OTHER], [0.7, 0.6], photo()))
    blind = [seen([], [], each.photo) for each in sharp]
    fkp, yunet, own = detection.on_wider({"fkp": sharp, "YuNet": blind}, 0.85)
    assert fkp["allowed"] == 0.5 and 0.6 <= fkp["threshold"] <= 0.7 and fkp["false"] == 1
    assert fkp["sizes"] == [100, 100, None, None] and yunet["sizes"] == [0, 0, None, None]
    assert own["allowed"] is None and own["sizes"] == [0, 100, None, None] and own["faces"] == 2


def test_figures_of_a_set():
    seen_there = [
        seen([FACE, OTHER], [0.6, 0.2], photo(held_out=False)),
        seen([FACE, OTHER, NOWHERE], [0.5, 0.4, 0.3], photo()),
    ]
    figures = detection.of_set(PhotoSet("none", []), seen_there, 0.35)
    assert figures["false"] == 3 and figures["false_held_out"] == 2 and figures["fired"] == 2
    assert figures["found"] is None and figures["photos"] == 2 and figures["held_out"] == 1


def test_reliability_counts_what_was_held_out_and_is_not_doubtful():
    there = [
        seen([FACE, OTHER], [0.95, 0.25], photo([FACE])),
        seen([NOWHERE], [0.9], photo(held_out=False)),
        seen([OTHER], [0.9], photo([], [OTHER])),
    ]
    figures = detection.reliability({"some": {"fkp": there}})
    assert figures["error"] == pytest.approx((0.05 + 0.25) / 2, abs=1e-3)
    assert sum(n for *_, n in figures["bins"]) == 2


def test_nothing_measured_is_a_dash_and_not_zero():
    nothing = detection.reliability({"some": {"fkp": [seen([], [], photo())]}})
    assert nothing["error"] is None and "error: –" in detection._reliability({"reliability": nothing})
    empty = {name: detection.of_set(PhotoSet(name, []), [], 0.5) for name in detection.FACELESS}
    assert "(– % of them)" in detection._false({"min_score": 0.5, "sets": empty})


# --- The whole ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A made-up data folder with the test sets, too; of the scenes, one shows a face and one may."""
    folder = synthetic.data_folder(tmp_path_factory.mktemp("data"), faces=24)
    for csv, like, pictures, source in (
        ("ytf/test_frames_keypoints.csv", "ytf/training", "ytf/test", "ytf/training_frames_keypoints.csv"),
        ("300w/lfpw_test.csv", "300w/lfpw_train", "300w/lfpw_test", "300w/lfpw_train.csv"),
    ):
        shutil.copytree(folder / like, folder / pictures)
        shutil.copy(folder / source, folder / csv)
    for name in ("wider/val_public", "animals"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(6):
            cv2.imwrite(str(folder / name / f"{i:03d}.jpg"), np.full((120, 160, 3), 90, np.uint8))
    with open(folder / "face_boxes.csv", "a") as boxes:
        boxes.write("scenes/001.jpg,10,10,50,60,ignore,0.4\nscenes/002.jpg,10,10,50,60,detected,0.9\n")
        boxes.write("300w/lfpw_test/1003_1.jpg,1,2,11,22,detected,0.9\n")
        for low, high in ((10, 25), (30, 55), (60, 100)):
            boxes.write(f"wider/val_public/001.jpg,{low},{low},{high},{high},wider,\n")
        boxes.write("wider/val_public/001.jpg,110,10,120,20,ignore,\n")
    return folder


def test_sets_of_photos(folder):
    sets = photo_sets.read_sets(folder)
    assert len(sets["ytf_test"].photos) == len(sets["lfpw_test"].photos) == 24
    assert 0 < len(sets["afw"].photos) < 24
    assert all(face_photos.is_held_out("300w/afw", Path(p.name).name) for p in sets["afw"].photos)
    assert [p.name for p in sets["scenes"].photos] == [f"scenes/{i:03d}.jpg" for i in (0, 3, 4, 5)]
    crowd = sets["wider"].photos[1]
    assert crowd.faces.shape == (3, 4) and crowd.doubtful.tolist() == [[110, 10, 120, 20]] and crowd.held_out
    assert sets["wider"].least_iou == 0.4 and sets["afw"].least_iou == 0.5
    by_name = {p.name: p for p in sets["lfpw_test"].photos}
    one = by_name["300w/lfpw_test/1003_1.jpg"]
    np.testing.assert_allclose(one.doubtful, [[1, 2, 11, 22]])
    assert one.held_out and len(one.faces) == 1 and one.read().shape == (128, 128, 3)
    assert [p.held_out for p in sets["no_faces"].photos] == [
        face_photos.is_held_out("no_faces", f"{i:03d}.jpg") for i in range(6)
    ]
    assert all(photo.held_out for photo in sets["animals"].photos)
    assert len(photo_sets.read_sets(folder, 2)["no_faces"].photos) == 2


def test_the_test_sets_are_not_trained_on(shared_data):
    known = data.FaceBoxes(shared_data)
    assert len(known.of("wider/val_public/0_Parade_Parade_0_12.webp", "wider", "ignore"))
    trained = {str(photo.path) for photo in face_photos.read_photos(shared_data)}
    assert not any(part in path for path in trained for part in ("val_public", "lfpw_test", "ytf/test"))
