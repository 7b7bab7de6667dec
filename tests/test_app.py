"""The page's own code, without a browser (tests/browser has one) and with a stand-in for the model."""

from __future__ import annotations

import asyncio
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from gradio.data_classes import ImageData
from PIL import Image

import app
from fkp import Faces, images
from fkp.geometry import tight_boxes

UPRIGHT = 6  # EXIF: turn by 90 degrees clockwise to see the picture upright


class AFaceInEveryPicture:
    """Stands in for the model: one face, its points anywhere, in pictures that are not black."""

    def __call__(self, image: np.ndarray) -> Faces:
        if not image.any():
            return Faces.none()
        height, width = image.shape[:2]
        keypoints = np.random.default_rng(0).random((1, 68, 2)) * (width, height)
        return Faces(tight_boxes(keypoints), np.array([0.9]), keypoints, np.full((1, 68), 0.8))


@pytest.fixture
def page(tmp_path, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path / "uploads"))

    async def build():
        return app.build(AFaceInEveryPicture())

    # In a running event loop: without one Gradio makes its own and never closes them.
    return asyncio.run(build())


@pytest.fixture
def events(page):
    """The page's functions by name."""
    return {event.name: event.fn for event in page.fns.values()}


def give(path: Path) -> app.Photo | None:
    """What the page's functions get when a visitor uploads a file."""
    payload = ImageData(path=str(path), orig_name="../../etc/passwd")
    return app.PhotoInput(render=False).preprocess(payload)


def test_no_photo_is_none():
    assert app.PhotoInput(render=False).preprocess(None) is None


def test_a_photo_is_read_upright(tmp_path):
    turned = Image.fromarray(np.zeros((20, 30, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = UPRIGHT
    turned.save(tmp_path / "turned.jpg", exif=exif)
    photo = give(tmp_path / "turned.jpg")
    assert photo.name == "turned.jpg"
    assert photo.pixels.shape == (30, 20, 3)


def test_a_gif_is_read_as_colours(tmp_path):
    Image.new("RGB", (8, 6), (200, 40, 40)).convert("P").save(tmp_path / "red.gif")
    photo = give(tmp_path / "red.gif")
    assert photo.pixels.shape == (6, 8, 3)
    assert photo.pixels[0, 0, 0] > 150 > photo.pixels[0, 0, 1]


@pytest.mark.parametrize("content", [b"", b"milk, bread", b"\xff\xd8\xff\xe0 and no more"])
def test_what_is_no_picture_is_told_without_a_path_of_the_server(tmp_path, content):
    path = tmp_path / "holiday.jpg"
    path.write_bytes(content)
    photo = give(path)
    assert photo.pixels is None
    assert photo.problem.endswith("Please choose another photo.")
    assert str(tmp_path) not in photo.problem


def test_an_expired_photo_is_told(tmp_path):
    assert give(tmp_path / "gone.jpg").problem == "is no longer here. Please choose it again."


def test_nothing_is_shown_before_the_first_photo(events):
    faces, answer, result, _, *saves = events["find"](None, ["points"])
    assert len(faces) == 0 and "Choose a photo" in answer and result is None
    assert all(save["interactive"] is False and save["value"] is None for save in saves)


def test_no_face_is_told_and_nothing_is_shown(events):
    black = app.Photo("night.png", np.zeros((40, 40, 3), np.uint8))
    faces, answer, result, _, *saves = events["find"](black, ["points"])
    assert len(faces) == 0 and "No face found." in answer and result is None
    assert not any(save["interactive"] for save in saves)


def test_a_problem_is_told_and_names_are_escaped(events):
    photo = app.Photo("<img src=x onerror=alert(1)>.jpg", problem="is empty. Please choose another photo.")
    _, answer, result, *_ = events["find"](photo, ["points"])
    assert "<img" not in answer and "&lt;img" in answer and "is empty." in answer
    assert result is None


def test_a_face_is_shown_and_can_be_saved(events, tmp_path):
    photo = app.Photo("holiday.2.jpg", np.full((120, 160, 3), 90, np.uint8))
    faces, answer, result, _, *saves = events["find"](photo, ["points", "contours"])
    assert "Found 1 face." in answer
    png, points, table = (Path(save["value"]) for save in saves)
    assert result == str(png)
    assert all(save["interactive"] for save in saves)
    assert all(path.is_relative_to(tmp_path / "uploads") for path in (png, points, table))
    assert [path.name for path in (png, points, table)] == [
        f"holiday.2_keypoints.{kind}" for kind in ("png", "json", "csv")
    ]

    drawn = images.read(png)
    assert drawn.shape == photo.pixels.shape and (drawn != photo.pixels).any()
    with Image.open(png) as picture:
        assert not picture.getexif()

    (record,) = json.loads(points.read_text(encoding="utf-8"))
    assert (record["image"], record["width"], record["height"]) == ("holiday.2.jpg", 160, 120)
    np.testing.assert_allclose(record["faces"][0]["keypoints"], faces.keypoints[0], atol=0.01)
    (row,) = csv.DictReader(io.StringIO(table.read_text(encoding="utf-8")))
    assert float(row["x8"]) == record["faces"][0]["keypoints"][8][0]


def test_colours_survive_saving(events):
    photo = app.Photo("red.png", np.full((100, 100, 3), (200, 30, 10), np.uint8))
    _, _, result, *_ = events["find"](photo, [])
    np.testing.assert_array_equal(images.read(result), photo.pixels)


def test_view_options_draw_again_without_the_model(events):
    photo = app.Photo("holiday.jpg", np.full((300, 300, 3), 90, np.uint8))
    faces, _, plain, *_ = events["find"](photo, [])
    pictures = [images.read(plain)]
    for _, option in app.VIEWS[:-1]:
        answer, result, *_ = events["show"](photo, faces, [option])
        assert "Found 1 face." in answer
        pictures.append(images.read(result))
    flat = {picture.tobytes() for picture in pictures}
    assert len(flat) == len(app.VIEWS)


@pytest.mark.parametrize(
    "options, said", [(["points"], "right eyebrow"), (["points", "confidence"], "unsure"), (["boxes"], "")]
)
def test_the_legend_explains_the_colours(events, options, said):
    photo = app.Photo("holiday.jpg", np.full((100, 100, 3), 90, np.uint8))
    legend = events["find"](photo, options)[3]
    assert said in legend
    assert ("<i" in legend) == bool(said)


def test_the_page_reports_to_nobody_and_keeps_nothing_for_long(page):
    assert page.analytics_enabled is False
    frequency, age = page.delete_cache
    assert frequency <= 600 and age == app.KEPT_SECONDS
    assert f"after {app.KEPT_SECONDS // 60} minutes" in app.FOOTER


def test_no_function_of_the_page_is_public(page):
    assert page.get_api_info() == {"named_endpoints": {}, "unnamed_endpoints": {}}


def test_examples_are_small_and_documented(root):
    sources = (root / "examples" / "SOURCES.md").read_text(encoding="utf-8")
    pictures = sorted((root / "examples").glob("*.jpg"))
    assert sorted(app.EXAMPLE_PICTURES) == pictures
    for path in pictures:
        assert path.name in sources
        assert path.stat().st_size < 300_000
        with Image.open(path) as picture:
            assert not picture.getexif()


def test_help_tells_the_options(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["app.py", "--help"])
    with pytest.raises(SystemExit, match="0"):
        app.main()
    told = capsys.readouterr().out
    assert all(option in told for option in ("--host", "--port", "--model", "FKP_MODEL"))


def test_weights_that_are_not_there_end_in_one_sentence(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["app.py", "--no-browser"])
    monkeypatch.setenv("FKP_MODEL", str(tmp_path / "nothing"))
    with pytest.raises(SystemExit, match="1"):
        app.main()
    told = capsys.readouterr().err
    assert told.startswith("app.py: ") and told.count("\n") == 1


def test_importing_the_page_writes_no_file(root):
    assert not (root / "app.pyi").exists()
