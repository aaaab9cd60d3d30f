"""Files arriving in a folder: part by part, in any order, each checked, under a `.part` name until all of it is right.

A part is checked by its CRC-64/NVME as it comes, and written at its place. SHA-256 wants the bytes in order: the
thread that receives the next part in order hashes it on the way; parts that came early are read back, from memory as a
rule. After a kill the parts on disk are checked by their CRC-64/NVME and kept: no book of them is needed where the
manifest knows the checksums, and where it does not, one line is kept for each part.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from modelberth.adapters.files import OnBytes, disk_errors, sync_folder
from modelberth.adapters.hashing import crc64nvme, crc_text
from modelberth.base.errors import IntegrityError
from modelberth.delivery.manifest import FileEntry, Part, wanted_parts
from modelberth.flows.origins import Origin

_TRIES = 2
_MEND = "run it again; if it stays so, ship the model again with --verify, which replaces what is wrong there"
_PAST_NS = 10_000_000_000
_BUFFER_BYTES = 256 << 10
OnPart = Callable[[str, int, str], None]
"""Told of every part that has arrived: path, number from 0, CRC-64/NVME."""


class Arrival:
    """One file on its way into a folder.

    Args:
        entry: what is known of it; the hashes that are not known are found.
        part_bytes: bytes of a part.
        final: its path once everything is right.
    """

    def __init__(self, entry: FileEntry, part_bytes: int, final: Path) -> None:
        self.entry, self.final = entry, final
        self.path = final.with_name(final.name + ".part")
        self._parts = tuple(wanted_parts(entry, part_bytes))
        self._crcs = [part.crc64nvme for part in self._parts]
        self.pending = list(self._parts)
        self.active = 0
        self._arrived: set[int] = set()
        self._sha256 = hashlib.sha256()
        self._hashed = 0
        self._hashing = threading.Lock()
        self._descriptor = -1
        self.complete = False

    # --- before and after ------------------------------------------------------------------------------

    def open(self) -> None:
        """Make the file at its full size, so that a full disk says so before bytes move."""
        with disk_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
            os.ftruncate(self._descriptor, self.entry.size)
            if self.entry.size:
                _allocate(self._descriptor, self.entry.size)

    def close(self) -> None:
        """Close the file; it stays as it is."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def remove(self) -> None:
        """Remove what has arrived."""
        self.close()
        self.path.unlink(missing_ok=True)

    def keep(self, recorded: dict[int, str], on_bytes: OnBytes) -> None:
        """Look which parts of an earlier run are right, and want only the others.

        Args:
            recorded: CRC-64/NVME by number, of parts whose checksum no manifest says.
            on_bytes: told of the bytes that are kept.
        """
        if not self.path.is_file():
            return
        missing = []
        for part in self.pending:
            crc = part.crc64nvme or recorded.get(part.number, "")
            if crc and self._crc_on_disk(part) == crc:
                self._crcs[part.number] = crc
                self._arrived.add(part.number)
                on_bytes(part.length)
            else:
                missing.append(part)
        self.pending = missing

    def _crc_on_disk(self, part: Part) -> str:
        value, buffer, at = 0, memoryview(bytearray(_BUFFER_BYTES)), 0
        with disk_errors(self.path), self.path.open("rb", buffering=0) as file:
            file.seek(part.offset)
            while at < part.length:
                count = file.readinto(buffer[: min(_BUFFER_BYTES, part.length - at)])
                if not count:
                    return ""  # shorter: it never was as large
                value = crc64nvme(buffer[:count], value)
                at += count
        return crc_text(value)

    @property
    def missing_bytes(self) -> int:
        """Bytes that still take room on the disk."""
        try:
            held = self.path.stat().st_blocks * 512
        except OSError:
            held = 0
        return max(0, self.entry.size - held)

    # --- the parts ---------------------------------------------------------------------------------------

    def receive(self, part: Part, origin: Origin, on_bytes: OnBytes, on_part: OnPart) -> bool:
        """Fetch a part; one that comes wrong is fetched once more. Returns whether this completed the file.

        Raises:
            IntegrityError: it came wrong twice, or the file is not the one that was declared.
            DoesNotFit: the disk is full.
        """
        where = f"{_joined(origin.where, self.entry.path)} bytes {part.offset:,} to {part.offset + part.length - 1:,}"
        wrong = IntegrityError("bytes came wrong twice", where=where)
        for _ in range(_TRIES):
            try:
                crc = self._take(part, origin)
            except IntegrityError as error:
                error.where = error.where or where
                wrong = error
                continue
            if part.crc64nvme in {"", crc}:
                break
            wrong = IntegrityError(
                "bytes came wrong twice", where=where, next_step=_MEND,
                why=f"their CRC-64/NVME is {crc}, not the manifest's {part.crc64nvme}",
            )  # fmt: skip
        else:
            raise wrong
        on_bytes(part.length)
        on_part(self.entry.path, part.number, crc)
        self._arrived.add(part.number)
        return self.catch_up()

    def _take(self, part: Part, origin: Origin) -> str:
        """Write one part, hashing it on the way where it is the next in order. Returns its CRC-64/NVME."""
        inline = self._hashing.acquire(blocking=False)
        sha256 = self._sha256.copy() if inline and part.number == self._hashed else None
        if inline and sha256 is None:
            self._hashing.release()
        crc, at = 0, part.offset

        def sink(chunk: memoryview) -> None:
            nonlocal crc, at
            crc = crc64nvme(chunk, crc)
            if sha256 is not None:
                sha256.update(chunk)
            with disk_errors(self.path):
                _write_at(self._descriptor, chunk, at)
            at += len(chunk)

        try:
            origin.read(self.entry.path, part.offset, part.length, sink)
            text = crc_text(crc)
            if part.crc64nvme in {"", text}:
                self._crcs[part.number] = text  # before any other thread may see the file as complete
                if sha256 is not None:
                    self._sha256, self._hashed = sha256, part.number + 1
        finally:
            if sha256 is not None:
                self._hashing.release()
        return text

    def catch_up(self) -> bool:
        """Hash the parts that are there in order; when all are, finish the file. Several threads may call it.

        Returns:
            Whether this call finished it.
        """
        finished = False
        while self._is_behind() and self._hashing.acquire(blocking=False):
            try:
                while self._hashed in self._arrived:
                    self._hash_from_disk(self._parts[self._hashed])
                    self._hashed += 1
                if self._hashed == len(self._crcs) and not self.complete:
                    self._finish()
                    finished = True
            finally:
                self._hashing.release()
        return finished

    def _is_behind(self) -> bool:
        return not self.complete and (self._hashed in self._arrived or self._hashed == len(self._crcs))

    def _hash_from_disk(self, part: Part) -> None:
        buffer, at, end = memoryview(bytearray(_BUFFER_BYTES)), part.offset, part.offset + part.length
        with disk_errors(self.path):
            while at < end:
                count = os.preadv(self._descriptor, [buffer[: min(_BUFFER_BYTES, end - at)]], at)
                if not count:
                    raise IntegrityError("the file became shorter while it arrived", where=str(self.path))
                self._sha256.update(buffer[:count])
                at += count

    def _finish(self) -> None:
        sha256 = self._sha256.hexdigest()
        if self.entry.sha256 not in {"", sha256}:
            if not self.entry.crc64nvme:  # which part is wrong nobody knows: none is kept for the next run
                self.path.unlink(missing_ok=True)
            raise IntegrityError(
                "a file is not the one that was declared", where=str(self.final), next_step=_MEND,
                why=f"its SHA-256 is {sha256}, declared is {self.entry.sha256}",
            )  # fmt: skip
        with disk_errors(self.path):
            # A time that has passed: whatever is written from now on shows, so the hash need not be made again.
            written = time.time_ns() - _PAST_NS
            os.utime(self._descriptor, ns=(written, written))
            os.fsync(self._descriptor)
        self.entry = FileEntry(self.entry.path, self.entry.size, sha256, tuple(self._crcs))
        self.complete = True

    def settle(self) -> None:
        """Give the complete file its name."""
        self.close()
        with disk_errors(self.final):
            self.path.replace(self.final)
            sync_folder(self.final.parent)


def _allocate(descriptor: int, size: int) -> None:
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in {errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS}:
            raise  # a disk that is full says so here


def _write_at(descriptor: int, chunk: memoryview, offset: int) -> None:
    while chunk:
        count = os.pwrite(descriptor, chunk, offset)
        chunk, offset = chunk[count:], offset + count


def _joined(where: str, path: str) -> str:
    return f"{where.rstrip('/')}/{path}"
