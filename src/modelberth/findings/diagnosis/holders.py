"""Who holds the GPUs of a queue: added to what Kueue says of quota that is missing.

Fields: kueue.x-k8s.io Workload, status.admission (clusterQueue, podSetAssignments[].resourceUsage).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from modelberth.base.loose import mapping
from modelberth.base.text import printable
from modelberth.findings.diagnosis.finding import Diagnosis, Finding
from modelberth.timeline.pod_state import GPU

_QUEUES = "MB-KUE-"
_MOST = 6

Object = Mapping[str, Any]


def holders(workloads: Iterable[Object]) -> list[tuple[str, int]]:
    """Admitted workloads with GPUs, as `namespace/name` and how many, the largest first."""
    found = []
    for each in workloads:
        about, status = mapping(each.get("metadata")), mapping(each.get("status"))
        gpus = sum(_gpus(part) for part in mapping(status.get("admission")).get("podSetAssignments") or [])
        if gpus and not _is_finished(status):
            found.append((printable(f"{about.get('namespace', '')}/{about.get('name', '')}"), gpus))
    return sorted(found, key=lambda each: (-each[1], each[0]))


def with_holders(found: Diagnosis, workloads: Sequence[Object]) -> Diagnosis:
    """The findings about queues with who holds what they wait for."""
    held = holders(workloads)
    if not held:
        return found
    more = f" and {len(held) - _MOST} more" if len(held) > _MOST else ""
    text = ", ".join(f"{name} ({gpus} GPUs)" for name, gpus in held[:_MOST]) + more
    total = sum(gpus for _, gpus in held)
    return replace(found, findings=tuple(_held(each, text, total) for each in found.findings))


def _held(finding: Finding, text: str, total: int) -> Finding:
    if not finding.id.startswith(_QUEUES) or "quota" not in finding.cause.lower() + finding.title.lower():
        return finding
    cause = f"{finding.cause} {total} GPUs are held by {text}."
    return replace(finding, cause=cause, numbers={**finding.numbers, "heldGpus": total})


def _gpus(assignment: object) -> int:
    usage = str(mapping(mapping(assignment).get("resourceUsage")).get(GPU) or "")
    return int(usage) if usage.isdigit() else 0


def _is_finished(status: Object) -> bool:
    conditions = status.get("conditions") or []
    return any(mapping(each).get("type") == "Finished" and mapping(each).get("status") == "True" for each in conditions)
