"""What one message of vLLM says about memory, by the wordings of `catalog/memory_log.json`.

Every wording is told by how the message begins, so a prompt that quotes one inside of a line says nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from modelberth.catalog import load

# A sign, digits with or without thousands separators, a fraction. Bounded: no number is longer.
_NUMBER = r"(?<![0-9,.])(-?[0-9][0-9,]{0,30}(?:\.[0-9]{1,15})?)(?![0-9])"
_PLACE = re.compile(r"\{([a-z_-]*)\}")


@dataclass(frozen=True)
class Figure:
    """A number in a message.

    Attributes:
        name: the field of a MemoryReport, or `--flag` for an engine argument.
        number: as printed, without thousands separators.
        preference: 1 counts before 2.
    """

    name: str
    number: str
    preference: int


@dataclass(frozen=True)
class _Template:
    """A piece of a wording: a pattern, and the name of each of its numbers (empty: not kept)."""

    pattern: re.Pattern[str]
    names: tuple[str, ...]

    def figures(self, text: str, preference: int) -> Iterator[Figure]:
        if match := self.pattern.search(text):
            for name, number in zip(self.names, match.groups(), strict=True):
                if name:
                    yield Figure(name, number.replace(",", ""), preference)


@dataclass(frozen=True)
class Wording:
    """One entry of the data file; `tag` is the failure, phase or runner that it stands for."""

    starts: tuple[str, ...]
    contains: str
    templates: tuple[_Template, ...]
    preference: int
    tag: str

    def fits(self, text: str) -> bool:
        """Whether a message is of this wording."""
        return text.startswith(self.starts) and self.contains in text

    def figures(self, text: str) -> Iterator[Figure]:
        """The figures of a message that fits."""
        for template in self.templates:
            yield from template.figures(text, self.preference)


def _template(text: str) -> _Template:
    """`took {weights_gib} G` as a pattern: literal text around numbers."""
    parts = _PLACE.split(text)
    literals, names = parts[::2], parts[1::2]
    return _Template(re.compile(_NUMBER.join(re.escape(literal) for literal in literals)), tuple(names))


def _wording(entry: Mapping[str, Any], tag: str) -> Wording:
    return Wording(
        starts=tuple(entry["starts"]),
        contains=entry.get("contains", ""),
        templates=tuple(_template(text) for text in entry.get("figures", ())),
        preference=entry.get("preference", 1),
        tag=entry.get(tag, ""),
    )


@cache
def wordings(kind: str, tag: str = "") -> tuple[Wording, ...]:
    """The wordings of the data file under `kind`; `tag` names what each of them stands for."""
    return tuple(_wording(entry, tag) for entry in load("memory_log")[kind])


@cache
def beginnings(kind: str) -> tuple[str, ...]:
    """A plain list of the data file: how messages of that kind begin."""
    return tuple(load("memory_log")[kind])
