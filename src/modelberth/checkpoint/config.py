"""config.json as the shape and the quantisation of a model. Unknown stays unknown: no number is made up."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import Any

from modelberth.base.errors import IntegrityError

CONFIG_NAME = "config.json"
MAX_COUNT = 2**40
"""Largest count believed: far past any model's, and small enough that no product of counts overflows."""

_DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "half": 2, "float32": 4, "float": 4}
_DTYPE_LABEL = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float": "fp32"}


@dataclass(frozen=True)
class MlaShape:
    """Multi-head latent attention: one compressed row a token and layer, the same on every rank."""

    kv_lora_rank: int
    rope_head_dim: int


@dataclass(frozen=True)
class ModelShape:
    """What the sizing needs to know of a decoder.

    Attributes:
        architecture: class name, `MistralForCausalLM`.
        layers: decoder layers that hold a KV cache.
        heads: query heads.
        kv_heads: key and value heads (grouped-query attention has fewer than `heads`).
        head_dim: width of one head; config.json may state it apart from hidden_size / heads.
        hidden: width of the residual stream.
        vocabulary: tokens in the vocabulary.
        max_positions: longest context that the model was made for.
        dtype: type of the activations as config.json names it.
        precision: how the weights are stored: `bf16`, `fp16`, `fp32`, `w4a16`, `fp8`, ...
        mla: set where attention is latent.
    """

    architecture: str
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    hidden: int
    vocabulary: int
    max_positions: int
    dtype: str
    precision: str
    mla: MlaShape | None = None

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one activation, and of one KV cache element when its dtype is `auto`."""
        return _DTYPE_BYTES[self.dtype]


def parse_config(content: bytes) -> ModelShape:
    """Read config.json.

    Raises:
        IntegrityError: not JSON, or a number the sizing needs is missing or no count.
    """
    config = _load(content)
    nested = config.get("text_config")
    text: dict[str, Any] = nested if isinstance(nested, dict) else config
    quantization = _mapping(config, "quantization_config") or _mapping(text, "quantization_config")
    dtype = _dtype(text, config, quantization)
    heads = _count(text, "num_attention_heads")
    hidden = _count(text, "hidden_size")
    lora_rank = text.get("kv_lora_rank")
    return ModelShape(
        architecture=_architecture(config),
        layers=_count(text, "num_hidden_layers"),
        heads=heads,
        kv_heads=_count(text, "num_key_value_heads", default=heads),
        head_dim=_count(text, "head_dim", default=hidden // heads),
        hidden=hidden,
        vocabulary=_count(text, "vocab_size"),
        max_positions=_count(text, "max_position_embeddings"),
        dtype=dtype,
        precision=precision(quantization) or _DTYPE_LABEL[dtype],
        mla=MlaShape(_count(text, "kv_lora_rank"), _count(text, "qk_rope_head_dim")) if lora_rank else None,
    )


def precision(quantization: dict[str, Any]) -> str:
    """The scheme that a quantization_config declares, in the field's short form; empty for none.

    `w4a16` reads: weights 4 bits, activations 16.
    """
    method = str(quantization.get("quant_method") or "").lower()
    if not method:
        return ""
    if method != "compressed-tensors":
        return _modelopt(quantization) if method == "modelopt" else method
    groups = _mapping(quantization, "config_groups")
    schemes = {_compressed_scheme(group) for group in groups.values() if isinstance(group, dict)}
    return schemes.pop() if len(schemes) == 1 else "mixed"


def _modelopt(quantization: dict[str, Any]) -> str:
    """NVIDIA ModelOpt names its scheme in `quant_algo`, in the config itself or below `quantization`."""
    nested = quantization.get("quantization")
    algorithm = quantization.get("quant_algo") or (nested.get("quant_algo") if isinstance(nested, dict) else None)
    return str(algorithm or "fp8").lower()


def _compressed_scheme(group: dict[str, Any]) -> str:
    weights, inputs = _mapping(group, "weights"), _mapping(group, "input_activations")
    bits, kind = weights.get("num_bits"), weights.get("type")
    if kind == "float" and bits == 4:
        return "nvfp4"
    if not inputs:
        return f"w{bits}a16"
    return "fp8" if kind == "float" else f"w{bits}a{inputs.get('num_bits')}"


def _load(content: bytes) -> dict[str, Any]:
    try:
        config = json.loads(content.decode("utf-8"), object_pairs_hook=_unique)
    except (UnicodeDecodeError, ValueError, RecursionError) as error:
        raise _broken("its JSON cannot be read") from error
    if not isinstance(config, dict):
        raise _broken("its JSON is not an object")
    return config


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise _broken("a key stands twice in its JSON")
    return result


def _mapping(config: dict[str, Any], key: str) -> dict[str, Any]:
    """The mapping at a key; empty where there is none."""
    value = config.get(key) or {}
    if not isinstance(value, dict):
        raise _broken(f"'{key}' is no mapping")
    return value


def _architecture(config: dict[str, Any]) -> str:
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise _broken("'architectures' names no model class")
    return names[0]


def _dtype(text: dict[str, Any], config: dict[str, Any], quantization: dict[str, Any]) -> str:
    # transformers 5 writes `dtype`; earlier versions `torch_dtype`.
    for source in (text, config):
        name = str(source.get("dtype") or source.get("torch_dtype") or "").removeprefix("torch.")
        if name in _DTYPE_BYTES:
            return name
    return "float16" if quantization.get("quant_method") in ("awq", "gptq") else "bfloat16"


def _count(config: dict[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None:
        value = default
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= MAX_COUNT:
        raise _broken(f"'{key}' is {json.dumps(value)}, expected a count")
    return value


def _broken(why: str) -> IntegrityError:
    return IntegrityError(f"{CONFIG_NAME} does not describe a model", where=CONFIG_NAME, why=why)
