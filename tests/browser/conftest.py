"""The page as a visitor meets it: `python app.py` with the bundled weights, and headless Chromium.

Chromium is the one that CHROMIUM names or that is found on PATH. Without it the tests are skipped, but fail
where CI=true.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from playwright.sync_api import ConsoleMessage, Page, sync_playwright

from tests.browser import website

HERE = Path(__file__).parent
PATIENCE_MS = 20_000


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("browser")


@pytest.fixture(scope="session")
def chromium_path() -> str:
    names = ("chromium", "chromium-browser", "google-chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say("no Chromium: install it, or name it with the environment variable CHROMIUM")
    return path


@pytest.fixture(scope="session")
def address(root: Path, tmp_path_factory: pytest.TempPathFactory, chromium_path: str) -> Iterator[str]:
    """Address of a running page."""
    with serving(root, tmp_path_factory.mktemp("page")) as url:
        yield url


@pytest.fixture(scope="session")
def built_website(root: Path, chromium_path: str) -> Path:
    """The folder of the browser edition as `npm run build` makes it. Without Node the tests are skipped, but
    fail where CI=true."""
    npm = shutil.which("npm")
    if npm is None:
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say("no Node: install it (as Debian's nodejs and npm)")
    web = root / "web"
    commands = [] if (web / "node_modules").is_dir() else [[npm, "ci", "--no-audit", "--no-fund"]]
    for command in [*commands, [npm, "run", "build"]]:
        done = subprocess.run(command, cwd=web, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    return web / "dist"


@pytest.fixture
def site(built_website: Path) -> Iterator[website.Website]:
    """The browser edition on a host of static files, which counts requests from here on."""
    with website.serving(built_website) as served:
        yield served


@contextmanager
def serving(root: Path, folder: Path, port: int | None = None, **settings: str) -> Iterator[str]:
    """Address of a page with settings FKP_…, whose process is kept from reaching beyond this computer.

    What is uploaded goes to `uploads` in the folder. The port is a free one, if none is given.
    """
    log, refused = folder / "app.log", folder / "refused.log"
    refused.touch()
    port = port or free_port()
    python_path = [str(HERE / "loopback_only"), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, python_path)),
        "LOOPBACK_ONLY_LOG": str(refused),
        "GRADIO_TEMP_DIR": str(folder / "uploads"),
    }
    for name in [name for name in environment if name.startswith("FKP_")]:
        del environment[name]
    environment |= settings
    command = [sys.executable, "app.py", "--no-browser", "--host", "127.0.0.1", "--port", str(port)]
    with open(log, "wb") as output:
        process = subprocess.Popen(command, cwd=root, env=environment, stdout=output, stderr=output)
    try:
        url = f"http://127.0.0.1:{port}/"
        wait_until_it_answers(url, process, log)
        yield url
    finally:
        process.terminate()
        process.wait(60)
    assert refused.read_text() == "", "the page's process tried to reach beyond this computer"
    assert "Traceback" not in log.read_text(), log.read_text()
    left = [path for path in (folder / "uploads").rglob("*") if path.is_file() or path.name.startswith("fkp")]
    assert left == [], "something is left when the program has ended"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until_it_answers(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            pytest.fail(f"app.py ended with status {process.returncode}:\n{log.read_text()}")
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"app.py did not answer within two minutes:\n{log.read_text()}")


@pytest.fixture(scope="session")
def webcam_film(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the webcam shows: Eileen Collins, 512 pixels wide, in the middle of 640×480."""
    portrait = cv2.imread(str(root / "examples" / "eileen_collins.jpg"))
    frame = cv2.copyMakeBorder(portrait[:480], 0, 0, 64, 64, cv2.BORDER_REPLICATE)
    planes = cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420).tobytes()
    path = tmp_path_factory.mktemp("webcam") / "portrait.y4m"
    path.write_bytes(b"YUV4MPEG2 W640 H480 F10:1 Ip A1:1 C420jpeg\n" + 5 * (b"FRAME\n" + planes))
    return path


# Not for the session: as long as it lives, playwright keeps an event loop running under every other test.
@pytest.fixture(scope="module")
def browser(chromium_path: str, webcam_film: Path):
    arguments = [
        "--no-sandbox",
        "--use-fake-ui-for-media-stream",
        "--use-fake-device-for-media-stream",
        f"--use-file-for-fake-video-capture={webcam_film}",
        # Else it shows no page of this computer in a frame of another site, whatever the page allows.
        "--disable-features=LocalNetworkAccessChecks",
    ]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=arguments)
        yield browser
        browser.close()


def refusals(page: Page) -> list[str]:
    """What the page's content security policy refuses from now on, as the browser's console tells it."""
    refused: list[str] = []

    def hear(message: ConsoleMessage) -> None:
        if "Content Security Policy" in message.text:
            refused.append(message.text)

    page.on("console", hear)
    return refused


@pytest.fixture
def page(browser, address: str, request: pytest.FixtureRequest):
    """The page, opened anew; at the end no request may have gone elsewhere, none may have been refused by the
    content security policy, and no script may have failed.

    It scrolls at once, so that nothing is measured on the way. A parameter, if any, holds options of a
    browser context, as {"color_scheme": "dark"}.
    """
    usual = {"viewport": {"width": 1280, "height": 900}, "reduced_motion": "reduce"}
    options = usual | getattr(request, "param", {})
    context = browser.new_context(**options)
    context.set_default_timeout(PATIENCE_MS)
    page = context.new_page()
    hosts, failures = set(), []
    refused = refusals(page)
    page.on("request", lambda request: hosts.add(urlsplit(request.url).hostname))
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(address)
    page.get_by_text("Drop photos here").wait_for()
    yield page
    context.close()
    assert hosts - {None} == {"127.0.0.1"}, "a request left this computer"  # None: data: and blob: addresses
    assert failures == []
    assert refused == []


@pytest.fixture
def photo_without_a_face(tmp_path: Path) -> Path:
    path = tmp_path / "sky.png"
    cv2.imwrite(str(path), np.full((240, 320, 3), (230, 190, 140), np.uint8))
    return path
