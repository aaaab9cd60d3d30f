"""Kueue: a flavour for each pool, a ClusterQueue with exactly what the pools have, and the stack's LocalQueue.

Rendered only where the stack names its ClusterQueue; otherwise the queue is the cluster's, and services name it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from modelberth.base.units import parse_bytes
from modelberth.catalog.platforms import Platform
from modelberth.manifests.nodes import gpu_toleration, node_labels, node_share
from modelberth.manifests.objects import WAVE_CAPACITY, Manifest, metadata, wave
from modelberth.manifests.resources import EPHEMERAL, GPU, gibibytes
from modelberth.spec.cluster import Pool, Queue
from modelberth.spec.services import Service
from modelberth.spec.stack import Stack

_OPERATORS_OWN = "default"
# Of a pool whose instance type is not known: as much as any service asks for, so that GPUs are what is short.
_UNKNOWN = {"cpu": "1k", "memory": "16Ti"}


def queue_objects(stack: Stack, platform: Platform, found: Sequence[Service]) -> list[Manifest]:
    """ResourceFlavors, ClusterQueue and LocalQueue, in the order in which they need each other."""
    queue = stack.queue
    if queue is None or queue.cluster_queue is None:
        return []
    api = f"kueue.x-k8s.io/{queue.api_version or platform.kueue_api}"
    pools = [pool for pool in stack.pools if any(each.pool.name == pool.name for each in found)]
    return [
        *(_flavor(stack, api, pool) for pool in pools),
        _cluster_queue(stack, api, queue, queue.cluster_queue, pools),
        *([] if _is_operators(stack) else [_local_queue(stack, api, queue, queue.cluster_queue)]),
    ]


def flavor_name(stack: Stack, pool: Pool) -> str:
    """Name of a pool's flavour. Flavours belong to the whole cluster: the stack's name keeps two stacks apart."""
    return pool.hardware_profile.name if pool.hardware_profile else f"{stack.metadata.name}-{pool.name}"


def notes(stack: Stack) -> Iterable[str]:
    """What the user should know of the queue."""
    if stack.queue and stack.queue.cluster_queue and _is_operators(stack):
        yield (
            "a LocalQueue named 'default' is OpenShift AI's own, which writes it anew: it is not rendered; "
            "another name makes it the stack's"
        )


def _is_operators(stack: Stack) -> bool:
    return stack.platform.kind == "rhoai" and stack.queue is not None and stack.queue.name == _OPERATORS_OWN


def _flavor(stack: Stack, api: str, pool: Pool) -> Manifest:
    # No nodeTaints: Kueue compares them with these very tolerations (kueue pkg/scheduler/flavorassigner), so they
    # would say nothing more.
    return {
        "apiVersion": api,
        "kind": "ResourceFlavor",
        "metadata": _metadata(stack, flavor_name(stack, pool), None),
        "spec": {"nodeLabels": node_labels(pool), "tolerations": [gpu_toleration()]},
    }


def _cluster_queue(stack: Stack, api: str, queue: Queue, name: str, pools: Sequence[Pool]) -> Manifest:
    # One group: a flavour stands for nodes, which have processors, memory and GPUs together.
    group = {
        "coveredResources": list(queue.covers),
        "flavors": [
            {
                "name": flavor_name(stack, pool),
                "resources": [{"name": each, "nominalQuota": quota(pool, each)} for each in queue.covers],
            }
            for pool in pools
        ],
    }
    return {
        "apiVersion": api,
        "kind": "ClusterQueue",
        "metadata": _metadata(stack, name, None),
        "spec": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": stack.metadata.namespace}},
            "preemption": {"withinClusterQueue": "LowerPriority"},
            "resourceGroups": [group],
        },
    }


def quota(pool: Pool, resource: str) -> str | int:
    """What a pool has of a resource, over all its nodes; 0 of one that it is not known to have."""
    if resource == GPU:
        return pool.count * pool.nodes
    if resource == EPHEMERAL:
        return gibibytes(parse_bytes(pool.node_disk) * pool.nodes) if pool.node_disk else 0
    return _shared(pool).get(resource, 0)


def _shared(pool: Pool) -> Mapping[str, str | int]:
    share = node_share(pool, pool.count)
    if share is None:
        return _UNKNOWN
    return {
        "cpu": math.floor(share.cpus) * pool.nodes,
        "memory": gibibytes((share.memory_bytes >> 30 << 30) * pool.nodes),
    }


def _local_queue(stack: Stack, api: str, queue: Queue, cluster_queue: str) -> Manifest:
    return {
        "apiVersion": api,
        "kind": "LocalQueue",
        "metadata": _metadata(stack, queue.name, stack.metadata.namespace),
        "spec": {"clusterQueue": cluster_queue},
    }


def _metadata(stack: Stack, name: str, namespace: str | None) -> Manifest:
    return metadata(name, namespace, stack.metadata.name, wave=wave(stack, WAVE_CAPACITY))
