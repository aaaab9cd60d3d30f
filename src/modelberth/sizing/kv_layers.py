"""What each layer of a model keeps in the KV cache, on one tensor-parallel rank.

vLLM cuts the cache into pages: one page holds what one layer keeps for one block of tokens, or one state of a
recurrent layer. This module turns a model's shape into pages; `kv_cache` plans how many of them fit.

Sources: vllm/v1/kv_cache_interface.py (page sizes), model_executor/layers/mamba/mamba_utils.py (states),
platforms/interface.py (blocks beside states; until 0.19 model_executor/models/config.py), releases 0.8.3 to 0.33.0.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from math import lcm
from typing import Literal

from modelberth.base.errors import UsageError
from modelberth.checkpoint.shape import Attention, LatentAttention, Mixer, ModelShape, Recurrent

Kind = Literal["full", "sliding", "chunked", "latent", "recurrent"]

CACHE_BYTES = {
    "auto": 0,
    "float32": 4,
    "float": 4,
    "bfloat16": 2,
    "float16": 2,
    "half": 2,
    "fp8": 1,
    "fp8_e4m3": 1,
    "fp8_e5m2": 1,
    "fp8_inc": 1,
    "fp8_ds_mla": 1,
}
"""Bytes of one element by the dtype names of vLLM's cache flags; 0 for the model's own."""
_DS_MLA_ROW = 656
"""Bytes of a latent row in `fp8_ds_mla`: 512 in FP8, 16 of scales, 128 for positions (MLAAttentionSpec, 0.11.0)."""
_INDEX_GROUP, _INDEX_SCALE = 128, 4
"""Elements of an indexer's key that share a scale, and the scale's bytes (DeepseekV32IndexerCache, 0.11.0)."""
_FULL_STATE = ("NemotronH", "Kimi")
"""Architectures whose recurrent state is float32 unless a flag says otherwise (0.13.0 and 0.11.2 on)."""


@dataclass(frozen=True)
class KvRules:
    """What differs by vLLM release, by its flags and by the attention backend; the defaults are those of 0.28.0.

    Attributes:
        block_tokens: tokens in a block: `--block-size`, else what the attention backend prefers. 16 for most,
            64 for FlashMLA, 128 on CPUs.
        kernel_tokens: beside recurrent layers blocks are multiples of this. Until 0.19.1: 16, for latent attention
            64; since 0.20.0: the backend's smallest block or `block_tokens`, whichever is larger; for latent
            attention at least 128 since 0.27.0.
        null_block: whether one block is left out of the start check and the auto-fit (since 0.29.0).
        in_flight_tokens: tokens that a sliding window or chunk holds besides its own: max_num_batched_tokens until
            0.25.1; since 0.26.0 times the batches in flight, which are the pipeline's stages, one more under
            asynchronous scheduling (the V1 runner only without a pipeline).
        hybrid: whether layers that forget may forget. Off: windows and chunks count as full attention beside full
            attention. Always off until 0.9.0 (0.9.1 brought the hybrid KV cache manager), with
            `--disable-hybrid-kv-cache-manager`, with KV events until 0.19.1, and with a KV connector (since 0.22.0
            only where the connector cannot do it); on CPUs until 0.10.1.
        chunked: whether the manager is on for a model with chunked attention. Off in every release, unless
            VLLM_ALLOW_CHUNKED_LOCAL_ATTN_WITH_HYBRID_KV_CACHE is set.
        mixed_pages: what is done with layers whose pages differ in size. `refuse` until 0.10.2; `one` since 0.11.0:
            layers of one kind may differ; `stretch` since 0.12.0: blocks of small pages hold more tokens where the
            largest page is a multiple; `pad` since 0.24.0: all but latent ones are padded (until 0.28.0 where the
            backend can); `promote` since 0.27.0: beside that, windows count as full where latent pages do not fit.
        group_spread: how much more layers the largest kind may have than the smallest before it is split into
            groups: 1.0 until 0.11.2, 1.25 since 0.12.0, 1.5 since 0.18.0.
        check: what the start check counts. `layers` until 0.13.0: every layer on its own, forgetting ones even
            where the manager is off; `first` 0.14.0 to 0.18.1: the first group only; `groups` since 0.19.0: all.
        report: what the log calls tokens. `tokens` until 0.9.0: those of all blocks; `blocks` 0.9.1 to 0.20.0:
            those of one group's share of the blocks; `requests` since 0.20.1: concurrency times the longest request.
        states: what recurrent layers keep (`--mamba-cache-mode`). `none` without prefix caching: one state;
            `align`: two; `all`: one each block. With prefix caching until 0.14.1 `all`, since 0.15.0 `align`, `all`
            where the model can (until 0.27.1: Mamba and Mamba 2). Prefix caching is the default for them since 0.26.0.
        checkpoint_pages: further states in `align`: 1 for Mamba 2 since 0.32.0, for gated delta nets with
            FlashInfer since 0.33.0; 0 before.
        state_chunk: in `all`, blocks are multiples of the state kernel's chunk: mamba_chunk_size or chunk_size of
            config.json, else 2048.
        conv_dtype: of the convolution's state, `--mamba-cache-dtype`; `auto` is the model's.
        state_dtype: of the recurrent state, `--mamba-ssm-cache-dtype`; `auto` is the convolution's. See
            `resolve_state_dtype`.
    """

    block_tokens: int = 16
    kernel_tokens: int = 16
    null_block: bool = False
    in_flight_tokens: int = 0
    hybrid: bool = True
    chunked: bool = False
    mixed_pages: Literal["refuse", "one", "stretch", "pad", "promote"] = "promote"
    group_spread: float = 1.5
    check: Literal["layers", "first", "groups"] = "groups"
    report: Literal["tokens", "blocks", "requests"] = "requests"
    states: Literal["none", "align", "all"] = "none"
    checkpoint_pages: int = 0
    state_chunk: int = 2048
    conv_dtype: str = "auto"
    state_dtype: str = "auto"


@dataclass(frozen=True)
class CacheLayer:
    """Layers that keep the same in the cache, on one rank.

    Attributes:
        kind: `full`, `sliding`, `chunked`, `latent` or `recurrent`.
        count: how many there are.
        page_bytes: what one of them keeps for a block of tokens; for a recurrent one the state, padded to the page
            of the attention layers beside it.
        block_tokens: tokens of a block; 0 where a state stands for a whole request.
        token_bytes: what one of them stores for one token; 0 for a recurrent one.
        window: tokens of the window or chunk; 0 where there is none.
        form: what else tells layers apart that have pages of one size: heads, key and value widths.
    """

    kind: Kind
    count: int
    page_bytes: int
    block_tokens: int
    token_bytes: int = 0
    window: int = 0
    form: tuple[int, ...] = ()


def resolve_cache_dtype(shape: ModelShape, declared: str) -> str:
    """The dtype that the cache really has.

    Args:
        shape: the model.
        declared: `--kv-cache-dtype`.

    `auto` is what the checkpoint asks for, else the model's own dtype (a release that does not read the checkpoint
    is the caller's business). Sparse latent attention stores FP8 as `fp8_ds_mla`: by rule until 0.17.1, by backend
    (FlashMLA sparse) since 0.18.0; 0.11.0 did so for `auto` too.

    Raises:
        UsageError: a dtype that this release cannot size.
    """
    asked = shape.quantization.kv_cache if declared == "auto" and shape.quantization else declared
    name = shape.dtype if asked in (None, "auto") else asked
    _element_bytes(name, shape)
    sparse = any(isinstance(mixer, LatentAttention) and mixer.index_heads for mixer in shape.mixers)
    return "fp8_ds_mla" if sparse and name.startswith("fp8") else name


def resolve_state_dtype(shape: ModelShape, declared: str, stated: str | None = None) -> str:
    """The dtype of the recurrent state.

    Args:
        shape: the model.
        declared: `--mamba-ssm-cache-dtype`.
        stated: `mamba_ssm_cache_dtype` (Nemotron-H, since 0.13.0) or `mamba_ssm_dtype` (Qwen 3.5, since 0.17.0) of
            config.json; None where it says nothing.

    Source: models/config.py (NemotronHForCausalLMConfig, Qwen3_5ForConditionalGenerationConfig) and
    mamba_utils.py (kda_state_dtype).
    """
    if declared != "auto":
        return declared
    if stated is not None:
        return stated
    return "float32" if shape.architecture.startswith(_FULL_STATE) else "auto"


def cache_layers(
    shape: ModelShape, *, tensor_parallel: int = 1, kv_cache_dtype: str = "auto", rules: KvRules
) -> tuple[CacheLayer, ...]:
    """What the layers of a model keep, layers of one kind together, in the order in which they first appear.

    Args:
        shape: the model.
        tensor_parallel: ranks. Heads of keys and values are split over them, and copied where ranks outnumber heads;
            latent rows are copied to all; states are split.
        kv_cache_dtype: from `resolve_cache_dtype`.
        rules: of the release.

    Raises:
        UsageError: a dtype that this release cannot size.
    """
    element = _element_bytes(kv_cache_dtype, shape)
    found: dict[CacheLayer, int] = {}
    for mixer, count in _mixers(shape):
        for layer in _kept(mixer, tensor_parallel, element, kv_cache_dtype, shape, rules):
            found[layer] = found.get(layer, 0) + count
    token = next((layer.token_bytes for layer in found if layer.token_bytes), 0)
    state = max((layer.page_bytes for layer in found if layer.kind == "recurrent"), default=0)
    block = _block_beside_states(state, token, rules) if state and token else rules.block_tokens
    return tuple(_in_blocks(layer, count, block, block * token, rules) for layer, count in found.items())


def _mixers(shape: ModelShape) -> list[tuple[Mixer, int]]:
    """The mixers with how often they stand in the row. Equal ones are one object as a rule, so identity is enough."""
    mixers = shape.mixers
    first = {id(mixer): mixer for mixer in mixers}
    return [(first[key], count) for key, count in Counter(map(id, mixers)).items()]


def _kept(
    mixer: Mixer, ranks: int, element: int, dtype: str, shape: ModelShape, rules: KvRules
) -> tuple[CacheLayer, ...]:
    """What one layer keeps for one token, or as its state."""
    if isinstance(mixer, Recurrent):
        return (CacheLayer("recurrent", 1, _state_bytes(mixer, ranks, shape, rules), 0),)
    if isinstance(mixer, Attention):
        return (_attention(mixer, ranks, element),) if mixer.cache else ()
    width = mixer.kv_lora_rank + mixer.rope_head_dim
    row = _DS_MLA_ROW if dtype == "fp8_ds_mla" else width * element
    latent = CacheLayer("latent", 1, row, 1, row, form=(width,))
    if not mixer.index_heads:
        return (latent,)
    key = mixer.index_head_dim + mixer.index_head_dim // _INDEX_GROUP * _INDEX_SCALE
    return (latent, CacheLayer("latent", 1, key, 1, key, form=(key, mixer.index_head_dim)))


def _attention(mixer: Attention, ranks: int, element: int) -> CacheLayer:
    heads = max(1, mixer.kv_heads // ranks)
    token = heads * (mixer.head_dim + mixer.value_dim) * element
    form = (heads, mixer.head_dim, mixer.value_dim)
    if mixer.chunk is not None:
        return CacheLayer("chunked", 1, token, 1, token, mixer.chunk, form)
    if mixer.window is not None:
        return CacheLayer("sliding", 1, token, 1, token, mixer.window, form)
    return CacheLayer("full", 1, token, 1, token, form=form)


def _state_bytes(mixer: Recurrent, ranks: int, shape: ModelShape, rules: KvRules) -> int:
    """Bytes of one recurrent layer's state on one rank: the convolution's last inputs, and the state proper.

    Source: MambaStateShapeCalculator. Groups of Mamba 2 that ranks cannot share evenly are copied, one a rank.
    """
    conv = _element_bytes(rules.conv_dtype, shape)
    state = conv if rules.state_dtype == "auto" else _element_bytes(rules.state_dtype, shape)
    groups = mixer.key_heads
    if mixer.kind == "mamba2" and groups % ranks:
        groups = ranks
    channels = -(-(mixer.inner + 2 * groups * mixer.key_dim) // ranks)
    inputs = channels * (mixer.kernel - 1) * conv
    return inputs if mixer.kind == "conv" else inputs + -(-mixer.inner // ranks) * mixer.key_dim * state


def _block_beside_states(state: int, token: int, rules: KvRules) -> int:
    """Tokens of a block beside recurrent layers: enough that a page of attention holds a state."""
    step = rules.kernel_tokens
    if rules.states == "all":
        step = lcm(step, rules.state_chunk)
    return max(rules.block_tokens, step * -(-state // (step * token)))


def _in_blocks(layer: CacheLayer, count: int, block: int, page: int, rules: KvRules) -> CacheLayer:
    """A layer with its count and its pages: `block` tokens, or a state padded to `page`."""
    if layer.kind == "recurrent":
        return replace(
            layer,
            count=count,
            page_bytes=max(page, layer.page_bytes),
            block_tokens=0 if rules.states == "none" else block,
        )
    return replace(layer, count=count, page_bytes=layer.token_bytes * block, block_tokens=block)


def _element_bytes(dtype: str, shape: ModelShape) -> int:
    try:
        return CACHE_BYTES[dtype] or shape.dtype_bytes
    except KeyError:
        raise UsageError(
            f"no size is known for a cache of {dtype}",
            why=f"known are {', '.join(CACHE_BYTES)}",
            next_step="use one of them",
        ) from None
