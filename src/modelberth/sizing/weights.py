"""Weights on one rank, as vLLM holds them: fused, padded, sharded or replicated, and rounded by the allocator.

Sources: vllm/model_executor/layers/linear.py (column and row parallel layers, QKV fusion and replication),
vocab_parallel_embedding.py (padding), fused_moe/layer.py (experts), and PyTorch's c10/cuda/CUDACachingAllocator.cpp.
No constant here is fitted. Formula for one parameter of a layer on one rank:

    bytes = sum over the fused tensors of stored bytes * share of the rank, then rounded up to what its block takes
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import repeat
from typing import NamedTuple

from modelberth.checkpoint.shape import Attention, LatentAttention, ModelShape, Moe
from modelberth.checkpoint.tensors import TensorGroup
from modelberth.sizing.allocator import allocated_bytes

VOCABULARY_PADDING = 64
"""Rows that a vocabulary is padded to. Source: DEFAULT_VOCAB_PADDING_SIZE in vLLM's vocab_parallel_embedding.py."""

_ROW = {"o_proj", "out_proj", "down_proj", "w2", "fc2", "dense", "dense_4h_to_h", "c_proj", "proj", "linear_2"}
_COLUMN = {
    "q_proj", "k_proj", "v_proj", "qkv_proj", "query_key_value", "qkv", "c_attn", "Wqkv", "gate_proj", "up_proj",
    "gate_up_proj", "w1", "w3", "fc1", "c_fc", "dense_h_to_4h", "q_b_proj", "kv_b_proj", "in_proj", "in_proj_qkv",
    "in_proj_z", "in_proj_a", "in_proj_b", "in_proj_ba", "in_proj_qkvz", "conv1d", "dt_proj", "linear_1",
}  # fmt: skip
_VOCABULARY = {
    "embed_tokens", "word_embeddings", "wte", "lm_head", "embed_out", "tok_embeddings", "embed_tokens_per_layer",
}  # fmt: skip
_KV = {"k_proj", "v_proj"}
_FUSED = {
    "q_proj": "qkv", "k_proj": "qkv", "v_proj": "qkv", "gate_proj": "gate_up", "up_proj": "gate_up", "w1": "gate_up",
    "w3": "gate_up", "q_a_proj": "qkv_a", "kv_a_proj_with_mqa": "qkv_a",
}  # fmt: skip
_OUTPUT_ONLY = {"bias", "weight_shape"}
_DROPPED = {"weight_shape"}


@dataclass(frozen=True)
class WeightRules:
    """What the weights on a rank depend on beside the model.

    Attributes:
        tensor_parallel: ranks that share every layer.
        expert_parallel: whether whole experts are spread over the ranks instead of a part of each.
        max_split: bytes from which the allocator never splits a block while weights are loaded; None for no limit.
        mxfp4_padding: multiples to which an MXFP4 kernel pads the experts' hidden width and inner width.
    """

    tensor_parallel: int = 1
    expert_parallel: bool = False
    max_split: int | None = None
    mxfp4_padding: tuple[int, int] = (1, 1)


@dataclass(frozen=True)
class RankWeights:
    """Weights of one rank in bytes.

    Attributes:
        layers: the decoder's dense layers.
        experts: routed experts.
        embeddings: input embeddings and output layer.
        tower: vision tower and projection.
        extra: what the engine makes for itself: rotary table, unpacked latent projections.
        rounding: what the allocator adds.
    """

    layers: int
    experts: int
    embeddings: int
    tower: int
    extra: int
    rounding: int

    @property
    def total(self) -> int:
        """All of it: the figure of "Model loading took"."""
        return self.layers + self.experts + self.embeddings + self.tower + self.extra + self.rounding


@lru_cache(maxsize=4096)
def rank_weights(groups: tuple[TensorGroup, ...], shape: ModelShape, rules: WeightRules) -> RankWeights:
    """The weights of one rank.

    Args:
        groups: tensors of the checkpoint, from its headers or derived.
        shape: the model.
        rules: ranks and the engine's habits.
    """
    fused: dict[_Key, float] = {}
    parts: dict[_Key, str] = {}
    for group in groups:
        if _is_kept(group, shape):
            key = _Key(*_parameter(group.name), group.layers)
            fused[key] = fused.get(key, 0.0) + _on_rank(group, shape, rules)
            parts[key] = _part(group.name)
    sizes = {key: round(size) for key, size in fused.items()}
    sums = {"layers": 0, "experts": 0, "embeddings": 0, "tower": 0}
    for key, size in sizes.items():
        sums[parts[key]] += size * key.layers
    extras = tuple(_extras(shape, rules.tensor_parallel))
    extra = sum(size * number for size, number in extras)
    held = allocated_bytes(_in_order(sizes, extras), rules.max_split)
    return RankWeights(**sums, extra=extra, rounding=held - sum(sums.values()) - extra)


class _Key(NamedTuple):
    """One parameter of the engine: where it stands, what it is, and the layers that have it."""

    place: str
    suffix: str
    layers: int


def _in_order(sizes: Mapping[_Key, int], extras: Iterable[tuple[int, int]]) -> Iterator[int]:
    """Sizes in the order in which the engine makes them: what stands outside the layers, then layer by layer."""
    inside = [(key.layers, size) for key, size in sizes.items() if key.layers > 1]
    yield from (size for key, size in sizes.items() if key.layers == 1)
    for layer in range(max((layers for layers, _ in inside), default=0)):
        yield from (size for layers, size in inside if layer < layers)
    for size, number in extras:
        yield from repeat(size, number)


def _is_kept(group: TensorGroup, shape: ModelShape) -> bool:
    if shape.tied and "lm_head" in group.name:
        return False
    if _suffix(group.name) in _DROPPED:
        return False
    symmetric = shape.quantization is not None and shape.quantization.method == "gptq"
    # Marlin, the kernel behind GPTQ, drops zero points of symmetric weights. Source: gptq_marlin.py.
    return not (symmetric and group.name.endswith(("qzeros", "g_idx")) and _is_symmetric(shape))


def _is_symmetric(shape: ModelShape) -> bool:
    return shape.quantization is None or shape.quantization.weights is None or shape.quantization.weights.symmetric


def _suffix(name: str) -> str:
    return name.rpartition(".")[2]


def _module(name: str) -> str:
    """The last part of a tensor's module; packed expert tensors have none and are their own."""
    parts = name.split(".")
    last = parts[-1]
    for ending in ("_blocks", "_scales", "_bias"):
        if ".experts." in name and last.endswith(ending) and last != ending:
            return last.removesuffix(ending)
    return parts[-2] if len(parts) > 1 else last


def _parameter(name: str) -> tuple[str, str]:
    """The fused parameter a tensor becomes part of: where it stands, and what it is."""
    module = _module(name)
    head = name.rpartition("." + module)[0]
    return f"{head}.{_FUSED.get(module, module)}", _suffix(name)


def _part(name: str) -> str:
    if _is_tower(name):
        return "tower"
    if _module(name) in _VOCABULARY:
        return "embeddings"
    return "experts" if ".experts." in name else "layers"


def _is_tower(name: str) -> bool:
    return name.startswith(("visual.", "vision_", "model.visual.", "model.vision_", "multi_modal_projector", "audio_"))


def _on_rank(group: TensorGroup, shape: ModelShape, rules: WeightRules) -> float:
    """Bytes of one layer's tensor (all its local experts) on one rank, before fusion."""
    module, suffix = _module(group.name), _suffix(group.name)
    stored = group.tensor_bytes * _widened(group, shape)
    ranks = rules.tensor_parallel
    if module in _VOCABULARY:
        return _vocabulary_bytes(group, ranks)
    if ".experts." in group.name:
        padding = _mxfp4_factor(shape, rules) if suffix != "bias" else 1.0
        local = -(-group.experts // ranks) if rules.expert_parallel else group.experts
        if group.experts == 1 and group.shape and rules.expert_parallel:  # all experts in one tensor
            return stored * padding * -(-group.shape[0] // ranks) / group.shape[0]
        share = 1.0 if rules.expert_parallel or not _is_split(group, module, suffix) else 1 / ranks
        return stored * padding * local * share
    if module in _KV and not _is_tower(group.name):
        return stored * _kv_share(shape, ranks)
    if module in {"qkv_proj", "query_key_value", "Wqkv"} and not _is_tower(group.name):
        return stored * _qkv_share(shape, ranks)
    return stored / ranks if _is_split(group, module, suffix) else float(stored)


def _is_split(group: TensorGroup, module: str, suffix: str) -> bool:
    if group.elements == 1:
        return False
    if module in _COLUMN:
        return suffix != "g_idx"
    if module not in _ROW:
        return False
    # A row-parallel layer is split along its input: biases and scales of whole rows stand on every rank.
    whole = suffix in _OUTPUT_ONLY or ("scale" in suffix and (len(group.shape) == 1 or group.shape[-1] == 1))
    return not whole


def _widened(group: TensorGroup, shape: ModelShape) -> int:
    """Factor by which the engine stores scales wider: FP8 and INT8 channel scales become float32.

    Source: ChannelQuantScaleParameter of compressed_tensors_w8a8_fp8.py and _int8.py.
    """
    eight = shape.quantization is not None and shape.quantization.weights is not None
    channel = _suffix(group.name) == "weight_scale" and group.shape[-1:] == (1,) and group.dtype in {"BF16", "F16"}
    return 2 if eight and channel else 1


def _mxfp4_factor(shape: ModelShape, rules: WeightRules) -> float:
    """What padding multiplies an expert's weights by; 1 for all but MXFP4."""
    if shape.quantization is None or shape.quantization.scheme != "mxfp4":
        return 1.0
    ranks = 1 if rules.expert_parallel else rules.tensor_parallel
    inner = max((layer.mlp.intermediate for layer in shape.layers if isinstance(layer.mlp, Moe)), default=1) / ranks
    hidden, multiple = rules.mxfp4_padding
    return _padded(shape.hidden, hidden) * _padded(inner, multiple)


def _padded(size: float, multiple: int) -> float:
    return -(-size // multiple) * multiple / size


def _vocabulary_bytes(group: TensorGroup, ranks: int) -> float:
    rows = group.shape[0]
    padded = -(-rows // VOCABULARY_PADDING) * VOCABULARY_PADDING
    return group.tensor_bytes / rows * -(-padded // ranks)


def _kv_share(shape: ModelShape, ranks: int) -> float:
    """Share of the key or value projection on one rank; a head is never cut, so ranks beyond the heads hold copies."""
    heads = next((mixer.kv_heads for mixer in shape.mixers if isinstance(mixer, Attention)), ranks)
    return max(1, heads // ranks) / heads


def _qkv_share(shape: ModelShape, ranks: int) -> float:
    mixer = next((mixer for mixer in shape.mixers if isinstance(mixer, Attention)), None)
    if mixer is None:
        return 1 / ranks
    local = mixer.heads / ranks + 2 * max(1, mixer.kv_heads // ranks)
    return local / (mixer.heads + 2 * mixer.kv_heads)


def _extras(shape: ModelShape, ranks: int) -> Iterator[tuple[int, int]]:
    """What the engine makes beside the checkpoint's tensors: bytes, and how often."""
    if shape.rotary_dim and shape.rotary_positions:
        # One table of cosines and sines for all layers alike. Source: rotary_embedding/base.py.
        yield shape.rotary_positions * shape.rotary_dim * shape.dtype_bytes, 1
    latent: dict[LatentAttention, int] = {}
    for mixer in shape.mixers:
        if isinstance(mixer, LatentAttention):
            latent[mixer] = latent.get(mixer, 0) + 1
    for mixer, number in latent.items():
        # Two further copies of kv_b_proj, unpacked for decoding. Source: W_UV and W_UK_T in mla/common.py.
        heads = max(1, mixer.heads // ranks)
        yield mixer.kv_lora_rank * heads * mixer.value_dim * shape.dtype_bytes, number
        yield mixer.kv_lora_rank * heads * mixer.nope_head_dim * shape.dtype_bytes, number
