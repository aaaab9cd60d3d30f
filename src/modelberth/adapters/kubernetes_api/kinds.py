"""What there is in a cluster, and how it is named: kinds, references to objects, and what somebody may do with them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

Document = dict[str, Any]
"""One object as plain data."""


@dataclass(frozen=True)
class Kind:
    """A kind of objects in one version of its API.

    Attributes:
        api_version: `serving.kserve.io/v1beta1`; `v1` for the core.
        kind: `InferenceService`.
    """

    api_version: str
    kind: str

    @property
    def group(self) -> str:
        """`serving.kserve.io`; empty for the core."""
        return self.api_version.rpartition("/")[0]

    @property
    def version(self) -> str:
        """`v1beta1`."""
        return self.api_version.rpartition("/")[2]


PODS = Kind("v1", "Pod")
EVENTS = Kind("v1", "Event")
NODES = Kind("v1", "Node")
NAMESPACES = Kind("v1", "Namespace")
SECRETS = Kind("v1", "Secret")
CONFIG_MAPS = Kind("v1", "ConfigMap")
SERVICES = Kind("v1", "Service")
DEPLOYMENTS = Kind("apps/v1", "Deployment")
JOBS = Kind("batch/v1", "Job")
LEASES = Kind("coordination.k8s.io/v1", "Lease")
INFERENCE_SERVICES = Kind("serving.kserve.io/v1beta1", "InferenceService")
ROUTES = Kind("route.openshift.io/v1", "Route")
MACHINE_SETS = Kind("machine.openshift.io/v1beta1", "MachineSet")


@dataclass(frozen=True)
class Ref:
    """One object's name.

    Attributes:
        kind: of the object.
        name: its name.
        namespace: None for one of the whole cluster.
    """

    kind: Kind
    name: str
    namespace: str | None = None

    @staticmethod
    def of(document: Document) -> Ref:
        """The reference of an object."""
        about = document.get("metadata") or {}
        kind = Kind(str(document.get("apiVersion", "")), str(document.get("kind", "")))
        return Ref(kind, str(about.get("name", "")), about.get("namespace"))

    def __str__(self) -> str:
        place = f"{self.namespace}/" if self.namespace else ""
        return f"{self.kind.kind} {place}{self.name}"


@dataclass(frozen=True)
class Access:
    """What somebody wants to do.

    Attributes:
        verb: get, list, watch, create, patch, delete, ...
        group: of the API; empty for the core.
        resource: plural, with its subresource behind a slash: `pods/log`.
        namespace: None for the whole cluster.
    """

    verb: str
    group: str
    resource: str
    namespace: str | None = None

    def __str__(self) -> str:
        name = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {name}" + (f" in {self.namespace}" if self.namespace else "")


@dataclass(frozen=True)
class Listing:
    """All objects of one kind at one moment.

    Attributes:
        items: the objects, each with apiVersion and kind.
        resource_version: of that moment; a watch goes on from it.
    """

    items: tuple[Document, ...]
    resource_version: str
