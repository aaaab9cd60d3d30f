"""The caching allocator's grain, by hand from its source, and what always holds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelberth.base.units import KIB, MIB
from modelberth.sizing.allocator import allocated_bytes

HALF = 512 * KIB


def mib(*sizes: float) -> list[int]:
    return [int(size * MIB) for size in sizes]


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], 0),
        ([0, 0], 0),
        ([1], 512),
        ([512], 512),
        ([513], 1024),
        ([HALF] * 4, 2 * MIB),
        ([MIB], MIB),  # the largest of the small: half of a segment of 2 MiB
        ([MIB + 1], MIB + 512),  # the smallest of the large: a piece of 20 MiB
        (mib(9.5), int(9.5 * MIB)),
        (mib(9.5, 9.5), 20 * MIB),  # the second gets the 10.5 left over: a rest of 1 MiB is not split off
        (mib(9.5, 9), int(18.5 * MIB)),  # a rest of 1.5 is
        (mib(10), 10 * MIB),
        (mib(10, 9.5), int(19.5 * MIB)),  # 10 MiB has a segment of its own: nothing is left over
        (mib(11), 12 * MIB),  # rounded up to 2 MiB, and 1 MiB is not split off
        (mib(10.5), int(10.5 * MIB)),  # 1.5 MiB are
        (mib(10.5, 1.25), 12 * MIB),  # ... and serve the next one, whole
        (mib(10.5, 1.25, 1.25), int(13.25 * MIB)),
        (mib(25), 26 * MIB),
        (mib(24.5), int(24.5 * MIB)),
    ],
)
def test_by_hand(sizes: list[int], expected: int):
    assert allocated_bytes(sizes) == expected


def test_the_smallest_block_that_is_large_enough_is_taken():
    # Rests of 1.75 (from 12) and 1.5 (from 12): 1.4 gets the 1.5, so the 1.75 is there for 1.6.
    assert allocated_bytes(mib(10.25, 10.5, 1.5, 1.75)) == 24 * MIB


def test_small_and_large_ones_have_segments_of_their_own():
    # 10.5 leaves 1.5 MiB, but 1 MiB comes from a small segment, all the same counted as 1 MiB.
    assert allocated_bytes(mib(10.5, 1)) == int(11.5 * MIB)
    assert allocated_bytes(mib(10.5, 1, 1.5)) == 13 * MIB


def test_order_decides():
    assert allocated_bytes(mib(9.5, 9.5, 10.5)) == int(20 * MIB + 10.5 * MIB)
    assert allocated_bytes(mib(10.5, 9.5, 9.5)) == int(10.5 * MIB) + 20 * MIB
    # 8 first leaves 12 for 11, whole; 11 first takes 12, and 8 splits a new segment.
    assert allocated_bytes(mib(8, 10.75)) == int(18.75 * MIB)
    assert allocated_bytes(mib(8, 11)) == 20 * MIB


def test_beyond_max_split_nothing_is_split():
    assert allocated_bytes(mib(24.5), 20 * MIB) == 26 * MIB
    assert allocated_bytes(mib(20.5), 20 * MIB) == 22 * MIB
    assert allocated_bytes(mib(18.5), 20 * MIB) == int(18.5 * MIB)
    assert allocated_bytes(mib(20), 20 * MIB) == 20 * MIB
    assert allocated_bytes(mib(20.5), 20 * MIB + MIB // 2) == 22 * MIB  # the limit itself is beyond


SIZES = st.lists(st.integers(1, 40 * MIB) | st.integers(1, 4096), max_size=40)


def rounded(size: int) -> int:
    return -(-size // 512) * 512


@given(SIZES)
def test_each_large_one_takes_at_most_one_mib_more(sizes: list[int]):
    asked = sum(map(rounded, sizes))
    large = sum(size > MIB for size in sizes)
    assert asked <= allocated_bytes(sizes) <= asked + large * MIB


@given(SIZES)
def test_with_max_split_each_takes_less_than_two_mib_more(sizes: list[int]):
    asked = sum(map(rounded, sizes))
    large = sum(size > MIB for size in sizes)
    assert asked <= allocated_bytes(sizes, 20 * MIB) <= asked + large * 2 * MIB


@given(st.lists(st.integers(1, MIB), max_size=60), st.randoms())
def test_small_ones_lose_nothing_in_any_order(sizes: list[int], random):
    assert allocated_bytes(random.sample(sizes, len(sizes))) == sum(map(rounded, sizes))


@given(SIZES, st.integers(1, 40 * MIB))
def test_one_more_never_takes_less(sizes: list[int], more: int):
    assert allocated_bytes([*sizes, more]) >= allocated_bytes(sizes) + rounded(more)
