"""What logs of vLLM 0.8 to 0.33 say about memory, and what text that is no such log does not say."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelberth.catalog import load
from modelberth.timeline.log_message import MAX_LINE
from modelberth.timeline.memory_report import MemoryReport, read_memory_report

EMPTY = {field.name: None for field in dataclasses.fields(MemoryReport)} | {"arguments": {}, "evidence": {}}

# Every field that is not None, without evidence; of the arguments only some.
ERAS: dict[str, dict[str, Any]] = {
    "0.8.1-offline": {
        "vllm_version": "0.8.1", "entrypoint": "offline", "model_runner": "v1", "started": True,
        "weights_gib": 0.2389, "cuda_graphs_gib": 0.31,
        "kv_cache_tokens": 3_581_232, "max_concurrency": 1748.65, "concurrency_len": 2048,
    },
    "0.8.3-v0": {
        "vllm_version": "0.8.3", "entrypoint": "server", "started": True, "gpu_total_gib": 21.96,
        "weights_gib": 0.2393, "non_torch_gib": 0.04, "peak_activation_gib": 0.47, "kv_cache_gib": 19.0,
        "kv_cache_blocks": 34591, "max_concurrency": 270.24, "concurrency_len": 2048,
    },
    "0.8.3-tp4-sampler-oom": {
        "vllm_version": "0.8.3", "entrypoint": "server", "model_runner": "v1", "started": False,
        "failure": "sampler-oom", "gpu_total_gib": 39.38, "weights_gib": 34.434, "cuda_graphs_gib": 2.65,
        "kv_cache_tokens": 9072, "max_concurrency": 1.11, "concurrency_len": 8192,
    },
    "0.9.1-start-check": {
        "vllm_version": "0.9.1", "started": False, "failure": "start-check", "entrypoint": "server",
        "free_gib": 31.44, "gpu_total_gib": 47.38, "desired_gib": 45.01,
    },
    "0.9.2-server": {
        "vllm_version": "0.9.2", "entrypoint": "server", "model_runner": "v1", "started": True,
        "weights_gib": 15.2683, "kv_cache_gib": 18.69, "cuda_graphs_gib": 2.24, "kv_cache_blocks": 8505,
        "kv_cache_tokens": 136_080, "max_concurrency": 3.32, "concurrency_len": 40960,
    },
    "0.10.1-tp2": {
        "vllm_version": "0.10.1.1", "entrypoint": "server", "model_runner": "v1", "started": True,
        "weights_gib": 7.1217, "kv_cache_gib": 12.02, "cuda_graphs_gib": 0.65, "kv_cache_blocks": 28137,
        "kv_cache_tokens": 450_192, "max_concurrency": 27.48, "concurrency_len": 16384,
    },
    "0.10.2-ledger": {
        "vllm_version": "0.10.2", "entrypoint": "offline", "model_runner": "v1", "started": True,
        "gpu_total_gib": 79.19, "free_gib": 78.72, "desired_gib": 71.27,
        "weights_gib": 14.0786, "peak_activation_gib": 1.97, "non_torch_gib": 0.07, "cuda_graphs_gib": 0.67,
        "kv_cache_gib": 55.15, "kv_cache_tokens": 451_744, "max_concurrency": 110.29, "concurrency_len": 4096,
    },
    "0.13.0-no-kv-memory": {
        "vllm_version": "0.13.0+faa43dbf.nv26.01", "entrypoint": "server", "model_runner": "v1", "started": False,
        "failure": "no-kv-memory", "weights_gib": 15.2227, "kv_cache_gib": -1.3,
    },
    "0.15.1-eager-offline": {
        "vllm_version": "0.15.1", "entrypoint": "offline", "model_runner": "v1", "started": True,
        "weights_gib": 14.99, "kv_cache_gib": 19.28,
        "kv_cache_tokens": 157_936, "max_concurrency": 1.2, "concurrency_len": 131_072,
    },
    "0.17.0-tp2": {
        "vllm_version": "0.17.0", "entrypoint": "server", "model_runner": "v1", "started": True,
        "weights_gib": 2.85, "kv_cache_gib": 4.89, "cuda_graphs_gib": 1.65,
        "kv_cache_tokens": 71_152, "max_concurrency": 2.17, "concurrency_len": 32768,
    },
    "0.22.0-server": {
        "vllm_version": "0.22.0", "entrypoint": "server", "model_runner": "v1", "started": True,
        "weights_gib": 14.29, "kv_cache_gib": 4.76, "cuda_graphs_gib": 0.71, "cuda_graphs_estimated_gib": 0.79,
        "kv_cache_blocks": 5568, "kv_cache_tokens": 89_088, "max_concurrency": 2.72, "concurrency_len": 32768,
    },
    "0.23.0-context-too-long": {
        "vllm_version": "0.23.0", "entrypoint": "server", "started": False, "failure": "context-too-long",
        "kv_cache_gib": 17.39, "kv_needed_gib": 22.5, "kv_available_gib": 17.39, "estimated_max_model_len": 810_208,
    },
    "0.29.0-weights-oom": {
        "vllm_version": "0.29.0", "entrypoint": "server", "started": False, "failure": "weights-oom",
        "gpu_name": "NVIDIA RTX PRO 6000 Blackwell Server Edition", "gpu_total_gib": 95.01,
    },
    "0.33.0-ledger": {
        "vllm_version": "0.33.0", "entrypoint": "server", "model_runner": "v2", "started": True,
        "gpu_total_gib": 22.03, "free_gib": 21.84, "desired_gib": 19.83,
        "weights_gib": 13.18, "consumed_gib": 13.34, "peak_activation_gib": 0.72,
        "cuda_graphs_gib": 0.41, "cuda_graphs_estimated_gib": 0.46,
        "kv_cache_gib": 5.77, "kv_cache_tokens": 37_824, "max_concurrency": 9.23, "concurrency_len": 4096,
    },
}  # fmt: skip

ARGUMENTS = {
    "0.8.1-offline": {"model": "facebook/opt-125m", "dtype": "float16", "max-num-batched-tokens": "16384"},
    "0.8.3-v0": {"gpu-memory-utilization": "0.9", "enforce-eager": "true", "kv-cache-dtype": "auto"},
    "0.8.3-tp4-sampler-oom": {
        "tensor-parallel-size": "4", "gpu-memory-utilization": "0.95", "max-num-seqs": "2", "dtype": "bfloat16",
        "max-model-len": "8192", "enforce-eager": "false", "pipeline-parallel-size": "1",
    },
    "0.9.1-start-check": {"tensor-parallel-size": "2", "max-num-seqs": "1", "max-model-len": "1024"},
    "0.9.2-server": {"max-model-len": "40960", "max-num-batched-tokens": "2048"},
    "0.10.2-ledger": {"gpu-memory-utilization": "0.9", "max-num-batched-tokens": "16384"},
    "0.13.0-no-kv-memory": {"kv-cache-dtype": "fp8", "quantization": "compressed-tensors"},
    "0.15.1-eager-offline": {"enforce-eager": "true", "max-model-len": "131072"},
    "0.17.0-tp2": {"model": "Qwen/Qwen3-8B-AWQ", "quantization": "awq_marlin", "gpu-memory-utilization": "0.2"},
    "0.29.0-weights-oom": {"enable-expert-parallel": "true", "quantization": "fp8"},
    "0.33.0-ledger": {"max-num-seqs": "64", "max-num-batched-tokens": "2048", "max-model-len": "4096"},
}  # fmt: skip


def known(report: MemoryReport) -> dict[str, Any]:
    """The fields of a report that are not None, but arguments and evidence."""
    fields = dataclasses.asdict(report)
    return {name: fields[name] for name in fields if name not in ("arguments", "evidence") and fields[name] is not None}


def report_of(text: str) -> MemoryReport:
    return read_memory_report(text.splitlines())


@pytest.fixture(scope="session")
def log(data_folder: Path) -> Any:
    return lambda name: (data_folder / "engine-logs" / f"{name}.log").read_text()


@pytest.mark.parametrize("era", ERAS)
def test_the_figures_of_an_era_and_nothing_else(era: str, log: Any):
    report = report_of(log(f"memory-{era}"))
    assert known(report) == ERAS[era]
    assert report.arguments.items() >= ARGUMENTS.get(era, {}).items()


def test_every_log_has_its_figures_here(data_folder: Path):
    files = {path.stem.removeprefix("memory-") for path in (data_folder / "engine-logs").glob("memory-*.log")}
    assert files == set(ERAS)


@pytest.mark.parametrize("era", ERAS)
def test_evidence_is_the_line_that_has_the_figure(era: str, log: Any):
    text = log(f"memory-{era}")
    report, lines = report_of(text), text.splitlines()
    assert set(report.evidence) == set(ERAS[era]) | {f"--{flag}" for flag in report.arguments}
    for name in ERAS[era]:
        line = lines[report.evidence[name] - 1].replace(",", "")
        value = getattr(report, name)
        if name.endswith(("_gib", "_tokens", "_blocks", "_len", "_concurrency")):
            assert any(f"{value:{form}}" in line for form in ("", ".2f", ".4f")), (name, line)
    assert report.arguments["model"] in lines[report.evidence["--model"] - 1]


@pytest.mark.parametrize("name", ["bf16-eager", "w4a16-compiled"])
def test_a_real_log_of_a_cpu(name: str, log: Any):
    report = report_of(log(name))
    assert known(report) == {
        "vllm_version": "0.32.0",
        "entrypoint": "server",
        "model_runner": "v1",
        "started": True,
        "kv_cache_gib": 1.0,
        "kv_cache_tokens": 699_008,
        "max_concurrency": 682.62,
        "concurrency_len": 1024,
    }
    assert report.arguments["enforce-eager"] == str(name == "bf16-eager").lower()
    assert report.arguments["dtype"] == "bfloat16"
    assert (
        report.evidence["vllm_version"] == log(name).splitlines().index(next(_lines_with(log(name), "version 0"))) + 1
    )


def _lines_with(text: str, part: str) -> Any:
    return (line for line in text.splitlines() if part in line)


# Wordings that no file above has: one message, and what it says.
LINES: dict[str, dict[str, Any]] = {
    "Memory profiling takes 2.31 seconds. Total non KV cache memory: 16.1GiB; torch peak memory increase: 1.97GiB; "
    "non-torch forward increase memory: 0.07GiB; weights memory: 14.08GiB.": {
        "peak_activation_gib": 1.97, "non_torch_gib": 0.07, "weights_gib": 14.08,
    },
    "Memory profiling takes 2.31 seconds. Total non KV cache memory: 16.1GiB; torch peak memory increase: 9.97GiB; "
    "total consumed (from mem_get_info): 13.34GiB; weights memory: 13.18GiB.": {
        "consumed_gib": 13.34, "weights_gib": 13.18,
    },
    "Initial free memory 21.84 GiB, reserved 5.22 GiB memory for KV Cache as specified by kv_cache_memory_bytes "
    "config and skipped memory profiling.": {"free_gib": 21.84, "kv_cache_gib": 5.22},
    "Initial free memory 21.84 GiB, reserved 5.22GiB memory for KV Cache as specified by kv_cache_memory_bytes "
    "config": {"free_gib": 21.84, "kv_cache_gib": 5.22},
    "Reserving 1.5 GiB of GPU memory for frontend multimodal decoding (1.0 GiB raw-frame semaphore budget, 0.5 GiB "
    "decoder+CUDA-context across 1 API server(s) @ 0.5 GiB/server); KV cache memory reduced to 4.27 GiB.": {
        "kv_cache_gib": 4.27,
    },
    "Auto set (4.5/7.71) GiB for KV cache on node 0, with 7.0 GiB requested memory for the worker.": {
        "kv_cache_gib": 4.5,
    },
    "VLLM_CPU_KVCACHE_SPACE not set. Using 4.0 GiB for KV cache.": {"kv_cache_gib": 4.0},
    "XPU KV cache size: 12,000 tokens, Maximum concurrency for 4,096 tokens per request: 2.93x": {
        "kv_cache_tokens": 12000, "concurrency_len": 4096, "max_concurrency": 2.93,
    },
    "vllm cache_config_info with initialization after num_gpu_blocks is: 9853": {"kv_cache_blocks": 9853},
    "Overriding num_gpu_blocks=900 with num_gpu_blocks_override=512": {"kv_cache_blocks": 512},
    "Free memory on device cuda:0 (1.5/22.03 GiB) on startup is less than the engine's budget after excluding "
    "external process's weights (0.9, 6.61 GiB). Decrease": {
        "free_gib": 1.5, "gpu_total_gib": 22.03, "desired_gib": 6.61, "failure": "start-check", "started": False,
    },
    "Externally held weights on device cuda:0 (20.1/22.03 GiB) exceed the desired GPU memory utilization "
    "(0.9, 19.83 GiB).": {
        "gpu_total_gib": 22.03, "desired_gib": 19.83, "failure": "start-check", "started": False,
    },
    "Available memory on node 0 (3.1/7.71 GiB) on startup is less than desired CPU memory utilization (0.9, 6.94 GiB)."
    : {"free_gib": 3.1, "desired_gib": 6.94, "failure": "start-check", "started": False},
    "Available memory on node 0 (3.1/7.71 GiB) on kv cache allocation is less than requested memory for kv (4.0 GiB)."
    : {"failure": "no-kv-memory", "started": False},
    "The worker already uses 8.0 GiB (model weights and runtime), more than the 6.9 GiB of CPU memory": {
        "failure": "no-kv-memory", "started": False,
    },
    "Cannot auto-fit max_model_len: not enough GPU memory available to serve even a single token.": {
        "failure": "no-kv-memory", "started": False,
    },
    "frontend multimodal GPU decoding reserves 2.0 GiB (1.0 GiB raw-frame budget, 1.0 GiB decoder cache budget), but "
    "only 1.44 GiB is available for the KV cache.": {
        "kv_available_gib": 1.44, "failure": "no-kv-memory", "started": False,
    },
    "To serve at least one request with the models's max seq len (32768), (8.00 GB KV cache is needed, which is larger "
    "than the available KV cache memory (6.45 GB). Try increasing": {
        "kv_needed_gib": 8.0, "kv_available_gib": 6.45, "failure": "context-too-long", "started": False,
    },
    "The model's max seq len (131072) is larger than the maximum number of tokens that can be stored in KV cache "
    "(81536). Try increasing": {"kv_cache_tokens": 81536, "failure": "context-too-long", "started": False},
    "CUDA out of memory occurred when warming up pooler (task=embed) with 64 dummy requests.": {
        "failure": "sampler-oom", "started": False,
    },
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 22.03 GiB of which 1.00 MiB is free."
    : {"gpu_total_gib": 22.03, "failure": "oom", "started": False},
    "EngineCore failed to start.": {"started": False},
    "Model runner v2 does not yet support mamba; using the v1 model runner instead.": {"model_runner": "v1"},
    "Model Runner V2 does not yet support the thinking_token_budget request parameter. Set": {},
    "Using configuration from /x/E=8,N=7168,device_name=NVIDIA_H100_80GB_HBM3,dtype=fp8_w8a8.json for MoE layer.": {
        "gpu_name": "NVIDIA H100 80GB HBM3",
    },
    "GPU 0: NVIDIA L4 (UUID: GPU-00000000-0000-0000-0000-000000000000)": {"gpu_name": "NVIDIA L4"},
    "Adding requests: 100%": {"entrypoint": "offline"},
    "Rendering prompts: 100%": {"entrypoint": "offline"},
    "Using default W8A8 Block FP8 kernel config. Performance might be sub-optimal! Config file not found at "
    "/x/N=1536,K=4096,device_name=NVIDIA_L4,dtype=fp8_w8a8,block_shape=[128,128].json": {"gpu_name": "NVIDIA L4"},
    "vLLM gRPC server version 0.14.1": {"entrypoint": "server", "vllm_version": "0.14.1"},
    "vLLM server version 0.20.2, serving model m": {"entrypoint": "server", "vllm_version": "0.20.2"},
    "model weights take 0.24GiB; non_torch_memory takes 0.04GiB; PyTorch activation peak memory takes 0.47GiB; the "
    "rest of the memory reserved for KV Cache is 19.00GiB.": {
        "weights_gib": 0.24, "non_torch_gib": 0.04, "peak_activation_gib": 0.47, "kv_cache_gib": 19.0,
    },
    "the current vLLM instance can use total_gpu_memory (21.96GiB) x gpu_memory_utilization (0.90) = 19.76GiB": {
        "gpu_total_gib": 21.96,
    },
    "# rocm blocks: 34591, # CPU blocks: 7281": {"kv_cache_blocks": 34591},
    "# cpu blocks: 512, # CPU blocks: 0": {"kv_cache_blocks": 512},
    "GPU + host KV cache size: 12,000 tokens, Maximum concurrency for 4,096 tokens per request: 2.93x": {
        "kv_cache_tokens": 12000, "concurrency_len": 4096, "max_concurrency": 2.93,
    },
    "CUDA graph pool memory: 0.71 GiB (actual), 0.79 GiB (estimated), difference: 0.08 GiB (11.3%).": {
        "cuda_graphs_gib": 0.71, "cuda_graphs_estimated_gib": 0.79,
    },
    "Free memory on device (21.84/22.03 GiB) on startup. Desired GPU memory utilization is (0.9, 19.83 GiB). Actual "
    "usage is 13.18 GiB for weight, 0.55 GiB for peak activation, 0.1 GiB for non-torch memory, and -0.02 GiB for "
    "CUDAGraph memory. Replace it with `--kv-cache-memory=1` (0.0 GiB) to fit into requested memory, or "
    "`--kv-cache-memory=2` (0.0 GiB) to fully utilize gpu memory. Current kv cache memory in use is 5.99 GiB.": {
        "free_gib": 21.84, "gpu_total_gib": 22.03, "desired_gib": 19.83, "weights_gib": 13.18,
        "peak_activation_gib": 0.55, "non_torch_gib": 0.1, "cuda_graphs_gib": -0.02, "kv_cache_gib": 5.99,
    },
    "Failed to load model - not enough GPU memory. Try lowering --gpu-memory-utilization (original error: CUDA out of "
    "memory. Tried to allocate 1 MiB. GPU 0 has a total capacity of 22.03 GiB of which 1.00 MiB is free.)": {
        "gpu_total_gib": 22.03, "failure": "weights-oom", "started": False,
    },
    "CUDA out of memory occurred when warming up sampler with 256 dummy requests.": {
        "failure": "sampler-oom", "started": False,
    },
    "XPU out of memory. Tried to allocate 2.00 GiB.": {"failure": "oom", "started": False},
    "CUDA error: out of memory": {"failure": "oom", "started": False},
    "Engine core initialization failed. See root cause above.": {"started": False},
    "Engine process failed to start. See stack trace for the root cause.": {"started": False},
    "WorkerProc initialization failed due to an exception in a background process.": {"started": False},
    "WorkerProc failed to start.": {"started": False},
    "Using V2 Model Runner": {"model_runner": "v2"},
    "Model Runner V2 requires Triton; using the V1 model runner instead.": {"model_runner": "v1"},
    "Model runner v2 requires Triton; using the v1 model runner instead.": {"model_runner": "v1"},
    "Defaulting to V1 model runner on ROCm for model architectures: LlamaForCausalLM": {"model_runner": "v1"},
    "Available memory on node 0 (3.1/7.71 GiB) is said in other words": {},
    "Sleep mode freed 13.18 GiB memory, 1.20 GiB memory is still in use.": {},
    "Encoder graph capturing finished in 3 secs, took 0.20 GiB (4 graphs)": {},
    "2 Engines: vllm cache_config_info with initialization after num_gpu_blocks is: 9853": {},
}  # fmt: skip


@pytest.mark.parametrize("message", LINES, ids=lambda text: text[:60])
@pytest.mark.parametrize("prefix", ["", "(EngineCore pid=1) ERROR 11-23 13:51:30 [core.py:1] ValueError: "])
def test_a_message(message: str, prefix: str):
    assert known(read_memory_report([prefix + message])) == LINES[message]


@pytest.mark.parametrize("message", [text for text in LINES if LINES[text]], ids=lambda text: text[:60])
@pytest.mark.parametrize("before", ["prompt: '", "raise ValueError('", "The log said: ", "x" * MAX_LINE])
def test_a_quoted_message_says_nothing(message: str, before: str):
    line = f"(APIServer_ pid=1) INFO 11-23 13:51:30 [logger.py:40] {before}{message}'"
    assert set(known(read_memory_report([line]))) <= {"entrypoint"}
    assert known(read_memory_report([before + message])) == {}


ARGUMENT_LINES = {
    "Using max model len 32768": ("max-model-len", "32768"),
    "Auto-fit max_model_len: reduced from 131072 to 42,240 to fit in GPU memory (6.4": ("max-model-len", "42240"),
    "Auto-fit max_model_len: full model context length 32768 fits in available": ("max-model-len", "32768"),
    "To serve at least one request with the model's max seq len (8192), (1.0 GiB KV": ("max-model-len", "8192"),
    "The model's max seq len (131072) is larger than the maximum number": ("max-model-len", "131072"),
    "Chunked prefill is enabled with max_num_batched_tokens=2048.": ("max-num-batched-tokens", "2048"),
    "Raising max_num_batched_tokens from 2048 to 4096 to accommodate": ("max-num-batched-tokens", "4096"),
    "Setting kv cache block size to 64 for FLASHMLA backend.": ("block-size", "64"),
    "Forcing kv cache block size to 128 for CUTLASS_MLA backend.": ("block-size", "128"),
    "Setting attention block size to 528 tokens to ensure that attention": ("block-size", "528"),
    "Free memory on device (1.5/2.5 GiB) on startup is less than desired GPU memory utilization (0.95, 2.4 GiB).": (
        "gpu-memory-utilization",
        "0.95",
    ),
    "the current vLLM instance can use total_gpu_memory (21.96GiB) x gpu_memory_utilization (0.90) = 19.76GiB": (
        "gpu-memory-utilization",
        "0.90",
    ),
}


@pytest.mark.parametrize("message", ARGUMENT_LINES)
def test_an_argument_that_the_engine_tells_in_passing(message: str):
    flag, value = ARGUMENT_LINES[message]
    assert read_memory_report([message]).arguments == {flag: value}


# Of one figure told twice: the line with more digits, the one that rounds, the figure.
ROUNDED = [
    ("Model loading took 14.0786 GiB and 5.0 seconds", "Memory profiling takes 2 seconds. weights memory: 14.08GiB."),
    ("Model loading took 14.0786 GiB and 5.0 seconds", "model weights take 14.08GiB; non_torch_memory takes 0.1GiB;"),
    ("Graph capturing finished in 5 secs, took 0.70 GiB", "CUDA graph pool memory: 0.71 GiB (actual), 0.7 GiB (est"),
]


@pytest.mark.parametrize(("exact", "rounded"), ROUNDED)
def test_of_a_figure_told_twice_the_exact_one_counts_in_any_order(exact: str, rounded: str):
    one, other = read_memory_report([exact, rounded]), read_memory_report([rounded, exact])
    alone = read_memory_report([exact])
    for report in (one, other):
        assert known(report).items() >= known(alone).items()


def test_an_argument_is_kept_before_its_rounding():
    rounded = "the current vLLM instance can use total_gpu_memory (22.0GiB) x gpu_memory_utilization (0.90) = 19.8GiB"
    lines = ["non-default args: {'gpu_memory_utilization': 0.895}", rounded]
    assert read_memory_report(lines).arguments == {"gpu-memory-utilization": "0.895"}


def test_what_the_engine_resolves_replaces_what_it_was_given():
    lines = [
        "non-default args: {'model': 'm', 'max_model_len': -1, 'dtype': 'auto', 'quantization': None}",
        "Initializing a V1 LLM engine (v0.25.1) with config: model='m', dtype=torch.bfloat16, max_seq_len=131072, "
        "quantization=fp8, kv_cache_dtype=auto",
        "Auto-fit max_model_len: reduced from 131072 to 42240 to fit in available GPU memory (6.4 GiB available)",
    ]
    report = read_memory_report(lines)
    assert report.arguments["dtype"] == "bfloat16"
    assert report.arguments["quantization"] == "fp8"
    assert report.arguments["max-model-len"] == "42240"
    assert report.evidence["--max-model-len"] == 3


@pytest.mark.parametrize("key", load("memory_log")["engineArguments"])
def test_every_known_argument_by_its_flag(key: str):
    lines = ["non-default args: {'x': 1, '" + key + "': 7}", f"args: Namespace(x=1, {key}=7)"]
    for line in lines:
        assert read_memory_report([line]).arguments == {key.replace("_", "-"): "7"}


SERVER_ONLY = ["host", "port", "api_server_count", "model_tag", "api_key", "allowed_origins", "root_path", "subparser"]
SERVER_ONLY += ["enable_auto_tool_choice", "tool_call_parser", "chat_template", "uvicorn_log_level"]


@pytest.mark.parametrize("key", SERVER_ONLY)
def test_what_only_a_server_takes_tells_a_server(key: str):
    listed = "non-default args: {'disable_log_stats': True, '" + key + "': 'x'}"
    assert read_memory_report([listed]).entrypoint == "server"
    assert read_memory_report([listed.replace(f"'{key}'", f"'not_{key}'")]).entrypoint == "offline"


def test_secrets_and_unknown_arguments_stay_out(log: Any):
    text = log("memory-0.8.3-tp4-sampler-oom")
    assert "not-for-the-report" in text
    assert "not-for-the-report" not in repr(report_of(text))
    listed = read_memory_report(["non-default args: {'hf_token': 'hf_abc', 'seed': 5, 'max_num_seqs': 4}"])
    assert listed.arguments == {"max-num-seqs": "4"}


@pytest.mark.parametrize(
    ("listed", "value"),
    [
        ("{'model': 'it\\'s, {a} model', 'seed': 1}", "it's, {a} model"),
        ("{'model': \"it's\", 'x': 1}", "it's"),
        ("{'x': {'model': 'inner'}, 'model': 'outer'}", "outer"),
        ("{'x': [1, (2, 3)], 'model': 'outer'} {'model': 'after'}", "outer"),
        ("{'x': <Mode.A: 1>, 'model': 'outer', 'model': None", "outer"),
        ("{'model': 'cut", None),
        ("{'model': ['a', 'b']}", None),
        ("{'model': Config(a=1)}", None),
        ("{'model': ''}", None),
        ("{'model': '" + "x" * 301 + "'}", None),
        ("{model: 1}", None),
        ("{", None),
    ],
)
def test_lists_of_arguments(listed: str, value: str | None):
    assert read_memory_report([f"non-default args: {listed}"]).arguments.get("model") == value


PREFIXES = [
    "2025-11-23T13:51:44.123456789Z ",
    "2025-11-23T13:51:44.123+01:00 stdout F ",
    "[pod/chat-0/kserve-container] 2025-11-23T13:51:44Z ",
    "vllm-1  | ",
    "Nov  3 13:51:44 gpu-1 vllm[77]: ",
    "\x1b[0;36m(EngineCore_DP0 pid=12)\x1b[0;0m ",
    "(EngineCore_DP0 pid=12) (RayWorkerWrapper pid=12, ip=10.0.0.1) ",
    "(VllmWorker rank=0 pid=12) ",
    "Capturing CUDA graphs (mixed prefill-decode, PIECEWISE):  98%|█████████▊| 50/51 [00:02<00:00, 17.70it/s]",
    "\rLoading safetensors checkpoint shards: 100% Completed | 4/4 [00:03<00:00,  1.2s/it]\r",
]


@pytest.mark.parametrize("prefix", PREFIXES)
@pytest.mark.parametrize(
    "header", ["", "INFO 04-09 12:00:00 [gpu_worker.py:206] ", "DEBUG 2025-04-09 12:00:00 [v1/worker/gpu_worker.py:2] "]
)
def test_what_stands_in_front_of_a_message(prefix: str, header: str):
    line = f"{prefix}{header}Available KV cache memory: 1,019.28 GiB\x1b[0m\r\n"
    assert known(read_memory_report([line])) == {"kv_cache_gib": 1019.28}


@pytest.mark.parametrize("key", ["log", "message"])
def test_a_log_of_json_lines(key: str):
    lines = [json.dumps({key: "INFO 04-09 12:00:00 [gpu_worker.py:206] Available KV cache memory: 19.28 GiB\n"})]
    assert known(read_memory_report([*lines, '{"other": 1}', '{"log": 5}', "{broken", '{"a":' * 9000])) == {
        "kv_cache_gib": 19.28
    }


FROM_THE_SOURCE_FILE = {
    ("V1", "gpu_model_runner.py"): "v1",
    ("V1", "v1/worker/gpu/model_runner.py"): "v2",
    ("V0", "model_runner.py"): None,
    ("V1", "other.py"): None,
}


@pytest.mark.parametrize("case", FROM_THE_SOURCE_FILE)
@pytest.mark.parametrize(
    "message",
    [
        "Model loading took 1.5 GiB and 1.000000 seconds",
        "Graph capturing finished in 5 secs, took 1.00 GiB",
        "Profiling CUDA graph memory: FULL=35 (largest=256)",
    ],
)
def test_the_model_runner_is_told_by_the_file_that_logs(case: tuple[str, str], message: str):
    engine, file = case
    lines = [
        f"INFO 04-09 12:00:00 [core.py:1] Initializing a {engine} LLM engine (v0.20.2) with config: model='m'",
        f"INFO 04-09 12:00:01 [{file}:7] {message}",
    ]
    assert read_memory_report(lines).model_runner == FROM_THE_SOURCE_FILE[case]


RANKS = {
    "Model loading took {} GiB memory and 3.000000 seconds": ("weights_gib", 2.5),
    "Available KV cache memory: {} GiB": ("kv_cache_gib", 1.25),
    "GPU KV cache size: {} tokens": ("kv_cache_tokens", None),
    "Graph capturing finished in 5 secs, took {} GiB": ("cuda_graphs_gib", 2.5),
}


@pytest.mark.parametrize("wording", RANKS)
@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
def test_of_several_ranks_the_poorest_counts(wording: str, order: tuple[int, ...]):
    name, expected = RANKS[wording]
    printed = ["1.25", "2", "2.5"] if expected else ["9,072", "9,168", "10,584"]
    report = read_memory_report([f"(Worker_TP{i} pid={i}) " + wording.format(printed[i]) for i in order])
    assert getattr(report, name) == (expected or 9072)


def test_interleaved_ranks_say_the_same_in_any_order(log: Any):
    lines = log("memory-0.17.0-tp2").splitlines()
    head, workers, tail = lines[:7], lines[7:11], lines[11:]
    assert all("Worker_TP" in line for line in workers)
    for seed in range(8):
        random.Random(seed).shuffle(workers)
        assert known(read_memory_report([*head, *workers, *tail])) == ERAS["0.17.0-tp2"]


def test_a_figure_with_more_digits_is_kept_before_its_rounding_in_any_order(log: Any):
    lines = log("memory-0.10.2-ledger").splitlines()
    ledger = next(line for line in lines if "Actual usage" in line)
    lines.remove(ledger)
    assert known(read_memory_report([*lines[:4], ledger, *lines[4:]])) == ERAS["0.10.2-ledger"]
    alone = read_memory_report([ledger])
    assert (alone.weights_gib, alone.cuda_graphs_gib, alone.kv_cache_gib) == (14.08, 0.67, None)


COMPLETE, FAILED = "0.22.0-server", "0.23.0-context-too-long"


def test_of_several_starts_the_last_complete_one_counts(log: Any):
    complete, failed = log(f"memory-{COMPLETE}"), log(f"memory-{FAILED}")
    assert known(report_of(failed + complete)) == ERAS[COMPLETE]
    assert known(report_of(complete + failed)) == ERAS[FAILED]
    assert known(report_of(failed * 3 + complete)) == ERAS[COMPLETE]
    begun = "".join(log("memory-0.17.0-tp2").splitlines(keepends=True)[:9])
    assert known(report_of(failed + complete + begun)) == ERAS[COMPLETE]
    assert report_of(begun).started is None
    assert report_of(failed + complete).evidence["weights_gib"] == 5 + failed.count("\n")


@pytest.mark.parametrize("era", ERAS)
def test_a_start_leaves_nothing_to_the_next_one(era: str, log: Any):
    text = log(f"memory-{era}")
    for other in ERAS:
        assert known(report_of(log(f"memory-{other}") + text)) == ERAS[era], other
    assert known(report_of(text + text)) == ERAS[era]


def test_a_cut_beginning_is_a_start_of_its_own(log: Any):
    tail = "".join(log(f"memory-{FAILED}").splitlines(keepends=True)[3:])
    assert known(report_of(tail + log(f"memory-{COMPLETE}"))) == ERAS[COMPLETE]


OUT_OF_MEMORY = "(Worker pid=7) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has a tot"
LOADING = ["Starting to load model m...", "Loading model from scratch..."]
LOADED = "Model loading took 1.0 GiB memory and 1.0 seconds"
KV = "GPU KV cache size: 9,072 tokens"
CAPTURED = "Graph capturing finished in 5 secs, took 1.00 GiB"
UP = "init engine (profile, create kv cache, warmup model) took 9.00 s"


def test_several_engines_of_one_start_are_one_start():
    config = "Initializing a V1 LLM engine (v0.20.2) with config: model='m'"
    lines = [
        "vLLM server version 0.20.2, serving model m",
        "non-default args: {'model': 'm', 'data_parallel_size': 2, 'max_num_seqs': 8}",
        f"(EngineCore_DP0 pid=1) INFO 04-09 12:00:00 [core.py:1] {config}",
        "(EngineCore_DP0 pid=1) Model loading took 2.0 GiB memory and 1.0 seconds",
        f"(EngineCore_DP1 pid=2) INFO 04-09 12:00:00 [core.py:1] {config}",
        "(EngineCore_DP1 pid=2) Model loading took 1.0 GiB memory and 1.0 seconds",
    ]
    report = read_memory_report(lines)
    assert (report.weights_gib, report.arguments["max-num-seqs"]) == (2.0, "8")
    unnamed = [line.partition("pid=")[2][3:] if "pid=" in line else line for line in lines]
    assert read_memory_report(unnamed).weights_gib == 2.0
    again = read_memory_report([*lines, lines[2].replace("pid=1", "pid=9"), "Model loading took 0.5 GiB and"])
    assert again.weights_gib == 2.0
    undeclared = read_memory_report([line.replace("'data_parallel_size': 2, ", "") for line in lines])
    assert (undeclared.weights_gib, undeclared.arguments["max-num-seqs"]) == (2.0, "8")


@pytest.mark.parametrize("ended", [UP, "ValueError: No available memory for the cache blocks."])
def test_once_one_of_several_engines_has_ended_the_next_is_a_new_start(ended: str):
    config = "Initializing a V1 LLM engine (v0.20.2) with config: model='m', data_parallel_size=2"
    lines = [config, "Model loading took 9.0 GiB memory and 1.0 seconds", ended]
    again = [config, "Model loading took 1.0 GiB memory and 1.0 seconds", UP]
    report = read_memory_report([*lines, *again])
    assert (report.weights_gib, report.started, report.failure) == (1.0, True, None)


def test_a_second_engine_of_a_script_is_a_new_start():
    engine = "(EngineCore pid=1) INFO 04-09 12:00:00 [core.py:1] Initializing a V1 LLM engine (v0.20.2) with config: "
    first = [engine + "model='a'", "Model loading took 9.0 GiB memory and 1.0 seconds"]
    second = [engine + "model='b'", "Model loading took 1.0 GiB memory and 1.0 seconds"]
    report = read_memory_report([*first, *second])
    assert (report.arguments["model"], report.weights_gib) == ("b", 1.0)


PHASES: list[tuple[list[str], str | None, bool]] = [
    ([OUT_OF_MEMORY], "oom", False),
    ([LOADING[0], OUT_OF_MEMORY], "weights-oom", False),
    ([LOADING[1], OUT_OF_MEMORY], "weights-oom", False),
    ([LOADING[0], LOADED, OUT_OF_MEMORY], "profile-oom", False),
    ([LOADED, "Profiling CUDA graph memory: PIECEWISE=51 (largest=512)", OUT_OF_MEMORY], "graph-oom", False),
    ([LOADED, KV, OUT_OF_MEMORY], "graph-oom", False),
    (["non-default args: {'enforce_eager': True}", LOADED, KV, OUT_OF_MEMORY], "oom", False),
    ([LOADED, KV, CAPTURED, OUT_OF_MEMORY], "sampler-oom", False),
    ([LOADED, KV, CAPTURED, UP, OUT_OF_MEMORY], None, True),
    ([LOADED, OUT_OF_MEMORY, KV, UP], None, True),
    ([LOADED, KV, UP, "RuntimeError: Engine core initialization failed. See root cause above."], None, False),
    ([LOADED, OUT_OF_MEMORY, "ValueError: No available memory for the cache blocks."], "no-kv-memory", False),
    (["ValueError: No available memory for the cache blocks.", OUT_OF_MEMORY], "no-kv-memory", False),
    ([LOADING[0], "HIP out of memory. Tried to allocate"], "weights-oom", False),
    ([LOADED, KV, LOADED, OUT_OF_MEMORY], "graph-oom", False),
    ([LOADED, KV, CAPTURED, UP, OUT_OF_MEMORY, "EngineCore failed to start."], "oom", False),
    ([UP, "INFO:     Application startup complete.", "EngineCore failed to start."], None, True),
]


@pytest.mark.parametrize(("lines", "failure", "started"), PHASES)
def test_how_a_start_ends(lines: list[str], failure: str | None, started: bool):
    report = read_memory_report(lines)
    assert (report.failure, report.started) == (failure, started)
    assert report.evidence.keys() >= {"started"} | ({"failure"} if failure else set())


def test_what_a_server_logs_once_it_is_up_is_about_requests():
    lines = [KV, "INFO:     Application startup complete.", "GPU KV cache size: 1 tokens", OUT_OF_MEMORY]
    report = read_memory_report(lines)
    assert (report.kv_cache_tokens, report.started, report.failure) == (9072, True, None)


def test_a_gpu_is_named_by_the_line_that_names_it_first():
    report = read_memory_report(["GPU 0: NVIDIA L4", "GPU 1: NVIDIA A10G"])
    assert (report.gpu_name, report.evidence["gpu_name"]) == ("NVIDIA L4", 1)


def test_only_the_beginning_of_a_huge_line_is_looked_at():
    assert MAX_LINE == 65_536
    at_the_edge = "non-default args: {'x': '" + "y" * (MAX_LINE - 60) + "', 'model': 'm'"
    assert len(at_the_edge) <= MAX_LINE
    assert read_memory_report([at_the_edge]).arguments == {"model": "m"}
    beyond = "non-default args: {'x': '" + "y" * MAX_LINE + "', 'model': 'm'"
    assert read_memory_report([beyond]).arguments == {}


HOSTILE = [
    "non-default args: {'" + "\\'" * 400_000,
    "non-default args: {" + "'\"" * 400_000,
    "non-default args: " + "{" * 400_000,
    "non-default args: {" + "'a': 1, " * 100_000,
    "(" * 400_000,
    "(pid=" * 100_000,
    "a| " * 200_000,
    "it/s]" * 100_000,
    "\r" * 400_000,
    "A." * 200_000 + "Error: ",
    "▄" * 400_000 + "version 0",
    "Free memory on device" + "(1.1/" * 100_000,
    "Free memory on device on startup. Desired GPU memory utilization is" + "1" * 400_000,
    "Free memory on device on startup. Desired GPU memory utilization is" + "1 " * 200_000,
    "Using default MoE config device_name=" + "device_name=a" * 30_000,
    "\x1b[" * 200_000,
    "2025-11-23T13:51:44Z " * 20_000,
    "GPU 0: NVIDIA " + " " * 400_000,
    '{"log": "' + "x" * 400_000 + '"}',
    "[" * 400_000,
]


@pytest.mark.parametrize("line", HOSTILE, ids=lambda text: text[:24])
@pytest.mark.timeout(20)
def test_a_line_made_to_be_slow_is_read(line: str):
    """Twenty of each: a pattern that backtracks would run into the time limit."""
    assert not read_memory_report([line] * 20).kv_cache_tokens


def test_binary_junk_around_and_between_changes_nothing(log: Any):
    junk = random.Random(7)
    lines = log("memory-0.33.0-ledger").splitlines()
    mixed = []
    for line in lines:
        mixed += [line, "".join(map(chr, junk.choices(range(256), k=200))), "\udcff\x00" * 50]
    assert known(read_memory_report(mixed)) == ERAS["0.33.0-ledger"]


KINDS = ("figures", "failures", "phases", "runner")
STARTS = sorted(start for kind in KINDS for entry in load("memory_log")[kind] for start in entry["starts"])
LISTS = ["non-default args: {", "args: Namespace(", "Initializing a V1 LLM engine (v", "model='", "'model': ", "}"]
TEXTS = [*STARTS, *LINES, *LISTS]
pieces = st.sampled_from([*TEXTS, "(A pid=1) ", "INFO 04-09 12:00:00 [a.py:1] ", "9" * 30, "1,1,1", "-.", "\n", "\0"])


@given(st.lists(st.text(max_size=40) | st.lists(pieces | st.text(max_size=4), max_size=6).map("".join), max_size=8))
@example(["GPU KV cache size: " + "9" * 31 + " tokens", "GPU KV cache size: ,, tokens", "GPU KV cache size: - tokens"])
@example(["Initializing a V1 LLM engine (v", "vLLM API server version ", "args: Namespace(", "non-default args: {'"])
def test_any_text_is_read(lines: list[str]):
    report = read_memory_report(lines)
    assert set(report.evidence.values()) <= set(range(1, len(lines) + 1))
    facts = known(report)
    assert set(report.evidence) == set(facts) | {f"--{flag}" for flag in report.arguments}
    assert all(value.isprintable() or value == value.strip() for value in report.arguments.values())


gib = st.integers(-500, 20_000).map(lambda value: value / 100)
size = st.integers(1, 10**10)


@st.composite
def figures(draw: st.DrawFn) -> dict[str, Any]:
    """Figures that one start may print; some of them are not."""
    drawn = {
        "weights_gib": draw(st.none() | gib.map(abs)),
        "kv_cache_gib": draw(st.none() | gib),
        "cuda_graphs_gib": draw(st.none() | gib),
        "cuda_graphs_estimated_gib": draw(st.none() | gib.map(abs)),
    }
    if draw(st.booleans()):
        drawn |= {"kv_cache_tokens": draw(size), "concurrency_len": draw(size), "max_concurrency": draw(gib.map(abs))}
    if draw(st.booleans()):
        drawn |= {"consumed_gib": draw(gib.map(abs)), "peak_activation_gib": draw(gib.map(abs))}
        drawn |= {
            "free_gib": draw(gib.map(abs)),
            "gpu_total_gib": draw(gib.map(abs)),
            "desired_gib": draw(gib.map(abs)),
        }
    if draw(st.booleans()):
        drawn |= {"failure": "context-too-long", "started": False, "kv_needed_gib": draw(gib.map(abs))}
        drawn |= {"kv_available_gib": draw(gib.map(abs)), "estimated_max_model_len": draw(size)}
    return {name: value for name, value in drawn.items() if value is not None}


def rendered(facts: dict[str, Any]) -> list[str]:
    """Those figures as vLLM 0.33 prints them."""
    get = facts.get
    lines = {
        "weights_gib": f"Model loading took {get('weights_gib')} GiB memory and 1.000000 seconds",
        "kv_cache_gib": f"Available KV cache memory: {get('kv_cache_gib')} GiB",
        "cuda_graphs_gib": f"Graph capturing finished in 9 secs, took {get('cuda_graphs_gib', 0):.2f} GiB",
        "cuda_graphs_estimated_gib": f"Estimated CUDA graph memory: {get('cuda_graphs_estimated_gib')} GiB total",
        "kv_cache_tokens": f"GPU KV cache size: {get('kv_cache_tokens', 0):,} tokens, Maximum concurrency for "
        f"{get('concurrency_len', 0):,} tokens per request: {get('max_concurrency', 0):.2f}x",
        "consumed_gib": f"Free memory on device ({get('free_gib')}/{get('gpu_total_gib')} GiB) on startup. Desired "
        f"GPU memory utilization is (0.9, {get('desired_gib')} GiB). Actual usage is {get('consumed_gib')} GiB for "
        f"consumed memory (weights + non-torch), {get('peak_activation_gib')} GiB for peak activation, and 0.0",
        "failure": f"ValueError: To serve at least one request with the model's max seq len (4096), "
        f"({get('kv_needed_gib')} GiB KV cache is needed, which is larger than the available KV cache memory "
        f"({get('kv_available_gib')} GiB). Based on the available memory, the estimated maximum model length is "
        f"{get('estimated_max_model_len')}. Try increasing",
    }
    return [lines[name] for name in lines if name in facts]


@given(figures(), st.randoms(use_true_random=False), st.integers(0, len(PREFIXES) - 1))
def test_a_rendered_report_is_read_back(facts: dict[str, Any], shuffle: random.Random, prefix: int):
    lines = rendered(facts)
    shuffle.shuffle(lines)
    header = PREFIXES[prefix] + "INFO 04-09 12:00:00 [a.py:1] "
    assert known(read_memory_report([header + line for line in lines])) == facts


def test_every_wording_says_where_it_was_seen():
    facts = load("memory_log")
    assert facts["source"]
    for kind in ("figures", "failures", "runner"):
        assert all(entry["versions"] and entry["starts"] for entry in facts[kind])
    names = {field.name for field in dataclasses.fields(MemoryReport)}
    places = [place for kind in ("figures", "failures") for entry in facts[kind] for place in entry.get("figures", ())]
    for text in places:
        for name in (piece.partition("}")[0] for piece in text.split("{")[1:]):
            assert not name or name in names or name.removeprefix("--").replace("-", "_") in facts["engineArguments"]
    assert read_memory_report([]) == MemoryReport()
    assert dataclasses.asdict(MemoryReport()) == EMPTY
