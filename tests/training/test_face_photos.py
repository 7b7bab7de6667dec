"""The photos that the face detector learns from: what is read of them, and which are held out."""

from pathlib import Path

import numpy as np
import pytest

from fkp import data, geometry
from fkp.training import face_photos


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="face_boxes.csv"):
        face_photos.read_photos(tmp_path)


def test_photos_know_their_faces(folder: Path) -> None:
    photos = {p.path.relative_to(folder).as_posix(): p for p in face_photos.read_photos(folder)}
    assert len(photos) == 5 * 12 + 2 * 6 + 3 * 6
    assert all(len(p.outlines) == 1 for p in photos.values() if p.source in ("ytf", "300w"))
    np.testing.assert_allclose(photos["scenes/photo0.png"].boxes, [[20, 30, 60, 90]])
    assert len(photos["scenes/photo0.png"].ignore) == 0
    np.testing.assert_allclose(photos["scenes/photo2.png"].ignore, [[20, 30, 60, 90]])
    assert len(photos["scenes/photo2.png"].outlines) == 0
    # People have looked at these, and seen no face.
    assert len(photos["no_faces/photo2.png"].ignore) == len(photos["no_faces/photo2.png"].outlines) == 0
    assert len(photos["scenes/photo1.png"].boxes) == 0
    for crowd in ("wider/train/crowd0.png", "masks/crowd0.png"):
        np.testing.assert_allclose(photos[crowd].boxes, [[20, 30, 60, 90]])
        np.testing.assert_allclose(photos[crowd].ignore, [[150, 30, 170, 50]])
    # A point without a label tells nothing of the box.
    assert all(np.isfinite(p.outlines).all() for p in photos.values())


def test_portraits_are_learnt_from_by_a_models_keypoints(folder: Path, tmp_path: Path) -> None:
    head = ["image", "face", "score", *(f"{axis}{i}" for i in range(68) for axis in "xy")]
    sure = ["faces/a.png", "0", "0.9", *(["3", "4"] * 67), "33", "44"]
    rows = [head, sure, ["faces/b.png", "0", "0.3", *sure[3:]]]
    (tmp_path / "portraits.csv").write_text("\n".join(map(",".join, rows)) + "\n")
    photos = face_photos.read_photos(folder, tmp_path / "portraits.csv")
    (portrait,) = [p for p in photos if p.source == face_photos.UNLABELLED]
    assert portrait.path == folder / "faces" / "a.png" and not portrait.held_out
    np.testing.assert_allclose(portrait.boxes, [[3, 4, 33, 44]])


def test_a_shrunk_photo_keeps_its_faces(folder: Path) -> None:
    photo = next(p for p in face_photos.read_photos(folder) if p.source == "ytf")
    image, outlines, _ = photo.load(80)
    assert image.shape == (75, 80, 3)
    box = geometry.tight_boxes(outlines)[0]
    bright = np.argwhere(image[..., 0] > 128)
    np.testing.assert_allclose([*bright.min(0)[::-1], *bright.max(0)[::-1]], box, atol=0.8)


@pytest.mark.slow
def test_training_and_validation_share_no_person_and_no_test_set(shared_data: Path) -> None:
    photos = face_photos.read_photos(shared_data)
    folders = {p.path.parent.relative_to(shared_data).as_posix() for p in photos}
    labelled = {"ytf/training", "300w/lfpw_train", "300w/helen_train", "300w/afw"}
    assert folders == labelled | {face_photos.PROFILES, *face_photos.BOXED, *face_photos.FACELESS}
    for subfolder, key, share in (
        ("ytf/training", data.person, 7),
        ("300w/lfpw_train", data.photo, 7),
        ("300w/helen_train", data.photo, 7),
        ("300w/afw", data.photo, 3),
        ("no_faces", str, 3),
        ("scenes", str, 3),
        ("animals", str, 3),
        ("wider/train", str, 3),
        ("masks", str, 3),
    ):
        some = [p for p in photos if p.path.parent == shared_data / subfolder]
        training = {key(p.path.name) for p in some if not p.held_out}
        held_out = {key(p.path.name) for p in some if p.held_out}
        assert not training & held_out
        assert share - 2 < (len(training) + len(held_out)) / len(held_out) < share + 2
