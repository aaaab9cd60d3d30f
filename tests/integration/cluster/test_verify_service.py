"""`berth verify SERVICE`: real requests through a tunnel to the pod, and nothing asked of what is not ready."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from kube_server import KubeServer
from openai_endpoint import Behaviour, handler
from serving_scenes import NAMESPACE, Scene


@pytest.fixture
def answering(scene: Scene, server: KubeServer, http_server: Any) -> Callable[..., None]:
    """The service is ready, and this is how it answers."""

    def make(**parts: object) -> None:
        scene.ready()
        url = http_server(handler(type("Changed", (Behaviour,), parts))).url
        server.listen_in_pod(NAMESPACE, scene.pod, 8080, int(url.rpartition(":")[2]))

    return make


def test_a_service_is_asked_through_its_pod(on_cluster: Any, answering: Any, scene: Scene) -> None:
    answering()
    done = on_cluster("verify", "mistral", "--requests", "4", "-o", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["url"] == f"mistral (pod {scene.pod}, port 8080)"
    assert report["passed"]
    assert report["latency"]["requests"] == 4


def test_what_a_stack_declares_is_asked(on_cluster: Any, server: KubeServer, http_server: Any, stack: Any) -> None:
    scene = Scene(server, "harbor-int4")
    scene.ready()
    url = http_server(handler(type("Changed", (Behaviour,), {"models": ({"id": "other", "max_model_len": 32},)}))).url
    server.listen_in_pod(NAMESPACE, scene.pod, 8080, int(url.rpartition(":")[2]))
    done = on_cluster("verify", stack("int4"), "-n", NAMESPACE, "-o", "json")
    assert done.returncode == 7, done.stderr
    failed = [each for each in json.loads(done.stdout)["checks"] if not each["passed"]]
    assert failed[0]["name"] == "/v1/models"
    assert failed[0]["detail"] == "expected the model harbor-int4: offered: other"


@pytest.mark.parametrize(
    ("moment", "why"),
    [(Scene.loading, "stage weights"), (lambda scene: scene.crash_loop(ready="True"), "Ready is stale")],
)
def test_what_is_not_ready_is_not_asked(
    on_cluster: Any, scene: Scene, moment: Callable[[Scene], None], why: str
) -> None:
    moment(scene)
    done = on_cluster("verify", "mistral")
    assert done.returncode == 6
    assert "service mistral is not ready" in done.stderr
    assert why in done.stderr


def test_a_port_forward_that_is_not_allowed(on_cluster: Any, answering: Any, server: KubeServer) -> None:
    answering()
    server.deny("create", "pods/portforward")
    done = on_cluster("verify", "mistral")
    assert done.returncode == 4
    assert "not allowed: forward a port" in done.stderr


def test_a_pod_in_which_nobody_listens(on_cluster: Any, scene: Scene) -> None:
    scene.ready()
    done = on_cluster("verify", "mistral", "-o", "json")
    assert done.returncode == 6
    assert not json.loads(done.stdout)["passed"]
