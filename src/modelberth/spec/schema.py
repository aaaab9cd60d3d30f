"""The JSON Schema of `berth.yaml`, for editors and for other tools."""

from __future__ import annotations

from typing import Any

from modelberth.spec.stack import Stack

SCHEMA_ID = "https://modelberth.dev/schema/v1alpha1/stack.json"


def stack_schema() -> dict[str, Any]:
    """JSON Schema (2020-12) of one stack, keys as they are written in the file."""
    schema = Stack.model_json_schema(by_alias=True, mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": SCHEMA_ID,
        **schema,
        "title": "berth.yaml",
    }
