"""The stack's file: found, read and checked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelberth.base.errors import UsageError
from modelberth.spec.reading import read_stack
from modelberth.spec.stack import Stack


@dataclass(frozen=True)
class SpecFile:
    """A stack and the file it came from; relative sources in it are relative to the file's folder."""

    path: Path
    stack: Stack

    @property
    def folder(self) -> Path:
        """Where relative sources begin."""
        return self.path.parent


def read_spec_file(path: Path) -> SpecFile:
    """Read a stack; a folder stands for the `berth.yaml` in it.

    Raises:
        UsageError: no such file, or it cannot be read.
        SpecError: every problem in it.
    """
    path = path / "berth.yaml" if path.is_dir() else path
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise UsageError("there is no such file", where=str(path), next_step="give the path of a berth.yaml") from None
    except OSError as error:
        raise UsageError("the file cannot be read", where=str(path), why=error.strerror or "") from error
    return SpecFile(path, read_stack(content, str(path)))
