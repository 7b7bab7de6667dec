"""The page in a process of its own, and Chromium to look at it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.published import ROOT

if TYPE_CHECKING:
    from playwright.sync_api import Browser

HERE_ONLY = ("--no-browser", "--host", "127.0.0.1")


@dataclass(frozen=True)
class Served:
    """A page that runs in a process; `said` is its line that it is ready, after so many `seconds`."""

    address: str
    pid: int
    folder: Path
    """Of uploads."""
    said: str = ""
    seconds: float = 0.0

    def memory(self) -> int:
        """Bytes of memory that its process has (Linux)."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return 1024 * int(status.partition("VmRSS:")[2].split()[0])

    def descriptors(self) -> int:
        """How many files and connections its process has open (Linux)."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))


@contextmanager
def served(folder: Path, *command: str) -> Iterator[Served]:
    """The page of app.py, or what another command of Python serves, with its uploads in a folder.

    Raises RuntimeError where it ends before it says "Ready … address".
    """
    folder.mkdir(exist_ok=True)
    began = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *(command or ("app.py", *HERE_ONLY))],
        cwd=ROOT, stdout=subprocess.PIPE, text=True, env=os.environ | {"GRADIO_TEMP_DIR": str(folder)},
    )  # fmt: skip
    try:
        assert process.stdout is not None
        said = next((line for line in process.stdout if line.startswith("Ready ")), None)
        if said is None:
            raise RuntimeError("the page did not start")
        address = next(word for word in said.split() if word.startswith("http"))
        yield Served(address, process.pid, folder, said, time.perf_counter() - began)
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def chromium(*arguments: str) -> Iterator[Browser]:
    """The Chromium that CHROMIUM names or that is found on PATH, without a window; without one, the end."""
    from playwright.sync_api import sync_playwright

    names = ("chromium", "google-chrome")
    path = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        raise SystemExit("no Chromium: install it, or name it with the environment variable CHROMIUM")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", *arguments])
        yield browser
        browser.close()
