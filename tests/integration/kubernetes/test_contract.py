"""What flows rely on of an API server: the same on the double and on a real one."""

from __future__ import annotations

import json
from queue import Empty, SimpleQueue
from typing import Any

import pytest

from cluster_schemas import WHY_SKIPPED
from clusters import Place
from modelberth.adapters.kubernetes_api import (
    Access,
    Change,
    FieldConflict,
    InvalidManifest,
    Kind,
    Ref,
    Target,
    Watch,
    connect,
    dropped_fields,
    forward,
)
from modelberth.adapters.kubernetes_api.kinds import CONFIG_MAPS, NODES, PODS
from modelberth.base.errors import AuthError, Conflict, PrerequisiteMissing, UsageError

PATIENCE = 30.0


def config_map(place: Place, name: str = "a", value: str = "one", **labels: str) -> dict[str, Any]:
    about = {"name": name, "namespace": place.namespace, **({"labels": labels} if labels else {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": {"key": value}}


def apply_as(place: Place, manager: str, document: dict[str, Any], *, force: bool = False) -> None:
    """As somebody else: another field manager."""
    ref = Ref.of(document)
    answer = place.cluster.wire.client.patch(
        place.cluster.path(ref.kind, ref.namespace, ref.name), content=json.dumps(document),
        params={"fieldManager": manager, "force": str(force).lower()},
        headers={"Content-Type": "application/apply-patch+yaml"},
    )  # fmt: skip
    assert answer.status_code < 300, answer.text


def test_apply_creates_changes_and_leaves_alone(place: Place) -> None:
    ref = Ref(CONFIG_MAPS, "a", place.namespace)
    assert place.cluster.get(ref) is None
    created = place.cluster.apply(config_map(place))
    again = place.cluster.apply(config_map(place))
    assert again["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]
    changed = place.cluster.apply(config_map(place, value="two"))
    assert changed["metadata"]["resourceVersion"] != created["metadata"]["resourceVersion"]
    assert changed["metadata"]["uid"] == created["metadata"]["uid"]
    found = place.cluster.get(ref)
    assert found is not None
    assert found["data"] == {"key": "two"}


def test_what_is_no_longer_applied_goes_and_what_others_set_stays(place: Place) -> None:
    document = config_map(place)
    document["data"]["gone"] = "x"
    place.cluster.apply(document)
    apply_as(place, "somebody", {**config_map(place), "data": {"theirs": "y"}})
    assert place.cluster.apply(config_map(place))["data"] == {"key": "one", "theirs": "y"}


def test_a_dry_run_changes_nothing(place: Place) -> None:
    place.cluster.apply(config_map(place))
    would = place.cluster.apply(config_map(place, value="two"), dry_run=True)
    assert would["data"] == {"key": "two"}
    found = place.cluster.get(Ref(CONFIG_MAPS, "a", place.namespace))
    assert found is not None
    assert found["data"] == {"key": "one"}
    assert place.cluster.apply(config_map(place, "new"), dry_run=True)["data"] == {"key": "one"}
    assert place.cluster.get(Ref(CONFIG_MAPS, "new", place.namespace)) is None


def test_a_conflict_names_field_owner_and_both_values(place: Place) -> None:
    labels = {"app.kubernetes.io/name": "ours"}
    place.cluster.apply(config_map(place, **labels))
    apply_as(
        place, "argocd-controller", config_map(place, value="theirs", **{"app.kubernetes.io/name": "t"}), force=True
    )
    with pytest.raises(FieldConflict) as caught:
        place.cluster.apply(config_map(place, **labels))
    found = {each.path: (each.manager, each.ours, each.theirs) for each in caught.value.fields}
    assert found == {
        ".data.key": ("argocd-controller", "one", "theirs"),
        ".metadata.labels.app.kubernetes.io/name": ("argocd-controller", "ours", "t"),
    }
    assert caught.value.exit_code == 5
    kept = place.cluster.get(Ref(CONFIG_MAPS, "a", place.namespace))
    assert kept is not None
    assert kept["data"] == {"key": "theirs"}  # never by force


def test_kinds_and_versions_that_are_served(place: Place) -> None:
    assert place.cluster.serves(PODS)
    assert not place.cluster.serves(Kind("example.com/v1", "Nothing"))
    assert not place.cluster.serves(Kind("v1", "Nothing"))
    assert place.cluster.versions("apps") == ("v1",)
    assert place.cluster.versions("example.com") == ()
    assert place.cluster.is_namespaced(PODS)
    assert not place.cluster.is_namespaced(NODES)
    assert place.cluster.version()


def test_an_unknown_kind_and_a_missing_namespace_are_named(place: Place) -> None:
    unknown = {
        "apiVersion": "example.com/v1",
        "kind": "Nothing",
        "metadata": {"name": "x", "namespace": place.namespace},
    }
    with pytest.raises(PrerequisiteMissing, match=r"the cluster has no Nothing of example\.com/v1"):
        place.cluster.apply(unknown)
    lost = {**config_map(place), "metadata": {"name": "a", "namespace": "nowhere-at-all"}}
    with pytest.raises(PrerequisiteMissing) as caught:
        place.cluster.apply(lost)
    assert "nowhere-at-all" in caught.value.why


def test_lists_are_read_page_by_page_and_select(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("modelberth.adapters.kubernetes_api.cluster._PAGE", 2)
    for number in range(5):
        place.cluster.apply(config_map(place, f"m{number}", **{"odd": str(number % 2)}))
    every = place.cluster.list(CONFIG_MAPS, place.namespace)
    names = [each["metadata"]["name"] for each in every.items if each["metadata"]["name"].startswith("m")]
    assert names == ["m0", "m1", "m2", "m3", "m4"]
    assert all(each["kind"] == "ConfigMap" for each in every.items)
    odd = place.cluster.list(CONFIG_MAPS, place.namespace, labels="odd=1")
    assert [each["metadata"]["name"] for each in odd.items] == ["m1", "m3"]
    one = place.cluster.list(CONFIG_MAPS, place.namespace, fields="metadata.name=m2")
    assert [each["metadata"]["name"] for each in one.items] == ["m2"]


def test_create_replace_merge_and_delete(place: Place) -> None:
    created = place.cluster.create(config_map(place))
    with pytest.raises(Conflict):
        place.cluster.create(config_map(place))
    newer = place.cluster.replace({**created, "data": {"key": "two"}})
    with pytest.raises(Conflict):
        place.cluster.replace({**created, "data": {"key": "three"}})  # of an old version
    ref = Ref.of(newer)
    assert place.cluster.patch(ref, {"data": {"more": "x", "key": None}})["data"] == {"more": "x"}
    assert place.cluster.delete(ref, propagation="Background")
    assert not place.cluster.delete(ref, propagation="Background")


def test_a_watch_lists_and_tells_every_change(place: Place) -> None:
    place.cluster.apply(config_map(place, "before"))
    changes: SimpleQueue[Change] = SimpleQueue()
    watch = Watch(place.cluster, CONFIG_MAPS, place.namespace, changes).start()
    try:
        listed = changes.get(timeout=PATIENCE)
        assert listed.event == "listed"
        assert "before" in [each["metadata"]["name"] for each in listed.documents]
        assert "managedFields" not in json.dumps(listed.documents)
        place.cluster.apply(config_map(place, "later"))
        place.cluster.delete(Ref(CONFIG_MAPS, "before", place.namespace))
        seen = []
        while ("deleted", "before") not in seen:
            change = changes.get(timeout=PATIENCE)
            seen.append((change.event, change.documents[0]["metadata"]["name"]))
        assert ("changed", "later") in seen
    finally:
        watch.stop()


def test_a_watch_of_an_absent_kind_ends_and_says_so(place: Place) -> None:
    changes: SimpleQueue[Change] = SimpleQueue()
    Watch(place.cluster, Kind("example.com/v1", "Nothing"), place.namespace, changes).start()
    assert changes.get(timeout=PATIENCE).event == "absent"


def test_rights_are_asked_all_at_once(place: Place) -> None:
    wanted = [Access("get", "", "pods", place.namespace), Access("create", "", "pods/portforward", place.namespace)]
    assert place.cluster.review(wanted) == ()
    with connect(Target(kubeconfig=place.kubeconfig, as_user="nobody-special")) as other:
        if place.double:
            place.double.deny("*", "*", user="nobody-special")
        assert other.review(wanted) == tuple(wanted)
        with pytest.raises(AuthError, match="not allowed: list pods"):
            other.list(PODS, place.namespace)
        changes: SimpleQueue[Change] = SimpleQueue()
        Watch(other, PODS, place.namespace, changes).start()
        assert changes.get(timeout=PATIENCE).event == "forbidden"


def pod(place: Place, node: str = "") -> dict[str, Any]:
    spec: dict[str, Any] = {"containers": [{"name": "main", "image": "example.com/x"}]}
    about = {"name": "p", "namespace": place.namespace}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": about, "spec": spec | ({"nodeName": node} if node else {})}


def test_a_pod_without_a_node_has_no_log_and_no_ports(place: Place) -> None:
    place.cluster.apply(pod(place))
    assert list(place.cluster.logs(place.namespace, "p", "main")) == []
    with (
        pytest.raises(UsageError, match="the API server does not take it") as caught,
        forward(place.cluster, place.namespace, "p", 8080),
    ):
        pass
    assert "does not have a host assigned" in caught.value.why
    with pytest.raises(PrerequisiteMissing):
        list(place.cluster.logs(place.namespace, "absent", "main"))
    with pytest.raises(PrerequisiteMissing), forward(place.cluster, place.namespace, "absent", 8080):
        pass


def test_an_invalid_service_is_told_field_by_field(place: Place) -> None:
    if place.double and not place.double.crds:
        pytest.skip(WHY_SKIPPED)
    about = {"name": "i", "namespace": place.namespace}
    wrong = {"apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": about,
             "spec": {"predictor": {"minReplica": 1, "maxReplicas": "x"}}}  # fmt: skip
    with pytest.raises(InvalidManifest) as caught:
        place.cluster.apply(wrong)
    assert ".spec.predictor." in caught.value.why


def test_nothing_more_comes_than_was_asked_for(place: Place) -> None:
    changes: SimpleQueue[Change] = SimpleQueue()
    watch = Watch(place.cluster, CONFIG_MAPS, place.namespace, changes, labels="wanted=yes").start()
    try:
        assert changes.get(timeout=PATIENCE).event == "listed"
        place.cluster.apply(config_map(place, "other"))
        place.cluster.apply(config_map(place, "mine", wanted="yes"))
        change = changes.get(timeout=PATIENCE)
        assert change.documents[0]["metadata"]["name"] == "mine"
        with pytest.raises(Empty):
            changes.get_nowait()
    finally:
        watch.stop()


@pytest.mark.parametrize(
    ("sent", "stored", "dropped"),
    [
        ({"a": 1, "b": {"c": 2}}, {"a": 1, "b": {"c": 2, "d": 3}}, ()),
        ({"a": 1, "b": {"c": 2}}, {"b": {}}, (".a", ".b.c")),
        ({"l": [{"x": 1}, {"y": 2}]}, {"l": [{"x": 1}, {}]}, (".l[1].y",)),
        ({"empty": {}, "none": None}, {}, ()),
    ],
)
def test_fields_that_a_server_drops(sent: Any, stored: Any, dropped: tuple[str, ...]) -> None:
    assert dropped_fields(sent, stored) == dropped
