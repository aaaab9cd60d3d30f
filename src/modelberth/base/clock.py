"""Time, as a thing that can be handed in: durations by the monotonic clock, dates by the wall clock."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], float]
"""Seconds from an arbitrary start, never going back."""

monotonic: Clock = time.monotonic


def utc_now() -> datetime:
    """The current date and time in UTC."""
    return datetime.now(UTC)


class Stopwatch:
    """Seconds since it was made."""

    def __init__(self, clock: Clock = monotonic) -> None:
        self._clock = clock
        self._start = clock()

    def seconds(self) -> float:
        """Elapsed seconds."""
        return self._clock() - self._start
