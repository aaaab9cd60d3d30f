"""Hardware profiles of OpenShift AI: what the dashboard offers for a pool, and where it puts a workload."""

from __future__ import annotations

import math
from typing import Any

from modelberth.manifests.nodes import gpu_toleration, node_labels, node_share
from modelberth.manifests.objects import WAVE_CAPACITY, Manifest, given, metadata, wave
from modelberth.manifests.resources import GPU, gibibytes
from modelberth.spec.cluster import Pool
from modelberth.spec.stack import Stack

# Without an instance type: what one GPU of it is given, and no upper bound.
_CPU, _MEMORY_GIB = 4, 16


def hardware_profiles(stack: Stack) -> list[Manifest]:
    """One for each pool that declares one which is not on the cluster already."""
    return [
        _profile(stack, pool, pool.hardware_profile.name)
        for pool in stack.pools
        if pool.hardware_profile and not pool.hardware_profile.existing
    ]


def _profile(stack: Stack, pool: Pool, name: str) -> Manifest:
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
            },
            wave=wave(stack, WAVE_CAPACITY),
        ),
        "spec": {"identifiers": _identifiers(pool), "scheduling": _scheduling(stack, pool)},
    }  # fmt: skip


def _identifiers(pool: Pool) -> list[dict[str, Any]]:
    share = node_share(pool, pool.count)
    cpus = math.floor(share.cpus) if share else None
    memory = gibibytes(share.memory_bytes >> 30 << 30) if share else None
    half_memory = max(1, (share.memory_bytes >> 30) // 2) if share else _MEMORY_GIB
    return [
        given(
            displayName="CPU", identifier="cpu", resourceType="CPU",
            minCount=1, maxCount=cpus, defaultCount=max(1, cpus // 2) if cpus else _CPU,
        ),
        given(
            displayName="Memory", identifier="memory", resourceType="Memory",
            minCount="1Gi", maxCount=memory, defaultCount=f"{half_memory}Gi",
        ),
        given(
            displayName="GPU", identifier=GPU, resourceType="Accelerator",
            minCount=1, maxCount=pool.count, defaultCount=pool.count,
        ),
    ]  # fmt: skip


def _scheduling(stack: Stack, pool: Pool) -> dict[str, Any]:
    if stack.queue is not None:
        return {"type": "Queue", "kueue": {"localQueueName": stack.queue.name}}
    return {"type": "Node", "node": {"nodeSelector": node_labels(pool), "tolerations": [gpu_toleration()]}}
