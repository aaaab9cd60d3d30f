"""Nothing is raised on logs that hold alarms and in which all is well, with every signature that there is."""

from __future__ import annotations

import pytest

from modelberth.findings.diagnosis.diagnose import Log, diagnose_logs

START = """\
(APIServer pid=1) INFO 11-20 10:00:00 [api_server.py:1977] vLLM API server version 0.11.0
(EngineCore_DP0 pid=12) INFO 11-20 10:00:05 [core.py:77] Initializing a V1 LLM engine (v0.11.0) with config: model='m'
(EngineCore_DP0 pid=12) WARNING 11-20 10:00:06 [symm_mem.py:67] SymmMemCommunicator: Device capability 8.9 not supported
(EngineCore_DP0 pid=12) WARNING 11-20 10:00:06 [custom_all_reduce.py:137] Custom allreduce is disabled because it's not \
supported on more than two PCIe-only GPUs.
(EngineCore_DP0 pid=12) INFO 11-20 10:00:07 [pynccl.py:103] vLLM is using nccl==2.27.3
(EngineCore_DP0 pid=12) INFO 11-20 10:01:07 [shm_broadcast.py:466] No available shared memory broadcast block found in 60 \
second. This typically happens when some processes are hanging.
(EngineCore_DP0 pid=12) WARNING 11-20 10:01:08 [marlin_utils_fp8.py:80] Your GPU does not have native support for FP8 \
computation but FP8 quantization is being used.
(EngineCore_DP0 pid=12) INFO 11-20 10:01:08 [gpu_model_runner.py:2602] Starting to load model /mnt/models...
(EngineCore_DP0 pid=12) INFO 11-20 10:01:30 [gpu_model_runner.py:2653] Model loading took 15.2683 GiB and 11.4 seconds
(EngineCore_DP0 pid=12) WARNING 11-20 10:01:40 [fused_moe.py:886] Using default MoE config. Performance might be sub-optimal!
(EngineCore_DP0 pid=12) INFO 11-20 10:01:41 [kv_cache_utils.py:1087] GPU KV cache size: 36,112 tokens
"""  # noqa: E501
READY = "(APIServer pid=1) INFO:     Application startup complete.\n"
SERVED = '(APIServer pid=1) INFO:     10.0.0.1:2 - "POST /v1/chat/completions HTTP/1.1" 200 OK\n'
REJECTED = """\
(APIServer pid=1) ERROR 11-20 10:02:00 [serving_chat.py:245] Error in preprocessing prompt inputs
(APIServer pid=1) ERROR 11-20 10:02:00 [serving_chat.py:245] Traceback (most recent call last):
(APIServer pid=1) ERROR 11-20 10:02:00 [serving_chat.py:245]   File "/x/serving_chat.py", line 230, in create
(APIServer pid=1) ERROR 11-20 10:02:00 [serving_chat.py:245] ValueError: This model's maximum context length is 8192 \
tokens. However, you requested 9000 tokens in the messages, Please reduce the length of the messages.
(APIServer pid=1) INFO:     10.0.0.1:2 - "POST /v1/chat/completions HTTP/1.1" 400 Bad Request
(APIServer pid=1) ERROR 11-20 10:02:01 [serving_chat.py:200] The model `gpt-4` does not exist.
(APIServer pid=1) INFO:     10.0.0.1:2 - "POST /v1/chat/completions HTTP/1.1" 404 Not Found
(APIServer pid=1) ERROR:    Exception in ASGI application
(APIServer pid=1) Traceback (most recent call last):
(APIServer pid=1)   File "/x/starlette/requests.py", line 1, in stream
(APIServer pid=1) starlette.requests.ClientDisconnect
"""
STOPPED = """\
(APIServer pid=1) INFO 11-20 10:05:00 [launcher.py:110] Shutting down FastAPI HTTP server.
(EngineCore_DP0 pid=12) Process EngineCore_DP0:
(EngineCore_DP0 pid=12) Traceback (most recent call last):
(EngineCore_DP0 pid=12) KeyboardInterrupt
[rank0]:[W1120 10:05:01.123456789 ProcessGroupNCCL.cpp:1538] Warning: WARNING: destroy_process_group() was not called
(APIServer pid=1) ERROR 11-20 10:05:01 [async_llm.py:430] AsyncLLM output_handler failed.
(APIServer pid=1) ERROR 11-20 10:05:01 [async_llm.py:430] vllm.v1.engine.exceptions.EngineDeadError: EngineCore \
encountered an issue. See stack trace (above) for the root cause.
(APIServer pid=1) INFO:     Shutting down
"""
STORAGE = """\
2025-11-20 10:00:00.200 1 kserve INFO [storage.py:download():66] Copying contents of s3://models/m to local
2025-11-20 10:00:30.200 1 kserve WARNING [connectionpool.py:868] Retrying (Retry(total=2)) after connection broken by \
'ReadTimeoutError("HTTPConnectionPool(host='minio', port=9000): Read timed out. (read timeout=60)")': /models/m/a
"""
STORAGE_DONE = (
    "2025-11-20 10:03:00.200 1 kserve INFO [storage.py:download():120] Successfully copied s3://models/m to /mnt\n"
)
EVENTS = """\
LAST SEEN   TYPE      REASON              OBJECT     MESSAGE
5m          Warning   FailedScheduling    pod/m-0    0/3 nodes are available: 3 Insufficient nvidia.com/gpu.
4m          Normal    Scheduled           pod/m-0    Successfully assigned ai/m-0 to gpu-1
3m          Normal    Started             pod/m-0    Started container kserve-container
2m          Warning   Unhealthy           pod/m-0    Startup probe failed: dial tcp 10.0.2.5:8080: connect: connection refused
1m          Warning   Unhealthy           pod/m-0    Readiness probe failed: HTTP probe failed with statuscode: 503
"""  # noqa: E501
KUEUE = """\
Events:
  Warning Pending        3m    kueue-admission  couldn't assign flavors to pod set main: insufficient unused quota for \
nvidia.com/gpu in flavor l4, 1 more needed
  Normal  QuotaReserved  1m    kueue-admission  Quota reserved in ClusterQueue main, wait time since queued was 120s
"""


ASKED = "".join(
    f"INFO 11-20 10:00:00 [logger.py:39] Received request cmpl-1: prompt: 'My log says {text}', params: x\n"
    for text in (
        "peer access is not supported between these two devices",
        "RuntimeError: CUDA out of memory. Tried to allocate 2.00 GiB",
        "you must provide a chat template if the tokenizer does not define one",
        "No space left on device",
        "0/3 nodes are available: 3 Insufficient nvidia.com/gpu",
    )
)


@pytest.mark.parametrize(
    "log",
    [
        ASKED,
        START + READY + ASKED,
        START,
        START + READY,
        START + READY + SERVED * 3,
        START + READY + SERVED + REJECTED + SERVED,
        START + READY + SERVED * 5 + REJECTED,
        START + READY + SERVED + STOPPED,
        START + READY + SERVED + REJECTED + SERVED + STOPPED,
        STORAGE,
        STORAGE + STORAGE_DONE,
        STORAGE + STORAGE_DONE + START + READY,
        EVENTS,
        KUEUE,
        EVENTS + START + READY + SERVED,
    ],
)
def test_nothing_is_raised(log: str) -> None:
    found = diagnose_logs([Log("healthy", [log.replace("\\\n", "").encode()])])
    assert [each.id for each in found.findings] == []
