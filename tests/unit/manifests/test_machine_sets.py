"""MachineSets: names that are labels, nodes that services find, and what the autoscaler must know of none."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capacity import MACHINE_SET, pool, stack
from modelberth.manifests.machine_sets import machine_set_name, machine_sets
from modelberth.manifests.nodes import node_labels

NODE = {"count": 4, "instanceType": "g6.12xlarge", "machineSet": MACHINE_SET}


def only(**fields) -> dict:
    (found,) = machine_sets(stack(pool(**NODE | fields)))
    return found


def provider(**fields) -> dict:
    return only(**fields)["spec"]["template"]["spec"]["providerSpec"]["value"]


def test_none_where_none_is_declared():
    assert machine_sets(stack(pool(instanceType="g6.4xlarge"))) == []


def test_name_and_selector_and_labels_of_machines_agree():
    found = only()
    assert found["metadata"]["name"] == "c1-x7k2p-step-05-l4-us-east-2b"
    assert found["metadata"]["namespace"] == "openshift-machine-api"
    selector = found["spec"]["selector"]["matchLabels"]
    assert selector == {
        "machine.openshift.io/cluster-api-cluster": "c1-x7k2p",
        "machine.openshift.io/cluster-api-machineset": found["metadata"]["name"],
    }
    assert selector.items() <= found["spec"]["template"]["metadata"]["labels"].items()


LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?", fullmatch=True)
BASE = stack(pool(**NODE))


def named(infrastructure: str, of_stack: str, of_pool: str, zone: str) -> str:
    wanted = BASE.pools[0].machine_set
    assert wanted is not None
    return machine_set_name(
        BASE.model_copy(update={"metadata": BASE.metadata.model_copy(update={"name": of_stack})}),
        BASE.pools[0].model_copy(update={"name": of_pool}),
        wanted.model_copy(update={"infrastructure_name": infrastructure, "zone": zone}),
    )


@given(LABELS, LABELS, LABELS, LABELS)
def test_every_name_is_the_value_of_a_label(infrastructure: str, of_stack: str, of_pool: str, zone: str):
    name = named(infrastructure, of_stack, of_pool, zone)
    assert len(name) <= 63
    assert re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", name)


@pytest.mark.parametrize("part", range(4))
def test_names_that_are_cut_stay_apart(part: int):
    parts = ["x" * 63] * 4
    other = [*parts[:part], "x" * 62 + "y", *parts[part + 1 :]]
    assert named(*parts) != named(*other)


def test_the_nodes_are_tainted_and_found_by_what_services_select():
    spec = only(nodeLabels={"acme.example/gpu": "l4"})["spec"]["template"]["spec"]
    assert spec["taints"] == [{"key": "nvidia.com/gpu", "value": "true", "effect": "NoSchedule"}]
    assert spec["metadata"]["labels"] == {
        "node-role.kubernetes.io/worker": "", "acme.example/gpu": "l4", "cluster-api/accelerator": "NVIDIA-L4",
    }  # fmt: skip


@pytest.mark.parametrize("fields", [{}, {"nodeLabels": {"acme.example/gpu": "l4", "b": ""}}, {"gpu": "L4"}])
def test_the_autoscaler_knows_the_labels_of_nodes_that_are_not_there_yet(fields: dict):
    annotations = only(**fields)["metadata"]["annotations"]
    labels = dict(
        each.split("=") for each in annotations["capacity.cluster-autoscaler.kubernetes.io/labels"].split(",")
    )
    found = stack(pool(**NODE | fields))
    assert node_labels(found.pools[0]).items() <= labels.items()
    assert labels["nvidia.com/gpu.product"] == "NVIDIA-L4"


def test_the_autoscaler_knows_the_size_as_the_provider_says_it():
    annotations = only()["metadata"]["annotations"]
    assert annotations["machine.openshift.io/GPU"] == "4"
    assert annotations["machine.openshift.io/vCPU"] == "48"
    assert annotations["machine.openshift.io/memoryMb"] == "196608"


def test_of_an_unknown_machine_it_knows_the_gpus_alone():
    annotations = only(instanceType="acme.gpu1")["metadata"]["annotations"]
    assert annotations["machine.openshift.io/GPU"] == "4"
    assert "machine.openshift.io/vCPU" not in annotations


@pytest.mark.parametrize(("disk", "gibibytes"), [(None, 466), ("500GB", 466), ("100GiB", 100), ("1B", 1)])
def test_the_disk_has_at_least_what_is_declared(disk: str | None, gibibytes: int):
    fields = {"nodeDisk": disk} if disk else {}
    (device,) = provider(**fields)["blockDevices"]
    assert device == {"ebs": {"volumeType": "gp3", "volumeSize": gibibytes, "encrypted": True}}


def test_what_the_installer_named_is_found_by_its_names():
    found = provider()
    assert found["iamInstanceProfile"] == {"id": "c1-x7k2p-worker-profile"}
    assert found["subnet"]["filters"][0]["values"] == [
        "c1-x7k2p-subnet-private-us-east-2b", "c1-x7k2p-private-us-east-2b",
    ]  # fmt: skip
    (groups,) = found["securityGroups"]
    assert groups["filters"][0]["values"] == ["c1-x7k2p-node", "c1-x7k2p-lb", "c1-x7k2p-worker-sg"]
    assert found["tags"] == [{"name": "kubernetes.io/cluster/c1-x7k2p", "value": "owned"}]
    assert found["placement"] == {"availabilityZone": "us-east-2b", "region": "us-east-2"}
    assert found["metadataServiceOptions"] == {"authentication": "Required"}


def test_nodes_cost_nothing_until_they_are_asked_for():
    assert only()["spec"]["replicas"] == 0
    assert only(machineSet=MACHINE_SET | {"replicas": 2})["spec"]["replicas"] == 2
