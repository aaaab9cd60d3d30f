"""What has passed, or was one request's alone, is no finding."""

from __future__ import annotations

from typing import Any

import pytest

from modelberth.findings.diagnosis.diagnose import Log, diagnose_logs, diagnose_objects

UP = """\
(APIServer pid=1) INFO 11-12 10:02:31 [api_server.py:1805] vLLM API server version 0.10.2
(APIServer pid=1) INFO:     Application startup complete.
"""
TRACEBACK = """\
(APIServer pid=1) ERROR 11-12 10:04:31 [serving_chat.py:257] Traceback (most recent call last):
(APIServer pid=1) ERROR 11-12 10:04:31 [serving_chat.py:257]   File "/opt/vllm/{file}", line 88, in run
(APIServer pid=1) ERROR 11-12 10:04:31 [serving_chat.py:257]     return run()
(APIServer pid=1) ERROR 11-12 10:04:31 [serving_chat.py:257] {error}
"""


@pytest.mark.parametrize(
    "error",
    [
        "aiohttp.client_exceptions.ClientConnectorDNSError: Cannot connect to host a.example.com:443",
        "PermissionError: [Errno 13] Permission denied: '/.config'",
        "requests.exceptions.ConnectionError: HTTPSConnectionPool(host='huggingface.co', port=443): Max retries",
    ],
)
@pytest.mark.parametrize("file", ["vllm/entrypoints/openai/serving_chat.py", "vllm/usage/usage_lib.py"])
def test_one_request_of_a_server_that_is_up(error: str, file: str) -> None:
    log = UP + TRACEBACK.format(file=file, error=error)
    assert diagnose_logs([Log("x", [log.encode()])]).findings == ()


def test_the_engine_of_a_server_that_is_up() -> None:
    error = "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB."
    failed = TRACEBACK.format(file="vllm/v1/worker/gpu_model_runner.py", error=error).replace(
        "APIServer", "EngineCore_DP0"
    )
    (finding, *_) = diagnose_logs([Log("x", [(UP + failed).encode()])]).findings
    assert finding.id.startswith("MB-GPU-")


def event(kind: str, name: str, reason: str, message: str) -> dict[str, Any]:
    return {"kind": "Event", "metadata": {"name": "e", "namespace": "n"}, "reason": reason, "message": message,
            "involvedObject": {"kind": kind, "name": name, "namespace": "n"}}  # fmt: skip


PENDING = event("Workload", "w", "Pending", "couldn't assign flavors to pod set main: insufficient unused quota for "
                "nvidia.com/gpu in flavor l4, 1 more needed")  # fmt: skip


@pytest.mark.parametrize("admitted", [True, False])
def test_a_queue_that_admitted_in_the_end(admitted: bool) -> None:
    status = {"conditions": [{"type": "Admitted", "status": str(admitted)}]}
    workload = {"kind": "Workload", "metadata": {"name": "w", "namespace": "n"}, "status": status}
    found = diagnose_objects([workload, PENDING]).findings
    assert bool(found) is not admitted
