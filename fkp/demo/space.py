"""A Hugging Face Space that serves the page: its folder, made from a checkout of fkp, and its upload.

The folder holds `app.py` and all that it needs, with a README.md whose header tells the Hub what to run. The
project's own README.md has no such header: it is for the code host.
"""

from __future__ import annotations

import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import huggingface_hub
from huggingface_hub import errors

from fkp import __version__, hub
from fkp.demo import about, settings
from fkp.hub import download, publish
from fkp.hub.weights import GRAPHS

CHECKOUT = Path(__file__).parents[2]
"""Where app.py, the examples and the plots are; an installed package does not have them beside it."""

HARDWARE = tuple(each.value for each in huggingface_hub.SpaceHardware)
ZERO_GPU = "zero-a10g"
"""The Hub's name for a GPU that is lent for the time of a call (ZeroGPU), whatever GPU that is by now."""

# What pip would choose otherwise runs on a CPU, but not on ZeroGPU, which knows torch up to 2.11.0 only:
# https://huggingface.co/docs/hub/spaces-zerogpu
_INSTEAD = {
    "torch": "torch>=2.8,<=2.11.0",
    "gradio": "gradio=={gradio}",
}
_BESIDES = ("spaces",)

_README = """\
Finds every face in a photo and places 68 points on it: jaw, eyebrows, nose, eyes and lips, each with a
confidence. {weights}

Photos are worked on by this Space and go nowhere else; the page's About tab says when they are deleted. The
examples are in the public domain, see [examples/SOURCES.md](examples/SOURCES.md).

## Settings

Variables of the Space (Settings → Variables and secrets), all of them optional:

```
{settings}
```

Made by `fkp space {repo_id}`, fkp {version}.
"""


_STATIC = (
    "LICENSE", "web/*.*", "web/src/*", "web/public/*", "fkp/demo/static/page.css", "fkp/demo/static/live.css",
    "fkp/demo/static/live.html", "fkp/demo/static/picture.js", "fkp/demo/static/upload.js",
    "examples/*.jpg", "examples/SOURCES.md",
)  # fmt: skip
"""What the browser edition is built from, besides weights."""

_STATIC_README = """\
Finds every face in a photo and places 68 points on it: jaw, eyebrows, nose, eyes and lips, each with a
confidence. All of it runs in the visitor's browser: the photo never leaves the device, the page forbids
itself every connection once it is loaded, and works offline after the first visit.

The examples are in the public domain, see [examples/SOURCES.md](examples/SOURCES.md).

Made by `fkp space {repo_id} --static`, fkp {version}.
"""


class SpaceError(RuntimeError):
    """A Space that cannot be: one sentence, and what to do."""


@dataclass(frozen=True)
class Space:
    """What a Space is to be: its Hub id "owner/name", and what it serves.

    `model` is the Hub id of the weights, at `revision` if given; None serves those of the folder. `hardware`,
    one of `HARDWARE`, is what it is made with and what the Hub suggests to whoever duplicates it.
    Raises SpaceError for an id of another form.
    """

    repo_id: str
    model: str | None = None
    revision: str | None = None
    hardware: str = ZERO_GPU

    def __post_init__(self) -> None:
        for given in filter(None, (self.repo_id, self.model)):
            if not download.is_id(given):
                raise SpaceError(f"{given!r} is no Hub id of the form OWNER/NAME")
        if self.revision and not self.model:
            raise SpaceError(f"revision {self.revision!r} goes with a model, and none is named")
        if self.hardware not in HARDWARE:
            raise SpaceError(f"there is no hardware {self.hardware!r}: choose one of {', '.join(HARDWARE)}")

    @property
    def variables(self) -> dict[str, str]:
        """What the page is told of it, as `settings` reads it."""
        wanted = {"model": self.model, "revision": self.revision}
        return {settings.variable(name): value for name, value in wanted.items() if value}


def build(space: Space, folder: str | Path, checkout: Path = CHECKOUT) -> dict[str, int]:
    """Write the folder, which is made if need be; the sizes in bytes of its files by their names.

    Raises SpaceError when the folder holds something already, or where there is no checkout.
    """
    folder = _empty(Path(folder))
    for path in _files(checkout):
        _copy(checkout / path, folder / path)
    requirements = _requirements((checkout / "requirements.txt").read_text(encoding="utf-8"), space.hardware)
    (folder / "requirements.txt").write_text(requirements, encoding="utf-8")
    (folder / "README.md").write_text(readme(space), encoding="utf-8")
    return _sizes(folder)


def push(space: Space, folder: str | Path, *, private: bool = False, token: str | None = None) -> str:
    """Upload a folder that `build` made as one commit to the Space, made if need be; the Space's address.

    What an older fkp left in the Space's fkp/ goes; other files there stay. A model becomes the Space's
    variables. `token` is that of `hf auth login` if None.
    Raises download.WeightsError with one sentence when the Hub refuses or cannot be reached.
    """
    publish.check_push(space.repo_id, token)
    try:
        api = huggingface_hub.HfApi(token=token)
        made = api.create_repo(
            space.repo_id,
            repo_type="space",
            space_sdk="gradio",
            space_hardware=huggingface_hub.SpaceHardware(space.hardware),
            private=private,
            exist_ok=True,
        )
        for name, value in space.variables.items():
            api.add_space_variable(space.repo_id, name, value)
        api.upload_folder(
            repo_id=space.repo_id,
            repo_type="space",
            folder_path=folder,
            commit_message=f"Upload the page of fkp {__version__}",
            delete_patterns="fkp/*",
        )
    except (errors.HTTPError, OSError, ValueError, RuntimeError) as error:
        if isinstance(error, errors.HfHubHTTPError) and error.response.status_code == 402:
            what = f"the Hub wants a paid plan for a Space on {space.hardware}: choose other hardware"
            raise SpaceError(what) from error
        raise publish.not_pushed(space.repo_id, error) from error
    return str(made)


def build_static(
    repo_id: str, folder: str | Path, weights: Path, checkout: Path = CHECKOUT
) -> dict[str, int]:
    """Write the folder of a Static Space: the browser edition, which the Hub builds; else as `build`.

    `weights` is the folder whose config.json and onnx/ are served.
    """
    if not download.is_id(repo_id):
        raise SpaceError(f"{repo_id!r} is no Hub id of the form OWNER/NAME")
    folder = _empty(Path(folder))
    if not (checkout / "web" / "package.json").is_file():
        raise SpaceError(
            "a Static Space needs the folder web/, which the installed package does not have: run "
            "'python -m fkp space …' in the folder of the project's source"
        )
    for pattern in _STATIC:
        for path in sorted(checkout.glob(pattern)):
            if path.is_file():
                _copy(path, folder / path.relative_to(checkout))
    for name in ("config.json", *(name for graphs in GRAPHS.values() for name in graphs.values())):
        if not (weights / name).is_file():
            raise SpaceError(f"{weights} has no {name}, which a browser needs")
        _copy(weights / name, folder / "fkp" / "weights" / name)
    # Whatever NODE_ENV says: npm would leave out what builds the page.
    install = "npm --prefix web ci --include=dev"
    build = f"{install} && npm --prefix web run build && rm -rf dist && mv web/dist dist"
    package = {"private": True, "scripts": {"build": build}}
    (folder / "package.json").write_text(json.dumps(package, indent=2) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_static_readme(repo_id), encoding="utf-8")
    return _sizes(folder)


def push_static(repo_id: str, folder: str | Path, *, private: bool = False, token: str | None = None) -> str:
    """As `push`, a folder that `build_static` made."""
    publish.check_push(repo_id, token)
    try:
        api = huggingface_hub.HfApi(token=token)
        made = api.create_repo(repo_id, repo_type="space", space_sdk="static", private=private, exist_ok=True)
        api.upload_folder(
            repo_id=repo_id,
            repo_type="space",
            folder_path=folder,
            commit_message=f"Upload the browser edition of fkp {__version__}",
            delete_patterns="web/*",
        )
    except (errors.HTTPError, OSError, ValueError, RuntimeError) as error:
        raise publish.not_pushed(repo_id, error) from error
    return str(made)


def _static_readme(repo_id: str) -> str:
    header = huggingface_hub.SpaceCardData(
        title="Face keypoints in the browser",
        emoji="🙂",
        colorFrom="blue",
        colorTo="gray",
        sdk="static",
        app_build_command="npm run build",
        app_file="dist/index.html",
        short_description="68 keypoints on every face, the photo stays with you",
        license="mit",
        tags=["face-landmarks", "keypoint-detection", "onnxruntime-web"],
        # Shared memory, and so threads: https://huggingface.co/docs/hub/spaces-config-reference
        custom_headers={
            "cross-origin-embedder-policy": "require-corp",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "cross-origin",
        },
    )
    text = _STATIC_README.format(repo_id=repo_id, version=__version__)
    return f"---\n{header.to_yaml()}\n---\n\n# Face keypoints in the browser\n\n{text}"


def readme(space: Space) -> str:
    """The Space's README.md: the header that the Hub reads, and a page for people."""
    header = huggingface_hub.SpaceCardData(
        title="Face keypoints",
        emoji="🙂",
        colorFrom="blue",
        colorTo="gray",
        sdk="gradio",
        sdk_version=metadata.version("gradio"),
        # The default, 3.10, is too old for fkp and for the newest numpy and pandas.
        python_version="3.12",
        app_file="app.py",
        models=[space.model] if space.model else None,
        short_description="68 keypoints on every face in a photo",
        license="mit",
        tags=["face-landmarks", "keypoint-detection"],
        suggested_hardware=space.hardware,
        startup_duration_timeout="10m",  # a start takes seconds, but may fetch weights
    )
    metrics = json.loads((hub.BUNDLED / hub.METRICS).read_text(encoding="utf-8"))
    weights = "\n\n".join(["The weights are part of this Space.", *about.learnt_from(metrics)])
    if space.model:
        at = f" at revision `{space.revision}`" if space.revision else ""
        weights = f"The weights are those of [{space.model}](https://huggingface.co/{space.model}){at}."
    text = _README.format(
        weights=weights,
        settings="\n".join(line.strip() for line in settings.help_text().splitlines()),
        repo_id=space.repo_id,
        version=__version__,
    )
    return f"---\n{header.to_yaml()}\n---\n\n# Face keypoints\n\n{text}"


def _empty(folder: Path) -> Path:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SpaceError(f"{folder} is there already, and not an empty folder: name another one")
    return folder


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _sizes(folder: Path) -> dict[str, int]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in paths}


def _files(checkout: Path) -> Iterator[Path]:
    """What is taken over as it is, by paths within the checkout: page, package, pictures and plots."""
    try:
        project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
        package_data = project["tool"]["setuptools"]["package-data"]["fkp"]
        patterns = ["app.py", "LICENSE", "fkp/**/*.py", *(f"fkp/{pattern}" for pattern in package_data)]
        patterns += ["examples/*.jpg", "examples/*.mp4", "examples/SOURCES.md"]
        patterns += [f"docs/{name}" for name in about.PLOTS]
        if not (checkout / "app.py").is_file():
            raise FileNotFoundError
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        raise SpaceError(
            "a Space needs app.py and the examples, which the installed package does not have: run "
            "'python -m fkp space …' in the folder of the project's source"
        ) from None
    for pattern in patterns:
        for path in sorted(checkout.glob(pattern)):
            if path.is_file():
                yield path.relative_to(checkout)


def _requirements(project: str, hardware: str) -> str:
    """A Space's requirements.txt: the project's without what trains, with the versions that run there.

    On a CPU torch is not needed.
    """
    without = {"torchvision", "matplotlib"} | ({"torch"} if hardware.startswith("cpu") else set())
    lines = []
    for line in project.splitlines():
        name = re.match(r"[\w-]*", line)
        if name and name[0] and name[0] not in without:
            lines.append(_INSTEAD.get(name[0], line).format(gradio=metadata.version("gradio")))
    return "\n".join(["# Made by `fkp space`.", *lines, *_BESIDES]) + "\n"
