"""A visitor's photos: read within limits, looked at, shown, saved, deleted."""

from __future__ import annotations

import csv
import inspect
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fkp import draw, images
from fkp.demo import api, photos
from fkp.demo.photos import SHOWN_SIDE, Album
from fkp.demo.settings import Settings
from tests.stand_in import FacesInColour

UPRIGHT = 6  # EXIF: turn by 90 degrees clockwise to see the picture upright
STYLE = draw.Style()


def picture(path: Path, size_wh=(160, 120), colour=(200, 90, 40), **options) -> Path:
    Image.new("RGB", size_wh, colour).save(path, **options)
    return path


def look(path: Path, *boxes, settings=None) -> photos.Photo:
    return photos.process(FacesInColour(*boxes), path, settings or Settings())


def opened(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)))


# --- Reading --------------------------------------------------------------------------------------------


def test_a_photo_is_read_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = UPRIGHT
    path = picture(tmp_path / "turned.jpg", (30, 20), exif=exif)
    assert photos.read(path, Settings()).image.shape == (30, 20, 3)


def test_a_gif_is_read_as_colours(tmp_path):
    Image.new("RGB", (8, 6), (200, 40, 40)).convert("P").save(tmp_path / "red.gif")
    pixels = photos.read(tmp_path / "red.gif", Settings()).image
    assert pixels.shape == (6, 8, 3) and pixels[0, 0, 0] > 150 > pixels[0, 0, 1]


@pytest.mark.parametrize("content", [b"", b"milk, bread", b"\xff\xd8\xff\xe0 and no more", b"<svg></svg>"])
def test_photo_that_is_no_picture_is_told_without_a_folder(tmp_path, content):
    path = tmp_path / "holiday.jpg"
    path.write_bytes(content)
    photo = look(path)
    assert photo.problem.startswith("is ") and photo.problem.endswith("Please choose another photo.")
    assert str(tmp_path) not in photo.problem and len(photo.faces) == 0
    with pytest.raises(images.ImageError, match=r"^holiday\.jpg is .*\. Please choose another photo\.$"):
        photos.read(path, Settings())


def test_photo_that_breaks_off_is_told_to_its_visitor_alone(tmp_path, recwarn):
    """Nothing is warned of, or the names of visitors' files would be in the log."""
    noise = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "half.jpg")
    whole = (tmp_path / "half.jpg").read_bytes()
    assert look(tmp_path / "half.jpg", (40, 30, 120, 110)).complete
    (tmp_path / "half.jpg").write_bytes(whole[: len(whole) // 2])
    photo = look(tmp_path / "half.jpg", (40, 30, 120, 110))
    assert not photo.complete and not photo.problem and len(photo.faces) == 1 and not len(recwarn)


def test_an_expired_photo_is_told(tmp_path):
    assert look(tmp_path / "gone.jpg").problem.startswith("is no longer here")


def test_photo_with_too_many_pixels_is_told_in_numbers_before_it_is_read(tmp_path):
    path = tmp_path / "huge.png"
    Image.new("1", (5000, 4000)).save(path)
    problem = look(path, settings=Settings(max_pixels=12_000_000)).problem
    assert problem.startswith("has 20 million pixels, the most that are read here are 12 million.")


def test_photo_that_is_too_large_is_told(tmp_path):
    path = picture(tmp_path / "large.png")
    problem = look(path, settings=Settings(max_file_size=100)).problem
    assert "larger than 0.0001 MB" in problem
    assert look(path, settings=Settings(max_file_size=path.stat().st_size)).problem == ""


@pytest.mark.parametrize("suffix", ["png", "jpg"])  # each is made smaller in a way of its own
@pytest.mark.parametrize("size_wh, factor", [((160, 120), 1), ((241, 161), 2), ((601, 401), 4)])
def test_a_very_large_photo_is_saved_at_the_size_that_is_told(tmp_path, monkeypatch, suffix, size_wh, factor):
    """Its faces are in the pixels of its file."""
    monkeypatch.setattr(photos, "FULL_PIXELS", 20_000)
    photo = look(picture(tmp_path / f"large.{suffix}", size_wh), (40, 30, 120, 110))
    assert photo.size_wh == size_wh
    assert photo.faces.boxes[0, 2] == pytest.approx(120 * factor, abs=factor + 2)
    assert np.array(photo.saved_wh) == pytest.approx(np.array(size_wh) / factor, abs=1)
    saved = photos.save_picture(Album().with_photo(photo), STYLE, Settings(), tmp_path)
    assert images.read(saved).shape[1::-1] == photo.saved_wh


def test_the_documentation_tells_from_how_many_pixels_on_photos_are_made_smaller(root):
    most = f"{photos.FULL_PIXELS // 10**6} million pixels"
    assert most in (root / "docs" / "api.md").read_text() and most in inspect.getsource(api)


# --- Looking --------------------------------------------------------------------------------------------


def test_photo_without_a_face_is_no_problem(tmp_path):
    photo = look(picture(tmp_path / "night.png", colour=(0, 0, 0)))
    assert photo.problem == "" and len(photo.faces) == 0 and photo.enlarged == () and photo.shown


def test_faces_beyond_the_limit_are_left_out_and_that_is_told(tmp_path):
    path = picture(tmp_path / "crowd.png")
    boxes = [(10 * i, 10, 10 * i + 8, 18) for i in range(5)]
    photo = look(path, *boxes, settings=Settings(max_faces=3))
    assert len(photo.faces) == 3 and photo.more_faces and len(photo.enlarged) == 3
    photo = look(path, *boxes, settings=Settings(max_faces=5))
    assert len(photo.faces) == 5 and not photo.more_faces


@pytest.mark.parametrize(
    "size_wh, shown_wh",
    [((160, 120), (160, 120)), ((4000, 3000), (1600, 1200)), ((1, 1), (1, 1)), ((5000, 1), (1600, 1))],
)
def test_a_large_photo_is_shown_scaled(tmp_path, size_wh, shown_wh):
    photo = look(picture(tmp_path / "photo.png", size_wh), (0, 0, 1, 1))
    assert (photo.size_wh, photo.shown_wh) == (size_wh, shown_wh)
    assert opened(photo.shown).shape == (*shown_wh[::-1], 3)
    assert opened(photos.overlay(photo, STYLE)).shape[1::-1] == photos._fitted(size_wh, SHOWN_SIDE)
    assert Image.open(io.BytesIO(photo.shown)).getexif() == {}


def test_the_overlay_lies_over_the_faces(tmp_path):
    """A box in the middle half of the photo is drawn in the middle half of the overlay, whatever its size."""
    photo = look(picture(tmp_path / "photo.png", (200, 100)), (50, 25, 149, 74))
    alpha = opened(photos.overlay(photo, draw.Style(points=False, contours=False, boxes=True)))[..., 3]
    assert alpha.shape == (800, 1600)
    rows, columns = np.flatnonzero(alpha.any(axis=1)), np.flatnonzero(alpha.any(axis=0))
    assert (columns[0], columns[-1]) == pytest.approx((400, 1200), abs=15)
    assert rows[-1] == pytest.approx(600, abs=15)


def test_a_face_is_enlarged_upright_with_its_points(tmp_path):
    photo = look(picture(tmp_path / "photo.png", (400, 300)), (100, 50, 200, 150))
    (face,) = photo.enlarged
    keypoints = face.faces.keypoints[0]
    assert keypoints[36, 1] == pytest.approx(keypoints[45, 1], abs=0.1)
    assert np.ptp(keypoints, axis=0).max() == pytest.approx(photos.FACE_SIDE / photos.FACE_MARGIN, abs=1)
    plain, drawn = opened(face.picture), opened(photos.enlarged(face, STYLE))
    assert plain.shape == drawn.shape == (photos.FACE_SIDE, photos.FACE_SIDE, 3)
    x, y = np.round(keypoints[30]).astype(int)
    np.testing.assert_allclose(drawn[y, x], draw.COLOURS["nose_bridge"], atol=30)
    assert np.abs(drawn.astype(int) - plain)[:40, :40].max() < 12  # JPEG
    assert opened(face.thumbnail).shape == (photos.THUMBNAIL_SIDE, photos.THUMBNAIL_SIDE, 3)


def test_moved_faces_keep_their_scores():
    faces = FacesInColour((10, 20, 30, 60))(np.ones((80, 80, 3), np.uint8))
    turned = photos.moved(faces, np.array([[0, -2, 5], [2, 0, 7]]))  # by a quarter turn, twice as large
    assert turned.boxes.tolist() == [[-115, 27, -35, 67]]
    np.testing.assert_allclose(turned.keypoints[0, 8], faces.keypoints[0, 8] @ [[0, 2], [-2, 0]] + (5, 7))
    np.testing.assert_array_equal(turned.keypoint_scores, faces.keypoint_scores)


def test_warming_up_goes_the_whole_way():
    model = FacesInColour()
    photos.warm_up(model)
    assert model.calls >= 2


# --- Albums ---------------------------------------------------------------------------------------------


@pytest.fixture
def album(tmp_path) -> Album:
    """A photo with two faces, one that cannot be read, and one without a face."""
    folder = tmp_path / "uploads"
    folder.mkdir()
    (folder / "note.jpg").write_text("milk, bread")
    dark = picture(folder / "night.png", colour=(0, 0, 0))
    album = Album()
    paths = (picture(folder / "a.b.png"), folder / "note.jpg", dark)
    album = Album(files=paths)
    for path in paths:
        album = album.with_photo(look(path, (10, 10, 60, 60), (80, 20, 120, 60)))
    return album


def test_album_begins_at_the_first_face_of_the_first_photo(album):
    assert (album.photo.name, album.face, len(album.photos)) == ("a.b.png", 0, 3)
    assert (Album().photo, Album().face) == (None, None)


def test_going_to_another_photo_and_face(album):
    assert album.choose(1).face == 1
    assert (album.choose(1).go_to(2).photo.name, album.choose(1).go_to(2).face) == ("night.png", None)
    assert album.go_to(1).photo.problem and album.go_to(1).face is None
    assert album.choose(1).go_to(0).face == 0


@pytest.mark.parametrize("number", [-1, 3, 2.0, "1", None, True, [0], {"index": 0}, 10**30])
def test_a_number_that_is_none_changes_nothing(album, number):
    assert album.go_to(number) is album and album.choose(number) is album


# --- Saving ---------------------------------------------------------------------------------------------


def test_the_saved_picture_has_full_size_and_nothing_of_the_camera(tmp_path):
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "Maker of cameras", UPRIGHT
    exif.get_ifd(0x8825)[2] = (47.0, 0.0, 0.0)  # latitude
    path = picture(tmp_path / "holiday.2.jpg", (3000, 2000), exif=exif)
    album = Album().with_photo(look(path, (100, 100, 900, 900)))
    saved = photos.save_picture(album, STYLE, Settings(), tmp_path / "out")
    assert saved.name == "holiday.2_keypoints.png" and saved.parent.parent == tmp_path / "out"
    with Image.open(saved) as png:
        assert png.size == (2000, 3000) and not png.getexif() and not png.info
    content = saved.read_bytes()
    assert b"Maker" not in content and b"eXIf" not in content and b"tEXt" not in content
    expected = draw.draw(images.read(path), album.photo.faces, STYLE)
    np.testing.assert_array_equal(images.read(saved), expected)


def test_the_picture_cannot_be_saved_once_its_upload_is_gone(album, tmp_path):
    for path in album.files:
        path.unlink(missing_ok=True)
    with pytest.raises(images.ImageError, match="a.b.png is no longer here"):
        photos.save_picture(album, STYLE, Settings(), tmp_path)
    with pytest.raises(images.ImageError, match="The photos are no longer here."):
        photos.save_pictures(album, STYLE, Settings(), tmp_path / "out")
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file()] == []


def test_saved_pictures_have_different_names(album, tmp_path):
    photo = album.photo
    album = album.with_photo(photo).with_photo(replace(photo, path=photo.path.with_name("A.b.png")))
    saved = photos.save_pictures(album, STYLE, Settings(), tmp_path)
    assert saved.name == "keypoints.zip"
    with zipfile.ZipFile(saved) as archive:
        names = archive.namelist()
        assert names == ["a.b_keypoints.png", "a.b_keypoints_2.png", "night_keypoints.png"]
        np.testing.assert_array_equal(
            opened(archive.read(names[0])), draw.draw(images.read(photo.path), photo.faces, STYLE)
        )


def test_json_and_csv_hold_all_photos_that_could_be_read(album, tmp_path):
    saved = photos.save_json(album, tmp_path)
    records = json.loads(saved.read_text(encoding="utf-8"))
    assert saved.name == "keypoints.json"
    assert [(r["image"], r["width"], r["height"], len(r["faces"])) for r in records] == [
        ("a.b.png", 160, 120, 2),
        ("night.png", 160, 120, 0),
    ]
    np.testing.assert_allclose(records[0]["faces"][1]["keypoints"], album.photo.faces.keypoints[1], atol=0.01)
    saved = photos.save_csv(album, tmp_path)
    rows = list(csv.DictReader(io.StringIO(saved.read_text(encoding="utf-8"))))
    assert saved.name == "keypoints.csv" and [row["face"] for row in rows] == ["1", "2"]
    assert float(rows[1]["x8"]) == records[0]["faces"][1]["keypoints"][8][0]


def test_files_of_one_photo_are_called_after_it(tmp_path):
    album = Album().with_photo(look(picture(tmp_path / "ü b.png")))
    assert photos.save_json(album, tmp_path).name == "ü b_keypoints.json"
    assert photos.save_csv(album, tmp_path).name == "ü b_keypoints.csv"
    assert json.loads(photos.save_json(album, tmp_path).read_text(encoding="utf-8"))[0]["image"] == "ü b.png"
