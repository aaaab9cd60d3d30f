"""Hardware profiles: bounds of the node, proposals of a service, and one owner of where a workload goes."""

from __future__ import annotations

import pytest

from capacity import pool, stack, variant
from modelberth.manifests.hardware_profiles import hardware_profiles
from modelberth.spec.stack import Stack

PROFILE = {"name": "nvidia-l4-4gpu"}
NODE = {"count": 4, "instanceType": "g6.12xlarge", "hardwareProfile": PROFILE}


def bounds(found: Stack) -> dict[str, tuple]:
    (profile,) = hardware_profiles(found)
    return {
        each["identifier"]: (each["minCount"], each["defaultCount"], each.get("maxCount"))
        for each in profile["spec"]["identifiers"]
    }


def test_one_for_each_pool_that_declares_one_which_is_not_there_already():
    found = stack(
        pool("a", hardwareProfile={"name": "one"}),
        pool("b"),
        pool("c", hardwareProfile={"name": "x", "existing": True}),
    )
    (profile,) = hardware_profiles(found)
    assert profile["apiVersion"] == "infrastructure.opendatahub.io/v1"
    assert (profile["metadata"]["name"], profile["metadata"]["namespace"]) == ("one", "redhat-ods-applications")


def test_it_stands_in_the_platforms_own_namespace():
    found = stack(pool(hardwareProfile=PROFILE)).model_dump(by_alias=True)
    found["platform"]["applicationsNamespace"] = "opendatahub"
    (profile,) = hardware_profiles(Stack.model_validate(found))
    assert profile["metadata"]["namespace"] == "opendatahub"


def test_the_dashboard_shows_it_for_model_serving_alone():
    (profile,) = hardware_profiles(stack(pool(**NODE)))
    assert profile["metadata"]["annotations"] == {
        "opendatahub.io/display-name": "4 x NVIDIA-L4",
        "opendatahub.io/description": "g6.12xlarge with 4 GPUs",
        "opendatahub.io/disabled": "false",
        "opendatahub.io/dashboard-feature-visibility": '["model-serving"]',
    }


def test_it_proposes_what_the_first_service_asks_and_allows_the_node():
    variants = [variant("x", tensorParallelSize=2), variant("y", tensorParallelSize=4)]
    assert bounds(stack(pool(**NODE), variants=variants)) == {
        "cpu": (1, 8, 46), "memory": ("1Gi", "20Gi", "165Gi"), "nvidia.com/gpu": (1, 2, 4),
    }  # fmt: skip


@pytest.mark.parametrize(("cpu", "shown"), [(2.5, "2500m"), (0.5, 1), (3.0, 3), (200.0, 200)])
def test_proposals_are_quantities_within_the_bounds(cpu: float, shown: int | str):
    found = bounds(stack(pool(**NODE), variants=[variant("x", resources={"cpu": cpu, "memory": "512MiB"})]))
    assert found["cpu"][1] == shown
    assert found["cpu"][2] == max(46, cpu)
    assert found["memory"][1] == "1Gi"


def test_of_an_unknown_machine_there_is_no_upper_bound_but_for_gpus():
    found = bounds(stack(pool(hardwareProfile=PROFILE)))
    assert (found["cpu"][2], found["memory"][2], found["nvidia.com/gpu"][2]) == (None, None, 1)


def test_a_pool_without_services_proposes_the_whole_node_of_gpus():
    found = stack(pool("used"), pool("l4", **NODE), variants=[variant("x", "used")])
    assert bounds(found)["nvidia.com/gpu"] == (1, 4, 4)
    assert bounds(found)["cpu"] == (1, 16, 46)


def test_with_a_queue_it_names_the_queue_and_never_nodes():
    (profile,) = hardware_profiles(stack(pool(**NODE), queue={"name": "llm"}))
    assert profile["spec"]["scheduling"] == {"type": "Queue", "kueue": {"localQueueName": "llm"}}


def test_without_a_queue_it_names_the_nodes_and_never_a_queue():
    (profile,) = hardware_profiles(stack(pool(**NODE)))
    assert profile["spec"]["scheduling"] == {
        "type": "Node",
        "node": {
            "nodeSelector": {"node.kubernetes.io/instance-type": "g6.12xlarge"},
            "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
        },
    }
