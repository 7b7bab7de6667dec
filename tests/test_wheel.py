"""The wheel and the source archive: what is in them, and that what is installed works in three lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from tests.loopback_hub import LoopbackHub

THREE_LINES = """
from fkp import FaceKeypoints
model = FaceKeypoints.from_pretrained()
faces = model({picture!r})
import fkp, sys
print(len(faces), faces.keypoints.shape, fkp.__file__)
"""

LARGE = 200_000
"""Bytes from which on a file has to be one of the weights."""


def run(*command: object, cwd: Path | None = None, seconds: float = 600, **environment: str) -> str:
    """What a command prints; it sees nothing of this project but what is installed."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, env=kept | environment,
        capture_output=True, text=True, timeout=seconds,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is, or will be, under version control."""
    folder = tmp_path_factory.mktemp("source") / "fkp"
    names = run("git", "ls-files", "--cached", "--others", "--exclude-standard", cwd=root).splitlines()
    for name in names:
        if (root / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((root / name).read_bytes())
    return folder


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheel and the source archive, built with the setuptools that is installed."""
    out = tmp_path_factory.mktemp("dist")
    pytest.importorskip("setuptools", minversion="77", reason="building needs setuptools")
    for kind in ("sdist", "wheel"):
        build = f"import sys; from setuptools import build_meta; build_meta.build_{kind}(sys.argv[1])"
        run(sys.executable, "-c", build, out, cwd=source)
    return out


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (path,) = built.glob("fkp-*-py3-none-any.whl")
    return path


def test_the_wheel_holds_the_package_whole_and_nothing_else(wheel: Path, root: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
    assert {name.split("/")[0].split("-")[0] for name in sizes} == {"fkp"}, "the package and its description"
    package = {name for name in sizes if name.startswith("fkp/")}
    ours = {p.relative_to(root).as_posix() for p in (root / "fkp").rglob("*") if p.is_file()}
    assert package == {name for name in ours if "__pycache__" not in name}
    large = {name for name, size in sizes.items() if size >= LARGE}
    assert all(name.startswith("fkp/weights/") for name in large), large
    assert {"fkp/weights/model.safetensors", "fkp/weights/onnx/detector.onnx"} <= large
    assert wheel.stat().st_size < 8e6


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
        entry_points = archive.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert "License-Expression: MIT" in metadata and "Requires-Dist: onnxruntime>=1.20\n" in metadata
    assert 'Requires-Dist: torch>=2.8; extra == "torch"' in metadata
    assert "Classifier: Typing :: Typed" in metadata and "fkp = fkp.__main__:main" in entry_points


def test_the_source_archive_builds_and_holds_no_tests_nor_benchmarks(built: Path, wheel: Path) -> None:
    (path,) = built.glob("fkp-*.tar.gz")
    with tarfile.open(path) as archive:
        sizes = {info.name.split("/", 1)[-1]: info.size for info in archive.getmembers() if info.isfile()}
    tops = {name.split("/")[0] for name in sizes}
    assert {"fkp", "pyproject.toml", "README.md", "LICENSE"} <= tops
    assert not tops & {"tests", "benchmarks", "docs", "examples", "runs"}
    large = {name for name, size in sizes.items() if size >= LARGE}
    assert all(name.startswith("fkp/weights/") for name in large), large
    with zipfile.ZipFile(wheel) as archive:
        package = {name for name in archive.namelist() if name.startswith("fkp/")}
    assert package <= sizes.keys(), "a wheel built of it is the same"


def check_installed(python: Path, root: Path, folder: Path) -> None:
    """The three lines, the command and the types, from another folder, in an environment with the wheel."""
    picture = root / "examples" / "four_faces.jpg"
    printed = run(python, "-c", THREE_LINES.format(picture=str(picture)), cwd=folder).split(maxsplit=4)
    assert printed[:4] == ["4", "(4,", "68,", "2)"]
    installed = Path(printed[4].strip()).parent
    assert installed.is_relative_to(python.parents[1]), "not that of the project's folder"
    assert (installed / "py.typed").is_file() and (installed / "demo" / "static" / "about.html").is_file()
    (record,) = json.loads(run(python.parent / "fkp", "predict", picture, "--json", "-", cwd=folder))
    assert len(record["faces"]) == 4


@pytest.mark.slow
def test_the_installed_wheel_works_in_three_lines(wheel: Path, root: Path, tmp_path: Path) -> None:
    """With the packages of this environment, so that it is quick; see the next test for the whole way."""
    environment = tmp_path / "environment"
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    (site,) = (environment / "lib").glob("python3.*/site-packages")
    # Those of an environment made from another one would be those of the other's base.
    (site / "others.pth").write_text("\n".join(path for path in sys.path if path.endswith("site-packages")))
    run(sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index",
        "--disable-pip-version-check", "--ignore-installed", wheel)  # fmt: skip
    check_installed(python, root, tmp_path)


HUB = """
from fkp import FaceKeypoints
model = FaceKeypoints.from_pretrained()
model.save_pretrained({saved!r})
from fkp.hub import publish
publish.push({saved!r}, "someone/faces", token="hf_secret")
print(len(FaceKeypoints.from_pretrained("someone/faces", cache_dir={cache!r})({picture!r})))
"""

MOST_MEGABYTES = 400
"""That installing fkp adds to an empty environment."""


def size_of(folder: Path) -> int:
    """Bytes of all files."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.fresh
@pytest.mark.slow
def test_a_fresh_environment_gets_all_it_needs_from_the_wheel(wheel: Path, root: Path) -> None:
    """And no more: what the extras bring is not there, and what needs it says so."""
    # A folder of its own, for pytest would keep these megabytes.
    with tempfile.TemporaryDirectory() as temporary:
        environment, folder = Path(temporary, "environment"), Path(temporary)
        run(sys.executable, "-m", "venv", environment)
        python = environment / "bin" / "python"
        (site,) = environment.glob("lib/python3.*/site-packages")
        empty = size_of(site)  # what an environment begins with: pip, before Python 3.12 setuptools as well
        run(python, "-m", "pip", "install", "--quiet", wheel, seconds=1800)
        for package in ("torch", "torchvision", "gradio", "pandas", "matplotlib", "av"):
            assert not (site / package).exists(), package
        size = size_of(site) - empty
        assert size <= MOST_MEGABYTES * 1e6, size
        check_installed(python, root, folder)
        picture = root / "examples" / "four_faces.jpg"
        run(environment / "bin" / "fkp", "predict", picture, "--out", folder / "drawn", cwd=folder)
        assert (folder / "drawn" / "four_faces_keypoints.png").is_file()
        for extra, needs_it in (("video", ["video", "in.mp4", "out.mp4"]), ("export", ["export", "x.onnx"])):
            done = subprocess.run(
                [environment / "bin" / "fkp", *needs_it],
                cwd=folder, capture_output=True, text=True, timeout=600,
            )  # fmt: skip
            assert done.returncode == 1 and f'pip install "fkp[{extra}]"' in done.stderr, done.stderr
            assert "Traceback" not in done.stderr
        with LoopbackHub() as server:
            code = HUB.format(saved=str(folder / "saved"), cache=str(folder / "cache"), picture=str(picture))
            places = {"HF_HOME": str(folder / "home"), "HF_ENDPOINT": server.url, "HF_HUB_DISABLE_XET": "1"}
            assert run(python, "-c", code, cwd=folder, **places) == "4\n"


def test_requirements_are_those_of_the_demo_and_of_training(root: Path) -> None:
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    lines = (root / "requirements.txt").read_text().splitlines()
    listed = [line for line in lines if line and not line.startswith("#")]
    extras = project["optional-dependencies"]
    assert len(listed) == len(set(listed))
    assert set(listed) == {*project["dependencies"], *extras["demo"], *extras["train"]}
    assert set(extras) >= {"torch", "train", "video", "demo", "export", "heif", "label", "all"}
    (everything,) = extras["all"]
    assert set(extras) - {"all", "torch"} == set(everything[len("fkp[") : -1].split(","))


def test_importing_torchvision_is_for_training(root: Path) -> None:
    asked = "import sys, fkp; fkp.FaceKeypoints; print('torch' in sys.modules, 'torchvision' in sys.modules)"
    assert run(sys.executable, "-c", asked, cwd=root) == "False False\n"
