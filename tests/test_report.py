"""Records, JSON and CSV of faces whose numbers can be checked by eye."""

import csv
import io
import json

import numpy as np
import pytest

from fkp import measures, report
from fkp.faces import Faces

KEYS = ["number", "box", "score", "keypoints", "keypoint_scores", "visibility", "guess", "pose"]
KEYS += ["eye_openness", "mouth_openness"]


@pytest.fixture
def two_faces() -> Faces:
    points = np.arange(68 * 2, dtype=np.float32).reshape(68, 2) / 3
    return Faces(
        boxes=np.array([[1, 2, 3, 4], [-0.126, 10.004, 20.1, 30]]),
        scores=np.array([1.0, 0.123456]),
        keypoints=np.stack([points, points + 100]),
        keypoint_scores=np.stack([np.full(68, 0.1), np.linspace(0, 1, 68)]),
    )


def test_record_of_no_face() -> None:
    record = report.record("empty.jpg", (480, 640, 3), Faces.none())
    assert record == {"image": "empty.jpg", "width": 640, "height": 480, "faces": []}
    assert json.loads(report.to_json([])) == []
    assert json.loads(report.to_json([record])) == [record]
    file = io.StringIO()
    report.write_csv(file, [record])
    assert file.getvalue().splitlines() == [",".join(report.CSV_COLUMNS)]


def test_record(two_faces: Faces) -> None:
    record = report.record("a.jpg", (480, 640), two_faces)
    assert list(record) == ["image", "width", "height", "faces"]
    first, second = record["faces"]
    assert list(first) == KEYS and [first["number"], second["number"]] == [1, 2]
    assert first["box"] == [1.0, 2.0, 3.0, 4.0] and first["score"] == 1.0
    assert second["box"] == [-0.13, 10.0, 20.1, 30.0] and second["score"] == 0.1235
    assert len(first["keypoints"]) == 68 and first["keypoints"][:2] == [[0.0, 0.33], [0.67, 1.0]]
    assert second["keypoints"][0] == [100.0, 100.33]
    assert first["keypoint_scores"] == [0.1] * 68 and second["keypoint_scores"][-1] == 1.0
    assert all(type(v) is float for v in first["keypoint_scores"] + first["box"])


def test_json_is_short_and_one_line_a_picture(two_faces: Faces) -> None:
    records = [report.record(name, (480, 640), two_faces) for name in ("a.jpg", "ü, \"b\".jpg")]
    text = report.to_json(records)
    assert json.loads(text) == records
    assert len(text.splitlines()) == 2 and "00000" not in text


def test_csv(two_faces: Faces) -> None:
    records = [report.record(name, (480, 640), two_faces) for name in ("a.jpg", "with, comma.jpg")]
    file = io.StringIO()
    report.write_csv(file, records)
    rows = list(csv.DictReader(io.StringIO(file.getvalue())))
    assert len(set(report.CSV_COLUMNS)) == len(report.CSV_COLUMNS) == 9 + 136 + 2 * 68 + 10
    assert [(row["image"], row["face"]) for row in rows] == [
        ("a.jpg", "1"), ("a.jpg", "2"), ("with, comma.jpg", "1"), ("with, comma.jpg", "2"),
    ]  # fmt: skip
    row, face = rows[3], records[1]["faces"][1]
    assert [float(row[c]) for c in ("box_x1", "box_y1", "box_x2", "box_y2")] == face["box"]
    assert [[float(row[f"x{i}"]), float(row[f"y{i}"])] for i in range(68)] == face["keypoints"]
    assert [float(row[f"s{i}"]) for i in range(68)] == face["keypoint_scores"]
    assert [row["v0"], row["yaw"]] == ["", ""], "not known: these points lie on a line"
    assert float(row["score"]) == face["score"] and (row["width"], row["height"]) == ("640", "480")


def test_csv_cells_are_no_formulas() -> None:
    """Nor in spreadsheets that take full-width signs for the others."""
    for sign in "=+-@＝＋－＠\t\r\n":
        assert report.harmless(f"{sign}cmd()") == f"'{sign}cmd()"
    for name in ("a=b.jpg", "'=a.jpg", "", "é.jpg"):
        assert report.harmless(name) == name


def test_record_holds_what_follows_from_the_points() -> None:
    keypoints = np.zeros((1, 68, 2))
    keypoints[0, 17:] = measures.HEAD[:, :2] + 100
    visibility = np.linspace(0, 1, 68)[None]
    faces = Faces(np.array([[0, 0, 9, 9]]), np.ones(1), keypoints, np.full((1, 68), 0.4), None, visibility)
    record = report.record("a.jpg", (9, 9), faces)
    (face,) = record["faces"]
    assert face["guess"] is True and face["visibility"][::67] == [0.0, 1.0]
    assert face["pose"].keys() == {"yaw", "pitch", "roll", "sigmas"} and len(face["pose"]["sigmas"]) == 3
    assert [face["pose"][name] for name in ("yaw", "pitch", "roll")] == pytest.approx([0, 0, 0], abs=0.1)
    assert face["eye_openness"] == pytest.approx(faces.eye_openness[0].tolist(), abs=1e-3)
    file = io.StringIO()
    report.write_csv(file, [record])
    (row,) = csv.DictReader(io.StringIO(file.getvalue()))
    assert float(row["v67"]) == 1 and row["guess"] == "1" and abs(float(row["yaw"])) < 0.1
    assert float(row["roll_sigma"]) == face["pose"]["sigmas"][2]
    assert float(row["left_eye_openness"]) == face["eye_openness"][1]
    assert float(row["mouth_openness"]) == face["mouth_openness"]
