import re

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fkp import data, geometry, images
from tests import synthetic


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


def test_dataset_of_several_csvs_and_several_faces_a_picture(tmp_path):
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


def test_faults_of_a_csv_are_all_named_at_once(tmp_path):
    good, far, half = face(), face(), face()
    far[7] = [500, 10]
    half[3, 1] = np.nan
    rows = [("good.png", good), ("far.png", far), ("half.png", half), ("gone.png", good), ("text.png", good)]
    csv = write(tmp_path, rows)
    (tmp_path / "gone.png").unlink()
    (tmp_path / "text.png").write_text("no picture")
    with open(csv, "a") as file:
        file.write("good.png,1,2,3\n")
        file.write("good.png," + ",".join(["1"] * 140) + "\n")
        file.write("good.png," + ",".join(["1"] * 5 + ["x"] + ["1"] * 130) + "\n")
        file.write("good.png," + "," * 135 + "\n")
    with pytest.raises(data.DataError) as caught:
        data.FacialKeypointsDataset(csv, tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 8 and all(str(csv) in line for line in lines)
    text = str(caught.value)
    assert "row 3 (far.png): point 7 at (500, 10) is far outside the 60×50 picture" in text
    assert "row 4 (half.png): point 3 has one coordinate only" in text
    assert "row 5 (gone.png): there is no picture" in text
    assert "row 6 (text.png)" in text and "text.png: is no picture" in text
    assert "row 7 (good.png): 3 of 136 numbers" in text
    assert "row 8 (good.png): more than 136 numbers" in text
    assert "row 9 (good.png): no number in column 5: 'x'" in text
    assert "row 10 (good.png): fewer than two points have a label" in text


def test_empty_cells_are_points_without_a_label(tmp_path):
    points = face()
    points[[0, 1, 67]] = np.nan
    faces = data.FacialKeypointsDataset(write(tmp_path, [("a.png", points)]), tmp_path)
    np.testing.assert_allclose(faces[0]["keypoints"], points, atol=1e-4)
    box = geometry.tight_boxes(faces.keypoints)[0]
    np.testing.assert_allclose(box, [*np.nanmin(points, axis=0), *np.nanmax(points, axis=0)], atol=1e-4)


def test_visibility_of_made_up_faces(tmp_path):
    folder = synthetic.data_folder(tmp_path, faces=2)
    names, groups, flags = data.read_visibility(folder / data.MERL.visibility)
    assert names == ["image00000.jpg", "image00001.jpg"] and groups == ["frontal", "lefthalf"]
    assert flags.shape == (2, 68) and flags[1, :7].tolist() == [0] * 6 + [1] and flags[0, 20] == 2


@pytest.mark.parametrize(
    "content, reason",
    [
        (None, "there is no such file"),
        ("", "it is empty"),
        ("image,x1,y1\na,1,2\n", "its first row has 3 columns"),
    ],
)
def test_csv_without_keypoints_is_refused(tmp_path, content, reason):
    csv = tmp_path / "x.csv"
    if content is not None:
        csv.write_text(content)
    with pytest.raises(data.DataError, match=reason):
        data.FacialKeypointsDataset(csv, tmp_path)


def test_two_csvs_need_two_folders(tmp_path):
    with pytest.raises(data.DataError, match="2 CSVs but 1 folders"):
        data.FacialKeypointsDataset(["a.csv", "b.csv"], [tmp_path])


# --- Splitting ---------------------------------------------------------------------------------------------


def test_person_and_photo_of_a_file_name():
    assert data.person("Abdel_Aziz_Al-Hakim_00.jpg") == "Abdel_Aziz_Al-Hakim"
    assert data.photo("100032540_2.jpg") == "100032540"
    assert data.photo("image_0001.jpg") == "image_0001"


def test_split_has_no_person_on_both_sides():
    names = [f"Person_{i}_{j:02d}.jpg" for i in range(200) for j in range(3)]
    training, held_out = data.split(names, data.person)
    assert sorted(training + held_out) == list(range(600))
    assert 10 < len(held_out) // 3 < 60
    assert not {data.person(names[i]) for i in training} & {data.person(names[i]) for i in held_out}


def test_split_of_the_research_data_has_no_person_or_photo_on_both_sides(shared_data):
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


@pytest.mark.slow
def test_no_face_that_is_trained_on_is_one_of_those_measured_on(shared_data):
    """Under another name: small grey crops of two photos hardly correlate by 0.967."""

    def small(image, points):
        box = [*np.nanmin(points, axis=0), *np.nanmax(points, axis=0)]
        crop = geometry.CropTransform.around_box(box, 96, 1.1).crop(images.read(image))
        crop = cv2.resize(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), (24, 24), interpolation=cv2.INTER_AREA)
        crop = cv2.GaussianBlur(crop.astype(np.float32), (0, 0), 0.8).ravel()
        return (crop - crop.mean()) / (np.linalg.norm(crop - crop.mean()) + 1e-3)

    named, crops, measured = [], [], []
    tests = [data.Source(f"{n}.csv", n, None, data.photo) for n in ("300w/lfpw_test", "merl/aflw_test")]
    for source in (*tests, *data.TRAINING_SOURCES[1:], data.MERL):
        faces = data.FacialKeypointsDataset(shared_data / source.csv, shared_data / source.folder)
        for name, points in zip(faces.names, faces.keypoints, strict=True):
            if f"{source.folder}/{name}" not in data.TWINS:
                named.append(f"{source.folder}/{name}")
                crops.append(small(shared_data / named[-1], points))
                measured.append(source in tests or data.is_held_out(source.key(name)))
    crops, named, measured = np.array(crops, np.float32), np.array(named), np.array(measured)
    alike = np.argwhere(crops[measured] @ crops[~measured].T > 0.967)
    assert [(named[measured][i], named[~measured][j]) for i, j in alike] == []
    assert measured.sum() > 2000


# --- Other people's conventions -----------------------------------------------------------------------------


def rewritten(csv, change):
    csv.write_bytes(change(csv.read_text()))
    return csv


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.partition("\n")[2].encode(),  # no header: its first face is a face
        lambda text: text.replace(",", ";").encode(),
        lambda text: re.sub(r"(\d)\.(\d)", r"\1,\2", text.replace(",", ";")).encode(),
        lambda text: text.replace(",", "\t").encode(),
        lambda text: text.encode("utf-16"),
        lambda text: text.encode("utf-8-sig"),
    ],
)
def test_csv_written_in_other_ways_is_read(tmp_path, change):
    """As in pytorch/tutorials issue 1708, where the first face was lost."""
    rows = [("a.png", face(seed=1).round(2)), ("b.png", face(seed=2).round(2))]
    faces = data.FacialKeypointsDataset(rewritten(write(tmp_path, rows), change), tmp_path)
    assert faces.names == ["a.png", "b.png"]
    np.testing.assert_allclose(faces.keypoints, [points for _, points in rows], atol=1e-2)


@pytest.mark.parametrize(
    "wrong, told",
    [
        (lambda points: points.__setitem__(5, (-1, -1)), "point 5"),
        (lambda points: points.__setitem__(5, (0, 0)), "point 5"),
        (lambda points: points.__setitem__(slice(None), (7, 9)), "all its points"),
        (lambda points: points.__itruediv__([60, 50]), "0 to 1"),
        (lambda points: points.__setitem__((slice(None), 0), 9), "on one line"),
        (lambda points: points.__setitem__((slice(None), 1), 9), "on one line"),
    ],
)
def test_labels_of_other_conventions_are_told_by_file_and_row(tmp_path, wrong, told):
    points = face(seed=2)
    wrong(points)
    csv = write(tmp_path, [("a.png", face(seed=1)), ("b.png", points)])
    with pytest.raises(data.DataError) as caught:
        data.FacialKeypointsDataset(csv, tmp_path)
    (line,) = str(caught.value).splitlines()
    assert str(csv) in line and "row 3" in line and "b.png" in line and told in line


def test_faces_of_two_points_need_an_extent(tmp_path):
    upright, aslant = np.full((2, 68, 2), np.nan, np.float32)
    upright[[27, 28]], aslant[[27, 28]] = [(20, 10), (20, 18)], [(20, 10), (21, 18)]
    csv = write(tmp_path, [("a.png", aslant), ("b.png", upright)])
    with pytest.raises(data.DataError) as caught:
        data.FacialKeypointsDataset(csv, tmp_path)
    (line,) = str(caught.value).splitlines()
    assert "row 3 (b.png)" in line


XY = [(axis, point) for point in range(68) for axis in "xy"]


@pytest.mark.parametrize("form", ["{0}{1}", "{0}_{1}", "{1}_{0}", "{0} {1}"])
def test_columns_by_name_are_taken_in_one_order(tmp_path, form):
    """All x, then all y, would be read as points that nobody has marked."""
    points = face(seed=3)
    csv = write(tmp_path, [("a.png", points)])
    _, row = csv.read_text().splitlines()

    def named(order: list[tuple[str, int]], first: int = 0) -> None:
        names = [form.format(axis.upper() if first else axis, first + point) for axis, point in order]
        csv.write_text(",".join(["image", *names]) + f"\n{row}\n")

    for first in (0, 1):
        named(XY, first)
        np.testing.assert_allclose(
            data.FacialKeypointsDataset(csv, tmp_path).keypoints, points[None], atol=1e-4
        )
    for order, column in ((sorted(XY), 1), (XY[::-1], 0), ([(y, p) for _, p in XY for y in "y"], 0),
                          ([*XY[:-2], XY[-1], XY[-2]], 134)):  # fmt: skip
        named(order)
        with pytest.raises(data.DataError, match=f"column {column} is .*: the order is x0, y0, x1"):
            data.FacialKeypointsDataset(csv, tmp_path)
