"""What fields of `berth.yaml` are made of: the strict model, names, addresses, sizes, each with its rule."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, FiniteFloat, StringConstraints
from pydantic.alias_generators import to_camel

from modelberth.base.errors import UsageError
from modelberth.base.units import parse_bytes
from modelberth.spec import addresses

MAX_SERVICE_NAME = 53
"""Longest InferenceService name that the platform's model controller accepts."""


def _weights(text: str) -> str:
    addresses.parse_weights(text)
    return text


def _source(text: str) -> str:
    addresses.parse_source(text)
    return text


def _size(text: str) -> str:
    parse_bytes(text)
    return text


def _as_value_error(check: AfterValidator) -> AfterValidator:
    """Pydantic turns ValueError into a problem with a position; our errors are not ValueErrors."""

    def run(text: str) -> str:
        try:
            return str(check.func(text))  # type: ignore[call-arg]
        except UsageError as error:
            raise ValueError(f"{error.what}: {error.why}" if error.why else error.what) from error

    return AfterValidator(run)


# RFC 1123 label, as Kubernetes wants names.
Label = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$", min_length=1, max_length=63)]
ServiceName = Annotated[
    str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", min_length=1, max_length=MAX_SERVICE_NAME)
]
WeightsText = Annotated[str, _as_value_error(AfterValidator(_weights))]
SourceText = Annotated[str, _as_value_error(AfterValidator(_source))]
EngineValue = str | int | FiniteFloat | bool
# A label's value as Kubernetes takes it, "Labels and Selectors"; a key may have a DNS subdomain before a slash.
LabelValue = Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?)?$", max_length=63)]
LabelKey = Annotated[
    str,
    StringConstraints(
        pattern=r"^([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$", max_length=317
    ),
]
SizeText = Annotated[str, _as_value_error(AfterValidator(_size))]
# registry/name:tag or @digest. What stands before an @ is never a user's password: the pattern has no room for one.
ImageText = Annotated[
    str,
    StringConstraints(
        pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?(:[0-9]{1,5})?(/[a-z0-9]+([._-]+[a-z0-9]+)*)+"
        r"(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@sha256:[0-9a-f]{64})?$"
    ),
]
ShownText = Annotated[str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
FlagName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9.]+)*$")]
Quantization = Literal["w4a16", "w8a16", "w8a8", "fp8", "awq", "gptq", "nvfp4", "mxfp4"]


class Strict(BaseModel):
    """A model that takes its own keys alone, in camel case, and converts nothing."""

    model_config = ConfigDict(
        strict=True,
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        validate_by_name=False,
        validate_by_alias=True,
    )
