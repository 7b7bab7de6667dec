"""Shared fixtures. Tests run on the CPU with fixed seeds and reach no host but loopback."""

import os
from pathlib import Path

# Spinning OpenMP threads make torch many times slower on shared cores; must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

import numpy as np
import pytest
import torch

from fkp import hub
from tests import tiny

ROOT = Path(__file__).resolve().parents[1]


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """The tests of every day share the cores; the others watch the clock, and run one at a time."""
    if config.option.markexpr != "not slow and not browser":
        return 0
    config.option.dist = "loadfile"  # what a module has made is made once
    return os.cpu_count() or 1


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("fresh") and os.environ.get("FKP_FRESH") != "1":
        pytest.skip("makes a whole new environment, several gigabytes: set FKP_FRESH=1")


@pytest.fixture(autouse=True)
def seeded() -> None:
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def root() -> Path:
    """The project's top folder."""
    return ROOT


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small untrained weights with graphs of both networks, which take seconds: to be copied, not changed."""
    pytest.importorskip("onnxscript", reason="needs the extra fkp[export]")
    # Not for several workers of pytest-xdist together: a process runs no 8-bit graphs that another has made.
    folder = tmp_path_factory.mktemp("tiny")
    hub.save(folder, tiny.weights())
    return folder


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The research data, which is not part of the project: FKP_DATA or ../shared/data."""
    folder = Path(os.environ.get("FKP_DATA", ROOT.parent / "shared" / "data"))
    if not (folder / "face_boxes.csv").is_file():
        pytest.skip("needs the research data (YTF, 300-W): set FKP_DATA to its folder")
    return folder
