"""What an engine refuses whatever the memory: cards, dtypes, shards, lengths, dtypes of the cache."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from modelberth.catalog.gpus import find_gpu
from modelberth.checkpoint.shape import ModelShape
from modelberth.sizing.engine import Engine
from modelberth.sizing.support import refusals

EngineOf = Callable[..., tuple[ModelShape, Engine]]


@pytest.fixture(scope="module")
def refused(engine_of: EngineOf) -> Callable[..., tuple[str, ...]]:
    """Why a model is refused on a card."""

    def run(name: str, gpu: str, *, gpus: int | None = None, **flags: object) -> tuple[str, ...]:
        shape, engine = engine_of(name, gpu, **flags)
        return refusals(shape, engine, find_gpu(gpu), gpus)

    return run


# --- ranks ---------------------------------------------------------------------------------------------


def test_more_ranks_than_cards(refused: Callable[..., tuple[str, ...]]):
    reasons = refused("Qwen2.5-7B-Instruct", "L4", tensor_parallel=4, gpus=2)
    assert reasons == ("tensor parallel size 4 needs as many GPUs; there are 2",)
    assert refused("Qwen2.5-7B-Instruct", "L4", tensor_parallel=4, gpus=4) == ()
    assert refused("Qwen2.5-7B-Instruct", "L4", tensor_parallel=4, gpus=None) == ()


@pytest.mark.parametrize(
    ("name", "ranks", "reason"),
    [
        ("Qwen2.5-7B-Instruct", 8, "28 attention heads cannot be shared by 8 GPUs"),
        ("Qwen2.5-0.5B-Instruct", 4, "14 attention heads cannot be shared by 4 GPUs"),
        ("phi-4", 4, "10 key and value heads can be neither shared by 4 GPUs nor copied to them"),
        ("DeepSeek-V2-Lite", 32, "16 attention heads cannot be shared by 32 GPUs"),
        ("Llama-3.1-8B-Instruct", 3, "an inner width of 14336 cannot be shared by 3 GPUs"),
        # 1,536 / 8 = 192, no multiple of the blocks of 128 rows.
        (
            "Qwen3-235B-A22B-Instruct-2507-FP8",
            8,
            "8 GPUs would cut the blocks of 128 that share a scale (inner width 192 each)",
        ),
        # 1,536 / 8 again, and groups of 128.
        (
            "Qwen3-235B-A22B-Instruct-2507-AWQ",
            8,
            "8 GPUs would cut the groups of 128 that share a scale (inner width 192 each)",
        ),
    ],
)
def test_layers_that_cannot_be_shared(refused: Callable[..., tuple[str, ...]], name: str, ranks: int, reason: str):
    assert reason in refused(name, "H200", tensor_parallel=ranks)


@pytest.mark.parametrize(
    ("name", "ranks"),
    [
        ("Qwen2.5-7B-Instruct", 4),
        ("phi-4", 2),
        ("gemma-3-1b-it", 4),  # one head of keys and values, copied to all
        ("Qwen3-30B-A3B", 8),  # four, each copied to two
        ("Qwen3-235B-A22B-Instruct-2507-FP8", 4),
        ("Qwen2.5-7B-Instruct-AWQ", 4),  # 18,944 / 4 = 37 x 128
        ("DeepSeek-V3", 16),
    ],
)
def test_layers_that_can(refused: Callable[..., tuple[str, ...]], name: str, ranks: int):
    assert refused(name, "H200", tensor_parallel=ranks) == ()


def test_whole_experts_are_not_cut(refused: Callable[..., tuple[str, ...]]):
    given = {"tensor_parallel": 8, "expert_parallel": True}
    assert refused("Qwen3-235B-A22B-Instruct-2507-FP8", "H200", **given) == ()


def test_a_reason_is_said_once(refused: Callable[..., tuple[str, ...]]):
    reasons = refused("gemma-3-27b-it", "H200", tensor_parallel=64)
    assert reasons
    assert len(set(reasons)) == len(reasons)


# --- cards ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gpu", "last_refused", "first_taken"),
    [
        ("Mistral-Small-24B-Instruct-2501-quantized.w4a16", "T4", "0.11.2", "0.12.0"),
        ("Qwen3-8B-FP8", "T4", "0.13.0", "0.14.0"),
        ("Llama-3.1-70B-Instruct-FP8", "A100", "0.26.0", "0.27.0"),  # ModelOpt's own
        ("DeepSeek-V3.1-NVFP4", "H100", "0.8.5.post1", "0.9.0"),
        ("DeepSeek-V3.1-NVFP4", "T4", "0.13.0", "0.14.0"),
    ],
)
def test_kernels_came_to_older_cards(
    refused: Callable[..., tuple[str, ...]], name: str, gpu: str, last_refused: str, first_taken: str
):
    (reason,) = (each for each in refused(name, gpu, vllm=last_refused) if "kernels" in each)
    assert find_gpu(gpu).compute_capability in reason
    assert not [each for each in refused(name, gpu, vllm=first_taken) if "kernels" in each]


@pytest.mark.parametrize(
    ("name", "gpu", "vllm"),
    [
        ("Mistral-Small-24B-Instruct-2501-quantized.w4a16", "V100 32GB", "0.11.0"),  # 8.0 then
        ("Qwen3-32B-AWQ", "V100 32GB", "0.11.0"),  # 7.5
        ("gpt-oss-20b", "T4", "0.33.0"),  # 8.0 to this day
        ("Qwen3-32B-FP8", "V100 32GB", "0.11.0"),
    ],
)
def test_kernels_that_a_card_has_not(refused: Callable[..., tuple[str, ...]], name: str, gpu: str, vllm: str):
    assert any("the kernels for" in reason for reason in refused(name, gpu, vllm=vllm))


def test_gptq_runs_on_old_cards(refused: Callable[..., tuple[str, ...]]):
    assert refused("Meta-Llama-3.1-8B-Instruct-GPTQ-INT4", "V100 32GB", vllm="0.11.0") == ()


def test_what_a_release_does_not_know_is_said_so(refused: Callable[..., tuple[str, ...]]):
    (reason,) = refused("gpt-oss-20b", "H100", vllm="0.10.0")
    assert "99" not in reason


def test_fp8_of_compressed_tensors_has_its_own_minimum(refused: Callable[..., tuple[str, ...]]):
    """8.0 until 0.15.1, 7.5 since 0.16.0; vLLM's own fp8 has 7.5 since 0.14.0."""
    assert refused("Llama-3.3-70B-Instruct-FP8-dynamic", "T4", vllm="0.15.1")


def test_a_card_too_old_for_the_engine(refused: Callable[..., tuple[str, ...]]):
    assert refused("Qwen2.5-1.5B-Instruct", "V100", vllm="0.11.0") == ()
    (reason,) = refused("Qwen2.5-1.5B-Instruct", "V100", vllm="0.11.1")
    assert reason == "vLLM 0.11.1 needs compute capability 7.5; V100 16GB has 7.0"


def test_bfloat16_needs_a_newer_card(refused: Callable[..., tuple[str, ...]]):
    for flags in ({"vllm": "0.8.5"}, {"vllm": "0.11.0", "dtype": "bfloat16"}):
        (reason,) = refused("Qwen2.5-1.5B-Instruct", "T4", **flags)
        assert "bfloat16 needs compute capability 8.0; T4 has 7.5" in reason
        assert "--dtype float16" in reason
    assert refused("Qwen2.5-1.5B-Instruct", "T4", vllm="0.8.5", dtype="float16") == ()
    assert refused("Qwen2.5-1.5B-Instruct", "T4", vllm="0.11.0") == ()
    assert refused("Qwen2.5-1.5B-Instruct", "A10G", vllm="0.8.5") == ()


def test_gemma_refuses_float16(refused: Callable[..., tuple[str, ...]]):
    assert refused("gemma-3-1b-it", "L4", vllm="0.11.0", dtype="float16")


def test_amd_has_no_compute_capability(refused: Callable[..., tuple[str, ...]]):
    assert refused("Qwen3-32B-FP8", "MI300X", vllm="0.11.0") == ()


# --- lengths and dtypes of the cache -------------------------------------------------------------------


def test_no_more_than_the_model_was_made_for(refused: Callable[..., tuple[str, ...]]):
    assert refused("Qwen2.5-7B-Instruct", "L4", max_model_len=32_768) == ()
    (reason,) = refused("Qwen2.5-7B-Instruct", "L4", max_model_len=32_769)
    assert "32,769" in reason
    assert "32,768" in reason


@pytest.mark.parametrize(
    ("dtype", "last_refused", "first_taken"),
    [
        ("bfloat16", "0.10.2", "0.11.0"),
        ("float16", "0.17.1", "0.18.0"),
        ("fp8_inc", "0.9.2", "0.10.0"),
        ("nvfp4", "0.19.1", "0.20.0"),
    ],
)
def test_dtypes_of_the_cache_by_release(
    refused: Callable[..., tuple[str, ...]], dtype: str, last_refused: str, first_taken: str
):
    reasons = refused("Qwen3-8B", "H100", vllm=last_refused, kv_cache_dtype=dtype)
    assert reasons == (f"vLLM {last_refused} knows no KV cache of {dtype}",)
    assert refused("Qwen3-8B", "H100", vllm=first_taken, kv_cache_dtype=dtype) == ()


def test_auto_and_fp8_are_old(refused: Callable[..., tuple[str, ...]]):
    assert refused("Qwen3-8B", "H100", vllm="0.9.0") == ()
    assert refused("Qwen3-8B", "H100", vllm="0.9.0", kv_cache_dtype="fp8") == ()
    assert refused("Qwen3-8B", "H100", kv_cache_dtype="int3") != ()


def test_all_reasons_are_given(refused: Callable[..., tuple[str, ...]]):
    given = {"vllm": "0.33.0", "tensor_parallel": 8, "max_model_len": 10**6, "kv_cache_dtype": "int3", "gpus": 1}
    assert len(refused("Qwen2.5-7B-Instruct", "V100", dtype="bfloat16", **given)) == 6
