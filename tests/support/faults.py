"""Faults that the proxy of `fault_proxy` can put between a client and a server: when they strike and what they do.

A `Fault` matches requests and has an action. An action overrides the hooks that it needs; several may strike one
request, in the order in which they were added. The first that answers itself wins.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from threading import Condition


class Broken(Exception):
    """The connection to the client is closed here, on purpose."""


@dataclass
class Request:
    """A request as it came, and what has become of it so far; the proxy keeps writing here until it is over.

    Attributes:
        path: path and query, as on the wire.
        headers: names as they were sent.
        sent_bytes: bytes of the request body handed on to the server.
        status: of the answer: what the client was told, or what the server said where the client never heard of it;
            0 before, or when there was none.
        answer_bytes: bytes of the answer's body handed on to the client.
    """

    method: str
    path: str
    headers: dict[str, str]
    sent_bytes: int = 0
    status: int = 0
    answer_bytes: int = 0

    def header(self, name: str) -> str:
        """The value of a header, whatever its case; empty when it is not there."""
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), "")


class Gate:
    """Where stalled transfers wait until they are released or the proxy ends."""

    def __init__(self) -> None:
        self._condition = Condition()
        self._opened = self._stalled = 0
        self._closed = False

    def stall(self) -> None:
        """Wait here."""
        with self._condition:
            turn = self._opened
            self._stalled += 1
            self._condition.notify_all()
            self._condition.wait_for(lambda: self._closed or self._opened != turn)
            if self._closed:
                raise Broken

    def wait_stalled(self, count: int, patience: float) -> None:
        """Wait until `count` transfers stand still at one time."""
        with self._condition:
            if not self._condition.wait_for(lambda: self._stalled >= count, patience):
                raise AssertionError(f"{self._stalled} transfers are stalled, not {count}")

    def open(self) -> None:
        """Let all go on that wait now; what stalls later waits again."""
        with self._condition:
            self._opened += 1
            self._stalled = 0
            self._condition.notify_all()

    def close(self) -> None:
        """End all that wait, now and later."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()


@dataclass
class Head:
    """Status and headers of an answer, for an action to change."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    close: bool = False
    """Close the connection to the client after the body."""

    def get(self, name: str) -> str | None:
        """The value of a header; None when it is not there."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def put(self, name: str, value: str | None) -> None:
        """Set a header, or take it away."""
        self.headers = [(key, old) for key, old in self.headers if key.lower() != name.lower()]
        if value is not None:
            self.headers.append((name, value))


@dataclass(frozen=True)
class Action:
    """What a fault does; this one does nothing."""

    def before(self, request: Request) -> None:
        """Before anything is forwarded."""

    def forwarded_headers(self, request: Request, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The headers that the server gets."""
        return headers

    def sent(self, pieces: Iterator[bytes], gate: Gate) -> Iterator[bytes]:
        """The request body that the server gets."""
        return pieces

    def instead(self) -> Answer | None:
        """An answer without asking the server."""
        return None

    def head(self, head: Head) -> None:
        """Change status and headers of the server's answer."""

    def body(self, pieces: Iterator[bytes], gate: Gate) -> Iterator[bytes]:
        """The answer body that the client gets."""
        return pieces


@dataclass(frozen=True)
class FlipByte(Action):
    """Turn all bits of one byte of the answer's body over."""

    offset: int

    def body(self, pieces: Iterator[bytes], gate: Gate) -> Iterator[bytes]:
        return _flipped(pieces, self.offset)


@dataclass(frozen=True)
class FlipSentByte(Action):
    """Turn all bits of one byte of the request's body over."""

    offset: int

    def sent(self, pieces: Iterator[bytes], gate: Gate) -> Iterator[bytes]:
        return _flipped(pieces, self.offset)


@dataclass(frozen=True)
class Cut(Action):
    """Close the connection after `after` bytes of the answer's body; 0: after its headers."""

    after: int

    def body(self, pieces: Iterator[bytes], gate: Gate) -> Iterator[bytes]:
        return _with_event(pieces, self.after, _break)


@dataclass(frozen=True)
class CutSent(Action):
    """Close both connections after `after` bytes of the request's body were forwarded; 0: after its headers.

    With the length of the whole body, the server has got everything and the client no answer.
    """

    after: int

    def sent(self, pieces: Iterator[bytes], gate: Gate) -> Iterator[bytes]:
        return _with_event(pieces, self.after, _break)


@dataclass(frozen=True)
class LoseAnswer(Action):
    """Let the server answer, then close the connection: it is done, but the client does not know."""

    def head(self, head: Head) -> None:
        raise Broken


@dataclass(frozen=True)
class Stall(Action):
    """Send `after` bytes of the answer's body, then nothing until `proxy.release()`; 0: nothing after the headers."""

    after: int

    def body(self, pieces: Iterator[bytes], gate: Gate) -> Iterator[bytes]:
        return _with_event(pieces, self.after, gate.stall)


@dataclass(frozen=True)
class StallSent(Action):
    """Forward `after` bytes of the request's body, then read and forward nothing until `proxy.release()`."""

    after: int

    def sent(self, pieces: Iterator[bytes], gate: Gate) -> Iterator[bytes]:
        return _with_event(pieces, self.after, gate.stall)


@dataclass(frozen=True)
class Answer(Action):
    """Answer without asking the server; the request's body is read to its end and thrown away."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    body_bytes: bytes = b""

    def instead(self) -> Answer | None:
        return self


@dataclass(frozen=True)
class As200(Action):
    """Turn 206 into 200; the body stays that of the range."""

    keep_content_range: bool

    def head(self, head: Head) -> None:
        if head.status == 206:
            head.status, head.reason = 200, "OK"
            if not self.keep_content_range:
                head.put("Content-Range", None)


@dataclass(frozen=True)
class ContentRange(Action):
    """Say another Content-Range; None takes it away."""

    value: str | None

    def head(self, head: Head) -> None:
        head.put("Content-Range", self.value)


@dataclass(frozen=True)
class ContentLength(Action):
    """Say a Content-Length that is `delta` bytes off; the connection is closed after the real body."""

    delta: int

    def head(self, head: Head) -> None:
        length = head.get("Content-Length")
        if length is None:
            raise ValueError("the answer has no Content-Length to lie about")
        head.put("Content-Length", str(int(length) + self.delta))
        head.close = True


@dataclass(frozen=True)
class IgnoreRange(Action):
    """Forward without the Range header, so that the whole body comes with 200.

    Attributes:
        sign: makes the headers of a request signed anew from method, path and headers without Range, for servers
            that check a signature which covers Range (`servers.s3_signer`).
    """

    sign: Callable[[str, str, dict[str, str]], dict[str, str]] | None = None

    def forwarded_headers(self, request: Request, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        left = [(name, value) for name, value in headers if name.lower() != "range"]
        return list(self.sign(request.method, request.path, dict(left)).items()) if self.sign else left


@dataclass(frozen=True)
class Callback(Action):
    """Call a function with the request before anything of it is forwarded."""

    function: Callable[[Request], object]

    def before(self, request: Request) -> None:
        self.function(request)


@dataclass(frozen=True)
class Fault:
    """An action and the requests that it strikes.

    Attributes:
        method: of the request; empty for all.
        path: a regular expression to be found in path and query.
        range: one to be found in the value of the Range header; None for all requests, with or without one.
        after: so many matches pass untouched.
        times: so many matches are struck; None for all.
    """

    action: Action
    method: str = ""
    path: str = ""
    range: str | None = None
    after: int = 0
    times: int | None = None

    def matches(self, request: Request) -> bool:
        """Whether a request is one of those; it does not count."""
        value = request.header("Range")
        return (
            self.method in ("", request.method)
            and bool(re.search(self.path, request.path))
            and (self.range is None or bool(value and re.search(self.range, value)))
        )


def _break() -> None:
    raise Broken


def _with_event(pieces: Iterator[bytes], after: int, event: Callable[[], None]) -> Iterator[bytes]:
    """The same bytes; `event` happens as soon as the first `after` of them were handed on."""
    if after == 0:
        event()
    seen = 0
    for piece in pieces:
        until = after - seen
        seen += len(piece)
        if 0 < until <= len(piece):
            yield piece[:until]
            event()
            piece = piece[until:]
        if piece:
            yield piece


def _flipped(pieces: Iterator[bytes], offset: int) -> Iterator[bytes]:
    seen = 0
    for piece in pieces:
        at = offset - seen
        seen += len(piece)
        yield piece[:at] + bytes([piece[at] ^ 0xFF]) + piece[at + 1 :] if 0 <= at < len(piece) else piece
