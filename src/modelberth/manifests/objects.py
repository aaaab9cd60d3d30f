"""What all manifests are made of: plain objects, with metadata that is written in one way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelberth.spec.stack import Stack

Manifest = dict[str, Any]
"""One Kubernetes object as plain data: str, int, float, bool, list and dict alone, in the order it is written in."""

LABEL_STACK = "modelberth.dev/stack"
"""Label of every object of a stack: what `berth deploy` and people select by."""
SYNC_WAVE = "argocd.argoproj.io/sync-wave"

# Sync waves of Argo CD: what a later one needs stands in an earlier one.
WAVE_CAPACITY = -20
WAVE_STORAGE = -10
WAVE_RUNTIME = 0
WAVE_INFERENCE = 10
WAVE_REGISTRATION = 20


def wave(stack: Stack, number: int) -> int | None:
    """The sync wave of an object; None where Argo CD does not sync the stack."""
    return number if stack.argo_cd else None


def metadata(
    name: str,
    namespace: str | None,
    stack: str,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    wave: int | None = None,
) -> dict[str, Any]:
    """The metadata of an object.

    Args:
        name: of the object.
        namespace: None for a cluster-scoped object.
        stack: name of the stack that it belongs to.
        labels: its own, beside that of the stack.
        annotations: its own.
        wave: sync wave; None where Argo CD does not sync the stack.
    """
    notes = {**({SYNC_WAVE: str(wave)} if wave is not None else {}), **(annotations or {})}
    return {
        "name": name,
        **({"namespace": namespace} if namespace else {}),
        "labels": {LABEL_STACK: stack, "app.kubernetes.io/managed-by": "modelberth", **(labels or {})},
        **({"annotations": notes} if notes else {}),
    }


def given(**fields: Any) -> dict[str, Any]:
    """The fields that have a value: None, and empty lists and mappings, are left out."""
    return {name: value for name, value in fields.items() if value is not None and value not in ([], {})}
