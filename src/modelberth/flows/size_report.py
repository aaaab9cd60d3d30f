"""The plan of one model as a document for programs: `modelberth.dev/size/v1`. Memory is in GiB (2^30 bytes)."""

from __future__ import annotations

from typing import Any

from modelberth.base.units import GIB
from modelberth.sizing.plan import Sizing
from modelberth.sizing.ranges import Range

SCHEMA_VERSION = "modelberth.dev/size/v1"


def size_document(sizing: Sizing) -> dict[str, Any]:
    """A plan as plain data; low <= mid <= high throughout."""
    return {"schemaVersion": SCHEMA_VERSION, **sizing_fields(sizing)}


def sizing_fields(sizing: Sizing) -> dict[str, Any]:
    """The fields of a plan, for a document of its own or as part of another."""
    engine, ledger, kv = sizing.engine, sizing.ledger, sizing.kv
    return {
        "model": {
            "architecture": sizing.model.shape.architecture,
            "parameters": sizing.model.parameters,
            "quantization": sizing.model.shape.precision,
            "weightsFrom": "headers" if sizing.model.from_headers else "config",
        },
        "gpu": {"product": sizing.gpu.product, "count": engine.tensor_parallel},
        "engine": {
            "vllm": engine.rules.version,
            "entrypoint": engine.entrypoint,
            "modelRunner": engine.runner,
            "tensorParallel": engine.tensor_parallel,
            "expertParallel": engine.expert_parallel,
            "maxModelLen": engine.max_model_len,
            "gpuMemoryUtilization": engine.gpu_memory_utilization,
            "maxNumBatchedTokens": engine.max_num_batched_tokens,
            "maxNumSeqs": engine.max_num_seqs,
            "kvCacheDtype": engine.kv_cache_dtype,
            "blockSize": engine.block_size,
            "enforceEager": engine.enforce_eager,
        },
        "perGpuGiB": {
            "total": gib(ledger.total),
            "budget": gib(ledger.budget),
            "weights": gib(ledger.weights),
            "activation": gib(ledger.activation),
            "nonTorch": gib(ledger.non_torch),
            "cudaGraphs": gib(ledger.cuda_graphs),
            "kvCache": gib(ledger.kv_cache),
        },
        "kvCache": {
            "bytesPerToken": kv.bytes_per_token,
            "blocks": whole(kv.blocks),
            "tokens": whole(kv.tokens),
            "maxConcurrency": rounded(kv.concurrency, 2),
        },
        "maxModelLen": {"requested": engine.max_model_len, "largest": whole(kv.largest)},
        "verdict": sizing.verdict,
        "reasons": list(sizing.reasons),
    }


def gib(value: Range) -> dict[str, float]:
    """Bytes as GiB, to a tenth of a MiB."""
    return rounded(value.scaled(1 / GIB), 4)


def whole(value: Range) -> dict[str, int]:
    """Counts."""
    return {"low": int(value.low), "mid": int(value.mid), "high": int(value.high)}


def rounded(value: Range, digits: int) -> dict[str, float]:
    """Numbers with so many digits after the point."""
    return {"low": round(value.low, digits), "mid": round(value.mid, digits), "high": round(value.high, digits)}
