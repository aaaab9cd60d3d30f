"""What an API server would say of an object: schemas of the CRDs and of Kubernetes itself, unknown fields refused.

CRDs are read from `../shared/data/crds`, beside a checkout; tests that need them skip where they are absent. Kinds
that have no CRD there have a small schema of our own in `tests/data/crds`, of the fields that we write alone, each with
its source. Built-in kinds are validated by kubernetes-validate (the OpenAPI schemas of Kubernetes, strict).
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import celpy
import kubernetes_validate
import yaml
from celpy.adapter import json_to_cel
from jsonschema import Draft202012Validator

ROOT = Path(__file__).parents[2]
SHARED_CRDS = ROOT.parent / "shared" / "data" / "crds"
OWN = ROOT / "tests" / "data" / "crds"
KUBERNETES = "1.32"  # OpenShift 4.19; what we write is in every release since
WHY_SKIPPED = "../shared/data/crds is not beside this checkout"

_FOLDERS = {"0.15.2": ("kserve-0.15.2",), "0.17.0": ("kserve-0.15.2", "kserve-0.20"), "0.20.0": ("kserve-0.20",)}
_BUILT_IN = {"v1", "batch/v1", "apps/v1", "rbac.authorization.k8s.io/v1"}

# The CRD of LLMInferenceService that OpenShift AI 3.0 to 3.3 ship (red-hat-data-services/kserve, branch rhoai-3.0,
# config/crd/full) is not in the shared folder; it is KServe 0.20's v1alpha1 without these fields.
_NOT_IN_3_0 = (
    "annotations", "labels", "kvCacheOffloading", "scaling", "storageInitializer", "tracing", "prefill.annotations",
    "prefill.labels", "prefill.scaling", "router.scheduler.config", "router.scheduler.replicas",
    "router.scheduler.annotations", "router.scheduler.labels", "router.route.group", "router.route.weight",
)  # fmt: skip


def crds_for(kserve: str) -> tuple[Path, ...]:
    """The folders whose CRDs an object for this release of KServe has to satisfy, each that has its kind.

    There is no folder for 0.17: what is written for it has to suit the release before and the one after.
    """
    return tuple(SHARED_CRDS / name for name in (*_FOLDERS[kserve], "platform"))


@dataclass(frozen=True)
class _Version:
    schema: dict[str, Any]
    validator: Draft202012Validator
    namespaced: bool
    deprecated: bool


def problems(objects: Iterable[Mapping[str, Any]], kserve: str) -> list[str]:
    """Everything that an API server would refuse, each with kind, name and field."""
    return [f"{each['kind']}/{_name(each)}: {text}" for each in objects for text in _problems(dict(each), kserve)]


def _name(obj: Mapping[str, Any]) -> str:
    return str(obj.get("metadata", {}).get("name"))


def _problems(obj: dict[str, Any], kserve: str) -> Iterator[str]:
    yield from metadata_problems(obj)
    if obj["apiVersion"] in _BUILT_IN:
        yield from _built_in_problems(obj)
        return
    group, _, version = obj["apiVersion"].rpartition("/")
    if kserve == "0.15.2" and obj["kind"] == "LLMInferenceService":
        yield from _custom_problems(obj, _of_3_0()) if version == "v1alpha1" else ["the version is not served"]
        return
    found = [served for folder in (*crds_for(kserve), OWN) if (served := _kinds(folder).get((group, obj["kind"])))]
    if not found:
        yield "no schema"
    for served in found:
        if version not in served and obj["kind"] == "LLMInferenceService":
            continue  # of a release that has it not yet
        if version not in served:
            yield f"apiVersion {obj['apiVersion']} is not served"
            continue
        yield from _custom_problems(obj, served[version])


def _built_in_problems(obj: dict[str, Any]) -> Iterator[str]:
    try:
        kubernetes_validate.validate(obj, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        yield f".{'.'.join(str(part) for part in error.path)}: {error.message}"


@cache
def _kinds(folder: Path) -> dict[tuple[str, str], dict[str, _Version]]:
    kinds: dict[tuple[str, str], dict[str, _Version]] = {}
    for path in sorted(folder.glob("*.yaml")):
        for crd in yaml.load_all(path.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            spec = crd["spec"]
            kinds[spec["group"], spec["names"]["kind"]] = {
                each["name"]: _version(each, spec["scope"]) for each in spec["versions"] if each["served"]
            }
    return kinds


def _version(entry: dict[str, Any], scope: str) -> _Version:
    schema = entry["schema"]["openAPIV3Schema"]
    checked = Draft202012Validator(_closed(schema))
    return _Version(schema, checked, scope == "Namespaced", bool(entry.get("deprecated")))


@cache
def _of_3_0() -> _Version:
    served = _kinds(SHARED_CRDS / "kserve-0.20")["serving.kserve.io", "LLMInferenceService"]["v1alpha1"]
    schema = copy.deepcopy(served.schema)
    for path in _NOT_IN_3_0:
        *parents, last = path.split(".")
        fields = schema["properties"]["spec"]["properties"]
        for part in parents:
            fields = fields[part]["properties"]
        fields.pop(last, None)
    return _Version(schema, Draft202012Validator(_closed(schema)), namespaced=True, deprecated=False)


def _closed(schema: dict[str, Any], *, top: bool = True) -> dict[str, Any]:
    """A CRD's schema as JSON Schema that takes no field it does not name."""
    closed = {
        key: value
        for key, value in schema.items()
        if key in {"type", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems",
                   "required", "multipleOf", "uniqueItems", "minProperties", "maxProperties"}
    }  # fmt: skip
    if schema.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)
        closed["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if schema.get("nullable") and "type" in closed:
        closed["type"] = [closed["type"], "null"]
    if isinstance(schema.get("items"), dict):
        closed["items"] = _closed(schema["items"], top=False)
    if "properties" in schema:
        fields = {name: _closed(child, top=False) for name, child in schema["properties"].items()}
        if top or schema.get("x-kubernetes-embedded-resource"):
            fields |= {"metadata": {"type": "object"}, "apiVersion": {"type": "string"}, "kind": {"type": "string"}}
        closed["properties"] = fields
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), dict):
        closed["additionalProperties"] = _closed(schema["additionalProperties"], top=False)
    for key in ("anyOf", "oneOf", "allOf"):
        if key in schema and not schema.get("x-kubernetes-int-or-string"):
            # Value validations: they add to what is named above and name nothing.
            closed[key] = [{name: part for name, part in each.items() if not name.startswith("x-")}
                           for each in schema[key]]  # fmt: skip
    return closed


def _custom_problems(obj: dict[str, Any], version: _Version) -> Iterator[str]:
    if version.namespaced != ("namespace" in obj["metadata"]):
        yield ".metadata.namespace: " + ("is missing" if version.namespaced else "the kind has none")
    filled = copy.deepcopy(obj)
    _fill(filled, version.schema)
    errors = sorted(version.validator.iter_errors(filled), key=lambda each: [str(part) for part in each.absolute_path])
    for error in errors:
        yield f".{'.'.join(str(part) for part in error.absolute_path)}: {error.message}"
    if not errors:
        yield from _rule_problems(filled, version.schema, "")


def _fill(value: Any, schema: Mapping[str, Any]) -> None:
    """Write defaults, as the API server does before it validates."""
    if isinstance(value, dict):
        for name, child in schema.get("properties", {}).items():
            if "default" in child and name not in value:
                value[name] = copy.deepcopy(child["default"])
            if name in value:
                _fill(value[name], child)
        further = schema.get("additionalProperties")
        if isinstance(further, dict):
            for child in value.values():
                _fill(child, further)
    elif isinstance(value, list):
        for child in value:
            _fill(child, schema.get("items", {}))


def _rule_problems(value: Any, schema: Mapping[str, Any], path: str) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", []):
        if "oldSelf" not in rule["rule"] and not _holds(rule["rule"], value):
            yield f"{path or '.'}: {rule.get('message') or rule['rule']}"
    if schema.get("x-kubernetes-list-type") == "map":
        keys = [tuple(item.get(key) for key in schema["x-kubernetes-list-map-keys"]) for item in value]
        yield from (f"{path}: the key {key} stands twice" for key in {each for each in keys if keys.count(each) > 1})
    if isinstance(value, dict):
        named, further = schema.get("properties", {}), schema.get("additionalProperties")
        for name, child in value.items():
            below = named.get(name, further)
            if isinstance(below, dict):
                yield from _rule_problems(child, below, f"{path}.{name}")
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from _rule_problems(child, schema.get("items", {}), f"{path}[{index}]")


@cache
def _program(rule: str) -> celpy.Runner:
    environment = celpy.Environment()
    return environment.program(environment.compile(rule))


def _holds(rule: str, value: Any) -> bool:
    try:
        return bool(_program(rule).evaluate({"self": json_to_cel(value)}))
    except celpy.CELEvalError as error:
        raise AssertionError(f"the rule {rule!r} could not be evaluated: {error}") from error


# --- metadata, as of every kind ----------------------------------------------------------------------------

_SUBDOMAIN = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*")
_LABEL_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?")


def metadata_problems(obj: Mapping[str, Any]) -> Iterator[str]:
    """Names, labels and annotations (Kubernetes, "Object Names and IDs", "Labels and Selectors", "Annotations")."""
    meta = obj["metadata"]
    name = meta.get("name", "")
    if not _SUBDOMAIN.fullmatch(name) or len(name) > (63 if obj["kind"] in {"Job", "Service", "Namespace"} else 253):
        yield f".metadata.name: {name!r} is no name"
    if "namespace" in meta and (not _SUBDOMAIN.fullmatch(meta["namespace"]) or len(meta["namespace"]) > 63):
        yield f".metadata.namespace: {meta['namespace']!r} is no name"
    for key, value in meta.get("labels", {}).items():
        if not _LABEL_KEY.fullmatch(key) or len(key.rpartition("/")[2]) > 63:
            yield f".metadata.labels: {key!r} is no key"
        if not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value) or len(value) > 63:
            yield f".metadata.labels.{key}: {value!r} is no value"
    notes = meta.get("annotations", {})
    for key, value in notes.items():
        if not _LABEL_KEY.fullmatch(key) or not isinstance(value, str):
            yield f".metadata.annotations: {key!r} is no key, or its value no text"
    if sum(len(key) + len(str(value).encode()) for key, value in notes.items()) > 256 << 10:
        yield ".metadata.annotations: more than 256 KiB"
