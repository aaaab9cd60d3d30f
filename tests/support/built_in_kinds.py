"""What an API server says of the kinds that Kubernetes brings itself.

The schemas are those of the PyPI package kubernetes-validate (the OpenAPI of Kubernetes, closed). Its own `validate`
names one problem and reads 1.3 MB anew each time, so the files are read here. What stands in no schema, but is
refused all the same, is here for what we write: quantities, keys of Secrets and ConfigMaps, pods of Jobs, claims.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from object_metadata import is_label_name, tag_problems
from structural_schemas import Checker, Schema

KUBERNETES = "1.32.0"  # OpenShift 4.19, the oldest with OpenShift AI 3; what we write is in every release since

_QUANTITY = r"^[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]+)?$"
_CLUSTER_SCOPED = frozenset({"Namespace", "Node", "PersistentVolume", "ClusterRole", "ClusterRoleBinding",
                             "StorageClass", "PriorityClass", "RuntimeClass", "CSIDriver"})  # fmt: skip
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_VARIABLE = re.compile(r"[ -<>-~]+")  # printable ASCII but for =
_DATA_SIZE = 1 << 20


def is_built_in(api_version: str, kind: str) -> bool:
    """Whether Kubernetes itself brings the kind."""
    group = api_version.rpartition("/")[0]
    return ("." not in group or group.endswith(".k8s.io")) and _schema(api_version, kind) is not None


def is_namespaced(kind: str) -> bool:
    """Whether objects of a built-in kind stand in a namespace."""
    return kind not in _CLUSTER_SCOPED


def built_in_problems(obj: Mapping[str, Any]) -> Iterator[str]:
    """Everything that is refused, each as "path: why"."""
    schema = _schema(obj["apiVersion"], obj["kind"])
    assert schema is not None, f"no schema of {obj['apiVersion']} {obj['kind']}"
    found = list(_checker().problems(obj, schema))
    yield from found
    if not found and obj["kind"] in _FURTHER:
        yield from _FURTHER[obj["kind"]](obj)


@cache
def _schema(api_version: str, kind: str) -> Schema | None:
    group, _, version = api_version.rpartition("/")
    name = "-".join(part for part in (kind.lower(), group.partition(".")[0], version) if part)
    path = _folder() / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


@cache
def _checker() -> Checker:
    definitions = json.loads((_folder() / "_definitions.json").read_text())["$defs"]
    definitions["io.k8s.apimachinery.pkg.api.resource.Quantity"] = {
        "type": ["string", "number", "null"], "pattern": _QUANTITY,
    }  # fmt: skip
    definitions["io.k8s.apimachinery.pkg.util.intstr.IntOrString"] = {"x-kubernetes-int-or-string": True}
    return Checker(definitions, closed=False)


def _folder() -> Any:
    return files("kubernetes_validate") / "kubernetes-json-schema" / f"v{KUBERNETES}-local-strict"


def _data_problems(obj: Mapping[str, Any]) -> Iterator[str]:
    size = 0
    for part in ("data", "stringData", "binaryData"):
        for key, value in (obj.get(part) or {}).items():
            size += len(key.encode()) + len((value or "").encode())
            if not _KEY.fullmatch(key) or key in {".", ".."}:
                yield f".{part}: {key!r} is no key"
    if size > _DATA_SIZE:
        yield f".data: {size} bytes, more than 1 MiB"


def _claim_problems(obj: Mapping[str, Any]) -> Iterator[str]:
    spec = obj.get("spec") or {}
    if not spec.get("accessModes"):
        yield ".spec.accessModes: is missing"
    if "storage" not in ((spec.get("resources") or {}).get("requests") or {}):
        yield ".spec.resources.requests.storage: is missing"


def _job_problems(obj: Mapping[str, Any]) -> Iterator[str]:
    spec = obj.get("spec") or {}
    template = spec.get("template") or {}
    policy = (template.get("spec") or {}).get("restartPolicy")
    if policy not in {"OnFailure", "Never"}:
        yield f".spec.template.spec.restartPolicy: {policy!r} is none of OnFailure, Never"
    if spec.get("podFailurePolicy") and policy != "Never":
        yield ".spec.podFailurePolicy: needs restartPolicy Never"
    for name in ("backoffLimit", "activeDeadlineSeconds", "ttlSecondsAfterFinished", "parallelism", "completions"):
        if (spec.get(name) or 0) < 0:
            yield f".spec.{name}: {spec[name]} is below 0"
    yield from _pod_problems(template, ".spec.template")


def _pod_problems(template: Mapping[str, Any], path: str) -> Iterator[str]:
    yield from tag_problems(template.get("metadata") or {}, f"{path}.metadata")
    spec = template.get("spec") or {}
    here = f"{path}.spec"
    volumes = [each["name"] for each in spec.get("volumes") or ()]
    containers = [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]
    if not spec.get("containers"):
        yield f"{here}.containers: is missing"
    yield from _names_problems(volumes, f"{here}.volumes")
    yield from _names_problems([each["name"] for each in containers], f"{here}.containers")
    for each in spec.get("volumes") or ():
        if len(each) != 2:
            yield f"{here}.volumes.{each['name']}: needs one source"
    for each in containers:
        yield from _container_problems(each, volumes, f"{here}.containers.{each['name']}")


def _names_problems(names: list[str], path: str) -> Iterator[str]:
    yield from (f"{path}: {name!r} is no name" for name in names if not is_label_name(name))
    yield from (f"{path}: {name!r} stands twice" for name in sorted(set(names)) if names.count(name) > 1)


def _container_problems(container: Mapping[str, Any], volumes: list[str], path: str) -> Iterator[str]:
    if not container.get("image"):
        yield f"{path}.image: is missing"
    for each in container.get("env") or ():
        if not _VARIABLE.fullmatch(each["name"]):
            yield f"{path}.env: {each['name']!r} is no name"
        if each.get("value") and each.get("valueFrom"):
            yield f"{path}.env.{each['name']}: has value and valueFrom"
    mounted = [each["mountPath"] for each in container.get("volumeMounts") or ()]
    yield from (f"{path}.volumeMounts: {each} stands twice" for each in sorted(set(mounted)) if mounted.count(each) > 1)
    for each in container.get("volumeMounts") or ():
        if each["name"] not in volumes:
            yield f"{path}.volumeMounts: there is no volume {each['name']!r}"
        if not each["mountPath"] or ":" in each["mountPath"]:
            yield f"{path}.volumeMounts: {each['mountPath']!r} is no path"


_FURTHER = {"Secret": _data_problems, "ConfigMap": _data_problems, "PersistentVolumeClaim": _claim_problems,
            "Job": _job_problems}  # fmt: skip
