"""`berth top`: how busy services and their cards are, out of the metrics of engines and of the DCGM exporter.

Both are read through the API server's proxy to the pods. A source that is not there, or may not be read, is said.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event

from modelberth.adapters.kubernetes_api import Cluster, Document
from modelberth.adapters.kubernetes_api.kinds import PODS
from modelberth.base.clock import monotonic
from modelberth.base.errors import BerthError
from modelberth.findings.diagnosis.belonging import service_of
from modelberth.timeline.engine_port import engine_port
from modelberth.timeline.metrics import CardUse, EngineLoad, cards, engine_load

EXPORTER_LABEL = "app=nvidia-dcgm-exporter"
_EXPORTER_PORT = 9400


@dataclass(frozen=True)
class PodUse:
    """One pod of a service.

    Attributes:
        service: that it belongs to.
        pod: its name.
        load: of its engine; None where it cannot be read.
        tokens_per_second: between two looks; None where they cannot be told.
        cards: that it has.
    """

    service: str
    pod: str
    load: EngineLoad | None
    tokens_per_second: float | None
    cards: tuple[CardUse, ...]


def top(
    cluster: Cluster, namespace: str, names: Sequence[str] | None, seconds: float
) -> tuple[list[PodUse], list[str]]:
    """Look twice, `seconds` apart.

    Returns:
        Each pod, and what could not be read.

    Raises:
        AuthError, RemoteUnavailable: pods cannot be listed.
    """
    notes: list[str] = []
    pods = [each for each in cluster.list(PODS, namespace).items if _is_wanted(each, names)]
    before = {_name(each): (_load(cluster, each, []), monotonic()) for each in pods}
    Event().wait(seconds)
    used = _cards(cluster, namespace, notes)
    found = []
    for pod in pods:
        load, (earlier, then) = _load(cluster, pod, notes), before[_name(pod)]
        rate = _rate(earlier, load, monotonic() - then)
        of_pod = tuple(each for each in used if each.pod == _name(pod))
        found.append(PodUse(service_of(pod), _name(pod), load, rate, of_pod))
    return sorted(found, key=lambda each: (each.service, each.pod)), notes


def _is_wanted(pod: Document, names: Sequence[str] | None) -> bool:
    service = service_of(pod)
    return bool(service) and (names is None or service in names)


def _load(cluster: Cluster, pod: Document, notes: list[str]) -> EngineLoad | None:
    about = pod["metadata"]
    port, secure = engine_port(pod)
    name = f"{'https:' if secure else ''}{about['name']}:{port}"
    path = f"/api/v1/namespaces/{about['namespace']}/pods/{name}/proxy/metrics"
    try:
        return engine_load(cluster.raw(path).decode(errors="replace"))
    except BerthError as error:
        notes.append(f"{about['name']}: no metrics: {error.why or error.what}")
        return None


def _cards(cluster: Cluster, namespace: str, notes: list[str]) -> list[CardUse]:
    try:
        exporters = cluster.list(PODS, labels=EXPORTER_LABEL).items
    except BerthError as error:
        notes.append(f"the DCGM exporter cannot be looked for: {error.why or error.what}")
        return []
    if not exporters:
        notes.append("no DCGM exporter (pods with the label app=nvidia-dcgm-exporter): nothing of the cards is known")
    found: list[CardUse] = []
    for each in exporters:
        about = each["metadata"]
        path = f"/api/v1/namespaces/{about['namespace']}/pods/{about['name']}:{_EXPORTER_PORT}/proxy/metrics"
        try:
            found += cards(cluster.raw(path).decode(errors="replace"), namespace)
        except BerthError as error:
            notes.append(f"{about['name']}: no metrics: {error.why or error.what}")
    return found


def _rate(before: EngineLoad | None, after: EngineLoad | None, seconds: float) -> float | None:
    if before is None or after is None or before.generated is None or after.generated is None or seconds <= 0:
        return None
    return max(0.0, after.generated - before.generated) / seconds


def _name(pod: Document) -> str:
    return str(pod["metadata"]["name"])
