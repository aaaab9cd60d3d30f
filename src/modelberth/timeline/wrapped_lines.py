"""Lines that a terminal has broken at its width, put together again.

Who copies a log out of a terminal gets long lines in pieces: all of them end at the same column, and the next piece
begins without any of the prefixes that lines of the log have.
"""

from __future__ import annotations

import re

NARROWEST, WIDEST = 60, 400
"""Columns that a terminal may have."""
_LEAST = 3
"""Lines that must end at the same column."""
_MOST_PIECES = 40
GONE = b"\x00"
"""Stands where a line was that is now a part of the one before."""

# How a line begins that is not the rest of another one.
_HEADED = (
    rb"[A-Z]{4,8}[ :]|\d{4}-\d\d-\d\d|\([\w .=-]{0,80}pid=|\[(?:rank|pod/)|[IWEF]\d{4} "
    rb"|[\w.-]{1,80} +\| "
)
_BEGINS = re.compile(
    _HEADED + rb"|[\s\[({<>|=#*\xe2-\xf4]|Traceback|File \"|During |The above |Process |Loading |Capturing "
    rb"|[A-Za-z_][\w.]{0,120}(?:Error|Exception|Warning|Interrupt|Exit)(?:\(\w{1,60}\))?(?::|\s*$)"
    rb"|[\w./-]{1,80}: error: |usage: "
)
# Where every line has a prefix, one without is the rest of the line before, whatever it begins with.
_PREFIXED = re.compile(_HEADED)
_UNPREFIXED = re.compile(_HEADED + rb"|  |\t|Traceback|[A-Za-z_][\w.]{0,120}(?:Error|Exception): |[\xe2-\xf4]")


def put_together(lines: list[bytes]) -> list[bytes]:
    """Lines with those pieces joined that were one; every line keeps its number."""
    width = _width(lines)
    if not width:
        return lines
    found = list(lines)
    index = 0
    while index < len(found) - 1:
        end, begins = index, _begins(lines[index])
        while (
            end + 1 < len(found)
            and end - index < _MOST_PIECES
            and len(lines[end]) == width
            and _goes_on(lines[end + 1], begins)
        ):
            end += 1
        if end > index:
            found[index] = b"".join(lines[index : end + 1])
            found[index + 1 : end + 1] = [GONE] * (end - index)
        index = end + 1
    return found


def _begins(line: bytes) -> re.Pattern[bytes]:
    """How the line after a line begins where it is no rest of it."""
    return _UNPREFIXED if _PREFIXED.match(line) else _BEGINS


def _goes_on(line: bytes, begins: re.Pattern[bytes]) -> bool:
    return bool(line) and not begins.match(line)


def _width(lines: list[bytes]) -> int:
    """The column at which lines were broken; 0 where they were not."""
    plain = [len(line) for line in lines if line.isascii()]
    width = max(plain, default=0)
    if not NARROWEST <= width <= WIDEST or plain.count(width) < _LEAST:
        return 0
    full = [index for index, line in enumerate(lines[:-1]) if len(line) == width]
    broken = sum(1 for index in full if _goes_on(lines[index + 1], _begins(lines[index])))
    return width if broken >= _LEAST and broken * 2 >= len(full) else 0
