"""The objects of a namespace that states are told from, found by the service that they belong to.

A change names the services that it is about, so that with a thousand of them one pod's change costs one service.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import NamedTuple

from modelberth.adapters.kubernetes_api import Document
from modelberth.findings.diagnosis.belonging import SERVICE_KINDS, service_kind_of, service_of
from modelberth.timeline.pod_state import GPU

_KEPT_OF_POD = ("nodeName", "schedulingGates")
_KEPT_STATUS = ("phase", "reason", "message", "conditions", "initContainerStatuses", "containerStatuses")
_KEPT_ABOUT = ("name", "namespace", "labels", "annotations", "generation", "creationTimestamp", "deletionTimestamp",
               "finalizers", "ownerReferences", "uid", "resourceVersion")  # fmt: skip
_KEPT_OF_MODEL = ("runtime", "storageUri", "storage", "args", "uri", "name")


class ServiceKey(NamedTuple):
    """A service: an InferenceService and an LLMInferenceService may have one name."""

    kind: str
    name: str


def trimmed(document: Document) -> Document:
    """An object without what no state is told from."""
    about = {key: value for key, value in (document.get("metadata") or {}).items() if key in _KEPT_ABOUT}
    kept = {"kind": document.get("kind"), "apiVersion": document.get("apiVersion"), "metadata": about}
    spec, status = document.get("spec") or {}, document.get("status") or {}
    if document.get("kind") == "Pod":
        small = {key: spec[key] for key in _KEPT_OF_POD if key in spec}
        small["containers"] = [_container(each) for each in spec.get("containers") or []]
        return kept | {"spec": small, "status": {key: status[key] for key in _KEPT_STATUS if key in status}}
    if document.get("kind") in SERVICE_KINDS:
        return kept | {"spec": _service(spec), "status": status}
    return kept | {"spec": {"queueName": spec.get("queueName")}, "status": status}


def _container(container: Document) -> Document:
    gpus = ((container.get("resources") or {}).get("limits") or {}).get(GPU)
    small = {"name": container.get("name"), "image": container.get("image")}
    return small | ({"resources": {"limits": {GPU: gpus}}} if gpus else {})


def _service(spec: Document) -> Document:
    predictor = spec.get("predictor") or {}
    small: Document = {"predictor": {"minReplicas": predictor["minReplicas"]} if "minReplicas" in predictor else {}}
    if predictor.get("model"):
        small["predictor"]["model"] = _model(predictor["model"])
    if spec.get("replicas") is not None:
        small["replicas"] = spec["replicas"]
    if isinstance(spec.get("model"), dict):
        small["model"] = _model(spec["model"])
    containers = (spec.get("template") or {}).get("containers") or []
    small["template"] = {"containers": [{"args": each.get("args") or []} for each in containers]}
    return small


def _model(model: Document) -> Document:
    return {key: model[key] for key in _KEPT_OF_MODEL if key in model}


class Objects:
    """Services, their pods and their workloads.

    Attributes:
        changed: services of which something is another since somebody emptied it.
        gone: names of pods that are not there any more, since somebody emptied it.
    """

    def __init__(self) -> None:
        self.changed: set[ServiceKey] = set()
        self.gone: set[str] = set()
        self._services: dict[ServiceKey, Document] = {}
        self._pods: dict[str, Document] = {}
        self._of_service: dict[ServiceKey, dict[str, Document]] = defaultdict(dict)
        self._workloads: dict[str, Document] = {}
        self._of_owner: dict[str, dict[str, Document]] = defaultdict(dict)

    def replace(self, kind: str, documents: Iterable[Document]) -> None:
        """All that there is of a kind."""
        fresh = {_name(each): each for each in documents}
        for each in [each for each in self._all(kind) if _name(each) not in fresh]:
            self.remove(each)
        for each in fresh.values():
            self.put(each)

    def _all(self, kind: str) -> Iterable[Document]:
        if kind == "Pod":
            return self._pods.values()
        if kind in SERVICE_KINDS:
            return (each for key, each in self._services.items() if key.kind == kind)
        return self._workloads.values()

    def put(self, document: Document) -> None:
        """An object that is new, or another than it was."""
        kind, name = str(document.get("kind")), _name(document)
        if kind == "Pod":
            if name in self._pods:
                self._take_pod(self._pods[name])
            self._pods[name] = document
            if key := key_of_pod(document):
                self._of_service[key][name] = document
                self.changed.add(key)
        elif kind in SERVICE_KINDS:
            self._services[ServiceKey(kind, name)] = document
            self.changed.add(ServiceKey(kind, name))
        else:
            if name in self._workloads:
                self._take_workload(self._workloads[name])
            self._workloads[name] = document
            for owner in _owners(document):
                self._of_owner[owner][name] = document
            self._touch_owners(document)

    def remove(self, document: Document) -> None:
        """An object that is not there any more."""
        kind, name = str(document.get("kind")), _name(document)
        if kind == "Pod":
            known = self._pods.pop(name, None)
            if known is not None:
                self._take_pod(known)
                self.gone.add(name)
        elif kind in SERVICE_KINDS:
            self._services.pop(ServiceKey(kind, name), None)
            self.changed.add(ServiceKey(kind, name))
        elif name in self._workloads:
            self._take_workload(self._workloads.pop(name))

    def _take_pod(self, pod: Document) -> None:
        if key := key_of_pod(pod):
            self._of_service[key].pop(_name(pod), None)
            self.changed.add(key)

    def _take_workload(self, workload: Document) -> None:
        for owner in _owners(workload):
            self._of_owner[owner].pop(_name(workload), None)
            if not self._of_owner[owner]:
                del self._of_owner[owner]
        self._touch_owners(workload)

    def _touch_owners(self, workload: Document) -> None:
        for owner in _owners(workload):
            pod = self._pods.get(owner)
            if pod is not None and (key := key_of_pod(pod)):
                self.changed.add(key)

    def service_keys(self) -> list[ServiceKey]:
        """The services that there are, by name."""
        return sorted(self._services, key=lambda each: (each.name, each.kind))

    def named(self, name: str) -> list[ServiceKey]:
        """Those of one name."""
        return [key for kind in sorted(SERVICE_KINDS) if (key := ServiceKey(kind, name)) in self._services]

    def service(self, key: ServiceKey) -> Document | None:
        """One service; None where it is not there."""
        return self._services.get(key)

    def pods(self, key: ServiceKey) -> list[Document]:
        """Its pods."""
        return list(self._of_service.get(key, {}).values())

    def workloads(self, pods: Iterable[Document]) -> list[Document]:
        """The workloads of these pods."""
        found: dict[str, Document] = {}
        for pod in pods:
            for owner in (_name(pod), str(pod["metadata"].get("uid", ""))):
                found |= self._of_owner.get(owner, {})
        return list(found.values())

    def in_queue(self, queue: str) -> list[Document]:
        """The workloads of a queue."""
        return [each for each in self._workloads.values() if (each.get("spec") or {}).get("queueName") == queue]


def key_of_pod(pod: Document) -> ServiceKey | None:
    """The service that a pod belongs to."""
    name = service_of(pod)
    return ServiceKey(service_kind_of(pod), name) if name else None


def _owners(document: Document) -> set[str]:
    owners = document["metadata"].get("ownerReferences") or []
    return {str(owner[field]) for owner in owners for field in ("uid", "name") if owner.get(field)}


def _name(document: Document) -> str:
    return str(document["metadata"]["name"])
