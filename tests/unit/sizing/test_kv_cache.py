"""The KV cache plan: the figures that vLLM itself reported, what releases do differently, what always holds."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from modelberth.base.errors import UsageError
from modelberth.base.units import GIB
from modelberth.checkpoint.shape import ModelShape
from modelberth.sizing.kv_cache import (
    CacheLayer,
    KvPlan,
    KvRules,
    bytes_per_token,
    cache_layers,
    plan,
    request_bytes,
)

RULES = KvRules()
PAGE = 16 * 4096
"""Bytes of a page of 16 tokens with eight heads of 128 in bfloat16."""


def full(count: int = 1, page: int = PAGE, block: int = 16) -> CacheLayer:
    return CacheLayer("full", count, page, block, page // block, form=(page,))


def sliding(count: int = 1, window: int = 1024, page: int = PAGE, block: int = 16) -> CacheLayer:
    return CacheLayer("sliding", count, page, block, page // block, window, form=(page,))


def chunked(count: int = 1, chunk: int = 8192) -> CacheLayer:
    return CacheLayer("chunked", count, PAGE, 16, PAGE // 16, chunk)


def latent(count: int = 1, page: int = 16 * 1152, block: int = 16) -> CacheLayer:
    return CacheLayer("latent", count, page, block, page // block)


def state(count: int = 1, page: int = PAGE, block: int = 0) -> CacheLayer:
    return CacheLayer("recurrent", count, page, block)


# --- figures of vLLM -----------------------------------------------------------------------------------


def test_harbor_as_vllm_reported_it(harbor_shape: ModelShape):
    """Measured with vLLM 0.32 on a CPU: "CPU KV cache size: 699,008 tokens, ... 1,024 tokens per request: 682.62x"."""
    rules = KvRules(block_tokens=128)
    layers = cache_layers(harbor_shape, rules=rules)
    found = plan(layers, GIB, 1024, rules)
    assert found == KvPlan(1536, 5461, 699_008, 682.625, 8 * 128 * 1536, 1024, 1, fits=True)
    assert f"{found.concurrency:.2f}x" == "682.62x"


@pytest.mark.parametrize(
    ("model", "gib", "length", "batched", "expected"),
    [
        ("Mistral-Small-24B-Instruct-2501", 6, 32_768, 2048, (2457, 39_312, 1.1997, 1)),
        ("gpt-oss-20b", 50, 131_072, 8192, (136_533, 2_053_902, 15.6700, 2)),
        ("gemma-3-27b-it", 80, 131_072, 8192, (65_536, 737_080, 5.6235, 7)),
        ("gemma-3n-E4B-it", 10, 32_768, 2048, (81_920, 997_159, 30.4309, 5)),
        ("granite-4.0-h-small", 20, 131_072, 8192, (2482, 1_260_932, 9.6202, 10)),
    ],
)
def test_models_as_vllm_planned_them(
    model: str, gib: int, length: int, batched: int, expected: tuple[int, int, float, int], shape_of
):
    """vLLM 0.32's own planning code, run on specs of these models."""
    rules = KvRules(in_flight_tokens=batched, null_block=True)
    found = plan(cache_layers(shape_of(model), rules=rules), gib * GIB, length, rules)
    assert (found.blocks, found.tokens, round(found.concurrency, 4), found.groups) == expected


def test_sparse_latent_attention_as_vllm_planned_it(shape_of):
    """DeepSeek V3.2 on eight ranks, FlashMLA's blocks of 64, packed FP8 rows; the same source."""
    rules = KvRules(block_tokens=64, null_block=True)
    layers = cache_layers(shape_of("DeepSeek-V3.2"), tensor_parallel=8, kv_cache_dtype="fp8_ds_mla", rules=rules)
    found = plan(layers, 40 * GIB, 131_072, rules)
    assert (found.blocks, found.tokens, found.request_bytes) == (13_961, 893_504, 6_300_368_896)


def test_delta_nets_as_vllm_planned_them(shape_of):
    """Qwen3-Next on two ranks with prefix caching; the same source."""
    rules = KvRules(states="align", null_block=True)
    layers = cache_layers(shape_of("Qwen3-Next-80B-A3B-Instruct"), tensor_parallel=2, rules=rules)
    found = plan(layers, 20 * GIB, 262_144, rules)
    assert (found.blocks, found.tokens, found.request_bytes) == (3212, 1_725_423, 3_262_119_936)


def test_the_length_that_vllm_estimates(shape_of):
    """vLLM 0.32 on 4.5 GiB: "the estimated maximum model length is 29472"; before 0.29 no block was left out."""
    layers = cache_layers(shape_of("Mistral-Small-24B-Instruct-2501"), rules=RULES)
    available = 9 * GIB // 2
    assert plan(layers, available, 32_768, KvRules(null_block=True)).largest == 29_472
    assert plan(layers, available, 32_768, KvRules()).largest == 29_488
    assert not plan(layers, available, 32_768, KvRules()).fits


# --- groups --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wide", "near", "spread", "groups", "per_block"),
    [
        (12, 12, 1.5, 2, 12),
        (10, 52, 1.5, 7, 10),  # Gemma 3 27B: ten full layers, 52 with a window, 8 padded
        (13, 12, 1.5, 2, 13),  # not much more: all get the size of the larger one
        (13, 12, 1.0, 3, 12),  # 0.9.1 to 0.11.2
        (15, 12, 1.25, 3, 12),  # 0.12.0 to 0.17.1
        (14, 12, 1.25, 2, 14),
        (18, 12, 1.5, 3, 12),  # exactly half as many again is too many
        (17, 12, 1.5, 2, 17),
    ],
)
def test_groups_are_equally_large(wide: int, near: int, spread: float, groups: int, per_block: int):
    found = plan((full(wide), sliding(near)), 1000 * per_block * PAGE, 4096, KvRules(group_spread=spread))
    assert (found.groups, found.blocks) == (groups, 1000)
    assert (
        plan((full(wide), sliding(near)), 1000 * per_block * PAGE - 1, 4096, KvRules(group_spread=spread)).blocks == 999
    )


def test_a_request_takes_blocks_of_every_group():
    """4,096 tokens: 256 blocks where all is kept; elsewhere 1,023 and 2,048 in flight are 192 blocks, and one more."""
    rules = KvRules(in_flight_tokens=2048)
    layers = (full(10), sliding(50))
    assert request_bytes(layers, 4096, rules) == (256 + 5 * 193) * 10 * PAGE
    found = plan(layers, 20 * GIB, 4096, rules)
    assert found.concurrency == found.blocks / (256 + 5 * 193)
    assert found.tokens == int(found.concurrency * 4096)


def test_short_requests_need_no_more_than_their_own_tokens_of_a_window():
    assert request_bytes((sliding(),), 17, KvRules(in_flight_tokens=2048)) == (2 + 1) * PAGE
    assert request_bytes((sliding(),), 1, KvRules(in_flight_tokens=2048)) == (1 + 1) * PAGE


def test_a_chunk_needs_no_further_block():
    rules = KvRules(chunked=True, in_flight_tokens=2048)
    assert request_bytes((chunked(),), 99_999, rules) == (8192 + 2048) // 16 * PAGE
    assert request_bytes((chunked(3), full(1)), 99_999, rules) == (3 * 640 + 6250) * PAGE


def test_pages_of_one_kind_may_differ():
    """Full attention with heads of several widths is one group; so are latent rows and their indexer's keys."""
    found = plan((full(2), full(3, PAGE // 3 * 2)), 100 * (2 * PAGE + 3 * (PAGE // 3 * 2)), 4096, RULES)
    assert (found.groups, found.blocks) == (1, 100)
    found = plan((latent(61), latent(61, 16 * 132)), 100 * 61 * 16 * (1152 + 132), 4096, RULES)
    assert (found.groups, found.blocks) == (1, 100)


def test_a_smaller_page_holds_more_tokens():
    """Half the bytes a token, so twice the tokens a block: a window of 1,024 takes 32 blocks and one more."""
    layers = (full(4), sliding(4, page=PAGE // 2))
    assert request_bytes(layers, 4096, KvRules(in_flight_tokens=1)) == (256 + 32 + 1) * 4 * PAGE
    assert plan(layers, 100 * 4 * PAGE, 4096, RULES).blocks == 100


def test_a_page_that_divides_nothing_is_padded():
    layers = (full(4), sliding(4, page=PAGE // 4 * 3))
    assert request_bytes(layers, 4096, KvRules(in_flight_tokens=1)) == (256 + 64 + 1) * 4 * PAGE


def test_a_latent_page_is_never_padded_so_windows_count_as_full():
    layers = (latent(5), sliding(2, page=PAGE))
    found = plan(layers, 100 * (5 * 16 * 1152 + 2 * PAGE), 4096, RULES)
    assert (found.groups, found.blocks) == (1, 100)
    assert found.request_bytes == 256 * (5 * 16 * 1152 + 2 * PAGE)
    with pytest.raises(UsageError, match="does not plan a KV cache"):
        plan(layers, GIB, 4096, KvRules(mixed_pages="pad"))
    with pytest.raises(UsageError, match="does not plan a KV cache"):
        plan((*layers, state(2)), GIB, 4096, RULES)


def test_layers_of_one_page_but_other_heads_are_groups_of_their_own():
    """Eight heads of 64 and four of 128: as many bytes, but not one layout."""
    near, far = sliding(4), replace(sliding(4), form=(4, 128, 128))
    assert plan((full(4), near, far), GIB, 4096, RULES).groups == 3


def test_layers_with_blocks_of_several_sizes_are_groups_of_their_own():
    found = plan((full(2), full(2, block=32)), 100 * 2 * PAGE, 4096, RULES)
    assert (found.groups, found.blocks, found.request_bytes) == (2, 100, (256 + 128) * 2 * PAGE)


# --- recurrent layers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "blocks"),
    [
        (KvRules(), 1),
        (KvRules(states="align"), 2),
        (KvRules(states="align", checkpoint_pages=1), 3),
        (KvRules(states="none", checkpoint_pages=1), 1),
        (KvRules(states="all"), 8),
    ],
)
def test_how_many_states_a_request_keeps(rules: KvRules, blocks: int):
    block = 0 if rules.states == "none" else 512
    layers = (state(9, block=block), full(3, block=512))
    assert request_bytes(layers, 4096, rules) == (3 * blocks + 8) * 3 * PAGE
    assert plan(layers, GIB, 4096, rules).groups == 4


def test_a_model_of_states_alone_serves_a_request_a_block():
    found = plan((state(64),), 10 * 64 * PAGE + 1, 100_000, RULES)
    assert found == KvPlan(0, 10, 1_000_000, 10.0, 64 * PAGE, 100_000, 1, fits=True)


# --- what releases do differently ----------------------------------------------------------------------


def test_one_block_is_left_out_of_the_check_since_0_29():
    one = request_bytes((full(4),), 4096, RULES)
    assert plan((full(4),), one, 4096, RULES).fits
    assert not plan((full(4),), one, 4096, KvRules(null_block=True)).fits
    found = plan((full(4),), one + 4 * PAGE, 4096, KvRules(null_block=True))
    assert (found.fits, found.blocks, found.request_bytes) == (True, 257, one)


@pytest.mark.parametrize("rules", [KvRules(hybrid=False), KvRules(hybrid=False, chunked=True)])
@pytest.mark.parametrize("other", [sliding(5), chunked(5), sliding(5, page=PAGE // 2)])
def test_without_the_hybrid_manager_everything_is_kept(rules: KvRules, other: CacheLayer):
    found = plan((other, full(1)), GIB, 100_000, rules)
    assert found.request_bytes == 6250 * (5 * other.page_bytes + PAGE)
    assert found.groups == 1


def test_chunks_count_as_full_unless_they_are_allowed_to_forget():
    assert plan((chunked(3), full(1)), GIB, 100_000, RULES).request_bytes == 6250 * 4 * PAGE
    assert plan((chunked(3), full(1)), GIB, 100_000, KvRules(chunked=True)).groups == 4


def test_windows_alone_forget_even_without_the_hybrid_manager():
    assert request_bytes((sliding(5),), 100_000, KvRules(hybrid=False)) == (64 + 1) * 5 * PAGE


@pytest.mark.parametrize(
    "layers",
    [
        (full(1), state(3)),
        (sliding(2, 512), sliding(2, 4096)),
        (full(1), sliding(2, 512), sliding(2, 4096)),
    ],
)
def test_without_the_hybrid_manager_some_models_do_not_start(layers: tuple[CacheLayer, ...]):
    with pytest.raises(UsageError, match="does not plan a KV cache") as caught:
        plan(layers, GIB, 4096, KvRules(hybrid=False))
    assert caught.value.why == "layers of these kinds need the hybrid KV cache manager"
    assert plan(layers, GIB, 4096, RULES).groups >= 2


@pytest.mark.parametrize(
    ("layers", "refused"),
    [
        ((full(2), full(2, PAGE // 2)), ("refuse",)),
        ((full(2), sliding(2, page=PAGE // 2)), ("refuse", "one")),
        ((full(2), sliding(2, page=PAGE // 4 * 3)), ("refuse", "one", "stretch")),
        ((latent(2), sliding(2)), ("refuse", "one", "stretch", "pad")),
        ((full(2), sliding(2)), ()),
    ],
)
def test_pages_of_several_sizes_by_release(layers: tuple[CacheLayer, ...], refused: tuple[str, ...]):
    for way in ("refuse", "one", "stretch", "pad", "promote"):
        rules = KvRules(mixed_pages=way)  # type: ignore[arg-type]
        if way in refused:
            with pytest.raises(UsageError, match="does not plan a KV cache"):
                plan(layers, GIB, 4096, rules)
        else:
            assert plan(layers, GIB, 4096, rules).blocks > 0


def test_what_the_start_check_counts_by_release():
    """Six layers with a window, then one that keeps all, of 4,096 tokens: 65 and 256 blocks."""
    layers = (sliding(6), full(1))
    needed = {check: request_bytes(layers, 4096, KvRules(check=check)) for check in ("layers", "first", "groups")}  # type: ignore[arg-type]
    assert needed == {"layers": (6 * 65 + 256) * PAGE, "first": 65 * PAGE, "groups": (6 * 65 + 256) * PAGE}
    padded = (sliding(5), full(4))
    assert request_bytes(padded, 4096, KvRules(check="layers")) == (5 * 65 + 4 * 256) * PAGE
    assert request_bytes(padded, 4096, KvRules(check="groups")) == (65 + 256) * 5 * PAGE
    assert request_bytes(layers, 4096, KvRules(check="layers", hybrid=False)) == (6 * 65 + 256) * PAGE


def test_what_the_log_calls_tokens_by_release():
    layers, available = (sliding(3), full(1)), 1000 * PAGE
    shown = {
        report: (found.tokens, found.concurrency)
        for report in ("blocks", "requests")
        for found in [plan(layers, available, 4096, KvRules(report=report))]  # type: ignore[arg-type]
    }
    at_once = 1000 / (3 * 65 + 256)
    assert shown == {"blocks": (250 * 16, at_once), "requests": (int(at_once * 4096), at_once)}
    found = plan((full(1),), 1000 * PAGE, 4097, KvRules(report="tokens"))
    assert (found.tokens, found.concurrency) == (16_000, 16_000 / 4097)


def test_a_state_s_block_is_the_whole_request_where_tokens_are_those_of_blocks():
    rules = KvRules(report="blocks")
    assert plan((state(3), full(1, block=512)), 1000 * PAGE, 4096, rules).tokens == 250 * 512
    assert plan((state(3), full(1, block=512)), 1000 * PAGE, 100, rules).tokens == 250 * 100


# --- edges ---------------------------------------------------------------------------------------------


def test_a_model_without_a_cache():
    assert plan((), GIB, 512, RULES) == KvPlan(0, 1, 0, 0.0, 0, 512, 0, fits=True)


@pytest.mark.parametrize("available", [0, -1, -5 * GIB, PAGE - 1])
def test_without_memory_nothing_fits(available: int):
    found = plan((full(1),), available, 4096, RULES)
    assert (found.blocks, found.tokens, found.concurrency, found.largest, found.fits) == (0, 0, 0.0, 0, False)


def test_the_search_ends_where_it_is_told():
    assert plan((full(1),), 100 * PAGE, 16, RULES).largest == 16
    assert plan((full(1),), 100 * PAGE, 16, RULES, longest=10_000).largest == 1600
    assert plan((full(1),), 100 * PAGE, 16, RULES, longest=1599).largest == 1599


# --- what must hold for any layers ---------------------------------------------------------------------

pages = st.sampled_from([PAGE, PAGE // 2, PAGE // 4 * 3, 2 * PAGE])
counts = st.integers(1, 80)
blocks_of = st.sampled_from([16, 32, 128])
kinds = st.one_of(
    st.builds(full, counts, pages),
    st.builds(sliding, counts, st.sampled_from([1, 128, 1024, 4096]), pages),
    st.builds(chunked, counts, st.sampled_from([512, 8192])),
    st.builds(latent, counts),
    st.builds(state, counts, pages, st.sampled_from([0, 16])),
)
rows = st.lists(kinds, min_size=1, max_size=4, unique_by=lambda layer: replace(layer, count=0)).map(tuple)
memory = st.integers(0, 2**41)
lengths = st.integers(1, 2**20)
rule_sets = st.builds(
    KvRules,
    null_block=st.booleans(),
    in_flight_tokens=st.sampled_from([1, 2048, 16_384]),
    hybrid=st.booleans(),
    chunked=st.booleans(),
    mixed_pages=st.sampled_from(["refuse", "one", "stretch", "pad", "promote"]),
    group_spread=st.sampled_from([1.0, 1.25, 1.5]),
    check=st.sampled_from(["layers", "first", "groups"]),
    report=st.sampled_from(["blocks", "requests"]),
    states=st.sampled_from(["none", "align"]),
    checkpoint_pages=st.integers(0, 1),
)


def planned(layers: tuple[CacheLayer, ...], available: int, length: int, rules: KvRules, longest: int = 0) -> KvPlan:
    """The plan; a case that this release refuses is no case."""
    try:
        return plan(layers, available, length, rules, longest=longest or None)
    except UsageError:
        assume(False)
        raise


@given(rows, st.tuples(memory, memory), lengths, rule_sets)
def test_more_memory_never_holds_less(layers, pair: tuple[int, int], length: int, rules: KvRules):
    small, large = (planned(layers, available, length, rules) for available in sorted(pair))
    assert small.blocks <= large.blocks
    assert small.tokens <= large.tokens
    assert small.concurrency <= large.concurrency
    assert small.largest <= large.largest
    assert small.fits <= large.fits
    assert small.request_bytes == large.request_bytes
    assert small.groups == large.groups


@given(rows, memory, st.tuples(lengths, lengths), rule_sets)
def test_longer_requests_are_never_more(layers, available: int, pair: tuple[int, int], rules: KvRules):
    short, long = (planned(layers, available, length, rules) for length in sorted(pair))
    assert short.concurrency >= long.concurrency
    assert short.request_bytes <= long.request_bytes
    assert short.blocks == long.blocks


@given(rows, memory, lengths, rule_sets)
def test_the_largest_request_passes_and_the_next_one_fails(layers, available: int, longest: int, rules: KvRules):
    found = planned(layers, available, longest, rules)
    assert 0 <= found.largest <= longest
    if found.largest:
        assert plan(layers, available, found.largest, rules).fits
    if found.largest < longest:
        assert not plan(layers, available, found.largest + 1, rules).fits


@given(rows, lengths, rule_sets)
def test_the_memory_of_one_request_serves_one(layers, length: int, rules: KvRules):
    rules = replace(rules, check="groups", null_block=False)
    one = planned(layers, 0, length, rules).request_bytes
    found = plan(layers, one, length, rules)
    assert (found.concurrency, found.fits) == (1.0, True)
    assert not plan(layers, one - 1, length, rules).fits
    assert plan(layers, one - 1, length, rules).concurrency < 1
    assert found.blocks * (one // found.blocks) == one


@given(rows, memory, lengths, rule_sets)
def test_the_order_of_layers_does_not_matter(layers, available: int, length: int, rules: KvRules):
    """Since 0.19.0; before, the start check looked at the first group only."""
    rules = replace(rules, check="groups")
    expected = planned(layers, available, length, rules)
    for others in permutations(layers):
        assert plan(others, available, length, rules) == expected


@given(st.lists(st.builds(full, counts), min_size=1, max_size=1).map(tuple), memory, lengths, blocks_of)
def test_full_attention_fills_the_memory_block_by_block(layers, available: int, length: int, block: int):
    layers = tuple(replace(layer, page_bytes=4096 * block, block_tokens=block, token_bytes=4096) for layer in layers)
    found = plan(layers, available, length, RULES)
    size = bytes_per_token(layers) * block
    assert found.blocks * size <= available < (found.blocks + 1) * size
    # vLLM counts a request in whole blocks, so its tokens can be fewer than the blocks hold, never more.
    assert found.tokens <= found.blocks * block
    assert found.largest == min(length, found.blocks * block)


@given(rows, memory, lengths, rule_sets, st.integers(0, 2**20))
def test_a_wider_search_finds_no_less(layers, available: int, length: int, rules: KvRules, more: int):
    narrow = planned(layers, available, length, rules)
    wide = plan(layers, available, length, rules, longest=length + more)
    assert wide.largest >= narrow.largest == min(wide.largest, length)
    assert replace(wide, largest=0) == replace(narrow, largest=0)
