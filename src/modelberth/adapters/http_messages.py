"""Requests and answers of HTTP as plain data, and what their headers mean: ranges, redirects, pauses.

Shared by the adapters that move weights; nothing here is sent or received.
"""

from __future__ import annotations

import http.client
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urljoin, urlsplit

from modelberth.base.errors import IntegrityError

_LONGEST_ASKED = 60.0
"""Seconds that a server may ask us to wait."""
Sink = Callable[[memoryview], None]
"""Takes the next bytes; they are overwritten when it returns."""


@dataclass(frozen=True)
class Request:
    """One request, signed. Its text form shows neither query nor headers: both may hold credentials.

    Attributes:
        method: of HTTP.
        url: with its query.
        headers: all but Content-Length.
        slow_seconds: beyond the time of a stall, so long the answer may take to begin: the other side has much to do.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict)
    slow_seconds: float = 0.0

    def __repr__(self) -> str:
        """Without credentials."""
        return f"Request({self.method} {shown_url(self.url)})"


@dataclass(frozen=True)
class Answer:
    """What came back: status, headers by lower-case name, and the body of an answer that was read whole.

    `url` is what answered at last, after redirects.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = b""
    url: str = ""

    @property
    def is_page(self) -> bool:
        """Whether this is a page for people, as proxies and consoles answer."""
        return "text/html" in self.headers.get("content-type", "").lower()


def shown_url(url: str) -> str:
    """A URL for messages: without user, password and query."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "an address that is none"
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def is_loopback(url: str) -> bool:
    """Whether an address is on this machine, so that nothing in between can change what is sent."""
    host = urlsplit(url).hostname or ""
    return host in {"localhost", "::1"} or host.startswith("127.")


def range_header(offset: int, length: int) -> str:
    """The Range header of so many bytes."""
    return f"bytes={offset}-{offset + length - 1}"


def is_range(answer: Answer, offset: int, length: int) -> bool:
    """Whether an answer is the range that was asked for.

    A right Content-Range counts whatever the status (rclone answers 200 with one); without one, only a 200 of
    exactly these bytes from the start.
    """
    answered = answer.headers.get("content-range", "")
    declared = answer.headers.get("content-length")
    if declared is not None and declared != str(length):
        return False
    if answered:
        return answer.status in {200, 206} and answered.startswith(f"bytes {offset}-{offset + length - 1}/")
    return answer.status == 200 and offset == 0 and declared == str(length)


def wrong_range(answer: Answer, offset: int, length: int, where: str) -> IntegrityError:
    """The error for an answer that is another range."""
    found = answer.headers.get("content-range") or f"status {answer.status}, no Content-Range"
    size = answer.headers.get("content-length", "no")
    return IntegrityError(
        "another range than asked came back", where=where,
        why=f"asked for bytes {offset}-{offset + length - 1}, got '{found}' with {size} bytes declared",
        next_step="check what answers there: a proxy that knows no ranges?",
    )  # fmt: skip


def redirected(request: Request, location: str) -> Request:
    """The request that a redirect leads to; who we are stays with the host that knows us."""
    try:
        url = urljoin(request.url, location)
        old, new = urlsplit(request.url), urlsplit(url)
        _ = new.port  # says whether it is one
    except ValueError:
        raise http.client.HTTPException("a redirect to what is no address") from None
    if new.scheme not in {"http", "https"} or (old.scheme == "https" and new.scheme != "https"):
        raise http.client.HTTPException("a redirect to where bytes are not protected")
    if (old.scheme, old.netloc) == (new.scheme, new.netloc):
        return Request(request.method, url, request.headers)
    kept = {name: value for name, value in request.headers.items() if name.lower() in {"range", "user-agent", "accept"}}
    return Request(request.method, url, kept)


def asked_pause(headers: Mapping[str, str]) -> float:
    """Seconds of a Retry-After header, a number or a date; at most a minute."""
    text = headers.get("retry-after", "").strip()
    if text.isdigit():
        return min(float(text), _LONGEST_ASKED)
    with suppress(ValueError, TypeError):
        return min(max((parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds(), 0.0), _LONGEST_ASKED)
    return 0.0
