"""`berth plan`."""

from __future__ import annotations

from pathlib import Path

import click

from modelberth.cli.options import output_option
from modelberth.cli.page_file import check_page, write_page

EPILOG = """\b
Examples:
  berth plan berth.yaml                                verdict, memory and cost of every variant
  berth plan --model mistral-int4=./mistral-w4a16      read one service's model from a folder
  berth plan --explain                                 with the memory bar of one GPU for each
  berth plan -o json berth.yaml | jq .cost             for a program
  berth plan --html plan.html                          one page to send around

\b
Works without a cluster, a GPU or weights: config.json is enough, headers make it exact.
Exit codes: 0 every variant starts, 8 one does not."""

_DOES_NOT_FIT = 8


@click.command(epilog=EPILOG)
@click.argument("spec", type=click.Path(path_type=Path), default=Path("berth.yaml"))
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="SERVICE=MODEL",
    envvar="BERTH_PLAN_MODEL",
    show_envvar=True,
    help="Read a service's model there instead of at its source: a folder, a config.json, s3://, a Hub id.",
)
@click.option("--vllm", metavar="VERSION", show_envvar=True, help="Version of vLLM.  [default: the platform's]")
@click.option("--explain", is_flag=True, show_envvar=True, help="Draw the memory of one GPU for each variant.")
@click.option(
    "--html", type=click.Path(path_type=Path), metavar="FILE", show_envvar=True,
    help="Write one self-contained page as well.",
)  # fmt: skip
@output_option()
def command(
    spec: Path, *, models: tuple[str, ...], vllm: str | None, explain: bool, html: Path | None, form: str
) -> int:
    """Size and price every variant of the stack in SPEC against its pools and against the catalogue.

    For each: whether vLLM will start, the longest context, requests at once, dollars an hour and a month, where its
    weights are better kept, and what would serve it for less.
    """
    from modelberth.cli.plan_report import page, show
    from modelberth.flows.plan import PlanRequest, plan_stack

    check_page(html)
    plan = plan_stack(PlanRequest(spec, named_models(models), vllm))
    if html is not None:
        write_page(html, page(plan))
    show(plan, form, explain=explain)
    return 0 if plan.starts else _DOES_NOT_FIT


def named_models(texts: tuple[str, ...]) -> dict[str, str]:
    """`SERVICE=MODEL` texts by service.

    Raises:
        click.BadParameter: one that is not.
    """
    named = {}
    for text in texts:
        service, separator, model = text.partition("=")
        if not separator or not service or not model:
            raise click.BadParameter(f"'{text}' is not SERVICE=MODEL", param_hint="--model")
        named[service] = model
    return named
