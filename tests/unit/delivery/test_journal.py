"""The journal of an upload: read back wherever a kill has cut it, and never more in it than was confirmed."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from modelberth.delivery.journal import (
    Journal,
    SentFile,
    SentPart,
    begun_line,
    file_line,
    is_sent,
    part_line,
    read_journal,
)
from modelberth.delivery.manifest import FileEntry

SHA, CRC = "0123456789abcdef" * 4, "0123456789abcdef"
ENTRY = FileEntry("a/b.json", 5, SHA, (CRC, CRC))

keys = st.sampled_from(["a", "b/c", "ü\n\u2028", '"', "\ud800"])
texts = st.text(max_size=4)
sent_parts = st.builds(SentPart, texts, texts)
entries = st.builds(FileEntry, keys, st.integers(0, 1 << 50), texts, st.lists(texts, max_size=3).map(tuple))
begun = st.tuples(st.just("begun"), keys, texts)
sent = st.tuples(st.just("part"), keys, st.integers(1, 5), sent_parts)
events = st.lists(begun | sent | sent | st.tuples(st.just("file"), entries), max_size=12)


def line_of(event: tuple[Any, ...]) -> bytes:
    """The line that an event is written as."""
    return {"begun": begun_line, "part": part_line, "file": file_line}[event[0]](*event[1:])


def told_by(happened: list[tuple[Any, ...]]) -> Journal:
    """What should be known after these events."""
    journal = Journal()
    for event in happened:
        match event:
            case ("begun", key, upload):
                journal.uploads[key] = SentFile(upload)
            case ("part", key, number, part) if key in journal.uploads:
                journal.uploads[key].parts[number] = part
            case ("file", entry):
                journal.files[entry.path] = entry
    return journal


# --- what is read --------------------------------------------------------------------------------------


def test_nothing_is_known_at_first():
    assert read_journal(b"") == Journal({}, {})


@given(events)
def test_a_journal_reads_back_as_written(happened: list[tuple[Any, ...]]):
    assert read_journal(b"".join(map(line_of, happened))) == told_by(happened)


@given(events)
def test_every_event_is_one_line(happened: list[tuple[Any, ...]]):
    for event in happened:
        assert line_of(event).count(b"\n") == 1
        assert line_of(event).endswith(b"\n")


@settings(max_examples=200)
@given(events, st.data(), events)
def test_a_journal_that_a_kill_has_cut_is_read_and_gone_on_with(
    happened: list[tuple[Any, ...]], data: st.DataObject, later: list[tuple[Any, ...]]
):
    """Whatever the cut, exactly the whole lines count: no part that was not confirmed, none that was is lost."""
    lines = [line_of(event) for event in happened]
    content = b"".join(lines)
    cut = content[: data.draw(st.integers(0, len(content)))]
    ends = list(itertools.accumulate(map(len, lines)))
    whole = [event for event, end in zip(happened, ends, strict=True) if end <= len(cut) + 1]  # but for its line end
    assert read_journal(cut) == told_by(whole)
    if cut and not cut.endswith(b"\n"):
        cut += b"\n"  # as the next run does before it writes
    assert read_journal(cut + b"".join(map(line_of, later))) == told_by([*whole, *later])


def test_a_line_that_was_torn_off_is_skipped():
    torn = part_line("a", 2, SentPart(CRC, "y"))[:-10]
    content = begun_line("a", "u") + part_line("a", 1, SentPart(CRC, "x")) + torn
    assert read_journal(content).uploads == {"a": SentFile("u", {1: SentPart(CRC, "x")})}


def test_another_upload_forgets_what_the_earlier_one_sent():
    first = begun_line("a", "u1") + part_line("a", 1, SentPart(CRC, "x"))
    assert read_journal(first + begun_line("a", "u2")).uploads == {"a": SentFile("u2", {})}


def test_a_part_of_an_upload_that_nobody_began_is_none():
    assert read_journal(part_line("a", 1, SentPart(CRC, "x"))) == Journal()


def test_the_last_word_on_a_part_counts():
    content = begun_line("a", "u") + part_line("a", 1, SentPart(CRC, "x")) + part_line("a", 1, SentPart(CRC, "y"))
    assert read_journal(content).uploads["a"].parts == {1: SentPart(CRC, "y")}


STRANGE_LINES = {
    "text": b"nonsense",
    "null": b"null",
    "number": b"5",
    "list": b'["begun", "a"]',
    "no object of ours": b"{}",
    "not UTF-8": b'{"begun": "\xff"}',
    "nested deeply": b"[" * 100_000,
    "5,000 digits": b"9" * 5000,
    "NUL bytes of a hole": b"\0" * 4096,
    "begun without an upload": b'{"begun": "a"}',
    "begun that is a number": b'{"begun": 5, "upload": "u"}',
    "upload that is nothing": b'{"begun": "a", "upload": null}',
    "part without a number": b'{"part": "a", "crc64nvme": "c", "etag": "e"}',
    "number as text": b'{"part": "a", "number": "1", "crc64nvme": "c", "etag": "e"}',
    "number with a fraction": b'{"part": "a", "number": 1.5, "crc64nvme": "c", "etag": "e"}',
    "part without a checksum": b'{"part": "a", "number": 1, "etag": "e"}',
    "part without an ETag": b'{"part": "a", "number": 1, "crc64nvme": "c"}',
    "file without a size": b'{"file": "a", "sha256": "s", "crc64nvme": []}',
    "checksums as text": b'{"file": "a", "size": 1, "sha256": "s", "crc64nvme": "abc"}',
}


@pytest.mark.parametrize("line", STRANGE_LINES.values(), ids=STRANGE_LINES)
def test_a_line_of_something_else_is_skipped(line: bytes):
    sound = begun_line("a", "u"), part_line("a", 1, SentPart(CRC, "x")), file_line(ENTRY)
    expected = Journal({"a": SentFile("u", {1: SentPart(CRC, "x")})}, {"a/b.json": ENTRY})
    assert read_journal(line + b"\n" + b"".join(sound)) == expected
    assert read_journal(b"".join(sound) + line) == expected
    assert read_journal((line + b"\n").join(sound)) == expected


@settings(max_examples=150)
@given(st.binary(max_size=60), st.integers(0, 500))
@example(b"\n", 30)
def test_any_bytes_are_read_without_an_error(content: bytes, place: int):
    sound = begun_line("a", "u") + part_line("a", 1, SentPart(CRC, "x")) + file_line(ENTRY)
    read_journal(content)
    read_journal(sound[:place] + content + sound[place:])


def test_the_fields_of_the_lines_are_fixed():
    """The next release goes on with the uploads of this one."""
    assert [json.loads(line) for line in (begun_line("k", "u"), part_line("k", 3, SentPart("c", "e")))] == [
        {"begun": "k", "upload": "u"},
        {"part": "k", "number": 3, "crc64nvme": "c", "etag": "e"},
    ]
    assert json.loads(file_line(ENTRY)) == {"file": "a/b.json", "size": 5, "sha256": SHA, "crc64nvme": [CRC, CRC]}


# --- what counts as sent -------------------------------------------------------------------------------

RIGHT, WRONG, ETAG, MD5 = "1" * 16, "2" * 16, "e" * 32, "d" * 32
SENT = {
    "nothing known": None,
    "sent": SentPart(RIGHT, ETAG),
    "sent with other bytes": SentPart(WRONG, ETAG),
    "sent, another ETag": SentPart(RIGHT, MD5),
    "sent, no ETag": SentPart(RIGHT, ""),
}


@pytest.mark.parametrize("sent_as", SENT.values(), ids=SENT)
@pytest.mark.parametrize("stored_crc", ["", RIGHT, WRONG], ids=["no checksum", "right checksum", "wrong checksum"])
@pytest.mark.parametrize(
    "stored_etag", [ETAG, MD5, "other-1", ""], ids=["its ETag", "its MD5", "other ETag", "no ETag"]
)
@pytest.mark.parametrize("md5s", [(), (MD5,), (WRONG,)], ids=["MD5 not taken", "MD5", "another MD5"])
def test_a_part_counts_as_sent_by_checksum_alone(
    sent_as: SentPart | None, stored_crc: str, stored_etag: str, md5s: tuple[str, ...]
):
    def ask(size: int) -> bool:
        return is_sent(
            RIGHT, 7, stored_size=size, stored_etag=stored_etag, stored_crc=stored_crc, sent=sent_as, md5s=md5s
        )

    confirmed = sent_as is not None and sent_as.etag != "" and sent_as.etag == stored_etag
    if stored_crc:  # the store knows best
        expected = stored_crc == RIGHT
    elif confirmed:  # its ETag is for the bytes that the journal says
        expected = sent_as is not None and sent_as.crc64nvme == RIGHT
    else:
        expected = stored_etag == MD5 and md5s == (MD5,)
    assert ask(7) == expected
    assert not ask(6)
    assert not ask(8)


def test_a_part_of_the_right_size_alone_is_not_sent():
    assert not is_sent(RIGHT, 7, stored_size=7, stored_etag="", stored_crc="", sent=None)
    assert not is_sent(RIGHT, 7, stored_size=7, stored_etag="", stored_crc="", sent=SentPart(RIGHT, ""), md5s=(MD5,))


@pytest.mark.parametrize(
    ("size", "crc", "sent_as"),
    [(6, "", None), (7, RIGHT, None), (7, WRONG, None), (7, "", SentPart(RIGHT, ETAG)), (7, "", SentPart(WRONG, ETAG))],
)
def test_nothing_is_read_for_its_md5_where_something_else_decides(size: int, crc: str, sent_as: SentPart | None):
    def taken() -> Iterator[str]:
        pytest.fail("the part was read")
        yield ""

    is_sent(RIGHT, 7, stored_size=size, stored_etag=ETAG, stored_crc=crc, sent=sent_as, md5s=taken())
