"""The stages of an engine's start, told from its log.

A stage begins with the line that marks it and lasts until the next one begins. Stages only go forward: a
second worker that says the same changes nothing. Stages that an engine skips (no compilation with
--enforce-eager, no graphs on a CPU) do not appear. Ready is never told from the log: vLLM says "Application
startup complete." before its socket listens, so only an answer from the endpoint counts.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from modelberth.catalog import load
from modelberth.timeline.log_lines import LogLine

PROCESS = "process"
WEIGHTS = "weights"
SERVER = "server"
READY = "ready"
_TOKENS = re.compile(r"(?<![0-9,])([0-9][0-9,]{0,30}) tokens")


@dataclass(frozen=True)
class StageTime:
    """A stage that has ended, and how long it took in seconds."""

    stage: str
    seconds: float


class StartUp:
    """The start of one engine.

    Attributes:
        stage: the stage it is in; `process` from the beginning, `ready` at the end.
        since: when that stage began.
        kv_cache_tokens: what the engine reported; None before it did.
    """

    def __init__(self, now: float) -> None:
        self.stage = PROCESS
        self.kv_cache_tokens: int | None = None
        self.since = now
        self._ended: list[StageTime] = []
        facts = load("engine_log")
        self._order = [PROCESS, *(item["stage"] for item in facts["stages"]), READY]
        self._starts = [(item["stage"], tuple(item["starts"])) for item in facts["stages"]]
        self._token_marks = tuple(facts["kvCacheTokens"])

    @property
    def order(self) -> list[str]:
        """Every stage, in the order in which a start goes through them."""
        return list(self._order)

    def feed(self, line: LogLine, now: float) -> str | None:
        """Take the next line; returns the stage that begins with it, if one does."""
        if line.message.startswith(self._token_marks) and (match := _TOKENS.search(line.message)):
            self.kv_cache_tokens = int(match[1].replace(",", ""))
        for stage, marks in self._starts:
            if line.message.startswith(marks):
                return self._enter(stage, now)
        return None

    def ready(self, now: float) -> None:
        """The endpoint answers: whatever stage was under way has ended."""
        self._enter(READY, now)

    def _enter(self, stage: str, now: float) -> str | None:
        if self._order.index(stage) <= self._order.index(self.stage):
            return None
        self._ended.append(StageTime(self.stage, now - self.since))
        self.stage, self.since = stage, now
        return stage

    @property
    def ended(self) -> tuple[StageTime, ...]:
        """The stages that have ended, in order."""
        return tuple(self._ended)
