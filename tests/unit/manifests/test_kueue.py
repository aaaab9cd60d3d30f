"""Kueue: flavours that no other stack has, quotas that are what the pools have, and fields of both API versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capacity import ARGO_CD, MACHINE_SET, pool, stack, variant
from modelberth.base.errors import UsageError
from modelberth.base.units import parse_bytes
from modelberth.catalog.platforms import platform
from modelberth.manifests.kueue import flavor_name, notes, queue_objects
from modelberth.manifests.placement import pod_placement
from modelberth.manifests.resources import asked
from modelberth.spec.services import services
from modelberth.spec.stack import Stack

QUEUE = {"name": "llm", "clusterQueue": "llm-cluster"}
ALL = ["cpu", "memory", "nvidia.com/gpu", "ephemeral-storage", "pods", "example.com/other"]


def rendered(found: Stack) -> dict[str, list[dict]]:
    facts = platform(found.platform.kind, found.platform.version)
    kinds: dict[str, list[dict]] = {"ResourceFlavor": [], "ClusterQueue": [], "LocalQueue": []}
    for each in queue_objects(found, facts, services(found)):
        kinds[each["kind"]].append(each)
    return kinds


def quotas(found: Stack) -> dict[str, dict[str, str | int]]:
    (group,) = rendered(found)["ClusterQueue"][0]["spec"]["resourceGroups"]
    return {
        flavor["name"]: {each["name"]: each["nominalQuota"] for each in flavor["resources"]}
        for flavor in group["flavors"]
    }


def test_without_a_cluster_queue_the_queue_is_the_clusters():
    assert rendered(stack()) == {"ResourceFlavor": [], "ClusterQueue": [], "LocalQueue": []}
    assert rendered(stack(queue={"name": "llm"})) == {"ResourceFlavor": [], "ClusterQueue": [], "LocalQueue": []}
    assert list(notes(stack(queue={"name": "llm"}))) == []


def test_the_local_queue_leads_to_the_cluster_queue_and_that_serves_the_namespace_alone():
    found = rendered(stack(queue=QUEUE))
    (local,), (cluster,) = found["LocalQueue"], found["ClusterQueue"]
    assert (local["metadata"]["name"], local["metadata"]["namespace"]) == ("llm", "private-ai")
    assert local["spec"] == {"clusterQueue": cluster["metadata"]["name"]} == {"clusterQueue": "llm-cluster"}
    assert cluster["spec"]["namespaceSelector"] == {"matchLabels": {"kubernetes.io/metadata.name": "private-ai"}}
    assert "namespace" not in cluster["metadata"]


def test_a_flavour_brings_labels_and_toleration_and_services_none():
    found = stack(pool(instanceType="g6.4xlarge"), queue=QUEUE)
    (flavor,) = rendered(found)["ResourceFlavor"]
    assert flavor["spec"] == {
        "nodeLabels": {"node.kubernetes.io/instance-type": "g6.4xlarge"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    }
    assert pod_placement(found, services(found)[0]) == {}


def test_each_pool_with_services_has_a_flavour_and_the_queue_names_exactly_these():
    pools = [pool("a", instanceType="g6.4xlarge"), pool("b", count=4, instanceType="g6.12xlarge"), pool("spare")]
    found = stack(*pools, queue=QUEUE, variants=[variant("x", "a"), variant("y", "b")])
    names = [flavor["metadata"]["name"] for flavor in rendered(found)["ResourceFlavor"]]
    assert names == ["step-05.a", "step-05.b"] == list(quotas(found))


def test_a_flavour_has_the_name_of_a_profile_only_where_the_stack_brings_the_profile():
    own = stack(pool(hardwareProfile={"name": "nvidia-l4-1gpu"}))
    foreign = stack(pool(hardwareProfile={"name": "nvidia-l4-1gpu", "existing": True}))
    assert flavor_name(own, own.pools[0]) == "nvidia-l4-1gpu"
    assert flavor_name(foreign, foreign.pools[0]) == "step-05.l4"


NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)


@given(NAMES, NAMES, NAMES, NAMES)
def test_two_stacks_or_pools_never_share_a_flavour(stack_a: str, pool_a: str, stack_b: str, pool_b: str):
    def name(of_stack: str, of_pool: str) -> str:
        found = BASE.model_copy(update={"metadata": BASE.metadata.model_copy(update={"name": of_stack})})
        return flavor_name(found, found.pools[0].model_copy(update={"name": of_pool}))

    assert (name(stack_a, pool_a) == name(stack_b, pool_b)) == ((stack_a, pool_a) == (stack_b, pool_b))
    assert len(name(stack_a, pool_a)) <= 253


BASE = stack()


def test_quotas_are_what_the_nodes_have_for_pods():
    found = stack(pool(count=4, nodes=2, instanceType="g6.12xlarge", nodeDisk="500GB"), queue=QUEUE | {"covers": ALL})
    assert quotas(found)["step-05.l4"] == {
        "cpu": 2 * 46,  # of 48
        "memory": f"{2 * 165}Gi",  # of 192
        "nvidia.com/gpu": 8,
        "ephemeral-storage": f"{2 * 419}Gi",  # 500 GB are 465 GiB; below a tenth of it pods are evicted
        "pods": 220,
        "example.com/other": 0,
    }


def test_a_machine_sets_disk_counts_where_none_is_declared():
    found = stack(pool(instanceType="g6.4xlarge", machineSet=MACHINE_SET), queue=QUEUE | {"covers": ALL})
    assert quotas(found)["step-05.l4"]["ephemeral-storage"] == "419Gi"


@pytest.mark.parametrize("resources", [{}, {"cpu": 1.5, "memory": "11GiB"}])
@pytest.mark.parametrize("machine", [None, "g6.12xlarge"])
def test_pods_on_all_gpus_are_admitted_whether_nodes_are_known_or_not(machine: str | None, resources: dict):
    variants = [
        variant("one", resources=resources, weights="s3://models/one/", weightsSize="14GB"),
        variant("four", tensorParallelSize=4, weights="s3://models/four/", weightsSize="47GB"),
    ]
    known = {"instanceType": machine, "nodeDisk": "500GB"} if machine else {}
    found = stack(pool(count=4, nodes=2, **known), variants=variants, queue=QUEUE | {"covers": ALL})
    have = quotas(found)["step-05.l4"]
    for service in services(found):
        gpus = service.variant.tensor_parallel_size
        pod, pods = asked(found, service, gpus), 8 // gpus
        assert have["nvidia.com/gpu"] == pod.gpus * pods
        assert int(have["cpu"]) >= pod.cpu * pods
        assert parse_bytes(str(have["memory"])) >= pod.memory * pods
        assert pod.disk is not None
        assert parse_bytes(str(have["ephemeral-storage"])) >= pod.disk * pods


def test_a_resource_that_is_covered_twice_is_written_once():
    found = stack(queue=QUEUE | {"covers": ["nvidia.com/gpu", "cpu", "nvidia.com/gpu"]})
    (group,) = rendered(found)["ClusterQueue"][0]["spec"]["resourceGroups"]
    assert group["coveredResources"] == ["nvidia.com/gpu", "cpu"]
    assert [each["name"] for each in group["flavors"][0]["resources"]] == ["nvidia.com/gpu", "cpu"]


@pytest.mark.parametrize(
    ("kind", "version", "declared", "api"),
    [
        ("rhoai", "3.0", {}, "v1beta1"), ("rhoai", "3.5", {}, "v1beta1"), ("kserve", "0.20", {}, "v1beta2"),
        ("rhoai", "3.5", {"apiVersion": "v1beta2"}, "v1beta2"),
        ("kserve", "0.20", {"apiVersion": "v1beta1"}, "v1beta1"),
    ],
)  # fmt: skip
def test_the_api_version_is_the_platforms_or_the_declared_one(kind: str, version: str, declared: dict, api: str):
    found = rendered(stack(kind=kind, version=version, queue=QUEUE | declared))
    assert {each["apiVersion"] for kinds in found.values() for each in kinds} == {f"kueue.x-k8s.io/{api}"}


def test_no_field_is_written_that_only_one_api_version_has():
    (cluster,) = rendered(stack(queue=QUEUE))["ClusterQueue"]
    assert not {"cohort", "cohortName", "flavorFungibility"} & cluster["spec"].keys()


def test_openshift_ais_default_queue_is_left_to_it():
    found = stack(queue={"name": "default", "clusterQueue": "llm-cluster"})
    assert rendered(found)["LocalQueue"] == []
    assert len(rendered(found)["ClusterQueue"]) == 1
    told = list(notes(found))
    assert "is not rendered" in told[0]
    assert "oc label namespace private-ai kueue.openshift.io/managed=true" in told[1]


def test_elsewhere_a_default_queue_is_rendered_and_what_else_it_takes_is_said():
    found = stack(kind="kserve", version="0.20", queue={"name": "default", "clusterQueue": "llm-cluster"})
    assert len(rendered(found)["LocalQueue"]) == 1
    (told,) = notes(found)
    assert "takes every Job and Deployment of private-ai" in told


def test_pools_that_no_label_tells_apart_are_said():
    found = stack(
        pool("a"), pool("b"), pool("c", instanceType="g6.4xlarge"), kind="kserve", version="0.20", queue=QUEUE
    )
    (told,) = notes(found)
    assert "pools 'a' and 'b' have the same labels" in told


def test_what_the_definitions_do_not_take_is_refused():
    labels = {f"acme.example/l{number}": "x" for number in range(9)}
    with pytest.raises(UsageError, match="at most 8 node labels") as caught:
        rendered(stack(pool(nodeLabels=labels), queue=QUEUE))
    assert caught.value.where == "nodeLabels of pool 'l4'"
    with pytest.raises(UsageError, match="at most 64 flavours"):
        rendered(stack(*[pool(f"p{number}") for number in range(65)], queue=QUEUE))


def test_waves_are_those_of_argo_cd_alone():
    def annotations(found: Stack) -> set[str]:
        return {
            each["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", "")
            for kinds in rendered(found).values() for each in kinds
        }  # fmt: skip

    assert annotations(stack(queue=QUEUE, argoCd=ARGO_CD)) == {"-20"}
    assert annotations(stack(queue=QUEUE)) == {""}
