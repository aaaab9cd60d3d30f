"""`berth verify`."""

from __future__ import annotations

from pathlib import Path

import click

from modelberth.cli.options import output_option

EPILOG = """\b
Examples:
  berth verify http://127.0.0.1:43655                       what berth up serves
  berth verify https://mistral.apps.example --model mistral --token-file token --ca ca.crt
  berth verify http://127.0.0.1:8080 --tools                a tool call must come back, not text
  berth verify http://127.0.0.1:8080 --requests 32          32 requests at once
  berth verify http://127.0.0.1:8080 -o json                for a program

\b
Any OpenAI-compatible endpoint: through a Route, a port-forward, or on this machine.
Exit codes: 0 all passed, 4 it asks who we are, 6 it does not answer, 7 an answer is not as it should be."""


@click.command(epilog=EPILOG)
@click.argument("url")
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
@output_option("table", "json", "yaml")
def command(
    url: str, *, model: str | None, max_model_len: int | None, tools: bool, requests: int, max_tokens: int,
    prompts: tuple[str, ...], token_file: Path | None, ca: Path | None, timeout: float, form: str,
) -> int:  # fmt: skip
    """Ask the OpenAI-compatible endpoint at URL everything that its clients will, and say how fast it answers."""
    from modelberth.cli.verify_report import show
    from modelberth.flows.verify_endpoint import VerifyRequest, verify_endpoint

    further = {"prompts": prompts} if prompts else {}
    report = verify_endpoint(
        VerifyRequest(
            url, model, max_model_len, tools, requests, max_tokens, token_file=token_file, ca=ca, timeout=timeout,
            **further,
        )
    )  # fmt: skip
    show(report, form)
    return report.exit_code
