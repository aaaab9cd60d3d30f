"""quantization_config as a scheme: how linear weights are stored, which modules are left out, what the KV cache is.

Layouts: compressed-tensors (vllm-project/compressed-tensors, `config_groups`), AutoAWQ, GPTQ, DeepSeek's block FP8,
OpenAI's MXFP4, NVIDIA ModelOpt and bitsandbytes, as their config.json files have them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelberth.checkpoint.fields import broken, mapping, texts
from modelberth.checkpoint.shape import Quantization, WeightScheme

NVFP4_GROUP = 16
"""Weights that share a scale in NVFP4. Source: NVIDIA ModelOpt, compressed-tensors `nvfp4-pack-quantized`."""
MXFP4_GROUP = 32
"""Weights that share a scale in MXFP4. Source: OCP Microscaling Formats 1.0."""
_LONG = 9
"""Digits that no side of a block has."""
_PER_TENSOR_FP8 = WeightScheme(8, "float", "tensor", activation_bits=8, static=True)
_NVFP4 = WeightScheme(4, "float", "group", group=NVFP4_GROUP, activation_bits=4, static=True)
_MXFP4 = WeightScheme(4, "float", "group", group=MXFP4_GROUP)


def parse_quantization(config: Mapping[str, Any]) -> Quantization | None:
    """What a quantization_config declares; None where it declares nothing.

    Raises:
        UsageError: a part of it has a type that it cannot have.
    """
    method = _method(config)
    if not method:
        return None
    weights = _weights(method, config)
    return Quantization(method, precision(config), weights, _ignored(config), _kv_cache(config))


def precision(quantization: Mapping[str, Any]) -> str:
    """The scheme that a quantization_config declares, in the field's short form; empty for none.

    `w4a16` reads: weights 4 bits, activations 16.
    """
    method = _method(quantization)
    if not method:
        return ""
    if method != "compressed-tensors":
        return _modelopt_algorithm(quantization) if method.startswith("modelopt") else method
    schemes = {_short_name(scheme) for scheme in _compressed_schemes(quantization)}
    return schemes.pop() if len(schemes) == 1 else "mixed"


def _method(config: Mapping[str, Any]) -> str:
    """The method's name; ModelOpt's files may name only its producer or its algorithm."""
    named = str(config.get("quant_method") or "").lower()
    producer = config.get("producer")
    if named or not (config.get("quant_algo") or (isinstance(producer, dict) and producer.get("name") == "modelopt")):
        return named
    return "modelopt"


def _weights(method: str, config: Mapping[str, Any]) -> WeightScheme | None:
    if method == "compressed-tensors":
        schemes = set(_compressed_schemes(config))
        return schemes.pop() if len(schemes) == 1 else None
    if method in {"awq", "gptq"}:
        return _integer(config, symmetric=method == "gptq" and config.get("sym") is not False)
    if method in {"fp8", "fbgemm_fp8"}:
        return _fp8(method, config)
    if method == "mxfp4":
        return _MXFP4
    if method.startswith("modelopt"):
        algorithm = _modelopt_algorithm(config)
        return _NVFP4 if "fp4" in algorithm else _PER_TENSOR_FP8 if "fp8" in algorithm else None
    if method == "bitsandbytes":
        eight = config.get("load_in_8bit") is True
        return WeightScheme(8 if eight else 4, "int" if eight else "float", "group", group=64)
    return None


def _integer(config: Mapping[str, Any], *, symmetric: bool) -> WeightScheme | None:
    """AWQ and GPTQ: `bits` weights, one scale and one zero point a group."""
    bits, group = config.get("bits", config.get("w_bit", 4)), config.get("group_size", config.get("q_group_size", 128))
    if type(bits) is not int or type(group) is not int or bits not in (2, 3, 4, 8):
        return None
    return WeightScheme(bits, "int", "channel" if group <= 0 else "group", max(group, 0), symmetric=symmetric)


def _fp8(method: str, config: Mapping[str, Any]) -> WeightScheme:
    block = config.get("weight_block_size")
    if isinstance(block, list) and len(block) == 2 and all(type(side) is int and side > 0 for side in block):
        return WeightScheme(8, "float", "block", block=(block[0], block[1]), activation_bits=8)
    if method == "fbgemm_fp8":
        return WeightScheme(8, "float", "channel", activation_bits=8)
    return WeightScheme(8, "float", "tensor", activation_bits=8, static=config.get("activation_scheme") == "static")


def _compressed_schemes(config: Mapping[str, Any]) -> list[WeightScheme]:
    groups = mapping(config, "config_groups")
    return [_compressed(group) for group in groups.values() if isinstance(group, dict)]


def _compressed(group: Mapping[str, Any]) -> WeightScheme:
    weights, inputs = mapping(group, "weights"), mapping(group, "input_activations")
    bits, size = weights.get("num_bits"), weights.get("group_size")
    strategy = str(weights.get("strategy") or ("group" if size else "channel"))
    if strategy == "tensor_group":  # NVFP4's two levels: a scale a group, and one for the whole tensor
        strategy = "group"
    input_bits, kind = inputs.get("num_bits", 16), str(weights.get("type") or "int")
    if type(bits) is not int or type(input_bits) is not int or not 1 <= bits <= 16:
        raise broken("'config_groups' has a group without a number of bits")
    return WeightScheme(
        bits=bits,
        kind=kind,
        strategy=strategy,
        group=size if type(size) is int and size > 0 else NVFP4_GROUP if bits == 4 and kind == "float" else 0,
        block=_block(weights.get("block_structure")) if strategy == "block" else (0, 0),
        symmetric=weights.get("symmetric") is not False,
        activation_bits=input_bits,
        static=bool(inputs) and inputs.get("dynamic") is False,
    )


def _block(structure: Any) -> tuple[int, int]:
    """Rows and columns of a block, written as a list or as `128x128`."""
    sides = structure.split("x") if isinstance(structure, str) else structure
    if isinstance(sides, list) and len(sides) == 2:
        words = [str(side) for side in sides]
        if all(text.isascii() and text.isdigit() and len(text) < _LONG and int(text) for text in words):
            return int(words[0]), int(words[1])
    raise broken("'block_structure' does not give the two sides of a block")


def _short_name(scheme: WeightScheme) -> str:
    if scheme.kind == "float" and scheme.bits == 4:
        return "mxfp4" if scheme.group == MXFP4_GROUP else "nvfp4"
    if scheme.activation_bits >= 16:
        return f"w{scheme.bits}a16"
    return "fp8" if scheme.kind == "float" else f"w{scheme.bits}a{scheme.activation_bits}"


def _modelopt_algorithm(quantization: Mapping[str, Any]) -> str:
    """NVIDIA ModelOpt names its scheme in `quant_algo`, in the config itself or below `quantization`."""
    nested = quantization.get("quantization")
    algorithm = quantization.get("quant_algo") or (nested.get("quant_algo") if isinstance(nested, dict) else None)
    return str(algorithm or "fp8").lower()


def _ignored(config: Mapping[str, Any]) -> tuple[str, ...]:
    nested = config.get("quantization")
    sources = (config, nested) if isinstance(nested, dict) else (config,)
    keys = ("ignore", "ignored_layers", "modules_to_not_convert", "exclude_modules", "llm_int8_skip_modules")
    return tuple(name for source in sources for key in keys for name in texts(source, key))


def _kv_cache(config: Mapping[str, Any]) -> str | None:
    nested = config.get("quantization")
    algorithms = [config.get("kv_cache_quant_algo")]
    algorithms += [nested.get("kv_cache_quant_algo")] if isinstance(nested, dict) else []
    scheme = config.get("kv_cache_scheme") or config.get("kv_cache_quant_scheme")
    if isinstance(scheme, dict) and scheme.get("num_bits") == 8 and scheme.get("type") == "float":
        return "fp8"
    algorithms += [scheme] if isinstance(scheme, str) else []
    return "fp8" if any(str(name).upper() == "FP8" for name in algorithms) else None
