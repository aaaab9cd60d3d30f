"""The index of a namespace's objects: whatever happens in whatever order, it finds what a search of them all would."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from modelberth.findings.diagnosis.belonging import service_of
from modelberth.flows.cluster.objects import Objects, ServiceKey, key_of_pod

NAMES = st.sampled_from(["a", "b"])
Document = dict[str, Any]


def service(name: str, kind: str = "InferenceService") -> Document:
    return {"kind": kind, "metadata": {"name": name}}


def pod(name: str, owner: str, *, llm: bool = False) -> Document:
    labels = {"serving.kserve.io/inferenceservice": owner}
    if llm:
        labels = {"app.kubernetes.io/name": owner, "app.kubernetes.io/part-of": "llminferenceservice"}
    return {"kind": "Pod", "metadata": {"name": f"pod-{name}", "uid": f"uid-{name}", "labels": labels}}


def workload(name: str, owner: str, queue: str = "q") -> Document:
    owners = [{"name": f"pod-{owner}", "uid": f"uid-{owner}"}]
    return {"kind": "Workload", "metadata": {"name": name, "ownerReferences": owners}, "spec": {"queueName": queue}}


THINGS = st.one_of(
    st.builds(service, NAMES, st.sampled_from(["InferenceService", "LLMInferenceService"])),
    st.builds(pod, NAMES, NAMES, llm=st.booleans()),
    st.builds(workload, NAMES, NAMES, st.sampled_from(["q", "r"])),
)
STEPS = st.lists(st.tuples(st.booleans(), THINGS))


@given(STEPS)
def test_it_finds_what_a_search_would(steps: list[tuple[bool, Document]]) -> None:
    objects, all_of = Objects(), {}
    for put, each in steps:
        key = (each["kind"], each["metadata"]["name"])
        before = _seen(objects, all_of)
        objects.changed.clear()
        if put:
            objects.put(each)
            all_of[key] = each
        else:
            objects.remove(each)
            all_of.pop(key, None)
        after = _seen(objects, all_of)
        # Whoever looks at what is named as changed alone misses nothing.
        assert {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)} <= objects.changed
    services = [each for (kind, _), each in all_of.items() if kind.endswith("InferenceService")]
    assert sorted(objects.service_keys()) == sorted(ServiceKey(each["kind"], each["metadata"]["name"])
                                                    for each in services)  # fmt: skip
    for queue in ("q", "r"):
        wanted = [
            each for (kind, _), each in all_of.items() if kind == "Workload" and each["spec"]["queueName"] == queue
        ]
        assert _names(objects.in_queue(queue)) == _names(wanted)


def _seen(objects: Objects, all_of: dict[tuple[str, str], Document]) -> dict[ServiceKey, object]:
    """What a state of each service is told from, by the index; it is compared with a search on the way."""
    found: dict[ServiceKey, object] = {}
    for key in objects.service_keys():
        pods = [each for (kind, _), each in all_of.items() if kind == "Pod" and key_of_pod(each) == key]
        names = {each["metadata"]["name"] for each in pods}
        workloads = [
            each for (kind, _), each in all_of.items()
            if kind == "Workload" and each["metadata"]["ownerReferences"][0]["name"] in names
        ]  # fmt: skip
        assert _names(objects.pods(key)) == _names(pods)
        assert _names(objects.workloads(pods)) == _names(workloads)
        found[key] = (objects.service(key), sorted(map(repr, pods)), sorted(map(repr, workloads)))
    return found


def _names(documents: list[Document]) -> list[str]:
    return sorted(each["metadata"]["name"] for each in documents)


def test_a_new_list_forgets_what_is_not_in_it() -> None:
    objects = Objects()
    objects.put(service("a"))
    for each in (pod("1", "a"), pod("2", "a")):
        objects.put(each)
    objects.replace("Pod", [pod("2", "a"), pod("3", "a")])
    assert _names(objects.pods(ServiceKey("InferenceService", "a"))) == ["pod-2", "pod-3"]
    assert objects.gone == {"pod-1"}
    objects.replace("InferenceService", [])
    assert objects.service_keys() == []


def test_a_pod_belongs_to_one_kind() -> None:
    assert key_of_pod(pod("1", "a")) == ServiceKey("InferenceService", "a")
    assert key_of_pod(pod("1", "a", llm=True)) == ServiceKey("LLMInferenceService", "a")
    stranger = {"kind": "Pod", "metadata": {"name": "x"}}
    assert (service_of(stranger), key_of_pod(stranger)) == ("", None)
