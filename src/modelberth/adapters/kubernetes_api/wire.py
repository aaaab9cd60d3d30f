"""Requests to one API server: signed, bounded, and made again where that is safe.

A request that only reads, and server-side apply, is made again after a failure of the server or the network, with
growing pauses, jitter, and what Retry-After asks for; never past its deadline. Bodies of errors are read up to a cap.
"""

from __future__ import annotations

import json
import random
import ssl
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Event

import httpcore2
import httpx2
from wsproto.utilities import generate_accept_token, generate_nonce

from modelberth.adapters.kubernetes_api.credentials import Identity
from modelberth.adapters.kubernetes_api.errors import error_of, is_refusal
from modelberth.adapters.kubernetes_api.kinds import Document
from modelberth.adapters.kubernetes_api.kubeconfig import IN_CLUSTER, Login, Target, read_login
from modelberth.base.clock import Stopwatch
from modelberth.base.errors import AuthError, BerthError, RemoteUnavailable, UsageError
from modelberth.base.text import printable, shorten

ATTEMPTS = 4
_PASSING = frozenset({429, 500, 502, 503, 504})
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 10.0
_ERROR_BYTES = 64 * 1024
_JSON = "application/json"
APPLY = "application/apply-patch+yaml"
MERGE = "application/merge-patch+json"


class Wire:
    """The connections to one API server.

    Raises:
        UsageError, AuthError, PrerequisiteMissing: certificates or credentials cannot be read.
    """

    def __init__(self, login: Login, target: Target) -> None:
        self.server = login.server
        self._timeout = target.timeout
        again = target if login.context == IN_CLUSTER else replace(target, context=login.context)
        self._identity = Identity(login, lambda: read_login(again))
        self._stop = Event()
        headers = {"Accept": _JSON, "User-Agent": "berth"}
        if target.as_user:
            headers["Impersonate-User"] = target.as_user
        self.client = httpx2.Client(
            base_url=login.server, auth=self._identity, verify=_tls(login, self._identity), headers=headers,
            proxy=login.cluster.get("proxy-url") or None, timeout=httpx2.Timeout(target.timeout, connect=10.0),
            limits=httpx2.Limits(max_connections=64, max_keepalive_connections=16),
        )  # fmt: skip

    def close(self) -> None:
        """Close the connections; whoever waits between two attempts stops waiting."""
        self._stop.set()
        self.client.close()

    def json(
        self, method: str, path: str, what: str, *, query: Mapping[str, str] | None = None,
        body: Document | None = None, content_type: str = _JSON, again: bool = True,
    ) -> Document:  # fmt: skip
        """Ask, and return the object that comes back.

        Args:
            method: of HTTP.
            path: below the server.
            what: what is done, for errors.
            query: of the URL.
            body: object to send.
            content_type: of the body.
            again: whether it may be made again after a failure.

        Raises:
            BerthError: by meaning, as `errors.error_of` tells.
        """
        answer = self.answer(method, path, what, query=query, body=body, content_type=content_type, again=again)
        if answer.status_code >= 400:
            raise error_of(answer.status_code, answer.content[:_ERROR_BYTES], what, self.server)
        return self._object(answer, what)

    def _object(self, answer: httpx2.Response, what: str) -> Document:
        try:
            found = answer.json()
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise error_of(404, answer.content[:300] or b"<", what, self.server)
        return found

    def answer(
        self, method: str, path: str, what: str, *, query: Mapping[str, str] | None = None,
        body: Document | None = None, content_type: str = _JSON, again: bool = True,
    ) -> httpx2.Response:  # fmt: skip
        """As `json`, but the answer as it came, whatever its status; only failures that pass are tried again."""
        content = json.dumps(body, ensure_ascii=False).encode() if body is not None else None
        headers = {"Content-Type": content_type} if content is not None else {}
        watch = Stopwatch()
        attempt = 0
        while True:
            attempt += 1
            last = attempt >= (ATTEMPTS if again else 1) or watch.seconds() > self._timeout * 2
            try:
                answer = self.client.request(method, path, params=query, content=content, headers=headers)
            except httpx2.HTTPError as error:
                if last or not _may_pass(error):
                    raise self._unreachable(error, what) from None
                self._pause(attempt, None)
                continue
            if last or answer.status_code not in _PASSING or is_refusal(answer.status_code, answer.content):
                return answer
            self._pause(attempt, answer.headers.get("retry-after"))

    def _pause(self, attempt: int, asked: str | None) -> None:
        seconds = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** (attempt - 1)) * (0.5 + random.random() / 2)  # noqa: S311
        if asked and asked.isdigit():
            seconds = max(seconds, min(float(asked), _LONGEST_PAUSE))
        if self._stop.wait(seconds):
            raise RemoteUnavailable("the connection was closed", where=self.server)

    @contextmanager
    def stream(
        self, path: str, what: str, *, query: Mapping[str, str] | None = None, read_seconds: float | None = None
    ) -> Iterator[httpx2.Response]:
        """An answer that is read as it comes.

        Args:
            path: below the server.
            what: what is done, for errors.
            query: of the URL.
            read_seconds: longest silence; None for the time of a request.

        Raises:
            BerthError: by meaning; also when the connection breaks while it is read.
        """
        timeout = httpx2.Timeout(read_seconds or self._timeout, connect=10.0)
        try:
            with self.client.stream("GET", path, params=query, timeout=timeout) as answer:
                if answer.status_code >= 400:
                    raise error_of(answer.status_code, _capped(answer), what, self.server)
                yield answer
        except httpx2.HTTPError as error:
            raise self._unreachable(error, what) from None

    @contextmanager
    def upgrade(
        self, path: str, protocol: str, what: str, *, query: Mapping[str, str] | None = None
    ) -> Iterator[httpcore2.NetworkStream]:
        """A connection that has become a WebSocket (RFC 6455): its bytes from then on, frames and all.

        Args:
            path: below the server.
            protocol: that is spoken in it.
            what: what is done, for errors.
            query: of the URL.

        Raises:
            BerthError: by meaning; whatever else breaks while the block runs is the caller's.
        """
        nonce = generate_nonce()
        headers = {
            "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": nonce.decode(), "Sec-WebSocket-Protocol": protocol,
        }  # fmt: skip
        with ExitStack() as held:
            try:
                answer = held.enter_context(self.client.stream("GET", path, params=query, headers=headers))
                refusal = b"" if answer.status_code == 101 else _capped(answer)  # Switching Protocols
            except httpx2.HTTPError as error:
                raise self._unreachable(error, what) from None
            if answer.status_code >= 400:
                raise error_of(answer.status_code, refusal, what, self.server)
            accepted = answer.headers.get("sec-websocket-accept", "").encode() == generate_accept_token(nonce)
            if "network_stream" not in answer.extensions or not accepted:
                raise RemoteUnavailable(
                    f"no WebSocket: {what}", where=self.server, why=f"the answer was {answer.status_code}",
                    next_step="does a proxy stand before the API server that lets no WebSocket through?",
                )  # fmt: skip
            stream: httpcore2.NetworkStream = answer.extensions["network_stream"]
            yield stream

    def _unreachable(self, error: httpx2.HTTPError, what: str) -> BerthError:
        text = shorten(printable(str(error)), 300)
        if "CERTIFICATE_VERIFY_FAILED" in text:
            return AuthError(
                f"the API server's certificate is not trusted: {what}", where=self.server, why=text,
                next_step="set certificate-authority of the cluster in the kubeconfig",
            )  # fmt: skip
        return RemoteUnavailable(
            f"the API server does not answer: {what}", where=self.server, why=text or type(error).__name__,
            next_step="kubectl cluster-info; is the VPN up, and the context the right one?",
        )  # fmt: skip


def _may_pass(error: httpx2.HTTPError) -> bool:
    return not isinstance(error, httpx2.UnsupportedProtocol | httpx2.InvalidURL) and "CERTIFICATE_VERIFY" not in str(
        error
    )


def _capped(answer: httpx2.Response) -> bytes:
    pieces: list[bytes] = []
    for piece in answer.iter_bytes():
        pieces.append(piece)
        if sum(map(len, pieces)) > _ERROR_BYTES:
            break
    return b"".join(pieces)[:_ERROR_BYTES]


def _tls(login: Login, identity: Identity) -> ssl.SSLContext | bool:
    if login.server.startswith("http://"):
        return True
    authorities = login.content(login.cluster, "certificate-authority")
    try:
        context = ssl.create_default_context(cadata=authorities.decode() if authorities else None)
    except (ssl.SSLError, ValueError):
        raise UsageError("certificate-authority holds no PEM certificate", where=f"context {login.context}") from None
    if login.cluster.get("insecure-skip-tls-verify"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _load_client_certificate(context, login, identity)
    return context


def _load_client_certificate(context: ssl.SSLContext, login: Login, identity: Identity) -> None:
    certificate = login.content(login.identity, "client-certificate")
    key = login.content(login.identity, "client-key")
    if certificate is None and login.identity.get("exec"):
        given = identity.credentials()
        certificate, key = given.certificate, given.key
    if certificate is None:
        return
    # Python's ssl takes files alone; the key is in one for a moment, in a folder that nobody else may enter.
    with tempfile.TemporaryDirectory(prefix="berth-") as folder:
        file = Path(folder) / "client.pem"
        file.touch(mode=0o600)
        file.write_bytes(certificate + b"\n" + (key or b""))
        try:
            context.load_cert_chain(file)
        except (ssl.SSLError, OSError):
            raise AuthError(
                "the client certificate cannot be used", where=f"context {login.context}",
                why="certificate and key do not belong together, or are no PEM",
                next_step="log in to the cluster again",
            ) from None  # fmt: skip
