"""A visitor's ways through the page's Video tab, in Chromium, with the weights that users have."""

from __future__ import annotations

import base64
import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.browser.test_photo_page import CONTRASTS, DARK, PHONE, save
from tests.filmed import film, turned, watched

PATIENCE_MS = 60_000  # for the work on a clip


@pytest.fixture
def tab(page: Page) -> Page:
    page.get_by_role("tab", name="Video").click()
    expect(page.get_by_text("Drop a clip here")).to_be_visible()
    return page


@pytest.fixture(scope="module")
def portrait(root: Path) -> np.ndarray:
    """(240,240,3) RGB."""
    picture = cv2.cvtColor(cv2.imread(str(root / "examples" / "eileen_collins.jpg")), cv2.COLOR_BGR2RGB)
    return cv2.resize(picture[:300, 80:380], (240, 240), interpolation=cv2.INTER_AREA)


@pytest.fixture
def clip(portrait: np.ndarray, tmp_path: Path) -> Path:
    """A second of her portrait, with sound, at an uneven rate."""
    times = np.cumsum([0.0, *[0.04, 0.12] * 6]).tolist()
    return film(tmp_path / "holiday.mp4", [portrait] * len(times), times=times, sound="aac", seconds=1.0)


@pytest.fixture
def long_clip(portrait: np.ndarray, tmp_path: Path) -> Path:
    """55 seconds of four of her: there is work going on whenever a busy machine comes to look."""
    four = np.tile(portrait, (2, 2, 1))
    return film(tmp_path / "long.mp4", [four] * 1375, times=(np.arange(1375) / 25).tolist())


def choose(page: Page, path: Path) -> None:
    page.locator("#clip input[type=file]").set_input_files(path)


def expect_answer(page: Page, text: str) -> None:
    expect(page.locator("#clip-answer")).to_contain_text(text, timeout=PATIENCE_MS)


def find(page: Page) -> None:
    page.get_by_role("button", name="Find faces").click()


def expect_playing(page: Page) -> dict:
    """The clip plays; gives its length in seconds and its size."""
    ready = "document.querySelector('.film')?.readyState >= HTMLMediaElement.HAVE_CURRENT_DATA"
    page.wait_for_function(ready)
    page.evaluate("() => { const film = document.querySelector('.film'); film.muted = true; film.play() }")
    page.wait_for_function("document.querySelector('.film').currentTime > 0.3")
    return page.evaluate(
        """() => { const film = document.querySelector('.film');
        return {seconds: film.duration, wide: film.videoWidth, high: film.videoHeight, error: film.error} }"""
    )


def test_a_clip_is_told_worked_on_played_and_saved(tab, clip):
    choose(tab, clip)
    expect_answer(tab, "holiday.mp4 is ready")
    expect_answer(tab, "240×240 pixels, 1 s, with sound")
    find(tab)
    expect_answer(tab, "Found 1 face in holiday.mp4")
    playing = expect_playing(tab)
    assert playing["error"] is None and (playing["wide"], playing["high"]) == (240, 240)
    assert playing["seconds"] == pytest.approx(1.0, abs=0.15)
    heard = "document.querySelector('.film').webkitAudioDecodedByteCount"
    tab.wait_for_function(f"{heard} > 0")

    told = json.loads(save(tab, "Save JSON").read_text(encoding="utf-8"))
    assert told["video"] == "holiday.mp4" and len(told["frames"]) == 13
    assert all([face["face"] for face in frame["faces"]] == [1] for frame in told["frames"])
    table = save(tab, "Save CSV")
    assert table.name == "holiday_keypoints.csv"
    with table.open(encoding="utf-8", newline="") as file:
        assert [row["face"] for row in csv.DictReader(file)] == ["1"] * 13
    frames, times = watched(save(tab, "Save clip"))
    assert times == pytest.approx([frame["time"] for frame in told["frames"]], abs=0.002)
    drawn = np.abs(frames[5].astype(int) - watched(clip)[0][5]).max(axis=2) > 60
    x1, y1, x2, y2 = np.round(told["frames"][5]["faces"][0]["box"]).astype(int)
    assert drawn[y1:y2, x1:x2].mean() > 0.05 and drawn[y2 + 10 :].mean() < 0.01


def test_a_telephones_clip_comes_out_upright(tab, portrait, tmp_path):
    """Stored on its side, with a matrix that says so."""
    stored = np.ascontiguousarray(portrait[:, :180].transpose(1, 0, 2)[::-1])  # a quarter turn to the left
    choose(tab, turned(film(tmp_path / "phone.mov", [stored] * 10), 90))
    expect_answer(tab, "phone.mov is ready")
    expect_answer(tab, "180×240 pixels")
    find(tab)
    expect_answer(tab, "Found 1 face in phone.mov")
    playing = expect_playing(tab)
    assert (playing["wide"], playing["high"], playing["error"]) == (180, 240, None)


def test_the_example_runs_on_a_click(tab):
    tab.locator("#clip [data-example]").click()
    expect_answer(tab, "Found 2 faces")


def test_work_on_a_clip_is_told_and_can_be_cancelled(tab, long_clip):
    choose(tab, long_clip)
    find(tab)
    expect_answer(tab, "left.")
    expect(tab.locator("#clip-answer progress")).to_be_visible()
    expect(tab.get_by_role("button", name="Find faces")).to_be_disabled()
    tab.get_by_role("button", name="Cancel", exact=True).click()
    expect_answer(tab, "is ready")
    tab.wait_for_timeout(1200)
    expect_answer(tab, "is ready")
    expect(tab.locator("#clip-answer progress")).to_have_count(0)
    expect(tab.get_by_role("button", name="Find faces")).to_be_enabled()
    tab.locator("#clip-work").get_by_role("button", name="Clear", exact=True).click()
    expect_answer(tab, "Choose a clip")


def test_photos_are_answered_while_a_clip_is_worked_on(tab, root, long_clip):
    choose(tab, long_clip)
    find(tab)
    expect(tab.locator("#clip-answer progress")).to_be_visible(timeout=PATIENCE_MS)
    tab.get_by_role("tab", name="Photo").click()
    tab.locator("#photo input[type=file]").set_input_files(root / "examples" / "grace_hopper.jpg")
    expect(tab.locator("#answer")).to_contain_text("Found 1 face", timeout=20_000)
    tab.get_by_role("tab", name="Video").click()
    tab.get_by_role("button", name="Cancel", exact=True).click()
    expect_answer(tab, "is ready")


@pytest.mark.parametrize(
    "content, told",
    [
        (b"", "party.mp4: is empty. Please choose another clip."),
        (b"milk, bread, apples", "party.mp4: is no video"),
        (b"\0\0\0\x20ftypisom" + bytes(900), "party.mp4: is no video"),
    ],
    ids=["empty", "text", "broken"],
)
def test_clip_that_is_none_is_told_kindly(tab, tmp_path, content, told):
    path = tmp_path / "party.mp4"
    path.write_bytes(content)
    choose(tab, path)
    expect_answer(tab, told)
    assert "/" not in tab.locator("#clip-answer").inner_text(), "a path of the server is shown"
    expect(tab.get_by_role("button", name="Find faces")).to_be_disabled()


def test_a_clip_that_is_too_long_is_told(tab, tmp_path):
    picture = np.zeros((16, 16, 3), np.uint8)
    times = [10.0 * i for i in range(8)]
    choose(tab, film(tmp_path / "long.mp4", [picture] * 8, times=times))
    expect_answer(tab, "are more than the limit of 60 s. Please choose another clip.")


def test_a_clip_that_is_too_large_is_not_even_sent(tab, tmp_path):
    with (tmp_path / "large.mp4").open("wb") as file:
        file.truncate(100_500_000)
    sent = []
    tab.on("request", lambda request: sent.append(request.url))
    choose(tab, tmp_path / "large.mp4")
    told = "large.mp4 has 100.5 MB, which is more than the limit of 100 MB."
    expect(tab.locator("#clip .told")).to_have_text(told)
    assert not any("upload" in url for url in sent)


DROP = """([name, encoded]) => {
  const bytes = Uint8Array.from(atob(encoded), letter => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, {type: "video/mp4"}));
  const event = new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true});
  document.querySelector("#clip .drop").dispatchEvent(event);
}"""


def test_a_clip_can_be_dropped(tab, clip):
    tab.evaluate(DROP, ["dropped.mp4", base64.b64encode(clip.read_bytes()).decode()])
    expect_answer(tab, "dropped.mp4 is ready")


def test_clip_without_a_face_is_told_kindly(tab, tmp_path):
    choose(tab, film(tmp_path / "sky.mp4", [np.full((64, 64, 3), 180, np.uint8)] * 4))
    expect_answer(tab, "sky.mp4 is ready")
    find(tab)
    expect_answer(tab, "No face found in sky.mp4.")


def test_options_are_chosen_before(tab, clip):
    """With nothing to show, the clip comes back as it was."""
    choose(tab, clip)
    expect_answer(tab, "is ready")
    for name in ("Points", "Contours", "Numbers of faces"):
        tab.locator("#clip-view").get_by_label(name, exact=True).uncheck()
    find(tab)
    expect_answer(tab, "Found 1 face")
    frames, _ = watched(save(tab, "Save clip"))
    before, _ = watched(clip)
    assert np.abs(frames[5].astype(int) - before[5]).mean() < 6


def test_a_clip_that_is_done_is_drawn_anew_by_itself(tab, clip):
    """Several changes in a row are drawn once, from the same numbers, and the film stays where it is."""
    choose(tab, clip)
    expect_answer(tab, "is ready")
    find(tab)
    expect_answer(tab, "Found 1 face")
    first, numbers = tab.locator(".film").get_attribute("src"), save(tab, "Save JSON").read_text()
    before = watched(save(tab, "Save clip"))[0][5].astype(int)
    tab.wait_for_function("document.querySelector('.film').readyState >= 1")
    tab.evaluate("() => { document.querySelector('.film').currentTime = 0.5 }")
    tab.wait_for_timeout(500)
    tab.evaluate("window.films = new Set()")
    tab.evaluate(
        """() => new MutationObserver(() => window.films.add(document.querySelector(".film")?.src)).observe(
        document.querySelector("#clip-answer"), { subtree: true, childList: true, attributes: true })"""
    )
    for name in ("Mesh", "Boxes", "Numbers of points"):
        tab.locator("#clip-view").get_by_label(name, exact=True).check()
    expect(tab.locator(".film")).not_to_have_attribute("src", first, timeout=PATIENCE_MS)
    expect_answer(tab, "Found 1 face")
    assert len(tab.evaluate("[...window.films]")) <= 2, "the film before, and the one after"
    after = watched(save(tab, "Save clip"))[0][5].astype(int)
    assert (np.abs(after - before).max(axis=2) > 60).mean() > 0.01
    assert save(tab, "Save JSON").read_text() == numbers
    expect(tab.get_by_role("button", name="Find faces")).to_be_disabled()
    tab.wait_for_function("document.querySelector('.film').readyState >= 1")
    assert tab.evaluate("document.querySelector('.film').currentTime") == pytest.approx(0.5, abs=0.1)


# All that the answer says, for some of it is there for less time than one looks away.
SAID = """() => {
  window.said = [];
  const answer = document.querySelector("#clip-answer");
  new MutationObserver(() => said.push(answer.innerText))
    .observe(answer, { subtree: true, childList: true, characterData: true });
}"""


def test_options_changed_during_detection_are_drawn_afterwards(tab, clip, portrait, tmp_path):
    path = film(tmp_path / "party.mp4", [portrait] * 150, times=(np.arange(150) / 25).tolist())
    choose(tab, path)
    expect_answer(tab, "is ready")
    tab.evaluate(SAID)
    find(tab)
    expect(tab.get_by_role("button", name="Cancel", exact=True)).to_be_visible(timeout=PATIENCE_MS)
    for name in ("Points", "Contours", "Numbers of faces"):
        tab.locator("#clip-view").get_by_label(name, exact=True).uncheck()
    tab.wait_for_function("said.some((words) => words.includes('Drawing it anew'))", timeout=PATIENCE_MS)
    expect_answer(tab, "Found 1 face")
    frames, before = watched(save(tab, "Save clip"))[0], watched(path)[0]
    assert np.abs(frames[5].astype(int) - before[5]).mean() < 6


def test_everything_is_done_with_the_keyboard(tab, clip):
    def go_to(name: str) -> None:
        for _ in range(60):
            tab.keyboard.press("Tab")
            at = "document.activeElement.ariaLabel || document.activeElement.innerText"
            if tab.evaluate(at) == name:
                return
        raise AssertionError(f"the keyboard does not come to {name}")

    tab.get_by_role("tab", name="Video").focus()
    go_to("Choose a clip")
    choose(tab, clip)
    expect_answer(tab, "is ready")
    go_to("Find faces")
    tab.keyboard.press("Enter")
    expect_answer(tab, "Found 1 face")
    go_to("holiday.mp4 with its keypoints")
    tab.keyboard.press("Space")
    tab.wait_for_function("document.querySelector('.film').currentTime > 0")
    slider = tab.locator("#clip-most input[type=range]")
    slider.press("Home")
    expect(tab.get_by_role("button", name="Find faces")).to_be_enabled()
    slider.press("End")  # as it was
    expect(tab.get_by_role("button", name="Find faces")).to_be_disabled()
    first = tab.locator(".film").get_attribute("src")
    tab.locator("#clip-view").get_by_label("Boxes", exact=True).press("Space")
    slider.press("Home")  # closely after, and neither is lost
    expect(tab.locator(".film")).not_to_have_attribute("src", first, timeout=PATIENCE_MS)
    expect_answer(tab, "Found 1 face")
    expect(tab.get_by_role("button", name="Find faces")).to_be_enabled()
    tab.get_by_role("tab", name="Video").focus()
    go_to("Save CSV")
    with tab.expect_download() as download:
        tab.keyboard.press("Enter")
    assert download.value.suggested_filename == "holiday_keypoints.csv"


SCREENS = {"phone": PHONE, "phone-dark": PHONE | DARK, "dark": DARK}


@pytest.mark.parametrize("page", SCREENS.values(), ids=SCREENS, indirect=True)
def test_layout_has_room_and_text_stands_out(tab, clip):
    tab.add_style_tag(content="* { transition: none !important; animation: none !important; }")
    choose(tab, clip)
    expect_answer(tab, "is ready")
    assert tab.evaluate(CONTRASTS) == []
    find(tab)
    expect_answer(tab, "Found 1 face")
    assert tab.evaluate(CONTRASTS) == []
    assert tab.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    expect(tab.locator("#clip-answer p")).to_be_in_viewport()
    expect(tab.locator("#clip-answer .timeline")).to_be_in_viewport(ratio=1)
