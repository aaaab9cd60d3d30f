"""The KV cache: bytes for a token, blocks, tokens and concurrency as vLLM plans them.

Source: vllm/v1/kv_cache_interface.py and vllm/v1/core/kv_cache_utils.py, 0.32. For one full-attention layer a
page of `block` tokens takes block * kv_heads * 2 * head_dim * bytes; latent attention stores one row of
kv_lora_rank + rope_head_dim, not split over ranks. Layers with a sliding window need less than said here.
"""

from __future__ import annotations

from dataclasses import dataclass

from modelberth.checkpoint.config import ModelShape

_KV_BYTES = {"fp8": 1, "fp8_e4m3": 1, "fp8_e5m2": 1, "bfloat16": 2}


@dataclass(frozen=True)
class KvPlan:
    """What vLLM reports for a KV cache of a given size.

    Attributes:
        bytes_per_token: on one rank, all layers.
        blocks: whole blocks that fit.
        tokens: the figure of the log line "KV cache size".
        concurrency: requests of `max_model_len` tokens that fit at once.
    """

    bytes_per_token: int
    blocks: int
    tokens: int
    concurrency: float


def bytes_per_token(shape: ModelShape, kv_cache_dtype: str = "auto", tensor_parallel_size: int = 1) -> int:
    """Bytes that one token takes on one tensor-parallel rank, over all layers."""
    element = _KV_BYTES.get(kv_cache_dtype, shape.dtype_bytes)
    if shape.mla:
        return shape.layers * (shape.mla.kv_lora_rank + shape.mla.rope_head_dim) * element
    heads = max(1, shape.kv_heads // tensor_parallel_size)  # replicated where ranks outnumber heads
    return shape.layers * heads * 2 * shape.head_dim * element


def plan(token_bytes: int, available_bytes: int, block_tokens: int, max_model_len: int) -> KvPlan:
    """Blocks, tokens and concurrency of a KV cache.

    Args:
        token_bytes: from `bytes_per_token`.
        available_bytes: memory set aside for the cache on one rank.
        block_tokens: tokens in a block; 16 on GPUs by default, 128 on the CPU.
        max_model_len: longest request in tokens.
    """
    blocks = available_bytes // (token_bytes * block_tokens)
    per_request = -(-max_model_len // block_tokens)
    concurrency = blocks / per_request
    return KvPlan(token_bytes, blocks, int(concurrency * max_model_len), concurrency)


def request_bytes(token_bytes: int, block_tokens: int, max_model_len: int) -> int:
    """Bytes that one request of `max_model_len` tokens holds, in whole blocks."""
    return -(-max_model_len // block_tokens) * block_tokens * token_bytes
