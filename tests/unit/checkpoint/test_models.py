"""The configs of real models: each is read, says where it is from, and leads to the published number of parameters."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from modelberth.checkpoint.derived import derived_tensors
from modelberth.checkpoint.tensors import parameters

FOLDER = Path(__file__).parents[2] / "data" / "model-configs"
MODELS = sorted(path.stem for path in FOLDER.glob("*.json"))


@pytest.mark.parametrize("name", MODELS)
def test_a_real_config_is_read_and_says_where_it_is_from(name: str, model):
    provenance = json.loads((FOLDER / f"{name}.json").read_bytes())["_modelberth_provenance"]
    assert provenance["source"]
    assert isinstance(provenance["verified"], bool)
    shape = model(name)
    assert shape.unknown == ()
    assert shape.layers
    assert min(group.total_bytes for group in derived_tensors(shape)) > 0


def test_the_folder_holds_the_models_that_the_tests_rely_on():
    assert len(MODELS) >= 117
    beside = {path.stem: json.loads(path.read_bytes()) for path in (FOLDER / "hf_quant_config").glob("*.json")}
    assert beside.keys() == {"DeepSeek-V3.1-NVFP4", "Llama-3.1-70B-Instruct-FP8"}
    assert all(config["_modelberth_provenance"]["source"] for config in beside.values())


# As the model cards and the headers' metadata on the Hub show them, to the last digit, or what follows from them: a
# quantised variant has the parameters of its original, whatever its packing.
PUBLISHED: dict[int, tuple[str, ...]] = {
    494_032_768: ("Qwen2.5-0.5B-Instruct", "Qwen2.5-0.5B-Instruct-AWQ"),
    # Stored with a copy of the embeddings as lm_head (751,632,384 and 2,031,739,904), which a tied model does not load.
    751_632_384 - 151_936 * 1024: ("Qwen3-0.6B",),
    2_031_739_904 - 151_936 * 2048: ("Qwen3-1.7B",),
    999_885_952: ("gemma-3-1b-it",),
    1_235_814_400: ("Llama-3.2-1B-Instruct",),
    1_543_714_304: ("Qwen2.5-1.5B-Instruct",),
    2_533_531_648: ("granite-3.1-2b-instruct",),
    2_614_341_888: ("gemma-2-2b-it",),
    3_085_938_688: ("Qwen2.5-3B-Instruct",),
    3_212_749_824: ("Llama-3.2-3B-Instruct",),
    3_821_079_552: ("Phi-3-mini-4k-instruct",),
    3_836_021_760: ("Phi-4-mini-instruct",),
    4_022_468_096: ("Qwen3-4B",),
    6_738_415_616: ("Llama-2-7b-chat-hf",),
    6_738_546_688: ("CodeLlama-7b-hf",),
    7_248_023_552: ("Mistral-7B-Instruct-v0.3",),
    7_298_617_344: ("OLMo-2-1124-7B-Instruct",),
    7_615_616_512: (
        "Qwen2-7B-Instruct", "Qwen2.5-7B-Instruct", "Qwen2.5-7B-Instruct-AWQ", "Qwen2.5-7B-Instruct-FP8-dynamic",
        "Qwen2.5-7B-Instruct-quantized.w8a8",
    ),
    8_030_261_248: (
        "Llama-3.1-8B-Instruct", "DeepSeek-R1-Distill-Llama-8B", "Meta-Llama-3.1-8B-Instruct-AWQ-INT4",
        "Meta-Llama-3.1-8B-Instruct-FP8", "Meta-Llama-3.1-8B-Instruct-GPTQ-INT4",
        "Meta-Llama-3.1-8B-Instruct-quantized.w4a16", "Meta-Llama-3.1-8B-Instruct-quantized.w8a8",
    ),
    8_170_848_256: ("granite-3.1-8b-instruct", "granite-3.1-8b-instruct-FP8-dynamic"),
    8_170_848_256 + 4 * 4096: ("granite-3.3-8b-instruct",),  # four tokens more
    8_190_735_360: ("Qwen3-8B", "Qwen3-8B-AWQ", "Qwen3-8B-FP8"),
    8_537_680_896: ("gemma-7b",),
    9_241_705_984: ("gemma-2-9b-it",),
    9_399_951_360: ("glm-4-9b-chat",),
    9_400_279_040: ("GLM-4-9B-0414",),
    12_247_782_400: ("Mistral-Nemo-Instruct-2407",),
    14_315_784_192: ("Qwen1.5-MoE-A2.7B",),
    14_659_507_200: ("phi-4",),
    14_768_307_200: ("Qwen3-14B", "Qwen3-14B-AWQ"),
    14_770_033_664: ("Qwen2.5-14B-Instruct", "Qwen2.5-14B-Instruct-FP8-dynamic"),
    15_706_484_224: (
        "DeepSeek-V2-Lite",
        # Without topk_method, V2's default is "greedy", which has no score correction (transformers, DeepseekV2Config).
        "DeepSeek-V2-Lite-Chat",
    ),
    20_914_757_184: ("gpt-oss-20b",),
    23_572_403_200: ("Mistral-Small-24B-Instruct-2501", "Mistral-Small-24B-Instruct-2501-quantized.w4a16"),
    27_227_128_320: ("gemma-2-27b-it",),
    30_532_122_624: ("Qwen3-30B-A3B", "Qwen3-Coder-30B-A3B-Instruct"),
    32_762_123_264: ("Qwen3-32B", "Qwen3-32B-AWQ", "Qwen3-32B-FP8", "Qwen3-32B-FP8-Static-PerTensor"),
    32_763_876_352: ("Qwen2.5-32B-Instruct", "Qwen2.5-Coder-32B-Instruct-AWQ"),
    34_980_831_232: ("c4ai-command-r-v01",),
    46_702_792_704: ("Mixtral-8x7B-v0.1", "Mixtral-8x7B-Instruct-v0.1"),
    70_553_706_496: (
        "Llama-3.3-70B-Instruct", "Llama-3.3-70B-Instruct-FP8-dynamic", "Llama-3.3-70B-Instruct-quantized.w8a8",
        "Llama-3.1-70B-Instruct-FP8", "Meta-Llama-3-70B-Instruct-AWQ",
    ),
    72_706_203_648: ("Qwen2.5-72B-Instruct", "Kimi-Dev-72B"),
    116_829_156_672: ("gpt-oss-120b",),
    235_093_634_560: ("Qwen3-235B-A22B-Instruct-2507-FP8", "Qwen3-235B-A22B-Instruct-2507-AWQ"),
    405_853_388_800: ("Meta-Llama-3.1-405B",),
    # The decoder's 61 layers; with the layer for multi-token prediction, the files hold about 684.5 billion.
    671_026_419_200: ("DeepSeek-V3", "DeepSeek-R1", "DeepSeek-V3.1-NVFP4"),
}  # fmt: skip
NAMED = [(name, number) for number, names in PUBLISHED.items() for name in names]


@pytest.mark.parametrize(("name", "number"), NAMED)
def test_the_parameters_of_a_real_model_are_the_published_ones(name: str, number: int, model):
    assert parameters(derived_tensors(model(name))) == number


def test_an_embedding_model_has_no_output_layer(model):
    # The architecture is MistralModel, which has no lm_head to tie or to load.
    assert parameters(derived_tensors(model("e5-mistral-7b-instruct"))) == 7_110_660_096


# The published total, and the part of it that is not the decoder (tower, projector), counted by their classes in
# transformers. What is left over is the decoder, to the last digit.
SEEING: dict[str, tuple[int, int]] = {
    "Qwen2.5-VL-3B-Instruct": (3_754_622_976, 668_684_288),
    "Qwen2.5-VL-7B-Instruct": (8_292_166_656, 676_550_144),
    "Qwen2.5-VL-72B-Instruct": (73_410_777_344, 704_573_696),
    "Qwen3-VL-8B-Instruct": (8_767_123_696, 576_388_336),
    "gemma-3-4b-it": (4_300_079_472, 419_816_304),
    "gemma-3-12b-it": (12_187_325_040, 421_290_864),
    "gemma-3-27b-it": (27_432_406_640, 423_060_336),
    "Mistral-Small-3.1-24B-Instruct-2503": (24_011_361_280, 438_958_080),
    "Mistral-Small-3.1-24B-Instruct-2503-quantized.w8a8": (24_011_361_280, 438_958_080),
    "Mistral-Small-3.2-24B-Instruct-2506": (24_011_361_280, 438_958_080),
    "Llama-4-Scout-17B-16E-Instruct": (108_641_793_536, 871_932_416),
    # Mistral-7B-v0.2 (7,241,732,096) with 64 tokens more.
    "llava-v1.6-mistral-7b-hf": (7_566_747_648, 7_566_747_648 - 7_241_732_096 - 2 * 64 * 4096),
}


@pytest.mark.parametrize("name", SEEING)
def test_the_decoder_of_a_model_that_sees_is_the_published_total_without_its_tower(name: str, model):
    total, tower = SEEING[name]
    assert parameters(derived_tensors(model(name, without="vision_config"))) == total - tower


@pytest.mark.parametrize("name", SEEING)
def test_the_tower_is_about_what_is_left_of_the_published_total(name: str, model):
    # Projectors differ in form from family to family, and biases and norms of a tower are not derived: a tenth.
    # The gate of Qwen2.5-VL's feed-forward part is told by the wrapper's model_type alone; Qwen3-VL has three further
    # mergers (deepstack_visual_indexes).
    _, tower = SEEING[name]
    with_tower, without = model(name), model(name, without="vision_config")
    derived = parameters(derived_tensors(with_tower)) - parameters(derived_tensors(without))
    assert derived == pytest.approx(tower, rel=0.1)


# Published, and short of it by the biases of norms (phi-2: of its lm_head too), which are not derived.
NEARLY = {
    "opt-125m": 125_239_296,
    "phi-2": 2_779_683_840,
    "starcoder2-7b": 7_173_923_840,
    "falcon-7b": 7_217_189_760 - 65_024 * 4544,  # less the stored copy of the tied embeddings
    "falcon-7b-instruct": 7_217_189_760 - 65_024 * 4544,
}


@pytest.mark.parametrize("name", NEARLY)
def test_the_parameters_of_a_model_with_biased_norms_fall_short_by_no_more_than_these(name: str, model):
    missing = NEARLY[name] - parameters(derived_tensors(model(name)))
    assert 0 < missing < 2e-4 * NEARLY[name]


# In billions, as the model cards have them: rounded, some to tens, so within one per cent.
ROUNDED = {
    "Nemotron-H-8B-Base-8K": 8.1,
    "NVIDIA-Nemotron-Nano-9B-v2": 8.89,
    "NVIDIA-Nemotron-3-Nano-30B-A3B-BF16": 31.6,
    "Llama-3_3-Nemotron-Super-49B-v1": 49.9,
    "granite-4.0-h-tiny": 7,
    "granite-4.0-h-small": 32,
    "Qwen3-Next-80B-A3B-Instruct": 80,
    "Mistral-Small-4-119B-2603": 119.4,
    "GLM-4.5-Air": 106,
    "MiniMax-M2": 230,
    "MiniMax-M2.5": 230,
    "MiniMax-M2.5-NVFP4": 230,
}


@pytest.mark.parametrize("name", ROUNDED)
def test_the_parameters_of_a_real_model_round_to_the_published_ones(name: str, model):
    assert parameters(derived_tensors(model(name))) / 1e9 == pytest.approx(ROUNDED[name], rel=0.01)


def test_sparse_attention_adds_its_indexer_to_the_model_that_it_was_made_from(model):
    # DeepSeek-V3 and, in each of 61 layers: 64 heads of 128 out of the compressed query, one key, one weight a head.
    indexer = 64 * 128 * 1536 + 128 * 7168 + 64 * 7168
    for name in ("DeepSeek-V3.2", "DeepSeek-V3.2-Exp"):
        assert parameters(derived_tensors(model(name))) == 671_026_419_200 + 61 * indexer


# total_size of the models' own shard indexes, bytes.
TOTAL_SIZES = {
    "Qwen2.5-7B-Instruct": 15_231_233_024,
    "Qwen2.5-72B-Instruct": 145_412_407_296,
    "Qwen3-8B": 16_381_470_720,
    "Mixtral-8x7B-v0.1": 93_405_585_408,
    "gpt-oss-20b": 13_761_264_768,
    "gpt-oss-120b": 65_248_815_744,
}


@pytest.mark.parametrize("name", TOTAL_SIZES)
def test_the_bytes_of_a_real_model_are_those_of_its_index(name: str, model):
    assert sum(group.total_bytes for group in derived_tensors(model(name))) == TOTAL_SIZES[name]
