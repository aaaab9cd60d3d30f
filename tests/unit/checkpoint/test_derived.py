"""The tensors that a shape implies, held against those of real headers; and which modules a quantisation leaves out."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelberth.base.errors import UsageError
from modelberth.checkpoint.config import parse_config
from modelberth.checkpoint.derived import derived_tensors, is_ignored
from modelberth.checkpoint.safetensors import DTYPE_BITS, Header, Tensor
from modelberth.checkpoint.shape import (
    Attention,
    LatentAttention,
    Layer,
    Mlp,
    ModelShape,
    Moe,
    Quantization,
    Recurrent,
    Vision,
    WeightScheme,
)
from modelberth.checkpoint.tensors import TensorGroup, grouped, parameters, pattern

SHARED = Path(__file__).parents[4] / "shared" / "data"
needs_shared = pytest.mark.skipif(
    not (SHARED / "safetensors-headers").is_dir(), reason="the folder of published headers is not beside the repository"
)
MODELS = (
    "Llama-3.1-70B-Instruct-FP8-dynamic", "Meta-Llama-3.1-70B", "Meta-Llama-3.1-8B",
    "Mistral-Small-24B-Instruct-2501-FP8-dynamic", "Mistral-Small-24B-Instruct-2501-quantized.w4a16",
    "Mistral-Small-24B-Instruct-2501", "Qwen2.5-72B-Instruct", "Qwen2.5-7B-Instruct", "Qwen3-8B",
    "TinyLlama-1.1B-Chat-v1.0", "granite-3.1-8b-instruct-FP8-dynamic", "granite-3.1-8b-instruct", "phi-4",
)  # fmt: skip


def tensors(groups: Iterable[TensorGroup]) -> Counter[tuple[str, tuple[int, ...]]]:
    """How many tensors of each dtype and shape there are."""
    found: Counter[tuple[str, tuple[int, ...]]] = Counter()
    for group in groups:
        found[group.dtype, group.shape] += group.layers * group.experts
    return found


def header_of(entries: Mapping[str, Mapping[str, object]]) -> Header:
    """A header of tensors that lie back to back."""
    items, position = [], 0
    for name, entry in entries.items():
        dtype, shape = str(entry["dtype"]), tuple(entry["shape"])  # type: ignore[call-overload]
        size = math.prod(shape) * DTYPE_BITS[dtype] // 8
        items.append(Tensor(name, dtype, shape, position, position + size))
        position += size
    return Header(tuple(items), position)


# --- held against headers ------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", ["bf16", "w4a16"])
def test_the_example_has_the_tensors_that_its_config_implies(variant: str, harbor: Path, headers_in: Callable):
    folder = harbor / "weights" / variant
    shape = parse_config((folder / "config.json").read_bytes())
    read, derived = grouped(headers_in(folder), len(shape.layers)), derived_tensors(shape)
    assert tensors(read) == tensors(derived)
    assert parameters(read) == parameters(derived) == 2_295_552


@needs_shared
@pytest.mark.parametrize("name", MODELS)
def test_a_published_model_has_the_tensors_that_its_config_implies(name: str):
    shape = parse_config((SHARED / "model-configs" / f"{name}.json").read_bytes())
    entries = json.loads((SHARED / "safetensors-headers" / f"{name}.json").read_bytes())
    entries.pop("__metadata__", None)
    read, derived = grouped({"model.safetensors": header_of(entries)}, len(shape.layers)), derived_tensors(shape)
    assert tensors(read) == tensors(derived)
    assert sum(group.total_bytes for group in read) == sum(group.total_bytes for group in derived)


# --- grouping ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.layers.17.mlp.up_proj.weight", "model.layers.*.mlp.up_proj.weight"),
        ("model.layers.3.mlp.experts.127.w1.weight", "model.layers.*.mlp.experts.*.w1.weight"),
        ("transformer.h.0.attn.c_attn.bias", "transformer.h.*.attn.c_attn.bias"),
        ("visual.blocks.31.attn.qkv.weight", "visual.blocks.*.attn.qkv.weight"),
        ("model.embed_tokens.weight", "model.embed_tokens.weight"),
        ("model.layers.1.fc1.weight", "model.layers.*.fc1.weight"),
    ],
)
def test_the_pattern_of_a_name(name: str, expected: str):
    assert pattern(name) == expected


def expert_entries(layers: int, experts: int) -> dict[str, dict[str, object]]:
    names = [
        f"model.layers.{layer}.mlp.experts.{expert}.w1.weight" for layer in range(layers) for expert in range(experts)
    ]
    return {name: {"dtype": "BF16", "shape": [4, 8]} for name in names}


def test_layers_and_experts_are_counted():
    (group,) = grouped({"a": header_of(expert_entries(3, 5))}, 3)
    assert group == TensorGroup("model.layers.*.mlp.experts.*.w1.weight", "BF16", (4, 8), 3, 5)
    assert group.total_bytes == 3 * 5 * 64


def test_what_stands_beyond_the_last_layer_is_not_loaded():
    entries = expert_entries(3, 2) | {
        "mtp.fc.weight": {"dtype": "BF16", "shape": [4, 4]},
        "model.layers.0.self_attn.rotary_emb.inv_freq": {"dtype": "F32", "shape": [4]},
    }
    (group,) = grouped({"a": header_of(entries)}, 2)
    assert (group.layers, group.experts) == (2, 2)


def test_tensors_of_one_name_and_two_dtypes_are_two_groups():
    entries = {
        "model.layers.0.mlp.up_proj.weight": {"dtype": "BF16", "shape": [4, 8]},
        "model.layers.1.mlp.up_proj.weight": {"dtype": "F8_E4M3", "shape": [4, 8]},
    }
    found = grouped({"a": header_of(entries)}, 2)
    assert {(group.dtype, group.layers) for group in found} == {("BF16", 1), ("F8_E4M3", 1)}


@pytest.mark.parametrize(
    ("suffix", "dtype", "shape", "count"),
    [
        ("weight", "BF16", (4, 8), 32),
        ("weight_packed", "I32", (4, 8), 256),
        ("qweight", "I32", (4, 8), 256),
        ("weight_packed", "U8", (4, 8), 64),
        ("weight_scale", "BF16", (4, 1), 0),
        ("weight_shape", "I64", (2,), 0),
        ("qzeros", "I32", (4, 8), 0),
        ("scales", "F16", (4, 8), 0),
        ("g_idx", "I32", (8,), 0),
    ],
)
def test_what_is_packed_counts_as_what_it_holds(suffix: str, dtype: str, shape: tuple[int, ...], count: int):
    assert parameters([TensorGroup(f"model.layers.*.mlp.up_proj.{suffix}", dtype, shape, 3)]) == 3 * count


# --- what a quantisation leaves out --------------------------------------------------------------------

MODULE = "model.layers.7.self_attn.q_proj"


@pytest.mark.parametrize(
    ("rule", "left_out"),
    [
        (MODULE, True),
        ("model.layers.7.self_attn", True),
        ("q_proj", True),
        ("model.layers.*.self_attn", True),
        ("re:.*self_attn.*", True),
        ("re:.*q_proj$", True),
        ("model.layers.70", False),
        ("model.layers.7.self", False),
        ("lm_head", False),
        ("re:self_attn", False),  # an expression begins at the start
        ("re:[", False),  # no expression at all
    ],
)
def test_a_rule_names_a_module_its_parent_or_a_pattern(rule: str, left_out: bool):
    assert is_ignored(MODULE, (rule,)) is left_out


def quantised(ignored: list[str], data_folder: Path) -> Counter[tuple[str, int]]:
    """Query projections by dtype, of a W4A16 model that leaves these modules out."""
    path = data_folder / "model-configs" / "Mistral-Small-24B-Instruct-2501-quantized.w4a16.json"
    config = json.loads(path.read_bytes())
    config["quantization_config"]["ignore"] = ignored
    found: Counter[tuple[str, int]] = Counter()
    for group in derived_tensors(parse_config(json.dumps(config).encode())):
        if ".q_proj.weight" in group.name and not group.name.endswith(("_scale", "_shape")):
            found[group.dtype, group.layers] += 1
    return found


def test_single_layers_may_be_left_out(data_folder: Path):
    assert quantised(["lm_head"], data_folder) == {("I32", 40): 1}
    assert quantised(["lm_head", "model.layers.3.self_attn.q_proj"], data_folder) == {("I32", 39): 1, ("BF16", 1): 1}
    assert quantised(["re:.*self_attn.*"], data_folder) == {("BF16", 40): 1}


@pytest.mark.parametrize(
    ("rule", "left_out"),
    [
        ("model.layers.7.self_attn*", True),
        ("model.layers.*", True),
        ("*q_proj", True),
        ("*.layers.7.*", True),
        ("*.k_proj", False),
        ("model.layers.1*", False),
        ("re:model.layers.(7|8).self_attn", True),
        ("re:(?i", False),
        ("", False),
    ],
)
def test_globs_and_expressions(rule: str, left_out: bool):
    assert is_ignored(MODULE, ("another", rule)) is left_out


def test_nothing_is_left_out_where_nothing_is_named():
    assert not is_ignored(MODULE, ())


def test_a_name_that_stands_below_a_wrapper_is_found(parse, groups_of):
    # compressed-tensors names modules as the whole model has them, `language_model.` in front.
    config = compressed(WEIGHTS4, ignore=["language_model.model.layers.1.mlp.up_proj"])
    groups = groups_of(parse(quantization_config=config))
    assert groups["model.layers.*.mlp.up_proj.weight"].layers == 1
    assert groups["model.layers.*.mlp.up_proj.weight_packed"].layers == 1
    assert "model.layers.*.mlp.gate_proj.weight" not in groups


def test_the_attention_that_modelopt_leaves_out_layer_by_layer(model):
    # Its list names 61 layers one by one, and not the output projection.
    dtypes: dict[str, Counter[str]] = {}
    for group in derived_tensors(model("DeepSeek-V3.1-NVFP4")):
        if group.name.endswith((".weight", ".weight_packed")):
            dtypes.setdefault(group.name.rsplit(".", 2)[1], Counter())[group.dtype] += group.layers
    for module in ("q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj"):
        assert dtypes[module] == {"BF16": 61}
    assert dtypes["o_proj"] == {"U8": 61}
    assert dtypes["gate"] == {"BF16": 58}


def test_gpt_oss_quantises_its_experts_alone(model):
    packed = {group.name for group in derived_tensors(model("gpt-oss-20b")) if group.dtype == "U8"}
    assert packed
    assert all(".experts.*." in name for name in packed)


def test_the_tower_stays_unquantised(model):
    groups = derived_tensors(model("Mistral-Small-3.1-24B-Instruct-2503-quantized.w8a8"))
    assert {group.dtype for group in groups if group.name.startswith("visual.")} == {"BF16"}
    assert "I8" in {group.dtype for group in groups}


# --- how a quantised layer is stored -------------------------------------------------------------------

WEIGHTS4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}
FLOAT8 = {"num_bits": 8, "type": "float"}


def compressed(weights: dict[str, Any], inputs: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    groups = {"group_0": {"weights": weights, "input_activations": inputs}}
    return {"quant_method": "compressed-tensors", "config_groups": groups, **more}


# What the down projection, 512 out of 1,024 wide, has on disk. Sources: compressed-tensors (pack-quantized,
# float-quantized, nvfp4-pack-quantized), AutoAWQ, AutoGPTQ, DeepSeek's FP8 checkpoints, bitsandbytes.
STORED: dict[str, tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...]]]]] = {
    "pack-quantized": (compressed(WEIGHTS4), {
        "weight_packed": ("I32", (512, 128)), "weight_scale": ("BF16", (512, 8)), "weight_shape": ("I64", (2,)),
    }),
    "pack-quantized with zero points": (compressed(WEIGHTS4 | {"symmetric": False}), {
        "weight_packed": ("I32", (512, 128)), "weight_scale": ("BF16", (512, 8)), "weight_shape": ("I64", (2,)),
        "weight_zero_point": ("I32", (64, 8)),
    }),
    "pack-quantized, a scale a row": (compressed({"num_bits": 8, "type": "int", "strategy": "channel"}), {
        "weight_packed": ("I32", (512, 256)), "weight_scale": ("BF16", (512, 1)), "weight_shape": ("I64", (2,)),
    }),
    "w8a8": (compressed({"num_bits": 8, "type": "int", "strategy": "channel"}, {"num_bits": 8, "dynamic": True}), {
        "weight": ("I8", (512, 1024)), "weight_scale": ("BF16", (512, 1)),
    }),
    "fp8, a scale a row": (compressed(FLOAT8 | {"strategy": "channel"}, FLOAT8 | {"dynamic": True}), {
        "weight": ("F8_E4M3", (512, 1024)), "weight_scale": ("BF16", (512, 1)),
    }),
    "fp8, one scale, static": (compressed(FLOAT8 | {"strategy": "tensor"}, FLOAT8 | {"dynamic": False}), {
        "weight": ("F8_E4M3", (512, 1024)), "weight_scale": ("F32", (1,)), "input_scale": ("F32", (1,)),
    }),
    "fp8, one scale, dynamic": ({"quant_method": "fp8", "activation_scheme": "dynamic"}, {
        "weight": ("F8_E4M3", (512, 1024)), "weight_scale": ("F32", (1,)),
    }),
    "fp8, blocks that do not divide": ({"quant_method": "fp8", "weight_block_size": [96, 128]}, {
        "weight": ("F8_E4M3", (512, 1024)), "weight_scale_inv": ("F32", (6, 8)),
    }),
    "nvfp4": (compressed({"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16},
                         {"num_bits": 4, "type": "float", "dynamic": False}), {
        "weight_packed": ("U8", (512, 512)), "weight_scale": ("F8_E4M3", (512, 64)),
        "weight_global_scale": ("F32", (1,)), "input_global_scale": ("F32", (1,)),
    }),
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 128}, {
        "qweight": ("I32", (1024, 64)), "qzeros": ("I32", (8, 64)), "scales": ("F16", (8, 512)),
    }),
    "gptq": ({"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True}, {
        "qweight": ("I32", (128, 512)), "qzeros": ("I32", (8, 64)), "scales": ("F16", (8, 512)),
        "g_idx": ("I32", (1024,)),
    }),
    "gptq of whole columns": ({"quant_method": "gptq", "bits": 4, "group_size": -1}, {
        "qweight": ("I32", (128, 512)), "qzeros": ("I32", (1, 64)), "scales": ("F16", (1, 512)),
        "g_idx": ("I32", (1024,)),
    }),
    "bitsandbytes": ({"quant_method": "bitsandbytes", "load_in_4bit": True}, {
        "weight": ("U8", (262_144, 1)), "absmax": ("F32", (8_192,)),
    }),
    # A scheme that is not told apart: the weights, at eight bits.
    "mixed": ({"quant_method": "compressed-tensors", "config_groups": {}}, {"weight": ("I8", (512, 1024))}),
    "not quantised": ({}, {"weight": ("BF16", (512, 1024))}),
}  # fmt: skip


@pytest.mark.parametrize("case", STORED.values(), ids=STORED)
def test_what_a_linear_layer_has_on_disk(case: tuple[dict[str, Any], dict[str, tuple[str, tuple[int, ...]]]], parse):
    config, expected = case
    at = "model.layers.*.mlp.down_proj."
    groups = [
        group
        for group in derived_tensors(parse(quantization_config=config, torch_dtype="bfloat16"))
        if group.name.startswith(at)
    ]
    assert {group.name.removeprefix(at): (group.dtype, group.shape) for group in groups} == expected
    assert {(group.layers, group.experts) for group in groups} == {(2, 1)}


EIGHT_BITS_IN_WORDS = "pack-quantized, a scale a row"  # a known fault, below


@pytest.mark.parametrize("layout", [layout for layout in STORED if layout != EIGHT_BITS_IN_WORDS])
def test_a_packed_model_has_the_parameters_of_its_original(layout: str, parse):
    config, _ = STORED[layout]
    assert parameters(derived_tensors(parse(quantization_config=config))) == parameters(derived_tensors(parse()))


def test_experts_are_quantised_and_their_router_is_not(parse, groups_of):
    config = {"num_experts": 8, "moe_intermediate_size": 128, "quantization_config": compressed(WEIGHTS4)}
    groups = groups_of(parse(**config))
    up = groups["model.layers.*.mlp.experts.*.up_proj.weight_packed"]
    assert (up.layers, up.experts, up.total_bytes) == (2, 8, 2 * 8 * 128 * 512 // 2)
    assert groups["model.layers.*.mlp.gate.weight"].dtype == "BF16"
    assert groups["model.embed_tokens.weight"].dtype == groups["lm_head.weight"].dtype == "BF16"


def test_a_layer_that_shares_an_earlier_cache_has_no_keys_and_values(parse, groups_of):
    groups = groups_of(parse(num_hidden_layers=5, num_kv_shared_layers=2))
    projections = {name.split(".")[-2]: group.layers for name, group in groups.items() if "_proj.weight" in name}
    assert (projections["k_proj"], projections["v_proj"]) == (3, 3)


def test_a_gate_of_attention_doubles_the_queries_and_sinks_are_one_a_head(model, groups_of):
    gated = groups_of(model("Qwen3-Next-80B-A3B-Instruct"))
    assert gated["model.layers.*.self_attn.q_proj.weight"].shape == (2 * 16 * 256, 2048)
    assert gated["model.layers.*.self_attn.o_proj.weight"].shape == (2048, 16 * 256)
    assert groups_of(model("gpt-oss-20b"))["model.layers.*.self_attn.sinks"].shape == (64,)


# --- any shape -----------------------------------------------------------------------------------------

small = st.integers(1, 300)
flags = st.booleans()
attentions = st.builds(
    Attention, small, small, small, small, window=st.none() | small, bias=flags, output_bias=flags,
    qk_norm=st.just((0, 0)) | st.tuples(small, small), gated=flags, sinks=flags, cache=flags,
)  # fmt: skip
latents = st.builds(
    LatentAttention, small, small, small, small, small, q_lora_rank=st.none() | small,
    index_heads=st.integers(0, 4), index_head_dim=small,
)  # fmt: skip
recurrents = st.builds(
    Recurrent, st.sampled_from(["mamba1", "mamba2", "gdn", "conv"]), st.integers(0, 300), small, small, small, small
)
mlps = st.builds(Mlp, small, flags, flags)
moes = st.builds(Moe, st.integers(2, 300), small, small, st.integers(0, 300), flags, flags, flags, flags, flags)
layers = st.builds(Layer, st.none() | attentions | latents | recurrents, st.none() | mlps | moes, st.integers(0, 4))
schemes = st.builds(
    WeightScheme, st.sampled_from([2, 3, 4, 8]), st.sampled_from(["int", "float"]),
    st.sampled_from(["tensor", "channel", "group"]), st.integers(1, 300), symmetric=flags,
    activation_bits=st.sampled_from([4, 8, 16]), static=flags,
)  # fmt: skip
quantizations = st.builds(
    Quantization,
    st.sampled_from(["compressed-tensors", "awq", "gptq", "fp8", "mxfp4", "modelopt", "bitsandbytes", "x"]),
    st.just("x"),
    st.none() | schemes,
    st.lists(st.sampled_from(["lm_head", "model.layers.0.mlp", "re:.*attn.*", "model.layers.*", "re:("])).map(tuple),
)
towers = st.builds(
    Vision, small, small, small, small, small, st.integers(0, 300), small, st.integers(1, 4), flags, small
)
shapes = st.builds(
    ModelShape, st.just("A"), st.lists(layers, min_size=1, max_size=4).map(tuple), small, small, small,
    st.sampled_from(["bfloat16", "float16", "float32", "half", "float"]), st.just("x"), flags,
    st.none() | quantizations, st.none() | towers, learned_positions=st.integers(0, 300), embedding=st.integers(0, 300),
    layer_input=st.integers(0, 300),
)  # fmt: skip


@settings(max_examples=200)
@given(shapes)
def test_any_shape_has_tensors_of_some_bytes(shape: ModelShape):
    groups = derived_tensors(shape)
    assert all(group.total_bytes >= 0 and group.layers >= 1 and group.experts >= 1 for group in groups)
    total = sum(group.total_bytes for group in groups)
    assert total >= shape.vocabulary * (shape.embedding or shape.hidden) * shape.dtype_bytes
    assert math.isfinite(float(total))
    assert parameters(groups) > 0


@settings(max_examples=100)
@given(shapes)
def test_a_row_of_equal_layers_weighs_their_number(shape: ModelShape):
    # Rules that name a layer by its number are for that one alone.
    plain = ModelShape(**{**vars(shape), "quantization": None, "layer_input": 0})
    twice = ModelShape(**{**vars(plain), "layers": plain.layers * 2})
    outside = ModelShape(**{**vars(plain), "layers": ()})
    one, two, none = (sum(group.total_bytes for group in derived_tensors(each)) for each in (plain, twice, outside))
    assert two - one == one - none


# --- known faults --------------------------------------------------------------------------------------


def test_the_thinker_of_qwen_omni_has_an_output_layer(model):
    # It is Qwen2.5-7B, untied: Qwen2_5OmniThinkerForConditionalGeneration has an lm_head.
    thinker = [group for group in derived_tensors(model("Qwen2.5-Omni-7B")) if not group.name.startswith("visual.")]
    assert parameters(thinker) == 7_615_616_512


def test_four_bit_floats_without_a_group_size_have_a_size_or_are_refused(parse):
    with suppress(UsageError):
        assert derived_tensors(parse(quantization_config=compressed({"num_bits": 4, "type": "float"})))


@pytest.mark.parametrize("block", [None, "128x128", [0, 0], "9" * 5000 + "x1", [10**400, 1]])
def test_blocks_without_sides_have_a_size_or_are_refused(block: Any, parse):
    config = compressed(FLOAT8 | {"strategy": "block", "block_structure": block}, FLOAT8)
    with suppress(UsageError):
        assert derived_tensors(parse(quantization_config=config))


@pytest.mark.parametrize("rule", ["re:a{99999999999999999999}", "re:" + "(" * 3000 + ")" * 3000, "re:[[a]b"])
def test_an_expression_that_python_objects_to_matches_nothing(rule: str):
    # OverflowError, RecursionError, and a FutureWarning that the user sees.
    assert not is_ignored(MODULE, (rule,))


def test_a_glob_that_names_the_router_leaves_the_gate_projection_alone():
    assert not is_ignored("model.layers.0.mlp.gate_proj", ("model.layers.*.mlp.gate",))


@pytest.mark.parametrize(
    "config",
    [
        STORED[EIGHT_BITS_IN_WORDS][0],
        {"quant_method": "gptq", "bits": 8, "group_size": 128},
        {"quant_method": "bitsandbytes", "load_in_8bit": True},
    ],
    ids=["w8a16", "gptq of 8 bits", "bitsandbytes of 8 bits"],
)
def test_eight_bits_in_words_are_four_parameters_each(config: dict[str, Any], parse):
    assert parameters(derived_tensors(parse(quantization_config=config))) == parameters(derived_tensors(parse()))


@pytest.mark.parametrize("name", ["layers.3.mlp.up_proj.weight", "h.3.mlp.c_fc.weight"])
def test_the_pattern_of_a_model_without_a_head(name: str):
    # Checkpoints of bare decoders (MistralModel, GPT2Model) have no `model.` in front.
    assert pattern(name) == name.replace(".3.", ".*.")
