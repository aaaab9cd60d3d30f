"""The row of decoder layers that a config.json describes: which mixer and which feed-forward part stands where.

Each family says it in its own words: a list of layer types, a period and an offset, a pattern of letters, a number
of dense layers in front. Here all of them become `Layer`s; equal layers are one object.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from modelberth.checkpoint import fields
from modelberth.checkpoint.families import Family
from modelberth.checkpoint.fields import (
    MAX_LAYERS,
    broken,
    count,
    flag,
    fraction,
    mapping,
    optional_count,
    texts,
)
from modelberth.checkpoint.shape import Attention, FeedForward, LatentAttention, Layer, Mixer, Mlp, Moe, Recurrent

Config = Mapping[str, Any]
_SLIDING, _CHUNKED = "sliding_attention", "chunked_attention"
_RECURRENT = {"linear_attention", "mamba", "conv", "recurrent"}
_LETTERS = {"M": "mamba", "*": "full_attention", "-": "mlp", "E": "moe"}
"""Nemotron-H writes its layers as letters (`hybrid_override_pattern`)."""


def is_latent(text: Config) -> bool:
    """Whether attention is latent: a rank for keys and values is given."""
    return bool(text.get("kv_lora_rank"))


def decoder_layers(text: Config, family: Family, hidden: int) -> tuple[tuple[Layer, ...], tuple[str, ...]]:
    """The layers, and what had to be left open about them.

    Raises:
        UsageError: a number is missing or no count, or a list does not have one entry a layer.
    """
    number = count(text, "num_hidden_layers", "n_layer", "n_layers", "num_layers")
    if number > MAX_LAYERS:
        raise broken(f"'num_hidden_layers' is {number}; at most {MAX_LAYERS:,} are believed")
    if isinstance(text.get("block_configs"), list):
        return _searched(text, family, hidden, number), ()
    kinds = _kinds(text, family, number)
    if isinstance(text.get("hybrid_override_pattern"), str):
        return _lettered(text, family, hidden, kinds), ()
    mixer = cache(lambda kind: _mixer(text, family, hidden, kind))
    feed: Callable[[int], FeedForward] = _feed_forward(text, family, hidden, number)
    layer = cache(lambda kind, part, shares: _layer(mixer(kind), part, family, shares))
    first_shared = number - optional_count(text, "num_kv_shared_layers")
    layers = tuple(layer(kind, feed(index), index >= first_shared) for index, kind in enumerate(kinds))
    return layers, _notes(text)


def _layer(mixer: Mixer, part: FeedForward, family: Family, shares: bool) -> Layer:
    if shares and isinstance(mixer, Attention):
        values = {name: getattr(mixer, name) for name in Attention.__dataclass_fields__}
        mixer = Attention(**{**values, "cache": False})
    return Layer(mixer, part, family.norms)


def _notes(text: Config) -> tuple[str, ...]:
    kind = fields.text(text, "model_type")
    if kind in {"falcon_h1", "zamba2", "minimax_text_01", "minimax", "rwkv", "recurrent_gemma"}:
        return (f"layers of '{kind}' are not modelled: the figures are those of plain attention",)
    return ()


def _kinds(text: Config, family: Family, number: int) -> tuple[str, ...]:
    """One word a layer: full_attention, sliding_attention, chunked_attention, linear_attention, mamba, conv."""
    if text.get("layer_types") or text.get("layers_block_type"):
        kinds = texts(text, "layer_types") or texts(text, "layers_block_type")
        if len(kinds) != number:
            raise broken(f"'layer_types' does not name one type for each of {number} layers")
        return tuple("full_attention" if kind in {"attention", "hybrid"} else kind for kind in kinds)
    pattern = text.get("hybrid_override_pattern")
    if isinstance(pattern, str):
        if len(pattern) != number or set(pattern) - set(_LETTERS):
            raise broken(f"'hybrid_override_pattern' does not name one layer type for each of {number} layers")
        return tuple(_LETTERS[letter] for letter in pattern)
    if fields.text(text, "model_type") in {"mamba", "mamba2", "falcon_mamba"}:
        return ("mamba",) * number
    return tuple(_kind_at(text, family, index) for index in range(number))


def _kind_at(text: Config, family: Family, index: int) -> str:
    interval = optional_count(text, "full_attention_interval")
    if interval:
        return "full_attention" if (index + 1) % interval == 0 else "linear_attention"
    period = optional_count(text, "attn_layer_period")
    if period:
        return "full_attention" if index % period == optional_count(text, "attn_layer_offset") else "mamba"
    indices = text.get("attn_layer_indices")
    if isinstance(indices, list):
        return "full_attention" if index in indices else "mamba"
    full = text.get("full_attn_idxs")
    if isinstance(full, list):
        return "full_attention" if index in full else "conv"
    if optional_count(text, "attention_chunk_size"):  # Llama 4: every fourth layer sees everything, without positions
        every = optional_count(text, "no_rope_layer_interval") or 4
        return "full_attention" if (index + 1) % every == 0 else _CHUNKED
    return _SLIDING if _slides(text, family, index) else "full_attention"


def _slides(text: Config, family: Family, index: int) -> bool:
    if text.get("sliding_window") is None or text.get("use_sliding_window") is False:
        return False
    if family.sliding == "even":
        return index % 2 == 0
    if family.sliding == "pattern":
        every = optional_count(text, "sliding_window_pattern", "_sliding_window_pattern") or 6
        return (index + 1) % every != 0
    if text.get("use_sliding_window") is True:  # Qwen: layers below max_window_layers see everything
        return index >= optional_count(text, "max_window_layers")
    return family.sliding == "all"


def _mixer(text: Config, family: Family, hidden: int, kind: str) -> Mixer:
    if kind in _RECURRENT:
        return _recurrent(text, hidden, kind)
    if is_latent(text):
        return _latent(text)
    return _attention(text, family, hidden, kind)


def _says(text: Config, rule: str) -> bool:
    """A family's rule: always, never, or what a key of the config says."""
    if rule in ("always", "never"):
        return rule == "always"
    return flag(text, rule)


def _attention(text: Config, family: Family, hidden: int, kind: str) -> Attention:
    heads = count(text, "num_attention_heads", "n_head")
    head_dim = count(text, "head_dim", "kv_channels", default=hidden // heads)
    kv_heads = _kv_heads(text, heads)
    return Attention(
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        value_dim=count(text, "v_head_dim", default=head_dim),
        window=count(text, "sliding_window") if kind == _SLIDING else None,
        chunk=count(text, "attention_chunk_size") if kind == _CHUNKED else None,
        bias=_says(text, family.bias),
        output_bias=_says(text, family.output_bias),
        qk_norm=_qk_norm(text, family, heads, kv_heads, head_dim),
        gated=family.gated_attention,
        sinks=family.sinks,
    )


def _kv_heads(text: Config, heads: int) -> int:
    if text.get("multi_query") is True and text.get("new_decoder_architecture") is not True:  # Falcon 7B, StarCoder
        return 1
    return count(text, "num_key_value_heads", "num_kv_heads", "n_head_kv", "multi_query_group_num", default=heads)


def _qk_norm(text: Config, family: Family, heads: int, kv_heads: int, head_dim: int) -> tuple[int, int]:
    rule = family.qk_norm
    if rule == "width":
        return heads * head_dim, kv_heads * head_dim
    if rule == "head" or (rule and flag(text, rule)):
        return head_dim, head_dim
    return 0, 0


def _latent(text: Config) -> LatentAttention:
    return LatentAttention(
        heads=count(text, "num_attention_heads"),
        kv_lora_rank=count(text, "kv_lora_rank"),
        rope_head_dim=count(text, "qk_rope_head_dim"),
        nope_head_dim=count(text, "qk_nope_head_dim", default=128),
        value_dim=count(text, "v_head_dim", default=128),
        q_lora_rank=optional_count(text, "q_lora_rank") or None,
        index_heads=optional_count(text, "index_n_heads"),
        index_head_dim=optional_count(text, "index_head_dim"),
    )


def _recurrent(text: Config, hidden: int, kind: str) -> Recurrent:
    if kind == "conv":  # LFM2: a short convolution over the hidden width
        return Recurrent("conv", 0, 0, count(text, "conv_dim", default=hidden), 1, count(text, "conv_L_cache"))
    if kind == "linear_attention":
        return Recurrent(
            "gdn",
            count(text, "linear_num_key_heads"),
            count(text, "linear_key_head_dim"),
            count(text, "linear_num_value_heads"),
            count(text, "linear_value_head_dim"),
            count(text, "linear_conv_kernel_dim", default=4),
        )
    state = count(text, "mamba_d_state", "ssm_state_size", "state_size")
    kernel = count(text, "mamba_d_conv", "conv_kernel", "conv_kernel_size", default=4)
    expand = fraction(text, "mamba_expand", fraction(text, "expand", 2.0))
    heads = optional_count(text, "mamba_n_heads", "mamba_num_heads")
    if not heads:
        inner = count(text, "intermediate_size" if fields.text(text, "model_type") == "mamba" else "mamba_d_ssm",
                      default=max(1, int(hidden * expand)))  # fmt: skip
        return Recurrent("mamba1", 0, state, inner, 1, kernel)
    stated = text.get("mamba_d_head") != "auto"
    width = max(1, int(hidden * expand) // heads)
    width = count(text, "mamba_d_head", "mamba_head_dim", default=width) if stated else width
    return Recurrent("mamba2", count(text, "mamba_n_groups", "n_groups", default=1), state, heads, width, kernel)


def _feed_forward(text: Config, family: Family, hidden: int, number: int) -> Callable[[int], FeedForward]:
    """A function from a layer's index to its feed-forward part."""
    moe = _moe(text, family)
    widths = text.get("intermediate_size")
    if isinstance(widths, list):  # Gemma 3n: one width a layer
        if len(widths) != number or not all(type(width) is int and 0 < width <= fields.MAX_COUNT for width in widths):
            raise broken(f"'intermediate_size' does not give one width for each of {number} layers")
        parts = {width: Mlp(width, family.gated, _says(text, family.mlp_bias)) for width in widths}
        return lambda index: parts[widths[index]]
    if moe is None:
        dense = _mlp(text, family, hidden)
        return lambda _: dense
    sparse = _sparse_layers(text, number)
    beside = None if all(sparse) else _mlp(text, family, hidden)
    return lambda index: moe if sparse[index] or beside is None else beside


def _mlp(text: Config, family: Family, hidden: int) -> Mlp:
    # Llama 4 keeps the width of its dense layers apart from its experts'.
    apart = text.get("intermediate_size_mlp") is not None
    keys = ["intermediate_size_mlp"] if apart else ["intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size"]
    width = count(text, *keys, default=None if family.gated else 4 * hidden)
    return Mlp(width, family.gated, _says(text, family.mlp_bias))


def _moe(text: Config, family: Family) -> Moe | None:
    experts = optional_count(text, "n_routed_experts", "num_local_experts", "num_experts", "moe_num_experts")
    if experts <= 1:
        return None
    intermediate = count(text, "moe_intermediate_size", "intermediate_size")
    shared = optional_count(
        text, "shared_expert_intermediate_size", "moe_shared_expert_intermediate_size", "shared_intermediate_size"
    )
    if not shared:
        shared = optional_count(text, "n_shared_experts", "num_shared_experts", "moe_num_shared_experts") * intermediate
    if fields.text(text, "model_type") == "llama4_text":
        shared = intermediate
    return Moe(
        experts=experts,
        per_token=count(text, "num_experts_per_tok", "experts_per_token", "moe_k", "moe_topk", default=1),
        intermediate=intermediate,
        shared=shared,
        gated=family.gated,
        bias=_says(text, family.mlp_bias) and family.sinks,
        router_bias=family.router_bias,
        correction=family.correction and text.get("topk_method", "noaux_tc") == "noaux_tc",
        shared_gate=family.shared_gate and shared > 0,
    )


def _sparse_layers(text: Config, number: int) -> Sequence[bool]:
    """Which layers are mixtures of experts."""
    listed = text.get("moe_layers")
    if isinstance(listed, list):
        return [index in listed for index in range(number)]
    dense = text.get("mlp_only_layers") or []
    first = optional_count(text, "first_k_dense_replace", "moe_layer_start_index")
    every = optional_count(text, "interleave_moe_layer_step", "decoder_sparse_step", "expert_layer_period") or 1
    if not first and every == 1 and optional_count(text, "moe_layer_freq"):
        every = optional_count(text, "moe_layer_freq")
    offset = optional_count(text, "expert_layer_offset") if "expert_layer_period" in text else every - 1
    skipped = dense if isinstance(dense, list) else []
    return [index >= first and index % every == offset and index not in skipped for index in range(number)]


def _lettered(text: Config, family: Family, hidden: int, kinds: Sequence[str]) -> tuple[Layer, ...]:
    """Nemotron-H: a layer is a mixer or a feed-forward part, never both."""

    @cache
    def layer(kind: str) -> Layer:
        if kind == "mlp":
            return Layer(None, _mlp(text, family, hidden), 1)
        if kind == "moe":
            return Layer(None, _moe(text, family), 1)
        return Layer(_mixer(text, family, hidden, kind), None, 1)

    return tuple(layer(kind) for kind in kinds)


def _searched(text: Config, family: Family, hidden: int, number: int) -> tuple[Layer, ...]:
    """Nemotron-NAS: every block has its own number of KV heads and its own width, or neither."""
    blocks = text["block_configs"]
    if len(blocks) != number or not all(isinstance(block, dict) for block in blocks):
        raise broken(f"'block_configs' does not describe each of {number} layers")
    return tuple(_block(text, family, hidden, block) for block in blocks)


def _block(text: Config, family: Family, hidden: int, block: dict[str, Any]) -> Layer:
    attention, ffn = mapping(block, "attention"), mapping(block, "ffn")
    mixer = None
    if attention.get("n_heads_in_group") is not None:
        heads = count(text, "num_attention_heads")
        kv_heads = max(1, heads // count(attention, "n_heads_in_group"))
        mixer = _attention({**text, "num_key_value_heads": kv_heads}, family, hidden, "full_attention")
    part = None
    if ffn.get("ffn_mult") is not None:
        # Source: the family's own rule, two thirds of four times the multiple, rounded up to 256.
        width = int(2 * fraction(ffn, "ffn_mult", 1.0) * hidden / 3)
        part = Mlp(-(-width // 256) * 256, family.gated, _says(text, family.mlp_bias))
    elif ffn.get("intermediate_size") is not None:
        part = Mlp(count(ffn, "intermediate_size"), family.gated)
    return Layer(mixer, part, family.norms)
