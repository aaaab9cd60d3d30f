"""Weights into an OCI image layout and back: deterministic, standard, and checked byte for byte."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tarfile

import pytest

from modelberth.adapters.folder import HashCache
from modelberth.adapters.oci import Layout
from modelberth.base.errors import DoesNotFit, IntegrityError
from modelberth.delivery.manifest import MANIFEST_PATH
from modelberth.flows.fetch import fetch_from_image, is_complete, manifest_in_image
from modelberth.flows.ship import build_image
from modelberth.flows.source import hash_source, open_source

pytestmark = pytest.mark.integration

TAG = "registry.example.com/models/harbor:1.0"


def ignore(_count):
    """Not interested in progress."""


class Car:
    """An image layout, and the moves between folders and it."""

    def __init__(self, root):
        self.folder = root / "oci"
        self.layout = Layout(self.folder)
        self.cache = HashCache(root / "hashes.json")

    def build(self, folder, tag=TAG, on_bytes=ignore):
        source = open_source(folder)
        return build_image(source, hash_source(source, self.cache, ignore), self.layout, tag, on_bytes)

    def fetch(self, folder, tag=TAG):
        manifest, layers = manifest_in_image(self.layout, tag)
        fetch_from_image(self.layout, manifest, layers, folder, ignore)
        return manifest

    def blob(self, digest):
        return self.folder / "blobs" / digest.replace(":", "/")

    def document(self, digest):
        return json.loads(self.blob(digest).read_bytes())

    def files(self):
        return {path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if path.is_file()}


@pytest.fixture
def car(tmp_path):
    return Car(tmp_path)


def layer_of(car, shipped, path):
    """The blob that holds one file."""
    layers = car.document(shipped.digest)["layers"]
    return car.blob(next(layer["digest"] for layer in layers if layer["annotations"]["dev.modelberth.path"] == path))


class Stopped(Exception):
    """What a test raises in the middle."""


@pytest.mark.parametrize("precision", ["bf16", "w4a16"])
def test_there_and_back(car, weights, hashes, tmp_path, precision):
    told = []
    shipped = car.build(weights(precision), on_bytes=told.append)
    assert shipped.changed
    assert sum(told) == sum(path.stat().st_size for path in weights(precision).iterdir())
    manifest = car.fetch(tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(weights(precision))
    assert is_complete(tmp_path / "back", manifest, car.cache)
    assert not list(tmp_path.rglob("*.part"))


def test_files_of_every_kind(car, model, hashes, tmp_path):
    folder = model("w4a16")
    (folder / "empty.txt").write_bytes(b"")
    (folder / "block.txt").write_bytes(b"x" * 512)
    deep = folder / ("d" * 90) / ("e" * 90) / "ü name with space.json"
    deep.parent.mkdir(parents=True)
    deep.write_text("{}")
    (folder / ("n" * 200)).write_text("a name that only an extended header holds")
    shipped = car.build(folder)
    car.fetch(tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(folder)
    for layer in car.document(shipped.digest)["layers"]:
        with tarfile.open(car.blob(layer["digest"])) as archive:
            names = [member.name for member in archive if member.isfile()]
        assert names == [f"models/{layer['annotations']['dev.modelberth.path']}"]


def test_a_file_larger_than_a_part(car, big_model, hashes, tmp_path):
    car.build(big_model)
    car.fetch(tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(big_model)


def test_the_layout_is_what_the_specification_says(car, weights):
    """Read with nothing but json, tarfile and hashlib, as another tool would."""
    shipped = car.build(weights("bf16"))
    assert json.loads((car.folder / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}
    index = json.loads((car.folder / "index.json").read_bytes())
    assert (index["schemaVersion"], index["mediaType"]) == (2, "application/vnd.oci.image.index.v1+json")
    (entry,) = index["manifests"]
    assert entry["digest"] == shipped.digest
    assert entry["annotations"] == {"org.opencontainers.image.ref.name": TAG}
    manifest = car.document(entry["digest"])
    config = car.document(manifest["config"]["digest"])
    assert entry["mediaType"] == manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["config"]["mediaType"] == "application/vnd.oci.image.config.v1+json"
    assert {layer["mediaType"] for layer in manifest["layers"]} == {"application/vnd.oci.image.layer.v1.tar"}
    # Uncompressed tar: a layer's digest is its diff id.
    assert config["rootfs"] == {"type": "layers", "diff_ids": [layer["digest"] for layer in manifest["layers"]]}
    assert (config["architecture"], config["os"]) == ("amd64", "linux")
    assert len(config["history"]) == len(manifest["layers"]) == 9
    for blob in (entry, manifest["config"], *manifest["layers"]):
        content = car.blob(blob["digest"]).read_bytes()
        assert blob["digest"] == "sha256:" + hashlib.sha256(content).hexdigest()
        assert blob["size"] == len(content)
    assert len(car.files()) == 2 + 2 + 9


def test_the_files_in_the_layers(car, weights):
    shipped, found = car.build(weights("w4a16")), {}
    for layer in car.document(shipped.digest)["layers"]:
        with tarfile.open(car.blob(layer["digest"]), "r:") as archive:
            for member in archive:
                assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")
                assert member.mode == (0o755 if member.isdir() else 0o644)
                if member.isfile():
                    found[member.name] = archive.extractfile(member).read()
    assert found.pop(f"models/{MANIFEST_PATH}")
    assert found == {f"models/{path.name}": path.read_bytes() for path in weights("w4a16").iterdir()}


def test_the_same_files_give_the_same_image_anywhere_and_at_any_time(model, tmp_path):
    digests = set()
    for number in range(3):
        folder = model("w4a16", f"model-{number}")
        for path in folder.iterdir():
            os.utime(path, (1_000_000_000 + number, 1_000_000_000 + number))
            path.chmod(0o600 + number * 0o22)
        (tmp_path / f"place-{number}").mkdir()
        digests.add(Car(tmp_path / f"place-{number}").build(folder, f"tag-{number}").digest)
    assert len(digests) == 1


def test_a_second_time_nothing_is_written(car, weights):
    first = car.build(weights("w4a16"))
    before = {path: (car.folder / path).stat().st_mtime_ns for path in car.files()}
    second = car.build(weights("w4a16"))
    assert (second.changed, second.bytes_moved, second.digest) == (False, 0, first.digest)
    assert {path: (car.folder / path).stat().st_mtime_ns for path in car.files()} == before


def test_a_changed_file_changes_its_layer_alone(car, model):
    folder = model("w4a16")
    first = {layer["digest"] for layer in car.document(car.build(folder).digest)["layers"]}
    (folder / "generation_config.json").write_text("{}")
    second = {layer["digest"] for layer in car.document(car.build(folder).digest)["layers"]}
    assert len(first & second) == 5
    assert len(second - first) == 2  # the file and the manifest of files


def test_two_images_share_a_layout(car, weights, hashes, tmp_path):
    for precision in ("bf16", "w4a16"):
        car.build(weights(precision), f"harbor-{precision}")
    for precision in ("bf16", "w4a16"):
        car.fetch(tmp_path / precision, f"harbor-{precision}")
        assert hashes(tmp_path / precision) == hashes(weights(precision))
    with pytest.raises(IntegrityError):
        manifest_in_image(car.layout, "harbor")


# --- interrupted -------------------------------------------------------------------------------------------


def test_a_build_interrupted_anywhere(car, weights, hashes, tmp_path):
    for number in range(1, 9):
        calls = iter(range(1, 100))

        def stop(_count, calls=calls, number=number):
            if next(calls) == number:
                raise Stopped

        with pytest.raises(Stopped):
            car.build(weights("bf16"), on_bytes=stop)
        with pytest.raises(IntegrityError) as caught:
            manifest_in_image(car.layout, TAG)
        assert caught.value.what == "there is no complete delivery"
        assert not [path for path in car.files() if "arriving" in path]
    car.build(weights("bf16"))
    car.fetch(tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(weights("bf16"))


def test_what_a_killed_build_left_is_swept(car, weights):
    blobs = car.folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for name in ("arriving-0123", "arriving-4567.part"):
        (blobs / name).write_bytes(b"half")
    car.build(weights("w4a16"))
    assert not list(blobs.glob("arriving*"))


def test_a_file_that_changes_between_hashing_and_packing(car, model):
    folder = model("w4a16")
    source = open_source(folder)
    manifest = hash_source(source, car.cache, ignore)
    (folder / "tokenizer.json").write_text("another")
    with pytest.raises(IntegrityError):
        build_image(source, manifest, car.layout, TAG, ignore)
    assert car.layout.tagged(TAG) is None


def test_a_file_that_grows_without_end_is_not_followed(car, model):
    folder = model("w4a16")
    source = open_source(folder)
    manifest = hash_source(source, car.cache, ignore)
    path = folder / "model.safetensors"

    def grow(_count):
        with path.open("ab") as file:
            file.write(bytes(1 << 20))

    with pytest.raises(IntegrityError):
        build_image(source, manifest, car.layout, TAG, grow)


def test_a_full_disk(small_disk, weights):
    disk = small_disk("3m")
    car = Car(disk)
    with pytest.raises(DoesNotFit) as caught:
        car.build(weights("bf16"))
    assert caught.value.exit_code == 8
    assert not [path for path in car.files() if "arriving" in path]


# --- wrong bytes -------------------------------------------------------------------------------------------


def test_a_wrong_byte_in_a_layer(car, weights, flip, hashes, tmp_path):
    shipped = car.build(weights("bf16"))
    blob = layer_of(car, shipped, "model-00001-of-00002.safetensors")
    flip(blob, 2_000_000)
    with pytest.raises(IntegrityError) as caught:
        car.fetch(tmp_path / "back")
    assert caught.value.what == "a layer of model-00001-of-00002.safetensors cannot be used"
    assert caught.value.where == str(blob)
    assert not (tmp_path / "back" / "model-00001-of-00002.safetensors").exists()
    assert not (tmp_path / "back" / MANIFEST_PATH).exists()
    blob.unlink()  # as the message says
    assert car.build(weights("bf16")).changed
    shutil.rmtree(tmp_path / "back")
    car.fetch(tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(weights("bf16"))


@pytest.mark.parametrize("where", ["head", "padding"])
def test_a_wrong_byte_beside_the_file_is_wrong_too(car, weights, flip, tmp_path, where):
    shipped = car.build(weights("w4a16"))
    blob = layer_of(car, shipped, "config.json")
    flip(blob, 10 if where == "head" else blob.stat().st_size - 1)
    with pytest.raises(IntegrityError):
        car.fetch(tmp_path / "back")
    assert not (tmp_path / "back" / "config.json").exists()


@pytest.mark.parametrize("which", ["manifest of files", "image manifest"])
def test_a_wrong_byte_in_a_document(car, weights, flip, tmp_path, which):
    shipped = car.build(weights("w4a16"))
    blob = car.blob(shipped.digest) if which == "image manifest" else layer_of(car, shipped, MANIFEST_PATH)
    flip(blob, blob.stat().st_size // 2)
    with pytest.raises(IntegrityError) as caught:
        car.fetch(tmp_path / "back")
    assert str(blob) in caught.value.where
    assert not (tmp_path / "back").exists()


def test_a_layer_that_is_not_there(car, weights, tmp_path):
    shipped = car.build(weights("w4a16"))
    layer_of(car, shipped, "tokenizer.json").unlink()
    with pytest.raises(IntegrityError) as caught:
        car.fetch(tmp_path / "back")
    assert caught.value.why == "it is not there"
    assert car.build(weights("w4a16")).changed
    shutil.rmtree(tmp_path / "back")
    car.fetch(tmp_path / "back")


@pytest.mark.parametrize("content", ["", "{}", "5", "null", "[5]", "[{}]", "[TAGGED]"])
def test_an_index_that_is_none(car, weights, content):
    car.build(weights("w4a16"))
    tagged = {"annotations": {"org.opencontainers.image.ref.name": TAG}}
    manifests = content.replace("TAGGED", json.dumps(tagged))
    (car.folder / "index.json").write_text(manifests if content in {"", "{}"} else f'{{"manifests": {manifests}}}')
    with pytest.raises(IntegrityError) as caught:
        manifest_in_image(car.layout, TAG)
    assert caught.value.exit_code == 7


@pytest.mark.parametrize("digest", ["sha256:../../etc/passwd", "md5:" + "0" * 32, "sha256:" + "A" * 64, ""])
def test_a_digest_that_leads_elsewhere(car, weights, digest):
    car.build(weights("w4a16"))
    index = json.loads((car.folder / "index.json").read_bytes())
    index["manifests"][0]["digest"] = digest
    (car.folder / "index.json").write_text(json.dumps(index))
    with pytest.raises(IntegrityError):
        manifest_in_image(car.layout, TAG)


def test_blobs_that_no_tag_leads_to_are_removed(car, model, weights):
    folder = model("w4a16")
    first = car.build(folder)
    other = car.build(weights("bf16"), tag="other:1.0")
    (folder / "generation_config.json").write_text('{"temperature": 0.5}')
    left = car.folder / "blobs" / "sha256" / "arriving-0123.part"
    left.write_bytes(b"half of a layer")
    again = car.build(folder)
    named = {
        blob["digest"]
        for shipped in (other, again)
        for document in [car.document(shipped.digest)]
        for blob in (document["config"], *document["layers"])
    } | {other.digest, again.digest}
    blobs = {f"sha256:{path.name}" for path in (car.folder / "blobs" / "sha256").iterdir()}
    assert blobs == named
    assert first.digest not in blobs


def test_a_damaged_image_does_not_keep_another_from_being_built(car, model, weights, flip):
    first = car.build(model("w4a16"))
    flip(car.blob(first.digest), 10)
    assert car.build(weights("bf16"), tag="other:1.0").changed
    assert not car.build(weights("bf16"), tag="other:1.0").changed
    assert car.blob(first.digest).exists()  # nothing is removed while it is not known what is used
