"""The README tells the truth: its error example is what `berth` prints, its library example is valid code."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[3]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BERTH = Path(sys.executable).with_name("berth")
MISTAKEN = """\
apiVersion: modelberth.dev/v1alpha1
kind: Stack
metadata:
  name: harbor
platform:
  kind: rhoai
  version: 3.0
pools:
  - name: l4
    gpu: NVIDIA-L4
    coutn: 1
models:
  - name: harbor
    variants:
      - {name: bf16, weights: "s3://models/harbor/bf16/", pool: l4}
storage: {s3: {bucket: models}}
"""


def block(start: str) -> str:
    """The fenced block of the README that begins with `start`."""
    return next(text for text in re.findall(r"```\w*\n(.*?)```", README, re.S) if text.startswith(start))


def test_the_error_example(tmp_path):
    (tmp_path / "berth.yaml").write_text(MISTAKEN)
    done = subprocess.run([BERTH, "up"], cwd=tmp_path, capture_output=True, text=True, check=False)
    shown = block("$ berth up\n").removeprefix("$ berth up\n")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", shown)


def test_the_library_example_names_what_is_there():
    code = ast.parse(block("from pathlib import Path"))
    imports = [node for node in code.body if isinstance(node, ast.ImportFrom)]
    assert len(imports) == 3
    for node in imports:
        module = importlib.import_module(node.module)
        assert all(hasattr(module, name.name) for name in node.names)


def test_every_verb_is_in_the_readme_and_every_verb_of_the_readme_is_there():
    from modelberth.cli.main import VERBS

    table = {row.split("`")[1].split()[1] for row in README.splitlines() if re.match(r"\| `berth [a-z]", row)}
    assert table == set(VERBS)


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_links_lead_somewhere(link):
    assert (ROOT / link).exists()
