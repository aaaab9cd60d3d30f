"""`berth diagnose SERVICE`: out of what the cluster holds, the cause; and the same out of a bundle, without secrets."""

from __future__ import annotations

import base64
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kube_server import KubeServer
from serving_scenes import NAMESPACE, Scene

CANARY = "canary-5f0e1d-secret"


def first(done: Any) -> str:
    return str(json.loads(done.stdout)["findings"][0]["id"])


@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (lambda scene: scene.crash_loop(), "MB-KV-001"),
        (lambda scene: scene.crash_loop("truncated-weights"), "MB-WGT-001"),
        (lambda scene: scene.crash_loop(ready="True"), "MB-KV-001"),  # a stale Ready hides nothing
        (Scene.unschedulable, "MB-SCH-001"),
        (Scene.no_space_for_image, "MB-OCI-001"),
        (Scene.access_denied, "MB-STO-001"),
    ],
)
def test_the_cause_comes_first(on_cluster: Any, scene: Scene, moment: Callable[[Scene], None], expected: str) -> None:
    moment(scene)
    done = on_cluster("diagnose", "mistral", "-o", "json")
    assert done.returncode == 23, done.stderr
    assert first(done).rpartition("-")[0] == expected.rpartition("-")[0]


def test_its_numbers_are_in_the_text(on_cluster: Any, scene: Scene) -> None:
    scene.crash_loop()
    done = on_cluster("diagnose", "mistral")
    assert "1,024 tokens" in done.stdout


def test_with_a_model_it_says_what_would_fit(on_cluster: Any, scene: Scene, weights: Any) -> None:
    scene.crash_loop()
    done = on_cluster("diagnose", "mistral", "--model", weights("bf16"), "--gpu", "L4", "-o", "json")
    assert "The plan for NVIDIA-L4" in json.loads(done.stdout)["findings"][0]["fix"]


@pytest.mark.parametrize("moment", [Scene.loading, Scene.ready])
def test_nothing_is_wrong(on_cluster: Any, scene: Scene, moment: Callable[[Scene], None]) -> None:
    moment(scene)
    done = on_cluster("diagnose", "mistral", "-o", "json")
    assert (done.returncode, json.loads(done.stdout)["findings"]) == (0, [])


def test_a_queue_says_what_is_missing_and_who_holds_it(on_cluster: Any, scene: Scene, server: KubeServer) -> None:
    scene.unschedulable()
    pod = server.get("Pod", scene.pod, NAMESPACE)
    assert pod is not None
    pod["spec"]["schedulingGates"] = [{"name": "kueue.x-k8s.io/admission"}]
    pod["status"]["conditions"] = []
    server.put(pod)
    server.remove("Event", f"{scene.pod}.failedscheduling", NAMESPACE)
    text = (
        "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor l4, "
        "1 more needed"
    )
    api = "kueue.x-k8s.io/v1beta1"
    about = {"name": "waiting", "namespace": NAMESPACE, "ownerReferences": [{"kind": "Pod", "name": scene.pod}]}
    server.put({
        "apiVersion": api, "kind": "Workload", "spec": {"queueName": "llm"}, "metadata": about,
        "status": {"conditions": [{"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": text}]},
    })  # fmt: skip
    admission = {"clusterQueue": "all", "podSetAssignments": [{"resourceUsage": {"nvidia.com/gpu": "4"}}]}
    server.put({"apiVersion": api, "kind": "Workload", "metadata": {"name": "training", "namespace": "default"},
                "spec": {}, "status": {"admission": admission}})  # fmt: skip
    done = on_cluster("diagnose", "mistral", "-o", "json")
    (finding, *_) = json.loads(done.stdout)["findings"]
    assert finding["id"].startswith("MB-KUE-"), done.stdout
    assert "4 GPUs are held by default/training (4 GPUs)" in finding["cause"]


def test_only_the_service_that_is_named_is_looked_at(on_cluster: Any, server: KubeServer) -> None:
    Scene(server, "mistral").ready()
    Scene(server, "mistral-tp4").crash_loop()
    assert on_cluster("diagnose", "mistral").returncode == 0
    assert on_cluster("diagnose", "mistral-tp4").returncode == 23
    assert on_cluster("diagnose").returncode == 23  # all of the namespace


def test_an_unknown_service(on_cluster: Any, scene: Scene) -> None:
    scene.ready()
    done = on_cluster("diagnose", "mistrall")
    assert done.returncode == 2
    assert "did you mean 'mistral'?" in done.stderr


def test_what_may_not_be_seen_is_said_and_the_rest_is_used(on_cluster: Any, scene: Scene, server: KubeServer) -> None:
    scene.crash_loop()
    server.deny("*", "nodes")
    server.deny("*", "events")
    done = on_cluster("diagnose", "mistral")
    assert done.returncode == 23
    assert "Nodes may not be listed" in done.stdout + done.stderr


def test_no_cluster(berth: Callable[..., Any], tmp_path: Path) -> None:
    done = berth("diagnose", "mistral", "--kubeconfig", str(tmp_path / "none"))
    assert done.returncode == 3
    assert "there is no kubeconfig" in done.stderr


def put_secret(server: KubeServer) -> None:
    value = base64.b64encode(json.dumps({"secret_access_key": CANARY, "bucket": "models"}).encode()).decode()
    server.put({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "storage-config", "namespace": NAMESPACE},
                "data": {"minio-connection": value}})  # fmt: skip


def contents(bundle: Path) -> dict[str, bytes]:
    with tarfile.open(bundle) as archive:
        return {each.name: archive.extractfile(each).read() for each in archive if each.isfile()}  # type: ignore[union-attr]


def test_a_bundle_says_the_same_and_no_secret(on_cluster: Any, berth: Any, scene: Scene, server: KubeServer,
                                              tmp_path: Path) -> None:  # fmt: skip
    put_secret(server)
    scene.crash_loop()
    scene.log(f"INFO engine was given the key {CANARY}\n", previous=True)
    bundle = tmp_path / "bundle.tar.gz"
    done = on_cluster("support-bundle", "--file", bundle, "-o", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["firstFinding"] == "MB-KV-001"
    files = contents(bundle)
    assert not [name for name, content in files.items() if CANARY.encode() in content]
    assert b"minio-connection" in files[f"support-bundle/namespaces/{NAMESPACE}/core/secrets/storage-config.yaml"]
    again = berth("diagnose", "--must-gather", str(bundle), "-o", "json")
    assert (again.returncode, first(again)) == (23, "MB-KV-001")
    of_service = berth("diagnose", "mistral", "--must-gather", str(bundle), "-o", "json")
    assert first(of_service) == "MB-KV-001"


def test_a_bundle_without_rights_to_secrets(on_cluster: Any, scene: Scene, server: KubeServer, tmp_path: Path) -> None:
    scene.ready()
    server.deny("list", "secrets")
    done = on_cluster("support-bundle", "--file", tmp_path / "b.tar.gz")
    assert done.returncode == 0
    assert "Secrets may not be listed" in done.stderr


def test_a_must_gather_with_no_such_service(berth: Any, on_cluster: Any, scene: Scene, tmp_path: Path) -> None:
    scene.ready()
    bundle = tmp_path / "bundle.tar.gz"
    assert on_cluster("support-bundle", "--file", bundle).returncode == 0
    done = berth("diagnose", "nobody", "--must-gather", str(bundle))
    assert done.returncode == 2
    assert "has no service nobody" in done.stderr
