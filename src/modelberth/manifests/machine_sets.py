"""MachineSets of OpenShift on AWS: the nodes of a pool, none to begin with.

The fields are those of the cluster's own worker MachineSets (OpenShift documentation, "Creating a compute machine set
on AWS"); names of profile, security groups and subnet follow from the infrastructure name, as the installer makes them.
"""

from __future__ import annotations

from typing import Any

from modelberth.base.units import GB, GIB, parse_bytes
from modelberth.catalog.instances import find_instance
from modelberth.manifests.nodes import GPU_TAINT, PRODUCT_LABEL, node_labels
from modelberth.manifests.objects import WAVE_CAPACITY, Manifest, metadata, wave
from modelberth.spec.cluster import MachineSet, Pool
from modelberth.spec.stack import Stack

NAMESPACE = "openshift-machine-api"
_DISK = 500 * GB  # that of the original deployment; images and weights share it
_NAME_LENGTH = 63


def machine_sets(stack: Stack) -> list[Manifest]:
    """One for each pool that declares one."""
    return [_machine_set(stack, pool, pool.machine_set) for pool in stack.pools if pool.machine_set]


def machine_set_name(pool: Pool, wanted: MachineSet) -> str:
    """`<cluster>-<pool>-<zone>`, as the installer names its own."""
    return f"{wanted.infrastructure_name}-{pool.name}-{wanted.zone}"[:_NAME_LENGTH].rstrip("-")


def _machine_set(stack: Stack, pool: Pool, wanted: MachineSet) -> Manifest:
    name = machine_set_name(pool, wanted)
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
                    "metadata": {"labels": {"node-role.kubernetes.io/worker": "", **_own_labels(pool)}},
                    "providerSpec": {"value": _provider(pool, wanted)},
                    "taints": [{"key": GPU_TAINT, "value": "true", "effect": "NoSchedule"}],
                },
            },
        },
    }  # fmt: skip


def _scale_from_zero(pool: Pool) -> dict[str, str]:
    """What the autoscaler is told of nodes that do not exist yet."""
    machine = find_instance(pool.instance_type or "")
    known = {
        "machine.openshift.io/vCPU": str(machine.vcpus),
        "machine.openshift.io/memoryMb": str(machine.memory_gib * 1024),
    } if machine else {}  # fmt: skip
    labels = f"{PRODUCT_LABEL}={pool.gpu}"
    return {
        "machine.openshift.io/GPU": str(pool.count),
        **known,
        "capacity.cluster-autoscaler.kubernetes.io/labels": labels,
    }


def _own_labels(pool: Pool) -> dict[str, str]:
    """Labels that only this MachineSet can set: the instance type's and the product's come by themselves."""
    return {key: value for key, value in node_labels(pool).items() if key in pool.node_labels}


def _provider(pool: Pool, wanted: MachineSet) -> dict[str, Any]:
    infra = wanted.infrastructure_name
    disk = parse_bytes(pool.node_disk) if pool.node_disk else _DISK
    volume = {"volumeType": "gp3", "volumeSize": max(1, disk // GIB), "encrypted": True}
    return {
        "apiVersion": "machine.openshift.io/v1beta1",
        "kind": "AWSMachineProviderConfig",
        "ami": {"id": wanted.ami},
        "blockDevices": [{"ebs": volume}],
        "credentialsSecret": {"name": "aws-cloud-credentials"},
        "deviceIndex": 0,
        "iamInstanceProfile": {"id": f"{infra}-worker-profile"},
        "instanceType": pool.instance_type,
        "metadataServiceOptions": {"authentication": "Required"},
        "placement": {"availabilityZone": wanted.zone, "region": wanted.region},
        "securityGroups": [
            {"filters": [{"name": "tag:Name", "values": [f"{infra}-node"]}]},
            {"filters": [{"name": "tag:Name", "values": [f"{infra}-lb"]}]},
        ],
        "subnet": {"filters": [{"name": "tag:Name", "values": [f"{infra}-subnet-private-{wanted.zone}"]}]},
        "tags": [{"name": f"kubernetes.io/cluster/{infra}", "value": "owned"}],
        "userDataSecret": {"name": "worker-user-data"},
    }
