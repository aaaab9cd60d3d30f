"""What an API server says of an object's metadata, whatever its kind: names, labels, annotations.

The rules are those of the Kubernetes documentation, "Object Names and IDs", "Labels and Selectors", "Annotations".
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_SERVICE = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_LABEL.pattern}(\.{_LABEL.pattern})*")
_QUALIFIED = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_SEGMENT = re.compile(r"(?!\.{1,2}\Z)[^/%]+")  # no part of a URL that would mean another

# What a name may be, by kind; a Job's name becomes a label of its pods.
_NAMES = {"Service": (_SERVICE, 63), "Namespace": (_LABEL, 63), "Job": (_SUBDOMAIN, 63),
          **dict.fromkeys(("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"), (_SEGMENT, 253))}  # fmt: skip
_FIELDS = frozenset({
    "name", "generateName", "namespace", "labels", "annotations", "finalizers", "ownerReferences", "uid", "generation",
    "resourceVersion", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "managedFields",
    "selfLink",
})  # fmt: skip
_ANNOTATIONS_SIZE = 256 << 10


def metadata_problems(meta: Any, kind: str, path: str = ".metadata") -> Iterator[str]:
    """Everything that is refused, each as "path: why"."""
    if not isinstance(meta, Mapping):
        yield f"{path}: must be object"
        return
    yield from (f"{path}.{name}: unknown field" for name in meta if name not in _FIELDS)
    pattern, length = _NAMES.get(kind, (_SUBDOMAIN, 253))
    if not _is(pattern, meta.get("name"), length):
        yield f"{path}.name: {meta.get('name')!r} is no name of a {kind}"
    if "namespace" in meta and not _is(_LABEL, meta["namespace"], 63):
        yield f"{path}.namespace: {meta['namespace']!r} is no name of a Namespace"
    yield from tag_problems(meta, path)


def tag_problems(meta: Mapping[str, Any], path: str) -> Iterator[str]:
    """The same of labels and annotations alone, of a pod template too."""
    # Null is as good as absent.
    labels, annotations = ({} if meta.get(name) is None else meta[name] for name in ("labels", "annotations"))
    if not isinstance(labels, dict) or not isinstance(annotations, dict):
        yield f"{path}: labels and annotations are objects"
        return
    for key, value in labels.items():
        if not is_key(key):
            yield f"{path}.labels: {key!r} is no key"
        if value != "" and not _is(_QUALIFIED, value, 63):
            yield f"{path}.labels.{key}: {value!r} is no value of a label"
    for key, value in annotations.items():
        if not isinstance(key, str) or not is_key(key.lower()):
            yield f"{path}.annotations: {key!r} is no key"
        if not isinstance(value, str):
            yield f"{path}.annotations.{key}: must be string, not {type(value).__name__}"
    if sum(len(str(key).encode()) + len(str(value).encode()) for key, value in annotations.items()) > _ANNOTATIONS_SIZE:
        yield f"{path}.annotations: more than 256 KiB"


def is_key(key: Any) -> bool:
    """Whether a text can be the key of a label: a name of 63 characters, with a DNS name before it or none."""
    prefix, slash, name = key.rpartition("/") if isinstance(key, str) else ("", "", None)
    return _is(_QUALIFIED, name, 63) and (not slash or _is(_SUBDOMAIN, prefix, 253))


def is_label_name(name: Any) -> bool:
    """Whether a text is a DNS label, as the names of containers and volumes are."""
    return _is(_LABEL, name, 63)


def _is(pattern: re.Pattern[str], text: Any, length: int) -> bool:
    return isinstance(text, str) and len(text) <= length and pattern.fullmatch(text) is not None
