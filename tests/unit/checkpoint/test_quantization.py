"""quantization_config of every layout that checkpoints have: scheme, storage, what is left out, KV cache."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from modelberth.base.errors import UsageError
from modelberth.checkpoint.config import parse_config
from modelberth.checkpoint.quantization import parse_quantization, precision
from modelberth.checkpoint.shape import Quantization, WeightScheme

INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": True}
INT8 = {"num_bits": 8, "type": "int", "strategy": "channel"}
FLOAT4 = {"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}
FLOAT8 = {"num_bits": 8, "type": "float", "strategy": "channel", "dynamic": False}
DYNAMIC8 = {"num_bits": 8, "type": "float", "dynamic": True}
STATIC8 = {"num_bits": 8, "type": "float", "dynamic": False}


def compressed(*groups: tuple[dict[str, Any], dict[str, Any] | None], **more: Any) -> dict[str, Any]:
    """A compressed-tensors config of groups of weights and inputs."""
    listed = {
        f"g{index}": {"weights": weights, "input_activations": inputs} for index, (weights, inputs) in enumerate(groups)
    }
    return {"quant_method": "compressed-tensors", "config_groups": listed, **more}


LAYOUTS: dict[str, tuple[dict[str, Any], str, WeightScheme | None]] = {
    "w4a16": (compressed((INT4, None)), "w4a16", WeightScheme(4, "int", "group", 128)),
    "w4a16 with zero points": (
        compressed((INT4 | {"symmetric": False}, None)), "w4a16", WeightScheme(4, "int", "group", 128, symmetric=False),
    ),
    "w8a8": (compressed((INT8, {"num_bits": 8, "type": "int", "dynamic": True})), "w8a8",
             WeightScheme(8, "int", "channel", activation_bits=8)),
    "w8a16": (compressed((INT8, None)), "w8a16", WeightScheme(8, "int", "channel")),
    "fp8 dynamic": (compressed((FLOAT8, DYNAMIC8)), "fp8", WeightScheme(8, "float", "channel", activation_bits=8)),
    "fp8 static": (
        compressed((FLOAT8 | {"strategy": "tensor"}, STATIC8)), "fp8",
        WeightScheme(8, "float", "tensor", activation_bits=8, static=True),
    ),
    "nvfp4": (
        compressed((FLOAT4, {"num_bits": 4, "type": "float", "dynamic": False})), "nvfp4",
        WeightScheme(4, "float", "group", 16, activation_bits=4, static=True),
    ),
    "two groups alike": (compressed((INT4, None), (INT4, None)), "w4a16", WeightScheme(4, "int", "group", 128)),
    "two groups that differ": (compressed((INT4, None), (FLOAT8, DYNAMIC8)), "mixed", None),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 128}, "awq",
            WeightScheme(4, "int", "group", 128, symmetric=False)),
    "gptq": ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}, "gptq",
             WeightScheme(4, "int", "group", 128)),
    "gptq with zero points": ({"quant_method": "gptq", "bits": 8, "group_size": 32, "sym": False}, "gptq",
                              WeightScheme(8, "int", "group", 32, symmetric=False)),
    "gptq of whole columns": ({"quant_method": "gptq", "bits": 4, "group_size": -1}, "gptq",
                              WeightScheme(4, "int", "channel")),
    "gptq of odd bits": ({"quant_method": "gptq", "bits": 5}, "gptq", None),
    "block fp8": ({"quant_method": "fp8", "weight_block_size": [128, 128], "activation_scheme": "dynamic"}, "fp8",
                  WeightScheme(8, "float", "block", block=(128, 128), activation_bits=8)),
    "fp8 of one scale": ({"quant_method": "fp8", "activation_scheme": "static"}, "fp8",
                         WeightScheme(8, "float", "tensor", activation_bits=8, static=True)),
    "fbgemm": ({"quant_method": "fbgemm_fp8"}, "fbgemm_fp8", WeightScheme(8, "float", "channel", activation_bits=8)),
    "mxfp4": ({"quant_method": "mxfp4"}, "mxfp4", WeightScheme(4, "float", "group", 32)),
    "ModelOpt FP8": ({"quant_method": "modelopt", "quant_algo": "FP8"}, "fp8",
                     WeightScheme(8, "float", "tensor", activation_bits=8, static=True)),
    "ModelOpt NVFP4": ({"quant_method": "modelopt", "quant_algo": "NVFP4"}, "nvfp4",
                       WeightScheme(4, "float", "group", 16, activation_bits=4, static=True)),
    "bitsandbytes": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "bitsandbytes",
                     WeightScheme(4, "float", "group", 64)),
    "a method of tomorrow": ({"quant_method": "tomorrow"}, "tomorrow", None),
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_layouts(layout: tuple[dict[str, Any], str, WeightScheme | None]):
    config, scheme, weights = layout
    found = parse_quantization(config)
    assert found is not None
    assert (found.method, found.scheme, found.weights) == (config["quant_method"], scheme, weights)
    assert precision(config) == scheme


@pytest.mark.parametrize("config", [{}, {"quant_method": None}, {"bits": 4}])
def test_what_names_no_method_is_no_quantisation(config: dict[str, Any]):
    assert parse_quantization(config) is None
    assert precision(config) == ""


def test_modelopt_may_name_its_algorithm_below_and_its_producer_only():
    """The layout of hf_quant_config.json."""
    config = {
        "producer": {"name": "modelopt"},
        "quantization": {"quant_algo": "FP8", "kv_cache_quant_algo": "FP8", "exclude_modules": ["lm_head"]},
    }
    found = parse_quantization(config)
    assert found == Quantization(
        "modelopt", "fp8", WeightScheme(8, "float", "tensor", activation_bits=8, static=True), ("lm_head",), "fp8"
    )


@pytest.mark.parametrize("name", ["Llama-3.1-70B-Instruct-FP8", "DeepSeek-V3.1-NVFP4"])
def test_a_file_beside_config_json_is_read_where_the_config_says_nothing(name: str, data_folder: Path):
    folder = data_folder / "model-configs"
    config = (folder / f"{name}.json").read_bytes()
    beside = (folder / "hf_quant_config" / f"{name}.json").read_bytes()
    assert parse_config(config).quantization is None
    found = parse_config(config, beside).quantization
    assert found is not None
    assert found.method == "modelopt"
    assert found.scheme == ("fp8" if name.endswith("FP8") else "nvfp4")


def test_the_config_s_own_quantisation_comes_before_the_file_beside_it(data_folder: Path):
    config = (data_folder / "model-configs" / "Qwen3-8B-AWQ.json").read_bytes()
    beside = json.dumps({"quantization": {"quant_algo": "FP8"}}).encode()
    assert parse_config(config, beside).precision == "awq"


@pytest.mark.parametrize(
    ("scheme", "dtype"),
    [
        ({"kv_cache_scheme": {"num_bits": 8, "type": "float"}}, "fp8"),
        ({"kv_cache_scheme": {"num_bits": 8, "type": "int"}}, None),
        ({"kv_cache_scheme": None}, None),
        ({"kv_cache_scheme": "FP8"}, "fp8"),
        ({"kv_cache_quant_algo": "fp8"}, "fp8"),
        ({"kv_cache_quant_algo": "NVFP4"}, None),
    ],
    ids=json.dumps,
)
def test_the_cache_that_a_checkpoint_asks_for(scheme: dict[str, Any], dtype: str | None):
    found = parse_quantization(compressed((FLOAT8, DYNAMIC8), **scheme))
    assert found is not None
    assert found.kv_cache == dtype


@pytest.mark.parametrize(
    "key", ["ignore", "ignored_layers", "modules_to_not_convert", "exclude_modules", "llm_int8_skip_modules"]
)
def test_every_name_for_what_is_left_out(key: str):
    found = parse_quantization({"quant_method": "fp8", key: ["lm_head", "re:.*gate$"]})
    assert found is not None
    assert found.ignored == ("lm_head", "re:.*gate$")


@pytest.mark.parametrize(
    "config",
    [
        {"quant_method": "compressed-tensors", "config_groups": []} | {"config_groups": [1]},
        compressed(({"num_bits": "4"}, None)),
        compressed(({"num_bits": 99}, None)),
        {"quant_method": "fp8", "ignore": "lm_head"},
    ],
    ids=["groups as a list", "bits as text", "99 bits", "left out as text"],
)
def test_what_cannot_be_is_refused(config: dict[str, Any]):
    with pytest.raises(UsageError):
        parse_quantization(config)


# --- real models ---------------------------------------------------------------------------------------

GROUP128 = WeightScheme(4, "int", "group", 128)
ZERO_POINTS = WeightScheme(4, "int", "group", 128, symmetric=False)
BLOCK = WeightScheme(8, "float", "block", block=(128, 128), activation_bits=8)
ROWS8 = WeightScheme(8, "float", "channel", activation_bits=8)
TENSOR8 = WeightScheme(8, "float", "tensor", activation_bits=8, static=True)
NVFP4 = WeightScheme(4, "float", "group", 16, activation_bits=4, static=True)

# Method, scheme, storage, KV cache.
REAL: dict[str, tuple[str, str, WeightScheme, str | None]] = {
    "Qwen3-8B-AWQ": ("awq", "awq", ZERO_POINTS, None),
    "Meta-Llama-3.1-8B-Instruct-GPTQ-INT4": ("gptq", "gptq", GROUP128, None),
    "Meta-Llama-3.1-8B-Instruct-quantized.w4a16": ("compressed-tensors", "w4a16", GROUP128, None),
    "Meta-Llama-3.1-8B-Instruct-quantized.w8a8": (
        "compressed-tensors", "w8a8", WeightScheme(8, "int", "channel", activation_bits=8), None,
    ),
    "granite-3.1-8b-instruct-FP8-dynamic": ("compressed-tensors", "fp8", ROWS8, None),
    "Meta-Llama-3.1-8B-Instruct-FP8": ("compressed-tensors", "fp8", TENSOR8, None),
    "DeepSeek-V3": ("fp8", "fp8", BLOCK, None),
    "Qwen3-32B-FP8": ("fp8", "fp8", BLOCK, None),
    "Mistral-Small-4-119B-2603": ("fp8", "fp8", TENSOR8, None),
    "gpt-oss-20b": ("mxfp4", "mxfp4", WeightScheme(4, "float", "group", 32), None),
    "Qwen3-32B-FP8-Static-PerTensor": ("modelopt", "fp8", TENSOR8, "fp8"),  # in the config, without a method
    "Llama-3.1-70B-Instruct-FP8": ("modelopt", "fp8", TENSOR8, "fp8"),  # beside the config
    "DeepSeek-V3.1-NVFP4": ("modelopt", "nvfp4", NVFP4, "fp8"),
    "MiniMax-M2.5-NVFP4": ("modelopt", "nvfp4", NVFP4, "fp8"),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_the_quantisation_of_a_real_model(name: str, model):
    shape = model(name)
    found = shape.quantization
    assert (found.method, found.scheme, found.weights, found.kv_cache) == REAL[name]
    assert shape.precision == found.scheme


@pytest.mark.parametrize("name", ["Llama-3.1-8B-Instruct", "Qwen3-8B", "Mixtral-8x7B-v0.1"])
def test_a_real_model_that_is_not_quantised(name: str, model):
    assert model(name).quantization is None
    assert model(name).precision == "bf16"
