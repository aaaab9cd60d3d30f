"""Bearer tokens, which come from files: no command line and no variable holds one."""

from __future__ import annotations

from pathlib import Path

from modelberth.adapters.files import disk_errors
from modelberth.base.errors import UsageError

_MAX_BYTES = 1 << 16


def read_token(path: Path) -> str:
    """The token in a file, without the line end behind it.

    Raises:
        UsageError: the file is not there, or holds no token. AuthError: it may not be read.
    """
    with disk_errors(path), path.open("rb") as file:
        content = file.read(_MAX_BYTES)
    token = content.decode("ascii", "replace").strip()
    if not token or not token.isprintable() or "\ufffd" in token:
        raise UsageError("the file holds no token", where=str(path))
    return token
