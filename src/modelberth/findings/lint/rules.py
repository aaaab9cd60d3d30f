"""What a rule is, and what it finds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from modelberth.base.yamlio import Path
    from modelberth.findings.lint.world import Manifest, World

Severity = Literal["low", "medium", "high"]
PREFIX = "MB-LINT-"


@dataclass(frozen=True)
class Hit:
    """One place where a rule is broken.

    Attributes:
        manifest: the object.
        path: of the value in it.
        message: what is there, with the numbers and names of the case.
        fix: what to write instead.
        replacement: the text of the scalar at `path` after a safe fix; None where only people can fix it.
        of_key: the key is meant, not its value.
    """

    manifest: Manifest
    path: Path
    message: str
    fix: str
    replacement: str | None = None
    of_key: bool = False


Check = Callable[["World"], Iterator[Hit]]


@dataclass(frozen=True)
class Rule:
    """One rule.

    Attributes:
        number: of its id, `MB-LINT-<number>`.
        title: what is wrong, in a few words.
        severity: high: it does not start, loses data or opens a door; medium: it will hurt; low: it confuses.
        why: what happens, in one or two sentences.
        check: finds the places.
    """

    number: int
    title: str
    severity: Severity
    why: str
    check: Check

    @property
    def id(self) -> str:
        """`MB-LINT-101`."""
        return f"{PREFIX}{self.number}"


def rule(number: int, severity: Severity, title: str, why: str) -> Callable[[Check], Rule]:
    """Make a check a rule."""

    def make(check: Check) -> Rule:
        return Rule(number, title, severity, why, check)

    return make
