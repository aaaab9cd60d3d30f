"""What layers keep in the KV cache: pages of known models, and what must hold for any shape."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelberth.base.errors import UsageError
from modelberth.checkpoint.shape import Attention, LatentAttention, Layer, Mixer, ModelShape, Quantization, Recurrent
from modelberth.sizing.kv_cache import bytes_per_token
from modelberth.sizing.kv_layers import (
    CACHE_BYTES,
    CacheLayer,
    KvRules,
    cache_layers,
    resolve_cache_dtype,
    resolve_state_dtype,
)

RULES = KvRules()


def shape_with(*mixers: Mixer | None, dtype: str = "bfloat16", architecture: str = "A") -> ModelShape:
    """A model whose layers have these mixers."""
    layers = tuple(Layer(mixer, None) for mixer in mixers)
    return ModelShape(architecture, layers, 4096, 32_000, 4096, dtype, "bf16")


def attention(kv_heads: int = 8, head_dim: int = 128, **more: int | bool) -> Attention:
    return Attention(64, kv_heads, head_dim, head_dim, **more)  # type: ignore[arg-type]


# --- attention -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "dtype", "ranks", "count"),
    [
        ("Mistral-Small-24B-Instruct-2501", "auto", 1, 40 * 8 * 2 * 128 * 2),
        ("Mistral-Small-24B-Instruct-2501", "fp8", 1, 40 * 8 * 2 * 128),
        ("Mistral-Small-24B-Instruct-2501", "fp8_e4m3", 1, 40 * 8 * 2 * 128),
        ("Mistral-Small-24B-Instruct-2501", "fp8_e5m2", 1, 40 * 8 * 2 * 128),
        ("Mistral-Small-24B-Instruct-2501", "float32", 1, 40 * 8 * 2 * 128 * 4),
        ("Mistral-Small-24B-Instruct-2501", "bfloat16", 4, 40 * 2 * 2 * 128 * 2),
        ("Qwen2.5-7B-Instruct", "auto", 2, 28 * 2 * 2 * 128 * 2),
        ("Qwen2.5-7B-Instruct", "auto", 8, 28 * 1 * 2 * 128 * 2),  # four heads on eight ranks: copied
        ("DeepSeek-V2-Lite-Chat", "auto", 1, 27 * 576 * 2),
        ("DeepSeek-V3", "auto", 8, 61 * 576 * 2),  # latent rows are copied to every rank
        ("DeepSeek-V3", "fp8", 1, 61 * 576),
        ("gpt-oss-20b", "auto", 1, 24 * 8 * 2 * 64 * 2),
    ],
)
def test_bytes_per_token(model: str, dtype: str, ranks: int, count: int, shape_of):
    layers = cache_layers(shape_of(model), tensor_parallel=ranks, kv_cache_dtype=dtype, rules=RULES)
    assert bytes_per_token(layers) == count


def test_layers_of_one_kind_are_one_entry_in_the_order_of_the_first():
    near, far = attention(window=512), attention()
    found = cache_layers(shape_with(near, far, near, None, near), rules=RULES)
    assert found == (
        CacheLayer("sliding", 3, 16 * 4096, 16, 4096, 512, (8, 128, 128)),
        CacheLayer("full", 1, 16 * 4096, 16, 4096, 0, (8, 128, 128)),
    )


def test_equal_mixers_are_one_entry_even_where_they_are_two_objects():
    assert [layer.count for layer in cache_layers(shape_with(attention(), attention()), rules=RULES)] == [2]


def test_chunks_are_kept_apart_from_windows():
    found = cache_layers(shape_with(attention(chunk=8192), attention(window=8192)), rules=RULES)
    assert [(layer.kind, layer.window) for layer in found] == [("chunked", 8192), ("sliding", 8192)]


def test_values_may_be_narrower_than_keys():
    (layer,) = cache_layers(shape_with(Attention(64, 4, 192, 128)), rules=RULES)
    assert layer.token_bytes == 4 * (192 + 128) * 2


def test_a_layer_that_shares_another_s_cache_keeps_nothing():
    assert cache_layers(shape_with(attention(cache=False), None), rules=RULES) == ()
    (layer,) = cache_layers(shape_with(attention(), attention(cache=False)), rules=RULES)
    assert layer.count == 1


def test_heads_that_do_not_divide_evenly_are_rounded_down():
    """vLLM's own rule; such ranks are refused elsewhere."""
    (layer,) = cache_layers(shape_with(attention(kv_heads=10)), tensor_parallel=4, rules=RULES)
    assert layer.token_bytes == 2 * 2 * 128 * 2


# --- latent attention ----------------------------------------------------------------------------------


def test_a_sparse_latent_layer_keeps_its_indexer_s_key_too():
    """One key of 128 FP8 elements and a scale of four bytes, whatever the dtype of the cache."""
    sparse = LatentAttention(128, 512, 64, 128, 128, 1536, 64, 128)
    row, key = cache_layers(shape_with(sparse, sparse), tensor_parallel=8, rules=KvRules(block_tokens=64))
    assert (row.kind, row.count, row.page_bytes) == ("latent", 2, 64 * 576 * 2)
    assert (key.kind, key.count, key.page_bytes) == ("latent", 2, 64 * 132)


def test_the_packed_row_of_sparse_latent_attention_has_656_bytes():
    (row,) = cache_layers(shape_with(LatentAttention(8, 512, 64, 1, 1)), kv_cache_dtype="fp8_ds_mla", rules=RULES)
    assert row.token_bytes == 656


# --- dtypes --------------------------------------------------------------------------------------------


def _quantized(kv_cache: str | None) -> ModelShape:
    return replace(shape_with(attention()), quantization=Quantization("modelopt", "fp8", None, (), kv_cache))


@pytest.mark.parametrize(
    ("shape", "declared", "dtype"),
    [
        (shape_with(attention()), "auto", "bfloat16"),
        (shape_with(attention(), dtype="float16"), "auto", "float16"),
        (_quantized(None), "auto", "bfloat16"),
        (_quantized("fp8"), "auto", "fp8"),
        (_quantized("fp8"), "bfloat16", "bfloat16"),
        (_quantized("fp8_e4m3"), "auto", "fp8_e4m3"),
        (shape_with(attention()), "fp8_e5m2", "fp8_e5m2"),
        (shape_with(LatentAttention(8, 512, 64, 1, 1)), "fp8", "fp8"),
        (shape_with(LatentAttention(8, 512, 64, 1, 1, None, 64, 128)), "fp8", "fp8_ds_mla"),
        (shape_with(LatentAttention(8, 512, 64, 1, 1, None, 64, 128)), "auto", "bfloat16"),
    ],
)
def test_the_dtype_of_the_cache(shape: ModelShape, declared: str, dtype: str):
    assert resolve_cache_dtype(shape, declared) == dtype


@pytest.mark.parametrize("name", ["int3", ""])
def test_a_dtype_without_a_size_is_refused(name: str):
    with pytest.raises(UsageError, match="no size is known for a cache of") as caught:
        resolve_cache_dtype(shape_with(attention()), name)
    assert "fp8_e4m3" in caught.value.why
    with pytest.raises(UsageError):
        cache_layers(shape_with(attention()), kv_cache_dtype=name, rules=RULES)
    with pytest.raises(UsageError):
        cache_layers(shape_with(Recurrent("conv", 0, 0, 8, 1, 3)), rules=KvRules(conv_dtype=name))


@pytest.mark.parametrize(
    ("architecture", "declared", "stated", "dtype"),
    [
        ("Qwen3NextForCausalLM", "auto", None, "auto"),
        ("Qwen3_5ForCausalLM", "auto", "float32", "float32"),
        ("NemotronHForCausalLM", "auto", None, "float32"),
        ("NemotronHForCausalLM", "auto", "bfloat16", "bfloat16"),
        ("NemotronHForCausalLM", "float16", "bfloat16", "float16"),
        ("KimiLinearForCausalLM", "auto", None, "float32"),
    ],
)
def test_the_dtype_of_the_state(architecture: str, declared: str, stated: str | None, dtype: str):
    assert resolve_state_dtype(shape_with(architecture=architecture), declared, stated) == dtype


# --- recurrent layers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "ranks", "size"),
    [
        (Recurrent("mamba1", 0, 16, 8192, 1, 4), 1, (8192 * 3 + 8192 * 16) * 2),
        (Recurrent("mamba1", 0, 16, 8192, 1, 4), 4, (2048 * 3 + 2048 * 16) * 2),
        (Recurrent("mamba2", 8, 128, 128, 64, 4), 1, ((8192 + 2 * 8 * 128) * 3 + 8192 * 128) * 2),
        (Recurrent("mamba2", 8, 128, 128, 64, 4), 8, ((1024 + 2 * 128) * 3 + 1024 * 128) * 2),
        (Recurrent("mamba2", 1, 128, 128, 64, 4), 8, ((1024 + 2 * 128) * 3 + 1024 * 128) * 2),  # one group, copied
        (Recurrent("gdn", 16, 128, 32, 128, 4), 1, ((4096 + 2 * 2048) * 3 + 4096 * 128) * 2),
        (Recurrent("gdn", 16, 128, 32, 128, 4), 4, ((1024 + 2 * 512) * 3 + 1024 * 128) * 2),
        (Recurrent("conv", 0, 0, 2048, 1, 3), 2, 1024 * 2 * 2),
    ],
)
def test_the_size_of_a_state(state: Recurrent, ranks: int, size: int):
    (layer,) = cache_layers(shape_with(state), tensor_parallel=ranks, rules=RULES)
    assert layer == CacheLayer("recurrent", 1, size, 0)


def test_states_have_dtypes_of_their_own():
    state = Recurrent("mamba2", 1, 16, 4, 16, 4)
    sizes = {
        (conv, ssm): cache_layers(shape_with(state), rules=KvRules(conv_dtype=conv, state_dtype=ssm))[0].page_bytes
        for conv, ssm in [("auto", "auto"), ("auto", "float32"), ("float32", "auto"), ("float32", "bfloat16")]
    }
    inputs, kept = (64 + 32) * 3, 64 * 16
    assert sizes == {
        ("auto", "auto"): inputs * 2 + kept * 2,
        ("auto", "float32"): inputs * 2 + kept * 4,
        ("float32", "auto"): inputs * 4 + kept * 4,
        ("float32", "bfloat16"): inputs * 4 + kept * 2,
    }


def test_beside_states_a_block_holds_one():
    """Qwen3-Next on two ranks: a state of 548,864 bytes needs 536 tokens of 1,024 bytes, so a block of 544."""
    state, wide = Recurrent("gdn", 16, 128, 32, 128, 4), attention(kv_heads=2, head_dim=256)
    (bare,) = cache_layers(shape_with(state), tensor_parallel=2, rules=RULES)
    assert bare.page_bytes == 548_864 == 536 * 1024
    found = cache_layers(shape_with(state, wide), tensor_parallel=2, rules=RULES)
    assert [(layer.kind, layer.page_bytes, layer.block_tokens) for layer in found] == [
        ("recurrent", 544 * 1024, 0),
        ("full", 544 * 1024, 544),
    ]


def test_a_small_state_is_padded_to_the_page():
    """LFM2: the block stays as it is, and the state takes a whole page."""
    found = cache_layers(shape_with(Recurrent("conv", 0, 0, 2048, 1, 3), attention(8, 64)), rules=RULES)
    assert [(layer.page_bytes, layer.block_tokens) for layer in found] == [(16 * 2048, 0), (16 * 2048, 16)]


@pytest.mark.parametrize(
    ("rules", "block", "span"),
    [
        (KvRules(), 16, 0),
        (KvRules(states="align"), 16, 16),
        (KvRules(kernel_tokens=32), 32, 0),
        (KvRules(block_tokens=128, kernel_tokens=128), 128, 0),
        (KvRules(block_tokens=64), 64, 0),
        (KvRules(states="all", state_chunk=256), 256, 256),
        (KvRules(states="all", state_chunk=24), 48, 48),
    ],
)
def test_blocks_beside_states(rules: KvRules, block: int, span: int):
    state, wide = Recurrent("conv", 0, 0, 2048, 1, 3), attention(1, 128)  # 8,192 bytes beside 512 a token
    found = cache_layers(shape_with(state, wide), rules=rules)
    assert (found[1].block_tokens, found[0].block_tokens) == (block, span)
    assert found[0].page_bytes == found[1].page_bytes == block * 512


# --- what must hold for any shape ----------------------------------------------------------------------

heads = st.sampled_from([1, 2, 4, 8, 10, 64])
widths = st.sampled_from([64, 128, 256])
attentions = st.builds(
    Attention, st.just(64), heads, widths, widths, st.none() | st.integers(1, 9999), st.none() | st.integers(1, 9999)
)
latents = st.builds(
    LatentAttention, st.just(64), st.just(512), st.just(64), st.just(128), st.just(128), st.none(),
    st.sampled_from([0, 64]), st.just(128),
)  # fmt: skip
recurrents = st.builds(
    Recurrent, st.sampled_from(["mamba1", "mamba2", "gdn", "conv"]), st.sampled_from([0, 1, 8]),
    st.sampled_from([16, 128]), st.sampled_from([16, 64]), st.sampled_from([1, 64]), st.integers(2, 5),
)  # fmt: skip
ranks = st.sampled_from([1, 2, 4, 8, 16])
dtypes = st.sampled_from(sorted(CACHE_BYTES))


@given(st.lists(attentions | latents, min_size=1, max_size=5), dtypes, st.tuples(ranks, ranks))
def test_more_ranks_never_have_larger_pages(mixers: list[Mixer], dtype: str, pair: tuple[int, int]):
    few, many = (
        cache_layers(shape_with(*mixers), tensor_parallel=count, kv_cache_dtype=dtype, rules=RULES)
        for count in sorted(pair)
    )
    assert bytes_per_token(few) >= bytes_per_token(many) > 0
    assert max(layer.page_bytes for layer in few) >= max(layer.page_bytes for layer in many)
    if all(isinstance(mixer, LatentAttention) for mixer in mixers):
        assert few == many


@given(recurrents, st.tuples(ranks, ranks))
def test_more_ranks_never_have_larger_states(state: Recurrent, pair: tuple[int, int]):
    few, many = (cache_layers(shape_with(state), tensor_parallel=count, rules=RULES) for count in sorted(pair))
    assert few[0].page_bytes >= many[0].page_bytes > 0


@given(st.lists(attentions, min_size=1, max_size=5), st.integers(1, 50))
def test_bytes_per_token_are_proportional_to_layers(mixers: list[Mixer], times: int):
    one, more = (cache_layers(shape_with(*mixers * count), rules=RULES) for count in (1, times))
    assert bytes_per_token(more) == times * bytes_per_token(one)
    assert len(more) == len(one)


@given(st.lists(attentions | latents | recurrents, min_size=1, max_size=6), st.sampled_from(["none", "align", "all"]))
def test_every_layer_has_its_place(mixers: list[Mixer], states: str):
    found = cache_layers(shape_with(*mixers), rules=KvRules(states=states))  # type: ignore[arg-type]
    indexers = sum(isinstance(mixer, LatentAttention) and mixer.index_heads > 0 for mixer in mixers)
    assert sum(layer.count for layer in found) == len(mixers) + indexers
    assert all(layer.page_bytes > 0 for layer in found)
    assert all(layer.page_bytes == layer.token_bytes * layer.block_tokens for layer in found if layer.token_bytes)
    assert len({layer.block_tokens for layer in found if layer.kind != "recurrent"}) <= 1
