"""One GPU's memory as a row of segments, for whoever draws it: a terminal or a page. Sizes are bytes.

    | weights | activation peak | non-torch | CUDA graphs | KV cache |  driver and NCCL | uncharged graphs | free |
    0                                                                budget                                    card

What is charged to the budget comes first, then what must fit beside it. Drawn are the expected figures; where they are
more than the budget or the card, the row goes past its edge.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from modelberth.sizing.ledger import Ledger
from modelberth.sizing.ranges import ZERO, Range, exact


@dataclass(frozen=True)
class Segment:
    """A part of the memory.

    Attributes:
        key: what it is, for programs: `weights`, `kvCache`, ...
        name: what it is, for people.
        size: its bytes; the mid is drawn.
        charged: whether the engine counts it against its budget.
    """

    key: str
    name: str
    size: Range
    charged: bool = True


@dataclass(frozen=True)
class MemoryBar:
    """The row.

    Attributes:
        segments: in the order they are drawn, none without a size.
        budget: bytes from the left edge to the budget's.
        card: bytes from the left edge to the card's.
    """

    segments: tuple[Segment, ...]
    budget: float
    card: float

    @property
    def end(self) -> float:
        """Bytes from the left edge to the right edge of the drawing: the card's, or where the row ends beyond it."""
        return max(self.card, math.fsum(segment.size.mid for segment in self.segments))

    @property
    def charged(self) -> float:
        """Bytes that are charged to the budget."""
        return math.fsum(segment.size.mid for segment in self.segments if segment.charged)

    @property
    def over_budget(self) -> float:
        """Bytes that the budget lacks; 0 when it suffices."""
        return max(0.0, self.charged - self.budget)

    @property
    def over_card(self) -> float:
        """Bytes that the card lacks; 0 when it suffices."""
        return max(0.0, self.end - self.card)

    def starts(self) -> Iterator[tuple[Segment, float]]:
        """Every segment with the bytes from the left edge to its own."""
        start = 0.0
        for segment in self.segments:
            yield segment, start
            start += segment.size.mid


def memory_bar(ledger: Ledger) -> MemoryBar:
    """The row of a ledger."""
    left = max(0.0, ledger.kv_cache.mid)
    cache = Range(max(0.0, ledger.kv_cache.low), left, max(0.0, ledger.kv_cache.high))
    taken = (
        Segment("weights", "weights", ledger.weights),
        Segment("activation", "activation peak", ledger.activation),
        Segment("nonTorch", "non-torch", ledger.non_torch),
        Segment("cudaGraphs", "CUDA graphs", ledger.cuda_graphs),
        Segment("kvCache", "KV cache", cache),
        Segment("outside", "driver and NCCL", ledger.outside, charged=False),
        Segment("uncharged", "uncharged CUDA graphs", uncharged_graphs(ledger), charged=False),
    )
    free = ledger.total.mid - math.fsum(segment.size.mid for segment in taken)
    segments = (*taken, Segment("free", "left to others", exact(max(0.0, free)), charged=False))
    return MemoryBar(
        tuple(segment for segment in segments if segment.size.mid > 0), ledger.budget.mid, ledger.total.mid
    )


def uncharged_graphs(ledger: Ledger) -> Range:
    """What CUDA graphs take beside the budget: all of it, or nothing where the release charges it."""
    return ZERO if ledger.cuda_graphs.mid else ledger.graph_memory
