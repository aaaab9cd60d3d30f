"""Real servers for tests: moto's S3, Debian's docker-registry, and a token server that a registry trusts.

Each picks a free port itself and says so in its log, which is also how it says that it is ready. They end with
us, however we end. The embedded S3 server of the product is `modelberth.adapters.s3_server.start_server`.
"""

from __future__ import annotations

import base64
import json
import os
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from queue import Empty, Queue
from urllib.parse import parse_qs, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from modelberth.adapters import processes

PATIENCE = 50.0
"""Seconds after which something is broken."""
_LOOK_SECONDS = 0.2
PEERS = Path(sys.prefix).with_name(f"{Path(sys.prefix).name}-peers")
"""The environment that `make peers` makes beside ours."""
USER, PASSWORD = "berth", "fair-wind"
_PASSWORD_LINE = "berth:$2y$05$Xq0bHkq1rYx7n3Lw9sVtZeuT2TrOVdhWb90nbqpNKBgSGBNa4scte\n"
"""USER and PASSWORD as docker-registry wants them (bcrypt, which Python has not got)."""
SERVICE, ISSUER = "registry of the tests", "token server of the tests"


class ProgramMissing(Exception):
    """A program that a server needs is not there; says how to get it."""


def debian_program(name: str) -> str:
    """The path of a program of the Debian package of the same name.

    Raises:
        ProgramMissing: it is not installed.
    """
    found = shutil.which(name)
    if not found:
        raise ProgramMissing(f"{name} is not there; next: apt-get install {name}")
    return found


def peer_program(name: str) -> Path:
    """The path of a program in the peers' environment (moto_server, s5cmd, olot, python).

    Raises:
        ProgramMissing: the environment was not made, or not to its end.
    """
    if not (PEERS / ".ready").exists():
        raise ProgramMissing(f"{PEERS.name} is not there; next: make peers")
    return PEERS / "bin" / name


# --- S3 ----------------------------------------------------------------------------------------------------


@dataclass
class Moto:
    """moto's S3 server: conditional writes and 206, but it checks neither keys nor checksums."""

    url: str
    _child: processes.Child

    def stop(self) -> None:
        """Stop it; everything in it is gone."""
        self._child.stop()


def start_moto(folder: Path) -> Moto:
    """Start moto's S3 server; its log goes to `folder`."""
    command = [str(peer_program("moto_server")), "-H", "127.0.0.1", "-p", "0"]
    child, match = _start(command, folder / "moto.log", r"Running on (http://[\d.:]+)")
    return Moto(match[1], child)


def s3_signer(
    access_key: str, secret_key: str, region: str = "us-east-1"
) -> Callable[[str, str, dict[str, str]], dict[str, str]]:
    """For `IgnoreRange`: signs a request without a body anew, from its method, path and headers."""

    def sign(method: str, path: str, headers: dict[str, str]) -> dict[str, str]:
        host = next(value for name, value in headers.items() if name.lower() == "host")
        request = AWSRequest(method, f"http://{host}{path}")
        request.headers["X-Amz-Content-SHA256"] = "UNSIGNED-PAYLOAD"
        S3SigV4Auth(Credentials(access_key, secret_key), "s3", region).add_auth(request)
        return {"Host": host, **dict(request.headers.items())}

    return sign


# --- registry ----------------------------------------------------------------------------------------------


@dataclass
class Registry:
    """docker-registry over a folder; deleting is allowed.

    Attributes:
        url: its address, without a slash at the end.
        folder: what it stores; blobs are below `docker/registry/v2/blobs`.
        log: what it says.
        ca: the file of the private certificate authority; None without TLS.
        user: with its password; both empty when it lets everybody in.
    """

    url: str
    folder: Path
    log: Path
    ca: Path | None
    user: str
    password: str
    _child: processes.Child

    @property
    def host(self) -> str:
        """Host and port, as in a reference to an image."""
        return urlsplit(self.url).netloc

    def blob(self, digest: str) -> Path:
        """The file of a blob (`sha256:...`), there or not."""
        algorithm, _, value = digest.partition(":")
        return self.folder / "docker" / "registry" / "v2" / "blobs" / algorithm / value[:2] / value / "data"

    def stop(self) -> None:
        """Stop it; what it stored stays."""
        self._child.stop()


def start_registry(
    folder: Path, *, password: bool = False, tls: bool = False, tokens: TokenServer | None = None
) -> Registry:
    """Start a registry in a folder, new or used before.

    Args:
        folder: takes configuration, log and, in `data`, what is stored.
        password: let in only USER with PASSWORD (basic authentication).
        tls: serve https with a certificate for 127.0.0.1 and localhost from a certificate authority of its own.
        tokens: let in only with a token of this server.
    """
    program = debian_program("docker-registry")
    folder.mkdir(parents=True, exist_ok=True)
    data, log, config = folder / "data", folder / "registry.log", folder / "config.json"
    http: dict[str, object] = {"addr": "127.0.0.1:0", "secret": secrets.token_hex(16)}
    settings: dict[str, object] = {
        "version": 0.1,
        "log": {"level": "info", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(data)}, "delete": {"enabled": True}},
        "http": http,
    }
    ca = None
    if tls:
        ca, certificate, key = make_certificates(folder / "tls")
        http["tls"] = {"certificate": str(certificate), "key": str(key)}
    if password:
        (folder / "htpasswd").write_text(_PASSWORD_LINE)
        settings["auth"] = {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}}
    if tokens:
        settings["auth"] = {"token": tokens.trusted()}
    config.write_text(json.dumps(settings))  # JSON is YAML
    child, match = _start([program, "serve", str(config)], log, r"listening on (127\.0\.0\.1:\d+)")
    user, secret = (USER, PASSWORD) if password or tokens else ("", "")
    return Registry(f"{'https' if tls else 'http'}://{match[1]}", data, log, ca, user, secret, child)


def make_certificates(folder: Path) -> tuple[Path, Path, Path]:
    """A certificate authority, a certificate of it for 127.0.0.1 and localhost, and that one's key."""
    openssl = debian_program("openssl")
    folder.mkdir(parents=True, exist_ok=True)
    ca, ca_key, certificate, key = (folder / name for name in ("ca.pem", "ca.key", "server.pem", "server.key"))
    new = [
        openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
        "-config", os.devnull,
    ]  # fmt: skip
    _run(
        *new, "-subj", "/CN=certificate authority of the tests", "-keyout", ca_key, "-out", ca,
        "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign",
        "-addext", "subjectKeyIdentifier=hash",
    )  # fmt: skip
    _run(
        *new, "-subj", "/CN=127.0.0.1", "-keyout", key, "-out", certificate, "-CA", ca, "-CAkey", ca_key,
        "-addext", "basicConstraints=critical,CA:FALSE", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
        "-addext", "extendedKeyUsage=serverAuth", "-addext", "authorityKeyIdentifier=keyid",
    )  # fmt: skip
    return ca, certificate, key


# --- tokens ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TokenRequest:
    """What was asked of the token server: scopes as they were sent, and who asked (empty without a name)."""

    scopes: tuple[str, ...]
    user: str


@dataclass
class TokenServer:
    """Hands out tokens for registries: whatever is asked for to USER with PASSWORD, only pulling to the nameless.

    Attributes:
        url: its address; a registry names `url`/token as its realm.
        lifetime: seconds that a token from now on is valid and says so.
        asked: every request so far.
    """

    url: str
    lifetime: int
    _key: Path
    _certificate: Path
    _server: ThreadingHTTPServer
    _thread: threading.Thread
    asked: list[TokenRequest] = field(default_factory=list)

    def trusted(self) -> dict[str, str]:
        """What a registry's configuration says to trust it."""
        return {
            "realm": f"{self.url}/token", "service": SERVICE, "issuer": ISSUER,
            "rootcertbundle": str(self._certificate),
        }  # fmt: skip

    def token(self, scopes: tuple[str, ...], user: str) -> str:
        """A signed token (RS256, with the certificate of the key in its head)."""
        lines = self._certificate.read_text().splitlines()
        head = {"typ": "JWT", "alg": "RS256", "x5c": ["".join(line for line in lines if "-----" not in line)]}
        now = int(time.time())
        claims = {
            "iss": ISSUER, "sub": user, "aud": SERVICE, "iat": now, "nbf": now - 5, "exp": now + self.lifetime,
            "jti": secrets.token_hex(8), "access": [_access(scope, user) for scope in scopes],
        }  # fmt: skip
        signed = ".".join(_base64(json.dumps(part).encode()) for part in (head, claims))
        signature = _run("openssl", "dgst", "-sha256", "-sign", self._key, given=signed.encode())
        return f"{signed}.{_base64(signature)}"

    def stop(self) -> None:
        """Stop it."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def start_token_server(folder: Path) -> TokenServer:
    """Start a token server; its key and certificate go to `folder`."""
    openssl = debian_program("openssl")
    folder.mkdir(parents=True, exist_ok=True)
    key, certificate = folder / "token.key", folder / "token.pem"
    _run(
        openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-config", os.devnull,
        "-subj", "/CN=tokens of the tests", "-keyout", key, "-out", certificate,
    )  # fmt: skip
    server = _TokenHttp(("127.0.0.1", 0), _TokenHandler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="token server")
    server.tokens = TokenServer(f"http://127.0.0.1:{server.server_port}", 300, key, certificate, server, thread)
    thread.start()
    return server.tokens


class _TokenHttp(ThreadingHTTPServer):
    daemon_threads = False
    tokens: TokenServer


class _TokenHandler(BaseHTTPRequestHandler):
    server: _TokenHttp

    def log_message(self, *_arguments: object) -> None:
        return

    def do_GET(self) -> None:
        tokens, query = self.server.tokens, parse_qs(urlsplit(self.path).query)
        user, _, password = _basic(self.headers.get("Authorization")).partition(":")
        if (user or password) and (user, password) != (USER, PASSWORD):
            self._say(401, {"errors": [{"code": "UNAUTHORIZED", "message": "wrong name or password"}]})
            return
        scopes = tuple(scope for value in query.get("scope", []) for scope in value.split())
        tokens.asked.append(TokenRequest(scopes, user))
        token = tokens.token(scopes, user)
        self._say(200, {"token": token, "access_token": token, "expires_in": tokens.lifetime})

    def _say(self, status: int, document: dict[str, object]) -> None:
        body = json.dumps(document).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _access(scope: str, user: str) -> dict[str, object]:
    kind, _, rest = scope.partition(":")
    name, _, actions = rest.rpartition(":")
    granted = [action for action in actions.split(",") if user or action == "pull"]
    return {"type": kind, "name": name, "actions": granted}


def _basic(header: str | None) -> str:
    return base64.b64decode(header.removeprefix("Basic ")).decode() if header else ""


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


# --- processes ---------------------------------------------------------------------------------------------


def _start(command: list[str], log: Path, ready: str) -> tuple[processes.Child, re.Match[str]]:
    """Start a server and wait for the line of its log that gives its address."""
    lines: Queue[str] = Queue()
    child = processes.start(command, log=log, on_line=lines.put)
    deadline, seen = time.monotonic() + PATIENCE, []
    while True:
        running = child.poll() is None and time.monotonic() < deadline
        try:
            seen.append(lines.get(timeout=_LOOK_SECONDS))
        except Empty:
            if running:
                continue
            child.stop()
            raise AssertionError(f"{command[0]} did not start; it said: {seen[-10:]}") from None
        if match := re.search(ready, seen[-1]):
            return child, match


def _run(*command: object, given: bytes = b"") -> bytes:
    done = subprocess.run([str(part) for part in command], input=given, capture_output=True, check=False)
    if done.returncode:
        raise AssertionError(f"{command[0]} failed: {done.stderr.decode(errors='replace')}")
    return done.stdout
