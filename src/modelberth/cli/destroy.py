"""`berth destroy`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelberth.cli.cluster_options import cluster_options

if TYPE_CHECKING:
    from modelberth.adapters.kubernetes_api import Target

EPILOG = """\b
Examples:
  berth destroy berth.yaml                            says what goes and what stays, and asks for the stack's name
  berth destroy berth.yaml mistral-small-24b          one service
  berth destroy berth.yaml --confirm step-05-llm-on-vllm    off a terminal"""


@click.command(epilog=EPILOG)
@click.argument("spec", type=click.Path(path_type=Path))
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@cluster_options()
@click.option("--confirm", metavar="NAME", show_envvar=True, help="The stack's name, instead of being asked for it.")
@click.option("--machinesets", is_flag=True, show_envvar=True, help="MachineSets too, and with them their nodes.")
@click.option(
    "--timeout", type=click.FloatRange(min=0), default=600.0, metavar="SECONDS", show_envvar=True,
    help="Time until everything must be gone.",
)  # fmt: skip
def command(
    spec: Path, *, services: tuple[str, ...], target: Target, confirm: str | None, machinesets: bool, timeout: float
) -> int:
    """Delete the objects of a stack from the cluster; weights, Secrets and what others own stay."""
    from modelberth.adapters.kubernetes_api import connect
    from modelberth.cli.display import display
    from modelberth.cli.output import talk
    from modelberth.flows.cluster.destroy import destroy, doomed
    from modelberth.flows.spec_file import read_spec_file

    read = read_spec_file(spec)
    name = read.stack.metadata.name
    namespace = target.namespace or read.stack.metadata.namespace
    with connect(replace(target, namespace=namespace)) as cluster:
        talk(f"context {cluster.context}, server {cluster.server}, as {cluster.user}, namespace {namespace}")
        what = doomed(cluster, read, services, machine_sets=machinesets)
        talk(*(f"goes:  {each}" for each in what.goes), *(f"stays: {each}" for each in what.stays))
        if not what.goes:
            talk("nothing of this stack is there")
            return 0
        if not _is_confirmed(confirm, name, str(spec)):
            talk("nothing was deleted")
            return 0
        with display("destroy") as shown:
            destroy(cluster, what, namespace, timeout, shown)
    return 0


def _is_confirmed(given: str | None, name: str, spec: str) -> bool:
    import sys

    if given is not None:
        if given != name:
            raise click.UsageError(f"The stack is named {name}, not {given}.")
        return True
    if not sys.stdin.isatty():
        raise click.UsageError(f"Off a terminal its name is needed: berth destroy {spec} --confirm {name}.")
    return bool(click.prompt(f"type {name} to delete it", default="", show_default=False, err=True) == name)
