"""The rules that CRDs write in CEL (`x-kubernetes-validations`), evaluated as on creation.

Rules on `oldSelf` are of updates and left out. Of what Kubernetes adds to CEL only what the definitions in
`../shared/data/crds` call is here; a rule that calls more is reported, not passed over.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import celpy
from celpy.adapter import json_to_cel

from structural_schemas import Schema, child_schema

_FUNCTIONS = {"lowerAscii": lambda text: celpy.celtypes.StringType(str(text).lower())}


def rule_problems(value: Any, schema: Schema, path: str = "") -> Iterator[str]:
    """Every rule that does not hold, each as "path: why", for a value whose defaults are filled in."""
    if value is None:
        return
    for rule in schema.get("x-kubernetes-validations", ()):
        if "oldSelf" not in rule["rule"]:
            yield from (f"{path or '.'}: {why}" for why in _failures(rule, value))
    if isinstance(value, dict):
        for name, child in value.items():
            yield from rule_problems(child, child_schema(schema, name), f"{path}.{name}")
    elif isinstance(value, list):
        for index, child in enumerate(value):
            yield from rule_problems(child, schema.get("items", {}), f"{path}[{index}]")


@cache
def program(rule: str) -> celpy.Runner:
    """A rule, compiled."""
    environment = celpy.Environment()
    return environment.program(environment.compile(rule), functions=_FUNCTIONS)


def _failures(rule: dict[str, Any], value: Any) -> Iterator[str]:
    try:
        holds = program(rule["rule"]).evaluate({"self": json_to_cel(value)})
    except celpy.CELEvalError as error:
        # The API server refuses too what a rule cannot be asked of, such as a field that is not there.
        yield f"the rule {rule['rule']} has no answer: {str(error.args[0])[:200]}"
        return
    if not holds:
        yield str(rule.get("message") or f"the rule {rule['rule']} does not hold").strip()
