"""Options that several verbs share, so that one flag means one thing everywhere."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from modelberth.cli.output import FORMATS

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def state_option() -> Decorator:
    """`--state DIR`."""
    return click.option(
        "--state", type=click.Path(path_type=Path, file_okay=False), envvar="BERTH_STATE", show_envvar=True,
        help="Folder for everything kept on this machine.  [default: $XDG_DATA_HOME/modelberth]",
    )  # fmt: skip


def output_option(*forms: str) -> Decorator:
    """`-o FORM` with the forms a verb has."""
    return click.option(
        "-o",
        "--output",
        "form",
        type=click.Choice(forms or FORMATS),
        default=(forms or FORMATS)[0],
        envvar="BERTH_OUTPUT",
        show_envvar=True,
        help="Form of the result.",
    )
