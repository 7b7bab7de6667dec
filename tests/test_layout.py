"""The house: who may import whom (downwards only, types included), and what importing may not do."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

DIRECTION = """
app train __main__
demo label training video
__init__ tracking evaluation
pipeline
detectors hub
detector runtime networks metrics data converters draw report results
faces
measures geometry images smoothing config outputs arguments
scheme
"""
"""Each folder or module of fkp/ may import what stands on a line below its own, or beside it; never above."""

LEVEL = {name: level for level, line in enumerate(reversed(DIRECTION.split("\n"))) for name in line.split()}

TORCH = {"networks", "training", "train"}
"""Where torch and torchvision may be imported at the top of a file."""

HEAVY = {"torch", "torchvision", "gradio", "pandas", "matplotlib", "av"}


def files() -> list[Path]:
    return [*sorted((ROOT / "fkp").rglob("*.py")), ROOT / "train.py", ROOT / "app.py"]


def dotted(path: Path) -> str:
    """`fkp.hub.weights` for fkp/hub/weights.py; a package is called by its folder."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)


def place(name: str) -> str:
    """The folder or module of fkp/ that a dotted name lies in: `hub` for `fkp.hub.weights`."""
    parts = name.split(".")
    return parts[1] if parts[0] == "fkp" and len(parts) > 1 else parts[0]


def imports(path: Path, top_only: bool = False) -> list[str]:
    """Dotted names that a file imports, at the top, inside functions, and for types."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names = []
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path.name}: imports within fkp are spelled out, from fkp import …"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def modules() -> dict[str, Path]:
    return {dotted(path): path for path in files()}


def own(path: Path) -> set[str]:
    """The modules of fkp that a file uses, dotted."""
    known, used = modules(), set()
    for name in imports(path):
        if name.split(".")[0] != "fkp" or name.startswith("fkp.__version__"):
            continue
        if name in ("fkp.FaceKeypoints", "fkp.Faces"):
            name = "fkp.pipeline"
        while name not in known and "." in name:
            name = name.rpartition(".")[0]
        used.add(name)
    return used - {"fkp"}


def test_checker_sees_imports(tmp_path: Path) -> None:
    (tmp_path / "b.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "import fkp\nimport fkp.hub\nfrom fkp import FaceKeypoints, draw as d\n"
        "from fkp.networks.codec import HeatmapCodec\nif TYPE_CHECKING:\n    from fkp import report\n"
        "def f():\n    from fkp import metrics\n"
    )
    wanted = {"fkp.hub", "fkp.pipeline", "fkp.draw", "fkp.networks.codec", "fkp.report", "fkp.metrics"}
    assert own(tmp_path / "b.py") == wanted


def test_modules_all_have_a_line() -> None:
    places = {place(name) for name in modules()}
    assert places <= LEVEL.keys(), f"no line in DIRECTION for {places - LEVEL.keys()}"
    assert not {"utils", "util", "helpers", "common", "misc"} & places


@pytest.mark.parametrize("name", modules())
def test_imports_run_downwards(name: str) -> None:
    above = {used for used in own(modules()[name]) if LEVEL[place(used)] > LEVEL[place(name)]}
    assert not above, f"{name} imports {', '.join(sorted(above))}, which stand above it"


def test_imports_form_no_circle() -> None:
    uses = {name: own(path) - {name} for name, path in modules().items()}
    # A package's own modules are what it is made of: their use of one another counts, not that of the whole.
    done: list[str] = []

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail[trail.index(name) :], name))
        if name not in done:
            for used in sorted(uses[name]):
                visit(used, (*trail, name))
            done.append(name)

    for name in uses:
        visit(name, ())


def test_scheme_depends_on_nothing() -> None:
    assert imports(ROOT / "fkp" / "scheme.py") == []


@pytest.mark.parametrize("name", modules())
def test_torch_is_imported_at_the_top_by_networks_and_training_only(name: str) -> None:
    packages = {used.split(".")[0] for used in imports(modules()[name], top_only=True)}
    allowed = {"torch", "torchvision"} if place(name) in TORCH else set()
    allowed |= {"gradio"} if place(name) in ("demo", "app") else set()
    allowed |= {"av"} if place(name) == "video" else set()
    assert not packages & HEAVY - allowed


@pytest.mark.slow
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
assert not {"torch", "gradio", "pandas", "matplotlib"} & sys.modules.keys()
try:
    fkp.nothing
except AttributeError as error:
    assert "has no attribute 'nothing'" in str(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout == "", done.stderr
