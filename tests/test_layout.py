"""The house: who may import whom (downwards only), and what importing may not do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# In order: a room may use rooms that stand above it in this table, and of those the ones named.
# fmt: off
ALLOWED: dict[str, set[str]] = {
    "scheme": set(),
    "images": set(),
    "runs": set(),
    "settings": set(),
    "batching": set(),
    "forgetting": set(),
    "origins": set(),
    "door": {"origins"},
    "turns": set(),
    "muon": set(),
    "codec": {"scheme"},
    "metrics": {"scheme"},
    "draw": {"scheme"},
    "report": {"scheme"},
    "geometry": {"scheme"},
    "smoothing": set(),
    "clips": {"images"},
    "data": {"geometry", "scheme", "images"},
    "network": {"codec", "scheme"},
    "runtime": {"network"},
    "detector": {"geometry", "runtime", "scheme"},
    "export": {"network", "detector", "runtime", "scheme"},
    "card": {"draw", "images", "scheme"},
    "remote": set(),
    "hub": {"card", "network", "detector", "export", "remote", "scheme"},
    "yunet": {"remote"},
    "whole": {"geometry"},
    "pipeline": {
        "card", "images", "detector", "geometry", "network", "codec", "hub", "remote", "runtime", "scheme",
        "yunet", "whole",
    },
    "gpu": {"detector", "pipeline"},
    "tracking": {"geometry", "pipeline", "smoothing"},
    "video": {"clips", "draw", "report", "tracking"},
    "evaluation": {"data", "geometry", "metrics", "pipeline", "scheme"},
    "distillation": {"data", "network", "runtime", "scheme"},
    "keypoint_training": {
        "codec", "data", "distillation", "geometry", "images", "metrics", "network", "runtime", "scheme",
    },
    "face_training": {"data", "detector", "geometry", "images", "metrics"},
    "__init__": {"pipeline"},
    "train": {
        "data", "network", "detector", "codec", "metrics", "hub", "pipeline", "remote",
        "keypoint_training", "face_training", "runs", "runtime", "muon",
    },
    "photos": {"draw", "geometry", "images", "pipeline", "report", "settings"},
    "footage": {"clips", "draw", "pipeline", "settings", "video"},
    "view": {"draw", "footage", "photos", "scheme", "video"},
    "live": {"images", "pipeline", "report", "tracking"},
    "components": {"draw", "footage", "images", "live", "photos", "settings", "view"},
    "about": {"forgetting", "view"},
    "space": {"about", "remote", "settings"},
    "__main__": {
        "clips", "data", "draw", "evaluation", "export", "geometry", "hub", "images", "pipeline",
        "remote", "report", "runtime", "scheme", "space", "video",
    },
    "app": {
        "about", "batching", "components", "door", "draw", "footage", "forgetting", "gpu", "hub", "images",
        "live", "photos", "pipeline", "report", "settings", "turns", "view",
    },
}
# fmt: on

WITHOUT_TORCH = {"scheme", "geometry", "images", "draw", "metrics", "report", "smoothing", "clips"}


def rooms() -> dict[str, Path]:
    paths = [*sorted((ROOT / "fkp").glob("*.py")), ROOT / "train.py", ROOT / "app.py"]
    return {path.stem: path for path in paths}


def imports(path: Path) -> list[str]:
    """Dotted names that a file imports when it runs, at the top or inside a function; not those for types."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports within fkp are spelled out, from fkp import …"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def own(path: Path) -> set[str]:
    """The rooms that a file uses."""
    used = set()
    for name in imports(path):
        package, *rest = name.split(".")
        if package == "fkp" and rest and rest[0] != "__version__":
            used.add("pipeline" if rest[0] in ("FaceKeypoints", "Faces") else rest[0])
    return used


def test_the_checker_sees_imports(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("")
    assert own(tmp_path / "a.py") == set()
    (tmp_path / "b.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "import fkp\nimport fkp.hub\nfrom fkp import FaceKeypoints, draw as d\n"
        "from fkp.codec import HeatmapCodec\nif TYPE_CHECKING:\n    from fkp import report\n"
        "def f():\n    from fkp import metrics\n"
    )
    assert own(tmp_path / "b.py") == {"hub", "pipeline", "draw", "codec", "metrics"}


def test_every_room_has_its_place() -> None:
    assert rooms().keys() == ALLOWED.keys(), "a new room needs a line in ALLOWED"
    assert not {"utils", "util", "helpers", "common", "misc"} & rooms().keys()


def test_the_table_runs_downwards() -> None:
    above: set[str] = set()
    for room, used in ALLOWED.items():
        assert used <= above, f"{room} may not use {used - above}"
        above.add(room)


@pytest.mark.parametrize("room", ALLOWED)
def test_dependencies_run_downwards(room: str) -> None:
    extra = own(rooms()[room]) - ALLOWED[room]
    assert not extra, f"{room} imports {', '.join(sorted(extra))}"


def test_the_mark_up_depends_on_nothing() -> None:
    assert imports(rooms()["scheme"]) == []


@pytest.mark.parametrize("room", sorted(WITHOUT_TORCH))
def test_rooms_that_need_no_torch(room: str) -> None:
    packages = {name.split(".")[0] for name in imports(rooms()[room])}
    assert not packages & {"torch", "torchvision", "gradio", "pandas"}


def test_every_room_has_its_tests() -> None:
    tested = {path.stem.removeprefix("test_") for path in (ROOT / "tests").rglob("test_*.py")}
    elsewhere = {"init"}  # here
    missing = {room.strip("_") for room in rooms()} - tested - elsewhere
    assert not missing, f"no tests for {missing}"


def test_importing_does_nothing() -> None:
    """No torch, no network, nothing printed; the public names are there all the same."""
    code = """
import socket
import sys

def refuse(*arguments):
    raise RuntimeError(f"a connection while importing: {arguments}")

socket.socket.connect = socket.getaddrinfo = refuse
import fkp
heavy = {"torch", "numpy", "cv2", "PIL", "huggingface_hub", "safetensors", "gradio"} & sys.modules.keys()
assert not heavy, heavy
assert {"FaceKeypoints", "Faces"} <= set(dir(fkp))
from fkp import *
assert FaceKeypoints.__name__ == "FaceKeypoints" and len(Faces.none()) == 0
assert not {"gradio", "pandas", "matplotlib"} & sys.modules.keys()
try:
    fkp.nothing
except AttributeError as error:
    assert "has no attribute 'nothing'" in str(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout == "", done.stderr
