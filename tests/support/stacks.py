"""Stacks as plain data, to be changed part by part: what is rendered is everything that a stack can ask for."""

from __future__ import annotations

import copy
from typing import Any

from modelberth.base.yamlio import write_documents
from modelberth.manifests.tree import Tree, stack_tree
from modelberth.spec.reading import read_stack
from modelberth.spec.stack import Stack

PLATFORMS = [("rhoai", "3.0"), ("rhoai", "3.2"), ("rhoai", "3.3"), ("rhoai", "3.4"), ("rhoai", "3.5"),
             ("kserve", "0.15"), ("kserve", "0.17"), ("kserve", "0.20")]  # fmt: skip

_STACK: dict[str, Any] = {
    "apiVersion": "modelberth.dev/v1alpha1",
    "kind": "Stack",
    "metadata": {"name": "berths", "namespace": "private-ai"},
    "platform": {"kind": "rhoai", "version": "3.4"},
    "pools": [
        {"name": "single", "gpu": "NVIDIA-L4", "instanceType": "g6.4xlarge", "nodeDisk": "500GB"},
        {"name": "quad", "gpu": "NVIDIA-L4", "count": 4, "instanceType": "g6.12xlarge", "nodeDisk": "500GB"},
        {"name": "eight", "gpu": "NVIDIA-H100-80GB-HBM3", "count": 8, "nodes": 4},
    ],
    "storage": {
        "s3": {"endpoint": "http://minio.minio-storage.svc:9000", "bucket": "models",
               "credentials": {"secret": "minio-connection"}},
        "oci": {"registry": "quay.io/acme", "credentials": {"secret": "quay-pull"}},
    },
    "models": [
        {"name": "mistral", "description": "A model: with a colon, a # and {{ braces }}", "variants": [
            {"name": "int4", "weights": "oci://quay.io/acme/mistral:int4", "pool": "single", "maxModelLen": 4096},
            {"name": "bf16", "source": "hf://mistralai/Mistral-Small-24B-Instruct-2501",
             "weights": "s3://models/mistral/", "pool": "quad", "tensorParallelSize": 4, "weightsSize": "47.14GB",
             "gpuMemoryUtilization": 0.9, "engineArgs": {"tool-call-parser": "mistral",
                                                         "enable-auto-tool-choice": True}},
        ]},
    ],
}  # fmt: skip

# Everything at once, where the platform has it.
EVERYTHING: dict[str, Any] = {
    "queue": {"name": "gpus", "clusterQueue": "gpus", "covers": ["cpu", "memory", "nvidia.com/gpu",
                                                                "ephemeral-storage"]},
    "delivery": {"image": "registry.example.com/platform/modelberth:0.1.0", "namespace": "uploads",
                 "workspace": {"size": "100GiB", "storageClass": "gp3"}, "hubToken": {"secret": "hf-token"}},
    "modelRegistry": {"url": "http://registry.example.com:8080", "credentials": {"secret": "registry-token"}},
    "argoCd": {"repository": "https://git.example.com/platform/models.git", "path": "clusters/one"},
}  # fmt: skip
LLM: dict[str, Any] = {"name": "big", "kind": "LLMInferenceService", "variants": [
    {"name": "one", "weights": "s3://models/big/", "pool": "quad", "tensorParallelSize": 2, "replicas": 2},
    {"name": "spread", "weights": "oci://quay.io/acme/big:1", "pool": "eight", "tensorParallelSize": 4,
     "dataParallelSize": 4, "engineArgs": {"enable-expert-parallel": True}},
    {"name": "parted", "weights": "oci://quay.io/acme/big:1", "pool": "eight", "tensorParallelSize": 2,
     "prefill": {"replicas": 2, "tensorParallelSize": 1}, "scheduler": False},
]}  # fmt: skip


def stack_data(**changes: Any) -> dict[str, Any]:
    """The stack, with top-level parts changed; a part that is None goes."""
    data = copy.deepcopy(_STACK) | copy.deepcopy(changes)
    return {key: value for key, value in data.items() if value is not None}


def everything(kind: str, version: str) -> dict[str, Any]:
    """A stack that asks for all that a platform version has."""
    data = stack_data(platform={"kind": kind, "version": version}, **EVERYTHING)
    data["storage"]["s3"]["credentials"]["externalSecret"] = {"store": "vault", "key": "llm/minio"}
    data["storage"]["s3"]["caConfigMap"] = "private-ca"
    data["pools"][1]["machineSet"] = {
        "infrastructureName": "demo-x7k2p", "region": "us-east-2", "zone": "us-east-2b", "ami": "ami-0123456789abcdef0",
    }  # fmt: skip
    if kind == "rhoai":
        data["pools"][0]["hardwareProfile"] = {"name": "nvidia-l4-1gpu"}
        data["pools"][1]["hardwareProfile"] = {"name": "nvidia-l4-4gpu", "existing": True}
        data["access"] = {"route": True, "auth": True}
    if (kind, version) != ("kserve", "0.15"):
        data["models"].append(copy.deepcopy(LLM))
    return data


def stack_of(data: dict[str, Any]) -> Stack:
    """As it is read from a file."""
    return read_stack(write_documents([data]).encode(), "berth.yaml")


def tree_of(data: dict[str, Any]) -> Tree:
    """As it is rendered."""
    return stack_tree(stack_of(data), spec_path="../../berth.yaml")
