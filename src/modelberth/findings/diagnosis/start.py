"""One start of an engine, or one run of any other container, as its log tells it.

What a start raised counts by how it went on: nothing of what is said before it is ready counts once it is, nothing
counts after somebody told it to stop, and what happens to single requests counts only when none succeeds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Literal

from modelberth.findings.diagnosis.described import shows_an_event
from modelberth.findings.diagnosis.finding import Evidence
from modelberth.findings.diagnosis.marks import Wrapper, marks
from modelberth.findings.diagnosis.matching import Hit, Patterns, Surroundings, wrapper_of
from modelberth.findings.diagnosis.records import Reading, Record, Traceback
from modelberth.findings.diagnosis.signature import Signature
from modelberth.findings.diagnosis.wording import safe
from modelberth.timeline.log_entry import ERROR, INFO
from modelberth.timeline.stages import READY

State = Literal["ready", "failed", "stopped", "unknown"]
MOST_EVIDENCE = 3
_SHOWN = 400
_MOST_FIGURES = 2000
_MOST_TEXTS = 4000
_MOST_STARTS = 8
"""Starts of a container that are kept; of those before them only what they raised is counted."""
_REJECTED_OFTEN = 5
_ARGUMENTS = "non-default args: "
_LAST_LINES = 12
"""Lines that may follow what is called the last: every rank says its own."""
_VERSION = re.compile(r"(?:\bversion |\(v)(?P<version>[0-9][\w.+-]{0,40})")
_REPEATED = re.compile(r"\[repeated (\d{1,6})x across cluster\]")  # Ray folds what its workers say alike
_TRACE_LINE = ('File "', "Traceback (most recent call last)", "^", "~")


@dataclass
class Raised:
    """A signature that a start raised.

    Attributes:
        signature: it.
        groups: what its pattern captured where it was raised first; later places fill in what is missing.
        record: the first of its records.
        traceback: that of the first record.
        evidence: the first places.
        lines: how often.
        processes: which said it.
        last: line of the last record.
        wrapped: it was told only by a wrapper around it.
        must_be_last: it counts only where nothing is said after it.
        stage: that the start was in.
    """

    signature: Signature
    groups: dict[str, str]
    record: Record
    traceback: Traceback | None
    evidence: list[Evidence] = field(default_factory=list)
    lines: int = 0
    processes: set[str] = field(default_factory=set)
    last: int = 0
    wrapped: bool = False
    must_be_last: bool = False
    stage: str = ""


@dataclass
class Start:
    """What is known of one start. Lines are numbers from 1, 0 where there is none.

    Attributes:
        source: name of the log.
        pod: that it ran in; empty where it is not known.
        container: likewise.
        first: its first line that was looked at.
        version: of vLLM; empty where it is not known.
        stage: that it reached, as `timeline.stages` names them; empty before the first.
        raised: by id.
        figures: its lines about memory and arguments, with their numbers.
        first_error: the first exception that does not only repeat another one, or else the first such error;
            `only_said` tells that it is the second kind.
        wrapper: the first line that repeats a failure.
        ready: line on which it said that it answers.
        done: line on which a container that only prepares, such as the storage initializer, said that it has done so.
        stopping: line on which it was told to stop.
        died: line on which it had died.
        served: answers with status 200 to POST requests; `last_served` is the line of the last.
        rejected: answers with a status from 400 on.
        progress: the last line that told of a stage, a figure, an end or an error.
        end: the last line of the log; known once it was read.
    """

    source: str
    pod: str = ""
    container: str = ""
    first: int = 0
    version: str = ""
    stage: str = ""
    raised: dict[str, Raised] = field(default_factory=dict)
    figures: list[tuple[int, str]] = field(default_factory=list)
    first_error: Evidence | None = None
    wrapper: Evidence | None = None
    ready: int = 0
    done: int = 0
    stopping: int = 0
    died: int = 0
    served: int = 0
    last_served: int = 0
    rejected: int = 0
    progress: int = 0
    end: int = 0
    only_said: bool = False
    has_engine: bool = False
    has_banner: bool = False
    banner_of: str = ""
    arguments_of: str | None = None

    @property
    def state(self) -> State:
        """How it ended, as far as the log shows."""
        if self.died or any(each.signature.phase == "start" for each in self.counting()):
            return "failed"
        if self.stopping:
            return "stopped"
        if self.ready:
            return "ready"
        return "failed" if self.wrapper or self.first_error else "unknown"

    def answered(self, status: bytes, line: int) -> None:
        """A POST request was answered."""
        if status.startswith(b"2"):
            self.served += 1
            self.last_served = line
            self.ready = self.ready or line
        elif status >= b"400":
            self.rejected += 1

    def healthy(self, line: int) -> None:
        """The health endpoint answered well."""
        self.ready = self.ready or line

    def counting(self) -> Iterator[Raised]:
        """What counts of what it raised."""
        for each in self.raised.values():
            if self._counts(each):
                yield each

    def _counts(self, raised: Raised) -> bool:
        if raised.traceback is not None and _REPORTS_HOME in raised.traceback.frames:
            return False  # a thread that tells vLLM's makers of the use: nothing depends on it
        phase = raised.signature.phase
        if phase == "request":
            often = raised.lines >= _REJECTED_OFTEN and raised.lines >= self.served
            return self.served == 0 or often
        if phase == "serving":
            return True
        if raised.must_be_last and (self.progress > raised.last or self.end - raised.last > _LAST_LINES):
            return False
        if raised.last < max(self.ready, self.done):
            return False  # it came up all the same
        if self.died and raised.record.line <= self.died + _WAKE:
            return True
        if not self.ready:
            return True
        # A server that is up and did not die: what one request or a helper thread met is none of its failures.
        return self.last_served <= raised.last and _is_of_engine(raised.record)


def _is_of_engine(record: Record) -> bool:
    """Whether the engine itself said it, and not the server in front of it."""
    return record.of.process.startswith(_ENGINE_PROCESSES) or record.of.source.partition(":")[0] in _ENGINE_FILES


_REPORTS_HOME = "usage_lib.py"
_ENGINE_PROCESSES = ("EngineCore", "VllmWorker", "Worker", "RayWorker")
_ENGINE_FILES = frozenset({"core.py", "multiproc_executor.py", "gpu_worker.py", "worker.py", "engine.py"})
_WAKE = 400
"""Lines after the first sign of a death in which its cause may still be told, by another process."""


class Stream:
    """The log of one container: its starts, one after the other."""

    def __init__(self, source: str, pod: str, container: str, version: str = "") -> None:
        self._source, self._pod, self._container, self._version = source, pod, container, version
        self.starts: list[Start] = [Start(source, pod, container, version=version)]
        self._texts: dict[tuple[str, str, str], tuple[tuple[Hit, ...], Wrapper | None]] = {}
        self._earlier: dict[str, int] = {}
        self.count = 1

    @property
    def now(self) -> Start:
        """The start that is being read."""
        return self.starts[-1]

    def totals(self) -> dict[str, int]:
        """How often each signature was raised, all starts together."""
        return _totals(self.starts, self._earlier)

    def feed(self, index: int, reading: Reading, patterns: Patterns) -> bool:
        """Take a line; True when no line of its shape will ever say anything."""
        of = reading.entry(index)
        text = of.text.lstrip()
        if text.startswith(_TRACE_LINE) or (of.level == ERROR and of.text.startswith("    ")):
            return True
        line = reading.window.number + index
        begun = self._begin(text, of.process)
        self.now.first = self.now.first or line
        told = self._progress(text, line) or begun
        if self.now.stopping:
            return False
        if of.level == INFO and text.startswith(marks().quoting):
            return False
        record = reading.record(index)
        if record.origin == "output" and shows_an_event(record.text):
            return False  # read as the event that it is, which later ones may settle
        raised = self._match(record, reading, patterns)
        return record.origin in ("info", "warning") and not (told or raised or patterns.concern(record))

    # --- how it goes on ----------------------------------------------------------------------------------------

    def _begin(self, text: str, process: str) -> bool:
        """Begin a new start where a message is the first of one; True for a line with which a start begins."""
        now, known = self.now, marks()
        over = now.state != "unknown" or now.has_engine
        if text.startswith(known.banner):
            if over or (now.has_banner and now.banner_of == process):
                now = self._next()
            now.has_banner, now.banner_of = True, process
        elif text.startswith(_ARGUMENTS):
            # Since 0.15 the banner is drawn in blocks; a process that says its arguments again has started again.
            if over or now.arguments_of == process:
                now = self._next()
            now.arguments_of = process
        elif text.startswith(known.engine):
            if now.has_engine and now.state in ("ready", "failed", "stopped"):
                now = self._next()
            now.has_engine = True
        else:
            return False
        if version := _VERSION.search(text):
            now.version = version["version"]
        return True

    def _next(self) -> Start:
        if len(self.starts) >= _MOST_STARTS:
            self._earlier = _totals([self.starts.pop(0)], self._earlier)
        self.starts.append(Start(self._source, self._pod, self._container, version=self._version))
        self.count += 1
        return self.now

    def _progress(self, text: str, line: int) -> bool:
        """Note how far it came; True for a line that tells it."""
        now, known = self.now, marks()
        before = (now.progress, now.ready, now.done, now.stopping, now.died)
        for stage, starts in known.stages:
            if text.startswith(starts):
                now.stage, now.progress = stage, line
        if text.startswith(known.memory):
            now.progress = line
            if len(now.figures) < _MOST_FIGURES:
                now.figures.append((line, text))
        if text.startswith(known.ready):
            now.ready, now.died = line, 0
        elif text.startswith(known.done):
            now.done = line
        elif not now.stopping and _stops(text, ready=bool(now.ready)):
            now.stopping = line
        elif now.ready and not now.stopping and not now.died and text.startswith(known.died):
            now.died = line
        return before != (now.progress, now.ready, now.done, now.stopping, now.died)

    # --- what it raises ----------------------------------------------------------------------------------------

    def _match(self, record: Record, reading: Reading, patterns: Patterns) -> bool:
        """Raise what a record raises; True when it raises anything."""
        traceback: list[Traceback] = []

        def trace() -> Traceback:
            if not traceback:
                traceback.append(reading.traceback(record))
            return traceback[0]

        stage = READY if self.now.ready else self.now.stage
        around = Surroundings(record.of.container or self._container, self.now.version, stage)
        key = (record.origin, f"{around.version} {stage}", record.text)
        hits, wrapper = self._texts.get(key) or (None, None)
        if hits is None:
            wrapper = wrapper_of(record)
            inner = _unwrapped(record, wrapper.opens) if wrapper and wrapper.opens else None
            hits = patterns.hits(inner or record, around, trace)
            if len(self._texts) < _MOST_TEXTS:
                self._texts[key] = hits, wrapper
        for hit in hits:
            self._raise(hit, record, trace, wrapped=wrapper is not None and bool(wrapper.opens))
        if record.origin in ("exception", "usage", "error"):
            self.now.progress = record.line
            self._error(record, is_wrapper=wrapper is not None)
        return bool(hits)

    def _raise(self, hit: Hit, record: Record, trace: object, *, wrapped: bool) -> None:
        raised = self.now.raised.get(hit.signature.id)
        if raised is None:
            found = trace() if record.origin == "exception" and callable(trace) else None
            raised = Raised(
                hit.signature, dict(hit.groups), record, found, wrapped=wrapped, must_be_last=hit.last,
                stage=self.now.stage,
            )  # fmt: skip
            self.now.raised[hit.signature.id] = raised
        elif raised.wrapped and not wrapped:
            raised.record, raised.wrapped, raised.evidence = record, False, []
        raised.groups = {**hit.groups, **raised.groups}
        repeated = _REPEATED.search(record.text[-_SHOWN:])
        raised.lines += 1 + (int(repeated[1]) if repeated else 0)
        raised.last = record.line
        raised.processes.add(record.of.process)
        if len(raised.evidence) < MOST_EVIDENCE:
            raised.evidence.append(evidence(self._source, record))

    def _error(self, record: Record, *, is_wrapper: bool) -> None:
        now = self.now
        if is_wrapper:
            now.wrapper = now.wrapper or evidence(self._source, record)
        elif record.text.strip() and (now.first_error is None or (record.origin != "error" and now.only_said)):
            now.first_error, now.only_said = evidence(self._source, record), record.origin == "error"


def _stops(text: str, *, ready: bool) -> bool:
    """Whether a message says that it is being stopped."""
    known = marks()
    return text.startswith(known.signalled) or text in known.whole or (ready and text.startswith(known.shutdown))


def _unwrapped(record: Record, opens: str) -> Record | None:
    _, mark, inside = record.text.partition(opens)
    if not mark:
        return None
    return Record(record.line, record.origin, inside, record.classes, record.of, record.traced)


def evidence(source: str, record: Record) -> Evidence:
    """Where a record stands, and what it says."""
    text = record.text if record.origin != "usage" else f"error: {record.text}"
    return Evidence(source, record.line, safe(text, _SHOWN), record.of.time, record.of.process)


def _totals(starts: list[Start], known: Mapping[str, int]) -> dict[str, int]:
    found = dict(known)
    for start in starts:
        for name, raised in start.raised.items():
            found[name] = found.get(name, 0) + raised.lines
    return found
