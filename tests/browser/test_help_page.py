"""What the page does to help: guesses told, faces chosen, enlarged and left out, keys, addresses, dropped
files."""

from __future__ import annotations

import json
import os
import re
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Page, expect

from tests.browser.conftest import free_port, refusals, serving

pytestmark = pytest.mark.browser

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
LAPTOP = {"viewport": {"width": 1280, "height": 800}}
PATIENCE_MS = 30_000


def four_faces(page: Page) -> None:
    page.locator("#photo [data-example]").nth(2).click()
    expect(page.locator("#answer")).to_contain_text("Found 4 faces", timeout=PATIENCE_MS)


def assert_all_is_seen(page: Page, *selectors: str) -> None:
    width, height = page.viewport_size["width"], page.viewport_size["height"]
    for selector in selectors:
        box = page.locator(selector).first.bounding_box()
        assert box["x"] >= 0 and box["x"] + box["width"] <= width, f"{selector}: {box}"
        assert box["y"] >= 0 and box["y"] + box["height"] <= height, f"{selector}: {box}"


@pytest.mark.parametrize("page", [LAPTOP], indirect=True)
def test_the_first_face_is_seen_beside_the_picture_without_scrolling(page):
    for example, faces in ((1, "1 face"), (2, "4 faces")):
        page.locator("#photo [data-example]").nth(example).click()
        expect(page.locator("#answer")).to_contain_text(f"Found {faces}", timeout=PATIENCE_MS)
        page.wait_for_timeout(1000)
        assert page.evaluate("scrollY") == 0
        assert_all_is_seen(page, "#answer", "#result .sheet", "#face h2", "#face .loupe")
        sheet, loupe = (
            page.locator("#result .sheet").bounding_box(),
            page.locator("#face .loupe").bounding_box(),
        )
        assert loupe["x"] > sheet["x"] + sheet["width"]


def at_the_answer(page: Page) -> None:
    """Waits until a phone has scrolled there."""
    page.wait_for_function(
        "Math.abs(document.querySelector('#answer').getBoundingClientRect().top - 10) < 1",
        timeout=PATIENCE_MS,
    )


PLACES = """() => {
  window.places = new Set();
  const look = () => { places.add(scrollY); requestAnimationFrame(look); };
  look();
}"""


@pytest.mark.parametrize(
    "page, scrolls",
    [(PHONE | {"reduced_motion": "no-preference"}, "gently"), (PHONE, "at once")],
    indirect=["page"],
    ids=["gently", "at-once"],
)
def test_a_phone_shows_the_picture_when_it_is_done(page, scrolls):
    page.evaluate(PLACES)
    four_faces(page)
    at_the_answer(page)
    assert_all_is_seen(page, "#answer", "#result .sheet", "#face h2")
    places = page.evaluate("[...places]")
    assert len(places) == 2 if scrolls == "at once" else len(places) > 4, places


@pytest.mark.parametrize("page", [LAPTOP, PHONE], indirect=True, ids=["laptop", "phone"])
def test_a_chosen_face_comes_into_view_and_its_points_are_found_in_the_table(page):
    four_faces(page)
    page.locator("#result .faces [data-face='1']").dispatch_event("click")
    expect(page.locator("#face h2")).to_have_text("Face 2 of 4")
    expect(page.locator("#face .loupe")).to_be_in_viewport(ratio=1, timeout=PATIENCE_MS)
    assert_all_is_seen(page, "#face .loupe")
    page.locator("#face .marks [data-point='30']").hover(force=True)
    expect(page.locator("#points tr.marked th")).to_have_text("30")
    page.locator("#points tr[data-point='8'] td").first.hover()
    expect(page.locator("#face .marks i.marked")).to_have_attribute("data-point", "8")
    expect(page.locator("#face .measures")).to_contain_text("turned")


@pytest.mark.parametrize("page", [LAPTOP], indirect=True)
def test_a_click_on_the_cross_leaves_a_face_out(page):
    four_faces(page)
    page.locator("#result .remove").click()
    expect(page.locator("#answer")).to_contain_text("Found 3 faces")
    with page.expect_download() as download:
        page.get_by_role("button", name="Save JSON").first.click()
    (record,) = json.loads(Path(download.value.path()).read_text(encoding="utf-8"))
    assert [face["number"] for face in record["faces"]] == [1, 2, 3]


@pytest.mark.parametrize("page", [LAPTOP], indirect=True)
def test_keyboard_stops_once_for_many_faces_and_can_enlarge_each(page):
    four_faces(page)
    stops = page.locator("#result .faces button[tabindex='0']")
    expect(stops).to_have_count(1)
    stops.focus()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.dataset.face") == "1"
    page.keyboard.press("End")
    assert page.evaluate("document.activeElement.dataset.face") == "3"
    page.keyboard.press("Enter")
    expect(page.locator("#face h2")).to_have_text("Face 4 of 4")
    page.keyboard.press("ArrowLeft")
    assert page.evaluate("document.activeElement.dataset.face") == "2", "the focus stays in the group"
    sheet = page.locator("#result .sheet")
    before = page.locator("#result .faces [data-face='0']").bounding_box()
    box = sheet.bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -300)
    after = page.locator("#result .faces [data-face='0']").bounding_box()
    assert after["width"] > 2 * before["width"]
    page.get_by_role("button", name="Whole picture").click()
    again = page.locator("#result .faces [data-face='0']").bounding_box()
    assert again["width"] == pytest.approx(before["width"], abs=1)


@pytest.mark.parametrize("page", [LAPTOP], indirect=True)
def test_tabs_have_addresses_arrow_keys_and_the_way_back(page):
    page.get_by_role("tab", name="Photo").focus()
    page.keyboard.press("ArrowRight")
    expect(page.get_by_role("tab", name="Live")).to_have_attribute("aria-selected", "true")
    assert page.url.endswith("#live")
    page.get_by_role("tab", name="Video").click()
    page.go_back()
    expect(page.get_by_role("tab", name="Live")).to_have_attribute("aria-selected", "true")
    page.goto(page.url.partition("#")[0] + "#about")
    page.reload()
    expect(page.get_by_role("tab", name="About")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#about .map text")).to_have_count(68)


DROP = """([name, type, where]) => {
  const data = new DataTransfer(), file = new File([new Uint8Array(100)], name, { type });
  data.items.add(file);
  const event = (what) => new DragEvent(what, { dataTransfer: data, bubbles: true, cancelable: true });
  return [document.querySelector(where).dispatchEvent(event("dragover")),
          document.querySelector(where).dispatchEvent(event("drop"))];
}"""


@pytest.mark.parametrize("page", [LAPTOP], indirect=True)
def test_files_are_taken_wherever_they_are_dropped(page):
    assert page.evaluate(DROP, ["note.jpg", "image/jpeg", "footer"]) == [False, False], "the browser opens it"
    expect(page.locator("#answer")).to_contain_text("note.jpg is no picture", timeout=PATIENCE_MS)
    page.evaluate(DROP, ["film.mp4", "video/mp4", "h1"])
    expect(page.locator("#photo .told")).to_have_text("film.mp4 is a clip.")
    page.get_by_role("button", name="Take it to Video").click()
    expect(page.get_by_role("tab", name="Video")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#clip-answer")).to_contain_text("film.mp4", timeout=PATIENCE_MS)


NARROW = [{"viewport": {"width": width, "height": 640}, "has_touch": True} for width in (280, 320, 361)]

CUT_OFF = """() => [...document.querySelectorAll("body *")].filter((each) => each.checkVisibility())
  .map((each) => [each, each.getBoundingClientRect()])
  .filter(([each, { left, right, width }]) => width > 1 && (left < -1 || right > innerWidth + 1))
  .map(([each, { left, right }]) => `${each.outerHTML.slice(0, 80)}: ${left} to ${right}`)"""


@pytest.mark.parametrize("page", NARROW, ids=lambda screen: screen["viewport"]["width"], indirect=True)
def test_the_narrowest_screens_have_every_tab_and_way(page):
    page.get_by_role("link", name="More under About").click()
    expect(page.get_by_role("tab", name="About")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#about h2").first).to_be_visible()
    assert page.url.endswith("#about")
    page.get_by_role("tab", name="Photo").click()
    page.evaluate(DROP, ["film.mp4", "video/mp4", "h1"])
    page.get_by_role("button", name="Take it to Video").click()
    expect(page.locator("#clip-answer")).to_contain_text("film.mp4", timeout=PATIENCE_MS)
    page.get_by_role("tab", name="Live").click()
    expect(page.get_by_role("button", name="Start the camera")).to_be_visible()
    if page.viewport_size["width"] >= 320:  # which is what WCAG 2 asks for
        assert page.evaluate(CUT_OFF) == []
        inside = "each => [each.scrollWidth - each.clientWidth, each.querySelectorAll('.size').length]"
        beyond, sliders = page.locator(".live .show").evaluate(inside)
        assert beyond <= 0 and sliders == 3


@pytest.mark.parametrize("page", [LAPTOP], indirect=True)
def test_sending_tells_how_much_is_sent(page, tmp_path):
    picture = np.random.default_rng(0).integers(0, 255, (700, 700, 3), np.uint8)  # 1.5 MB
    cv2.imwrite(str(tmp_path / "noise.png"), picture)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 500_000}
    page.context.new_cdp_session(page).send("Network.emulateNetworkConditions", slow)
    page.locator("#photo input[type=file]").set_input_files(tmp_path / "noise.png")
    expect(page.locator("#photo .told")).to_have_text(re.compile(r"Sending the photo … \d+ %"))
    expect(page.locator("#answer")).to_contain_text("noise.png", timeout=PATIENCE_MS)


@pytest.mark.parametrize("page", [LAPTOP], indirect=True)
def test_a_slider_whose_box_is_given_too_much_takes_its_limit(page):
    four_faces(page)
    for slider, given, most in (("#size", "99", "3"), ("#least", "999", "95"), ("#most", "0", "1")):
        page.locator(f"{slider} input[type=number]").fill(given)
        page.keyboard.press("Tab")
        expect(page.locator(f"{slider} input[type=number]")).to_have_value(most)
    expect(page.locator("#answer")).not_to_contain_text("Found 4 faces")
    assert page.locator(".toast-body").count() == 0


def test_a_browser_that_fills_no_screen_is_offered_none(browser, address):
    """As those of iPhones."""
    context = browser.new_context(**PHONE)
    context.add_init_script(
        "Object.defineProperty(Document.prototype, 'fullscreenEnabled', { get: () => false })"
    )
    page = context.new_page()
    page.goto(address)
    four_faces(page)
    expect(page.get_by_role("button", name="Full screen")).to_have_count(0)
    page.get_by_role("tab", name="Live").click()
    expect(page.get_by_role("button", name="Start the camera")).to_be_visible()
    expect(page.get_by_role("button", name="Full screen")).to_have_count(0)
    context.close()


@pytest.mark.parametrize("page", [LAPTOP], indirect=True)
def test_a_turned_or_faint_face_is_told_to_be_a_guess(page, root, tmp_path):
    """A portrait of 14 pixels, enlarged and blurred: found, but its points cannot be sure."""
    picture = cv2.imread(str(root / "examples" / "grace_hopper.jpg"))
    small = cv2.resize(picture, None, fx=0.045, fy=0.045, interpolation=cv2.INTER_AREA)
    path = tmp_path / "faint.png"
    cv2.imwrite(str(path), cv2.resize(small, picture.shape[1::-1], interpolation=cv2.INTER_LINEAR))
    page.locator("#photo input[type=file]").set_input_files(path)
    answer = page.locator("#answer .answer")
    expect(answer).to_contain_text("faint.png", timeout=PATIENCE_MS)
    expect(answer).to_contain_text("guesses")


def test_the_page_describes_itself(page, address):
    html = urllib.request.urlopen(address).read().decode()
    (title,) = re.findall(r'property="og:title" content="([^"]*)"', html)
    assert title == "Face keypoints" and "{url}" not in html and "@Gradio" not in html
    icon = urllib.request.urlopen(f"{address}favicon.ico").read()
    assert b"<svg" in icon
    page.get_by_role("link", name="use it from a program").click()
    expect(page.locator("#programs")).to_be_in_viewport(timeout=PATIENCE_MS)
    assert f'Client("{address}")' in page.locator(".snippet pre").first.inner_text()


# --- Access, by axe-core --------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def axe(root: Path) -> str:
    """The script of npm's axe-core: `npm ci` in tests/browser."""
    path = root / "tests" / "browser" / "node_modules" / "axe-core" / "axe.min.js"
    if not path.is_file():
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say("no axe-core: run npm ci in tests/browser")
    return path.read_text(encoding="utf-8")


SCREENS = {
    f"{name}-{scheme}": screen | {"color_scheme": scheme}
    for name, screen in (("desktop", LAPTOP), ("phone", PHONE))
    for scheme in ("light", "dark")
}
TABS = ("Photo", "Live", "Video", "About")


def serious_findings(page: Page, where: str) -> list[str]:
    found = page.evaluate("async () => (await axe.run(document, { resultTypes: ['violations'] })).violations")
    return [
        f"{where}, {each['id']}: {node['html'][:150]}"
        for each in found
        for node in each["nodes"]
        if each["impact"] in ("serious", "critical")
    ]


@pytest.mark.parametrize("page", SCREENS.values(), ids=SCREENS, indirect=True)
def test_axe_finds_nothing_serious(page, axe):
    """Every tab as it is at first, and then with a photo, a clip and the camera."""
    page.add_style_tag(content="* { transition: none !important; animation: none !important; }")
    page.evaluate(axe)
    told = []
    for tab in TABS:
        page.get_by_role("tab", name=tab).click()
        expect(page.locator(OPENED[tab])).to_be_visible()
        told += serious_findings(page, f"{tab}, empty")
    for tab in visit_every_tab(page):
        told += serious_findings(page, tab)
    assert not told, "\n".join(told)


OPENED = {
    "Photo": "#photo .drop",
    "Live": ".live .way.main",
    "Video": "#clip .drop",
    "About": "#about h2 >> nth=0",
}
"""What is seen of each tab when it is open."""


def visit_every_tab(page: Page) -> Iterator[str]:
    """Do on every tab what it is for; gives its name when something is to be seen."""
    page.get_by_role("tab", name="Photo").click()
    four_faces(page)
    yield "Photo"
    page.get_by_role("tab", name="Live").click()
    page.get_by_role("button", name="Start the camera").click()
    expect(page.locator("[data-meter=frame]")).to_contain_text("×", timeout=PATIENCE_MS)
    yield "Live"
    page.get_by_role("tab", name="Video").click()
    page.locator("#clip [data-example]").click()
    expect(page.locator("#clip-answer .timeline")).to_be_visible(timeout=2 * PATIENCE_MS)
    yield "Video"
    page.get_by_role("tab", name="About").click()
    expect(page.locator("#about h2").first).to_be_visible()
    yield "About"


# --- Safety ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [LAPTOP], indirect=True)
def test_content_security_policy_allows_all_that_the_page_does(page, address):
    """Which the fixture of the page sees to, in the console."""
    for _ in visit_every_tab(page):
        pass
    page.get_by_role("tab", name="Photo").click()
    for button in ("Save picture", "Save JSON"):
        with page.expect_download():
            page.get_by_role("button", name=button, exact=True).first.click()
    other = page.context.new_page()
    refused = refusals(other)
    other.goto(address)
    other.evaluate("() => { new Image().src = 'https://elsewhere.example/a.png' }")
    other.wait_for_timeout(500)
    assert len(refused) == 1, "what is against it is seen in the console"


# --- Touch ----------------------------------------------------------------------------------------------

SMALL = """() => [...document.querySelectorAll("button, select, summary, label:has(input)")]
  .filter((each) => each.checkVisibility() && !each.closest(".sheet, .timeline"))
  .map((each) => [each.ariaLabel || each.innerText, each.getBoundingClientRect()])
  .filter(([, { width, height }]) => Math.min(width, height) < 43.5 && height > 2)
  .map(([name, { width, height }]) => `${name}: ${Math.round(width)}×${Math.round(height)}`)"""


@pytest.mark.parametrize("page", [PHONE | {"is_mobile": True}], indirect=True)
def test_touch_targets_are_44_pixels_large(page):
    for tab in visit_every_tab(page):
        assert page.evaluate(SMALL) == [], tab


@pytest.mark.parametrize("page", [PHONE | {"is_mobile": True}], indirect=True)
def test_two_fingers_enlarge_the_picture_and_move_it(page):
    four_faces(page)
    at_the_answer(page)
    sheet = page.locator("#result .sheet")
    box, client = sheet.bounding_box(), page.context.new_cdp_session(page)
    scrolled = page.evaluate("scrollY")
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def touch(kind: str, *places: tuple[float, float]) -> None:
        points = [{"x": px, "y": py, "id": number} for number, (px, py) in enumerate(places)]
        client.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    def corner() -> tuple[float, float, float]:
        at = page.locator("#result .base").bounding_box()
        return at["x"], at["y"], at["width"] / box["width"]

    touch("touchStart", (x, y - 20), (x, y + 20))
    for apart in range(25, 65, 5):
        touch("touchMove", (x, y - apart), (x, y + apart))
    assert corner()[2] == pytest.approx(3, abs=0.05), "as the fingers moved apart"
    assert corner()[0] + corner()[2] * box["width"] / 2 == pytest.approx(x, abs=1), (
        "what was between them stays there"
    )
    before = corner()
    for move in range(5, 45, 5):
        touch("touchMove", (x + move, y - 60), (x + move, y + 60))
    after = corner()
    assert (after[0] - before[0], after[1] - before[1]) == pytest.approx((40, 0), abs=3), (
        "it goes with the fingers"
    )
    assert after[2] == pytest.approx(3, abs=0.1)
    touch("touchEnd")
    touch("touchStart", (x, y))
    for move in range(5, 45, 5):
        touch("touchMove", (x, y - move))
    touch("touchEnd")
    assert corner()[1] - after[1] == pytest.approx(-40, abs=3), "and with one finger, once it is enlarged"
    assert page.evaluate("scrollY") == scrolled and page.evaluate("visualViewport.scale") == 1


# --- A server that goes and comes back ------------------------------------------------------------------

TOASTS = """() => [...document.querySelectorAll(".server-word, .toast-body")]
  .filter((each) => each.checkVisibility() && each.innerText).map((each) => each.innerText)"""


@pytest.mark.slow
def test_a_server_that_goes_and_comes_back_is_told_once(browser, root, tmp_path):
    port, page = free_port(), browser.new_context(**LAPTOP).new_page()
    word = page.locator(".server-word")
    with serving(root, tmp_path, port) as address:
        page.goto(address)
        four_faces(page)
    page.locator("#face .strip button").nth(1).click()  # nobody answers, which Gradio tells too
    expect(word).to_contain_text("does not answer", timeout=PATIENCE_MS)
    page.wait_for_timeout(1000)
    assert len(page.evaluate(TOASTS)) == 1
    with serving(root, tmp_path, port):
        expect(word).to_contain_text("no longer has your photo", timeout=PATIENCE_MS)
        four_faces(page)
        page.context.close()


def test_a_photo_of_many_faces(page, root, tmp_path):
    """The portraits of four_faces, tiled: 64 faces, one stop for the Tab key, buttons of their own size."""
    picture = cv2.imread(str(root / "examples" / "four_faces.jpg"))
    tile = cv2.resize(picture, (300, 300), interpolation=cv2.INTER_AREA)
    path = tmp_path / "many.png"
    cv2.imwrite(str(path), np.tile(tile, (4, 4, 1)))
    page.locator("#photo input[type=file]").set_input_files(path)
    expect(page.locator("#answer")).to_contain_text("faces in many.png", timeout=PATIENCE_MS)
    assert page.locator("#result .faces [data-face]").count() > 40
    expect(page.locator("#result .faces button[tabindex='0']")).to_have_count(1)
    expect(page.locator("#face .strip button[tabindex='0']")).to_have_count(1)
