"""The nodes of a pool: labels that they really have, and what is left of them for pods."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from capacity import MACHINE_SET, pool, stack
from modelberth.base.errors import UsageError
from modelberth.base.units import GB, GIB
from modelberth.catalog.instances import all_instances
from modelberth.manifests.nodes import disk_bytes, disk_for_pods, gpu_toleration, node_labels, node_share
from modelberth.spec.cluster import Pool


def of(**fields) -> Pool:
    return stack(pool(**fields)).pools[0]


def test_declared_labels_come_before_the_instance_type_and_that_before_the_gpu():
    declared = {"acme.example/gpu": "l4"}
    assert node_labels(of(nodeLabels=declared, instanceType="g6.4xlarge")) == declared
    assert node_labels(of(instanceType="g6.4xlarge")) == {"node.kubernetes.io/instance-type": "g6.4xlarge"}
    assert node_labels(of()) == {"nvidia.com/gpu.product": "NVIDIA-L4"}


def test_the_labels_given_out_are_a_copy():
    declared = of(nodeLabels={"acme.example/gpu": "l4"})
    node_labels(declared)["more"] = "x"
    assert node_labels(declared) == {"acme.example/gpu": "l4"}


def test_names_are_written_as_nodes_have_them():
    assert node_labels(of(gpu="L4")) == {"nvidia.com/gpu.product": "NVIDIA-L4"}
    assert node_labels(of(gpu="NVIDIA-L4-SHARED")) == {"nvidia.com/gpu.product": "NVIDIA-L4-SHARED"}
    assert node_labels(of(gpu="Card-of-tomorrow")) == {"nvidia.com/gpu.product": "Card-of-tomorrow"}
    assert node_labels(of(instanceType="G6.4xLarge")) == {"node.kubernetes.io/instance-type": "g6.4xlarge"}
    assert node_labels(of(instanceType="acme.gpu1")) == {"node.kubernetes.io/instance-type": "acme.gpu1"}


@pytest.mark.parametrize("field", ["gpu", "instanceType"])
@pytest.mark.parametrize("text", ["a card: {{ x }}", "x" * 64, "-x", "new\nline"])
def test_what_no_label_can_say_is_refused_by_its_field(field: str, text: str):
    with pytest.raises(UsageError) as caught:
        node_labels(of(**{field: text}))
    assert caught.value.where == f"{field} of pool 'l4'"
    assert "\n" not in caught.value.what


@given(st.text(min_size=1, max_size=80))
def test_whatever_the_gpu_is_called_there_is_a_valid_label_or_an_error(text: str):
    declared = of().model_copy(update={"gpu": text})
    try:
        (value,) = node_labels(declared).values()
    except UsageError:
        return
    assert len(value) <= 63
    assert re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?", value, re.ASCII)


def test_a_node_keeps_something_for_itself():
    share = node_share(of(instanceType="g6.4xlarge"), 1)
    assert share is not None
    # 16 processors: 60m + 10m + 10m + 30m for the kubelet, and one for the platform's pods.
    assert share.cpus == pytest.approx(16 - 0.11 - 1)
    # 64 GiB are 59.2 to the kubelet, which keeps 1 + 0.8 + 0.8 + 43.2 * 6% and 100 MiB; 2 GiB are the platform's pods'.
    assert share.memory_bytes / GIB == pytest.approx(59.2 - 5.192 - 100 / 1024 - 2, abs=0.01)


def test_some_gpus_of_a_node_go_with_their_part_of_it():
    four = of(count=4, instanceType="g6.12xlarge")
    whole, half = node_share(four, 4), node_share(four, 2)
    assert whole is not None
    assert half is not None
    assert half.cpus == whole.cpus / 2
    assert half.memory_bytes == pytest.approx(whole.memory_bytes / 2, abs=1)
    assert node_share(four, 8) == whole


@pytest.mark.parametrize("machine", all_instances(), ids=lambda machine: machine.name)
def test_every_machine_of_the_catalogue_has_something_left_but_not_all(machine):
    share = node_share(of(gpu=machine.gpu, count=machine.gpus, instanceType=machine.name), machine.gpus)
    assert share is not None
    assert 0 < share.cpus < machine.vcpus
    assert 0 < share.memory_bytes < machine.memory_gib * GIB


def test_of_an_unknown_machine_nothing_is_said():
    assert node_share(of(), 1) is None
    assert node_share(of(instanceType="acme.gpu1"), 1) is None


def test_the_disk_is_the_declared_one_else_that_of_the_machine_set():
    assert disk_bytes(of(nodeDisk="300GB", machineSet=MACHINE_SET, instanceType="g6.4xlarge")) == 300 * GB
    assert disk_bytes(of(machineSet=MACHINE_SET, instanceType="g6.4xlarge")) == 500 * GB
    assert disk_bytes(of()) is None
    assert disk_for_pods(of()) is None
    assert disk_for_pods(of(nodeDisk="300GB")) == 270 * GB


def test_every_toleration_is_one_of_its_own():
    first = gpu_toleration()
    first["key"] = "changed"
    assert gpu_toleration() == {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
