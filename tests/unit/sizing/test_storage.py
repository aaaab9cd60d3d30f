"""Where weights are better kept: bytes and disks decide."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelberth.base.units import GB, MIB
from modelberth.sizing.storage import advise


def test_an_image_that_fits_is_kept():
    """47.14 GB and three files of 4.9 GB in flight are 61.84 GB; 85 % of 500 GB are 425 GB."""
    found = advise(47_140 * 10**6, 500 * GB)
    assert (found.kind, found.image_bytes, found.disk_bytes) == ("oci", 47_140 * 10**6, 500 * GB)
    assert found.image_peak_bytes == 61_840 * 10**6
    assert "47.14 GB" in found.reason
    assert "61.84 GB" in found.reason
    assert "every start" in found.reason


def test_an_image_that_does_not_fit_stays_in_s3():
    """85 % of 70 GB are 59.5 GB."""
    found = advise(47_140 * 10**6, 70 * GB)
    assert found.kind == "s3"
    assert "61.84 GB" in found.reason
    assert "85%" in found.reason
    assert "59.50 GB" in found.reason


def test_the_last_byte_counts():
    peak = 10 * GB + 10 * GB  # less than three files in flight: all of it, twice
    assert advise(10 * GB, round(peak / 0.85) + 1).kind == "oci"
    assert advise(10 * GB, round(peak / 0.85) - 2).kind == "s3"


def test_a_small_image_peaks_at_twice_its_size():
    assert advise(GB, None).image_peak_bytes == 2 * GB
    assert advise(20 * GB, None).image_peak_bytes == 20 * GB + 14_700 * 10**6


def test_an_unknown_disk_is_told_the_size_it_needs():
    found = advise(10 * GB, None)
    assert (found.kind, found.disk_bytes) == ("oci", None)
    assert "23.53 GB or more" in found.reason  # 20 / 0.85
    assert "S3" in found.reason


def test_seconds_are_those_of_a_plain_disk():
    """125 MiB a second, gp3 without more."""
    assert advise(125 * MIB * 60, None).start_seconds == 60
    assert "60 s at 125 MiB/s" in advise(125 * MIB * 60, 500 * GB).reason


@given(st.integers(1, 10**13), st.integers(1, 10**13), st.integers(0, 10**13))
def test_a_larger_disk_never_turns_an_image_away(image: int, disk: int, more: int):
    small, large = advise(image, disk), advise(image, disk + more)
    assert (small.kind, large.kind) != ("oci", "s3")
    assert image < small.image_peak_bytes <= 2 * image


@given(st.integers(1, 10**13), st.integers(0, 10**13), st.integers(1, 10**13))
def test_a_smaller_image_never_fits_worse(image: int, more: int, disk: int):
    large, small = advise(image + more, disk), advise(image, disk)
    assert (large.kind, small.kind) != ("oci", "s3")


def test_no_disk_at_all_is_too_small():
    assert advise(1, 0).kind == "s3"


@pytest.mark.parametrize("disk", [None, 10 * GB, 10**15])
def test_a_reason_ends_without_a_full_stop(disk: int | None):
    assert not advise(10 * GB, disk).reason.endswith(".")
