"""The tensors that a shape implies, held against those of real headers; and which modules a quantisation leaves out."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pytest

from modelberth.checkpoint.config import parse_config
from modelberth.checkpoint.derived import derived_tensors, is_ignored
from modelberth.checkpoint.safetensors import DTYPE_BITS, Header, Tensor
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
