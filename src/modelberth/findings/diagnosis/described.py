"""Objects out of what people paste: `kubectl describe`, `kubectl get events`, `kubectl get pods`, pieces of `-o yaml`.

Such text stands between log lines and in issue threads. What it says is turned into the objects that the API would have
given, as far as it shows them, so the same fields are matched; `line` of the source goes with each of them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from modelberth.base.errors import SpecError
from modelberth.base.yamlio import read_documents
from modelberth.timeline.log_entry import cleaned

MOST_BYTES = 4 << 20
"""Bytes of a log that are looked at: nobody describes a pod after that."""
LINE = "modelberth.dev/line"
SOURCE = "modelberth.dev/source"
"""Keys that such an object has beside those of the API: where it was said."""

_AGE = r"(?:<unknown>|<invalid>|\d{1,6}[smhdy](?:\d{1,6}[smhd])?)"
# Warning  FailedScheduling  3m (x12 over 10m)  default-scheduler  0/7 nodes are available
_DESCRIBED = re.compile(
    rf"\s*(?P<type>Normal|Warning)\s+(?P<reason>[A-Z]\w{{2,60}})\s+{_AGE}(?: \(x(?P<count>\d{{1,9}}) over {_AGE}\))?\s+"
    r"(?P<from>[a-z][\w./-]{2,100}(?:, [\w.-]{1,100})?)\s+(?P<message>\S.*)"
)
# 2m11s  Warning  FailedScheduling  pod/m-0  0/7 nodes are available; with -A the namespace stands first
_LISTED = re.compile(
    rf"\s*(?:[a-z0-9-]{{1,63}}\s+)?(?:{_AGE}|\d{{4}}-\d\d-\d\dT[\d:]{{8}}Z)"
    rf"(?: \(x(?P<count>\d{{1,9}}) over {_AGE}\))?\s+"
    r"(?P<type>Normal|Warning)\s+(?P<reason>[A-Z]\w{2,60})\s+(?P<object>[a-z][\w.]{1,60}/[\w.-]{1,253})\s+(?P<message>\S.*)"
)
# m-predictor-7d9-x  0/1  Init:OOMKilled  3 (2m ago)  10m
_POD = re.compile(
    r"\s*(?:[a-z0-9-]{1,63}\s+)?(?P<name>[a-z0-9][a-z0-9.-]{2,252})\s+\d{1,3}/\d{1,3}\s+(?P<init>Init:)?"
    r"(?P<status>[A-Z][A-Za-z]{4,60})\s+(?P<restarts>\d{1,6})(?:\s|$)"
)
_FIELD = re.compile(r"(?P<indent>\s*)(?:- )?(?P<key>[A-Za-z][\w -]{0,60}?):\s*(?P<value>\S.*)?$")
_STATES = {"waiting": "waiting", "running": "running", "terminated": "terminated"}
_TERMINATED = {"OOMKilled", "Error", "ContainerCannotRun", "Completed", "StartError", "DeadlineExceeded"}
_KINDS = {"pod": "Pod", "workload": "Workload", "inferenceservice": "InferenceService", "node": "Node",
          "replicaset": "ReplicaSet", "deployment": "Deployment", "persistentvolumeclaim": "PersistentVolumeClaim",
          "job": "Job"}  # fmt: skip
_SIGNS = (b"Warning ", b"Normal ", b"eason:", b"conditions:", b"apiVersion", b'"kind"', b" 0/")
"""One of these stands in any such text."""
_KUEUE = ("kueue-admission", "kueue-workload-controller")
_NODE_FOUND = ("FailedScheduling", "NotTriggerScaleUp")
_BEGUN = (*_NODE_FOUND, "FailedMount", "FailedAttachVolume", "Failed", "ErrImagePull", "FailedCreatePodSandBox")
_SETTLES = {
    "Scheduled": _NODE_FOUND, "Started": _BEGUN, "Pulled": ("Failed", "ErrImagePull"),
    "Admitted": ("Pending",), "QuotaReserved": ("Pending",),
}  # fmt: skip
"""Reasons of events, and those of earlier ones about the same object that have passed with them."""
_READY = re.compile(r"\s+Ready\s+(?P<status>True|False)\s*$")
_CONDITION_KEYS = {"type", "status", "reason", "message"}
Object = dict[str, Any]


def described_objects(content: bytes, source: str) -> list[Object]:
    """The objects that a text shows.

    Args:
        content: the first bytes of a log; what is past MOST_BYTES is not looked at.
        source: name of the log.
    """
    if not any(sign in content for sign in _SIGNS):
        return []
    text = content[:MOST_BYTES].decode("utf-8", "replace")
    if whole := _documents(text, source):
        return whole
    reader = _Reader(source)
    for number, line in enumerate(text.split("\n"), start=1):
        reader.feed(line, number)
    return reader.objects()


def shows_an_event(line: str) -> bool:
    """Whether a line is one of `kubectl describe` or `kubectl get events` that tells of an event."""
    return ("arning" in line or "ormal" in line) and bool(_DESCRIBED.match(line) or _LISTED.match(line))


def _documents(text: str, source: str) -> list[Object]:
    """The objects of a text that is YAML or JSON as a whole."""
    start = text.lstrip()[:200]
    if not (start.startswith(("apiVersion:", "kind:", "---")) or (start.startswith("{") and '"kind"' in text[:4000])):
        return []
    try:
        found = (
            [json.loads(text)] if start.startswith("{") else [each.data for each in read_documents(text.encode(), "")]
        )
    except (ValueError, RecursionError, SpecError):
        return []
    objects = [each for each in found if isinstance(each, dict)]
    items = [item for each in objects for item in _items(each)]
    return [{**each, SOURCE: source, LINE: 1} for each in items if isinstance(each.get("kind"), str)]


def _items(each: Object) -> list[Object]:
    items = each.get("items")
    return [item for item in items if isinstance(item, dict)] if isinstance(items, list) else [each]


@dataclass
class _Container:
    name: str
    line: int
    init: bool
    restarts: int = 0
    states: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass
class _Reader:
    """Text line by line; `describe` has sections, told by their first words and by indentation."""

    source: str
    kind: str = ""
    name: str = ""
    namespace: str = ""
    node: str = ""
    ready: str = ""
    events: list[Object] = field(default_factory=list)
    pods: list[Object] = field(default_factory=list)
    conditions: list[Object] = field(default_factory=list)
    containers: list[_Container] = field(default_factory=list)
    _section: str = ""
    _state: str = ""
    _block: dict[str, str] = field(default_factory=dict)
    _block_line: int = 0
    _gates: list[str] = field(default_factory=list)

    def feed(self, line: str, number: int) -> None:
        """Take a line."""
        if len(line) > 2000 or not line.strip():
            self._end_block()
            return
        line = cleaned(line)
        if shows_an_event(line) and (match := _DESCRIBED.match(line) or _LISTED.match(line)):
            self._event(match, number)
        elif match := _READY.match(line):
            self.ready = match["status"]
        elif match := _POD.match(line):
            self._listed_pod(match, number)
        elif match := _FIELD.match(line):
            self._field(len(match["indent"]), match["key"], (match["value"] or "").strip(), line, number)

    # --- events and tables -------------------------------------------------------------------------------------

    def _event(self, match: re.Match[str], number: int) -> None:
        groups = match.groupdict()
        kind, _, name = (groups.get("object") or "").partition("/")
        kind = _KINDS.get(kind.partition(".")[0], kind) or self.kind or "Pod"
        source = (groups.get("from") or "").partition(",")[0]
        message = groups["message"].strip()
        self.events.append(
            {
                "kind": "Event", "reason": groups["reason"], "message": message, "count": int(groups["count"] or 1),
                "source": {"component": source}, "metadata": {"namespace": self.namespace},
                "involvedObject": {"kind": kind, "name": name or self.name, "namespace": self.namespace},
                SOURCE: self.source, LINE: number,
            }
        )  # fmt: skip
        if source in _KUEUE or (kind == "Workload" and groups["reason"] == "Pending"):
            fields = {"type": "QuotaReserved", "status": "False", "reason": groups["reason"], "message": message}
            self._condition(fields, "Workload", number)

    def _listed_pod(self, match: re.Match[str], number: int) -> None:
        status, restarts = match["status"], int(match["restarts"])
        state = "terminated" if status in _TERMINATED else "waiting"
        if status in ("Running", "Completed", "Pending", "Terminating", "ContainerCreating", "PodInitializing"):
            return
        found = {"restartCount": restarts, "state": {state: {"reason": status}}}
        if status in ("SchedulingGated", "Evicted"):
            self._pod(
                {"phase": "Failed" if status == "Evicted" else "Pending", "reason": status}, match["name"], number
            )
            return
        key = "initContainerStatuses" if match["init"] else "containerStatuses"
        self._pod({key: [found]}, match["name"], number)

    def _pod(self, status: Object, name: str, number: int) -> None:
        gates = [{"name": "kueue.x-k8s.io/admission"}] if status.get("reason") == "SchedulingGated" else []
        self.pods.append(
            {
                "kind": "Pod", "metadata": {"name": name, "namespace": self.namespace}, "status": status,
                "spec": {"schedulingGates": gates}, SOURCE: self.source, LINE: number,
            }
        )  # fmt: skip

    # --- fields of describe and of YAML ------------------------------------------------------------------------

    def _field(self, indent: int, key: str, value: str, line: str, number: int) -> None:
        lower = key.lower().replace(" ", "")
        if indent == 0:
            self._top(lower, value)
        if lower in ("state", "laststate") and self._start_state(lower, value):
            return
        if lower in _STATES and not value:
            self._state_of("state", lower, number)
        elif self._state and lower in ("reason", "exitcode", "message"):
            self._state_field(lower, value)
        elif lower == "restartcount" and value.isdigit() and self.containers:
            self.containers[-1].restarts = int(value)
        elif lower == "name" and indent and self.containers and not self.containers[-1].name:
            self.containers[-1].name = value  # YAML: keys are in order of the alphabet
        if line.lstrip().startswith("- "):
            self._end_block()
        self._block_field(lower, value, number)
        if indent and not value and re.fullmatch(r"[a-z][a-z0-9-]*", key) and self._section.endswith("containers"):
            self.containers.append(_Container(key, number, self._section == "initcontainers"))
            self._state = ""

    def _top(self, key: str, value: str) -> None:
        if key == "kind" and value:
            self.kind = value
        elif key == "name" and value:
            self.name = value.split()[0]
        elif key == "namespace" and value:
            self.namespace = value.split()[0]
        if key == "node" and value not in ("", "<none>"):
            self.node = value.partition("/")[0]
        if not value:
            self._section, self._state = key, ""
        if key == "initcontainers" or key == "containers":
            self.kind = self.kind or "Pod"

    def _start_state(self, key: str, value: str) -> bool:
        """`Last State:  Terminated` of describe; `state:` of YAML has its word on the next line."""
        word = value.lower()
        self._state = ""
        if word in _STATES:
            self._state_of("lastState" if key == "laststate" else "state", word, 0)
        return word in _STATES

    def _state_of(self, key: str, word: str, number: int) -> None:
        if not self.containers:
            self.containers.append(_Container("", number, False))
        self.containers[-1].line = number or self.containers[-1].line
        self.containers[-1].states.setdefault(key, {})[word] = {}
        self._state = f"{key}/{word}"

    def _state_field(self, key: str, value: str) -> None:
        name, _, word = self._state.partition("/")
        value = value.strip("\"'")
        fields = self.containers[-1].states[name][word]
        if key == "exitcode":
            if value.isdigit():
                fields["exitCode"] = int(value)
        elif value:
            fields.setdefault(key, value)

    def _block_field(self, key: str, value: str, number: int) -> None:
        if key not in _CONDITION_KEYS or not value:
            return
        if key in self._block:
            self._end_block()
        self._block_line = self._block_line or number
        self._block[key] = value.strip("\"'")

    def _end_block(self) -> None:
        block, line = self._block, self._block_line
        self._block, self._block_line = {}, 0
        if "type" in block and block.get("status") in ("True", "False", "Unknown"):
            self._condition(block, self.kind, line)

    def _condition(self, fields: dict[str, str], kind: str, number: int) -> None:
        self.conditions.append(
            {
                "kind": kind, "metadata": {"name": self.name, "namespace": self.namespace},
                "status": {"conditions": [fields]}, SOURCE: self.source, LINE: number,
            }
        )  # fmt: skip

    # --- the end -----------------------------------------------------------------------------------------------

    def objects(self) -> list[Object]:
        """What the text showed."""
        self._end_block()
        admitted = {event["reason"] for event in self.events} & {"Admitted", "QuotaReserved"}
        conditions = [] if admitted else self.conditions
        return [*self._passed(self.events), *self.pods, *conditions, *self._described_pod()]

    def _passed(self, events: Iterable[Object]) -> Iterator[Object]:
        """Events without those that a later one has settled: a pod that found its node after all."""
        last: dict[tuple[str, str], int] = {}
        for number, event in enumerate(self.events):
            for settled in _SETTLES.get(event["reason"], ()):
                last[event["involvedObject"]["name"], settled] = number
        killed = sum(event["count"] for event in self.events if event["reason"] in ("Killing", "BackOff"))
        for number, event in enumerate(events):
            if number > last.get((event["involvedObject"]["name"], event["reason"]), -1):
                yield {**event, "restarts": killed}

    def _described_pod(self) -> Iterator[Object]:
        statuses: dict[str, list[Object]] = {"containerStatuses": [], "initContainerStatuses": []}
        for each in self.containers:
            key = "initContainerStatuses" if each.init else "containerStatuses"
            statuses[key].append(
                {"name": each.name, "restartCount": each.restarts, LINE: each.line, **each.states}
            )  # fmt: skip
        if self.ready:
            statuses["conditions"] = [{"type": "Ready", "status": self.ready}]
        if self.ready or any(each.states for each in self.containers):
            yield {
                "kind": "Pod", "metadata": {"name": self.name, "namespace": self.namespace}, "status": statuses,
                "spec": {"nodeName": self.node}, SOURCE: self.source, LINE: 1,
            }  # fmt: skip
