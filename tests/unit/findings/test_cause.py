"""The first cause in a log: found above the wrappers that repeat it, and not where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelberth.findings.cause import LIMIT, CauseFinder
from modelberth.timeline.log_lines import parse_line

ENGINE = "(EngineCore pid=4943) ERROR 11-23 13:34:34 [core.py:946]"

CALLERS = "\n".join(f'(APIServer pid=4900)   File "/env/vllm/entrypoints/{n}.py", line {n}, in run' for n in range(40))

# As vLLM prints a failed start: the cause in the log of the engine's process, forty lines on the wrapper as last line.
FAILED_START = f"""\
Triton is installed, but doesn't include CPU backend. Disabling Triton.
(APIServer pid=4900) INFO 11-23 13:34:30 [api_utils.py:286] non-default args: {{'model': '/mnt/models'}}
(EngineCore pid=4943) INFO 11-23 13:34:34 [core.py:133] Initializing a V1 LLM engine (v0.32.0) with config: model='x'
(Worker pid=4950) WARNING 11-23 13:34:34 [cpu_worker.py:114] libtcmalloc is not found in LD_PRELOAD.
{ENGINE} EngineCore failed to start.
{ENGINE} Traceback (most recent call last):
{ENGINE}   File "/env/vllm/v1/engine/core.py", line 937, in run_engine_core
{ENGINE}     engine_core = EngineCoreProc(*args, engine_index=dp_rank, **kwargs)
{ENGINE}                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
{ENGINE}   File "/env/vllm/v1/core/kv_cache_utils.py", line 700, in check
{ENGINE}     raise ValueError(
{ENGINE} {{cause}}
(EngineCore pid=4943) Process EngineCore:
(EngineCore pid=4943) Traceback (most recent call last):
(EngineCore pid=4943)   File "/env/python/lib/python3.11/multiprocessing/process.py", line 314, in _bootstrap
(EngineCore pid=4943)     self.run()
(EngineCore pid=4943) {{cause}}
{CALLERS}
(APIServer pid=4900)     raise RuntimeError(
(APIServer pid=4900) {{wrapper}}
"""

WRAPPER = "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}"

# Texts of notes/failure-signatures.md, by their id there.
CAUSES = {
    "M1": "ValueError: No available memory for the cache blocks. Try increasing `gpu_memory_utilization` when "
    "initializing the engine.",
    "M2": "ValueError: To serve at least one request with the models's max seq len (32768), (5.00 GiB KV cache is "
    "needed, which is larger than the available KV cache memory (4.50 GiB). Based on the available memory, the "
    "estimated maximum model length is 29472.",
    "M4": "ValueError: Free memory on device cuda:0 (19.5/22.05 GiB) on startup is less than desired GPU memory "
    "utilization (0.9, 19.84 GiB).",
    "M5": "RuntimeError: CUDA out of memory occurred when warming up sampler with 256 dummy requests. Please try "
    "lowering `max_num_seqs` or `gpu_memory_utilization`",
    "M6": "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 224.00 MiB. GPU 0 has a total capacity of "
    "22.05 GiB",
    "C3": "ValueError: Total number of attention heads (28) must be divisible by tensor parallel size (8).",
    "C4": "ValueError: Invalid repository ID or local directory specified: '/mnt/models'",
    "Q1": "ValueError: The quantization method awq is not supported for the current GPU. Minimum capability: 75. "
    "Current capability: 70.",
    "D1": "RuntimeError: Unexpected error from cudaGetDeviceCount(). Error 803: system has unsupported display driver "
    "/ cuda driver combination",
    "N2": "torch.distributed.DistBackendError: NCCL error in: x.cpp:3356, unhandled system error (run with "
    "NCCL_DEBUG=INFO for details)",
    "P1": "PermissionError: [Errno 13] Permission denied: '/.cache'",
    "P2": "KeyError: 'getpwuid(): uid not found: 1000910000'",
}


def cause_in(log: str) -> str | None:
    finder = CauseFinder()
    for line in log.splitlines():
        finder.feed(parse_line(line))
    return finder.cause


def failed_start(cause: str, wrapper: str = WRAPPER) -> str:
    return FAILED_START.replace("{cause}", cause).replace("{wrapper}", wrapper)


@pytest.mark.parametrize("cause", CAUSES.values(), ids=CAUSES)
def test_the_cause_is_found_and_the_wrapper_is_not(cause: str):
    assert cause_in(failed_start(cause)) == cause


WRAPPERS = [
    WRAPPER,
    "vllm.v1.engine.exceptions.EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the "
    "root cause.",
    "Exception: WorkerProc initialization failed due to an exception in a background process. See stack trace for "
    "root cause.",
    "RuntimeError: Engine process failed to start. See stack trace for the root cause.",
]


@pytest.mark.parametrize("wrapper", WRAPPERS, ids=lambda text: text[:50])
def test_a_wrapper_alone_is_no_cause(wrapper: str):
    assert cause_in(failed_start(wrapper, wrapper)) is None
    assert cause_in(failed_start(wrapper, CAUSES["M1"])) == CAUSES["M1"]


def test_of_two_causes_the_first_counts():
    assert cause_in(failed_start(CAUSES["P1"]) + failed_start(CAUSES["M1"])) == CAUSES["P1"]
    assert cause_in(failed_start(CAUSES["P1"], CAUSES["M6"])) == CAUSES["P1"]


@pytest.mark.parametrize(
    "line",
    [
        "api_server.py: error: unrecognized arguments: --foo",
        "vllm: error: argument --dtype: invalid choice: 'x'",
        "Bus error",
        "Killed",
        "Segmentation fault",
        "Fatal Python error: Segmentation fault",
        "ModuleNotFoundError: No module named 'vllm'",
        "requests.exceptions.HTTPError: 401 Client Error",
        "SystemExit: 2",
    ],
)
def test_causes_outside_of_vllm_s_own_log(line: str):
    assert cause_in(f"usage: api_server.py [-h]\n{line}\nmore\n") == line


@pytest.mark.parametrize(
    "line",
    [
        f"{ENGINE} EngineCore failed to start.",
        f"{ENGINE}     raise ValueError(",
        "/env/api_server.py:24: DeprecationWarning: the command is deprecated",
        "(A pid=1) INFO 11-23 13:34:34 [logger.py:40] Received request: prompt: 'ValueError: no memory'",
        "(A pid=1) INFO 11-23 13:34:34 [a.py:1] Handles ValueError: it tries again",
        "Could not open: error: none",
        "ValueError",
        "ValueError:",
        "KilledByUser",
        "INFO:     Application startup complete.",
        "",
    ],
)
def test_lines_that_are_no_cause(line: str):
    assert cause_in(line) is None


@pytest.mark.parametrize("log", ["bf16-eager", "w4a16-compiled"])
def test_a_stop_that_was_asked_for_has_no_cause(log: str, data_folder: Path):
    text = (data_folder / "engine-logs" / f"{log}.log").read_text()
    assert "[shutdown]" in text
    assert cause_in(text) is None
    assert cause_in(text + failed_start(CAUSES["M1"])) is None
    assert cause_in(failed_start(CAUSES["M1"]) + text) == CAUSES["M1"]


def test_the_engine_s_death_during_a_stop_is_no_cause(data_folder: Path):
    """The real log has it as a wrapper; even an error of any other text in its place is none."""
    text = (data_folder / "engine-logs" / "bf16-eager.log").read_text()
    death = "EngineDeadError: EngineCore encountered an issue. See stack trace (above) for the root cause."
    assert text.count(death) == 1
    assert cause_in(text.replace(death, "EngineDeadError: some other text")) is None


def test_what_is_said_after_a_shutdown_is_noise_and_before_it_is_not():
    stop = "(APIServer pid=1) INFO 11-23 13:51:30 [launcher.py:254] [shutdown] API server: shutdown triggered\n"
    assert cause_in(stop + failed_start(CAUSES["M1"])) is None
    assert cause_in(failed_start(CAUSES["M1"]) + stop) == CAUSES["M1"]
    quoted = stop.replace("[shutdown]", "Received request: prompt: '[shutdown]'")
    assert cause_in(quoted + failed_start(CAUSES["M1"])) == CAUSES["M1"]


def test_a_long_cause_is_cut():
    cause = cause_in(failed_start("ValueError: " + "x" * 5000))
    assert cause is not None
    assert len(cause) == LIMIT
    assert cause.startswith("ValueError: xxx")


@given(st.text(max_size=60) | st.lists(st.sampled_from(["a.", "Error", ": ", "x", " ", "[shutdown]"])).map("".join))
@example("a." * 4000)
@example("a" * 8000)
@example("Error" * 1600)
def test_any_text_is_a_short_cause_on_one_line_or_none(text: str):
    cause = cause_in(text)
    assert cause is None or (0 < len(cause) <= LIMIT and "\n" not in cause)


def test_what_pydantic_announces_is_told_with_its_first_error():
    announced = "pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig"
    told = "Value error, User-specified max_model_len (65536) is greater than the derived max_model_len (32768)."
    log = "".join(f"(APIServer pid=1) ERROR 11-23 13:51:30 [core.py:1] {line}\n" for line in (announced, f"  {told}"))
    assert cause_in(log) == f"{announced}: {told}"
