"""States of services as a table, as documents and as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelberth.base.clock import utc_now
from modelberth.base.units import format_seconds
from modelberth.cli.output import data, document, table
from modelberth.timeline.service_state import ServiceState
from modelberth.timeline.stages import StageTime

_SCHEMA = "modelberth.dev/status/v1"
_MARKS = {
    "ready": "ready",
    "stopped": "stopped",
    "failing": "FAILING",
    "absent": "ABSENT",
    "terminating": "terminating",
}


def show(states: Sequence[ServiceState], form: str) -> None:
    """All of them, once."""
    if form in {"json", "yaml"}:
        document({"schemaVersion": _SCHEMA, "services": [plain(each) for each in states]}, form)
    elif form == "name":
        data("\n".join(f"{each.kind.lower()}/{each.name}" for each in states))
    else:
        data("\n".join(lines(states, wide=form == "wide")))


def lines(states: Sequence[ServiceState], *, wide: bool = False) -> list[str]:
    """A table, one line a service."""
    if not states:
        return ["no services"]
    head = ["NAME", "STATE", "READY", "AGE", "WHY"] + (["NODE", "RESTARTS", "URL"] if wide else [])
    return table(head, [_row(each, wide=wide) for each in states])


def _row(state: ServiceState, *, wide: bool) -> list[str]:
    shown = _MARKS.get(state.state) or state.stage or "waiting"
    failed = f"{shown} ({state.stage})" if state.state == "failing" and state.stage else shown
    row = [state.name, failed, f"{state.ready}/{state.replicas}", _age(state), state.why]
    if wide:
        nodes = ", ".join(sorted({pod.node for pod in state.pods if pod.node}))
        row += [nodes, str(state.restarts), state.url]
    return row


def line(state: ServiceState) -> str:
    """One line for a log: `mistral: weights: 0 of 1 ready`."""
    shown = _MARKS.get(state.state) or state.stage or "waiting"
    where = f" in {state.stage}" if state.state == "failing" and state.stage else ""
    why = f": {state.why}" if state.why else ""
    return f"{state.name}: {shown}{where} ({state.ready} of {state.replicas} ready){why}"


def plain(state: ServiceState) -> dict[str, Any]:
    """A state as data."""
    return {
        "name": state.name, "namespace": state.namespace, "kind": state.kind, "state": state.state,
        "stage": state.stage, "why": state.why, "url": state.url, "ready": state.ready, "replicas": state.replicas,
        "restarts": state.restarts,
        "pods": [
            {"name": pod.name, "stage": pod.stage, "failing": pod.failing, "ready": pod.ready, "node": pod.node,
             "restarts": pod.restarts, "why": pod.why}
            for pod in state.pods
        ],
    }  # fmt: skip


def _age(state: ServiceState) -> str:
    if state.created is None:
        return ""
    seconds = max(0, int((utc_now() - state.created).total_seconds()))
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def stage_lines(stages: Mapping[str, Sequence[StageTime]], planned: Mapping[str, int]) -> list[str]:
    """How long each stage of each service took, beside what a start may take by the plan."""
    lines = []
    for name, ended in stages.items():
        if ended:
            took = ", ".join(f"{each.stage} {format_seconds(each.seconds)}" for each in ended)
            whole = format_seconds(sum(each.seconds for each in ended))
            beside = f" of {format_seconds(planned[name])} planned at most" if name in planned else ""
            lines.append(f"{name}: {took}; {whole}{beside}")
    return lines
