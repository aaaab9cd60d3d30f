"""Figures with their uncertainty: in order, finite, and sums that are neither too wide nor too narrow."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelberth.sizing.ranges import ZERO, Range, difference, exact, spread, total

SIZES = st.floats(0, 1e13, allow_nan=False)


@st.composite
def ranges(draw: st.DrawFn) -> Range:
    return Range(*sorted(draw(st.tuples(SIZES, SIZES, SIZES))))


@pytest.mark.parametrize(
    "figures",
    [(2, 1, 3), (1, 3, 2), (3, 2, 1), (0, math.nan, 1), (math.nan, 0, 1), (-math.inf, 0, 1), (0, 1, math.inf)],
)
def test_what_is_no_range_is_refused(figures: tuple[float, float, float]):
    with pytest.raises(ValueError, match="not a range"):
        Range(*figures)


def test_distances_add_as_the_root_of_the_sum_of_their_squares():
    # 3-4-5 below, 6-8-10 above.
    assert total((spread(10, 3, 6), spread(5, 4, 8))) == Range(10, 15, 25)


def test_what_is_taken_off_turns_round():
    # What parts may take more (6 and 8, together 10) may be left less; what they may take less (3 and 4, 5), more.
    assert difference(exact(100), [spread(10, 3, 6), spread(5, 4, 8)]) == Range(75, 85, 90)


def test_a_spread_never_has_a_negative_distance():
    assert spread(5, -1, -2) == Range(5, 5, 5) == exact(5)
    assert spread(5, 1, -2) == Range(4, 5, 5)


def test_what_is_exact_says_so():
    assert exact(7).is_exact
    assert ZERO.is_exact
    assert not spread(7, 0, 1).is_exact
    assert not spread(7, 1, 0).is_exact


def test_nothing_adds_up_to_nothing():
    assert total(()) == ZERO
    assert difference(Range(1, 2, 3), ()) == Range(1, 2, 3)


def test_moving_and_scaling_keep_the_form():
    assert Range(1, 2, 4).scaled(3) == Range(3, 6, 12)
    assert Range(1, 2, 4).shifted(-5) == Range(-4, -3, -1)
    assert Range(1.2, 2.5, 4.9).mapped(math.ceil) == Range(2, 3, 5)


@given(st.lists(ranges(), min_size=1, max_size=8))
def test_a_sum_is_as_wide_as_its_widest_part_and_no_wider_than_all(items: list[Range]):
    found = total(items)
    slack = 1e-9 * max(1.0, found.high)
    assert found.mid == pytest.approx(sum(item.mid for item in items))
    below, above = [item.mid - item.low for item in items], [item.high - item.mid for item in items]
    assert max(below) - slack <= found.mid - found.low <= sum(below) + slack
    assert max(above) - slack <= found.high - found.mid <= sum(above) + slack


@given(st.lists(ranges(), max_size=6), st.randoms())
def test_the_order_of_a_sum_makes_no_difference(items: list[Range], random):
    shuffled = random.sample(items, len(items))
    one, other = total(items), total(shuffled)
    assert (one.low, one.mid, one.high) == pytest.approx((other.low, other.mid, other.high), rel=1e-12)


@given(ranges(), ranges())
def test_a_difference_has_the_mid_of_the_mids(whole: Range, part: Range):
    found = difference(whole, [part])
    assert found.low <= found.mid <= found.high
    assert found.mid == pytest.approx(whole.mid - part.mid, rel=1e-9, abs=1e-3)
