"""A model as the sizing takes it: its shape and its tensors, from headers where they are at hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from modelberth.base.errors import UsageError
from modelberth.checkpoint.derived import derived_tensors
from modelberth.checkpoint.safetensors import Header
from modelberth.checkpoint.shape import ModelShape, Quantization, WeightScheme
from modelberth.checkpoint.tensors import TensorGroup, grouped, parameters

UNQUANTISED = frozenset({"bf16", "fp16", "fp32"})
"""Precisions of checkpoints that are not quantised."""
_IGNORED = ("lm_head", "re:.*mlp.gate$", "re:.*shared_expert_gate$", "re:visual.*")
"""What stays unquantised in published checkpoints: the output layer, routers and what sees."""
_SCHEMES = {
    "fp8": ("compressed-tensors", WeightScheme(8, "float", "channel", activation_bits=8)),
    "w4a16": ("compressed-tensors", WeightScheme(4, "int", "group", group=128)),
    "bitsandbytes": ("bitsandbytes", WeightScheme(4, "float", "group", group=64)),
}
"""Layouts by scheme; bitsandbytes keeps a float32 maximum for every 64 weights (its default, nested scales off)."""


@dataclass(frozen=True)
class Model:
    """A model to size.

    Attributes:
        shape: from config.json.
        groups: its tensors.
        from_headers: whether the tensors were read rather than derived.
    """

    shape: ModelShape
    groups: tuple[TensorGroup, ...]
    from_headers: bool

    @cached_property
    def parameters(self) -> int:
        """Model parameters; packed weights count as what they hold."""
        return parameters(self.groups)

    @cached_property
    def stored_bytes(self) -> int:
        """Bytes of the weights as stored."""
        return sum(group.total_bytes for group in self.groups)


def model_of(shape: ModelShape, headers: Mapping[str, Header] | None = None) -> Model:
    """A model from its shape, and from its safetensors headers where there are any."""
    if headers:
        return Model(shape, grouped(headers, len(shape.layers), shape.weight_bits), True)
    return Model(shape, derived_tensors(shape), False)


_FLOATS = {"bfloat16": "BF16", "float16": "F16", "half": "F16", "float32": "F32", "float": "F32"}
_OWN_DTYPE = ("A_log", ".D", "dt_bias", "correction_bias", "scale", "scale_inv", "scale_2", "scales", "absmax", "SCB")
"""Endings of tensors that keep their dtype whatever the activations have."""


def loaded_as(model: Model, dtype: str) -> Model:
    """The model as an engine holds it whose activations are of `dtype`: unquantised weights are converted to it.

    Args:
        model: as its checkpoint has it.
        dtype: name as in config.json, `bfloat16`.
    """
    name = _FLOATS[dtype]
    groups = tuple(
        replace(group, dtype=name)
        if group.dtype in _FLOATS.values() and group.dtype != name and not group.name.endswith(_OWN_DTYPE)
        else group
        for group in model.groups
    )
    if groups == model.groups and dtype == model.shape.dtype:
        return model
    return Model(replace(model.shape, dtype=dtype), groups, model.from_headers)


def requantized(model: Model, scheme: str) -> Model:
    """The same model in another quantisation; its tensors are then derived.

    Args:
        model: a model that is not quantised.
        scheme: `fp8`, `w4a16` or `bitsandbytes`.

    Raises:
        UsageError: another scheme, or the model is quantised already.
    """
    if scheme not in _SCHEMES:
        raise UsageError(f"'{scheme}' cannot be sized", why=f"known: {', '.join(_SCHEMES)}")
    if model.shape.precision not in UNQUANTISED:
        raise UsageError(f"the checkpoint is quantised to {model.shape.precision} already", next_step="leave it out")
    method, weights = _SCHEMES[scheme]
    quantization = Quantization(method, scheme, weights, _IGNORED)
    shape = replace(model.shape, quantization=quantization, precision=scheme)
    return Model(shape, derived_tensors(shape), False)
