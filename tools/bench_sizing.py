"""The sizing's part of `make bench`: a thousand plans, one `berth size`, and the bytes it reads of a large model in S3.

- `size()` over 20 models x 5 cards x 2 tensor parallel sizes x 5 releases, on one core, in a fresh process: first with
  cold caches, then again with warm ones;
- `berth size` of a local config.json beside `python -c pass`;
- `berth size` of a model of 47 GB in S3, ten shards whose headers are real and whose tensors are holes; a proxy before
  the server counts every byte that comes back, listing and HTTP headers among them.

Run with `plans` as its argument it is that fresh process and prints its two times.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from modelberth.adapters.s3_server import S3Server, start_server
from modelberth.catalog.gpus import find_gpu
from modelberth.checkpoint.config import parse_config
from modelberth.checkpoint.tensors import TensorGroup
from modelberth.sizing.engine import EngineFlags
from modelberth.sizing.model import Model, model_of
from modelberth.sizing.plan import size

CONFIGS = Path(__file__).parents[1] / "tests" / "data" / "model-configs"
MODELS = (
    "DeepSeek-V3", "DeepSeek-V2-Lite", "Qwen3-0.6B", "Qwen3-8B", "Qwen3-32B-AWQ", "Qwen3-30B-A3B",
    "Qwen2.5-7B-Instruct", "Qwen2.5-72B-Instruct", "Qwen2.5-VL-7B-Instruct", "Llama-3.1-8B-Instruct",
    "Llama-3.3-70B-Instruct-FP8-dynamic", "Mixtral-8x7B-Instruct-v0.1", "gpt-oss-20b", "gpt-oss-120b",
    "gemma-2-9b-it", "gemma-3-27b-it", "granite-3.1-8b-instruct", "granite-4.0-h-small",
    "Mistral-Small-24B-Instruct-2501-quantized.w4a16", "phi-4",
)  # fmt: skip
CARDS = ("L4", "L40S", "A100-80", "H100", "H200")
RANKS = (1, 4)
RELEASES = ("0.10.2", "0.15.1", "0.19.0", "0.25.1", "0.33.0")
PROCESSES, COMMANDS, SHARDS = 3, 11, 10
LARGE = "Mistral-Small-24B-Instruct-2501"
"""A model of 47 GB."""


def bench_sizing(berth: Path, wall: Callable[[list[str]], float]) -> None:
    """Measure and print everything.

    Args:
        berth: the command.
        wall: seconds that a command takes.
    """
    print("\nsizing")
    thousand_plans()
    one_config(berth, wall)
    large_model(berth)


# --- a thousand plans --------------------------------------------------------------------------------------


def thousand_plans() -> None:
    """Medians over fresh processes."""
    command = [sys.executable, __file__, "plans"]
    runs = [json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout) for _ in range(PROCESSES)]
    number = runs[0]["plans"]
    for title, name in (("cold caches", "cold"), ("warm caches", "warm")):
        seconds = statistics.median(run[name] for run in runs)
        each = seconds / number * 1000
        print(f"  {number:,} plans, {title}: {seconds:.2f} s, {each:.2f} ms each   (one core, n={PROCESSES})")


def plans() -> None:
    """Plan everything twice on one core and print the seconds of each pass."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    models = [read(CONFIGS / f"{name}.json") for name in MODELS]
    cards = [find_gpu(name) for name in CARDS]
    flags = [EngineFlags(vllm=release, tensor_parallel=ranks) for release, ranks in product(RELEASES, RANKS)]
    cases = list(product(models, cards, flags))
    seconds = []
    for _ in ("cold", "warm"):
        start = time.perf_counter()
        for case in cases:
            size(*case)
        seconds.append(time.perf_counter() - start)
    print(json.dumps({"plans": len(cases), "cold": seconds[0], "warm": seconds[1]}))


def read(path: Path) -> Model:
    """The model of a config.json."""
    return model_of(parse_config(path.read_bytes()))


# --- one command -------------------------------------------------------------------------------------------


def one_config(berth: Path, wall: Callable[[list[str]], float]) -> None:
    """Wall time of `berth size` on a config.json, in turn with the bare interpreter."""
    command = [str(berth), "size", str(CONFIGS / "Qwen3-8B.json"), "--gpu", "L4", "--max-model-len", "8192"]
    bare = [sys.executable, "-c", "pass"]
    wall(command)  # once unmeasured: files into memory
    pairs = [(wall(command), wall(bare)) for _ in range(COMMANDS)]
    ours, python = (statistics.median(times) for times in zip(*pairs, strict=True))
    print(f"  berth size config.json: {ours * 1000:.0f} ms, {ours / python:.1f} x python -c pass   (n={COMMANDS})")


# --- a large model in S3 -----------------------------------------------------------------------------------


def large_model(berth: Path) -> None:
    """Bytes and time of `berth size s3://...`."""
    with tempfile.TemporaryDirectory(prefix="berth-bench-s3-") as folder:
        stored = write_shards(Path(folder, "store", "models", "large"))
        server = start_server(Path(folder, "store"), Path(folder, "s3.log"))
        try:
            with counting_proxy(server) as (endpoint, received):
                command = [str(berth), "size", "s3://models/large/", "--gpu", "H200", "-o", "json"]
                start = time.perf_counter()
                subprocess.run(command, env=environment(endpoint, server), stdout=subprocess.DEVNULL, check=True)
                seconds = time.perf_counter() - start
        finally:
            server.stop()
    moved = sum(received)
    print(
        f"  berth size s3://...: {moved / 1e6:.2f} MB received of a model of {stored / 1e9:.1f} GB in {SHARDS} shards "
        f"(1 of {stored / moved:,.0f}), {seconds:.1f} s"
    )


def write_shards(folder: Path) -> int:
    """Write a large model whose tensors are holes; its bytes as `ls` shows them."""
    folder.mkdir(parents=True)
    config = CONFIGS / f"{LARGE}.json"
    (folder / "config.json").write_bytes(config.read_bytes())
    tensors = [tensor for group in read(config).groups for tensor in single(group)]
    target, filled = sum(length for *_, length in tensors) / SHARDS, 0
    shards: list[dict[str, Any]] = [{}]
    files: dict[str, str] = {}
    stored = 0
    for name, dtype, shape, length in tensors:
        if filled and filled + length > target and len(shards) < SHARDS:
            shards.append({})
            filled = 0
        shards[-1][name] = {"dtype": dtype, "shape": shape, "data_offsets": [filled, filled + length]}
        files[name] = f"model-{len(shards):05}-of-{SHARDS:05}.safetensors"
        filled += length
    for number, shard in enumerate(shards, 1):
        header = json.dumps(shard, separators=(",", ":")).encode()
        end = 8 + len(header) + max(tensor["data_offsets"][1] for tensor in shard.values())
        with (folder / f"model-{number:05}-of-{SHARDS:05}.safetensors").open("wb") as file:
            file.write(struct.pack("<Q", len(header)) + header)
            file.truncate(end)
        stored += end
    index = {"metadata": {"total_size": sum(length for *_, length in tensors)}, "weight_map": files}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")
    return stored


def single(group: TensorGroup) -> Iterator[tuple[str, str, list[int], int]]:
    """Name, dtype, shape and bytes of every tensor of a dense model's group."""
    for layer in range(group.layers):
        yield group.name.replace("*", str(layer), 1), group.dtype, list(group.shape), group.tensor_bytes


def environment(endpoint: str, server: S3Server) -> dict[str, str]:
    """What the command needs to reach the store, and nothing of the user's own settings for another."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return kept | {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": server.keys.access_key,
        "AWS_SECRET_ACCESS_KEY": server.keys.secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }


@contextmanager
def counting_proxy(server: S3Server) -> Iterator[tuple[str, list[int]]]:
    """A TCP proxy before the server: its URL, and the sizes of all that it passed to the client."""
    address = urlsplit(server.endpoint)
    received: list[int] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with suppress(OSError):  # the listener was closed
                while True:
                    client, _ = listener.accept()
                    upstream = socket.create_connection((address.hostname, address.port))
                    threading.Thread(target=pump, args=(client, upstream, []), daemon=True).start()
                    threading.Thread(target=pump, args=(upstream, client, received), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", received
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def pump(source: socket.socket, sink: socket.socket, sizes: list[int]) -> None:
    """Pass bytes on until either side ends."""
    with suppress(OSError):
        while content := source.recv(1 << 16):
            sizes.append(len(content))
            sink.sendall(content)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__" and sys.argv[1:] == ["plans"]:
    plans()
