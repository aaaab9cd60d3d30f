"""MachineSets of OpenShift on AWS: the nodes of a pool, none to begin with.

The fields are those of the cluster's own worker MachineSets (OpenShift documentation, "Creating a compute machine set
on AWS"); names of profile, security groups and subnet follow from the infrastructure name, as the installer makes them.
"""

from __future__ import annotations

import hashlib
import math
from typing import Any

from modelberth.base.units import GIB
from modelberth.catalog.instances import find_instance
from modelberth.manifests.nodes import (
    GPU_TAINT,
    PRODUCT_LABEL,
    disk_bytes,
    gpu_product,
    instance_type,
    node_labels,
)
from modelberth.manifests.objects import WAVE_CAPACITY, Manifest, metadata, wave
from modelberth.spec.cluster import MachineSet, Pool
from modelberth.spec.stack import Stack

NAMESPACE = "openshift-machine-api"
# The autoscaler takes a node with this label for ready only once its GPUs are: else it adds another meanwhile
# (OpenShift documentation, "Labeling GPU machine sets for the cluster autoscaler").
_ACCELERATOR_LABEL = "cluster-api/accelerator"
# What the autoscaler reads of nodes that do not exist yet.
_GPUS = "machine.openshift.io/GPU"
_CPUS = "machine.openshift.io/vCPU"
_MEMORY = "machine.openshift.io/memoryMb"
_LABELS = "capacity.cluster-autoscaler.kubernetes.io/labels"
SIZE_ANNOTATIONS = (_GPUS, _CPUS, _MEMORY, _LABELS)
"""Annotations that the provider's controller writes too."""
_NAME_LENGTH = 63  # it is the value of a label
_HASH_LENGTH = 8


def machine_sets(stack: Stack) -> list[Manifest]:
    """One for each pool that declares one."""
    return [_machine_set(stack, pool, pool.machine_set) for pool in stack.pools if pool.machine_set]


def machine_set_name(stack: Stack, pool: Pool, wanted: MachineSet) -> str:
    """`<cluster>-<stack>-<pool>-<zone>`; a longer one ends in its hash.

    All MachineSets of a cluster share one namespace: without the stack's name two stacks that call a pool alike would
    take each other's nodes.
    """
    name = f"{wanted.infrastructure_name}-{stack.metadata.name}-{pool.name}-{wanted.zone}"
    if len(name) <= _NAME_LENGTH:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_LENGTH]
    return f"{name[: _NAME_LENGTH - _HASH_LENGTH - 1].rstrip('-')}-{digest}"


def _machine_set(stack: Stack, pool: Pool, wanted: MachineSet) -> Manifest:
    name = machine_set_name(stack, pool, wanted)
    selected = {
        "machine.openshift.io/cluster-api-cluster": wanted.infrastructure_name,
        "machine.openshift.io/cluster-api-machineset": name,
    }
    machine_labels = {
        **selected,
        "machine.openshift.io/cluster-api-machine-role": "worker",
        "machine.openshift.io/cluster-api-machine-type": "worker",
    }
    return {
        "apiVersion": "machine.openshift.io/v1beta1",
        "kind": "MachineSet",
        "metadata": metadata(
            name, NAMESPACE, stack.metadata.name,
            labels={"machine.openshift.io/cluster-api-cluster": wanted.infrastructure_name},
            annotations=_scale_from_zero(pool), wave=wave(stack, WAVE_CAPACITY),
        ),
        "spec": {
            "replicas": wanted.replicas,
            "selector": {"matchLabels": selected},
            "template": {
                "metadata": {"labels": machine_labels},
                "spec": {
                    "metadata": {"labels": _own_labels(pool)},
                    "providerSpec": {"value": _provider(pool, wanted)},
                    "taints": [{"key": GPU_TAINT, "value": "true", "effect": "NoSchedule"}],
                },
            },
        },
    }  # fmt: skip


def _scale_from_zero(pool: Pool) -> dict[str, str]:
    """What the autoscaler is told of nodes that do not exist yet: size, and the labels that services select by."""
    machine = find_instance(pool.instance_type or "")
    # As the provider's own controller writes them, so that the two agree: the machine's GPUs, not the pool's.
    known = {_CPUS: str(machine.vcpus), _MEMORY: str(machine.memory_gib * 1024)} if machine else {}
    labels = {**node_labels(pool), PRODUCT_LABEL: gpu_product(pool)}
    return {
        _GPUS: str(machine.gpus if machine else pool.count),
        **known,
        _LABELS: ",".join(f"{key}={labels[key]}" for key in sorted(labels)),
    }


def _own_labels(pool: Pool) -> dict[str, str]:
    """Labels that only this MachineSet can set: the instance type's and the product's come by themselves."""
    return {"node-role.kubernetes.io/worker": "", **pool.node_labels, _ACCELERATOR_LABEL: gpu_product(pool)}


def _provider(pool: Pool, wanted: MachineSet) -> dict[str, Any]:
    infra = wanted.infrastructure_name
    volume = {"volumeType": "gp3", "volumeSize": math.ceil((disk_bytes(pool) or 0) / GIB), "encrypted": True}
    return {
        "apiVersion": "machine.openshift.io/v1beta1",
        "kind": "AWSMachineProviderConfig",
        "ami": {"id": wanted.ami},
        "blockDevices": [{"ebs": volume}],
        "credentialsSecret": {"name": "aws-cloud-credentials"},
        "deviceIndex": 0,
        "iamInstanceProfile": {"id": f"{infra}-worker-profile"},
        "instanceType": instance_type(pool, pool.instance_type or ""),
        "metadataServiceOptions": {"authentication": "Required"},
        "placement": {"availabilityZone": wanted.zone, "region": wanted.region},
        # Two names each: of clusters installed since 4.16, and before. A filter matches any of its values.
        "securityGroups": [{"filters": [_named(f"{infra}-node", f"{infra}-lb", f"{infra}-worker-sg")]}],
        "subnet": {"filters": [_named(f"{infra}-subnet-private-{wanted.zone}", f"{infra}-private-{wanted.zone}")]},
        "tags": [{"name": f"kubernetes.io/cluster/{infra}", "value": "owned"}],
        "userDataSecret": {"name": "worker-user-data"},
    }


def _named(*names: str) -> dict[str, Any]:
    return {"name": "tag:Name", "values": list(names)}
