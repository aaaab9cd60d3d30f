"""Port-forward: a local port that leads to a port of a pod, each connection through a WebSocket of its own.

Protocol v4.channel.k8s.io over WebSocket (kubernetes/kubernetes, pkg/kubelet/portforward): binary messages, whose first
byte is the channel: 0 for data, 1 for errors of the other side. The first message of each channel is the port.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from typing import Any
from urllib.parse import quote

import httpx2
from httpx2.websockets import HTTPXWSException, WebSocketUpgradeError
from wsproto.utilities import ProtocolError

from modelberth.adapters.kubernetes_api.cluster import Cluster
from modelberth.adapters.kubernetes_api.errors import error_of
from modelberth.base.errors import BerthError, RemoteUnavailable
from modelberth.base.text import printable, shorten

_PROTOCOL = "v4.channel.k8s.io"
_CHUNK = 32 * 1024
_DATA, _ERROR = 0, 1
LOOPBACK = "127.0.0.1"
_FAILURES = (httpx2.HTTPError, HTTPXWSException, ProtocolError)


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
        self._open = True

    def probe(self) -> None:
        """Open and close one WebSocket, so that a refusal is told before anything is sent.

        Raises:
            BerthError: by meaning: not allowed, no such pod, the API server does not answer.
        """
        with self._session():
            pass

    @contextmanager
    def _session(self) -> Iterator[Any]:
        address = self._cluster.wire.client.base_url.copy_with(path=self._path)
        scheme = "wss" if address.scheme == "https" else "ws"
        url = address.copy_with(scheme=scheme, params={"ports": str(self._target)})
        try:
            with self._cluster.wire.client.websocket(str(url), subprotocols=[_PROTOCOL]) as session:
                yield session
        except _FAILURES as error:
            raise self._refused(error) from None

    def _refused(self, error: Exception) -> BerthError:
        """Why there is no WebSocket. The refusal's own body cannot be read any more: it is asked for again, plainly."""
        if isinstance(error, WebSocketUpgradeError):
            query = {"ports": str(self._target)}
            plain = self._cluster.wire.answer("GET", self._path, self._what, query=query, again=False)
            if plain.status_code >= 400 and b"Upgrade" not in plain.content[:1000]:
                return error_of(plain.status_code, plain.content[:4096], self._what, self._cluster.server)
        return RemoteUnavailable(f"no connection: {self._what}", where=self._cluster.server,
                                 why=shorten(printable(str(error)), 200))  # fmt: skip

    def serve(self) -> None:
        """Take connections until it is closed; each on a thread of its own."""
        while self._open:
            try:
                connection, _ = self._listener.accept()
            except OSError:  # closed
                return
            Thread(target=self._carry, args=(connection,), daemon=True).start()

    def _carry(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            try:
                with self._session() as session:
                    back = Thread(target=self._back, args=(session, connection), daemon=True)
                    back.start()
                    if not self._send(session, connection):
                        back.join(timeout=5.0)  # the other side has closed: what it said is read to the end first
            except BerthError as error:
                self.error = error.why or error.what
            except _FAILURES as error:
                self.error = self.error or shorten(printable(str(error)), 200)

    def _send(self, session: Any, connection: socket.socket) -> bool:
        """Send what the client does, until it closes; False when the other side has closed before."""
        try:
            while chunk := connection.recv(_CHUNK):
                session.send_bytes(bytes([_DATA]) + chunk)
        except (*_FAILURES, OSError):
            return False
        return True

    def _back(self, session: Any, connection: socket.socket) -> None:
        """What the pod sends. The first message of each channel is the port, two bytes, and no data."""
        begun: set[int] = set()
        with contextlib.suppress(*_FAILURES, OSError):
            while message := session.receive_bytes(timeout=None):
                channel, content = message[0], message[1:]
                if channel not in begun:
                    begun.add(channel)
                    content = content[2:]
                if channel == _ERROR and content:
                    self.error = shorten(printable(content.decode(errors="replace")), 300)
                    break
                if channel == _DATA and content:
                    connection.sendall(content)
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Take no more connections."""
        self._open = False
        # close() alone does not wake accept().
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()


@contextmanager
def forward(cluster: Cluster, namespace: str, pod: str, port: int) -> Iterator[Forward]:
    """A local port that leads to a pod's, while the block runs.

    Raises:
        AuthError, PrerequisiteMissing, RemoteUnavailable, UsageError: it cannot be had.
    """
    tunnel = Forward(cluster, namespace, pod, port)
    try:
        tunnel.probe()
        Thread(target=tunnel.serve, name="port-forward", daemon=True).start()
        yield tunnel
    finally:
        tunnel.close()
