"""The memory ledger of one GPU in vLLM's own terms, and what follows from it.

    budget   = total * gpu_memory_utilization
    kv cache = budget - weights - activation - non-torch - graphs (where the release counts them)

Source: vllm/v1/worker/gpu_worker.py determine_available_memory, release by release (catalogue, memoryFormula).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from modelberth.base.units import GIB, MIB
from modelberth.catalog.gpus import Gpu
from modelberth.catalog.overheads import overhead
from modelberth.catalog.vllm import by_capability
from modelberth.sizing.activation import Activation, activation
from modelberth.sizing.engine import Engine
from modelberth.sizing.graphs import Graphs, cuda_graphs
from modelberth.sizing.model import Model
from modelberth.sizing.ranges import Range, difference, exact, total
from modelberth.sizing.weights import RankWeights, WeightRules, rank_weights


@dataclass(frozen=True)
class Ledger:
    """Memory of one GPU, bytes.

    Attributes:
        total: what CUDA reports.
        budget: what the engine may take of it.
        weights: "Model loading took".
        activation: peak of the profiling run.
        non_torch: memory outside PyTorch that is charged to the budget.
        cuda_graphs: what is charged for graphs; 0 where the release does not.
        kv_cache: what is left: "Available KV cache memory". Negative when nothing is.
        outside: what the driver and NCCL take before the engine looks: it must fit beside the budget.
        graph_memory: what graphs take, charged or not.
    """

    total: Range
    budget: Range
    weights: Range
    activation: Range
    non_torch: Range
    cuda_graphs: Range
    kv_cache: Range
    outside: Range
    graph_memory: Range

    @property
    def beside(self) -> float:
        """What is left beside the budget once the driver and NCCL have theirs; negative where they lack it. Mids."""
        return self.total.mid - self.outside.mid - self.budget.mid

    @property
    def uncharged_graphs(self) -> float:
        """What graphs take that the budget does not hold: it must fit beside it. Mids."""
        return self.graph_memory.mid - self.cuda_graphs.mid


@dataclass(frozen=True)
class Account:
    """A ledger with the parts it came from."""

    ledger: Ledger
    weights: RankWeights
    activation: Activation
    graphs: Graphs
    reasons: tuple[str, ...]


def account(model: Model, engine: Engine, gpu: Gpu, known_total: int | None = None) -> Account:
    """The ledger of one GPU.

    Args:
        model: what is served.
        engine: its settings.
        gpu: the card.
        known_total: bytes that CUDA reports, where they are known better than from the catalogue.
    """
    whole = exact(known_total) if known_total is not None else Range(*gpu.cuda_bytes)
    rounding = math.ceil if engine.rules["memoryFormula"]["budget"] == "ceil" else float
    budget = whole.mapped(lambda size: float(rounding(size * engine.gpu_memory_utilization)))
    ranks = rank_weights(model.groups, model.shape, weight_rules(engine))
    weights, reasons = _uncertain(ranks, model)
    peak = _compiled(activation(model.shape, engine, gpu), engine, gpu)
    graphs = cuda_graphs(model.shape, engine, gpu)
    non_torch = _overhead("nonTorch", engine, gpu)
    buffers = _buffers(model, engine)
    left = difference(budget, (weights, peak.peak, total((non_torch, buffers)), graphs.charged))
    ledger = Ledger(
        total=whole,
        budget=budget,
        weights=weights,
        activation=peak.peak,
        non_torch=total((non_torch, buffers)),
        cuda_graphs=graphs.charged,
        kv_cache=left,
        outside=_outside(engine, gpu),
        graph_memory=graphs.memory,
    )
    return Account(ledger, ranks, peak, graphs, (*reasons, *peak.reasons))


def weight_rules(engine: Engine) -> WeightRules:
    """What the weights on a rank depend on, of an engine."""
    split = engine.rules["weightsMaxSplitMiB"]
    padding = engine.rules["mxfp4Padding"]
    major = engine.capability[0]
    return WeightRules(
        tensor_parallel=engine.tensor_parallel,
        expert_parallel=engine.expert_parallel,
        max_split=None if split is None else split * MIB,
        mxfp4_padding=(by_capability(padding["hidden"], major), by_capability(padding["intermediate"], major)),
    )


def _uncertain(weights: RankWeights, model: Model) -> tuple[Range, tuple[str, ...]]:
    """Weights with what is uncertain about them."""
    shape, size, share = model.shape, float(weights.total), 0.001
    reasons: list[str] = list(shape.notes)
    if not model.from_headers:
        reasons.append("weights are derived from config.json, not read from headers")
        share = 0.004
        if shape.unknown:
            reasons.extend(shape.unknown)
            share = 0.1
    if shape.sparse:
        share += 0.01 * weights.experts / max(size, 1.0)
        reasons.append("expert kernels may pad or repack what they load")
    distance = share * size + 2 * MIB
    if weights.tower and not model.from_headers:
        distance += 0.15 * weights.tower
        reasons.append("the vision tower is derived from vision_config")
    if shape.quantization is not None and shape.quantization.weights is None and not model.from_headers:
        distance += 0.3 * size
        reasons.append(f"how {shape.quantization.scheme} weights are stored is not known here")
    return Range(max(0.0, size - distance), size, size + distance), tuple(reasons)


def _compiled(peak: Activation, engine: Engine, gpu: Gpu) -> Activation:
    """The peak with what compiling adds to it where nothing was compiled before, as in a fresh container."""
    cold = _overhead("coldCompile", engine, gpu)
    if engine.enforce_eager or cold.high == 0:
        return peak
    reason = "the first start compiles, a later one with a warm cache does not and has more KV cache"
    return replace(peak, peak=total((peak.peak, cold)), reasons=(*peak.reasons, reason))


def _buffers(model: Model, engine: Engine) -> Range:
    """Buffers of the model runner over the vocabulary, where the release charges them (0.27 on)."""
    charged = engine.rules["memoryFormula"]["charges"]["runnerBuffers"]
    rule = engine.rules["runnerBytesPerSeqVocab"]
    per_logit = rule.get(engine.runner, rule["v1"])
    return exact(per_logit * engine.max_num_seqs * model.shape.vocabulary if charged else 0.0)


def _overhead(table: str, engine: Engine, gpu: Gpu) -> Range:
    found = overhead(table, engine.rules.release, engine.tensor_parallel, engine.capability[0], gpu.link)
    low, mid, high = (size * GIB for size in found.gib)
    return Range(low, mid, high)


def _outside(engine: Engine, gpu: Gpu) -> Range:
    """What must fit beside the budget: nothing more where the context is charged to it."""
    if engine.rules["memoryFormula"]["charges"]["context"]:
        return exact(0.0)
    return _overhead("context", engine, gpu)
