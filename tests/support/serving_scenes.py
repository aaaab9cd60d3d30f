"""Services on the API server double as KServe leaves them, in one moment of their life each.

Names, labels and conditions: KServe 0.15 with RawDeployment, as OpenShift AI 3.0 runs it; texts of events and states:
kubelet, scheduler and Kueue, as ../shared/notes/failure-signatures.md has them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from kube_server import KubeServer

LOGS = Path(__file__).parents[1] / "data" / "engine-logs"
NAMESPACE = "private-ai"
Document = dict[str, Any]


class Scene:
    """One service on the double.

    Attributes:
        server: the double.
        name: of the service.
        pod: name of its pod.
    """

    def __init__(self, server: KubeServer, name: str = "mistral") -> None:
        self.server, self.name = server, name
        self.pod = f"{name}-predictor-7c9f8d-x2x4z"
        if server.get("Namespace", NAMESPACE) is None:
            server.put({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        self._node()

    def _node(self) -> None:
        labels = {"nvidia.com/gpu.product": "NVIDIA-L4", "node.kubernetes.io/instance-type": "g6.4xlarge"}
        room = {"nvidia.com/gpu": "1", "cpu": "16", "memory": "64Gi", "ephemeral-storage": "480Gi"}
        self.server.put({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-1", "labels": labels},
            "status": {"allocatable": room, "conditions": [{"type": "Ready", "status": "True"}]},
        })  # fmt: skip

    def has_driver(self, version: str) -> None:
        """The driver of the node, as GPU feature discovery labels it."""
        node = self.server.get("Node", "gpu-1")
        assert node is not None
        node["metadata"]["labels"]["nvidia.com/cuda.driver-version.full"] = version
        self.server.put(node)

    def service(self, *, ready: str = "False", generation: int = 1, reason: str = "", message: str = "") -> Document:
        """The InferenceService; `generation` is what its controller has observed."""
        spec = {"predictor": {"minReplicas": 1, "model": {"modelFormat": {"name": "vLLM"}, "runtime": "vllm-runtime",
                                                          "storageUri": "s3://models/mistral/",
                                                          "args": ["--max-model-len=8192"]}}}  # fmt: skip
        condition = {"type": "Ready", "status": ready} | ({"reason": reason} if reason else {})
        condition |= {"message": message} if message else {}
        status: Document = {"observedGeneration": generation, "conditions": [condition]}
        if ready == "True":
            status["url"] = f"http://{self.name}.{NAMESPACE}.svc.cluster.local"
        about = {"name": self.name, "namespace": NAMESPACE}
        return self.server.put({
            "apiVersion": "serving.kserve.io/v1beta1", "kind": "InferenceService", "metadata": about, "spec": spec,
            "status": status,
        })  # fmt: skip

    def llm_service(self) -> None:
        """An LLMInferenceService of the same name, whose pod has not been scheduled (kserve 0.17, llmisvc)."""
        about = {"name": self.name, "namespace": NAMESPACE}
        self.server.put({
            "apiVersion": "serving.kserve.io/v1alpha2", "kind": "LLMInferenceService", "metadata": about,
            "spec": {"replicas": 1, "model": {"uri": "oci://example.com/mistral:1", "name": self.name}},
            "status": {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "False"}]},
        })  # fmt: skip
        labels = {"app.kubernetes.io/name": self.name, "app.kubernetes.io/part-of": "llminferenceservice"}
        self.server.put({
            "apiVersion": "v1", "kind": "Pod", "spec": {"containers": [{"name": "main", "image": "example.com/vllm"}]},
            "metadata": {"name": f"{self.name}-kserve-0", "namespace": NAMESPACE, "labels": labels},
            "status": {"phase": "Pending"},
        })  # fmt: skip

    def put_pod(self, *, phase: str = "Running", node: str = "gpu-1", init: Document | None = None,
                engine: Document | None = None, conditions: list[Document] | None = None, created: str = "",
                gates: tuple[Document, ...] = ()) -> None:  # fmt: skip
        """The pod with an init container that fetches and the engine's container."""
        init = {"name": "storage-initializer", "ready": True, "restartCount": 0,
                "state": {"terminated": {"reason": "Completed", "exitCode": 0}}} | (init or {})  # fmt: skip
        engine = {"name": "kserve-container", "ready": False, "restartCount": 0, "started": False,
                  "state": {"waiting": {"reason": "PodInitializing"}}} | (engine or {})  # fmt: skip
        limits = {"nvidia.com/gpu": "1"}
        spec: Document = {
            "initContainers": [{"name": "storage-initializer"}],
            "containers": [{"name": "kserve-container", "image": "example.com/vllm", "resources": {"limits": limits},
                            "ports": [{"containerPort": 8080}]}],
        }  # fmt: skip
        if node:
            spec["nodeName"] = node
        if gates:
            spec["schedulingGates"] = list(gates)
        labels = {"serving.kserve.io/inferenceservice": self.name}
        status = {"phase": phase, "initContainerStatuses": [init], "containerStatuses": [engine],
                  "conditions": conditions or []}  # fmt: skip
        self.server.put({
            "apiVersion": "v1", "kind": "Pod", "spec": spec, "status": status,
            "metadata": {"name": self.pod, "namespace": NAMESPACE, "labels": labels}
            | ({"creationTimestamp": created} if created else {}),
        })  # fmt: skip

    def event(
        self, reason: str, message: str, *, kind: str = "Pod", component: str = "kubelet", count: int = 1
    ) -> None:
        """An event about the pod, or the service."""
        name = self.pod if kind == "Pod" else self.name
        about = self.server.get(kind, name, NAMESPACE)
        self.server.put({
            "apiVersion": "v1", "kind": "Event", "type": "Normal" if reason == "Pulled" else "Warning",
            "reason": reason, "message": message, "count": count,
            "metadata": {"name": f"{name}.{reason.lower()}", "namespace": NAMESPACE},
            "involvedObject": {"kind": kind, "name": name, "namespace": NAMESPACE,
                               "uid": about["metadata"]["uid"] if about else ""},
            "source": {"component": component}, "lastTimestamp": "2026-11-25T09:00:00Z",
        })  # fmt: skip

    def log(self, text: str | bytes, *, container: str = "kserve-container", previous: bool = False) -> None:
        """Lines of a container."""
        self.server.write_log(NAMESPACE, self.pod, container, text, previous=previous)

    # --- moments ----------------------------------------------------------------------------------------------

    def unschedulable(self) -> None:
        """No node has a free GPU."""
        self.service()
        text = (
            "0/4 nodes are available: 1 Insufficient nvidia.com/gpu, "
            "3 node(s) didn't match Pod's node affinity/selector."
        )
        waiting = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": text}]
        nothing = {"state": {"waiting": {"reason": "PodInitializing"}}, "ready": False}
        self.put_pod(phase="Pending", node="", init=nothing, conditions=waiting)
        self.event("FailedScheduling", text, component="default-scheduler")

    def no_space_for_image(self) -> None:
        """The image does not fit on the node's disk."""
        self.service()
        text = "writing blob: storing blob to file: write /models/model-00009-of-00010.safetensors: no space left on "
        text += "device"
        waiting = {"state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image"}}}
        self.put_pod(phase="Pending", init={"ready": False, **waiting}, engine=waiting)
        self.event("Failed", f'Failed to pull image "example.com/modelcar": {text}')

    def access_denied(self) -> None:
        """The storage initializer may not read the bucket."""
        self.service()
        ended = {"terminated": {"reason": "Error", "exitCode": 1}}
        self.put_pod(
            phase="Pending",
            init={
                "ready": False,
                "restartCount": 3,
                "state": {"waiting": {"reason": "CrashLoopBackOff"}},
                "lastState": ended,
            },
        )
        text = "botocore.exceptions.ClientError: An error occurred (403) when calling the HeadObject operation: "
        text += "Forbidden\n"
        self.log(f"Traceback (most recent call last):\n{text}", container="storage-initializer", previous=True)

    def crash_loop(self, failure: str = "context-too-long", *, ready: str = "False") -> None:
        """The engine ends at every start; `ready` may be a stale True."""
        self.service(ready=ready)
        ended = {"terminated": {"reason": "Error", "exitCode": 1, "finishedAt": "2026-11-25T09:00:00Z"}}
        self.put_pod(
            engine={"restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}
        )
        self.log((LOGS / "failures" / f"{failure}.log").read_bytes(), previous=True)
        self.event("BackOff", "Back-off restarting failed container kserve-container", count=9)

    def loading(self) -> None:
        """The engine reads its weights."""
        self.service()
        self.put_pod(engine={"started": False, "state": {"running": {"startedAt": "2026-11-25T09:00:00Z"}}})
        whole = (LOGS / "bf16-eager.log").read_text()
        self.log(whole[: whole.index("Loading weights took")].rpartition("\n")[0] + "\n")

    def ready(self) -> None:
        """All is well."""
        self.service(ready="True")
        self.put_pod(
            engine={"ready": True, "started": True, "state": {"running": {"startedAt": "2026-11-25T09:00:00Z"}}},
            conditions=[{"type": "Ready", "status": "True"}],
        )
        whole = (LOGS / "bf16-eager.log").read_text()
        self.log(whole[: whole.index("[shutdown]")].rpartition("\n")[0] + "\n" if "[shutdown]" in whole else whole)
