"""Training the face detector: the photos, mosaics, targets, loss and figures, on painted pictures."""

import math
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fkp import data, detector, geometry, metrics
from fkp.detector import DetectorConfig
from fkp.training import face_task
from fkp.training.face_task import FACE, IGNORE, FaceTask, Photo

SMALL = DetectorConfig(widths=(8, 8, 16, 16, 16), neck_width=16, input_size=128)


def painted(size_wh: tuple[int, int], box: tuple[int, int, int, int] | None) -> np.ndarray:
    """A dark picture with a bright ellipse that just fills the box."""
    picture = np.full((size_wh[1], size_wh[0], 3), 20, np.uint8)
    if box is not None:
        x1, y1, x2, y2 = box
        y, x = np.mgrid[: size_wh[1], : size_wh[0]]
        inside = ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1
        picture[inside] = 235
    return picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in small: 12 photos a labelled set, 6 without a label, one with something to ignore."""
    folder = tmp_path_factory.mktemp("data")
    rows = ["image,x1,y1,x2,y2,kind,score"]
    rng = np.random.default_rng(0)
    outline = face_task.ellipses(np.array([[0.0, 0, 1, 1]]))[0]
    for subfolder, (csv, *_) in face_task.LABELLED.items():
        (folder / subfolder).mkdir(parents=True)
        lines = ["," + ",".join(map(str, range(136)))]
        for i in range(12):
            name = f"Person{i}_{i:02}.png"
            x1, y1 = rng.integers(10, 60, 2).tolist()
            box = (x1, y1, x1 + 60, y1 + 70)
            cv2.imwrite(str(folder / subfolder / name), painted((160, 150), box))
            points = (outline * (60, 70) + (x1, y1)).ravel()
            lines.append(name + "," + ",".join(f"{v:.2f}" for v in points))
            rows.append(f"{subfolder}/{name},{x1},{y1},{x1 + 60},{y1 + 70},labelled,")
        (folder / csv).write_text("\n".join(lines) + "\n")
    for subfolder in face_task.FACELESS:
        (folder / subfolder).mkdir()
        for i in range(6):
            box = (20, 30, 60, 90) if subfolder == "scenes" and i == 0 else None
            cv2.imwrite(str(folder / subfolder / f"photo{i}.png"), painted((120, 140), box))
    rows.append("scenes/photo0.png,20,30,60,90,detected,0.9")
    rows += [f"{place}/photo2.png,20,30,60,90,ignore,0.5" for place in ("scenes", "no_faces")]
    (folder / "face_boxes.csv").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture(scope="module")
def task(folder: Path) -> FaceTask:
    return FaceTask(folder, batch_size=4, config=SMALL)


def test_an_empty_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="face_boxes.csv"):
        face_task.read_photos(tmp_path)


@pytest.mark.slow
def test_a_source_without_photos_is_done_without(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_task, "read_photos", lambda _: [])
    with pytest.raises(ValueError, match="no photo to train on"):
        FaceTask(folder)
    monkeypatch.undo()
    faces = [p for p in face_task.read_photos(folder) if p.source == "300w"]
    monkeypatch.setattr(face_task, "read_photos", lambda _: faces)
    task = FaceTask(folder, batch_size=6, config=SMALL)
    assert task.shares.tolist() == [1.0] and (task.batch(0)["kinds"] == FACE).any()


def test_photos_know_their_faces(folder: Path) -> None:
    photos = {p.path.relative_to(folder).as_posix(): p for p in face_task.read_photos(folder)}
    assert len(photos) == 4 * 12 + 2 * 6
    assert all(len(p.outlines) == 1 for p in photos.values() if p.source in ("ytf", "300w"))
    np.testing.assert_allclose(photos["scenes/photo0.png"].boxes, [[20, 30, 60, 90]])
    assert len(photos["scenes/photo0.png"].ignore) == 0
    np.testing.assert_allclose(photos["scenes/photo2.png"].ignore, [[20, 30, 60, 90]])
    assert len(photos["scenes/photo2.png"].outlines) == 0
    # People have looked at these, and seen no face.
    assert len(photos["no_faces/photo2.png"].ignore) == len(photos["no_faces/photo2.png"].outlines) == 0
    assert len(photos["scenes/photo1.png"].boxes) == 0


def test_a_shrunk_photo_keeps_its_faces(folder: Path) -> None:
    photo = next(p for p in face_task.read_photos(folder) if p.source == "ytf")
    image, outlines, _ = photo.load(80)
    assert image.shape == (75, 80, 3)
    box = geometry.tight_boxes(outlines)[0]
    bright = np.argwhere(image[..., 0] > 128)
    np.testing.assert_allclose([*bright.min(0)[::-1], *bright.max(0)[::-1]], box, atol=0.8)


@pytest.mark.slow
def test_training_and_validation_share_no_person_and_no_test_set(shared_data: Path) -> None:
    photos = face_task.read_photos(shared_data)
    folders = {p.path.parent.relative_to(shared_data).as_posix() for p in photos}
    labelled = {"ytf/training", "300w/lfpw_train", "300w/helen_train", "300w/afw"}
    assert folders == labelled | {"no_faces", "scenes"}
    for subfolder, key, share in (
        ("ytf/training", data.person, 7),
        ("300w/lfpw_train", data.photo, 7),
        ("300w/helen_train", data.photo, 7),
        ("300w/afw", data.photo, 3),
        ("no_faces", str, 3),
        ("scenes", str, 3),
    ):
        some = [p for p in photos if p.path.parent == shared_data / subfolder]
        training = {key(p.path.name) for p in some if not p.held_out}
        held_out = {key(p.path.name) for p in some if p.held_out}
        assert not training & held_out
        assert share - 2 < (len(training) + len(held_out)) / len(held_out) < share + 2


@pytest.mark.slow
def test_a_batch_depends_on_seed_step_and_rank_alone(folder: Path, task: FaceTask) -> None:
    np.random.seed(1)
    first = task.batch(7)
    n, _, height, width = first["pictures"].shape
    assert height == width in face_task.SIZES and first["pictures"].dtype == torch.uint8
    assert n == math.ceil(4 * 320**2 / width**2)  # always about as many pixels
    assert first["boxes"].shape == (*first["kinds"].shape, 4)
    other = FaceTask(folder, batch_size=4, config=SMALL)
    with ThreadPoolExecutor(4) as pool:
        batches = list(pool.map(lambda step: other.batch(step), [7, 8, 7, 9]))
    for same in (batches[0], batches[2]):
        assert all(torch.equal(first[name], same[name]) for name in first)
    for changed in (batches[1], task.batch(7, rank=1)):
        assert not torch.equal(first["pictures"], changed["pictures"])


@pytest.mark.slow
def test_what_a_miner_takes_for_a_face_is_shown_more_often(folder: Path) -> None:
    class Miner:
        """Sees a face in the upper left corner of every picture."""

        def __call__(self, image: np.ndarray, *, min_score: float) -> tuple[np.ndarray, np.ndarray]:
            assert min_score == face_task.BAIT_SCORE
            return np.array([[0.0, 0, 20, 20]], np.float32), np.ones(1, np.float32)

    task = FaceTask(folder, config=SMALL, miner=Miner())  # type: ignore[arg-type]
    for source in face_task.FACELESS:
        mined = {photo.path.name for photo, _ in task.baits[source]}
        # Never where there is a face, or may be one; never what is held out.
        allowed = [p for p in task.training[source] if len(p.boxes) + len(p.ignore) == 0]
        assert mined == {p.path.name for p in allowed}
        assert source == "no_faces" or not mined & {"photo0.png", "photo2.png"}
        assert all(bait.max() == pytest.approx(20) for _, bait in task.baits[source])
    assert not FaceTask(folder, config=SMALL).baits
    assert (task.batch(0)["kinds"] == FACE).any()


def test_muon_trains_what_mixes_channels_but_not_the_ends(task: FaceTask) -> None:
    hidden = {id(kernel) for kernel in task.hidden_kernels}
    names = {name for name, p in task.network.named_parameters() if id(p) in hidden}
    assert "stem.2.0.weight" in names and "stage16.0.pointwise.0.weight" in names
    assert not names & {"stem.0.0.weight", "stage16.0.depthwise.0.weight", "score.weight", "box.weight"}


@pytest.mark.slow
def test_boxes_move_with_the_pixels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_task, "recolour", lambda rng, image: image)
    monkeypatch.setattr(face_task, "SHARES", {"ytf": 1.0})
    task = FaceTask(folder, config=SMALL)
    monkeypatch.setattr(task, "_background", lambda rng, size_wh: np.zeros((*size_wh[::-1], 3), np.uint8))
    looked_at = 0
    for seed in range(40):
        tile, boxes, kinds = task.tile(np.random.default_rng(seed), (110, 90))
        assert tile.shape == (90, 110, 3) and len(boxes) == len(kinds) <= 1
        inside = (boxes >= 1).all() and (boxes <= [108, 88, 108, 88]).all()
        if len(boxes) and kinds[0] == FACE and inside:
            bright = np.argwhere(tile[..., 0] > 128)
            np.testing.assert_allclose([*bright.min(0)[::-1], *bright.max(0)[::-1]], boxes[0], atol=1.5)
            looked_at += 1
    assert looked_at >= 10


@pytest.mark.slow
def test_a_face_mostly_cut_away_is_ignored(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_task, "SHARES", {"ytf": 1.0})
    task = FaceTask(folder, config=SMALL)
    box = task.training["ytf"][0].boxes[0]
    monkeypatch.setattr(task, "_draw", lambda rng, source: task.training["ytf"][0])
    # The tile begins at three quarters of the face's width: a quarter of it is seen.
    shift = geometry.CropTransform(np.array([[1, 0, -box[0] - 45], [0, 1, 0.0]]), (100, 150))
    monkeypatch.setattr(face_task, "random_transform", lambda *_: shift)
    _, boxes, kinds = task.tile(np.random.default_rng(0), (100, 150))
    assert kinds.tolist() == [IGNORE]
    np.testing.assert_allclose(boxes[0], [0, box[1], 15, box[3]], atol=0.02)


# --- Targets -----------------------------------------------------------------------------------------------


def aim(boxes: list[list[float]], kinds: list[int], size: int = 128) -> tuple[torch.Tensor, ...]:
    """Of one picture: the box each cell learns, whether in its middle, whether it counts, the cells."""
    at = detector.cells(size, size)
    some = torch.tensor(boxes).reshape(1, -1, 4)
    learnt = face_task.targets(some, torch.tensor([kinds]).long(), at)
    return learnt.box[0], learnt.middle[0], learnt.counts[0], at


def test_no_box_no_target() -> None:
    for index, middle, counts, _ in (aim([], []), aim([[0.0, 0, 0, 0]], [face_task.NOTHING])):
        assert (index == -1).all() and not middle.any() and counts.all()


def test_cells_near_the_middle_learn_a_face() -> None:
    index, middle, counts, at = aim([[44.0, 44, 74, 74]], [FACE])
    # 30 pixels, around (59, 59): the middle is within 6 pixels, the score does not count up to 9. On the
    # grid of 8 the centres are 59.5 ± 8. To the grid of 16 the face nearly belongs: up to 18 pixels.
    assert at[middle].tolist() == [[59.5, 59.5, 8.0]]
    unsure = (index == 0) & ~middle
    assert at[unsure & (at[:, 2] == 8)].tolist() == [
        [59.5, 51.5, 8], [51.5, 59.5, 8], [67.5, 59.5, 8], [59.5, 67.5, 8]
    ]  # fmt: skip
    assert at[unsure & (at[:, 2] == 16)].tolist() == [
        [55.5, 55.5, 16], [71.5, 55.5, 16], [55.5, 71.5, 16], [71.5, 71.5, 16]
    ]  # fmt: skip
    assert torch.equal(counts, ~unsure)


@pytest.mark.parametrize(
    ("side", "strides"), [(10, {8}), (50, {8, 16}), (70, {16}), (100, {16, 32}), (320, {32})]
)
def test_the_grid_is_that_of_the_size(side: float, strides: set[int]) -> None:
    low, high = 160 - side / 2, 160 + side / 2
    _, middle, _, at = aim([[low, low, high, high]], [FACE], size=320)
    assert set(at[middle, 2].int().tolist()) == strides


@pytest.mark.slow
def test_every_face_has_a_middle_wherever_it_lies() -> None:
    rng = np.random.default_rng(0)
    for _ in range(200):
        side = np.exp(rng.uniform(np.log(8), np.log(120)))
        x, y = rng.uniform(0, 128 - side, 2)
        assert aim([[x, y, x + side, y + 0.8 * side]], [FACE])[1].any()


def test_the_smaller_of_two_faces_is_learnt() -> None:
    index, middle, _, at = aim([[30.0, 30, 80, 80], [40.0, 40, 71, 71]], [FACE, FACE])
    # Beside the middle cell of both, the larger face has others on the same grid and one on the next.
    assert index[(at == torch.tensor([51.5, 51.5, 8])).all(1)].item() == 1
    assert (index[middle] == 0).any()


def test_what_is_to_be_ignored_neither_counts_nor_learns_unless_a_face_is_there() -> None:
    index, _, counts, at = aim([[20.0, 20, 100, 100]], [IGNORE])
    inside = ((at[:, :2] > 20) & (at[:, :2] < 100)).all(1)
    assert (index == -1).all() and not counts[inside].any() and counts[~inside].all()
    _, middle, counts, _ = aim([[20.0, 20, 100, 100], [45.0, 45, 75, 75]], [IGNORE, FACE])
    assert middle.any() and counts[middle].all() and not counts[inside & ~middle].any()


# --- Loss --------------------------------------------------------------------------------------------------


class Saying(torch.nn.Module):
    """A network that says what it was given."""

    def __init__(self, logits: torch.Tensor, offsets: torch.Tensor) -> None:
        super().__init__()
        self.logits, self.offsets = torch.nn.Parameter(logits), torch.nn.Parameter(offsets)

    def forward(self, pictures: torch.Tensor) -> detector.Grids:
        return detector.Grids(self.logits, self.offsets)


def said(box: list[float], kind: int, right: bool) -> tuple[Saying, dict[str, torch.Tensor]]:
    """A network that says everything right, or nothing, about one box in one picture."""
    at = detector.cells(128, 128)
    batch = {
        "pictures": torch.zeros(1, 3, 128, 128, dtype=torch.uint8),
        "boxes": torch.tensor([[box]]),
        "kinds": torch.tensor([[kind]]),
    }
    middle = face_task.targets(batch["boxes"], batch["kinds"], at).middle
    logits = torch.where(middle, 12.0, -15.0) if right else torch.zeros(1, len(at))
    offsets = detector.encode(batch["boxes"].expand(1, len(at), 4), at[None])
    return Saying(logits, offsets if right else torch.zeros_like(offsets)), batch


def test_the_right_answer_costs_nothing(task: FaceTask) -> None:
    right, batch = said([40.0, 44, 76, 80], FACE, right=True)
    loss, parts = task.loss(right, batch)
    assert loss.item() < 1e-3 and set(parts) == {"score", "box"}
    nothing, batch = said([40.0, 44, 76, 80], FACE, right=False)
    assert task.loss(nothing, batch)[0].item() > 0.5


def test_cells_in_a_box_to_ignore_learn_nothing(task: FaceTask) -> None:
    saying, batch = said([40.0, 44, 76, 80], IGNORE, right=False)
    task.loss(saying, batch)[0].backward()
    at = detector.cells(128, 128)
    inside = ((at[:, :2] > batch["boxes"][0, 0, :2]) & (at[:, :2] < batch["boxes"][0, 0, 2:])).all(1)
    assert not saying.logits.grad[0, inside].any()
    assert (saying.logits.grad[0, ~inside] > 0).any()


def test_a_batch_without_a_face_has_a_finite_loss(task: FaceTask) -> None:
    saying, batch = said([0.0, 0, 0, 0], face_task.NOTHING, right=False)
    assert torch.isfinite(task.loss(saying, batch)[0])


@pytest.mark.slow
def test_a_few_steps_on_one_batch_lower_the_loss(folder: Path) -> None:
    torch.manual_seed(0)
    task = FaceTask(folder, batch_size=4, config=SMALL)
    batch, losses = task.batch(0), []
    optimiser = torch.optim.AdamW(task.network.train().parameters(), lr=1e-2)
    for _ in range(50):
        loss, _ = task.loss(task.network, batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert np.mean(losses[-3:]) < 0.6 * np.mean(losses[:3])


# --- How good it is ----------------------------------------------------------------------------------------


def photo(faces: list[list[float]], ignore: list[list[float]], source: str = "300w") -> Photo:
    outlines = face_task.ellipses(np.array(faces, float).reshape(-1, 4))
    return Photo(Path("none.png"), source, True, outlines, np.array(ignore, float).reshape(-1, 4))


EMPTY = np.empty((0, 4)), np.empty(0)


def test_nothing_found_where_nothing_is() -> None:
    figures = face_task.measure([(photo([], [], "scenes"), *EMPTY)])
    assert figures["ap"] == figures["recall_ytf"] == figures["iou"] == figures["extra"] == 0


def test_each_face_has_one_box() -> None:
    there = photo([[0, 0, 10, 10], [50, 50, 60, 60]], [[80, 80, 90, 90]])
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [80, 80, 90, 90], [30, 30, 40, 40.0]])
    result = face_task.match(there, boxes, np.array([0.6, 0.9, 0.8, 0.7]))
    # The best scored has the face, the second on it is false, as is the one on nothing; the third is ignored.
    assert result.faces == 2
    np.testing.assert_allclose(result.scores, [0.6, 0.9, 0.7])
    np.testing.assert_allclose(result.overlaps, [0, 0.9, 0])


def test_the_operating_threshold_and_the_figures_at_it() -> None:
    box = np.array([[0, 0, 10, 10.0]])
    found = [(photo([[0, 0, 10, 9]], []), box, np.array([score])) for score in (0.9, 0.8, 0.7, 0.1)]
    found += [(photo([], [], "no_faces"), box, np.array([score])) for score in (0.75, 0.4, 0.3, 0.2)]
    figures = face_task.measure(found)
    # F1 is 2/5, 4/6, 4/7 (the false box of 0.75), 6/8, 6/9 ... 8/12 at falling thresholds.
    assert figures["min_score"] == pytest.approx(0.7)
    assert figures["recall_300w"] == 75 and figures["iou"] == pytest.approx(90) and figures["extra"] == 0
    assert figures["faceless"] == 25


def test_found_nothing_at_all() -> None:
    assert metrics.operating_threshold([face_task.match(photo([[0, 0, 9, 9]], []), *EMPTY)]) == 0.5


@pytest.mark.slow
def test_validation_and_preview_run(task: FaceTask) -> None:
    figures = task.validate(task.network)
    assert next(iter(figures)) == "ap" and all(np.isfinite(v) for v in figures.values())
    picture = task.preview(task.network)
    assert picture.dtype == np.uint8 and picture.ndim == 3


def test_what_boxes_are_off_by_on_the_whole() -> None:
    faces = [[10.0, 10, 50, 60], [100, 100, 180, 160]]
    off = np.array([2, 3, 2, 3.0])
    there = photo(faces, [])
    found = [(there, np.array(faces) + off, np.array([0.9, 0.8]))] * 3
    expected = np.median([[2 / 50, 3 / 50, 0, 0], [2 / 80, 3 / 80, 0, 0]], axis=0)
    np.testing.assert_allclose(face_task.bias(found), expected, atol=1e-4)
    assert face_task.bias([(there, *EMPTY)]) == (0, 0, 0, 0)


def test_a_covered_face_is_covered_nowhere_else(task: FaceTask) -> None:
    tile = np.full((100, 120, 3), 7, np.uint8)
    times = 0
    for seed in range(12):
        covered = tile.copy()
        task._cover_part(np.random.default_rng(seed), covered, np.array([30.0, 20, 80, 70]))
        changed = np.argwhere((covered != tile).any(-1))
        assert (changed >= [20, 30]).all() and (changed < [70, 80]).all()
        times += len(changed) > 0
    assert times >= 3
    covered = tile.copy()
    task._cover_part(np.random.default_rng(0), covered, np.array([-5.0, 20, 10, 70]))
    np.testing.assert_array_equal(covered, tile)  # too little of it is seen
