"""`berth support-bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelberth.cli.cluster_options import cluster_options
from modelberth.cli.options import output_option

if TYPE_CHECKING:
    from modelberth.adapters.kubernetes_api import Target
    from modelberth.flows.support_bundle import Bundle

EPILOG = """\b
Examples:
  berth support-bundle -n private-ai                          every service of a namespace
  berth support-bundle mistral-small-24b -n private-ai --spec berth.yaml
  berth diagnose --must-gather support-bundle.tar.gz          what it says

\b
Secrets keep the names of their keys; their values, tokens and passwords are taken out of every file."""


@click.command(epilog=EPILOG)
@click.argument("services", nargs=-1, metavar="[SERVICE]...")
@cluster_options()
@click.option(
    "--file", "path", type=click.Path(path_type=Path, dir_okay=False), default=Path("support-bundle.tar.gz"),
    show_envvar=True, help="The archive.",
)  # fmt: skip
@click.option(
    "--spec", "specs", type=click.Path(path_type=Path, exists=True, dir_okay=False), multiple=True, metavar="FILE",
    envvar="BERTH_SUPPORT_BUNDLE_SPEC", show_envvar=True, help="A file that goes along: berth.yaml.",
)  # fmt: skip
@output_option("table", "json", "yaml", "name")
def command(services: tuple[str, ...], *, target: Target, path: Path, specs: tuple[Path, ...], form: str) -> None:
    """Write what helps others to find a fault into one archive, without secrets."""
    from modelberth.adapters.kubernetes_api import connect
    from modelberth.flows.support_bundle import write_bundle

    with connect(target) as cluster:
        _show(write_bundle(cluster, cluster.namespace, path, services, specs), form)


def _show(bundle: Bundle, form: str) -> None:
    from modelberth.base.units import format_decimal
    from modelberth.cli.output import data, document, talk

    first = bundle.diagnosis.findings[0] if bundle.diagnosis.findings else None
    if form in {"json", "yaml"}:
        document(
            {
                "schemaVersion": "modelberth.dev/support-bundle/v1", "path": str(bundle.path), "files": bundle.files,
                "bytes": bundle.size, "firstFinding": first.id if first else None, "notes": list(bundle.notes),
            },
            form,
        )  # fmt: skip
        return
    talk(*(f"note: {note}" for note in bundle.notes))
    if form == "name":
        data(str(bundle.path))
        return
    data(f"{bundle.path}: {bundle.files} files, {format_decimal(bundle.size)}, secrets taken out")
    if first:
        data(f"what it says first: {first.id} {first.title}; berth diagnose --must-gather {bundle.path}")
