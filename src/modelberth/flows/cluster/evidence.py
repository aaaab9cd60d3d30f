"""What a cluster can tell about its services: objects of every kind that matters, and their containers' logs.

Whatever may not be seen, or is not there, is noted and left out: a diagnosis with less evidence is better than none.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from modelberth.adapters.kubernetes_api import Cluster, Document, Kind
from modelberth.adapters.kubernetes_api.kinds import DEPLOYMENTS, EVENTS, INFERENCE_SERVICES, JOBS, NODES, PODS
from modelberth.base.errors import AuthError, BerthError, PrerequisiteMissing, UsageError
from modelberth.findings.diagnosis.belonging import serving_pods
from modelberth.findings.diagnosis.diagnose import Log

LOG_LINES = 20_000
"""Lines from the end of each log: a start takes some hundred, and the cause stands before the last of them."""
_QUEUES = ("ClusterQueue", "LocalQueue", "Workload")


@dataclass
class Evidence:
    """What was found.

    Attributes:
        objects: of the namespace and of the cluster.
        notes: what could not be seen, and why.
    """

    objects: list[Document] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def look(cluster: Cluster, namespace: str) -> Evidence:
    """Everything in a namespace that says how services are.

    Raises:
        AuthError: not even the services may be listed.
        BerthError: the API server does not answer.
    """
    found = Evidence(
        list(cluster.list(INFERENCE_SERVICES, namespace).items) if cluster.serves(INFERENCE_SERVICES) else []
    )
    for kind, place in _kinds(cluster, namespace):
        try:
            found.objects += cluster.list(kind, place).items
        except AuthError:
            found.notes.append(f"{kind.kind}s may not be listed{f' in {place}' if place else ''}: not looked at")
        except PrerequisiteMissing:
            continue
    return found


def _kinds(cluster: Cluster, namespace: str) -> Iterator[tuple[Kind, str | None]]:
    for version in cluster.versions("serving.kserve.io"):
        kind = Kind(f"serving.kserve.io/{version}", "LLMInferenceService")
        if cluster.serves(kind):
            yield kind, namespace
            break
    for kind in (PODS, EVENTS, DEPLOYMENTS, JOBS):
        yield kind, namespace
    yield NODES, None
    versions = cluster.versions("kueue.x-k8s.io")
    for name in _QUEUES if versions else ():
        yield Kind(f"kueue.x-k8s.io/{versions[0]}", name), None if name == "ClusterQueue" else namespace


def all_workloads(cluster: Cluster, evidence: Evidence) -> list[Document]:
    """Kueue's workloads of every namespace, for who holds a quota; those of ours where no others may be seen."""
    kinds = {str(each["apiVersion"]) for each in evidence.objects if each.get("kind") == "Workload"}
    ours = [each for each in evidence.objects if each.get("kind") == "Workload"]
    try:
        return [each for version in kinds for each in cluster.list(Kind(version, "Workload")).items]
    except AuthError:
        evidence.notes.append("Workloads of other namespaces may not be listed: who holds the quota is known in part")
        return ours


def logs_of(
    cluster: Cluster, objects: Sequence[Mapping[str, Any]], notes: list[str], tail: int = LOG_LINES
) -> list[Log]:
    """The logs of every container of serving pods that has run: before its last restart, and now.

    Args:
        cluster: that has them.
        objects: pods among them.
        notes: takes what could not be read.
        tail: lines from the end of each.
    """
    return [log for pod in serving_pods(objects) for log in _logs_of_pod(cluster, pod, notes, tail)]


def _logs_of_pod(cluster: Cluster, pod: Mapping[str, Any], notes: list[str], tail: int) -> Iterator[Log]:
    about, status = pod["metadata"], pod.get("status") or {}
    for each in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        name = str(each.get("name", ""))
        for previous in (True, False):
            if not _has_run(each, previous=previous):
                continue
            source = f"{about['name']}/{name}{' (previous)' if previous else ''}"
            blocks = _blocks(
                cluster, (about["namespace"], about["name"], name), notes, source, previous=previous, tail=tail
            )
            yield Log(source, blocks, about["name"], name)


def _has_run(status: Mapping[str, Any], *, previous: bool) -> bool:
    if previous:
        return bool(status.get("restartCount"))
    return bool({"running", "terminated"} & set(status.get("state") or {}))


def _blocks(
    cluster: Cluster, place: tuple[str, str, str], notes: list[str], source: str, *, previous: bool, tail: int
) -> Iterator[bytes]:
    try:
        for line in cluster.logs(*place, previous=previous, tail=tail):
            yield line + b"\n"
    except (AuthError, PrerequisiteMissing, UsageError) as error:
        notes.append(f"the log of {source} cannot be read: {error.why or error.what}")
    except BerthError as error:
        notes.append(f"the log of {source} ends early: {error.why or error.what}")
