"""What an engine refuses before it looks at memory: kernels against the card, dtypes, tensor parallel sizes.

Source: the catalogue's minimum compute capabilities by release, and vLLM's own checks of head counts and shards
(config/model.py verify_with_parallel_config, quantization/utils/marlin_utils.py).
"""

from __future__ import annotations

from collections.abc import Iterator

from modelberth.catalog.gpus import Gpu
from modelberth.checkpoint.shape import Attention, LatentAttention, Mlp, ModelShape, Moe
from modelberth.sizing.engine import Engine, as_number

_MARLIN_INPUT = 128
"""Inputs of a Marlin shard come in multiples of this. Source: marlin_utils.py GPTQ_MARLIN_MIN_THREAD_K."""
_RULES = {
    "w4a16": "w4a16", "w8a16": "w4a16", "w8a8": "w8a8-int8", "fp8": "fp8", "fbgemm_fp8": "fp8", "awq": "awq",
    "gptq": "gptq", "nvfp4": "nvfp4", "mxfp4": "mxfp4", "bitsandbytes": "bitsandbytes",
}  # fmt: skip


def refusals(shape: ModelShape, engine: Engine, gpu: Gpu, gpus: int | None) -> tuple[str, ...]:
    """Why this engine will not start on this card whatever the memory; empty when nothing stands in the way.

    Args:
        shape: the model, with the dtype that its activations have.
        engine: its settings.
        gpu: the card.
        gpus: cards that there are; None where that is not known.
    """
    return tuple(dict.fromkeys(_all(shape, engine, gpu, gpus)))


def _all(shape: ModelShape, engine: Engine, gpu: Gpu, gpus: int | None) -> Iterator[str]:
    if gpus is not None and engine.tensor_parallel > gpus:
        yield f"tensor parallel size {engine.tensor_parallel} needs as many GPUs; there are {gpus}"
    if gpu.capability is not None:
        yield from _card(shape, engine, gpu)
    yield from _ranks(shape, engine)
    if shape.max_positions and engine.max_model_len > shape.max_positions:
        yield (
            f"a context of {engine.max_model_len:,} tokens is more than the {shape.max_positions:,} that the model "
            "was made for"
        )
    if engine.kv_cache_dtype != "auto" and not engine.rules.knows_cache_dtype(engine.kv_cache_dtype):
        yield f"vLLM {engine.rules.version} knows no KV cache of {engine.kv_cache_dtype}"


def _card(shape: ModelShape, engine: Engine, gpu: Gpu) -> Iterator[str]:
    has = as_number(engine.capability)
    least = engine.rules["minimumCapability"]
    if has < least:
        yield f"vLLM {engine.rules.version} needs compute capability {least}; {gpu.name} has {gpu.compute_capability}"
    need = _kernel_minimum(shape, engine)
    if shape.precision == "mxfp4" and "mxfp4" not in engine.rules["quantizationMinimumCapability"]:
        yield f"vLLM {engine.rules.version} has no kernels for mxfp4"
    if need is not None and has < need:
        yield (
            f"the kernels for {shape.precision} need compute capability {need} in vLLM {engine.rules.version}; "
            f"{gpu.name} has {gpu.compute_capability}"
        )
    if shape.dtype in {"float16", "half"} and shape.architecture in engine.rules["float16Refused"]:
        yield f"vLLM {engine.rules.version} refuses {shape.architecture} in float16"
    if shape.dtype == "bfloat16" and has < engine.rules["bfloat16MinimumCapability"]:
        yield f"bfloat16 needs compute capability 8.0; {gpu.name} has {gpu.compute_capability} (use --dtype float16)"


def _kernel_minimum(shape: ModelShape, engine: Engine) -> float | None:
    table: dict[str, float] = engine.rules["quantizationMinimumCapability"]
    if shape.quantization is None:
        return None
    if shape.quantization.method.startswith("modelopt") and shape.precision.startswith("fp8"):
        return table.get("modelopt-fp8")
    if shape.quantization.method == "compressed-tensors" and shape.precision == "fp8":
        native = as_number(engine.capability) >= engine.rules["fp8NativeCapability"]
        return table["w8a8-fp8" if native else "w8a16-fp8"]  # older cards keep the weights in FP8 only
    name = _RULES.get(shape.precision)
    return table.get(name) if name else None


def _ranks(shape: ModelShape, engine: Engine) -> Iterator[str]:
    """Whether every layer can be shared by so many ranks."""
    ranks = engine.tensor_parallel
    if ranks == 1:
        return
    for mixer in dict.fromkeys(shape.mixers):
        if isinstance(mixer, Attention | LatentAttention) and mixer.heads % ranks:
            yield f"{mixer.heads} attention heads cannot be shared by {ranks} GPUs"
        if isinstance(mixer, Attention) and mixer.kv_heads % ranks and ranks % mixer.kv_heads:
            yield f"{mixer.kv_heads} key and value heads can be neither shared by {ranks} GPUs nor copied to them"
    for layer in dict.fromkeys(shape.layers):
        yield from _shard(layer.mlp, shape, engine)


def _shard(part: Mlp | Moe | None, shape: ModelShape, engine: Engine) -> Iterator[str]:
    ranks = engine.tensor_parallel
    if isinstance(part, Moe) and engine.expert_parallel:
        return
    if part is None:
        return
    if part.intermediate % ranks:
        yield f"an inner width of {part.intermediate} cannot be shared by {ranks} GPUs"
        return
    weights = shape.quantization.weights if shape.quantization else None
    if weights is None:
        return
    shard = part.intermediate // ranks
    if weights.strategy == "block" and shard % weights.block[1]:
        yield f"{ranks} GPUs would cut the blocks of {weights.block[1]} that share a scale (inner width {shard} each)"
    if weights.strategy == "group" and weights.kind == "int" and weights.group:
        if shard % weights.group:
            yield f"{ranks} GPUs would cut the groups of {weights.group} that share a scale (inner width {shard} each)"
        elif shard % _MARLIN_INPUT:
            yield f"the kernel for {shape.precision} takes inner widths in multiples of {_MARLIN_INPUT}, not {shard}"
