"""Training the face detector: the photos, mosaics, targets, loss and figures, on painted pictures."""

import math
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fkp import data, geometry, metrics
from fkp.config import DetectorConfig
from fkp.networks import face_net
from fkp.networks.face_net import DetectorNetwork
from fkp.training import face_task
from fkp.training.face_task import FACE, IGNORE, FaceTask, Photo
from fkp.training.yunet_teacher import YuNetTeacher
from tests import synthetic

SMALL = DetectorConfig(widths=(8, 8, 16, 16), depths=(1, 1, 1), neck_width=16, input_size=128)


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
    (folder / "merl").mkdir()
    shutil.copytree(folder / "300w/afw", folder / face_task.PROFILES)
    header, first, *rest = (folder / "300w/afw.csv").read_text().splitlines()
    hidden = ",".join(first.split(",")[:-2] + ["", ""])  # a point without a label
    (folder / f"{face_task.PROFILES}.csv").write_text("\n".join([header, hidden, *rest]) + "\n")
    for subfolder, kind in zip(face_task.BOXED, ("wider", "people"), strict=True):
        (folder / subfolder).mkdir(parents=True)
        for i in range(6):
            cv2.imwrite(str(folder / subfolder / f"crowd{i}.png"), painted((200, 140), (20, 30, 60, 90)))
            rows.append(f"{subfolder}/crowd{i}.png,20,30,60,90,{kind},")
            rows.append(f"{subfolder}/crowd{i}.png,150,30,170,50,ignore,")
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
    monkeypatch.setattr(face_task, "read_photos", lambda *_: [])
    with pytest.raises(ValueError, match="no photo to train on"):
        FaceTask(folder)
    monkeypatch.undo()
    faces = [p for p in face_task.read_photos(folder) if p.source == "300w"]
    monkeypatch.setattr(face_task, "read_photos", lambda *_: faces)
    task = FaceTask(folder, batch_size=6, config=SMALL)
    assert task.shares.tolist() == [1.0] and (task.batch(0)["kinds"] == FACE).any()


def test_photos_know_their_faces(folder: Path) -> None:
    photos = {p.path.relative_to(folder).as_posix(): p for p in face_task.read_photos(folder)}
    assert len(photos) == 5 * 12 + 2 * 6 + 3 * 6
    assert all(len(p.outlines) == 1 for p in photos.values() if p.source in ("ytf", "300w"))
    np.testing.assert_allclose(photos["scenes/photo0.png"].boxes, [[20, 30, 60, 90]])
    assert len(photos["scenes/photo0.png"].ignore) == 0
    np.testing.assert_allclose(photos["scenes/photo2.png"].ignore, [[20, 30, 60, 90]])
    assert len(photos["scenes/photo2.png"].outlines) == 0
    # People have looked at these, and seen no face.
    assert len(photos["no_faces/photo2.png"].ignore) == len(photos["no_faces/photo2.png"].outlines) == 0
    assert len(photos["scenes/photo1.png"].boxes) == 0
    for crowd in ("wider/train/crowd0.png", "masks/crowd0.png"):
        np.testing.assert_allclose(photos[crowd].boxes, [[20, 30, 60, 90]])
        np.testing.assert_allclose(photos[crowd].ignore, [[150, 30, 170, 50]])
    # A point without a label tells nothing of the box.
    assert all(np.isfinite(p.outlines).all() for p in photos.values())


def test_portraits_are_learnt_from_by_a_models_keypoints(folder: Path, tmp_path: Path) -> None:
    head = ["image", "face", "score", *(f"{axis}{i}" for i in range(68) for axis in "xy")]
    sure = ["faces/a.png", "0", "0.9", *(["3", "4"] * 67), "33", "44"]
    rows = [head, sure, ["faces/b.png", "0", "0.3", *sure[3:]]]
    (tmp_path / "portraits.csv").write_text("\n".join(map(",".join, rows)) + "\n")
    photos = face_task.read_photos(folder, tmp_path / "portraits.csv")
    (portrait,) = [p for p in photos if p.source == face_task.UNLABELLED]
    assert portrait.path == folder / "faces" / "a.png" and not portrait.held_out
    np.testing.assert_allclose(portrait.boxes, [[3, 4, 33, 44]])


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
    assert folders == labelled | {face_task.PROFILES, *face_task.BOXED, *face_task.FACELESS}
    for subfolder, key, share in (
        ("ytf/training", data.person, 7),
        ("300w/lfpw_train", data.photo, 7),
        ("300w/helen_train", data.photo, 7),
        ("300w/afw", data.photo, 3),
        ("no_faces", str, 3),
        ("scenes", str, 3),
        ("animals", str, 3),
        ("wider/train", str, 3),
        ("masks", str, 3),
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
    mirrored = other.batch(6)
    assert torch.equal(mirrored["pictures"].flip(3), first["pictures"])
    np.testing.assert_allclose(mirrored["boxes"][..., 0] + first["boxes"][..., 2], width - 1, atol=1e-3)
    for same in (batches[0], batches[2]):
        assert all(torch.equal(first[name], same[name]) for name in first)
    for changed in (batches[1], task.batch(7, rank=1)):
        assert not torch.equal(first["pictures"], changed["pictures"])


@pytest.mark.slow
def test_hard_negatives_are_shown_more_often(folder: Path) -> None:
    class Miner:
        """Sees a face in the upper left corner of every picture."""

        def __call__(self, image: np.ndarray, *, min_score: float) -> tuple[np.ndarray, np.ndarray]:
            assert min_score == face_task.HARD_NEGATIVE_SCORE
            return np.array([[0.0, 0, 20, 20]], np.float32), np.ones(1, np.float32)

    task = FaceTask(folder, config=SMALL, miner=Miner())  # type: ignore[arg-type]
    for source in face_task.FACELESS:
        mined = {photo.path.name for photo, _ in task.hard_negatives[source]}
        # Never on a face, or what may be one; never what is held out.
        corner = np.array([[0.0, 0, 20, 20]])
        known = {p.path.name: np.concatenate([p.boxes, p.ignore]) for p in task.training[source]}
        free = {name for name, box in known.items() if geometry.iou(corner, box).max(initial=0) < 0.1}
        assert mined == free
        assert all(negative.max() == pytest.approx(20) for _, negative in task.hard_negatives[source])
    assert not FaceTask(folder, config=SMALL).hard_negatives
    assert (task.batch(0)["kinds"] == FACE).any()


def test_muon_trains_what_mixes_channels_but_not_the_ends(task: FaceTask) -> None:
    hidden = {id(kernel) for kernel in task.hidden_kernels}
    names = {name for name, p in task.network.named_parameters() if id(p) in hidden}
    assert "stages.0.0.0.weight" in names and "smooth.2.0.weight" in names
    assert not names & {"stem.0.0.weight", "heads.0.weight", "heads.0.bias", "stem.0.1.weight"}


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
    monkeypatch.setattr(face_task, "random_transform", lambda *_, **__: shift)
    _, boxes, kinds = task.tile(np.random.default_rng(0), (100, 150))
    assert kinds.tolist() == [IGNORE]
    np.testing.assert_allclose(boxes[0], [0, box[1], 15, box[3]], atol=0.02)


# --- Targets -----------------------------------------------------------------------------------------------


def aim(boxes: list[list[float]], kinds: list[int], size: int = 128) -> tuple[torch.Tensor, ...]:
    """Of one picture: the box each cell learns, whether in its middle, whether it counts, the cells."""
    at = face_net.cells(size, size)
    some = torch.tensor(boxes).reshape(1, -1, 4)
    learnt = face_task.targets(some, torch.tensor([kinds]).long(), at)
    return learnt.box[0], learnt.middle[0], learnt.counts[0], at


def test_targets_without_a_box() -> None:
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
def test_targets_give_every_face_a_middle() -> None:
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


def test_targets_leave_out_what_is_to_be_ignored_unless_a_face_is_there() -> None:
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

    def forward(self, pictures: torch.Tensor) -> face_net.Grids:
        return face_net.Grids(self.logits, self.offsets)


def said(box: list[float], kind: int, right: bool) -> tuple[Saying, dict[str, torch.Tensor]]:
    """A network that says everything right, or nothing, about one box in one picture."""
    at = face_net.cells(128, 128)
    batch = {
        "pictures": torch.zeros(1, 3, 128, 128, dtype=torch.uint8),
        "boxes": torch.tensor([[box]]),
        "kinds": torch.tensor([[kind]]),
    }
    middle = face_task.targets(batch["boxes"], batch["kinds"], at).middle
    logits = torch.where(middle, 12.0, -15.0) if right else torch.zeros(1, len(at))
    offsets = face_net.encode(batch["boxes"].expand(1, len(at), 4), at[None])
    return Saying(logits, offsets if right else torch.zeros_like(offsets)), batch


def test_the_right_answer_costs_nothing(task: FaceTask) -> None:
    right, batch = said([40.0, 44, 76, 80], FACE, right=True)
    loss, parts = task.loss(right, batch)
    assert loss.item() < 1e-3 and parts["taught"] == 0
    nothing, batch = said([40.0, 44, 76, 80], FACE, right=False)
    assert task.loss(nothing, batch)[0].item() > 0.5


@pytest.mark.slow
def test_teachers_head_is_learnt_and_left_behind(folder: Path, tmp_path: Path) -> None:
    teacher = YuNetTeacher(synthetic.yunet_graph(tmp_path / "yunet.onnx"))
    task = FaceTask(folder, batch_size=4, config=SMALL, yunet=teacher, workers=2)
    batch, network = task.batch(0), task.network.train()
    optimizer = torch.optim.Adam(network.second_heads.parameters(), lr=0.3)
    told = []
    for _ in range(40):
        loss, parts = task.loss(network, batch)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        told.append(parts["taught"])
    assert told[-1] < 0.8 * told[0]
    assert not {id(p) for p in task.hidden_kernels} & {id(p) for p in network.second_heads.parameters()}
    _, finished = task.finish(network.eval())
    assert type(finished) is DetectorNetwork and not hasattr(finished, "second_heads")


def test_second_head_does_not_learn_that_a_face_is_none(folder: Path, tmp_path: Path) -> None:
    """Where YuNet misses what people have marked, the head is free; everywhere else it learns."""
    yunet = YuNetTeacher(synthetic.yunet_graph(tmp_path / "yunet.onnx"))
    blind = FaceTask(folder, batch_size=4, config=SMALL, yunet=yunet)
    blind.yunet = lambda pictures: torch.full((1, 2, told.shape[2]), -9.0)
    saying, batch = said([40.0, 44, 76, 80], FACE, right=False)
    grids = saying(batch["pictures"])
    told = torch.zeros(1, 2, grids.logits.shape[1], requires_grad=True)
    blind.loss(lambda _: (grids, told), batch)[0].backward()
    middle = face_task.targets(batch["boxes"], batch["kinds"], face_net.cells(128, 128)).middle[0]
    assert middle.any() and not told.grad[0, :, middle].any()
    assert (told.grad[0, :, ~middle] > 0).all()


def test_a_teachers_scores_are_learnt_where_labels_say_nothing_too(folder: Path) -> None:
    task = FaceTask(folder, batch_size=4, config=SMALL, teacher=DetectorNetwork(SMALL), taught=1.0)
    teacher = task.teacher
    assert not any(p.requires_grad for p in teacher.parameters()) and not teacher.training
    saying, batch = said([40.0, 44, 76, 80], IGNORE, right=False)
    with torch.no_grad():
        saying.logits.copy_(teacher(batch["pictures"]).logits)
    task.loss(saying, batch)[0].backward()
    assert saying.logits.grad.abs().max() < 1e-6, "it says what the teacher says"
    with torch.no_grad():
        saying.logits.add_(1)
    task.loss(saying, batch)[0].backward()
    assert (saying.logits.grad > 0).all()


def test_faces_are_shown_turned_any_way(folder: Path) -> None:
    rng, image = np.random.default_rng(0), np.zeros((60, 80, 3), np.uint8)
    outlines = face_task.ellipses(np.array([[20.0, 20, 50, 50]]))
    turns = []
    for _ in range(2000):
        a, b = face_task.random_transform(rng, image, outlines, (64, 64)).image_to_crop[0, :2]
        turns.append(abs(math.degrees(math.atan2(b, abs(a)))))
    shares = np.histogram(turns, [0, 30, 61, 91])[0] / 2000
    assert 0.5 * face_task.TURNED / 3 < shares[2] < 1.5 * face_task.TURNED / 3


def test_photos_from_elsewhere_are_learnt_from(folder: Path, tmp_path: Path) -> None:
    """What a detector is certain of is a face, what it is not to ignore; it sees them twice as large, and
    turned."""
    (photos := tmp_path / "photos").mkdir()
    cv2.imwrite(str(photos / "p.png"), np.zeros((120, 160, 3), np.uint8))
    told, shown = np.array([[19.5, 19.5, 99.5, 99.5], [119.5, 119.5, 199.5, 199.5]]), []

    def find(image: np.ndarray, *, min_score: float) -> tuple[np.ndarray, np.ndarray]:
        assert min_score == face_task.POSSIBLE
        shown.append(image.shape)
        if len(shown) == 1:
            return told, np.array([face_task.CERTAIN, face_task.POSSIBLE])
        if len(shown) == 2:  # one that lies in the upper right corner, and the one that was possible
            lying = np.array([[0.0, 0, 29, 19], [59.5, 75, 99.5, 115]])
            return lying, np.array([face_task.CERTAIN, face_task.CERTAIN])
        return np.empty((0, 4)), np.empty(0)

    task = FaceTask(folder, batch_size=4, config=SMALL, elsewhere=(photos, find))
    (photo,) = task.training[face_task.PHOTOS]
    assert shown == [(240, 320, 3), (160, 120, 3), (120, 160, 3), (160, 120, 3)] and not photo.held_out
    assert np.allclose(photo.boxes, [[9.5, 9.5, 49.5, 49.5], [140, 0, 159, 29]])
    assert np.allclose(photo.ignore, [[59.5, 59.5, 99.5, 99.5]])
    assert all(len(task.batch(step)["pictures"]) for step in range(4))


def test_cells_in_a_box_to_ignore_learn_nothing(task: FaceTask) -> None:
    saying, batch = said([40.0, 44, 76, 80], IGNORE, right=False)
    task.loss(saying, batch)[0].backward()
    at = face_net.cells(128, 128)
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


def test_figures_where_nothing_is_and_nothing_is_found() -> None:
    figures = face_task.measure([(photo([], [], "scenes"), *EMPTY)])
    assert figures["ap"] == figures["recall_ytf"] == figures["iou"] == figures["extra"] == 0


def test_matching_gives_each_face_one_box() -> None:
    there = photo([[0, 0, 10, 10], [50, 50, 60, 60]], [[80, 80, 90, 90]])
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [80, 80, 90, 90], [30, 30, 40, 40.0]])
    result = face_task.match(there, boxes, np.array([0.6, 0.9, 0.8, 0.7]))
    # The best scored has the face, the second on it is false, as is the one on nothing; the third is ignored.
    assert result.faces == 2
    np.testing.assert_allclose(result.scores, [0.6, 0.9, 0.7])
    np.testing.assert_allclose(result.overlaps, [0, 0.9, 0])


def test_the_operating_threshold_and_the_figures_at_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_task, "FACELESS_ALLOWED", 1.0)
    box = np.array([[0, 0, 10, 10.0]])
    found = [(photo([[0, 0, 10, 9]], []), box, np.array([score])) for score in (0.9, 0.8, 0.7, 0.1)]
    found += [(photo([], [], "no_faces"), box, np.array([score])) for score in (0.75, 0.4, 0.3, 0.2)]
    figures = face_task.measure(found)
    # F1 is 2/5, 4/6, 4/7 (the false box of 0.75), 6/8, 6/9 ... 8/12 at falling thresholds.
    assert figures["min_score"] == pytest.approx(0.7)
    assert figures["recall_300w"] == 75 and figures["iou"] == pytest.approx(90) and figures["extra"] == 0
    assert figures["no_faces"] == 25


def test_photos_without_a_face_raise_the_threshold() -> None:
    box = np.array([[0, 0, 10, 10.0]])
    found = [(photo([[0, 0, 10, 10]], []), box, np.array([score])) for score in (0.9, 0.8, 0.4, 0.35, 0.3)]
    at_least = face_task.operating_threshold(found)
    found += [(photo([], [], "animals"), box, np.array([0.33])), (photo([], [], "animals"), *EMPTY)]
    assert at_least < 0.33 < face_task.operating_threshold(found) < 0.35


def test_recall_in_crowds_by_size_at_a_tenth_of_a_false_box() -> None:
    small, large = [0.0, 0, 15, 14], [50.0, 50, 150, 150]
    found = [(photo([small, large], [], "wider"), np.array([small, large]), np.array([0.4, 0.6]))] * 10
    found.append((photo([], [], "wider"), np.array([small, large]), np.array([0.7, 0.5])))
    # Of eleven photos one false box passes, that of 0.7, but not that of 0.5.
    assert face_task.crowd_recall(found) == [0, 0, 0, 100]


def test_calibrated_scores_are_shares() -> None:
    rng = np.random.default_rng(0)
    face, nothing = [0.0, 0, 10, 10], np.array([[50, 50, 60, 60.0]])
    found = []
    for share in rng.uniform(0.05, 0.95, 3000):
        # Scores that are too sure: their logits are twice those of the share that are faces, and one more.
        score = 1 / (1 + np.exp(-(2 * np.log(share / (1 - share)) + 1)))
        box = np.array([face]) if rng.random() < share else nothing
        found.append((photo([face], []), box, np.array([score])))
    slope, intercept = face_task.calibration(found)
    assert slope == pytest.approx(0.5, abs=0.05) and intercept == pytest.approx(-0.5, abs=0.12)
    assert np.isfinite(face_task.calibration([])).all()


def test_faces_weigh_alike() -> None:
    box, picture = torch.tensor([0, 1, 1, 1, 1, 0]), torch.tensor([0, 0, 0, 0, 0, 1])
    weights = face_task.face_weights(box, picture, torch.ones(2, 2))
    torch.testing.assert_close(weights, torch.tensor([2.0, 1, 1, 1, 1, 2]))


def test_found_nothing_at_all() -> None:
    assert metrics.operating_threshold([face_task.match(photo([[0, 0, 9, 9]], []), *EMPTY)]) == 0.5


@pytest.mark.slow
def test_validation_and_preview_run(task: FaceTask) -> None:
    figures = task.validate(task.network)
    assert next(iter(figures)) == "crowd" and all(np.isfinite(v) for v in figures.values())
    picture = task.preview(task.network)
    assert picture.dtype == np.uint8 and picture.ndim == 3


def test_bias_of_boxes_is_the_median() -> None:
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
