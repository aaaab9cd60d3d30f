"""Bytes of a log to numbered lines, in bounded memory, whatever the bytes are.

    blocks of bytes -> windows: a stretch of lines to go through, with some lines before and after it to look at

A line longer than MAX_LINE is cut: its beginning stays, and what follows its last carriage return, because a progress
bar hides the message behind it in the same line. Lines that a terminal broke at its width are put together where the
log is short enough to have been copied out of one. Nothing is decoded here but UTF-16, which Windows shells write.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from modelberth.timeline.wrapped_lines import put_together

MAX_LINE = 64 * 1024
"""Bytes of a line that are kept."""
BLOCK = 1 << 20
"""Bytes that are worked on at once."""
BEFORE, AFTER = 400, 60
"""Lines beside a window that can be looked at: a traceback has 40 to 200, an exception's text up to 40."""
_TAIL = 8 * 1024
_UTF_16 = {codecs.BOM_UTF16_LE: "utf-16-le", codecs.BOM_UTF16_BE: "utf-16-be"}
CUT = b" ...[cut]... "


@dataclass(frozen=True)
class Window:
    """A stretch of a log.

    Attributes:
        lines: without their line ends; those before `begin` and from `end` on are only to be looked at.
        begin: index of the first line to go through.
        end: index after the last one.
        number: number of the line at index 0, counted from 1.
    """

    lines: list[bytes]
    begin: int
    end: int
    number: int


@dataclass
class Counts:
    """What a log had.

    Attributes:
        size: bytes.
        lines: lines.
        cut: lines of which something was left out.
    """

    size: int = 0
    lines: int = 0
    cut: int = 0


@dataclass
class _Splitter:
    """Lines out of blocks; keeps what has no end yet."""

    counts: Counts
    _rest: bytes = b""
    _last: bytes = b""
    _skipping: bool = field(default=False)

    def lines(self, block: bytes) -> list[bytes]:
        """The lines that this block completes."""
        found = (self._rest + block).split(b"\n")
        self._rest = found.pop()
        if self._skipping and found:
            self._last = (self._last + found[0])[-_TAIL:]
            found[0] = self._joined()
        if len(self._rest) > MAX_LINE:
            self._skip()
        return [self._cut(line) if len(line) > MAX_LINE else line for line in found]

    def _skip(self) -> None:
        """The line that is being read is too long: its beginning is kept, and the end of what came so far."""
        if not self._skipping:
            self._skipping, self._head = True, self._rest[: MAX_LINE - 2 * _TAIL]
        self._last = (self._last + self._rest)[-_TAIL:]
        self._rest = b""

    def _joined(self) -> bytes:
        line = _shortened(self._head, self._last)
        self._skipping, self._last = False, b""
        self.counts.cut += 1
        return line

    def _cut(self, line: bytes) -> bytes:
        self.counts.cut += 1
        return _shortened(line[: MAX_LINE - 2 * _TAIL], line[-_TAIL:])

    def end(self) -> list[bytes]:
        """The last line, where it has no line end."""
        if self._skipping:
            self._last = (self._last + self._rest)[-_TAIL:]
            return [self._joined()]
        return [self._rest] if self._rest else []


def _shortened(head: bytes, tail: bytes) -> bytes:
    # Only what stands behind a carriage return is a message of its own; any other piece could begin anywhere.
    _, mark, message = tail.rstrip(b"\r").rpartition(b"\r")
    return head + CUT + (b"\r" + message if mark else b"")


def windows(blocks: Iterable[bytes], counts: Counts) -> Iterator[Window]:
    """A log as windows, in order; every line is gone through in exactly one of them.

    Args:
        blocks: the log, in pieces of any size.
        counts: is counted up while reading.
    """
    splitter = _Splitter(counts)
    before: list[bytes] = []
    lines: list[bytes] = []
    number = 1
    for block in _utf_8(blocks):
        counts.size += len(block)
        for start in range(0, len(block), BLOCK):
            fresh = splitter.lines(block[start : start + BLOCK])
            if len(lines) + len(fresh) <= AFTER or not fresh:
                lines += fresh
                continue
            lines = put_together([*lines, *fresh]) if number == 1 else [*lines, *fresh]
            yield Window([*before, *lines], len(before), len(before) + len(lines) - AFTER, number - len(before))
            done, lines = lines[:-AFTER], lines[-AFTER:]
            number += len(done)
            before = [*before, *done][-BEFORE:]
    lines += splitter.end()
    counts.lines = number - 1 + len(lines)
    lines = put_together(lines) if number == 1 else lines
    if lines:
        yield Window([*before, *lines], len(before), len(before) + len(lines), number - len(before))


def _utf_8(blocks: Iterable[bytes]) -> Iterator[bytes]:
    decoder: codecs.IncrementalDecoder | None = None
    first = True
    for block in blocks:
        if first and block:
            first = False
            name = _UTF_16.get(block[:2])
            decoder = codecs.getincrementaldecoder(name)("replace") if name else None
            block = block[2:] if name else block.removeprefix(codecs.BOM_UTF8)
        yield decoder.decode(block).encode("utf-8", "replace") if decoder else block
