"""Whether a regular expression takes linear time: told from its structure, without running it.

A repeat can make a backtracking matcher try again. Two things keep that harmless: what follows the repeat cannot
begin with a character of the repeat (`[0-9]+ tokens`), or the repeat is bounded and few of these stand in one pattern.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from re import _constants as op  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

MOST_TRIES = 600_000
"""Product of the bounds of those repeats in a pattern that can take from each other."""
_ALL = frozenset(range(257))  # 256 stands for every character past Latin-1


def problems(pattern: str) -> Iterator[str]:
    """What is not linear in a pattern."""
    tries, found = _sequence(list(parser.parse(pattern)), _ALL & frozenset(), nullable_end=True)
    yield from found
    if tries > MOST_TRIES:
        yield f"its repeats can be tried in {tries:,} ways; at most {MOST_TRIES:,}: bound them, or end each otherwise"


def _sequence(items: Sequence[Any], after: frozenset[int], *, nullable_end: bool) -> tuple[int, list[str]]:
    """Ways to try a sequence, and what is wrong in it. `after` is what may follow it."""
    tries, found = 1, []
    for index, (kind, value) in enumerate(items):
        rest, nullable = _first(items[index + 1 :])
        follow = rest | after if nullable else rest
        ends = nullable and nullable_end and not after
        more, wrong = _item(kind, value, follow, ends)
        tries *= more
        found += wrong
    return tries, found


def _item(kind: Any, value: Any, follow: frozenset[int], ends: bool) -> tuple[int, list[str]]:
    if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
        return _repeat(value, follow, ends)
    if kind is op.SUBPATTERN:
        return _sequence(list(value[3]), follow, nullable_end=ends)
    if kind is op.BRANCH:
        tries, found = 0, []
        for branch in value[1]:
            more, wrong = _sequence(list(branch), follow, nullable_end=ends)
            tries += more if more > 1 else 0
            found += wrong
        return max(1, tries), found
    if kind in (op.ASSERT, op.ASSERT_NOT):
        return _sequence(list(value[1]), _ALL, nullable_end=False)
    if kind in (op.GROUPREF, op.GROUPREF_EXISTS):
        return 1, ["a reference to a group is not linear"]
    return 1, []


def _repeat(value: Any, follow: frozenset[int], ends: bool) -> tuple[int, list[str]]:
    least, most, inner = value
    body = list(inner)
    own, _ = _first(body)
    variable = least != most
    tries, found = _sequence(body, follow | own, nullable_end=False)
    if int(most) > 1 and variable and any(_varies(*each) for each in body):
        found = [*found, "a repeat inside of a repeat"]
    if not variable or int(most) == 1:
        return (tries if int(most) == 1 else 1) * (2 if int(most) == 1 and variable and own & follow else 1), found
    if ends or not own & follow:
        return 1, found
    if most is op.MAXREPEAT:
        return 1, [*found, "an endless repeat before something that it can match too: bound it, as {0,80}"]
    return int(most) - int(least) + 1, found


def _varies(kind: Any, value: Any) -> bool:
    if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
        return (value[0] != value[1] and int(value[1]) > 1) or any(_varies(*each) for each in value[2])
    if kind is op.SUBPATTERN:
        return any(_varies(*each) for each in value[3])
    if kind is op.BRANCH:
        return any(_varies(*each) for branch in value[1] for each in branch)
    return False


def _first(items: Sequence[Any]) -> tuple[frozenset[int], bool]:
    """Characters that a sequence may begin with, and whether it may be empty."""
    found: frozenset[int] = frozenset()
    for kind, value in items:
        more, empty = _first_of(kind, value)
        found |= more
        if not empty:
            return found, False
    return found, True


def _first_of(kind: Any, value: Any) -> tuple[frozenset[int], bool]:
    if kind in (op.MAX_REPEAT, op.MIN_REPEAT):
        found, empty = _first(list(value[2]))
        return found, empty or value[0] == 0
    if kind is op.SUBPATTERN:
        return _first(list(value[3]))
    if kind is op.BRANCH:
        parts = [_first(list(branch)) for branch in value[1]]
        return frozenset().union(*(part for part, _ in parts)), any(empty for _, empty in parts)
    if kind in (op.AT, op.ASSERT, op.ASSERT_NOT):
        return frozenset(), True
    return _characters(kind, value), False


def _characters(kind: Any, value: Any) -> frozenset[int]:
    if kind is op.LITERAL:
        return frozenset({min(value, 256)})
    if kind is op.NOT_LITERAL:
        return _ALL - {value} if value < 256 else _ALL
    if kind is op.ANY:
        return _ALL
    if kind is op.IN:
        found: frozenset[int] = frozenset()
        for part, argument in value:
            if part is op.NEGATE:
                continue
            if part is op.RANGE:
                found |= frozenset(min(each, 256) for each in range(argument[0], min(argument[1], 256) + 1))
            elif part is op.CATEGORY:
                found |= _category(argument)
            else:
                found |= _characters(part, argument)
        return (_ALL - found) | {256} if value[0][0] is op.NEGATE else found
    return _ALL


def _category(name: Any) -> frozenset[int]:
    digits = frozenset(range(48, 58)) | {256}
    spaces = frozenset({9, 10, 11, 12, 13, 28, 29, 30, 31, 32, 133, 160, 256})
    words = frozenset(each for each in range(256) if chr(each).isalnum() or each == 95) | {256}
    kinds = {
        op.CATEGORY_DIGIT: digits, op.CATEGORY_SPACE: spaces, op.CATEGORY_WORD: words,
        op.CATEGORY_NOT_DIGIT: (_ALL - digits) | {256}, op.CATEGORY_NOT_SPACE: (_ALL - spaces) | {256},
        op.CATEGORY_NOT_WORD: (_ALL - words) | {256},
    }  # fmt: skip
    return kinds[name]
