"""Objects of the API server double, with what a real one keeps beside them: versions, generations, a history."""

from __future__ import annotations

import copy
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from threading import Condition
from typing import Any

Document = dict[str, Any]
Key = tuple[str, str, str]
"""Resource (`pods`, `inferenceservices.serving.kserve.io`), namespace (empty for the cluster's own), name."""


def now() -> str:
    """The time as Kubernetes writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Happened:
    """One change: ADDED, MODIFIED or DELETED, at its version."""

    version: int
    event: str
    key: Key
    document: Document


@dataclass
class Store:
    """All objects. Whoever waits for changes waits on `changed`.

    Attributes:
        objects: by key.
        history: every change since `oldest`.
        oldest: version from which the history is kept; a watch from before it gets 410.
    """

    objects: dict[Key, Document] = field(default_factory=dict)
    history: list[Happened] = field(default_factory=list)
    version: int = 100
    oldest: int = 100
    changed: Condition = field(default_factory=Condition)
    hooks: list[Callable[[str, Key, Document], None]] = field(default_factory=list)

    def get(self, key: Key) -> Document | None:
        """A copy of an object."""
        with self.changed:
            found = self.objects.get(key)
            return copy.deepcopy(found) if found is not None else None

    def listed(self, resource: str, namespace: str) -> list[Document]:
        """Copies of a resource's objects, in the order of their names; all namespaces when it is empty."""
        with self.changed:
            found = [
                (key, each) for key, each in self.objects.items() if key[0] == resource and namespace in ("", key[1])
            ]
            return [copy.deepcopy(each) for _, each in sorted(found, key=lambda pair: pair[0])]

    def put(self, key: Key, document: Document, *, status_only: bool = False) -> Document:
        """Store an object as a server does: uid and creation once, a new version, a new generation for a new spec."""
        with self.changed:
            before = self.objects.get(key)
            about = document.setdefault("metadata", {})
            if before is None:
                given = {"uid": about.get("uid") or str(uuid.uuid4())}  # a test may say who it is, and since when
                about |= given | {"creationTimestamp": about.get("creationTimestamp") or now(), "generation": 1}
            else:
                kept = before["metadata"]
                about |= {name: kept[name] for name in ("uid", "creationTimestamp") if name in kept}
                new_spec = not status_only and _desired(before) != _desired(document)
                about["generation"] = kept.get("generation", 1) + (1 if new_spec else 0)
                if _without_version(before) == _without_version(document):
                    return copy.deepcopy(before)  # nothing changed: no new version, as a real server
            self.version += 1
            about["resourceVersion"] = str(self.version)
            self._record("ADDED" if before is None else "MODIFIED", key, document)
        self._tell("ADDED" if before is None else "MODIFIED", key, document)
        return copy.deepcopy(document)

    def remove(self, key: Key) -> Document | None:
        """Delete an object; one with finalizers stays and is marked."""
        with self.changed:
            found = self.objects.get(key)
            if found is None:
                return None
            if found["metadata"].get("finalizers"):
                if "deletionTimestamp" not in found["metadata"]:
                    self.version += 1
                    found = copy.deepcopy(found)
                    found["metadata"] |= {"deletionTimestamp": now(), "resourceVersion": str(self.version)}
                    self._record("MODIFIED", key, found)
                return copy.deepcopy(found)
            del self.objects[key]
            self.version += 1
            gone = copy.deepcopy(found)
            gone["metadata"]["resourceVersion"] = str(self.version)
            self.history.append(Happened(self.version, "DELETED", key, gone))
            self.changed.notify_all()
        self._tell("DELETED", key, gone)
        for owned in self._owned_by(found["metadata"].get("uid")):
            self.remove(owned)
        return gone

    def _owned_by(self, uid: str | None) -> list[Key]:
        with self.changed:
            return [
                key for key, each in self.objects.items()
                if any(owner.get("uid") == uid for owner in each["metadata"].get("ownerReferences") or [])
            ]  # fmt: skip

    def _record(self, event: str, key: Key, document: Document) -> None:
        self.objects[key] = document
        self.history.append(Happened(self.version, event, key, copy.deepcopy(document)))
        self.changed.notify_all()

    def _tell(self, event: str, key: Key, document: Document) -> None:
        for hook in list(self.hooks):
            hook(event, key, copy.deepcopy(document))

    def since(self, version: int) -> Iterator[Happened]:
        """What happened after a version; call with `changed` held."""
        return (each for each in list(self.history) if each.version > version)

    def forget_history(self) -> None:
        """As when etcd is compacted: watches from before now get 410."""
        with self.changed:
            self.version += 1
            self.oldest = self.version
            self.history.clear()
            self.changed.notify_all()


def _desired(document: Document) -> Document:
    return {key: value for key, value in document.items() if key not in {"metadata", "status"}}


def _without_version(document: Document) -> Document:
    about = {
        key: value for key, value in document["metadata"].items() if key not in {"resourceVersion", "managedFields"}
    }
    managers = [each.get("manager") for each in document["metadata"].get("managedFields") or []]
    return {**document, "metadata": about, "managers": managers}
