"""Data that stays data on its way into a container.

Two readers stand in that way. KServe executes the container of a service as a Go template
(`ReplacePlaceholders`, pkg/controller/v1beta1/inferenceservice/utils/utils.go; `ReplaceVariables` for an
LLMInferenceService), so `{{` begins an action. The kubelet then expands `$(NAME)` in arguments and environment, and
`$$` is its way to write one `$` (Kubernetes, "Define Dependent Environment Variables").
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

# An action whose value is the two braces. A backquoted text survives the JSON that KServe makes of a container first,
# where a quote would become \" and break the template.
_BRACES = "{{`{{`}}"


def literal(text: str) -> str:
    """A text that arrives in a service's container as it is here."""
    return kubelet_literal(text.replace("{{", _BRACES))


def kubelet_literal(text: str) -> str:
    """A text that arrives as it is here in a container that no template is made of, such as a Job's."""
    return text.replace("$", "$$")


def literals(texts: Iterable[str]) -> list[str]:
    """Several of them, for a service."""
    return [literal(text) for text in texts]


def variable(name: str, value: str) -> dict[str, Any]:
    """An environment variable with a plain value."""
    return {"name": name, "value": literal(value)}
