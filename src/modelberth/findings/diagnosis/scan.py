"""A log to its starts: what each raised, how far it came, how it ended. Fast, because most lines say nothing.

Lines are told apart by their shape first: what is left without digits, the letters a to f and hyphens, so numbers,
times and ids do not count. A shape in which there is no needle is passed over whenever it comes again. Requests that
are logged with their prompts have no shape in common, but they begin alike: a message that begins as no pattern does
is passed over for its beginning alone.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from modelberth.findings.diagnosis.marks import ERROR_MARKERS, marks
from modelberth.findings.diagnosis.matching import Patterns
from modelberth.findings.diagnosis.records import Entries, Reading, line_starts
from modelberth.findings.diagnosis.start import Start, Stream
from modelberth.timeline.log_entry import INFO, WARNING, entry
from modelberth.timeline.log_reader import Counts, Window, windows

_DROPPED = b"0123456789abcdef-"
_NEEDLE, _ACCESS, _ERROR = 1, 2, 4
_ACCESS_NEEDLES = (b'HTTP/1.1" ', b'HTTP/1.0" ', b'HTTP/2" ')
_LONGEST_SHAPE = 600
_MOST_SHAPES = 100_000
"""Shapes that are remembered; with the longest ones some 60 MB. When there are more, it begins anew."""
_HEADS = (48, 96)
"""Characters of a shape by which lines that begin alike are told; the second where the first is all prefix."""
_LEAST_MESSAGE = 8
_LEVELS = (b"INFO", b"DEBUG", b"WARN")
_SHORT = 56
"""Shapes up to this length come again; only longer ones are told by their heads."""

_MANY = 64 * 1024
"""Bytes from which on it is worth while to ask first whether the words of a needle are there at all."""
Needle = tuple[bytes, frozenset[bytes], tuple[bytes, ...]]
"""A text that a shape must have, its whole words, and the pieces of words at its ends."""


@dataclass
class LogScan:
    """What was read of one log.

    Attributes:
        name: of the log.
        version: of vLLM, where its lines do not say.
        counts: bytes, lines, cut lines.
        streams: by pod and container, in order of their first lines.
    """

    name: str
    version: str = ""
    counts: Counts = field(default_factory=Counts)
    streams: dict[tuple[str, str], Stream] = field(default_factory=dict)

    @property
    def starts(self) -> list[Start]:
        """Every start of every stream that is kept."""
        return [start for stream in self.streams.values() for start in stream.starts]


@dataclass(frozen=True)
class _Sought:
    """What shapes are searched for.

    Attributes:
        needles: of patterns about what is no error, and of marks.
        errors: what any error has.
        access: what a line of an access log has.
        beginnings: how messages begin that concern any pattern or mark.
        open_needles: of patterns that may begin with anything.
    """

    needles: tuple[Needle, ...]
    errors: tuple[Needle, ...]
    access: tuple[Needle, ...]
    beginnings: tuple[bytes, ...]
    open_needles: tuple[Needle, ...]


@lru_cache(maxsize=4)
def _sought(patterns: Patterns) -> _Sought:
    known = {*patterns.beginnings, *marks().needles()}
    return _Sought(
        needles=_coarse([*patterns.needles, *marks().needles()]),
        errors=_coarse([*ERROR_MARKERS, *(f"{name}:" for name in patterns.classes)]),
        access=_coarse(_ACCESS_NEEDLES),
        beginnings=tuple({each.encode().translate(None, _DROPPED) for each in known if each}),
        open_needles=_coarse(patterns.open_needles),
    )


class Scanner:
    """Reads logs against a set of patterns."""

    def __init__(self, patterns: Patterns) -> None:
        self._patterns, self._sought = patterns, _sought(patterns)
        self._shapes: dict[bytes, int] = {}
        self._heads: dict[bytes, bool] = {}
        self._entries = Entries()

    def scan(
        self, name: str, blocks: Iterable[bytes], *, pod: str = "", container: str = "", version: str = ""
    ) -> LogScan:
        """Read one log.

        Args:
            name: shown as the source of evidence.
            blocks: its bytes in pieces.
            pod: that it is of, where its lines do not say.
            container: likewise.
            version: of vLLM, where its lines do not say.
        """
        found = LogScan(name, version)
        for window in windows(blocks, found.counts):
            self._window(window, found, pod, container)
        for start in found.starts:
            start.end = found.counts.lines
        return found

    def _window(self, window: Window, found: LogScan, pod: str, container: str) -> None:
        lines = window.lines[window.begin : window.end]
        shapes = b"\n".join(lines).translate(None, _DROPPED).split(b"\n")
        long = self._learn(shapes, lines)
        known, reading = self._shapes, Reading(window, self._entries)
        for offset, shape in enumerate(shapes):
            kind = known[shape]
            if not kind:
                continue
            index = window.begin + offset
            if kind & _ACCESS and self._answered(lines[offset], window.number + index, found, pod, container):
                continue
            if kind & (_NEEDLE | _ERROR) == 0:
                continue
            if kind & _NEEDLE == 0 and not reading.tells_of_an_error(index):
                known[shape] &= ~_ERROR
                continue
            self._candidate(index, shape, reading, found, pod, container)
        for shape in long:
            del known[shape]

    def _learn(self, shapes: list[bytes], lines: list[bytes]) -> list[bytes]:
        """Tell what the shapes are that were not seen before, all of them at once; returns those too long to keep."""
        known = self._shapes
        if len(known) > _MOST_SHAPES:
            known.clear()
        fresh: list[bytes] = []  # to be looked at for every needle
        plain: list[bytes] = []  # only for those whose patterns can begin with anything
        for offset, shape in enumerate(shapes):
            if shape not in known:
                known[shape] = 0
                (plain if self._begins_as_none(shape, lines[offset]) else fresh).append(shape)
        access = (self._sought.access, _ACCESS)
        _mark(known, fresh, (self._sought.needles, _NEEDLE), (self._sought.errors, _ERROR), access)
        _mark(known, plain, (self._sought.open_needles, _NEEDLE), access)
        return [shape for shape in (*fresh, *plain) if len(shape) > _LONGEST_SHAPE]

    def _begins_as_none(self, shape: bytes, line: bytes) -> bool:
        """Whether a line's message begins as no pattern and no mark does; told by the head of its shape."""
        if len(shape) <= _SHORT or b"\r" in shape or not any(level in shape for level in _LEVELS):
            return False
        for length in _HEADS:
            head = shape[:length]
            known = self._heads.get(head)
            if known is None:
                if len(self._heads) >= _MOST_SHAPES:
                    self._heads.clear()
                known = self._heads[head] = self._is_alien(head, line)
            if known:
                return True
        return False

    def _is_alien(self, head: bytes, line: bytes) -> bool:
        text = line.decode("utf-8", "replace")
        of = entry(text)
        if of.level not in (INFO, WARNING) or not text.endswith(of.text) or len(list(line_starts(of.text, 0))) > 1:
            return False
        prefix = text[: len(text) - len(of.text)].encode().translate(None, _DROPPED)
        message = head[len(prefix) :]
        if len(message) < _LEAST_MESSAGE:
            return False
        return not any(_agree(message, each) for each in self._sought.beginnings)

    def _answered(self, line: bytes, number: int, found: LogScan, pod: str, container: str) -> bool:
        """Take a line of an access log; False when it is none."""
        status = _status(line)
        if not status:
            return False
        if line.startswith(b"[pod/"):
            of = entry(line.decode("utf-8", "replace"))
            pod, container = of.pod, of.container
        stream = _stream(found, pod, container)
        if b'"POST ' in line:
            stream.now.answered(status, number)
        elif status == b"200" and b'"GET /health' in line:
            stream.now.healthy(number)
        return True

    def _candidate(self, index: int, shape: bytes, reading: Reading, found: LogScan, pod: str, container: str) -> None:
        of = reading.entry(index)
        stream = _stream(found, of.pod or pod, of.container or container)
        if stream.feed(index, reading, self._patterns):
            self._shapes[shape] = 0


def _coarse(texts: Iterable[str | bytes]) -> tuple[Needle, ...]:
    """Needles as they are in a shape, without those that have another one in them: they find nothing more."""
    found = {(each.encode() if isinstance(each, str) else each).translate(None, _DROPPED) for each in texts}
    long = {each for each in found if len(each) > 2}
    least = (each for each in long if not any(other != each and other in each for other in long))
    return tuple(_needle(each) for each in sorted(least))


def _needle(text: bytes) -> Needle:
    first, *further = text.split(b" ")
    ends = [first, further[-1]] if further else [first]
    return text, frozenset(each for each in further[:-1] if each), tuple(each for each in ends if each)


def _mark(known: dict[bytes, int], shapes: list[bytes], *sought: tuple[Sequence[Needle], int]) -> None:
    """Note which shapes have one of the needles: all are searched at once, each needle in one sweep."""
    if not shapes:
        return
    whole = b"\n".join([*shapes, b""])
    begins, position = [], 0
    for shape in shapes:
        begins.append(position)
        position += len(shape) + 1
    large = position > _MANY
    words = set(whole.replace(b"\n", b" ").split(b" ")) if large else set()
    each_once = b" ".join(words)
    for needles, kind in sought:
        for needle, middle, ends in needles:
            # Text repeats its words: a look at each of them once tells of most needles that they are not there.
            if not large or (middle <= words and all(end in each_once for end in ends)):
                for row in _rows(whole, begins, needle):
                    known[shapes[row]] |= kind


def _rows(whole: bytes, begins: Sequence[int], needle: bytes) -> Iterator[int]:
    """Which shapes have a needle, by the places at which they begin."""
    at = whole.find(needle)
    while at >= 0:
        row = bisect_right(begins, at) - 1
        yield row
        at = whole.find(needle, begins[row + 1]) if row + 1 < len(begins) else -1


def _agree(message: bytes, beginning: bytes) -> bool:
    """Whether a message of which only the first letters are known may begin so."""
    return message.startswith(beginning) or beginning.startswith(message)


def _stream(found: LogScan, pod: str, container: str) -> Stream:
    key = (pod, container)
    if key not in found.streams:
        found.streams[key] = Stream(found.name, pod, container, found.version)
    return found.streams[key]


def _status(line: bytes) -> bytes:
    _, mark, rest = line.partition(b" HTTP/")
    status = rest[5:8] if rest[:5] in (b'1.1" ', b'1.0" ') else rest[3:6] if rest[:3] == b'2" ' else b""
    return status if mark and status.isdigit() else b""
