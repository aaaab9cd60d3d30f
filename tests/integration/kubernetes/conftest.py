"""Clusters of these tests: the double, and a real API server where MODELBERTH_TEST_KUBECONFIG names one."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster_schemas import SHARED_CRDS, crds_for
from clusters import Place
from kube_server import KubeServer
from modelberth.adapters.kubernetes_api import Target, connect
from modelberth.adapters.kubernetes_api.kinds import NAMESPACES, Ref

REAL = os.environ.get("MODELBERTH_TEST_KUBECONFIG", "")


@pytest.fixture
def server() -> Iterator[KubeServer]:
    """The double alone."""
    with KubeServer() as double:
        yield double


@pytest.fixture(params=["double", *(["real"] if REAL else [])])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Each kind of cluster in turn."""
    namespace = f"berth-{uuid.uuid4().hex[:10]}"
    if request.param == "real":
        yield from _place(Path(REAL), namespace, None)
        return
    crds = crds_for("kserve", "0.20") if SHARED_CRDS.exists() else []
    with KubeServer(crds=crds) as double:
        yield from _place(double.kubeconfig(tmp_path), namespace, double)


def _place(kubeconfig: Path, namespace: str, double: KubeServer | None) -> Iterator[Place]:
    with connect(Target(kubeconfig=kubeconfig, namespace=namespace)) as cluster:
        about = {"name": namespace}
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": about})
        try:
            yield Place(cluster, namespace, kubeconfig, double)
        finally:
            cluster.delete(Ref(NAMESPACES, namespace))
