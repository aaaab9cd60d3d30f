"""4xx: shared memory, probes, replacement, processors and memory."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from modelberth.base.errors import UsageError
from modelberth.base.units import GIB, format_binary, parse_bytes
from modelberth.findings.lint.rules import Hit, rule
from modelberth.findings.lint.scheduling import cluster_queue_of, gpu_quota, gpus_asked
from modelberth.findings.lint.world import QUEUE_LABEL, ServedModel, World, items, mapping, text

_SHM_A_RANK = 2 * GIB
"""What four ranks needed where 2 GiB for all gave "Bus error" (adnan-drina/rhoai3-demo, commit 62378c8d)."""
_SHM = "/dev/shm"  # noqa: S108 - a mount
_PRESET_SHM = GIB  # that of LLMInferenceService's presets


@rule(
    401,
    "high",
    "no /dev/shm for several ranks",
    "Ranks exchange messages through shared memory; a container has 64 MiB of it: NCCL times out, or the bus error.",
)
def no_shm(world: World) -> Iterator[Hit]:
    """Services with tensor parallelism and no volume at /dev/shm."""
    for service in world.served:
        if service.tensor_parallel > 1 and _shm(service) is None:
            message = f"{service.name} has {service.tensor_parallel} ranks and no volume at /dev/shm"
            fix = f"emptyDir: {{medium: Memory, sizeLimit: {2 * service.tensor_parallel}Gi}} at /dev/shm"
            yield Hit(service.manifest, service.container.path, message, fix, of_key=True)


@rule(
    402,
    "medium",
    "too little shared memory for the ranks",
    "NCCL and the workers' message queues need about 2 GiB a rank; with less they fail under load, not at the start.",
)
def small_shm(world: World) -> Iterator[Hit]:
    """The limit of the volume at /dev/shm."""
    for service in world.served:
        size, wanted = _shm(service), service.tensor_parallel * _SHM_A_RANK
        if size is not None and service.tensor_parallel > 1 and 0 < size < wanted:
            message = f"{format_binary(size)} for {service.tensor_parallel} ranks of {service.name}"
            yield Hit(service.manifest, service.container.path, message, f"sizeLimit: {wanted // GIB}Gi", of_key=True)


def _shm(service: ServedModel) -> int | None:
    """Bytes behind /dev/shm: 0 without a limit, None without a volume."""
    volumes: dict[str, Any] = {}
    mounts: list[Any] = []
    if service.manifest.kind == "LLMInferenceService":
        volumes["dshm"], mounts = {"sizeLimit": str(_PRESET_SHM)}, [{"name": "dshm", "mountPath": _SHM}]
    if service.runtime:
        volumes |= _memory_volumes(service.runtime.get("spec", "volumes"))
        for index, _ in enumerate(items(service.runtime.get("spec", "containers"))):
            mounts += items(service.runtime.get("spec", "containers", index, "volumeMounts"))
    volumes |= _memory_volumes(service.manifest.get(*service.pod, "volumes"))
    mounts += items(service.container.get("volumeMounts"))
    name = next((text(mapping(each).get("name")) for each in mounts if mapping(each).get("mountPath") == _SHM), None)
    if name is None or name not in volumes:
        return None
    return _bytes(volumes[name].get("sizeLimit")) or 0


def _memory_volumes(value: Any) -> dict[str, Any]:
    return {text(mapping(each).get("name")): mapping(mapping(each).get("emptyDir")) for each in items(value)}


def _bytes(value: Any) -> int | None:
    try:
        return parse_bytes(text(value))
    except UsageError:
        return None


@rule(
    403,
    "high",
    "a liveness probe and no startup probe",
    "Loading takes minutes in which vLLM answers nothing: the probe kills the pod before it is ready, again and again.",
)
def liveness_alone(world: World) -> Iterator[Hit]:
    """Services whose liveness probe begins at once."""
    for service in world.served:
        killed = _probe(service, "livenessProbe") and not _probe(service, "startupProbe")
        if service.manifest.kind == "InferenceService" and killed:
            message = f"{service.name} has a liveness probe and no startup probe"
            yield Hit(service.manifest, service.container.path, message, _STARTUP, of_key=True)


_STARTUP = "startupProbe: GET /health, periodSeconds 10, failureThreshold for the time that loading takes"


@rule(
    404,
    "medium",
    "no probes",
    "KServe then asks for an open port alone: traffic arrives before the model is loaded, and a dead engine stays.",
)
def no_probes(world: World) -> Iterator[Hit]:
    """Services without any probe, their runtime included."""
    for service in world.served:
        names = ("readinessProbe", "livenessProbe", "startupProbe")
        if service.manifest.kind == "InferenceService" and not any(_probe(service, name) for name in names):
            yield Hit(service.manifest, service.container.path, f"{service.name} has no probe", _STARTUP, of_key=True)


def _probe(service: ServedModel, name: str) -> bool:
    runtime = service.runtime.get("spec", "containers", 0, name) if service.runtime else None
    return bool(service.container.get(name) or runtime)


@rule(
    405,
    "medium",
    "rolling update where no GPU is spare",
    "The new pod waits for a GPU that the old one holds, and the old one waits for the new one to be ready.",
)
def no_spare(world: World) -> Iterator[Hit]:
    """Services without Recreate in a queue whose GPUs are all asked for."""
    for service in world.served:
        strategy = text(service.manifest.get(*service.pod, "deploymentStrategy", "type"))
        queue = cluster_queue_of(world, service.manifest)
        quota = gpu_quota(queue) if queue else None
        if quota is None or queue is None or strategy == "Recreate" or service.manifest.kind != "InferenceService":
            continue
        spare = quota - gpus_asked(world, queue)
        if spare < (service.gpus() or 0):
            message = (
                f"{service.name} needs {service.gpus()} GPUs for a second pod; the queue has {max(0, spare)} spare"
            )
            yield Hit(service.manifest, service.pod, message, "deploymentStrategy: {type: Recreate}", of_key=True)


@rule(
    406,
    "medium",
    "no request for processors or memory",
    "The pod lands on any node and is the first to be evicted there; KServe's defaults are 1 CPU and 2Gi.",
)
def no_requests(world: World) -> Iterator[Hit]:
    """Services without requests."""
    for service in world.served:
        requests = mapping(service.container.get("resources", "requests"))
        missing = [each for each in ("cpu", "memory") if each not in requests]
        if missing:
            path = (*service.container.path, "resources")
            yield Hit(
                service.manifest, path, f"no request for {' and '.join(missing)}", "say what it needs", of_key=True
            )


@rule(
    407,
    "low",
    "download without a request for disk",
    "Weights from S3 land on the node's disk: the scheduler does not see them, and the pod is evicted while it loads.",
)
def no_disk(world: World) -> Iterator[Hit]:
    """Services that download and ask for no disk, outside of a queue."""
    for service in world.served:
        queued = service.manifest.labels.get(QUEUE_LABEL)
        path = (*service.container.path, "resources", "requests")
        if service.weights[1].startswith(("s3://", "hf://")) and not queued and not service.manifest.get(
            *path, "ephemeral-storage"
        ):  # fmt: skip
            message = f"{service.name} downloads its weights and asks for no ephemeral-storage"
            yield Hit(service.manifest, path, message, "ephemeral-storage: the weights and some GiB", of_key=True)


RULES = (no_shm, small_shm, liveness_alone, no_probes, no_spare, no_requests, no_disk)
