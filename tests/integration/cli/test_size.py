"""`berth size` from the command line: every form, every flag and variable, exit codes, mistakes, terminals, pipes."""

from __future__ import annotations

import fcntl
import json
import os
import re
import struct
import subprocess
import termios
from pathlib import Path

import pytest
from ruamel.yaml import YAML

pytestmark = pytest.mark.integration

CONFIGS = Path(__file__).parents[2] / "data" / "model-configs"
MODEL = CONFIGS / "Qwen3-8B.json"
FITS = (MODEL, "--gpu", "L4", "--max-model-len", "8192")
SCHEMA = "modelberth.dev/size/v1"


def planned(berth, *arguments, **environment):
    """The document of a plan, whether it starts or not."""
    done = berth("size", *arguments, "-o", "json", **environment)
    assert done.returncode in {0, 8}, done.stderr
    assert done.stderr == ""
    return json.loads(done.stdout)


# --- forms and exit codes ----------------------------------------------------------------------------------


def test_every_form(berth):
    said = {form: berth("size", *FITS, "-o", form) for form in ("table", "wide", "json", "yaml", "name")}
    assert all((done.returncode, done.stderr) == (0, "") for done in said.values())
    document = json.loads(said["json"].stdout)
    assert document["schemaVersion"] == SCHEMA
    assert YAML(typ="safe").load(said["yaml"].stdout) == document
    assert said["name"].stdout == document["verdict"] == "fits"
    assert said["table"].stdout.splitlines()[0] == f"Fits: {document['reasons'][0]}."
    assert berth("size", *FITS).stdout == said["table"].stdout
    words = {form: set(said[form].stdout.split()) for form in ("table", "wide")}
    assert words["table"] < words["wide"]


def test_the_document_has_the_fields_of_the_contract(berth):
    document = planned(berth, *FITS)
    fields = {
        "model": {"architecture", "parameters", "quantization"},
        "gpu": {"product", "count"},
        "engine": {
            "vllm", "tensorParallel", "maxModelLen", "gpuMemoryUtilization", "maxNumBatchedTokens", "maxNumSeqs",
            "kvCacheDtype", "enforceEager",
        },
        "perGpuGiB": {"total", "budget", "weights", "activation", "nonTorch", "cudaGraphs", "kvCache"},
        "kvCache": {"bytesPerToken", "blocks", "tokens", "maxConcurrency"},
        "maxModelLen": {"requested", "largest"},
    }  # fmt: skip
    for name, inner in fields.items():
        assert inner <= set(document[name])
    ranges = [*document["perGpuGiB"].values(), document["maxModelLen"]["largest"]]
    ranges += [document["kvCache"][name] for name in ("blocks", "tokens", "maxConcurrency")]
    assert all(figure["low"] <= figure["mid"] <= figure["high"] for figure in ranges)
    assert document["reasons"]


@pytest.mark.parametrize(
    ("arguments", "verdict", "words"),
    [
        (FITS, "fits", "Fits: "),
        ((CONFIGS / "Qwen3-32B.json", "--gpu", "L4"), "weights-do-not-fit", "Does not fit: "),
        ((MODEL, "--gpu", "L4", "--vllm", "0.10.2"), "context-too-long", "Context too long: "),
        ((*FITS, "--gpu-memory-utilization", "0.999"), "start-check-fails", "Does not start: "),
        ((*FITS, "--tp", "3"), "unsupported", "Not supported: "),
        ((*FITS, "--tp", "4", "--gpus", "2"), "unsupported", "Not supported: "),
    ],
)
def test_the_exit_code_says_whether_it_starts_and_the_report_why(berth, arguments, verdict, words):
    code = 0 if verdict == "fits" else 8
    for form in ("table", "json", "name"):
        done = berth("size", *arguments, "-o", form)
        assert (done.returncode, done.stderr) == (code, "")
        shown = json.loads(done.stdout)["verdict"] if form == "json" else done.stdout
        assert shown.startswith(words if form == "table" else verdict)


def test_a_folder_with_weights_is_read_from_its_headers(berth, weights):
    done = berth("size", weights("bf16"), "--gpu", "L4", "-o", "wide")
    assert done.returncode == 0
    assert "Tensors: read from safetensors headers (folder)" in done.stdout
    assert planned(berth, weights("w4a16"), "--gpu", "L4")["model"]["quantization"] == "w4a16"


def test_a_header_that_lies(berth, model):
    folder = model("w4a16")
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(4096)
    done = berth("size", folder, "--gpu", "L4")
    assert (done.returncode, done.stdout) == (7, "")
    assert "model.safetensors" in done.stderr


# --- flags and variables -----------------------------------------------------------------------------------

FLAGS = [
    (("--tp", "2"), "BERTH_SIZE_TP", "2", ("engine", "tensorParallel"), 2),
    (("--tensor-parallel-size", "2"), "BERTH_SIZE_TP", "2", ("gpu", "count"), 2),
    (("--max-model-len", "4096"), "BERTH_SIZE_MAX_MODEL_LEN", "4096", ("engine", "maxModelLen"), 4096),
    (
        ("--gpu-memory-utilization", "0.8"), "BERTH_SIZE_GPU_MEMORY_UTILIZATION", "0.8",
        ("engine", "gpuMemoryUtilization"), 0.8,
    ),
    (("--vllm", "0.10.2"), "BERTH_SIZE_VLLM", "0.10.2", ("engine", "vllm"), "0.10.2"),
    (("--entrypoint", "offline"), "BERTH_SIZE_ENTRYPOINT", "offline", ("engine", "entrypoint"), "offline"),
    (
        ("--max-num-batched-tokens", "1024"), "BERTH_SIZE_MAX_NUM_BATCHED_TOKENS", "1024",
        ("engine", "maxNumBatchedTokens"), 1024,
    ),
    (("--max-num-seqs", "16"), "BERTH_SIZE_MAX_NUM_SEQS", "16", ("engine", "maxNumSeqs"), 16),
    (("--kv-cache-dtype", "fp8"), "BERTH_SIZE_KV_CACHE_DTYPE", "fp8", ("engine", "kvCacheDtype"), "fp8"),
    (("--block-size", "32"), "BERTH_SIZE_BLOCK_SIZE", "32", ("engine", "blockSize"), 32),
    (("--enforce-eager",), "BERTH_SIZE_ENFORCE_EAGER", "1", ("engine", "enforceEager"), True),
    (("--gpu", "H100"), "BERTH_SIZE_GPU", "H100", ("gpu", "product"), "NVIDIA-H100-80GB-HBM3"),
]  # fmt: skip


@pytest.mark.parametrize(("flag", "variable", "value", "path", "expected"), FLAGS, ids=lambda value: str(value))
def test_every_flag_and_its_variable(berth, flag, variable, value, path, expected):
    card = () if "--gpu" in flag else ("--gpu", "L4")
    by_flag = planned(berth, MODEL, *card, *flag)
    assert by_flag[path[0]][path[1]] == expected
    assert planned(berth, MODEL, *card, **{variable: value}) == by_flag


def test_a_flag_wins_over_its_variable(berth):
    assert planned(berth, *FITS, BERTH_SIZE_MAX_MODEL_LEN="16")["maxModelLen"]["requested"] == 8192


@pytest.mark.parametrize("flag", ["--expert-parallel", "--enable-expert-parallel"])
def test_expert_parallel(berth, flag):
    model = CONFIGS / "Qwen3-Coder-30B-A3B-Instruct.json"
    assert planned(berth, model, "--gpu", "H100", "--tp", "2", flag)["engine"]["expertParallel"] is True
    plain = planned(berth, model, "--gpu", "H100", "--tp", "2")
    assert plain["engine"]["expertParallel"] is False
    assert planned(berth, model, "--gpu", "H100", "--tp", "2", BERTH_SIZE_EXPERT_PARALLEL="1") != plain


def test_dtype_doubles_the_weights(berth):
    half, full = (planned(berth, *FITS, "--dtype", dtype) for dtype in ("bfloat16", "float32"))
    ratio = full["perGpuGiB"]["weights"]["mid"] / half["perGpuGiB"]["weights"]["mid"]
    assert ratio == pytest.approx(2, abs=0.01)
    assert planned(berth, *FITS, BERTH_SIZE_DTYPE="float32") == full


@pytest.mark.parametrize("size", ["20GiB", "20Gi", str(20 << 30)])
def test_the_memory_that_cuda_reports_replaces_the_catalogue(berth, size):
    total = {"low": 20.0, "mid": 20.0, "high": 20.0}
    assert planned(berth, *FITS, "--gpu-memory", size)["perGpuGiB"]["total"] == total
    assert planned(berth, *FITS, BERTH_SIZE_GPU_MEMORY=size)["perGpuGiB"]["total"] == total


def test_what_is_given_is_not_marked_as_a_default(berth):
    said = berth("size", *FITS, "--entrypoint", "server", BERTH_SIZE_MAX_NUM_SEQS="256").stdout
    marks = {cells[0]: cells[1:] for cells in (re.split(r" {2,}", line) for line in said.splitlines())}
    assert marks["max-num-seqs"] == ["256"]
    assert marks["entrypoint"] == ["server"]
    assert marks["max-model-len"] == ["8,192"]
    assert marks["max-num-batched-tokens"][1:] == ["default"]
    assert marks["vllm"][1:] == ["default"]


def test_names_of_one_card(berth):
    documents = [planned(berth, MODEL, "--gpu", name) for name in ("L4", "NVIDIA-L4", "nvidia l4")]
    assert documents[0] == documents[1] == documents[2]


def test_a_release_that_is_not_known_is_said(berth):
    assert any("is not known here" in reason for reason in planned(berth, *FITS, "--vllm", "0.12.7")["reasons"])


# --- mistakes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--tp", "0"), "0"),
        (("--tp", "two"), "two"),
        (("--max-model-len", "-1"), "-1"),
        (("--max-model-len", str(10**30)), "max-model-len"),
        (("--gpu-memory-utilization", "0"), "gpu-memory-utilization"),
        (("--gpu-memory-utilization", "1.01"), "1.01"),
        (("--gpu-memory-utilization", "nan"), "nan"),
        (("--gpu-memory-utilization", "90%"), "90%"),
        (("--max-num-batched-tokens", "0"), "max-num-batched-tokens"),
        (("--max-num-seqs", "1.5"), "1.5"),
        (("--block-size", "0"), "block-size"),
        (("--gpus", "0"), "gpus"),
        (("--gpu-memory", "24"), "unit"),
        (("--gpu-memory", "lots"), "lots"),
        (("--gpu-memory", "9" * 400), "unit"),
        (("--entrypoint", "batch"), "batch"),
        (("--dtype", "int3"), "int3"),
        (("--vllm", "newest"), "newest"),
        (("--against", "/nowhere.log"), "/nowhere.log"),
        (("--html", "/"), "/"),
        (("-o", "xml"), "xml"),
        (("--gpus-memory", "1"), "--gpus-memory"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else "",
)
def test_mistakes(berth, arguments, said):
    done = berth("size", *FITS, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert said in done.stderr


def test_no_card_says_how_to_name_one(berth):
    done = berth("size", MODEL)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no GPU is named")
    for word in ("nvidia.com/gpu.product", "NVIDIA-L4", "H100", "MI300X", "next:  berth size MODEL --gpu L4"):
        assert word in done.stderr
    assert berth("size", MODEL, BERTH_SIZE_GPU="").returncode == 2


def test_an_unknown_card_names_the_nearest(berth):
    done = berth("size", MODEL, "--gpu", "NVIDIA-L44")
    assert (done.returncode, done.stdout) == (2, "")
    assert "no GPU is known as 'NVIDIA-L44'" in done.stderr
    assert "NVIDIA-L4" in done.stderr.partition("nearest:")[2]
    assert berth("size", MODEL, "--gpu", "\x1b[31mL4000\x1b[0m").returncode == 2


def test_a_misspelt_card_is_told_before_the_model_is_read(berth):
    assert "no GPU is known" in berth("size", "/nowhere", "--gpu", "L44").stderr


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'\xef\xbb\xbf{"architectures": ["LlamaForCausalLM"]}', "byte order mark"),
        (MODEL.read_bytes().replace(b'"hidden_size": 4096', b'"hidden_size": NaN'), "NaN"),
        (MODEL.read_bytes().replace(b'"hidden_size": 4096', b'"hidden_size": -4096'), "-4096"),
        (MODEL.read_bytes().replace(b'"hidden_size": 4096', b'"hidden_size": 4096.5'), "hidden_size"),
        (MODEL.read_bytes().replace(b'"hidden_size": 4096,', b""), "hidden_size"),
        (MODEL.read_bytes().replace(b'"vocab_size": 151936', b'"vocab_size": 1e999'), "vocab_size"),
        (MODEL.read_bytes()[:-20], "JSON"),
        (b"[]", "object"),
        (b"", "JSON"),
        (b"\xff\xfe\x00", ""),
    ],
    ids=["BOM", "NaN", "negative", "fraction", "missing", "infinite", "cut", "list", "empty", "bytes"],
)
def test_a_config_that_describes_no_model(berth, tmp_path, content, said):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    done = berth("size", path, "--gpu", "L4")
    assert (done.returncode, done.stdout) == (2, "")
    assert str(path) in done.stderr
    assert said in done.stderr
    assert "error: " in done.stderr.splitlines()[0]


def test_no_model(berth, tmp_path):
    done = berth("size", tmp_path / "nothing", "--gpu", "L4")
    assert (done.returncode, done.stdout) == (2, "")
    assert berth("size").returncode == 2
    assert berth("size", "a", "b", "--gpu", "L4").returncode == 2


# --- the terminal ------------------------------------------------------------------------------------------


def test_explain_draws_the_card(berth):
    plain, done = berth("size", *FITS), berth("size", *FITS, "--explain")
    assert done.returncode == 0
    assert done.stdout.startswith(plain.stdout)
    drawn = [line for line in done.stdout.splitlines() if line and set(line) <= set("#~x%=:+.")]
    assert [len(line) for line in drawn] == [100]
    assert berth("size", *FITS, BERTH_SIZE_EXPLAIN="1").stdout == done.stdout


@pytest.mark.parametrize("columns", [80, 140])
@pytest.mark.parametrize("colour", [{}, {"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["plain", "NO_COLOR", "dumb"])
def test_explain_fills_the_terminal(berth, columns, colour):
    outer, inner = os.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    command = [berth.program, "size", *map(str, FITS), "--explain"]
    started = subprocess.Popen(command, env={**berth.environment, **colour}, stdout=inner, stderr=subprocess.PIPE)
    os.close(inner)
    said = b""
    with started:
        while True:
            try:
                piece = os.read(outer, 65536)
            except OSError:  # the other end is closed
                break
            said += piece
    os.close(outer)
    assert started.returncode == 0
    assert b"\x1b" not in said
    lines = said.decode().splitlines()
    drawn = [line for line in lines if line and set(line) <= set("#~x%=:+.")]
    assert [len(line) for line in drawn] == [columns]
    assert max(len(line) for line in lines[lines.index(drawn[0]) :]) <= columns


@pytest.mark.parametrize("form", ["table", "json", "yaml", "name"])
def test_a_reader_that_has_gone(berth, form):
    reading, writing = os.pipe()
    os.close(reading)
    started = berth.start("size", *FITS, "-o", form, stdout=writing)
    os.close(writing)
    code, _, stderr = started.end()
    assert (code, stderr) == (141, "")


def test_a_full_disk_behind_the_output(berth):
    with Path("/dev/full").open("w") as full:
        code, _, stderr = berth.start("size", *FITS, stdout=full.fileno()).end()
    assert code == 8
    assert "standard output" in stderr


def test_the_help_names_a_variable_for_every_flag(berth):
    done = berth("size", "--help")
    assert done.returncode == 0
    options = " ".join(done.stdout.partition("Options:")[2].partition("Examples:")[0].split())
    entries = re.findall(r"(?:^| )--([a-z-]+)(?:, --([a-z-]+))? (.*?)(?= --[a-z]| -[a-z], |$)", options)
    names = {
        "gpu", "tp", "max-model-len", "gpu-memory-utilization", "vllm", "entrypoint", "max-num-batched-tokens",
        "max-num-seqs", "kv-cache-dtype", "dtype", "enforce-eager", "expert-parallel", "block-size", "gpu-memory",
        "gpus", "explain", "html", "against",
    }  # fmt: skip
    said = {first: (second, text) for first, second, text in entries}
    assert names <= set(said)
    for name in names:
        assert f"[env var: BERTH_SIZE_{name.upper().replace('-', '_')}" in said[name][1], name
    assert said["tp"][0] == "tensor-parallel-size"
    assert said["expert-parallel"][0] == "enable-expert-parallel"
    assert "BERTH_OUTPUT" in options
