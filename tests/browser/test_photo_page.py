"""A visitor's ways through the photo page, in Chromium, with the weights that users have."""

from __future__ import annotations

import base64
import csv
import json
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import Download, Page, expect

from fkp import images

EILEEN_COLLINS = {
    "right eye": (range(36, 42), (203, 101)),
    "left eye": (range(42, 48), (246, 103)),
    "corners of the mouth": ((48, 54), (223, 140)),
    "chin": ((8,), (223, 179)),
}
"""Middles of points in her portrait, measured by hand; the outer eye corners are 64 pixels apart."""
CLOSE = 6  # pixels

PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True}
DARK = {"color_scheme": "dark"}


def choose(page: Page, *paths: Path) -> None:
    page.locator("#photo input[type=file]").set_input_files(paths)


def expect_answer(page: Page, text: str) -> None:
    expect(page.locator("#answer")).to_contain_text(text, timeout=20_000)


def expect_no_broken_picture(page: Page) -> None:
    broken = "image => image.checkVisibility() && !image.naturalWidth"
    assert page.evaluate(f"[...document.images].filter({broken}).map(image => image.outerHTML)") == []


def save(page: Page, button: str) -> Path:
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).click()
    path = download.value.path()
    return path.rename(path.with_name(download.value.suggested_filename))


def saved_record(page: Page) -> dict:
    (record,) = json.loads(save(page, "Save JSON").read_text(encoding="utf-8"))
    return record


def assert_eileen_collins(record: dict, offset_xy: tuple[int, int] = (0, 0)) -> None:
    # Hers is the largest; a reflection on her helmet looks like another.
    keypoints = np.array(record["faces"][0]["keypoints"]) - offset_xy
    for part, (points, middle) in EILEEN_COLLINS.items():
        distance = np.linalg.norm(keypoints[list(points)].mean(axis=0) - middle)
        assert distance < CLOSE, f"{part}: {distance:.1f} pixels off"


@pytest.fixture
def portrait(root: Path) -> Path:
    return root / "examples" / "grace_hopper.jpg"


@pytest.fixture
def four_faces(root: Path) -> Path:
    return root / "examples" / "four_faces.jpg"


# --- Giving photos --------------------------------------------------------------------------------------


def test_a_photo_is_answered_drawn_and_saved(page, root):
    photo = root / "examples" / "eileen_collins.jpg"
    choose(page, photo)
    expect_answer(page, "Found")
    expect(page.locator("#result .base")).to_be_visible()
    expect_no_broken_picture(page)

    record = saved_record(page)
    assert (record["image"], record["width"], record["height"]) == ("eileen_collins.jpg", 512, 512)
    assert_eileen_collins(record)

    table = save(page, "Save CSV")
    assert table.name == "eileen_collins_keypoints.csv"
    with table.open(encoding="utf-8", newline="") as file:
        row, *_ = csv.DictReader(file)
    assert float(row["x36"]) == record["faces"][0]["keypoints"][36][0]

    drawn, before = images.read(save(page, "Save picture")), images.read(photo)
    x1, y1, x2, y2 = np.round(record["faces"][0]["box"]).astype(int)
    changed = (drawn != before).any(axis=2)
    assert 0.05 < changed[y1:y2, x1:x2].mean() < 0.6
    assert not changed[: y1 - 30].any()


@pytest.mark.parametrize("number, faces", [(0, 1), (1, 1), (2, 4)])
def test_examples_run_on_a_click(page, number, faces):
    page.locator("#photo [data-example]").nth(number).click()
    expect_answer(page, "Found")
    expect(page.locator("#result .faces button").nth(faces - 1)).to_be_visible()


def test_photos_several_at_once(page, portrait, four_faces, photo_without_a_face, tmp_path):
    note = tmp_path / "note.jpg"
    note.write_text("milk, bread, apples")
    choose(page, portrait, note, four_faces, photo_without_a_face)
    expect_answer(page, "Found 1 face in grace_hopper.jpg")
    photos = page.locator("#photos button")
    expect(photos).to_have_count(4)
    expect_no_broken_picture(page)

    photos.nth(2).click()
    expect_answer(page, "Found 4 faces in four_faces.jpg")
    photos.nth(1).click()
    expect_answer(page, "note.jpg is no picture")
    expect(page.locator("#result .base")).to_be_hidden()
    photos.nth(3).focus()
    page.keyboard.press("Enter")
    expect_answer(page, "No face found in sky.png")

    records = json.loads(save(page, "Save JSON").read_text(encoding="utf-8"))
    assert [(r["image"], len(r["faces"])) for r in records] == [
        ("grace_hopper.jpg", 1), ("four_faces.jpg", 4), ("sky.png", 0),
    ]  # fmt: skip
    with zipfile.ZipFile(save(page, "Save all pictures")) as archive:
        assert len(archive.namelist()) == 3
    with zipfile.ZipFile(save(page, "Save all as JPEG")) as archive:
        assert archive.read("grace_hopper_keypoints.jpg").startswith(b"\xff\xd8\xff")


def test_files_that_are_saved_quickly_one_after_the_other_all_come(page, portrait, four_faces):
    choose(page, portrait, four_faces)
    expect(page.locator("#photos button:enabled")).to_have_count(2)
    page.locator("#photos button").nth(1).click()
    expect_answer(page, "four_faces.jpg")
    names = {
        "Save picture": "four_faces_keypoints.png",
        "Save as JPEG": "four_faces_keypoints.jpg",
        "Save all pictures": "keypoints.zip",
        "Save all as JPEG": "keypoints.zip",
        "Save JSON": "keypoints.json",
        "Save CSV": "keypoints.csv",
    }
    came: list[Download] = []
    page.on("download", lambda download: came.append(download))
    for _ in range(3):
        came.clear()
        for name in names:
            page.get_by_role("button", name=name, exact=True).evaluate("button => button.click()")
        for _ in range(100):
            if len(came) < len(names):
                page.wait_for_timeout(200)
        assert sorted(each.suggested_filename for each in came) == sorted(names.values())
        for each in came:
            assert each.failure() is None and each.path().stat().st_size > 1000
        page.wait_for_timeout(1500)  # Chromium lets a page save ten in a second


def test_work_that_is_going_on_is_told_and_can_be_stopped(page, four_faces, tmp_path):
    pixels = cv2.resize(cv2.imread(str(four_faces)), (3000, 3000))
    paths = [tmp_path / f"{number}.jpg" for number in range(20)]
    for path in paths:
        cv2.imwrite(str(path), pixels)
    choose(page, *paths)
    expect(page.locator("#photos")).to_contain_text("of 20 done …", timeout=60_000)
    expect(page.locator("#photos button").first).to_be_disabled()
    page.get_by_role("button", name="Clear", exact=True).click()
    expect_answer(page, "Choose a photo")
    page.wait_for_timeout(1500)
    expect_answer(page, "Choose a photo")
    expect(page.locator("#photos button")).to_have_count(0)
    assert "Error" not in page.locator("body").inner_text()


def test_photo_without_a_face_is_told_kindly_and_can_be_tried_again(page, photo_without_a_face, portrait):
    choose(page, photo_without_a_face)
    expect_answer(page, "No face found")
    expect(page.get_by_role("button", name="Save picture")).to_be_disabled()
    page.get_by_role("button", name="Clear", exact=True).click()
    expect_answer(page, "Choose a photo")
    expect(page.locator("#result .base")).to_be_hidden()
    choose(page, portrait)
    expect_answer(page, "Found 1 face")
    choose(page, portrait)
    page.wait_for_timeout(300)
    expect_answer(page, "Found 1 face")


def test_photo_that_is_no_picture_is_told_kindly(page, tmp_path):
    note = tmp_path / "holiday.jpg"
    note.write_text("milk, bread, apples")
    choose(page, note)
    expect_answer(page, "holiday.jpg is no picture")
    assert "/" not in page.locator("#answer").inner_text(), "a path of the server is shown"
    expect_no_broken_picture(page)


def test_names_are_shown_as_they_are(page, tmp_path, portrait):
    """Nothing in a name is run, whatever Gradio leaves of it."""
    photo = tmp_path / "a<img src=x onerror=document.title=1>${document.title=2}.jpg"
    photo.write_bytes(portrait.read_bytes())
    choose(page, photo, photo_copy(portrait, tmp_path))
    expect_answer(page, "Found 1 face in a")
    expect(page.locator("#photos button")).to_have_count(2)
    assert page.title() == "Face keypoints"


def photo_copy(photo: Path, folder: Path) -> Path:
    copy = folder / "other.jpg"
    copy.write_bytes(photo.read_bytes())
    return copy


def test_a_file_that_is_too_large_is_not_even_sent(page, tmp_path):
    large = tmp_path / "large.jpg"
    with large.open("wb") as file:
        file.truncate(50_500_000)
    sent = []
    page.on("request", lambda request: sent.append(request.url))
    choose(page, large)
    expect(page.get_by_role("alert")).to_have_text(
        "large.jpg has 50.5 MB, which is more than the limit of 50 MB."
    )
    assert not any("upload" in url for url in sent)


def test_a_large_photo_is_shown_scaled_and_saved_in_full(page, portrait, tmp_path):
    pixels = cv2.resize(cv2.imread(str(portrait)), (2048, 2400))
    cv2.imwrite(str(tmp_path / "large.jpg"), pixels)
    choose(page, tmp_path / "large.jpg")
    expect_answer(page, "2048×2400 pixels, shown at 1365×1600; the saved picture has its full size")
    assert page.locator("#result .base").evaluate("image => image.naturalWidth") == 1365
    assert images.read(save(page, "Save picture")).shape == (2400, 2048, 3)


@pytest.mark.parametrize("others", [["four_faces.jpg"], ["four_faces.jpg", "grace_hopper.jpg"], None])
def test_what_is_given_while_others_are_sent_takes_their_place(page, root, tmp_path, others):
    """Other photos, or an example."""
    page.on("requestfailed", lambda request: failed.append(request.url))
    failed = []
    noise = np.random.default_rng(0).integers(0, 255, (1000, 1000, 3), np.uint8)  # 3 MB
    cv2.imwrite(str(tmp_path / "noise.png"), noise)
    slow = {"offline": False, "latency": 0, "downloadThroughput": -1, "uploadThroughput": 200_000}
    network = page.context.new_cdp_session(page)
    network.send("Network.emulateNetworkConditions", slow)
    choose(page, tmp_path / "noise.png", tmp_path / "noise.png")
    expect(page.locator("#photo .told")).to_contain_text("Sending the photo 1 of 2 … ")
    if others:
        choose(page, *(root / "examples" / name for name in others))
    else:
        page.locator("#photo [data-example]").nth(2).click()
    network.send("Network.emulateNetworkConditions", slow | {"uploadThroughput": -1})
    expect_answer(page, "Found 4 faces in four_faces.jpg")
    expect(page.locator("#photo .told")).to_have_text("")
    expect(page.locator("#photos button")).to_have_count(len(others) if others and len(others) > 1 else 0)
    assert [url for url in failed if url.endswith("/upload")], "nobody waits for what nobody wants"


@pytest.mark.parametrize(
    "status, kind, body, told",
    [
        (413, "text/html", "<html><h1>413 Request Entity Too Large</h1></html>", "larger"),
        (413, "text/plain", "Maximum file size exceeded", "larger"),
        (413, "application/json", '{"detail": "20 MB at most."}', "20 MB at most."),
        (502, "text/html", "<html>Bad gateway</html>", "Please try again."),
        (200, "text/html", "<html>Please log in</html>", "Please try again."),
    ],
)
def test_an_upload_that_is_refused_is_told_in_a_sentence(page, portrait, status, kind, body, told):
    """Whoever refuses it: proxies know no JSON."""
    answer = {"status": status, "content_type": kind, "body": body}
    page.route("**/gradio_api/upload", lambda route: route.fulfill(**answer))
    choose(page, portrait)
    alert = page.locator("#photo .told")
    expect(alert).to_contain_text(f"{portrait.name} could not be sent.")
    expect(alert).to_contain_text(told)
    assert not set("<{") & set(alert.inner_text()) and "JSON" not in alert.inner_text()


GIVE = """([kind, encoded]) => {
  const bytes = Uint8Array.from(atob(encoded), letter => letter.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], "given.jpg", {type: "image/jpeg"}));
  const target = kind === "paste" ? document.body : document.querySelector("#photo .drop");
  const event = kind === "paste"
    ? new ClipboardEvent(kind, {clipboardData: data, bubbles: true, cancelable: true})
    : new DragEvent(kind, {dataTransfer: data, bubbles: true, cancelable: true});
  target.dispatchEvent(event);
}"""


@pytest.mark.parametrize("way", ["paste", "drop"])
def test_a_photo_can_be_pasted_and_dropped(page, portrait, way):
    page.evaluate(GIVE, [way, base64.b64encode(portrait.read_bytes()).decode()])
    expect_answer(page, "Found 1 face in given.jpg")


def test_paste_under_another_tab_is_left_alone(page, portrait):
    page.get_by_role("tab", name="About").click()
    page.evaluate(GIVE, ["paste", base64.b64encode(portrait.read_bytes()).decode()])
    page.get_by_role("tab", name="Photo").click()
    page.wait_for_timeout(500)
    expect_answer(page, "Choose a photo")


def test_a_webcam_snapshot_is_not_mirrored(page):
    page.get_by_role("button", name="Use the camera").click()
    page.wait_for_function("document.querySelector('#photo video').videoWidth > 0")
    page.get_by_role("button", name="Take the photo").click()
    expect_answer(page, "Found")
    expect(page.locator("#photo video")).to_be_hidden()
    assert page.evaluate("document.querySelector('#photo video').srcObject") is None
    assert_eileen_collins(saved_record(page), offset_xy=(64, 0))


def test_a_camera_that_is_refused_is_told(page):
    refuse = "async () => { throw new DOMException('', 'NotAllowedError') }"
    page.evaluate(f"() => {{ navigator.mediaDevices.getUserMedia = {refuse} }}")
    page.get_by_role("button", name="Use the camera").click()
    expect(page.get_by_role("alert")).to_have_text("The browser was not allowed to use the camera.")


CAMERAS = """() => {
  window.streams = [];
  const ask = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
  navigator.mediaDevices.getUserMedia = async (wanted) => {
    await new Promise((done) => setTimeout(done, 300));  // as long as it takes to allow it
    const stream = await ask(wanted);
    window.streams.push(stream);
    return stream;
  };
}"""
"""Notes every stream of the camera that the page gets."""
LIVE = "streams.filter((each) => each.getTracks().some(({ readyState }) => readyState === 'live')).length"


def expect_streams(page: Page, live: int) -> None:
    """So many streams of the camera are live, now and a while later."""
    page.wait_for_function(f"{LIVE} === {live}")
    page.wait_for_timeout(500)
    assert page.evaluate(LIVE) == live


def test_the_camera_is_opened_once_and_closed(page):
    page.evaluate(CAMERAS)
    use = page.get_by_role("button", name="Use the camera")
    use.dblclick()
    expect_streams(page, 1)
    use.click()
    expect_streams(page, 1)
    page.get_by_role("button", name="Close the camera").click()
    expect_streams(page, 0)
    expect(page.locator("#photo video")).to_be_hidden()
    use.click()
    expect_streams(page, 1)  # it can be opened anew


def test_the_camera_goes_off_with_its_tab(page):
    page.evaluate(CAMERAS)
    photo, about = (page.get_by_role("tab", name=name) for name in ("Photo", "About"))
    page.get_by_role("button", name="Use the camera").click()
    expect_streams(page, 1)
    about.click()
    expect_streams(page, 0)
    photo.click()
    expect(page.locator("#photo video")).to_be_hidden()
    page.get_by_role("button", name="Use the camera").click()
    about.click()  # before there is a stream
    page.wait_for_function("streams.length === 2")
    expect_streams(page, 0)


# --- Looking at what was found --------------------------------------------------------------------------


def test_view_options_draw_again(page, portrait):
    choose(page, portrait)
    expect_answer(page, "Found 1 face")
    overlay = page.locator("#result .overlay")
    base = page.locator("#result .base").get_attribute("src")
    for option in ("Boxes", "Mesh", "Numbers of points", "Numbers of faces", "Confidence"):
        before = overlay.get_attribute("src")
        page.get_by_label(option, exact=True).check()
        expect(overlay).not_to_have_attribute("src", before)
    expect(page.get_by_text("confidence: 0 %")).to_be_visible()
    before = overlay.get_attribute("src")
    page.locator("#size input[type=range]").fill("2")
    expect(overlay).not_to_have_attribute("src", before)
    assert page.locator("#result .base").get_attribute("src") == base
    expect_answer(page, "Found 1 face")


def test_a_face_is_chosen_in_the_picture_in_the_row_and_by_keyboard(page, four_faces):
    choose(page, four_faces)
    heading = page.locator("#face h2")
    expect(heading).to_have_text("Face 1 of 4")
    expect(page.locator("#points tbody tr")).to_have_count(68)
    enlarged = page.locator("#face .enlarged").get_attribute("src")

    page.locator("#result .faces button").nth(2).click()
    expect(heading).to_have_text("Face 3 of 4")
    expect(page.locator("#face .enlarged")).not_to_have_attribute("src", enlarged)
    expect(page.locator("#result .faces [aria-pressed=true]")).to_have_attribute("data-face", "2")

    page.locator("#face .strip button").nth(1).click()
    expect(heading).to_have_text("Face 2 of 4")
    page.locator("#result .faces button").nth(3).focus()
    page.keyboard.press("Enter")
    expect(heading).to_have_text("Face 4 of 4")
    expect_no_broken_picture(page)


@pytest.mark.parametrize("way", ["keys", "number"])
def test_sliders_count_without_a_mouse(page, portrait, four_faces, way):
    choose(page, portrait, four_faces)
    expect(page.locator("#photos button:enabled")).to_have_count(2)
    page.locator("#photos button").nth(1).click()
    expect_answer(page, "Found 4 faces in four_faces.jpg")
    if way == "keys":
        page.locator("#most input[type=range]").focus()
        for key in ("Home", "ArrowRight", "Tab"):
            page.keyboard.press(key)
    else:
        page.locator("#most input[type=number]").fill("2")
        page.keyboard.press("Enter")
    expect_answer(page, "More than 2 faces in four_faces.jpg")
    page.get_by_label("Boxes", exact=True).check()  # it has no say in what the slider asked for
    page.locator("#most input[type=range]").focus()
    page.keyboard.press("Home")
    page.get_by_role("tab", name="Video").click()
    page.locator("#clip-most input[type=range]").press("Home")
    page.get_by_role("tab", name="Photo").click()
    expect_answer(page, "More than 1 face in four_faces.jpg")


def test_before_and_after(page, portrait):
    choose(page, portrait)
    expect_answer(page, "Found 1 face")
    overlay, slider = page.locator("#result .overlay"), page.locator("#result input[type=range]")
    clip = "overlay => getComputedStyle(overlay).clipPath"
    assert overlay.evaluate(clip) in ("inset(0px)", "inset(0px 0% 0px 0px)", "inset(0px calc(0%) 0px 0px)")
    slider.focus()
    page.keyboard.press("Home")
    assert "100%" in overlay.evaluate(clip)
    slider.fill("40")
    assert "60%" in overlay.evaluate(clip)
    page.get_by_label("Boxes", exact=True).check()  # drawing again leaves the slider where it is
    page.wait_for_timeout(500)
    assert "60%" in overlay.evaluate(clip) and slider.input_value() == "40"


def test_the_picture_fills_the_screen(page, portrait):
    choose(page, portrait)
    page.get_by_role("button", name="Full screen").click()
    page.wait_for_function("document.fullscreenElement?.className === 'viewer'")
    expect(page.locator("#result input[type=range]")).to_be_visible()
    page.get_by_role("button", name="Leave full screen").click()
    page.wait_for_function("!document.fullscreenElement")


def test_about_tells_figures_and_shows_plots(page):
    page.get_by_role("tab", name="About").click()
    expect(page.get_by_role("heading", name="How good it is")).to_be_visible()
    expect(page.locator("#about tbody tr").first).to_be_visible()
    expect(page.locator("#about figure img").last).to_be_visible()
    expect_no_broken_picture(page)
    expect(page.get_by_text("60 minutes after it came at the latest")).to_have_count(2)  # photos, clips


def test_the_browser_is_asked_to_remember_nothing(page, portrait):
    choose(page, portrait)
    expect_answer(page, "Found 1 face")
    save(page, "Save JSON")
    kept = "[...Object.keys(localStorage), ...Object.keys(sessionStorage)]"
    assert page.evaluate(kept) == [] and page.context.cookies() == []
    assert page.evaluate("async () => (await indexedDB.databases()).map(each => each.name)") == []


# --- For everybody --------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", [PHONE, PHONE | DARK], ids=["light", "dark"], indirect=True)
def test_a_phone_has_room_for_everything(page, four_faces):
    choose(page, four_faces)
    expect_answer(page, "Found 4 faces")
    expect(page.locator("#answer")).to_be_in_viewport()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    # What was found comes before the options.
    answer, options = page.locator("#answer").bounding_box(), page.locator("#options").bounding_box()
    assert answer["y"] < options["y"]
    page.get_by_role("tab", name="About").click()
    expect(page.locator("#about h2").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_everything_is_reached_and_named(page, four_faces):
    """Pictures have an alt text, controls a name, and the keyboard comes to what can be pressed."""
    choose(page, four_faces)
    expect(page.locator("#face h2")).to_be_visible()
    assert page.locator("img:not([alt])").count() == 0
    nameless = """[...document.querySelectorAll("button, input, a, video")]
      .filter(each => each.checkVisibility() && !(each.ariaLabel || each.innerText || each.labels?.length))
      .map(each => each.outerHTML)"""
    assert page.evaluate(nameless) == []
    reached = set()
    page.locator("body").focus()
    for _ in range(90):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.ariaLabel || document.activeElement.innerText"))
    wanted = {"Choose photos", "Use the camera", "Paste", "Save picture", "Save JSON", "Clear", "Full screen"}
    assert wanted <= reached and any("Face 1 of 4" in name for name in reached)
    assert page.evaluate("document.documentElement.lang")


def test_a_visitor_without_a_mouse(page):
    """From an example to the saved numbers, by keys alone."""

    def go_to(name: str) -> None:
        for _ in range(100):
            page.keyboard.press("Tab")
            at = "document.activeElement"
            label = f"{at}.ariaLabel || {at}.innerText || {at}.labels?.[0]?.innerText || ''"
            if page.evaluate(label).strip().startswith(name):
                return
        raise AssertionError(f"the keyboard does not come to {name}")

    page.get_by_role("tab", name="Photo").focus()
    go_to("Try the example Four faces")
    page.keyboard.press("Enter")
    expect_answer(page, "Found 4 faces")
    overlay = page.locator("#result .overlay")
    before = overlay.get_attribute("src")
    go_to("Boxes")
    page.keyboard.press("Space")
    expect(overlay).not_to_have_attribute("src", before)
    page.locator("#size input[type=range]").focus()
    before = overlay.get_attribute("src")
    page.keyboard.press("ArrowRight")
    expect(overlay).not_to_have_attribute("src", before)
    go_to("Save JSON")
    with page.expect_download():
        page.keyboard.press("Enter")
    go_to("Clear")
    page.keyboard.press("Enter")
    expect_answer(page, "Choose a photo")


CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = colour => {
    canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = ([r, g, b, a], below) => [r, g, b].map((value, i) => value * a + below[i] * (1 - a));
  const light = colour => colour.map(value => value / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const background = element => {
    const colours = [];
    for (; element; element = element.parentElement)
      colours.push(rgba(getComputedStyle(element).backgroundColor));
    return colours.reverse().reduce((below, colour) => over(colour, below), [255, 255, 255]);
  };
  const faint = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const element = walker.currentNode.parentElement;
    const hidden = !element.checkVisibility({visibilityProperty: true, opacityProperty: true});
    if (!walker.currentNode.data.trim() || hidden || element.closest(".sheet")) continue;
    const below = background(element);
    let opacity = 1;
    for (let each = element; each; each = each.parentElement) opacity *= getComputedStyle(each).opacity;
    const [r, g, b, a] = rgba(getComputedStyle(element).color);
    const [one, other] = [light(over([r, g, b, a * opacity], below)), light(below)].sort((a, b) => b - a);
    const contrast = (one + 0.05) / (other + 0.05);
    if (contrast < 4.5) faint.push(`${walker.currentNode.data.trim()}: ${contrast.toFixed(2)}`);
  }
  return faint;
}"""


@pytest.mark.parametrize("page", [{}, DARK], ids=["light", "dark"], indirect=True)
def test_text_stands_out_from_its_background(page, four_faces):
    """By at least 4.5, as WCAG 2 asks for at level AA."""
    page.add_style_tag(content="* { transition: none !important; animation: none !important; }")
    choose(page, four_faces)
    expect(page.locator("#face h2")).to_be_visible()
    assert page.evaluate(CONTRASTS) == []
    page.get_by_role("tab", name="About").click()
    expect(page.locator("#about h2").first).to_be_visible()
    assert page.evaluate(CONTRASTS) == []
