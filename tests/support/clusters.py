"""A cluster for a test: the double or a real one, with a namespace of the test's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kube_server import KubeServer
from modelberth.adapters.kubernetes_api import Cluster


@dataclass
class Place:
    """A cluster and a namespace of the test's own.

    Attributes:
        cluster: reached as an administrator.
        namespace: empty, and deleted afterwards.
        kubeconfig: that leads there.
        double: the server, where it is the double.
    """

    cluster: Cluster
    namespace: str
    kubeconfig: Path
    double: KubeServer | None
