"""A model as an engine holds it: converted to another dtype, quantised while it is loaded."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from modelberth.base.errors import UsageError
from modelberth.checkpoint.safetensors import Header, Tensor
from modelberth.checkpoint.shape import ModelShape
from modelberth.checkpoint.tensors import TensorGroup
from modelberth.sizing.model import Model, loaded_as, model_of, requantized

LLAMA = "Llama-3.1-8B-Instruct"
# 2 x 4096² + 2 x 1024 x 4096 + 3 x 14336 x 4096, 32 layers.
LINEAR = 32 * (2 * 4096**2 + 2 * 1024 * 4096 + 3 * 14336 * 4096)
EMBEDDINGS = 2 * 128_256 * 4096
NORMS = 65 * 4096


def test_parameters_and_bytes_of_a_whole_model(model_named: Callable[[str], Model]):
    """Meta: 8.03 billion parameters, 16.06 GB."""
    assert model_named(LLAMA).parameters == LINEAR + EMBEDDINGS + NORMS == 8_030_261_248
    assert model_named(LLAMA).stored_bytes == 2 * 8_030_261_248


def test_packed_weights_count_as_what_they_hold(model_named: Callable[[str], Model]):
    """The W4A16 of Mistral Small has the parameters of the model, and less than a third of its bytes (14.15 GB)."""
    whole, packed = (
        model_named("Mistral-Small-24B-Instruct-2501"),
        model_named("Mistral-Small-24B-Instruct-2501-quantized.w4a16"),
    )
    assert packed.parameters == whole.parameters == 23_572_403_200
    assert packed.stored_bytes / 10**9 == pytest.approx(14.15, abs=0.01)
    assert whole.stored_bytes / 10**9 == pytest.approx(47.14, abs=0.01)


def test_headers_come_before_what_is_derived(shape_of: Callable[[str], ModelShape]):
    tensor = Tensor("model.norm.weight", "BF16", (4096,), 0, 8192)
    found = model_of(shape_of(LLAMA), {"model.safetensors": Header((tensor,), 8200)})
    assert found.from_headers
    assert found.stored_bytes == 8192
    assert not model_of(shape_of(LLAMA)).from_headers
    assert not model_of(shape_of(LLAMA), {}).from_headers


def test_float32_doubles_what_is_not_quantised(model_named: Callable[[str], Model]):
    found = loaded_as(model_named(LLAMA), "float32")
    assert found.shape.dtype == "float32"
    assert found.stored_bytes == 2 * model_named(LLAMA).stored_bytes
    assert found.parameters == model_named(LLAMA).parameters


def test_another_half_has_the_same_size(model_named: Callable[[str], Model]):
    found = loaded_as(model_named(LLAMA), "half")
    assert (found.shape.dtype, found.shape.dtype_bytes) == ("half", 2)
    assert found.stored_bytes == model_named(LLAMA).stored_bytes
    assert {group.dtype for group in found.groups} == {"F16"}


def test_as_it_is_it_is_the_same_object(model_named: Callable[[str], Model]):
    assert loaded_as(model_named(LLAMA), "bfloat16") is model_named(LLAMA)


def test_packed_weights_and_scales_keep_their_dtype(model_named: Callable[[str], Model]):
    given = model_named("Mistral-Small-24B-Instruct-2501-quantized.w4a16")
    found = loaded_as(given, "float32")
    # Embeddings, output layer and norms (81 x 5,120) double; packed weights and their scales do not.
    assert found.stored_bytes - given.stored_bytes == 2 * (2 * 131_072 * 5120 + 81 * 5120)


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("mixer.A_log", "F32", "F32"),
        ("mixer.D", "F32", "F32"),
        ("linear_attn.dt_bias", "F32", "F32"),
        ("mlp.gate.e_score_correction_bias", "F32", "F32"),
        ("mlp.up_proj.weight_scale_inv", "F32", "F32"),
        ("mlp.up_proj.qweight", "I32", "I32"),
        ("mlp.up_proj.weight", "F8_E4M3", "F8_E4M3"),
        ("mlp.up_proj.weight", "BF16", "F16"),
        ("mlp.up_proj.bias", "F32", "F16"),
        ("mlp.up_proj.weight", "F16", "F16"),
    ],
)
def test_states_and_corrections_keep_their_dtype(
    shape_of: Callable[[str], ModelShape], name: str, dtype: str, expected: str
):
    given = Model(shape_of(LLAMA), (TensorGroup(f"model.layers.*.{name}", dtype, (64, 64), 2),), True)
    found = loaded_as(given, "float16")
    assert [(group.dtype, group.shape, group.layers) for group in found.groups] == [(expected, (64, 64), 2)]
    assert found.from_headers


def test_fp8_halves_linear_layers_only(model_named: Callable[[str], Model]):
    found = requantized(model_named(LLAMA), "fp8")
    rows = 32 * (4096 + 2 * 1024 + 4096 + 2 * 14336 + 4096)  # one BF16 scale each
    assert found.stored_bytes == LINEAR + 2 * rows + 2 * (EMBEDDINGS + NORMS)
    assert (found.shape.precision, found.from_headers) == ("fp8", False)


def test_w4a16_has_half_a_byte_and_a_scale_for_128(model_named: Callable[[str], Model]):
    found = requantized(model_named(LLAMA), "w4a16")
    shapes = 32 * 7 * 16  # two int64 a layer: the shape before packing
    assert found.stored_bytes == LINEAR // 2 + LINEAR // 128 * 2 + shapes + 2 * (EMBEDDINGS + NORMS)
    assert found.parameters == model_named(LLAMA).parameters


def test_bitsandbytes_has_half_a_byte_and_a_maximum_for_64(model_named: Callable[[str], Model]):
    found = requantized(model_named(LLAMA), "bitsandbytes")
    assert found.stored_bytes == LINEAR // 2 + LINEAR // 64 * 4 + 2 * (EMBEDDINGS + NORMS)


def test_routers_stay_as_they_are(model_named: Callable[[str], Model]):
    found = requantized(model_named("Qwen3-30B-A3B"), "w4a16")
    routers = [group for group in found.groups if ".mlp.gate." in group.name]
    assert routers
    assert {group.dtype for group in routers} == {"BF16"}
    assert any(".experts." in group.name and group.dtype == "I32" for group in found.groups)


def test_a_tower_stays_as_it_is(model_named: Callable[[str], Model]):
    before = [group for group in model_named("Qwen2.5-VL-7B-Instruct").groups if group.name.startswith("visual.")]
    found = requantized(model_named("Qwen2.5-VL-7B-Instruct"), "fp8")
    assert before
    assert [group for group in found.groups if group.name.startswith("visual.")] == before


@pytest.mark.parametrize("scheme", ["int3", "", "awq", "FP8"])
def test_an_unknown_scheme_is_refused(model_named: Callable[[str], Model], scheme: str):
    with pytest.raises(UsageError, match="cannot be sized") as caught:
        requantized(model_named(LLAMA), scheme)
    assert "fp8, w4a16, bitsandbytes" in caught.value.why


@pytest.mark.parametrize("name", ["Qwen3-8B-AWQ", "gpt-oss-20b", "Qwen3-8B-FP8"])
def test_what_is_quantised_is_not_quantised_again(model_named: Callable[[str], Model], name: str):
    with pytest.raises(UsageError, match="already"):
        requantized(model_named(name), "fp8")
