"""A Hub on loopback, empty for each test, a process that asks it, and weights to be fetched or pushed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fkp import hub
from fkp.config import DetectorConfig, KeypointConfig
from fkp.networks import face_net, keypoint_net
from tests.loopback_hub import Client, LoopbackHub, User

NAME = "someone/faces"

KEYPOINTS = KeypointConfig(
    crop_size=64, widths=(4, 4, 4, 4, 8), depths=(1, 1, 1, 1), top_down_width=4
)
FACES = DetectorConfig()

SOON = 12
"""huggingface_hub itself would try for 23 seconds, fkp gives up before 3; the rest is for a busy machine."""

PRELUDE = """
import time, warnings
from fkp import hub
from fkp.hub import download, publish

def find(source, **options):
    began = time.monotonic()
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        try:
            print(hub.find(source, **options).name)
        except hub.WeightsError as error:
            print(error)
    for warning in warned:
        print("warning:", warning.message)
    if time.monotonic() - began > %d:
        print("too late")

def tell(ask, *arguments, **options):
    try:
        print(ask(*arguments, **options))
    except hub.WeightsError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("weights")
    networks = keypoint_net.build(KEYPOINTS), FACES, face_net.DetectorNetwork(FACES)
    hub.save(folder, hub.Weights.of(*networks, metrics={"a": 1}), graphs=False)
    return folder


@pytest.fixture(scope="module")
def files(weights: Path) -> dict[str, bytes]:
    return {name: (weights / name).read_bytes() for name in hub.files(weights)}


@pytest.fixture(scope="session")
def running_hub() -> Iterator[LoopbackHub]:
    with LoopbackHub() as server:
        yield server


@pytest.fixture
def server(running_hub: LoopbackHub) -> LoopbackHub:
    """A Hub without models, requests and faults."""
    for each in ("repositories", "requests", "ranges", "faults", "large"):
        getattr(running_hub, each).clear()
    running_hub.tokens = {"hf_secret": User()}
    return running_hub


@pytest.fixture(scope="session")
def client(running_hub: LoopbackHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    with Client(running_hub.url, tmp_path_factory.mktemp("home")) as client:
        client(PRELUDE % SOON)
        yield client


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def find(client: Client, cache: Path, source: str = NAME, **options: object) -> list[str]:
    """What `hub.find` gives, or why not; and warnings, one a line."""
    options = {"cache_dir": str(cache)} | options
    return client(f"find({source!r}, **{options!r})")
