"""Which release of vLLM's server knows which flag, read from its source distributions.

What a flag is may change with the release: a span is what it is since one release, until the next span begins. A
release that was not read takes the nearest one before it, as in `modelberth.catalog.vllm`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from modelberth.catalog import load
from modelberth.catalog.vllm import rules_for

_LEVEL = re.compile(r"O(\d|=|$)")
"""`-O3`: the flag `-O` with its value in one word."""


@dataclass(frozen=True)
class Flag:
    """A flag of vLLM's server, as one release has it.

    Attributes:
        name: without dashes.
        kind: `switch` (`--no-<name>` is its opposite), `alone` (it has none), `boolean` (true, false, or nothing),
            `optional` (a value or nothing), `value`, `list` (several words), `append` (may be given again).
        choices: the values that there are; empty where others are taken, or it is not known.
        short: its other names, with their dashes.
        since: first release that knows it, of those that were read.
        until: last one.
        deprecated: whether the release warns of it.
        replaced_by: what vLLM's own words name instead of it, without dashes; empty where they name nothing.
        serve_only: whether `vllm serve` has it and the module `vllm.entrypoints.openai.api_server` has not.
    """

    name: str
    kind: str
    choices: tuple[str, ...]
    short: tuple[str, ...]
    since: str
    until: str
    deprecated: bool
    replaced_by: str
    serve_only: bool

    @property
    def is_switch(self) -> bool:
        """Whether it stands alone."""
        return self.kind in {"switch", "alone"}


@cache
def flag(name: str, release: str | None = None) -> Flag | None:
    """A flag by its name, a short form, its `no-` form or (since 0.33) `disable-` for `enable-`; None for no flag.

    What vLLM reads as a part of another flag (`compilation-config.level`) is that flag.

    Args:
        name: with dashes or without, `_` as `-`.
        release: of vLLM; any release for None, and the facts of the newest that knows the flag.
    """
    plain = name.lstrip("-").partition(".")[0].replace("_", "-")
    plain = "O" if _LEVEL.match(plain) else plain
    for candidate, kinds in _readings(plain, release):
        found = _names().get(candidate)
        for span in reversed(_spans(found, release) if found else []):
            if not kinds or span["kind"] in kinds:
                return _flag(found, span) if found else None
    return None


@cache
def known(release: str) -> tuple[str, ...]:
    """The flags of a release; of the nearest one that was read, for another."""
    return tuple(name for name in load("vllm_flags")["flags"] if _spans(name, release))


def is_in(found: Flag, release: str) -> bool:
    """Whether a release knows a flag."""
    return bool(_spans(found.name, release))


def is_after(release: str, other: str) -> bool:
    """Whether a release is later than another."""
    return _index(release) > _index(other)


def reads_parts(release: str) -> bool:
    """Whether a release reads `--flag.key=value` as a part of `--flag`."""
    return _index(load("vllm_flags")["dottedSince"]) <= _index(release)


def _readings(plain: str, release: str | None) -> Iterator[tuple[str, set[str]]]:
    """What a name may stand for, and the kinds of flag that have such a form (none: every kind)."""
    yield plain, set()
    if plain.startswith("no-"):
        yield plain.removeprefix("no-"), {"switch"}
    if release is None or _index(release) >= _index(load("vllm_flags")["disableSince"]):
        for prefix, opposite in (("disable-", "enable-"), ("enable-", "disable-")):
            if plain.startswith(prefix):
                yield opposite + plain.removeprefix(prefix), {"switch"}


def _spans(name: str, release: str | None) -> list[dict[str, Any]]:
    """The spans of a flag: all, or the one that a release is in."""
    spans: list[dict[str, Any]] = load("vllm_flags")["flags"][name]
    if release is None:
        return spans
    at = _index(release)
    begun = [span for span in spans if _index(span["since"]) <= at][-1:]
    return [span for span in begun if "until" not in span or at <= _index(span["until"])]


@cache
def _index(release: str) -> int:
    order: list[str] = load("vllm_flags")["releases"]
    if release in order:
        return order.index(release)
    nearest = rules_for(release).version
    return order.index(nearest) if nearest in order else order.index(nearest.partition(".post")[0])


@cache
def _names() -> dict[str, str]:
    """Every way to write a flag -> its name."""
    flags = load("vllm_flags")["flags"]
    short = {each.lstrip("-"): name for name, spans in flags.items() for span in spans for each in span.get("also", ())}
    return short | {name: name for name in flags}


def _flag(name: str, span: dict[str, Any]) -> Flag:
    data = load("vllm_flags")
    spans = data["flags"][name]
    return Flag(
        name, span["kind"], tuple(span.get("choices", ())), tuple(span.get("also", ())), spans[0]["since"],
        spans[-1].get("until", data["releases"][-1]), span.get("deprecated", False), data["replaced"].get(name, ""),
        span.get("serve", False),
    )  # fmt: skip
