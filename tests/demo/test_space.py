"""The Space: its folder is whole and starts alone, and goes up to a Hub on loopback."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import huggingface_hub
import pytest
import yaml

from fkp import hub as weights_hub
from fkp.__main__ import main
from fkp.demo import about, settings, space
from fkp.demo.space import Space, SpaceError
from fkp.hub import download, model_card
from tests.loopback_hub import LoopbackHub

HERE = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "space"
    space.build(Space("me/face-keypoints"), folder)
    return folder


def header(folder: Path) -> dict:
    _, text, _ = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    return yaml.safe_load(text)


# --- The folder ------------------------------------------------------------------------------------------


def test_the_header_says_what_to_run(folder: Path) -> None:
    given = header(folder)
    assert given["sdk"] == "gradio" and given["sdk_version"] == metadata.version("gradio")
    assert given["python_version"] == "3.12", "a text: as a number, 3.10 would be 3.1"
    assert (folder / given["app_file"]).is_file()
    assert given["license"] == "mit" and "models" not in given
    assert given["suggested_hardware"] == "zero-a10g"
    assert re.fullmatch(r"\d+[smh]", given["startup_duration_timeout"])
    assert len(given["short_description"]) <= 60, "the Hub takes no longer one"
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {given["colorFrom"], given["colorTo"]} <= colours


def test_space_holds_what_the_page_needs_and_no_more(folder: Path, root: Path) -> None:
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    tops = {name.split("/")[0] for name in files}
    assert tops == {"README.md", "LICENSE", "app.py", "requirements.txt", "fkp", "examples", "docs"}
    package = {p.relative_to(root).as_posix() for p in (root / "fkp").rglob("*") if p.is_file()}
    whole = {name for name in package if "__pycache__" not in name}
    assert {name for name in files if name.startswith("fkp/")} == whole, "the package, folders within it too"
    assert {name for name in files if name.startswith("docs/")} == {f"docs/{name}" for name in about.PLOTS}
    assert "examples/SOURCES.md" in files and not [name for name in files if "cache" in name]
    examples = {Path(name).name for name in files if name.startswith("examples/")} - {"SOURCES.md"}
    sources = (folder / "examples" / "SOURCES.md").read_text()
    assert examples and all(f"`{name}`" in sources for name in examples)
    assert sum((folder / name).stat().st_size for name in files) < 12e6


def test_requirements_are_those_of_the_project_in_versions_for_a_space(folder: Path, root: Path) -> None:
    def lines(path: Path) -> dict[str, str]:
        wanted = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
        return {re.match(r"[\w-]+", line)[0]: line for line in wanted}

    given, project = lines(folder / "requirements.txt"), lines(root / "requirements.txt")
    assert given.keys() == project.keys() - {"torchvision", "matplotlib"} | {"spaces"}
    changed = {name for name in given.keys() & project.keys() if given[name] != project[name]}
    assert changed == {"torch", "gradio"}
    assert given["torch"] == "torch>=2.8,<=2.11.0", "what ZeroGPU runs"
    assert given["gradio"] == f"gradio=={header(folder)['sdk_version']}"


def test_the_readme_tells_what_its_own_weights_learnt_from(folder: Path) -> None:
    own = (folder / "README.md").read_text(encoding="utf-8")
    other = space.readme(Space("me/face-keypoints", model="you/weights"))
    for told in model_card.TRAINING_DATA.values():
        assert told in own and told not in other


def test_the_readme_of_the_project_has_no_header(root: Path) -> None:
    assert (root / "README.md").read_text().startswith("# ")


def test_a_model_becomes_a_variable_and_is_named(tmp_path: Path) -> None:
    wanted = Space("me/demo", "me/weights", "v1", "cpu-basic")
    space.build(wanted, tmp_path / "space")
    assert wanted.variables == {"FKP_MODEL": "me/weights", "FKP_REVISION": "v1"}
    page = settings.from_environment(wanted.variables)
    assert (page.model, page.revision) == ("me/weights", "v1"), "as the page reads them"
    given = header(tmp_path / "space")
    assert given["models"] == ["me/weights"] and given["suggested_hardware"] == "cpu-basic"
    assert "at revision `v1`" in (tmp_path / "space" / "README.md").read_text()
    assert "torch" not in (tmp_path / "space" / "requirements.txt").read_text(), "it runs without"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("demo",), "'demo' is no Hub id of the form OWNER/NAME"),
        (("me/demo", "my weights"), "'my weights' is no Hub id"),
        (("me/demo", None, "v1"), "revision 'v1' goes with a model"),
        (("me/demo", None, None, "abacus"), "there is no hardware 'abacus': choose one of cpu-basic"),
    ],
)
def test_space_that_cannot_be_is_told(arguments: tuple, told: str) -> None:
    with pytest.raises(SpaceError, match=re.escape(told)):
        Space(*arguments)


def test_space_overwrites_nothing(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("")
    with pytest.raises(SpaceError, match="is there already"):
        space.build(Space("me/demo"), tmp_path)
    with pytest.raises(SpaceError, match="is there already"):
        space.build(Space("me/demo"), tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_installed_package_says_that_it_needs_the_source(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="in the folder of the project's source"):
        space.build(Space("me/demo"), tmp_path / "space", checkout=tmp_path)
    assert not (tmp_path / "space").exists()


def test_a_dry_run_shows_names_and_sizes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["space", "me/demo", "--dry-run", "--out", str(tmp_path / "space"), "--model", "me/w"]) == 0
    *rows, total, last = capsys.readouterr().out.splitlines()
    for row in rows:
        size, name = row.split()
        assert (tmp_path / "space" / name).stat().st_size == int(size)
    assert re.fullmatch(rf" *\d+  bytes in {len(rows)} files", total) and last == "variable FKP_MODEL=me/w"
    assert main(["space", "me/demo", "--dry-run", "--out", str(tmp_path / "space")]) == 1
    assert "is there already" in capsys.readouterr().err


# --- The upload ------------------------------------------------------------------------------------------


def uploaded(hub: LoopbackHub, cache: Path, *arguments: str) -> str:
    """What the command prints in a process of its own; the client knows of the Hub by HF_ENDPOINT."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    environment = kept | {
        "HF_ENDPOINT": hub.url, "HF_TOKEN": "hf_secret", "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(HERE.parents[1]),
    }  # fmt: skip
    command = [sys.executable, "-m", "fkp", "space", *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_the_folder_goes_up_as_a_space(tmp_path: Path) -> None:
    with LoopbackHub() as hub:
        printed = uploaded(hub, tmp_path, "someone/demo", "--private", "--model", "someone/weights")
        assert printed.splitlines()[-1] == f"{hub.url}/spaces/someone/demo"
    made = hub.repositories["someone/demo"]
    assert made.private and made.variables == {"FKP_MODEL": "someone/weights"}
    asked = {name: made.made_as[name] for name in ("type", "sdk", "hardware")}
    assert asked == {"type": "space", "sdk": "gradio", "hardware": "zero-a10g"}
    names = space.build(Space("someone/demo", "someone/weights"), tmp_path / "space")
    files = made.commits[-1].files
    assert set(files) == {*names, ".gitattributes"}
    assert all(files[name] == (tmp_path / "space" / name).read_bytes() for name in names)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A Hub that the client of this process, which has read HF_ENDPOINT already, takes for the real one."""
    with LoopbackHub() as hub:
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
        yield hub


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub's own code
def test_a_second_upload_renews_the_package_alone(hub: LoopbackHub, folder: Path) -> None:
    wanted = Space("someone/demo")
    space.push(wanted, folder, token="hf_secret")
    files = hub.repositories["someone/demo"].commits[-1].files
    hub.add("someone/demo", files | {"fkp/old.py": b"", "notes.txt": b"mine"})
    space.push(wanted, folder, token="hf_secret")
    after = hub.repositories["someone/demo"].commits[-1].files
    assert "fkp/old.py" not in after, "left by an older version"
    assert after == files | {"notes.txt": b"mine"}, "what somebody put beside it stays"


@pytest.mark.parametrize(
    ("fault", "kind", "told"),
    [
        ({"status": 402}, SpaceError, "the Hub wants a paid plan for a Space on cpu-basic: choose other"),
        ({"status": 403}, download.WeightsError, "the Hub does not let you write someone/demo"),
        ({}, download.WeightsError, "someone/demo could not be pushed"),
    ],
    ids=["no plan", "no right", "dropped"],
)
def test_a_refusal_is_one_sentence(hub: LoopbackHub, folder: Path, fault: dict, kind: type, told: str):
    wanted = Space("someone/demo", hardware="cpu-basic")
    with hub.fault("POST /api/repos/create", **fault), pytest.raises(kind, match=told) as caught:
        space.push(wanted, folder, token="hf_secret")
    assert "\n" not in str(caught.value)


# --- The start -------------------------------------------------------------------------------------------


def detected(python: Path | str, folder: Path, picture: Path) -> dict:
    """What /detect of the page in a folder answers, started by a Python, without a network."""
    command = [sys.executable, HERE / "alone.py", python, folder, picture]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check(record: dict) -> None:
    assert (record["image"], record["width"], record["height"]) == ("four_faces.jpg", 840, 840)
    assert len(record["faces"]) == 4
    for face in record["faces"]:
        assert len(face["keypoints"]) == len(face["keypoint_scores"]) == 68 and face["score"] > 0.5


@pytest.mark.slow
def test_the_page_starts_from_the_folder_alone(folder: Path, root: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "alone")
    check(detected(sys.executable, tmp_path / "alone", root / "examples" / "four_faces.jpg"))


@pytest.mark.fresh
def test_space_starts_in_an_environment_of_its_requirements(folder: Path, root: Path) -> None:
    # A folder of its own, for pytest would keep these gigabytes.
    with tempfile.TemporaryDirectory() as temporary:
        alone, environment = Path(temporary, "space"), Path(temporary, "environment")
        shutil.copytree(folder, alone)
        subprocess.run([newest_python(), "-m", "venv", environment], check=True)
        python = environment / "bin" / "python"
        install = [python, "-m", "pip", "install", "--quiet", "-r", "requirements.txt"]
        subprocess.run(install, check=True, cwd=alone, timeout=1800)
        check(detected(python, alone, root / "examples" / "four_faces.jpg"))
        asked = "import torch, spaces; print(torch.__version__)"
        done = subprocess.run([python, "-c", asked], capture_output=True, text=True, check=True, timeout=120)
        assert re.match(r"2\.(8|9|10|11)\.", done.stdout), "a version that ZeroGPU runs"


def newest_python() -> str:
    """Python 3.12, which is what the Space asks for, where there is one; else this one."""
    for name in ("python3.12", sys.executable):
        with_venv = [name, "-c", "import venv, ensurepip"]
        if shutil.which(name) and subprocess.run(with_venv, capture_output=True).returncode == 0:
            return name
    pytest.fail("there is no Python that can make environments")


# --- The Static Space ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "static"
    space.build_static("me/faces", folder, weights_hub.BUNDLED)
    return folder


def test_a_static_space_says_how_the_hub_builds_it(static: Path) -> None:
    given = header(static)
    assert (given["sdk"], given["app_build_command"], given["app_file"]) == (
        "static", "npm run build", "dist/index.html",
    )  # fmt: skip
    assert len(given["short_description"]) <= 60, "the Hub takes no longer one"
    assert given["custom_headers"]["cross-origin-opener-policy"] == "same-origin"
    build = json.loads((static / "package.json").read_text())["scripts"]["build"]
    assert "npm --prefix web ci" in build and build.endswith("mv web/dist dist")


def test_a_static_space_holds_what_the_browser_edition_is_built_from(static: Path, root: Path) -> None:
    files = {path.relative_to(static).as_posix() for path in static.rglob("*") if path.is_file()}
    sources = {path.relative_to(root).as_posix() for path in (root / "web" / "src").iterdir()}
    assert sources | {"web/package-lock.json", "web/index.html", "web/vite.config.js", "LICENSE"} <= files
    assert {"fkp/weights/config.json", "fkp/weights/onnx/keypoints.int8.onnx"} <= files
    assert not [name for name in files if "node_modules" in name or name.startswith(("web/dist", "app.py"))]
    page = "".join((root / "web" / name).read_text() for name in ("index.html", "src/page.ts"))
    shared = set(re.findall(r'"(?:\.\./)+(fkp/[^"?]*)', page)) | {"fkp/demo/static/live.html"}
    assert len(shared) == 5 and shared <= files


def test_static_space_that_cannot_be_is_told(tmp_path: Path) -> None:
    with pytest.raises(SpaceError, match="'faces' is no Hub id"):
        space.build_static("faces", tmp_path / "a", weights_hub.BUNDLED)
    with pytest.raises(SpaceError, match="has no config.json"):
        space.build_static("me/faces", tmp_path / "b", tmp_path)
    with pytest.raises(SpaceError, match="a Static Space needs the folder web/"):
        space.build_static("me/faces", tmp_path / "c", weights_hub.BUNDLED, checkout=tmp_path)


@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")  # of huggingface_hub's own code
def test_a_static_space_goes_up(hub: LoopbackHub, static: Path) -> None:
    address = space.push_static("someone/faces", static, private=True, token="hf_secret")
    made = hub.repositories["someone/faces"]
    assert address.endswith("/spaces/someone/faces") and made.private and made.made_as["sdk"] == "static"
    assert "web/src/index.ts" in made.commits[-1].files
