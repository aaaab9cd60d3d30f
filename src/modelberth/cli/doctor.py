"""`berth doctor`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelberth.cli.cluster_options import cluster_options
from modelberth.cli.options import output_option, state_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelberth.adapters.kubernetes_api import Target
    from modelberth.flows.cluster.preflight.checked import Checked

EPILOG = """\b
Examples:
  berth doctor                    this machine, and the cluster of the current context
  berth doctor --no-cluster       this machine alone
  berth doctor berth.yaml         and whether it has what this stack needs
  berth doctor berth.yaml -o json

\b
Exit codes: 0 nothing failed (warnings may be there), else the meaning of the first failure: 3 something is not there,
4 not allowed, 8 it does not fit, 9 the API server does not answer."""


@click.command(epilog=EPILOG)
@click.argument("spec", required=False, type=click.Path(path_type=Path))
@cluster_options()
@state_option()
@click.option("--no-cluster", is_flag=True, show_envvar=True, help="This machine alone.")
@output_option("table", "json", "yaml")
def command(spec: Path | None, *, target: Target, state: Path | None, no_cluster: bool, form: str) -> int:
    """Look this machine and a cluster over before anything is deployed: every fault at once, each with its way out."""
    from modelberth.adapters.kubernetes_api import connect
    from modelberth.flows.cluster.doctor import examine, examine_machine
    from modelberth.flows.spec_file import read_spec_file

    read = read_spec_file(spec) if spec else None
    declared = read.stack.metadata.namespace if read else None
    found = examine_machine(*_this_machine(state))
    if no_cluster:
        _show(found, "", form)
        return 0
    with connect(replace(target, namespace=target.namespace or declared)) as cluster:
        found += examine(cluster, cluster.namespace, read.stack if read else None, str(spec or "berth.yaml"))
        context = cluster.context
    _show(found, context, form)
    return next((each.exit_code for each in found if each.exit_code), 0)


def _this_machine(state: Path | None) -> tuple[Path, list[str]]:
    from modelberth.flows.runtime import list_runtimes
    from modelberth.flows.state import open_state

    opened = open_state(state)
    return opened.root, [f"{each.name} {each.version}" for each in list_runtimes(opened)]


def _show(found: Sequence[Checked], context: str, form: str) -> None:
    from modelberth.cli.output import data, document

    if form != "table":
        checks = [
            {"name": each.name, "level": each.level, "found": each.found, "fix": each.fix,
             "manifest": each.manifest or None}
            for each in found
        ]  # fmt: skip
        document({"schemaVersion": "modelberth.dev/doctor/v1", "context": context, "checks": checks}, form)
        return
    marks = _marks()
    width = max(len(each.name) for each in found)
    for each in found:
        data(f"{marks[each.level]} {each.name.ljust(width)}  {each.found}")
        if each.fix:
            data(f"  {' ' * width}  fix: {each.fix}")
    for each in found:
        if each.manifest:
            data(f"\n{each.manifest.rstrip()}")


def _marks() -> dict[str, str]:
    encoding = (getattr(sys.stdout, "encoding", "") or "").lower().replace("-", "")
    if encoding.startswith("utf"):
        return {"ok": "✓", "warning": "!", "failed": "✗"}
    return {"ok": "ok  ", "warning": "warn", "failed": "FAIL"}
