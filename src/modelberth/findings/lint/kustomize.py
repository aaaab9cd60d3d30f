"""8xx: kustomizations, and what stands beside them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterable, Iterator
from typing import Any

from modelberth.base.yamlio import Path
from modelberth.findings.lint.rules import Hit, rule
from modelberth.findings.lint.world import Manifest, World, items, mapping, text

KUSTOMIZATIONS = ("kustomization.yaml", "kustomization.yml", "Kustomization")
# Fields that are lists of files and folders, or of mappings with a `path`, or of generators with `files` and `envs`.
_LISTS = (
    "resources", "bases", "components", "crds", "configurations", "generators", "transformers", "validators",
    "patchesStrategicMerge",
)  # fmt: skip
_OF_PATHS = ("patches", "patchesJson6902", "replacements")
_GENERATORS = ("configMapGenerator", "secretGenerator")
_ELSEWHERE = ("git@", "git::", "github.com/")
_DEPRECATED = {
    "bases": "list the folders in resources",
    "commonLabels": "labels, with includeSelectors only where selectors are meant: they cannot be changed later",
    "patchesStrategicMerge": "patches",
    "patchesJson6902": "patches",
    "vars": "replacements",
    "imageTags": "images",
}
_PRECISIONS = ("fp8", "int8", "int4", "awq", "gptq", "bf16", "w4a16", "w8a8", "nvfp4", "mxfp4")
_SAME = {"w4a16": "int4", "awq": "int4", "gptq": "int4", "w8a8": "int8"}


@rule(
    801,
    "high",
    "a kustomization lists what is not there",
    "Nothing of it is applied: the build fails, in Argo CD too.",
)
def missing(world: World) -> Iterator[Hit]:
    """Resources of kustomizations."""
    for each in _kustomizations(world):
        for path, entry in listed(each):
            name = listed_name(each, entry)
            here = {name, *(posixpath.join(name, file) for file in KUSTOMIZATIONS)}
            if not here & (world.files | world.there):
                what = "has no kustomization" if name in world.folders else "is not there"
                yield Hit(each, path, f"{entry} {what}", "write it, or take it out")


@rule(
    802,
    "medium",
    "a manifest that no kustomization lists",
    "It looks deployed and never is; or it is applied by hand, and nobody knows of it.",
)
def unlisted(world: World) -> Iterator[Hit]:
    """Files of objects beside a kustomization that does not name them."""
    named = {listed_name(each, entry) for each in _kustomizations(world) for _, entry in listed(each)}
    folders = {posixpath.dirname(each.source) for each in _kustomizations(world)}
    seen = set(named)
    for each in world.manifests:
        source = posixpath.normpath(each.source)
        if not each.kind or source in seen or posixpath.basename(source) in KUSTOMIZATIONS:
            continue
        if posixpath.dirname(each.source) in folders:
            seen.add(source)
            yield Hit(
                each, ("kind",), f"{posixpath.basename(source)} is in no kustomization", "list it, or move it away"
            )


def listed(kustomization: Manifest) -> Iterator[tuple[Path, str]]:
    """Every file and folder that a kustomization names, with the place of that; what is not local or inline is not."""
    if posixpath.basename(kustomization.source) not in KUSTOMIZATIONS:
        return
    found: list[tuple[Path, Any]] = []
    for key in _LISTS:
        found += [((key, index), entry) for index, entry in enumerate(items(kustomization.get(key)))]
    for key in _OF_PATHS:
        for index, entry in enumerate(items(kustomization.get(key))):
            found.append(((key, index, "path"), mapping(entry).get("path")))
    for key in _GENERATORS:
        for index, entry in enumerate(items(kustomization.get(key))):
            for part in ("files", "envs"):
                words = items(mapping(entry).get(part))
                found += [((key, index, part, at), text(word).rpartition("=")[2]) for at, word in enumerate(words)]
    for path, entry in found:
        name = text(entry)
        if name and "\n" not in name and "://" not in name and "?" not in name and not name.startswith(_ELSEWHERE):
            yield path, name


def listed_name(kustomization: Manifest, entry: str) -> str:
    """The name of what a kustomization lists, as the names of files are written."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(kustomization.source), entry))


def patches(manifests: Iterable[Manifest]) -> frozenset[str]:
    """Names of the files that kustomizations lay over other objects."""
    return frozenset(
        listed_name(each, entry)
        for each in manifests
        for path, entry in listed(each)
        if path[0] in {"patches", "patchesStrategicMerge", "patchesJson6902"}
    )


@rule(
    803,
    "low",
    "a field that Kustomize has given up",
    "Newer releases warn, then refuse; commonLabels also changes selectors, which cannot be changed on the cluster.",
)
def deprecated(world: World) -> Iterator[Hit]:
    """Old fields of kustomizations."""
    for each in _kustomizations(world):
        for field, instead in _DEPRECATED.items():
            if each.get(field) is not None:
                yield Hit(each, (field,), f"{field} is deprecated", instead, of_key=True)


@rule(
    804,
    "medium",
    "two namespaces for one object",
    "Kustomize overwrites the object's own namespace: it lands somewhere else than its file says.",
)
def two_namespaces(world: World) -> Iterator[Hit]:
    """Objects whose namespace is not their kustomization's."""
    wanted = {posixpath.dirname(each.source): text(each.get("namespace")) for each in _kustomizations(world)}
    for each in world.manifests:
        namespace = wanted.get(posixpath.dirname(each.source), "")
        if namespace and each.namespace and each.namespace != namespace:
            message = f"the kustomization says {namespace}, the object {each.namespace}"
            yield Hit(each, ("metadata", "namespace"), message, "say it in one place")


@rule(
    805,
    "low",
    "the name says another precision than the weights",
    "People choose by it, plan memory by it and compare answers by it.",
)
def wrong_precision(world: World) -> Iterator[Hit]:
    """Display names and descriptions beside the address of the weights."""
    for service in world.served:
        stored = _precisions(service.weights[1])
        for key in ("openshift.io/display-name", "openshift.io/description"):
            said = _precisions(text(service.manifest.annotations.get(key)))
            if stored and said and not stored & said:
                message = f"it says {', '.join(sorted(said))}; the weights are {', '.join(sorted(stored))}"
                yield Hit(service.manifest, ("metadata", "annotations", key), message, "name what is served")


def _precisions(words: str) -> set[str]:
    return {_SAME.get(each, each) for each in _PRECISIONS if each in words.lower()}


def _kustomizations(world: World) -> Iterator[Manifest]:
    return (each for each in world.manifests if posixpath.basename(each.source) in KUSTOMIZATIONS)


RULES = (missing, unlisted, deprecated, two_namespaces, wrong_precision)
