"""Port-forward: a local port that leads to a port of a pod, each connection through a WebSocket of its own.

Protocol v4.channel.k8s.io over WebSocket (kubernetes/kubernetes, pkg/kubelet/portforward): binary messages, whose first
byte is the channel: 0 for data, 1 for errors of the other side. The first message of each channel is the port.

One thread carries one connection in both directions. TLS connections may not be read and written by two threads at
once, and nothing that outlives the command (a reader that waits for the other side) may keep it from ending.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from selectors import EVENT_READ, DefaultSelector
from threading import Lock, Thread
from typing import cast
from urllib.parse import quote

import httpcore2
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Message, Ping
from wsproto.utilities import ProtocolError

from modelberth.adapters.kubernetes_api.cluster import Cluster
from modelberth.base.errors import BerthError
from modelberth.base.text import printable, shorten

_PROTOCOL = "v4.channel.k8s.io"
_CHUNK = 32 * 1024
_DATA, _ERROR = 0, 1
_PORT_BYTES = 2
LOOPBACK = "127.0.0.1"
# A record of TLS may hold nothing for us (a session ticket): the read that it woke gives up after this time.
_READ_SECONDS = 0.05
_WRITE_SECONDS = 30.0
_CLOSE_SECONDS = 5.0
_FAILURES = (httpcore2.NetworkError, httpcore2.TimeoutException, ProtocolError, OSError)


class _Channels:
    """One WebSocket to a pod's port, told apart by channels."""

    def __init__(self, stream: httpcore2.NetworkStream) -> None:
        self._stream = stream
        self._frames = Connection(ConnectionType.CLIENT)
        self._channel: int | None = None  # of the message that has begun
        self._port_left: dict[int, int] = {}
        self.ended = False

    @property
    def socket(self) -> socket.socket:
        """What a selector waits for."""
        return cast(socket.socket, self._stream.get_extra_info("socket"))

    def is_pending(self) -> bool:
        """Whether bytes were decrypted that no selector sees."""
        tls = self._stream.get_extra_info("ssl_object")
        return bool(tls is not None and tls.pending())

    def send(self, content: bytes) -> None:
        self._write(self._frames.send(BytesMessage(bytes([_DATA]) + content)))

    def receive(self) -> Iterator[tuple[int, bytes]]:
        """What has come, by channel; sets `ended` at the end."""
        try:
            content = self._stream.read(_CHUNK, _READ_SECONDS)
        except httpcore2.ReadTimeout:
            return
        if not content:
            self.ended = True
            return
        self._frames.receive_data(content)
        for event in self._frames.events():
            if isinstance(event, Message):
                yield from self._piece(bytes(event.data, "utf-8") if isinstance(event.data, str) else event.data)
                if event.message_finished:
                    self._channel = None
            elif isinstance(event, Ping):
                self._write(self._frames.send(event.response()))
            elif isinstance(event, CloseConnection):
                self.ended = True

    def _piece(self, content: bytes | bytearray) -> Iterator[tuple[int, bytes]]:
        if self._channel is None and content:
            self._channel, content = content[0], content[1:]
        if self._channel is None:
            return
        left = self._port_left.setdefault(self._channel, _PORT_BYTES)
        self._port_left[self._channel] = max(0, left - len(content))
        if content[left:]:
            yield self._channel, bytes(content[left:])

    def close(self) -> None:
        """Say goodbye; nothing waits for an answer."""
        with contextlib.suppress(*_FAILURES):
            self._write(self._frames.send(CloseConnection(1000)))
        self._stream.close()

    def _write(self, content: bytes) -> None:
        self._stream.write(content, _WRITE_SECONDS)


class Forward:
    """A port on this machine that leads to a pod.

    Attributes:
        port: on 127.0.0.1.
        error: what the pod's side said last; empty when nothing. A port where nobody listens is told here.
    """

    def __init__(self, cluster: Cluster, namespace: str, pod: str, port: int) -> None:
        self._cluster = cluster
        self._path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}/portforward"
        self._target = port
        self._what = f"forward a port to {pod} in {namespace}"
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port = int(self._listener.getsockname()[1])
        self.error = ""
        self._lock = Lock()
        self._open = True
        self._carried: dict[socket.socket, Thread] = {}
        self._accepting = Thread(target=self._accept, name="port-forward", daemon=True)

    def probe(self) -> None:
        """Open and close one WebSocket, so that a refusal is told before anything is sent.

        Raises:
            BerthError: by meaning: not allowed, no such pod, the API server does not answer.
        """
        with self._channels():
            pass

    @contextmanager
    def _channels(self) -> Iterator[_Channels]:
        query = {"ports": str(self._target)}
        with self._cluster.wire.upgrade(self._path, _PROTOCOL, self._what, query=query) as stream:
            channels = _Channels(stream)
            try:
                yield channels
            finally:
                channels.close()

    def start(self) -> None:
        """Take connections until it is closed; each on a thread of its own."""
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            with self._lock:
                if not self._open:
                    connection.close()
                    return
                thread = Thread(target=self._carry, args=(connection,), name="port-forward", daemon=True)
                self._carried[connection] = thread
                thread.start()

    def _carry(self, connection: socket.socket) -> None:
        try:
            with self._channels() as channels:
                self._relay(channels, connection)
        except BerthError as error:
            self.error = error.why or error.what
        except _FAILURES as error:
            self.error = self.error or shorten(printable(str(error)), 200)
        finally:
            with self._lock:
                self._carried.pop(connection, None)
                connection.close()

    def _relay(self, channels: _Channels, connection: socket.socket) -> None:
        """Carry bytes both ways until one side closes."""
        with DefaultSelector() as selector:
            selector.register(connection, EVENT_READ)
            selector.register(channels.socket, EVENT_READ)
            # What came with the answer to the upgrade is held by the stream, where no selector sees it: read first.
            ready: set[object] = {channels.socket}
            while True:
                if channels.socket in ready and not self._deliver(channels, connection):
                    return
                if connection in ready:
                    content = connection.recv(_CHUNK)
                    if not content:
                        return
                    channels.send(content)
                ready = {key.fileobj for key, _ in selector.select(0 if channels.is_pending() else None)}
                if channels.is_pending():
                    ready.add(channels.socket)

    def _deliver(self, channels: _Channels, connection: socket.socket) -> bool:
        """Hand over what the pod sent; False when that was all."""
        for channel, content in channels.receive():
            if channel == _ERROR:
                self.error = shorten(printable(content.decode(errors="replace")), 300)
                return False
            if channel == _DATA:
                connection.sendall(content)
        return not channels.ended

    def close(self) -> None:
        """Take no more connections, and end those that there are."""
        with self._lock:
            self._open = False
            # close() alone wakes neither accept() nor a selector.
            for each in (self._listener, *self._carried):
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
            threads = [self._accepting, *self._carried.values()]
        self._listener.close()
        for thread in threads:
            if thread.is_alive():
                thread.join(_CLOSE_SECONDS)


@contextmanager
def forward(cluster: Cluster, namespace: str, pod: str, port: int) -> Iterator[Forward]:
    """A local port that leads to a pod's, while the block runs.

    Raises:
        AuthError, PrerequisiteMissing, RemoteUnavailable, UsageError: it cannot be had.
    """
    tunnel = Forward(cluster, namespace, pod, port)
    try:
        tunnel.probe()
        tunnel.start()
        yield tunnel
    finally:
        tunnel.close()
