"""Start-up stages: told from real logs, and from nothing that only looks like one."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelberth.timeline.log_lines import parse_line
from modelberth.timeline.stages import READY, StageTime, StartUp

EAGER = ["engine", "weights", "profile", "kv-cache", "server"]
COMPILED = ["engine", "weights", "profile", "compile", "kv-cache", "server"]


def begun(start: StartUp, lines: Iterable[str]) -> list[str]:
    """The stages that begin with these lines; line n comes at second n."""
    found = (start.feed(parse_line(line), float(second)) for second, line in enumerate(lines, start=1))
    return [stage for stage in found if stage]


@pytest.fixture(params=[("bf16-eager", EAGER), ("w4a16-compiled", COMPILED)], ids=lambda case: case[0])
def real(request: pytest.FixtureRequest, data_folder: Path) -> tuple[list[str], list[str]]:
    """The lines of a real log, and its stages."""
    name, stages = request.param
    return (data_folder / "engine-logs" / f"{name}.log").read_text().splitlines(), stages


def test_the_stages_of_a_real_start(real: tuple[list[str], list[str]]):
    lines, stages = real
    start = StartUp(0.0)
    assert begun(start, lines) == stages
    start.ready(1000.0)
    assert [item.stage for item in start.ended] == ["process", *stages]
    assert start.stage == READY
    assert start.kv_cache_tokens == 699_008


def test_the_times_of_a_real_start_leave_nothing_out(real: tuple[list[str], list[str]]):
    lines, _ = real
    start = StartUp(0.0)
    begun(start, lines)
    start.ready(1000.0)
    assert sum(item.seconds for item in start.ended) == 1000
    assert all(item.seconds > 0 for item in start.ended)


def test_a_second_worker_changes_nothing(real: tuple[list[str], list[str]]):
    """Every line comes twice, from two workers, and once more after the start."""
    lines, stages = real
    start = StartUp(0.0)
    assert begun(start, [line for line in lines for _ in range(2)]) == stages
    assert begun(start, lines) == []


def test_a_log_that_quotes_another_log_changes_nothing(real: tuple[list[str], list[str]]):
    lines, _ = real
    start = StartUp(0.0)
    prefix = "(APIServer pid=1) INFO 11-23 13:50:58 [logger.py:40] Received request: prompt: "
    assert begun(start, [prefix + line for line in lines]) == []
    assert begun(start, [prefix + parse_line(line).message for line in lines]) == []
    assert (start.stage, start.ended, start.kv_cache_tokens) == ("process", (), None)


def line_of(message: str) -> str:
    return f"(EngineCore pid=1) INFO 11-23 13:50:46 [core.py:1] {message}"


def test_stages_end_where_the_next_begins():
    start = StartUp(10.0)
    assert start.feed(parse_line(line_of("Initializing a V1 LLM engine (v0.32.0)")), 12.5) == "engine"
    assert start.feed(parse_line(line_of("something else")), 13.0) is None
    assert start.feed(parse_line(line_of("Starting to load model /mnt/models...")), 15.0) == "weights"
    assert start.ended == (StageTime("process", 2.5), StageTime("engine", 2.5))
    start.ready(16.0)
    assert start.ended[2:] == (StageTime("weights", 1.0),)


def test_stages_never_go_back():
    lines = ["init engine (profile, create kv cache) took 3 s", "Starting to load model x", "Loading weights took 1"]
    start = StartUp(0.0)
    assert begun(start, map(line_of, lines)) == ["server"]
    start.ready(9.0)
    start.ready(10.0)
    assert begun(start, [line_of("init engine (profile)")]) == []
    assert start.ended == (StageTime("process", 1.0), StageTime("server", 8.0))


@pytest.mark.parametrize(
    ("message", "tokens"),
    [
        ("GPU KV cache size: 39,312 tokens", 39_312),
        ("GPU KV cache size: 39,312 tokens, Maximum concurrency for 32,768 tokens per request: 1.20x", 39_312),
        ("CPU KV cache size: 512 tokens", 512),
        ("CPU KV cache size: unknown", None),
        ("CPU KV cache usage: 512 tokens", None),
        ("CPU KV cache size: " + "9" * 5000 + " tokens", None),
        ("Available: CPU KV cache size: 512 tokens", None),
    ],
)
def test_tokens_of_the_cache(message: str, tokens: int | None):
    start = StartUp(0.0)
    begun(start, [line_of(message)])
    assert start.kv_cache_tokens == tokens


marks = st.sampled_from(
    ["CPU KV cache size: ", "GPU KV cache size: ", "Starting to load model", "9,,", "9" * 40, " tokens"]
)


@given(st.lists(st.text(max_size=20) | st.lists(marks | st.text(max_size=3), max_size=4).map("".join), max_size=5))
@example(["CPU KV cache size: " + "9" * 8000 + " tokens"])
@example(["CPU KV cache size: ,,, tokens"])
def test_any_text_raises_nothing_and_time_never_runs_back(lines: list[str]):
    start = StartUp(0.0)
    stages = begun(start, [*lines, *map(line_of, lines)])
    assert len(set(stages)) == len(stages)
    assert all(item.seconds > 0 for item in start.ended)
