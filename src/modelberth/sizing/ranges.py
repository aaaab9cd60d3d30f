"""Figures with their uncertainty: low, mid and high, in bytes or in counts, never in GB or GiB.

Sums add the mids. The distances from the mids are independent of each other, so they add as the root of the sum of
their squares; the ranges then hold about what each of them holds, where a plain sum would be far too wide.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """low <= mid <= high.

    Raises:
        ValueError: they are not in order, or not finite.
    """

    low: float
    mid: float
    high: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low <= self.mid <= self.high):
            raise ValueError(f"not a range: {self.low}, {self.mid}, {self.high}")

    def scaled(self, factor: float) -> Range:
        """All three times a factor that is not negative."""
        return Range(self.low * factor, self.mid * factor, self.high * factor)

    def shifted(self, distance: float) -> Range:
        """All three moved by the same distance."""
        return Range(self.low + distance, self.mid + distance, self.high + distance)

    def mapped(self, function: Callable[[float], float]) -> Range:
        """A function that never falls, of all three."""
        return Range(function(self.low), function(self.mid), function(self.high))

    @property
    def is_exact(self) -> bool:
        """Whether nothing is uncertain."""
        return self.low == self.high


ZERO = Range(0.0, 0.0, 0.0)


def exact(value: float) -> Range:
    """A figure without uncertainty."""
    return Range(value, value, value)


def spread(mid: float, below: float, above: float) -> Range:
    """A figure with its distances: `mid - below` to `mid + above`."""
    return Range(mid - max(below, 0.0), mid, mid + max(above, 0.0))


def total(terms: Iterable[Range]) -> Range:
    """The sum of independent figures."""
    items = tuple(terms)
    mid = math.fsum(item.mid for item in items)
    below = math.sqrt(math.fsum((item.mid - item.low) ** 2 for item in items))
    above = math.sqrt(math.fsum((item.high - item.mid) ** 2 for item in items))
    return spread(mid, below, above)


def difference(whole: Range, parts: Iterable[Range]) -> Range:
    """What is left of a figure after independent others are taken off."""
    return total((whole, *(Range(-part.high, -part.mid, -part.low) for part in parts)))
