"""`berth explain`."""

from __future__ import annotations

import click

from modelberth.cli.options import output_option

EPILOG = """\b
Examples:
  berth explain                   every failure and every rule that is known
  berth explain MB-KV-001         what happens, why, and how it is fixed
  berth explain MB-LINT-101       a rule of berth lint
  berth explain memory            those with the word in their title
  berth explain -o json           for a program

\b
Works without a cluster and without a network."""


@click.command(epilog=EPILOG)
@click.argument("name", metavar="[ID|WORD]", required=False)
@output_option("text", "json", "yaml", "name")
def command(name: str | None, *, form: str) -> None:
    """Explain a finding of berth diagnose or a rule of berth lint; without an ID, list them."""
    from modelberth.cli.explain_report import show_list, show_page
    from modelberth.findings.pages import page, pages

    if name is None:
        show_list(pages(), form)
        return
    found = page(name)
    if isinstance(found, tuple):
        show_list(found, form)
    else:
        show_page(found, form)
