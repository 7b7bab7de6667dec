"""Training the face detector: targets, loss and what becomes of teachers, on painted pictures."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from fkp.config import DetectorConfig
from fkp.networks import export, face_net
from fkp.networks.face_net import DetectorNetwork
from fkp.training import face_photos, face_task
from fkp.training.face_task import FaceTask
from fkp.training.mosaics import FACE, IGNORE, NOTHING
from fkp.training.yunet_teacher import YuNetTeacher
from tests import synthetic
from tests.training.painted_faces import SMALL


@pytest.fixture(scope="module")
def task(folder: Path) -> FaceTask:
    return FaceTask(folder, batch_size=4, config=SMALL)


@pytest.mark.slow
def test_a_source_without_photos_is_done_without(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face_photos, "read_photos", lambda *_: [])
    with pytest.raises(ValueError, match="no photo to train on"):
        FaceTask(folder)
    monkeypatch.undo()
    faces = [p for p in face_photos.read_photos(folder) if p.source == "300w"]
    monkeypatch.setattr(face_photos, "read_photos", lambda *_: faces)
    task = FaceTask(folder, batch_size=6, config=SMALL)
    assert task.mosaics.shares.tolist() == [1.0] and (task.batch(0)["kinds"] == FACE).any()


def test_muon_trains_what_mixes_channels_but_not_the_ends(task: FaceTask) -> None:
    hidden = {id(kernel) for kernel in task.hidden_kernels}
    names = {name for name, p in task.network.named_parameters() if id(p) in hidden}
    assert "stages.0.0.0.weight" in names and "smooth.2.0.weight" in names
    assert not names & {"stem.0.0.weight", "heads.0.weight", "heads.0.bias", "stem.0.1.weight"}


# --- Targets -----------------------------------------------------------------------------------------------


def aim(boxes: list[list[float]], kinds: list[int], size: int = 128) -> tuple[torch.Tensor, ...]:
    """Of one picture: the box each cell learns, whether in its middle, whether it counts, the cells."""
    at = face_net.cells(size, size)
    some = torch.tensor(boxes).reshape(1, -1, 4)
    learnt = face_task.targets(some, torch.tensor([kinds]).long(), at)
    return learnt.box[0], learnt.middle[0], learnt.counts[0], at


def test_targets_without_a_box() -> None:
    for index, middle, counts, _ in (aim([], []), aim([[0.0, 0, 0, 0]], [NOTHING])):
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


def test_photos_from_elsewhere_are_learnt_from(folder: Path, tmp_path: Path) -> None:
    """What a detector is certain of is a face, what it is not to ignore; it sees them twice as large, and
    turned."""
    (photos := tmp_path / "photos").mkdir()
    cv2.imwrite(str(photos / "p.png"), np.zeros((120, 160, 3), np.uint8))
    told, shown = np.array([[19.5, 19.5, 99.5, 99.5], [119.5, 119.5, 199.5, 199.5]]), []

    def find(image: np.ndarray, *, min_score: float) -> tuple[np.ndarray, np.ndarray]:
        assert min_score == face_photos.POSSIBLE
        shown.append(image.shape)
        if len(shown) == 1:
            return told, np.array([face_photos.CERTAIN, face_photos.POSSIBLE])
        if len(shown) == 2:  # one that lies in the upper right corner, and the one that was possible
            lying = np.array([[0.0, 0, 29, 19], [59.5, 75, 99.5, 115]])
            return lying, np.array([face_photos.CERTAIN, face_photos.CERTAIN])
        return np.empty((0, 4)), np.empty(0)

    task = FaceTask(folder, batch_size=4, config=SMALL, elsewhere=(photos, find))
    (photo,) = task.mosaics.training[face_photos.PHOTOS]
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
    saying, batch = said([0.0, 0, 0, 0], NOTHING, right=False)
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


def test_faces_weigh_alike() -> None:
    box, picture = torch.tensor([0, 1, 1, 1, 1, 0]), torch.tensor([0, 0, 0, 0, 0, 1])
    weights = face_task.face_weights(box, picture, torch.ones(2, 2))
    torch.testing.assert_close(weights, torch.tensor([2.0, 1, 1, 1, 1, 2]))


def test_figures_of_what_is_shipped_are_at_its_threshold(
    task: FaceTask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And of what it finds with its config; in training, at the threshold that would serve best."""
    configs = []

    def running(config: DetectorConfig, network: DetectorNetwork) -> Callable[..., tuple]:
        configs.append(config)
        return lambda image, min_score: (np.array([[20.0, 30, 60, 90]]), np.array([0.6]))

    monkeypatch.setattr(face_task, "running", running)
    monkeypatch.setattr(export, "is_possible", lambda: False)
    config, network = task.finish(task.network)
    shipped, training = task.validate(network, config), task.validate(network)
    assert configs == [SMALL, config, SMALL] and config.calibration != SMALL.calibration
    assert shipped["min_score"] == config.min_score > 0.6 and shipped["extra"] == 0
    assert training["min_score"] != config.min_score


@pytest.mark.slow
def test_validation_and_preview_run(task: FaceTask) -> None:
    figures = task.validate(task.network)
    assert next(iter(figures)) == "crowd" and 0 < figures["min_score"] < 1
    assert all(value is None or np.isfinite(value) for value in figures.values())
    picture = task.preview(task.network)
    assert picture.dtype == np.uint8 and picture.ndim == 3
