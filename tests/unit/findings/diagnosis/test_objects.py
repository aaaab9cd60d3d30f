"""Events, conditions and states of containers and pods are matched by their fields, and not once they have passed."""

from __future__ import annotations

from typing import Any

import pytest

from modelberth.findings.diagnosis.catalogue import read_all
from modelberth.findings.diagnosis.diagnose import Log, diagnose_objects

from .conftest import OUT_OF_MEMORY, SIGNATURES, ids

OBJECTS = r"""
- id: MB-SCH-001
  title: no node has enough GPUs
  severity: high
  stage: scheduling
  match:
    - event: {reason: FailedScheduling, message: "(?P<nodes>[0-9]+) Insufficient nvidia.com/gpu"}
  numbers: {nodes: count}
  cause: "{nodes} nodes have too few GPUs for {pod}."
  fix: "Free one."
  page: "page"
- id: MB-PRB-001
  title: killed while it loads
  severity: high
  match:
    - event: {reason: Unhealthy, message: "^Liveness probe failed", restarts: 1, count: 3}
  cause: "It was killed."
  fix: "Wait longer."
  page: "page"
- id: MB-SYS-001
  title: out of main memory
  severity: high
  match:
    - container: {state: terminated, reason: OOMKilled, init: false}
    - container: {exitCode: 137, name: kserve-container}
  cause: "{container} of {pod} on {node} took too much."
  fix: "More memory."
  page: "page"
- id: MB-KUE-001
  title: the quota is used up
  severity: medium
  match:
    - condition: {kind: Workload, type: QuotaReserved, status: "False", message: "insufficient unused quota for (?P<resource>\\S{1,60}) in flavor (?P<flavor>\\S{1,60}), (?P<more>[0-9]+) more needed"}
  numbers: {more: count}
  cause: "{more} more {resource} are needed in {flavor}."
  fix: "Wait."
  page: "page"
- id: MB-KUE-002
  title: not admitted
  severity: low
  root: 10
  match:
    - pod: {phase: Pending, gate: kueue.x-k8s.io/admission}
  cause: "Kueue has not admitted {object}."
  fix: "Look at the workload."
  page: "page"
- id: MB-DSK-001
  title: evicted
  severity: high
  match:
    - pod: {phase: Failed, reason: Evicted, message: "ephemeral-storage"}
  cause: "The node was full."
  fix: "Ask for disk."
  page: "page"
"""  # noqa: E501


@pytest.fixture(scope="module")
def known():
    return read_all([("o", OBJECTS.encode()), ("s", SIGNATURES.encode())])


def pod(name: str = "m-0", **status: Any) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "ai"},
        "spec": {"nodeName": status.pop("node", "")},
        "status": status,
    }


def event(reason: str, message: str, *, name: str = "m-0", count: int = 1) -> dict[str, Any]:
    involved = {"kind": "Pod", "name": name, "namespace": "ai"}
    return {
        "kind": "Event", "metadata": {"name": "e", "namespace": "ai"}, "involvedObject": involved, "reason": reason,
        "message": message, "count": count, "lastTimestamp": "2026-11-20T12:00:00Z",
    }  # fmt: skip


def container(ready: bool = False, restarts: int = 0, **states: Any) -> dict[str, Any]:
    return {"name": "kserve-container", "ready": ready, "restartCount": restarts, **states}


TOO_FEW = event("FailedScheduling", "0/7 nodes are available: 7 Insufficient nvidia.com/gpu.", count=4)
KILLED = {"terminated": {"reason": "OOMKilled", "exitCode": 137}}
IS_READY = [{"type": "Ready", "status": "True"}]


def test_an_event_with_its_numbers_pod_and_time(known):
    (found,) = diagnose_objects([pod(), TOO_FEW], (), known).findings
    assert (found.id, found.cause, found.count) == ("MB-SCH-001", "7 nodes have too few GPUs for m-0.", 4)
    place = found.evidence[0]
    assert (place.source, place.line, place.time) == ("Event of Pod ai/m-0", 0, "2026-11-20T12:00:00Z")
    assert place.text.startswith("FailedScheduling: 0/7 nodes")


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([TOO_FEW], ["MB-SCH-001"]),
        ([TOO_FEW, pod(node="n1")], []),  # it found its node after all
        ([TOO_FEW, pod(conditions=IS_READY)], []),
        ([event("FailedScheduling", "0/7 nodes are available: 7 Insufficient cpu.")], []),
        ([event("Unhealthy", "Liveness probe failed: x", count=9), pod(containerStatuses=[container(restarts=2)])], ["MB-PRB-001"]),  # noqa: E501
        ([event("Unhealthy", "Liveness probe failed: x", count=9), pod(containerStatuses=[container()])], []),
        ([event("Unhealthy", "Liveness probe failed: x", count=2), pod(containerStatuses=[container(restarts=2)])], []),
        ([event("Unhealthy", "Startup probe failed: x", count=9), pod(containerStatuses=[container(restarts=2)])], []),
        ([pod(containerStatuses=[container(state=KILLED)])], ["MB-SYS-001"]),
        ([pod(containerStatuses=[container(state={"running": {}}, lastState=KILLED)])], ["MB-SYS-001"]),
        ([pod(containerStatuses=[container(True, state={"running": {}}, lastState=KILLED)])], []),
        ([pod(initContainerStatuses=[container(state={"terminated": {"reason": "OOMKilled"}})])], []),
        ([pod(containerStatuses=[container(state={"terminated": {"reason": "Error", "exitCode": 137}})])], ["MB-SYS-001"]),  # noqa: E501
        ([pod(phase="Failed", reason="Evicted", message="The node was low on resource: ephemeral-storage.")], ["MB-DSK-001"]),  # noqa: E501
        ([pod(phase="Failed", reason="Evicted", message="The node was low on resource: memory.")], []),
    ],
)  # fmt: skip
def test_fields(known, objects, expected):
    assert ids(diagnose_objects(objects, (), known)) == expected


def test_a_gate_is_a_consequence_of_the_quota(known):
    message = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor l4, 3 more needed"  # noqa: E501
    condition = {"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": message}
    workload = {"kind": "Workload", "metadata": {"name": "w", "namespace": "ai"}, "status": {"conditions": [condition]}}
    gated = {
        "kind": "Pod", "metadata": {"name": "m-0", "namespace": "ai"}, "status": {"phase": "Pending"},
        "spec": {"schedulingGates": [{"name": "kueue.x-k8s.io/admission"}]},
    }  # fmt: skip
    found = diagnose_objects([gated, workload], (), known)
    assert [(each.id, each.cause) for each in found.findings] == [
        ("MB-KUE-001", "3 more nvidia.com/gpu are needed in l4.")
    ]
    assert [each.id for each in found.findings[0].consequences] == ["MB-KUE-002"]
    assert found.exit_code == 22


def test_objects_and_logs_are_one_diagnosis(known):
    killed = pod(containerStatuses=[container(state=KILLED)])
    found = diagnose_objects([killed], [Log("m-0/kserve-container", [OUT_OF_MEMORY.encode()])], known)
    assert ids(found) == ["MB-SYS-001", "MB-MEM-001"]
    assert found.findings[0].evidence[0].source == "Pod ai/m-0"


def test_what_a_container_said_last_is_read_as_its_log(known):
    last = {"terminated": {"exitCode": 1, "reason": "Error", "message": OUT_OF_MEMORY}}
    status = container(state={"waiting": {"reason": "CrashLoopBackOff"}}, lastState=last)
    (found,) = diagnose_objects([pod(containerStatuses=[status])], (), known).findings
    assert (found.id, found.evidence[0].line) == ("MB-MEM-001", 5)
    assert found.evidence[0].source == "Pod ai/m-0, last words of kserve-container"
    healthy = container(True, state={"running": {}}, lastState=last)
    assert ids(diagnose_objects([pod(containerStatuses=[healthy])], (), known)) == []
    log = Log("m-0/kserve-container", [OUT_OF_MEMORY.encode()], "m-0", "kserve-container")
    (found,) = diagnose_objects([pod(containerStatuses=[status])], [log], known).findings
    assert found.count == 1
    failure = {"modelStatus": {"lastFailureInfo": {"exitCode": 1, "message": OUT_OF_MEMORY}}}
    service = {"kind": "InferenceService", "metadata": {"name": "m", "namespace": "ai"}, "status": failure}
    assert ids(diagnose_objects([service], (), known)) == ["MB-MEM-001"]


@pytest.mark.parametrize(
    "broken",
    [
        {}, {"kind": "Pod"}, {"kind": "Pod", "status": []}, {"kind": "Pod", "status": {"containerStatuses": "x"}},
        {"kind": "Pod", "status": {"containerStatuses": [{"state": {"terminated": 5}}]}}, {"kind": "Event"},
        {"kind": "Event", "involvedObject": 3, "reason": "FailedScheduling", "message": None},
        {"kind": "Workload", "status": {"conditions": [None, 3, {"type": "QuotaReserved", "message": 5}]}},
        {"kind": "Pod", "spec": {"schedulingGates": 1}, "status": {"phase": "Pending"}},
    ],
)  # fmt: skip
def test_objects_of_any_shape_are_read(known, broken):
    assert ids(diagnose_objects([broken], (), known)) == []
