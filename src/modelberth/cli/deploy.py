"""`berth deploy`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelberth.cli.cluster_options import cluster_options
from modelberth.cli.options import output_option

if TYPE_CHECKING:
    from collections.abc import Sequence

    from modelberth.adapters.kubernetes_api import Target
    from modelberth.flows.cluster.comparison import Compared
    from modelberth.flows.spec_file import SpecFile

EPILOG = """\b
Examples:
  berth diff berth.yaml                          what would change
  berth deploy berth.yaml                        asks, applies, waits, verifies
  berth deploy berth.yaml --ship --yes           weights first, and no questions: for CI
  berth deploy berth.yaml --dry-run              the server's answer, and nothing is changed
  berth deploy berth.yaml --rollback-on-failure  what does not answer is put back

\b
Exit codes: 0 every service answers, 3 something is not there, 4 rights are missing, 5 fields belong to others or
somebody else deploys, 6 not ready or not verified, 8 a disk or a quota is too small, 130 Ctrl-C (what was applied goes
on)."""


@click.command(epilog=EPILOG)
@click.argument("spec", type=click.Path(path_type=Path))
@cluster_options()
@click.option("--yes", is_flag=True, show_envvar=True, help="Do not ask.")
@click.option("--ship", is_flag=True, show_envvar=True, help="Bring the weights first, by the stack's upload Jobs.")
@click.option("--scale-machinesets", is_flag=True, show_envvar=True, help="Bring the nodes of the pools first.")
@click.option(
    "--dry-run", type=click.Choice(["server", "client"]), is_flag=False, flag_value="server", show_envvar=True,
    help="Change nothing: let the server check everything, or print the objects without asking it.",
)  # fmt: skip
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=3600.0, metavar="SECONDS", show_envvar=True,
    help="Time until every service must answer.",
)  # fmt: skip
@click.option("--no-preflight", is_flag=True, show_envvar=True, help="Look at nothing but rights and conflicts first.")
@click.option("--no-wait", is_flag=True, show_envvar=True, help="Apply, and leave.")
@click.option("--no-verify", is_flag=True, show_envvar=True, help="Wait, and ask nothing.")
@click.option(
    "--rollback-on-failure", is_flag=True, show_envvar=True, help="Put the services back; weights are never touched."
)
@output_option("table", "json", "yaml")
def command(
    spec: Path, *, target: Target, yes: bool, ship: bool, scale_machinesets: bool, dry_run: str | None, timeout: float,
    no_preflight: bool, no_wait: bool, no_verify: bool, rollback_on_failure: bool, form: str,
) -> int:  # fmt: skip
    """Bring a stack onto the cluster, follow it until it answers, and verify it with real requests."""
    from modelberth.adapters.kubernetes_api import connect
    from modelberth.cli.deploy_report import plan, show
    from modelberth.cli.display import display
    from modelberth.cli.output import talk
    from modelberth.flows.cluster.deploy import DeployRequest, deploy
    from modelberth.flows.spec_file import read_spec_file

    read = read_spec_file(spec)
    if dry_run == "client":
        _print_objects(read, str(spec))
        return 0
    namespace = target.namespace or read.stack.metadata.namespace
    with connect(replace(target, namespace=namespace)) as cluster:
        talk(f"context {cluster.context}, server {cluster.server}, as {cluster.user}, namespace {namespace}")
        request = DeployRequest(
            namespace, ship, scale_machinesets, not no_wait, not no_verify, rollback_on_failure, timeout,
            dry_run == "server", not no_preflight,
        )  # fmt: skip

        def confirm(compared: Sequence[Compared]) -> bool:
            talk(*plan(compared))
            changed = sum(each.outcome != "unchanged" for each in compared)
            return yes or _asked(changed, str(spec))

        with display("deploy") as shown:
            result = deploy(cluster, read, request, confirm, shown)
    if result.refused:
        talk("nothing was changed")
        return 0
    show(result, form)
    return 0


def _print_objects(read: SpecFile, spec: str) -> None:
    from modelberth.base.yamlio import write_documents
    from modelberth.cli.output import data
    from modelberth.manifests.tree import stack_tree

    data(write_documents(stack_tree(read.stack, spec_path=spec).objects).rstrip("\n"))


def _asked(changed: int, spec: str) -> bool:
    import sys

    if not sys.stdin.isatty():
        raise click.UsageError(f"Off a terminal nobody can be asked: berth deploy {spec} --yes.")
    noun = "object" if changed == 1 else "objects"
    return click.confirm(f"change {changed} {noun} on this cluster?", default=False, err=True)
