"""A line's message comes out of every prefix that collectors, loggers and issue threads put before it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelberth.timeline.log_entry import entry

TEXT = "CUDA out of memory. Tried to allocate 2.00 GiB"


@pytest.mark.parametrize(
    ("line", "level"),
    [
        (f"ERROR 04-09 12:00:00 [core.py:396] {TEXT}", "error"),
        (f"ERROR 04-09 12:00:00 core.py:396] {TEXT}", "error"),
        (f"INFO 2025-04-09 12:00:00,123 [vllm/v1/core.py:396] {TEXT}", "info"),
        (f"(EngineCore_DP0 pid=272) ERROR 10-01 12:00:00 [core.py:708] {TEXT}", "error"),
        (f"(VllmWorkerProcess pid=7) WARNING 10-01 12:00:00 [core.py:708] {TEXT}", "warning"),
        (f"(RayWorkerWrapper pid=123, ip=10.0.0.2) ERROR 04-09 12:00:00 worker.py:401] {TEXT}", "error"),
        (f"\x1b[1;36m(EngineCore pid=2)\x1b[0;0m ERROR 10-01 12:00:00 [core.py:708] {TEXT}", "error"),
        (f"[1;36m(EngineCore pid=2)[0;0m ERROR 10-01 12:00:00 [core.py:708] {TEXT}", "error"),
        (f"\\x1b[36m(EngineCore pid=2)\\x1b[0m {TEXT}", ""),
        (f"[rank0]: {TEXT}", ""),
        (f"[rank3]:[E1213 12:00:00.123456789 ProcessGroupNCCL.cpp:629] {TEXT}", "error"),
        (f"E0409 12:00:00.123456       1 controller.go:12] {TEXT}", "error"),
        (f"gpu-1:12:345 [0] NCCL WARN {TEXT}", "warning"),
        (f"gpu-1:12:345 [0] transport/shm.cc:12 NCCL INFO {TEXT}", "info"),
        (f"[2025-11-01 12:00:00] gpu-1:12:345 [0] misc/shm.cc:12 NCCL WARN {TEXT}", "warning"),
        (f"2025-01-01T00:00:00.123456789Z {TEXT}", ""),
        (f"2025-01-01T00:00:00.123456789Z stderr F {TEXT}", ""),
        (f"[pod/mistral-predictor-7d9/kserve-container] {TEXT}", ""),
        (f"[pod/mistral-predictor-7d9/kserve-container] 2025-01-01T00:00:00Z INFO:     {TEXT}", "info"),
        (f"mistral-predictor-7d9 kserve-container {TEXT}", ""),
        (f"vllm-1  | {TEXT}", ""),
        (f"Jan 12 12:00:00 node-1 podman[123]: {TEXT}", ""),
        (f"[1,0]<stderr>:{TEXT}", ""),
        (f"INFO:     {TEXT}", "info"),
        (f"ERROR:root:{TEXT}", "error"),
        (f"2024-05-01 12:00:00.123 1 kserve INFO [storage.py:download():66] {TEXT}", "info"),
        (f"2024-05-01 12:00:00,123 - kserve.storage - ERROR - {TEXT}", "error"),
        (f"2024-05-01 12:00:00,123\tERROR worker.py:409 -- {TEXT}", "error"),
        (f"2024-05-01T12:00:00Z\tERROR\tcontroller\t{TEXT}", "error"),
        (f"[ERROR] {TEXT}", "error"),
        (f"[2025-11-01 12:00:00,123] [ERROR] [launch.py:12:main] {TEXT}", "error"),
        (f"2025-11-01 12:00:00.123 | ERROR    | app.main:run:12 - {TEXT}", "error"),
        (f'time=2025-11-01T12:00:00.123Z level=ERROR source=sched.go:12 msg="{TEXT}"', "error"),
        (f"Error: {TEXT}", "error"),
        (f"/usr/lib/x.py:12: FutureWarning: {TEXT}", "warning"),
        (f'time="2025-01-01T00:00:00Z" level=error msg="{TEXT}"', "error"),
        (f'{{"level":"error","ts":"2025-01-01T00:00:00Z","msg":"{TEXT}"}}', "error"),
        (f'{{"log":"ERROR 04-09 12:00:00 [core.py:3] {TEXT}\\n","stream":"stderr"}}', "error"),
        (f"    ERROR 04-09 12:00:00 [core.py:396] {TEXT}", "error"),
        (f"> > ERROR 04-09 12:00:00 [core.py:396] {TEXT}", "error"),
        (f"```ERROR 04-09 12:00:00 [core.py:396] {TEXT}", "error"),
        (f"Loading:  10%|#  | 1/9\rLoading:  20%|## | 2/9\r{TEXT}", ""),
        (f"\x1b]0;title\x07{TEXT}", ""),
        (TEXT, ""),
    ],
)
def test_message_and_level(line, level):
    found = entry(line)
    assert (found.text, found.level) == (TEXT, level)


def test_where_and_when_are_kept():
    found = entry(
        "[pod/mistral-0/kserve-container] 2025-01-01T00:00:00Z (EngineCore_DP0 pid=9) ERROR 10-01 12:00:00 [v1/core.py:7] x"  # noqa: E501
    )
    assert (found.pod, found.container, found.process) == ("mistral-0", "kserve-container", "EngineCore_DP0")
    assert (found.time, found.source) == ("2025-01-01T00:00:00Z", "core.py")


def test_html_of_issue_threads_is_text_again():
    assert entry("&gt; ValueError: &#39;a&#39; &lt; &quot;b&quot;").text == "ValueError: 'a' < \"b\""


def test_json_gives_error_and_traceback_on_further_lines():
    line = '{"level":"error","msg":"Reconciler error","error":"quota is gone","stacktrace":"a\\nb"}'
    assert entry(line).text == "Reconciler error\nquota is gone\na\nb"


@pytest.mark.parametrize(
    "line", ["The ERROR: x", "{not json", "(a (b pid=1) x", "INFO", "raise ValueError(", "a: error"]
)
def test_what_only_looks_like_a_prefix_is_text(line):
    assert entry(line).text == line
    assert entry(line).level == ""


@given(st.text(max_size=400))
def test_any_text_is_taken_apart_without_controls(line):
    found = entry(line)
    assert not any(each < " " and each not in "\t\n" for each in found.text)


@pytest.mark.parametrize("piece", ["(", "[", "(pid=", "> ", "a|", "[pod/", "{", "0-", '="', "&#", "[1;", "\t"])
def test_hostile_lines_take_no_time(piece):
    entry(piece * 30_000)
