"""config.json as the shape and the quantisation of a model. Unknown stays unknown: no number is made up."""

from __future__ import annotations

from typing import Any

from modelberth.checkpoint import fields
from modelberth.checkpoint.families import NESTED_DEFAULTS, SEEING, Family, family_of
from modelberth.checkpoint.fields import (
    CONFIG_NAME,
    HF_QUANT_CONFIG_NAME,
    MAX_COUNT,
    broken,
    count,
    flag,
    fraction,
    load_object,
    mapping,
    optional_count,
)
from modelberth.checkpoint.layers import decoder_layers, is_latent
from modelberth.checkpoint.quantization import parse_quantization
from modelberth.checkpoint.shape import DTYPE_BYTES, DTYPE_LABELS, ModelShape
from modelberth.checkpoint.vision import parse_vision

__all__ = ["CONFIG_NAME", "HF_QUANT_CONFIG_NAME", "MAX_COUNT", "parse_config"]

_TEXT_KEYS = ("text_config", "llm_config", "language_config")
_LENGTHS = (
    "max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length", "max_target_positions",
    "max_sequence_length", "max_seq_length", "seq_len",
)  # fmt: skip
_YARN = "yarn"
"""The rope scaling whose table vLLM makes for `factor` times the original positions (rotary_embedding/)."""
_STRETCHED = {"linear", "dynamic"}
"""Rope scalings whose table has `factor` times the stated positions (rotary_embedding/), and whose context is
multiplied; the others state it. Source: vllm/config/model.py, derived maximum."""
_ASSUMED_POSITIONS = 2048
"""What vLLM takes where a config has no length at all. Source: vllm/config/model.py."""


def parse_config(content: bytes, hf_quant_config: bytes | None = None) -> ModelShape:
    """Read config.json.

    Args:
        content: its bytes.
        hf_quant_config: bytes of the hf_quant_config.json beside it, where NVIDIA ModelOpt keeps the quantisation
            of a checkpoint whose config.json does not; None where there is none.

    Raises:
        UsageError: not JSON, or a number the sizing needs is missing or no count.
    """
    config = load_object(content)
    text = _text(config)
    quantization = parse_quantization(_quantization_config(config, text, hf_quant_config))
    architecture = _architecture(config)
    kind, outer = fields.text(text, "model_type"), fields.text(config, "model_type")
    known = family_of(kind, outer)
    family = known or Family()
    unknown = () if known else (_strange(kind or outer, architecture),)
    dtype = _dtype(text, config, quantization.method if quantization else "")
    hidden = count(text, "hidden_size", "n_embd", "d_model")
    layers, notes = decoder_layers(text, family, hidden)
    stated = _stated_positions(text, kind)
    positions = stated or _ASSUMED_POSITIONS
    rotary, rows = _rotary(text, family, hidden, positions)
    return ModelShape(
        architecture=architecture,
        layers=layers,
        hidden=hidden,
        vocabulary=count(text, "vocab_size", "padded_vocab_size"),
        max_positions=_longest(text, kind, positions, rows),
        dtype=dtype,
        precision=quantization.scheme if quantization else DTYPE_LABELS[dtype],
        tied=_tied(config, text, family, architecture),
        quantization=quantization,
        vision=parse_vision(config, hidden),
        rotary_dim=rotary,
        rotary_positions=rows,
        learned_positions=positions + _learned(kind, family) if family.learned is not None else 0,
        embedding=optional_count(text, "word_embed_proj_dim"),
        state_dtype=_state_dtype(text),
        layer_input=optional_count(text, "hidden_size_per_layer_input"),
        unknown=(*unknown, *notes),
        notes=()
        if stated
        else (f"'max_position_embeddings' is missing: {_ASSUMED_POSITIONS:,} is assumed, as vLLM does",),
    )


def _quantization_config(config: dict[str, Any], text: dict[str, Any], beside: bytes | None) -> dict[str, Any]:
    for key in ("quantization_config", "compression_config"):
        for source in (config, text):
            if found := mapping(source, key):
                return found
    return {"quant_method": "modelopt", **load_object(beside, HF_QUANT_CONFIG_NAME)} if beside is not None else {}


def _text(config: dict[str, Any]) -> dict[str, Any]:
    """The decoder's part of a config: its own object in a model that sees or hears, the whole config otherwise."""
    thinker = config.get("thinker_config")
    outer = thinker if isinstance(thinker, dict) else config
    for key in _TEXT_KEYS:
        nested = outer.get(key)
        if isinstance(nested, dict) and nested:
            kind = fields.text(nested, "model_type") or SEEING.get(fields.text(config, "model_type"), "")
            vocabulary = outer.get("vocab_size")
            beside = {"vocab_size": vocabulary} if vocabulary is not None else {}
            return NESTED_DEFAULTS.get(kind, {}) | beside | nested
    return outer


def _strange(kind: str, architecture: str) -> str:
    return f"the model type '{kind or architecture}' is not known here: taken as a Llama-like decoder"


def _architecture(config: dict[str, Any]) -> str:
    names = config.get("architectures")
    if not isinstance(names, list) or not names or not isinstance(names[0], str):
        raise broken("'architectures' names no model class")
    return names[0]


def _dtype(text: dict[str, Any], config: dict[str, Any], method: str) -> str:
    # transformers 5 writes `dtype`; earlier versions `torch_dtype`.
    for source in (text, config):
        name = str(source.get("dtype") or source.get("torch_dtype") or "").removeprefix("torch.")
        if name in DTYPE_BYTES:
            return name
    return "float16" if method in ("awq", "gptq") else "bfloat16"


def _state_dtype(text: dict[str, Any]) -> str | None:
    stated = text.get("mamba_ssm_cache_dtype") or text.get("mamba_ssm_dtype")
    return stated if isinstance(stated, str) and stated in DTYPE_BYTES else None


def _tied(config: dict[str, Any], text: dict[str, Any], family: Family, architecture: str) -> bool:
    """Whether there is no output layer of its own: tied to the embeddings, or none at all (a bare decoder)."""
    generates = architecture.endswith(("LMHeadModel", "ChatGLMModel")) or "thinker_config" in config
    if architecture.endswith("Model") and not generates:
        return True
    for source in (text, config):
        if source.get("tie_word_embeddings") is not None:
            return flag(source, "tie_word_embeddings")
    return family.tied


def _learned(kind: str, family: Family) -> int:
    # OPT keeps two rows in front of its table for padding. Source: transformers OPTLearnedPositionalEmbedding.
    return 2 if kind == "opt" else family.learned or 0


def _stated_positions(text: dict[str, Any], kind: str) -> int:
    """The least of the lengths that a config states, 0 for none; Cohere's own key comes before all.

    Source: vllm/config/model.py, _get_and_verify_max_len.
    """
    if kind.startswith("cohere") and text.get("model_max_length") is not None:
        return count(text, "model_max_length")
    return min((found for key in _LENGTHS if (found := optional_count(text, key))), default=0)


def _scaling(text: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Kind of rope scaling, and its parameters."""
    scaling = mapping(text, "rope_scaling") or mapping(text, "rope_parameters")
    return str(scaling.get("rope_type") or scaling.get("type") or ""), scaling


def _longest(text: dict[str, Any], kind: str, positions: int, rows: int) -> int:
    """The context that vLLM derives: YaRN's stretched one, a linear factor's, else what is stated."""
    name, _ = _scaling(text)
    stretched = name == _YARN or (name in _STRETCHED and "gemma3" not in kind)  # Gemma 3 states what it means
    return rows if stretched else positions


def _rotary(text: dict[str, Any], family: Family, hidden: int, positions: int) -> tuple[int, int]:
    """Width and rows of the rotary table."""
    name, scaling = _scaling(text)
    rows = positions
    if name == _YARN:
        original = count(scaling, "original_max_position_embeddings", default=positions)
        rows = max(1, min(int(original * fraction(scaling, "factor", 1.0)), MAX_COUNT))
    elif name in _STRETCHED:
        rows = min(int(positions * max(1.0, fraction(scaling, "factor", 1.0))), MAX_COUNT)
    if not family.rotary:
        return 0, rows
    if is_latent(text):
        return count(text, "qk_rope_head_dim"), rows
    heads = count(text, "num_attention_heads", "n_head")
    parameters = mapping(text, "rope_parameters")
    share = fraction(parameters, "partial_rotary_factor", fraction(text, "partial_rotary_factor", 1.0))
    return int(count(text, "head_dim", "kv_channels", default=hidden // heads) * min(share, 1.0)), rows
