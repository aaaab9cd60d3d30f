"""Warnings about a plan: where a stack pays for what it does not use, and where it is about to be refused."""

from __future__ import annotations

from collections.abc import Iterator

from modelberth.base.units import GIB, format_binary, format_decimal
from modelberth.sizing.cost import pool_machine
from modelberth.sizing.plan import Sizing
from modelberth.spec.services import Service

_FEW = 0.5
_WASTED_UTILIZATION = 0.85
_UNPLANNED = {
    "pipeline-parallel-size", "data-parallel-size", "decode-context-parallel-size", "enable-lora", "speculative-config",
    "cpu-offload-gb", "kv-offloading-size", "performance-mode", "kv-cache-memory-bytes", "mamba-cache-mode",
}  # fmt: skip
"""Flags that change memory and that the sizing does not model (docs/sizing.md)."""


def warnings(service: Service, sizing: Sizing) -> tuple[str, ...]:
    """What is worth changing about one service, each in one sentence with its numbers."""
    return tuple(_all(service, sizing))


def _all(service: Service, sizing: Sizing) -> Iterator[str]:
    yield from _context(sizing)
    yield from _hardware(service, sizing)
    yield from _declared(service, sizing)
    yield from _unplanned(service)
    yield from _engine(sizing)


def _context(sizing: Sizing) -> Iterator[str]:
    asked, fitting = sizing.engine.max_model_len, int(sizing.kv.largest.low)
    longest = min(fitting, sizing.model.shape.max_positions)
    if sizing.starts and asked < longest * _FEW:
        yield f"maxModelLen is {asked:,} where {longest:,} fit even at the low end: the context is cut for nothing"


def _hardware(service: Service, sizing: Sizing) -> Iterator[str]:
    pool, ranks = service.pool, sizing.engine.tensor_parallel
    if ranks > pool.count:
        yield f"pool {pool.name} has {pool.count} GPUs in a node: {ranks} ranks span nodes, over the network"
    machine = pool_machine(pool)
    if pool.instance_type and machine is None:
        yield f"instance type {pool.instance_type} is not in the catalogue: no price, no check of its GPUs"
    if machine is None:
        return
    if machine.gpu != sizing.gpu.product:
        yield f"{machine.name} has {machine.gpu}, the pool says {sizing.gpu.product}"
    if machine.gpus != pool.count:
        yield f"{machine.name} has {machine.gpus} GPUs, the pool says {pool.count}"
    stored = sizing.model.stored_bytes
    if machine.memory_gib * GIB < stored:
        yield (
            f"{machine.name} has {machine.memory_gib} GiB of main memory, less than the {format_decimal(stored)} of "
            "weights: loading goes through the page cache more than once"
        )


def _declared(service: Service, sizing: Sizing) -> Iterator[str]:
    declared, found = service.variant.quantization, sizing.model.shape.precision
    if declared is not None and declared != found:
        yield f"declared quantization is {declared}, the checkpoint says {found}"


def _unplanned(service: Service) -> Iterator[str]:
    for flag in sorted(_UNPLANNED & set(service.variant.engine_args)):
        yield f"engineArgs has {flag}, which this plan does not know of: memory will differ"


def _engine(sizing: Sizing) -> Iterator[str]:
    engine = sizing.engine
    if engine.gpu_memory_utilization < _WASTED_UTILIZATION and sizing.starts:
        unused = format_binary(round(sizing.ledger.beside))
        yield f"gpuMemoryUtilization {engine.gpu_memory_utilization:g} leaves {unused} unused"
    if engine.enforce_eager:
        yield "enforce-eager switches CUDA graphs off: decoding is slower, for little memory"
    if sizing.starts and sizing.kv.concurrency.mid < 1.5:
        yield f"only {sizing.kv.concurrency.mid:.1f} requests of {engine.max_model_len:,} tokens fit at once"
