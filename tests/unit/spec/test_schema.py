"""The JSON Schema: valid itself, and of one mind with the reader."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from modelberth.spec.reading import read_stack
from modelberth.spec.schema import SCHEMA_ID, stack_schema


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return stack_schema()


def properties(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every property of the stack and of all that stands in it, by name."""
    models = {"Stack": schema, **schema["$defs"]}
    return [(f"{name}.{key}", value) for name, model in models.items() for key, value in model["properties"].items()]


def test_it_is_a_schema_of_its_dialect(schema):
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert schema["$id"] == SCHEMA_ID
    assert json.loads(json.dumps(schema)) == schema


def test_every_property_says_what_it_is(schema):
    def described(value: dict[str, Any]) -> bool:
        target = schema["$defs"].get(value.get("$ref", "").rpartition("/")[2], {})
        return bool(value.get("description") or target.get("description"))

    found = properties(schema)
    assert len(found) > 40
    assert [name for name, value in found if not described(value)] == []


def test_keys_are_written_as_in_the_file(schema):
    assert [name for name, _ in properties(schema) if "_" in name] == []


def test_every_default_is_a_value_that_it_takes_itself(schema):
    defaults = [value for _, value in properties(schema) if "default" in value]
    assert len(defaults) > 20
    for value in defaults:
        Draft202012Validator({"$defs": schema["$defs"], **value}).validate(value["default"])


def test_nothing_but_the_known_keys_is_taken(schema):
    assert [name for name, model in schema["$defs"].items() if model["additionalProperties"] is not False] == []
    assert schema["additionalProperties"] is False


GRANITE = "    variants:\n      - name: fp8\n        weights: s3://models/granite-fp8\n        pool: large\n"

VALID = {
    "as it is": ("kind: Stack", "kind: Stack"),
    "whole number for a number": ("0.92", "1"),
    "no price": ("1.32", "null"),
    "no flags": ("allowed-origins: [a, 1, 2.5, false]", "allowed-origins: []"),
    "digest": ("oci://quay.io/acme/mistral:1", f"oci://quay.io/acme/mistral@sha256:{'0' * 64}"),
    "longest name": ("name: harbor", f"name: {'h' * 63}"),
    "no prompts": ("\n    - What is a berth?", " []"),
}

INVALID = {
    "other version of the format": ("modelberth.dev/v1alpha1", "modelberth.dev/v2"),
    "unknown key": ("maxTokens: 64", "maxToken: 64"),
    "unknown key at the top": ("queue:\n", "queues:\n"),
    "missing key": ("    gpu: NVIDIA-H100-80GB-HBM3\n", ""),
    "version without quotes": ('"3.0"', "3.0"),
    "number in quotes": ("count: 8", 'count: "8"'),
    "fraction": ("count: 8", "count: 8.5"),
    "boolean for a number": ("count: 8", "count: true"),
    "too many": ("count: 8", "count: 17"),
    "share of nothing": ("0.92", "0"),
    "misspelt value": ("kind: rhoai", "kind: rhaoi"),
    "name with a space": ("name: harbor", "name: my harbor"),
    "name too long": ("name: harbor", f"name: {'h' * 64}"),
    "service name too long": ("service: mistral-small", f"service: {'s' * 54}"),
    "text for a list": ("\n    - What is a berth?", " What is a berth?"),
    "empty prompt": ("- What is a berth?", '- ""'),
    "no variants": (GRANITE, "    variants: []\n"),
    "flag with dashes": ("tool-call-parser", "--tool-call-parser"),
    "flag that holds a mapping": ("max-num-seqs: 64", "max-num-seqs: {a: 1}"),
    "flag that holds nothing": ("max-num-seqs: 64", "max-num-seqs: null"),
    "endpoint with a password": ("http://minio", "http://user:password@minio"),
    "secret key": ("profile: work", "secretAccessKey: x"),
}


def test_it_takes_the_minimal_stack(minimal, validator):
    assert list(validator.iter_errors(yaml.safe_load(minimal))) == []


EXAMPLES = sorted((Path(__file__).parents[3] / "examples").rglob("berth.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_it_takes_the_examples(path: Path, validator):
    content = path.read_bytes()
    read_stack(content, str(path))
    assert list(validator.iter_errors(yaml.safe_load(content))) == []


@pytest.mark.parametrize("edit", VALID.values(), ids=VALID)
def test_it_takes_what_the_reader_takes(edit: tuple[str, str], spoil, validator):
    content = spoil(*edit)
    read_stack(content.encode(), "berth.yaml")
    assert list(validator.iter_errors(yaml.safe_load(content))) == []


@pytest.mark.parametrize("edit", INVALID.values(), ids=INVALID)
def test_it_refuses_what_the_reader_refuses(edit: tuple[str, str], spoil, validator, problems_in):
    content = spoil(*edit)
    assert problems_in(content)
    assert not validator.is_valid(yaml.safe_load(content))
