"""How long the stages of a pod took, by the cluster's own clocks: conditions, states of containers, the engine's log.

What the kubelet and the scheduler have written down does not depend on when somebody began to look. Their times are
whole seconds. The pull of the engine's image follows the download of the weights, that of the initializer's goes
before it: both count as `image`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Any

from modelberth.base.loose import mapping, mappings
from modelberth.timeline.stages import PROCESS, READY, StageTime, StartUp

QUEUE = "queue"
SCHEDULING = "scheduling"
IMAGE = "image"
DOWNLOAD = "download"
START = "start"
"""The whole start of an engine whose log was not read."""
_UNKNOWN = ""
ENGINE_CONTAINERS = ("kserve-container", "main")
ADMISSION_GATE = "kueue.x-k8s.io/admission"

Object = Mapping[str, Any]


@dataclass(frozen=True)
class StageTimes:
    """Measured stages of one pod.

    Attributes:
        ended: stages that have ended, in order.
        since: when the one began that it is in, in seconds since 1970; None where nothing tells.
    """

    ended: tuple[StageTime, ...] = ()
    since: float | None = None


def stage_times(pod: Object, start: StartUp | None = None, admitted: float | None = None) -> StageTimes:
    """The times of a pod's stages.

    Args:
        pod: as the API server has it.
        start: what the engine's log says; its times are seconds since 1970.
        admitted: when Kueue admitted it, in seconds since 1970.
    """
    marks = _marks(pod, admitted)
    if not marks:
        return StageTimes()
    ended: dict[str, float] = {}
    for (stage, begun), (_, over) in pairwise(marks):
        if stage != _UNKNOWN:
            ended[stage] = ended.get(stage, 0.0) + max(0.0, over - begun)
    last, since = marks[-1]
    ready = true_since(mapping(pod.get("status")), "Ready")
    if last == PROCESS:
        _add_engine(ended, since, ready, start)
        since = start.since if start is not None and ready is None else since
    return StageTimes(tuple(StageTime(*each) for each in ended.items()), ready if last == PROCESS and ready else since)


def _add_engine(ended: dict[str, float], begun: float, ready: float | None, start: StartUp | None) -> None:
    if start is None:
        if ready is not None:
            ended[START] = max(0.0, ready - begun)
        return
    for each in start.ended:
        ended[each.stage] = ended.get(each.stage, 0.0) + max(0.0, each.seconds)
    if ready is not None and start.stage != READY:
        ended[start.stage] = max(0.0, ready - start.since)


def _marks(pod: Object, admitted: float | None) -> list[tuple[str, float]]:
    """When each stage began, in order; the last one is under way."""
    created = instant(mapping(pod.get("metadata")).get("creationTimestamp"))
    if created is None:
        return []
    gated = any(
        each.get("name") == ADMISSION_GATE for each in mappings(mapping(pod.get("spec")).get("schedulingGates"))
    )
    marks = [(QUEUE if gated or admitted is not None else SCHEDULING, created)]
    if gated:
        return marks
    if admitted is not None:
        marks.append((SCHEDULING, max(created, admitted)))
    scheduled = true_since(mapping(pod.get("status")), "PodScheduled")
    if scheduled is None:
        return marks
    return marks + _containers(mapping(pod.get("status")), [(IMAGE, scheduled)])


def _containers(status: Object, marks: list[tuple[str, float]]) -> list[tuple[str, float]]:
    fetchers = [
        mapping(each.get("state")) for each in mappings(status.get("initContainerStatuses")) if not _stays(each)
    ]
    begun = [instant(_ran(each).get("startedAt")) for each in fetchers if _ran(each)]
    over = [instant(mapping(each.get("terminated")).get("finishedAt")) for each in fetchers]
    if begun and begun[0] is not None:
        marks.append((DOWNLOAD, begun[0]))
        if None in over:
            return marks
        marks.append((IMAGE, max(each for each in over if each is not None)))
    engine = next(
        (each for each in mappings(status.get("containerStatuses")) if each.get("name") in ENGINE_CONTAINERS), {}
    )
    started = instant(_ran(mapping(engine.get("state"))).get("startedAt"))
    if started is None:
        return marks
    if engine.get("restartCount"):  # what was between is not its image alone: earlier runs
        marks[-1] = (_UNKNOWN, marks[-1][1])
    return [*marks, (PROCESS, started)]


def _stays(status: Object) -> bool:
    """Whether an init container serves beside the engine (a sidecar): it fetches nothing."""
    return bool(status.get("started")) and "running" in mapping(status.get("state"))


def _ran(state: Object) -> Object:
    return mapping(state.get("running") or state.get("terminated"))


def true_since(status: Object, kind: str) -> float | None:
    """When a condition became true, in seconds since 1970; None where it is not, or nothing tells."""
    for each in mappings(status.get("conditions")):
        if each.get("type") == kind and each.get("status") == "True":
            return instant(each.get("lastTransitionTime"))
    return None


def instant(text: object) -> float | None:
    """A time of the API (RFC 3339) in seconds since 1970; None where it is none."""
    try:
        found = datetime.fromisoformat(str(text))
    except ValueError:
        return None
    return found.timestamp() if found.tzinfo else None
