"""Model folders: which files are delivered, which are refused, and what a sound one holds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from modelberth.base.errors import IntegrityError, UsageError
from modelberth.checkpoint.folder import check_folder, check_path, is_weights, model_files
from modelberth.checkpoint.safetensors import INDEX_NAME, Header, Tensor

# --- which files ---------------------------------------------------------------------------------------


def test_the_files_of_a_model_are_sorted_and_its_tooling_left_out():
    found = ["tokenizer.json", "config.json", "model.safetensors", "original/params.json", "Model.md"]
    tooling = [".git/config", ".gitattributes", "sub/.gitignore", ".cache/huggingface/x.bin", ".DS_Store"]
    ours = [".modelberth/manifest.json", "__pycache__/a.py"]
    assert model_files([*found, *tooling, *ours]) == tuple(sorted(found))


PICKLES = ["pytorch_model.bin", "a.pt", "a.pth", "a.pkl", "a.pickle", "a.ckpt", "a.joblib", "a.npy", "a.npz", "a.h5"]


@pytest.mark.parametrize("path", [*PICKLES, "sub/MODEL.BIN", "model.safetensors.bin"])
def test_pickles_are_refused(path: str):
    with pytest.raises(IntegrityError, match=f"{path} is refused") as caught:
        model_files(["config.json", path])
    assert caught.value.why == "pickled weights can run code when they are loaded"
    assert caught.value.next_step == "deliver the safetensors files only: --exclude, or take the risk: --allow-pickle"


def test_pickles_pass_when_they_are_allowed_and_code_never_does():
    paths = ["config.json", *PICKLES, "sub/MODEL.BIN"]
    assert model_files(paths, allow_pickle=True) == tuple(sorted(paths))
    for path in ("modeling_mistral.py", "sub/a.PY", "lib.so", "run.sh"):
        with pytest.raises(IntegrityError, match=f"{path} is refused"):
            model_files([*paths, path], allow_pickle=True)
    with pytest.raises(IntegrityError, match="is not safe"):
        model_files([*paths, "../a.bin"], allow_pickle=True)
    with pytest.raises(IntegrityError) as caught:
        model_files(["a.bin", "A.bin"], allow_pickle=True)
    assert "only in case" in caught.value.why


@pytest.mark.parametrize("path", ["modeling_mistral.py", "sub/a.PY", "lib.so", "run.sh"])
def test_code_is_refused(path: str):
    with pytest.raises(IntegrityError, match=f"{path} is refused") as caught:
        model_files(["config.json", path])
    assert "trust-remote-code" in caught.value.why


@pytest.mark.parametrize(
    ("pair", "first"),
    [
        (("Config.json", "config.json"), "Config.json"),
        (("a/B.json", "a/b.json"), "a/B.json"),
        (("CONFIG.json", "Config.json"), "CONFIG.json"),
    ],
)
def test_names_that_differ_only_in_case_are_refused(pair: tuple[str, str], first: str):
    for order in (pair, pair[::-1]):
        with pytest.raises(IntegrityError) as caught:
            model_files(order)
        assert caught.value.why == f"its name differs from {first} only in case"


UNSAFE = {
    "empty": "", "absolute": "/etc/passwd", "parent": "../a", "parent inside": "a/../b", "here": "./a",
    "empty part": "a//b", "ends in a slash": "a/", "backslash": "a\\b", "drive": "C:a", "new line": "a\nb",
    "zero byte": "a\0b", "escape": "a\x1b[31m", "turned text": "a\u202ebnosj", "half a surrogate pair": "a\udc80",
    "no-break space": "a\u00a0b",
}  # fmt: skip


@pytest.mark.parametrize("path", UNSAFE.values(), ids=UNSAFE)
def test_unsafe_paths_are_refused(path: str):
    for refuse in (check_path, lambda path: model_files([path])):
        with pytest.raises(IntegrityError) as caught:
            refuse(path)
        assert caught.value.what == f"the file path {path!r} is not safe"


@pytest.mark.parametrize("path", ["a", "a/b/c.json", "...", "a..b", "a b", "模型.json", ".hidden", "a~"])
def test_plain_paths_are_taken(path: str):
    check_path(path)
    assert model_files([path]) == (path,)


@settings(max_examples=150)
@given(st.text("ab./\\:\0 ", max_size=8) | st.text(max_size=8))
def test_a_path_that_is_taken_stays_in_its_folder(path: str):
    try:
        check_path(path)
    except IntegrityError:
        return
    base = Path("/base")
    joined = base.joinpath(path)
    assert joined.is_relative_to(base)
    assert joined.parts == (*base.parts, *path.split("/"))


def test_weights_are_told_by_name():
    assert [name for name in ("a.safetensors", "a.safetensors.index.json", "a.bin") if is_weights(name)] == [
        "a.safetensors"
    ]


# --- what a folder holds -------------------------------------------------------------------------------

HARBOR_PARAMETERS = 2_295_552
"""As training counted them: examples/harbor/weights/report.json."""


@pytest.mark.parametrize("variant", ["bf16", "w4a16"])
def test_a_model_has_the_same_parameters_however_they_are_stored(variant: str, harbor: Path, headers_in):
    folder = harbor / "weights" / variant
    index = folder / INDEX_NAME
    report = json.loads((harbor / "weights" / "report.json").read_bytes())
    headers = headers_in(folder)
    files = model_files(path.name for path in folder.iterdir())
    checkpoint = check_folder(
        files, (folder / "config.json").read_bytes(), headers, index.read_bytes() if index.exists() else None
    )
    assert checkpoint.parameters == report["parameters"] == HARBOR_PARAMETERS
    assert sum(header.file_bytes for header in headers.values()) == report["bytes"][variant]
    assert 0.99 < checkpoint.weight_bytes / report["bytes"][variant] < 1
    assert checkpoint.shape.precision == variant
    assert checkpoint.headers == headers


CONFIG = json.dumps(
    {"architectures": ["A"], "num_hidden_layers": 1, "num_attention_heads": 1, "hidden_size": 8, "vocab_size": 8}
    | {"max_position_embeddings": 8, "intermediate_size": 8}
).encode()


def holding(*tensors: Tensor) -> Header:
    return Header(tensors, 1000)


def words(name: str, dtype: str = "I32", shape: tuple[int, ...] = (4, 2)) -> Tensor:
    return Tensor(name, dtype, shape, 0, 32)


@pytest.mark.parametrize(
    ("tensor", "parameters"),
    [
        (words("a.weight"), 8),
        (words("a.weight_packed"), 64),
        (words("a.qweight"), 64),
        (words("a.weight_packed", "U8", (4, 8)), 64),
        (words("a.weight_global_scale", "F32", (8,)), 0),
        (words("a.input_scale", "F32", (8,)), 0),
        (words("a.weight_scale_inv", "F32", (8,)), 0),
        (words("mlp.experts.gate_up_proj_blocks", "U8", (4, 8)), 64),
        (words("mlp.experts.gate_up_proj_scales", "U8", (4, 8)), 0),
        (words("model.rotary_emb.inv_freq", "F32", (8,)), 0),
        (words("a.weight_scale", "F32"), 0),
        (words("a.weight_shape"), 0),
        (words("a.weight_zero_point"), 0),
        (words("a.weight_g_idx"), 0),
        (words("a.scales", "F32"), 0),
        (words("a.qzeros"), 0),
        (words("a.g_idx"), 0),
        (words("a.bias", "F32", (8,)), 8),
        (words("scalar", "F32", ()), 1),
        (words("none", "F32", (0, 5)), 0),
    ],
    ids=lambda value: f"{value.name} {value.dtype}" if isinstance(value, Tensor) else str(value),
)
def test_parameters_of_a_tensor(tensor: Tensor, parameters: int):
    checkpoint = check_folder([], CONFIG, {"model.safetensors": holding(tensor)}, None)
    assert (checkpoint.parameters, checkpoint.weight_bytes) == (parameters, 32)


A, B = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
SHARDS = {A: holding(words("a")), B: holding(words("b"))}


def test_a_folder_without_a_config_is_refused():
    with pytest.raises(IntegrityError, match=r"there is no config\.json"):
        check_folder([], None, SHARDS, None)


def test_a_folder_without_weights_is_refused():
    with pytest.raises(IntegrityError, match="there are no weights") as caught:
        check_folder(["config.json", "README.md"], CONFIG, {}, None)
    assert caught.value.why == "no safetensors file among 2 files"


def test_several_shards_need_an_index():
    with pytest.raises(IntegrityError, match=r"index\.json is missing") as caught:
        check_folder([A, B], CONFIG, SHARDS, None)
    assert caught.value.why == "2 weight files need an index to say which is whose"


def test_an_index_is_checked_even_where_one_file_needs_none():
    index = json.dumps({"weight_map": {"a": A, "b": B}}).encode()
    assert check_folder([A, B], CONFIG, SHARDS, index).parameters == 16
    with pytest.raises(IntegrityError, match="is not a sound safetensors checkpoint"):
        check_folder([A], CONFIG, {A: SHARDS[A]}, index)


def test_a_broken_config_is_refused_with_its_own_reason():
    with pytest.raises(UsageError, match=r"config\.json does not describe a model") as caught:
        check_folder([], b"{}", SHARDS, None)
    assert caught.value.exit_code == 2


def test_layers_beyond_the_config_are_bytes_but_no_parameters():
    # Multi-token prediction: one more layer on disk than the decoder has, which engines leave where it is.
    loaded, beyond = words("model.layers.0.mlp.up_proj.weight"), words("model.layers.1.mlp.up_proj.weight")
    checkpoint = check_folder([], CONFIG, {"model.safetensors": holding(loaded, beyond)}, None)
    assert (checkpoint.parameters, checkpoint.weight_bytes) == (8, 64)


def test_a_second_copy_of_the_weights_stays_behind():
    shards = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    assert model_files(["config.json", "consolidated.safetensors", *shards]) == ("config.json", *shards)
    assert model_files(["consolidated.safetensors", "params.json"]) == ("consolidated.safetensors", "params.json")
