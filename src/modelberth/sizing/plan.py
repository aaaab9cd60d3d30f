"""The plan of one model on one kind of card: ledger, KV cache, longest context, and whether the engine will start.

The verdict follows the engine's own order: what it refuses, the start check, loading the weights, the KV cache, the
longest request, and last the graphs. `fits` means that the pessimistic figures start too; `fits-tight` that only the
expected ones do.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from modelberth.base.errors import UsageError
from modelberth.base.units import format_binary
from modelberth.catalog.gpus import Gpu
from modelberth.sizing.engine import Engine, EngineFlags, resolve, resolve_dtype
from modelberth.sizing.kv_cache import (
    CacheLayer,
    KvPlan,
    KvRules,
    bytes_per_token,
    cache_layers,
    plan,
    resolve_cache_dtype,
)
from modelberth.sizing.kv_rules import kv_rules
from modelberth.sizing.ledger import Account, Ledger, account
from modelberth.sizing.model import Model, loaded_as, requantized
from modelberth.sizing.ranges import Range
from modelberth.sizing.support import refusals

Verdict = Literal["fits", "fits-tight", "weights-do-not-fit", "context-too-long", "start-check-fails", "unsupported"]


_SURE = 0.85
"""Share of the expected graph memory that must be too much before a start is called a failure: the figure is that good
on H100 (one case in six is off by more, tests/data/vllm-startups)."""


@dataclass(frozen=True)
class KvFigures:
    """The KV cache over the ledger's range.

    Attributes:
        bytes_per_token: on one GPU, all layers.
        blocks: whole blocks.
        tokens: the figure of "GPU KV cache size".
        concurrency: requests of the longest kind at once.
        largest: longest context that starts, tokens.
        request_bytes: what one request of the longest kind needs on one GPU.
    """

    bytes_per_token: int
    blocks: Range
    tokens: Range
    concurrency: Range
    largest: Range
    request_bytes: int


@dataclass(frozen=True)
class Sizing:
    """The plan.

    Attributes:
        model: what is served.
        gpu: the card.
        engine: every setting with its value.
        account: the ledger and its parts.
        kv: the KV cache.
        verdict: whether it starts.
        reasons: why, and why the ranges are as wide as they are; the first explains the verdict.
    """

    model: Model
    gpu: Gpu
    engine: Engine
    account: Account
    kv: KvFigures
    verdict: Verdict
    reasons: tuple[str, ...]

    @property
    def ledger(self) -> Ledger:
        """The ledger of one GPU."""
        return self.account.ledger

    @property
    def starts(self) -> bool:
        """Whether the engine is expected to start."""
        return self.verdict in ("fits", "fits-tight")


def size(model: Model, gpu: Gpu, flags: EngineFlags, *, gpus: int | None = None) -> Sizing:
    """Plan one model on one kind of card.

    Args:
        model: what is served.
        gpu: the card.
        flags: what the user says of the engine.
        gpus: cards in one machine; None where that is not known.

    Raises:
        UsageError: a setting that cannot be taken.
    """
    model = requantized(model, flags.quantization) if flags.quantization else model
    model = loaded_as(model, resolve_dtype(flags, model.shape, gpu))
    engine = resolve(flags, model.shape, gpu)
    refused = refusals(model.shape, engine, gpu, gpus)
    counted = account(model, engine, gpu, flags.gpu_total)
    kv, fits, unplanned = _cache(model, engine, counted.ledger)
    verdict, reason = _verdict(counted.ledger, engine, kv, fits, (*refused, *unplanned))
    return Sizing(model, gpu, engine, counted, kv, verdict, (reason, *engine.notes, *dict.fromkeys(counted.reasons)))


def _cache(model: Model, engine: Engine, ledger: Ledger) -> tuple[KvFigures, Callable[[float], bool], tuple[str, ...]]:
    """The KV cache's figures, whether one longest request fits into a cache of a size, and why it cannot be planned."""
    rules = kv_rules(engine, model.shape)
    try:
        dtype = resolve_cache_dtype(
            model.shape, engine.kv_cache_dtype if engine.kv_cache_dtype != "auto" else model.shape.dtype
        )
        layers = cache_layers(model.shape, tensor_parallel=engine.tensor_parallel, kv_cache_dtype=dtype, rules=rules)
        longest = max(engine.max_model_len, model.shape.max_positions)
        memory = ledger.kv_cache
        plans = [_plan(layers, size, engine, rules, longest) for size in (memory.low, memory.mid, memory.high)]
    except UsageError as error:
        none = Range(0.0, 0.0, 0.0)
        return (
            KvFigures(0, none, none, none, none, 0),
            lambda _: False,
            (f"{error.what}: {error.why}" if error.why else error.what,),
        )
    figures = KvFigures(
        bytes_per_token=bytes_per_token(layers),
        blocks=_range(plans, lambda each: each.blocks),
        tokens=_range(plans, lambda each: each.tokens),
        concurrency=_range(plans, lambda each: each.concurrency),
        largest=_range(plans, lambda each: each.largest),
        request_bytes=plans[1].request_bytes,
    )
    return figures, lambda size: _plan(layers, size, engine, rules, longest).fits and size > 0, ()


def _plan(layers: tuple[CacheLayer, ...], size: float, engine: Engine, rules: KvRules, longest: int) -> KvPlan:
    return plan(layers, max(0, int(size)), engine.max_model_len, rules, longest=longest)


def _range(plans: list[KvPlan], figure: Callable[[KvPlan], float]) -> Range:
    low, mid, high = sorted(figure(each) for each in plans)
    return Range(float(low), float(mid), float(high))


def _verdict(
    ledger: Ledger, engine: Engine, kv: KvFigures, fits: Callable[[float], bool], refused: tuple[str, ...]
) -> tuple[Verdict, str]:
    """The verdict and the sentence that explains it, in the engine's own order of checks."""
    if refused:
        return "unsupported", "; ".join(refused)
    free = ledger.total.mid - ledger.outside.mid
    if engine.rules["startCheck"]["checked"] and free < ledger.budget.mid:
        return "start-check-fails", (
            f"about {_gib(free)} are free when the engine starts, less than the {_gib(ledger.budget.mid)} that "
            f"gpu-memory-utilization {engine.gpu_memory_utilization:g} asks for"
        )
    if ledger.weights.mid > free:
        return "weights-do-not-fit", (
            f"weights take {_gib(ledger.weights.mid)} on each GPU, which has {_gib(free)}: loading them fails"
        )
    if ledger.kv_cache.mid <= 0:
        return "weights-do-not-fit", (
            f"weights ({_gib(ledger.weights.mid)}) and what the engine needs beside them leave nothing of the budget "
            f"of {_gib(ledger.budget.mid)} for the KV cache"
        )
    if not fits(ledger.kv_cache.mid):
        return "context-too-long", (
            f"one request of {engine.max_model_len:,} tokens needs {_gib(kv.request_bytes)} of KV cache, there are "
            f"{_gib(ledger.kv_cache.mid)}: at most {int(kv.largest.mid):,} tokens fit"
        )
    if ledger.uncharged_graphs * _SURE > ledger.beside:
        return "start-check-fails", (
            f"CUDA graphs take about {_gib(ledger.uncharged_graphs)} beside the budget, where {_gib(ledger.beside)} "
            "are left: lower gpu-memory-utilization"
        )
    return _tight(ledger, engine, kv, fits)


def _tight(ledger: Ledger, engine: Engine, kv: KvFigures, fits: Callable[[float], bool]) -> tuple[Verdict, str]:
    text = (
        f"{int(kv.tokens.mid):,} tokens of KV cache hold {kv.concurrency.mid:.1f} requests of "
        f"{engine.max_model_len:,} tokens"
    )
    if not fits(ledger.kv_cache.low):
        return "fits-tight", f"{text}, but not if memory turns out at the low end of the range"
    if ledger.uncharged_graphs > ledger.beside:
        return "fits-tight", f"{text}, but CUDA graphs may not fit beside the budget ({_gib(ledger.uncharged_graphs)})"
    free = ledger.total.low - ledger.outside.high
    if engine.rules["startCheck"]["checked"] and free < ledger.budget.low:
        return "fits-tight", f"{text}, but the start check fails if the driver and NCCL take what they can"
    return "fits", text


def _gib(size: float) -> str:
    return format_binary(round(size))
