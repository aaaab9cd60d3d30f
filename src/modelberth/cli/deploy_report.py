"""What `berth deploy` and `berth diff` say: objects with what becomes of them, services with where they ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelberth.cli.output import data, document, table
from modelberth.cli.status_report import lines as state_lines
from modelberth.cli.status_report import plain, stage_lines
from modelberth.cli.verify_report import plain_report
from modelberth.flows.cluster.comparison import Compared
from modelberth.flows.cluster.deploy import DeployResult


def plan(compared: Sequence[Compared]) -> list[str]:
    """Each object and what would be done, one line each."""
    return table(("", "OBJECT"), [(each.outcome, str(each.ref)) for each in compared])


def show(result: DeployResult, form: str) -> None:
    """The end of a deployment."""
    if form in {"json", "yaml"}:
        document(plain_result(result), form)
        return
    if result.states:
        data("\n".join(state_lines(result.states)))
    else:
        data("\n".join(plan(result.objects)))
    for line in stage_lines(result.stages, result.planned):
        data(line)
    for report in result.reports:
        data(f"{report.url}: {len(report.checks)} checks passed")


def plain_result(result: DeployResult) -> dict[str, Any]:
    """A deployment as data."""
    return {
        "schemaVersion": "modelberth.dev/deploy/v1",
        "objects": objects(result.objects),
        "services": [plain(each, result.planned.get(each.name)) for each in result.states],
        "checks": [plain_report(each) for each in result.reports],
    }  # fmt: skip


def objects(compared: Sequence[Compared]) -> list[dict[str, str]]:
    """Objects as data."""
    return [
        {"kind": each.ref.kind.kind, "name": each.ref.name, "namespace": each.ref.namespace or "",
         "outcome": each.outcome}
        for each in compared
    ]  # fmt: skip
