"""Sizes and durations: every unit, and GB never taken for GiB."""

from __future__ import annotations

import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelberth.base.errors import UsageError
from modelberth.base.units import format_binary, format_decimal, format_seconds, parse_bytes

DECIMAL = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
BINARY = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
KUBERNETES = {
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}
UNITS = {"": 1, "B": 1} | DECIMAL | BINARY | KUBERNETES

counts = st.integers(min_value=0, max_value=10**15)


@pytest.mark.parametrize(("unit", "scale"), UNITS.items(), ids=lambda value: str(value) or "none")
def test_every_unit_has_its_own_scale(unit: str, scale: int):
    assert parse_bytes(f"3{unit}") == 3 * scale
    assert parse_bytes(f" 3 {unit} ") == 3 * scale


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("13.5GB", 13_500_000_000),
        ("1.5KiB", 1536),
        ("0.0015kB", 1),
        ("0", 0),
        ("24gib", 24 * 2**30),
        ("1gb", 10**9),
        ("1GB", 10**9),
        ("1Gi", 2**30),
        ("1kb", 1000),
        ("1KB", 1000),
        ("1mib", 2**20),
        ("0.9B", 0),
    ],
)
def test_fractions_and_case(text: str, count: int):
    assert parse_bytes(text) == count


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "GB",
        "-1GB",
        "1,5GB",
        "1.GB",
        ".5GB",
        "1e3",
        "5 apples",
        "1GB2",
        "nan",
        "inf",
        "٣GB",
        "1 G B",
        # Single letters and mixed case have other meanings elsewhere: `m` is milli, `Gb` is gigabits.
        *("1m", "1g", "1t", "1K", "1Gb", "1gB", "1GIB", "1gi", "1GI", "1b"),
    ],
)
def test_what_is_not_a_size_is_refused(text: str):
    with pytest.raises(UsageError, match="is not a size") as caught:
        parse_bytes(text)
    assert "24GiB" in caught.value.why


@given(st.text(max_size=12) | st.from_regex(r"[0-9.]{1,6} ?[kKmMgGtTiIbB]{0,3}", fullmatch=True))
def test_any_text_is_a_size_or_a_usage_error(text: str):
    with suppress(UsageError):
        assert parse_bytes(text) >= 0


@given(counts)
def test_a_plain_number_is_bytes(count: int):
    assert parse_bytes(str(count)) == count


@given(
    st.decimals(min_value=0, max_value=10**6, places=3),
    st.decimals(min_value=0, max_value=10**6, places=3),
    st.sampled_from(list(UNITS)),
)
def test_parsing_is_monotonic(one, other, unit: str):
    low, high = sorted((one, other))
    assert parse_bytes(f"{low:f}{unit}") <= parse_bytes(f"{high:f}{unit}")


@given(
    st.integers(min_value=1, max_value=10**9),
    st.sampled_from([*zip(DECIMAL, BINARY, strict=True), ("G", "Gi")]),
)
def test_a_binary_unit_is_larger_than_its_decimal_one(number: int, pair: tuple[str, str]):
    decimal, binary = pair
    assert parse_bytes(f"{number}{binary}") > parse_bytes(f"{number}{decimal}")


@pytest.mark.parametrize(
    ("function", "count", "text"),
    [
        (format_binary, 23_676_004_762, "22.05 GiB"),
        (format_decimal, 47_140_000_000, "47.14 GB"),
        (format_binary, 1018, "1018 B"),
        (format_binary, 1023, "1023 B"),
        (format_binary, 2**20 - 1, "1.00 MiB"),
        (format_binary, 1_043_331, "1018.88 KiB"),
        (format_binary, 2**30 - 1, "1.00 GiB"),
        (format_binary, 2**40 - 1, "1.00 TiB"),
        (format_binary, 1 - 2**30, "-1.00 GiB"),
        (format_binary, 5000 * 2**40, "5000.00 TiB"),
        (format_decimal, 994, "994 B"),
        (format_decimal, 999_999, "1.00 MB"),
        (format_decimal, 994_999, "995.00 kB"),
        (format_decimal, 10**12 - 1, "1.00 TB"),
        (format_binary, 1024, "1.00 KiB"),
        (format_decimal, 999, "999 B"),
        (format_decimal, 1000, "1.00 kB"),
        (format_binary, 3 * 2**40, "3.00 TiB"),
        (format_decimal, 3 * 10**12, "3.00 TB"),
        (format_binary, -(2**20), "-1.00 MiB"),
        (format_decimal, 0, "0 B"),
    ],
)
def test_formatted_text(function, count: int, text: str):
    assert function(count) == text


@given(counts)
def test_formats_never_mix_units(count: int):
    assert re.fullmatch(r"[0-9]+ B|[0-9]+\.[0-9]{2} (KiB|MiB|GiB|TiB)", format_binary(count))
    assert re.fullmatch(r"[0-9]+ B|[0-9]+\.[0-9]{2} (kB|MB|GB|TB)", format_decimal(count))


@given(
    st.sampled_from([(format_binary, BINARY, 1024), (format_decimal, DECIMAL, 1000)]),
    st.integers(min_value=0, max_value=3),
    st.integers(min_value=-10_000, max_value=10_000),
)
def test_no_unit_is_shown_as_many_times_as_the_next_one_is_large(case, power: int, offset: int):
    function, units, base = case
    number, unit = function(abs(base ** (power + 1) + offset)).split()
    assert float(number) < base or unit == list(units)[-1]


@given(counts, st.sampled_from([format_binary, format_decimal]))
def test_what_is_formatted_parses_back_to_within_its_rounding(count: int, function):
    text = function(count)
    unit = UNITS[text.split()[1]]
    assert abs(parse_bytes(text) - count) <= 0.005 * unit + 1


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (9.96, "10 s"),
        (54, "54 s"),
        (119.4, "119 s"),
        (119.6, "2 min 00 s"),
        (123, "2 min 03 s"),
        (3599, "59 min 59 s"),
        (3599.6, "1 h 00 min"),
        (3900, "1 h 05 min"),
        (90_000, "25 h 00 min"),
    ],
)
def test_durations(seconds: float, text: str):
    assert format_seconds(seconds) == text
