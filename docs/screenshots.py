"""Pictures of the page for README and docs: starts it, goes through it in Chromium, and takes them.

    python docs/screenshots.py           # docs/page*.jpg, in two minutes
"""

import io
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image
from playwright.sync_api import Browser, Page

from benchmarks import serving
from benchmarks.published import ROOT

DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
PATIENCE_MS = 180_000


def opened(browser: Browser, address: str, **options: Any) -> Page:
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    page.goto(address)
    page.get_by_text("Drop photos here").wait_for()
    return page


def four_faces(page: Page) -> None:
    page.locator("#photo [data-example]").nth(2).click()
    page.get_by_text("Found 4 faces").wait_for()
    page.locator("#result .faces [data-face='2']").dispatch_event("click")
    page.get_by_text("Face 3 of 4", exact=True).wait_for()
    page.wait_for_timeout(1500)
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(500)


def clip(page: Page) -> None:
    page.get_by_role("tab", name="Video").click()
    page.locator("#clip [data-example]").first.click()
    page.locator("#clip-answer .timeline").wait_for()
    page.wait_for_timeout(2000)


def save(page: Page, path: Path) -> None:
    """Three quarters of its size: a small file."""
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    smaller = picture.resize((picture.width * 3 // 4, picture.height * 3 // 4), Image.Resampling.LANCZOS)
    smaller.save(path, quality=88, subsampling=0, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def for_readme(browser: Browser, address: str) -> None:
    page = opened(browser, address, **DESKTOP)
    four_faces(page)
    save(page, ROOT / "docs" / "page.jpg")
    clip(page)
    save(page, ROOT / "docs" / "page-video.jpg")
    phone = opened(browser, address, **PHONE)
    four_faces(phone)
    phone.locator("#answer").scroll_into_view_if_needed()
    save(phone, ROOT / "docs" / "page-phone.jpg")


if __name__ == "__main__":
    with (
        tempfile.TemporaryDirectory() as folder,
        serving.served(Path(folder)) as page,
        serving.chromium() as browser,
    ):
        for_readme(browser, page.address)
