"""Texts of a signature filled with the values of a case."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from shlex import quote

from modelberth.base.redaction import Redactor
from modelberth.base.text import printable, shorten
from modelberth.findings.diagnosis.finding import Number
from modelberth.findings.diagnosis.signature import TEXTS, Unit

_PLACE = re.compile(r"\{([a-z][a-z0-9_]*)\}")
_WITH_UNIT = re.compile(r"\{([a-z][a-z0-9_]*)\}(?: (bytes|[KMGT]i?B)\b)?")
_SENTENCE = re.compile(r"(?<=[.!?]) +(?=[A-Z{`'\"(])")
_LONGEST = 240
_BYTES = {
    "": 1, "b": 1, "byte": 1, "bytes": 1,
    "k": 10**3, "kb": 10**3, "ki": 1 << 10, "kib": 1 << 10, "m": 10**6, "mb": 10**6, "mi": 1 << 20, "mib": 1 << 20,
    "g": 10**9, "gb": 10**9, "gi": 1 << 30, "gib": 1 << 30, "t": 10**12, "tb": 10**12, "ti": 1 << 40, "tib": 1 << 40,
}  # fmt: skip
_WHOLE: frozenset[Unit] = frozenset({"tokens", "GPUs", "count", "bytes"})
_PLAIN: frozenset[Unit] = frozenset({"number"})


@dataclass(frozen=True)
class Value:
    """A value of a case: as it is shown, and as programs get it.

    Attributes:
        shown: as a text says it.
        value: as programs get it.
        unit: the log's own unit of `shown`, where it is not the one that texts write behind the place.
    """

    shown: str
    value: Number
    unit: str = ""


_SECRETS = Redactor()
_AHEAD = 4
"""Times the length that is shown, which is looked at for secrets."""


# What a log said may end with a full stop of its own; three of them mean something.
_TWO_ENDS = re.compile(r"(?<=[^./])\.\.(?=\s|$)")


@lru_cache(maxsize=512)
def safe(text: str, limit: int) -> str:
    """Text of others that may be shown: one line, without escapes, control characters and secrets."""
    if len(text) > _AHEAD * limit:  # at a blank, so that no secret is cut and then not known for one
        text = text[: _AHEAD * limit].rpartition(" ")[0]
    return shorten(_SECRETS.text(printable(text)), limit)


def values(groups: Mapping[str, str], units: Mapping[str, Unit]) -> dict[str, Value]:
    """The groups of a pattern as values; a number that is none is left out.

    Args:
        groups: as they stand in the log; `<name>_unit` is the unit of `<name>` there.
        units: of those that are numbers.
    """
    found = {}
    for name, text in groups.items():
        if name.endswith("_unit") and name.removesuffix("_unit") in groups:
            continue
        unit = units.get(name, "text")
        if unit in TEXTS:
            clean = safe(text, _LONGEST)
            found[name] = Value(clean, clean)
        elif number := _number(text, unit, groups.get(f"{name}_unit")):
            found[name] = number
    return found


def _number(text: str, unit: Unit, said: str | None) -> Value | None:
    plain = text.replace(",", "").replace("_", "").strip()
    try:
        number = float(plain)
    except ValueError:
        return None
    if said is not None and unit.lower() in _BYTES and said.strip().lower() in _BYTES:
        scaled = number * _BYTES[said.strip().lower()] / _BYTES[unit.lower()]
        if scaled != number:
            return Value(shown(number, "number", plain).shown, round(scaled, 4), said.strip())
    return shown(number, unit, plain)


def shown(number: float, unit: Unit, text: str = "") -> Value:
    """A number: with thousands separators where it counts, with the digits that were printed where it measures."""
    whole = number.is_integer() and abs(number) < 1e15
    value: Number = int(number) if whole and (unit in _WHOLE or (text and "." not in text)) else round(number, 4)
    if unit in _PLAIN:
        return Value(text or f"{number:g}", value)
    if whole and (unit in _WHOLE or (text and "." not in text)):
        return Value(f"{int(number):,}", value)
    return Value(text or f"{number:.2f}", value)


def filled(text: str, known: Mapping[str, Value], without: str | None = None) -> str:
    """A text with its places filled; a sentence of which a value is missing is left out.

    Args:
        text: with `{name}` for values.
        known: the values.
        without: what to say instead when any value is missing.
    """
    if without is not None and missing(text, known):
        text = without
    sentences = [each for each in _SENTENCE.split(text.strip()) if not missing(each, known)]
    text = _WITH_UNIT.sub(lambda place: _shown(known[place[1]], place[2]), " ".join(sentences))
    return _TWO_ENDS.sub(".", text)


def _shown(value: Value, unit: str | None) -> str:
    """A value with the unit that the text writes behind it, or with the log's own."""
    if unit is None:
        return value.shown
    return f"{value.shown} {value.unit or unit}"


def in_command(text: str, known: Mapping[str, Value]) -> str:
    """A word of a command filled, values as programs take them and quoted for a shell."""
    return _PLACE.sub(lambda place: quote(str(known[place[1]].value)), text)


def missing(text: str, known: Mapping[str, Value]) -> bool:
    """Whether a place in a text has no value."""
    return any(name not in known for name in _PLACE.findall(text))


def places(text: str) -> set[str]:
    """The names that a text has places for."""
    return set(_PLACE.findall(text))


def change(patch: Mapping[str, str | int | float | bool], known: Mapping[str, Value]) -> dict[str, Number | bool]:
    """A patch with its values; empty when one is missing."""
    found: dict[str, Number | bool] = {}
    for key, value in patch.items():
        if not isinstance(value, str):
            found[key] = value
        elif missing(value, known):
            return {}
        elif whole := _PLACE.fullmatch(value):
            found[key] = known[whole[1]].value
        else:
            found[key] = _PLACE.sub(lambda place: str(known[place[1]].value), value)
    return found
