"""The row of layers: what stands where, in every family's own words for it."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import Any

import pytest

from modelberth.checkpoint.shape import (
    Attention,
    LatentAttention,
    Layer,
    Mixer,
    Mlp,
    ModelShape,
    Moe,
    Recurrent,
)


def letter(layer: Layer) -> str:
    """One character a layer: F full attention, S sliding, C chunked, L latent, R recurrent, . no mixer."""
    match layer.mixer:
        case None:
            return "."
        case Recurrent():
            return "R"
        case LatentAttention():
            return "L"
        case Attention():
            return "S" if layer.mixer.window else "C" if layer.mixer.chunk else "F"


def row(shape: ModelShape) -> str:
    return "".join(letter(layer) for layer in shape.layers)


def parts(shape: ModelShape) -> str:
    """One character a layer: D dense, E experts, . neither."""
    return "".join("." if layer.mlp is None else "E" if isinstance(layer.mlp, Moe) else "D" for layer in shape.layers)


def first(shape: ModelShape, kind: type[Mixer]) -> Any:
    return next(mixer for mixer in shape.mixers if isinstance(mixer, kind))


# --- the rows of real models ---------------------------------------------------------------------------

NANO = "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-"
ROWS: dict[str, str] = {
    "Llama-3.1-8B-Instruct": "F" * 32,
    "gpt-oss-20b": "SF" * 12,
    "gpt-oss-120b": "SF" * 18,
    "gemma-2-2b-it": "SF" * 13,
    "gemma-2-9b-it": "SF" * 21,
    "gemma-2-27b-it": "SF" * 23,
    "gemma-3-1b-it": "SSSSSF" * 4 + "SS",
    "gemma-3-4b-it": "SSSSSF" * 5 + "SSSS",
    "gemma-3-12b-it": "SSSSSF" * 8,
    "gemma-3-27b-it": "SSSSSF" * 10 + "SS",
    "gemma-3n-E4B-it": "SSSSF" * 7,
    "Llama-4-Scout-17B-16E-Instruct": "CCCF" * 12,
    "Qwen3-Next-80B-A3B-Instruct": "RRRF" * 12,
    "Qwen3.5-27B": "RRRF" * 16,
    "Qwen3.5-4B": "RRRF" * 8,
    "granite-4.0-h-small": "RRRRRF" + "RRRRRRRRRF" * 3 + "RRRR",
    "granite-4.0-h-tiny": "RRRRRF" + "RRRRRRRRRF" * 3 + "RRRR",
    "NVIDIA-Nemotron-Nano-9B-v2": NANO.translate(str.maketrans("M-*", "R.F")),
    "DeepSeek-V3": "L" * 61,
    "DeepSeek-V2-Lite": "L" * 27,
    "Mistral-Small-4-119B-2603": "L" * 36,
    "Phi-3-mini-4k-instruct": "S" * 32,
    "e5-mistral-7b-instruct": "S" * 32,
    # sliding_window is in the file and null, or use_sliding_window is false.
    "Mistral-7B-Instruct-v0.3": "F" * 32,
    "Qwen2.5-7B-Instruct": "F" * 28,
    "Qwen2.5-VL-7B-Instruct": "F" * 28,
    "Qwen2.5-Omni-7B": "F" * 28,
    "Qwen1.5-MoE-A2.7B": "F" * 24,
}


@pytest.mark.parametrize("name", ROWS)
def test_the_mixers_of_a_real_model(name: str, model):
    assert row(model(name)) == ROWS[name]


PARTS: dict[str, str] = {
    "Llama-3.1-8B-Instruct": "D" * 32,
    "Mixtral-8x7B-v0.1": "E" * 32,
    "DeepSeek-V3": "DDD" + "E" * 58,
    "DeepSeek-V2-Lite": "D" + "E" * 26,
    "Kimi-K2-Instruct": "D" + "E" * 60,
    "GLM-4.5-Air": "D" + "E" * 45,
    "Llama-4-Scout-17B-16E-Instruct": "E" * 48,
    "Qwen3-30B-A3B": "E" * 48,
    "Qwen3-Next-80B-A3B-Instruct": "E" * 48,
    "granite-4.0-h-small": "E" * 40,
    "NVIDIA-Nemotron-Nano-9B-v2": NANO.translate(str.maketrans("M-*", ".D.")),
}


@pytest.mark.parametrize("name", PARTS)
def test_the_feed_forward_parts_of_a_real_model(name: str, model):
    assert parts(model(name)) == PARTS[name]


@pytest.mark.parametrize(
    ("name", "counts"),
    [
        ("NVIDIA-Nemotron-Nano-9B-v2", {"R.": 27, ".D": 25, "F.": 4}),
        ("Nemotron-H-8B-Base-8K", {"R.": 24, ".D": 24, "F.": 4}),
        ("NVIDIA-Nemotron-3-Nano-30B-A3B-BF16", {"R.": 23, ".E": 23, "F.": 6}),
    ],
)
def test_a_layer_of_nemotron_h_is_a_mixer_or_a_feed_forward_part(name: str, counts: dict[str, int], model):
    shape = model(name)
    assert Counter(map("".join, zip(row(shape), parts(shape), strict=True))) == counts
    assert {layer.norms for layer in shape.layers} == {1}
    assert {layer.mlp.gated for layer in shape.layers if layer.mlp is not None} == {False}


def test_the_blocks_of_a_searched_model_differ_one_by_one(model):
    shape = model("Llama-3_3-Nemotron-Super-49B-v1")
    assert Counter(row(shape)) == {"F": 49, ".": 31}
    assert set(shape.mixers) == {Attention(heads=64, kv_heads=8, head_dim=128, value_dim=128)}
    # 2 x ffn_mult x 8192 / 3, rounded up to 256: 2.625, 5.25 and 1.3125.
    assert [shape.layers[index].mlp for index in (0, 1, 42)] == [Mlp(14336), Mlp(28672), Mlp(7168)]
    assert (row(shape)[6], shape.layers[6].mlp) == (".", Mlp(14336))


def test_the_blocks_of_a_searched_model_state_heads_widths_or_nothing(parse):
    shape = parse(
        num_hidden_layers=4,
        block_configs=[
            {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 1.0}},
            {"attention": {"n_heads_in_group": 4}, "ffn": {"intermediate_size": 999}},
            {"attention": {"no_op": True}, "ffn": {"ffn_mult": 1.0}},
            {"attention": {"n_heads_in_group": 1}, "ffn": {"no_op": True}},
        ],
    )
    # 2 x 1.0 x 512 / 3 = 341, rounded up to 256.
    assert [layer.mlp for layer in shape.layers] == [Mlp(512), Mlp(999), Mlp(512), None]
    assert [layer.mixer and layer.mixer.kv_heads for layer in shape.layers] == [2, 1, None, 4]


def test_the_last_layers_of_gemma_3n_share_an_earlier_cache(model):
    shape = model("gemma-3n-E4B-it")
    assert [mixer.cache for mixer in shape.mixers] == [True] * 20 + [False] * 15
    assert Counter(letter(layer) for layer in shape.layers if layer.mixer.cache) == {"S": 16, "F": 4}
    assert shape.layer_input == 256
    assert {layer.mlp for layer in shape.layers} == {Mlp(16384)}


# --- widths --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "window"),
    [
        ("gpt-oss-20b", 128),
        ("gemma-2-9b-it", 4096),
        ("gemma-3-1b-it", 512),
        ("gemma-3-27b-it", 1024),
        ("gemma-3n-E4B-it", 512),
        ("Phi-3-mini-4k-instruct", 2047),
    ],
)
def test_the_window_of_a_real_model(name: str, window: int, model):
    assert {mixer.window for mixer in model(name).mixers} - {None} == {window}


def test_the_chunks_of_llama_4(model):
    assert {mixer.chunk for mixer in model("Llama-4-Scout-17B-16E-Instruct").mixers} == {8192, None}


LATENT: dict[str, LatentAttention] = {
    "DeepSeek-V3": LatentAttention(128, 512, 64, 128, 128, q_lora_rank=1536),
    "DeepSeek-V3.2": LatentAttention(128, 512, 64, 128, 128, q_lora_rank=1536, index_heads=64, index_head_dim=128),
    "DeepSeek-V2-Lite": LatentAttention(16, 512, 64, 128, 128),
    "Kimi-K2-Instruct": LatentAttention(64, 512, 64, 128, 128, q_lora_rank=1536),
    "Mistral-Small-4-119B-2603": LatentAttention(32, 256, 64, 64, 128, q_lora_rank=1024),
}


@pytest.mark.parametrize("name", LATENT)
def test_latent_attention(name: str, model):
    shape = model(name)
    assert set(shape.mixers) == {LATENT[name]}
    assert (shape.latent, shape.hybrid, shape.sparse) == (True, False, True)


RECURRENT: dict[str, Recurrent] = {
    "Qwen3-Next-80B-A3B-Instruct": Recurrent("gdn", 16, 128, 32, 128, 4),
    "granite-4.0-h-small": Recurrent("mamba2", 1, 128, 128, 64, 4),
    "NVIDIA-Nemotron-Nano-9B-v2": Recurrent("mamba2", 8, 128, 128, 80, 4),
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": Recurrent("mamba2", 8, 128, 64, 64, 4),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_states(name: str, model):
    shape = model(name)
    assert {mixer for mixer in shape.mixers if isinstance(mixer, Recurrent)} == {RECURRENT[name]}
    assert (shape.latent, shape.hybrid) == (False, True)


def test_the_widths_that_follow_from_a_state():
    state = Recurrent("mamba2", key_heads=8, key_dim=128, value_heads=128, value_dim=80, kernel=4)
    assert (state.inner, state.conv_width) == (10240, 12288)


EXPERTS: dict[str, Moe] = {
    "Mixtral-8x7B-v0.1": Moe(8, 2, 14336),
    "Qwen3-30B-A3B": Moe(128, 8, 768),
    "Qwen1.5-MoE-A2.7B": Moe(60, 4, 1408, shared=5632, shared_gate=True),
    "Qwen3-Next-80B-A3B-Instruct": Moe(512, 10, 512, shared=512, shared_gate=True),
    "DeepSeek-V3": Moe(256, 8, 2048, shared=2048, correction=True),
    "DeepSeek-V2-Lite": Moe(64, 6, 1408, shared=2 * 1408),
    "GLM-4.5-Air": Moe(128, 8, 1408, shared=1408, correction=True),
    "Llama-4-Scout-17B-16E-Instruct": Moe(16, 1, 8192, shared=8192),
    "granite-4.0-h-small": Moe(72, 10, 768, shared=1536),
    "MiniMax-M2": Moe(256, 8, 1536, correction=True),
    "gpt-oss-20b": Moe(32, 4, 2880, bias=True, router_bias=True),
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": Moe(128, 6, 1856, shared=3712, gated=False),
}


@pytest.mark.parametrize("name", EXPERTS)
def test_experts(name: str, model):
    shape = model(name)
    assert {layer.mlp for layer in shape.layers if isinstance(layer.mlp, Moe)} == {EXPERTS[name]}
    assert shape.sparse


@pytest.mark.parametrize(
    ("name", "heads", "kv_heads", "head_dim"),
    [
        ("falcon-7b", 71, 1, 64),  # multi_query, names of the first revision
        ("falcon-7b-instruct", 71, 1, 64),  # multi_query, names of today
        ("glm-4-9b-chat", 32, 2, 128),  # multi_query_group_num, kv_channels
        ("Llama-2-7b-chat-hf", 32, 32, 128),  # no num_key_value_heads needed
        ("Mistral-Nemo-Instruct-2407", 32, 8, 128),  # head_dim is not hidden / heads
        ("gemma-7b", 16, 16, 256),
        ("phi-4", 40, 10, 128),
    ],
)
def test_heads(name: str, heads: int, kv_heads: int, head_dim: int, model):
    assert {(mixer.heads, mixer.kv_heads, mixer.head_dim) for mixer in model(name).mixers} == {
        (heads, kv_heads, head_dim)
    }


def test_the_chatglm_layout(model):
    shape = model("glm-4-9b-chat")
    assert (len(shape.layers), shape.vocabulary, shape.max_positions, shape.layers[0].mlp) == (
        40, 151552, 131072, Mlp(13696),
    )  # fmt: skip
    assert shape.mixers[0].bias
    assert not shape.mixers[0].output_bias


def test_the_first_falcon_layout(model):
    old, new = model("falcon-7b"), model("falcon-7b-instruct")
    assert (old.layers, old.hidden, old.vocabulary) == (new.layers, new.hidden, new.vocabulary)
    assert old.layers[0].mlp == Mlp(4 * 4544, gated=False)


@pytest.mark.parametrize(
    ("name", "bias", "output_bias", "norms", "qk_norm"),
    [
        ("Llama-3.1-8B-Instruct", False, False, 2, (0, 0)),
        ("Qwen2.5-7B-Instruct", True, False, 2, (0, 0)),
        ("Qwen3-8B", False, False, 2, (128, 128)),
        ("gemma-2-9b-it", False, False, 4, (0, 0)),
        ("gemma-3-1b-it", False, False, 4, (256, 256)),
        ("c4ai-command-r-v01", False, False, 1, (0, 0)),
        ("OLMo-2-1124-7B-Instruct", False, False, 2, (4096, 4096)),
        ("MiniMax-M2", False, False, 2, (48 * 128, 8 * 128)),
        ("gpt-oss-20b", True, True, 2, (0, 0)),
        ("GLM-4.5-Air", True, False, 2, (0, 0)),
        ("GLM-4-9B-0414", True, False, 4, (0, 0)),
        ("phi-2", True, True, 1, (0, 0)),
    ],
)
def test_what_only_the_code_of_a_family_says(
    name: str, bias: bool, output_bias: bool, norms: int, qk_norm: tuple[int, int], model
):
    shape = model(name)
    mixer = first(shape, Attention)
    assert (mixer.bias, mixer.output_bias, mixer.qk_norm) == (bias, output_bias, qk_norm)
    assert {layer.norms for layer in shape.layers} == {norms}


def test_gates_and_sinks_of_attention(model):
    assert first(model("Qwen3-Next-80B-A3B-Instruct"), Attention).gated
    assert first(model("gpt-oss-20b"), Attention).sinks
    plain = first(model("Llama-3.1-8B-Instruct"), Attention)
    assert (plain.gated, plain.sinks) == (False, False)


# --- the same in small ---------------------------------------------------------------------------------

MAMBA = {"mamba_d_state": 16, "num_hidden_layers": 8}
GDN = {
    "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_num_value_heads": 4, "linear_value_head_dim": 16,
    "num_hidden_layers": 8,
}  # fmt: skip
SIX = {"num_hidden_layers": 6, "sliding_window": 64}
SMALL: dict[str, tuple[dict[str, Any], str]] = {
    "Mistral-7B-v0.1: every layer has the window": ({"model_type": "mistral", "sliding_window": 4096}, "SS"),
    "Mixtral with a window": ({"model_type": "mixtral", "sliding_window": 4096}, "SS"),
    "Mistral without a window": ({"model_type": "mistral", "sliding_window": None}, "FF"),
    "a window that is switched off": (
        {"model_type": "mistral", "sliding_window": 64, "use_sliding_window": False}, "FF",
    ),
    "Qwen2: a window that is switched off": (SIX | {"model_type": "qwen2", "use_sliding_window": False}, "FFFFFF"),
    "Qwen2: a window that is not switched on": (SIX | {"model_type": "qwen2"}, "FFFFFF"),
    "Qwen2: layers from max_window_layers on": (
        SIX | {"model_type": "qwen2", "use_sliding_window": True, "max_window_layers": 4}, "FFFFSS",
    ),
    "Gemma 2": (SIX | {"model_type": "gemma2"}, "SFSFSF"),
    "Gemma 3: a period of its own": (SIX | {"model_type": "gemma3_text", "sliding_window_pattern": 3}, "SSFSSF"),
    "Gemma 3: the usual period": (SIX | {"model_type": "gemma3_text"}, "SSSSSF"),
    "layer types come first": (
        {"model_type": "mistral", "sliding_window": 64, "layer_types": ["full_attention", "sliding_attention"]}, "FS",
    ),
    "chunks, every fourth layer whole": (
        {"attention_chunk_size": 64, "num_hidden_layers": 5}, "CCCFC",
    ),
    "chunks, a period of its own": (
        {"attention_chunk_size": 64, "num_hidden_layers": 5, "no_rope_layer_interval": 2}, "CFCFC",
    ),
    "Qwen3-Next: an interval": (GDN | {"model_type": "qwen3_next", "full_attention_interval": 4}, "RRRFRRRF"),
    "Jamba: a period and an offset": (
        MAMBA | {"model_type": "jamba", "attn_layer_period": 4, "attn_layer_offset": 1}, "RFRRRFRR",
    ),
    "Bamba: numbers of layers": (MAMBA | {"model_type": "bamba", "attn_layer_indices": [0, 7]}, "FRRRRRRF"),
    "LFM2: numbers of layers": (
        {"model_type": "lfm2", "num_hidden_layers": 4, "full_attn_idxs": [2], "conv_L_cache": 3}, "RRFR",
    ),
    "granite: layers_block_type": (
        {"model_type": "granitemoehybrid", "layers_block_type": ["mamba", "attention"], "mamba_d_state": 16}, "RF",
    ),
    "Mamba": ({"model_type": "mamba", "state_size": 16}, "RR"),
    "Nemotron-H: letters": (
        {"model_type": "nemotron_h", "hybrid_override_pattern": "M*-E", "num_hidden_layers": 4, "ssm_state_size": 16,
         "mamba_num_heads": 4, "n_routed_experts": 4}, "RF..",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SMALL.values(), ids=SMALL)
def test_which_mixer_stands_where(case: tuple[dict[str, Any], str], parse):
    changes, expected = case
    assert row(parse(**changes)) == expected


MOE = {"num_experts": 4, "num_hidden_layers": 6, "moe_intermediate_size": 64}
SPARSE: dict[str, tuple[dict[str, Any], str]] = {
    "every layer": (MOE, "EEEEEE"),
    "one expert is no mixture": (MOE | {"num_experts": 1}, "DDDDDD"),
    "dense layers in front": (MOE | {"first_k_dense_replace": 2}, "DDEEEE"),
    "every second": (MOE | {"decoder_sparse_step": 2}, "DEDEDE"),
    "Llama 4: every second": (MOE | {"interleave_moe_layer_step": 2}, "DEDEDE"),
    "dense ones by number": (MOE | {"mlp_only_layers": [0, 3]}, "DEEDEE"),
    "sparse ones by number": (MOE | {"moe_layers": [1, 5]}, "DEDDDE"),
    "Jamba: a period and an offset": (MOE | {"expert_layer_period": 3, "expert_layer_offset": 0}, "EDDEDD"),
}


@pytest.mark.parametrize("case", SPARSE.values(), ids=SPARSE)
def test_which_layers_are_mixtures_of_experts(case: tuple[dict[str, Any], str], parse):
    changes, expected = case
    shape = parse(**changes)
    assert parts(shape) == expected
    assert {part.intermediate for layer in shape.layers if isinstance(part := layer.mlp, Moe)} <= {64}
    assert {part.intermediate for layer in shape.layers if isinstance(part := layer.mlp, Mlp)} <= {1024}


def test_llama_4_keeps_the_width_of_dense_layers_apart(parse):
    shape = parse(
        model_type="llama4_text", num_local_experts=4, intermediate_size_mlp=2048, interleave_moe_layer_step=2
    )
    assert shape.layers[0].mlp == Mlp(2048)
    assert shape.layers[1].mlp == Moe(4, 1, 1024, shared=1024)


def test_a_list_of_widths_has_one_a_layer(parse):
    shape = parse(num_hidden_layers=3, intermediate_size=[512, 256, 512])
    assert [layer.mlp for layer in shape.layers] == [Mlp(512), Mlp(256), Mlp(512)]


def test_falcon_has_one_pair_of_heads_only_in_its_first_architecture(parse):
    multi = {"model_type": "falcon", "multi_query": True, "num_kv_heads": 2}
    assert parse(**multi).mixers[0].kv_heads == 1
    assert parse(**multi, new_decoder_architecture=True).mixers[0].kv_heads == 2
    assert parse(model_type="falcon", multi_query=False).mixers[0].kv_heads == 4


def test_a_width_that_an_ungated_family_leaves_out_is_four_times_the_hidden_one(parse):
    assert parse(model_type="falcon", intermediate_size=None).layers[0].mlp == Mlp(2048, gated=False)


def test_a_mamba_of_the_first_kind_has_no_heads(parse):
    shape = parse(model_type="falcon_mamba", state_size=16, expand=2, conv_kernel=4, intermediate_size=1024)
    assert set(shape.mixers) == {Recurrent("mamba1", 0, 16, 1024, 1, 4)}


def test_shared_caches_are_the_last_layers(parse):
    shape = parse(model_type="gemma3n_text", sliding_window=64, num_hidden_layers=6, num_kv_shared_layers=2)
    assert [(kind, len(list(run))) for kind, run in groupby(mixer.cache for mixer in shape.mixers)] == [
        (True, 4),
        (False, 2),
    ]
