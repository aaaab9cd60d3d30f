"""The Hugging Face Hub over HTTP: what is asked, what is believed of the answers, and every way to fail."""

from __future__ import annotations

import json
import os
import socket
import sys
import traceback
from http.server import BaseHTTPRequestHandler

import pytest
from huggingface_hub import close_session, constants

from modelberth.adapters.huggingface import HubRepository
from modelberth.base.errors import AuthError, IntegrityError, RemoteUnavailable, UsageError
from modelberth.spec.addresses import HubAddress

pytestmark = pytest.mark.integration

TOKEN = "hf_canary0004"
COMMIT = "0123456789abcdef0123456789abcdef01234567"
ADDRESS = HubAddress("owner/name", "")
CONTENT = bytes(range(256)) * 400
LISTING = {"sha": COMMIT, "siblings": [{"rfilename": "config.json", "size": 2},
                                       {"rfilename": "a b/model.safetensors", "size": len(CONTENT)}]}  # fmt: skip
JSON = {"Content-Type": "application/json"}


@pytest.fixture(autouse=True)
def settings(monkeypatch, tmp_path):
    """Our token, nobody else's settings, and a session that ends with the test."""
    for name in [name for name in os.environ if name.startswith("HF_") or name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
    monkeypatch.setattr(constants, "HF_STORED_TOKENS_PATH", str(tmp_path / "stored_tokens"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", False)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    close_session()
    yield
    close_session()


class Hub:
    """A server that answers by a function of path and headers: (status, headers, body)."""

    def __init__(self, serve, answer) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        asked = self.asked

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_arguments):
                return

            def do_GET(self):
                headers = dict(self.headers.items())
                asked.append((self.path, headers))
                status, extra, body = answer(self.path, headers)
                self.send_response_only(status)
                for name, value in {"Content-Length": str(len(body)), **extra}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)
                if int(extra.get("Content-Length", len(body))) != len(body):
                    self.close_connection = True

        self.url = serve(Handler).url
        self.opened: list[HubRepository] = []

    def repository(self, revision: str = "") -> HubRepository:
        self.opened.append(HubRepository(HubAddress("owner/name", revision), self.url))
        return self.opened[-1]

    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]


@pytest.fixture
def hub(http_server):
    """Serve the listing, and a file by ranges; `fault(path, headers)` may answer instead."""

    started: list[Hub] = []

    def start(fault=lambda path, headers: None) -> Hub:
        def answer(path, headers):
            return fault(path, headers) or sound(path, headers)

        started.append(Hub(http_server, answer))
        return started[-1]

    yield start
    for each in started:
        for repository in each.opened:
            repository.close()


def sound(path, headers):
    if path.startswith("/api/models/owner/name"):
        return 200, JSON, json.dumps(LISTING).encode()
    begin, end = map(int, headers["Range"].removeprefix("bytes=").split("-"))
    body = CONTENT[begin : end + 1]
    return 206, {"Content-Range": f"bytes {begin}-{begin + len(body) - 1}/{len(CONTENT)}"}, body


def told(caught) -> str:
    """Everything that anyone could be shown of an error."""
    error = caught.value
    said = "\n".join([error.what, error.where, error.why, error.next_step, *traceback.format_exception(error)])
    assert TOKEN not in said
    return said


def into(repository, path, offset, length) -> bytes:
    """A range, as deliveries read it."""
    found = bytearray()
    repository.read_into(path, offset, length, found.extend)
    return bytes(found)


WAYS = {"read": HubRepository.read, "read into": into}
ways = pytest.mark.parametrize("read", WAYS.values(), ids=WAYS)


# --- what is asked -----------------------------------------------------------------------------------------


def test_a_listing_and_ranges_of_one_commit(hub):
    server = hub()
    repository = server.repository()
    assert repository.sizes() == {"config.json": 2, "a b/model.safetensors": len(CONTENT)}
    assert repository.read("a b/model.safetensors", 10, 1000) == CONTENT[10:1010]
    assert repository.read("a b/model.safetensors", 0, len(CONTENT)) == CONTENT
    assert repository.read("config.json", 0, 0) == b""
    assert (
        server.paths()
        == ["/api/models/owner/name?blobs=true"] + [f"/owner/name/resolve/{COMMIT}/a%20b/model.safetensors"] * 2
    )  # and nothing else: no telemetry
    assert repository.transferred == len(json.dumps(LISTING)) + 1000 + len(CONTENT)
    for _, headers in server.asked:
        assert headers["Authorization"] == f"Bearer {TOKEN}"
        assert headers["User-Agent"].startswith("modelberth/")
        assert headers["Accept-Encoding"] == "identity"


@pytest.mark.parametrize(("revision", "quoted"), [("v1.0", "v1.0"), ("refs/pr/7", "refs%2Fpr%2F7")])
def test_a_revision(hub, revision, quoted):
    server = hub()
    server.repository(revision).sizes()
    assert server.paths() == [f"/api/models/owner/name/revision/{quoted}?blobs=true"]


def test_the_endpoint_of_the_environment(hub, monkeypatch):
    server = hub()
    monkeypatch.setenv("HF_ENDPOINT", server.url + "/")
    assert HubRepository(ADDRESS).sizes()


def test_a_renamed_repository(hub):
    def fault(path, headers):
        return (307, {"Location": "/api/models/owner/name-2"}, b"") if path.endswith("name?blobs=true") else None

    assert hub(fault).repository().sizes()


# --- for deliveries ----------------------------------------------------------------------------------------


def test_ranges_for_a_delivery(hub):
    server = hub()
    repository = server.repository()
    repository.sizes()
    assert repository.commit == COMMIT
    assert into(repository, "a b/model.safetensors", 10, 1000) == CONTENT[10:1010]
    assert into(repository, "a b/model.safetensors", 0, len(CONTENT)) == CONTENT
    assert into(repository, "config.json", 0, 0) == b""
    assert server.paths()[1:] == [f"/owner/name/resolve/{COMMIT}/a%20b/model.safetensors"] * 2
    for _, headers in server.asked[1:]:
        assert headers["Authorization"] == f"Bearer {TOKEN}"
        assert headers["User-Agent"].startswith("modelberth/")
        assert headers["Accept-Encoding"] == "identity"
    repository.close()


SHA = "0123456789abcdef" * 4


@pytest.mark.parametrize(("declared", "sha256"), [
    ({"lfs": {"sha256": SHA, "size": 2}}, SHA), ({}, ""), ({"lfs": None}, ""), ({"lfs": {}}, ""), ({"lfs": "x"}, ""),
    ({"lfs": {"sha256": None}}, ""), ({"lfs": {"sha256": 5}}, ""), ({"lfs": {"sha256": SHA[1:]}}, ""),
    ({"lfs": {"sha256": SHA.upper()}}, ""), ({"lfs": {"sha256": SHA + "\n"}}, ""),
])  # fmt: skip
def test_the_sha256_that_the_hub_declares(hub, declared, sha256):
    listing = {"sha": COMMIT, "siblings": [{"rfilename": "config.json", "size": 2, **declared}]}
    repository = hub(lambda path, headers: (200, JSON, json.dumps(listing).encode())).repository()
    assert repository.sizes() == {"config.json": 2}
    assert repository.sha256("config.json") == sha256
    assert repository.sha256("of nothing") == ""


def test_an_answer_that_breaks_off_is_gone_on_with(hub):
    failures = iter([1000, 0, 5000])

    def fault(path, headers):
        if "/resolve/" not in path or (kept := next(failures, None)) is None:
            return None
        status, said, body = sound(path, headers)
        return status, {**said, "Content-Length": str(len(body))}, body[:kept]

    server = hub(fault)
    repository = server.repository()
    repository.sizes()
    assert into(repository, "a b/model.safetensors", 100, 90_000) == CONTENT[100:90_100]
    asked = [headers["Range"] for _, headers in server.asked[1:]]
    assert asked == [f"bytes={100 + done}-90099" for done in (0, 1000, 1000, 6000)]


def test_a_delivery_whose_answers_always_break_off(hub):
    def fault(path, headers):
        if "/resolve/" not in path:
            return None
        status, said, body = sound(path, headers)
        return status, {**said, "Content-Length": str(len(body))}, body[:1]

    repository = hub(fault).repository()
    repository.sizes()
    with pytest.raises(RemoteUnavailable) as caught:
        into(repository, "a b/model.safetensors", 0, 1000)
    assert "the connection broke off each time" in told(caught)
    assert caught.value.where.endswith("owner/name/a b/model.safetensors")


def test_more_than_a_delivery_asked_for_reaches_nobody(http_server):
    class Endless(BaseHTTPRequestHandler):
        def log_message(self, *_arguments):
            return

        def do_GET(self):
            if self.path.startswith("/api/"):
                body = json.dumps(LISTING).encode()
                self.send_response_only(200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                return
            self.send_response_only(206)
            self.send_header("Content-Range", "bytes 0-99999/102400")
            self.end_headers()
            while True:  # until the client has had enough
                self.wfile.write(bytes(1 << 16))

    repository, found = HubRepository(ADDRESS, http_server(Endless).url), bytearray()
    repository.sizes()
    with pytest.raises(IntegrityError) as caught:
        repository.read_into("a b/model.safetensors", 0, 100_000, found.extend)
    assert "sends more than it was asked for" in told(caught)
    assert len(found) <= 100_000


def test_a_mirror_without_ranges_delivers_whole_files_only(hub):
    repository = hub(lambda path, headers: (200, {}, CONTENT) if "/resolve/" in path else None).repository()
    repository.sizes()
    assert into(repository, "a b/model.safetensors", 0, len(CONTENT)) == CONTENT
    with pytest.raises(IntegrityError) as caught:
        into(repository, "a b/model.safetensors", 0, 100)
    assert "no ranges" in told(caught)


# --- tokens ------------------------------------------------------------------------------------------------


def authorization(server) -> list[str | None]:
    return [headers.get("Authorization") for _, headers in server.asked]


def test_the_token_file(hub, monkeypatch, tmp_path):
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "token").write_text("hf_from_file\n")
    server = hub()
    server.repository().sizes()
    assert authorization(server) == ["Bearer hf_from_file"]


def test_no_token(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    server = hub()
    server.repository().sizes()
    assert authorization(server) == [None]


def test_a_token_that_is_not_to_be_sent(hub, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)
    server = hub()
    server.repository().sizes()
    assert authorization(server) == [None]


@pytest.mark.parametrize("token", [f"{TOKEN} and more", f"{TOKEN}\x01", f"{TOKEN}é", f"{TOKEN}\t{TOKEN}"])
def test_a_token_that_is_none(hub, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    server = hub()
    with pytest.raises(AuthError) as caught:
        server.repository().sizes()
    assert "HF_TOKEN" in told(caught)
    assert server.asked == []


@pytest.mark.parametrize("kind", ["folder", "binary"])
def test_a_token_file_that_cannot_be_read(hub, monkeypatch, tmp_path, kind):
    monkeypatch.delenv("HF_TOKEN")
    if kind == "folder":
        (tmp_path / "token").mkdir()
    else:
        (tmp_path / "token").write_bytes(TOKEN.encode() + b"\xff\xfe")
    with pytest.raises(AuthError) as caught:
        hub().repository().sizes()
    assert "HF_TOKEN" in told(caught)


@ways
def test_the_token_does_not_follow_to_another_server(hub, read):
    store = hub()

    def fault(path, headers):
        return (302, {"Location": store.url + path}, b"") if "/resolve/" in path else None

    repository = hub(fault).repository()
    repository.sizes()
    assert read(repository, "a b/model.safetensors", 5, 5) == CONTENT[5:10]
    assert authorization(store) == [None]
    assert store.asked[0][1]["Range"] == "bytes=5-9"


# --- refusals ----------------------------------------------------------------------------------------------

HTML = {"Content-Type": "text/html; charset=utf-8"}


@pytest.mark.parametrize(("status", "headers", "kind", "text"), [
    (404, {"X-Error-Code": "RepoNotFound"}, UsageError, "no such repository"),
    (401, {"X-Error-Code": "RepoNotFound"}, UsageError, "HF_TOKEN"),
    (404, {}, UsageError, "no such repository"),
    (404, {"X-Error-Code": "RevisionNotFound"}, UsageError, "no revision 'v1'"),
    (404, HTML, RemoteUnavailable, "HF_ENDPOINT"),
    (403, {"X-Error-Code": "GatedRepo"}, AuthError, "accept its conditions at http"),
    (401, {"X-Error-Message": "Invalid credentials in Authorization header"}, AuthError, "refused the token"),
    (401, {}, AuthError, "HF_TOKEN"),
    (403, {}, AuthError, "HF_TOKEN"),
    (403, {"X-Error-Message": "Access to this resource is disabled."}, AuthError, "HF_TOKEN"),
    (429, {"Retry-After": "86400"}, RemoteUnavailable, "fewer requests"),
    (400, {}, RemoteUnavailable, "status 400"),
    (204, {}, RemoteUnavailable, "status 204"),
    (304, {}, RemoteUnavailable, "status 304"),
    (501, {}, RemoteUnavailable, "status 501"),
])  # fmt: skip
def test_refused_listings(hub, status, headers, kind, text):
    server = hub(lambda path, asked: (status, headers, b""))
    with pytest.raises(kind) as caught:
        server.repository("v1").sizes()
    assert text in told(caught)
    assert "owner/name" in told(caught)
    assert server.url in caught.value.where
    assert len(server.asked) == 1


def test_without_a_token_the_hub_refuses_what_is_not_there(hub, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    said = {"X-Error-Message": "Invalid username or password."}
    with pytest.raises(UsageError) as caught:
        hub(lambda path, headers: (401, said, b"")).repository().sizes()
    assert "private and gated repositories need a token: set HF_TOKEN" in caught.value.why


@pytest.mark.parametrize("headers", [{}, {"X-Error-Code": "GatedRepo"}])
def test_without_a_token_a_refusal_names_the_variable(hub, monkeypatch, headers):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(AuthError) as caught:
        hub(lambda path, asked: (401, headers, b"")).repository().sizes()
    assert "HF_TOKEN" in caught.value.next_step


@pytest.mark.parametrize(("status", "headers", "kind", "text"), [
    (403, {"X-Error-Code": "GatedRepo"}, AuthError, "gated"),
    (401, {"X-Error-Code": "GatedRepo"}, AuthError, "gated"),
    (404, {"X-Error-Code": "EntryNotFound"}, IntegrityError, "not there"),
    (404, {}, IntegrityError, "not there"),
    (416, {}, IntegrityError, "shorter"),
    (200, HTML, RemoteUnavailable, "a page"),
])  # fmt: skip
@ways
def test_refused_files(hub, status, headers, kind, text, read):
    repository = hub(lambda path, asked: (status, headers, b"<html>") if "/resolve/" in path else None).repository()
    repository.sizes()
    with pytest.raises(kind) as caught:
        read(repository, "config.json", 0, 2)
    assert text in told(caught)


@pytest.mark.parametrize("status", [408, 500, 502, 503, 504])
def test_a_failure_is_tried_again(hub, status):
    failures = iter([status] * 2)
    server = hub(lambda path, headers: (left, {"Retry-After": "86400"}, b"") if (left := next(failures, 0)) else None)
    assert server.repository().sizes()
    assert len(server.asked) == 3


def test_a_failure_that_stays(hub):
    server = hub(lambda path, headers: (503, HTML, b"<html>" + TOKEN.encode()))
    with pytest.raises(RemoteUnavailable) as caught:
        server.repository().sizes()
    assert "status 503" in told(caught)
    assert "give a folder or a config.json" in caught.value.next_step
    assert len(server.asked) == 4


# --- answers that are none ---------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [
    b"<html>Please log in</html>", b"", b"null", b"[]", b'"text"', b"{}", b'{"sha": "main"}', b"\xff\xfe",
    b"[" * 50_000,
    b'{"sha": "main", "siblings": null}', b'{"sha": "main", "siblings": {"a": 1}}', b'{"sha": null, "siblings": []}',
    b'{"sha": "../../x", "siblings": []}', b'{"sha": "main", "siblings": [{"rfilename": "a"}]}',
    b'{"sha": "main", "siblings": [{"rfilename": "a", "size": -1}]}',
    b'{"sha": "main", "siblings": [{"rfilename": "a", "size": true}]}',
    b'{"sha": "main", "siblings": [{"rfilename": 5, "size": 1}]}',
    b'{"sha": "main", "siblings": [{"rfilename": ["a"], "size": 1}]}',
])  # fmt: skip
def test_a_listing_that_is_none(hub, body):
    server = hub(lambda path, headers: (200, HTML, body))
    with pytest.raises(RemoteUnavailable) as caught:
        server.repository().sizes()
    assert "HF_ENDPOINT" in told(caught)
    assert server.url in caught.value.where


def test_a_listing_without_end(http_server):
    class Endless(BaseHTTPRequestHandler):
        def log_message(self, *_arguments):
            return

        def do_GET(self):
            self.send_response_only(200)
            self.end_headers()
            while True:  # until the client goes away
                self.wfile.write(bytes(1 << 20))

    repository = HubRepository(ADDRESS, http_server(Endless).url)
    with pytest.raises(RemoteUnavailable):
        repository.sizes()
    assert repository.transferred < 20_000_000


@pytest.mark.parametrize("answered", ["bytes 1-5/10", "bytes 0-50/102400", "", "nonsense"])
@ways
def test_another_range_than_asked(hub, answered, read):
    def fault(path, headers):
        return (206, {"Content-Range": answered}, CONTENT[:5]) if "/resolve/" in path else None

    repository = hub(fault).repository()
    repository.sizes()
    with pytest.raises(IntegrityError) as caught:
        read(repository, "config.json", 0, 5)
    assert "bytes 0-4" in told(caught)


def test_a_mirror_without_ranges(hub):
    repository = hub(lambda path, headers: (200, {}, CONTENT) if "/resolve/" in path else None).repository()
    repository.sizes()
    assert repository.read("a b/model.safetensors", 0, 100) == CONTENT[:100]
    assert repository.read("a b/model.safetensors", 77_777, 1000) == CONTENT[77_777:78_777]
    assert repository.transferred > 78_777  # what came is counted, not what was wanted
    with pytest.raises(IntegrityError):
        repository.read("a b/model.safetensors", len(CONTENT) - 5, 10)


def test_more_than_was_asked_for(hub):
    def fault(path, headers):
        return (206, {"Content-Range": "bytes 0-4/102400"}, CONTENT) if "/resolve/" in path else None

    repository = hub(fault).repository()
    repository.sizes()
    assert repository.read("config.json", 0, 5) == CONTENT[:5]


def test_compressed_answers(hub):
    server = hub(lambda path, headers: (200, {"Content-Encoding": "gzip"}, b"\x1f\x8b"))
    with pytest.raises(RemoteUnavailable):
        server.repository().sizes()


# --- no answer ---------------------------------------------------------------------------------------------


def test_nobody_listens():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can take it either
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(RemoteUnavailable) as caught:
            HubRepository(ADDRESS, url).sizes()
    assert url in told(caught)
    assert "give a folder or a config.json" in caught.value.next_step


def test_an_answer_that_breaks_off(hub):
    server = hub(lambda path, headers: (200, {"Content-Length": "1000"}, b"{") if path.startswith("/api/") else None)
    with pytest.raises(RemoteUnavailable) as caught:
        server.repository().sizes()
    assert "RemoteProtocolError" in told(caught)
    assert len(server.asked) == 4


def test_redirects_in_a_circle(hub):
    server = hub(lambda path, headers: (302, {"Location": path}, b""))
    with pytest.raises(RemoteUnavailable) as caught:
        server.repository().sizes()
    assert "TooManyRedirects" in told(caught)


NOWHERE = ["file:///etc/passwd", "http://[", "", "gopher://x", "http://127.0.0.1:99999/", "http://127.0.0.1:x/"]


@pytest.mark.parametrize("location", NOWHERE)
def test_a_redirect_to_nowhere(hub, location):
    with pytest.raises(RemoteUnavailable) as caught:
        hub(lambda path, headers: (302, {"Location": location}, b"")).repository().sizes()
    told(caught)


@pytest.mark.parametrize("location", [*NOWHERE, "/owner/name/resolve/elsewhere"])
def test_a_redirect_of_a_file_to_nowhere(hub, location):
    """Or in a circle."""
    away = 302, {"Location": location}, b""
    repository = hub(lambda path, asked: away if "/resolve/" in path else None).repository()
    repository.sizes()
    with pytest.raises(RemoteUnavailable) as caught:
        into(repository, "config.json", 0, 2)
    told(caught)


@pytest.mark.parametrize("url", ["nonsense", "ftp://127.0.0.1", "http://", "http://[", "http://127.0.0.1:99999"])
def test_an_endpoint_that_is_none(url):
    with pytest.raises(RemoteUnavailable) as caught:
        HubRepository(ADDRESS, url).sizes()
    assert "HF_ENDPOINT" in told(caught)


@pytest.mark.parametrize("rest", ["127.0.0.1:99999", "[", "127.0.0.1:0/path?key=canary-query#canary-fragment"])
def test_a_password_in_the_endpoint_does_not_show(rest):
    url = f"http://somebody:canary-password@{rest}"
    with pytest.raises(RemoteUnavailable) as caught:
        HubRepository(ADDRESS, url).sizes()
    assert "canary-" not in told(caught)


def test_offline_mode(script, http_server, hub):
    server = hub()
    code = """
from modelberth.adapters.huggingface import HubRepository
from modelberth.base.errors import RemoteUnavailable
from modelberth.spec.addresses import HubAddress
try:
    HubRepository(HubAddress("owner/name", "")).sizes()
except RemoteUnavailable as error:
    print("refused:", error.what, error.where, error.next_step)
"""
    environment = {"PATH": os.environ["PATH"], "HF_ENDPOINT": server.url, "HF_HUB_OFFLINE": "1", "HF_TOKEN": TOKEN,
                   "PYTHONPATH": os.pathsep.join(sys.path)}  # fmt: skip
    said = script(code, environment=environment).lines.rest()
    assert said.startswith("refused: offline mode is on")
    assert server.url in said
    assert "unset HF_HUB_OFFLINE, or give a folder or a config.json" in said
    assert TOKEN not in said
    assert server.asked == []
