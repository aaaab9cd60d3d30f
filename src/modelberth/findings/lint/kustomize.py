"""8xx: kustomizations, and what stands beside them."""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from modelberth.findings.lint.rules import Hit, rule
from modelberth.findings.lint.world import Manifest, World, items, mapping, text

_FILES = ("kustomization.yaml", "kustomization.yml", "Kustomization")
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
        folder = posixpath.dirname(each.source)
        for index, entry in enumerate(items(each.get("resources"))):
            path = posixpath.normpath(posixpath.join(folder, text(entry)))
            if "://" in text(entry) or "?ref=" in text(entry) or path in world.files or path in world.folders:
                continue
            if posixpath.dirname(path) in world.folders:
                yield Hit(each, ("resources", index), f"{text(entry)} is not there", "write it, or take it out")


@rule(
    802,
    "medium",
    "a manifest that no kustomization lists",
    "It looks deployed and never is; or it is applied by hand, and nobody knows of it.",
)
def unlisted(world: World) -> Iterator[Hit]:
    """Files of objects beside a kustomization that does not name them."""
    listed: dict[str, set[str]] = {}
    for each in _kustomizations(world):
        folder = posixpath.dirname(each.source)
        listed[folder] = {posixpath.normpath(posixpath.join(folder, text(entry))) for key in ("resources", "patches")
                          for entry in _paths(each, key)}  # fmt: skip
    seen = set()
    for each in world.manifests:
        folder = posixpath.dirname(each.source)
        if each.kind and folder in listed and each.source not in listed[folder] and each.source not in seen:
            seen.add(each.source)
            if posixpath.basename(each.source) not in _FILES:
                message = f"{posixpath.basename(each.source)} is in no kustomization"
                yield Hit(each, ("kind",), message, "list it, or move it away")


def _paths(kustomization: Manifest, key: str) -> Iterator[str]:
    for entry in items(kustomization.get(key)):
        yield text(mapping(entry).get("path")) if isinstance(entry, dict) else text(entry)


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
    return (each for each in world.manifests if posixpath.basename(each.source) in _FILES)


RULES = (missing, unlisted, deprecated, two_namespaces, wrong_precision)
