"""A way to a server that goes dead: connections stay open and carry nothing more, as behind a dropped route."""

from __future__ import annotations

import socket
from contextlib import suppress
from threading import Event, Lock, Thread


class HalfOpen:
    """A port of 127.0.0.1 that leads to another.

    Attributes:
        port: of it.
    """

    def __init__(self, port: int) -> None:
        self._target, self._lock = port, Lock()
        self._dead = Event()  # of the connections that there are now
        self._open: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._accepting = Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def freeze(self) -> None:
        """From now on the connections that there are carry nothing more; new ones do."""
        with self._lock:
            self._dead.set()
            self._dead = Event()

    def close(self) -> None:
        """Close all of it."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for each in self._open:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self._listener.accept()
            except OSError:
                return
            there = socket.create_connection(("127.0.0.1", self._target))
            with self._lock:
                self._open += [here, there]
                dead = self._dead
            for one, other in ((here, there), (there, here)):
                Thread(target=self._pour, args=(one, other, dead), daemon=True).start()

    def _pour(self, one: socket.socket, other: socket.socket, dead: Event) -> None:
        with suppress(OSError):
            while content := one.recv(65536):
                if not dead.is_set():
                    other.sendall(content)
        if not dead.is_set():
            with suppress(OSError):
                other.shutdown(socket.SHUT_WR)
