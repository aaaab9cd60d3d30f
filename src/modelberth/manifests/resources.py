"""What one pod of a service asks of its node: GPUs, processors, memory, shared memory, disk, and time to start.

Every figure is a rule over what the stack declares, so the same stack gives the same manifests everywhere and no
network is needed. Where the size of the weights is not declared, what the GPUs hold is its upper bound.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from modelberth.base.errors import UsageError
from modelberth.base.units import GIB, MIB, parse_bytes
from modelberth.catalog import load
from modelberth.catalog.gpus import find_gpu
from modelberth.manifests.nodes import node_share
from modelberth.spec.services import Service
from modelberth.spec.stack import Stack

GPU = "nvidia.com/gpu"
EPHEMERAL = "ephemeral-storage"

# vLLM's documentation ("Optimization and Tuning", CPU resources for GPU deployments): at least 2 + N physical cores
# for N GPUs: API server, engine core and one worker a GPU. A cloud's processor is half a core.
_CORES_BESIDE_WORKERS = 2
_THREADS_A_CORE = 2
# Main memory of the API server and the engine core, and of each worker with CUDA's libraries and its pinned buffers.
# The original deployment asked 32Gi for one GPU and 64Gi for four; start-ups with less were not measured here.
_MEMORY_BESIDE_WORKERS = 8 * GIB
_MEMORY_A_WORKER = 4 * GIB
# Four workers needed 8 GiB of /dev/shm where 2 GiB gave "Bus error" and NCCL timeouts (adnan-drina/rhoai3-demo,
# commit 62378c8d): 2 GiB a worker. It is a limit: memory is taken only as it is used.
_SHM_A_WORKER = 2 * GIB
# Compiled code, logs and what Python writes to /tmp.
_SCRATCH = 8 * GIB
# Time beside reading the weights: imports, torch.compile on an empty cache, warm-up and graph capture. The longest of
# the recorded start-ups took some 4 minutes for these; twice that, and some.
_START_BESIDE_WEIGHTS = 600
_SLOWER_THAN_PLANNED = 2
# A card that the catalogue does not know: no card of today holds more.
_LARGEST_CARD = 288 * GIB


@dataclass(frozen=True)
class Asked:
    """What one pod asks.

    Attributes:
        gpus: in this pod.
        cpu: processors it is given for sure.
        cpu_limit: processors it may take.
        memory: bytes it is given for sure.
        memory_limit: bytes after which it is killed; shared memory counts.
        shm: bytes that /dev/shm may hold.
        disk: bytes of the node's disk; None where a queue has no quota for them.
        start_seconds: how long loading may take before the pod is taken for dead.
    """

    gpus: int
    cpu: float
    cpu_limit: float
    memory: int
    memory_limit: int
    shm: int
    disk: int | None
    start_seconds: int

    def container_resources(self) -> dict[str, Any]:
        """`resources` of the container."""
        gpus = {GPU: str(self.gpus)}
        disk = {EPHEMERAL: gibibytes(self.disk)} if self.disk is not None else {}
        return {
            "requests": {"cpu": processors(self.cpu), "memory": gibibytes(self.memory), **disk, **gpus},
            "limits": {"cpu": processors(self.cpu_limit), "memory": gibibytes(self.memory_limit), **gpus},
        }

    def shm_volume(self, name: str) -> dict[str, Any]:
        """The memory behind /dev/shm."""
        return {"name": name, "emptyDir": {"medium": "Memory", "sizeLimit": gibibytes(self.shm)}}


def asked(stack: Stack, service: Service, gpus: int) -> Asked:
    """What one pod of a service with so many GPUs asks.

    Raises:
        UsageError: a declared limit is below what is declared to be given.
    """
    declared, share = service.variant.resources, node_share(service.pool, gpus)
    shm = _SHM_A_WORKER * gpus
    weights = weights_bytes(service, gpus)
    cpu = declared.cpu or _within(_THREADS_A_CORE * (_CORES_BESIDE_WORKERS + gpus), share.cpus if share else None)
    cpu_limit = declared.cpu_limit or max(cpu, math.floor(share.cpus) if share else cpu * 2)
    memory = _size(declared.memory) or _within(
        _MEMORY_BESIDE_WORKERS + _MEMORY_A_WORKER * gpus + shm, share.memory_bytes if share else None
    )
    # Files that are mapped while they are read count too, until the kernel gives them up.
    memory_limit = _size(declared.memory_limit) or max(
        memory, int(_within(memory + weights, share.memory_bytes if share else None))
    )
    _check(service, cpu, cpu_limit, "cpuLimit")
    _check(service, memory, memory_limit, "memoryLimit")
    return Asked(
        gpus=gpus,
        cpu=cpu,
        cpu_limit=cpu_limit,
        memory=int(memory),
        memory_limit=int(memory_limit),
        shm=shm,
        disk=_disk(stack, service, weights),
        start_seconds=start_seconds(weights),
    )


def weights_bytes(service: Service, gpus: int) -> int:
    """Bytes of weights that one pod loads: as declared, else what its GPUs can hold."""
    declared = service.variant.weights_size
    if declared:
        return parse_bytes(declared)
    try:
        card = int(find_gpu(service.pool.gpu).cuda_gib[1] * GIB)
    except UsageError:
        card = _LARGEST_CARD
    return int(card * gpus * (service.variant.gpu_memory_utilization or 1))


def start_seconds(weights: int) -> int:
    """Seconds that a start may take: reading the weights at half the planned rate, and all the rest; whole minutes."""
    return math.ceil((moving_seconds(weights) * _SLOWER_THAN_PLANNED + _START_BESIDE_WEIGHTS) / 60) * 60


def moving_seconds(weights: int) -> float:
    """Seconds that reading the weights from the node's disk takes, or writing them to it, at the planned rate."""
    return weights / (int(load("storage")["diskMiBPerSecond"]["value"]) * MIB)


def gibibytes(count: int) -> str:
    """A quantity in whole Gi, rounded up; in Mi below one."""
    return f"{math.ceil(count / GIB)}Gi" if count >= GIB else f"{math.ceil(count / MIB)}Mi"


def processors(count: float) -> str:
    """A quantity of processors: `6` or `1500m`."""
    return str(int(count)) if count == int(count) else f"{round(count * 1000)}m"


def _disk(stack: Stack, service: Service, weights: int) -> int | None:
    # A workload that asks for what its ClusterQueue has no quota for is never admitted.
    if stack.queue is not None and EPHEMERAL not in stack.queue.covers:
        return None
    # Weights from S3 land on the node's disk. Those of an image are the runtime's, which counts them apart.
    return _SCRATCH + (weights if service.variant.weights.startswith("s3://") else 0)


def _within(wanted: float, most: float | None) -> float:
    return wanted if not most else min(wanted, math.floor(most))


def _size(text: str | None) -> int | None:
    return parse_bytes(text) if text else None


def _check(service: Service, request: float, limit: float, field: str) -> None:
    if limit < request:
        raise UsageError(
            f"{field} of service '{service.name}' is below what the pod is given", where=f"resources.{field}",
            why=f"{limit:g} is less than {request:g}", next_step=f"raise {field}, or lower the request beside it",
        )  # fmt: skip
