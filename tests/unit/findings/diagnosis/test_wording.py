"""Numbers are read and shown as people write them; sentences without theirs are left out."""

from __future__ import annotations

import pytest

from modelberth.findings.diagnosis.matching import beginning, within
from modelberth.findings.diagnosis.wording import change, filled, values


@pytest.mark.parametrize(
    ("text", "unit", "shown", "number"),
    [
        ("32768", "tokens", "32,768", 32768),
        ("32,768", "tokens", "32,768", 32768),
        ("28160.0", "tokens", "28,160", 28160),
        ("5.77", "GiB", "5.77", 5.77),
        ("5.10", "GiB", "5.10", 5.1),
        ("20", "GiB", "20", 20),
        ("0.9", "number", "0.9", 0.9),
        ("11080", "number", "11080", 11080),
        ("-0.52", "GiB", "-0.52", -0.52),
        ("8", "GPUs", "8", 8),
        ("0.8.3", "version", "0.8.3", "0.8.3"),
    ],
)
def test_numbers(text, unit, shown, number):
    found = values({"x": text}, {"x": unit})["x"]
    assert (found.shown, found.value, type(found.value)) == (shown, number, type(number))


def test_what_is_no_number_is_left_out():
    assert values({"x": "many"}, {"x": "tokens"}) == {}
    assert values({"x": "many"}, {})["x"].shown == "many"


@pytest.mark.parametrize(
    ("text", "unit", "said", "shown"),
    [
        ("2.00", "GiB", 2.0, "2.00 GiB"),
        ("512.00", "MiB", 0.5, "512.00 MiB"),
        ("1073741824", "bytes", 1.0, "1073741824 bytes"),
        ("5", "GB", 4.6566, "5 GB"),
    ],
)
def test_a_unit_of_the_log_is_shown_and_converted_for_programs(text, unit, said, shown):
    found = values({"x": text, "x_unit": unit}, {"x": "GiB"})
    assert list(found) == ["x"]
    assert found["x"].value == said
    assert filled("It asked for {x} GiB.", found).replace(",", "") == f"It asked for {shown}."


def test_sentences():
    known = values({"a": "1"}, {"a": "count"})
    assert filled("One is {a}. Two is {b}. Three.", known) == "One is {a}. Three.".replace("{a}", "1")
    assert filled("One is {a}. Two is {b}.", known, "None.") == "None."
    assert filled("Two is {b}.", known) == ""


@pytest.mark.parametrize(
    ("said", "shown"),
    [("it failed.", "It said: it failed."), ("it went on...", "It said: it went on...."), ("..", "It said: ...")],
)
def test_a_sentence_has_one_end(said, shown):
    assert filled("It said: {a}.", values({"a": said}, {})) == shown


def test_a_patch_is_whole_or_nothing():
    known = values({"a": "32768"}, {"a": "tokens"})
    assert change({"maxModelLen": "{a}", "engineArgs.x": "v{a}", "y": True}, known) == {
        "maxModelLen": 32768, "engineArgs.x": "v32768", "y": True,
    }  # fmt: skip
    assert change({"maxModelLen": "{a}", "x": "{b}"}, known) == {}


@pytest.mark.parametrize(
    ("bounds", "version", "holds"),
    [
        (None, "0.8.3", True), (">=0.8", "", True), (">=0.8", "0.8.0", True), (">=0.8.1", "0.8", False),
        (">=0.8,<0.12", "0.12.0", False), (">=0.8,<0.12", "0.11.2+cu128", True), ("==0.9.1", "0.9.1rc2", True),
        ("<0.10", "0.9.2", True), (">=0.8", "dev", True),
    ],
)  # fmt: skip
def test_versions(bounds, version, holds):
    assert within(bounds, version) is holds


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        (r"Free memory on device (?:x)?", "Free memory on device "), (r"CUDA out of memory\. T", "CUDA out of memory. T"),  # noqa: E501
        (r"abc?d", "ab"), (r"abc*d", "ab"), (r"ab+c", "ab"), (r"(?:a|b)c", ""), (r"ab|cd", ""), (r"ab[|]cd", "ab"),
        (r"ab(?:x|y)", "ab"), (r"\[x\] y", "[x] y"), (r"\d+ a", ""), (r"a\sb", "a"), (r"[|]a", ""), (r"ab[^]|]c", "ab"),
    ],
)  # fmt: skip
def test_beginnings_of_patterns(pattern, text):
    assert beginning(pattern).startswith(text[:1])
    assert text.startswith(beginning(pattern))
