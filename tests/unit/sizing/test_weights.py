"""Weights on one rank: what vLLM printed for real models, single tensors by hand, and what always holds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from modelberth.base.units import GIB, MIB
from modelberth.checkpoint.shape import Attention, ModelShape, Quantization, WeightScheme
from modelberth.checkpoint.tensors import TensorGroup
from modelberth.sizing.model import Model
from modelberth.sizing.plan import Sizing
from modelberth.sizing.weights import WeightRules, rank_weights

CONFIGS = sorted(path.stem for path in (Path(__file__).parents[2] / "data" / "model-configs").glob("*.json"))
BLOCK = "model.layers.*."


# --- "Model loading took" ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "gpu", "vllm", "ranks", "gib", "tolerance"),
    [
        ("Llama-3.1-8B-Instruct", "H100", "0.11.0", 1, 14.9888, 0.0001),
        ("Llama-3.1-8B-Instruct", "H100", "0.11.0", 2, 7.51, 0.005),
        ("Llama-3.1-8B-Instruct", "H100", "0.11.0", 4, 3.77, 0.005),
        ("Llama-3.1-8B-Instruct", "H100", "0.11.0", 8, 1.9028, 0.0001),
        ("Qwen2.5-7B-Instruct", "H100", "0.19.0", 1, 14.25, 0.005),
        ("Qwen2.5-7B-Instruct", "H100", "0.19.0", 2, 7.12, 0.005),
        ("Qwen2.5-7B-Instruct", "H100", "0.19.0", 4, 3.55, 0.005),
        ("Qwen2-7B-Instruct", "A100", "0.10.1.1", 1, 14.2488, 0.0002),
        ("Qwen3-8B", "A100 SXM 40GB", "0.9.2", 1, 15.2683, 0.0002),
        ("opt-125m", "H200", "0.8.1", 1, 0.2389, 0.0002),
        ("phi-4", "H100", "0.19.0", 1, 27.39, 0.005),
        ("Qwen3-32B", "H100", "0.11.0", 1, 61.03, 0.006),
        ("Qwen3-32B", "H100", "0.11.0", 2, 30.59, 0.006),
        ("Llama-3.3-70B-Instruct-FP8-dynamic", "H100", "0.11.0", 1, 67.72, 0.005),
        ("Llama-3.3-70B-Instruct-FP8-dynamic", "H100", "0.11.0", 2, 33.88, 0.005),
        ("Qwen3-8B-AWQ", "L4", "0.11.0", 2, 2.85, 0.005),
        ("gpt-oss-20b", "H100", "0.11.0", 1, 13.47, 0.01),
        ("Mixtral-8x7B-Instruct-v0.1", "H100", "0.19.0", 2, 43.51, 0.005),
        ("Qwen3-Next-80B-A3B-Instruct", "H200", "0.10.2", 2, 74.28, 0.005),
        # Since 0.21 blocks beyond 20 MiB are not split while weights are loaded: 0.04 GiB more than in 0.19.
        ("Qwen2.5-7B-Instruct", "A10G", "0.22.0", 1, 14.29, 0.005),
    ],
)
def test_what_vllm_printed(
    sized: Callable[..., Sizing], name: str, gpu: str, vllm: str, ranks: int, gib: float, tolerance: float
):
    found = sized(name, gpu, vllm=vllm, tensor_parallel=ranks)
    assert found.account.weights.total / GIB == pytest.approx(gib, abs=tolerance)
    assert found.ledger.weights.low / GIB < gib < found.ledger.weights.high / GIB


def test_a_model_in_parts(model_named: Callable[[str], Model]):
    """Llama 3.1 8B by hand, BF16."""
    found = rank_weights(
        model_named("Llama-3.1-8B-Instruct").groups, model_named("Llama-3.1-8B-Instruct").shape, WeightRules()
    )
    # 2 x 4096² (q, o) + 2 x 1024 x 4096 (k, v) + 3 x 14336 x 4096 + 2 norms, two bytes each, 32 layers; the last norm.
    assert found.layers == 32 * 2 * (2 * 4096**2 + 2 * 1024 * 4096 + 3 * 14336 * 4096 + 2 * 4096) + 2 * 4096
    assert found.embeddings == 2 * 128_256 * 4096 * 2  # not tied: in and out
    assert found.extra == 131_072 * 128 * 2  # cosines and sines for every position
    assert (found.experts, found.tower, found.rounding) == (0, 0, 0)


def test_matrices_are_shared_and_norms_are_not(model_named: Callable[[str], Model]):
    given = model_named("Llama-3.1-8B-Instruct")
    found = rank_weights(given.groups, given.shape, WeightRules(2))
    matrices = 2 * 4096**2 + 2 * 1024 * 4096 + 3 * 14336 * 4096
    assert found.layers == 32 * (matrices + 2 * 2 * 4096) + 2 * 4096
    assert found.embeddings == 128_256 * 4096 * 2
    assert found.extra == 131_072 * 128 * 2  # every rank makes the whole table


def test_latent_attention_is_unpacked(model_named: Callable[[str], Model]):
    """Two copies of kv_b_proj of DeepSeek V2 Lite: 512 x 16 heads x 128, two bytes, 27 layers; 0.11 GiB."""
    given = model_named("DeepSeek-V2-Lite")
    table = 163_840 * 64 * 2
    assert rank_weights(given.groups, given.shape, WeightRules()).extra - table == 27 * 2 * 2 * MIB
    assert rank_weights(given.groups, given.shape, WeightRules(4)).extra - table == 27 * MIB


# --- single tensors ------------------------------------------------------------------------------------


@pytest.fixture
def plain(shape_of: Callable[[str], ModelShape]) -> ModelShape:
    """Four key and value heads, 32 query heads, no rotary table."""
    return replace(shape_of("Qwen3-30B-A3B"), rotary_dim=0)


def quantised(shape: ModelShape, method: str, scheme: str, weights: WeightScheme | None) -> ModelShape:
    return replace(shape, quantization=Quantization(method, scheme, weights), precision=scheme)


def one(
    shape: ModelShape, name: str, size: tuple[int, ...], ranks: int, dtype: str = "BF16", experts: int = 1, **rules
) -> int:
    """Bytes of one tensor on a rank, without what the allocator adds."""
    group = TensorGroup(name, dtype, size, 1, experts)
    found = rank_weights((group,), shape, WeightRules(ranks, **rules))
    return found.total - found.rounding


@pytest.mark.parametrize(
    ("name", "size", "ranks", "elements"),
    [
        ("self_attn.q_proj.weight", (4096, 2048), 4, 1024 * 2048),
        ("self_attn.q_proj.bias", (4096,), 4, 1024),  # a column-parallel bias goes with its rows
        ("self_attn.k_proj.weight", (512, 2048), 2, 2 * 128 * 2048),
        ("self_attn.k_proj.weight", (512, 2048), 4, 128 * 2048),
        ("self_attn.v_proj.weight", (512, 2048), 8, 128 * 2048),  # never less than a head: two ranks hold the same
        ("self_attn.v_proj.bias", (512,), 8, 128),
        ("self_attn.qkv_proj.weight", (5120, 2048), 8, (4 + 1 + 1) * 128 * 2048),  # four query heads, a copy of k and v
        ("self_attn.o_proj.weight", (2048, 4096), 4, 2048 * 1024),
        ("self_attn.o_proj.bias", (2048,), 4, 2048),  # a row-parallel bias stands on every rank
        ("self_attn.q_norm.weight", (128,), 4, 128),
        ("mlp.up_proj.weight", (768, 2048), 4, 192 * 2048),
        ("mlp.down_proj.weight", (2048, 768), 4, 2048 * 192),
        ("mlp.gate.weight", (128, 2048), 4, 128 * 2048),  # a router is whole on every rank
        ("input_layernorm.weight", (2048,), 4, 2048),
        ("self_attn.kv_a_proj_with_mqa.weight", (576, 2048), 4, 576 * 2048),
        ("self_attn.kv_b_proj.weight", (4096, 512), 4, 1024 * 512),
        ("mixer.in_proj.weight", (4096, 2048), 4, 1024 * 2048),
        ("linear_attn.in_proj_z.weight", (4096, 2048), 4, 1024 * 2048),
        ("linear_attn.in_proj_ba.weight", (64, 2048), 4, 16 * 2048),
        ("linear_attn.conv1d.weight", (8192, 1, 4), 4, 2048 * 4),
        ("linear_attn.out_proj.weight", (2048, 4096), 4, 2048 * 1024),
        ("self_attn.fc1.weight", (4096, 2048), 4, 1024 * 2048),
        ("self_attn.fc2.weight", (2048, 4096), 4, 2048 * 1024),
    ],
)
def test_who_holds_what(plain: ModelShape, name: str, size: tuple[int, ...], ranks: int, elements: int):
    assert one(plain, BLOCK + name, size, ranks) == 2 * elements


@pytest.mark.parametrize("name", ["model.embed_tokens.weight", "lm_head.weight", "transformer.wte.weight"])
def test_a_vocabulary_is_padded_and_then_shared(plain: ModelShape, name: str):
    """Granite's 49,155 rows become 49,216 (769 x 64)."""
    assert one(plain, name, (49_155, 4096), 1) == 49_216 * 4096 * 2
    assert one(plain, name, (49_155, 4096), 2) == 24_608 * 4096 * 2


def test_a_tied_output_layer_is_not_loaded(plain: ModelShape):
    assert one(replace(plain, tied=True), "lm_head.weight", (49_155, 4096), 1) == 0
    assert one(replace(plain, tied=True), "model.embed_tokens.weight", (64, 4096), 1) == 64 * 4096 * 2


def test_a_scale_of_whole_rows_stays_whole_and_becomes_wide(plain: ModelShape):
    fp8 = quantised(plain, "compressed-tensors", "fp8", WeightScheme(8, "float", "channel", activation_bits=8))
    assert one(fp8, BLOCK + "mlp.down_proj.weight_scale", (2048, 1), 4) == 2048 * 4
    assert one(fp8, BLOCK + "mlp.up_proj.weight_scale", (768, 1), 4) == 192 * 4
    assert one(fp8, BLOCK + "mlp.down_proj.weight_scale", (1,), 4, "F32") == 4  # one scale for the tensor
    assert one(fp8, BLOCK + "mlp.down_proj.weight", (2048, 768), 4, "F8_E4M3") == 2048 * 192


def test_scales_of_groups_are_shared_like_their_weights(plain: ModelShape):
    w4a16 = quantised(plain, "compressed-tensors", "w4a16", WeightScheme(4, "int", "group", 128))
    assert one(w4a16, BLOCK + "mlp.down_proj.weight_packed", (2048, 96), 2, "I32") == 2048 * 48 * 4
    assert one(w4a16, BLOCK + "mlp.down_proj.weight_scale", (2048, 6), 2) == 2048 * 3 * 2
    assert one(w4a16, BLOCK + "mlp.down_proj.weight_shape", (2,), 2, "I64") == 0  # read, not kept


def test_marlin_drops_zero_points_of_symmetric_weights(plain: ModelShape):
    same = quantised(plain, "gptq", "gptq", WeightScheme(4, "int", "group", 128, symmetric=True))
    off = quantised(plain, "gptq", "gptq", WeightScheme(4, "int", "group", 128, symmetric=False))
    for name, size in (("mlp.up_proj.qzeros", (16, 96)), ("mlp.up_proj.g_idx", (2048,))):
        assert one(same, BLOCK + name, size, 1, "I32") == 0
        assert one(off, BLOCK + name, size, 1, "I32") == size[0] * (size[1] if len(size) > 1 else 1) * 4
    assert one(same, BLOCK + "mlp.up_proj.qweight", (256, 768), 1, "I32") == 256 * 768 * 4
    assert one(off, BLOCK + "mlp.up_proj.g_idx", (2048,), 2, "I32") == 2048 * 4  # of the input: whole on every rank


def test_experts_are_shared_in_parts_or_whole(plain: ModelShape):
    name, size = BLOCK + "mlp.experts.*.down_proj.weight", (2048, 768)
    each = 2048 * 768 * 2
    assert one(plain, name, size, 4, experts=10) == 10 * each // 4
    assert one(plain, name, size, 4, experts=10, expert_parallel=True) == 3 * each  # the fullest rank
    assert one(plain, BLOCK + "mlp.experts.gate_up_proj", (32, 2048, 1536), 4, expert_parallel=True) == (
        8 * 2048 * 1536 * 2
    )


def test_a_kernel_pads_mxfp4_experts(shape_of: Callable[[str], ModelShape]):
    """2,880 wide: 12 x 256 = 3,072 outside, 45 x 64 = 2,880 inside, which are 23 x 128 = 2,944 on Ampere."""
    shape = replace(shape_of("gpt-oss-20b"), rotary_dim=0)
    name, size = BLOCK + "mlp.experts.down_proj_blocks", (32, 2880, 90, 16)
    stored = 32 * 2880 * 90 * 16
    assert one(shape, name, size, 1, "U8") == stored
    assert one(shape, name, size, 1, "U8", mxfp4_padding=(256, 64)) == stored * 3072 // 2880
    assert one(shape, name, size, 1, "U8", mxfp4_padding=(256, 128)) == round(stored * 3072 * 2944 / 2880 / 2880)
    # Two ranks: 1,440 each are 23 x 64 = 1,472.
    assert one(shape, name, size, 2, "U8", mxfp4_padding=(256, 64)) == round(stored / 2 * 3072 / 2880 * 1472 / 1440)


def test_a_tower_is_shared(plain: ModelShape):
    name, size = "visual.blocks.*.mlp.up_proj.weight", (5120, 1280)
    assert one(plain, name, size, 4) == 5120 * 1280 * 2 // 4
    assert one(plain, "visual.blocks.*.attn.qkv.weight", (3840, 1280), 4) == 960 * 1280 * 2
    group = TensorGroup(name, "BF16", size, 32)
    assert rank_weights((group,), plain, WeightRules()).tower == 32 * 5120 * 1280 * 2


def test_what_is_fused_is_rounded_once(plain: ModelShape):
    """Gate and up of 11 MiB each: one tensor of 22 MiB fits its block; apart they would take 12 each."""
    groups = [TensorGroup(f"{BLOCK}mlp.{name}.weight", "BF16", (2816, 2048), 1) for name in ("gate_proj", "up_proj")]
    assert rank_weights(tuple(groups), plain, WeightRules()).rounding == 0
    assert rank_weights((groups[0],), plain, WeightRules()).rounding == MIB


# --- laws ----------------------------------------------------------------------------------------------


def kv_heads(shape: ModelShape) -> set[int]:
    return {mixer.kv_heads for mixer in shape.mixers if isinstance(mixer, Attention)}


@pytest.mark.parametrize("name", CONFIGS)
def test_more_ranks_never_hold_more(model_named: Callable[[str], Model], name: str):
    """The true law, measured: twice the ranks never hold more, what the allocator adds included; nor less
    than an equal share, where the heads of keys and values can be shared at all: nothing is thrown away."""
    given = model_named(name)
    for max_split in (None, 20 * MIB):
        for parallel in (False, True):
            found = [
                rank_weights(given.groups, given.shape, WeightRules(ranks, parallel, max_split))
                for ranks in (1, 2, 4, 8)
            ]
            totals = [each.total for each in found]
            assert totals == sorted(totals, reverse=True)
            assert all(each.rounding >= 0 for each in found)
            stored = found[0].total - found[0].rounding - found[0].extra
            for each, ranks in zip(found, (1, 2, 4, 8), strict=True):
                if all(heads % ranks == 0 or ranks % heads == 0 for heads in kv_heads(given.shape)):
                    assert each.total >= stored // ranks


@pytest.mark.parametrize("name", CONFIGS)
def test_parts_add_up_to_what_is_stored(model_named: Callable[[str], Model], name: str):
    """One rank holds what is stored, within 2 %: tied copies, zero points, wider scales, padding."""
    given = model_named(name)
    found = rank_weights(given.groups, given.shape, WeightRules())
    held = found.layers + found.experts + found.embeddings + found.tower
    assert held == pytest.approx(given.stored_bytes, rel=0.02)
    assert bool(found.experts) == given.shape.sparse
    assert bool(found.tower) == (given.shape.vision is not None)
