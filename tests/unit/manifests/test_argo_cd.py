"""The Argo CD Application: what it syncs, and what it leaves to those who own it."""

from __future__ import annotations

import pytest

from capacity import ARGO_CD, MACHINE_SET, pool, stack
from modelberth.manifests.argo_cd import application
from modelberth.manifests.machine_sets import machine_sets
from modelberth.spec.stack import Stack

BASE = "gitops/step-05/base"


def of(found: Stack) -> dict:
    assert found.argo_cd is not None
    return application(found, found.argo_cd, BASE)


def test_it_syncs_the_tree_to_the_namespace_of_the_stack():
    found = of(
        stack(argoCd=ARGO_CD | {"path": "clusters/one", "revision": "v2", "project": "ml", "namespace": "argocd"})
    )
    assert (found["metadata"]["name"], found["metadata"]["namespace"]) == ("step-05", "argocd")
    assert found["spec"]["project"] == "ml"
    assert found["spec"]["source"] == {
        "repoURL": "https://git.example.com/platform/models.git",
        "targetRevision": "v2",
        "path": "clusters/one/gitops/step-05/base",
    }
    assert found["spec"]["destination"] == {"server": "https://kubernetes.default.svc", "namespace": "private-ai"}


def test_at_the_top_of_the_repository_the_path_is_that_of_the_tree():
    assert of(stack(argoCd=ARGO_CD))["spec"]["source"]["path"] == BASE


@pytest.mark.parametrize("automated", [True, False])
def test_it_syncs_by_itself_only_where_that_is_wanted(automated: bool):
    policy = of(stack(argoCd=ARGO_CD | {"automated": automated}))["spec"]["syncPolicy"]
    assert policy.get("automated") == ({"prune": True, "selfHeal": True} if automated else None)
    assert policy["syncOptions"] == ["ServerSideApply=true", "RespectIgnoreDifferences=true"]


def test_to_delete_it_deletes_nothing_else():
    assert "finalizers" not in of(stack(argoCd=ARGO_CD))["metadata"]


def test_nothing_is_ignored_without_a_reason():
    assert of(stack(argoCd=ARGO_CD))["spec"]["ignoreDifferences"] == []


def test_who_scales_nodes_is_not_put_back_and_pointers_reach_what_is_rendered():
    found = stack(pool(instanceType="g6.4xlarge", machineSet=MACHINE_SET), argoCd=ARGO_CD)
    (ignored,) = of(found)["spec"]["ignoreDifferences"]
    assert (ignored["group"], ignored["kind"]) == ("machine.openshift.io", "MachineSet")
    (rendered,) = machine_sets(found)
    reached = [resolve(rendered, pointer) for pointer in ignored["jsonPointers"]]
    assert reached[:2] == [0, "1"]
    assert rendered["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"] == "-20"


def test_what_the_webhook_of_a_profile_writes_is_left_alone():
    found = stack(pool(hardwareProfile={"name": "x"}), argoCd=ARGO_CD)
    pointers = {each["kind"]: each["jsonPointers"] for each in of(found)["spec"]["ignoreDifferences"]}
    assert pointers == {
        "InferenceService": ["/spec/predictor/nodeSelector", "/spec/predictor/tolerations"],
        "LLMInferenceService": ["/spec/template/nodeSelector", "/spec/template/tolerations"],
    }


def resolve(document: object, pointer: str) -> object:
    """RFC 6901, for mappings."""
    for part in pointer.split("/")[1:]:
        assert isinstance(document, dict)
        document = document[part.replace("~1", "/").replace("~0", "~")]
    return document
