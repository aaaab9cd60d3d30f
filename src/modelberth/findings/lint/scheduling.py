"""3xx: queues, hardware profiles, placement and GPUs."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from modelberth.findings.lint.rules import Hit, rule
from modelberth.findings.lint.world import (  # fmt: skip
    GPU,
    PROFILE_NAME,
    QUEUE_LABEL,
    Manifest,
    ServedModel,
    World,
    items,
    mapping,
    text,
)

_QUEUED = {"Job", "CronJob", "Deployment", "StatefulSet", "Pod"}


@rule(
    301,
    "high",
    "tolerations beside a queue",
    "Kueue's flavour brings them; the pod is refused on admission: existing toleration can not be modified.",
)
def queue_and_tolerations(world: World) -> Iterator[Hit]:
    """Services in a queue with tolerations of their own."""
    for service in world.served:
        path = (*service.pod, "tolerations")
        if _queue_of(service.manifest) and service.manifest.get(*path):
            message = f"{service.name} is in queue {_queue_of(service.manifest)} and has tolerations of its own"
            yield Hit(service.manifest, path, message, "remove them; the ResourceFlavor has them", of_key=True)


@rule(
    302,
    "medium",
    "nodeSelector beside a queue",
    "Two owners of placement: where flavour and service disagree the pod stays pending without a word.",
)
def queue_and_selector(world: World) -> Iterator[Hit]:
    """Services in a queue with a node selector of their own."""
    for service in world.served:
        path = (*service.pod, "nodeSelector")
        if _queue_of(service.manifest) and service.manifest.get(*path):
            message = f"{service.name} is in queue {_queue_of(service.manifest)} and selects nodes itself"
            yield Hit(service.manifest, path, message, "remove it; the ResourceFlavor has it", of_key=True)


@rule(
    303,
    "medium",
    "placement beside a hardware profile",
    "The profile's webhook clears or merges node selector and tolerations whenever the profile changes.",
)
def profile_and_placement(world: World) -> Iterator[Hit]:
    """Services with a profile and a placement of their own."""
    for service in world.served:
        if not service.manifest.annotations.get(PROFILE_NAME):
            continue
        for key in ("nodeSelector", "tolerations"):
            if service.manifest.get(*service.pod, key):
                message = f"{key} stands beside hardware profile {service.manifest.annotations[PROFILE_NAME]}"
                yield Hit(service.manifest, (*service.pod, key), message, "let the profile say it", of_key=True)


@rule(
    304,
    "high",
    "a resource that the queue has no quota for",
    "A workload that asks for what its ClusterQueue does not cover is inadmissible and waits for ever.",
)
def uncovered(world: World) -> Iterator[Hit]:
    """What pods of a queue ask for beside what its ClusterQueue covers; a limit alone is a request too."""
    for container in world.containers:
        covered = _covered(world, container.manifest)
        for side in ("requests", "limits") if covered else ():
            for name in mapping(container.get("resources", side)):
                if name in covered or (side == "limits" and container.get("resources", "requests", name) is not None):
                    continue
                path = (*container.path, "resources", side, name)
                message = f"{name} is asked for; the ClusterQueue covers {', '.join(sorted(covered))}"
                yield Hit(container.manifest, path, message, "remove it, or add the resource to the quota")


@rule(
    305,
    "high",
    "a queue that is not there",
    "The workload names a LocalQueue that its namespace does not have: Kueue never looks at it.",
)
def no_queue(world: World) -> Iterator[Hit]:
    """Queue labels without a LocalQueue, where the manifests have any."""
    queues = {(each.namespace, each.name) for each in world.of_kind("LocalQueue")}
    for each in world.manifests if queues else ():
        name = _queue_of(each)
        if name and not has(queues, each.namespace, name):
            message = f"no LocalQueue {name} in namespace {each.namespace or 'default'}"
            yield Hit(each, ("metadata", "labels", QUEUE_LABEL), message, _known(queues))


@rule(
    306,
    "high",
    "a hardware profile that leads to no queue",
    "The profile's webhook writes its queue over the workload's own: all of them are orphaned.",
)
def profile_queue(world: World) -> Iterator[Hit]:
    """Profiles of type Queue whose queue no namespace has."""
    queues = {(each.namespace, each.name) for each in world.of_kind("LocalQueue")}
    for profile in world.of_kind("HardwareProfile"):
        path = ("spec", "scheduling", "kueue", "localQueueName")
        name = text(profile.get(*path))
        if queues and name and name not in {queue for _, queue in queues}:
            yield Hit(profile, path, f"no LocalQueue is named {name}", _known(queues))


@rule(
    307,
    "high",
    "GPU without a toleration",
    "GPU nodes are tainted as a rule: pods without a toleration, a queue or a hardware profile fail to be scheduled.",
)
def no_toleration(world: World) -> Iterator[Hit]:
    """Services that ask for GPUs and say nothing of tainted nodes."""
    for service in world.served:
        owners = (_queue_of(service.manifest), service.manifest.annotations.get(PROFILE_NAME))
        tolerations = service.manifest.get(*service.pod, "tolerations")
        runtime = service.runtime.get("spec", "tolerations") if service.runtime else None
        if service.gpus() and not any(owners) and not tolerations and not runtime:
            path = (*service.container.path, "resources")
            yield Hit(
                service.manifest, path, f"{service.name} asks for GPUs and tolerates no taint",
                "tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}]", of_key=True,
            )  # fmt: skip


@rule(
    308,
    "high",
    "tensor parallelism is not the number of GPUs",
    "With more ranks than GPUs the engine does not start; with fewer, GPUs are paid for and idle.",
)
def ranks(world: World) -> Iterator[Hit]:
    """tensor-parallel-size beside the GPUs of the pod."""
    for service in world.served:
        gpus, argument = service.gpus(), service.argument("tensor-parallel-size")
        wanted = service.tensor_parallel * _factor(service)
        if gpus and gpus != wanted and service.manifest.get("spec", "parallelism") is None:
            path = argument.path if argument else (*service.container.path, "resources", "limits", GPU)
            manifest = argument.manifest if argument else service.manifest
            message = f"{service.name}: {wanted} {'rank' if wanted == 1 else 'ranks'} on {gpus} GPUs"
            yield Hit(manifest, path, message, f"--tensor-parallel-size={gpus}, or {wanted} GPUs")


def _factor(service: ServedModel) -> int:
    product = 1
    for flag in ("pipeline-parallel-size", "data-parallel-size"):
        argument = service.argument(flag)
        product *= int(argument.value) if argument and argument.value.isdigit() else 1
    return product


@rule(
    309,
    "high",
    "GPUs asked for are not GPUs allowed",
    "Extended resources cannot be overcommitted: the API server refuses the pod.",
)
def requests_and_limits(world: World) -> Iterator[Hit]:
    """Requests beside limits."""
    for service in world.served:
        requested, allowed = service.gpus("requests"), service.gpus()
        if requested is not None and requested != allowed:
            path = (*service.container.path, "resources", "requests", GPU)
            message = f"{requested} asked for, {allowed or 'none'} allowed"
            yield Hit(service.manifest, path, message, "the same number in requests and limits")


@rule(
    310,
    "high",
    "quota below what the services ask",
    "The last services wait for quota that does not exist.",
)
def small_quota(world: World) -> Iterator[Hit]:
    """GPUs of all services in a ClusterQueue beside its quota."""
    for queue in world.of_kind("ClusterQueue"):
        quota, asked = gpu_quota(queue), gpus_asked(world, queue)
        if quota is not None and asked > quota:
            message = f"quota of {quota} GPUs; services in it ask for {asked}"
            yield Hit(queue, ("spec", "resourceGroups"), message, f"nominalQuota of {asked} in all", of_key=True)


@rule(
    311,
    "medium",
    "work without a GPU in the queue of the GPUs",
    "An upload takes processor and memory quota of the GPU nodes' flavour, and services wait for it.",
)
def work_in_queue(world: World) -> Iterator[Hit]:
    """Jobs with a queue label and no GPU."""
    for each in world.manifests:
        if each.kind in _QUEUED and _queue_of(each) and GPU not in str(each.data):
            message = f"{each.kind} {each.name} is in queue {_queue_of(each)} and needs no GPU"
            yield Hit(each, ("metadata", "labels", QUEUE_LABEL), message, "remove the label, or use a namespace apart")


@rule(
    312,
    "low",
    "a LocalQueue named default on OpenShift AI",
    "The operator makes one of that name in managed namespaces and writes it anew.",
)
def default_queue(world: World) -> Iterator[Hit]:
    """LocalQueues named default."""
    for queue in world.of_kind("LocalQueue"):
        if queue.name == "default" and world.is_openshift_ai:
            yield Hit(
                queue, ("metadata", "name"), "the operator owns the LocalQueue named default", "name it otherwise"
            )


@rule(
    313,
    "medium",
    "minReplicas 0 with plain Deployments",
    "Nothing scales from zero there: one pod starts and takes its GPUs anyway.",
)
def no_zero(world: World) -> Iterator[Hit]:
    """InferenceServices that mean to be stopped."""
    for service in world.served:
        mode = text(service.manifest.annotations.get("serving.kserve.io/deploymentMode"))
        plain = mode in {"RawDeployment", "Standard"} or (not mode and world.is_openshift_ai)
        path = ("spec", "predictor", "minReplicas")
        if plain and service.manifest.get(*path) == 0:
            fix = 'annotation serving.kserve.io/stop: "true" stops it'
            yield Hit(service.manifest, path, f"{service.name} starts one pod all the same", fix)


def _queue_of(manifest: Manifest) -> str:
    return text(manifest.labels.get(QUEUE_LABEL))


def has(known: Collection[tuple[str, str]], namespace: str, name: str) -> bool:
    """Whether something of that name is in a namespace; a namespace that is left out may be any."""
    return any(one == name and (not namespace or not there or namespace == there) for there, one in known)


def _known(queues: set[tuple[str, str]]) -> str:
    return "there is: " + ", ".join(sorted(f"{namespace}/{name}" for namespace, name in queues))


def cluster_queue_of(world: World, manifest: Manifest) -> Manifest | None:
    """The ClusterQueue behind a workload's LocalQueue, where both are among the manifests."""
    name = _queue_of(manifest)
    for local in world.of_kind("LocalQueue"):
        if name and has({(local.namespace, local.name)}, manifest.namespace, name):
            target = text(local.get("spec", "clusterQueue"))
            return next((each for each in world.of_kind("ClusterQueue") if each.name == target), None)
    return None


def _covered(world: World, manifest: Manifest) -> set[str]:
    queue = cluster_queue_of(world, manifest)
    groups = items(queue.get("spec", "resourceGroups")) if queue else ()
    return {text(each) for group in groups for each in items(mapping(group).get("coveredResources"))}


def gpu_quota(queue: Manifest) -> int | None:
    """GPUs that a ClusterQueue has, over all flavours; None where it has no quota for any."""
    found = [
        text(mapping(each).get("nominalQuota"))
        for group in items(queue.get("spec", "resourceGroups"))
        for flavor in items(mapping(group).get("flavors"))
        for each in items(mapping(flavor).get("resources"))
        if mapping(each).get("name") == GPU
    ]
    numbers = [int(each) for each in found if each.isdigit()]
    return sum(numbers) if numbers else None


def gpus_asked(world: World, queue: Manifest) -> int:
    """GPUs that the services in a ClusterQueue ask for, over all their replicas."""
    return sum(
        (service.gpus() or 0) * _replicas(service)
        for service in world.served
        if cluster_queue_of(world, service.manifest) is queue
    )


def _replicas(service: ServedModel) -> int:
    spec = ("spec", "predictor", "minReplicas") if service.manifest.kind == "InferenceService" else ("spec", "replicas")
    value = service.manifest.get(*spec)
    return value if isinstance(value, int) and value > 0 else 1


RULES = (
    queue_and_tolerations, queue_and_selector, profile_and_placement, uncovered, no_queue, profile_queue,
    no_toleration, ranks, requests_and_limits, small_quota, work_in_queue, default_queue, no_zero,
)  # fmt: skip
