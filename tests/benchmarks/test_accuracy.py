"""The accuracy benchmark: conditions move picture and labels alike, and pages show what was measured."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from benchmarks import accuracy, plots, published, robustness, tables, worst
from benchmarks.faces import HELD_OUT, SETS, Labelled, Placed, read, row
from benchmarks.robustness import CONDITIONS, changed, directions
from fkp import geometry, hub
from tests import synthetic

RNG = np.random.default_rng(0)
BY_NAME = {condition.name: condition for condition in CONDITIONS}


def spot(size_wh: tuple[int, int], xy: tuple[float, float], sigma: float = 3.0) -> np.ndarray:
    """A black picture with one soft white spot around a point, which may lie between pixels."""
    x, y = np.arange(size_wh[0]), np.arange(size_wh[1])[:, None]
    light = np.exp(-0.5 * ((x - xy[0]) ** 2 + (y - xy[1]) ** 2) / sigma**2)
    return np.repeat((255 * light).round().astype(np.uint8)[..., None], 3, axis=2)


def middle(picture: np.ndarray) -> np.ndarray:
    """Where the light of a picture is on average, xy."""
    light = picture[..., 0].astype(np.float64)
    x, y = np.arange(light.shape[1]), np.arange(light.shape[0])
    return np.array([(light.sum(0) * x).sum(), (light.sum(1) * y).sum()]) / light.sum()


def one_face(n: int = 1, width: float = 100.0) -> Labelled:
    keypoints = np.repeat(synthetic.face(width, (90, 80))[None], n, axis=0)
    return Labelled(
        [f"{i}.png" for i in range(n)], [synthetic.picture(keypoints[0], (180, 170))] * n, keypoints
    )


def at(keypoints: np.ndarray, score: float = 1.0, sigma: float = 2.0) -> Placed:
    """Keypoints (n,68,2) with one score and one expected error for all of them."""
    return Placed(keypoints, np.full(keypoints.shape[:2], score), np.full(keypoints.shape[:2], sigma))


# --- The conditions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", [0, 30, 45])
def test_shrinking_keeps_a_label_on_its_content(point):
    keypoints = synthetic.face(100, (120, 100))
    picture, moved, box = robustness.shrunk(spot((241, 203), tuple(keypoints[point])), keypoints, 40, RNG)
    assert picture.shape == (81, 96, 3)
    # 40 of the face's 100 px, so 241 × 203 px become 96 × 81: pixel x goes to (x + ½) · 96/241 − ½.
    np.testing.assert_allclose(moved, (keypoints + 0.5) * [96 / 241, 81 / 203] - 0.5)
    np.testing.assert_allclose(middle(picture), moved[point], atol=0.05)
    np.testing.assert_allclose(box, geometry.tight_boxes(moved))
    assert np.ptp(moved, axis=0).max() == pytest.approx(40, rel=0.01)


def test_a_face_that_is_small_already_is_left_out():
    faces = one_face(3, width=50)
    assert robustness.shrunk(faces.pictures[0], faces.keypoints[0], 60, RNG) is None
    smaller, boxes = changed(faces, BY_NAME["size"], 60)
    assert len(smaller) == 0 and boxes.shape == (0, 4)
    assert len(changed(faces, BY_NAME["size"], 30)[0]) == 3


def test_a_quarter_turn_is_numpys():
    faces = one_face()
    picture, keypoints, box = robustness.turned(faces.pictures[0], faces.keypoints[0], 90, RNG)
    np.testing.assert_array_equal(picture, np.rot90(faces.pictures[0]))
    # Counter-clockwise: (x, y) of 180 pixels' width goes to (y, 179 − x).
    expected = np.stack([faces.keypoints[0][:, 1], 179 - faces.keypoints[0][:, 0]], axis=1)
    np.testing.assert_allclose(keypoints, expected, atol=1e-9)
    np.testing.assert_allclose(box, geometry.tight_boxes(expected), atol=1e-9)


@pytest.mark.parametrize("angle", [30, -150])
def test_turning_keeps_a_label_on_its_content(angle):
    keypoints = synthetic.face(100, (120, 100))
    picture, turned, _ = robustness.turned(spot((240, 200), tuple(keypoints[8])), keypoints, angle, RNG)
    np.testing.assert_allclose(middle(picture), turned[8], atol=0.05)
    assert geometry.inter_ocular(turned) == pytest.approx(geometry.inter_ocular(keypoints))


def test_turned_faces_come_in_both_directions():
    faces = one_face(2)
    assert directions(BY_NAME["turn"], 30) == (30, -30) and directions(BY_NAME["turn"], 180) == (180,)
    assert directions(BY_NAME["blur"], 4) == (4,)
    both, _ = changed(faces, BY_NAME["turn"], 30)
    assert len(both) == 4
    eyes = both.keypoints[:, 45] - both.keypoints[:, 36]
    np.testing.assert_allclose(np.degrees(np.arctan2(eyes[:, 1], eyes[:, 0])), [-30, -30, 30, 30], atol=1e-6)


def test_box_noise_is_seeded_and_as_large_as_stated():
    faces = one_face(400)
    true, side = faces.boxes, (faces.boxes[0, 2:] - faces.boxes[0, :2]).max()
    _, boxes = changed(faces, BY_NAME["shift"], 5)
    np.testing.assert_array_equal(boxes, changed(faces, BY_NAME["shift"], 5)[1])
    moved = (boxes - true) / side
    np.testing.assert_allclose(moved[:, :2], moved[:, 2:])  # its size stays
    assert moved[:, :2].std() == pytest.approx(0.05, rel=0.1) and abs(moved.mean()) < 0.01
    # The same draws at every level: twice the level is twice the way.
    np.testing.assert_allclose(changed(faces, BY_NAME["shift"], 10)[1] - true, 2 * (boxes - true))

    _, boxes = changed(faces, BY_NAME["scale"], 10)
    np.testing.assert_allclose(boxes[:, :2] + boxes[:, 2:], true[:, :2] + true[:, 2:])  # its middle stays
    grown = np.log((boxes[:, 2:] - boxes[:, :2]) / (true[:, 2:] - true[:, :2]))
    assert grown.std() == pytest.approx(0.1, rel=0.1) and abs(grown.mean()) < 0.02


def test_light_and_sharpness_move_no_label():
    faces = one_face()
    picture, keypoints = faces.pictures[0], faces.keypoints[0]
    before = picture.copy()
    for name, level in (("blur", 8), ("jpeg", 10), ("dark", 10)):
        worse, labels, box = BY_NAME[name].change(picture, keypoints, level, np.random.default_rng(0))
        assert worse.dtype == np.uint8 and worse.shape == picture.shape
        np.testing.assert_array_equal(labels, keypoints)
        np.testing.assert_array_equal(box, faces.boxes[0])
        assert 1 < np.abs(worse.astype(int) - picture).mean() < 120, name
    np.testing.assert_array_equal(picture, before)


def test_a_dark_picture_has_a_tenth_of_the_light_and_noise():
    picture = np.full((100, 100, 3), 200, np.uint8)
    dark, _, _ = robustness.darkened(picture, synthetic.face(), 10, np.random.default_rng(0))
    assert dark.mean() == pytest.approx(20, abs=0.1) and dark.std() == pytest.approx(4, rel=0.03)


def test_errors_of_boxes():
    truth = np.array([[0, 0, 100, 50], [0, 0, 100, 50], [0, 0, 10, 10]], np.float32)
    found = np.array([[10, 0, 120, 50], [0, 0, 100, 60], [np.nan] * 4], np.float32)
    errors = robustness.box_errors(found, truth)
    assert errors["n"] == 3 and errors["missed"] == 1
    assert errors["dx"] == [7.5, 7.5]  # the middle of the first is 15 px to the right of 100
    assert errors["dy"] == [2.5, 2.5] and errors["dw"] == [5, 5] and errors["dh"] == [10, 10]
    assert errors["side"] == [5, 5]
    nothing = robustness.box_errors(found[2:], truth[2:])
    assert nothing["missed"] == 1 and nothing["dx"] is None


# --- Figures ------------------------------------------------------------------------------------------------


def test_faces_on_a_line_are_refused():
    keypoints = np.zeros((1, 68, 2))
    keypoints[0, :, 0] = np.arange(68)
    with pytest.raises(ValueError, match="flat.png lie on a line"):
        Labelled(["flat.png"], [np.zeros((9, 99, 3), np.uint8)], keypoints)


def test_a_row_of_figures():
    truth = one_face(2).keypoints
    nothing = row(at(np.empty((0, 68, 2))), np.empty((0, 68, 2)))
    assert nothing["n"] == 0 and nothing["nme"] is None and nothing["within"] is None
    off = truth.copy()
    off[:, :34, 0] += 0.1 * geometry.inter_ocular(truth[0])  # half of the points off by 10 %
    figures = row(at(off, 0.75), truth)
    assert figures["nme"] == pytest.approx(5) and figures["score"] == 0.75 and figures["within"] == 0.5


def test_figures_of_confidence():
    """Half of the points are off by 10 % and half exact; the scores know it for all but one of each."""
    truth = one_face(1).keypoints
    eyes = geometry.inter_ocular(truth[0])
    off, placed = truth.copy(), at(truth, sigma=0.05 * eyes)
    off[:, :34, 0] += 0.1 * eyes
    placed.scores[:, :34] = 0.2
    placed.scores[:, 33:35] = placed.scores[:, [34, 33]]
    figures = accuracy.confidence(placed._replace(keypoints=off), truth)
    assert figures["error"] == pytest.approx(5) and figures["sigma"] == pytest.approx(5)
    assert figures["bins"][2] == [0.2, round(1 / 34, 4), 34] and figures["bins"][5] == [None, None, 0]
    assert figures["bins"][9] == [1.0, round(33 / 34, 4), 34]
    assert figures["reliability_error"] == pytest.approx((0.2 - 1 / 34 + 1 / 34) / 2, abs=1e-4)
    # Of 68 points, 14 go, all off: 20 of the 54 that remain are off by 10 %.
    assert figures["ranking"][2] == pytest.approx(10 * 20 / 54, abs=1e-3)
    assert figures["gain_20"] == figures["best_gain_20"] == pytest.approx(100 * (1 - 2 * 20 / 54), abs=0.01)
    assert figures["spearman"] == pytest.approx(-0.94, abs=0.05)


def test_yaw_of_a_turned_head():
    """Eye corners at ±1, the nose's tip 1 before them, seen from 30° to a side, tilted by 20°."""
    points = np.zeros((3, 68, 3))
    points[:, 36], points[:, 45], points[:, 30] = (-1, 0, 0), (1, 0, 0), (0, 0.8, 1)
    faces = []
    for face, angle in zip(points, np.radians([0, 30, -30]), strict=True):
        x = face[:, 0] * np.cos(angle) + face[:, 2] * np.sin(angle)
        faces.append(np.stack([x, face[:, 1]], axis=1))
    tilt = np.radians(20)
    rotation = np.array([[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]])
    upright, tilted = np.array(faces), np.array(faces) @ rotation.T
    np.testing.assert_allclose(accuracy.yaw(upright), [0, 30, 30], atol=1e-9)
    # The nose's height counts for nothing, for only its place along the eyes' line is looked at.
    np.testing.assert_allclose(accuracy.yaw(tilted), [0, 30, 30], atol=1e-9)


def test_weak_spots_hold_every_face_once():
    faces = one_face(5)
    rows = accuracy.weak(at(faces.keypoints), faces.keypoints)
    for by in ("yaw", "side"):
        assert sum(r["n"] for r in rows if r["by"] == by) == 5


def test_the_mean_face_is_free_of_place_size_and_turn():
    shape = synthetic.face(1.0, (0, 0))
    rng = np.random.default_rng(0)
    faces = []
    for _ in range(20):
        angle, size = rng.uniform(-1, 1), rng.uniform(20, 200)
        rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        faces.append(size * shape @ rotation.T + rng.uniform(0, 300, 2))
    mean = plots.mean_face(np.array(faces))
    corners = (shape[36] + shape[45]) / 2
    np.testing.assert_allclose(mean, (shape - corners) * 100 / geometry.inter_ocular(shape), atol=1e-6)


# --- The whole ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A made-up data folder with the test sets, too."""
    folder = synthetic.data_folder(tmp_path_factory.mktemp("data"), faces=24)
    for csv, images, like in (
        ("ytf/test_frames_keypoints.csv", "ytf/test", "ytf/training"),
        ("300w/lfpw_test.csv", "300w/lfpw_test", "300w/lfpw_train"),
    ):
        shutil.copytree(folder / like, folder / images)
        source = folder / (
            "ytf/training_frames_keypoints.csv" if like.startswith("ytf") else "300w/lfpw_train.csv"
        )
        shutil.copy(source, folder / csv)
    return folder


@pytest.fixture(scope="module")
def results(folder) -> accuracy.Results:
    results = accuracy.measure(str(hub.BUNDLED), None, folder, limit=2)
    results.figures["command"] = "python benchmarks/accuracy.py --data DATA --write"
    return results


def test_reading_the_faces(folder):
    held_out = read(SETS[0], folder)
    assert 0 < len(held_out) < 24 and held_out.pictures[0].shape == (128, 128, 3)
    two = read(SETS[1], folder, limit=2)
    assert two.names == ["ytf/test/Person_0_00.jpg", "ytf/test/Person_23_00.jpg"]  # spread evenly
    labels = pd.read_csv(folder / SETS[1].csv, index_col=0)
    np.testing.assert_allclose(two.keypoints[1].ravel(), labels.loc["Person_23_00.jpg"], atol=1e-4)


def test_every_table_is_of_the_measured_figures(results):
    figures = json.loads(json.dumps(results.figures))  # as they come back from metrics.json
    pages = tables.pages(figures)
    of_lfpw = figures["figures"]["KeypointNet"]["lfpw_test"]
    lfpw = [line for line in pages["sets"].splitlines() if line.startswith("| 300-W, LFPW test | true")]
    assert len(lfpw) == 4 and f"| 2 | 0 | {of_lfpw['truth']['nme']:.2f} |" in lfpw[0]
    assert '`label_style="300w"`' in lfpw[1] and f"{of_lfpw['own_style']['nme']:.2f}" in lfpw[1]
    assert pages["sets"].count('`label_style="ytf"`') == 4
    assert len(tables.short(figures).splitlines()) == 2 + 4 + 4 + 4 + 2
    levels = sum(len(condition.levels) * len(condition.passes) for condition in CONDITIONS)
    assert len(figures["robustness"]) == 2 + levels
    assert len(pages["robustness"].splitlines()) == 2 + 2 + levels
    assert set(figures["detector"]) == {test.name for test in HELD_OUT}
    assert figures["confidence"]["ytf_test"]["truth"]["ranking"][0] == pytest.approx(
        figures["figures"]["KeypointNet"]["ytf_test"]["truth"]["nme"], abs=0.01
    )
    for table in pages.values():
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert "None" not in table and "nan" not in table
        assert len({line.count("|") for line in rows}) <= 1


def test_the_baseline_stands_beside(results):
    figures = results.figures | {"figures": dict(results.figures["figures"])}
    plain = {
        name: {"truth": ways["truth"], "detected": ways["detected"]}
        for name, ways in figures["figures"]["KeypointNet"].items()
    }
    figures["figures"]["baseline"] = plain
    # In README, of the baseline only the plain way.
    assert len(tables.short(figures).splitlines()) == 2 + 5 + 5 + 5 + 2
    assert tables.pages(figures)["sets"].count("| baseline |") == 6


@pytest.mark.slow
def test_plots_are_pictures_of_the_stated_size(results, tmp_path):
    paths = plots.write_all(tmp_path / "new", *results)
    assert len(paths) == 5
    for path in paths:
        with Image.open(path) as picture:
            assert picture.size[0] == 1200 and 400 < picture.size[1] < 1400
            assert np.asarray(picture.convert("L")).std() > 10, "an empty plot"
        assert path.stat().st_size < 150_000


def test_publishing_replaces_only_between_the_marks(results, tmp_path, monkeypatch, root):
    monkeypatch.setattr(published, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "metrics.json").write_text('{"validation": {"nme": 4.0}}')
    texts = {name: (root / name).read_text() for name in ("README.md", "docs/accuracy.md")}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    pages = tables.pages(results.figures)
    published.publish(tmp_path, "accuracy", results.figures, tables.short(results.figures), pages)
    kept = json.loads((tmp_path / "metrics.json").read_text())
    assert kept["validation"] == {"nme": 4.0}
    assert kept["accuracy"] == json.loads(json.dumps(results.figures))
    assert tables.short(kept["accuracy"]) in (tmp_path / "README.md").read_text()
    for table in pages.values():
        assert table in (tmp_path / "docs/accuracy.md").read_text()

    def outside(text: str) -> list[str]:
        lines, inside = [], False
        for line in text.splitlines():
            inside = inside and not line.startswith("<!-- end of accuracy")
            if not inside:
                lines.append(line)
            inside = inside or line.startswith("<!-- accuracy")
        return lines

    for name, text in texts.items():
        assert outside((tmp_path / name).read_text()) == outside(text)


def test_a_page_without_marks_is_said_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(published, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("<!-- x: python benchmarks/x.py -->\n<!-- end of x -->\n")
    (tmp_path / "docs" / "x.md").write_text("nothing")
    with pytest.raises(ValueError, match="x.md has no place for the table: <!-- x.more"):
        published.publish(tmp_path, "x", {}, "table", {"more": "table"})
    assert "table" not in (tmp_path / "README.md").read_text() and not (tmp_path / "metrics.json").exists()


def test_lists_of_numbers_stay_on_a_line():
    figures = {"a": [1, 2.5, None], "b": [[0.5, 3], [0.25, 4]], "c": [], "d": "[\n 1 ]", "e": [{"f": [1]}]}
    text = published.as_json(figures)
    assert json.loads(text) == figures
    assert '"a": [1, 2.5, null]' in text and "[0.25, 4]" in text


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--write", "--limit", "9"], "figures of a part of the pictures are not published"),
        (["--limit", "1"], "two pictures or more"),
        (["--worst", "0", "/tmp/x"], "'0' is not a number of faces"),
        (["--worst", "9", str(accuracy.ROOT / "docs" / "worst")], "inside the project"),
        (["--worst", "9", "/tmp/x", "--write"], "not published"),
    ],
)
def test_wrong_command_lines(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        accuracy.main(["--data", "nowhere", *arguments])
    assert stopped.value.code == 2 and sentence in capsys.readouterr().err


def test_the_worst_faces_come_first(tmp_path):
    faces = one_face(7)
    predicted = faces.keypoints.copy()
    predicted[5] += 20
    predicted[2] += 10
    path = worst.write_sheet(tmp_path / "new" / "sheet.png", faces, at(predicted), 6)
    sheet = cv2.imread(str(path))[..., ::-1]
    assert sheet.shape == (2 * (worst.TILE + worst.CAPTION), 5 * worst.TILE, 3)
    assert not sheet[worst.TILE + worst.CAPTION :, worst.TILE :].any(), "no sixth and further face, no tile"
    # The chin of the first face: the label in green, the prediction 20 px right and down in white.
    cut = geometry.CropTransform.around_box(faces.boxes[5], worst.TILE, worst.MARGIN)
    for points, colour in ((faces.keypoints, worst.LABEL), (predicted, worst.PREDICTION)):
        x, y = cut.to_crop(points[5, 8]).round().astype(int)
        np.testing.assert_array_equal(sheet[y, x], colour)
