"""What counts of what a log says: restarts, servers that came up after all, shutdowns, single requests, deaths."""

from __future__ import annotations

import pytest

from modelberth.findings.diagnosis.catalogue import read_all
from modelberth.findings.diagnosis.diagnose import Log, diagnose_logs

from .conftest import BANNER, OUT_OF_MEMORY, READY, SERVED, ids

ASKED = "ERROR 04-09 12:00:00 [serving.py:1] The model `other` does not exist.\n"
REJECTED = 'INFO:     10.0.0.1:3 - "POST /v1/chat/completions HTTP/1.1" 404 Not Found\n'
PREEMPTED = "WARNING 04-09 12:00:00 [scheduler.py:1] Sequence group 7 is preempted by mode\n"
DIED = "ERROR 04-09 12:00:00 [async_llm.py:1] AsyncLLM output_handler failed.\n"


@pytest.mark.parametrize(
    ("log", "state", "found"),
    [
        (BANNER, "unknown", []),
        (BANNER + READY, "ready", []),
        (BANNER + OUT_OF_MEMORY, "failed", ["MB-MEM-001"]),
        # A later start is healthy; it failed again; it is still on its way.
        (BANNER + OUT_OF_MEMORY + BANNER + READY, "ready", []),
        (BANNER + OUT_OF_MEMORY + BANNER + READY + SERVED, "ready", []),
        (BANNER + READY + SERVED + BANNER + OUT_OF_MEMORY, "failed", ["MB-MEM-001"]),
        (BANNER + OUT_OF_MEMORY + BANNER, "unknown", ["MB-MEM-001"]),
        # An alarm before it was ready.
        (BANNER + OUT_OF_MEMORY + READY, "ready", []),
        # It died later, or something went wrong and it goes on serving.
        (BANNER + READY + SERVED + OUT_OF_MEMORY + DIED, "failed", ["MB-MEM-001"]),
        (BANNER + READY + SERVED + DIED + OUT_OF_MEMORY, "failed", ["MB-MEM-001"]),
        (BANNER + READY + OUT_OF_MEMORY.splitlines()[4] + "\n" + SERVED, "ready", []),
        (BANNER + READY + SERVED + OUT_OF_MEMORY.splitlines()[4] + "\n", "failed", ["MB-MEM-001"]),
        # Somebody stopped it.
        (BANNER + READY + SERVED + "INFO:     Shutting down\n" + OUT_OF_MEMORY + DIED, "stopped", []),
        (BANNER + "INFO 04-09 12:00:00 [x.py:1] Received signal SIGTERM\n" + OUT_OF_MEMORY, "stopped", []),
        # A start that fails clears up before it says why.
        (BANNER + "INFO 04-09 12:00:00 [x.py:1] [shutdown] Executor: waiting\n" + OUT_OF_MEMORY, "failed", ["MB-MEM-001"]),  # noqa: E501
        # Single requests.
        (BANNER + READY + ASKED + REJECTED + SERVED, "ready", []),
        (BANNER + READY + (ASKED + REJECTED) * 2, "ready", ["MB-REQ-001"]),
        (BANNER + READY + (ASKED + REJECTED) * 9 + SERVED, "ready", ["MB-REQ-001"]),
        (BANNER + READY + (ASKED + REJECTED) * 9 + SERVED * 50, "ready", []),
        # What degrades a server that serves.
        (BANNER + READY + SERVED + PREEMPTED + SERVED, "ready", ["MB-KV-009"]),
    ],
)  # fmt: skip
def test_what_counts(diagnose, log, state, found):
    diagnosis = diagnose(log)
    assert (diagnosis.state, ids(diagnosis)) == (state, found)


def test_restarts_are_counted_and_not_repeated(diagnose):
    found = diagnose((BANNER + OUT_OF_MEMORY) * 20)
    assert (found.starts, ids(found)) == (20, ["MB-MEM-001"])
    assert found.findings[0].count == 20
    assert found.findings[0].evidence[0].line == 8 * 19 + 2 + 5  # of the last start


DRAWN = (
    "(APIServer pid=1) INFO 02-06 23:24:30 [utils.py:325]  ▄▄ ▄█ █     █     █ ▀▄▀ █  version 0.17.0\n"
    "(APIServer pid=1) INFO 02-06 23:24:30 [utils.py:261] non-default args: {'model': '/mnt/models'}\n"
)


@pytest.mark.parametrize(
    ("log", "starts", "state", "found"),
    [
        ((DRAWN + OUT_OF_MEMORY) * 3, 3, "failed", ["MB-MEM-001"]),
        (DRAWN + READY + SERVED + DRAWN + OUT_OF_MEMORY, 2, "failed", ["MB-MEM-001"]),
        (DRAWN + OUT_OF_MEMORY + DRAWN + READY, 2, "ready", []),
        (DRAWN * 2, 2, "unknown", []),
        (BANNER.splitlines()[0] + "\n" + DRAWN.splitlines()[1] + "\n" + READY, 1, "ready", []),
    ],
)
def test_a_banner_that_is_drawn_begins_a_start(diagnose, log, starts, state, found):
    diagnosis = diagnose(log)
    assert (diagnosis.starts, diagnosis.state, ids(diagnosis)) == (starts, state, found)


def test_several_servers_of_one_start_are_one_start(diagnose):
    banners = "".join(
        f"(ApiServer_{each} pid={each}) INFO 04-09 12:00:00 [api_server.py:1] vLLM API server version 0.11.0\n"
        for each in range(3)
    )
    engines = "".join(
        f"(EngineCore_DP{each} pid={each}) INFO 04-09 12:00:00 [core.py:1] Initializing a V1 LLM engine (v0.11.0)\n"
        for each in range(3)
    )
    assert diagnose(banners + engines + OUT_OF_MEMORY).starts == 1


def test_containers_in_one_log_are_told_apart(diagnose):
    log = "".join(f"[pod/a-0/kserve-container] {line}\n" for line in (BANNER + OUT_OF_MEMORY).splitlines())
    log += "".join(f"[pod/a-1/kserve-container] {line}\n" for line in (BANNER + READY + SERVED).splitlines())
    assert ids(diagnose(log)) == ["MB-MEM-001"]  # the other pod's health does not help this one


def test_a_container_that_only_prepares_is_done_after_all(diagnose):
    failed = "ERROR:root:An error occurred (NoSuchBucket) when calling\n"
    log = (
        f"{failed}2024-05-01 12:00:00.123 1 kserve INFO [storage.py:download():66] Successfully copied s3://a to /mnt\n"
    )
    assert ids(diagnose(failed)) == ["MB-STO-001"]
    assert ids(diagnose(log)) == []


def test_health_of_a_server_is_told_by_its_probes(diagnose):
    probe = 'INFO:     10.0.0.1:3 - "GET /health HTTP/1.1" 200 OK\n'
    assert diagnose(BANNER + probe).state == "ready"


def test_several_logs_are_one_failure(diagnose):
    found = diagnose(BANNER + OUT_OF_MEMORY, BANNER + OUT_OF_MEMORY)
    assert ids(found) == ["MB-MEM-001"]
    assert [each.source for each in found.findings[0].evidence] == ["log-0", "log-1"]


def test_what_nothing_knows_is_shown_with_what_helps(diagnose):
    text = 'Traceback (most recent call last):\n  File "x.py", line 1, in f\nFooError: it is broken\n'
    found = diagnose(
        f"{BANNER}INFO 04-09 12:00:00 [x.py:1] Starting to load model x\n{text}RuntimeError: Engine core initialization failed.\n"  # noqa: E501
    )
    assert (found.findings, found.exit_code, found.state, found.stage) == ((), 0, "failed", "weights")
    assert found.first_error is not None
    assert (found.first_error.text, found.first_error.line) == ("FooError: it is broken", 6)
    assert found.collect


def test_a_wrapper_alone_is_no_finding_and_shown(diagnose):
    found = diagnose(f"{BANNER}RuntimeError: Engine core initialization failed. See root cause above.\n")
    assert found.findings == ()
    assert found.first_error is not None
    assert found.first_error.text.startswith("RuntimeError: Engine core")


def test_an_exception_tells_more_than_a_message(diagnose):
    found = diagnose("ERROR 04-09 12:00:00 [x.py:1] this is odd\nFooError: it is broken\n")
    assert found.first_error is not None
    assert found.first_error.text == "FooError: it is broken"


def test_what_counts_only_where_nothing_follows():
    text = (
        "- {id: MB-NCC-003, title: hangs, severity: high, cause: It hangs., fix: f, page: p, match: "
        "[{log: 'vLLM is using nccl==', needle: 'vLLM is using nccl', last: true}]}"
    )
    signatures = read_all([("s", text.encode())])
    hang = f"{BANNER}INFO 04-09 12:00:00 [pynccl.py:69] vLLM is using nccl==2.21.5\n"
    goes_on = "INFO 04-09 12:00:00 [gpu_model_runner.py:1] Starting to load model x\n"
    for log, expected in ((hang, ["MB-NCC-003"]), (hang + goes_on, []), (hang + OUT_OF_MEMORY, []), (hang + READY, [])):
        assert ids(diagnose_logs([Log("x", [log.encode()])], signatures)) == expected


def test_a_failure_of_one_stage():
    text = (
        "- {id: MB-MEM-003, title: t, severity: high, cause: 'It ran out {phase}.', fix: f, page: p, root: 60, match: "
        "[{log: 'CUDA out of memory', needle: 'CUDA out of memory', origin: exception, during: [weights]}]}"
    )
    signatures = read_all([("s", text.encode())])
    loading = "INFO 04-09 12:00:00 [gpu_model_runner.py:1] Starting to load model x\n"
    loaded = "INFO 04-09 12:00:00 [gpu_model_runner.py:1] Model loading took 3.1 GiB and 2 seconds\n"
    (found,) = diagnose_logs([Log("x", [(BANNER + loading + OUT_OF_MEMORY).encode()])], signatures).findings
    assert found.cause == "It ran out while the weights were loaded."
    for log in (BANNER + OUT_OF_MEMORY, BANNER + loading + loaded + OUT_OF_MEMORY):
        assert ids(diagnose_logs([Log("x", [log.encode()])], signatures)) == []
