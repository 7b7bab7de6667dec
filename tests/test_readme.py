"""What README.md says is true: its code runs, its figures are those of metrics.json."""

import json
import os
import pkgutil
import re
import shutil
import subprocess
import sys

import pytest

from benchmarks import detection, peers, speed, tables
from benchmarks.published import between_marks
from fkp import hub
from fkp.demo import clip_jobs
from fkp.demo.settings import Settings
from tests.filmed import film


@pytest.fixture(scope="module")
def readme(root) -> str:
    return (root / "README.md").read_text()


@pytest.fixture(scope="module")
def measured() -> dict:
    return json.loads((hub.BUNDLED / hub.METRICS).read_text())


@pytest.mark.slow
def test_python_blocks_run(readme, root, tmp_path):
    blocks = [b for b in re.findall(r"```python\n(.*?)```", readme, re.DOTALL) if "# no-run" not in b]
    assert len(blocks) >= 2
    shutil.copytree(root / "examples", tmp_path / "examples")
    environment = os.environ | {"PYTHONPATH": str(root), "PYTHONWARNINGS": "error"}
    for block in blocks:
        done = subprocess.run(
            [sys.executable, "-c", block],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, f"{block}\n{done.stderr}"
    assert (tmp_path / "out.png").is_file()


def test_commands_exist(readme):
    """Every `fkp …` line of the shell blocks is accepted by the command line's parser."""
    from fkp import __main__ as command_line

    lines = [
        line for block in re.findall(r"```sh\n(.*?)```", readme, re.DOTALL) for line in block.splitlines()
    ]
    commands = [line.split("#")[0].split()[1:] for line in lines if line.startswith("fkp ")]
    assert len(commands) >= 3
    for command in commands:
        command_line._parser().parse_args(command)


def test_tables_are_those_of_the_measured_figures(readme, measured):
    assert peers.summary(measured) in readme
    assert tables.short(measured["accuracy"]) in readme
    assert detection.short(measured["detection"]) in readme
    assert speed.summary(measured["speed"]) in readme


@pytest.mark.parametrize(
    ("benchmark", "pages", "plots"), [("accuracy", tables.pages, 5), ("detection", detection.pages, 0)]
)
def test_pages_are_those_of_the_measured_figures(root, measured, benchmark, pages, plots):
    page = root / "docs" / f"{benchmark}.md"
    expected = pages(measured[benchmark])
    assert page.read_text() == between_marks(page, benchmark, expected)
    assert page.read_text().count(f"<!-- end of {benchmark}.") == len(expected)
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", page.read_text())
    assert len(pictures) == plots and [p for p in pictures if not (page.parent / p).is_file()] == []


FILE = r"(?<![\w/.:-])((?:app|train|(?:fkp|benchmarks|examples|tests|web/src)/[\w/.-]+)\.(?:py|ts|ipynb))\b"


def test_names_in_pages_exist(root):
    """Links, files of the project, and modules and functions of fkp, that README, docs and the card name."""
    folders = (".", "docs", "examples", "fkp/hub/card")
    pages = [page for folder in folders for page in (root / folder).glob("*.md")]
    missing, found = [], 0
    for page in pages:
        text = page.read_text(encoding="utf-8")
        links = re.findall(r"\]\((?!https?:|#|\$)([^)#]+)", text) if "card" not in page.parts else []
        files = [root / name for name in re.findall(FILE, text)] if page.name != "LOG.md" else []
        for path in [*files, *(page.parent / link for link in links)]:
            missing += [] if path.exists() else [f"{page.name}: {path}"]
        for name in re.findall(r"\bfkp(?:\.[A-Za-z_]\w*)+", text) if page.name != "LOG.md" else ():
            try:
                pkgutil.resolve_name(name)
            except (ImportError, AttributeError):
                missing += [] if name.endswith((".git", ".js", ".ts")) else [f"{page.name}: {name}"]
        found += len(links) + len(files)
    assert missing == [] and found > 60


def test_tests_in_pages_exist(root):
    """What `pytest FILE -k WORDS` in a page chooses is at least one test for each word."""
    commands = re.compile(r"pytest (tests/[\w/]+\.py)(?: -s)? -k (?:\"([\w ]+)\"|(\w+))")
    missing, found = [], 0
    for page in [root / "README.md", *sorted((root / "docs").glob("*.md"))]:
        for file, several, one in commands.findall(page.read_text(encoding="utf-8")):
            names = " ".join(re.findall(r"def (test_\w+)", (root / file).read_text(encoding="utf-8")))
            words = (several or one).split(" or ")
            missing += [f"{page.name}: {word} in {file}" for word in words if word not in names]
            found += 1
    assert missing == [] and found > 3


def test_the_page_that_tells_of_clips_is_right(root, tmp_path, monkeypatch) -> None:
    """docs/video.md: its Python runs, and its limits are those of the settings."""
    text = (root / "docs" / "video.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    film(tmp_path / "short.mp4", 2)
    monkeypatch.chdir(tmp_path)
    exec(block.replace("examples/two_portraits.mp4", "short.mp4"), {})
    assert (tmp_path / "out.mp4").is_file() and (tmp_path / "out.csv").is_file()
    limits = Settings()
    assert (limits.max_clip_seconds, limits.max_clip_size, limits.clips_at_once) == (60, 100_000_000, 1)
    assert clip_jobs.LINE == 8 and "FKP_MAX_CLIP_SECONDS" in text and "FKP_MAX_CLIP_SIZE" in text
