"""What an API server would say of plain objects: strict validation, defaults first, rules in CEL last.

Webhooks are not in it: what a controller refuses beyond its definition is for the tests of the builders.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from built_in_kinds import built_in_problems, is_built_in, is_namespaced
from cel_rules import rule_problems
from definitions import SHARED_CRDS, Version, crds_for, versions_of
from object_metadata import metadata_problems
from structural_schemas import Checker, with_defaults

__all__ = ["SHARED_CRDS", "WHY_SKIPPED", "crds_for", "problems", "warnings"]

WHY_SKIPPED = "../shared/data/crds is not beside this checkout"

_TOP = ("apiVersion", "kind", "metadata")
_OPEN = {"x-kubernetes-preserve-unknown-fields": True}
_STRUCTURE = Checker()

Object = Mapping[str, Any]
Definitions = Path | Iterable[Path]


def problems(objects: Iterable[Object], crds: Definitions) -> list[str]:
    """Everything that an API server would refuse, as "Kind/name: .spec.x: why"; empty when it takes all.

    Args:
        objects: plain data.
        crds: folders of definitions, as `crds_for` gives them. An object has to pass in each that has its kind and
            version.
    """
    folders = _folders(crds)
    return [f"{_title(each)}: {why}" for each in objects for why in dict.fromkeys(_problems(each, folders))]


def warnings(objects: Iterable[Object], crds: Definitions) -> list[str]:
    """What it would take with a warning: versions of a kind that are deprecated."""
    folders = _folders(crds)
    return [
        f"{_title(each)}: {each['apiVersion']} {text}"
        for each in objects
        for text in dict.fromkeys(found.deprecated for found in _definitions(each, folders)[1] if found.deprecated)
    ]


def _folders(crds: Definitions) -> list[Path]:
    return [crds] if isinstance(crds, Path) else list(crds)


def _title(obj: Object) -> str:
    meta = obj.get("metadata")
    return f"{obj.get('kind')}/{meta.get('name') if isinstance(meta, Mapping) else None}"


def _definitions(obj: Object, folders: list[Path]) -> tuple[bool, list[Version]]:
    """Whether the kind is defined, and its definitions in the object's version."""
    group, _, version = obj["apiVersion"].rpartition("/")
    found = list(versions_of(group, obj["kind"], folders))
    return bool(found), [served[version] for served in found if version in served]


def _problems(obj: Object, folders: list[Path]) -> Iterator[str]:
    api_version, kind = obj.get("apiVersion"), obj.get("kind")
    if not isinstance(api_version, str) or not isinstance(kind, str):
        yield ".: apiVersion and kind are missing"
        return
    yield from metadata_problems(obj.get("metadata"), kind)
    defined, served = _definitions(obj, folders)
    if not defined and is_built_in(api_version, kind):
        yield from _scope_problems(obj, namespaced=is_namespaced(kind))
        yield from built_in_problems(obj)
    elif not defined:
        yield f".: no schema of {api_version} {kind}"
    elif not served:
        yield f".apiVersion: {api_version} is not served"
    for version in served:
        yield from _scope_problems(obj, namespaced=version.namespaced)
        yield from _custom_problems(obj, version)


def _scope_problems(obj: Object, *, namespaced: bool) -> Iterator[str]:
    meta = obj.get("metadata")
    named = isinstance(meta, Mapping) and "namespace" in meta
    if named != namespaced:
        yield ".metadata.namespace: " + ("is missing" if namespaced else f"a {obj['kind']} stands in none")


def _custom_problems(obj: Object, version: Version) -> Iterator[str]:
    schema = dict(version.schema)
    # Every object has these three, whatever its definition says of them; metadata has rules of its own.
    schema["properties"] = {**schema.get("properties", {}), **dict.fromkeys(_TOP, _OPEN)}
    filled = with_defaults(dict(obj), schema)
    found = list(_STRUCTURE.problems(filled, schema))
    yield from found
    if not found:
        yield from rule_problems(filled, schema)
