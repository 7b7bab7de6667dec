"""The detection benchmark: boxes are counted rightly, and pages show what was measured."""

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from benchmarks import (
    collages,
    detection,
    detection_figures,
    detection_plot,
    detection_tables,
    hard,
    photo_sets,
    published,
    stopwatch,
)
from benchmarks.collages import Collage, Head, Material
from benchmarks.photo_sets import NONE, Fit, Photo, Seen
from fkp import data, geometry, hub, images
from fkp.training import face_task
from tests import synthetic

# --- What is found ------------------------------------------------------------------------------------------


def photo(faces=(), doubtful=(), *, held_out=True, name="photo.jpg") -> Photo:
    picture = np.full((100, 100, 3), 128, np.uint8)
    boxes = [np.array(some, np.float64).reshape(-1, 4) for some in (faces, doubtful)]
    return Photo(name, lambda: picture, *boxes, held_out)


def seen(boxes, scores, of: Photo) -> Seen:
    return Seen(of, np.array(boxes, np.float64).reshape(-1, 4), np.array(scores, np.float64))


FACE, OTHER, NOWHERE = [10, 10, 30, 30], [50, 50, 70, 70], [80, 10, 95, 25]


def test_nothing_found():
    nothing = seen([], [], photo([FACE]))
    assert nothing.false().tolist() == [] and nothing.hits().tolist() == [False]
    assert photo_sets.recall([nothing], 0) == 0 and photo_sets.recall([], 0) is None
    assert len(photo_sets.false_scores([])) == len(photo_sets.false_scores([nothing])) == 0
    boxes = np.array([FACE], np.float64)
    np.testing.assert_array_equal(photo_sets.fit([nothing])(boxes), boxes)


def test_boxes_on_something_doubtful_neither_count_nor_are_false():
    finds = seen([FACE, OTHER, NOWHERE, [11, 10, 30, 30]], [0.9, 0.8, 0.7, 0.6], photo([FACE], [OTHER]))
    assert finds.own.tolist() == [0, -1, -1, -1] and finds.hits().tolist() == [True]
    # The last one is a second box on a face.
    assert finds.false().tolist() == [2, 3]
    np.testing.assert_allclose(photo_sets.false_scores([finds]), [0.7, 0.6])
    np.testing.assert_allclose(finds.found.scores, [0.9, 0.7, 0.6])
    assert photo_sets.recall([finds], 0.9) == 100 and photo_sets.recall([finds], 0.91) == 0
    assert finds.above(0.91).hits().tolist() == [False]


def test_each_photo_is_read_once_for_all_detectors():
    times = []

    def read() -> np.ndarray:
        times.append(1)
        return np.zeros((100, 100, 3), np.uint8)

    def detector(image, *, min_score=None):
        assert image.shape == (100, 100, 3) and min_score == photo_sets.LEAST_SCORE
        return np.array([NOWHERE, FACE], np.float32), np.array([0.1, 0.9], np.float32)

    one = Photo("a.jpg", read, np.array([FACE]), NONE, True)
    found = photo_sets.detect({"one": detector, "other": detector}, [one], "photos")
    assert len(times) == 1 and found.keys() == {"one", "other"}
    assert found["other"][0].scores.tolist() == pytest.approx([0.9, 0.1]), "best first"


def test_the_fit_finds_the_map_that_was_applied():
    rng = np.random.default_rng(0)
    made = Fit((0.05, -0.1), (1.1, 0.8))
    finds = []
    for _ in range(30):
        corner, size = rng.uniform(0, 50, 2), rng.uniform(20, 40, 2)
        boxes = np.array([[*corner, *(corner + size)]])
        finds.append(seen(boxes, [0.9], photo(made(boxes))))
    # Boxes nobody should learn from: one of no face, one of a low score.
    finds += [seen([NOWHERE], [0.9], photo([FACE])), seen([FACE], [0.1], photo([[10, 10, 33, 33]]))]
    np.testing.assert_allclose(photo_sets.fit(finds), made, atol=1e-3)
    np.testing.assert_allclose(made(np.array([[0.0, 0, 10, 20]])), [[0, 0, 11, 16]])
    mapped = made.of(finds[0])
    np.testing.assert_allclose(mapped.boxes, finds[0].photo.faces, atol=1e-9)
    assert mapped.found.overlaps == pytest.approx([1])


def test_photos_spread_evenly():
    photos = [photo(name=str(i)) for i in range(11)]
    assert [p.name for p in photo_sets.spread(photos, 3)] == ["0", "5", "10"]
    assert len(photo_sets.spread(photos, None)) == len(photo_sets.spread(photos, 20)) == 11


# --- Group pictures -----------------------------------------------------------------------------------------


def head(folder: Path, width: float = 100.0, roll: float = 0.0) -> Head:
    """A synthetic face in a photo of 400 × 400 pixels."""
    turn = collages.rotation(roll)
    keypoints = synthetic.face(width, (0, 0)) @ turn.T + [200, 210]
    path = folder / f"head_{width:g}_{roll:g}.png"
    Image.fromarray(synthetic.picture(keypoints, (400, 400))).save(path)
    return Head(path, keypoints)


@pytest.fixture(scope="module")
def stuff(tmp_path_factory) -> Material:
    folder = tmp_path_factory.mktemp("heads")
    rng = np.random.default_rng(0)
    backgrounds = []
    for i in range(3):
        backgrounds.append(folder / f"background_{i}.png")
        Image.fromarray(rng.integers(0, 60, (120, 160, 3)).astype(np.uint8)).save(backgrounds[-1])
    heads = [head(folder, width, roll) for width in (60, 120, 170) for roll in (-20, 0, 10)]
    return Material(heads, backgrounds)


@pytest.mark.parametrize(("own", "wanted"), [(0, 0), (20, 0), (-10, 40), (0, -45)])
def test_a_head_is_placed_as_asked(tmp_path, own, wanted):
    one = head(tmp_path, 100, own)
    assert one.roll == pytest.approx(own, abs=1e-6)
    placed = collages.place(one, 50, wanted, (30, 40), (640, 480))
    keypoints = geometry.CropTransform(placed.to_picture, (640, 480)).to_crop(one.keypoints)
    np.testing.assert_allclose(geometry.tight_boxes(keypoints), placed.box, atol=1e-9)
    np.testing.assert_allclose(placed.box[:2], [30, 40])
    assert collages.longer_side(placed.box) == pytest.approx(50) and placed.cut == 0
    x, y = keypoints[45] - keypoints[36]
    assert np.degrees(np.arctan2(y, x)) == pytest.approx(wanted, abs=1e-6)


def test_the_share_that_the_edge_cuts(tmp_path):
    one = head(tmp_path)
    box = collages.place(one, 50, 0, (0, 0), (640, 480)).box
    width, height = box[2:]
    # A picture ends half a pixel beyond its first and last pixel's middle.
    left = collages.place(one, 50, 0, (-0.25 * width - 0.5, 100), (640, 480))
    assert left.cut == pytest.approx(0.25)
    below = collages.place(one, 50, 0, (100, 479.5 - 0.6 * height), (640, 480))
    assert below.cut == pytest.approx(0.4)


def test_heads_that_are_not_alone_or_not_whole_are_left_out(tmp_path):
    one = head(tmp_path)
    own = geometry.tight_boxes(one.keypoints)
    assert collages.is_alone(one, NONE) and collages.is_alone(one, own[None])
    assert collages.is_alone(one, own[None] + 250), "another face far away"
    assert not collages.is_alone(one, np.array([[150.0, 110, 190, 150]])), "another face in the hair"
    assert collages.is_whole(one, (400, 400)) and not collages.is_whole(one, (400, 230))


def test_group_pictures_are_as_stated(stuff):
    groups = collages.group_pictures(stuff, 12)
    again = collages.group_pictures(stuff, 12)
    sides, turns, cuts = [], [], []
    for group, same in zip(groups, again, strict=True):
        np.testing.assert_array_equal(group.faces, same.faces)
        np.testing.assert_array_equal(group.faces, [each.box for each in group.pasted])
        outlines = np.array([collages.bounds(each) for each in group.pasted])
        overlaps = geometry.iou(outlines, outlines) - np.eye(len(outlines))
        assert overlaps.max(initial=0) < 1e-9, "no head on another"
        for each in group.pasted:
            sides.append(each.side)
            turns.append(each.turn)
            cuts.append(each.cut)
            assert each.side <= collages.ENLARGED * each.head.side
    assert 16 <= min(sides) < 30 and 100 < max(sides) <= 200
    assert -45 <= min(turns) < -25 and 25 < max(turns) <= 45
    assert 0.03 < np.mean(np.array(cuts) > 0) < 0.4 and max(cuts) < 0.5
    assert max(len(group.faces) for group in groups) <= 40
    first, same = groups[0].read(), again[0].read()
    assert first.shape[:2][::-1] in collages.SIZES_WH and first.dtype == np.uint8
    np.testing.assert_array_equal(first, same)


def test_a_pasted_face_lies_in_its_box(stuff):
    """Heads are bright on dark backgrounds: the light of each lies in the middle of its box."""
    rng = np.random.default_rng(0)
    pasted = collages.layout(rng, stuff.heads, np.array([120.0, 60, 24]), (640, 480), 45)
    picture = np.zeros((480, 640, 3), np.uint8)
    for each in pasted:
        before = picture.copy()
        collages.paste(rng, picture, each)
        light = np.where(picture[..., 0] > 150, 1.0, 0) * (before[..., 0] == 0)
        y, x = np.nonzero(light)
        assert len(y) > 0.3 * each.side**2 * (1 - each.cut) * 0.8
        box = each.box.clip(0, [640, 480, 640, 480])
        assert (np.array([x.min(), y.min()]) > box[:2] - 3).all()
        assert (np.array([x.max(), y.max()]) < box[2:] + 3).all()
    assert len(pasted) == 3


def test_big_pictures_and_filled_frames(stuff):
    (big,) = collages.big_pictures(stuff, 1)
    assert len(big.faces) == 12 and {each.side for each in big.pasted} == {40.0}
    assert big.read().shape == (3000, 4000, 3)
    (filled,) = collages.filled_frames(stuff, 1, (640, 480))
    assert 0.75 * 480 <= collages.longer_side(filled.faces[0]) <= 0.95 * 480
    np.testing.assert_allclose(filled.faces[0].reshape(2, 2).mean(0), [319.5, 239.5], atol=1e-6)
    picture = filled.read()
    assert picture.shape == (480, 640, 3) and picture[240, 320, 0] > 150, "the cheeks are bright"
    assert collages.filled_frames(Material(stuff.heads[:3], []), 1, (640, 480)) == [], "too small to enlarge"


def test_heads_come_from_nobody_that_the_detector_was_trained_on(shared_data):
    known = collages.material(shared_data)
    keys = {source.folder: source.key for source in data.TRAINING_SOURCES}
    assert len(known.heads) > 500 and len(known.backgrounds) > 50
    for one in known.heads:
        folder = one.path.parent.relative_to(shared_data).as_posix()
        assert folder == "300w/lfpw_test" or face_task.is_held_out(folder, one.path.name)
        if folder == "ytf/training":
            assert data.is_held_out(keys[folder](one.path.name))
    assert all(face_task.is_held_out("no_faces", path.name) for path in known.backgrounds)


# --- Figures ------------------------------------------------------------------------------------------------


def collage(*faces: tuple[list[float], float, float, float]) -> Collage:
    """A group picture of faces by box, side, turn and cut."""
    one = Head(Path("none.png"), np.zeros((68, 2)))
    pasted = [collages.Pasted(one, np.eye(2, 3), np.array(box, np.float64), *rest) for box, *rest in faces]
    boxes = np.array([each.box for each in pasted])
    return Collage("collage", lambda: np.zeros((9, 9, 3), np.uint8), boxes, NONE, True, pasted)


@pytest.fixture
def raw() -> dict[str, list[Seen]]:
    """What one detector found, by set."""
    group = collage((FACE, 20.0, 0.0, 0.0), (OTHER, 30.0, -40.0, 0.2), (NOWHERE, 200.0, 3.0, 0.0))
    return {
        "ytf_test": [seen([FACE], [0.9], photo([FACE])), seen([NOWHERE], [0.8], photo([FACE]))],
        "lfpw_test": [seen([FACE, OTHER], [0.55, 0.3], photo([FACE, OTHER]))],
        "afw": [seen([FACE, OTHER], [0.7, 0.6], photo([FACE], [OTHER]))],
        "no_faces": [
            seen([FACE, OTHER], [0.6, 0.2], photo(held_out=False)),
            seen([FACE, OTHER, NOWHERE], [0.5, 0.4, 0.3], photo()),
        ],
        "scenes": [seen([FACE], [0.65], photo())],
        "collages": [seen([FACE, OTHER, [0, 80, 9, 90]], [0.9, 0.7, 0.6], group)],
    }  # fmt: skip


def test_a_row_of_a_threshold(raw):
    row = detection_figures.threshold_row(raw, 0.5)
    assert row["ytf_test"] == 50 and row["lfpw_test"] == 50 and row["afw"] == 100
    assert row["off"] == {"ytf_test": 50, "lfpw_test": 0, "afw": 0}
    assert (row["no_faces"], row["no_faces_held_out"], row["scenes"]) == (2, 1, 1)
    assert row["collages"] == 50, "of the two faces of 24 px and more"


def test_the_threshold_with_few_false_boxes(raw, monkeypatch):
    figures = detection_figures.thresholds(raw, 0.651)
    # Of 0.6, 0.5, 0.4, 0.3 and 0.2, at most three: more than 0.3.
    assert figures["few_false"] == pytest.approx(0.301)
    assert [row["no_faces"] for row in figures["thresholds"] if row["threshold"] in (0.301, 0.651)] == [3, 0]
    monkeypatch.setitem(detection_figures.FEW, "scenes", 0)
    assert detection_figures.thresholds(raw, 0.651)["few_false"] == pytest.approx(0.651)
    monkeypatch.setattr(detection_figures, "FEW", {"no_faces": 9})
    assert detection_figures.thresholds(raw, 0.5)["few_false"] == photo_sets.LEAST_SCORE


def test_detectors_at_as_many_false_boxes(raw):
    blind = {name: [seen([], [], each.photo) for each in some] for name, some in raw.items()}
    both = {name: {"fkp": raw[name], "YuNet": blind[name]} for name in raw}
    rows = detection_figures.beside(both, {"fkp": 0.5, "YuNet": 0.8})
    assert [(row["allowed"], row["detector"]) for row in rows[:2]] == [(0, "fkp"), (0, "YuNet")]
    assert rows[0]["threshold"] == pytest.approx(0.601) and rows[0]["no_faces"] == 0
    assert rows[0]["afw"] == 100 and rows[0]["lfpw_test"] == 0 and rows[0]["ytf_test"] == 50
    assert rows[1]["threshold"] == photo_sets.LEAST_SCORE and rows[1]["ytf_test"] == 0
    assert rows[-2]["allowed"] is None and rows[-2]["threshold"] == 0.5 and rows[-2]["lfpw_test"] == 50


def test_group_pictures_by_size_turn_and_cut(raw):
    figures = detection_figures.group_pictures(raw, {name: {"fkp": some} for name, some in raw.items()}, 0.8)
    assert figures["points"] == {
        "fkp": {"threshold": 0.8, "false_boxes": 0},
        "fkp, few": {"threshold": pytest.approx(0.301), "false_boxes": 1},
    }
    rows = {(row["by"], row["from"], row["to"]): row for row in figures["rows"]}
    everything, at_least_24 = rows["side", 0, None], rows["side", 24, None]
    assert (everything["faces"], everything["fkp"], everything["fkp, few"]) == (3, 33.33, 66.67)
    assert (at_least_24["faces"], at_least_24["fkp"], at_least_24["fkp, few"]) == (2, 0, 50)
    assert rows["side", 16, 24]["fkp"] == 100 and rows["side", 24, 32]["fkp, few"] == 100
    assert rows["side", 32, 64]["faces"] == 0 and rows["side", 32, 64]["fkp"] is None
    assert rows["side", 128, 200]["faces"] == 1, "the largest size counts, too"
    assert rows["turn", 0, 15]["faces"] == 1 and rows["turn", 30, 45]["fkp, few"] == 100
    assert rows["cut", 0, 1e-6]["faces"] == 1 and rows["cut", 0.15, 0.3]["faces"] == 1


def test_how_well_boxes_on_a_set_fit(raw):
    some = photo_sets.PhotoSet("lfpw_test", "LFPW", [each.photo for each in raw["lfpw_test"]])
    figures = detection_figures.of_set(some, raw["lfpw_test"], 0.5)
    assert figures == {
        "title": "LFPW", "photos": 1, "faces": 2, "held_out": 1, "ap": 100, "ap50": 100, "iou": 100
    }  # fmt: skip
    assert detection_figures.of_set(some, raw["lfpw_test"], 0.99)["iou"] is None
    empty = photo_sets.PhotoSet("no_faces", "none", [each.photo for each in raw["no_faces"]])
    assert detection_figures.of_set(empty, raw["no_faces"], 0.5) == {
        "title": "none", "photos": 2, "faces": 0, "held_out": 1
    }  # fmt: skip


# --- Hard cases ---------------------------------------------------------------------------------------------


def test_hard_cases_by_kind_hardest_first():
    large, small = [0, 0, 40, 40], [60, 60, 70, 70]
    photos = {"a": [seen([NOWHERE, FACE], [0.7, 0.6], photo([small, large], name="a.jpg"))]}
    photos["b"] = [seen([NOWHERE, [52, 50, 70, 70]], [0.9, 0.8], photo([OTHER], name="b.jpg"))]
    found = hard.cases(photos)
    assert [case.words for case in found["missed"]] == ["missed at 40 px", "missed at 10 px"]
    assert [case.words for case in found["false"]] == ["false at 0.90", "false at 0.70", "false at 0.60"]
    assert [case.words for case in found["loose"]] == ["IoU 0.90"]


def test_sheets_of_hard_cases(tmp_path):
    finds = {
        "ytf_test": [seen([NOWHERE], [0.7], photo([FACE], name="a.jpg"))],
        "collages": [seen([NOWHERE], [0.8], photo(name="collage_1"))],
    }
    paths = hard.write_sheets(tmp_path / "new", finds, 3)
    names = ["missed_photos.png", "false_photos.png", "false_group_pictures.png", "hard.txt"]
    assert [path.name for path in paths] == names
    listed = (tmp_path / "new" / "hard.txt").read_text().splitlines()
    assert listed[:2] == ["missed, photos: 1", "  a.jpg [10, 10, 30, 30]: missed at 20 px"]
    # Three box sizes around the missed face are 360 px: its left edge is a third of them in.
    sheet = cv2.imread(str(paths[0]))[..., ::-1]
    np.testing.assert_allclose(sheet[180, 120], hard.FACE, atol=60)
    assert sheet[180, 180].tolist() == [128, 128, 128]


# --- The whole ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A made-up data folder with the test sets, too; of the scenes, one shows a face and one may."""
    folder = synthetic.data_folder(tmp_path_factory.mktemp("data"), faces=24)
    for csv, like, pictures, source in (
        ("ytf/test_frames_keypoints.csv", "ytf/training", "ytf/test", "ytf/training_frames_keypoints.csv"),
        ("300w/lfpw_test.csv", "300w/lfpw_train", "300w/lfpw_test", "300w/lfpw_train.csv"),
    ):
        shutil.copytree(folder / like, folder / pictures)
        shutil.copy(folder / source, folder / csv)
    with open(folder / "face_boxes.csv", "a") as boxes:
        boxes.write("scenes/001.jpg,10,10,50,60,ignore,0.4\nscenes/002.jpg,10,10,50,60,detected,0.9\n")
        boxes.write("300w/lfpw_test/1003_1.jpg,1,2,11,22,detected,0.9\n")
    return folder


def test_sets_of_photos(folder):
    sets = photo_sets.read_sets(folder)
    assert len(sets["ytf_test"].photos) == len(sets["lfpw_test"].photos) == 24
    assert 0 < len(sets["afw"].photos) < 24
    assert all(face_task.is_held_out("300w/afw", Path(p.name).name) for p in sets["afw"].photos)
    assert [p.name for p in sets["scenes"].photos] == [f"scenes/{i:03d}.jpg" for i in (0, 3, 4, 5)]
    by_name = {p.name: p for p in sets["lfpw_test"].photos}
    one = by_name["300w/lfpw_test/1003_1.jpg"]
    np.testing.assert_allclose(one.doubtful, [[1, 2, 11, 22]])
    assert one.held_out and len(one.faces) == 1 and one.read().shape == (128, 128, 3)
    assert [p.held_out for p in sets["no_faces"].photos] == [
        face_task.is_held_out("no_faces", f"{i:03d}.jpg") for i in range(6)
    ]
    assert len(photo_sets.read_sets(folder, 2)["no_faces"].photos) == 2
    fitted = {p.name for p in photo_sets.training_photos(folder, 1000)}
    assert len(fitted) > 40 and not any(p.held_out for p in photo_sets.training_photos(folder, 1000))
    assert not fitted & {p.name for some in sets.values() for p in some.photos}


def test_a_folder_without_held_out_faces_is_told(folder, monkeypatch):
    monkeypatch.setattr(collages, "is_alone", lambda *_: False)
    with pytest.raises(ValueError, match="has no held-out faces"):
        collages.material(folder)


@pytest.fixture(scope="module")
def results(folder) -> detection.Results:
    with pytest.MonkeyPatch.context() as smaller:
        smaller.setattr(collages, "BIG_WH", (1200, 900))
        results = detection.measure(hub.BUNDLED, folder, limit=2, seconds=0.01)
    results.figures["command"] = "python benchmarks/detection.py --data DATA --write"
    return results


def test_every_table_is_of_the_measured_figures(results):
    figures = json.loads(json.dumps(results.figures, allow_nan=False))  # as they come back from metrics.json
    pages = detection_tables.pages(figures)
    for table in (detection_tables.short(figures), *pages.values()):
        rows = [line for line in table.splitlines() if line.startswith("|")]
        assert "None" not in table and "nan" not in table
        assert len({line.count("|") for line in rows}) <= 1
    own = next(row for row in figures["thresholds"] if row["threshold"] == figures["min_score"])
    assert f"| **{figures['min_score']:g}** | **{own['ytf_test']:.2f}** |" in pages["thresholds"]
    assert [row["set"] for row in figures["end_to_end"]] == ["ytf_test", "lfpw_test"]
    assert figures["big"][0]["faces"] == 24 and figures["big"][0]["photos"] == 2
    frame = next(row for row in figures["speed"]["rows"] if row["task"] == "640x480")
    assert f"fkp {frame['ms']:.1f} ms" in detection_tables.short(figures)
    assert 0.1 < figures["weights_mb"]["fkp"] < 2


def test_what_was_not_measured_is_named(results):
    figures = results.figures
    for text in (detection_tables.short(figures), detection_tables.pages(figures)["beside"]):
        assert "YuNet is left out: its file was not given" in text and "Haar cascades are left out" in text
    row = figures["beside"][0] | {"detector": "YuNet"}
    with_yunet = figures | {
        "fits": {"fkp": figures["fits"]["fkp"], "YuNet": figures["fits"]["fkp"]},
        "beside": [*figures["beside"], *(row | {"allowed": allowed} for allowed in (0, 1, 3, 10, None))],
    }
    short = detection_tables.short(with_yunet)
    assert "YuNet is left out" not in short and "| YuNet, at most 3 false boxes |" in short


def test_the_plot_is_a_picture_of_the_stated_size(results, tmp_path):
    path = detection_plot.write(tmp_path / "new", results.figures, results.mapped)
    with Image.open(path) as picture:
        assert picture.size[0] == 1200 and 400 < picture.size[1] < 800
        assert np.asarray(picture.convert("L")).std() > 10, "an empty plot"
    assert path.stat().st_size < 150_000


def test_the_page_has_a_place_for_every_table(results, tmp_path, monkeypatch, root):
    monkeypatch.setattr(published, "ROOT", tmp_path)
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/detection.md"):
        shutil.copy(root / name, tmp_path / name)
    pages, short = detection_tables.pages(results.figures), detection_tables.short(results.figures)
    published.publish(tmp_path, "detection", results.figures, short, pages)
    kept = json.loads((tmp_path / "metrics.json").read_text())["detection"]
    assert detection_tables.short(kept) in (tmp_path / "README.md").read_text()
    page = (tmp_path / "docs/detection.md").read_text()
    assert all(table in page for table in detection_tables.pages(kept).values())
    assert page.count("<!-- end of ") == len(pages)


def test_haar_needs_an_older_opencv():
    order = {"threads": 1, "pictures": "none.npz", "tasks": []}
    if hasattr(cv2, "CascadeClassifier"):
        with pytest.raises(FileNotFoundError):
            stopwatch.haar(order)
    else:
        with pytest.raises(RuntimeError, match="has no Haar cascades, 4.x has"):
            stopwatch.haar(order)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--write", "--limit", "9"], "figures of a part of the pictures are not published"),
        (["--limit", "1"], "two pictures or more"),
        (["--yunet", "nowhere.onnx"], "there is no file nowhere.onnx"),
        (["--haar", "no-such-python"], "no-such-python is no program"),
        (["--hard", "0", "/tmp/x"], "'0' is not a number of faces"),
        (["--hard", "9", str(detection.ROOT / "docs" / "hard")], "inside the project"),
        (["--hard", "9", "/tmp/x", "--write"], "not published"),
    ],
)
def test_wrong_command_lines(arguments, sentence, capsys):
    with pytest.raises(SystemExit) as stopped:
        detection.main(["--data", "nowhere", *arguments])
    assert stopped.value.code == 2 and sentence in capsys.readouterr().err


def test_data_that_is_not_there_is_a_sentence(tmp_path, capsys):
    assert detection.main(["--data", str(tmp_path)]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("detection.py: ") and said.err.count("\n") == 1


def test_the_command_on_record_names_no_folder(tmp_path):
    file = tmp_path / "yunet.onnx"
    file.write_bytes(b"")
    given = ["--data", str(tmp_path), "--yunet", str(file), "--write"]
    assert detection.command(detection.parse(given)) == (
        "python benchmarks/detection.py --data DATA --yunet FILE --write"
    )


def test_hard_cases_of_the_whole(folder, tmp_path, capsys):
    assert detection.main(["--data", str(folder), "--limit", "2", "--hard", "2", str(tmp_path / "hard")]) == 0
    paths = [Path(line) for line in capsys.readouterr().out.splitlines()]
    assert paths[-1].name == "hard.txt" and all(path.is_file() for path in paths)
    assert all(images.read(path).shape[1] % 360 == 0 for path in paths[:-1])
