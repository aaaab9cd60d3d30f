"""An upload of one blob in chunks: begun, gone on with where the registry says it is, and finished with its digest.

Docker's registry (distribution 2.8 and earlier) gives an upload up when a chunk broke off in the middle: its address
names an offset that does not hold any more. It is begun anew then. Registries that follow the specification say how
far they are, and only what is missing moves.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from modelberth.adapters.http_messages import Answer
from modelberth.adapters.registry import errors
from modelberth.adapters.registry.connection import Connection
from modelberth.base.errors import IntegrityError, RemoteUnavailable
from modelberth.delivery.image import Descriptor

DEFAULT_CHUNK_BYTES = 64 << 20
Pieces = Callable[[int, int], Iterator[memoryview]]
"""Gives a range of a blob, by offset and length."""
OnSession = Callable[[str, int], None]
"""Told the address of an upload and how far it is."""
_MOST_BEGINNINGS = 4
"""So often an upload is begun for one blob: a registry that forgets it each time would have us send for ever."""
_HASHING_BYTES_PER_SECOND = 50e6
"""Registries read a blob once more before they take it; slow ones do so at this rate."""
_TAKEN = {200, 201, 202, 204}
_GONE = {400, 404, 409, 410, 416}
"""Answers about an upload that is not there any more, or not where its address says."""


def ignore_session(_address: str, _offset: int) -> None:
    """For who does not go on with uploads of other processes."""


class _NeedsBeginning(Exception):
    """The registry has forgotten the upload."""


class BlobUpload:
    """An upload of one blob.

    Args:
        connection: to the repository.
        blob: with digest and size.
        pieces: of it.
        on_session: told where the upload is.
        chunk_bytes: of one request.
    """

    def __init__(
        self, connection: Connection, blob: Descriptor, pieces: Pieces, on_session: OnSession, chunk_bytes: int
    ) -> None:
        self._connection, self._blob, self._pieces = connection, blob, pieces
        self._on_session, self._chunk_bytes = on_session, chunk_bytes
        self._what = f"blob {blob.digest}"
        self._place, self._offset = "", 0
        self._beginnings = self._moved = 0
        self._sure = True
        self._continued = False
        """Whether bytes count that were sent before a break: if the digest is wrong then, they may be why."""

    def run(self, session: str, has: Callable[[Descriptor], bool]) -> int:
        """Send what is missing. Returns the bytes that moved.

        Args:
            session: address of an upload of an earlier process; empty for none.
            has: whether the registry has the blob.
        """
        if not self._goes_on(session):
            self._begin()
        while True:
            try:
                while self._offset < self._blob.size:
                    self._send_chunk()
                if self._finish():
                    return self._moved
            except _NeedsBeginning:
                # Perhaps it is gone because it is done: the answer to the last request may have been lost.
                if has(self._blob):
                    return self._moved
            self._begin()

    # --- where it is -------------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin a new upload."""
        self._beginnings += 1
        if self._beginnings > _MOST_BEGINNINGS:
            raise RemoteUnavailable(
                "the registry loses its uploads", where=self._where, why=f"it was begun {_MOST_BEGINNINGS} times",
                next_step="push over a steadier connection, or save the model in smaller shards (max_shard_size)",
            )  # fmt: skip
        answer = self._connection.patiently(lambda: self._connection.once("POST", "blobs/uploads/", "push"), self._what)
        if answer.status not in {200, 201, 202} or answer.is_page:
            if answer.status in {404, 405} and not errors.codes(answer):
                self._connection.require_registry()
            raise self._connection.meaning(answer, "push", self._what)
        if not answer.headers.get("location"):
            raise errors.no_registry(self._where, "an upload was begun, but it does not say where")
        smallest = answer.headers.get("oci-chunk-min-length", "")
        if smallest.isdecimal():
            self._chunk_bytes = max(self._chunk_bytes, int(smallest))
        self._sure, self._continued, self._offset = True, False, 0
        self._moved_to(answer, 0)

    def _goes_on(self, session: str) -> bool:
        """Whether an upload of an earlier process can be gone on with."""
        if not session:
            return False
        self._place = session
        answer = self._connection.patiently(self._ask, self._what)
        return self._take_status(answer)

    def _ask(self) -> Answer:
        return self._connection.once("GET", self._place, "push")

    def _take_status(self, answer: Answer) -> bool:
        """Believe what the registry says of the upload; False where it has none, or one that cannot be right."""
        found = re.fullmatch(r"(?:bytes=)?0-(\d{1,15})", answer.headers.get("range", ""))
        if answer.status not in _TAKEN or answer.is_page or not found:
            return False
        # An upload without a byte says 0-0, and so does one of a single byte.
        end = 0 if found[1] == "0" else int(found[1]) + 1
        if end > self._blob.size:
            return False
        self._sure, self._continued = True, end > 0
        self._moved_to(answer, end)
        return True

    def _moved_to(self, answer: Answer, offset: int) -> None:
        self._offset = offset
        if location := answer.headers.get("location"):
            self._place = self._connection.url(location)
        self._on_session(self._connection.kept(self._place), offset)

    # --- bytes -------------------------------------------------------------------------------------------

    def _send_chunk(self) -> None:
        """Send the next chunk; after a break the registry is asked first how far it is."""
        before = self._offset
        answer = self._connection.patiently(self._try_chunk, self._what)
        if answer.status in _GONE and not answer.is_page and self._offset == before:
            if answer.status in {400, 404} and not errors.codes(answer):
                raise self._connection.meaning(answer, "push", self._what)
            raise _NeedsBeginning
        if answer.status not in _TAKEN or answer.is_page:
            raise self._connection.meaning(answer, "push", self._what)

    def _try_chunk(self) -> Answer:
        if not self._sure:
            answer = self._ask()
            if answer.status >= 500 or answer.status in {401, 403, 429}:
                return answer
            if not self._take_status(answer):
                raise _NeedsBeginning
            if self._offset >= self._blob.size:
                return answer
        self._sure = False
        begin, length = self._offset, min(self._chunk_bytes, self._blob.size - self._offset)
        headers = {"Content-Type": "application/octet-stream", "Content-Range": f"{begin}-{begin + length - 1}"}
        answer = self._connection.once(
            "PATCH", self._place, "push", headers=headers, body=lambda: self._counted(begin, length), length=length
        )
        if answer.status in _TAKEN and not answer.is_page:
            self._take_progress(answer, begin, length)
        return answer

    def _take_progress(self, answer: Answer, begin: int, length: int) -> None:
        """How far the registry is after a chunk; it may have taken less than was sent."""
        found = re.fullmatch(r"(?:bytes=)?0-(\d{1,15})", answer.headers.get("range", ""))
        end = int(found[1]) + 1 if found else begin + length
        if not begin < end <= begin + length:
            raise _NeedsBeginning
        self._sure = True
        self._moved_to(answer, end)

    def _counted(self, begin: int, length: int) -> Iterator[memoryview]:
        """Pieces of a range, exactly as many bytes as were announced."""
        left = length
        for piece in self._pieces(begin, length):
            left -= len(piece)
            if left < 0:
                break
            self._moved += len(piece)
            yield piece
        if left:
            raise IntegrityError(
                "what is pushed has another size than it had", where=self._where,
                why=f"{abs(left):,} bytes are {'missing' if left > 0 else 'too many'} at {begin:,}",
                next_step="leave the files alone meanwhile, then run it again",
            )  # fmt: skip

    # --- the end -----------------------------------------------------------------------------------------

    def _finish(self) -> bool:
        """Have the registry take the blob. False: it has to be sent once more, from its beginning."""
        separator = "&" if "?" in self._place else "?"
        place = f"{self._place}{separator}digest={self._blob.digest}"
        slow = self._blob.size / _HASHING_BYTES_PER_SECOND
        answer = self._connection.patiently(
            lambda: self._connection.once("PUT", place, "push", slow_seconds=slow), self._what
        )
        if answer.status in _TAKEN and not answer.is_page:
            return True
        if "DIGEST_INVALID" in errors.codes(answer):
            if self._continued:
                return False
            raise IntegrityError(
                "the registry got other bytes than were sent", where=self._where, why="DIGEST_INVALID",
                next_step="run it again; if it stays so, the files changed, or what is in between changes bytes",
            )  # fmt: skip
        if answer.status in _GONE and not answer.is_page and errors.codes(answer):
            raise _NeedsBeginning
        raise self._connection.meaning(answer, "push", self._what)

    @property
    def _where(self) -> str:
        return f"{self._connection.where} {self._what}"
