"""The KV cache of one rank as vLLM plans it: groups of layers, blocks, tokens, concurrency, the start check.

All layers draw blocks from one pool. Layers that need equally many blocks form a group; groups are equally large,
with padding where they do not come out even, so that a block serves any of them. A request takes blocks for each
group; the start check asks whether one request of the longest length fits.

Sources: vllm/v1/core/kv_cache_utils.py (0.33: kv_cache_planning.py) and v1/kv_cache_interface.py, releases 0.8.3 to
0.33.0; what differs between them is in `KvRules`. Not here: speculative decoding, pipelines (every rank has all
layers), context parallelism, block-outermost cache layouts, DeepSeek V4's compressed caches.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from modelberth.base.errors import UsageError
from modelberth.sizing.kv_layers import (
    CACHE_BYTES,
    CacheLayer,
    KvRules,
    cache_layers,
    resolve_cache_dtype,
    resolve_state_dtype,
)

__all__ = [
    "CACHE_BYTES",
    "CacheLayer",
    "KvPlan",
    "KvRules",
    "bytes_per_token",
    "cache_layers",
    "plan",
    "request_bytes",
    "resolve_cache_dtype",
    "resolve_state_dtype",
]

_ENDLESS = 1 << 62
"""Tokens that no request reaches."""


@dataclass(frozen=True)
class KvPlan:
    """What vLLM plans, and reports, for a KV cache of a given size on one rank.

    Attributes:
        bytes_per_token: what one token takes over all layers, were they all to keep the full length.
        blocks: whole blocks that fit.
        tokens: the figure of the log line "KV cache size".
        concurrency: requests of `max_model_len` tokens that fit at once, as the log reports it.
        request_bytes: what one request of `max_model_len` tokens needs, as the start check counts it.
        largest: the longest request that passes the start check, at most `max_model_len` (or the longest length that
            was asked for); 0 where not even one token fits. vLLM's own "estimated maximum model length" and auto-fit.
        groups: groups of layers.
        fits: whether a request of `max_model_len` tokens passes the start check.
    """

    bytes_per_token: int
    blocks: int
    tokens: int
    concurrency: float
    request_bytes: int
    largest: int
    groups: int
    fits: bool


class _Need(NamedTuple):
    """What grows with the length L of a request: weight * (ceil(min(L, cap) / block) + extra)."""

    weight: int
    block: int
    cap: int
    extra: int


class _Group(NamedTuple):
    """Equal groups: a layer that stands for their members, and how many groups there are."""

    layer: CacheLayer
    times: int


def bytes_per_token(layers: Sequence[CacheLayer]) -> int:
    """Bytes that one token takes on one rank, over all layers, were they all to keep the full length.

    Layers with a window forget, recurrent layers keep a state whatever the length: a long request needs less.
    """
    return sum(layer.count * layer.token_bytes for layer in layers)


def request_bytes(layers: Sequence[CacheLayer], max_model_len: int, rules: KvRules) -> int:
    """Bytes that one request of `max_model_len` tokens needs on one rank, as the start check counts it.

    Raises:
        UsageError: this release cannot plan a cache for such layers.
    """
    block_bytes, groups = _grouped(layers, rules)
    return _total(_checked(layers, block_bytes, groups, rules), max_model_len)


def plan(
    layers: Sequence[CacheLayer],
    available_bytes: int,
    max_model_len: int,
    rules: KvRules,
    *,
    longest: int | None = None,
) -> KvPlan:
    """Plan the cache of one rank.

    Args:
        layers: from `cache_layers`.
        available_bytes: memory set aside for the cache.
        max_model_len: longest request in tokens.
        rules: of the release.
        longest: where the search for `KvPlan.largest` ends; None for `max_model_len`, as vLLM does.

    A model without a cache (encoders) has no groups and one block.

    Raises:
        UsageError: this release cannot plan a cache for such layers.
    """
    end = max_model_len if longest is None else longest
    if not layers:
        return KvPlan(0, 1, 0, 0.0, 0, end, 0, fits=True)
    block_bytes, groups = _grouped(layers, rules)
    checked = _checked(layers, block_bytes, groups, rules)
    budget = available_bytes - (block_bytes if rules.null_block else 0)
    needed = _total(checked, max_model_len)
    largest = bisect_right(range(1, end + 1), budget, key=lambda length: _total(checked, length))
    blocks = max(available_bytes // block_bytes, 0)
    tokens, concurrency = _reported(blocks, groups, max_model_len, rules)
    count = sum(group.times for group in groups)
    return KvPlan(bytes_per_token(layers), blocks, tokens, concurrency, needed, largest, count, fits=needed <= budget)


def _reported(blocks: int, groups: Sequence[_Group], length: int, rules: KvRules) -> tuple[int, float]:
    """Tokens and concurrency as the log has them."""
    if rules.report == "tokens":
        tokens = blocks * (groups[0].layer.block_tokens or length)
        return tokens, tokens / length
    concurrency = blocks / _total((_need(group.layer, group.times, rules) for group in groups), length)
    if rules.report == "requests":
        return int(concurrency * length), concurrency
    count = sum(group.times for group in groups)
    return blocks // count * min(group.layer.block_tokens or length for group in groups), concurrency


def _checked(
    layers: Sequence[CacheLayer], block_bytes: int, groups: Sequence[_Group], rules: KvRules
) -> tuple[_Need, ...]:
    """The bytes that the start check counts for one request."""
    if rules.check == "layers":
        return tuple(_need(layer, layer.count * layer.page_bytes, rules) for layer in layers)
    if rules.check == "first":
        return (_need(groups[0].layer, block_bytes, rules),)
    return tuple(_need(group.layer, group.times * block_bytes, rules) for group in groups)


def _need(layer: CacheLayer, weight: int, rules: KvRules) -> _Need:
    """Blocks of a request in one layer, times `weight`.

    A window of W tokens may start inside a block, hence one more; while a step is under way its tokens are held too.
    """
    if layer.kind == "recurrent":
        if rules.states == "all" and layer.block_tokens:
            return _Need(weight, layer.block_tokens, _ENDLESS, 0)
        return _Need(weight, 1, 0, 2 + rules.checkpoint_pages if rules.states == "align" else 1)
    if layer.kind == "sliding":
        return _Need(weight, layer.block_tokens, layer.window - 1 + rules.in_flight_tokens, 1)
    if layer.kind == "chunked":
        return _Need(weight, layer.block_tokens, layer.window + rules.in_flight_tokens, 0)
    return _Need(weight, layer.block_tokens, _ENDLESS, 0)


def _total(needs: Iterable[_Need], length: int) -> int:
    return sum(weight * (-(-min(length, cap) // block) + extra) for weight, block, cap, extra in needs)


def _grouped(layers: Sequence[CacheLayer], rules: KvRules) -> tuple[int, list[_Group]]:
    """Bytes of a block of the pool, and the groups that draw from it, in the order in which layers appear."""
    if _manager_off(layers, rules):
        whole, layers = layers, _promoted(layers)
        if not _alike(layers) or _several_windows(whole):
            raise _unplanned("layers of these kinds need the hybrid KV cache manager", "turn it on")
    sizes = {layer.page_bytes for layer in layers}
    if _alike(layers) and (len(sizes) == 1 or rules.mixed_pages != "refuse"):
        return sum(layer.count * layer.page_bytes for layer in layers), [_Group(layers[0], 1)]
    if len(sizes) > 1:
        equal = _equal_pages(layers, max(sizes), rules)
        if equal is None:
            layers = _promoted(layers)
            return sum(layer.count * layer.page_bytes for layer in layers), [_Group(layers[0], 1)]
        layers = equal
    counts = [layer.count for layer in layers]
    size = max(counts) if max(counts) < min(counts) * rules.group_spread else min(counts)
    return size * max(sizes), [_Group(layer, -(-layer.count // size)) for layer in layers]


def _manager_off(layers: Sequence[CacheLayer], rules: KvRules) -> bool:
    """Whether layers that could be managed each in its way are not."""
    if rules.hybrid and (rules.chunked or all(layer.kind != "chunked" for layer in layers)):
        return False
    return not _alike(layers)


def _several_windows(layers: Sequence[CacheLayer]) -> bool:
    """Whether full attention with windows or chunks of several sizes cannot be one group (FullAttentionSpec.merge)."""
    if any(layer.kind == "latent" for layer in layers):
        return False
    return any(len({layer.window for layer in layers if layer.kind == kind}) > 1 for kind in ("sliding", "chunked"))


def _alike(layers: Sequence[CacheLayer]) -> bool:
    """Whether all layers need equally many blocks: one kind, one window, blocks of one size."""
    return len({_family(layer) for layer in layers}) == 1


def _family(layer: CacheLayer) -> tuple[str, int, int]:
    kind = "full" if layer.kind == "latent" else layer.kind
    return kind, layer.page_bytes if kind == "recurrent" else layer.window, layer.block_tokens


def _promoted(layers: Sequence[CacheLayer]) -> tuple[CacheLayer, ...]:
    """Layers with windows and chunks as full attention, beside full attention."""
    if all(layer.kind not in ("full", "latent") for layer in layers):
        return tuple(layers)
    return tuple(
        replace(layer, kind="full", window=0) if layer.kind in ("sliding", "chunked") else layer for layer in layers
    )


def _equal_pages(layers: Sequence[CacheLayer], page: int, rules: KvRules) -> tuple[CacheLayer, ...] | None:
    """Layers with pages of one size: more tokens in a block, or padding. None: windows must count as full.

    Raises:
        UsageError: this release cannot plan a cache for such layers.
    """
    if rules.mixed_pages in ("refuse", "one"):
        raise _unplanned("layers of several kinds have pages of several sizes", "choose vLLM 0.24 or later")
    pads = rules.mixed_pages in ("pad", "promote")
    equal: list[CacheLayer] = []
    for layer in layers:
        if page % layer.page_bytes == 0 and layer.kind != "recurrent":
            times = page // layer.page_bytes
            equal.append(replace(layer, page_bytes=page, block_tokens=layer.block_tokens * times))
        elif layer.page_bytes == page or (pads and layer.kind != "latent"):
            equal.append(replace(layer, page_bytes=page))
        elif rules.mixed_pages == "promote" and all(each.kind in ("full", "latent", "sliding") for each in layers):
            return None
        else:
            raise _unplanned("pages of several sizes that are no multiples of each other", "choose a later vLLM")
    return tuple(equal)


def _unplanned(why: str, next_step: str) -> UsageError:
    return UsageError("this vLLM does not plan a KV cache for such a model", why=why, next_step=next_step)
