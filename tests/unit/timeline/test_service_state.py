"""How far a service is, told from plain objects: every moment of its life, and any object that is not as expected."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelberth.findings.diagnosis.belonging import belonging, service_of
from modelberth.timeline.pod_state import pod_state
from modelberth.timeline.service_state import absent, service_state


def status(name: str, state: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "state": state, "restartCount": 0, "ready": False, **more}


def pod(*, containers: list[dict[str, Any]] | None = None, init: list[dict[str, Any]] | None = None,
        node: str = "gpu-1", phase: str = "Running", **spec: Any) -> dict[str, Any]:  # fmt: skip
    ready = bool(containers) and all(each["ready"] for each in containers or [])
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {
        "kind": "Pod", "metadata": {"name": "p", "uid": "1"}, "spec": {"nodeName": node, **spec},
        "status": {"phase": phase, "conditions": conditions, "containerStatuses": containers or [],
                   "initContainerStatuses": init or []},
    }  # fmt: skip


RUNNING: dict[str, Any] = {"running": {}}
WAITING = {"waiting": {"reason": "PodInitializing"}}
ENGINE_READY = status("kserve-container", RUNNING, ready=True)


def ended(reason: str, code: int) -> dict[str, Any]:
    return {"terminated": {"reason": reason, "exitCode": code}}


@pytest.mark.parametrize(
    ("given_pod", "stage", "failing", "why"),
    [
        (pod(containers=[ENGINE_READY]), "ready", False, ""),
        (pod(containers=[status("kserve-container", RUNNING)]), "process", False, ""),
        (pod(containers=[status("main", RUNNING)]), "process", False, ""),
        (pod(node="", schedulingGates=[{"name": "kueue.x-k8s.io/admission"}]), "queue", False, "waiting for quota"),
        (pod(node=""), "scheduling", False, ""),
        (pod(init=[status("storage-initializer", RUNNING)]), "download", False, ""),
        (pod(init=[status("storage-initializer", WAITING)]), "image", False, ""),
        (pod(init=[status("modelcar", RUNNING, started=True)], containers=[ENGINE_READY]), "ready", False, ""),
        (pod(init=[status("storage-initializer", ended("OOMKilled", 137))]), "download", True, "ran out of memory"),
        (
            pod(containers=[status("kserve-container", {"waiting": {"reason": "CrashLoopBackOff"}}, restartCount=1,
                                   lastState=ended("OOMKilled", 137))]),
            "process", True, "kserve-container ran out of memory (OOMKilled), 1 restart",
        ),
        (
            pod(containers=[status("kserve-container", {"waiting": {"reason": "CreateContainerConfigError",
                                                                    "message": 'secret "hf-token" not found'}})]),
            "image", True, 'kserve-container cannot be started: secret "hf-token" not found',
        ),
        (pod(containers=[ENGINE_READY, status("kube-rbac-proxy", RUNNING)]), "process", False, ""),
        (pod() | {"status": {"phase": "Failed", "reason": "Evicted", "message": "low on ephemeral-storage"}},
         "process", True, "Evicted: low on ephemeral-storage"),
    ],
)  # fmt: skip
def test_a_pod(given_pod: dict[str, Any], stage: str, failing: bool, why: str) -> None:
    found = pod_state(given_pod)
    assert (found.stage, found.failing) == (stage, failing)
    assert why in found.why


def service(kind: str = "InferenceService", ready: str = "True", **metadata: Any) -> dict[str, Any]:
    conditions = [{"type": "Ready", "status": ready, "message": "still working"}]
    about = {"name": "s", "namespace": "n", "generation": 1, **metadata}
    return {"kind": kind, "metadata": about, "status": {"observedGeneration": 1, "conditions": conditions}}


@pytest.mark.parametrize("kind", ["InferenceService", "LLMInferenceService"])
def test_a_service_is_as_ready_as_its_slowest_pod(kind: str) -> None:
    ready, loading = pod(containers=[ENGINE_READY]), pod(containers=[status("kserve-container", RUNNING)])
    assert service_state(service(kind), [ready]).state == "ready"
    found = service_state(service(kind), [ready, loading])
    assert (found.state, found.stage, found.ready, found.replicas) == ("progressing", "process", 1, 2)
    assert service_state(service(kind, ready="False"), [ready]).why == "still working"


def test_fewer_pods_than_are_wanted_are_not_ready() -> None:
    wanted = service() | {"spec": {"predictor": {"minReplicas": 3}}}
    found = service_state(wanted, [pod(containers=[ENGINE_READY])])
    assert (found.state, found.why) == ("progressing", "1 of 3 pods are there")


def test_the_scheduler_of_a_service_is_no_engine_of_it() -> None:
    labels = {"app.kubernetes.io/part-of": "llminferenceservice", "app.kubernetes.io/name": "s",
              "app.kubernetes.io/component": "llminferenceservice-router-scheduler"}  # fmt: skip
    assert service_of({"metadata": {"labels": labels}}) == ""


def test_a_pod_that_goes_does_not_count() -> None:
    going = pod(containers=[status("kserve-container", RUNNING)])
    going["metadata"]["deletionTimestamp"] = "2026-11-25T09:00:00Z"
    assert service_state(service(), [going, pod(containers=[ENGINE_READY])]).state == "ready"


def test_what_the_controller_says_where_there_is_no_pod() -> None:
    refused = service(ready="False")
    refused["status"]["modelStatus"] = {"lastFailureInfo": {"message": "no runtime supports vLLM"}}
    found = service_state(refused, [])
    assert (found.state, found.why) == ("failing", "no runtime supports vLLM")
    assert absent("s", "n").state == "absent"


def test_pods_and_what_is_theirs() -> None:
    labels = {"app.kubernetes.io/part-of": "llminferenceservice", "app.kubernetes.io/name": "s"}
    mine = {"kind": "Pod", "metadata": {"name": "s-kserve-1", "namespace": "n", "uid": "7", "labels": labels}}
    event = {"kind": "Event", "metadata": {"name": "e", "namespace": "n"}, "involvedObject": {"name": "s-kserve-1"}}
    load = {"kind": "Workload", "metadata": {"name": "w", "namespace": "n", "ownerReferences": [{"uid": "7"}]}}
    other = {"kind": "Pod", "metadata": {"name": "s2-kserve-1", "namespace": "n", "labels": labels | {
        "app.kubernetes.io/name": "s2"}}}  # fmt: skip
    node = {"kind": "Node", "metadata": {"name": "gpu-1"}}
    assert service_of(mine) == "s"
    assert belonging([mine, event, load, other, node], "s") == [mine, event, load, node]


KEYS = ["status", "conditions", "type", "containerStatuses", "state", "waiting", "reason", "name", "spec", "metadata",
        "generation", "terminated", "exitCode"]  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4),
    max_leaves=20,
)
PARTS = st.dictionaries(st.sampled_from(["status", "spec"]), JSON)


@given(PARTS, PARTS)
def test_an_object_of_any_shape_has_a_state(one: dict[str, Any], two: dict[str, Any]) -> None:
    about = {"metadata": {"name": "x", "namespace": "n"}}
    found = service_state({**one, **about, "kind": "InferenceService"}, [{**two, **about}])
    assert found.name == "x"
    assert found.state in {"progressing", "ready", "failing", "stopped", "terminating"}
