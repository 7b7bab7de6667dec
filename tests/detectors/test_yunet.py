"""YuNet through `cv2.FaceDetectorYN` itself, on a file of its twelve outputs that sees red squares.

The tests at the end want the real file, which is not part of the project: FKP_YUNET names it.
"""

import copy
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from fkp import FaceKeypoints, geometry, hub, images
from fkp.detectors import yunet
from tests.loopback_hub import Commit, LoopbackHub, Repository, fresh_process

SIZES = (40.0, 60.0)
"""Width and height of the box that `red_squares` puts around the middle of a red cell of 8×8 pixels."""

BROKEN = {
    "empty": b"",
    "a page": b"<!doctype html><title>Not found</title>",
    "no model": b"\x08\x07",
    "random": np.random.default_rng(0).bytes(5000),
}


def red_squares() -> bytes:
    """An ONNX file that scores each cell of the finest grid by the mean red in it, 0..1; the others never.

    Like YuNet's own it declares a fixed size of input, which OpenCV overrides, and takes BGR.
    """
    nodes, constants, outputs = [], [], []
    for stride in (8, 16, 32):
        red = np.zeros((1, 3, stride, stride), np.float32)
        red[0, 2] = 1 / (255 * stride**2)
        log_sizes = np.log(np.array(SIZES) / stride)
        says = {
            "cls": (red if stride == 8 else 0 * red, [0.0]),
            "obj": (red if stride == 8 else 0 * red, [0.0]),
            # From the cell's corner to its middle: half a cell, less half a pixel, for integers are centres.
            "bbox": (0 * red.repeat(4, 0), [0.5 - 0.5 / stride, 0.5 - 0.5 / stride, *log_sizes]),
            "kps": (0 * red.repeat(10, 0), [0.0] * 10),
        }
        for name, (weight, bias) in says.items():
            out = f"{name}_{stride}"
            arrays = {
                "weight": weight, "bias": np.array(bias, np.float32), "shape": np.array([1, -1, len(bias)]),
            }  # fmt: skip
            constants += [numpy_helper.from_array(array, f"{out}.{key}") for key, array in arrays.items()]
            convolved = [f"{out}.convolved"]
            nodes += [
                helper.make_node(
                    "Conv", ["input", f"{out}.weight", f"{out}.bias"], convolved,
                    kernel_shape=[stride, stride], strides=[stride, stride],
                ),
                helper.make_node("Transpose", convolved, [f"{out}.last"], perm=[0, 2, 3, 1]),
                helper.make_node("Reshape", [f"{out}.last", f"{out}.shape"], [out]),
            ]  # fmt: skip
            shape = [1, (640 // stride) ** 2, len(bias)]
            outputs.append(helper.make_tensor_value_info(out, TensorProto.FLOAT, shape))
    taken = helper.make_tensor_value_info("input", TensorProto.FLOAT, [1, 3, 640, 640])
    # In the order of the real file: cls, obj, bbox, kps, and each of them at strides 8, 16, 32.
    kinds = ["cls", "obj", "bbox", "kps"]
    outputs.sort(key=lambda value: kinds.index(value.name.split("_")[0]))
    graph = helper.make_graph(nodes, "red_squares", [taken], outputs, constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=6)
    onnx.checker.check_model(model)
    return model.SerializeToString()


@pytest.fixture(scope="module")
def content() -> bytes:
    return red_squares()


@pytest.fixture
def file(content: bytes, tmp_path: Path) -> Path:
    path = tmp_path / "faces für alle.onnx"
    path.write_bytes(content)
    return path


@pytest.fixture
def finder(file: Path) -> yunet.YuNet:
    return yunet.YuNet(file)


def picture(
    *cells: tuple[int, int, int], shape_hw: tuple[int, int] = (200, 300), size: int = 8
) -> np.ndarray:
    """Black, with squares of a redness at (column, row) of cells of `size` pixels."""
    image = np.zeros((*shape_hw, 3), np.uint8)
    for column, row, red in cells:
        image[row * size : (row + 1) * size, column * size : (column + 1) * size, 0] = red
    return image


def box_at(x: float, y: float, scale: float = 1.0) -> np.ndarray:
    """The tight box that should be found for a red cell whose middle is at (x, y)."""
    half = np.array(SIZES) / 2 * scale
    return yunet.tight(np.array([[x - half[0], y - half[1], x + half[0], y + half[1]]]))[0]


# --- finding faces ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape_hw", [(200, 300), (1, 1), (1, 700), (33, 31), (2000, 3)])
def test_picture_without_a_face(finder: yunet.YuNet, shape_hw: tuple[int, int]) -> None:
    blue = np.zeros((*shape_hw, 3), np.uint8)
    blue[..., 2] = 255
    boxes, scores = finder(blue)
    assert boxes.shape == (0, 4) and scores.shape == (0,)
    assert boxes.dtype == scores.dtype == np.float32


def test_faces_are_found_where_they_are(finder: yunet.YuNet) -> None:
    image = picture((5, 6, 250), (20, 13, 230))
    boxes, scores = finder(image)
    assert boxes.dtype == scores.dtype == np.float32
    assert scores == pytest.approx([250 / 255, 230 / 255], abs=1e-5)  # best first
    assert boxes == pytest.approx(np.stack([box_at(43.5, 51.5), box_at(163.5, 107.5)]), abs=1e-3)
    assert np.array_equal(image, picture((5, 6, 250), (20, 13, 230)))


def test_the_tight_box() -> None:
    assert yunet.tight(np.empty((0, 4))).shape == (0, 4)
    (box,) = yunet.tight(np.array([[100.0, 200, 300, 500]]))
    middle, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    assert middle == pytest.approx([200, 350 + 300 * yunet.BOX_SHIFT])
    assert size == pytest.approx([200 * yunet.BOX_SIZE[0], 300 * yunet.BOX_SIZE[1]])
    # From the eyebrows to the chin is less than from the hairline to the chin.
    assert 100 < box[0] + 20 and 220 < box[1] and box[3] < 520


def test_the_least_score(finder: yunet.YuNet) -> None:
    image = picture((5, 6, 250), (20, 13, 200), (30, 20, 100))
    assert len(finder(image)[0]) == 1  # 200/255 is less than MIN_SCORE
    for least, n in ((0.99, 0), (0.9, 1), (0.7, 2), (0.3, 3), (0.9, 1)):
        assert len(finder(image, min_score=least)[0]) == n
    assert (finder(image, min_score=0.3)[1] >= 0.3).all()


def test_of_boxes_that_overlap_the_best_is_kept(finder: yunet.YuNet) -> None:
    boxes, scores = finder(picture((10, 10, 230), (11, 10, 255), (10, 11, 240)))
    assert boxes == pytest.approx(box_at(91.5, 83.5)[None], abs=1e-3) and scores == pytest.approx([1])


def test_a_big_picture_is_shrunk(finder: yunet.YuNet) -> None:
    """2560 pixels become 1280, so a square of 16 pixels is a cell, and boxes are twice as large."""
    image = picture((40, 20, 255), (120, 50, 250), shape_hw=(1000, 2560), size=16)
    boxes, scores = finder(image)
    expected = np.stack([box_at(40 * 16 + 7.5, 20 * 16 + 7.5, 2), box_at(120 * 16 + 7.5, 50 * 16 + 7.5, 2)])
    assert boxes == pytest.approx(expected, abs=1e-3) and len(scores) == 2


def test_large_picture_is_searched_twice_and_what_overlaps_is_found_once(finder: yunet.YuNet) -> None:
    """A red square is 16×16 cells at 1280 pixels and 4×4 at 320, whose boxes are 4 times as wide and high."""
    image = np.zeros((640, 1280, 3), np.uint8)
    image[64:192, 128:256, 0] = 255
    boxes, scores = finder(image)
    fine, coarse = (np.prod(np.array(SIZES) * scale) for scale in (1, 4))
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) / np.prod(yunet.BOX_SIZE)
    assert sorted({round(float(area / fine)) for area in areas}) == [1, round(coarse / fine)]
    overlaps = geometry.iou(boxes, boxes) - np.eye(len(boxes))
    assert overlaps.max() <= 0.35  # of YuNet's boxes MAX_IOU; tight boxes overlap by the same share


def test_threads_share_a_detector(finder: yunet.YuNet) -> None:
    """Pictures of different sizes at once: OpenCV's detector knows one size at a time."""
    sizes = [(64 + 24 * i, 300 - 24 * i) for i in range(8)] * 3
    cells = [(2 + i % 3, 3 + i % 2, 255) for i in range(len(sizes))]
    pictures = [picture(cell, shape_hw=shape_hw) for cell, shape_hw in zip(cells, sizes, strict=True)]
    with ThreadPoolExecutor(6) as pool:
        results = list(pool.map(finder, pictures))
    for (column, row, _), (boxes, _) in zip(cells, results, strict=True):
        assert boxes == pytest.approx(box_at(8 * column + 3.5, 8 * row + 3.5)[None], abs=1e-3)


def test_copies_and_other_processes(finder: yunet.YuNet) -> None:
    image = picture((5, 6, 250))
    for other in (copy.deepcopy(finder), pickle.loads(pickle.dumps(finder))):
        assert np.array_equal(other(image)[0], finder(image)[0])


# --- the file -----------------------------------------------------------------------------------------------


def test_file_that_is_not_there(tmp_path: Path) -> None:
    for path in (tmp_path / "no.onnx", tmp_path):
        with pytest.raises(hub.WeightsError) as caught:
            yunet.YuNet(path)
        assert str(caught.value).startswith(f"YuNet's file {path} cannot be read: ")


@pytest.mark.parametrize("what", BROKEN)
def test_file_that_is_no_yunet(what: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "yunet.onnx"
    path.write_bytes(BROKEN[what])
    with pytest.raises(hub.WeightsError) as caught:
        yunet.YuNet(path)
    message = str(caught.value)
    assert message.startswith(f"{path} is no YuNet that OpenCV {cv2.__version__} can run (")
    assert "\n" not in message and "/" not in message.removeprefix(str(path))
    assert capfd.readouterr() == ("", "")  # what OpenCV would tell at length


def test_a_file_that_was_cut_short_or_is_another_network(content: bytes, tmp_path: Path) -> None:
    other = onnx.load_model_from_string(content)
    del other.graph.output[3:]
    cut, two = tmp_path / "cut.onnx", tmp_path / "other.onnx"
    cut.write_bytes(content[: len(content) // 2])
    two.write_bytes(other.SerializeToString())
    for path in (cut, two):
        with pytest.raises(hub.WeightsError, match="is no YuNet that OpenCV .* can run"):
            yunet.YuNet(path)


def test_a_pointer_of_git_lfs(tmp_path: Path) -> None:
    path = tmp_path / "yunet.onnx"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:8f23\nsize 232589\n")
    with pytest.raises(hub.WeightsError, match="only says where Git LFS keeps YuNet's file"):
        yunet.YuNet(path)


def test_an_opencv_without_it(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(cv2, "FaceDetectorYN")
    with pytest.raises(hub.WeightsError, match=r"OpenCV .* has no FaceDetectorYN, .*'pip install -U opencv"):
        yunet.YuNet(file)


FIND = """
from fkp import hub
from fkp.detectors import yunet
from fkp.hub import download

def tell(find, *arguments, **options):
    try:
        print(find(*arguments, **options).read_bytes())
    except hub.WeightsError as error:
        print(error)

"""


@pytest.mark.slow
def test_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FKP_YUNET", raising=False)
    where = f"{yunet.REPOSITORY} at revision {yunet.COMMIT}"
    missing = f"YuNet's file cannot be had: {where} is not in the local cache, and the"
    advice = f"; get {yunet.FILE} and let FKP_YUNET name it"
    commits = [Commit(yunet.COMMIT, {yunet.FILE: b"faces"}), Commit("9" * 40, {yunet.FILE: b"newer"})]
    with LoopbackHub() as server:
        server.repositories[yunet.REPOSITORY] = Repository(False, commits)
        code = FIND + (
            "tell(yunet.find, local_files_only=True)\n"
            "tell(yunet.find)\n"
            "tell(yunet.find, local_files_only=True)\n"
            "tell(download.fetch_file, yunet.REPOSITORY, 'other.onnx', yunet.COMMIT)\n"
        )
        not_yet, found, cached, other = fresh_process(code, server.url, tmp_path)
        assert not_yet == f"{missing} network is switched off{advice}"
        assert found == cached == "b'faces'"
        assert other == f"{where} holds no other.onnx"
        told = [request for request in server.requests if yunet.REPOSITORY in request]
        assert told and all(yunet.COMMIT in request for request in told), "nothing but the pinned commit"
    # The server is gone: what is in the cache is found, what is not is told.
    code = FIND + f"tell(yunet.find)\ntell(yunet.find, cache_dir={str(tmp_path / 'empty')!r})\n"
    found, unreachable = fresh_process(code, server.url, tmp_path)
    assert found == "b'faces'"
    assert unreachable.startswith(f"{missing} Hub cannot be reached (") and unreachable.endswith(advice)


def test_a_file_of_ones_own_needs_no_hub(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FKP_YUNET", str(file))
    assert yunet.find() == yunet.find(local_files_only=True) == file


# --- the model with it --------------------------------------------------------------------------------------


def test_the_model_with_yunet(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FKP_YUNET", str(file))
    model = FaceKeypoints.from_pretrained(detector="yunet", passes=1)  # a drawn face has no sure points
    assert model.describe()[2] == f"faces by YuNet ({file}), OpenCV {cv2.__version__}"
    image = picture((5, 6, 250), (20, 13, 100))
    (face,) = model(image)
    assert face.boxes[0] == pytest.approx(box_at(43.5, 51.5), abs=1e-3)
    assert face.scores[0] == pytest.approx(250 / 255, abs=1e-5) and face.keypoints.shape == (1, 68, 2)
    assert len(model(image, min_score=0.3)) == 2 and len(model(image, min_score=0.3, max_faces=1)) == 1
    monkeypatch.setenv("FKP_YUNET", str(file.parent / "no.onnx"))
    with pytest.raises(hub.WeightsError, match=r"YuNet's file .*no.onnx cannot be read"):
        FaceKeypoints.from_pretrained(detector="yunet")


# --- the constants ------------------------------------------------------------------------------------------


def test_the_tight_box_in_yunets() -> None:
    """Of a box of 100 × 200: 103.5 × 152, with its middle a bit lower (0.126 of the height)."""
    tight = yunet.tight(np.array([[0.0, 0, 100, 200]]))
    assert tight == pytest.approx(np.array([[50 - 51.75, 125.2 - 76, 50 + 51.75, 125.2 + 76]]))


# --- the real file ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def real() -> yunet.YuNet:
    if not os.environ.get("FKP_YUNET"):
        pytest.skip("needs YuNet's own file, which is not part of fkp: let FKP_YUNET name it")
    return yunet.YuNet(yunet.find())


def test_real_faces(real: yunet.YuNet, root: Path) -> None:
    image = images.read(root / "examples" / "four_faces.jpg")
    boxes, scores = real(image)
    assert len(boxes) == 4 and (scores >= yunet.MIN_SCORE).all()
    # Against the tight boxes of the keypoints that fkp places there.
    truth = geometry.tight_boxes(FaceKeypoints.from_pretrained()(image).keypoints)
    assert (geometry.iou(boxes, truth).max(axis=1) > 0.75).all()


@pytest.mark.parametrize("factor", [0.35, 2.5])
def test_real_faces_small_and_filling_the_picture(real: yunet.YuNet, root: Path, factor: float) -> None:
    image = images.read(root / "examples" / "eileen_collins.jpg")
    ((box,), _) = real(image)
    if factor < 1:
        size = round(max(image.shape[:2]) * factor)
        assert len(real(cv2.resize(image, (size, size), interpolation=cv2.INTER_AREA))[0]) == 1
        return
    x, y, half = *((box[:2] + box[2:]) / 2), 0.7 * (box[2:] - box[:2]).max()
    cut = image[max(0, int(y - half)) : int(y + half), max(0, int(x - half)) : int(x + half)]
    boxes, _ = real(cv2.resize(cut, (1000, 1000), interpolation=cv2.INTER_CUBIC))
    assert len(boxes) == 1 and (boxes[0, 2:] - boxes[0, :2]).min() > 600
