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


POLICY = {"apiVersion": "nvidia.com/v1", "kind": "ClusterPolicy", "metadata": {"name": "gpu-cluster-policy"}}


def put_policy(server: KubeServer, state: str = "ready", **status: Any) -> None:
    server.put(POLICY | {"status": {"state": state, **status}})


def put_operator(server: KubeServer, name: str) -> None:
    about = {"name": name, "namespace": "default"}
    server.put({"apiVersion": "operators.coreos.com/v1alpha1", "kind": "ClusterServiceVersion", "metadata": about})


def checks(done: Any) -> dict[str, tuple[str, str]]:
    assert "canary" not in done.stdout + done.stderr
    return {each["name"]: (each["level"], each["found"]) for each in json.loads(done.stdout)["checks"]}


def test_a_cluster_that_has_all_of_it(on_cluster: Any, scene: Scene, server: KubeServer, spec: Path) -> None:
    put_keys(server, "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    put_policy(server)
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
    manifest = next(each["manifest"] for each in json.loads(done.stdout)["checks"] if each["name"] == "rights")
    assert "kind: Role" in manifest
    assert manifest.rstrip() in on_cluster("doctor", spec).stdout


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
    scene.has_driver(driver)
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
    put_operator(server, f"rhods-operator.{there}")
    found = checks(on_cluster("doctor", spec, "-o", "json"))["platform"]
    assert found[0] == level
    assert there in found[1]


@pytest.mark.parametrize(
    ("labels", "image", "level", "said"),
    [
        ({"app.kubernetes.io/version": "v0.15.2"}, "kserve/kserve-controller@sha256:00", "ok", "0.15.2, serving"),
        ({}, "kserve/kserve-controller:v0.15.0", "ok", "0.15.0, serving"),
        ({}, "kserve/kserve-controller:v0.17.0", "warning", "0.17.0 is there, and rhoai 3.0 is rendered for 0.15"),
        ({}, "registry.example/odh-kserve-controller@sha256:00", "ok", "serving.kserve.io: "),
    ],
)
def test_kserves_own_version(on_cluster: Any, scene: Scene, server: KubeServer, spec: Path, labels: dict[str, str],
                             image: str, level: str, said: str) -> None:  # fmt: skip
    about = {"name": "kserve-controller-manager", "namespace": "redhat-ods-applications", "labels": labels}
    pod = {"spec": {"containers": [{"name": "manager", "image": image}]}}
    server.put({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": about, "spec": {"template": pod}})
    found = checks(on_cluster("doctor", spec, "-o", "json"))["KServe"]
    assert found[0] == level
    assert found[1].startswith(said)


def test_the_gpu_operator(on_cluster: Any, scene: Scene, server: KubeServer) -> None:
    put_operator(server, "gpu-operator-certified.v25.3.0")
    assert checks(on_cluster("doctor", "-o", "json"))["GPU operator"] == (
        "warning", "version 25.3.0, no ClusterPolicy",
    )  # fmt: skip
    error = {"type": "Error", "status": "True", "message": "driver daemonset is not ready"}
    put_policy(server, "notReady", conditions=[error])
    assert checks(on_cluster("doctor", "-o", "json"))["GPU operator"] == (
        "warning",
        "version 25.3.0, ClusterPolicy gpu-cluster-policy: notReady: driver daemonset is not ready",
    )
    put_policy(server)
    assert checks(on_cluster("doctor", "-o", "json"))["GPU operator"][0] == "ok"


@pytest.mark.parametrize(
    ("vllm", "driver", "said"),
    [("0.19.1", "570.195.03", ""), ("0.20.0", "570.195.03", "too old for vLLM 0.20.0, which is built for CUDA 13"),
     ("0.20.0", "580.65.06", ""), ("0.9.0", "520.61.05", "needs 525")],
)  # fmt: skip
def test_the_driver_and_a_release_of_vllm(on_cluster: Any, scene: Scene, server: KubeServer, spec: Path, vllm: str,
                                          driver: str, said: str) -> None:  # fmt: skip
    spec.write_text(SPEC.replace('{kind: rhoai, version: "3.0"}', f'{{kind: kserve, version: "0.17", vllm: "{vllm}"}}'))
    scene.has_driver(driver)
    found = checks(on_cluster("doctor", spec, "-o", "json"))["driver"]
    assert found[0] == ("failed" if said else "ok")
    assert said in found[1]


IMAGE = SPEC.replace('weights: "s3://models/mistral/"', 'weights: "oci://r.example.com/mistral:1"').replace(
    "storage:\n", "storage:\n  oci: {registry: r.example.com, credentials: {secret: pull}}\n"
)


def test_an_image_needs_its_peak(on_cluster: Any, scene: Scene, server: KubeServer, spec: Path) -> None:
    """250 GB unpacked and three layers of 4.9 GB in flight, on a disk of 480 GiB; 510 GB do not go there."""
    spec.write_text(IMAGE.replace("14GB", "250GB"))
    found = checks(on_cluster("doctor", spec, "-o", "json"))["node disks"]
    assert found == ("ok", "mistral: an image of 250.00 GB takes 264.70 GB while it is pulled, 515.40 GB on the "
                           "smallest node")  # fmt: skip
    spec.write_text(IMAGE.replace("14GB", "510GB"))
    found = checks(on_cluster("doctor", spec, "-o", "json"))["node disks"]
    assert found == ("failed", "mistral: an image of 510.00 GB takes 524.70 GB while it is pulled: gpu-1 lacks 9.30 GB")
    node = server.get("Node", "gpu-1")
    assert node is not None
    node["status"]["allocatable"]["ephemeral-storage"] = "900Gi"
    server.put(node | {"metadata": {"name": "gpu-2", "labels": node["metadata"]["labels"]}})
    assert checks(on_cluster("doctor", spec, "-o", "json"))["node disks"][0] == "warning"


@pytest.mark.parametrize(
    ("kind", "key", "content", "said"),
    [
        ("kubernetes.io/dockerconfigjson", ".dockerconfigjson", {"auths": {"r.example.com": {"auth": "canary"}}}, ""),
        ("kubernetes.io/dockerconfigjson", ".dockerconfigjson", {"auths": {"https://r.example.com/v1/": {}}}, ""),
        ("kubernetes.io/dockercfg", ".dockercfg", {"r.example.com": {"auth": "canary"}}, ""),
        ("kubernetes.io/dockerconfigjson", ".dockerconfigjson", {"auths": {"quay.io": {}}}, "it has quay.io"),
        ("kubernetes.io/dockerconfigjson", ".dockerconfigjson", [], "it has none"),
        ("Opaque", "config.json", {}, "is of type Opaque"),
        ("", "", {}, "pull is not in private-ai"),
    ],
)
def test_the_secret_that_an_image_is_pulled_with(on_cluster: Any, scene: Scene, server: KubeServer, spec: Path,
                                                 kind: str, key: str, content: Any, said: str) -> None:  # fmt: skip
    spec.write_text(IMAGE)
    if kind:
        data = {key: base64.b64encode(json.dumps(content).encode()).decode()}
        about = {"name": "pull", "namespace": NAMESPACE}
        server.put({"apiVersion": "v1", "kind": "Secret", "metadata": about, "type": kind, "data": data})
    found = checks(on_cluster("doctor", spec, "-o", "json"))["pull secret"]
    assert found[0] == ("failed" if said else "ok")
    assert said in found[1]


def test_weights_that_are_complete(berth: Any, on_cluster: Any, scene: Scene, server: KubeServer, spec: Path, s3: Any,
                                   weights: Any) -> None:  # fmt: skip
    """The store is asked with the keys that the pods get; what it holds has its mark, or has not."""
    keys = s3.server.keys
    (s3.data / "doctored").mkdir()
    spec.write_text(SPEC.replace("http://minio.example.com:9000", s3.server.endpoint).replace("models/", "doctored/")
                    .replace("bucket: models", "bucket: doctored"))  # fmt: skip
    assert checks(on_cluster("doctor", spec, "-o", "json"))["weights"][1].startswith("not looked for")
    data = {"AWS_ACCESS_KEY_ID": keys.access_key, "AWS_SECRET_ACCESS_KEY": keys.secret_key}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    about = {"name": "minio-connection", "namespace": NAMESPACE}
    server.put({"apiVersion": "v1", "kind": "Secret", "metadata": about, "data": encoded})
    done = on_cluster("doctor", spec, "-o", "json")
    assert checks(done)["weights"][0] == "warning"
    assert "complete" in checks(done)["weights"][1]
    assert keys.secret_key not in done.stdout + done.stderr
    shipped = berth("ship", weights("w4a16"), "s3://doctored/mistral/", "--endpoint", s3.server.endpoint, **data)
    assert shipped.returncode == 0, shipped.stderr
    level, found = checks(on_cluster("doctor", spec, "-o", "json"))["weights"]
    assert (level, found.endswith("complete in s3://doctored/mistral/")) == ("ok", True)


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
