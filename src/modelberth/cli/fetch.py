"""`berth fetch`."""

from __future__ import annotations

from typing import Any

import click

from modelberth.cli.delivery_options import delivery_options, delivery_request

EPILOG = """\b
Examples:
  berth fetch s3://models/mistral-small-24b/ /mnt/models
  berth fetch oci://quay.io/acme/mistral:int4 ./mistral
  berth fetch hf://Qwen/Qwen3-8B ./qwen3-8b

\b
Under KServe it is the storage initializer of s3:// models (berth render --storage-container): it
reads the variables that KServe sets, and takes several pairs of SRC and DEST."""


@click.command(epilog=EPILOG)
@click.argument("places", nargs=-1, metavar="SRC DEST [SRC DEST]...")
@delivery_options()
def command(places: tuple[str, ...], *, form: str, **options: Any) -> None:
    """Fetch the delivery at SRC into the folder DEST, every byte checked on its way.

    No file has its name before all of them are right. Run it again after a break: only what is missing moves. An S3
    prefix without its manifest of files is not complete and is refused.
    """
    from modelberth.cli.delivery_report import show_deliveries
    from modelberth.cli.display import display
    from modelberth.flows import delivery

    if not places or len(places) % 2:
        raise click.UsageError("Give SRC and DEST.")
    with display("berth fetch") as listener:
        reports = [
            delivery.fetch(delivery_request(source, destination, options), listener)
            for source, destination in zip(places[::2], places[1::2], strict=True)
        ]
        listener.finish()
    show_deliveries("fetch", reports, form)
