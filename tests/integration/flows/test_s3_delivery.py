"""Weights to S3 and back, byte for byte, whatever happens on the way."""

from __future__ import annotations

import json
import os
from contextlib import suppress

import pytest

from modelberth.adapters.folder import HashCache
from modelberth.adapters.s3 import S3Store
from modelberth.base.errors import AuthError, Conflict, IntegrityError, RemoteUnavailable
from modelberth.delivery.manifest import BEGUN_PATH, MANIFEST_PATH, PART_BYTES
from modelberth.flows.fetch import fetch_from_s3, is_complete, manifest_in_s3
from modelberth.flows.ship import ship_to_s3
from modelberth.flows.source import hash_source, open_source
from modelberth.spec.addresses import S3Address

pytestmark = pytest.mark.integration


def ignore(_count):
    """Not interested in progress."""


class Place:
    """An S3 prefix, a cache of hashes, and the moves between folders and that prefix."""

    def __init__(self, store, address, bucket_folder, cache):
        self.store, self.address, self.cache = store, address, cache
        self.objects = bucket_folder / address.prefix

    def ship(self, folder, on_bytes=ignore):
        source = open_source(folder)
        return ship_to_s3(source, hash_source(source, self.cache, ignore), self.store, self.address, on_bytes)

    def fetch(self, folder, on_bytes=ignore, store=None):
        store = store or self.store
        manifest = manifest_in_s3(store, self.address)
        fetch_from_s3(store, self.address, manifest, folder, on_bytes)
        return manifest

    def listing(self):
        return {key.removeprefix(self.address.prefix) for key in self.store.sizes(self.address.prefix)}


@pytest.fixture
def place(s3, tmp_path):
    store = s3.store()
    return Place(store, S3Address(store._bucket, "harbor/x/"), s3.data / store._bucket, HashCache(tmp_path / "hashes"))


class Stopped(Exception):
    """What a test raises in the middle of a transfer."""


class StopAt:
    """A listener that raises at one of its calls."""

    def __init__(self, number):
        self.number, self.calls = number, 0

    def __call__(self, _count):
        self.calls += 1
        if self.calls == self.number:
            raise Stopped


# --- there and back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "w4a16"])
def test_there_and_back(place, weights, hashes, tmp_path, precision):
    source, size = weights(precision), sum(path.stat().st_size for path in weights(precision).iterdir())
    sent, taken = [], []
    shipped = place.ship(source, sent.append)
    assert (shipped.changed, shipped.bytes_moved, sum(sent)) == (True, size, size)
    manifest = place.fetch(tmp_path / "back", taken.append)
    assert shipped.digest == f"sha256:{manifest.digest}"
    assert sum(taken) == size
    assert hashes(tmp_path / "back") == hashes(source)
    assert not list((tmp_path / "back").rglob("*.part"))
    assert is_complete(tmp_path / "back", manifest, place.cache)


def test_odd_files(place, hashes, tmp_path, model):
    folder = model("w4a16")
    (folder / "empty.txt").write_bytes(b"")
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "deep" / "er" / "with space +%.json").write_text("{}")
    place.ship(folder)
    place.fetch(tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(folder)
    assert len(hashes(folder)) == 8


def test_a_file_of_several_parts(place, big_model, hashes, tmp_path):
    sent, taken = [], []
    place.ship(big_model, sent.append)
    place.fetch(tmp_path / "back", taken.append)
    assert hashes(tmp_path / "back") == hashes(big_model)
    assert PART_BYTES in sent
    assert PART_BYTES in taken


def test_a_second_time_nothing_moves(place, model):
    folder = model()
    first, told = place.ship(folder), []
    modified = {path: path.stat().st_mtime_ns for path in place.objects.rglob("*") if path.is_file()}
    second = place.ship(folder, told.append)
    assert (second.changed, second.bytes_moved, sum(told)) == (False, 0, 0)
    assert second.digest == first.digest
    assert {path: path.stat().st_mtime_ns for path in place.objects.rglob("*") if path.is_file()} == modified


def test_only_a_changed_file_moves_and_stale_ones_go(place, model, hashes, tmp_path):
    folder = model()
    place.ship(folder)
    (folder / "generation_config.json").write_text('{"temperature": 0.5}')
    (folder / "special_tokens_map.json").unlink()
    (folder / "new.txt").write_text("new")
    before = {path.name: path.stat().st_mtime_ns for path in place.objects.iterdir() if path.is_file()}
    shipped = place.ship(folder)
    assert (shipped.changed, shipped.bytes_moved) == (True, len('{"temperature": 0.5}') + len("new"))
    after = {path.name: path.stat().st_mtime_ns for path in place.objects.iterdir() if path.is_file()}
    assert {name for name in before if after.get(name) != before[name]} == {
        "generation_config.json",
        "special_tokens_map.json",
    }
    place.fetch(tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(folder)


def test_what_lies_beside_the_prefix_is_left_alone(place, weights):
    for key in ("harbor/x-fp8/config.json", "harbor/xyz", "other"):
        place.store.put(key, b"of somebody else")
    place.ship(weights("w4a16"))
    assert manifest_in_s3(place.store, place.address)
    assert place.store.read("harbor/x-fp8/config.json", 100) == b"of somebody else"


# --- interrupted -------------------------------------------------------------------------------------------


def test_a_first_shipment_interrupted_anywhere(place, weights, hashes, tmp_path):
    files = len(list(weights("bf16").iterdir()))
    for number in range(1, files + 1):
        with pytest.raises(Stopped):
            place.ship(weights("bf16"), StopAt(number))
        assert MANIFEST_PATH not in place.listing()
        with pytest.raises(IntegrityError) as caught:
            manifest_in_s3(place.store, place.address)
        assert caught.value.what == "there is no complete delivery"
    assert place.ship(weights("bf16")).changed
    place.fetch(tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(weights("bf16"))


def test_a_file_renamed_after_an_interrupted_shipment(place, model, hashes, tmp_path):
    """What a shipment that never ended has uploaded is still known to be ours."""
    folder = model("w4a16")
    (folder / "aaa.txt").write_text("a")
    with pytest.raises(Stopped):
        place.ship(folder, StopAt(2))
    assert "aaa.txt" in place.listing()
    (folder / "aaa.txt").rename(folder / "bbb.txt")
    assert place.ship(folder).changed
    assert place.listing() == {*hashes(folder), MANIFEST_PATH}
    place.fetch(tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(folder)


def test_an_update_interrupted_anywhere(place, model, hashes, tmp_path):
    """One file changes, one goes, one comes: the next run completes, wherever the last one ended."""
    old, new = model("bf16", "old"), model("bf16", "new")
    (old / "only-old.txt").write_text("old")
    (new / "only-new.txt").write_text("new")
    (new / "config.json").write_bytes((new / "config.json").read_bytes() + b"\n")
    for number in range(1, len(list(new.iterdir())) + 1):
        place.ship(old)
        assert "only-old.txt" in place.listing()
        with pytest.raises(Stopped):
            place.ship(new, StopAt(number))
        assert MANIFEST_PATH not in place.listing()
        assert place.ship(new).changed
        assert place.listing() == {*hashes(new), MANIFEST_PATH}
    place.fetch(tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(new)


def test_a_store_that_fails_at_any_request(s3, proxy, model, hashes, tmp_path):
    """Every request of an update is refused once; the next run completes, with nothing of the old one left."""
    old, new = model("w4a16", "old"), model("w4a16", "new")
    (old / "only-old.txt").write_text("old")
    (new / "config.json").write_bytes((new / "config.json").read_bytes() + b"\n")
    failing, seen = [0], [0]

    def fault(method, path, status, headers, body):
        if "list-type" not in path and "harbor/" not in path:
            return None
        seen[0] += 1
        return (403, {}, b"<Error><Code>AccessDenied</Code></Error>") if seen[0] == failing[0] else None

    url = proxy(s3.server.endpoint, fault).url
    store = s3.store("fails", url)
    address = S3Address("fails", "harbor/x/")
    place = Place(store, address, s3.data / "fails", HashCache(tmp_path / "hashes"))
    for number in range(1, 100):
        failing[0] = 0
        place.ship(old)
        seen[0], failing[0] = 0, number
        with suppress(AuthError):
            place.ship(new)
        if seen[0] < number:
            break  # more requests than an update makes
        failing[0] = 0
        place.ship(new)
        assert place.listing() == {*hashes(new), MANIFEST_PATH}
    assert number > 6
    failing[0] = 0
    place.fetch(tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(new)


def test_a_fetch_interrupted_anywhere(place, weights, hashes, tmp_path):
    place.ship(weights("bf16"))
    manifest = manifest_in_s3(place.store, place.address)
    for number in range(1, len(manifest.files) + 1):
        with pytest.raises(Stopped):
            place.fetch(tmp_path / "back", StopAt(number))
        assert not list((tmp_path / "back").rglob("*.part"))
        assert len(hashes(tmp_path / "back")) == number - 1
        assert not is_complete(tmp_path / "back", manifest, place.cache)
    place.fetch(tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(weights("bf16"))


def test_a_file_that_changes_between_hashing_and_sending(place, model):
    folder = model()
    source = open_source(folder)
    manifest = hash_source(source, place.cache, ignore)
    with (folder / "model-00002-of-00002.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    with pytest.raises(IntegrityError) as caught:
        ship_to_s3(source, manifest, place.store, place.address, ignore)
    assert caught.value.what == "a file changed while it was shipped"
    assert MANIFEST_PATH not in place.listing()
    assert "model-00002-of-00002.safetensors" not in place.listing()


def test_a_large_file_that_changes_between_hashing_and_sending(place, big_model, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    for path in big_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    source = open_source(folder)
    manifest = hash_source(source, place.cache, ignore)
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"!")
    with pytest.raises(IntegrityError):
        ship_to_s3(source, manifest, place.store, place.address, ignore)
    assert place.listing() == {"config.json", BEGUN_PATH}


# --- what should not be there ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["notes.txt", "deep/other.safetensors"])
@pytest.mark.parametrize("shipped", [False, True], ids=["first time", "again"])
def test_a_stranger_below_the_prefix(place, weights, name, shipped):
    if shipped:
        place.ship(weights("w4a16"))
    place.store.put(place.address.key(name), b"of somebody else")
    with pytest.raises(Conflict) as caught:
        place.ship(weights("w4a16"))
    assert caught.value.exit_code == 5
    assert name in caught.value.why
    assert place.store.read(place.address.key(name), 100) == b"of somebody else"
    with pytest.raises(IntegrityError):
        manifest_in_s3(place.store, place.address)


@pytest.mark.parametrize("change", ["missing", "shorter", "extra"])
def test_files_that_are_not_those_of_the_manifest(place, weights, change):
    place.ship(weights("w4a16"))
    if change == "missing":
        place.store.delete(place.address.key("tokenizer.json"))
    else:
        place.store.put(place.address.key("tokenizer.json" if change == "shorter" else "more"), b"short")
    with pytest.raises(IntegrityError) as caught:
        manifest_in_s3(place.store, place.address)
    assert ("more" if change == "extra" else "tokenizer.json") in caught.value.why
    if change != "extra":
        assert place.ship(weights("w4a16")).changed
        assert manifest_in_s3(place.store, place.address)


def test_no_manifest(place, weights):
    with pytest.raises(IntegrityError) as caught:
        manifest_in_s3(place.store, place.address)
    assert (caught.value.exit_code, caught.value.what) == (7, "there is no complete delivery")
    place.ship(weights("w4a16"))
    place.store.delete(place.address.key(MANIFEST_PATH))
    with pytest.raises(IntegrityError):
        manifest_in_s3(place.store, place.address)


@pytest.mark.parametrize("content", [b"", b"{}", b"<html>", b"[" * 100_000, b'{"schemaVersion": "v9"}'])
def test_a_manifest_that_is_none(place, weights, content):
    place.ship(weights("w4a16"))
    place.store.put(place.address.key(MANIFEST_PATH), content)
    for action in (lambda: manifest_in_s3(place.store, place.address), lambda: place.ship(weights("w4a16"))):
        with pytest.raises(IntegrityError) as caught:
            action()
        assert str(place.address) in caught.value.where


@pytest.mark.parametrize("path", ["../../evil", "/etc/evil", "a\\b", "a/./b"])
def test_a_manifest_that_leads_out(place, weights, tmp_path, path):
    place.ship(weights("w4a16"))
    key = place.address.key(MANIFEST_PATH)
    document = json.loads(place.store.read(key, 1 << 20))
    document["files"][0]["path"] = path
    place.store.put(key, json.dumps(document).encode())
    with pytest.raises(IntegrityError):
        place.fetch(tmp_path / "back")
    assert not (tmp_path / "back").exists()


# --- wrong bytes -------------------------------------------------------------------------------------------


def test_a_byte_that_is_wrong_in_the_store(place, weights, flip, tmp_path):
    place.ship(weights("bf16"))
    flip(place.objects / "model-00002-of-00002.safetensors", 1_000_000)
    with pytest.raises(IntegrityError) as caught:
        place.fetch(tmp_path / "back")
    error, size = caught.value, (weights("bf16") / "model-00002-of-00002.safetensors").stat().st_size
    assert error.exit_code == 7
    assert error.where.endswith(f"/model-00002-of-00002.safetensors bytes 0 to {size - 1:,}")
    assert not (tmp_path / "back" / "model-00002-of-00002.safetensors").exists()
    assert not (tmp_path / "back" / MANIFEST_PATH).exists()
    assert not list((tmp_path / "back").rglob("*.part"))


def test_the_part_with_the_wrong_byte_is_named(place, big_model, flip, tmp_path):
    place.ship(big_model)
    flip(place.objects / "model.safetensors", PART_BYTES + 7)
    with pytest.raises(IntegrityError) as caught:
        place.fetch(tmp_path / "back")
    size = (big_model / "model.safetensors").stat().st_size
    assert caught.value.where.endswith(f"bytes {PART_BYTES:,} to {size - 1:,}")
    assert not (tmp_path / "back" / "model.safetensors").exists()


def wrong_once(name):
    """A fault: the first answer with an object's bytes has one of them turned over."""
    done = []

    def fault(method, path, status, headers, body):
        if method != "GET" or not path.partition("?")[0].endswith(name) or done:
            return None
        done.append(path)
        return status, headers, body[:100] + bytes([body[100] ^ 1]) + body[101:]

    fault.done = done
    return fault


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_a_byte_that_is_wrong_on_the_way_is_fetched_again(place, s3, proxy, weights, hashes, tmp_path, name):
    place.ship(weights("w4a16"))
    fault = wrong_once(name)
    store = S3Store(s3.endpoint_at(proxy(s3.server.endpoint, fault).url), place.store._bucket)
    place.fetch(tmp_path / "back", store=store)
    store.close()
    assert len(fault.done) == 1
    assert hashes(tmp_path / "back") == hashes(weights("w4a16"))


def test_bytes_that_stay_wrong_on_the_way(place, s3, proxy, weights, tmp_path):
    place.ship(weights("w4a16"))
    asked = []

    def fault(method, path, status, headers, body):
        if method == "GET" and path.endswith("tokenizer.json"):
            asked.append(path)
            return status, headers, bytes(len(body))
        return None

    store = S3Store(s3.endpoint_at(proxy(s3.server.endpoint, fault).url), place.store._bucket)
    with pytest.raises(IntegrityError) as caught:
        place.fetch(tmp_path / "back", store=store)
    store.close()
    assert len(asked) == 2
    assert "tokenizer.json bytes 0 to" in caught.value.where


def test_an_answer_that_breaks_off(place, s3, proxy, weights, tmp_path):
    place.ship(weights("w4a16"))

    def fault(method, path, status, headers, body):
        return (status, headers, body[:1000]) if method == "GET" and path.endswith("model.safetensors") else None

    store = S3Store(s3.endpoint_at(proxy(s3.server.endpoint, fault).url), place.store._bucket)
    with pytest.raises((RemoteUnavailable, IntegrityError)):
        place.fetch(tmp_path / "back", store=store)
    store.close()
    assert not (tmp_path / "back" / "model.safetensors").exists()
    assert not list((tmp_path / "back").rglob("*.part"))


# --- a folder that was fetched -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage", ["byte", "truncated", "missing", "extra", "no manifest", "bad manifest", "link", "dead link", "gone"]
)
def test_a_damaged_folder_is_not_complete(place, weights, flip, settled, tmp_path, damage):
    place.ship(weights("w4a16"))
    folder = tmp_path / "back"
    manifest = place.fetch(folder)
    settled(folder)
    assert is_complete(folder, manifest, place.cache)
    file = folder / "tokenizer.json"
    if damage == "byte":
        flip(file, 5000)
    elif damage == "truncated":
        os.truncate(file, 100)
    elif damage in {"missing", "link", "dead link"}:
        file.unlink()
        if damage != "missing":
            file.symlink_to(weights("w4a16") / "tokenizer.json" if damage == "link" else "nowhere")
    elif damage == "extra":
        (folder / "more").write_text("")
    elif damage == "gone":
        folder.rename(tmp_path / "elsewhere")
    elif damage == "no manifest":
        (folder / MANIFEST_PATH).unlink()
    else:
        (folder / MANIFEST_PATH).write_text("{ garbage")
    assert not is_complete(folder, manifest, place.cache)
