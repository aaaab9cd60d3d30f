"""Which objects belong to a service: its pods, their events, its workloads, what owns them.

KServe labels pods with `serving.kserve.io/inferenceservice`; those of an LLMInferenceService carry its name in
`app.kubernetes.io/name` (kserve, pkg/constants and pkg/controller/v1alpha2/llmisvc). Cluster-wide objects (nodes,
queues) belong to every service.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Object = Mapping[str, Any]
SERVICE_KINDS = frozenset({"InferenceService", "LLMInferenceService"})
_LABELS = ("serving.kserve.io/inferenceservice", "app.kubernetes.io/name")
_SERVING_PART = "llminferenceservice"
_SCHEDULER = "llminferenceservice-router-scheduler"


def service_of(pod: Object) -> str:
    """Name of the service that a pod belongs to; empty where it belongs to none."""
    labels = _about(pod).get("labels") or {}
    if labels.get(_LABELS[0]):
        return str(labels[_LABELS[0]])
    if labels.get("app.kubernetes.io/component") == _SCHEDULER:
        return ""  # it has the service's name and a container `main`, and no engine
    if _SERVING_PART in str(labels.get("app.kubernetes.io/part-of", "")):
        return str(labels.get(_LABELS[1], ""))
    return ""


def service_kind_of(pod: Object) -> str:
    """Kind of the service that a pod belongs to, where it belongs to one."""
    return "InferenceService" if (_about(pod).get("labels") or {}).get(_LABELS[0]) else "LLMInferenceService"


def serving_pods(objects: Iterable[Object]) -> list[Object]:
    """The pods that belong to a service."""
    return [each for each in objects if each.get("kind") == "Pod" and service_of(each)]


def belonging(objects: Sequence[Object], service: str) -> list[Object]:
    """What belongs to a service.

    Args:
        objects: of its namespace and of the cluster.
        service: its name.
    """
    pods = {_name(each) for each in serving_pods(objects) if service_of(each) == service}
    uids = {str(_about(each).get("uid")) for each in objects if each.get("kind") == "Pod" and _name(each) in pods}
    return [each for each in objects if _belongs(each, service, pods, uids)]


def _belongs(each: Object, service: str, pods: set[str], uids: set[str]) -> bool:
    kind, name = each.get("kind"), _name(each)
    if not _about(each).get("namespace"):
        return True
    if kind == "Pod":
        return name in pods
    if kind == "Event":
        about = each.get("involvedObject") or each.get("regarding") or {}
        return _is_of(str(about.get("name", "")), service, pods)
    if kind == "Workload":
        owners = _about(each).get("ownerReferences") or []
        return any(
            str(owner.get("uid")) in uids or _is_of(str(owner.get("name", "")), service, pods) for owner in owners
        )
    if kind in SERVICE_KINDS:
        return name == service
    return kind not in {"Deployment", "ReplicaSet", "Job"} or _is_of(name, service, pods)


def _is_of(name: str, service: str, pods: set[str]) -> bool:
    """`mistral-predictor-7c9-x` is of mistral; `mistral-tp4-predictor-...` is not."""
    return name in pods or name == service or name.startswith((f"{service}-predictor", f"{service}-kserve"))


def _about(each: Object) -> Mapping[str, Any]:
    about = each.get("metadata")
    return about if isinstance(about, Mapping) else {}


def _name(each: Object) -> str:
    return str(_about(each).get("name", ""))
