"""Inference is light: no torch on its way, and little time and memory for one picture."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

BLOCKED = """
import sys
for name in ("torch", "torchvision", "gradio", "pandas", "matplotlib", "av", "onnx", "onnxscript"):
    sys.modules[name] = None
"""


def run(code: str, root: Path, *arguments: object, status: int = 0) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=root, capture_output=True, text=True,
        timeout=400,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    return done


def test_base_install_works_without_what_the_extras_bring(root: Path, tmp_path: Path) -> None:
    code = f"""{BLOCKED}
import numpy as np
from fkp import FaceKeypoints, data, evaluation, tracking
from fkp.__main__ import main
picture, folder = sys.argv[1:]
model = FaceKeypoints.from_pretrained()
faces = model(picture)
again = model.keypoints_at(picture, faces.boxes)
assert len(faces) == len(again) == len(model([picture, picture])[1]) == 4
model.save_pretrained(folder)
np.testing.assert_array_equal(FaceKeypoints.from_pretrained(folder)(picture).keypoints, faces.keypoints)
assert main(["predict", picture, "--json", folder + "/faces.json", "--out", folder]) == 0
"""
    run(code, root, root / "examples" / "four_faces.jpg", tmp_path / "saved")
    assert (tmp_path / "saved" / "onnx" / "keypoints.onnx").is_file()
    assert (tmp_path / "saved" / "faces.json").is_file()


@pytest.mark.parametrize(
    "code, extra",
    [
        ("from fkp.__main__ import main; sys.exit(main(['video', 'in.mp4', 'out.mp4']))", "video"),
        ("from fkp.__main__ import main; sys.exit(main(['export', 'x.onnx']))", "export"),
        ("import runpy; runpy.run_path('train.py', run_name='__main__')", "train"),
        ("import runpy; runpy.run_path('app.py', run_name='__main__')", "demo"),
        ("from fkp import FaceKeypoints as F\ntry:\n    F.from_pretrained(backend='torch')\n"
         "except RuntimeError as error:\n    sys.exit(str(error))", "torch"),
    ],
)  # fmt: skip
def test_commands_that_need_an_extra_say_so(root: Path, code: str, extra: str) -> None:
    said = run(BLOCKED + code, root, status=1).stderr
    assert re.search(rf'pip install "(fkp|\.)\[{extra}\]"', said) and "Traceback" not in said


IMPORTS = "import onnxruntime, cv2, numpy, PIL.Image"

PREDICT = """
import io, sys
from fkp.__main__ import main
stdout, sys.stdout = sys.stdout, io.StringIO()
assert main(["predict", "examples/eileen_collins.jpg", "--json", "-"]) == 0
sys.stdout = stdout
assert not {"torch", "pandas", "matplotlib", "gradio", "huggingface_hub"} & sys.modules.keys()
"""

COST = """
import time
peak = [int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(time.process_time(), *peak)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's account of memory")
def test_prediction_costs_little_more_than_the_libraries(root: Path) -> None:
    """The processor's time of its process: at most 2.5 times that of one that only imports; and its memory.

    The least of several runs by turns, so that what else the machine does matters little.
    """
    costs: dict[str, list[list[float]]] = {IMPORTS: [], PREDICT: []}
    for _ in range(5):
        for code, seen in costs.items():
            seen.append([*map(float, run(code + COST, root).stdout.split())])
    (importing, _), (predicting, kilobytes) = map(min, costs.values())
    assert predicting <= 2.5 * importing, (predicting, importing)
    assert kilobytes <= 250 * 1024


@pytest.mark.slow
def test_the_page_needs_no_torch(root: Path) -> None:
    code = """
import sys
sys.modules["torch"] = None
import app
from fkp import FaceKeypoints
model = FaceKeypoints.from_pretrained(threads=1)
app.build(model)
"""
    run(code, root)
