"""What `berth verify` says: each check, and how fast the answers came."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelberth.base.junit import Case, junit
from modelberth.cli import output
from modelberth.flows.verify import Check
from modelberth.flows.verify_endpoint import Latency, Spread, VerifyReport

SCHEMA_VERSION = "modelberth.dev/verify/v1"


def show(report: VerifyReport, form: str) -> None:
    """The report."""
    if form == "table":
        output.data("\n".join([*_checks(report), *(_latency(report.latency) if report.latency else ())]))
    else:
        output.document(_document(report), form)


def show_all(reports: Sequence[VerifyReport], form: str) -> None:
    """The reports of several services, each with its name; of one as of an endpoint."""
    if form == "junit":
        output.data(junit("berth verify", [_case(report, each) for report in reports for each in report.checks]))
    elif len(reports) == 1:
        show(reports[0], form)
    elif form == "table":
        for number, report in enumerate(reports):
            output.data(f"{'' if number == 0 else chr(10)}{report.url}")
            show(report, form)
    else:
        documents = [_document(report) for report in reports]
        output.document({"schemaVersion": SCHEMA_VERSION, "services": documents}, form)


def _case(report: VerifyReport, check: Check) -> Case:
    group = f"berth.verify.{report.model or report.url}"
    if check.passed:
        return Case(group, check.name, seconds=check.seconds)
    return Case(group, check.name, "failed", check.detail, f"{report.url}: {check.detail}", check.seconds)


def _checks(report: VerifyReport) -> list[str]:
    rows = [("passed" if each.passed else "FAILED", each.name, each.detail) for each in report.checks]
    failed = sum(1 for each in report.checks if not each.passed)
    total = f"{len(report.checks) - failed} of {len(report.checks)} checks passed: {report.model or report.url}"
    return [*output.table(("", "CHECK", "FOUND"), rows), "", total]


def _latency(latency: Latency) -> list[str]:
    def row(name: str, spread: Spread | None, form: str) -> tuple[str, str, str]:
        return (name, f"{spread.median:{form}}", f"{spread.p95:{form}}") if spread else (name, "-", "-")

    rows = [
        row("first token, s", latency.first_token, ".3f"),
        row("between tokens, s", latency.between_tokens, ".4f"),
        row("tokens/s of one answer", latency.tokens_per_second, ".1f"),
    ]
    head = (f"{latency.requests} AT ONCE", "MEDIAN", "P95")
    return ["", *output.table(head, rows, right=frozenset({1, 2}))]


def plain_report(report: VerifyReport) -> dict[str, Any]:
    """A report as data."""
    return _document(report)


def _document(report: VerifyReport) -> dict[str, Any]:
    latency = report.latency
    return {
        "schemaVersion": SCHEMA_VERSION,
        "url": report.url,
        "model": report.model,
        "passed": report.exit_code == 0,
        "checks": [{"name": each.name, "passed": each.passed, "detail": each.detail} for each in report.checks],
        "latency": None if latency is None else {
            "requests": latency.requests,
            "firstTokenSeconds": _pair(latency.first_token),
            "betweenTokensSeconds": _pair(latency.between_tokens),
            "tokensPerSecond": _pair(latency.tokens_per_second),
        },
    }  # fmt: skip


def _pair(spread: Spread | None) -> dict[str, float] | None:
    return None if spread is None else {"median": round(spread.median, 6), "p95": round(spread.p95, 6)}
