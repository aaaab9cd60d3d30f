"""`berth render`."""

from __future__ import annotations

from pathlib import Path

import click

from modelberth.cli import output
from modelberth.manifests.storage_container import DEFAULT_NAME

EPILOG = """\b
Examples:
  berth render berth.yaml -o .                  the tree below ./gitops and ./steps, for Git
  berth render berth.yaml -o . --diff           what would change in it
  berth render berth.yaml -o . --check          for CI: exit 20 when it is not up to date
  berth render berth.yaml | kubectl apply --server-side -f -
  berth render berth.yaml -o . --with-secrets   and the store's Secret, for no repository
  berth render --storage-container --image registry.example/modelberth:0.1.0

\b
Works without a cluster. The same file gives the same bytes; files that berth did not write, or
that somebody has edited, are named and left alone.
Exit codes: 5 such files are in the way, 20 --check and there is a difference."""

_DIFFERENT = 20


@click.command(epilog=EPILOG)
@click.argument("spec", type=click.Path(path_type=Path), default=None, required=False)
@click.option(
    "-o", "--output", "target", type=click.Path(path_type=Path), metavar="DIR", envvar="BERTH_RENDER_OUTPUT",
    show_envvar=True, help="Folder that the tree goes into; without it, all objects go to standard output.",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(("table", "json", "yaml", "name")), envvar="BERTH_RENDER_FORMAT",
    show_envvar=True,
    help="Form of the report, or of the objects.  [default: table, or yaml without -o]",
)  # fmt: skip
@click.option("--check", is_flag=True, show_envvar=True, help="Write nothing; exit 20 when the tree would change.")
@click.option("--diff", is_flag=True, show_envvar=True, help="Write nothing; show what would change, line by line.")
@click.option(
    "--overwrite", is_flag=True, show_envvar=True, help="Take the place of edited files and of files of others."
)
@click.option(
    "--with-secrets", is_flag=True, show_envvar=True,
    help="Write the store's Secret too, with keys of the AWS_* variables or the profile: DIR/secrets/, ignored by Git.",
)  # fmt: skip
@click.option(
    "--storage-container", is_flag=True, show_envvar=True,
    help="Instead of a stack: the ClusterStorageContainer with which KServe fetches s3:// models by berth fetch.",
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
def command(
    spec: Path | None, *, target: Path | None, form: str | None, check: bool, diff: bool, overwrite: bool,
    with_secrets: bool, storage_container: bool, image: str | None, name: str, several: bool,
) -> int:  # fmt: skip
    """Write the manifests of the stack in SPEC as a GitOps tree, or print them.

    The tree is Kustomize's: gitops/<stack>/base for `kubectl apply -k` or Argo CD, and steps/<stack>/deploy.sh.
    """
    from modelberth.cli.render_report import show, show_objects
    from modelberth.flows.render import RenderRequest, render

    if storage_container:
        _storage_container(spec, image, name, form, several=several)
        return 0
    if image is not None:
        raise click.UsageError("--image goes with --storage-container; a stack names its images in berth.yaml.")
    if target is None and (check or diff or overwrite or with_secrets):
        raise click.UsageError("--check, --diff, --overwrite and --with-secrets need a tree: give -o DIR.")
    if with_secrets and (check or diff):
        raise click.UsageError("--check and --diff write nothing, and so no secrets.")
    result = render(RenderRequest(spec or Path("berth.yaml"), target, overwrite, check or diff, with_secrets))
    if result.comparison is None:
        show_objects(result.tree, form or "yaml")
        return 0
    show(result, form or "table", diff=diff, written=not (check or diff))
    return _DIFFERENT if check and result.comparison.differs else 0


def _storage_container(spec: Path | None, image: str | None, name: str, form: str | None, *, several: bool) -> None:
    from modelberth.manifests import storage_container as manifests

    if spec is not None:
        raise click.UsageError("--storage-container belongs to the cluster and to no stack; leave SPEC out.")
    if image is None:
        raise click.UsageError("--storage-container needs --image: the image built from the Containerfile.")
    container = manifests.storage_container(manifests.StorageContainer(image, name, several))
    output.document(container, "json" if form == "json" else "yaml")
