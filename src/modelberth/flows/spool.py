"""Parts on their way from one remote to another: in a nameless file on disk, so that memory stays small and a kill
leaves nothing; and the bytes of a part, compared with what is known of it before the last of them leaves.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from modelberth.adapters.files import disk_errors, open_pieces
from modelberth.adapters.hashing import crc64nvme, crc_text
from modelberth.base.errors import IntegrityError
from modelberth.delivery.manifest import Part


@contextmanager
def spool_in(folder: Path) -> Iterator[IO[bytes]]:
    """A nameless file in a folder, which is made where there is none.

    Raises:
        DoesNotFit: the disk is full.
    """
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as spool:
            yield spool


def path_of(spool: IO[bytes]) -> Path:
    """A path that opens a spool again, each time from its start (Linux)."""
    return Path(f"/proc/self/fd/{spool.fileno()}")


def checked_pieces(path: Path, offset: int, part: Part, where: str, buffer: memoryview) -> Iterator[memoryview]:
    """A part's bytes; the last piece leaves only when all of them are what the manifest says.

    Args:
        path: of the file that they are in.
        offset: where they begin in it.
        part: what they should be.
        where: the file that the user knows, for messages.
        buffer: that each piece is read into.

    Raises:
        IntegrityError: they are others, or fewer.
    """
    crc, sent = 0, 0
    with disk_errors(path):
        for piece in open_pieces(path, offset, part.length, buffer):
            crc = crc64nvme(piece, crc)
            sent += len(piece)
            if sent == part.length and crc_text(crc) != part.crc64nvme:
                break
            yield piece
    if sent != part.length or crc_text(crc) != part.crc64nvme:
        raise IntegrityError(
            "a file changed while it was shipped", where=where,
            why=f"bytes {part.offset:,} to {part.offset + part.length - 1:,} are not what was hashed",
            next_step="wait for its writer to finish, then ship again",
        )  # fmt: skip
