"""`berth register`."""

from __future__ import annotations

from pathlib import Path

import click

from modelberth.cli.options import output_option

EPILOG = """\b
Examples:
  berth register berth.yaml                                  every service, once
  berth register berth.yaml --dry-run                        what would be recorded
  berth register --url https://registry.example --token-file token --ca ca.crt

\b
A model becomes a registered model, its variant a version, and the address that its service loads
from the artifact of that version. What is there already is left; what differs is changed, and both
values are said. What somebody archived is brought back, for it is served.


In a pod the token of its service account does: --token-file
/var/run/secrets/kubernetes.io/serviceaccount/token"""


@click.command(epilog=EPILOG)
@click.argument("spec", type=click.Path(path_type=Path), default=Path("berth.yaml"))
@click.option("--url", metavar="URL", show_envvar=True, help="The registry's REST service.  [default: the stack's]")
@click.option(
    "--token-file", type=click.Path(path_type=Path, dir_okay=False), show_envvar=True,
    help="File with the bearer token of the registry.",
)  # fmt: skip
@click.option(
    "--ca", type=click.Path(path_type=Path, dir_okay=False), show_envvar=True,
    help="Authorities that sign the registry's certificate.  [default: the system's]",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, show_envvar=True, help="Look, and change nothing.")
@output_option()
def command(spec: Path, *, url: str | None, token_file: Path | None, ca: Path | None, dry_run: bool, form: str) -> None:
    """Record the services of the stack in SPEC in the Kubeflow Model Registry."""
    from modelberth.cli.register_report import show
    from modelberth.flows.register import RegisterRequest, register

    show(register(RegisterRequest(spec, url, token_file, ca, dry_run)), form)
