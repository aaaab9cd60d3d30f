"""One repository of a registry: manifests, blobs by range or as a stream, uploads."""

from __future__ import annotations

import hashlib
import json
import re

from modelberth.adapters.http_messages import Answer, Sink, is_range, range_header, wrong_range
from modelberth.adapters.registry import errors
from modelberth.adapters.registry.connection import Connection, RegistryOptions
from modelberth.adapters.registry.upload import DEFAULT_CHUNK_BYTES, BlobUpload, OnSession, Pieces, ignore_session
from modelberth.base.errors import IntegrityError
from modelberth.base.text import printable, shorten
from modelberth.delivery.image import INDEX_TYPE, MANIFEST_TYPE, Descriptor, describe, digest_of
from modelberth.spec.addresses import OciAddress

MAX_MANIFEST_BYTES = 4 << 20
"""What registries take at most (distribution specification 1.1, "Pushing manifests")."""
MAX_SMALL_BYTES = 64 << 20
_MANIFEST_TYPES = (
    MANIFEST_TYPE, INDEX_TYPE,
    "application/vnd.docker.distribution.manifest.v2+json", "application/vnd.docker.distribution.manifest.list.v2+json",
)  # fmt: skip
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class RangesUnsupported(IntegrityError):
    """The registry answers a range with the whole blob."""


class Registry:
    """One repository of one registry.

    Attributes:
        host: of the registry, as the address names it.
        where: the place, for messages.
    """

    def __init__(self, address: OciAddress, options: RegistryOptions | None = None) -> None:
        self._connection = Connection(address, options or RegistryOptions())
        self.host, self.where = self._connection.host, self._connection.where

    def close(self) -> None:
        """Close the connections; transfers of other threads end."""
        self._connection.wire.close()

    # --- manifests ---------------------------------------------------------------------------------------

    def tagged(self, reference: str) -> Descriptor | None:
        """The manifest or index that a tag or digest names, or None."""
        found = self._manifest(reference)
        return found[0] if found else None

    def read_manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        """The manifest or index of a tag or digest, its digest checked; the descriptor says which it is.

        Raises:
            IntegrityError: there is none, it is of an older format, or its bytes are not those of its digest.
        """
        found = self._manifest(reference)
        if found is None:
            raise IntegrityError(f"there is no image '{reference}'", where=self.where, next_step="correct the tag")
        return found

    def put_manifest(self, reference: str, content: bytes, media_type: str) -> Descriptor:
        """Let a tag, or its own digest, name a manifest whose blobs are all there."""
        blob = describe(media_type, content)
        where, headers = f"manifest {reference}", {"Content-Type": media_type}

        def attempt() -> Answer:
            return self._connection.once(
                "PUT", f"manifests/{reference}", "push", headers=headers, body=lambda: content, length=len(content)
            )

        answer = self._connection.patiently(attempt, where)
        if answer.status not in {200, 201, 202} or answer.is_page:
            if answer.status in {404, 405} and not errors.codes(answer):
                self._connection.require_registry()
            raise self._connection.meaning(answer, "push", where)
        if answer.headers.get("docker-content-digest", blob.digest) != blob.digest:
            raise IntegrityError("the registry has stored another manifest than was sent", where=self._at(where))
        return blob

    def _manifest(self, reference: str) -> tuple[Descriptor, bytes] | None:
        where, headers = f"manifest {reference}", {"Accept": ", ".join(_MANIFEST_TYPES)}
        content = bytearray()

        def take(chunk: memoryview) -> None:
            if len(content) + len(chunk) > MAX_MANIFEST_BYTES:
                raise IntegrityError("the manifest is too large for one", where=self._at(where))
            content.extend(chunk)

        def attempt() -> Answer:
            content.clear()
            return self._connection.get(
                "GET", f"manifests/{reference}", "pull", headers, lambda each: each.status == 200 and not each.is_page,
                take,
            )  # fmt: skip

        answer = self._connection.patiently(attempt, where)
        if answer.status == 404 and not answer.is_page:
            if not errors.codes(answer):
                self._connection.require_registry()
            return None
        if answer.status != 200 or answer.is_page:
            raise self._connection.meaning(answer, "pull", where)
        return self._checked(reference, bytes(content), answer), bytes(content)

    def _checked(self, reference: str, content: bytes, answer: Answer) -> Descriptor:
        """The descriptor of a manifest, if it is one, and the one that was asked for."""
        where = self._at(f"manifest {reference}")
        digest = digest_of(content)
        declared = reference if _DIGEST.fullmatch(reference) else answer.headers.get("docker-content-digest", digest)
        if declared.startswith("sha256:") and declared != digest:
            raise IntegrityError(
                "the manifest is not that of its digest", where=where, why=f"its bytes have {digest}",
                next_step="run it again; if it stays so, the registry or what is in between changes bytes",
            )  # fmt: skip
        media_type = _manifest_type(content, answer)
        if media_type not in _MANIFEST_TYPES:
            why = f"it is {shorten(printable(media_type), 80)}" if media_type else "it says nothing of what it is"
            raise IntegrityError("this is no image manifest that is known", where=where, why=why)
        return Descriptor(media_type, digest, len(content))

    # --- blobs -------------------------------------------------------------------------------------------

    def has(self, blob: Descriptor) -> bool:
        """Whether a blob is there, of its size where the registry says one."""
        where = f"blob {blob.digest}"

        def attempt() -> Answer:
            return self._connection.get("HEAD", f"blobs/{blob.digest}", "pull", {}, _no_body_wanted, _ignore_bytes)

        answer = self._connection.patiently(attempt, where)
        if answer.status == 404:
            return False
        if answer.status != 200 or answer.is_page:
            raise self._connection.meaning(answer, "pull", where)
        return answer.headers.get("content-length", str(blob.size)) == str(blob.size)

    def read_blob(self, blob: Descriptor) -> bytes:
        """A small blob, its digest checked.

        Raises:
            IntegrityError: it is not there, too large, or not what its digest says.
        """
        if blob.size > MAX_SMALL_BYTES:
            raise IntegrityError("the blob is too large for a document", where=self._at(f"blob {blob.digest}"))
        content = bytearray()
        self.stream_blob(blob, content.extend)
        return bytes(content)

    def read_range(self, blob: Descriptor, offset: int, length: int, sink: Sink) -> None:
        """A range of a blob into a sink, in order; after a broken connection it goes on where it was.

        What the bytes are is for the caller to check.

        Raises:
            RangesUnsupported: the registry sends the whole blob instead.
            IntegrityError: the blob is not there, or the answer is another range.
        """
        if not length:
            return
        transfer = _Transfer(self._connection, blob, offset, length, sink)
        answer = transfer.run()
        if not transfer.left:
            return
        where = f"blob {blob.digest}"
        at, left = transfer.at, transfer.left
        if answer.status in {200, 206} and not answer.is_page:
            if answer.status == 200 and "content-range" not in answer.headers:
                raise RangesUnsupported(
                    "the registry gives no ranges of blobs", where=self._at(where),
                    why=f"asked for bytes {at}-{at + left - 1}, it sends all",
                )  # fmt: skip
            raise wrong_range(answer, at, left, self._at(where))
        raise self._connection.meaning(answer, "pull", where)

    def stream_blob(self, blob: Descriptor, sink: Sink) -> None:
        """A whole blob into a sink, in order; its digest is checked after the last byte.

        A broken connection goes on where it was. What was sent before an error must not be used.

        Raises:
            IntegrityError: it is not there, of another size, or not what its digest says.
        """
        where, hasher = f"blob {blob.digest}", hashlib.sha256()

        def take(chunk: memoryview) -> None:
            hasher.update(chunk)
            sink(chunk)

        transfer = _Transfer(self._connection, blob, 0, blob.size, take, whole=True)
        answer = transfer.run()
        if not answer.is_page and answer.status in {200, 206}:
            if transfer.left:
                raise wrong_range(answer, transfer.at, transfer.left, self._at(where))
            if "sha256:" + hasher.hexdigest() != blob.digest:
                raise IntegrityError(
                    "a blob is not what its digest says", where=self._at(where),
                    why="a byte is wrong in the registry, or was changed on the way",
                    next_step="run it again; if it stays so, push the image anew",
                )  # fmt: skip
            return
        raise self._connection.meaning(answer, "pull", where)

    def push_blob(
        self, blob: Descriptor, pieces: Pieces, *, session: str = "", on_session: OnSession = ignore_session,
        chunk_bytes: int = DEFAULT_CHUNK_BYTES,
    ) -> int:  # fmt: skip
        """Send a blob that the registry does not have. Returns the bytes that moved.

        Args:
            blob: with digest and size.
            pieces: gives the bytes of a range of it, a megabyte at most at a time; called again for a retry.
            session: where an earlier process was with this blob; empty where none was.
            on_session: told where the upload is, from its beginning and after each chunk; kept for `session`.
            chunk_bytes: of one request.

        Raises:
            IntegrityError: the registry got other bytes than the digest says.
            DoesNotFit: it takes no blob of this size.
        """
        if self.has(blob):
            return 0
        return BlobUpload(self._connection, blob, pieces, on_session, chunk_bytes).run(session, self.has)

    def _at(self, what: str) -> str:
        return f"{self.where} {what}"


class _Transfer:
    """A range of a blob under way: what is left, and how the next attempt asks for it."""

    def __init__(
        self, connection: Connection, blob: Descriptor, offset: int, length: int, sink: Sink, *, whole: bool = False
    ) -> None:
        self._connection, self._blob, self._sink, self._whole = connection, blob, sink, whole
        self.at, self.left = offset, length
        self._skip = 0

    def run(self) -> Answer:
        """Transfer, with patience. Returns the last answer; with `left` bytes still missing it was a wrong one."""
        return self._connection.patiently(self._attempt, f"blob {self._blob.digest}")

    def _attempt(self) -> Answer:
        if not self.left and self.at:  # the connection broke off after the last byte
            return Answer(200, {})
        ranged = self.at > 0 or not self._whole
        headers = {"Range": range_header(self.at, self.left)} if ranged else {}
        return self._connection.get("GET", f"blobs/{self._blob.digest}", "pull", headers, self._accept, self._take)

    def _accept(self, answer: Answer) -> bool:
        self._skip = 0
        if answer.is_page:
            return False
        if is_range(answer, self.at, self.left):
            return True
        if not self._whole or answer.status != 200 or "content-range" in answer.headers:
            return False
        # The whole blob, asked for or not: what was had before passes by.
        self._skip = self.at
        return answer.headers.get("content-length", str(self._blob.size)) == str(self._blob.size)

    def _take(self, chunk: memoryview) -> None:
        skipped = min(self._skip, len(chunk))
        self._skip -= skipped
        chunk = chunk[skipped:]
        if len(chunk) > self.left:
            where = f"{self._connection.where} blob {self._blob.digest}"
            raise IntegrityError("the registry sends more than it was asked for", where=where)
        self.at, self.left = self.at + len(chunk), self.left - len(chunk)
        if chunk:
            self._sink(chunk)


def _manifest_type(content: bytes, answer: Answer) -> str:
    """What a manifest says it is; otherwise what the registry says of it."""
    try:
        document = json.loads(content)
        said = document.get("mediaType")
    except (ValueError, AttributeError, RecursionError):
        return ""
    if isinstance(said, str) and said:
        return said
    return answer.headers.get("content-type", "").partition(";")[0].strip()


def _no_body_wanted(_answer: Answer) -> bool:
    return False


def _ignore_bytes(_chunk: memoryview) -> None:
    return
