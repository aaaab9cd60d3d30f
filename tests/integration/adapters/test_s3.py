"""The embedded S3 server and the client: keys, secrets, ranges, large objects, and every way to fail."""

from __future__ import annotations

import hashlib
import os
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from awscrt.checksums import crc64nvme

from fault_proxy import Cut, Fault, LoseAnswer, Stall
from modelberth.adapters import machine
from modelberth.adapters.s3 import S3Endpoint, S3Store
from modelberth.adapters.s3_server import start_server
from modelberth.adapters.transport import Cancelled
from modelberth.base.errors import (
    AuthError,
    DoesNotFit,
    IntegrityError,
    NotReady,
    PrerequisiteMissing,
    RemoteUnavailable,
    UsageError,
)

pytestmark = pytest.mark.integration

MIB = 1 << 20


def crc(content):
    """CRC-64/NVME as the manifest writes it."""
    return f"{crc64nvme(content):016x}"


def pieces_of(content, each=1 * MIB):
    """What gives a body piece by piece, from the start each time."""
    return lambda: (memoryview(content)[start : start + each] for start in range(0, len(content), each))


def range_of(store, key, offset, length):
    """The bytes of a range of an object."""
    found = bytearray()
    store.get_range(key, offset, length, found.extend)
    return bytes(found)


def put_whole(store, key, content):
    """Write an object in one request, over a connection of our own."""
    store.put_pieces(key, len(content), crc(content), pieces_of(content))


def put_parts(store, upload, parts):
    """Send the parts of an upload, in order; their ETags by number."""
    return {
        number: store.put_part(upload, number, len(part), crc(part), pieces_of(part))
        for number, part in enumerate(parts, 1)
    }


CALLS = {
    "ensure bucket": lambda store: store.ensure_bucket(),
    "list": lambda store: store.sizes(""),
    "read": lambda store: store.read("key", 10),
    "put": lambda store: store.put("key", b"content"),
    "put whole": lambda store: put_whole(store, "key", b"content"),
    "get range": lambda store: range_of(store, "key", 0, 5),
    "begin upload": lambda store: store.begin_upload("key"),
    "list uploads": lambda store: store.pending_uploads(""),
}


@pytest.fixture
def store(s3):
    """A store of a bucket of its own."""
    return s3.store()


@pytest.fixture
def connect():
    """Make stores that are closed after the test."""
    made = []

    def make(endpoint, bucket="bucket"):
        made.append(S3Store(endpoint, bucket))
        return made[-1]

    yield make
    for store in made:
        store.close()


@pytest.fixture
def no_settings(monkeypatch, tmp_path):
    """No AWS settings from around us."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))


# --- who may do what ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", ["secret", "key"])
def test_wrong_keys(s3, connect, wrong):
    keys = s3.server.keys
    access = "somebody-else" if wrong == "key" else keys.access_key
    store = connect(S3Endpoint(s3.server.endpoint, access_key=access, secret_key="wrong-secret-0123456789"))
    for call in CALLS.values():
        with pytest.raises(AuthError) as caught:
            call(store)
        assert caught.value.exit_code == 4
        assert "wrong-secret" not in f"{caught.value.where}{caught.value.why}{caught.value.next_step}"


@pytest.mark.parametrize("path", ["", "bucket", "bucket/key", "bucket?list-type=2"])
def test_anonymous_is_refused(s3, path):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{s3.server.endpoint}/{path}", timeout=10)
    with caught.value as answer:
        assert answer.code in {400, 401, 403}
        assert b"ListBucketResult" not in answer.read()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_credentials_at_all(s3, connect, no_settings, call):
    with pytest.raises(PrerequisiteMissing) as caught:
        call(connect(S3Endpoint(s3.server.endpoint)))
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_credentials_that_cannot_be_renewed(s3, connect, no_settings, monkeypatch, tmp_path, call):
    """Keys for a short time, as services hand them out; who hands them out fails the second time."""
    keys, config, program = s3.server.keys, tmp_path / "config", tmp_path / "keys.sh"
    said = f'{{"Version": 1, "AccessKeyId": "{keys.access_key}", "SecretAccessKey": "{keys.secret_key}"'
    program.write_text(
        f"""#!/bin/sh
mkdir {tmp_path}/asked || exit 1
echo '{said}, "Expiration": "'$(date -u -d '+60 seconds' +%Y-%m-%dT%H:%M:%SZ)'"}}'
"""
    )
    program.chmod(0o755)
    config.write_text(f"[default]\ncredential_process = {program}\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(config))
    store = connect(S3Endpoint(s3.server.endpoint))
    with pytest.raises(AuthError) as caught:
        call(store)
    assert caught.value.what == "the S3 credentials cannot be renewed"
    assert (tmp_path / "asked").is_dir()
    assert keys.secret_key not in f"{caught.value.where}{caught.value.why}{caught.value.next_step}"


def test_half_of_the_credentials(s3, connect, no_settings, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "half-a-pair")
    with pytest.raises(PrerequisiteMissing):
        connect(S3Endpoint(s3.server.endpoint)).sizes("")


def test_the_standard_variables_serve(s3, connect, no_settings, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3.server.keys.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3.server.keys.secret_key)
    store = connect(S3Endpoint(s3.server.endpoint), "by-variables")
    store.ensure_bucket()
    assert store.sizes("") == {}


def test_a_profile_that_is_not_there(s3, connect, no_settings):
    with pytest.raises(PrerequisiteMissing):
        connect(S3Endpoint(s3.server.endpoint, profile="nobody")).sizes("")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_PROFILE", "nobody"),
        ("AWS_DEFAULT_PROFILE", "nobody"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
        ("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1"),
        ("AWS_REGION", "eu-west-1"),
        ("AWS_DEFAULT_REGION", "eu-west-1"),
        ("AWS_SESSION_TOKEN", "of-another-account"),
        ("AWS_USE_FIPS_ENDPOINT", "true"),
        ("AWS_USE_DUALSTACK_ENDPOINT", "true"),
        ("AWS_CA_BUNDLE", "/nowhere/ca.pem"),
        ("AWS_MAX_ATTEMPTS", "1"),
        ("HTTP_PROXY", "http://127.0.0.1:1"),
        ("http_proxy", "http://127.0.0.1:1"),
        ("ALL_PROXY", "socks5://127.0.0.1:1"),
    ],
)
def test_settings_around_us_do_not_reach_the_embedded_store(s3, monkeypatch, name, value):
    monkeypatch.setenv(name, value)
    store = s3.store()
    store.put("key", b"content")
    assert store.read("key", 10) == b"content"
    put_whole(store, "whole", b"content")
    assert range_of(store, "whole", 1, 3) == b"ont"


def test_a_broken_aws_configuration_does_not_reach_the_embedded_store(s3, monkeypatch, tmp_path):
    (tmp_path / "config").write_text("[default\nregion = \n= nonsense")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert s3.store().sizes("") == {}


# --- the server --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RCLONE_LOG_LEVEL", "ERROR"),
        ("RCLONE_READ_ONLY", "true"),
        ("RCLONE_USE_JSON_LOG", "true"),
        ("RCLONE_DUMP", "headers,auth"),
        ("RCLONE_AUTH_PROXY", "/bin/false"),
    ],
)
def test_settings_of_rclone_do_not_reach_the_server(tmp_path, monkeypatch, name, value):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(name, value)
    server = start_server(tmp_path / "data", tmp_path / "s3.log")
    try:
        keys = server.keys
        store = S3Store(S3Endpoint(server.endpoint, access_key=keys.access_key, secret_key=keys.secret_key), "bucket")
        store.ensure_bucket()
        store.put("key", b"content")
        assert store.read("key", 10) == b"content"
        store.close()
    finally:
        server.stop()
    assert (tmp_path / "data" / "bucket" / "key").read_bytes() == b"content"


def test_the_secret_shows_nowhere(own_s3, connect):
    keys = own_s3.server.keys
    own_s3.store().put("key", b"content")
    with pytest.raises(AuthError):
        connect(S3Endpoint(own_s3.server.endpoint, access_key=keys.access_key, secret_key="wrong" * 8)).sizes("")
    commands = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
    assert any(b"serve\0s3" in command for command in commands)
    assert not any(keys.secret_key.encode() in command for command in commands)
    shown = f"{keys!r} {keys} {own_s3.server!r} {own_s3.endpoint!r} {own_s3.endpoint}"
    assert keys.secret_key not in shown
    own_s3.server.stop()
    assert keys.secret_key not in own_s3.log.read_text()


def test_two_servers_have_keys_of_their_own(own_s3, s3, connect):
    assert own_s3.server.keys.secret_key != s3.server.keys.secret_key
    other = S3Endpoint(
        own_s3.server.endpoint, access_key=s3.server.keys.access_key, secret_key=s3.server.keys.secret_key
    )
    with pytest.raises(AuthError):
        connect(other).sizes("")


def test_nothing_of_the_server_is_left_after_stop(own_s3, marked_processes, connect):
    pids = marked_processes(own_s3.data)
    assert len(pids) == 2  # the keeper and rclone
    own_s3.server.stop()
    assert not marked_processes(own_s3.data).keys() & pids.keys()
    assert own_s3.server.endpoint.startswith("http://127.0.0.1:")


OWNER = """
import pathlib, signal, sys
from modelberth.adapters.s3_server import start_server
start_server(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
print("started", flush=True)
while True:
    signal.pause()
"""


def test_nothing_of_the_server_is_left_after_sigkill_of_its_owner(script, tmp_path, marked_processes, wait_gone):
    owner = script(OWNER, tmp_path / "data", tmp_path / "s3.log")
    assert owner.lines.next() == "started"
    pids = marked_processes(tmp_path / "data")
    assert len(pids) == 3
    os.kill(owner.pid, signal.SIGKILL)
    owner.process.wait()
    wait_gone(pids)


def test_a_server_that_ends_at_once_is_told(script, tmp_path):
    """Go cannot start in so little memory; nobody waits half a minute to say so."""
    code = """
import pathlib, resource, sys
from modelberth.adapters.s3_server import start_server
resource.setrlimit(resource.RLIMIT_AS, (200 << 20, 200 << 20))
try:
    start_server(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
except Exception as error:
    print(type(error).__name__, error.exit_code, bool(error.why))
"""
    assert script(code, tmp_path / "data", tmp_path / "s3.log").lines.next() == "NotReady 6 True"


def test_objects_are_plain_files_and_survive_a_restart(tmp_path):
    for turn in range(2):
        server = start_server(tmp_path / "data", tmp_path / "s3.log")
        keys = server.keys
        store = S3Store(S3Endpoint(server.endpoint, access_key=keys.access_key, secret_key=keys.secret_key), "bucket")
        store.ensure_bucket()
        if turn == 0:
            store.put("deep/er/key", b"content")
        assert store.read("deep/er/key", 10) == b"content"
        store.close()
        server.stop()
    assert (tmp_path / "data" / "bucket" / "deep" / "er" / "key").read_bytes() == b"content"


# --- objects -----------------------------------------------------------------------------------------------


def test_small_objects(store):
    assert store.read("key", 10) is None
    store.put("prefix/key", b"content")
    store.put("prefix/empty", b"")
    store.put("prefix-2/key", b"other")
    assert store.read("prefix/key", 7) == b"content"
    assert store.read("prefix/empty", 7) == b""
    assert store.sizes("prefix/") == {"prefix/key": 7, "prefix/empty": 0}
    assert store.sizes("") == {"prefix/key": 7, "prefix/empty": 0, "prefix-2/key": 5}
    store.put("prefix/key", b"new")
    assert store.read("prefix/key", 7) == b"new"
    store.delete("prefix/key")
    store.delete("prefix/key")
    assert store.read("prefix/key", 7) is None


def test_an_object_that_is_too_large_to_be_what_it_should(store):
    store.put("key", b"x" * 11)
    with pytest.raises(IntegrityError):
        store.read("key", 10)


def test_listings_have_many_pages(tmp_path):
    folder = tmp_path / "data" / "bucket" / "many"
    folder.mkdir(parents=True)
    for number in range(1100):
        (folder / f"{number:04}").write_bytes(b"yy")
    server = start_server(tmp_path / "data", tmp_path / "s3.log")
    keys = server.keys
    store = S3Store(S3Endpoint(server.endpoint, access_key=keys.access_key, secret_key=keys.secret_key), "bucket")
    assert store.sizes("many/") == {f"many/{number:04}": 2 for number in range(1100)}
    store.close()
    server.stop()


@pytest.mark.parametrize("name", ["with space", "plus+sign", "per%20cent", "ä-ö", "a'b(c)!*", "deep/../up"[:4] + "x"])
def test_names_that_need_care(store, name):
    store.put(name, name.encode())
    assert store.read(name, 100) == name.encode()
    assert range_of(store, name, 1, 2) == name.encode()[1:3]
    put_whole(store, name, b"whole")
    assert store.read(name, 100) == b"whole"
    upload = store.begin_upload(name)
    store.complete_upload(upload, put_parts(store, upload, [b"in parts"]), len(b"in parts"))
    assert store.read(name, 100) == b"in parts"
    assert store.sizes("") == {name: len("in parts")}


@pytest.mark.parametrize("size", [0, 1, 3 * MIB + 5])
def test_a_large_object_in_one_request(store, size):
    content = os.urandom(size)
    put_whole(store, "key", content)
    assert store.sizes("") == {"key": size}
    assert store.read("key", size) == content
    assert range_of(store, "key", 0, size) == content
    put_whole(store, "key", b"new")
    assert store.read("key", 3) == b"new"


def test_a_large_object_in_parts(store, big_model):
    content = (big_model / "model.safetensors").read_bytes()
    parts = [content[start : start + 32 * MIB] for start in range(0, len(content), 32 * MIB)]
    upload = store.begin_upload("big")
    etags = put_parts(store, upload, parts)
    assert store.read("big", 1 << 30) is None  # it is not visible before it is complete
    assert etags == {number: hashlib.md5(part).hexdigest() for number, part in enumerate(parts, 1)}
    store.complete_upload(upload, etags, len(content))
    assert store.sizes("") == {"big": len(content)}
    assert range_of(store, "big", 0, len(content)) == content
    for offset, length in ((0, 1), (5, 10 * MIB), (32 * MIB - 1, 2), (len(content) - 3, 3), (7, 0)):
        assert range_of(store, "big", offset, length) == content[offset : offset + length]


def test_the_parts_that_a_store_has(store):
    """What an upload goes on with after a kill."""
    parts = [os.urandom(5 * MIB), os.urandom(5 * MIB)]
    upload = store.begin_upload("deep/key")
    assert store.stored_parts("deep/key", upload.id) in ({}, None)  # rclone cannot say before there is one
    etags = put_parts(store, upload, parts)
    stored = store.stored_parts("deep/key", upload.id)
    assert {number: (part.size, part.etag) for number, part in stored.items()} == {
        number: (5 * MIB, etag) for number, etag in etags.items()
    }
    assert [(item.key, item.id) for item in store.pending_uploads("deep/")] == [("deep/key", upload.id)]
    assert store.pending_uploads("deep/key/") == store.pending_uploads("other/") == []
    store.complete_upload(upload, etags, 10 * MIB)
    assert store.pending_uploads("") == []
    assert store.stored_parts("deep/key", upload.id) is None


def test_an_upload_that_is_given_up(store):
    upload = store.begin_upload("key")
    put_parts(store, upload, [bytes(5 * MIB)])
    for _ in range(2):
        store.abort_upload("key", upload.id)
        assert store.stored_parts("key", upload.id) is None
        assert store.pending_uploads("") == []
    assert store.read("key", 1 << 30) is None
    assert store.sizes("") == {}
    with pytest.raises(IntegrityError) as caught:
        store.put_part(upload, 2, 5, crc(b"12345"), pieces_of(b"12345"))
    assert caught.value.where.endswith("key key part 2")


@pytest.mark.parametrize("error", [IntegrityError("it changed"), KeyboardInterrupt()], ids=["integrity", "signal"])
@pytest.mark.parametrize("way", ["whole", "part"])
def test_a_body_that_breaks_off_is_no_object(store, error, way):
    """A file that changes while it is sent: its last bytes never leave."""

    def broken():
        yield memoryview(bytes(4 * MIB))
        raise error

    def send():
        if way == "whole":
            store.put_pieces("key", 5 * MIB, "", broken)
        else:
            store.put_part(store.begin_upload("key"), 1, 5 * MIB, "", broken)

    with pytest.raises(type(error)):
        send()
    assert store.read("key", 1 << 30) is None
    assert store.sizes("") == {}
    put_whole(store, "key", b"the same connection is not gone on with")
    assert store.read("key", 100)


def test_ranges_of_what_is_not_there(store):
    with pytest.raises(IntegrityError) as caught:
        range_of(store, "nothing", 0, 5)
    assert "key nothing" in caught.value.where


def test_a_bucket_that_is_not_there(s3, connect):
    store = connect(s3.endpoint, "nobody-made-this")
    with pytest.raises(UsageError) as caught:
        store.sizes("")
    assert (caught.value.what, caught.value.exit_code) == ("there is no such bucket", 2)
    for name in ("get range", "put whole", "begin upload"):
        with pytest.raises(IntegrityError) as caught:
            CALLS[name](store)
        assert "nobody-made-this" in caught.value.where


def test_a_range_behind_the_end(store):
    store.put("key", b"12345")
    for offset, length in ((3, 10), (5, 1), (50, 1)):
        with pytest.raises((IntegrityError, UsageError)):
            range_of(store, "key", offset, length)


def test_a_store_that_was_closed_ends_what_is_under_way(store, fault_proxy, s3):
    store.put("key", bytes(100_000))
    proxy = fault_proxy(s3.server.endpoint)
    proxy.add(Fault(Stall(1000), method="GET", path="/key"))
    waiting = S3Store(s3.endpoint_at(proxy.url), store.bucket)
    ended = []

    def read():
        try:
            range_of(waiting, "key", 0, 100_000)
        except BaseException as error:  # noqa: BLE001 - whatever it is, it is looked at below
            ended.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    proxy.wait_stalled()
    waiting.close()
    thread.join()
    assert [type(error) for error in ended] == [Cancelled]


# --- a remote that fails -----------------------------------------------------------------------------------


def test_nobody_is_there(connect):
    port = machine.reserve_port()
    store = connect(S3Endpoint(f"http://127.0.0.1:{port.number}", access_key="key", secret_key="secret"))
    with pytest.raises(RemoteUnavailable) as caught:
        store.put("key", b"content")
    assert caught.value.exit_code == 9
    assert str(port.number) in caught.value.where
    port.release()


def test_the_server_ends_under_us(own_s3, connect):
    store = own_s3.store()
    store.put("key", b"content")
    own_s3.server.stop()
    with pytest.raises(RemoteUnavailable):
        store.read("key", 10)


@pytest.mark.parametrize(("status", "code", "kind", "exit_code"), [
    (403, "AccessDenied", AuthError, 4), (401, "Unauthorized", AuthError, 4), (404, "NoSuchBucket", IntegrityError, 7),
    (400, "ExpiredToken", AuthError, 4), (403, "RequestTimeTooSkewed", AuthError, 4),
    (400, "InvalidRequest", UsageError, 2), (507, "XMinioStorageFull", DoesNotFit, 8),
    (403, "QuotaExceeded", DoesNotFit, 8), (507, "InsufficientStorage", DoesNotFit, 8),
    (400, "XMinioAdminBucketQuotaExceeded", DoesNotFit, 8),
    (400, "BadDigest", IntegrityError, 7), (400, "XAmzContentChecksumMismatch", IntegrityError, 7),
    (500, "InternalError", RemoteUnavailable, 9), (503, "SlowDown", RemoteUnavailable, 9),
])  # fmt: skip
@pytest.mark.parametrize("call", ["put", "put whole"])
def test_errors_by_meaning(http_server, connect, status, code, kind, exit_code, call):
    class Refuses(BaseHTTPRequestHandler):
        def log_message(self, *_arguments):
            return

        def do_PUT(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            body = f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    store = connect(S3Endpoint(http_server(Refuses).url, access_key="key", secret_key="secret-0123456789"))
    with pytest.raises(kind) as caught:
        CALLS[call](store)
    assert caught.value.exit_code == exit_code
    assert code in caught.value.why or code == "RequestTimeTooSkewed"
    assert caught.value.where.endswith("bucket bucket key key")
    assert "secret-0123456789" not in f"{caught.value.where}{caught.value.why}{caught.value.next_step}"


@pytest.mark.parametrize(("seconds", "side"), [(-3600, "ahead of"), (3600, "behind")])
@pytest.mark.parametrize("call", ["put", "put whole"])
def test_a_clock_that_goes_wrong(http_server, connect, seconds, side, call):
    class Skewed(BaseHTTPRequestHandler):
        def log_message(self, *_arguments):
            return

        def do_PUT(self):
            self.rfile.read(int(self.headers["Content-Length"]))
            body = b"<Error><Code>RequestTimeTooSkewed</Code></Error>"
            self.send_response_only(403)
            self.send_header("Date", formatdate(time.time() + seconds, usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    store = connect(S3Endpoint(http_server(Skewed).url, access_key="key", secret_key="secret"))
    with pytest.raises(AuthError) as caught:
        CALLS[call](store)
    assert caught.value.what == "the clocks differ"
    minutes = int(re.search(r"clock is ([\d,]+) s", caught.value.why)[1].replace(",", "")) / 60
    assert round(minutes) == 60
    assert f"s {side} the store's" in caught.value.why


@pytest.mark.parametrize("call", ["put", "put whole"])
def test_a_short_failure_is_tried_again(s3, proxy, call):
    failures = []

    def fault(method, path, status, headers, body):
        if method == "PUT" and path.endswith("/key") and len(failures) < 2:
            failures.append(path)
            return 503, {}, b"<Error><Code>SlowDown</Code></Error>"
        return None

    store = s3.store("", proxy(s3.server.endpoint, fault).url)
    CALLS[call](store)
    assert len(failures) == 2
    assert store.read("key", 10) == b"content"


def test_a_part_whose_answer_is_lost_is_sent_again(s3, fault_proxy):
    """The store has it, and nobody knows; the same bytes once more do no harm."""
    proxy = fault_proxy(s3.server.endpoint)
    rule = proxy.add(Fault(LoseAnswer(), method="PUT", path="/key", times=1))
    store = s3.store("", proxy.url)
    put_whole(store, "key", b"content")
    assert rule.matched == 2
    assert store.read("key", 10) == b"content"


def test_an_answer_that_breaks_off_is_gone_on_with(s3, fault_proxy):
    proxy, content = fault_proxy(s3.server.endpoint), os.urandom(1_000_000)
    store = s3.store("", proxy.url)
    store.put("key", content)
    proxy.add(Fault(Cut(300_000), method="GET", path="/key", times=2))
    assert range_of(store, "key", 1000, 900_000) == content[1000:901_000]
    gets = [request for request in proxy.requests if request.method == "GET" and "/key" in request.path]
    asked = [request.header("Range") for request in gets]
    first, second = (int(text.removeprefix("bytes=").partition("-")[0]) for text in asked[1:])
    assert asked[0] == "bytes=1000-900999"
    assert 1000 < first < second
    assert all(text.endswith("-900999") for text in asked)


def test_an_answer_that_always_breaks_off(s3, proxy):
    def fault(method, path, status, headers, body):
        return (status, headers, body[:10]) if method == "GET" and "/key" in path else None

    store = s3.store("", proxy(s3.server.endpoint, fault).url)
    store.put("key", bytes(100_000))
    with pytest.raises(RemoteUnavailable) as caught:
        range_of(store, "key", 0, 100_000)
    assert caught.value.why == "the connection broke off each time"
    with pytest.raises(RemoteUnavailable):
        store.read("key", 1 << 20)


def test_a_store_that_stalls_is_given_up(s3, fault_proxy, connect):
    proxy = fault_proxy(s3.server.endpoint)
    bucket = s3.store()
    bucket.put("key", bytes(100_000))
    proxy.add(Fault(Stall(1000), method="GET", path="/key"))
    keys = s3.server.keys
    patience = S3Endpoint(proxy.url, access_key=keys.access_key, secret_key=keys.secret_key, stall_seconds=0.2)
    with pytest.raises(NotReady) as caught:
        range_of(connect(patience, bucket.bucket), "key", 0, 100_000)
    assert caught.value.exit_code == 6
    assert "nothing moved for 0.2 s" in caught.value.why
    assert "--stall-timeout" in caught.value.next_step


@pytest.mark.parametrize("answered", ["bytes 1-5/10", "bytes 0-50/10", "", "nonsense"])
def test_another_range_than_asked(s3, proxy, answered):
    def fault(method, path, status, headers, body):
        if method != "GET" or "/key" not in path:
            return None
        return 206, {**headers, "Content-Range": answered}, body

    store = s3.store("", proxy(s3.server.endpoint, fault).url)
    store.put("key", b"0123456789")
    with pytest.raises(IntegrityError) as caught:
        range_of(store, "key", 0, 5)
    assert caught.value.what == "another range than asked came back"
    assert "bytes 0-4" in caught.value.why


@pytest.mark.parametrize("way", ["chunked", "until it closes"])
def test_more_bytes_than_asked(http_server, connect, way):
    """Right by its headers, and no length among them. What is too much reaches nobody, and nobody waits for its end."""

    class Endless(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_arguments):
            return

        def do_GET(self):
            self.send_response_only(206)
            self.send_header("Content-Range", "bytes 5-1000004/2000000")
            self.send_header(*(("Transfer-Encoding", "chunked") if way == "chunked" else ("Connection", "close")))
            self.end_headers()
            piece = bytes(1 << 16)
            while True:  # until the other side has had enough
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if way == "chunked" else piece)

    store, found = connect(S3Endpoint(http_server(Endless).url, access_key="key", secret_key="secret")), bytearray()
    with pytest.raises(IntegrityError) as caught:
        store.get_range("key", 5, 1_000_000, found.extend)
    assert caught.value.what == "the S3 store sends more than it was asked for"
    assert caught.value.where.endswith("bucket bucket key key")
    assert len(found) <= 1_000_000


@pytest.mark.parametrize("call", ["get range", "read", "put whole", "list"])
def test_a_page_where_a_store_should_be(http_server, connect, call):
    class Page(BaseHTTPRequestHandler):
        def log_message(self, *_arguments):
            return

        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = b"<html><body>Please log in</body></html>"
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_PUT = do_GET  # noqa: N815

    store = connect(S3Endpoint(http_server(Page).url, access_key="key", secret_key="secret"))
    with pytest.raises((RemoteUnavailable, IntegrityError)) as caught:
        CALLS[call](store)
    if call != "read":
        assert isinstance(caught.value, RemoteUnavailable)
        assert "AWS_ENDPOINT_URL" in caught.value.next_step
