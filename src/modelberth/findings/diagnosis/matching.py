"""Signatures against records: which ones a record raises, with the numbers in it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from modelberth.findings.diagnosis.marks import Wrapper, marks
from modelberth.findings.diagnosis.records import Record, Traceback
from modelberth.findings.diagnosis.signature import Match, Signature

_BOUND = re.compile(r"\s*(>=|<=|==|!=|<|>)\s*([0-9]+(?:\.[0-9]+){0,2})\s*")


@dataclass(frozen=True)
class Hit:
    """A signature that something raised.

    Attributes:
        signature: it.
        groups: what its pattern captured, as it stands in the log.
        last: it counts only where nothing is said after it.
    """

    signature: Signature
    groups: Mapping[str, str]
    last: bool = False


@dataclass(frozen=True)
class Surroundings:
    """What is known of where a record stands; empty where it is not."""

    container: str = ""
    version: str = ""
    stage: str = ""


class Pattern:
    """One log pattern of a signature. Its expression is compiled when its needle is found for the first time."""

    def __init__(self, signature: Signature, match: Match) -> None:
        self.signature, self._match = signature, match
        self.needles = match.needles
        self.exceptions = match.exceptions
        self.is_of_errors = match.origin in ("exception", "error", "usage")
        self.beginning = beginning(match.log or "")

    @cached_property
    def expression(self) -> re.Pattern[str]:
        """The pattern, compiled."""
        return re.compile(self._match.log or "")

    def hit(self, record: Record, around: Surroundings, traceback: Callable[[], Traceback]) -> Hit | None:
        """What the record raises; the needle is known to stand in it."""
        match = self._match
        if match.origin not in ("any", record.origin) or (match.exceptions and not self._of_class(record)):
            return None
        if match.source and record.of.source not in match.source:
            return None
        if match.during and around.stage not in match.during:
            return None
        if not _fits(match.container, around.container) or not within(match.vllm, around.version):
            return None
        found = next((hit for start in record.starts() if (hit := self.expression.match(record.text, start))), None)
        if found is None or (match.frames and not set(match.frames) & set(traceback().frames)):
            return None
        groups = {name: text for name, text in found.groupdict().items() if text is not None}
        return Hit(self.signature, groups, match.last)

    def _of_class(self, record: Record) -> bool:
        return any(each in self._match.exceptions for each in record.classes)


def _fits(wanted: tuple[str, ...], name: str) -> bool:
    return not wanted or not name or name in wanted


def within(bounds: str | None, version: str) -> bool:
    """Whether a version lies within bounds such as `>=0.8,<0.12`; an unknown one does."""
    numbers = re.match(r"[0-9]+(?:\.[0-9]+){0,2}", version)
    if not bounds or not numbers:
        return True
    return all(_holds(_numbers(numbers[0]), each[1], _numbers(each[2])) for each in _BOUND.finditer(bounds))


def _numbers(version: str) -> tuple[int, ...]:
    found = [int(part) for part in version.split(".")]
    return tuple(found + [0] * (3 - len(found)))


def _holds(version: tuple[int, ...], sign: str, bound: tuple[int, ...]) -> bool:
    return {
        ">=": version >= bound, "<=": version <= bound, "==": version == bound, "!=": version != bound,
        "<": version < bound, ">": version > bound,
    }[sign]  # fmt: skip


_SPECIAL = frozenset("\\.^$*+?{}[]|()")


def beginning(pattern: str) -> str:
    """The literal text with which everything begins that a pattern matches; empty when there is none."""
    found: list[str] = []
    index = 0
    while index < len(pattern):
        letter = pattern[index]
        if letter == "\\" and index + 1 < len(pattern) and not pattern[index + 1].isalnum():
            letter, width = pattern[index + 1], 2
        elif letter in _SPECIAL:
            break
        else:
            width = 1
        found.append(letter)
        index += width
    if index < len(pattern) and pattern[index] in "?*{":
        found = found[:-1]  # the last letter may be left out, or come again
    return "" if _has_choice(pattern) else "".join(found)


def _has_choice(pattern: str) -> bool:
    """Whether a pattern is a choice as a whole: it has a bar outside of all brackets."""
    depth, index, inside = 0, 0, False
    while index < len(pattern):
        letter = pattern[index]
        if letter == "\\":
            index += 1
        elif inside:
            inside = letter != "]"
        elif letter == "[":
            inside = True
            index += pattern.startswith("^", index + 1)
            index += pattern.startswith("]", index + 1)  # a bracket that stands first is a letter
        elif letter in "()":
            depth += 1 if letter == "(" else -1
        elif letter == "|" and depth == 0:
            return True
        index += 1
    return False


class Patterns:
    """Every log pattern of the signatures that are asked for.

    Attributes:
        all: the patterns.
        needles: of those patterns that match what is no error: lines must be searched for them.
        open_needles: of those among them that may begin with anything.
        beginnings: how what they match begins.
        classes: names of exceptions that they want.
    """

    def __init__(self, signatures: Iterable[Signature]) -> None:
        self.all = tuple(
            Pattern(signature, match) for signature in signatures for match in signature.match if match.log is not None
        )
        quiet = [pattern for pattern in self.all if not pattern.is_of_errors]
        self.needles = frozenset(needle for pattern in quiet for needle in pattern.needles)
        self.open_needles = frozenset(needle for each in quiet if not each.beginning.strip() for needle in each.needles)
        self.classes = frozenset(name for pattern in self.all for name in pattern.exceptions)
        self.beginnings = frozenset(pattern.beginning for pattern in self.all)

    def concern(self, record: Record) -> bool:
        """Whether a record has the needle of any pattern, wherever and whenever that pattern counts."""
        return any(needle in record.text for pattern in self.all for needle in pattern.needles)

    def hits(self, record: Record, around: Surroundings, traceback: Callable[[], Traceback]) -> tuple[Hit, ...]:
        """What a record raises, each signature once."""
        text, found = record.text, {}
        for pattern in self.all:
            if pattern.signature.id not in found and any(needle in text for needle in pattern.needles):
                hit = pattern.hit(record, around, traceback)
                if hit:
                    found[pattern.signature.id] = hit
        return tuple(found.values())


def wrapper_of(record: Record) -> Wrapper | None:
    """The wrapper that a record is, if it is one: its first line has such a text."""
    first = record.text.partition("\n")[0]
    return next((each for each in marks().wrappers if each.text in first), None)
