"""`berth watch`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from modelberth.cli.cluster_options import cluster_options
from modelberth.cli.options import output_option

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from modelberth.adapters.kubernetes_api import Target
    from modelberth.flows.cluster.picture import Picture
    from modelberth.flows.cluster.targets import PlannedStart
    from modelberth.timeline.service_state import ServiceState

EPILOG = """\b
Examples:
  berth watch berth.yaml                      until all services of a stack are ready
  berth watch -n private-ai --timeout 1800    a namespace, half an hour at most
  berth watch mistral --forever -o jsonl      one document a change, for a program

\b
Exit codes: 0 all are ready, 6 the time is over, 130 stopped by Ctrl-C (nothing on the cluster stops with it)."""


@click.command(epilog=EPILOG)
@click.argument("targets", nargs=-1, metavar="[SPEC|SERVICE...]")
@cluster_options()
@click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", show_envvar=True,
    help="Time after which it is given up.  [default: none]",
)  # fmt: skip
@click.option("--forever", is_flag=True, show_envvar=True, help="Go on when all are ready.")
@output_option("table", "wide", "jsonl")
def command(targets: tuple[str, ...], *, target: Target, timeout: float | None, forever: bool, form: str) -> int:
    """Follow services until they answer: a view on a terminal, a line a change elsewhere."""
    import sys
    from dataclasses import replace

    from modelberth.adapters.kubernetes_api import connect
    from modelberth.cli.output import is_terminal, talk
    from modelberth.cli.status_report import stage_lines, unready_lines
    from modelberth.flows.cluster.targets import choose, planned_starts
    from modelberth.flows.cluster.watch import follow
    from modelberth.spec.services import services

    chosen = choose(targets)
    planned = planned_starts(services(chosen.spec.stack)) if chosen.spec else {}
    with connect(replace(target, namespace=target.namespace or chosen.namespace)) as cluster:
        live = form != "jsonl" and is_terminal(sys.stdout)
        shown = _Live(form) if live else _Lines(form, planned)
        try:
            outcome = follow(
                cluster, cluster.namespace, chosen.names, shown.take, timeout=timeout, for_ever=forever
            )  # fmt: skip
        finally:
            shown.finish()
    if not outcome.all_ready:
        talk(*unready_lines(outcome.states))
    if form != "jsonl":
        talk(*stage_lines(outcome.stages, planned))
    return 0 if outcome.all_ready else 6


class _Lines:
    """A line, or a document, for each service whose state is another; what the API server does goes to stderr."""

    def __init__(self, form: str, planned: Mapping[str, PlannedStart]) -> None:
        self._form, self._planned = form, planned
        self._told: dict[tuple[str, str], tuple[str, str, str, int]] = {}
        self._lost = False

    def take(self, states: Sequence[ServiceState], picture: Picture) -> None:
        import json

        from modelberth.cli.output import data, talk
        from modelberth.cli.status_report import line, plain

        if self._lost != (picture.lost is not None):
            self._lost = picture.lost is not None
            why = f": {picture.lost.why}" if picture.lost and picture.lost.why else ""
            talk(f"the API server does not answer{why}; trying again" if self._lost else "the API server answers again")
        if not states and self._form != "jsonl":
            talk(f"there are no services in {picture.namespace} yet")
        for each in states:
            summary = (each.state, each.stage, each.why, each.ready)
            if self._told.get(each.key) != summary:
                self._told[each.key] = summary
                document = {"schemaVersion": "modelberth.dev/status/v1", **plain(each, self._planned.get(each.name))}
                data(json.dumps(document, ensure_ascii=False) if self._form == "jsonl" else line(each))

    def finish(self) -> None:
        """Nothing to put away."""


class _Live:
    """The table, drawn anew twice a second; what is left of it stays on the screen."""

    def __init__(self, form: str) -> None:
        from rich.console import Console
        from rich.live import Live

        self._wide = form == "wide"
        self._states: Sequence[ServiceState] = ()
        self._picture: Picture | None = None
        console = Console(highlight=False, markup=False, emoji=False)
        self._live = Live(console=console, get_renderable=self._table, refresh_per_second=2, redirect_stdout=False)
        self._live.start()

    def take(self, states: Sequence[ServiceState], picture: Picture) -> None:
        self._states, self._picture = states, picture

    def _table(self) -> str:
        from modelberth.base.clock import monotonic
        from modelberth.cli.status_report import lines

        shown = lines(self._states, wide=self._wide)
        if self._picture is not None and self._picture.lost is not None:
            seconds = monotonic() - self._picture.last_contact
            shown.append(f"the API server does not answer; last seen {seconds:.0f} s ago")
        return "\n".join(shown)

    def finish(self) -> None:
        self._live.stop()
