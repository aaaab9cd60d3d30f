"""How much PyTorch's caching allocator counts for a row of allocations: it hands out blocks, and blocks have a grain.

Source: c10/cuda/CUDACachingAllocator.cpp. Sizes are rounded up to 512 bytes. Up to 1 MiB comes from segments of 2 MiB,
up to 10 MiB from segments of 20 MiB, and more from a segment of its own, rounded up to 2 MiB. The smallest free
block that is large enough is taken; what it has left over is split off, except a remainder of 1 MiB or less in a large
segment, and except blocks beyond `max_split_size`. What is not split off counts as allocated.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable

from modelberth.base.units import MIB

GRAIN = 512
_SMALL, _SMALL_SEGMENT = MIB, 2 * MIB
_LARGE, _LARGE_SEGMENT, _ROUND = 10 * MIB, 20 * MIB, 2 * MIB


def allocated_bytes(sizes: Iterable[int], max_split: int | None = None) -> int:
    """Bytes that the allocator counts after allocating `sizes` in order and freeing none.

    Args:
        sizes: bytes of each allocation; those that are 0 take nothing.
        max_split: bytes from which a block is never split; None for no limit.
    """
    small: list[int] = []
    large: list[int] = []
    total = 0
    for size in sizes:
        if size > 0:
            rounded = -(-size // GRAIN) * GRAIN
            total += _take(rounded, small if rounded <= _SMALL else large, max_split)
    return total


def _take(size: int, free: list[int], max_split: int | None) -> int:
    """Bytes of the block that an allocation of `size` gets; what is split off goes back to the free blocks."""
    block = _free_block(size, free, max_split) or _segment(size)
    rest = block - size
    splits = rest >= GRAIN if size <= _SMALL else rest > _SMALL and (max_split is None or size < max_split)
    if not splits:
        return block
    insort(free, rest)
    return size


def _free_block(size: int, free: list[int], max_split: int | None) -> int:
    """The smallest free block that is large enough, taken out; 0 for none."""
    index = bisect_left(free, size)
    if index == len(free):
        return 0
    block = free[index]
    if max_split is not None and size < max_split <= block:  # a block that is never split is kept for large requests
        return 0
    return free.pop(index)


def _segment(size: int) -> int:
    if size <= _SMALL:
        return _SMALL_SEGMENT
    return _LARGE_SEGMENT if size < _LARGE else -(-size // _ROUND) * _ROUND
