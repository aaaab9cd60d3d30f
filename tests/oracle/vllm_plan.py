"""Ask vLLM how it plans a KV cache. Runs under the Python of an installed vLLM, without a GPU and without a model.

Reads one JSON configuration a line from standard input and answers one JSON line each on standard output. Specs are
built with vLLM's own classes as its layers build them, states and blocks beside them with its own calculators, and
its own planning functions do the rest. Only what needs a GPU or a model folder is filled in by hand: which blocks the
attention backend takes, and what the model's class would answer.
"""

from __future__ import annotations

import json
import re
import sys
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from vllm.config import ModelConfig, VllmConfig
from vllm.model_executor.layers.mamba.mamba_utils import MambaStateDtypeCalculator, MambaStateShapeCalculator
from vllm.model_executor.models import ModelRegistry
from vllm.platforms.interface import Platform
from vllm.utils.torch_utils import STR_DTYPE_TO_TORCH_DTYPE
from vllm.v1.attention.backend import MultipleOf
from vllm.v1.core import kv_cache_utils as planning
from vllm.v1.kv_cache_interface import (
    ChunkedLocalAttentionSpec,
    FullAttentionSpec,
    KVCacheSpec,
    MambaSpec,
    MLAAttentionSpec,
    SlidingWindowSpec,
    get_kv_quant_mode,
)

Case = dict[str, Any]
INDEX_GROUP, INDEX_SCALE = 128, 4
DS_MLA_ROW = {"fp8_ds_mla": 656}


def main() -> None:
    """Answer every line."""
    for line in sys.stdin:
        case = json.loads(line)
        try:
            answer = plan(case)
        except (NotImplementedError, ValueError, AssertionError) as error:
            answer = {"refused": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


def plan(case: Case) -> dict[str, Any]:
    """What vLLM plans for one configuration."""
    config = vllm_config(case)
    kinds = [spec_of(mixer, case, config) for mixer in case["mixers"]]
    specs = {
        f"layers.{row}.{part}": spec for row, kind in enumerate(case["row"]) for part, spec in enumerate(kinds[kind])
    }
    groups = planning.get_kv_cache_groups(config, dict(specs))
    cache = planning.get_kv_cache_config_from_groups(config, groups, case["available"])
    tokens, concurrency = planning.get_kv_cache_capacity(config, cache)
    verdict, estimate = start(case, specs)
    return {
        "pages": [[[spec.page_size_bytes, spec.block_size] for spec in kind] for kind in kinds],
        "blocks": cache.num_blocks,
        "tokens": tokens,
        "concurrency": concurrency,
        "groups": len(groups),
        "needed": planning._max_memory_usage_bytes_from_groups(config, groups),
        "fits": verdict,
        "estimate": estimate,
        "largest": auto_fit(case, specs),
    }


def start(case: Case, specs: dict[str, KVCacheSpec]) -> tuple[bool, int]:
    """Whether the start check passes, and the longest request that its message estimates where it does not."""
    try:
        planning.get_kv_cache_configs(vllm_config(case), [specs], [case["available"]])
    except ValueError as error:
        found = re.search(r"estimated maximum model length is (\d+)", str(error))
        return False, int(found[1]) if found else 0
    return True, case["max_model_len"]


def auto_fit(case: Case, specs: dict[str, KVCacheSpec]) -> int:
    """The length that `--max-model-len auto` settles on; 0 where it finds none."""
    config = vllm_config(case)
    config.model_config.original_max_model_len = -1
    try:
        planning.get_kv_cache_configs(config, [specs], [case["available"]])
    except ValueError:
        return 0
    return config.model_config.max_model_len


def vllm_config(case: Case) -> VllmConfig:
    """A configuration as far as planning asks for it, blocks aligned to recurrent states."""
    config = VllmConfig()
    latent = any(mixer["kind"] == "latent" for mixer in case["mixers"])
    config.model_config = SimpleNamespace(
        max_model_len=case["max_model_len"],
        original_max_model_len=case["max_model_len"],
        dtype=STR_DTYPE_TO_TORCH_DTYPE[case["dtype"]],
        architecture="",
        use_mla=latent,
        get_num_kv_heads=lambda parallel: attention_heads(case),
        get_head_size=lambda: head_size(case),
    )
    config.parallel_config.tensor_parallel_size = case["ranks"]
    config.scheduler_config.max_num_batched_tokens = case["batched"]
    config.scheduler_config.async_scheduling = case["asynchronous"]
    config.scheduler_config.disable_hybrid_kv_cache_manager = not case["hybrid"]
    config.cache_config.kv_cache_layout = "LBNHC"
    config.cache_config.block_size = case["block"]
    config.cache_config.cache_dtype = case["cache_dtype"]
    config.cache_config.mamba_cache_mode = case["states"]
    config.cache_config.mamba_cache_dtype = case["conv_dtype"]
    config.cache_config.mamba_ssm_cache_dtype = case["state_dtype"]
    config.cache_config.mamba_block_size = case["block"] if case["states"] == "align" else case["max_model_len"]
    if any(mixer["kind"] in STATES for mixer in case["mixers"]) and head_size(case):
        align(case, config)
    return config


def attention_heads(case: Case) -> int:
    """Key and value heads of a rank of the model's first attention layer."""
    return next((heads_of(mixer, case) for mixer in case["mixers"] if mixer["kind"] == "attention"), 1)


def heads_of(mixer: Case, case: Case) -> int:
    """Key and value heads of a rank, by vLLM's own rule."""
    model = SimpleNamespace(use_mla=False, model_arch_config=SimpleNamespace(total_num_kv_heads=mixer["kv_heads"]))
    return ModelConfig.get_num_kv_heads(model, SimpleNamespace(tensor_parallel_size=case["ranks"]))


def head_size(case: Case) -> int:
    """Width of a head, of a row where attention is latent; 0 without attention."""
    for mixer in case["mixers"]:
        if mixer["kind"] == "attention":
            return mixer["head_dim"]
        if mixer["kind"] == "latent":
            return mixer["rank"] + mixer["rope"]
    return 0


def align(case: Case, config: VllmConfig) -> None:
    """Blocks beside recurrent states, as a platform settles them once layers exist."""

    class Backend:
        get_supported_kernel_block_sizes = staticmethod(lambda spec=None: [MultipleOf(case["kernel"])])
        customize_spec = staticmethod(lambda spec: spec)

    class Machine(Platform):
        _find_non_ssm_backends = classmethod(lambda cls, config: [Backend])

    state = max((mixer for mixer in case["mixers"] if mixer["kind"] in STATES), key=lambda mixer: size(mixer, case))
    shapes, dtypes = STATES[state["kind"]](state, case)
    model = SimpleNamespace(
        get_mamba_state_shape_from_config=lambda config: shapes, get_mamba_state_dtype_from_config=lambda config: dtypes
    )
    with mock.patch.object(type(ModelRegistry), "resolve_model_cls", return_value=(model, "")):
        Machine._align_hybrid_block_size(config, Backend)


def size(mixer: Case, case: Case) -> int:
    """Bytes of a state."""
    shapes, dtypes = STATES[mixer["kind"]](mixer, case)
    return MambaSpec(shapes=tuple(shapes), dtypes=dtypes, block_size=1).page_size_bytes


def spec_of(mixer: Case, case: Case, config: VllmConfig) -> list[KVCacheSpec]:
    """The specs that one layer hands to the engine."""
    if mixer["kind"] in STATES:
        shapes, dtypes = STATES[mixer["kind"]](mixer, case)
        return [
            MambaSpec(
                shapes=tuple(shapes),
                dtypes=dtypes,
                block_size=config.cache_config.mamba_block_size,
                page_size_padded=config.cache_config.mamba_page_size_padded,
                mamba_cache_mode=case["states"],
                num_prefill_checkpoint_blocks=case["checkpoints"],
            )
        ]
    named = case["cache_dtype"]
    dtype = STR_DTYPE_TO_TORCH_DTYPE[case["dtype"] if named == "auto" else named]
    common = {"block_size": config.cache_config.block_size, "kv_quant_mode": get_kv_quant_mode(named), "dtype": dtype}
    if mixer["kind"] == "latent":
        return latent_specs(mixer, named, common)
    common |= {
        "num_kv_heads": heads_of(mixer, case),
        "head_size": mixer["head_dim"],
        "head_size_v": mixer["value_dim"],
    }
    if mixer["chunk"]:
        return [ChunkedLocalAttentionSpec(attention_chunk_size=mixer["chunk"], **common)]
    if mixer["window"]:
        return [SlidingWindowSpec(sliding_window=mixer["window"], **common)]
    return [FullAttentionSpec(**common)]


def latent_specs(mixer: Case, named: str, common: dict[str, Any]) -> list[KVCacheSpec]:
    """A latent layer's row, and its indexer's key where it has one."""
    row = MLAAttentionSpec(
        num_kv_heads=1,
        max_tp_shards=1,
        head_size=mixer["rank"] + mixer["rope"],
        cache_dtype_str=named,
        state_content_bytes=DS_MLA_ROW.get(named),
        **common,
    )
    if not mixer["index"]:
        return [row]
    width = mixer["index"] + mixer["index"] // INDEX_GROUP * INDEX_SCALE
    key = MLAAttentionSpec(block_size=common["block_size"], num_kv_heads=1, head_size=width, dtype=torch.uint8)
    return [row, key]


def _dtypes(calculate: Any, case: Case) -> tuple[torch.dtype, ...]:
    return calculate(STR_DTYPE_TO_TORCH_DTYPE[case["dtype"]], case["conv_dtype"], case["state_dtype"])


def _mamba1(mixer: Case, case: Case) -> tuple[Any, Any]:
    shapes = MambaStateShapeCalculator.mamba1_state_shape(
        case["ranks"], mixer["value_heads"] * mixer["value_dim"], mixer["key_dim"], mixer["kernel"]
    )
    return shapes, _dtypes(MambaStateDtypeCalculator.mamba1_state_dtype, case)


def _mamba2(mixer: Case, case: Case) -> tuple[Any, Any]:
    shapes = MambaStateShapeCalculator.mamba2_state_shape(
        case["ranks"],
        mixer["value_heads"] * mixer["value_dim"],
        mixer["key_heads"],
        mixer["value_heads"],
        mixer["value_dim"],
        mixer["key_dim"],
        mixer["kernel"],
    )
    return shapes, _dtypes(MambaStateDtypeCalculator.mamba2_state_dtype, case)


def _gdn(mixer: Case, case: Case) -> tuple[Any, Any]:
    shapes = MambaStateShapeCalculator.gated_delta_net_state_shape(
        case["ranks"],
        mixer["key_heads"],
        mixer["value_heads"],
        mixer["key_dim"],
        mixer["value_dim"],
        mixer["kernel"],
    )
    return shapes, _dtypes(MambaStateDtypeCalculator.gated_delta_net_state_dtype, case)


def _conv(mixer: Case, case: Case) -> tuple[Any, Any]:
    shapes = MambaStateShapeCalculator.short_conv_state_shape(
        case["ranks"], mixer["value_heads"] * mixer["value_dim"], mixer["kernel"]
    )
    model = STR_DTYPE_TO_TORCH_DTYPE[case["dtype"]]
    return shapes, MambaStateDtypeCalculator.short_conv_state_dtype(model, case["conv_dtype"])


STATES = {"mamba1": _mamba1, "mamba2": _mamba2, "gdn": _gdn, "conv": _conv}

if __name__ == "__main__":
    main()
