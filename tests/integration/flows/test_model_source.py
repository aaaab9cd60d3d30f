"""Reading a model without its weights: from folders, files, a real S3 server and an HTTP server that speaks as the Hub.

Every form of a name, every lie of a header, and how little is read of what is large.
"""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import threading
import traceback
import uuid
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote

import pytest
from huggingface_hub import close_session, constants

from modelberth.adapters import s3_server
from modelberth.adapters.folder import HashCache
from modelberth.adapters.registry import Registry, RegistryOptions
from modelberth.adapters.s3 import S3Endpoint, S3Store
from modelberth.base.errors import AuthError, IntegrityError, PrerequisiteMissing, RemoteUnavailable, UsageError
from modelberth.flows import shelves
from modelberth.flows.model_source import MAX_CONFIG_BYTES, read_model
from modelberth.flows.origins import FolderOrigin
from modelberth.flows.push import push_folder
from modelberth.flows.source import hash_source, open_source
from modelberth.spec.addresses import OciAddress

pytestmark = pytest.mark.integration

CONFIGS = Path(__file__).parents[2] / "data" / "model-configs"
MISTRAL = CONFIGS / "Mistral-Small-24B-Instruct-2501.json"
PARAMETERS = 2_295_552
"""Of the example model."""
SECRETS = {"HF_TOKEN": "hf_canary0004", "AWS_SECRET_ACCESS_KEY": "canary-aws-secret-0002"}


@pytest.fixture(autouse=True)
def settings(monkeypatch, tmp_path):
    """Nobody's settings and a folder of our own; secrets that must not show."""
    prefixes = ("AWS_", "HF_", "HUGGING")
    for name in [name for name in os.environ if name.startswith(prefixes) or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    for name, value in {
        **SECRETS,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": str(tmp_path / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "no-credentials"),
        "HF_ENDPOINT": "http://127.0.0.1:0",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    close_session()
    yield
    close_session()


@pytest.fixture
def refused():
    """Read a model that must be refused; nothing that could be shown of the error holds a secret."""

    def read(kind, text) -> str:
        with pytest.raises(kind) as caught:
            read_model(str(text))
        error = caught.value
        assert type(error) is kind
        for secret in SECRETS.values():
            assert secret not in "".join(traceback.format_exception(error))
            assert secret not in f"{error.what}{error.where}{error.why}{error.next_step}"
        return f"{error.what} | {error.where} | {error.why} | {error.next_step}"

    return read


def safetensors(entries: dict[str, tuple[str, list[int], int]]) -> tuple[bytes, int]:
    """The first bytes of a file of these tensors (dtype, shape, bytes), and the size of the whole."""
    header, position = {}, 0
    for name, (dtype, shape, size) in entries.items():
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [position, position + size]}
        position += size
    content = json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content, 8 + len(content) + position


def write_sparse(path: Path, start: bytes, size: int) -> None:
    with path.open("wb") as file:
        file.write(start)
        file.truncate(size)


def sparse_mistral(folder: Path, shards: int) -> int:
    """Mistral Small 24B as a checkpoint of holes: real headers and sizes, no tensors on disk. Returns its bytes."""
    folder.mkdir(parents=True)
    shutil.copy(MISTRAL, folder / "config.json")
    shapes = {"model.embed_tokens.weight": [131_072, 5120], "lm_head.weight": [131_072, 5120],
              "model.norm.weight": [5120]}  # fmt: skip
    for layer in range(40):
        for name, shape in {
            "self_attn.q_proj": [4096, 5120], "self_attn.k_proj": [1024, 5120], "self_attn.v_proj": [1024, 5120],
            "self_attn.o_proj": [5120, 4096], "mlp.gate_proj": [32_768, 5120], "mlp.up_proj": [32_768, 5120],
            "mlp.down_proj": [5120, 32_768], "input_layernorm": [5120], "post_attention_layernorm": [5120],
        }.items():  # fmt: skip
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    names, weight_map, total = list(shapes), {}, 0
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        entries = {}
        for name in names[number::shards]:
            rows, columns = (*shapes[name], 1)[:2]
            entries[name] = ("BF16", shapes[name], rows * columns * 2)
            weight_map[name] = file
        start, size = safetensors(entries)
        write_sparse(folder / file, start, size)
        total += size
    index = json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}, indent=2)
    (folder / "model.safetensors.index.json").write_text(index)
    return sum(path.stat().st_size for path in folder.iterdir())


# --- folders and files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "scheme"), [("bf16", "bf16"), ("w4a16", "w4a16")])
def test_a_folder(weights, precision, scheme):
    folder = weights(precision)
    source = read_model(str(folder))
    assert (source.name, source.kind, source.transferred) == (str(folder), "folder", 0)
    assert source.model.from_headers
    assert source.model.parameters == PARAMETERS
    assert source.model.shape.precision == scheme
    assert source.image_bytes == sum(path.stat().st_size for path in folder.iterdir())


def test_a_relative_folder(model, monkeypatch):
    monkeypatch.chdir(model().parent)
    for text in ("model", "./model", "model/", f"../{Path.cwd().name}/model"):
        assert read_model(text).kind == "folder"


def test_a_folder_without_weights(model):
    folder = model()
    for path in folder.glob("model*"):
        path.unlink()
    source = read_model(str(folder))
    assert (source.kind, source.model.from_headers, source.image_bytes) == ("folder", False, None)
    assert source.model.parameters == PARAMETERS


def test_a_folder_whose_weights_are_holes(tmp_path):
    total = sparse_mistral(tmp_path / "mistral", 10)
    source = read_model(str(tmp_path / "mistral"))
    assert total == source.image_bytes > 47_000_000_000
    assert source.model.parameters == 23_572_403_200


def test_what_does_not_matter(model):
    """Pickles, code, links and other people's weights stand beside many a model on the Hub."""
    folder = model()
    before = read_model(str(folder))
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04")
    (folder / "modeling.py").write_text("raise SystemExit")
    (folder / "broken-link").symlink_to("nowhere")
    (folder / ".git").mkdir()
    (folder / ".git" / "object").write_bytes(bytes(1000))
    (folder / "consolidated.safetensors").write_bytes(b"Mistral's own second copy")
    (folder / "original").mkdir()
    (folder / "original" / "other.safetensors").write_bytes(b"")
    os.mkfifo(folder / "pipe.json")
    assert read_model(str(folder)) == before


def test_files_that_the_index_does_not_name_are_not_loaded(model):
    folder = model()
    (folder / "adapter_model.safetensors").write_bytes(b"not even sound")
    assert read_model(str(folder)).model.parameters == PARAMETERS


def test_a_hub_cache(model, tmp_path):
    """Files are links to blobs that stand beside, in a folder that is itself somewhere else."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    model().rename(blobs)
    snapshot.mkdir(parents=True)
    for path in blobs.iterdir():
        (snapshot / path.name).symlink_to(Path("../../blobs") / path.name)
    assert read_model(str(snapshot)).model.parameters == PARAMETERS


@pytest.mark.parametrize("name", ["Qwen2.5-7B-Instruct", "DeepSeek-V3", "gpt-oss-20b"])
def test_a_config_of_any_name(name):
    source = read_model(str(CONFIGS / f"{name}.json"))
    assert (source.name, source.kind) == (str(CONFIGS / f"{name}.json"), "config")
    assert (source.transferred, source.image_bytes, source.model.from_headers) == (0, None, False)


def test_modelopt_keeps_the_quantisation_beside(tmp_path):
    name = "DeepSeek-V3.1-NVFP4"
    folder = tmp_path / "modelopt"
    folder.mkdir()
    config = json.loads((CONFIGS / f"{name}.json").read_text())
    config.pop("quantization_config", None)
    (folder / "config.json").write_text(json.dumps(config))
    alone = read_model(str(folder))
    shutil.copy(CONFIGS / "hf_quant_config" / f"{name}.json", folder / "hf_quant_config.json")
    for text in (folder, folder / "config.json"):
        quantised = read_model(str(text))
        assert quantised.model.stored_bytes < 0.7 * alone.model.stored_bytes
    (folder / "config.json").rename(folder / "other.json")
    assert read_model(str(folder / "other.json")).model == alone.model


def test_a_broken_hf_quant_config(model, refused):
    folder = model()
    (folder / "hf_quant_config.json").write_text("{")
    assert "hf_quant_config.json" in refused(UsageError, folder)
    assert "hf_quant_config.json" in refused(UsageError, folder / "config.json")


# --- names of nothing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "  ", "nothing", "/no/such/folder", "a\0b", "a" * 5000, "no/such/folder",
                                  "../nowhere", "owner/name@", "owner name", "://", "~/x"])  # fmt: skip
def test_no_such_model(refused, text):
    if text == "owner/name@":
        assert "owner/name" in refused(RemoteUnavailable, text)  # no revision is the default one
    elif len(text) > 255:
        refused(UsageError, text)
    elif text == "://":
        assert "expected a folder, hf://, s3:// or oci://" in refused(UsageError, text)
    else:
        forms = "give a folder, a config.json, s3://bucket/prefix/, oci://registry/name:tag or hf://owner/name"
        assert forms in refused(UsageError, text)


@pytest.mark.parametrize("text", ["https://huggingface.co/owner/name", "gs://bucket/prefix", "hf://owner", "hf://",
                                  "s3://", "s3://BUCKET/x", "hf://user:hf_canary0004@host/x",
                                  "s3://key:canary-aws-secret-0002@bucket/x"])  # fmt: skip
def test_addresses_that_are_none(refused, text):
    refused(UsageError, text)


def test_the_nearest_name(model, refused):
    folder = model(name="harbor-bf16")
    assert f"did you mean '{folder}'?" in refused(UsageError, folder.parent / "harbor-bf61")
    assert f"did you mean '{folder / 'config.json'}'?" in refused(UsageError, folder / "confg.json")


def test_a_name_like_the_hubs_that_was_meant_for_a_folder(refused):
    Path("weights/bf16").mkdir(parents=True)
    said = refused(RemoteUnavailable, "weights/bf61")
    assert "there is no folder or file 'weights/bf61' here either" in said
    assert "did you mean 'weights/bf16'?" in said
    assert "give a folder or a config.json" in said


def test_a_config_that_stands_below(model, refused):
    folder = model()
    assert f"did you mean '{folder}'?" in refused(UsageError, folder.parent)


@pytest.mark.parametrize(("file", "text"), [("model.gguf", "GGUF"), ("params.json", "Mistral's own format"),
                                            ("README.md", "1 files and no config.json")])  # fmt: skip
def test_a_folder_without_config(tmp_path, refused, file, text):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / file).write_text("{}")
    said = refused(UsageError, folder)
    assert "there is no config.json" in said
    assert text in said


def test_a_weight_file_is_no_config(model, refused):
    folder = model("w4a16")
    assert f"give its folder: {folder}" in refused(UsageError, folder / "model.safetensors")


def test_neither_folder_nor_file(tmp_path, refused):
    os.mkfifo(tmp_path / "pipe")
    refused(UsageError, tmp_path / "pipe")
    refused(UsageError, "/dev/zero")


def test_a_folder_of_everything(model, refused, monkeypatch):
    monkeypatch.setattr(shelves, "MAX_FILES", 5)
    assert "more than 5 files" in refused(UsageError, model())


def test_a_folder_that_may_not_be_read(model, script):
    """As a user whom permissions bind: root reads everything."""
    folder = model()
    folder.chmod(0)
    code = """
import os, sys
from modelberth.base.errors import AuthError
from modelberth.flows.model_source import read_model
if os.getuid() == 0:
    os.setresuid(65534, 65534, 65534)
try:
    read_model(sys.argv[1])
except AuthError as error:
    print("refused", error.where)
"""
    try:
        said = script(code, folder).lines.rest()
    finally:
        folder.chmod(0o755)
    assert said.startswith("refused")


# --- configs that are none ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "{}", '{"architectures": ["X"]}', "\ufeff{}", "[" * 100_000]
)
def test_a_config_that_describes_nothing(model, refused, content):
    folder = model()
    (folder / "config.json").write_text(content)
    assert str(folder / "config.json") in refused(UsageError, folder)
    assert str(folder / "config.json") in refused(UsageError, folder / "config.json")


@pytest.mark.parametrize("file", ["config.json", "hf_quant_config.json"])
def test_a_config_that_is_too_large(model, refused, file):
    folder = model()
    write_sparse(folder / file, b"{", MAX_CONFIG_BYTES + 1)
    assert "at most 10,000,000 are read" in refused(UsageError, folder)
    assert "at most 10,000,000 are read" in refused(UsageError, folder / "config.json")


# --- headers and indexes that lie --------------------------------------------------------------------------


def one_tensor(begin: int, end: int, shape: object) -> bytes:
    return json.dumps({"w": {"dtype": "U8", "shape": shape, "data_offsets": [begin, end]}}).encode()


def framed(header: bytes, data: int) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(data)


TWO = json.dumps({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
                  "b": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}}).encode()  # fmt: skip
LIES = {
    "empty": b"",
    "short": b"\x08\0\0",
    "a git-lfs pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n",
    "longer than the file": struct.pack("<Q", 1 << 20) + b"{}",
    "longer than anything": struct.pack("<Q", 2**64 - 1) + b"{}",
    "no JSON": framed(b"x" * 50, 0),
    "no object": framed(b"[]", 0),
    "nested": framed(b'{"w":' + b"[" * 100_000, 0),
    "a gap": framed(one_tensor(4, 8, [4]), 8),
    "an overlap": framed(TWO, 6),
    "a wrong shape": framed(one_tensor(0, 8, [9]), 8),
    "an overflow": framed(one_tensor(0, 0, [2**62, 4]), 0),
    "a negative size": framed(one_tensor(0, 8, [-8]), 8),
    "truncated": framed(one_tensor(0, 8, [8]), 7),
    "bytes left over": framed(one_tensor(0, 8, [8]), 9),
    "a key twice": framed(b'{"w": 1, "w": 2}', 0),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_header_that_lies(model, refused, lie):
    folder = model("w4a16")
    (folder / "model.safetensors").write_bytes(LIES[lie])
    assert str(folder / "model.safetensors") in refused(IntegrityError, folder)


def test_a_header_of_100_megabytes_is_refused_unread(model, refused):
    folder = model("w4a16")
    write_sparse(folder / "model.safetensors", struct.pack("<Q", 100_000_001) + b"{", 200_000_000)
    assert "at most 100,000,000 are allowed" in refused(IntegrityError, folder)


def test_headers_that_are_too_large_together(model, refused):
    folder = model()
    for path in folder.glob("model-*"):
        write_sparse(path, struct.pack("<Q", 60_000_000) + b"{", 70_000_000)
    assert "together they claim 120,000,000 bytes" in refused(IntegrityError, folder)


def test_a_header_longer_than_the_first_read(model):
    folder = model("w4a16")
    content = (folder / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    longer = content[8 : 8 + length] + b" " * 600_000
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(longer)) + longer + content[8 + length :])
    assert read_model(str(folder)).model.parameters == PARAMETERS


@pytest.mark.parametrize("index", [b"", b"{}", b"[]", b"null", b'{"weight_map": {}}', b'{"weight_map": []}',
                                   b'{"weight_map": {"a": 5}}', b'{"weight_map": {"a": null}}', b"\xff", b"[" * 100_000,
                                   b'{"weight_map": {"a": "../../config.json"}}',
                                   b'{"weight_map": {"a": "config.json"}}'])  # fmt: skip
def test_an_index_that_is_none(model, refused, index):
    folder = model()
    (folder / "model.safetensors.index.json").write_bytes(index)
    assert str(folder / "model.safetensors.index.json") in refused(IntegrityError, folder)


def test_a_shard_is_missing(model, refused):
    folder = model()
    (folder / "model-00002-of-00002.safetensors").unlink()
    assert "it names files that are not there: model-00002-of-00002.safetensors" in refused(IntegrityError, folder)


def test_all_shards_are_missing(model, refused):
    folder = model()
    for path in folder.glob("model-*"):
        path.unlink()
    assert "it names files that are not there" in refused(IntegrityError, folder)


def test_a_shard_is_a_link_to_nothing(model, refused):
    folder = model()
    shard = folder / "model-00002-of-00002.safetensors"
    shard.unlink()
    shard.symlink_to("nowhere")
    assert "it names files that are not there" in refused(IntegrityError, folder)


def test_a_tensor_in_another_shard(model, refused):
    folder = model()
    path = folder / "model.safetensors.index.json"
    index = json.loads(path.read_text())
    name = next(name for name, file in index["weight_map"].items() if file.startswith("model-00001"))
    index["weight_map"][name] = "model-00002-of-00002.safetensors"
    path.write_text(json.dumps(index))
    assert name in refused(IntegrityError, folder)


def test_an_index_that_is_too_large(model, refused):
    folder = model()
    write_sparse(folder / "model.safetensors.index.json", b"{", 100_000_001)
    assert "too large" in refused(IntegrityError, folder)


def test_shards_without_an_index(model, refused):
    folder = model()
    (folder / "model.safetensors.index.json").unlink()
    said = refused(IntegrityError, folder)
    assert "2 weight files need an index" in said
    assert "give config.json alone" in said


# --- S3 ----------------------------------------------------------------------------------------------------


@pytest.fixture
def bucket(s3, monkeypatch):
    """A bucket on a real server that the AWS_* variables name, and where its objects lie."""
    name = f"b-{uuid.uuid4().hex[:12]}"
    s3.store(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.server.endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.server.keys.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.server.keys.secret_key)
    monkeypatch.setitem(SECRETS, "the server's own", s3.server.keys.secret_key)
    return s3.data / name


@pytest.mark.parametrize("slash", ["", "/"])
@pytest.mark.parametrize("precision", ["bf16", "w4a16"])
def test_a_prefix(bucket, weights, precision, slash):
    shutil.copytree(weights(precision), bucket / "models" / precision)
    shutil.copytree(weights("bf16"), bucket / "models" / f"{precision}-other")
    source = read_model(f"s3://{bucket.name}/models/{precision}{slash}")
    local = read_model(str(weights(precision)))
    assert (source.name, source.kind) == (f"s3://{bucket.name}/models/{precision}/", "s3")
    assert source.model == local.model
    assert source.image_bytes == local.image_bytes
    assert 10_000 < source.transferred < 300_000


def test_a_whole_bucket(bucket, weights):
    shutil.copytree(weights("w4a16"), bucket, dirs_exist_ok=True)
    assert read_model(f"s3://{bucket.name}").model.parameters == PARAMETERS


def test_a_profile_with_an_endpoint(bucket, weights, s3, monkeypatch, tmp_path):
    shutil.copytree(weights("w4a16"), bucket / "m")
    keys = s3.server.keys
    (tmp_path / "config").write_text(
        f"[profile mine]\nregion = eu-west-1\nendpoint_url = {s3.server.endpoint}\n"
        f"aws_access_key_id = {keys.access_key}\naws_secret_access_key = {keys.secret_key}\n"
    )
    for name in ("AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")  # which must not see requests to this machine
    assert read_model(f"s3://{bucket.name}/m").model.parameters == PARAMETERS


def test_many_shards(bucket):
    """As in a model of 671 B: one request a shard, and a few bytes of each."""
    folder = bucket / "m"
    folder.mkdir()
    shutil.copy(MISTRAL, folder / "config.json")
    shards, weight_map = 163, {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        name = f"model.layers.{number % 40}.mlp.experts.{number // 40}.w1.weight"
        start, size = safetensors({name: ("BF16", [200, 200], 80_000)})
        (folder / file).write_bytes(start + bytes(size - len(start)))
        weight_map[name] = file
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    source = read_model(f"s3://{bucket.name}/m/")
    assert source.model.stored_bytes == shards * 80_000
    assert source.transferred < 5_000_000 < source.image_bytes


@pytest.fixture
def plain_s3(tmp_path, monkeypatch):
    """A real S3 server that does not hash what it lists: hashing holes of 50 GB takes minutes."""
    data = tmp_path / "data"
    data.mkdir()
    secret = "canary-plain-secret"
    monkeypatch.setitem(SECRETS, "plain", secret)
    command = [s3_server._rclone(), "serve", "s3", "--etag-hash", "", "--addr", "127.0.0.1:0", str(data)]
    environment = {"PATH": os.environ["PATH"], "RCLONE_AUTH_KEY": f'"plain-key,{secret}"', "RCLONE_CONFIG": os.devnull}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:
        line = next(line for line in process.stderr if "Starting s3 server on [" in line)
        rest = threading.Thread(target=process.stderr.read)
        rest.start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", line.split("[", 1)[1].split("]")[0].rstrip("/"))
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "plain-key")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", secret)
        yield data
        process.kill()
        rest.join()


@pytest.mark.parametrize("shards", [10, 48, 180])
def test_50_gigabytes_cost_less_than_5_megabytes(plain_s3, shards):
    total = sparse_mistral(plain_s3 / "models" / "mistral", shards)
    source = read_model("s3://models/mistral/")
    assert total == source.image_bytes > 47_000_000_000
    assert source.model.parameters == 23_572_403_200
    assert 10_000 < source.transferred < 5_000_000


def test_what_is_counted_is_what_was_sent(s3, proxy, bucket, weights, monkeypatch):
    shutil.copytree(weights("bf16"), bucket / "m")
    sent = []

    def count(method, path, status, headers, body):
        sent.append(0 if "list-type" in path else len(body))

    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy(s3.server.endpoint, count).url)
    assert read_model(f"s3://{bucket.name}/m/").transferred == sum(sent)
    assert len(sent) == 5  # the list, config, index, and one for each shard


def test_nothing_below_the_prefix(bucket, weights, refused):
    shutil.copytree(weights("w4a16"), bucket / "models" / "harbor")
    here = f"s3://{bucket.name}"
    said = refused(UsageError, f"{here}/models/habor")
    assert "no objects below this prefix" in said
    assert f"did you mean '{here}/models/harbor/'?" in said
    assert f"did you mean '{here}/models/harbor/'?" in refused(UsageError, f"{here}/models/harbor/config.json")
    assert f"did you mean '{here}/models/harbor'?" in refused(UsageError, f"{here}/models")
    assert "correct the prefix" in refused(UsageError, f"{here}/something/else/entirely")


def test_no_such_bucket(bucket, s3, refused):
    said = refused(UsageError, "s3://no-such-bucket/m/")
    assert "there is no such bucket" in said
    assert f"{s3.server.endpoint} bucket no-such-bucket" in said


def test_a_prefix_of_everything(bucket, refused, weights, monkeypatch):
    shutil.copytree(weights("w4a16"), bucket / "m")
    monkeypatch.setattr(shelves, "MAX_FILES", 3)
    assert "more than 3 objects" in refused(UsageError, f"s3://{bucket.name}/m/")


def test_wrong_keys(bucket, s3, refused, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRETS["AWS_SECRET_ACCESS_KEY"])
    said = refused(AuthError, f"s3://{bucket.name}/m/")
    assert f"{s3.server.endpoint} bucket {bucket.name}" in said


@pytest.mark.parametrize(("status", "code", "kind"), [
    (403, "AccessDenied", AuthError), (400, "ExpiredToken", AuthError), (400, "InvalidToken", AuthError),
    (404, "NoSuchBucket", UsageError), (500, "InternalError", RemoteUnavailable), (503, "SlowDown", RemoteUnavailable),
])  # fmt: skip
def test_a_store_that_refuses(bucket, s3, proxy, refused, monkeypatch, status, code, kind):
    body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
    server = proxy(s3.server.endpoint, lambda *_arguments: (status, {}, body))
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    assert f"{server.url} bucket {bucket.name}" in refused(kind, f"s3://{bucket.name}/m/")


@pytest.mark.parametrize("body", [b"<html><body>Please log in</body></html>", b"<!doctype html><p>log in", b"", b"{}"])
def test_a_page_where_a_store_should_be(bucket, s3, proxy, refused, monkeypatch, body):
    server = proxy(s3.server.endpoint, lambda *_arguments: (200, {"Content-Type": "text/html"}, body))
    monkeypatch.setenv("AWS_ENDPOINT_URL", server.url)
    said = refused(RemoteUnavailable, f"s3://{bucket.name}/m/")
    assert "AWS_ENDPOINT_URL" in said
    assert server.url in said


def test_no_keys(bucket, refused, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    refused(PrerequisiteMissing, f"s3://{bucket.name}/m/")


def test_nobody_listens(refused, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "http://127.0.0.1:1 bucket bucket" in refused(RemoteUnavailable, "s3://bucket/m/")


@pytest.mark.parametrize("url", ["nonsense", "127.0.0.1:9000", "http://", "http://somebody:canary-aws-secret-0002@"])
def test_an_endpoint_that_is_none(refused, monkeypatch, url):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    assert "AWS_ENDPOINT_URL" in refused(UsageError, "s3://bucket/m/")


def test_a_password_in_the_endpoint_does_not_show(refused, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://somebody:canary-aws-secret-0002@127.0.0.1:1")
    refused(RemoteUnavailable, "s3://bucket/m/")


def test_regions(monkeypatch):
    """AWS_REGION is what pods are given; boto3 alone knows AWS_DEFAULT_REGION only."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    for name, value in (("AWS_DEFAULT_REGION", "eu-west-1"), ("AWS_REGION", "eu-central-1")):
        monkeypatch.setenv(name, value)
        store = S3Store(S3Endpoint(None, region=None), "bucket")
        assert store._client.meta.region_name == value
        assert store._client.meta.endpoint_url == f"https://s3.{value}.amazonaws.com"
        store.close()


@pytest.mark.parametrize("lie", ["a git-lfs pointer", "longer than anything", "truncated", "an overlap"])
def test_a_header_that_lies_in_a_bucket(bucket, weights, refused, lie):
    shutil.copytree(weights("w4a16"), bucket / "m")
    (bucket / "m" / "model.safetensors").write_bytes(LIES[lie])
    assert f"s3://{bucket.name}/m/model.safetensors" in refused(IntegrityError, f"s3://{bucket.name}/m/")


def test_a_shard_is_missing_in_a_bucket(bucket, weights, refused):
    shutil.copytree(weights("bf16"), bucket / "m")
    (bucket / "m" / "model-00001-of-00002.safetensors").unlink()
    assert "model-00001-of-00002.safetensors" in refused(IntegrityError, f"s3://{bucket.name}/m/")


def test_an_answer_that_breaks_off(bucket, s3, proxy, weights, refused, monkeypatch):
    shutil.copytree(weights("w4a16"), bucket / "m")

    def fault(method, path, status, headers, body):
        return (status, headers, body[: len(body) // 2]) if "safetensors" in path else None

    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy(s3.server.endpoint, fault).url)
    refused(RemoteUnavailable, f"s3://{bucket.name}/m/")


def test_more_bytes_than_asked(bucket, s3, proxy, weights, refused, monkeypatch):
    shutil.copytree(weights("w4a16"), bucket / "m")

    def fault(method, path, status, headers, body):
        return (status, {**headers, "Content-Length": "50000000"}, bytes(50_000_000)) if "safetens" in path else None

    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy(s3.server.endpoint, fault).url)
    said = refused(IntegrityError, f"s3://{bucket.name}/m/")
    assert "another range than asked came back" in said
    assert "50000000 bytes declared" in said


# --- images ------------------------------------------------------------------------------------------------


@pytest.fixture
def image(registry, tmp_path, monkeypatch):
    """Push a folder as an image; returns its address without the tag, and its digest."""
    monkeypatch.setenv("HOME", str(tmp_path))  # nobody's logins

    def push(folder: Path) -> tuple[str, str]:
        host = registry.url.removeprefix("http://")
        address = OciAddress(host, f"models/m{uuid.uuid4().hex[:12]}", "1.0", "")
        cache, there = HashCache(tmp_path / "hashes"), Registry(address, RegistryOptions())
        origin = FolderOrigin(folder, hash_source(open_source(folder), cache, lambda _count: None))
        shipped = push_folder(origin, there, "1.0", cache, lambda _count: None, connections=2)
        there.close()
        return f"oci://{host}/{address.repository}", shipped.digest

    return push


@pytest.mark.parametrize("precision", ["bf16", "w4a16"])
def test_an_image(image, weights, precision):
    name, digest = image(weights(precision))
    local = read_model(str(weights(precision)))
    for text in (f"{name}:1.0", f"{name}@{digest}", f"{name}:1.0@{digest}"):
        source = read_model(text)
        assert (source.name, source.kind, source.model) == (text, "oci", local.model)
        assert source.image_bytes == local.image_bytes
        assert 10_000 < source.transferred < 300_000


def test_an_image_that_is_not_there(image, weights, refused):
    name, _ = image(weights("w4a16"))
    assert "there is no complete delivery" in refused(IntegrityError, f"{name}:2.0")
    assert "there is no complete delivery" in refused(IntegrityError, f"{name}@sha256:{'0' * 64}")
    assert "there is no complete delivery" in refused(IntegrityError, f"{name}-2:1.0")


def test_no_registry(refused):
    assert "127.0.0.1:1" in refused(RemoteUnavailable, "oci://127.0.0.1:1/name:1")


# --- the Hub -----------------------------------------------------------------------------------------------


class Hub(BaseHTTPRequestHandler):
    """Speaks as the Hub does, over the folders `owner/name` below a root."""

    protocol_version = "HTTP/1.1"
    root: Path
    asked: list[str]

    def log_message(self, *_arguments):
        return

    def answer(self, status, body=b"", **headers):
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.asked.append(self.path)
        parts = [unquote(part) for part in self.path.partition("?")[0].split("/")[1:]]
        if parts[:2] == ["api", "models"]:
            self.describe(self.root.joinpath(*parts[2:4]), parts[5] if len(parts) > 5 else "main")
        else:
            self.send_range(self.root.joinpath(*parts[:2]), "/".join(parts[4:]))

    def describe(self, folder, revision):
        if not folder.is_dir():
            return self.answer(404, X_Error_Code="RepoNotFound")
        if revision not in {"main", "v1"}:
            return self.answer(404, X_Error_Code="RevisionNotFound")
        files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        names = [{"rfilename": path.relative_to(folder).as_posix(), "size": path.stat().st_size} for path in files]
        return self.answer(200, json.dumps({"sha": "abc123", "siblings": names}).encode())

    def send_range(self, folder, path):
        if folder.name == "gated":
            return self.answer(403, X_Error_Code="GatedRepo")
        begin, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        with (folder / path).open("rb") as file:
            file.seek(begin)
            body = file.read(end + 1 - begin)
        size = (folder / path).stat().st_size
        return self.answer(206, body, Content_Range=f"bytes {begin}-{begin + len(body) - 1}/{size}")


@pytest.fixture
def hub(http_server, monkeypatch, tmp_path):
    """A Hub that HF_ENDPOINT names: the folder of its only owner, and the paths that were asked for."""
    asked: list[str] = []
    handler = type("Handler", (Hub,), {"root": tmp_path / "hub", "asked": asked})
    (tmp_path / "hub" / "owner").mkdir(parents=True)
    monkeypatch.setenv("HF_ENDPOINT", http_server(handler).url)
    return tmp_path / "hub" / "owner", asked


@pytest.mark.parametrize("text", ["hf://owner/bf16", "owner/bf16", "owner/bf16@v1", "hf://owner/bf16@v1"])
def test_a_repository(hub, weights, text):
    folder, asked = hub
    shutil.copytree(weights("bf16"), folder / "bf16")
    source = read_model(text)
    local = read_model(str(weights("bf16")))
    assert (source.name, source.kind) == ("hf://" + text.removeprefix("hf://"), "hub")
    assert source.model == local.model
    assert source.image_bytes == local.image_bytes
    assert 10_000 < source.transferred < 300_000
    assert len(asked) == 5  # the list, config, index, and one for each shard


def test_a_folder_of_this_name_goes_first(hub, weights):
    shutil.copytree(weights("bf16"), Path("owner") / "bf16")
    assert read_model("owner/bf16").kind == "folder"
    assert hub[1] == []


def test_50_gigabytes_of_the_hub(hub):
    sparse_mistral(hub[0] / "mistral", 10)
    source = read_model("owner/mistral")
    assert source.model.parameters == 23_572_403_200
    assert source.transferred < 5_000_000 < 47_000_000_000 < source.image_bytes


def test_a_repository_with_everything(hub, weights):
    """Pickles, Mistral's second copy and folders of other things, as they stand on the Hub."""
    folder = hub[0] / "all"
    shutil.copytree(weights("w4a16"), folder)
    delivered = sum(path.stat().st_size for path in folder.iterdir())
    for name in ("pytorch_model.bin", "consolidated.safetensors", "modeling_x.py", ".gitattributes"):
        (folder / name).write_bytes(bytes(1000))
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.safetensors").write_bytes(bytes(3))
    source = read_model("owner/all")
    assert source.model.parameters == PARAMETERS
    assert source.image_bytes == delivered + 3


@pytest.mark.parametrize(("text", "kind", "said"), [
    ("owner/none", UsageError, "there is no folder or file 'owner/none' here either"),
    ("hf://owner/none", UsageError, "set HF_TOKEN"),
    ("hf://owner/bf16@v9", UsageError, "no revision 'v9'"),
    ("owner/gated", AuthError, "accept its conditions"),
    ("owner/empty", UsageError, "there is no config.json"),
])  # fmt: skip
def test_what_the_hub_does_not_give(hub, weights, refused, text, kind, said):
    for name in ("bf16", "gated"):
        shutil.copytree(weights("bf16"), hub[0] / name)
    (hub[0] / "empty").mkdir()
    assert said in refused(kind, text)


@pytest.mark.parametrize("lie", ["a git-lfs pointer", "longer than anything", "truncated", "nested"])
def test_a_header_that_lies_on_the_hub(hub, weights, refused, lie):
    shutil.copytree(weights("w4a16"), hub[0] / "lies")
    (hub[0] / "lies" / "model.safetensors").write_bytes(LIES[lie])
    assert "hf://owner/lies/model.safetensors" in refused(IntegrityError, "owner/lies")


def test_the_hub_does_not_answer(refused):
    said = refused(RemoteUnavailable, "owner/name")
    assert "http://127.0.0.1:0" in said
    assert "give a folder or a config.json" in said
