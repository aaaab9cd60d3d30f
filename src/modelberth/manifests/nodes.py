"""The nodes of a pool: by which labels they are found, what keeps other pods away, and what they have for pods."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from modelberth.base.errors import UsageError
from modelberth.base.text import printable, shorten
from modelberth.base.units import GB, GIB, MIB, parse_bytes
from modelberth.catalog.gpus import find_gpu
from modelberth.catalog.instances import find_instance
from modelberth.spec.cluster import Pool

INSTANCE_LABEL = "node.kubernetes.io/instance-type"
PRODUCT_LABEL = "nvidia.com/gpu.product"
GPU_TAINT = "nvidia.com/gpu"

# The GPU operator's label of a card that is shared by time ends so; the catalogue knows the card alone.
_SHARED = "-SHARED"
_LABEL_VALUE = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", re.ASCII)

# What a machine is sold with and the guest does not see: hypervisor and firmware. The default of Karpenter's AWS
# provider (VM_MEMORY_OVERHEAD_PERCENT); 64 GiB are 59.2 to the kubelet.
_UNSEEN_MEMORY = 0.075
# What the kubelet keeps for itself and the system, by the rule that OpenShift's automatic sizing and GKE share
# (OpenShift documentation, "Automatically allocating resources for nodes"; GKE, "Plan node sizes"):
# shares of memory and of processors, each up to a bound; and the memory below which pods are evicted.
_MEMORY_STEPS = ((4 * GIB, 0.25), (8 * GIB, 0.20), (16 * GIB, 0.10), (128 * GIB, 0.06), (1 << 60, 0.02))
_CPU_STEPS = ((1, 0.06), (2, 0.01), (4, 0.005), (1 << 20, 0.0025))
_EVICTION = 100 * MIB
# Pods of the platform on every node: network, storage, monitoring, GPU operator. An allowance, not a measurement.
_DAEMONS_CPU = 1.0
_DAEMONS_MEMORY = 2 * GIB
# Below a tenth of free disk the kubelet evicts (Kubernetes documentation, "Node-pressure Eviction", nodefs.available).
_DISK_FOR_PODS = 0.9
_MACHINE_SET_DISK = 500 * GB  # that of the original deployment; images and weights share it


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
    """The labels by which the nodes of a pool are found.

    Raises:
        UsageError: without declared labels, instance type or GPU product is none that a node can have as its label.
    """
    if pool.node_labels:
        return dict(pool.node_labels)
    if pool.instance_type:
        return {INSTANCE_LABEL: instance_type(pool, pool.instance_type)}
    return {PRODUCT_LABEL: gpu_product(pool)}


def instance_type(pool: Pool, declared: str) -> str:
    """The instance type as the cloud spells it, where it is known.

    Raises:
        UsageError: it is unknown and no label can say it.
    """
    known = find_instance(declared)
    return known.name if known else _label_value(pool, "instanceType", declared)


def gpu_product(pool: Pool) -> str:
    """The GPU as node labels say it: for `L4` it is `NVIDIA-L4`, the card that plans are made for.

    Raises:
        UsageError: it is unknown and no label can say it.
    """
    return _known_product(pool.gpu) or _label_value(pool, "gpu", pool.gpu)


def gpu_toleration() -> dict[str, str]:
    """What lets a pod onto nodes that are kept for GPUs."""
    return {"key": GPU_TAINT, "operator": "Exists", "effect": "NoSchedule"}


def node_share(pool: Pool, gpus: int) -> NodeShare | None:
    """What goes with so many GPUs of a node; None where the instance type is not in the catalogue."""
    machine = find_instance(pool.instance_type) if pool.instance_type else None
    if machine is None:
        return None
    memory = machine.memory_gib * GIB * (1 - _UNSEEN_MEMORY)
    share = min(1.0, gpus / pool.count)
    cpus = machine.vcpus - _reserved(machine.vcpus, _CPU_STEPS) - _DAEMONS_CPU
    free = memory - _reserved(memory, _MEMORY_STEPS) - _EVICTION - _DAEMONS_MEMORY
    return NodeShare(max(0.0, cpus) * share, max(0, int(free * share)))


def disk_bytes(pool: Pool) -> int | None:
    """The disk of each node: as declared, else what its MachineSet gives it; None where neither says."""
    if pool.node_disk:
        return parse_bytes(pool.node_disk)
    return _MACHINE_SET_DISK if pool.machine_set else None


def disk_for_pods(pool: Pool) -> int | None:
    """What images and pods may fill of a node's disk before pods are evicted; None where its size is not known."""
    disk = disk_bytes(pool)
    return None if disk is None else int(disk * _DISK_FOR_PODS)


@cache  # an unknown name is compared with all others, and asked for once a service
def _known_product(text: str) -> str | None:
    if text.endswith(_SHARED):
        return None
    try:
        return find_gpu(text).product
    except UsageError:
        return None


def _label_value(pool: Pool, field: str, text: str) -> str:
    if _LABEL_VALUE.fullmatch(text):
        return text
    raise UsageError(
        f"'{shorten(printable(text), 60)}' cannot be the label of a node",
        where=f"{field} of pool '{pool.name}'",
        why="a label has at most 63 characters: letters, digits, '.', '_' and '-'",
        next_step="write it as the node's label does, or declare nodeLabels",
    )


def _reserved(total: float, steps: tuple[tuple[int, float], ...]) -> float:
    reserved, below = 0.0, 0.0
    for bound, part in steps:
        reserved += max(0.0, min(total, bound) - below) * part
        below = bound
    return reserved
