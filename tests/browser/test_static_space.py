"""A Static Space: its folder is built as the Hub does, served with the headers it asks for, and opened."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest
from playwright.sync_api import expect

from tests.browser import website

PATIENCE_MS = 60_000


@pytest.fixture(scope="module")
def built(root: Path, tmp_path_factory: pytest.TempPathFactory, chromium_path: str) -> tuple[Path, dict]:
    """The folder of the file that a visitor is shown, and the header of the Space's README."""
    if shutil.which("npm") is None:
        say = pytest.fail if os.environ.get("CI") == "true" else pytest.skip
        say("no Node: install it (as Debian's nodejs and npm)")
    folder = tmp_path_factory.mktemp("space") / "static"
    command = [
        sys.executable,
        "-m",
        "fkp",
        "space",
        "me/faces",
        "--static",
        "--dry-run",
        "--out",
        str(folder),
    ]
    subprocess.run(command, cwd=root, check=True, stdout=subprocess.DEVNULL)
    header = huggingface_hub.RepoCard.load(folder / "README.md").data.to_dict()
    # What a build machine may have set: then npm would leave out what builds.
    environment = os.environ | {"NODE_ENV": "production"}
    done = subprocess.run(
        header["app_build_command"], shell=True, cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = folder / header["app_file"]
    assert page.name == "index.html"
    return page.parent, header


@pytest.mark.slow
@pytest.mark.parametrize("with_headers", [True, False])
def test_what_the_hub_builds_finds_faces(browser, built, with_headers: bool) -> None:
    """With the headers that the Space asks for on several threads, without them on one."""
    folder, header = built
    with website.serving(folder, header["custom_headers"] if with_headers else None) as site:
        page = browser.new_page()
        failures: list[str] = []
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(site.address)
        page.get_by_role("button", name="Try the example Four faces").click(timeout=PATIENCE_MS)
        expect(page.locator("#answer")).to_contain_text("Found 4 faces", timeout=PATIENCE_MS)
        assert page.evaluate("crossOriginIsolated") is with_headers
        threads = min(4, os.cpu_count() or 1) if with_headers else 1
        runs = page.locator(".runs").text_content()
        assert f"on {threads} thread{'' if threads == 1 else 's'} of WebAssembly" in (runs or "")
        page.close()
        assert failures == []
        assert {method for method, _, _ in site.requests} == {"GET"}
