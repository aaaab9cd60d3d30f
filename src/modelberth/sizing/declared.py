"""What a variant of a stack says of its engine, as flags for the sizing."""

from __future__ import annotations

from modelberth.base.errors import UsageError
from modelberth.sizing.engine import EngineFlags
from modelberth.spec.fields import EngineValue
from modelberth.spec.stack import Variant


def flags_of(variant: Variant, vllm: str | None) -> EngineFlags:
    """The flags of a variant, its extra engine arguments included.

    Args:
        variant: as declared.
        vllm: the version that its platform ships; None for the newest known.

    Raises:
        UsageError: an engine argument that is no count where one belongs.
    """
    extra = variant.engine_args
    return EngineFlags(
        vllm=vllm,
        tensor_parallel=variant.tensor_parallel_size,
        max_model_len=variant.max_model_len,
        gpu_memory_utilization=variant.gpu_memory_utilization,
        max_num_batched_tokens=_count(extra.get("max-num-batched-tokens"), "max-num-batched-tokens"),
        max_num_seqs=_count(extra.get("max-num-seqs"), "max-num-seqs"),
        kv_cache_dtype=variant.kv_cache_dtype,
        dtype=variant.dtype,
        enforce_eager=extra.get("enforce-eager") is True,
        expert_parallel=extra.get("enable-expert-parallel") is True,
        block_size=_count(extra.get("block-size"), "block-size"),
    )


def _count(value: EngineValue | tuple[EngineValue, ...] | None, flag: str) -> int | None:
    """A count, written as a number or as text."""
    if value is None:
        return None
    text = str(value)
    if isinstance(value, bool | tuple) or not text.isascii() or not text.isdigit() or int(text) < 1:
        raise UsageError(f"the engine argument '{flag}' is no count", where=f"engineArgs.{flag}", why=f"found {value}")
    return int(text)
