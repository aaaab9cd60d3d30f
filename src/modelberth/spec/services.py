"""Services: what a stack's variants become once every default is filled in."""

from __future__ import annotations

from dataclasses import dataclass

from modelberth.spec.addresses import SourceAddress, WeightsAddress, parse_source, parse_weights
from modelberth.spec.cluster import Pool
from modelberth.spec.stack import Model, Stack, Variant


@dataclass(frozen=True)
class Service:
    """What answers: one variant of one model on one pool.

    Attributes:
        name: name of the service, unique in the stack.
        served_name: model name in API requests.
        model: the model as declared.
        variant: the variant as declared.
        pool: the pool it runs on.
        weights: where the cluster finds the weights.
        source: where the weights come from; None when they are in place already.
    """

    name: str
    served_name: str
    model: Model
    variant: Variant
    pool: Pool
    weights: WeightsAddress
    source: SourceAddress | None

    @property
    def gpus(self) -> int:
        """GPUs of all its pods; 0 for a service that is stopped."""
        variant = self.variant
        decode = variant.tensor_parallel_size * variant.data_parallel_size * variant.replicas
        prefill = variant.prefill
        return decode + (prefill.replicas * prefill.tensor_parallel_size if prefill and variant.replicas else 0)


def service_name(model: Model, variant: Variant) -> str:
    """The declared name, or `<model>-<variant>`."""
    return variant.service or f"{model.name}-{variant.name}"


def services(stack: Stack) -> tuple[Service, ...]:
    """The services of a stack that was read by `read_stack`, in file order."""
    pools = {pool.name: pool for pool in stack.pools}
    return tuple(_service(model, variant, pools[variant.pool]) for model in stack.models for variant in model.variants)


def _service(model: Model, variant: Variant, pool: Pool) -> Service:
    name = service_name(model, variant)
    source = variant.source or model.source
    return Service(
        name=name,
        served_name=variant.served_name or name,
        model=model,
        variant=variant,
        pool=pool,
        weights=parse_weights(variant.weights),
        source=parse_source(source) if source else None,
    )
