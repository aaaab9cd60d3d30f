"""`berth modelcar`: build, push and inspect OCI images of models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from modelberth.cli import output
from modelberth.cli.delivery_options import delivery_options, delivery_request

if TYPE_CHECKING:
    from modelberth.flows.modelcar import ImageReport

EPILOG = """\b
Examples:
  berth modelcar build ./weights oci-layout:./images:int4       a layout on disk, without Docker
  berth modelcar push oci-layout:./images:int4 oci://quay.io/acme/mistral:int4
  berth modelcar push ./weights oci://quay.io/acme/mistral:int4  straight from the folder, no copy
  berth modelcar inspect oci://quay.io/acme/mistral:int4

\b
The same files give the same digest on any machine. Image volumes (oci+native://) and oci+fetch://
need nothing but the files; KServe's sidecar mode (oci://) needs sh, ln and sleep: name a small
image that has them with --base."""

_BASE = click.option(
    "--base", metavar="IMAGE", default="", show_default=False, show_envvar=True,
    help="Image that the model's image stands on, with sh, ln and sleep: KServe's sidecar mode needs them.",
)  # fmt: skip


@click.group(epilog=EPILOG)
def command() -> None:
    """Build, push and inspect OCI images of models (ModelCars): one layer a file, everything below /models."""


@command.command()
@click.argument("folder")
@click.argument("image")
@_BASE
@delivery_options()
def build(folder: str, image: str, *, base: str, form: str, **options: Any) -> None:
    """Build an image of the model in FOLDER into the OCI layout IMAGE: oci-layout:PATH:tag."""
    if not image.startswith("oci-layout:"):
        raise click.UsageError("build writes a layout, oci-layout:PATH:tag; push writes to a registry.")
    _deliver(folder, image, base, form, options)


@command.command()
@click.argument("source")
@click.argument("image")
@_BASE
@delivery_options()
def push(source: str, image: str, *, base: str, form: str, **options: Any) -> None:
    """Push SOURCE, a layout's image or a model's folder, to IMAGE: oci://registry/name:tag.

    What the registry has is not sent again. The digest at the end is what manifests pin.
    """
    if not image.startswith("oci://"):
        raise click.UsageError("push writes to a registry: oci://registry/name:tag.")
    _deliver(source, image, base, form, options)


def _deliver(source: str, destination: str, base: str, form: str, options: dict[str, Any]) -> None:
    from modelberth.cli.delivery_report import show_delivery
    from modelberth.cli.display import display
    from modelberth.flows import delivery

    with display("berth modelcar") as listener:
        report = delivery.ship(delivery_request(source, destination, options, base=base), listener)
        listener.finish()
    show_delivery("ship", report, form)


@command.command()
@click.argument("image")
@delivery_options()
def inspect(image: str, *, form: str, **options: Any) -> None:
    """Say what IMAGE holds, and the disk that a node needs to pull it. No weights are read."""
    from modelberth.flows.modelcar import inspect_image

    report = inspect_image(image, delivery_request("", "", options).places)
    if form in {"json", "yaml"}:
        output.document(_document(report), form)
    elif form == "name":
        output.data(report.digest)
    else:
        output.data("\n".join(_lines(report, wide=form == "wide")))


def _document(report: ImageReport) -> dict[str, Any]:
    return {
        "schemaVersion": "modelberth.dev/modelcar/v1",
        "image": report.address,
        "digest": report.digest,
        "base": report.base or None,
        "manifest": f"sha256:{report.manifest.digest}" if report.manifest else None,
        "bytes": report.size,
        "nodeDiskPeakBytes": report.peak,
        "layers": [
            {"digest": layer.digest, "bytes": layer.size, "mediaType": layer.media_type, "path": layer.path or None}
            for layer in report.layers
        ],
    }


def _lines(report: ImageReport, *, wide: bool) -> list[str]:
    from modelberth.base.units import format_decimal

    built = f"{len(report.manifest.files)} model files" if report.manifest else "not built by berth"
    rows = [
        [layer.path or "(base)", format_decimal(layer.size), layer.digest if wide else layer.digest[:19] + "…"]
        for layer in report.layers
    ]
    return [
        f"{report.address}",
        f"  {report.digest}",
        f"  {built}, {len(report.layers)} layers, {format_decimal(report.size)}; "
        f"a node needs {format_decimal(report.peak)} of disk to pull it",
        *([f"  stands on {report.base}"] if report.base else []),
        "",
        *output.table(["FILE", "SIZE", "LAYER"], rows, right=frozenset({1})),
    ]
