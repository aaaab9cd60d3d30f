"""`berth ship`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from modelberth.cli.delivery_options import delivery_options, delivery_request

EPILOG = """\b
Examples:
  berth ship ./mistral-small-24b s3://models/mistral-small-24b/
  berth ship hf://Qwen/Qwen3-8B@main s3://models/qwen3-8b/      no disk for it needed here
  berth ship ./weights oci://quay.io/acme/mistral:int4          as an image, without Docker
  berth ship --check s3://models/mistral-small-24b/             read and compare every byte
  berth ship --verify ./weights s3://models/m/                  and replace what is wrong there
  berth ship --gc s3://models/mistral-small-24b/                what killed uploads have left

\b
A place is a folder, s3://bucket/prefix/, oci://registry/name:tag or oci-layout:PATH:tag; a source
also hf://owner/name. Run it again after a break: only what is missing moves. Keys come from AWS_*
variables or a profile, the token from HF_TOKEN, a registry's password from `podman login` or
`docker login`."""


@click.command(epilog=EPILOG)
@click.argument("places", nargs=-1, metavar="[SRC] DEST")
@click.option(
    "--check", is_flag=True, show_envvar=True, help="Read what is at DEST and compare every byte with its manifest."
)
@click.option("--gc", is_flag=True, show_envvar=True, help="List and remove what killed ships have left at DEST.")
@click.option(
    "--verify", is_flag=True, show_envvar=True, help="Read what is at DEST first, and send again what is wrong there."
)
@click.option("--dry-run", is_flag=True, show_envvar=True, help="With --gc: list only.")
@click.option(
    "--base", metavar="IMAGE", default="", show_default=False, show_envvar=True,
    help="Image that a model image stands on, with sh, ln and sleep: KServe's sidecar mode needs them.",
)  # fmt: skip
@click.option(
    "--workspace", type=click.Path(path_type=Path, file_okay=False), show_envvar=True,
    help="Folder for parts on their way from one remote to another.  [default: in the state folder]",
)  # fmt: skip
@delivery_options()
def command(
    places: tuple[str, ...], *, check: bool, gc: bool, verify: bool, dry_run: bool, base: str, workspace: Path | None,
    form: str, **options: Any,
) -> int:  # fmt: skip
    """Ship a model's files from SRC to DEST: hashed first, sent in parts, the manifest last.

    A destination is complete when it has its manifest of files (.modelberth/manifest.json).
    """
    from modelberth.cli.delivery_report import show_check, show_delivery, show_remains
    from modelberth.cli.display import display
    from modelberth.flows import delivery, upkeep

    if check and gc:
        raise click.UsageError("--check and --gc are two things; give one.")
    wanted = 1 if check or gc else 2
    if len(places) != wanted:
        raise click.UsageError("Give DEST alone." if wanted == 1 else "Give SRC and DEST.")
    request = delivery_request(places[0], places[-1], {**options}, base=base, workspace=workspace, verify=verify)
    if gc:
        show_remains(places[0], upkeep.collect_garbage(request, remove=not dry_run), form, removed=not dry_run)
        return 0
    with display("berth ship") as listener:
        if check:
            report = upkeep.check(request, listener)
            listener.finish()
            show_check(report, form)
            return 7 if report.wrong else 0
        shipped = delivery.ship(request, listener)
        listener.finish()
        show_delivery("ship", shipped, form)
    return 0
