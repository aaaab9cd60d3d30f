"""The embedded S3 server and the client: keys, secrets, ranges, large objects, and every way to fail."""

from __future__ import annotations

import os
import signal
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from modelberth.adapters import machine
from modelberth.adapters.s3 import S3Endpoint, S3Store
from modelberth.adapters.s3_server import start_server
from modelberth.base.errors import AuthError, IntegrityError, PrerequisiteMissing, RemoteUnavailable, UsageError

pytestmark = pytest.mark.integration

MIB = 1 << 20


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
    for call in (
        store.ensure_bucket,
        lambda: store.read("key", 10),
        lambda: store.sizes(""),
        lambda: store.put("k", b""),
    ):
        with pytest.raises(AuthError) as caught:
            call()
        assert caught.value.exit_code == 4
        assert "wrong-secret" not in f"{caught.value.where}{caught.value.why}{caught.value.next_step}"


@pytest.mark.parametrize("path", ["", "bucket", "bucket/key", "bucket?list-type=2"])
def test_anonymous_is_refused(s3, path):
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"{s3.server.endpoint}/{path}", timeout=10)
    with caught.value as answer:
        assert answer.code in {400, 401, 403}
        assert b"ListBucketResult" not in answer.read()


def test_no_credentials_at_all(s3, connect, no_settings):
    with pytest.raises(PrerequisiteMissing) as caught:
        connect(S3Endpoint(s3.server.endpoint)).sizes("")
    assert caught.value.exit_code == 3


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
    assert b"".join(store.chunks(name, 1, 2)) == name.encode()[1:3]
    assert store.sizes("") == {name: len(name.encode())}


def test_a_large_object_in_parts(store, big_model):
    path = big_model / "model.safetensors"
    with store.upload("big") as upload, path.open("rb") as file:
        while part := file.read(32 * MIB):
            upload.send(part)
        assert store.read("big", 1 << 30) is None  # it is not visible before it is complete
    assert len(upload.parts) == 3
    content = path.read_bytes()
    assert b"".join(store.chunks("big", 0, len(content))) == content
    for offset, length in ((0, 1), (5, 10 * MIB), (32 * MIB - 1, 2), (len(content) - 3, 3)):
        assert b"".join(store.chunks("big", offset, length)) == content[offset : offset + length]
    assert list(store.chunks("big", 7, 0)) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_broken_upload_is_not_visible(store, s3, error):
    def send():
        with store.upload("key") as upload:
            upload.send(bytes(5 * MIB))
            raise error

    with pytest.raises(error):
        send()
    assert store.read("key", 1 << 30) is None
    assert store.sizes("") == {}


def test_an_upload_that_cannot_be_aborted_ends_with_its_own_error(own_s3):
    store = own_s3.store()

    def send():
        with store.upload("key"):
            own_s3.server.stop()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        send()


def test_ranges_of_what_is_not_there(store):
    with pytest.raises(IntegrityError) as caught:
        list(store.chunks("nothing", 0, 5))
    assert "key nothing" in caught.value.where


def test_a_range_behind_the_end(store):
    store.put("key", b"12345")
    for offset, length in ((3, 10), (5, 1), (50, 1)):
        with pytest.raises((IntegrityError, UsageError)):
            list(store.chunks("key", offset, length))


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
    (400, "InvalidRequest", UsageError, 2), (507, "XMinioStorageFull", RemoteUnavailable, 9),
    (500, "InternalError", RemoteUnavailable, 9),
])  # fmt: skip
def test_errors_by_meaning(http_server, connect, status, code, kind, exit_code):
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
        store.put("key", b"content")
    assert caught.value.exit_code == exit_code
    assert code in caught.value.why
    assert "secret-0123456789" not in f"{caught.value.where}{caught.value.why}{caught.value.next_step}"


def test_a_short_failure_is_tried_again(s3, proxy):
    failures = []

    def fault(method, path, status, headers, body):
        if method == "PUT" and path.endswith("/key") and len(failures) < 2:
            failures.append(path)
            return 503, {}, b"<Error><Code>SlowDown</Code></Error>"
        return None

    store = s3.store("tried-again", proxy(s3.server.endpoint, fault).url)
    store.put("key", b"content")
    assert len(failures) == 2
    assert store.read("key", 10) == b"content"


def test_an_answer_that_breaks_off(s3, proxy):
    def fault(method, path, status, headers, body):
        return (status, headers, body[: len(body) // 2]) if method == "GET" and "/key" in path else None

    store = s3.store("breaks-off", proxy(s3.server.endpoint, fault).url)
    store.put("key", bytes(100_000))
    with pytest.raises(RemoteUnavailable):
        b"".join(store.chunks("key", 0, 100_000))
    with pytest.raises(RemoteUnavailable):
        store.read("key", 1 << 20)


@pytest.mark.parametrize("answered", ["bytes 1-5/10", "bytes 0-50/10", "", "nonsense"])
def test_another_range_than_asked(s3, proxy, answered):
    def fault(method, path, status, headers, body):
        if method != "GET" or "/key" not in path:
            return None
        return 206, {**headers, "Content-Range": answered}, body

    store = s3.store("ranges", proxy(s3.server.endpoint, fault).url)
    store.put("key", b"0123456789")
    with pytest.raises(IntegrityError) as caught:
        list(store.chunks("key", 0, 5))
    assert "bytes 0-4" in caught.value.why


def test_a_page_where_a_store_should_be(http_server, connect):
    class Page(BaseHTTPRequestHandler):
        def log_message(self, *_arguments):
            return

        def do_GET(self):
            body = b"<html><body>Please log in</body></html>"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    store = connect(S3Endpoint(http_server(Page).url, access_key="key", secret_key="secret"))
    with pytest.raises(IntegrityError):
        list(store.chunks("key", 0, 5))
