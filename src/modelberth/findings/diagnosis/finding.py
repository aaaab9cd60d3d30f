"""What a diagnosis finds: the cause in the numbers of this case, its evidence, its fix, and what follows from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from modelberth.timeline.memory_report import MemoryReport

Severity = Literal["low", "medium", "high"]
Confidence = Literal["low", "medium", "high"]
Number = int | float | str
"""A value of this case: a number where it is one, a name or a path as text."""

EXIT_CODES: Mapping[Severity, int] = {"low": 21, "medium": 22, "high": 23}


@dataclass(frozen=True)
class Evidence:
    """Where it was said.

    Attributes:
        source: name of the log, or `Pod private-ai/mistral-0` for an object.
        line: of the log, 1-based; 0 for an object.
        text: the line itself, without escapes and control characters, shortened.
        time: as it stands there; empty where it does not.
        process: the process or rank that said it; empty where it is not named.
    """

    source: str
    line: int
    text: str
    time: str = ""
    process: str = ""


@dataclass(frozen=True)
class Consequence:
    """What follows from a finding and would not stand without it.

    Attributes:
        id: of its own signature; empty for a wrapper line.
        title: what it is.
        evidence: where it was said.
    """

    id: str
    title: str
    evidence: tuple[Evidence, ...] = ()


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
        id: of its signature, `MB-KV-001`.
        title: what is wrong, in a few words.
        severity: high: it does not start or answers nothing; medium: degraded; low: worth knowing.
        confidence: how sure it is that this is meant.
        stage: the stage of the start that it breaks, as `timeline.stages` names them; empty where none.
        cause: why, in the numbers of this case.
        numbers: those numbers by name; memory in the unit that the signature names.
        evidence: where it was said, first place first; at most a handful.
        count: how often it was said, all ranks and restarts together.
        fix: what to do.
        patch: keys of the variant in berth.yaml and their values, where that is a safe fix.
        command: the command that leads on; empty where none does.
        confirm: what would confirm it.
        links: sources.
        consequences: what else was said because of it.
    """

    id: str
    title: str
    severity: Severity
    confidence: Confidence
    stage: str
    cause: str
    numbers: Mapping[str, Number] = field(default_factory=dict)
    evidence: tuple[Evidence, ...] = ()
    count: int = 1
    fix: str = ""
    patch: Mapping[str, Number | bool] = field(default_factory=dict)
    command: str = ""
    confirm: str = ""
    links: tuple[str, ...] = ()
    consequences: tuple[Consequence, ...] = ()

    @property
    def memory(self) -> bool:
        """Whether it is about memory of a GPU, so that a plan can say what would fit."""
        return self.id.startswith(("MB-KV-", "MB-MEM-"))


@dataclass(frozen=True)
class Diagnosis:
    """What a diagnosis says.

    Attributes:
        findings: root cause first; empty when nothing is wrong, or nothing of it is known.
        stage: the stage that the last start reached or broke in; empty where no start was seen.
        state: `ready`, `failed`, `stopped` (it was told to), or `unknown` (the log ends before anything is decided).
        first_error: the first error that only repeats no other one, when nothing was found; else None.
        collect: what would help to go on, when nothing was found though something failed.
        truncated: what was left out of reading, in words; empty when nothing was.
        starts: how many starts of an engine were seen.
        figures: what the log of the start that failed says about memory and arguments; None without a log.
    """

    findings: tuple[Finding, ...]
    stage: str = ""
    state: Literal["ready", "failed", "stopped", "unknown"] = "unknown"
    first_error: Evidence | None = None
    collect: tuple[str, ...] = ()
    truncated: tuple[str, ...] = ()
    starts: int = 0
    figures: MemoryReport | None = None

    @property
    def exit_code(self) -> int:
        """0 with no finding, else 21 to 23 by the worst."""
        return max((EXIT_CODES[each.severity] for each in self.findings), default=0)
