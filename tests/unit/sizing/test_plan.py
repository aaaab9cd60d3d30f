"""The plan: every verdict with its reason, in the engine's own order; the deployments that people ask about."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from modelberth.base.errors import UsageError
from modelberth.base.units import GIB
from modelberth.catalog.vllm import versions
from modelberth.sizing.plan import Sizing

Sized = Callable[..., Sizing]
MISTRAL = "Mistral-Small-24B-Instruct-2501"
W4A16 = f"{MISTRAL}-quantized.w4a16"
LLAMA = "Llama-3.1-8B-Instruct"


# --- deployments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("vllm", ["0.9.1", "0.11.0", "0.17.0", "0.20.0", "0.25.1", "0.28.0"])
def test_int4_on_one_l4_needs_no_shorter_context(sized: Sized, vllm: str):
    """13.2 GiB of weights leave more than the 5 GiB that 32,768 tokens of 160 KiB need."""
    found = sized(W4A16, "L4", vllm=vllm, max_model_len=32_768)
    assert found.starts
    assert found.kv.request_bytes == 5 * GIB
    assert found.kv.bytes_per_token == 160 * 1024
    assert found.kv.largest.mid == 32_768


def test_int4_on_one_l4_is_close_once_graphs_and_compiling_are_charged(sized: Sized):
    """0.29 and later: whether 32,768 fit is within the range, 16,384 do in any case."""
    for vllm in ("0.29.0", "0.33.0"):
        found = sized(W4A16, "L4", vllm=vllm, max_model_len=32_768)
        assert found.kv.largest.low < 32_768 == found.kv.largest.high
        assert sized(W4A16, "L4", vllm=vllm, max_model_len=16_384).verdict == "fits"


def test_fp8_on_one_l4_fails_while_loading(sized: Sized):
    """23.2 GiB of weights (embeddings and output layer stay BF16) on a card of 22.03."""
    found = sized(MISTRAL, "L4", quantization="fp8")
    assert found.verdict == "weights-do-not-fit"
    assert not found.starts
    assert found.ledger.weights.mid / GIB == pytest.approx(23.22, abs=0.02)
    assert "loading them fails" in found.reasons[0]
    assert "23.22 GiB" in found.reasons[0]


@pytest.mark.parametrize("vllm", ["0.9.2", "0.10.2", "0.19.0", "0.33.0"])
def test_bf16_on_four_l4(sized: Sized, vllm: str):
    found = sized(MISTRAL, "L4", vllm=vllm, tensor_parallel=4, gpus=4)
    assert found.verdict == "fits"
    assert found.ledger.weights.mid / GIB == pytest.approx(11.02, abs=0.02)
    assert found.kv.concurrency.mid > 5


def test_a_vision_model_that_did_not_start(sized: Sized):
    """Qwen2.5-VL-72B on four A100 of 40 GB, vLLM 0.8.3, two requests: 2.65 GiB of graphs were captured, and then it
    ran out (vllm issue 16570)."""
    found = sized(
        "Qwen2.5-VL-72B-Instruct", "A100 PCIe 40GB", vllm="0.8.3", tensor_parallel=4, gpu_memory_utilization=0.95,
        max_model_len=8192, max_num_seqs=2,
    )  # fmt: skip
    assert found.verdict == "start-check-fails"
    assert "CUDA graphs" in found.reasons[0]
    assert found.ledger.weights.mid / GIB == pytest.approx(34.43, abs=0.2)
    assert found.ledger.graph_memory.low / GIB < 2.65 < found.ledger.graph_memory.high / GIB


def test_llama_on_an_h100(sized: Sized):
    """vLLM 0.19.0 printed 58.11 GiB and 476,000 tokens at 0.95 (llm-d accuracy report)."""
    found = sized(LLAMA, "H100", vllm="0.19.0", gpu_memory_utilization=0.95, max_model_len=8192)
    assert found.verdict == "fits"
    assert found.ledger.kv_cache.mid / GIB == pytest.approx(58.11, abs=0.1)
    assert found.kv.tokens.mid == pytest.approx(476_000, rel=0.002)


# --- every verdict, in the engine's order --------------------------------------------------------------


def test_fits(sized: Sized):
    found = sized("Qwen2.5-0.5B-Instruct", "L4", vllm="0.11.0")
    assert (found.verdict, found.starts) == ("fits", True)
    assert f"{int(found.kv.tokens.mid):,} tokens of KV cache hold" in found.reasons[0]
    assert "32,768 tokens" in found.reasons[0]


def test_fits_tight_where_the_low_end_is_too_low(sized: Sized):
    """The longest request lies between what the low end and what the mid hold."""
    wide = sized(LLAMA, "L4", vllm="0.11.0")
    length = int(wide.kv.largest.low + wide.kv.largest.mid) // 2
    found = sized(LLAMA, "L4", vllm="0.11.0", max_model_len=length)
    assert (found.verdict, found.starts) == ("fits-tight", True)
    assert "low end" in found.reasons[0]
    assert sized(LLAMA, "L4", vllm="0.11.0", max_model_len=int(wide.kv.largest.low)).verdict == "fits"
    assert sized(LLAMA, "L4", vllm="0.11.0", max_model_len=int(wide.kv.largest.mid)).verdict == "fits-tight"
    assert sized(LLAMA, "L4", vllm="0.11.0", max_model_len=int(wide.kv.largest.mid) + 1).verdict == "context-too-long"


def test_fits_tight_where_the_start_check_may_fail(sized: Sized):
    """A share between what is free at worst and as expected."""
    found = sized("Qwen2.5-0.5B-Instruct", "L4", vllm="0.11.0", enforce_eager=True, gpu_memory_utilization=0.98)
    assert found.verdict == "fits-tight"
    assert "start check" in found.reasons[0]


def test_context_too_long(sized: Sized):
    found = sized(LLAMA, "L4", vllm="0.11.0")
    assert found.verdict == "context-too-long"
    # 32 layers x 8 heads x 128 x 2 (keys and values) x 2 bytes x 131,072 tokens.
    assert found.kv.request_bytes == 16 * GIB
    assert "131,072 tokens needs 16.00 GiB" in found.reasons[0]
    assert f"at most {int(found.kv.largest.mid):,} tokens fit" in found.reasons[0]
    assert found.kv.largest.high < 131_072


def test_weights_leave_nothing(sized: Sized):
    """14.99 GiB on 22: loading them works, but the budget is 15.4."""
    found = sized(LLAMA, "L4", vllm="0.11.0", gpu_memory_utilization=0.7)
    assert found.verdict == "weights-do-not-fit"
    assert "leave nothing of the budget" in found.reasons[0]
    assert found.ledger.kv_cache.mid < 0
    assert (found.kv.blocks.mid, found.kv.tokens.mid, found.kv.largest.mid) == (0, 0, 0)


def test_start_check_fails(sized: Sized):
    for vllm in (None, "0.9.1"):
        found = sized(W4A16, "L4", vllm=vllm, gpu_memory_utilization=0.99, enforce_eager=True)
        assert found.verdict == "start-check-fails"
        assert "gpu-memory-utilization 0.99" in found.reasons[0]
    # There was no check before 0.9.1.
    assert sized(W4A16, "L4", vllm="0.9.0.1", gpu_memory_utilization=0.99, enforce_eager=True).starts


def test_graphs_beside_the_budget(sized: Sized):
    """0.19 takes nothing off for graphs: at 0.97 of an L4 a quarter of a GiB is left for more than half of one."""
    given = {"vllm": "0.19.0", "gpu_memory_utilization": 0.97, "max_model_len": 4096}
    found = sized(LLAMA, "L4", **given)
    assert found.verdict == "start-check-fails"
    assert "lower gpu-memory-utilization" in found.reasons[0]
    assert sized(LLAMA, "L4", **given, enforce_eager=True).starts


def test_unsupported_comes_first(sized: Sized):
    """Whatever else is wrong: neither do the weights fit, nor the context, nor the share of the memory."""
    found = sized("Qwen2.5-72B-Instruct", "T4", vllm="0.8.5", gpu_memory_utilization=1.0, tensor_parallel=8, gpus=2)
    assert found.verdict == "unsupported"
    assert found.reasons[0].startswith("tensor parallel size 8 needs as many GPUs; there are 2; bfloat16 needs")


def test_the_start_check_comes_before_the_weights(sized: Sized):
    assert sized("Qwen2.5-72B-Instruct", "L4", gpu_memory_utilization=0.99).verdict == "start-check-fails"
    assert sized("Qwen2.5-72B-Instruct", "L4", gpu_memory_utilization=0.9).verdict == "weights-do-not-fit"


def test_a_model_that_a_release_cannot_plan(sized: Sized):
    """Latent rows and an indexer's keys, two sizes of page: planned since 0.12, one kind of layer since 0.11."""
    found = sized("gemma-3-27b-it", "H100", vllm="0.33.0")
    assert found.verdict != "unsupported"
    hybrid = sized("granite-4.0-h-tiny", "H100", vllm="0.8.5")
    assert hybrid.verdict == "unsupported"
    assert hybrid.reasons[0]
    assert (hybrid.kv.bytes_per_token, hybrid.kv.blocks.high, hybrid.kv.largest.high) == (0, 0, 0)


def test_a_cache_without_a_known_size_says_which(sized: Sized):
    assert "nvfp4" in sized("Qwen3-8B", "B200", vllm="0.33.0", kv_cache_dtype="nvfp4").reasons[0]


@pytest.mark.parametrize(
    ("gpu", "flags", "verdict"),
    [
        ("T4", {"vllm": "0.8.5"}, "unsupported"),
        ("T4", {"vllm": "0.11.0"}, "fits"),  # as float16
        ("H100", {"tensor_parallel": 8}, "fits"),
        ("H100", {"tensor_parallel": 4, "gpus": 2}, "unsupported"),
        ("H100", {"max_model_len": 40_000}, "unsupported"),
        ("V100", {"vllm": "0.33.0"}, "unsupported"),
    ],
)
def test_what_is_refused(sized: Sized, gpu: str, flags: dict, verdict: str):
    assert sized("Qwen2.5-3B-Instruct", gpu, **{"max_model_len": 8192, **flags}).verdict == verdict


def test_28_heads_are_no_8_ranks(sized: Sized):
    found = sized("Qwen2.5-7B-Instruct", "H100", tensor_parallel=8)
    assert (found.verdict, found.reasons[0]) == ("unsupported", "28 attention heads cannot be shared by 8 GPUs")


# --- figures -------------------------------------------------------------------------------------------


def test_the_longest_context_is_looked_for_beyond_what_is_asked(sized: Sized):
    found = sized(LLAMA, "H100", max_model_len=1000)
    assert found.kv.largest.mid == 131_072
    assert found.kv.request_bytes == 63 * 16 * 128 * 1024  # 1,000 tokens are 63 blocks of 16; 128 KiB a token


def test_fp8_halves_a_request(sized: Sized):
    half, full = (sized(LLAMA, "H100", kv_cache_dtype=dtype).kv for dtype in ("fp8", "auto"))
    assert (half.bytes_per_token, full.bytes_per_token) == (64 * 1024, 128 * 1024)
    assert half.request_bytes * 2 == full.request_bytes
    assert half.tokens.mid == pytest.approx(2 * full.tokens.mid, rel=1e-4)


def test_float32_doubles_a_request(sized: Sized):
    assert sized(LLAMA, "H100", dtype="float32").kv.bytes_per_token == 256 * 1024


def test_ranks_share_heads_of_keys_and_values_down_to_one(sized: Sized):
    found = [sized(LLAMA, "H100", tensor_parallel=ranks).kv.bytes_per_token // 1024 for ranks in (1, 2, 4, 8, 16)]
    assert found == [128, 64, 32, 16, 16]


def test_a_checkpoint_s_own_cache_counts_since_it_is_read(sized: Sized):
    given = {"tensor_parallel": 4, "max_model_len": 8192}
    old, new = (sized("Llama-3.1-70B-Instruct-FP8", "H100", vllm=vllm, **given).kv for vllm in ("0.13.0", "0.14.0"))
    assert old.bytes_per_token == 2 * new.bytes_per_token == 80 * 2 * 2 * 128 * 2


def test_reasons_begin_with_the_verdict_s_and_go_on_with_the_range_s(sized: Sized):
    found = sized(LLAMA, "H100", vllm="0.99.0", max_model_len=4096)
    assert found.reasons[0].startswith(f"{int(found.kv.tokens.mid):,} tokens")
    assert "vLLM 0.99.0 is not known here: the rules of 0.33.0 are used" in found.reasons
    assert "weights are derived from config.json, not read from headers" in found.reasons
    assert len(set(found.reasons)) == len(found.reasons)


def test_every_release_plans_a_model_that_all_know(sized: Sized):
    assert {sized(LLAMA, "A100", vllm=vllm, max_model_len=8192).verdict for vllm in versions()} == {"fits"}


@pytest.mark.parametrize(
    ("flags", "what"),
    [
        ({"vllm": "latest"}, "no vLLM version"),
        ({"vllm": ""}, "no vLLM version"),
        ({"quantization": "int3"}, "cannot be sized"),
    ],
)
def test_what_cannot_be_taken(sized: Sized, flags: dict, what: str):
    with pytest.raises(UsageError, match=what):
        sized(LLAMA, "L4", **flags)


def test_quantising_twice_is_refused(sized: Sized):
    with pytest.raises(UsageError, match="already"):
        sized(W4A16, "L4", quantization="fp8")
