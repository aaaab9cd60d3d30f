"""The report of `berth size --against`: prediction and log side by side, term by term."""

from __future__ import annotations

from collections.abc import Iterator

from modelberth.cli import output
from modelberth.flows.against import Comparison, Term, comparison_document


def show_comparison(comparison: Comparison, form: str) -> None:
    """Print a comparison in one of the forms of `-o`."""
    if form in {"json", "yaml"}:
        output.document(comparison_document(comparison), form)
    elif form == "name":
        output.data(comparison.sizing.verdict)
    else:
        output.data("\n".join(_text(comparison)))


def _text(comparison: Comparison) -> Iterator[str]:
    yield _verdict(comparison)
    yield ""
    if not comparison.terms:
        yield "The log has no figure to hold against the plan."
        return
    head = ["TERM", "UNIT", "LOW", "MID", "HIGH", "LOG", "ERROR", "INSIDE", "LINE"]
    yield from output.table(head, [_row(term) for term in comparison.terms], right=frozenset({2, 3, 4, 5, 6, 8}))
    inside = sum(term.inside for term in comparison.terms)
    yield ""
    yield f"{inside} of {len(comparison.terms)} reported figures are inside the predicted ranges."


def _verdict(comparison: Comparison) -> str:
    said = {True: "it started", False: "it did not start", None: "the log does not say whether it started"}
    failure = f" ({comparison.report.failure})" if comparison.report.failure else ""
    agreed = {True: ": predicted rightly", False: ": predicted wrongly", None: ""}
    return (
        f"Predicted: {comparison.sizing.verdict}; {said[comparison.report.started]}{failure}"
        f"{agreed[comparison.verdict_agrees]}."
    )


def _row(term: Term) -> list[str]:
    error = "-" if term.error is None else f"{term.error:+.1%}"
    return [
        term.name, term.unit, *(_number(value, term.unit) for value in
        (term.predicted.low, term.predicted.mid, term.predicted.high, term.reported)),
        error, "yes" if term.inside else "no", str(term.line) if term.line else "-",
    ]  # fmt: skip


def _number(value: float, unit: str) -> str:
    return f"{value:,.0f}" if unit in {"tokens", "blocks"} else f"{value:.2f}"
