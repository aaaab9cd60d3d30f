"""The nodes of a pool: by which labels they are found, what keeps other pods away, and what they have for pods."""

from __future__ import annotations

from dataclasses import dataclass

from modelberth.base.units import GIB, MIB
from modelberth.catalog.instances import find_instance
from modelberth.spec.cluster import Pool

INSTANCE_LABEL = "node.kubernetes.io/instance-type"
PRODUCT_LABEL = "nvidia.com/gpu.product"
GPU_TAINT = "nvidia.com/gpu"

# What the kubelet keeps for itself and the system, by the rule that OpenShift's automatic sizing and GKE share
# (OpenShift documentation, "Automatically allocating resources for nodes"; GKE, "Plan node sizes"):
# shares of memory and of processors, each up to a bound; and the memory below which pods are evicted.
_MEMORY_STEPS = ((4 * GIB, 0.25), (8 * GIB, 0.20), (16 * GIB, 0.10), (128 * GIB, 0.06), (1 << 60, 0.02))
_CPU_STEPS = ((1, 0.06), (2, 0.01), (4, 0.005), (1 << 20, 0.0025))
_EVICTION = 100 * MIB
# Pods of the platform on every node: network, storage, monitoring, GPU operator. An allowance, not a measurement.
_DAEMONS_CPU = 1.0
_DAEMONS_MEMORY = 2 * GIB


@dataclass(frozen=True)
class NodeShare:
    """What a part of a node has for pods.

    Attributes:
        cpus: processors.
        memory_bytes: main memory.
    """

    cpus: float
    memory_bytes: int


def node_labels(pool: Pool) -> dict[str, str]:
    """The labels by which the nodes of a pool are found."""
    if pool.node_labels:
        return dict(pool.node_labels)
    return {INSTANCE_LABEL: pool.instance_type} if pool.instance_type else {PRODUCT_LABEL: pool.gpu}


def gpu_toleration() -> dict[str, str]:
    """What lets a pod onto nodes that are kept for GPUs."""
    return {"key": GPU_TAINT, "operator": "Exists", "effect": "NoSchedule"}


def node_share(pool: Pool, gpus: int) -> NodeShare | None:
    """What goes with so many GPUs of a node; None where the instance type is not in the catalogue."""
    machine = find_instance(pool.instance_type) if pool.instance_type else None
    if machine is None:
        return None
    memory = machine.memory_gib * GIB
    share = min(1.0, gpus / pool.count)
    cpus = machine.vcpus - _reserved(machine.vcpus, _CPU_STEPS) - _DAEMONS_CPU
    free = memory - _reserved(memory, _MEMORY_STEPS) - _EVICTION - _DAEMONS_MEMORY
    return NodeShare(max(0.0, cpus) * share, max(0, int(free * share)))


def _reserved(total: float, steps: tuple[tuple[int, float], ...]) -> float:
    reserved, below = 0.0, 0.0
    for bound, part in steps:
        reserved += max(0.0, min(total, bound) - below) * part
        below = bound
    return reserved
