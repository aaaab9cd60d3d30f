"""Writing a page beside the report: refused before any work where it cannot be a file, whole or not at all."""

from __future__ import annotations

from pathlib import Path

from modelberth.base.errors import DoesNotFit, UsageError
from modelberth.cli import output


def check_page(path: Path | None) -> None:
    """Refuse a place that a page cannot be written to: a folder, a device, a pipe.

    Raises:
        UsageError: something else than a regular file is there.
    """
    if path is not None and path.exists() and not path.is_file():
        raise UsageError("this is no file that a page can be written to", where=str(path))


def write_page(path: Path, page: str) -> None:
    """Write a page and say where.

    Raises:
        DoesNotFit: the disk is full.
        UsageError, AuthError: the folder is not there or may not be written to.
    """
    from modelberth.adapters.files import disk_errors, write_file

    try:
        with disk_errors(path):
            write_file(path, page.encode())
    except DoesNotFit as error:
        error.next_step = "free space, or write the page to another disk"
        raise
    output.talk(f"page written to {path}")
