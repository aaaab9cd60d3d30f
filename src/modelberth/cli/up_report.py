"""The report of `berth up` for people: endpoints, answers side by side, times, and the document for programs."""

from __future__ import annotations

from collections.abc import Iterator

from modelberth.base.units import format_decimal, format_seconds
from modelberth.cli import output
from modelberth.flows.up_report import ServiceReport, UpReport, up_document

_SHOWN = 3
"""Prompts whose answers `table` shows; `wide` shows all."""
_DELIVERY = ("size", "ship", "fetch")
_AFTER = ("verify", "ask")


def show(report: UpReport, form: str) -> None:
    """Print a report in one of the forms of `-o`."""
    if form in {"json", "yaml"}:
        output.document(up_document(report), form)
    elif form == "name":
        for service in report.services:
            output.data(f"service/{service.service.name}")
    else:
        output.data("\n".join(_text(report, wide=form == "wide")))


def _text(report: UpReport, *, wide: bool) -> Iterator[str]:
    state = "is up" if report.exit_code == 0 else "is up, and failed its verification"
    yield f"Stack {report.stack} {state} after {format_seconds(report.seconds)}."
    yield ""
    yield from _endpoints(report)
    yield ""
    yield from _checks(report, wide=wide)
    yield from _answers(report, wide=wide)
    yield from _recovery(report)
    yield ""
    yield from _summary(report)
    yield ""
    yield from _stages(report)
    yield ""
    yield f"Logs: {report.run}"


def _endpoints(report: UpReport) -> Iterator[str]:
    rows = [[service.service.name, f"{service.url}/v1", service.service.served_name] for service in report.services]
    yield from output.table(["SERVICE", "ENDPOINT", "MODEL NAME"], rows)


def _checks(report: UpReport, *, wide: bool) -> Iterator[str]:
    for service in report.services:
        failed = [check for check in service.checks if not check.passed]
        yield f"{service.service.name}: {len(service.checks) - len(failed)} of {len(service.checks)} checks passed"
        for check in service.checks if wide else failed:
            yield f"  {'ok    ' if check.passed else 'FAILED'} {check.name}: {check.detail}"
        for text in service.arguments.replacements:
            yield f"  here   {text}"


def _answers(report: UpReport, *, wide: bool) -> Iterator[str]:
    asked = [service for service in report.services if service.interview]
    if not asked:
        return
    prompts = [answer.prompt for answer in asked[0].interview.answers] if asked[0].interview else []
    shown = len(prompts) if wide else min(_SHOWN, len(prompts))
    for index in range(shown):
        yield ""
        yield f"? {prompts[index]}"
        yield from output.side_by_side([_answer(service, index) for service in asked])
    if shown < len(prompts):
        yield f"... and {len(prompts) - shown} more prompts: -o wide"


def _answer(service: ServiceReport, index: int) -> str:
    text = service.interview.answers[index].text if service.interview else ""
    return f"{service.service.name}: {text}"


def _recovery(report: UpReport) -> Iterator[str]:
    if report.recovery is not None:
        yield ""
        yield f"Recovery: {report.recovery:.1%} of the quantised variant's answers are exactly the unquantised one's."


def _summary(report: UpReport) -> Iterator[str]:
    rows = []
    for service in report.services:
        interview = service.interview
        first = f"{interview.first_token_seconds:.3f} s" if interview else "-"
        rate = f"{interview.tokens_per_second:.1f}" if interview else "-"
        rows.append(
            [
                service.service.name,
                service.precision,
                str(service.service.weights),
                format_decimal(service.size),
                _start_up(service),
                first,
                rate,
            ]
        )
    head = ["SERVICE", "VARIANT", "STORAGE", "SIZE", "START-UP", "FIRST TOKEN", "TOKENS/S"]
    yield from output.table(head, rows, right=frozenset({3, 4, 5, 6}))


def _start_up(service: ServiceReport) -> str:
    engine = (stage.seconds for stage in service.stages if stage.stage not in {*_DELIVERY, *_AFTER})
    return format_seconds(sum(engine))


def _stages(report: UpReport) -> Iterator[str]:
    names = list(dict.fromkeys(stage.stage for service in report.services for stage in service.stages))
    rows = []
    for service in report.services:
        seconds = {stage.stage: f"{stage.seconds:.1f}" for stage in service.stages}
        rows.append([service.service.name, *(seconds.get(name, "-") for name in names)])
    yield from output.table(["SECONDS", *names], rows, right=frozenset(range(1, len(names) + 1)))
