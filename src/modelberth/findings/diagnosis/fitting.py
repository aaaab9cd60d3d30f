"""What would fit: a failure of memory held against the plan of the same model on the same card."""

from __future__ import annotations

from dataclasses import replace

from modelberth.base.units import format_binary
from modelberth.findings.diagnosis.finding import Diagnosis, Finding, Number
from modelberth.sizing.plan import Sizing


def with_plan(found: Diagnosis, sizing: Sizing) -> Diagnosis:
    """The diagnosis with what the plan says about its findings of memory."""
    return replace(found, findings=tuple(_planned(each, sizing) if each.memory else each for each in found.findings))


def _planned(finding: Finding, sizing: Sizing) -> Finding:
    sentence, numbers = _said(sizing)
    return replace(
        finding, fix=f"{finding.fix} {sentence}".strip(), numbers={**finding.numbers, **numbers}
    )  # fmt: skip


def _said(sizing: Sizing) -> tuple[str, dict[str, Number]]:
    """What would fit, in one or two sentences, and its numbers."""
    engine, ledger, kv = sizing.engine, sizing.ledger, sizing.kv
    cards = f"{engine.tensor_parallel} x {sizing.gpu.product}" if engine.tensor_parallel > 1 else sizing.gpu.product
    weights = f"weights take {format_binary(round(ledger.weights.mid))} of {format_binary(round(ledger.total.mid))}"
    numbers: dict[str, Number] = {
        "plannedWeightsGiB": round(ledger.weights.mid / (1 << 30), 2),
        "plannedKvCacheGiB": round(ledger.kv_cache.mid / (1 << 30), 2),
        "plannedLargestContext": int(kv.largest.low),
    }
    if sizing.verdict == "unsupported":
        return f"The plan for {cards}: {sizing.reasons[0]}.", numbers
    if ledger.kv_cache.mid <= 0:
        return (
            f"The plan for {cards}: {weights}, and nothing is left for the KV cache: more GPUs or fewer bits.",
            numbers,
        )
    cache = format_binary(round(ledger.kv_cache.mid))
    largest = f"at most {int(kv.largest.low):,} tokens fit for sure (expected: {int(kv.largest.mid):,})"
    said = f"The plan for {cards}: {weights}, {cache} are left for the KV cache, and {largest}"
    if sizing.starts:
        return f"{said}; so it should start, and something else holds memory on that GPU.", numbers
    return f"{said}.", numbers
