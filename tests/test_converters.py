"""Labels of other tools: every point where its tool's own convention puts it."""

import json
import shlex
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fkp import converters, data
from tests.full_disk import full_disk

TRUTH = np.random.default_rng(0).uniform(5, 45, (68, 2)).round(2)
"""Points in pixels, the middle of the first pixel being 0."""


def picture(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (60, 50), "grey").save(path)


def pts(points) -> str:
    lines = "\n".join(f"{x:.4f} {y:.4f}" for x, y in points)
    return f"version: 1\nn_points: {len(points)}\n{{\n{lines}\n}}\n"


def the_only_row(rows, name):
    assert [row[0] for row in rows] == [name]
    return rows[0][1]


def test_pts_counts_from_one(tmp_path):
    picture(tmp_path / "sub" / "a.jpg")
    (tmp_path / "sub" / "a.pts").write_text(pts(TRUTH + 1))
    np.testing.assert_allclose(the_only_row(converters.from_pts(tmp_path), "sub/a.jpg"), TRUTH)


def test_pts_of_all_that_is_wrong_each_file_is_named(tmp_path):
    (tmp_path / "alone.pts").write_text(pts(TRUTH))
    for name, text in {"few.pts": pts(TRUTH[:5]), "none.pts": "68 points", "words.pts": "{\na b\n}"}.items():
        picture(tmp_path / name.replace(".pts", ".png"))
        (tmp_path / name).write_text(text)
    with pytest.raises(converters.ConversionError) as caught:
        converters.from_pts(tmp_path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    for name, line in zip(("alone", "few", "none", "words"), lines, strict=True):
        assert f"{name}.pts" in line
    with pytest.raises(converters.ConversionError, match="no .pts"):
        converters.from_pts(_empty(tmp_path))


def _empty(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


def coco(tmp_path, keypoints):
    labels = {
        "images": [{"id": 7, "file_name": "a.jpg", "width": 60, "height": 50}],
        "annotations": [
            {"id": 1, "image_id": 7, "keypoints": keypoints},
            {"id": 2, "image_id": 7, "bbox": [1, 2, 3, 4]},
        ],
    }
    (tmp_path / "coco.json").write_text(json.dumps(labels))
    return tmp_path / "coco.json"


def test_coco_pixels_are_ours_and_v_0_is_no_label(tmp_path):
    seen = np.full((68, 1), 2)
    seen[3], seen[5] = 0, 1
    found = the_only_row(
        converters.from_coco(coco(tmp_path, np.hstack([TRUTH, seen]).ravel().tolist())), "a.jpg"
    )
    assert np.isnan(found[3]).all() and not np.isnan(np.delete(found, 3, 0)).any()
    np.testing.assert_allclose(np.delete(found, 3, 0), np.delete(TRUTH, 3, 0))
    with pytest.raises(converters.ConversionError, match="annotation 1 .a.jpg."):
        converters.from_coco(coco(tmp_path, [1, 2, 2] * 17))


def label_studio(tmp_path, points, parents=None, first=0, image="/data/upload/3/0a1b2c3d-a.jpg"):
    results = [
        {
            "id": f"p{i}", "type": "keypointlabels", "original_width": 60, "original_height": 50,
            "value": {
                "x": (x + 0.5) / 60 * 100, "y": (y + 0.5) / 50 * 100, "width": 1,
                "keypointlabels": [str(i % 68 + first)],
            },
        } | ({"parentID": parents[i // 68]} if parents else {})
        for i, (x, y) in enumerate(points)
    ]  # fmt: skip
    results.append({"id": "box", "type": "rectanglelabels", "value": {"x": 0, "y": 0}})
    task = {"id": 4, "data": {"image": image}, "annotations": [{"id": 1, "result": results}]}
    (tmp_path / "tasks.json").write_text(json.dumps([task]))
    return tmp_path / "tasks.json"


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize(
    "image", ["/data/upload/3/0a1b2c3d-a.jpg", "/data/local-files/?d=photos/a.jpg", "s3://bucket/b/a.jpg"]
)
def test_label_studio_per_cent_begin_at_the_edge(tmp_path, first, image):
    rows = converters.from_label_studio(label_studio(tmp_path, TRUTH, first=first, image=image))
    np.testing.assert_allclose(the_only_row(rows, "a.jpg"), TRUTH, atol=1e-9)


def test_label_studio_faces_are_told_apart_by_their_boxes(tmp_path):
    both = np.concatenate([TRUTH, TRUTH + 1])
    rows = converters.from_label_studio(label_studio(tmp_path, both, parents=("one", "two")))
    np.testing.assert_allclose(np.concatenate([points for _, points in rows]), both, atol=1e-9)
    with pytest.raises(converters.ConversionError, match=r"task 4 .*a\.jpg.* point 0 twice"):
        converters.from_label_studio(label_studio(tmp_path, both))


def test_pts_point_called_68_says_that_all_count_from_one(tmp_path):
    """Also those of a face whose 68th has no label."""
    path = label_studio(tmp_path, np.concatenate([TRUTH, TRUTH]), parents=("one", "two"), first=1)
    tasks = json.loads(path.read_text())
    del tasks[0]["annotations"][0]["result"][67]
    path.write_text(json.dumps(tasks))
    (_, short), (_, whole) = converters.from_label_studio(path)
    np.testing.assert_allclose(whole, TRUTH, atol=1e-9)
    np.testing.assert_allclose(short[:67], TRUTH[:67], atol=1e-9)


def cvat(tmp_path, shapes):
    (tmp_path / "cvat.xml").write_text(
        f'<annotations><image id="0" name="sub/a.jpg" width="60" height="50">{shapes}</image></annotations>'
    )
    return tmp_path / "cvat.xml"


def test_cvat_pixels_begin_at_the_edge(tmp_path):
    shape = ";".join(f"{x + 0.5:.2f},{y + 0.5:.2f}" for x, y in TRUTH)
    rows = converters.from_cvat(cvat(tmp_path, f'<points label="face" points="{shape}"/>'))
    np.testing.assert_allclose(the_only_row(rows, "sub/a.jpg"), TRUTH, atol=1e-9)
    skeleton = "".join(
        f'<points label="{i}" outside="{int(i == 9)}" points="{x + 0.5},{y + 0.5}"/>'
        for i, (x, y) in enumerate(TRUTH)
    )
    found = the_only_row(
        converters.from_cvat(cvat(tmp_path, f"<skeleton>{skeleton}</skeleton>")), "sub/a.jpg"
    )
    assert np.isnan(found[9]).all()
    np.testing.assert_allclose(np.delete(found, 9, 0), np.delete(TRUTH, 9, 0), atol=1e-9)
    with pytest.raises(converters.ConversionError, match="cvat.xml, image 0 .sub/a.jpg."):
        converters.from_cvat(cvat(tmp_path, '<points label="face" points="1,2;3,4"/>'))


@pytest.mark.parametrize("read", [converters.from_coco, converters.from_label_studio, converters.from_cvat])
def test_files_of_another_form_are_named(tmp_path, read):
    wrong = tmp_path / "wrong.file"
    for content in (b"", b"milk, bread", b"\xff\xfe\x00", b"[" * 100_000, b"5", b'"text"'):
        wrong.write_bytes(content)
        with pytest.raises(converters.ConversionError, match=r"wrong\.file"):
            read(wrong)
    with pytest.raises(converters.ConversionError, match="gone"):
        read(tmp_path / "gone")


def of_label_studio(**change):
    """A point at per cent 1, 1; what is changed goes into the result."""
    value = {"x": 1, "y": 1, "keypointlabels": ["0"]}
    result = {"type": "keypointlabels", "original_width": 9, "original_height": 9, "value": value} | change
    return json.dumps([{"id": 1, "data": {"image": "a.jpg"}, "annotations": [{"result": [result]}]}])


def test_files_of_strangers_give_a_sentence_or_are_left_out(tmp_path):
    """Names that are lists, numbers without end, half an address."""
    image, whole = {"id": 7, "file_name": "a.jpg"}, [5] * 204
    odd, cases = tmp_path / "odd", [
        (converters.from_coco, json.dumps({"images": [image | {"id": [7]}], "annotations": []}), 0),
        (converters.from_coco, json.dumps(
            {"images": [image], "annotations": [{"image_id": [7], "keypoints": whole}]}), "odd"),
        (converters.from_coco, json.dumps(
            {"images": [image | {"file_name": "a\ud800"}],
             "annotations": [{"image_id": 7, "keypoints": whole}]}), "name"),
        (converters.from_label_studio, of_label_studio(parentID=["a"]), 1),
        (converters.from_label_studio, of_label_studio().replace("a.jpg", "http://["), 1),
        (converters.from_label_studio, of_label_studio(original_width=10**400), "odd"),
        (converters.from_label_studio, of_label_studio().replace('"x": 1', '"x": 1e999'), "odd"),
        (converters.from_label_studio, of_label_studio().replace('"x": 1', '"x": NaN'), "odd"),
    ]  # fmt: skip
    for read, content, expected in cases:
        odd.write_text(content)
        if isinstance(expected, int):
            assert len(read(odd)) == expected
        else:
            with pytest.raises(converters.ConversionError, match=expected):
                read(odd)
    picture(tmp_path / "a.png")
    (tmp_path / "a.pts").write_text(pts(np.full((68, 2), np.inf)))
    with pytest.raises(converters.ConversionError, match=r"a\.pts"):
        converters.from_pts(tmp_path / "a.pts")


def test_convert_writes_what_the_dataset_reads(tmp_path, capsys):
    picture(tmp_path / "a.jpg")
    (tmp_path / "a.pts").write_text(pts(TRUTH + 1))
    out = tmp_path / "out.csv"
    command = ["convert", "pts", str(tmp_path), str(out)]
    assert converters.main(command) == 0
    faces = data.FacialKeypointsDataset(out, tmp_path)
    np.testing.assert_allclose(faces.keypoints[0], TRUTH, atol=1e-3)
    assert list(pd.read_csv(out).columns) == list(converters.COLUMNS)
    before = out.read_text()
    assert converters.main(command) == 1
    told = capsys.readouterr().err
    assert str(out) in told and "labels" in told and "not of fkp" not in told
    assert out.read_text() == before, "labels made by hand look the same"
    assert converters.main([*command, "--force"]) == 0


def test_convert_where_nothing_can_be_written(tmp_path, capsys, monkeypatch):
    """A sentence with the file's name, and nothing half-written."""
    monkeypatch.chdir(tmp_path)
    picture(tmp_path / "in" / "a.jpg")
    (tmp_path / "in" / "a.pts").write_text(pts(TRUTH + 1))
    (tmp_path / "-").write_text("mine")
    for out in ("-", "out.csv", "/dev/full"):
        with full_disk(100):
            assert converters.main(["convert", "pts", "in", out]) == 1
        printed, told = capsys.readouterr()
        assert printed == "" and told.count("\n") == 1 and out in told and ".part" not in told
    assert {path.name for path in tmp_path.iterdir()} == {"in", "-"}
    assert (tmp_path / "-").read_text() == "mine"


def test_convert_ended_by_a_person(tmp_path, capsys, monkeypatch):
    def interrupted(_):
        yield "a.jpg", TRUTH
        raise KeyboardInterrupt

    class Rows(list):
        __iter__ = interrupted

    monkeypatch.setitem(converters.FORMATS, "pts", lambda _: Rows([1]))
    assert converters.main(["convert", "pts", "in", str(tmp_path / "out.csv")]) == 130
    assert capsys.readouterr() == ("", "") and not list(tmp_path.iterdir())


def test_convert_as_a_program_of_its_own(tmp_path, root):
    def convert(*arguments):
        command = [sys.executable, "-m", "fkp.data", "convert", *map(str, arguments)]
        return subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)

    done = convert("label-studio", label_studio(tmp_path, TRUTH), tmp_path / "out.csv")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "fkp: 1 faces of 1 pictures\n")
    assert list(pd.read_csv(tmp_path / "out.csv")["image"]) == ["a.jpg"]
    assert convert("nonsense").returncode == 2


@pytest.mark.skipif(sys.platform == "win32", reason="needs a POSIX shell")
def test_convert_where_stderr_is_closed(root):
    closed = shlex.join([sys.executable, "-m", "fkp.data", "convert", "coco", "no.json", "out.csv"]) + " 2>&-"
    done = subprocess.run(closed, shell=True, cwd=root, stdout=subprocess.PIPE, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        ("coco", '{"images": [{"id": 7, "file_name": "a.jpg"}], "annotations": []}'),
        ("label-studio", '[{"id": 1, "data": {"image": "a.jpg"}, "predictions": [{"result": []}]}]'),
        ("cvat", '<annotations><image id="0" name="a.jpg"/></annotations>'),
        ("pts", pts(np.full((68, 2), np.nan))),
    ],
)
def test_convert_what_nobody_has_annotated(tmp_path, capsys, kind, content):
    source, out = tmp_path / "a.pts", tmp_path / "out.csv"
    picture(tmp_path / "a.jpg")
    source.write_text(content)
    assert converters.main(["convert", kind, str(source), str(out)]) == 1
    error = capsys.readouterr().err
    assert str(source) in error and "no face" in error and error.count("\n") == 1
    assert not out.exists()


def test_points_without_a_label_are_empty_cells(tmp_path):
    holes = TRUTH.copy()
    holes[3] = np.nan
    converters.write_csv(tmp_path / "out.csv", [("a.jpg", holes)])
    row = pd.read_csv(tmp_path / "out.csv").iloc[0, 1:].to_numpy(float).reshape(-1, 2)
    np.testing.assert_allclose(row, holes, atol=1e-3)
