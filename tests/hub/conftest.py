"""A Hub on loopback, empty for each test, a process that asks it, and weights to be fetched or pushed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fkp import detector, hub
from fkp.networks import keypoint_net
from tests.hub.test_weights import FACES, KEYPOINTS
from tests.loopback_hub import Client, LoopbackHub, User

NAME = "someone/faces"

SOON = 12
"""huggingface_hub itself would try for 23 seconds, fkp gives up before 3; the rest is for a busy machine."""

PRELUDE = """
import time, warnings
from fkp import hub
from fkp.hub import download

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
    hub.save(folder, keypoint_net.build(KEYPOINTS), detector.Detector(FACES), {"a": 1}, graphs=False)
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
