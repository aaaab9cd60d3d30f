"""`berth logs`: the log of a service's engine, or of what fetches its weights; several pods with their names before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from modelberth.adapters.kubernetes_api import Cluster, Document
from modelberth.adapters.kubernetes_api.kinds import PODS
from modelberth.base.errors import PrerequisiteMissing, UsageError
from modelberth.base.text import did_you_mean, printable
from modelberth.findings.diagnosis.belonging import service_of
from modelberth.timeline.pod_times import ENGINE_CONTAINERS

_SILENCE = 24 * 3600.0


@dataclass(frozen=True)
class LogsRequest:
    """What is asked for.

    Attributes:
        namespace: of the service.
        service: its name.
        init: the container that fetches, instead of the engine's.
        previous: the run before the last restart.
        follow: until the container ends.
        tail: lines from the end; None for all.
        pod: this one alone; None for all.
    """

    namespace: str
    service: str
    init: bool = False
    previous: bool = False
    follow: bool = False
    tail: int | None = None
    pod: str | None = None


def service_logs(cluster: Cluster, request: LogsRequest) -> Iterator[str]:
    """Lines, printable.

    Raises:
        PrerequisiteMissing: the service has no pod, or no such container.
        UsageError: several pods cannot be followed at once; the container has not started.
        BerthError: by meaning.
    """
    pods = _pods(cluster, request)
    if request.follow and len(pods) > 1:
        raise UsageError(
            "several pods cannot be followed at once",
            why=", ".join(_name(each) for each in pods),
            next_step="--pod NAME",
        )
    for pod in pods:
        before = f"[{_name(pod)}] " if len(pods) > 1 else ""
        lines = cluster.logs(
            request.namespace, _name(pod), _container(pod, request), previous=request.previous, tail=request.tail,
            follow=request.follow, silence=_SILENCE if request.follow else None,
        )  # fmt: skip
        for line in lines:
            yield before + printable(line.decode(errors="replace"))


def _pods(cluster: Cluster, request: LogsRequest) -> list[Document]:
    every = cluster.list(PODS, request.namespace).items
    found = [each for each in every if service_of(each) == request.service]
    if request.pod is not None:
        found = [each for each in found if _name(each) == request.pod]
    if not found:
        known = sorted({service_of(each) for each in every} - {""})
        raise PrerequisiteMissing(
            f"service {request.service} has no pod{f' {request.pod}' if request.pod else ''}",
            where=f"namespace {request.namespace}", why=did_you_mean(request.service, known) if known else "",
            next_step=f"berth status -n {request.namespace}",
        )  # fmt: skip
    return sorted(found, key=_name)


def _container(pod: Mapping[str, Any], request: LogsRequest) -> str:
    spec = pod.get("spec") or {}
    names = [str(each.get("name")) for each in spec.get("initContainers" if request.init else "containers") or []]
    wanted = next((each for each in names if request.init or each in ENGINE_CONTAINERS), None)
    if wanted is None:
        what = "fetches weights" if request.init else "is an engine"
        raise PrerequisiteMissing(f"no container of {_name(pod)} {what}", why=f"it has {', '.join(names) or 'none'}")
    return wanted


def _name(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"]["name"])
