"""What one field of a stack says about another, and the services that come of it."""

from __future__ import annotations

import pytest

from modelberth.base.errors import Problem
from modelberth.spec.addresses import FolderAddress, HubAddress, OciAddress, S3Address
from modelberth.spec.reading import read_stack
from modelberth.spec.references import OWNED_FLAGS, mismatches
from modelberth.spec.services import services

FIRST, SECOND, THIRD = "models[0].variants[0]", "models[0].variants[1]", "models[1].variants[0]"

UNIQUE = "names are unique"
SERVICE = "set service:"
LONG = "g" * 50
GRANITE = "granite\n    variants:\n      - name: fp8"
TWIN = "      - {name: fp8, weights: s3://models/x/, pool: large}\n"
DECLARED = "      - {name: x, service: granite-fp8, weights: s3://models/x/, pool: large}\n"

# What is replaced in the full stack, by what (▮ marks the place of the problem), path, message, suggestion.
MISMATCHES = {
    "unknown platform version": (
        'version: "3.0"', 'version: ▮"2.16"', "platform.version",
        "Red Hat OpenShift AI 2.16 is not known to this release", "known: 3.0, 3.2, 3.3, 3.4, 3.5",
    ),
    "version of the other platform": (
        "kind: rhoai\n  version: ", "kind: kserve\n  version: ▮", "platform.version",
        "KServe 3.0 is not known to this release", "known: 0.15, 0.17, 0.20",
    ),
    "unknown pool, near": (
        "pool: small", "pool: ▮smal", f"{FIRST}.pool", "no pool is named 'smal'", "did you mean 'small'?",
    ),
    "unknown pool, far": (
        "pool: small", "pool: ▮tpu", f"{FIRST}.pool", "no pool is named 'tpu'", "known: large, small",
    ),
    "more GPUs than the pool has": (
        "tensorParallelSize: 2", "tensorParallelSize: ▮3", f"{FIRST}.tensorParallelSize",
        "tensorParallelSize 3 needs as many GPUs; pool 'small' has 2", "at most 2, or a larger pool",
    ),
    "two pools of one name": (
        "    count: 8\n", "    count: 8\n  - name: ▮small\n    gpu: NVIDIA-L4\n    nodes: 2\n",
        "pools[2].name", "a second pool named 'small'", UNIQUE,
    ),
    "two models of one name": (
        "name: granite", "name: ▮mistral", "models[1].name", "a second model named 'mistral'", UNIQUE,
    ),
    "two variants of one name": (
        "name: bf16", "name: ▮int4", f"{SECOND}.name", "a second variant named 'int4'", UNIQUE,
    ),
    "two variants of one name, and so two services": (
        GRANITE, f"granite\n    variants:\n{TWIN}      - name: ▮fp8", "models[1].variants[1].name",
        "a second variant named 'fp8'", UNIQUE,
    ),
    "a declared service named as one made up": (
        GRANITE, f"{GRANITE}\n        service: ▮mistral-bf16", f"{THIRD}.service",
        "the service name 'mistral-bf16' is that of mistral/bf16 too", SERVICE,
    ),
    "a service made up named as one declared": (
        GRANITE, f"granite\n    variants:\n{DECLARED}      - name: ▮fp8", "models[1].variants[1].name",
        "the service name 'granite-fp8' is that of granite/x too", SERVICE,
    ),
    "service name too long": (
        GRANITE, f"{LONG}\n    variants:\n      - name: ▮fp8", f"{THIRD}.name",
        f"the service name '{LONG}-fp8' has 54 characters; at most 53", SERVICE,
    ),
    "service name starts with a digit": (
        GRANITE, "3-b\n    variants:\n      - name: ▮fp8", f"{THIRD}.name",
        "the service name '3-b-fp8' starts with a digit; Kubernetes services start with a letter", SERVICE,
    ),
    "other bucket": (
        "s3://models/mistral-int4/", "▮s3://weights/mistral-int4/", f"{FIRST}.weights",
        "the bucket 'weights' is not storage.s3.bucket, 'models'",
        "the storage credentials are for one bucket",
    ),
    "weights without a prefix": (
        "s3://models/mistral-int4/", "▮s3://models/", f"{FIRST}.weights",
        "s3:// weights need a prefix below the bucket", "s3://models/int4/",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", MISMATCHES.values(), ids=MISMATCHES)
def test_mismatch(case: tuple[str, str, str, str, str], spoil, marked, problems_in):
    old, new, *expected = case
    assert problems_in(spoil(old, new)) == (Problem(*marked(old, new), *expected),)


@pytest.mark.parametrize("flag", sorted(OWNED_FLAGS))
def test_flags_that_a_field_sets_are_refused_at_the_key(flag: str, spoil, marked, problems_in):
    edit = ("tool-call-parser: mistral", f"▮{flag}: mistral")
    expected = f"{FIRST}.engineArgs.{flag}", f"--{flag} is set by {OWNED_FLAGS[flag]}", "remove it here"
    assert problems_in(spoil(*edit)) == (Problem(*marked(*edit), *expected),)


SECRET_FLAGS = ["api-key", "hf-token", "ssl-keyfile-password", "aws-secret-access-key", "aws-access-key-id"]


@pytest.mark.parametrize("flag", SECRET_FLAGS)
def test_flags_that_hold_secrets_are_refused_at_the_key(flag: str, spoil, marked, problems_in):
    edit = ("tool-call-parser: mistral", f"▮{flag}: CANARY-7MDENG")
    advice = "remove it; use a Secret on the cluster"
    expected = f"{FIRST}.engineArgs.{flag}", f"--{flag} would put a secret into manifests and logs", advice
    assert problems_in(spoil(*edit)) == (Problem(*marked(*edit), *expected),)


def test_s3_weights_need_an_s3_store(minimal, problems_in):
    (problem,) = problems_in(minimal.replace("oci://quay.io/acme/mistral:1", "s3://models/a/"))
    column = minimal.splitlines()[-1].index('"oci') + 1
    expected = "s3:// weights need storage.s3", "add storage: {s3: {bucket: models}}"
    assert problem == Problem(9, column, f"{FIRST}.weights", *expected)


def test_the_gpus_of_all_nodes_of_a_pool_count(spoil):
    """Two nodes of eight GPUs serve a model that sixteen share, and no more."""
    stack = spoil("count: 8", "count: 8\n    nodes: 2").replace("pool: small", "pool: large")
    stack = stack.replace("tensorParallelSize: 2", "tensorParallelSize: 16")
    assert mismatches(read_stack(stack.encode(), "berth.yaml")) == ()


def test_one_name_for_variants_of_different_models_is_fine(spoil):
    stack = read_stack(spoil("name: fp8", "name: bf16").encode(), "berth.yaml")
    assert [service.name for service in services(stack)] == ["mistral-small", "mistral-bf16", "granite-bf16"]


def test_every_mismatch_is_listed_in_file_order(spoil, problems_in):
    stack = spoil("pool: small", "pool: smal").replace('"3.0"', '"9"').replace("name: granite", "name: mistral")
    assert [problem.path for problem in problems_in(stack)] == [
        "platform.version",
        f"{FIRST}.pool",
        "models[1].name",
    ]


def test_services_are_the_variants_with_every_default_filled_in(full):
    int4, bf16, fp8 = services(read_stack(full.encode(), "berth.yaml"))
    assert [(s.name, s.served_name, s.pool.name) for s in (int4, bf16, fp8)] == [
        ("mistral-small", "mistral", "small"),
        ("mistral-bf16", "mistral-bf16", "large"),
        ("granite-fp8", "granite-fp8", "large"),
    ]
    assert (int4.weights, int4.source) == (S3Address("models", "mistral-int4/"), FolderAddress("./int4"))
    assert bf16.weights == OciAddress("quay.io", "acme/mistral", "1", "")
    assert bf16.source == HubAddress("mistralai/Mistral-Small", "main")
    assert (fp8.weights, fp8.source) == (S3Address("models", "granite-fp8/"), None)
    assert (int4.model.name, int4.variant.name) == ("mistral", "int4")
