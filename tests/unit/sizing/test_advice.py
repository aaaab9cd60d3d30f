"""Warnings about a plan: each where it belongs, with its numbers, and none where nothing is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from modelberth.catalog.gpus import find_gpu
from modelberth.sizing.advice import warnings
from modelberth.sizing.declared import flags_of
from modelberth.sizing.model import Model
from modelberth.sizing.plan import size
from modelberth.spec.reading import read_stack
from modelberth.spec.services import Service, services

LLAMA = "Llama-3.1-8B-Instruct"


def service(pool: dict[str, object], variant: dict[str, object]) -> Service:
    document = {
        "apiVersion": "modelberth.dev/v1alpha1",
        "kind": "Stack",
        "metadata": {"name": "harbor"},
        "platform": {"kind": "kserve", "version": "0.17"},
        "pools": [{"name": "cards", "gpu": "NVIDIA-L40S", **pool}],
        "models": [
            {"name": "m", "variants": [{"name": "v", "weights": "oci://quay.io/a/m:1", "pool": "cards", **variant}]}
        ],
    }
    (found,) = services(read_stack(json.dumps(document).encode(), "berth.yaml"))
    return found


@pytest.fixture(scope="module")
def advice(model_named: Callable[[str], Model]) -> Callable[..., tuple[str, ...]]:
    """The warnings of one variant on one pool, vLLM 0.11.0."""

    def run(pool: dict[str, object], variant: dict[str, object], name: str = LLAMA) -> tuple[str, ...]:
        given = service(pool, variant)
        flags = flags_of(given.variant, "0.11.0")
        return warnings(given, size(model_named(name), find_gpu(given.pool.gpu), flags))

    return run


GOOD = {"maxModelLen": 65_536}


def test_nothing_is_wrong_nothing_is_said(advice: Callable[..., tuple[str, ...]]):
    assert advice({"instanceType": "g6e.2xlarge"}, GOOD) == ()


def test_a_context_cut_for_nothing(advice: Callable[..., tuple[str, ...]]):
    """An L40S holds the model's 131,072 tokens."""
    (found,) = advice({}, {"maxModelLen": 4096})
    assert "4,096" in found
    assert "131,072" in found
    assert advice({}, {"maxModelLen": 65_536}) == ()  # half is no warning
    (found,) = advice({}, {"maxModelLen": 65_535})
    assert "65,535" in found


def test_a_context_that_is_all_that_fits_is_not_cut(advice: Callable[..., tuple[str, ...]]):
    """An L4 holds about 27,000 tokens."""
    assert not [each for each in advice({"gpu": "NVIDIA-L4"}, {"maxModelLen": 16_384}) if "cut" in each]
    (found,) = advice({"gpu": "NVIDIA-L4"}, {"maxModelLen": 8192})
    assert "cut for nothing" in found


def test_ranks_that_span_nodes(advice: Callable[..., tuple[str, ...]]):
    (found,) = advice({"nodes": 4}, {**GOOD, "tensorParallelSize": 4})
    assert "pool cards has 1 GPUs in a node: 4 ranks span nodes" in found
    assert advice({"count": 4}, {**GOOD, "tensorParallelSize": 4}) == ()


def test_an_unknown_machine(advice: Callable[..., tuple[str, ...]]):
    (found,) = advice({"instanceType": "g99.large"}, GOOD)
    assert "instance type g99.large is not in the catalogue" in found


def test_a_machine_with_other_gpus(advice: Callable[..., tuple[str, ...]]):
    assert advice({"instanceType": "g6.12xlarge"}, GOOD) == (
        "g6.12xlarge has NVIDIA-L4, the pool says NVIDIA-L40S",
        "g6.12xlarge has 4 GPUs, the pool says 1",
    )


def test_a_machine_with_little_memory(advice: Callable[..., tuple[str, ...]]):
    """g6e.xlarge: 32 GiB of main memory, 47.14 GB of weights."""
    given = {"instanceType": "g6e.xlarge"}
    found = advice(given, {}, "Mistral-Small-24B-Instruct-2501")
    assert any("32 GiB of main memory, less than the 47.14 GB" in each for each in found)
    assert not [each for each in advice(given, GOOD) if "main memory" in each]


def test_another_quantisation_than_declared(advice: Callable[..., tuple[str, ...]]):
    (found,) = advice({}, {**GOOD, "quantization": "fp8"})
    assert found == "declared quantization is fp8, the checkpoint says bf16"
    given = {"maxModelLen": 32_768, "quantization": "w4a16"}
    assert advice({}, given, "Mistral-Small-24B-Instruct-2501-quantized.w4a16") == ()


def test_memory_that_is_left_unused(advice: Callable[..., tuple[str, ...]]):
    """0.7 of 44.39 GiB leave 13.3, of which about 0.4 are the driver's."""
    (found,) = advice({}, {**GOOD, "gpuMemoryUtilization": 0.7})
    assert found.startswith("gpuMemoryUtilization 0.7 leaves 12.9")
    assert found.endswith("GiB unused")
    assert advice({}, {**GOOD, "gpuMemoryUtilization": 0.85}) == ()


def test_eager_is_slow(advice: Callable[..., tuple[str, ...]]):
    (found,) = advice({}, {**GOOD, "engineArgs": {"enforce-eager": True}})
    assert "enforce-eager" in found


def test_hardly_a_request_at_once(advice: Callable[..., tuple[str, ...]]):
    """Mistral Small in four bits on an L4: 35,200 tokens for requests of 32,768."""
    found = advice({"gpu": "NVIDIA-L4"}, {}, "Mistral-Small-24B-Instruct-2501-quantized.w4a16")
    assert found == ("only 1.1 requests of 32,768 tokens fit at once",)


def test_a_service_that_does_not_start_is_not_told_how_to_use_it_better(advice: Callable[..., tuple[str, ...]]):
    given = {"maxModelLen": 512, "gpuMemoryUtilization": 0.5}
    assert advice({"gpu": "NVIDIA-L4"}, given, "Mistral-Small-24B-Instruct-2501") == ()


def test_an_engine_argument_that_the_plan_does_not_know_of(advice: Callable[..., tuple[str, ...]]):
    arguments = {"pipeline-parallel-size": 2, "enable-lora": True, "tool-call-parser": "hermes", "max-num-seqs": 64}
    found = advice({"instanceType": "g6e.2xlarge"}, GOOD | {"engineArgs": arguments})
    assert [text.split()[2].rstrip(",") for text in found] == ["enable-lora", "pipeline-parallel-size"]
