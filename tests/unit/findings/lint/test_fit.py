"""Rules that size: whether what is served fits where it is put, with the numbers of the case."""

from __future__ import annotations

from pathlib import Path

import pytest

from modelberth.base.yamlio import read_documents
from modelberth.catalog.platforms import platform
from modelberth.checkpoint.config import parse_config
from modelberth.findings.lint.run import lint
from modelberth.findings.lint.world import Manifest, World
from modelberth.sizing.model import model_of

CONFIGS = Path(__file__).parents[3] / "data" / "model-configs"
BF16 = model_of(parse_config((CONFIGS / "Mistral-Small-24B-Instruct-2501.json").read_bytes()))
INT4 = model_of(parse_config((CONFIGS / "Mistral-Small-24B-Instruct-2501-quantized.w4a16.json").read_bytes()))

SERVICE = """\
apiVersion: serving.kserve.io/v1beta1
kind: InferenceService
metadata: {name: m, namespace: ns, annotations: {opendatahub.io/hardware-profile-name: p}}
spec:
  predictor:
    model:
      modelFormat: {name: vLLM}
      storageUri: s3://models/m/
      args: [ARGS]
      resources: {limits: {nvidia.com/gpu: GPUS, memory: 100Gi}}
"""
PROFILE = """\
apiVersion: infrastructure.opendatahub.io/v1
kind: HardwareProfile
metadata: {name: p, namespace: x}
spec: {scheduling: {type: Node, node: {nodeSelector: {LABEL}}}}
"""


def found(model, arguments: str, *, gpus: int = 1, label: str = "nvidia.com/gpu.product: NVIDIA-L4", service=SERVICE):
    """Messages of the rules that size, by number."""
    text = service.replace("ARGS", arguments).replace("GPUS", str(gpus)) + "---\n" + PROFILE.replace("LABEL", label)
    manifests = tuple(Manifest(each) for each in read_documents(text.encode(), "m.yaml"))
    world = World(manifests, platform=platform("rhoai", "3.0"), models={"m": model})
    return {each.rule.number: each.hit for each in lint(world, {}) if each.rule.number > 900}


def test_a_model_that_is_too_large_for_its_card():
    hit = found(BF16, "--max-model-len=4096")[901]
    assert "m on 1 x L4: weights take 43.9" in hit.message
    assert hit.fix == "more GPUs, or a smaller quantisation"


def test_a_context_that_is_too_long_says_what_fits():
    hit = found(INT4, "--max-model-len=32768, --gpu-memory-utilization=0.8")[901]
    assert "one request of 32,768 tokens needs" in hit.message
    assert hit.fix == "--max-model-len=19760"


def test_a_context_beyond_the_models_own():
    hit = found(BF16, "--tensor-parallel-size=4, --max-model-len=65536", gpus=4)[902]
    assert hit.message == "65,536 tokens; the model of m has 32,768 positions"


def test_a_context_cut_for_nothing():
    hit = found(INT4, "--max-model-len=4096, --gpu-memory-utilization=0.9")[903]
    assert hit.message.startswith("4,096 tokens are allowed; ")
    assert 903 not in found(INT4, "--max-model-len=16384, --gpu-memory-utilization=0.9")


def test_a_limit_below_the_weights():
    small = SERVICE.replace("100Gi", "32Gi")
    assert "32.00 GiB; the weights of m are 43.9" in found(BF16, "--x=1", service=small)[904].message
    assert 904 not in found(BF16, "--x=1")


def test_a_quantisation_that_contradicts():
    assert "--quantization=fp8; the checkpoint of m is" in found(INT4, "--quantization=fp8")[905].message
    assert 905 not in found(INT4, "--quantization=compressed-tensors")
    assert 905 not in found(BF16, "--quantization=fp8")


MACHINES = """\
---
apiVersion: machine.openshift.io/v1beta1
kind: MachineSet
metadata: {name: s, namespace: openshift-machine-api}
spec:
  template:
    spec:
      providerSpec: {value: {instanceType: g6.12xlarge, blockDevices: [{ebs: {volumeSize: SIZE}}]}}
"""


def test_an_image_that_the_disk_does_not_hold():
    image = SERVICE.replace("s3://models/m/", "oci://quay.io/a/m:1")
    label = "node.kubernetes.io/instance-type: g6.12xlarge"

    def on_disk(size: str):
        return found(BF16, "--x=1", label=label, service=image + MACHINES.replace("SIZE", size))

    assert "an image needs 61.84 GB while it is pulled" in on_disk("60")[906].message
    assert 906 not in on_disk("500")
    assert 906 not in found(BF16, "--x=1", label=label, service=SERVICE + MACHINES.replace("SIZE", "60"))


@pytest.mark.parametrize("label", ["node.kubernetes.io/instance-type: g6.4xlarge", "nvidia.com/gpu.product: NVIDIA-L4"])
def test_the_card_is_known_by_any_label(label: str):
    assert 901 in found(BF16, "--max-model-len=4096", label=label)


def test_what_is_not_known_is_not_guessed():
    assert found(BF16, "--max-model-len=4096", label="a: b") == {}
    assert 901 not in found(BF16, "--max-model-len=4096", label="nvidia.com/gpu.product: Unheard-Of")


def test_what_fits_is_left_alone():
    wanted = "--tensor-parallel-size=4, --max-model-len=32768, --gpu-memory-utilization=0.9"
    assert found(BF16, wanted, gpus=4) == {}
