"""How far a download is, told from the last line of what fetches: `berth fetch` writes bytes, rate and time left.

KServe's own initializer writes file names alone; its lines are shown as they are and give no numbers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from modelberth.base.errors import UsageError
from modelberth.base.units import parse_bytes

_SIZE = r"[0-9]{1,6}(?:\.[0-9]{1,3})? ?[kKMGTP]?i?B"
_FORM = re.compile(rf"(?P<done>{_SIZE}) of (?P<total>{_SIZE}), (?P<rate>{_SIZE})/s\b")


@dataclass(frozen=True)
class Transfer:
    """A download under way; figures are as exact as the line that they come from.

    Attributes:
        done: bytes that have come.
        total: bytes that there are.
        rate: bytes a second.
    """

    done: int
    total: int
    rate: int

    @property
    def seconds_left(self) -> float | None:
        """At this rate; None while nothing moves."""
        return max(0, self.total - self.done) / self.rate if self.rate else None


def transfer_of(line: str) -> Transfer | None:
    """The figures of a line like `fetch: 12.00 GB of 47.14 GB, 410.00 MB/s, 86 s left`; None where it has none."""
    match = _FORM.search(line)
    if match is None:
        return None
    try:
        return Transfer(*(parse_bytes(match[name]) for name in ("done", "total", "rate")))
    except UsageError:
        return None
