"""The KV cache: the figures that vLLM itself reported, and what must hold for any model."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelberth.base.units import GIB
from modelberth.checkpoint.config import MlaShape, ModelShape
from modelberth.sizing.kv_cache import KvPlan, bytes_per_token, plan, request_bytes

# --- figures of vLLM -----------------------------------------------------------------------------------


def test_harbor_as_vllm_reported_it(harbor_shape: ModelShape):
    """Measured with vLLM 0.32 on a CPU: "CPU KV cache size: 699,008 tokens, ... 1,024 tokens per request: 682.62x"."""
    token = bytes_per_token(harbor_shape)
    assert token == 1536
    found = plan(token, GIB, block_tokens=128, max_model_len=1024)
    assert found == KvPlan(1536, 5461, 699_008, 682.625)
    assert f"{found.concurrency:.2f}x" == "682.62x"


def test_mistral_as_vllm_planned_it(shape_of):
    """Source: notes/sizing.md 3b, vLLM 0.32's own planning code: 2,457 blocks, 39,312 tokens, 1.1997x."""
    token = bytes_per_token(shape_of("Mistral-Small-24B-Instruct-2501"))
    found = plan(token, 6 * GIB, block_tokens=16, max_model_len=32_768)
    assert (found.blocks, found.tokens, round(found.concurrency, 4)) == (2457, 39_312, 1.1997)


@pytest.mark.parametrize(
    ("model", "dtype", "ranks", "count"),
    [
        ("Mistral-Small-24B-Instruct-2501", "auto", 1, 40 * 8 * 2 * 128 * 2),
        ("Mistral-Small-24B-Instruct-2501", "fp8", 1, 40 * 8 * 2 * 128),
        ("Mistral-Small-24B-Instruct-2501", "fp8_e4m3", 1, 40 * 8 * 2 * 128),
        ("Mistral-Small-24B-Instruct-2501", "fp8_e5m2", 1, 40 * 8 * 2 * 128),
        ("Mistral-Small-24B-Instruct-2501", "bfloat16", 4, 40 * 2 * 2 * 128 * 2),
        ("Qwen2.5-7B-Instruct", "auto", 2, 28 * 2 * 2 * 128 * 2),
        ("Qwen2.5-7B-Instruct", "auto", 8, 28 * 1 * 2 * 128 * 2),
        ("DeepSeek-V2-Lite-Chat", "auto", 1, 27 * 576 * 2),
        ("DeepSeek-V3", "auto", 8, 61 * 576 * 2),
        ("DeepSeek-V3", "fp8", 1, 61 * 576),
    ],
)
def test_bytes_per_token(model: str, dtype: str, ranks: int, count: int, shape_of):
    assert bytes_per_token(shape_of(model), dtype, ranks) == count


# --- what must hold for any model ----------------------------------------------------------------------

shapes = st.builds(
    ModelShape,
    architecture=st.just("A"),
    layers=st.integers(1, 130),
    heads=st.just(64),
    kv_heads=st.sampled_from([1, 2, 4, 8, 10, 64]),
    head_dim=st.sampled_from([64, 128, 256]),
    hidden=st.just(4096),
    vocabulary=st.just(32000),
    max_positions=st.just(4096),
    dtype=st.sampled_from(["bfloat16", "float16", "float32"]),
    precision=st.just("bf16"),
    mla=st.none() | st.just(MlaShape(512, 64)),
)
ranks = st.sampled_from([1, 2, 4, 8, 16, 64])
dtypes = st.sampled_from(["auto", "fp8", "bfloat16"])
tokens = st.integers(1, 2**20)
memory = st.integers(0, 2**41)
blocks_of = st.sampled_from([1, 16, 32, 128])
lengths = st.integers(1, 2**20)


@given(shapes, dtypes, st.tuples(ranks, ranks))
def test_more_ranks_never_hold_more_of_a_token_each(shape: ModelShape, dtype: str, pair: tuple[int, int]):
    few, many = (bytes_per_token(shape, dtype, count) for count in sorted(pair))
    assert few >= many > 0
    if shape.mla:
        assert few == many


@given(shapes, dtypes, ranks)
def test_all_ranks_together_hold_at_least_the_whole_token(shape: ModelShape, dtype: str, count: int):
    split = shape.kv_heads % count == 0 or shape.mla is not None
    if split or count >= shape.kv_heads:
        assert bytes_per_token(shape, dtype, count) * count >= bytes_per_token(shape, dtype)


@given(shapes, dtypes, ranks, st.integers(1, 50))
def test_bytes_per_token_are_proportional_to_layers(shape: ModelShape, dtype: str, count: int, times: int):
    more = replace(shape, layers=shape.layers * times)
    assert bytes_per_token(more, dtype, count) == times * bytes_per_token(shape, dtype, count)


@given(tokens, memory, blocks_of, lengths)
def test_blocks_fill_the_memory_and_never_exceed_it(token: int, available: int, block: int, length: int):
    found = plan(token, available, block, length)
    assert found.blocks * block * token <= available < (found.blocks + 1) * block * token
    # vLLM counts a request in whole blocks, so its tokens can be fewer than the blocks hold, never more.
    assert found.tokens <= found.blocks * block


@given(tokens, memory, blocks_of, st.tuples(lengths, lengths))
def test_longer_requests_are_fewer(token: int, available: int, block: int, pair: tuple[int, int]):
    short, long = (plan(token, available, block, length) for length in sorted(pair))
    assert short.concurrency >= long.concurrency
    assert short.blocks == long.blocks


@given(tokens, st.tuples(memory, memory), blocks_of, lengths)
def test_more_memory_holds_no_less(token: int, pair: tuple[int, int], block: int, length: int):
    small, large = (plan(token, available, block, length) for available in sorted(pair))
    assert (small.blocks, small.tokens, small.concurrency) <= (large.blocks, large.tokens, large.concurrency)


@given(tokens, blocks_of, lengths)
def test_the_memory_of_one_request_holds_exactly_one(token: int, block: int, length: int):
    one = request_bytes(token, block, length)
    assert plan(token, one, block, length).concurrency == 1
    assert plan(token, one - 1, block, length).concurrency < 1
    assert 0 <= one - token * length < token * block
