"""HTTP for large bodies: one buffer a thread, filled and handed on, watched for stalls, tried again with patience.

What HTTP libraries do well (sessions, decoding, following) is not what moving 48 GB needs: bodies here are never
decoded, never held, never read in pieces of 8 KB; a connection that trickles is given up; a request is signed anew
for every attempt; and credentials never follow a redirect to another host. Shared by the adapters that move weights.
"""

from __future__ import annotations

import http.client
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from modelberth.adapters.http_messages import (
    Answer,
    Request,
    Sink,
    asked_pause,
    is_loopback,
    redirected,
)
from modelberth.base.errors import BerthError, NotReady, RemoteUnavailable, UsageError

BUFFER_BYTES = 128 << 10
"""Of each thread. It stays in the processor's second cache between receiving, hashing and writing."""
_HEAD_BYTES = 256 << 10
"""Most bytes of an answer that is read whole: errors, small documents."""
_TRICKLE_BYTES = 64 << 10
"""Bytes that must come within the time of a stall, or the connection counts as stalled."""
_ATTEMPTS = 5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0
_REDIRECTS = {301, 302, 303, 307, 308}
_MOST_REDIRECTS = 3
TRY_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})


class Stalled(Exception):
    """Nothing, or next to nothing, came for the whole time of a stall."""


class CutOff(Exception):
    """The connection ended before the body did."""


TRANSIENT = (Stalled, CutOff, http.client.HTTPException, OSError)


class Wire:
    """Connections to the hosts of one store, one a thread and host.

    Args:
        verify: True for the system's authorities, a file of certificates, or False for none.
        stall_seconds: without a byte, or with next to none, for so long a connection is given up.
        attempts: how often a request is made before its last failure counts.
    """

    def __init__(self, *, verify: bool | str = True, stall_seconds: float = 30.0, attempts: int = _ATTEMPTS) -> None:
        self.stall_seconds = stall_seconds
        self._verify = verify
        self._attempts = attempts
        self._local = threading.local()
        self._lock = threading.Lock()
        self._open: dict[http.client.HTTPConnection, threading.Thread] = {}
        self._closed = threading.Event()
        self._context: ssl.SSLContext | None = None

    def close(self) -> None:
        """Give up every connection; what other threads do with them ends with `Cancelled`.

        Who waits in recv or send is woken, and closes by itself: a socket that is closed under another thread wakes
        nobody, and its number may be the next file's while that thread still reads from it.
        """
        with self._lock:
            self._closed.set()
            for connection, thread in list(self._open.items()):
                if thread is threading.current_thread() or not thread.is_alive():
                    connection.close()
                    del self._open[connection]
                elif connection.sock is not None:
                    with suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RDWR)

    @property
    def buffer(self) -> memoryview:
        """The buffer of this thread."""
        if not hasattr(self._local, "buffer"):
            self._local.buffer = memoryview(bytearray(BUFFER_BYTES))
        buffer: memoryview = self._local.buffer
        return buffer

    # --- requests ----------------------------------------------------------------------------------------

    def ask(self, request: Request, body: bytes | Iterable[memoryview] = b"", length: int | None = None) -> Answer:
        """Make one request and read its answer whole.

        Args:
            request: with all headers but Content-Length.
            body: what is sent; an iterable of pieces with `length`.
            length: bytes of all pieces.

        Raises:
            Stalled, CutOff, OSError, http.client.HTTPException: the attempt failed; `patiently` knows them.
        """
        with self._answered(request, body, length) as response:
            content = response.read(_HEAD_BYTES) if request.method != "HEAD" else b""
            return _answer(request, response, content)

    def get(self, request: Request, accept: Callable[[Answer], bool], sink: Sink) -> Answer:
        """Make one GET; where `accept` says yes to status and headers the body goes into `sink`.

        Redirects are followed, and the Authorization header goes to no other host. Where `accept` says no, the
        body is read into the answer, as for `ask`.

        Raises:
            Stalled, CutOff, OSError, http.client.HTTPException: the attempt failed midway; the sink may have had some.
        """
        for _ in range(_MOST_REDIRECTS + 1):
            with self._answered(request, b"", None) as response:
                if response.status in _REDIRECTS and response.getheader("Location"):
                    request = redirected(request, response.getheader("Location", ""))
                    continue
                answer = _answer(request, response, b"")
                if not accept(answer):
                    return _answer(request, response, response.read(_HEAD_BYTES))
                self._pour(response, sink)
                return answer
        raise http.client.HTTPException("more redirects than are followed")

    @contextmanager
    def _answered(
        self, request: Request, body: bytes | Iterable[memoryview], length: int | None
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer to a request; the connection is kept only when the answer was read to its end."""
        parts = urlsplit(request.url)
        key = (parts.scheme, parts.netloc)
        connection, keep = None, False
        try:
            connection = self._connection(key)
            response = self._exchange(connection, request, body, length)
            with response:
                yield response
                keep = response.isclosed() and not response.will_close
        except TimeoutError as error:
            raise Stalled from error
        finally:
            if connection is not None and not keep:
                self._drop(key, connection)

    def _exchange(
        self, connection: http.client.HTTPConnection, request: Request, body: bytes | Iterable[memoryview],
        length: int | None,
    ) -> http.client.HTTPResponse:  # fmt: skip
        size = len(body) if isinstance(body, bytes) else (length or 0)
        connection.putrequest(
            request.method, _target(request.url, connection), skip_host="Host" in request.headers,
            skip_accept_encoding=True,
        )  # fmt: skip
        for name, value in request.headers.items():
            connection.putheader(name, value)
        # Bytes as they are: a range of a compressed answer is no range of the file.
        connection.putheader("Accept-Encoding", "identity")
        if size or request.method in {"PUT", "POST", "PATCH"}:
            connection.putheader("Content-Length", str(size))
        connection.endheaders()
        try:
            for piece in (body,) if isinstance(body, bytes) else body:
                if piece:
                    connection.send(piece)
        except ConnectionError:
            # A server that refuses a body answers before it has come; that answer says why.
            return _early_answer(connection)
        return self._response(connection, request)

    def _response(self, connection: http.client.HTTPConnection, request: Request) -> http.client.HTTPResponse:
        """The head of the answer; the whole time that it may take, not more, is waited for it."""
        if request.slow_seconds and connection.sock is not None:
            connection.sock.settimeout(self.stall_seconds + request.slow_seconds)
        sock = connection.sock
        response = connection.getresponse()
        if request.slow_seconds and sock is not None:
            with suppress(OSError):  # closed, where the answer was the last one
                sock.settimeout(self.stall_seconds)
        return response

    def _pour(self, response: http.client.HTTPResponse, sink: Sink) -> None:
        """The body into the sink, a buffer at a time."""
        buffer = self.buffer
        remaining = response.length
        deadline, moved = time.monotonic() + self.stall_seconds, 0
        filled = 0
        while remaining is None or remaining > 0:
            room = buffer[filled:] if remaining is None else buffer[filled : min(BUFFER_BYTES, filled + remaining)]
            count = _read_some(response, room)
            if count == 0:
                break
            filled += count
            moved += count
            remaining = None if remaining is None else remaining - count
            if filled == BUFFER_BYTES:
                sink(buffer)
                filled = 0
            now = time.monotonic()
            if now > deadline:
                if moved < _TRICKLE_BYTES:
                    raise Stalled
                deadline, moved = now + self.stall_seconds, 0
        if filled:
            sink(buffer[:filled])
        if remaining:
            raise CutOff(f"{remaining:,} bytes are missing")
        response.close()

    # --- connections -------------------------------------------------------------------------------------

    def _connection(self, key: tuple[str, str]) -> http.client.HTTPConnection:
        """This thread's connection to a host, connected; one that `close` does not know of is never used."""
        if self._closed.is_set():
            raise Cancelled
        known: dict[tuple[str, str], http.client.HTTPConnection] = self._local.__dict__.setdefault("known", {})
        connection = known.get(key)
        if connection is None:
            connection = self._new_connection(*key)
            with ExitStack() as failed:
                failed.callback(connection.close)
                connection.connect()
                connection.auto_open = 0
                with self._lock:
                    if self._closed.is_set():
                        raise Cancelled
                    self._open[connection] = threading.current_thread()
                failed.pop_all()
            known[key] = connection
        return connection

    def _drop(self, key: tuple[str, str], connection: http.client.HTTPConnection) -> None:
        with self._lock:
            self._open.pop(connection, None)
        self._local.__dict__.get("known", {}).pop(key, None)
        connection.close()

    def _new_connection(self, scheme: str, netloc: str) -> http.client.HTTPConnection:
        netloc = netloc.rpartition("@")[2]
        proxy = _proxy_for(scheme, netloc)
        target = proxy or netloc
        if scheme != "https":
            connection = http.client.HTTPConnection(target, timeout=self.stall_seconds)
            connection.through_proxy = bool(proxy)  # type: ignore[attr-defined]
            return connection
        tls = http.client.HTTPSConnection(target, timeout=self.stall_seconds, context=self._tls())
        if proxy:
            tls.set_tunnel(netloc)
        return tls

    def _tls(self) -> ssl.SSLContext:
        with self._lock:
            if self._context is None:
                self._context = tls_context(self._verify)
            return self._context

    # --- patience ----------------------------------------------------------------------------------------

    def patiently(
        self, attempt: Callable[[], Answer], *, where: str, what: str, moved: Callable[[], int] = lambda: 0
    ) -> Answer:
        """Make an attempt until its answer is one that trying again would not change.

        Pauses double from a quarter of a second, each drawn at random from its upper half; Retry-After is obeyed up
        to a minute.

        Args:
            attempt: makes a request of its own each time.
            where: the place, for messages.
            what: who does not answer: `the S3 store`.
            moved: bytes that have come so far; where an attempt brings some, what failed before it does not count.

        Returns:
            An answer with any status; after the last attempt also one of `TRY_AGAIN`.

        Raises:
            RemoteUnavailable: no answer at all after the last attempt, or a certificate that is not trusted.
            NotReady: the connection stalled each time.
            Cancelled: the wire was closed.
        """
        number = 0
        while True:
            number, before, pause = number + 1, moved(), self._pause(number + 1)
            try:
                answer = attempt()
                if answer.status not in TRY_AGAIN or number == self._attempts:
                    return answer
                pause = max(pause, asked_pause(answer.headers))
            except ssl.SSLCertVerificationError as error:
                raise _untrusted(where, error) from None
            except (*TRANSIENT, AttributeError, ValueError) as error:
                if self._closed.is_set():
                    raise Cancelled from None  # http.client's objects break in their own ways when they are closed
                if not isinstance(error, TRANSIENT):
                    raise
                if moved() - before >= _TRICKLE_BYTES:
                    number = 0
                if number == self._attempts:
                    raise self._given_up(error, where, what) from None
            if self._closed.wait(pause):
                raise Cancelled

    @staticmethod
    def _pause(number: int) -> float:
        full = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (number - 1))
        return random.uniform(full / 2, full)  # noqa: S311 - jitter, no secret

    def _given_up(self, error: Exception, where: str, what: str) -> BerthError:
        if isinstance(error, Stalled):
            return NotReady(
                f"{what} stopped sending or taking bytes", where=where,
                why=f"nothing moved for {self.stall_seconds:g} s, {self._attempts} times",
                next_step="run the same command again: what has arrived stays; --stall-timeout sets the patience",
            )  # fmt: skip
        # The text of other errors may quote an address, and with it a password that stands there.
        why = "the connection broke off each time" if isinstance(error, CutOff) else type(error).__name__
        return RemoteUnavailable(f"{what} does not answer", where=where, why=why, next_step="check address and network")


class Cancelled(BaseException):
    """The wire was closed under this thread: another one failed, or the user stopped us. Never shown."""


# --- pieces of it ----------------------------------------------------------------------------------------


def tls_context(verify: bool | str) -> ssl.SSLContext:
    """A context for TLS.

    Raises:
        UsageError: the file of certificates cannot be read, or holds none.
    """
    if verify is False:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context
    try:
        return ssl.create_default_context(cafile=verify if isinstance(verify, str) else None)
    except (OSError, ssl.SSLError):
        raise UsageError(
            "the certificates cannot be read", where=str(verify), why="expected a file of PEM certificates",
            next_step="correct --ca or --ca-bundle, or the variable that names it",
        ) from None  # fmt: skip


def _read_some(response: http.client.HTTPResponse, room: memoryview) -> int:
    """One read of what is there, straight into the buffer; chunked bodies go the library's way."""
    if response.chunked:
        return response.readinto(room)
    return response.fp.readinto1(room)


def _answer(request: Request, response: http.client.HTTPResponse, body: bytes) -> Answer:
    headers: dict[str, str] = {}
    for name, value in response.getheaders():
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value  # two challenges, for example
    return Answer(response.status, headers, body, request.url)


def _early_answer(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
    try:
        return connection.getresponse()
    except (http.client.HTTPException, OSError):
        raise CutOff("it closed the connection while it was sent something") from None


def _target(url: str, connection: http.client.HTTPConnection) -> str:
    """What stands in the request line: a path, or the whole address for a proxy."""
    parts = urlsplit(url)
    if getattr(connection, "through_proxy", False):
        return url
    path = parts.path or "/"
    return f"{path}?{parts.query}" if parts.query else path


def _proxy_for(scheme: str, netloc: str) -> str:
    """Host and port of the environment's proxy; a proxy never sees requests to this machine."""
    if is_loopback(f"{scheme}://{netloc}") or proxy_bypass(netloc):
        return ""
    return urlsplit(getproxies().get(scheme, "")).netloc.rpartition("@")[2]


def _untrusted(where: str, error: ssl.SSLCertVerificationError) -> RemoteUnavailable:
    return RemoteUnavailable(
        "the certificate of the other side is not trusted", where=where, why=error.verify_message,
        next_step="give its authority: --ca-bundle FILE",
    )  # fmt: skip
