"""`berth size --explain`: the memory of one GPU drawn across the terminal, and how each figure comes about.

Plain characters: every segment has one of its own, so that nothing depends on colour, and a pipe keeps it all.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from modelberth.cli.output import table
from modelberth.flows.memory_bar import MemoryBar, memory_bar
from modelberth.flows.size_words import in_gib, terms
from modelberth.sizing.plan import Sizing

FILLS = {
    "weights": "#", "activation": "~", "nonTorch": "x", "cudaGraphs": "%", "kvCache": "=", "outside": ":",
    "uncharged": "+", "free": ".",
}  # fmt: skip
"""The character of each segment."""
_LEAST, _MOST = 40, 160


def explanation(sizing: Sizing, width: int) -> Iterator[str]:
    """The drawing and the terms, for a terminal of so many columns."""
    bar = memory_bar(sizing.ledger)
    columns = min(max(width, _LEAST), _MOST)
    yield f"One {sizing.gpu.product}, expected figures:"
    yield ""
    yield from drawing(bar, columns)
    yield ""
    yield from table(["", "PART", "GiB", "LOW", "HIGH"], list(_legend(bar)), frozenset({2, 3, 4}))
    yield ""
    yield "How each figure comes about:"
    names = max(len(name) for name, _ in terms(sizing))
    for name, text in terms(sizing):
        yield from textwrap.wrap(
            f"{name.ljust(names)}  {text}", max(columns, names + 30), subsequent_indent=" " * (names + 2)
        )


def drawing(bar: MemoryBar, columns: int) -> Iterator[str]:
    """The bar of exactly so many columns, its two edges marked above it, what is too much below it."""
    cells = _cells([segment.size.mid for segment in bar.segments], bar.end, columns)
    at = _Scale(bar, cells)
    yield _mark(f"budget {in_gib(bar.budget)} GiB", at(bar.budget))
    yield _mark(f"card {in_gib(bar.card)} GiB", at(bar.card))
    yield "".join(FILLS[segment.key] * count for segment, count in zip(bar.segments, cells, strict=True))
    if bar.over_budget:
        yield _run(f"{in_gib(bar.over_budget)} GiB over the budget", at(bar.budget), at(bar.charged), columns)
    if bar.over_card:
        yield _run(f"{in_gib(bar.over_card)} GiB beyond the card", at(bar.card), columns, columns)


class _Scale:
    """Bytes to columns, along cells that were rounded."""

    def __init__(self, bar: MemoryBar, cells: list[int]) -> None:
        self._bar, self._cells = bar, cells

    def __call__(self, size: float) -> int:
        column = 0
        for (segment, start), count in zip(self._bar.starts(), self._cells, strict=True):
            share = (size - start) / segment.size.mid
            if share < 1:
                return column + max(0, round(share * count))
            column += count
        return column


def _cells(sizes: list[float], whole: float, columns: int) -> list[int]:
    """Columns of each size: at least one, and all of them together."""
    cells = [max(1, round(size / whole * columns)) for size in sizes]
    cells[cells.index(max(cells))] += columns - sum(cells)
    return cells


def _mark(label: str, column: int) -> str:
    """A label whose `v` stands over the last column before an edge."""
    edge = max(column, 1)
    return f"{label} v".rjust(edge) if edge > len(label) + 1 else " " * (edge - 1) + f"v {label}"


def _run(label: str, start: int, end: int, columns: int) -> str:
    """A line under the columns that are too much, with its label in it or beside it."""
    run = max(1, end - start)
    start = min(start, columns - 1)
    if run >= len(label) + 6:
        return " " * start + f" {label} ".center(run, "^")
    if start > len(label):
        return f"{label} ".rjust(start) + "^" * run
    return " " * start + "^" * run + f" {label}"


def _legend(bar: MemoryBar) -> Iterator[list[str]]:
    for segment in bar.segments:
        size, name = segment.size, segment.name if segment.charged else f"{segment.name} (beside the budget)"
        yield [FILLS[segment.key] * 2, name, in_gib(size.mid), in_gib(size.low), in_gib(size.high)]
