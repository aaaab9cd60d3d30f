"""The pod's end of a port-forward: WebSocket frames (RFC 6455) to a real port, in the protocol v4.channel.k8s.io."""

from __future__ import annotations

import base64
import hashlib
import socket
import struct
from contextlib import suppress
from http.server import BaseHTTPRequestHandler
from threading import Lock, Thread

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BINARY, _CLOSE, _PING, _PONG = 2, 8, 9, 10


def handshake(request: BaseHTTPRequestHandler) -> None:
    """Answer the upgrade."""
    key = request.headers["Sec-WebSocket-Key"]
    accept = base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()
    request.send_response(101)
    request.send_header("Upgrade", "websocket")
    request.send_header("Connection", "Upgrade")
    request.send_header("Sec-WebSocket-Accept", accept)
    request.send_header("Sec-WebSocket-Protocol", "v4.channel.k8s.io")
    request.end_headers()
    request.wfile.flush()


class _Frames:
    """Frames over one connection."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._reader = connection.makefile("rb")
        self._lock = Lock()

    def send(self, payload: bytes, opcode: int = _BINARY) -> None:
        size = len(payload)
        head = bytes([0x80 | opcode])
        head += (
            bytes([size])
            if size < 126
            else struct.pack("!BH", 126, size)
            if size < 65536
            else struct.pack("!BQ", 127, size)
        )
        with self._lock:
            self._connection.sendall(head + payload)

    def receive(self) -> bytes | None:
        """The next binary message; None at the end. Clients do not fragment."""
        while True:
            head = self._reader.read(2)
            if len(head) < 2:
                return None
            opcode, size = head[0] & 15, head[1] & 127
            if size == 126:
                (size,) = struct.unpack("!H", self._reader.read(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", self._reader.read(8))
            mask = self._reader.read(4) if head[1] & 0x80 else bytes(4)
            payload = bytes(byte ^ mask[index % 4] for index, byte in enumerate(self._reader.read(size)))
            if opcode == _CLOSE:
                with suppress(OSError):
                    self.send(payload, _CLOSE)
                return None
            if opcode == _PING:
                self.send(payload, _PONG)
            elif opcode == _BINARY:
                return payload


def carry(connection: socket.socket, port: int, real_port: int | None) -> None:
    """Carry one forwarded connection; a port where nobody listens is told on the error channel."""
    frames = _Frames(connection)
    number = struct.pack("<H", port)
    with suppress(OSError):
        frames.send(b"\x00" + number)
        frames.send(b"\x01" + number)
        if real_port is None:
            text = f"failed to connect to localhost:{port} inside namespace: connection refused"
            frames.send(b"\x01" + text.encode())
            return
        with socket.create_connection(("127.0.0.1", real_port)) as target:
            back = Thread(target=_back, args=(frames, target), daemon=True)
            back.start()
            while (message := frames.receive()) is not None:
                if message[0] == 0 and message[1:]:
                    target.sendall(message[1:])
            with suppress(OSError):
                target.shutdown(socket.SHUT_RDWR)
            back.join()


def _back(frames: _Frames, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := target.recv(32768):
            frames.send(b"\x00" + chunk)
        frames.send(b"", _CLOSE)
