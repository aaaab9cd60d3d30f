"""`berth ship` and `berth fetch` as a user and a program see them: results, refusals, exit codes."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import threading
from contextlib import closing
from pathlib import Path

import pytest

from docks import LONG_AGO, MARK, OWN, PART, SHARDS, Dock, KillSending, Victim, settle, write_model
from fault_proxy import Answer, Callback, Fault, Stall, StallSent

pytestmark = pytest.mark.integration


@pytest.fixture
def empty(dock, rclone) -> Dock:
    """`berth` at an empty bucket."""
    return dock(rclone)


@pytest.fixture
def shipped(empty, source) -> Dock:
    """`berth` at a bucket with the tests' model."""
    assert empty.ship(source).code == 0
    return empty


def total(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# --- results -----------------------------------------------------------------------------------------------


def test_the_result_of_a_ship_is_a_document(empty, source, hashes):
    end = empty.ship(source)
    assert end.code == 0
    document = end.document
    assert set(document) == {
        "schemaVersion", "source", "destination", "digest", "manifest", "changed", "bytes", "bytesMoved", "seconds",
        "files",
    }  # fmt: skip
    assert document["schemaVersion"] == "modelberth.dev/ship/v1"
    assert (document["source"], document["destination"]) == (str(source), empty.address)
    assert (document["changed"], document["bytes"], document["bytesMoved"]) == (True, total(source), total(source))
    assert {each["path"]: each["sha256"] for each in document["files"]} == hashes(source)
    with closing(empty.store.client()) as client:
        manifest = client.get_object(Bucket=empty.bucket, Key=f"m/{MARK}")["Body"].read()
    assert document["digest"] == document["manifest"] == f"sha256:{hashlib.sha256(manifest).hexdigest()}"
    assert json.loads(manifest)["partBytes"] == PART


def test_the_result_of_a_fetch_is_a_document(shipped, source, hashes, tmp_path):
    sent = shipped.ship(source).document
    document = shipped.fetch(tmp_path / "back").document
    assert document["schemaVersion"] == "modelberth.dev/fetch/v1"
    assert (document["source"], document["destination"]) == (shipped.address, str(tmp_path / "back"))
    assert (document["digest"], document["files"]) == (sent["digest"], sent["files"])
    assert document["bytesMoved"] == total(source)
    assert hashes(tmp_path / "back") == hashes(source)
    assert {path.name for path in (tmp_path / "back" / OWN).iterdir()} == {"manifest.json"}


def test_a_second_run_changes_nothing_and_moves_nothing(shipped, source, tmp_path):
    assert shipped.fetch(tmp_path / "back").code == 0
    before = len(shipped.requests)
    again = shipped.ship(source).document
    assert (again["changed"], again["bytesMoved"]) == (False, 0)
    again = shipped.fetch(tmp_path / "back").document
    assert (again["changed"], again["bytesMoved"]) == (False, 0)
    assert {each.method for each in shipped.requests[before:]} <= {"GET", "HEAD"}
    assert shipped.data_requests("GET", before) == []


def test_only_a_changed_file_moves(shipped, own_source, hashes):
    (own_source / "config.json").write_text((own_source / "config.json").read_text() + " ")
    settle(own_source)
    again = shipped.ship(own_source).document
    assert again["bytesMoved"] == (own_source / "config.json").stat().st_size
    assert shipped.objects() == hashes(own_source)


def test_forms_of_the_result(shipped, source):
    digest = shipped.ship(source).document["digest"]
    for form, expected in (("name", digest), ("table", "5 files"), ("wide", "SHA-256"), ("yaml", "schemaVersion:")):
        started = shipped.start("ship", source, shipped.address, "-o", form)
        code, stdout, _ = started.end()
        assert code == 0
        assert expected in stdout
        if form == "name":
            assert stdout.strip() == digest


def test_several_pairs_are_fetched_one_after_another(dock, shipped, source, hashes, tmp_path):
    other, there = write_model(tmp_path / "other", 10_000), dock(shipped.store, shipped.bucket)
    second = f"s3://{shipped.bucket}/n/"
    assert there.run("ship", other, second).code == 0
    started = there.start("fetch", shipped.address, tmp_path / "one", second, tmp_path / "two", "-o", "name")
    code, stdout, talk = started.end()
    assert code == 0, talk
    assert len(stdout.split()) == 2
    assert (hashes(tmp_path / "one"), hashes(tmp_path / "two")) == (hashes(source), hashes(other))


def test_what_is_excluded_stays_behind(empty, own_source, hashes):
    (own_source / "docs").mkdir()
    (own_source / "docs" / "read.md").write_text("of no use to an engine")
    (own_source / "notes.txt").write_text("neither")
    settle(own_source)
    assert empty.ship(own_source, "--exclude", "docs", "--exclude", "*.txt").code == 0
    assert empty.objects() == {
        path: value for path, value in hashes(own_source).items() if path not in {"docs/read.md", "notes.txt"}
    }


def test_an_empty_file_and_a_file_of_exactly_one_part_arrive(empty, own_source, hashes, tmp_path):
    (own_source / "empty.json").write_bytes(b"")
    (own_source / "one-part.json").write_bytes(os.urandom(PART))
    (own_source / "two-parts.json").write_bytes(os.urandom(2 * PART))
    settle(own_source)
    assert empty.ship(own_source).code == 0
    assert empty.fetch(tmp_path / "back").code == 0
    assert hashes(tmp_path / "back") == hashes(own_source)
    assert empty.run("ship", "--check", tmp_path / "back").code == 0


# --- check and gc ------------------------------------------------------------------------------------------


def test_a_check_of_what_is_right_says_so(shipped, source):
    end = shipped.run("ship", "--check", shipped.address)
    assert end.code == 0
    assert (end.document["schemaVersion"], end.document["passed"], end.document["wrong"]) == (
        "modelberth.dev/check/v1", True, [],
    )  # fmt: skip
    assert (end.document["files"], end.document["bytes"]) == (5, total(source))
    assert end.document["digest"] == shipped.ship(source).document["digest"]


def test_a_check_names_every_wrong_range(shipped, flip):
    for offset in (5, PART + 6, 2 * PART + 7):
        flip(shipped.store.folder / shipped.bucket / "m" / SHARDS[1], offset)
    end = shipped.run("ship", "--check", shipped.address)
    assert end.code == 7
    assert end.document["passed"] is False
    assert [(each["path"], each["firstByte"]) for each in end.document["wrong"]] == [
        (SHARDS[1], 0), (SHARDS[1], PART), (SHARDS[1], 2 * PART),
    ]  # fmt: skip
    assert all(each["why"] for each in end.document["wrong"])


def test_a_check_of_a_folder_reads_its_bytes(shipped, flip, tmp_path):
    assert shipped.fetch(tmp_path / "back").code == 0
    assert shipped.run("ship", "--check", tmp_path / "back").code == 0
    flip(tmp_path / "back" / SHARDS[0], PART + 1)
    os.utime(tmp_path / "back" / SHARDS[0], (LONG_AGO, LONG_AGO))
    end = shipped.run("ship", "--check", tmp_path / "back")
    assert (end.code, end.document["wrong"][0]["firstByte"]) == (7, PART)


def test_a_missing_or_an_additional_object_is_no_complete_delivery(shipped, tmp_path):
    with closing(shipped.store.client()) as client:
        client.put_object(Bucket=shipped.bucket, Key="m/of-somebody-else.bin", Body=b"x")
        for end in (shipped.run("ship", "--check", shipped.address), shipped.fetch(tmp_path / "back")):
            assert end.code == 7
            assert "of-somebody-else.bin" in end.talk
        client.delete_object(Bucket=shipped.bucket, Key="m/of-somebody-else.bin")
        client.delete_object(Bucket=shipped.bucket, Key=f"m/{SHARDS[2]}")
    for end in (shipped.run("ship", "--check", shipped.address), shipped.fetch(tmp_path / "back")):
        assert end.code == 7
        assert SHARDS[2] in end.talk
    assert not (tmp_path / "back").exists()


def test_garbage_of_a_killed_ship_is_listed_and_removed(dock, moto, source):
    here, victim = dock(moto), Victim()
    here.proxy.add(Fault(KillSending(victim, 1000), method="PUT", path=f"{SHARDS[1]}.*partNumber=2", times=1))
    assert here.end(victim.is_(here.start("ship", source, here.address))).code == -9
    assert here.upload_id(SHARDS[1])
    listed = here.run("ship", "--gc", "--dry-run", here.address)
    assert (listed.code, listed.document["schemaVersion"], listed.document["removed"]) == (
        0, "modelberth.dev/garbage/v1", False,
    )  # fmt: skip
    assert f"m/{SHARDS[1]}" in [each["name"] for each in listed.document["items"]]
    assert here.upload_id(SHARDS[1])
    removed = here.run("ship", "--gc", here.address)
    assert (removed.code, removed.document["items"]) == (0, listed.document["items"])
    assert here.run("ship", "--gc", here.address).document["items"] == []
    assert here.ship(source).code == 0


def test_garbage_of_a_neighbour_is_left_alone(dock, moto, source):
    here = dock(moto)
    with closing(moto.client()) as client:
        for key in ("m2/model.safetensors", "mm/x", "m"):
            client.create_multipart_upload(Bucket=here.bucket, Key=key)
        assert here.run("ship", "--gc", here.address).document["items"] == []
        assert len(client.list_multipart_uploads(Bucket=here.bucket)["Uploads"]) == 3


# --- what is refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pytorch_model.bin", "extra/weights.pt", "training_args.pkl"])
def test_a_pickle_is_refused_before_anything_is_asked(empty, own_source, hashes, name):
    (own_source / name).parent.mkdir(exist_ok=True)
    (own_source / name).write_bytes(b"\x80\x04.")
    end = empty.ship(own_source)
    assert end.code == 7
    assert name in end.talk
    assert "--allow-pickle" in end.talk
    assert empty.requests == []
    settle(own_source)
    assert empty.ship(own_source, "--allow-pickle").code == 0
    assert empty.objects() == hashes(own_source)


@pytest.mark.parametrize("cut", [1, 1000, PART])
def test_a_truncated_shard_is_refused_before_anything_is_asked(empty, own_source, cut):
    os.truncate(own_source / SHARDS[1], (own_source / SHARDS[1]).stat().st_size - cut)
    end = empty.ship(own_source)
    assert (end.code, empty.requests) == (7, [])
    assert SHARDS[1] in end.talk


def test_a_missing_shard_is_refused_before_anything_is_asked(empty, own_source):
    (own_source / SHARDS[2]).unlink()
    end = empty.ship(own_source)
    assert (end.code, empty.requests) == (7, [])
    assert SHARDS[2] in end.talk


def test_a_link_out_of_the_folder_is_refused(empty, own_source, tmp_path):
    (tmp_path / "secret.txt").write_text("of nobody's business")
    (own_source / "link.txt").symlink_to(tmp_path / "secret.txt")
    end = empty.ship(own_source)
    assert (end.code, empty.requests) == (7, [])
    assert "link.txt" in end.talk


def test_names_that_differ_only_in_case_are_refused(empty, own_source):
    (own_source / "Config.JSON").write_text("{}")
    end = empty.ship(own_source)
    assert (end.code, empty.requests) == (7, [])
    assert "case" in end.talk


UNSAFE = ["../outside.json", "a/../../outside.json", "/outside.json", "a\0b", "a//b", "./a", "a\\b", "C:x", "a\nb", ""]


@pytest.mark.parametrize("path", UNSAFE)
def test_a_manifest_with_an_unsafe_path_is_refused_and_nothing_is_written(shipped, tmp_path, path):
    key = f"m/{MARK}"
    with closing(shipped.store.client()) as client:
        manifest = json.loads(client.get_object(Bucket=shipped.bucket, Key=key)["Body"].read())
        manifest["files"][0]["path"] = path
        manifest["files"].sort(key=lambda each: each["path"])
        client.put_object(Bucket=shipped.bucket, Key=key, Body=json.dumps(manifest).encode())
    end = shipped.fetch(tmp_path / "deep" / "back")
    assert end.code == 7, end.talk
    assert not (tmp_path / "deep").exists()
    assert list(tmp_path.rglob("outside*")) == []


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"null", b"{}", b"\xff", b'{"schemaVersion": "modelberth.dev/manifest/v2"}', b"[" * 100_000]
)
def test_a_manifest_that_is_none_is_refused(shipped, tmp_path, content):
    with closing(shipped.store.client()) as client:
        client.put_object(Bucket=shipped.bucket, Key=f"m/{MARK}", Body=content)
    end = shipped.fetch(tmp_path / "back")
    assert end.code == 7
    assert "manifest" in end.talk
    assert not (tmp_path / "back").exists()


def test_a_prefix_without_its_mark_is_refused(empty, source, tmp_path):
    shutil.copytree(source, empty.store.folder / empty.bucket / "m")
    end = empty.fetch(tmp_path / "back")
    assert end.code == 7
    assert "there is no complete delivery" in end.talk
    assert not (tmp_path / "back").exists()


def test_an_empty_prefix_is_refused(empty, tmp_path):
    end = empty.fetch(tmp_path / "back")
    assert end.code == 7
    assert not (tmp_path / "back").exists()


def test_a_folder_with_files_of_somebody_else_is_refused_and_left_alone(shipped, tmp_path):
    folder = tmp_path / "back"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "thesis.txt").write_text("ten years of work")
    before = len(shipped.requests)
    end = shipped.fetch(folder)
    assert end.code == 5
    assert "thesis.txt" in end.talk
    assert shipped.data_requests("GET", before) == []
    assert [path.name for path in folder.rglob("*")] == ["deep", "thesis.txt"]


def test_a_prefix_with_files_of_somebody_else_is_refused_and_left_alone(empty, source):
    with closing(empty.store.client()) as client:
        client.put_object(Bucket=empty.bucket, Key="m/thesis.txt", Body=b"ten years of work")
    end = empty.ship(source)
    assert end.code == 5
    assert "thesis.txt" in end.talk
    assert empty.store.keys(empty.bucket) == ["m/thesis.txt"]


def test_two_fetches_into_one_folder_do_not_meet(shipped, source, hashes, tmp_path):
    shipped.proxy.add(Fault(Stall(1000), method="GET", path=f"/m/{SHARDS[1]}", times=1))
    first = shipped.start("fetch", shipped.address, tmp_path / "back")
    shipped.proxy.wait_stalled()
    second = shipped.beside("second").fetch(tmp_path / "back")
    assert second.code == 5
    assert "fetched into" in second.talk
    shipped.proxy.release()
    assert shipped.end(first).code == 0
    assert hashes(tmp_path / "back") == hashes(source)


@pytest.mark.parametrize(
    "arguments",
    [
        ["ship"], ["ship", "a"], ["ship", "a", "b", "c"], ["ship", "--check", "--gc", "a"], ["ship", "--check"],
        ["ship", "a", "b", "--part-size", "x"], ["ship", "a", "b", "--connections", "0"], ["ship", ".", "hf://a/b"],
        ["fetch"], ["fetch", "a"], ["fetch", "a", "b", "c"], ["fetch", "s3://bucket/m/", "s3://bucket/n/"],
        ["fetch", "s3://B/m/", "x"], ["fetch", "ftp://a/b", "x"], ["ship", "no-such-folder", "s3://bucket/m/"],
        ["fetch", "s3://bucket/m/", "x", "--stall-timeout", "0"], ["ship", "--gc", "folder"],
    ],
)  # fmt: skip
def test_wrong_usage_ends_with_2_and_asks_nobody(empty, berth, arguments):
    done = berth(*arguments, **empty.store.environment(empty.proxy.url))
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert "error: " in done.stderr
    assert empty.proxy.requests == []


@pytest.mark.parametrize("size", ["1MiB", "6GiB"])
def test_parts_that_no_store_takes_are_refused(empty, source, size):
    end = empty.run("ship", source, empty.address, "--part-size", size)
    assert end.code == 2
    assert "5 MiB" in end.talk


# --- Ctrl-C ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_ship_that_is_interrupted_ends_in_order_and_goes_on_later(dock, moto, berth, source, hashes, number):
    here = dock(moto)
    here.proxy.add(Fault(StallSent(1000), method="PUT", path=f"{SHARDS[1]}.*partNumber=2", times=1))
    started = here.start("ship", source, here.address, "--connections", 1)
    here.proxy.wait_stalled()
    started.process.send_signal(number)
    end = here.end(started)
    assert end.code == 128 + number
    assert end.document is None
    assert berth.processes() == {}
    assert [key for key in here.store.keys(here.bucket) if "claim-" in key] == []
    assert not here.has_mark()
    before = len(here.requests)
    assert here.ship(source, "--connections", 1).code == 0
    assert here.objects() == hashes(source)
    again = [each.path.rpartition("partNumber=")[2][:1] for each in here.data_requests("PUT", before)]
    assert again[0] == "2"


def test_a_fetch_that_is_interrupted_ends_in_order_and_goes_on_later(shipped, berth, source, hashes, tmp_path):
    shipped.proxy.add(Fault(Stall(1000), method="GET", path=f"/m/{SHARDS[1]}", range=f"bytes={PART}-", times=1))
    started = shipped.start("fetch", shipped.address, tmp_path / "back", "--connections", 1)
    shipped.proxy.wait_stalled()
    started.process.send_signal(signal.SIGINT)
    assert shipped.end(started).code == 130
    assert berth.processes() == {}
    assert not (tmp_path / "back" / MARK).exists()
    before = len(shipped.requests)
    assert shipped.fetch(tmp_path / "back", "--connections", 1).code == 0
    assert shipped.data_requests("GET", before)[0].header("Range").startswith(f"bytes={PART}-")
    assert hashes(tmp_path / "back") == hashes(source)


def test_a_fetch_that_is_interrupted_while_it_waits_to_try_again_ends_at_once(shipped, tmp_path):
    busy = Answer(503, {"Retry-After": "60"}, b"<Error><Code>SlowDown</Code></Error>")
    answered = threading.Event()
    shipped.proxy.add(Fault(Callback(lambda _request: answered.set()), method="GET", path=f"/m/{SHARDS[1]}"))
    rule = shipped.proxy.add(Fault(busy, method="GET", path=f"/m/{SHARDS[1]}"))
    started = shipped.start("fetch", shipped.address, tmp_path / "back", "--connections", 1)
    assert answered.wait(50)
    started.process.send_signal(signal.SIGINT)
    assert shipped.end(started).code == 130
    assert rule.struck == 1
