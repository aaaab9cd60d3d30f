"""The shape of a model, as plain counts: what the sizing needs to know, and nothing about any engine.

A decoder is a row of layers; each has a mixer (attention of some kind, or a recurrent state) and a feed-forward
part (dense, or a mixture of experts). Layers of one kind are one object that stands in the row several times.
All sizes are counts of elements; bytes appear only in `ModelShape.dtype_bytes`.
"""

from __future__ import annotations

from dataclasses import dataclass

DTYPE_BYTES = {"bfloat16": 2, "float16": 2, "half": 2, "float32": 4, "float": 4}
"""Bytes of one activation by the dtype names that config.json uses."""
DTYPE_LABELS = {"bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float": "fp32"}


@dataclass(frozen=True)
class Attention:
    """Attention with keys and values: multi-head, grouped-query or multi-query.

    Attributes:
        heads: query heads.
        kv_heads: key and value heads.
        head_dim: width of a query or key head; config.json may state it apart from hidden / heads.
        value_dim: width of a value head.
        window: tokens that a sliding window sees; None for all.
        chunk: tokens of a chunk of chunked local attention; None where there is none.
        bias: whether the query, key and value projections have a bias.
        output_bias: whether the output projection has one.
        qk_norm: elements of the query norm and of the key norm; (0, 0) where there are none.
        gated: whether the query projection also gives an output gate (twice the query's width).
        sinks: whether there is one learned sink for each query head.
        cache: whether the layer keeps keys and values of its own (some models share an earlier layer's).
    """

    heads: int
    kv_heads: int
    head_dim: int
    value_dim: int
    window: int | None = None
    chunk: int | None = None
    bias: bool = False
    output_bias: bool = False
    qk_norm: tuple[int, int] = (0, 0)
    gated: bool = False
    sinks: bool = False
    cache: bool = True


@dataclass(frozen=True)
class LatentAttention:
    """Multi-head latent attention: one compressed row a token and layer, the same on every rank.

    Attributes:
        heads: query heads.
        kv_lora_rank: width of the compressed keys and values.
        rope_head_dim: width of the part that carries positions.
        nope_head_dim: width of a query head's other part.
        value_dim: width of a value head.
        q_lora_rank: width of the compressed query; None where the query is projected at once.
        index_heads: heads of the sparse-attention indexer (DeepSeek V3.2); 0 for none.
        index_head_dim: width of one of them, and of the indexer's own cached key.
    """

    heads: int
    kv_lora_rank: int
    rope_head_dim: int
    nope_head_dim: int
    value_dim: int
    q_lora_rank: int | None = None
    index_heads: int = 0
    index_head_dim: int = 0


@dataclass(frozen=True)
class Recurrent:
    """A mixer with a state of fixed size a request instead of a cache that grows: Mamba, gated delta net, short conv.

    Attributes:
        kind: `mamba1`, `mamba2`, `gdn` (gated delta net) or `conv` (short convolution).
        key_heads: heads or groups of what is written into the state (0 where the convolution holds values only).
        key_dim: width of one of them; the state's second side.
        value_heads: heads of the state.
        value_dim: width of one of them; the state's first side.
        kernel: taps of the convolution in front of it.
    """

    kind: str
    key_heads: int
    key_dim: int
    value_heads: int
    value_dim: int
    kernel: int

    @property
    def inner(self) -> int:
        """Width of the values, all heads."""
        return self.value_heads * self.value_dim

    @property
    def conv_width(self) -> int:
        """Channels of the convolution: values, and what is written and read with them."""
        return self.inner + 2 * self.key_heads * self.key_dim


Mixer = Attention | LatentAttention | Recurrent


@dataclass(frozen=True)
class Mlp:
    """A dense feed-forward part.

    Attributes:
        intermediate: its inner width.
        gated: whether a gate projection stands beside the up projection.
        bias: whether its projections have biases.
    """

    intermediate: int
    gated: bool = True
    bias: bool = False


@dataclass(frozen=True)
class Moe:
    """A mixture of experts.

    Attributes:
        experts: routed experts.
        per_token: experts that one token goes through.
        intermediate: inner width of one expert.
        shared: inner width of the experts that every token goes through, together; 0 for none.
        gated: whether experts have a gate projection.
        bias: whether experts have biases.
        router_bias: whether the router's projection has a bias.
        correction: whether the router has a score correction for each expert.
        shared_gate: whether a learned gate weighs the shared experts.
        dense: inner width of a dense part that runs beside the experts; 0 for none.
    """

    experts: int
    per_token: int
    intermediate: int
    shared: int = 0
    gated: bool = True
    bias: bool = False
    router_bias: bool = False
    correction: bool = False
    shared_gate: bool = False
    dense: int = 0


FeedForward = Mlp | Moe


@dataclass(frozen=True)
class Layer:
    """One decoder layer.

    Attributes:
        mixer: attention or recurrent state; None where the layer has a feed-forward part only.
        mlp: the feed-forward part; None where the layer has a mixer only.
        norms: norms over the hidden width.
    """

    mixer: Mixer | None
    mlp: FeedForward | None
    norms: int = 2


@dataclass(frozen=True)
class WeightScheme:
    """How the weights of quantised linear layers are stored.

    Attributes:
        bits: of one weight.
        kind: `int` or `float`.
        strategy: what one scale covers: `tensor`, `channel`, `group` or `block`.
        group: weights along the input that share a scale, where the strategy is `group`.
        block: rows and columns that share a scale, where it is `block`.
        symmetric: False where zero points are stored too.
        activation_bits: 16 where activations are not quantised.
        static: whether activations have stored scales.
    """

    bits: int
    kind: str
    strategy: str
    group: int = 0
    block: tuple[int, int] = (0, 0)
    symmetric: bool = True
    activation_bits: int = 16
    static: bool = False


@dataclass(frozen=True)
class Quantization:
    """What a quantization_config declares.

    Attributes:
        method: `compressed-tensors`, `awq`, `gptq`, `fp8`, `mxfp4`, `modelopt`, `bitsandbytes`, ...
        scheme: the short name, `w4a16`, `fp8`, ...
        weights: how weights are stored; None where this release cannot tell.
        ignored: modules that stay unquantised, as the config names them: names, prefixes, or `re:` patterns.
        kv_cache: dtype of the KV cache that the checkpoint asks for, `fp8`; None for the activations' own.
    """

    method: str
    scheme: str
    weights: WeightScheme | None
    ignored: tuple[str, ...] = ()
    kv_cache: str | None = None


@dataclass(frozen=True)
class Vision:
    """The tower that turns pictures into tokens, as far as its config says.

    Attributes:
        layers: transformer layers.
        hidden: width.
        intermediate: inner width of the feed-forward part.
        heads: attention heads.
        patch: side of a patch, pixels.
        image: side of the largest square picture, pixels; 0 where pictures have any size.
        out: width that it hands to the decoder.
        merge: patches a side that become one token.
        gated: whether the feed-forward part has a gate projection.
        temporal: frames that one patch spans.
        mergers: projections to the decoder; more than one where it takes inner layers too (Qwen3-VL).
    """

    layers: int
    hidden: int
    intermediate: int
    heads: int
    patch: int
    image: int
    out: int
    merge: int = 1
    gated: bool = False
    temporal: int = 1
    mergers: int = 1


@dataclass(frozen=True)
class ModelShape:
    """What the sizing needs to know of a decoder.

    Attributes:
        architecture: class name, `MistralForCausalLM`.
        layers: the decoder's layers, first to last.
        hidden: width of the residual stream.
        vocabulary: tokens in the vocabulary.
        max_positions: longest context that an engine derives from config.json, tokens.
        dtype: type of the activations as config.json names it.
        precision: how the weights are stored: `bf16`, `fp16`, `fp32`, `w4a16`, `fp8`, ...
        tied: whether the output layer uses the input embeddings.
        quantization: how weights are quantised; None when they are not.
        vision: the tower for pictures; None for a text model.
        rotary_dim: width of a head that carries rotary positions; 0 where positions are not rotary.
        rotary_positions: positions that the rotary table is made for (more than `max_positions` under YaRN).
        learned_positions: rows of a learned position table; 0 for none.
        embedding: width of the token embeddings where it is not `hidden`.
        state_dtype: dtype that config.json states for recurrent states; None where it does not.
        layer_input: elements a token and layer of further embeddings (Gemma 3n); 0 for none.
        unknown: what config.json leaves open about the layers, each in words; the figures are wider for it.
        notes: what was assumed where config.json says nothing, each in words.
    """

    architecture: str
    layers: tuple[Layer, ...]
    hidden: int
    vocabulary: int
    max_positions: int
    dtype: str
    precision: str
    tied: bool = False
    quantization: Quantization | None = None
    vision: Vision | None = None
    rotary_dim: int = 0
    rotary_positions: int = 0
    learned_positions: int = 0
    embedding: int = 0
    state_dtype: str | None = None
    layer_input: int = 0
    unknown: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def dtype_bytes(self) -> int:
        """Bytes of one activation, and of one KV cache element when its dtype is `auto`."""
        return DTYPE_BYTES[self.dtype]

    @property
    def weight_bits(self) -> int | None:
        """Bits of a quantised weight; None where none is, or where the scheme is not known."""
        return self.quantization.weights.bits if self.quantization and self.quantization.weights else None

    @property
    def mixers(self) -> tuple[Mixer, ...]:
        """The mixers of the layers that have one."""
        return tuple(layer.mixer for layer in self.layers if layer.mixer is not None)

    @property
    def latent(self) -> bool:
        """Whether attention is latent (DeepSeek and its descendants)."""
        return any(isinstance(mixer, LatentAttention) for mixer in self.mixers)

    @property
    def hybrid(self) -> bool:
        """Whether some layers have a recurrent state."""
        return any(isinstance(mixer, Recurrent) for mixer in self.mixers)

    @property
    def sparse(self) -> bool:
        """Whether some layers are mixtures of experts."""
        return any(isinstance(layer.mlp, Moe) for layer in self.layers)
