import numpy as np
import pytest
import torch

from fkp import geometry, keypoint_training, network
from tests import synthetic


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> keypoint_training.KeypointTask:
    folder = synthetic.data_folder(tmp_path_factory.mktemp("data"))
    return keypoint_training.KeypointTask(folder, network.KeypointConfig(), batch_size=8)


def test_held_out_faces_are_never_trained_on(task):
    assert len(task.held_out) > 0
    assert not set(task.held_out) & set(task.training)
    assert len(task.held_out) + len(task.training) == 4 * 24


def test_batch_depends_on_the_step_alone(task):
    first, other, again = task.batch(3), task.batch(4), task.batch(3)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["crops"], other["crops"])
    assert first["crops"].shape == (8, 3, 128, 128) and first["crops"].dtype == torch.uint8
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


def test_the_batched_warp_gives_what_opencv_gives(task):
    chosen = task.training[:4]
    transforms = [task.crop.draw(task.boxes[i], torch.Generator().manual_seed(int(i))) for i in chosen]
    packed = task.crops[torch.from_numpy(chosen)]
    one_by_one = np.stack(
        [t.crop(p.permute(1, 2, 0).numpy()) for t, p in zip(transforms, packed, strict=True)]
    )
    batched = keypoint_training.warp(packed, transforms).permute(0, 2, 3, 1).numpy()
    # OpenCV rounds positions to 1/32 pixel, which shows on a noisy picture.
    assert np.abs(one_by_one.astype(float) - batched).mean() < 1.5


def test_loss_falls_and_validation_improves(task):
    torch.manual_seed(0)
    model = network.build(network.KeypointConfig())
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
    sheet = task.preview(network.build(network.KeypointConfig()).eval(), count=4)
    assert sheet.shape == (256, 1024, 3) and sheet.dtype == np.uint8


def test_finish_fits_the_temperature(task):
    model = network.build(network.KeypointConfig()).eval()
    finished = task.finish(model)
    assert 0.4 <= finished.config.temperature <= 2.5
    crops = task.batch(0)["crops"]
    with torch.inference_mode():
        torch.testing.assert_close(finished.predict(crops).keypoints, model.predict(crops).keypoints)


def test_packed_crops_leave_room_around_the_face(task):
    box = geometry.tight_boxes(task.keypoints)[0]
    side = task.crops.shape[-1]
    assert (box[2:] - box[:2]).max() == pytest.approx(side / (1.4 * keypoint_training.ROOM), rel=0.02)
