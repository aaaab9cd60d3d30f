"""Weights into an OCI image layout and back: deterministic, standard, and checked byte for byte."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
from threading import Lock

import pytest

from modelberth.adapters.folder import HashCache
from modelberth.adapters.oci import Layout
from modelberth.base.errors import DoesNotFit, IntegrityError
from modelberth.delivery.image import Descriptor
from modelberth.delivery.manifest import MANIFEST_PATH, PART_BYTES
from modelberth.flows.fetch import fetch_to_folder, is_complete
from modelberth.flows.images import build_image, manifest_in_image, open_image
from modelberth.flows.origins import FolderOrigin
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

    def origin(self, folder):
        return FolderOrigin(folder, hash_source(open_source(folder), self.cache, ignore))

    def build(self, folder, tag=TAG, on_bytes=ignore):
        return build_image(self.origin(folder), self.layout, tag, on_bytes)

    def fetch(self, folder, tag=TAG, on_bytes=ignore):
        origin = open_image(self.layout, tag, f"oci-layout:{self.folder}:{tag}")
        return fetch_to_folder(origin, folder, self.cache, on_bytes)

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


def named(folder):
    """The model's files that have their name."""
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    return {path for path in found if not path.endswith(".part") and not path.startswith(".modelberth/")}


class Stopped(Exception):
    """What a test raises in the middle."""


class StopAt:
    """A listener that raises at one of its calls."""

    def __init__(self, number):
        self.number, self.calls, self.lock = number, 0, Lock()

    def __call__(self, _count):
        with self.lock:
            self.calls += 1
            stop = self.calls == self.number
        if stop:
            raise Stopped


@pytest.mark.parametrize("precision", ["bf16", "w4a16"])
def test_there_and_back(car, weights, hashes, tmp_path, precision):
    told = []
    shipped = car.build(weights(precision), on_bytes=told.append)
    assert shipped.changed
    size = sum(path.stat().st_size for path in weights(precision).iterdir())
    assert sum(told) == size
    taken = []
    fetched = car.fetch(tmp_path / "back", on_bytes=taken.append)
    assert (fetched.changed, fetched.bytes_moved, sum(taken)) == (True, size, size)
    assert fetched.manifest == shipped.manifest == manifest_in_image(car.layout, TAG)[0]
    assert hashes(tmp_path / "back") == hashes(weights(precision))
    assert is_complete(tmp_path / "back", fetched.manifest, car.cache)
    assert not list(tmp_path.rglob("*.part"))
    assert not car.fetch(tmp_path / "back").changed


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
    taken = []
    car.fetch(tmp_path / "back", on_bytes=taken.append)
    assert hashes(tmp_path / "back") == hashes(big_model)
    assert PART_BYTES in taken  # a range of its layer


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
        with pytest.raises(Stopped):
            car.build(weights("bf16"), on_bytes=StopAt(number))
        with pytest.raises(IntegrityError) as caught:
            manifest_in_image(car.layout, TAG)
        assert caught.value.what == "there is no complete delivery"
        assert not [path for path in car.files() if "arriving" in path]
    car.build(weights("bf16"))
    car.fetch(tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(weights("bf16"))


def test_a_fetch_interrupted_anywhere(car, weights, hashes, tmp_path):
    """No file has its name before all are right; what has arrived stays and is not read again."""
    car.build(weights("bf16"))
    for number in range(1, len(hashes(weights("bf16"))) + 1):
        with pytest.raises(Stopped):
            car.fetch(tmp_path / "back", on_bytes=StopAt(number))
        assert named(tmp_path / "back") == set()
        assert not (tmp_path / "back" / MANIFEST_PATH).exists()
    fetched = car.fetch(tmp_path / "back")  # the last one was stopped when all had arrived
    assert (fetched.changed, fetched.bytes_moved) == (True, 0)
    assert hashes(tmp_path / "back") == hashes(weights("bf16"))


def test_what_a_killed_build_left_is_swept(car, weights):
    blobs = car.folder / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for name in ("arriving-0123", "arriving-4567.part"):
        (blobs / name).write_bytes(b"half")
    car.build(weights("w4a16"))
    assert not list(blobs.glob("arriving*"))


def test_a_file_that_changes_between_hashing_and_packing(car, model):
    origin = car.origin(model("w4a16"))
    (origin.folder / "tokenizer.json").write_text("another")
    with pytest.raises(IntegrityError) as caught:
        build_image(origin, car.layout, TAG, ignore)
    assert caught.value.what == "a file changed while it was shipped"
    assert caught.value.where == str(origin.folder / "tokenizer.json")
    assert car.layout.tagged(TAG) is None


def test_a_file_that_grows_without_end_is_not_followed(car, model):
    origin = car.origin(model("w4a16"))
    path = origin.folder / "model.safetensors"

    def grow(_count):
        with path.open("ab") as file:
            file.write(bytes(1 << 20))

    with pytest.raises(IntegrityError):
        build_image(origin, car.layout, TAG, grow)


def test_a_full_disk(small_disk, weights):
    disk = small_disk("3m")
    car = Car(disk)
    with pytest.raises(DoesNotFit) as caught:
        car.build(weights("bf16"))
    assert caught.value.exit_code == 8
    assert not [path for path in car.files() if "arriving" in path]


# --- wrong bytes -------------------------------------------------------------------------------------------


def test_a_wrong_byte_in_a_layer(car, weights, flip, hashes, tmp_path):
    shipped, name = car.build(weights("bf16")), "model-00001-of-00002.safetensors"
    blob = layer_of(car, shipped, name)
    flip(blob, 2_000_000)
    with pytest.raises(IntegrityError) as caught:
        car.fetch(tmp_path / "back")
    size = (weights("bf16") / name).stat().st_size
    assert caught.value.where == f"oci-layout:{car.folder}:{TAG}/{name} bytes 0 to {size - 1:,}"
    assert "CRC-64/NVME" in caught.value.why
    assert named(tmp_path / "back") == set()
    assert not (tmp_path / "back" / MANIFEST_PATH).exists()
    blob.unlink()
    assert car.build(weights("bf16")).changed
    assert car.fetch(tmp_path / "back").bytes_moved >= size
    assert hashes(tmp_path / "back") == hashes(weights("bf16"))


@pytest.mark.parametrize("where", ["head", "padding"])
def test_a_wrong_byte_beside_the_file_reaches_no_folder(car, weights, flip, hashes, tmp_path, where):
    """Of a layer, a fetch reads its file alone; who takes the layer as a whole sees that it is not the one declared."""
    shipped = car.build(weights("w4a16"))
    blob = layer_of(car, shipped, "config.json")
    flip(blob, 10 if where == "head" else blob.stat().st_size - 1)
    car.fetch(tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(weights("w4a16"))
    layer = Descriptor("", f"sha256:{blob.name}", blob.stat().st_size)
    for take in (car.layout.read_blob, lambda layer: car.layout.stream_blob(layer, ignore)):
        with pytest.raises(IntegrityError) as caught:
            take(layer)
        assert (caught.value.where, caught.value.why) == (str(blob), "its bytes are not those of its digest")


@pytest.mark.parametrize("where", ["head", "padding"])
def test_a_wrong_byte_beside_the_manifest_of_files(car, weights, flip, tmp_path, where):
    blob = layer_of(car, car.build(weights("w4a16")), MANIFEST_PATH)
    flip(blob, 10 if where == "head" else blob.stat().st_size - 1)
    with pytest.raises(IntegrityError) as caught:
        car.fetch(tmp_path / "back")
    assert caught.value.where == str(blob)
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize("which", ["manifest of files", "image manifest"])
def test_a_wrong_byte_in_a_document(car, weights, flip, tmp_path, which):
    shipped = car.build(weights("w4a16"))
    blob = car.blob(shipped.digest) if which == "image manifest" else layer_of(car, shipped, MANIFEST_PATH)
    flip(blob, blob.stat().st_size // 2)
    with pytest.raises(IntegrityError) as caught:
        car.fetch(tmp_path / "back")
    assert str(blob) in caught.value.where
    assert not (tmp_path / "back").exists()


def test_a_layer_that_is_not_there(car, weights, hashes, tmp_path):
    shipped = car.build(weights("w4a16"))
    layer_of(car, shipped, "tokenizer.json").unlink()
    with pytest.raises(IntegrityError) as caught:
        car.fetch(tmp_path / "back")
    assert caught.value.why == "it is not there"
    assert named(tmp_path / "back") == set()
    assert car.build(weights("w4a16")).changed
    car.fetch(tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(weights("w4a16"))


def test_a_layer_that_is_shorter(car, weights, tmp_path):
    blob = layer_of(car, car.build(weights("w4a16")), "model.safetensors")
    os.truncate(blob, blob.stat().st_size // 2)
    with pytest.raises(IntegrityError) as caught:
        car.fetch(tmp_path / "back")
    assert (caught.value.where, caught.value.why) == (str(blob), "its size is not the declared one")
    assert named(tmp_path / "back") == set()


def test_an_image_by_its_digest(car, weights, hashes, tmp_path):
    shipped = car.build(weights("w4a16"))
    assert car.fetch(tmp_path / "back", shipped.digest).changed
    assert hashes(tmp_path / "back") == hashes(weights("w4a16"))
    with pytest.raises(IntegrityError) as caught:
        manifest_in_image(car.layout, "sha256:" + "0" * 64)
    assert caught.value.what == "there is no complete delivery"


def test_an_image_of_somebody_else(car):
    """Sound, and berth did not build it: nothing says what its files should be."""
    config = car.layout.write_blob("application/vnd.oci.image.config.v1+json", b"{}")
    layer = car.layout.write_blob("application/vnd.oci.image.layer.v1.tar", b"")
    document = json.dumps({"schemaVersion": 2, "config": config.to_json(), "layers": [layer.to_json()]}).encode()
    car.layout.set_tag(TAG, car.layout.write_blob("application/vnd.oci.image.manifest.v1+json", document))
    with pytest.raises(IntegrityError) as caught:
        manifest_in_image(car.layout, TAG)
    assert caught.value.what == "the image has no manifest of files"


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
