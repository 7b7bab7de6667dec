"""The scripts of examples/ run as their docstrings say, on small inputs, and give what they promise."""

from __future__ import annotations

import ast
import csv
import importlib.util
import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from fkp import FaceKeypoints, geometry, measures, scheme
from tests import filmed, synthetic

EXAMPLES = Path(__file__).parents[1] / "examples"
COMMANDS = {
    "cvat_function": r"    --function-file",  # the second line of one
    "label_hub_dataset": "uv run",
}
"""What runs a script, where that is not `python`."""
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem != "make_examples")


def run(name: str, *arguments: object, status: int = 0) -> str:
    """What a script prints, in this process, which has torch already."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(printed), redirect_stderr(printed):
        patch.setattr(sys, "argv", [f"{name}.py", *map(str, arguments)])
        try:
            module(name).main()
        except SystemExit as end:
            assert status == 1 and isinstance(end.code, str), f"{end.code}\n{printed.getvalue()}"
            return end.code + "\n"
    assert status == 0, printed.getvalue()
    return printed.getvalue()


def run_alone(name: str, *arguments: object, path: tuple[object, ...], status: int = 0) -> str:
    """The same in a process of its own; `path` is where it may import from, besides what is installed."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(map(str, path)), "PYTHONWARNINGS": "error"}
    done = subprocess.run(
        [sys.executable, EXAMPLES / f"{name}.py", *map(str, arguments)],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == status and "Traceback" not in done.stderr, done.stderr
    return done.stdout + done.stderr


def module(name: str) -> ModuleType:
    """A script's functions."""
    spec = importlib.util.spec_from_file_location(f"example_{name}", EXAMPLES / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


@pytest.fixture(scope="module")
def model() -> FaceKeypoints:
    return FaceKeypoints.from_pretrained(backend="onnxruntime")  # the graph that onnx_only.py is given


@pytest.fixture
def no_picture(tmp_path: Path) -> Path:
    (tmp_path / "note.jpg").write_text("not a picture")
    return tmp_path / "note.jpg"


# --- All of them -----------------------------------------------------------------------------------------


def test_the_index_names_every_script() -> None:
    index = (EXAMPLES / "README.md").read_text()
    assert set(re.findall(r"\]\((\w+)\.py\)", index)) == {*SCRIPTS, "make_examples"}


@pytest.mark.parametrize("name", SCRIPTS)
def test_a_script_is_short_and_begins_with_its_command(name: str) -> None:
    text = (EXAMPLES / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 100
    first, empty, *rest = ast.get_docstring(ast.parse(text), clean=False).splitlines()
    assert first and not empty
    # `ruff format` takes the indentation away where the commands are all there is.
    if not any(line.startswith(" ") for line in rest):
        rest = [f"    {line}" for line in rest]
    below = "\n".join(rest)
    assert re.search(rf"^    {COMMANDS.get(name, 'python')} examples/{name}\.py ", below, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("draw_keypoints", ["drawn.png"]), ("align_faces", []), ("head_pose", ["axes.png"])],
)
def test_examples_tell_what_is_no_picture(name: str, arguments: list, no_picture: Path) -> None:
    told = run(name, no_picture, *(no_picture.with_name(name) for name in arguments), status=1)
    assert str(no_picture) in told and told.count("\n") == 1


def test_the_maker_of_the_examples_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "skimage.py").write_text("raise ModuleNotFoundError(name='skimage')")
    told = run_alone("make_examples", path=(tmp_path, EXAMPLES.parent), status=1)
    assert "skimage" in told and "pip install" in told and told.count("\n") == 1


# --- draw_keypoints, align_faces -------------------------------------------------------------------------


def test_keypoints_are_drawn(tmp_path: Path) -> None:
    picture, out = EXAMPLES / "four_faces.jpg", tmp_path / "drawn.png"
    assert run("draw_keypoints", picture, out) == f"{out}: 4 faces\n"
    before, after = (np.asarray(Image.open(path).convert("RGB")).astype(int) for path in (picture, out))
    assert before.shape == after.shape and 0.005 < (abs(before - after).max(axis=2) > 40).mean() < 0.3
    assert "unknown file extension" in run("draw_keypoints", picture, tmp_path / "a.nothing", status=1)


def test_aligned_faces_have_their_eyes_where_they_are_wanted(tmp_path: Path, model) -> None:
    options = ["--out", tmp_path, "--size", 160]
    paths = run("align_faces", EXAMPLES / "four_faces.jpg", *options).split()
    assert len(paths) == 4
    for path in paths:
        picture = np.asarray(Image.open(path))
        assert picture.shape == (160, 160, 3)
        (face,) = model(picture, max_faces=1)
        eyes = [face.keypoints[0, list(points)].mean(axis=0) for points in measures.PLACES[:2]]
        assert np.abs((np.array(eyes) + 0.5) / 160 - measures.ALIGNED[:2]).max() < 0.06


# --- blink_and_mouth -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shut", "expected"),
    [([], 0), ([(3, 6)], 1), ([(3, 6), (30, 33)], 2), ([(3, 40)], 0), ([(95, 100)], 0)],
    ids=["never", "once", "twice", "too long for a blink", "not open again"],
)
def test_blinks_are_counted(shut: list, expected: int) -> None:
    eyes = np.full(100, 0.3)
    for start, end in shut:
        eyes[start:end] = 0.1
    assert module("blink_and_mouth").blinks(eyes.tolist(), (np.arange(100) / 25).tolist()) == expected


def test_openness_over_a_clip(tmp_path: Path) -> None:
    portrait = cv2.imread(str(EXAMPLES / "eileen_collins.jpg"))[:384, :, ::-1]
    clip = filmed.film(tmp_path / "clip.mp4", [np.ascontiguousarray(portrait)] * 6)
    printed = run("blink_and_mouth", clip, tmp_path / "openness.csv")
    assert printed == "face 1, 0.2 s, blinks: 0\n"
    with (tmp_path / "openness.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["frame"]) for row in rows] == list(range(6)) and {row["face"] for row in rows} == {"1"}
    for row in rows:  # open eyes, and a smile that shows teeth
        assert 0.2 < float(row["eyes"]) < 0.5 and 0.1 < float(row["mouth"]) < 0.6
    assert "is no video" in run("blink_and_mouth", EXAMPLES / "README.md", tmp_path / "a.csv", status=1)


# --- head_pose -------------------------------------------------------------------------------------------


def test_the_axes_turn_as_the_pose_does() -> None:
    matrix = module("head_pose").rotation(30, 0, 0)
    assert matrix @ [0, 0, -1] == pytest.approx([0.5, 0, -np.sqrt(0.75)]), "to its left: the picture's right"
    assert (module("head_pose").rotation(0, 20, 0) @ [0, 0, -1])[1] < 0, "up"
    turned = module("head_pose").rotation(25, -10, 12)
    keypoints = np.zeros((1, 68, 2))
    keypoints[0, 17:] = (measures.HEAD @ turned.T)[:, :2]
    pose = measures.pose(keypoints)
    found = [float(each[0]) for each in (pose.yaw, pose.pitch, pose.roll)]
    assert found == pytest.approx([25, -10, 12], abs=0.01)


def test_mirroring_and_turning_a_picture_change_the_angles(model) -> None:
    image = np.asarray(Image.open(EXAMPLES / "grace_hopper.jpg"))

    def angles(image: np.ndarray) -> np.ndarray:
        pose = model(image, max_faces=1).pose
        return np.array([pose.yaw[0], pose.pitch[0], pose.roll[0]])

    straight = angles(image)
    assert np.abs(straight).max() < 15
    yaw, pitch, roll = straight
    assert angles(np.ascontiguousarray(image[:, ::-1])) == pytest.approx((-yaw, pitch, -roll), abs=4)
    clockwise = cv2.getRotationMatrix2D((256, 300), -20, 1)
    turned = cv2.warpAffine(image, clockwise, (512, 600), None, cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
    assert angles(turned) == pytest.approx((yaw, pitch, roll + 20), abs=7)  # as docs say, some degrees


def test_axes_are_drawn(tmp_path: Path) -> None:
    printed = run("head_pose", EXAMPLES / "eileen_collins.jpg", tmp_path / "axes.png")
    assert re.fullmatch(r"yaw -?\d+° ± \d+°, pitch -?\d+° ± \d+°, roll -?\d+° ± \d+°\n", printed)
    before, after = (
        np.asarray(Image.open(path)).astype(int)
        for path in (EXAMPLES / "eileen_collins.jpg", tmp_path / "axes.png")
    )
    assert 0.0005 < (abs(before - after).max(axis=2) > 40).mean() < 0.05


# --- fine_tune -------------------------------------------------------------------------------------------


def test_fine_tuning_lowers_the_loss_and_gives_a_model(tmp_path: Path, model, monkeypatch) -> None:
    monkeypatch.setattr(
        "fkp.networks.export.is_possible", lambda: False
    )  # graphs take long, and others test them
    (tmp_path / "pictures").mkdir()
    rows = {}
    for i in range(8):
        keypoints = synthetic.face(60, (64, 64))
        Image.fromarray(synthetic.picture(keypoints, seed=i)).save(tmp_path / "pictures" / f"{i}.png")
        rows[f"{i}.png"] = keypoints.ravel().round(2)
    pd.DataFrame.from_dict(rows, orient="index").to_csv(tmp_path / "labels.csv")
    out = tmp_path / "mine"
    options = ["--epochs", 5, "--batch-size", 4, "--lr", 1e-3]
    printed = run("fine_tune", tmp_path / "labels.csv", tmp_path / "pictures", out, *options)
    losses = [float(loss) for loss in re.findall(r"^epoch \d+: loss ([\d.]+)$", printed, re.MULTILINE)]
    assert len(losses) == 5 and losses[-1] < 0.8 * losses[0]

    tuned, image = FaceKeypoints.from_pretrained(out), synthetic.picture(synthetic.face(60), seed=100)
    truth = synthetic.face(60)
    box = geometry.tight_boxes(truth)
    errors = [np.abs(each.keypoints_at(image, box).keypoints[0] - truth).mean() for each in (tuned, model)]
    assert errors[0] < 0.8 * errors[1], "better on such a face than the pretrained model"
    assert tuned.metrics == {}, "the figures of the pretrained model are not those of this one"
    assert "no such file" in run("fine_tune", tmp_path / "none.csv", tmp_path, out, status=1)


# --- onnx_only -------------------------------------------------------------------------------------------

NOTHING_ELSE = """
import sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "fkp", "cv2", "PIL", "torchvision", "pandas"):
            raise ImportError(f"{name} is not to be used")

sys.meta_path.insert(0, Refuse())
"""


@pytest.mark.parametrize(
    ("name", "times"), [("eileen_collins", 1), ("eileen_collins", 3), ("grace_hopper", 1)]
)
def test_onnx_alone_gives_what_the_package_gives(name: str, times: int, tmp_path: Path, model) -> None:
    (tmp_path / "sitecustomize.py").write_text(NOTHING_ELSE)
    photo = Image.open(EXAMPLES / f"{name}.jpg")
    image = np.asarray(photo.resize((times * photo.width, times * photo.height)))
    np.save(tmp_path / "picture.npy", image)
    (face,) = model(image, max_faces=1)
    graph = model.weights.folder / "onnx" / "keypoints.onnx"
    arguments = [graph, tmp_path / "picture.npy", "--box", *face.boxes[0].tolist()]
    head, *lines = run_alone("onnx_only", *arguments, path=(tmp_path,)).splitlines()
    assert head == "x,y,confidence,visibility" and len(lines) == scheme.COUNT
    found = np.array([[float(value) for value in line.split(",")] for line in lines])
    assert found[:, :2] == pytest.approx(face.keypoints[0], abs=0.02)  # written in hundredths
    assert found[:, 2] == pytest.approx(face.keypoint_scores[0], abs=0.005)
    assert found[:, 3] == pytest.approx(face.visibility[0], abs=0.005)


def test_onnx_alone_tells_what_is_wrong(tmp_path: Path) -> None:
    told = run("onnx_only", tmp_path / "no.onnx", tmp_path / "a.npy", "--box", 1, 2, 3, 4, status=1)
    assert "no.onnx" in told and told.count("\n") <= 2
