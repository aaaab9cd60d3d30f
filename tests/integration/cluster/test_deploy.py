"""`berth deploy`, `diff` and `destroy` on the API server double, with a controller that plays a service's life.

The same commands were tried against a real API server with the real definitions; what a controller does is played here.
"""

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
from openai_endpoint import Behaviour, handler
from serving_scenes import NAMESPACE, Scene

PATIENCE = 40.0
SPEC = """\
apiVersion: modelberth.dev/v1alpha1
kind: Stack
metadata: {name: berths, namespace: private-ai}
platform: {kind: rhoai, version: "3.0"}
pools:
  - {name: l4, gpu: NVIDIA-L4, instanceType: g6.4xlarge}
storage:
  s3: {endpoint: "http://minio.example.com:9000", bucket: models, credentials: {secret: minio-connection}}
models:
  - name: mistral
    variants:
      - name: int4
        service: mistral
        source: hf://acme/mistral
        weights: s3://models/mistral/
        weightsSize: 14GB
        pool: l4
        maxModelLen: 32
delivery: {image: "registry.example.com/modelberth:0.1.0", namespace: private-ai}
"""


@pytest.fixture
def spec(tmp_path: Path, server: KubeServer) -> Path:
    path = tmp_path / "berth.yaml"
    path.write_text(SPEC)
    about = {"name": "minio-connection", "namespace": NAMESPACE}
    data = {"AWS_ACCESS_KEY_ID": "YQ==", "AWS_SECRET_ACCESS_KEY": "YQ=="}
    server.put({"apiVersion": "v1", "kind": "Secret", "metadata": about, "data": data})
    return path


@pytest.fixture
def played(server: KubeServer, http_server: Any) -> Callable[[Callable[[Scene], None]], Scene]:
    """What the controller does with a service when it is applied: one moment of `serving_scenes`."""

    def play(moment: Callable[[Scene], None]) -> Scene:
        scene = Scene(server, "mistral")
        url = http_server(
            handler(type("Named", (Behaviour,), {"models": ({"id": "mistral", "max_model_len": 32},)}))
        ).url
        server.listen_in_pod(NAMESPACE, scene.pod, 8080, int(url.rpartition(":")[2]))

        def controller(event: str, key: tuple[str, str, str], document: dict[str, Any]) -> None:
            if key[0] == "inferenceservices.serving.kserve.io" and event != "DELETED" and not document.get("status"):
                threading.Thread(target=settle, args=(document,)).start()
            elif key[0] == "inferenceservices.serving.kserve.io" and event == "DELETED":
                server.remove("Pod", scene.pod, NAMESPACE)

        def settle(document: dict[str, Any]) -> None:
            kept = scene.service

            def keep_spec(**how: Any) -> dict[str, Any]:
                found = server.get("InferenceService", "mistral", NAMESPACE) or document
                generation = found["metadata"]["generation"]
                ready = how.get("ready", "False")
                status = {"observedGeneration": generation, "conditions": [{"type": "Ready", "status": ready}]}
                return server.change("InferenceService", "mistral", NAMESPACE, status=status)

            scene.service = keep_spec  # type: ignore[method-assign]
            moment(scene)
            scene.service = kept  # type: ignore[method-assign]

        server.store.hooks.append(controller)
        return scene

    return play


def test_a_stack_is_brought_up_verified_and_unchanged_the_second_time(
    on_cluster: Any, played: Any, spec: Path, server: KubeServer
) -> None:
    played(Scene.ready)
    done = on_cluster("deploy", spec, "--yes", "-o", "json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert [each["state"] for each in report["services"]] == ["ready"]
    assert report["checks"][0]["passed"]
    assert {each["outcome"] for each in report["objects"]} == {"create"}
    assert server.get("Lease", "berth-berths", NAMESPACE) is None  # let go
    again = on_cluster("deploy", spec, "--yes", "-o", "json")
    assert again.returncode == 0, again.stderr
    assert {each["outcome"] for each in json.loads(again.stdout)["objects"]} == {"unchanged"}


def test_off_a_terminal_nothing_happens_without_yes(
    on_cluster: Any, scene: Scene, spec: Path, server: KubeServer
) -> None:
    done = on_cluster("deploy", spec)
    assert done.returncode == 2
    assert "--yes" in done.stderr
    assert server.get("InferenceService", "mistral", NAMESPACE) is None


def test_a_dry_run_changes_nothing(on_cluster: Any, scene: Scene, spec: Path, server: KubeServer) -> None:
    done = on_cluster("deploy", spec, "--dry-run")
    assert done.returncode == 0
    assert "create" in done.stdout
    assert server.get("InferenceService", "mistral", NAMESPACE) is None


def test_a_diff_shows_what_would_change(on_cluster: Any, played: Any, spec: Path) -> None:
    played(Scene.ready)
    assert on_cluster("diff", spec, "--exit-code").returncode == 20
    assert on_cluster("deploy", spec, "--yes").returncode == 0
    assert on_cluster("diff", spec, "--exit-code").returncode == 0
    spec.write_text(SPEC.replace("maxModelLen: 32", "maxModelLen: 64"))
    done = on_cluster("diff", spec)
    assert done.returncode == 0
    assert "-        - --max-model-len=32" in done.stdout
    assert "+        - --max-model-len=64" in done.stdout


def test_fields_of_somebody_else_end_it_before_anything_is_changed(
    on_cluster: Any, played: Any, spec: Path, server: KubeServer
) -> None:
    played(Scene.ready)
    assert on_cluster("deploy", spec, "--yes").returncode == 0
    found = server.get("InferenceService", "mistral", NAMESPACE)
    assert found is not None
    found["spec"]["predictor"]["maxReplicas"] = 3
    for entry in found["metadata"]["managedFields"]:
        entry["manager"] = "argocd-controller"
    server.put(found)
    done = on_cluster("deploy", spec, "--yes")
    assert done.returncode == 5
    assert ".spec.predictor.maxReplicas: managed by argocd-controller (ours 1, theirs 3)" in done.stderr
    assert "leave them out of berth.yaml" in done.stderr
    kept = server.get("InferenceService", "mistral", NAMESPACE)
    assert kept is not None
    assert kept["spec"]["predictor"]["maxReplicas"] == 3


def test_rights_that_are_missing_are_named_at_once_with_their_role(
    on_cluster: Any, scene: Scene, spec: Path, server: KubeServer
) -> None:
    server.deny("patch", "servingruntimes")
    server.deny("create", "pods/portforward")
    done = on_cluster("deploy", spec, "--yes")
    assert done.returncode == 4
    assert "2 rights are missing" in done.stderr
    for text in (
        "patch servingruntimes.serving.kserve.io",
        "create pods/portforward",
        "kind: Role",
        "name: berth-deploy",
    ):
        assert text in done.stderr


def test_kinds_that_are_missing_are_named_at_once(berth: Any, spec: Path, tmp_path: Path) -> None:
    with KubeServer(absent=["ServingRuntime", "InferenceService"]) as bare:
        Scene(bare)
        done = berth("deploy", str(spec), "--yes", "--kubeconfig", str(bare.kubeconfig(tmp_path)))
    assert done.returncode == 3
    assert "ServingRuntime" in done.stderr
    assert "InferenceService" in done.stderr


def test_a_namespace_that_is_missing(berth: Any, spec: Path, server: KubeServer, tmp_path: Path) -> None:
    done = berth("deploy", str(spec), "--yes", "--kubeconfig", str(server.kubeconfig(tmp_path)))
    assert done.returncode == 3
    assert "oc create namespace private-ai" in done.stderr


def test_what_is_not_ready_in_time_ends_with_its_reason(on_cluster: Any, played: Any, spec: Path) -> None:
    played(Scene.unschedulable)
    done = on_cluster("deploy", spec, "--yes", "--timeout", "2")
    assert done.returncode == 6
    assert "no node fits" in done.stderr
    assert "berth diagnose mistral -n private-ai" in done.stderr


def test_a_service_that_fails_is_put_back(on_cluster: Any, played: Any, spec: Path, server: KubeServer) -> None:
    played(Scene.ready)
    assert on_cluster("deploy", spec, "--yes").returncode == 0
    before = server.get("InferenceService", "mistral", NAMESPACE)
    assert before is not None
    spec.write_text(SPEC.replace("maxModelLen: 32", "maxModelLen: 64"))
    server.store.hooks.clear()  # nobody observes the new generation: it is never ready
    done = on_cluster("deploy", spec, "--yes", "--timeout", "2", "--rollback-on-failure")
    assert done.returncode == 6
    assert "put back to what it was" in done.stderr
    after = server.get("InferenceService", "mistral", NAMESPACE)
    assert after is not None
    assert after["spec"] == before["spec"]


def test_two_deployments_at_once(on_cluster: Any, played: Any, spec: Path, server: KubeServer) -> None:
    played(Scene.ready)
    lease = {
        "holderIdentity": "somebody@host (process 7)",
        "leaseDurationSeconds": 60,
        "renewTime": "2999-01-01T00:00:00Z",
    }
    about = {"name": "berth-berths", "namespace": NAMESPACE}
    server.put({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": about, "spec": lease})
    done = on_cluster("deploy", spec, "--yes")
    assert done.returncode == 5
    assert "somebody@host (process 7)" in done.stderr
    assert server.get("InferenceService", "mistral", NAMESPACE) is None
    server.change("Lease", "berth-berths", NAMESPACE, spec=lease | {"renewTime": "2020-01-01T00:00:00Z"})
    assert on_cluster("deploy", spec, "--yes").returncode == 0  # its holder has died


def test_without_rights_to_leases_it_goes_on(on_cluster: Any, played: Any, spec: Path, server: KubeServer) -> None:
    played(Scene.ready)
    server.deny("*", "leases")
    done = on_cluster("deploy", spec, "--yes")
    assert done.returncode == 0
    assert "no Lease can be held" in done.stderr


def test_ctrl_c_says_what_continues(played: Any, spec: Path, server: KubeServer, tmp_path: Path) -> None:
    played(Scene.unschedulable)
    config = server.kubeconfig(tmp_path)
    command = [sys.executable, "-m", "modelberth.cli.main", "deploy", str(spec), "--yes", "--kubeconfig", str(config)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        timer = threading.Timer(PATIENCE, process.kill)
        timer.start()
        assert process.stderr
        for line in process.stderr:
            if "no node fits" in line:
                break
        process.send_signal(signal.SIGINT)
        said = process.stderr.read()
        assert process.wait() == 130
        timer.cancel()
    assert "what was applied goes on in private-ai" in said
    assert "berth watch" in said
    assert server.get("InferenceService", "mistral", NAMESPACE) is not None
    assert server.get("Lease", "berth-berths", NAMESPACE) is None


def finish_jobs(server: KubeServer, how: str) -> None:
    """A controller that ends every Job, with a pod whose log says so."""

    def end(event: str, key: tuple[str, str, str], document: dict[str, Any]) -> None:
        if key[0] == "jobs.batch" and event == "ADDED":
            labels = {"job-name": key[2]}
            server.put({
                "apiVersion": "v1", "kind": "Pod", "spec": {"nodeName": "n", "containers": [{"name": "berth"}]},
                "metadata": {"name": "upload-pod", "namespace": NAMESPACE, "labels": labels},
            })  # fmt: skip
            server.write_log(NAMESPACE, "upload-pod", "berth", "3 of 3 files, 14 GB\n")
            condition = {"type": how, "status": "True"}
            threading.Thread(
                target=server.change, args=("Job", key[2], NAMESPACE), kwargs={"status": {"conditions": [condition]}}
            ).start()

    server.store.hooks.append(end)


def test_weights_are_brought_first(on_cluster: Any, played: Any, spec: Path, server: KubeServer) -> None:
    played(Scene.ready)
    finish_jobs(server, "Complete")
    done = on_cluster("deploy", spec, "--yes", "--ship")
    assert done.returncode == 0, done.stderr
    assert done.stderr.index("3 of 3 files, 14 GB") < done.stderr.index("InferenceService private-ai/mistral: created")
    assert "done before, unchanged" in on_cluster("deploy", spec, "--yes", "--ship").stderr


def test_weights_that_no_job_can_bring_are_said(on_cluster: Any, played: Any, spec: Path) -> None:
    played(Scene.ready)
    spec.write_text("".join(line for line in SPEC.splitlines(keepends=True) if not line.startswith("delivery:")))
    done = on_cluster("deploy", spec, "--yes", "--ship")
    assert done.returncode == 0, done.stderr
    assert "weights are not brought from here, the stack has no delivery" in done.stderr


def test_weights_that_do_not_arrive_end_it(on_cluster: Any, played: Any, spec: Path, server: KubeServer) -> None:
    played(Scene.ready)
    finish_jobs(server, "Failed")
    done = on_cluster("deploy", spec, "--yes", "--ship")
    assert done.returncode == 6
    assert "3 of 3 files, 14 GB" in done.stderr
    assert server.get("InferenceService", "mistral", NAMESPACE) is None


def test_destroy_needs_the_name_and_leaves_what_is_others(
    on_cluster: Any, played: Any, spec: Path, server: KubeServer
) -> None:
    played(Scene.ready)
    assert on_cluster("deploy", spec, "--yes").returncode == 0
    assert on_cluster("destroy", spec).returncode == 2
    assert on_cluster("destroy", spec, "--confirm", "other").returncode == 2
    assert server.get("InferenceService", "mistral", NAMESPACE) is not None
    runtime = server.get("ServingRuntime", "vllm-runtime", NAMESPACE)
    assert runtime is not None
    server.put(runtime | {"metadata": runtime["metadata"] | {"labels": {}}})
    done = on_cluster("destroy", spec, "--confirm", "berths")
    assert done.returncode == 0, done.stderr
    assert "stays: weights: s3://models/mistral/" in done.stderr
    assert "ServingRuntime private-ai/vllm-runtime: it is not of this stack" in done.stderr
    assert server.get("InferenceService", "mistral", NAMESPACE) is None
    assert server.get("ServingRuntime", "vllm-runtime", NAMESPACE) is not None


def test_a_deletion_that_hangs_names_what_it_waits_for(
    on_cluster: Any, played: Any, spec: Path, server: KubeServer
) -> None:
    played(Scene.ready)
    assert on_cluster("deploy", spec, "--yes").returncode == 0
    found = server.get("InferenceService", "mistral", NAMESPACE)
    assert found is not None
    server.put(found | {"metadata": found["metadata"] | {"finalizers": ["inferenceservice.finalizers"]}})
    done = on_cluster("destroy", spec, "--confirm", "berths", "--timeout", "1")
    assert done.returncode == 6
    assert "waits for inferenceservice.finalizers" in done.stderr


def test_a_failure_is_diagnosed_at_once(on_cluster: Any, played: Any, spec: Path) -> None:
    played(Scene.crash_loop)
    done = on_cluster("deploy", spec, "--yes", "--timeout", "2")
    assert done.returncode == 6
    assert "MB-KV-001 The context is longer than the KV cache holds: The engine was asked for a context" in done.stderr
    assert "fix: " in done.stderr


def test_objects_without_a_cluster(berth: Any, spec: Path, tmp_path: Path) -> None:
    done = berth("deploy", str(spec), "--dry-run", "client", "--kubeconfig", str(tmp_path / "none"))
    assert done.returncode == 0
    assert "kind: InferenceService" in done.stdout


def test_a_namespace_that_is_deleted_meanwhile(played: Any, spec: Path, server: KubeServer, tmp_path: Path) -> None:
    played(Scene.unschedulable)
    config = server.kubeconfig(tmp_path)
    command = [sys.executable, "-m", "modelberth.cli.main", "deploy", str(spec), "--yes", "--timeout", "4",
               "--kubeconfig", str(config)]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr
        for line in process.stderr:
            if "no node fits" in line:
                break
        for kind, name in (("InferenceService", "mistral"), ("ServingRuntime", "vllm-runtime")):
            server.remove(kind, name, NAMESPACE)
        server.remove("Namespace", NAMESPACE)
        said = process.stderr.read()
        assert process.wait() == 6
    assert "mistral: absent" in said


def test_the_rendered_script_runs_it_all(
    berth: Any, played: Any, spec: Path, server: KubeServer, tmp_path: Path
) -> None:
    played(Scene.ready)
    finish_jobs(server, "Complete")
    assert berth("render", str(spec), "-o", str(tmp_path)).returncode == 0
    script = tmp_path / "steps" / "berths" / "deploy.sh"
    config = server.kubeconfig(tmp_path)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    run = subprocess.run([script], env={"PATH": path, "KUBECONFIG": str(config), "HOME": str(tmp_path)},
                         capture_output=True, text=True, check=False)  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "mistral: verified" in run.stderr
    server.deny("patch", "inferenceservices")
    run = subprocess.run([script], env={"PATH": path, "KUBECONFIG": str(config), "HOME": str(tmp_path)},
                         capture_output=True, text=True, check=False)  # fmt: skip
    assert run.returncode == 4


def test_what_no_waiting_would_mend_stops_a_deployment_before_it_begins(
    on_cluster: Any, server: KubeServer, played: Any, spec: Path
) -> None:
    scene = played(Scene.ready)
    server.remove("Secret", "minio-connection", NAMESPACE)
    scene.has_driver("580.65.06")
    done = on_cluster("deploy", spec, "--yes")
    assert done.returncode == 3
    assert "2 of what the stack needs is not there; nothing was changed" in done.stderr
    assert "Secrets: minio-connection is not in private-ai" in done.stderr
    assert "CUDA error 803" in done.stderr
    assert server.get("InferenceService", "mistral", NAMESPACE) is None
    done = on_cluster("deploy", spec, "--yes", "--no-preflight", "--no-verify")
    assert done.returncode == 0, done.stderr


def test_gpus_that_may_still_come_are_said(on_cluster: Any, server: KubeServer, played: Any, spec: Path) -> None:
    played(Scene.ready)
    spec.write_text(SPEC.replace("pool: l4\n", "pool: l4\n        replicas: 2\n"))
    done = on_cluster("deploy", spec, "--yes", "--no-wait")
    assert done.returncode == 0, done.stderr
    assert "preflight: GPUs: pool l4: 2 of NVIDIA-L4 wanted, 1 of 1 free" in done.stderr


def test_a_disk_that_is_too_small_does_not_fit(on_cluster: Any, server: KubeServer, played: Any, spec: Path) -> None:
    played(Scene.ready)
    spec.write_text(SPEC.replace("14GB", "900GB"))
    done = on_cluster("deploy", spec, "--yes", "--no-wait")
    assert done.returncode == 8
    assert "gpu-1 lacks" in done.stderr
