"""The activation peak of vLLM's profiling run, from the model's structure and the batch limits.

The profiling run sends max_num_batched_tokens (T) tokens through the model and then samples for R = min(T,
max_num_seqs) requests, so the peak is the larger of two moments:

    forward   the widest layer's tensors for T tokens
    sampling  R rows over the whole vocabulary, with every copy that the sampler makes of them

plus what is alive in both: cuBLAS's workspace and the hidden states handed from one to the other. The bytes a logit
takes in each sampler are counted from its source (catalogue, `samplerBytesPerLogit`). Chosen on measured starts are
the number of residual tensors, the widths of the ranges, and what a vision encoder adds.
Sources: vllm/v1/worker/gpu_model_runner.py (_dummy_run, _dummy_sampler_run), v1/sample/ops/topk_topp_sampler.py,
layers/fused_moe/fused_moe.py. Tensor parallelism divides the forward pass, never the sampler: logits are gathered.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelberth.base.units import MIB
from modelberth.catalog.gpus import Gpu
from modelberth.catalog.vllm import by_capability
from modelberth.checkpoint.shape import Attention, LatentAttention, Layer, Mlp, ModelShape, Moe, Recurrent, Vision
from modelberth.sizing.engine import Engine, as_number
from modelberth.sizing.ranges import Range, spread

_EXPERT_CHUNK = 32 * 1024
"""Tokens that the expert kernel takes at once. Source: VLLM_FUSED_MOE_CHUNK_SIZE."""
_RESIDUAL_TENSORS = 4
"""Tensors of the hidden width alive at a layer's widest point: residual, its norm, attention's input and output. Four
give 0.79 and 0.87 GiB for CodeLlama-7B and Granite-8B on H100 with 0.19, where 0.77 and 0.85 were measured."""


@dataclass(frozen=True)
class Activation:
    """The peak in bytes, on one rank, and what it is made of.

    Attributes:
        peak: low, mid, high.
        forward: widest moment of the forward pass.
        sampling: moment of sampling.
        reasons: why the range is as wide as it is.
    """

    peak: Range
    forward: float
    sampling: float
    reasons: tuple[str, ...]


def activation(shape: ModelShape, engine: Engine, gpu: Gpu) -> Activation:
    """The activation peak of one rank."""
    forward, tower = _forward(shape, engine), _tower(shape, engine)
    always = _kept_experts(shape, engine) + _workspace(engine)
    usual, other = _samplers(engine)
    sampling = _sampling(shape, engine, gpu, usual)
    peak, reasons = _widened(max(forward, sampling) + always, shape, tower)
    if usual != other:
        rest, _ = _widened(max(forward, _sampling(shape, engine, gpu, other)) + always, shape, tower)
        peak = Range(min(peak.low, rest.low), peak.mid, max(peak.high, rest.high))
        reasons = (*reasons, f"the sampler is {usual}, or {other} in images that have FlashInfer")
    return Activation(peak, forward, sampling, reasons)


def _widened(peak: float, shape: ModelShape, tower: Range) -> tuple[Range, tuple[str, ...]]:
    """The peak with the uncertainty of its kind. Distances: residuals over measured start-ups (docs/sizing.md)."""
    share, reasons = (0.08, ["allocator and compiler decide what is freed early"])
    if shape.sparse:
        share, reasons = 0.15, [*reasons, "expert kernels differ in the workspace they keep"]
    if shape.hybrid:
        share, reasons = 0.35, [*reasons, "recurrent kernels keep chunk states"]
    if shape.unknown:
        share, reasons = 0.35, [*reasons, "the architecture is not known here"]
    distance = share * peak + 16 * MIB
    found = spread(peak + tower.mid, distance + tower.mid - tower.low, distance + tower.high - tower.mid)
    if tower.high:
        reasons.append("the vision encoder is profiled with the largest picture, whose size its processor decides")
    return Range(max(found.low, 0.0), found.mid, found.high), tuple(reasons)


def _workspace(engine: Engine) -> float:
    """CuBLAS's workspace, a torch allocation of the first product; made before the snapshot since 0.33."""
    if "cublas" in engine.rules["startCheck"]["after"]:
        return 0.0
    return float(by_capability(engine.rules["cublasWorkspaceMiB"], engine.capability[0])) * MIB


def _samplers(engine: Engine) -> tuple[str, str]:
    """The sampler that a usual installation has, and the one it may have instead."""
    rule = engine.rules["sampler"]
    names = rule.get(engine.runner) or rule["v1"]
    if engine.rules["flashInferRequired"]:
        usable = engine.rules["samplerFlashInferCapability"]
        fits = usable is None or usable[0] <= as_number(engine.capability) <= usable[1]
        name = names["withFlashInfer"] if fits else names["default"]
        return name, name
    # Images, which have FlashInfer, run the server; the LLM class is used from an environment of one's own.
    return names["default"], names["withFlashInfer" if engine.entrypoint == "server" else "default"]


def _sampling(shape: ModelShape, engine: Engine, gpu: Gpu, sampler: str) -> float:
    """Bytes alive while R requests are sampled."""
    rows, vocabulary = min(engine.max_num_batched_tokens, engine.max_num_seqs), shape.vocabulary
    table = engine.rules["samplerBytesPerLogit"]
    per_logit = table[sampler]
    if sampler == "pytorch-sort" and 1 < rows < 128:
        per_logit = table["pytorch-sort-below-128-rows"]
    if engine.tensor_parallel > 1:
        gather = engine.rules["logitsGatherBytesPerLogit"]
        per_logit = max(per_logit, gather["full"] + gather["shard"] / engine.tensor_parallel)
    size = float(rows * vocabulary * per_logit)
    if sampler == "triton":  # one row of float32 a program. Source: topk_topp_triton.py
        size += 4.0 * min(gpu.multiprocessors, rows) * vocabulary
    states = engine.rules["profileHiddenStates"]
    alive = states.get(engine.runner) or states["v1"]
    hidden = shape.hidden * shape.dtype_bytes
    return size + float(hidden * (alive["tokenTensors"] * engine.max_num_batched_tokens + alive["rowTensors"] * rows))


def _forward(shape: ModelShape, engine: Engine) -> float:
    """Bytes alive at the widest layer for T tokens."""
    tokens, width = engine.max_num_batched_tokens, shape.dtype_bytes
    widest = max(_layer_elements(layer, shape, engine) for layer in set(shape.layers))
    return float(tokens * width) * (widest + _RESIDUAL_TENSORS * shape.hidden)


def _layer_elements(layer: Layer, shape: ModelShape, engine: Engine) -> float:
    """Elements a token at the widest moment of one layer, beside the residual stream."""
    ranks = engine.tensor_parallel
    part = 0.0
    if isinstance(layer.mlp, Mlp):
        part = layer.mlp.intermediate * (3 if layer.mlp.gated else 2) / ranks
    elif isinstance(layer.mlp, Moe):
        shared = layer.mlp.shared * (3 if layer.mlp.gated else 2) / ranks
        share = min(1.0, _EXPERT_CHUNK / engine.max_num_batched_tokens)
        routed = 0.0 if engine.rules["moeWorkspace"] == "kept" else _expert_elements(layer.mlp, shape, engine) * share
        part = max(shared, routed)
    return max(part, _mixer_elements(layer, ranks))


def _mixer_elements(layer: Layer, ranks: int) -> float:
    match layer.mixer:
        case Attention() as mixer:
            fused = mixer.heads * mixer.head_dim + mixer.kv_heads * (mixer.head_dim + mixer.value_dim)
            return (2.0 * fused + mixer.heads * mixer.value_dim) / ranks
        case LatentAttention() as mixer:
            query = mixer.heads * (mixer.nope_head_dim + mixer.rope_head_dim)
            unpacked = mixer.heads * (mixer.nope_head_dim + mixer.value_dim)
            return (2.0 * query + unpacked + mixer.heads * mixer.value_dim) / ranks + mixer.kv_lora_rank
        case Recurrent() as mixer:
            return (2.0 * mixer.conv_width + 3.0 * mixer.inner) / ranks
    return 0.0


def _expert_elements(part: Moe, shape: ModelShape, engine: Engine) -> float:
    """Elements a token in the expert kernel's two workspaces. Source: fused_moe.py, intermediate caches 1 to 3."""
    ranks = 1 if engine.expert_parallel else engine.tensor_parallel
    per_token = part.per_token / (engine.tensor_parallel if engine.expert_parallel else 1)
    inner = part.intermediate / ranks
    return max(1.0, per_token) * (max((2 if part.gated else 1) * inner, shape.hidden) + inner)


def _kept_experts(shape: ModelShape, engine: Engine) -> float:
    """Bytes of the expert workspace where the release keeps it through sampling (workspace manager, 0.13)."""
    if engine.rules["moeWorkspace"] != "kept":
        return 0.0
    parts = {layer.mlp for layer in shape.layers if isinstance(layer.mlp, Moe)}
    tokens = min(engine.max_num_batched_tokens, _EXPERT_CHUNK)
    elements = max((_expert_elements(part, shape, engine) for part in parts), default=0.0)
    return elements * tokens * shape.dtype_bytes


def _tower(shape: ModelShape, engine: Engine) -> Range:
    """What profiling a vision encoder adds: its outputs, kept until the end, and its own widest layer.

    The encoder runs with the largest picture its processor allows. Where the tower has a fixed picture size that is
    known; where it takes any size, tokens up to the encoder's budget (T, at least one picture) are assumed.
    """
    tower = shape.vision
    profiled = engine.rules["encoderProfiled"]
    if tower is None or not profiled.get(engine.runner, profiled["v1"]):
        return Range(0.0, 0.0, 0.0)
    outputs = engine.max_num_batched_tokens * shape.hidden * shape.dtype_bytes
    patches = _patches(tower, engine.max_num_batched_tokens)
    wide = patches * shape.dtype_bytes * (3.0 * tower.intermediate / engine.tensor_parallel + 4.0 * tower.hidden)
    return Range(float(outputs), outputs * 2.0 + 0.1 * wide, outputs * 4.0 + wide)


def _patches(tower: Vision, budget: int) -> int:
    """Patches of the profiled pictures."""
    tokens_a_patch = tower.merge**2
    if tower.image:
        one = (tower.image // tower.patch) ** 2
        return max(one, budget * tokens_a_patch // max(1, one) * one) if one else budget
    return max(budget, 16_384) * tokens_a_patch
