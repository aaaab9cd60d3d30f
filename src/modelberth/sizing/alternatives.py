"""What would serve the same model for less: other quantisations, fewer GPUs, other machines.

Every candidate is sized like the service itself, with the context it asks for. A machine of another kind is paid
whole, whatever it has idle; on the service's own kind of machine the GPUs count that the service holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from modelberth.catalog.gpus import find_gpu
from modelberth.catalog.instances import InstanceType, all_instances
from modelberth.sizing.cost import Cost, machine_cost, pool_cost, pool_machine
from modelberth.sizing.engine import EngineFlags
from modelberth.sizing.model import UNQUANTISED, Model, requantized
from modelberth.sizing.plan import Sizing, size
from modelberth.spec.cluster import Pool

_SHOWN = 5
_SCHEMES = ("fp8", "w4a16")
"""The quantisations proposed: those that checkpoints are most often published in."""


@dataclass(frozen=True)
class Alternative:
    """Another way to serve the same model with the same context.

    Attributes:
        sizing: its plan.
        precision: how its weights are stored.
        instance: the machine type; None for the pool's own.
        gpus: GPUs that it holds.
        cost: what it costs.
        saves: share of the present price that it saves, 0 to 1; None where the service does not start as it is.
            (A service that starts at a price nobody knows has no alternatives: nothing is known to be cheaper.)
        changes: what is different, in words.
    """

    sizing: Sizing
    precision: str
    instance: str | None
    gpus: int
    cost: Cost
    saves: float | None
    changes: tuple[str, ...]


def alternatives(model: Model, flags: EngineFlags, pool: Pool, present: Sizing) -> tuple[Alternative, ...]:
    """The cheapest alternatives that start, one for each precision and machine, cheapest first.

    Args:
        model: as it is served.
        flags: what is said of its engine.
        pool: the pool that it runs on.
        present: its plan as it is.
    """
    paid = pool_cost(pool, flags.tensor_parallel)
    wanted = replace(flags, max_model_len=present.engine.max_model_len)
    found = [
        alternative
        for candidate in _models(model)
        for alternative in _placed(candidate, model, wanted, pool, paid, starts=present.starts)
    ]
    found.sort(key=lambda each: (each.cost.per_hour, each.sizing.verdict != "fits", -each.sizing.kv.concurrency.mid))
    return tuple(_first_of_each(found))[:_SHOWN]


def _first_of_each(found: Iterable[Alternative]) -> Iterator[Alternative]:
    """The cheapest of each precision on each kind of card."""
    seen: set[tuple[str, str]] = set()
    for alternative in found:
        key = (alternative.precision, alternative.sizing.gpu.product)
        if key not in seen:
            seen.add(key)
            yield alternative


def _models(model: Model) -> Iterator[Model]:
    """The model as it is and, where it is not quantised, as it would be."""
    yield model
    if model.shape.precision in UNQUANTISED:
        for scheme in _SCHEMES:
            yield requantized(model, scheme)


def _placed(
    candidate: Model, model: Model, flags: EngineFlags, pool: Pool, paid: Cost | None, *, starts: bool
) -> Iterator[Alternative]:
    """A candidate on every machine where it starts and costs less (or at all, where the service does not start)."""
    gpu_of = {machine.gpu: find_gpu(machine.gpu) for machine in _machines(pool)}
    plans: dict[tuple[str, int], Sizing] = {}
    for machine in _machines(pool):
        for ranks in (1, 2, 4, 8):
            if ranks > machine.gpus:
                break
            cost = _price(machine, ranks, pool)
            if cost is None or (starts and (paid is None or cost.per_hour >= paid.per_hour * 0.999)):
                continue
            key = (machine.gpu, ranks)
            if key not in plans:
                plans[key] = size(
                    candidate, gpu_of[machine.gpu], replace(flags, tensor_parallel=ranks), gpus=machine.gpus
                )
            if plans[key].starts:
                yield _alternative(plans[key], machine, model, flags, pool, cost, paid if starts else None)
                break


def _machines(pool: Pool) -> tuple[InstanceType, ...]:
    """Machines of the pool's cloud; of AWS where the pool names none."""
    own = pool_machine(pool)
    cloud = own.cloud if own else "aws"
    return tuple(machine for machine in all_instances() if machine.cloud == cloud)


def _is_own(machine: InstanceType, pool: Pool) -> bool:
    return machine == pool_machine(pool)


def _price(machine: InstanceType, ranks: int, pool: Pool) -> Cost | None:
    return pool_cost(pool, ranks) if _is_own(machine, pool) else machine_cost(machine, machine.gpus)


def _alternative(
    sizing: Sizing, machine: InstanceType, model: Model, flags: EngineFlags, pool: Pool, cost: Cost, paid: Cost | None
) -> Alternative:
    own = _is_own(machine, pool)
    precision, ranks = sizing.model.shape.precision, sizing.engine.tensor_parallel
    changes = [f"{model.shape.precision} becomes {precision}"] if precision != model.shape.precision else []
    if ranks != flags.tensor_parallel:
        changes.append(f"tensor parallel {flags.tensor_parallel} becomes {ranks}")
    if not own:
        changes.append(f"{pool.instance_type or pool.gpu} becomes {machine.name}")
    return Alternative(
        sizing=sizing,
        precision=precision,
        instance=None if own else machine.name,
        gpus=ranks,
        cost=cost,
        saves=1 - cost.per_hour / paid.per_hour if paid and paid.per_hour else None,
        changes=tuple(changes),
    )
