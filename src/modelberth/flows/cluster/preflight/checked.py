"""What one check of the preflight has found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from modelberth.adapters.kubernetes_api import Cluster, Document
from modelberth.base.errors import BerthError
from modelberth.base.text import printable
from modelberth.spec.services import Service
from modelberth.spec.stack import Stack

Level = Literal["ok", "warning", "failed"]
NOT_SEEN = "cannot be seen"
"""How a check begins whose evidence may not be looked at."""


@dataclass(frozen=True)
class Checked:
    """One check.

    Attributes:
        name: of it.
        level: how it ended.
        found: what was found, with names and numbers.
        fix: what to do; empty where nothing is.
        exit_code: of a failure, by its meaning; 0 otherwise.
        manifest: an object that helps, as YAML; empty where none does.
    """

    name: str
    level: Level
    found: str
    fix: str = ""
    exit_code: int = 0
    manifest: str = ""


def failed(name: str, found: str, fix: str, kind: type[BerthError]) -> Checked:
    """A check that failed, with the meaning of an error."""
    return Checked(name, "failed", printable(found), fix, kind.exit_code)


@dataclass(frozen=True)
class Wanted:
    """Where it is looked, and what is to be deployed there.

    Attributes:
        cluster: that is looked over.
        namespace: of the services.
        stack: None to look at the cluster alone.
        services: of the stack.
        objects: that the stack is rendered into.
    """

    cluster: Cluster
    namespace: str
    stack: Stack | None
    services: Sequence[Service] = ()
    objects: Sequence[Document] = ()


def labels_of(document: Document) -> Mapping[str, Any]:
    """The labels of an object."""
    return document["metadata"].get("labels") or {}
