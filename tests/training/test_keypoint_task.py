import copy
import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fkp import geometry, scheme
from fkp.config import KEYPOINTNET, KeypointConfig
from fkp.networks import keypoint_net
from fkp.training import distillation, keypoint_task
from fkp.training.augmentation import Photometry
from fkp.training.run_folder import CheckpointError
from tests import synthetic


def task_of(folder: Path, config: KeypointConfig = KEYPOINTNET, **options: Any) -> keypoint_task.KeypointTask:
    return keypoint_task.KeypointTask(keypoint_task.read_faces(folder, config), config, **options)


@pytest.fixture(scope="module")
def task(tmp_path_factory) -> keypoint_task.KeypointTask:
    folder = synthetic.data_folder(tmp_path_factory.mktemp("data"))
    return task_of(folder, batch_size=8)


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    """Whether two batches hold the same numbers; what is unknown is NaN in both."""
    pairs = [(one[name].numpy(), other[name].numpy()) for name in one]
    return all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in pairs)


def test_held_out_faces_are_never_trained_on(task):
    assert len(task.held_out) > 0
    assert not set(task.held_out) & set(task.training)
    assert len(task.held_out) + len(set(task.training)) == 5 * 24
    shown = np.bincount(task.training, minlength=len(task.styles))[np.unique(task.training)]
    styles = task.styles[np.unique(task.training)]
    for style, times in zip(scheme.LABEL_STYLES, keypoint_task.REPEATS, strict=True):
        assert (shown[styles == scheme.style_index(style)] == times).all()


def test_batch_depends_on_the_step_alone(task):
    first, other, again = task.batch(3), task.batch(4), task.batch(3)
    assert same(first, again)
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


def test_an_epoch_sees_every_face_at_most_as_often_as_its_set_repeats(task, monkeypatch):
    seen = []
    monkeypatch.setattr(
        task, "_warp", lambda chosen, transforms: seen.extend(chosen) or warp(chosen, transforms)
    )
    warp = type(task)._warp.__get__(task)
    for step in range(task.steps_per_epoch):
        task.batch(step)
    often = np.bincount(task.training, minlength=len(task.styles))
    assert (np.bincount(seen, minlength=len(often)) <= often).all() and len(seen) == task.steps_per_epoch * 8


def test_augmentation_by_factors():
    full = keypoint_task.Augmentation()
    assert full.scaled() == full
    some = full.scaled(turn=0.8, framing=0.5, photometry=0.25)
    assert some.rotation == pytest.approx(0.8 * full.rotation) and some.shift == full.shift / 2
    assert some.scale == pytest.approx((full.scale[0] ** 0.5, full.scale[1] ** 0.5))
    assert some.photometry.blur == full.photometry.blur / 4
    assert some.photometry.least_resolution == full.photometry.least_resolution
    assert (some.mirror, some.taught) == (full.mirror, full.taught)
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
    x, y = transform.keypoints_to_crop(task.faces.keypoints[index])[30].round().astype(int)
    u, v = task.faces.keypoints[index][30].round().astype(int)
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
    model = keypoint_net.build(KEYPOINTNET)
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
    assert set(parts) == {"nme", "target", "spread", "visible"}
    assert np.mean(losses[-3:]) < 0.7 * np.mean(losses[:3])
    assert task.validate(model.eval())["nme"] < before


def test_figures_of_faces_that_are_not_there(task):
    """Of MERL-RAV's held-out faces all are in half-profile; those of 300-W are taken away."""
    model, some = keypoint_net.build(KEYPOINTNET).eval(), copy.copy(task)
    some.held_out = task.held_out[task.styles[task.held_out] != scheme.style_index("300w")]
    figures = some.validate(model)
    missing = {name for name, value in figures.items() if value is None}
    assert missing == {"300w", "300w_own", "frontal", "profile"}
    assert figures["nme"] == pytest.approx((figures["ytf_own"] + figures["merl"]) / 2)
    assert some.fitted_temperature(model, task.held_out[:0], None) == 1
    some.held_out = task.held_out[task.styles[task.held_out] != scheme.style_index("merl")]
    figures = some.validate(model)
    missing = {name for name, value in figures.items() if value is None}
    assert missing == {"merl", "merl_own", "frontal", "half", "profile", "turned", "covered"}
    some.held_out = task.held_out[:0]
    assert set(some.validate(model).values()) == {None}


def test_preview_is_a_picture(task):
    sheet = task.preview(keypoint_net.build(KEYPOINTNET).eval(), count=4)
    assert sheet.shape == (224, 896, 3) and sheet.dtype == np.uint8


@pytest.mark.slow
def test_finish_fits_what_is_corrected(task):
    model = keypoint_net.build(KEYPOINTNET).eval()
    finished = task.finish(model)
    assert len(finished.config.temperatures) == 4
    assert all(0.4 <= t <= 2.5 for t in finished.config.temperatures)
    found, _ = task.predict(finished, task.held_out[task.faces.flags[task.held_out].max(axis=1) >= 0], None)
    seen = (task.faces.flags[task.held_out] == 1)[task.faces.flags[task.held_out].max(axis=1) >= 0]
    assert found.visibility.mean() == pytest.approx(seen.mean(), abs=0.01)
    assert "network.smooth.0.Relu" in {name for name, *_ in finished.config.activation_ranges}
    crops = task.batch(0)["crops"]
    with torch.inference_mode():
        torch.testing.assert_close(finished.predict(crops).keypoints, model.predict(crops).keypoints)


def test_packed_crops_leave_room_around_the_face(task):
    box = geometry.tight_boxes(task.faces.keypoints)[0]
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


def test_fitted_visibility_undoes_a_wrong_calibration():
    """Logits said to be half of what they are, and shifted."""
    generator = np.random.default_rng(0)
    logits = generator.normal(1, 2, (300, 68))
    seen = generator.uniform(size=logits.shape) < 1 / (1 + np.exp(-logits))
    wrong = 1 / (1 + np.exp(-(logits - 1) / 2))
    slope, intercept = keypoint_task.fit_visibility(wrong, seen)
    assert slope == pytest.approx(2, abs=0.1) and intercept == pytest.approx(1, abs=0.1)


def test_points_without_a_label_teach_nothing():
    """Whatever is said of them, and wherever they are put."""
    torch.manual_seed(0)
    model = keypoint_net.build(KEYPOINTNET)
    keypoints = 20 + 70 * torch.rand(2, 68, 2)
    keypoints[0, :30] = torch.nan
    visible = torch.full((2, 68), torch.nan)
    visible[1, :5] = torch.tensor([1.0, 0, 1, 0.5, 1])
    outputs = torch.randn(2, 68, 28, 28, requires_grad=True)
    raw = keypoint_net.RawOutput(outputs, *(torch.zeros(2, 68, requires_grad=True) for _ in range(2)))
    weights, both = keypoint_task.LossWeights(), torch.tensor([True, True])
    loss, parts = keypoint_task.loss_of(model.codec, raw, keypoints, visible, both, weights)
    loss.backward()
    for gradient in (outputs.grad.flatten(2).abs().sum(-1), raw.log_spreads.grad):
        assert not gradient[0, :30].any() and (gradient[0, 30:] != 0).all() and (gradient[1] != 0).all()
    assert not raw.visibility.grad[0].any() and not raw.visibility.grad[1, 5:].any()
    assert raw.visibility.grad[1, 0] < 0 < raw.visibility.grad[1, 1]
    expected = weights.points * parts["nme"] / 100 + weights.heatmaps * parts["target"]
    expected += weights.spreads * parts["spread"] + weights.visibility * parts["visible"]
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_spreads_learn_from_labels_alone():
    model = keypoint_net.build(KEYPOINTNET)
    raw = keypoint_net.RawOutput(
        torch.zeros(2, 68, 28, 28), torch.zeros(2, 68, requires_grad=True), torch.zeros(2, 68)
    )
    keypoints, unknown = torch.rand(2, 68, 2) * 100, torch.full((2, 68), torch.nan)
    labelled, weights = torch.tensor([True, False]), keypoint_task.LossWeights()
    loss, _ = keypoint_task.loss_of(model.codec, raw, keypoints, unknown, labelled, weights)
    loss.backward()
    assert raw.log_spreads.grad[0].abs().min() > 0 and not raw.log_spreads.grad[1].any()


def test_covered_points_are_not_visible(task):
    mask = np.zeros((112, 112), np.uint8)
    mask[:, 50:] = 1
    points = np.array([[10, 10], [60, 10], [70, 20], [500, 10], [np.nan, np.nan]], np.float32)
    before = np.array([1, 1, np.nan, 1, 1], np.float32)
    np.testing.assert_array_equal(keypoint_task._covered(before, points, mask), [1, 0, np.nan, 1, 1])
    flags = torch.cat([task.batch(step)["visible"] for step in range(task.steps_per_epoch)])
    told = flags.isfinite().any(dim=1)
    assert told.any() and not told.all()  # only MERL-RAV's faces have flags
    assert set(flags[told].unique().tolist()) == {0.0, 1.0}


def test_labels_of_the_default_style_come_from_people(task):
    """YouTube Faces' labels teach their own style alone, the others' the default style too."""
    shown = {(int(s), int(o)) for s, o in zip(*styles_shown(task), strict=True)}
    of_300w, of_ytf, of_merl = (scheme.style_index(style) for style in scheme.LABEL_STYLES)
    assert shown == {(0, of_300w), (of_300w, of_300w), (of_ytf, of_ytf), (0, of_merl), (of_merl, of_merl)}


def styles_shown(task) -> tuple[np.ndarray, np.ndarray]:
    """Styles that faces are learnt in, and those of their labels, over ten epochs."""
    chosen = np.tile(np.unique(task.training), 10)
    _, _, styles, labelled = task._truth(chosen, np.random.default_rng(0))
    assert labelled.all()
    return styles, task.styles[chosen]


@pytest.mark.slow
def test_a_teacher_tells_of_faces_without_labels(tmp_path):
    folder = synthetic.data_folder(tmp_path)
    with open(folder / "face_boxes.csv", "a") as boxes:
        boxes.write("wider/train/a.jpg,20,20,80,90,wider,\n" * 4)
    shutil.copy(sorted((folder / "300w/afw").iterdir())[0], folder / "wider/train/a.jpg")
    task = task_of(folder, batch_size=16)
    labelled, shown = len(task.faces.labels), len(task.training)
    torch.manual_seed(0)
    teacher = keypoint_net.build(dataclasses.replace(KEYPOINTNET, widths=(4, 8, 8, 8))).eval()
    torch.nn.init.normal_(teacher.style.weight)
    torch.nn.init.constant_(teacher.spreads.bias, -3)  # very sure
    said = task.learn_from([teacher], folder, find=nobody)
    assert len(task.crops) == labelled + 4 and len(task.training) == shown + 4 // keypoint_task.LEAVING_OUT
    assert not said.keypoints[task.held_out].any()  # the teacher is not even asked
    assert said.sure[labelled:].all()
    batches = [task.batch(step) for step in range(task.steps_per_epoch)]
    assert all(batch["keypoints"].isfinite().any(dim=(1, 2)).all() for batch in batches)
    told = torch.cat([batch["labelled"] for batch in batches]).float().mean().item()
    assert 0.6 < told < 0.95
    assert torch.cat([batch["visible"] for batch in batches]).isfinite().all()
    again = task_of(folder, batch_size=16)
    again.learn_from([teacher], folder, nobody, said)
    assert same(again.batch(4), task.batch(4))


def test_pseudo_labels_are_taken_for_their_own_faces_only(task, tmp_path):
    """One of the photos from elsewhere is gone, or another has come in its place."""
    data, photos = synthetic.data_folder(tmp_path / "data", faces=2), tmp_path / "photos"
    photos.mkdir()
    for name in ("a.png", "b.png"):
        synthetic.cv2.imwrite(str(photos / name), np.zeros((90, 60, 3), np.uint8))

    def find(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.array([[5.0, 5, 50, 50]]), np.ones(1)

    count = len(task.faces.labels) + 2
    answers = np.tile(synthetic.face().astype(np.float32), (count, 2, 1, 1))
    said = distillation.PseudoLabels(answers, np.ones((count, 68)), np.ones(count, bool))
    said.note(distillation.unlabelled_faces(data, find, photos=photos))
    copy.copy(task).learn_from([], data, find, said, photos=photos)
    for change in (lambda path: path.rename(photos / "c.png"), Path.unlink):
        change(max(photos.iterdir()))
        with pytest.raises(CheckpointError, match="png"):
            copy.copy(task).learn_from([], data, find, said, photos=photos)


@pytest.mark.slow
def test_teacher_is_asked_about_each_view(tmp_path):
    folder = synthetic.data_folder(tmp_path)
    augmentation = keypoint_task.Augmentation(taught=1.0)
    task = task_of(folder, batch_size=16, augmentation=augmentation)
    torch.manual_seed(0)
    teacher = keypoint_net.build(dataclasses.replace(KEYPOINTNET, widths=(4, 8, 8, 8))).eval()
    task.learn_from([teacher], folder, nobody, each_view=True)
    _, itself = task.loss(teacher, batch := task.batch(0))
    other = keypoint_net.build(teacher.config).eval()
    torch.nn.init.normal_(other.heatmaps.weight)
    _, differs = task.loss(other, batch)
    assert itself["target"] < 1e-4 and differs["target"] > 0.01
    assert differs["nme"] > 2 * itself["nme"]
    other = keypoint_net.build(dataclasses.replace(KEYPOINTNET, crop_size=128)).eval()
    with pytest.raises(ValueError, match="128"):
        task.learn_from([teacher, other], folder, nobody, each_view=True)


@pytest.mark.slow
def test_labels_that_a_fit_has_shrunk_are_enlarged(tmp_path, monkeypatch):
    """By pose group, about their middles; those of other data sets stay."""
    folder = synthetic.data_folder(tmp_path)
    faces = keypoint_task.read_faces(folder, KEYPOINTNET)
    monkeypatch.setattr(keypoint_task, "ENLARGED", dict.fromkeys(keypoint_task.ENLARGED, 1.0))
    shrunk = keypoint_task.read_faces(folder, KEYPOINTNET).keypoints
    size, before = (np.nanstd(points, axis=1).mean(axis=1) for points in (faces.keypoints, shrunk))
    groups = np.array(faces.groups)
    for group, larger in (("frontal", 1.0125), ("lefthalf", 1.018), ("", 1.0)):
        assert np.allclose(size[groups == group] / before[groups == group], larger, atol=1e-4)
    assert np.allclose(np.nanmean(faces.keypoints, axis=1), np.nanmean(shrunk, axis=1), atol=1e-3)


def test_without_a_face_of_merl_no_label_is_moved(task):
    other = dataclasses.replace(task.faces, styles=np.full_like(task.styles, scheme.style_index("300w")))
    unmoved = keypoint_task.aligned(other, keypoint_net.build(KEYPOINTNET))
    np.testing.assert_array_equal(unmoved.keypoints, task.faces.keypoints)


@pytest.mark.slow
def test_labels_that_a_fit_has_moved_are_moved_back(tmp_path, monkeypatch):
    """Each face of MERL-RAV's as a whole, by ALIGNED of what a network says; all others stay."""
    faces = keypoint_task.read_faces(synthetic.data_folder(tmp_path), KEYPOINTNET)
    merl = faces.styles == scheme.style_index("merl")
    true = faces.keypoints
    chosen = merl & ~faces.held_out
    rng = np.random.default_rng(0)
    shifts, sizes = rng.normal(0, 3, (len(true), 1, 2)), rng.normal(0, 0.03, (len(true), 1, 1))
    for group in ("frontal", "lefthalf"):  # what all of a pose have in common could be the network's as well
        of_pose = chosen & (np.array(faces.groups) == group)
        assert of_pose.sum() > 1
        for part in (shifts, sizes):
            part[of_pose] -= part[of_pose].mean(axis=0)
    middles = np.nanmean(true, axis=1, keepdims=True)
    moved = dataclasses.replace(faces, keypoints=middles + np.exp(sizes) * (true - middles) + shifts)

    def sees(network, crops, boxes, styles, asked, labelled):
        assert merl[asked].all() and not faces.held_out[asked].any()
        answers = np.repeat(np.nan_to_num(true)[:, None], 2, axis=1)
        return distillation.PseudoLabels(answers, np.zeros((len(true), 68)), np.ones(len(true), bool))

    monkeypatch.setattr(distillation, "pseudo_labels", sees)
    monkeypatch.setattr(keypoint_task, "ALIGNED", 1.0)
    wholly = keypoint_task.aligned(moved, keypoint_net.build(KEYPOINTNET)).keypoints
    assert chosen.any() and np.allclose(wholly[chosen], true[chosen], atol=1e-4, equal_nan=True)
    assert np.array_equal(wholly[~chosen], moved.keypoints[~chosen], equal_nan=True)
    monkeypatch.undo()
    monkeypatch.setattr(distillation, "pseudo_labels", sees)
    partly = keypoint_task.aligned(moved, keypoint_net.build(KEYPOINTNET)).keypoints
    left = np.nanmean(partly - true, axis=1) / np.nanmean(moved.keypoints - true, axis=1)
    assert np.allclose(left[chosen], 1 - keypoint_task.ALIGNED, atol=0.01)


def nobody(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A detector that finds no face."""
    return np.empty((0, 4)), np.empty(0)


@pytest.mark.slow
def test_the_network_is_shown_labels_without_their_annotation_offset(tmp_path):
    folder = synthetic.data_folder(tmp_path)
    offsets = (0.0, 0.0, 0.01, 0.03, -0.02, 0.04, 0.0, 0.0)
    plain, moved = (
        dataclasses.replace(KEYPOINTNET, annotation_offsets=each) for each in ((0.0,) * 8, offsets)
    )
    ours, theirs = (task_of(folder, config) for config in (plain, moved))
    boxes = geometry.tight_boxes(ours.faces.keypoints)
    sides = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    away = (ours.faces.keypoints - theirs.faces.keypoints) / sides[:, None, None]
    for style, offset in (("300w", (0.01, 0.03)), ("ytf", (-0.02, 0.04)), ("merl", (0, 0))):
        chosen = away[ours.styles == scheme.style_index(style)]
        known = np.isfinite(chosen)
        np.testing.assert_allclose(chosen[known], np.broadcast_to(offset, chosen.shape)[known], atol=1e-5)
    np.testing.assert_array_equal(ours.faces.labels, theirs.faces.labels)
