"""5xx: what a container may do, and who reaches a service."""

from __future__ import annotations

from collections.abc import Iterator

from modelberth.findings.lint.rules import Hit, rule
from modelberth.findings.lint.world import Container, World, mapping

_OURS = {"Job", "CronJob", "Deployment", "StatefulSet", "Pod", "ServingRuntime", "InferenceService"}


@rule(
    501,
    "medium",
    "may run as root",
    "Where nobody refuses it, the container runs as root, and what it writes belongs to root.",
)
def root_allowed(world: World) -> Iterator[Hit]:
    """Containers without runAsNonRoot, in themselves or in their pod."""
    for container in _own(world):
        if _says(container, "runAsNonRoot") is not True:
            message = f"runAsNonRoot is not set for {_shown(container)}"
            yield Hit(container.manifest, container.path, message, "securityContext: {runAsNonRoot: true}", of_key=True)


@rule(
    502,
    "high",
    "privileged, or root by name",
    "It can do to the node what the node's administrator can.",
)
def privileged(world: World) -> Iterator[Hit]:
    """Containers with all rights."""
    for container in world.containers:
        path = (*container.path, "securityContext")
        if container.get("securityContext", "privileged") is True:
            yield Hit(container.manifest, (*path, "privileged"), f"{_shown(container)} is privileged", "remove it")
        if _says(container, "runAsUser") == 0:
            yield Hit(container.manifest, path, f"{_shown(container)} runs as user 0", "another user", of_key=True)


@rule(
    503,
    "low",
    "rights that nobody needs",
    "Pod Security's restricted profile refuses it: allowPrivilegeEscalation false and all capabilities dropped.",
)
def not_restricted(world: World) -> Iterator[Hit]:
    """Workloads and runtimes that are not restricted."""
    for container in _own(world):
        if container.manifest.kind == "InferenceService":
            continue  # the runtime's container is what it runs
        security = mapping(container.get("securityContext"))
        dropped = mapping(security.get("capabilities")).get("drop")
        if security.get("allowPrivilegeEscalation") is not False or dropped != ["ALL"]:
            message = f"{_shown(container)} keeps capabilities or may gain rights"
            fix = "securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}"
            yield Hit(container.manifest, container.path, message, fix, of_key=True)


@rule(
    504,
    "medium",
    "reachable from outside, and nobody is asked who they are",
    "A Route without authentication lets anybody use the GPUs and read what the model is asked.",
)
def open_door(world: World) -> Iterator[Hit]:
    """Services that are exposed without authentication."""
    for service in world.served:
        label = "networking.kserve.io/visibility"
        asked = service.manifest.annotations.get("security.opendatahub.io/enable-auth")
        if service.manifest.labels.get(label) == "exposed" and asked != "true":
            fix = 'annotation security.opendatahub.io/enable-auth: "true"'
            yield Hit(service.manifest, ("metadata", "labels", label), f"{service.name} is exposed without auth", fix)


def _own(world: World) -> Iterator[Container]:
    """Containers that the manifests say all of; those of presets say little themselves."""
    for container in world.containers:
        if container.manifest.kind in _OURS and (
            container.manifest.kind != "ServingRuntime" or container.get("image") is not None
        ):
            yield container


def _says(container: Container, key: str) -> object:
    own = container.get("securityContext", key)
    inherited = container.pod_get("securityContext", key)
    return own if own is not None else inherited


def _shown(container: Container) -> str:
    name = container.get("name")
    return f"container {name}" if isinstance(name, str) else container.manifest.name


RULES = (root_allowed, privileged, not_restricted, open_door)
