"""Kueue: a flavour for each pool, a ClusterQueue with exactly what the pools have, and the stack's LocalQueue.

Rendered only where the stack names its ClusterQueue; otherwise the queue is the cluster's, and services name it.

Every field here is in all of v1beta1 and in v1beta2. Left out are those that are not: `cohort` (v1beta2: `cohortName`)
and `flavorFungibility` (`Borrow` and `Preempt` until Kueue 0.14, `MayStopSearch` beside them in v1beta1 since 0.15 and
alone in v1beta2). Their defaults are what is wanted: no borrowing, and the first flavour that fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from modelberth.base.errors import UsageError
from modelberth.base.units import GIB
from modelberth.catalog.platforms import Platform
from modelberth.manifests.nodes import disk_for_pods, gpu_toleration, node_labels, node_share
from modelberth.manifests.objects import WAVE_CAPACITY, Manifest, metadata, wave
from modelberth.manifests.resources import EPHEMERAL, GPU, Asked, asked
from modelberth.spec.cluster import Pool
from modelberth.spec.services import Service
from modelberth.spec.stack import Stack

_DEFAULT = "default"
# What the CRDs take at most.
_MOST_LABELS, _MOST_FLAVORS = 8, 64
_PODS_A_NODE = 110  # the kubelet's default


def queue_objects(stack: Stack, platform: Platform, found: Sequence[Service]) -> list[Manifest]:
    """ResourceFlavors, ClusterQueue and LocalQueue, in the order in which they need each other.

    Raises:
        UsageError: Kueue takes neither so many pools nor so many labels of one.
    """
    queue = stack.queue
    if queue is None or queue.cluster_queue is None:
        return []
    api = f"kueue.x-k8s.io/{queue.api_version or platform.kueue_api}"
    served: dict[str, list[Service]] = {}
    for service in found:
        served.setdefault(service.pool.name, []).append(service)
    pools = [pool for pool in stack.pools if pool.name in served]
    _check(pools)
    covered = list(dict.fromkeys(queue.covers))
    flavors = [
        {
            "name": flavor_name(stack, pool),
            "resources": [
                {"name": each, "nominalQuota": quota(stack, pool, served[pool.name], each)} for each in covered
            ],
        }
        for pool in pools
    ]
    # One group: a flavour stands for nodes, which have processors, memory and GPUs together.
    groups = [{"coveredResources": covered, "flavors": flavors}]
    return [
        *(_flavor(stack, api, pool) for pool in pools),
        _cluster_queue(stack, api, queue.cluster_queue, groups),
        *([] if _is_operators(stack) else [_local_queue(stack, api, queue.name, queue.cluster_queue)]),
    ]


def flavor_name(stack: Stack, pool: Pool) -> str:
    """Name of a pool's flavour, which must be unique in the whole cluster.

    That of the hardware profile where the stack brings it, and so owns the name already; else `<stack>.<pool>`, with
    the one character that neither name can have.
    """
    profile = pool.hardware_profile
    return profile.name if profile and not profile.existing else f"{stack.metadata.name}.{pool.name}"


def quota(stack: Stack, pool: Pool, served: Sequence[Service], resource: str) -> str | int:
    """What a pool has of a resource, over all its nodes; 0 of one that neither nodes nor services speak of.

    Where the size of a node is not known, it is what pods on all its GPUs could ask: GPUs are what is short, then.

    Args:
        stack: the stack.
        pool: the pool.
        served: the services on it.
        resource: name of the resource.
    """
    if resource == GPU:
        return pool.count * pool.nodes
    if resource == "pods":
        return _PODS_A_NODE * pool.nodes
    share = node_share(pool, pool.count)
    if resource == "cpu":
        each = math.floor(share.cpus) if share else _asked_of_node(stack, pool, served, lambda pod: pod.cpu)
        return each * pool.nodes
    if resource == "memory":
        memory = share.memory_bytes if share else _asked_of_node(stack, pool, served, lambda pod: pod.memory)
        return _gibibytes(memory, pool, known=share is not None)
    if resource == EPHEMERAL:
        disk = disk_for_pods(pool)
        wanted = _asked_of_node(stack, pool, served, lambda pod: pod.disk or 0) if disk is None else disk
        return _gibibytes(wanted, pool, known=disk is not None)
    return 0


def notes(stack: Stack) -> Iterable[str]:
    """What the user should know of the queue."""
    if stack.queue is None:
        return
    if stack.queue.cluster_queue and _is_operators(stack):
        yield (
            "a LocalQueue named 'default' is not rendered: OpenShift AI may write its own of that name, which leads to "
            "its own ClusterQueue; another queue.name makes it the stack's"
        )
    elif stack.queue.cluster_queue and stack.queue.name == _DEFAULT:
        yield (
            f"the LocalQueue 'default' takes every Job and Deployment of {stack.metadata.namespace} that names no "
            "queue, also without a GPU; another queue.name takes the services alone"
        )
    if stack.queue.cluster_queue and stack.platform.kind == "rhoai":
        yield (
            "Kueue looks after a namespace only with its label: "
            f"oc label namespace {stack.metadata.namespace} kueue.openshift.io/managed=true"
        )
    yield from _alike(stack)


def _alike(stack: Stack) -> Iterable[str]:
    owners: dict[tuple[tuple[str, str], ...], str] = {}
    for pool in stack.pools:
        owner = owners.setdefault(tuple(sorted(node_labels(pool).items())), pool.name)
        if owner != pool.name:
            yield (
                f"the nodes of pools '{owner}' and '{pool.name}' have the same labels: Kueue counts their GPUs apart, "
                "but a pod lands on either; nodeLabels tells them apart"
            )


def _is_operators(stack: Stack) -> bool:
    return stack.platform.kind == "rhoai" and stack.queue is not None and stack.queue.name == _DEFAULT


def _check(pools: Sequence[Pool]) -> None:
    if len(pools) > _MOST_FLAVORS:
        raise UsageError(
            f"a ClusterQueue has at most {_MOST_FLAVORS} flavours", where="queue.clusterQueue",
            why=f"{len(pools)} pools need one each", next_step="split the stack, or name a queue that exists",
        )  # fmt: skip
    for pool in pools:
        if len(pool.node_labels) > _MOST_LABELS:
            raise UsageError(
                f"a flavour has at most {_MOST_LABELS} node labels", where=f"nodeLabels of pool '{pool.name}'",
                why=f"there are {len(pool.node_labels)}", next_step="keep those that tell its nodes from others",
            )  # fmt: skip


def _flavor(stack: Stack, api: str, pool: Pool) -> Manifest:
    # No nodeTaints: Kueue compares them with the workload's tolerations and these together (kueue v0.19.2,
    # pkg/scheduler/flavorassigner, checkFlavorForPodSets). One that is tolerated here keeps nobody away; one that is
    # not would ask for a toleration of the workload, which must have none of its own.
    return {
        "apiVersion": api,
        "kind": "ResourceFlavor",
        "metadata": _metadata(stack, flavor_name(stack, pool), None),
        "spec": {"nodeLabels": node_labels(pool), "tolerations": [gpu_toleration()]},
    }


def _cluster_queue(stack: Stack, api: str, name: str, groups: list[Manifest]) -> Manifest:
    return {
        "apiVersion": api,
        "kind": "ClusterQueue",
        "metadata": _metadata(stack, name, None),
        "spec": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": stack.metadata.namespace}},
            "preemption": {"withinClusterQueue": "LowerPriority"},
            "resourceGroups": groups,
        },
    }


def _local_queue(stack: Stack, api: str, name: str, cluster_queue: str) -> Manifest:
    return {
        "apiVersion": api,
        "kind": "LocalQueue",
        "metadata": _metadata(stack, name, stack.metadata.namespace),
        "spec": {"clusterQueue": cluster_queue},
    }


def _metadata(stack: Stack, name: str, namespace: str | None) -> Manifest:
    return metadata(name, namespace, stack.metadata.name, wave=wave(stack, WAVE_CAPACITY))


def _asked_of_node(stack: Stack, pool: Pool, served: Sequence[Service], amount: Callable[[Asked], float]) -> int:
    """What pods on all GPUs of a node could ask: for each GPU as much as the pod that asks most for one."""
    pods = [asked(stack, service, gpus) for service in served for gpus in _gpus_of_pods(service)]
    return math.ceil(max((amount(pod) / pod.gpus for pod in pods), default=0) * pool.count)


def _gpus_of_pods(service: Service) -> set[int]:
    variant = service.variant
    return {variant.tensor_parallel_size, *([variant.prefill.tensor_parallel_size] if variant.prefill else [])}


def _gibibytes(of_node: int, pool: Pool, *, known: bool) -> str:
    """Whole Gi over all nodes: no more than a node is known to have, no less than is asked of one."""
    each = of_node // GIB if known else math.ceil(of_node / GIB)
    return f"{each * pool.nodes}Gi"
