"""What `berth diagnose` says: the root cause, its evidence and fix, then what follows from it."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from modelberth import __version__
from modelberth.base.yamlio import write_documents
from modelberth.cli import output
from modelberth.findings.diagnosis.documents import document, junit, sarif
from modelberth.findings.diagnosis.finding import Diagnosis, Evidence, Finding
from modelberth.flows.diagnose import DiagnoseResult

_WIDEST = 110


def show(result: DiagnoseResult, form: str) -> None:
    """The diagnosis in one of the forms of `-o`."""
    found = result.diagnosis
    if form == "sarif":
        output.document(sarif(found, __version__), "json")
    elif form == "junit":
        output.data(junit(found))
    elif form == "name":
        if found.findings:
            output.data("\n".join(each.id for each in found.findings))
    elif form == "text":
        output.data("\n".join(lines(found, result.logs)))
    else:
        output.document({**document(found), "changed": list(result.change.lines) if result.change else []}, form)
    output.talk(*_said(result))


def _said(result: DiagnoseResult) -> Iterator[str]:
    yield from result.diagnosis.truncated
    if result.change:
        yield from (f"{result.change.path}: {line}" for line in result.change.lines)
        if not result.change.lines:
            yield f"{result.change.path}: the fix is in it already"
    elif result.not_changed:
        yield f"nothing was written: {result.not_changed}"


def lines(found: Diagnosis, logs: Sequence[str]) -> Iterator[str]:
    """The diagnosis for people."""
    if not found.findings:
        yield from _nothing(found, logs)
    for number, each in enumerate(found.findings):
        if number:
            yield ""
        yield from _finding(each, several=len(logs) > 1)


def _finding(each: Finding, *, several: bool) -> Iterator[str]:
    yield f"{each.id}  {each.severity}  {each.title}"
    yield from _paragraph("cause", each.cause)
    for place in each.evidence:
        yield from _evidence(place, several=several)
    if each.count > len(each.evidence):
        yield f"            said {each.count} times in all"
    yield from _paragraph("fix", each.fix)
    if each.patch:
        yield "  patch     the variant in berth.yaml (--apply-fix writes it):"
        yield from (f"              {line}" for line in _patch(each))
    yield from [f"  command   {each.command}"] if each.command else []
    yield from _paragraph("confirm", each.confirm)
    for below in each.consequences:
        at = f" (line {below.evidence[0].line})" if below.evidence and below.evidence[0].line else ""
        yield f"  follows   {below.id}  {below.title}{at}"
    sure = "" if each.confidence == "high" else f"   ({each.confidence} confidence)"
    yield f"  more      berth explain {each.id}{sure}"
    yield from (f"            {link}" for link in each.links)


def _patch(each: Finding) -> list[str]:
    plain: dict[str, object] = {}
    for key, value in each.patch.items():
        name, _, inner = key.partition(".")
        if inner:
            nested = plain.setdefault(name, {})
            if isinstance(nested, dict):
                nested[inner] = value
        else:
            plain[name] = value
    return write_documents([plain]).rstrip("\n").split("\n")


def _paragraph(name: str, text: str) -> Iterator[str]:
    if text:
        # Neither paths nor flags are torn apart.
        wrapped = textwrap.wrap(text, min(output.width(), _WIDEST) - 12, break_long_words=False, break_on_hyphens=False)
        yield f"  {name:8}  {wrapped[0]}"
        yield from (f"            {line}" for line in wrapped[1:])


def _evidence(place: Evidence, *, several: bool) -> Iterator[str]:
    where = f"line {place.line}" if place.line else place.source
    if several and place.line:
        where = f"{place.source}:{place.line}"
    by = f", {place.process}" if place.process else ""
    at = f", {place.time}" if place.time else ""
    yield f"  {'said':8}  {where}{by}{at}:"
    yield f"            {place.text}"


def _nothing(found: Diagnosis, logs: Sequence[str]) -> Iterator[str]:
    name = ", ".join(logs)
    if found.state == "failed":
        stage = f" in stage {found.stage}" if found.stage else ""
        yield f"{name}: it failed{stage}, of something that no signature knows."
        if found.first_error:
            yield "  first error that is not a wrapper:"
            yield from _evidence(found.first_error, several=len(logs) > 1)
        yield "  what helps to go on:"
        yield from (f"    - {each}" for each in found.collect)
        return
    ends = {
        "ready": "it became ready and nothing is wrong",
        "stopped": "it was told to stop, and nothing is wrong",
        "unknown": "nothing in it is wrong; the log ends before the server is ready",
    }
    stage = f" (stage {found.stage})" if found.stage and found.state == "unknown" else ""
    yield f"{name}: {ends[found.state]}{stage}."
