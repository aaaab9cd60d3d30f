"""A small catalogue, so that these tests say what the engine does and not what the data knows."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from modelberth.findings.diagnosis.catalogue import read_all
from modelberth.findings.diagnosis.diagnose import Log, diagnose_logs
from modelberth.findings.diagnosis.finding import Diagnosis
from modelberth.findings.diagnosis.signature import Signature

SIGNATURES = r"""
- id: MB-CFG-001
  title: there is no config.json
  severity: high
  match:
    - log: "Invalid repository ID or local directory specified: '(?P<path>[^']{1,200})'"
      needle: "Invalid repository ID or local directory specified"
      origin: exception
      exceptions: [ValueError, ValidationError]
  cause: "There is no config.json in {path}."
  fix: "Ship it."
  page: "page"
- id: MB-KV-001
  title: the context is too long
  severity: high
  stage: kv-cache
  match:
    - log: "To serve at least one request with the models's max seq len \\((?P<asked>[0-9]+)\\), \\((?P<needed>[0-9.]+) GiB"
      needle: "To serve at least one request"
      origin: exception
      frames: [kv_cache_utils.py]
  numbers: {asked: tokens, needed: GiB, largest: tokens}
  cause: "{asked} tokens need {needed} GiB. At most {largest} fit. The card has {gpu_total_gib} GiB."
  fix: "Set maxModelLen."
  patch: {maxModelLen: "{asked}", engineArgs.max-num-seqs: 8}
  command: "berth size MODEL --gpu GPU --max-model-len {asked}"
  page: "page"
- id: MB-MEM-001
  title: out of memory
  severity: high
  root: 30
  match:
    - log: "CUDA out of memory\\. Tried to allocate (?P<tried>[0-9.]+) (?P<tried_unit>[KMG]iB)"
      needle: "CUDA out of memory. Tried"
      origin: exception
  numbers: {tried: GiB}
  cause: "It asked for {tried} GiB."
  fix: "Take less."
  page: "page"
- id: MB-NCC-001
  title: /dev/shm is too small
  severity: high
  root: 70
  explains: [MB-NCC-002]
  match:
    - log: "Error while creating shared memory segment (?P<segment>/dev/shm/nccl-\\S{1,40}) \\(size (?P<size>[0-9]+)\\)"
      needle: "Error while creating shared memory segment"
      origin: warning
  numbers: {size: bytes}
  cause: "{segment} needs {size} bytes."
  fix: "Mount more."
  page: "page"
- id: MB-NCC-002
  title: NCCL failed
  severity: high
  match:
    - log: "NCCL error: unhandled system error"
      needle: "NCCL error: unhandled system error"
      origin: exception
  cause: "NCCL failed."
  fix: "Look above."
  page: "page"
- id: MB-ARG-001
  title: an unknown flag
  severity: high
  match:
    - log: "unrecognized arguments: (?P<flags>.{1,200})"
      needle: "unrecognized arguments:"
      origin: usage
  cause: "vLLM does not know {flags}."
  fix: "Leave it out."
  page: "page"
- id: MB-JIT-001
  title: no compiler
  severity: high
  match:
    - log: "Failed to find C compiler"
      needle: "Failed to find C compiler"
      origin: exception
  cause: "There is no C compiler."
  fix: "Install one."
  page: "page"
- id: MB-REQ-001
  title: a model of another name is asked for
  severity: medium
  phase: request
  match:
    - log: "The model `(?P<name>[^`]{1,100})` does not exist"
      needle: "does not exist"
  cause: "{name} is asked for."
  fix: "Ask for another."
  page: "page"
- id: MB-KV-009
  title: requests are preempted
  severity: low
  phase: serving
  match:
    - log: "Sequence group \\S{1,80} is preempted"
      needle: "is preempted"
      origin: warning
  cause: "The cache is too small."
  fix: "Fewer requests."
  page: "page"
- id: MB-STO-001
  title: the bucket is not there
  severity: high
  stage: download
  match:
    - log: "An error occurred \\(NoSuchBucket\\)"
      needle: "(NoSuchBucket)"
      container: [storage-initializer]
  cause: "There is no such bucket."
  fix: "Name another."
  page: "page"
- id: MB-DEP-001
  title: an old release
  severity: high
  match:
    - log: "No module named 'old'"
      needle: "No module named 'old'"
      vllm: ">=0.8,<0.10"
  cause: "It is old."
  fix: "Newer."
  page: "page"
"""  # noqa: E501

OUT_OF_MEMORY = """\
(EngineCore_DP0 pid=272) Process EngineCore_DP0:
(EngineCore_DP0 pid=272) Traceback (most recent call last):
(EngineCore_DP0 pid=272)   File "/usr/lib/python3.12/multiprocessing/process.py", line 314, in _bootstrap
(EngineCore_DP0 pid=272)     self.run()
(EngineCore_DP0 pid=272) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 250.00 MiB. GPU 0 has a total
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
BANNER = """\
INFO 04-09 12:00:00 [api_server.py:1034] vLLM API server version 0.8.3
INFO 04-09 12:00:01 [core.py:61] Initializing a V1 LLM engine (v0.8.3) with config: model='Qwen/Qwen3-8B', max_seq_len=8
"""
READY = "INFO:     Application startup complete.\n"
SERVED = 'INFO:     10.0.0.1:34567 - "POST /v1/chat/completions HTTP/1.1" 200 OK\n'

Diagnose = Callable[..., Diagnosis]


@pytest.fixture(scope="session")
def signatures() -> Mapping[str, Signature]:
    """The small catalogue."""
    return read_all([("signatures.yaml", SIGNATURES.encode())])


@pytest.fixture
def diagnose(signatures: Mapping[str, Signature]) -> Diagnose:
    """Diagnose texts or bytes, each a log of its own."""

    def run(*logs: str | bytes, container: str = "", version: str = "") -> Diagnosis:
        return diagnose_logs(
            [
                Log(f"log-{number}", [text.encode() if isinstance(text, str) else text], "", container, version)
                for number, text in enumerate(logs)
            ],
            signatures,
        )

    return run


def ids(found: Diagnosis) -> list[str]:
    """Ids of the findings in order."""
    return [each.id for each in found.findings]
