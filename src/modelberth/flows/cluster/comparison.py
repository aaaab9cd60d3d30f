"""A stack beside what is on the cluster: every object by a dry run of the server, as it would be and as it is."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from modelberth.adapters.kubernetes_api import Cluster, Document, FieldConflict, Kind, Ref
from modelberth.base.errors import PrerequisiteMissing
from modelberth.base.redaction import Redactor
from modelberth.base.yamlio import write_documents
from modelberth.manifests.objects import LABEL_STACK

Outcome = Literal["create", "change", "unchanged", "conflict"]
_KEPT_ABOUT = ("name", "namespace", "labels", "annotations", "finalizers")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


@dataclass(frozen=True)
class Compared:
    """One object.

    Attributes:
        ref: its name.
        wanted: as it is rendered.
        live: as it is; None where it is not there.
        would: as it would be; None where the server refuses because of a conflict.
        outcome: what an apply would do.
        conflict: with whom, and about which fields.
    """

    ref: Ref
    wanted: Document
    live: Document | None
    would: Document | None
    outcome: Outcome
    conflict: FieldConflict | None = None


def compare(cluster: Cluster, wanted: Iterable[Document]) -> list[Compared]:
    """Compare objects with the cluster, in their order.

    Raises:
        InvalidManifest: the server does not take one.
        PrerequisiteMissing: a kind, or the namespace, is not there.
        AuthError, RemoteUnavailable: the cluster cannot be asked.
    """
    return [_compared(cluster, each) for each in wanted]


def _compared(cluster: Cluster, wanted: Document) -> Compared:
    ref = Ref.of(wanted)
    live = cluster.get(ref)
    try:
        would = cluster.apply(wanted, dry_run=True)
    except FieldConflict as conflict:
        return Compared(ref, wanted, live, None, "conflict", conflict)
    if live is None:
        return Compared(ref, wanted, None, would, "create")
    return Compared(ref, wanted, live, would, "unchanged" if _plain(live) == _plain(would) else "change")


def _plain(document: Mapping[str, Any]) -> Document:
    """An object without what the server writes."""
    about = {key: value for key, value in (document.get("metadata") or {}).items() if key in _KEPT_ABOUT}
    if isinstance(about.get("annotations"), dict):
        about["annotations"] = {key: value for key, value in about["annotations"].items() if key != _LAST_APPLIED}
    kept = {key: value for key, value in document.items() if key not in {"metadata", "status"}}
    return {"apiVersion": kept.pop("apiVersion", ""), "kind": kept.pop("kind", ""), "metadata": about, **kept}


def difference(compared: Compared) -> str:
    """The change as a unified diff of YAML; empty where there is none. No secret is in it."""
    if compared.would is None or compared.outcome == "unchanged":
        return ""
    redactor = Redactor()
    # Of a new object what is rendered, not what the server fills in as well.
    becomes = compared.would if compared.live is not None else compared.wanted
    old, new = (
        write_documents([redactor.document(_plain(each))]).splitlines() if each is not None else []
        for each in (compared.live, becomes)
    )
    name = str(compared.ref)
    return "\n".join(difflib.unified_diff(old, new, f"live {name}", f"wanted {name}", lineterm="", n=2))


def left_over(cluster: Cluster, stack: str, namespace: str, wanted: Sequence[Document]) -> list[Ref]:
    """Objects that carry the stack's label and are rendered no longer, of the kinds that a stack has."""
    names = {Ref.of(each) for each in wanted}
    kinds = {Ref.of(each).kind for each in wanted} | {Kind("serving.kserve.io/v1beta1", "InferenceService")}
    found = []
    for kind in sorted(kinds, key=lambda each: each.kind):
        try:
            place = namespace if cluster.is_namespaced(kind) else None
            listed = cluster.list(kind, place, labels=f"{LABEL_STACK}={stack}").items
        except PrerequisiteMissing:
            continue
        found += [ref for ref in map(Ref.of, listed) if ref not in names and ref.kind.kind != "Job"]
    return found
