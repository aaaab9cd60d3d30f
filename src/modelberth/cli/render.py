"""`berth render`."""

from __future__ import annotations

import click

from modelberth.cli import output
from modelberth.cli.options import output_option
from modelberth.manifests.storage_container import DEFAULT_NAME

EPILOG = """\b
Examples:
  berth render --storage-container --image registry.example/modelberth:0.1.0 | kubectl apply -f -
  berth render --storage-container --image registry.example/modelberth:0.1.0 -o json

\b
Works without a cluster. The image is built from the Containerfile of this project."""


@click.command(epilog=EPILOG)
@click.option(
    "--storage-container", is_flag=True, show_envvar=True,
    help="The ClusterStorageContainer with which KServe fetches s3:// models by berth fetch.",
)  # fmt: skip
@click.option(
    "--image",
    metavar="IMAGE",
    show_envvar=True,
    help="Image of the storage container: registry/name:tag or @digest.",
)
@click.option("--name", metavar="NAME", default=DEFAULT_NAME, show_envvar=True, help="Name of the storage container.")
@click.option(
    "--several", is_flag=True, show_envvar=True, help="Models of several addresses too: KServe 0.17 and later."
)
@output_option("yaml", "json")
def command(*, storage_container: bool, image: str | None, name: str, several: bool, form: str) -> None:
    """Print what the cluster needs once: so far, KServe's storage container for verified s3:// models."""
    from modelberth.manifests import storage_container as manifests

    if not storage_container:
        raise click.UsageError("Say what to render; there is --storage-container so far.")
    if image is None:
        raise click.UsageError("--storage-container needs --image: the image built from the Containerfile.")
    output.document(manifests.storage_container(manifests.StorageContainer(image, name, several)), form)
