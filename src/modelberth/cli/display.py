"""Progress while a flow works: a live view on a terminal, plain lines elsewhere. Both go to standard error."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING, Protocol

from modelberth.base.clock import Stopwatch
from modelberth.base.units import format_decimal, format_seconds
from modelberth.cli.output import is_terminal, talk
from modelberth.flows.progress import BytesMoved, Event, Note, StageBegun, StageEnded

if TYPE_CHECKING:
    from rich.table import Table

_LINE_SECONDS = 30.0
"""Off a terminal, a long transfer says how far it is this often."""


class Display(Protocol):
    """A listener that can be told that the work is done."""

    def __call__(self, event: Event) -> None:
        """Show an event."""

    def finish(self) -> None:
        """Stop showing: what follows is the result."""


@contextmanager
def display(title: str) -> Iterator[Display]:
    """The display that suits standard error.

    Args:
        title: stands above a live view: the verb.
    """
    shown: LineDisplay | LiveDisplay = LiveDisplay(title) if is_terminal(sys.stderr) else LineDisplay()
    try:
        yield shown
    finally:
        shown.finish()


class LineDisplay:
    """One line an event, each with the seconds since the start."""

    def __init__(self) -> None:
        self._watch = Stopwatch()
        self._lock = Lock()
        self._last = 0.0
        self._began: dict[str, Stopwatch] = {}

    def __call__(self, event: Event) -> None:
        """Print the event's line, if it has one."""
        with self._lock:
            text = self._text(event)
            if text:
                talk(f"[{self._watch.seconds():6.1f} s] {text}")

    def finish(self) -> None:
        """Nothing to put away."""

    def _text(self, event: Event) -> str:
        if isinstance(event, StageBegun):
            self._began[event.service] = Stopwatch()
            return _line(event.service, event.stage, event.detail or "begins")
        if isinstance(event, StageEnded):
            detail = f": {event.detail}" if event.detail else ""
            return _line(event.service, event.stage, f"took {format_seconds(event.seconds)}{detail}")
        if isinstance(event, Note):
            return _note(event)
        now = self._watch.seconds()
        if now - self._last < _LINE_SECONDS or event.done == event.total:
            return ""
        self._last = now
        return _line(event.service, event.stage, _transfer(event, self._began[event.service].seconds()))


def _note(note: Note) -> str:
    return f"{note.service}: {note.text}" if note.service else note.text


def _line(service: str, stage: str, text: str) -> str:
    return f"{service}: {stage}: {text}"


@dataclass
class _Row:
    """A service in the live view."""

    stage: str = ""
    detail: str = ""
    since: Stopwatch | None = None
    moved: BytesMoved | None = None


class LiveDisplay:
    """One row a service, redrawn twice a second; notes stay above it."""

    def __init__(self, title: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._title = title
        self._watch = Stopwatch()
        self._rows: dict[str, _Row] = {}
        self._lock = Lock()
        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)
        self._live: Live | None = Live(
            console=self._console,
            get_renderable=self._table,
            refresh_per_second=2,
            transient=True,
            redirect_stdout=False,
        )
        self._live.start()

    def __call__(self, event: Event) -> None:
        """Take an event into the view."""
        if isinstance(event, Note):
            # Outside of our lock: the view's own thread takes the console's lock first and ours second.
            self._console.print(_note(event))
            return
        with self._lock:
            row = self._rows.setdefault(event.service, _Row())
            if isinstance(event, StageBegun):
                row.stage, row.detail, row.since = event.stage, event.detail, Stopwatch()
                row.moved = None
            elif isinstance(event, BytesMoved):
                row.moved = event
            else:
                row.detail = event.detail

    def finish(self) -> None:
        """Take the view off the screen."""
        if self._live:
            self._live.stop()
            self._live = None

    def _table(self) -> Table:
        from rich.table import Table

        table = Table(
            box=None,
            pad_edge=False,
            title=f"{self._title}, {format_seconds(self._watch.seconds())}",
            title_justify="left",
        )
        for title in ("SERVICE", "STAGE", "FOR", ""):
            table.add_column(title, no_wrap=title != "")
        with self._lock:
            for name, row in self._rows.items():
                seconds = format_seconds(row.since.seconds()) if row.since else ""
                table.add_row(name, row.stage, seconds, _progress(row))
        return table


def _progress(row: _Row) -> str:
    if row.moved is None or not row.moved.total or not row.since:
        return row.detail
    return _transfer(row.moved, row.since.seconds())


def _transfer(moved: BytesMoved, seconds: float) -> str:
    """`3 of 10 files, 12.00 GB of 47.14 GB, 410.00 MB/s, 86 s left`."""
    done, total = moved.done, moved.total
    rate = done / seconds if seconds > 0 else 0.0
    left = f", {format_seconds((total - done) / rate)} left" if rate and done < total else ""
    of = f" of {format_decimal(total)}" if total else ""
    files = f"{moved.files} of {moved.all_files} files, " if moved.all_files else ""
    return f"{files}{format_decimal(done)}{of}, {format_decimal(int(rate))}/s{left}"
