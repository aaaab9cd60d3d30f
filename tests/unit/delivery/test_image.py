"""OCI images: layers that any tar reader takes, the same bytes every time, and manifests that lie refused."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelberth.base.errors import IntegrityError
from modelberth.delivery.image import (
    CONFIG_TYPE,
    FILE_PATH,
    INDEX_TYPE,
    LAYER_TYPE,
    MANIFEST_TYPE,
    Base,
    Descriptor,
    annotation,
    blobs_of,
    describe,
    digest_of,
    file_in_layer,
    image_config,
    image_manifest,
    layer_bytes,
    layer_head,
    layer_piece,
    layer_tail,
    parse_image_manifest,
    platform_manifest,
)
from modelberth.delivery.manifest import FileEntry


def entry(path: str, size: int) -> FileEntry:
    return FileEntry(path, size, "", ())


def layer_of(path: str, content: bytes) -> bytes:
    return layer_head(entry(path, len(content))) + content + layer_tail(len(content))


names = st.text(st.characters(exclude_characters="/\\:", exclude_categories=["C", "Z"]), min_size=1, max_size=130)
paths = st.lists(names.filter(lambda name: name not in {".", ".."}), min_size=1, max_size=4).map("/".join)

# --- layers --------------------------------------------------------------------------------------------


@settings(max_examples=80)
@given(paths, st.binary(max_size=1100))
@example("config.json", b"")
@example("a" * 101, b"x" * 511)
@example("a" * 99 + "/" + "b" * 99 + "/" + "c" * 99, b"x" * 512)
@example("sub/" + "模" * 100, b"x" * 513)
def test_any_tar_reader_finds_the_file_below_models(path: str, content: bytes):
    layer = layer_of(path, content)
    assert len(layer) == layer_bytes(entry(path, len(content)))
    assert len(layer) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(layer), mode="r:") as archive:
        *folders, file = archive.getmembers()
        reader = archive.extractfile(file)
        assert reader is not None
        assert reader.read() == content
    parts = ["models", *path.split("/")]
    assert [folder.name for folder in folders] == ["/".join(parts[:depth]) for depth in range(1, len(parts))]
    assert (file.name, file.size, file.isreg(), file.mode) == (f"models/{path}", len(content), True, 0o644)
    assert all(folder.isdir() and folder.mode == 0o755 for folder in folders)
    owners = {(item.mtime, item.uid, item.gid, item.uname, item.gname) for item in (*folders, file)}
    assert owners == {(0, 0, 0, "", "")}


@pytest.mark.parametrize("size", [8 * 2**30 - 1, 8 * 2**30, 600 * 10**9])
def test_a_file_past_8_gib_has_its_size_in_the_header(size: int):
    large = entry("model.safetensors", size)
    head = io.BytesIO(layer_head(large))
    with tarfile.open(fileobj=head, mode="r:") as archive:
        folder, file = archive.next(), archive.next()
    assert folder is not None
    assert file is not None
    assert (folder.name, file.name, file.size) == ("models", "models/model.safetensors", size)
    assert file.offset_data == len(layer_head(large))
    assert layer_bytes(large) == file.offset_data + -(-size // 512) * 512 + 1024


def test_the_bytes_of_a_layer_are_fixed():
    """The digest that deployments pin depends on no clock, user, locale or release."""
    assert digest_of(layer_of("sub/config.json", b"{}")) == (
        "sha256:ea2fe2a9a29adfbe3563d654e6eda0bb5c33cd8fb94070ee3be13ae848736663"
    )


@given(paths, st.binary(max_size=600))
def test_a_file_is_read_back_from_its_layer(path: str, content: bytes):
    assert file_in_layer(layer_of(path, content), path) == content


def tar_of(*members: tarfile.TarInfo) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            archive.addfile(member, io.BytesIO(bytes(member.size)))
    return buffer.getvalue()


def member(name: str, **fields: Any) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(info, field, value)
    return info


def with_size(field: bytes) -> bytes:
    """A layer whose file has another size field, and a checksum that agrees with it."""
    layer = bytearray(layer_of("a", b"content"))
    layer[512 + 124 : 512 + 136] = field
    layer[512 + 148 : 512 + 156] = b" " * 8
    layer[512 + 148 : 512 + 156] = b"%06o\0 " % sum(layer[512:1024])
    return bytes(layer)


FOLDER = member("models/", type=tarfile.DIRTYPE, mode=0o755)
SOUND = layer_of("a", b"content")

FALSE_LAYERS = {
    "nothing": b"",
    "zero bytes": bytes(4096),
    "text": b"content" * 400,
    "other file": layer_of("b", b"content"),
    "other folder": tar_of(member("files/a", size=7)),
    "cut in the head": SOUND[:700],
    "cut in the content": SOUND[:1030],
    "cut in the tail": SOUND[:-1],
    "more behind it": SOUND + bytes(512),
    "padding that holds bytes": SOUND[:-1] + b"x",
    "link to itself": tar_of(FOLDER, member("models/a", type=tarfile.SYMTYPE, linkname="a")),
    "folder": tar_of(FOLDER, member("models/a", type=tarfile.DIRTYPE)),
    "other owner": tar_of(FOLDER, member("models/a", size=7, uid=1000)),
    "size that leads back to its own header": with_size(b"\xff" * 10 + b"\xfe\0"),
    "negative size": with_size(b"\xff" * 12),
    "size past the end": with_size(b"00000077777\0"),
    "size that is no number": with_size(b"0000000000x\0"),
}  # fmt: skip


@pytest.mark.parametrize("layer", FALSE_LAYERS.values(), ids=FALSE_LAYERS)
def test_a_layer_that_is_not_ours_is_refused(layer: bytes):
    with pytest.raises(IntegrityError, match="a layer does not hold its file") as caught:
        file_in_layer(layer, "a")
    assert caught.value.where == "a"


@given(st.binary(max_size=1100), st.integers(0, len(SOUND)))
def test_any_bytes_are_a_layer_or_an_integrity_error(content: bytes, place: int):
    for layer in (content, SOUND[:place] + content + SOUND[place:]):
        with suppress(IntegrityError):
            assert layer_of("a", file_in_layer(layer, "a")) == layer


@settings(max_examples=150)
@given(paths, st.binary(max_size=1100), st.data())
@example("a", b"", None)
@example("a" * 101, b"x" * 511, None)
def test_any_range_of_a_layer_is_made_of_head_content_and_tail(path: str, content: bytes, data: st.DataObject | None):
    layer, file = layer_of(path, content), entry(path, len(content))
    head, end = len(layer_head(file)), len(layer_head(file)) + len(content)
    edges = [0, 1, head - 1, head, head + 1, end - 1, end, end + 1, len(layer) - 1, len(layer)]
    ranges = [(min(pair), max(pair)) for pair in itertools.product(edges, edges)]
    if data is not None:
        begin = data.draw(st.integers(0, len(layer)))
        ranges.append((begin, data.draw(st.integers(begin, len(layer)))))
    for begin, stop in ranges:
        before, offset, length, after = layer_piece(file, begin, stop - begin)
        assert 0 <= offset <= offset + length <= max(len(content), offset)
        assert before + content[offset : offset + length] + after == layer[begin:stop]
        assert len(before) + length + len(after) == stop - begin


def test_a_range_in_a_layer_of_600_gb_is_found_without_its_bytes():
    size = 600 * 10**9
    file = entry("model.safetensors", size)
    head, middle = layer_head(file), 300 * 10**9
    assert layer_piece(file, len(head) + middle, 1 << 20) == (b"", middle, 1 << 20, b"")
    assert layer_piece(file, 0, layer_bytes(file)) == (head, 0, size, layer_tail(size))


# --- manifests -----------------------------------------------------------------------------------------

LAYERS = (
    describe(LAYER_TYPE, layer_of("a.json", b"{}"), "a.json"),
    describe(LAYER_TYPE, layer_of("b/c.safetensors", b"x"), "b/c.safetensors"),
)
CONFIG = describe(CONFIG_TYPE, image_config(LAYERS))


def test_an_image_says_what_is_in_it():
    config = json.loads(image_config(LAYERS))
    assert (config["architecture"], config["os"]) == ("amd64", "linux")
    assert config["rootfs"] == {"type": "layers", "diff_ids": [layer.digest for layer in LAYERS]}
    assert len(config["history"]) == len(LAYERS)
    manifest = json.loads(image_manifest(CONFIG, LAYERS, {"b": "2", "a": "1"}))
    assert (manifest["schemaVersion"], manifest["mediaType"]) == (2, MANIFEST_TYPE)
    assert manifest["config"] == {"mediaType": CONFIG_TYPE, "digest": CONFIG.digest, "size": CONFIG.size}
    assert [layer["annotations"] for layer in manifest["layers"]] == [{FILE_PATH: layer.path} for layer in LAYERS]


def test_the_bytes_of_an_image_are_fixed():
    manifest = image_manifest(CONFIG, LAYERS, {"b": "2", "a": "1"})
    assert manifest == image_manifest(CONFIG, LAYERS, {"a": "1", "b": "2"})
    assert manifest != image_manifest(CONFIG, LAYERS[::-1], {"a": "1", "b": "2"})
    assert CONFIG.digest == "sha256:7c079defe94518e3567ba3eb38d3fb61d08725e8f1ff9f18ae56094d2b39f595"
    assert digest_of(manifest) == "sha256:e8c63cdc870e44314bb2a632907f549faa6446abb4b44679f445f58a9126f096"


def test_a_manifest_reads_back_as_written():
    manifest = image_manifest(CONFIG, LAYERS, {"key": "value"})
    assert parse_image_manifest(manifest, "here") == LAYERS
    assert (annotation(manifest, "key"), annotation(manifest, "other")) == ("value", "")


@pytest.mark.parametrize("annotations", [None, [], ["key"], "key", 5], ids=json.dumps)
def test_annotations_that_are_none_hold_nothing(annotations: Any):
    assert annotation(json.dumps({"layers": [], "annotations": annotations}).encode(), "key") == ""


def layer(**changes: Any) -> dict[str, Any]:
    sound = {"mediaType": LAYER_TYPE, "digest": LAYERS[0].digest, "size": 5, "annotations": {FILE_PATH: "a.json"}}
    return {key: value for key, value in (sound | changes).items() if value is not ...}


UNREADABLE = "the image's manifest cannot be read"
NO_FILE = "a layer of the image is not a model file"

LIES: dict[str, tuple[Any, str]] = {
    "no layers": ({}, UNREADABLE),
    "layers that are nothing": ({"layers": None}, UNREADABLE),
    "layers that are text": ({"layers": ["a"]}, UNREADABLE),
    "list": ([], UNREADABLE),
    "null": (None, UNREADABLE),
    "no media type": ({"layers": [layer(mediaType=...)]}, UNREADABLE),
    "no digest": ({"layers": [layer(digest=...)]}, UNREADABLE),
    "no size": ({"layers": [layer(size=...)]}, UNREADABLE),
    "annotations as a list": ({"layers": [layer(annotations=[FILE_PATH])]}, UNREADABLE),
    "annotations as text": ({"layers": [layer(annotations=FILE_PATH)]}, UNREADABLE),
    "compressed layer": ({"layers": [layer(mediaType=f"{LAYER_TYPE}+gzip")]}, NO_FILE),
    "media type that is a list": ({"layers": [layer(mediaType=[])]}, NO_FILE),
    "layer with an empty path": ({"layers": [layer(annotations={FILE_PATH: ""})]}, NO_FILE),
    "path that is a number": ({"layers": [layer(annotations={FILE_PATH: 5})]}, NO_FILE),
    "size as text": ({"layers": [layer(size="5")]}, NO_FILE),
    "size that is a boolean": ({"layers": [layer(size=True)]}, NO_FILE),
    "negative size": ({"layers": [layer(size=-5)]}, NO_FILE),
    "digest of another kind": ({"layers": [layer(digest="sha512:" + "0" * 64)]}, NO_FILE),
    "digest that leads elsewhere": ({"layers": [layer(digest="sha256:../../etc/passwd")]}, NO_FILE),
    "digest that is nothing": ({"layers": [layer(digest=None)]}, NO_FILE),
    "path that leads elsewhere": (
        {"layers": [layer(annotations={FILE_PATH: "../a"})]}, "the file path '../a' is not safe",
    ),
    "one file in two layers": ({"layers": [layer(), layer(size=6)]}, "two layers of the image hold the same file"),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES)
def test_a_manifest_that_lies_is_refused(lie: tuple[Any, str]):
    document, what = lie
    with pytest.raises(IntegrityError) as caught:
        parse_image_manifest(json.dumps(document).encode(), "here")
    assert caught.value.what == what


@pytest.mark.parametrize(
    "content",
    [b"", b"\xff", b"[" * 100_000, b"9" * 5000],
    ids=["nothing", "not UTF-8", "nested deeply", "5,000 digits"],
)
def test_what_is_no_json_is_refused(content: bytes):
    with pytest.raises(IntegrityError, match=UNREADABLE):
        parse_image_manifest(content, "here")


def test_layers_without_a_file_are_those_of_the_base():
    of_others = [layer(annotations=...), layer(annotations={}), layer(annotations=None), layer(annotations={"a": "b"})]
    content = json.dumps({"layers": [*of_others, layer(mediaType="gzip", annotations=...), layer()]}).encode()
    assert parse_image_manifest(content, "here") == (Descriptor(LAYER_TYPE, LAYERS[0].digest, 5, "a.json"),)


scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3) | st.just([]) | st.just({})


@settings(max_examples=150)
@given(scalars | st.lists(scalars | st.dictionaries(st.sampled_from(sorted(layer())), scalars).map(layer().__or__)))
def test_any_layers_are_descriptors_or_an_integrity_error(layers: Any):
    with suppress(IntegrityError):
        found = parse_image_manifest(json.dumps({"layers": layers}).encode(), "here")
        ours = [item for item in layers if FILE_PATH in (item.get("annotations") or {})]
        assert [item.to_json() for item in found] == ours


def test_a_descriptor_names_its_file_only_where_it_has_one():
    assert "annotations" not in Descriptor(LAYER_TYPE, "sha256:0", 1).to_json()


# --- on a base -----------------------------------------------------------------------------------------

GZIPPED = "application/vnd.oci.image.layer.v1.tar+gzip"
BELOW = (Descriptor(GZIPPED, "sha256:" + "1" * 64, 700), Descriptor(GZIPPED, "sha256:" + "2" * 64, 800))
UNPACKED = ["sha256:" + "a" * 64, "sha256:" + "b" * 64]
BASE_CONFIG = {
    "architecture": "arm64", "os": "linux", "variant": "v8",
    "config": {"Env": ["PATH=/bin"], "User": "1000"},
    "history": [{"created_by": "ADD files"}, {"created_by": "ENV", "empty_layer": True}, {"created_by": "RUN"}],
    "rootfs": {"type": "layers", "diff_ids": UNPACKED},
}  # fmt: skip


def base(**changes: Any) -> Base:
    document = {key: value for key, value in (BASE_CONFIG | changes).items() if value is not ...}
    return Base("sha256:" + "f" * 64, json.dumps(document).encode(), BELOW)


def test_an_image_on_a_base_runs_as_the_base_does():
    """Layers are said as they are unpacked: the base's are compressed, ours are not."""
    config = json.loads(image_config(LAYERS, base()))
    assert {**config, "rootfs": None, "history": None} == {**BASE_CONFIG, "rootfs": None, "history": None}
    assert config["rootfs"] == {"type": "layers", "diff_ids": [*UNPACKED, *(layer.digest for layer in LAYERS)]}
    assert config["history"][:3] == BASE_CONFIG["history"]
    assert len(config["history"]) == 3 + len(LAYERS)


def test_the_layers_of_a_base_come_first_and_as_they_are():
    written = image_manifest(CONFIG, LAYERS, {}, base())
    layers = json.loads(written)["layers"]
    assert layers[:2] == [layer.to_json() for layer in BELOW]
    assert layers[2:] == [layer.to_json() for layer in LAYERS]
    assert parse_image_manifest(written, "here") == LAYERS
    assert blobs_of(written) == (CONFIG, *BELOW, *LAYERS)


def test_a_base_changes_the_image():
    config = describe(CONFIG_TYPE, image_config(LAYERS, base()))
    other = describe(CONFIG_TYPE, image_config(LAYERS, base(config={"User": "0"})))
    assert len({CONFIG.digest, config.digest, other.digest}) == 3


@pytest.mark.parametrize("history", [..., None, "nothing", {"a": 1}])
def test_a_base_that_says_nothing_of_its_history(history: Any):
    config = json.loads(image_config(LAYERS, base(history=history)))
    assert len(config["history"]) == len(LAYERS)


NO_BASES = {
    "nothing": b"",
    "not UTF-8": b"\xff",
    "nested deeply": b"[" * 100_000,
    "null": b"null",
    "list": b"[]",
    "text": b'"rootfs"',
    "no root": b"{}",
    "no layers": json.dumps({"rootfs": {}}).encode(),
    "layers as a number": json.dumps({"rootfs": {"diff_ids": 5}}).encode(),
    "layers as text": json.dumps({"rootfs": {"diff_ids": "ab"}}).encode(),
    "too few layers": json.dumps({"rootfs": {"diff_ids": UNPACKED[:1]}}).encode(),
    "too many layers": json.dumps({"rootfs": {"diff_ids": [*UNPACKED, UNPACKED[0]]}}).encode(),
    "digest that is none": json.dumps({"rootfs": {"diff_ids": [UNPACKED[0], "sha256:../.."]}}).encode(),
    "digest that is a number": json.dumps({"rootfs": {"diff_ids": [UNPACKED[0], 5]}}).encode(),
}


@pytest.mark.parametrize("content", NO_BASES.values(), ids=NO_BASES)
def test_a_base_without_a_usable_config_is_refused(content: bytes):
    with pytest.raises(IntegrityError, match="the base image has no usable config") as caught:
        image_config(LAYERS, Base("sha256:" + "f" * 64, content, BELOW))
    assert caught.value.where == "sha256:" + "f" * 64


# --- images of others ----------------------------------------------------------------------------------


def test_everything_that_an_image_names():
    """Whoever wrote it, of whatever kind its layers are."""
    foreign = {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip", "digest": UNPACKED[0], "size": 0}
    content = json.dumps({"config": CONFIG.to_json(), "layers": [foreign, LAYERS[0].to_json()]}).encode()
    assert blobs_of(content) == (CONFIG, Descriptor(foreign["mediaType"], UNPACKED[0], 0), LAYERS[0])


def described(**changes: Any) -> dict[str, Any]:
    return {key: value for key, value in (CONFIG.to_json() | changes).items() if value is not ...}


NO_IMAGES: dict[str, Any] = {
    "list": [],
    "null": None,
    "no config": {"layers": []},
    "no layers": {"config": described()},
    "layers as a number": {"config": described(), "layers": 5},
    "config that is text": {"config": "sha256:", "layers": []},
    "layer that is nothing": {"config": described(), "layers": [None]},
    "no media type": {"config": described(mediaType=...), "layers": []},
    "media type that is a number": {"config": described(mediaType=5), "layers": []},
    "no digest": {"config": described(digest=...), "layers": []},
    "digest that is nothing": {"config": described(digest=None), "layers": []},
    "digest of another kind": {"config": described(digest="sha512:" + "0" * 128), "layers": []},
    "digest that leads elsewhere": {"config": described(digest="sha256:../../etc/passwd"), "layers": []},
    "size as text": {"config": described(size="5"), "layers": []},
    "size that is a boolean": {"config": described(size=True), "layers": []},
    "negative size": {"config": described(size=-1), "layers": []},
    "annotations as text": {"config": described(annotations="a"), "layers": []},
}


@pytest.mark.parametrize("document", NO_IMAGES.values(), ids=NO_IMAGES)
def test_a_document_that_is_no_image_names_nothing(document: Any):
    with pytest.raises(IntegrityError, match=UNREADABLE):
        blobs_of(json.dumps(document).encode())


# --- an image for a platform ---------------------------------------------------------------------------


def platform_item(os: Any, architecture: Any, number: int = 0, **changes: Any) -> dict[str, Any]:
    item = {
        "mediaType": MANIFEST_TYPE, "digest": f"sha256:{number:064x}", "size": number,
        "platform": {"os": os, "architecture": architecture},
    }  # fmt: skip
    return {key: value for key, value in (item | changes).items() if value is not ...}


def index(*items: Any) -> bytes:
    return json.dumps({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": list(items)}).encode()


def test_the_image_of_a_platform_is_chosen():
    content = index(
        platform_item("unknown", "unknown", 1),
        platform_item("windows", "amd64", 2),
        platform_item("linux", "arm64", 3),
        platform_item("linux", "amd64", 4),
        platform_item("linux", "amd64", 5),
    )
    for architecture, number in (("amd64", 4), ("arm64", 3)):
        chosen = platform_manifest(content, architecture, "here")
        assert chosen == Descriptor(MANIFEST_TYPE, f"sha256:{number:064x}", number)


def test_an_image_is_no_index():
    assert platform_manifest(image_manifest(CONFIG, LAYERS, {}), "amd64", "here") is None


@pytest.mark.parametrize(
    "items",
    [
        [],
        [platform_item("linux", "arm64")],
        [platform_item("linux", "amd64", platform=...)],
        [platform_item("linux", "amd64", platform=None)],
        [None, 5, "linux", []],
    ],
    ids=["nothing", "another one", "no platform", "a platform that is nothing", "no images"],
)
def test_an_index_without_the_platform(items: list[Any]):
    with pytest.raises(IntegrityError) as caught:
        platform_manifest(index(*items), "amd64", "registry/name:1")
    assert (caught.value.what, caught.value.where) == ("the image is not there for linux/amd64", "registry/name:1")


NO_INDEXES = {
    "nothing": b"",
    "not UTF-8": b"\xff",
    "nested deeply": b"[" * 100_000,
    "list": b"[]",
    "null": b"null",
    "platform as text": index(platform_item("linux", "amd64", platform="linux/amd64")),
    "platform as a list": index(platform_item("linux", "amd64", platform=["linux", "amd64"])),
    "no digest": index(platform_item("linux", "amd64", digest=...)),
    "no size": index(platform_item("linux", "amd64", size=...)),
    "digest that is a number": index(platform_item("linux", "amd64", digest=5)),
    "digest that leads elsewhere": index(platform_item("linux", "amd64", digest="sha256:../../etc/passwd")),
    "negative size": index(platform_item("linux", "amd64", size=-1)),
}


@pytest.mark.parametrize("content", NO_INDEXES.values(), ids=NO_INDEXES)
def test_an_index_that_lies_is_refused(content: bytes):
    with pytest.raises(IntegrityError, match=UNREADABLE) as caught:
        platform_manifest(content, "amd64", "registry/name:1")
    assert caught.value.where == "registry/name:1"


@settings(max_examples=150)
@given(scalars | st.lists(scalars | st.dictionaries(st.sampled_from(sorted(platform_item(1, 1))), scalars)
                          .map(platform_item("linux", "amd64").__or__)))  # fmt: skip
def test_any_index_is_an_image_or_an_integrity_error(items: Any):
    with suppress(IntegrityError):
        chosen = platform_manifest(json.dumps({"manifests": items}).encode(), "amd64", "here")
        assert chosen is None or chosen.digest == "sha256:" + "0" * 64
