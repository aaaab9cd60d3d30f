"""Where weights come from, as one thing: files of known sizes whose ranges can be read, by several threads at a time.

folder            bytes on this machine; hashed before anything moves
s3, image         a delivery of ours: its manifest says every hash
hub, s3           files that somebody put there: sizes, perhaps SHA-256; hashed as they pass
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

from modelberth.adapters.files import disk_errors, open_pieces
from modelberth.adapters.http_messages import Sink
from modelberth.adapters.s3 import S3Store
from modelberth.base.errors import IntegrityError
from modelberth.delivery.manifest import PART_BYTES, FileEntry, FileManifest
from modelberth.spec.addresses import S3Address

_BUFFER_BYTES = 256 << 10


class Origin(Protocol):
    """The files of one model and their bytes.

    Attributes:
        where: for messages.
        identity: of what is there where its hashes are not known: another one when it changes.
        files: what is known of each, sorted by path; without SHA-256 or part checksums where they are not known.
        part_bytes: bytes of a part.
    """

    where: str
    identity: str
    files: tuple[FileEntry, ...]
    part_bytes: int

    @property
    def folder(self) -> Path | None:
        """Where the files lie on this machine; None for a remote."""

    def read(self, path: str, offset: int, length: int, sink: Sink) -> None:
        """A range of a file into a sink, in order.

        Raises:
            IntegrityError: it is not there, or comes as another range or length.
        """

    def confirm(self) -> None:
        """Make sure that all that was read is of one state of the origin.

        Raises:
            IntegrityError: it changed meanwhile.
        """

    def stop(self) -> None:
        """End what other threads read, and close."""


def is_known(files: tuple[FileEntry, ...]) -> bool:
    """Whether every hash of every file is known."""
    return all(entry.sha256 and entry.crc64nvme for entry in files)


class FolderOrigin:
    """A folder of this machine whose files have been hashed."""

    def __init__(self, folder: Path, manifest: FileManifest) -> None:
        self.where, self.folder, self.identity = str(folder), folder, str(folder)
        self.files, self.part_bytes = manifest.files, manifest.part_bytes

    def read(self, path: str, offset: int, length: int, sink: Sink) -> None:
        """A range of a file into a sink."""
        place = self.folder / path
        buffer = memoryview(bytearray(min(_BUFFER_BYTES, max(1, length))))
        with disk_errors(place):
            for piece in open_pieces(place, offset, length, buffer):
                sink(piece)
                length -= len(piece)
        if length:
            raise IntegrityError("the file became shorter while it was read", where=str(place))

    def confirm(self) -> None:
        """Every part was compared with its hash."""

    def stop(self) -> None:
        """Nothing is held."""


class S3Origin:
    """A prefix of an S3 bucket: a delivery of ours with its manifest, or files that somebody put there."""

    folder = None

    def __init__(
        self, store: S3Store, address: S3Address, files: tuple[FileEntry, ...], part_bytes: int = PART_BYTES
    ) -> None:
        self._store, self._address = store, address
        self.where, self.files, self.part_bytes = str(address), files, part_bytes
        self.identity = "" if is_known(files) else self._look()

    def read(self, path: str, offset: int, length: int, sink: Sink) -> None:
        """A range of an object into a sink."""
        self._store.get_range(self._address.key(path), offset, length, sink)

    def _look(self) -> str:
        listing = self._store.listing(self._address.prefix)
        keys = [self._address.key(entry.path) for entry in self.files]
        seen = [f"{key} {listing.etags.get(key)} {listing.modified.get(key)}\n" for key in keys]
        return f"{self.where} {hashlib.sha256(''.join(seen).encode()).hexdigest()}"

    def confirm(self) -> None:
        """Look whether objects without known hashes are still those that were there at the beginning."""
        if self.identity and self._look() != self.identity:
            raise IntegrityError(
                "the source changed while it was read", where=self.where, next_step="run the same command again"
            )

    def stop(self) -> None:
        """Close the connections."""
        self._store.close()
