"""The diagnosis' part of `make bench`: seconds for logs of 100 MB, peak memory for one of 200 MB.

Each log is made of lines as vLLM 0.8 to 0.33 prints them, with a failure at its end (a context that is longer than the
KV cache), which must be what is found:

- `serving`: throughput every ten seconds and an access log, ids and ports changing;
- `prompts`: requests logged with their prompts, no line like another;
- `crash loop`: a failed start of real vLLM with all its tracebacks, over and over;
- `one line`: 100 MB without a line end before the failure.
"""

from __future__ import annotations

import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

SIZE = 100 * 10**6
EXPECTED = "MB-KV-001"
FAILURE = """\
INFO 11-20 10:00:00 [api_server.py:1977] vLLM API server version 0.11.0
INFO 11-20 10:00:05 [core.py:77] Initializing a V1 LLM engine (v0.11.0) with config: model='Qwen/Qwen3-8B', max_seq_len=40960
INFO 11-20 10:00:30 [gpu_model_runner.py:2653] Model loading took 15.2683 GiB and 11.4 seconds
INFO 11-20 10:00:40 [gpu_worker.py:298] Available KV cache memory: 4.96 GiB
ERROR 11-20 10:00:41 [core.py:708] EngineCore failed to start.
ERROR 11-20 10:00:41 [core.py:708] Traceback (most recent call last):
ERROR 11-20 10:00:41 [core.py:708]   File "/usr/lib/python3.12/site-packages/vllm/v1/engine/core.py", line 699, in run_engine_core
ERROR 11-20 10:00:41 [core.py:708]     engine_core = EngineCoreProc(*args, **kwargs)
ERROR 11-20 10:00:41 [core.py:708]                   ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
ERROR 11-20 10:00:41 [core.py:708]   File "/usr/lib/python3.12/site-packages/vllm/v1/core/kv_cache_utils.py", line 690, in check
ERROR 11-20 10:00:41 [core.py:708]     raise ValueError(
ERROR 11-20 10:00:41 [core.py:708] ValueError: To serve at least one request with the models's max seq len (40960), (5.63 GiB KV cache is needed, which is larger than the available KV cache memory (4.96 GiB). Based on the available memory, the estimated maximum model length is 36112. Try increasing `gpu_memory_utilization` or decreasing `max_model_len` when initializing the engine.
Traceback (most recent call last):
  File "/usr/lib/python3.12/site-packages/vllm/v1/engine/utils.py", line 729, in wait_for_engine_startup
    raise RuntimeError("Engine core initialization failed. "
RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""  # noqa: E501


def serving(random_: random.Random) -> Iterator[str]:
    """A server at work."""
    second = 0
    while True:
        second += 1
        moment = f"11-19 {second // 3600 % 24:02d}:{second // 60 % 60:02d}:{second % 60:02d}"
        if second % 10 == 0:
            rate, requests = random_.uniform(1, 3000), random_.randrange(64)
            yield (f"(APIServer pid=1) INFO {moment} [loggers.py:127] Engine 000: Avg prompt throughput: {rate:.1f} "
                   f"tokens/s, Avg generation throughput: {rate / 3:.1f} tokens/s, Running: {requests} reqs, Waiting: "
                   f"0 reqs, GPU KV cache usage: {rate / 40:.1f}%, Prefix cache hit rate: 12.0%\n")  # fmt: skip
        port = random_.randrange(30000, 65000)
        yield f'(APIServer pid=1) INFO:     10.0.2.{port % 250}:{port} - "POST /v1/chat/completions HTTP/1.1" 200 OK\n'


WORDS = [
    "error",
    "memory",
    "the",
    "cache",
    "model",
    "request",
    "served",
    "Exception",
    "token",
    "quota",
    "berth",
    "harbor",
    "engine",
    "pod",
    "why",
    "does",
    "my",
    "weights",
    "and",
    "of",
    "with",
    "a",
    "is",
    "in",
    "for",
    "not",
    "GPU",
    "CUDA",
    "driver",
    "kernel",
    "please",
    "explain",
    "length",
    "context",
    "window",
    "failed",
    "write",
    "story",
]


def prompts(random_: random.Random) -> Iterator[str]:
    """Requests with their prompts."""
    while True:
        words = " ".join(random_.choice(WORDS) for _ in range(random_.randrange(20, 300)))
        yield (f"INFO 11-19 10:00:00 [logger.py:39] Received request chatcmpl-{random_.getrandbits(128):032x}: prompt: "
               f"'<|im_start|>user\\n{words}<|im_end|>\\n', params: SamplingParams(n=1, temperature=0.7), "
               "prompt_token_ids: None, lora_request: None.\n")  # fmt: skip


REAL = Path(__file__).parents[1] / "tests" / "data" / "engine-logs" / "failures" / "context-too-long.log"


def crash_loop(_: random.Random) -> Iterator[str]:
    """The same failure, restart after restart."""
    failure = REAL.read_text()
    while True:
        yield failure


def one_line(_: random.Random) -> Iterator[str]:
    """No line end."""
    while True:
        yield "x" * 10_000


MAKERS: dict[str, Callable[[random.Random], Iterator[str]]] = {
    "serving": serving, "prompts": prompts, "crash loop": crash_loop, "one line": one_line,
}  # fmt: skip


def write(path: Path, maker: Callable[[random.Random], Iterator[str]], size: int) -> None:
    """Write a log of about `size` bytes that ends with the failure."""
    written = 0
    with path.open("w") as file:
        for text in maker(random.Random(7)):
            file.write(text)
            written += len(text)
            if written >= size:
                break
        file.write("\n" + FAILURE)


def diagnosed(berth: Path, log: Path) -> tuple[float, int, list[str]]:
    """Seconds, peak memory in bytes, and the ids of what is found, of one `berth diagnose`."""
    start = time.perf_counter()
    process = subprocess.Popen([berth, "diagnose", "--log", log, "-o", "json"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    found = json.loads(process.stdout.read())
    _, _, usage = os.wait4(process.pid, 0)
    return time.perf_counter() - start, usage.ru_maxrss * 1024, [each["id"] for each in found["findings"]]


def bench_diagnose(berth: Path) -> None:
    """Measure and print everything."""
    with tempfile.TemporaryDirectory(prefix="berth-bench-") as folder:
        log = Path(folder) / "vllm.log"
        for name, maker in MAKERS.items():
            for size in (SIZE, 2 * SIZE) if name in ("serving", "prompts") else (SIZE,):
                write(log, maker, size)
                seconds, peak, found = diagnosed(berth, log)
                first = found[0] if found else "nothing"
                said = "" if first == EXPECTED else f"   found {first} instead of {EXPECTED}"
                print(
                    f"diagnose {name:10} {log.stat().st_size / 1e6:5.0f} MB {seconds:6.2f} s {peak / 1e6:6.0f} MB{said}"
                )


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    bench_diagnose(Path(sys.executable).with_name("berth"))
