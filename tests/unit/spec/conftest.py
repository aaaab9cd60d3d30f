"""Two stacks, and a way to spoil one of them at a marked place."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from jsonschema import Draft202012Validator

from modelberth.base.errors import Problem, SpecError
from modelberth.spec.reading import read_stack
from modelberth.spec.schema import stack_schema

MARK = "▮"

MINIMAL = """\
apiVersion: modelberth.dev/v1alpha1
kind: Stack
metadata: {name: harbor}
platform: {kind: kserve, version: "0.17"}
pools: [{name: l4, gpu: NVIDIA-L4}]
models:
  - name: mistral
    variants:
      - {name: bf16, weights: "oci://quay.io/acme/mistral:1", pool: l4}
"""

FULL = """\
apiVersion: modelberth.dev/v1alpha1
kind: Stack
metadata:
  name: harbor
  namespace: serving
platform:
  kind: rhoai
  version: "3.0"
pools:
  - name: small
    gpu: NVIDIA-L4
    count: 1
    nodes: 2
    instanceType: g6.4xlarge
    pricePerHour: 1.32
  - name: large
    gpu: NVIDIA-H100-80GB-HBM3
    count: 8
storage:
  s3:
    bucket: models
    endpoint: http://minio.minio-storage.svc:9000
    region: eu-west-1
    credentials:
      secret: s3-keys
      profile: work
  oci:
    registry: quay.io/acme
    credentials: {}
models:
  - name: mistral
    source: hf://mistralai/Mistral-Small@main
    variants:
      - name: int4
        weights: s3://models/mistral-int4/
        pool: small
        source: ./int4
        service: mistral-small
        servedName: mistral
        quantization: w4a16
        dtype: bfloat16
        kvCacheDtype: fp8
        tensorParallelSize: 2
        maxModelLen: 8192
        gpuMemoryUtilization: 0.92
        engineArgs:
          tool-call-parser: mistral
          enable-auto-tool-choice: true
          max-num-seqs: 64
          allowed-origins: [a, 1, 2.5, false]
      - name: bf16
        weights: oci://quay.io/acme/mistral:1
        pool: large
  - name: granite
    variants:
      - name: fp8
        weights: s3://models/granite-fp8
        pool: large
queue:
  name: serving
  clusterQueue: gpus
modelRegistry:
  url: https://registry.example/api
  credentials: {secret: registry}
verification:
  prompts:
    - What is a berth?
  maxTokens: 64
"""


@pytest.fixture(scope="session")
def minimal() -> str:
    """The least that a stack can say."""
    return MINIMAL


@pytest.fixture(scope="session")
def full() -> str:
    """A stack that sets every field there is."""
    return FULL


@pytest.fixture(scope="session")
def spoil() -> Callable[[str, str], str]:
    """The full stack with one piece of its text, which stands there once, replaced; the mark is taken out."""

    def run(old: str, new: str) -> str:
        assert FULL.count(old) == 1, f"{old!r} stands {FULL.count(old)} times in the full stack"
        return FULL.replace(old, new.replace(MARK, ""))

    return run


@pytest.fixture(scope="session")
def marked() -> Callable[[str, str], tuple[int, int]]:
    """Line and column of the mark in what `spoil` makes of the same arguments."""

    def run(old: str, new: str) -> tuple[int, int]:
        assert new.count(MARK) == 1, "mark the place where the problem is expected"
        before, _, _ = FULL.replace(old, new).partition(MARK)
        return before.count("\n") + 1, len(before) - before.rfind("\n")

    return run


@pytest.fixture(scope="session")
def problems_in() -> Callable[[str | bytes], tuple[Problem, ...]]:
    """The problems that reading a stack ends with."""

    def run(content: str | bytes) -> tuple[Problem, ...]:
        with pytest.raises(SpecError) as caught:
            read_stack(content.encode() if isinstance(content, str) else content, "berth.yaml")
        return caught.value.problems.items

    return run


@pytest.fixture(scope="session")
def validator() -> Draft202012Validator:
    """A validator of stacks by their JSON Schema."""
    return Draft202012Validator(stack_schema())
