"""The memory plan of one engine on this machine's CPU: weights, KV cache, and what the process itself takes."""

from __future__ import annotations

from dataclasses import dataclass

from modelberth.base.errors import DoesNotFit
from modelberth.base.units import MIB, format_binary
from modelberth.checkpoint.folder import Checkpoint
from modelberth.sizing.kv_cache import (
    KvPlan,
    KvRules,
    bytes_per_token,
    cache_layers,
    plan,
    request_bytes,
    resolve_cache_dtype,
)

KV_REQUESTS = 4
"""Full-length requests that the local KV cache is made for, where memory allows."""
KV_FLOOR = 256 * MIB
"""Smallest KV cache given to an engine when there is room: below this, batching suffers for nothing."""


@dataclass(frozen=True)
class LocalPlan:
    """What one engine will take on this machine, in bytes.

    Attributes:
        weights: tensors as stored; the CPU engine keeps them so.
        kv_cache: memory set aside for the KV cache.
        process: the engine's processes without model and cache.
        max_model_len: longest request, tokens.
        kv: blocks, tokens and concurrency of that cache.
    """

    weights: int
    kv_cache: int
    process: int
    max_model_len: int
    kv: KvPlan

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.kv_cache + self.process


def plan_local(
    checkpoint: Checkpoint,
    *,
    available: int,
    process: int,
    block_tokens: int,
    max_model_len: int | None,
    kv_cache_dtype: str = "auto",
    wanted_cache: int | None = None,
) -> LocalPlan:
    """Plan one engine.

    Args:
        checkpoint: the model as its folder describes it.
        available: memory that this engine may take, bytes.
        process: what the engine takes without a model, bytes (measured, from the catalogue).
        block_tokens: tokens in a KV block.
        max_model_len: longest request; None for the model's own.
        kv_cache_dtype: as declared.
        wanted_cache: KV cache that the user asked for, bytes; None for `KV_REQUESTS` requests.

    Raises:
        DoesNotFit: not even one request of that length fits, or not the cache that was asked for.
        UsageError: a KV cache of that dtype has no known size.
    """
    length = max_model_len or checkpoint.shape.max_positions
    rules = _rules(block_tokens, length)
    dtype = resolve_cache_dtype(checkpoint.shape, kv_cache_dtype)
    layers = cache_layers(checkpoint.shape, kv_cache_dtype=dtype, rules=rules)
    token_bytes = bytes_per_token(layers)
    one = request_bytes(layers, length, rules)
    room = available - checkpoint.weight_bytes - process
    cache = min(max(KV_REQUESTS * one, KV_FLOOR), max(room, one)) if wanted_cache is None else wanted_cache
    if cache < one:
        raise DoesNotFit(
            f"a KV cache of {format_binary(cache)} does not hold one request",
            why=f"{length:,} tokens of {token_bytes:,} bytes take {format_binary(one)}",
            next_step="ask for a larger cache, or lower maxModelLen",
        )
    if room < cache:
        need = checkpoint.weight_bytes + process + cache
        raise DoesNotFit(
            "the model does not fit this machine's memory",
            why=f"{format_binary(need)} needed, {format_binary(max(available, 0))} free: "
            f"weights {format_binary(checkpoint.weight_bytes)}, engine {format_binary(process)}, "
            f"KV cache {format_binary(cache)}, of which one request of {length:,} tokens takes {format_binary(one)}",
            next_step="lower maxModelLen, or free memory",
        )
    kv = plan(layers, cache, length, rules)
    return LocalPlan(checkpoint.weight_bytes, cache, process, length, kv)


def _rules(block_tokens: int, length: int) -> KvRules:
    """The CPU engine's rules.

    Its tokens of one step are not known here: a window counts as if a whole request were in one step, which is never
    too little. Recurrent states are kept twice, for prefix caching, and in float32 (vllm/platforms/cpu.py, 0.32).
    """
    return KvRules(
        block_tokens=block_tokens,
        kernel_tokens=block_tokens,
        in_flight_tokens=length,
        states="align",
        state_dtype="float32",
    )
