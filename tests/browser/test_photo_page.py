"""A visitor's ways through the photo page, in Chromium, with the weights that users have."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from fkp import images

EILEEN_COLLINS = {
    "right eye": (range(36, 42), (203, 101)),
    "left eye": (range(42, 48), (246, 103)),
    "corners of the mouth": ((48, 54), (223, 140)),
    "chin": ((8,), (223, 179)),
}
"""Middles of points in her portrait, measured by hand; the outer eye corners are 64 pixels apart."""
CLOSE = 6  # pixels


def choose(page: Page, path: Path) -> None:
    page.locator("#photo input[type=file]").set_input_files(path)


def expect_answer(page: Page, text: str) -> None:
    expect(page.locator("#answer")).to_contain_text(text, timeout=20_000)


def save(page: Page, button: str) -> Path:
    # A disabled link cannot be clicked, so this also waits until there is something to save.
    with page.expect_download() as download:
        page.get_by_role("button", name=button).click()
    path = download.value.path()
    return path.rename(path.with_name(download.value.suggested_filename))


def saved_record(page: Page) -> dict:
    (record,) = json.loads(save(page, "Save JSON").read_text(encoding="utf-8"))
    return record


def assert_eileen_collins(record: dict, offset_xy: tuple[int, int] = (0, 0)) -> None:
    (face,) = record["faces"]
    keypoints = np.array(face["keypoints"]) - offset_xy
    for part, (points, middle) in EILEEN_COLLINS.items():
        distance = np.linalg.norm(keypoints[list(points)].mean(axis=0) - middle)
        assert distance < CLOSE, f"{part}: {distance:.1f} pixels off"


def test_a_photo_is_answered_drawn_and_saved(page, root):
    photo = root / "examples" / "eileen_collins.jpg"
    choose(page, photo)
    expect_answer(page, "Found 1 face.")
    expect(page.locator("#result img")).to_be_visible()

    record = saved_record(page)
    assert (record["image"], record["width"], record["height"]) == ("eileen_collins.jpg", 512, 512)
    assert_eileen_collins(record)

    table = save(page, "Save CSV")
    assert table.name == "eileen_collins_keypoints.csv"
    with table.open(encoding="utf-8", newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["x36"]) == record["faces"][0]["keypoints"][36][0]

    drawn, before = images.read(save(page, "Save picture")), images.read(photo)
    x1, y1, x2, y2 = np.round(record["faces"][0]["box"]).astype(int)
    changed = (drawn != before).any(axis=2)
    assert 0.05 < changed[y1:y2, x1:x2].mean() < 0.6
    assert changed.sum() == pytest.approx(changed[y1 - 9 : y2 + 9, x1 - 9 : x2 + 9].sum())


def test_view_options_draw_again(page, root):
    choose(page, root / "examples" / "grace_hopper.jpg")
    expect_answer(page, "Found 1 face.")
    first = page.locator("#result img").get_attribute("src")
    page.get_by_label("Boxes").check()
    expect(page.locator("#result img")).not_to_have_attribute("src", first)
    page.get_by_label("Confidence").check()
    expect(page.get_by_text("unsure")).to_be_visible()
    expect_answer(page, "Found 1 face.")


@pytest.mark.parametrize(
    "number, answer", [(0, "Found 1 face."), (1, "Found 1 face."), (2, "Found 4 faces.")]
)
def test_examples_run_on_a_click(page, number, answer):
    page.locator("#examples button").nth(number).click()
    expect_answer(page, answer)
    expect(page.locator("#result img")).to_be_visible()


def test_no_face_is_told_kindly_and_can_be_tried_again(page, photo_without_a_face, root):
    choose(page, photo_without_a_face)
    expect_answer(page, "No face found.")
    expect(page.get_by_role("button", name="Save picture")).to_be_disabled()
    page.get_by_label("Remove Image").first.click()
    expect_answer(page, "Choose a photo")
    choose(page, root / "examples" / "eileen_collins.jpg")
    expect_answer(page, "Found 1 face.")


def test_what_is_no_picture_is_told_kindly(page, tmp_path):
    note = tmp_path / "holiday.jpg"
    note.write_text("milk, bread, apples")
    choose(page, note)
    expect_answer(page, "holiday.jpg is no picture")
    assert "/" not in page.locator("#answer").inner_text(), "a path of the server is shown"


def test_a_webcam_snapshot_is_not_mirrored(page):
    page.get_by_label("Capture from camera").click()
    page.get_by_text("Click to Access Webcam").click()
    page.wait_for_function("document.querySelector('#photo video')?.videoWidth > 0")
    page.get_by_label("capture photo").click()
    expect_answer(page, "Found 1 face.")
    assert_eileen_collins(saved_record(page), offset_xy=(64, 0))


def test_a_phone_has_room_for_everything(page, root):
    page.set_viewport_size({"width": 390, "height": 844})
    choose(page, root / "examples" / "four_faces.jpg")
    expect_answer(page, "Found 4 faces.")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    expect(page.locator("#answer")).to_be_in_viewport()
