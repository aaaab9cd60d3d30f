"""`berth status`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modelberth.cli.cluster_options import cluster_options
from modelberth.cli.options import output_option

if TYPE_CHECKING:
    from modelberth.adapters.kubernetes_api import Target

EPILOG = """\b
Examples:
  berth status -n private-ai                  every service of a namespace
  berth status berth.yaml                     those of a stack
  berth status mistral-small-24b -o json      one, for a program

\b
Exit codes: 0 all are ready or stopped, 6 some are not, 3 there is no KServe, 4 not allowed."""


@click.command(epilog=EPILOG)
@click.argument("targets", nargs=-1, metavar="[SPEC|SERVICE...]")
@cluster_options()
@output_option()
def command(targets: tuple[str, ...], *, target: Target, form: str) -> int:
    """Say of each service at which stage it is, and why it is there."""
    from dataclasses import replace

    from modelberth.adapters.kubernetes_api import connect
    from modelberth.cli.output import talk
    from modelberth.cli.status_report import show
    from modelberth.flows.cluster.targets import choose, planned_starts
    from modelberth.flows.cluster.watch import current
    from modelberth.spec.services import services

    chosen = choose(targets)
    with connect(replace(target, namespace=target.namespace or chosen.namespace)) as cluster:
        states, notes = current(cluster, cluster.namespace, chosen.names)
    show(states, form, planned_starts(services(chosen.spec.stack)) if chosen.spec else {})
    talk(*(f"note: {note}" for note in notes))
    return 0 if all(each.is_settled for each in states) else 6
