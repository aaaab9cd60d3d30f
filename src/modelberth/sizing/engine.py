"""The engine's settings: what the user gave, and for the rest what that vLLM release takes by default on that card.

Sources: vllm/engine/arg_utils.py (batch limits by card and entry point), config/cache.py, platforms/cuda.py, read
release by release; the values stand in the catalogue (vllm.json).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from modelberth.base.errors import UsageError
from modelberth.base.text import shorten
from modelberth.base.units import GIB, MIB
from modelberth.catalog.gpus import Gpu
from modelberth.catalog.vllm import EngineRules, by_capability, rules_for
from modelberth.checkpoint.shape import DTYPE_BYTES, LatentAttention, ModelShape, Recurrent

Entrypoint = Literal["server", "offline"]


@dataclass(frozen=True)
class EngineFlags:
    """What the user says of the engine; None leaves it to the release.

    Attributes:
        vllm: version; None for the newest known.
        entrypoint: `server` (vllm serve) or `offline` (the LLM class): their batch limits differ.
        tensor_parallel: GPUs that share the model.
        max_model_len: longest request, tokens; None for the model's own.
        gpu_memory_utilization: share of the card's memory.
        max_num_batched_tokens: tokens of one step.
        max_num_seqs: requests of one step.
        kv_cache_dtype: `auto`, `fp8`, ...
        dtype: of the activations: `auto`, `bfloat16`, `float16`, `float32`.
        enforce_eager: no CUDA graphs.
        expert_parallel: whole experts are spread over the GPUs.
        block_size: tokens of a KV block.
        quantization: quantise an unquantised checkpoint while it is loaded: `fp8` or `bitsandbytes`; None for no.
        gpu_total: bytes that CUDA reports for the card, where the user knows it better than the catalogue.
    """

    vllm: str | None = None
    entrypoint: Entrypoint = "server"
    tensor_parallel: int = 1
    max_model_len: int | None = None
    gpu_memory_utilization: float | None = None
    max_num_batched_tokens: int | None = None
    max_num_seqs: int | None = None
    kv_cache_dtype: str = "auto"
    dtype: str = "auto"
    enforce_eager: bool = False
    expert_parallel: bool = False
    block_size: int | None = None
    quantization: str | None = None
    gpu_total: int | None = None


@dataclass(frozen=True)
class Engine:
    """Every setting with its value.

    Attributes:
        rules: of the release.
        runner: `v1` or `v2`, the model runner that takes this model.
        entrypoint, tensor_parallel, max_model_len, gpu_memory_utilization, max_num_batched_tokens, max_num_seqs,
        kv_cache_dtype, enforce_eager, expert_parallel, block_size: as in `EngineFlags`.
        capability: compute capability of the card; (9, 0) stands in for AMD's.
        notes: what was decided for the user and is worth knowing.
    """

    rules: EngineRules
    runner: str
    entrypoint: Entrypoint
    tensor_parallel: int
    max_model_len: int
    gpu_memory_utilization: float
    max_num_batched_tokens: int
    max_num_seqs: int
    kv_cache_dtype: str
    enforce_eager: bool
    expert_parallel: bool
    block_size: int
    capability: tuple[int, int]
    notes: tuple[str, ...] = ()


def as_number(capability: tuple[int, int]) -> float:
    """A compute capability as the catalogue's minimums are written: (8, 9) is 8.9."""
    return capability[0] + capability[1] / 10


def resolve(flags: EngineFlags, shape: ModelShape, gpu: Gpu) -> Engine:
    """Fill in what the flags leave open.

    Raises:
        UsageError: no version, or a value that no engine takes.
    """
    _check(flags)
    rules = rules_for(flags.vllm)
    length = flags.max_model_len or shape.max_positions
    capability = gpu.capability or (9, 0)
    tokens, seqs = _batch(flags, rules, gpu, length)
    utilization = flags.gpu_memory_utilization
    return Engine(
        rules=rules,
        runner=_runner(rules, shape),
        entrypoint=flags.entrypoint,
        tensor_parallel=flags.tensor_parallel,
        max_model_len=length,
        gpu_memory_utilization=rules["gpuMemoryUtilization"] if utilization is None else utilization,
        max_num_batched_tokens=tokens,
        max_num_seqs=seqs,
        kv_cache_dtype=_cache_dtype(flags.kv_cache_dtype, rules, shape),
        enforce_eager=flags.enforce_eager,
        expert_parallel=flags.expert_parallel and shape.sparse,
        block_size=flags.block_size or _block_size(rules, shape, capability[0]),
        capability=capability,
        notes=_notes(flags, rules, shape, capability),
    )


_MOST = 10**9
"""Largest count believed of a flag."""


def _check(flags: EngineFlags) -> None:
    """Refuse what no engine takes, whoever made the flags."""
    counts = {
        "tensor-parallel-size": flags.tensor_parallel,
        "max-model-len": flags.max_model_len,
        "max-num-batched-tokens": flags.max_num_batched_tokens,
        "max-num-seqs": flags.max_num_seqs,
        "block-size": flags.block_size,
    }
    for name, value in counts.items():
        if value is not None and not 1 <= value <= _MOST:
            raise _refused(name, value, f"a count from 1 to {_MOST:,}")
    share = flags.gpu_memory_utilization
    if share is not None and not 0 < share <= 1:
        raise _refused("gpu-memory-utilization", share, "a share above 0, at most 1")
    if flags.dtype != "auto" and flags.dtype not in DTYPE_BYTES:
        raise _refused("dtype", flags.dtype, f"auto, {', '.join(DTYPE_BYTES)}")
    if flags.entrypoint not in ("server", "offline"):
        raise _refused("entrypoint", flags.entrypoint, "server or offline")


def _refused(name: str, value: object, expected: str) -> UsageError:
    return UsageError(f"{name} cannot be '{shorten(str(value), 40)}'", where=name, why=f"expected {expected}")


def resolve_dtype(flags: EngineFlags, shape: ModelShape, gpu: Gpu) -> str:
    """The dtype of the activations: as declared, else what the release makes of the checkpoint's on this card.

    Source: vllm/config/model.py, _resolve_auto_dtype and its forerunners.
    """
    _check(flags)
    if flags.dtype != "auto":
        return flags.dtype
    rules = rules_for(flags.vllm)
    rule = rules["autoDtype"]
    if shape.architecture in rules["float16Refused"]:
        return "float32" if _lacks_bfloat16(rules, gpu) else "bfloat16"
    dtype = str(rule["float32"]) if DTYPE_BYTES[shape.dtype] > 2 else shape.dtype
    cast = rule["bfloat16BelowMinimum"] == "float16" and _lacks_bfloat16(rules, gpu)
    return "float16" if dtype == "bfloat16" and cast else dtype


def _lacks_bfloat16(rules: EngineRules, gpu: Gpu) -> bool:
    minimum = rules["bfloat16MinimumCapability"]
    return gpu.capability is not None and as_number(gpu.capability) < minimum


def _notes(flags: EngineFlags, rules: EngineRules, shape: ModelShape, capability: tuple[int, int]) -> tuple[str, ...]:
    notes = [rules.note] if rules.note else []
    if as_number(capability) < rules["v1MinimumCapability"]:
        notes.append(f"vLLM {rules.version} runs its former engine (V0) on such a card: this is the plan of V1")
    if flags.expert_parallel and not shape.sparse:
        notes.append("expert parallelism changes nothing: the model has no experts")
    return tuple(notes)


def _batch(flags: EngineFlags, rules: EngineRules, gpu: Gpu, length: int) -> tuple[int, int]:
    """Tokens and requests of one step. Source: EngineArgs.get_batch_defaults and its forerunners."""
    defaults = _tier(rules["batchDefaults"]["tiers"], gpu)[flags.entrypoint]
    tokens = flags.max_num_batched_tokens or defaults["tokens"]
    seqs = flags.max_num_seqs or defaults["seqs"]
    caps = rules["batchRules"]
    if caps["capTokensBySeqsTimesLen"] and flags.max_num_batched_tokens is None:
        tokens = min(tokens, seqs * length)
    if caps["capSeqsByTokens"] and flags.max_num_seqs is None:
        seqs = min(seqs, tokens)
    return tokens, seqs


def _tier(tiers: list[dict[str, Any]], gpu: Gpu) -> dict[str, Any]:
    """The first tier that a card belongs to, by its nominal memory and its name."""
    name = gpu.product.lower()
    nominal = (gpu.smi_mib or 0) * MIB or gpu.cuda_bytes[1]
    for tier in tiers:
        named = any(word in name for word in tier["include"]) if "include" in tier else True
        excluded = any(word in name for word in tier.get("exclude", ()))
        capable = gpu.compute_capability not in tier.get("excludeCapability", ())
        if named and not excluded and capable and nominal >= tier["minTotalGiB"] * GIB:
            return tier
    return tiers[-1]


def _runner(rules: EngineRules, shape: ModelShape) -> str:
    """Which model runner a release gives a model. Source: VllmConfig.use_v2_model_runner and its forerunners."""
    rule = rules["runner"]
    listed = shape.architecture in rule["v2Architectures"]
    if rule["default"] == "v1":
        excluded = rule.get("v2Excludes", ())
        refused = ("moe" in excluded and shape.sparse) or ("quantized" in excluded and shape.quantization is not None)
        return "v2" if listed and not refused else "v1"
    attends = any(not isinstance(mixer, Recurrent) for mixer in shape.mixers)
    kinds = {"moe": shape.sparse, "hybrid": shape.hybrid, "attention-free": shape.hybrid and not attends}
    return "v1" if any(kinds.get(kind, False) for kind in rule["v1Kinds"]) and not listed else "v2"


def _cache_dtype(declared: str, rules: EngineRules, shape: ModelShape) -> str:
    """The KV cache's dtype; a checkpoint's own scheme counts since the release that reads it, for a while always."""
    if shape.quantization is None or shape.quantization.kv_cache is None:
        return declared
    reads = rules["kvAutoFromCheckpoint"]
    own, method = shape.quantization.kv_cache, shape.quantization.method
    overrides = method == "compressed-tensors" and reads["compressed-tensors"] and not reads["explicitWins"]
    if declared != "auto" and not overrides:
        return declared
    if method == "compressed-tensors":
        return own if reads["compressed-tensors"] else "auto"
    return own if own in reads["modelopt"] else "auto"


def _block_size(rules: EngineRules, shape: ModelShape, major: int) -> int:
    """Tokens of a KV block where the user names none: 16, but for latent attention what its kernel wants."""
    rule = rules["blockSize"]
    if not shape.latent:
        return int(rule["default"])
    sparse = any(isinstance(mixer, LatentAttention) and mixer.index_heads for mixer in shape.mixers)
    if sparse and "sparseMla" in rule:
        return int(rule["sparseMla"])
    return int(by_capability(rule["mla"], major))
