"""What Kubernetes objects say, by their fields: events, conditions, states of containers and pods.

Plain objects as the API gives them, of any kind and in any order. What has passed is no finding: an event about a pod
that is ready by now, a probe that failed before the pod was ready, a pod that found its node after all.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from modelberth.base.loose import mapping, mappings
from modelberth.base.text import printable
from modelberth.findings.diagnosis.described import LINE, SOURCE
from modelberth.findings.diagnosis.finding import Evidence
from modelberth.findings.diagnosis.ranking import Candidate
from modelberth.findings.diagnosis.signature import (
    ConditionMatch,
    ContainerMatch,
    EventMatch,
    Match,
    PodMatch,
    Signature,
)
from modelberth.findings.diagnosis.wording import Value, safe

Object = Mapping[str, Any]
MOST_MESSAGE = 4096
_SHOWN = 400
_SCHEDULING = frozenset({"FailedScheduling", "NotTriggerScaleUp"})
_BEFORE_START = frozenset({"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "ErrImagePull"})
_STATES = ("waiting", "running", "terminated")


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


@dataclass(frozen=True)
class _Named:
    """An object with its name: `Pod private-ai/mistral-0`."""

    kind: str
    namespace: str
    name: str
    content: Object

    @property
    def text(self) -> str:
        place = f"{self.namespace}/{self.name}" if self.namespace else self.name
        return printable(f"{self.kind} {place}")


def _named(content: Object) -> _Named:
    metadata = mapping(content.get("metadata"))
    return _Named(
        _text(content.get("kind")), _text(metadata.get("namespace")), _text(metadata.get("name")), content
    )  # fmt: skip


@dataclass
class _Found:
    groups: dict[str, str]
    evidence: Evidence
    about: _Named
    count: int = 1


@dataclass(frozen=True)
class Pods:
    """The pods among the objects, for what events say about them."""

    by_name: Mapping[tuple[str, str], Object] = field(default_factory=dict)
    settled: frozenset[tuple[str, str, str]] = frozenset()
    """Other objects, by kind, namespace and name, that are well by now: what events say of them has passed."""

    def restarts(self, namespace: str, name: str) -> int:
        """Restarts of a pod's containers; 0 for one that is not there."""
        pod = self.by_name.get((namespace, name))
        return sum(_whole(each.get("restartCount")) for each in _statuses(pod)) if pod else 0

    def is_over(self, reason: str, namespace: str, name: str) -> bool:
        """Whether what an event says about a pod has passed: the pod is ready, or on a node after all."""
        pod = self.by_name.get((namespace, name))
        if pod is None:
            return False
        if _is_ready(pod):
            return True
        if reason in _BEFORE_START and any(_has_run(each) for each in _statuses(pod)):
            return True
        return reason in _SCHEDULING and bool(mapping(pod.get("spec")).get("nodeName"))


_SETTLED = {
    "Workload": ("Admitted", "QuotaReserved"),
    "InferenceService": ("Ready",),
    "LLMInferenceService": ("Ready",),
    "Node": ("Ready",),
}


def _is_settled(each: _Named) -> bool:
    """Whether an object that is no pod is as it should be."""
    status = mapping(each.content.get("status"))
    if each.kind in {"ReplicaSet", "Deployment"}:
        wanted = _whole(status.get("replicas"))
        return wanted > 0 and _whole(status.get("readyReplicas")) >= wanted
    if each.kind == "PersistentVolumeClaim":
        return status.get("phase") == "Bound"
    wanted_types = _SETTLED.get(each.kind, ())
    true = {_text(one.get("type")) for one in mappings(status.get("conditions")) if one.get("status") == "True"}
    return bool(wanted_types) and bool(true & set(wanted_types))


def _statuses(pod: Object) -> list[Mapping[str, Any]]:
    status = mapping(pod.get("status"))
    return [*mappings(status.get("initContainerStatuses")), *mappings(status.get("containerStatuses"))]


def _has_run(status: Mapping[str, Any]) -> bool:
    """Whether a container has ever been started."""
    states = (mapping(status.get("state")), mapping(status.get("lastState")))
    return any(state.get("running") or state.get("terminated") for state in states)


def _is_ready(pod: Object) -> bool:
    conditions = mappings(mapping(pod.get("status")).get("conditions"))
    return any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)


def object_candidates(objects: Iterable[Object], signatures: Iterable[Signature]) -> list[Candidate]:
    """What objects raise.

    Args:
        objects: as the API gives them, each with its kind.
        signatures: those that are asked for.
    """
    named = [_named(each) for each in objects]
    pods = Pods(
        {(each.namespace, each.name): each.content for each in named if each.kind == "Pod"},
        frozenset((each.kind, each.namespace, each.name) for each in named if _is_settled(each)),
    )
    found = []
    for signature in signatures:
        hits = [hit for match in signature.match if match.log is None for hit in _hits(match, named, pods)]
        if hits:
            found.append(_candidate(signature, hits, pods))
    return found


def _candidate(signature: Signature, hits: Sequence[_Found], pods: Pods) -> Candidate:
    groups: dict[str, str] = {}
    for each in hits:
        groups = {**each.groups, **groups}
    return Candidate(
        signature,
        groups,
        _context(hits[0].about, pods),
        tuple(each.evidence for each in hits[:3]),
        (-1, 0),
        "object",
        sum(each.count for each in hits),
    )


def _context(about: _Named, pods: Pods) -> dict[str, Value]:
    content = about.content
    involved = mapping(content.get("involvedObject") or content.get("regarding"))
    kind, name = (_text(involved.get("kind")), _text(involved.get("name"))) if involved else (about.kind, about.name)
    namespace = about.namespace
    found = {"object": f"{kind} {name}", "namespace": namespace}
    if kind == "Pod":
        found["pod"] = name
        pod = content if about.kind == "Pod" else pods.by_name.get((namespace, name), {})
        found["node"] = _text(mapping(pod.get("spec")).get("nodeName"))
    return {key: Value(printable(text), printable(text)) for key, text in found.items() if text}


def _hits(match: Match, objects: Sequence[_Named], pods: Pods) -> Iterator[_Found]:
    for each in objects:
        if match.event and each.kind == "Event":
            yield from _event(match.event, each, pods)
        elif match.condition and each.kind in (match.condition.kind, ""):  # pasted text may not say of what
            yield from _condition(match.condition, each)
        elif match.pod_container and each.kind == "Pod":
            yield from _container(match.pod_container, each)
        elif match.pod and each.kind == "Pod":
            yield from _pod(match.pod, each)


def _groups(pattern: str | None, message: str) -> dict[str, str] | None:
    """What a pattern captures anywhere in a message; None when it does not match, nothing when there is none."""
    if pattern is None:
        return {}
    found = _compiled(pattern).search(message[:MOST_MESSAGE])
    return None if found is None else {name: text for name, text in found.groupdict().items() if text is not None}


def _found(about: _Named, groups: dict[str, str], source: str, text: str, time: str, count: int = 1) -> _Found:
    line = _whole(about.content.get(LINE))
    if line:  # a log shows the object
        source = _text(about.content.get(SOURCE))
    return _Found(groups, Evidence(printable(source), line, safe(text, _SHOWN), time), about, count)


def _event(wanted: EventMatch, event: _Named, pods: Pods) -> Iterator[_Found]:
    content = event.content
    involved = mapping(content.get("involvedObject") or content.get("regarding"))
    message = _text(content.get("message") or content.get("note"))
    component = _text(content.get("reportingComponent") or content.get("reportingController"))
    component = component or _text(mapping(content.get("source")).get("component"))
    count = max(1, _whole(content.get("count")), _whole(mapping(content.get("series")).get("count")))
    kind, name = _text(involved.get("kind")), _text(involved.get("name"))
    namespace = _text(involved.get("namespace")) or event.namespace
    reason = _text(content.get("reason"))
    if reason != wanted.reason or (wanted.kind and kind != wanted.kind):
        return
    if (wanted.component and component != wanted.component) or count < wanted.count:
        return
    if kind == "Pod":
        restarts = max(pods.restarts(namespace, name), _whole(content.get("restarts")))
        if pods.is_over(reason, namespace, name) or restarts < wanted.restarts:
            return
    elif wanted.restarts or (kind, namespace, name) in pods.settled or (kind, "", name) in pods.settled:
        return
    groups = _groups(wanted.message, message)
    if groups is not None:
        time = _text(content.get("lastTimestamp") or content.get("eventTime") or content.get("firstTimestamp"))
        about = f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"
        yield _found(event, groups, f"Event of {about}", f"{reason}: {message}", time, count)


def _condition(wanted: ConditionMatch, about: _Named) -> Iterator[_Found]:
    for each in mappings(mapping(about.content.get("status")).get("conditions")):
        if each.get("type") != wanted.type or (wanted.status and each.get("status") != wanted.status):
            continue
        if wanted.reason and each.get("reason") != wanted.reason:
            continue
        message = _text(each.get("message"))
        groups = _groups(wanted.message, message)
        if groups is not None:
            said = f"{wanted.type}={_text(each.get('status'))} {_text(each.get('reason'))}: {message}"
            yield _found(about, groups, about.text, said, _text(each.get("lastTransitionTime")))


def _container(wanted: ContainerMatch, pod: _Named) -> Iterator[_Found]:
    status = mapping(pod.content.get("status"))
    for init, key in ((True, "initContainerStatuses"), (False, "containerStatuses")):
        for each in mappings(status.get(key)):
            if (wanted.init is not None and wanted.init != init) or (wanted.name and each.get("name") != wanted.name):
                continue
            if _whole(each.get("restartCount")) < wanted.restarts:
                continue
            # What a container died of before does not count once it is ready again.
            states = ["state"] if each.get("ready") is True else ["state", "lastState"]
            found = next((hit for name in states if (hit := _state(wanted, pod, each, name))), None)
            if found:
                yield found


def _state(wanted: ContainerMatch, pod: _Named, status: Mapping[str, Any], key: str) -> _Found | None:
    for state in _STATES:
        fields = mapping(mapping(status.get(key)).get(state))
        if not fields or (wanted.state and state != wanted.state):
            continue
        if wanted.reason and fields.get("reason") != wanted.reason:
            continue
        if wanted.exit_code is not None and fields.get("exitCode") != wanted.exit_code:
            continue
        message = _text(fields.get("message"))
        groups = _groups(wanted.message, message)
        if groups is None:
            continue
        name = _text(status.get("name"))
        code = f", exit code {fields['exitCode']}" if isinstance(fields.get("exitCode"), int) else ""
        said = f"container {name}: {state} {_text(fields.get('reason'))}{code}" + (f": {message}" if message else "")
        restarts = max(1, _whole(status.get("restartCount")))
        found = _found(pod, {"container": name, **groups}, pod.text, said, _text(fields.get("finishedAt")), restarts)
        line = _whole(status.get(LINE)) or found.evidence.line
        return replace(found, evidence=replace(found.evidence, line=line))
    return None


def _pod(wanted: PodMatch, pod: _Named) -> Iterator[_Found]:
    status = mapping(pod.content.get("status"))
    if (wanted.phase and status.get("phase") != wanted.phase) or (
        wanted.reason and status.get("reason") != wanted.reason
    ):
        return
    gates = [_text(each.get("name")) for each in mappings(mapping(pod.content.get("spec")).get("schedulingGates"))]
    if wanted.gate and wanted.gate not in gates:
        return
    message = _text(status.get("message"))
    groups = _groups(wanted.message, message)
    if groups is not None:
        gated = f", waits for {', '.join(gates)}" if gates else ""
        said = f"{_text(status.get('phase'))} {_text(status.get('reason'))}{gated}: {message}"
        yield _found(pod, groups, pod.text, said, "")


@dataclass(frozen=True)
class LastWords:
    """What a container left when it ended: the tail of its log, where the platform keeps it in the pod's status.

    Attributes:
        name: shown as the source of evidence.
        pod: name of the pod; empty where it is not known.
        container: likewise.
        text: the words.
    """

    name: str
    pod: str
    container: str
    text: str


def last_words(objects: Iterable[Object]) -> Iterator[LastWords]:
    """Messages of ended containers, and of the last failure that an InferenceService tells of.

    KServe sets terminationMessagePolicy FallbackToLogsOnError, so these are lines of logs and matched as such. What a
    container said before a restart after which it is ready has passed.
    """
    for each in map(_named, objects):
        if each.kind == "Pod":
            for status in _statuses(each.content) if not _is_ready(each.content) else ():
                yield from _words_of(each, status)
        elif each.kind in ("InferenceService", "LLMInferenceService"):
            info = mapping(mapping(mapping(each.content.get("status")).get("modelStatus")).get("lastFailureInfo"))
            if message := _text(info.get("message")):
                yield LastWords(f"{each.text}, last failure", "", "", message)


def _words_of(pod: _Named, status: Mapping[str, Any]) -> Iterator[LastWords]:
    if status.get("ready") is True:
        return
    name = _text(status.get("name"))
    for key in ("state", "lastState"):
        ended = mapping(mapping(status.get(key)).get("terminated"))
        message = _text(ended.get("message"))
        if message and ended.get("exitCode") != 0:
            yield LastWords(f"{pod.text}, last words of {name}", pod.name, name, message)
            return
