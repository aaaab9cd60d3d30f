"""Where a service runs: exactly one owner says it, because three that disagree leave pods pending.

- A Kueue queue: its flavours bring node labels and tolerations. A workload that has tolerations of its own is refused
  on admission ("existing toleration can not be modified"). Where the stack has several pools, node affinity tells Kueue
  which flavour is meant: quota is counted over all nodes of a flavour, and four nodes of one GPU are no node of four.
- A hardware profile of OpenShift AI: its webhook writes node selector and tolerations, or the queue's label.
- Neither: the service says it itself.
"""

from __future__ import annotations

from typing import Any

from modelberth.manifests.nodes import gpu_toleration, node_labels
from modelberth.spec.services import Service
from modelberth.spec.stack import Stack

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"


def pod_placement(stack: Stack, service: Service) -> dict[str, Any]:
    """`nodeSelector` and `tolerations` of the pods, or what is left to say where somebody else brings them."""
    if stack.queue is not None:
        return {"affinity": _affinity(node_labels(service.pool))} if len(stack.pools) > 1 else {}
    if service.pool.hardware_profile is not None:
        return {}
    return {"nodeSelector": node_labels(service.pool), "tolerations": [gpu_toleration()]}


def placement_labels(stack: Stack) -> dict[str, str]:
    """Labels by which a queue takes a service."""
    return {QUEUE_LABEL: stack.queue.name} if stack.queue is not None else {}


def placement_annotations(stack: Stack, service: Service) -> dict[str, str]:
    """Annotations by which a hardware profile takes a service."""
    profile = service.pool.hardware_profile
    if profile is None:
        return {}
    return {
        "opendatahub.io/hardware-profile-name": profile.name,
        "opendatahub.io/hardware-profile-namespace": stack.platform.applications_namespace,
    }


def _affinity(labels: dict[str, str]) -> dict[str, Any]:
    expressions = [{"key": key, "operator": "In", "values": [value]} for key, value in labels.items()]
    return {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": expressions}]}
        }
    }
