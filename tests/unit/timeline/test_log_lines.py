"""Lines of vLLM's log taken apart."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelberth.base.text import printable
from modelberth.timeline.log_lines import MAX_LINE, LogLine, parse_line

STAMP = "INFO 11-23 13:50:46 [core.py:133]"

LINES = {
    "engine process": (f"(EngineCore pid=7546) {STAMP} Initializing a V1", "INFO", "Initializing a V1"),
    "worker of several ranks": (f"(Worker_TP0_EP0 pid=12) {STAMP} Starting to load", "INFO", "Starting to load"),
    "no process": (f"{STAMP} Starting to load", "INFO", "Starting to load"),
    "warning": ("(A pid=1) WARNING 11-23 13:50:39 [vllm.py:1703] Enforce eager set", "WARNING", "Enforce eager set"),
    "indented traceback": ('(A pid=1) ERROR 11-23 13:51:30 [a.py:9]   File "x"', "ERROR", '  File "x"'),
    "empty message": (f"(APIServer pid=7519) {STAMP} ", "INFO", ""),
    "server": ("INFO:     Application startup complete.", "INFO", "Application startup complete."),
    "plain": ("Loading safetensors checkpoint shards: 100%", "", "Loading safetensors checkpoint shards: 100%"),
    "plain of a process": ("(EngineCore pid=7546) ValueError: no", "", "ValueError: no"),
    "only one prefix goes": ("(A pid=1) (B pid=2) text", "", "(B pid=2) text"),
    "no prefix": ("(1.0/7.71) GiB", "", "(1.0/7.71) GiB"),
    "colours": (f"\x1b[36m(A pid=1)\x1b[0m {STAMP} message\x1b[0m", "INFO", "message"),
    "windows line end": (f"{STAMP} message\r\n", "INFO", "message"),
    "level inside a line": (f"prompt: {STAMP} message", "", f"prompt: {STAMP} message"),
    "quoted prefix": ("(so it seems) Starting to load model", "", "(so it seems) Starting to load model"),
    "worker of Ray": ("(RayWorkerWrapper pid=12, ip=10.0.0.1) text", "", "text"),
    "empty": ("", "", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", LINES.values(), ids=LINES)
def test_a_line(case: tuple[str, str, str]):
    line, level, message = case
    assert parse_line(line) == LogLine(level, message)


def test_of_a_very_long_line_only_the_beginning_is_looked_at():
    assert parse_line("x" * (MAX_LINE + 10)).message == "x" * MAX_LINE


pieces = st.sampled_from(
    ["(", ")", "pid=1", " ", STAMP, "INFO:", "[", "]", "ERROR", "11-23 13:50:46", "\x1b[", "\n", "\0"]
)


@given(st.text(max_size=30) | st.lists(pieces | st.text(max_size=3), max_size=12).map("".join))
@example("(" * MAX_LINE)
@example("A" * MAX_LINE)
@example("A\x1fINFO 11-23 13:50:46 [core.py:133]")
def test_any_text_is_a_line_that_is_safe_to_show(text: str):
    line = parse_line(text)
    assert line.level in printable(text)  # a control character inside a word is no part of it
    assert len(line.message) <= len(text)
    assert "\x1b" not in line.message
