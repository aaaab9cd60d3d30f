"""Server-side apply: who manages which field, conflicts, and what goes when a manager no longer names it.

Paths are tuples; a list whose items have a `name` (containers, env, ports with names) is a map by it, a list of
conditions one by `type`, every other list is atomic, as Kubernetes' own schemas mostly say.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

Document = dict[str, Any]
Path = tuple[str, ...]
_OUTSIDE = frozenset({"apiVersion", "kind"})
_KEYS = ("name", "type")


def leaves(value: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Every field that can be managed: scalars, empty mappings and atomic lists."""
    if isinstance(value, dict) and value:
        for key, each in value.items():
            yield from leaves(each, (*path, str(key)))
    elif key := _map_key(value):
        for each in value:
            yield from leaves(each, (*path, f"{key}={each[key]}"))
    else:
        yield path, value


def _map_key(value: Any) -> str:
    if not isinstance(value, list) or not value or not all(isinstance(each, dict) for each in value):
        return ""
    return next(
        (key for key in _KEYS if len({each.get(key) for each in value}) == len(value) and value[0].get(key)), ""
    )


def managed(document: Document) -> dict[Path, Any]:
    """The fields that an apply of this document manages."""
    about = {k: v for k, v in (document.get("metadata") or {}).items() if k in {"labels", "annotations", "finalizers"}}
    body = {k: v for k, v in document.items() if k not in _OUTSIDE | {"metadata", "status"}}
    return dict(leaves({**({"metadata": about} if about else {}), **body}))


def owners(stored: Document) -> dict[str, set[Path]]:
    """Fields by manager, out of managedFields."""
    found: dict[str, set[Path]] = {}
    for entry in stored["metadata"].get("managedFields") or []:
        found.setdefault(entry["manager"], set()).update(tuple(json.loads(each)) for each in entry["fieldsV1"])
    return found


def conflicts(stored: Document, applied: Document, manager: str) -> list[dict[str, str]]:
    """Causes of a 409: fields of other managers with another value."""
    theirs = owners(stored)
    now = dict(leaves({k: v for k, v in stored.items() if k not in _OUTSIDE}))
    causes = []
    for path, value in managed(applied).items():
        for other, fields in theirs.items():
            if other != manager and path in fields and now.get(path) != value:
                message = f'conflict with "{other}" using {stored["apiVersion"]}'
                causes.append({"reason": "FieldManagerConflict", "message": message, "field": field_text(path)})
    return causes


def give_up(stored: Document, applied: Document, manager: str) -> None:
    """Fields that an apply changes by force no longer belong to others."""
    now = dict(leaves({k: v for k, v in stored.items() if k not in _OUTSIDE}))
    taken = {path for path, value in managed(applied).items() if now.get(path) != value}
    kept = {other: fields if other == manager else fields - taken for other, fields in owners(stored).items()}
    stored["metadata"]["managedFields"] = managed_fields(kept)


def field_text(path: Path) -> str:
    """A path as the server writes it."""
    parts = []
    for each in path:
        key, equals, name = each.partition("=")
        parts.append(f'[{key}="{name}"]' if equals and key in _KEYS else f".{each}")
    return "".join(parts)


def merged(stored: Document | None, applied: Document, manager: str) -> Document:
    """The object after the apply, with managedFields."""
    result = copy.deepcopy(stored) if stored else {"apiVersion": applied["apiVersion"], "kind": applied["kind"]}
    mine = managed(applied)
    before = owners(stored) if stored else {}
    others = set().union(*(fields for other, fields in before.items() if other != manager))
    for path in before.get(manager, set()) - set(mine) - others:
        _remove(result, path)
    result["apiVersion"] = applied["apiVersion"]
    for key, value in applied.items():
        if key not in _OUTSIDE | {"status"}:
            result[key] = _merge(result.get(key), value)
    about = result.setdefault("metadata", {})
    after = {other: fields for other, fields in before.items() if other != manager} | {manager: set(mine)}
    about["managedFields"] = managed_fields(after)
    return result


def managed_fields(by_manager: dict[str, set[Path]]) -> list[Document]:
    """managedFields, in a form of our own: each field a path in JSON."""
    return [
        {"manager": name, "operation": "Apply", "fieldsV1": {json.dumps(path): {} for path in sorted(fields)}}
        for name, fields in by_manager.items()
    ]


def _merge(old: Any, new: Any) -> Any:
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: _merge(old.get(key), value) for key, value in new.items()}}
    key = _map_key(new)
    if key and _map_key(old) == key:
        known = {each[key]: each for each in old}
        names = [*known, *(each[key] for each in new if each[key] not in known)]
        wanted = {each[key]: each for each in new}
        return [_merge(known.get(name), wanted[name]) if name in wanted else known[name] for name in names]
    return copy.deepcopy(new)


def _remove(value: Any, path: Path) -> None:
    head, rest = path[0], path[1:]
    key, equals, name = head.partition("=")
    if isinstance(value, list) and equals:
        found = next((each for each in value if str(each.get(key)) == name), None)
        if found is not None and rest:
            _remove(found, rest)
            if set(found) <= {key}:
                value.remove(found)
        return
    if not isinstance(value, dict) or head not in value:
        return
    if rest:
        _remove(value[head], rest)
        if value[head] in ({}, []):
            del value[head]
    else:
        del value[head]


def merge_patch(value: Any, change: Any) -> Any:
    """RFC 7386."""
    if not isinstance(change, dict):
        return change
    result = dict(value) if isinstance(value, dict) else {}
    for key, each in change.items():
        if each is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), each)
    return result
