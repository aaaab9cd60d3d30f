"""`berth status`, `watch` and `logs` on the API server double: what a user sees at each moment of a service's life."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kube_server import KubeServer
from serving_scenes import NAMESPACE, Scene

PATIENCE = 40.0


def state(done: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(done.stdout)["services"][0]
    return found


@pytest.mark.parametrize(
    ("moment", "expected", "why"),
    [
        (Scene.ready, ("ready", "ready"), ""),
        (Scene.loading, ("progressing", "weights"), ""),
        (
            Scene.unschedulable,
            ("progressing", "scheduling"),
            "no node fits (4 there are): 1 Insufficient nvidia.com/gpu",
        ),
        (Scene.no_space_for_image, ("failing", "image"), "cannot be pulled"),
        (Scene.access_denied, ("failing", "download"), "storage-initializer ended with exit code 1, 3 restarts"),
        (Scene.crash_loop, ("failing", "process"), "kserve-container ended with exit code 1, 4 restarts"),
    ],
)
def test_each_moment_has_its_stage_and_reason(
    on_cluster: Any, scene: Scene, moment: Callable[[Scene], None], expected: tuple[str, str], why: str
) -> None:
    moment(scene)
    done = on_cluster("status", "-o", "json")
    found = state(done)
    assert (found["state"], found["stage"]) == expected, done.stdout
    assert why in found["why"]
    assert done.returncode == (0 if expected[0] == "ready" else 6)


def test_a_download_says_how_far_it_is(on_cluster: Any, scene: Scene) -> None:
    scene.service()
    scene.put_pod(phase="Pending", init={"ready": False, "state": {"running": {"startedAt": "2026-11-25T09:00:00Z"}}})
    scene.log(
        "fetching\n[  60.0 s] fetch: 12.00 GB of 47.14 GB, 410.00 MB/s, 86 s left\n", container="storage-initializer"
    )
    found = state(on_cluster("status", "mistral", "-o", "json"))
    assert (found["state"], found["stage"]) == ("progressing", "download")
    assert "12.00 GB of 47.14 GB, 410.00 MB/s, 86 s left" in found["why"]


def test_a_stale_ready_is_not_ready(on_cluster: Any, scene: Scene) -> None:
    scene.crash_loop(ready="True")
    found = state(on_cluster("status", "mistral", "-o", "json"))
    assert found["state"] == "failing"
    assert found["why"].startswith("Ready is stale: ")


def test_a_generation_that_nobody_has_seen_is_not_ready(on_cluster: Any, scene: Scene, server: KubeServer) -> None:
    scene.ready()
    service = server.get("InferenceService", "mistral", NAMESPACE)
    assert service is not None
    server.put(service | {"spec": {"predictor": {"minReplicas": 2}}})
    found = state(on_cluster("status", "mistral", "-o", "json"))
    assert (found["state"], found["why"]) == ("progressing", "its controller has seen generation 1 of 2")


def test_a_deletion_names_what_it_waits_for(on_cluster: Any, scene: Scene, server: KubeServer) -> None:
    scene.ready()
    service = server.get("InferenceService", "mistral", NAMESPACE)
    assert service is not None
    server.put(service | {"metadata": service["metadata"] | {"finalizers": ["inferenceservice.finalizers"]}})
    server.remove("InferenceService", "mistral", NAMESPACE)
    found = state(on_cluster("status", "mistral", "-o", "json"))
    assert (found["state"], found["why"]) == ("terminating", "being deleted; waits for inferenceservice.finalizers")


def test_a_queue_names_the_quota_that_is_missing(on_cluster: Any, scene: Scene, server: KubeServer) -> None:
    scene.unschedulable()
    pod = server.get("Pod", scene.pod, NAMESPACE)
    assert pod is not None
    pod["spec"]["schedulingGates"] = [{"name": "kueue.x-k8s.io/admission"}]
    server.put(pod)
    text = "couldn't assign flavors to pod set main: insufficient unused quota for nvidia.com/gpu in flavor l4"
    server.put({
        "apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "Workload", "spec": {"queueName": "llm-serving"},
        "metadata": {"name": "w", "namespace": NAMESPACE, "ownerReferences": [{"kind": "Pod", "name": scene.pod}]},
        "status": {"conditions": [{"type": "QuotaReserved", "status": "False", "reason": "Pending", "message": text}]},
    })  # fmt: skip
    found = state(on_cluster("status", "mistral", "-o", "json"))
    assert found["stage"] == "queue"
    assert found["why"] == f"queue llm-serving: {text}"


def test_a_stopped_service_is_no_failure(on_cluster: Any, scene: Scene, server: KubeServer) -> None:
    service = scene.service()
    server.put(service | {"metadata": service["metadata"] | {"annotations": {"serving.kserve.io/stop": "true"}}})
    done = on_cluster("status", "-o", "json")
    assert (done.returncode, state(done)["state"]) == (0, "stopped")


def test_a_table_for_people(on_cluster: Any, server: KubeServer) -> None:
    Scene(server, "mistral").ready()
    Scene(server, "granite").crash_loop()
    done = on_cluster("status", "-o", "wide")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["NAME", "STATE", "READY", "AGE", "WHY", "NODE", "RESTARTS", "URL"]
    assert lines[1].startswith("granite  FAILING (process)  0/1")
    assert "http://mistral." in lines[2]
    assert on_cluster("status", "mistral", "-o", "name").stdout == "inferenceservice/mistral"


def test_a_service_that_is_not_there(on_cluster: Any, scene: Scene) -> None:
    scene.ready()
    done = on_cluster("status", "granite")
    assert done.returncode == 6
    assert "ABSENT" in done.stdout


def test_a_cluster_without_kserve(berth: Any, tmp_path: Path) -> None:
    with KubeServer(absent=["InferenceService", "LLMInferenceService"]) as bare:
        done = berth("status", "--kubeconfig", str(bare.kubeconfig(tmp_path)))
    assert done.returncode == 3
    assert "KServe is not installed there" in done.stderr


def test_no_right_to_see_services(on_cluster: Any, scene: Scene, server: KubeServer) -> None:
    scene.ready()
    server.deny("*", "inferenceservices")
    done = on_cluster("status")
    assert done.returncode == 4
    assert "cannot list" in done.stderr


class Watching:
    """A `berth watch` that runs, its lines as they come."""

    def __init__(self, config: Path, *arguments: str) -> None:
        command = [sys.executable, "-m", "modelberth.cli.main", "watch", "--kubeconfig", str(config), *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._timer = threading.Timer(PATIENCE, self.process.kill)
        self._timer.start()

    def line(self, part: str) -> str:
        assert self.process.stdout
        for line in self.process.stdout:
            if part in line:
                return line
        raise AssertionError(f"no line with {part}: {self.process.stderr.read() if self.process.stderr else ''}")

    def ends(self) -> tuple[int, str]:
        _, said = self.process.communicate()
        self._timer.cancel()
        return self.process.returncode, said


def test_a_watch_tells_each_change_and_ends_when_all_are_ready(server: KubeServer, tmp_path: Path) -> None:
    scene = Scene(server)
    scene.unschedulable()
    watching = Watching(server.kubeconfig(tmp_path, namespace=NAMESPACE))
    assert "mistral: scheduling (0 of 1 ready): no node fits" in watching.line("scheduling")
    scene.loading()
    watching.line("mistral: weights (0 of 1 ready)")
    scene.ready()
    watching.line("mistral: ready (1 of 1 ready)")
    code, said = watching.ends()
    assert code == 0
    assert said.startswith("mistral: scheduling ")


def test_a_watch_survives_a_restart_of_the_server(server: KubeServer, tmp_path: Path) -> None:
    scene = Scene(server)
    scene.unschedulable()
    watching = Watching(server.kubeconfig(tmp_path, namespace=NAMESPACE), "-o", "jsonl")
    first = json.loads(watching.line("scheduling"))
    assert first["schemaVersion"] == "modelberth.dev/status/v1"
    server.stop()
    server.start()
    scene.ready()
    assert json.loads(watching.line('"state": "ready"'))["name"] == "mistral"
    assert watching.ends()[0] == 0


def test_a_watch_ends_when_the_time_is_over(on_cluster: Any, scene: Scene) -> None:
    scene.unschedulable()
    done = on_cluster("watch", "--timeout", "0.5")
    assert done.returncode == 6


def test_ctrl_c_stops_the_watch_alone(server: KubeServer, tmp_path: Path) -> None:
    scene = Scene(server)
    scene.unschedulable()
    watching = Watching(server.kubeconfig(tmp_path, namespace=NAMESPACE))
    watching.line("scheduling")
    watching.process.send_signal(signal.SIGINT)
    code, said = watching.ends()
    assert (code, said) == (130, "stopped by SIGINT\n")
    assert server.get("InferenceService", "mistral", NAMESPACE) is not None


def test_logs_of_the_engine_and_of_what_fetches(on_cluster: Any, scene: Scene) -> None:
    scene.ready()
    scene.log("\x1b[31mfetched 3 files\n", container="storage-initializer")
    assert "Initializing a V1 LLM engine" in on_cluster("logs", "mistral").stdout
    assert on_cluster("logs", "mistral", "--init").stdout == "fetched 3 files"
    assert len(on_cluster("logs", "mistral", "--tail", "2").stdout.splitlines()) == 2
    missing = on_cluster("logs", "mistral", "--previous")
    assert missing.returncode == 2
    assert "previous terminated container" in missing.stderr


def test_logs_of_no_service(on_cluster: Any, scene: Scene) -> None:
    scene.ready()
    done = on_cluster("logs", "mistra")
    assert done.returncode == 3
    assert "did you mean 'mistral'?" in done.stderr
