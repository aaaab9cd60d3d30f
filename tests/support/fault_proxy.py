"""A reverse proxy on the loopback address that hands requests and answers on byte for byte, but for its faults.

Everything is streamed: a body is never held as a whole. What a client signed (method, path, headers, Host among
them) reaches the server as it is, so signatures stay right. Every request has a connection of its own to the
server; the client's connection is kept open.

    with FaultProxy(server_url) as proxy:
        proxy.add(Fault(Cut(1000), method="GET", path="/weights", times=1))
        ...  # talk to proxy.url
        assert [each.status for each in proxy.requests] == [200, 206]
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections.abc import Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from faults import (
    Action,
    Answer,
    As200,
    Broken,
    Callback,
    ContentLength,
    ContentRange,
    Cut,
    CutSent,
    Fault,
    FlipByte,
    FlipSentByte,
    Gate,
    Head,
    IgnoreRange,
    LoseAnswer,
    Request,
    Stall,
    StallSent,
)

__all__ = [
    "Action", "Answer", "As200", "Callback", "ContentLength", "ContentRange", "Cut", "CutSent", "Fault", "FaultProxy",
    "FlipByte", "FlipSentByte", "IgnoreRange", "LoseAnswer", "Request", "Rule", "Stall", "StallSent",
]  # fmt: skip

PATIENCE = 50.0
"""Seconds after which something is broken."""
PIECE = 1 << 16
_OF_THE_CONNECTION = ("connection", "keep-alive")
_GONE = (OSError, http.client.HTTPException, Broken)


class Rule:
    """A fault that was added: how often it matched and struck."""

    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.matched = self.struck = 0

    def strikes(self, request: Request) -> bool:
        """Count a request, and say whether the fault strikes it; called under the proxy's lock."""
        if not self.fault.matches(request):
            return False
        self.matched += 1
        if self.matched <= self.fault.after or (self.fault.times is not None and self.struck >= self.fault.times):
            return False
        self.struck += 1
        return True


class FaultProxy:
    """The proxy in front of one server, running until `close`.

    Attributes:
        url: its address.
        errors: what went wrong inside the proxy itself; `close` complains about them.
    """

    def __init__(self, upstream: str) -> None:
        self.host, _, port = upstream.removeprefix("http://").rstrip("/").rpartition(":")
        self.port = int(port)
        self.gate = Gate()
        self.errors: list[Exception] = []
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._requests: list[Request] = []
        self._sockets: set[socket.socket] = set()
        self._closed = False
        self._server = _Server(self)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="fault proxy")
        self._thread.start()

    def __enter__(self) -> FaultProxy:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @property
    def requests(self) -> list[Request]:
        """Every request so far, in the order in which they came; those under way are still being written to."""
        with self._lock:
            return list(self._requests)

    def add(self, fault: Fault) -> Rule:
        """Let a fault strike from now on."""
        rule = Rule(fault)
        with self._lock:
            self._rules.append(rule)
        return rule

    def clear(self) -> None:
        """Take all faults away; requests under way keep theirs."""
        with self._lock:
            self._rules.clear()

    def wait_stalled(self, count: int = 1) -> None:
        """Wait until so many transfers stand still at one time."""
        self.gate.wait_stalled(count, PATIENCE)

    def release(self) -> None:
        """Let the transfers go on that are stalled now."""
        self.gate.open()

    def close(self) -> None:
        """End all connections and threads."""
        if self._closed:
            return
        self._server.shutdown()
        self._thread.join()
        with self._lock:
            self._closed = True
            for each in self._sockets:
                _shut(each)
        self.gate.close()
        self._server.server_close()  # waits for the threads of the connections
        if self.errors:
            raise AssertionError(f"the fault proxy itself failed: {self.errors}")

    def begin(self, request: Request) -> list[Action]:
        """Record a request; what strikes it."""
        with self._lock:
            self._requests.append(request)
            return [rule.fault.action for rule in self._rules if rule.strikes(request)]

    @contextlib.contextmanager
    def open(self, connection: socket.socket) -> Iterator[None]:
        """A connection that `close` may break."""
        with self._lock:
            self._sockets.add(connection)
            if self._closed:
                _shut(connection)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(connection)


def _shut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


class _Server(ThreadingHTTPServer):
    daemon_threads = False  # so that closing waits for them
    request_queue_size = 128

    def __init__(self, proxy: FaultProxy) -> None:
        self.proxy = proxy
        super().__init__(("127.0.0.1", 0), _Handler)

    def finish_request(self, request: Any, client_address: Any) -> None:
        with self.proxy.open(request):
            super().finish_request(request, client_address)

    def handle_error(self, _request: object, _client_address: object) -> None:
        return  # a client went away; errors of our own are kept in `forward`


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_arguments: object) -> None:
        return

    def forward(self) -> None:
        path = self.raw_requestline.split()[1].decode("latin-1")  # self.path has leading slashes folded
        request = Request(self.command, path, dict(self.headers.items()))
        try:
            actions = self.server.proxy.begin(request)
            for action in actions:
                action.before(request)
            exchange = _Exchange(self, request, actions)
            answer = next(filter(None, (action.instead() for action in actions)), None)
            if answer:
                exchange.answer(answer)
            else:
                exchange.pass_on()
        except _GONE:
            self.close_connection = True
        except Exception as error:  # noqa: BLE001 - a test's callback or a fault of ours: `close` complains
            self.close_connection = True
            self.server.proxy.errors.append(error)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_PATCH = do_OPTIONS = forward  # noqa: N815


class _Exchange:
    """One request and its answer."""

    def __init__(self, client: _Handler, request: Request, actions: list[Action]) -> None:
        self._client, self._request, self._actions = client, request, actions
        self._proxy = client.server.proxy
        self._chunked = "chunked" in (client.headers.get("Transfer-Encoding") or "").lower()

    def answer(self, answer: Answer) -> None:
        """Answer without the server."""
        for _piece in self._request_body():
            continue
        head = Head(answer.status, http.client.responses.get(answer.status, ""), list(answer.headers.items()))
        if head.get("Content-Length") is None:
            head.put("Content-Length", str(len(answer.body_bytes)))
        self._say(head)
        if self._request.method != "HEAD":
            self._write(iter([answer.body_bytes]), chunked=False)

    def pass_on(self) -> None:
        """Forward the request, then the answer."""
        connection = http.client.HTTPConnection(self._proxy.host, self._proxy.port, timeout=PATIENCE)
        with contextlib.closing(connection):
            connection.connect()
            with self._proxy.open(connection.sock):
                self._send(connection)
                answer = connection.getresponse()
                with contextlib.closing(answer):
                    self._pass_back(answer)

    def _send(self, connection: http.client.HTTPConnection) -> None:
        request = self._request
        connection.putrequest(request.method, request.path, skip_host=True, skip_accept_encoding=True)
        headers = list(self._client.headers.items())
        for action in self._actions:
            headers = action.forwarded_headers(request, headers)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        pieces = self._request_body()
        for action in self._actions:
            pieces = action.sent(pieces, self._proxy.gate)
        for piece in pieces:
            request.sent_bytes += len(piece)
            try:
                connection.send(b"%x\r\n%b\r\n" % (len(piece), piece) if self._chunked else piece)
            except OSError:  # the server has answered early and reads no more: the client may still want the answer
                for _rest in pieces:
                    continue
                return
        if self._chunked:
            connection.send(b"0\r\n\r\n")

    def _request_body(self) -> Iterator[bytes]:
        """The client's bytes as they come, without the frames of chunks."""
        read = self._client.rfile
        if not self._chunked:
            yield from self._take(int(self._client.headers.get("Content-Length") or 0))
            return
        while size := int(read.readline().split(b";")[0], 16):
            yield from self._take(size)
            read.readline()
        while read.readline().strip():  # trailers
            continue

    def _take(self, left: int) -> Iterator[bytes]:
        while left:
            piece = self._client.rfile.read1(min(left, PIECE))
            if not piece:
                raise Broken  # the client went away
            left -= len(piece)
            yield piece

    def _pass_back(self, answer: http.client.HTTPResponse) -> None:
        has_body = self._request.method != "HEAD" and answer.status not in (204, 304)
        self._request.status = answer.status  # what the server did, also where the client never hears of it
        chunked = bool(answer.chunked)
        length = answer.length if has_body and not chunked else None
        kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _OF_THE_CONNECTION]
        head = Head(answer.status, answer.reason, kept, close=has_body and not chunked and length is None)
        for action in self._actions:
            action.head(head)
        self._say(head)
        pieces = _pieces(answer, length) if has_body else iter(())
        for action in self._actions:
            pieces = action.body(pieces, self._proxy.gate)
        self._write(pieces, chunked)

    def _say(self, head: Head) -> None:
        client = self._client
        self._request.status = head.status
        client.send_response_only(head.status, head.reason)
        for name, value in head.headers:
            client.send_header(name, value)
        if head.close:
            client.send_header("Connection", "close")  # and closes it after the answer
        client.end_headers()

    def _write(self, pieces: Iterable[bytes], chunked: bool) -> None:
        for piece in pieces:
            self._request.answer_bytes += len(piece)
            self._client.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
        if chunked:
            self._client.wfile.write(b"0\r\n\r\n")


def _pieces(answer: http.client.HTTPResponse, length: int | None) -> Iterator[bytes]:
    """The server's bytes as they come, without the frames of chunks."""
    seen = 0
    while piece := answer.read1(PIECE):
        seen += len(piece)
        yield piece
    if length is not None and seen != length:
        raise Broken  # the server broke off
