"""Findings out of what was raised: the root first, what follows from it folded under it, each thing once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from shlex import quote

from modelberth.findings.diagnosis.context import context, phase, report
from modelberth.findings.diagnosis.finding import Confidence, Consequence, Diagnosis, Evidence, Finding
from modelberth.findings.diagnosis.scan import LogScan
from modelberth.findings.diagnosis.signature import Signature
from modelberth.findings.diagnosis.start import MOST_EVIDENCE, Raised, Start, Stream
from modelberth.findings.diagnosis.wording import Value, change, filled, in_command, missing, values

_ORIGINS = {"exception": 0, "usage": 0, "error": 1, "object": 1, "warning": 2, "output": 2, "info": 3}
_CONSEQUENCE = 20
"""Up to this `root`, a signature is a consequence whenever there is anything above."""
_NEAR = 150
"""Lines between an exception and the one that was raised because of it."""


@dataclass
class Candidate:
    """What may become a finding.

    Attributes:
        signature: it.
        groups: captured texts.
        context: what texts may name beside them.
        evidence: the first places.
        order: what was said first counts before: number of the log, and line.
        origin: of the record, or `object`.
        count: how often.
        wrapped: told only by a wrapper around it.
        raised: in which log; None for objects.
        under: the candidates that are folded under it.
    """

    signature: Signature
    groups: Mapping[str, str]
    context: Mapping[str, Value]
    evidence: tuple[Evidence, ...]
    order: tuple[int, int]
    origin: str
    count: int = 1
    wrapped: bool = False
    raised: Raised | None = None
    under: list[Candidate] = field(default_factory=list)

    @property
    def rank(self) -> tuple[int, bool, int, tuple[int, int]]:
        """Sorts the root cause first."""
        return -self.signature.root, self.wrapped, _ORIGINS[self.origin], self.order


def failed_start(stream: Stream) -> Start | None:
    """The start of a stream that counts: the last one that failed, unless a later one is ready.

    What only degrades a server counts in its last start, ready or not.
    """
    for start in reversed(stream.starts):
        if any(start.counting()):
            return start
        if start.ready or start.wrapper:
            return None
    return None


def candidates(scans: Sequence[LogScan]) -> list[Candidate]:
    """What logs raise."""
    found: list[Candidate] = []
    for number, scan in enumerate(scans):
        for stream in scan.streams.values():
            start = failed_start(stream)
            if start is None:
                continue
            around, counts = context(start), stream.totals()
            found += [_candidate(each, around, number, counts[each.signature.id]) for each in start.counting()]
    return found


def _candidate(raised: Raised, around: Mapping[str, Value], log: int, count: int) -> Candidate:
    record = raised.record
    return Candidate(
        raised.signature, raised.groups, {**around, **phase(raised.stage)}, tuple(raised.evidence),
        (log, record.line), record.origin, count, raised.wrapped, raised,
    )  # fmt: skip


def ranked(found: Iterable[Candidate]) -> list[Candidate]:
    """Candidates with the root first; those of one signature are one, consequences stand under what explains them."""
    merged: dict[str, Candidate] = {}
    for each in sorted(found, key=lambda each: each.rank):
        known = merged.get(each.signature.id)
        if known is None:
            merged[each.signature.id] = each
        else:
            known.count += each.count
            known.evidence = (known.evidence + each.evidence)[:MOST_EVIDENCE]
            known.groups = {**each.groups, **known.groups}
            known.context = {**each.context, **known.context}
    return _folded(list(merged.values()))


def _folded(found: list[Candidate]) -> list[Candidate]:
    roots: list[Candidate] = []
    for each in found:
        above = next((other for other in found if other is not each and _explains(other, each, found)), None)
        if above is None and roots and each.signature.root <= _CONSEQUENCE:
            above = roots[0]
        if above is None:
            roots.append(each)
        else:
            above.under.append(each)
    return roots


def _explains(cause: Candidate, each: Candidate, found: Sequence[Candidate]) -> bool:
    if each.signature.id in cause.signature.explains:
        # Two that explain each other: the one that ranks first is the root.
        return cause.signature.id not in each.signature.explains or found.index(cause) < found.index(each)
    return cause.signature.root >= each.signature.root and _chained(cause, each)


def _chained(cause: Candidate, each: Candidate) -> bool:
    """Whether an exception was raised because of another one, in the same process."""
    first, then = cause.raised, each.raised
    if first is None or then is None or then.traceback is None or not then.traceback.chained:
        return False
    together = cause.order[0] == each.order[0] and first.record.of.process == then.record.of.process
    return together and 0 < then.traceback.begins - first.record.line < _NEAR


def findings(found: Iterable[Candidate]) -> tuple[Finding, ...]:
    """Candidates as findings, root cause first."""
    return tuple(_finding(each) for each in ranked(found))


def _finding(each: Candidate) -> Finding:
    signature = each.signature
    own = values(each.groups, signature.numbers)
    known = {**each.context, **own}
    return Finding(
        id=signature.id,
        title=signature.title,
        severity=signature.severity,
        confidence=_confidence(each),
        stage=signature.stage,
        cause=filled(signature.cause, known, signature.cause_without) or f"{signature.title}.",
        numbers={name: value.value for name, value in own.items()},
        evidence=each.evidence,
        count=each.count,
        fix=filled(signature.fix, known, signature.fix_without),
        patch=change(signature.patch, known),
        command=_command(signature.command, known),
        confirm=filled(signature.confirm, known),
        links=signature.links,
        consequences=tuple(_consequences(each)),
    )


def _consequences(each: Candidate) -> Iterable[Consequence]:
    for below in each.under:
        yield Consequence(below.signature.id, below.signature.title, below.evidence[:1])
        yield from _consequences(below)


def _confidence(each: Candidate) -> Confidence:
    if each.wrapped:
        return "medium"
    return "high" if _ORIGINS[each.origin] <= 1 else "medium"


def _command(text: str, known: Mapping[str, Value]) -> str:
    """A command; values of others are quoted, because people paste it into a shell."""
    if not text or missing(text, known):
        return ""
    words = {"MODEL": known.get("model"), "GPU": known.get("gpu_name")}
    parts = [
        quote(str(value.value)) if (value := words.get(part)) else in_command(part, known) for part in text.split(" ")
    ]
    return " ".join(parts)


_COLLECT = (
    "the whole log from its first line, previous containers too: kubectl logs POD --all-containers --prefix --previous",
    "the pod's state and events: kubectl describe pod POD",
)


def diagnosis(scans: Sequence[LogScan], further: Iterable[Candidate] = ()) -> Diagnosis:
    """What logs and further candidates say together."""
    found = findings([*candidates(scans), *further])
    last = _last(scans)
    result = Diagnosis(
        findings=found,
        stage=_stage(found, last),
        state=last.state if last else "unknown",
        truncated=tuple(_truncated(scans)),
        starts=sum(stream.count for scan in scans for stream in scan.streams.values()),
        figures=report(failed) if (failed := _that_counts(scans) or last) else None,
    )
    if found or last is None or last.state != "failed":
        return result
    return replace(result, first_error=last.first_error or last.wrapper, collect=_COLLECT)


def _that_counts(scans: Sequence[LogScan]) -> Start | None:
    """The start that the findings are of, where they are of a log."""
    starts = (failed_start(stream) for scan in scans for stream in scan.streams.values())
    return next((start for start in starts if start and start.figures), None)


def _last(scans: Sequence[LogScan]) -> Start | None:
    """The start that tells how things are: of those that failed the last, else the last of all."""
    starts = [stream.now for scan in scans for stream in scan.streams.values()]
    failed = [start for start in starts if start.state == "failed"]
    return (failed or starts)[-1] if starts else None


def _stage(found: Sequence[Finding], last: Start | None) -> str:
    if found and found[0].stage:
        return found[0].stage
    return last.stage if last else ""


def _truncated(scans: Sequence[LogScan]) -> Iterable[str]:
    for scan in scans:
        if scan.counts.cut:
            lines = "line" if scan.counts.cut == 1 else "lines"
            yield f"{scan.name}: {scan.counts.cut} {lines} longer than 64 KiB, cut"
