"""What `berth up` found out: one report for each service and one for the stack, as typed results and as a document."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelberth.flows.ask import Interview, recovery
from modelberth.flows.stage_clock import StageReport
from modelberth.flows.verify import Check
from modelberth.manifests.engine_args import LocalArguments
from modelberth.sizing.local import LocalPlan
from modelberth.spec.services import Service

SCHEMA_VERSION = "modelberth.dev/up/v1"
UNQUANTISED = {"bf16", "fp16", "fp32"}


@dataclass(frozen=True)
class ServiceReport:
    """What is known of one service that is up.

    Attributes:
        service: as declared.
        url: base URL of its endpoint.
        precision: how its checkpoint stores weights: `bf16`, `w4a16`.
        size: bytes of its delivered files.
        digest: of what was delivered.
        plan: memory plan; None on GPUs, where the engine measures.
        reported_kv_tokens: KV cache as the engine reported it; None when it did not.
        arguments: what the engine was started with.
        stages: in order.
        checks: of verification.
        interview: answers and times; None when verification failed.
        log: the engine's whole output.
    """

    service: Service
    url: str
    precision: str
    size: int
    digest: str
    plan: LocalPlan | None
    reported_kv_tokens: int | None
    arguments: LocalArguments
    stages: tuple[StageReport, ...]
    checks: tuple[Check, ...]
    interview: Interview | None
    log: Path

    @property
    def exit_code(self) -> int:
        """0 when every check passed, else that of the first that did not."""
        return next((check.exit_code for check in self.checks if not check.passed), 0)


@dataclass(frozen=True)
class UpReport:
    """What `berth up` found.

    Attributes:
        stack: name of the stack.
        services: in file order.
        run: folder of this run's logs.
        seconds: from start to report.
    """

    stack: str
    services: tuple[ServiceReport, ...]
    run: Path
    seconds: float

    @property
    def exit_code(self) -> int:
        """0 when every service passed every check, else that of the first that did not."""
        return next((service.exit_code for service in self.services if service.exit_code), 0)

    @property
    def recovery(self) -> float | None:
        """Share of answers that quantised variants give exactly as the unquantised variant of their model does.

        None where no model has both.
        """
        return recovery(
            (reference.interview, other.interview)
            for reference in self.services
            for other in self.services
            if reference.interview
            and other.interview
            and reference.service.model.name == other.service.model.name
            and reference.precision in UNQUANTISED
            and other.precision not in UNQUANTISED
        )


def up_document(report: UpReport) -> dict[str, Any]:
    """The document of `-o json`: seconds and rates as floats, sizes in bytes, `recovery` from 0 to 1 or null."""
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
