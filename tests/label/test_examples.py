"""The examples around labelling: from Hub to Hub, in CVAT, in `datasets`, in a `DataLoader`."""

from __future__ import annotations

import ast
import io
import json
import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pyarrow.parquet as pq
import pytest

from fkp import FaceKeypoints
from tests import loopback_hub
from tests.label import material
from tests.test_examples import EXAMPLES, module, run


@pytest.fixture(scope="module")
def model() -> FaceKeypoints:
    return FaceKeypoints.from_pretrained(threads=1)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    for name in material.FACES:
        shutil.copy(EXAMPLES / name, tmp_path / "in")
    return tmp_path / "in"


@pytest.mark.slow
def test_from_hub_to_hub(tmp_path: Path) -> None:
    """The second time only what is new is labelled."""
    with loopback_hub.LoopbackHub() as hub:

        def run_script() -> str:
            command = [sys.executable, str(EXAMPLES / "label_hub_dataset.py"), "someone/in", "someone/out"]
            done = loopback_hub.run_fresh(
                [*command, "--workers", "1"], hub.url, tmp_path / "home", HF_TOKEN="hf_secret",
                PYTHONPATH=str(EXAMPLES.parent),
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            return done.stdout

        shard = material.parquet(tmp_path / "a.parquet").read_bytes()
        hub.add("someone/in", {"data/train-0.parquet": shard})
        assert run_script().startswith("5 pictures, 6 faces")
        files = hub.repositories["someone/out"].commits[-1].files
        rows = pq.read_table(io.BytesIO(files["data/train-0.parquet"]))
        assert rows.num_rows == 7 and set(rows["picture"].to_pylist()) == {*material.FACES, "text.jpg"}
        assert b"6 faces" in files["README.md"] and files["README.md"].startswith(b"---\ntask_categories")
        hub.add("someone/in", {"data/train-0.parquet": shard, "data/train-1.parquet": shard})
        assert "5 pictures" in run_script()
        files = hub.repositories["someone/out"].commits[-1].files
        assert {"data/train-0.parquet", "data/train-1.parquet"} <= files.keys()


def test_inline_dependencies() -> None:
    """As PEP 723 has them, for `uv run`."""
    text = (EXAMPLES / "label_hub_dataset.py").read_text()
    block = re.search(r"^# /// script\n((?:# .*\n)+)# ///$", text, re.MULTILINE)
    assert block is not None
    about = tomllib.loads(re.sub(r"^# ", "", block[1], flags=re.MULTILINE))
    project = tomllib.loads((EXAMPLES.parent / "pyproject.toml").read_text())["project"]
    assert about.pop("tool") == {"uv": {"sources": {"fkp": {"path": ".."}}}}
    assert about == {"requires-python": project["requires-python"], "dependencies": ["fkp[label]"]}
    assert "label" in project["optional-dependencies"]


def test_cvat(model: FaceKeypoints) -> None:
    cvat = pytest.importorskip("cvat_sdk.auto_annotation")
    script = module("cvat_function")
    function = script.create()

    class Context(cvat.DetectionFunctionContext):
        frame_name = "four_faces.jpg"
        conf_threshold = None
        conv_mask_to_poly = False

    with PIL.Image.open(EXAMPLES / "four_faces.jpg") as picture:
        shapes = function.detect(Context(), picture)
    wanted = model(EXAMPLES / "four_faces.jpg")
    assert [shape.type.value for shape in shapes] == ["skeleton"] * 4
    assert [sublabel.name for sublabel in function.spec.labels[0].sublabels] == [str(i) for i in range(68)]
    points = np.array([[element.points for element in shape.elements] for shape in shapes])
    np.testing.assert_allclose(points - 0.5, wanted.keypoints, atol=0.1)
    occluded = np.array([[element.occluded for element in shape.elements] for shape in shapes])
    assert (occluded == (wanted.visibility < 0.5)).mean() > 0.98
    sure = script.create(min_points=float(np.sort(wanted.keypoint_scores.mean(axis=1))[2]) - 0.001)
    with PIL.Image.open(EXAMPLES / "four_faces.jpg") as picture:
        assert len(sure.detect(Context(), picture)) == 2


def test_map(pictures: Path, tmp_path: Path, model: FaceKeypoints) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    assert run("map_dataset", pictures, "--out", tmp_path / "out") == "3 pictures, 6 faces\n"
    rows = datasets.load_from_disk(tmp_path / "out")
    for row, name in zip(rows, sorted(material.FACES), strict=True):
        np.testing.assert_allclose(row["keypoints"], model(EXAMPLES / name).keypoints, atol=0.1)


@pytest.mark.slow
def test_data_loader(pictures: Path) -> None:
    printed = run("data_loader", pictures, "--workers", 2)
    sizes = [int(size) for size in re.findall(r"^\((\d+), 3, 112, 112\), sure of 0\.\d+", printed, re.M)]
    assert sum(sizes) == 6


def test_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its cells run one after the other, and the last line of the first shows four faces on their picture."""
    monkeypatch.chdir(EXAMPLES)
    cells = json.loads((EXAMPLES / "faces.ipynb").read_text())["cells"]
    names: dict[str, Any] = {}
    shown = []
    for cell in cells:
        if cell["cell_type"] == "code":
            *before, last = ast.parse("".join(cell["source"])).body
            exec(compile(ast.Module(before, []), "cell", "exec"), names)
            shown.append(eval(ast.unparse(last), names))
    assert shown[0]._repr_html_().count("<image") == 4 and 0 < len(shown[1]) < 4
    assert shown[2].loc["count"].tolist() == [4 * 68] * 4
