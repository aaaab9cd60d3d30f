"""config.json: what it says outside the layers, and what is refused."""

from __future__ import annotations

import json
import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelberth.base.errors import UsageError
from modelberth.checkpoint.config import MAX_COUNT, parse_config
from modelberth.checkpoint.derived import derived_tensors
from modelberth.checkpoint.shape import Attention, Layer, Mlp, ModelShape, Vision

DENSE = Layer(Attention(heads=4, kv_heads=4, head_dim=128, value_dim=128), Mlp(1024))


def test_what_is_not_said_has_the_default_of_the_architecture(parse):
    assert parse() == ModelShape(
        architecture="LlamaForCausalLM",
        layers=(DENSE, DENSE),
        hidden=512,
        vocabulary=1000,
        max_positions=2048,
        dtype="bfloat16",
        precision="bf16",
        rotary_dim=128,
        rotary_positions=2048,
    )


@pytest.mark.parametrize("variant", ["bf16", "w4a16"])
def test_the_shape_of_the_harbor_model(variant: str, harbor: Path):
    shape = parse_config((harbor / "weights" / variant / "config.json").read_bytes())
    layer = Layer(Attention(heads=4, kv_heads=2, head_dim=64, value_dim=64), Mlp(512))
    assert shape.layers == (layer,) * 3
    assert (shape.architecture, shape.hidden, shape.vocabulary) == ("MistralForCausalLM", 256, 1024)
    assert (shape.max_positions, shape.dtype, shape.precision) == (1024, "bfloat16", variant)
    assert (shape.quantization is None) == (variant == "bf16")


def test_equal_layers_are_one_object(parse):
    layers = parse(num_hidden_layers=100).layers
    assert len(layers) == 100
    assert len({id(layer) for layer in layers}) == 1


# --- where a fact stands -------------------------------------------------------------------------------

SEES = {"architectures": ["SeesForCausalLM"], "num_hidden_layers": 99, "quantization_config": None}


@pytest.mark.parametrize("key", ["text_config", "llm_config", "language_config"])
def test_the_text_part_of_a_model_that_sees_is_what_counts(key: str, least: dict[str, Any]):
    text = {name: value for name, value in least.items() if name != "architectures"}
    nested = SEES | {key: text | {"dtype": "float16", "quantization_config": {"quant_method": "awq"}}}
    shape = parse_config(json.dumps(nested).encode())
    assert (shape.architecture, len(shape.layers)) == ("SeesForCausalLM", 2)
    assert (shape.dtype, shape.precision) == ("float16", "awq")


def test_a_model_that_also_speaks_keeps_its_decoder_in_the_thinker(least: dict[str, Any]):
    text = {name: value for name, value in least.items() if name != "architectures"}
    shape = parse_config(json.dumps(SEES | {"thinker_config": {"text_config": text}}).encode())
    assert (len(shape.layers), shape.hidden) == (2, 512)


def test_a_nested_config_leaves_out_what_its_class_has_by_default():
    # transformers writes a nested config as its difference from the class's defaults.
    nested = {"architectures": ["LlavaForConditionalGeneration"], "model_type": "llava", "text_config": {"x": 1}}
    shape = parse_config(json.dumps(nested | {"text_config": {"model_type": "llama"}}).encode())
    assert (len(shape.layers), shape.hidden, shape.vocabulary, shape.max_positions) == (32, 4096, 32000, 2048)
    assert parse_config(json.dumps(nested).encode()).layers == shape.layers


def test_a_vocabulary_beside_the_text_part_is_taken(least: dict[str, Any]):
    text = {name: value for name, value in least.items() if name != "vocab_size"}
    nested = {"architectures": ["A"], "vocab_size": 777, "text_config": text}
    assert parse_config(json.dumps(nested).encode()).vocabulary == 777


@pytest.mark.parametrize(
    ("changes", "dtype", "label", "element_bytes"),
    [
        ({"torch_dtype": "float16"}, "float16", "fp16", 2),
        ({"torch_dtype": "torch.float32"}, "float32", "fp32", 4),
        ({"torch_dtype": "half"}, "half", "fp16", 2),
        ({"torch_dtype": "float"}, "float", "fp32", 4),
        ({"dtype": "bfloat16", "torch_dtype": "float16"}, "bfloat16", "bf16", 2),
        ({"torch_dtype": None}, "bfloat16", "bf16", 2),
        ({"torch_dtype": "auto"}, "bfloat16", "bf16", 2),
        ({"torch_dtype": ["float16"]}, "bfloat16", "bf16", 2),
        ({"quantization_config": {"quant_method": "gptq"}}, "float16", "gptq", 2),
        ({"quantization_config": {"quant_method": "awq"}}, "float16", "awq", 2),
        ({"quantization_config": {"quant_method": ["gptq"]}}, "bfloat16", "['gptq']", 2),
    ],
    ids=json.dumps,
)
def test_dtypes(changes: dict[str, Any], dtype: str, label: str, element_bytes: int, parse):
    shape = parse(**changes)
    assert (shape.dtype, shape.precision, shape.dtype_bytes) == (dtype, label, element_bytes)


@pytest.mark.parametrize(
    ("changes", "tied"),
    [
        ({}, False),
        ({"tie_word_embeddings": True}, True),
        ({"tie_word_embeddings": False, "model_type": "gemma2"}, False),
        ({"model_type": "gemma2"}, True),
        ({"tie_word_embeddings": None, "model_type": "granite"}, True),
    ],
    ids=json.dumps,
)
def test_embeddings_are_tied_where_the_config_or_else_the_family_says_so(changes: dict[str, Any], tied: bool, parse):
    assert parse(**changes).tied is tied


def test_the_wrapper_says_whether_embeddings_are_tied_where_the_text_part_does_not(least: dict[str, Any]):
    nested = {"architectures": ["A"], "tie_word_embeddings": True, "text_config": least}
    assert parse_config(json.dumps(nested).encode()).tied
    inner = nested | {"text_config": least | {"tie_word_embeddings": False}}
    assert not parse_config(json.dumps(inner).encode()).tied


def test_a_model_type_that_is_not_known_is_taken_as_a_llama_and_said(parse):
    shape = parse(model_type="newcomer")
    assert shape.layers == (DENSE, DENSE)
    assert shape.unknown == ("the model type 'newcomer' is not known here: taken as a Llama-like decoder",)
    nameless = parse(model_type=None)
    assert nameless.unknown == ("the model type 'LlamaForCausalLM' is not known here: taken as a Llama-like decoder",)
    assert parse().unknown == ()


@pytest.mark.parametrize("kind", ["falcon_h1", "zamba2", "minimax_text_01", "recurrent_gemma"])
def test_layers_that_are_not_modelled_are_said(kind: str, parse):
    assert (
        f"layers of '{kind}' are not modelled: the figures are those of plain attention"
        in parse(model_type=kind).unknown
    )


# --- the context ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stated", ["max_position_embeddings", "n_positions", "max_seq_len", "seq_length"])
def test_the_context_goes_by_four_names(stated: str, least: dict[str, Any]):
    config = {key: value for key, value in least.items() if key != "max_position_embeddings"} | {stated: 777}
    shape = parse_config(json.dumps(config).encode())
    assert (shape.max_positions, shape.rotary_positions, shape.notes) == (777, 777, ())


def test_a_context_that_is_not_stated_is_the_one_that_vllm_assumes(parse):
    shape = parse(max_position_embeddings=None)
    assert (shape.max_positions, shape.rotary_positions) == (2048, 2048)
    assert shape.notes == ("'max_position_embeddings' is missing: 2,048 is assumed, as vLLM does",)


YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 1000}

# The config, the context, the rows of the rotary table.
SCALINGS: dict[str, tuple[dict[str, Any], int, int]] = {
    "none": ({"rope_scaling": None}, 2048, 2048),
    "yarn": ({"rope_scaling": YARN}, 4000, 4000),
    "yarn by its older key": ({"rope_scaling": YARN | {"rope_type": None, "type": "yarn"}}, 4000, 4000),
    "yarn of transformers 5": ({"rope_parameters": YARN}, 4000, 4000),
    "yarn without an original": ({"rope_scaling": {"rope_type": "yarn", "factor": 2}}, 4096, 4096),
    "linear": ({"rope_scaling": {"type": "linear", "factor": 2.5}}, 5120, 5120),
    "dynamic": ({"rope_scaling": {"type": "dynamic", "factor": 2}}, 4096, 4096),
    "llama3, whose context is stated": ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, 2048, 2048),
    "longrope, whose context is stated": ({"rope_scaling": {"rope_type": "longrope", "factor": 32}}, 2048, 2048),
    "linear of Gemma 3, whose context is stated": (
        {"model_type": "gemma3_text", "rope_scaling": {"rope_type": "linear", "factor": 8.0}}, 2048, 16384,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SCALINGS.values(), ids=SCALINGS)
def test_the_context_that_an_engine_derives(case: tuple[dict[str, Any], int, int], parse):
    changes, longest, rows = case
    shape = parse(**changes)
    assert (shape.max_positions, shape.rotary_positions) == (longest, rows)


@pytest.mark.parametrize(
    ("name", "longest"),
    [
        ("DeepSeek-V3", 163840),  # YaRN: 40 x 4096
        ("gpt-oss-20b", 131072),  # YaRN: 32 x 4096
        ("Mistral-Small-4-119B-2603", 1048576),  # YaRN: 128 x 8192
        ("Llama-3.1-8B-Instruct", 131072),  # llama3: stated
        ("gemma-3-27b-it", 131072),  # linear, 8: stated all the same
        ("Phi-4-mini-instruct", 131072),  # longrope: stated
        ("glm-4-9b-chat", 131072),  # seq_length
        ("falcon-7b", 2048),  # assumed
        # Cohere's limit is model_max_length, which vLLM takes before all others (vllm/config/model.py).
        ("c4ai-command-r-v01", 131072),
    ],
)
def test_the_context_of_real_models(name: str, longest: int, model):
    assert model(name).max_positions == longest


@pytest.mark.parametrize(
    ("changes", "width"),
    [
        ({}, 128),
        ({"head_dim": 64}, 64),
        ({"partial_rotary_factor": 0.5}, 64),
        ({"rope_parameters": {"partial_rotary_factor": 0.25}, "partial_rotary_factor": 0.5}, 32),
        ({"model_type": "opt"}, 0),
        ({"model_type": "nemotron_h"}, 0),
        ({"model_type": "deepseek_v3", "kv_lora_rank": 512, "qk_rope_head_dim": 64}, 64),
    ],
    ids=json.dumps,
)
def test_the_width_of_rotary_positions(changes: dict[str, Any], width: int, parse):
    assert parse(**changes).rotary_dim == width


def test_a_table_of_learned_positions(parse):
    assert parse(model_type="opt").learned_positions == 2050
    assert parse(model_type="gpt2").learned_positions == 2048
    assert parse().learned_positions == 0


@pytest.mark.parametrize(
    ("changes", "dtype"),
    [
        ({}, None),
        ({"mamba_ssm_cache_dtype": "float32"}, "float32"),
        ({"mamba_ssm_dtype": "bfloat16"}, "bfloat16"),
        ({"mamba_ssm_dtype": "int4"}, None),
        ({"mamba_ssm_dtype": ["float32"]}, None),
    ],
    ids=json.dumps,
)
def test_the_dtype_of_recurrent_states(changes: dict[str, Any], dtype: str | None, parse):
    assert parse(**changes).state_dtype == dtype


# --- the tower -----------------------------------------------------------------------------------------

TOWER = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 200}


@pytest.mark.parametrize(
    ("tower", "expected"),
    [
        (TOWER, Vision(3, 64, 200, 4, 14, 0, 512)),
        (TOWER | {"patch_size": 16, "image_size": 320}, Vision(3, 64, 200, 4, 16, 320, 512)),
        (
            TOWER | {"out_hidden_size": 99, "spatial_merge_size": 2, "temporal_patch_size": 2},
            Vision(3, 64, 200, 4, 14, 0, 99, merge=2, temporal=2),
        ),
        (TOWER | {"model_type": "pixtral"}, Vision(3, 64, 200, 4, 14, 0, 512, gated=True)),
        # Qwen2-VL: its own width is embed_dim, the decoder's is hidden_size.
        ({"depth": 3, "embed_dim": 64, "hidden_size": 512, "num_heads": 4}, Vision(3, 64, 256, 4, 14, 0, 512)),
        ({"depth": 3, "hidden_size": 64, "mlp_ratio": 2.5, "num_heads": 4}, Vision(3, 64, 160, 4, 14, 0, 512)),
        ({"architecture": "mobilenetv5_300m_enc", "hidden_size": 2048}, None),
        ({}, None),
        (None, None),
        ([1], None),
    ],
    ids=repr,
)
def test_the_tower_of_a_model_that_sees(tower: Any, expected: Vision | None, parse):
    assert parse(vision_config=tower).vision == expected


def test_a_tower_with_a_number_that_is_no_count_is_refused(parse):
    with pytest.raises(UsageError) as caught:
        parse(vision_config=TOWER | {"patch_size": -14})
    assert caught.value.why == "'patch_size' is -14, expected a count"


# --- what is refused -----------------------------------------------------------------------------------

COUNTS = ["num_hidden_layers", "num_attention_heads", "hidden_size", "intermediate_size", "vocab_size"]


def refusal(content: bytes, hf_quant_config: bytes | None = None, where: str = "config.json") -> str:
    with pytest.raises(UsageError) as caught:
        parse_config(content, hf_quant_config)
    assert caught.value.exit_code == 2
    assert (caught.value.what, caught.value.where) == (f"{where} does not describe a model", where)
    return caught.value.why


@pytest.mark.parametrize("key", COUNTS)
def test_a_number_that_is_missing_is_refused(key: str, least: dict[str, Any]):
    without = {name: value for name, value in least.items() if name != key}
    assert refusal(json.dumps(without).encode()) == f"'{key}' is null, expected a count"


WRONG = [-1, 1.5, True, "32", [32], {"a": 1}, float("nan"), float("inf"), -float("inf"), MAX_COUNT + 1, 1e300, 10**400]


@pytest.mark.parametrize("key", [*COUNTS, "max_position_embeddings", "num_key_value_heads", "head_dim"])
@pytest.mark.parametrize("value", WRONG, ids=lambda value: json.dumps(value)[:12])
def test_a_number_that_is_no_count_is_refused(key: str, value: Any, least: dict[str, Any]):
    why = refusal(json.dumps(least | {key: value}).encode())
    if key == "intermediate_size" and isinstance(value, list):
        assert why == "'intermediate_size' does not give one width for each of 2 layers"
        return
    assert why.startswith(f"'{key}' is ")
    assert why.endswith(", expected a count")


@pytest.mark.parametrize("key", [*COUNTS, "num_key_value_heads", "head_dim"])
def test_nothing_of_something_that_must_be_there_is_refused(key: str, least: dict[str, Any]):
    assert refusal(json.dumps(least | {key: 0}).encode()) == f"'{key}' is 0, expected a count"


def test_the_largest_count_and_whole_fractions_are_taken(parse):
    assert parse(max_position_embeddings=MAX_COUNT).max_positions == MAX_COUNT
    assert parse(max_position_embeddings=2048.0).max_positions == 2048


@pytest.mark.parametrize("number", [10_001, MAX_COUNT])
def test_more_layers_than_a_model_can_have_are_refused_before_they_are_built(number: int, least: dict[str, Any]):
    assert refusal(json.dumps(least | {"num_hidden_layers": number}).encode()) == (
        f"'num_hidden_layers' is {number}; at most 10,000 are believed"
    )


def test_the_most_layers_that_are_taken(parse):
    assert len(parse(num_hidden_layers=10_000).layers) == 10_000


BOM = "it starts with a byte order mark, which engines refuse too; save it as UTF-8 without one"
LIES: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "its JSON cannot be read"),
    "not UTF-8": (b'{"a": "\xff"}', "its JSON cannot be read"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "its JSON cannot be read"),
    "nested deeply": (b'{"a":' * 100_000, "its JSON cannot be read"),
    "number of 5,000 digits": (b'{"a": ' + b"9" * 5000 + b"}", "its JSON cannot be read"),
    "two values": (b"{}{}", "its JSON cannot be read"),
    "list": (b"[]", "its JSON is not an object"),
    "null": (b"null", "its JSON is not an object"),
    "key twice": (b'{"a": 1, "b": 2, "a": 1}', "the key 'a' stands twice in its JSON"),
    "key twice, written in two ways": (b'{"a": 1, "\\u0061": 2}', "the key 'a' stands twice in its JSON"),
    "key twice inside": (b'{"x": {"a": 1, "a": 1}}', "the key 'a' stands twice in its JSON"),
    "long key twice": (
        b'{"%(k)s": 1, "%(k)s": 1}' % {b"k": b"k" * 99}, f"the key '{'k' * 60}' stands twice in its JSON",
    ),
    "byte order mark": (b"\xef\xbb\xbf{}", BOM),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_what_is_no_config_is_refused(lie: tuple[bytes, str]):
    content, why = lie
    assert refusal(content) == why


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_an_hf_quant_config_that_is_none_is_refused_by_its_own_name(lie: tuple[bytes, str], least: dict[str, Any]):
    content, why = lie
    assert refusal(json.dumps(least).encode(), content, "hf_quant_config.json") == why


NO_CLASS = "'architectures' names no model class"
COMPRESSED = {"quant_method": "compressed-tensors"}
INT4 = {"num_bits": 4, "type": "int"}


def compressed(groups: Any) -> dict[str, Any]:
    return {"quantization_config": COMPRESSED | {"config_groups": groups}}


ODD: dict[str, tuple[dict[str, Any], str]] = {
    "no architecture": ({"architectures": None}, NO_CLASS),
    "architecture as text": ({"architectures": "LlamaForCausalLM"}, NO_CLASS),
    "architecture that is a number": ({"architectures": [1]}, NO_CLASS),
    "no architectures": ({"architectures": []}, NO_CLASS),
    "more heads than width": ({"num_attention_heads": 1024}, "'head_dim' is 0, expected a count"),
    "latent rank as text": ({"kv_lora_rank": "512"}, "'kv_lora_rank' is \"512\", expected a count"),
    "latent rank that is true": ({"kv_lora_rank": True}, "'kv_lora_rank' is true, expected a count"),
    "latent rank alone": ({"kv_lora_rank": 512}, "'qk_rope_head_dim' is null, expected a count"),
    "tie that is a number": ({"tie_word_embeddings": 1}, "'tie_word_embeddings' is 1, expected true or false"),
    "bias that is text": ({"attention_bias": "yes"}, "'attention_bias' is \"yes\", expected true or false"),
    "rope scaling as text": ({"rope_scaling": "yarn"}, "'rope_scaling' is no mapping"),
    "rope parameters as a list": ({"rope_parameters": [1]}, "'rope_parameters' is no mapping"),
    "factor as text": (
        {"rope_scaling": {"type": "linear", "factor": "2"}}, "'factor' is \"2\", expected a number",
    ),
    "factor below nothing": ({"rope_scaling": {"type": "yarn", "factor": -1}}, "'factor' is -1, expected a number"),
    "factor that is no number": (
        {"rope_scaling": {"type": "yarn", "factor": float("nan")}}, "'factor' is NaN, expected a number",
    ),
    "factor without end": (
        {"rope_scaling": {"type": "yarn", "factor": float("inf")}}, "'factor' is Infinity, expected a number",
    ),
    "layer types for too many layers": (
        {"layer_types": ["full_attention"] * 3}, "'layer_types' does not name one type for each of 2 layers",
    ),
    "layer types for too few layers": (
        {"layer_types": ["full_attention"]}, "'layer_types' does not name one type for each of 2 layers",
    ),
    "layer types by their older name": (
        {"layers_block_type": ["attention"]}, "'layer_types' does not name one type for each of 2 layers",
    ),
    "layer types as text": ({"layer_types": "full_attention"}, "'layer_types' is no list of names"),
    "layer types as numbers": ({"layer_types": [1, 2]}, "'layer_types' is no list of names"),
    "a window without a width": (
        {"layer_types": ["sliding_attention"] * 2}, "'sliding_window' is null, expected a count",
    ),
    "a chunk without a width": (
        {"layer_types": ["chunked_attention"] * 2}, "'attention_chunk_size' is null, expected a count",
    ),
    "letters for too many layers": (
        {"hybrid_override_pattern": "M*-"},
        "'hybrid_override_pattern' does not name one layer type for each of 2 layers",
    ),
    "letters for too few layers": (
        {"hybrid_override_pattern": ""}, "'hybrid_override_pattern' does not name one layer type for each of 2 layers",
    ),
    "a letter that is none": (
        {"hybrid_override_pattern": "*X"},
        "'hybrid_override_pattern' does not name one layer type for each of 2 layers",
    ),
    "blocks for too few layers": (
        {"block_configs": [{}]}, "'block_configs' does not describe each of 2 layers",
    ),
    "blocks for too many layers": (
        {"block_configs": [{}] * 3}, "'block_configs' does not describe each of 2 layers",
    ),
    "a block that is a number": ({"block_configs": [{}, 1]}, "'block_configs' does not describe each of 2 layers"),
    "a block's attention as a list": ({"block_configs": [{}, {"attention": [1]}]}, "'attention' is no mapping"),
    "widths for too few layers": (
        {"intermediate_size": [512]}, "'intermediate_size' does not give one width for each of 2 layers",
    ),
    "widths for too many layers": (
        {"intermediate_size": [512] * 3}, "'intermediate_size' does not give one width for each of 2 layers",
    ),
    "a width of nothing": (
        {"intermediate_size": [512, 0]}, "'intermediate_size' does not give one width for each of 2 layers",
    ),
    "a width that is true": (
        {"intermediate_size": [512, True]}, "'intermediate_size' does not give one width for each of 2 layers",
    ),
    "quantisation as a list": ({"quantization_config": ["awq"]}, "'quantization_config' is no mapping"),
    "quantisation as text": ({"quantization_config": "awq"}, "'quantization_config' is no mapping"),
    "groups as a list": (compressed([INT4]), "'config_groups' is no mapping"),
    "weights as a number": (compressed({"a": {"weights": 4}}), "'weights' is no mapping"),
    "inputs as a number": (
        compressed({"a": {"weights": INT4, "input_activations": 8}}), "'input_activations' is no mapping",
    ),
    "a group without bits": (
        compressed({"a": {"weights": {}}}), "'config_groups' has a group without a number of bits",
    ),
    "a group of no bits": (
        compressed({"a": {"weights": {"num_bits": 0}}}), "'config_groups' has a group without a number of bits",
    ),
    "a group of true bits": (
        compressed({"a": {"weights": {"num_bits": True}}}), "'config_groups' has a group without a number of bits",
    ),
    "ignored modules as text": (
        {"quantization_config": {"quant_method": "awq", "modules_to_not_convert": "lm_head"}},
        "'modules_to_not_convert' is no list of names",
    ),
    "ignored modules as numbers": (
        {"quantization_config": COMPRESSED | {"config_groups": {"a": {"weights": INT4}}, "ignore": [1]}},
        "'ignore' is no list of names",
    ),
}  # fmt: skip


@pytest.mark.parametrize("lie", ODD.values(), ids=ODD)
def test_values_that_contradict_each_other_are_refused(lie: tuple[dict[str, Any], str], least: dict[str, Any]):
    changes, why = lie
    assert refusal(json.dumps(least | changes).encode()) == why


HUGE = 10**400
MAMBA = {"layer_types": ["mamba"] * 2, "mamba_d_state": 16}

# Each once ended in a TypeError, an OverflowError, a size of no machine, or a size below nothing.
EXTREME: dict[str, dict[str, Any]] = {
    "model type as a list": {"model_type": ["llama"]},
    "model type as a mapping": {"model_type": {}},
    "YaRN beyond a float": {"rope_scaling": {"rope_type": "yarn", "factor": 1e308}},
    "linear beyond a float": {"rope_scaling": {"rope_type": "linear", "factor": 1e308}},
    "factor of 400 digits": {"rope_scaling": {"rope_type": "yarn", "factor": HUGE}},
    "rotary share of 400 digits": {"partial_rotary_factor": HUGE},
    "a block's multiple beyond a float": {
        "block_configs": [{"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 1e308}}] * 2
    },
    "a block's multiple of 300 digits": {
        "block_configs": [{"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 1e305}}] * 2
    },
    "expansion beyond a float": MAMBA | {"mamba_expand": 1e308},
    "state below nothing": MAMBA | {"mamba_n_heads": 4, "mamba_d_head": -64},
    "state of 400 digits": MAMBA | {"mamba_n_heads": 4, "mamba_d_head": HUGE},
    "picture of 400 digits": {"vision_config": {"hidden_size": 64, "depth": 2, "image_size": HUGE}},
    "tower's ratio beyond a float": {"vision_config": {"hidden_size": 64, "depth": 2, "mlp_ratio": 1e308}},
    "widths of 400 digits": {"intermediate_size": [HUGE] * 2},
}


def check_taken_or_refused(content: bytes, hf_quant_config: bytes | None = None) -> None:
    with suppress(UsageError):
        shape = parse_config(content, hf_quant_config)
        assert len(shape.layers) >= 1
        assert min(shape.hidden, shape.vocabulary, shape.max_positions, shape.dtype_bytes) >= 1
        sizes = [group.total_bytes for group in derived_tensors(shape)]
        assert min(sizes) >= 0
        assert 0 < math.fsum(sizes) < math.inf


# A refusal or a sane figure will do.
@pytest.mark.parametrize("changes", EXTREME.values(), ids=EXTREME)
def test_extremes_are_refused_or_have_a_size(changes: dict[str, Any], least: dict[str, Any]):
    check_taken_or_refused(json.dumps(least | changes).encode())


# --- anything at all -----------------------------------------------------------------------------------

numbers = st.integers(-2, 5) | st.floats() | st.sampled_from([MAX_COUNT, MAX_COUNT + 1, 10**30])
plain = st.recursive(
    st.none() | st.booleans() | numbers | st.text(max_size=4) | st.sampled_from(["compressed-tensors", "yarn", "awq"]),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(
                [
                    "quant_method",
                    "config_groups",
                    "weights",
                    "input_activations",
                    "num_bits",
                    "ignore",
                    "bits",
                    "rope_type",
                    "factor",
                    "hidden_size",
                    "depth",
                    "patch_size",
                    "attention",
                    "ffn",
                    "ffn_mult",
                ]
            ),
            inner,
        )
    ),
    max_leaves=6,
)
kinds = st.sampled_from(["llama", "gemma3", "qwen3_next", "deepseek_v3", "gpt_oss", "opt", "nemotron_h", "falcon", "x"])
KEYS = [
    *COUNTS, "architectures", "max_position_embeddings", "num_key_value_heads", "head_dim", "kv_lora_rank",
    "num_experts",
    "quantization_config", "text_config", "thinker_config", "vision_config", "rope_scaling", "rope_parameters", "dtype",
    "torch_dtype", "sliding_window", "use_sliding_window", "layer_types", "hybrid_override_pattern", "block_configs",
    "full_attention_interval", "attn_layer_period", "num_kv_shared_layers", "attention_chunk_size", "mlp_only_layers",
    "moe_layers", "first_k_dense_replace", "tie_word_embeddings", "partial_rotary_factor", "mamba_d_state",
]  # fmt: skip


@settings(max_examples=300)
@given(st.dictionaries(st.sampled_from(KEYS), plain, max_size=4), kinds | plain, st.booleans())
@example({"num_hidden_layers": 1}, "llama", True)
def test_any_config_has_a_size_or_is_a_usage_error(
    least: dict[str, Any], changes: dict[str, Any], kind: Any, nested: bool
):
    inner = least | {"model_type": kind} | changes
    check_taken_or_refused(json.dumps(least | {"text_config": inner} if nested else inner).encode())


@settings(max_examples=150)
@given(st.dictionaries(st.text(max_size=5) | st.sampled_from(KEYS), plain, max_size=5))
def test_any_mapping_is_no_model_as_long_as_it_names_no_class(config: dict[str, Any]):
    config.pop("architectures", None)
    assert refusal(json.dumps(config).encode())


@settings(max_examples=80)
@given(st.binary(max_size=40))
def test_any_bytes_are_a_usage_error(content: bytes):
    with pytest.raises(UsageError):
        parse_config(content)
    check_taken_or_refused(b'{"architectures": ["A"]}', content)
