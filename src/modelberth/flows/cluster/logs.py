"""`berth logs`: the log of a service's engine, or of what fetches its weights; several pods with their names before."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from queue import Queue
from threading import Thread
from typing import Any

from modelberth.adapters.kubernetes_api import Cluster, Document
from modelberth.adapters.kubernetes_api.kinds import PODS
from modelberth.base.errors import BerthError, PrerequisiteMissing
from modelberth.base.text import did_you_mean, printable
from modelberth.findings.diagnosis.belonging import service_of
from modelberth.timeline.pod_times import ENGINE_CONTAINERS

_SILENCE = 24 * 3600.0
_WAITING_LINES = 1000


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
        BerthError: by meaning; of several pods that are followed at once, the first failure once the others have ended.
    """
    pods = _pods(cluster, request)
    if len(pods) == 1:
        yield from _lines(cluster, request, pods[0])
    elif request.follow:
        yield from _followed(cluster, request, pods)
    else:
        for pod in pods:
            yield from (f"[{_name(pod)}] {line}" for line in _lines(cluster, request, pod))


def _lines(cluster: Cluster, request: LogsRequest, pod: Document) -> Iterator[str]:
    lines = cluster.logs(
        request.namespace, _name(pod), _container(pod, request), previous=request.previous, tail=request.tail,
        follow=request.follow, silence=_SILENCE if request.follow else None,
    )  # fmt: skip
    for line in lines:
        yield printable(line.decode(errors="replace"))


def _followed(cluster: Cluster, request: LogsRequest, pods: list[Document]) -> Iterator[str]:
    """The lines of all pods as they come, each with its pod before it, until every one has ended."""
    said: Queue[str | None] = Queue(_WAITING_LINES)
    failures: list[BerthError] = []

    def read(pod: Document) -> None:
        try:
            for line in _lines(cluster, request, pod):
                said.put(f"[{_name(pod)}] {line}")
        except BerthError as error:
            failures.append(error)
        finally:
            said.put(None)

    for pod in pods:
        Thread(target=read, args=(pod,), name=f"log of {_name(pod)}", daemon=True).start()
    left = len(pods)
    while left:
        line = said.get()
        if line is None:
            left -= 1
        else:
            yield line
    if failures:
        raise failures[0]


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
