"""`berth plan`: every variant of a stack against its pool and against the catalogue, before anything is deployed.

read the spec -> read each model's shape -> size it on its pool -> price it -> what would do for less -> warnings
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelberth.base.errors import BerthError, UsageError
from modelberth.base.text import did_you_mean
from modelberth.base.units import parse_bytes
from modelberth.catalog import platforms
from modelberth.catalog.gpus import find_gpu
from modelberth.flows.model_source import ModelSource, read_model
from modelberth.flows.spec_file import read_spec_file
from modelberth.sizing.advice import warnings
from modelberth.sizing.alternatives import Alternative, alternatives
from modelberth.sizing.cost import Cost, pool_cost
from modelberth.sizing.declared import flags_of
from modelberth.sizing.plan import Sizing, size
from modelberth.sizing.storage import StorageAdvice, advise
from modelberth.spec.addresses import FolderAddress
from modelberth.spec.cluster import Pool
from modelberth.spec.services import Service, services
from modelberth.spec.stack import Stack


@dataclass(frozen=True)
class PlanRequest:
    """What `berth plan` is asked.

    Attributes:
        spec: path of berth.yaml.
        models: where a service's model is read instead of its source: service -> folder, config.json, s3://, Hub id.
        vllm: version of vLLM instead of the platform's.
    """

    spec: Path
    models: Mapping[str, str] = field(default_factory=dict)
    vllm: str | None = None


@dataclass(frozen=True)
class ServicePlan:
    """The plan of one service.

    Attributes:
        service: as declared.
        source: where its model was read.
        sizing: memory and verdict.
        cost: what its GPUs cost; None where no price is known.
        storage: where its weights are better kept, and why.
        alternatives: what would serve it for less, cheapest first.
        warnings: what is worth changing, each in one sentence.
    """

    service: Service
    source: ModelSource
    sizing: Sizing
    cost: Cost | None
    storage: StorageAdvice
    alternatives: tuple[Alternative, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class StackPlan:
    """The plan of a stack.

    Attributes:
        name: of the stack.
        platform: kind and version.
        vllm: the engine that the plan is made for.
        services: in file order.
        warnings: about the stack as a whole.
    """

    name: str
    platform: str
    vllm: str
    services: tuple[ServicePlan, ...]
    warnings: tuple[str, ...]

    @property
    def starts(self) -> bool:
        """Whether every service is expected to start."""
        return all(service.sizing.starts for service in self.services)

    @property
    def per_hour(self) -> float | None:
        """US dollars an hour for all services; None where one has no price."""
        costs = [service.cost for service in self.services]
        return None if any(cost is None for cost in costs) else sum(cost.per_hour for cost in costs if cost)


def plan_stack(request: PlanRequest) -> StackPlan:
    """Plan a stack.

    Raises:
        SpecError: the spec is not valid.
        UsageError: an unknown card, a service without a readable model, a name in `models` that is no service.
        IntegrityError, AuthError, RemoteUnavailable: a model cannot be read.
    """
    spec = read_spec_file(request.spec)
    found = services(spec.stack)
    names = [service.name for service in found]
    for name in request.models:
        if name not in names:
            raise UsageError(f"no service is named '{name}'", where="--model", why=did_you_mean(name, names))
    platform = spec.stack.platform
    vllm = request.vllm or platform.vllm or platforms.vllm(platform.kind, platform.version)
    read: dict[str, ModelSource] = {}
    plans = []
    for service in found:
        text = _model_text(service, spec.folder, request.models)
        if text not in read:
            read[text] = _read(service, text)
        plans.append(_plan(service, read[text], vllm))
    version = plans[0].sizing.engine.rules.version
    title = f"{platforms.title(platform.kind)} {platform.version}"
    return StackPlan(spec.stack.metadata.name, title, version, tuple(plans), _stack_warnings(spec.stack, found))


def _model_text(service: Service, folder: Path, given: Mapping[str, str]) -> str:
    """Where a service's model is read: as given, else its source, else its weights in place."""
    if service.name in given:
        return given[service.name]
    source = service.source or service.weights
    return str(folder / source.path) if isinstance(source, FolderAddress) else str(source)


def _read(service: Service, text: str) -> ModelSource:
    try:
        return read_model(text)
    except BerthError as error:
        error.where = f"{service.name}: {error.where or text}"
        error.next_step = error.next_step or f"--model {service.name}=PATH names a folder, a config.json or a Hub id"
        raise


def _plan(service: Service, source: ModelSource, vllm: str | None) -> ServicePlan:
    pool, gpu = service.pool, find_gpu(service.pool.gpu)
    try:
        flags = flags_of(service.variant, vllm)
    except UsageError as error:
        error.where = f"{service.name}: {error.where}"
        raise
    sizing = size(source.model, gpu, flags, gpus=pool.count * pool.nodes)
    disk = parse_bytes(pool.node_disk) if pool.node_disk else None
    return ServicePlan(
        service=service,
        source=source,
        sizing=sizing,
        cost=pool_cost(pool, service.gpus),
        storage=advise(source.image_bytes or source.model.stored_bytes, disk),
        alternatives=alternatives(source.model, flags, pool, sizing),
        warnings=warnings(service, sizing),
    )


def _stack_warnings(stack: Stack, found: Sequence[Service]) -> tuple[str, ...]:
    """Pools that have too few GPUs for their services, or some that nobody uses."""
    said = []
    for pool in stack.pools:
        used = sum(service.gpus for service in found if service.pool.name == pool.name)
        said += _pool_warning(pool, used)
    return tuple(said)


def _pool_warning(pool: Pool, used: int) -> list[str]:
    there = pool.count * pool.nodes
    if used > there:
        return [f"pool {pool.name} has {there} GPUs, its services take {used}: the last ones stay pending"]
    if used < there:
        return [f"pool {pool.name} has {there} GPUs, its services take {used}: {there - used} are paid and idle"]
    return []
