"""What each vLLM release does by default, and what its memory planning counts: rules by release, read from data.

A rule is a row of entries, each with the release since which it holds. A release that the data does not know takes
the nearest known one, and that is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

from modelberth.base.errors import UsageError
from modelberth.base.text import printable, shorten
from modelberth.catalog import load

Release = tuple[int, ...]
_RELEASE = re.compile(r"v?(\d{1,4}(?:\.\d{1,4}){0,3})(?:[.+-]?[A-Za-z][\w.+-]*|\+[\w.+-]*)?", re.ASCII)


@dataclass(frozen=True)
class EngineRules:
    """The rules of one release.

    Attributes:
        asked: the version as it was asked for.
        version: the known release whose rules these are.
        note: why they are not the same; empty when they are.
    """

    asked: str
    version: str
    note: str = ""

    def __getitem__(self, name: str) -> Any:
        """The value of a rule; KeyError for an unknown one, None where the rule began later."""
        return _value(name, self.version)

    def knows_cache_dtype(self, name: str) -> bool:
        """Whether the release has a KV cache of that dtype."""
        since = load("vllm")["kvCacheDtypes"]["since"].get(name)
        return since is not None and _padded(_numbers(since)) <= _padded(self.release)

    @property
    def release(self) -> Release:
        """The release as numbers, to compare."""
        return _numbers(self.version)


def versions() -> tuple[str, ...]:
    """The releases known, oldest first."""
    return tuple(load("vllm")["versions"])


def latest() -> str:
    """The newest release known."""
    return versions()[-1]


@cache
def rules_for(version: str | None) -> EngineRules:
    """The rules of a release; of the newest known one for None.

    Development builds and vendors' builds (`0.8.5.dev22+g1575c17`, `0.11.0+rhai5`) count as their release.

    Raises:
        UsageError: no version.
    """
    if version is None:
        return EngineRules(latest(), latest())
    match = _RELEASE.fullmatch(version.strip())
    if match is None:
        shown = shorten(printable(version), 40)
        raise UsageError(
            f"'{shown}' is no vLLM version", why="expected a release such as 0.25.1",
            next_step=f"known: {versions()[0]} to {latest()}",
        )  # fmt: skip
    asked, known = match[1], versions()
    if asked in known:
        return EngineRules(version, asked)
    nearest = _nearest(_numbers(asked), known)
    if _padded(_numbers(asked)) == _padded(_numbers(nearest)):  # 0.8.5.1 or 0.20 for 0.20.0
        return EngineRules(version, nearest)
    return EngineRules(version, nearest, f"vLLM {asked} is not known here: the rules of {nearest} are used")


def within(release: Release, since: str, before: str | None) -> bool:
    """Whether a release is `since` or later, and earlier than `before`."""
    padded = _padded(release)
    return _padded(_numbers(since)) <= padded and (before is None or padded < _padded(_numbers(before)))


def _nearest(asked: Release, known: Iterable[str]) -> str:
    """The newest known release that is not newer than the one asked for; the oldest where all are."""
    ordered = list(known)
    older = [version for version in ordered if _padded(_numbers(version)) <= _padded(asked)]
    return older[-1] if older else ordered[0]


def _numbers(version: str) -> Release:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


def _padded(release: Release) -> Release:
    return (*release, 0, 0, 0)[:3]


@cache
def _value(name: str, version: str) -> Any:
    value = None
    for entry in load("vllm")["rules"][name]:
        if _padded(_numbers(entry["since"])) <= _padded(_numbers(version)):
            value = entry["value"]
    return value


def by_capability(table: dict[str, Any], major: int) -> Any:
    """An entry keyed by the major number of the compute capability: the highest key that is not above it."""
    keys = sorted(int(key) for key in table if key.isdigit())
    fitting = [key for key in keys if key <= major]
    if fitting:
        return table[str(fitting[-1])]
    return table["default"] if "default" in table else table[str(keys[0])]
