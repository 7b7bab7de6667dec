import dataclasses

import numpy as np
import pytest
import torch

from fkp import geometry
from fkp.networks import keypoint_net
from fkp.training import keypoint_task
from fkp.training.augmentation import Photometry
from tests import synthetic


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> keypoint_task.KeypointTask:
    folder = synthetic.data_folder(tmp_path_factory.mktemp("data"))
    return keypoint_task.KeypointTask(folder, keypoint_net.KeypointConfig(), batch_size=8)


def test_held_out_faces_are_never_trained_on(task):
    assert len(task.held_out) > 0
    assert not set(task.held_out) & set(task.training)
    assert len(task.held_out) + len(task.training) == 4 * 24


def test_batch_depends_on_the_step_alone(task):
    first, other, again = task.batch(3), task.batch(4), task.batch(3)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["crops"], other["crops"])
    assert first["crops"].shape == (8, 3, 112, 112) and first["crops"].dtype == torch.uint8
    assert first["keypoints"].shape == (8, 68, 2) and first["keypoints"].dtype == torch.float32


def test_batch_leaves_the_global_random_state_alone(task):
    before = torch.get_rng_state()
    task.batch(0)
    assert torch.equal(before, torch.get_rng_state())


def test_processes_share_a_batch_out(task):
    whole = task.batch(5)
    parts = [task.batch(5, rank, 2) for rank in range(2)]
    assert [len(part["crops"]) for part in parts] == [4, 4]
    assert not torch.equal(parts[0]["keypoints"], parts[1]["keypoints"])
    assert len(whole["crops"]) == 8


def test_an_epoch_sees_every_face_at_most_once(task, monkeypatch):
    seen = []
    monkeypatch.setattr(
        task, "_warp", lambda chosen, transforms: seen.extend(chosen) or warp(chosen, transforms)
    )
    warp = type(task)._warp.__get__(task)
    for step in range(task.steps_per_epoch):
        task.batch(step)
    assert len(seen) == len(set(seen)) == task.steps_per_epoch * 8


def test_augmentation_by_factors():
    full = keypoint_task.Augmentation()
    assert full.scaled() == full
    some = full.scaled(turn=0.8, framing=0.5, photometry=0.25)
    assert some.rotation == pytest.approx(0.8 * full.rotation) and some.shift == full.shift / 2
    assert some.scale == pytest.approx((full.scale[0] ** 0.5, full.scale[1] ** 0.5))
    assert some.photometry.blur == full.photometry.blur / 4
    assert some.photometry.least_resolution == full.photometry.least_resolution
    assert (some.mirror, some.style_dropout) == (full.mirror, full.style_dropout)
    none = full.scaled(0, 0, 0)
    image = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    assert none.photometry.change(image, np.random.default_rng(1)) is image
    assert (none.rotation, none.scale, none.shift) == (0, (1, 1), 0)


def test_batches_hold_what_the_faces_show(task):
    """A face of one colour at its right eye: after any transform the label still points at it."""
    plain = dataclasses.replace(task.augmentation, photometry=Photometry(*[0.0] * 9))
    index = int(task.training[0])
    transform = task.crop.draw(task.boxes[index], torch.Generator().manual_seed(1))
    (crop,) = task._warp([index], [transform])
    assert plain.photometry.change(crop, np.random.default_rng(0)) is crop
    x, y = transform.keypoints_to_crop(task.keypoints[index])[30].round().astype(int)
    u, v = task.keypoints[index][30].round().astype(int)
    difference = crop[y, x].astype(int) - task.crops[index][v, u].astype(int)
    assert np.abs(difference).max() < 40


def test_muon_trains_the_kernels_between_the_first_and_the_last(task):
    names = {id(p): name for name, p in task.network.named_parameters()}
    hidden = {names[id(p)].split(".")[0] for p in task.hidden_kernels}
    assert hidden == {"stages", "laterals", "smooth"}
    assert all(p.ndim == 4 for p in task.hidden_kernels)


@pytest.mark.slow
def test_loss_falls_and_validation_improves(task):
    torch.manual_seed(0)
    model = keypoint_net.build(keypoint_net.KeypointConfig())
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    before = task.validate(model.eval())["nme"]
    losses = []
    model.train()
    for step in range(12):
        loss, parts = task.loss(model, task.batch(step))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert set(parts) == {"nme", "target", "spread"}
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
    assert task.validate(model.eval())["nme"] < before


def test_preview_is_a_picture(task):
    sheet = task.preview(keypoint_net.build(keypoint_net.KeypointConfig()).eval(), count=4)
    assert sheet.shape == (224, 896, 3) and sheet.dtype == np.uint8


@pytest.mark.slow
def test_finish_fits_the_temperatures(task):
    model = keypoint_net.build(keypoint_net.KeypointConfig()).eval()
    finished = task.finish(model)
    assert len(finished.config.temperatures) == 3
    assert all(0.4 <= t <= 2.5 for t in finished.config.temperatures)
    crops = task.batch(0)["crops"]
    with torch.inference_mode():
        torch.testing.assert_close(finished.predict(crops).keypoints, model.predict(crops).keypoints)


def test_packed_crops_leave_room_around_the_face(task):
    box = geometry.tight_boxes(task.keypoints)[0]
    side = task.crops.shape[1]
    assert (box[2:] - box[:2]).max() == pytest.approx(side / (1.3 * keypoint_task.ROOM), rel=0.02)


def test_fitted_temperature_undoes_a_wrong_spread():
    """Errors drawn from the density that scores assume, with spreads said to be half as large as they are."""
    generator = np.random.default_rng(0)
    spreads = generator.uniform(1, 8, (400, 68)).astype(np.float32)
    errors = generator.gamma(2.0, spreads / 2)  # radial Laplace: mean 2b
    eyes = np.full(400, 60, np.float32)
    fitted = keypoint_task.fit_temperature(spreads / 2, eyes, errors <= 0.05 * 60)
    assert fitted == pytest.approx(2.0, rel=0.05)


@pytest.mark.slow
def test_a_teacher_gives_half_of_the_answers(tmp_path):
    folder = synthetic.data_folder(tmp_path)
    with open(folder / "face_boxes.csv", "a") as boxes:
        name = sorted((folder / "300w/afw").iterdir())[0].name
        boxes.write(f"300w/afw/{name},20,20,80,90,detected,0.9\n" * 30)
    augmentation = keypoint_task.Augmentation().scaled(0, 0, 0)
    augmentation = dataclasses.replace(augmentation, mirror=0.0)
    config = keypoint_net.KeypointConfig()
    task = keypoint_task.KeypointTask(folder, config, batch_size=16, augmentation=augmentation)
    labelled_faces, taught = len(task.keypoints), len(task.training)
    asked = set()

    def teacher(crops, style):
        asked.add(int(style[0]))
        return np.full((len(crops), 68, 2), 50.0 + style[0]), None

    said = task.learn_from(teacher, config, folder)
    extra = len(task.training) - taught
    assert asked == {0, 1, 2} and extra in (0, 30)  # by the photo's name
    assert task.lessons.shape == (labelled_faces + extra, 3, 68, 2)
    assert not said[task.held_out].any()  # the teacher is not even asked
    batches = [task.batch(step) for step in range(3 * task.steps_per_epoch)]
    labelled = torch.cat([batch["labelled"] for batch in batches]).float().mean().item()
    styles = torch.cat([batch["styles"] for batch in batches])
    assert 0.2 < labelled < 0.6 and {0, 1, 2} == set(styles.tolist())
    again = keypoint_task.KeypointTask(folder, config, batch_size=16, augmentation=augmentation)
    again.learn_from(None, config, folder, said)
    assert all(torch.equal(again.batch(4)[name], tensor) for name, tensor in task.batch(4).items())


def test_spreads_learn_from_labels_alone():
    model = keypoint_net.build(keypoint_net.KeypointConfig())
    raw = keypoint_net.RawOutput(torch.zeros(2, 68, 28, 28), torch.zeros(2, 68, requires_grad=True))
    keypoints = torch.rand(2, 68, 2) * 100
    loss, parts = keypoint_task.loss_of(model, raw, keypoints, torch.tensor([True, False]))
    loss.backward()
    assert raw.log_spreads.grad[0].abs().min() > 0 and not raw.log_spreads.grad[1].any()
    alone = keypoint_net.RawOutput(raw.outputs[:1], raw.log_spreads[:1])
    assert parts["spread"] == pytest.approx(
        keypoint_task.loss_of(model, alone, keypoints[:1])[1]["spread"]
    )


@pytest.mark.slow
def test_the_network_is_shown_labels_without_their_lean(tmp_path):
    folder = synthetic.data_folder(tmp_path)
    plain = keypoint_net.KeypointConfig()
    leaning = dataclasses.replace(plain, leans=(0.0, 0.0, 0.01, 0.03, -0.02, 0.04))
    ours, theirs = (keypoint_task.KeypointTask(folder, config) for config in (plain, leaning))
    boxes = geometry.tight_boxes(ours.keypoints)
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    away = (ours.keypoints - theirs.keypoints) / sides[:, None, None]
    for style, lean in ((1, (0.01, 0.03)), (2, (-0.02, 0.04))):
        chosen = away[ours.styles == style]
        np.testing.assert_allclose(chosen, np.broadcast_to(lean, chosen.shape), atol=1e-5)
    agreeing = ours._agreeing(np.repeat((ours.keypoints + 3)[:, None], 3, axis=1))
    np.testing.assert_allclose(agreeing[:, 1], ours.keypoints, atol=1e-4)
