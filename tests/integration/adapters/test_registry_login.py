"""Who we are at a registry: passwords, tokens, helpers and files of logins; TLS; and no secret anywhere else."""

from __future__ import annotations

import base64
import json
import os
import threading
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import parse_qs

import pytest

from fault_proxy import Answer, Callback, Fault
from modelberth.adapters.registry.auth import Challenge, parse_challenges
from modelberth.adapters.registry.credentials import find_credentials
from modelberth.base.errors import AuthError, BerthError, PrerequisiteMissing, RemoteUnavailable, UsageError
from modelberth.delivery import image
from modelberth.delivery.image import Descriptor

pytestmark = pytest.mark.integration

CONTENT = os.urandom(300_000)
BLOB = Descriptor(image.LAYER_TYPE, image.digest_of(CONTENT), len(CONTENT))
SECRET = "canary-of-the-registry"


def push(registry, chunk_bytes: int = 100_000) -> int:
    return registry.push_blob(BLOB, pieces, chunk_bytes=chunk_bytes)


def pieces(offset: int, length: int):
    yield memoryview(CONTENT)[offset : offset + length]


def login(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def write_logins(path: Path, **document: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def said(error: BerthError) -> str:
    return f"{error.what} {error.where} {error.why} {error.next_step} {error!r} {error.__cause__!r}"


@pytest.fixture
def log_in(no_logins):
    """Write down a login, as `docker login` does."""

    def write(host: str, user: str, password: str) -> None:
        write_logins(no_logins / ".docker" / "config.json", auths={host: login(user, password)})

    return write


# --- passwords ---------------------------------------------------------------------------------------------


def test_without_a_login_the_error_says_how_to_log_in(registry_with_password, repository):
    here = repository(registry_with_password.url)
    with pytest.raises(AuthError, match="does not let us pull") as caught:
        here.tagged("v1")
    assert here.where in caught.value.where
    assert "no login was found" in caught.value.why
    assert f"podman login {registry_with_password.host}" in caught.value.next_step


def test_a_wrong_password_is_refused_and_not_shown(registry_with_password, repository, log_in):
    log_in(registry_with_password.host, registry_with_password.user, SECRET)
    with pytest.raises(AuthError, match="does not let us") as caught:
        push(repository(registry_with_password.url))
    assert "the login that was found" in caught.value.why
    assert SECRET not in said(caught.value)


def test_with_its_password_everything_works(registry_with_password, repository, log_in):
    log_in(registry_with_password.host, registry_with_password.user, registry_with_password.password)
    here, content = repository(registry_with_password.url), bytearray()
    assert push(here) == len(CONTENT)
    here.stream_blob(BLOB, content.extend)
    assert bytes(content) == CONTENT


# --- tokens ------------------------------------------------------------------------------------------------


@pytest.fixture
def tokens(token_server):
    """The token server, its memory empty and its tokens good for five minutes."""
    token_server.asked.clear()
    token_server.lifetime = 300
    return token_server


def asked(tokens) -> list[str]:
    return [scope.rpartition(":")[2] for request in tokens.asked for scope in request.scopes]


def test_the_nameless_may_pull_but_not_push(registry_with_token, tokens, repository):
    here = repository(registry_with_token.url)
    assert here.tagged("v1") is None
    with pytest.raises(AuthError, match="does not let us push") as caught:
        push(here)
    assert "podman login" in caught.value.next_step
    assert {request.user for request in tokens.asked} == {""}


def test_a_token_is_asked_for_once_for_pulling_and_once_for_pushing(registry_with_token, tokens, repository, log_in):
    log_in(registry_with_token.host, registry_with_token.user, registry_with_token.password)
    here, content = repository(registry_with_token.url), bytearray()
    push(here)
    here.stream_blob(BLOB, content.extend)
    assert bytes(content) == CONTENT
    assert asked(tokens) == ["pull", "pull,push"]
    assert {request.user for request in tokens.asked} == {registry_with_token.user}


def test_threads_share_a_token(registry_with_token, tokens, repository):
    here = repository(registry_with_token.url)
    threads = [threading.Thread(target=here.tagged, args=("v1",)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert asked(tokens) == ["pull"]


def test_a_token_that_is_about_to_expire_is_not_used_again(registry_with_token, tokens, repository):
    tokens.lifetime = 0
    here = repository(registry_with_token.url)
    for _ in range(3):
        here.tagged("v1")
    assert asked(tokens) == ["pull"] * 3


def test_a_token_that_expires_within_an_upload_costs_the_same_chunk_again(
    registry_with_token, tokens, repository, fault_proxy, log_in
):
    proxy = fault_proxy(registry_with_token.url)
    log_in(proxy.url.partition("://")[2], registry_with_token.user, registry_with_token.password)
    challenge = f'Bearer realm="{tokens.url}/token",service="registry of the tests",error="invalid_token"'
    proxy.add(Fault(Answer(401, {"WWW-Authenticate": challenge}), method="PATCH", after=1, times=1))
    here = repository(proxy.url)
    assert push(here) == len(CONTENT) + 100_000
    assert asked(tokens) == ["pull", "pull,push", "pull,push"]
    patches = [each for each in proxy.requests if each.method == "PATCH"]
    assert [each.header("Content-Range").partition("-")[0] for each in patches] == ["0", "100000", "100000", "200000"]
    assert here.has(BLOB)


def test_a_password_that_the_token_server_refuses(registry_with_token, tokens, repository, log_in):
    log_in(registry_with_token.host, registry_with_token.user, SECRET)
    with pytest.raises(AuthError, match="does not let us pull") as caught:
        repository(registry_with_token.url).tagged("v1")
    assert "wrong name or password" in caught.value.why
    assert SECRET not in said(caught.value)


def serving(answers):
    """A handler that gives every GET and POST to a function: status, headers and body."""

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_arguments) -> None:
            return

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, headers, content = answers(self, body)
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = answer  # noqa: N815

    return Handler


def test_an_identity_token_is_exchanged(http_server, repository, no_logins):
    forms = []

    def answers(request, body):
        if request.path == "/token":
            forms.append((request.headers.get("Authorization"), parse_qs(body.decode())))
            return 200, [], b'{"access_token": "for-you", "expires_in": 300}'
        if request.headers.get("Authorization") != "Bearer for-you":
            host = request.headers["Host"]
            # Two challenges, in two headers.
            return 401, [("WWW-Authenticate", f'Bearer realm="http://{host}/token",service="s"'),
                         ("WWW-Authenticate", 'Basic realm="r"')], b""  # fmt: skip
        return 404, [], b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}'

    server = http_server(serving(answers))
    host = server.url.partition("://")[2]
    write_logins(no_logins / ".docker" / "config.json", auths={host: {"identitytoken": SECRET}})
    assert repository(server.url, "a/b").tagged("v1") is None
    ((header, form),) = forms
    assert header is None
    assert form["grant_type"] == ["refresh_token"]
    assert form["refresh_token"] == [SECRET]
    assert form["scope"] == ["repository:a/b:pull"]


@pytest.mark.parametrize(
    "answer",
    [
        (200, [("Content-Type", "text/html")], b"<html>"), (200, [], b"{}"), (200, [], b"[]"), (200, [], b"{"),
        (200, [], b'{"token": "a\\nb"}'), (302, [("Location", "http://127.0.0.1:9/")], b""),
    ],
)  # fmt: skip
def test_a_token_server_that_gives_none(http_server, repository, answer):
    def answers(request, _body):
        if request.path.startswith("/token"):
            return answer
        return 401, [("WWW-Authenticate", f'Bearer realm="http://{request.headers["Host"]}/token"')], b""

    with pytest.raises(RemoteUnavailable, match="does not answer as a registry"):
        repository(http_server(serving(answers)).url).tagged("v1")


def test_a_password_does_not_go_to_a_token_server_without_tls(http_server, repository, log_in):
    def answers(_request, _body):
        return 401, [("WWW-Authenticate", 'Bearer realm="http://tokens.example/token"')], b""

    server = http_server(serving(answers))
    log_in(server.url.partition("://")[2], "berth", SECRET)
    with pytest.raises(AuthError, match="unprotected") as caught:
        repository(server.url).tagged("v1")
    assert SECRET not in said(caught.value)


@pytest.mark.parametrize("challenge", ["", 'Bearer realm="file:///etc/passwd"', "Negotiate", 'Basic realm="r"'])
def test_a_challenge_that_nobody_can_meet(http_server, repository, challenge):
    server = http_server(serving(lambda _request, _body: (401, [("WWW-Authenticate", challenge)], b"")))
    with pytest.raises(AuthError, match="does not let us pull"):
        repository(server.url).tagged("v1")


def test_challenges_are_read_as_they_are_written():
    text = 'Basic realm="a, b", Bearer realm="https://t.example/x?y=1",scope="repository:a/b:pull,push" , service=s'
    assert parse_challenges(text) == [
        Challenge("basic", "a, b"),
        Challenge("bearer", "https://t.example/x?y=1", "s", "repository:a/b:pull,push"),
    ]
    assert parse_challenges('bearer realm="ftp://x"') == []
    assert parse_challenges('realm="x"') == []
    assert parse_challenges("") == []


# --- files of logins ---------------------------------------------------------------------------------------


def names(path: Path, name: str) -> None:
    write_logins(path, auths={"r.example": login(name, SECRET)})


def test_the_first_file_that_has_a_login_decides(no_logins, monkeypatch, tmp_path):
    last = no_logins / ".config" / "containers" / "auth.json"
    assert find_credentials("r.example", "a/b") is None
    names(last, "podman-config")
    assert find_credentials("r.example", "a/b").user == "podman-config"
    names(no_logins / ".docker" / "config.json", "docker-home")
    assert find_credentials("r.example", "a/b").user == "docker-home"
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    assert find_credentials("r.example", "a/b").user == "podman-config"
    names(tmp_path / "docker" / "config.json", "docker-config")
    assert find_credentials("r.example", "a/b").user == "docker-config"
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    names(tmp_path / "run" / "containers" / "auth.json", "runtime")
    assert find_credentials("r.example", "a/b").user == "runtime"
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    names(tmp_path / "auth.json", "named")
    assert find_credentials("r.example", "a/b").user == "named"
    write_logins(tmp_path / "auth.json", auths={"other.example": login("other", SECRET)})
    assert find_credentials("r.example", "a/b").user == "runtime"


def test_the_most_specific_entry_wins(no_logins):
    write_logins(
        no_logins / ".docker" / "config.json",
        auths={
            "https://r.example/v1/": login("host", SECRET),
            "r.example/team": login("team", SECRET),
            "r.example/team/model": login("model", SECRET),
            "r.example/te": login("no part of a name", SECRET),
            "r.example:5000": {"username": "port", "password": SECRET},
            "https://index.docker.io/v1/": login("hub", SECRET),
            "empty.example": {},
        },
    )
    found = {
        (host, name): find_credentials(host, name)
        for host, name in (
            ("r.example", "team/model"), ("r.example", "team/other"), ("r.example", "tea"), ("r.example:5000", "team"),
            ("docker.io", "library/x"), ("r.example:5001", "team"), ("empty.example", "x"),
        )
    }  # fmt: skip
    assert [each.user if each else None for each in found.values()] == [
        "model", "team", "host", "port", "hub", None, None,
    ]  # fmt: skip
    assert all(each.password == SECRET for each in found.values() if each)
    assert SECRET not in repr(found)


def test_a_password_may_hold_a_colon(no_logins):
    write_logins(no_logins / ".docker" / "config.json", auths={"r.example": login("berth", "a:b:c")})
    found = find_credentials("r.example", "x")
    assert (found.user, found.password) == ("berth", "a:b:c")


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", '{"auths": {"r.example": {"auth": "%%%"}}}',
        json.dumps({"auths": {"r.example": {"auth": base64.b64encode(SECRET.encode()).decode()}}}),
        '{"credHelpers": {"r.example": "../../bin/sh"}}', '{"credsStore": ["a"]}',
    ],
)  # fmt: skip
def test_a_damaged_file_is_named_and_not_quoted(no_logins, text):
    path = no_logins / ".docker" / "config.json"
    path.parent.mkdir()
    path.write_text(text)
    with pytest.raises(UsageError, match="cannot be read") as caught:
        find_credentials("r.example", "x")
    assert caught.value.where == str(path)
    assert SECRET not in said(caught.value)


@pytest.mark.parametrize("text", ["", "{}", '{"auths": null}', '{"auths": {"r.example": 5}}', '{"auths": []}'])
def test_a_file_without_logins_is_none(no_logins, text):
    path = no_logins / ".docker" / "config.json"
    path.parent.mkdir()
    path.write_text(text)
    assert find_credentials("r.example", "x") is None


# --- credential helpers ------------------------------------------------------------------------------------


@pytest.fixture
def helper(monkeypatch, tmp_path):
    """Put a credential helper on the path: a shell script; what it was asked goes to the file that is returned."""

    def write(name: str, body: str) -> Path:
        folder = tmp_path / "bin"
        folder.mkdir(exist_ok=True)
        program, question = folder / f"docker-credential-{name}", tmp_path / f"asked-{name}"
        program.write_text(f'#!/bin/sh\n[ "$1" = get ] || exit 9\ncat > {question}\n{body}\n')
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
        return question

    return write


def test_a_helper_is_asked_for_its_host_and_a_store_for_the_others(no_logins, helper):
    answer = 'echo \'{"ServerURL": "x", "Username": "%s", "Secret": "' + SECRET + "\"}'"
    one, store = helper("one", answer % "from-helper"), helper("store", answer % "from-store")
    write_logins(
        no_logins / ".docker" / "config.json", credHelpers={"r.example": "one"}, credsStore="store",
        auths={"kept.example": login("kept", SECRET)},
    )  # fmt: skip
    found = find_credentials("r.example", "a/b")
    assert (found.user, found.password) == ("from-helper", SECRET)
    assert one.read_text() == "r.example"
    assert find_credentials("kept.example", "x").user == "kept"
    assert find_credentials("docker.io", "library/x").user == "from-store"
    assert store.read_text() == "https://index.docker.io/v1/"


def test_a_helper_may_give_an_identity_token(no_logins, helper):
    helper("one", 'echo warning >&2; echo \'{"Username": "<token>", "Secret": "' + SECRET + "\"}'")
    write_logins(no_logins / ".docker" / "config.json", credsStore="one")
    assert find_credentials("r.example", "x").identity_token == SECRET


def test_a_helper_that_knows_no_login_is_no_error(no_logins, helper):
    helper("one", "echo credentials not found in native keychain; exit 1")
    write_logins(no_logins / ".docker" / "config.json", credsStore="one")
    assert find_credentials("r.example", "x") is None


@pytest.mark.parametrize("body", [f"echo {SECRET}", f"echo {SECRET}; exit 3", f'echo \'{{"Secret": "{SECRET}"}}\''])
def test_a_helper_that_fails_is_named_and_not_quoted(no_logins, helper, body):
    helper("one", body)
    path = write_logins(no_logins / ".docker" / "config.json", credsStore="one")
    with pytest.raises(PrerequisiteMissing, match="docker-credential-one gives no credentials") as caught:
        find_credentials("r.example", "x")
    assert caught.value.where == str(path)
    assert SECRET not in said(caught.value)


def test_a_helper_that_is_not_there_is_named(no_logins):
    write_logins(no_logins / ".docker" / "config.json", credHelpers={"r.example": "not-installed"})
    with pytest.raises(PrerequisiteMissing, match="docker-credential-not-installed cannot be started") as caught:
        find_credentials("r.example", "x")
    assert "podman login r.example" in caught.value.next_step


# --- TLS ---------------------------------------------------------------------------------------------------


def test_a_private_authority_has_to_be_given(registry_with_tls, repository):
    with pytest.raises(RemoteUnavailable, match="not trusted") as caught:
        repository(registry_with_tls.url).tagged("v1")
    assert "--ca-bundle" in caught.value.next_step


def test_with_its_authority_everything_works_over_tls(registry_with_tls, repository):
    here, content = repository(registry_with_tls.url, verify=str(registry_with_tls.ca)), bytearray()
    assert push(here) == len(CONTENT)
    here.read_range(BLOB, 1000, 5000, content.extend)
    assert bytes(content) == CONTENT[1000:6000]


def test_an_upload_may_be_what_finds_out_that_tls_is_spoken(registry_with_tls, repository):
    here = repository(registry_with_tls.url, verify=str(registry_with_tls.ca))
    assert here.put_manifest("v1", b'{"schemaVersion": 2, "manifests": []}', image.INDEX_TYPE)


def test_plain_http_to_a_registry_with_tls_says_so(registry_with_tls, repository):
    with pytest.raises(RemoteUnavailable, match="speaks TLS only") as caught:
        repository(registry_with_tls.url, plain_http=True).tagged("v1")
    assert "--plain-http" in caught.value.next_step


def test_tls_to_a_registry_without_says_so_at_once(registry, repository, fault_proxy):
    proxy = fault_proxy(registry.url)
    with pytest.raises(RemoteUnavailable, match="does not speak TLS") as caught:
        repository(proxy.url, plain_http=False).tagged("v1")
    assert "--plain-http" in caught.value.next_step
    assert proxy.requests == []


def test_every_request_says_as_little_as_it_can(registry_with_password, repository, fault_proxy, log_in):
    seen = []
    proxy = fault_proxy(registry_with_password.url)
    proxy.add(Fault(Callback(lambda request: seen.append((request.method, sorted(request.headers))))))
    log_in(proxy.url.partition("://")[2], registry_with_password.user, registry_with_password.password)
    repository(proxy.url).tagged("v1")
    assert seen[:2] == [
        ("GET", ["Accept", "Accept-Encoding", "Host"]), ("GET", ["Accept", "Accept-Encoding", "Authorization", "Host"]),
    ]  # fmt: skip
