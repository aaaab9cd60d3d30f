"""OCI image layouts on disk: writing model images into one, and reading them back with every byte checked.

A layout is a folder: `oci-layout`, `index.json` with the tags, and blobs by digest. Several images share the
blobs they have in common. Source: OCI image layout specification 1.1.
"""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from modelberth.adapters.files import CHUNK_BYTES, disk_errors, open_pieces, write_file, writing
from modelberth.adapters.http_messages import Sink
from modelberth.base.errors import IntegrityError
from modelberth.delivery import image
from modelberth.delivery.image import Descriptor

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
MAX_DOCUMENT_BYTES = 64 << 20
_BUFFER_BYTES = 256 << 10


class Layout:
    """One image layout; the folder is made when something is first written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.where = str(folder)

    def close(self) -> None:
        """Nothing is held."""

    def tagged(self, tag: str) -> Descriptor | None:
        """The manifest that a tag or a digest names, or None."""
        for item in self._index()["manifests"]:
            if _tag(item) == tag or item["digest"] == tag:
                return Descriptor(item["mediaType"], item["digest"], item["size"])
        return None

    def set_tag(self, tag: str, manifest: Descriptor) -> None:
        """Let a tag name a manifest; what it named before stays in the layout, untagged."""
        self._write_index(tag, [{**manifest.to_json(), "annotations": {image.REF_NAME: tag}}])

    def remove_tag(self, tag: str) -> None:
        """Let a tag name nothing any more."""
        self._write_index(tag, [])

    def _write_index(self, tag: str, entries: list[dict[str, Any]]) -> None:
        """The index with `entries` in place of what `tag` named."""
        index = self._index()
        index["manifests"] = [*(item for item in index["manifests"] if _tag(item) != tag), *entries]
        write_file(self.folder / "oci-layout", _LAYOUT)
        write_file(self.folder / "index.json", json.dumps(index, indent=1).encode() + b"\n")

    def has(self, blob: Descriptor) -> bool:
        """Whether a blob of this digest and size is there; its bytes are checked when they are read."""
        path = self._path(blob.digest)
        return path.is_file() and path.stat().st_size == blob.size

    def write_blob(self, media_type: str, content: bytes, path: str = "") -> Descriptor:
        """Store a small blob."""
        blob = image.describe(media_type, content, path)
        if not self.has(blob):
            write_file(self._path(blob.digest), content)
        return blob

    def write_layer(self, chunks: Iterable[bytes], path: str) -> Descriptor:
        """Store a layer from its bytes; its digest is known, and so is its name, when the last has come."""
        hasher, size = hashlib.sha256(), 0
        arriving = self.folder / "blobs" / "sha256" / f"arriving-{uuid.uuid4().hex}"
        with writing(arriving) as file:
            for chunk in chunks:
                file.write(chunk)
                hasher.update(chunk)
                size += len(chunk)
        blob = Descriptor(image.LAYER_TYPE, "sha256:" + hasher.hexdigest(), size, path)
        with disk_errors(arriving):
            arriving.replace(self._path(blob.digest))
        return blob

    def write_stream(self, blob: Descriptor, fill: Callable[[Sink], None]) -> None:
        """Store a blob whose digest is known; `fill` sends its bytes, and has checked them when it returns."""
        with writing(self._path(blob.digest)) as file:

            def sink(chunk: memoryview) -> None:
                file.write(chunk)

            fill(sink)

    def read_blob(self, blob: Descriptor) -> bytes:
        """A small blob's bytes.

        Raises:
            IntegrityError: it is not there, or its bytes are not those of its digest.
        """
        if blob.size > MAX_DOCUMENT_BYTES:
            raise IntegrityError("the blob is too large for a document", where=blob.digest)
        return b"".join(self.chunks(blob))

    def read_manifest(self, reference: str) -> tuple[Descriptor, bytes]:
        """The manifest of a tag, or of a digest, its digest checked.

        Raises:
            IntegrityError: there is none, or its bytes are not those of its digest.
        """
        blob = self.tagged(reference)
        if blob is None:
            raise IntegrityError(f"there is no image '{reference}'", where=str(self.folder))
        return blob, self.read_blob(blob)

    def stream_blob(self, blob: Descriptor, sink: Sink) -> None:
        """A whole blob into a sink; its digest is checked after the last byte."""
        for chunk in self.chunks(blob):
            sink(memoryview(chunk))

    def read_range(self, blob: Descriptor, offset: int, length: int, sink: Sink) -> None:
        """A range of a blob into a sink; what it holds is for the caller to check.

        Raises:
            IntegrityError: the blob is not there, or shorter.
        """
        path = self._path(blob.digest)
        if not path.is_file():
            raise self._wrong(blob, "it is not there")
        buffer = memoryview(bytearray(min(_BUFFER_BYTES, max(1, length))))
        with disk_errors(path):
            for piece in open_pieces(path, offset, length, buffer):
                sink(piece)
                length -= len(piece)
        if length:
            raise self._wrong(blob, "its size is not the declared one")

    def chunks(self, blob: Descriptor) -> Iterator[bytes]:
        """A blob's bytes in pieces; the digest is checked after the last.

        Raises:
            IntegrityError: as for `read_blob`. What was yielded before must not be used then.
        """
        path = self._path(blob.digest)
        if not path.is_file():
            raise self._wrong(blob, "it is not there")
        hasher = hashlib.sha256()
        with disk_errors(path), path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != blob.size:
                raise self._wrong(blob, "its size is not the declared one")
            while chunk := file.read(CHUNK_BYTES):
                hasher.update(chunk)
                yield chunk
        if "sha256:" + hasher.hexdigest() != blob.digest:
            raise self._wrong(blob, "its bytes are not those of its digest")

    def unused(self) -> tuple[str, ...]:
        """Digests of blobs that no tag leads to: of images replaced since, and of builds that were killed.

        Nothing where a manifest cannot be read: what it needs is not known then.
        """
        used: set[str] = set()
        for item in self._index()["manifests"]:
            manifest = Descriptor(item["mediaType"], item["digest"], item["size"])
            try:
                blobs = image.blobs_of(self.read_blob(manifest))
            except IntegrityError:
                return ()
            used |= {blob.digest.partition(":")[2] for blob in (manifest, *blobs)}
        return tuple(sorted(blob.name for blob in self.folder.glob("blobs/sha256/*") if blob.name not in used))

    def remove_blob(self, name: str) -> None:
        """Remove a blob by the name of its file."""
        with disk_errors(self.folder):
            (self.folder / "blobs" / "sha256" / name).unlink(missing_ok=True)

    def remove_wrong(self) -> None:
        """Remove blobs that are not what their digest says, all of them read. Only for who holds the lock."""
        for path in self.folder.glob("blobs/sha256/*"):
            blob = Descriptor("", f"sha256:{path.name}", path.stat().st_size)
            try:
                for _ in self.chunks(blob):
                    continue
            except IntegrityError:
                self.remove_blob(path.name)

    def remove_unused(self) -> None:
        """Remove what `unused` finds. Only for who holds the layout's lock."""
        for name in self.unused():
            self.remove_blob(name)

    def _wrong(self, blob: Descriptor, why: str) -> IntegrityError:
        what = f"layer of {blob.path}" if blob.path else "blob"
        return IntegrityError(
            f"a {what} cannot be used",
            where=str(self._path(blob.digest)),
            why=why,
            next_step="remove it and build the image again",
        )

    def _path(self, digest: str) -> Path:
        algorithm, _, value = digest.partition(":")
        if algorithm != "sha256" or len(value) != 64 or set(value) - set("0123456789abcdef"):
            raise IntegrityError(f"{digest!r} is no digest", where=str(self.folder))
        return self.folder / "blobs" / "sha256" / value

    def _index(self) -> dict[str, Any]:
        path = self.folder / "index.json"
        try:
            index = json.loads(path.read_bytes())
            if not isinstance(index["manifests"], list) or not all(map(_is_descriptor, index["manifests"])):
                raise IntegrityError("the layout's index cannot be read", where=str(path))
        except FileNotFoundError:
            return {"schemaVersion": 2, "mediaType": image.INDEX_TYPE, "manifests": []}
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise IntegrityError("the layout's index cannot be read", where=str(path)) from error
        return dict(index)


def _is_descriptor(item: Any) -> bool:
    """Whether an entry of an index, which another tool may have written, is one."""
    kinds = {"mediaType": str, "digest": str, "size": int}
    return (
        isinstance(item, dict)
        and all(isinstance(item.get(key), kind) for key, kind in kinds.items())
        and isinstance(item.get("annotations") or {}, dict)
    )


def _tag(item: dict[str, Any]) -> Any:
    return (item.get("annotations") or {}).get(image.REF_NAME)
