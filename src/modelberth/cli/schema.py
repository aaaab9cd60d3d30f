"""`berth schema`."""

from __future__ import annotations

import click

from modelberth.cli import output
from modelberth.cli.options import output_option

EPILOG = """\b
Let an editor complete and check berth.yaml:
  berth schema > berth.schema.json
and as the first line of berth.yaml:
  # yaml-language-server: $schema=berth.schema.json"""


@click.command(epilog=EPILOG)
@output_option("json", "yaml")
def command(form: str) -> None:
    """Print the JSON Schema of berth.yaml."""
    from modelberth.spec.schema import stack_schema

    output.document(stack_schema(), form)
