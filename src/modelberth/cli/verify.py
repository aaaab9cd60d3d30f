"""`berth verify`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelberth.cli.cluster_options import cluster_options
from modelberth.cli.options import output_option

if TYPE_CHECKING:
    from modelberth.adapters.kubernetes_api import Target
    from modelberth.flows.verify_endpoint import VerifyReport, VerifyRequest

EPILOG = """\b
Examples:
  berth verify berth.yaml                                   every service of a stack, on the cluster, as declared
  berth verify mistral-small-24b -n private-ai              one, through a tunnel to its pod
  berth verify http://127.0.0.1:43655                       what berth up serves
  berth verify https://mistral.apps.example --model mistral --token-file token --ca ca.crt
  berth verify http://127.0.0.1:8080 --tools                a tool call must come back, not text
  berth verify http://127.0.0.1:8080 --requests 32          32 requests at once
  berth verify http://127.0.0.1:8080 -o json                for a program; -o junit for CI

\b
Services of the cluster are asked through a port-forward of our own; a URL may be any OpenAI-compatible endpoint.
Exit codes: 0 all passed, 4 it asks who we are, 6 it does not answer, 7 an answer is not as it should be."""


@click.command(epilog=EPILOG)
@click.argument("targets", nargs=-1, required=True, metavar="SPEC|SERVICE...|URL")
@cluster_options()
@click.option("--model", metavar="NAME", show_envvar=True, help="Model to ask for.  [default: the only one offered]")
@click.option(
    "--max-model-len", type=click.IntRange(min=1), metavar="TOKENS", show_envvar=True,
    help="Longest request; one that is longer must be refused.  [default: what the endpoint says]",
)  # fmt: skip
@click.option("--tools", is_flag=True, show_envvar=True, help="A tool call must come back.")
@click.option(
    "--requests", type=click.IntRange(0, 256), default=8, show_envvar=True, help="Requests at once, for the figures."
)
@click.option(
    "--max-tokens", type=click.IntRange(1, 4096), default=64, show_envvar=True, help="Longest answer of those."
)
@click.option("--prompt", "prompts", multiple=True, metavar="TEXT", envvar="BERTH_VERIFY_PROMPT", show_envvar=True,
              help="What those ask, in turn.")  # fmt: skip
@click.option(
    "--token-file", type=click.Path(path_type=Path, dir_okay=False), show_envvar=True, help="File with a bearer token."
)
@click.option(
    "--ca", type=click.Path(path_type=Path, dir_okay=False), show_envvar=True,
    help="Authorities that sign the endpoint's certificate.  [default: the system's]",
)  # fmt: skip
@click.option(
    "--timeout", type=click.FloatRange(min=1), default=120.0, metavar="SECONDS", show_envvar=True,
    help="Time without a byte after which a request is given up.",
)  # fmt: skip
@output_option("table", "json", "yaml", "junit")
def command(
    targets: tuple[str, ...], *, target: Target, model: str | None, max_model_len: int | None, tools: bool,
    requests: int, max_tokens: int, prompts: tuple[str, ...], token_file: Path | None, ca: Path | None, timeout: float,
    form: str,
) -> int:  # fmt: skip
    """Ask a service, or any OpenAI-compatible endpoint, all that its clients will, and say how fast it answers."""
    from modelberth.cli.verify_report import show_all
    from modelberth.flows.verify_endpoint import VerifyRequest, verify_endpoint

    request = VerifyRequest(
        "", model, max_model_len, tools, requests, max_tokens, token_file=token_file, ca=ca, timeout=timeout
    )
    request = replace(request, prompts=prompts) if prompts else request
    if "://" in targets[0]:
        if len(targets) > 1:
            raise click.UsageError("Give one URL.")
        reports = [verify_endpoint(replace(request, url=targets[0]))]
    else:
        reports = _of_cluster(targets, target, request)
    show_all(reports, form)
    return next((report.exit_code for report in reports if report.exit_code), 0)


def _of_cluster(targets: tuple[str, ...], target: Target, request: VerifyRequest) -> list[VerifyReport]:
    from modelberth.adapters.kubernetes_api import connect
    from modelberth.flows.cluster.targets import choose
    from modelberth.flows.cluster.verify_service import declared, verify_service
    from modelberth.spec.services import services

    chosen = choose(targets)
    known = {each.name: each for each in services(chosen.spec.stack)} if chosen.spec else {}
    prompts = chosen.spec.stack.verification.prompts if chosen.spec else ()
    with connect(replace(target, namespace=target.namespace or chosen.namespace)) as cluster:
        return [
            verify_service(
                cluster, cluster.namespace, name, declared(known[name], request, prompts) if name in known else request
            )
            for name in chosen.names or ()
        ]
