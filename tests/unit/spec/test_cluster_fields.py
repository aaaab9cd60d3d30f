"""What a stack says of its cluster: fields of manifests, what may stand together, and that no secret gets in."""

from __future__ import annotations

import pytest

from modelberth.base.errors import SpecError
from modelberth.base.yamlio import write_documents
from modelberth.spec.reading import read_stack
from modelberth.spec.services import services

LLM = "kind: LLMInferenceService"


def document(**changes) -> dict:
    """A stack as plain data, with top-level parts changed."""
    base = {
        "apiVersion": "modelberth.dev/v1alpha1",
        "kind": "Stack",
        "metadata": {"name": "s", "namespace": "ns"},
        "platform": {"kind": "rhoai", "version": "3.4"},
        "pools": [{"name": "p", "gpu": "NVIDIA-L4", "count": 4, "nodes": 2}],
        "models": [model()],
    }
    return base | changes


def model(kind: str | None = None, **fields) -> dict:
    variant = {"name": "v", "weights": "oci://quay.io/a/b:1", "pool": "p"} | fields
    return {"name": "m", "variants": [variant]} | ({"kind": kind} if kind else {})


def read(data: dict):
    return read_stack(write_documents([data]).encode(), "berth.yaml")


def refused(data: dict) -> str:
    with pytest.raises(SpecError) as caught:
        read(data)
    return caught.value.why


def test_gpus_of_a_service_are_those_of_all_its_pods():
    llm = model("LLMInferenceService", tensorParallelSize=2, dataParallelSize=2, replicas=1,
                prefill={"replicas": 2, "tensorParallelSize": 1})  # fmt: skip
    assert services(read(document(models=[llm])))[0].gpus == 2 * 2 + 2
    assert services(read(document(models=[model(replicas=3)])))[0].gpus == 3
    assert services(read(document(models=[model(replicas=0)])))[0].gpus == 0


WRONG = {
    "prefill of an InferenceService": (
        {"models": [model(prefill={})]}, "prefill: an InferenceService has none (set kind: LLMInferenceService)",
    ),
    "data parallelism of an InferenceService": (
        {"models": [model(dataParallelSize=2)]}, "dataParallelSize: an InferenceService has none",
    ),
    "a kind that the platform does not have": (
        {"platform": {"kind": "kserve", "version": "0.15"}, "models": [model("LLMInferenceService")]},
        "models[0].kind: KServe 0.15 has no LLMInferenceService",
    ),
    "a name that a shell would take apart": (
        {"models": [model("LLMInferenceService", servedName="a; rm -rf /")]},
        "servedName: the preset of an LLMInferenceService passes the name through a shell",
    ),
    "more copies than GPUs": (
        {"models": [model("LLMInferenceService", tensorParallelSize=4, dataParallelSize=3)]},
        "dataParallelSize: 12 GPUs are needed for it; pool 'p' has 8 (at most 2)",
    ),
    "a copy that no node holds": (
        {"pools": [{"name": "p", "gpu": "NVIDIA-L4", "count": 2, "nodes": 8}],
         "models": [model("LLMInferenceService", tensorParallelSize=4, dataParallelSize=2)]},
        "tensorParallelSize: each copy has its GPUs in one node; a node of pool 'p' has 2",
    ),
    "prefill that no node holds": (
        {"models": [model("LLMInferenceService", prefill={"tensorParallelSize": 8})]},
        "prefill.tensorParallelSize: a node of pool 'p' has 4 GPUs",
    ),
    "a MachineSet without an instance type": (
        {"pools": [{"name": "p", "gpu": "NVIDIA-L4", "machineSet": {
            "infrastructureName": "c-1", "region": "us-east-2", "zone": "us-east-2b",
            "ami": "ami-0123456789abcdef0"}}]},
        "pools[0].machineSet: a MachineSet needs instanceType",
    ),
    "one hardware profile for two pools": (
        {"pools": [{"name": "p", "gpu": "NVIDIA-L4", "hardwareProfile": {"name": "h"}},
                   {"name": "q", "gpu": "NVIDIA-A10G", "hardwareProfile": {"name": "h"}}]},
        "the hardware profile 'h' is that of pool 'p' too",
    ),
    "a hardware profile on KServe": (
        {"platform": {"kind": "kserve", "version": "0.20"},
         "pools": [{"name": "p", "gpu": "NVIDIA-L4", "hardwareProfile": {"name": "h"}}]},
        "pools[0].hardwareProfile: KServe has no hardware profiles",
    ),
    "a route on KServe": (
        {"platform": {"kind": "kserve", "version": "0.20"}, "access": {"route": True}},
        "access.route: KServe has no switch for it",
    ),
    "an external secret without a name": (
        {"storage": {"s3": {"bucket": "models", "credentials": {"externalSecret": {"store": "vault", "key": "k"}}}}},
        "an external secret needs the name of the Secret it becomes (add secret: NAME beside it)",
    ),
    "a label of 300 characters": (
        {"pools": [{"name": "p", "gpu": "NVIDIA-L4", "nodeLabels": {"a": "x" * 300}}]}, "at most 63 characters",
    ),
    "a release that is a number": (
        {"platform": {"kind": "rhoai", "version": "3.4", "vllm": 0.9}}, 'write "0.9" in quotes',
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG.values(), ids=WRONG)
def test_what_cannot_be(case: tuple[dict, str]):
    changes, expected = case
    assert expected in refused(document(**changes))


SECRETS = {
    "in the image of vLLM": {"platform": {"kind": "rhoai", "version": "3.4", "engineImage": "bob:hunter2@quay.io/a:1"}},
    "in the image of berth": {"delivery": {"image": "https://bob:hunter2@quay.io/a:1"}},
    "in the repository": {"argoCd": {"repository": "https://hunter2@git.example.com/a.git"}},
    "in the query of the repository": {"argoCd": {"repository": "https://git.example.com/a.git?t=hunter2"}},
    "in the registry's address": {"modelRegistry": {"url": "https://bob:hunter2@registry.example.com"}},
}


@pytest.mark.parametrize("changes", SECRETS.values(), ids=SECRETS)
def test_a_secret_is_refused_and_not_repeated(changes: dict):
    assert "hunter2" not in refused(document(**changes))


@pytest.mark.parametrize(
    "repository",
    ["https://git.example.com/a/b.git", "ssh://git@git.example.com:22/a.git", "git@git.example.com:a/b.git"],
)
def test_repositories_that_are_taken(repository: str):
    assert read(document(argoCd={"repository": repository})).argo_cd.repository == repository
