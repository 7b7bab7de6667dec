"""The notebook runs from top to bottom, and what is committed came of running it on the example pictures."""

from __future__ import annotations

import os
from pathlib import Path

import nbclient
import nbformat
import pytest


@pytest.fixture
def notebook(root: Path) -> nbformat.NotebookNode:
    return nbformat.read(root / "examples" / "from_data_to_keypoints.ipynb", as_version=4)


def printed(notebook: nbformat.NotebookNode) -> str:
    return "".join(output.get("text", "") for cell in notebook.cells for output in cell.get("outputs", ()))


def test_committed_outputs(notebook: nbformat.NotebookNode) -> None:
    """All cells were run in their order, none failed, and the data were the six faces of the examples."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    kinds = [output.output_type for cell in cells for output in cell.outputs]
    assert "error" not in kinds and kinds.count("display_data") >= 4
    assert "6 faces: 4 to learn from, 2 to test on" in printed(notebook)


@pytest.mark.slow
def test_notebook_runs(notebook: nbformat.NotebookNode, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a fresh kernel; the notebook itself asserts that the loss falls."""
    monkeypatch.delenv("FKP_DATA", raising=False)
    monkeypatch.setenv("PYTHONPATH", str(root))
    monkeypatch.setenv("JUPYTER_PLATFORM_DIRS", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "2"))
    metadata = {"metadata": {"path": str(root / "examples")}}
    nbclient.NotebookClient(notebook, timeout=1200, kernel_name="python3", resources=metadata).execute()
    assert "NME of this network on 2 faces" in printed(notebook)
