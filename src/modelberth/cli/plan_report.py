"""The plan of a stack for people: one line a service, then what each costs, what would do for less, and warnings."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

from modelberth.base.units import GIB, format_decimal
from modelberth.cli import output
from modelberth.cli.size_explain import explanation
from modelberth.cli.size_report import ledger_lines
from modelberth.flows.plan import ServicePlan, StackPlan
from modelberth.flows.plan_report import plan_document
from modelberth.sizing.alternatives import Alternative
from modelberth.sizing.cost import HOURS_PER_MONTH, Cost
from modelberth.sizing.ranges import Range
from modelberth.web.size_page import size_page

_NARROWEST = 60


def show(plan: StackPlan, form: str, *, explain: bool) -> None:
    """Print a plan in one of the forms of `-o`."""
    if form in {"json", "yaml"}:
        output.document(plan_document(plan), form)
    elif form == "name":
        for service in plan.services:
            output.data(f"service/{service.service.name}")
    else:
        output.data("\n".join(_text(plan, wide=form == "wide", draw=explain)))


def page(plan: StackPlan) -> str:
    """The plan as one self-contained HTML page."""
    named = [(service.service.name, service.sizing) for service in plan.services]
    return size_page(named, f"Plan of {plan.name}", f"{plan.platform}, vLLM {plan.vllm}")


def _text(plan: StackPlan, *, wide: bool, draw: bool) -> Iterator[str]:
    yield f"Plan of {plan.name} for {plan.platform}, vLLM {plan.vllm}"
    yield ""
    head = ["SERVICE", "POOL", "VERDICT", "WEIGHTS", "KV CACHE", "CONTEXT", "LONGEST", "AT ONCE", "$/HOUR", "$/MONTH"]
    rows = [_row(service) for service in plan.services]
    if plan.per_hour is not None and len(plan.services) > 1:
        rows.append(["", "", "", "", "", "", "", "", f"{plan.per_hour:.2f}", f"{plan.per_hour * HOURS_PER_MONTH:,.0f}"])
    yield from output.table(head, rows, right=frozenset(range(3, len(head))))
    for service in plan.services:
        yield ""
        yield from _wrapped(_service(service, wide=wide))
        if wide:
            yield ""
            yield from (f"  {line}".rstrip() for line in ledger_lines(service.sizing))
        if draw:
            yield ""
            yield from explanation(service.sizing, output.width())
    for warning in plan.warnings:
        yield ""
        yield f"! {warning}"
    yield ""
    yield from _wrapped(_sources(plan))


def _wrapped(lines: Iterable[str]) -> Iterator[str]:
    """Lines no wider than the terminal, what is continued set in."""
    for line in lines:
        yield from textwrap.wrap(
            line, max(output.width(), _NARROWEST), subsequent_indent="    ", break_on_hyphens=False
        )


def _row(plan: ServicePlan) -> list[str]:
    sizing, cost = plan.sizing, plan.cost
    pool, ranks = plan.service.pool, sizing.engine.tensor_parallel
    return [
        plan.service.name,
        f"{ranks} x {sizing.gpu.name} ({pool.instance_type or pool.name})",
        sizing.verdict,
        f"{_gib(sizing.ledger.weights)} GiB",
        f"{_gib(sizing.ledger.kv_cache)} GiB",
        f"{sizing.engine.max_model_len:,}",
        f"{int(sizing.kv.largest.mid):,}",
        f"{sizing.kv.concurrency.mid:.1f}",
        f"{cost.per_hour:.2f}" if cost else "-",
        f"{cost.per_month:,.0f}" if cost else "-",
    ]


def _gib(value: Range) -> str:
    return f"{value.mid / GIB:.2f}"


def _service(plan: ServicePlan, *, wide: bool) -> Iterator[str]:
    sizing = plan.sizing
    yield f"{plan.service.name}: {sizing.reasons[0]}"
    kv = sizing.ledger.kv_cache.scaled(1 / GIB)
    yield f"  KV cache {kv.low:.2f} to {kv.high:.2f} GiB a GPU; longest context {_counts(sizing.kv.largest)} tokens"
    stored = format_decimal(plan.storage.image_bytes)
    advice = "keep it in an OCI image" if plan.storage.kind == "oci" else "keep it in S3"
    yield f"  weights {stored}: {advice}: {plan.storage.reason}"
    for warning in plan.warnings:
        yield f"  ! {warning}"
    shown = plan.alternatives if wide else plan.alternatives[:3]
    for alternative in shown:
        yield f"  > {_alternative(alternative)}"
    if wide:
        for reason in sizing.reasons[1:]:
            yield f"  ? {reason}"


def _counts(value: Range) -> str:
    return f"{int(value.low):,} to {int(value.high):,}" if value.low != value.high else f"{int(value.mid):,}"


def _alternative(alternative: Alternative) -> str:
    sizing = alternative.sizing
    saved = f", {alternative.saves:.0%} less" if alternative.saves is not None else ""
    return (
        f"${alternative.cost.per_hour:.2f}/h{saved}: {', '.join(alternative.changes)}: {sizing.verdict}, "
        f"{sizing.kv.concurrency.mid:.1f} requests of {sizing.engine.max_model_len:,} tokens at once"
    )


def _sources(plan: StackPlan) -> Iterator[str]:
    costs = [service.cost for service in plan.services if service.cost]
    yield from dict.fromkeys(_source(cost) for cost in costs)
    if len(costs) < len(plan.services):
        yield "No price is known for some pools: set pricePerHour, or an instanceType that is in the catalogue."
    yield "Alternatives in another quantisation need such a checkpoint, and its answers checked."


def _source(cost: Cost) -> str:
    dated = f" ({cost.region}, {cost.date})" if cost.date else ""
    return f"Prices: {cost.source}{dated}; a month has {HOURS_PER_MONTH} hours."
