"""The plan of a stack as a document for programs: `modelberth.dev/plan/v1`. Memory in GiB, money in US dollars."""

from __future__ import annotations

from typing import Any

from modelberth.flows.plan import ServicePlan, StackPlan
from modelberth.flows.size_report import rounded, sizing_fields, whole
from modelberth.sizing.alternatives import Alternative
from modelberth.sizing.cost import HOURS_PER_MONTH, Cost
from modelberth.sizing.storage import StorageAdvice

SCHEMA_VERSION = "modelberth.dev/plan/v1"


def plan_document(plan: StackPlan) -> dict[str, Any]:
    """A plan as plain data."""
    hourly = plan.per_hour
    return {
        "schemaVersion": SCHEMA_VERSION,
        "stack": plan.name,
        "platform": plan.platform,
        "vllm": plan.vllm,
        "starts": plan.starts,
        "services": [_service(service) for service in plan.services],
        "cost": None if hourly is None else {**_money(hourly), "hoursPerMonth": HOURS_PER_MONTH},
        "warnings": list(plan.warnings),
    }


def _service(plan: ServicePlan) -> dict[str, Any]:
    service = plan.service
    return {
        "name": service.name,
        "variant": service.variant.name,
        "pool": service.pool.name,
        "instanceType": service.pool.instance_type,
        "weights": str(service.weights),
        "readFrom": plan.source.name,
        **sizing_fields(plan.sizing),
        "cost": None if plan.cost is None else _cost(plan.cost),
        "storage": _storage(plan.storage),
        "alternatives": [_alternative(each) for each in plan.alternatives],
        "warnings": list(plan.warnings),
    }


def _money(per_hour: float) -> dict[str, Any]:
    return {
        "currency": "USD",
        "perHour": round(per_hour, 4),
        "perMonth": round(per_hour * HOURS_PER_MONTH, 2),
    }


def _cost(cost: Cost) -> dict[str, Any]:
    return {
        **_money(cost.per_hour),
        "machinePerHour": cost.machine_per_hour,
        "share": round(cost.share, 4),
        "region": cost.region,
        "source": cost.source,
        "date": cost.date,
    }


def _storage(advice: StorageAdvice) -> dict[str, Any]:
    return {
        "choice": advice.kind,
        "reason": advice.reason,
        "imageBytes": advice.image_bytes,
        "imagePeakBytes": advice.image_peak_bytes,
        "nodeDiskBytes": advice.disk_bytes,
        "transferSeconds": round(advice.start_seconds, 1),
    }


def _alternative(alternative: Alternative) -> dict[str, Any]:
    sizing = alternative.sizing
    return {
        "quantization": alternative.precision,
        "gpu": {"product": sizing.gpu.product, "count": alternative.gpus},
        "instanceType": alternative.instance,
        "changes": list(alternative.changes),
        "verdict": sizing.verdict,
        "maxModelLen": {"requested": sizing.engine.max_model_len, "largest": whole(sizing.kv.largest)},
        "maxConcurrency": rounded(sizing.kv.concurrency, 2),
        "cost": _cost(alternative.cost),
        "saves": None if alternative.saves is None else round(alternative.saves, 4),
    }
