import dataclasses

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from fkp import data, geometry, scheme
from fkp.training.augmentation import FaceCrop, Normalize, Photometry, ToTensors
from tests.test_data import face, write


def dotted(points: np.ndarray, point: int) -> np.ndarray:
    """A black 60×50 picture with a bright dot on one of its points."""
    image = np.zeros((50, 60, 3), np.uint8)
    x, y = points[point].round().astype(int)
    image[y - 1 : y + 2, x - 1 : x + 2] = 255
    return image


@pytest.mark.parametrize("mirror", [0.0, 1.0])
def test_face_crop_moves_picture_and_keypoints_together(mirror):
    points = face().round()
    crop = FaceCrop(64, 1.5, rotation=30, scale=(0.8, 1.2), shift=0.1, mirror=mirror)
    for point in (3, 30, 40):
        moved = crop({"image": dotted(points, point), "keypoints": points})
        weights = moved["image"][..., 0].astype(float)
        y, x = (np.average(axis, weights=weights) for axis in np.mgrid[:64, :64])
        # After mirroring, the point stands at the index of its counterpart.
        index = scheme.FLIP[point] if mirror else point
        np.testing.assert_allclose(moved["keypoints"][index], [x, y], atol=0.1)


def test_face_crop_draws_within_its_limits():
    box = np.array([10, 10, 40, 30])
    still = FaceCrop(64, 1.5).draw(box)
    np.testing.assert_allclose(still.image_to_crop[:, :2], np.eye(2) * 64 / 45)
    draws = [FaceCrop(64, 1.5, rotation=20, scale=(0.5, 2.0)).draw(box).image_to_crop for _ in range(200)]
    angles = [np.degrees(np.arctan2(m[0, 1], m[0, 0])) for m in draws]
    factors = [np.hypot(m[0, 0], m[0, 1]) / (64 / 45) for m in draws]
    assert -20 <= min(angles) < -15 and 15 < max(angles) <= 20
    assert 0.5 <= min(factors) < 0.6 and 1.7 < max(factors) <= 2.0


def test_torchvision_transforms_work_on_a_sample():
    sample = ToTensors()({"image": np.zeros((50, 60, 3), np.uint8), "keypoints": face()})
    assert isinstance(sample["keypoints"], tv_tensors.KeyPoints)
    turned = v2.RandomHorizontalFlip(p=1.0)(sample)
    torch.testing.assert_close(
        turned["keypoints"][:, 0].as_subclass(torch.Tensor), 59 - torch.tensor(face()[:, 0])
    )
    smaller = v2.Resize((25, 30))(sample)
    assert smaller["image"].shape == (3, 25, 30)
    torch.testing.assert_close(smaller["keypoints"].as_subclass(torch.Tensor), torch.tensor(face()) / 2)


def test_normalize_puts_the_middle_at_zero():
    points = np.zeros((68, 2), np.float32)
    points[:] = [29.5, 24.5]
    sample = {"image": np.full((50, 60, 3), 255, np.uint8), "keypoints": points}
    normal = Normalize()(ToTensors()(sample))
    assert normal["image"].max() == 1 and normal["image"].dtype == torch.float32
    assert normal["keypoints"].abs().max() == 0


def test_photometry_changes_pixels_and_no_point():
    torch.manual_seed(0)
    image = np.random.default_rng(0).integers(0, 255, (64, 48, 3), np.uint8)
    before = image.copy()
    changed = [Photometry()({"image": image, "keypoints": face()}) for _ in range(100)]
    assert all(c["image"].shape == (64, 48, 3) and c["image"].dtype == np.uint8 for c in changed)
    assert sum(not np.array_equal(c["image"], image) for c in changed) > 80
    assert all(np.array_equal(c["keypoints"], face()) for c in changed)
    assert np.array_equal(image, before)  # the sample itself is left alone


CHANGES = [field.name for field in dataclasses.fields(Photometry) if field.name != "least_resolution"]


def only(change: str) -> Photometry:
    """A photometry that always makes one change, and no other."""
    chances = dict.fromkeys(CHANGES, 0.0) | {change: 1.0}
    return Photometry(**chances | ({"light": 1.0} if change == "dark" else {}))


@pytest.mark.parametrize("change", CHANGES)
def test_photometry_changes_do_what_they_say(change):
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    generator = np.random.default_rng(1)
    results = [only(change).change(image, generator) for _ in range(30)]
    assert any(not np.array_equal(result, image) for result in results)
    roughness = np.mean([np.abs(np.diff(r.astype(float), axis=0)).mean() for r in results])
    before = np.abs(np.diff(image.astype(float), axis=0)).mean()
    if change in ("low_resolution", "blur"):
        assert roughness < 0.6 * before
    if change == "dark":
        assert np.mean([r.mean() for r in results]) < 0.5 * image.mean()
    if change == "colour":
        assert any(np.ptp(r.astype(int), axis=-1).max() <= 2 for r in results)  # some are grey


def test_blur_moves_no_point():
    dot = np.zeros((31, 31, 3), np.uint8)
    dot[15, 15] = 255
    generator = np.random.default_rng(2)
    for _ in range(300):
        weights = only("blur").change(dot, generator)[..., 0].astype(float)
        centre = [np.average(axis, weights=weights) for axis in np.mgrid[:31, :31]]
        np.testing.assert_allclose(centre, 15, atol=0.25)


def test_photometry_depends_on_its_generator_alone():
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    first, again, other = (Photometry().change(image, np.random.default_rng(s)) for s in (5, 5, 6))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_occlusion_covers_a_part_with_the_other_face():
    black, white = np.zeros((40, 60, 3), np.uint8), np.full((40, 60, 3), 255, np.uint8)
    generator = np.random.default_rng(0)
    shares = [only("occlusion").change(black, generator, white).mean() / 255 for _ in range(200)]
    assert 0.02 < np.mean(shares) < 0.2 and max(shares) < 0.5


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")  # on one core
def test_worker_processes_give_the_same_samples(tmp_path):
    csv = write(tmp_path, [(f"{i}.png", face(seed=i)) for i in range(5)])
    faces = data.FacialKeypointsDataset(csv, tmp_path, v2.Compose([FaceCrop(32, 1.5), ToTensors()]))
    loaded = list(DataLoader(faces, batch_size=2, num_workers=2))
    assert [len(batch["image"]) for batch in loaded] == [2, 2, 1]
    torch.testing.assert_close(loaded[2]["keypoints"][0], torch.as_tensor(faces[4]["keypoints"]))


def test_tight_boxes_of_the_dataset_fit_the_crops(tmp_path):
    faces = data.FacialKeypointsDataset(write(tmp_path, [("a.png", face())]), tmp_path, FaceCrop(64, 1.5))
    box = geometry.tight_boxes(faces[0]["keypoints"])
    assert (box[2:] - box[:2]).max() == pytest.approx(64 / 1.5, abs=0.01)
