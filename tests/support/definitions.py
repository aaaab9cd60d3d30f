"""Custom resource definitions as the tests find them: read lazily, once, and by platform version.

They are in `../shared/data/crds`, beside a checkout; tests that need them skip where they are absent. What is not
there is in `tests/data/crds`: small definitions of our own, of the fields that we write alone, and `from:` files, which
say what a release lacks of a definition that is there. Each names its source.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

_ROOT = Path(__file__).parents[2]
SHARED_CRDS = _ROOT.parent / "shared" / "data" / "crds"
OWN_CRDS = _ROOT / "tests" / "data" / "crds"

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_OLD, _NEW = SHARED_CRDS / "kserve-0.15.2", SHARED_CRDS / "kserve-0.20"
_BEFORE, _BETWEEN = (_OLD, OWN_CRDS / "kserve-0.15"), (_OLD, _NEW, OWN_CRDS / "kserve-0.17")
_OPENSHIFT_AI_3_0 = (*_BEFORE, OWN_CRDS / "rhoai-3.0")
_PLATFORMS = {
    ("rhoai", "3.0"): _OPENSHIFT_AI_3_0,
    ("rhoai", "3.2"): _OPENSHIFT_AI_3_0,
    ("rhoai", "3.3"): _OPENSHIFT_AI_3_0,
    ("rhoai", "3.4"): _BETWEEN,
    ("rhoai", "3.5"): (_NEW,),
    ("kserve", "0.15"): _BEFORE,
    ("kserve", "0.17"): _BETWEEN,
    ("kserve", "0.20"): (_NEW,),
}


@dataclass(frozen=True)
class Version:
    """One version of a kind that is served.

    Attributes:
        schema: its structural schema.
        namespaced: whether its objects stand in a namespace.
        deprecated: what the API server warns of; None where it does not.
    """

    schema: dict[str, Any]
    namespaced: bool
    deprecated: str | None


Versions = dict[str, Version]


def crds_for(kind: str, version: str) -> list[Path]:
    """The folders whose definitions an object for a platform version has to satisfy, each that has its kind.

    There is no folder for KServe 0.17: what is written for it suits the release before and the one after, which
    between them have no field that 0.17 lacks (LLMInferenceService excepted, which has a `from:` file).

    Args:
        kind: `rhoai` or `kserve`.
        version: as a stack writes it; KeyError for another.
    """
    return [*_PLATFORMS[kind, version], SHARED_CRDS / "platform", OWN_CRDS]


def versions_of(group: str, kind: str, folders: Iterable[Path]) -> Iterator[Versions]:
    """The served versions of a kind, once for each folder that has it."""
    for folder in folders:
        for path in _files(folder, group, kind):
            found = _kinds(path).get((group, kind))
            if found is not None:
                yield found


def _files(folder: Path, group: str, kind: str) -> list[Path]:
    """The file that controller-gen would name so, else all that may have the kind: large ones take half a second."""
    named = [folder / f"{group}_{kind.lower()}{ending}.yaml" for ending in ("s", "es")]
    others = (path for path in sorted(folder.glob("*.yaml")) if path.name.partition("_")[0] in {group, path.name})
    return [path for path in named if path.is_file()] or list(others)


@cache
def _kinds(path: Path) -> dict[tuple[str, str], Versions]:
    found = [_derived(each) if "from" in each else each for each in _documents(path)]
    return {(crd["spec"]["group"], crd["spec"]["names"]["kind"]): _served(crd["spec"]) for crd in found}


def _documents(path: Path) -> list[dict[str, Any]]:
    return [each for each in yaml.load_all(path.read_text(encoding="utf-8"), Loader=_LOADER) if each]


def _served(spec: dict[str, Any]) -> Versions:
    return {
        each["name"]: Version(
            schema=each["schema"]["openAPIV3Schema"],
            namespaced=spec["scope"] == "Namespaced",
            deprecated=each.get("deprecationWarning", "is deprecated") if each.get("deprecated") else None,
        )
        for each in spec["versions"]
        if each["served"]
    }


# --- `from:` files ------------------------------------------------------------------------------------------


def _derived(change: dict[str, Any]) -> dict[str, Any]:
    (crd,) = _documents(SHARED_CRDS / change["from"])
    changed = [each for each in crd["spec"]["versions"] if each["name"] in change["versions"]]
    for each in changed:
        _change(each["schema"]["openAPIV3Schema"], change["versions"][each["name"]])
    crd["spec"]["versions"] = changed
    return crd


def _change(schema: dict[str, Any], change: dict[str, Any]) -> None:
    for path in change["without"]:
        parent, _, name = path.rpartition(".")
        del _at(schema, parent)["properties"][name]
    _remove_anywhere(schema, frozenset(change.get("withoutAnywhere", ())))
    for path, words in change.get("with", {}).items():
        _at(schema, path).update(copy.deepcopy(words))


def _at(schema: dict[str, Any], path: str) -> dict[str, Any]:
    for part in path.split(".")[1:]:
        schema = schema["properties"][part.removesuffix("[]")]
        schema = schema["items"] if part.endswith("[]") else schema
    return schema


def _remove_anywhere(schema: Any, names: frozenset[str]) -> None:
    if isinstance(schema, list):
        for each in schema:
            _remove_anywhere(each, names)
    elif isinstance(schema, dict):
        fields = schema.get("properties")
        if isinstance(fields, dict):
            for name in names & fields.keys():
                del fields[name]
        for each in schema.values():
            _remove_anywhere(each, names)
