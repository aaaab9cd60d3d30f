"""What a log says, record by record: an exception with its traceback and further lines, or a message of a level.

A record is made of one line and those around it that belong to the same process, so tracebacks of ranks that write
into each other come apart again.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from modelberth.findings.diagnosis.signature import Origin
from modelberth.timeline.log_entry import ERROR, Entry, entry
from modelberth.timeline.log_reader import Window
from modelberth.timeline.wrapped_lines import GONE

MOST_TEXT = 8 * 1024
"""Characters of a record's text."""
_MOST_LINES, _MOST_FRAMES, _MOST_STARTS = 40, 80, 60
_LOOK_AHEAD, _LOOK_BACK = 55, 390
_SURELY_A_CLASS = 2
"""Dots in a name that ends in a capitalised word, as triton.runtime.errors.OutOfResources, that no prose has."""
_MOST_KEPT, _LONGEST_KEPT = 8192, 1024

# ValueError: text; torch.OutOfMemoryError: text; ray.exceptions.RayTaskError(ValueError): text
_CLASS = re.compile(
    r"(?P<class>(?:[A-Za-z_]\w{0,60}\.){0,8}(?:[A-Za-z_]\w{0,80})?(?:Error|Exception|Interrupt|Fault|Failure|Failed|Exit)"
    r"|(?:[a-z_]\w{0,60}\.){1,8}[A-Z]\w{0,80}"
    r"|NoSuchBucket|NoSuchKey|ConnectTimeout|ReadTimeout|TemplateNotFound|OutOfResources)"
    r"(?:\((?P<inner>\w{1,80})\))?(?P<end>: |:$|$)"
)
_KNOWN_END = re.compile(r"(?:Error|Exception|Interrupt|Fault|Failure|Failed|Exit|Timeout|NoSuch\w+)$")
_USAGE = re.compile(r"[\w./-]{1,80}(?: [\w-]{1,30}){0,2}: error: ")
_FRAME = re.compile(r"\s{0,200}File \"(?P<path>[^\"]{1,500})\", line \d{1,9}")
_TRACEBACK = "Traceback (most recent call last)"
_CHAINED = ("The above exception was the direct cause", "During handling of the above exception")
# What may stand between the beginning of a line and that of a message in it.
_LEAD = re.compile(
    r"\s{0,80}(?:Value error, |Assertion failed, |what\(\): {1,4})|\[(?:PG |Rank )[^\]]{1,120}\] ?"
    r"|[\s('\"\[]{1,80}|\d{1,6}: "
)


@dataclass(frozen=True, slots=True)
class Record:
    r"""One thing that a log says.

    Attributes:
        line: number of its line, from 1.
        origin: what kind of thing it is.
        text: of an exception its class, a colon and its text, further lines after "\n"; else the message.
        classes: last parts of the exception's class and of those that its text begins with, outermost first.
        of: the line taken apart.
        traced: a traceback stands before it.
    """

    line: int
    origin: Origin
    text: str
    classes: tuple[str, ...]
    of: Entry
    traced: bool = False

    def starts(self) -> Iterator[int]:
        """Where a pattern may begin in `text`: at it, behind names of classes and quotes, and so on each line."""
        position, left = 0, _MOST_STARTS
        while position <= len(self.text) and left > 0:
            for start in line_starts(self.text, position):
                yield start
                left -= 1
            end = self.text.find("\n", position)
            if end < 0:
                return
            position = end + 1


def line_starts(text: str, position: int) -> Iterator[int]:
    """Where a pattern may begin in the line of a text that begins at a position."""
    yield position
    for _ in range(4):
        match = _CLASS.match(text, position)
        if not (match and match["end"]):
            match = _LEAD.match(text, position)
        if not match or match.end() == position:
            return
        position = match.end()
        yield position


@dataclass(frozen=True, slots=True)
class Traceback:
    """What stands before an exception.

    Attributes:
        frames: file names, innermost first.
        chained: the exception was raised because of, or while handling, the one before.
        begins: number of the line it begins on; that of the exception when there is none.
    """

    frames: tuple[str, ...]
    chained: bool
    begins: int


Lines = Callable[[int], Entry]


class Entries:
    """Lines taken apart; those that come again, as every restart brings them, are not taken apart again."""

    def __init__(self) -> None:
        self._known: dict[bytes, Entry] = {}

    def entry(self, line: bytes) -> Entry:
        """A line taken apart."""
        found = self._known.get(line)
        if found is None:
            found = entry(line.decode("utf-8", "replace"))
            if len(line) < _LONGEST_KEPT:
                if len(self._known) >= _MOST_KEPT:
                    self._known.clear()
                self._known[line] = found
        return found


class Reading:
    """The lines of a window, taken apart as they are asked for."""

    def __init__(self, window: Window, entries: Entries) -> None:
        self.window = window
        self._entries = entries

    def entry(self, index: int) -> Entry:
        """The line at an index."""
        return self._entries.entry(self.window.lines[index])

    def tells_of_an_error(self, index: int) -> bool:
        """Whether a line is an error of any kind, or an exception, or argparse's; cheap."""
        of = self.entry(index)
        body = of.text.lstrip()
        return of.level == ERROR or (not of.level and bool(_CLASS.match(body) or _USAGE.match(body)))

    def record(self, index: int) -> Record:
        """What the line at an index says, with the further lines of an exception."""
        of = self.entry(index)
        line = self.window.number + index
        body = of.text.lstrip()
        if of.level in ("", ERROR) and (named := self._exception(body, of, index)):
            text = self._further(index, of, body)
            return Record(line, "exception", text, _classes(text, named), of, traced=self._follows_frames(index, of))
        if of.level:
            return Record(line, of.level, body, (), of)  # type: ignore[arg-type]
        if usage := _USAGE.match(body):
            return Record(line, "usage", body[usage.end() :], (), of)
        return Record(line, "output", body, (), of)

    def _exception(self, body: str, of: Entry, index: int) -> re.Match[str] | None:
        named = _CLASS.match(body)
        if not named:
            return None
        # A line that only looks like one, such as a name alone or an indented one, needs a traceback before it.
        bare = not named["end"] or (named["end"] == ":" and not self._goes_on(index, of))
        indented = of.indent > 0 and not of.level
        dotted = named["class"].count(".") < _SURELY_A_CLASS and not _KNOWN_END.search(named["class"])
        if (bare or indented or dotted) and not self._follows_frames(index, of):
            return None
        return named

    def _follows_frames(self, index: int, of: Entry) -> bool:
        """Whether a traceback stands right before a line, in the same process."""
        seen = 0
        for before in range(index - 1, max(-1, index - 40), -1):
            raw = self.window.lines[before]
            other = self.entry(before)
            if other.process != of.process or raw == GONE or not raw.strip():
                continue
            if b'File "' in raw or b"Traceback (most" in raw:
                return True
            seen += 1
            if seen > 6:
                return False
        return False

    def _further(self, index: int, of: Entry, body: str) -> str:
        parts, size = [body], len(body)
        for after in range(index + 1, min(len(self.window.lines), index + _LOOK_AHEAD)):
            raw = self.window.lines[after]
            if raw == GONE:
                continue
            if not raw.strip():
                if len(parts) > 1 or not self._goes_on(after, of):
                    break
                continue
            other = self.entry(after)
            if other.process != of.process or other.pod != of.pod:
                continue
            text = other.text.strip()
            if other.level != of.level or (other.level and other.source != of.source) or _ends(text):
                break
            parts.append(text)
            size += len(text)
            if len(parts) >= _MOST_LINES or size > MOST_TEXT:
                break
        return "\n".join(parts)[:MOST_TEXT]

    def _goes_on(self, before: int, of: Entry) -> bool:
        """Whether text of the exception follows a line: it is no new message and no chained traceback."""
        if before + 1 >= len(self.window.lines):
            return False
        other = self.entry(before + 1)
        text = other.text.strip()
        return other.level == of.level and other.process == of.process and bool(text) and not _ends(text)

    def traceback(self, record: Record) -> Traceback:
        """The traceback before an exception."""
        index = record.line - self.window.number
        frames: list[str] = []
        begins, process = record.line, record.of.process
        for before in range(index - 1, max(-1, index - _LOOK_BACK), -1):
            raw = self.window.lines[before]
            if b'File "' in raw:
                other = self.entry(before)
                if other.process == process and (frame := _FRAME.match(other.text)) and len(frames) < _MOST_FRAMES:
                    frames.append(re.split(r"[/\\]", frame["path"])[-1])
                    begins = self.window.number + before
            elif b"Traceback (most" in raw:
                if self.entry(before).process == process:
                    return Traceback(tuple(frames), self._chained(before, process), self.window.number + before)
            elif b"Error: " in raw and self._ends_other(before, process):
                break
        return Traceback(tuple(frames), False, begins)

    def _ends_other(self, index: int, process: str) -> bool:
        other = self.entry(index)
        text = other.text
        return other.process == process and not text.startswith(" ") and bool(_CLASS.match(text)) and not other.indent

    def _chained(self, index: int, process: str) -> bool:
        for before in range(index - 1, max(-1, index - 6), -1):
            other = self.entry(before)
            if other.process == process and (text := other.text.strip()):
                return text.startswith(_CHAINED)
        return False


def _ends(text: str) -> bool:
    """Whether a line is no further line of an exception's text."""
    named = _CLASS.match(text)
    return text.startswith((_TRACEBACK, *_CHAINED, 'File "', "```", "ERROR")) or bool(named and named["end"] == ": ")


def _classes(text: str, named: re.Match[str]) -> tuple[str, ...]:
    found: list[str] = []
    position = 0
    match: re.Match[str] | None = named
    while match and match["end"] and len(found) < 6:
        found.append(match["class"].rpartition(".")[2])
        found += [match["inner"]] if match["inner"] else []
        position += match.end() - match.start()
        match = _CLASS.match(text, position)
    if not found:
        found.append(named["class"].rpartition(".")[2])
    return tuple(found)
