"""Fixtures of the tests of training."""

from pathlib import Path

import pytest

from tests.training import painted_faces


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder in small, to be read only."""
    folder = tmp_path_factory.mktemp("data")
    painted_faces.write(folder)
    return folder
