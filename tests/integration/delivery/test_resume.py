"""A client that is killed by SIGKILL, at every request and in the middle of bodies: the next run moves what is missing.

The cases of one test run two at a time, each in a bucket of its own behind one proxy, which says what was moved.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from docks import (
    LONG_AGO,
    MARK,
    PART,
    SHARDS,
    SIZES,
    Dock,
    KillBefore,
    KillDone,
    KillReceiving,
    KillSending,
    Store,
    Victim,
    is_data,
    write_model,
)
from fault_proxy import Callback, Fault, Request
from modelberth.adapters.s3_server import start_server

pytestmark = pytest.mark.integration
AT_A_TIME = 2
KILLED = -9


def size_of(folder: Path) -> int:
    """Bytes of a model."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def all_at_once(cases: list, run: Callable) -> None:
    """Run every case; the first that fails fails the test, with its name."""

    def named(case):
        try:
            run(case)
        except AssertionError as error:
            raise AssertionError(f"case {case}: {error}") from error

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for done in [pool.submit(named, case) for case in cases]:
            done.result()


def killed_run(
    dock: Dock, action: type, verb: str, *arguments: object, at: tuple = (), after: int = 0, **where
) -> None:
    """Run a verb whose process is killed at one request of the bucket: the one after the first `after` that match."""
    victim = Victim()
    path = rf"^/{dock.bucket}[/?]{where.pop('path', '')}"
    dock.proxy.add(Fault(action(victim, *at), path=path, after=after, times=1, **where))
    assert dock.end(victim.is_(dock.start(verb, *arguments))).code == KILLED


def line_of(request: Request) -> str:
    """A request without what is different in every run."""
    path = re.sub(r"claim-\w+", "claim-N", re.sub(r"uploadId=[^&]+", "uploadId=U", request.path))
    return f"{request.method} {re.sub('^/b-[0-9a-f]+/?', '', path)}"


# --- uploads -----------------------------------------------------------------------------------------------


def sent(requests: list[Request]) -> int:
    """Bytes of the model that the store took, without what it was sent again after it had dropped a connection."""
    return sum(each.sent_bytes for each in requests if is_data(each, "PUT") and each.status == 200)


@pytest.fixture
def upload_line(dock, moto: Store, source, hashes) -> list[str]:
    """The requests of an upload that nobody disturbs, in their order: one connection, so each run makes the same."""
    calm = dock(moto)
    assert calm.ship(source, "--connections", 1).code == 0
    assert calm.objects() == hashes(source)
    assert sent(calm.requests) == size_of(source)
    moto.empty(calm.bucket)
    return [line_of(each) for each in calm.requests]


@pytest.mark.timeout(240)  # some forty pairs of runs
def test_an_upload_killed_at_any_request_goes_on(dock, moto, source, hashes, front, upload_line):
    """Before a request, the client knows of all that was done; once the server has done it, not of the last."""
    proxy, size = front(moto.url), size_of(source)
    changing = [number for number, line in enumerate(upload_line) if not line.startswith(("GET", "HEAD"))]
    assert len(changing) >= 18
    # Before a request that follows one which only reads, nothing is other than before that one.
    cases = [(KillBefore, 0), *((KillBefore, number + 1) for number in changing if number + 1 < len(upload_line))]
    cases += [(KillDone, number) for number in changing]

    def run(case: tuple[type, int]) -> None:
        kind, number = case
        here = dock(moto, proxy=proxy, name=f"{kind.__name__}-{number}")
        killed_run(here, kind, "ship", source, here.address, "--connections", 1, after=number)
        first = here.requests
        assert [line_of(each) for each in first] == upload_line[: number + 1]
        again = here.ship(source)
        assert again.code == 0, again.talk
        assert here.objects() == hashes(source)
        assert here.has_mark()
        assert sent(here.requests[len(first) :]) == again.document["bytesMoved"] == size - sent(first)
        moto.empty(here.bucket)

    all_at_once(cases, run)


def test_uploads_killed_in_the_middle_of_bodies_go_on(dock, moto, source, hashes, front):
    proxy, size = front(moto.url), size_of(source)
    cases = [
        (SHARDS[0], 1, PART // 2), (SHARDS[0], 2, 1), (SHARDS[1], 1, PART), (SHARDS[1], 2, PART - 1),
        (SHARDS[1], 3, 50_000),
    ]  # fmt: skip

    def run(case: tuple[str, int, int]) -> None:
        shard, part, after = case
        here = dock(moto, proxy=proxy, name=f"middle-{shard}-{part}")
        killed_run(
            here, KillSending, "ship", source, here.address, at=(after,), method="PUT",
            path=rf"m/{shard}.*partNumber={part}",
        )  # fmt: skip
        first = here.requests
        stored = sum(each.sent_bytes for each in first if is_data(each, "PUT") and each.status == 200)
        again = here.ship(source)
        assert again.code == 0, again.talk
        assert here.objects() == hashes(source)
        assert sent(here.requests[len(first) :]) <= size - stored
        moto.empty(here.bucket)

    all_at_once(cases, run)


def begun_at(here: Dock, source: Path) -> Dock:
    """An upload of the second shard that was killed when two of its three parts were there."""
    killed_run(
        here, KillBefore, "ship", source, here.address, "--connections", 1,
        method="PUT", path=rf"m/{SHARDS[1]}.*partNumber=3",
    )  # fmt: skip
    return here


@pytest.fixture
def begun(dock, moto: Store, own_source: Path) -> Dock:
    """Of moto, which keeps the parts of an upload in any order and lets them be replaced."""
    return begun_at(dock(moto), own_source)


@pytest.fixture
def begun_at_rclone(dock, rclone: Store, own_source: Path) -> Dock:
    """Of rclone, which writes parts one after another and takes none twice."""
    return begun_at(dock(rclone), own_source)


def again_and_right(dock: Dock, source: Path, hashes) -> list[str]:
    """Ship to the end; returns what was sent: file and part number."""
    before = len(dock.requests)
    again = dock.ship(source, "--connections", 1)
    assert again.code == 0, again.talk
    assert dock.objects() == hashes(source)
    odd = [(line_of(each), each.status) for each in dock.requests[before:] if each.status not in {200, 204, 404}]
    assert odd == []
    lines = [line_of(each) for each in dock.data_requests("PUT", before)]
    return [re.sub(r"PUT m/|\?uploadId=U|partNumber=|uploadId=U&?|&", "", line) for line in lines]


REST = [f"{SHARDS[1]}?3", SHARDS[2], "model.safetensors.index.json"]


def test_what_is_left_of_an_upload_is_sent(begun, own_source, hashes):
    assert again_and_right(begun, own_source, hashes) == REST


def test_without_its_journal_an_upload_goes_on_by_the_checksums_of_the_store(begun, own_source, hashes):
    shutil.rmtree(begun.state)
    assert again_and_right(begun, own_source, hashes) == REST


def test_from_another_machine_an_upload_goes_on_as_well(begun, own_source, hashes):
    assert again_and_right(begun.beside("other-machine"), own_source, hashes) == REST


@pytest.mark.parametrize("journal", ["kept", "lost"])
def test_a_stored_part_of_other_bytes_but_the_same_size_is_sent_again(begun, own_source, hashes, journal):
    upload = begun.upload_id(SHARDS[1])
    with closing(begun.store.client()) as client:
        client.upload_part(
            Bucket=begun.bucket, Key=f"m/{SHARDS[1]}", UploadId=upload, PartNumber=2, Body=os.urandom(PART)
        )
    if journal == "lost":
        shutil.rmtree(begun.state)
    sent_again = again_and_right(begun, own_source, hashes)
    assert [each for each in sent_again if each != f"{SHARDS[1]}?1"] == [f"{SHARDS[1]}?2", *REST]


def test_a_source_file_that_changed_between_runs_is_sent_anew(begun, own_source, hashes, flip):
    changed = own_source / SHARDS[1]
    flip(changed, PART + 1000)
    os.utime(changed, (LONG_AGO + 60, LONG_AGO + 60))
    sent_again = again_and_right(begun, own_source, hashes)
    assert f"{SHARDS[1]}?2" in sent_again
    assert begun.fetch(own_source.parent / "back").code == 0
    assert hashes(own_source.parent / "back") == hashes(own_source)


def test_what_is_left_of_an_upload_to_rclone_is_sent(begun_at_rclone, own_source, hashes):
    assert again_and_right(begun_at_rclone, own_source, hashes) == REST


def test_a_source_file_that_changed_is_sent_anew_to_rclone(begun_at_rclone, own_source, hashes, flip):
    flip(own_source / SHARDS[1], PART + 1000)
    os.utime(own_source / SHARDS[1], (LONG_AGO + 60, LONG_AGO + 60))
    again_and_right(begun_at_rclone, own_source, hashes)


def test_an_upload_to_a_server_that_started_anew_begins_anew(dock, own_s3, own_source, hashes, tmp_path):
    """What rclone has of an upload ends with it. Its address is another one then, so the journal is another one too."""
    keys, folder = own_s3.server.keys, own_s3.data
    begun_at(dock(Store(own_s3.server.endpoint, keys.access_key, keys.secret_key, folder), name="one"), own_source)
    own_s3.server.stop()
    own_s3.server = start_server(folder, tmp_path / "second.log")
    (bucket,) = [path.name for path in folder.iterdir() if path.name.startswith("b-")]
    keys = own_s3.server.keys
    here = dock(Store(own_s3.server.endpoint, keys.access_key, keys.secret_key, folder), bucket, name="one")
    again_and_right(here, own_source, hashes)


def test_a_source_file_that_became_shorter_between_runs_is_sent_anew(begun, own_source, model_of_one_shard, hashes):
    shutil.rmtree(own_source)
    shutil.copytree(model_of_one_shard, own_source)
    again_and_right(begun, own_source, hashes)


@pytest.fixture
def model_of_one_shard(tmp_path: Path) -> Path:
    return write_model(tmp_path / "one-shard", PART + 5)


def test_an_upload_whose_server_forgot_it_begins_anew(begun, own_source, hashes):
    with closing(begun.store.client()) as client:
        client.abort_multipart_upload(Bucket=begun.bucket, Key=f"m/{SHARDS[1]}", UploadId=begun.upload_id(SHARDS[1]))
    assert again_and_right(begun, own_source, hashes) == [f"{SHARDS[1]}?1", f"{SHARDS[1]}?2", *REST]


@pytest.mark.parametrize("cut", [1, 7, 40])
def test_a_journal_whose_last_line_was_torn_off_still_counts(begun, own_source, hashes, cut):
    (journal,) = begun.state.glob("journals/*.jsonl")
    with journal.open("r+b") as file:
        file.truncate(journal.stat().st_size - cut)
    assert again_and_right(begun, own_source, hashes) == REST


def test_a_journal_of_nonsense_is_no_hindrance(begun, own_source, hashes):
    (journal,) = begun.state.glob("journals/*.jsonl")
    journal.write_bytes(b'\xff\x00nonsense\n{"part": 1}\n[]\n' + journal.read_bytes()[::-1])
    assert again_and_right(begun, own_source, hashes) == REST


# --- downloads ---------------------------------------------------------------------------------------------


def received(requests: list[Request]) -> int:
    """Bytes of the model that left for the client."""
    return sum(each.answer_bytes for each in requests if is_data(each, "GET"))


@pytest.fixture
def shipped(dock, rclone: Store, source: Path) -> Dock:
    """The tests' model, complete in a bucket."""
    here = dock(rclone)
    assert here.ship(source).code == 0
    return here


def files_with_their_name(folder: Path) -> list[str]:
    """Of the model, not `.part`."""
    return [
        str(path) for path in folder.rglob("*") if path.is_file() and path.suffix not in {".part", ".jsonl", ".lock"}
        and path.parent.name != ".modelberth"
    ]  # fmt: skip


@pytest.mark.timeout(240)
def test_a_download_killed_at_any_request_goes_on(dock, shipped, source, hashes, front, tmp_path):
    calm, size = dock(shipped.store, shipped.bucket), size_of(source)
    assert calm.fetch(tmp_path / "calm", "--connections", 1).code == 0
    lines = [line_of(each) for each in calm.requests]
    # A server's view of each case is its own proxy's: all of them read one bucket.
    cases = [(kind, number) for number, line in enumerate(lines) for kind in (KillBefore, KillDone) if "m/" in line]
    assert received(calm.requests) == size
    assert len(cases) >= 18

    def run(case) -> None:
        kind, number = case
        here = dock(shipped.store, shipped.bucket, name=f"{kind.__name__}-{number}")
        folder = tmp_path / f"{kind.__name__}-{number}"
        killed_run(here, kind, "fetch", here.address, folder, "--connections", 1, after=number)
        first = here.requests
        assert [line_of(each) for each in first] == lines[: number + 1]
        assert not (folder / MARK).exists()
        assert files_with_their_name(folder) == []
        again = here.fetch(folder)
        assert again.code == 0, again.talk
        assert hashes(folder) == hashes(source)
        assert received(here.requests[len(first) :]) == again.document["bytesMoved"] == size - received(first)
        shutil.rmtree(folder)

    all_at_once(cases, run)


def test_downloads_killed_in_the_middle_of_bodies_go_on(dock, shipped, source, hashes, tmp_path):
    size, connections = size_of(source), 4
    cases = [
        (SHARDS[0], 0, PART // 2), (SHARDS[0], PART, 1), (SHARDS[1], 0, PART), (SHARDS[1], PART, PART - 1),
        (SHARDS[1], 2 * PART, 50_000),
    ]  # fmt: skip

    def run(case: tuple[str, int, int]) -> None:
        shard, begin, after = case
        here, folder = dock(shipped.store, shipped.bucket), tmp_path / f"{shard}-{begin}"
        killed_run(
            here, KillReceiving, "fetch", here.address, folder, "--connections", connections, at=(after,),
            method="GET", path=rf"m/{shard}", range=f"bytes={begin}-",
        )  # fmt: skip
        first = here.requests
        assert files_with_their_name(folder) == []
        again = here.fetch(folder)
        assert again.code == 0, again.talk
        assert hashes(folder) == hashes(source)
        moved = received(here.requests[len(first) :])
        assert moved == again.document["bytesMoved"]
        assert moved <= size - received(first) + connections * PART

    all_at_once(cases, run)


@pytest.fixture
def half(shipped: Dock, tmp_path: Path) -> Path:
    """A folder into which a fetch was killed before the last part of the second shard."""
    folder = tmp_path / "half"
    killed_run(
        shipped, KillBefore, "fetch", shipped.address, folder, "--connections", 1,
        method="GET", path=rf"m/{SHARDS[1]}", range=f"bytes={2 * PART}-",
    )  # fmt: skip
    return folder


def ranges(dock: Dock, since: int) -> list[str]:
    """What was asked of the server: file and first byte."""
    return [
        f"{each.path.rpartition('/')[2]} {each.header('Range').split('=')[-1].split('-')[0]}"
        for each in dock.data_requests("GET", since)
    ]


LEFT = [f"{SHARDS[1]} {2 * PART}", f"{SHARDS[2]} 0", "model.safetensors.index.json 0"]


def test_what_is_left_of_a_download_is_fetched(shipped, half, source, hashes):
    before = len(shipped.requests)
    assert shipped.fetch(half, "--connections", 1).code == 0
    assert ranges(shipped, before) == LEFT
    assert hashes(half) == hashes(source)


def test_without_any_state_a_download_goes_on_as_well(shipped, half, source, hashes):
    before = len(shipped.requests)
    assert shipped.beside("nothing-known").fetch(half, "--connections", 1).code == 0
    assert ranges(shipped, before) == LEFT
    assert hashes(half) == hashes(source)


@pytest.mark.parametrize(("offset", "first"), [(5, 0), (PART + 70_000, PART)])
def test_only_the_damaged_part_on_disk_is_fetched_again(shipped, half, source, hashes, flip, offset, first):
    flip(half / f"{SHARDS[1]}.part", offset)
    before = len(shipped.requests)
    assert shipped.fetch(half, "--connections", 1).code == 0
    assert ranges(shipped, before) == [f"{SHARDS[1]} {first}", *LEFT]
    assert hashes(half) == hashes(source)


def test_a_part_file_that_was_cut_short_is_filled(shipped, half, source, hashes):
    os.truncate(half / f"{SHARDS[1]}.part", PART + 10)
    before = len(shipped.requests)
    assert shipped.fetch(half, "--connections", 1).code == 0
    assert ranges(shipped, before) == [f"{SHARDS[1]} {PART}", *LEFT]
    assert hashes(half) == hashes(source)


def test_a_part_file_that_is_too_long_or_a_folder_is_no_trap(shipped, half, source, hashes):
    with (half / f"{SHARDS[0]}.part").open("ab") as file:
        file.write(b"more than there ever was")
    assert shipped.fetch(half).code == 0
    assert hashes(half) == hashes(source)


def test_another_model_into_a_folder_with_halves_leaves_none_of_the_old_bytes(dock, shipped, half, tmp_path, hashes):
    other, there = write_model(tmp_path / "other", *SIZES[:2]), dock(shipped.store)
    assert there.ship(other).code == 0
    assert there.fetch(half).code == 0
    assert hashes(half) == hashes(other)
    digest = hashlib.sha256((half / MARK).read_bytes()).hexdigest()
    assert there.fetch(half).document["digest"] == f"sha256:{digest}"


# --- sources that nobody has written down -------------------------------------------------------------------


@pytest.fixture
def bare(dock, rclone: Store, source: Path) -> Dock:
    """The tests' model as somebody else has put it into a bucket: without a manifest, so without known hashes."""
    here = dock(rclone)
    shutil.copytree(source, rclone.folder / here.bucket / "bare")
    return here


def killed_at_the_third_part(bare: Dock, destination: object) -> None:
    killed_run(
        bare, KillBefore, "ship", f"s3://{bare.bucket}/bare/", destination, "--connections", 1,
        method="GET", path=f"bare/{SHARDS[1]}", range=f"bytes={2 * PART}-",
    )  # fmt: skip


def test_a_download_of_files_without_a_manifest_goes_on(bare, source, hashes, tmp_path):
    killed_at_the_third_part(bare, tmp_path / "back")
    before = len(bare.requests)
    assert bare.run("ship", f"s3://{bare.bucket}/bare/", tmp_path / "back", "--connections", 1).code == 0
    assert [each for each in ranges(bare, before) if f"{SHARDS[1]} {PART}" in each] == []
    assert hashes(tmp_path / "back") == hashes(source)


def change(bare: Dock, model: Path) -> None:
    """Whoever owns the bucket puts another model there; its files have the same names and sizes."""
    with closing(bare.store.client()) as client:
        for path in model.iterdir():
            client.upload_file(str(path), bare.bucket, f"bare/{path.name}")


def test_a_source_that_changed_between_two_runs_of_a_download_is_not_mixed(bare, hashes, tmp_path):
    killed_at_the_third_part(bare, tmp_path / "back")
    other = write_model(tmp_path / "other", *SIZES)
    change(bare, other)
    assert bare.run("ship", f"s3://{bare.bucket}/bare/", tmp_path / "back").code == 0
    assert hashes(tmp_path / "back") == hashes(other)


def test_a_source_that_changed_between_two_runs_of_an_upload_is_not_mixed(bare, hashes, tmp_path):
    killed_at_the_third_part(bare, bare.address)
    other = write_model(tmp_path / "other", *SIZES)
    change(bare, other)
    assert bare.run("ship", f"s3://{bare.bucket}/bare/", bare.address).code == 0
    assert bare.objects() == hashes(other)


def test_a_source_that_changes_while_it_is_fetched_is_not_mixed(bare, source, hashes, tmp_path):
    """Between two ranges of one file. Either all bytes are of one model, or it is said."""
    other = write_model(tmp_path / "other", *SIZES)
    bare.proxy.add(
        Fault(Callback(lambda _request: change(bare, other)), path=f"bare/{SHARDS[1]}", range=f"bytes={PART}-", times=1)
    )
    end = bare.run("ship", f"s3://{bare.bucket}/bare/", tmp_path / "back", "--connections", 1)
    assert end.code == 7 or hashes(tmp_path / "back") in (hashes(source), hashes(other))
