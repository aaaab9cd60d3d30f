"""`berth doctor`: every fault of a cluster at once, each with its way out, and what cannot be seen said."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from kube_server import KubeServer
from modelberth.flows.cluster.quantities import quantity
from serving_scenes import NAMESPACE, Scene

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
      - {name: int4, service: mistral, weights: "s3://models/mistral/", weightsSize: 14GB, pool: l4}
"""


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "berth.yaml"
    path.write_text(SPEC)
    return path


def put_keys(server: KubeServer, *keys: str) -> None:
    data = {key: base64.b64encode(b"canary-value").decode() for key in keys}
    about = {"name": "minio-connection", "namespace": NAMESPACE}
    server.put({"apiVersion": "v1", "kind": "Secret", "metadata": about, "data": data})


def checks(done: Any) -> dict[str, tuple[str, str]]:
    assert "canary" not in done.stdout + done.stderr
    return {each["name"]: (each["level"], each["found"]) for each in json.loads(done.stdout)["checks"]}


def test_a_cluster_that_has_all_of_it(on_cluster: Any, scene: Scene, server: KubeServer, spec: Path) -> None:
    put_keys(server, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    done = on_cluster("doctor", spec, "-o", "json")
    found = checks(done)
    assert done.returncode == 0, done.stdout
    assert {level for name, (level, _) in found.items() if name not in {"store", "local engine", "local disk"}} == {
        "ok"
    }
    assert found["GPUs"][1] == "pool l4: 1 of NVIDIA-L4 wanted, 1 of 1 free"
    assert found["node disks"][1].startswith("mistral: 14.00 GB of weights")
    assert "✓ GPUs" in on_cluster("doctor", spec).stdout


def test_every_fault_is_named_at_once(on_cluster: Any, scene: Scene, server: KubeServer, spec: Path) -> None:
    server.deny("patch", "servingruntimes")
    spec.write_text(
        SPEC.replace("weightsSize: 14GB", "weightsSize: 900GB").replace("pool: l4}", "pool: l4, replicas: 3}")
    )
    done = on_cluster("doctor", spec, "-o", "json")
    found = checks(done)
    assert {name for name, (level, _) in found.items() if level == "failed"} == {
        "rights",
        "Secrets",
        "GPUs",
        "node disks",
    }
    assert "patch servingruntimes.serving.kserve.io in private-ai" in found["rights"][1]
    assert done.returncode == 4  # the first failure's own meaning


def test_a_secret_without_its_keys(on_cluster: Any, scene: Scene, server: KubeServer, spec: Path) -> None:
    put_keys(server, "AWS_ACCESS_KEY_ID")
    found = checks(on_cluster("doctor", spec, "-o", "json"))
    assert found["Secrets"] == ("failed", "minio-connection lacks AWS_SECRET_ACCESS_KEY")


def test_gpus_that_others_hold_are_a_warning(on_cluster: Any, scene: Scene, server: KubeServer, spec: Path) -> None:
    put_keys(server, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    scene.ready()
    found = checks(on_cluster("doctor", spec, "-o", "json"))
    assert found["GPUs"] == ("warning", "pool l4: 1 of NVIDIA-L4 wanted, 0 of 1 free")


@pytest.mark.parametrize(("nominal", "used", "level"), [("4", "1", "ok"), ("1", "1", "warning"), ("0", "0", "failed")])
def test_quota_of_the_queue(on_cluster: Any, scene: Scene, server: KubeServer, spec: Path, nominal: str, used: str,
                            level: str) -> None:  # fmt: skip
    put_keys(server, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    spec.write_text(SPEC + "queue: {name: llm}\n")
    space = server.get("Namespace", NAMESPACE)
    assert space is not None
    server.put(space | {"metadata": space["metadata"] | {"labels": {"kueue.openshift.io/managed": "true"}}})
    about = {"name": "llm", "namespace": NAMESPACE}
    api = "kueue.x-k8s.io/v1beta1"
    server.put({"apiVersion": api, "kind": "LocalQueue", "metadata": about, "spec": {"clusterQueue": "all"}})
    resources = [{"name": "nvidia.com/gpu", "nominalQuota": nominal}]
    server.put({
        "apiVersion": api, "kind": "ClusterQueue", "metadata": {"name": "all"},
        "spec": {"resourceGroups": [{"flavors": [{"name": "l4", "resources": resources}]}]},
        "status": {"flavorsUsage": [{"name": "l4", "resources": [{"name": "nvidia.com/gpu", "total": used}]}]},
    })  # fmt: skip
    done = on_cluster("doctor", spec, "-o", "json")
    assert checks(done)["queue"][0] == level
    assert done.returncode == (8 if level == "failed" else 0)


def test_a_queue_that_is_not_there(on_cluster: Any, scene: Scene, server: KubeServer, spec: Path) -> None:
    spec.write_text(SPEC + "queue: {name: llm}\n")
    found = checks(on_cluster("doctor", spec, "-o", "json"))
    assert found["queue"] == ("failed", "there is no LocalQueue llm in private-ai")
    assert found["namespace"] == ("failed", "Kueue does not look after it")


@pytest.mark.parametrize(
    ("version", "driver", "said"),
    [("3.0", "580.65.06", "CUDA error 803"), ("3.4", "570.195.03", "too old for the engine's CUDA 13"),
     ("3.0", "570.195.03", ""), ("3.4", "580.65.06", "")],
)  # fmt: skip
def test_the_driver_and_the_image(on_cluster: Any, scene: Scene, server: KubeServer, spec: Path, version: str,
                                  driver: str, said: str) -> None:  # fmt: skip
    put_keys(server, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    spec.write_text(SPEC.replace('"3.0"', f'"{version}"'))
    node = server.get("Node", "gpu-1")
    assert node is not None
    node["metadata"]["labels"]["nvidia.com/cuda.driver-version.full"] = driver
    server.put(node)
    found = checks(on_cluster("doctor", spec, "-o", "json"))["driver"]
    assert found[0] == ("failed" if said else "ok")
    assert said in found[1]


def test_what_may_not_be_seen_fails_nothing(on_cluster: Any, scene: Scene, server: KubeServer, spec: Path) -> None:
    put_keys(server, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    server.deny("list", "nodes")
    done = on_cluster("doctor", spec, "-o", "json")
    assert done.returncode == 0
    assert checks(done)["GPUs"][0] == "warning"


def test_a_cluster_alone(on_cluster: Any, scene: Scene) -> None:
    done = on_cluster("doctor", "-o", "json")
    assert done.returncode == 0
    assert checks(done)["GPUs"] == ("ok", "NVIDIA-L4: 1 of 1 free")


@pytest.mark.parametrize(("there", "level"), [("3.0.1", "ok"), ("3.2.0", "warning")])
def test_the_platform_that_is_there(on_cluster: Any, scene: Scene, server: KubeServer, spec: Path, there: str,
                                    level: str) -> None:  # fmt: skip
    about = {"name": f"rhods-operator.{there}", "namespace": "default"}
    server.put({"apiVersion": "operators.coreos.com/v1alpha1", "kind": "ClusterServiceVersion", "metadata": about})
    found = checks(on_cluster("doctor", spec, "-o", "json"))["platform"]
    assert found[0] == level
    assert there in found[1]


def test_a_store_is_asked_from_here_where_it_can_be(
    on_cluster: Any, scene: Scene, server: KubeServer, spec: Path
) -> None:
    inside = SPEC.replace("minio.example.com:9000", "minio.minio-storage.svc:9000")
    spec.write_text(inside)
    assert "not asked from here" in checks(on_cluster("doctor", spec, "-o", "json"))["store"][1]
    spec.write_text(SPEC.replace("http://minio.example.com:9000", server.url))
    assert checks(on_cluster("doctor", spec, "-o", "json"))["store"][0] == "ok"
    spec.write_text(SPEC.replace("minio.example.com:9000", "127.0.0.1:9"))
    assert checks(on_cluster("doctor", spec, "-o", "json"))["store"][0] == "warning"


def test_this_machine_alone(berth: Any, tmp_path: Path) -> None:
    done = berth("doctor", "--no-cluster", "--state", str(tmp_path / "state"), "-o", "json")
    assert done.returncode == 0
    found = checks(done)
    assert set(found) == {"Python", "local engine", "local disk"}
    assert found["local engine"] == ("warning", "none is installed")


def test_no_api_server(berth: Any, tmp_path: Path) -> None:
    server = KubeServer()
    server.start()
    config = server.kubeconfig(tmp_path)
    server.stop()
    done = berth("doctor", "--kubeconfig", str(config), "--request-timeout", "0.5")
    assert done.returncode == 9
    assert "does not answer" in done.stderr


@pytest.mark.parametrize(
    ("text", "value"),
    [("100m", 0.1), ("16Gi", 16 * 2**30), ("4", 4), (2, 2), ("1e3", 1000), (None, 0), ("x", 0), ("1k", 1000)],
)
def test_quantities(text: object, value: float) -> None:
    assert quantity(text) == pytest.approx(value)
