"""The tensors that a checkpoint of a given shape has, for when only config.json is at hand.

Names and layouts are those of Hugging Face checkpoints. What a family adds beyond them (a few scalars, routers'
corrections) is there as far as it weighs anything.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache

from modelberth.checkpoint.shape import (
    Attention,
    FeedForward,
    LatentAttention,
    Layer,
    Mlp,
    ModelShape,
    Quantization,
    Recurrent,
    Vision,
    WeightScheme,
)
from modelberth.checkpoint.tensors import TensorGroup, packed_weights

_DTYPES = {"bfloat16": "BF16", "float16": "F16", "half": "F16", "float32": "F32", "float": "F32"}
_BLOCK = "model.layers.*."


@lru_cache(maxsize=256)
def derived_tensors(shape: ModelShape) -> tuple[TensorGroup, ...]:
    """The groups of tensors of a checkpoint of this shape."""
    writer = _Writer(shape)
    for layer, indices in _kinds(shape).items():
        writer.layer(layer, indices)
    writer.outside()
    if shape.vision:
        writer.tower(shape.vision)
    return tuple(writer.groups)


def _kinds(shape: ModelShape) -> dict[Layer, tuple[int, ...]]:
    """The layers' numbers by kind of layer."""
    kinds: dict[Layer, list[int]] = {}
    for index, layer in enumerate(shape.layers):
        kinds.setdefault(layer, []).append(index)
    return {layer: tuple(indices) for layer, indices in kinds.items()}


def is_ignored(module: str, ignored: tuple[str, ...]) -> bool:
    """Whether a quantisation leaves a module out: its name, its parent, its last part, a glob or an `re:` pattern."""
    if not ignored:
        return False
    plain, patterns = _rules(ignored)
    parts = module.split(".")
    if any(".".join(parts[:end]) in plain for end in range(1, len(parts) + 1)) or parts[-1] in plain:
        return True
    return any(expression.match(module) for expression in patterns)


@lru_cache(maxsize=64)
def _rules(ignored: tuple[str, ...]) -> tuple[frozenset[str], tuple[re.Pattern[str], ...]]:
    plain, patterns = set(), []
    for name in ignored:
        if not name.startswith("re:") and "*" not in name:
            plain.add(name)
        elif expression := _expression(name):
            patterns.append(expression)
    return frozenset(plain), tuple(patterns)


def _expression(rule: str) -> re.Pattern[str] | None:
    """A rule as an expression; None for one that Python objects to: it is somebody's config, and matches nothing."""
    if not rule.startswith("re:"):  # a glob names a module, and all that is in it
        return re.compile(".*".join(re.escape(part) for part in rule.split("*")) + r"(?:\..*)?$")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            return re.compile(rule[3:])
    except (re.error, OverflowError, RecursionError, FutureWarning, DeprecationWarning):
        return None


@dataclass
class _Writer:
    """Collects the groups of one shape."""

    shape: ModelShape
    groups: list[TensorGroup] = field(default_factory=list)

    @property
    def dtype(self) -> str:
        return _DTYPES[self.shape.dtype]

    def add(self, name: str, dtype: str, size: tuple[int, ...], layers: int, experts: int = 1, packed: int = 0) -> None:
        self.groups.append(TensorGroup(name, dtype, size, layers, experts, packed))

    def vector(self, name: str, length: int, layers: int) -> None:
        self.add(name, self.dtype, (length,), layers)

    def linear(
        self, module: str, out: int, into: int, indices: tuple[int, ...], *, bias: bool = False, experts: int = 1,
        plain: bool = False,
    ) -> None:  # fmt: skip
        """A linear layer of every layer in `indices`: quantised where the shape says so and does not leave it out."""
        quantization = self.shape.quantization
        kept = len(indices) if plain or quantization is None else _left_out(module, indices, quantization)
        if kept:
            self.add(f"{module}.weight", self.dtype, (out, into), kept, experts)
        if kept < len(indices) and quantization is not None:
            for suffix, dtype, size in _stored(quantization, out, into, self.dtype):
                packed = packed_weights(dtype, quantization.weights.bits) if quantization.weights else 0
                self.add(f"{module}.{suffix}", dtype, size, len(indices) - kept, experts, packed)
        if bias:
            self.add(f"{module}.bias", self.dtype, (out,), len(indices), experts)

    def layer(self, layer: Layer, indices: tuple[int, ...]) -> None:
        for norm in range(layer.norms):
            self.vector(f"{_BLOCK}norm{norm}.weight", self.shape.hidden, len(indices))
        match layer.mixer:
            case Attention():
                self.attention(layer.mixer, indices)
            case LatentAttention():
                self.latent(layer.mixer, indices)
            case Recurrent():
                self.recurrent(layer.mixer, indices)
        if layer.mlp is not None:
            self.feed_forward(layer.mlp, indices)

    def attention(self, mixer: Attention, indices: tuple[int, ...]) -> None:
        at, hidden, bias = f"{_BLOCK}self_attn.", self.shape.hidden, mixer.bias
        queries = mixer.heads * mixer.head_dim * (2 if mixer.gated else 1)
        self.linear(f"{at}q_proj", queries, hidden, indices, bias=bias)
        if mixer.cache:
            self.linear(f"{at}k_proj", mixer.kv_heads * mixer.head_dim, hidden, indices, bias=bias)
            self.linear(f"{at}v_proj", mixer.kv_heads * mixer.value_dim, hidden, indices, bias=bias)
        self.linear(f"{at}o_proj", hidden, mixer.heads * mixer.value_dim, indices, bias=mixer.output_bias)
        for name, length in zip(("q_norm", "k_norm"), mixer.qk_norm, strict=True):
            if length:
                self.vector(f"{at}{name}.weight", length, len(indices))
        if mixer.sinks:
            self.vector(f"{at}sinks", mixer.heads, len(indices))

    def latent(self, mixer: LatentAttention, indices: tuple[int, ...]) -> None:
        at, hidden = f"{_BLOCK}self_attn.", self.shape.hidden
        queries = mixer.heads * (mixer.nope_head_dim + mixer.rope_head_dim)
        if mixer.q_lora_rank:
            self.linear(f"{at}q_a_proj", mixer.q_lora_rank, hidden, indices)
            self.linear(f"{at}q_b_proj", queries, mixer.q_lora_rank, indices)
            self.vector(f"{at}q_a_layernorm.weight", mixer.q_lora_rank, len(indices))
        else:
            self.linear(f"{at}q_proj", queries, hidden, indices)
        self.linear(f"{at}kv_a_proj_with_mqa", mixer.kv_lora_rank + mixer.rope_head_dim, hidden, indices)
        self.vector(f"{at}kv_a_layernorm.weight", mixer.kv_lora_rank, len(indices))
        width = mixer.heads * (mixer.nope_head_dim + mixer.value_dim)
        self.linear(f"{at}kv_b_proj", width, mixer.kv_lora_rank, indices)
        self.linear(f"{at}o_proj", hidden, mixer.heads * mixer.value_dim, indices)
        if mixer.index_heads:
            keys = mixer.index_heads * mixer.index_head_dim
            self.linear(f"{at}indexer.wq_b", keys, mixer.q_lora_rank or hidden, indices)
            self.linear(f"{at}indexer.wk", mixer.index_head_dim, hidden, indices)
            self.linear(f"{at}indexer.weights_proj", mixer.index_heads, hidden, indices, plain=True)

    def recurrent(self, mixer: Recurrent, indices: tuple[int, ...]) -> None:
        at, hidden, number = f"{_BLOCK}mixer.", self.shape.hidden, len(indices)
        if mixer.kind == "conv":
            self.linear(f"{at}in_proj", 3 * mixer.inner, hidden, indices)
        elif mixer.kind == "mamba1":
            rank = -(-hidden // 16)  # Source: dt_rank "auto" of the Mamba reference
            self.linear(f"{at}in_proj", 2 * mixer.inner, hidden, indices)
            self.linear(f"{at}x_proj", rank + 2 * mixer.key_dim, mixer.inner, indices)
            self.linear(f"{at}dt_proj", mixer.inner, rank, indices, bias=True)
            self.add(f"{at}A_log", "F32", (mixer.inner, mixer.key_dim), number)
        else:
            # Values, gate, and what is written and read; then one step size (and, for GDN, one rate) a head.
            steps = mixer.value_heads * (2 if mixer.kind == "gdn" else 1)
            self.linear(f"{at}in_proj", mixer.conv_width + mixer.inner, hidden, indices)
            self.linear(f"{at}in_proj_ba", steps, hidden, indices, plain=mixer.kind == "gdn")
            self.vector(f"{at}norm.weight", mixer.value_dim if mixer.kind == "gdn" else mixer.inner, number)
        self.add(f"{at}conv1d.weight", self.dtype, (mixer.conv_width, 1, mixer.kernel), number)
        self.linear(f"{at}out_proj", hidden, mixer.inner, indices)

    def feed_forward(self, part: FeedForward, indices: tuple[int, ...]) -> None:
        if isinstance(part, Mlp):
            self.dense(f"{_BLOCK}mlp.", part.intermediate, indices, gated=part.gated, bias=part.bias)
            return
        at, hidden, number = f"{_BLOCK}mlp.", self.shape.hidden, len(indices)
        self.linear(f"{at}gate", part.experts, hidden, indices, bias=part.router_bias, plain=True)
        if part.correction:
            self.add(f"{at}gate.e_score_correction_bias", "F32", (part.experts,), number)
        self.dense(
            f"{at}experts.*.", part.intermediate, indices, gated=part.gated, bias=part.bias, experts=part.experts
        )
        if part.shared:
            self.dense(f"{at}shared_experts.", part.shared, indices, gated=part.gated, bias=False)
            if part.shared_gate:
                self.linear(f"{at}shared_expert_gate", 1, hidden, indices, plain=True)
        if part.dense:
            self.dense(f"{at}beside.", part.dense, indices, gated=part.gated, bias=False)

    def dense(
        self, at: str, width: int, indices: tuple[int, ...], *, gated: bool, bias: bool, experts: int = 1
    ) -> None:
        hidden = self.shape.hidden
        names = ("gate_proj", "up_proj") if gated else ("up_proj",)
        for name in names:
            self.linear(f"{at}{name}", width, hidden, indices, bias=bias, experts=experts)
        self.linear(f"{at}down_proj", hidden, width, indices, bias=bias, experts=experts)

    def outside(self) -> None:
        shape = self.shape
        width = shape.embedding or shape.hidden
        self.add("model.embed_tokens.weight", self.dtype, (shape.vocabulary, width), 1)
        if shape.learned_positions:
            self.add("model.embed_positions.weight", self.dtype, (shape.learned_positions, shape.hidden), 1)
        if shape.layer_input:
            elements = len(shape.layers) * shape.layer_input
            self.add("model.embed_tokens_per_layer.weight", self.dtype, (shape.vocabulary, elements), 1)
        if width != shape.hidden:
            self.add("model.project_in.weight", self.dtype, (shape.hidden, width), 1)
            self.add("model.project_out.weight", self.dtype, (width, shape.hidden), 1)
        if not shape.tied:
            self.add("lm_head.weight", self.dtype, (shape.vocabulary, width), 1)
        self.vector("model.norm.weight", shape.hidden, 1)

    def tower(self, tower: Vision) -> None:
        """Attention, feed-forward part, patches, and the projection to the decoder; engines leave it unquantised."""
        at, width, count = "visual.blocks.*.", tower.hidden, tower.layers
        self.add(f"{at}attn.qkv.weight", self.dtype, (3 * width, width), count)
        self.add(f"{at}attn.proj.weight", self.dtype, (width, width), count)
        for name in ("gate_proj", "up_proj") if tower.gated else ("up_proj",):
            self.add(f"{at}mlp.{name}.weight", self.dtype, (tower.intermediate, width), count)
        self.add(f"{at}mlp.down_proj.weight", self.dtype, (width, tower.intermediate), count)
        patch = (width, 3 * tower.temporal * tower.patch * tower.patch)
        self.add("visual.patch_embed.weight", self.dtype, patch, 1)
        if tower.image:
            self.add("visual.position_embedding.weight", self.dtype, ((tower.image // tower.patch) ** 2, width), 1)
        merged = width * tower.merge**2
        self.add("visual.merger.up_proj.weight", self.dtype, (merged, merged), tower.mergers)
        self.add("visual.merger.down_proj.weight", self.dtype, (tower.out, merged), tower.mergers)


def _left_out(module: str, indices: tuple[int, ...], quantization: Quantization) -> int:
    """Layers in which a quantisation leaves the module out."""
    if quantization.weights is None and quantization.method != "mxfp4":
        return 0
    if quantization.method == "mxfp4" and ".experts." not in module:  # GPT-OSS quantises its experts only
        return len(indices)
    if not quantization.ignored:
        return 0
    # A list that names single layers must be asked for each layer; any other answers for all of them at once.
    if not any(character.isdigit() for name in quantization.ignored for character in name):
        return len(indices) if _is_left_out(module.replace("*", "0"), quantization) else 0
    found = Counter(
        _is_left_out(module.replace("*", str(index), 1).replace("*", "0"), quantization) for index in indices
    )
    return found[True]


def _is_left_out(module: str, quantization: Quantization) -> bool:
    prefixes = ("", "language_model.") if not module.startswith("language_model") else ("",)
    inner = module.removeprefix("model.")
    names = (*(prefix + module for prefix in prefixes), f"model.language_model.{inner}")
    return any(is_ignored(name, quantization.ignored) for name in names)


def _stored(quantization: Quantization, out: int, into: int, dtype: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """What a quantised linear layer has in its checkpoint: suffix, dtype, shape."""
    scheme = quantization.weights
    if scheme is None:  # a scheme that this release cannot tell: at least its weights, at eight bits
        yield "weight", "I8", (out, into)
        return
    if quantization.method in {"awq", "gptq"}:
        yield from _grouped_by_input(quantization.method, scheme, out, into)
    elif quantization.method == "bitsandbytes":
        yield "weight", "U8", (out * into * scheme.bits // 8, 1)
        if scheme.bits == 4:
            yield "absmax", "F32", (-(-out * into // scheme.group),)
        else:
            yield "SCB", "F32", (out,)
    elif scheme.kind == "float" and scheme.bits == 4:
        yield from _float4(scheme, out, into)
    elif scheme.bits == 8 and scheme.activation_bits < 16:
        yield from _eight_bits(scheme, out, into, dtype)
    else:
        yield from _packed(scheme, out, into, dtype)


def _grouped_by_input(
    method: str, scheme: WeightScheme, out: int, into: int
) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    groups = -(-into // scheme.group) if scheme.group else 1
    words = out * scheme.bits // 32
    if method == "awq":
        yield "qweight", "I32", (into, words)
    else:
        yield "qweight", "I32", (into * scheme.bits // 32, out)
        yield "g_idx", "I32", (into,)
    yield "qzeros", "I32", (groups, words)
    yield "scales", "F16", (groups, out)


def _float4(scheme: WeightScheme, out: int, into: int) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    yield "weight_packed", "U8", (out, into // 2)
    yield "weight_scale", "F8_E4M3" if scheme.static else "U8", (out, -(-into // scheme.group))
    if scheme.static:
        yield "weight_global_scale", "F32", (1,)
        yield "input_global_scale", "F32", (1,)


def _eight_bits(scheme: WeightScheme, out: int, into: int, dtype: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    yield "weight", "F8_E4M3" if scheme.kind == "float" else "I8", (out, into)
    if scheme.strategy == "block":
        rows, columns = (-(-size // side) for size, side in zip((out, into), scheme.block, strict=True))
        yield "weight_scale_inv", "F32", (rows, columns)
    elif scheme.strategy == "tensor":
        yield "weight_scale", "F32", (1,)
    else:
        yield "weight_scale", dtype, (out, 1)
    if scheme.static:
        yield "input_scale", "F32", (1,)


def _packed(scheme: WeightScheme, out: int, into: int, dtype: str) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """compressed-tensors' `pack-quantized`: words of 32 bits along the input."""
    groups = -(-into // scheme.group) if scheme.group else 1
    yield "weight_packed", "I32", (out, -(-into * scheme.bits // 32))
    yield "weight_scale", dtype, (out, groups)
    yield "weight_shape", "I64", (2,)
    if not scheme.symmetric:
        yield "weight_zero_point", "I32", (-(-out * scheme.bits // 32), groups)
