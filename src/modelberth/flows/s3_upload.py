"""The files of an origin into S3, part by part, several at a time; what the store has already confirmed stays.

From a folder a part is read and sent, and its bytes are compared with the manifest before the last of them leaves: a
file that changes under us never becomes an object. From a remote a part goes through a spool on disk, so the room that
is needed is that of the parts under way and not that of the model.
"""

from __future__ import annotations

import hashlib
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO

from modelberth.adapters.files import OnBytes, disk_errors, open_pieces
from modelberth.adapters.hashing import crc64nvme, crc_text
from modelberth.adapters.s3 import S3Store, StoredPart, Upload
from modelberth.base.errors import IntegrityError
from modelberth.delivery.journal import (
    Journal,
    SentPart,
    begun_line,
    file_line,
    is_sent,
    part_line,
    read_journal,
)
from modelberth.delivery.manifest import FileEntry, Part, part_count, parts, wanted_parts
from modelberth.flows.origins import Origin
from modelberth.flows.parallel import Task, run_parallel
from modelberth.flows.progress import OnFile
from modelberth.flows.spool import checked_pieces, path_of, spool_in
from modelberth.spec.addresses import S3Address

_BUFFER_BYTES = 256 << 10


class _Sending:
    """One object on its way: its parts that are missing, and the ETags of those that are there."""

    def __init__(self, entry: FileEntry, key: str, part_list: list[Part]) -> None:
        self.entry, self.key = entry, key
        self.pending = part_list
        self.left = len(part_list)
        self.active = 0
        self.upload: Upload | None = None
        self.etags: dict[int, str] = {}
        self.lock = threading.Lock()
        self.sha256 = hashlib.sha256()
        self.crcs: list[str] = []
        self.sent: dict[int, SentPart] = {}
        self.stored: dict[int, StoredPart] = {}


class Uploader:
    """Sends the files of one origin below one prefix. A context manager: it holds the journal and the spools."""

    def __init__(
        self, origin: Origin, store: S3Store, address: S3Address, on_bytes: OnBytes, on_file: OnFile,
        workspace: Path | None, journal: Path | None,
    ) -> None:  # fmt: skip
        self._origin, self._store, self._address = origin, store, address
        self._on_bytes, self._on_file = on_bytes, on_file
        self._spools, self._path = workspace or Path(tempfile.gettempdir()), journal
        self._known = Journal()
        self._journal: BinaryIO | None = None
        self._lock = threading.Lock()
        self._local = threading.local()
        self._sending: list[_Sending] = []
        self._done: list[FileEntry] = []
        self.moved = 0

    def __enter__(self) -> Uploader:
        """Open the journal."""
        if self._path is not None:
            with disk_errors(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                content = self._path.read_bytes() if self._path.exists() else b""
                self._known = read_journal(content)
                self._journal = self._path.open("ab", buffering=0)
                if content and not content.endswith(b"\n"):
                    self._journal.write(b"\n")  # a kill has torn off the last line
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the journal; it stays for the next run."""
        if self._journal:
            self._journal.close()

    def forget(self) -> None:
        """Remove the journal: the delivery is complete."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def send_all(self, kept: list[FileEntry], connections: int) -> tuple[FileEntry, ...]:
        """Send every file that is not kept; returns the entries of all files, sorted by path.

        Raises:
            IntegrityError: a file changed under us, or is not what its source declares.
        """
        for entry in self._origin.files:
            entry = self._known.files.get(entry.path, entry) if not entry.crc64nvme else entry
            there = next((each for each in kept if each.path == entry.path), None)
            entry = there if there is not None and there.crc64nvme else entry
            if there is not None and entry.crc64nvme:
                self._done.append(entry)
                self._on_bytes(entry.size)
                self._on_file(entry.path)
            else:
                self._sending.append(self._begin(entry))
        if self._sending:
            run_parallel(self._next, connections, self._stop)
        return tuple(sorted(self._done, key=lambda entry: entry.path))

    def _stop(self) -> None:
        self._origin.stop()
        self._store.close()

    # --- which parts -------------------------------------------------------------------------------------

    def _begin(self, entry: FileEntry) -> _Sending:
        return _Sending(entry, self._address.key(entry.path), list(wanted_parts(entry, self._origin.part_bytes)))

    def _next(self) -> Task | None:
        """The next part, of the file that fewest are busy with; a whole file where its hashes are not known yet."""
        waiting = [sending for sending in self._sending if sending.pending]
        if not waiting:
            return None
        sending = min(waiting, key=lambda each: each.active)
        sending.active += 1
        if not sending.entry.crc64nvme:
            taken, sending.pending = sending.pending, []
            return partial(self._stream_file, sending, taken)
        return partial(self._send_known, sending, sending.pending.pop(0))

    def _send_known(self, sending: _Sending, part: Part) -> None:
        try:
            if len(sending.entry.crc64nvme) == 1:
                with self._pieces(sending.entry, part) as pieces:
                    self._store.put_pieces(sending.key, part.length, part.crc64nvme, pieces)
                self._count(part.length)
            else:
                self._send_part(sending, part)
            with sending.lock:
                sending.left -= 1
                last = sending.left == 0
            if last:
                self._complete(sending)
        finally:
            sending.active -= 1

    def _send_part(self, sending: _Sending, part: Part) -> None:
        upload = self._upload(sending)
        if part.number + 1 in sending.etags:
            self._on_bytes(part.length)
            return
        with self._pieces(sending.entry, part) as pieces:
            etag = self._store.put_part(upload, part.number + 1, part.length, part.crc64nvme, pieces)
        self._confirmed(sending, part, etag)

    def _confirmed(self, sending: _Sending, part: Part, etag: str) -> None:
        with sending.lock:
            sending.etags[part.number + 1] = etag
        self._write(part_line(sending.key, part.number + 1, SentPart(part.crc64nvme, etag)))
        self._count(part.length)

    def _complete(self, sending: _Sending) -> None:
        if sending.upload is not None:
            self._store.complete_upload(sending.upload, sending.etags, sending.entry.size)
        with self._lock:
            self._done.append(sending.entry)
        self._on_file(sending.entry.path)

    # --- an upload that an earlier run began ---------------------------------------------------------------

    def _upload(self, sending: _Sending) -> Upload:
        """The multipart upload of an object, an earlier run's where there is one."""
        with sending.lock:
            if sending.upload is None:
                sending.upload = self._resumed(sending) or self._new_upload(sending.key)
            return sending.upload

    def _new_upload(self, key: str) -> Upload:
        upload = self._store.begin_upload(key)
        self._write(begun_line(key, upload.id))
        return upload

    def _resumed(self, sending: _Sending) -> Upload | None:
        """The upload of an earlier run, with the parts of it that are right."""
        known = self._known.uploads.get(sending.key)
        pending = [known.upload] if known else []
        pending += [item.id for item in self._store.pending_uploads(sending.key) if item.key == sending.key]
        resumed = None
        for upload_id in dict.fromkeys(pending):
            if resumed is not None:
                self._store.abort_upload(sending.key, upload_id)  # nobody else ships here: it is an orphan
                continue
            stored = self._store.stored_parts(sending.key, upload_id)
            if stored is None:
                continue
            sent = known.parts if known and known.upload == upload_id else {}
            right = {
                part.number + 1: stored[part.number + 1].etag
                for part in parts(sending.entry, self._origin.part_bytes)
                if part.number + 1 in stored
                and self._is_sent(sending.entry, part, stored[part.number + 1], sent.get(part.number + 1))
            }
            if len(right) < len(stored):
                self._store.abort_upload(sending.key, upload_id)  # not every store takes a part a second time
                continue
            resumed = Upload(sending.key, upload_id, any(part.crc64nvme for part in stored.values()))
            sending.etags.update(right)
        return resumed

    def _is_sent(self, entry: FileEntry, part: Part, stored: StoredPart, sent: SentPart | None) -> bool:
        def decide(md5s: tuple[str, ...]) -> bool:
            return is_sent(
                part.crc64nvme, part.length, stored_size=stored.size, stored_etag=stored.etag,
                stored_crc=stored.crc64nvme, sent=sent, md5s=md5s,
            )  # fmt: skip

        if decide(()) or stored.crc64nvme or stored.size != part.length or len(stored.etag) != 32:
            return decide(())
        return self._origin.folder is not None and decide((self._md5(self._origin.folder / entry.path, part),))

    @staticmethod
    def _md5(path: Path, part: Part) -> str:
        hasher = hashlib.md5(usedforsecurity=False)
        with disk_errors(path):
            for piece in open_pieces(path, part.offset, part.length, memoryview(bytearray(_BUFFER_BYTES))):
                hasher.update(piece)
        return hasher.hexdigest()

    # --- hashes that are found on the way --------------------------------------------------------------------

    def _stream_file(self, sending: _Sending, wanted: list[Part]) -> None:
        """One file of a remote, from its first part to its last; its hashes are known at the end.

        Raises:
            IntegrityError: its SHA-256 is not the declared one; no object is made of it.
        """
        many = len(wanted) > 1
        upload = self._upload_of_stream(sending) if many else None
        for part in wanted:
            with spool_in(self._spools) as spool:
                crc = self._fill_spool(spool, sending, part)
                part = Part(part.number, part.offset, part.length, crc)
                place = f"{self._origin.where} {sending.entry.path}"
                pieces = partial(checked_pieces, path_of(spool), 0, part, place, self._buffer())
                if upload is None:
                    self._check_stream(sending)
                    self._store.put_pieces(sending.key, part.length, crc, pieces)
                    self._count(part.length)
                elif self._was_streamed(sending, part):
                    self._on_bytes(part.length)
                else:
                    etag = self._store.put_part(upload, part.number + 1, part.length, crc, pieces)
                    self._confirmed(sending, part, etag)
        self._check_stream(sending)
        sending.entry = FileEntry(
            sending.entry.path, sending.entry.size, sending.sha256.hexdigest(), tuple(sending.crcs)
        )  # fmt: skip
        self._write(file_line(sending.entry))
        self._complete(sending)

    def _upload_of_stream(self, sending: _Sending) -> Upload:
        """The upload of an earlier run, if it can be gone on with: its bytes are read again, to be hashed."""
        known = self._known.uploads.get(sending.key)
        stored = self._store.stored_parts(sending.key, known.upload) if known else None
        if known is None or stored is None:
            for item in self._store.pending_uploads(sending.key):
                if item.key == sending.key:  # nobody else ships here: it is an orphan
                    self._store.abort_upload(item.key, item.id)
            sending.upload = self._new_upload(sending.key)
            return sending.upload
        sending.upload = Upload(sending.key, known.upload, any(part.crc64nvme for part in stored.values()))
        sending.sent, sending.stored = known.parts, stored
        return sending.upload

    def _was_streamed(self, sending: _Sending, part: Part) -> bool:
        """Whether an earlier run sent this part; its ETag is kept then."""
        stored = sending.stored.get(part.number + 1)
        if stored is None or not self._is_sent(sending.entry, part, stored, sending.sent.get(part.number + 1)):
            return False
        sending.etags[part.number + 1] = stored.etag
        return True

    def _fill_spool(self, spool: IO[bytes], sending: _Sending, part: Part) -> str:
        """Read a part of a remote into a spool; returns its CRC-64/NVME."""
        for attempt in range(2):
            spool.seek(0)
            spool.truncate()
            hasher, crc = sending.sha256.copy(), 0

            def sink(chunk: memoryview, hasher: hashlib._Hash = hasher) -> None:
                nonlocal crc
                crc = crc64nvme(chunk, crc)
                hasher.update(chunk)
                with disk_errors(self._spools):
                    spool.write(chunk)

            try:
                self._origin.read(sending.entry.path, part.offset, part.length, sink)
            except IntegrityError:
                if attempt:
                    raise
                continue
            break
        spool.flush()
        sending.sha256 = hasher
        sending.crcs.append(crc_text(crc))
        return crc_text(crc)

    def _check_stream(self, sending: _Sending) -> None:
        declared, found = sending.entry.sha256, sending.sha256.hexdigest()
        complete = len(sending.crcs) == part_count(sending.entry.size, self._origin.part_bytes)
        if complete and declared not in {"", found}:
            if sending.upload is not None:  # of wrong bytes: the next run begins anew
                self._store.abort_upload(sending.key, sending.upload.id)
            raise IntegrityError(
                "a file is not the one that its source declares", where=f"{self._origin.where} {sending.entry.path}",
                why=f"its SHA-256 is {found}, declared is {declared}", next_step="run the same command again",
            )  # fmt: skip

    # --- bytes -------------------------------------------------------------------------------------------

    @contextmanager
    def _pieces(self, entry: FileEntry, part: Part) -> Iterator[partial[Iterator[memoryview]]]:
        """The bytes of a part, as often as they are wanted, compared with the manifest."""
        if self._origin.folder is not None:
            path = self._origin.folder / entry.path
            yield partial(checked_pieces, path, part.offset, part, str(path), self._buffer())
            return
        with spool_in(self._spools) as spool:

            def sink(chunk: memoryview) -> None:
                with disk_errors(self._spools):
                    spool.write(chunk)

            self._origin.read(entry.path, part.offset, part.length, sink)
            spool.flush()
            place = f"{self._origin.where} {entry.path}"
            yield partial(checked_pieces, path_of(spool), 0, part, place, self._buffer())

    def _buffer(self) -> memoryview:
        if not hasattr(self._local, "buffer"):
            self._local.buffer = memoryview(bytearray(_BUFFER_BYTES))
        buffer: memoryview = self._local.buffer
        return buffer

    def _count(self, count: int) -> None:
        with self._lock:
            self.moved += count
        self._on_bytes(count)

    def _write(self, line: bytes) -> None:
        if self._journal and self._path:
            with disk_errors(self._path):
                self._journal.write(line)
