"""A tar.gz that is written whole or not at all: members of known and of unknown length, with fixed owner and mode."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from modelberth.adapters.files import writing

_IN_MEMORY = 4 << 20


class BundleFile:
    """An archive that is being written.

    Attributes:
        count: members so far.
    """

    def __init__(self, archive: tarfile.TarFile, top: str, seconds: int) -> None:
        self._archive, self._top, self._seconds = archive, top, seconds
        self.count = 0

    def add(self, path: str, content: bytes) -> None:
        """Add a file.

        Args:
            path: below the archive's top folder.
            content: its bytes.
        """
        self._member(path, io.BytesIO(content), len(content))

    def add_blocks(self, path: str, blocks: Iterable[bytes]) -> int:
        """Add a file whose length is not known before; returns it. More than a little waits on disk."""
        with tempfile.SpooledTemporaryFile(_IN_MEMORY) as waiting:
            for block in blocks:
                waiting.write(block)
            size = waiting.tell()
            waiting.seek(0)
            self._member(path, waiting, size)
        return size

    def _member(self, path: str, content: io.BytesIO | tempfile.SpooledTemporaryFile[bytes], size: int) -> None:
        member = tarfile.TarInfo(f"{self._top}/{path}")
        member.size, member.mtime, member.mode = size, self._seconds, 0o644
        self._archive.addfile(member, content)
        self.count += 1


@contextmanager
def bundle_file(path: Path, top: str, seconds: int) -> Iterator[BundleFile]:
    """An archive under its final name once the block has ended well.

    Args:
        path: of the archive.
        top: folder that all members stand in.
        seconds: time of the members, since 1970.

    Raises:
        DoesNotFit: the disk is full. AuthError: it may not be written.
    """
    with writing(path) as file, tarfile.open(fileobj=file, mode="w:gz") as archive:
        yield BundleFile(archive, top, seconds)
