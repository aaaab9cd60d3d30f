"""The one place that prints: data to standard output, talk to standard error.

Formats of data: `table` and `wide` for people, `json` and `yaml` for programs, `name` for pipes. Tables are
aligned by spaces and never cut, so that they survive a pipe. Colour only on a terminal, and NO_COLOR wins.
"""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, TextIO

from modelberth.base.errors import DoesNotFit

FORMATS = ("table", "wide", "json", "yaml", "name")


def talk(*lines: str) -> None:
    """Lines for a person, to standard error. Where they cannot be written there is nobody to tell it to.

    Raises:
        BrokenPipeError: whoever read them has gone.
    """
    for line in lines:
        try:
            _write(sys.stderr, line)
        except BrokenPipeError:
            raise
        except OSError:
            return


def data(text: str) -> None:
    """Text that is the result, to standard output.

    Raises:
        BrokenPipeError: whoever read it has gone, as `head` does.
        DoesNotFit: the disk behind standard output is full.
    """
    try:
        _write(sys.stdout, text)
    except BrokenPipeError:
        raise
    except OSError as error:
        # What could not be written is still buffered, and Python would try again at exit and end with 120.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise DoesNotFit("the result cannot be written", where="standard output", why=error.strerror or "") from error


def piece(text: str) -> None:
    """A piece of a text that is still coming, to standard output, without a line end.

    Raises:
        BrokenPipeError: whoever read it has gone.
    """
    if sys.stdout is not None:
        encoding = sys.stdout.encoding or "utf-8"
        sys.stdout.write(text.encode(encoding, "replace").decode(encoding))
        sys.stdout.flush()


def document(value: Any, form: str) -> None:
    """A document as `json` or `yaml`, to standard output."""
    if form == "yaml":
        from modelberth.base.yamlio import write_documents

        data(write_documents([value]).rstrip("\n"))
    else:
        data(json.dumps(value, indent=2, ensure_ascii=False))


def _write(stream: TextIO | None, text: str) -> None:
    if stream is None:  # closed by whoever started us
        return
    encoding = stream.encoding or "utf-8"
    stream.write(text.encode(encoding, "replace").decode(encoding) + "\n")
    stream.flush()


def is_terminal(stream: TextIO | None) -> bool:
    """Whether a person watches this stream: a terminal that can move its cursor."""
    return stream is not None and stream.isatty() and os.environ.get("TERM") != "dumb"


def width(default: int = 100) -> int:
    """Columns of the terminal; `default` off one."""
    try:
        return os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError, AttributeError):  # no terminal, or no output at all
        return default


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: frozenset[int] = frozenset()) -> list[str]:
    """Lines of an aligned table.

    Args:
        head: column titles.
        rows: cells as text, as many as titles.
        right: columns whose cells stand on the right: numbers.
    """
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = (
            cell.rjust(size) if column in right else cell.ljust(size)
            for column, (cell, size) in enumerate(zip(row, widths, strict=True))
        )
        return "  ".join(cells).rstrip()

    return [line(head), *(line(row) for row in rows)]


def side_by_side(texts: Sequence[str]) -> Iterator[str]:
    """Lines of several texts in columns beside each other, as wide as the terminal has room for."""
    column = max(28, (width() - 2 * len(texts)) // len(texts))
    wrapped = [textwrap.wrap(text, column - 2) for text in texts]
    for line in zip_longest(*wrapped, fillvalue=""):
        yield ("  " + "  ".join(cell.ljust(column - 2) for cell in line)).rstrip()
