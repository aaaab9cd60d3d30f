"""A log's bytes come out as the same numbered lines however they are cut, and no line takes more than its bound."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from modelberth.timeline.log_reader import AFTER, BEFORE, BLOCK, MAX_LINE, Counts, Window, windows


def gone_through(found: list[Window]) -> list[tuple[int, bytes]]:
    return [
        (window.number + index, window.lines[index]) for window in found for index in range(window.begin, window.end)
    ]


@given(
    st.binary(max_size=3000).map(lambda data: data.replace(b"\xff\xfe", b"..").replace(b"\xfe\xff", b"..")), st.data()
)
def test_every_line_is_gone_through_once_however_the_bytes_are_cut(content, data):
    content = content.removeprefix(b"\xef\xbb\xbf")
    cuts = sorted(data.draw(st.lists(st.integers(0, len(content)), max_size=8)))
    blocks = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    counts = Counts()
    found = gone_through(list(windows(blocks, counts)))
    lines = content.split(b"\n")
    expected = lines[:-1] if lines[-1] == b"" else lines
    assert [line for _, line in found] == expected
    assert [number for number, _ in found] == list(range(1, len(expected) + 1))
    assert (counts.size, counts.lines, counts.cut) == (len(content), len(expected), 0)


def test_lines_beside_a_window_can_be_looked_at():
    lines = [b"line %d" % number + b" x" * 200 for number in range(1, 12_001)]
    found = list(windows([b"\n".join(lines)], Counts()))
    assert len(found) > 2
    assert [line for _, line in gone_through(found)] == lines
    for window in found:
        assert window.lines == lines[window.number - 1 : window.number - 1 + len(window.lines)]
    assert all(window.begin == BEFORE for window in found[1:])
    assert all(len(window.lines) - window.end == AFTER for window in found[:-1])


def test_a_line_that_is_too_long_keeps_its_beginning_and_the_message_behind_its_last_carriage_return():
    bars = b"".join(b"Loading: %d%%\r" % (number % 100) for number in range(400_000))
    blocks = [
        b"first\n",
        *(bars[start : start + BLOCK] for start in range(0, len(bars), BLOCK)),
        b"ValueError: x\nlast\n",
    ]
    counts = Counts()
    found = gone_through(list(windows(blocks, counts)))
    assert [number for number, _ in found] == [1, 2, 3]
    assert len(found[1][1]) <= MAX_LINE
    assert found[1][1].startswith(b"Loading: 0%\r")
    assert found[1][1].endswith(b"\rValueError: x")
    assert counts.cut == 1


def test_what_a_long_line_ends_with_is_no_message_of_its_own():
    text = b"x" * 3 * BLOCK + b"ValueError: No available memory for the cache blocks"
    ((_, line),) = gone_through(list(windows([text], Counts())))
    assert len(line) <= MAX_LINE
    assert b"ValueError" not in line


def test_logs_of_windows_shells_are_read():
    for encoding in ("utf-16-le", "utf-16-be"):
        mark = "\ufeff".encode(encoding)
        found = gone_through(list(windows([mark + "größe\nzwei\n".encode(encoding)], Counts())))
        assert [line.decode() for _, line in found] == ["größe", "zwei"]


def test_a_byte_order_mark_is_no_text():
    assert gone_through(list(windows([b"\xef\xbb\xbfone\n"], Counts()))) == [(1, b"one")]
