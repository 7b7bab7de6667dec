"""Pictures of the page for README and docs: starts it, goes through it in Chromium, and takes them.

    python benchmarks/screenshots.py           docs/page*.png, in two minutes
    python benchmarks/screenshots.py --all DIR every tab, empty, light and dark, desktop and phone, to look at

Chromium is the one that CHROMIUM names or that is found on PATH.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "examples"
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 860}}
PHONE: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
PATIENCE_MS = 180_000


@contextmanager
def served() -> Iterator[str]:
    """Address of a page of its own."""
    command = [sys.executable, str(ROOT / "app.py"), "--no-browser", "--host", "127.0.0.1"]
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | {"GRADIO_TEMP_DIR": folder}
        ) as process,
    ):
        try:
            assert process.stdout is not None
            line = next((line for line in process.stdout if line.startswith("Ready after ")), None)
            if line is None:
                raise RuntimeError("the page did not start")
            yield line.split()[4]
        finally:
            process.terminate()


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


def save(page: Page, path: Path, whole: bool = False) -> None:
    """Three quarters of its size, in 256 colours: a small file."""
    picture = Image.open(io.BytesIO(page.screenshot(full_page=whole))).convert("RGB")
    smaller = picture.resize((picture.width * 3 // 4, picture.height * 3 // 4), Image.Resampling.LANCZOS)
    smaller.quantize(256).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def for_readme(browser: Browser, address: str) -> None:
    page = opened(browser, address, **DESKTOP)
    four_faces(page)
    save(page, ROOT / "docs" / "page.png")
    clip(page)
    save(page, ROOT / "docs" / "page-video.png")
    phone = opened(browser, address, **PHONE)
    four_faces(phone)
    phone.locator("#answer").scroll_into_view_if_needed()
    save(phone, ROOT / "docs" / "page-phone.png")


def every_tab(browser: Browser, address: str, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for size, options in (("desktop", DESKTOP), ("phone", PHONE)):
        for scheme in ("light", "dark"):
            page = opened(browser, address, **options, color_scheme=scheme)
            for tab in ("Photo", "Live", "Video", "About"):
                page.get_by_role("tab", name=tab).click()
                page.wait_for_timeout(1500)
                save(page, folder / f"{tab.lower()}-empty-{size}-{scheme}.png")
            page.get_by_role("tab", name="Photo").click()
            four_faces(page)
            save(page, folder / f"photo-{size}-{scheme}.png", whole=True)
            page.context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description="Pictures of the page.")
    parser.add_argument(
        "--all", metavar="DIR", type=Path, help="every tab, to look at, instead of docs/page*.png"
    )
    args = parser.parse_args()
    path = os.environ.get("CHROMIUM") or next(
        filter(None, map(shutil.which, ("chromium", "google-chrome"))), None
    )
    if path is None:
        sys.exit("no Chromium: install it, or name it with the environment variable CHROMIUM")
    with served() as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        if args.all:
            every_tab(browser, address, args.all)
        else:
            for_readme(browser, address)


if __name__ == "__main__":
    main()
