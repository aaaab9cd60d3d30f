"""`berth status`, `watch` and `logs` on the API server double: what a user sees at each moment of a service's life."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kube_server import KubeServer
from life_cycle import ENDINGS, IMAGE_BYTES, STAGES, moments
from modelberth.base.units import format_seconds
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
        (Scene.crash_loop, ("failing", "profile"), "kserve-container ended with exit code 1, 4 restarts"),
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
    assert lines[0].split() == ["NAME", "STATE", "READY", "AGE", "WHY", "KIND", "GPUS", "CONTEXT", "RUNTIME", "MODEL",
                                "NODE", "RESTARTS", "URL"]  # fmt: skip
    assert lines[1].startswith("granite  FAILING (profile)  0/1")
    assert lines[2].split()[-7:-1] == ["1", "8192", "vllm-runtime", "s3://models/mistral/", "gpu-1", "0"]
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
    assert watching.ends()[0] == 0


def test_a_whole_start_is_told_stage_by_stage_with_the_clusters_own_times(server: KubeServer, tmp_path: Path) -> None:
    life = moments(Scene(server))
    watching = Watching(server.kubeconfig(tmp_path, namespace=NAMESPACE))
    told = []
    for stage, why in life:
        line = watching.line(f"mistral: {stage} ")
        while why not in line:
            line = watching.line(f"mistral: {stage} ")
        told.append(stage)
    assert list(dict.fromkeys(told)) == [*list(STAGES)[:2], "image", "download", *list(STAGES)[4:], "ready"]
    code, said = watching.ends()
    assert code == 0
    took = ", ".join(f"{stage} {format_seconds(seconds)}" for stage, seconds in STAGES.items())
    engine = sum(list(STAGES.values())[4:])
    assert said.splitlines()[-1] == (
        f"mistral: {took}; {format_seconds(sum(STAGES.values()))}, the engine's start {format_seconds(engine)}"
    )


@pytest.mark.parametrize("ending", ENDINGS)
def test_each_way_in_which_a_life_goes_wrong_is_followed_to_its_end(
    server: KubeServer, tmp_path: Path, ending: Callable[[Scene], Iterator[tuple[str, str]]]
) -> None:
    watching = None
    for stage, why in ending(Scene(server)):
        watching = watching or Watching(server.kubeconfig(tmp_path, namespace=NAMESPACE), "--forever")
        line = watching.line(f"mistral: {stage} ")
        while why not in line:
            line = watching.line(f"mistral: {stage} ")
    assert watching
    watching.process.send_signal(signal.SIGINT)
    assert watching.ends()[0] == 130


def test_measured_times_stand_beside_the_plans(on_cluster: Any, server: KubeServer, stack: Any) -> None:
    """13.5 GB at the planned 125 MiB/s: 103 s to write them to the node's disk, and as many to read them."""
    for _ in moments(Scene(server, "harbor-int4")):
        pass
    spec = stack("int4")
    spec.write_text(spec.read_text().replace("maxModelLen", "weightsSize: 13.5GB, maxModelLen"))
    (found,) = json.loads(on_cluster("status", spec, "-n", NAMESPACE, "-o", "json").stdout)["services"]
    assert found["planned"]["stages"] == [{"stage": "image", "seconds": 103.0}, {"stage": "weights", "seconds": 103.0}]
    assert found["planned"]["engineSecondsAtMost"] % 60 == 0
    said = on_cluster("watch", spec, "-n", NAMESPACE).stderr
    assert "image 85 s (planned 103 s), " in said
    assert said.endswith(f"of {format_seconds(found['planned']['engineSecondsAtMost'])} at most")


def test_times_and_sizes_are_numbers(on_cluster: Any, scene: Scene) -> None:
    for stage, why in moments(scene):
        if why.startswith("12.00 GB"):
            pod = state(on_cluster("status", "-o", "json"))["pods"][0]
            figures = {"bytes": 12_000_000_000, "totalBytes": 47_140_000_000, "bytesPerSecond": 410_000_000}
            assert pod["transfer"] == figures | {"secondsLeft": 85.7}
        if stage == "server":
            found = state(on_cluster("status", "-o", "json"))
            assert {each["stage"]: each["seconds"] for each in found["stages"]} == {
                stage: seconds for stage, seconds in STAGES.items() if stage != "server"
            }
            assert found["stageSeconds"] > 3600
            assert (found["gpus"], found["context"], found["pods"][0]["imageBytes"]) == (1, 8192, IMAGE_BYTES)


def test_a_stage_is_not_forgotten_when_much_is_said_after_it(server: KubeServer, tmp_path: Path) -> None:
    scene = Scene(server)
    scene.loading()
    watching = Watching(server.kubeconfig(tmp_path, namespace=NAMESPACE), "--forever")
    watching.line("mistral: weights")
    scene.log("Loading safetensors checkpoint shards:  10% Completed\n" * 20_000)
    scene.log("INFO 11-23 13:50:54 [default_loader.py:501] Loading weights took 0.02 seconds\n")
    assert "mistral: profile" in watching.line("mistral: ")
    watching.process.send_signal(signal.SIGINT)
    assert watching.ends()[0] == 130


def test_a_restart_begins_anew(server: KubeServer, tmp_path: Path) -> None:
    scene = Scene(server)
    scene.loading()
    watching = Watching(server.kubeconfig(tmp_path, namespace=NAMESPACE), "--forever")
    watching.line("mistral: weights")
    server.clear_log(NAMESPACE, scene.pod, "kserve-container")
    scene.put_pod(engine={"restartCount": 1, "state": {"running": {"startedAt": "2026-11-25T09:10:00Z"}}})
    assert "mistral: process" in watching.line("mistral: ")
    watching.process.send_signal(signal.SIGINT)
    assert watching.ends()[0] == 130


def test_without_a_right_to_events_stages_are_told_all_the_same(
    on_cluster: Any, scene: Scene, server: KubeServer
) -> None:
    scene.loading()
    server.deny("*", "events")
    found = state(on_cluster("status", "-o", "json"))
    assert (found["stage"], found["pods"][0]["imageBytes"]) == ("weights", None)


def test_two_kinds_of_service_may_have_one_name(on_cluster: Any, scene: Scene, server: KubeServer) -> None:
    scene.ready()
    scene.llm_service()
    done = on_cluster("status", "mistral", "-o", "json")
    found = {each["kind"]: each for each in json.loads(done.stdout)["services"]}
    assert {kind: each["state"] for kind, each in found.items()} == {
        "InferenceService": "ready", "LLMInferenceService": "progressing",
    }  # fmt: skip
    assert found["LLMInferenceService"]["model"] == "oci://example.com/mistral:1"
    assert [pod["name"] for pod in found["LLMInferenceService"]["pods"]] == ["mistral-kserve-0"]
    assert done.returncode == 6


def test_a_queue_tells_who_holds_its_gpus(on_cluster: Any, scene: Scene, server: KubeServer) -> None:
    next(moments(scene))
    usage = {"clusterQueue": "all", "podSetAssignments": [{"resourceUsage": {"nvidia.com/gpu": "4"}}]}
    server.put({
        "apiVersion": "kueue.x-k8s.io/v1beta1", "kind": "Workload", "spec": {"queueName": "llm-serving"},
        "metadata": {"name": "pod-granite", "namespace": NAMESPACE}, "status": {"admission": usage},
    })  # fmt: skip
    assert state(on_cluster("status", "-o", "json"))["why"].endswith(
        "GPUs of this queue are held by pod-granite (4)"
    )  # fmt: skip


def test_a_watch_survives_a_restart_of_the_server(server: KubeServer, tmp_path: Path) -> None:
    scene = Scene(server)
    scene.unschedulable()
    watching = Watching(server.kubeconfig(tmp_path, namespace=NAMESPACE), "-o", "jsonl")
    first = json.loads(watching.line("scheduling"))
    assert first["schemaVersion"] == "modelberth.dev/status/v1"
    server.stop()
    assert watching.process.stderr
    assert watching.process.stderr.readline().startswith("the API server does not answer")
    server.start()
    assert watching.process.stderr.readline() == "the API server answers again\n"
    scene.ready()
    assert json.loads(watching.line('"state": "ready"'))["name"] == "mistral"
    assert watching.ends()[0] == 0


def test_a_watch_ends_when_the_time_is_over(on_cluster: Any, scene: Scene) -> None:
    scene.unschedulable()
    done = on_cluster("watch", "--timeout", "0.5")
    assert done.returncode == 6
    assert "not ready: mistral: scheduling (0 of 1 ready): no node fits" in done.stderr
    assert f"next: berth diagnose mistral -n {NAMESPACE}" in done.stderr


def test_an_empty_namespace_is_said(on_cluster: Any, scene: Scene) -> None:
    done = on_cluster("watch", "--timeout", "0.1")
    assert (done.returncode, done.stdout) == (6, "")
    assert f"there are no services in {NAMESPACE} yet" in done.stderr


def test_a_service_that_is_deleted_is_told(server: KubeServer, tmp_path: Path) -> None:
    scene = Scene(server)
    scene.unschedulable()
    Scene(server, "granite").unschedulable()
    watching = Watching(server.kubeconfig(tmp_path, namespace=NAMESPACE))
    watching.line("granite: scheduling")
    server.remove("InferenceService", "granite", NAMESPACE)
    assert "there is no such service" in watching.line("granite: ABSENT")
    scene.ready()
    watching.line("mistral: ready")
    assert watching.ends()[0] == 0


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


def add_second_pod(server: KubeServer, scene: Scene) -> None:
    first = server.get("Pod", scene.pod, NAMESPACE)
    assert first is not None
    about = {"name": "second", "namespace": NAMESPACE, "labels": first["metadata"]["labels"]}
    server.put(first | {"metadata": about})


def test_several_pods_are_followed_at_once(berth: Any, scene: Scene, server: KubeServer, tmp_path: Path) -> None:
    scene.ready()
    add_second_pod(server, scene)
    server.write_log(NAMESPACE, "second", "kserve-container", "from the second\n")
    config = server.kubeconfig(tmp_path, namespace=NAMESPACE)
    following = berth.start("logs", "mistral", "-f", "--kubeconfig", str(config))
    following.output.wait_for("[second] from the second")
    scene.log("later from the first\n")
    following.output.wait_for(f"[{scene.pod}] later from the first")
    for pod in ("second", scene.pod):
        server.end_log(NAMESPACE, pod, "kserve-container")
    code, _, said = following.end()
    assert (code, said) == (0, "")


def test_one_of_several_logs_that_cannot_be_read(berth: Any, scene: Scene, server: KubeServer, tmp_path: Path) -> None:
    """What the others say is shown; then the failure is told."""
    scene.ready()
    add_second_pod(server, scene)
    server.end_log(NAMESPACE, scene.pod, "kserve-container")
    done = berth("logs", "mistral", "-f", "--kubeconfig", str(server.kubeconfig(tmp_path, namespace=NAMESPACE)))
    assert f"[{scene.pod}] " in done.stdout
    assert done.returncode != 0
    assert "waiting to start" in done.stderr


def test_logs_of_no_service(on_cluster: Any, scene: Scene) -> None:
    scene.ready()
    done = on_cluster("logs", "mistra")
    assert done.returncode == 3
    assert "did you mean 'mistral'?" in done.stderr
