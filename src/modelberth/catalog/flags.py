"""Which release of vLLM's server knows which flag, read from its source distributions."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from modelberth.catalog import load
from modelberth.catalog.vllm import rules_for


@dataclass(frozen=True)
class Flag:
    """A flag of vLLM's server.

    Attributes:
        name: without dashes.
        is_switch: whether it stands alone; `--no-<name>` is its opposite.
        since: first release that knows it, of those that were read.
        until: last one.
    """

    name: str
    is_switch: bool
    since: str
    until: str


def flag(name: str) -> Flag | None:
    """A flag of any release, by its name, another name of it, a short form or its `no-` form; None for an unknown one.

    What vLLM reads as a part of another flag (`compilation-config.level`) is that flag.
    """
    plain = name.lstrip("-").replace("_", "-").partition(".")[0]
    names = _names()
    found = names.get(plain) or names.get(plain.removeprefix("no-"))
    return _flag(found) if found else None


def known(release: str) -> tuple[str, ...]:
    """The flags of a release; of the nearest one that was read, for another."""
    return tuple(name for name in load("vllm_flags")["flags"] if is_in(_flag(name), release))


def is_in(found: Flag, release: str) -> bool:
    """Whether a release knows a flag."""
    order: list[str] = load("vllm_flags")["releases"]
    return order.index(found.since) <= order.index(_nearest(release)) <= order.index(found.until)


def _nearest(release: str) -> str:
    order: list[str] = load("vllm_flags")["releases"]
    return release if release in order else rules_for(release).version


@cache
def _names() -> dict[str, str]:
    """Every way to write a flag -> its name."""
    flags = load("vllm_flags")["flags"]
    return {each: name for name, facts in flags.items() for each in (*facts.get("also", ()), name)}


def _flag(name: str) -> Flag:
    facts, order = load("vllm_flags")["flags"][name], load("vllm_flags")["releases"]
    return Flag(name, facts["kind"] == "switch", facts.get("since", order[0]), facts.get("until", order[-1]))
