"""Commands against the API server double, as a user types them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kube_server import KubeServer
from serving_scenes import NAMESPACE, Scene


@pytest.fixture
def server() -> Iterator[KubeServer]:
    """The double."""
    with KubeServer() as double:
        yield double


@pytest.fixture
def scene(server: KubeServer) -> Scene:
    """One service on it."""
    return Scene(server)


@pytest.fixture
def on_cluster(berth: Callable[..., Any], server: KubeServer, tmp_path: Path) -> Callable[..., Any]:
    """`berth VERB ... --kubeconfig the-double's`."""
    config = server.kubeconfig(tmp_path, namespace=NAMESPACE)
    return lambda verb, *arguments: berth(verb, *map(str, arguments), "--kubeconfig", str(config))
