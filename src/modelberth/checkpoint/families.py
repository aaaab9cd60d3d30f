"""What a model family's code fixes and its config.json does not say: biases, norms, ungated feed-forward parts.

Source: the model classes of transformers and of vLLM (`model_executor/models`), read by `model_type`. A family that
is not here is taken as a Llama-like decoder, and that is said.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Family:
    """The habits of one model_type.

    Attributes:
        bias: whether q, k and v have biases: "always", "never", or the config key that says so.
        output_bias: the same for the attention's output.
        mlp_bias: the same for the feed-forward part.
        gated: whether the feed-forward part has a gate.
        qk_norm: norms on queries and keys: "head" (one head wide), "width" (all heads wide), "" or a config key.
        norms: norms over the hidden width in a layer.
        tied: whether embeddings are tied where the config does not say.
        sliding: which layers have the sliding window where no `layer_types` says: "all", "even", "pattern",
            "" for none.
        learned: rows that a learned position table has beyond max_position_embeddings; None for no table.
        rotary: whether positions are rotary.
        sinks: whether attention has sinks.
        shared_gate: whether shared experts have a gate.
        correction: whether the router has score corrections.
        router_bias: whether the router has a bias.
        gated_attention: whether queries come with an output gate.
    """

    bias: str = "never"
    output_bias: str = "never"
    mlp_bias: str = "never"
    gated: bool = True
    qk_norm: str = ""
    norms: int = 2
    tied: bool = False
    sliding: str = ""
    learned: int | None = None
    rotary: bool = True
    sinks: bool = False
    shared_gate: bool = False
    correction: bool = False
    router_bias: bool = False
    gated_attention: bool = False


_LLAMA = Family(bias="attention_bias", output_bias="attention_bias", mlp_bias="mlp_bias")
_QWEN2 = Family(bias="always")
_QWEN3 = Family(bias="attention_bias", output_bias="attention_bias", qk_norm="head")
_GPT = Family(
    bias="always", output_bias="always", mlp_bias="always", gated=False, tied=True, learned=0, rotary=False
)  # fmt: skip
_DEEPSEEK = Family(bias="attention_bias", correction=True)
_GLM = Family(bias="attention_bias", norms=2)
_GRANITE = Family(bias="attention_bias", output_bias="attention_bias", mlp_bias="mlp_bias", tied=True)
_GDN = Family(qk_norm="head", shared_gate=True, gated_attention=True)

FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "mistral": Family(sliding="all"),
    "ministral": Family(sliding="all"),
    "ministral3": Family(),
    "mixtral": Family(sliding="all"),
    "llama4_text": Family(qk_norm=""),
    "deci": _LLAMA,
    "nemotron-nas": _LLAMA,
    "qwen2": _QWEN2,
    "qwen2_vl": _QWEN2,
    "qwen2_vl_text": _QWEN2,
    "qwen2_5_vl": _QWEN2,
    "qwen2_5_vl_text": _QWEN2,
    "qwen2_5_omni_text": _QWEN2,
    "qwen2_moe": Family(bias="always", shared_gate=True),
    "qwen3": _QWEN3,
    "qwen3_moe": _QWEN3,
    "qwen3_vl_text": _QWEN3,
    "qwen3_vl_moe_text": _QWEN3,
    "qwen3_next": _GDN,
    "qwen3_5_text": _GDN,
    "qwen3_5_moe_text": _GDN,
    "gemma": Family(tied=True),
    "gemma2": Family(tied=True, norms=4, sliding="even"),
    "gemma3": Family(tied=True, norms=4, qk_norm="head", sliding="pattern"),
    "gemma3_text": Family(tied=True, norms=4, qk_norm="head", sliding="pattern"),
    "gemma3n_text": Family(tied=True, norms=4, qk_norm="head", sliding="pattern"),
    "phi": Family(bias="always", output_bias="always", mlp_bias="always", gated=False, norms=1),
    "phi3": Family(sliding="all"),
    "phimoe": Family(bias="attention_bias", output_bias="attention_bias"),
    "granite": _GRANITE,
    "granitemoe": _GRANITE,
    "granitemoeshared": _GRANITE,
    "granitemoehybrid": _GRANITE,
    "gpt_oss": Family(bias="always", output_bias="always", mlp_bias="always", sinks=True, router_bias=True),
    "opt": _GPT,
    "gpt2": _GPT,
    "gpt_bigcode": _GPT,
    "RefinedWebModel": Family(gated=False, tied=True),
    "RefinedWeb": Family(gated=False, tied=True),
    "chatglm": Family(bias="add_qkv_bias"),
    "falcon": Family(bias="bias", output_bias="bias", mlp_bias="bias", gated=False, tied=True),
    "starcoder2": Family(bias="use_bias", output_bias="use_bias", mlp_bias="use_bias", gated=False, tied=True),
    "deepseek_v2": Family(bias="attention_bias"),
    "deepseek_v3": _DEEPSEEK,
    "deepseek_v32": _DEEPSEEK,
    "kimi_k2": _DEEPSEEK,
    "glm4_moe_lite": _DEEPSEEK,
    "mistral4": Family(bias="attention_bias"),
    "deepseek": Family(),
    "glm": _GLM,
    "glm4": Family(bias="attention_bias", norms=4),
    "glm4_moe": Family(bias="attention_bias", qk_norm="use_qk_norm", correction=True),
    "cohere": Family(tied=True, norms=1, qk_norm="use_qk_norm"),
    "cohere2": Family(tied=True, norms=1, sliding="pattern"),
    "olmo2": Family(qk_norm="width"),
    "olmo3": Family(qk_norm="width"),
    "olmoe": Family(qk_norm="width"),
    "minimax_m2": Family(qk_norm="width", correction=True),
    "nemotron": Family(gated=False),
    "nemotron_h": Family(gated=False, norms=1, rotary=False),
    "jamba": Family(rotary=False),
    "bamba": Family(),
    "mamba": Family(tied=True, norms=1, rotary=False),
    "mamba2": Family(tied=True, norms=1, rotary=False),
    "falcon_mamba": Family(norms=1, rotary=False),
    "lfm2": Family(tied=True, qk_norm="head"),
    "exaone4": Family(qk_norm="head", sliding="pattern"),
    "ernie4_5": Family(tied=True),
    "ernie4_5_moe": Family(tied=True, correction=True),
    "seed_oss": Family(bias="attention_bias", output_bias="attention_out_bias"),
    "smollm3": _LLAMA,
    "stablelm": Family(bias="use_qkv_bias"),
    "internlm2": Family(bias="bias", output_bias="bias"),
    "baichuan": Family(),
    "dots1": Family(qk_norm="head", correction=True),
    "apertus": Family(gated=False, qk_norm="head"),
}

SEEING: dict[str, str] = {
    "llava": "llama",
    "llava_next": "llama",
    "mistral3": "mistral",
    "pixtral": "mistral",
    "gemma3": "gemma3_text",
    "gemma3n": "gemma3n_text",
    "llama4": "llama4_text",
    "qwen2_5_omni": "qwen2_5_omni_text",
    "qwen2_5_omni_thinker": "qwen2_5_omni_text",
    "qwen3_vl": "qwen3_vl_text",
    "qwen3_vl_moe": "qwen3_vl_moe_text",
    "qwen3_5": "qwen3_5_text",
    "qwen3_5_moe": "qwen3_5_moe_text",
    "internvl_chat": "qwen2",
}
"""The decoder's family where a model that sees names only its own."""


def family_of(model_type: str, outer: str) -> Family | None:
    """The habits of a decoder by its own model_type or, where that is absent, its wrapper's; None for an unknown."""
    return FAMILIES.get(model_type) or FAMILIES.get(SEEING.get(outer, outer))


NESTED_DEFAULTS: dict[str, dict[str, int | None]] = {
    "llama": {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048,
    },
    "mistral": {
        "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096,
    },
    "qwen2": {
        "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 32768,
    },
    "gemma3_text": {
        "vocab_size": 262208, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "max_position_embeddings": 131072,
        "sliding_window": 4096, "sliding_window_pattern": 6,
    },
    "llama4_text": {
        "vocab_size": 202048, "hidden_size": 5120, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
        "num_hidden_layers": 48, "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128,
        "max_position_embeddings": 131072, "num_local_experts": 16, "num_experts_per_tok": 1,
        "interleave_moe_layer_step": 1, "attention_chunk_size": 8192,
    },
}  # fmt: skip
"""What a nested text_config leaves out because it is its class's default. Source: transformers' config classes, which
write a nested config as its difference from the default (PretrainedConfig.to_diff_dict)."""
