"""How far a pod of a service is, told from its object alone: gates, conditions, states of containers.

Reasons and gates are the kubelet's, the scheduler's and Kueue's own names (Kubernetes API, kueue.x-k8s.io/admission).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from modelberth.base.loose import mapping, mappings
from modelberth.base.text import printable, shorten
from modelberth.timeline.pod_times import (
    ADMISSION_GATE,
    DOWNLOAD,
    ENGINE_CONTAINERS,
    IMAGE,
    QUEUE,
    SCHEDULING,
    StageTimes,
    instant,
    stage_times,
)
from modelberth.timeline.stages import PROCESS, READY, StartUp
from modelberth.timeline.transfer import Transfer, transfer_of

STAGES_BEFORE_ENGINE = (QUEUE, SCHEDULING, IMAGE, DOWNLOAD)
GPU = "nvidia.com/gpu"
_PULL = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "RegistryUnavailable"})
_BROKEN = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
_NODES = re.compile(r"0/(?P<all>\d{1,6}) nodes are available: (?P<why>.{1,1000})", re.S)
_LONGEST = 240

Object = Mapping[str, Any]


@dataclass(frozen=True)
class PodLog:
    """What was read beside a pod's object.

    Attributes:
        start: what the engine's log says of its last start; None where it was not read.
        restarts: of all containers when that start was read: it tells nothing of a later one.
        fetched: the last line of what fetches the weights.
        image_bytes: of the engine's image, as the kubelet told when it had pulled it; None where it did not.
    """

    start: StartUp | None = None
    restarts: int = 0
    fetched: str = ""
    image_bytes: int | None = None


@dataclass(frozen=True)
class PodState:
    """One pod.

    Attributes:
        name: of it.
        uid: of it.
        stage: that it is in, or was in when it failed.
        failing: whether it will not go on by itself.
        why: in plain words; empty when it just goes on.
        ready: whether it answers.
        restarts: of all its containers.
        node: that it runs on; empty before it has one.
        engine: name of the engine's container once it has run; empty before.
        runs: whether it does; otherwise its log is that of its last run.
        started: when it was, in seconds since 1970; None where nothing tells.
        fetcher: name of the container that fetches the weights, while it runs.
        gpus: that its containers ask for.
        image: of the engine.
        image_bytes: of it; None where it is not known.
        transfer: how far the download is; None where nothing tells.
        times: how long its stages took, and since when it is in this one.
    """

    name: str
    stage: str
    uid: str = ""
    failing: bool = False
    why: str = ""
    ready: bool = False
    restarts: int = 0
    node: str = ""
    engine: str = ""
    runs: bool = False
    started: float | None = None
    fetcher: str = ""
    gpus: int = 0
    image: str = ""
    image_bytes: int | None = None
    transfer: Transfer | None = None
    times: StageTimes = field(default_factory=StageTimes)


def pod_state(pod: Object, log: PodLog | None = None, admitted: float | None = None) -> PodState:
    """The state of a pod.

    Args:
        pod: as the API server has it.
        log: what was read beside it; None for nothing.
        admitted: when Kueue admitted it, in seconds since 1970; None where it has no workload.
    """
    about, status, spec = mapping(pod.get("metadata")), mapping(pod.get("status")), mapping(pod.get("spec"))
    log = log or PodLog()
    containers = [*mappings(status.get("initContainerStatuses")), *mappings(status.get("containerStatuses"))]
    restarts = sum(int(each.get("restartCount") or 0) for each in containers)
    start = log.start if log.restarts == restarts else None
    stage, failing, why = _progress(spec, status)
    engine = next((each for each in containers if _is_engine(each) and _has_run(each)), {})
    fetcher = next((str(each["name"]) for each in mappings(status.get("initContainerStatuses")) if _fetches(each)), "")
    asked = mappings(spec.get("containers"))
    image = next((str(each.get("image") or "") for each in asked if _is_engine(each)), "")
    found = PodState(
        name=str(about.get("name", "")), uid=str(about.get("uid", "")), stage=stage, failing=failing, why=why,
        ready=stage == READY, restarts=restarts,
        started=instant(mapping(_state(engine).get("running")).get("startedAt")),
        node=str(spec.get("nodeName") or ""), engine=str(engine.get("name", "")), runs="running" in _state(engine),
        fetcher=fetcher if stage == DOWNLOAD and not failing else "", gpus=sum(map(_gpus, asked)), image=image,
        image_bytes=log.image_bytes, times=stage_times(pod, start, admitted),
    )  # fmt: skip
    return _with_log(found, start, log.fetched)


def _with_log(pod: PodState, start: StartUp | None, fetched: str) -> PodState:
    """What the pod's own words add: the engine's stage, the bytes that have come, the image that is pulled."""
    if pod.stage == PROCESS and start is not None and start.stage != READY:
        return replace(pod, stage=start.stage)
    if pod.fetcher and fetched:
        return replace(pod, why=_text(fetched), transfer=transfer_of(fetched))
    if pod.stage == IMAGE and not pod.why and pod.image:
        return replace(pod, why=_text(f"pulling {pod.image}"))
    return pod


def progress(stage: str) -> int:
    """How far a stage is on the way of a whole start, for comparing."""
    return _order().get(stage, 0)


@cache
def _order() -> dict[str, int]:
    return {stage: number for number, stage in enumerate([*STAGES_BEFORE_ENGINE, *StartUp(0.0).order])}


def _progress(spec: Object, status: Object) -> tuple[str, bool, str]:
    if status.get("phase") == "Failed":
        said = status.get("message") or status.get("reason") or "the pod has failed"
        return PROCESS, True, _text(f"{status.get('reason') or 'Failed'}: {said}")
    if any(each.get("name") == ADMISSION_GATE for each in mappings(spec.get("schedulingGates"))):
        return QUEUE, False, "waiting for quota of its queue"
    scheduled = _condition(status, "PodScheduled")
    if scheduled.get("status") == "False":
        return SCHEDULING, False, _scheduling(str(scheduled.get("message") or ""))
    if not spec.get("nodeName"):
        return SCHEDULING, False, ""
    for each in mappings(status.get("initContainerStatuses")):
        if (found := _of_init(each)) is not None:
            return found
    engines = [each for each in mappings(status.get("containerStatuses")) if _is_engine(each)]
    others = [each for each in mappings(status.get("containerStatuses")) if not _is_engine(each)]
    for each in [*engines, *others]:
        if (found := _of_container(each)) is not None:
            return found
    return (READY, False, "") if _condition(status, "Ready").get("status") == "True" else (PROCESS, False, "")


def _of_init(status: Object) -> tuple[str, bool, str] | None:
    """Where an init container holds the pod up; None once it has done its work or serves beside the engine."""
    state = _state(status)
    if trouble := _trouble(status, DOWNLOAD):
        return trouble
    ended = mapping(state.get("terminated"))
    if "terminated" in state:
        failed = ended.get("exitCode") not in (0, None)
        return (DOWNLOAD, True, _ended(status, ended)) if failed else None
    if "running" in state:
        return None if status.get("started") else (DOWNLOAD, False, "")
    reason = mapping(state.get("waiting")).get("reason")
    return (IMAGE if reason in {"ContainerCreating", "PodInitializing", None} else DOWNLOAD), False, ""


def _of_container(status: Object) -> tuple[str, bool, str] | None:
    state = _state(status)
    if trouble := _trouble(status, PROCESS):
        return trouble
    if "waiting" in state:
        return IMAGE, False, ""
    if "terminated" in state:
        return PROCESS, True, _ended(status, mapping(state["terminated"]))
    return None if status.get("ready") else (PROCESS, False, "")


def _trouble(status: Object, stage: str) -> tuple[str, bool, str] | None:
    waiting = mapping(_state(status).get("waiting"))
    reason = str(waiting.get("reason") or "")
    if reason in _PULL:
        return (
            IMAGE,
            True,
            _text(f"the image of {status.get('name')} cannot be pulled: {waiting.get('message') or reason}"),
        )
    if reason in _BROKEN:
        return IMAGE, True, _text(f"{status.get('name')} cannot be started: {waiting.get('message') or reason}")
    if reason == "CrashLoopBackOff":
        last = mapping(mapping(status.get("lastState")).get("terminated"))
        return stage, True, _ended(status, last)
    return None


def _ended(status: Object, ended: Object) -> str:
    restarts = int(status.get("restartCount") or 0)
    again = f", {restarts} restarts" if restarts > 1 else ", 1 restart" if restarts else ""
    how = "ran out of memory (OOMKilled)" if ended.get("reason") == "OOMKilled" else f"ended with {_code(ended)}"
    return _text(f"{status.get('name')} {how}{again}")


def _code(ended: Object) -> str:
    return f"exit code {ended['exitCode']}" if "exitCode" in ended else "no exit code known"


def _scheduling(message: str) -> str:
    """`no node fits (4 there are): 1 Insufficient nvidia.com/gpu, ...`."""
    match = _NODES.match(message)
    if not match:
        return _text(message)
    why = match["why"].partition(". preemption:")[0].rstrip(". ")
    return _text(f"no node fits ({match['all']} there are): {why}")


def _is_engine(status: Object) -> bool:
    return status.get("name") in ENGINE_CONTAINERS


def _has_run(status: Object) -> bool:
    return "running" in _state(status) or "terminated" in _state(status) or bool(status.get("restartCount"))


def _gpus(container: Object) -> int:
    asked = str(mapping(mapping(container.get("resources")).get("limits")).get(GPU) or "")
    return int(asked) if asked.isdigit() else 0


def _fetches(status: Object) -> bool:
    return "running" in _state(status) and not status.get("started")


def _state(status: Object) -> Object:
    return mapping(status.get("state"))


def _condition(status: Object, kind: str) -> Object:
    return next((each for each in mappings(status.get("conditions")) if each.get("type") == kind), {})


def _text(text: str) -> str:
    return shorten(printable(text), _LONGEST)
