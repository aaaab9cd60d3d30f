"""The same failure is found in whatever form a log comes, and nothing in what only quotes one."""

from __future__ import annotations

import gzip
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelberth.findings.diagnosis.catalogue import read_all
from modelberth.findings.diagnosis.diagnose import Log, diagnose_logs

from .conftest import OUT_OF_MEMORY, SIGNATURES, ids

FAILURE = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0"


def each_line(form: str) -> str:
    return "".join(form.format(line) + "\n" for line in OUT_OF_MEMORY.splitlines())


@pytest.mark.parametrize(
    "log",
    [
        OUT_OF_MEMORY,
        each_line("    {}"),
        each_line("> {}"),
        f"My server crashes:\n```\n{OUT_OF_MEMORY}```\nThanks",
        OUT_OF_MEMORY.replace("(EngineCore_DP0 pid=272)", "\x1b[1;36m(EngineCore_DP0 pid=272)\x1b[0;0m"),
        OUT_OF_MEMORY.replace("(EngineCore_DP0 pid=272)", "[1;36m(EngineCore_DP0 pid=272)[0;0m"),
        OUT_OF_MEMORY.replace("\n", "\r\n"),
        OUT_OF_MEMORY.encode("utf-16"),
        each_line("2025-11-20T12:00:00.123456789Z stderr F {}"),
        each_line("[pod/mistral-0/kserve-container] {}"),
        each_line("vllm-1  | {}"),
        each_line("Nov 20 12:00:00 node-1 podman[77]: {}"),
        each_line("2025-11-20T12:00:00+0100 node-1 vllm[8052]: {}"),
        each_line("[mistral-predictor-7c9f8d-x2x4z] {}"),
        each_line("[mistral-kserve-0-1] {}"),
        each_line("[vllm]: {}"),
        each_line("[VLLM LOG] {}"),
        "".join(json.dumps({"log": line + "\n", "stream": "stderr"}) + "\n" for line in OUT_OF_MEMORY.splitlines()),
        OUT_OF_MEMORY.splitlines()[4],  # the line alone
        b"\xff\xfa\x80 bytes\n" + OUT_OF_MEMORY.encode(),
    ],
)  # fmt: skip
def test_one_failure_in_every_form(diagnose, log):
    found = diagnose(log)
    assert ids(found) == ["MB-MEM-001"]
    assert found.findings[0].cause == "It asked for 250.00 MiB."
    assert found.findings[0].numbers == {"tried": 0.2441}
    assert found.findings[0].confidence == "high"
    assert found.findings[0].evidence[0].text.startswith("torch.OutOfMemoryError: CUDA out of memory.")


@pytest.mark.parametrize(
    ("log", "name"),
    [
        (
            "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig\n"
            "  Value error, Invalid repository ID or local directory specified: '/mnt/models'\n"
            "Please verify the following requirements: [type=value_error, input_type=ArgsKwargs]\n",
            "MB-CFG-001",
        ),
        ("torch._inductor.exc.InductorError: RuntimeError: Failed to find C compiler. Please", "MB-JIT-001"),
        (
            "torch._dynamo.exc.BackendCompilerFailed: backend='inductor' raised:\nRuntimeError: Failed to find C compiler.",  # noqa: E501
            "MB-JIT-001",
        ),
        ("usage: vllm serve [-h]\nvllm serve: error: unrecognized arguments: --foo\n", "MB-ARG-001"),
        ("ImportError: \nNo module named 'old'\nPlease install it\n", "MB-DEP-001"),
        ("triton.runtime.errors.OutOfResources: Failed to find C compiler", "MB-JIT-001"),
        ("RuntimeError: ('Failed to find C compiler. Please', 'x')", "MB-JIT-001"),
        ("terminate called after throwing an instance of 'c10::Error'\n  what():  No module named 'old'", "MB-DEP-001"),
        (
            "[rank0]:[E1213 12:00:00.1 ProcessGroupNCCL.cpp:6] [PG ID 0 PG GUID 0 Rank 0] No module named 'old'",
            "MB-DEP-001",
        ),
        (f"Loading: 10%|#\rLoading: 20%|##\r{FAILURE}", "MB-MEM-001"),
        (
            "ray.exceptions.RayTaskError(OutOfMemoryError): ray::RayWorkerWrapper.execute_method() (pid=1, ip=10.0.0.2)\n"  # noqa: E501
            f'  File "/a/b.py", line 1, in x\n{FAILURE}\n',
            "MB-MEM-001",
        ),
    ],
)
def test_a_cause_inside_of_another_exception(diagnose, log, name):
    assert ids(diagnose(log)) == [name]


def test_a_cause_that_only_its_wrapper_tells_is_less_sure(diagnose):
    wrapped = (
        f"RuntimeError: Worker failed with error '{FAILURE.partition(': ')[2]}', please check the stack trace above"
    )
    (alone,) = diagnose(wrapped).findings
    assert alone.confidence == "medium"
    (both,) = diagnose(f"{wrapped}\n{FAILURE}\n").findings
    assert (both.confidence, both.evidence[0].line) == ("high", 2)


@pytest.mark.parametrize(
    "log",
    [
        f"INFO 04-09 12:00:00 [logger.py:39] Received request cmpl-1: prompt: '{FAILURE}', params: SamplingParams(n=1)",
        f"INFO 04-09 12:00:00 [logger.py:39] {FAILURE}",
        f"WARNING 04-09 12:00:00 [logger.py:39] {FAILURE}",
        f"People ask why {FAILURE}",
        f"    # {FAILURE}",
        f'    raise ValueError("{FAILURE}")',
        f'{{"role": "user", "content": "{FAILURE}"}}',
        f"    {FAILURE}",  # indented, and no traceback before it: a quotation
    ],
)
def test_what_quotes_a_failure_raises_nothing(diagnose, log):
    assert ids(diagnose(log + "\n")) == []


def test_tracebacks_of_ranks_that_write_into_each_other_come_apart(diagnose):
    frames = 'File "/usr/lib/vllm/v1/core/kv_cache_utils.py", line 3, in check'
    text = "ValueError: To serve at least one request with the models's max seq len (32768), (5.77 GiB KV cache"
    log = "".join(
        f"(EngineCore_DP{rank} pid={rank + 1}) {line}\n"
        for line in ("Traceback (most recent call last):", f"  {frames}", "    raise ValueError(", text)
        for rank in (0, 1)
    )
    (found,) = diagnose(log).findings
    assert (found.id, found.count) == ("MB-KV-001", 2)
    assert [each.process for each in found.evidence] == ["EngineCore_DP0", "EngineCore_DP1"]
    # The file that must stand in the traceback is another rank's here.
    other = f"(A pid=1) Traceback (most recent call last):\n(A pid=1)   {frames}\n(B pid=2) {text}\n"
    assert ids(diagnose(other)) == []


def test_a_needle_in_a_container_of_another_name_raises_nothing(diagnose):
    log = "botocore.exceptions.ClientError: An error occurred (NoSuchBucket) when calling the ListObjects operation\n"
    assert ids(diagnose(log)) == ["MB-STO-001"]
    assert ids(diagnose(log, container="storage-initializer")) == ["MB-STO-001"]
    assert ids(diagnose(log, container="kserve-container")) == []
    assert ids(diagnose(f"[pod/a/queue-proxy] {log}")) == []


def test_versions_are_held_against_the_log_and_what_is_known_of_it(diagnose):
    log = "ModuleNotFoundError: No module named 'old'\n"
    assert ids(diagnose(log)) == ["MB-DEP-001"]
    assert ids(diagnose(log, version="0.9.2")) == ["MB-DEP-001"]
    assert ids(diagnose(log, version="0.10.0")) == []
    banner = "INFO 04-09 12:00:00 [api_server.py:1] vLLM API server version 0.11.0\n"
    assert ids(diagnose(banner + log)) == []


def test_one_long_line_is_cut_and_said(diagnose):
    found = diagnose(b"x" * 3_000_000 + b"\n" + OUT_OF_MEMORY.encode())
    assert ids(found) == ["MB-MEM-001"]
    assert found.truncated == ("log-0: 1 line longer than 64 KiB, cut",)


@pytest.mark.parametrize("log", [b"", b"\n\n\n", b"\x00" * 5000, gzip.compress(b"packed"), b"\xff\xfe\x00"])
def test_no_log_at_all_raises_nothing(diagnose, log):
    found = diagnose(log)
    assert (found.findings, found.exit_code) == ((), 0)


@given(st.lists(st.one_of(st.sampled_from(OUT_OF_MEMORY.splitlines()), st.text(max_size=80)), max_size=30))
def test_lines_in_any_order_are_read(lines):
    diagnose_logs(
        [Log("x", ["\n".join(lines).encode("utf-8", "surrogatepass")])], read_all([("s", SIGNATURES.encode())])
    )


@pytest.mark.parametrize("width", [72, 80, 101, 136])
def test_a_log_that_a_terminal_broke_at_its_width(diagnose, width):
    frames = 'File "/usr/local/lib/python3.12/dist-packages/vllm/v1/core/kv_cache_utils.py", line 690, in check_enough_memory'  # noqa: E501
    text = (
        "ValueError: To serve at least one request with the models's max seq len (32768), (5.77 GiB KV cache is needed, "  # noqa: E501
        "which is larger than the available KV cache memory (4.96 GiB). Based on the available memory, decrease it."
    )
    lines = [*(f"INFO 09-04 01:02:21 [utils.py:326] a long line {'of words ' * 20}{each}" for each in range(3))]
    lines += ["Traceback (most recent call last):", f"  {frames}", "    raise ValueError(", text]
    prefixed = [f"(EngineCore_0 pid=1812) {line}" for line in lines]
    log = "\n".join(line[start : start + width] for line in prefixed for start in range(0, len(line), width))
    (found,) = diagnose(log).findings
    assert (found.id, found.numbers["needed"]) == ("MB-KV-001", 5.77)
    assert log.splitlines()[found.evidence[0].line - 1].startswith("(EngineCore_0 pid=1812) ValueError")


@pytest.mark.parametrize(
    "piece", ["a.", "a", "Error: ", "ValueError: ", "('", "[PG ", "(pid=", "what(): ", "1: ", "x\r", "> "]
)
def test_hostile_lines_take_no_time(diagnose, piece):
    line = piece * (60_000 // len(piece))
    diagnose(f"{line}\nERROR {line}Error: x\n{line}Error: CUDA out of memory. Tried {line}\n" * 5)


def test_what_ray_folds_is_counted(diagnose):
    log = f"(RayWorkerWrapper pid=7, ip=10.0.0.2) ERROR 04-09 12:00:00 worker.py:4] {FAILURE} [repeated 7x across cluster]"  # noqa: E501
    (found,) = diagnose(log).findings
    assert found.count == 8
    assert (found.evidence[0].process, found.evidence[0].time) == ("RayWorkerWrapper", "04-09 12:00:00")
