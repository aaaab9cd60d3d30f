"""Timed stages of one service, told to a listener as they begin and end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from modelberth.base.clock import Clock, Stopwatch, monotonic
from modelberth.flows.progress import BytesMoved, Listener, StageBegun, StageEnded


@dataclass(frozen=True)
class StageReport:
    """A stage that has ended: its name, seconds, and what came of it (`unchanged`, `fits`)."""

    stage: str
    seconds: float
    outcome: str = ""


@dataclass
class Running:
    """A stage under way; the flow says what came of it by setting `outcome`."""

    service: str
    stage: str
    listener: Listener
    outcome: str = ""
    _done: int = 0
    _total: int = 0
    _files: int = 0
    _all_files: int = 0

    def expect(self, total: int, files: int = 0) -> None:
        """Say how many bytes this stage will move, and how many files, where they are counted."""
        self._total, self._all_files = total, files

    def moved(self, count: int) -> None:
        """Say that `count` more bytes have been moved."""
        self._done += count
        self.listener(
            BytesMoved(self.service, self.stage, self._done, self._total, self._files, self._all_files)
        )  # fmt: skip

    def file_moved(self, _path: str) -> None:
        """Say that one more file is complete."""
        self._files += 1
        self.moved(0)


@dataclass
class StageClock:
    """Runs the stages of one service and keeps their times."""

    service: str
    listener: Listener
    clock: Clock = monotonic
    reports: list[StageReport] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str, detail: str = "") -> Iterator[Running]:
        """Time one stage. A stage that fails is not reported as ended."""
        self.listener(StageBegun(self.service, name, detail))
        watch = Stopwatch(self.clock)
        running = Running(self.service, name, self.listener)
        yield running
        self.ended(name, watch.seconds(), running.outcome)

    def ended(self, name: str, seconds: float, outcome: str = "") -> None:
        """Keep a stage that was timed elsewhere."""
        self.reports.append(StageReport(name, seconds, outcome))
        self.listener(StageEnded(self.service, name, seconds, outcome))
