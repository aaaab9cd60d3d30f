"""`berth top`."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from modelberth.cli.cluster_options import cluster_options
from modelberth.cli.options import output_option

if TYPE_CHECKING:
    from modelberth.adapters.kubernetes_api import Target
    from modelberth.flows.cluster.top import PodUse

EPILOG = """\b
Examples:
  berth top -n private-ai            every service of a namespace
  berth top berth.yaml -o json
  berth top mistral --seconds 10     tokens a second over ten seconds

\b
Engines are asked for their own metrics, cards through NVIDIA's DCGM exporter; both through the API server."""


@click.command(epilog=EPILOG)
@click.argument("targets", nargs=-1, metavar="[SPEC|SERVICE...]")
@cluster_options()
@click.option("--seconds", type=click.FloatRange(min=0), default=2.0, show_envvar=True, help="Between two looks.")
@output_option("table", "json", "yaml")
def command(targets: tuple[str, ...], *, target: Target, seconds: float, form: str) -> None:
    """Show how busy services and their GPUs are."""
    from modelberth.adapters.kubernetes_api import connect
    from modelberth.cli.output import data, document, talk
    from modelberth.flows.cluster.targets import choose
    from modelberth.flows.cluster.top import top

    chosen = choose(targets)
    with connect(replace(target, namespace=target.namespace or chosen.namespace)) as cluster:
        found, notes = top(cluster, cluster.namespace, chosen.names, seconds)
    if form == "table":
        data("\n".join(_table(found)))
    else:
        document({"schemaVersion": "modelberth.dev/top/v1", "pods": [_plain(each) for each in found]}, form)
    talk(*(f"note: {note}" for note in notes))


def _table(found: list[PodUse]) -> list[str]:
    from modelberth.cli.output import table

    head = ("SERVICE", "POD", "GPU", "GPU MEMORY", "KV CACHE", "RUNNING", "WAITING", "FIRST TOKEN", "TOKENS/S")
    return table(head, [_row(each) for each in found], right=frozenset(range(2, 9))) if found else ["no pods"]


def _row(use: PodUse) -> tuple[str, ...]:
    load = use.load
    gpu = " ".join(f"{each.utilization:.0f}%" for each in use.cards)
    memory = f"{sum(each.used_mib for each in use.cards) / 1024:.1f} GiB" if use.cards else "-"
    first = "-" if load is None or load.first_token_median is None else f"{load.first_token_median:g} s"
    if load is not None and load.first_token_p95 is not None:
        first += f" ({load.first_token_p95:g} s)"
    share = "-" if load is None or load.kv_cache is None else f"{load.kv_cache:.0%}"
    return (
        use.service, use.pod, gpu or "-", memory, share, _count(load.running if load else None),
        _count(load.waiting if load else None), first, _count(use.tokens_per_second),
    )  # fmt: skip


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _plain(use: PodUse) -> dict[str, Any]:
    load = use.load
    return {
        "service": use.service, "pod": use.pod, "tokensPerSecond": use.tokens_per_second,
        "engine": None if load is None else {
            "kvCacheShare": load.kv_cache, "running": load.running, "waiting": load.waiting,
            "generatedTokens": load.generated, "firstTokenSeconds": {"median": load.first_token_median,
                                                                     "p95": load.first_token_p95},
        },
        "gpus": [{"utilizationPercent": each.utilization, "usedMiB": each.used_mib, "freeMiB": each.free_mib}
                 for each in use.cards],
    }  # fmt: skip
