"""The engine's settings: what each release takes by default on each card, and what the user's word changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from modelberth.base.errors import UsageError
from modelberth.catalog.gpus import find_gpu
from modelberth.catalog.vllm import versions
from modelberth.checkpoint.shape import ModelShape, Quantization
from modelberth.sizing.engine import Engine, EngineFlags, resolve, resolve_dtype

EngineOf = Callable[..., tuple[ModelShape, Engine]]
LLAMA = "Llama-3.1-8B-Instruct"


# --- batch limits --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vllm", "gpu", "server", "offline"),
    [
        # 0.8.0 to 0.8.4 ask for H100 or H200 in the name; 1,024 requests on every card up to 0.8.3.
        ("0.8.0", "L4", (2048, 1024), (8192, 1024)),
        ("0.8.3", "L4", (2048, 1024), (8192, 1024)),
        ("0.8.4", "L4", (2048, 256), (8192, 256)),
        ("0.8.4", "H100", (8192, 1024), (16384, 1024)),
        ("0.8.4", "A100 80GB", (2048, 256), (8192, 256)),
        ("0.8.4", "H20", (2048, 256), (8192, 256)),
        # 0.8.5 asks for 70 GiB, 0.9.0 for 70 GiB and no A100.
        ("0.8.5", "A100 80GB", (8192, 1024), (16384, 1024)),
        ("0.8.5", "A100 SXM 40GB", (2048, 256), (8192, 256)),
        ("0.8.5", "H20", (8192, 1024), (16384, 1024)),
        ("0.9.0", "A100 80GB", (2048, 256), (8192, 256)),
        ("0.9.0", "A800 PCIe 80GB", (8192, 1024), (16384, 1024)),
        ("0.11.0", "H100", (8192, 1024), (16384, 1024)),
        ("0.11.0", "L40S", (2048, 256), (8192, 256)),
        ("0.11.0", "RTX PRO 6000 Server", (8192, 1024), (16384, 1024)),
        ("0.11.0", "MI300X", (8192, 1024), (16384, 1024)),
        # 0.28 has a third step of 160 GiB, which an H200 with its 140 does not reach.
        ("0.27.1", "B200", (8192, 1024), (16384, 1024)),
        ("0.28.0", "B200", (16384, 1024), (16384, 1024)),
        ("0.28.0", "MI300X", (16384, 1024), (16384, 1024)),
        ("0.28.0", "H200", (8192, 1024), (16384, 1024)),
        ("0.28.0", "A100 80GB", (2048, 256), (8192, 256)),
        # 0.33 takes a GB10, with 120 GiB of shared memory, for a small card.
        ("0.32.0", "GB10", (8192, 1024), (16384, 1024)),
        ("0.33.0", "GB10", (2048, 256), (8192, 256)),
    ],
)
def test_batch_limits_by_release_and_card(
    engine_of: EngineOf, vllm: str, gpu: str, server: tuple[int, int], offline: tuple[int, int]
):
    for entrypoint, expected in (("server", server), ("offline", offline)):
        _, engine = engine_of(LLAMA, gpu, vllm=vllm, entrypoint=entrypoint)
        assert (engine.max_num_batched_tokens, engine.max_num_seqs) == expected
        assert engine.entrypoint == entrypoint


def test_the_driver_s_figure_decides_not_cuda_s(shape_of: Callable[[str], ModelShape]):
    """70 GiB in nvidia-smi are the large step, though CUDA reports less; a card without a figure is asked there."""
    card = replace(find_gpu("H100"), smi_mib=70 * 1024, cuda_gib=(68.0, 68.5, 69.0))
    for gpu, expected in (
        (card, 8192),
        (replace(card, smi_mib=70 * 1024 - 1), 2048),
        (replace(card, smi_mib=None), 2048),
        (replace(card, smi_mib=None, cuda_gib=(70.0, 70.0, 70.0)), 8192),
    ):
        assert resolve(EngineFlags(vllm="0.11.0"), shape_of(LLAMA), gpu).max_num_batched_tokens == expected


@pytest.mark.parametrize(
    ("vllm", "flags", "expected"),
    [
        # 256 requests of 4 tokens are 1,024: no step has more (0.11.1).
        ("0.11.0", {"max_model_len": 4}, (2048, 256)),
        ("0.11.1", {"max_model_len": 4}, (1024, 256)),
        ("0.11.1", {"max_model_len": 4, "max_num_batched_tokens": 4000}, (4000, 256)),
        ("0.11.1", {"max_model_len": 16, "max_num_seqs": 8}, (128, 8)),
        # No more requests than tokens (0.10.1).
        ("0.10.0", {"max_num_batched_tokens": 100}, (100, 256)),
        ("0.10.1", {"max_num_batched_tokens": 100}, (100, 100)),
        ("0.10.1", {"max_num_batched_tokens": 100, "max_num_seqs": 300}, (100, 300)),
        # One after the other: 1 token each leaves 256, then 256 requests.
        ("0.11.1", {"max_model_len": 1}, (256, 256)),
    ],
)
def test_batch_limits_that_follow_from_each_other(
    engine_of: EngineOf, vllm: str, flags: dict[str, int], expected: tuple[int, int]
):
    _, engine = engine_of(LLAMA, "L4", vllm=vllm, **flags)
    assert (engine.max_num_batched_tokens, engine.max_num_seqs) == expected


# --- single settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vllm", "expected"), [("0.8.0", 0.9), ("0.19.1", 0.9), ("0.20.0", 0.92), ("0.33.0", 0.92), (None, 0.92)]
)
def test_share_of_the_memory(engine_of: EngineOf, vllm: str | None, expected: float):
    assert engine_of(LLAMA, "L4", vllm=vllm)[1].gpu_memory_utilization == expected
    assert engine_of(LLAMA, "L4", vllm=vllm, gpu_memory_utilization=0.5)[1].gpu_memory_utilization == 0.5


def test_without_a_length_the_model_s_own_counts(engine_of: EngineOf):
    assert engine_of(LLAMA, "L4")[1].max_model_len == 131_072
    assert engine_of(LLAMA, "L4", max_model_len=4096)[1].max_model_len == 4096


def test_the_user_s_word_counts(engine_of: EngineOf):
    _, engine = engine_of(
        LLAMA, "L4", vllm="0.11.0", tensor_parallel=2, kv_cache_dtype="fp8", enforce_eager=True, block_size=32
    )
    assert (engine.tensor_parallel, engine.kv_cache_dtype, engine.enforce_eager, engine.block_size) == (
        2, "fp8", True, 32,
    )  # fmt: skip
    assert (engine.rules.version, engine.capability, engine.notes) == ("0.11.0", (8, 9), ())


def test_an_amd_card_stands_in_for_hopper(engine_of: EngineOf):
    assert engine_of(LLAMA, "MI300X")[1].capability == (9, 0)


def test_an_unknown_release_is_noted(engine_of: EngineOf):
    _, engine = engine_of(LLAMA, "L4", vllm="0.99.0")
    assert engine.rules.version == "0.33.0"
    assert engine.notes == ("vLLM 0.99.0 is not known here: the rules of 0.33.0 are used",)


def test_what_is_no_release_is_refused():
    with pytest.raises(UsageError, match="no vLLM version"):
        resolve(EngineFlags(vllm="newest"), None, find_gpu("L4"))  # type: ignore[arg-type]


def test_experts_are_only_spread_where_there_are_any(engine_of: EngineOf):
    _, dense = engine_of(LLAMA, "L4", expert_parallel=True)
    assert not dense.expert_parallel
    assert dense.notes == ("expert parallelism changes nothing: the model has no experts",)
    _, sparse = engine_of("Qwen3-30B-A3B", "L4", expert_parallel=True)
    assert (sparse.expert_parallel, sparse.notes) == (True, ())


# --- dtype ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "gpu", "vllm", "expected"),
    [
        ("Qwen2.5-7B-Instruct", "L4", "0.8.5", "bfloat16"),
        ("Qwen2.5-7B-Instruct", "T4", "0.8.5", "bfloat16"),  # and is refused
        ("Qwen2.5-7B-Instruct", "T4", "0.9.0", "float16"),
        ("Qwen2.5-7B-Instruct", "V100", "0.11.0", "float16"),
        ("Qwen2.5-7B-Instruct", "MI300X", "0.11.0", "bfloat16"),
        ("opt-125m", "L4", "0.33.0", "float16"),
        ("opt-125m", "T4", "0.8.5", "float16"),
    ],
)
def test_dtype_by_release_and_card(
    shape_of: Callable[[str], ModelShape], model: str, gpu: str, vllm: str, expected: str
):
    assert resolve_dtype(EngineFlags(vllm=vllm), shape_of(model), find_gpu(gpu)) == expected


@pytest.mark.parametrize(
    ("gpu", "vllm", "expected"),
    [
        ("L4", "0.8.0", "float16"),
        ("L4", "0.9.0.1", "float16"),
        ("L4", "0.9.1", "bfloat16"),
        ("T4", "0.9.1", "float16"),  # bfloat16, were the card not too old
        ("T4", "0.8.0", "float16"),
    ],
)
def test_float32_becomes_a_half(shape_of: Callable[[str], ModelShape], gpu: str, vllm: str, expected: str):
    shape = replace(shape_of(LLAMA), dtype="float32", precision="fp32")
    assert resolve_dtype(EngineFlags(vllm=vllm), shape, find_gpu(gpu)) == expected


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_a_declared_dtype_counts_everywhere(shape_of: Callable[[str], ModelShape], dtype: str):
    for vllm in ("0.8.0", "0.33.0"):
        assert resolve_dtype(EngineFlags(vllm=vllm, dtype=dtype), shape_of(LLAMA), find_gpu("T4")) == dtype


@pytest.mark.parametrize("model", ["gemma-2-2b-it", "gemma-3-4b-it"])
def test_gemma_without_bfloat16_is_float32(shape_of: Callable[[str], ModelShape], model: str):
    """It is not valid in float16, and what a T4 has beside that is float32: vllm/config _resolve_auto_dtype."""
    assert resolve_dtype(EngineFlags(vllm="0.11.0"), shape_of(model), find_gpu("T4")) == "float32"


# --- runner --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "since"),
    [
        ("Qwen3-8B", "0.22.0"),  # the first model of the second runner
        ("Qwen3-8B-AWQ", "0.24.0"),  # the quantised ones with 0.24
        (LLAMA, "0.23.0"),
        ("Mistral-7B-Instruct-v0.3", "0.23.0"),
        ("Meta-Llama-3.1-8B-Instruct-quantized.w4a16", "0.24.0"),
        ("DeepSeek-V2-Lite", "0.24.0"),  # sparse, but on the list
        ("Qwen1.5-MoE-A2.7B", "0.24.0"),
        ("Qwen2.5-7B-Instruct", "0.25.0"),
        ("gemma-3-27b-it", "0.25.0"),
        ("Qwen3-30B-A3B", "0.29.0"),  # other sparse ones with all the rest
        ("gpt-oss-20b", "0.29.0"),
        ("Qwen3-Next-80B-A3B-Instruct", "0.29.0"),
        ("NVIDIA-Nemotron-Nano-9B-v2", "0.29.0"),
    ],
)
def test_the_second_runner_takes_over(engine_of: EngineOf, model: str, since: str):
    runners = [engine_of(model, "H100", vllm=version)[1].runner for version in versions()]
    first = versions().index(since)
    assert runners == ["v1"] * first + ["v2"] * (len(runners) - first)


# --- KV cache ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "gpu", "vllm", "expected"),
    [
        (LLAMA, "H100", "0.8.0", 16),
        (LLAMA, "B200", "0.33.0", 16),
        ("DeepSeek-V2-Lite", "L4", "0.8.0", 16),
        ("DeepSeek-V2-Lite", "H100", "0.17.1", 64),  # FlashMLA
        ("DeepSeek-V2-Lite", "H100", "0.18.0", 16),
        ("DeepSeek-V2-Lite", "B200", "0.10.0", 16),
        ("DeepSeek-V2-Lite", "B200", "0.10.1", 128),  # CUTLASS
        ("DeepSeek-V2-Lite", "B200", "0.15.0", 64),  # FlashInfer
        ("DeepSeek-V2-Lite", "B200", "0.18.0", 32),
        ("DeepSeek-V2-Lite", "RTX 5090", "0.33.0", 16),
        ("DeepSeek-V3.2", "H200", "0.11.0", 64),
        ("DeepSeek-V3.2", "B200", "0.33.0", 64),
    ],
)
def test_block_size_by_release_and_card(engine_of: EngineOf, model: str, gpu: str, vllm: str, expected: int):
    assert engine_of(model, gpu, vllm=vllm)[1].block_size == expected
    assert engine_of(model, gpu, vllm=vllm, block_size=256)[1].block_size == 256


@pytest.mark.parametrize(
    ("model", "since"),
    [("Llama-3.1-70B-Instruct-FP8", "0.14.0"), ("DeepSeek-V3.1-NVFP4", "0.14.0"), (LLAMA, None)],
)
def test_modelopt_s_cache_counts_since_it_is_read(engine_of: EngineOf, model: str, since: str | None):
    found = [engine_of(model, "B200", vllm=version)[1].kv_cache_dtype for version in versions()]
    first = versions().index(since) if since else len(found)
    assert found == ["auto"] * first + ["fp8"] * (len(found) - first)


def test_compressed_tensors_cache_counts_since_it_is_read(shape_of: Callable[[str], ModelShape]):
    given = shape_of("Meta-Llama-3.1-8B-Instruct-FP8")
    assert isinstance(given.quantization, Quantization)
    shape = replace(given, quantization=replace(given.quantization, method="compressed-tensors", kv_cache="fp8"))
    for vllm, expected in (("0.14.1", "auto"), ("0.15.0", "fp8"), ("0.33.0", "fp8")):
        assert resolve(EngineFlags(vllm=vllm), shape, find_gpu("H100")).kv_cache_dtype == expected
    declared = EngineFlags(vllm="0.33.0", kv_cache_dtype="bfloat16")
    assert resolve(declared, shape, find_gpu("H100")).kv_cache_dtype == "bfloat16"


def test_weights_in_fp8_do_not_make_the_cache_fp8(engine_of: EngineOf):
    assert engine_of("Llama-3.3-70B-Instruct-FP8-dynamic", "H100")[1].kv_cache_dtype == "auto"
