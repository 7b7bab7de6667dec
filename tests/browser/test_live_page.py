"""A visitor in front of the camera, which shows a film, in Chromium and with the weights that users have."""

from __future__ import annotations

import json
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from fkp import FaceKeypoints, images, report
from tests.browser.conftest import PATIENCE_MS, serving
from tests.browser.test_photo_page import EILEEN_COLLINS

LEFT = 64
"""Pixels of the film to the left of her portrait, see `webcam_film`."""
CLOSE = 8
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
LONG = 60_000
"""Milliseconds that something may take which is a matter of a tenth of a second on a computer at rest."""

NOTE = """() => {
  window.results = [];
  document.querySelector(".live").addEventListener("keypoints", (event) => window.results.push(event.detail));
}"""

CAMERA = "document.querySelector('.live video').srcObject?.getVideoTracks()[0]"

INK = """([from, to]) => {
  const canvas = document.querySelector(".live canvas"), pen = canvas.getContext("2d");
  const left = Math.round(from * canvas.width), width = Math.round((to - from) * canvas.width);
  const { data } = pen.getImageData(left, 0, width, canvas.height);
  return data.filter((_, i) => i % 4 === 3).filter((alpha) => alpha > 0).length / (width * canvas.height);
}"""
"""How much of a strip, between two places of the frame's width from 0 to 1, is drawn on."""


def ink(page: Page, strip: tuple[float, float]) -> float:
    return page.evaluate(INK, strip)


def wait_for_ink(page: Page, strip: tuple[float, float], enough: str) -> None:
    page.wait_for_function(f"strip => ({INK})(strip) {enough}", arg=strip, timeout=LONG)


def open_live(page: Page) -> None:
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start the camera").wait_for()
    page.evaluate(NOTE)


def start(page: Page) -> None:
    open_live(page)
    page.get_by_role("button", name="Start the camera").click()
    results(page, 3)


def results(page: Page, more: int = 1) -> list[dict]:
    """The results from now on, once there are as many."""
    page.evaluate("window.results = []")
    page.wait_for_function("n => window.results.length >= n", arg=more, timeout=LONG)
    return page.evaluate("window.results")


def expect_said(page: Page, text: str, where: str = ".word") -> None:
    expect(page.locator(f".live {where}")).to_contain_text(text, timeout=LONG)


def expect_her(result: dict) -> None:
    """Her points are where they are in the film, whatever size the frame had, and are not mirrored."""
    keypoints = np.array(result["faces"][0]["keypoints"]) * 640 / result["width"]
    for part, (points, (x, y)) in EILEEN_COLLINS.items():
        distance = np.linalg.norm(keypoints[list(points)].mean(axis=0) - (x + LEFT, y))
        assert distance < CLOSE, f"{part}: {distance:.1f} pixels off"


@pytest.fixture
def visit(browser, address, chromium_path):
    """Opens the page for another visitor; where there are arguments for it, in a browser of their own."""

    @contextmanager
    def visit(*arguments: str, where: str = address, **options):
        own = browser
        if arguments:
            own = browser.browser_type.launch(
                executable_path=chromium_path, args=["--no-sandbox", *arguments]
            )
        context = own.new_context(**options)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        page.goto(where)
        page.get_by_text("Drop photos here").wait_for()
        try:
            yield page
        finally:
            context.close()
            if own is not browser:
                own.close()

    return visit


@pytest.fixture(scope="module")
def small_house(root, tmp_path_factory):
    """Address of a page with room for one viewer, which answers to another name too; and its folder."""
    folder = tmp_path_factory.mktemp("small")
    with serving(root, folder, FKP_MAX_VIEWERS="1", FKP_HOSTS="page.test") as address:
        deadline = time.monotonic() + LONG / 1000
        while "Ready" not in (folder / "app.log").read_text():  # it asks itself something, with a file
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield address, folder


WITHOUT_ASKING = "--use-fake-ui-for-media-stream"
CAMERAS = "--use-fake-device-for-media-stream=device-count={}"

# --- Looking --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [{}, PHONE], ids=["desktop", "phone"], indirect=True)
def test_points_land_on_the_face_and_are_drawn_there_mirrored_or_not(page):
    start(page)
    for result in results(page, 5):
        expect_her(result)
        assert 0 < result["latency"] < LONG
    assert {face["id"] for result in results(page, 5) for face in result["faces"][:1]} == {1}
    # Her face is between 0.37 and 0.52 of the frame's width; seen in a mirror, between 0.48 and 0.63.
    left, right = (0.38, 0.44), (0.56, 0.62)
    wait_for_ink(page, right, "> 0")
    assert ink(page, left) == 0
    page.get_by_role("checkbox", name="Mirror").uncheck()
    wait_for_ink(page, left, "> 0")
    assert ink(page, right) == 0
    expect_her(results(page)[-1])
    for meter in ("rate", "latency", "faces", "frame"):
        expect(page.locator(f"[data-meter={meter}]")).to_contain_text(
            "1" if meter == "faces" else "", timeout=LONG
        )
        expect(page.locator(f"[data-meter={meter}]")).not_to_have_text("–", timeout=LONG)
    wide = page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
    assert wide[0] <= wide[1], "the page is wider than the screen"


def test_numbers_of_the_moment_are_saved_and_not_mirrored(page, root):
    start(page)
    expect(page.get_by_role("checkbox", name="Mirror")).to_be_checked()
    with page.expect_download() as download:
        page.locator("#camera").get_by_role("button", name="Save JSON").click()
    (record,) = json.loads(Path(download.value.path()).read_text())
    photo = images.read(root / "examples" / "eileen_collins.jpg")
    same = report.record("photo.jpg", photo.shape, FaceKeypoints.from_pretrained()(photo))
    assert record.keys() == same.keys()
    assert record["faces"][0].keys() == same["faces"][0].keys(), "as the package writes it of a photo"
    expect_her(record)


def test_options_can_be_chosen_with_the_keyboard(page):
    start(page)
    face = (0.47, 0.64)
    live = page.locator(".live")
    wait_for_ink(page, face, "> 0")
    few = ink(page, face)
    for name in ("Mesh", "Boxes"):
        live.get_by_role("checkbox", name=name).focus()
        page.keyboard.press("Space")
    live.get_by_label("Size of the points").focus()
    page.keyboard.press("End")
    wait_for_ink(page, face, f"> {1.5 * few}")
    live.get_by_role("checkbox", name="Confidence").focus()
    page.keyboard.press("Space")
    expect(live.get_by_text("a point’s confidence")).to_be_visible()
    expect(live.get_by_text("inner lips")).to_be_hidden()
    for name in ("Points", "Contours", "Mesh", "Boxes"):
        live.get_by_role("checkbox", name=name).uncheck()
    wait_for_ink(page, face, "=== 0")


# --- Stopping -------------------------------------------------------------------------------------------


def looks_after(page: Page, act) -> int:
    """How many frames are sent once something has been done and what was under way is answered."""
    page.evaluate(f"window.track = {CAMERA}")
    act()
    page.wait_for_function("window.track.readyState === 'ended'", timeout=LONG)
    page.wait_for_timeout(500)
    sent: list[str] = []
    page.on(
        "request", lambda request: sent.append(request.url) if "component_server" in request.url else None
    )
    page.wait_for_timeout(700)
    return len(sent)


def test_stop_switches_the_camera_off_and_start_on_again(page):
    start(page)
    stop = page.locator(".live").get_by_role("button", name="Stop")
    expect(stop).to_be_focused()
    assert looks_after(page, lambda: page.keyboard.press("Enter")) == 0
    expect_said(page, "The camera is off.")
    assert page.evaluate("document.querySelector('.live video').srcObject") is None
    expect(page.locator("[data-meter=rate]")).to_have_text("–")
    page.keyboard.press("Enter")  # the button to start has the focus
    results(page)


def test_camera_is_switched_off_by_another_tab(page):
    start(page)
    assert looks_after(page, lambda: page.get_by_role("tab", name="Photo").click()) == 0
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start the camera").click()
    results(page)


def test_a_hidden_page_pauses_and_goes_on_when_it_is_seen(page):
    start(page)
    hide = """hidden => {
      Object.defineProperty(document, "hidden", { value: hidden, configurable: true });
      document.dispatchEvent(new Event("visibilitychange"));
    }"""
    assert looks_after(page, lambda: page.evaluate(hide, True)) == 0
    expect_said(page, "Paused while this page is hidden.")
    page.evaluate(hide, False)
    results(page)


def test_a_camera_that_goes_away_is_told(page):
    start(page)
    page.evaluate(f"{CAMERA}.dispatchEvent(new Event('ended'))")
    expect_said(page, "The camera was disconnected")
    page.get_by_role("button", name="Try again").click()
    results(page)


def test_camera_without_a_connection_says_so_and_comes_back(page):
    start(page)
    page.context.set_offline(True)
    expect_said(page, "The connection is lost", ".note")
    page.context.set_offline(False)
    results(page)
    expect(page.locator(".live .note")).to_have_text("", timeout=LONG)


# --- Several --------------------------------------------------------------------------------------------


def test_two_viewers_get_their_own_points(page, visit):
    start(page)
    with visit() as other:
        start(other)
        for result in results(page, 3) + results(other, 3):
            expect_her(result)


def test_a_full_house_is_told_and_a_place_is_free_when_a_viewer_is_gone(small_house, visit):
    address, folder = small_house
    before = set(folder.rglob("*"))
    with visit(where=address) as other:
        with visit(where=address) as first:
            start(first)
            open_live(other)
            other.get_by_role("button", name="Start the camera").click()
            expect_said(other, "The only place is taken", ".note")
            results(first)
        expect_her(results(other)[-1])  # the first has gone without a word
        assert set(folder.rglob("*")) == before, "a frame was written to disk"


# --- Cameras --------------------------------------------------------------------------------------------


def test_camera_can_be_chosen(visit):
    with visit(WITHOUT_ASKING, CAMERAS.format(2)) as page:
        start(page)
        choice = page.get_by_role("combobox", name="Camera")
        expect(choice).to_be_visible()
        used = page.evaluate(f"{CAMERA}.getSettings().deviceId")
        assert choice.input_value() == used
        page.evaluate(f"window.track = {CAMERA}")
        choice.select_option(index=1)
        page.wait_for_function(
            f"used => {{ const id = {CAMERA}?.getSettings().deviceId; return id && id !== used }}",
            arg=used,
            timeout=LONG,
        )
        assert page.evaluate("window.track.readyState") == "ended"
        results(page)
        expect(choice).to_have_value(page.evaluate(f"{CAMERA}.getSettings().deviceId"))


def test_camera_that_is_missing_is_told(visit):
    with visit(WITHOUT_ASKING, CAMERAS.format(0)) as page:
        open_live(page)
        page.get_by_role("button", name="Start the camera").click()
        expect_said(page, "No camera was found.")
        expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_a_refusal_is_told(visit):
    with visit("--deny-permission-prompts", CAMERAS.format(1)) as page:
        open_live(page)
        page.get_by_role("button", name="Start the camera").click()
        expect_said(page, "was not allowed to use the camera")
        expect(page.get_by_role("button", name="Try again")).to_be_visible()


def test_a_page_without_https_says_what_is_needed(visit, small_house):
    elsewhere = small_house[0].replace("127.0.0.1", "page.test")
    with visit("--host-resolver-rules=MAP page.test 127.0.0.1", where=elsewhere) as page:
        open_live(page)
        page.get_by_role("button", name="Start the camera").click()
        expect_said(page, "only to pages that are opened over https")
