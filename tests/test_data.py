import dataclasses

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import tv_tensors
from torchvision.transforms import v2

from fkp import data, geometry, scheme


def face(width: int = 60, height: int = 50, seed: int = 0) -> np.ndarray:
    """68 points somewhere inside a picture."""
    points = np.random.default_rng(seed).uniform(0.2, 0.8, (68, 2)) * [width, height]
    return points.astype(np.float32)


def write(folder, rows: list[tuple[str, np.ndarray]], name: str = "faces.csv"):
    """A CSV in the course project's layout, and a picture for each name in it."""
    folder.mkdir(exist_ok=True)
    for picture, _ in rows:
        pixels = np.random.default_rng(len(picture)).integers(0, 255, (50, 60, 3), np.uint8)
        Image.fromarray(pixels).save(folder / picture, format="PNG")
    numbers = np.stack([points.ravel() for _, points in rows]) if rows else np.empty((0, 136))
    table = pd.DataFrame(numbers, index=[picture for picture, _ in rows])
    table.to_csv(folder / name)
    return folder / name


# --- Reading -----------------------------------------------------------------------------------------------


def test_csv_without_rows_is_an_empty_dataset(tmp_path):
    assert len(data.FacialKeypointsDataset(write(tmp_path, []), tmp_path)) == 0


def test_sample_is_picture_and_keypoints(tmp_path):
    points = face()
    sample = data.FacialKeypointsDataset(write(tmp_path, [("a.png", points)]), tmp_path)[0]
    assert set(sample) == {"image", "keypoints"}
    assert sample["image"].shape == (50, 60, 3) and sample["image"].dtype == np.uint8
    assert sample["keypoints"].dtype == np.float32
    np.testing.assert_allclose(sample["keypoints"], points, atol=1e-4)


def test_several_csvs_and_several_faces_a_picture(tmp_path):
    first = write(tmp_path / "one", [("a.png", face(seed=1)), ("a.png", face(seed=2))])
    second = write(tmp_path / "two", [("a.png", face(seed=3))])
    faces = data.FacialKeypointsDataset([first, second], [tmp_path / "one", tmp_path / "two"])
    assert faces.names == ["a.png"] * 3
    np.testing.assert_allclose(faces[1]["keypoints"], face(seed=2), atol=1e-4)
    np.testing.assert_allclose(faces[2]["keypoints"], face(seed=3), atol=1e-4)


def test_png_with_alpha_under_a_jpg_name(tmp_path):
    csv = write(tmp_path, [("a.jpg", face())])
    Image.new("RGBA", (60, 50), (10, 20, 30, 255)).save(tmp_path / "a.jpg", format="PNG")
    image = data.FacialKeypointsDataset(csv, tmp_path)[0]["image"]
    np.testing.assert_array_equal(image[5, 5], [10, 20, 30])


def test_every_fault_is_named_at_once(tmp_path):
    good, far, hole = face(), face(), face()
    far[7] = [500, 10]
    hole[3, 1] = np.nan
    rows = [("good.png", good), ("far.png", far), ("hole.png", hole), ("gone.png", good), ("text.png", good)]
    csv = write(tmp_path, rows)
    (tmp_path / "gone.png").unlink()
    (tmp_path / "text.png").write_text("no picture")
    with open(csv, "a") as file:
        file.write("good.png,1,2,3\n")
        file.write("good.png," + ",".join(["1"] * 140) + "\n")
    with pytest.raises(data.DataError) as caught:
        data.FacialKeypointsDataset(csv, tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 6 and all(str(csv) in line for line in lines)
    text = str(caught.value)
    assert "row 3 (far.png): point 7 at (500, 10) is far outside the 60×50 picture" in text
    assert "row 4 (hole.png): no number in column 7" in text
    assert "row 5 (gone.png): there is no picture" in text
    assert "row 6 (text.png)" in text and "text.png: is no picture" in text
    assert "row 7 (good.png): 3 of 136 numbers" in text
    assert "picture good.png: more than 136 numbers" in text


@pytest.mark.parametrize(
    "content, reason",
    [
        (None, "there is no such file"),
        ("", "not a CSV"),
        ("image,x1,y1\na,1,2\n", "its first row has 3 columns"),
    ],
)
def test_what_is_no_keypoint_csv_is_refused(tmp_path, content, reason):
    csv = tmp_path / "x.csv"
    if content is not None:
        csv.write_text(content)
    with pytest.raises(data.DataError, match=reason):
        data.FacialKeypointsDataset(csv, tmp_path)


def test_two_csvs_need_two_folders(tmp_path):
    with pytest.raises(data.DataError, match="2 CSVs but 1 folders"):
        data.FacialKeypointsDataset(["a.csv", "b.csv"], [tmp_path])


@pytest.mark.filterwarnings("ignore:This DataLoader will create 2 worker processes")  # on one core
def test_worker_processes_give_the_same_samples(tmp_path):
    csv = write(tmp_path, [(f"{i}.png", face(seed=i)) for i in range(5)])
    faces = data.FacialKeypointsDataset(csv, tmp_path, v2.Compose([data.FaceCrop(32, 1.5), data.ToTensors()]))
    loaded = list(DataLoader(faces, batch_size=2, num_workers=2))
    assert [len(batch["image"]) for batch in loaded] == [2, 2, 1]
    torch.testing.assert_close(loaded[2]["keypoints"][0], torch.as_tensor(faces[4]["keypoints"]))


# --- Splitting ---------------------------------------------------------------------------------------------


def test_person_and_photo_of_a_file_name():
    assert data.person("Abdel_Aziz_Al-Hakim_00.jpg") == "Abdel_Aziz_Al-Hakim"
    assert data.photo("100032540_2.jpg") == "100032540"
    assert data.photo("image_0001.jpg") == "image_0001"


def test_no_person_is_on_both_sides():
    names = [f"Person_{i}_{j:02d}.jpg" for i in range(200) for j in range(3)]
    training, held_out = data.split(names, data.person)
    assert sorted(training + held_out) == list(range(600))
    assert 10 < len(held_out) // 3 < 60
    assert not {data.person(names[i]) for i in training} & {data.person(names[i]) for i in held_out}


def test_no_person_or_photo_of_the_research_data_is_on_both_sides(shared_data):
    for csv, key, groups in (
        ("ytf/training_frames_keypoints.csv", data.person, 347),
        ("300w/helen_train.csv", data.photo, None),
        ("300w/afw.csv", data.photo, 185),
    ):
        names = pd.read_csv(shared_data / csv, index_col=0).index.tolist()
        assert groups is None or len({key(name) for name in names}) == groups
        training, held_out = data.split(names, key)
        assert not {key(names[i]) for i in training} & {key(names[i]) for i in held_out}
        assert 0.05 < len(held_out) / len(names) < 0.25


# --- Transforms --------------------------------------------------------------------------------------------


def dotted(points: np.ndarray, point: int) -> np.ndarray:
    """A black 60×50 picture with a bright dot on one of its points."""
    image = np.zeros((50, 60, 3), np.uint8)
    x, y = points[point].round().astype(int)
    image[y - 1 : y + 2, x - 1 : x + 2] = 255
    return image


@pytest.mark.parametrize("mirror", [0.0, 1.0])
def test_face_crop_moves_picture_and_keypoints_together(mirror):
    points = face().round()
    crop = data.FaceCrop(64, 1.5, rotation=30, scale=(0.8, 1.2), shift=0.1, mirror=mirror)
    for point in (3, 30, 40):
        moved = crop({"image": dotted(points, point), "keypoints": points})
        weights = moved["image"][..., 0].astype(float)
        y, x = (np.average(axis, weights=weights) for axis in np.mgrid[:64, :64])
        # After mirroring, the point stands at the index of its counterpart.
        index = scheme.FLIP[point] if mirror else point
        np.testing.assert_allclose(moved["keypoints"][index], [x, y], atol=0.1)


def test_face_crop_draws_within_its_limits():
    box = np.array([10, 10, 40, 30])
    still = data.FaceCrop(64, 1.5).draw(box)
    np.testing.assert_allclose(still.image_to_crop[:, :2], np.eye(2) * 64 / 45)
    draws = [
        data.FaceCrop(64, 1.5, rotation=20, scale=(0.5, 2.0)).draw(box).image_to_crop for _ in range(200)
    ]
    angles = [np.degrees(np.arctan2(m[0, 1], m[0, 0])) for m in draws]
    factors = [np.hypot(m[0, 0], m[0, 1]) / (64 / 45) for m in draws]
    assert -20 <= min(angles) < -15 and 15 < max(angles) <= 20
    assert 0.5 <= min(factors) < 0.6 and 1.7 < max(factors) <= 2.0


def test_any_v2_transform_works_on_a_sample():
    sample = data.ToTensors()({"image": np.zeros((50, 60, 3), np.uint8), "keypoints": face()})
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
    normal = data.Normalize()(data.ToTensors()(sample))
    assert normal["image"].max() == 1 and normal["image"].dtype == torch.float32
    assert normal["keypoints"].abs().max() == 0


def test_photometry_changes_pixels_and_no_point():
    torch.manual_seed(0)
    image = np.random.default_rng(0).integers(0, 255, (64, 48, 3), np.uint8)
    before = image.copy()
    changed = [data.Photometry()({"image": image, "keypoints": face()}) for _ in range(100)]
    assert all(c["image"].shape == (64, 48, 3) and c["image"].dtype == np.uint8 for c in changed)
    assert sum(not np.array_equal(c["image"], image) for c in changed) > 80
    assert all(np.array_equal(c["keypoints"], face()) for c in changed)
    assert np.array_equal(image, before)  # the sample itself is left alone


CHANGES = [field.name for field in dataclasses.fields(data.Photometry) if field.name != "least_resolution"]


def only(change: str) -> data.Photometry:
    """A photometry that always makes one change, and no other."""
    chances = dict.fromkeys(CHANGES, 0.0) | {change: 1.0}
    return data.Photometry(**chances | ({"light": 1.0} if change == "dark" else {}))


@pytest.mark.parametrize("change", CHANGES)
def test_each_change_of_light_and_sharpness_does_what_it_says(change):
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


def test_photometry_depends_on_its_generator_alone():
    image = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    first, again, other = (data.Photometry().change(image, np.random.default_rng(s)) for s in (5, 5, 6))
    assert np.array_equal(first, again) and not np.array_equal(first, other)


def test_occlusion_covers_a_part_with_the_other_face():
    black, white = np.zeros((40, 60, 3), np.uint8), np.full((40, 60, 3), 255, np.uint8)
    generator = np.random.default_rng(0)
    shares = [only("occlusion").change(black, generator, white).mean() / 255 for _ in range(200)]
    assert 0.02 < np.mean(shares) < 0.2 and max(shares) < 0.5


def test_tight_boxes_of_the_dataset_fit_the_crops(tmp_path):
    faces = data.FacialKeypointsDataset(
        write(tmp_path, [("a.png", face())]), tmp_path, data.FaceCrop(64, 1.5)
    )
    box = geometry.tight_boxes(faces[0]["keypoints"])
    assert (box[2:] - box[:2]).max() == pytest.approx(64 / 1.5, abs=0.01)
