"""Text of others made safe to show, and names suggested."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from modelberth.base.text import did_you_mean, names_secret, nearest, printable, shorten

# Text made of the pieces that terminals act on.
terminal_text = st.lists(
    st.sampled_from(
        [
            "\x1b",
            "[",
            "]",
            "31m",
            "0;",
            "\x07",
            "\\",
            "P",
            "X",
            "^",
            "_",
            "\x9b",
            "\x85",
            "\r",
            "\n",
            "\t",
            "a",
        ]
    )
    | st.text(max_size=3)
).map("".join)


def is_control(character: str) -> bool:
    """Control characters but tab and newline, and everything that turns the reading direction."""
    if unicodedata.category(character) == "Cc":
        return character not in "\t\n"
    turning = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
    return unicodedata.bidirectional(character) in turning or character in "\u200e\u200f\u061c"


@given(terminal_text)
@example("\x1b\x1b[31m")
@example("\x1b]0;title\x1b[0m")
@example("\u202egnp.exe\u2066\u061c")
def test_printable_leaves_no_controls(text: str):
    assert [character for character in printable(text) if is_control(character)] == []


@given(terminal_text)
def test_printable_is_idempotent(text: str):
    assert printable(printable(text)) == printable(text)


@given(st.text().filter(lambda text: not any(map(is_control, text))))
@example("naïve 模型 🚢 שלום\tx\n")
def test_printable_keeps_plain_text(text: str):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]0;title\x07after", "after"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\", "link"),
        ("\x1bPq#0\x1b\\after", "after"),
        ("\x1b]unfinished\nnext line", "\nnext line"),
        ("\x1bPunfinished\nnext line", "\nnext line"),
        ("\x1b\nnext line", "\nnext line"),
        ("\x1b[2Jcleared", "cleared"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("a\x00b\x08c\x7fd", "abcd"),
        ("ends in an escape\x1b", "ends in an escape"),
    ],
)
def test_escapes_go_as_a_whole(text: str, shown: str):
    assert printable(text) == shown


@given(st.text(), st.integers(min_value=0, max_value=40))
def test_shortened_text_is_one_line_within_its_limit(text: str, limit: int):
    short = shorten(text, limit)
    assert len(short) <= limit
    assert short.split() == short.split(" ") or short == ""
    assert short == " ".join(text.split()) or short.endswith("…") or limit == 0


@pytest.mark.parametrize(
    ("text", "limit", "short"),
    [("a  b\n c", 5, "a b c"), ("abcdef", 6, "abcdef"), ("abcdefg", 6, "abcde…"), ("ab", 1, "…"), ("ab", 0, "")],
)
def test_shorten(text: str, limit: int, short: str):
    assert shorten(text, limit) == short


@pytest.mark.parametrize(
    ("word", "known", "near"),
    [
        ("servicename", ["servedName", "pool"], "servedName"),
        ("POOL", ["pool", "name"], "pool"),
        ("zzz", ["pool", "name"], None),
        ("pool", [], None),
        ("", ["pool"], None),
    ],
)
def test_nearest(word: str, known: list[str], near: str | None):
    assert nearest(word, known) == near


def test_a_near_miss_is_suggested_and_else_everything_known():
    assert did_you_mean("pol", ["pool", "name"]) == "did you mean 'pool'?"
    assert did_you_mean("zzz", ["pool", "name"]) == "known: name, pool"
    assert did_you_mean("zzz", []) == ""


@pytest.mark.parametrize(
    "key",
    [
        *("secretAccessKey", "aws_secret_access_key", "ACCESS_KEY_ID", "accessKey", "secret-key", "hf-token"),
        *("apiKey", "password", "ssl-keyfile-password", "passwd", "sessionToken"),
    ],
)
def test_keys_that_hold_secrets(key: str):
    assert names_secret(key)


@pytest.mark.parametrize("key", ["secret", "maxTokens", "tokenizer", "tokenizer-mode", "key", "name", ""])
def test_keys_that_hold_none(key: str):
    assert not names_secret(key)
