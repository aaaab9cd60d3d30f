"""Weights to S3 and back, byte for byte, whatever happens on the way."""

from __future__ import annotations

import json
import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Lock

import pytest

from faults import Action, Answer, Fault
from modelberth.adapters.folder import HashCache
from modelberth.adapters.transport import Cancelled
from modelberth.base.errors import AuthError, Conflict, DoesNotFit, IntegrityError, RemoteUnavailable
from modelberth.delivery.manifest import BEGUN_PATH, MANIFEST_PATH, PART_BYTES
from modelberth.flows.claims import CLAIM_PREFIX, claimed
from modelberth.flows.deliveries import manifest_in_s3, open_s3_delivery
from modelberth.flows.fetch import fetch_to_folder, is_complete
from modelberth.flows.origins import FolderOrigin
from modelberth.flows.ship import ShipOptions, ship_to_s3
from modelberth.flows.source import hash_source, open_source
from modelberth.spec.addresses import S3Address

pytestmark = pytest.mark.integration

ONE = 1
"""Connections: parts move one after the other, in a known order."""


def ignore(_count):
    """Not interested in progress."""


class Place:
    """An S3 prefix, a cache of hashes, and the moves between folders and that prefix.

    Attributes:
        store: to look at the prefix, and to change it behind the back of a delivery.
    """

    def __init__(self, world, bucket, cache, url=""):
        self.world, self.cache, self.url = world, cache, url
        self.store = world.store(bucket)
        self._moving = None
        self.address = S3Address(self.store.bucket, "harbor/x/")
        self.objects = world.data / self.store.bucket / self.address.prefix

    def origin(self, folder):
        return FolderOrigin(folder, hash_source(open_source(folder), self.cache, ignore))

    def ship(self, folder, on_bytes=ignore, connections=4, journals=None):
        return self.ship_origin(self.origin(folder), on_bytes, connections, journals)

    def ship_origin(self, origin, on_bytes=ignore, connections=4, journals=None):
        with self.connections() as store:
            return ship_to_s3(origin, store, self.address, on_bytes, ShipOptions(connections, journals))

    def fetch(self, folder, on_bytes=ignore, connections=4, url=""):
        with self.connections(url) as store:
            origin = open_s3_delivery(store, self.address)
            return fetch_to_folder(origin, folder, self.cache, on_bytes, connections)

    @contextmanager
    def connections(self, url=""):
        """What deliveries move bytes over; new ones after each that failed, which closes its own."""
        if url or self._moving is None:
            self._moving = self.world.store(self.store.bucket, url or self.url)
        store, self._moving = self._moving, None
        yield store
        self._moving = None if url else store

    @property
    def manifest(self):
        return manifest_in_s3(self.store, self.address)

    def listing(self):
        return {key.removeprefix(self.address.prefix) for key in self.store.sizes(self.address.prefix)}


@pytest.fixture
def place(s3, tmp_path):
    return Place(s3, "", HashCache(tmp_path / "hashes"))


class Stopped(Exception):
    """What a test raises in the middle of a transfer."""


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


def paths_in(folder):
    """All files of a folder, ours among them."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def named(folder):
    """The model's files that have their name."""
    return {path for path in paths_in(folder) if not path.endswith(".part") and not path.startswith(".modelberth/")}


def size_of(folder):
    return sum(path.stat().st_size for path in folder.iterdir())


# --- there and back ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["bf16", "w4a16"])
def test_there_and_back(place, weights, hashes, tmp_path, precision):
    source, size = weights(precision), size_of(weights(precision))
    sent, taken = [], []
    shipped = place.ship(source, sent.append)
    assert (shipped.changed, shipped.bytes_moved, sum(sent)) == (True, size, size)
    assert place.listing() == {*hashes(source), MANIFEST_PATH}
    fetched = place.fetch(tmp_path / "back", taken.append)
    assert (fetched.changed, fetched.bytes_moved, sum(taken)) == (True, size, size)
    assert shipped.digest == f"sha256:{fetched.manifest.digest}"
    assert shipped.manifest == fetched.manifest == place.manifest
    assert hashes(tmp_path / "back") == hashes(source)
    assert paths_in(tmp_path / "back") == {*hashes(source), MANIFEST_PATH}
    assert is_complete(tmp_path / "back", fetched.manifest, place.cache)


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


def test_a_second_time_nothing_is_fetched(place, weights, tmp_path):
    place.ship(weights("w4a16"))
    first, told = place.fetch(tmp_path / "back"), []
    second = place.fetch(tmp_path / "back", told.append)
    assert (second.changed, second.bytes_moved, sum(told)) == (False, 0, size_of(weights("w4a16")))
    assert second.manifest == first.manifest


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


def test_only_a_changed_file_is_fetched_and_stale_ones_go(place, model, hashes, settled, tmp_path):
    folder = model()
    place.ship(folder)
    place.fetch(tmp_path / "back")
    settled(tmp_path / "back")
    (folder / "generation_config.json").write_text('{"temperature": 0.5}')
    (folder / "special_tokens_map.json").unlink()
    (folder / "new.txt").write_text("new")
    place.ship(folder)
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "back").iterdir() if path.is_file()}
    fetched = place.fetch(tmp_path / "back")
    assert (fetched.changed, fetched.bytes_moved) == (True, len('{"temperature": 0.5}') + len("new"))
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "back").iterdir() if path.is_file()}
    assert {name for name in before if after.get(name) != before[name]} == {
        "generation_config.json",
        "special_tokens_map.json",
    }
    assert paths_in(tmp_path / "back") == {*hashes(folder), MANIFEST_PATH}
    assert hashes(tmp_path / "back") == hashes(folder)


def test_what_lies_beside_the_prefix_is_left_alone(place, weights):
    for key in ("harbor/x-fp8/config.json", "harbor/xyz", "other"):
        place.store.put(key, b"of somebody else")
    place.ship(weights("w4a16"))
    assert place.manifest
    assert place.store.read("harbor/x-fp8/config.json", 100) == b"of somebody else"


# --- interrupted -------------------------------------------------------------------------------------------


def test_a_first_shipment_interrupted_anywhere(place, weights, hashes, tmp_path):
    files = len(list(weights("bf16").iterdir()))
    for number in range(1, files + 1):
        with pytest.raises(Stopped):
            place.ship(weights("bf16"), StopAt(number))
        assert MANIFEST_PATH not in place.listing()
        assert BEGUN_PATH in place.listing()
        assert not [path for path in place.listing() if path.startswith(CLAIM_PREFIX)]
        with pytest.raises(IntegrityError) as caught:
            _ = place.manifest
        assert caught.value.what == "there is no complete delivery"
    assert place.ship(weights("bf16")).changed
    place.fetch(tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(weights("bf16"))


def test_a_file_renamed_after_an_interrupted_shipment(place, model, hashes, tmp_path):
    """What a shipment that never ended has uploaded is still known to be ours."""
    folder = model("w4a16")
    (folder / "aaa.txt").write_text("a")
    with pytest.raises(Stopped):
        place.ship(folder, StopAt(2), ONE)
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


@dataclass(frozen=True)
class DoneAndRefused(Action):
    """Let the store do it, and say that it may not be done."""

    def head(self, head):
        head.status, head.reason = 403, "Forbidden"
        if head.get("Transfer-Encoding") is None:
            head.put("Content-Length", "0")

    def body(self, pieces, _gate):
        for _piece in pieces:
            continue
        yield from ()


REFUSED = Answer(403, body_bytes=b"<Error><Code>AccessDenied</Code></Error>")


@pytest.mark.parametrize("refusal", [REFUSED, DoneAndRefused()], ids=["refused", "done and refused"])
def test_a_store_that_fails_at_any_request(s3, fault_proxy, model, hashes, tmp_path, refusal):
    """Every request of an update is refused once; the next run completes, with nothing of the old one left."""
    one, other = model("w4a16", "one"), model("w4a16", "other")
    for folder in (one, other):
        (folder / f"only-{folder.name}.txt").write_text(folder.name)
    (other / "config.json").write_bytes((other / "config.json").read_bytes() + b"\n")
    proxy = fault_proxy(s3.server.endpoint)
    place = Place(s3, "", HashCache(tmp_path / "hashes"), proxy.url)
    place.ship(one)
    for number in range(200):
        one, other = other, one  # an update back and forth
        rule = proxy.add(Fault(refusal, path="list-type|harbor/", after=number, times=1))
        with suppress(AuthError):
            place.ship(one, connections=ONE)
        proxy.clear()
        if not rule.struck:
            break  # more requests than an update makes
        for path in place.listing():
            if path.startswith(CLAIM_PREFIX):  # a process that fails takes its claims along
                place.store.delete(place.address.key(path))
        place.ship(one, connections=ONE)
        assert place.listing() == {*hashes(one), MANIFEST_PATH}
    assert number > 15
    place.fetch(tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(one)


@pytest.mark.parametrize("with_journal", [True, False], ids=["journal", "no journal"])
def test_a_large_file_goes_on_with_the_parts_that_the_store_has(place, big_model, hashes, tmp_path, with_journal):
    journals = tmp_path / "journals" if with_journal else None
    with pytest.raises(Stopped):
        place.ship(big_model, StopAt(2), ONE, journals)  # config.json, and the first part
    assert place.listing() == {"config.json", BEGUN_PATH}
    told = []
    shipped = place.ship(big_model, told.append, ONE, journals)
    assert shipped.bytes_moved == (big_model / "model.safetensors").stat().st_size - PART_BYTES
    assert sum(told) == size_of(big_model)
    assert not with_journal or not list(journals.glob("*.jsonl"))
    assert place.store.pending_uploads("") == []
    place.fetch(tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(big_model)


def test_a_fetch_interrupted_anywhere(place, weights, hashes, tmp_path):
    """No file has its name before all are right; what has arrived stays and is not fetched again."""
    place.ship(weights("bf16"))
    back, files = tmp_path / "back", set(hashes(weights("bf16")))
    for number in range(1, len(files) + 1):
        with pytest.raises(Stopped):
            place.fetch(back, StopAt(number))
        assert named(back) == set()
        assert paths_in(back) == {BEGUN_PATH, *(f"{path}.part" for path in files)}
        assert not is_complete(back, place.manifest, place.cache)
    told = []
    fetched = place.fetch(back, told.append)  # the last one was stopped when all had arrived
    assert (fetched.changed, fetched.bytes_moved, sum(told)) == (True, 0, size_of(weights("bf16")))
    assert paths_in(back) == {*files, MANIFEST_PATH}
    assert hashes(back) == hashes(weights("bf16"))


@pytest.mark.parametrize("damage", ["byte", "shorter", "longer", "gone"])
def test_what_arrived_before_is_looked_at_again(place, big_model, hashes, flip, tmp_path, damage):
    place.ship(big_model)
    part = tmp_path / "back" / "model.safetensors.part"
    with pytest.raises(Stopped):
        place.fetch(tmp_path / "back", StopAt(3), ONE)  # config.json and both parts have come
    size, last = part.stat().st_size, part.stat().st_size - PART_BYTES
    if damage == "byte":
        flip(part, PART_BYTES + 5)
    elif damage == "gone":
        part.unlink()
    else:
        os.truncate(part, size + 1000 if damage == "longer" else PART_BYTES + 5)
    fetched = place.fetch(tmp_path / "back")
    assert fetched.bytes_moved == {"byte": last, "shorter": last, "longer": 0, "gone": size}[damage]
    assert hashes(tmp_path / "back") == hashes(big_model)


def test_another_delivery_than_the_one_that_was_begun(place, model, hashes, tmp_path):
    """Parts of the same size and name, of another model: each is looked at, and nothing of the old one stays."""
    old, new = model("bf16", "old"), model("bf16", "new")
    (old / "only-old.txt").write_text("old")
    content = (new / "tokenizer.json").read_bytes()
    (new / "tokenizer.json").write_bytes(content[:-1] + b" ")
    place.ship(old)
    with pytest.raises(Stopped):
        place.fetch(tmp_path / "back", StopAt(len(hashes(old))))
    place.ship(new)
    fetched = place.fetch(tmp_path / "back")
    assert fetched.bytes_moved == len(content)
    assert paths_in(tmp_path / "back") == {*hashes(new), MANIFEST_PATH}
    assert hashes(tmp_path / "back") == hashes(new)


def test_a_full_disk_is_told_before_a_byte_moves(place, weights, small_disk):
    place.ship(weights("bf16"))
    disk, told = small_disk("4m"), []
    with pytest.raises(DoesNotFit) as caught:
        place.fetch(disk / "back", told.append)
    assert caught.value.exit_code == 8
    assert (told, list(disk.iterdir())) == ([], [])


def test_a_disk_that_fills_up_is_not_left_full_of_halves(place, big_model, weights, hashes, small_disk):
    """Somebody else writes to it meanwhile. What the file system cannot reserve beforehand fails when it is written."""
    place.ship(big_model)
    disk = small_disk("70m")
    (disk / "of somebody else").write_bytes(b"x" * (1 << 20))

    def fill(_count):
        raise DoesNotFit("the disk is full", where="here")

    with pytest.raises(DoesNotFit):
        place.fetch(disk / "back", fill)
    assert [path.name for path in disk.iterdir()] == ["of somebody else"]
    place.fetch(disk / "back")
    assert hashes(disk / "back") == hashes(big_model)


def test_connections_that_are_closed_make_no_folder_complete(place, weights, tmp_path):
    place.ship(weights("w4a16"))
    store = place.world.store(place.store.bucket)
    origin = open_s3_delivery(store, place.address)
    store.close()
    with pytest.raises(Cancelled):
        fetch_to_folder(origin, tmp_path / "back", place.cache, ignore)
    assert named(tmp_path / "back") == set()
    assert not (tmp_path / "back" / MANIFEST_PATH).exists()


def test_a_file_that_changes_between_hashing_and_sending(place, model):
    origin = place.origin(model())
    with (origin.folder / "model-00002-of-00002.safetensors").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\xff")
    with pytest.raises(IntegrityError) as caught:
        place.ship_origin(origin)
    assert caught.value.what == "a file changed while it was shipped"
    assert "model-00002-of-00002.safetensors" in caught.value.where
    assert MANIFEST_PATH not in place.listing()
    assert "model-00002-of-00002.safetensors" not in place.listing()


@pytest.fixture
def own_big_model(big_model, tmp_path, settled):
    """A copy of the large model that a test may change."""
    folder = tmp_path / "own-model"
    folder.mkdir()
    for path in big_model.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    settled(folder)
    return folder


@pytest.mark.parametrize("change", ["byte", "shorter"])
def test_a_large_file_that_changes_between_hashing_and_sending(place, own_big_model, flip, change):
    origin = place.origin(own_big_model)
    path = own_big_model / "model.safetensors"
    if change == "byte":
        flip(path, PART_BYTES + 7)
    else:
        os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(IntegrityError) as caught:
        place.ship_origin(origin, connections=ONE)
    size = (own_big_model / "model.safetensors").stat().st_size + (change == "shorter")
    assert caught.value.why == f"bytes {PART_BYTES:,} to {size - 1:,} are not what was hashed"
    assert place.listing() == {"config.json", BEGUN_PATH}


def test_a_large_file_that_grows_after_hashing_is_sent_as_it_was(place, own_big_model, big_model, hashes, tmp_path):
    origin = place.origin(own_big_model)
    with (own_big_model / "model.safetensors").open("ab") as file:
        file.write(b"!")
    place.ship_origin(origin)
    place.fetch(tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(big_model)


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
        _ = place.manifest


@pytest.mark.parametrize("change", ["missing", "shorter", "extra"])
def test_files_that_are_not_those_of_the_manifest(place, weights, change):
    place.ship(weights("w4a16"))
    if change == "missing":
        place.store.delete(place.address.key("tokenizer.json"))
    else:
        place.store.put(place.address.key("tokenizer.json" if change == "shorter" else "more"), b"short")
    with pytest.raises(IntegrityError) as caught:
        _ = place.manifest
    assert ("more" if change == "extra" else "tokenizer.json") in caught.value.why
    if change != "extra":
        assert place.ship(weights("w4a16")).changed
        assert place.manifest


def test_no_manifest(place, weights):
    with pytest.raises(IntegrityError) as caught:
        _ = place.manifest
    assert (caught.value.exit_code, caught.value.what) == (7, "there is no complete delivery")
    place.ship(weights("w4a16"))
    place.store.delete(place.address.key(MANIFEST_PATH))
    with pytest.raises(IntegrityError):
        _ = place.manifest


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


def test_two_ships_to_one_prefix(place, model):
    """The second one is told, and changes nothing."""
    folder = model("w4a16")
    place.ship(folder)
    before = place.listing()
    (folder / "new.txt").write_text("new")
    with claimed(place.store, place.address.prefix), pytest.raises(Conflict) as caught:
        place.ship(folder)
    assert caught.value.exit_code == 5
    assert str(os.getpid()) in caught.value.why
    assert place.listing() == before
    assert place.ship(folder).changed


@pytest.mark.parametrize("name", ["notes.txt", "deep/other.safetensors", "notes.part"])
@pytest.mark.parametrize("fetched", [False, True], ids=["first time", "again"])
def test_a_stranger_in_the_folder(place, model, tmp_path, name, fetched):
    folder, back = model("w4a16"), tmp_path / "back"
    place.ship(folder)
    if fetched:
        place.fetch(back)
        (folder / "new.txt").write_text("new")
        place.ship(folder)
    (back / name).parent.mkdir(parents=True, exist_ok=True)
    (back / name).write_text("of somebody else")
    before = paths_in(back)
    with pytest.raises(Conflict) as caught:
        place.fetch(back)
    assert caught.value.exit_code == 5
    assert name in caught.value.why
    assert paths_in(back) == before
    assert (back / name).read_text() == "of somebody else"


def test_a_folder_that_is_being_fetched_into(place, weights, tmp_path):
    """Whoever else tries is refused, however often."""
    place.ship(weights("w4a16"))

    def again(_count):
        with pytest.raises(Conflict) as caught:
            place.fetch(tmp_path / "back")
        assert caught.value.what == "another run holds this folder: it is being fetched into"
        raise Stopped

    with pytest.raises(Stopped):
        place.fetch(tmp_path / "back", again)
    assert place.fetch(tmp_path / "back").changed


# --- wrong bytes -------------------------------------------------------------------------------------------


def test_a_byte_that_is_wrong_in_the_store(place, weights, flip, hashes, tmp_path):
    place.ship(weights("bf16"))
    stored = place.objects / "model-00002-of-00002.safetensors"
    flip(stored, 1_000_000)
    with pytest.raises(IntegrityError) as caught:
        place.fetch(tmp_path / "back")
    error, size = caught.value, stored.stat().st_size
    assert (error.exit_code, error.what) == (7, "bytes came wrong twice")
    assert error.where == f"{place.address}model-00002-of-00002.safetensors bytes 0 to {size - 1:,}"
    assert "CRC-64/NVME" in error.why
    assert named(tmp_path / "back") == set()
    assert not (tmp_path / "back" / MANIFEST_PATH).exists()
    flip(stored, 1_000_000)
    assert place.fetch(tmp_path / "back").bytes_moved >= size
    assert hashes(tmp_path / "back") == hashes(weights("bf16"))


def test_the_part_with_the_wrong_byte_is_named_and_the_other_one_stays(place, big_model, flip, hashes, tmp_path):
    place.ship(big_model)
    flip(place.objects / "model.safetensors", PART_BYTES + 7)
    with pytest.raises(IntegrityError) as caught:
        place.fetch(tmp_path / "back", connections=ONE)
    size = (big_model / "model.safetensors").stat().st_size
    assert caught.value.where.endswith(f"bytes {PART_BYTES:,} to {size - 1:,}")
    assert named(tmp_path / "back") == set()
    flip(place.objects / "model.safetensors", PART_BYTES + 7)
    assert place.fetch(tmp_path / "back").bytes_moved == size - PART_BYTES
    assert hashes(tmp_path / "back") == hashes(big_model)


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
    place.fetch(tmp_path / "back", url=proxy(s3.server.endpoint, fault).url)
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

    with pytest.raises(IntegrityError) as caught:
        place.fetch(tmp_path / "back", url=proxy(s3.server.endpoint, fault).url)
    assert len(asked) == 2
    assert "tokenizer.json bytes 0 to" in caught.value.where


def test_an_answer_that_breaks_off(place, s3, proxy, weights, tmp_path):
    place.ship(weights("w4a16"))

    def fault(method, path, status, headers, body):
        return (status, headers, body[:1000]) if method == "GET" and path.endswith("model.safetensors") else None

    with pytest.raises(RemoteUnavailable):
        place.fetch(tmp_path / "back", url=proxy(s3.server.endpoint, fault).url)
    assert named(tmp_path / "back") == set()


# --- a folder that was fetched -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "damage", ["byte", "truncated", "missing", "extra", "no manifest", "bad manifest", "link", "dead link", "gone"]
)
def test_a_damaged_folder_is_not_complete(place, weights, flip, settled, tmp_path, damage):
    place.ship(weights("w4a16"))
    folder = tmp_path / "back"
    manifest = place.fetch(folder).manifest
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
