"""config.json: shapes and precisions of real models, and numbers that cannot be."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelberth.base.errors import IntegrityError
from modelberth.checkpoint.config import MAX_COUNT, MlaShape, ModelShape, parse_config, precision

MLA = MlaShape(kv_lora_rank=512, rope_head_dim=64)
MISTRAL = ("MistralForCausalLM", 40, 32, 8, 128, 5120, 131072, 32768)

# Architecture, layers, heads, KV heads, head width, hidden, vocabulary, positions, dtype, precision, latent attention.
# The numbers are those of the table in the sizing notes, section 5.
MODELS: dict[str, tuple[Any, ...]] = {
    "Mistral-Small-24B-Instruct-2501": (*MISTRAL, "bfloat16", "bf16", None),
    "Mistral-Small-24B-Instruct-2501-quantized.w4a16": (*MISTRAL, "bfloat16", "w4a16", None),
    "granite-3.1-8b-instruct-FP8-dynamic": (
        "GraniteForCausalLM", 40, 32, 8, 128, 4096, 49155, 131072, "bfloat16", "fp8", None,
    ),
    "Qwen2.5-7B-Instruct": ("Qwen2ForCausalLM", 28, 28, 4, 128, 3584, 152064, 32768, "bfloat16", "bf16", None),
    "Qwen3-30B-A3B": ("Qwen3MoeForCausalLM", 48, 32, 4, 128, 2048, 151936, 40960, "bfloat16", "bf16", None),
    "Mixtral-8x7B-v0.1": ("MixtralForCausalLM", 32, 32, 8, 128, 4096, 32000, 32768, "bfloat16", "bf16", None),
    "phi-4": ("Phi3ForCausalLM", 40, 40, 10, 128, 5120, 100352, 16384, "bfloat16", "bf16", None),
    "gemma-3-27b-it": (
        "Gemma3ForConditionalGeneration", 62, 32, 16, 128, 5376, 262208, 131072, "bfloat16", "bf16", None,
    ),
    "gpt-oss-20b": ("GptOssForCausalLM", 24, 64, 8, 64, 2880, 201088, 131072, "bfloat16", "mxfp4", None),
    "DeepSeek-V2-Lite-Chat": (
        "DeepseekV2ForCausalLM", 27, 16, 16, 128, 2048, 102400, 163840, "bfloat16", "bf16", MLA,
    ),
    "DeepSeek-V3": ("DeepseekV3ForCausalLM", 61, 128, 128, 56, 7168, 129280, 163840, "bfloat16", "fp8", MLA),
}  # fmt: skip


@pytest.mark.parametrize("model", MODELS)
def test_the_shape_of_a_real_model(model: str, data_folder: Path):
    content = (data_folder / "model-configs" / f"{model}.json").read_bytes()
    assert parse_config(content) == ModelShape(*MODELS[model])


def test_every_config_is_in_the_table_and_says_where_it_is_from(data_folder: Path):
    found = {path.stem: json.loads(path.read_bytes()) for path in (data_folder / "model-configs").glob("*.json")}
    assert found.keys() == MODELS.keys()
    assert [name for name, config in found.items() if not config["_modelberth_provenance"]["source"]] == []


@pytest.mark.parametrize(("variant", "scheme"), [("bf16", "bf16"), ("w4a16", "w4a16")])
def test_the_shape_of_the_harbor_model(variant: str, scheme: str, harbor: Path):
    content = (harbor / "weights" / variant / "config.json").read_bytes()
    expected = ("MistralForCausalLM", 3, 4, 2, 64, 256, 1024, 1024, "bfloat16", scheme)
    assert parse_config(content) == ModelShape(*expected)


# The least that is read.
LEAST: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "hidden_size": 512,
    "vocab_size": 1000,
    "max_position_embeddings": 2048,
}


def parse(**changes: Any) -> ModelShape:
    return parse_config(json.dumps(LEAST | changes).encode())


def test_what_is_not_said_has_the_default_of_the_architecture():
    assert parse() == ModelShape("LlamaForCausalLM", 2, 4, 4, 128, 512, 1000, 2048, "bfloat16", "bf16")


def test_the_text_part_of_a_model_that_sees_is_what_counts():
    text = {key: value for key, value in LEAST.items() if key != "architectures"}
    vision = {"architectures": ["SeesForCausalLM"], "num_hidden_layers": 99, "quantization_config": None}
    nested = vision | {"text_config": text | {"dtype": "float16", "quantization_config": {"quant_method": "awq"}}}
    shape = parse_config(json.dumps(nested).encode())
    assert (shape.architecture, shape.layers, shape.dtype, shape.precision) == ("SeesForCausalLM", 2, "float16", "awq")


@pytest.mark.parametrize(
    ("changes", "dtype", "label", "element_bytes"),
    [
        ({"torch_dtype": "float16"}, "float16", "fp16", 2),
        ({"torch_dtype": "torch.float32"}, "float32", "fp32", 4),
        ({"dtype": "bfloat16", "torch_dtype": "float16"}, "bfloat16", "bf16", 2),
        ({"torch_dtype": None}, "bfloat16", "bf16", 2),
        ({"torch_dtype": "auto"}, "bfloat16", "bf16", 2),
        ({"torch_dtype": ["float16"]}, "bfloat16", "bf16", 2),
        ({"quantization_config": {"quant_method": "gptq"}}, "float16", "gptq", 2),
        ({"quantization_config": {"quant_method": ["gptq"]}}, "bfloat16", "['gptq']", 2),
    ],
    ids=json.dumps,
)
def test_dtypes(changes: dict[str, Any], dtype: str, label: str, element_bytes: int):
    shape = parse(**changes)
    assert (shape.dtype, shape.precision, shape.dtype_bytes) == (dtype, label, element_bytes)


def group(weights: Any, inputs: Any = None) -> dict[str, Any]:
    return {"weights": weights, "input_activations": inputs}


INT4, INT8 = {"num_bits": 4, "type": "int"}, {"num_bits": 8, "type": "int"}
FLOAT4, FLOAT8 = {"num_bits": 4, "type": "float"}, {"num_bits": 8, "type": "float"}

SCHEMES: dict[str, tuple[dict[str, Any], str]] = {
    "w4a16": ({"a": group(INT4)}, "w4a16"),
    "w8a16": ({"a": group(INT8)}, "w8a16"),
    "w8a8": ({"a": group(INT8, INT8)}, "w8a8"),
    "w4a8": ({"a": group(INT4, INT8)}, "w4a8"),
    "fp8": ({"a": group(FLOAT8, FLOAT8)}, "fp8"),
    "nvfp4": ({"a": group(FLOAT4, FLOAT4)}, "nvfp4"),
    "two groups that agree": ({"a": group(INT4), "b": group(INT4)}, "w4a16"),
    "two groups that differ": ({"a": group(INT4), "b": group(FLOAT8, FLOAT8)}, "mixed"),
    "no groups": ({}, "mixed"),
}


@pytest.mark.parametrize("case", SCHEMES.values(), ids=SCHEMES)
def test_schemes_of_compressed_tensors(case: tuple[dict[str, Any], str]):
    groups, scheme = case
    assert precision({"quant_method": "compressed-tensors", "config_groups": groups}) == scheme


@pytest.mark.parametrize(
    ("method", "scheme"),
    [
        ("awq", "awq"),
        ("GPTQ", "gptq"),
        ("fp8", "fp8"),
        ("mxfp4", "mxfp4"),
        ("modelopt", "fp8"),
        ("bitsandbytes", "bitsandbytes"),
        (None, ""),
    ],
)
def test_other_quantisations_go_by_their_own_name(method: str | None, scheme: str):
    assert precision({"quant_method": method}) == scheme


def test_modelopt_says_which_in_quant_algo():
    assert precision({"quant_method": "modelopt", "quant_algo": "NVFP4"}) == "nvfp4"
    assert precision({"quant_method": "modelopt", "quantization": {"quant_algo": "FP8"}}) == "fp8"


def test_no_quantisation_has_no_name():
    assert precision({}) == ""


# --- what is refused -----------------------------------------------------------------------------------

COUNTS = [key for key in LEAST if key != "architectures"]


def refusal(content: bytes) -> str:
    with pytest.raises(IntegrityError) as caught:
        parse_config(content)
    assert (caught.value.what, caught.value.where) == ("config.json does not describe a model", "config.json")
    return caught.value.why


@pytest.mark.parametrize("key", COUNTS)
def test_a_number_that_is_missing_is_refused(key: str):
    assert refusal(json.dumps({name: LEAST[name] for name in LEAST if name != key}).encode()) == (
        f"'{key}' is null, expected a count"
    )


WRONG = [0, -1, 1.5, True, "32", [32], {"a": 1}, float("nan"), float("inf"), MAX_COUNT + 1, 1e300]


@pytest.mark.parametrize("key", [*COUNTS, "num_key_value_heads", "head_dim"])
@pytest.mark.parametrize("value", WRONG, ids=json.dumps)
def test_a_number_that_is_no_count_is_refused(key: str, value: Any):
    why = refusal(json.dumps(LEAST | {key: value}).encode())
    assert why.startswith(f"'{key}' is ")
    assert why.endswith(", expected a count")


def test_the_largest_count_and_whole_fractions_are_taken():
    assert parse(max_position_embeddings=MAX_COUNT).max_positions == MAX_COUNT
    assert parse(max_position_embeddings=2048.0).max_positions == 2048


LIES: dict[str, tuple[bytes, str]] = {
    "no bytes": (b"", "its JSON cannot be read"),
    "not UTF-8": (b'{"a": "\xff"}', "its JSON cannot be read"),
    "UTF-16": (json.dumps(LEAST).encode("utf-16"), "its JSON cannot be read"),
    "nested deeply": (b'{"a":' * 100_000, "its JSON cannot be read"),
    "number of 5,000 digits": (b'{"a": ' + b"9" * 5000 + b"}", "its JSON cannot be read"),
    "list": (b"[]", "its JSON is not an object"),
    "null": (b"null", "its JSON is not an object"),
    "key twice": (json.dumps(LEAST).encode()[:-1] + b', "vocab_size": 9}', "a key stands twice in its JSON"),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_what_is_no_config_is_refused(lie: tuple[bytes, str]):
    content, why = lie
    assert refusal(content) == why


NO_CLASS = "'architectures' names no model class"
ODD: dict[str, tuple[dict[str, Any], str]] = {
    "no architecture": ({"architectures": None}, NO_CLASS),
    "architecture as text": ({"architectures": "LlamaForCausalLM"}, NO_CLASS),
    "architecture that is a number": ({"architectures": [1]}, NO_CLASS),
    "no architectures": ({"architectures": []}, NO_CLASS),
    "more heads than width": ({"num_attention_heads": 1024}, "'head_dim' is 0, expected a count"),
    "latent rank as text": ({"kv_lora_rank": "512"}, "'kv_lora_rank' is \"512\", expected a count"),
    "latent rank alone": ({"kv_lora_rank": 512}, "'qk_rope_head_dim' is null, expected a count"),
    "quantisation as a list": ({"quantization_config": ["awq"]}, "'quantization_config' is no mapping"),
    "quantisation as text": ({"quantization_config": "awq"}, "'quantization_config' is no mapping"),
    "groups as a list": (
        {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": [INT4]}},
        "'config_groups' is no mapping",
    ),
    "weights as a number": (
        {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"a": group(4)}}},
        "'weights' is no mapping",
    ),
    "inputs as a number": (
        {"quantization_config": {"quant_method": "compressed-tensors", "config_groups": {"a": group(INT4, 8)}}},
        "'input_activations' is no mapping",
    ),
}


@pytest.mark.parametrize("lie", ODD.values(), ids=ODD)
def test_values_that_contradict_each_other_are_refused(lie: tuple[dict[str, Any], str]):
    changes, why = lie
    assert refusal(json.dumps(LEAST | changes).encode()) == why


def test_a_byte_order_mark_is_refused_as_transformers_refuses_it():
    with pytest.raises(IntegrityError):
        parse_config(b"\xef\xbb\xbf" + json.dumps(LEAST).encode())


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4) | st.just("compressed-tensors"),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["quant_method", "config_groups", "weights", "input_activations"]), inner)
    ),
    max_leaves=5,
)
KEYS = [*LEAST, "quantization_config", "text_config", "torch_dtype", "dtype", "kv_lora_rank", "head_dim"]


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), plain, max_size=3), st.booleans())
def test_any_config_has_a_shape_of_counts_or_is_an_integrity_error(changes: dict[str, Any], nested: bool):
    config = LEAST | {"text_config": LEAST | changes} if nested else LEAST | changes
    with suppress(IntegrityError):
        shape = parse_config(json.dumps(config).encode())
        assert min(shape.layers, shape.heads, shape.kv_heads, shape.head_dim, shape.hidden, shape.dtype_bytes) >= 1


@settings(max_examples=80, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_an_integrity_error(content: bytes):
    with pytest.raises(IntegrityError):
        parse_config(content)
