"""`berth logs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modelberth.cli.cluster_options import cluster_options

if TYPE_CHECKING:
    from modelberth.adapters.kubernetes_api import Target

EPILOG = """\b
Examples:
  berth logs mistral-small-24b -n private-ai             the engine's
  berth logs mistral-small-24b --init                    what fetches the weights
  berth logs mistral-small-24b -f                        of all its pods as they come, until they end
  berth logs mistral-small-24b --previous                of the run before the last restart
  berth logs mistral-small-24b --previous | berth diagnose --log -"""


@click.command(epilog=EPILOG)
@click.argument("service")
@cluster_options()
@click.option("--init", is_flag=True, show_envvar=True, help="The container that fetches the weights.")
@click.option("--previous", is_flag=True, show_envvar=True, help="The run before the last restart.")
@click.option("-f", "--follow", is_flag=True, show_envvar=True, help="Go on until the container ends.")
@click.option("--tail", type=click.IntRange(min=0), metavar="LINES", show_envvar=True, help="Lines from the end alone.")
@click.option("--pod", metavar="NAME", show_envvar=True, help="One pod alone.  [default: all of the service]")
def command(
    service: str, *, target: Target, init: bool, previous: bool, follow: bool, tail: int | None, pod: str | None
) -> None:
    """Print the log of a service's engine, or of what fetches its weights."""
    from modelberth.adapters.kubernetes_api import connect
    from modelberth.cli.output import data
    from modelberth.flows.cluster.logs import LogsRequest, service_logs

    with connect(target) as cluster:
        request = LogsRequest(cluster.namespace, service, init, previous, follow, tail, pod)
        for line in service_logs(cluster, request):
            data(line)
