"""What README.md says is true: its code runs, its figures are those of metrics.json."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

from benchmarks import detection, peers, speed_tables, tables
from benchmarks.published import between_marks
from fkp import hub


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
    assert peers.summary(measured["peers"]) in readme
    assert tables.short(measured["accuracy"]) in readme
    assert detection.short(measured["detection"]) in readme
    assert speed_tables.summary(measured["speed"]) in readme


@pytest.mark.parametrize(
    ("benchmark", "pages", "plots"), [("accuracy", tables.pages, 5), ("detection", detection.pages, 0)]
)
def test_pages_are_those_of_the_measured_figures(root, measured, benchmark, pages, plots):
    page = root / "docs" / f"{benchmark}.md"
    expected = {f"{benchmark}.{name}": table for name, table in pages(measured[benchmark]).items()}
    assert page.read_text() == between_marks(page, benchmark, expected)
    assert page.read_text().count(f"<!-- end of {benchmark}.") == len(expected)
    pictures = re.findall(r"!\[[^]]+\]\(([^)]+)\)", page.read_text())
    assert len(pictures) == plots and [p for p in pictures if not (page.parent / p).is_file()] == []


def test_files_that_it_links_to_exist(readme, root):
    links = re.findall(r"\]\((?!https?:|#)([^)]+)\)", readme)
    assert links and [link for link in links if not (root / link.split("#")[0]).exists()] == []
