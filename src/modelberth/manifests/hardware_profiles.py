"""Hardware profiles of OpenShift AI: what the dashboard offers for a pool, and where it puts a workload.

The webhook of the platform fills in only what a service does not ask itself (opendatahub-operator v3.0.0,
internal/webhook/hardwareprofile), so nothing here changes a service of the tree.
"""

from __future__ import annotations

import math
from typing import Any

from modelberth.base.units import GIB
from modelberth.manifests.nodes import gpu_toleration, node_labels, node_share
from modelberth.manifests.objects import WAVE_CAPACITY, Manifest, given, metadata, wave
from modelberth.manifests.resources import GPU, asked, gibibytes, processors
from modelberth.spec.cluster import Pool
from modelberth.spec.services import Service, services
from modelberth.spec.stack import Stack

# Of a pool without services: what one GPU of it is given.
_CPU, _MEMORY_GIB = 4, 16


def hardware_profiles(stack: Stack) -> list[Manifest]:
    """One for each pool that declares one which is not on the cluster already.

    What the dashboard proposes is what the first service of the pool asks.
    """
    first: dict[str, Service] = {}
    for service in services(stack):
        first.setdefault(service.pool.name, service)
    return [
        _profile(stack, pool, pool.hardware_profile.name, first.get(pool.name))
        for pool in stack.pools
        if pool.hardware_profile and not pool.hardware_profile.existing
    ]


def _profile(stack: Stack, pool: Pool, name: str, first: Service | None) -> Manifest:
    gpus = "GPU" if pool.count == 1 else "GPUs"
    return {
        "apiVersion": "infrastructure.opendatahub.io/v1",
        "kind": "HardwareProfile",
        "metadata": metadata(
            name, stack.platform.applications_namespace, stack.metadata.name,
            annotations={
                "opendatahub.io/display-name": f"{pool.count} x {pool.gpu}",
                "opendatahub.io/description": f"{pool.instance_type or 'Nodes'} with {pool.count} {gpus}",
                "opendatahub.io/disabled": "false",
                # Not offered to workbenches, which would take the GPUs that services wait for.
                "opendatahub.io/dashboard-feature-visibility": '["model-serving"]',
            },
            wave=wave(stack, WAVE_CAPACITY),
        ),
        "spec": {"identifiers": _identifiers(stack, pool, first), "scheduling": _scheduling(stack, pool)},
    }  # fmt: skip


def _identifiers(stack: Stack, pool: Pool, first: Service | None) -> list[dict[str, Any]]:
    """What can be asked, from 1 to the whole node. Without a known instance type there is no upper bound."""
    share = node_share(pool, pool.count)
    gpus, cpus, memory = _proposed(stack, pool, first)
    most_cpus = max(math.floor(share.cpus), math.ceil(cpus)) if share else None
    most_memory = gibibytes(max(share.memory_bytes // GIB * GIB, memory)) if share else None
    return [
        given(
            displayName="CPU", identifier="cpu", resourceType="CPU",
            minCount=1, maxCount=most_cpus, defaultCount=_count(cpus),
        ),
        given(
            displayName="Memory", identifier="memory", resourceType="Memory",
            minCount="1Gi", maxCount=most_memory, defaultCount=gibibytes(memory),
        ),
        given(
            displayName="GPU", identifier=GPU, resourceType="Accelerator",
            minCount=1, maxCount=max(pool.count, gpus), defaultCount=gpus,
        ),
    ]  # fmt: skip


def _proposed(stack: Stack, pool: Pool, first: Service | None) -> tuple[int, float, int]:
    """GPUs, processors and bytes of memory."""
    if first is None:
        return pool.count, _CPU * pool.count, _MEMORY_GIB * GIB * pool.count
    pod = asked(stack, first, first.variant.tensor_parallel_size)
    # At least what the profile allows at least.
    return pod.gpus, max(1, pod.cpu), max(GIB, pod.memory)


def _count(cpus: float) -> int | str:
    return int(cpus) if cpus == int(cpus) else processors(cpus)


def _scheduling(stack: Stack, pool: Pool) -> dict[str, Any]:
    if stack.queue is not None:
        return {"type": "Queue", "kueue": {"localQueueName": stack.queue.name}}
    return {"type": "Node", "node": {"nodeSelector": node_labels(pool), "tolerations": [gpu_toleration()]}}
