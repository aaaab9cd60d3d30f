"""What a service serves and with what, as its object declares it: the runtime, the model, the longest context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from modelberth.base.loose import mapping
from modelberth.base.text import printable, shorten

_CONTEXT = "--max-model-len"
_LONGEST = 200
Object = Mapping[str, Any]


@dataclass(frozen=True)
class ServiceFacts:
    """What the object of a service declares; empty where it does not.

    Attributes:
        runtime: name of the ServingRuntime; empty for an LLMInferenceService.
        model: where the weights are from: a URI, or the path in a connection's bucket.
        context: `--max-model-len` of its arguments, as it is written.
    """

    runtime: str = ""
    model: str = ""
    context: str = ""


def service_facts(service: Object) -> ServiceFacts:
    """The facts of an InferenceService or LLMInferenceService."""
    spec = mapping(service.get("spec"))
    predictor = mapping(mapping(spec.get("predictor")).get("model"))
    if predictor:
        path = predictor.get("storageUri") or mapping(predictor.get("storage")).get("path")
        return ServiceFacts(_text(predictor.get("runtime")), _text(path), context_of(predictor.get("args")))
    model = mapping(spec.get("model"))
    containers = mapping(spec.get("template")).get("containers")
    context = next((found for each in containers or [] if (found := context_of(mapping(each).get("args")))), "")
    return ServiceFacts("", _text(model.get("uri") or model.get("name")), context)


def context_of(arguments: object) -> str:
    """The value of the last `--max-model-len`, in both of its forms."""
    given = [str(each) for each in arguments] if isinstance(arguments, Sequence) else []
    found = ""
    for argument, following in pairwise([*given, ""]):
        name, joined, value = argument.partition("=")
        if name == _CONTEXT:
            found = value if joined else following
    return _text(found)


def _text(value: object) -> str:
    return shorten(printable(str(value)), _LONGEST) if value else ""
