"""The report of `berth up` as a document: `modelberth.dev/up/v1`, the contract of `-o json`."""

from __future__ import annotations

from typing import Any

from modelberth.flows.up import ServiceReport, UpReport

SCHEMA_VERSION = "modelberth.dev/up/v1"


def up_document(report: UpReport) -> dict[str, Any]:
    """Plain data; seconds and rates as floats, bytes as whole numbers, `recovery` from 0 to 1 or null."""
    return {
        "schemaVersion": SCHEMA_VERSION,
        "stack": report.stack,
        "services": [_service(service) for service in report.services],
        "recovery": report.recovery,
        "seconds": round(report.seconds, 3),
        "logs": str(report.run),
    }


def _service(report: ServiceReport) -> dict[str, Any]:
    interview = report.interview
    return {
        "name": report.service.name,
        "url": report.url,
        "servedName": report.service.served_name,
        "model": report.service.model.name,
        "variant": report.service.variant.name,
        "quantization": report.precision,
        "storage": str(report.service.weights),
        "digest": report.digest,
        "bytes": report.size,
        "stages": [
            {"stage": stage.stage, "seconds": round(stage.seconds, 3), "outcome": stage.outcome}
            for stage in report.stages
        ],
        "checks": [{"name": check.name, "passed": check.passed, "detail": check.detail} for check in report.checks],
        "timeToFirstTokenSeconds": round(interview.first_token_seconds, 4) if interview else None,
        "tokensPerSecond": round(interview.tokens_per_second, 2) if interview else None,
        "answers": [{"prompt": item.prompt, "text": item.text} for item in interview.answers] if interview else [],
        "kvCache": {
            "bytes": report.plan.kv_cache if report.plan else None,
            "plannedTokens": report.plan.kv.tokens if report.plan else None,
            "reportedTokens": report.reported_kv_tokens,
        },
        "arguments": list(report.arguments.texts()),
        "replaced": list(report.arguments.replacements),
        "log": str(report.log),
    }
