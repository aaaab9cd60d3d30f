"""`berth diff`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from modelberth.cli.cluster_options import cluster_options
from modelberth.cli.options import output_option

if TYPE_CHECKING:
    from modelberth.adapters.kubernetes_api import Target

DIFFERENT = 20
EPILOG = """\b
Examples:
  berth diff berth.yaml                 what a deployment would change, by the server's own dry run
  berth diff berth.yaml --exit-code     20 when anything would, for CI
  berth diff berth.yaml -o json

\b
Exit codes: 0, 20 different (with --exit-code), 4 not allowed, 5 fields belong to others."""


@click.command(epilog=EPILOG)
@click.argument("spec", type=click.Path(path_type=Path))
@cluster_options()
@click.option("--exit-code", is_flag=True, show_envvar=True, help="End with 20 when anything is different.")
@output_option("table", "json", "yaml")
def command(spec: Path, *, target: Target, exit_code: bool, form: str) -> int:
    """Show what a deployment would change on the cluster, object by object, and change nothing."""
    from modelberth.adapters.kubernetes_api import connect
    from modelberth.cli.deploy_report import objects
    from modelberth.cli.output import data, document, talk
    from modelberth.flows.cluster.comparison import compare, difference, left_over
    from modelberth.flows.spec_file import read_spec_file
    from modelberth.manifests.tree import stack_tree

    read = read_spec_file(spec)
    namespace = target.namespace or read.stack.metadata.namespace
    wanted = stack_tree(read.stack, spec_path=str(spec)).applied
    with connect(replace(target, namespace=namespace)) as cluster:
        compared = compare(cluster, wanted)
        over = left_over(cluster, read.stack.metadata.name, namespace, wanted)
    if form == "table":
        for each in compared:
            if text := difference(each):
                data(text)
        talk(*(f"{each.ref}: {each.conflict.why}" for each in compared if each.conflict is not None))
        talk(*(f"{each}: of this stack, and rendered no longer" for each in over))
        counts = {name: sum(each.outcome == name for each in compared) for name in ("create", "change", "unchanged")}
        talk(", ".join(f"{count} {name}" for name, count in counts.items()))
    else:
        about = [{**plain, "diff": difference(each)} for plain, each in zip(objects(compared), compared, strict=True)]
        found = {"schemaVersion": "modelberth.dev/diff/v1", "objects": about, "leftOver": [str(each) for each in over]}
        document(found, form)
    if any(each.outcome == "conflict" for each in compared):
        return 5
    different = any(each.outcome != "unchanged" for each in compared)
    return DIFFERENT if exit_code and different else 0
