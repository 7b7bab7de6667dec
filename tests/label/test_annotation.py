"""Pre-annotations for COCO, CVAT and Label Studio: what is in them, and the way back to training."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import train
from fkp import FaceKeypoints, Faces, converters, hub, scheme
from fkp import outputs as written
from fkp.__main__ import main
from fkp.label import annotation, table
from tests import synthetic
from tests.full_disk import full_disk
from tests.label import material

SIZE = (400, 300)


def faces(score: float) -> Faces:
    """One in the middle, and one whose jaw reaches beyond the picture; point 3 of both is hidden."""
    keypoints = np.stack([synthetic.face(100, (200, 150)), synthetic.face(80, (20, 100))])
    boxes = np.concatenate([keypoints.min(1), keypoints.max(1)], axis=1)
    scores = np.full((2, 68), score)
    visibility = np.ones((2, 68))
    visibility[:, 3] = 0.2
    return Faces(boxes, np.array([0.9, 0.8]), keypoints, scores, np.ones((2, 68)), visibility)


@pytest.fixture
def outputs(tmp_path: Path) -> Path:
    with table.Writer(tmp_path / "a.parquet", {}) as writer:
        writer.add(0, "sure.jpg", SIZE, faces(0.9))
        writer.add(1, "in/unsure.jpg", SIZE, faces(0.3))
        writer.add(2, "nobody.jpg", SIZE, Faces.none())
        writer.add_unreadable(3, "broken.jpg", "is empty")
    return tmp_path


def rows(format: str, path: Path) -> list[converters.Row]:
    return converters.FORMATS[format](path)


def accept(path: Path) -> None:
    """What Label Studio writes after an annotator took all predictions as they are."""
    tasks = json.loads(path.read_text())
    for task in tasks:
        task["annotations"] = [{"result": prediction["result"]} for prediction in task.pop("predictions")]
    path.write_text(json.dumps(tasks))


@pytest.mark.parametrize("format", annotation.FORMATS)
def test_annotations_there_and_back(outputs: Path, format: str) -> None:
    """The least sure picture first, and every point where it was, to the hundredth of a pixel."""
    path = annotation.write(format, outputs)
    if format == "label-studio":
        accept(path)
    read = rows(format, path)
    names = [Path(name).name for name, _ in read]
    assert names == ["unsure.jpg", "unsure.jpg", "sure.jpg", "sure.jpg"]
    wanted = faces(0.3).keypoints.copy()
    if format != "label-studio":  # which has no word for it
        wanted[1][wanted[1, :, 0] < -0.5] = np.nan
        assert 0 < np.isnan(wanted).sum() < 40
    for (_, keypoints), points in zip(read, [*wanted, *wanted], strict=True):
        np.testing.assert_allclose(keypoints, points, atol=0.02)


def test_coco(outputs: Path) -> None:
    labels = json.loads(annotation.write("coco", outputs).read_text())
    (category,), first = labels["categories"], labels["annotations"][0]
    assert len(category["keypoints"]) == 68 and category["skeleton"][0] == [1, 2]
    assert labels["images"][0] | {"score": 0} == {
        "id": 1, "file_name": "in/unsure.jpg", "width": 400, "height": 300, "score": 0,
    }  # fmt: skip
    assert first["keypoints"][2::3] == [2, 2, 2, 1] + 64 * [2] and first["num_keypoints"] == 68
    beyond = labels["annotations"][1]
    assert beyond["keypoints"][:3] == [0, 0, 0] and beyond["num_keypoints"] < 68
    assert first["keypoint_scores"] == pytest.approx([0.3] * 68, abs=0.001)
    x, y, width, height = first["bbox"]
    np.testing.assert_allclose([x, y, x + width, y + height], faces(0.3).boxes[0], atol=0.02)


def test_label_studio(outputs: Path) -> None:
    first, _ = json.loads(annotation.write("label-studio", outputs).read_text())
    assert first["data"]["image"] == "/data/local-files/?d=in/unsure.jpg"
    (prediction,) = first["predictions"]
    assert prediction["score"] == pytest.approx(0.3, abs=0.001)
    box, point = prediction["result"][:2]
    assert point["parentID"] == box["id"] and point["value"]["keypointlabels"] == ["0"]
    assert {"score", "original_width", "original_height"} <= point.keys()


def test_cvat(outputs: Path) -> None:
    root = ElementTree.fromstring(annotation.write("cvat", outputs).read_bytes())
    image, skeleton = root.find("image"), root.find("image/skeleton")
    assert image is not None and skeleton is not None
    assert (image.get("id"), image.get("name"), skeleton.get("label")) == ("0", "in/unsure.jpg", "face")
    points = skeleton.findall("points")
    assert [point.get("label") for point in points] == [str(i) for i in range(scheme.COUNT)]
    assert [point.get("occluded") for point in points[:5]] == list("00010")
    assert points[0].findtext("attribute[@name='confidence']") == "0.300"


@pytest.mark.parametrize("format", annotation.FORMATS)
def test_never_over_labels_of_a_person(
    outputs: Path, format: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which is known before anything is labelled; what fkp wrote itself is written anew."""
    path = annotation.write(format, outputs)
    assert annotation.write(format, outputs) == path
    path.write_text(path.read_text() if format == "cvat" else json.dumps(json.loads(path.read_text())))
    assert annotation.write(format, outputs) == path, "read and written as it was, it is fkp's"
    path.write_text(path.read_text().replace("400", "401", 1))  # whatever a person has corrected
    before = path.read_bytes()
    monkeypatch.setattr("fkp.label.label", None)
    assert main(["label", str(material.EXAMPLES), "--out", str(outputs), "--format", format]) == 1
    told = capsys.readouterr().err
    assert str(path) in told and "--force" not in told, "which there is not"
    with pytest.raises(written.OutputError, match=re.escape(str(path))):
        annotation.write(format, outputs)
    assert path.read_bytes() == before


def test_a_full_disk(outputs: Path) -> None:
    path = annotation.write("coco", outputs)
    before = path.read_bytes()
    with pytest.raises(OSError) as caught, full_disk(1000):
        annotation.write("coco", outputs)
    assert caught.value.filename == str(path) and path.read_bytes() == before
    assert not list(outputs.glob("*.part"))


def test_command(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    source = material.folder(tmp_path / "in")
    command = ["label", str(source), "--out", str(tmp_path / "out"), "--workers", "1", "--format", "coco"]
    assert main(command) == 0
    assert str(tmp_path / "out" / "coco.json") in capsys.readouterr().out
    read = rows("coco", tmp_path / "out" / "coco.json")
    assert len(read) == 6 and all((source / name).is_file() for name, _ in read)
    # The outputs are read as docs/label.md says, the annotations beside them.
    monkeypatch.chdir(tmp_path)
    guide = Path(__file__).parents[2] / "docs" / "label.md"
    code = next(each for each in re.findall(r"```python\n(.*?)```", guide.read_text(), re.DOTALL))
    names: dict[str, Any] = {}
    exec(code, names)
    assert len(names["faces"]) == 7 and names["about"]["faces"] == 6


@pytest.mark.slow
def test_annotation_formats_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures → first draft → what an annotator exports → CSV → weights of one's own, which run."""
    monkeypatch.setattr("fkp.networks.export.is_possible", lambda: False)  # graphs take long
    pictures, out, csv = material.folder(tmp_path / "in"), tmp_path / "out", tmp_path / "labels.csv"
    assert main(["label", str(pictures), "--out", str(out), "--workers", "1", "--format", "cvat"]) == 0
    assert converters.main(["convert", "cvat", str(out / "cvat.xml"), str(csv)]) == 0
    command = ["keypoints", "--csv", str(csv), "--images", str(pictures), "--start", str(hub.BUNDLED)]
    command += ["--epochs", "2", "--batch-size", "2", "--lr", "1e-5", "--muon-lr", "1e-5", "--workers", "0"]
    assert train.main([*command, "--runs", str(tmp_path / "runs"), "--name", "mine"]) == 0
    model = FaceKeypoints.from_pretrained(tmp_path / "runs" / "mine" / "model")
    picture = material.EXAMPLES / "eileen_collins.jpg"
    bundled = FaceKeypoints.from_pretrained()
    mine, before = model(picture), bundled(picture)
    size = float(np.ptp(before.keypoints[0], axis=0).max())
    assert 0 < np.abs(mine.keypoints - before.keypoints).mean() < 0.02 * size
    assert "--csv CSV --images DIR" in model.metrics["training"]["keypoints"]["command"]
    assert model.config.visibility_calibration == bundled.config.visibility_calibration
