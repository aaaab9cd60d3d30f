"""States of services as a table, as documents and as lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from modelberth.base.clock import utc_now
from modelberth.base.units import format_seconds
from modelberth.cli.output import data, document, table
from modelberth.timeline.pod_state import STAGES_BEFORE_ENGINE, PodState
from modelberth.timeline.service_state import ServiceState
from modelberth.timeline.stages import StageTime

if TYPE_CHECKING:
    from modelberth.flows.cluster.targets import PlannedStart

_SCHEMA = "modelberth.dev/status/v1"
_MARKS = {
    "ready": "ready",
    "stopped": "stopped",
    "failing": "FAILING",
    "absent": "ABSENT",
    "terminating": "terminating",
}


def show(states: Sequence[ServiceState], form: str, planned: Mapping[str, PlannedStart]) -> None:
    """All of them, once."""
    if form in {"json", "yaml"}:
        document({"schemaVersion": _SCHEMA, "services": [plain(each, planned.get(each.name)) for each in states]}, form)
    elif form == "name":
        data("\n".join(f"{each.kind.lower()}/{each.name}" for each in states))
    else:
        data("\n".join(lines(states, wide=form == "wide")))


def lines(states: Sequence[ServiceState], *, wide: bool = False) -> list[str]:
    """A table, one line a service."""
    if not states:
        return ["no services"]
    head = ["NAME", "STATE", "READY", "AGE", "WHY"]
    more = ["KIND", "GPUS", "CONTEXT", "RUNTIME", "MODEL", "NODE", "RESTARTS", "URL"] if wide else []
    return table(head + more, [_row(each, wide=wide) for each in states])


def _row(state: ServiceState, *, wide: bool) -> list[str]:
    row = [state.name, _shown(state), f"{state.ready}/{state.replicas}", _age(state), state.why]
    if wide:
        nodes = ", ".join(sorted({pod.node for pod in state.pods if pod.node}))
        facts = state.facts
        row += [state.kind, str(state.gpus), facts.context, facts.runtime, facts.model, nodes, str(state.restarts),
                state.url]  # fmt: skip
    return row


def _shown(state: ServiceState) -> str:
    """Its state, with the stage that it failed in or how long it has been in this one."""
    shown = _word(state)
    if state.state == "failing" and state.stage:
        return f"{shown} ({state.stage})"
    seconds = stage_seconds(state)
    return f"{shown} {format_seconds(seconds)}" if seconds is not None else shown


def _word(state: ServiceState) -> str:
    return _MARKS.get(state.state) or state.stage or "waiting"


def stage_seconds(state: ServiceState) -> float | None:
    """How long it has been in the stage that it is in; None where it is in none, or nothing tells since when."""
    if state.state != "progressing" or not state.stage or state.times.since is None:
        return None
    return max(0.0, utc_now().timestamp() - state.times.since)


def line(state: ServiceState) -> str:
    """One line for a log: `mistral: weights (0 of 1 ready)`."""
    where = f" in {state.stage}" if state.state == "failing" and state.stage else ""
    why = f": {state.why}" if state.why else ""
    return f"{state.name}: {_word(state)}{where} ({state.ready} of {state.replicas} ready){why}"


def plain(state: ServiceState, planned: PlannedStart | None = None) -> dict[str, Any]:
    """A state as data: seconds and bytes are numbers, and null where nothing tells them."""
    facts = state.facts
    return {
        "name": state.name, "namespace": state.namespace, "kind": state.kind, "state": state.state,
        "stage": state.stage, "stageSeconds": _tenths(stage_seconds(state)), "why": state.why, "url": state.url,
        "ready": state.ready, "replicas": state.replicas, "restarts": state.restarts,
        "ageSeconds": _seconds_old(state), "gpus": state.gpus, "runtime": facts.runtime, "model": facts.model,
        "context": int(facts.context) if facts.context.isdigit() else None,
        "stages": [{"stage": each.stage, "seconds": _tenths(each.seconds)} for each in state.times.ended],
        "planned": _plan(planned) if planned else None,
        "pods": [_pod(pod) for pod in state.pods],
    }  # fmt: skip


def _plan(planned: PlannedStart) -> dict[str, Any]:
    """Seconds of the stages that the plan knows, and those that the whole start of the engine may take."""
    return {
        "stages": [{"stage": stage, "seconds": _tenths(seconds)} for stage, seconds in planned.stages.items()],
        "engineSecondsAtMost": planned.seconds,
    }


def _pod(pod: PodState) -> dict[str, Any]:
    found: dict[str, Any] = {
        "name": pod.name, "stage": pod.stage, "failing": pod.failing, "ready": pod.ready, "node": pod.node,
        "restarts": pod.restarts, "why": pod.why, "gpus": pod.gpus, "image": pod.image, "imageBytes": pod.image_bytes,
    }  # fmt: skip
    if pod.transfer:
        found["transfer"] = {
            "bytes": pod.transfer.done, "totalBytes": pod.transfer.total, "bytesPerSecond": pod.transfer.rate,
            "secondsLeft": _tenths(pod.transfer.seconds_left),
        }  # fmt: skip
    return found


def unready_lines(states: Sequence[ServiceState]) -> list[str]:
    """What is said when the time is over: each service that is not ready, and where to look."""
    late = [each for each in states if not each.is_settled]
    said = [f"not ready: {line(each)}" for each in late]
    failing = next((each for each in late if each.state != "absent"), None)
    return [*said, f"next: berth diagnose {failing.name} -n {failing.namespace}"] if failing else said


def _tenths(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)


def _seconds_old(state: ServiceState) -> int | None:
    return None if state.created is None else max(0, int((utc_now() - state.created).total_seconds()))


def _age(state: ServiceState) -> str:
    seconds = _seconds_old(state)
    if seconds is None:
        return ""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def stage_lines(stages: Mapping[str, Sequence[StageTime]], planned: Mapping[str, PlannedStart]) -> list[str]:
    """How long each stage of each service took, beside what the plan says of it."""
    said = []
    for name, ended in stages.items():
        if ended:
            plan = planned.get(name)
            took = ", ".join(_took(each, plan) for each in ended)
            engine = sum(each.seconds for each in ended if each.stage not in STAGES_BEFORE_ENGINE)
            most = f" of {format_seconds(plan.seconds)} at most" if plan else ""
            beside = f", the engine's start {format_seconds(engine)}{most}" if engine else ""
            said.append(f"{name}: {took}; {format_seconds(sum(each.seconds for each in ended))}{beside}")
    return said


def _took(each: StageTime, plan: PlannedStart | None) -> str:
    took = f"{each.stage} {format_seconds(each.seconds)}"
    if plan is None or each.stage not in plan.stages:
        return took
    return f"{took} (planned {format_seconds(plan.stages[each.stage])})"
