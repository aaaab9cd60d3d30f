"""What one check of the preflight has found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from modelberth.adapters.kubernetes_api import Cluster, Document, Kind, Ref
from modelberth.adapters.kubernetes_api.kinds import NODES, SECRETS
from modelberth.base.errors import AuthError, BerthError
from modelberth.base.text import printable
from modelberth.manifests.nodes import PRODUCT_LABEL
from modelberth.manifests.storage import storage_key
from modelberth.spec.cluster import Pool
from modelberth.spec.services import Service
from modelberth.spec.stack import Stack

_SUBSCRIPTIONS = Kind("operators.coreos.com/v1alpha1", "ClusterServiceVersion")
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

    @cached_property
    def nodes(self) -> tuple[Document, ...]:
        """Every node of the cluster; asked for once."""
        return self.cluster.list(NODES).items

    def nodes_of(self, pool: Pool) -> list[Document]:
        """Those whose cards are the pool's."""
        return [each for each in self.nodes if labels_of(each).get(PRODUCT_LABEL) == pool.gpu]

    @cached_property
    def operators(self) -> tuple[str, ...]:
        """Names of the operators that OLM has installed; none where it is not there, or may not be seen."""
        if not self.cluster.serves(_SUBSCRIPTIONS):
            return ()
        try:
            return tuple(str(each["metadata"]["name"]) for each in self.cluster.list(_SUBSCRIPTIONS).items)
        except AuthError:
            return ()

    @cached_property
    def store_secret(self) -> Document | None:
        """The Secret that the pods get for the store, as it is on the cluster; None where there is none."""
        name = storage_key(self.stack) if self.stack else None
        return self.cluster.get(Ref(SECRETS, name, self.namespace)) if name else None


def labels_of(document: Document) -> Mapping[str, Any]:
    """The labels of an object."""
    return document["metadata"].get("labels") or {}
