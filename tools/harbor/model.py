"""Harbor's shape: a Mistral of about two million parameters, as `config.json` and as a torch module."""

from __future__ import annotations

from typing import Any

import torch
from quantize import BITS, GROUP_SIZE
from transformers import MistralConfig, MistralForCausalLM
from vocabulary import BOS_ID, EOS_ID, PAD_ID, VOCABULARY_SIZE

CONTEXT_TOKENS = 1024
LAYERS = 3

# Every matrix of these layers is quantised; each of their input widths is a multiple of the group size.
QUANTIZED_LAYERS = (
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.gate_proj",
    "mlp.up_proj",
    "mlp.down_proj",
)


def bf16_config() -> dict[str, Any]:
    """Return `config.json` of the BF16 variant, in the spelling both old and new engines read."""
    return {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_size": 256,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "intermediate_size": 512,
        "vocab_size": VOCABULARY_SIZE,
        "max_position_embeddings": CONTEXT_TOKENS,
        "rope_theta": 10000.0,
        "rms_norm_eps": 1e-05,
        "hidden_act": "silu",
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "pad_token_id": PAD_ID,
        "attention_dropout": 0.0,
        "initializer_range": 0.02,
        "use_cache": True,
    }


def w4a16_config() -> dict[str, Any]:
    """Return `config.json` of the INT4 variant: the same model, with its quantisation declared."""
    weights = {
        "num_bits": BITS,
        "type": "int",
        "symmetric": True,
        "strategy": "group",
        "group_size": GROUP_SIZE,
        "dynamic": False,
        "observer": "mse",
        "actorder": None,
        "block_structure": None,
        "observer_kwargs": {},
    }
    group = {"targets": ["Linear"], "weights": weights, "input_activations": None, "output_activations": None}
    quantization = {
        "config_groups": {"group_0": group},
        "format": "pack-quantized",
        "ignore": ["lm_head"],
        "kv_cache_scheme": None,
        "quant_method": "compressed-tensors",
        "quantization_status": "compressed",
    }
    return bf16_config() | {"quantization_config": quantization}


def generation_config() -> dict[str, Any]:
    """Return `generation_config.json`: greedy also for a client that names no temperature."""
    return {
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "pad_token_id": PAD_ID,
        "do_sample": False,
        "temperature": 0.0,
    }


def new_model(seed: int) -> MistralForCausalLM:
    """Return an untrained float32 model whose first weights depend on the seed alone."""
    torch.manual_seed(seed)
    return MistralForCausalLM(MistralConfig(**bf16_config())).float()


def model_with(tensors: dict[str, torch.Tensor]) -> MistralForCausalLM:
    """Return a BF16 model, ready to answer, that holds exactly these tensors.

    Raises RuntimeError when a name is missing, unknown or of another shape.
    """
    model = new_model(seed=0)
    model.load_state_dict(tensors, strict=True)
    return model.bfloat16().eval()


def quantized_names() -> list[str]:
    """Return the module names of the matrices that the INT4 variant stores in four bits."""
    return [f"model.layers.{layer}.{name}" for layer in range(LAYERS) for name in QUANTIZED_LAYERS]
