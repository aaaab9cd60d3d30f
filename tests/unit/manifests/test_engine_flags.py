"""What a release does not take is said before anything is rendered."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelberth.base.errors import UsageError
from modelberth.catalog import flags, load
from modelberth.manifests.engine_args import Argument, engine_arguments
from modelberth.manifests.engine_flags import flag_problem, flag_problems
from modelberth.spec.reading import read_stack
from modelberth.spec.services import services
from stacks import stack_data, tree_of

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*/berth.yaml"))
RELEASES = load("vllm_flags")["releases"]


@pytest.mark.parametrize(
    ("flag", "value", "release", "says"),
    [
        ("max-model-length", "1", "0.9.1", "is no flag of vLLM 0.9.1; did you mean --max-model-len?"),
        ("frobnicate", "1", "0.9.1", "is no flag of vLLM 0.9.1; remove it"),
        ("max-model", "1", "0.9.1", "which takes it for --max-model-len: write that in full"),
        ("tp", "2", "0.9.1", "its short form has one dash; write --tensor-parallel-size"),
        ("O3", None, "0.9.1", "its short form has one dash; write --compilation-config"),
        ("enable-log-requests", None, "0.9.1", "is in vLLM since 0.10.1, and not in 0.9.1: remove it"),
        ("disable-log-requests", None, "0.24.0", "until 0.16.0, and not in 0.24.0: use --no-enable-log-requests"),
        ("guided-decoding-backend", "auto", "0.13.0", "use --structured-outputs-config.backend"),
        ("task", "embed", "0.13.0", "until 0.12.0, and not in 0.13.0: use --runner"),
        ("speculative-model", "x", "0.9.1", "use --speculative-config"),
        ("swap-space", "4", "0.18.0", "until 0.17.1, and not in 0.18.0: remove it"),
        ("enable-auto-tool-choice", "yes", "0.9.1", "stands alone in vLLM 0.9.1"),
        ("enforce-eager", "true", "0.9.1", "stands alone"),
        ("tool-call-parser", None, "0.9.1", "needs a value in vLLM 0.9.1"),
        ("no-enforce-eager", None, "0.8.5", "--enforce-eager has no opposite; remove it"),
        ("no-max-model-len", None, "0.9.1", "--max-model-len has no opposite; remove it"),
        ("disable-prefix-caching", None, "0.24.0", "write --no-enable-prefix-caching"),
        ("kv-cache-dtype", "fp8_e4m4", "0.9.1", "has auto, fp8, fp8_e4m3, fp8_e5m2; did you mean fp8_e4m3?"),
        ("kv-cache-dtype", "bfloat16", "0.9.1", "has auto, fp8, fp8_e4m3, fp8_e5m2"),
        ("scheduling-policy", "\x1b[2Jlifo", "0.9.1", "--scheduling-policy=lifo: vLLM 0.9.1 has fcfs, priority"),
        ("compilation-config.level", "3", "0.8.5", "reads no parts of a flag; write --compilation-config with JSON"),
        ("headless", None, "0.9.1", "a flag of `vllm serve` alone in vLLM 0.9.1"),
    ],
)
def test_what_is_not_taken(flag: str, value: str | None, release: str, says: str):
    (problem,) = flag_problems([Argument(flag, value)], release)
    assert says in problem
    assert "\x1b" not in problem


@pytest.mark.parametrize(
    ("flag", "value", "release"),
    [
        ("max-model-len", "1", "0.9.1"),
        ("max_model_len", "1", "0.9.1"),
        ("no-enable-prefix-caching", None, "0.9.1"),
        ("enforce-eager", None, "0.9.1"),
        ("enable-chunked-prefill", "false", "0.8.4"),
        ("disable-log-requests", None, "0.33.0"),
        ("kv-cache-dtype", "$(KV_CACHE_DTYPE)", "0.9.1"),
        ("kv-cache-dtype", "{{.Annotations.dtype}}", "0.9.1"),
        ("compilation-config.level", "3", "0.9.1"),
        ("hf-token", None, "0.9.1"),
        ("quantization", "somebodys-plugin", "0.24.0"),
        ("api-server-count", "2", "0.18.0"),
    ],
)
def test_what_is_taken(flag: str, value: str | None, release: str):
    assert flag_problems([Argument(flag, value)], release) == ()


def test_flags_of_the_subcommand_are_taken_by_it():
    assert flag_problems([Argument("headless")], "0.9.1", serve=True) == ()
    assert flag_problem("headless", None, "0.9.1") == ""


def test_a_flag_that_stands_twice_loses_the_first_and_that_is_said():
    twice = [Argument("ignore-patterns", "a"), Argument("ignore-patterns", "b"), Argument("port", "1")]
    (problem,) = flag_problems(twice, "0.9.1")
    assert "--ignore-patterns stands 2 times: vLLM 0.9.1 takes the last one alone" in problem
    (problem,) = flag_problems([Argument("enforce-eager"), Argument("no-enforce-eager")], "0.9.1")
    assert "--enforce-eager stands 2 times" in problem


def test_parts_of_a_flag_and_flags_that_gather_may_stand_often():
    parts = [Argument("speculative-config.model", "x"), Argument("speculative-config.num_speculative_tokens", "2")]
    gathered = [Argument("middleware", "a"), Argument("middleware", "b")]
    assert flag_problems([*parts, *gathered], "0.11.2") == ()


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_the_examples_are_taken_by_every_release(path: Path):
    for service in services(read_stack(path.read_bytes(), str(path))):
        arguments = engine_arguments(service)
        for release in RELEASES:
            assert flag_problems((*arguments.runtime, *arguments.service), release) == (), release


def test_a_stack_is_refused_with_every_flag_at_once():
    data = stack_data(platform={"kind": "rhoai", "version": "3.0"})
    data["models"][0]["variants"][0]["engineArgs"] = {"max-model-length": 1, "enable-log-requests": True}
    with pytest.raises(UsageError) as caught:
        tree_of(data)
    assert caught.value.what == "vLLM 0.9.1 does not take these engine arguments"
    assert len(caught.value.why.splitlines()) == 2
    data["platform"]["vllm"] = "0.11.2"
    data["models"][0]["variants"][0]["engineArgs"].pop("max-model-length")
    tree_of(data)


@given(st.sampled_from(RELEASES), st.data())
def test_every_flag_of_a_release_is_taken_as_it_is(release: str, data: st.DataObject):
    name = data.draw(st.sampled_from(flags.known(release)))
    found = flags.flag(name, release)
    assert found is not None
    values: list[str | None] = [None] if found.is_switch else [*found.choices] or ["1"]
    assert flag_problems([Argument(name, data.draw(st.sampled_from(values)))], release, serve=True) == ()


@given(st.text(max_size=40), st.none() | st.text(max_size=10), st.sampled_from(RELEASES))
def test_any_flag_is_taken_or_refused_in_one_line(name: str, value: str | None, release: str):
    problem = flag_problem(name, value, release)
    assert len(problem.splitlines()) <= 1
