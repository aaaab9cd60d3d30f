"""A plan in words, for whoever shows it: verdict, subject, settings, and how each figure comes about."""

from __future__ import annotations

from collections.abc import Iterator
from collections.abc import Set as AbstractSet

from modelberth.base.text import printable
from modelberth.base.units import GIB, format_binary
from modelberth.sizing.plan import Sizing, Verdict
from modelberth.sizing.ranges import Range

VERDICTS: dict[Verdict, str] = {
    "fits": "Fits",
    "fits-tight": "Fits tightly",
    "weights-do-not-fit": "Does not fit",
    "context-too-long": "Context too long",
    "start-check-fails": "Does not start",
    "unsupported": "Not supported",
}
_SHOWN = 0.005 * GIB
"""Bytes below which two digits of a GiB show nothing."""


def headline(sizing: Sizing) -> str:
    """The verdict and its reason in one sentence."""
    return f"{VERDICTS[sizing.verdict]}: {printable(sizing.reasons[0])}."


def subject(sizing: Sizing) -> str:
    """What is planned: `LlamaForCausalLM, 8.03 billion parameters in bf16, on 1 x NVIDIA-L4`."""
    model = sizing.model
    return (
        f"{printable(model.shape.architecture)}, {model.parameters / 1e9:.2f} billion parameters in "
        f"{printable(model.shape.precision)}, on {sizing.engine.tensor_parallel} x {sizing.gpu.product}"
    )


def settings(sizing: Sizing) -> Iterator[tuple[str, str, str]]:
    """Every setting the plan was made with: the name of its field in `EngineFlags`, the flag, the value."""
    engine = sizing.engine
    yield "vllm", "vllm", engine.rules.version
    yield "", "model runner", engine.runner
    yield "entrypoint", "entrypoint", engine.entrypoint
    yield "tensor_parallel", "tensor-parallel-size", str(engine.tensor_parallel)
    yield "expert_parallel", "enable-expert-parallel", _yes(engine.expert_parallel)
    yield "max_model_len", "max-model-len", f"{engine.max_model_len:,}"
    yield "gpu_memory_utilization", "gpu-memory-utilization", f"{engine.gpu_memory_utilization:g}"
    yield "max_num_batched_tokens", "max-num-batched-tokens", f"{engine.max_num_batched_tokens:,}"
    yield "max_num_seqs", "max-num-seqs", f"{engine.max_num_seqs:,}"
    yield "dtype", "dtype", printable(sizing.model.shape.dtype)
    yield "kv_cache_dtype", "kv-cache-dtype", printable(engine.kv_cache_dtype)
    yield "block_size", "block-size", str(engine.block_size)
    yield "enforce_eager", "enforce-eager", _yes(engine.enforce_eager)
    yield "gpu_total", "memory that CUDA reports", format_binary(round(sizing.ledger.total.mid))


def marked_settings(sizing: Sizing, given: AbstractSet[str]) -> list[tuple[str, str, str]]:
    """The settings as flag, value and `default` where the user did not give it.

    Args:
        sizing: the plan.
        given: names of the fields of `EngineFlags` that the user set.
    """
    return [(flag, value, "" if field in given else "default") for field, flag, value in settings(sizing)]


def terms(sizing: Sizing) -> Iterator[tuple[str, str]]:
    """Every term of the plan and how it comes about, in this case's own numbers."""
    ledger, engine = sizing.ledger, sizing.engine
    yield (
        "budget",
        (
            f"{_gib(ledger.total)} that CUDA reports x gpu-memory-utilization {engine.gpu_memory_utilization:g} = "
            f"{_gib(ledger.budget)}"
        ),
    )
    yield "weights", _weights(sizing)
    yield "activation peak", _activation(sizing)
    yield (
        "non-torch",
        (
            f"what the driver, NCCL and kernels hold outside PyTorch and vLLM {engine.rules.version} charges, as "
            f"measured on starts like this one: {_gib(ledger.non_torch)}"
        ),
    )
    yield "CUDA graphs", _graphs(sizing)
    yield (
        "KV cache",
        (
            f"budget {_gib(ledger.budget)} - weights {_gib(ledger.weights)} - activation {_gib(ledger.activation)} - "
            f"non-torch {_gib(ledger.non_torch)} - graphs {_gib(ledger.cuda_graphs)} = {_gib(ledger.kv_cache)}"
        ),
    )
    yield from _cache(sizing)
    yield "beside the budget", _beside(sizing)


def _weights(sizing: Sizing) -> str:
    parts, ranks = sizing.account.weights, sizing.engine.tensor_parallel
    found = "read from the headers" if sizing.model.from_headers else "derived from config.json"
    named = ", ".join(f"{name} {_gib(size)}" for name, size in weight_parts(sizing) if size >= _SHOWN)
    shared = f"one of {ranks} ranks holds" if ranks > 1 else "tensors"
    return f"{shared} as {found}: {named or 'all'} = {_gib(parts.total)}"


def weight_parts(sizing: Sizing) -> tuple[tuple[str, int], ...]:
    """What the weights of one GPU are made of, bytes."""
    parts = sizing.account.weights
    return (
        ("layers", parts.layers),
        ("experts", parts.experts),
        ("embeddings", parts.embeddings),
        ("tower", parts.tower),
        ("extras", parts.extra),
        ("rounding", parts.rounding),
    )


def _activation(sizing: Sizing) -> str:
    engine, found = sizing.engine, sizing.account.activation
    rows = min(engine.max_num_batched_tokens, engine.max_num_seqs)
    rest = found.peak.mid - max(found.forward, found.sampling)
    beside = f", plus {_gib(rest)} beside both (workspaces, encoder, compiling)" if rest >= _SHOWN else ""
    return (
        f"the larger of a forward pass over {engine.max_num_batched_tokens:,} tokens ({_gib(found.forward)}) and of "
        f"sampling {rows:,} rows over a vocabulary of {sizing.model.shape.vocabulary:,} ({_gib(found.sampling)})"
        f"{beside}: {_gib(found.peak)}"
    )


def _graphs(sizing: Sizing) -> str:
    graphs, version = sizing.account.graphs, sizing.engine.rules.version
    if not graphs.memory.high:
        return "none: the engine is eager"
    counted = f"{graphs.piecewise} sizes piece by piece, {graphs.full} whole: about {_gib(graphs.memory)}"
    if graphs.charged.high:
        return f"{counted}, which vLLM {version} charges to the budget"
    return f"{counted}, which vLLM {version} does not charge: they must fit beside the budget"


def _cache(sizing: Sizing) -> Iterator[tuple[str, str]]:
    kv, engine = sizing.kv, sizing.engine
    if not kv.bytes_per_token and not kv.tokens.high:
        return
    yield (
        "KV tokens",
        (
            f"{int(kv.blocks.mid):,} whole blocks, at {kv.bytes_per_token:,} bytes a token over all layers of one GPU: "
            f"{int(kv.tokens.mid):,} tokens"
        ),
    )
    yield (
        "concurrency",
        (
            f"one request of {engine.max_model_len:,} tokens takes {_gib(kv.request_bytes)}: "
            f"{kv.concurrency.mid:.2f} fit at once"
        ),
    )
    if kv.largest.mid >= sizing.model.shape.max_positions > 0:
        why = "all that the model was made for fits"
    else:
        why = "the longest single request whose cache fits"
    yield "longest context", f"{why}: {int(kv.largest.mid):,} tokens"


def _beside(sizing: Sizing) -> str:
    ledger = sizing.ledger
    takers = (
        ("driver and NCCL", ledger.outside.mid),
        ("uncharged graphs", ledger.uncharged_graphs),
    )
    taken = ", ".join(f"{name} {_gib(size)}" for name, size in takers if size >= _SHOWN)
    return f"{_gib(ledger.total.mid - ledger.budget.mid)} of the card; what must fit there: {taken or 'nothing'}"


def _gib(size: Range | float) -> str:
    """Expected bytes as GiB with two digits."""
    return f"{in_gib(size.mid if isinstance(size, Range) else size)} GiB"


def in_gib(size: float) -> str:
    """Bytes as a number of GiB with two digits, never `-0.00`."""
    return f"{round(size / GIB, 2) + 0.0:,.2f}"


def _yes(value: bool) -> str:
    return "yes" if value else "no"
