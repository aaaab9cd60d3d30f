"""How far a service is, told from its object and its pods: what the controller has seen first, then Ready, then pods.

A Ready that belongs to an older generation, or stands in front of pods that crash, is not ready.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from modelberth.base.loose import mapping, mappings
from modelberth.base.text import printable, shorten
from modelberth.timeline.pod_state import PodLog, PodState, pod_state, progress
from modelberth.timeline.pod_times import QUEUE, StageTimes, true_since
from modelberth.timeline.service_facts import ServiceFacts, service_facts
from modelberth.timeline.stages import READY

State = Literal["absent", "progressing", "ready", "failing", "stopped", "terminating"]
_STOP = "serving.kserve.io/stop"
_LONGEST = 240
Object = Mapping[str, Any]


@dataclass(frozen=True)
class ServiceState:
    """One service.

    Attributes:
        name: of it.
        namespace: that it is in.
        kind: InferenceService or LLMInferenceService.
        state: what to think of it.
        stage: that its slowest pod is in; empty where there is none.
        why: in plain words, with names and numbers; empty when it just goes on.
        url: where it answers; empty before.
        ready: pods that answer.
        replicas: pods that there are.
        restarts: of all its pods.
        pods: each of them.
        created: when; None where the object does not say.
        facts: what it serves, and with what.
        times: how long the stages of its slowest pod took, and since when it is in this one.
    """

    name: str
    namespace: str
    kind: str
    state: State
    stage: str = ""
    why: str = ""
    url: str = ""
    ready: int = 0
    replicas: int = 0
    restarts: int = 0
    pods: tuple[PodState, ...] = ()
    created: datetime | None = None
    facts: ServiceFacts = field(default_factory=ServiceFacts)
    times: StageTimes = field(default_factory=StageTimes)

    @property
    def gpus(self) -> int:
        """GPUs that its pods ask for."""
        return sum(each.gpus for each in self.pods)

    @property
    def key(self) -> tuple[str, str]:
        """What tells it from others: an InferenceService and an LLMInferenceService may have one name."""
        return self.kind, self.name

    @property
    def is_settled(self) -> bool:
        """Whether it answers, or is stopped because somebody wants it so."""
        return self.state in {"ready", "stopped"}


def absent(name: str, namespace: str, kind: str = "InferenceService") -> ServiceState:
    """A service that is not there."""
    return ServiceState(name, namespace, kind, "absent", why="there is no such service")


def service_state(
    service: Object, pods: Sequence[Object], workloads: Sequence[Object] = (), logs: Mapping[str, PodLog] | None = None
) -> ServiceState:
    """The state of a service.

    Args:
        service: InferenceService or LLMInferenceService.
        pods: that belong to it.
        workloads: of Kueue that belong to it.
        logs: what was read beside its pods, by their names.
    """
    about, status, read = mapping(service.get("metadata")), mapping(service.get("status")), logs or {}
    alive = [each for each in pods if not mapping(each.get("metadata")).get("deletionTimestamp")]
    states = tuple(pod_state(each, read.get(_name(each)), _admitted(each, workloads)) for each in alive)
    state, stage, why = _judged(service, states, workloads)
    slowest = _slowest(states)
    return ServiceState(
        name=str(about.get("name", "")), namespace=str(about.get("namespace", "")), kind=str(service.get("kind", "")),
        state=state, stage=stage, why=why, url=_url(status), ready=sum(each.ready for each in states),
        replicas=len(states), restarts=sum(each.restarts for each in states), pods=states,
        created=_time(about.get("creationTimestamp")), facts=service_facts(service),
        times=slowest.times if slowest else StageTimes(),
    )  # fmt: skip


def _judged(service: Object, pods: Sequence[PodState], workloads: Sequence[Object]) -> tuple[State, str, str]:
    about, status = mapping(service.get("metadata")), mapping(service.get("status"))
    if about.get("deletionTimestamp"):
        waits = ", ".join(map(str, about.get("finalizers") or [])) or "its pods"
        return "terminating", "", _text(f"being deleted; waits for {waits}")
    if _is_stopped(service) and not pods:
        return "stopped", "", ""
    failing = next((each for each in pods if each.failing), None)
    if failing:
        stale = "Ready is stale: " if _ready(status).get("status") == "True" else ""
        return "failing", failing.stage, _text(f"{stale}{failing.why}")
    generation, seen = about.get("generation"), status.get("observedGeneration")
    if isinstance(generation, int) and isinstance(seen, int) and seen < generation:
        return "progressing", "", f"its controller has seen generation {seen} of {generation}"
    wanted = _wanted(service)
    if _ready(status).get("status") == "True" and len(pods) >= wanted and all(each.ready for each in pods):
        return "ready", READY, ""
    if pods and len(pods) < wanted and all(each.ready for each in pods):
        return "progressing", "", f"{len(pods)} of {wanted} pods are there"
    slowest = _slowest(pods)
    if slowest is None:
        return _without_pods(status)
    return "progressing", slowest.stage, _why(slowest, status, workloads)


def _without_pods(status: Object) -> tuple[State, str, str]:
    message = _text(str(_ready(status).get("message") or ""))
    failure = mapping(mapping(status.get("modelStatus")).get("lastFailureInfo")).get("message")
    if failure:
        return "failing", "", _text(str(failure))
    return "progressing", "", message or "no pod yet"


def _why(pod: PodState, status: Object, workloads: Sequence[Object]) -> str:
    if pod.stage == QUEUE:
        return _queue(workloads) or pod.why
    if pod.stage == READY:
        return _text(str(_ready(status).get("message") or "its pods are ready; the service says no such thing yet"))
    return pod.why


def _queue(workloads: Sequence[Object]) -> str:
    """What Kueue says of the quota that is missing."""
    for each in workloads:
        for condition in mappings(mapping(each.get("status")).get("conditions")):
            if condition.get("type") == "QuotaReserved" and condition.get("status") == "False":
                queue = mapping(each.get("spec")).get("queueName", "")
                return _text(f"queue {queue}: {condition.get('message', '')}")
    return ""


def _slowest(pods: Sequence[PodState]) -> PodState | None:
    """The pod that is told of: the one that fails, else the one that is least far."""
    failing = next((each for each in pods if each.failing), None)
    return failing or min(pods, key=lambda each: (progress(each.stage), -(each.times.since or 0.0)), default=None)


def _admitted(pod: Object, workloads: Sequence[Object]) -> float | None:
    """When Kueue let a pod go; None where it has no workload, or has not."""
    about = mapping(pod.get("metadata"))
    for each in workloads:
        owners = mappings(mapping(each.get("metadata")).get("ownerReferences"))
        if any(owner.get("uid") == about.get("uid") or owner.get("name") == about.get("name") for owner in owners):
            return true_since(mapping(each.get("status")), "Admitted")
    return None


def _is_stopped(service: Object) -> bool:
    annotations = mapping(mapping(service.get("metadata")).get("annotations"))
    spec = mapping(service.get("spec"))
    replicas = mapping(spec.get("predictor")).get("minReplicas", spec.get("replicas"))
    return str(annotations.get(_STOP, "")).lower() == "true" or replicas == 0


def _wanted(service: Object) -> int:
    """Pods that there must be at least; 1 where the service does not say."""
    spec = mapping(service.get("spec"))
    replicas = mapping(spec.get("predictor")).get("minReplicas", spec.get("replicas"))
    return max(1, replicas) if isinstance(replicas, int) else 1


def _ready(status: Object) -> Object:
    return next((each for each in mappings(status.get("conditions")) if each.get("type") == "Ready"), {})


def _url(status: Object) -> str:
    addresses = mappings(status.get("addresses"))
    url = (
        status.get("url") or mapping(status.get("address")).get("url") or (addresses[0].get("url") if addresses else "")
    )
    return _text(str(url or ""))


def _name(document: Object) -> str:
    return str(mapping(document.get("metadata")).get("name", ""))


def _time(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


def _text(text: str) -> str:
    return shorten(printable(text), _LONGEST)
