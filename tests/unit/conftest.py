"""Where the tests find what stands beside them: the data of the tests and the example of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

# No test here may fail because the machine is busy.
settings.register_profile("unit", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("unit")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """Real configs and logs, each folder with a README that says where they are from."""
    return ROOT / "tests" / "data"


@pytest.fixture(scope="session")
def harbor() -> Path:
    """The example: its berth.yaml, and its weights in BF16 (two files and an index) and in W4A16 (one file)."""
    return ROOT / "examples" / "harbor"
