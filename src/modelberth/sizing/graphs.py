"""CUDA graphs: how many are captured, and what they take. The number is exact; the memory is a measured habit.

Sizes. Source: VllmConfig._set_cudagraph_sizes: 1, 2, 4, then steps of 8, from 256 on steps of 16 (0.11.1), up to the
smaller of 512 and twice max_num_seqs. Releases up to 0.10.2 capture each size piecewise (one graph a layer and size);
later ones also whole decode steps for sizes up to max_num_seqs.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelberth.base.units import MIB
from modelberth.catalog.gpus import Gpu
from modelberth.checkpoint.shape import Attention, LatentAttention, Mlp, ModelShape
from modelberth.sizing.engine import Engine
from modelberth.sizing.ranges import ZERO, Range

_HOPPER = 9
_STEP = 16
"""Step from 256 on of the sizes that an architecture asks for itself."""
_CUSTOM_ALL_REDUCE = 2
"""Ranks up to which vLLM's own all-reduce works over PCIe; beyond, NCCL's kernels are captured with every layer."""


_NCCL_IN_GRAPHS, _NCCL_IN_EARLY_GRAPHS = 1.75, 2.3
"""Factors for that: Qwen2.5-72B took 2.62 GiB on four L40S (0.19) where H100s took 1.54, and 2.65 GiB on four A100 PCIe
(0.8.3) where the formula says 1.07."""


@dataclass(frozen=True)
class Graphs:
    """CUDA graphs of one rank.

    Attributes:
        piecewise: sizes captured piece by piece.
        full: sizes captured whole.
        memory: bytes they take.
        charged: bytes that the release takes off the KV cache for them (its estimate, or nothing).
    """

    piecewise: int
    full: int
    memory: Range
    charged: Range


def cuda_graphs(shape: ModelShape, engine: Engine, gpu: Gpu) -> Graphs:
    """The graphs of one rank; none when the engine is eager."""
    if engine.enforce_eager:
        return Graphs(0, 0, ZERO, ZERO)
    rule = engine.rules["cudaGraphs"]
    sizes = _sizes(shape, engine)
    limit = max(sizes, default=0)
    full = 0
    if rule["mode"] == "full-and-piecewise":
        full = sum(size <= engine.max_num_seqs for size in sizes)
    memory = _memory(shape, engine, gpu, limit, len(sizes), full)
    charged = memory if rule["counted"][engine.runner] else ZERO
    return Graphs(len(sizes), full, memory, charged)


def capture_sizes(limit: int, step_from_256: int) -> tuple[int, ...]:
    """The batch sizes that are captured up to a limit."""
    sizes = (1, 2, 4, *range(8, 256, 8), *range(256, limit + 1, step_from_256))
    return tuple(size for size in sizes if size <= limit)


def _sizes(shape: ModelShape, engine: Engine) -> tuple[int, ...]:
    """The batch sizes that this engine captures."""
    rule, own = engine.rules["cudaGraphs"], engine.rules["captureByArchitecture"].get(shape.architecture)
    largest = own or rule.get("maxSizeByMajor", {}).get(str(engine.capability[0]), rule["maxSize"])
    if rule["bySeqs"]:
        largest = min(largest, 2 * engine.max_num_seqs)
    limit = min(largest, engine.max_num_batched_tokens)
    sizes = set(capture_sizes(limit, _STEP if own else rule["stepFrom256"]))
    values = {"maxNumBatchedTokens": engine.max_num_batched_tokens, "maxNumSeqs": engine.max_num_seqs}
    sizes.update(values[name] for name in engine.rules["cudaGraphExtraSizes"] if values[name] <= limit)
    return tuple(sorted(sizes))


def _memory(shape: ModelShape, engine: Engine, gpu: Gpu, limit: int, piecewise: int, full: int) -> Range:
    """What the graphs take: the largest one's pool, and a little more for each further graph.

    Measured on H100 with 0.19 (tests/data/vllm-startups): the first piecewise graph takes 68 MiB, 1.26 times its
    feed-forward and 1.6 times its residual tensors; FlashAttention 3 splits a decode step 32 ways into a float32 buffer
    of its own; each further graph takes 1.39 MiB and 0.169 MiB a layer.
    """
    width = limit * shape.dtype_bytes
    widest = max((layer.mlp.intermediate for layer in shape.layers if isinstance(layer.mlp, Mlp)), default=0)
    first = 68 * MIB + 1.26 * width * 3 * widest / engine.tensor_parallel + 1.6 * width * shape.hidden
    if full and engine.capability[0] == _HOPPER:
        first = max(first, _split_buffer(shape, engine, limit))
    further = max(0, piecewise + full - 2) * (1.39 + 0.169 * len(shape.layers)) * MIB
    slow_link = engine.tensor_parallel > _CUSTOM_ALL_REDUCE and gpu.link == "pcie"
    factor = (_NCCL_IN_GRAPHS if full else _NCCL_IN_EARLY_GRAPHS) if slow_link else 1.0
    mid = (first + further) * factor
    return Range(0.6 * mid, mid, mid * 1.6 + (0.0 if slow_link else 0.4 * further))


def _split_buffer(shape: ModelShape, engine: Engine, limit: int) -> float:
    """FlashAttention 3's buffer for the largest whole decode step, bytes: 32 splits of float32 for every query head."""
    elements = 0
    for mixer in set(shape.mixers):
        if isinstance(mixer, Attention):
            elements = max(elements, mixer.heads * mixer.value_dim)
        elif isinstance(mixer, LatentAttention):
            elements = max(elements, mixer.heads * mixer.kv_lora_rank)
    return 4.0 * 32 * min(limit, engine.max_num_seqs) * elements / engine.tensor_parallel
