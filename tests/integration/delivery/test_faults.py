"""A network and servers that break, stall, lie and refuse: what comes through is right, or nothing has its name."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from docks import MARK, OWN, PART, SHARDS, Dock, Store, is_data
from fault_proxy import (
    Answer,
    As200,
    ContentLength,
    ContentRange,
    Cut,
    CutSent,
    Fault,
    FlipByte,
    FlipSentByte,
    IgnoreRange,
    LoseAnswer,
    Stall,
    StallSent,
)
from servers import s3_signer

pytestmark = pytest.mark.integration
SECOND = rf"/m/{SHARDS[1]}"
MIDDLE = f"bytes={PART}-{2 * PART - 1}"
"""The second part of the second shard."""
PARTS = 8
"""Of the tests' model: ranges that a fetch asks for."""


@pytest.fixture(scope="module")
def complete(s3, source, tmp_path_factory) -> str:
    """A bucket with the tests' model, shipped once for all tests that only read."""
    keys, home = s3.server.keys, tmp_path_factory.mktemp("complete")
    store = Store(s3.server.endpoint, keys.access_key, keys.secret_key)
    bucket = store.new_bucket()
    done = subprocess.run(
        [Path(sys.executable).with_name("berth"), "ship", source, f"s3://{bucket}/m/", "--part-size", "5MiB"],
        env={"PATH": os.environ["PATH"], "HOME": str(home), **store.environment()}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return bucket


@pytest.fixture
def reading(dock, rclone, complete) -> Dock:
    """`berth` at the complete bucket."""
    return dock(rclone, complete)


@pytest.fixture
def writing(dock, rclone) -> Dock:
    """`berth` at an empty bucket."""
    return dock(rclone)


def fetched(dock: Dock, folder: Path, *options: object) -> list[str]:
    """Fetch, which must succeed; returns the ranges that were asked for."""
    end = dock.fetch(folder, *options)
    assert end.code == 0, end.talk
    assert (folder / MARK).is_file()
    return [each.header("Range") for each in dock.data_requests("GET")]


def refused(dock: Dock, folder: Path, code: int, *options: object) -> str:
    """Fetch, which must fail and leave no file under its name; returns what was said."""
    end = dock.fetch(folder, *options)
    assert end.code == code, end.talk
    assert end.document is None
    named = [
        path for path in folder.rglob("*") if path.is_file() and path.suffix != ".part" and OWN[:-1] not in path.parts
    ]
    assert named == []
    assert not (folder / MARK).exists()
    return end.talk


# --- wrong bytes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, PART // 2, PART - 1])
def test_a_byte_turned_over_once_costs_one_more_request(reading, source, hashes, tmp_path, offset):
    reading.proxy.add(Fault(FlipByte(offset), path=SECOND, range=MIDDLE, times=1))
    asked = fetched(reading, tmp_path / "back")
    assert (len(asked), asked.count(MIDDLE)) == (PARTS + 1, 2)
    assert hashes(tmp_path / "back") == hashes(source)


def test_a_byte_turned_over_each_time_is_named_and_nothing_has_its_name(reading, tmp_path):
    reading.proxy.add(Fault(FlipByte(77), path=SECOND, range=MIDDLE))
    talk = refused(reading, tmp_path / "back", 7)
    assert SHARDS[1] in talk
    assert f"bytes {PART:,} to {2 * PART - 1:,}" in talk
    assert [each.header("Range") for each in reading.data_requests("GET")].count(MIDDLE) == 2


@pytest.mark.parametrize("path", ["config.json", "model.safetensors.index.json", SHARDS[2]])
def test_a_byte_turned_over_in_a_small_file_is_noticed_too(reading, tmp_path, path):
    reading.proxy.add(Fault(FlipByte(0), path=f"/m/{path}"))
    assert path in refused(reading, tmp_path / "back", 7)


def test_after_wrong_bytes_the_next_run_fetches_what_was_wrong(reading, source, hashes, tmp_path):
    reading.proxy.add(Fault(FlipByte(77), path=SECOND, range=MIDDLE))
    refused(reading, tmp_path / "back", 7, "--connections", 1)
    reading.proxy.clear()
    before = len(reading.requests)
    assert reading.fetch(tmp_path / "back", "--connections", 1).code == 0
    assert reading.data_requests("GET", before)[0].header("Range") == MIDDLE
    assert hashes(tmp_path / "back") == hashes(source)


def test_a_byte_turned_over_at_rest_is_named_by_fetch_and_by_check(writing, source, flip, tmp_path):
    assert writing.ship(source).code == 0
    flip(writing.store.folder / writing.bucket / "m" / SHARDS[1], 2 * PART + 5)
    last = (source / SHARDS[1]).stat().st_size - 1
    talk = refused(writing, tmp_path / "back", 7)
    assert f"{SHARDS[1]} bytes {2 * PART:,} to {last:,}" in talk
    checked = writing.run("ship", "--check", writing.address)
    assert checked.code == 7
    assert [(each["path"], each["firstByte"], each["lastByte"]) for each in checked.document["wrong"]] == [
        (SHARDS[1], 2 * PART, last)
    ]


def test_a_byte_turned_over_on_the_way_to_a_store_that_checks_nothing_is_found_by_check(writing, source, tmp_path):
    writing.proxy.add(Fault(FlipSentByte(5), method="PUT", path=f"{SECOND}.*partNumber=2", times=1))
    assert writing.ship(source).code == 0
    checked = writing.run("ship", "--check", writing.address)
    assert (checked.code, [each["firstByte"] for each in checked.document["wrong"]]) == (7, [PART])
    refused(writing, tmp_path / "back", 7)


def test_a_manifest_with_a_byte_turned_over_is_no_manifest(reading, tmp_path):
    reading.proxy.add(Fault(FlipByte(3), path=MARK))
    assert "manifest" in refused(reading, tmp_path / "back", 7)


# --- broken and stalled connections ------------------------------------------------------------------------


@pytest.mark.parametrize("after", [0, 1, PART // 2, PART - 1])
def test_a_connection_that_is_cut_goes_on_where_it_was(reading, source, hashes, tmp_path, after):
    reading.proxy.add(Fault(Cut(after), path=SECOND, range=MIDDLE, times=1))
    asked = fetched(reading, tmp_path / "back")
    assert [text for text in asked if text.endswith(f"-{2 * PART - 1}")] == [
        MIDDLE, f"bytes={PART + after}-{2 * PART - 1}",
    ]  # fmt: skip
    assert hashes(tmp_path / "back") == hashes(source)


def test_a_connection_that_is_cut_each_time_is_given_up(reading, tmp_path):
    reading.proxy.add(Fault(Cut(0), path=SECOND, range=f"bytes={PART}-"))
    talk = refused(reading, tmp_path / "back", 9)
    assert SHARDS[1] in talk
    assert "broke off" in talk


def test_many_cuts_that_each_let_something_through_end_well(reading, source, hashes, tmp_path):
    """What counts is that something moves: 48 GB over a bad line break off more often than five times."""
    reading.proxy.add(Fault(Cut(PART // 10), path=SECOND, range=rf"-{2 * PART - 1}$", times=8))
    fetched(reading, tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(source)


def test_a_transfer_that_stalls_goes_on_in_the_middle(reading, source, hashes, tmp_path):
    reading.proxy.add(Fault(Stall(PART // 2), path=SECOND, range=MIDDLE, times=1))
    asked = fetched(reading, tmp_path / "back", "--stall-timeout", 1)
    (again,) = [text for text in asked if text.endswith(f"-{2 * PART - 1}") and text != MIDDLE]
    first = int(re.findall(r"\d+", again)[0])
    assert PART + PART // 4 < first <= PART + PART // 2  # what lay in a buffer may come twice
    assert hashes(tmp_path / "back") == hashes(source)


def test_a_transfer_that_stalls_each_time_is_given_up(reading, tmp_path):
    reading.proxy.add(Fault(Stall(0), path=SECOND, range=MIDDLE))
    talk = refused(reading, tmp_path / "back", 6, "--stall-timeout", 1)
    assert "--stall-timeout" in talk
    assert SHARDS[1] in talk


def test_an_upload_that_stalls_or_is_cut_is_sent_again(dock, moto, source, hashes):
    writing = dock(moto)  # rclone's lets every part wait for those before it
    writing.proxy.add(Fault(StallSent(PART // 2), method="PUT", path=f"{SECOND}.*partNumber=1", times=1))
    writing.proxy.add(Fault(CutSent(PART // 3), method="PUT", path=f"{SECOND}.*partNumber=2", times=1))
    assert writing.ship(source, "--stall-timeout", 1).code == 0
    assert writing.objects() == hashes(source)
    assert writing.run("ship", "--check", writing.address).code == 0


def test_an_upload_that_stalls_each_time_is_given_up(writing, source):
    writing.proxy.add(Fault(StallSent(1000), method="PUT", path=f"{SECOND}.*partNumber=1"))
    end = writing.ship(source, "--stall-timeout", 1)
    assert (end.code, writing.has_mark()) == (6, False)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "partNumber=2"), ("PUT", SHARDS[2]), ("POST", r"\?uploads"), ("POST", "uploadId="), ("PUT", MARK),
        ("PUT", "begun"), ("PUT", "claim-"), ("DELETE", "begun"), ("DELETE", "claim-"), ("GET", "list-type"),
    ],
)  # fmt: skip
def test_an_answer_that_was_lost_is_no_loss(writing, source, hashes, method, path):
    """The server has done it; the client does not know and asks again."""
    rule = writing.proxy.add(Fault(LoseAnswer(), method=method, path=path, times=1))
    end = writing.ship(source)
    assert rule.struck == 1
    assert end.code == 0, end.talk
    assert writing.objects() == hashes(source)
    assert writing.has_mark()


def test_a_server_that_is_not_there_is_said_so(writing, source, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        for verb in (("ship", source, writing.address), ("fetch", writing.address, tmp_path / "back")):
            end = writing.run(*verb, AWS_ENDPOINT_URL=url)
            assert end.code == 9
            assert url in end.talk


def test_a_server_that_goes_away_midway_is_said_so(writing, reading, source, tmp_path):
    """Nothing but refused connections after some bytes."""
    reading.proxy.add(Fault(Cut(1000), path="/m/model-"))
    assert "the S3 store does not answer" in refused(reading, tmp_path / "back", 9)


# --- refusals and servers that have too much to do ---------------------------------------------------------


def error(status: int, code: str, **headers: str) -> Answer:
    """An answer as stores give it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>no</Message></Error>"
    return Answer(status, {"Content-Type": "application/xml", **headers}, body.encode())


@pytest.mark.parametrize(("status", "code"), [(500, "InternalError"), (503, "SlowDown"), (429, "TooManyRequests")])
def test_a_server_that_has_too_much_to_do_is_asked_again(reading, source, hashes, tmp_path, status, code):
    busy = error(status, code, **{"Retry-After": "1"})
    reading.proxy.add(Fault(busy, path=SECOND, range=MIDDLE, times=2))
    assert fetched(reading, tmp_path / "back").count(MIDDLE) == 3
    assert hashes(tmp_path / "back") == hashes(source)


@pytest.mark.parametrize("path", ["partNumber=2", SHARDS[2], r"\?uploads", "uploadId=[^&]*$", MARK, "claim-", "begun"])
def test_a_busy_server_is_asked_again_while_shipping(writing, source, hashes, path):
    writing.proxy.add(Fault(error(503, "SlowDown", **{"Retry-After": "1"}), path=path, times=1))
    assert writing.ship(source).code == 0
    assert writing.objects() == hashes(source)


@pytest.mark.parametrize("path", [SECOND, MARK, "list-type"])
def test_a_server_that_has_too_much_to_do_forever_is_given_up(reading, tmp_path, path):
    reading.proxy.add(Fault(error(503, "SlowDown"), method="GET", path=path))
    talk = refused(reading, tmp_path / "back", 9)
    assert "SlowDown" in talk
    assert reading.proxy.url in talk


def test_a_day_to_come_back_on_is_understood(reading, tmp_path):
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=1), usegmt=True)
    reading.proxy.add(Fault(error(503, "SlowDown", **{"Retry-After": soon}), path=SECOND, range=MIDDLE, times=1))
    fetched(reading, tmp_path / "back")


@pytest.mark.parametrize(
    ("method", "path", "permission"),
    [
        ("GET", MARK, "s3:GetObject"), ("GET", SECOND, "s3:GetObject"), ("GET", "list-type", "s3:ListBucket"),
    ],
)  # fmt: skip
def test_what_may_not_be_read_is_refused_at_once_with_the_permission(reading, tmp_path, method, path, permission):
    rule = reading.proxy.add(Fault(error(403, "AccessDenied"), method=method, path=path))
    talk = refused(reading, tmp_path / "back", 4, "--connections", 1)
    assert permission in talk
    assert reading.bucket in talk
    assert reading.proxy.url in talk
    assert rule.matched == 1


@pytest.mark.parametrize(
    ("method", "path", "permission"),
    [
        ("PUT", "claim-", "s3:PutObject"), ("PUT", "partNumber", "s3:PutObject"), ("PUT", SHARDS[2], "s3:PutObject"),
        ("POST", r"\?uploads", "s3:PutObject"), ("POST", "uploadId", "s3:PutObject"), ("PUT", MARK, "s3:PutObject"),
        ("GET", r"\?uploads", "s3:ListBucketMultipartUploads"),
    ],
)  # fmt: skip
def test_what_may_not_be_written_is_refused_at_once_with_the_permission(writing, source, method, path, permission):
    rule = writing.proxy.add(Fault(error(403, "AccessDenied"), method=method, path=path))
    end = writing.ship(source, "--connections", 1)
    assert end.code == 4, end.talk
    assert permission in end.talk
    assert (rule.matched, writing.has_mark()) == (1, False)


def test_wrong_keys_are_refused_by_the_store(reading, tmp_path):
    end = reading.run("fetch", reading.address, tmp_path / "back", AWS_SECRET_ACCESS_KEY="wrong-secret-of-the-test")
    assert end.code == 4
    assert "wrong-secret-of-the-test" not in end.talk


def test_a_bucket_that_is_not_there_is_named(reading, source, tmp_path):
    for verb in (("fetch", "s3://no-such-bucket/m/", tmp_path / "back"), ("ship", source, "s3://no-such-bucket/m/")):
        end = reading.run(*verb)
        assert end.code in {2, 7}
        assert "no-such-bucket" in end.talk
        assert "bucket" in end.talk


@pytest.mark.parametrize("path", [MARK, SECOND])
def test_clocks_that_differ_are_said_so(reading, tmp_path, path):
    theirs = format_datetime(datetime.now(UTC) + timedelta(hours=2), usegmt=True)
    rule = reading.proxy.add(Fault(error(403, "RequestTimeTooSkewed", Date=theirs), method="GET", path=path))
    talk = refused(reading, tmp_path / "back", 4, "--connections", 1)
    assert "clock" in talk
    assert "behind" in talk
    assert rule.matched == 1


PAGE = Answer(200, {"Content-Type": "text/html; charset=utf-8"}, b"<html><body>Welcome to the console</body></html>")


@pytest.mark.parametrize("path", ["", MARK, "list-type", SECOND])
def test_a_page_for_people_is_no_store(reading, tmp_path, path):
    reading.proxy.add(Fault(PAGE, method="GET", path=path))
    talk = refused(reading, tmp_path / "back", 9)
    assert "endpoint" in talk
    assert "manifest" not in talk


@pytest.mark.parametrize("path", ["", "claim-", "partNumber", r"\?uploads"])
def test_a_page_for_people_is_no_store_to_ship_to(writing, source, path):
    writing.proxy.add(Fault(PAGE, path=path))
    end = writing.ship(source)
    assert end.code == 9, end.talk
    assert "endpoint" in end.talk


def test_a_full_store_is_said_so(writing, source):
    writing.proxy.add(Fault(error(507, "InsufficientStorage"), method="PUT", path="partNumber=2"))
    end = writing.ship(source)
    assert (end.code, writing.has_mark()) == (8, False)
    assert "full" in end.talk


# --- answers that are not what was asked for ---------------------------------------------------------------


def test_200_with_the_right_content_range_counts(dock, moto, source, hashes, tmp_path):
    here = dock(moto)
    assert here.ship(source).code == 0
    here.proxy.add(Fault(As200(keep_content_range=True), method="GET"))
    assert len(fetched(here, tmp_path / "back")) == PARTS
    assert hashes(tmp_path / "back") == hashes(source)


def test_206_counts(dock, moto, source, hashes, tmp_path):
    here = dock(moto)
    assert here.ship(source).code == 0
    fetched(here, tmp_path / "back")
    assert {each.status for each in here.data_requests("GET")} == {206}
    assert hashes(tmp_path / "back") == hashes(source)


def test_200_without_content_range_counts_only_for_a_whole_object(reading, tmp_path):
    reading.proxy.add(Fault(ContentRange(None), path="/m/model-"))
    talk = refused(reading, tmp_path / "back", 7)
    assert "another range than asked came back" in talk
    assert f"/m/{SHARDS[2]}" not in talk


def test_200_without_content_range_counts_for_a_whole_object(reading, source, hashes, tmp_path):
    reading.proxy.add(Fault(ContentRange(None), path=rf"/m/({SHARDS[2]}|config|model\.)"))
    fetched(reading, tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(source)


@pytest.mark.parametrize("said", [f"bytes 0-{PART - 1}/10575848", "bytes */7", "pages 1-2/3", f"bytes {PART}-/*", ""])
def test_another_content_range_is_refused_before_a_byte_is_taken(reading, tmp_path, said):
    reading.proxy.add(Fault(ContentRange(said), path=SECOND, range=MIDDLE))
    talk = refused(reading, tmp_path / "back", 7)
    assert SHARDS[1] in talk


@pytest.mark.parametrize("delta", [-1, 1, -PART // 2, PART])
def test_a_content_length_that_lies_once_does_no_harm(reading, source, hashes, tmp_path, delta):
    reading.proxy.add(Fault(ContentLength(delta), path=SECOND, range=MIDDLE, times=1))
    fetched(reading, tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(source)


@pytest.mark.parametrize("delta", [-1, 1])
def test_a_content_length_that_lies_each_time_is_refused(reading, tmp_path, delta):
    reading.proxy.add(Fault(ContentLength(delta), path=SECOND, range=MIDDLE))
    assert SHARDS[1] in refused(reading, tmp_path / "back", 7)


def test_the_whole_body_instead_of_a_range_is_refused(reading, tmp_path):
    sign = s3_signer(reading.store.access_key, reading.store.secret_key)
    reading.proxy.add(Fault(IgnoreRange(sign), method="GET", path=SECOND, range=MIDDLE))
    talk = refused(reading, tmp_path / "back", 7)
    assert "another range than asked came back" in talk
    assert "ranges" in talk


def test_an_object_that_is_gone_is_named(writing, source, tmp_path):
    assert writing.ship(source).code == 0
    writing.proxy.add(Fault(error(404, "NoSuchKey"), path=SECOND))
    assert SHARDS[1] in refused(writing, tmp_path / "back", 7)


# --- redirects ---------------------------------------------------------------------------------------------


class Elsewhere:
    """Another host with a file, and the headers of whoever asked for it."""

    def __init__(self, http_server, content: bytes) -> None:
        asked: list[dict[str, str]] = []
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_arguments) -> None:
                return

            def do_GET(self) -> None:
                with lock:
                    asked.append(dict(self.headers.items()))
                first, last = map(int, re.findall(r"\d+", self.headers["Range"]))
                body = content[first : last + 1]
                self.send_response_only(206)
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def do_PUT(self) -> None:
                with lock:
                    asked.append(dict(self.headers.items()))
                self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response_only(200)
                self.send_header("ETag", '"0"')
                self.send_header("Content-Length", "0")
                self.end_headers()

        self.asked = asked
        self.url = http_server(Handler).url.replace("127.0.0.1", "localhost")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_to_another_host_is_followed_without_credentials(
    reading, source, hashes, http_server, tmp_path, status
):
    there = Elsewhere(http_server, (source / SHARDS[1]).read_bytes())
    reading.proxy.add(Fault(Answer(status, {"Location": f"{there.url}/elsewhere"}), method="GET", path=SECOND))
    fetched(reading, tmp_path / "back")
    assert hashes(tmp_path / "back") == hashes(source)
    assert len(there.asked) == 3
    for headers in there.asked:
        assert not {name.lower() for name in headers} & {"authorization", "x-amz-security-token", "cookie"}
        assert reading.store.access_key not in str(headers)


def test_redirects_in_a_circle_end(reading, tmp_path):
    reading.proxy.add(Fault(Answer(302, {"Location": SECOND}), method="GET", path=SECOND))
    refused(reading, tmp_path / "back", 9)


def test_a_redirect_of_what_is_sent_is_refused(writing, source, http_server):
    there = Elsewhere(http_server, b"")
    writing.proxy.add(Fault(Answer(307, {"Location": f"{there.url}/elsewhere"}), method="PUT", path="partNumber"))
    end = writing.ship(source)
    assert end.code == 9
    assert "leads elsewhere" in end.talk
    assert there.asked == []
    assert not writing.has_mark()


def test_all_that_was_asked_was_signed_and_nothing_secret_was_in_an_address(writing, source, tmp_path):
    assert writing.ship(source).code == 0
    assert writing.fetch(tmp_path / "back").code == 0
    for each in writing.requests:
        assert "Signature=" in each.header("Authorization")
        assert "ignature" not in each.path
        assert writing.store.secret_key not in str(each)
    assert any(is_data(each, "PUT") for each in writing.requests)
