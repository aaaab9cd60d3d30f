"""The limits of registries: known by host, with their source."""

from __future__ import annotations

import re

import pytest

from modelberth.base.units import MIB
from modelberth.catalog import load
from modelberth.catalog.registries import layer_limit


@pytest.mark.parametrize(
    ("host", "name", "size"),
    [
        ("quay.io", "quay.io", 20 * 10**9),
        ("QUAY.IO:443", "quay.io", 20 * 10**9),
        ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", "Amazon ECR", 52_000 * MIB),
        ("123456789012.dkr.ecr.cn-north-1.amazonaws.com.cn", "Amazon ECR", 52_000 * MIB),
        ("123456789012.dkr.ecr-fips.us-gov-west-1.amazonaws.com", "Amazon ECR", 52_000 * MIB),
        ("123456789012.dkr-ecr.eu-west-1.on.aws", "Amazon ECR", 52_000 * MIB),
        ("public.ecr.aws", "Amazon ECR Public", 10_000 * MIB),
        ("ghcr.io", "GitHub Container registry", 10 * 10**9),
        ("models.azurecr.io", "Azure Container Registry", 200 * 1024 * MIB),
    ],
)
def test_a_registry_is_known_by_its_host(host: str, name: str, size: int):
    found = layer_limit(host)
    assert found is not None
    assert (found.name, found.bytes) == (name, size)


@pytest.mark.parametrize(
    "host", ["registry.example", "127.0.0.1:5000", "docker.io", "quay.io.example", "my-quay.io", "notghcr.io", ""]
)
def test_other_hosts_have_no_known_limit(host: str):
    assert layer_limit(host) is None


def test_every_limit_says_where_it_is_from():
    for entry in load("registries")["limits"]:
        assert len(entry["source"]) > 20
        assert re.fullmatch(r"20\d\d-\d\d", entry["date"])
